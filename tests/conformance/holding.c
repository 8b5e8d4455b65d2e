/* Messages held: any order of release, the limit, and what happens to them when their consumer goes. */
#include "family.h"

static int send_all(struct world *w, uint32_t n, size_t bytes, const char *query) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, query);
        world_reach(w, 1);
        for (uint32_t i = 0; i < n; i++)
                SEND(&e, i, bytes);
        /* A close between two consumers would give up at once. */
        UNTIL(METRIC(e.ch, messages_received) == n);
        CLOSE(&e);
        return 0;
}

/* ---- any order --------------------------------------------------------------------------------------------------- */

#define SCATTER_N 4000

static int scatter_send(struct world *w) {
        return send_all(w, SCATTER_N, 40, "size=8192"); /* 128 cells: held ones stand in the way of new ones */
}
/* Up to 32 may be held in any pattern; above that, too many gaps between them are refused until the oldest goes. */
static int scatter(struct world *w, unsigned held_max) {
        const struct psyne_consumer_opts most = {.struct_size = sizeof(most), .held_max = held_max};
        struct random r = random_seeded("scatter");
        struct psyne_msg held[64];
        struct ends e = {0};
        unsigned n_held = 0;
        uint32_t n = 0, released = 0;

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_BE(psyne_consumer_open(e.ch, &most, &e.c), 0);
        while (released < SCATTER_N) {
                unsigned i = 0;

                if (n_held < held_max && n < SCATTER_N && (n_held == 0 || random_below(&r, 100) < 55)) {
                        /* Without waiting, unless nothing is held: what is held may be what leaves no room. */
                        int got = psyne_recv(e.c, &held[n_held], n_held ? PSYNE_NOWAIT : WATCHDOG_NS);

                        if (got == 0) {
                                MUST_BE(held[n_held].type, n);
                                n++;
                                n_held++;
                                continue;
                        }
                        MUST(got == -EAGAIN || (got == -ENOBUFS && held_max > 32));
                        for (unsigned k = 1; k < n_held; k++)
                                if (held[k].type < held[i].type)
                                        i = k;
                } else
                        i = (unsigned)random_below(&r, n_held);

                /* Still what it was: nothing was overwritten while it was held. */
                MUST(pattern_is(held[i].data, 40, held[i].type));
                MUST_BE(psyne_release(e.c, &held[i]), 0);
                held[i] = held[--n_held];
                released++;
        }
        MUST_BE(METRIC(e.ch, messages_received), SCATTER_N);
        MUST_BE(METRIC(e.ch, held), 0);
        CLOSE(&e);
        return 0;
}
static int scatter32_recv(struct world *w) {
        return scatter(w, 32);
}
static int scatter64_recv(struct world *w) {
        return scatter(w, 64);
}
FAMILY(release_any_order, scatter_send, scatter32_recv)
FAMILY(release_any_order64, scatter_send, scatter64_recv)

/* The space of a message released early is given back only with the ones before it. */
static int early_send(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;

        NEAR(AT_ONCE);
        OPEN_PRODUCER(&e, "size=4096");
        for (uint32_t i = 0; i < 63; i++)
                SEND(&e, i, 48);
        world_reach(w, 1);
        AWAIT(2);
        MUST_REFUSE(psyne_claim(e.p, 48, PSYNE_NOWAIT, &m), -EAGAIN);
        world_reach(w, 3);
        AWAIT(4);
        MUST_BE(psyne_claim(e.p, 48, PSYNE_NOWAIT, &m), 0);
        MUST_BE(psyne_abort(e.p, &m), 0);
        CLOSE(&e);
        return 0;
}
static int early_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m[16];

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        for (uint32_t i = 0; i < 16; i++)
                TAKE(&e, &m[i], i, 48);
        for (unsigned i = 1; i < 16; i++)
                MUST_BE(psyne_release(e.c, &m[i]), 0);
        world_reach(w, 2);
        AWAIT(3);
        MUST_BE(psyne_release(e.c, &m[0]), 0);
        world_reach(w, 4);
        for (uint32_t i = 16; i < 63; i++)
                RECEIVE(&e, i, 48);
        CLOSE(&e);
        return 0;
}
FAMILY(release_early, early_send, early_recv)

/* ---- the limit --------------------------------------------------------------------------------------------------- */

static int limit_send(struct world *w) {
        return send_all(w, 40, 8, "size=8192");
}
static int limit_recv(struct world *w) {
        const struct psyne_consumer_opts four = {.struct_size = sizeof(four), .held_max = 4},
                                         many = {.struct_size = sizeof(many), .held_max = 65},
                                         wrong = {.struct_size = 3};
        struct ends e = {0};
        struct psyne_msg m[64], extra = {.len = 77};

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_REFUSE(psyne_consumer_open(e.ch, &many, &e.c), -EINVAL);
        MUST_REFUSE(psyne_consumer_open(e.ch, &wrong, &e.c), -EINVAL);
        MUST_BE(psyne_consumer_open(e.ch, &four, &e.c), 0);
        for (uint32_t i = 0; i < 4; i++)
                TAKE(&e, &m[i], i, 8);
        UNTIL(METRIC(e.ch, messages_sent) == 40); /* there, so that only the limit can be in the way */
        MUST_BE(METRIC(e.ch, held), 4);
        MUST_REFUSE(psyne_recv(e.c, &extra, PSYNE_NOWAIT), -ENOBUFS);
        MUST_REFUSE(psyne_recv(e.c, &extra, PSYNE_FOREVER), -ENOBUFS); /* waiting would never end */
        MUST_REFUSE(psyne_recv_n(e.c, &extra, 1, PSYNE_NOWAIT), -ENOBUFS);
        MUST_BE(extra.len, 77);
        MUST_BE(psyne_release(e.c, &m[2]), 0); /* in the middle: one fewer is held */
        TAKE(&e, &m[2], 4, 8);
        MUST_REFUSE(psyne_recv(e.c, &extra, PSYNE_NOWAIT), -ENOBUFS);
        for (unsigned i = 0; i < 4; i++)
                MUST_BE(psyne_release(e.c, &m[i]), 0);
        MUST_BE(psyne_recv_n(e.c, m, 64, WATCHDOG_NS) >= 1, 1); /* never more than may be held */
        MUST_BE(METRIC(e.ch, held) <= 4, 1);
        MUST_BE(psyne_consumer_close(e.c), 0); /* gives back what it holds */
        /* The default is 16. */
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        for (uint32_t i = 0; i < 16; i++)
                MUST_BE(psyne_recv(e.c, &m[i], WATCHDOG_NS), 0);
        MUST_REFUSE(psyne_recv(e.c, &extra, PSYNE_NOWAIT), -ENOBUFS);
        MUST_BE(psyne_release_n(e.c, m, 16), 16);
        while (METRIC(e.ch, messages_received) < 40) {
                MUST_BE(psyne_recv(e.c, &m[0], WATCHDOG_NS), 0);
                MUST_BE(psyne_release(e.c, &m[0]), 0);
        }
        CLOSE(&e);
        return 0;
}
FAMILY(held_limit, limit_send, limit_recv)

/* ---- redelivery -------------------------------------------------------------------------------------------------- */

static int again_send(struct world *w) {
        NEAR(ONE_COUNT);
        return send_all(w, 10, 30, "size=4096");
}
/* Held at close: comes again, flagged, before what nobody had. */
static int again_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m[4];
        char small[4];

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        RECEIVE(&e, 0, 30);
        for (uint32_t i = 0; i < 3; i++)
                TAKE(&e, &m[i], i + 1, 30);
        MUST_BE(psyne_release(e.c, &m[0]), 0);
        MUST_BE(psyne_consumer_close(e.c), 0);
        MUST_BE(METRIC(e.ch, messages_received), 2);
        MUST_BE(METRIC(e.ch, held), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        MUST_REFUSE(psyne_recv_copy(e.c, small, sizeof(small), NULL, WATCHDOG_NS), -EMSGSIZE);
        RECEIVE_FLAGGED(&e, 2, 30, PSYNE_MSG_REDELIVERED);
        TAKE(&e, &m[0], 3, 30);
        MUST_BE(m[0].flags, PSYNE_MSG_REDELIVERED);
        /* Once more, and with one that was new. */
        TAKE(&e, &m[1], 4, 30);
        MUST_BE(m[1].flags, 0);
        MUST_BE(psyne_consumer_close(e.c), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        RECEIVE_FLAGGED(&e, 3, 30, PSYNE_MSG_REDELIVERED);
        RECEIVE_FLAGGED(&e, 4, 30, PSYNE_MSG_REDELIVERED);
        for (uint32_t i = 5; i < 10; i++)
                RECEIVE(&e, i, 30);
        MUST(METRIC(e.ch, redelivered) >= 4);
        MUST_BE(METRIC(e.ch, messages_received), 10);
        CLOSE(&e);
        return 0;
}
FAMILY(redelivery, again_send, again_recv)

/* The next consumer is another side's. */
static int handed_over_send(struct world *w) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=4096");
        for (uint32_t i = 0; i < 6; i++)
                SEND(&e, i, 100);
        world_reach(w, 1);
        AWAIT(2);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        RECEIVE_FLAGGED(&e, 1, 100, PSYNE_MSG_REDELIVERED);
        RECEIVE_FLAGGED(&e, 2, 100, PSYNE_MSG_REDELIVERED);
        for (uint32_t i = 3; i < 6; i++)
                RECEIVE(&e, i, 100);
        CLOSE(&e);
        return 0;
}
static int handed_over_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m[3];

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        for (uint32_t i = 0; i < 3; i++)
                TAKE(&e, &m[i], i, 100);
        MUST_BE(psyne_release(e.c, &m[0]), 0);
        CLOSE(&e);
        world_reach(w, 2);
        return 0;
}
FAMILY(redelivery_elsewhere, handed_over_send, handed_over_recv)

/* Messages of a producer that left are still the consumer's, and their release still counts. */
static int left_send(struct world *w) {
        struct ends e = {0};

        for (unsigned round = 0; round < 4; round++) {
                MUST_BE(world_open(w, "size=4096", &e.ch), 0);
                if (round == 0)
                        world_reach(w, 1);
                MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
                for (uint32_t i = 0; i < 3; i++)
                        SEND(&e, 3 * round + i, 200);
                AWAIT(2 + round); /* all three taken, none released: closing must not wait for that */
                MUST_BE(psyne_producer_close(e.p), 0);
                MUST(!psyne_close(e.ch));
                e = (struct ends){0};
        }
        return 0;
}
static int left_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m[12];

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        for (uint32_t i = 0; i < 12; i++) {
                int r;

                while ((r = psyne_recv(e.c, &m[i], WATCHDOG_NS)) == -EPIPE)
                        if (w->page->failed)
                                return -1;
                MUST_BE(r, 0);
                MUST_BE(m[i].type, i);
                if (i % 3 == 2)
                        world_reach(w, 2 + i / 3);
        }
        for (unsigned i = 12; i-- > 0;) {
                MUST(pattern_is(m[i].data, 200, i));
                MUST_BE(psyne_release(e.c, &m[i]), 0);
        }
        MUST_BE(METRIC(e.ch, messages_received), 12);
        CLOSE(&e);
        return 0;
}
FAMILY(held_of_the_gone, left_send, left_recv)
