/* Receiving by type, the newest only, by handlers; and what a sender does that finds no room. */
#include "family.h"

/* In a shared group what is put back stays claimed: the next receive of the same member gets it. */
static unsigned put_back(const struct world *w) {
        return w->mode->many_consumers && !w->mode->each_sees_all;
}

/* ---- by type ------------------------------------------------------------------------------------------------------ */

static int types_send(struct world *w) {
        struct ends e = {0};

        NEAR(AT_ONCE);
        OPEN_PRODUCER(&e, "size=4K");
        for (uint32_t i = 0; i < 20; i++)
                SEND(&e, i, 10);
        world_reach(w, 1);
        AWAIT(2);
        CLOSE(&e);
        return 0;
}
static int types_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m = {.len = 77};

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        MUST_REFUSE(psyne_recv_type(e.c, 1, &m, WATCHDOG_NS), -EMEDIUMTYPE);
        MUST(strstr(psyne_last_error(), "type 0"));
        MUST_BE(m.len, 77);
        MUST_BE(METRIC(e.ch, held), put_back(w));
        MUST_BE(psyne_recv_type(e.c, 0, &m, WATCHDOG_NS), 0);
        for (uint32_t i = 1; i < 20; i++) { /* refused as often as one likes, and with one held */
                struct psyne_msg next;

                for (unsigned k = 0; k < 5; k++)
                        MUST_REFUSE(psyne_recv_type(e.c, 100, &next, PSYNE_NOWAIT), -EMEDIUMTYPE);
                MUST_BE(psyne_recv_type(e.c, i, &next, PSYNE_NOWAIT), 0);
                MUST(pattern_is(next.data, 10, i));
                MUST_BE(psyne_release(e.c, &m), 0);
                m = next;
        }
        MUST_BE(psyne_release(e.c, &m), 0);
        MUST_REFUSE(psyne_recv_type(e.c, 0, &m, PSYNE_NOWAIT), -EAGAIN);
        MUST_REFUSE(psyne_recv_type(NULL, 0, &m, PSYNE_NOWAIT), -EINVAL);
        MUST_REFUSE(psyne_recv_type(e.c, 0, NULL, PSYNE_NOWAIT), -EINVAL);
        MUST_BE(METRIC(e.ch, messages_received), 20);
        world_reach(w, 2);
        CLOSE(&e);
        return 0;
}
FAMILY(recv_type, types_send, types_recv)

/* ---- the newest ---------------------------------------------------------------------------------------------------- */

static int latest(struct world *w) {
        const struct psyne_consumer_opts one = {.struct_size = sizeof(one), .held_max = 1};
        struct ends e = {0};
        struct psyne_msg m;
        uint32_t sent = 0;

        OPEN_PRODUCER(&e, "size=8K");
        for (unsigned round = 0; round < 2; round++) {
                /* With a limit of one it has to let go of one before it can look at the next. */
                MUST_BE(psyne_consumer_open(e.ch, round ? &one : NULL, &e.c), 0);
                MUST_REFUSE(psyne_recv_latest(e.c, &m), -EAGAIN);
                for (uint32_t burst = 1; burst < 100; burst = burst * 2 + 1) {
                        for (uint32_t i = 0; i < burst; i++, sent++)
                                SEND(&e, sent, 20);
                        MUST_BE(psyne_recv_latest(e.c, &m), 0);
                        MUST_BE(m.type, sent - 1);
                        MUST_BE(m.lost, burst - 1);
                        MUST(pattern_is(m.data, 20, sent - 1));
                        MUST_BE(METRIC(e.ch, held), 1);
                        MUST_BE(psyne_release(e.c, &m), 0);
                        MUST_REFUSE(psyne_recv_latest(e.c, &m), -EAGAIN);
                }
                MUST_BE(psyne_consumer_close(e.c), 0);
                e.c = NULL;
        }
        MUST_BE(METRIC(e.ch, messages_received), sent);
        MUST_REFUSE(psyne_recv_latest(NULL, &m), -EINVAL);
        CLOSE(&e);
        return 0;
}
FAMILY(recv_latest, latest, NULL)

/* ---- handlers ------------------------------------------------------------------------------------------------------ */

struct seen {
        uint32_t n, last;
        struct psyne_msg kept[4];
        uint32_t n_kept;
};

static int on_even(void *ctx, struct psyne_msg *m) {
        struct seen *s = ctx;

        s->n++;
        s->last = *(const uint32_t *)m->data;
        return 0;
}
static int on_kept(void *ctx, struct psyne_msg *m) {
        struct seen *s = ctx;

        s->kept[s->n_kept++] = *m;
        return 1;
}
static int on_stop(void *ctx, struct psyne_msg *m) {
        (void)ctx, (void)m;
        return -ECANCELED;
}

static int send_typed(struct world *w, struct psyne_producer *p, uint32_t type, uint32_t value) {
        MUST_BE(psyne_send(p, type, &value, sizeof(value), PSYNE_NOWAIT), 0);
        return 0;
}

static int handlers(struct world *w) {
        struct seen even = {0}, kept = {0}, any = {0};
        const struct psyne_handler table[] = {{2, on_even, &even}, {3, on_kept, &kept}, {4, on_stop, NULL}},
                                   with_any[] = {{2, on_even, &even}, {PSYNE_ANY_TYPE, on_even, &any}};
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=4K");
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        MUST_REFUSE(psyne_dispatch(e.c, table, 3, 10, PSYNE_NOWAIT), -EAGAIN);
        MUST_REFUSE(psyne_dispatch(e.c, table, 0, 10, PSYNE_NOWAIT), -EINVAL);
        MUST_REFUSE(psyne_dispatch(e.c, table, 3, 0, PSYNE_NOWAIT), -EINVAL);
        for (uint32_t i = 0; i < 10; i++)
                if (send_typed(w, e.p, 2, i) < 0)
                        return -1;
        MUST_BE(psyne_dispatch(e.c, table, 3, 4, WATCHDOG_NS), 4); /* the budget */
        MUST_BE(even.n, 4);
        MUST_BE(psyne_dispatch(e.c, table, 3, 100, WATCHDOG_NS), 6); /* all there is, and no waiting for more */
        MUST_BE(even.last, 9);
        if (send_typed(w, e.p, 3, 1) < 0 || send_typed(w, e.p, 2, 2) < 0 || send_typed(w, e.p, 9, 3) < 0)
                return -1;
        MUST_BE(psyne_dispatch(e.c, table, 3, 100, PSYNE_NOWAIT), 2); /* up to the one without a handler */
        MUST_BE(METRIC(e.ch, held), 1 + put_back(w));
        MUST_REFUSE(psyne_dispatch(e.c, table, 3, 100, PSYNE_NOWAIT), -EMEDIUMTYPE);
        MUST_BE(psyne_dispatch(e.c, with_any, 2, 100, PSYNE_NOWAIT), 1);
        MUST_BE(any.last, 3);
        MUST_BE(psyne_release(e.c, &kept.kept[0]), 0);
        if (send_typed(w, e.p, 2, 7) < 0 || send_typed(w, e.p, 4, 8) < 0 || send_typed(w, e.p, 2, 9) < 0)
                return -1;
        MUST_BE(psyne_dispatch(e.c, table, 3, 100, PSYNE_NOWAIT), 1); /* the handler that ends it is not counted */
        MUST_BE(psyne_dispatch(e.c, table, 3, 100, PSYNE_NOWAIT), 1);
        MUST_BE(even.last, 9);
        if (send_typed(w, e.p, 4, 8) < 0)
                return -1;
        MUST_BE(psyne_dispatch(e.c, table, 3, 100, PSYNE_NOWAIT), -ECANCELED);
        MUST_BE(METRIC(e.ch, messages_received), METRIC(e.ch, messages_sent));
        CLOSE(&e);
        return 0;
}
FAMILY(dispatch, handlers, NULL)

/* ---- no room ------------------------------------------------------------------------------------------------------- */

static enum psyne_full ask(void *ctx) {
        unsigned *asked = ctx;

        return ++*asked % 2 ? PSYNE_FULL_DROP : PSYNE_FULL_FAIL;
}

static int no_room(struct world *w) {
        unsigned asked = 0;
        const struct psyne_producer_opts fails = {.struct_size = sizeof(fails), .full = PSYNE_FULL_FAIL, .linger_ns = 1},
                                         drops = {.struct_size = sizeof(drops), .full = PSYNE_FULL_DROP, .linger_ns = 1},
                                         asks = {.struct_size = sizeof(asks), .on_full = ask, .on_full_ctx = &asked,
                                                 .linger_ns = 1};
        struct ends e = {0};
        struct psyne_msg m;
        unsigned sent = 0;

        MUST_BE(world_open(w, "size=4K", &e.ch), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        MUST_BE(psyne_producer_open(e.ch, &fails, &e.p), 0);
        while (psyne_send(e.p, sent, "0123456789", 10, PSYNE_FOREVER) == 0) /* for ever is not meant */
                sent++;
        MUST_BE(sent, 4096 / 64 - 1);
        MUST_REFUSE(psyne_claim(e.p, 10, PSYNE_FOREVER, &m), -EAGAIN);
        MUST_BE(METRIC(e.ch, dropped), 0);
        MUST_BE(psyne_recv(e.c, &m, PSYNE_NOWAIT), 0);
        MUST_BE(psyne_release(e.c, &m), 0);
        MUST_BE(psyne_send(e.p, sent++, "0123456789", 10, PSYNE_NOWAIT), 0); /* room that was not published */
        MUST_BE(psyne_producer_close(e.p), 0);

        MUST_BE(psyne_producer_open(e.ch, &drops, &e.p), 0);
        for (unsigned i = 0; i < 100; i++)
                MUST_BE(psyne_send(e.p, i, "0123456789", 10, PSYNE_FOREVER), 0);
        MUST_BE(METRIC(e.ch, dropped), 100 - (4096 / 64 - 1));
        MUST_REFUSE(psyne_claim(e.p, 10, PSYNE_FOREVER, &m), -EAGAIN);
        MUST_BE(METRIC(e.ch, dropped), 100 - (4096 / 64 - 1) + 1);
        MUST_REFUSE(psyne_send(e.p, 1, NULL, 1 << 20, PSYNE_NOWAIT), -EINVAL);
        MUST_BE(psyne_producer_close(e.p), 0);

        MUST_BE(psyne_producer_open(e.ch, &asks, &e.p), 0);
        while (psyne_send(e.p, 0, "0123456789", 10, PSYNE_FOREVER) == 0 && !asked)
                ;
        MUST_BE(asked, 1);
        MUST_REFUSE(psyne_send(e.p, 0, "0123456789", 10, PSYNE_FOREVER), -EAGAIN);
        MUST_BE(psyne_send(e.p, 0, "0123456789", 10, PSYNE_FOREVER), 0);
        MUST_BE(asked, 3);
        MUST_BE(METRIC(e.ch, dropped), 100 - (4096 / 64 - 1) + 3);
        MUST_BE(METRIC(e.ch, send_blocks), 2); /* at the closes: nobody ever waited for room */
        while (psyne_recv(e.c, &m, PSYNE_NOWAIT) == 0)
                MUST_BE(psyne_release(e.c, &m), 0);
        CLOSE(&e);
        return 0;
}
FAMILY(no_room, no_room, NULL)
