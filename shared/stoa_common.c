/*
 * Is this one of the most common passwords?  The list is one constant text
 * of sorted lines, mapped with the program; a binary search over its bytes
 * steps back to the beginning of a line, so that no index is needed.
 */

#include "stoa_common.h"
#include "stoa_str.h"

#define STOA_COMMON_MIN 8
#define STOA_COMMON_MAX 32

static const char stoa_common[] =
#include "stoa_common.def"
    ;


/* As memcmp(): the line at p against word, of which neither is cut. */
static int
stoa_common_compare(const char *p, const char *word, size_t len)
{
    size_t i;

    for (i = 0; i < len && p[i] == word[i]; i++) { /* void */
    }

    if (i == len) {
        return p[i] == '\n' ? 0 : 1;
    }

    /* a line that ends here sorts before everything that goes on */
    return p[i] == '\n' || p[i] < word[i] ? -1 : 1;
}


bool
stoa_common_password(stoa_str_t password)
{
    char   word[STOA_COMMON_MAX];
    size_t i, from = 0, to = sizeof(stoa_common) - 1, mid;
    int    order;

    if (password.len < STOA_COMMON_MIN || password.len > sizeof(word)) {
        return false;
    }

    for (i = 0; i < password.len; i++) {
        word[i] = (char) stoa_str_lower(password.data[i]);

        if (word[i] <= ' ' || word[i] > '~') {
            return false; /* no line has these */
        }
    }

    while (from < to) {
        mid = from + (to - from) / 2;

        while (mid > from && stoa_common[mid - 1] != '\n') {
            mid--;
        }

        order = stoa_common_compare(&stoa_common[mid], word, password.len);

        if (order == 0) {
            return true;
        }

        if (order > 0) {
            to = mid;
            continue;
        }

        while (stoa_common[mid] != '\n') {
            mid++;
        }

        from = mid + 1;
    }

    return false;
}
