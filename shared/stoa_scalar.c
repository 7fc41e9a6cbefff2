/*
 * The forms of texts that have a name: e-mail address, time zone, currency,
 * URL.  Form only: whether a zone exists or a mailbox answers is for others
 * to know.  Input is UTF-8; what is not ASCII has none of these forms.
 */

#include "stoa_scalar.h"

static bool
stoa_scalar_is_atom(unsigned char c)
{
    return c > ' ' && c < 0x7f && strchr("()<>[]:;@\\,\"", c) == NULL;
}


/* A host name with a dot: labels of letters, digits and inner hyphens. */
static bool
stoa_scalar_is_domain(stoa_str_t s)
{
    size_t        i, label = 0, labels = 1;
    unsigned char c;

    for (i = 0; i < s.len; i++) {
        c = s.data[i];

        if (c == '.') {
            if (label == 0 || s.data[i - 1] == '-') {
                return false;
            }

            label = 0;
            labels++;
            continue;
        }

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z')
              || (c >= 'A' && c <= 'Z') || (c == '-' && label != 0))
            || ++label > 63)
        {
            return false;
        }
    }

    return labels > 1 && label != 0 && s.data[s.len - 1] != '-';
}


bool
stoa_scalar_is_email(stoa_str_t s)
{
    stoa_str_t domain;
    size_t     i;

    if (s.len > 254) {
        return false;
    }

    for (i = 0; i < s.len && s.data[i] != '@'; i++) {
        if (!stoa_scalar_is_atom(s.data[i])
            || (s.data[i] == '.' && (i == 0 || s.data[i - 1] == '.')))
        {
            return false;
        }
    }

    if (i == 0 || i > 64 || i == s.len || s.data[i - 1] == '.') {
        return false;
    }

    domain.data = s.data + i + 1;
    domain.len = s.len - i - 1;

    return stoa_scalar_is_domain(domain);
}


bool
stoa_scalar_is_timezone(stoa_str_t s)
{
    size_t        i;
    unsigned char c, last = '/';

    if (s.len == 0 || s.len > 64) {
        return false;
    }

    for (i = 0; i < s.len; i++) {
        c = s.data[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
              || (last != '/' && c == '/')
              || (last != '/'
                  && ((c >= '0' && c <= '9') || c == '_' || c == '+'
                      || c == '-'))))
        {
            return false;
        }

        last = c;
    }

    return last != '/';
}


/* Funds, metals, test codes and those that were replaced are not here. */
static const char stoa_scalar_currencies[] =
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND "
    "BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY COP CRC CUP CVE "
    "CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD "
    "GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY "
    "KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD "
    "MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO "
    "NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF "
    "SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB "
    "TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND "
    "VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG ";


bool
stoa_scalar_is_currency(stoa_str_t s)
{
    const char *code;

    if (s.len != 3) {
        return false;
    }

    for (code = stoa_scalar_currencies; *code != '\0'; code += 4) {
        if (memcmp(code, s.data, 3) == 0) {
            return true;
        }
    }

    return false;
}


bool
stoa_scalar_is_url(stoa_str_t s)
{
    size_t i, front;

    if (s.len > 8 && memcmp(s.data, "https://", 8) == 0) {
        front = 8;

    } else if (s.len > 7 && memcmp(s.data, "http://", 7) == 0) {
        front = 7;

    } else {
        return false;
    }

    if (strchr("/?#:.@", s.data[front]) != NULL) {
        return false;
    }

    for (i = front; i < s.len; i++) {
        if (s.data[i] <= ' ' || s.data[i] >= 0x7f
            || strchr("\"<>\\^`{|}", s.data[i]) != NULL)
        {
            return false;
        }
    }

    return true;
}


/* The code point at p of valid UTF-8, *len bytes long. */
static uint32_t
stoa_scalar_point(const unsigned char *p, size_t *len)
{
    if (p[0] < 0x80) {
        *len = 1;
        return p[0];
    }

    if (p[0] < 0xe0) {
        *len = 2;
        return (uint32_t) (p[0] & 0x1f) << 6 | (p[1] & 0x3f);
    }

    if (p[0] < 0xf0) {
        *len = 3;
        return (uint32_t) (p[0] & 0x0f) << 12 | (uint32_t) (p[1] & 0x3f) << 6
             | (p[2] & 0x3f);
    }

    *len = 4; /* nothing of interest up there */
    return 0x10000;
}


/* Unicode's White_Space, and what has no width. */
static bool
stoa_scalar_is_space(uint32_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85 || c == 0xa0
        || c == 0x1680 || (c >= 0x2000 && c <= 0x200b) || c == 0x2028
        || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x2060
        || c == 0x3000 || c == 0xfeff;
}


stoa_str_t
stoa_scalar_trim(stoa_str_t s)
{
    size_t len, end;

    while (s.len != 0 && stoa_scalar_is_space(stoa_scalar_point(s.data, &len)))
    {
        s.data += len;
        s.len -= len;
    }

    while (s.len != 0) {
        end = s.len - 1;

        while (end != 0 && (s.data[end] & 0xc0) == 0x80) {
            end--;
        }

        if (!stoa_scalar_is_space(stoa_scalar_point(s.data + end, &len))) {
            break;
        }

        s.len = end;
    }

    return s;
}


bool
stoa_scalar_is_plain(stoa_str_t s, bool lines)
{
    size_t   i, len;
    uint32_t c;

    for (i = 0; i < s.len; i += len) {
        c = stoa_scalar_point(s.data + i, &len);

        if (c < ' ' || (c >= 0x7f && c < 0xa0)) {
            if (!lines || (c != '\t' && c != '\n' && c != '\r')) {
                return false;
            }

        } else if (!lines && c >= 0x2028
                   && (c <= 0x202e || (c >= 0x2066 && c <= 0x2069)))
        {
            return false;
        }
    }

    return true;
}
