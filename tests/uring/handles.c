/*
 * Sleeping by a handle: on io_uring, and by poll(2) where a thread has no ring. Every handle here is an eventfd, as
 * bell.h makes them.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "support.h"
#include "uring/bell.h"
#include "uring/park.h"

static void use(enum park_engine e) {
        const char *why;

        alarm(WATCHDOG_S);
        park_force(e);
        if (park_probe(&why, NULL) != e)
                cr_skip_test("io_uring refused: %s", why);
}

/* PARK_FUTEX stands for a thread without a ring. */
#define TEST_BOTH(name)                                                                                                \
        static void name(void);                                                                                        \
        Test(handles_uring, name) {                                                                                    \
                use(PARK_EVENTFD);                                                                                     \
                name();                                                                                                \
        }                                                                                                              \
        Test(handles_poll, name) {                                                                                     \
                use(PARK_FUTEX);                                                                                       \
                name();                                                                                                \
        }                                                                                                              \
        static void name(void)

static int handle_new(void) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

        cr_assert_geq(fd, 0);
        return fd;
}

static bool quiet(int handle) {
        uint64_t n;

        return read(handle, &n, sizeof(n)) < 0 && errno == EAGAIN;
}

struct sleeper {
        int handle;
        int64_t deadline_ns;
        uint32_t word, n_interrupted;
        pid_t tid; /* atomic */
        int result;
};

static void *sleep_once(void *p) {
        struct sleeper *s = p;

        __atomic_store_n(&s->tid, gettid(), __ATOMIC_RELEASE);
        s->result = park_wait_handle(s->handle, &s->word, 0, s->deadline_ns);
        return NULL;
}

static pthread_t sleeper_start(struct sleeper *s) {
        pthread_t t;

        cr_assert_eq(pthread_create(&t, NULL, sleep_once, s), 0);
        while (!__atomic_load_n(&s->tid, __ATOMIC_ACQUIRE))
                sched_yield();
        await_sleep(getpid(), s->tid, park_probe(NULL, NULL) == PARK_EVENTFD ? SYS_io_uring_enter : SYS_ppoll);
        return t;
}

TEST_BOTH(struck_while_asleep) {
        struct sleeper s = {.handle = handle_new(), .deadline_ns = CLOCK_FOREVER, .result = 1};
        pthread_t t = sleeper_start(&s);

        bell_strike(s.handle);
        pthread_join(t, NULL);
        cr_assert_eq(s.result, 0);
        cr_assert(quiet(s.handle));
}

TEST_BOTH(struck_before) {
        uint32_t word = 0;
        int handle = handle_new();

        bell_strike(handle);
        bell_strike(handle);
        cr_assert_eq(park_wait_handle(handle, &word, 0, CLOCK_FOREVER), 0);
        cr_assert_eq(park_wait_handle(handle, &word, 0, clock_ns() + 1000), -ETIME, "two strikes are one");
        cr_assert_eq(park_wait_handle(handle, &word, 1, CLOCK_FOREVER), 0, "the word had changed");
}

TEST_BOTH(deadlines) {
        uint32_t word = 0;
        int handle = handle_new();

        for (int i = 0; i < 100; i++) {
                int64_t at = clock_ns() + 100000;

                cr_assert_eq(park_wait_handle(handle, &word, 0, at), -ETIME);
                cr_assert_geq(clock_ns(), at);
        }
        cr_assert_eq(park_wait_handle(handle, &word, 0, 0), -ETIME);
        cr_assert_eq(park_wait_handle(handle, &word, 0, INT64_MIN), -ETIME);
}

/* A wait that ended by its deadline reads nothing any more: each strike after it is the next wait's. */
TEST_BOTH(a_deadline_swallows_no_strike) {
        uint32_t word = 0;
        int handle = handle_new();

        for (int i = 0; i < 1000; i++) {
                cr_assert_eq(park_wait_handle(handle, &word, 0, clock_ns() + 1000), -ETIME);
                bell_strike(handle);
                cr_assert_eq(park_wait_handle(handle, &word, 0, CLOCK_FOREVER), 0);
                cr_assert(quiet(handle));
        }
}

static void on_signal(int signal_number) {
        (void)signal_number;
}

TEST_BOTH(signal_interrupts) {
        const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
        struct sleeper s = {.handle = handle_new(), .deadline_ns = CLOCK_FOREVER};
        pthread_t t;

        sigaction(SIGUSR1, &action, NULL);
        t = sleeper_start(&s);
        pthread_kill(t, SIGUSR1);
        pthread_join(t, NULL);
        cr_assert_eq(s.result, -EINTR);
        bell_strike(s.handle);
        cr_assert(!quiet(s.handle), "the interrupted wait is still armed");
}

/* Strikes, signals and deadlines at the same moment: whatever ended the wait, the strike that came last is never lost. */
static void *sleep_often(void *p) {
        struct sleeper *s = p;

        __atomic_store_n(&s->tid, gettid(), __ATOMIC_RELEASE);
        for (uint32_t seen = 0; seen < 20000;) {
                int r = park_wait_handle(s->handle, &s->word, seen, clock_ns() + 10 * SECOND_NS);

                if (r == -EINTR)
                        s->n_interrupted++;
                else if (r != 0)
                        abort(); /* a deadline of ten seconds, with somebody who strikes on and on */
                seen = __atomic_load_n(&s->word, __ATOMIC_ACQUIRE);
                if (seen % 3 == 0 && park_wait_handle(s->handle, &s->word, seen, clock_ns() + 20000) == -EINTR)
                        s->n_interrupted++;
        }
        return NULL;
}

TEST_BOTH(nothing_is_lost) {
        const struct sigaction action = {.sa_handler = on_signal};
        struct sleeper s = {.handle = handle_new()};
        pthread_t t;

        sigaction(SIGUSR1, &action, NULL);
        cr_assert_eq(pthread_create(&t, NULL, sleep_often, &s), 0);
        for (uint32_t i = 1; i <= 20000; i++) {
                int64_t at = clock_ns() + i * 977 % 20000;

                while (clock_ns() < at)
                        cpu_pause();
                if (i % 1000 == 0)
                        alarm(WATCHDOG_S);
                if (i % 5 == 0)
                        pthread_kill(t, SIGUSR1);
                __atomic_store_n(&s.word, i, __ATOMIC_RELEASE);
                bell_strike(s.handle);
        }
        pthread_join(t, NULL);
        cr_log_info("%u interrupted", s.n_interrupted);
}

Test(handles_uring, asked_for_by_name) {
        const char *why;

        use(PARK_EVENTFD);
        cr_assert_eq(park_probe(&why, NULL), PARK_EVENTFD);
        cr_assert(*why, "why it is not the best there is");
        park_force(PARK_NONE);
        cr_assert_neq(park_probe(NULL, NULL), PARK_EVENTFD);
}

/* One that may not have a ring waits by poll(2), and words are futex(2)'s all the while. */
static void *without_a_ring(void *p) {
        struct sleeper *s = p;

        s->result = park_prepare() == -EMFILE ? 0 : 100;
        s->result += park_wait_handle(s->handle, &s->word, 0, clock_ns() + 1000000) == -ETIME ? 0 : 10;
        bell_strike(s->handle);
        s->result += park_wait_handle(s->handle, &s->word, 0, CLOCK_FOREVER) == 0 ? 0 : 1;
        return NULL;
}

Test(handles_uring, a_thread_without_a_ring) {
        struct sleeper s = {.handle = handle_new()};
        struct rlimit none = {3, 3}; /* all taken; none at all would refuse poll(2) as well */
        pthread_t t;

        use(PARK_EVENTFD);
        setrlimit(RLIMIT_NOFILE, &none);
        cr_assert_eq(pthread_create(&t, NULL, without_a_ring, &s), 0);
        pthread_join(t, NULL);
        cr_assert_eq(s.result, 0);
}
