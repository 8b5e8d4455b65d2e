/*
 * loops.h: the four loops that are timed, each written once and compiled into every implementation.
 *
 * An implementation brings two functions per kind of call: send `n` messages numbered from `seq`, and take at least one
 * message, handing each to payload_take() in place. They are always inlined here, so that an implementation pays for
 * no call through a pointer and the size is a constant.
 *
 *      ping / pong     A sends one, waits for the answer, notes the time; B answers each with a message of its own
 *      pour / drain    A sends as fast as it can until the slice is over; B counts
 *      burst / gulp    A sends a few into an empty ring while B looks elsewhere; only the sending is timed
 *
 * Every slice ends with the message PAYLOAD_STOP, which travels like any other, and starts with both sides meeting.
 */
#ifndef PSYNE_BENCH_LOOPS_H
#define PSYNE_BENCH_LOOPS_H

#include "bench/payload.h"
#include "bench/tick.h"
#include "bench/worker.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Before a send or take function: it becomes part of the loops. What it calls in turn, a library's inline functions,
 * should too: a user has one call site where we have a dozen, after which gcc stops inlining. Hence the inlining limits
 * in the build of everything that includes this file (meson.build here).
 */
#define LOOP_CALL static inline __attribute__((always_inline))

typedef void (*loop_send)(void *ctx, size_t size, uint64_t seq, unsigned n);
typedef void (*loop_take)(void *ctx, size_t size, struct payload_reader *t);

/*
 * Spinning round trips are timed in groups of so many: some processors' counters advance in steps of 10 ns, which would
 * make 130 and 140 neighbours. The median over groups still forgets the ones that an interrupt fell into.
 */
#define LOOP_GROUP 16u
#define LOOP_WARM_PART 8u /* the first 1/8 of a slice's time is not counted: lines and predictors are cold */

/* What a slice's reader found goes to its answer. */
BENCH_INLINE void loop_answer_reader(struct bench_side *s, const struct payload_reader *t) {
        s->answer->damaged = t->damaged;
        s->answer->n = t->expect - PAYLOAD_FIRST;
}

BENCH_INLINE void loop_ping(void *ctx, struct bench_side *s, size_t size, loop_send send, loop_take take) {
        struct payload_reader t = {PAYLOAD_FIRST, 0, 0};
        const uint64_t slice = (uint64_t)((double)s->spec->slice_ns * s->ticks_per_ns);
        const unsigned group = s->spec->wait == BENCH_WAIT_SPIN ? LOOP_GROUP : 1;
        uint32_t *const samples = s->samples;
        const size_t samples_max = s->samples_max;
        uint64_t seq = PAYLOAD_FIRST, begin, end, before, now;
        size_t n = 0;

        bench_meet(s);
        before = tick_now();
        begin = before + slice / LOOP_WARM_PART;
        end = before + slice;
        do {
                for (unsigned i = 0; i < group; i++) {
                        send(ctx, size, seq++, 1);
                        take(ctx, size, &t);
                }
                now = tick_now();
                samples[n] = (uint32_t)(now - before);
                n += before >= begin && n + 1 < samples_max;
                before = now;
        } while (now < end);
        send(ctx, size, PAYLOAD_STOP, 1);

        loop_answer_reader(s, &t);
        bench_answer_samples(s, n, group);
}

BENCH_INLINE void loop_pong(void *ctx, struct bench_side *s, size_t size, loop_send send, loop_take take) {
        struct payload_reader t = {PAYLOAD_FIRST, 0, 0};
        uint64_t seq = PAYLOAD_FIRST;

        bench_meet(s);
        for (;;) {
                take(ctx, size, &t);
                if (t.stopped)
                        break;
                send(ctx, size, seq++, 1);
        }
        loop_answer_reader(s, &t);
}

BENCH_INLINE void loop_pour(void *ctx, struct bench_side *s, size_t size, loop_send send, unsigned n) {
        const uint64_t slice = (uint64_t)((double)s->spec->slice_ns * s->ticks_per_ns);
        /* Reading the clock costs more than a small message: look at it about every 4 KiB. */
        const unsigned rounds = size * n >= 4096 ? 1 : (unsigned)(4096 / (size * n));
        uint64_t seq = PAYLOAD_FIRST, end;

        bench_meet(s);
        end = tick_now() + slice;
        do {
                for (unsigned i = 0; i < rounds; i++) {
                        send(ctx, size, seq, n);
                        seq += n;
                }
        } while (tick_now() < end);
        send(ctx, size, PAYLOAD_STOP, 1);
        s->answer->n = seq - PAYLOAD_FIRST;
}

/* The reader's clock decides: what counts is what arrived, whole, by the time the last one did. */
BENCH_INLINE void loop_drain(void *ctx, struct bench_side *s, size_t size, loop_take take) {
        struct payload_reader t = {PAYLOAD_FIRST, 0, 0};
        uint64_t begin, end;

        bench_meet(s);
        begin = tick_now();
        do
                take(ctx, size, &t);
        while (!t.stopped);
        end = tick_now();
        loop_answer_reader(s, &t);
        s->answer->value = (double)s->answer->n * s->ticks_per_ns * 1e9 / (double)(end - begin);
}

#define LOOP_BURST_N 256u

/* Messages per burst: a quarter of the ring at most, whatever an implementation adds to each. */
BENCH_INLINE unsigned loop_burst_n(const struct bench_side *s, size_t size) {
        const uint64_t n = s->spec->ring_bytes / 4 / (size + 64);

        return n > LOOP_BURST_N ? LOOP_BURST_N : n ? (unsigned)n : 1;
}

BENCH_INLINE void loop_await(const uint32_t *word, uint32_t value) {
        while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value)
                tick_pause();
}

/* slot->burst counts: odd when A has sent a burst, even when B has taken it all. */
BENCH_INLINE void loop_burst(void *ctx, struct bench_side *s, size_t size, loop_send send) {
        const uint64_t slice = (uint64_t)((double)s->spec->slice_ns * s->ticks_per_ns);
        const unsigned n_burst = loop_burst_n(s, size);
        uint64_t seq = PAYLOAD_FIRST, begin, now, end;
        uint32_t turn = 0;
        size_t n = 0;

        bench_meet(s);
        end = tick_now() + slice;
        do {
                begin = tick_now();
                for (unsigned i = 0; i < n_burst; i++)
                        send(ctx, size, seq++, 1);
                now = tick_now();
                if (n < s->samples_max)
                        s->samples[n++] = (uint32_t)(now - begin);
                __atomic_store_n(&s->slot->burst, ++turn, __ATOMIC_RELEASE);
                loop_await(&s->slot->burst, ++turn);
        } while (now < end);
        send(ctx, size, PAYLOAD_STOP, 1);
        __atomic_store_n(&s->slot->burst, ++turn, __ATOMIC_RELEASE);
        loop_await(&s->slot->burst, 0);

        bench_answer_samples(s, n, n_burst);
        s->answer->n = seq - PAYLOAD_FIRST;
}

BENCH_INLINE void loop_gulp(void *ctx, struct bench_side *s, size_t size, loop_take take) {
        struct payload_reader t = {PAYLOAD_FIRST, 0, 0};
        const unsigned n_burst = loop_burst_n(s, size);
        uint64_t until = PAYLOAD_FIRST;
        uint32_t turn = 0;

        bench_meet(s);
        for (;;) {
                loop_await(&s->slot->burst, ++turn);
                until += n_burst;
                while (t.expect != until && !t.stopped)
                        take(ctx, size, &t);
                if (t.stopped)
                        break;
                __atomic_store_n(&s->slot->burst, ++turn, __ATOMIC_RELEASE);
        }
        loop_answer_reader(s, &t);
        __atomic_store_n(&s->slot->burst, 0, __ATOMIC_RELEASE);
}

/* One slice of whatever the spec says, at a size that the caller made a constant if it could. */
BENCH_INLINE void loop_run(void *ctx, struct bench_side *s, size_t size, loop_send send, loop_take take,
        loop_send send_bulk, loop_take take_bulk) {
        const int bulk = s->spec->calls == BENCH_BULK;

        switch (s->spec->what) {
        case BENCH_LAT:
                if (s->side == BENCH_SIDE_A)
                        loop_ping(ctx, s, size, send, take);
                else
                        loop_pong(ctx, s, size, send, take);
                break;
        case BENCH_RATE:
                if (s->side == BENCH_SIDE_A && bulk)
                        loop_pour(ctx, s, size, send_bulk, BENCH_BULK_N);
                else if (s->side == BENCH_SIDE_A)
                        loop_pour(ctx, s, size, send, 1);
                else if (bulk)
                        loop_drain(ctx, s, size, take_bulk);
                else
                        loop_drain(ctx, s, size, take);
                break;
        case BENCH_PUBLISH:
                if (s->side == BENCH_SIDE_A)
                        loop_burst(ctx, s, size, send);
                else
                        loop_gulp(ctx, s, size, take);
                break;
        default:
                break;
        }
}

/*
 * Defines `name`, a bench_impl's run(): loop_run() with the size as a constant where psyne-bench's own sizes are asked
 * for, and as a variable for any other. One function per size, because one with all of them grows past what gcc
 * optimises well.
 */
#define LOOP_RUN_DEFINE(name, send, take, send_bulk, take_bulk)                                                        \
        LOOP_RUN_ONE_(name, 8, send, take, send_bulk, take_bulk)                                                       \
        LOOP_RUN_ONE_(name, 32, send, take, send_bulk, take_bulk)                                                      \
        LOOP_RUN_ONE_(name, 48, send, take, send_bulk, take_bulk)                                                      \
        LOOP_RUN_ONE_(name, 64, send, take, send_bulk, take_bulk)                                                      \
        LOOP_RUN_ONE_(name, 128, send, take, send_bulk, take_bulk)                                                     \
        LOOP_RUN_ONE_(name, 256, send, take, send_bulk, take_bulk)                                                     \
        LOOP_RUN_ONE_(name, 1024, send, take, send_bulk, take_bulk)                                                    \
        LOOP_RUN_ONE_(name, 65536, send, take, send_bulk, take_bulk)                                                   \
        LOOP_RUN_ONE_(name, 1048576, send, take, send_bulk, take_bulk)                                                 \
        static void name(void *ctx, struct bench_side *s) {                                                            \
                switch (s->spec->size) {                                                                               \
                        LOOP_CASE_(name, 8)                                                                            \
                        LOOP_CASE_(name, 32)                                                                           \
                        LOOP_CASE_(name, 48)                                                                           \
                        LOOP_CASE_(name, 64)                                                                           \
                        LOOP_CASE_(name, 128)                                                                          \
                        LOOP_CASE_(name, 256)                                                                          \
                        LOOP_CASE_(name, 1024)                                                                         \
                        LOOP_CASE_(name, 65536)                                                                        \
                        LOOP_CASE_(name, 1048576)                                                                      \
                default:                                                                                               \
                        loop_run(ctx, s, s->spec->size, send, take, send_bulk, take_bulk);                             \
                }                                                                                                      \
        }
#define LOOP_RUN_ONE_(name, bytes, send, take, send_bulk, take_bulk)                                                   \
        static __attribute__((noinline)) void name##_##bytes(void *ctx, struct bench_side *s) {                        \
                loop_run(ctx, s, bytes, send, take, send_bulk, take_bulk);                                             \
        }
#define LOOP_CASE_(name, bytes)                                                                                        \
        case bytes:                                                                                                    \
                name##_##bytes(ctx, s);                                                                                \
                break;

#ifdef __cplusplus
}
#endif
#endif
