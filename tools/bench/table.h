/*
 * table.h: one question, all contenders, many rounds.
 *
 * A round is: the probe, one slice of a few milliseconds of every contender in turn (the floor first, the others from a
 * different one each time), the probe again. The probe is the raw line's round trip, and says where the hypervisor has
 * put the two CPUs: on siblings of one core, on separate cores, or far apart (cores that share no cache). A round whose
 * two probes disagree is dropped and made up for. Everything is reported per class, and ratios are taken within rounds.
 */
#ifndef PSYNE_BENCH_TABLE_H
#define PSYNE_BENCH_TABLE_H

#include "bench/driver.h"
#include "bench/stats.h"

enum table_class {
        CLASS_SEPARATE, /* the nearest separate cores of this run */
        CLASS_FAR,      /* more than twice as far as those */
        CLASS_SIBLINGS,
        CLASS_SAME_CPU,
        CLASS_N,
};

extern const char *const table_class_names[CLASS_N];

#define TABLE_ROWS_MAX 40u
#define TABLE_ROUNDS_MAX 600u

struct row {
        struct contender *contender; /* until the table is measured */
        struct bench_spec spec;      /* the table's; in `modes` with a channel, a shape and CPUs of its own */
        char label[48], version[32];
        enum bench_mode mode;
        enum bench_calls calls;
        bool is_floor, is_psyne, is_against;
        char refused[160]; /* not measured, and why */
        char obtained[96];
        uint64_t ring_bytes; /* the best one */
        uint32_t pauses;     /* the best number, where the adapter's own loops wait */
        uint32_t wait;       /* the best of those tried; outside `modes` it is the table's */
        bool has_pauses;
        uint64_t damaged;
        double value[TABLE_ROUNDS_MAX];
};

struct probes;

struct table {
        const char *bench; /* "lat", "rate", "wake", "publish" */
        const char *title; /* what is measured, as a sentence */
        const char *unit;  /* "ns" or "msg/s" */
        bool more_is_better;
        struct bench_spec spec; /* what, wait, size, cpu: the same for all rows */
        struct row *rows;
        unsigned n_rows;
        unsigned n_rounds, n_dropped;
        unsigned n_preempted; /* slices repeated because some other process wanted a CPU */
        bool one_cpu;
        double probe[TABLE_ROUNDS_MAX]; /* the mean of the two */
        const struct probes *probes;    /* what the classes are derived from, when asked */
};

#define PROBES_MAX 4096u

/* All probes of the run: the thresholds between the classes come from what this machine shows. */
struct probes {
        struct contender *line; /* NULL on one CPU */
        double below_ns;        /* where siblings end while there is no gap to see */
        double values[PROBES_MAX];
        size_t n;
        double siblings_below, far_above; /* as of the last probe */
        uint32_t pauses;                  /* of the line's waits */
};

struct table_options {
        unsigned rounds;
        uint64_t slice_ns;
        uint64_t ring_bytes; /* 0: try them all and take the best of each */
        bool (*interrupted)(void);
        void (*progress)(const struct table *t, unsigned round);
};

struct table *table_new(const char *bench, const char *title, const struct bench_spec *spec);
struct table *table_free(struct table *t);

/* NULL when the table is full. */
struct row *table_add(struct table *t, struct contender *c);

/* 0, -EINTR, or an error of the driver. Rows that refuse say so in ->refused and the others go on. */
int table_measure(struct table *t, struct driver *d, struct probes *p, const struct table_options *o);

/* Attaches the line with the pauses that are best here, and takes the first probes. */
int probe_start(struct driver *d, struct probes *p, const struct bench_spec *spec);

/* One slice of the raw line; its round trip in ns goes into the probes. */
int probe_take(struct driver *d, struct probes *p, double *ret);

/* As of now: later probes may show that what looked near was far. */
enum table_class table_class_of(const struct table *t, unsigned round);

/* A row's values in rounds of one class; the others are NaN. ret holds n_rounds values. */
void table_values(const struct table *t, const struct row *r, enum table_class class, double *ret);

struct row *table_floor(const struct table *t);

/* Of a row of our psyne the one of --against in the same mode and calls, and the other way round. NULL: there is none.
 */
struct row *table_counterpart(const struct table *t, const struct row *r);

/* The best row by median in that class that is neither ours nor a floor, with any of those calls. NULL: none. */
struct row *table_best_peer(const struct table *t, enum table_class class, unsigned calls);

/* `modes`: false for a row that is there to be compared with, at another shape than the table's. */
bool row_has_shape_of(const struct row *r, const struct table *t);

unsigned table_rounds_of(const struct table *t, enum table_class class);

#endif
