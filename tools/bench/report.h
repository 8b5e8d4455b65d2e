/* report.h: tables for people, one JSON object for programs. */
#ifndef PSYNE_BENCH_REPORT_H
#define PSYNE_BENCH_REPORT_H

#include "bench/env.h"
#include "bench/figures.h"
#include "bench/table.h"

#include <stdio.h>

#define REPORT_SCHEMA "psyne-bench/1" /* only additions within a number */
#define REPORT_TABLES_MAX 64u
#define REPORT_MISSING_MAX 16u

struct report {
        struct env env;
        int cpus[2]; /* [1] is -1 when there is one only */
        char command[64];
        double slice_ms;
        struct probes *probes;
        struct {
                char name[32], why[192];
        } missing[REPORT_MISSING_MAX];
        unsigned n_missing;
        const struct table *tables[REPORT_TABLES_MAX];
        unsigned n_tables;
};

void report_missing(struct report *r, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Environment and who is not here. */
void report_head(const struct report *r, FILE *f);
void report_table(const struct report *r, const struct table *t, FILE *f);
/* Probes, threshold, steal, and whether to believe any of it. */
void report_foot(const struct report *r, FILE *f);
void report_json(const struct report *r, FILE *f);

/* Steal above 1 %, or probes of one class that spread by more than a quarter. */
bool report_is_noisy(const struct report *r);

/* For report-modes.c, which prints the rows of `modes`: they are told apart by more than those of others. */
const char *report_mode_name(const struct row *r);
const char *report_calls_name(const struct row *r);
void report_format_bytes(uint64_t n, char *ret, size_t size);
void report_format_value(const struct table *t, double v, char *ret, size_t size);
void report_json_key_string(FILE *f, const char *key, const char *value);
void report_json_key_number(FILE *f, const char *key, double v);
void report_modes_heading(FILE *f);
void report_modes_row(const struct table *t, const struct row *row, const struct figures *g, FILE *f);
void report_modes_json(const struct table *t, const struct row *row, const struct figures *g, FILE *f);

#endif
