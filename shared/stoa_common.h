/*
 * Passwords that everybody tries first: those of stoa_common.def.
 */

#ifndef STOA_COMMON_H_INCLUDED
#define STOA_COMMON_H_INCLUDED

#include "stoa.h"

/* Letters of ASCII in any case.  Pure, constant memory. */
bool stoa_common_password(stoa_str_t password);

#endif /* STOA_COMMON_H_INCLUDED */
