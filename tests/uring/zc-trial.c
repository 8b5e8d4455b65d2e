/* Which sends go without a copy (uring/zc-trial.h), for devices where that is cheap, dear, or cheap from some length on. */
#include "uring/zc-trial.h"

#include <criterion/criterion.h>

/* What a device makes of it: a copy by the byte, and a notification, whatever the length. In ns. */
static int64_t cost(size_t bytes, bool without, int64_t copy_per_kib, int64_t fixed) {
        return without ? fixed : 500 + (int64_t)(bytes / 1024) * copy_per_kib;
}

static void try_all(struct zc_trial *t, size_t bytes, int64_t copy_per_kib, int64_t fixed) {
        for (unsigned i = 0; zc_trial_open(t, bytes); i++) {
                bool without = zc_trial_wants(t, bytes);

                cr_assert(i < 2 * ZC_TRIAL_SAMPLES);
                zc_trial_note(t, bytes, without, cost(bytes, without, copy_per_kib, fixed) + (i % 3 ? 0 : 50000));
        }
}

static size_t found(int64_t copy_per_kib, int64_t fixed) {
        struct zc_trial t = {0};

        cr_assert(zc_trial_from(&t) == 0);
        for (size_t bytes = WIRE_LONG_BYTES; bytes <= 256 * 1024; bytes *= 2)
                try_all(&t, bytes, copy_per_kib, fixed);
        return zc_trial_from(&t);
}

Test(zc_trial, finds_where_it_is_worth_it) {
        cr_expect(found(100, 1000) == WIRE_LONG_BYTES); /* dear copies */
        cr_expect(found(50, 5000) == 128 * 1024); /* 6.4 us for 128 KiB, 3.7 us for 64 KiB */
        cr_expect(found(10, 20000) == 0); /* dear notifications */
}

Test(zc_trial, goes_both_ways_in_turn) {
        struct zc_trial t = {0};
        unsigned ways[2] = {0};

        while (zc_trial_open(&t, WIRE_LONG_BYTES)) {
                bool without = zc_trial_wants(&t, WIRE_LONG_BYTES);

                ways[without]++;
                cr_assert((ways[0] > ways[1] ? ways[0] - ways[1] : ways[1] - ways[0]) <= 1);
                zc_trial_note(&t, WIRE_LONG_BYTES, without, 1000);
        }
        cr_expect(ways[0] == ZC_TRIAL_SAMPLES);
        cr_expect(ways[1] == ZC_TRIAL_SAMPLES);
        cr_expect(!zc_trial_wants(&t, WIRE_LONG_BYTES), "no better is not worth it");
}

Test(zc_trial, classes_do_not_know_each_other) {
        struct zc_trial t = {0};

        try_all(&t, 64 * 1024, 100, 1000);
        cr_expect(zc_trial_wants(&t, 128 * 1024 - 1));
        cr_expect(zc_trial_open(&t, 128 * 1024));
        cr_expect(zc_trial_open(&t, 64 * 1024 - 1));
        cr_expect(zc_trial_open(&t, SIZE_MAX));
        cr_expect(!zc_trial_open(&t, WIRE_LONG_BYTES - 1));
        cr_expect(!zc_trial_wants(&t, WIRE_LONG_BYTES - 1));
        cr_expect(zc_trial_from(&t) == 64 * 1024, "as far as was tried");
}
