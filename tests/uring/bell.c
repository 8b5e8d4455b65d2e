/* bell: by its ring and by hand; the ring's half is skipped, with the reason, where the machine refuses it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>

#include "support.h"
#include "uring/bell.h"
#include "uring/park.h"

#define FOREVER CLOCK_FOREVER

static int handle; /* of the test's bell */

static struct bell *bell_make(enum park_engine e, uint32_t *word) {
        struct bell *b;
        const char *why;

        alarm(WATCHDOG_S);
        park_force(e);
        if (park_probe(&why, NULL) != e)
                cr_skip_test("io_uring refused: %s", why);
        cr_assert_eq(bell_new(&b, word), 0);
        cr_assert_eq(bell_handle(b) >= 0, e == PARK_FUTEX);
        handle = bell_handle(b);
        return b;
}

#define TEST_BOTH(name)                                                                                                \
        static void name(struct bell *b, uint32_t *word);                                                              \
        Test(bell_uring, name) {                                                                                       \
                uint32_t *word = map_words();                                                                          \
                struct bell *b = bell_make(PARK_URING, word);                                                          \
                                                                                                                       \
                name(b, word);                                                                                         \
                bell_free(b);                                                                                          \
        }                                                                                                              \
        Test(bell_by_hand, name) {                                                                                      \
                uint32_t *word = map_words();                                                                          \
                struct bell *b = bell_make(PARK_FUTEX, word);                                                          \
                                                                                                                       \
                name(b, word);                                                                                         \
                bell_free(b);                                                                                          \
        }                                                                                                              \
        static void name(struct bell *b, uint32_t *word)

static bool readable(struct bell *b, int timeout_ms) {
        struct pollfd p = {.fd = bell_fd(b), .events = POLLIN};

        return poll(&p, 1, timeout_ms) == 1;
}

/* As a waker does it. */
static void change(uint32_t *word) {
        __atomic_fetch_add(word, 1, __ATOMIC_RELEASE);
        cr_assert_geq(park_wake(word, INT32_MAX), 0);
        if (handle >= 0)
                bell_strike(handle);
}

TEST_BOTH(is_readable_from_a_wake_until_it_is_armed_again) {
        cr_assert_not(readable(b, 0));
        cr_assert_eq(bell_arm(b, 0, FOREVER), 0);
        cr_assert_not(readable(b, 0));
        change(word);
        for (int i = 0; i < 3; i++)
                cr_assert(readable(b, -1)); /* level-triggered */
        cr_assert_eq(bell_arm(b, 1, FOREVER), 0);
        cr_assert_not(readable(b, 0));
        change(word);
        cr_assert(readable(b, -1));
}

TEST_BOTH(a_word_that_changed_before_is_readable_at_once) {
        *word = 7;
        cr_assert_eq(bell_arm(b, 6, FOREVER), 0);
        cr_assert(readable(b, 0));
        cr_assert_eq(bell_arm(b, 7, FOREVER), 0);
        cr_assert_not(readable(b, 0));
        change(word);
        cr_assert(readable(b, -1));
}

/* What nothing has rung stays armed, also for a word that moves on without a wake. */
TEST_BOTH(armed_twice_rings_all_the_same) {
        cr_assert_eq(bell_arm(b, 0, FOREVER), 0);
        for (uint32_t i = 1; i < 4; i++) {
                __atomic_store_n(word, i, __ATOMIC_RELEASE);
                cr_assert_eq(bell_arm(b, i, FOREVER), 0);
        }
        change(word);
        cr_assert(readable(b, -1));
}

TEST_BOTH(rings_when_its_time_has_come) {
        const uint32_t same = *word;
        int64_t began = clock_ns();

        cr_assert_eq(bell_arm(b, same, began + 20000000), 0);
        cr_assert_not(readable(b, 0));
        cr_assert(readable(b, -1));
        cr_assert_geq(clock_ns(), began + 20000000);
        /* The time is not that of another arming. */
        cr_assert_eq(bell_arm(b, same, clock_ns() + 60 * SECOND_NS), 0);
        cr_assert_not(readable(b, 0));
        cr_assert_eq(bell_arm(b, same, clock_ns() + 1000000), 0); /* an earlier one counts */
        cr_assert(readable(b, -1));
        cr_assert_eq(bell_arm(b, same, clock_ns() - 1), 0); /* it is past */
        cr_assert(readable(b, -1));
}

TEST_BOTH(is_rung_and_quiet_by_hand) {
        bell_ring(b);
        bell_ring(b);
        cr_assert(readable(b, 0));
        bell_quiet(b);
        cr_assert_not(readable(b, 0));
        cr_assert_eq(bell_arm(b, 0, FOREVER), 0);
        bell_quiet(b);
        change(word);
        cr_assert(readable(b, -1));
}

static void *arm_it(void *arg) {
        cr_assert_eq(bell_arm(arg, 0, FOREVER), 0);
        return NULL;
}

TEST_BOTH(moves_to_another_thread) {
        pthread_t t;

        cr_assert_eq(pthread_create(&t, NULL, arm_it, b), 0);
        pthread_join(t, NULL);
        for (uint32_t i = 0; i < 3; i++) {
                cr_assert_eq(bell_arm(b, *word, FOREVER), 0);
                change(word);
                cr_assert(readable(b, -1));
        }
}

static void *change_often(void *word) {
        struct timespec pause = {0};

        for (unsigned i = 0; i < 50000; i++) {
                change(word);
                pause.tv_nsec = i * 7919 % 20000;
                if (i % 4)
                        nanosleep(&pause, NULL);
        }
        return NULL;
}

/* Nobody who armed sleeps through the change, whichever moment it comes in. */
TEST_BOTH(loses_no_wake) {
        uint32_t seen = 0;
        pthread_t t;

        cr_assert_eq(pthread_create(&t, NULL, change_often, word), 0);
        while (seen != 50000) {
                uint32_t now = __atomic_load_n(word, __ATOMIC_ACQUIRE);

                if (now == seen) {
                        cr_assert_eq(bell_arm(b, seen, FOREVER), 0);
                        cr_assert(readable(b, -1));
                }
                seen = now;
        }
        pthread_join(t, NULL);
}

static void leaves_nothing(enum park_engine e) {
        uint32_t *word = map_words();
        struct bell *b = bell_make(e, word);
        unsigned fds;

        bell_free(b);
        fds = count_fds();
        for (int i = 0; i < 3; i++) {
                b = bell_make(e, word);
                cr_assert_eq(bell_arm(b, *word, FOREVER), 0); /* freed while it waits */
                bell_free(b);
        }
        cr_assert_eq(count_fds(), fds);
        cr_assert_null(bell_free(NULL));
}

Test(bell_uring, leaves_nothing_behind) {
        leaves_nothing(PARK_URING);
}

Test(bell_by_hand, leaves_nothing_behind) {
        leaves_nothing(PARK_FUTEX);
}

/* A forked child gives its copies back, and the parent's bell goes on. */
TEST_BOTH(survives_a_fork) {
        pid_t child;

        cr_assert_eq(bell_arm(b, 0, FOREVER), 0);
        child = fork_child();
        if (child == 0) {
                int fd = bell_fd(b);

                bell_after_fork_child(b);
                bell_free(b);
                _exit(write(fd, "12345678", 8) == -1 && errno == EBADF ? 0 : 1);
        }
        cr_assert_eq(await_exit(child), 0);
        cr_assert_not(readable(b, 0));
        change(word);
        cr_assert(readable(b, -1));
}
