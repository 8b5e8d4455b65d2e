/*
 * The lane, operation by operation: rings of 4 KiB, where every size and every offset is one loop away. The payload
 * always looks like record headers, so that any word read too early or cleared too little is taken for a message.
 */
#include <criterion/criterion.h>

#include "support.h"

static const uint64_t aligns[] = {16, 64, 128};
#define EACH_ALIGN(a) for (unsigned a##_i = 0, a = 16; a##_i < 3 && (a = (unsigned)aligns[a##_i], true); a##_i++)
#define RING 4096u

static struct fixture f;

/* The three places where arithmetic could go wrong: signed halves, 32-bit truncation, the end of 64 bits. */
static const uint64_t starts[] = {0, (1ull << 32) - 128, (1ull << 63) - 128, UINT64_MAX - 127};

static void expect_clear(const struct lane_span open[], unsigned n, const char *when, uint64_t at) {
        const char *broken = clear_ahead_broken(&f, open, n);

        cr_assert_null(broken, "%s, align %lu, case %lu: %s", when, f.align, at, broken);
}

static struct psyne_msg claim(size_t bytes) {
        struct psyne_msg m;

        cr_assert(lane_claim(&f.tx, bytes, &m), "no room for %zu bytes", bytes);
        cr_assert_eq(m.len, bytes);
        cr_assert_geq(m.cap, bytes);
        return m;
}

static void write_all(struct psyne_msg *m, uint32_t seed) {
        fill_like_records(m->data, m->cap, seed, f.align);
}

static void commit(struct psyne_msg *m, uint32_t seed) {
        m->type = seed;
        cr_assert_eq(lane_commit(&f.tx, m), 0, "%s", error_get());
}

static void send(size_t bytes, uint32_t seed) {
        struct psyne_msg m = claim(bytes);

        write_all(&m, seed);
        commit(&m, seed);
        expect_clear(NULL, 0, "after a commit", seed);
}

static void expect_nothing(void) {
        struct psyne_msg m;
        int r = lane_recv(&f.rx, &m);

        cr_assert_eq(r, 0, "instead of nothing: %d, %s", r, r == 1 ? "a message" : error_get());
}

static struct psyne_msg take(size_t bytes, uint32_t seed, uint32_t flags) {
        struct psyne_msg m;
        int r = lane_recv(&f.rx, &m);

        cr_assert_eq(r, 1, "message %u: %d, %s", seed, r, r ? error_get() : "nothing there");
        cr_assert_eq(m.type, seed, "message %u instead of %u", m.type, seed);
        cr_assert_eq(m.len, bytes, "message %u has %zu bytes instead of %zu", seed, m.len, bytes);
        cr_assert_eq(m.flags, flags, "message %u has flags %u", seed, m.flags);
        cr_assert(is_filled_like(m.data, bytes, seed, f.align), "message %u of %zu bytes is torn", seed, bytes);
        return m;
}

static void release(struct psyne_msg *m) {
        cr_assert_eq(lane_release(&f.rx, m), 0, "%s", error_get());
}

static void receive(size_t bytes, uint32_t seed) {
        struct psyne_msg m = take(bytes, seed, 0);

        release(&m);
}

/* Moves both ends by @bytes, in records of one cell. */
static void advance(uint64_t bytes) {
        for (uint64_t n = 0; n < bytes; n += f.align) {
                send(0, 7);
                receive(0, 7);
        }
}

static uint64_t largest(void) {
        return f.ring - f.align - PSYNE_RECORD_HEADER;
}

/* ---- sizes and the ring's end ------------------------------------------------------------------------------------ */

/*
 * Every size from nothing to the largest, sent and received one by one: the sum of strides walks the start over the
 * ring, so records lie across its end in every way. The reader asks once too often after each.
 */
Test(lane, carries_every_size_across_the_rings_end) {
        EACH_ALIGN(align) {
                fixture_init(&f, RING, align, 0);
                cr_assert_eq(f.tx.hot.bytes_max, largest());
                for (uint32_t bytes = 0; bytes <= largest(); bytes++) {
                        send(bytes, bytes);
                        receive(bytes, bytes);
                        expect_nothing();
                }
                fixture_deinit(&f);
        }
}

/* Every pair (place of the start, small or largest size): two records in flight, the second one behind the mirror. */
Test(lane, carries_the_largest_record_from_every_offset) {
        EACH_ALIGN(align) {
                fixture_init(&f, RING, align, 0);
                for (uint32_t i = 0; i < 2 * RING / align; i++) {
                        send(largest(), i);
                        receive(largest(), i);
                        expect_nothing();
                        advance(align); /* the largest and one cell make a ring: one more moves the start by a cell */
                        advance(align);
                }
                fixture_deinit(&f);
        }
}

/*
 * A ring filled to the last byte that may be used: the cell that stays free is the successor's word. The reader that
 * takes everything must then find nothing, not the first record of the lap before.
 */
Test(lane, keeps_the_successors_cell_in_an_exactly_full_ring) {
        EACH_ALIGN(align) {
                uint32_t cells = RING / align - 1;
                struct psyne_msg m;

                for (uint32_t offset = 0; offset < RING / align; offset++) {
                        fixture_init(&f, RING, align, 0);
                        advance(offset * align);
                        for (uint32_t i = 0; i < cells; i++)
                                send(align - PSYNE_RECORD_HEADER, i);
                        cr_assert_not(lane_claim(&f.tx, 0, &m), "room for a record where the successor's word is");
                        cr_assert_eq(f.tx.hot.frontier, f.tx.hot.limit);
                        for (uint32_t i = 0; i < cells; i++)
                                receive(align - PSYNE_RECORD_HEADER, i);
                        expect_nothing();
                        send(largest(), 1);
                        cr_assert_not(lane_claim(&f.tx, 0, &m));
                        receive(largest(), 1);
                        expect_nothing();
                        fixture_deinit(&f);
                }
        }
}

Test(lane, refuses_what_can_never_fit) {
        struct psyne_msg m;

        fixture_init(&f, RING, 64, 0);
        cr_assert_not(lane_claim(&f.tx, largest() + 1, &m));
        cr_assert_not(lane_claim(&f.tx, SIZE_MAX, &m)); /* its stride would wrap to nothing */
        cr_assert_not(lane_claim(&f.tx, SIZE_MAX - 64, &m));
        m = claim(8);
        cr_assert_eq(lane_tx_resize(&f.tx, &m, largest() + 1), -EMSGSIZE);
        cr_assert_eq(lane_tx_resize(&f.tx, &m, SIZE_MAX), -EMSGSIZE);
        m.len = SIZE_MAX; /* longer than its claim */
        cr_assert_eq(lane_commit(&f.tx, &m), -EINVAL);
        m.len = m.cap + 1;
        cr_assert_eq(lane_commit(&f.tx, &m), -EINVAL);
        m.len = m.cap;
        write_all(&m, 3);
        commit(&m, 3);
        receive(m.cap, 3);
        fixture_deinit(&f);
}

/* A ring that lives through 2^32, 2^63 and 2^64: two laps of mixed sizes start right before each. */
Test(lane, goes_on_where_positions_wrap) {
        for (unsigned s = 0; s < sizeof(starts) / sizeof(starts[0]); s++)
                EACH_ALIGN(align) {
                        fixture_init(&f, RING, align, starts[s]);
                        for (uint32_t i = 0; i < 200; i++) {
                                struct psyne_msg a, b, c, held[3];

                                a = claim(i % 100), b = claim(i % 300), c = claim(i % 500);
                                write_all(&a, i), write_all(&b, i + 1), write_all(&c, i + 2);
                                c.len /= 2;
                                if (i % 5 == 4) {
                                        cr_assert_eq(lane_tx_abort(&f.tx, &b), 0);
                                        commit(&a, i), commit(&c, i + 2);
                                } else
                                        commit(&a, i), commit(&b, i + 1), commit(&c, i + 2);
                                expect_clear(NULL, 0, "near a wrap", i);

                                held[0] = take(i % 100, i, 0);
                                if (i % 5 != 4)
                                        held[1] = take(i % 300, i + 1, 0);
                                held[2] = take(i % 500 / 2, i + 2, 0);
                                expect_nothing();
                                if (i % 2 && i % 5 != 4) /* out of order: the middle, the newest, the oldest */
                                        release(&held[1]), release(&held[2]), release(&held[0]);
                                else {
                                        release(&held[0]);
                                        if (i % 5 != 4)
                                                release(&held[1]);
                                        release(&held[2]);
                                }
                                cr_assert_eq(f.rx.hot.released, f.tx.hot.tail);
                        }
                        fixture_deinit(&f);
                }
}

/* ---- shrink, resize and abort ------------------------------------------------------------------------------------ */

/*
 * A claim filled to its end, then committed smaller, at every offset and for every pair of sizes in cells. The word
 * at the new end was payload; the records that follow end on words that were payload too.
 */
Test(lane, clears_what_a_shrunk_record_leaves) {
        EACH_ALIGN(align) {
                uint32_t cells = RING / align, step = align == 16 ? 37 : 7;

                fixture_init(&f, RING, align, 0);
                for (uint32_t offset = 0; offset < cells; offset++)
                        for (uint32_t from = 1; from < cells; from += from < 6 ? 1 : step)
                                for (uint32_t to = 1; to < from; to += to < 4 ? 1 : step) {
                                        struct psyne_msg m = claim(from * align - PSYNE_RECORD_HEADER);

                                        write_all(&m, from);
                                        m.len = to * align - PSYNE_RECORD_HEADER;
                                        m.len -= m.len && to & 1;
                                        commit(&m, from);
                                        expect_clear(NULL, 0, "after a shrink", to);
                                        receive(m.len, from);
                                        expect_nothing();
                                        if (to < cells - 2) {
                                                send(align, to); /* ends inside what was payload */
                                                receive(align, to);
                                                expect_nothing();
                                        }
                                }
                fixture_deinit(&f);
        }
}

/* Written, then given back, at every offset; what comes next is smaller and ends on the payload that was not sent. */
Test(lane, clears_what_an_aborted_claim_wrote) {
        EACH_ALIGN(align) {
                uint32_t cells = RING / align;

                fixture_init(&f, RING, align, 0);
                for (uint32_t offset = 0; offset < 2 * cells; offset++)
                        for (uint32_t n = 1; n < cells; n += n < 8 ? 1 : cells / 5) {
                                struct psyne_msg m = claim(n * align - PSYNE_RECORD_HEADER);

                                write_all(&m, n);
                                cr_assert_eq(lane_tx_abort(&f.tx, &m), 0);
                                if (n & 1)
                                        psyne_lane_extend(&f.tx.hot, RING);
                                expect_clear(NULL, 0, "after an abort", n);
                                expect_nothing();
                                send(0, n);
                                receive(0, n);
                                expect_nothing();
                        }
                fixture_deinit(&f);
        }
}

/* Each of three open claims is aborted in each order with the others committed: 3! orders x 2^3 choices. */
Test(lane, aborts_the_oldest_the_middle_and_the_newest) {
        static const unsigned orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

        EACH_ALIGN(align)
        for (unsigned o = 0; o < 6; o++)
                for (unsigned choice = 0; choice < 8; choice++) {
                        struct psyne_msg m[3];
                        struct lane_span open[3];

                        fixture_init(&f, RING, align, starts[choice % 4]);
                        advance(3 * align);
                        for (uint32_t i = 0; i < 3; i++) {
                                m[i] = claim(200 + 100 * i);
                                write_all(&m[i], i);
                                open[i] = (struct lane_span){m[i].opaque[0], m[i].opaque[1]};
                        }
                        expect_clear(open, 3, "three open", choice);
                        for (unsigned k = 0; k < 3; k++)
                                if (choice & 1u << orders[o][k]) {
                                        cr_assert_eq(lane_tx_abort(&f.tx, &m[orders[o][k]]), 0);
                                        expect_clear(open, 3, "some aborted", choice);
                                }
                        for (uint32_t i = 0; i < 3; i++)
                                if (!(choice & 1u << i)) {
                                        m[i].len -= i; /* the last may shrink for real */
                                        commit(&m[i], i);
                                }
                        cr_assert_eq(f.tx.hot.head, f.tx.hot.tail, "order %u choice %u", o, choice);
                        cr_assert_eq(f.tx.n_aborted, 0);
                        expect_clear(NULL, 0, "all decided", choice);
                        for (uint32_t i = 0; i < 3; i++)
                                if (!(choice & 1u << i))
                                        receive(200 + 100 * i - i, i);
                        expect_nothing();
                        cr_assert_eq(f.rx.hot.released, f.tx.hot.tail, "padding is released when all is");
                        send(largest(), 9);
                        receive(largest(), 9);
                        fixture_deinit(&f);
                }
}

Test(lane, refuses_a_second_abort_and_too_many_that_wait) {
        struct psyne_msg m[LANE_ABORTED_MAX + 3], copy;

        fixture_init(&f, RING, 64, 0);
        for (unsigned i = 0; i < LANE_ABORTED_MAX + 3; i++)
                m[i] = claim(8);
        copy = m[1];
        cr_assert_eq(lane_tx_abort(&f.tx, &m[1]), 0);
        cr_assert_eq(lane_tx_abort(&f.tx, &m[1]), -EINVAL);
        cr_assert_eq(lane_tx_abort(&f.tx, &copy), -EINVAL); /* messages are values: a copy is the same claim */
        for (unsigned i = 2; i <= LANE_ABORTED_MAX; i++)
                cr_assert_eq(lane_tx_abort(&f.tx, &m[i]), 0);
        cr_assert_eq(lane_tx_abort(&f.tx, &m[LANE_ABORTED_MAX + 1]), -ENOBUFS);
        /* The newest is never in the way. It takes nothing with it: the one that was refused is still open. */
        cr_assert_eq(lane_tx_abort(&f.tx, &m[LANE_ABORTED_MAX + 2]), 0);
        cr_assert_eq(f.tx.n_aborted, LANE_ABORTED_MAX);
        m[LANE_ABORTED_MAX + 1].len = 0;
        cr_assert_eq(lane_tx_abort(&f.tx, &m[LANE_ABORTED_MAX + 1]), 0);
        cr_assert_eq(f.tx.n_aborted, 0, "all older aborted ones are the newest now, one after the other");
        cr_assert_eq(f.tx.hot.head, 64);
        m[0].len = 0;
        commit(&m[0], 5);
        receive(0, 5);
        expect_nothing();
        fixture_deinit(&f);
}

Test(lane, gives_back_every_claim_at_once) {
        struct psyne_msg m[4];

        fixture_init(&f, RING, 64, 0);
        for (unsigned i = 0; i < 4; i++) {
                m[i] = claim(300);
                write_all(&m[i], i);
        }
        cr_assert_eq(lane_tx_abort(&f.tx, &m[1]), 0);
        lane_tx_abort_all(&f.tx);
        expect_clear(NULL, 0, "after all were aborted", 0);
        cr_assert_eq(lane_tx_commit(&f.tx, &m[0]), -EINVAL);
        send(8, 1);
        receive(8, 1);
        expect_nothing();
        fixture_deinit(&f);
}

Test(lane, grows_the_newest_claim_while_there_is_room) {
        struct psyne_msg a, b;

        fixture_init(&f, RING, 64, 0);
        a = claim(10);
        cr_assert_eq(a.cap, 48);
        cr_assert_eq(lane_tx_resize(&f.tx, &a, 48), 0); /* within its cells */
        b = claim(10);
        cr_assert_eq(lane_tx_resize(&f.tx, &a, 49), -ENOSPC, "only the newest can grow");
        cr_assert_eq(lane_tx_resize(&f.tx, &a, 3), 0);
        fill_like_records(b.data, 10, 4, 64);
        cr_assert_eq(lane_tx_resize(&f.tx, &b, RING - 64 - 64 - 16), 0, "%s", error_get());
        cr_assert_eq(b.len, RING - 64 - 64 - 16);
        cr_assert_eq(b.cap, b.len);
        cr_assert(is_filled_like(b.data, 10, 4, 64), "contents are kept");
        cr_assert_eq(lane_tx_resize(&f.tx, &b, b.len + 1), -ENOSPC);
        write_all(&b, 4);
        cr_assert_eq(lane_tx_resize(&f.tx, &b, 100), 0);
        a.len = 0;
        commit(&a, 3);
        commit(&b, 4);
        expect_clear(NULL, 0, "grown, filled and shrunk", 0);
        cr_assert_eq(lane_tx_resize(&f.tx, &b, 1), -EINVAL);
        receive(0, 3);
        receive(100, 4);
        expect_nothing();
        fixture_deinit(&f);
}

/* Growing looks at the exact position before it says no: the reader has released everything and published nothing. */
Test(lane, grows_into_room_that_only_the_exact_position_shows) {
        struct psyne_msg m;

        fixture_init(&f, RING, 64, 0);
        for (uint32_t i = 0; i < 30; i++) {
                send(0, i);
                receive(0, i);
        }
        m = claim(0);
        cr_assert_eq(layout_cursor(&f.view, 0, 0)->published, 0);
        cr_assert_eq(lane_tx_resize(&f.tx, &m, largest()), 0, "%s", error_get());
        write_all(&m, 1);
        commit(&m, 1);
        receive(largest(), 1);
        fixture_deinit(&f);
}

/* ---- order and batches --------------------------------------------------------------------------------------------
 */

Test(lane, refuses_a_second_commit_another_lanes_message_and_the_wrong_order) {
        static struct fixture other;
        struct psyne_msg a, b, copy, theirs, none = {0};

        fixture_init(&other, RING, 64, 0);
        cr_assert(lane_claim(&other.tx, 8, &theirs));
        fixture_init(&f, RING, 64, 0);
        a = claim(8), b = claim(8);
        a.len = b.len = 0;
        cr_assert_eq(lane_commit(&f.tx, &theirs), -EINVAL);
        cr_assert_eq(lane_tx_abort(&f.tx, &theirs), -EINVAL);
        cr_assert_eq(lane_tx_resize(&f.tx, &theirs, 4), -EINVAL);
        cr_assert_eq(lane_tx_commit_n(&f.tx, &theirs, 1), -EINVAL);
        cr_assert_eq(lane_commit(&f.tx, &none), -EINVAL);
        cr_assert_eq(lane_commit(&f.tx, &b), -EINVAL);
        cr_assert_eq(lane_tx_commit_n(&f.tx, &b, 1), -EINVAL);
        expect_nothing();
        copy = a;
        commit(&a, 1);
        cr_assert_eq(lane_commit(&f.tx, &a), -EINVAL);
        cr_assert_eq(lane_tx_abort(&f.tx, &a), -EINVAL);
        cr_assert_eq(lane_commit(&f.tx, &copy), -EINVAL);
        cr_assert_eq(lane_tx_abort(&f.tx, &copy), -EINVAL);
        commit(&b, 2);
        receive(0, 1);
        receive(0, 2);
        expect_nothing();
        fixture_deinit(&f);
        fixture_deinit(&other);
}

/*
 * Batches of every length, at every offset, the last one shrunk, the whole ring once. Nothing is to be seen before
 * the first word is stored: the reader looks between claim and commit.
 */
Test(lane, commits_a_batch_in_order_with_the_last_shrunk) {
        EACH_ALIGN(align) {
                struct psyne_msg m[64];
                uint32_t seed = 0;

                fixture_init(&f, RING, align, 0);
                for (uint32_t round = 0; round < 300; round++) {
                        uint32_t n = 1 + round % 14, cell = align - PSYNE_RECORD_HEADER;

                        lane_tx_refresh(&f.tx, true);
                        cr_assert_eq(lane_tx_claim_n(&f.tx, 2 * align - 16, n, m), n);
                        for (uint32_t i = 0; i < n; i++) {
                                write_all(&m[i], seed + i);
                                m[i].type = seed + i;
                        }
                        if (round & 1)
                                m[n - 1].len = cell;
                        if (round & 2)
                                m[0].len = round & 1 && n == 1 ? cell : 1;
                        expect_nothing();
                        cr_assert_eq(lane_tx_commit_n(&f.tx, m, n), (int)n, "%s", error_get());
                        if (round & 4)
                                psyne_lane_extend(&f.tx.hot, RING);
                        expect_clear(NULL, 0, "after a batch", round);
                        for (uint32_t i = 0; i < n; i++)
                                receive(m[i].len, seed + i);
                        expect_nothing();
                        seed += n;
                }
                fixture_deinit(&f);
        }
}

/*
 * Six claims of different lengths, every choice of aborted ones in both orders, the rest committed as one batch or as
 * two. What was aborted inside is padding by then. Torn in the middle it would be seen at its first record before that
 * one's word is there, so we take that word away again: a dead producer's batch whose last store is missing.
 */
Test(lane, commits_a_batch_around_what_was_aborted) {
        EACH_ALIGN(align)
        for (unsigned choice = 0; choice < 64; choice++)
                for (unsigned way = 0; way < 4; way++) {
                        struct psyne_msg m[6], batch[6];
                        struct lane_span open[6];
                        uint32_t n = 0, first, *word, stride, seen[6];
                        uint64_t start;

                        fixture_init(&f, RING, align, starts[choice % 4]);
                        advance(5 * align);
                        for (uint32_t i = 0; i < 6; i++) {
                                m[i] = claim(100 + 90 * i);
                                write_all(&m[i], i);
                                m[i].type = i;
                                open[i] = (struct lane_span){m[i].opaque[0], m[i].opaque[1]};
                        }
                        for (uint32_t k = 0; k < 6; k++) {
                                uint32_t i = way & 1 ? 5 - k : k;

                                if (choice & 1u << i)
                                        cr_assert_eq(lane_tx_abort(&f.tx, &m[i]), 0);
                        }
                        expect_clear(open, 6, "some aborted", choice);
                        expect_nothing();
                        start = f.tx.hot.tail;
                        for (uint32_t i = 0; i < 6; i++)
                                if (!(choice & 1u << i)) {
                                        m[i].len -= i; /* the last may shrink for real */
                                        seen[n] = i;
                                        batch[n++] = m[i];
                                }
                        first = way & 2 ? n / 2 : n;
                        cr_assert_eq(lane_tx_commit_n(&f.tx, batch, first), (int)first, "choice %x way %u: %s", choice,
                                way, error_get());
                        if (first) {
                                word = &psyne_lane_record(f.tx.hot.base, start, f.tx.hot.mask)->commit;
                                stride = *word;
                                *word = 0;
                                expect_nothing();
                                *word = stride;
                        }
                        for (uint32_t i = 0; i < first; i++)
                                receive(100 + 90 * seen[i] - seen[i], seen[i]);
                        expect_nothing();
                        cr_assert_eq(f.rx.hot.released, f.tx.hot.tail, "what was aborted in it is padding");
                        cr_assert_eq(lane_tx_commit_n(&f.tx, batch + first, n - first), (int)(n - first),
                                "choice %x way %u: %s", choice, way, error_get());
                        cr_assert_eq(f.tx.hot.head, f.tx.hot.tail, "choice %x way %u", choice, way);
                        cr_assert_eq(f.tx.n_aborted, 0);
                        cr_assert_eq(f.tx.hot.line->messages_sent, 5 + n);
                        expect_clear(NULL, 0, "all decided", choice);
                        for (uint32_t i = first; i < n; i++)
                                receive(100 + 90 * seen[i] - seen[i], seen[i]);
                        expect_nothing();
                        cr_assert_eq(f.rx.hot.released, f.tx.hot.tail, "padding is released when all is");
                        send(largest(), 9);
                        receive(largest(), 9);
                        fixture_deinit(&f);
                }
}

/* The reader's death between: what was handed out of such a batch comes again, and its padding does not. */
Test(lane, redelivers_a_batch_around_what_was_aborted) {
        for (uint32_t handed = 0; handed <= 3; handed++) {
                struct psyne_msg m[5], batch[3];
                uint32_t seen[3] = {0, 2, 4};

                fixture_init(&f, RING, 64, UINT64_MAX - 127);
                for (uint32_t i = 0; i < 5; i++) {
                        m[i] = claim(20 + i);
                        write_all(&m[i], i);
                        m[i].type = i;
                }
                cr_assert_eq(lane_tx_abort(&f.tx, &m[1]), 0);
                cr_assert_eq(lane_tx_abort(&f.tx, &m[3]), 0);
                for (uint32_t i = 0; i < 3; i++)
                        batch[i] = m[seen[i]];
                cr_assert_eq(lane_tx_commit_n(&f.tx, batch, 3), 3, "%s", error_get());
                for (uint32_t i = 0; i < handed; i++)
                        (void)take(20 + seen[i], seen[i], 0);
                cr_assert_eq(fixture_reader_dies(&f), 0);
                for (uint32_t i = 0; i < 3; i++) {
                        struct psyne_msg got = take(20 + seen[i], seen[i], i < handed ? PSYNE_MSG_REDELIVERED : 0);

                        release(&got);
                }
                expect_nothing();
                cr_assert_eq(f.rx.hot.line->released, f.tx.hot.tail);
                fixture_deinit(&f);
        }
}

/* A copy of what was aborted is not open, and one that is open must not be left out, next to aborted ones either. */
Test(lane, refuses_a_batch_of_what_was_aborted) {
        struct psyne_msg m[5], copy, batch[3];

        fixture_init(&f, RING, 64, 0);
        cr_assert_eq(lane_tx_claim_n(&f.tx, 0, 5, m), 5);
        copy = m[1];
        cr_assert_eq(lane_tx_abort(&f.tx, &m[1]), 0);
        batch[0] = m[0], batch[1] = copy, batch[2] = m[2];
        cr_assert_eq(lane_tx_commit_n(&f.tx, batch, 3), -EINVAL);
        cr_assert_eq(lane_tx_resize(&f.tx, &copy, 0), -EINVAL);
        batch[1] = m[1];
        cr_assert_eq(lane_tx_commit_n(&f.tx, batch, 3), -EINVAL);
        batch[1] = m[3]; /* behind the aborted one, and one too far */
        cr_assert_eq(lane_tx_commit_n(&f.tx, batch, 2), -EINVAL);
        batch[0] = m[2], batch[1] = m[0];
        cr_assert_eq(lane_tx_commit_n(&f.tx, batch, 2), -EINVAL);
        expect_nothing();
        cr_assert_eq(f.tx.n_aborted, 1);
        batch[0] = m[0], batch[1] = m[2], batch[2] = m[3];
        cr_assert_eq(lane_tx_commit_n(&f.tx, batch, 3), 3);
        cr_assert_eq(f.tx.n_aborted, 0);
        cr_assert_eq(lane_tx_commit_n(&f.tx, &m[4], 1), 1);
        fixture_deinit(&f);
}

Test(lane, refuses_a_batch_with_a_hole_and_commits_none_of_it) {
        struct psyne_msg m[4], holed[3];

        fixture_init(&f, RING, 64, 0);
        cr_assert_eq(lane_tx_claim_n(&f.tx, 0, 4, m), 4);
        holed[0] = m[0], holed[1] = m[2], holed[2] = m[3];
        cr_assert_eq(lane_tx_commit_n(&f.tx, holed, 3), -EINVAL);
        m[1].len = 49; /* more than its cell */
        cr_assert_eq(lane_tx_commit_n(&f.tx, m, 4), -EINVAL);
        m[1].len = 0;
        expect_nothing();
        cr_assert_eq(lane_tx_commit_n(&f.tx, m, 0), 0);
        cr_assert_eq(lane_tx_commit_n(&f.tx, m, 4), 4);
        cr_assert_eq(lane_tx_commit_n(&f.tx, m, 4), -EINVAL);
        cr_assert_eq(f.tx.hot.line->messages_sent, 4);
        fixture_deinit(&f);
}

Test(lane, claims_as_many_of_a_batch_as_fit) {
        struct psyne_msg m[100];

        fixture_init(&f, RING, 64, 0);
        cr_assert_eq(lane_tx_claim_n(&f.tx, 48, 100, m), RING / 64 - 1);
        cr_assert_eq(lane_tx_claim_n(&f.tx, 48, 100, m), 0);
        lane_tx_abort_all(&f.tx);
        fixture_deinit(&f);
}

Test(lane, claims_nothing_once_the_channel_is_stopped) {
        struct psyne_msg m = {0}, open;

        fixture_init(&f, RING, 64, 0);
        open = claim(8);
        f.control->stop = 1 << 2; /* an older generation, running */
        cr_assert(lane_claim(&f.tx, 8, &m));
        cr_assert_eq(lane_tx_abort(&f.tx, &m), 0);
        f.control->stop |= 1;
        cr_assert_not(lane_claim(&f.tx, 8, &m));
        open.len = 0;
        commit(&open, 1); /* what is claimed may still be finished */
        receive(0, 1);
        fixture_deinit(&f);
}

/* ---- release ------------------------------------------------------------------------------------------------------
 */

/* All 120 orders in which five held messages can be released: the exact position is always the oldest one held. */
Test(lane, releases_in_any_order) {
        unsigned at[5];

        for (unsigned code = 0; code < 120; code++) {
                struct psyne_msg m[5];
                bool done[5] = {false};
                unsigned rest = code, order[5], n = 0;

                for (unsigned i = 0; i < 5; i++) { /* the code's digits in the factorial base choose among those left */
                        unsigned pick = rest % (5 - i);

                        rest /= 5 - i;
                        for (unsigned k = 0;; k++)
                                if (!done[k] && pick-- == 0) {
                                        done[k] = true;
                                        order[n++] = k;
                                        break;
                                }
                }
                memset(done, 0, sizeof(done));
                fixture_init(&f, RING, 64, starts[code % 4]);
                for (uint32_t i = 0; i < 5; i++)
                        send(10 * i, i);
                for (uint32_t i = 0; i < 5; i++) {
                        m[i] = take(10 * i, i, 0);
                        at[i] = (unsigned)(m[i].opaque[0] - f.start);
                }
                for (unsigned i = 0; i < 5; i++) {
                        unsigned oldest = 0;
                        struct psyne_msg copy = m[order[i]];

                        release(&m[order[i]]);
                        done[order[i]] = true;
                        cr_assert_eq(lane_release(&f.rx, &m[order[i]]), -EINVAL, "released twice");
                        cr_assert_eq(lane_release(&f.rx, &copy), -EINVAL, "a copy released again");
                        while (oldest < 5 && done[oldest])
                                oldest++;
                        cr_assert_eq(f.rx.hot.line->released - f.start,
                                oldest == 5 ? f.tx.hot.tail - f.start : at[oldest], "order %u", code);
                }
                cr_assert_eq(f.rx.hot.held, 0);
                cr_assert_eq(f.rx.hot.line->messages_received, 5);
                cr_assert_eq(f.rx.hot.line->bytes_received, 100);
                fixture_deinit(&f);
        }
}

Test(lane, refuses_to_release_what_is_not_held) {
        static struct fixture other;
        struct psyne_msg m, theirs, claimed;

        fixture_init(&other, RING, 64, 0);
        cr_assert(lane_claim(&other.tx, 8, &claimed));
        cr_assert_eq(lane_commit(&other.tx, &claimed), 0);
        cr_assert_eq(lane_recv(&other.rx, &theirs), 1);
        fixture_init(&f, RING, 64, 0);
        send(8, 1);
        m = take(8, 1, 0);
        cr_assert_eq(lane_release(&f.rx, &theirs), -EINVAL);
        cr_assert_eq(lane_rx_release_n(&f.rx, &theirs, 1), -EINVAL);
        claimed = claim(8);
        cr_assert_eq(lane_release(&f.rx, &claimed), -EINVAL);
        release(&m);
        m.opaque[2] = f.rx.hot.token;
        cr_assert_eq(lane_release(&f.rx, &m), -EINVAL);
        fixture_deinit(&f);
        fixture_deinit(&other);
}

Test(lane, releases_a_batch_and_says_how_far_it_came) {
        struct psyne_msg m[10];

        fixture_init(&f, RING, 64, 0);
        for (uint32_t i = 0; i < 10; i++)
                send(8, i);
        for (uint32_t i = 0; i < 10; i++)
                m[i] = take(8, i, 0);
        cr_assert_eq(lane_rx_release_n(&f.rx, m, 4), 4);
        cr_assert_eq(f.rx.hot.line->released, 4 * 64);
        cr_assert_eq(lane_rx_release_n(&f.rx, &m[2], 4), -EINVAL, "the first is over");
        release(&m[8]);
        m[6].opaque[2] ^= 1; /* somebody else's */
        cr_assert_eq(lane_rx_release_n(&f.rx, &m[4], 5), 2, "two, then a bad one");
        m[6].opaque[2] ^= 1;
        cr_assert_eq(f.rx.hot.line->released, 6 * 64);
        cr_assert_eq(lane_rx_release_n(&f.rx, &m[6], 2), 2);
        cr_assert_eq(f.rx.hot.line->released, 9 * 64, "the eighth went earlier");
        release(&m[9]);
        cr_assert_eq(f.rx.hot.line->released, f.tx.hot.tail);
        fixture_deinit(&f);
}

Test(lane, hands_out_no_more_than_may_be_held) {
        struct psyne_msg m[20];

        fixture_init(&f, RING, 64, 0);
        cr_assert_eq(lane_rx_init(&f.rx, &f.view, 0, 0, f.reader.base, RING, 3), 0);
        for (uint32_t i = 0; i < 8; i++)
                send(8, i);
        cr_assert_eq(lane_rx_take_n(&f.rx, m, 8), 3);
        cr_assert_eq(lane_recv(&f.rx, &m[3]), -ENOBUFS);
        release(&m[1]);
        cr_assert_eq(lane_recv(&f.rx, &m[3]), 1);
        cr_assert_eq(m[3].type, 3);
        cr_assert_eq(lane_recv(&f.rx, &m[4]), -ENOBUFS);
        release(&m[0]), release(&m[2]), release(&m[3]);
        cr_assert_eq(lane_rx_take_n(&f.rx, m, 8), 3);
        cr_assert_eq(m[0].type, 4);
        fixture_deinit(&f);
}

/* The oldest is kept while hundreds that follow come and go: what is remembered about them must not grow. */
Test(lane, remembers_gaps_within_bounds_while_the_oldest_is_held) {
        struct psyne_msg oldest, m, every[LANE_HELD_MAX];
        uint32_t cells = 4 * RING / 16 - 1, got = 0;
        int r;

        fixture_init(&f, 4 * RING, 16, 0);
        for (uint32_t i = 0; i < cells; i++)
                send(0, i);
        oldest = take(0, 0, 0);
        for (uint32_t i = 1; i < cells; i++) {
                m = take(0, i, 0);
                release(&m);
                cr_assert_leq(f.rx.hot.scattered, 1);
        }
        release(&oldest);
        cr_assert_eq(f.rx.hot.line->released, f.tx.hot.tail);

        /* Every second one is kept, so no two gaps touch: refused before the table is full. */
        for (uint32_t i = 0; i < cells; i++)
                send(0, i);
        for (uint32_t i = 0;; i++) {
                r = lane_recv(&f.rx, &m);
                if (r != 1)
                        break;
                cr_assert_eq(m.type, i);
                if (i & 1)
                        release(&m);
                else
                        every[got++] = m;
                cr_assert_leq(f.rx.hot.scattered + f.rx.hot.held, LANE_HELD_MAX);
        }
        cr_assert_eq(r, -ENOBUFS);
        while (got)
                release(&every[--got]);
        cr_assert_eq(f.rx.hot.scattered, 0);
        cr_assert_eq(f.rx.hot.held_max, LANE_HELD_MAX);
        cr_assert_eq(f.rx.hot.line->released, f.rx.hot.taken);
        fixture_deinit(&f);
}

/* Padding between held messages belongs to nobody: it goes with what is before it, in every order. */
Test(lane, releases_padding_with_what_stood_before_it) {
        for (unsigned order = 0; order < 4; order++) {
                struct psyne_msg m[5], held[3];

                fixture_init(&f, RING, 64, 0);
                for (unsigned i = 0; i < 5; i++) { /* message, padding, message, padding, message */
                        m[i] = claim(100);
                        write_all(&m[i], i);
                }
                cr_assert_eq(lane_tx_abort(&f.tx, &m[1]), 0);
                cr_assert_eq(lane_tx_abort(&f.tx, &m[3]), 0);
                for (uint32_t i = 0; i < 5; i += 2)
                        commit(&m[i], i);
                held[0] = take(100, 0, 0), held[1] = take(100, 2, 0), held[2] = take(100, 4, 0);
                cr_assert_eq(f.rx.hot.line->released, 0);
                if (order == 0)
                        release(&held[0]), release(&held[1]), release(&held[2]);
                else if (order == 1)
                        release(&held[2]), release(&held[1]), release(&held[0]);
                else if (order == 2)
                        release(&held[1]), release(&held[0]), release(&held[2]);
                else
                        cr_assert_eq(lane_rx_release_n(&f.rx, held, 3), 3);
                cr_assert_eq(f.rx.hot.line->released, f.tx.hot.tail, "order %u", order);
                expect_nothing();
                fixture_deinit(&f);
        }
}

/* A lazy copy that lags an eighth behind must not make anybody say "full". */
Test(lane, finds_room_in_the_exact_position_before_it_says_full) {
        struct psyne_msg m;

        fixture_init(&f, RING, 64, 0);
        for (uint32_t i = 0; i < RING / 64 - 1; i++)
                send(48, i);
        receive(48, 0);
        cr_assert_not(psyne_lane_claim(&f.tx.hot, 0, &m));
        lane_tx_refresh(&f.tx, false);
        cr_assert_not(psyne_lane_claim(&f.tx.hot, 0, &m), "not published yet");
        lane_tx_refresh(&f.tx, true);
        cr_assert(psyne_lane_claim(&f.tx.hot, 0, &m));
        cr_assert_eq(lane_tx_abort(&f.tx, &m), 0);
        cr_assert_eq(f.tx.hot.line->high_water, RING - 64);
        cr_assert(lane_rx_publish(&f.rx));
        cr_assert_not(lane_rx_publish(&f.rx), "nothing new to say");
        cr_assert_eq(lane_tx_free_position(&f.tx, false), 64);
        fixture_deinit(&f);
}

/* Two groups, the second one a lap behind: room is what the slower one left. */
Test(lane, waits_for_the_slowest_group) {
        static _Alignas(LANE_HANDLE_ALIGN) struct lane_rx slow;
        struct psyne_msg m;

        fixture_init(&f, RING, 64, 0);
        cr_assert_eq(lane_rx_init(&slow, &f.view, 1, 0, f.reader.base, RING, 16), 0);
        f.control->groups_active = 3;
        for (uint32_t i = 0; i < RING / 64 - 1; i++) {
                send(48, i);
                receive(48, i);
        }
        cr_assert_not(lane_claim(&f.tx, 0, &m));
        cr_assert_eq(lane_recv(&slow, &m), 1);
        cr_assert_eq(m.type, 0);
        cr_assert_eq(lane_release(&slow, &m), 0);
        send(48, 100);
        cr_assert_not(lane_claim(&f.tx, 0, &m));
        f.control->groups_active = 1; /* it leaves */
        send(48, 101);
        receive(48, 100);
        receive(48, 101);
        f.control->groups_active = UINT64_MAX; /* bits of groups that do not exist */
        (void)lane_tx_free_position(&f.tx, true);
        fixture_deinit(&f);
}

/* ---- deaths -------------------------------------------------------------------------------------------------------
 */

/* What a dead reader had been handed and not released comes again, marked; the same if that one dies too. */
Test(lane, redelivers_what_a_dead_reader_held_and_marks_it) {
        for (unsigned s = 0; s < sizeof(starts) / sizeof(starts[0]); s++) {
                struct psyne_msg m[6];

                fixture_init(&f, RING, 64, starts[s]);
                for (uint32_t i = 0; i < 6; i++)
                        send(10 * i, i);
                for (uint32_t i = 0; i < 4; i++)
                        m[i] = take(10 * i, i, 0);
                release(&m[0]);
                release(&m[2]); /* out of order: the cursor cannot say so, it comes again */

                cr_assert_eq(fixture_reader_dies(&f), 0);
                cr_assert_eq(lane_rx_take_n(&f.rx, m, 6), 0, "marked ones take the long way");
                m[1] = take(10, 1, PSYNE_MSG_REDELIVERED);

                cr_assert_eq(fixture_reader_dies(&f), 0); /* the second dies with one of three handed out */
                m[1] = take(10, 1, PSYNE_MSG_REDELIVERED);
                m[2] = take(20, 2, PSYNE_MSG_REDELIVERED);
                release(&m[1]);

                cr_assert_eq(fixture_reader_dies(&f), 0);
                m[2] = take(20, 2, PSYNE_MSG_REDELIVERED);
                m[3] = take(30, 3, PSYNE_MSG_REDELIVERED);
                m[4] = take(40, 4, 0);
                cr_assert_eq(f.rx.hot.held_max, LANE_HELD_MAX, "back to the short way");
                release(&m[3]), release(&m[2]);

                cr_assert_eq(fixture_reader_dies(&f), 0);
                m[4] = take(40, 4, PSYNE_MSG_REDELIVERED);
                m[5] = take(50, 5, 0);
                release(&m[4]), release(&m[5]);
                expect_nothing();

                cr_assert_eq(fixture_reader_dies(&f), 0);
                expect_nothing();
                send(1, 9);
                receive(1, 9);
                fixture_deinit(&f);
        }
}

/* Padding inside, at the end of and behind what the dead one held. */
Test(lane, redelivers_around_padding) {
        for (unsigned aborted = 0; aborted < 16; aborted++)
                for (unsigned handed = 0; handed <= 4; handed++)
                        for (unsigned released = 0; released <= handed; released++) {
                                struct psyne_msg m[5], got[5];
                                uint32_t n = 0, seen[5];

                                fixture_init(&f, RING, 64, UINT64_MAX - 127);
                                for (unsigned i = 0; i < 5; i++) {
                                        m[i] = claim(20);
                                        write_all(&m[i], i);
                                }
                                for (unsigned i = 0; i < 4; i++)
                                        if (aborted & 1u << i)
                                                cr_assert_eq(lane_tx_abort(&f.tx, &m[i]), 0);
                                for (uint32_t i = 0; i < 5; i++)
                                        if (i == 4 || !(aborted & 1u << i)) {
                                                commit(&m[i], i);
                                                seen[n++] = i;
                                        }
                                for (uint32_t i = 0; i < handed && i < n; i++)
                                        got[i] = take(20, seen[i], 0);
                                for (uint32_t i = 0; i < released && i < n; i++)
                                        release(&got[i]);
                                for (unsigned death = 0; death < 2; death++) {
                                        cr_assert_eq(fixture_reader_dies(&f), 0);
                                        for (uint32_t i = released; i < (death ? n : released + 1) && i < n; i++)
                                                got[i] = take(20, seen[i],
                                                        i < handed || (death && i == released) ? PSYNE_MSG_REDELIVERED
                                                                                               : 0);
                                }
                                for (uint32_t i = released; i < n; i++)
                                        release(&got[i]);
                                expect_nothing();
                                cr_assert_eq(f.rx.hot.line->released, f.tx.hot.tail);
                                fixture_deinit(&f);
                        }
}

/*
 * What the dead one had come to ends in padding, and for two laps nothing but padding follows: redelivery is over all
 * the same, and the exact positions go on, or the next death would leave a cursor that nobody believes.
 */
Test(lane, ends_redelivery_over_padding) {
        struct psyne_msg a, b, first;

        fixture_init(&f, RING, 64, 0);
        send(8, 1);
        first = take(8, 1, 0);
        for (uint32_t i = 0; i < 2 * RING / 512; i++) {
                a = claim(512 - PSYNE_RECORD_HEADER), b = claim(8);
                cr_assert_eq(lane_tx_abort(&f.tx, &a), 0);
                cr_assert_eq(lane_tx_abort(&f.tx, &b), 0);
                expect_nothing();
                if (i == 0) {
                        cr_assert_eq(fixture_reader_dies(&f), 0);
                        first = take(8, 1, PSYNE_MSG_REDELIVERED);
                        release(&first);
                        expect_nothing();
                }
        }
        cr_assert_eq(f.rx.hot.line->released, f.tx.hot.tail);
        cr_assert_eq(f.rx.hot.line->taken, f.tx.hot.tail);
        cr_assert_eq(fixture_reader_dies(&f), 0, "%s", error_get());
        send(8, 2);
        receive(8, 2);
        fixture_deinit(&f);
}

Test(lane, refuses_a_cursor_that_is_no_position) {
        struct layout_cursor *c;

        fixture_init(&f, RING, 64, 4096);
        c = layout_cursor(&f.view, 0, 0);
        c->exact.released = 4096, c->exact.taken = 4096 + RING + 64;
        cr_assert_eq(lane_rx_init(&f.rx, &f.view, 0, 0, f.reader.base, RING, 4), -EBADMSG);
        c->exact.taken = 4096 - 64;
        cr_assert_eq(lane_rx_init(&f.rx, &f.view, 0, 0, f.reader.base, RING, 4), -EBADMSG);
        c->exact.taken = c->exact.released = 4096 + 16;
        cr_assert_eq(lane_rx_init(&f.rx, &f.view, 0, 0, f.reader.base, RING, 4), -EBADMSG);
        c->exact.taken = c->exact.released = 4096;
        cr_assert_eq(lane_rx_init(&f.rx, &f.view, 0, 0, f.reader.base, RING, 4), 0);
        fixture_deinit(&f);
}

/* ---- nonsense from the other side ---------------------------------------------------------------------------------
 */

static void expect_damaged(uint64_t at, uint32_t stride, uint32_t bytes, uint64_t kind) {
        struct psyne_record *r = psyne_lane_record(f.writer.base, at, f.tx.hot.mask);
        struct psyne_msg m = {.len = 77};
        int got;

        *r = (struct psyne_record){.commit = stride, .bytes = bytes, .kind = kind};
        cr_assert_not(psyne_lane_recv(&f.rx.hot, &m), "stride %u bytes %u kind %#lx taken", stride, bytes, kind);
        got = lane_rx_take(&f.rx, &m);
        cr_assert_eq(got, -EBADMSG, "stride %u bytes %u kind %#lx: %d", stride, bytes, kind, got);
        cr_assert_eq(m.len, 77, "result touched");
        cr_assert_eq(lane_rx_take_n(&f.rx, &m, 1), 0);
}

/* Headers no producer writes, planted where the next record would be: refused, at the ring's last cell too. */
Test(lane, refuses_damaged_headers_at_every_offset) {
        EACH_ALIGN(align) {
                fixture_init(&f, RING, align, 0);
                for (uint32_t cell = 0; cell < RING / align; cell++) {
                        uint64_t at = f.tx.hot.tail;

                        for (uint32_t stride = 1; stride < align; stride++)
                                expect_damaged(at, stride, 0, 0);
                        expect_damaged(at, align + 1, 0, 0);
                        expect_damaged(at, align + align / 2, 0, 0);
                        expect_damaged(at, RING, 0, 0);
                        expect_damaged(at, RING + align, 0, 0);
                        expect_damaged(at, 2 * RING, 0, 0);
                        expect_damaged(at, UINT32_MAX & ~(align - 1), 0, 0);
                        expect_damaged(at, UINT32_MAX, 0, 0);
                        expect_damaged(at, 1u << 31, 0, 0);
                        expect_damaged(at, align, align - PSYNE_RECORD_HEADER + 1, 0);
                        expect_damaged(at, 4 * align, 4 * align, 0);
                        expect_damaged(at, 4 * align, UINT32_MAX, 0);
                        for (unsigned bit = 33; bit < 64; bit++) {
                                expect_damaged(at, align, 0, 1ull << bit);
                                expect_damaged(at, align, 0, PSYNE_RECORD_PAD | 1ull << bit);
                        }
                        expect_damaged(at, align + 1, 0, PSYNE_RECORD_PAD); /* padding is checked as well */
                        expect_damaged(at, RING, 0, PSYNE_RECORD_PAD);
                        psyne_lane_record(f.writer.base, at, f.tx.hot.mask)->commit = 0;
                        expect_nothing();
                        advance(align);
                }
                fixture_deinit(&f);
        }
}

/* Any 16 bytes at all as a header: whatever the reader makes of them, the message lies within the two maps. */
Test(lane, never_leaves_the_ring_whatever_the_header_says) {
        uint64_t random = random_seed_from_environment(), seed = random;

        fixture_init(&f, RING, 16, 0);
        for (unsigned i = 0; i < 200000; i++) {
                struct psyne_record *r = psyne_lane_record(f.writer.base, f.rx.hot.taken, f.tx.hot.mask);
                struct psyne_msg m;
                uint64_t a = random_next(&random), b = random_next(&random);

                /* Mostly near what is right: few random words come past the first check. */
                r->commit = (uint32_t)(i % 4 ? a % (RING + 64) & ~15u : a);
                r->bytes = (uint32_t)(i % 4 ? b % (RING + 64) : b);
                r->kind = i % 3 == 0 ? a >> 32 : i % 3 == 1 ? PSYNE_RECORD_PAD : b;
                if (lane_recv(&f.rx, &m) == 1) {
                        const unsigned char *at = m.data;
                        unsigned char sum = 0;

                        cr_assert(at >= f.reader.base && m.len <= m.cap && at + m.cap <= f.reader.base + 2 * RING,
                                "seed %lu: %zu bytes at %td", seed, m.len, at - f.reader.base);
                        for (size_t k = 0; k < m.len; k++) /* dies if one of them is not there */
                                sum = (unsigned char)(sum + at[k]);
                        (void)sum;
                        cr_assert_eq(lane_release(&f.rx, &m), 0);
                } else /* walked padding may have led anywhere in the ring: clear, and go on */
                        memset(f.writer.base, 0, RING);
        }
        fixture_deinit(&f);
}

/* Padding all the way round leads back to itself: the look ends all the same, and with something held it is damage. */
Test(lane, ends_a_walk_over_nothing_but_padding, .timeout = 10) {
        struct psyne_msg m;

        for (uint64_t stride = 64; stride < RING; stride *= 2) {
                fixture_init(&f, RING, 64, 0);
                send(8, 1);
                for (uint64_t at = stride == 64 ? 64 : 0; at < RING; at += stride)
                        *psyne_lane_record(f.writer.base, at, f.tx.hot.mask) =
                                (struct psyne_record){.commit = (uint32_t)stride, .kind = PSYNE_RECORD_PAD};
                if (stride == 64) {
                        m = take(8, 1, 0);
                        cr_assert_eq(lane_rx_take(&f.rx, &m), -EBADMSG);
                        cr_assert_leq(f.rx.hot.taken - f.rx.hot.released, RING);
                } else
                        for (unsigned i = 0; i < 10; i++)
                                cr_assert_eq(lane_rx_take(&f.rx, &m), 0);
                fixture_deinit(&f);
        }
}

/* A held record that its producer rewrites while we hold it: releasing goes wrong at worst for that lane. */
Test(lane, survives_a_header_that_changes_while_it_is_held) {
        struct psyne_msg m[4];

        fixture_init(&f, RING, 64, 0);
        for (uint32_t i = 0; i < 4; i++)
                send(8, i);
        for (uint32_t i = 0; i < 4; i++)
                m[i] = take(8, i, 0);
        for (uint64_t at = 0; at < 256; at += 64)
                *psyne_lane_record(f.writer.base, at, f.tx.hot.mask) =
                        (struct psyne_record){.commit = 64, .kind = PSYNE_RECORD_PAD};
        psyne_lane_record(f.writer.base, 192, f.tx.hot.mask)->commit = 2048; /* would lead past what was taken */
        for (uint32_t i = 4; i-- > 0;) {
                int r = lane_release(&f.rx, &m[i]);

                cr_assert(r == 0 || r == -EINVAL);
                cr_assert_leq(f.rx.hot.released - 0, f.rx.hot.taken);
        }
        fixture_deinit(&f);
}

/*
 * Positions that no reader stores, in both the lazy and the exact word: ahead of the tail, more than a ring behind,
 * far away. None of them makes room; the right one does.
 */
Test(lane, makes_no_room_from_positions_that_cannot_be) {
        static const int64_t wrong[] = {1, 64, 128, 4096, 4096 + 64, 1 << 20, INT64_MAX, INT64_MIN, INT64_MIN + 64,
                -4096 - 1, -4096 - 64, -8192, -(1 << 20), -INT64_MAX};

        for (unsigned s = 0; s < sizeof(starts) / sizeof(starts[0]); s++)
                for (unsigned w = 0; w < sizeof(wrong) / sizeof(wrong[0]); w++) {
                        struct layout_cursor *c;
                        struct psyne_msg m;
                        uint64_t limit;

                        fixture_init(&f, RING, 64, starts[s]);
                        c = layout_cursor(&f.view, 0, 0);
                        advance(10 * 64);
                        (void)lane_rx_publish(&f.rx);
                        lane_tx_refresh(&f.tx, true);
                        for (uint32_t i = 0; i < RING / 64 - 1; i++)
                                send(48, i);
                        limit = f.tx.hot.limit;
                        c->published = c->exact.released = f.tx.hot.tail + (uint64_t)wrong[w];
                        lane_tx_refresh(&f.tx, false);
                        lane_tx_refresh(&f.tx, true);
                        cr_assert_eq(f.tx.hot.limit, limit, "tail%+ld moved the limit", wrong[w]);
                        cr_assert_not(lane_claim(&f.tx, 0, &m), "tail%+ld made room", wrong[w]);
                        cr_assert_eq(f.tx.hot.tail - lane_tx_free_position(&f.tx, true), RING);
                        c->published = c->exact.released = f.rx.hot.released;
                        receive(48, 0);
                        cr_assert(lane_claim(&f.tx, 0, &m));
                        cr_assert_eq(lane_tx_abort(&f.tx, &m), 0);
                        fixture_deinit(&f);
                }
}

/* A position that moves back (a reader that joined late, a damaged word) takes nothing away that was given. */
Test(lane, never_lowers_the_limit) {
        struct layout_cursor *c;

        fixture_init(&f, RING, 64, 0);
        c = layout_cursor(&f.view, 0, 0);
        advance(20 * 64);
        lane_tx_refresh(&f.tx, true);
        cr_assert_eq(f.tx.hot.limit, 20 * 64 + RING);
        c->exact.released = 5 * 64;
        lane_tx_refresh(&f.tx, true);
        cr_assert_eq(f.tx.hot.limit, 20 * 64 + RING);
        fixture_deinit(&f);
}

/* Counters go on where the last owner of the index left them. */
Test(lane, counts_over_all_owners_of_an_index) {
        fixture_init(&f, RING, 64, 0);
        send(10, 1), send(20, 2);
        receive(10, 1), receive(20, 2);
        lane_tx_init(&f.tx, &f.view, 0, f.writer.base, f.tx.hot.tail);
        cr_assert_eq(fixture_reader_dies(&f), 0);
        send(30, 3);
        receive(30, 3);
        cr_assert_eq(f.tx.hot.line->messages_sent, 3);
        cr_assert_eq(f.tx.hot.line->bytes_sent, 60);
        cr_assert_eq(f.rx.hot.line->messages_received, 3);
        cr_assert_eq(f.rx.hot.line->bytes_received, 60);
        fixture_deinit(&f);
}
