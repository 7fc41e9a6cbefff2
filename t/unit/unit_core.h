/*
 * What the units of the pure code share: files of t/data, slices of
 * literals, a generator of numbers that is the same on every run.
 */

#ifndef UNIT_CORE_H_INCLUDED
#define UNIT_CORE_H_INCLUDED

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "stoa_mem.h"
#include "stoa_str.h"

#define Z(text)    stoa_str_z(text)
#define L(literal) ((stoa_str_t) stoa_string(literal))

/* t/data/<name>; the unit runs in the tree's root or says where with
   UNIT_ROOT.  Fails the unit when there is no such file. */
stoa_str_t unit_read(stoa_mem_t *mem, const char *name);

/* Names in t/data/<folder>, sorted, ended by NULL. */
char **unit_list(stoa_mem_t *mem, const char *folder);

uint32_t unit_number(uint32_t *seed);

#endif /* UNIT_CORE_H_INCLUDED */
