/*
 * stoa key: API keys of any account, for the operator.  The text of a new key
 * goes to standard output and nowhere else.
 */

#include "cmd.h"

#include <stdio.h>

#include "../shared/api/stoa_api.h"
#include "../shared/stoa_hash.h"
#include "../shared/stoa_hmac.h"
#include "../shared/stoa_key.h"
#include "../shared/stoa_str.h"

#define DAYS_MAX 365

typedef struct {
    const char *name;
    const char *scopes;
    const char *days;
} cmd_key_t;


/* "a,b" as an array of PostgreSQL; a scope has nothing to quote. */
static bool
cmd_key_scopes(cmd_t *c, const char *text, stoa_buf_t *out)
{
    const stoa_api_t *api = stoa_api(c->mem);
    const char       *p, *end;
    stoa_str_t        one;

    stoa_buf_init(out, c->mem, 256, 4096);
    stoa_buf_char(out, '{');

    for (p = text; api != NULL; p = end + 1) {
        end = strchr(p, ',');
        end = end != NULL ? end : p + strlen(p);
        one.data = (unsigned char *) (uintptr_t) p;
        one.len = (size_t) (end - p);

        if (!stoa_scope_known(api, one)) {
            cmd_say(c, "\"%.*s\" is no scope", (int) one.len, p);
            return false;
        }

        stoa_buf_z(out, p == text ? "\"" : ",\"");
        stoa_buf_str(out, one);
        stoa_buf_char(out, '"');

        if (*end == '\0') {
            break;
        }
    }

    stoa_buf_char(out, '}');
    stoa_buf_nul(out);

    return api != NULL && !out->failed;
}


static bool
cmd_key_make(cmd_t *c, char text[STOA_KEY_LEN + 1], char id[37],
             char hash[2 + 64 + 1])
{
    unsigned char mac[32], sum[32];
    stoa_str_t    key = { sizeof(mac), mac };
    stoa_key_t    made;
    bool          ok;

    if (c->conf.jwt_secret[0] == '\0') {
        cmd_say(c, "JWT_SECRET is not set");
        return false;
    }

    ok = stoa_hmac_derive(stoa_str_z(c->conf.jwt_secret), "api-key", mac)
      && stoa_key_make(key, &made, text) && stoa_key_hash(&made, sum);
    stoa_wipe(mac, sizeof(mac));

    if (!ok) {
        cmd_say(c, "the key could not be made");
        return false;
    }

    stoa_uuid_print(&made.id, id);
    stoa_wipe(&made, sizeof(made));
    memcpy(hash, "\\x", 2);
    stoa_hex_encode(hash + 2, sum, sizeof(sum));
    text[STOA_KEY_LEN] = id[36] = hash[2 + 64] = '\0';

    return true;
}


static int
cmd_key_add(cmd_t *c, cmd_db_t *db, const char *who, const cmd_key_t *k,
            const char *scopes)
{
    char              text[STOA_KEY_LEN + 1], id[37], hash[2 + 64 + 1];
    char              shown[STOA_KEY_SHOWN + 1] = { 0 };
    const char       *values[7], *why;
    stoa_pg_result_t *res;
    int               rc;

    if (!cmd_key_make(c, text, id, hash)) {
        return CMD_FAILED;
    }

    memcpy(shown, text, STOA_KEY_SHOWN);
    values[0] = who;
    values[1] = id;
    values[2] = hash;
    values[3] = shown;
    values[4] = k->name;
    values[5] = scopes;
    values[6] = k->days;

    rc = cmd_db_query(db,
                      "select app.key_add($1::text, $2::uuid, $3::bytea, "
                      "$4::text, $5::text, $6::text[], $7::int)",
                      7, values, &res, NULL, &why);

    if (rc != CMD_OK) {
        cmd_say(c, "cannot add the key: %s", why);

    } else if (stoa_pg_null(res, 0, 0)) {
        cmd_say(c, "there is no account \"%s\" that is active", who);
        rc = CMD_FAILED;

    } else {
        (void) printf("%s\n", text);
    }

    stoa_wipe(text, sizeof(text));
    stoa_pg_result_free(res);

    return rc;
}


static int
cmd_key_list(cmd_t *c, cmd_db_t *db, const char *who)
{
    const char       *values[1] = { who }, *why;
    stoa_pg_result_t *res;
    int               rc, row, col;

    rc = cmd_db_query(db,
                      "select k.item->>'id', k.item->>'prefix', "
                      "k.item->>'state', k.item->>'expiresAt', "
                      "coalesce(k.item->>'lastUsedAt', '-'), (select "
                      "string_agg(s, ',') from json_array_elements_text("
                      "k.item->'scopes') s), k.item->>'name' "
                      "from app.users u join api.keys_list k on k.owner_id = "
                      "u.id where u.id::text = lower($1) or u.email = "
                      "app.email($1) order by k.made_at, k.id",
                      1, values, &res, NULL, &why);

    if (rc != CMD_OK) {
        cmd_say(c, "cannot list the keys: %s", why);
    }

    for (row = 0; rc == CMD_OK && row < stoa_pg_rows(res); row++) {
        for (col = 0; col < stoa_pg_columns(res); col++) {
            (void) printf("%s%s", col == 0 ? "" : "  ",
                          (const char *) stoa_pg_value(res, row, col).data);
        }

        (void) printf("\n");
    }

    stoa_pg_result_free(res);

    return rc;
}


static int
cmd_key_revoke(cmd_t *c, cmd_db_t *db, const char *id)
{
    const char       *values[1] = { id }, *why;
    stoa_pg_result_t *res;
    int               rc;

    rc = cmd_db_query(db, "select app.key_end($1::uuid)", 1, values, &res, NULL,
                      &why);

    if (rc != CMD_OK) {
        cmd_say(c, "cannot revoke the key: %s", why);

    } else if (stoa_pg_value(res, 0, 0).data[0] != 't') {
        cmd_say(c, "there is no live key \"%s\"", id);
        rc = CMD_FAILED;
    }

    stoa_pg_result_free(res);

    return rc;
}


int
cmd_key(cmd_t *c, int argc, char **argv)
{
    cmd_key_t    k = { 0 };
    cmd_option_t options[] = {
        { "--name", NULL, &k.name },
        { "--scopes", NULL, &k.scopes },
        { "--days", NULL, &k.days },
    };
    const char *rest[2] = { NULL, NULL };
    stoa_buf_t  scopes = { 0 };
    stoa_uuid_t id;
    cmd_db_t   *db;
    int64_t     days;
    size_t      nrest;
    bool        add, list;
    int         rc;

    rc = cmd_options(c, argc, argv, options, stoa_nitems(options), rest, 2,
                     &nrest);

    if (rc >= 0) {
        return rc;
    }

    add = nrest == 2 && strcmp(rest[0], "add") == 0;
    list = nrest == 2 && strcmp(rest[0], "list") == 0;

    if ((!add && !list && (nrest != 2 || strcmp(rest[0], "revoke") != 0))
        || add != (k.name != NULL && k.scopes != NULL)
        || (!add && (k.name != NULL || k.scopes != NULL || k.days != NULL)))
    {
        cmd_say(c, "say: stoa key add ACCOUNT --name NAME --scopes "
                   "SCOPE[,SCOPE], stoa key list ACCOUNT, or stoa key revoke "
                   "ID");
        return CMD_USAGE;
    }

    if (k.days != NULL && !stoa_str_int(stoa_str_z(k.days), 1, DAYS_MAX, &days))
    {
        cmd_say(c, "--days is 1 to %d", DAYS_MAX);
        return CMD_USAGE;
    }

    if (add && (k.name[0] == '\0' || !stoa_str_utf8(stoa_str_z(k.name), NULL)))
    {
        cmd_say(c, "--name is a text");
        return CMD_USAGE;
    }

    if (add && !cmd_key_scopes(c, k.scopes, &scopes)) {
        return CMD_USAGE;
    }

    if (!add && !list && !stoa_uuid_parse(stoa_str_z(rest[1]), &id)) {
        cmd_say(c, "\"%s\" is not the id of a key", rest[1]);
        return CMD_USAGE;
    }

    if (!cmd_load(c)) {
        return CMD_FAILED;
    }

    db = cmd_db_open(c, "owner");

    if (db == NULL) {
        return CMD_UNREACHED;
    }

    rc = add  ? cmd_key_add(c, db, rest[1], &k, (const char *) scopes.data)
       : list ? cmd_key_list(c, db, rest[1])
              : cmd_key_revoke(c, db, rest[1]);
    cmd_db_close(db);

    return rc;
}
