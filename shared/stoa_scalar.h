/*
 * Forms of texts, for validation.  Pure.
 */

#ifndef STOA_SCALAR_H_INCLUDED
#define STOA_SCALAR_H_INCLUDED

#include "stoa.h"

/* local@domain.tld: RFC 5321 lengths, unquoted, ASCII, a dot in the domain;
   no character that could end a header or an SMTP line. */
bool stoa_scalar_is_email(stoa_str_t s);

/* "Europe/Berlin", "UTC", "Etc/GMT+5": the form of an IANA name. */
bool stoa_scalar_is_timezone(stoa_str_t s);

/* An active code of ISO 4217 that money is counted in. */
bool stoa_scalar_is_currency(stoa_str_t s);

/* Absolute, http or https, a host, printable ASCII. */
bool stoa_scalar_is_url(stoa_str_t s);

/* s, which is UTF-8, without the white space around it, the invisible kinds
   of it too. */
stoa_str_t stoa_scalar_trim(stoa_str_t s);

/* Valid UTF-8 without controls; several lines may have tabs and line ends,
   one line has neither those nor marks that part lines or turn the
   direction of what follows. */
bool stoa_scalar_is_plain(stoa_str_t s, bool lines);

#endif /* STOA_SCALAR_H_INCLUDED */
