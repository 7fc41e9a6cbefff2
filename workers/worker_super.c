/*
 * The supervisor of stoa work: forks WORKER_PROCESSES processes, starts one
 * again that ended by itself (after 1 s, doubling to 30 s while it keeps
 * ending), kills one whose loop has been stuck for 120 s (twice the longest
 * lease), and passes signals on: TERM and INT stop, TSTP quiets, CONT goes
 * on.  It has no loop and no connection, so nothing can hold it up.
 *
 * Each process is a group of its own: a Ctrl-C of the terminal reaches the
 * supervisor alone and is counted once.  A supervisor that is killed takes
 * its processes along by their parent-death signal, which is TERM.
 */

#include "worker_main.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../shared/stoa_time.h"

#define BACKOFF_MIN_MS 1000
#define BACKOFF_MAX_MS 30000
#define SETTLED_MS     60000
#define STUCK_MS       120000
#define LATE_MS        10000
#define ASLEEP_MS      5000

typedef struct {
    pid_t    pid; /* 0: not running */
    uint64_t started_ms;
    uint64_t start_ms; /* when to start it again */
    uint64_t backoff_ms;
} worker_child_t;

typedef struct {
    const stoa_conf_t *conf;
    stoa_log_t        *log;
    worker_child_t    *children;
    volatile uint64_t *alive; /* shared with the children */
    size_t             n;
    sigset_t           signals;
    bool               stopping;
    bool               failed; /* not all of them stopped well */
    uint64_t           stop_ms;
    uint64_t           seen_ms; /* of the last watch */
} worker_super_t;


static int
worker_super_child(worker_super_t *s, size_t i, pid_t parent)
{
    (void) setpgid(0, 0); /* it is a fresh process: cannot fail */

    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent) {
        return 1; /* the supervisor has gone already */
    }

    if (sigprocmask(SIG_UNBLOCK, &s->signals, NULL) != 0) {
        return 1;
    }

    return worker_main(s->conf, s->log, &s->alive[i]);
}


static void
worker_super_start(worker_super_t *s, size_t i)
{
    worker_child_t *c = &s->children[i];
    pid_t           parent = getpid();
    pid_t           pid;

    s->alive[i] = stoa_time_mono_ms();
    pid = fork();

    if (pid == 0) {
        exit(worker_super_child(s, i, parent));
    }

    if (pid < 0) {
        stoa_log(s->log, STOA_LOG_CRIT, "supervisor: cannot fork: errno %d",
                 errno);
        c->start_ms = stoa_time_mono_ms() + BACKOFF_MAX_MS;
        return;
    }

    c->pid = pid;
    c->started_ms = stoa_time_mono_ms();
    stoa_log(s->log, STOA_LOG_NOTICE, "supervisor: started process %zu, %ld",
             i + 1, (long) pid);
}


static void
worker_super_ended(worker_super_t *s, size_t i, int status)
{
    worker_child_t *c = &s->children[i];
    uint64_t        now = stoa_time_mono_ms();
    char            how[40];

    if (WIFSIGNALED(status)) {
        (void) snprintf(how, sizeof(how), "was killed by signal %d",
                        WTERMSIG(status));
    } else {
        (void) snprintf(how, sizeof(how), "ended with %d", WEXITSTATUS(status));
    }

    if (s->stopping) {
        stoa_log(s->log, STOA_LOG_NOTICE, "supervisor: process %ld %s",
                 (long) c->pid, how);
        c->pid = 0;

        /* TERM itself: it came before the process listened to it */
        if (WIFSIGNALED(status) ? WTERMSIG(status) != SIGTERM
                                : WEXITSTATUS(status) != 0)
        {
            s->failed = true;
        }

        return;
    }

    if (now - c->started_ms >= SETTLED_MS || c->backoff_ms == 0) {
        c->backoff_ms = BACKOFF_MIN_MS;
    }

    stoa_log(s->log, STOA_LOG_ERROR,
             "supervisor: process %ld %s, again in %llu ms", (long) c->pid, how,
             (unsigned long long) c->backoff_ms);
    c->pid = 0;
    c->start_ms = now + c->backoff_ms;
    c->backoff_ms *= 2;

    if (c->backoff_ms > BACKOFF_MAX_MS) {
        c->backoff_ms = BACKOFF_MAX_MS;
    }
}


static void
worker_super_reap(worker_super_t *s)
{
    int status;

    for (size_t i = 0; i < s->n; i++) {
        pid_t pid = s->children[i].pid;

        if (pid != 0 && waitpid(pid, &status, WNOHANG) == pid) {
            worker_super_ended(s, i, status);
        }
    }
}


static void
worker_super_pass(worker_super_t *s, int signum)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->children[i].pid != 0 && kill(s->children[i].pid, signum) != 0
            && errno != ESRCH)
        {
            stoa_log(s->log, STOA_LOG_ALERT, "supervisor: cannot signal %ld",
                     (long) s->children[i].pid);
        }
    }
}


static void
worker_super_signal(worker_super_t *s, int signum)
{
    switch (signum) {

    case SIGTERM:
    case SIGINT:
        if (!s->stopping) {
            stoa_log(s->log, STOA_LOG_NOTICE, "supervisor: stopping");
            s->stopping = true;
            s->stop_ms = stoa_time_mono_ms();
        }

        worker_super_pass(s, SIGTERM);
        break;

    case SIGTSTP:
    case SIGUSR1:
        worker_super_pass(s, SIGTSTP);
        break;

    case SIGCONT:
        worker_super_pass(s, SIGCONT);
        break;

    default: /* SIGCHLD, SIGHUP */
        break;
    }
}


/* Starts what is due; kills what is stuck or does not stop. */
static void
worker_super_watch(worker_super_t *s)
{
    uint64_t now = stoa_time_mono_ms();
    uint64_t late = (uint64_t) s->conf->worker_grace * 1000 + LATE_MS;
    bool     slept = now - s->seen_ms > ASLEEP_MS;

    s->seen_ms = now;

    for (size_t i = 0; i < s->n; i++) {
        worker_child_t *c = &s->children[i];
        uint64_t        seen = s->alive[i];

        if (slept) { /* a paused container: they could not run, either */
            s->alive[i] = seen = now;
        }

        if (c->pid == 0) {
            if (!s->stopping && c->start_ms <= now) {
                worker_super_start(s, i);
            }

            continue;
        }

        if (seen < now && now - seen > STUCK_MS) {
            stoa_log(s->log, STOA_LOG_CRIT,
                     "supervisor: process %ld is stuck, killed", (long) c->pid);
            (void) kill(c->pid, SIGKILL); /* its end is reaped */
            s->alive[i] = now;

        } else if (s->stopping && now - s->stop_ms > late) {
            stoa_log(s->log, STOA_LOG_CRIT,
                     "supervisor: process %ld did not stop, killed",
                     (long) c->pid);
            (void) kill(c->pid, SIGKILL); /* its end is reaped */
        }
    }
}


static bool
worker_super_running(const worker_super_t *s)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->children[i].pid != 0) {
            return true;
        }
    }

    return false;
}


static bool
worker_super_create(worker_super_t *s)
{
    static const int signals[] = { SIGTERM, SIGINT,  SIGTSTP, SIGUSR1,
                                   SIGCONT, SIGCHLD, SIGHUP };

    void *shared;

    (void) sigemptyset(&s->signals); /* cannot fail */

    for (size_t i = 0; i < stoa_nitems(signals); i++) {
        (void) sigaddset(&s->signals, signals[i]); /* a valid number */
    }

    /* a broken connection is an error code, not a death */
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR
        || sigprocmask(SIG_BLOCK, &s->signals, NULL) != 0)
    {
        return false;
    }

    shared = mmap(NULL, s->n * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    s->alive = shared == MAP_FAILED ? NULL : shared;
    s->children = calloc(s->n, sizeof(worker_child_t));
    return s->alive != NULL && s->children != NULL;
}


int
worker_supervise(const stoa_conf_t *conf, stoa_log_t *log)
{
    worker_super_t  s = { .conf = conf,
                          .log = log,
                          .n = (size_t) conf->worker_processes };
    struct timespec second = { 1, 0 };
    int             signum;

    if (!worker_super_create(&s)) {
        stoa_log(log, STOA_LOG_CRIT, "supervisor: cannot start: errno %d",
                 errno);
        return 1;
    }

    for (;;) {
        worker_super_reap(&s);
        worker_super_watch(&s);

        if (s.stopping && !worker_super_running(&s)) {
            break;
        }

        signum = sigtimedwait(&s.signals, NULL, &second);

        if (signum > 0) {
            worker_super_signal(&s, signum);
        }
    }

    stoa_log(log, STOA_LOG_NOTICE, "supervisor: stopped");
    free(s.children);
    (void) munmap((void *) (uintptr_t) s.alive, s.n * sizeof(uint64_t));
    return s.failed ? 1 : 0;
}
