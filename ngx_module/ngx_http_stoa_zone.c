/*
 * The shared zone: layout, reuse over a reload, carrying what must not be
 * lost into a zone of another size, the lock and the keyed hash that its
 * users share.
 *
 * The lock holds the pid of its owner.  nginx's master releases the mutex of
 * a zone's slab pool when a worker dies, but not locks inside of it; here a
 * waiter that finds the owner gone takes the lock over.  That is safe because
 * every structure under it is an array whose entries are whole by themselves.
 */

#include "ngx_http_stoa_zone.h"

static size_t
ngx_http_stoa_power(size_t n)
{
    size_t p = 1;

    while (p <= n / 2) {
        p *= 2;
    }

    return p;
}


ngx_http_stoa_shared_t *
ngx_http_stoa_shared(void)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;

    if (mcf == NULL || mcf->zone == NULL) {
        return NULL;
    }

    return mcf->zone->data;
}


static void
ngx_http_stoa_zone_layout(ngx_http_stoa_shared_t *sh, size_t size,
                          ngx_uint_t nrows)
{
    u_char *p = (u_char *) sh;
    size_t  rest, n;

    sh->magic = NGX_HTTP_STOA_ZONE_MAGIC;
    sh->version = NGX_HTTP_STOA_ZONE_VERSION;
    sh->size = size;
    sh->nrows = nrows;

    rest = ngx_align(sizeof(ngx_http_stoa_shared_t), 64);

    sh->routes = (ngx_http_stoa_route_metrics_t *) (p + rest);
    rest += ngx_align((nrows + 1) * sizeof(ngx_http_stoa_route_metrics_t), 64);

    p += rest;
    rest = size - rest;

    /* half for revocations (two tables), a sixteenth for failures */
    n = ngx_http_stoa_power(rest / 4 / sizeof(ngx_http_stoa_revoke_slot_t));

    sh->tables[0].mask = n - 1;
    sh->tables[0].slots = (ngx_http_stoa_revoke_slot_t *) p;
    p += n * sizeof(ngx_http_stoa_revoke_slot_t);

    sh->tables[1].mask = n - 1;
    sh->tables[1].slots = (ngx_http_stoa_revoke_slot_t *) p;
    p += n * sizeof(ngx_http_stoa_revoke_slot_t);

    n = ngx_http_stoa_power(rest / 16 / sizeof(ngx_http_stoa_throttle_slot_t)
                            / NGX_HTTP_STOA_WAYS);
    sh->throttle_mask = n - 1;
    sh->throttles = (ngx_http_stoa_throttle_slot_t *) p;
    p += n * NGX_HTTP_STOA_WAYS * sizeof(ngx_http_stoa_throttle_slot_t);

    n = ngx_http_stoa_power(rest / 16 * 7 / sizeof(ngx_http_stoa_rate_slot_t)
                            / NGX_HTTP_STOA_WAYS);
    sh->rate_mask = n - 1;
    sh->rates = (ngx_http_stoa_rate_slot_t *) p;
}


/* A zone of the same name in the cycle before this one, of another size. */
static ngx_http_stoa_shared_t *
ngx_http_stoa_zone_former(ngx_shm_zone_t *zone)
{
    ngx_http_stoa_shared_t *sh;
    ngx_list_part_t        *part;
    ngx_shm_zone_t         *old;
    ngx_uint_t              i;

    /* during a reload ngx_cycle still is the old one; at the first start it
       is the temporary cycle of main(), which has no lists */
    if (ngx_is_init_cycle(ngx_cycle) || ngx_test_config) {
        return NULL;
    }

    part = (ngx_list_part_t *) &ngx_cycle->shared_memory.part;
    old = part->elts;

    for (i = 0; /* void */; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return NULL;
            }

            part = part->next;
            old = part->elts;
            i = 0;

            if (part->nelts == 0) {
                return NULL;
            }
        }

        if (old[i].tag != zone->tag || old[i].shm.name.len != zone->shm.name.len
            || ngx_memcmp(old[i].shm.name.data, zone->shm.name.data,
                          zone->shm.name.len)
                   != 0)
        {
            continue;
        }

        sh = old[i].data;

        if (sh == NULL || sh->magic != NGX_HTTP_STOA_ZONE_MAGIC
            || sh->version != NGX_HTTP_STOA_ZONE_VERSION)
        {
            return NULL;
        }

        return sh;
    }
}


ngx_int_t
ngx_http_stoa_zone_init(ngx_shm_zone_t *zone, void *old)
{
    ngx_http_stoa_main_conf_t *mcf = zone->data;
    ngx_http_stoa_shared_t    *sh = old, *former;
    ngx_slab_pool_t           *sp;
    ngx_uint_t                 nrows;
    size_t                     size, least;

    sp = (ngx_slab_pool_t *) zone->shm.addr;
    nrows = mcf->api != NULL ? mcf->api->nrows : 0;

    if (sh == NULL && zone->shm.exists) {
        sh = sp->data;
    }

    if (sh != NULL) {
        if (sh->magic != NGX_HTTP_STOA_ZONE_MAGIC
            || sh->version != NGX_HTTP_STOA_ZONE_VERSION || sh->nrows != nrows)
        {
            ngx_log_error(NGX_LOG_EMERG, zone->shm.log, 0,
                          "zone \"%V\" has the layout of another version of "
                          "Stoa, give it another name or restart",
                          &zone->shm.name);
            return NGX_ERROR;
        }

        zone->data = sh;
        return NGX_OK;
    }

    least = sizeof(ngx_http_stoa_shared_t)
          + (nrows + 1) * sizeof(ngx_http_stoa_route_metrics_t) + 256 * 1024;
    size = sp->pfree > 2 ? (sp->pfree - 2) * ngx_pagesize : 0;

    if (size < least) {
        ngx_log_error(NGX_LOG_EMERG, zone->shm.log, 0,
                      "zone \"%V\" is too small, it needs %uzk",
                      &zone->shm.name, (least + 256 * 1024) / 1024);
        return NGX_ERROR;
    }

    sh = ngx_slab_calloc(sp, size);
    if (sh == NULL) {
        ngx_log_error(NGX_LOG_EMERG, zone->shm.log, 0,
                      "zone \"%V\" has no room for %uz bytes", &zone->shm.name,
                      size);
        return NGX_ERROR;
    }

    if (!stoa_random(sh->hash_key, sizeof(sh->hash_key))) {
        ngx_log_error(NGX_LOG_EMERG, zone->shm.log, ngx_errno,
                      "the kernel gives no random bytes");
        return NGX_ERROR;
    }

    ngx_http_stoa_zone_layout(sh, size, nrows);

    former = ngx_http_stoa_zone_former(zone);

    if (former != NULL) {
        ngx_http_stoa_revoke_copy(sh, former);
        ngx_http_stoa_throttle_copy(sh, former);
        ngx_http_stoa_limit_copy(sh, former);
        ngx_log_error(NGX_LOG_NOTICE, zone->shm.log, 0,
                      "zone \"%V\" has a new size, its revocations and limits "
                      "were carried over, its metrics start anew",
                      &zone->shm.name);
    }

    sp->data = sh;
    zone->data = sh;

    return NGX_OK;
}


ngx_uint_t
ngx_http_stoa_alive(ngx_pid_t pid)
{
    return getpgid(pid) == getpgrp();
}


void
ngx_http_stoa_lock(ngx_atomic_t *lock)
{
    ngx_atomic_uint_t holder;
    ngx_uint_t        i, n;

    for (n = 0; /* void */; n++) {

        for (i = 0; i < (ngx_ncpu > 1 ? 512 : 1); i++) {

            if (*lock == 0
                && ngx_atomic_cmp_set(lock, 0, (ngx_atomic_uint_t) ngx_pid)) {
                return;
            }

            ngx_cpu_pause();
        }

        ngx_sched_yield();

        if (n % 256 != 255) {
            continue;
        }

        holder = *lock;

        /* who waits holds nothing: its own pid is that of one long dead */
        if (holder != 0
            && (holder == (ngx_atomic_uint_t) ngx_pid
                || !ngx_http_stoa_alive((ngx_pid_t) holder))
            && ngx_atomic_cmp_set(lock, holder, (ngx_atomic_uint_t) ngx_pid))
        {
            return;
        }
    }
}


void
ngx_http_stoa_unlock(ngx_atomic_t *lock)
{
    ngx_memory_barrier();
    (void) ngx_atomic_cmp_set(lock, (ngx_atomic_uint_t) ngx_pid, 0);
}


#define ngx_http_stoa_rotl(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

#define ngx_http_stoa_sipround(v)                                              \
    do {                                                                       \
        v[0] += v[1];                                                          \
        v[1] = ngx_http_stoa_rotl(v[1], 13) ^ v[0];                            \
        v[0] = ngx_http_stoa_rotl(v[0], 32);                                   \
        v[2] += v[3];                                                          \
        v[3] = ngx_http_stoa_rotl(v[3], 16) ^ v[2];                            \
        v[0] += v[3];                                                          \
        v[3] = ngx_http_stoa_rotl(v[3], 21) ^ v[0];                            \
        v[2] += v[1];                                                          \
        v[1] = ngx_http_stoa_rotl(v[1], 17) ^ v[2];                            \
        v[2] = ngx_http_stoa_rotl(v[2], 32);                                   \
    } while (0)


/* Aumasson and Bernstein's reference, 2 rounds a word and 4 at the end. */
void
ngx_http_stoa_siphash(const u_char key[16], const void *data, size_t len,
                      uint64_t out[2])
{
    const u_char *p = data;
    uint64_t      k[2], v[4], m, tail = 0;
    size_t        i, left;

    ngx_memcpy(k, key, 16);

    v[0] = UINT64_C(0x736f6d6570736575) ^ k[0];
    v[1] = UINT64_C(0x646f72616e646f6d) ^ k[1] ^ 0xee;
    v[2] = UINT64_C(0x6c7967656e657261) ^ k[0];
    v[3] = UINT64_C(0x7465646279746573) ^ k[1];

    for (left = len; left >= 8; left -= 8, p += 8) {
        ngx_memcpy(&m, p, 8);
        v[3] ^= m;
        ngx_http_stoa_sipround(v);
        ngx_http_stoa_sipround(v);
        v[0] ^= m;
    }

    ngx_memcpy(&tail, p, left);
    m = tail | (uint64_t) len << 56;

    v[3] ^= m;
    ngx_http_stoa_sipround(v);
    ngx_http_stoa_sipround(v);
    v[0] ^= m;

    v[2] ^= 0xee;
    for (i = 0; i < 4; i++) {
        ngx_http_stoa_sipround(v);
    }

    out[0] = v[0] ^ v[1] ^ v[2] ^ v[3];

    v[1] ^= 0xdd;
    for (i = 0; i < 4; i++) {
        ngx_http_stoa_sipround(v);
    }

    out[1] = v[0] ^ v[1] ^ v[2] ^ v[3];
}
