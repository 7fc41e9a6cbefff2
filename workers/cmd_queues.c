/*
 * stoa queues: what waits, runs and is dead.  The numbers of the queues come
 * from the same script as the gauges in /metrics, the outbox's from
 * queue.stats(); either store away is exit code 3.  pause, resume and limit
 * write to PostgreSQL, from where the workers tell Redis (worker_steer.c).
 */

#include "cmd.h"

#include <stdio.h>

#include "worker_lua.h"

#include "../shared/stoa_queue.h"
#include "../shared/stoa_str.h"

#define STATS 12

typedef struct {
    const char *queue;
    int64_t     n[STATS]; /* as the script "stats" answers */
    bool        ok;
} cmd_stats_t;

/* Of cmd_stats_t.n behind the four levels. */
enum {
    SUSPECT = 4,
    SCHEDULED,
    ACTIVE,
    DEAD,
    OLDEST,
    DONE_EVER,
    DEAD_EVER,
    TICK
};


static void
cmd_queues_take(const stoa_redis_reply_t *reply, void *data)
{
    cmd_stats_t *s = data;

    if (stoa_redis_type(reply) != STOA_REDIS_ARRAY
        || stoa_redis_count(reply) != STATS)
    {
        return;
    }

    for (size_t i = 0; i < STATS; i++) {
        s->n[i] = stoa_redis_int(stoa_redis_at(reply, i));
    }

    s->ok = true;
}


static int64_t
cmd_queues_ready(const cmd_stats_t *s)
{
    return s->n[0] + s->n[1] + s->n[2] + s->n[3];
}


static void
cmd_queues_text(const cmd_stats_t *s, size_t n, const stoa_json_t *outbox)
{
    static const char *const members[] = { "waiting", "sent", "dead" };

    (void) printf("%-10s %8s %8s %9s %8s %6s %10s %10s %s\n", "queue", "ready",
                  "active", "scheduled", "suspect", "dead", "oldest ms", "done",
                  "ticked");

    for (size_t i = 0; i < n; i++) {
        char tick[32] = "never";

        if (s[i].n[TICK] >= 0) {
            (void) snprintf(tick, sizeof(tick), "%lld ms ago",
                            (long long) s[i].n[TICK]);
        }

        (void) printf("%-10s %8lld %8lld %9lld %8lld %6lld %10lld %10lld %s\n",
                      s[i].queue, (long long) cmd_queues_ready(&s[i]),
                      (long long) s[i].n[ACTIVE], (long long) s[i].n[SCHEDULED],
                      (long long) s[i].n[SUSPECT], (long long) s[i].n[DEAD],
                      (long long) s[i].n[OLDEST], (long long) s[i].n[DONE_EVER],
                      tick);
    }

    (void) fputs("outbox", stdout);

    for (size_t i = 0; i < stoa_nitems(members); i++) {
        stoa_json_t *v = stoa_json_get(outbox, members[i]);

        (void) printf("  %s %lld", members[i],
                      v != NULL ? (long long) stoa_json_int(v) : 0LL);
    }

    (void) printf("  lag %lld ms\n", stoa_json_get(outbox, "lagMs") != NULL
                                         ? (long long) stoa_json_int(
                                             stoa_json_get(outbox, "lagMs"))
                                         : 0LL);
}


static bool
cmd_queues_json(cmd_t *c, const cmd_stats_t *s, size_t n,
                const stoa_json_t *outbox)
{
    stoa_buf_t b;

    stoa_buf_init(&b, c->mem, 4096, 1024 * 1024);
    stoa_buf_z(&b, "{\"queues\":[");

    for (size_t i = 0; i < n; i++) {
        stoa_buf_printf(
            &b,
            "%s{\"queue\":\"%s\",\"ready\":[%lld,%lld,%lld,%lld],"
            "\"active\":%lld,\"scheduled\":%lld,\"suspect\":%lld,"
            "\"dead\":%lld,\"oldestReadyMs\":%lld,\"doneEver\":%lld,"
            "\"deadEver\":%lld,\"tickedMsAgo\":%lld}",
            i == 0 ? "" : ",", s[i].queue, (long long) s[i].n[0],
            (long long) s[i].n[1], (long long) s[i].n[2], (long long) s[i].n[3],
            (long long) s[i].n[ACTIVE], (long long) s[i].n[SCHEDULED],
            (long long) s[i].n[SUSPECT], (long long) s[i].n[DEAD],
            (long long) s[i].n[OLDEST], (long long) s[i].n[DONE_EVER],
            (long long) s[i].n[DEAD_EVER], (long long) s[i].n[TICK]);
    }

    stoa_buf_z(&b, "],\"outbox\":");
    stoa_json_write(&b, outbox);
    stoa_buf_z(&b, "}\n");

    if (b.failed) {
        cmd_say(c, "no memory");
        return false;
    }

    return fwrite(b.data, 1, b.len, stdout) == b.len;
}


static bool
cmd_queues_ask(cmd_t *c, cmd_redis_t *r, cmd_stats_t *s)
{
    char       key[96], meta[100];
    stoa_str_t argv[2];

    (void) snprintf(key, sizeof(key), "%s{q:%s}", c->conf.redis_prefix,
                    s->queue);
    (void) snprintf(meta, sizeof(meta), "%s:m", key);
    argv[0] = stoa_str_z(meta);
    argv[1] = stoa_str_z(key);

    return cmd_redis_eval(r, WORKER_LUA_STATS, 2, argv, cmd_queues_take, s)
        && s->ok;
}


static int
cmd_queues_outbox(cmd_t *c, stoa_json_t **outbox)
{
    cmd_db_t         *db = cmd_db_open(c, "worker");
    stoa_pg_result_t *res;
    stoa_json_fault_t fault;
    const char       *why;
    int               rc;

    if (db == NULL) {
        return CMD_UNREACHED;
    }

    rc = cmd_db_query(db, "select queue.stats()", 0, NULL, &res, NULL, &why);

    if (rc != CMD_OK) {
        cmd_say(c, "cannot read the outbox: %s", why);

    } else {
        *outbox = stoa_json_parse(c->mem, stoa_pg_value(res, 0, 0), &fault);

        if (*outbox == NULL) {
            cmd_say(c, "the outbox's numbers are no JSON");
            rc = CMD_FAILED;
        }
    }

    stoa_pg_result_free(res);
    cmd_db_close(db);
    return rc;
}


/* pause, resume or limit; values of queue.control(). */
static int
cmd_queues_control(cmd_t *c, const char *const values[4])
{
    cmd_db_t         *db;
    stoa_pg_result_t *res;
    const char       *why;
    int               rc;
    size_t            i;

    for (i = 1; i < STOA_CLASS_COUNT; i++) {
        if (strcmp(values[0], stoa_class_rows[i].queue) == 0) {
            break;
        }
    }

    if (i == STOA_CLASS_COUNT) {
        cmd_say(c, "there is no queue \"%s\"; stoa queues shows them",
                values[0]);
        return CMD_USAGE;
    }

    if (!cmd_load(c)) {
        return CMD_FAILED;
    }

    db = cmd_db_open(c, "owner");

    if (db == NULL) {
        return CMD_UNREACHED;
    }

    rc = cmd_db_query(db,
                      "select queue.control($1::text, $2::boolean, $3::int, "
                      "$4::int)",
                      4, values, &res, NULL, &why);

    if (rc != CMD_OK) {
        cmd_say(c, "postgresql: %s", why);

    } else {
        (void) printf("the workers hear of it within seconds\n");
    }

    stoa_pg_result_free(res);
    cmd_db_close(db);
    return rc;
}


static int
cmd_queues_steer(cmd_t *c, const char *verb, const char *queue,
                 const char *most, const char *each)
{
    const char *values[4] = { queue, NULL, most, each };
    bool        limit = strcmp(verb, "limit") == 0;
    int64_t     n;

    if (queue == NULL || limit != (most != NULL || each != NULL)
        || (!limit && strcmp(verb, "pause") != 0
            && strcmp(verb, "resume") != 0))
    {
        cmd_say(c, "say pause QUEUE, resume QUEUE, or limit QUEUE with --most "
                   "or --each");
        return CMD_USAGE;
    }

    if ((most != NULL && !stoa_str_int(stoa_str_z(most), 0, 65535, &n))
        || (each != NULL && !stoa_str_int(stoa_str_z(each), 0, 65535, &n)))
    {
        cmd_say(c, "a limit is a number from 0 (none) to 65535");
        return CMD_USAGE;
    }

    if (!limit) {
        values[1] = strcmp(verb, "pause") == 0 ? "true" : "false";
    }

    return cmd_queues_control(c, values);
}


int
cmd_queues(cmd_t *c, int argc, char **argv)
{
    bool         json = false, ok = true;
    const char  *most = NULL, *each = NULL, *rest[2] = { NULL, NULL };
    cmd_option_t options[] = { { "--json", &json, NULL },
                               { "--most", NULL, &most },
                               { "--each", NULL, &each } };
    cmd_stats_t  stats[STOA_CLASS_COUNT] = { 0 };
    stoa_json_t *outbox = NULL;
    cmd_redis_t *r;
    size_t       nrest;
    int          rc;

    rc = cmd_options(c, argc, argv, options, stoa_nitems(options), rest, 2,
                     &nrest);

    if (rc >= 0) {
        return rc;
    }

    if (nrest != 0 || most != NULL || each != NULL) {
        return cmd_queues_steer(c, nrest != 0 ? rest[0] : "", rest[1], most,
                                each);
    }

    if (!cmd_load(c)) {
        return CMD_FAILED;
    }

    rc = cmd_queues_outbox(c, &outbox);

    if (rc != CMD_OK) {
        return rc;
    }

    r = cmd_redis_open(c);

    if (r == NULL) {
        return CMD_UNREACHED;
    }

    for (size_t i = 1; ok && i < STOA_CLASS_COUNT; i++) {
        stats[i].queue = stoa_class_rows[i].queue;
        ok = cmd_queues_ask(c, r, &stats[i]);
    }

    cmd_redis_close(r);

    if (!ok) {
        return CMD_UNREACHED;
    }

    if (json) {
        return cmd_queues_json(c, stats + 1, STOA_CLASS_COUNT - 1, outbox)
                 ? CMD_OK
                 : CMD_FAILED;
    }

    cmd_queues_text(stats + 1, STOA_CLASS_COUNT - 1, outbox);
    return CMD_OK;
}
