/* io_uring refused: the engine is futex(2), the reason names the cause, and everything works. */
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "deny.h"
#include "support.h"
#include "uring/park.h"
#include "uring/watch.h"

static void deny_or_skip(int error, bool enter_only) {
        alarm(WATCHDOG_S);
        if (!deny_uring(error, enter_only))
                cr_skip_test("no libseccomp, or it may not filter here");
}

/* Without liburing the reason is another one, and just as good. */
static void expect_reason(const char *call, const char *error) {
        const char *why, *fix;

        cr_assert_eq(park_probe(&why, &fix), PARK_FUTEX);
        cr_log_info("%s; fix: %s", why, fix);
        cr_assert(*fix);
        if (strcmp(why, "built without liburing") == 0)
                return;
        cr_assert(strstr(why, call), "%s", why);
        cr_assert(strstr(why, error), "%s", why);
        /* A sysctl that forbids it too is the more exact cause. */
        cr_assert(strstr(why, "seccomp mode 2") || strstr(why, "io_uring_disabled"), "%s", why);
}

static void *wait_for_change(void *p) {
        uint32_t *word = p;

        while (!__atomic_load_n(word, __ATOMIC_ACQUIRE))
                park_wait(word, 0, CLOCK_FOREVER);
        return NULL;
}

static void expect_all_works(void) {
        uint32_t word = 0;
        struct watch *w;
        struct watch_event e;
        pthread_t t;
        int r, fd = eventfd(1, EFD_CLOEXEC);

        park_force(PARK_URING); /* asking does not help */
        cr_assert_eq(park_probe(NULL, NULL), PARK_FUTEX);
        cr_assert_eq(park_prepare(), 0);
        cr_assert_eq(park_wait(&word, 0, clock_ns() + 1000000), -ETIME);
        cr_assert_eq(pthread_create(&t, NULL, wait_for_change, &word), 0);
        __atomic_store_n(&word, 1, __ATOMIC_RELEASE);
        cr_assert_geq(park_wake(&word, 1), 0);
        pthread_join(t, NULL);

        cr_assert_eq(watch_new(&w), 0);
        cr_assert_eq(watch_add(w, fd, EPOLLIN, &fd), 0);
        cr_assert_eq(watch_wait(w, &e, 1, CLOCK_FOREVER), 1);
        cr_assert_eq(e.cookie, &fd);
        cr_assert_eq(watch_remove(w, fd), 0);
        do /* closing the ring of the probe may still interrupt us once: see watch_wait() */
                r = watch_wait(w, &e, 1, clock_ns() + 1000000);
        while (r == -EINTR);
        cr_assert_eq(r, 0, "%d", r);
        cr_assert_eq(watch_free(w), NULL);
}

Test(refused, setup_denied_by_seccomp_is_named) {
        deny_or_skip(EPERM, false);
        expect_reason("io_uring_setup", "EPERM");
        expect_all_works();
}

/* Some profiles answer ENOSYS, to look like an old kernel. */
Test(refused, setup_hidden_by_seccomp_is_named) {
        deny_or_skip(ENOSYS, false);
        expect_reason("io_uring_setup", "ENOSYS");
        expect_all_works();
}

/* A ring can be had and is of no use: only the round trip of the probe finds out. */
Test(refused, enter_denied_by_seccomp_is_named) {
        deny_or_skip(EPERM, true);
        expect_reason("io_uring_enter", "EPERM");
        expect_all_works();
}

/* The ring was made before the filter came: this thread goes on through futex(2). */
Test(refused, later_denial_does_not_stop_a_thread) {
        uint32_t word = 0;
        struct watch *w;
        struct watch_event e;
        pthread_t t;

        cr_assert_eq(park_prepare(), 0);
        cr_assert_eq(watch_new(&w), 0);
        cr_assert_eq(watch_wait(w, &e, 1, 0), 0);
        deny_or_skip(EPERM, false);
        cr_assert_eq(park_wait(&word, 0, clock_ns() + 1000000), -ETIME);
        cr_assert_eq(pthread_create(&t, NULL, wait_for_change, &word), 0);
        __atomic_store_n(&word, 1, __ATOMIC_RELEASE);
        cr_assert_geq(park_wake(&word, 1), 0);
        pthread_join(t, NULL);
        cr_assert_eq(watch_wake(w), 0);
        cr_assert_eq(watch_wait(w, &e, 1, CLOCK_FOREVER), 0);
        watch_free(w);
}

/* A sandbox may kill whoever tries io_uring: with futex(2) asked for, nothing of this room tries. */
Test(refused, asking_for_futex_keeps_off_io_uring) {
        uint32_t word = 0;
        struct watch *w;
        struct watch_event e;

        if (!deny_uring(0, false)) /* 0: kill */
                cr_skip_test("no libseccomp, or it may not filter here");
        park_force(PARK_FUTEX);
        cr_assert_eq(park_probe(NULL, NULL), PARK_FUTEX);
        cr_assert_eq(park_prepare(), 0);
        cr_assert_eq(park_wait(&word, 0, clock_ns() + 1000), -ETIME);
        cr_assert_eq(park_wake(&word, 1), 0);
        cr_assert_eq(watch_new(&w), 0);
        cr_assert_eq(watch_wait(w, &e, 1, 0), 0);
        watch_free(w);
}
