/*
 * Task envelopes: whatever bytes come out of Redis, the parser either
 * refuses them or gives an envelope that the encoder accepts, and that reads
 * back as the same.
 */

#include <stdlib.h>

#include "stoa_queue.h"
#include "stoa_str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
same(stoa_str_t a, stoa_str_t b)
{
    if (!stoa_str_eq(a, b)) {
        abort();
    }
}


static void
check(stoa_mem_t *mem, stoa_envelope_t *e)
{
    stoa_envelope_t back;
    stoa_buf_t      b;
    const char     *why;

    if (e->id.len == 0 || e->queue.len == 0 || e->kind.len == 0
        || e->level >= STOA_QUEUE_LEVELS || e->payload_json == NULL)
    {
        abort();
    }

    stoa_buf_init(&b, mem, 512, 8 * STOA_ENVELOPE_MAX);

    /* compact writing may be longer than what came: 1e3 becomes 1000.0 */
    if (!stoa_queue_encode(&b, e, &why)) {
        if (b.len <= STOA_ENVELOPE_MAX && !b.failed) {
            abort();
        }

        return;
    }

    if (stoa_queue_parse(mem, stoa_buf_view(&b), &back, &why)
        != STOA_ENVELOPE_OK) {
        abort();
    }

    same(e->id, back.id);
    same(e->queue, back.queue);
    same(e->kind, back.kind);
    same(e->payload, back.payload);
    same(e->uniq, back.uniq);
    same(e->reply_to, back.reply_to);
    same(e->trace, back.trace);

    if (e->run_at_ms != back.run_at_ms || e->give_up_ms != back.give_up_ms
        || e->created_ms != back.created_ms || e->outbox != back.outbox
        || e->run_ms != back.run_ms || e->attempts != back.attempts
        || e->level != back.level)
    {
        abort();
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stoa_mem_t     *mem = stoa_arena_create(4096, 8 * 1024 * 1024);
    stoa_str_t      text = { size, (unsigned char *) (uintptr_t) data };
    stoa_envelope_t e;
    const char     *why = NULL;

    if (mem == NULL) {
        return 0;
    }

    if (stoa_queue_parse(mem, text, &e, &why) == STOA_ENVELOPE_OK) {
        check(mem, &e);

    } else if (why == NULL) {
        abort(); /* a refusal has its reason */
    }

    stoa_arena_destroy(mem);
    return 0;
}
