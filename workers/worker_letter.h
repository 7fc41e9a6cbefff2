/*
 * Builds a whole mail out of what task.mail_begin() answered: template,
 * language, dates and money as people write them, a QR picture per ticket.
 * Pure work on its own memory, safe on any thread.
 */

#ifndef WORKER_LETTER_H_INCLUDED
#define WORKER_LETTER_H_INCLUDED

#include "../shared/stoa_json.h"
#include "worker_template.h"

typedef struct {
    /* in */
    stoa_mem_t               *mem;
    const worker_templates_t *templates;
    const stoa_json_t        *mail; /* the answer of task.mail_begin */
    const char               *from; /* MAIL_FROM */
    const char               *public_url;
    const char               *token; /* of mails that carry one; else NULL */
    const char               *tag;   /* names this mail for ever: [0-9a-z.] */
    int64_t                   date_ms;

    /* out */
    const char *error;  /* NULL: built; else why it never will be */
    const char *sender; /* bare addresses */
    const char *recipient;
    const char *message_id;
    stoa_buf_t  message;
} worker_letter_t;

/* False: no memory.  True: look at .error. */
bool worker_letter_build(worker_letter_t *l);

/* The life of the mail's token; 0: it carries none. */
int64_t worker_letter_hours(const worker_letter_t *l);

#endif /* WORKER_LETTER_H_INCLUDED */
