/*
 * Slices and encodings.  Everything here is pure: no allocation, no state,
 * no locale.  Parsers take the whole slice or refuse it, and write only
 * within the size that they were given.  Comparison of secrets is constant
 * time in the content.  Used by every other file of shared/.
 */

#include "stoa_str.h"

#include <endian.h>
#include <limits.h>

static int stoa_str_hex_digit(unsigned char c);


bool
stoa_str_eq_z(stoa_str_t a, const char *z)
{
    size_t len = strlen(z);

    return a.len == len && (len == 0 || memcmp(a.data, z, len) == 0);
}


bool
stoa_str_ieq(stoa_str_t a, stoa_str_t b)
{
    size_t i;

    if (a.len != b.len) {
        return false;
    }

    for (i = 0; i < a.len; i++) {
        if (stoa_str_lower(a.data[i]) != stoa_str_lower(b.data[i])) {
            return false;
        }
    }

    return true;
}


bool
stoa_str_ieq_z(stoa_str_t a, const char *z)
{
    return stoa_str_ieq(a, stoa_str_z(z));
}


bool
stoa_str_same_secret(stoa_str_t a, stoa_str_t b)
{
    volatile unsigned char diff = 0;
    size_t                 i;

    if (a.len != b.len) {
        return false;
    }

    for (i = 0; i < a.len; i++) {
        diff = (unsigned char) (diff | (a.data[i] ^ b.data[i]));
    }

    return diff == 0;
}


bool
stoa_str_int(stoa_str_t s, int64_t min, int64_t max, int64_t *out)
{
    bool     negative;
    size_t   i;
    int64_t  n;
    unsigned digit;

    negative = s.len != 0 && s.data[0] == '-';
    i = negative ? 1 : 0;

    if (i == s.len) {
        return false;
    }

    /* counted downwards, so that INT64_MIN needs no case of its own */
    for (n = 0; i < s.len; i++) {
        digit = (unsigned) s.data[i] - '0';

        if (digit > 9 || __builtin_mul_overflow(n, (int64_t) 10, &n)
            || __builtin_sub_overflow(n, (int64_t) digit, &n))
        {
            return false;
        }
    }

    if (!negative) {
        if (n == INT64_MIN) {
            return false;
        }

        n = -n;
    }

    if (n < min || n > max) {
        return false;
    }

    *out = n;

    return true;
}


/* Bytes of the sequence at p, 0 when it is not well-formed (RFC 3629). */
static size_t
stoa_str_utf8_sequence(const unsigned char *p, size_t left)
{
    unsigned char c = p[0], low = 0x80, high = 0xbf;
    size_t        n, i;

    if (c < 0x80) {
        return 1;
    }

    if (c >= 0xc2 && c <= 0xdf) {
        n = 2;

    } else if (c >= 0xe0 && c <= 0xef) {
        n = 3;
        low = c == 0xe0 ? 0xa0 : 0x80;
        high = c == 0xed ? 0x9f : 0xbf; /* no surrogates */

    } else if (c >= 0xf0 && c <= 0xf4) {
        n = 4;
        low = c == 0xf0 ? 0x90 : 0x80;
        high = c == 0xf4 ? 0x8f : 0xbf; /* up to U+10FFFF */

    } else {
        return 0;
    }

    if (n > left || p[1] < low || p[1] > high) {
        return 0;
    }

    for (i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }

    return n;
}


bool
stoa_str_utf8(stoa_str_t s, size_t *points)
{
    size_t   i = 0, n = 0, step;
    uint64_t eight;

    while (i < s.len) {
        if (s.len - i >= 8) {
            memcpy(&eight, s.data + i, 8);

            if ((eight & 0x8080808080808080ULL) == 0) {
                i += 8;
                n += 8;
                continue;
            }
        }

        step = stoa_str_utf8_sequence(s.data + i, s.len - i);
        if (step == 0) {
            return false;
        }

        i += step;
        n++;
    }

    if (points != NULL) {
        *points = n;
    }

    return true;
}


static int
stoa_str_hex_digit(unsigned char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    c = stoa_str_lower(c);

    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }

    return -1;
}


bool
stoa_uuid_parse(stoa_str_t s, stoa_uuid_t *u)
{
    size_t i, n;
    int    high, low;

    if (s.len != 36) {
        return false;
    }

    for (i = 0, n = 0; i < 36; /* void */) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (s.data[i] != '-') {
                return false;
            }

            i++;
            continue;
        }

        high = stoa_str_hex_digit(s.data[i]);
        low = stoa_str_hex_digit(s.data[i + 1]);

        if (high < 0 || low < 0) {
            return false;
        }

        u->b[n++] = (unsigned char) (high << 4 | low);
        i += 2;
    }

    return true;
}


/* Four bytes to eight digits at once: every request prints several ids. */
static void
stoa_uuid_hex8(const unsigned char *b, char out[8])
{
    uint64_t x, above9;

    x = (uint64_t) b[0] << 24 | (uint64_t) b[1] << 16 | (uint64_t) b[2] << 8
      | b[3];

    x = (x << 16 | x) & UINT64_C(0x0000ffff0000ffff);
    x = (x << 8 | x) & UINT64_C(0x00ff00ff00ff00ff);
    x = (x << 4 | x) & UINT64_C(0x0f0f0f0f0f0f0f0f);

    above9 = ((x + UINT64_C(0x0606060606060606)) >> 4)
           & UINT64_C(0x0101010101010101);
    x += UINT64_C(0x3030303030303030) + above9 * ('a' - '0' - 10);

    x = htobe64(x);
    memcpy(out, &x, 8);
}


void
stoa_uuid_print(const stoa_uuid_t *u, char out[36])
{
    char hex[32];

    stoa_uuid_hex8(u->b, hex);
    stoa_uuid_hex8(u->b + 4, hex + 8);
    stoa_uuid_hex8(u->b + 8, hex + 16);
    stoa_uuid_hex8(u->b + 12, hex + 24);

    memcpy(out, hex, 8);
    out[8] = '-';
    memcpy(out + 9, hex + 8, 4);
    out[13] = '-';
    memcpy(out + 14, hex + 12, 4);
    out[18] = '-';
    memcpy(out + 19, hex + 16, 4);
    out[23] = '-';
    memcpy(out + 24, hex + 20, 12);
}


void
stoa_str_camel(const char *snake, char *out)
{
    bool up = false;

    for (/* void */; *snake != '\0'; snake++) {
        if (*snake == '_') {
            up = true;
            continue;
        }

        *out++ = (char) (up && *snake >= 'a' && *snake <= 'z' ? *snake & ~0x20
                                                              : *snake);
        up = false;
    }

    *out = '\0';
}


bool
stoa_str_same_name(const char *snake, stoa_str_t wire)
{
    size_t i = 0;
    bool   up = false;
    char   c;

    if (stoa_str_eq_z(wire, snake)) {
        return true;
    }

    for (/* void */; *snake != '\0'; snake++) {
        if (*snake == '_') {
            up = true;
            continue;
        }

        c = (char) (up && *snake >= 'a' && *snake <= 'z' ? *snake & ~0x20
                                                         : *snake);
        up = false;

        if (i == wire.len || wire.data[i++] != (unsigned char) c) {
            return false;
        }
    }

    return i == wire.len;
}


size_t
stoa_base64url_encode(unsigned char *out, const void *in, size_t len)
{
    static const char abc[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrst"
                              "uvwxyz0123456789-_";
    const unsigned char *p = in;
    unsigned char       *start = out;

    for (/* void */; len >= 3; len -= 3, p += 3) {
        *out++ = (unsigned char) abc[p[0] >> 2];
        *out++ = (unsigned char) abc[(p[0] & 3) << 4 | p[1] >> 4];
        *out++ = (unsigned char) abc[(p[1] & 15) << 2 | p[2] >> 6];
        *out++ = (unsigned char) abc[p[2] & 63];
    }

    if (len != 0) {
        *out++ = (unsigned char) abc[p[0] >> 2];

        if (len == 1) {
            *out++ = (unsigned char) abc[(p[0] & 3) << 4];

        } else {
            *out++ = (unsigned char) abc[(p[0] & 3) << 4 | p[1] >> 4];
            *out++ = (unsigned char) abc[(p[1] & 15) << 2];
        }
    }

    return (size_t) (out - start);
}


#define N 255 /* not of the alphabet */

static const unsigned char stoa_base64url_value[256] = {
    N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,
    N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,
    N,  N,  N,  N,  N,  N,  N,  62, N,  N,  52, 53, 54, 55, 56, 57, 58, 59, 60,
    61, N,  N,  N,  N,  N,  N,  N,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
    11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, N,  N,  N,  N,
    63, N,  26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42,
    43, 44, 45, 46, 47, 48, 49, 50, 51, N,  N,  N,  N,  N,  N,  N,  N,  N,  N,
    N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,
    N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,
    N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,
    N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,
    N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,
    N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,
    N,  N,  N,  N,  N,  N,  N,  N,  N,
};

#undef N


ssize_t
stoa_base64url_decode(unsigned char *out, size_t size, stoa_str_t in)
{
    const unsigned char *v = stoa_base64url_value, *p = in.data;
    unsigned char       *start = out;
    size_t               len = in.len, tail = in.len % 4;
    unsigned             a, b, c, d;

    if (tail == 1 || size < len / 4 * 3 + (tail ? tail - 1 : 0)) {
        return -1;
    }

    for (/* void */; len >= 4; len -= 4, p += 4) {
        a = v[p[0]];
        b = v[p[1]];
        c = v[p[2]];
        d = v[p[3]];

        if ((a | b | c | d) & 0xc0) {
            return -1;
        }

        *out++ = (unsigned char) (a << 2 | b >> 4);
        *out++ = (unsigned char) ((b & 15) << 4 | c >> 2);
        *out++ = (unsigned char) ((c & 3) << 6 | d);
    }

    if (tail != 0) {
        a = v[p[0]];
        b = v[p[1]];
        c = tail == 3 ? v[p[2]] : 0;

        if ((a | b | c) & 0xc0) {
            return -1;
        }

        *out++ = (unsigned char) (a << 2 | b >> 4);

        if (tail == 3) {
            *out++ = (unsigned char) ((b & 15) << 4 | c >> 2);
        }

        /* one text per value: the bits that carry nothing are zero */
        if (tail == 2 ? b & 15 : c & 3) {
            return -1;
        }
    }

    return out - start;
}


size_t
stoa_base32_encode(unsigned char *out, const void *in, size_t len)
{
    static const char    abc[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const unsigned char *p = in;
    unsigned char       *start = out;
    unsigned             bits = 0, n = 0;
    size_t               i;

    for (i = 0; i < len; i++) {
        bits = (bits << 8 | p[i]) & 0xffff;

        for (n += 8; n >= 5; n -= 5) {
            *out++ = (unsigned char) abc[bits >> (n - 5) & 31];
        }
    }

    if (n != 0) {
        *out++ = (unsigned char) abc[bits << (5 - n) & 31];
    }

    return (size_t) (out - start);
}


ssize_t
stoa_base32_decode(unsigned char *out, size_t size, stoa_str_t in)
{
    size_t   i, used = 0, tail = in.len % 8;
    unsigned bits = 0, n = 0, v;

    if (tail == 1 || tail == 3 || tail == 6) {
        return -1;
    }

    for (i = 0; i < in.len; i++) {
        v = stoa_str_lower(in.data[i]);

        if (v >= 'a' && v <= 'z') {
            v -= 'a';

        } else if (v >= '2' && v <= '7') {
            v -= '2' - 26;

        } else {
            return -1;
        }

        bits = (bits << 5 | v) & 0xffff;
        n += 5;

        if (n >= 8) {
            n -= 8;

            if (used == size) {
                return -1;
            }

            out[used++] = (unsigned char) (bits >> n);
        }
    }

    return bits & ((1U << n) - 1) ? -1 : (ssize_t) used;
}


void
stoa_hex_encode(char *out, const void *in, size_t len)
{
    static const char    hex[] = "0123456789abcdef";
    const unsigned char *p = in;
    size_t               i;

    for (i = 0; i < len; i++) {
        *out++ = hex[p[i] >> 4];
        *out++ = hex[p[i] & 15];
    }
}


ssize_t
stoa_hex_decode(unsigned char *out, size_t size, stoa_str_t in)
{
    size_t i;
    int    high, low;

    if (in.len % 2 != 0 || in.len / 2 > size) {
        return -1;
    }

    for (i = 0; i < in.len; i += 2) {
        high = stoa_str_hex_digit(in.data[i]);
        low = stoa_str_hex_digit(in.data[i + 1]);

        if (high < 0 || low < 0) {
            return -1;
        }

        *out++ = (unsigned char) (high << 4 | low);
    }

    return (ssize_t) (in.len / 2);
}


ssize_t
stoa_url_decode(unsigned char *out, size_t size, stoa_str_t in)
{
    size_t i, used = 0;
    int    high, low;

    for (i = 0; i < in.len; i++) {
        if (used == size) {
            return -1;
        }

        if (in.data[i] == '+') {
            out[used++] = ' ';
            continue;
        }

        if (in.data[i] != '%') {
            out[used++] = in.data[i];
            continue;
        }

        if (in.len - i < 3) {
            return -1;
        }

        high = stoa_str_hex_digit(in.data[i + 1]);
        low = stoa_str_hex_digit(in.data[i + 2]);

        if (high < 0 || low < 0) {
            return -1;
        }

        out[used++] = (unsigned char) (high << 4 | low);
        i += 2;
    }

    return (ssize_t) used;
}


#define STOA_STR_NEAREST_MAX 48

/* Damerau-Levenshtein (neighbours swapped count one), case ignored. */
static size_t
stoa_str_distance(stoa_str_t a, stoa_str_t b)
{
    uint8_t  row[3][STOA_STR_NEAREST_MAX + 1];
    uint8_t *before, *last, *now, *spare;
    size_t   i, j;
    unsigned cost, best;

    before = row[0];
    last = row[1];
    now = row[2];

    for (j = 0; j <= b.len; j++) {
        last[j] = (uint8_t) j;
    }

    for (i = 1; i <= a.len; i++) {
        now[0] = (uint8_t) i;

        for (j = 1; j <= b.len; j++) {
            cost = stoa_str_lower(a.data[i - 1])
                != stoa_str_lower(b.data[j - 1]);
            best = last[j - 1] + cost;
            best = last[j] + 1U < best ? last[j] + 1U : best;
            best = now[j - 1] + 1U < best ? now[j - 1] + 1U : best;

            if (i > 1 && j > 1 && a.data[i - 1] == b.data[j - 2]
                && a.data[i - 2] == b.data[j - 1] && before[j - 2] + 1U < best)
            {
                best = before[j - 2] + 1U;
            }

            now[j] = (uint8_t) best;
        }

        spare = before;
        before = last;
        last = now;
        now = spare;
    }

    return last[b.len];
}


const char *
stoa_str_nearest(stoa_str_t s, const char *const *names, size_t n)
{
    const char *found = NULL;
    stoa_str_t  name;
    size_t      i, d, limit, best = SIZE_MAX;

    if (s.len > STOA_STR_NEAREST_MAX) {
        return NULL;
    }

    for (i = 0; i < n; i++) {
        name = stoa_str_z(names[i]);

        if (name.len > STOA_STR_NEAREST_MAX) {
            continue;
        }

        limit = name.len / 3 + 1 < 3 ? name.len / 3 + 1 : 3;
        d = stoa_str_distance(s, name);

        if (d <= limit && d < best) {
            best = d;
            found = names[i];
        }
    }

    return found;
}
