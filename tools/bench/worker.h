/*
 * worker.h: what an implementation provides to be measured, and the loop that runs it. control.h has the protocol.
 *
 * An adapter is a table of struct bench_impl and a main() that calls bench_worker_main(). attach() is called on both
 * sides, A first; both have the same arena (memory that is shared also between processes), so A makes its queues there
 * and B finds them. Direction 0 is A to B and direction 1 is B to A.
 */
#ifndef PSYNE_BENCH_WORKER_H
#define PSYNE_BENCH_WORKER_H

#include "bench/control.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { BENCH_SIDE_A = 0, BENCH_SIDE_B = 1 };

struct bench_arena {
        unsigned char *base; /* 2 MiB aligned */
        size_t size;
        const char *pages; /* what backs it */
};

/* All that one side of a slice needs. */
struct bench_side {
        const struct bench_spec *spec;
        struct bench_slot *slot;
        struct bench_answer *answer;
        double ticks_per_ns;
        int side;
        uint32_t meetings;  /* this side's count of them */
        long preemptions;   /* of this thread, when it last met the other side */
        int64_t absence_ns; /* and how long it had been off a CPU by then */
        const void *cpus;   /* cpu_set_t of the worker at its start */
        uint32_t *samples;  /* round trips in ticks; samples_max of them, faulted in */
        size_t samples_max;
};

struct bench_impl {
        const char *name;
        const char *package; /* the Debian package it comes from, "-" for our own */
        const char *version;
        uint32_t what, calls, modes, waits;
        uint32_t over;
        uint32_t has_pauses; /* spec->pauses matters: the waits are the adapter's own loops */
        int (*attach)(struct bench_side *s, struct bench_arena *arena,
                void **ret); /* else -errno, sentence in answer->text */
        void (*run)(void *ctx, struct bench_side *s);
        void (*detach)(void *ctx, struct bench_side *s);
};

/* Binds the calling thread to its side's CPU, or gives it back the CPUs that the worker was started with. */
void bench_pin(struct bench_side *s, bool pinned);

/* Waits for the other side to come here as well. */
void bench_meet(struct bench_side *s);

/* Fills in answer->error and its sentence; returns the error for the caller to pass on. */
int bench_refuse(struct bench_side *s, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts the median and the 90th percentile of n samples into the answer; each sample is the time of `group` things. */
void bench_answer_samples(struct bench_side *s, size_t n, unsigned group);

/* The memory for one direction's ring, BENCH_ARENA_BYTES / 2 on a 2 MiB boundary; side A finds it zeroed. NULL:
 * refused. */
void *bench_arena_ring(struct bench_side *s, struct bench_arena *arena, int direction);

/* True if the arguments are for a worker; then *ret is the exit code. */
int bench_worker_main(int argc, char **argv, const struct bench_impl *const *impls, size_t n_impls, int *ret);

#ifdef __cplusplus
}
#endif
#endif
