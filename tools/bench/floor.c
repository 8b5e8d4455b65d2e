/*
 * floor.c: what the machine allows, so that everything else can be stated as a ratio to it.
 *
 *      line    one word in one cache line each way, nothing else: the probe that tells separate cores from siblings
 *      floor   ping-pong: the same line with the payload in it (slot.h)
 *              one way:   a bare ring of equal slots that publishes its index once per 32 messages, or per message
 *                         from 4 KiB on, where it is a memcpy into shared memory and a sum in place
 *
 * Nobody could use these as they are: no lengths, no waiting, no second reader, no deaths.
 */
#include "bench/impls.h"
#include "bench/loops.h"
#include "bench/slot.h"

#include <errno.h>
#include <stdlib.h>

/* ---- line ------------------------------------------------------------------------------------------------------- */

static int slots_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
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
        p->pauses = s->spec->pauses;
        *ret = p;
        return 0;
}

static void slots_detach(void *ctx, struct bench_side *s) {
        (void)s;
        free(ctx);
}

LOOP_CALL void line_send(void *ctx, size_t size, uint64_t seq, unsigned n) {
        struct slot_pair *p = ctx;

        (void)size, (void)n;
        /* The count says what the payload would have: the last message of a slice is the one with a payload. */
        if (__builtin_expect(seq == PAYLOAD_STOP, 0))
                *(payload_word *)p->out->payload = PAYLOAD_STOP;
        __atomic_store_n(&p->out->count, ++p->sent, __ATOMIC_RELEASE);
}

LOOP_CALL void line_take(void *ctx, size_t size, struct payload_reader *t) {
        struct slot_pair *p = ctx;

        (void)size;
        while (!slot_is_new(p))
                tick_pauses(p->pauses);
        p->taken++;
        t->expect++;
        if (__builtin_expect(*(const payload_word *)p->in->payload == PAYLOAD_STOP, 0)) {
                *(payload_word *)p->in->payload = 0;
                t->stopped = 1;
        }
}

static void line_run(void *ctx, struct bench_side *s) {
        loop_run(ctx, s, 8, line_send, line_take, line_send, line_take);
}

const struct bench_impl impl_line = {
        .name = "line",
        .package = "-",
        .version = "-",
        .what = BENCH_LAT,
        .calls = BENCH_SINGLE,
        .modes = BENCH_PROCESSES,
        .waits = BENCH_WAIT_SPIN,
        .has_pauses = 1,
        .attach = slots_attach,
        .run = line_run,
        .detach = slots_detach,
};

/* ---- floor: ping-pong ------------------------------------------------------------------------------------------- */

LOOP_CALL void inband_send(void *ctx, size_t size, uint64_t seq, unsigned n) {
        (void)n;
        slot_put(ctx, size, seq);
}

LOOP_CALL void inband_take(void *ctx, size_t size, struct payload_reader *t) {
        struct slot_pair *p = ctx;

        while (!slot_is_new(p))
                tick_pauses(p->pauses);
        slot_get(p, size, t);
}

LOOP_RUN_DEFINE(inband_run, inband_send, inband_take, inband_send, inband_take)

/* ---- floor: one way --------------------------------------------------------------------------------------------- */

#define BARE_PUBLISH_MAX 32u /* messages per index store; the ring must hold several such runs */

/*
 *      producer                                        consumer
 *  A   load head, acquire, when the cached says full    C  load tail, acquire, when all seen is taken
 *      write the messages                                  read the messages
 *  B   store tail, release, once per run                D  store head, release, once per run
 *
 * B -> C and D -> A as in any such ring; without them, messages are read early or overwritten while read.
 */
struct bare_shared {
        uint64_t tail __attribute__((aligned(128)));
        uint64_t head __attribute__((aligned(128)));
        /* Not 4096: a copy between equal offsets in their pages is up to 15 % slower. */
        unsigned char data[] __attribute__((aligned(128)));
};

struct bare {
        struct bare_shared *shared;
        uint64_t slots_n, mask, publish;
        uint64_t mine, other; /* own position, and the other's as last seen */
        uint32_t pauses;
};

static int floor_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        struct bare *b;

        if (s->spec->what == BENCH_LAT)
                return slots_attach(s, arena, ret);
        if (s->spec->ring_bytes / s->spec->size < 2)
                return bench_refuse(s, -EMSGSIZE, "the ring holds less than two messages");

        b = calloc(1, sizeof(*b));
        if (!b)
                return -ENOMEM;
        b->shared = bench_arena_ring(s, arena, 0);
        if (!b->shared) {
                free(b);
                return s->answer->error;
        }
        b->slots_n = 1;
        while (b->slots_n * 2 * s->spec->size <= s->spec->ring_bytes)
                b->slots_n *= 2;
        b->mask = b->slots_n - 1;
        b->publish = s->spec->size >= PAYLOAD_COPY_MIN ? 1 : BARE_PUBLISH_MAX;
        if (b->publish > b->slots_n / 4)
                b->publish = b->slots_n >= 4 ? b->slots_n / 4 : 1;
        b->pauses = s->spec->pauses;
        *ret = b;
        return 0;
}

LOOP_CALL void bare_send(void *ctx, size_t size, uint64_t seq, unsigned n) {
        struct bare *b = ctx;
        uint64_t end = b->mine + n;

        while (b->mine != end) {
                uint64_t run = end - b->mine < b->publish ? end - b->mine : b->publish;

                if (b->mine + run - b->other > b->slots_n)
                        while (b->other = __atomic_load_n(&b->shared->head, __ATOMIC_ACQUIRE), /* A, pairs with D */
                                b->mine + run - b->other > b->slots_n)
                                tick_pauses(b->pauses);
                for (uint64_t i = 0; i < run; i++)
                        payload_fill(b->shared->data + ((b->mine + i) & b->mask) * size, size,
                                seq == PAYLOAD_STOP ? seq : seq + i);
                seq += run;
                b->mine += run;
                __atomic_store_n(&b->shared->tail, b->mine, __ATOMIC_RELEASE); /* B, pairs with C */
        }
}

LOOP_CALL void bare_take(void *ctx, size_t size, struct payload_reader *t) {
        struct bare *b = ctx;
        uint64_t run;

        if (b->other == b->mine)
                while ((b->other = __atomic_load_n(&b->shared->tail, __ATOMIC_ACQUIRE)) ==
                        b->mine) /* C, pairs with B */
                        tick_pauses(b->pauses);
        run = b->other - b->mine < b->publish ? b->other - b->mine : b->publish;
        for (uint64_t i = 0; i < run; i++)
                payload_take(t, b->shared->data + ((b->mine + i) & b->mask) * size, size);
        b->mine += run;
        __atomic_store_n(&b->shared->head, b->mine, __ATOMIC_RELEASE); /* D, pairs with A */
}

LOOP_RUN_DEFINE(bare_run, bare_send, bare_take, bare_send, bare_take)

static void floor_run(void *ctx, struct bench_side *s) {
        if (s->spec->what == BENCH_LAT)
                inband_run(ctx, s);
        else
                bare_run(ctx, s);
}

const struct bench_impl impl_floor = {
        .name = "floor",
        .package = "-",
        .version = "-",
        .what = BENCH_LAT | BENCH_RATE,
        .calls = BENCH_SINGLE | BENCH_BULK,
        .modes = BENCH_PROCESSES,
        .waits = BENCH_WAIT_SPIN,
        .has_pauses = 1,
        .attach = floor_attach,
        .run = floor_run,
        .detach = slots_detach,
};
