/*
 * psyne-impl.c: psyne as its users see it: one SPSC channel per direction, ipc:// between processes and memory://
 * between threads, messages written and read in place.
 *
 * A single-message call is claim, fill, commit and receive, read, release; a bulk call is the same for 32.
 */
#include <psyne/psyne.h>
#include <psyne/info.h>

#include "bench/impls.h"
#include "bench/loops.h"
#include "bench/psyne-impl.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void psyne_side_free(struct psyne_side *p) {
        if (p->out)
                psyne_producer_close(p->out);
        if (p->in)
                psyne_consumer_close(p->in);
        if (p->out_channel)
                psyne_close(p->out_channel);
        if (p->in_channel)
                psyne_close(p->in_channel);
        free(p);
}

enum psyne_wait psyne_side_wait(const struct bench_side *s) {
        switch (s->spec->wait) {
        case BENCH_WAIT_BLOCK:
                return PSYNE_WAIT_BLOCK;
        case BENCH_WAIT_HYBRID:
                return PSYNE_WAIT_HYBRID;
        default:
                return PSYNE_WAIT_SPIN;
        }
}

/* The first fact of a kind in either channel's report, as obtained; NULL if there is none. */
static const char *psyne_side_fact(const struct psyne_info info[2], const char *kind) {
        for (int k = 0; k < 2; k++)
                for (uint32_t i = 0; i < info[k].n_facts && i < PSYNE_FACTS_MAX; i++)
                        if (!strncmp(info[k].facts[i].what, kind, sizeof(info[k].facts[i].what)))
                                return info[k].facts[i].obtained;
        return NULL;
}

/* Both channels are alike, but one has the lane's facts and one the reader's. */
void psyne_side_obtained(const struct psyne_channel *const channels[2], char *text, size_t size) {
        static const char *const kinds[] = {"pages", "wake", "numa", "barrier"};
        struct psyne_info *info;
        const char *fact;
        size_t n = 0;

        info = calloc(2, sizeof(*info));
        if (!info)
                return;
        for (int k = 0; k < 2; k++) {
                info[k].struct_size = sizeof(*info);
                if (channels[k] && psyne_info(channels[k], &info[k]) < 0)
                        info[k].n_facts = 0;
        }
        for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds) && n < size; k++) {
                fact = psyne_side_fact(info, kinds[k]);
                if (fact)
                        n += (size_t)snprintf(text + n, size - n, "%s%s %.23s", n ? ", " : "", kinds[k], fact);
        }
        free(info);
}

static const char *engine = ""; /* of the URI, in the process that is this side */

static int psyne_side_channel(struct bench_side *s, int direction, struct psyne_channel **ret) {
        const struct psyne_opts *opts =
                PSYNE_OPTS(.mode = PSYNE_SPSC, .ring_bytes = s->spec->ring_bytes, .record_align = s->spec->align);
        char uri[96];

        /* One channel of each direction; a serial, so that no run meets what an earlier one left. */
        snprintf(uri, sizeof(uri), "%s://psyne-bench-%d-%u-%u-%c%s", s->spec->mode == BENCH_THREADS ? "memory" : "ipc",
                (int)s->spec->driver_pid, s->spec->serial, s->spec->mode, direction ? 'b' : 'a', engine);
        return psyne_open(uri, opts, ret);
}

static int psyne_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        const struct psyne_producer_opts producer = {.struct_size = sizeof(producer), .wait = psyne_side_wait(s)};
        const struct psyne_consumer_opts consumer = {
                .struct_size = sizeof(consumer), .wait = psyne_side_wait(s), .held_max = BENCH_BULK_N};
        /* One way needs one channel; what B would send on goes unopened. */
        const bool both = s->spec->what == BENCH_LAT;
        struct psyne_side *p;
        int r = 0;

        if (s->spec->what == BENCH_MODES)
                return psyne_team_attach(s, ret);
        (void)arena;
        p = calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        /* The first open starts the service thread, which must not be bound to the CPU that this side is going to spin
         * on. */
        bench_pin(s, false);
        if (s->side == BENCH_SIDE_A || both)
                r = psyne_side_channel(s, s->side, &p->out_channel);
        if (r >= 0 && (s->side == BENCH_SIDE_B || both))
                r = psyne_side_channel(s, !s->side, &p->in_channel);
        bench_pin(s, true);
        if (r >= 0 && p->out_channel)
                r = psyne_producer_open(p->out_channel, &producer, &p->out);
        if (r >= 0 && p->in_channel)
                r = psyne_consumer_open(p->in_channel, &consumer, &p->in);
        if (r < 0) {
                bench_refuse(s, r, "%s", psyne_last_error());
                psyne_side_free(p);
                return r;
        }
        psyne_side_obtained((const struct psyne_channel *const[]){p->out_channel, p->in_channel}, s->answer->obtained,
                sizeof(s->answer->obtained));
        *ret = p;
        return 0;
}

static void psyne_detach(void *ctx, struct bench_side *s) {
        if (s->spec->what == BENCH_MODES)
                psyne_team_detach(ctx);
        else
                psyne_side_free(ctx);
}

/*
 * A call that fails ends the worker: the driver's deadline would only find out later and know less. Nothing fails
 * in a healthy run, so the branch costs what any user's check costs.
 */
__attribute__((noinline, cold, noreturn)) void psyne_give_up(const char *call, int r) {
        fprintf(stderr, "psyne-bench: %s: %s (%s)\n", call, psyne_last_error(), strerror(-r));
        _exit(EXIT_FAILURE);
}

LOOP_CALL void psyne_one_send(void *ctx, size_t size, uint64_t seq, unsigned n) {
        struct psyne_side *p = ctx;
        struct psyne_msg m;
        int r;

        (void)n;
        r = psyne_claim(p->out, size, PSYNE_FOREVER, &m);
        if (__builtin_expect(r < 0, 0))
                psyne_give_up("psyne_claim", r);
        payload_fill(m.data, size, seq);
        r = psyne_commit(p->out, &m);
        if (__builtin_expect(r < 0, 0))
                psyne_give_up("psyne_commit", r);
}

LOOP_CALL void psyne_one_take(void *ctx, size_t size, struct payload_reader *t) {
        struct psyne_side *p = ctx;
        struct psyne_msg m;
        int r;

        r = psyne_recv(p->in, &m, PSYNE_FOREVER);
        if (__builtin_expect(r < 0 || m.len != size, 0))
                psyne_give_up("psyne_recv", r < 0 ? r : -EBADMSG);
        payload_take(t, m.data, size);
        r = psyne_release(p->in, &m);
        if (__builtin_expect(r < 0, 0))
                psyne_give_up("psyne_release", r);
}

LOOP_CALL void psyne_bulk_send(void *ctx, size_t size, uint64_t seq, unsigned n) {
        struct psyne_side *p = ctx;
        struct psyne_msg m[BENCH_BULK_N];
        int got, r;

        while (n) {
                got = psyne_claim_n(p->out, size, n, PSYNE_FOREVER, m);
                if (__builtin_expect(got <= 0, 0))
                        psyne_give_up("psyne_claim_n", got);
                for (int i = 0; i < got; i++)
                        payload_fill(m[i].data, size, seq == PAYLOAD_STOP ? seq : seq + (unsigned)i);
                r = psyne_commit_n(p->out, m, (unsigned)got);
                if (__builtin_expect(r < 0, 0))
                        psyne_give_up("psyne_commit_n", r);
                seq += (unsigned)got;
                n -= (unsigned)got;
        }
}

LOOP_CALL void psyne_bulk_take(void *ctx, size_t size, struct payload_reader *t) {
        struct psyne_side *p = ctx;
        struct psyne_msg m[BENCH_BULK_N];
        int got, r;

        got = psyne_recv_n(p->in, m, BENCH_BULK_N, PSYNE_FOREVER);
        if (__builtin_expect(got <= 0, 0))
                psyne_give_up("psyne_recv_n", got);
        for (int i = 0; i < got; i++)
                payload_take(t, m[i].data, size);
        r = psyne_release_n(p->in, m, (unsigned)got);
        if (__builtin_expect(r < 0, 0))
                psyne_give_up("psyne_release_n", r);
}

LOOP_RUN_DEFINE(psyne_run_two, psyne_one_send, psyne_one_take, psyne_bulk_send, psyne_bulk_take)

void psyne_impl_loops(struct psyne_side *p, struct bench_side *s) {
        psyne_run_two(p, s);
}

static void psyne_run(void *ctx, struct bench_side *s) {
        if (s->spec->what == BENCH_MODES)
                psyne_team_run(ctx);
        else
                psyne_run_two(ctx, s);
}

/* A library built not to look for sleepers cannot wake any: it is for comparing what the look costs. */
#ifdef PSYNE_NO_WAKE_CHECK
#define PSYNE_WAITS BENCH_WAIT_SPIN
#else
#define PSYNE_WAITS (BENCH_WAIT_SPIN | BENCH_WAIT_BLOCK | BENCH_WAIT_HYBRID)
#endif

const struct bench_impl impl_psyne = {
        .name = "psyne",
        .package = "-",
        .version = PSYNE_VERSION,
        .what = BENCH_LAT | BENCH_RATE | BENCH_PUBLISH | BENCH_MODES,
        .calls = BENCH_SINGLE | BENCH_BULK,
        .modes = BENCH_PROCESSES | BENCH_THREADS,
        .waits = PSYNE_WAITS,
        .attach = psyne_attach,
        .run = psyne_run,
        .detach = psyne_detach,
};

/* The other engines, a process's choice: sleepers and wakers that are kept from io_uring, or from its futex operations. */
static int psyne_futex_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        engine = "?engine=futex";
        return psyne_attach(s, arena, ret);
}

static int psyne_eventfd_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        engine = "?engine=eventfd";
        return psyne_attach(s, arena, ret);
}

#define PSYNE_ENGINE(n, a)                                                                                             \
        {                                                                                                              \
                .name = n, .package = "-", .version = PSYNE_VERSION, .what = BENCH_LAT, .calls = BENCH_SINGLE,         \
                .modes = BENCH_PROCESSES, .waits = PSYNE_WAITS & ~(unsigned)BENCH_WAIT_SPIN, .attach = a,              \
                .run = psyne_run, .detach = psyne_detach,                                                              \
        }
const struct bench_impl impl_psyne_futex = PSYNE_ENGINE("psyne-futex", psyne_futex_attach);
const struct bench_impl impl_psyne_eventfd = PSYNE_ENGINE("psyne-eventfd", psyne_eventfd_attach);
