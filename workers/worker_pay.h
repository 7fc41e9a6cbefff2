/*
 * Payment providers as the payment flows see them.  A provider turns what
 * task.payment_begin() and task.refund_begin() answered into one call, and
 * the call's answer into what the matching _done function takes.
 *
 * The provider "test" has no such calls: PostgreSQL does its part, and
 * worker_testpay.c plays the payer.
 */

#ifndef WORKER_PAY_H_INCLUDED
#define WORKER_PAY_H_INCLUDED

#include "worker.h"
#include "../shared/stoa_http.h"

typedef enum {
    WORKER_PAY_CREATE = 1,
    WORKER_PAY_REFUND
} worker_pay_op_e;

/* What an answer means for the task. */
typedef enum {
    WORKER_PAY_OK = 1,
    WORKER_PAY_AGAIN,  /* try the same bytes again */
    WORKER_PAY_SLOWER, /* the same, without using up an attempt */
    WORKER_PAY_LOOKUP, /* the outcome can only be found by looking */
    WORKER_PAY_REFUSED /* for good */
} worker_pay_verdict_e;

typedef struct {
    const char *name;

    /* Path and body of the call; the same for the same ask and minute. */
    bool (*request)(worker_task_t *t, worker_pay_op_e op,
                    const stoa_json_t *ask, stoa_buf_t *path, stoa_buf_t *body);

    /* Path of a GET that finds what an earlier call has made. */
    bool (*lookup)(worker_pay_op_e op, const stoa_json_t *ask,
                   stoa_buf_t *path);

    /* key NULL: none.  False: no memory. */
    bool (*call)(worker_task_t *t, const char *method, const char *path,
                 stoa_str_t body, const char *key, uint32_t timeout_ms,
                 stoa_http_done_pt done);

    worker_pay_verdict_e (*judge)(const stoa_http_answer_t *a,
                                  const stoa_json_t *body, uint32_t *delay_ms);

    /* The object that a lookup was after; NULL: it was never made. */
    const stoa_json_t *(*found)(worker_pay_op_e op, const stoa_json_t *ask,
                                const stoa_json_t *body);

    /* The lookup's answer is not all there is. */
    bool (*partial)(const stoa_json_t *body);

    /* What payment_done, refund_done take; for both kinds of answer. */
    void (*result)(worker_pay_op_e op, const stoa_json_t *ask,
                   const stoa_json_t *object, stoa_buf_t *out);

    /* What payment_failed, refund_failed take. */
    void (*refusal)(const stoa_http_answer_t *a, const stoa_json_t *body,
                    stoa_buf_t *out);
} worker_provider_t;

extern const worker_provider_t worker_stripe;

#endif /* WORKER_PAY_H_INCLUDED */
