/* figures.h: what a row comes to in the rounds of one class; text and JSON print the same figures. */
#ifndef PSYNE_BENCH_FIGURES_H
#define PSYNE_BENCH_FIGURES_H

#include "bench/table.h"

struct figures {
        struct stats_summary value, to_floor, to_peer, to_single_peer, to_against;
        struct stats_summary to_bulk_peer, to_spsc, to_2x2; /* of `modes` only */
        const char *best_peer;                              /* NULL: there is none */
        const char *best_single_peer, *best_bulk_peer;
};

struct figures figures_of(const struct table *t, const struct row *r, enum table_class class);

/* The raw line in the rounds of a class. */
struct stats_summary figures_probe(const struct table *t, enum table_class class);

bool figures_class_is_reported(const struct table *t, enum table_class class);

#endif
