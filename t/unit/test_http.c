/*
 * The HTTP client against a server of its own: answers and their bounds,
 * deadlines, whom a client may reach, and that nothing waits for a name that
 * is slow to be found.  getaddrinfo() is this file's, so that names lead
 * where a case wants them.
 */

#include "unit_core.h"

#include "stoa_http.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SLOW_NAME_MS 1500

typedef struct {
    int        fd;
    uint16_t   port;
    pthread_t  thread;
    atomic_int accepted;
    atomic_int over;
} server_t;

typedef struct {
    stoa_loop_t      *loop;
    stoa_mem_t       *mem;
    stoa_http_t      *http;
    server_t          server;
    bool              done;
    int               calls;
    stoa_http_end_e   end;
    int               status;
    stoa_str_t        body;
    char              message[256];
    char              kept[64]; /* the header that was asked for */
    const char       *header;
    stoa_http_op_t   *cancel; /* by done() */
    stoa_http_reach_e reach;
} env_t;

static atomic_int lookups;     /* that run */
static atomic_int lookups_bad; /* in a thread that takes signals */


static uint64_t
now_ms(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);

    return (uint64_t) t.tv_sec * 1000 + (uint64_t) t.tv_nsec / 1000000;
}


static void
pause_ms(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

    (void) nanosleep(&t, NULL);
}


/* Names of the cases; numbers are what they are. */
int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
            struct addrinfo **res)
{
    struct {
        struct addrinfo    ai;
        struct sockaddr_in in;
    } * one;
    sigset_t set;
    int      sig[] = { SIGTERM, SIGHUP, SIGQUIT, SIGCHLD, SIGALRM, SIGIO };

    atomic_fetch_add(&lookups, 1);
    (void) pthread_sigmask(SIG_SETMASK, NULL, &set);

    for (size_t i = 0; i < stoa_nitems(sig); i++) {
        if (sigismember(&set, sig[i]) != 1) {
            atomic_fetch_add(&lookups_bad, 1);
        }
    }

    if (strcmp(node, "slow.test") == 0) {
        pause_ms(SLOW_NAME_MS);
    }

    one = calloc(1, sizeof(*one));
    one->in.sin_family = AF_INET;
    one->in.sin_port = htons((uint16_t) strtoul(service, NULL, 10));
    one->in.sin_addr.s_addr = inet_addr(
        strcmp(node, "inside.test") == 0 ? "10.0.0.7" : "127.0.0.1");
    one->ai.ai_family = AF_INET;
    one->ai.ai_socktype = SOCK_STREAM;
    one->ai.ai_protocol = IPPROTO_TCP;
    one->ai.ai_addrlen = sizeof(one->in);
    one->ai.ai_addr = (struct sockaddr *) &one->in;
    *res = &one->ai;
    atomic_fetch_sub(&lookups, 1);

    return 0;
}


void
freeaddrinfo(struct addrinfo *res)
{
    free(res);
}


/* ---- the server: what a path says is what happens ---- */

static void
put(int fd, const char *text)
{
    (void) send(fd, text, strlen(text), MSG_NOSIGNAL);
}


static void
serve(int fd)
{
    char    in[2048], chunk[1024];
    ssize_t n;

    n = recv(fd, in, sizeof(in) - 1, 0);
    if (n <= 0) {
        return;
    }

    in[n] = '\0';

    if (strncmp(in, "GET /ok", 7) == 0) {
        put(fd, "HTTP/1.1 200 OK\r\nX-Kept:  yes \r\nContent-Length: 5\r\n"
                "Connection: close\r\n\r\nhello");

    } else if (strncmp(in, "GET /away", 9) == 0) {
        put(fd, "HTTP/1.1 302 Found\r\nLocation: /ok\r\n"
                "Content-Length: 0\r\nConnection: close\r\n\r\n");

    } else if (strncmp(in, "GET /big", 8) == 0) {
        memset(chunk, 'x', sizeof(chunk));
        put(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");

        for (int i = 0; i < 1024; i++) {
            if (send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL) < 0) {
                break;
            }
        }

    } else if (strncmp(in, "GET /head", 9) == 0) {
        put(fd, "HTTP/1.1 200 OK\r\n");

        for (int i = 0; i < 4096; i++) {
            put(fd, "X-More: 0123456789012345678901234567890123456789\r\n");
        }

        put(fd, "\r\n");

    } else if (strncmp(in, "GET /late", 9) == 0) {
        pause_ms(1500);
    }
}


static void *
serving(void *data)
{
    server_t *s = data;
    int       fd;

    while (!atomic_load(&s->over)) {
        fd = accept(s->fd, NULL, NULL);

        if (fd >= 0) {
            atomic_fetch_add(&s->accepted, 1);
            serve(fd);
            (void) close(fd);
        }
    }

    return NULL;
}


static void
start_server(server_t *s)
{
    struct sockaddr_in in = { .sin_family = AF_INET };
    socklen_t          len = sizeof(in);

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(s->fd >= 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *) &in, sizeof(in)), 0);
    assert_int_equal(listen(s->fd, 16), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *) &in, &len), 0);
    s->port = ntohs(in.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, serving, s), 0);
}


static void
stop_server(server_t *s)
{
    atomic_store(&s->over, 1);
    (void) shutdown(s->fd, SHUT_RDWR);
    (void) pthread_join(s->thread, NULL);
    (void) close(s->fd);
}


/* ---- a call ---- */

static void
open_env(env_t *env, stoa_http_reach_e reach)
{
    memset(env, 0, sizeof(*env));
    start_server(&env->server);
    env->loop = stoa_loop_poll_create(NULL);
    env->mem = stoa_arena_create(4096, 1 << 24);
    env->reach = reach;
    env->http = stoa_http_create(env->loop, reach);
    assert_non_null(env->http);
}


/* Waits for threads that went on alone: they are no leak, and end. */
static void
close_env(env_t *env)
{
    if (env->http != NULL) {
        stoa_http_destroy(env->http);
    }

    stoa_arena_destroy(env->mem);
    stoa_loop_poll_destroy(env->loop);
    stop_server(&env->server);

    while (atomic_load(&lookups) > 0) {
        pause_ms(10);
    }

    pause_ms(20);
    assert_int_equal(atomic_load(&lookups_bad), 0);
}


static void
answered(const stoa_http_answer_t *a, void *data)
{
    env_t      *env = data;
    const char *kept;

    env->calls++;
    env->end = a->end;
    env->status = a->status;
    env->body = a->body;
    snprintf(env->message, sizeof(env->message), "%s", a->message);

    if (env->header != NULL) {
        kept = stoa_http_header(a, env->header);
        snprintf(env->kept, sizeof(env->kept), "%s",
                 kept != NULL ? kept : "(none)");
    }

    if (env->cancel != NULL) {
        stoa_http_cancel(env->cancel);
    }

    env->done = true;
}


static stoa_http_op_t *
begin(env_t *env, const char *url, uint32_t timeout_ms)
{
    stoa_http_request_t rq = {
        .method = "GET",
        .url = url,
        .timeout_ms = timeout_ms,
        .max_body = 16384,
    };

    return stoa_http_start(env->http, env->mem, &rq, answered, env);
}


/* Milliseconds until done() was called. */
static uint64_t
call(env_t *env, const char *url, uint32_t timeout_ms)
{
    uint64_t from = now_ms();

    env->done = false;
    env->calls = 0;
    assert_non_null(begin(env, url, timeout_ms));
    assert_true(stoa_loop_poll_run(env->loop, &env->done, 20000));
    assert_int_equal(env->calls, 1);

    return now_ms() - from;
}


static const char *
at(env_t *env, const char *host, const char *path)
{
    static char url[128];

    snprintf(url, sizeof(url), "%s:%u%s", host, env->server.port, path);

    return url;
}


static void
http_gives_what_was_answered(void **state)
{
    env_t env;

    (void) state;
    open_env(&env, STOA_HTTP_ANY);
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    env.header = "x-kept";

    (void) call(&env, at(&env, "http://127.0.0.1", "/ok"), 5000);
    assert_int_equal(env.end, STOA_HTTP_ANSWERED);
    assert_int_equal(env.status, 200);
    assert_true(stoa_str_eq_z(env.body, "hello"));
    assert_string_equal(env.kept, "yes");

    (void) call(&env, at(&env, "http://name.test", "/ok"), 5000);
    assert_int_equal(env.status, 200);

    env.header = "x-missing";
    (void) call(&env, at(&env, "http://127.0.0.1", "/away"), 5000);
    assert_int_equal(env.end, STOA_HTTP_ANSWERED);
    assert_int_equal(env.status, 302); /* and not where it leads */
    assert_string_equal(env.kept, "(none)");

    unsetenv("http_proxy");
    unsetenv("ALL_PROXY");
    close_env(&env);
}


static void
http_bounds_what_it_reads(void **state)
{
    env_t env;

    (void) state;
    open_env(&env, STOA_HTTP_ANY);

    (void) call(&env, at(&env, "http://127.0.0.1", "/big"), 5000);
    assert_int_equal(env.end, STOA_HTTP_TOO_LARGE);

    (void) call(&env, at(&env, "http://127.0.0.1", "/head"), 5000);
    assert_int_not_equal(env.end, STOA_HTTP_ANSWERED);

    close_env(&env);
}


static void
http_ends_at_its_deadline(void **state)
{
    env_t    env;
    uint64_t took;

    (void) state;
    open_env(&env, STOA_HTTP_ANY);

    took = call(&env, at(&env, "http://127.0.0.1", "/late"), 200);
    assert_int_equal(env.end, STOA_HTTP_UNKNOWN);
    assert_true(took < 1200);

    (void) call(&env, "http://127.0.0.1:1/", 5000);
    assert_int_equal(env.end, STOA_HTTP_UNREACHED);

    close_env(&env);
}


static void
http_waits_for_no_name(void **state)
{
    env_t           env;
    uint64_t        from;
    stoa_http_op_t *op;

    (void) state;
    open_env(&env, STOA_HTTP_ANY);

    assert_true(call(&env, at(&env, "http://slow.test", "/ok"), 200)
                < SLOW_NAME_MS - 300);
    assert_int_equal(env.end, STOA_HTTP_UNREACHED);

    /* one that is canceled, and others with their client */
    env.done = false;
    env.calls = 0;
    op = begin(&env, at(&env, "http://slow.test", "/ok"), 5000);
    assert_non_null(op);
    assert_non_null(begin(&env, at(&env, "http://slow.test", "/ok"), 5000));
    assert_false(stoa_loop_poll_run(env.loop, &env.done, 100));

    from = now_ms();
    stoa_http_cancel(op);
    stoa_http_cancel(op);
    stoa_http_destroy(env.http);
    env.http = NULL;
    assert_true(now_ms() - from < 500);
    assert_false(stoa_loop_poll_run(env.loop, &env.done, 20));
    assert_int_equal(env.calls, 0);

    close_env(&env);
}


static void
http_ends_with_its_memory(void **state)
{
    env_t               env;
    stoa_mem_t         *mem;
    stoa_http_request_t rq = { .method = "GET",
                               .timeout_ms = 5000,
                               .max_body = 100 };

    (void) state;
    open_env(&env, STOA_HTTP_ANY);

    mem = stoa_arena_create(4096, 1 << 20);
    rq.url = at(&env, "http://127.0.0.1", "/late");
    assert_non_null(stoa_http_start(env.http, mem, &rq, answered, &env));
    assert_false(stoa_loop_poll_run(env.loop, &env.done, 50));
    stoa_arena_destroy(mem);
    assert_false(stoa_loop_poll_run(env.loop, &env.done, 50));
    assert_int_equal(env.calls, 0);

    /* one ends, and its done() takes another along */
    env.cancel = begin(&env, at(&env, "http://slow.test", "/ok"), 5000);
    assert_non_null(env.cancel);
    (void) call(&env, "http://127.0.0.1:1/", 5000);
    env.done = false;
    assert_false(stoa_loop_poll_run(env.loop, &env.done, 20));
    assert_int_equal(env.calls, 1);

    close_env(&env);
}


static void
http_reaches_public_addresses_only(void **state)
{
    env_t              env;
    static const char *hidden[] = {
        "https://127.0.0.1",   "https://name.test",
        "https://2130706433",  "https://0177.0.0.1",
        "https://0x7f.1",      "https://127.1",
        "https://0.0.0.0",     "https://[::1]",
        "https://inside.test", "https://[::ffff:127.0.0.1]",
        "https://10.0.0.7",    "https://a:b@127.0.0.1",
        "https://localhost",
    };
    static const char *plain[] = {
        "http://127.0.0.1",
        "ftp://127.0.0.1",
        "file:///etc/passwd?",
        "gopher://127.0.0.1",
    };

    (void) state;
    open_env(&env, STOA_HTTP_PUBLIC);

    for (size_t i = 0; i < stoa_nitems(hidden); i++) {
        (void) call(&env, at(&env, hidden[i], "/ok"), 5000);
        assert_int_equal(env.end, STOA_HTTP_UNREACHED);
        assert_string_equal(env.message, "the address is not public");
    }

    for (size_t i = 0; i < stoa_nitems(plain); i++) {
        (void) call(&env, at(&env, plain[i], "/ok"), 5000);
        assert_int_equal(env.end, STOA_HTTP_UNREACHED);
        assert_int_equal(env.body.len, 0);
    }

    assert_int_equal(atomic_load(&env.server.accepted), 0);
    close_env(&env);

    /* any address, but no plain text */
    open_env(&env, STOA_HTTP_PRIVATE);
    (void) call(&env, at(&env, "http://127.0.0.1", "/ok"), 5000);
    assert_int_equal(env.end, STOA_HTTP_UNREACHED);
    assert_int_equal(atomic_load(&env.server.accepted), 0);
    (void) call(&env, at(&env, "https://127.0.0.1", "/ok"), 5000);
    assert_int_not_equal(env.end, STOA_HTTP_ANSWERED); /* it speaks no TLS */
    assert_int_equal(atomic_load(&env.server.accepted), 1);
    close_env(&env);
}


static void
http_knows_public_addresses(void **state)
{
    static const struct {
        const char *text;
        bool        is_public;
    } rows[] = {
        { "1.1.1.1", true },
        { "8.8.8.8", true },
        { "9.255.255.255", true },
        { "10.0.0.0", false },
        { "10.255.255.255", false },
        { "11.0.0.0", true },
        { "0.0.0.0", false },
        { "0.1.2.3", false },
        { "100.63.255.255", true },
        { "100.64.0.0", false },
        { "100.127.255.255", false },
        { "100.128.0.0", true },
        { "126.255.255.255", true },
        { "127.0.0.1", false },
        { "127.255.255.254", false },
        { "128.0.0.1", true },
        { "169.253.255.255", true },
        { "169.254.169.254", false },
        { "169.255.0.0", true },
        { "172.15.255.255", true },
        { "172.16.0.1", false },
        { "172.31.255.255", false },
        { "172.32.0.0", true },
        { "192.0.0.8", false },
        { "192.0.2.1", false },
        { "192.0.3.1", true },
        { "192.88.99.1", false },
        { "192.167.255.255", true },
        { "192.168.0.1", false },
        { "192.169.0.0", true },
        { "198.17.255.255", true },
        { "198.18.0.1", false },
        { "198.19.255.255", false },
        { "198.20.0.0", true },
        { "198.51.100.1", false },
        { "203.0.113.9", false },
        { "223.255.255.255", true },
        { "224.0.0.1", false },
        { "240.0.0.1", false },
        { "255.255.255.255", false },
        { "::", false },
        { "::1", false },
        { "::7f00:1", false },
        { "::ffff:127.0.0.1", false },
        { "::ffff:10.0.0.1", false },
        { "::ffff:8.8.8.8", true },
        { "64:ff9b::8.8.8.8", true },
        { "64:ff9b::10.0.0.1", false },
        { "64:ff9b:1::808:808", false },
        { "100::1", false },
        { "1fff::1", false },
        { "2000::1", true },
        { "2001::1", false },
        { "2001:1ff::1", false },
        { "2001:200::1", true },
        { "2001:db8::1", false },
        { "2001:4860:4860::8888", true },
        { "2002:7f00:1::1", false },
        { "2606:4700::1111", true },
        { "3fff::1", false },
        { "3fff:1000::1", true },
        { "4000::1", false },
        { "fc00::1", false },
        { "fd12:3456::1", false },
        { "fe80::1", false },
        { "fec0::1", false },
        { "ff02::1", false },
    };

    (void) state;

    for (size_t i = 0; i < stoa_nitems(rows); i++) {
        struct sockaddr_storage ss;
        struct sockaddr_in     *in = (struct sockaddr_in *) &ss;
        struct sockaddr_in6    *in6 = (struct sockaddr_in6 *) &ss;

        memset(&ss, 0, sizeof(ss));

        if (inet_pton(AF_INET, rows[i].text, &in->sin_addr) == 1) {
            ss.ss_family = AF_INET;

        } else {
            assert_int_equal(inet_pton(AF_INET6, rows[i].text, &in6->sin6_addr),
                             1);
            ss.ss_family = AF_INET6;
        }

        if (stoa_http_is_public((struct sockaddr *) &ss) != rows[i].is_public) {
            fail_msg("%s is %spublic", rows[i].text,
                     rows[i].is_public ? "" : "not ");
        }
    }

    assert_false(
        stoa_http_is_public(&(struct sockaddr){ .sa_family = AF_UNIX }));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http_knows_public_addresses),
        cmocka_unit_test(http_gives_what_was_answered),
        cmocka_unit_test(http_bounds_what_it_reads),
        cmocka_unit_test(http_ends_at_its_deadline),
        cmocka_unit_test(http_waits_for_no_name),
        cmocka_unit_test(http_ends_with_its_memory),
        cmocka_unit_test(http_reaches_public_addresses_only),
    };

    (void) signal(SIGPIPE, SIG_IGN);

    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
