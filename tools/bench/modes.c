/*
 * modes.c: `psyne-bench modes`: a table per shape, P producers and C consumers, with psyne in every mode that has room
 * for so many, and the queues of others that are made for many.
 *
 * Producers share one of the two CPUs and consumers the other. From four on a side they are left to the scheduler: what
 * is measured then is what a channel loses when it gets crowded, so psyne's 2x2 takes turns in the same table.
 */
#include "bench/run.h"
#include "bench/team.h"

#include <errno.h>

#define CROWD_MIN 4u /* so many on a side are not pinned */

static const struct shape shapes_default[] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}, {4, 4}};
#define PREFETCH_MANY 16u

static bool channel_has_room(enum bench_channel channel, struct shape shape) {
        switch (channel) {
        case BENCH_SPSC:
                return shape.producers == 1 && shape.consumers == 1;
        case BENCH_MPSC:
                return shape.consumers == 1;
        case BENCH_SPMC:
                return shape.producers == 1;
        default:
                return true;
        }
}

static bool is_crowd(struct shape shape) {
        return shape.producers >= CROWD_MIN || shape.consumers >= CROWD_MIN;
}

static int add_row(struct run *r, struct table *t, unsigned adapter, enum bench_calls calls, struct shape shape,
        enum bench_channel channel, unsigned prefetch) {
        const struct adapter *a = &r->adapters[adapter].adapter;
        const bool processes = !(a->modes & BENCH_THREADS) || (r->options.processes && (a->modes & BENCH_PROCESSES));
        struct row *row;
        int err;

        err = run_row(r, t, adapter, processes ? BENCH_PROCESSES : BENCH_THREADS, calls, &row);
        if (err < 0)
                return err;
        row->spec.channel = (uint8_t)channel;
        row->spec.producers = shape.producers;
        row->spec.consumers = shape.consumers;
        row->spec.prefetch = (uint8_t)prefetch;
        for (int side = 0; side < 2; side++)
                row->spec.cpu[side] = is_crowd(shape) ? -1 : r->report.cpus[side];
        return 0;
}

static int add_psyne(struct run *r, struct table *t, unsigned adapter, struct shape shape, enum bench_channel channel) {
        const bool shares = channel == BENCH_SPMC || channel == BENCH_MPMC;
        int err;

        err = add_row(r, t, adapter, BENCH_SINGLE, shape, channel, shares);
        if (err == 0 && shares)
                err = add_row(r, t, adapter, BENCH_SINGLE, shape, channel, PREFETCH_MANY);
        if (err == 0)
                err = add_row(r, t, adapter, BENCH_BULK, shape, channel, 0);
        return err;
}

static int add_rows(struct run *r, struct table *t) {
        const struct shape shape = {t->spec.producers, t->spec.consumers}, two = {2, 2};
        int err = 0;

        for (unsigned i = 0; i < r->n_adapters && err == 0; i++) {
                if (!run_takes_part(r, t, i))
                        continue;
                if (!r->adapters[i].is_psyne) {
                        for (unsigned calls = BENCH_SINGLE; calls <= BENCH_BULK && err == 0; calls <<= 1)
                                if (r->adapters[i].adapter.calls & calls)
                                        err = add_row(r, t, i, (enum bench_calls)calls, shape, BENCH_NO_CHANNEL, 0);
                        continue;
                }
                for (int c = BENCH_SPSC; c < BENCH_CHANNELS && err == 0; c++) {
                        const enum bench_channel channel = (enum bench_channel)c;

                        if (!channel_has_room(channel, shape))
                                continue;
                        err = add_psyne(r, t, i, shape, channel);
                        if (err == 0 && is_crowd(shape) && channel_has_room(channel, two))
                                err = add_psyne(r, t, i, two, channel);
                }
        }
        return err;
}

int bench_modes(struct run *r) {
        const struct shape *shapes = r->options.n_shapes ? r->options.shapes : shapes_default;
        const unsigned n_shapes = r->options.n_shapes ? r->options.n_shapes
                                                      : (unsigned)(sizeof(shapes_default) / sizeof(*shapes_default));
        static const uint64_t size_default = 64;
        const uint64_t *sizes = r->options.n_sizes ? r->options.sizes : &size_default;
        const unsigned n_sizes = r->options.n_sizes ? r->options.n_sizes : 1;
        int err = 0;

        r->report.slice_ms = r->options.slice_ms > 0 ? r->options.slice_ms : 10;
        for (unsigned i = 0; i < n_sizes && err == 0; i++) {
                for (unsigned k = 0; k < n_shapes && err == 0; k++) {
                        const struct bench_spec spec = {
                                .what = BENCH_MODES,
                                .wait = BENCH_WAIT_SPIN,
                                .size = sizes[i],
                                .align = r->options.align,
                                .producers = shapes[k].producers,
                                .consumers = shapes[k].consumers,
                                .cpu = {r->report.cpus[0], r->report.cpus[1]},
                        };

                        err = run_table_with(r, "modes",
                                is_crowd(shapes[k])
                                        ? "one way, producers and consumers wherever the scheduler puts them"
                                        : "one way, producers on one CPU and consumers on the other",
                                &spec, add_rows);
                }
        }
        return err;
}
