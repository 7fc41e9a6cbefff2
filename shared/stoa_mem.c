/*
 * The arena: memory of one task, one command or one test.  It grows by
 * blocks, refuses what would pass its maximum, runs the registered cleanups
 * in reverse order and frees everything at once.  Under AddressSanitizer
 * each allocation is a block of its own, so that overruns show.
 * The only file of shared/ whose allocations are not counted by a caller.
 */

#include "stoa_mem.h"

#include <stdlib.h>

#define STOA_ARENA_MAGIC 0x53746f41U
#define STOA_ARENA_ALIGN 16

#ifndef __has_feature
#define __has_feature(x) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define STOA_ARENA_SINGLE 1
#else
#define STOA_ARENA_SINGLE 0
#endif

typedef struct stoa_arena_block_s stoa_arena_block_t;
typedef struct stoa_arena_clean_s stoa_arena_clean_t;

struct stoa_arena_block_s {
    stoa_arena_block_t *next;
    size_t              size; /* usable bytes behind this header */
    size_t              used;
} __attribute__((aligned(STOA_ARENA_ALIGN)));

struct stoa_arena_clean_s {
    stoa_arena_clean_t *next;
    void (*fn)(void *data);
    void *data;
};

typedef struct {
    uint32_t            magic;
    stoa_mem_t          mem;
    stoa_arena_block_t *blocks; /* the newest first */
    stoa_arena_clean_t *cleanups;
    size_t              block;
    size_t              left; /* of the maximum */
} stoa_arena_t;


void *
stoa_calloc(stoa_mem_t *mem, size_t size)
{
    void *p = stoa_alloc(mem, size);

    if (p != NULL) {
        memset(p, 0, size);
    }

    return p;
}


char *
stoa_strdup_z(stoa_mem_t *mem, stoa_str_t s)
{
    char *p;

    if (s.len == SIZE_MAX) {
        return NULL;
    }

    p = stoa_alloc(mem, s.len + 1);
    if (p == NULL) {
        return NULL;
    }

    if (s.len != 0) {
        memcpy(p, s.data, s.len);
    }

    p[s.len] = '\0';

    return p;
}


static void *
stoa_arena_alloc(void *ctx, size_t size)
{
    stoa_arena_t       *arena;
    stoa_arena_block_t *b;
    size_t              room;
    unsigned char      *p;

    arena = stoa_cast(stoa_arena_t, STOA_ARENA_MAGIC, ctx);

    if (arena == NULL || size > SIZE_MAX / 2) {
        return NULL;
    }

    if (!STOA_ARENA_SINGLE) {
        size = (size + STOA_ARENA_ALIGN - 1) & ~(size_t) (STOA_ARENA_ALIGN - 1);
    }

    b = arena->blocks;

    if (STOA_ARENA_SINGLE || b == NULL || b->size - b->used < size) {
        room = STOA_ARENA_SINGLE || size > arena->block ? size : arena->block;

        if (room > arena->left) {
            room = size;
        }

        if (room > arena->left) {
            return NULL;
        }

        b = malloc(sizeof(stoa_arena_block_t) + room);
        if (b == NULL) {
            return NULL;
        }

        b->size = room;
        b->used = 0;
        b->next = arena->blocks;
        arena->blocks = b;
        arena->left -= room;
    }

    p = (unsigned char *) (b + 1) + b->used;
    b->used += size;

    return p;
}


static bool
stoa_arena_on_free(void *ctx, void (*fn)(void *data), void *data)
{
    stoa_arena_t       *arena;
    stoa_arena_clean_t *c;

    arena = stoa_cast(stoa_arena_t, STOA_ARENA_MAGIC, ctx);

    if (arena == NULL) {
        return false;
    }

    c = stoa_arena_alloc(arena, sizeof(stoa_arena_clean_t));
    if (c == NULL) {
        return false;
    }

    c->fn = fn;
    c->data = data;
    c->next = arena->cleanups;
    arena->cleanups = c;

    return true;
}


stoa_mem_t *
stoa_arena_create(size_t block, size_t max)
{
    stoa_arena_t *arena;

    arena = calloc(1, sizeof(stoa_arena_t));
    if (arena == NULL) {
        return NULL;
    }

    arena->magic = STOA_ARENA_MAGIC;
    arena->block = block < 256 ? 256 : block;
    arena->left = max;
    arena->mem.alloc = stoa_arena_alloc;
    arena->mem.on_free = stoa_arena_on_free;
    arena->mem.ctx = arena;

    return &arena->mem;
}


void
stoa_arena_destroy(stoa_mem_t *mem)
{
    stoa_arena_t       *arena;
    stoa_arena_block_t *b, *next;
    stoa_arena_clean_t *c;

    if (mem == NULL) {
        return;
    }

    arena = stoa_cast(stoa_arena_t, STOA_ARENA_MAGIC, mem->ctx);

    if (arena == NULL) {
        return;
    }

    for (c = arena->cleanups; c != NULL; c = c->next) {
        c->fn(c->data);
    }

    for (b = arena->blocks; b != NULL; b = next) {
        next = b->next;
        free(b);
    }

    arena->magic = 0;
    free(arena);
}
