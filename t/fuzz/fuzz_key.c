/*
 * API keys.  What is read has one text only; nothing that was not made with
 * the MAC key is genuine, and what is made from the input's bytes is read
 * back as it was.
 */

#include "fuzz.h"

#include "stoa_hmac.h"
#include "stoa_key.h"

#define MAC "0123456789abcdef0123456789abcdef"


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stoa_str_t    text = fuzz_str(data, size), parts[2];
    unsigned char bytes[STOA_KEY_BYTES] = { 0 }, mac[32];
    char          out[STOA_KEY_LEN];
    stoa_key_t    key, again;
    size_t        i;

    if (stoa_key_read(text, &key)) {
        fuzz_assert(size == STOA_KEY_LEN && stoa_key_is(text));

        memcpy(bytes, key.id.b, 16);
        memcpy(bytes + 16, key.secret, STOA_KEY_SECRET);
        memcpy(bytes + 16 + STOA_KEY_SECRET, key.mac, STOA_KEY_MAC);
        (void) stoa_base32_encode((unsigned char *) out, bytes, sizeof(bytes));

        for (i = 0; i < sizeof(out) - STOA_KEY_PREFIX_LEN; i++) {
            fuzz_assert(data[STOA_KEY_PREFIX_LEN + i]
                        == stoa_str_lower((unsigned char) out[i]));
        }
    }

    /* the input's bytes as id and secret, under the right MAC */
    memset(&key, 0, sizeof(key));

    for (i = 0; i < size && i < STOA_KEY_SECRET; i++) {
        key.id.b[i % 16] ^= data[i];
        key.secret[i] = data[i];
    }

    parts[0] = (stoa_str_t){ 16, key.id.b };
    parts[1] = (stoa_str_t){ STOA_KEY_SECRET, key.secret };
    fuzz_assert(stoa_hmac_sha256_parts(stoa_str_z(MAC), parts, 2, mac));
    memcpy(key.mac, mac, STOA_KEY_MAC);
    fuzz_assert(stoa_key_genuine(stoa_str_z(MAC), &key));

    /* and one changed bit is another key */
    again = key;
    i = size != 0 ? data[size - 1] % (8 * STOA_KEY_MAC) : 0;
    again.mac[i / 8] ^= (unsigned char) (1 << i % 8);
    fuzz_assert(!stoa_key_genuine(stoa_str_z(MAC), &again));
    again = key;
    again.secret[i % STOA_KEY_SECRET] ^= 1;
    fuzz_assert(!stoa_key_genuine(stoa_str_z(MAC), &again));

    return 0;
}
