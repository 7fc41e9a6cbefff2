/*
 * Making tokens: the claims as JSON, one spelling for both signers, and the
 * compact form with the signing key of a keys object.  The cryptography is
 * stoa_jwt.c's.
 */

#include "stoa_jwt.h"
#include "stoa_jwt_int.h"
#include "stoa_str.h"


static void
stoa_jwt_member(stoa_buf_t *b, const char *name, const stoa_uuid_t *id)
{
    stoa_buf_printf(b, ",\"%s\":\"", name);
    stoa_buf_uuid(b, id);
    stoa_buf_char(b, '"');
}


void
stoa_jwt_claims(stoa_buf_t *b, const stoa_jwt_rules_t *rules,
                const stoa_claims_t *claims)
{
    unsigned i;
    bool     first = true;

    stoa_buf_z(b, "{\"iss\":");
    stoa_buf_json_z(b, rules->issuer);
    stoa_buf_z(b, ",\"aud\":");
    stoa_buf_json_z(b, rules->audience);
    stoa_jwt_member(b, "sub", &claims->sub);
    stoa_jwt_member(b, "jti", &claims->jti);
    stoa_buf_printf(b, ",\"iat\":%lld,\"exp\":%lld", (long long) claims->iat,
                    (long long) claims->exp);

    if (claims->roles & STOA_DEVICE) {
        stoa_jwt_member(b, "evt", &claims->event);
        stoa_buf_char(b, '}');
        return;
    }

    stoa_jwt_member(b, "sid", &claims->sid);
    stoa_buf_printf(b, ",\"ep\":%u,\"roles\":[", claims->epoch);

    for (i = 0; i < STOA_ROLE_COUNT; i++) {
        if (claims->roles & 1U << i) {
            stoa_buf_z(b, first ? "" : ",");
            stoa_buf_json_z(b, stoa_role_name(1U << i));
            first = false;
        }
    }

    stoa_buf_char(b, ']');

    if (claims->acting) {
        stoa_buf_z(b, ",\"act\":{\"sub\":\"");
        stoa_buf_uuid(b, &claims->act);
        stoa_buf_printf(b, "\",\"ep\":%u}", claims->act_epoch);
    }

    stoa_buf_char(b, '}');
}


stoa_err_e
stoa_jwt_sign(stoa_jwt_keys_t *keys, const stoa_jwt_rules_t *rules,
              const stoa_claims_t *claims, stoa_buf_t *out)
{
    unsigned char signature[STOA_JWT_SIGNATURE];
    stoa_buf_t    part;
    stoa_str_t    data;
    size_t        len, from = out->len;

    stoa_buf_init(&part, out->mem, 512, STOA_JWT_MAX);

    if (!stoa_jwt_signer_header(keys, stoa_jwt_typ_of(claims), &part)) {
        return STOA_E_INTERNAL;
    }

    stoa_buf_base64url(out, part.data, part.len);
    stoa_buf_char(out, '.');

    part.len = 0;
    stoa_jwt_claims(&part, rules, claims);
    stoa_buf_base64url(out, part.data, part.len);

    if (part.failed || out->failed) {
        return STOA_E_NO_MEMORY;
    }

    data.data = out->data + from;
    data.len = out->len - from;
    len = stoa_jwt_signature(keys, data, signature);

    if (len == 0) {
        return STOA_E_INTERNAL;
    }

    stoa_buf_char(out, '.');
    stoa_buf_base64url(out, signature, len);

    return out->failed ? STOA_E_NO_MEMORY : STOA_OK;
}
