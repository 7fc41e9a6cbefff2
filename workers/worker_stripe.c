/*
 * The provider "stripe": Checkout Sessions (STRIPE_MODE=checkout, Stripe's
 * own page) or PaymentIntents (intent, the operator's page), refunds, and
 * what to make of the answers.
 *
 * The API version is pinned; amounts are Stripe's smallest units here, and
 * PostgreSQL turns them into ours (app.provider_units); our ids travel as
 * metadata, so that every object can be found again.
 */

#include "worker_stripe.h"

#include <stdio.h>

#include "../shared/stoa_str.h"
#include "../shared/stoa_time.h"
#include "worker_member.h"

#define WORKER_STRIPE_BODY_MAX (1024 * 1024)

/* Stripe wants a session to live 30 minutes to 24 hours from its making.
   The bytes are fixed before the first try: an hour leaves half of it for
   tries.  A hold that ends earlier is enforced by PostgreSQL, and reconcile
   expires the session. */
#define WORKER_STRIPE_SESSION_S     3600
#define WORKER_STRIPE_SESSION_MAX_S (23 * 3600)

#define WORKER_STRIPE_SLOWER_MS   2000
#define WORKER_STRIPE_KEY_MS      60000
#define WORKER_STRIPE_RETRY_MAX_S 3600


static void
worker_stripe_z(stoa_buf_t *b, const char *name, const char *value)
{
    stoa_http_form_add(b, name, stoa_str_z(value));
}


static void
worker_stripe_member(stoa_buf_t *b, const char *name, const stoa_json_t *ask,
                     const char *member)
{
    stoa_str_t s;

    s = worker_member_text(ask, member);
    if (s.len > 0) {
        stoa_http_form_add(b, name, s);
    }
}


static void
worker_stripe_int(stoa_buf_t *b, const char *name, int64_t n)
{
    char text[24];

    snprintf(text, sizeof(text), "%lld", (long long) n);
    worker_stripe_z(b, name, text);
}


/* Stripe writes currencies in lower case. */

static void
worker_stripe_currency(stoa_buf_t *b, const char *name, const stoa_json_t *ask)
{
    char       text[4];
    size_t     i;
    stoa_str_t s;

    s = worker_member_text(ask, "currency");

    for (i = 0; i < 3 && i < s.len; i++) {
        text[i] = (char) (s.data[i] | 0x20);
    }

    text[i] = '\0';
    worker_stripe_z(b, name, text);
}


/* The page of an order; stoa_http_form_add() encodes it once more. */

static void
worker_stripe_page(worker_task_t *t, stoa_buf_t *b, const char *name,
                   const stoa_json_t *ask, const char *tail)
{
    stoa_buf_t url;

    stoa_buf_init(&url, t->mem, 256, 1024);
    stoa_buf_z(&url, t->worker->conf->public_url);
    stoa_buf_z(&url, "/events/order/?id=");
    stoa_buf_str(&url, worker_member_text(ask, "orderId"));
    stoa_buf_z(&url, tail);

    if (url.failed) {
        b->failed = true;
        return;
    }

    stoa_http_form_add(b, name, stoa_buf_view(&url));
}


/* Checkout has no Arabic; "auto" asks the browser. */

static const char *
worker_stripe_locale(stoa_str_t lang)
{
    size_t i;

    static const char *const known[] = { "de", "en", "es", "fr", "it" };

    if (lang.len > 2 && lang.data[2] == '-') {
        lang.len = 2; /* "de-AT" */
    }

    for (i = 0; i < stoa_nitems(known); i++) {
        if (stoa_str_eq_z(lang, known[i])) {
            return known[i];
        }
    }

    return "auto";
}


static void
worker_stripe_session(worker_task_t *t, const stoa_json_t *ask, stoa_buf_t *b)
{
    int64_t now, until;

    now = stoa_time_ms() / 1000;
    until = worker_member_int(ask, "holdUntil", 0);

    if (until < now + WORKER_STRIPE_SESSION_S) {
        until = now + WORKER_STRIPE_SESSION_S;
    }

    if (until > now + WORKER_STRIPE_SESSION_MAX_S) {
        until = now + WORKER_STRIPE_SESSION_MAX_S;
    }

    worker_stripe_z(b, "mode", "payment");
    worker_stripe_member(b, "client_reference_id", ask, "orderId");
    worker_stripe_page(t, b, "success_url", ask, "&paid=1");
    worker_stripe_page(t, b, "cancel_url", ask, "");
    worker_stripe_int(b, "expires_at", until);
    worker_stripe_z(b, "locale",
                    worker_stripe_locale(worker_member_text(ask, "lang")));
    worker_stripe_member(b, "customer_email", ask, "email");
    worker_stripe_int(b, "line_items[0][quantity]", 1);
    worker_stripe_currency(b, "line_items[0][price_data][currency]", ask);
    worker_stripe_int(b, "line_items[0][price_data][unit_amount]",
                      worker_member_int(ask, "amountCents", 0));
    worker_stripe_member(b, "line_items[0][price_data][product_data][name]",
                         ask, "title");
    worker_stripe_member(b, "metadata[order_id]", ask, "orderId");
    worker_stripe_member(b, "metadata[payment_id]", ask, "paymentId");
    worker_stripe_member(b, "payment_intent_data[metadata][order_id]", ask,
                         "orderId");
    worker_stripe_member(b, "payment_intent_data[metadata][payment_id]", ask,
                         "paymentId");
}


static void
worker_stripe_intent(const stoa_json_t *ask, stoa_buf_t *b)
{
    worker_stripe_int(b, "amount", worker_member_int(ask, "amountCents", 0));
    worker_stripe_currency(b, "currency", ask);
    worker_stripe_z(b, "automatic_payment_methods[enabled]", "true");
    worker_stripe_member(b, "description", ask, "title");
    worker_stripe_member(b, "metadata[order_id]", ask, "orderId");
    worker_stripe_member(b, "metadata[payment_id]", ask, "paymentId");
}


static bool
worker_stripe_request(worker_task_t *t, worker_pay_op_e op,
                      const stoa_json_t *ask, stoa_buf_t *path,
                      stoa_buf_t *body)
{
    if (op == WORKER_PAY_REFUND) {
        stoa_buf_z(path, "/v1/refunds");
        worker_stripe_member(body, "payment_intent", ask, "paymentIntentId");
        worker_stripe_int(body, "amount",
                          worker_member_int(ask, "amountCents", 0));
        worker_stripe_z(body, "reason", "requested_by_customer");
        worker_stripe_member(body, "metadata[order_id]", ask, "orderId");
        worker_stripe_member(body, "metadata[refund_id]", ask, "refundId");

    } else if (strcmp(t->worker->conf->stripe_mode, "intent") == 0) {
        stoa_buf_z(path, "/v1/payment_intents");
        worker_stripe_intent(ask, body);

    } else {
        stoa_buf_z(path, "/v1/checkout/sessions");
        worker_stripe_session(t, ask, body);
    }

    return !path->failed && !body->failed;
}


static void
worker_stripe_search(const stoa_json_t *ask, stoa_buf_t *path)
{
    char        query[96];
    int         n;
    stoa_buf_t  q;
    stoa_uuid_t id;

    stoa_buf_init(&q, path->mem, 128, 512);

    /* the id is put between quotes: only a real one gets there */

    if (!stoa_uuid_parse(worker_member_text(ask, "orderId"), &id)) {
        path->failed = true;
        return;
    }

    n = snprintf(query, sizeof(query), "metadata['order_id']:'%.36s'",
                 (char *) worker_member_text(ask, "orderId").data);
    if (n < 0 || (size_t) n >= sizeof(query)) {
        path->failed = true;
        return;
    }

    worker_stripe_z(&q, "query", query);
    worker_stripe_int(&q, "limit", 10);
    stoa_buf_z(path, "/v1/payment_intents/search?");
    stoa_buf_str(path, stoa_buf_view(&q));
}


static bool
worker_stripe_lookup(worker_pay_op_e op, const stoa_json_t *ask,
                     stoa_buf_t *path)
{
    stoa_buf_t q;

    if (op == WORKER_PAY_CREATE) {
        worker_stripe_search(ask, path);
        return !path->failed;
    }

    stoa_buf_init(&q, path->mem, 128, 512);
    worker_stripe_member(&q, "payment_intent", ask, "paymentIntentId");
    worker_stripe_int(&q, "limit", 100);
    stoa_buf_z(path, "/v1/refunds?");
    stoa_buf_str(path, stoa_buf_view(&q));

    return !path->failed && !q.failed;
}


static bool
worker_stripe_call(worker_task_t *t, const char *method, const char *path,
                   stoa_str_t body, const char *key, uint32_t timeout_ms,
                   stoa_http_done_pt done)
{
    stoa_buf_t          url, auth, version, idem;
    const char         *headers[5];
    const stoa_conf_t  *conf = t->worker->conf;
    stoa_http_request_t rq;

    stoa_buf_init(&url, t->mem, 256, 2048);
    stoa_buf_init(&auth, t->mem, 128, 512);
    stoa_buf_init(&version, t->mem, 64, 128);
    stoa_buf_init(&idem, t->mem, 128, 300);

    stoa_buf_printf(&url, "%s%s", conf->stripe_api_url, path);
    stoa_buf_nul(&url);
    stoa_buf_printf(&auth, "Authorization: Bearer %s", conf->stripe_secret_key);
    stoa_buf_nul(&auth);
    stoa_buf_printf(&version, "Stripe-Version: %s", conf->stripe_version);
    stoa_buf_nul(&version);
    stoa_buf_printf(&idem, "Idempotency-Key: %s", key ? key : "");
    stoa_buf_nul(&idem);

    if (url.failed || auth.failed || version.failed || idem.failed) {
        return false;
    }

    headers[0] = (char *) auth.data;
    headers[1] = (char *) version.data;
    headers[2] = "Content-Type: application/x-www-form-urlencoded";
    headers[3] = key != NULL ? (char *) idem.data : NULL;
    headers[4] = NULL;

    memset(&rq, 0, sizeof(rq));
    rq.method = method;
    rq.url = (char *) url.data;
    rq.headers = headers;
    rq.body = body;
    rq.ca_file = conf->stripe_ca_file;
    rq.timeout_ms = timeout_ms;
    rq.max_body = WORKER_STRIPE_BODY_MAX;

    return stoa_http_start(t->worker->http, t->mem, &rq, done, t) != NULL;
}


/* Answers */


static uint32_t
worker_stripe_delay(const stoa_http_answer_t *a, uint32_t otherwise)
{
    int64_t     s;
    const char *text;

    text = stoa_http_header(a, "Retry-After");

    if (text == NULL || !stoa_str_int(stoa_str_z(text), 0, INT32_MAX, &s)) {
        return otherwise;
    }

    if (s > WORKER_STRIPE_RETRY_MAX_S) {
        s = WORKER_STRIPE_RETRY_MAX_S;
    }

    return (uint32_t) s * 1000;
}


static worker_pay_verdict_e
worker_stripe_judge(const stoa_http_answer_t *a, const stoa_json_t *body,
                    uint32_t *delay_ms)
{
    bool        never, always;
    const char *word;

    *delay_ms = 0;

    if (a->end != STOA_HTTP_ANSWERED) {
        return WORKER_PAY_AGAIN; /* the key makes it harmless */
    }

    *delay_ms = worker_stripe_delay(a, 0);

    if (a->status >= 200 && a->status < 300) {
        return body != NULL ? WORKER_PAY_OK : WORKER_PAY_AGAIN;
    }

    word = stoa_http_header(a, "Stripe-Should-Retry");
    always = word != NULL && strcmp(word, "true") == 0;
    never = word != NULL && strcmp(word, "false") == 0;

    if (a->status == 429 && !never) {
        *delay_ms = worker_stripe_delay(a, WORKER_STRIPE_SLOWER_MS);
        return WORKER_PAY_SLOWER;
    }

    if (always) {
        return WORKER_PAY_AGAIN;
    }

    if (a->status >= 500) {
        /* A stored 500 comes again for a day: ask what really happened. */
        word = stoa_http_header(a, "Idempotent-Replayed");

        return never || (word != NULL && strcmp(word, "true") == 0)
                 ? WORKER_PAY_LOOKUP
                 : WORKER_PAY_AGAIN;
    }

    /* our API key is wrong or may not do this: the operator mends it, however
       long that takes, while the task waits */

    if (a->status == 401 || a->status == 403) {
        *delay_ms = worker_stripe_delay(a, WORKER_STRIPE_KEY_MS);
        return WORKER_PAY_SLOWER;
    }

    if (never) {
        return WORKER_PAY_REFUSED;
    }

    if (a->status == 409) {
        return WORKER_PAY_AGAIN; /* the same key or object is at work */
    }

    /* 3xx is never followed; 400, 402, 404 stay what they are */

    return WORKER_PAY_REFUSED;
}


static const stoa_json_t *
worker_stripe_found(worker_pay_op_e op, const stoa_json_t *ask,
                    const stoa_json_t *body)
{
    size_t             i;
    const char        *member, *meta;
    const stoa_json_t *list, *object;

    member = op == WORKER_PAY_REFUND ? "refundId" : "orderId";
    meta = op == WORKER_PAY_REFUND ? "refund_id" : "order_id";
    list = worker_member(body, "data", STOA_JSON_ARRAY);

    for (i = 0; list != NULL && i < stoa_json_count(list); i++) {
        object = stoa_json_at(list, i);

        if (stoa_str_eq(worker_member_text(worker_member(object, "metadata",
                                                         STOA_JSON_OBJECT),
                                           meta),
                        worker_member_text(ask, member)))
        {
            return object;
        }
    }

    return NULL;
}


static bool
worker_stripe_partial(const stoa_json_t *body)
{
    return worker_member_true(body, "has_more");
}


static void
worker_stripe_copy(stoa_buf_t *out, const char *name, const stoa_json_t *object,
                   const char *member)
{
    worker_json_add(out, name, worker_member_z(out->mem, object, member));
}


static void
worker_stripe_result(worker_pay_op_e op, const stoa_json_t *ask,
                     const stoa_json_t *object, stoa_buf_t *out)
{
    bool       session;
    int64_t    until;
    stoa_str_t intent;

    if (op == WORKER_PAY_REFUND) {
        stoa_buf_z(out, "{\"provider\":\"stripe\"");
        worker_stripe_copy(out, "providerRefundId", object, "id");
        worker_stripe_copy(out, "status", object, "status");
        stoa_buf_char(out, '}');
        return;
    }

    session = stoa_str_eq_z(worker_member_text(object, "object"),
                            "checkout.session");
    until = worker_member_int(object, "expires_at", 0);

    /* a session's intent is null until the buyer confirms, or an id */

    intent = worker_member_text(object, "payment_intent");

    stoa_buf_z(out, "{\"provider\":\"stripe\"");
    worker_stripe_copy(out, "op", ask, "op");
    worker_stripe_copy(out, "clientSecret", object, "client_secret");

    if (session) {
        worker_stripe_copy(out, "checkoutSessionId", object, "id");
        worker_stripe_copy(out, "checkoutUrl", object, "url");
        worker_json_add(out, "paymentIntentId",
                        intent.len > 0 ? stoa_strdup_z(out->mem, intent)
                                       : NULL);

    } else {
        worker_json_add(out, "checkoutSessionId", NULL);
        worker_json_add(out, "checkoutUrl", NULL);
        worker_stripe_copy(out, "paymentIntentId", object, "id");
    }

    stoa_buf_z(out, ",\"expiresAt\":");

    if (until > 0) {
        stoa_buf_int(out, until);

    } else {
        stoa_buf_z(out, "null");
    }

    stoa_buf_char(out, '}');
}


static void
worker_stripe_refusal(const stoa_http_answer_t *a, const stoa_json_t *body,
                      stoa_buf_t *out)
{
    const stoa_json_t *error;

    error = worker_member(body, "error", STOA_JSON_OBJECT);

    stoa_buf_printf(out, "{\"httpStatus\":%d", a->status);
    worker_stripe_copy(out, "type", error, "type");
    worker_stripe_copy(out, "code", error, "code");
    worker_stripe_copy(out, "message", error, "message");
    stoa_buf_char(out, '}');
}


const worker_provider_t worker_stripe = {
    .name = "stripe",
    .request = worker_stripe_request,
    .lookup = worker_stripe_lookup,
    .call = worker_stripe_call,
    .judge = worker_stripe_judge,
    .found = worker_stripe_found,
    .partial = worker_stripe_partial,
    .result = worker_stripe_result,
    .refusal = worker_stripe_refusal,
};


/* Reconcile */


const char *
worker_stripe_inspect(const stoa_json_t *item, bool cancel, stoa_buf_t *path)
{
    stoa_str_t session, intent, refund;

    session = worker_member_text(item, "checkoutSessionId");
    intent = worker_member_text(item, "paymentIntentId");
    refund = worker_member_text(item, "providerRefundId");

    if (refund.len > 0) {
        stoa_buf_z(path, "/v1/refunds/");
        stoa_buf_str(path, refund);
        return "GET";
    }

    if (session.len > 0) {
        stoa_buf_z(path, "/v1/checkout/sessions/");
        stoa_buf_str(path, session);
        stoa_buf_z(path, cancel ? "/expire" : "?expand%5B%5D=payment_intent");

    } else if (intent.len > 0) {
        stoa_buf_z(path, "/v1/payment_intents/");
        stoa_buf_str(path, intent);
        stoa_buf_z(path, cancel ? "/cancel" : "");

    } else {
        worker_stripe_search(item, path);
        cancel = false; /* first it must be known */
    }

    return cancel ? "POST" : "GET";
}


bool
worker_stripe_observed(const stoa_json_t *item, const stoa_json_t *body,
                       stoa_buf_t *out)
{
    const char        *status, *id;
    stoa_str_t         kind, checkout;
    const stoa_json_t *intent;

    kind = worker_member_text(body, "object");
    checkout = worker_member_text(NULL, "status");
    intent = body;
    id = NULL;

    if (stoa_str_eq_z(kind, "refund")) {
        stoa_buf_z(out, "{\"provider\":\"stripe\"");
        worker_stripe_copy(out, "status", body, "status");
        worker_stripe_copy(out, "reason", body, "failure_reason");
        stoa_buf_char(out, '}');
        return !out->failed;
    }

    if (stoa_str_eq_z(kind, "checkout.session")) {
        /* expanded when it was asked for, else its id */
        intent = worker_member(body, "payment_intent", STOA_JSON_OBJECT);
        id = worker_member_z(out->mem, body, "payment_intent");
        checkout = worker_member_text(body, "status");

    } else if (stoa_str_eq_z(kind, "search_result")) {
        intent = worker_stripe_found(WORKER_PAY_CREATE, item, body);
    }

    if (intent == NULL && checkout.len == 0) {
        return false;
    }

    status = worker_member_z(out->mem, intent, "status");

    /* no money comes through an expired session; an intent that did get paid
       would have completed it */

    if (intent == NULL && stoa_str_eq_z(checkout, "expired")) {
        status = "canceled";
    }

    stoa_buf_z(out, "{\"provider\":\"stripe\"");
    worker_json_add(out, "status", status);
    worker_json_add(out, "checkoutStatus",
                    checkout.len > 0 ? stoa_strdup_z(out->mem, checkout)
                                     : NULL);
    worker_json_add(out, "paymentIntentId",
                    id ? id : worker_member_z(out->mem, intent, "id"));
    worker_stripe_copy(out, "currency", intent, "currency");
    stoa_buf_z(out, ",\"amountReceived\":");
    stoa_buf_int(out, worker_member_int(intent, "amount_received", 0));
    stoa_buf_char(out, '}');

    return !out->failed;
}
