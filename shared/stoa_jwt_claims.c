/*
 * What a token says: its parts, the texts of its header, its claims.  They
 * are read in place from JSON that the strict scanner accepted, which refuses
 * duplicate members; names and values with escapes are refused.  No keys and
 * no cryptography: stoa_jwt.c opens the token first.
 */

#include "stoa_jwt_int.h"
#include "stoa_json.h"
#include "stoa_str.h"

#define STOA_JWT_IAT_SKEW_S 60
#define STOA_JWT_AHEAD      253402300799LL /* seconds: year 9999 */

typedef enum {
    STOA_CLAIM_ISS = 1 << 0,
    STOA_CLAIM_AUD = 1 << 1,
    STOA_CLAIM_SUB = 1 << 2,
    STOA_CLAIM_SID = 1 << 3,
    STOA_CLAIM_JTI = 1 << 4,
    STOA_CLAIM_IAT = 1 << 5,
    STOA_CLAIM_EXP = 1 << 6,
    STOA_CLAIM_EP = 1 << 7,
    STOA_CLAIM_ROLES = 1 << 8,
    STOA_CLAIM_EVT = 1 << 9,
    STOA_CLAIM_NBF = 1 << 10,
    STOA_CLAIM_AUTH_TIME = 1 << 11,
    STOA_CLAIM_AMR = 1 << 12,
    STOA_CLAIM_MFA = 1 << 13,
    STOA_CLAIM_ACT = 1 << 14
} stoa_claim_e;

#define STOA_CLAIMS_BOTH                                                       \
    (STOA_CLAIM_ISS | STOA_CLAIM_AUD | STOA_CLAIM_SUB | STOA_CLAIM_JTI         \
     | STOA_CLAIM_IAT | STOA_CLAIM_EXP)
#define STOA_CLAIMS_ACCESS                                                     \
    (STOA_CLAIMS_BOTH | STOA_CLAIM_SID | STOA_CLAIM_EP | STOA_CLAIM_ROLES)
#define STOA_CLAIMS_DEVICE (STOA_CLAIMS_BOTH | STOA_CLAIM_EVT)

static const struct {
    stoa_str_t   name;
    stoa_claim_e claim;
} stoa_claim_names[] = {
    { stoa_string("iss"), STOA_CLAIM_ISS },
    { stoa_string("aud"), STOA_CLAIM_AUD },
    { stoa_string("sub"), STOA_CLAIM_SUB },
    { stoa_string("sid"), STOA_CLAIM_SID },
    { stoa_string("jti"), STOA_CLAIM_JTI },
    { stoa_string("iat"), STOA_CLAIM_IAT },
    { stoa_string("exp"), STOA_CLAIM_EXP },
    { stoa_string("ep"), STOA_CLAIM_EP },
    { stoa_string("roles"), STOA_CLAIM_ROLES },
    { stoa_string("evt"), STOA_CLAIM_EVT },
    { stoa_string("nbf"), STOA_CLAIM_NBF },
    { stoa_string("auth_time"), STOA_CLAIM_AUTH_TIME },
    { stoa_string("amr"), STOA_CLAIM_AMR },
    { stoa_string("mfa"), STOA_CLAIM_MFA },
    { stoa_string("act"), STOA_CLAIM_ACT },
};

/* ---- JSON texts as written ---- */

bool
stoa_jwt_text(stoa_str_t value, stoa_str_t *out)
{
    if (value.len < 2 || value.data[0] != '"'
        || memchr(value.data, '\\', value.len) != NULL)
    {
        return false;
    }

    out->data = value.data + 1;
    out->len = value.len - 2;

    return true;
}


/* The next string of a list without nesting; *at starts as 0. */
static bool
stoa_jwt_next_text(stoa_str_t list, size_t *at, stoa_str_t *out)
{
    unsigned char *from, *to;

    from = memchr(list.data + *at, '"', list.len - *at);

    if (from == NULL) {
        return false;
    }

    from++;
    to = memchr(from, '"', list.len - (size_t) (from - list.data));

    if (to == NULL) {
        return false;
    }

    out->data = from;
    out->len = (size_t) (to - from);
    *at = (size_t) (to - list.data) + 1;

    return true;
}


/* A list of strings without escapes: nothing but these between brackets. */
static bool
stoa_jwt_is_list(stoa_str_t value)
{
    size_t i;
    bool   inside = false;

    if (value.len < 2 || value.data[0] != '[') {
        return false;
    }

    for (i = 1; i < value.len - 1; i++) {
        if (value.data[i] == '\\') {
            return false;
        }

        if (value.data[i] == '"') {
            inside = !inside;

        } else if (!inside && strchr(", \t\r\n", value.data[i]) == NULL) {
            return false;
        }
    }

    return true;
}


bool
stoa_jwt_typ(stoa_str_t value, unsigned *type)
{
    stoa_str_t typ;

    if (!stoa_jwt_text(value, &typ)) {
        return false;
    }

    if (stoa_str_ieq_z(typ, "at+jwt")
        || stoa_str_ieq_z(typ, "application/at+jwt")) {
        *type = STOA_JWT_ACCESS;

    } else if (stoa_str_ieq_z(typ, "stoa-device+jwt")) {
        *type = STOA_JWT_DEVICE;

    } else if (!stoa_str_ieq_z(typ, "JWT")) {
        *type = STOA_JWT_OTHER;
    }

    return true;
}


bool
stoa_jwt_split(stoa_str_t token, stoa_str_t part[3])
{
    unsigned char *dot;
    size_t         i;

    for (i = 0; i < 2; i++) {
        dot = token.len != 0 ? memchr(token.data, '.', token.len) : NULL;

        if (dot == NULL) {
            return false;
        }

        part[i].data = token.data;
        part[i].len = (size_t) (dot - token.data);
        token.data += part[i].len + 1;
        token.len -= part[i].len + 1;
    }

    part[2] = token;

    return token.len != 0 && memchr(token.data, '.', token.len) == NULL;
}


/* ---- claims ---- */

static bool
stoa_jwt_uuid(stoa_str_t value, stoa_uuid_t *out)
{
    stoa_str_t text;

    return stoa_jwt_text(value, &text) && stoa_uuid_parse(text, out);
}


/* One string, or a list that holds it. */
static bool
stoa_jwt_audience(stoa_str_t value, const char *audience)
{
    stoa_str_t text;
    size_t     at = 0;

    if (stoa_jwt_text(value, &text)) {
        return stoa_str_eq_z(text, audience);
    }

    if (!stoa_jwt_is_list(value)) {
        return false;
    }

    while (stoa_jwt_next_text(value, &at, &text)) {
        if (stoa_str_eq_z(text, audience)) {
            return true;
        }
    }

    return false;
}


/* A name that is not known here gives no bit. */
static bool
stoa_jwt_names(stoa_str_t value, uint32_t (*by_name)(stoa_str_t name),
               uint32_t  *bits)
{
    stoa_str_t text;
    size_t     at = 0;

    *bits = 0;

    if (!stoa_jwt_is_list(value)) {
        return false;
    }

    while (stoa_jwt_next_text(value, &at, &text)) {
        *bits |= by_name(text);
    }

    return true;
}


/* {"sub": .., "ep": ..}: an actor whose rights cannot be taken back is none.
   Who acted before him (a nested "act") is of no account. */
static bool
stoa_jwt_act(stoa_str_t value, stoa_claims_t *c)
{
    stoa_str_t name, member;
    size_t     at = 0;
    int64_t    epoch;
    bool       sub = false, ep = false;

    if (value.len == 0 || value.data[0] != '{') {
        return false;
    }

    while (stoa_json_walk(value, &at, &name, &member)) {
        if (stoa_str_eq_z(name, "sub")) {
            sub = stoa_jwt_uuid(member, &c->act);

        } else if (stoa_str_eq_z(name, "ep")) {
            ep = stoa_str_int(member, 0, UINT32_MAX, &epoch);
            c->act_epoch = ep ? (uint32_t) epoch : 0;
        }
    }

    c->acting = sub && ep;

    return c->acting;
}


static bool
stoa_jwt_claim(stoa_claim_e claim, stoa_str_t value,
               const stoa_jwt_rules_t *rules, stoa_claims_t *c, int64_t *nbf)
{
    stoa_str_t text;
    int64_t    epoch;

    switch (claim) {
    case STOA_CLAIM_ISS:
        return stoa_jwt_text(value, &text)
            && stoa_str_eq_z(text, rules->issuer);
    case STOA_CLAIM_AUD:
        return stoa_jwt_audience(value, rules->audience);
    case STOA_CLAIM_SUB:
        return stoa_jwt_uuid(value, &c->sub);
    case STOA_CLAIM_SID:
        return stoa_jwt_uuid(value, &c->sid);
    case STOA_CLAIM_JTI:
        return stoa_jwt_uuid(value, &c->jti);
    case STOA_CLAIM_EVT:
        return stoa_jwt_uuid(value, &c->event);
    case STOA_CLAIM_IAT:
        return stoa_str_int(value, 0, STOA_JWT_AHEAD, &c->iat);
    case STOA_CLAIM_EXP:
        return stoa_str_int(value, 0, STOA_JWT_AHEAD, &c->exp);
    case STOA_CLAIM_NBF:
        return stoa_str_int(value, 0, STOA_JWT_AHEAD, nbf);
    case STOA_CLAIM_ROLES:
        return stoa_jwt_names(value, stoa_role_by_name, &c->roles);
    case STOA_CLAIM_AUTH_TIME:
        return stoa_str_int(value, 0, STOA_JWT_AHEAD, &c->auth_time);
    case STOA_CLAIM_AMR:
        return stoa_jwt_names(value, stoa_amr_by_name, &c->amr);
    case STOA_CLAIM_MFA:
        c->mfa = stoa_str_eq_z(value, "true");

        return c->mfa || stoa_str_eq_z(value, "false");
    case STOA_CLAIM_ACT:
        return stoa_jwt_act(value, c);
    case STOA_CLAIM_EP:
        if (!stoa_str_int(value, 0, UINT32_MAX, &epoch)) {
            return false;
        }

        c->epoch = (uint32_t) epoch;

        return true;
    }

    return false;
}


/* NULL, or what is wrong. */
static const char *
stoa_jwt_read(stoa_str_t payload, const stoa_jwt_rules_t *rules,
              stoa_claims_t *c, unsigned *seen, int64_t *nbf)
{
    stoa_json_fault_t fault;
    stoa_str_t        name, value;
    size_t            at = 0, i;

    memset(c, 0, sizeof(stoa_claims_t));
    *seen = 0;
    *nbf = 0;

    if (!stoa_json_valid(payload, &fault)) {
        return "the payload is no strict JSON";
    }

    while (stoa_json_walk(payload, &at, &name, &value)) {
        for (i = 0; i < stoa_nitems(stoa_claim_names); i++) {
            if (name.len != stoa_claim_names[i].name.len
                || memcmp(name.data, stoa_claim_names[i].name.data, name.len)
                       != 0)
            {
                continue;
            }

            if (!stoa_jwt_claim(stoa_claim_names[i].claim, value, rules, c,
                                nbf)) {
                return "a claim is not what it should be";
            }

            *seen |= (unsigned) stoa_claim_names[i].claim;
            break;
        }
    }

    return NULL;
}


stoa_err_e
stoa_jwt_verify(stoa_jwt_keys_t *keys, const stoa_jwt_rules_t *rules,
                stoa_str_t token, int64_t now_ms, stoa_claims_t *claims,
                const char **why)
{
    STOA_UNINIT unsigned char room[STOA_JWT_MAX];
    const char               *bad;
    stoa_str_t                payload;
    stoa_err_e                err;
    unsigned                  type, seen, needed;
    int64_t                   nbf, now_s = now_ms / 1000;

    err = stoa_jws_open(keys, token, room, &payload, &type, why);

    if (err != STOA_OK) {
        return err;
    }

    if (type != STOA_JWT_ACCESS && type != STOA_JWT_DEVICE) {
        return stoa_jwt_refuse(why, "typ is another");
    }

    bad = stoa_jwt_read(payload, rules, claims, &seen, &nbf);

    if (bad != NULL) {
        return stoa_jwt_refuse(why, bad);
    }

    needed = type == STOA_JWT_DEVICE ? STOA_CLAIMS_DEVICE : STOA_CLAIMS_ACCESS;

    if ((seen & needed) != needed) {
        return stoa_jwt_refuse(why, "a claim is missing");
    }

    if (type == STOA_JWT_DEVICE) {
        if (claims->acting) {
            return stoa_jwt_refuse(why, "nobody acts as a device");
        }

        claims->sid = claims->sub;
        claims->roles = STOA_DEVICE;
        claims->auth_time = 0;
        claims->amr = 0;
        claims->mfa = false;

    } else {
        memset(&claims->event, 0, sizeof(stoa_uuid_t));
    }

    if (claims->iat > now_s + rules->leeway_s + STOA_JWT_IAT_SKEW_S
        || nbf > now_s + rules->leeway_s)
    {
        return stoa_jwt_refuse(why, "it is not valid yet");
    }

    if (now_ms >= (claims->exp + rules->leeway_s) * 1000) {
        *why = "it has expired";
        return STOA_E_TOKEN_EXPIRED;
    }

    return STOA_OK;
}
