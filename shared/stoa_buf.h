/*
 * Bounded, growing byte buffer over a stoa_mem_t.  Created with its maximum;
 * the first write that does not fit sets .failed, and every later write is
 * ignored, so callers test once, at the end.
 */

#ifndef STOA_BUF_H_INCLUDED
#define STOA_BUF_H_INCLUDED

#include "stoa_mem.h"

typedef struct {
    stoa_mem_t    *mem;
    unsigned char *data;
    size_t         len;
    size_t         size;
    size_t         max;
    bool           failed;
} stoa_buf_t;

void stoa_buf_init(stoa_buf_t *b, stoa_mem_t *mem, size_t first, size_t max);

void stoa_buf_put(stoa_buf_t *b, const void *data, size_t len);
void stoa_buf_str(stoa_buf_t *b, stoa_str_t s);
void stoa_buf_z(stoa_buf_t *b, const char *z);
void stoa_buf_char(stoa_buf_t *b, char c);
void stoa_buf_int(stoa_buf_t *b, int64_t n);
void stoa_buf_uuid(stoa_buf_t *b, const stoa_uuid_t *u);
void stoa_buf_base64url(stoa_buf_t *b, const void *data, size_t len);
void stoa_buf_printf(stoa_buf_t *b, const char *fmt, ...) STOA_PRINTF(2, 3);

/* Adds a NUL that is not counted in .len. */
void stoa_buf_nul(stoa_buf_t *b);

/* JSON text (RFC 8259): the string with quotes and escapes. */
void stoa_buf_json(stoa_buf_t *b, stoa_str_t s);
void stoa_buf_json_z(stoa_buf_t *b, const char *z);

/* HTML text and attribute values, escaped. */
void stoa_buf_html(stoa_buf_t *b, stoa_str_t s);

static inline stoa_str_t
stoa_buf_view(const stoa_buf_t *b)
{
    stoa_str_t s = { b->len, b->data };

    return s;
}

#endif /* STOA_BUF_H_INCLUDED */
