/*
 * sleep-futex.c: the floor of sleeping: the slot of slot.h, FUTEX_WAIT when it holds nothing new, FUTEX_WAKE after each
 * message. It wakes without asking whether anybody sleeps, as a bare loop does.
 */
#include "bench/futex.h"
#include "bench/impls.h"
#include "bench/loops.h"
#include "bench/slot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static int futex_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        struct slot_pair *p;

        p = calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        p->out = bench_arena_ring(s, arena, s->side);
        p->in = bench_arena_ring(s, arena, !s->side);
        if (!p->out || !p->in) {
                free(p);
                return s->answer->error;
        }
        snprintf(s->answer->obtained, sizeof(s->answer->obtained), "futex(2)");
        *ret = p;
        return 0;
}

LOOP_CALL void futex_send(void *ctx, size_t size, uint64_t seq, unsigned n) {
        struct slot_pair *p = ctx;

        (void)n;
        slot_put(p, size, seq);
        futex_wake(&p->out->count, 1);
}

LOOP_CALL void futex_take(void *ctx, size_t size, struct payload_reader *t) {
        struct slot_pair *p = ctx;

        while (!slot_is_new(p))
                futex_wait(&p->in->count, p->taken, -1); /* -EAGAIN and -EINTR: look again */
        slot_get(p, size, t);
}

static void futex_run(void *ctx, struct bench_side *s) {
        loop_run(ctx, s, s->spec->size, futex_send, futex_take, futex_send, futex_take);
}

static void futex_detach(void *ctx, struct bench_side *s) {
        (void)s;
        free(ctx);
}

const struct bench_impl impl_futex = {
        .name = "futex",
        .package = "-",
        .version = "-",
        .what = BENCH_LAT,
        .calls = BENCH_SINGLE,
        .modes = BENCH_PROCESSES,
        .waits = BENCH_WAIT_BLOCK,
        .attach = futex_attach,
        .run = futex_run,
        .detach = futex_detach,
};
