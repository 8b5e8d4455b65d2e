/* Shared groups: each message goes to one member, who holds it in place; what a member leaves goes to the others. */
#include <pthread.h>

#include "family.h"

#define SHARED(family, a, b)                                                                                           \
        FAMILY_MODE(family, a, b, spmc)                                                                                \
        FAMILY_MODE(family, a, b, mpmc)

static int open_member(struct psyne_channel *ch, uint32_t prefetch, uint32_t held_max, enum psyne_wait wait,
        struct psyne_consumer **ret) {
        const struct psyne_consumer_opts opts = {
                .struct_size = sizeof(opts), .prefetch = prefetch, .held_max = held_max, .wait = wait};

        return psyne_consumer_open(ch, &opts, ret);
}

/* ---- each to one ---------------------------------------------------------------------------------------------------- */

#define N 20000
#define MEMBERS 3

struct member {
        struct world *w;
        struct psyne_channel *ch;
        pthread_t thread;
        unsigned index;
        uint64_t n, sum, squares;
        int result;
};

static int member_body(struct world *w, struct member *me) {
        struct psyne_consumer *c;
        uint32_t last[4] = {0};
        struct psyne_msg m[8];

        MUST_BE(open_member(me->ch, 1 + 3 * me->index, 16, me->index ? PSYNE_WAIT_BLOCK : PSYNE_WAIT_HYBRID, &c), 0);
        __atomic_fetch_add(&w->page->words[3], 1, __ATOMIC_SEQ_CST);
        for (;;) {
                int got = psyne_recv_n(c, m, 1 + me->index * 2, WATCHDOG_NS);

                if (got == -EPIPE)
                        break;
                if (got < 0)
                        MUST_BE(got, 1);
                for (int i = 0; i < got; i++) {
                        uint32_t who = m[i].type >> 24, n = m[i].type & 0xffffff;

                        MUST(who < 4 && m[i].len == n % 90 && pattern_is(m[i].data, m[i].len, m[i].type));
                        MUST_BE(m[i].flags, 0);
                        MUST(n + 1 > last[who]); /* what a member gets of a producer is in order */
                        last[who] = n + 1;
                        me->n++;
                        me->sum += m[i].type;
                        me->squares += (uint64_t)m[i].type * m[i].type;
                }
                MUST_BE(psyne_release_n(c, m, (unsigned)got), got);
        }
        return psyne_consumer_close(c);
}
static void *member_main(void *arg) {
        struct member *me = arg;

        me->result = member_body(me->w, me);
        return NULL;
}
static int each_to_one_send(struct world *w) {
        unsigned n_producers = w->mode->many_producers ? 2 : 1;
        uint64_t n = 0, sum = 0, squares = 0;
        struct psyne_producer *p[2];
        struct ends e = {0};

        MUST_BE(world_open(w, "size=16K", &e.ch), 0);
        for (unsigned i = 0; i < n_producers; i++)
                MUST_BE(psyne_producer_open(e.ch, NULL, &p[i]), 0);
        world_reach(w, 1);
        UNTIL(__atomic_load_n(&w->page->words[3], __ATOMIC_SEQ_CST) == MEMBERS);
        for (uint32_t k = 0; k < N; k++)
                for (unsigned i = 0; i < n_producers; i++) {
                        uint64_t type = (uint64_t)i << 24 | k;

                        e.p = p[i];
                        SEND(&e, type, k % 90);
                        n++;
                        sum += type;
                        squares += type * type;
                }
        e.p = NULL;
        for (unsigned i = 0; i < n_producers; i++)
                MUST_BE(psyne_producer_close(p[i]), 0);
        CLOSE(&e);
        w->page->words[4] = n;
        w->page->words[5] = sum;
        w->page->words[6] = squares;
        world_reach(w, 2);
        return 0;
}
static int each_to_one_recv(struct world *w) {
        struct member members[MEMBERS];
        uint64_t n = 0, sum = 0, squares = 0;
        struct ends e = {0};

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        for (unsigned i = 0; i < MEMBERS; i++) {
                members[i] = (struct member){.w = w, .ch = e.ch, .index = i};
                MUST_BE(pthread_create(&members[i].thread, NULL, member_main, &members[i]), 0);
        }
        for (unsigned i = 0; i < MEMBERS; i++) {
                pthread_join(members[i].thread, NULL);
                MUST_BE(members[i].result, 0);
                n += members[i].n;
                sum += members[i].sum;
                squares += members[i].squares;
        }
        MUST_BE(METRIC(e.ch, messages_received), n);
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        CLOSE(&e);
        AWAIT(2);
        MUST_BE(n, w->page->words[4]);
        MUST_BE(sum, w->page->words[5]);
        MUST_BE(squares, w->page->words[6]);
        return 0;
}
SHARED(each_to_one, each_to_one_send, each_to_one_recv)

/* ---- one that is busy ----------------------------------------------------------------------------------------------- */

/* Sends and receives from *@n on, as long as somebody else's messages leave room. */
static int pass_until_full(struct world *w, struct ends *e, uint32_t *n) {
        struct psyne_msg m;
        int r;

        while ((r = psyne_claim(e->p, 20, PSYNE_NOWAIT, &m)) == 0) {
                m.type = *n;
                pattern_fill(m.data, 20, *n);
                MUST_BE(psyne_commit(e->p, &m), 0);
                RECEIVE(e, *n, 20);
                ++*n;
        }
        MUST_BE(r, -EAGAIN);
        return 0;
}

/* Holding one, it keeps nothing else from the others but the ring behind it. */
static int busy(struct world *w) {
        struct psyne_consumer *slow;
        struct ends e = {0};
        struct psyne_msg m, held;
        uint32_t n = 1;

        OPEN_PRODUCER(&e, "size=4K");
        MUST_BE(open_member(e.ch, 1, 4, PSYNE_WAIT_DEFAULT, &slow), 0);
        MUST_BE(open_member(e.ch, 1, 4, PSYNE_WAIT_DEFAULT, &e.c), 0);
        SEND(&e, 0, 20);
        MUST_BE(psyne_recv(slow, &held, PSYNE_NOWAIT), 0);
        MUST_BE(pass_until_full(w, &e, &n), 0);
        MUST_BE(n, 4096 / 64 - 1); /* all of the ring but one cell */
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EAGAIN);
        MUST(pattern_is(held.data, 20, 0));
        MUST_BE(psyne_release(slow, &held), 0);
        SEND(&e, n, 20);
        RECEIVE(&e, n, 20);
        MUST_REFUSE(psyne_release(slow, &held), -EINVAL);
        MUST_BE(psyne_consumer_close(slow), 0);
        CLOSE(&e);
        return 0;
}
SHARED(busy_member, busy, NULL)

/* Several taken at once keep their place in the ring until the last is given back, however the first were. */
static int parts(struct world *w) {
        struct psyne_consumer *slow;
        struct psyne_msg some[4];
        struct ends e = {0};
        uint32_t n = 0;

        OPEN_PRODUCER(&e, "size=4K");
        MUST_BE(open_member(e.ch, 4, 8, PSYNE_WAIT_DEFAULT, &slow), 0);
        MUST_BE(open_member(e.ch, 1, 4, PSYNE_WAIT_DEFAULT, &e.c), 0);
        for (unsigned round = 0; round < 2; round++) {
                uint32_t first = n;

                while (n < first + 4) {
                        SEND(&e, n, 20);
                        n++;
                }
                MUST_BE(psyne_recv(slow, &some[0], PSYNE_NOWAIT), 0); /* and the three behind it with it */
                MUST_BE(psyne_recv(slow, &some[1], PSYNE_NOWAIT), 0);
                MUST_BE(some[1].type, first + 1);
                if (round == 0)
                        MUST_BE(psyne_release(slow, &some[0]), 0);
                else
                        MUST_BE(psyne_release_n(slow, some, 1), 1);
                MUST_BE(pass_until_full(w, &e, &n), 0);
                MUST_BE(n - first, 4096 / 64 - 1); /* all of the ring but one cell */
                MUST_BE(psyne_recv(slow, &some[2], PSYNE_NOWAIT), 0);
                MUST_BE(psyne_recv(slow, &some[3], PSYNE_NOWAIT), 0);
                for (uint32_t i = 1; i < 4; i++)
                        MUST(some[i].type == first + i && pattern_is(some[i].data, 20, first + i));
                for (uint32_t i = 3; i > 0; i--)
                        MUST_BE(psyne_release(slow, &some[i]), 0);
        }
        MUST_BE(METRIC(e.ch, held), 0);
        MUST_BE(psyne_consumer_close(slow), 0);
        CLOSE(&e);
        return 0;
}
SHARED(part_of_a_loan, parts, NULL)

/* Rings of nothing but padding, which no honest producer leaves: a look at them ends, and so does a wait. */
static int all_padding(struct world *w) {
        unsigned n_producers = w->mode->many_producers ? 2 : 1;
        const struct psyne_producer_opts hasty = {.struct_size = sizeof(hasty), .linger_ns = 1};
        struct psyne_producer *p[2];
        struct ends e = {0};
        struct psyne_msg m;

        MUST_BE(world_open(w, "size=4K", &e.ch), 0);
        for (unsigned i = 0; i < n_producers; i++) {
                struct psyne_record *r;

                MUST_BE(psyne_producer_open(e.ch, &hasty, &p[i]), 0);
                MUST_BE(psyne_claim(p[i], 8, PSYNE_NOWAIT, &m), 0);
                r = (void *)((char *)m.data - PSYNE_RECORD_HEADER); /* the first: where the ring begins */
                for (unsigned k = 0; k < 4096 / 64; k++)
                        r[k * 4] = (struct psyne_record){.commit = 64, .kind = PSYNE_RECORD_PAD};
        }
        MUST_BE(open_member(e.ch, 4, 8, PSYNE_WAIT_DEFAULT, &e.c), 0);
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EAGAIN);
        MUST_REFUSE(psyne_recv(e.c, &m, 5 * MSEC), -ETIME);
        for (unsigned i = 0; i < n_producers; i++)
                MUST(psyne_producer_close(p[i]) >= 0);
        CLOSE(&e);
        return 0;
}
SHARED(all_padding, all_padding, NULL)

/* What was prefetched and not handed out goes to the others, flagged; so does what is held. */
static int prefetched(struct world *w) {
        struct psyne_consumer *other;
        struct ends e = {0};
        struct psyne_msg m, two[2];

        OPEN_PRODUCER(&e, "size=4K");
        for (uint32_t n = 0; n < 12; n++)
                SEND(&e, n, 30);
        MUST_BE(open_member(e.ch, 8, 8, PSYNE_WAIT_DEFAULT, &other), 0);
        MUST_BE(psyne_recv(other, &two[0], PSYNE_NOWAIT), 0);
        MUST_BE(psyne_recv(other, &two[1], PSYNE_NOWAIT), 0);
        MUST_BE(two[1].type, 1);
        MUST_BE(open_member(e.ch, 1, 0, PSYNE_WAIT_DEFAULT, &e.c), 0);
        RECEIVE(&e, 8, 30); /* the first eight are the other's */
        MUST_BE(psyne_release(other, &two[0]), 0);
        MUST_BE(psyne_consumer_close(other), 0);
        for (uint32_t n = 1; n < 8; n++)
                RECEIVE_FLAGGED(&e, n, 30, PSYNE_MSG_REDELIVERED);
        for (uint32_t n = 9; n < 12; n++)
                RECEIVE(&e, n, 30);
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EAGAIN);
        MUST_BE(METRIC(e.ch, messages_received), 12);
        MUST_BE(METRIC(e.ch, held), 0);
        CLOSE(&e);
        return 0;
}
SHARED(prefetched, prefetched, NULL)

/* Released out of order it never comes again, whoever takes over; the rest does, the oldest first. */
static int gaps(struct world *w) {
        struct psyne_consumer *other;
        struct ends e = {0};
        struct psyne_msg m[6];
        char small[4];

        OPEN_PRODUCER(&e, "size=4K");
        for (uint32_t n = 0; n < 10; n++)
                SEND(&e, n, 30);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &other), 0);
        MUST_BE(psyne_recv_n(other, m, 6, PSYNE_NOWAIT), 6);
        MUST_BE(psyne_release(other, &m[4]), 0);
        MUST_BE(psyne_release(other, &m[1]), 0);
        MUST_BE(psyne_consumer_close(other), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        MUST_REFUSE(psyne_recv_copy(e.c, small, sizeof(small), NULL, PSYNE_NOWAIT), -EMSGSIZE);
        RECEIVE_FLAGGED(&e, 0, 30, PSYNE_MSG_REDELIVERED);
        RECEIVE_FLAGGED(&e, 2, 30, PSYNE_MSG_REDELIVERED);
        TAKE(&e, &m[0], 3, 30);
        TAKE(&e, &m[1], 5, 30);
        for (uint32_t n = 6; n < 8; n++)
                RECEIVE(&e, n, 30);
        MUST_BE(psyne_consumer_close(e.c), 0); /* what it had taken over comes a third time */
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        RECEIVE_FLAGGED(&e, 3, 30, PSYNE_MSG_REDELIVERED);
        RECEIVE_FLAGGED(&e, 5, 30, PSYNE_MSG_REDELIVERED);
        MUST_REFUSE(psyne_recv_copy(e.c, small, sizeof(small), NULL, PSYNE_NOWAIT), -EMSGSIZE);
        for (uint32_t n = 8; n < 10; n++)
                RECEIVE(&e, n, 30);
        CLOSE(&e);
        return 0;
}
SHARED(gaps, gaps, NULL)

/* The end of a stream is not before its last message is released, by whoever holds it. */
static int not_before(struct world *w) {
        const struct psyne_producer_opts hasty = {.struct_size = sizeof(hasty), .linger_ns = 1};
        struct psyne_consumer *holder;
        struct ends e = {0};
        struct psyne_msg m;

        MUST_BE(world_open(w, "size=4K", &e.ch), 0);
        MUST_BE(psyne_producer_open(e.ch, &hasty, &e.p), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &holder), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        SEND(&e, 0, 10);
        MUST_BE(psyne_recv(holder, &m, PSYNE_NOWAIT), 0);
        MUST_BE(psyne_producer_close(e.p), 0);
        e.p = NULL;
        MUST_REFUSE(psyne_recv(e.c, &m, 5 * MSEC), -ETIME);
        MUST_BE(psyne_consumer_close(holder), 0);
        RECEIVE_FLAGGED(&e, 0, 10, PSYNE_MSG_REDELIVERED);
        MUST_REFUSE(psyne_recv(e.c, &m, WATCHDOG_NS), -EPIPE);
        CLOSE(&e);
        return 0;
}
SHARED(not_before_all_is_released, not_before, NULL)

/* One message wakes one of the sleepers; a batch wakes as many as it has work for, one through the other. */
static int sleeper(struct world *w) {
        struct psyne_consumer *c;
        struct ends e = {0};
        struct psyne_msg m;

        MUST_BE(world_open(w, "size=4K", &e.ch), 0);
        MUST_BE(open_member(e.ch, 1, 0, PSYNE_WAIT_BLOCK, &c), 0);
        __atomic_fetch_add(&w->page->words[0], 1, __ATOMIC_SEQ_CST);
        for (;;) {
                int r = psyne_recv(c, &m, WATCHDOG_NS);

                if (r == -ESHUTDOWN)
                        break;
                MUST_BE(r, 0);
                /* Busy until the others have had theirs. */
                __atomic_fetch_add(&w->page->words[1], 1, __ATOMIC_SEQ_CST);
                UNTIL(__atomic_load_n(&w->page->words[1], __ATOMIC_SEQ_CST) >= __atomic_load_n(&w->page->words[2], __ATOMIC_SEQ_CST));
                MUST_BE(psyne_release(c, &m), 0);
        }
        MUST_BE(psyne_consumer_close(c), 0);
        CLOSE(&e);
        return 0;
}
static void *sleeper_main(void *arg) {
        return (void *)(intptr_t)sleeper(arg);
}
static int sleepers(struct world *w) {
        pthread_t threads[2];
        void *result;

        for (unsigned i = 0; i < 2; i++)
                MUST_BE(pthread_create(&threads[i], NULL, sleeper_main, w), 0);
        for (unsigned i = 0; i < 2; i++) {
                pthread_join(threads[i], &result);
                MUST(!result);
        }
        return 0;
}
static int waker(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m[2];

        OPEN_PRODUCER(&e, "size=4K");
        UNTIL(__atomic_load_n(&w->page->words[0], __ATOMIC_SEQ_CST) == 2);
        for (unsigned round = 0; round < 50; round++) {
                unsigned n = 1 + round % 2;

                UNTIL(METRIC(e.ch, messages_received) == METRIC(e.ch, messages_sent));
                __atomic_fetch_add(&w->page->words[2], n, __ATOMIC_SEQ_CST);
                MUST_BE(psyne_claim_n(e.p, 16, n, PSYNE_NOWAIT, m), (int)n);
                MUST_BE(psyne_commit_n(e.p, m, n), (int)n);
                UNTIL(__atomic_load_n(&w->page->words[1], __ATOMIC_SEQ_CST) == __atomic_load_n(&w->page->words[2], __ATOMIC_SEQ_CST));
        }
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        MUST_BE(psyne_stop(e.ch, PSYNE_DRAIN), 0);
        CLOSE(&e);
        return 0;
}
SHARED(sleepers, waker, sleepers)

/* ---- a claim is walked no further than its last message ------------------------------------------------------------- */

/* The padding behind it goes with that message's release: what is written there next is not this member's. */
static int padding_behind(struct world *w) {
        struct psyne_consumer *other;
        struct psyne_msg m, x, y, z;
        struct ends e = {0};

        MUST_BE(world_open(w, "size=4K", &e.ch), 0);
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        MUST_BE(open_member(e.ch, 2, 16, PSYNE_WAIT_HYBRID, &e.c), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &other), 0);
        MUST_BE(psyne_claim(e.p, 40, 0, &x), 0);
        MUST_BE(psyne_claim(e.p, 40, 0, &y), 0);
        MUST_BE(psyne_claim(e.p, 40, 0, &z), 0);
        x.type = 1;
        z.type = 2;
        MUST_BE(psyne_abort(e.p, &y), 0);
        MUST_BE(psyne_commit(e.p, &x), 0);
        MUST_BE(psyne_commit(e.p, &z), 0);
        MUST_BE(psyne_recv(e.c, &m, WATCHDOG_NS), 0);
        MUST_BE(m.type, 1);
        MUST_BE(psyne_release(e.c, &m), 0);
        for (uint32_t k = 2; k < 102; k++) { /* more than once round */
                MUST_BE(psyne_recv(other, &m, WATCHDOG_NS), 0);
                MUST_BE(m.type, k);
                MUST_BE(psyne_release(other, &m), 0);
                SEND(&e, k + 1, 40);
        }
        MUST_BE(psyne_recv(e.c, &m, WATCHDOG_NS), 0);
        MUST_BE(m.type, 102);
        MUST_BE(psyne_release(e.c, &m), 0);
        MUST_REFUSE(psyne_recv(e.c, &m, 0), -EAGAIN);
        MUST_BE(psyne_consumer_close(other), 0);
        CLOSE(&e);
        return 0;
}
SHARED(padding_behind, padding_behind, NULL)

/* ---- a batch is released in any order -------------------------------------------------------------------------------- */

static int reversed(struct world *w) {
        struct psyne_msg m[5], r[5];
        struct ends e = {0};

        MUST_BE(world_open(w, "size=4K", &e.ch), 0);
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        for (unsigned n = 2; n <= 5; n++) {
                for (unsigned i = 0; i < n; i++)
                        SEND(&e, i, 10);
                MUST_BE(psyne_recv_n(e.c, m, n, WATCHDOG_NS), n);
                for (unsigned i = 0; i < n; i++)
                        r[i] = m[n - 1 - i];
                MUST_BE(psyne_release_n(e.c, r, n), n);
                MUST_BE(psyne_flush(e.p, WATCHDOG_NS), 0);
                MUST_REFUSE(psyne_release(e.c, &m[0]), -EINVAL);
        }
        CLOSE(&e);
        return 0;
}
SHARED(reversed, reversed, NULL)

/* ---- a producer that came and left before a member looked ------------------------------------------------------------ */

static int unseen_producer(struct world *w) {
        struct psyne_consumer *late;
        struct ends e = {0};
        struct psyne_msg m;

        MUST_BE(world_open(w, "size=4K", &e.ch), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &late), 0);
        MUST_REFUSE(psyne_recv(e.c, &m, 0), -EAGAIN);
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        SEND(&e, 1, 10);
        MUST_BE(psyne_recv(e.c, &m, WATCHDOG_NS), 0);
        MUST_BE(psyne_release(e.c, &m), 0);
        MUST_BE(psyne_producer_close(e.p), 0);
        e.p = NULL;
        MUST_REFUSE(psyne_recv(e.c, &m, WATCHDOG_NS), -EPIPE);
        MUST_REFUSE(psyne_recv(late, &m, WATCHDOG_NS), -EPIPE);
        MUST_BE(psyne_consumer_close(late), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &late), 0); /* nobody came since */
        MUST_REFUSE(psyne_recv(late, &m, 0), -EAGAIN);
        MUST_BE(psyne_consumer_close(late), 0);
        CLOSE(&e);
        return 0;
}
SHARED(unseen_producer, unseen_producer, NULL)

/* ---- a survivor releases what was held in a row that has a new member -------------------------------------------------- */

static int row_reused(struct world *w) {
        struct psyne_consumer *leaves, *joins;
        struct ends e = {0};
        struct psyne_msg m, x;

        MUST_BE(world_open(w, "size=4K", &e.ch), 0);
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &leaves), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        SEND(&e, 1, 10);
        MUST_BE(psyne_recv(leaves, &m, WATCHDOG_NS), 0);
        MUST_BE(psyne_consumer_close(leaves), 0);
        MUST_BE(psyne_recv(e.c, &m, WATCHDOG_NS), 0);
        MUST_BE(m.flags, PSYNE_MSG_REDELIVERED);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &joins), 0);
        MUST_REFUSE(psyne_recv(joins, &x, 0), -EAGAIN);
        MUST_BE(psyne_release(e.c, &m), 0);
        MUST_REFUSE(psyne_recv(joins, &x, 0), -EAGAIN); /* it looks again, and lets the room go */
        MUST_BE(psyne_flush(e.p, WATCHDOG_NS), 0);
        MUST_BE(psyne_consumer_close(joins), 0);
        CLOSE(&e);
        return 0;
}
SHARED(row_reused, row_reused, NULL)
