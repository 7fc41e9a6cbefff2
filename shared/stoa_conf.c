/*
 * Settings: rows of stoa_conf.def filled from one file of KEY=value lines,
 * the environment and the defaults.  Order, first wins: KEY or KEY_FILE of
 * the environment; KEY, KEY_FILE or alias of the file; alias of the
 * environment; default.  (An alias such as PGHOST that happens to be set for
 * another program must not overrule a file that names the setting.)
 * Every mistake is one sentence with file, line and the nearest valid name;
 * reading goes on behind it, so that all of them can be told at once.
 * Texts live in the caller's memory; nothing is kept here.
 */

#include "stoa_conf.h"
#include "stoa_buf.h"
#include "stoa_oidc.h"
#include "stoa_seal.h"
#include "stoa_str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define STOA_CONF_FILE_MAX   1048576
#define STOA_CONF_SECRET_MIN 32

const stoa_conf_row_t stoa_conf_rows[] = {
#define STOA_CONF(field, key, alias, type, def, min, max, flags, help)         \
    { key, alias, #type,                                                       \
      def, help,  min,                                                         \
      max, flags, offsetof(stoa_conf_t, field) },
#include "stoa_conf.def"
#undef STOA_CONF
};

#define STOA_CONF_ROWS stoa_nitems(stoa_conf_rows)

const size_t stoa_conf_nrows = STOA_CONF_ROWS;

typedef struct {
    const char *value; /* NULL: the file does not name the setting */
    int         line;
} stoa_conf_found_t;

typedef struct {
    stoa_mem_t *mem;
    const char *path; /* of the file, for sentences; may be NULL */
    const char *why;  /* the first mistake */
    void (*say)(void *data, const char *sentence); /* may be NULL */
    void             *data;
    bool              bad[STOA_CONF_ROWS]; /* its mistake was told */
    stoa_conf_found_t found[STOA_CONF_ROWS];
} stoa_conf_load_t;


static bool stoa_conf_fail(stoa_conf_load_t *load, const char *fmt, ...)
    STOA_PRINTF(2, 3);

static bool
stoa_conf_fail(stoa_conf_load_t *load, const char *fmt, ...)
{
    const char *sentence;
    char        text[768];
    va_list     args;

    va_start(args, fmt);
    (void) vsnprintf(text, sizeof(text), fmt, args); /* cut is fine */
    va_end(args);

    sentence = stoa_strdup_z(load->mem, stoa_str_z(text));

    if (sentence == NULL) {
        sentence = "no memory";
    }

    if (load->why == NULL) {
        load->why = sentence;
    }

    if (load->say != NULL) {
        load->say(load->data, sentence);
    }

    return false;
}


/* "path:line: " or "environment: ", for the front of a sentence. */
static const char *
stoa_conf_where(stoa_conf_load_t *load, int line, char *out, size_t size)
{
    if (line == 0) {
        (void) snprintf(out, size, "environment");

    } else {
        (void) snprintf(out, size, "%s:%d", load->path, line);
    }

    return out;
}


/* The whole file with a NUL behind it. */
static char *
stoa_conf_read(stoa_mem_t *mem, const char *path, const char **reason)
{
    struct stat st;
    char       *text;
    size_t      len = 0, size;
    ssize_t     n;
    int         fd;

    *reason = NULL;
    fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd == -1 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)
        || st.st_size > STOA_CONF_FILE_MAX)
    {
        *reason = fd == -1 ? strerrordesc_np(errno) : "no file of that kind";

        if (fd != -1) {
            (void) close(fd); /* nothing was done with it */
        }

        return NULL;
    }

    size = (size_t) st.st_size;
    text = stoa_alloc(mem, size + 1);

    if (text == NULL) {
        *reason = "no memory";
    }

    while (*reason == NULL && len < size) {
        n = read(fd, text + len, size - len);

        if (n < 0 && errno != EINTR) {
            *reason = strerrordesc_np(errno);

        } else if (n == 0) {
            break; /* it became shorter */
        }

        len += n > 0 ? (size_t) n : 0;
    }

    (void) close(fd); /* it was only read */

    if (*reason != NULL) {
        return NULL;
    }

    text[len] = '\0';

    if (strlen(text) != len) {
        *reason = "it holds a NUL byte";
        return NULL;
    }

    return text;
}


/* The content of a file that KEY_FILE names; relative to base's folder. */
static const char *
stoa_conf_indirect(stoa_conf_load_t *load, const char *base, const char *name,
                   const char *key)
{
    const char *slash, *reason;
    char       *text;
    stoa_buf_t  b;
    size_t      len;

    slash = base != NULL && name[0] != '/' ? strrchr(base, '/') : NULL;

    stoa_buf_init(&b, load->mem, 256, 4096);

    if (slash != NULL) {
        stoa_buf_put(&b, base, (size_t) (slash - base + 1));
    }

    stoa_buf_z(&b, name);
    stoa_buf_nul(&b);

    if (b.failed) {
        (void) stoa_conf_fail(load, "%s: the path is too long", key);
        return NULL;
    }

    text = stoa_conf_read(load->mem, (char *) b.data, &reason);

    if (text == NULL) {
        (void) stoa_conf_fail(load, "%s: \"%s\" cannot be read: %s", key,
                              (char *) b.data, reason);
        return NULL;
    }

    len = strlen(text);

    if (len != 0 && text[len - 1] == '\n') {
        len--;

        if (len != 0 && text[len - 1] == '\r') {
            len--;
        }

        text[len] = '\0';
    }

    return text;
}


/* The row whose key or alias is name; *file: it was KEY_FILE. */
static size_t
stoa_conf_find(stoa_str_t name, bool *file)
{
    const stoa_conf_row_t *row;
    stoa_str_t             front;
    size_t                 i;

    *file = false;

    for (i = 0; i < STOA_CONF_ROWS; i++) {
        row = &stoa_conf_rows[i];

        if (stoa_str_eq_z(name, row->key)
            || (row->alias != NULL && stoa_str_eq_z(name, row->alias)))
        {
            return i;
        }
    }

    if (name.len > 5 && memcmp(name.data + name.len - 5, "_FILE", 5) == 0) {
        front = name;
        front.len -= 5;
        *file = true;

        for (i = 0; i < STOA_CONF_ROWS; i++) {
            if (stoa_str_eq_z(front, stoa_conf_rows[i].key)) {
                return i;
            }
        }
    }

    return STOA_CONF_ROWS;
}


static const char *
stoa_conf_nearest(stoa_str_t name)
{
    const char *keys[STOA_CONF_ROWS];
    size_t      i;

    for (i = 0; i < STOA_CONF_ROWS; i++) {
        keys[i] = stoa_conf_rows[i].key;
    }

    return stoa_str_nearest(name, keys, STOA_CONF_ROWS);
}


static stoa_str_t
stoa_conf_trim(stoa_str_t s)
{
    while (s.len != 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s.data++;
        s.len--;
    }

    while (s.len != 0
           && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'
               || s.data[s.len - 1] == '\r'))
    {
        s.len--;
    }

    return s;
}


static bool
stoa_conf_line(stoa_conf_load_t *load, stoa_str_t line, int number)
{
    const char *near, *value;
    stoa_str_t  name;
    char       *equals;
    size_t      i;
    bool        file;

    line = stoa_conf_trim(line);

    if (line.len == 0 || line.data[0] == '#') {
        return true;
    }

    equals = memchr(line.data, '=', line.len);

    if (equals == NULL) {
        return stoa_conf_fail(load, "%s:%d: a line is KEY=value", load->path,
                              number);
    }

    name.data = line.data;
    name.len = (size_t) (equals - (char *) line.data);
    line.data += name.len + 1;
    line.len -= name.len + 1;
    name = stoa_conf_trim(name);
    line = stoa_conf_trim(line);

    if (line.len >= 2 && (line.data[0] == '"' || line.data[0] == '\'')
        && line.data[line.len - 1] == line.data[0])
    {
        line.data++;
        line.len -= 2;
    }

    i = stoa_conf_find(name, &file);

    if (i == STOA_CONF_ROWS) {
        near = stoa_conf_nearest(name);

        return stoa_conf_fail(load, "%s:%d: \"%.*s\" is no setting%s%s%s",
                              load->path, number,
                              name.len > 60 ? 60 : (int) name.len, name.data,
                              near != NULL ? "; did you mean \"" : "",
                              near != NULL ? near : "",
                              near != NULL ? "\"?" : "");
    }

    if (load->found[i].value != NULL) {
        return stoa_conf_fail(load, "%s:%d: %s is set already in line %d",
                              load->path, number, stoa_conf_rows[i].key,
                              load->found[i].line);
    }

    value = stoa_strdup_z(load->mem, line);

    if (value == NULL) {
        return stoa_conf_fail(load, "no memory");
    }

    if (file) {
        value = stoa_conf_indirect(load, load->path, value,
                                   stoa_conf_rows[i].key);
        if (value == NULL) {
            load->bad[i] = true;
            return false;
        }
    }

    load->found[i].value = value;
    load->found[i].line = number;

    return true;
}


static bool
stoa_conf_file(stoa_conf_load_t *load)
{
    const char *reason;
    char       *text, *end;
    stoa_str_t  line;
    int         number = 0;

    text = stoa_conf_read(load->mem, load->path, &reason);

    if (text == NULL) {
        return stoa_conf_fail(load, "\"%s\" cannot be read: %s", load->path,
                              reason);
    }

    while (*text != '\0') {
        end = strchr(text, '\n');

        line.data = (unsigned char *) text;
        line.len = end != NULL ? (size_t) (end - text) : strlen(text);

        (void) stoa_conf_line(load, line, ++number); /* kept in .why */
        text += line.len + (end != NULL ? 1 : 0);
    }

    return true;
}


/* "90", "90s", "15m", "24h", "7d". */
static bool
stoa_conf_seconds(stoa_str_t s, const stoa_conf_row_t *row, int64_t *out)
{
    int64_t unit = 1;

    if (s.len == 0) {
        return false;
    }

    switch (s.data[s.len - 1]) {
    case 's':
        s.len--;
        break;
    case 'm':
        unit = 60;
        s.len--;
        break;
    case 'h':
        unit = 3600;
        s.len--;
        break;
    case 'd':
        unit = 86400;
        s.len--;
        break;
    default:
        break;
    }

    if (!stoa_str_int(s, 0, 1000000000, out)) {
        return false;
    }

    *out *= unit;

    return *out >= row->min && *out <= row->max;
}


static bool
stoa_conf_bool(stoa_str_t s, bool *out)
{
    static const char *const yes[] = { "on", "yes", "true", "1" };
    static const char *const no[] = { "off", "no", "false", "0" };
    size_t                   i;

    for (i = 0; i < stoa_nitems(yes); i++) {
        if (stoa_str_ieq_z(s, yes[i])) {
            *out = true;
            return true;
        }

        if (stoa_str_ieq_z(s, no[i])) {
            *out = false;
            return true;
        }
    }

    return false;
}


/* Is value one of "a|b|c: ..."? */
static bool
stoa_conf_enum(const char *help, stoa_str_t value)
{
    size_t n;

    for (/* void */; *help != '\0'; help += n + 1) {
        n = strcspn(help, "|:");

        if (n == value.len && memcmp(help, value.data, n) == 0) {
            return true;
        }

        if (help[n] != '|') {
            return false;
        }
    }

    return false;
}


static bool
stoa_conf_set(stoa_conf_load_t *load, stoa_conf_t *conf,
              const stoa_conf_row_t *row, const char *value, const char *where)
{
    stoa_str_t s = stoa_str_z(value);
    char      *slot = (char *) conf + row->offset;
    size_t     points;

    if (strcmp(row->type, "INT") == 0) {
        if (!stoa_str_int(s, row->min, row->max, (int64_t *) (void *) slot)) {
            return stoa_conf_fail(load,
                                  "%s: %s must be a number from %lld to %lld",
                                  where, row->key, (long long) row->min,
                                  (long long) row->max);
        }

        return true;
    }

    if (strcmp(row->type, "SECONDS") == 0) {
        if (!stoa_conf_seconds(s, row, (int64_t *) (void *) slot)) {
            return stoa_conf_fail(load,
                                  "%s: %s must be a time such as 15m, from "
                                  "%lld to %lld seconds",
                                  where, row->key, (long long) row->min,
                                  (long long) row->max);
        }

        return true;
    }

    if (strcmp(row->type, "BOOL") == 0) {
        if (!stoa_conf_bool(s, (bool *) slot)) {
            return stoa_conf_fail(load, "%s: %s must be on or off", where,
                                  row->key);
        }

        return true;
    }

    if (strcmp(row->type, "ENUM") == 0) {
        if (!stoa_conf_enum(row->help, s)) {
            return stoa_conf_fail(load, "%s: %s must be one of %.*s", where,
                                  row->key, (int) strcspn(row->help, ":"),
                                  row->help);
        }

    } else if (!stoa_str_utf8(s, &points) || (int64_t) points < row->min
               || (int64_t) points > row->max)
    {
        return stoa_conf_fail(load, "%s: %s must have %lld to %lld characters",
                              where, row->key, (long long) row->min,
                              (long long) row->max);
    }

    memcpy(slot, &value, sizeof(value));

    return true;
}


static bool
stoa_conf_row(stoa_conf_load_t *load, stoa_conf_t *conf, size_t i)
{
    const stoa_conf_row_t *row = &stoa_conf_rows[i];
    const char            *value;
    char                   name[64], where[512];
    int                    line = 0;

    value = getenv(row->key);

    if (value == NULL) {
        (void) snprintf(name, sizeof(name), "%s_FILE", row->key);
        value = getenv(name);

        if (value != NULL) {
            value = stoa_conf_indirect(load, NULL, value, row->key);
            if (value == NULL) {
                return false;
            }
        }
    }

    if (value == NULL && load->found[i].value != NULL) {
        value = load->found[i].value;
        line = load->found[i].line;
    }

    if (value == NULL && row->alias != NULL) {
        value = getenv(row->alias);
    }

    if (value == NULL) {
        return stoa_conf_set(load, conf, row, row->def, "default");
    }

    /* the environment may change under us, the file's text may not */
    if (line == 0) {
        value = stoa_strdup_z(load->mem, stoa_str_z(value));
        if (value == NULL) {
            return stoa_conf_fail(load, "no memory");
        }
    }

    return stoa_conf_set(load, conf, row, value,
                         stoa_conf_where(load, line, where, sizeof(where)));
}


/* Was a mistake of this setting, or of one that begins so, told already?
   It has its default then, which a second sentence must not be about. */
static bool
stoa_conf_bad(const stoa_conf_load_t *load, const char *key)
{
    size_t i;

    for (i = 0; i < STOA_CONF_ROWS; i++) {
        if (load->bad[i]
            && strncmp(stoa_conf_rows[i].key, key, strlen(key)) == 0) {
            return true;
        }
    }

    return false;
}


static bool
stoa_conf_begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}


/* A numeric address, or a path when socket is set. */
static bool
stoa_conf_address(const char *text, bool socket)
{
    unsigned char room[sizeof(struct in6_addr)];

    return (socket && text[0] == '/') || inet_pton(AF_INET, text, room) == 1
        || inet_pton(AF_INET6, text, room) == 1;
}


static bool
stoa_conf_origin(const char *text)
{
    size_t len = strlen(text);

    return (stoa_conf_begins(text, "http://")
            || stoa_conf_begins(text, "https://"))
        && text[len - 1] != '/' && strpbrk(text, " \"'<>?#") == NULL;
}


static void
stoa_conf_check_secrets(stoa_conf_load_t *load, const stoa_conf_t *conf)
{
    unsigned char seed[32];
    size_t        len;

    len = strlen(conf->jwt_secret);

    if (len != 0 && len < STOA_CONF_SECRET_MIN) {
        (void) stoa_conf_fail(load, "JWT_SECRET is shorter than %d bytes",
                              STOA_CONF_SECRET_MIN);
    }

    len = strlen(conf->test_webhook_secret);

    if (len != 0 && len < STOA_CONF_SECRET_MIN) {
        (void) stoa_conf_fail(load,
                              "TEST_WEBHOOK_SECRET is shorter than %d bytes",
                              STOA_CONF_SECRET_MIN);
    }

    len = strlen(conf->ticket_seed);

    if (len != 0
        && stoa_hex_decode(seed, sizeof(seed), stoa_str_z(conf->ticket_seed))
               != 32)
    {
        (void) stoa_conf_fail(load, "TICKET_SEED must be 64 hex digits");
    }

    if (!stoa_seal_key_ok(conf->mfa_key)) {
        (void) stoa_conf_fail(load, "MFA_KEY must be 64 hex digits, or two "
                                    "such with a comma");
    }

    explicit_bzero(seed, sizeof(seed));

    if (strcmp(conf->environment, "production") == 0
        && !stoa_conf_bad(load, "JWT_SECRET")
        && !stoa_conf_bad(load, "TICKET_SEED")
        && (conf->jwt_secret[0] == '\0' || len == 0))
    {
        (void) stoa_conf_fail(load, "production needs JWT_SECRET and "
                                    "TICKET_SEED");
    }
}


static void
stoa_conf_check_provider(stoa_conf_load_t *load, const stoa_conf_t *conf)
{
    bool production = strcmp(conf->environment, "production") == 0;
    bool stripe = strcmp(conf->payment_provider, "stripe") == 0;

    if (stoa_conf_bad(load, "ENVIRONMENT")
        || stoa_conf_bad(load, "PAYMENT_PROVIDER")
        || stoa_conf_bad(load, "STRIPE_"))
    {
        return;
    }

    if (production && !stripe) {
        (void) stoa_conf_fail(load, "PAYMENT_PROVIDER \"test\" is refused when "
                                    "ENVIRONMENT is production");
    }

    if (!production
        && (stoa_conf_begins(conf->stripe_secret_key, "sk_live_")
            || stoa_conf_begins(conf->stripe_secret_key, "rk_live_")
            || stoa_conf_begins(conf->stripe_publishable_key, "pk_live_")))
    {
        (void) stoa_conf_fail(load, "a live Stripe key is refused unless "
                                    "ENVIRONMENT is production");
    }

    if (stripe
        && (conf->stripe_secret_key[0] == '\0'
            || conf->stripe_webhook_secret[0] == '\0'))
    {
        (void) stoa_conf_fail(load, "PAYMENT_PROVIDER \"stripe\" needs "
                                    "STRIPE_SECRET_KEY and "
                                    "STRIPE_WEBHOOK_SECRET");
    }
}


static void
stoa_conf_check_issuers(stoa_conf_load_t *load, const stoa_conf_t *conf)
{
    const char *why;
    uint32_t    extra;

    if (!stoa_jwt_extra(conf->jwt_extra_claims, &extra)) {
        (void) stoa_conf_fail(load, "JWT_EXTRA_CLAIMS may name email, role and "
                                    "user_id, with spaces");
    }

    if (strcmp(conf->issuer_network, "insecure") == 0
        && strcmp(conf->environment, "production") == 0)
    {
        (void) stoa_conf_fail(load, "ISSUER_NETWORK \"insecure\" is refused "
                                    "when ENVIRONMENT is production");
    }

    if (!stoa_conf_bad(load, "JWT_ISSUERS")
        && !stoa_conf_bad(load, "ISSUER_NETWORK")
        && !stoa_conf_bad(load, "GOOGLE_") && !stoa_conf_bad(load, "OIDC_")
        && stoa_oidc_conf(conf, load->mem, &why) == NULL)
    {
        (void) stoa_conf_fail(load, "%s", why);
    }
}


/* What two settings say together. */
static void
stoa_conf_check(stoa_conf_load_t *load, const stoa_conf_t *conf)
{
    if (!stoa_conf_origin(conf->public_url)) {
        (void) stoa_conf_fail(load, "PUBLIC_URL must be http(s)://host[:port] "
                                    "without a last slash");
    }

    if (conf->edge_url[0] != '\0' && !stoa_conf_origin(conf->edge_url)) {
        (void) stoa_conf_fail(load, "EDGE_URL must be http(s)://host[:port] "
                                    "without a last slash");
    }

    if (!stoa_conf_address(conf->db_host, true)) {
        (void) stoa_conf_fail(load,
                              "DB_HOST must be an address or a socket "
                              "folder, not the name \"%s\"",
                              conf->db_host);
    }

    if (stoa_conf_begins(conf->redis_host, "rediss:")) {
        (void) stoa_conf_fail(load,
                              "REDIS_HOST cannot be \"%s\": TLS is not spoken "
                              "to Redis; give the path of its socket, or the "
                              "address of a stunnel on this machine",
                              conf->redis_host);

    } else if (!stoa_conf_address(conf->redis_host, true)) {
        (void) stoa_conf_fail(load,
                              "REDIS_HOST must be an address or the "
                              "path of a socket, not the name \"%s\"",
                              conf->redis_host);
    }

    if (strpbrk(conf->redis_prefix, "{}* ") != NULL) {
        (void) stoa_conf_fail(load, "REDIS_PREFIX must not hold {, }, * or a "
                                    "space");
    }

    if (strcmp(conf->smtp_tls, "off") == 0 && conf->smtp_host[0] != '\0'
        && !stoa_conf_begins(conf->smtp_host, "127.")
        && strcmp(conf->smtp_host, "::1") != 0
        && strcmp(conf->smtp_host, "localhost") != 0)
    {
        (void) stoa_conf_fail(load, "SMTP_TLS \"off\" is only for addresses of "
                                    "this machine");
    }

    stoa_conf_check_secrets(load, conf);
    stoa_conf_check_provider(load, conf);
    stoa_conf_check_issuers(load, conf);
}


static bool
stoa_conf_run(stoa_conf_load_t *load, stoa_conf_t *conf)
{
    const stoa_conf_row_t *row;
    size_t                 i;

    memset(conf, 0, sizeof(stoa_conf_t));

    if (load->path != NULL && !stoa_conf_file(load)) {
        return false;
    }

    for (i = 0; i < STOA_CONF_ROWS; i++) {
        row = &stoa_conf_rows[i];

        if (!load->bad[i] && !stoa_conf_row(load, conf, i)) {
            load->bad[i] = true;
        }

        if (load->bad[i] && !stoa_conf_set(load, conf, row, row->def, row->key))
        {
            return false;
        }
    }

    stoa_conf_check(load, conf);

    return load->why == NULL;
}


bool
stoa_conf_load(stoa_conf_t *conf, const char *path, stoa_mem_t *mem,
               const char **why)
{
    stoa_conf_load_t load = { .mem = mem, .path = path };
    bool             good = stoa_conf_run(&load, conf);

    *why = load.why;

    return good;
}


bool
stoa_conf_load_all(stoa_conf_t *conf, const char *path, stoa_mem_t *mem,
                   void (*say)(void *data, const char *sentence), void *data)
{
    stoa_conf_load_t load = {
        .mem = mem, .path = path, .say = say, .data = data
    };

    return stoa_conf_run(&load, conf);
}


void
stoa_conf_text(const stoa_conf_t *conf, const stoa_conf_row_t *row, char *out,
               size_t size)
{
    const char *slot = (const char *) conf + row->offset;
    const char *text;
    int64_t     number;
    bool        flag;

    if (strcmp(row->type, "INT") == 0 || strcmp(row->type, "SECONDS") == 0) {
        memcpy(&number, slot, sizeof(number));
        (void) snprintf(out, size, "%lld", (long long) number);

    } else if (strcmp(row->type, "BOOL") == 0) {
        memcpy(&flag, slot, sizeof(flag));
        (void) snprintf(out, size, "%s", flag ? "on" : "off");

    } else {
        memcpy(&text, slot, sizeof(text));
        (void) snprintf(out, size, "%s", text);
    }
}


/* " key='value'" with libpq's escapes. */
static void
stoa_conf_keyword(stoa_buf_t *b, const char *key, const char *value)
{
    if (value[0] == '\0') {
        return;
    }

    stoa_buf_printf(b, "%s%s='", b->len != 0 ? " " : "", key);

    for (/* void */; *value != '\0'; value++) {
        if (*value == '\'' || *value == '\\') {
            stoa_buf_char(b, '\\');
        }

        stoa_buf_char(b, *value);
    }

    stoa_buf_char(b, '\'');
}


const char *
stoa_conf_conninfo(const stoa_conf_t *conf, const char *role, stoa_mem_t *mem)
{
    const char *user, *password;
    char        port[24], name[32];
    stoa_buf_t  b;

    if (strcmp(role, "owner") == 0) {
        user = conf->db_owner_user;
        password = conf->db_owner_password;

    } else if (strcmp(role, "worker") == 0) {
        user = conf->db_worker_user;
        password = conf->db_worker_password;

    } else {
        user = conf->db_user;
        password = conf->db_password;
    }

    (void) snprintf(port, sizeof(port), "%lld", (long long) conf->db_port);
    (void) snprintf(name, sizeof(name), "stoa %s", role);

    stoa_buf_init(&b, mem, 512, 8192);
    stoa_conf_keyword(&b, conf->db_host[0] == '/' ? "host" : "hostaddr",
                      conf->db_host);
    stoa_conf_keyword(&b, "port", port);
    stoa_conf_keyword(&b, "dbname", conf->db_name);
    stoa_conf_keyword(&b, "user", user);
    stoa_conf_keyword(&b, "password", password);
    stoa_conf_keyword(&b, "sslmode", conf->db_sslmode);
    stoa_conf_keyword(&b, "client_encoding", "UTF8");
    stoa_conf_keyword(&b, "application_name", name);
    stoa_buf_nul(&b);

    return b.failed ? NULL : (const char *) b.data;
}
