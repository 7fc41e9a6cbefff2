/*
 * Arrays in the binary form of PostgreSQL's array_recv(),
 * src/backend/utils/adt/arrayfuncs.c.
 */

#include "stoa_pg_array.h"
#include "stoa_str.h"

/* OIDs of pg_type.dat: fixed for all versions */
static const struct {
    const char *name;
    uint32_t    oid;
} stoa_pg_elems[] = {
    [STOA_PG_ELEM_NONE] = { "", 0 },
    [STOA_PG_ELEM_INT4] = { "int", 23 },
    [STOA_PG_ELEM_TEXT] = { "text", 25 },
    [STOA_PG_ELEM_UUID] = { "uuid", 2950 },
};


static void
stoa_pg_array_int(stoa_buf_t *b, uint32_t n)
{
    unsigned char bytes[4] = { (unsigned char) (n >> 24),
                               (unsigned char) (n >> 16),
                               (unsigned char) (n >> 8), (unsigned char) n };

    stoa_buf_put(b, bytes, sizeof(bytes));
}


stoa_pg_elem_e
stoa_pg_elem(const char *type)
{
    size_t i;

    for (i = 1; i < stoa_nitems(stoa_pg_elems); i++) {
        if (strcmp(type, stoa_pg_elems[i].name) == 0) {
            return (stoa_pg_elem_e) i;
        }
    }

    return STOA_PG_ELEM_NONE;
}


void
stoa_pg_array_begin(stoa_buf_t *b, stoa_pg_elem_e elem, uint32_t n)
{
    stoa_pg_array_int(b, 1);
    stoa_pg_array_int(b, 1);
    stoa_pg_array_int(b, stoa_pg_elems[elem].oid);
    stoa_pg_array_int(b, n);
    stoa_pg_array_int(b, 1);
}


void
stoa_pg_array_int4(stoa_buf_t *b, int32_t n)
{
    stoa_pg_array_int(b, 4);
    stoa_pg_array_int(b, (uint32_t) n);
}


bool
stoa_pg_array_put(stoa_buf_t *b, stoa_pg_elem_e elem, stoa_str_t text)
{
    int64_t     n;
    stoa_uuid_t uuid;

    if (text.data == NULL) {
        stoa_pg_array_int(b, UINT32_MAX);
        return true;
    }

    switch (elem) {

    case STOA_PG_ELEM_TEXT:
        stoa_pg_array_int(b, (uint32_t) text.len);
        stoa_buf_put(b, text.data, text.len);
        return true;

    case STOA_PG_ELEM_UUID:
        if (!stoa_uuid_parse(text, &uuid)) {
            return false;
        }

        stoa_pg_array_int(b, sizeof(uuid.b));
        stoa_buf_put(b, uuid.b, sizeof(uuid.b));
        return true;

    case STOA_PG_ELEM_INT4:
        if (!stoa_str_int(text, INT32_MIN, INT32_MAX, &n)) {
            return false;
        }

        stoa_pg_array_int4(b, (int32_t) n);
        return true;

    case STOA_PG_ELEM_NONE:
        break;
    }

    return false;
}
