/* json.c: see json.h. */
#include "stat/json.h"

static void quoted(struct json *j, const char *s) {
        putc('"', j->file);
        for (; *s; s++) {
                if (*s == '"' || *s == '\\')
                        fprintf(j->file, "\\%c", *s);
                else
                        putc(*s < ' ' || *s > '~' ? '?' : *s, j->file);
        }
        putc('"', j->file);
}

static void item(struct json *j, const char *key) {
        if (j->started)
                putc(',', j->file);
        if (j->depth)
                fprintf(j->file, "\n%*s", (int)(2 * j->depth), "");
        j->started = true;
        if (key) {
                quoted(j, key);
                fputs(": ", j->file);
        }
}

void json_open(struct json *j, const char *key, char bracket) {
        item(j, key);
        putc(bracket, j->file);
        j->depth++;
        j->started = false;
}

void json_close(struct json *j, char bracket) {
        j->depth--;
        if (j->started)
                fprintf(j->file, "\n%*s", (int)(2 * j->depth), "");
        putc(bracket, j->file);
        j->started = true;
        if (j->depth == 0)
                putc('\n', j->file);
}

void json_bool(struct json *j, const char *key, bool value) {
        item(j, key);
        fputs(value ? "true" : "false", j->file);
}

void json_int(struct json *j, const char *key, int64_t value) {
        item(j, key);
        fprintf(j->file, "%lld", (long long)value);
}

void json_null(struct json *j, const char *key) {
        item(j, key);
        fputs("null", j->file);
}

void json_string(struct json *j, const char *key, const char *value) {
        item(j, key);
        quoted(j, value);
}

void json_uint(struct json *j, const char *key, uint64_t value) {
        item(j, key);
        fprintf(j->file, "%llu", (unsigned long long)value);
}
