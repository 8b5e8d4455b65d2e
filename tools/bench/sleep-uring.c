/*
 * sleep-uring.c: the floor of sleeping through io_uring: the same slot as sleep-futex.c, with IORING_OP_FUTEX_WAIT and
 * IORING_OP_FUTEX_WAKE written by hand, one io_uring_enter(2) for each.
 *
 * Raw system calls, so that what is compared against is the kernel and not a library. The opcodes came with Linux 6.7
 * and are spelled as numbers, because the headers this builds with may be older.
 */
#include "bench/impls.h"
#include "bench/loops.h"
#include "bench/slot.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OP_FUTEX_WAIT 51
#define OP_FUTEX_WAKE 52
#define FUTEX2_U32_SHARED 2 /* FUTEX2_SIZE_U32, and not FUTEX2_PRIVATE */
#define ENTRIES 4u

struct uring {
        struct slot_pair slots;
        int fd;
        unsigned char *rings; /* both rings in one map: IORING_FEAT_SINGLE_MMAP, Linux 5.4 */
        size_t rings_size;
        struct io_uring_sqe *sqes;
        uint32_t *sq_tail, *sq_array, *cq_head, *cq_tail;
        uint32_t sq_mask, cq_mask;
        struct io_uring_cqe *cqes;
};

static int uring_setup(struct uring *u) {
        static const uint32_t flags[] = {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 0};
        struct io_uring_params p;
        size_t sq_size, cq_size;

        for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
                memset(&p, 0, sizeof(p));
                p.flags = flags[i];
                u->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &p);
                if (u->fd >= 0 || errno != EINVAL)
                        break;
        }
        if (u->fd < 0)
                return -errno;

        sq_size = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
        cq_size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
        u->rings_size = sq_size > cq_size ? sq_size : cq_size;
        u->rings = mmap(NULL, u->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED, u->fd, IORING_OFF_SQ_RING);
        if (u->rings == MAP_FAILED) {
                u->rings = NULL;
                return -errno;
        }
        u->sqes =
                mmap(NULL, p.sq_entries * sizeof(*u->sqes), PROT_READ | PROT_WRITE, MAP_SHARED, u->fd, IORING_OFF_SQES);
        if (u->sqes == MAP_FAILED) {
                u->sqes = NULL;
                return -errno;
        }
        u->sq_tail = (uint32_t *)(void *)(u->rings + p.sq_off.tail);
        u->sq_array = (uint32_t *)(void *)(u->rings + p.sq_off.array);
        u->sq_mask = *(uint32_t *)(void *)(u->rings + p.sq_off.ring_mask);
        u->cq_head = (uint32_t *)(void *)(u->rings + p.cq_off.head);
        u->cq_tail = (uint32_t *)(void *)(u->rings + p.cq_off.tail);
        u->cq_mask = *(uint32_t *)(void *)(u->rings + p.cq_off.ring_mask);
        u->cqes = (struct io_uring_cqe *)(void *)(u->rings + p.cq_off.cqes);
        return 0;
}

/* One request, one enter; the result of the request. A wake is done when enter returns, so both wait for their
 * completion. */
static int uring_do(struct uring *u, uint8_t opcode, uint32_t *word, uint64_t value) {
        const uint32_t tail = *u->sq_tail, index = tail & u->sq_mask;
        struct io_uring_sqe *q = &u->sqes[index];
        uint32_t head;
        int r;

        memset(q, 0, sizeof(*q));
        q->opcode = opcode;
        q->fd = FUTEX2_U32_SHARED;
        q->addr = (uint64_t)(uintptr_t)word;
        q->off = value;
        q->addr3 = ~0u; /* FUTEX_BITSET_MATCH_ANY */
        u->sq_array[index] = index;
        __atomic_store_n(u->sq_tail, tail + 1, __ATOMIC_RELEASE);

        r = (int)syscall(SYS_io_uring_enter, u->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
        for (;;) {
                head = *u->cq_head;
                if (head != __atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE))
                        break;
                if (r < 0 && errno != EINTR)
                        return -errno;
                r = (int)syscall(SYS_io_uring_enter, u->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
        }
        r = u->cqes[head & u->cq_mask].res;
        __atomic_store_n(u->cq_head, head + 1, __ATOMIC_RELEASE);
        return r;
}

static void uring_detach(void *ctx, struct bench_side *s) {
        struct uring *u = ctx;

        (void)s;
        if (u->sqes)
                munmap(u->sqes, ENTRIES * sizeof(*u->sqes));
        if (u->rings)
                munmap(u->rings, u->rings_size);
        if (u->fd >= 0)
                close(u->fd);
        free(u);
}

static int uring_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        struct uring *u;
        int r;

        u = calloc(1, sizeof(*u));
        if (!u)
                return -ENOMEM;
        u->fd = -1;
        u->slots.out = bench_arena_ring(s, arena, s->side);
        u->slots.in = bench_arena_ring(s, arena, !s->side);
        if (!u->slots.out || !u->slots.in) {
                r = s->answer->error;
                goto fail;
        }
        r = uring_setup(u);
        if (r < 0) {
                bench_refuse(s, r, "io_uring_setup: %s (sysctl kernel.io_uring_disabled, or a seccomp filter)",
                        strerror(-r));
                goto fail;
        }
        r = uring_do(u, OP_FUTEX_WAKE, &u->slots.out->count, 1);
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
