/* report.h: tables for people, one JSON object for programs. */
#ifndef PSYNE_BENCH_REPORT_H
#define PSYNE_BENCH_REPORT_H

#include "bench/env.h"
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

#endif
