/*
 * Private PostgreSQL and Redis servers for units: on a unix socket in a
 * folder of their own under /tmp, gone when the unit ends or dies.
 */

#ifndef UNIT_STORES_H_INCLUDED
#define UNIT_STORES_H_INCLUDED

#include "stoa_loop.h"

typedef struct {
    char dir[64];   /* also the socket's folder */
    char bin[256];  /* of PostgreSQL's programs */
    char info[160]; /* conninfo */
    int  pid;       /* 0: stopped */
} unit_pg_t;

typedef struct {
    char dir[64];
    char sock[96];
    int  pid;
} unit_redis_t;

/* Each aborts the unit with a sentence when it cannot do its work. */
void unit_pg_create(unit_pg_t *pg, const char *database_settings);
void unit_pg_start(unit_pg_t *pg);
void unit_pg_stop(unit_pg_t *pg); /* at once, sessions are cut */
void unit_pg_destroy(unit_pg_t *pg);

void unit_redis_create(unit_redis_t *rd);
void unit_redis_start(unit_redis_t *rd);
void unit_redis_stop(unit_redis_t *rd); /* kill -9, nothing is saved */
void unit_redis_destroy(unit_redis_t *rd);

stoa_log_t *unit_log(void); /* stderr when UNIT_LOG is set */

#endif /* UNIT_STORES_H_INCLUDED */
