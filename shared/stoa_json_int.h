/*
 * The scanner's state, between stoa_json_scan.c, which walks a text once,
 * stoa_json_walk.c, which reads values in place, and the door stoa_json.c;
 * nobody else includes this.
 */

#ifndef STOA_JSON_INT_H_INCLUDED
#define STOA_JSON_INT_H_INCLUDED

#include "stoa_json.h"

#define STOA_JSON_KEYS 192 /* of open objects; beyond, jansson compares */

typedef struct {
    uint32_t hash;
    uint32_t from;
    uint32_t len;
} stoa_json_key_t;

typedef struct {
    const unsigned char *text;
    size_t               len;
    size_t               at;
    const char          *reason; /* set: it failed here */
    unsigned             depth;
    uint64_t             objects;                    /* bit per open level */
    uint16_t             first[STOA_JSON_DEPTH + 1]; /* key of the level */
    uint16_t             nkeys;
    bool                 unsure; /* some keys were not compared */
    stoa_json_key_t      keys[STOA_JSON_KEYS];
} stoa_json_scan_t;

static inline void
stoa_json_space(stoa_json_scan_t *scan)
{
    unsigned char c;

    while (scan->at < scan->len) {
        c = scan->text[scan->at];

        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') {
            break;
        }

        scan->at++;
    }
}

void stoa_json_scan_init(stoa_json_scan_t *scan, stoa_str_t text);

/* All of the text; false: scan->reason at scan->at. */
bool stoa_json_scan(stoa_json_scan_t *scan);

/* One scalar, or the opening of an array or object; *done: the text's value
   is whole. */
bool stoa_json_item(stoa_json_scan_t *scan, bool *done);

/* At the opening quote; ends behind the closing one. */
bool stoa_json_string_scan(stoa_json_scan_t *scan, bool *escaped);

#endif /* STOA_JSON_INT_H_INCLUDED */
