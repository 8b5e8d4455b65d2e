/* json.h: one JSON document, written as it goes. 64-bit integers are written in full; strings are ASCII. */
#ifndef PSYNE_TOOLS_STAT_JSON_H
#define PSYNE_TOOLS_STAT_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json {
        FILE *file;
        unsigned depth;
        bool started; /* something stands on this level already */
};

/* @key is NULL inside an array, and for the document itself. @bracket: '{' or '['. */
void json_open(struct json *j, const char *key, char bracket);
void json_close(struct json *j, char bracket);

void json_bool(struct json *j, const char *key, bool value);
void json_int(struct json *j, const char *key, int64_t value);
void json_null(struct json *j, const char *key);
void json_string(struct json *j, const char *key, const char *value);
void json_uint(struct json *j, const char *key, uint64_t value);

#endif
