/*
 * stoa migrate: numbered files once each and in order, then the repeatable
 * ones of api/ and task/ whenever their text changed.
 *
 * Each file is one transaction: it takes an advisory lock, becomes
 * stoa_owner, makes sure that nobody applied the file meanwhile, runs it and
 * writes its name and checksum to stoa_meta.stoa_migrations.  So any number
 * of machines may migrate at once: one applies a file, the others find it
 * applied.  Refused before anything runs: a numbered file that was changed
 * after it was applied, one that was applied and is missing, and a new one
 * whose place is before one that was applied.  The first error ends it.
 *
 * Before the first file the roles stoa_owner, stoa_edge and stoa_worker are
 * made where they are missing; after the last one the settings that SQL
 * needs are written.
 */

#include "cmd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker_engine.h"

#include "../shared/stoa_buf.h"
#include "../shared/stoa_hmac.h"
#include "../shared/stoa_str.h"
#include "../shared/stoa_time.h"

#define FILES_MAX 512
#define FILE_MAX  (4 * 1024 * 1024)

/* The SQLSTATE by which a file's transaction says that another machine has
   applied it; of a class that PostgreSQL leaves to others. */
#define APPLIED "ST001"

/* Any constant that no one else uses. */
#define LOCK "select pg_catalog.pg_advisory_xact_lock(5873120614);"

typedef struct {
    const char *name; /* "0001_init.sql", "api/orders.sql" */
    stoa_str_t  text;
    char        sum[65];
    char        was[65]; /* applied checksum, or empty */
    bool        repeatable;
} cmd_file_t;

typedef struct {
    cmd_t      *c;
    const char *dir;
    cmd_file_t *files;
    size_t      n;
    const char *conninfo;
} cmd_migrate_t;

static const char cmd_migrate_roles[] =
    "begin; " LOCK "\n"
    "do $stoa$\n"
    "declare\n"
    "    r text;\n"
    "begin\n"
    "    foreach r in array array['stoa_owner', 'stoa_edge', 'stoa_worker']\n"
    "    loop\n"
    "        if not exists (select from pg_catalog.pg_roles\n"
    "                       where rolname = r)\n"
    "        then\n"
    "            begin\n"
    "                execute pg_catalog.format('create role %I login', r);\n"
    "            exception when duplicate_object or unique_violation then\n"
    "                null; -- another database's migration was faster\n"
    "            end;\n"
    "        end if;\n"
    "    end loop;\n"
    "    if current_user <> 'stoa_owner' then\n"
    "        execute pg_catalog.format(\n"
    "            'grant create, connect, temporary on database %I '\n"
    "            'to stoa_owner', pg_catalog.current_database());\n"
    "        if not pg_catalog.pg_has_role('stoa_owner', 'member') then\n"
    "            execute pg_catalog.format('grant stoa_owner to %I',\n"
    "                                      current_user);\n"
    "        end if;\n"
    "    end if;\n"
    "    -- who may revoke it: the database's owner, or who made it\n"
    "    if exists (select from pg_catalog.pg_database d\n"
    "               where d.datname = pg_catalog.current_database()\n"
    "               and pg_catalog.pg_has_role(d.datdba, 'usage'))\n"
    "    then\n"
    "        execute pg_catalog.format(\n"
    "            'revoke temporary on database %I '\n"
    "            'from public, stoa_edge, stoa_worker',\n"
    "            pg_catalog.current_database());\n"
    "    end if;\n"
    "end $stoa$;\n"
    "set local role stoa_owner;\n"
    "create schema if not exists stoa_meta;\n"
    "create table if not exists stoa_meta.stoa_migrations (\n"
    "    name       text primary key,\n"
    "    checksum   text not null,\n"
    "    applied_at timestamptz not null\n"
    "               default pg_catalog.clock_timestamp()\n"
    ");\n"
    "commit;\n";


/* ---- files ---- */

static bool
cmd_migrate_name(const char *name)
{
    for (const char *p = name; *p != '\0'; p++) {
        if ((*p < 'a' || *p > 'z') && (*p < '0' || *p > '9') && *p != '_'
            && *p != '.' && *p != '-' && *p != '/')
        {
            return false;
        }
    }

    return true;
}


static bool
cmd_migrate_numbered(const char *name)
{
    for (size_t i = 0; i < 4; i++) {
        if (name[i] < '0' || name[i] > '9') {
            return false;
        }
    }

    return name[4] == '_';
}


static bool
cmd_migrate_read_fd(cmd_migrate_t *m, int fd, const char *path, stoa_str_t *out)
{
    struct stat st;
    size_t      got = 0;
    ssize_t     n;

    if (fstat(fd, &st) != 0 || st.st_size > FILE_MAX) {
        cmd_say(m->c, "\"%s\" is larger than 4 MB", path);
        return false;
    }

    out->data = stoa_alloc(m->c->mem, (size_t) st.st_size + 1);

    if (out->data == NULL) {
        cmd_say(m->c, "no memory for \"%s\"", path);
        return false;
    }

    while (got < (size_t) st.st_size) {
        n = read(fd, out->data + got, (size_t) st.st_size - got);

        if (n <= 0) {
            cmd_say(m->c, "cannot read \"%s\"", path);
            return false;
        }

        got += (size_t) n;
    }

    out->data[got] = '\0';
    out->len = got;

    if (memchr(out->data, '\0', got) != NULL || !stoa_str_utf8(*out, NULL)) {
        cmd_say(m->c, "\"%s\" is not UTF-8 text", path);
        return false;
    }

    return true;
}


static bool
cmd_migrate_add(cmd_migrate_t *m, const char *name, bool repeatable)
{
    cmd_file_t   *f = &m->files[m->n];
    char          path[4352];
    unsigned char sum[STOA_SHA256_LEN];
    int           fd;
    bool          ok;

    if (m->n == FILES_MAX || !cmd_migrate_name(name)) {
        cmd_say(m->c,
                "\"%s\" is one file too many, or has characters other "
                "than a-z 0-9 _ . -",
                name);
        return false;
    }

    (void) snprintf(path, sizeof(path), "%s/%s", m->dir, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        cmd_say(m->c, "cannot open \"%s\": %s", path, strerror(errno));
        return false;
    }

    ok = cmd_migrate_read_fd(m, fd, path, &f->text);
    (void) close(fd); /* it was only read */

    if (!ok) {
        return false;
    }

    f->name = stoa_strdup_z(m->c->mem, stoa_str_z(name));
    f->repeatable = repeatable;

    if (f->name == NULL || !stoa_sha256(f->text.data, f->text.len, sum)) {
        cmd_say(m->c, "no memory");
        return false;
    }

    stoa_hex_encode(f->sum, sum, sizeof(sum));
    f->sum[64] = '\0';
    m->n++;
    return true;
}


static bool
cmd_migrate_sql(const char *name)
{
    size_t len = strlen(name);

    return len > 4 && strcmp(name + len - 4, ".sql") == 0;
}


/* The SQL files of a folder in the order of their names; sub is "" or a
   sub-folder, which holds repeatable files only. */
static bool
cmd_migrate_scan(cmd_migrate_t *m, const char *sub)
{
    struct dirent **list;
    struct stat     st;
    char            path[4352], name[600];
    int             n;
    bool            ok = true;

    (void) snprintf(path, sizeof(path), "%s/%s", m->dir, sub);
    n = scandir(path, &list, NULL, alphasort);

    if (n < 0) {
        cmd_say(m->c, "cannot read the folder \"%s\": %s", path,
                strerror(errno));
        return false;
    }

    for (int i = 0; i < n; i++) {
        const char *entry = list[i]->d_name;

        (void) snprintf(name, sizeof(name), "%s%s%s", sub,
                        sub[0] != '\0' ? "/" : "", entry);
        (void) snprintf(path, sizeof(path), "%s/%s", m->dir, name);

        if (!ok || entry[0] == '.' || stat(path, &st) != 0) {
            continue;
        }

        if (S_ISREG(st.st_mode) && cmd_migrate_sql(entry)) {
            if (sub[0] == '\0' && !cmd_migrate_numbered(entry)) {
                cmd_say(m->c, "\"%s\" has no number: name it NNNN_%s", path,
                        entry);
                ok = false;

            } else {
                ok = cmd_migrate_add(m, name, sub[0] != '\0');
            }
        }
    }

    for (int i = 0; i < n; i++) {
        free(list[i]); /* of scandir() */
    }

    free(list);
    return ok;
}


/* The numbered files, then the folders of repeatable ones that exist. */
static bool
cmd_migrate_find(cmd_migrate_t *m)
{
    static const char *const folders[] = { "api", "task" };

    char        path[4352];
    struct stat st;

    if (!cmd_migrate_scan(m, "")) {
        return false;
    }

    if (m->n == 0) {
        cmd_say(m->c, "there are no migrations in \"%s\"", m->dir);
        return false;
    }

    for (size_t i = 0; i < stoa_nitems(folders); i++) {
        (void) snprintf(path, sizeof(path), "%s/%s", m->dir, folders[i]);

        if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)
            && !cmd_migrate_scan(m, folders[i]))
        {
            return false;
        }
    }

    return true;
}


static const char *
cmd_migrate_dir(cmd_t *c)
{
    static const char *const places[] = { "migrations", "+/../migrations",
                                          "+/../../migrations",
                                          "+/../share/stoa/migrations",
                                          "/usr/share/stoa/migrations" };

    char        self[2048], path[2200];
    struct stat st;
    ssize_t     n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char       *slash;

    self[n > 0 ? n : 0] = '\0';
    slash = strrchr(self, '/');

    if (slash != NULL) {
        *slash = '\0';
    }

    for (size_t i = 0; i < stoa_nitems(places); i++) {
        if (places[i][0] == '+') { /* beside the program */
            (void) snprintf(path, sizeof(path), "%s%s", self, places[i] + 1);
        } else {
            (void) snprintf(path, sizeof(path), "%s", places[i]);
        }

        if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
            return stoa_strdup_z(c->mem, stoa_str_z(path));
        }
    }

    return NULL;
}


/* ---- what is applied ---- */

/* The numbered files that are not applied come behind those that are. */
static bool
cmd_migrate_order(const cmd_migrate_t *m)
{
    const cmd_file_t *last = NULL;

    for (size_t i = 0; i < m->n; i++) {
        if (!m->files[i].repeatable && m->files[i].was[0] != '\0') {
            last = &m->files[i];
        }
    }

    for (size_t i = 0; last != NULL && &m->files[i] != last; i++) {
        if (!m->files[i].repeatable && m->files[i].was[0] == '\0') {
            cmd_say(m->c,
                    "\"%s/%s\" is not applied, but \"%s\", which comes "
                    "after it, is; give it a number above that",
                    m->dir, m->files[i].name, last->name);
            return false;
        }
    }

    return true;
}


static bool
cmd_migrate_note(cmd_migrate_t *m, const stoa_pg_result_t *res)
{
    for (int row = 0; row < stoa_pg_rows(res); row++) {
        stoa_str_t  name = stoa_pg_value(res, row, 0);
        stoa_str_t  sum = stoa_pg_value(res, row, 1);
        cmd_file_t *f = NULL;

        for (size_t i = 0; i < m->n; i++) {
            if (stoa_str_eq_z(name, m->files[i].name)) {
                f = &m->files[i];
            }
        }

        if (f == NULL && memchr(name.data, '/', name.len) == NULL) {
            cmd_say(m->c,
                    "\"%.*s\" was applied and is missing in \"%s\"; this is "
                    "not the folder of the database's release, or of an "
                    "older one",
                    (int) name.len, (const char *) name.data, m->dir);
            return false;
        }

        if (f == NULL || sum.len != 64) {
            continue; /* a repeatable one of another release */
        }

        memcpy(f->was, sum.data, 64);

        if (!f->repeatable && strcmp(f->was, f->sum) != 0) {
            cmd_say(m->c,
                    "\"%s/%s\" was changed after it was applied; put "
                    "the file back and add a new one",
                    m->dir, f->name);
            return false;
        }
    }

    return cmd_migrate_order(m);
}


static int
cmd_migrate_applied(cmd_migrate_t *m, cmd_db_t *db)
{
    stoa_pg_result_t *res;
    const char       *why;
    int               rc;
    bool              ok;

    rc = cmd_db_query(db,
                      "select 1 from pg_catalog.pg_tables where schemaname = "
                      "'stoa_meta' and tablename = 'stoa_migrations'",
                      0, NULL, &res, NULL, &why);
    ok = rc == CMD_OK && stoa_pg_rows(res) == 1;
    stoa_pg_result_free(res);

    if (rc == CMD_OK && ok) {
        rc = cmd_db_query(db,
                          "select name, checksum from "
                          "stoa_meta.stoa_migrations order by name",
                          0, NULL, &res, NULL, &why);

        if (rc == CMD_OK && !cmd_migrate_note(m, res)) {
            stoa_pg_result_free(res);
            return CMD_FAILED;
        }

        stoa_pg_result_free(res);
    }

    if (rc != CMD_OK) {
        cmd_say(m->c, "cannot read what is applied: %s", why);
    }

    return rc;
}


/* ---- applying ---- */

static int
cmd_migrate_exec(cmd_migrate_t *m, const char *sql, const char *what)
{
    char      *message = NULL;
    char       sqlstate[6];
    stoa_err_e err;

    err = stoa_pg_exec_once(m->conninfo, sql, m->c->mem, &message, sqlstate);

    if (err == STOA_OK) {
        return CMD_OK;
    }

    if (strcmp(sqlstate, APPLIED) == 0) {
        return -1;
    }

    cmd_say(m->c, "%s: %s", what,
            message != NULL ? message : stoa_err_row(err)->title);
    return err == STOA_E_DATABASE_UNAVAILABLE ? CMD_UNREACHED : CMD_FAILED;
}


static int
cmd_migrate_apply(cmd_migrate_t *m, const cmd_file_t *f)
{
    stoa_buf_t b;
    uint64_t   started = stoa_time_mono_ms();
    int        rc;

    /* all on the first line, so that LINE in messages is the file's */
    stoa_buf_init(&b, m->c->mem, f->text.len + 2048, f->text.len + 4096);
    stoa_buf_printf(&b,
                    "begin; " LOCK " set local role stoa_owner; "
                    "set local lock_timeout = '60s'; "
                    "set local check_function_bodies = %s; "
                    "do $stoa$ begin if exists (select from "
                    "stoa_meta.stoa_migrations where name = '%s'",
                    f->repeatable ? "off" : "on", f->name);

    if (f->repeatable) {
        stoa_buf_printf(&b, " and checksum = '%s'", f->sum);
    }

    stoa_buf_z(&b, ") then raise exception using errcode = '" APPLIED "'; "
                   "end if; end $stoa$; ");
    stoa_buf_str(&b, f->text);
    stoa_buf_printf(&b,
                    "\n;\nset local role stoa_owner; insert into "
                    "stoa_meta.stoa_migrations (name, checksum) values ('%s', "
                    "'%s') on conflict (name) do update set checksum = "
                    "excluded.checksum, applied_at = excluded.applied_at; "
                    "commit;",
                    f->name, f->sum);
    stoa_buf_nul(&b);

    if (b.failed) {
        cmd_say(m->c, "no memory for \"%s\"", f->name);
        return CMD_FAILED;
    }

    rc = cmd_migrate_exec(m, (const char *) b.data, f->name);

    if (rc == CMD_OK) {
        (void) printf("applied %s in %llu ms\n", f->name,
                      (unsigned long long) (stoa_time_mono_ms() - started));
        (void) fflush(stdout); /* the final one is checked */
        return CMD_OK;
    }

    return rc == -1 ? CMD_OK : rc; /* another one was faster */
}


static int
cmd_migrate_settings(cmd_migrate_t *m, cmd_db_t *db)
{
    stoa_buf_t        b;
    stoa_pg_result_t *res;
    const char       *values[1], *why;
    int               rc;

    stoa_buf_init(&b, m->c->mem, 4096, 65536);
    worker_settings_json(&m->c->conf, &b);
    stoa_buf_nul(&b);

    if (b.failed) {
        cmd_say(m->c, "no memory");
        return CMD_FAILED;
    }

    values[0] = (const char *) b.data;
    rc = cmd_db_query(db, "select app.settings_put($1::jsonb)", 1, values, &res,
                      NULL, &why);
    stoa_pg_result_free(res);

    if (rc != CMD_OK) {
        cmd_say(m->c, "cannot write the settings: %s", why);
    }

    return rc;
}


static bool
cmd_migrate_pending(const cmd_file_t *f)
{
    return strcmp(f->was, f->sum) != 0;
}


static int
cmd_migrate_list(const cmd_migrate_t *m, bool all)
{
    size_t pending = 0;

    for (size_t i = 0; i < m->n; i++) {
        const cmd_file_t *f = &m->files[i];
        const char       *state = "applied";

        if (cmd_migrate_pending(f)) {
            pending++;
            state = f->was[0] == '\0' ? "pending" : "changed";

        } else if (!all) {
            continue;
        }

        (void) printf("%-8s %s\n", state, f->name);
    }

    (void) printf("%zu of %zu files are to be applied\n", pending, m->n);
    return CMD_OK;
}


static int
cmd_migrate_run(cmd_migrate_t *m, bool dry_run, bool status)
{
    cmd_db_t *db = cmd_db_open(m->c, "owner");
    size_t    done = 0;
    int       rc;

    if (db == NULL) {
        return CMD_UNREACHED;
    }

    rc = cmd_migrate_applied(m, db);

    if (rc == CMD_OK && (dry_run || status)) {
        rc = cmd_migrate_list(m, status);
        cmd_db_close(db);
        return rc;
    }

    if (rc == CMD_OK) {
        rc = cmd_migrate_exec(m, cmd_migrate_roles, "roles");
    }

    for (size_t i = 0; rc == CMD_OK && i < m->n; i++) {
        if (cmd_migrate_pending(&m->files[i])) {
            rc = cmd_migrate_apply(m, &m->files[i]);
            done++;
        }
    }

    if (rc == CMD_OK) {
        rc = cmd_migrate_settings(m, db);
    }

    if (rc == CMD_OK && done == 0) {
        (void) puts("the schema is up to date");
    }

    cmd_db_close(db);
    return rc;
}


int
cmd_migrate(cmd_t *c, int argc, char **argv)
{
    cmd_migrate_t m = { .c = c };
    bool          dry_run = false, status = false;
    cmd_option_t  options[] = {
         { "--dir", NULL, &m.dir },
         { "--dry-run", &dry_run, NULL },
         { "--status", &status, NULL },
    };
    size_t nrest;
    int    rc;

    rc = cmd_options(c, argc, argv, options, stoa_nitems(options), NULL, 0,
                     &nrest);

    if (rc >= 0) {
        return rc;
    }

    if (dry_run && status) {
        cmd_say(c, "say --dry-run or --status, not both");
        return CMD_USAGE;
    }

    if (!cmd_load(c)) {
        return CMD_FAILED;
    }

    if (m.dir == NULL) {
        m.dir = cmd_migrate_dir(c);
    }

    if (m.dir == NULL) {
        cmd_say(c, "there is no folder migrations/ here or beside the "
                   "program; name it with --dir");
        return CMD_FAILED;
    }

    m.files = stoa_calloc(c->mem, FILES_MAX * sizeof(cmd_file_t));
    m.conninfo = stoa_conf_conninfo(&c->conf, "owner", c->mem);

    if (m.files == NULL || m.conninfo == NULL) {
        cmd_say(c, "no memory");
        return CMD_FAILED;
    }

    if (!cmd_migrate_find(&m)) {
        return CMD_FAILED;
    }

    return cmd_migrate_run(&m, dry_run, status);
}
