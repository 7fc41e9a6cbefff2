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


bool
stoa_scalar_is_currency(stoa_str_t s)
{
    size_t i;

    for (i = 0; i < s.len; i++) {
        if (s.data[i] < 'A' || s.data[i] > 'Z') {
            return false;
        }
    }

    return s.len == 3;
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
