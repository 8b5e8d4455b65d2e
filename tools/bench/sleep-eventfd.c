/*
 * sleep-eventfd.c: the floor of sleeping through io_uring before Linux 6.7: the same slot as sleep-futex.c, and an eventfd
 * for each side, which its peer writes to and it waits for with a poll and a read behind it, one io_uring_enter(2).
 *
 * Each side makes its own and says in its slot where it is; the peer fetches it as the first slice begins.
 */
#include "bench/impls.h"
#include "bench/loops.h"
#include "bench/raw-ring.h"
#include "bench/slot.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

struct where {
        pid_t pid;
        int fd;
};

struct handles {
        struct slot_pair slots;
        struct raw_ring ring;
        int own, peer;
        uint64_t count;
};

/* In a slot's last bytes, where no payload of a ping-pong reaches. */
static struct where *where(struct slot *s) {
        return (struct where *)(void *)((unsigned char *)s + (1 << 20));
}

static void handles_detach(void *ctx, struct bench_side *s) {
        struct handles *h = ctx;

        (void)s;
        raw_ring_close(&h->ring);
        if (h->own >= 0)
                close(h->own);
        if (h->peer >= 0)
                close(h->peer);
        free(h);
}

static int handles_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        struct handles *h;
        int r;

        h = calloc(1, sizeof(*h));
        if (!h)
                return -ENOMEM;
        h->ring.fd = h->own = h->peer = -1;
        h->slots.out = bench_arena_ring(s, arena, s->side);
        h->slots.in = bench_arena_ring(s, arena, !s->side);
        if (!h->slots.out || !h->slots.in) {
                r = s->answer->error;
                goto fail;
        }
        r = raw_ring_open(&h->ring, 0);
        if (r < 0) {
                bench_refuse(s, r, "io_uring_setup: %s (sysctl kernel.io_uring_disabled, or a seccomp filter)",
                        strerror(-r));
                goto fail;
        }
        h->own = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (h->own < 0) {
                r = -errno;
                goto fail;
        }
        (void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* pidfd_getfd(2) asks for what ptrace(2) may */
        *where(h->slots.out) = (struct where){getpid(), h->own};
        snprintf(s->answer->obtained, sizeof(s->answer->obtained), "io_uring and eventfd");
        *ret = h;
        return 0;
fail:
        handles_detach(h, s);
        return r;
}

LOOP_CALL void handles_send(void *ctx, size_t size, uint64_t seq, unsigned n) {
        static const uint64_t one = 1;
        struct handles *h = ctx;

        (void)n;
        slot_put(&h->slots, size, seq);
        (void)!write(h->peer, &one, sizeof(one));
}

LOOP_CALL void handles_take(void *ctx, size_t size, struct payload_reader *t) {
        struct handles *h = ctx;

        while (!slot_is_new(&h->slots)) {
                struct io_uring_sqe *q = raw_ring_entry(&h->ring);

                q->opcode = IORING_OP_POLL_ADD;
                q->flags = IOSQE_IO_LINK;
                q->fd = h->own;
                q->poll32_events = POLLIN;
                q = raw_ring_entry(&h->ring);
                q->opcode = IORING_OP_READ;
                q->fd = h->own;
                q->addr = (uint64_t)(uintptr_t)&h->count;
                q->len = sizeof(h->count);
                raw_ring_do(&h->ring, 2);
        }
        slot_get(&h->slots, size, t);
}

static void handles_run(void *ctx, struct bench_side *s) {
        struct handles *h = ctx;

        if (h->peer < 0) {
                struct where *w = where(h->slots.in);
                int pidfd = (int)syscall(SYS_pidfd_open, w->pid, 0);

                h->peer = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, w->fd, 0);
                if (pidfd >= 0)
                        close(pidfd);
                if (h->peer < 0) {
                        bench_refuse(s, -errno, "the peer's eventfd cannot be fetched: %s", strerror(errno));
                        return;
                }
        }
        loop_run(ctx, s, s->spec->size, handles_send, handles_take, handles_send, handles_take);
}

const struct bench_impl impl_eventfd = {
        .name = "eventfd",
        .package = "-",
        .version = "-",
        .what = BENCH_LAT,
        .calls = BENCH_SINGLE,
        .modes = BENCH_PROCESSES,
        .waits = BENCH_WAIT_BLOCK,
        .attach = handles_attach,
        .run = handles_run,
        .detach = handles_detach,
};
