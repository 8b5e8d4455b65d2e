/* Groups: each sees everything, each holds producers back, some last longer than their members. */
#include <signal.h>
#include <unistd.h>

#include "family.h"

#define BROADCAST(family, a, b) FAMILY_MODE(family, a, b, broadcast)
#define EVERY_MODE(family, a, b)                                                                                       \
        FAMILY_MODE(family, a, b, spsc)                                                                                \
        FAMILY_MODE(family, a, b, mpsc)                                                                                \
        FAMILY_MODE(family, a, b, broadcast)

static int open_in(struct psyne_channel *ch, const char *group, bool from_oldest, struct psyne_consumer **ret) {
        const struct psyne_consumer_opts opts = {
                .struct_size = sizeof(opts), .group = group, .from_oldest = from_oldest};

        return psyne_consumer_open(ch, &opts, ret);
}

/* ---- everybody sees everything ------------------------------------------------------------------------------------ */

#define READERS 3
#define N 4000

static int all_send(struct world *w) {
        struct psyne_producer *p[2];
        struct ends e = {0};

        MUST_BE(world_open(w, "size=8K", &e.ch), 0);
        for (unsigned i = 0; i < 2; i++)
                MUST_BE(psyne_producer_open(e.ch, NULL, &p[i]), 0);
        world_reach(w, 1);
        AWAIT(2);
        for (uint32_t n = 0; n < N; n++)
                for (unsigned i = 0; i < 2; i++) {
                        e.p = p[i];
                        SEND(&e, i << 24 | n, n % 300);
                }
        for (unsigned i = 0; i < 2; i++)
                MUST_BE(psyne_producer_close(p[i]), 0);
        e.p = NULL;
        CLOSE(&e);
        return 0;
}
static int all_recv(struct world *w) {
        struct psyne_consumer *c[READERS];
        uint32_t next[READERS][2] = {{0}}, over = 0;
        struct ends e = {0};

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        for (unsigned i = 0; i < READERS; i++)
                MUST_BE(psyne_consumer_open(e.ch, NULL, &c[i]), 0);
        world_reach(w, 2);
        /* Each a few at a time: they are at different places all the time. */
        for (unsigned turn = 0; over < READERS; turn++) {
                unsigned i = turn % READERS;

                for (unsigned n = 0; n < 1 + 3 * i && next[i][0] + next[i][1] < 2 * N; n++) {
                        struct psyne_msg m;
                        unsigned who;

                        int r = psyne_recv(c[i], &m, PSYNE_NOWAIT);

                        if (r == -EAGAIN && !w->page->failed)
                                break; /* it has all there is, and others stand in the way of more */
                        MUST_BE(r, 0);
                        who = m.type >> 24;
                        MUST(who < 2);
                        MUST_BE(m.type & 0xffffff, next[i][who]);
                        MUST_BE(m.len, next[i][who] % 300);
                        MUST(pattern_is(m.data, m.len, m.type));
                        next[i][who]++;
                        MUST_BE(psyne_release(c[i], &m), 0);
                        over += next[i][0] + next[i][1] == 2 * N;
                }
        }
        for (unsigned i = 0; i < READERS; i++) {
                struct psyne_msg m;

                MUST_REFUSE(psyne_recv(c[i], &m, WATCHDOG_NS), -EPIPE);
                MUST_BE(psyne_consumer_close(c[i]), 0);
        }
        CLOSE(&e);
        return 0;
}
BROADCAST(all_see_all, all_send, all_recv)

/* ---- joining ------------------------------------------------------------------------------------------------------ */

/* Nobody there: a send never waits. Who joins gets what comes next, or what is still there. */
static int unheard(struct world *w) {
        struct psyne_metrics metrics = {.struct_size = sizeof(metrics)};
        struct psyne_consumer *now, *oldest;
        struct ends e = {0};
        struct psyne_msg m;
        uint32_t first;

        NEAR("it has both ends in one process");
        OPEN_PRODUCER(&e, "size=4K");
        for (uint32_t n = 0; n < 1000; n++) {
                MUST_BE(psyne_claim(e.p, 8, PSYNE_NOWAIT, &m), 0);
                pattern_fill(m.data, 8, n);
                m.type = n;
                MUST_BE(psyne_commit(e.p, &m), 0);
        }
        MUST_BE(psyne_metrics(e.ch, &metrics), 0);
        MUST_BE(metrics.unheard, 1000);
        MUST_BE(open_in(e.ch, NULL, false, &now), 0);
        MUST_BE(open_in(e.ch, NULL, true, &oldest), 0);
        MUST_REFUSE(psyne_recv(now, &m, PSYNE_NOWAIT), -EAGAIN);
        e.c = oldest;
        MUST_BE(psyne_recv(oldest, &m, PSYNE_NOWAIT), 0);
        first = m.type;
        MUST(first >= 1000 - 4096 / 64 && first < 1000);
        MUST_BE(psyne_release(oldest, &m), 0);
        for (uint32_t n = first + 1; n < 1000; n++)
                RECEIVE(&e, n, 8);
        MUST_REFUSE(psyne_recv(oldest, &m, PSYNE_NOWAIT), -EAGAIN);
        SEND(&e, 1000, 30);
        RECEIVE(&e, 1000, 30);
        e.c = now;
        RECEIVE(&e, 1000, 30);
        MUST_BE(psyne_consumer_close(oldest), 0);
        MUST_BE(psyne_consumer_close(now), 0);
        e.c = NULL;
        for (uint32_t n = 0; n < 7; n++)
                SEND(&e, n, 30);
        MUST_BE(psyne_metrics(e.ch, &metrics), 0);
        MUST_BE(metrics.unheard, 1007); /* not the one that was heard */
        MUST_BE(metrics.lost, 0);
        CLOSE(&e);
        return 0;
}
BROADCAST(unheard, unheard, NULL)

/* Into a stream, over and over: whoever joins sees a run without a gap, from a message that was there or was next. */
#define JOINS 150

static int stream_send(struct world *w) {
        struct ends e = {0};
        uint32_t n = 0;

        OPEN_PRODUCER(&e, "size=4K");
        world_reach(w, 1);
        while (!__atomic_load_n(&w->page->words[0], __ATOMIC_ACQUIRE)) {
                SEND(&e, n, n % 150);
                n++;
        }
        CLOSE(&e);
        return 0;
}
static int stream_join(struct world *w) {
        struct random r = random_seeded("join_a_stream");
        struct ends e = {0};

        AWAIT(1);
        for (unsigned k = 0; k < JOINS; k++) {
                struct psyne_msg m;
                uint32_t n;

                MUST_BE(world_open(w, NULL, &e.ch), 0);
                MUST_BE(open_in(e.ch, NULL, k % 2, &e.c), 0);
                MUST_BE(psyne_recv(e.c, &m, WATCHDOG_NS), 0);
                n = m.type;
                MUST_BE(m.len, n % 150);
                MUST(pattern_is(m.data, m.len, n));
                MUST_BE(psyne_release(e.c, &m), 0);
                for (uint64_t left = random_below(&r, 300); left; left--) {
                        n++;
                        RECEIVE(&e, n, n % 150);
                }
                MUST_BE(psyne_consumer_close(e.c), 0);
                MUST(!psyne_close(e.ch));
                e = (struct ends){NULL, NULL, NULL};
        }
        __atomic_store_n(&w->page->words[0], 1, __ATOMIC_RELEASE);
        return 0;
}
BROADCAST(join_a_stream, stream_send, stream_join)

/* ---- holding back --------------------------------------------------------------------------------------------------- */

static int slowest(struct world *w) {
        struct psyne_consumer *slow;
        struct ends e = {0};
        struct psyne_msg m;
        uint32_t sent = 0;

        OPEN_PRODUCER(&e, "size=4K");
        MUST_BE(open_in(e.ch, "slow", false, &slow), 0);
        MUST_BE(open_in(e.ch, "fast", false, &e.c), 0);
        for (;; sent++) {
                int r = psyne_claim(e.p, 8, PSYNE_NOWAIT, &m);

                if (r == -EAGAIN)
                        break;
                MUST_BE(r, 0);
                pattern_fill(m.data, 8, sent);
                m.type = sent;
                MUST_BE(psyne_commit(e.p, &m), 0);
                RECEIVE(&e, sent, 8);
        }
        MUST_BE(sent, 4096 / 64 - 1);
        MUST_BE(psyne_recv(slow, &m, PSYNE_NOWAIT), 0);
        MUST_REFUSE(psyne_claim(e.p, 8, PSYNE_NOWAIT, &m), -EAGAIN); /* taken is not released */
        MUST_BE(psyne_consumer_close(slow), 0);
        MUST_REFUSE(psyne_claim(e.p, 8, PSYNE_NOWAIT, &m), -EAGAIN); /* the group is kept: it has a name */
        MUST_BE(open_in(e.ch, "slow", false, &slow), 0);
        for (uint32_t n = 0; n < sent; n++) { /* where it stood */
                MUST_BE(psyne_recv(slow, &m, PSYNE_NOWAIT), 0);
                MUST_BE(m.type, n);
                MUST_BE(m.flags, n ? 0 : PSYNE_MSG_REDELIVERED);
                MUST_BE(psyne_release(slow, &m), 0);
        }
        SEND(&e, sent, 8);
        RECEIVE(&e, sent, 8);
        MUST_BE(psyne_recv(slow, &m, PSYNE_NOWAIT), 0);
        MUST_BE(psyne_release(slow, &m), 0);
        /* In these two the default group has not had a reader yet, and keeps everything for the one that comes. */
        if (!w->mode->each_sees_all) {
                struct psyne_consumer *late;

                MUST_BE(psyne_consumer_open(e.ch, NULL, &late), 0);
                for (uint32_t n = 0; n <= sent; n++) {
                        MUST_BE(psyne_recv(late, &m, PSYNE_NOWAIT), 0);
                        MUST_BE(m.type, n);
                        MUST_BE(psyne_release(late, &m), 0);
                }
                MUST_BE(psyne_consumer_close(late), 0);
        }
        MUST_BE(psyne_consumer_close(slow), 0);
        CLOSE(&e);
        return 0;
}
BROADCAST(slowest_holds_back, slowest, NULL)

/* A reader without a group of a name holds nobody back once it is closed, or dead. */
static int gone_send(struct world *w) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=4K");
        world_reach(w, 1);
        AWAIT(2);
        for (uint32_t n = 0; n < 200; n++)
                SEND(&e, n, 100); /* waits for the reader, until that one closes */
        CLOSE(&e);
        return 0;
}
static int gone_recv(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        world_reach(w, 2);
        UNTIL(METRIC(e.ch, full_events) == 1);
        CLOSE(&e);
        return 0;
}
BROADCAST(gone_reader, gone_send, gone_recv)

Test(groups, dead_reader, .timeout = 60) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        char dir[64];
        int fds[2];

        cr_assert_eq(private_dir(dir, sizeof(dir)), 0);
        cr_assert_eq(psyne_open("ipc://dead?mode=broadcast&size=4K", NULL, &ch), 0);
        cr_assert_eq(psyne_producer_open(ch, NULL, &p), 0);
        for (unsigned life = 0; life < 20; life++) {
                char byte;
                pid_t pid;

                cr_assert_eq(pipe(fds), 0);
                pid = fork();
                cr_assert_geq(pid, 0);
                if (pid == 0) {
                        struct psyne_channel *mine;
                        struct psyne_consumer *c;

                        if (psyne_open("ipc://dead", NULL, &mine) < 0 || psyne_consumer_open(mine, NULL, &c) < 0)
                                _exit(1);
                        if (write(fds[1], "x", 1) != 1)
                                _exit(2);
                        pause();
                        _exit(3);
                }
                close(fds[1]);
                cr_assert_eq(read(fds[0], &byte, 1), 1, "the reader could not join");
                close(fds[0]);
                kill(pid, SIGKILL);
                for (unsigned n = 0; n < 200; n++)
                        cr_assert_eq(psyne_send(p, n, "0123456789", 10, WATCHDOG_NS), 0, "life %u, message %u: %s", life, n,
                                psyne_last_error());
                cr_assert_eq(child_wait(pid, WATCHDOG_NS), 128 + SIGKILL);
        }
        cr_assert_eq(psyne_producer_close(p), 0);
        psyne_close(ch);
        remove_dir(dir);
}

/* ---- names and limits ----------------------------------------------------------------------------------------------- */

static int names(struct world *w) {
        struct psyne_consumer *c[4], *extra = (void *)w;
        struct ends e = {0};
        char name[70];

        MUST_BE(world_open(w, "size=4K&consumers=4", &e.ch), 0);
        memset(name, 'n', sizeof(name));
        name[65] = '\0';
        MUST_REFUSE(open_in(e.ch, name, false, &extra), -ENAMETOOLONG);
        MUST_REFUSE(open_in(e.ch, "", false, &extra), -EINVAL);
        MUST_REFUSE(open_in(e.ch, "a b", false, &extra), -EINVAL);
        MUST_REFUSE(open_in(e.ch, ".a", false, &extra), -EINVAL);
        name[64] = '\0';
        MUST_BE(open_in(e.ch, name, false, &c[0]), 0);
        for (unsigned i = 0; i < 30; i++) {
                MUST_REFUSE(open_in(e.ch, name, false, &extra), -EBUSY);
                MUST(strstr(psyne_last_error(), name));
        }
        MUST_BE(open_in(e.ch, "b", false, &c[1]), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &c[2]), 0); /* the default group, or one of its own */
        MUST_BE(open_in(e.ch, "c", false, &c[3]), 0);
        for (unsigned i = 0; i < 30; i++)
                MUST_REFUSE(open_in(e.ch, "d", false, &extra), -EUSERS);
        MUST(extra == (void *)w);
        MUST_BE(psyne_consumer_close(c[2]), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &c[2]), 0);
        for (unsigned i = 0; i < 4; i++)
                MUST_BE(psyne_consumer_close(c[i]), 0);
        CLOSE(&e);
        return 0;
}
EVERY_MODE(names, names, NULL)

/* Two sides open the same names at the same time: each name is one group, and one of the two is its member. */
static int race(struct world *w, unsigned side) {
        struct ends e = {0};

        MUST_BE(world_open(w, "size=4K&consumers=16", &e.ch), 0);
        for (unsigned round = 0; round < 16; round++) {
                char name[8];
                int r;

                __atomic_fetch_add(&w->page->words[2 * round], 1, __ATOMIC_SEQ_CST);
                UNTIL(__atomic_load_n(&w->page->words[2 * round], __ATOMIC_SEQ_CST) == 2);
                snprintf(name, sizeof(name), "g%u", round % 8);
                r = open_in(e.ch, name, false, &e.c);
                MUST(r == 0 || r == -EBUSY);
                __atomic_fetch_add(&w->page->words[2 * round + 1], r == 0 ? 1 : 100, __ATOMIC_SEQ_CST);
                UNTIL(__atomic_load_n(&w->page->words[2 * round + 1], __ATOMIC_SEQ_CST) != (r == 0 ? 1 : 100));
                MUST_BE(w->page->words[2 * round + 1], 101);
                if (r == 0)
                        MUST_BE(psyne_consumer_close(e.c), 0);
                e.c = NULL;
        }
        (void)side;
        CLOSE(&e);
        return 0;
}
static int race_a(struct world *w) {
        return race(w, 0);
}
static int race_b(struct world *w) {
        return race(w, 1);
}
BROADCAST(same_name_together, race_a, race_b)

/* Two readers of one handle; one of them has not turned away yet from a lane whose index has a new one. */
static int lagging(struct world *w) {
        struct psyne_consumer *lags;
        struct ends e = {0};
        struct psyne_msg m;

        MUST_BE(world_open(w, "size=4K", &e.ch), 0);
        MUST_BE(open_in(e.ch, "quick", false, &e.c), 0);
        MUST_BE(open_in(e.ch, "lags", false, &lags), 0);
        for (uint32_t n = 0; n < 8; n++) {
                MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
                SEND(&e, n, 10);
                MUST_BE(psyne_recv(e.c, &m, WATCHDOG_NS), 0);
                MUST_BE(m.type, n);
                MUST_BE(psyne_release(e.c, &m), 0);
                MUST_BE(psyne_recv(lags, &m, WATCHDOG_NS), 0);
                MUST_BE(m.type, n);
                MUST_BE(psyne_release(lags, &m), 0);
                MUST_BE(psyne_producer_close(e.p), 0);
        }
        e.p = NULL;
        MUST_REFUSE(psyne_recv(lags, &m, WATCHDOG_NS), -EPIPE);
        MUST_REFUSE(psyne_recv(e.c, &m, WATCHDOG_NS), -EPIPE);
        MUST_BE(psyne_consumer_close(lags), 0);
        CLOSE(&e);
        return 0;
}
FAMILY(lagging_group, lagging, NULL)
