/*
 * check-stats.c: the figures psyne-bench prints, checked on values small enough to rank by hand.
 *
 * Exit code 0 and silence, or the first line that is wrong.
 */
#include "bench/stats.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(x)                                                                                                       \
        do {                                                                                                           \
                if (!(x)) {                                                                                            \
                        fprintf(stderr, "check-stats: line %d: %s\n", __LINE__, #x);                                   \
                        exit(EXIT_FAILURE);                                                                            \
                }                                                                                                      \
        } while (0)

static bool is(double a, double b) {
        return fabs(a - b) < 1e-9;
}

/* Nearest rank: the value itself, never a mean of two; the smallest that enough of the others do not exceed. */
static void percentiles(void) {
        const double one[] = {7}, v[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};

        CHECK(is(stats_percentile_sorted(one, 1, 10), 7));
        CHECK(is(stats_percentile_sorted(one, 1, 99), 7));
        CHECK(is(stats_percentile_sorted(v, 10, 50), 5));
        CHECK(is(stats_percentile_sorted(v, 10, 51), 6));
        CHECK(is(stats_percentile_sorted(v, 10, 10), 1)); /* 10 * 10 % is exactly 1, and must not round up to 2 */
        CHECK(is(stats_percentile_sorted(v, 10, 90), 9));
        CHECK(is(stats_percentile_sorted(v, 10, 100), 10));
        CHECK(is(stats_percentile_sorted(v, 10, 0), 1));
}

/* Order does not matter, and what was not measured does not count. */
static void summaries(void) {
        const double v[] = {5, NAN, 1, 3, NAN, 2, 4};
        struct stats_summary s;

        s = stats_summarize(v, 7);
        CHECK(s.n == 5);
        CHECK(is(s.median, 3) && is(s.p10, 1) && is(s.p90, 5));
        s = stats_summarize(v + 1, 1);
        CHECK(s.n == 0 && isnan(s.median));
        s = stats_summarize(v, 0);
        CHECK(s.n == 0);
}

/* The machine doubles its pace half-way: medians alone would say 1.0 or 4.0, round by round it is always 2. */
static void ratios(void) {
        const double a[] = {2, 2, 2, 8, 8}, b[] = {1, 1, 1, 4, 4}, holes[] = {1, NAN, 0, 4, 4};
        struct stats_summary s;

        s = stats_ratios(a, b, 5);
        CHECK(s.n == 5 && is(s.median, 2) && is(s.p10, 2) && is(s.p90, 2));
        s = stats_ratios(a, holes, 5);
        CHECK(s.n == 3 && is(s.median, 2));
}

static void thresholds(void) {
        const double one_class[] = {94, 93, 99, 90, 101}, both[] = {94, 34, 93, 36, 35, 90}, high[] = {130, 500, 510},
                     far[] = {55, 375, 380};

        CHECK(is(stats_threshold(one_class, 5, 65), 65));
        CHECK(is(stats_threshold(both, 6, 65), sqrt(36 * 90))); /* between the two heaps */
        CHECK(is(stats_threshold(high, 3, 65), 65));            /* a gap, but not where siblings can be */
        CHECK(is(stats_threshold(far, 3, 65), 65 * 1.25));      /* near cores may still come */
        CHECK(is(stats_threshold(NULL, 0, 65), 65));
}

int main(void) {
        percentiles();
        summaries();
        ratios();
        thresholds();
        return EXIT_SUCCESS;
}
