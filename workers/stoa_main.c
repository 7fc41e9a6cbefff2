/*
 * The program stoa: the worker pool and the operator's command line.  main()
 * finds the command's row and calls it; help and usage come from the rows.
 */

#include "cmd.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker_log.h"
#include "worker_main.h"

#include "../shared/stoa_buf.h"
#include "../shared/stoa_str.h"

#define MEMORY_MAX (64 * 1024 * 1024)

static int cmd_help(cmd_t *c, int argc, char **argv);

static const char stoa_work_options[] =
    "  --log LEVEL   error, warn, notice (default), info or debug\n"
    "\n"
    "TERM or INT: claim nothing more, finish within WORKER_GRACE,\n"
    "give the rest back; once more: at once.  TSTP: claim nothing\n"
    "more; CONT: claim again.\n";

static const char stoa_migrate_options[] =
    "  --dir DIR     folder of the migrations; default: migrations/\n"
    "                here, beside the program, or in /usr/share/stoa\n"
    "  --dry-run     say what would be applied\n"
    "  --status      list every file and whether it is applied\n";

static const char stoa_check_options[] =
    "  --db          prepare every statement on the live schema, too\n";

static const char stoa_routes_options[] = "  --json        as a JSON array\n";

static const char stoa_manual_options[] =
    "  SECTION       directives, variables, settings, metrics or errors;\n"
    "                default: all of them\n"
    "  --json        as a JSON object, a list for each section\n"
    "  --markdown    as README has them\n";

static const char stoa_queues_options[] =
    "  --json        as a JSON object\n"
    "  --most N      limit: so many of the queue run at once, everywhere\n"
    "  --each N      limit: so many of one tenant; 0 takes a limit back\n"
    "\n"
    "A paused queue takes tasks and starts none; what runs goes on.  Both\n"
    "last until they are taken back, and reach the workers within seconds.\n";

static const char stoa_schedules_options[] =
    "  --json        as a JSON array\n"
    "\n"
    "when: seconds, or a line of cron(5) by the wall clock of zone.  missed:\n"
    "what becomes of times at which no worker ran, one run for all of them\n"
    "(once), none (skip) or each (all).\n";

static const char stoa_tasks_options[] =
    "  --state STATE waiting, sent (a worker may have it), dead, blocked (by\n"
    "                tasks that it waits for) or all; default: dead\n"
    "  --kind KIND   only tasks of this kind\n"
    "  --tenant NAME only tasks of this tenant\n"
    "  --reason TEXT only those whose last error begins so\n"
    "  --all         cancel or redrive without a filter\n"
    "  --max N       at most so many (default 100)\n"
    "  --rate N      redrive so many in a second; default: all at once\n"
    "  --json        as JSON\n"
    "\n"
    "What a canceled task does in one transaction is not done; a call to a\n"
    "provider that is under way may be.  Its process drops it in seconds.\n";

static const char stoa_audit_options[] =
    "  --since DAY   only links from this day (UTC) on, YYYY-MM-DD\n"
    "  --expect HASH a head that was printed before must still be a link\n"
    "  --slice N     rows per statement (default 10000)\n"
    "  --json        as a JSON object\n"
    "\n"
    "Every row of the chain is there and as it was written, every link\n"
    "follows from the one before, and no row older than 60 s is outside.\n"
    "Whoever owns the database can replace the end of the chain, or all of\n"
    "it, with its rows, and take away what is not sealed yet, a second or\n"
    "so: keep the head that this prints elsewhere, and --expect it.\n";

static const char stoa_user_options[] =
    "  --role ROLE   admin, moderator, support, organizer, practitioner,\n"
    "                worker, driver, scanner, or member, which attendee\n"
    "                means, too\n"
    "  --password-stdin\n"
    "                read the password, one line, from standard input\n"
    "  --password-hash HASH\n"
    "                or take over a bcrypt or argon2id hash\n"
    "  --first NAME, --last NAME\n"
    "                default: the role, and \"Account\"\n"
    "\n"
    "mfa-off takes away the second factor of somebody who lost it and has no\n"
    "recovery codes left; admins do so for others by the API.\n";

static const char stoa_token_options[] =
    "  --user ID     id of the account\n"
    "  --email EMAIL its address\n"
    "  --mfa         as if a code of its second factor had been shown now\n";

static const char stoa_key_options[] =
    "  ACCOUNT       its address or id\n"
    "  --name NAME   what the key is for\n"
    "  --scopes LIST what it may do: *, *:read, events:read, ... with a\n"
    "                comma between; GET /api/v1/auth/scopes has all\n"
    "  --days N      its life (default API_KEY_TTL)\n"
    "\n"
    "The key is printed once.  list: id, beginning, state, end, last use,\n"
    "scopes, name.\n";

static const cmd_row_t stoa_commands[] = {
    {
        .name = "work",
        .arguments = "[--log LEVEL]",
        .summary = "Run the worker pool in the foreground.",
        .options = stoa_work_options,
        .run = cmd_work,
    },
    {
        .name = "migrate",
        .arguments = "[--dir DIR] [--dry-run | --status]",
        .summary = "Bring the database's schema up to date.",
        .options = stoa_migrate_options,
        .run = cmd_migrate,
    },
    {
        .name = "check",
        .arguments = "[--db]",
        .summary = "Check settings and rows, with --db every statement.",
        .options = stoa_check_options,
        .more = cmd_check_settings,
        .run = cmd_check,
    },
    {
        .name = "routes",
        .arguments = "[--json]",
        .summary = "List the endpoints: method, path, who, of, rate, id.",
        .options = stoa_routes_options,
        .run = cmd_routes,
    },
    {
        .name = "openapi",
        .arguments = "",
        .summary = "Print the OpenAPI document.",
        .run = cmd_openapi,
    },
    {
        .name = "manual",
        .arguments = "[--json | --markdown] [SECTION ...]",
        .summary = "Explain directives, variables, settings, metrics, errors.",
        .options = stoa_manual_options,
        .run = cmd_manual,
    },
    {
        .name = "queues",
        .arguments = "[--json]\n"
                     "       stoa queues pause | resume QUEUE\n"
                     "       stoa queues limit QUEUE [--most N] [--each N]",
        .summary = "Show the queues and the outbox, hold queues up.",
        .options = stoa_queues_options,
        .run = cmd_queues,
    },
    {
        .name = "tasks",
        .arguments = "list [--state STATE] [FILTER ...] [--max N] [--json]\n"
                     "       stoa tasks show ID [--json]\n"
                     "       stoa tasks cancel ID | FILTER ... | --all "
                     "[--max N]\n"
                     "       stoa tasks redrive ID | FILTER ... | --all "
                     "[--max N] [--rate N]",
        .summary = "List tasks, show one, cancel it, let dead ones run again.",
        .options = stoa_tasks_options,
        .run = cmd_tasks,
    },
    {
        .name = "schedules",
        .arguments = "[--json]\n"
                     "       stoa schedules run KIND",
        .summary = "Show what runs by the clock, or run it now.",
        .options = stoa_schedules_options,
        .run = cmd_schedules,
    },
    {
        .name = "audit",
        .arguments = "verify [--since DAY] [--expect HASH] [--slice N] "
                     "[--json]",
        .summary = "Verify the audit log and its chain.",
        .options = stoa_audit_options,
        .run = cmd_audit,
    },
    {
        .name = "user",
        .arguments = "add EMAIL --role ROLE --password-stdin | "
                     "--password-hash HASH\n                "
                     "[--first NAME] [--last NAME]\n"
                     "       stoa user mfa-off EMAIL",
        .summary = "Add an account, or take away its second factor.",
        .options = stoa_user_options,
        .run = cmd_user,
    },
    {
        .name = "token",
        .arguments = "--user ID | --email EMAIL [--mfa]",
        .summary = "Mint an access token.",
        .options = stoa_token_options,
        .run = cmd_token,
    },
    {
        .name = "key",
        .arguments = "add ACCOUNT --name NAME --scopes SCOPE[,SCOPE] "
                     "[--days N]\n"
                     "       stoa key list ACCOUNT\n"
                     "       stoa key revoke ID",
        .summary = "Make, list or revoke API keys of an account.",
        .options = stoa_key_options,
        .run = cmd_key,
    },
    {
        .name = "help",
        .arguments = "[COMMAND]",
        .summary = "Show this, or a command's options.",
        .run = cmd_help,
    },
};


void
cmd_say(const cmd_t *c, const char *fmt, ...)
{
    char    text[1536];
    va_list args;

    va_start(args, fmt);
    (void) vsnprintf(text, sizeof(text), fmt, args); /* cut is fine */
    va_end(args);

    if (c->row != NULL) {
        (void) fprintf(stderr, "stoa %s: %s\n", c->row->name, text);
    } else {
        (void) fprintf(stderr, "stoa: %s\n", text);
    }
}


/* What the stores' machines log is the reason of a command's sentence. */
static void
cmd_keep_line(void *ctx, stoa_log_level_e level, const char *line, size_t len)
{
    cmd_t *c = ctx;

    (void) snprintf(c->last, sizeof(c->last), "%.*s", (int) len, line);
}


bool
cmd_load(cmd_t *c)
{
    const char *why = NULL;

    if (stoa_conf_load(&c->conf, c->conf_path, c->mem, &why)) {
        return true;
    }

    cmd_say(c, "%s", why);
    return false;
}


static const cmd_row_t *
stoa_command_find(const char *name)
{
    for (size_t i = 0; i < stoa_nitems(stoa_commands); i++) {
        if (strcmp(stoa_commands[i].name, name) == 0) {
            return &stoa_commands[i];
        }
    }

    return NULL;
}


static void
stoa_command_help(const cmd_row_t *row)
{
    (void) printf("usage: stoa [-c FILE] %s %s\n\n%s\n\n", row->name,
                  row->arguments, row->summary);

    if (row->options != NULL) {
        (void) fputs(row->options, stdout);
    }

    (void) fputs("  -c FILE       settings (default: $STOA_CONF)\n"
                 "  --help        this\n",
                 stdout);

    if (row->more != NULL) {
        row->more();
    }
}


static void
stoa_usage(FILE *to)
{
    (void) fputs("usage: stoa [-c FILE] COMMAND [OPTIONS]\n\n", to);

    for (size_t i = 0; i < stoa_nitems(stoa_commands); i++) {
        (void) fprintf(to, "  %-9s %s\n", stoa_commands[i].name,
                       stoa_commands[i].summary);
    }

    (void) fputs("\nSettings come from FILE, $STOA_CONF and the environment; "
                 "stoa COMMAND --help\nsays more.  Exit codes: 0 ok, 1 "
                 "failed, 2 usage, 3 not reachable.\n",
                 to);
}


static int
cmd_help(cmd_t *c, int argc, char **argv)
{
    const cmd_row_t *row;

    if (argc < 2) {
        stoa_usage(stdout);
        return CMD_OK;
    }

    row = stoa_command_find(argv[1]);

    if (row == NULL) {
        cmd_say(c, "there is no command \"%s\"", argv[1]);
        return CMD_USAGE;
    }

    stoa_command_help(row);
    return CMD_OK;
}


static int
cmd_option_take(cmd_t *c, const cmd_option_t *options, size_t noptions,
                int argc, char **argv, int *i)
{
    const char *name = argv[*i];

    for (size_t n = 0; n < noptions; n++) {
        if (strcmp(options[n].name, name) != 0) {
            continue;
        }

        if (options[n].flag != NULL) {
            *options[n].flag = true;
            return -1;
        }

        if (*i + 1 == argc) {
            cmd_say(c, "%s needs a value", name);
            return CMD_USAGE;
        }

        *options[n].text = argv[++*i];
        return -1;
    }

    cmd_say(c, "there is no option \"%s\"; see stoa %s --help", name,
            c->row->name);
    return CMD_USAGE;
}


int
cmd_options(cmd_t *c, int argc, char **argv, const cmd_option_t *options,
            size_t noptions, const char **rest, size_t max, size_t *nrest)
{
    cmd_option_t all[16];
    bool         help = false;
    int          rc;

    if (noptions + 3 > stoa_nitems(all)) {
        stoa_bug("a command has too many options");
        return CMD_FAILED;
    }

    all[0] = (cmd_option_t){ .name = "-c", .text = &c->conf_path };
    all[1] = (cmd_option_t){ .name = "--help", .flag = &help };
    all[2] = (cmd_option_t){ .name = "-h", .flag = &help };

    for (size_t i = 0; i < noptions; i++) {
        all[i + 3] = options[i];
    }

    *nrest = 0;

    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-' && argv[i][1] != '\0') {
            rc = cmd_option_take(c, all, noptions + 3, argc, argv, &i);

            if (rc >= 0) {
                return rc;
            }

        } else if (*nrest == max) {
            cmd_say(c, "\"%s\" is one argument too many; see stoa %s --help",
                    argv[i], c->row->name);
            return CMD_USAGE;

        } else {
            rest[(*nrest)++] = argv[i];
        }
    }

    if (help) {
        stoa_command_help(c->row);
        return CMD_OK;
    }

    return -1;
}


int
cmd_work(cmd_t *c, int argc, char **argv)
{
    const char      *level = "notice";
    cmd_option_t     options[] = { { "--log", NULL, &level } };
    stoa_log_level_e number;
    size_t           nrest;
    int              rc;

    rc = cmd_options(c, argc, argv, options, 1, NULL, 0, &nrest);

    if (rc >= 0) {
        return rc;
    }

    if (!worker_log_level(level, &number)) {
        cmd_say(c, "there is no log level \"%s\"", level);
        return CMD_USAGE;
    }

    if (!cmd_load(c)) {
        return CMD_FAILED;
    }

    worker_log_init(&c->log, number);
    return worker_supervise(&c->conf, &c->log);
}


static int
stoa_run(cmd_t *c, int argc, char **argv)
{
    int at = 1;

    if (argc == 2 && strcmp(argv[1], "-c") == 0) {
        cmd_say(c, "-c needs a file; see stoa --help");
        return CMD_USAGE;
    }

    if (argc > 2 && strcmp(argv[1], "-c") == 0) {
        c->conf_path = argv[2];
        at = 3;
    }

    if (at >= argc) {
        stoa_usage(stderr);
        return CMD_USAGE;
    }

    if (strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "-h") == 0) {
        stoa_usage(stdout);
        return CMD_OK;
    }

    if (strcmp(argv[at], "--version") == 0) {
        (void) puts("stoa " STOA_VERSION);
        return CMD_OK;
    }

    c->row = stoa_command_find(argv[at]);

    if (c->row == NULL) {
        cmd_say(c, "there is no command \"%s\"; see stoa --help", argv[at]);
        return CMD_USAGE;
    }

    return c->row->run(c, argc - at, argv + at);
}


int
main(int argc, char **argv)
{
    cmd_t c = { 0 };
    int   rc;

    c.log.level = STOA_LOG_ERROR;
    c.log.write = cmd_keep_line;
    c.log.ctx = &c;
    c.conf_path = getenv("STOA_CONF");
    c.mem = stoa_arena_create(65536, MEMORY_MAX);

    if (c.mem == NULL) {
        (void) fputs("stoa: no memory\n", stderr);
        return CMD_FAILED;
    }

    if (c.conf_path != NULL && c.conf_path[0] == '\0') {
        c.conf_path = NULL;
    }

    rc = stoa_run(&c, argc, argv);
    stoa_arena_destroy(c.mem);

    if (fflush(stdout) != 0 && rc == CMD_OK) {
        rc = CMD_FAILED;
    }

    return rc;
}
