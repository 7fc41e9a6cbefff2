/*
 * Codes of authenticator apps: HOTP (RFC 4226) counted by time (RFC 6238),
 * with HMAC-SHA-1, six digits and steps of 30 s, which every app knows.
 * Pure, no state: that a step is used once is for whoever stores the last.
 */

#ifndef STOA_TOTP_H_INCLUDED
#define STOA_TOTP_H_INCLUDED

#include "stoa_buf.h"

#define STOA_TOTP_SECRET 20 /* bytes, RFC 4226 section 4: 160 bits */
#define STOA_TOTP_DIGITS 6
#define STOA_TOTP_PERIOD 30 /* seconds */
#define STOA_TOTP_WINDOW 1  /* steps that clocks differ, RFC 6238 5.2 */

/* RFC 4226 5.3, with 6 to 8 digits and a NUL behind them. */
bool stoa_hotp(stoa_str_t secret, uint64_t counter, unsigned digits,
               char out[9]) STOA_MUSTCHECK;

/*
 * The step of which this is the code: that of now_s (UNIX seconds) or one to
 * either side, and later than last.  -1: of none.  How long it takes tells
 * nothing of the right code.
 */
int64_t stoa_totp_step(stoa_str_t secret, stoa_str_t code, int64_t now_s,
                       int64_t last);

/* What a QR code hands to an app: otpauth://totp/ISSUER:ACCOUNT?secret=...
   issuer without a colon. */
void stoa_totp_uri(stoa_buf_t *b, const unsigned char secret[STOA_TOTP_SECRET],
                   stoa_str_t issuer, stoa_str_t account);

#endif /* STOA_TOTP_H_INCLUDED */
