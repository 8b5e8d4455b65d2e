/* Elements in batches (psyne/batch.h): how many make a message, when they go, and that none is lost. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include <psyne/batch.h>
#include <psyne/info.h>

#include "ends.h"

#define MSEC 1000000ll

static struct psyne_batcher b;

TestSuite(batch, .init = open_default, .fini = close_channel);

static int64_t now(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000 * MSEC + t.tv_nsec;
}

static uint32_t next_sent, next_got;

static int add(void) {
        int r = psyne_batcher_add(&b, &next_sent, PSYNE_NOWAIT);

        next_sent += r == 0;
        return r;
}

/* The next message's elements, which are the ones that are due. 0: there is no message. */
static size_t take(struct psyne_msg *keep) {
        struct psyne_msg m;
        struct psyne_u32vec v;
        int r = psyne_recv(c, &m, PSYNE_NOWAIT);

        if (r == -EAGAIN || r == -EPIPE)
                return 0;
        cr_assert_eq(r, 0);
        cr_assert_eq(psyne_u32vec_of(&m, &v), 0);
        for (size_t i = 0; i < v.len; i++)
                cr_assert_eq(v.data[i], next_got++);
        if (keep)
                *keep = m;
        else
                cr_assert_eq(psyne_release(c, &m), 0);
        return v.len;
}

Test(batch, a_message_is_full_with_so_many) {
        cr_assert_eq(psyne_batcher_init(&b, p, PSYNE_U32, PSYNE_BATCHER_OPTS(.max_items = 10, .type = 5)), 0);
        cr_expect_eq(psyne_batcher_flush(&b), 0);
        for (unsigned i = 0; i < 25; i++)
                cr_assert_eq(add(), 0);
        cr_expect_eq(take(NULL), 10u);
        cr_expect_eq(take(NULL), 10u);
        cr_expect_eq(take(NULL), 0u);
        cr_expect_eq(psyne_batcher_deinit(&b), 5, "nothing is lost at the end");
        cr_expect_eq(take(NULL), 5u);
        cr_expect(b.messages == 3 && b.total_items == 25);
        cr_expect_eq(add(), -EINVAL, "it is over");
        cr_expect_eq(psyne_send(p, 0, NULL, 0, PSYNE_NOWAIT), 0, "the producer is free again");
}

Test(batch, one_at_a_time) {
        cr_assert_eq(psyne_batcher_init(&b, p, PSYNE_U32, PSYNE_BATCHER_OPTS(.max_items = 1)), 0);
        for (unsigned i = 0; i < 3; i++) {
                cr_assert_eq(add(), 0);
                cr_expect_eq(take(NULL), 1u);
        }
        (void)psyne_batcher_deinit(&b);
}

Test(batch, refuses_nonsense) {
        cr_expect_eq(psyne_batcher_init(&b, p, (enum psyne_dtype)0, NULL), -EINVAL);
        cr_expect_eq(psyne_batcher_init(&b, p, PSYNE_U32, PSYNE_BATCHER_OPTS(.adaptive = 2)), -EINVAL);
        cr_expect_eq(psyne_batcher_init(&b, p, PSYNE_U32, PSYNE_BATCHER_OPTS(.max_delay_ns = -1)), -EINVAL);
        cr_expect_eq(psyne_batcher_init(&b, p, PSYNE_U32, PSYNE_BATCHER_OPTS(.max_items = SIZE_MAX)), -EINVAL);
        cr_expect_eq(psyne_batcher_init(&b, p, PSYNE_U32, &(struct psyne_batcher_opts){0}), -EINVAL);
        cr_assert_eq(psyne_batcher_init(&b, p, PSYNE_U32, NULL), 0);
        cr_expect_eq(psyne_batcher_add(&b, NULL, PSYNE_NOWAIT), -EINVAL);
        cr_expect_eq(psyne_batcher_deinit(&b), 0);
}

/* The upstream tutorial's looks at the time in add() only, and counts from the last send: an idle stream's last elements stay. */
Test(batch, the_oldest_element_says_when) {
        int64_t began;

        cr_assert_eq(psyne_batcher_init(&b, p, PSYNE_U32, PSYNE_BATCHER_OPTS(.max_delay_ns = 20 * MSEC)), 0);
        cr_expect_eq(psyne_batcher_deadline(&b), INT64_MAX);
        (void)nanosleep(&(struct timespec){.tv_nsec = 25 * MSEC}, NULL);
        began = now();
        cr_assert_eq(add(), 0);
        cr_expect_eq(take(NULL), 0u, "the first behind a pause waits for others like any");
        cr_expect_geq(psyne_batcher_deadline(&b), began + 20 * MSEC);
        cr_expect_eq(psyne_batcher_poll(&b), 0);
        cr_assert_eq(add(), 0);
        while (psyne_batcher_poll(&b) == 0)
                cr_assert(now() - began < 10000 * MSEC);
        cr_expect_geq(now() - began, 20 * MSEC);
        cr_expect_eq(take(NULL), 2u);
        cr_assert_eq(add(), 0);
        while (now() < psyne_batcher_deadline(&b))
                ;
        cr_assert_eq(add(), 0);
        cr_expect_eq(take(NULL), 2u, "who adds need not ask");
        (void)psyne_batcher_deinit(&b);
}

/* Small while the reader waits, large while it is behind, and the rest as soon as it has caught up. */
Test(batch, adaptive_is_as_large_as_the_reader_is_behind) {
        struct psyne_msg m;

        cr_assert_eq(psyne_batcher_init(&b, p, PSYNE_U32, PSYNE_BATCHER_OPTS(.max_items = 100, .adaptive = 1)), 0);
        for (unsigned i = 0; i < 5; i++) {
                cr_assert_eq(add(), 0);
                cr_expect_eq(take(NULL), 1u);
        }
        cr_assert_eq(add(), 0);
        cr_expect_eq(take(&m), 1u); /* the reader is at work */
        for (unsigned i = 0; i < 250; i++)
                cr_assert_eq(add(), 0);
        cr_expect_eq(psyne_batcher_poll(&b), 0, "nobody waits for these");
        cr_expect_eq(psyne_release(c, &m), 0);
        cr_expect_eq(psyne_batcher_poll(&b), 0, "there are two messages to be read");
        cr_expect_eq(take(NULL), 100u);
        cr_expect_eq(take(NULL), 100u);
        cr_expect_eq(take(NULL), 0u);
        cr_expect_eq(psyne_batcher_poll(&b), 50);
        cr_expect_eq(take(&m), 50u);
        for (unsigned i = 0; i < 5; i++)
                cr_assert_eq(add(), 0);
        cr_expect_eq(psyne_release(c, &m), 0);
        for (unsigned i = 5; i < 8; i++) {
                cr_expect_eq(take(NULL), 0u);
                cr_assert_eq(add(), 0);
        }
        cr_expect_eq(take(NULL), 8u, "it looks at 8");
        (void)psyne_batcher_deinit(&b);
}

/* Every element arrives once and in order, through a ring that is full most of the time; what was refused was not taken. */
Test(batch, nothing_is_lost_where_there_is_no_room) {
        unsigned refused = 0;

        close_channel();
        open_channel("memory://?size=16K");
        for (unsigned adaptive = 0; adaptive < 2; adaptive++) {
                next_sent = next_got = 0;
                cr_assert_eq(psyne_batcher_init(&b, p, PSYNE_U32, PSYNE_BATCHER_OPTS(.max_items = 1u << 20, .adaptive = adaptive)), 0);
                cr_expect_lt(b.max_items, 4096u, "as many as a record may hold");
                while (next_got < 100000) {
                        for (unsigned i = 0; i < 5000 && next_sent < 100000; i++) {
                                int r = add();

                                cr_assert(r == 0 || r == -EAGAIN, "%d", r);
                                if (r < 0) {
                                        refused++;
                                        break;
                                }
                        }
                        if (next_sent == 100000)
                                cr_assert_geq(psyne_batcher_flush(&b), 0);
                        (void)take(NULL);
                }
                cr_expect_eq(psyne_batcher_deinit(&b), 0);
        }
        cr_expect_gt(refused, 10u, "the ring was never full");
}

/* What was taken before a stop is not lost by it. */
Test(batch, a_stop_loses_nothing) {
        cr_assert_eq(psyne_batcher_init(&b, p, PSYNE_U32, NULL), 0);
        for (unsigned i = 0; i < 3; i++)
                cr_assert_eq(add(), 0);
        cr_assert_eq(psyne_stop(ch, PSYNE_DRAIN), 0);
        cr_expect_eq(psyne_batcher_deinit(&b), 3);
        cr_expect_eq(take(NULL), 3u);
        cr_assert_eq(psyne_batcher_init(&b, p, PSYNE_U32, NULL), -ESHUTDOWN);
}

Test(batch, an_array_in_batches) {
        static uint32_t all[10000];
        size_t lengths[4] = {0};

        for (uint32_t i = 0; i < 10000; i++)
                all[i] = i;
        cr_expect_eq(psyne_send_batched(p, PSYNE_U32, all, 10, 0, PSYNE_NOWAIT), -EINVAL, "the upstream tutorial's never ends");
        cr_expect_eq(psyne_send_batched(p, PSYNE_U32, NULL, 1, 1, PSYNE_NOWAIT), -EINVAL);
        cr_expect_eq(psyne_send_batched(p, PSYNE_U32, all, 0, 10, PSYNE_NOWAIT), 0);
        cr_expect_eq(take(NULL), 0u);
        cr_expect_eq(psyne_send_batched(p, PSYNE_U32, all, 2500, 1000, PSYNE_NOWAIT), 2500);
        for (unsigned i = 0; i < 4; i++)
                lengths[i] = take(NULL);
        cr_expect(lengths[0] == 1000 && lengths[1] == 1000 && lengths[2] == 500 && lengths[3] == 0);
        close_channel();
        open_channel("memory://?size=16K");
        next_got = 0;
        cr_expect_eq(psyne_send_batched(p, PSYNE_U32, all, 10000, 100, PSYNE_NOWAIT) % 100, 0, "as much as there is room for");
        while (take(NULL))
                ;
        cr_expect(next_got > 2000 && next_got < 5000, "%u", next_got);
        next_got = 0;
        cr_expect_gt(psyne_send_batched(p, PSYNE_U32, all, 3000, SIZE_MAX / 8, PSYNE_NOWAIT), 0, "in as large ones as fit");
        cr_expect_gt(take(NULL), 1000u);
}

/* With full=drop what counts as dropped is what was refused, and not the larger message there was no room for. */
Test(batch, drops_only_what_it_refuses) {
        const struct psyne_producer_opts opts = {.struct_size = sizeof(opts), .full = PSYNE_FULL_DROP};
        struct psyne_metrics before = {.struct_size = sizeof(before)}, after = {.struct_size = sizeof(after)};
        unsigned refused = 0;

        close_channel();
        open_as("memory://?size=16K", NULL, &opts);
        cr_assert_eq(psyne_batcher_init(&b, p, PSYNE_U32, NULL), 0);
        cr_assert_eq(psyne_metrics(ch, &before), 0);
        for (unsigned i = 0; i < 10000; i++)
                refused += add() < 0;
        cr_assert_eq(psyne_metrics(ch, &after), 0);
        cr_expect_gt(refused, 1000u);
        cr_expect_eq(after.dropped - before.dropped, refused);
        cr_assert_geq(psyne_batcher_flush(&b), 0);
        while (take(NULL))
                ;
        cr_expect_eq(next_got, next_sent);
        (void)psyne_batcher_deinit(&b);
}
