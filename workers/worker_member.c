/*
 * Members of JSON that others wrote (task.* functions, providers), read
 * without trust: a member of a wrong type is as good as none, so no caller
 * has to test types.  What is copied lives in the caller's memory.  Pure;
 * validating what a client sent is stoa_input's work, not this file's.
 */

#include "worker_member.h"

#include "../shared/stoa_str.h"

#define WORKER_JSON_COPY_MAX (1024 * 1024)


const stoa_json_t *
worker_member(const stoa_json_t *object, const char *name,
              stoa_json_type_e type)
{
    const stoa_json_t *v;

    if (object == NULL || stoa_json_type(object) != STOA_JSON_OBJECT) {
        return NULL;
    }

    v = stoa_json_get(object, name);

    return v != NULL && stoa_json_type(v) == type ? v : NULL;
}


stoa_str_t
worker_member_text(const stoa_json_t *object, const char *name)
{
    stoa_str_t         none = stoa_string("");
    const stoa_json_t *v;

    v = worker_member(object, name, STOA_JSON_STRING);

    return v != NULL ? stoa_json_str(v) : none;
}


const char *
worker_member_z(stoa_mem_t *mem, const stoa_json_t *object, const char *name)
{
    stoa_str_t s;

    s = worker_member_text(object, name);

    return s.len > 0 ? stoa_strdup_z(mem, s) : NULL;
}


int64_t
worker_member_int(const stoa_json_t *object, const char *name, int64_t absent)
{
    const stoa_json_t *v;

    v = worker_member(object, name, STOA_JSON_INT);

    return v != NULL ? stoa_json_int(v) : absent;
}


bool
worker_member_true(const stoa_json_t *object, const char *name)
{
    const stoa_json_t *v;

    v = worker_member(object, name, STOA_JSON_BOOL);

    return v != NULL && stoa_json_bool(v);
}


stoa_json_t *
worker_json_copy(stoa_mem_t *mem, const stoa_json_t *v)
{
    stoa_buf_t        b;
    stoa_json_fault_t fault;

    stoa_buf_init(&b, mem, 512, WORKER_JSON_COPY_MAX);
    stoa_json_write(&b, v);

    return b.failed ? NULL : stoa_json_parse(mem, stoa_buf_view(&b), &fault);
}


void
worker_json_add(stoa_buf_t *b, const char *name, const char *value)
{
    stoa_buf_char(b, ',');
    stoa_buf_json_z(b, name);
    stoa_buf_char(b, ':');

    if (value != NULL) {
        stoa_buf_json_z(b, value);

    } else {
        stoa_buf_z(b, "null");
    }
}
