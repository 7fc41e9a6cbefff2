/*
 * Memory that lives as long as one request or one task.  nginx's host wraps
 * r->pool, workers and tests use the arena below.  Nothing is freed one by
 * one; foreign resources register on_free() right after they are created.
 */

#ifndef STOA_MEM_H_INCLUDED
#define STOA_MEM_H_INCLUDED

#include "stoa.h"

typedef struct stoa_mem_s {
    void *(*alloc)(void *ctx, size_t size); /* 16-aligned; NULL: no memory */
    bool (*on_free)(void *ctx, void (*fn)(void *data), void *data);
    void *ctx;
} stoa_mem_t;

static inline void *
stoa_alloc(stoa_mem_t *mem, size_t size)
{
    return mem->alloc(mem->ctx, size);
}

/* Zeroed; NULL: no memory. */
void *stoa_calloc(stoa_mem_t *mem, size_t size);

/* Copy with a NUL behind it; NULL: no memory. */
char *stoa_strdup_z(stoa_mem_t *mem, stoa_str_t s);

/* Arena: grows by blocks up to max bytes in all, then alloc() gives NULL. */
stoa_mem_t *stoa_arena_create(size_t block, size_t max);
void        stoa_arena_destroy(stoa_mem_t *mem);

#endif /* STOA_MEM_H_INCLUDED */
