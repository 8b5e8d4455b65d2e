/*
 * text.h: what a terminal sees. Numbers for people (always in the same form, whatever the locale), tables whose columns
 * are as wide as what is in them, and no byte that a terminal would obey.
 */
#ifndef PSYNE_TOOLS_STAT_TEXT_H
#define PSYNE_TOOLS_STAT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TEXT_NUMBER 48 /* bytes that hold any of the numbers below, as far as compilers can tell */

/* ---- numbers: three digits that count, in @to, which is returned ---- */
char *text_count(char to[TEXT_NUMBER], uint64_t n);          /* 999, 1.24M: powers of 1000 */
char *text_bytes(char to[TEXT_NUMBER], uint64_t n);          /* 64, 1.5M: powers of 1024 */
char *text_duration(char to[TEXT_NUMBER], uint64_t ns);      /* 182ns, 3.1us, 22ms, 4s, 5m, 2h, 3d */
char *text_time(char to[TEXT_NUMBER], uint64_t realtime_ns); /* 2026-01-31 23:59:59Z */

/* ---- text ---- */
void text_clean(char *s); /* in place: anything but printable ASCII becomes '?' */

enum text_color { TEXT_PLAIN, TEXT_BOLD, TEXT_RED, TEXT_YELLOW };
void text_use_color(bool yes);
const char *text_on(enum text_color c); /* "" without colour */
const char *text_off(enum text_color c);

/* ---- tables ---- */
struct text_table;

/* @heads ends with NULL; one that starts with '>' is a column of numbers, set to the right. NULL: no memory. */
struct text_table *text_table_new(const char *const heads[]);
struct text_table *text_table_free(struct text_table *t);

/* The next cell, row by row. */
void text_table_cell(struct text_table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_table_color(struct text_table *t, enum text_color c); /* of the cell just added */
void text_table_print(const struct text_table *t, const char *indent, bool header);
size_t text_table_rows(const struct text_table *t);

#endif
