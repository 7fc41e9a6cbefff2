/*
 * Between the files that make the OpenAPI document; nobody else includes
 * this.  A JSON writer: .comma says that the open level has a member already.
 */

#ifndef STOA_API_OPENAPI_H_INCLUDED
#define STOA_API_OPENAPI_H_INCLUDED

#include "stoa_api.h"

typedef struct {
    stoa_buf_t       *b;
    const stoa_api_t *api;
    bool              comma;
} stoa_openapi_t;

/* Writing: a key, then its value; _open and _close come in pairs; _raw is
   text that is JSON already.  Failures stay in .b. */
void stoa_openapi_sep(stoa_openapi_t *o);
void stoa_openapi_open(stoa_openapi_t *o, char c);
void stoa_openapi_close(stoa_openapi_t *o, char c);
void stoa_openapi_key(stoa_openapi_t *o, const char *key);
void stoa_openapi_object(stoa_openapi_t *o, const char *key);
void stoa_openapi_list(stoa_openapi_t *o, const char *key);
void stoa_openapi_item(stoa_openapi_t *o, const char *text);
void stoa_openapi_text(stoa_openapi_t *o, const char *key, const char *text);
void stoa_openapi_int(stoa_openapi_t *o, const char *key, int64_t n);
void stoa_openapi_raw(stoa_openapi_t *o, const char *key, const char *json);
void stoa_openapi_camel(stoa_openapi_t *o, const char *snake, char *out,
                        size_t size);
/* "additionalProperties", "properties" and "required" of fields. */
void stoa_openapi_members(stoa_openapi_t *o, const stoa_field_t *fields,
                          unsigned depth);
/* The schema object of one field. */
void stoa_openapi_schema(stoa_openapi_t *o, const stoa_field_t *f,
                         unsigned depth);

/* ---- answers (stoa_api_answers.c) ---- */

typedef struct {
    const char *id;   /* of a row */
    const char *data; /* the type of its 2xx answer's data */
    bool        etag; /* a GET: its 200 has an ETag, If-None-Match a 304 */
} stoa_answer_t;

/* Ends with a NULL id. */
extern const stoa_answer_t stoa_api_answers[];

/* The named objects, as members of components.schemas. */
void stoa_openapi_answer_objects(stoa_openapi_t *o);

/* Does If-None-Match mean something to this row? */
bool stoa_openapi_revalidates(const stoa_endpoint_t *ep);

/* "application/json" of a row's answer; false: the row has none here. */
bool stoa_openapi_answer(stoa_openapi_t *o, const stoa_endpoint_t *ep);

#endif /* STOA_API_OPENAPI_H_INCLUDED */
