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


bool
stoa_jwt_extra(const char *names, uint32_t *extra)
{
    static const char *const known[] = { "email", "role", "user_id" };
    size_t                   i, len;

    *extra = 0;

    for (names += strspn(names, " ,"); *names != '\0';
         names += len + strspn(names + len, " ,"))
    {
        len = strcspn(names, " ,");

        for (i = 0; i < stoa_nitems(known); i++) {
            if (len == strlen(known[i]) && strncmp(names, known[i], len) == 0) {
                *extra |= 1U << i;
                break;
            }
        }

        if (i == stoa_nitems(known)) {
            return false;
        }
    }

    return true;
}


static void
stoa_jwt_extras(stoa_buf_t *b, uint32_t extra, const stoa_claims_t *claims,
                stoa_str_t email)
{
    unsigned i;

    if (extra & STOA_EXTRA_EMAIL && email.len != 0) {
        stoa_buf_z(b, ",\"email\":");
        stoa_buf_json(b, email);
    }

    for (i = 0; extra & STOA_EXTRA_ROLE && i < STOA_ROLE_COUNT; i++) {
        if (claims->roles & 1U << i) {
            stoa_buf_z(b, ",\"role\":");
            stoa_buf_json_z(b, stoa_role_name(1U << i));
            break;
        }
    }

    if (extra & STOA_EXTRA_USER_ID) {
        stoa_jwt_member(b, "user_id", &claims->sub);
    }
}


static void
stoa_jwt_list(stoa_buf_t *b, const char *name, uint32_t bits, unsigned n,
              const char *(*name_of)(uint32_t bit))
{
    unsigned i;
    bool     first = true;

    stoa_buf_printf(b, ",\"%s\":[", name);

    for (i = 0; i < n; i++) {
        if (bits & 1U << i) {
            stoa_buf_z(b, first ? "" : ",");
            stoa_buf_json_z(b, name_of(1U << i));
            first = false;
        }
    }

    stoa_buf_char(b, ']');
}


void
stoa_jwt_claims(stoa_buf_t *b, const stoa_jwt_rules_t *rules,
                const stoa_claims_t *claims, stoa_str_t email)
{
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
    stoa_buf_printf(b, ",\"ep\":%u", claims->epoch);
    stoa_jwt_list(b, "roles", claims->roles, STOA_ROLE_COUNT, stoa_role_name);

    /* RFC 9068 2.2.1, RFC 8176; and our own of the account */
    if (claims->auth_time != 0) {
        stoa_buf_printf(b, ",\"auth_time\":%lld",
                        (long long) claims->auth_time);
    }

    if (claims->amr != 0) {
        stoa_jwt_list(b, "amr", claims->amr, STOA_AMR_COUNT, stoa_amr_name);
    }

    if (claims->mfa) {
        stoa_buf_z(b, ",\"mfa\":true");
    }

    if (claims->acting) {
        stoa_buf_z(b, ",\"act\":{\"sub\":\"");
        stoa_buf_uuid(b, &claims->act);
        stoa_buf_printf(b, "\",\"ep\":%u}", claims->act_epoch);
    }

    stoa_jwt_extras(b, rules->extra, claims, email);
    stoa_buf_char(b, '}');
}


stoa_err_e
stoa_jwt_sign(stoa_jwt_keys_t *keys, const stoa_jwt_rules_t *rules,
              const stoa_claims_t *claims, stoa_str_t email, stoa_buf_t *out)
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
    stoa_jwt_claims(&part, rules, claims, email);
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
