/*
 * The memory that password hashes work in, kept from one to the next.
 *
 * libsodium maps 19 MiB for each Argon2id hash and unmaps them after it; the
 * kernel, which clears the fresh pages, takes as long as the hash.  The module
 * has a libsodium of its own (config) whose mmap() and munmap() the linker
 * leads here: ld(1), --wrap.  What is called outside a hash goes to the C
 * library as ever.
 *
 * A place belongs to whoever moves it from FREE or EMPTY to TAKEN: a thread of
 * the pool, or the loop, which gives back what rested for a while.
 */

#include "ngx_http_stoa_zone.h"

#include <sys/mman.h>

#define NGX_HTTP_STOA_HASH_MEM_PLACES 64
#define NGX_HTTP_STOA_HASH_MEM_REST   10000000           /* us */
#define NGX_HTTP_STOA_HASH_MEM_PAGE   ((size_t) 2 << 20) /* a huge one */

typedef enum {
    NGX_HTTP_STOA_HASH_MEM_EMPTY = 0,
    NGX_HTTP_STOA_HASH_MEM_FREE,
    NGX_HTTP_STOA_HASH_MEM_TAKEN
} ngx_http_stoa_hash_mem_e;

typedef struct {
    ngx_atomic_t state;
    u_char      *start;
    size_t       size;
    uint64_t     used_us;
} ngx_http_stoa_hash_mem_t;

void *__real_mmap(void *addr, size_t size, int prot, int flags, int fd,
                  off_t offset);
int   __real_munmap(void *addr, size_t size);
void *__wrap_mmap(void *addr, size_t size, int prot, int flags, int fd,
                  off_t offset);
int   __wrap_munmap(void *addr, size_t size);

static ngx_http_stoa_hash_mem_t
    ngx_http_stoa_hash_mems[NGX_HTTP_STOA_HASH_MEM_PLACES];
static __thread ngx_uint_t ngx_http_stoa_hash_mem_on;


void
ngx_http_stoa_hash_mem_begin(void)
{
    ngx_http_stoa_hash_mem_on = 1;
}


void
ngx_http_stoa_hash_mem_end(void)
{
    ngx_http_stoa_hash_mem_on = 0;
}


static ngx_uint_t
ngx_http_stoa_hash_mem_take(ngx_http_stoa_hash_mem_t *m,
                            ngx_http_stoa_hash_mem_e  from)
{
    return m->state == from
        && ngx_atomic_cmp_set(&m->state, from, NGX_HTTP_STOA_HASH_MEM_TAKEN);
}


static void
ngx_http_stoa_hash_mem_put(ngx_http_stoa_hash_mem_t *m,
                           ngx_http_stoa_hash_mem_e  to)
{
    (void) ngx_atomic_cmp_set(&m->state, NGX_HTTP_STOA_HASH_MEM_TAKEN, to);
}


/* Whole huge pages, where the system has them; not in any core dump. */
static ngx_uint_t
ngx_http_stoa_hash_mem_map(ngx_http_stoa_hash_mem_t *m, size_t size)
{
    size_t  before, all;
    u_char *p;

    size = ngx_align(size, NGX_HTTP_STOA_HASH_MEM_PAGE);
    all = size + NGX_HTTP_STOA_HASH_MEM_PAGE;

    p = __real_mmap(NULL, all, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        return 0;
    }

    m->start = ngx_align_ptr(p, NGX_HTTP_STOA_HASH_MEM_PAGE);
    m->size = size;
    before = (size_t) (m->start - p);

    if (before != 0) {
        (void) __real_munmap(p, before);
    }

    (void) __real_munmap(m->start + size, all - size - before);
    (void) madvise(m->start, size, MADV_HUGEPAGE);
    (void) madvise(m->start, size, MADV_DONTDUMP);

    return 1;
}


static void
ngx_http_stoa_hash_mem_unmap(ngx_http_stoa_hash_mem_t *m)
{
    (void) __real_munmap(m->start, m->size);
    m->start = NULL;
    m->size = 0;
}


void *
__wrap_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
    ngx_uint_t                i;
    ngx_http_stoa_hash_mem_t *m;

    if (!ngx_http_stoa_hash_mem_on || fd != -1) {
        return __real_mmap(addr, size, prot, flags, fd, offset);
    }

    for (i = 0; i < NGX_HTTP_STOA_HASH_MEM_PLACES; i++) {
        m = &ngx_http_stoa_hash_mems[i];

        if (ngx_http_stoa_hash_mem_take(m, NGX_HTTP_STOA_HASH_MEM_FREE)) {
            if (m->size >= size) {
                return m->start;
            }

            ngx_http_stoa_hash_mem_unmap(m);

        } else if (!ngx_http_stoa_hash_mem_take(m,
                                                NGX_HTTP_STOA_HASH_MEM_EMPTY)) {
            continue;
        }

        if (ngx_http_stoa_hash_mem_map(m, size)) {
            return m->start;
        }

        ngx_http_stoa_hash_mem_put(m, NGX_HTTP_STOA_HASH_MEM_EMPTY);

        return MAP_FAILED;
    }

    return __real_mmap(addr, size, prot, flags, fd, offset);
}


int
__wrap_munmap(void *addr, size_t size)
{
    ngx_uint_t                i;
    ngx_http_stoa_hash_mem_t *m;

    if (ngx_http_stoa_hash_mem_on) {
        for (i = 0; i < NGX_HTTP_STOA_HASH_MEM_PLACES; i++) {
            m = &ngx_http_stoa_hash_mems[i];

            if (m->state == NGX_HTTP_STOA_HASH_MEM_TAKEN && m->start == addr) {
                m->used_us = ngx_http_stoa_mono_us();
                ngx_http_stoa_hash_mem_put(m, NGX_HTTP_STOA_HASH_MEM_FREE);

                return 0;
            }
        }
    }

    return __real_munmap(addr, size);
}


/* Each second, in the loop: who signs in once an hour keeps no 19 MiB. */
void
ngx_http_stoa_hash_mem_tick(void)
{
    uint64_t                  now = ngx_http_stoa_mono_us();
    ngx_uint_t                i;
    ngx_http_stoa_hash_mem_t *m;

    for (i = 0; i < NGX_HTTP_STOA_HASH_MEM_PLACES; i++) {
        m = &ngx_http_stoa_hash_mems[i];

        if (!ngx_http_stoa_hash_mem_take(m, NGX_HTTP_STOA_HASH_MEM_FREE)) {
            continue;
        }

        if (now - m->used_us < NGX_HTTP_STOA_HASH_MEM_REST) {
            ngx_http_stoa_hash_mem_put(m, NGX_HTTP_STOA_HASH_MEM_FREE);
            continue;
        }

        ngx_http_stoa_hash_mem_unmap(m);
        ngx_http_stoa_hash_mem_put(m, NGX_HTTP_STOA_HASH_MEM_EMPTY);
    }
}
