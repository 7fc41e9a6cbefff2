/*
 * Between worker_mime.c, the shape of a mail, and worker_mime_code.c, its
 * encodings; nobody else includes this.
 */

#ifndef WORKER_MIME_INT_H_INCLUDED
#define WORKER_MIME_INT_H_INCLUDED

#include "worker_mime.h"

#define WORKER_MIME_LINE 76

/* One run without line ends. */
void worker_mime_b64(stoa_buf_t *out, const unsigned char *p, size_t len);
void worker_mime_b64_lines(stoa_buf_t *out, stoa_str_t s);
void worker_mime_qp(stoa_buf_t *out, stoa_str_t s);

/* Bytes of the UTF-8 sequence that starts here; 1 for a stray byte. */
size_t worker_mime_step(const unsigned char *p, size_t left);

#endif /* WORKER_MIME_INT_H_INCLUDED */
