/* Groups that fall behind: overrun and told exactly what they missed, or ejected after a stall. */
#include <stdlib.h>

#include "family.h"

#define BROADCAST(family, a, b) FAMILY_MODE(family, a, b, broadcast)
#define EXCLUSIVE(family, a, b)                                                                                        \
        FAMILY_MODE(family, a, b, spsc)                                                                                \
        FAMILY_MODE(family, a, b, mpsc)                                                                                \
        FAMILY_MODE(family, a, b, broadcast)
#define SHARED(family, a, b)                                                                                           \
        FAMILY_MODE(family, a, b, spmc)                                                                                \
        FAMILY_MODE(family, a, b, mpmc)

static int open_behind(struct psyne_channel *ch, const char *group, enum psyne_behind behind, int64_t eject_ns,
        struct psyne_consumer **ret) {
        const struct psyne_consumer_opts opts = {
                .struct_size = sizeof(opts), .group = group, .behind = behind, .eject_ns = eject_ns};

        return psyne_consumer_open(ch, &opts, ret);
}

/* ---- overrun ------------------------------------------------------------------------------------------------------ */

#define N 60000u
#define LANES 2u

/* Two producers that never wait, as nobody holds them back; one of them aborts and shrinks now and then. */
static int skips_send(struct world *w) {
        struct psyne_producer *p[LANES] = {NULL};
        struct random r = {7};
        struct ends e = {0};
        struct psyne_msg m;
        unsigned lanes = w->mode->many_producers ? LANES : 1;

        MUST_BE(world_open(w, "size=8K", &e.ch), 0);
        for (unsigned i = 0; i < lanes; i++)
                MUST_BE(psyne_producer_open(e.ch, NULL, &p[i]), 0);
        world_reach(w, 1);
        AWAIT(2);
        for (uint32_t n = 0; n < N; n++)
                for (unsigned i = 0; i < lanes; i++) {
                        uint32_t bytes = (uint32_t)random_below(&r, n % 512 == 0 ? 3000 : 200);

                        if (i && n % 7 == 0) {
                                MUST_BE(psyne_claim(p[i], 500, PSYNE_NOWAIT, &m), 0);
                                memset(m.data, 0xff, 500);
                                MUST_BE(psyne_abort(p[i], &m), 0);
                        }
                        MUST_BE(psyne_claim(p[i], bytes + i * 100, PSYNE_NOWAIT, &m), 0);
                        m.len = bytes;
                        m.type = i << 24 | n;
                        pattern_fill(m.data, bytes, m.type);
                        MUST_BE(psyne_commit(p[i], &m), 0);
                        if (n == 0 && i == 0) /* or all may be gone before the other side runs */
                                UNTIL(__atomic_load_n(&w->page->words[0], __ATOMIC_ACQUIRE));
                }
        for (unsigned i = 0; i < lanes; i++)
                MUST_BE(psyne_producer_close(p[i]), 0);
        MUST(!psyne_close(e.ch));
        return 0;
}
/* Dawdles, so that it is overtaken again and again; what it gets is whole, in order, and what it missed is counted. */
static int skips_recv(struct world *w) {
        uint64_t received = 0, lost = 0, next[LANES] = {0}, missing = 0;
        struct psyne_metrics metrics = {.struct_size = sizeof(metrics)};
        struct psyne_consumer *c;
        struct random r = {9};
        struct ends e = {0};
        unsigned lanes = w->mode->many_producers ? LANES : 1;
        int got;

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_BE(open_behind(e.ch, "g", PSYNE_BEHIND_SKIPS, 0, &c), 0);
        if (w->mode->mode != PSYNE_BROADCAST) { /* there the default group keeps everything until it has a reader */
                struct psyne_consumer *holding;

                MUST_REFUSE(open_behind(e.ch, NULL, PSYNE_BEHIND_SKIPS, 0, &holding), -EMEDIUMTYPE);
        }
        world_reach(w, 2);
        for (;;) {
                struct psyne_msg m[5];

                memset(m, 0xee, sizeof(m));
                got = psyne_recv_n(c, m, 5, WATCHDOG_NS);
                if (got < 0) {
                        lost += m[0].lost;
                        break;
                }
                for (int k = 0; k < got; k++) {
                        unsigned who = m[k].type >> 24;
                        uint32_t n = m[k].type & 0xffffff;

                        MUST(who < lanes && n >= next[who] && n < N);
                        MUST(m[k].flags & PSYNE_MSG_COPIED);
                        MUST(pattern_is(m[k].data, m[k].len, m[k].type));
                        missing += n - next[who];
                        next[who] = n + 1;
                        lost += m[k].lost;
                        if (lanes == 1)
                                MUST_BE(lost, missing); /* told with the very next one */
                        received++;
                }
                MUST_BE(psyne_release_n(c, m, (unsigned)got), got);
                __atomic_store_n(&w->page->words[0], 1, __ATOMIC_RELEASE);
                for (uint64_t i = random_below(&r, 100) ? 0 : random_below(&r, 2000); i; i--)
                        breathe();
        }
        MUST_BE(got, -EPIPE);
        MUST_BE(received + lost, (uint64_t)N * lanes);
        MUST_BE(psyne_metrics(e.ch, &metrics), 0);
        MUST_BE(metrics.lost, lost);
        MUST_BE(metrics.messages_received, received);
        MUST(received > 0 && lost > 0);
        MUST_BE(psyne_consumer_close(c), 0);
        MUST(!psyne_close(e.ch));
        return 0;
}
BROADCAST(skips, skips_send, skips_recv)

/* Its producer is gone before it looks for the first time: it is told what it missed, and that nobody is left. */
static int leaves_send(struct world *w) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=8K");
        world_reach(w, 1);
        AWAIT(2);
        for (uint32_t n = 0; n < 100; n++)
                SEND(&e, n, n);
        CLOSE(&e);
        world_reach(w, 3);
        return 0;
}
static int looks_late(struct world *w) {
        struct psyne_consumer *c;
        struct ends e = {0};
        struct psyne_msg m;
        uint64_t seen = 0;
        int got;

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_BE(open_behind(e.ch, "g", PSYNE_BEHIND_SKIPS, 0, &c), 0);
        world_reach(w, 2);
        AWAIT(3);
        while ((got = psyne_recv(c, &m, WATCHDOG_NS)) == 0) {
                seen += 1 + m.lost;
                MUST_BE(psyne_release(c, &m), 0);
        }
        MUST_BE(got, -EPIPE);
        MUST_BE(seen + m.lost, 100);
        MUST_BE(psyne_consumer_close(c), 0);
        MUST(!psyne_close(e.ch));
        return 0;
}
BROADCAST(skips_before_a_look, leaves_send, looks_late)

/* One that keeps up misses nothing, beside one that holds producers back and sees everything. */
static int beside_send(struct world *w) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=8K");
        world_reach(w, 1);
        AWAIT(2);
        for (uint32_t n = 0; n < 5000; n++) {
                SEND(&e, n, n % 100);
                UNTIL(__atomic_load_n(&w->page->words[0], __ATOMIC_ACQUIRE) + 8 > n);
        }
        CLOSE(&e);
        return 0;
}
static int beside_recv(struct world *w) {
        struct psyne_consumer *skips, *holds;
        struct ends e = {0};
        struct psyne_msg m;

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_BE(open_behind(e.ch, "s", PSYNE_BEHIND_SKIPS, 0, &skips), 0);
        MUST_BE(open_behind(e.ch, w->mode->each_sees_all ? "h" : NULL, PSYNE_BEHIND_BLOCKS, 0, &holds), 0);
        world_reach(w, 2);
        for (uint32_t n = 0; n < 5000; n++) {
                MUST_BE(psyne_recv(skips, &m, WATCHDOG_NS), 0);
                MUST_BE(m.type, n);
                MUST_BE(m.lost, 0);
                MUST(pattern_is(m.data, m.len, n));
                MUST_BE(psyne_release(skips, &m), 0);
                MUST_BE(psyne_recv(holds, &m, WATCHDOG_NS), 0);
                MUST_BE(m.type, n);
                MUST_BE(psyne_release(holds, &m), 0);
                __atomic_store_n(&w->page->words[0], n, __ATOMIC_RELEASE);
        }
        MUST_REFUSE(psyne_recv(skips, &m, WATCHDOG_NS), -EPIPE);
        MUST_BE(m.lost, 0);
        MUST_REFUSE(psyne_recv(holds, &m, WATCHDOG_NS), -EPIPE);
        MUST_BE(psyne_consumer_close(skips), 0);
        MUST_BE(psyne_consumer_close(holds), 0);
        MUST(!psyne_close(e.ch));
        return 0;
}
EXCLUSIVE(skips_beside_blocks, beside_send, beside_recv)

static int keeps_up(struct world *w) {
        struct psyne_consumer *c;
        struct ends e = {0};
        struct psyne_msg m;

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_BE(open_behind(e.ch, NULL, PSYNE_BEHIND_SKIPS, 0, &c), 0);
        world_reach(w, 2);
        for (uint32_t n = 0; n < 5000; n++) {
                MUST_BE(psyne_recv(c, &m, WATCHDOG_NS), 0);
                MUST_BE(m.lost, 0); /* what is not overwritten is not said to be */
                MUST_BE(m.type, n);
                MUST(pattern_is(m.data, m.len, n));
                MUST_BE(psyne_release(c, &m), 0);
                __atomic_store_n(&w->page->words[0], n, __ATOMIC_RELEASE);
        }
        MUST_BE(psyne_consumer_close(c), 0);
        MUST(!psyne_close(e.ch));
        return 0;
}
BROADCAST(skips_nothing, beside_send, keeps_up)

/* Producers come and go while it looks elsewhere, so that lanes are used again under it; joined in the middle. */
static int lanes_again(struct world *w) {
        struct psyne_consumer *c;
        struct psyne_producer *p;
        struct ends e = {0};
        uint64_t received = 0, lost = 0;
        struct psyne_msg m = {0};
        int r;

        MUST_BE(world_open(w, "size=4K&producers=2", &e.ch), 0);
        for (unsigned life = 0; life < 40; life++) {
                MUST_BE(psyne_producer_open(e.ch, NULL, &p), 0);
                for (uint32_t n = 0; n < 10 + life * 7; n++) {
                        if (life == 3 && n == 5)
                                MUST_BE(open_behind(e.ch, NULL, PSYNE_BEHIND_SKIPS, 0, &c), 0);
                        MUST_BE(psyne_send(p, life << 16 | n, &n, sizeof(n), PSYNE_NOWAIT), 0);
                }
                MUST_BE(psyne_producer_close(p), 0);
                if (life % 11 != 10 && life != 39)
                        continue;
                while ((r = psyne_recv(c, &m, PSYNE_NOWAIT)) == 0) {
                        received++;
                        lost += m.lost;
                        MUST_BE(psyne_release(c, &m), 0);
                }
                MUST_BE(r, -EPIPE);
                lost += m.lost; /* what was missed at the end comes with that */
        }
        for (unsigned life = 3; life < 40; life++)
                received -= 10 + life * 7 - (life == 3 ? 5 : 0);
        MUST_BE(received + lost, 0);
        MUST(lost > 0);
        MUST_BE(psyne_consumer_close(c), 0);
        MUST(!psyne_close(e.ch));
        return 0;
}
BROADCAST(skips_over_lanes, lanes_again, NULL)

/* It joins a stream in its middle, again and again: what it is told at the first time it is overtaken is exact too. */
static int joins_send(struct world *w) {
        struct psyne_msg m[40];
        struct ends e = {0};
        uint32_t n = 0;

        NEAR(AT_ONCE);
        OPEN_PRODUCER(&e, "size=4K");
        world_reach(w, 1);
        while (!__atomic_load_n(&w->page->words[0], __ATOMIC_ACQUIRE) && !w->page->failed) {
                int got = psyne_claim_n(e.p, 8, n % 3 ? 1 : 40, PSYNE_NOWAIT, m);

                MUST(got > 0);
                for (int i = 0; i < got; i++)
                        m[i].type = n++;
                MUST_BE(psyne_commit_n(e.p, m, (unsigned)got), got);
        }
        CLOSE(&e);
        return 0;
}
static int joins_recv(struct world *w) {
        struct psyne_channel *ch;
        struct psyne_msg m;

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &ch), 0);
        for (unsigned round = 0; round < 200; round++) {
                struct psyne_consumer *c;
                uint32_t next = 0;
                bool first = true, told = false;

                MUST_BE(open_behind(ch, NULL, PSYNE_BEHIND_SKIPS, 0, &c), 0);
                while (!told) {
                        MUST_BE(psyne_recv(c, &m, WATCHDOG_NS), 0);
                        if (!first) /* else it cannot know what came before */
                                MUST_BE(m.lost, m.type - next);
                        told = !first && m.lost;
                        first = false;
                        next = m.type + 1;
                        MUST_BE(psyne_release(c, &m), 0);
                        for (unsigned i = 0; i < round % 50; i++)
                                breathe();
                }
                MUST_BE(psyne_consumer_close(c), 0);
        }
        __atomic_store_n(&w->page->words[0], 1, __ATOMIC_RELEASE);
        MUST(!psyne_close(ch));
        return 0;
}
BROADCAST(skips_join, joins_send, joins_recv)

/* A copy is a message like any other: held up to the limit, released in any order and once, put back by a wrong type. */
static int copies(struct world *w) {
        const struct psyne_consumer_opts opts = {
                .struct_size = sizeof(opts), .group = "g", .behind = PSYNE_BEHIND_SKIPS, .held_max = 3};
        struct psyne_consumer *c, *other;
        struct psyne_msg m[4], again;
        struct ends e = {0};
        char small[4], large[64];
        uint32_t type;

        OPEN_PRODUCER(&e, "size=4K");
        MUST_BE(psyne_consumer_open(e.ch, &opts, &c), 0);
        MUST_REFUSE(psyne_recv(c, &m[0], PSYNE_NOWAIT), -EAGAIN);
        for (uint32_t n = 0; n < 4; n++)
                SEND(&e, n, 50);
        for (uint32_t n = 0; n < 3; n++)
                MUST_BE(psyne_recv(c, &m[n], PSYNE_NOWAIT), 0);
        MUST_REFUSE(psyne_recv(c, &m[3], PSYNE_NOWAIT), -ENOBUFS);
        again = m[1];
        MUST_BE(psyne_release(c, &m[1]), 0);
        MUST_REFUSE(psyne_release(c, &m[1]), -EINVAL);
        MUST_REFUSE(psyne_release(c, &again), -EINVAL);
        for (uint32_t n = 4; n < 1000; n++)
                SEND(&e, n, 50); /* far past what it holds */
        MUST(pattern_is(m[0].data, 50, 0) && pattern_is(m[2].data, 50, 2));
        MUST_BE(psyne_recv(c, &m[3], PSYNE_NOWAIT), 0);
        MUST(m[3].lost > 900 && m[3].lost == m[3].type - 3);
        MUST_REFUSE(psyne_release(c, &again), -EINVAL); /* its place is another's now */
        MUST_BE(psyne_release_n(c, &m[2], 2), 2);
        MUST_BE(psyne_release(c, &m[0]), 0);
        type = m[3].type + 1;
        while (type < 1000) {
                MUST_REFUSE(psyne_recv_type(c, 5, &m[0], PSYNE_NOWAIT), -EMEDIUMTYPE);
                MUST_REFUSE(psyne_recv_copy(c, small, sizeof(small), NULL, PSYNE_NOWAIT), -EMSGSIZE);
                MUST_BE(psyne_recv_copy(c, large, sizeof(large), &m[0].type, PSYNE_NOWAIT), 50);
                MUST_BE(m[0].type, type);
                MUST(pattern_is(large, 50, type));
                type++;
        }
        SEND(&e, 1000, 50);
        SEND(&e, 1001, 50);
        MUST_BE(psyne_recv_latest(c, &m[0]), 0);
        MUST_BE(m[0].type, 1001);
        MUST_BE(m[0].lost, 1);
        MUST_BE(psyne_release(c, &m[0]), 0);
        MUST_REFUSE(open_behind(e.ch, "g", PSYNE_BEHIND_BLOCKS, 0, &other), -EMEDIUMTYPE);
        MUST_REFUSE(open_behind(e.ch, "g", PSYNE_BEHIND_EJECTED, 0, &other), -EMEDIUMTYPE);
        MUST_REFUSE(open_behind(e.ch, "g", PSYNE_BEHIND_DEFAULT, 0, &other), -EBUSY);
        MUST_REFUSE(open_behind(e.ch, "x", (enum psyne_behind)4, 0, &other), -EINVAL);
        MUST_REFUSE(open_behind(e.ch, "x", PSYNE_BEHIND_EJECTED, -1, &other), -EINVAL);
        MUST_BE(psyne_consumer_close(c), 0);
        MUST_BE(psyne_stop(e.ch, PSYNE_ABORT), 0);
        CLOSE(&e);
        return 0;
}
BROADCAST(copies, copies, NULL)

/* A number that one consumer did not come to tell is told by the next: nothing goes with a close, a copy or a put back. */
static int told_later(struct world *w) {
        struct psyne_producer *stays;
        struct psyne_consumer *c;
        struct ends e = {0};
        struct psyne_msg m;
        uint64_t lost = 0;
        char copy[64];
        int r;

        NEAR("it has both ends in one process");
        OPEN_PRODUCER(&e, "size=4K&producers=2");
        MUST_BE(psyne_producer_open(e.ch, NULL, &stays), 0);
        MUST_BE(open_behind(e.ch, "g", PSYNE_BEHIND_SKIPS, 0, &c), 0);
        MUST_BE(psyne_recv(c, &m, PSYNE_NOWAIT), -EAGAIN); /* it has its lanes */
        m.lost = 77;
        MUST_BE(psyne_recv_latest(c, &m), -EAGAIN);
        MUST(m.lost == 0 || m.lost == 77); /* and not what lay on the stack */
        for (uint32_t n = 0; n < 1000; n++)
                SEND(&e, n, 20);
        MUST_BE(psyne_recv_copy(c, copy, sizeof(copy), NULL, PSYNE_NOWAIT), 20);
        MUST_BE(psyne_recv(c, &m, PSYNE_NOWAIT), 0);
        MUST(m.lost > 800 && m.lost == m.type - 1); /* missed before the one that was copied */
        lost += m.lost;
        MUST_BE(psyne_release(c, &m), 0);
        for (uint32_t n = 1000; n < 2000; n++)
                SEND(&e, n, 20);
        MUST_REFUSE(psyne_recv_type(c, 5, &m, PSYNE_NOWAIT), -EMEDIUMTYPE); /* taken, and put back */
        MUST_BE(psyne_consumer_close(c), 0);
        MUST_BE(open_behind(e.ch, "g", PSYNE_BEHIND_SKIPS, 0, &c), 0);
        for (uint64_t received = 2;; received++) {
                r = psyne_recv(c, &m, PSYNE_NOWAIT);
                if (r < 0)
                        break;
                lost += m.lost;
                MUST(received > 2 || m.lost > 300);
                MUST_BE(lost + received, m.type); /* what was put back at the close is missed, too */
                MUST_BE(psyne_release(c, &m), 0);
        }
        MUST_BE(r, -EAGAIN);
        MUST_BE(psyne_consumer_close(c), 0);
        MUST_BE(psyne_producer_close(stays), 0);
        for (uint32_t n = 0; n < 5; n++)
                SEND(&e, n, 20);
        MUST_BE(psyne_producer_close(e.p), 5); /* nobody is there to get them */
        e.p = NULL;
        CLOSE(&e);
        return 0;
}
BROADCAST(skips_told_later, told_later, NULL)

/* Overtaken, it goes on with what is still there and not about to go, which is about half a ring; when the producer has
 * gone, whatever is there. */
static int what_is_left(struct world *w) {
        for (unsigned how = 0; how < 4; how++) {
                uint32_t sent = how % 2 ? 8220 : 80, last = 0;
                struct psyne_consumer *c;
                struct ends e = {0};
                struct psyne_msg m = {0};
                uint64_t received = 0, lost = 0;
                int r;

                OPEN_PRODUCER(&e, "size=4K");
                MUST_BE(open_behind(e.ch, NULL, PSYNE_BEHIND_SKIPS, 0, &c), 0);
                MUST_BE(psyne_recv(c, &m, PSYNE_NOWAIT), -EAGAIN);
                for (uint32_t n = 0; n < sent; n++)
                        SEND(&e, n, 20);
                if (how >= 2) {
                        MUST_BE(psyne_producer_close(e.p), 0);
                        e.p = NULL;
                }
                while ((r = psyne_recv(c, &m, PSYNE_NOWAIT)) == 0) {
                        received++;
                        lost += m.lost;
                        last = m.type;
                        MUST_BE(psyne_release(c, &m), 0);
                }
                MUST_BE(r, how >= 2 ? -EPIPE : -EAGAIN);
                MUST_BE(last, sent - 1);
                MUST_BE(received + lost, sent);
                MUST(received >= (sent > 100 ? 28 : 12)); /* of 63; in the first lap the places to go on at are few */
                MUST_BE(psyne_consumer_close(c), 0);
                CLOSE(&e);
        }
        return 0;
}
BROADCAST(skips_to_what_is_left, what_is_left, NULL)

/* Several consumers of a group hold in place: producers wait for them, and nothing else can be asked for. */
static int shared_blocks(struct world *w) {
        struct psyne_consumer *c;
        struct ends e = {0};

        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_REFUSE(open_behind(e.ch, "g", PSYNE_BEHIND_SKIPS, 0, &c), -EINVAL);
        MUST_REFUSE(open_behind(e.ch, NULL, PSYNE_BEHIND_EJECTED, 0, &c), -EINVAL);
        MUST_BE(open_behind(e.ch, "g", PSYNE_BEHIND_BLOCKS, 0, &c), 0);
        MUST_BE(psyne_consumer_close(c), 0);
        MUST(!psyne_close(e.ch));
        return 0;
}
SHARED(shared_blocks, shared_blocks, NULL)

/* ---- ejected ------------------------------------------------------------------------------------------------------ */

/* It takes a few and then no more. The producer waits for it, for its time, and then never again. */
static int eject_send(struct world *w) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=4K");
        world_reach(w, 1);
        AWAIT(2);
        for (uint32_t n = 0; n < 5000; n++) {
                if (n == 10)
                        AWAIT(3); /* it has taken them: however slow the machine is, it is not in the way before */
                SEND(&e, n, 40);
        }
        world_reach(w, 4);
        AWAIT(5);
        CLOSE(&e);
        return 0;
}
static int eject_recv(struct world *w) {
        struct psyne_consumer *c, *holds, *late;
        struct ends e = {0};
        struct psyne_msg m;

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_BE(open_behind(e.ch, "slow", PSYNE_BEHIND_EJECTED, 20 * MSEC, &c), 0);
        MUST_BE(open_behind(e.ch, w->mode->each_sees_all ? "h" : NULL, PSYNE_BEHIND_BLOCKS, 0, &holds), 0);
        world_reach(w, 2);
        for (uint32_t n = 0; n < 10; n++) {
                MUST_BE(psyne_recv(c, &m, WATCHDOG_NS), 0);
                MUST_BE(m.type, n);
                MUST_BE(m.lost, 0);
                if (n)
                        MUST_BE(psyne_release(c, &m), 0);
        }
        world_reach(w, 3);
        for (uint32_t n = 0; n < 5000; n++) { /* whoever has not fallen behind misses nothing */
                MUST_BE(psyne_recv(holds, &m, WATCHDOG_NS), 0);
                MUST_BE(m.type, n);
                MUST(pattern_is(m.data, 40, n));
                MUST_BE(psyne_release(holds, &m), 0);
        }
        AWAIT(4);
        MUST_REFUSE(psyne_recv(c, &m, WATCHDOG_NS), -ECONNABORTED);
        MUST_BE(m.lost, 4990);
        MUST_REFUSE(psyne_recv(c, &m, PSYNE_NOWAIT), -ECONNABORTED);
        MUST_BE(m.lost, 0);
        MUST_REFUSE(open_behind(e.ch, "slow", PSYNE_BEHIND_EJECTED, 0, &late), -ECONNABORTED);
        MUST_BE(psyne_consumer_close(c), 0);
        MUST_BE(open_behind(e.ch, "slow", PSYNE_BEHIND_EJECTED, 0, &late), 0); /* made anew */
        MUST_REFUSE(psyne_recv(late, &m, PSYNE_NOWAIT), -EAGAIN);
        MUST_BE(psyne_consumer_close(late), 0);
        world_reach(w, 5);
        MUST_REFUSE(psyne_recv(holds, &m, WATCHDOG_NS), -EPIPE);
        MUST_BE(psyne_consumer_close(holds), 0);
        MUST(!psyne_close(e.ch));
        return 0;
}
EXCLUSIVE(ejected, eject_send, eject_recv)

/* One that sleeps in a receive while it is ejected cannot be: it has all there is. One that moves is not. */
static int not_ejected_send(struct world *w) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=4K");
        world_reach(w, 1);
        AWAIT(2);
        for (uint32_t n = 0; n < 3000; n++)
                SEND(&e, n, n % 700);
        CLOSE(&e);
        return 0;
}
static int not_ejected_recv(struct world *w) {
        struct psyne_consumer *c;
        struct ends e = {0};
        struct psyne_msg m;

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_BE(open_behind(e.ch, NULL, PSYNE_BEHIND_EJECTED, 5 * SECOND, &c), 0);
        world_reach(w, 2);
        for (uint32_t n = 0; n < 3000; n++) {
                MUST_BE(psyne_recv(c, &m, WATCHDOG_NS), 0);
                MUST_BE(m.type, n);
                MUST_BE(m.lost, 0);
                MUST(pattern_is(m.data, m.len, n));
                MUST_BE(psyne_release(c, &m), 0);
        }
        MUST_REFUSE(psyne_recv(c, &m, WATCHDOG_NS), -EPIPE);
        MUST_BE(psyne_consumer_close(c), 0);
        MUST(!psyne_close(e.ch));
        return 0;
}
BROADCAST(not_ejected, not_ejected_send, not_ejected_recv)
