/*
 * Passwords that everybody tries first: those of stoa_common.def.
 */

#ifndef STOA_COMMON_H_INCLUDED
#define STOA_COMMON_H_INCLUDED

#include "stoa.h"

/* Letters of ASCII in any case.  Pure, constant memory. */
bool stoa_common_password(stoa_str_t password);

/* The account's own address, in any case of letters. */
bool stoa_common_own(stoa_str_t password, stoa_str_t email);

#endif /* STOA_COMMON_H_INCLUDED */
