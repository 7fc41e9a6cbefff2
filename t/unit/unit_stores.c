/*
 * Private PostgreSQL and Redis servers for units.  Children are told by the
 * kernel to stop when the unit dies; the folders of a unit that was killed
 * stay under /tmp/stoa-unit-*.
 */

#include "unit_stores.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>


static void
unit_fail(const char *what, const char *detail)
{
    (void) fprintf(stderr, "unit: %s: %s\n", what, detail);
    exit(2);
}


static void
unit_sleep_ms(long ms)
{
    struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

    (void) nanosleep(&ts, NULL);
}


/* PostgreSQL refuses to run as root. */
static struct passwd *
unit_user(const char *name)
{
    struct passwd *pw;

    if (name == NULL || geteuid() != 0) {
        return NULL;
    }

    pw = getpwnam(name);
    if (pw == NULL) {
        unit_fail("no such user", name);
    }

    return pw;
}


static int
unit_spawn(const char *user, const char *dir, int stop, char *const argv[])
{
    int            fd;
    pid_t          pid, parent = getpid();
    struct passwd *pw = unit_user(user);

    pid = fork();
    if (pid == -1) {
        unit_fail("fork", strerror(errno));
    }

    if (pid != 0) {
        return (int) pid;
    }

    if (pw != NULL
        && (setgid(pw->pw_gid) != 0 || initgroups(user, pw->pw_gid) != 0
            || setuid(pw->pw_uid) != 0))
    {
        _exit(126);
    }

    if (chdir(dir) != 0 || prctl(PR_SET_PDEATHSIG, stop) != 0
        || getppid() != parent)
    {
        _exit(126);
    }

    fd = open("log", O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd == -1 || dup2(fd, 1) == -1 || dup2(fd, 2) == -1) {
        _exit(126);
    }

    /* sanitizers and valgrind are for the unit */
    (void) unsetenv("LD_PRELOAD");
    (void) execv(argv[0], argv);
    _exit(127);
}


static int
unit_wait(int pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) == -1) {
        if (errno != EINTR) {
            return -1;
        }
    }

    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}


static void
unit_dir(char dir[64], const char *user)
{
    struct passwd *pw = unit_user(user);

    (void) snprintf(dir, 64, "/tmp/stoa-unit-XXXXXX");

    if (mkdtemp(dir) == NULL || chmod(dir, 0755) != 0
        || (pw != NULL && chown(dir, pw->pw_uid, pw->pw_gid) != 0))
    {
        unit_fail("folder", strerror(errno));
    }
}


static void
unit_dir_remove(const char *dir)
{
    char        path[64];
    char *const argv[] = { (char[]){ "/bin/rm" }, (char[]){ "-rf" }, path,
                           NULL };

    (void) snprintf(path, sizeof(path), "%s", dir);

    if (strncmp(path, "/tmp/stoa-unit-", 15) == 0
        && unit_wait(unit_spawn(NULL, "/tmp", SIGKILL, argv)) != 0)
    {
        unit_fail("cannot remove", dir);
    }
}


static bool
unit_connects(const char *path)
{
    int                fd, rc;
    struct sockaddr_un sa = { .sun_family = AF_UNIX };

    (void) snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return false;
    }

    rc = connect(fd, (struct sockaddr *) &sa, sizeof(sa));
    (void) close(fd);

    return rc == 0;
}


static void
unit_await(int *pid, const char *path)
{
    int i, status;

    for (i = 0; i < 1500; i++) {
        if (unit_connects(path)) {
            return;
        }

        if (waitpid(*pid, &status, WNOHANG) == *pid) {
            unit_fail("server ended, see the log beside", path);
        }

        unit_sleep_ms(10);
    }

    unit_fail("server did not start", path);
}


/* ---- PostgreSQL ---- */

static void
unit_pg_bin(unit_pg_t *pg)
{
    glob_t g;

    if (glob("/usr/lib/postgresql/*/bin/postgres", 0, NULL, &g) != 0
        || g.gl_pathc == 0)
    {
        unit_fail("PostgreSQL is not installed", "/usr/lib/postgresql");
    }

    (void) snprintf(pg->bin, sizeof(pg->bin), "%s", g.gl_pathv[g.gl_pathc - 1]);
    *strrchr(pg->bin, '/') = '\0';
    globfree(&g);
}


void
unit_pg_create(unit_pg_t *pg, const char *settings)
{
    int   fd;
    char  initdb[300], data[80], conf[100];
    char *argv[] = { initdb,
                     (char[]){ "-D" },
                     data,
                     (char[]){ "-A" },
                     (char[]){ "trust" },
                     (char[]){ "-U" },
                     (char[]){ "postgres" },
                     (char[]){ "--no-sync" },
                     (char[]){ "--locale=C" },
                     (char[]){ "-E" },
                     (char[]){ "UTF8" },
                     NULL };

    memset(pg, 0, sizeof(unit_pg_t));
    unit_pg_bin(pg);
    unit_dir(pg->dir, "postgres");

    (void) snprintf(initdb, sizeof(initdb), "%s/initdb", pg->bin);
    (void) snprintf(data, sizeof(data), "%s/data", pg->dir);
    (void) snprintf(pg->info, sizeof(pg->info),
                    "host=%s user=postgres dbname=postgres", pg->dir);

    if (unit_wait(unit_spawn("postgres", pg->dir, SIGKILL, argv)) != 0) {
        unit_fail("initdb failed, see", pg->dir);
    }

    (void) snprintf(conf, sizeof(conf), "%s/postgresql.conf", data);

    fd = open(conf, O_WRONLY | O_APPEND);
    if (fd == -1
        || write(fd, settings, strlen(settings)) != (ssize_t) strlen(settings))
    {
        unit_fail("cannot write", conf);
    }

    (void) close(fd);

    unit_pg_start(pg);
}


void
unit_pg_start(unit_pg_t *pg)
{
    int   i;
    char  program[300], data[80], dir[64], path[100];
    char *ready[] = { program, (char[]){ "-q" }, (char[]){ "-h" }, dir, NULL };
    char *argv[] = { program,
                     (char[]){ "-D" },
                     data,
                     (char[]){ "-k" },
                     dir,
                     (char[]){ "-c" },
                     (char[]){ "listen_addresses=" },
                     (char[]){ "-c" },
                     (char[]){ "fsync=off" },
                     NULL };

    (void) snprintf(program, sizeof(program), "%s/postgres", pg->bin);
    (void) snprintf(data, sizeof(data), "%s/data", pg->dir);
    (void) snprintf(dir, sizeof(dir), "%s", pg->dir);
    (void) snprintf(path, sizeof(path), "%s/.s.PGSQL.5432", pg->dir);

    pg->pid = unit_spawn("postgres", pg->dir, SIGQUIT, argv);
    unit_await(&pg->pid, path);

    /* it accepts before it serves */

    (void) snprintf(program, sizeof(program), "%s/pg_isready", pg->bin);

    for (i = 0; unit_wait(unit_spawn(NULL, pg->dir, SIGKILL, ready)) != 0; i++)
    {
        if (i == 500) {
            unit_fail("PostgreSQL does not serve, see", pg->dir);
        }

        unit_sleep_ms(20);
    }
}


void
unit_pg_stop(unit_pg_t *pg)
{
    if (pg->pid != 0) {
        (void) kill(pg->pid, SIGINT);
        (void) unit_wait(pg->pid);
        pg->pid = 0;
    }
}


void
unit_pg_destroy(unit_pg_t *pg)
{
    unit_pg_stop(pg);
    unit_dir_remove(pg->dir);
}


/* ---- Redis ---- */

void
unit_redis_create(unit_redis_t *rd)
{
    memset(rd, 0, sizeof(unit_redis_t));
    unit_dir(rd->dir, NULL);
    (void) snprintf(rd->sock, sizeof(rd->sock), "%s/redis.sock", rd->dir);
    unit_redis_start(rd);
}


void
unit_redis_start(unit_redis_t *rd)
{
    char  path[100];
    char *argv[] = { (char[]){ "/usr/bin/redis-server" },
                     (char[]){ "--port" },
                     (char[]){ "0" },
                     (char[]){ "--unixsocket" },
                     path,
                     (char[]){ "--save" },
                     (char[]){ "" },
                     (char[]){ "--appendonly" },
                     (char[]){ "no" },
                     NULL };

    (void) snprintf(path, sizeof(path), "%s", rd->sock);

    rd->pid = unit_spawn(NULL, rd->dir, SIGKILL, argv);
    unit_await(&rd->pid, rd->sock);
}


void
unit_redis_stop(unit_redis_t *rd)
{
    if (rd->pid != 0) {
        (void) kill(rd->pid, SIGKILL);
        (void) unit_wait(rd->pid);
        rd->pid = 0;
    }
}


void
unit_redis_destroy(unit_redis_t *rd)
{
    unit_redis_stop(rd);
    unit_dir_remove(rd->dir);
}


/* ---- log ---- */

static void
unit_log_write(void *ctx, stoa_log_level_e level, const char *line, size_t len)
{
    (void) ctx;

    if (getenv("UNIT_LOG") != NULL) {
        (void) fprintf(stderr, "[%d] %.*s\n", (int) level, (int) len, line);
    }
}


stoa_log_t *
unit_log(void)
{
    static stoa_log_t log = { STOA_LOG_DEBUG, unit_log_write, NULL };

    return &log;
}
