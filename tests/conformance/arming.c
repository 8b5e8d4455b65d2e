/* Endpoints that sleep in somebody else's loop: by their descriptor, and in an io_uring of the caller's. */
#include "family.h"

#include <poll.h>
#include <sched.h>
#include <unistd.h>

#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

/* Is it readable, within @timeout_ms? */
static int readable(int fd, int timeout_ms) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int r;

        do
                r = poll(&p, 1, timeout_ms);
        while (r < 0 && errno == EINTR);
        return r;
}

#define WATCHDOG_MS ((int)(WATCHDOG_NS / MSEC))
#define MUST_WAKE(fd)                                                                                                  \
        do {                                                                                                           \
                int64_t at_ = now_ns();                                                                                \
                MUST_BE(readable(fd, WATCHDOG_MS), 1);                                                                 \
                MUST(now_ns() - at_ < WATCHDOG_NS);                                                                    \
        } while (0)

/* ---- a consumer's: readable while there is something ------------------------------------------------------------- */

/* Armed, with nothing there: not readable, or now and then for nothing, and then not again and again. */
#define MUST_BE_QUIET(x, fd)                                                                                           \
        do {                                                                                                           \
                unsigned quiet_ = 0;                                                                                   \
                                                                                                                       \
                for (; quiet_ < 100 && readable(fd, 0); quiet_++)                                                      \
                        MUST_BE(psyne_arm(x), 0);                                                                      \
                MUST(quiet_ < 100); /* not asked once more: a handle may arrive just then */                           \
        } while (0)

static int armed_send(struct world *w) {
        struct ends e = {0};

        NEAR(AT_ONCE);
        OPEN_PRODUCER(&e, "size=64K");
        world_reach(w, 1);
        AWAIT(2); /* armed */
        SEND(&e, 1, 100);
        SEND(&e, 2, 100);
        SEND(&e, 3, 100);
        world_reach(w, 3);
        AWAIT(4); /* armed again, and asked without being told */
        SEND(&e, 4, 100);
        AWAIT(5); /* armed, disarmed */
        w->page->words[0] = METRIC(e.ch, wakes_sent);
        SEND(&e, 5, 100);
        MUST_BE(METRIC(e.ch, wakes_sent), w->page->words[0]);
        world_reach(w, 6);
        AWAIT(7); /* armed: told of the end */
        CLOSE(&e);
        return 0;
}

static int armed_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_endpoint *x;
        struct psyne_msg m;
        int fd;

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        x = psyne_consumer_endpoint(e.c);
        fd = psyne_fd(x);
        MUST(fd >= 0);
        MUST_BE(psyne_fd(x), fd);
        UNTIL(psyne_arm(x) == 0 && readable(fd, 0) == 0); /* the producer's ring may still be coming */
        world_reach(w, 2);
        MUST_WAKE(fd);
        AWAIT(3);
        RECEIVE(&e, 1, 100);
        MUST_BE(psyne_arm(x), 1); /* two are left */
        MUST_BE(readable(fd, 0), 1);
        MUST_BE(psyne_arm(x), 1);
        RECEIVE(&e, 2, 100);
        RECEIVE(&e, 3, 100);
        MUST_BE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EAGAIN);
        MUST_BE(psyne_arm(x), 0);
        MUST_BE_QUIET(x, fd);
        MUST_BE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EAGAIN); /* and is armed all the same */
        world_reach(w, 4);
        MUST_WAKE(fd);
        RECEIVE(&e, 4, 100);
        MUST_BE(psyne_arm(x), 0);
        MUST_BE(psyne_disarm(x), 0);
        if (readable(fd, 0)) /* a peer may just have got its handle, once */
                MUST_BE(psyne_disarm(x), 0);
        MUST_BE(readable(fd, 0), 0);
        world_reach(w, 5);
        AWAIT(6);
        if (readable(fd, 0)) /* nobody had to tell */
                MUST_BE(psyne_disarm(x), 0);
        MUST_BE(readable(fd, 0), 0);
        RECEIVE(&e, 5, 100);
        MUST_BE(psyne_arm(x), 0);
        world_reach(w, 7);
        do {
                MUST_WAKE(fd); /* one look more where the last message's release is seen first */
        } while (psyne_arm(x) == 0);
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EPIPE);
        MUST_BE(psyne_arm(x), 1); /* there is no use in waiting */
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        CLOSE(&e);
        return 0;
}
FAMILY(armed_readable, armed_send, armed_recv)
FAMILY_MODE(armed_readable, armed_send, armed_recv, broadcast)

/* ---- a producer's: readable while there is room ------------------------------------------------------------------ */

static int writable_send(struct world *w) {
        struct ends e = {0};
        struct psyne_endpoint *x;
        struct psyne_msg m, m2;
        uint32_t sent = 0;
        int fd;

        NEAR(AT_ONCE);
        OPEN_PRODUCER(&e, "size=16K");
        x = psyne_producer_endpoint(e.p);
        fd = psyne_fd(x);
        MUST(fd >= 0);
        MUST_BE(psyne_arm(x), 1); /* all of it is room */
        MUST_BE(readable(fd, 0), 1);
        world_reach(w, 1);
        AWAIT(2); /* there is a reader */
        for (unsigned round = 0; round < 20; round++) {
                while (psyne_claim(e.p, 1000, PSYNE_NOWAIT, &m) == 0) {
                        pattern_fill(m.data, 1000, sent);
                        m.type = sent++;
                        MUST_BE(psyne_commit(e.p, &m), 0);
                }
                MUST_BE(psyne_claim(e.p, 1000, PSYNE_NOWAIT, &m), -EAGAIN);
                MUST_BE(psyne_arm(x), 0);
                MUST_BE_QUIET(x, fd);
                w->page->words[0] = sent;
                world_reach(w, 3 + round);
                do
                        MUST_WAKE(fd); /* now and then for nothing: a peer has just got its handle */
                while (psyne_arm(x) == 0);
                MUST_BE(psyne_claim(e.p, 1000, PSYNE_NOWAIT, &m), 0); /* as much as it asked for */
                MUST_BE(psyne_abort(e.p, &m), 0);
                UNTIL(w->page->words[1] == sent);
        }
        while (psyne_claim(e.p, 1000, PSYNE_NOWAIT, &m) == 0)
                MUST_BE(psyne_commit(e.p, &m), 0);
        MUST_BE(psyne_arm(x), 0);
        MUST_BE_QUIET(x, fd);
        if (psyne_claim(e.p, 0, PSYNE_NOWAIT, &m) == 0) { /* a small one fits, and takes the place of what was asked for */
                MUST_BE(psyne_claim(e.p, 1000, PSYNE_NOWAIT, &m2), -EAGAIN);
                MUST_BE(psyne_arm(x), 0);
                MUST_BE(psyne_abort(e.p, &m), 0);
                MUST_BE(readable(fd, 0), 1); /* its own abort may be what it slept for */
                MUST_BE(psyne_arm(x), 0);
        }
        world_reach(w, 50);
        MUST_WAKE(fd); /* stopped */
        MUST_REFUSE(psyne_claim(e.p, 1000, PSYNE_NOWAIT, &m), -ESHUTDOWN);
        MUST_BE(psyne_arm(x), 1);
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        (void)psyne_producer_close(e.p); /* what it left is not read: the reader stopped it */
        MUST(!psyne_close(e.ch));
        return 0;
}

static int writable_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;
        uint32_t got = 0;

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        world_reach(w, 2);
        for (unsigned round = 0; round < 20; round++) {
                AWAIT(3 + round);
                while (got < w->page->words[0]) {
                        RECEIVE(&e, got, 1000);
                        got++;
                }
                MUST_BE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EAGAIN); /* also tells what is free */
                __atomic_store_n(&w->page->words[1], got, __ATOMIC_RELEASE);
        }
        AWAIT(50);
        MUST_BE(psyne_stop(e.ch, PSYNE_ABORT), 0);
        CLOSE(&e);
        return 0;
}
FAMILY(armed_writable, writable_send, writable_recv)

/* ---- nothing is slept through ------------------------------------------------------------------------------------ */

#define LOOP_N 20000

/* Both sides in loops of their own, with pauses, and drains that stop halfway. */
static int loop_send(struct world *w) {
        struct random r = random_seeded("loop");
        struct ends e = {0};
        struct psyne_endpoint *x;
        struct psyne_msg m;

        OPEN_PRODUCER(&e, "size=16K");
        x = psyne_producer_endpoint(e.p);
        world_reach(w, 1);
        AWAIT(2); /* there is a reader */
        for (uint32_t n = 0; n < LOOP_N;) {
                if (psyne_claim(e.p, n % 200, PSYNE_NOWAIT, &m) == 0) {
                        pattern_fill(m.data, n % 200, n);
                        m.type = n++;
                        MUST_BE(psyne_commit(e.p, &m), 0);
                        if (random_below(&r, 50) == 0)
                                usleep((unsigned)random_below(&r, 300));
                } else if (psyne_arm(x) == 0)
                        MUST_WAKE(psyne_fd(x));
        }
        CLOSE(&e);
        return 0;
}

static int loop_recv(struct world *w) {
        struct random r = random_seeded("loop");
        struct ends e = {0};
        struct psyne_endpoint *x;
        struct psyne_msg m;
        uint32_t n = 0;
        int fd;

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        x = psyne_consumer_endpoint(e.c);
        world_reach(w, 2);
        fd = psyne_fd(x);
        while (n < LOOP_N) {
                uint64_t most = random_below(&r, 40);
                bool there;
                int a;

                for (uint64_t i = 0; i < most && psyne_recv(e.c, &m, PSYNE_NOWAIT) == 0; i++) {
                        MUST_BE(m.type, n);
                        MUST(pattern_is(m.data, m.len, n));
                        n++;
                        MUST_BE(psyne_release(e.c, &m), 0);
                }
                if (n == LOOP_N)
                        break;
                a = psyne_arm(x);
                MUST(a >= 0);
                there = readable(fd, 0) == 1;
                MUST(there || a == 0);
                if (!there)
                        MUST_WAKE(fd);
        }
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        CLOSE(&e);
        return 0;
}
FAMILY(armed_loop, loop_send, loop_recv)
FAMILY_MODE(armed_loop, loop_send, loop_recv, broadcast)

/* ---- readable exactly when something is there ---------------------------------------------------------------------- */

#define EXACT_N 10000
#define EXACT_LEAST 250 /* PSYNE_MOMENTS may ask for fewer, where CPUs are emulated and a moment takes milliseconds */

/* words: 0 = how many messages the reader has asked for, 1 = sent so far, 2 = the end */
static int exact_send(struct world *w) {
        struct random r = random_seeded("exact");
        struct ends e = {0};
        uint64_t sent = 0;

        NEAR(AT_ONCE);
        OPEN_PRODUCER(&e, "size=16K");
        world_reach(w, 1);
        AWAIT(2);
        while (!__atomic_load_n(&w->page->words[2], __ATOMIC_ACQUIRE)) {
                if (sent == __atomic_load_n(&w->page->words[0], __ATOMIC_ACQUIRE)) {
                        sched_yield();
                        continue;
                }
                for (uint64_t i = random_below(&r, 2000); i > 0; i--)
                        __atomic_signal_fence(__ATOMIC_SEQ_CST);
                SEND(&e, sent, 10);
                __atomic_store_n(&w->page->words[1], ++sent, __ATOMIC_RELEASE);
        }
        CLOSE(&e);
        return 0;
}

/* At random moments: what was sent by then is seen by then. Once the sender is at rest: and nothing else is. */
static int exact_recv(struct world *w) {
        const char *moments = getenv("PSYNE_MOMENTS");
        unsigned long n = moments ? strtoul(moments, NULL, 0) : EXACT_N;
        int64_t look_ns = (w->mode->many_consumers ? 1 : 30) * SECOND; /* it looks by itself, told or not */
        struct random r = random_seeded("exact");
        struct ends e = {0};
        struct psyne_endpoint *x;
        struct psyne_msg m;
        uint64_t asked = 1, got = 0, sent, seen = 0, looks = 0;
        int64_t began = now_ns();
        int fd, armed;

        MUST(n >= EXACT_LEAST);
        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        x = psyne_consumer_endpoint(e.c);
        fd = psyne_fd(x);
        __atomic_store_n(&w->page->words[0], asked, __ATOMIC_RELEASE);
        world_reach(w, 2);
        RECEIVE(&e, got, 10); /* its ring is here */
        got++;
        UNTIL(psyne_arm(x) == 0);
        __atomic_store_n(&w->page->words[0], ++asked, __ATOMIC_RELEASE);
        do
                MUST_WAKE(fd); /* and where wakers need a handle, it is there */
        while (psyne_arm(x) == 0);
        RECEIVE(&e, got, 10);
        got++;
        for (unsigned long i = 0; i < n; i++) {
                armed = psyne_arm(x);
                MUST(armed >= 0);
                asked += random_below(&r, 3);
                __atomic_store_n(&w->page->words[0], asked, __ATOMIC_RELEASE);
                for (uint64_t k = random_below(&r, 3000); k > 0; k--)
                        __atomic_signal_fence(__ATOMIC_SEQ_CST);
                sent = __atomic_load_n(&w->page->words[1], __ATOMIC_ACQUIRE);
                MUST((armed == 0 && sent <= got) || readable(fd, 0));
                while (__atomic_load_n(&w->page->words[1], __ATOMIC_ACQUIRE) != asked)
                        sched_yield();
                MUST(asked == got || readable(fd, 0)); /* told: arming again would tell itself */
                MUST_BE(psyne_arm(x), asked > got);
                MUST(asked == got || readable(fd, 0));
                /* What rings for nothing is a look, at any moment between two calls of ours, and once a handle that arrives. */
                for (; asked == got && readable(fd, 0); looks++) {
                        MUST(looks <= (uint64_t)((now_ns() - began) / look_ns));
                        MUST_BE(psyne_arm(x), 0);
                }
                seen += asked > got;
                for (uint64_t k = random_below(&r, 4); k > 0 && asked > got; k--) { /* part of it */
                        MUST_BE(psyne_recv(e.c, &m, PSYNE_NOWAIT), 0);
                        MUST_BE(m.type, got++);
                        MUST_BE(psyne_release(e.c, &m), 0);
                }
                while (asked - got > 50)
                        RECEIVE(&e, got++, 10);
        }
        MUST(seen > n / 100 && seen < n); /* both happened */
        while (asked > got)
                RECEIVE(&e, got++, 10);
        __atomic_store_n(&w->page->words[2], 1, __ATOMIC_RELEASE);
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        CLOSE(&e);
        return 0;
}
FAMILY(armed_exact, exact_send, exact_recv)

/* ---- armed, and then it waits by itself --------------------------------------------------------------------------- */

static int turn_send(struct world *w) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=64K");
        world_reach(w, 1);
        for (uint32_t n = 0; n < 200; n++) {
                UNTIL(w->page->words[0] == n + 1);
                if (n % 2)
                        usleep(200); /* it sleeps by then, mostly */
                SEND(&e, n, 64);
        }
        AWAIT(2);
        CLOSE(&e);
        return 0;
}

/* The wait that its descriptor left in the kernel must not take the wake of its own. */
static int turn_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_endpoint *x;

        AWAIT(1);
        OPEN_CONSUMER(&e, "wait=block");
        x = psyne_consumer_endpoint(e.c);
        for (uint32_t n = 0; n < 200; n++) {
                MUST_BE(psyne_arm(x), 0);
                if (n % 3 == 0)
                        MUST_BE(psyne_disarm(x), 0);
                __atomic_store_n(&w->page->words[0], n + 1, __ATOMIC_RELEASE);
                RECEIVE(&e, n, 64);
        }
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        world_reach(w, 2);
        CLOSE(&e);
        return 0;
}
FAMILY(armed_and_blocks, turn_send, turn_recv)

/* ---- in the caller's ring ------------------------------------------------------------------------------------------ */

#ifdef HAVE_LIBURING
static int ring_wait(struct io_uring *ring, struct psyne_endpoint *x) {
        struct __kernel_timespec watchdog = {.tv_sec = WATCHDOG_NS / SECOND};
        struct io_uring_cqe *cqe;
        int r;

        r = io_uring_submit(ring);
        if (r >= 0)
                r = io_uring_wait_cqe_timeout(ring, &cqe, &watchdog);
        if (r < 0)
                return r;
        r = cqe->user_data == (uintptr_t)x ? psyne_complete(x, cqe) : -EINVAL;
        io_uring_cqe_seen(ring, cqe);
        return r;
}

static int ring_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_endpoint *x;
        struct io_uring ring;
        struct io_uring_sqe *sqe;
        struct io_uring_cqe *cqe;
        struct psyne_msg m;
        uint32_t n = 0;
        int r;

        if (io_uring_queue_init(8, &ring, 0) < 0) {
                AWAIT(1); /* refused here: then nobody has one */
                OPEN_CONSUMER(&e, NULL);
                world_reach(w, 2);
                for (; n < LOOP_N; n++)
                        RECEIVE(&e, n, n % 200);
                CLOSE(&e);
                return 0;
        }
        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        x = psyne_consumer_endpoint(e.c);
        world_reach(w, 2);
        while (n < LOOP_N) {
                while (psyne_recv(e.c, &m, PSYNE_NOWAIT) == 0) {
                        MUST_BE(m.type, n);
                        MUST(pattern_is(m.data, m.len, n));
                        n++;
                        MUST_BE(psyne_release(e.c, &m), 0);
                }
                if (n == LOOP_N)
                        break;
                sqe = io_uring_get_sqe(&ring);
                r = psyne_arm_sqe(x, sqe);
                MUST(r == 0 || r == 1);
                io_uring_sqe_set_data(sqe, x);
                r = ring_wait(&ring, x);
                MUST(r == 0 || r == 1);
                MUST(r == 0 || psyne_recv(e.c, &m, PSYNE_NOWAIT) == 0);
                if (r == 1) {
                        MUST_BE(m.type, n);
                        n++;
                        MUST_BE(psyne_release(e.c, &m), 0);
                }
        }
        while (psyne_recv(e.c, &m, WATCHDOG_NS) != -EPIPE)
                ;
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        sqe = io_uring_get_sqe(&ring);
        MUST_BE(psyne_arm_sqe(x, sqe), 1); /* nobody is left: at once */
        io_uring_sqe_set_data(sqe, x);
        MUST_BE(ring_wait(&ring, x), 1);
        MUST(io_uring_peek_cqe(&ring, &cqe) != 0);
        io_uring_queue_exit(&ring);
        CLOSE(&e);
        return 0;
}
FAMILY(armed_ring, loop_send, ring_recv)

static int ring_once(struct world *w) {
        struct ends e = {0};
        struct psyne_endpoint *x;
        struct io_uring ring;
        struct io_uring_sqe *sqe;
        struct io_uring_cqe *cqe;

        OPEN_PRODUCER(&e, "size=64K");
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        x = psyne_consumer_endpoint(e.c);
        MUST_REFUSE(psyne_arm_sqe(x, NULL), -EINVAL);
        MUST_REFUSE(psyne_complete(x, NULL), -EINVAL);
        if (io_uring_queue_init(8, &ring, 0) == 0) {
                sqe = io_uring_get_sqe(&ring);
                MUST_BE(psyne_arm_sqe(x, sqe), 0);
                io_uring_sqe_set_data(sqe, x);
                MUST_BE(io_uring_submit(&ring), 1);
                sqe = io_uring_get_sqe(&ring);
                MUST_REFUSE(psyne_arm_sqe(x, sqe), -EALREADY); /* it completes at once, and is not the endpoint's */
                io_uring_sqe_set_data(sqe, NULL);
                MUST_BE(io_uring_submit(&ring), 1);
                MUST_BE(io_uring_wait_cqe(&ring, &cqe), 0);
                MUST(!cqe->user_data);
                io_uring_cqe_seen(&ring, cqe);
                sqe = io_uring_get_sqe(&ring);
                io_uring_prep_cancel(sqe, x, 0);
                io_uring_sqe_set_data(sqe, NULL);
                MUST_BE(io_uring_submit(&ring), 1);
                for (int i = 0; i < 2; i++) {
                        MUST_BE(io_uring_wait_cqe(&ring, &cqe), 0);
                        if (cqe->user_data)
                                MUST_REFUSE(psyne_complete(x, cqe), -ECANCELED);
                        io_uring_cqe_seen(&ring, cqe);
                }
                sqe = io_uring_get_sqe(&ring);
                MUST_BE(psyne_arm_sqe(x, sqe), 0); /* it is free for the next */
                io_uring_sqe_set_data(sqe, x);
                MUST_BE(io_uring_submit(&ring), 1);
                SEND(&e, 9, 50);
                MUST_BE(ring_wait(&ring, x), 1);
                RECEIVE(&e, 9, 50);
                io_uring_queue_exit(&ring);
        }
        CLOSE(&e);
        return 0;
}
FAMILY(armed_ring_once, ring_once, NULL)
#endif

/* ---- refusals ------------------------------------------------------------------------------------------------------ */

static int refused(struct world *w) {
        struct ends e = {0};
        unsigned fds;

        MUST_REFUSE(psyne_fd(NULL), -EINVAL);
        MUST_REFUSE(psyne_arm(NULL), -EINVAL);
        MUST_REFUSE(psyne_disarm(NULL), -EINVAL);
        OPEN_PRODUCER(&e, "size=64K");
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        MUST_BE(psyne_disarm(psyne_consumer_endpoint(e.c)), 0); /* it was not: nothing happens */
        MUST_BE(psyne_arm(psyne_consumer_endpoint(e.c)), 0);
        MUST_BE(psyne_consumer_close(e.c), 0); /* armed */
        fds = count_fds(); /* the channel may keep a handle of that place */
        for (int i = 0; i < 3; i++) {
                MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
                MUST(psyne_fd(psyne_consumer_endpoint(e.c)) >= 0);
                MUST_BE(psyne_arm(psyne_consumer_endpoint(e.c)), 0);
                MUST_BE(psyne_consumer_close(e.c), 0);
                MUST_BE(count_fds(), fds);
        }
        e.c = NULL;
        MUST_BE(psyne_arm(psyne_producer_endpoint(e.p)), 1);
        CLOSE(&e);
        return 0;
}
FAMILY(armed_refusals, refused, NULL)
