/*
 * What answers hold: named objects, and the data of each row's 2xx answer by
 * the row's id.  The OpenAPI document prints them, and the tests hold every
 * answer that they see against it.
 *
 * A member is required unless its name ends with "?".  A type is uuid, text,
 * int, bool, time, object, or an object's name; "[]" behind it: a list of
 * these, and "?" behind that: may be null.
 */

#include "stoa_api_openapi.h"
#include "../stoa_str.h"

#include <stdio.h>

typedef struct {
    const char *name; /* camelCase, as it is sent */
    const char *type;
} stoa_answer_member_t;

typedef struct {
    const char                 *name;
    const stoa_answer_member_t *members; /* ends with a NULL name */
} stoa_answer_object_t;

#define STOA_ANSWER_END                                                        \
    {                                                                          \
        NULL, NULL                                                             \
    }


/* ---- accounts ---- */

static const stoa_answer_member_t stoa_answer_user[] = {
    { "id", "uuid" },
    { "kind", "text" },
    { "email", "text?" }, /* a program has none */
    { "firstName", "text" },
    { "lastName", "text" },
    { "name", "text" },
    { "phone", "text?" },
    { "role", "text" },
    { "roles", "text[]" },
    { "status", "text" },
    { "preferredLanguage", "text?" },
    { "timezone", "text?" },
    { "emailVerified", "bool" },
    { "version", "int" },
    { "createdAt", "time" },
    { "lastLoginAt", "time?" },
    { "actingAs?", "uuid" },
    STOA_ANSWER_END,
};

/* Oneself, and admins, are shown the members of User. */
static const stoa_answer_member_t stoa_answer_profile[] = {
    { "id", "uuid" },   { "firstName", "text" }, { "lastName", "text" },
    { "name", "text" }, { "role", "text" },      { "createdAt", "time" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_grant[] = {
    { "user", "User" },         { "accessToken", "text" },
    { "refreshToken", "text" }, { "tokenType", "text" },
    { "expiresIn", "int" },     STOA_ANSWER_END,
};

/* Without tokens where REQUIRE_VERIFIED_EMAIL is "login". */
static const stoa_answer_member_t stoa_answer_registered[] = {
    { "user", "User" },          { "accessToken?", "text" },
    { "refreshToken?", "text" }, { "tokenType?", "text" },
    { "expiresIn?", "int" },     STOA_ANSWER_END,
};

/* cookie: the one of this session came along.  Where nothing else came the
   refresh token is in the new cookie only. */
static const stoa_answer_member_t stoa_answer_refreshed[] = {
    { "user", "User" },        { "refresh", "text" },
    { "accessToken", "text" }, { "refreshToken?", "text" },
    { "tokenType", "text" },   { "expiresIn", "int" },
    { "cookie?", "bool" },     STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_csrf[] = {
    { "csrfToken", "text" },
    STOA_ANSWER_END,
};

/* Of a person: userId and sessionId; of a device: deviceId and eventId; by a
   key: userId, keyId and its scopes; of an admin in somebody's name: userId
   and actingAs, which is the admin. */
static const stoa_answer_member_t stoa_answer_check[] = {
    { "userId?", "uuid" },   { "sessionId?", "uuid" }, { "deviceId?", "uuid" },
    { "eventId?", "uuid" },  { "keyId?", "uuid" },     { "scopes?", "text[]" },
    { "actingAs?", "uuid" }, { "roles", "text[]" },    { "expiresAt", "time" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_api_key[] = {
    { "id", "uuid" },          { "ownerId", "uuid" },
    { "name", "text" },        { "prefix", "text" },
    { "scopes", "text[]" },    { "state", "text" },
    { "createdAt", "time" },   { "expiresAt", "time" },
    { "lastUsedAt", "time?" }, { "lastUsedIp", "text?" },
    { "revokedAt", "time?" },  { "rotatedFrom", "uuid?" },
    { "replacedBy", "uuid?" }, { "key?", "text" }, /* once, when it is made */
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_key_revoked[] = {
    { "revoked", "bool" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_scopes[] = {
    { "scopes", "text[]" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_impersonation[] = {
    { "user", "User" },      { "actingAs", "uuid" }, { "accessToken", "text" },
    { "tokenType", "text" }, { "expiresIn", "int" }, { "expiresAt", "time" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_mfa[] = {
    { "enabled", "bool" },     { "confirmedAt", "time?" },
    { "lastUsedAt", "time?" }, { "recoveryCodesLeft", "int" },
    { "required", "bool" }, /* by REQUIRE_MFA */
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_mfa_secret[] = {
    { "id", "uuid" },  { "secret", "text" }, /* base32 */
    { "uri", "text" }, /* otpauth: what the QR code says */
    { "qr", "text" },  /* SVG */
    STOA_ANSWER_END,
};

/* The access token of the same session, which says how fresh the code is. */
static const stoa_answer_member_t stoa_answer_proved[] = {
    { "accessToken", "text" },
    { "tokenType", "text" },
    { "expiresIn", "int" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_recovery[] = {
    { "recoveryCodes", "text[]" },
    { "accessToken", "text" },
    { "tokenType", "text" },
    { "expiresIn", "int" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_removed[] = {
    { "removed", "bool" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_logged_out[] = {
    { "loggedOut", "bool" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_session[] = {
    { "id", "uuid" },        { "deviceName", "text" }, { "userAgent", "text?" },
    { "ip", "text?" },       { "createdAt", "time" },  { "lastUsedAt", "time" },
    { "expiresAt", "time" }, { "remember", "bool" },   { "current", "bool" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_sessions_ended[] = {
    { "ended", "int" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_oauth_provider[] = {
    { "name", "text" },
    { "title", "text" },
    { "url?", "text" }, /* for browsers; absent where cookies are off */
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_identity[] = {
    { "id", "uuid" },       { "provider", "text?" },   { "email", "text?" },
    { "linkedAt", "time" }, { "lastUsedAt", "time?" }, STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_identity_link[] = {
    { "url", "text" }, /* where the browser goes next */
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_identity_unlinked[] = {
    { "unlinked", "bool" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_consent[] = {
    { "kind", "text" }, { "granted", "bool" }, { "policyVersion", "text?" },
    { "at", "time?" },  STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_consents[] = {
    { "policyVersion", "text" },
    { "ask", "bool" },
    { "consents", "Consent[]" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_nothing[] = {
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_reset[] = {
    { "reset?", "bool" }, /* absent: a mail was asked for */
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_verified[] = {
    { "verified", "bool" },
    { "changed", "bool" }, /* the account's address is a new one */
    STOA_ANSWER_END,
};


/* ---- events ---- */

static const stoa_answer_member_t stoa_answer_ticket_type[] = {
    { "id", "uuid" },          { "eventId", "uuid" },
    { "name", "text" },        { "description", "text?" },
    { "priceCents", "int" },   { "currency", "text" },
    { "quota", "int" },        { "sold", "int" },
    { "remaining", "int" },    { "onSale", "bool" },
    { "minPerOrder", "int" },  { "maxPerOrder", "int" },
    { "salesStart", "time?" }, { "salesEnd", "time?" },
    { "validFrom", "time?" },  { "validUntil", "time?" },
    { "sort", "int" },         { "version", "int" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_event[] = {
    { "id", "uuid" },
    { "title", "text" },
    { "description", "text?" },
    { "startsAt", "time" },
    { "endsAt", "time" },
    { "timezone", "text" },
    { "location", "text?" },
    { "onlineLink?", "text" }, /* to holders and who manages it */
    { "bannerImageUrl", "text?" },
    { "capacity", "int?" },
    { "sold", "int" },
    { "currency", "text" },
    { "status", "text" },
    { "organizerId", "uuid" },
    { "reentry", "bool" },
    { "minPriceCents", "int?" },
    { "ticketTypes", "TicketType[]" },
    { "version", "int" },
    { "publishedAt", "time?" },
    { "cancelledAt", "time?" },
    { "createdAt", "time" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_event_item[] = {
    { "id", "uuid" },
    { "title", "text" },
    { "startsAt", "time" },
    { "endsAt", "time" },
    { "timezone", "text" },
    { "location", "text?" },
    { "bannerImageUrl", "text?" },
    { "currency", "text" },
    { "status", "text" },
    { "organizerId", "uuid" },
    { "minPriceCents", "int?" },
    { "maxPriceCents", "int?" },
    { "remaining", "int?" },
    { "soldOut", "bool?" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_own_event[] = {
    { "id", "uuid" },       { "title", "text" },    { "startsAt", "time" },
    { "endsAt", "time" },   { "timezone", "text" }, { "location", "text?" },
    { "currency", "text" }, { "status", "text" },   { "capacity", "int?" },
    { "sold", "int" },      { "version", "int" },   { "createdAt", "time" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_staff[] = {
    { "userId", "uuid" },   { "email", "text?" }, { "name", "text?" },
    { "relation", "text" }, STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_staff_added[] = {
    { "userId", "uuid" },
    { "relation", "text" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_registration[] = {
    { "id", "uuid" },
    { "orderId", "uuid" },
    { "userId", "uuid" },
    { "name", "text?" },
    { "email", "text?" },
    { "ticketTypeId", "uuid" },
    { "ticketTypeName", "text" },
    { "state", "text" },
    { "status", "text" },
    { "priceCents", "int" },
    { "currency", "text" },
    { "orderStatus", "text" },
    { "registeredAt", "time" },
    { "admittedAt", "time?" },
    { "gate", "text?" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_promo[] = {
    { "id", "uuid" },          { "eventId", "uuid" }, { "code", "text" },
    { "kind", "text" },        { "value", "int" },    { "maxUses", "int?" },
    { "used", "int" },         { "perUser", "int?" }, { "validFrom", "time?" },
    { "validUntil", "time?" }, { "version", "int" },  { "createdAt", "time" },
    STOA_ANSWER_END,
};


/* ---- orders and tickets ---- */

static const stoa_answer_member_t stoa_answer_order_line[] = {
    { "ticketTypeId", "uuid" },
    { "name", "text" },
    { "quantity", "int" },
    { "unitPriceCents", "int" },
    { "discountCents", "int" },
    { "lineTotalCents", "int" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_order_ticket[] = {
    { "id", "uuid" },
    { "code", "text?" }, /* null: it belongs to somebody else now */
    { "state", "text" },
    { "ticketTypeId", "uuid" },
    { "ticketTypeName", "text" },
    { "holderName", "text?" },
    { "priceCents", "int" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_payment[] = {
    { "provider", "text" },
    { "paymentId", "uuid" },
    { "checkoutUrl?", "text" },
    { "paymentIntentId?", "text" },
    { "clientSecret?", "text" },
    { "publishableKey?", "text" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_order[] = {
    { "id", "uuid" },
    { "status", "text" },
    { "eventId", "uuid" },
    { "eventTitle", "text" },
    { "buyerId", "uuid" },
    { "subtotalCents", "int" },
    { "discountCents", "int" },
    { "totalCents", "int" },
    { "currency", "text" },
    { "promoCode", "text?" },
    { "reservedUntil", "time?" },
    { "items", "OrderLine[]" },
    { "tickets", "OrderTicket[]" },
    { "paymentDetails", "PaymentDetails?" },
    { "refundedCents", "int" },
    { "createdAt", "time" },
    { "paidAt", "time?" },
    { "endedAt", "time?" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_order_item[] = {
    { "id", "uuid" },        { "status", "text" },
    { "eventId", "uuid" },   { "eventTitle", "text" },
    { "startsAt", "time" },  { "timezone", "text" },
    { "totalCents", "int" }, { "currency", "text" },
    { "createdAt", "time" }, { "reservedUntil", "time?" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_refund[] = {
    { "id", "uuid" },
    { "orderId", "uuid" },
    { "amountCents", "int" },
    { "currency", "text" },
    { "reason", "text?" },
    { "status", "text" },
    { "failureReason", "text?" },
    { "orderStatus", "text" },
    { "refundedCents", "int" },
    { "capturedCents", "int" },
    { "createdAt", "time" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_pay[] = {
    { "id", "uuid" },       { "status", "text" },
    { "title", "text" },    { "totalCents", "int" },
    { "currency", "text" }, { "reservedUntil", "time?" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_ticket[] = {
    { "id", "uuid" },
    { "code", "text?" }, /* its holder's */
    { "state", "text" },
    { "generation", "int" },
    { "orderId", "uuid" },
    { "ticketTypeId", "uuid" },
    { "ticketTypeName", "text" },
    { "holderId", "uuid" },
    { "holderName", "text?" },
    { "priceCents", "int" },
    { "currency", "text" },
    { "eventId", "uuid" },
    { "eventTitle", "text" },
    { "startsAt", "time" },
    { "endsAt", "time" },
    { "timezone", "text" },
    { "location", "text?" },
    { "onlineLink", "text?" },
    { "admittedAt", "time?" },
    { "gate", "text?" },
    { "version", "int" },
    { "createdAt", "time" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_ticket_item[] = {
    { "id", "uuid" },
    { "state", "text" },
    { "orderId", "uuid" },
    { "ticketTypeId", "uuid" },
    { "ticketTypeName", "text" },
    { "holderName", "text?" },
    { "eventId", "uuid" },
    { "eventTitle", "text" },
    { "startsAt", "time" },
    { "timezone", "text" },
    { "location", "text?" },
    { "createdAt", "time" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_transfer[] = {
    { "id", "uuid" },         { "state", "text" }, { "generation", "int" },
    { "holderName", "text" }, STOA_ANSWER_END,
};

/* A worker draws the file; ask again where Location says. */
static const stoa_answer_member_t stoa_answer_render[] = {
    { "id", "uuid" },
    STOA_ANSWER_END,
};


/* ---- at the door ---- */

static const stoa_answer_member_t stoa_answer_scanned[] = {
    { "id", "uuid" },           { "state", "text" },
    { "ticketTypeId", "uuid" }, { "ticketTypeName", "text" },
    { "holderName", "text?" },  { "orderId", "uuid" },
    { "eventId", "uuid" },      STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_verdict[] = {
    { "verdict", "text" },
    { "reason?", "text?" },
    { "admittedAt?", "time?" },
    { "gate?", "text?" },
    { "ticket?", "ScannedTicket?" }, /* of this event only */
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_pairing[] = {
    { "id", "uuid" },          { "deviceId", "uuid" }, { "eventId", "uuid" },
    { "name", "text" },        { "gate", "text?" },    { "expiresAt", "time" },
    { "pairingCode", "text" }, STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_device[] = {
    { "id", "uuid" },         { "eventId", "uuid" },
    { "name", "text" },       { "gate", "text?" },
    { "pairedAt", "time?" },  { "lastSeenAt", "time?" },
    { "revokedAt", "time?" }, { "createdAt", "time" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_device_login[] = {
    { "deviceId", "uuid" }, { "eventId", "uuid" }, { "eventTitle", "text" },
    { "name", "text" },     { "gate", "text?" },   { "deviceToken", "text" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_key[] = {
    { "kid", "int" },
    { "alg", "text" },
    { "publicKey", "text" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_snapshot_type[] = {
    { "id", "uuid" },         { "name", "text" }, { "validFrom", "time?" },
    { "validUntil", "time" }, STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_snapshot_ticket[] = {
    { "id", "uuid" },    { "ticketTypeId", "uuid" }, { "generation", "int" },
    { "state", "text" }, { "holderName", "text?" },  { "admittedAt", "time?" },
    { "gate", "text?" }, { "conflict", "bool" },     STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_snapshot_revocation[] = {
    { "ticketId", "uuid" },
    { "generation", "int" },
    { "reason", "text" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_snapshot[] = {
    { "eventId", "uuid" },
    { "title", "text" },
    { "status", "text" },
    { "reentry", "bool" },
    { "startsAt", "time" },
    { "endsAt", "time" },
    { "serverTime", "time" },
    { "until", "time" },
    { "keys", "TicketKey[]" },
    { "ticketTypes", "SnapshotType[]" },
    { "tickets", "SnapshotTicket[]" },
    { "revocations", "TicketRevocation[]" },
    { "next", "uuid?" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_merged_item[] = {
    { "nonce", "text" },     { "verdict", "text" },     { "conflict", "bool" },
    { "reason", "text?" },   { "admittedAt", "time?" }, { "gate", "text?" },
    { "ticketId", "uuid?" }, STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_merged[] = {
    { "items", "MergedScan[]" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_type_count[] = {
    { "ticketTypeId", "uuid" }, { "name", "text" }, { "tickets", "int" },
    { "admitted", "int" },      STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_gate_count[] = {
    { "gate", "text?" },
    { "admitted", "int" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_stats[] = {
    { "eventId", "uuid" },
    { "tickets", "int" },
    { "admitted", "int" },
    { "exited", "int" },
    { "outside", "int" },
    { "conflicts", "int" },
    { "ticketTypes", "TypeCount[]" },
    { "gates", "GateCount[]" },
    STOA_ANSWER_END,
};


/* ---- the rest ---- */

static const stoa_answer_member_t stoa_answer_received[] = {
    { "received", "bool" },
    STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_audit[] = {
    { "id", "text" },         { "at", "time" },
    { "actorId", "uuid?" },   { "actorKind", "text?" },
    { "actingAs", "uuid?" },  { "apiKeyId", "uuid?" },
    { "deviceId", "uuid?" },  { "action", "text" },
    { "resource", "text" },   { "resourceId", "text?" },
    { "changes", "object?" }, { "ip", "text?" },
    { "requestId", "text?" }, STOA_ANSWER_END,
};

static const stoa_answer_member_t stoa_answer_error_row[] = {
    { "code", "text" },
    { "status", "int" },
    { "title", "text" },
    STOA_ANSWER_END,
};

/* status: online, offline, or unknown while Redis is away. */
static const stoa_answer_member_t stoa_answer_presence[] = {
    { "id", "uuid" },
    { "status", "text" },
    { "lastSeenAt", "time?" },
    STOA_ANSWER_END,
};

static const stoa_answer_object_t stoa_answer_objects[] = {
    { "User", stoa_answer_user },
    { "Profile", stoa_answer_profile },
    { "Grant", stoa_answer_grant },
    { "Registered", stoa_answer_registered },
    { "Refreshed", stoa_answer_refreshed },
    { "TokenCheck", stoa_answer_check },
    { "CsrfToken", stoa_answer_csrf },
    { "SecondFactor", stoa_answer_mfa },
    { "SecondFactorSecret", stoa_answer_mfa_secret },
    { "Proved", stoa_answer_proved },
    { "RecoveryCodes", stoa_answer_recovery },
    { "Removed", stoa_answer_removed },
    { "LoggedOut", stoa_answer_logged_out },
    { "ApiKey", stoa_answer_api_key },
    { "ApiKeyRevoked", stoa_answer_key_revoked },
    { "Scopes", stoa_answer_scopes },
    { "Impersonation", stoa_answer_impersonation },
    { "Session", stoa_answer_session },
    { "SessionsEnded", stoa_answer_sessions_ended },
    { "OauthProvider", stoa_answer_oauth_provider },
    { "Identity", stoa_answer_identity },
    { "IdentityLink", stoa_answer_identity_link },
    { "IdentityUnlinked", stoa_answer_identity_unlinked },
    { "Consent", stoa_answer_consent },
    { "Consents", stoa_answer_consents },
    { "Presence", stoa_answer_presence },
    { "Nothing", stoa_answer_nothing },
    { "PasswordReset", stoa_answer_reset },
    { "EmailVerified", stoa_answer_verified },
    { "TicketType", stoa_answer_ticket_type },
    { "Event", stoa_answer_event },
    { "EventItem", stoa_answer_event_item },
    { "OwnEvent", stoa_answer_own_event },
    { "EventStaff", stoa_answer_staff },
    { "StaffAdded", stoa_answer_staff_added },
    { "EventStaffAdded", stoa_answer_staff_added },
    { "Registration", stoa_answer_registration },
    { "PromoCode", stoa_answer_promo },
    { "OrderLine", stoa_answer_order_line },
    { "OrderTicket", stoa_answer_order_ticket },
    { "PaymentDetails", stoa_answer_payment },
    { "Order", stoa_answer_order },
    { "OrderItem", stoa_answer_order_item },
    { "Refund", stoa_answer_refund },
    { "PayView", stoa_answer_pay },
    { "Ticket", stoa_answer_ticket },
    { "TicketItem", stoa_answer_ticket_item },
    { "TicketTransfer", stoa_answer_transfer },
    { "TicketRender", stoa_answer_render },
    { "ScannedTicket", stoa_answer_scanned },
    { "ScanVerdict", stoa_answer_verdict },
    { "DevicePairing", stoa_answer_pairing },
    { "Device", stoa_answer_device },
    { "DeviceLogin", stoa_answer_device_login },
    { "TicketKey", stoa_answer_key },
    { "SnapshotType", stoa_answer_snapshot_type },
    { "SnapshotTicket", stoa_answer_snapshot_ticket },
    { "TicketRevocation", stoa_answer_snapshot_revocation },
    { "Snapshot", stoa_answer_snapshot },
    { "MergedScan", stoa_answer_merged_item },
    { "MergedScans", stoa_answer_merged },
    { "TypeCount", stoa_answer_type_count },
    { "GateCount", stoa_answer_gate_count },
    { "DoorStats", stoa_answer_stats },
    { "Received", stoa_answer_received },
    { "AuditRow", stoa_answer_audit },
    { "ErrorRow", stoa_answer_error_row },
};


/* ---- the rows ---- */

const stoa_answer_t stoa_api_answers[] = {
    { "auth.register", "Registered", false },
    { "auth.login", "Grant", false },
    { "auth.refresh", "Refreshed", false },
    { "auth.logout", "LoggedOut", false },
    { "auth.forgot_password", "Nothing", false },
    { "auth.reset_password", "PasswordReset", false },
    { "auth.change_password", "Grant", false },
    { "auth.verify_email", "EmailVerified", false },
    { "auth.resend_verification", "Nothing", false },
    { "auth.check", "TokenCheck", false },
    { "auth.csrf", "CsrfToken", false },
    { "auth.login_mfa", "Grant", false },
    { "auth.mfa", "SecondFactor", false },
    { "auth.mfa_enrol", "SecondFactorSecret", false },
    { "auth.mfa_confirm", "RecoveryCodes", false },
    { "auth.mfa_off", "Proved", false },
    { "auth.mfa_codes", "RecoveryCodes", false },
    { "auth.step_up", "Proved", false },
    { "auth.sessions", "Session[]", false },
    { "auth.session_end", "SessionsEnded", false },
    { "auth.sessions_end", "SessionsEnded", false },
    { "auth.keys", "ApiKey[]", false },
    { "auth.key_create", "ApiKey", false },
    { "auth.key_rotate", "ApiKey", false },
    { "auth.key_revoke", "ApiKeyRevoked", false },
    { "auth.scopes", "Scopes", false },
    { "oauth.providers", "OauthProvider[]", true },
    { "oauth.token", "Grant", false },
    { "identities.list", "Identity[]", false },
    { "identities.link", "IdentityLink", false },
    { "identities.unlink", "IdentityUnlinked", false },
    { "privacy.consents", "Consents", true },
    { "privacy.consent", "Consents", false },
    { "presence.list", "Presence[]", false },
    { "users.me", "User", true },
    { "users.update", "User", false },
    { "users.replace", "User", false },
    { "users.email", "Nothing", false },
    { "users.get", "Profile", true },
    { "users.account", "User", true },
    { "users.list", "User[]", false },
    { "users.create", "User", false },
    { "users.roles", "User", false },
    { "users.status", "User", false },
    { "events.list", "EventItem[]", true },
    { "events.create", "Event", false },
    { "events.mine", "OwnEvent[]", false },
    { "events.get", "Event", true },
    { "events.update", "Event", false },
    { "events.patch", "Event", false },
    { "events.publish", "Event", false },
    { "events.duplicate", "Event", false },
    { "events.cancel", "Event", false },
    { "events.register", "Order", false },
    { "events.registrations", "Registration[]", false },
    { "events.staff", "EventStaff[]", false },
    { "events.staff_add", "EventStaffAdded", false },
    { "ticket_types.list", "TicketType[]", false },
    { "ticket_types.create", "TicketType", false },
    { "ticket_types.update", "TicketType", false },
    { "ticket_types.patch", "TicketType", false },
    { "promo_codes.list", "PromoCode[]", false },
    { "promo_codes.create", "PromoCode", false },
    { "promo_codes.patch", "PromoCode", false },
    { "orders.create", "Order", false },
    { "orders.list", "OrderItem[]", false },
    { "orders.get", "Order", true },
    { "orders.cancel", "Order", false },
    { "orders.refund", "Refund", false },
    { "orders.refunds", "Refund[]", false },
    { "orders.validate", "ScanVerdict", false },
    { "pay.view", "PayView", false },
    { "tickets.list", "TicketItem[]", false },
    { "tickets.get", "Ticket", true },
    { "tickets.png", "TicketRender", false },
    { "tickets.pdf", "TicketRender", false },
    { "tickets.transfer", "TicketTransfer", false },
    { "tickets.reissue", "Ticket", false },
    { "checkin.pair", "DevicePairing", false },
    { "checkin.devices", "Device[]", false },
    { "checkin.device_login", "DeviceLogin", false },
    { "checkin.snapshot", "Snapshot", false },
    { "checkin.batch", "MergedScans", false },
    { "checkin.stats", "DoorStats", false },
    { "webhooks.stripe", "Received", false },
    { "admin.audit", "AuditRow[]", false },
    { "admin.mfa_remove", "Removed", false },
    { "admin.impersonate", "Impersonation", false },
    { "system.errors", "ErrorRow[]", false },
    { NULL, NULL, false },
};


/* ---- printing ---- */

static bool
stoa_answer_is(const char *type, size_t len, const char *name)
{
    return strlen(name) == len && memcmp(type, name, len) == 0;
}


/* The members of a schema of one value that is no list. */
static void
stoa_answer_base(stoa_openapi_t *o, const char *type, size_t len, bool null)
{
    static const struct {
        const char *name, *type, *format;
    } plain[] = {
        { "uuid", "string", "uuid" },      { "text", "string", NULL },
        { "int", "integer", NULL },        { "bool", "boolean", NULL },
        { "time", "string", "date-time" }, { "object", "object", NULL },
    };
    char ref[128];

    for (size_t i = 0; i < stoa_nitems(plain); i++) {
        if (!stoa_answer_is(type, len, plain[i].name)) {
            continue;
        }

        if (null) {
            stoa_openapi_list(o, "type");
            stoa_openapi_item(o, plain[i].type);
            stoa_openapi_item(o, "null");
            stoa_openapi_close(o, ']');

        } else {
            stoa_openapi_text(o, "type", plain[i].type);
        }

        if (plain[i].format != NULL) {
            stoa_openapi_text(o, "format", plain[i].format);
        }

        return;
    }

    (void) snprintf(ref, sizeof(ref), "#/components/schemas/%.*s", (int) len,
                    type);

    if (null) {
        stoa_openapi_list(o, "anyOf");
        stoa_openapi_open(o, '{');
        stoa_openapi_text(o, "$ref", ref);
        stoa_openapi_close(o, '}');
        stoa_openapi_open(o, '{');
        stoa_openapi_text(o, "type", "null");
        stoa_openapi_close(o, '}');
        stoa_openapi_close(o, ']');

    } else {
        stoa_openapi_text(o, "$ref", ref);
    }
}


/* The schema of a type, as the value of a key. */
static void
stoa_answer_type(stoa_openapi_t *o, const char *type)
{
    size_t len = strlen(type);
    bool   null = type[len - 1] == '?';
    bool   list;

    len -= null ? 1 : 0;
    list = len > 2 && memcmp(type + len - 2, "[]", 2) == 0;
    stoa_openapi_open(o, '{');

    if (list) {
        stoa_openapi_text(o, "type", "array");
        stoa_openapi_object(o, "items");
        stoa_answer_base(o, type, len - 2, false);
        stoa_openapi_close(o, '}');

    } else {
        stoa_answer_base(o, type, len, null);
    }

    stoa_openapi_close(o, '}');
}


static void
stoa_answer_object(stoa_openapi_t *o, const stoa_answer_object_t *object)
{
    const stoa_answer_member_t *m;
    char                        name[64];
    bool                        some = false;

    stoa_openapi_object(o, object->name);
    stoa_openapi_text(o, "type", "object");
    stoa_openapi_object(o, "properties");

    for (m = object->members; m->name != NULL; m++) {
        (void) snprintf(name, sizeof(name), "%.*s", (int) strcspn(m->name, "?"),
                        m->name);
        stoa_openapi_key(o, name);
        stoa_answer_type(o, m->type);
        some = some || strchr(m->name, '?') == NULL;
    }

    stoa_openapi_close(o, '}');

    if (some) {
        stoa_openapi_list(o, "required");

        for (m = object->members; m->name != NULL; m++) {
            if (strchr(m->name, '?') == NULL) {
                stoa_openapi_item(o, m->name);
            }
        }

        stoa_openapi_close(o, ']');
    }

    stoa_openapi_close(o, '}');
}


void
stoa_openapi_answer_objects(stoa_openapi_t *o)
{
    for (size_t i = 0; i < stoa_nitems(stoa_answer_objects); i++) {
        stoa_answer_object(o, &stoa_answer_objects[i]);
    }
}


static const stoa_answer_t *
stoa_answer_find(const stoa_endpoint_t *ep)
{
    const stoa_answer_t *a = stoa_api_answers;

    while (a->id != NULL && strcmp(a->id, ep->id) != 0) {
        a++;
    }

    return a->id != NULL ? a : NULL;
}


bool
stoa_openapi_revalidates(const stoa_endpoint_t *ep)
{
    const stoa_answer_t *a = stoa_answer_find(ep);

    return ep->flow == STOA_FLOW_OPENAPI || ep->flow == STOA_FLOW_MANUAL
        || ep->flow == STOA_FLOW_JWKS || (a != NULL && a->etag);
}


bool
stoa_openapi_answer(stoa_openapi_t *o, const stoa_endpoint_t *ep)
{
    const stoa_answer_t *a = stoa_answer_find(ep);

    if (a == NULL) {
        return false;
    }

    stoa_openapi_object(o, "application/json");
    stoa_openapi_object(o, "schema");
    stoa_openapi_list(o, "allOf");
    stoa_openapi_open(o, '{');
    stoa_openapi_text(o, "$ref",
                      ep->list != NULL ? "#/components/schemas/Page"
                                       : "#/components/schemas/Success");
    stoa_openapi_close(o, '}');
    stoa_openapi_open(o, '{');
    stoa_openapi_text(o, "type", "object");
    stoa_openapi_object(o, "properties");
    stoa_openapi_key(o, "data");
    stoa_answer_type(o, a->data);
    stoa_openapi_close(o, '}');
    stoa_openapi_close(o, '}');
    stoa_openapi_close(o, ']');
    stoa_openapi_close(o, '}');
    stoa_openapi_close(o, '}');

    return true;
}
