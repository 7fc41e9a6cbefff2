/*
 * Settings: one file of KEY=value lines (stoa.conf), the environment wins,
 * KEY_FILE reads a file.  Rows in stoa_conf.def:
 *   STOA_CONF(field, "KEY", "ALIAS or NULL", TYPE, "default", min, max,
 *             flags, "help")
 * TYPE: TEXT, INT, SECONDS (30, 15m, 24h, 7d), BOOL, ENUM (help begins with
 * "a|b|c: ...").  flags: 0 or STOA_CONF_SECRET, STOA_CONF_DB (copied into
 * app.settings, so that SQL sees it under the lower-case key).
 */

#ifndef STOA_CONF_H_INCLUDED
#define STOA_CONF_H_INCLUDED

#include "stoa_mem.h"

#define STOA_CONF_SECRET 1
#define STOA_CONF_DB     2

typedef const char *stoa_conf_TEXT;
typedef const char *stoa_conf_ENUM;
typedef int64_t     stoa_conf_INT;
typedef int64_t     stoa_conf_SECONDS;
typedef bool        stoa_conf_BOOL;

typedef struct {
#define STOA_CONF(field, key, alias, type, def, min, max, flags, help)         \
    stoa_conf_##type field;
#include "stoa_conf.def"
#undef STOA_CONF
} stoa_conf_t;

typedef struct {
    const char *key, *alias, *type, *def, *help;
    int64_t     min, max;
    unsigned    flags;
    size_t      offset; /* in stoa_conf_t */
} stoa_conf_row_t;

extern const stoa_conf_row_t stoa_conf_rows[];
extern const size_t          stoa_conf_nrows;

/*
 * First wins: KEY or KEY_FILE of the environment; KEY, KEY_FILE (relative to
 * the file's folder) or alias in the file; alias of the environment; default.
 * path NULL: environment and defaults only.  Texts live in mem.  On failure
 * *why (in mem) is one sentence with file, line, key, nearest valid name.
 * Also refused: live Stripe keys outside production, provider "test" inside
 * it, stripe without its keys, secrets shorter than 32 bytes (an empty one is
 * "not set", which production refuses), host names for DB_HOST, REDIS_HOST.
 */
bool stoa_conf_load(stoa_conf_t *conf, const char *path, stoa_mem_t *mem,
                    const char **why) STOA_MUSTCHECK;

/* The same, and every mistake is told: one call of say for each.  A setting
   with a mistake has its default. */
bool stoa_conf_load_all(stoa_conf_t *conf, const char *path, stoa_mem_t *mem,
                        void (*say)(void *data, const char *sentence),
                        void *data) STOA_MUSTCHECK;

/* The value of a row as text (secrets too: callers check the flag). */
void stoa_conf_text(const stoa_conf_t *conf, const stoa_conf_row_t *row,
                    char *out, size_t size);

/* libpq keyword string for one of the three roles, in mem.
   role: "edge", "worker", "owner". */
const char *stoa_conf_conninfo(const stoa_conf_t *conf, const char *role,
                               stoa_mem_t *mem);

#endif /* STOA_CONF_H_INCLUDED */
