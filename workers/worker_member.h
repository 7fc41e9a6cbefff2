/*
 * Reading the JSON that task.* functions and providers answer: an absent
 * member, null and a member of another type are all "not there".
 */

#ifndef WORKER_MEMBER_H_INCLUDED
#define WORKER_MEMBER_H_INCLUDED

#include "../shared/stoa_json.h"

/* "" when it is not there. */
stoa_str_t worker_member_text(const stoa_json_t *object, const char *name);

/* Copy in mem with a NUL; NULL: not there, empty, or no memory. */
const char *worker_member_z(stoa_mem_t *mem, const stoa_json_t *object,
                            const char *name);

int64_t worker_member_int(const stoa_json_t *object, const char *name,
                          int64_t absent);
bool    worker_member_true(const stoa_json_t *object, const char *name);

/* NULL when it is not of that type. */
const stoa_json_t *worker_member(const stoa_json_t *object, const char *name,
                                 stoa_json_type_e type);

/* A copy that lives in mem; NULL: no memory. */
stoa_json_t *worker_json_copy(stoa_mem_t *mem, const stoa_json_t *v);

/* ,"name":"value" or ,"name":null when value is NULL. */
void worker_json_add(stoa_buf_t *b, const char *name, const char *value);

#endif /* WORKER_MEMBER_H_INCLUDED */
