/* Several producers on one channel: each one's order, whose turn it is, who comes and goes. */
#include "family.h"

#define MANY(family, a, b) FAMILY_MODE(family, a, b, mpsc)

/* A message says whose it is: producer in the upper byte of its type, its number below. */
#define NUMBER(producer, n) ((uint32_t)(producer) << 24 | (n))

static int send_as(struct world *w, struct psyne_producer *p, unsigned producer, uint32_t n) {
        struct ends e = {.p = p};

        SEND(&e, NUMBER(producer, n), n % 200);
        return 0;
}
#define SEND_AS(p, producer, n)                                                                                        \
        do {                                                                                                           \
                if (send_as(w, p, producer, n) < 0)                                                                    \
                        return -1;                                                                                     \
        } while (0)

/* Receives one message, of whoever: the next of that producer. */
static int take_any(struct world *w, struct psyne_consumer *c, uint32_t next[], struct psyne_msg *m) {
        unsigned producer;

        MUST_BE(psyne_recv(c, m, WATCHDOG_NS), 0);
        producer = m->type >> 24;
        MUST_BE(m->type, NUMBER(producer, next[producer]));
        MUST_BE(m->len, next[producer] % 200);
        MUST(pattern_is(m->data, m->len, m->type));
        MUST_BE(m->flags, 0);
        next[producer]++;
        return (int)producer;
}

/* ---- order of each ----------------------------------------------------------------------------------------------- */

#define EACH 3000
#define SENDERS 5

static int each_send(struct world *w) {
        struct ends e = {0};
        struct psyne_producer *p[SENDERS];
        struct random r = random_seeded("producers_order");
        uint32_t sent[SENDERS] = {0};

        MUST_BE(world_open(w, "size=16K", &e.ch), 0);
        for (unsigned i = 0; i < SENDERS; i++)
                MUST_BE(psyne_producer_open(e.ch, NULL, &p[i]), 0);
        world_reach(w, 1);
        AWAIT(2); /* a claim that waits for one lane must not wait for messages of another that nobody reads */
        for (unsigned left = EACH * SENDERS; left; left--) {
                unsigned i = (unsigned)random_below(&r, SENDERS);

                while (sent[i] == EACH)
                        i = (i + 1) % SENDERS;
                SEND_AS(p[i], i, sent[i]++);
        }
        for (unsigned i = 0; i < SENDERS; i++)
                MUST_BE(psyne_producer_close(p[i]), 0);
        CLOSE(&e);
        return 0;
}
static int each_recv(struct world *w) {
        uint32_t next[SENDERS] = {0};
        struct ends e = {0};
        struct psyne_msg m;

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        world_reach(w, 2);
        for (unsigned n = 0; n < EACH * SENDERS; n++) {
                if (take_any(w, e.c, next, &m) < 0)
                        return -1;
                MUST_BE(psyne_release(e.c, &m), 0);
        }
        for (unsigned i = 0; i < SENDERS; i++)
                MUST_BE(next[i], EACH);
        MUST_REFUSE(psyne_recv(e.c, &m, WATCHDOG_NS), -EPIPE);
        CLOSE(&e);
        return 0;
}
MANY(producers_order, each_send, each_recv)

/* ---- turns -------------------------------------------------------------------------------------------------------- */

/* A lane that is never empty gives way after an eighth of a ring, however many others there are. */
static int turns(struct world *w) {
        struct psyne_producer *flood, *quiet[3];
        uint32_t next[4] = {0}, sent = 0;
        struct ends e = {0};
        struct psyne_msg m;

        OPEN_CONSUMER(&e, "size=64K");
        MUST_BE(psyne_producer_open(e.ch, NULL, &flood), 0);
        for (unsigned i = 0; i < 3; i++)
                MUST_BE(psyne_producer_open(e.ch, NULL, &quiet[i]), 0);
        for (uint32_t round = 0; round < 40; round++) {
                unsigned before = 0, seen = 0;

                for (unsigned i = 0; i < 3; i++)
                        SEND_AS(quiet[i], i + 1, round);
                for (; seen < 3; before++) {
                        int who;

                        while (psyne_claim(flood, 40, PSYNE_NOWAIT, &m) == 0) {
                                m.len = sent % 200 < 40 ? sent % 200 : 40;
                                m.type = NUMBER(0, sent++);
                                pattern_fill(m.data, m.len, m.type);
                                MUST_BE(psyne_commit(flood, &m), 0);
                        }
                        MUST_BE(psyne_recv(e.c, &m, WATCHDOG_NS), 0);
                        who = (int)(m.type >> 24);
                        MUST_BE(m.type, NUMBER(who, next[who]));
                        next[who]++;
                        seen += who != 0;
                        MUST_BE(psyne_release(e.c, &m), 0);
                        MUST(before < 3 * (65536 / 8 / 64 + 2)); /* 64 bytes each; the rest of a turn, and two whole ones */
                }
        }
        while (next[0] < sent) {
                MUST_BE(psyne_recv(e.c, &m, WATCHDOG_NS), 0);
                next[0]++;
                MUST_BE(psyne_release(e.c, &m), 0);
        }
        MUST_BE(psyne_producer_close(flood), 0);
        for (unsigned i = 0; i < 3; i++)
                MUST_BE(psyne_producer_close(quiet[i]), 0);
        CLOSE(&e);
        return 0;
}
MANY(turns, turns, NULL)
FAMILY_MODE(turns, turns, NULL, mpmc)

/* ---- coming and going ---------------------------------------------------------------------------------------------- */

#define LIVES 60

/* One stays and streams, others come, send a little and go: more of them than there are lanes. */
static int visitors_send(struct world *w) {
        struct psyne_producer *stays, *visitor;
        struct ends e = {0};
        uint32_t mine = 0, theirs = 0;

        MUST_BE(world_open(w, "size=8K", &e.ch), 0);
        MUST_BE(psyne_producer_open(e.ch, NULL, &stays), 0);
        world_reach(w, 1);
        AWAIT(2);
        for (unsigned life = 0; life < LIVES; life++) {
                MUST_BE(psyne_producer_open(e.ch, NULL, &visitor), 0);
                for (unsigned i = 0; i < 20; i++) {
                        SEND_AS(stays, 0, mine++);
                        SEND_AS(visitor, 1, theirs++); /* one number over all lives: they are read one after another */
                }
                MUST_BE(psyne_producer_close(visitor), 0);
        }
        MUST_BE(psyne_producer_close(stays), 0);
        CLOSE(&e);
        return 0;
}
static int visitors_recv(struct world *w) {
        uint32_t next[2] = {0};
        struct ends e = {0};
        struct psyne_msg m;

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        world_reach(w, 2);
        for (unsigned n = 0; n < 2 * 20 * LIVES; n++) {
                if (take_any(w, e.c, next, &m) < 0)
                        return -1;
                MUST_BE(psyne_release(e.c, &m), 0);
        }
        CLOSE(&e);
        return 0;
}
MANY(visitors, visitors_send, visitors_recv)

/* What was left in a lane is read before what the same sender puts into the next one, which has the lower index here:
 * an empty lane made room for it. A third one's goes on meanwhile. */
static int successor(struct world *w) {
        const struct psyne_producer_opts hasty = {.struct_size = sizeof(hasty), .linger_ns = 1};
        /* One that polls looks at the lanes it knows before it looks for new ones. */
        const struct psyne_consumer_opts block = {.struct_size = sizeof(block), .wait = PSYNE_WAIT_BLOCK};
        struct psyne_producer *other, *room, *p;
        uint32_t next[2] = {0}, sent = 0;
        struct ends e = {0};
        struct psyne_msg m;

        MUST_BE(world_open(w, "size=8K", &e.ch), 0);
        MUST_BE(psyne_consumer_open(e.ch, &block, &e.c), 0);
        MUST_BE(psyne_producer_open(e.ch, NULL, &other), 0);
        for (unsigned life = 0; life < 4; life++) {
                MUST_BE(psyne_producer_open(e.ch, NULL, &room), 0);
                MUST_BE(psyne_producer_open(e.ch, &hasty, &p), 0);
                MUST_BE(psyne_producer_close(room), 0);
                MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EAGAIN);
                for (unsigned i = 0; i < 10; i++)
                        SEND_AS(p, 1, sent++);
                SEND_AS(other, 0, life);
                MUST_BE(psyne_producer_close(p), 0); /* nobody read a thing, but there is a reader */
                MUST_BE(psyne_producer_open(e.ch, &hasty, &p), 0);
                for (unsigned i = 0; i < 10; i++)
                        SEND_AS(p, 1, sent++);
                for (unsigned n = 0; n < 21; n++) {
                        if (take_any(w, e.c, next, &m) < 0)
                                return -1;
                        MUST_BE(psyne_release(e.c, &m), 0);
                }
                MUST_BE(psyne_producer_close(p), 0);
        }
        MUST_BE(psyne_producer_close(other), 0);
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EPIPE);
        CLOSE(&e);
        return 0;
}
MANY(successor, successor, NULL)

/* ---- the limits ----------------------------------------------------------------------------------------------------- */

static int too_many(struct world *w) {
        struct psyne_producer *p[4], *extra = (void *)w;
        struct ends e = {0};

        MUST_BE(world_open(w, "size=4K&producers=4", &e.ch), 0);
        for (unsigned i = 0; i < 4; i++)
                MUST_BE(psyne_producer_open(e.ch, NULL, &p[i]), 0);
        for (unsigned i = 0; i < 20; i++) /* a refusal keeps nothing */
                MUST_REFUSE(psyne_producer_open(e.ch, NULL, &extra), -EUSERS);
        MUST(extra == (void *)w);
        MUST_BE(psyne_producer_close(p[2]), 0);
        MUST_BE(psyne_producer_open(e.ch, NULL, &p[2]), 0);
        for (unsigned i = 0; i < 4; i++)
                MUST_BE(psyne_producer_close(p[i]), 0);
        CLOSE(&e);
        return 0;
}
MANY(producers_limit, too_many, NULL)

static int all_of_them(struct world *w) {
        struct psyne_producer *p[64], *extra;
        uint32_t next[64] = {0};
        struct ends e = {0};
        struct psyne_msg m;

        OPEN_CONSUMER(&e, "size=4K&producers=64");
        for (unsigned i = 0; i < 64; i++)
                MUST_BE(psyne_producer_open(e.ch, NULL, &p[i]), 0);
        MUST_REFUSE(psyne_producer_open(e.ch, NULL, &extra), -EUSERS);
        for (uint32_t n = 0; n < 5; n++)
                for (unsigned i = 0; i < 64; i++)
                        SEND_AS(p[i], i, n);
        for (unsigned n = 0; n < 5 * 64; n++) {
                if (take_any(w, e.c, next, &m) < 0)
                        return -1;
                MUST_BE(psyne_release(e.c, &m), 0);
        }
        for (unsigned i = 0; i < 64; i++)
                MUST_BE(psyne_producer_close(p[i]), 0);
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EPIPE);
        CLOSE(&e);
        return 0;
}
MANY(producers_64, all_of_them, NULL)

/* held_max counts messages of all lanes together, and each may be released at any time, lanes that ended included. */
static int held_of_many(struct world *w) {
        const struct psyne_consumer_opts six = {.struct_size = sizeof(six), .held_max = 6};
        const struct psyne_producer_opts hasty = {.struct_size = sizeof(hasty), .linger_ns = 1};
        struct psyne_producer *p[3];
        uint32_t next[3] = {0};
        struct ends e = {0};
        struct psyne_msg m[6], extra;

        MUST_BE(world_open(w, "size=4K", &e.ch), 0);
        MUST_BE(psyne_consumer_open(e.ch, &six, &e.c), 0);
        for (unsigned i = 0; i < 3; i++) {
                MUST_BE(psyne_producer_open(e.ch, &hasty, &p[i]), 0);
                for (uint32_t n = 0; n < 2; n++)
                        SEND_AS(p[i], i, n);
        }
        for (unsigned i = 0; i < 6; i++)
                if (take_any(w, e.c, next, &m[i]) < 0)
                        return -1;
        MUST_BE(METRIC(e.ch, held), 6);
        SEND_AS(p[1], 1, 2);
        MUST_REFUSE(psyne_recv(e.c, &extra, PSYNE_NOWAIT), -ENOBUFS);
        for (unsigned i = 0; i < 3; i++)
                MUST_BE(psyne_producer_close(p[i]), 0); /* there is a reader: not lost */
        for (unsigned i = 0; i < 6; i++) {
                MUST_BE(psyne_release(e.c, &m[(5 * i + 2) % 6]), 0);
                MUST_BE(METRIC(e.ch, held), 5 - i);
                if (i == 3)
                        break;
        }
        MUST_BE(take_any(w, e.c, next, &extra), 1);
        MUST_REFUSE(psyne_recv(e.c, &m[0], PSYNE_NOWAIT), -EPIPE);
        MUST_BE(psyne_release(e.c, &extra), 0);
        for (unsigned i = 4; i < 6; i++)
                MUST_BE(psyne_release(e.c, &m[(5 * i + 2) % 6]), 0);
        MUST_BE(METRIC(e.ch, held), 0);
        MUST_REFUSE(psyne_release(e.c, &m[(5 * 5 + 2) % 6]), -EINVAL);
        CLOSE(&e);
        return 0;
}
MANY(held_of_many, held_of_many, NULL)

/* A damaged lane is set aside, the others go on: what a producer writes over its own ring harms no other. */
static int one_is_damaged(struct world *w) {
        struct psyne_producer *bad, *good;
        uint32_t next[2] = {0};
        struct ends e = {0};
        struct psyne_msg m, b;

        OPEN_CONSUMER(&e, "size=4K");
        MUST_BE(psyne_producer_open(e.ch, NULL, &bad), 0);
        MUST_BE(psyne_producer_open(e.ch, NULL, &good), 0);
        MUST_BE(psyne_claim(bad, 8, PSYNE_NOWAIT, &b), 0);
        *(uint32_t *)(void *)((char *)b.data - 16) = 24; /* a stride that cannot be */
        SEND_AS(good, 1, 0);
        MUST_BE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EBADMSG);
        MUST_BE(take_any(w, e.c, next, &m) < 0 ? -1 : 1, 1);
        next[1] = 1;
        MUST_BE(psyne_release(e.c, &m), 0);
        for (uint32_t n = 1; n < 300; n++) {
                SEND_AS(good, 1, n);
                MUST_BE(take_any(w, e.c, next, &m), 1);
                MUST_BE(psyne_release(e.c, &m), 0);
        }
        MUST_BE(METRIC(e.ch, damaged_lanes), 1);
        MUST_BE(psyne_producer_close(bad), 0);
        MUST_BE(psyne_producer_close(good), 0);
        CLOSE(&e);
        return 0;
}
MANY(one_is_damaged, one_is_damaged, NULL)
