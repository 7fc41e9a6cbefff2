/*
 * The signature header of payment webhooks: line one of the input is the
 * header, the rest the body.  A "%" in the header becomes the right MAC for
 * the time NOW.  What verifies must hold the right MAC of its own single
 * time, within the tolerance, by a reading of the header made here.
 */

#include "fuzz.h"

#include "stoa_buf.h"
#include "stoa_hmac.h"

#define NOW 1767323045LL

static const stoa_str_t secrets[2] = { stoa_string("whsec_one"),
                                       stoa_string("whsec_two") };


static void
fuzz_mac(stoa_str_t secret, stoa_str_t stamp, stoa_str_t raw, char hex[64])
{
    unsigned char mac[32];
    stoa_str_t    parts[3] = { stamp, stoa_string("."), raw };

    fuzz_assert(stoa_hmac_sha256_parts(secret, parts, 3, mac));
    stoa_hex_encode(hex, mac, 32);
}


/* Does the header carry a right signature? */
static int
fuzz_is_right(stoa_str_t header, stoa_str_t raw)
{
    char        copy[4096], hex[64], *item, *save;
    const char *stamp = NULL;
    int         found = 0, i;
    long long   t;

    fuzz_assert(header.len < sizeof(copy));
    memcpy(copy, header.data, header.len);
    copy[header.len] = '\0';

    for (item = copy; item != NULL; item = save) {
        save = strchr(item, ',');

        if (save != NULL) {
            *save++ = '\0';
        }

        item += strspn(item, " ");

        if (strncmp(item, "t=", 2) == 0) {
            fuzz_assert(stamp == NULL);
            stamp = item + 2;
        }
    }

    fuzz_assert(stamp != NULL && stamp[strspn(stamp, "0123456789")] == '\0');
    t = strtoll(stamp, NULL, 10);
    fuzz_assert(t >= NOW - 300 && t <= NOW + 300);

    for (i = 0; i < 2; i++) {
        fuzz_mac(secrets[i], stoa_str_z(stamp), raw, hex);

        for (size_t k = 0; k + 67 <= header.len; k++) {
            found |= memcmp(header.data + k, "v1=", 3) == 0
                  && strncasecmp((char *) header.data + k + 3, hex, 64) == 0;
        }
    }

    return found;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stoa_mem_t *mem = stoa_arena_create(4096, FUZZ_MEMORY);
    stoa_str_t  rest = fuzz_str(data, size), line = fuzz_cut(&rest), header;
    stoa_buf_t  b;
    stoa_err_e  err;
    char        hex[64];
    size_t      i;

    stoa_buf_init(&b, mem, 256, 4000);
    fuzz_mac(secrets[size % 2], stoa_str_z("1767323045"), rest, hex);

    for (i = 0; i < line.len; i++) {
        if (line.data[i] == '%') {
            stoa_buf_put(&b, hex, 64);

        } else {
            stoa_buf_char(&b, (char) line.data[i]);
        }
    }

    header = stoa_buf_view(&b);
    err = stoa_signature_verify(header, rest, secrets, 2, NOW, 300);
    fuzz_assert(err == STOA_OK || err == STOA_E_SIGNATURE_INVALID);

    if (err == STOA_OK) {
        fuzz_assert(memchr(header.data, 0, header.len) != NULL
                    || fuzz_is_right(header, rest));
        fuzz_assert(
            stoa_signature_verify(header, rest, secrets, 2, NOW + 601, 300)
            == STOA_E_SIGNATURE_INVALID);
        fuzz_assert(stoa_signature_verify(header, rest, NULL, 0, NOW, 300)
                    == STOA_E_SIGNATURE_INVALID);
    }

    stoa_arena_destroy(mem);

    return 0;
}
