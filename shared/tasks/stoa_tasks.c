/*
 * The task tables: classes (how long a lease is, how often and for how long
 * a failing task is tried) and kinds (what runs, in which class, what makes
 * its effect happen once).  Adding a kind is adding a row here and either a
 * task.* function in migrations/api or a flow in workers/.
 *
 * A class's queue is a Redis queue of its own, and no queue may hold more
 * than .percent of a process's concurrency, so payments never wait behind
 * mails.
 */

#include "stoa_tasks.h"

#define MINUTE 60
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

const stoa_class_row_t stoa_class_rows[STOA_CLASS_COUNT] = {
    [STOA_CLASS_PAYMENT] = {
        .queue = "payment",
        .lease_ms = 60000,
        .beat_ms = 15000,
        .run_ms = 40000,
        .attempts = 12,
        .backoff_ms = 2000,
        .backoff_cap_ms = HOUR * 1000,
        .give_up_s = 23 * HOUR,
        .percent = 75,
    },
    [STOA_CLASS_WEBHOOK] = {
        .queue = "webhook",
        .lease_ms = 30000,
        .beat_ms = 10000,
        .run_ms = 15000,
        .attempts = 15,
        .backoff_ms = 5000,
        .backoff_cap_ms = 6 * HOUR * 1000,
        .give_up_s = 3 * DAY,
        .percent = 75,
    },
    [STOA_CLASS_EMAIL] = {
        .queue = "mail",
        .lease_ms = 30000,
        .beat_ms = 10000,
        .run_ms = 20000,
        .attempts = 10,
        .backoff_ms = 5000,
        .backoff_cap_ms = HOUR * 1000,
        .give_up_s = DAY,
        .percent = 50,
    },
    [STOA_CLASS_TIMEOUT] = {
        .queue = "timeout",
        .lease_ms = 30000,
        .beat_ms = 10000,
        .run_ms = 5000,
        .attempts = 0,
        .backoff_ms = 1000,
        .backoff_cap_ms = 30000,
        .give_up_s = 0,
        .percent = 50,
    },
    [STOA_CLASS_RENDER] = {
        .queue = "render",
        .lease_ms = 30000,
        .beat_ms = 10000,
        .run_ms = 15000,
        .attempts = 4,
        .backoff_ms = 1000,
        .backoff_cap_ms = 60000,
        .give_up_s = HOUR,
        .percent = 25,
    },
    [STOA_CLASS_CRON] = {
        .queue = "cron",
        .lease_ms = 30000,
        .beat_ms = 10000,
        .run_ms = 10000,
        .attempts = 5,
        .backoff_ms = 1000,
        .backoff_cap_ms = 60000,
        .give_up_s = HOUR,
        .percent = 25,
    },
};

const stoa_task_t stoa_tasks[] = {
    {
        .kind = "mail.send",
        .cls = STOA_CLASS_EMAIL,
        .flow = STOA_TASK_FLOW_MAIL_SEND,
        .level = 1,
        .anchor = "Message-ID derived from the task's id; queue.done in "
                  "task.mail_done; a kill between the server's 250 and the "
                  "commit repeats the mail with the same Message-ID",
        .crash = { "mail.send.begun", "mail.send.built", "mail.send.sent",
                   "mail.send.done" },
        .summary = "Sends one mail from its template.",
    },
    {
        .kind = "payment.create",
        .cls = STOA_CLASS_PAYMENT,
        .flow = STOA_TASK_FLOW_PAYMENT_CREATE,
        .level = 0,
        .anchor = "provider idempotency key \"order:<order id>\" over bytes "
                  "that are stored before the call",
        .crash = { "payment.create.begun", "payment.create.stored",
                   "payment.create.called", "payment.create.done" },
        .summary = "Makes the provider's payment of an order.",
    },
    {
        .kind = "refund.execute",
        .cls = STOA_CLASS_PAYMENT,
        .flow = STOA_TASK_FLOW_REFUND_EXECUTE,
        .level = 1,
        .anchor = "provider idempotency key \"refund:<refund id>\" over "
                  "bytes that are stored before the call",
        .crash = { "refund.execute.begun", "refund.execute.stored",
                   "refund.execute.called", "refund.execute.done" },
        .summary = "Pays money back through the provider.",
    },
    {
        .kind = "payment.reconcile",
        .cls = STOA_CLASS_PAYMENT,
        .flow = STOA_TASK_FLOW_PAYMENT_RECONCILE,
        .level = 3,
        .anchor = "the payment's own state: task.payment_observed moves it "
                  "forward only",
        .every_s = 60,
        .crash = { "payment.reconcile.begun", "payment.reconcile.observed" },
        .summary = "Asks the provider about payments that hang.",
    },
    {
        .kind = "payment.cancel",
        .cls = STOA_CLASS_PAYMENT,
        .flow = STOA_TASK_FLOW_PAYMENT_CANCEL,
        .level = 1,
        .anchor = "the provider ends a payment once and refuses the second "
                  "time; task.payment_observed moves it forward only",
        .crash = { "payment.cancel.begun", "payment.cancel.observed" },
        .summary = "Closes the payment of a canceled order at the provider.",
    },
    {
        .kind = "payment.test_pay",
        .cls = STOA_CLASS_PAYMENT,
        .flow = STOA_TASK_FLOW_TEST_PAY,
        .level = 0,
        .anchor = "event id evt_test_stoa_<task id>: the webhook stores an "
                  "event once",
        .crash = { "payment.test_pay.begun", "payment.test_pay.posted" },
        .summary = "Posts the test provider's signed event.",
    },
    {
        .kind = "webhook.process",
        .cls = STOA_CLASS_WEBHOOK,
        .sql = "task.webhook_process($1::bigint, $2::jsonb)",
        .level = 0,
        .anchor = "queue.done and the payment's state in one transaction",
        .crash = { "webhook.process.claimed", "webhook.process.done" },
        .summary = "Applies a provider's stored event.",
    },
    {
        .kind = "order.expire",
        .cls = STOA_CLASS_TIMEOUT,
        .sql = "task.order_expire($1::bigint, $2::jsonb)",
        .level = 2,
        .anchor = "the order's state under its row lock, with queue.done",
        .crash = { "order.expire.claimed", "order.expire.done" },
        .summary = "Gives an unpaid order's seats back when its hold ends.",
    },
    {
        .kind = "order.expire_sweep",
        .cls = STOA_CLASS_TIMEOUT,
        .sql = "task.order_expire_sweep($1::bigint, $2::jsonb)",
        .level = 3,
        .anchor = "each order's state under its row lock",
        .every_s = 15,
        .crash = { "order.expire_sweep.claimed", "order.expire_sweep.done" },
        .summary = "Expires holds whose own task came late.",
    },
    {
        .kind = "event.cancel_refunds",
        .cls = STOA_CLASS_PAYMENT,
        .sql = "task.event_cancel_refunds($1::bigint, $2::jsonb)",
        .level = 2,
        .anchor = "queue.done with each chunk; an order's refunds are "
                  "bounded by what was captured",
        .crash = { "event.cancel_refunds.claimed",
                   "event.cancel_refunds.done" },
        .summary = "Refunds a canceled event's orders, chunk by chunk.",
    },
    {
        .kind = "ticket.render",
        .cls = STOA_CLASS_RENDER,
        .flow = STOA_TASK_FLOW_TICKET_RENDER,
        .level = 0,
        .anchor = "the rendering's key (ticket, generation, format)",
        .crash = { "ticket.render.begun", "ticket.render.drawn",
                   "ticket.render.done" },
        .summary = "Draws a ticket as PDF or PNG.",
    },
    {
        .kind = "retention.sweep",
        .cls = STOA_CLASS_CRON,
        .sql = "task.retention_sweep($1::bigint, $2::jsonb)",
        .level = 3,
        .anchor = "deletes what is past its time: repeatable",
        .every_s = HOUR,
        .crash = { "retention.sweep.claimed", "retention.sweep.done" },
        .summary = "Deletes what has outlived its retention.",
    },
    {
        .kind = "apikey.rotation.reminder",
        .cls = STOA_CLASS_CRON,
        .sql = "task.apikey_reminder($1::bigint, $2::jsonb)",
        .level = 3,
        .anchor = "each key remembers that its mail was asked for",
        .cron = "0 9 * * *",
        .crash = { "apikey.rotation.reminder.claimed",
                   "apikey.rotation.reminder.done" },
        .summary = "Mails whoever has an API key that ends soon.",
    },
    {
        .kind = "audit.seal",
        .cls = STOA_CLASS_CRON,
        .sql = "task.audit_seal($1::bigint, $2::jsonb)",
        .level = 1,
        .anchor = "one sealer at a time; a row is chained once",
        .every_s = 1,
        .crash = { "audit.seal.claimed", "audit.seal.done" },
        .summary = "Appends new audit rows to the hash chain.",
    },
};

const size_t stoa_ntasks = stoa_nitems(stoa_tasks);

const stoa_task_t *
stoa_task_find(const char *kind, size_t len)
{
    for (size_t i = 0; i < stoa_ntasks; i++) {
        if (strlen(stoa_tasks[i].kind) == len
            && memcmp(stoa_tasks[i].kind, kind, len) == 0)
        {
            return &stoa_tasks[i];
        }
    }

    return NULL;
}


const char *
stoa_missed_name(stoa_missed_e missed)
{
    static const char *const names[] = {
        [STOA_MISSED_ONCE] = "once",
        [STOA_MISSED_SKIP] = "skip",
        [STOA_MISSED_ALL] = "all",
    };

    return names[missed];
}
