/*
 * Refresh tokens: a session and a counter under a MAC, so that garbage costs
 * no query and the state of rotation lives in one row of PostgreSQL.
 */

#include "stoa_jwt.h"
#include "stoa_hmac.h"
#include "stoa_str.h"

#define STOA_REFRESH_VERSION 1
#define STOA_REFRESH_SIGNED  (1 + 16 + 8)
#define STOA_REFRESH_BYTES   (STOA_REFRESH_SIGNED + 16)


bool
stoa_refresh_make(stoa_str_t secret, const stoa_uuid_t *sid, uint64_t counter,
                  stoa_buf_t *out)
{
    unsigned char bytes[STOA_REFRESH_SIGNED + 32];
    unsigned      i;

    bytes[0] = STOA_REFRESH_VERSION;
    memcpy(bytes + 1, sid->b, 16);

    for (i = 0; i < 8; i++) {
        bytes[17 + i] = (unsigned char) (counter >> (56 - 8 * i));
    }

    if (!stoa_hmac_sha256(secret, bytes, STOA_REFRESH_SIGNED,
                          bytes + STOA_REFRESH_SIGNED))
    {
        return false;
    }

    stoa_buf_base64url(out, bytes, STOA_REFRESH_BYTES);

    return !out->failed;
}


bool
stoa_refresh_open(stoa_str_t secret, stoa_str_t token, stoa_uuid_t *sid,
                  uint64_t *counter)
{
    unsigned char bytes[STOA_REFRESH_BYTES], mac[32];
    stoa_str_t    sent = { 16, bytes + STOA_REFRESH_SIGNED };
    stoa_str_t    made = { 16, mac };
    unsigned      i;

    if (token.len != STOA_REFRESH_LEN
        || stoa_base64url_decode(bytes, sizeof(bytes), token)
               != STOA_REFRESH_BYTES
        || bytes[0] != STOA_REFRESH_VERSION
        || !stoa_hmac_sha256(secret, bytes, STOA_REFRESH_SIGNED, mac)
        || !stoa_str_same_secret(sent, made))
    {
        return false;
    }

    memcpy(sid->b, bytes + 1, 16);
    *counter = 0;

    for (i = 0; i < 8; i++) {
        *counter = *counter << 8 | bytes[17 + i];
    }

    return true;
}
