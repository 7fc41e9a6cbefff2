/*
 * stoa user, and stoa token: the first admin, the last one who lost his
 * second factor, and a token for scripts.  The password is read from standard
 * input only, so that it stands in no list of processes and no shell history.
 */

#include "cmd.h"

#include <stdio.h>
#include <unistd.h>

#include "../shared/stoa_common.h"
#include "../shared/stoa_hash.h"
#include "../shared/stoa_id.h"
#include "../shared/stoa_scalar.h"
#include "../shared/stoa_str.h"
#include "../shared/stoa_time.h"

/* as the rows of /auth have it */
#define PASSWORD_MIN 8
#define PASSWORD_MAX 128

typedef struct {
    const char *email;
    const char *role;
    const char *first;
    const char *last;
    const char *hash;
    bool        stdin_password;
} cmd_user_t;


/* One line, and nothing behind it; its end does not belong to it. */
static bool
cmd_user_password(cmd_t *c, const cmd_user_t *u, char *out, size_t size,
                  stoa_str_t *password)
{
    size_t  got = 0, points = 0;
    ssize_t n;

    while (got < size) {
        n = read(STDIN_FILENO, out + got, size - got);

        if (n < 0) {
            cmd_say(c, "cannot read standard input");
            return false;
        }

        if (n == 0) {
            break;
        }

        got += (size_t) n;
    }

    while (got != 0 && (out[got - 1] == '\n' || out[got - 1] == '\r')) {
        got--;
    }

    *password = (stoa_str_t){ got, (unsigned char *) out };

    if (memchr(out, '\n', got) != NULL) {
        cmd_say(c, "the password is one line, standard input has more");
        return false;
    }

    if (!stoa_str_utf8(*password, &points) || points < PASSWORD_MIN
        || points > PASSWORD_MAX || memchr(out, 0, got) != NULL)
    {
        cmd_say(c, "the password must have %d to %d characters of UTF-8",
                PASSWORD_MIN, PASSWORD_MAX);
        return false;
    }

    if (stoa_common_password(*password)
        || stoa_str_ieq(*password, stoa_str_z(u->email)))
    {
        cmd_say(c, "the password is one of the most common ones, or the "
                   "account's own address");
        return false;
    }

    return true;
}


/* A hash of another system's; it is of no use to those who see it. */
static bool
cmd_user_import(cmd_t *c, stoa_str_t hash, char out[STOA_HASH_MAX])
{
    if (hash.len >= STOA_HASH_MAX || stoa_hash_kind(hash) == STOA_HASH_UNKNOWN)
    {
        cmd_say(c, "the hash must be bcrypt ($2a$, $2b$ or $2y$, of cost 4 to "
                   "14) or $argon2id$");
        return false;
    }

    memcpy(out, hash.data, hash.len);
    out[hash.len] = '\0';

    return true;
}


static bool
cmd_user_hash(cmd_t *c, const cmd_user_t *u, char out[STOA_HASH_MAX])
{
    stoa_hash_cost_t cost = {
        .memory_kib = (uint32_t) c->conf.argon2_memory_kib,
        .passes = (uint32_t) c->conf.argon2_passes,
    };
    char       text[STOA_PASSWORD_MAX + 4];
    stoa_str_t password;
    bool       ok;

    if (u->hash != NULL) {
        return cmd_user_import(c, stoa_str_z(u->hash), out);
    }

    if (!cmd_user_password(c, u, text, sizeof(text), &password)) {
        stoa_wipe(text, sizeof(text));
        return false;
    }

    ok = stoa_hash_init() && stoa_hash_make(&cost, password, out);
    stoa_wipe(text, sizeof(text));

    if (!ok) {
        cmd_say(c, "the password could not be hashed");
    }

    return ok;
}


static int
cmd_user_add(cmd_t *c, const cmd_user_t *u)
{
    char        hash[STOA_HASH_MAX];
    const char *values[5] = { u->email, hash, u->role, u->first, u->last };
    cmd_db_t   *db;
    stoa_pg_result_t *res;
    const char       *why, *sqlstate;
    int               rc;

    if (!cmd_user_hash(c, u, hash)) {
        return CMD_FAILED;
    }

    db = cmd_db_open(c, "owner");

    if (db == NULL) {
        return CMD_UNREACHED;
    }

    rc = cmd_db_query(db,
                      "select app.user_add($1::text, $2::text, $3::text, "
                      "$4::text, $5::text)",
                      5, values, &res, &sqlstate, &why);

    if (rc == CMD_OK) {
        (void) printf("%s\n", (const char *) stoa_pg_value(res, 0, 0).data);

    } else if (strcmp(sqlstate, "23505") == 0) {
        cmd_say(c, "there is an account \"%s\" already", u->email);

    } else {
        cmd_say(c, "cannot add the account: %s", why);
    }

    stoa_pg_result_free(res);
    cmd_db_close(db);
    return rc;
}


static int
cmd_user_mfa_off(cmd_t *c, const char *email)
{
    const char       *values[1] = { email };
    cmd_db_t         *db = cmd_db_open(c, "owner");
    stoa_pg_result_t *res;
    const char       *why;
    int               rc;

    if (db == NULL) {
        return CMD_UNREACHED;
    }

    rc = cmd_db_query(db, "select app.user_mfa_off($1::text)", 1, values, &res,
                      NULL, &why);

    if (rc != CMD_OK) {
        cmd_say(c, "cannot take the second factor away: %s", why);

    } else if (!stoa_str_eq_z(stoa_pg_value(res, 0, 0), "t")) {
        cmd_say(c, "there is no account \"%s\" with a second factor", email);
        rc = CMD_FAILED;
    }

    stoa_pg_result_free(res);
    cmd_db_close(db);
    return rc;
}


int
cmd_user(cmd_t *c, int argc, char **argv)
{
    cmd_user_t   u = { .last = "Account" };
    cmd_option_t options[] = {
        { "--role", NULL, &u.role },
        { "--first", NULL, &u.first },
        { "--last", NULL, &u.last },
        { "--password-stdin", &u.stdin_password, NULL },
        { "--password-hash", NULL, &u.hash },
    };
    const char *rest[2] = { NULL, NULL };
    size_t      nrest;
    int         rc;

    rc = cmd_options(c, argc, argv, options, stoa_nitems(options), rest, 2,
                     &nrest);

    if (rc >= 0) {
        return rc;
    }

    if (nrest == 2 && strcmp(rest[0], "mfa-off") == 0 && u.role == NULL
        && !u.stdin_password && u.hash == NULL)
    {
        return cmd_load(c) ? cmd_user_mfa_off(c, rest[1]) : CMD_FAILED;
    }

    if (nrest != 2 || strcmp(rest[0], "add") != 0 || u.role == NULL
        || u.stdin_password == (u.hash != NULL))
    {
        cmd_say(c, "say: stoa user add EMAIL --role ROLE --password-stdin, "
                   "or --password-hash HASH; or stoa user mfa-off EMAIL");
        return CMD_USAGE;
    }

    if (strcmp(u.role, "attendee") != 0
        && stoa_role_by_name(stoa_str_z(u.role)) == 0)
    {
        cmd_say(c, "there is no role \"%s\"", u.role);
        return CMD_USAGE;
    }

    u.email = rest[1];

    if (!stoa_scalar_is_email(stoa_str_z(u.email))) {
        cmd_say(c, "\"%s\" is not an address of mail", u.email);
        return CMD_USAGE;
    }

    if (u.first == NULL) {
        u.first = u.role;
    }

    return cmd_load(c) ? cmd_user_add(c, &u) : CMD_FAILED;
}


/* ---- token ---- */

stoa_jwt_keys_t *
cmd_keys(cmd_t *c)
{
    stoa_jwt_keys_t *keys;
    const char      *setting, *why;

    if (c->conf.jwt_secret[0] == '\0') {
        cmd_say(c, "JWT_SECRET is not set");
        return NULL;
    }

    keys = stoa_jwt_keys_conf(&c->conf, &setting, &why);

    if (keys == NULL) {
        cmd_say(c, "JWT_ALG is %s, and %s is not usable: %s", c->conf.jwt_alg,
                setting, why);
    }

    return keys;
}


static int
cmd_token_print(cmd_t *c, const stoa_pg_result_t *res, bool mfa)
{
    stoa_jwt_rules_t rules = { c->conf.jwt_issuer, c->conf.jwt_audience, 60,
                               0 };
    stoa_claims_t    claims = { 0 };
    stoa_jwt_keys_t *keys;
    stoa_id_t        ids;
    stoa_buf_t       b;
    stoa_err_e       err;
    int64_t          epoch = 0;

    stoa_id_init(&ids);

    if (!stoa_jwt_extra(c->conf.jwt_extra_claims, &rules.extra)
        || !stoa_uuid_parse(stoa_pg_value(res, 0, 0), &claims.sub)
        || !stoa_str_int(stoa_pg_value(res, 0, 2), 0, UINT32_MAX, &epoch)
        || !stoa_id_next(&ids, &claims.sid) || !stoa_id_next(&ids, &claims.jti))
    {
        cmd_say(c, "the account's row is not as expected");
        return CMD_FAILED;
    }

    claims.roles = stoa_roles_parse(stoa_pg_value(res, 0, 1));
    claims.epoch = (uint32_t) epoch;
    claims.iat = stoa_time_ms() / 1000;
    claims.exp = claims.iat + c->conf.access_ttl;

    if (mfa) {
        claims.auth_time = claims.iat;
        claims.amr = STOA_AMR_MFA;
        claims.mfa = true;
    }

    keys = cmd_keys(c);

    if (keys == NULL) {
        return CMD_FAILED;
    }

    stoa_buf_init(&b, c->mem, 1024, STOA_JWT_MAX);
    err = stoa_jwt_sign(keys, &rules, &claims, stoa_pg_value(res, 0, 4), &b);
    stoa_jwt_keys_destroy(keys);

    if (err != STOA_OK || b.failed) {
        cmd_say(c, "the token could not be signed");
        return CMD_FAILED;
    }

    (void) printf("%.*s\n", (int) b.len, (const char *) b.data);
    return CMD_OK;
}


int
cmd_token(cmd_t *c, int argc, char **argv)
{
    const char  *values[2] = { NULL, NULL };
    bool         mfa = false;
    cmd_option_t options[] = {
        { "--user", NULL, &values[0] },
        { "--email", NULL, &values[1] },
        { "--mfa", &mfa, NULL },
    };
    cmd_db_t         *db;
    stoa_pg_result_t *res;
    stoa_uuid_t       id;
    const char       *why;
    size_t            nrest;
    int               rc;

    rc = cmd_options(c, argc, argv, options, stoa_nitems(options), NULL, 0,
                     &nrest);

    if (rc >= 0) {
        return rc;
    }

    if ((values[0] == NULL) == (values[1] == NULL)) {
        cmd_say(c, "say --user ID or --email EMAIL");
        return CMD_USAGE;
    }

    if (values[0] != NULL && !stoa_uuid_parse(stoa_str_z(values[0]), &id)) {
        cmd_say(c, "\"%s\" is not the id of an account", values[0]);
        return CMD_USAGE;
    }

    if (!cmd_load(c)) {
        return CMD_FAILED;
    }

    db = cmd_db_open(c, "owner");

    if (db == NULL) {
        return CMD_UNREACHED;
    }

    rc = cmd_db_query(db,
                      "select id, roles, epoch, status, email_now from "
                      "app.user_for_token($1::uuid, $2::text)",
                      2, values, &res, NULL, &why);

    if (rc != CMD_OK) {
        cmd_say(c, "cannot look the account up: %s", why);

    } else if (stoa_pg_rows(res) == 0) {
        cmd_say(c, "there is no such account");
        rc = CMD_FAILED;

    } else {
        rc = cmd_token_print(c, res, mfa);
    }

    stoa_pg_result_free(res);
    cmd_db_close(db);
    return rc;
}
