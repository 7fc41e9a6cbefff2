/*
 * Row types of the HTTP API.  An endpoint is one const row; routing,
 * authorization, limits, validation, OpenAPI, metrics, prepared statements
 * and generated tests are derived from it.  Enumerators start at 1: zero is
 * "not declared", and stoa_api_check() refuses to start.
 */

#ifndef STOA_API_H_INCLUDED
#define STOA_API_H_INCLUDED

#include "../stoa_jwt.h"

typedef struct stoa_endpoint_s stoa_endpoint_t;
typedef struct stoa_field_s    stoa_field_t;

typedef enum {
    STOA_GET = 1,
    STOA_POST,
    STOA_PUT,
    STOA_PATCH,
    STOA_DELETE,
    STOA_METHOD_COUNT
} stoa_method_e;

/* Limit classes; the numbers are directives (decision 24). */
typedef enum {
    STOA_RATE_AUTH = 1,
    STOA_RATE_REFRESH, /* of a flow that knows the session by the token */
    STOA_RATE_READ,
    STOA_RATE_WRITE,
    STOA_RATE_SCAN,
    STOA_RATE_NONE,
    STOA_RATE_COUNT
} stoa_rate_e;

/* Connection pools. */
typedef enum {
    STOA_POOL_FAST = 1,
    STOA_POOL_WRITE,
    STOA_POOL_SLOW,
    STOA_POOL_COUNT
} stoa_pool_e;

/* ---- fields ---- */

typedef enum {
    STOA_T_TEXT = 1, /* min..max code points; one line without controls,
                        trimmed of white space, unless STOA_LINES */
    STOA_T_EMAIL,    /* RFC 5321 length, one @, lower-cased by SQL citext */
    STOA_T_SECRET,   /* text never logged, never echoed */
    STOA_T_INT,      /* min..max */
    STOA_T_BOOL,
    STOA_T_UUID,
    STOA_T_TIME,     /* RFC 3339 */
    STOA_T_TIMEZONE, /* IANA name by form; SQL knows whether it exists */
    STOA_T_CURRENCY, /* an active code of ISO 4217 */
    STOA_T_URL,      /* http(s) absolute */
    STOA_T_ENUM,     /* .values */
    STOA_T_LIST,     /* min..max items of .items (one nameless field, or the
                        members of an object when .object is set) */
    STOA_T_OBJECT,   /* members .items */
    STOA_T_CODE      /* ticket code or any opaque text, 1..max bytes */
} stoa_type_e;

#define STOA_REQUIRED 1  /* must be present and not null */
#define STOA_NULLABLE 2  /* null is a value of its own */
#define STOA_LINES    4  /* text of several lines, kept as it is */
#define STOA_UNCOMMON 8  /* a password to be: not one that everybody has */
#define STOA_OPEN     16 /* of the end of a query: others are passed over */

struct stoa_field_s {
    const char         *name; /* snake_case; both spellings on the wire */
    stoa_type_e         type;
    unsigned            flags;
    int64_t             min;
    int64_t             max;
    const char *const  *values; /* ENUM: NULL-terminated */
    const stoa_field_t *items;  /* LIST, OBJECT: ends with stoa_end_field */
    bool                object; /* LIST of objects */
    const char         *summary;
    const char         *example; /* JSON text */
};

/* clang-format off */
#define stoa_end_field { .name = NULL }
/* Of a query whose senders add what they like (RFC 6749 4.1.2). */
#define stoa_end_open_query { .name = NULL, .flags = STOA_OPEN }
/* clang-format on */

/* ---- lists (decision 14) ---- */

typedef struct {
    const char *name; /* wire, e.g. "startsAt" */
    const char *expr; /* SQL over .from, never null */
    const char *type; /* SQL type of expr, for the cursor */
    bool        desc;
} stoa_sort_t;

typedef struct {
    const char *field; /* a query field of the row, snake_case */
    const char *where; /* SQL that uses $field; ANDed when $field is given,
                          compiled as (($field is null) or (where)) */
} stoa_filter_t;

/*
 * Compiled, per sort, to a page and a cursor statement that answer
 * status, body (json array of .item), total (page), next (cursor).
 */
typedef struct {
    const char          *from;    /* "api.events_list e" */
    const char          *item;    /* one json expression */
    const char          *id;      /* unique key that ends every sort: "e.id" */
    const char          *id_type; /* its SQL type; NULL: uuid */
    const char          *where;   /* always applied, may use $actor and path */
    const char          *may;     /* SQL boolean of $actor, $roles and path;
                                     false: 404.  NULL: everybody */
    const stoa_sort_t   *sorts;   /* the first is the default; ends { NULL } */
    const stoa_filter_t *filters; /* ends { NULL }; may be NULL */
    uint16_t             limit;   /* default page size, 20 */
    uint16_t             max;     /* 100 */
} stoa_list_t;

/* ---- who and whose (decision 10) ---- */

typedef struct {
    const char *resource; /* has the view api.acl_<resource> */
    const char *field;    /* path parameter that names it */
    const char *relation; /* "owner", "manage", "scan", ... */
} stoa_of_t;

/* The row has no owner: it reads or makes the caller's own, or public data.
   Written out, since an undeclared .of refuses to start. */
/* clang-format off */
#define STOA_OF_NONE { "-", NULL, NULL }
/* clang-format on */

/* ---- by what (API keys, impersonation) ---- */

/*
 * How a caller may have come, beside by a sign-in of his own; 0: not at all.
 * Rows about accounts, passwords, sessions, keys and second factors stay at
 * 0, and a row with a secret in its body must; those that make credentials,
 * give rights away or move money do not say ACTING.
 */
#define STOA_VIA_KEY     1 /* an API key that has the row's scope */
#define STOA_VIA_ANY_KEY 2 /* any API key */
#define STOA_VIA_ACTING  4 /* an admin in the account's name */

/* clang-format off */
#define STOA_VIA_BOTH (STOA_VIA_KEY | STOA_VIA_ACTING)
/* clang-format on */

/* ---- endpoints ---- */

typedef enum {
    STOA_BODY_NONE = 1,
    STOA_BODY_JSON,
    STOA_BODY_FORM, /* application/x-www-form-urlencoded, flat text fields */
    STOA_BODY_RAW   /* bytes as they are: $raw */
} stoa_body_e;

typedef enum {
    STOA_MEDIA_JSON = 1, /* the envelope */
    STOA_MEDIA_CSV,      /* column "csv" text of one row */
    STOA_MEDIA_BYTES,    /* columns "type" text and "bytes" bytea */
    STOA_MEDIA_BARE      /* the body column as it is, no envelope */
} stoa_media_e;

/* Named work that one statement cannot do; steps in ngx_http_stoa_flows.c. */
typedef enum {
    STOA_FLOW_NONE = 0,
/* clang-format off */
#define STOA_FLOWS(X)                                                         \
    X(AUTH_CHECK) X(AUTH_REGISTER) X(AUTH_LOGIN) X(AUTH_REFRESH)              \
    X(AUTH_LOGOUT) X(AUTH_RESET) X(DEVICE_PAIR) X(DEVICE_LOGIN)               \
    X(TICKET_SVG) X(TICKET_CHANGE) X(EVENT_REGISTER) X(PAY_FORM) X(ERRORS)     \
    X(OPENAPI) X(JWKS) X(SESSION_END) X(AUTH_PASSWORD) X(AUTH_VERIFY)         \
    X(USER_EMAIL) X(AUTH_CSRF) X(LOGIN_MFA) X(MFA_ENROL) X(MFA_CONFIRM)       \
    X(MFA_OFF) X(MFA_CODES) X(STEP_UP) X(KEY_CREATE) X(KEY_ROTATE)            \
    X(KEY_SCOPES) X(IMPERSONATE) X(OAUTH_PROVIDERS) X(OAUTH_START)            \
    X(OAUTH_CALLBACK) X(OAUTH_TOKEN) X(IDENTITY_LINK) X(MANUAL)   \
    X(PRESENCE_BEAT) X(PRESENCE_LIST)
/* clang-format on */
#define STOA_FLOW_ENUM(name) STOA_FLOW_##name,
    STOA_FLOWS(STOA_FLOW_ENUM)
#undef STOA_FLOW_ENUM
    STOA_FLOW_COUNT
} stoa_flow_e;

typedef enum {
    STOA_VERIFY_NONE = 0,
    STOA_VERIFY_STRIPE
} stoa_verify_e;

/* Whether a code of the second factor must be fresh (STEP_UP_TTL). */
typedef enum {
    STOA_STEP_UP_NONE = 0,
    STOA_STEP_UP_OWN,   /* one's own address and password: of whoever has one */
    STOA_STEP_UP_OTHERS /* what others' accounts, roles and money hang on, and
                           keys: of whoever has one, or must by REQUIRE_MFA */
} stoa_step_up_e;

#define STOA_MAX_ERRORS 12

struct stoa_endpoint_s {
    const char         *id; /* "events.create": stable for ever */
    stoa_method_e       method;
    const char         *path; /* "/api/v1/events/:id" */
    uint32_t            who;  /* set of STOA_PUBLIC, STOA_MEMBER, ... */
    stoa_of_t           of;
    uint32_t            via; /* set of STOA_VIA_* */
    stoa_rate_e         rate;
    uint16_t            cost; /* of a request, in its class; 0: 1 */
    stoa_pool_e         pool; /* not with flows that need none */
    const char         *sql;  /* exactly one of sql, list, flow */
    const stoa_list_t  *list;
    stoa_flow_e         flow;
    stoa_body_e         body_kind;
    const stoa_field_t *path_fields; /* types of :params; uuid when NULL */
    const stoa_field_t *query;
    const stoa_field_t *body;
    uint32_t            body_max;   /* bytes; 0: 65536 */
    uint16_t            status;     /* of success, for OpenAPI: 200, 201, 204 */
    uint16_t            batch;      /* 0: one statement per request */
    uint32_t            cache_ms;   /* micro-cache; public GET rows only */
    uint32_t            wait_ms;    /* park for a worker, at most 4000 */
    uint32_t            timeout_ms; /* 0: the pool's */
    bool                keyed;      /* honours Idempotency-Key */
    bool                if_match; /* honors If-Match: 412, 428 where required */
    bool                development; /* 404 when environment = production */
    bool                audit_reads; /* shows staff personal data of others:
                                        who looked is written to the audit
                                        log in the same transaction */
    stoa_step_up_e      step_up;
    stoa_verify_e       verify;
    stoa_media_e        media;                   /* 0: JSON */
    stoa_err_e          errors[STOA_MAX_ERRORS]; /* beyond the usual ones */
    const char         *summary;                 /* one sentence */
    const char         *tag;                     /* "auth", "events", ... */
};

/* An older or foreign path of a row; never a redirect. */
typedef struct {
    stoa_method_e method;
    const char   *path;
    const char   *id; /* of the row */
} stoa_alias_t;

/* Everything together; built in stoa_api.c from the tables. */
typedef struct {
    const stoa_endpoint_t *const *rows;
    size_t                        nrows;
    const stoa_alias_t           *aliases;
    size_t                        naliases;
} stoa_api_t;

/* Lists every table's rows in mem, which must outlive them (there is no
   writable static data).  NULL: no memory. */
const stoa_api_t *stoa_api(stoa_mem_t *mem);

/* Refuses a row that is not whole: *why says row and column, in mem. */
bool stoa_api_check(const stoa_api_t *api, stoa_mem_t *mem, const char **why);

/* Every error that a row can answer, in the order of stoa_err.def: what its
   columns imply and its .errors.  Returns how many. */
size_t stoa_api_errors(const stoa_endpoint_t *ep, stoa_err_e out[STOA_E_COUNT]);

/* OpenAPI 3.1 document, with the list of all error rows as "x-stoa-errors"
   and a row's columns as "x-stoa" of its operation, as JSON. */
bool stoa_api_openapi(const stoa_api_t *api, stoa_buf_t *out);

/*
 * Scopes of API keys are made of the rows that say STOA_VIA_KEY:
 * "events:read" is every GET with the tag "events", "events:write" the
 * others; "*:read" is every GET, "*" everything.  A key's scopes are such
 * words with a space between, so a tag is stable for ever, too.
 */
#define STOA_SCOPE_MAX 64 /* bytes of one, with its NUL */

/* The row's own; false: it has none. */
bool stoa_scope_of(const stoa_endpoint_t *ep, char out[STOA_SCOPE_MAX]);
/* Whether a key with these may come to the row, as far as scopes go; NULL:
   where there are no rows, by "*" only. */
bool stoa_scope_allows(stoa_str_t scopes, const stoa_endpoint_t *ep);
/* Whether it is one, of some row. */
bool stoa_scope_known(const stoa_api_t *api, stoa_str_t scope);
/* All there are, as a JSON list, in the order of the rows. */
void stoa_scope_list(stoa_buf_t *b, const stoa_api_t *api);

const char *stoa_method_name(stoa_method_e m);
/* "own", "others"; NULL: none. */
const char *stoa_step_up_name(stoa_step_up_e step_up);
/* "1234567890abcdef": one bit set in who, as a name, for listings. */
void stoa_who_print(stoa_buf_t *b, uint32_t who);

#endif /* STOA_API_H_INCLUDED */
