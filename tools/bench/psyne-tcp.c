/*
 * psyne-tcp.c: psyne over TCP as its users see it: a tcp:// channel per direction, messages written and read in place.
 *
 * Whoever receives listens. What differs from psyne-impl.c is the URI.
 */
#include <psyne/psyne.h>

#include "bench/impls.h"
#include "bench/loops.h"
#include "bench/psyne-impl.h"
#include "bench/tcp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MEET_NS 5000000000ll

struct psyne_tcp {
        struct psyne_side side; /* first: what the loops are given */
        struct bench_arena *arena;
        const char *keys;       /* of the URI */
};

static int tcp_channel(struct bench_side *s, struct psyne_tcp *p, int direction, uint32_t port, struct psyne_channel **ret) {
        const struct psyne_opts *opts =
                PSYNE_OPTS(.mode = PSYNE_SPSC, .ring_bytes = s->spec->ring_bytes, .record_align = s->spec->align);
        char uri[128];

        snprintf(uri, sizeof(uri), "tcp://%s:%u/psyne-bench-%u-%c?role=%s%s", TCP_HOST, port, s->spec->serial,
                direction ? 'b' : 'a', port ? "connect" : "listen", p->keys);
        return psyne_open(uri, opts, ret);
}

static int tcp_connect(struct bench_side *s, struct psyne_tcp *p) {
        const struct psyne_producer_opts producer = {.struct_size = sizeof(producer), .wait = psyne_side_wait(s)};
        int r;

        bench_pin(s, false); /* its thread is not to run where this side spins */
        r = tcp_channel(s, p, s->side, *tcp_port(p->arena, s->side), &p->side.out_channel);
        bench_pin(s, true);
        if (r >= 0)
                r = psyne_producer_open(p->side.out_channel, &producer, &p->side.out);
        return r;
}

static int psyne_tcp_attach_with(struct bench_side *s, struct bench_arena *arena, const char *keys, void **ret) {
        const struct psyne_consumer_opts consumer = {
                .struct_size = sizeof(consumer), .wait = psyne_side_wait(s), .held_max = BENCH_BULK_N};
        struct psyne_tcp *p = calloc(1, sizeof(*p));
        int r = 0;

        if (!p)
                return -ENOMEM;
        p->arena = arena;
        p->keys = keys;
        bench_pin(s, false);
        if (tcp_receives(s))
                r = tcp_channel(s, p, !s->side, 0, &p->side.in_channel);
        bench_pin(s, true);
        if (r >= 0 && p->side.in_channel)
                r = psyne_consumer_open(p->side.in_channel, &consumer, &p->side.in);
        if (r >= 0 && p->side.in_channel)
                *tcp_port(arena, !s->side) = (uint32_t)psyne_port(p->side.in_channel);
        if (r >= 0 && tcp_sends(s) && s->side == BENCH_SIDE_B)
                r = tcp_connect(s, p);
        if (r < 0) {
                bench_refuse(s, r, "%s", psyne_last_error());
                psyne_side_free(&p->side);
                return r;
        }
        psyne_side_obtained((const struct psyne_channel *const[]){p->side.out_channel, p->side.in_channel}, s->answer->obtained,
                sizeof(s->answer->obtained));
        *ret = p;
        return 0;
}

static int psyne_tcp_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        return psyne_tcp_attach_with(s, arena, "", ret);
}

static void psyne_tcp_run(void *ctx, struct bench_side *s) {
        struct psyne_tcp *p = ctx;
        int r = 0;

        if (tcp_sends(s) && !p->side.out)
                r = tcp_connect(s, p);
        if (r >= 0 && p->side.out)
                r = psyne_wait_peers(p->side.out_channel, 1, 1, MEET_NS);
        if (r < 0)
                psyne_give_up("connecting", r);
        psyne_impl_loops(&p->side, s);
}

static void psyne_tcp_detach(void *ctx, struct bench_side *s) {
        (void)s;
        psyne_side_free(ctx);
}

#define PSYNE_TCP(n, a, k, w)                                                                                             \
        {                                                                                                              \
                .name = n, .package = "-", .version = PSYNE_VERSION, .what = k,                   \
                .calls = BENCH_SINGLE | BENCH_BULK, .modes = BENCH_PROCESSES, .waits = w, .over = BENCH_TCP,           \
                .attach = a, .run = psyne_tcp_run, .detach = psyne_tcp_detach,                                         \
        }
const struct bench_impl impl_psyne_tcp = PSYNE_TCP("psyne-tcp", psyne_tcp_attach, BENCH_LAT | BENCH_RATE, BENCH_WAIT_SPIN | BENCH_WAIT_BLOCK);

static int psyne_latency_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        return psyne_tcp_attach_with(s, arena, "&preset=latency", ret);
}
const struct bench_impl impl_psyne_latency = PSYNE_TCP("psyne-latency", psyne_latency_attach, BENCH_LAT, BENCH_WAIT_SPIN | BENCH_WAIT_BLOCK);
