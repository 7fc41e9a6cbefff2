/*
 * Writes one mail: RFC 5322 headers, RFC 2045 to 2049 bodies, RFC 2047 words.
 * Pure: the same input gives the same bytes.  Dots are stuffed by the sender
 * of the mail (libcurl), not here.
 *
 * Shape: mixed( alternative( text, related( html, inline... ) ),
 * attachment... ), each level only where it is needed.
 */

#ifndef WORKER_MIME_H_INCLUDED
#define WORKER_MIME_H_INCLUDED

#include "../shared/stoa_buf.h"

typedef struct {
    const char *type; /* "image/png" */
    const char *name; /* file name, UTF-8 */
    const char *cid;  /* inline parts: Content-ID without brackets */
    stoa_str_t  data;
} worker_mime_part_t;

typedef struct {
    stoa_str_t name;    /* UTF-8, may be empty */
    stoa_str_t address; /* passed worker_mime_address() */
} worker_mime_who_t;

typedef struct {
    worker_mime_who_t         from;
    worker_mime_who_t         to;
    stoa_str_t                subject;    /* UTF-8 */
    stoa_str_t                text;       /* UTF-8, LF or CR LF */
    stoa_str_t                html;       /* the same; empty: none */
    const char               *language;   /* "ar"; NULL: none */
    const char               *message_id; /* without brackets, ASCII */
    const char               *boundary;   /* [A-Za-z0-9.]{1,40} */
    int64_t                   date_ms;
    const worker_mime_part_t *inlines;
    size_t                    ninlines;
    const worker_mime_part_t *attachments;
    size_t                    nattachments;
} worker_mime_t;

/* Lines end with CR LF and have at most 76 characters, headers at most 78
   (998 where a word without a space is longer).  False: out failed. */
bool worker_mime_write(stoa_buf_t *out, const worker_mime_t *m);

/* Is it an address that any mail server takes: ASCII, one @, no quotes,
   spaces or controls, at most 254 bytes. */
bool worker_mime_address(stoa_str_t s);

/* "Name <a@b>" or "a@b".  False: the address is not one. */
bool worker_mime_who(stoa_str_t s, worker_mime_who_t *who);

#endif /* WORKER_MIME_H_INCLUDED */
