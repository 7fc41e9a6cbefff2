/*
 * The Stripe provider's own part of payment.reconcile; the rest of it is
 * behind worker_provider_t.
 */

#ifndef WORKER_STRIPE_H_INCLUDED
#define WORKER_STRIPE_H_INCLUDED

#include "worker_pay.h"

/* Method and path that show, or with cancel end, one hanging payment. */
const char *worker_stripe_inspect(const stoa_json_t *item, bool cancel,
                                  stoa_buf_t *path);

/* What task.payment_observed takes, out of a session, an intent or a search
   answer.  False: nothing is known about it. */
bool worker_stripe_observed(const stoa_json_t *item, const stoa_json_t *body,
                            stoa_buf_t *out);

#endif /* WORKER_STRIPE_H_INCLUDED */
