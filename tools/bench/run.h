/* run.h: one invocation: what was asked, who is here to be measured, and the subcommands. */
#ifndef PSYNE_BENCH_RUN_H
#define PSYNE_BENCH_RUN_H

#include "bench/driver.h"
#include "bench/report.h"
#include "bench/table.h"

#define RUN_SIZES_MAX 16u
#define RUN_ADAPTERS_MAX 32u
#define RUN_SHAPES_MAX 8u

struct run_options {
        uint64_t sizes[RUN_SIZES_MAX];
        unsigned n_sizes; /* 0: the subcommand's own */
        unsigned rounds;
        double slice_ms;      /* 0: the subcommand's own */
        uint64_t ring_bytes;  /* 0: try them */
        uint32_t align;       /* of psyne's records, 0: its default */
        const char *peers;    /* NULL: all known; "none"; or names and paths, comma-separated */
        const char *peer_dir; /* NULL: look where they are built and installed */
        const char *impls;    /* NULL: all; else names, comma-separated */
        const char *against;  /* another psyne-bench, NULL: none */
        int cpus[2];          /* -1: not asked */
        enum bench_wait wait; /* of `wake` */
        bool same_cpu;        /* wake: only there; floor: needs one CPU only */
        double siblings_below_ns;
        struct shape {
                uint8_t producers, consumers;
        } shapes[RUN_SHAPES_MAX]; /* modes */
        unsigned n_shapes;        /* 0: its own */
        bool processes;           /* modes: the two sides are processes where they can be */
        bool quiet; /* no progress on the terminal */
};

struct run {
        struct run_options options;
        struct driver *driver;
        char directory[64]; /* where ipc:// channels of this run have their names; empty: PSYNE_DIR was set already */
        bool floors_only;   /* psyne stays out */
        struct probes probes, no_probes; /* the second for tables on one CPU */
        struct report report;
        FILE *text; /* where tables go */
        struct {
                struct adapter adapter;
                bool is_floor, is_psyne, is_against, is_peer;
        } adapters[RUN_ADAPTERS_MAX];
        unsigned n_adapters;
        bool (*interrupted)(void);
};

/* Peers that can do any of `peers_for` (bench_what) over that take part. 0 or -errno with the sentence already on stderr. */
int run_init(struct run *r, const struct run_options *o, const char *command, unsigned peers_for, enum bench_over over);
void run_deinit(struct run *r);

/* Measures one table with everybody that can take part, and prints it. */
int run_table(struct run *r, const char *bench, const char *title, const struct bench_spec *spec);

/* The same with rows that add_rows() puts there, by run_row(). */
int run_table_with(struct run *r, const char *bench, const char *title, const struct bench_spec *spec,
        int (*add_rows)(struct run *r, struct table *t));
int run_row(struct run *r, struct table *t, unsigned adapter, enum bench_mode mode, enum bench_calls calls,
        struct row **ret);

/* False for adapters that --impl leaves out or that cannot do what the table is about. */
bool run_takes_part(const struct run *r, const struct table *t, unsigned adapter);

int bench_floor(struct run *r);
int bench_lat(struct run *r);
int bench_modes(struct run *r);
int bench_rate(struct run *r);
int bench_tcp_lat(struct run *r);
int bench_tcp_rate(struct run *r);
int bench_wake(struct run *r);

#endif
