/*
 * How people of a language write a date, an hour and a price: the words and
 * patterns come from <lang>/words of the templates.  Pure.
 */

#include "worker_template.h"

#include <stdio.h>

#include "../shared/stoa_str.h"


/* The n-th of "a|b|c". */

static stoa_str_t
worker_template_choice(stoa_str_t list, size_t n)
{
    stoa_str_t     s = list;
    unsigned char *bar;

    for (;;) {
        bar = s.len > 0 ? memchr(s.data, '|', s.len) : NULL;

        if (n == 0 || bar == NULL) {
            if (bar != NULL) {
                s.len = (size_t) (bar - s.data);
            }

            return s;
        }

        s.len -= (size_t) (bar + 1 - s.data);
        s.data = bar + 1;
        n--;
    }
}


/* 0 is Sunday (Sakamoto's method). */

static size_t
worker_template_weekday(int64_t y, int64_t m, int64_t d)
{
    static const int64_t shift[] = { 0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4 };

    if (m < 3) {
        y--;
    }

    return (size_t) ((y + y / 4 - y / 100 + y / 400 + shift[m - 1] + d) % 7);
}


static stoa_str_t
worker_template_slice(stoa_str_t s, size_t from, size_t len)
{
    stoa_str_t part = { len, s.data + from };

    return part;
}


bool
worker_template_when(const worker_templates_t *t, const char *lang,
                     stoa_str_t local, stoa_str_t zone, stoa_buf_t *out)
{
    int64_t       y, m, d;
    const char   *bad;
    worker_var_t  vars[5];
    worker_vars_t all;

    if (local.len < 16 || local.data[4] != '-' || local.data[7] != '-'
        || local.data[13] != ':'
        || !stoa_str_int(worker_template_slice(local, 0, 4), 1, 9999, &y)
        || !stoa_str_int(worker_template_slice(local, 5, 2), 1, 12, &m)
        || !stoa_str_int(worker_template_slice(local, 8, 2), 1, 31, &d))
    {
        return false;
    }

    memset(&all, 0, sizeof(all));
    all.vars = vars;
    all.nvars = stoa_nitems(vars);

    vars[0].name = "weekday";
    vars[0].value = worker_template_choice(worker_template_word(t, lang,
                                                                "weekdays"),
                                           worker_template_weekday(y, m, d));
    vars[1].name = "day";
    vars[1].value = local.data[8] == '0' ? worker_template_slice(local, 9, 1)
                                         : worker_template_slice(local, 8, 2);
    vars[2].name = "month";
    vars[2].value = worker_template_choice(worker_template_word(t, lang,
                                                                "months"),
                                           (size_t) m - 1);
    vars[3].name = "year";
    vars[3].value = worker_template_slice(local, 0, 4);
    vars[4].name = "time";
    vars[4].value = worker_template_slice(local, 11, 5);

    if (!worker_template_fill(out, WORKER_TEMPLATE_TEXT,
                              worker_template_word(t, lang, "when"), &all,
                              &bad))
    {
        return false;
    }

    if (zone.len > 0) {
        stoa_buf_z(out, " (");
        stoa_buf_str(out, zone);
        stoa_buf_char(out, ')');
    }

    return !out->failed;
}


/* Digits behind the point, ISO 4217. */

static size_t
worker_template_digits(stoa_str_t currency)
{
    size_t i;

    static const char *const none[] = { "BIF", "CLP", "DJF", "GNF",
                                        "ISK", "JPY", "KMF", "KRW",
                                        "PYG", "RWF", "UGX", "VND",
                                        "VUV", "XAF", "XOF", "XPF" };
    static const char *const three[] = { "BHD", "IQD", "JOD", "KWD",
                                         "LYD", "OMR", "TND" };

    for (i = 0; i < stoa_nitems(none); i++) {
        if (stoa_str_ieq_z(currency, none[i])) {
            return 0;
        }
    }

    for (i = 0; i < stoa_nitems(three); i++) {
        if (stoa_str_ieq_z(currency, three[i])) {
            return 3;
        }
    }

    return 2;
}


void
worker_template_money(const worker_templates_t *t, const char *lang,
                      int64_t minor, stoa_str_t currency, stoa_buf_t *out)
{
    int        n;
    char       text[32];
    size_t     i, whole, len, digits;
    stoa_str_t thousands;

    digits = worker_template_digits(currency);
    thousands = worker_template_word(t, lang, "thousands");

    if (minor < 0) {
        stoa_buf_char(out, '-');
    }

    n = snprintf(text, sizeof(text), "%0*llu", (int) digits + 1,
                 (unsigned long long) (minor < 0 ? -minor : minor));
    if (n <= 0 || (size_t) n >= sizeof(text)) {
        return;
    }

    len = (size_t) n;
    whole = len - digits;

    for (i = 0; i < len; i++) {
        if (i == whole) {
            stoa_buf_str(out, worker_template_word(t, lang, "decimal"));

        } else if (i > 0 && i < whole && (whole - i) % 3 == 0) {
            stoa_buf_str(out, thousands);
        }

        stoa_buf_char(out, text[i]);
    }

    stoa_buf_z(out, "\xc2\xa0"); /* no-break space */

    for (i = 0; i < currency.len; i++) {
        stoa_buf_char(out, (char) (currency.data[i] & ~0x20));
    }
}
