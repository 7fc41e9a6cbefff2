/*
 * Flow MAIL_SEND: one mail, by SMTP or, without SMTP_HOST, as a file.
 *
 * Queue: mail.  Effect: the mail server's 250, or MAIL_DIR/<task id>.eml.
 * Once: a file is written under the task's name, so a repeat replaces it; an
 * SMTP server may get the mail again when this process is killed between its
 * 250 and the commit, or when the line broke after the last dot.  Both carry
 * the same Message-ID, made from the task's id; every template of Stoa is of
 * the kind where twice is better than never.
 *
 * Killed after "begun" or "built": nothing has happened.  After "sent": see
 * above.  After "done": the repeat finds the task done.
 *
 * A token is made here, just before the mail, so that no queue and no table
 * ever holds it; a repeat makes another one and both work, until one is used.
 */

#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../shared/stoa_hmac.h"
#include "../shared/stoa_str.h"
#include "../shared/stoa_time.h"
#include "../shared/stoa_http.h"
#include "worker_letter.h"
#include "worker_member.h"

#define WORKER_MAIL_SMTP_MS   15000
#define WORKER_MAIL_ARENA_MAX (16 * 1024 * 1024)
#define WORKER_MAIL_TOKEN     32

typedef struct {
    worker_letter_t    letter;
    bool               built;
    stoa_http_answer_t answer; /* of SMTP */
    char               path[4096];
    char               tmp[4096];
    const char        *dir;
    int                file_errno;
    char               tag[48];
    char               token_hash[2 + 2 * STOA_SHA256_LEN + 1];
} worker_mail_t;


static worker_step_e
worker_mail_begin(worker_task_t *t)
{
    t->state = stoa_calloc(t->mem, sizeof(worker_mail_t));
    if (t->state == NULL) {
        return WORKER_FAIL;
    }

    return worker_pg(t, WORKER_SQL_MAIL_BEGIN, t->id_z, t->payload_z);
}


static void
worker_mail_free(void *data)
{
    stoa_arena_destroy(data);
}


struct worker_templates_s *
worker_texts(worker_t *w)
{
    char why[512];

    if (w->templates == NULL) {
        w->templates = worker_templates_load(w->conf->mail_templates, why,
                                             sizeof(why));
    }

    if (w->templates == NULL) {
        stoa_log(w->log, STOA_LOG_CRIT, "mail: %s", why);
    }

    return w->templates;
}


/* The mail's data is kept: the next statement replaces t->answer. */

static bool
worker_mail_keep(worker_task_t *t, worker_mail_t *m)
{
    char          hex[17];
    unsigned char mac[STOA_SHA256_LEN];
    worker_t     *w = t->worker;

    /* the id alone would repeat when a database is made anew */

    snprintf(m->tag, sizeof(m->tag), "mail.%lld", (long long) t->id);
    if (!stoa_hmac_derive(stoa_str_z(w->conf->jwt_secret), m->tag, mac)) {
        return false;
    }

    stoa_hex_encode(hex, mac, 8);
    hex[16] = '\0';
    snprintf(m->tag, sizeof(m->tag), "mail.%lld.%s", (long long) t->id, hex);

    m->letter.mem = stoa_arena_create(65536, WORKER_MAIL_ARENA_MAX);
    if (m->letter.mem == NULL) {
        return false;
    }

    if (!t->mem->on_free(t->mem->ctx, worker_mail_free, m->letter.mem)) {
        stoa_arena_destroy(m->letter.mem);
        return false;
    }

    m->letter.templates = w->templates;
    m->letter.mail = worker_json_copy(t->mem, t->answer);
    m->letter.from = w->conf->mail_from;
    m->letter.public_url = w->conf->public_url;
    m->letter.tag = m->tag;
    m->letter.date_ms = stoa_time_ms();

    return m->letter.mail != NULL;
}


static worker_step_e
worker_mail_token(worker_task_t *t, worker_mail_t *m)
{
    char          hex[2 * STOA_SHA256_LEN], *token;
    size_t        n;
    const char   *to;
    unsigned char secret[WORKER_MAIL_TOKEN], hash[STOA_SHA256_LEN];

    to = worker_member_z(t->mem, m->letter.mail, "to");
    token = stoa_calloc(t->mem, stoa_base64url_len(sizeof(secret)) + 1);

    if (token == NULL || to == NULL || !stoa_random(secret, sizeof(secret))
        || !stoa_sha256(secret, sizeof(secret), hash))
    {
        return WORKER_FAIL;
    }

    n = stoa_base64url_encode((unsigned char *) token, secret, sizeof(secret));
    token[n] = '\0';
    explicit_bzero(secret, sizeof(secret));
    m->letter.token = token;

    stoa_hex_encode(hex, hash, sizeof(hash));
    snprintf(m->token_hash, sizeof(m->token_hash), "\\x%.*s", (int) sizeof(hex),
             hex);

    return worker_pg(t, WORKER_SQL_MAIL_TOKEN, t->id_z, t->payload_z, to,
                     m->token_hash);
}


static worker_step_e
worker_mail_prepare(worker_task_t *t)
{
    worker_step_e  rc;
    worker_mail_t *m = t->state;

    worker_crash_point("mail.send.begun");

    rc = worker_answer(t);
    if (rc != WORKER_NEXT) {
        return rc;
    }

    /* result is "send" */

    if (worker_texts(t->worker) == NULL) {
        return worker_retry(t, "mail_templates", 0);
    }

    if (!worker_mail_keep(t, m)) {
        return WORKER_FAIL;
    }

    if (worker_letter_hours(&m->letter) > 0) {
        return worker_mail_token(t, m);
    }

    return WORKER_NEXT;
}


static void
worker_mail_build_work(void *arg)
{
    worker_mail_t *m = arg;

    m->built = worker_letter_build(&m->letter);
}


static worker_step_e
worker_mail_build(worker_task_t *t)
{
    return worker_compute(t, worker_mail_build_work, t->state);
}


/* Sending */


static bool
worker_mail_write_all(int fd, stoa_str_t s)
{
    ssize_t n;

    while (s.len > 0) {
        n = write(fd, s.data, s.len);

        if (n == -1) {
            if (errno == EINTR) {
                continue;
            }

            return false;
        }

        s.data += n;
        s.len -= (size_t) n;
    }

    return fsync(fd) == 0;
}


/* Whole or not at all: the file gets its name when it is on the disk. */

static void
worker_mail_file_work(void *arg)
{
    int            fd, dir;
    bool           done;
    worker_mail_t *m = arg;

    fd = open(m->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
              0644);
    if (fd == -1) {
        m->file_errno = errno;
        return;
    }

    done = worker_mail_write_all(fd, stoa_buf_view(&m->letter.message));
    m->file_errno = done ? 0 : errno;

    if (close(fd) == -1 && done) {
        m->file_errno = errno;
        done = false;
    }

    if (done && rename(m->tmp, m->path) == -1) {
        m->file_errno = errno;
        done = false;
    }

    if (!done) {
        (void) unlink(m->tmp); /* the error above is what is reported */
        return;
    }

    dir = open(m->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir == -1 || fsync(dir) == -1) {
        m->file_errno = errno;
    }

    if (dir != -1) {
        (void) close(dir); /* only read */
    }
}


static worker_step_e
worker_mail_file(worker_task_t *t, worker_mail_t *m)
{
    int         n;
    const char *dir = t->worker->conf->mail_dir;

    m->dir = dir;

    if (mkdir(dir, 0755) == -1 && errno != EEXIST) {
        m->file_errno = errno;
        return WORKER_NEXT;
    }

    n = snprintf(m->path, sizeof(m->path), "%s/%lld.eml", dir,
                 (long long) t->id);
    if (n < 0 || (size_t) n >= sizeof(m->path)) {
        return WORKER_FAIL;
    }

    n = snprintf(m->tmp, sizeof(m->tmp), "%s/.%lld.%s.tmp", dir,
                 (long long) t->id, t->worker->name);
    if (n < 0 || (size_t) n >= sizeof(m->tmp)) {
        return WORKER_FAIL;
    }

    return worker_compute(t, worker_mail_file_work, m);
}


static void
worker_mail_answered(const stoa_http_answer_t *a, void *data)
{
    worker_task_t *t = data;
    worker_mail_t *m = t->state;

    m->answer = *a;
    worker_resume(t);
}


/* Passwords and mails in the clear stay on this machine. */

static bool
worker_mail_is_local(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0
        || strcmp(host, "localhost") == 0;
}


static worker_step_e
worker_mail_smtp(worker_task_t *t, worker_mail_t *m)
{
    uint32_t            wait_ms;
    stoa_smtp_request_t rq;
    const stoa_conf_t  *conf = t->worker->conf;

    wait_ms = worker_breaker_ask(&t->worker->smtp_breaker,
                                 t->worker->loop->now_ms(t->worker->loop));
    if (wait_ms > 0) {
        return worker_snooze(t, "breaker_open", wait_ms);
    }

    memset(&rq, 0, sizeof(rq));
    rq.host = conf->smtp_host;
    rq.port = (uint16_t) conf->smtp_port;
    rq.user = conf->smtp_user;
    rq.password = conf->smtp_password;
    rq.ca_file = conf->smtp_ca_file;
    rq.from = m->letter.sender;
    rq.to = m->letter.recipient;
    rq.message = stoa_buf_view(&m->letter.message);
    rq.timeout_ms = WORKER_MAIL_SMTP_MS;
    rq.tls = STOA_SMTP_STARTTLS;

    if (strcmp(conf->smtp_tls, "tls") == 0) {
        rq.tls = STOA_SMTP_TLS;

    } else if (strcmp(conf->smtp_tls, "off") == 0) {
        if (!worker_mail_is_local(conf->smtp_host)) {
            stoa_log(t->worker->log, STOA_LOG_CRIT,
                     "mail: SMTP_TLS=off is for this machine only, host:"
                     "\"%s\"",
                     conf->smtp_host);
            return worker_retry(t, "smtp_tls_off", 0);
        }

        rq.tls = STOA_SMTP_OFF;
    }

    if (stoa_smtp_start(t->worker->http, t->mem, &rq, worker_mail_answered, t)
        == NULL)
    {
        return WORKER_FAIL;
    }

    worker_wait(t);

    return WORKER_WAIT;
}


static worker_step_e
worker_mail_send(worker_task_t *t)
{
    worker_mail_t *m = t->state;

    worker_crash_point("mail.send.built");

    if (!m->built) {
        return WORKER_FAIL;
    }

    if (m->letter.error != NULL) {
        return WORKER_NEXT;
    }

    if (t->worker->conf->smtp_host[0] == '\0') {
        return worker_mail_file(t, m);
    }

    return worker_mail_smtp(t, m);
}


/* Outcome */


static worker_step_e
worker_mail_commit(worker_task_t *t, const char *via)
{
    stoa_buf_t     b;
    worker_mail_t *m = t->state;

    stoa_buf_init(&b, t->mem, 256, 2048);
    stoa_buf_z(&b, "{\"via\":");
    stoa_buf_json_z(&b, via);
    worker_json_add(&b, "messageId", m->letter.message_id);
    stoa_buf_char(&b, '}');
    stoa_buf_nul(&b);

    if (b.failed) {
        return WORKER_FAIL;
    }

    return worker_pg(t, WORKER_SQL_MAIL_DONE, t->id_z, t->payload_z,
                     (char *) b.data);
}


/* status 0: it never came to a server. */

static worker_step_e
worker_mail_refused(worker_task_t *t, int status, const char *reason,
                    bool suppress)
{
    stoa_buf_t b;

    stoa_buf_init(&b, t->mem, 256, 2048);
    stoa_buf_printf(&b, "{\"smtpStatus\":%d,\"suppress\":%s", status,
                    suppress ? "true" : "false");
    worker_json_add(&b, "reason", reason);
    stoa_buf_char(&b, '}');
    stoa_buf_nul(&b);

    if (b.failed) {
        return WORKER_FAIL;
    }

    return worker_pg(t, WORKER_SQL_MAIL_FAILED, t->id_z, t->payload_z,
                     (char *) b.data);
}


/*
 * Is the recipient at fault, not our address, our contents or a full box?
 * RFC 3463: 5.1.x are bad addresses, 5.2.1 is a closed mailbox.  A server
 * that gives no such code means it by 550, 551 and 553 (RFC 5321 4.2.3).
 */

static bool
worker_mail_is_gone(const stoa_http_answer_t *a)
{
    stoa_str_t s = a->body; /* "550 5.1.1 ..." */

    if (s.len >= 9 && s.data[4] == '5' && s.data[5] == '.') {
        return memcmp(s.data + 6, "1.", 2) == 0
            || memcmp(s.data + 6, "2.1", 3) == 0;
    }

    return a->status == 550 || a->status == 551 || a->status == 553;
}


static worker_step_e
worker_mail_judge(worker_task_t *t, const stoa_http_answer_t *a)
{
    char reason[64];

    static const char *const steps[] = {
        [STOA_SMTP_CONNECT] = "connect", [STOA_SMTP_AUTH] = "auth",
        [STOA_SMTP_FROM] = "sender",     [STOA_SMTP_RCPT] = "recipient",
        [STOA_SMTP_DATA] = "data",
    };

    if (a->end != STOA_HTTP_ANSWERED) {
        stoa_log(t->worker->log, STOA_LOG_WARN, "mail: %s, task:%lld",
                 a->message, (long long) t->id);
        return worker_retry(t,
                            a->end == STOA_HTTP_UNKNOWN ? "smtp_unknown"
                                                        : "smtp_unreached",
                            0);
    }

    if (a->status < 400) {
        return worker_mail_commit(t, "smtp");
    }

    snprintf(reason, sizeof(reason), "smtp_%d_%s", a->status, steps[a->step]);

    /* a greeting or a login that is refused says nothing about this mail */

    if (a->status < 500 || a->step == STOA_SMTP_CONNECT
        || a->step == STOA_SMTP_AUTH)
    {
        return worker_retry(t, reason, 0);
    }

    /* MAIL, RCPT or DATA got a 5xx */

    return worker_mail_refused(t, a->status, reason,
                               a->step == STOA_SMTP_RCPT
                                   && worker_mail_is_gone(a));
}


/* A server that lets us in is up, whatever it thinks of this mail. */

static bool
worker_mail_is_up(const stoa_http_answer_t *a)
{
    return a->end == STOA_HTTP_ANSWERED
        && (a->status < 400
            || (a->step != STOA_SMTP_CONNECT && a->step != STOA_SMTP_AUTH));
}


static worker_step_e
worker_mail_sent(worker_task_t *t)
{
    worker_mail_t *m = t->state;

    worker_crash_point("mail.send.sent");

    if (m->letter.error != NULL) {
        if (strcmp(m->letter.error, "bad_sender") == 0) {
            stoa_log(t->worker->log, STOA_LOG_CRIT,
                     "mail: MAIL_FROM is not an address: \"%s\"",
                     t->worker->conf->mail_from);
            return worker_retry(t, m->letter.error, 0);
        }

        return worker_mail_refused(t, 0, m->letter.error, false);
    }

    if (m->answer.op != NULL) {
        worker_breaker_note(&t->worker->smtp_breaker,
                            worker_mail_is_up(&m->answer),
                            t->worker->loop->now_ms(t->worker->loop),
                            t->worker->log, "smtp");
        return worker_mail_judge(t, &m->answer);
    }

    if (m->file_errno != 0) {
        stoa_log(t->worker->log, STOA_LOG_ERROR,
                 "mail: cannot write \"%s\": %s", m->path,
                 strerror(m->file_errno));
        return worker_retry(t, "mail_dir", 0);
    }

    return worker_mail_commit(t, "file");
}


static worker_step_e
worker_mail_end(worker_task_t *t)
{
    worker_crash_point("mail.send.done");

    return worker_answer(t);
}


const worker_step_t worker_mail_steps[] = {
    { "begin", worker_mail_begin },
    { "prepare", worker_mail_prepare },
    { "build", worker_mail_build },
    { "send", worker_mail_send },
    { "sent", worker_mail_sent },
    { "end", worker_mail_end },
    worker_steps_end,
};
