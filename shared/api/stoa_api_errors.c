/*
 * Which errors a row can answer: what its columns imply, and what it says
 * itself.  The OpenAPI document and the derived tests go by this list.
 */

#include "stoa_api.h"


/* ---- errors of a row ---- */

static void
stoa_api_errors_mark(bool *marks, stoa_err_e err, bool when)
{
    marks[err] = marks[err] || when;
}


static bool
stoa_api_is_flow_without_store(const stoa_endpoint_t *ep)
{
    return ep->flow != STOA_FLOW_NONE && ep->pool == 0;
}


size_t
stoa_api_errors(const stoa_endpoint_t *ep, stoa_err_e out[STOA_E_COUNT])
{
    bool     marks[STOA_E_COUNT] = { false };
    bool     body = ep->body_kind != STOA_BODY_NONE;
    bool     owned = ep->of.resource != NULL && ep->of.resource[0] != '-';
    bool     params = strchr(ep->path, ':') != NULL;
    bool     store = !stoa_api_is_flow_without_store(ep);
    bool     write = ep->method != STOA_GET;
    size_t   n = 0;
    unsigned i;

    stoa_api_errors_mark(marks, STOA_E_BAD_REQUEST, true);
    /* a row without any field still refuses a parameter nobody declared */
    stoa_api_errors_mark(marks, STOA_E_VALIDATION_FAILED, true);
    stoa_api_errors_mark(marks, STOA_E_SIGNATURE_INVALID,
                         ep->verify != STOA_VERIFY_NONE);
    stoa_api_errors_mark(marks, STOA_E_UNAUTHENTICATED, true);
    stoa_api_errors_mark(marks, STOA_E_TOKEN_EXPIRED, true);
    stoa_api_errors_mark(marks, STOA_E_TOKEN_REVOKED, true);
    /* tokens of other issuers, on public rows as well */
    stoa_api_errors_mark(marks, STOA_E_IDENTITY_NOT_LINKED, true);
    stoa_api_errors_mark(marks, STOA_E_ACCOUNT_SUSPENDED, true);
    stoa_api_errors_mark(marks, STOA_E_EMAIL_NOT_VERIFIED, true);
    stoa_api_errors_mark(marks, STOA_E_ISSUER_UNAVAILABLE, true);
    stoa_api_errors_mark(marks, STOA_E_STEP_UP_REQUIRED,
                         ep->step_up != STOA_STEP_UP_NONE);
    stoa_api_errors_mark(marks, STOA_E_MFA_ENROLMENT_REQUIRED,
                         ep->step_up == STOA_STEP_UP_OTHERS);
    stoa_api_errors_mark(marks, STOA_E_FORBIDDEN,
                         (ep->who & STOA_PUBLIC) == 0 || owned);
    /* a cookie came where one has to be signed in, and not from our page */
    stoa_api_errors_mark(marks, STOA_E_CROSS_SITE,
                         (ep->who & STOA_PUBLIC) == 0);
    stoa_api_errors_mark(marks, STOA_E_SCOPE_MISSING, ep->via & STOA_VIA_KEY);
    stoa_api_errors_mark(marks, STOA_E_KEY_FORBIDDEN,
                         !(ep->via & (STOA_VIA_KEY | STOA_VIA_ANY_KEY)));
    stoa_api_errors_mark(marks, STOA_E_IMPERSONATION_FORBIDDEN,
                         !(ep->via & STOA_VIA_ACTING));
    stoa_api_errors_mark(marks, STOA_E_NOT_FOUND, params || ep->development);
    stoa_api_errors_mark(marks, STOA_E_NOT_ACCEPTABLE,
                         ep->media != STOA_MEDIA_BYTES);
    /* no 408: nginx closes the connection of a body that does not come */
    stoa_api_errors_mark(marks, STOA_E_CONFLICT, write && store);
    stoa_api_errors_mark(marks, STOA_E_IN_FLIGHT, ep->keyed);
    stoa_api_errors_mark(marks, STOA_E_IDEMPOTENCY_KEY_REUSED, ep->keyed);
    stoa_api_errors_mark(marks, STOA_E_PRECONDITION_REQUIRED, ep->if_match);
    stoa_api_errors_mark(marks, STOA_E_PRECONDITION_FAILED, ep->if_match);
    stoa_api_errors_mark(marks, STOA_E_PAYLOAD_TOO_LARGE, body);
    stoa_api_errors_mark(marks, STOA_E_UNSUPPORTED_MEDIA_TYPE,
                         body && ep->body_kind != STOA_BODY_RAW);
    stoa_api_errors_mark(marks, STOA_E_RATE_LIMITED,
                         ep->rate != STOA_RATE_NONE);
    stoa_api_errors_mark(marks, STOA_E_INTERNAL, true);
    stoa_api_errors_mark(marks, STOA_E_STARTING, true);
    stoa_api_errors_mark(marks, STOA_E_NO_MEMORY, true);
    stoa_api_errors_mark(marks, STOA_E_DATABASE_UNAVAILABLE, true);
    stoa_api_errors_mark(marks, STOA_E_POOL_SATURATED, true);
    stoa_api_errors_mark(marks, STOA_E_COMMIT_UNKNOWN,
                         store && (write || ep->audit_reads));
    stoa_api_errors_mark(marks, STOA_E_TIMEOUT, true);

    for (i = 0; i < STOA_MAX_ERRORS; i++) {
        marks[ep->errors[i]] = true;
    }

    for (i = STOA_OK + 1; i < STOA_E_COUNT; i++) {
        if (marks[i]) {
            out[n++] = (stoa_err_e) i;
        }
    }

    return n;
}
