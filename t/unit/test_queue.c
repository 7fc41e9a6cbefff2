/*
 * Task envelopes, keys, the timing of retries and the drawing of levels; and
 * that the tables of tasks are whole.
 */

#include "unit_core.h"

#include "stoa_queue.h"


static void
envelope_there_and_back(void **state)
{
    stoa_mem_t     *mem = *state;
    stoa_buf_t      b;
    stoa_envelope_t in = {
        .id = stoa_string("1234567"),
        .queue = stoa_string("mail"),
        .kind = stoa_string("mail.send"),
        .payload = stoa_string("{\"a\":[1,\"\\u00fc\"],\"b\":null}"),
        .uniq = stoa_string("mail:9:\"quoted\""),
        .reply_to = stoa_string("host.3.1"),
        .trace = stoa_string("00-abc-01"),
        .run_at_ms = 1790000000001,
        .give_up_ms = 1790000000002,
        .created_ms = 1790000000003,
        .outbox = 1234567,
        .run_ms = 20000,
        .attempts = 10,
        .level = 3,
    };
    stoa_envelope_t out;
    const char     *why;

    stoa_buf_init(&b, mem, 64, 65536);
    assert_true(stoa_queue_encode(&b, &in, &why));
    assert_int_equal(stoa_queue_parse(mem, stoa_buf_view(&b), &out, &why),
                     STOA_ENVELOPE_OK);
    assert_true(stoa_str_eq(in.id, out.id));
    assert_true(stoa_str_eq(in.queue, out.queue));
    assert_true(stoa_str_eq(in.kind, out.kind));
    assert_true(stoa_str_eq(in.uniq, out.uniq));
    assert_true(stoa_str_eq(in.reply_to, out.reply_to));
    assert_true(stoa_str_eq(in.trace, out.trace));
    assert_true(in.run_at_ms == out.run_at_ms);
    assert_true(in.give_up_ms == out.give_up_ms);
    assert_true(in.created_ms == out.created_ms);
    assert_true(in.outbox == out.outbox);
    assert_int_equal(in.run_ms, out.run_ms);
    assert_int_equal(in.attempts, out.attempts);
    assert_int_equal(in.level, out.level);
    assert_int_equal(stoa_json_count(stoa_json_get(out.payload_json, "a")), 2);
    assert_string_equal((const char *) out.payload.data,
                        "{\"a\":[1,\"\303\274\"],\"b\":null}");
}


static void
envelope_refused(void **state)
{
    static const struct {
        const char     *text;
        stoa_envelope_e rc;
    } rows[] = {
        { "{\"v\":1,\"id\":\"1\",\"q\":\"m\",\"t\":\"k\",\"p\":{}}",
          STOA_ENVELOPE_OK },
        { "{\"v\":1,\"id\":\"1\",\"q\":\"m\",\"t\":\"k\",\"p\":{},\"new\":[1]}",
          STOA_ENVELOPE_OK },
        { "{\"v\":2,\"id\":\"1\",\"q\":\"m\",\"t\":\"k\",\"p\":{}}",
          STOA_ENVELOPE_NEWER },
        { "{\"v\":0,\"id\":\"1\",\"q\":\"m\",\"t\":\"k\",\"p\":{}}",
          STOA_ENVELOPE_BAD },
        { "{\"id\":\"1\",\"q\":\"m\",\"t\":\"k\",\"p\":{}}",
          STOA_ENVELOPE_BAD },
        { "{\"v\":1,\"q\":\"m\",\"t\":\"k\",\"p\":{}}", STOA_ENVELOPE_BAD },
        { "{\"v\":1,\"id\":1,\"q\":\"m\",\"t\":\"k\",\"p\":{}}",
          STOA_ENVELOPE_BAD },
        { "{\"v\":1,\"id\":\"A\",\"q\":\"m\",\"t\":\"k\",\"p\":{}}",
          STOA_ENVELOPE_BAD },
        { "{\"v\":1,\"id\":\"1\",\"q\":\"m\",\"t\":\"K\",\"p\":{}}",
          STOA_ENVELOPE_BAD },
        { "{\"v\":1,\"id\":\"1\",\"q\":\"m}\",\"t\":\"k\",\"p\":{}}",
          STOA_ENVELOPE_BAD },
        { "{\"v\":1,\"id\":\"1\",\"q\":\"m\",\"t\":\"k\",\"p\":[]}",
          STOA_ENVELOPE_BAD },
        { "{\"v\":1,\"id\":\"1\",\"q\":\"m\",\"t\":\"k\"}", STOA_ENVELOPE_BAD },
        { "{\"v\":1,\"id\":\"1\",\"q\":\"m\",\"t\":\"k\",\"p\":{},\"pr\":4}",
          STOA_ENVELOPE_BAD },
        { "{\"v\":1,\"id\":\"1\",\"q\":\"m\",\"t\":\"k\",\"p\":{},\"pr\":3}",
          STOA_ENVELOPE_OK },
        { "{\"v\":1,\"id\":\"1\",\"q\":\"m\",\"t\":\"k\",\"p\":{},\"at\":-1}",
          STOA_ENVELOPE_BAD },
        { "{\"v\":1,\"id\":\"1\",\"q\":\"m\",\"t\":\"k\",\"p\":{},"
          "\"max\":70000}",
          STOA_ENVELOPE_BAD },
        { "{\"v\":1,\"id\":\"1\",\"q\":\"m\",\"t\":\"k\",\"p\":{},\"src\":1}",
          STOA_ENVELOPE_BAD },
        { "{\"v\":1,\"v\":1,\"id\":\"1\",\"q\":\"m\",\"t\":\"k\",\"p\":{}}",
          STOA_ENVELOPE_BAD },
        { "", STOA_ENVELOPE_BAD },
        { "[]", STOA_ENVELOPE_BAD },
        { "1", STOA_ENVELOPE_BAD },
    };
    stoa_mem_t     *mem = *state;
    stoa_envelope_t e;
    const char     *why;

    for (size_t i = 0; i < stoa_nitems(rows); i++) {
        why = NULL;

        if (stoa_queue_parse(mem, Z(rows[i].text), &e, &why) != rows[i].rc) {
            fail_msg("%s", rows[i].text);
        }

        assert_true((rows[i].rc == STOA_ENVELOPE_OK) == (why == NULL));
    }
}


static void
envelope_at_most_16k(void **state)
{
    stoa_mem_t     *mem = *state;
    stoa_envelope_t e = { .id = stoa_string("1"),
                          .queue = stoa_string("mail"),
                          .kind = stoa_string("mail.send") };
    stoa_envelope_t back;
    stoa_buf_t      payload, b;
    const char     *why = NULL;
    size_t          frame;

    stoa_buf_init(&b, mem, 64, 65536);
    e.payload = L("{}");
    assert_true(stoa_queue_encode(&b, &e, &why));
    frame = b.len - 2;

    for (size_t over = 0; over < 2; over++) {
        size_t n = STOA_ENVELOPE_MAX - frame - sizeof("{\"x\":\"\"}") + 1
                 + over;

        stoa_buf_init(&payload, mem, 64, 65536);
        stoa_buf_z(&payload, "{\"x\":\"");

        for (size_t i = 0; i < n; i++) {
            stoa_buf_char(&payload, 'y');
        }

        stoa_buf_z(&payload, "\"}");
        e.payload = stoa_buf_view(&payload);
        stoa_buf_init(&b, mem, 64, 65536);
        assert_int_equal(stoa_queue_encode(&b, &e, &why), over == 0);

        if (over == 0) {
            assert_int_equal(b.len, STOA_ENVELOPE_MAX);
            assert_int_equal(stoa_queue_parse(mem, stoa_buf_view(&b), &back,
                                              &why),
                             STOA_ENVELOPE_OK);
        }
    }
}


static void
keys(void **state)
{
    stoa_buf_t b;

    stoa_buf_init(&b, *state, 64, 256);
    stoa_queue_key(&b, "stoa:", "mail", "r0");
    assert_true(stoa_str_eq(stoa_buf_view(&b), L("stoa:{q:mail}:r0")));
    stoa_buf_init(&b, *state, 64, 256);
    stoa_queue_key(&b, "x:", "mail", NULL);
    assert_true(stoa_str_eq(stoa_buf_view(&b), L("x:{q:mail}")));
}


static void
backoff(void **state)
{
    stoa_class_row_t      cls = { .backoff_ms = 2000, .backoff_cap_ms = 60000 };
    static const uint32_t spans[] = { 2000,  4000,  8000, 16000,
                                      32000, 60000, 60000 };

    for (unsigned f = 0; f < stoa_nitems(spans); f++) {
        assert_int_equal(stoa_queue_backoff(&cls, f, 0), 1);
        assert_int_equal(stoa_queue_backoff(&cls, f, spans[f] - 1), spans[f]);
        assert_int_equal(stoa_queue_backoff(&cls, f, spans[f]), 1);
    }

    assert_int_equal(stoa_queue_backoff(&cls, 4000000000u, UINT64_MAX),
                     UINT64_MAX % 60000 + 1);
}


/* Every order is a permutation; the first is drawn 8:4:2:1. */
static void
levels(void **state)
{
    unsigned first[STOA_QUEUE_LEVELS] = { 0 };
    uint64_t random = 88172645463325252u;

    for (size_t i = 0; i < 15000; i++) {
        uint8_t  order[STOA_QUEUE_LEVELS];
        unsigned seen = 0;

        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        stoa_queue_draw(random, order);

        for (size_t n = 0; n < STOA_QUEUE_LEVELS; n++) {
            assert_in_range(order[n], 0, STOA_QUEUE_LEVELS - 1);
            seen |= 1u << order[n];
        }

        assert_int_equal(seen, 15);
        first[order[0]]++;
    }

    assert_in_range(first[0], 7600, 8400);
    assert_in_range(first[1], 3700, 4300);
    assert_in_range(first[2], 1750, 2250);
    assert_in_range(first[3], 800, 1200);
}


static void
tables(void **state)
{
    for (size_t i = 0; i < stoa_ntasks; i++) {
        const stoa_task_t *t = &stoa_tasks[i];

        assert_ptr_equal(stoa_task_find(t->kind, strlen(t->kind)), t);
        assert_true(t->cls >= 1 && t->cls < STOA_CLASS_COUNT);
        assert_true((t->sql == NULL) == (t->flow != STOA_TASK_FLOW_NONE));
        assert_true(t->level < STOA_QUEUE_LEVELS);
        assert_non_null(t->anchor);
        assert_non_null(t->summary);
        assert_non_null(t->crash[0]);

        for (size_t n = 0; n < STOA_MAX_CRASH_POINTS && t->crash[n] != NULL;
             n++) {
            assert_memory_equal(t->crash[n], t->kind, strlen(t->kind));
            assert_int_equal(t->crash[n][strlen(t->kind)], '.');
        }
    }

    assert_null(stoa_task_find("mail.sen", 8));
    assert_null(stoa_task_find("", 0));

    for (size_t i = 1; i < STOA_CLASS_COUNT; i++) {
        const stoa_class_row_t *c = &stoa_class_rows[i];

        assert_non_null(c->queue);
        assert_true(c->beat_ms * 2 < c->lease_ms);
        assert_true(c->backoff_ms > 0 && c->backoff_ms <= c->backoff_cap_ms);
        assert_in_range(c->percent, 1, 100);
    }
}


static int
setup(void **state)
{
    *state = stoa_arena_create(4096, 64 * 1024 * 1024);
    return *state != NULL ? 0 : -1;
}


static int
teardown(void **state)
{
    stoa_arena_destroy(*state);
    return 0;
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(envelope_there_and_back),
        cmocka_unit_test(envelope_refused),
        cmocka_unit_test(envelope_at_most_16k),
        cmocka_unit_test(keys),
        cmocka_unit_test(backoff),
        cmocka_unit_test(levels),
        cmocka_unit_test(tables),
    };

    return cmocka_run_group_tests_name("queue", tests, setup, teardown);
}
