/*
 * API keys: made, read, verified.  The secret's bytes are the caller's to
 * wipe.
 */

#include "stoa_key.h"
#include "stoa_hash.h"
#include "stoa_hmac.h"
#include "stoa_id.h"
#include "stoa_str.h"

_Static_assert(STOA_KEY_BYTES * 8 % 5 == 0
                   && STOA_KEY_LEN
                          == STOA_KEY_PREFIX_LEN
                                 + stoa_base32_len(STOA_KEY_BYTES),
               "no bits are left over, so a key has one text");
_Static_assert(sizeof(STOA_KEY_PREFIX) - 1 == STOA_KEY_PREFIX_LEN,
               "the prefix is as long as it says");


bool
stoa_key_is(stoa_str_t text)
{
    return text.len >= STOA_KEY_PREFIX_LEN
        && memcmp(text.data, STOA_KEY_PREFIX, STOA_KEY_PREFIX_LEN) == 0;
}


static bool
stoa_key_mac(stoa_str_t mac, const stoa_key_t *key, unsigned char out[32])
{
    stoa_str_t parts[2] = {
        { sizeof(key->id.b), (unsigned char *) (uintptr_t) key->id.b },
        { sizeof(key->secret), (unsigned char *) (uintptr_t) key->secret },
    };

    return stoa_hmac_sha256_parts(mac, parts, 2, out);
}


bool
stoa_key_make(stoa_str_t mac, stoa_key_t *key, char out[STOA_KEY_LEN])
{
    unsigned char bytes[STOA_KEY_BYTES], sum[32];
    char         *p = out + STOA_KEY_PREFIX_LEN;
    size_t        i;

    if (!stoa_random(key->id.b, sizeof(key->id.b))
        || !stoa_random(key->secret, sizeof(key->secret)))
    {
        return false;
    }

    key->id.b[6] = (unsigned char) (0x40 | (key->id.b[6] & 0x0f));
    key->id.b[8] = (unsigned char) (0x80 | (key->id.b[8] & 0x3f));

    if (!stoa_key_mac(mac, key, sum)) {
        return false;
    }

    memcpy(key->mac, sum, sizeof(key->mac));
    memcpy(bytes, key->id.b, 16);
    memcpy(bytes + 16, key->secret, sizeof(key->secret));
    memcpy(bytes + 16 + sizeof(key->secret), key->mac, sizeof(key->mac));

    memcpy(out, STOA_KEY_PREFIX, STOA_KEY_PREFIX_LEN);
    (void) stoa_base32_encode((unsigned char *) p, bytes, sizeof(bytes));

    for (i = 0; i < STOA_KEY_LEN - STOA_KEY_PREFIX_LEN; i++) {
        p[i] = (char) stoa_str_lower((unsigned char) p[i]);
    }

    stoa_wipe(bytes, sizeof(bytes));

    return true;
}


bool
stoa_key_read(stoa_str_t text, stoa_key_t *key)
{
    unsigned char bytes[STOA_KEY_BYTES];
    size_t        i;

    if (text.len != STOA_KEY_LEN || !stoa_key_is(text)) {
        return false;
    }

    text.data += STOA_KEY_PREFIX_LEN;
    text.len -= STOA_KEY_PREFIX_LEN;

    for (i = 0; i < text.len; i++) {
        if (text.data[i] >= 'A' && text.data[i] <= 'Z') {
            return false; /* another spelling, which scanners do not find */
        }
    }

    if (stoa_base32_decode(bytes, sizeof(bytes), text)
        != (ssize_t) sizeof(bytes)) {
        return false;
    }

    memcpy(key->id.b, bytes, 16);
    memcpy(key->secret, bytes + 16, sizeof(key->secret));
    memcpy(key->mac, bytes + 16 + sizeof(key->secret), sizeof(key->mac));
    stoa_wipe(bytes, sizeof(bytes));

    return true;
}


bool
stoa_key_genuine(stoa_str_t mac, const stoa_key_t *key)
{
    unsigned char sum[32];
    stoa_str_t    made = { sizeof(key->mac), sum };
    stoa_str_t    sent = { sizeof(key->mac),
                           (unsigned char *) (uintptr_t) key->mac };

    return stoa_key_mac(mac, key, sum) && stoa_str_same_secret(sent, made);
}


bool
stoa_key_hash(const stoa_key_t *key, unsigned char out[32])
{
    return stoa_sha256(key->secret, sizeof(key->secret), out);
}
