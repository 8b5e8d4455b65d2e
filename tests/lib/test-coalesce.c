/* Small messages in one (psyne/batch.h): where messages end, what happens when there is no room or time passes, and nonsense. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <psyne/batch.h>

#include "ends.h"

#define MSEC 1000000ll

static struct psyne_coalescer k;
static unsigned char bytes[1 << 17];

static void begin(void) {
        open_default();
        for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (unsigned char)(i * 31 + i / 256);
}

TestSuite(coalesce, .init = begin, .fini = close_channel);

static int64_t now(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000 * MSEC + t.tv_nsec;
}

/* The next message's items have these lengths, and are the first of @bytes each. Its length. */
static size_t expect_items(const size_t lengths[], unsigned n) {
        struct psyne_coalesced it;
        struct psyne_msg m;
        const void *data;
        size_t length, len;

        cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), 0, "%s", psyne_last_error());
        it = psyne_decoalesce(m.data, m.len);
        for (unsigned i = 0; i < n; i++) {
                cr_assert_eq(psyne_coalesced_next(&it, &data, &length), 1, "item %u", i);
                cr_assert_eq(length, lengths[i], "item %u has %zu bytes", i, length);
                cr_assert_arr_eq(data, bytes, length);
                cr_assert((const char *)data >= (char *)m.data && (const char *)data + length <= (char *)m.data + m.len);
        }
        cr_assert_eq(psyne_coalesced_next(&it, &data, &length), 0);
        cr_assert_eq(psyne_coalesced_next(&it, &data, &length), 0);
        len = m.len;
        cr_assert_eq(psyne_release(c, &m), 0);
        return len;
}

static void expect_nothing(void) {
        struct psyne_msg m;

        cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), -EAGAIN);
}

Test(coalesce, many_in_one) {
        static const size_t lengths[] = {0, 1, 3, 100, 0, 7};

        cr_assert_eq(psyne_coalescer_init(&k, p, PSYNE_COALESCER_OPTS(.type = 9)), 0);
        cr_expect_eq(psyne_coalescer_flush(&k), 0);
        for (unsigned i = 0; i < 6; i++)
                cr_assert_eq(psyne_coalescer_add(&k, bytes, lengths[i], PSYNE_NOWAIT), 0);
        expect_nothing();
        cr_expect_eq(psyne_coalescer_flush(&k), 6);
        cr_expect_eq(expect_items(lengths, 6), 6 * 4 + 111u);
        cr_expect_eq(psyne_coalescer_flush(&k), 0);
        cr_expect_eq(psyne_coalescer_add(&k, NULL, 0, PSYNE_NOWAIT), 0);
        cr_expect_eq(psyne_coalescer_deinit(&k), 1, "nothing is lost at the end");
        expect_items(lengths, 1);
        cr_expect(k.messages == 2 && k.total_items == 7);
        cr_expect_eq(psyne_coalescer_add(&k, bytes, 1, PSYNE_NOWAIT), -EINVAL, "it is over");
        cr_expect_eq(psyne_send(p, 0, NULL, 0, PSYNE_NOWAIT), 0, "the producer is free again");
}

/* The upstream tutorial's writes past its 64 KiB from 65,533 bytes on. */
Test(coalesce, a_message_is_full_at_its_last_byte) {
        static const size_t exact[] = {65532}, more[] = {65533}, much[] = {65536}, one[] = {1}, two[] = {65523, 5};

        cr_assert_eq(psyne_coalescer_init(&k, p, NULL), 0);
        cr_expect_eq(k.max_bytes, 65536u);
        cr_assert_eq(psyne_coalescer_add(&k, bytes, 65532, PSYNE_NOWAIT), 0);
        cr_expect_eq(expect_items(exact, 1), 65536u); /* full: it does not wait for anything */

        cr_assert_eq(psyne_coalescer_add(&k, bytes, 1, PSYNE_NOWAIT), 0);
        cr_assert_eq(psyne_coalescer_add(&k, bytes, 65532, PSYNE_NOWAIT), 0);
        cr_expect_eq(expect_items(one, 1), 5u);
        cr_expect_eq(expect_items(exact, 1), 65536u);

        cr_assert_eq(psyne_coalescer_add(&k, bytes, 1, PSYNE_NOWAIT), 0);
        cr_assert_eq(psyne_coalescer_add(&k, bytes, 65533, PSYNE_NOWAIT), 0);
        cr_expect_eq(expect_items(one, 1), 5u); /* in order */
        cr_expect_eq(expect_items(more, 1), 65537u);

        cr_assert_eq(psyne_coalescer_add(&k, bytes, 65536, PSYNE_NOWAIT), 0);
        cr_expect_eq(expect_items(much, 1), 65540u);

        cr_assert_eq(psyne_coalescer_add(&k, bytes, 65523, PSYNE_NOWAIT), 0);
        expect_nothing();
        cr_assert_eq(psyne_coalescer_add(&k, bytes, 5, PSYNE_NOWAIT), 0);
        cr_expect_eq(expect_items(two, 2), 65536u);
        cr_expect_eq(psyne_coalescer_deinit(&k), 0);
        expect_nothing();
}

Test(coalesce, what_never_fits_is_refused_and_the_rest_stays) {
        static const size_t one[] = {1};

        cr_assert_eq(psyne_coalescer_init(&k, p, NULL), 0);
        cr_expect_eq(psyne_coalescer_add(&k, bytes, 1, PSYNE_NOWAIT), 0);
        cr_expect_eq(psyne_coalescer_add(&k, bytes, SIZE_MAX, PSYNE_NOWAIT), -EMSGSIZE);
        cr_expect_eq(psyne_coalescer_add(&k, bytes, UINT32_MAX, PSYNE_NOWAIT), -EMSGSIZE);
        cr_expect_eq(psyne_coalescer_add(&k, bytes, 4u << 20, PSYNE_NOWAIT), -EMSGSIZE);
        cr_expect_eq(psyne_coalescer_add(&k, NULL, 1, PSYNE_NOWAIT), -EINVAL);
        cr_expect_eq(psyne_coalescer_add(&k, bytes, 1, PSYNE_NOWAIT), 0);
        (void)psyne_coalescer_deinit(&k);
        expect_items(one, 1);
        expect_items(one, 1);
        cr_expect_eq(psyne_coalescer_init(&k, p, PSYNE_COALESCER_OPTS(.max_bytes = 15)), -EINVAL);
        cr_expect_eq(psyne_coalescer_init(&k, p, PSYNE_COALESCER_OPTS(.max_delay_ns = -1)), -EINVAL);
        cr_expect_eq(psyne_coalescer_init(&k, p, PSYNE_COALESCER_OPTS(.align8 = 2)), -EINVAL);
        cr_expect_eq(psyne_coalescer_init(&k, p, &(struct psyne_coalescer_opts){0}), -EINVAL);
}

/* The upstream tutorial's batcher looks at the time in add() only, and counts from the last send. */
Test(coalesce, the_oldest_item_says_when) {
        static const size_t lengths[] = {1, 2};
        int64_t began;

        cr_assert_eq(psyne_coalescer_init(&k, p, PSYNE_COALESCER_OPTS(.max_delay_ns = 20 * MSEC)), 0);
        cr_expect_eq(psyne_coalescer_deadline(&k), INT64_MAX);
        cr_expect_eq(psyne_coalescer_poll(&k), 0);
        (void)nanosleep(&(struct timespec){.tv_nsec = 25 * MSEC}, NULL);
        began = now();
        cr_assert_eq(psyne_coalescer_add(&k, bytes, 1, PSYNE_NOWAIT), 0);
        expect_nothing(); /* the first behind a pause waits for others like any */
        cr_expect_geq(psyne_coalescer_deadline(&k), began + 20 * MSEC);
        cr_expect_leq(psyne_coalescer_deadline(&k), now() + 20 * MSEC);
        cr_assert_eq(psyne_coalescer_add(&k, bytes, 2, PSYNE_NOWAIT), 0);
        while (psyne_coalescer_poll(&k) == 0)
                cr_assert(now() - began < 10000 * MSEC);
        cr_expect_geq(now() - began, 20 * MSEC);
        expect_items(lengths, 2);
        cr_expect_eq(psyne_coalescer_deadline(&k), INT64_MAX);

        cr_assert_eq(psyne_coalescer_add(&k, bytes, 1, PSYNE_NOWAIT), 0);
        while (now() < psyne_coalescer_deadline(&k))
                ;
        cr_assert_eq(psyne_coalescer_add(&k, bytes, 2, PSYNE_NOWAIT), 0); /* who adds need not ask */
        expect_items(lengths, 2);
        (void)psyne_coalescer_deinit(&k);
}

/* Every item arrives once and in order, through a ring that is full most of the time; what was refused was not taken. */
Test(coalesce, nothing_is_lost_where_there_is_no_room) {
        unsigned sent = 0, got = 0, refused = 0;

        close_channel();
        open_channel("memory://?size=16K");
        cr_assert_eq(psyne_coalescer_init(&k, p, PSYNE_COALESCER_OPTS(.max_bytes = 65536)), 0, "%s", psyne_last_error());
        cr_expect_lt(k.max_bytes, 16384u, "as long as a record may be");
        while (got < 20000) {
                struct psyne_coalesced it;
                struct psyne_msg m;
                const void *data;
                size_t length;

                for (unsigned i = 0; i < 500 && sent < 20000; i++) {
                        size_t n = 4 + sent % 97;
                        int r;

                        memcpy(bytes, &sent, sizeof(sent));
                        r = psyne_coalescer_add(&k, bytes, n, PSYNE_NOWAIT);
                        cr_assert(r == 0 || r == -EAGAIN, "%d", r);
                        if (r < 0) {
                                refused++;
                                break;
                        }
                        sent++;
                }
                if (sent == 20000)
                        cr_assert_geq(psyne_coalescer_flush(&k), 0);
                if (psyne_recv(c, &m, PSYNE_NOWAIT) < 0)
                        continue;
                it = psyne_decoalesce(m.data, m.len);
                while (psyne_coalesced_next(&it, &data, &length) == 1) {
                        cr_assert_eq(length, 4 + got % 97);
                        cr_assert_eq(memcmp(data, &got, sizeof(got)), 0);
                        got++;
                }
                cr_assert_eq(it.left, 0u);
                cr_assert_eq(psyne_release(c, &m), 0);
        }
        cr_expect_gt(refused, 10u, "the ring was never full");
        cr_expect_eq(psyne_coalescer_deinit(&k), 0);
}

Test(coalesce, items_at_multiples_of_eight) {
        cr_assert_eq(psyne_coalescer_init(&k, p, PSYNE_COALESCER_OPTS(.align8 = 1, .max_bytes = 1000)), 0);
        for (unsigned n = 0; n < 3000; n++)
                cr_assert_eq(psyne_coalescer_add(&k, bytes, n % 37, PSYNE_NOWAIT), 0);
        (void)psyne_coalescer_deinit(&k);
        for (unsigned n = 0; n < 3000;) {
                struct psyne_coalesced it;
                struct psyne_msg m;
                const void *data;
                size_t length;

                cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), 0);
                cr_assert_leq(m.len, 1000u);
                for (it = psyne_decoalesce(m.data, m.len); psyne_coalesced_next(&it, &data, &length) == 1; n++) {
                        cr_assert_eq(length, n % 37);
                        cr_assert_eq((uintptr_t)data % 8, 0u);
                        cr_assert_arr_eq(data, bytes, length);
                }
                cr_assert_eq(it.left, 0u);
                cr_assert_eq(psyne_release(c, &m), 0);
        }
}

/* In memory of just that length, so that the sanitizers see whoever looks behind it. */
static int last_of(const void *from, size_t n) {
        unsigned char *message = malloc(n ? n : 1);
        struct psyne_coalesced it;
        const void *data;
        size_t length;
        int r;

        cr_assert_not_null(message);
        memcpy(message, from, n);
        it = psyne_decoalesce(message, n);
        while ((r = psyne_coalesced_next(&it, &data, &length)) == 1)
                cr_assert((const unsigned char *)data + length <= message + n);
        cr_assert_eq(psyne_coalesced_next(&it, &data, &length), r, "it stays so");
        free(message);
        return r;
}

Test(coalesce, believes_no_length) {
        static const unsigned char good[] = {3, 0, 0, 0, 'a', 'b', 'c', 0, 0, 0, 0, 1, 0, 0, 0, 'd'};
        static const unsigned char eights[] = {255, 255, 255, 255, 1, 0, 0, 0, 'a', 0, 0, 0, 2, 0, 0, 0, 'b', 'c', 0, 0, 3, 0, 0, 0, 'd', 'e', 'f'};
        unsigned char bad[sizeof(eights)];
        struct psyne_coalesced it = psyne_decoalesce(NULL, 5);
        const void *data;
        size_t length;

        cr_expect_eq(psyne_coalesced_next(&it, &data, &length), 0);
        for (size_t n = 0; n <= sizeof(good); n++)
                cr_expect_eq(last_of(good, n), n == 0 || n == 7 || n == 11 || n == 16 ? 0 : -EBADMSG, "%zu", n);
        for (size_t n = 0; n <= sizeof(eights); n++)
                cr_expect_eq(last_of(eights, n), n == 0 || n == 9 || n == 18 || n == 27 ? 0 : -EBADMSG, "%zu in eights", n);
        memcpy(bad, good, sizeof(good));
        bad[11] = 2;
        cr_expect_eq(last_of(bad, sizeof(good)), -EBADMSG, "one byte too far");
        bad[11] = 0;
        cr_expect_eq(last_of(bad, sizeof(good)), -EBADMSG, "a byte behind the last");
        bad[7] = bad[8] = bad[9] = bad[10] = 255;
        cr_expect_eq(last_of(bad, sizeof(good)), -EBADMSG, "not the first");
        bad[0] = 254, bad[1] = bad[2] = bad[3] = 255;
        cr_expect_eq(last_of(bad, sizeof(good)), -EBADMSG);
        for (unsigned seed = 1; seed <= 20000; seed++) {
                srand(seed);
                for (size_t i = 0; i < sizeof(bad); i++)
                        bad[i] = (unsigned char)(rand() % 3 ? rand() % 6 : rand());
                (void)last_of(bad, (size_t)rand() % (sizeof(bad) + 1));
        }
}
