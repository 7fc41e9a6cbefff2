/*
 * One worker process: makes the loop, the stores, the doors and the engine,
 * and takes them down again.
 *
 * TERM (or INT): claims nothing more, finishes what runs within
 * WORKER_GRACE, then gives the rest back without using up an attempt, and
 * exits with 0.  A second TERM gives back at once.  TSTP: claims nothing
 * more but stays; CONT: claims again.
 *
 * PostgreSQL or Redis may be away at any time, also at the start: the
 * process waits for them, it does not end.
 */

#include "worker_main.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker_engine.h"
#include "worker_template.h"

#include "../shared/stoa_code.h"
#include "../shared/stoa_hash.h"
#include "../shared/stoa_hmac.h"
#include "../shared/stoa_str.h"
#include "../shared/stoa_time.h"

/* stoa work has so many connections to PostgreSQL, all processes together
   (decision 21), each process at least one. */
#define PG_CONNECTIONS          4
#define PG_IN_FLIGHT            8
#define PG_QUEUE                512
#define PG_QUEUE_TIMEOUT_MS     5000
#define PG_STATEMENT_TIMEOUT_MS 15000
#define PG_CONNECT_TIMEOUT_MS   5000
#define ALIVE_MS                1000
#define TELL_MS                 1000

typedef struct {
    worker_t           worker;
    worker_host_t     *host;
    volatile uint64_t *alive;
    stoa_timer_t       alive_timer;
    stoa_timer_t       grace_timer;
    stoa_mem_t        *mem;
    bool               stopping;
    bool               released;
} worker_process_t;


/*
 * The key by which devices check ticket codes offline, derived as the edge
 * derives its seed; snapshots carry it.  The seed itself never leaves.
 */
static void
worker_settings_key(const stoa_conf_t *conf, stoa_buf_t *b)
{
    char             text[stoa_base64url_len(32) + 1];
    bool             good;
    unsigned char    seed[32], open[32];
    stoa_str_t       hex = stoa_str_z(conf->ticket_seed);
    stoa_code_key_t *key;

    good = hex.len != 0 ? stoa_hex_decode(seed, sizeof(seed), hex)
                              == (ssize_t) sizeof(seed)
                        : stoa_hmac_derive(stoa_str_z(conf->jwt_secret),
                                           "ticket-seed", seed);

    key = good ? stoa_code_key_create(seed, 1) : NULL;
    stoa_wipe(seed, sizeof(seed));

    if (key == NULL) {
        return; /* nginx -t says what is wrong with it */
    }

    stoa_code_key_public(key, open);
    stoa_code_key_destroy(key);
    text[stoa_base64url_encode((unsigned char *) text, open, sizeof(open))] =
        '\0';
    stoa_buf_z(b, ",\"ticket_public_key\":");
    stoa_buf_json_z(b, text);
}


void
worker_settings_json(const stoa_conf_t *conf, stoa_buf_t *b)
{
    const char *comma = "";
    char        name[64], value[4096];

    stoa_buf_char(b, '{');

    for (size_t i = 0; i < stoa_conf_nrows; i++) {
        const stoa_conf_row_t *row = &stoa_conf_rows[i];
        size_t                 n = 0;

        if ((row->flags & STOA_CONF_DB) == 0) {
            continue;
        }

        for (; n < sizeof(name) - 1 && row->key[n] != '\0'; n++) {
            name[n] = (char) tolower((unsigned char) row->key[n]);
        }

        name[n] = '\0';
        stoa_conf_text(conf, row, value, sizeof(value));
        stoa_buf_z(b, comma);
        stoa_buf_json_z(b, name);
        stoa_buf_char(b, ':');
        stoa_buf_json_z(b, value);
        comma = ",";
    }

    worker_settings_key(conf, b);
    stoa_buf_char(b, '}');
}


/* ---- stopping ---- */

static void
worker_process_idle(void *data)
{
    worker_process_t *p = data;

    worker_host_stop(p->host);
}


/* The grace is over, or a second signal came. */
static void
worker_process_release(worker_process_t *p)
{
    stoa_loop_t *loop = p->worker.loop;

    if (p->released) { /* Redis did not take the word: leases run out */
        worker_host_stop(p->host);
        return;
    }

    p->released = true;
    loop->timer_set(loop, &p->grace_timer, TELL_MS);
    worker_engine_release(p->worker.engine);
}


static void
worker_process_grace(stoa_timer_t *timer)
{
    worker_process_release(timer->data);
}


static void
worker_process_stop(void *data, int signum)
{
    worker_process_t *p = data;
    stoa_loop_t      *loop = p->worker.loop;

    if (p->stopping) {
        worker_process_release(p);
        return;
    }

    p->stopping = true;
    stoa_log(p->worker.log, STOA_LOG_NOTICE, "worker: stopping, %u tasks run",
             p->worker.engine->held);
    loop->timer_set(loop, &p->grace_timer,
                    (uint64_t) p->worker.conf->worker_grace * 1000);
    worker_engine_stop(p->worker.engine, worker_process_idle, p);
}


static void
worker_process_quiet(void *data, int signum)
{
    worker_process_t *p = data;

    stoa_log(p->worker.log, STOA_LOG_NOTICE, "worker: claims nothing more");
    worker_engine_quiet(p->worker.engine, true);
}


static void
worker_process_go_on(void *data, int signum)
{
    worker_process_t *p = data;

    if (p->worker.engine->quiet) {
        stoa_log(p->worker.log, STOA_LOG_NOTICE, "worker: claims again");
        worker_engine_quiet(p->worker.engine, false);
    }
}


static void
worker_process_alive(stoa_timer_t *timer)
{
    worker_process_t *p = timer->data;
    stoa_loop_t      *loop = p->worker.loop;

    *p->alive = stoa_time_mono_ms();
    loop->timer_set(loop, timer, ALIVE_MS);
}


/* ---- life ---- */

static bool
worker_process_signals(worker_process_t *p)
{
    return worker_host_signal(p->host, SIGTERM, worker_process_stop, p)
        && worker_host_signal(p->host, SIGINT, worker_process_stop, p)
        && worker_host_signal(p->host, SIGTSTP, worker_process_quiet, p)
        && worker_host_signal(p->host, SIGUSR1, worker_process_quiet, p)
        && worker_host_signal(p->host, SIGCONT, worker_process_go_on, p);
}


static bool
worker_process_stores(worker_process_t *p)
{
    worker_t          *w = &p->worker;
    const stoa_conf_t *conf = w->conf;
    int64_t            size = PG_CONNECTIONS / conf->worker_processes;
    stoa_redis_conf_t  rc = { 0 };
    stoa_pg_conf_t     pc = {
            .name = "work",
            .conninfo = stoa_conf_conninfo(conf, "worker", p->mem),
            .size = (uint16_t) (size < 1 ? 1 : size),
            .in_flight = PG_IN_FLIGHT,
            .queue_max = PG_QUEUE,
            .nslots = (uint32_t) (WORKER_SQL_COUNT + stoa_ntasks),
            .queue_timeout_ms = PG_QUEUE_TIMEOUT_MS,
            .statement_timeout_ms = PG_STATEMENT_TIMEOUT_MS,
            .connect_timeout_ms = PG_CONNECT_TIMEOUT_MS,
    };

    if (conf->redis_host[0] == '/') {
        rc.unix_path = conf->redis_host;
    } else {
        rc.addr = conf->redis_host;
    }

    rc.port = (int) conf->redis_port;
    rc.db = (int) conf->redis_db;
    rc.user = conf->redis_user[0] != '\0' ? conf->redis_user : NULL;
    rc.password = conf->redis_password[0] != '\0' ? conf->redis_password : NULL;

    if (pc.conninfo == NULL) {
        return false;
    }

    w->pg = stoa_pg_pool_create(w->loop, &pc);
    w->redis = stoa_redis_create(w->loop, &rc);
    w->http = stoa_http_create(w->loop, STOA_HTTP_ANY);

    if (w->pg == NULL || w->redis == NULL || w->http == NULL) {
        return false;
    }

    return worker_engine_create(w, p->host, &rc) != NULL;
}


static bool
worker_process_create(worker_process_t *p, const stoa_conf_t *conf,
                      stoa_log_t *log)
{
    worker_t *w = &p->worker;
    char      host[40] = "localhost";

    w->conf = conf;
    w->log = log;
    stoa_id_init(&w->ids);

    if (gethostname(host, sizeof(host)) != 0) {
        return false;
    }

    host[sizeof(host) - 1] = '\0';
    (void) snprintf(w->name, sizeof(w->name), "%s.%ld.%llx", host,
                    (long) getpid(),
                    (unsigned long long) stoa_time_ms() & 0xffffff);
    p->mem = stoa_arena_create(4096, 65536);
    p->host = worker_host_create(log);

    if (p->mem == NULL || p->host == NULL) {
        return false;
    }

    w->loop = worker_host_loop(p->host);
    p->alive_timer = (stoa_timer_t){ .fire = worker_process_alive, .data = p };
    p->grace_timer = (stoa_timer_t){ .fire = worker_process_grace, .data = p };
    return worker_process_stores(p) && worker_process_signals(p);
}


static void
worker_process_destroy(worker_process_t *p)
{
    worker_t *w = &p->worker;

    if (w->engine != NULL) {
        worker_engine_destroy(w->engine); /* and both stores */
    }

    if (w->redis != NULL) {
        stoa_redis_destroy(w->redis);
    }

    if (w->pg != NULL) {
        stoa_pg_pool_destroy(w->pg);
    }

    if (w->http != NULL) {
        stoa_http_destroy(w->http);
    }

    if (w->templates != NULL) {
        worker_templates_destroy(w->templates);
    }

    if (w->loop != NULL) {
        w->loop->timer_close(w->loop, &p->alive_timer);
        w->loop->timer_close(w->loop, &p->grace_timer);
    }

    worker_host_destroy(p->host);

    if (p->mem != NULL) {
        stoa_arena_destroy(p->mem);
    }
}


int
worker_main(const stoa_conf_t *conf, stoa_log_t *log, volatile uint64_t *alive)
{
    worker_process_t p = { .alive = alive };

#ifdef STOA_TEST
    if (conf->test_clock_file[0] != '\0'
        && !stoa_time_test_file(conf->test_clock_file))
    {
        stoa_log(log, STOA_LOG_CRIT, "worker: cannot map \"%s\"",
                 conf->test_clock_file);
        return 1;
    }
#endif

    if (!worker_process_create(&p, conf, log)) {
        stoa_log(log, STOA_LOG_CRIT, "worker: cannot start");
        worker_process_destroy(&p);
        return 1;
    }

    worker_process_alive(&p.alive_timer);
    stoa_log(log, STOA_LOG_NOTICE, "worker: started as %s", p.worker.name);
    worker_host_run(p.host);
    worker_process_destroy(&p);
    stoa_log(log, STOA_LOG_NOTICE, "worker: stopped");
    return 0;
}
