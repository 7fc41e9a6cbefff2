/*
 * The command line: one row per command (stoa_main.c), one function each,
 * and what they share.  Exit codes: 0 ok, 1 failed, 2 usage, 3 not
 * reachable.  Every error is one sentence on standard error.
 */

#ifndef CMD_H_INCLUDED
#define CMD_H_INCLUDED

#include "../shared/stoa_conf.h"
#include "../shared/stoa_jwt.h"
#include "../shared/stoa_log.h"
#include "../shared/stoa_pg.h"
#include "../shared/stoa_redis.h"

enum {
    CMD_OK = 0,
    CMD_FAILED = 1,
    CMD_USAGE = 2,
    CMD_UNREACHED = 3
};

typedef struct cmd_row_s cmd_row_t;

typedef struct {
    const cmd_row_t *row;
    const char      *conf_path; /* NULL: environment and defaults only */
    stoa_mem_t      *mem;
    stoa_conf_t      conf; /* after cmd_load() */
    stoa_log_t       log;  /* keeps its last line instead of writing it */
    char             last[512];
} cmd_t;

struct cmd_row_s {
    const char *name;
    const char *arguments; /* behind the name, in the usage line */
    const char *summary;
    const char *options; /* lines of --help; NULL: none of its own */
    void (*more)(void);  /* prints what --help ends with; may be NULL */
    int (*run)(cmd_t *c, int argc, char **argv); /* argv[0] is the name */
};

int cmd_work(cmd_t *c, int argc, char **argv);
int cmd_migrate(cmd_t *c, int argc, char **argv);
int cmd_check(cmd_t *c, int argc, char **argv);
int cmd_routes(cmd_t *c, int argc, char **argv);
int cmd_openapi(cmd_t *c, int argc, char **argv);
int cmd_manual(cmd_t *c, int argc, char **argv);
int cmd_queues(cmd_t *c, int argc, char **argv);
int cmd_tasks(cmd_t *c, int argc, char **argv);
int cmd_schedules(cmd_t *c, int argc, char **argv);
int cmd_audit(cmd_t *c, int argc, char **argv);
int cmd_user(cmd_t *c, int argc, char **argv);
int cmd_token(cmd_t *c, int argc, char **argv);
int cmd_key(cmd_t *c, int argc, char **argv);

/* "stoa migrate: <sentence>" on standard error. */
void cmd_say(const cmd_t *c, const char *fmt, ...) STOA_PRINTF(2, 3);

/* The settings; false: the sentence was printed. */
bool cmd_load(cmd_t *c) STOA_MUSTCHECK;

/* The key that signs access tokens; NULL: the sentence was printed. */
stoa_jwt_keys_t *cmd_keys(cmd_t *c) STOA_MUSTCHECK;

/* Every setting with its default and meaning, for check --help. */
void cmd_check_settings(void);

/*
 * Options by a table: takes "-c FILE" and "--help", too.  Flags are set,
 * texts get the argument behind the option.  What is no option stays, in
 * order, in *rest.  Returns -1 to go on, else the exit code (help, usage).
 */
typedef struct {
    const char  *name; /* "--dir" */
    bool        *flag; /* or */
    const char **text;
} cmd_option_t;

int cmd_options(cmd_t *c, int argc, char **argv, const cmd_option_t *options,
                size_t noptions, const char **rest, size_t max, size_t *nrest);

/* ---- PostgreSQL, blocking (cmd_db.c) ---- */

typedef struct cmd_db_s cmd_db_t;

/* Role: "owner", "worker" or "edge".  NULL: it was said why. */
cmd_db_t *cmd_db_open(cmd_t *c, const char *role);
void      cmd_db_close(cmd_db_t *db);

/* One statement with text parameters.  *res may be NULL for a command; the
   caller frees it.  On failure the sentence is in *why (of c->mem). */
int cmd_db_query(cmd_db_t *db, const char *sql, size_t nvalues,
                 const char *const *values, stoa_pg_result_t **res,
                 const char **sqlstate, const char **why) STOA_MUSTCHECK;

/* Prepares it and runs nothing. */
int cmd_db_prepare(cmd_db_t *db, const stoa_pg_stmt_t *stmt,
                   const char **why) STOA_MUSTCHECK;

/* ---- Redis, blocking (cmd_redis.c) ---- */

typedef struct cmd_redis_s cmd_redis_t;

cmd_redis_t *cmd_redis_open(cmd_t *c);
void         cmd_redis_close(cmd_redis_t *r);

/* done(reply, data) is called with the answer; false: said why. */
bool cmd_redis_command(cmd_redis_t *r, int argc, const stoa_str_t *argv,
                       void (*done)(const stoa_redis_reply_t *reply,
                                    void                     *data),
                       void *data) STOA_MUSTCHECK;
bool cmd_redis_eval(cmd_redis_t *r, int script, int argc,
                    const stoa_str_t *argv,
                    void (*done)(const stoa_redis_reply_t *reply, void *data),
                    void *data) STOA_MUSTCHECK;

#endif /* CMD_H_INCLUDED */
