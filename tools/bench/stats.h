/*
 * stats.h: medians and percentiles of few values, by nearest rank: every figure printed was really measured once.
 *
 * Ratios are taken within a round and then ranked. A round is short, so whatever the machine did to one implementation
 * it did to its neighbours; the ratio of two medians would throw that away.
 */
#ifndef PSYNE_BENCH_STATS_H
#define PSYNE_BENCH_STATS_H

#include <stddef.h>

struct stats_summary {
        double median, p10, p90;
        size_t n; /* 0: the others mean nothing */
};

/* The smallest value that at least percent % of the n values do not exceed; n > 0. Sorted: ascending. */
double stats_percentile_sorted(const double *sorted, size_t n, double percent);

/* NaNs are values that were not measured; they do not count. */
struct stats_summary stats_summarize(const double *values, size_t n);

/* Summary of a[i] / b[i] over the i where both were measured and b[i] > 0. */
struct stats_summary stats_ratios(const double *a, const double *b, size_t n);

/*
 * Where to cut the probes of a run into siblings of one core and separate cores: in the middle of the widest gap, if
 * there is a wide one with its lower edge below `below_ns`, but never far above that; otherwise at below_ns.
 */
double stats_threshold(const double *probes, size_t n, double below_ns);

#endif
