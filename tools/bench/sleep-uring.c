/*
 * sleep-uring.c: the floor of sleeping through io_uring: the same slot as sleep-futex.c, with IORING_OP_FUTEX_WAIT and
 * IORING_OP_FUTEX_WAKE written by hand, one io_uring_enter(2) for each.
 *
 * The opcodes came with Linux 6.7 and are spelled as numbers, because the headers this builds with may be older.
 */
#include "bench/impls.h"
#include "bench/loops.h"
#include "bench/raw-ring.h"
#include "bench/slot.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define OP_FUTEX_WAIT 51
#define OP_FUTEX_WAKE 52
#define FUTEX2_U32_SHARED 2 /* FUTEX2_SIZE_U32, and not FUTEX2_PRIVATE */

struct uring {
        struct slot_pair slots;
        struct raw_ring ring;
};

/* A wake is done when enter returns, so both wait for their completion. */
static int uring_do(struct uring *u, uint8_t opcode, uint32_t *word, uint64_t value) {
        struct io_uring_sqe *q = raw_ring_entry(&u->ring);

        q->opcode = opcode;
        q->fd = FUTEX2_U32_SHARED;
        q->addr = (uint64_t)(uintptr_t)word;
        q->off = value;
        q->addr3 = ~0u; /* FUTEX_BITSET_MATCH_ANY */
        return raw_ring_do(&u->ring, 1);
}

static void uring_detach(void *ctx, struct bench_side *s) {
        struct uring *u = ctx;

        (void)s;
        raw_ring_close(&u->ring);
        free(u);
}

static int attach(struct bench_side *s, struct bench_arena *arena, uint32_t idle_ms, void **ret) {
        struct uring *u;
        int r;

        u = calloc(1, sizeof(*u));
        if (!u)
                return -ENOMEM;
        u->ring.fd = -1;
        u->slots.out = bench_arena_ring(s, arena, s->side);
        u->slots.in = bench_arena_ring(s, arena, !s->side);
        if (!u->slots.out || !u->slots.in) {
                r = s->answer->error;
                goto fail;
        }
        r = raw_ring_open(&u->ring, idle_ms);
        if (r < 0) {
                bench_refuse(s, r, "io_uring_setup: %s (sysctl kernel.io_uring_disabled, or a seccomp filter)",
                        strerror(-r));
                goto fail;
        }
        r = idle_ms ? 0 : uring_do(u, OP_FUTEX_WAKE, &u->slots.out->count, 1);
        if (r < 0) {
                bench_refuse(s, r, "this kernel's io_uring has no futex operations (they came with Linux 6.7)");
                goto fail;
        }
        snprintf(s->answer->obtained, sizeof(s->answer->obtained), "io_uring futex");
        *ret = u;
        return 0;
fail:
        uring_detach(u, s);
        return r;
}

static int uring_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        return attach(s, arena, 0, ret);
}

LOOP_CALL void uring_send(void *ctx, size_t size, uint64_t seq, unsigned n) {
        struct uring *u = ctx;

        (void)n;
        slot_put(&u->slots, size, seq);
        uring_do(u, OP_FUTEX_WAKE, &u->slots.out->count, 1);
}

LOOP_CALL void uring_take(void *ctx, size_t size, struct payload_reader *t) {
        struct uring *u = ctx;

        while (!slot_is_new(&u->slots))
                uring_do(u, OP_FUTEX_WAIT, &u->slots.in->count, u->slots.taken); /* -EAGAIN: changed already */
        slot_get(&u->slots, size, t);
}

static void uring_run(void *ctx, struct bench_side *s) {
        loop_run(ctx, s, s->spec->size, uring_send, uring_take, uring_send, uring_take);
}

const struct bench_impl impl_uring = {
        .name = "io_uring",
        .package = "-",
        .version = "-",
        .what = BENCH_LAT,
        .calls = BENCH_SINGLE,
        .modes = BENCH_PROCESSES,
        .waits = BENCH_WAIT_BLOCK,
        .attach = uring_attach,
        .run = uring_run,
        .detach = uring_detach,
};

/* ---- SQPOLL: a kernel thread submits, the waker makes no system call while that thread is awake ---------------------- */

#define IDLE_MS 1000

static int sqpoll_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        return attach(s, arena, IDLE_MS, ret);
}

static void sqpoll_submit(struct uring *u, uint8_t opcode, uint32_t *word, uint64_t value) {
        struct io_uring_sqe *q = raw_ring_entry(&u->ring);

        q->opcode = opcode;
        q->fd = FUTEX2_U32_SHARED;
        q->addr = (uint64_t)(uintptr_t)word;
        q->off = value;
        q->addr3 = ~0u;
        q->user_data = opcode;
        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the tail is there before we ask whether the kernel's thread looks */
        if (__atomic_load_n(u->ring.sq_flags, __ATOMIC_RELAXED) & IORING_SQ_NEED_WAKEUP)
                syscall(SYS_io_uring_enter, u->ring.fd, 1, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0);
}

/* Takes completions out until one of @opcode is among them. */
static void sqpoll_await(struct uring *u, uint8_t opcode) {
        struct raw_ring *r = &u->ring;

        for (bool found = false; !found;) {
                uint32_t head = *r->cq_head;

                if (head == __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE)) {
                        syscall(SYS_io_uring_enter, r->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
                        continue;
                }
                found = r->cqes[head & r->cq_mask].user_data == opcode;
                __atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
        }
}

LOOP_CALL void sqpoll_send(void *ctx, size_t size, uint64_t seq, unsigned n) {
        struct uring *u = ctx;

        (void)n;
        slot_put(&u->slots, size, seq);
        sqpoll_submit(u, OP_FUTEX_WAKE, &u->slots.out->count, 1);
}

LOOP_CALL void sqpoll_take(void *ctx, size_t size, struct payload_reader *t) {
        struct uring *u = ctx;

        while (!slot_is_new(&u->slots)) {
                sqpoll_submit(u, OP_FUTEX_WAIT, &u->slots.in->count, u->slots.taken);
                sqpoll_await(u, OP_FUTEX_WAIT);
        }
        slot_get(&u->slots, size, t);
}

static void sqpoll_run(void *ctx, struct bench_side *s) {
        loop_run(ctx, s, s->spec->size, sqpoll_send, sqpoll_take, sqpoll_send, sqpoll_take);
}

const struct bench_impl impl_sqpoll = {
        .name = "sqpoll",
        .package = "-",
        .version = "-",
        .what = BENCH_LAT,
        .calls = BENCH_SINGLE,
        .modes = BENCH_PROCESSES,
        .waits = BENCH_WAIT_BLOCK,
        .attach = sqpoll_attach,
        .run = sqpoll_run,
        .detach = uring_detach,
};
