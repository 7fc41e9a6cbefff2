/*
 * Flows PAYMENT_CREATE, REFUND_EXECUTE, PAYMENT_RECONCILE and PAYMENT_CANCEL.
 *
 * Queue: payment.  Create and refund are one flow: ask PostgreSQL what to do,
 * store the request's bytes, call the provider with the operation's own key,
 * store the answer.  Once: the bytes and the key ("order:<id>",
 * "refund:<id>") are the same in every try, so the provider does it once;
 * PostgreSQL stores the answer with queue.done in one transaction.
 *
 * Killed after "begun": nothing has happened.  After "stored": the repeat
 * sends the stored bytes.  After "called": the same, and the provider
 * answers from its memory.  After "done": the repeat finds the task done.
 *
 * A key is remembered for a day at least: from the 23rd hour on nothing is
 * sent again; what exists at the provider is looked up.  A refund that does
 * not is asked for anew, as it is owed; a payment that does not is given up.
 *
 * Reconcile asks about payments and refunds that hang and hands what it sees
 * to the same transition function as the webhook; what belongs to an order
 * that has ended is expired or canceled over there first.  Cancel is the same
 * for one payment, at once and until it is done.
 */

#include "worker_pay.h"

#include "../shared/stoa_str.h"
#include "worker_member.h"
#include "worker_stripe.h"

#define WORKER_PAY_MS         30000
#define WORKER_PAY_INSPECT_MS 8000
#define WORKER_PAY_MARGIN_MS  4000
#define WORKER_PAY_KEY_S      (23 * 3600)
#define WORKER_PAY_PATH_MAX   1024
#define WORKER_PAY_BODY_MAX   16384
#define WORKER_PAY_RESULT_MAX 16384
#define WORKER_PAY_ITEMS      20

typedef struct {
    const worker_provider_t *provider;
    worker_pay_op_e          op;
    const stoa_json_t       *ask;     /* of payment_begin, refund_begin */
    bool                     stored;  /* the request was made earlier */
    bool                     looking; /* this call is a lookup */
    int64_t                  age_s;   /* of the stored request */
    stoa_http_answer_t       answer;
    stoa_json_t             *body; /* of the answer; NULL: not JSON */

    /* reconcile */
    const stoa_json_t *items;
    const stoa_json_t *item;
    size_t             i;
    bool               no_cancel; /* the item could not be canceled */
} worker_pay_t;

/* The provider "test" is missing by intent: it has nothing to call. */
static const worker_provider_t *const worker_providers[] = { &worker_stripe };


static worker_pay_t *
worker_pay_state(worker_task_t *t)
{
    t->state = stoa_calloc(t->mem, sizeof(worker_pay_t));

    return t->state;
}


static void
worker_pay_answered(const stoa_http_answer_t *a, void *data)
{
    worker_task_t    *t = data;
    worker_pay_t     *p = t->state;
    stoa_json_fault_t fault;

    p->answer = *a;
    p->body = NULL;

    /* with a wrong key every call fails, so that few are made */
    worker_breaker_note(&t->worker->stripe_breaker,
                        a->end == STOA_HTTP_ANSWERED && a->status < 500
                            && a->status != 401,
                        t->worker->loop->now_ms(t->worker->loop),
                        t->worker->log, "stripe");

    if (a->end == STOA_HTTP_ANSWERED) {
        p->body = stoa_json_parse(t->mem, a->body, &fault);
    }

    if (p->body != NULL && stoa_json_type(p->body) != STOA_JSON_OBJECT) {
        p->body = NULL;
    }

    worker_resume(t);
}


/* Create and refund */


static worker_step_e
worker_pay_create_begin(worker_task_t *t)
{
    worker_pay_t *p;

    p = worker_pay_state(t);
    if (p == NULL) {
        return WORKER_FAIL;
    }

    p->op = WORKER_PAY_CREATE;

    return worker_pg(t, WORKER_SQL_PAYMENT_BEGIN, t->id_z, t->payload_z);
}


static worker_step_e
worker_pay_refund_begin(worker_task_t *t)
{
    worker_pay_t *p;

    p = worker_pay_state(t);
    if (p == NULL) {
        return WORKER_FAIL;
    }

    p->op = WORKER_PAY_REFUND;

    return worker_pg(t, WORKER_SQL_REFUND_BEGIN, t->id_z, t->payload_z);
}


/* Stores the request's bytes, unless an earlier run has. */

static worker_step_e
worker_pay_store(worker_task_t *t)
{
    size_t        i;
    stoa_buf_t    path, body;
    stoa_str_t    name;
    const char   *op;
    worker_step_e rc;
    worker_pay_t *p = t->state;

    worker_crash_point(p->op == WORKER_PAY_CREATE ? "payment.create.begun"
                                                  : "refund.execute.begun");

    rc = worker_answer(t);
    if (rc != WORKER_NEXT) {
        return rc;
    }

    /* result is "call" */

    p->ask = worker_json_copy(t->mem, t->answer);
    if (p->ask == NULL) {
        return WORKER_FAIL;
    }

    name = worker_member_text(p->ask, "provider");

    for (i = 0; i < stoa_nitems(worker_providers); i++) {
        if (stoa_str_eq_z(name, worker_providers[i]->name)) {
            p->provider = worker_providers[i];
        }
    }

    op = worker_member_z(t->mem, p->ask, "op");

    if (p->provider == NULL || op == NULL) {
        return worker_dead(t, "no_provider");
    }

    if (worker_member(p->ask, "request", STOA_JSON_OBJECT) != NULL) {
        p->stored = true;
        return WORKER_NEXT;
    }

    stoa_buf_init(&path, t->mem, 128, WORKER_PAY_PATH_MAX);
    stoa_buf_init(&body, t->mem, 1024, WORKER_PAY_BODY_MAX);

    if (!p->provider->request(t, p->op, p->ask, &path, &body)) {
        return WORKER_FAIL;
    }

    stoa_buf_nul(&path);
    stoa_buf_nul(&body);

    if (path.failed || body.failed) {
        return WORKER_FAIL;
    }

    return worker_pg(t, WORKER_SQL_PROVIDER_REQUEST, t->id_z, op,
                     (char *) path.data, (char *) body.data);
}


static worker_step_e
worker_pay_look(worker_task_t *t, worker_pay_t *p)
{
    stoa_buf_t path;
    stoa_str_t none = stoa_null_string;

    p->looking = true;
    stoa_buf_init(&path, t->mem, 256, WORKER_PAY_PATH_MAX);

    if (!p->provider->lookup(p->op, p->ask, &path)) {
        return WORKER_FAIL;
    }

    stoa_buf_nul(&path);

    if (path.failed
        || !p->provider->call(t, "GET", (char *) path.data, none, NULL,
                              WORKER_PAY_INSPECT_MS, worker_pay_answered))
    {
        return WORKER_FAIL;
    }

    worker_wait(t);

    return WORKER_WAIT;
}


/* Sends the stored bytes, whoever stored them. */

static worker_step_e
worker_pay_call(worker_task_t *t)
{
    uint32_t           wait_ms;
    const char        *path, *op, *body;
    worker_pay_t      *p = t->state;
    const stoa_json_t *request;

    worker_crash_point(p->op == WORKER_PAY_CREATE ? "payment.create.stored"
                                                  : "refund.execute.stored");

    wait_ms = worker_breaker_ask(&t->worker->stripe_breaker,
                                 t->worker->loop->now_ms(t->worker->loop));
    if (wait_ms > 0) {
        return worker_snooze(t, "breaker_open", wait_ms);
    }

    if (p->looking) {
        return worker_pay_look(t, p); /* judge sent us here */
    }

    request = p->stored ? worker_member(p->ask, "request", STOA_JSON_OBJECT)
                        : t->answer;
    p->age_s = worker_member_int(p->stored ? p->ask : request, "ageS", 0);

    path = worker_member_z(t->mem, request, "path");
    body = worker_member_z(t->mem, request, "body");
    op = worker_member_z(t->mem, p->ask, "op");

    if (path == NULL || body == NULL || op == NULL) {
        return WORKER_FAIL;
    }

    if (p->age_s >= WORKER_PAY_KEY_S) {
        return worker_pay_look(t, p);
    }

    if (!p->provider->call(t, "POST", path, stoa_str_z(body), op, WORKER_PAY_MS,
                           worker_pay_answered))
    {
        return WORKER_FAIL;
    }

    worker_wait(t);

    return WORKER_WAIT;
}


static worker_step_e
worker_pay_commit(worker_task_t *t, const stoa_json_t *object)
{
    stoa_buf_t    b;
    worker_pay_t *p = t->state;

    stoa_buf_init(&b, t->mem, 1024, WORKER_PAY_RESULT_MAX);
    p->provider->result(p->op, p->ask, object, &b);
    stoa_buf_nul(&b);

    if (b.failed) {
        return WORKER_FAIL;
    }

    return worker_pg(t,
                     p->op == WORKER_PAY_CREATE ? WORKER_SQL_PAYMENT_DONE
                                                : WORKER_SQL_REFUND_DONE,
                     t->id_z, t->payload_z, (char *) b.data);
}


static worker_step_e
worker_pay_fail(worker_task_t *t, const char *result)
{
    worker_pay_t *p = t->state;

    return worker_pg(t,
                     p->op == WORKER_PAY_CREATE ? WORKER_SQL_PAYMENT_FAILED
                                                : WORKER_SQL_REFUND_FAILED,
                     t->id_z, t->payload_z, result);
}


static worker_step_e
worker_pay_refuse(worker_task_t *t)
{
    stoa_buf_t    b;
    worker_pay_t *p = t->state;

    stoa_log(t->worker->log, STOA_LOG_ERROR,
             "pay: refused by \"%s\", status:%d, task:%lld", p->provider->name,
             p->answer.status, (long long) t->id);

    stoa_buf_init(&b, t->mem, 512, WORKER_PAY_RESULT_MAX);
    p->provider->refusal(&p->answer, p->body, &b);
    stoa_buf_nul(&b);

    return b.failed ? WORKER_FAIL : worker_pay_fail(t, (char *) b.data);
}


/* What the lookup found is as good as the answer that got lost. */

static worker_step_e
worker_pay_looked(worker_task_t *t, worker_pay_t *p)
{
    const stoa_json_t *object;

    object = p->provider->found(p->op, p->ask, p->body);
    if (object != NULL) {
        return worker_pay_commit(t, object);
    }

    if (p->age_s < WORKER_PAY_KEY_S || p->provider->partial(p->body)) {
        return worker_retry(t, "provider_unclear", 0);
    }

    /* it was never made, and the key can no longer protect a new try */

    return worker_pay_fail(t, "{\"httpStatus\":0,\"type\":\"stoa\","
                              "\"code\":\"never_made\",\"message\":null}");
}


static worker_step_e
worker_pay_judge(worker_task_t *t)
{
    uint32_t             delay_ms;
    worker_pay_t        *p = t->state;
    worker_pay_verdict_e verdict;

    worker_crash_point(p->op == WORKER_PAY_CREATE ? "payment.create.called"
                                                  : "refund.execute.called");

    verdict = p->provider->judge(&p->answer, p->body, &delay_ms);

    if (verdict == WORKER_PAY_AGAIN || verdict == WORKER_PAY_SLOWER) {
        stoa_log(t->worker->log, STOA_LOG_WARN,
                 "pay: \"%s\" gave no result, status:%d, task:%lld: %s",
                 p->provider->name, p->answer.status, (long long) t->id,
                 p->answer.end == STOA_HTTP_ANSWERED ? "" : p->answer.message);
    }

    switch (verdict) {
    case WORKER_PAY_OK:
        return p->looking ? worker_pay_looked(t, p)
                          : worker_pay_commit(t, p->body);

    case WORKER_PAY_AGAIN:
        return worker_retry(t, "provider_retry", delay_ms);

    case WORKER_PAY_SLOWER:
        return worker_snooze(t, "provider_slow_down", delay_ms);

    case WORKER_PAY_LOOKUP:
        if (p->looking) {
            return worker_retry(t, "provider_retry", delay_ms);
        }

        p->looking = true;
        return worker_goto(t, worker_pay_call);

    case WORKER_PAY_REFUSED:
        if (p->looking) {
            return worker_retry(t, "provider_lookup", delay_ms);
        }

        return worker_pay_refuse(t);
    }

    stoa_bug("worker_pay: unknown verdict");

    return WORKER_FAIL;
}


static worker_step_e
worker_pay_end(worker_task_t *t)
{
    worker_crash_point(t->row->flow == STOA_TASK_FLOW_PAYMENT_CREATE
                           ? "payment.create.done"
                           : "refund.execute.done");

    /* a refund that was never made: PostgreSQL forgot the request */

    if (stoa_str_eq_z(worker_member_text(t->answer, "result"), "again")) {
        return worker_goto(t, worker_pay_refund_begin);
    }

    return worker_answer(t);
}


const worker_step_t worker_pay_create_steps[] = {
    { "begin", worker_pay_create_begin },
    { "store", worker_pay_store },
    { "call", worker_pay_call },
    { "judge", worker_pay_judge },
    { "end", worker_pay_end },
    worker_steps_end,
};

const worker_step_t worker_pay_refund_steps[] = {
    { "begin", worker_pay_refund_begin },
    { "store", worker_pay_store },
    { "call", worker_pay_call },
    { "judge", worker_pay_judge },
    { "end", worker_pay_end },
    worker_steps_end,
};


/* Reconcile */


static worker_step_e
worker_pay_reconcile_begin(worker_task_t *t)
{
    if (worker_pay_state(t) == NULL) {
        return WORKER_FAIL;
    }

    return worker_pg(t, WORKER_SQL_RECONCILE_BEGIN, t->id_z, t->payload_z);
}


static worker_step_e
worker_pay_reconcile_list(worker_task_t *t)
{
    worker_step_e rc;
    worker_pay_t *p = t->state;

    worker_crash_point(t->row->flow == STOA_TASK_FLOW_PAYMENT_CANCEL
                           ? "payment.cancel.begun"
                           : "payment.reconcile.begun");

    rc = worker_answer(t);
    if (rc != WORKER_NEXT) {
        return rc;
    }

    p->ask = worker_json_copy(t->mem, t->answer);
    if (p->ask == NULL) {
        return WORKER_FAIL;
    }

    p->items = worker_member(p->ask, "items", STOA_JSON_ARRAY);

    return WORKER_NEXT;
}


static worker_step_e worker_pay_reconcile_finish(worker_task_t *t);


static worker_step_e
worker_pay_reconcile_ask(worker_task_t *t)
{
    size_t        n;
    bool          cancel;
    uint64_t      now_ms;
    stoa_buf_t    path;
    stoa_str_t    none = stoa_null_string;
    const char   *method;
    worker_pay_t *p = t->state;

    n = p->items != NULL ? stoa_json_count(p->items) : 0;
    now_ms = t->worker->loop->now_ms(t->worker->loop);

    /* what time does not allow is left for the next turn */

    if (p->i >= n || p->i >= WORKER_PAY_ITEMS
        || now_ms + WORKER_PAY_INSPECT_MS + WORKER_PAY_MARGIN_MS
               > t->deadline_ms)
    {
        return worker_goto(t, worker_pay_reconcile_finish);
    }

    p->item = stoa_json_at(p->items, p->i);
    cancel = worker_member_true(p->item, "cancel") && !p->no_cancel;

    stoa_buf_init(&path, t->mem, 256, WORKER_PAY_PATH_MAX);
    method = worker_stripe_inspect(p->item, cancel, &path);
    stoa_buf_nul(&path);

    if (path.failed
        || !worker_stripe.call(t, method, (char *) path.data, none, NULL,
                               WORKER_PAY_INSPECT_MS, worker_pay_answered))
    {
        return WORKER_FAIL;
    }

    worker_wait(t);

    return WORKER_WAIT;
}


static worker_step_e
worker_pay_reconcile_seen(worker_task_t *t)
{
    bool                 cancel;
    uint32_t             delay_ms;
    stoa_buf_t           b;
    const char          *id;
    worker_sql_e         stmt;
    worker_pay_t        *p = t->state;
    worker_pay_verdict_e verdict;

    verdict = worker_stripe.judge(&p->answer, p->body, &delay_ms);
    cancel = worker_member_true(p->item, "cancel") && !p->no_cancel;

    if (cancel && (verdict == WORKER_PAY_REFUSED || p->answer.status == 403)) {
        p->no_cancel = true; /* it has ended: look at it instead */
        return worker_goto(t, worker_pay_reconcile_ask);
    }

    if (verdict != WORKER_PAY_OK) {
        stoa_log(t->worker->log, STOA_LOG_WARN,
                 "pay: reconcile got status:%d, task:%lld", p->answer.status,
                 (long long) t->id);

        if (t->row->flow == STOA_TASK_FLOW_PAYMENT_CANCEL
            && verdict != WORKER_PAY_REFUSED)
        {
            return verdict == WORKER_PAY_SLOWER
                     ? worker_snooze(t, "provider_slow_down", delay_ms)
                     : worker_retry(t, "provider_retry", delay_ms);
        }

        return WORKER_NEXT;
    }

    id = worker_member_z(t->mem, p->item, "refundId");
    stmt = id != NULL ? WORKER_SQL_REFUND_OBSERVED
                      : WORKER_SQL_PAYMENT_OBSERVED;

    if (id == NULL) {
        id = worker_member_z(t->mem, p->item, "paymentId");
    }

    stoa_buf_init(&b, t->mem, 512, WORKER_PAY_RESULT_MAX);

    if (!worker_stripe_observed(p->item, p->body, &b) || id == NULL) {
        return WORKER_NEXT;
    }

    stoa_buf_nul(&b);

    if (b.failed) {
        return WORKER_FAIL;
    }

    return worker_pg(t, stmt, id, (char *) b.data);
}


static worker_step_e
worker_pay_reconcile_next(worker_task_t *t)
{
    worker_pay_t *p = t->state;

    worker_crash_point(t->row->flow == STOA_TASK_FLOW_PAYMENT_CANCEL
                           ? "payment.cancel.observed"
                           : "payment.reconcile.observed");

    p->i++;
    p->no_cancel = false;

    return worker_goto(t, worker_pay_reconcile_ask);
}


static worker_step_e
worker_pay_reconcile_finish(worker_task_t *t)
{
    return worker_pg(t, WORKER_SQL_DONE, t->id_z, t->payload_z);
}


static worker_step_e
worker_pay_reconcile_end(worker_task_t *t)
{
    return worker_answer(t);
}


const worker_step_t worker_pay_reconcile_steps[] = {
    { "begin", worker_pay_reconcile_begin },
    { "list", worker_pay_reconcile_list },
    { "ask", worker_pay_reconcile_ask },
    { "seen", worker_pay_reconcile_seen },
    { "next", worker_pay_reconcile_next },
    { "finish", worker_pay_reconcile_finish },
    { "end", worker_pay_reconcile_end },
    worker_steps_end,
};


/* Cancel */


static worker_step_e
worker_pay_cancel_begin(worker_task_t *t)
{
    if (worker_pay_state(t) == NULL) {
        return WORKER_FAIL;
    }

    return worker_pg(t, WORKER_SQL_PAYMENT_CANCEL, t->id_z, t->payload_z);
}


const worker_step_t worker_pay_cancel_steps[] = {
    { "begin", worker_pay_cancel_begin },
    { "list", worker_pay_reconcile_list },
    { "ask", worker_pay_reconcile_ask },
    { "seen", worker_pay_reconcile_seen },
    { "next", worker_pay_reconcile_next },
    { "finish", worker_pay_reconcile_finish },
    { "end", worker_pay_reconcile_end },
    worker_steps_end,
};
