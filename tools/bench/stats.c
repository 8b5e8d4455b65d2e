/* stats.c: see stats.h. No dependency but libc, so that a test can link it alone. */
#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>

static int value_compare(const void *a, const void *b) {
        const double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

double stats_percentile_sorted(const double *sorted, size_t n, double percent) {
        /* A hair less before rounding up: 10 % of 20 is 2 and must not become 3 for want of a bit. */
        const double rank = ceil(percent / 100 * (double)n - 1e-9);

        if (rank < 1)
                return sorted[0];
        return rank > (double)n ? sorted[n - 1] : sorted[(size_t)rank - 1];
}

/* Sorts. */
static struct stats_summary summary_of(double *v, size_t n) {
        if (n == 0)
                return (struct stats_summary){NAN, NAN, NAN, 0};
        qsort(v, n, sizeof(*v), value_compare);
        return (struct stats_summary){
                .median = stats_percentile_sorted(v, n, 50),
                .p10 = stats_percentile_sorted(v, n, 10),
                .p90 = stats_percentile_sorted(v, n, 90),
                .n = n,
        };
}

struct stats_summary stats_summarize(const double *values, size_t n) {
        struct stats_summary s;
        size_t kept = 0;
        double *v;

        v = malloc((n ? n : 1) * sizeof(*v));
        if (!v)
                return summary_of(NULL, 0);
        for (size_t i = 0; i < n; i++)
                if (!isnan(values[i]))
                        v[kept++] = values[i];
        s = summary_of(v, kept);
        free(v);
        return s;
}

struct stats_summary stats_ratios(const double *a, const double *b, size_t n) {
        struct stats_summary s;
        size_t kept = 0;
        double *v;

        v = malloc((n ? n : 1) * sizeof(*v));
        if (!v)
                return summary_of(NULL, 0);
        for (size_t i = 0; i < n; i++)
                if (!isnan(a[i]) && b[i] > 0)
                        v[kept++] = a[i] / b[i];
        s = summary_of(v, kept);
        free(v);
        return s;
}

#define GAP_MIN                                                                                                        \
        1.3 /* 34 and 235 ns on one processor, 56 and 78 on another; within a class neighbours are closer than this */

#define ABOVE_MAX 1.25 /* the nearest separate cores seen so far took 78 ns, with below_ns at its default of 65 */

double stats_threshold(const double *probes, size_t n, double below_ns) {
        double threshold = below_ns, widest = GAP_MIN;
        double *v;

        v = malloc((n ? n : 1) * sizeof(*v));
        if (!v)
                return threshold;
        for (size_t i = 0; i < n; i++)
                v[i] = probes[i];
        qsort(v, n, sizeof(*v), value_compare);
        for (size_t i = 1; i < n; i++) {
                if (v[i - 1] <= 0 || v[i - 1] >= below_ns || v[i] / v[i - 1] < widest)
                        continue;
                widest = v[i] / v[i - 1];
                threshold = sqrt(v[i] * v[i - 1]);
        }
        /* A gap up to cores far away says nothing about where the near ones would have been. */
        if (threshold > below_ns * ABOVE_MAX)
                threshold = below_ns * ABOVE_MAX;
        free(v);
        return threshold;
}
