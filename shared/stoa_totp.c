/*
 * HOTP and TOTP, and the address by which apps learn a secret.  All steps of
 * the window are computed whichever of them fits, and codes are compared in
 * constant time.
 */

#include "stoa_totp.h"
#include "stoa_hmac.h"
#include "stoa_str.h"


bool
stoa_hotp(stoa_str_t secret, uint64_t counter, unsigned digits, char out[9])
{
    unsigned char text[8], mac[STOA_SHA1_LEN];
    unsigned      i, from;
    uint32_t      n;

    for (i = 0; i < sizeof(text); i++) {
        text[i] = (unsigned char) (counter >> (56 - 8 * i));
    }

    if (digits < 6 || digits > 8
        || !stoa_hmac_sha1(secret, text, sizeof(text), mac))
    {
        return false;
    }

    /* dynamic truncation: 31 bits from where the last nibble says */
    from = mac[STOA_SHA1_LEN - 1] & 15;
    n = (uint32_t) (mac[from] & 127) << 24 | (uint32_t) mac[from + 1] << 16
      | (uint32_t) mac[from + 2] << 8 | mac[from + 3];

    out[digits] = '\0';

    for (i = digits; i > 0; i--) {
        out[i - 1] = (char) ('0' + n % 10);
        n /= 10;
    }

    return true;
}


int64_t
stoa_totp_step(stoa_str_t secret, stoa_str_t code, int64_t now_s, int64_t last)
{
    stoa_str_t made = { STOA_TOTP_DIGITS, NULL };
    char       text[9];
    int64_t    step, found = -1, now = now_s / STOA_TOTP_PERIOD;

    made.data = (unsigned char *) text;

    for (step = now - STOA_TOTP_WINDOW; step <= now + STOA_TOTP_WINDOW; step++)
    {
        if (step < 0
            || !stoa_hotp(secret, (uint64_t) step, STOA_TOTP_DIGITS, text)) {
            continue;
        }

        if (stoa_str_same_secret(made, code) && step > last) {
            found = step;
        }
    }

    return found;
}


/* RFC 3986: all but the unreserved by percent. */
static void
stoa_totp_part(stoa_buf_t *b, stoa_str_t s)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz0123456789-._~";
    size_t            i;

    for (i = 0; i < s.len; i++) {
        if (memchr(plain, s.data[i], sizeof(plain) - 1) != NULL) {
            stoa_buf_char(b, (char) s.data[i]);

        } else {
            stoa_buf_printf(b, "%%%02X", s.data[i]);
        }
    }
}


void
stoa_totp_uri(stoa_buf_t *b, const unsigned char secret[STOA_TOTP_SECRET],
              stoa_str_t issuer, stoa_str_t account)
{
    unsigned char text[stoa_base32_len(STOA_TOTP_SECRET)];

    stoa_buf_z(b, "otpauth://totp/");
    stoa_totp_part(b, issuer);
    stoa_buf_char(b, ':');
    stoa_totp_part(b, account);
    stoa_buf_z(b, "?secret=");
    stoa_buf_put(b, text, stoa_base32_encode(text, secret, STOA_TOTP_SECRET));
    stoa_buf_z(b, "&issuer=");
    stoa_totp_part(b, issuer);
    stoa_buf_printf(b, "&algorithm=SHA1&digits=%d&period=%d", STOA_TOTP_DIGITS,
                    STOA_TOTP_PERIOD);
    explicit_bzero(text, sizeof(text));
}
