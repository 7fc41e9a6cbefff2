/*
 * Roles, and the ways of signing in: bits in claims and rows, names on the
 * wire, arrays in PostgreSQL.  A name that is not known gives no bit, so a
 * role of a newer server grants nothing here.
 */

#include "stoa_jwt.h"
#include "stoa_str.h"

static const char *const stoa_role_names[STOA_ROLE_COUNT] = {
#define STOA_ROLE_NAME(name, text) [STOA_ROLE_N_##name] = text,
    STOA_ROLES(STOA_ROLE_NAME)
#undef STOA_ROLE_NAME
};

static const char *const stoa_amr_names[STOA_AMR_COUNT] = {
#define STOA_AMR_NAME(name, text) [STOA_AMR_N_##name] = text,
    STOA_AMRS(STOA_AMR_NAME)
#undef STOA_AMR_NAME
};


/* ---- roles ---- */

const char *
stoa_role_name(uint32_t bit)
{
    unsigned i;

    for (i = 0; i < STOA_ROLE_COUNT; i++) {
        if (bit == 1U << i) {
            return stoa_role_names[i];
        }
    }

    return bit == STOA_DEVICE ? "device" : bit == STOA_PUBLIC ? "public" : "";
}


uint32_t
stoa_role_by_name(stoa_str_t name)
{
    unsigned i;

    for (i = 0; i < STOA_ROLE_COUNT; i++) {
        if (stoa_str_eq_z(name, stoa_role_names[i])) {
            return 1U << i;
        }
    }

    return 0;
}


/* "{admin,member}" to bits. */
static uint32_t
stoa_role_array(stoa_str_t pg_array, uint32_t (*by_name)(stoa_str_t name))
{
    stoa_str_t item;
    uint32_t   bits = 0;
    size_t     i, from;

    for (i = 0, from = 0; i <= pg_array.len; i++) {
        if (i != pg_array.len && strchr("{},\" ", pg_array.data[i]) == NULL) {
            continue;
        }

        item.data = pg_array.data + from;
        item.len = i - from;
        from = i + 1;

        if (item.len != 0) {
            bits |= by_name(item);
        }
    }

    return bits;
}


uint32_t
stoa_roles_parse(stoa_str_t pg_array)
{
    return stoa_role_array(pg_array, stoa_role_by_name);
}


void
stoa_roles_print(stoa_buf_t *b, uint32_t roles)
{
    unsigned i;
    bool     first = true;

    stoa_buf_char(b, '{');

    for (i = 0; i < STOA_ROLE_COUNT; i++) {
        if (roles & 1U << i) {
            stoa_buf_z(b, first ? "" : ",");
            stoa_buf_z(b, stoa_role_names[i]);
            first = false;
        }
    }

    stoa_buf_char(b, '}');
}


/* ---- ways of signing in ---- */

const char *
stoa_amr_name(uint32_t bit)
{
    unsigned i;

    for (i = 0; i < STOA_AMR_COUNT; i++) {
        if (bit == 1U << i) {
            return stoa_amr_names[i];
        }
    }

    return "";
}


uint32_t
stoa_amr_by_name(stoa_str_t name)
{
    unsigned i;

    for (i = 0; i < STOA_AMR_COUNT; i++) {
        if (stoa_str_eq_z(name, stoa_amr_names[i])) {
            return 1U << i;
        }
    }

    return 0;
}


uint32_t
stoa_amr_parse(stoa_str_t pg_array)
{
    return stoa_role_array(pg_array, stoa_amr_by_name);
}
