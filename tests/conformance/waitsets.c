/* Many endpoints, descriptors and timers in one wait. */
#include "family.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LOOP_N 20000

#define MUST_WAIT(set, ret, n, want)                                                                                   \
        do {                                                                                                           \
                int64_t at_ = now_ns();                                                                                \
                MUST_BE(psyne_waitset_wait(set, ret, n, WATCHDOG_NS), want);                                           \
                MUST(now_ns() - at_ < WATCHDOG_NS);                                                                    \
        } while (0)

/* ---- a stream, both sides in a set ------------------------------------------------------------------------------- */

static int loop_send(struct world *w) {
        struct random r = random_seeded("loop");
        struct psyne_waitset *set;
        struct psyne_event event;
        struct ends e = {0};
        struct psyne_msg m;

        OPEN_PRODUCER(&e, "size=16K");
        MUST_BE(psyne_waitset_new(&set), 0);
        MUST_BE(psyne_waitset_add(set, psyne_producer_endpoint(e.p), &e), 0);
        world_reach(w, 1);
        AWAIT(2);
        for (uint32_t n = 0; n < LOOP_N;) {
                if (psyne_claim(e.p, n % 200, PSYNE_NOWAIT, &m) == 0) {
                        pattern_fill(m.data, n % 200, n);
                        m.type = n++;
                        MUST_BE(psyne_commit(e.p, &m), 0);
                        if (random_below(&r, 50) == 0)
                                usleep((unsigned)random_below(&r, 300));
                } else {
                        MUST_WAIT(set, &event, 1, 1);
                        MUST_BE(event.what, PSYNE_EVENT_WRITABLE);
                        MUST(event.ctx == &e);
                }
        }
        MUST(!psyne_waitset_free(set));
        CLOSE(&e);
        return 0;
}

static int loop_recv(struct world *w) {
        struct random r = random_seeded("loop");
        struct psyne_event event[4];
        struct psyne_waitset *set;
        struct ends e = {0};
        struct psyne_msg m;
        uint32_t n = 0;

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        MUST_BE(psyne_waitset_new(&set), 0);
        MUST_BE(psyne_waitset_add(set, psyne_consumer_endpoint(e.c), &n), 0);
        world_reach(w, 2);
        for (;;) {
                MUST_WAIT(set, event, 4, 1);
                MUST(event[0].ctx == &n);
                if (event[0].what == PSYNE_EVENT_PEER_GONE)
                        break;
                MUST_BE(event[0].what, PSYNE_EVENT_READABLE);
                for (uint64_t k = random_below(&r, 30); k > 0 && psyne_recv(e.c, &m, PSYNE_NOWAIT) == 0; k--) {
                        MUST_BE(m.type, n);
                        MUST(pattern_is(m.data, m.len, n));
                        n++;
                        MUST_BE(psyne_release(e.c, &m), 0);
                }
        }
        MUST_BE(n, LOOP_N);
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        CLOSE(&e); /* it leaves the set */
        MUST_REFUSE(psyne_waitset_remove(set, &n), -ENOENT);
        MUST(!psyne_waitset_free(set));
        return 0;
}
FAMILY(set_loop, loop_send, loop_recv)
FAMILY_MODE(set_loop, loop_send, loop_recv, broadcast)

/* ---- one that always has something keeps nobody else ------------------------------------------------------------- */

#define OTHERS 20

static int fair_send(struct world *w) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=64K");
        world_reach(w, 1);
        AWAIT(2);
        SEND(&e, 1, 10);
        world_reach(w, 3);
        AWAIT(4);
        CLOSE(&e);
        return 0;
}

static int fair_recv(struct world *w) {
        struct psyne_producer *p[OTHERS];
        struct psyne_consumer *c[OTHERS];
        struct psyne_channel *ch[OTHERS];
        unsigned told[OTHERS] = {0}, of_world = 0, of_fd = 0, of_timer = 0;
        struct psyne_event event;
        struct psyne_waitset *set;
        struct ends e = {0};
        int fds[2];

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        MUST_BE(psyne_waitset_new(&set), 0);
        MUST_BE(psyne_waitset_add(set, psyne_consumer_endpoint(e.c), &of_world), 0);
        for (unsigned i = 0; i < OTHERS; i++) {
                MUST_BE(psyne_open("memory://", PSYNE_OPTS(.ring_bytes = 4096), &ch[i]), 0);
                MUST_BE(psyne_producer_open(ch[i], NULL, &p[i]), 0);
                MUST_BE(psyne_consumer_open(ch[i], NULL, &c[i]), 0);
                MUST_BE(psyne_waitset_add(set, psyne_consumer_endpoint(c[i]), &told[i]), 0);
                if (i % 2)
                        MUST_BE(psyne_send(p[i], 0, "x", 1, PSYNE_NOWAIT), 0);
        }
        MUST_BE(pipe(fds), 0);
        MUST_BE(write(fds[1], "x", 1), 1);
        MUST_BE(psyne_waitset_add_fd(set, fds[0], EPOLLIN, &of_fd), 0);
        MUST_BE(psyne_waitset_add_timer(set, 0, 1, &of_timer), 0); /* always due */
        world_reach(w, 2);
        AWAIT(3);
        UNTIL(psyne_arm(psyne_consumer_endpoint(e.c)) == 1); /* its ring is here */
        for (unsigned i = 0; i < 40 * (OTHERS + 3); i++) {
                MUST_WAIT(set, &event, 1, 1);
                ++*(unsigned *)event.ctx;
                MUST_BE(event.what, event.ctx == &of_fd      ? PSYNE_EVENT_FD
                                : event.ctx == &of_timer ? PSYNE_EVENT_TIMER
                                                         : PSYNE_EVENT_READABLE);
                if (event.ctx == &of_fd)
                        MUST_BE(event.poll_events, EPOLLIN);
        }
        for (unsigned i = 0; i < OTHERS; i++)
                MUST(i % 2 ? told[i] >= 20 : told[i] == 0);
        MUST(of_world >= 20 && of_fd >= 20 && of_timer >= 20);
        MUST_BE(psyne_waitset_remove(set, &told[1]), 1);
        told[1] = 0;
        for (unsigned i = 0; i < 40 * (OTHERS + 3); i++) {
                MUST_WAIT(set, &event, 1, 1);
                ++*(unsigned *)event.ctx;
        }
        MUST_BE(told[1], 0);
        for (unsigned i = 0; i < OTHERS; i++) {
                struct psyne_msg m;

                if (i % 2) {
                        MUST_BE(psyne_recv(c[i], &m, PSYNE_NOWAIT), 0);
                        MUST_BE(psyne_release(c[i], &m), 0);
                }
                MUST_BE(psyne_producer_close(p[i]), 0);
                MUST_BE(psyne_consumer_close(c[i]), 0);
                MUST(!psyne_close(ch[i]));
        }
        RECEIVE(&e, 1, 10);
        MUST(!psyne_waitset_free(set)); /* with an endpoint in it */
        close(fds[0]);
        close(fds[1]);
        world_reach(w, 4);
        CLOSE(&e);
        return 0;
}
FAMILY(set_fair, fair_send, fair_recv)

/* ---- each kind, and what ends a wait ------------------------------------------------------------------------------ */

static struct psyne_waitset *woken_by_signal;

static void wake_it(int signal) {
        (void)signal;
        (void)psyne_waitset_wake(woken_by_signal);
}

static int kinds_send(struct world *w) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=64K");
        world_reach(w, 1);
        AWAIT(2);
        SEND(&e, 1, 10);
        AWAIT(3);
        MUST_BE(psyne_stop(e.ch, PSYNE_DRAIN), 0);
        AWAIT(4);
        CLOSE(&e);
        return 0;
}

static int kinds_recv(struct world *w) {
        struct sigaction act = {.sa_handler = wake_it}, old_act;
        struct psyne_event event[8];
        struct psyne_waitset *set;
        struct ends e = {0};
        struct psyne_msg m;
        int64_t at;
        int timer, always, fd, fds[2];

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        MUST_BE(psyne_waitset_new(&set), 0);
        MUST_REFUSE(psyne_waitset_wait(set, event, 8, PSYNE_NOWAIT), -EAGAIN);
        at = now_ns();
        MUST_REFUSE(psyne_waitset_wait(set, event, 8, 5 * MSEC), -ETIME);
        MUST(now_ns() - at >= 5 * MSEC);

        /* timers: once, and again and again */
        at = now_ns();
        MUST_BE(psyne_waitset_add_timer(set, 10 * MSEC, 0, &timer), 0);
        MUST_WAIT(set, event, 8, 1);
        MUST(now_ns() - at >= 10 * MSEC && event[0].ctx == &timer && event[0].what == PSYNE_EVENT_TIMER);
        MUST_REFUSE(psyne_waitset_remove(set, &timer), -ENOENT); /* it is gone */
        at = now_ns();
        MUST_BE(psyne_waitset_add_timer(set, MSEC, 3 * MSEC, &always), 0);
        for (int i = 0; i < 4; i++)
                MUST_WAIT(set, event, 8, 1);
        MUST(now_ns() - at >= 10 * MSEC);
        MUST_BE(psyne_waitset_remove(set, &always), 1);

        /* woken: by the call that comes first, and from a handler */
        MUST_BE(psyne_waitset_wake(set), 0);
        MUST_BE(psyne_waitset_wake(set), 0);
        MUST_WAIT(set, event, 8, 0);
        MUST_REFUSE(psyne_waitset_wait(set, event, 8, MSEC), -ETIME); /* twice is once */
        woken_by_signal = set;
        MUST_BE(sigaction(SIGUSR1, &act, &old_act), 0);
        MUST_BE(raise(SIGUSR1), 0);
        MUST_WAIT(set, event, 8, 0);
        MUST_BE(sigaction(SIGUSR1, &old_act, NULL), 0);

        /* descriptors */
        MUST_BE(pipe(fds), 0);
        MUST_BE(psyne_waitset_add_fd(set, fds[0], EPOLLIN, &fd), 0);
        MUST_REFUSE(psyne_waitset_add_fd(set, fds[0], EPOLLIN, &fd), -EEXIST);
        MUST_REFUSE(psyne_waitset_wait(set, event, 8, MSEC), -ETIME);
        MUST_BE(write(fds[1], "x", 1), 1);
        for (int i = 0; i < 3; i++) {
                MUST_WAIT(set, event, 8, 1);
                MUST(event[0].ctx == &fd && event[0].what == PSYNE_EVENT_FD && event[0].poll_events == EPOLLIN);
        }
        MUST_BE(psyne_waitset_remove(set, &fd), 1);
        MUST_REFUSE(psyne_waitset_wait(set, event, 8, MSEC), -ETIME);
        close(fds[0]);
        close(fds[1]);

        /* an endpoint: a message, a stop */
        MUST_BE(psyne_waitset_add(set, psyne_consumer_endpoint(e.c), &e), 0);
        MUST_REFUSE(psyne_waitset_add(set, psyne_consumer_endpoint(e.c), &e), -EBUSY);
        MUST_REFUSE(psyne_waitset_wait(set, event, 8, MSEC), -ETIME);
        world_reach(w, 2);
        for (int i = 0; i < 3; i++) {
                MUST_WAIT(set, event, 8, 1);
                MUST(event[0].ctx == &e && event[0].what == PSYNE_EVENT_READABLE);
        }
        RECEIVE(&e, 1, 10);
        MUST_REFUSE(psyne_waitset_wait(set, event, 8, MSEC), -ETIME);
        world_reach(w, 3);
        MUST_WAIT(set, event, 8, 1);
        MUST(event[0].ctx == &e && event[0].what == PSYNE_EVENT_STOPPED);
        MUST_BE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -ESHUTDOWN);
        MUST_BE(psyne_waitset_remove(set, &e), 1);
        MUST_REFUSE(psyne_waitset_wait(set, event, 8, PSYNE_NOWAIT), -EAGAIN);
        world_reach(w, 4);
        CLOSE(&e);
        MUST(!psyne_waitset_free(set));
        return 0;
}
FAMILY(set_kinds, kinds_send, kinds_recv)

/* ---- woken, again and again, while everything else comes and goes -------------------------------------------------- */

static int woken(struct world *w) {
        struct sigaction act = {.sa_handler = wake_it}, old_act;
        struct psyne_event event;
        struct psyne_waitset *set;
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=64K&wait=block");
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        MUST_BE(psyne_waitset_new(&set), 0);
        MUST_BE(psyne_waitset_add(set, psyne_consumer_endpoint(e.c), &e), 0);
        woken_by_signal = set;
        MUST_BE(sigaction(SIGUSR1, &act, &old_act), 0);
        for (uint32_t i = 0; i < 200; i++) {
                int r;

                switch (i % 3) { /* its word, the set's own descriptor, or both, have requests of their own */
                case 0:
                        SEND(&e, i, 8);
                        do
                                r = psyne_waitset_wait(set, &event, 1, WATCHDOG_NS);
                        while (r == -EINTR);
                        MUST(r == 1 && event.ctx == &e);
                        RECEIVE(&e, i, 8);
                        break;
                case 1:
                        MUST_REFUSE(psyne_waitset_wait(set, &event, 1, MSEC / 10), -ETIME);
                        break;
                default:
                        break;
                }
                MUST_BE(raise(SIGUSR1), 0);
                do
                        r = psyne_waitset_wait(set, &event, 1, WATCHDOG_NS);
                while (r == -EINTR);
                MUST_BE(r, 0);
        }
        MUST_BE(sigaction(SIGUSR1, &old_act, NULL), 0);
        MUST(!psyne_waitset_free(set));
        CLOSE(&e);
        return 0;
}
FAMILY(set_woken, woken, NULL)

/* ---- many descriptors, few places ----------------------------------------------------------------------------------- */

static int many_fds(struct world *w) {
        unsigned told[12] = {0}, n_fds = sizeof(told) / sizeof(told[0]);
        struct psyne_event event[4];
        struct psyne_waitset *set;
        struct ends e = {0};
        int fds[12];

        OPEN_PRODUCER(&e, "size=64K");
        MUST_BE(psyne_waitset_new(&set), 0);
        for (unsigned i = 0; i < n_fds; i++) {
                fds[i] = eventfd(1, EFD_CLOEXEC);
                MUST_BE(psyne_waitset_add_fd(set, fds[i], EPOLLIN, &told[i]), 0);
        }
        MUST_BE(psyne_waitset_add_timer(set, 0, INT64_MAX, &e), 0); /* once, and then never */
        for (unsigned n = 1; n <= 4; n++) {
                memset(told, 0, sizeof(told));
                for (unsigned i = 0; i < 120; i++) {
                        int got = psyne_waitset_wait(set, event, n, WATCHDOG_NS);

                        MUST(got >= 1);
                        for (int k = 0; k < got; k++)
                                if (event[k].what == PSYNE_EVENT_FD)
                                        ++*(unsigned *)event[k].ctx;
                                else
                                        MUST(n == 1 && event[k].what == PSYNE_EVENT_TIMER);
                }
                for (unsigned i = 0; i < n_fds; i++)
                        MUST(told[i] >= 5);
        }
        MUST(!psyne_waitset_free(set));
        for (unsigned i = 0; i < n_fds; i++)
                close(fds[i]);
        CLOSE(&e);
        return 0;
}
FAMILY(set_many_fds, many_fds, NULL)

/* ---- a member that takes nothing leaves it to the others ------------------------------------------------------------ */

static int poll_one(int fd) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        return poll(&p, 1, 0);
}

static int left(struct world *w) {
        struct psyne_event event;
        struct psyne_waitset *set;
        struct psyne_consumer *other;
        struct ends e = {0};
        struct psyne_msg m;
        int64_t at;

        OPEN_PRODUCER(&e, "size=64K");
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &other), 0);
        MUST_BE(psyne_waitset_new(&set), 0);
        MUST_BE(psyne_waitset_add(set, psyne_consumer_endpoint(e.c), &e), 0);
        UNTIL(psyne_waitset_wait(set, &event, 1, MSEC) == -ETIME && psyne_arm(psyne_consumer_endpoint(other)) == 0);
        at = now_ns();
        SEND(&e, 1, 8);
        MUST_BE(psyne_waitset_remove(set, &e), 1); /* woken or not: it is the other one's now */
        UNTIL(poll_one(psyne_fd(psyne_consumer_endpoint(other))) == 1);
        MUST_BE(psyne_recv(other, &m, PSYNE_NOWAIT), 0);
        MUST(now_ns() - at < SECOND / 2); /* and not by the look every second */
        MUST_BE(psyne_release(other, &m), 0);
        MUST_BE(psyne_consumer_close(other), 0);
        MUST(!psyne_waitset_free(set));
        CLOSE(&e);
        return 0;
}
FAMILY_MODE(set_left, left, NULL, spmc)
FAMILY_MODE(set_left, left, NULL, mpmc)

/* ---- refusals ------------------------------------------------------------------------------------------------------ */

static int refused(struct world *w) {
        struct psyne_event event;
        struct psyne_waitset *set;
        struct ends e = {0};
        unsigned fds = count_fds();

        MUST_REFUSE(psyne_waitset_new(NULL), -EINVAL);
        MUST(!psyne_waitset_free(NULL));
        MUST_BE(psyne_waitset_wake(NULL), -EINVAL);
        MUST_BE(psyne_waitset_new(&set), 0);
        MUST_REFUSE(psyne_waitset_add(NULL, NULL, NULL), -EINVAL);
        MUST_REFUSE(psyne_waitset_add(set, NULL, NULL), -EINVAL);
        MUST_REFUSE(psyne_waitset_add_fd(set, -1, EPOLLIN, NULL), -EBADF);
        MUST_REFUSE(psyne_waitset_add_fd(set, 0, 0, NULL), -EINVAL);
        MUST_REFUSE(psyne_waitset_add_fd(set, 0, EPOLLIN | EPOLLET, NULL), -EINVAL);
        MUST_REFUSE(psyne_waitset_add_timer(set, -1, 0, NULL), -EINVAL);
        MUST_REFUSE(psyne_waitset_add_timer(set, 0, -1, NULL), -EINVAL);
        MUST_REFUSE(psyne_waitset_remove(set, NULL), -ENOENT);
        MUST_REFUSE(psyne_waitset_wait(set, &event, 0, 0), -EINVAL);
        MUST_REFUSE(psyne_waitset_wait(set, NULL, 1, 0), -EINVAL);
        MUST_REFUSE(psyne_waitset_wait(NULL, &event, 1, 0), -EINVAL);
        MUST(!psyne_waitset_free(set));
        MUST_BE(count_fds(), fds);
        OPEN_PRODUCER(&e, "size=64K");
        CLOSE(&e);
        return 0;
}
FAMILY(set_refusals, refused, NULL)
