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

/* Three capital letters. */
bool stoa_scalar_is_currency(stoa_str_t s);

/* Absolute, http or https, a host, printable ASCII. */
bool stoa_scalar_is_url(stoa_str_t s);

#endif /* STOA_SCALAR_H_INCLUDED */
