/*
 * A mail from its data: see worker_letter.h.  Everything that a template may
 * use is made here, whether this one uses it or not; what the data does not
 * hold is empty, and templates hide empty things by a section.
 */

#include "worker_letter.h"

#include "../shared/stoa_str.h"
#include "worker_member.h"
#include "worker_mime.h"
#include "worker_qr.h"

#define WORKER_LETTER_TICKETS  100
#define WORKER_LETTER_TEXT_MAX (256 * 1024)
#define WORKER_LETTER_MAX      (4 * 1024 * 1024)
#define WORKER_LETTER_QR_SCALE 6
#define WORKER_LETTER_VARS     32
#define WORKER_LETTER_REF      8

typedef struct {
    worker_letter_t    *l;
    const stoa_json_t  *data;
    const char         *lang;
    worker_var_t        vars[WORKER_LETTER_VARS];
    worker_vars_t       all;
    size_t              ntickets;
    worker_mime_part_t *pictures;
} worker_letter_work_t;


static bool worker_letter_vars(worker_letter_work_t *w);
static bool worker_letter_tickets(worker_letter_work_t *w);
static bool worker_letter_write(worker_letter_work_t    *w,
                                const worker_mime_who_t *from,
                                const worker_mime_who_t *to);


bool
worker_letter_build(worker_letter_t *l)
{
    worker_mime_who_t    from, to;
    worker_letter_work_t w;

    l->error = NULL;

    memset(&w, 0, sizeof(w));
    memset(&to, 0, sizeof(to));
    w.l = l;
    w.lang = worker_template_lang(worker_member_text(l->mail, "lang"));
    w.data = worker_member(l->mail, "data", STOA_JSON_OBJECT);

    if (!worker_mime_who(stoa_str_z(l->from), &from)) {
        l->error = "bad_sender";
        return true;
    }

    to.name = worker_member_text(l->mail, "toName");
    to.address = worker_member_text(l->mail, "to");

    if (!worker_mime_address(to.address)) {
        l->error = "bad_address";
        return true;
    }

    l->sender = stoa_strdup_z(l->mem, from.address);
    l->recipient = stoa_strdup_z(l->mem, to.address);

    return l->sender != NULL && l->recipient != NULL && worker_letter_vars(&w)
        && worker_letter_tickets(&w) && worker_letter_write(&w, &from, &to);
}


/* Variables */


static void
worker_letter_set(worker_letter_work_t *w, const char *name, stoa_str_t value)
{
    worker_var_t *v;

    if (w->all.nvars == WORKER_LETTER_VARS) {
        stoa_bug("worker_letter: too many variables");
        return;
    }

    v = &w->vars[w->all.nvars++];
    v->name = name;
    v->value = value;
}


static bool
worker_letter_set_buf(worker_letter_work_t *w, const char *name,
                      const stoa_buf_t *b)
{
    if (b->failed) {
        return false;
    }

    worker_letter_set(w, name, stoa_buf_view(b));

    return true;
}


static bool
worker_letter_set_money(worker_letter_work_t *w, const char *name,
                        const char *member, bool free_word)
{
    int64_t    cents;
    stoa_buf_t b;

    stoa_buf_init(&b, w->l->mem, 64, 256);
    cents = worker_member_int(w->data, member, 0);

    if (cents == 0) {
        if (free_word) {
            stoa_buf_str(&b, worker_template_word(w->l->templates, w->lang,
                                                  "free"));
        }

        return worker_letter_set_buf(w, name, &b);
    }

    worker_template_money(w->l->templates, w->lang, cents,
                          worker_member_text(w->data, "currency"), &b);

    return worker_letter_set_buf(w, name, &b);
}


static stoa_str_t
worker_letter_ref(stoa_str_t id)
{
    if (id.len > WORKER_LETTER_REF) {
        id.data += id.len - WORKER_LETTER_REF;
        id.len = WORKER_LETTER_REF;
    }

    return id;
}


int64_t
worker_letter_hours(const worker_letter_t *l)
{
    return worker_member_int(worker_member(l->mail, "data", STOA_JSON_OBJECT),
                             "hours", 0);
}


static bool
worker_letter_vars(worker_letter_work_t *w)
{
    size_t           i;
    stoa_buf_t       when, hours;
    worker_letter_t *l = w->l;

    /* as they are in the data */
    static const struct {
        const char *name, *member;
    } texts[] = {
        { "name", "name" },
        { "event_title", "eventTitle" },
        { "event_location", "eventLocation" },
        { "from_name", "fromName" },
        { "reason", "reason" },
        { "late", "late" },
        { "order_id", "orderId" },
        { "mfa_on", "mfa_on" },
        { "mfa_off", "mfa_off" },
        { "mfa_codes", "mfa_codes" },
        { "mfa_used", "mfa_used" },
        { "mfa_tried", "mfa_tried" },
        { "left", "left" },
        { "provider", "provider" },
        { "key_made", "key_made" },
        { "key_rotated", "key_rotated" },
        { "key_ends", "key_ends" },
        { "key_new", "key_new" },
        { "prefix", "prefix" },
        { "scopes", "scopes" },
        { "service", "service" },
        { "days", "days" },
    };

    stoa_buf_init(&when, l->mem, 128, 1024);
    stoa_buf_init(&hours, l->mem, 16, 16);

    w->all.vars = w->vars;

    worker_letter_set(w, "public_url", stoa_str_z(l->public_url));

    for (i = 0; i < stoa_nitems(texts); i++) {
        worker_letter_set(w, texts[i].name,
                          worker_member_text(w->data, texts[i].member));
    }

    worker_letter_set(w, "order_ref",
                      worker_letter_ref(
                          worker_member_text(w->data, "orderId")));
    worker_letter_set(w, "token", stoa_str_z(l->token ? l->token : ""));

    /* a mail without a date is better than none */

    if (!worker_template_when(l->templates, w->lang,
                              worker_member_text(w->data, "startsLocal"),
                              worker_member_text(w->data, "timezone"), &when))
    {
        stoa_buf_init(&when, l->mem, 128, 1024);
        stoa_buf_str(&when, worker_member_text(w->data, "startsLocal"));
    }

    stoa_buf_int(&hours, worker_letter_hours(l));

    return worker_letter_set_buf(w, "when", &when)
        && worker_letter_set_buf(w, "hours", &hours)
        && worker_letter_set_money(w, "total", "totalCents", true)
        && worker_letter_set_money(w, "refund", "refundCents", false);
}


/* Tickets */


static bool
worker_letter_ticket(worker_letter_work_t *w, size_t i,
                     const stoa_json_t *ticket, worker_vars_t *item)
{
    stoa_str_t          code;
    stoa_buf_t          png, number, cid;
    worker_qr_t         qr;
    worker_var_t       *v;
    stoa_mem_t         *mem = w->l->mem;
    worker_mime_part_t *part = &w->pictures[i];

    v = stoa_calloc(mem, 4 * sizeof(worker_var_t));
    code = worker_member_text(ticket, "code");
    stoa_buf_init(&png, mem, 4096, 65536);
    stoa_buf_init(&number, mem, 16, 16);
    stoa_buf_init(&cid, mem, 64, 128);

    if (v == NULL || !worker_qr_make(mem, code, &qr)
        || !worker_qr_png(&png, &qr, WORKER_LETTER_QR_SCALE))
    {
        return false;
    }

    stoa_buf_printf(&number, "%u", (unsigned) (i + 1));
    stoa_buf_printf(&cid, "ticket%u.%s@stoa", (unsigned) (i + 1), w->l->tag);
    stoa_buf_nul(&cid);

    if (number.failed || cid.failed) {
        return false;
    }

    part->type = "image/png";
    part->cid = (char *) cid.data;
    part->data = stoa_buf_view(&png);

    v[0].name = "number";
    v[0].value = stoa_buf_view(&number);
    v[1].name = "ticket_type";
    v[1].value = worker_member_text(ticket, "typeName");
    v[2].name = "holder";
    v[2].value = worker_member_text(ticket, "holder");
    v[3].name = "cid";
    v[3].value = stoa_buf_view(&cid);

    item->vars = v;
    item->nvars = 4;
    item->outer = &w->all;

    return true;
}


static bool
worker_letter_tickets(worker_letter_work_t *w)
{
    size_t             i, n;
    worker_vars_t     *items;
    stoa_buf_t         name;
    stoa_mem_t        *mem = w->l->mem;
    const stoa_json_t *list;

    list = worker_member(w->l->mail, "tickets", STOA_JSON_ARRAY);
    n = list != NULL ? stoa_json_count(list) : 0;
    n = n < WORKER_LETTER_TICKETS ? n : WORKER_LETTER_TICKETS;

    w->all.list = "tickets";

    if (n == 0) {
        return true;
    }

    items = stoa_calloc(mem, n * sizeof(worker_vars_t));
    w->pictures = stoa_calloc(mem, n * sizeof(worker_mime_part_t));
    if (items == NULL || w->pictures == NULL) {
        return false;
    }

    for (i = 0; i < n; i++) {
        if (!worker_letter_ticket(w, i, stoa_json_at(list, i), &items[i])) {
            return false;
        }

        stoa_buf_init(&name, mem, 32, 32);
        stoa_buf_printf(&name, "ticket-%u.png", (unsigned) (i + 1));
        stoa_buf_nul(&name);
        if (name.failed) {
            return false;
        }

        w->pictures[i].name = (char *) name.data;
    }

    w->ntickets = n;
    w->all.items = items;
    w->all.nitems = n;

    return true;
}


/* The message */


static bool
worker_letter_write(worker_letter_work_t *w, const worker_mime_who_t *from,
                    const worker_mime_who_t *to)
{
    const char      *name, *domain;
    stoa_buf_t       subject, text, html, id;
    worker_mime_t    m;
    worker_letter_t *l = w->l;

    name = worker_member_z(l->mem, l->mail, "template");
    stoa_buf_init(&subject, l->mem, 256, 4096);
    stoa_buf_init(&text, l->mem, 2048, WORKER_LETTER_TEXT_MAX);
    stoa_buf_init(&html, l->mem, 8192, WORKER_LETTER_TEXT_MAX);
    stoa_buf_init(&id, l->mem, 128, 512);

    if (name == NULL
        || !worker_template_write(l->templates, w->lang, name, &w->all,
                                  &subject, &text, &html))
    {
        if (subject.failed || text.failed || html.failed) {
            return false;
        }

        l->error = "bad_template";
        return true;
    }

    domain = strchr(l->sender, '@');
    stoa_buf_printf(&id, "%s%s", l->tag, domain);
    stoa_buf_nul(&id);
    if (id.failed) {
        return false;
    }

    l->message_id = (char *) id.data;

    memset(&m, 0, sizeof(m));
    m.from = *from;
    m.to = *to;
    m.subject = stoa_buf_view(&subject);
    m.text = stoa_buf_view(&text);
    m.html = stoa_buf_view(&html);
    m.language = w->lang;
    m.message_id = l->message_id;
    m.boundary = l->tag;
    m.date_ms = l->date_ms;
    m.inlines = w->pictures;
    m.ninlines = w->ntickets;

    stoa_buf_init(&l->message, l->mem, 16384, WORKER_LETTER_MAX);

    return worker_mime_write(&l->message, &m);
}
