/*
 * Task envelopes, keys and the timing of retries; see stoa_queue.h.
 *
 * The encoder and the parser have the same bounds, so what one accepts the
 * other does too (t/fuzz/fuzz_envelope.c holds them to it).  Strict about
 * what is known, tolerant about what is not: an envelope stays in Redis
 * while builds change around it.
 */

#include "stoa_queue.h"

#include "stoa_str.h"

#define ID_MAX     40
#define QUEUE_MAX  32
#define KIND_MAX   64
#define TEXT_MAX   200
#define TRACE_MAX  100
#define MS_MAX     INT64_C(9007199254740991)
#define RUN_MS_MAX (24 * 3600 * 1000)

static bool
stoa_queue_name(stoa_str_t s, size_t max, bool dots, bool dashes)
{
    if (s.len == 0 || s.len > max) {
        return false;
    }

    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = s.data[i];

        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'
            || (dots && c == '.') || (dashes && c == '-'))
        {
            continue;
        }

        return false;
    }

    return true;
}


static bool
stoa_queue_text(stoa_str_t s, size_t max)
{
    if (s.len > max || !stoa_str_utf8(s, NULL)) {
        return false;
    }

    return s.len == 0 || memchr(s.data, '\0', s.len) == NULL;
}


/* The bounds that hold on both sides; NULL: all is well. */
static const char *
stoa_queue_check(const stoa_envelope_t *e)
{
    if (!stoa_queue_name(e->id, ID_MAX, false, true)) {
        return "bad id";
    }

    if (!stoa_queue_name(e->queue, QUEUE_MAX, false, true)) {
        return "bad queue";
    }

    if (!stoa_queue_name(e->kind, KIND_MAX, true, false)) {
        return "bad kind";
    }

    if (!stoa_queue_text(e->uniq, TEXT_MAX)
        || !stoa_queue_text(e->reply_to, TEXT_MAX)
        || !stoa_queue_text(e->trace, TRACE_MAX))
    {
        return "a text is too long or malformed";
    }

    if (e->run_at_ms < 0 || e->run_at_ms > MS_MAX || e->give_up_ms < 0
        || e->give_up_ms > MS_MAX || e->created_ms < 0 || e->created_ms > MS_MAX
        || e->outbox < 0 || e->outbox > MS_MAX)
    {
        return "a number is out of range";
    }

    if (e->level >= STOA_QUEUE_LEVELS || e->run_ms > RUN_MS_MAX) {
        return "a number is out of range";
    }

    return NULL;
}


static void
stoa_queue_put_text(stoa_buf_t *b, const char *name, stoa_str_t s)
{
    if (s.len != 0) {
        stoa_buf_printf(b, ",\"%s\":", name);
        stoa_buf_json(b, s);
    }
}


static void
stoa_queue_put_int(stoa_buf_t *b, const char *name, int64_t n)
{
    if (n != 0) {
        stoa_buf_printf(b, ",\"%s\":", name);
        stoa_buf_int(b, n);
    }
}


bool
stoa_queue_encode(stoa_buf_t *b, const stoa_envelope_t *e, const char **why)
{
    size_t start = b->len;

    *why = stoa_queue_check(e);

    if (*why != NULL) {
        return false;
    }

    if (e->payload.len < 2 || e->payload.data[0] != '{') {
        *why = "the payload is not an object";
        return false;
    }

    stoa_buf_printf(b, "{\"v\":%d,\"id\":", STOA_ENVELOPE_VERSION);
    stoa_buf_json(b, e->id);
    stoa_queue_put_text(b, "q", e->queue);
    stoa_queue_put_text(b, "t", e->kind);
    stoa_buf_z(b, ",\"p\":");
    stoa_buf_str(b, e->payload);
    stoa_queue_put_int(b, "pr", e->level);
    stoa_queue_put_int(b, "at", e->run_at_ms);
    stoa_queue_put_int(b, "dl", e->give_up_ms);
    stoa_queue_put_int(b, "max", e->attempts);
    stoa_queue_put_int(b, "to", e->run_ms);
    stoa_queue_put_int(b, "ct", e->created_ms);
    stoa_queue_put_text(b, "uk", e->uniq);
    stoa_queue_put_text(b, "rt", e->reply_to);
    stoa_queue_put_text(b, "tr", e->trace);

    if (e->outbox != 0) {
        stoa_buf_z(b, ",\"src\":{\"k\":\"outbox\",\"id\":");
        stoa_buf_int(b, e->outbox);
        stoa_buf_char(b, '}');
    }

    stoa_buf_char(b, '}');

    if (b->failed || b->len - start > STOA_ENVELOPE_MAX) {
        *why = "the envelope passes 16 KiB";
        return false;
    }

    return true;
}


static bool
stoa_queue_get_text(const stoa_json_t *o, const char *name, stoa_str_t *out)
{
    stoa_json_t *v = stoa_json_get(o, name);

    if (v == NULL) {
        *out = (stoa_str_t) stoa_null_string;
        return true;
    }

    if (stoa_json_type(v) != STOA_JSON_STRING) {
        return false;
    }

    *out = stoa_json_str(v);
    return true;
}


static bool
stoa_queue_get_int(const stoa_json_t *o, const char *name, int64_t max,
                   int64_t *out)
{
    stoa_json_t *v = stoa_json_get(o, name);

    *out = 0;

    if (v == NULL) {
        return true;
    }

    if (stoa_json_type(v) != STOA_JSON_INT) {
        return false;
    }

    *out = stoa_json_int(v);
    return *out >= 0 && *out <= max;
}


static bool
stoa_queue_get_source(const stoa_json_t *o, stoa_envelope_t *e)
{
    stoa_str_t   kind;
    stoa_json_t *src = stoa_json_get(o, "src");

    if (src == NULL) {
        return true;
    }

    if (stoa_json_type(src) != STOA_JSON_OBJECT
        || !stoa_queue_get_text(src, "k", &kind))
    {
        return false;
    }

    if (!stoa_str_eq_z(kind, "outbox")) {
        return true;
    }

    return stoa_queue_get_int(src, "id", MS_MAX, &e->outbox);
}


static const char *
stoa_queue_read(stoa_mem_t *mem, const stoa_json_t *o, stoa_envelope_t *e)
{
    int64_t    level, attempts, run_ms;
    stoa_buf_t b;

    if (!stoa_queue_get_text(o, "id", &e->id)
        || !stoa_queue_get_text(o, "q", &e->queue)
        || !stoa_queue_get_text(o, "t", &e->kind)
        || !stoa_queue_get_text(o, "uk", &e->uniq)
        || !stoa_queue_get_text(o, "rt", &e->reply_to)
        || !stoa_queue_get_text(o, "tr", &e->trace))
    {
        return "a text has another type";
    }

    if (!stoa_queue_get_int(o, "pr", STOA_QUEUE_LEVELS - 1, &level)
        || !stoa_queue_get_int(o, "max", UINT16_MAX, &attempts)
        || !stoa_queue_get_int(o, "to", RUN_MS_MAX, &run_ms)
        || !stoa_queue_get_int(o, "at", MS_MAX, &e->run_at_ms)
        || !stoa_queue_get_int(o, "dl", MS_MAX, &e->give_up_ms)
        || !stoa_queue_get_int(o, "ct", MS_MAX, &e->created_ms)
        || !stoa_queue_get_source(o, e))
    {
        return "a number is out of range";
    }

    e->level = (uint8_t) level;
    e->attempts = (uint16_t) attempts;
    e->run_ms = (uint32_t) run_ms;
    e->payload_json = stoa_json_get(o, "p");

    if (e->payload_json == NULL
        || stoa_json_type(e->payload_json) != STOA_JSON_OBJECT)
    {
        return "the payload is not an object";
    }

    stoa_buf_init(&b, mem, 512, 4 * STOA_ENVELOPE_MAX);
    stoa_json_write(&b, e->payload_json);
    stoa_buf_nul(&b);

    if (b.failed) {
        return "no memory";
    }

    e->payload = stoa_buf_view(&b);
    return stoa_queue_check(e);
}


stoa_envelope_e
stoa_queue_parse(stoa_mem_t *mem, stoa_str_t text, stoa_envelope_t *e,
                 const char **why)
{
    int64_t           version;
    stoa_json_t      *o;
    stoa_json_fault_t fault;

    memset(e, 0, sizeof(*e));

    if (text.len > STOA_ENVELOPE_MAX) {
        *why = "the envelope passes 16 KiB";
        return STOA_ENVELOPE_BAD;
    }

    o = stoa_json_parse(mem, text, &fault);

    if (o == NULL) {
        *why = fault.reason;
        return STOA_ENVELOPE_BAD;
    }

    if (stoa_json_type(o) != STOA_JSON_OBJECT
        || !stoa_queue_get_int(o, "v", 1000000, &version) || version == 0)
    {
        *why = "no version";
        return STOA_ENVELOPE_BAD;
    }

    if (version > STOA_ENVELOPE_VERSION) {
        *why = "a newer version";
        return STOA_ENVELOPE_NEWER;
    }

    *why = stoa_queue_read(mem, o, e);
    return *why == NULL ? STOA_ENVELOPE_OK : STOA_ENVELOPE_BAD;
}


void
stoa_queue_key(stoa_buf_t *b, const char *prefix, const char *queue,
               const char *suffix)
{
    stoa_buf_printf(b, "%s{q:%s}", prefix, queue);

    if (suffix != NULL) {
        stoa_buf_printf(b, ":%s", suffix);
    }
}


uint32_t
stoa_queue_backoff(const stoa_class_row_t *cls, unsigned failures,
                   uint64_t random)
{
    uint64_t span = cls->backoff_ms;

    for (unsigned i = 0; i < failures && span < cls->backoff_cap_ms; i++) {
        span *= 2;
    }

    if (span > cls->backoff_cap_ms) {
        span = cls->backoff_cap_ms;
    }

    if (span == 0) {
        return 1;
    }

    return (uint32_t) (random % span) + 1;
}


void
stoa_queue_draw(uint64_t random, uint8_t levels[STOA_QUEUE_LEVELS])
{
    unsigned weights[STOA_QUEUE_LEVELS] = { 8, 4, 2, 1 };
    unsigned total = 15;

    for (unsigned n = 0; n < STOA_QUEUE_LEVELS; n++) {
        unsigned at = (unsigned) ((random & 0xffff) % total);
        uint8_t  i = 0;

        random >>= 16;

        while (at >= weights[i]) {
            at -= weights[i];
            i++;
        }

        levels[n] = i;
        total -= weights[i];
        weights[i] = 0;

        if (total == 0) {
            break;
        }
    }
}
