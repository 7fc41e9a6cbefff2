/*
 * Tokens.  The input as it is must never verify: the key is not known to it.
 * Its two lines as header and payload are signed rightly; what then verifies
 * must be so by jansson's reading too, with no member twice.
 */

#include "fuzz.h"

#include "stoa_hmac.h"
#include "stoa_jwt.h"

#include <jansson.h>

#define NOW    1767323045LL
#define SECRET "0123456789abcdef0123456789abcdef"

static const stoa_jwt_rules_t rules = { "i", "a", 5, 0 };


static int
fuzz_is(json_t *object, const char *name, const char *text)
{
    const char *value = json_string_value(json_object_get(object, name));

    return value != NULL && strcmp(value, text) == 0;
}


static int
fuzz_is_uuid(json_t *object, const char *name, const stoa_uuid_t *uuid)
{
    const char *value = json_string_value(json_object_get(object, name));
    stoa_uuid_t parsed;

    return value != NULL && stoa_uuid_parse(stoa_str_z(value), &parsed)
        && memcmp(&parsed, uuid, sizeof(parsed)) == 0;
}


static int
fuzz_has_audience(json_t *payload)
{
    json_t *aud = json_object_get(payload, "aud"), *one;
    size_t  i;

    if (fuzz_is(payload, "aud", "a")) {
        return 1;
    }

    json_array_foreach(aud, i, one)
    {
        if (json_is_string(one) && strcmp(json_string_value(one), "a") == 0) {
            return 1;
        }
    }

    return 0;
}


/* jansson's opinion of a token that was accepted. */
static void
fuzz_agree(stoa_str_t header, stoa_str_t payload, const stoa_claims_t *c)
{
    json_t     *h, *p, *act, *one;
    const char *typ;
    uint32_t    roles = 0, amr = 0;
    size_t      i;
    int         device;

    h = json_loadb((char *) header.data, header.len, JSON_REJECT_DUPLICATES,
                   NULL);
    p = json_loadb((char *) payload.data, payload.len, JSON_REJECT_DUPLICATES,
                   NULL);
    fuzz_assert(json_is_object(h) && json_is_object(p));
    fuzz_assert(fuzz_is(h, "alg", "HS256"));
    fuzz_assert(json_object_get(h, "crit") == NULL);
    fuzz_assert(json_object_get(h, "kid") == NULL || fuzz_is(h, "kid", "k"));
    typ = json_string_value(json_object_get(h, "typ"));
    fuzz_assert(typ != NULL);
    device = strcasecmp(typ, "stoa-device+jwt") == 0;
    fuzz_assert(device || strcasecmp(typ, "at+jwt") == 0
                || strcasecmp(typ, "application/at+jwt") == 0);

    fuzz_assert(fuzz_is(p, "iss", "i"));
    fuzz_assert(fuzz_has_audience(p));
    fuzz_assert(fuzz_is_uuid(p, "sub", &c->sub));
    fuzz_assert(fuzz_is_uuid(p, "jti", &c->jti));
    fuzz_assert(json_integer_value(json_object_get(p, "exp")) == c->exp);
    fuzz_assert(json_integer_value(json_object_get(p, "iat")) == c->iat);
    fuzz_assert(c->exp + 5 > NOW && c->iat <= NOW + 65);

    if (device) {
        fuzz_assert(c->roles == STOA_DEVICE);
        fuzz_assert(fuzz_is_uuid(p, "evt", &c->event));

    } else {
        fuzz_assert(fuzz_is_uuid(p, "sid", &c->sid));
        fuzz_assert(json_integer_value(json_object_get(p, "ep")) == c->epoch);
        act = json_object_get(p, "act");
        fuzz_assert(c->acting == (act != NULL));

        if (c->acting) {
            fuzz_assert(fuzz_is_uuid(act, "sub", &c->act));
            fuzz_assert(json_integer_value(json_object_get(act, "ep"))
                        == c->act_epoch);
        }

        json_array_foreach(json_object_get(p, "roles"), i, one)
        {
            fuzz_assert(json_is_string(one));
            roles |= stoa_role_by_name(stoa_str_z(json_string_value(one)));
        }

        json_array_foreach(json_object_get(p, "amr"), i, one)
        {
            fuzz_assert(json_is_string(one));
            amr |= stoa_amr_by_name(stoa_str_z(json_string_value(one)));
        }

        fuzz_assert(amr == c->amr);
        fuzz_assert(json_integer_value(json_object_get(p, "auth_time"))
                    == c->auth_time);
        fuzz_assert(json_is_true(json_object_get(p, "mfa")) == c->mfa);

        fuzz_assert(roles == c->roles);
        fuzz_assert((c->roles & (STOA_DEVICE | STOA_PUBLIC)) == 0);
    }

    json_decref(h);
    json_decref(p);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static stoa_jwt_keys_t *keys;
    static unsigned char    text[stoa_base64url_len(STOA_JWT_MAX)];
    stoa_str_t              rest = fuzz_str(data, size), header, payload;
    unsigned char           mac[32];
    stoa_mem_t             *mem;
    stoa_claims_t           claims;
    stoa_buf_t              b;
    const char             *why;
    stoa_err_e              err;

    if (keys == NULL) {
        keys = stoa_jwt_keys_create();
        fuzz_assert(keys != NULL
                    && stoa_jwt_keys_add(keys, STOA_ALG_HS256, stoa_str_z("k"),
                                         stoa_str_z(SECRET), true, &why)
                           == STOA_OK);
    }

    err = stoa_jwt_verify(keys, &rules, rest, NOW * 1000, &claims, &why);
    fuzz_assert(err == STOA_E_UNAUTHENTICATED && why != NULL);

    header = fuzz_cut(&rest);
    payload = rest;

    if (header.len + payload.len > STOA_JWT_MAX) {
        return 0;
    }

    mem = stoa_arena_create(4096, FUZZ_MEMORY);
    stoa_buf_init(&b, mem, 1024, FUZZ_MEMORY);
    stoa_buf_put(&b, text,
                 stoa_base64url_encode(text, header.data, header.len));
    stoa_buf_char(&b, '.');
    stoa_buf_put(&b, text,
                 stoa_base64url_encode(text, payload.data, payload.len));
    fuzz_assert(stoa_hmac_sha256(stoa_str_z(SECRET), b.data, b.len, mac));
    stoa_buf_char(&b, '.');
    stoa_buf_put(&b, text, stoa_base64url_encode(text, mac, 32));
    fuzz_assert(!b.failed);

    err = stoa_jwt_verify(keys, &rules, stoa_buf_view(&b), NOW * 1000, &claims,
                          &why);

    if (err == STOA_OK) {
        fuzz_agree(header, payload, &claims);

        /* a changed signature is refused, known header or not */
        b.data[b.len - 2] ^= 1;
        fuzz_assert(stoa_jwt_verify(keys, &rules, stoa_buf_view(&b), NOW * 1000,
                                    &claims, &why)
                    == STOA_E_UNAUTHENTICATED);

    } else {
        fuzz_assert(err == STOA_E_UNAUTHENTICATED
                    || err == STOA_E_TOKEN_EXPIRED);
    }

    stoa_arena_destroy(mem);

    return 0;
}
