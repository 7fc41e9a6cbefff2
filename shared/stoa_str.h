/*
 * Slices: comparison, parsing with bounds, encodings.  Pure.
 */

#ifndef STOA_STR_H_INCLUDED
#define STOA_STR_H_INCLUDED

#include "stoa.h"

static inline stoa_str_t
stoa_str_z(const char *z)
{
    stoa_str_t s = { strlen(z), (unsigned char *) (uintptr_t) z };

    return s;
}

static inline bool
stoa_str_eq(stoa_str_t a, stoa_str_t b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* ASCII, whatever the locale */
static inline unsigned char
stoa_str_lower(unsigned char c)
{
    return (unsigned char) (c >= 'A' && c <= 'Z' ? c | 0x20 : c);
}

bool stoa_str_eq_z(stoa_str_t a, const char *z);
bool stoa_str_ieq(stoa_str_t a, stoa_str_t b);    /* ASCII case ignored */
bool stoa_str_ieq_z(stoa_str_t a, const char *z); /* ASCII case ignored */

/* Constant time in the content; the lengths may show. */
bool stoa_str_same_secret(stoa_str_t a, stoa_str_t b);

/* Decimal with optional '-', whole slice, no overflow, within min..max. */
bool stoa_str_int(stoa_str_t s, int64_t min, int64_t max, int64_t *out);

/* RFC 3629; length in code points through *points (may be NULL). */
bool stoa_str_utf8(stoa_str_t s, size_t *points);

/* 36 characters, any case; strict form of RFC 9562. */
bool stoa_uuid_parse(stoa_str_t s, stoa_uuid_t *u);
void stoa_uuid_print(const stoa_uuid_t *u, char out[36]);

/* snake_case name against a wire name in snake_case or camelCase. */
bool stoa_str_same_name(const char *snake, stoa_str_t wire);

/* Writes the camelCase of a snake_case name; out must hold strlen + 1. */
void stoa_str_camel(const char *snake, char *out);

/* RFC 4648 without padding; out sizes by the macros; return written bytes,
   -1 when the input is not valid (decoders refuse non-zero tail bits). */
#define stoa_base64url_len(n) (((n) *4 + 2) / 3)
#define stoa_base32_len(n)    (((n) *8 + 4) / 5)

size_t  stoa_base64url_encode(unsigned char *out, const void *in, size_t len);
ssize_t stoa_base64url_decode(unsigned char *out, size_t size, stoa_str_t in);
size_t  stoa_base32_encode(unsigned char *out, const void *in, size_t len);
ssize_t stoa_base32_decode(unsigned char *out, size_t size, stoa_str_t in);
void    stoa_hex_encode(char *out, const void *in, size_t len); /* lower */
ssize_t stoa_hex_decode(unsigned char *out, size_t size, stoa_str_t in);

/* Percent-decoding of a query value ('+' is a space); -1: malformed. */
ssize_t stoa_url_decode(unsigned char *out, size_t size, stoa_str_t in);

/* "damerau" distance up to 3 for "did you mean"; returns NULL or the name. */
const char *stoa_str_nearest(stoa_str_t s, const char *const *names, size_t n);

#endif /* STOA_STR_H_INCLUDED */
