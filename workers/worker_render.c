/*
 * Flow TICKET_RENDER: one ticket as PDF or PNG, drawn on a thread.
 *
 * Queue: render.  Effect: the row (ticket, generation, format) with the
 * bytes, written with queue.done in one transaction; a second drawing of the
 * same is thrown away.  Killed at any step: it is drawn again.
 */

#include "worker.h"

#include "../shared/stoa_str.h"
#include "worker_draw.h"
#include "worker_member.h"
#include "worker_template.h"

#define WORKER_RENDER_ARENA_MAX (16 * 1024 * 1024)
#define WORKER_RENDER_MAX       (4 * 1024 * 1024)
#define WORKER_RENDER_REF       8

typedef struct {
    worker_draw_ticket_t ticket;
    worker_draw_e        format;
    stoa_buf_t           out; /* in the thread's own arena */
    bool                 drawn;
    const char          *lang;
    const char          *id;
    const char          *generation;
} worker_render_t;


static worker_step_e
worker_render_begin(worker_task_t *t)
{
    t->state = stoa_calloc(t->mem, sizeof(worker_render_t));
    if (t->state == NULL) {
        return WORKER_FAIL;
    }

    return worker_pg(t, WORKER_SQL_RENDER_BEGIN, t->id_z, t->payload_z);
}


static void
worker_render_free(void *data)
{
    stoa_arena_destroy(data);
}


/* Never NULL: what is missing is drawn as nothing. */

static const char *
worker_render_text(worker_task_t *t, const char *member)
{
    const char *z;

    z = worker_member_z(t->mem, t->answer, member);

    return z != NULL ? z : "";
}


static const char *
worker_render_word(worker_task_t *t, const char *lang, const char *word)
{
    char *z;

    z = stoa_strdup_z(t->mem,
                      worker_template_word(t->worker->templates, lang, word));

    return z != NULL ? z : "";
}


static const char *
worker_render_z(stoa_buf_t *b)
{
    stoa_buf_nul(b);

    return b->failed ? "" : (const char *) b->data;
}


static void
worker_render_field(worker_task_t *t, size_t i, const char *word,
                    const char *value)
{
    worker_render_t *r = t->state;

    r->ticket.fields[i].label = worker_render_word(t, r->lang, word);
    r->ticket.fields[i].value = value;
}


static void
worker_render_fields(worker_task_t *t)
{
    int64_t                   cents;
    stoa_buf_t                when, price, ref;
    stoa_str_t                order;
    worker_render_t          *r = t->state;
    const worker_templates_t *words = t->worker->templates;

    stoa_buf_init(&when, t->mem, 128, 1024);
    stoa_buf_init(&price, t->mem, 64, 256);
    stoa_buf_init(&ref, t->mem, 16, 64);

    if (!worker_template_when(words, r->lang,
                              worker_member_text(t->answer, "startsLocal"),
                              worker_member_text(t->answer, "timezone"), &when))
    {
        when.len = 0;
        stoa_buf_str(&when, worker_member_text(t->answer, "startsLocal"));
    }

    cents = worker_member_int(t->answer, "priceCents", -1);

    if (cents == 0) {
        stoa_buf_str(&price, worker_template_word(words, r->lang, "free"));

    } else if (cents > 0) {
        worker_template_money(words, r->lang, cents,
                              worker_member_text(t->answer, "currency"),
                              &price);
    }

    order = worker_member_text(t->answer, "orderId");
    if (order.len > WORKER_RENDER_REF) {
        order.data += order.len - WORKER_RENDER_REF;
        order.len = WORKER_RENDER_REF;
    }

    stoa_buf_str(&ref, order);

    worker_render_field(t, 0, "starts", worker_render_z(&when));
    worker_render_field(t, 1, "place", worker_render_text(t, "eventLocation"));
    worker_render_field(t, 2, "holder", worker_render_text(t, "holder"));
    worker_render_field(t, 3, "type", worker_render_text(t, "typeName"));
    worker_render_field(t, 4, "price", worker_render_z(&price));
    worker_render_field(t, 5, "order", worker_render_z(&ref));
}


static void
worker_render_work(void *arg)
{
    worker_render_t *r = arg;

    r->drawn = worker_draw_ticket(&r->ticket, r->format, &r->out);
}


static bool
worker_render_prepare(worker_task_t *t)
{
    stoa_buf_t       generation;
    stoa_mem_t      *own;
    worker_render_t *r = t->state;

    r->lang = worker_template_lang(worker_member_text(t->answer, "lang"));
    r->format = stoa_str_eq_z(worker_member_text(t->answer, "format"), "png")
                  ? WORKER_DRAW_PNG
                  : WORKER_DRAW_PDF;
    r->id = worker_render_text(t, "ticketId");
    r->ticket.rtl = worker_template_rtl(r->lang);
    r->ticket.title = worker_render_text(t, "eventTitle");
    r->ticket.kind = worker_render_word(t, r->lang, "ticket");
    r->ticket.admit = worker_render_word(t, r->lang, "admit");
    r->ticket.code = worker_render_text(t, "code");
    worker_render_fields(t);

    stoa_buf_init(&generation, t->mem, 16, 24);
    stoa_buf_int(&generation, worker_member_int(t->answer, "generation", 1));
    r->generation = worker_render_z(&generation);

    own = stoa_arena_create(65536, WORKER_RENDER_ARENA_MAX);
    if (own == NULL) {
        return false;
    }

    if (!t->mem->on_free(t->mem->ctx, worker_render_free, own)) {
        stoa_arena_destroy(own);
        return false;
    }

    stoa_buf_init(&r->out, own, 32768, WORKER_RENDER_MAX);

    return r->generation[0] != '\0';
}


static worker_step_e
worker_render_draw(worker_task_t *t)
{
    worker_step_e rc;

    worker_crash_point("ticket.render.begun");

    rc = worker_answer(t);
    if (rc != WORKER_NEXT) {
        return rc;
    }

    /* result is "render" */

    if (worker_texts(t->worker) == NULL) {
        return worker_retry(t, "mail_templates", 0);
    }

    if (!worker_render_prepare(t)) {
        return WORKER_FAIL;
    }

    return worker_compute(t, worker_render_work, t->state);
}


static worker_step_e
worker_render_put(worker_task_t *t)
{
    size_t           len;
    char            *hex;
    worker_render_t *r = t->state;

    worker_crash_point("ticket.render.drawn");

    if (!r->drawn) {
        return WORKER_FAIL;
    }

    len = r->out.len;
    hex = stoa_alloc(r->out.mem, 2 * len + 3);
    if (hex == NULL) {
        return WORKER_FAIL;
    }

    hex[0] = '\\';
    hex[1] = 'x';
    stoa_hex_encode(hex + 2, r->out.data, len);
    hex[2 * len + 2] = '\0';

    return worker_pg(t, WORKER_SQL_RENDER_PUT, t->id_z, t->payload_z, r->id,
                     r->generation,
                     r->format == WORKER_DRAW_PNG ? "png" : "pdf", hex);
}


static worker_step_e
worker_render_end(worker_task_t *t)
{
    worker_crash_point("ticket.render.done");

    return worker_answer(t);
}


const worker_step_t worker_render_steps[] = {
    { "begin", worker_render_begin },
    { "draw", worker_render_draw },
    { "put", worker_render_put },
    { "end", worker_render_end },
    worker_steps_end,
};
