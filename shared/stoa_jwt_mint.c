/*
 * The libjwt door: signs a token as stoa_jwt_sign() does, but with another
 * library, for the command line and as a cross-check in units.  libjwt 1.10
 * to 1.17; it parses PEM keys at each call, so it stays out of the request
 * path.
 */

#include "stoa_jwt.h"
#include "stoa_jwt_int.h"

#include <limits.h>
#include <stdlib.h>

#include <jwt.h>


static bool
stoa_jwt_mint_fill(jwt_t *jwt, jwt_alg_t alg, const char *kid, stoa_str_t key,
                   const char *typ, const char *claims)
{
    return jwt_set_alg(jwt, alg, key.data, (int) key.len) == 0
        && jwt_add_header(jwt, "typ", typ) == 0
        && jwt_add_header(jwt, "kid", kid) == 0
        && jwt_add_grants_json(jwt, claims) == 0;
}


stoa_err_e
stoa_jwt_mint(stoa_alg_e alg, const char *kid, stoa_str_t key,
              const stoa_jwt_rules_t *rules, const stoa_claims_t *claims,
              stoa_buf_t *out)
{
    static const jwt_alg_t algs[] = {
        [STOA_ALG_HS256] = JWT_ALG_HS256,
        [STOA_ALG_RS256] = JWT_ALG_RS256,
        [STOA_ALG_ES256] = JWT_ALG_ES256,
    };
    stoa_buf_t b;
    jwt_t     *jwt;
    char      *text;

    stoa_buf_init(&b, out->mem, 512, STOA_JWT_MAX);
    stoa_jwt_claims(&b, rules, claims);
    stoa_buf_nul(&b);

    if (b.failed || key.len > INT_MAX || jwt_new(&jwt) != 0) {
        return STOA_E_NO_MEMORY;
    }

    if (!stoa_jwt_mint_fill(jwt, algs[alg], kid, key, stoa_jwt_typ_of(claims),
                            (const char *) b.data))
    {
        jwt_free(jwt);
        return STOA_E_INTERNAL;
    }

    text = jwt_encode_str(jwt);
    jwt_free(jwt);

    if (text == NULL) {
        return STOA_E_INTERNAL;
    }

    stoa_buf_z(out, text);
    free(text); /* libjwt 1.10 has no call of its own for it */

    return out->failed ? STOA_E_NO_MEMORY : STOA_OK;
}
