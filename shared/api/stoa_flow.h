/*
 * Statements of the edge that no endpoint row holds: those of the flows, and
 * a few that its gates run on their own.  The module sends them, "stoa check
 * --db" prepares them; both read these rows.
 */

#ifndef STOA_FLOW_H_INCLUDED
#define STOA_FLOW_H_INCLUDED

#include "stoa_api.h"

#include "../stoa_pg.h"

typedef enum {
    STOA_STMT_REGISTER = 0,
    STOA_STMT_LOGIN_BEGIN,
    STOA_STMT_LOGIN_FINISH,
    STOA_STMT_LOGIN_FAILED,
    STOA_STMT_REFRESH,
    STOA_STMT_LOGOUT,
    STOA_STMT_SESSION_END,
    STOA_STMT_FORGOT,
    STOA_STMT_RESET_BEGIN,
    STOA_STMT_RESET,
    STOA_STMT_PASSWORD_BEGIN,
    STOA_STMT_PASSWORD,
    STOA_STMT_VERIFY,
    STOA_STMT_USER_EMAIL,
    STOA_STMT_MFA_CHALLENGE,
    STOA_STMT_LOGIN_MFA,
    STOA_STMT_MFA_BEGIN,
    STOA_STMT_MFA_ENROL,
    STOA_STMT_MFA_CONFIRM,
    STOA_STMT_MFA_OFF,
    STOA_STMT_MFA_CODES,
    STOA_STMT_STEP_UP,
    STOA_STMT_KEY_CREATE,
    STOA_STMT_KEY_ROTATE,
    STOA_STMT_IMPERSONATE,
    STOA_STMT_OAUTH_BEGIN,
    STOA_STMT_OAUTH_SIGN_IN,
    STOA_STMT_OAUTH_LINK,
    STOA_STMT_PRESENCE,
    STOA_STMT_DEVICE_PAIR,
    STOA_STMT_DEVICE_LOGIN,
    STOA_STMT_TICKET_CODE,
    STOA_STMT_CHANGE_BEGIN,
    STOA_STMT_REISSUE,
    STOA_STMT_TRANSFER,
    STOA_STMT_EVENT_BEGIN,
    STOA_STMT_EVENT_REGISTER,
    STOA_STMT_PAY,
    STOA_STMT_IDEM_LOOK,
    STOA_STMT_IDEM_KEEP,
    STOA_STMT_REISSUE_KEYED,
    STOA_STMT_TRANSFER_KEYED,
    STOA_STMT_EVENT_REGISTER_KEYED,
    STOA_STMT_IDEM_AMEND,
    STOA_STMT_FOREIGN,
    STOA_STMT_KEY_LOOK,
    STOA_STMT_KEYS_USED,
    STOA_STMT_REVOCATIONS,
    STOA_STMT_THROTTLE_SYNC,
    STOA_STMT_CONNECTIONS,
    STOA_STMT_COUNT
} stoa_stmt_e;

typedef struct {
    stoa_flow_e    flow;  /* NONE: the gates', or of every keyed row */
    unsigned       batch; /* 0, or so many go together: parameters are arrays
                             then, and each answer row has its place in them
                             as "ord"; the flow is that of one endpoint */
    stoa_pg_stmt_t stmt;  /* .slot is filled by the caller */
} stoa_flow_stmt_t;

extern const stoa_flow_stmt_t stoa_flow_stmts[STOA_STMT_COUNT];

/* "AUTH_LOGIN"; NULL: no flow. */
const char *stoa_flow_name(stoa_flow_e flow);

#endif /* STOA_FLOW_H_INCLUDED */
