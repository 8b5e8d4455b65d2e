/* Who comes when: late, again, first, second where one is the limit, or with other ideas about the channel. */
#include "family.h"

/* ---- late join: the default group keeps messages from the channel's creation on ---------------------------------- */

static int late_send(struct world *w) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=8192");
        for (uint32_t i = 0; i < 50; i++)
                SEND(&e, i, i);
        world_reach(w, 1);
        for (uint32_t i = 50; i < 500; i++)
                SEND(&e, i, i);
        CLOSE(&e);
        return 0;
}
static int late_recv(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        for (uint32_t i = 0; i < 500; i++)
                RECEIVE(&e, i, i);
        CLOSE(&e);
        return 0;
}
FAMILY(late_join, late_send, late_recv)

/* ---- either side first ------------------------------------------------------------------------------------------- */

static int receiver_first_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;

        OPEN_CONSUMER(&e, "size=4096");
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EAGAIN); /* never -EPIPE before there was a producer */
        MUST_REFUSE(psyne_recv(e.c, &m, 5 * MSEC), -ETIME);
        world_reach(w, 1);
        RECEIVE(&e, 1, 30);
        RECEIVE(&e, 2, 60);
        CLOSE(&e);
        return 0;
}
static int receiver_first_send(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        OPEN_PRODUCER(&e, NULL);
        SEND(&e, 1, 30);
        SEND(&e, 2, 60);
        CLOSE(&e);
        return 0;
}
FAMILY(receiver_first, receiver_first_recv, receiver_first_send)

static int together(struct world *w, bool sender) {
        for (uint32_t round = 0; round < 30; round++) {
                struct ends e = {0};

                /* Both open at once; one creates, and both must end in the same channel. */
                MUST_BE(world_open(w, "size=4096", &e.ch), 0);
                if (sender) {
                        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
                        SEND(&e, round, 100);
                } else {
                        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
                        RECEIVE(&e, round, 100);
                }
                /* Neither leaves before both are through, nor comes back before both have left. */
                __atomic_fetch_add(&w->page->words[2 * round], 1, __ATOMIC_SEQ_CST);
                UNTIL(__atomic_load_n(&w->page->words[2 * round], __ATOMIC_SEQ_CST) == 2);
                CLOSE(&e);
                __atomic_fetch_add(&w->page->words[2 * round + 1], 1, __ATOMIC_SEQ_CST);
                UNTIL(__atomic_load_n(&w->page->words[2 * round + 1], __ATOMIC_SEQ_CST) == 2);
        }
        return 0;
}
static int together_send(struct world *w) {
        return together(w, true);
}
static int together_recv(struct world *w) {
        return together(w, false);
}
FAMILY(open_together, together_send, together_recv)

/* ---- restart ----------------------------------------------------------------------------------------------------- */

#define RESTARTS 20
#define PER_LIFE 37

static int producer_restart_send(struct world *w) {
        struct ends e = {0};

        for (uint32_t life = 0; life < RESTARTS; life++) {
                OPEN_PRODUCER(&e, "size=4096");
                if (!life) {
                        world_reach(w, 1);
                        MUST_BE(psyne_wait_peers(e.ch, 1, 1, WATCHDOG_NS), 0);
                }
                for (uint32_t i = 0; i < PER_LIFE; i++)
                        SEND(&e, life * PER_LIFE + i, (life * 7 + i) % 300);
                CLOSE(&e);
        }
        return 0;
}
static int producer_restart_recv(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        for (uint32_t n = 0; n < RESTARTS * PER_LIFE;) {
                struct psyne_msg m;
                int r = psyne_recv(e.c, &m, WATCHDOG_NS);

                if (r == -EPIPE) { /* clears when the next one joins */
                        if (w->page->failed)
                                return -1;
                        continue;
                }
                MUST_BE(r, 0);
                MUST_BE(m.type, n);
                MUST_BE(m.len, (n / PER_LIFE * 7 + n % PER_LIFE) % 300);
                MUST(pattern_is(m.data, m.len, n));
                MUST_BE(m.flags, 0);
                MUST_BE(psyne_release(e.c, &m), 0);
                n++;
        }
        CLOSE(&e);
        return 0;
}
FAMILY(producer_restart, producer_restart_send, producer_restart_recv)

static int consumer_restart_send(struct world *w) {
        struct ends e = {0};

        NEAR("what has come lies in the channel that the reader closes");
        OPEN_PRODUCER(&e, "size=4096");
        world_reach(w, 1);
        for (uint32_t n = 0; n < RESTARTS * PER_LIFE; n++)
                for (;;) {
                        char copy[300];
                        int r;

                        pattern_fill(copy, n % 300, n);
                        r = psyne_send(e.p, n, copy, n % 300, WATCHDOG_NS);
                        if (r == 0)
                                break;
                        MUST_BE(r, -EPIPE); /* full, and between two readers */
                        MUST_BE(psyne_wait_peers(e.ch, 1, 1, WATCHDOG_NS), 0);
                }
        UNTIL(METRIC(e.ch, messages_received) == RESTARTS * PER_LIFE);
        CLOSE(&e);
        return 0;
}
static int consumer_restart_recv(struct world *w) {
        struct ends e = {0};
        uint32_t n = 0;

        AWAIT(1);
        for (uint32_t life = 0; life < RESTARTS; life++) {
                OPEN_CONSUMER(&e, NULL);
                for (uint32_t i = 0; i < PER_LIFE; i++, n++)
                        RECEIVE(&e, n, n % 300);
                CLOSE(&e);
        }
        return 0;
}
FAMILY(consumer_restart, consumer_restart_send, consumer_restart_recv)

/* A consumer that is busy elsewhere sees nothing of it: producers come and go, more of them than there are lanes. */
static int restart_unseen(struct world *w) {
        struct ends e = {0};

        OPEN_CONSUMER(&e, "size=4096");
        for (unsigned life = 0; life < 100; life++) {
                MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
                MUST_BE(psyne_producer_close(e.p), 0);
        }
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        SEND(&e, 1, 10);
        RECEIVE(&e, 1, 10);
        CLOSE(&e);
        return 0;
}
FAMILY(producer_restart_unseen, restart_unseen, NULL)

/* ---- one is the limit -------------------------------------------------------------------------------------------- */

static int second_holder(struct world *w) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=4096");
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        world_reach(w, 1);
        AWAIT(2);
        SEND(&e, 1, 10); /* unharmed */
        RECEIVE(&e, 1, 10);
        CLOSE(&e);
        world_reach(w, 3);
        AWAIT(4);
        return 0;
}
static int second_comer(struct world *w) {
        struct ends e = {0};
        struct psyne_producer *p = (void *)w;
        struct psyne_consumer *c = (void *)w;

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        for (unsigned i = 0; i < 30; i++) { /* more often than there are slots: a refusal keeps none */
                if (!w->mode->many_producers)
                        MUST_REFUSE(psyne_producer_open(e.ch, NULL, &p), -EBUSY);
                if (!w->mode->many_consumers)
                        MUST_REFUSE(psyne_consumer_open(e.ch, NULL, &c), -EBUSY);
        }
        MUST(p == (void *)w && c == (void *)w);
        world_reach(w, 2);
        AWAIT(3);
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        SEND(&e, 2, 10);
        RECEIVE(&e, 2, 10);
        world_reach(w, 4);
        CLOSE(&e);
        return 0;
}
FAMILY(second_is_busy, second_holder, second_comer)

/* ---- other ideas ------------------------------------------------------------------------------------------------- */

static int mismatch_first(struct world *w) {
        struct psyne_info info = {.struct_size = sizeof(info)};
        struct ends e = {0};

        MUST_BE(world_open(w, "size=64K&align=128&producers=3&consumers=5&type=7&elem=24&hash=99", &e.ch), 0);
        MUST_BE(psyne_info(e.ch, &info), 0);
        MUST_BE(info.mode, w->mode->mode);
        MUST_BE(info.ring_bytes, 65536);
        MUST_BE(info.record_align, 128);
        MUST_BE(info.max_producers, 3);
        MUST_BE(info.max_consumers, 5);
        MUST_BE(info.message_max, 65536 - 128 - 16);
        world_reach(w, 1);
        AWAIT(2);
        CLOSE(&e);
        return 0;
}
static int mismatch_second(struct world *w) {
        static const struct {
                const char *query, *have, *asked; /* the sentence names both values */
        } rows[] = {
                {"size=128K", "65536", "131072"},
                {"size=65537", "65536", "131072"}, /* rounded up first */
                {"align=64", "128", "64"},
                {"producers=4", "3", "4"},
                {"consumers=4", "5", "4"},
                {"type=8", "7", "8"},
                {"elem=25", "24", "25"},
                {"hash=100", "99", "100"},
        };
        struct psyne_channel *ch = (void *)w, *again;
        struct psyne_info info = {.struct_size = sizeof(info)};
        struct ends e = {0};
        unsigned files;

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0); /* asks nothing, adopts all */
        files = count_files(w->dir);
        for (unsigned round = 0; round < 3; round++)
                for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                        char uri[160];

                        MUST_REFUSE(world_open(w, rows[i].query, &ch), -EMEDIUMTYPE);
                        MUST(strstr(psyne_last_error(), rows[i].have) && strstr(psyne_last_error(), rows[i].asked));
                        MUST(ch == (void *)w);
                        snprintf(uri, sizeof(uri), "%s?%s", w->uri, rows[i].query);
                        MUST_REFUSE(psyne_open(uri, NULL, &ch), -EMEDIUMTYPE);
                }
        MUST_REFUSE(psyne_open(w->uri, PSYNE_OPTS(.type_id = 8), &ch), -EMEDIUMTYPE);
        MUST_REFUSE(psyne_open(w->uri, PSYNE_OPTS(.elem_bytes = 8), &ch), -EMEDIUMTYPE);
        MUST_REFUSE(psyne_open(w->uri, PSYNE_OPTS(.type_hash = 8), &ch), -EMEDIUMTYPE);
        MUST_REFUSE(psyne_open(w->uri, PSYNE_OPTS(.ring_bytes = 1 << 20), &ch), -EMEDIUMTYPE);
        for (enum psyne_mode m = PSYNE_SPSC; m <= PSYNE_BROADCAST; m++)
                if (m != w->mode->mode) { /* one that is not built is refused as that */
                        int r = psyne_open(w->uri, PSYNE_OPTS(.mode = m), &ch);

                        MUST(r == -EMEDIUMTYPE || r == -ENOTSUP);
                }
        MUST_BE(count_files(w->dir), files);
        /* The same wishes in other words are none. */
        MUST_BE(world_open(w, "size=65536&align=128&type=7&elem=24&hash=0x63&producers=3&consumers=5", &again), 0);
        MUST_BE(psyne_info(again, &info), 0);
        MUST_BE(info.ring_bytes, 65536);
        MUST(!psyne_close(again));
        /* The query wins over the struct. */
        MUST_BE(psyne_open(strcat(strcpy((char[200]){0}, w->uri), "?type=7"), PSYNE_OPTS(.type_id = 8), &again), 0);
        MUST(!psyne_close(again));
        world_reach(w, 2);
        CLOSE(&e);
        return 0;
}
FAMILY(mismatch, mismatch_first, mismatch_second)
