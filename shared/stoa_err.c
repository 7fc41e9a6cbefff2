/*
 * Error rows and the two ways into them: wire codes, which SQL's refusals
 * carry, and SQLSTATEs with constraint names (stoa_constraint.def).
 */

#include "stoa.h"
#include "stoa_err.h"

static const stoa_err_row_t stoa_err_rows[STOA_E_COUNT] = {
    [STOA_OK] = { "INTERNAL", "An error on our side", 500 },
#define STOA_ERR(name, status, code, title)                                    \
    [STOA_E_##name] = { code, title, status },
#include "stoa_err.def"
#undef STOA_ERR
};

static const struct {
    const char *name;
    stoa_err_e  err;
} stoa_err_constraints[] = {
#define STOA_CONSTRAINT(name, err) { name, STOA_E_##err },
#include "stoa_constraint.def"
#undef STOA_CONSTRAINT
};

/* draft-ietf-httpapi-ratelimit-headers, problem types */
#define STOA_ERR_IANA "https://iana.org/assignments/http-problem-types#"

static const struct {
    stoa_err_e  err;
    const char *type;
} stoa_err_types[] = {
    { STOA_E_RATE_LIMITED, STOA_ERR_IANA "quota-exceeded" },
    { STOA_E_HASH_QUEUE_FULL, STOA_ERR_IANA "temporary-reduced-capacity" },
    { STOA_E_POOL_SATURATED, STOA_ERR_IANA "temporary-reduced-capacity" },
};

/* A prefix of SQLSTATEs; the first that fits wins. */
static const struct {
    const char *state;
    stoa_err_e  err;
} stoa_err_states[] = {
    { "40001", STOA_E_CONFLICT }, /* after the caller's one retry */
    { "40P01", STOA_E_CONFLICT },
    { "55P03", STOA_E_CONFLICT },
    { "57014", STOA_E_TIMEOUT },
    { "57P", STOA_E_DATABASE_UNAVAILABLE },
    { "08", STOA_E_DATABASE_UNAVAILABLE },
    { "53", STOA_E_DATABASE_UNAVAILABLE },
};


const stoa_err_row_t *
stoa_err_row(stoa_err_e err)
{
    if ((unsigned) err >= STOA_E_COUNT) {
        err = STOA_OK;
    }

    return &stoa_err_rows[err];
}


const char *
stoa_err_type(stoa_err_e err)
{
    size_t i;

    for (i = 0; i < stoa_nitems(stoa_err_types); i++) {
        if (stoa_err_types[i].err == err) {
            return stoa_err_types[i].type;
        }
    }

    return NULL;
}


stoa_err_e
stoa_err_by_code(const char *code, size_t len)
{
    unsigned i;

    for (i = STOA_OK + 1; i < STOA_E_COUNT; i++) {
        if (strlen(stoa_err_rows[i].code) == len
            && memcmp(stoa_err_rows[i].code, code, len) == 0)
        {
            return (stoa_err_e) i;
        }
    }

    return STOA_OK;
}


stoa_err_e
stoa_err_by_sqlstate(const char *sqlstate, const char *constraint)
{
    size_t i;

    if (sqlstate == NULL) {
        return STOA_E_INTERNAL;
    }

    if (strncmp(sqlstate, "23", 2) == 0) {
        if (constraint == NULL) {
            return STOA_E_INTERNAL;
        }

        for (i = 0; i < stoa_nitems(stoa_err_constraints); i++) {
            if (strcmp(stoa_err_constraints[i].name, constraint) == 0) {
                return stoa_err_constraints[i].err;
            }
        }

        return STOA_E_INTERNAL;
    }

    for (i = 0; i < stoa_nitems(stoa_err_states); i++) {
        if (strncmp(sqlstate, stoa_err_states[i].state,
                    strlen(stoa_err_states[i].state))
            == 0)
        {
            return stoa_err_states[i].err;
        }
    }

    return STOA_E_INTERNAL;
}
