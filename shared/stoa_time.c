/*
 * Clock and RFC 3339.  Calendar arithmetic is proleptic Gregorian on whole
 * days, without the C library's calendar, locale or zone files.  Test builds
 * add an offset read from a mapped file, so that a test moves the clock of
 * running processes by writing eight bytes, and lets it stand by eight more.
 */

#include "stoa_time.h"
#include "stoa_str.h"

#include <time.h>

#ifdef STOA_TEST
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* test builds only: the mapped file, set once at start */
static const volatile int64_t *stoa_time_offset;
static const volatile int64_t *stoa_time_stands;
#endif

#define STOA_TIME_DAY 86400000LL
#define STOA_TIME_MAX 253402300799999LL /* 9999-12-31T23:59:59.999Z */


int64_t
stoa_time_ms(void)
{
    struct timespec ts;
    int64_t         ms;

    if (clock_gettime(CLOCK_REALTIME, &ts) != 0) {
        stoa_bug("the clock cannot be read");
        return 0;
    }

    ms = (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;

#ifdef STOA_TEST
    if (stoa_time_stands != NULL && *stoa_time_stands != 0) {
        ms = *stoa_time_stands;
    }

    if (stoa_time_offset != NULL) {
        ms += *stoa_time_offset;
    }
#endif

    return ms;
}


uint64_t
stoa_time_mono_ms(void)
{
    struct timespec ts;

    if (clock_gettime(CLOCK_MONOTONIC, &ts) != 0) {
        stoa_bug("the monotonic clock cannot be read");
        return 0;
    }

    return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}


#ifdef STOA_TEST

bool
stoa_time_test_file(const char *path)
{
    struct stat st;
    size_t      size;
    void       *p;
    int         fd;

    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd == -1) {
        return false;
    }

    if (fstat(fd, &st) != 0 || st.st_size < (off_t) sizeof(int64_t)) {
        (void) close(fd); /* it was only read */
        return false;
    }

    size = (size_t) st.st_size < 2 * sizeof(int64_t) ? sizeof(int64_t)
                                                     : 2 * sizeof(int64_t);
    p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    (void) close(fd); /* the mapping stays */

    if (p == MAP_FAILED) {
        return false;
    }

    stoa_time_offset = p;
    stoa_time_stands = size > sizeof(int64_t) ? stoa_time_offset + 1 : NULL;

    return true;
}

#endif


/* Days since 1970-01-01 of a date; years from 1 March, in eras of 400. */
static int64_t
stoa_time_days(int64_t year, int64_t month, int64_t day)
{
    int64_t y, era, yoe, doy;

    y = month <= 2 ? year - 1 : year;
    era = y / 400;
    yoe = y - era * 400;
    doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}


static void
stoa_time_digits(char *out, int64_t n, int digits)
{
    while (digits-- > 0) {
        out[digits] = (char) ('0' + n % 10);
        n /= 10;
    }
}


void
stoa_time_print(int64_t ms, char out[24])
{
    int64_t days, rest, era, doe, yoe, doy, mp, year, month, day;

    if (ms < 0) {
        ms = 0;

    } else if (ms > STOA_TIME_MAX) {
        ms = STOA_TIME_MAX;
    }

    days = ms / STOA_TIME_DAY + 719468;
    rest = ms % STOA_TIME_DAY;

    era = days / 146097;
    doe = days - era * 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;
    day = doy - (153 * mp + 2) / 5 + 1;
    month = mp < 10 ? mp + 3 : mp - 9;
    year = yoe + era * 400 + (month <= 2 ? 1 : 0);

    memcpy(out, "0000-00-00T00:00:00.000Z", 24);
    stoa_time_digits(out, year, 4);
    stoa_time_digits(out + 5, month, 2);
    stoa_time_digits(out + 8, day, 2);
    stoa_time_digits(out + 11, rest / 3600000, 2);
    stoa_time_digits(out + 14, rest / 60000 % 60, 2);
    stoa_time_digits(out + 17, rest / 1000 % 60, 2);
    stoa_time_digits(out + 20, rest % 1000, 3);
}


/* n digits at s[at], within min..max. */
static bool
stoa_time_field(stoa_str_t s, size_t at, size_t n, int64_t min, int64_t max,
                int64_t *out)
{
    stoa_str_t part;

    if (at > s.len || n > s.len - at || s.data[at] == '-') {
        return false;
    }

    part.data = s.data + at;
    part.len = n;

    return stoa_str_int(part, min, max, out);
}


static bool
stoa_time_parse_date(stoa_str_t s, int64_t *days)
{
    static const unsigned char lengths[] = { 31, 28, 31, 30, 31, 30,
                                             31, 31, 30, 31, 30, 31 };
    int64_t                    year, month, day, last;

    if (!stoa_time_field(s, 0, 4, 1970, 9999, &year)
        || !stoa_time_field(s, 5, 2, 1, 12, &month)
        || !stoa_time_field(s, 8, 2, 1, 31, &day) || s.data[4] != '-'
        || s.data[7] != '-')
    {
        return false;
    }

    last = lengths[month - 1];

    if (month == 2 && (year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))) {
        last = 29;
    }

    if (day > last) {
        return false;
    }

    *days = stoa_time_days(year, month, day);

    return true;
}


/* "Z" or "+hh:mm" from s[at] to the end, in minutes. */
static bool
stoa_time_parse_offset(stoa_str_t s, size_t at, int64_t *minutes)
{
    int64_t h, m;

    if (s.len - at == 1 && (s.data[at] == 'Z' || s.data[at] == 'z')) {
        *minutes = 0;
        return true;
    }

    if (s.len - at != 6 || (s.data[at] != '+' && s.data[at] != '-')
        || s.data[at + 3] != ':' || !stoa_time_field(s, at + 1, 2, 0, 23, &h)
        || !stoa_time_field(s, at + 4, 2, 0, 59, &m))
    {
        return false;
    }

    *minutes = (s.data[at] == '-' ? -1 : 1) * (h * 60 + m);

    return true;
}


bool
stoa_time_parse(stoa_str_t s, int64_t *ms)
{
    int64_t days, hour, minute, second, fraction, scale, offset, t;
    size_t  i;

    if (s.len < 20 || !stoa_time_parse_date(s, &days)
        || (s.data[10] != 'T' && s.data[10] != 't') || s.data[13] != ':'
        || s.data[16] != ':' || !stoa_time_field(s, 11, 2, 0, 23, &hour)
        || !stoa_time_field(s, 14, 2, 0, 59, &minute)
        || !stoa_time_field(s, 17, 2, 0, 60, &second))
    {
        return false;
    }

    i = 19;
    fraction = 0;

    if (s.data[i] == '.') {
        scale = 100;

        for (i++; i < s.len && s.data[i] >= '0' && s.data[i] <= '9'; i++) {
            fraction += (s.data[i] - '0') * scale;
            scale /= 10;
        }

        if (i == 20 || i == s.len) {
            return false;
        }
    }

    if (!stoa_time_parse_offset(s, i, &offset)) {
        return false;
    }

    t = days * 1440 + hour * 60 + minute - offset;

    /* a leap second is the last one of a day of UTC */
    if (second == 60 && t % 1440 != 1439) {
        return false;
    }

    t = (t * 60 + second) * 1000 + fraction;

    if (t < 0 || t > STOA_TIME_MAX) {
        return false;
    }

    *ms = t;

    return true;
}
