/*
 * Flow TEST_PAY: the payer of the provider "test".  Somebody pressed Pay or
 * Decline at /pay/<id>; this posts the event that Stripe would post, signed
 * in the same way, to the edge's own webhook.
 *
 * Queue: payment.  Effect: the edge's 2xx.  Once: the event's id is made from
 * the task's, and the webhook stores an id once.  Killed after "begun":
 * nothing has happened; after "posted": the repeat posts the same event,
 * which the edge answers with 2xx and forgets.
 */

#include "worker.h"

#include "../shared/stoa_hmac.h"
#include "../shared/stoa_str.h"
#include "../shared/stoa_time.h"
#include "../shared/stoa_http.h"
#include "worker_member.h"

#define WORKER_TESTPAY_MS        10000
#define WORKER_TESTPAY_EVENT_MAX 8192

typedef struct {
    stoa_http_answer_t answer;
} worker_testpay_t;


static worker_step_e
worker_testpay_begin(worker_task_t *t)
{
    t->state = stoa_calloc(t->mem, sizeof(worker_testpay_t));
    if (t->state == NULL) {
        return WORKER_FAIL;
    }

    return worker_pg(t, WORKER_SQL_TEST_PAY_BEGIN, t->id_z, t->payload_z);
}


static void
worker_testpay_member(stoa_buf_t *b, const char *name, const stoa_json_t *ask,
                      const char *member)
{
    worker_json_add(b, name, worker_member_z(b->mem, ask, member));
}


/* The object of a payment_intent event, as far as anybody reads it. */

static void
worker_testpay_intent(stoa_buf_t *b, const stoa_json_t *ask, bool paid)
{
    char       currency[4];
    size_t     i;
    int64_t    amount;
    stoa_str_t s;

    amount = worker_member_int(ask, "amountCents", 0);
    s = worker_member_text(ask, "currency");

    for (i = 0; i < 3 && i < s.len; i++) {
        currency[i] = (char) (s.data[i] | 0x20); /* as Stripe writes it */
    }

    currency[i] = '\0';

    stoa_buf_z(b, "{\"object\":\"payment_intent\"");
    worker_testpay_member(b, "id", ask, "intentId");
    worker_json_add(b, "currency", currency);
    stoa_buf_z(b, ",\"amount\":");
    stoa_buf_int(b, amount);
    stoa_buf_z(b, ",\"amount_received\":");
    stoa_buf_int(b, paid ? amount : 0);
    worker_json_add(b, "status",
                    paid ? "succeeded" : "requires_payment_method");
    stoa_buf_z(b, ",\"livemode\":false,\"metadata\":{\"source\":\"test\"");
    worker_testpay_member(b, "order_id", ask, "orderId");
    worker_testpay_member(b, "payment_id", ask, "paymentId");
    stoa_buf_char(b, '}');

    if (!paid) {
        stoa_buf_z(b, ",\"last_payment_error\":{\"type\":\"card_error\","
                      "\"code\":\"card_declined\","
                      "\"message\":\"Your card was declined.\"}");
    }

    stoa_buf_char(b, '}');
}


static void
worker_testpay_event(worker_task_t *t, const stoa_json_t *ask, int64_t now_s,
                     stoa_buf_t *b)
{
    bool paid;

    paid = stoa_str_eq_z(worker_member_text(ask, "outcome"), "succeeded");

    stoa_buf_printf(b, "{\"id\":\"evt_test_stoa_%lld\",\"object\":\"event\"",
                    (long long) t->id);
    worker_json_add(b, "api_version", t->worker->conf->stripe_version);
    stoa_buf_z(b, ",\"created\":");
    stoa_buf_int(b, now_s);
    stoa_buf_z(b, ",\"livemode\":false,\"pending_webhooks\":1");
    worker_json_add(b, "type",
                    paid ? "payment_intent.succeeded"
                         : "payment_intent.payment_failed");
    stoa_buf_z(b, ",\"data\":{\"object\":");
    worker_testpay_intent(b, ask, paid);
    stoa_buf_z(b, "}}");
}


/* TEST_WEBHOOK_SECRET, or the key that the edge derives in the same way. */

static bool
worker_testpay_sign(worker_task_t *t, stoa_str_t raw, int64_t now_s,
                    stoa_buf_t *header)
{
    char               text[STOA_SIGNATURE_MAX];
    bool               done;
    size_t             n;
    stoa_str_t         secret;
    unsigned char      key[STOA_SHA256_LEN];
    const stoa_conf_t *conf = t->worker->conf;

    secret = stoa_str_z(conf->test_webhook_secret);

    if (secret.len == 0) {
        if (!stoa_hmac_derive(stoa_str_z(conf->jwt_secret), "test-webhook",
                              key)) {
            return false;
        }

        secret.data = key;
        secret.len = sizeof(key);
    }

    n = stoa_signature_make(text, sizeof(text), secret, raw, now_s);
    explicit_bzero(key, sizeof(key));
    done = n > 0;

    stoa_buf_z(header, "Stripe-Signature: ");
    stoa_buf_put(header, text, n);
    stoa_buf_nul(header);

    return done && !header->failed;
}


static void
worker_testpay_answered(const stoa_http_answer_t *a, void *data)
{
    worker_task_t    *t = data;
    worker_testpay_t *p = t->state;

    p->answer = *a;
    worker_resume(t);
}


static worker_step_e
worker_testpay_post(worker_task_t *t)
{
    int64_t             now_s;
    stoa_buf_t          url, body, header;
    const char         *headers[3], *origin;
    worker_step_e       rc;
    stoa_http_request_t rq;

    worker_crash_point("payment.test_pay.begun");

    rc = worker_answer(t);
    if (rc != WORKER_NEXT) {
        return rc;
    }

    /* result is "call" */

    now_s = stoa_time_ms() / 1000;
    origin = t->worker->conf->edge_url;
    if (origin[0] == '\0') {
        origin = t->worker->conf->public_url;
    }

    stoa_buf_init(&url, t->mem, 256, 512);
    stoa_buf_init(&body, t->mem, 1024, WORKER_TESTPAY_EVENT_MAX);
    stoa_buf_init(&header, t->mem, 256, 256);

    stoa_buf_printf(&url, "%s/api/v1/webhooks/stripe", origin);
    stoa_buf_nul(&url);
    worker_testpay_event(t, t->answer, now_s, &body);

    if (url.failed || body.failed
        || !worker_testpay_sign(t, stoa_buf_view(&body), now_s, &header))
    {
        return WORKER_FAIL;
    }

    headers[0] = "Content-Type: application/json";
    headers[1] = (char *) header.data;
    headers[2] = NULL;

    memset(&rq, 0, sizeof(rq));
    rq.method = "POST";
    rq.url = (char *) url.data;
    rq.headers = headers;
    rq.body = stoa_buf_view(&body);
    rq.timeout_ms = WORKER_TESTPAY_MS;
    rq.max_body = 65536;

    if (stoa_http_start(t->worker->http, t->mem, &rq, worker_testpay_answered,
                        t)
        == NULL)
    {
        return WORKER_FAIL;
    }

    worker_wait(t);

    return WORKER_WAIT;
}


static worker_step_e
worker_testpay_posted(worker_task_t *t)
{
    worker_testpay_t *p = t->state;

    worker_crash_point("payment.test_pay.posted");

    if (p->answer.end != STOA_HTTP_ANSWERED || p->answer.status < 200
        || p->answer.status > 299)
    {
        stoa_log(t->worker->log, STOA_LOG_WARN,
                 "testpay: the edge gave status:%d, task:%lld: %s",
                 p->answer.status, (long long) t->id,
                 p->answer.end == STOA_HTTP_ANSWERED ? "" : p->answer.message);
        return worker_retry(t, "webhook_refused", 0);
    }

    return worker_pg(t, WORKER_SQL_DONE, t->id_z, t->payload_z);
}


static worker_step_e
worker_testpay_end(worker_task_t *t)
{
    return worker_answer(t);
}


const worker_step_t worker_testpay_steps[] = {
    { "begin", worker_testpay_begin },
    { "post", worker_testpay_post },
    { "posted", worker_testpay_posted },
    { "end", worker_testpay_end },
    worker_steps_end,
};
