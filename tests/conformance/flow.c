/* Messages that flow: order, every size, around the ring's end, a full ring, an empty one. */
#include "family.h"

#include <unistd.h>

/* ---- order ------------------------------------------------------------------------------------------------------- */

#define ORDER_N 20000
#define ORDER_BYTES 900

/* Both sides draw the same sizes from one seed. */
static int order_send(struct world *w) {
        struct random r = random_seeded("order");
        struct ends e = {0};

        w->page->words[0] = r.state;
        OPEN_PRODUCER(&e, "size=16K");
        world_reach(w, 1);
        for (uint32_t n = 0; n < ORDER_N; n++) {
                size_t bytes = random_below(&r, ORDER_BYTES);

                if (n % 3)
                        SEND(&e, n, bytes);
                else {
                        char copy[ORDER_BYTES];

                        pattern_fill(copy, bytes, n);
                        MUST_BE(psyne_send(e.p, n, copy, bytes, WATCHDOG_NS), 0);
                }
        }
        CLOSE(&e); /* lingers for the reader */
        return 0;
}

static int order_recv(struct world *w) {
        struct random r;
        struct ends e = {0};
        struct psyne_msg m;

        AWAIT(1);
        r.state = w->page->words[0];
        OPEN_CONSUMER(&e, NULL);
        for (uint32_t n = 0; n < ORDER_N; n++) {
                size_t bytes = random_below(&r, ORDER_BYTES);

                if (n % 5)
                        RECEIVE(&e, n, bytes);
                else {
                        char copy[ORDER_BYTES];
                        uint32_t type;

                        MUST_BE(psyne_recv_copy(e.c, copy, sizeof(copy), &type, WATCHDOG_NS), bytes);
                        MUST_BE(type, n);
                        MUST(pattern_is(copy, bytes, n));
                }
        }
        MUST_REFUSE(psyne_recv(e.c, &m, WATCHDOG_NS), -EPIPE); /* the producer left, all was received */
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        CLOSE(&e);
        return 0;
}
FAMILY(order, order_send, order_recv)

/* ---- sizes: 0 to the largest, with the smallest and the default alignment --------------------------------------- */

static int sizes(struct world *w, bool sender, const char *query) {
        struct psyne_info info = {.struct_size = sizeof(info)};
        struct ends e = {0};
        struct psyne_msg m;

        if (sender) {
                OPEN_PRODUCER(&e, query);
                world_reach(w, 1);
        } else {
                AWAIT(1);
                OPEN_CONSUMER(&e, NULL);
        }
        MUST_BE(psyne_info(e.ch, &info), 0);
        MUST_BE(info.message_max, 4096 - 16 - info.record_align);
        for (size_t bytes = 0; bytes <= info.message_max; bytes++)
                if (sender)
                        SEND(&e, bytes + 7, bytes);
                else
                        RECEIVE(&e, bytes + 7, bytes);
        if (sender) {
                MUST_BE(psyne_flush(e.p, WATCHDOG_NS), 0);
                MUST_REFUSE(psyne_claim(e.p, info.message_max + 1, PSYNE_NOWAIT, &m), -EMSGSIZE);
                MUST_REFUSE(psyne_claim(e.p, SIZE_MAX, PSYNE_NOWAIT, &m), -EMSGSIZE);
                MUST_REFUSE(psyne_claim(e.p, SIZE_MAX - 15, PSYNE_FOREVER, &m), -EMSGSIZE);
                MUST_BE(psyne_claim(e.p, info.message_max, PSYNE_NOWAIT, &m), 0); /* into an empty ring: at any place */
                MUST_BE(psyne_abort(e.p, &m), 0);
        }
        CLOSE(&e);
        return 0;
}

static int sizes16_send(struct world *w) {
        return sizes(w, true, "size=4096&align=16");
}
static int sizes64_send(struct world *w) {
        return sizes(w, true, "size=4096");
}
static int sizes_recv(struct world *w) {
        return sizes(w, false, NULL);
}
FAMILY(sizes_align16, sizes16_send, sizes_recv)
FAMILY(sizes_align64, sizes64_send, sizes_recv)

/* ---- wrap: every length at every place around the end ------------------------------------------------------------ */

/*
 * Laps of one long stride, so that the start moves by one cell a lap: each length of a record meets each distance
 * from the ring's end. The pattern is read through the mirror, in one piece.
 */
static int wrap(struct world *w, bool sender) {
        static const size_t lengths[] = {0, 1, 15, 16, 17, 47, 48, 49, 112, 1000, 2031, 2032, 4000};
        struct ends e = {0};
        uint32_t n = 0;

        if (sender) {
                OPEN_PRODUCER(&e, "size=4096&align=16");
                world_reach(w, 1);
        } else {
                AWAIT(1);
                OPEN_CONSUMER(&e, NULL);
        }
        for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
                for (unsigned place = 0; place < 4096 / 16 + 1; place++) {
                        /* The two together are a lap and one cell. */
                        size_t stride = (lengths[i] + 16 + 15) / 16 * 16, rest = 4096 + 16 - stride;

                        if (sender) {
                                SEND(&e, n, lengths[i]);
                                if (rest > 4000) {
                                        SEND(&e, n + 1, rest / 2 / 16 * 16 - 16);
                                        SEND(&e, n + 2, rest - rest / 2 / 16 * 16 - 16);
                                } else
                                        SEND(&e, n + 1, rest - 16);
                        } else {
                                RECEIVE(&e, n, lengths[i]);
                                if (rest > 4000) {
                                        RECEIVE(&e, n + 1, rest / 2 / 16 * 16 - 16);
                                        RECEIVE(&e, n + 2, rest - rest / 2 / 16 * 16 - 16);
                                } else
                                        RECEIVE(&e, n + 1, rest - 16);
                        }
                        n += 3;
                }
        CLOSE(&e);
        return 0;
}
static int wrap_send(struct world *w) {
        return wrap(w, true);
}
static int wrap_recv(struct world *w) {
        return wrap(w, false);
}
FAMILY(wrap, wrap_send, wrap_recv)

/* ---- full -------------------------------------------------------------------------------------------------------- */

#define FULL_RING 4096

/* One cell of the ring always stays free: 63 records of one cell are all that 64 cells hold. */
static int full_send(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;
        uint64_t blocks;
        int64_t before;
        uint32_t n = 0;
        int r;

        NEAR(AT_ONCE);
        OPEN_PRODUCER(&e, "size=4096&wait=block");
        for (unsigned lap = 0; lap < 3; lap++) {
                AWAIT(2 * lap + (lap > 0)); /* 0, 3, 5: all released */
                for (unsigned i = 0;; i++) {
                        r = psyne_claim(e.p, 48, PSYNE_NOWAIT, &m);
                        if (r < 0) {
                                MUST_BE(r, -EAGAIN);
                                MUST_BE(i, FULL_RING / 64 - 1);
                                break;
                        }
                        pattern_fill(m.data, 48, n);
                        m.type = n++;
                        MUST_BE(psyne_commit(e.p, &m), 0);
                }
                MUST_REFUSE(psyne_claim(e.p, 0, PSYNE_NOWAIT, &m), -EAGAIN);
                MUST_REFUSE(psyne_send(e.p, 0, "x", 1, PSYNE_NOWAIT), -EAGAIN);
                MUST(METRIC(e.ch, full_events) >= lap + 1);
                if (lap == 2)
                        break;
                before = now_ns();
                MUST_REFUSE(psyne_claim(e.p, 48, 20 * MSEC, &m), -ETIME);
                MUST(now_ns() - before >= 20 * MSEC);
                MUST(now_ns() - before < WATCHDOG_NS);
                world_reach(w, 2 * lap + 2); /* 2, 4 */
        }
        /* Blocking: the reader releases only when it sees us asleep, and for longer than a first nap. */
        blocks = METRIC(e.ch, send_blocks);
        w->page->words[0] = blocks;
        w->page->words[2] = (uint64_t)getpid();
        w->page->words[3] = (uint64_t)gettid();
        world_reach(w, 6);
        SEND(&e, n, 48);
        MUST_BE(METRIC(e.ch, send_blocks), blocks + 1);
        MUST(METRIC(e.ch, send_blocked_ns) > 0);
        MUST(METRIC(e.ch, high_water_bytes) > 0);
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        w->page->words[1] = n;
        world_reach(w, 7);
        CLOSE(&e);
        return 0;
}

static int full_recv(struct world *w) {
        struct ends e = {0};
        uint32_t n = 0;

        for (unsigned lap = 0; lap < 2; lap++) {
                AWAIT(2 * lap + 2);
                if (!lap)
                        OPEN_CONSUMER(&e, NULL);
                for (unsigned i = 0; i < FULL_RING / 64 - 1; i++)
                        RECEIVE(&e, n++, 48);
                world_reach(w, 2 * lap + 3);
        }
        AWAIT(6);
        UNTIL(METRIC(e.ch, send_blocks) > w->page->words[0]);
        UNTIL(asleep_for_long((pid_t)w->page->words[2], (pid_t)w->page->words[3]));
        for (unsigned i = 0; i < FULL_RING / 64; i++)
                RECEIVE(&e, n++, 48);
        AWAIT(7);
        MUST_BE(n, w->page->words[1] + 1);
        CLOSE(&e);
        return 0;
}
FAMILY(full, full_send, full_recv)

/* Nobody read anything yet, and one record takes all the room: the exact position counts, not a cached one. */
static int full_largest_send(struct world *w) {
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=4096");
        world_reach(w, 1);
        for (unsigned i = 0; i < 300; i++) {
                SEND(&e, 2 * i, 4016); /* the largest */
                SEND(&e, 2 * i + 1, 0);
        }
        CLOSE(&e);
        return 0;
}
static int full_largest_recv(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        for (unsigned i = 0; i < 300; i++) {
                RECEIVE(&e, 2 * i, 4016);
                RECEIVE(&e, 2 * i + 1, 0);
        }
        CLOSE(&e);
        return 0;
}
FAMILY(full_largest, full_largest_send, full_largest_recv)

/*
 * A reader that released everything and is busy elsewhere: it makes no further call, so whatever it keeps to itself
 * must be readable all the same (PSYNE_NOWAIT sees the room; a blocked sender would wait for ever otherwise).
 */
static int idle_reader_send(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;

        NEAR(AT_ONCE);
        OPEN_PRODUCER(&e, "size=4096");
        SEND(&e, 1, 48); /* less than an eighth of the ring: nothing makes the reader publish it */
        world_reach(w, 1);
        AWAIT(2);
        MUST_BE(psyne_claim(e.p, 4016, PSYNE_NOWAIT, &m), 0);
        pattern_fill(m.data, 4016, 2);
        m.type = 2;
        MUST_BE(psyne_commit(e.p, &m), 0);
        world_reach(w, 3);
        CLOSE(&e);
        return 0;
}
static int idle_reader_recv(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        RECEIVE(&e, 1, 48);
        world_reach(w, 2);
        AWAIT(3);
        RECEIVE(&e, 2, 4016);
        CLOSE(&e);
        return 0;
}
FAMILY(full_idle_reader, idle_reader_send, idle_reader_recv)

/* ---- empty ------------------------------------------------------------------------------------------------------- */

static int empty_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m = {.data = w, .len = 1234}, many[4];
        char copy[8];
        int64_t before;

        OPEN_CONSUMER(&e, "size=4096&wait=block");
        world_reach(w, 1);
        AWAIT(2); /* a producer is there and has sent nothing */
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EAGAIN);
        MUST(m.data == w && m.len == 1234); /* written only on success */
        MUST_REFUSE(psyne_recv_n(e.c, many, 4, PSYNE_NOWAIT), -EAGAIN);
        MUST_REFUSE(psyne_recv_copy(e.c, copy, sizeof(copy), NULL, PSYNE_NOWAIT), -EAGAIN);
        before = now_ns();
        MUST_REFUSE(psyne_recv(e.c, &m, 20 * MSEC), -ETIME);
        MUST(now_ns() - before >= 20 * MSEC);
        MUST(now_ns() - before < WATCHDOG_NS);
        MUST_REFUSE(psyne_recv_n(e.c, many, 4, 1 * MSEC), -ETIME);
        MUST_REFUSE(psyne_recv(e.c, &m, 1), -ETIME);
        w->page->words[0] = METRIC(e.ch, receive_blocks);
        w->page->words[2] = (uint64_t)getpid();
        w->page->words[3] = (uint64_t)gettid();
        world_reach(w, 3);
        RECEIVE(&e, 5, 100);
        world_reach(w, 4);
        MUST_BE(METRIC(e.ch, receive_blocks), w->page->words[0] + 1);
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        CLOSE(&e);
        return 0;
}
static int empty_send(struct world *w) {
        struct ends e = {0};

        NEAR(ONE_COUNT);
        AWAIT(1);
        OPEN_PRODUCER(&e, NULL);
        world_reach(w, 2);
        AWAIT(3);
        UNTIL(METRIC(e.ch, receive_blocks) > w->page->words[0]);
        UNTIL(asleep_for_long((pid_t)w->page->words[2], (pid_t)w->page->words[3]));
        SEND(&e, 5, 100);
        AWAIT(4); /* the message wakes it, not our leaving */
        CLOSE(&e);
        return 0;
}
FAMILY(empty, empty_recv, empty_send)
