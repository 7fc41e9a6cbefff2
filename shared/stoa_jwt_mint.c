/*
 * The libjwt door: signs tokens that others read (typ JWT) and gives units a
 * second opinion on stoa_jwt.c.  libjwt 1.10 to 1.17; it parses PEM keys at
 * each call and, in 1.10, overwrites typ, so access tokens are not made here.
 */

#include "stoa_jwt.h"

#include <limits.h>
#include <stdlib.h>

#include <jwt.h>


static bool
stoa_jwt_mint_fill(jwt_t *jwt, jwt_alg_t alg, const char *kid, stoa_str_t key,
                   const char *claims_json)
{
    return jwt_set_alg(jwt, alg, key.data, (int) key.len) == 0
        && jwt_add_header(jwt, "typ", "JWT") == 0
        && jwt_add_header(jwt, "kid", kid) == 0
        && jwt_add_grants_json(jwt, claims_json) == 0;
}


stoa_err_e
stoa_jwt_mint(stoa_alg_e alg, const char *kid, stoa_str_t key,
              const char *claims_json, stoa_buf_t *out)
{
    static const jwt_alg_t algs[] = {
        [STOA_ALG_HS256] = JWT_ALG_HS256,
        [STOA_ALG_RS256] = JWT_ALG_RS256,
        [STOA_ALG_ES256] = JWT_ALG_ES256,
    };
    jwt_t *jwt;
    char  *text;

    if ((size_t) alg >= stoa_nitems(algs)) {
        return STOA_E_INTERNAL; /* libjwt 1.10 knows no others */
    }

    if (key.len > INT_MAX || jwt_new(&jwt) != 0) {
        return STOA_E_NO_MEMORY;
    }

    if (!stoa_jwt_mint_fill(jwt, algs[alg], kid, key, claims_json)) {
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
