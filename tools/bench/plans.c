/* plans.c: the four subcommands: which tables, at which sizes, with which words. */
#include "bench/run.h"

#include <errno.h>

static const uint64_t sizes_lat[] = {8, 32, 48, 64};
static const uint64_t sizes_rate[] = {8, 64, 1024, 65536, 1048576};
static const uint64_t sizes_tcp_lat[] = {64};
static const uint64_t sizes_tcp_rate[] = {64, 1024, 65536, 1048576};
static const uint64_t sizes_wake[] = {8};

#define SIZES(r, own) ((r)->options.n_sizes ? (r)->options.sizes : (own))
#define N_SIZES(r, own) ((r)->options.n_sizes ? (r)->options.n_sizes : (unsigned)(sizeof(own) / sizeof(*(own))))

static struct bench_spec spec_of(const struct run *r, enum bench_what what, enum bench_wait wait, uint64_t size) {
        return (struct bench_spec){
                .what = what,
                .wait = wait,
                .size = size,
                .align = r->options.align,
                .cpu = {r->report.cpus[0], r->report.cpus[1]},
        };
}

static void slice_default(struct run *r, double ms) {
        r->report.slice_ms = r->options.slice_ms > 0 ? r->options.slice_ms : ms;
}

int bench_lat(struct run *r) {
        slice_default(r, 4);
        for (unsigned i = 0; i < N_SIZES(r, sizes_lat); i++) {
                const struct bench_spec spec = spec_of(r, BENCH_LAT, BENCH_WAIT_SPIN, SIZES(r, sizes_lat)[i]);
                const int err = run_table(r, "lat", "round trip, both sides spinning", &spec);

                if (err < 0)
                        return err;
        }
        return 0;
}

int bench_rate(struct run *r) {
        slice_default(r, 4);
        for (unsigned i = 0; i < N_SIZES(r, sizes_rate); i++) {
                const struct bench_spec spec = spec_of(r, BENCH_RATE, BENCH_WAIT_SPIN, SIZES(r, sizes_rate)[i]);
                const int err = run_table(r, "rate", "one way, every byte written and read", &spec);

                if (err < 0)
                        return err;
        }
        return 0;
}

/* Through TCP over loopback: round trips that are polled for and ones that are slept for, and one way. */
int bench_tcp_lat(struct run *r) {
        slice_default(r, 10);
        for (unsigned i = 0; i < N_SIZES(r, sizes_tcp_lat); i++)
                for (unsigned sleeps = 0; sleeps < 2; sleeps++) {
                        struct bench_spec spec = spec_of(r, BENCH_LAT, sleeps ? BENCH_WAIT_BLOCK : BENCH_WAIT_SPIN, SIZES(r, sizes_tcp_lat)[i]);
                        int err;

                        spec.over = BENCH_TCP;
                        err = run_table(r, "tcp-lat", sleeps ? "round trip, both sides asleep between messages" : "round trip, both sides polling", &spec);
                        if (err < 0)
                                return err;
                }
        return 0;
}

int bench_tcp_rate(struct run *r) {
        slice_default(r, 10);
        for (unsigned i = 0; i < N_SIZES(r, sizes_tcp_rate); i++) {
                struct bench_spec spec = spec_of(r, BENCH_RATE, BENCH_WAIT_BLOCK, SIZES(r, sizes_tcp_rate)[i]);
                int err;

                spec.over = BENCH_TCP;
                err = run_table(r, "tcp-rate", "one way, every byte written and read", &spec);
                if (err < 0)
                        return err;
        }
        return 0;
}

/* Round trips of sleepers, apart and on one CPU; then what it costs to look for sleepers when there is none. */
int bench_wake(struct run *r) {
        slice_default(r, 10);
        for (unsigned i = 0; i < N_SIZES(r, sizes_wake); i++) {
                struct bench_spec spec = spec_of(r, BENCH_LAT, r->options.wait, SIZES(r, sizes_wake)[i]);
                int err = 0;

                if (!r->options.same_cpu)
                        err = run_table(r, "wake", "round trip, both sides asleep between messages", &spec);
                spec.cpu[1] = spec.cpu[0];
                if (err == 0)
                        err = run_table(r, "wake", "round trip, both sides asleep between messages, on one CPU", &spec);
                if (err == 0 && !r->options.same_cpu) {
                        spec = spec_of(
                                r, BENCH_PUBLISH, BENCH_WAIT_SPIN, SIZES(r, sizes_wake)[i]); /* nobody waits at all */
                        err = run_table(r, "publish", "claim, fill and commit with nobody asleep", &spec);
                }
                if (err < 0)
                        return err;
        }
        return 0;
}

/* What the machine allows: the same tables with the floors alone. */
int bench_floor(struct run *r) {
        int err = 0;

        r->floors_only = true;
        slice_default(r, 4);
        for (unsigned i = 0; !r->options.same_cpu && err == 0 && i < N_SIZES(r, sizes_lat); i++) {
                const struct bench_spec spec = spec_of(r, BENCH_LAT, BENCH_WAIT_SPIN, SIZES(r, sizes_lat)[i]);

                err = run_table(r, "lat", "round trip of one line that holds the payload, both sides spinning", &spec);
        }
        for (unsigned i = 0; !r->options.same_cpu && err == 0 && i < N_SIZES(r, sizes_rate); i++) {
                const struct bench_spec spec = spec_of(r, BENCH_RATE, BENCH_WAIT_SPIN, SIZES(r, sizes_rate)[i]);

                err = run_table(r, "rate", "one way through a bare ring, every byte written and read", &spec);
        }
        if (err == 0) {
                struct bench_spec spec = spec_of(r, BENCH_LAT, BENCH_WAIT_BLOCK, 8);

                slice_default(r, 10);
                if (!r->options.same_cpu)
                        err = run_table(r, "wake", "round trip, both sides asleep between messages", &spec);
                spec.cpu[1] = spec.cpu[0];
                if (err == 0)
                        err = run_table(r, "wake", "round trip, both sides asleep between messages, on one CPU", &spec);
        }
        return err;
}
