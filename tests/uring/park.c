/*
 * park: every behaviour is tested on both engines; the io_uring half is skipped, with the reason, where the machine
 * refuses it. park_force() chooses, and each test is a process of its own (Criterion forks), so no choice leaks.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>

#include "support.h"
#include "uring/park.h"

static void use_engine(enum park_engine e) {
        const char *why;

        alarm(WATCHDOG_S);
        park_force(e);
        if (park_probe(&why, NULL) != e)
                cr_skip_test("io_uring refused: %s", why);
}

#define TEST_BOTH(name)                                                                                                \
        static void name(void);                                                                                        \
        Test(park_uring, name) {                                                                                       \
                use_engine(PARK_URING);                                                                                \
                name();                                                                                                \
        }                                                                                                              \
        Test(park_futex, name) {                                                                                       \
                use_engine(PARK_FUTEX);                                                                                \
                name();                                                                                                \
        }                                                                                                              \
        static void name(void)

static long engine_syscall(void) {
        return park_probe(NULL, NULL) == PARK_URING ? SYS_io_uring_enter : SYS_futex;
}

struct sleeper {
        uint32_t *word;
        int64_t deadline_ns;
        _Atomic pid_t tid;
        int result;
};

static void *sleep_once(void *p) {
        struct sleeper *s = p;

        if (park_prepare() < 0)
                abort();
        s->tid = gettid();
        s->result = park_wait(s->word, 0, s->deadline_ns);
        return NULL;
}

/* Returns when the thread really sleeps, and not merely on its way there. */
static pthread_t sleeper_start(struct sleeper *s) {
        pthread_t t;

        cr_assert_eq(pthread_create(&t, NULL, sleep_once, s), 0);
        while (!s->tid)
                sched_yield();
        await_sleep(getpid(), s->tid, engine_syscall());
        return t;
}

Test(park, probe_gives_an_engine_and_a_reason_for_less_than_the_best) {
        const char *why = NULL, *fix = NULL, *again;
        enum park_engine e = park_probe(&why, &fix);

        cr_log_info("engine %s%s%s%s%s", e == PARK_URING ? "io_uring" : "futex(2)", *why ? ", because " : "", why,
                *fix ? "; fix: " : "", fix);
        cr_assert(e == PARK_URING || e == PARK_FUTEX);
        cr_assert_eq(e == PARK_URING, *why == '\0');
        cr_assert_eq(park_probe(&again, NULL), e);
        cr_assert_eq(again, why, "the sentence is not static");
}

Test(park, force_is_obeyed_and_undone) {
        enum park_engine found = park_probe(NULL, NULL);
        const char *why;

        park_force(PARK_FUTEX);
        cr_assert_eq(park_probe(&why, NULL), PARK_FUTEX);
        cr_assert(*why);
        cr_assert_not(park_uring_allowed());
        park_force(PARK_NONE);
        cr_assert_eq(park_probe(NULL, NULL), found);
}

TEST_BOTH(wait_returns_at_once_when_the_word_differs) {
        uint32_t word = 1;

        cr_assert_eq(park_wait(&word, 0, CLOCK_FOREVER), 0);
}

TEST_BOTH(wake_without_sleepers_wakes_none) {
        uint32_t word = 0;

        cr_assert_eq(park_wake(&word, 1), 0);
        cr_assert_eq(park_wake(&word, INT32_MAX), 0);
        cr_assert_eq(park_wake_signal_safe(&word, 1), 0);
}

/* The word stays as it is, so only the wake can end the sleep. */
TEST_BOTH(wake_wakes_a_thread) {
        uint32_t word = 0;
        struct sleeper s = {.word = &word, .deadline_ns = CLOCK_FOREVER, .result = 1};
        pthread_t t = sleeper_start(&s);

        cr_assert_eq(park_wake(&word, 1), 1);
        pthread_join(t, NULL);
        cr_assert_eq(s.result, 0);
}

/* Two sleep, one may be woken; then, and only then, the second. */
TEST_BOTH(wake_wakes_no_more_than_asked) {
        uint32_t word = 0;
        struct sleeper s[2] = {
                {.word = &word, .deadline_ns = CLOCK_FOREVER}, {.word = &word, .deadline_ns = CLOCK_FOREVER}};
        pthread_t t[2] = {sleeper_start(&s[0]), sleeper_start(&s[1])};

        cr_assert_eq(park_wake(&word, 0), 0);
        cr_assert_eq(park_wake(&word, 1), 1);
        cr_assert_eq(park_wake(&word, 2), 1);
        pthread_join(t[0], NULL);
        pthread_join(t[1], NULL);
}

TEST_BOTH(signal_safe_wake_wakes_too_and_keeps_errno) {
        uint32_t word = 0;
        struct sleeper s = {.word = &word, .deadline_ns = CLOCK_FOREVER, .result = 1};
        pthread_t t = sleeper_start(&s);

        errno = EXDEV;
        cr_assert_eq(park_wake_signal_safe(&word, 1), 1);
        cr_assert_lt(park_wake_signal_safe((uint32_t *)1, 1), 0); /* misaligned: futex(2) sets errno */
        cr_assert_eq(errno, EXDEV);
        pthread_join(t, NULL);
        cr_assert_eq(s.result, 0);
}

/* The child sleeps, in an engine of its own, on a word in shared memory. */
TEST_BOTH(wake_wakes_a_process) {
        uint32_t *word = map_words();
        pid_t pid = fork_child();

        if (pid == 0) {
                park_after_fork_child();
                alarm(WATCHDOG_S);
                if (park_prepare() < 0)
                        _exit(2);
                word[16] = 1;
                _exit(park_wait(word, 0, CLOCK_FOREVER) == 0 ? 0 : 3);
        }
        while (!__atomic_load_n(&word[16], __ATOMIC_ACQUIRE))
                sched_yield();
        await_sleep(pid, pid, engine_syscall());
        cr_assert_eq(park_wake(word, 1), 1);
        cr_assert_eq(await_exit(pid), 0);
}

/* One side on each engine: one kernel table serves both. */
Test(park, engines_wake_each_other) {
        uint32_t word = 0;
        struct sleeper s = {.word = &word, .deadline_ns = CLOCK_FOREVER, .result = 1};
        pthread_t t;

        use_engine(PARK_URING);
        t = sleeper_start(&s);
        park_force(PARK_FUTEX);
        cr_assert_eq(park_wake(&word, 1), 1);
        pthread_join(t, NULL);
        cr_assert_eq(s.result, 0);

        s.tid = 0;
        t = sleeper_start(&s);
        park_force(PARK_URING);
        cr_assert_eq(park_wake(&word, 1), 1);
        pthread_join(t, NULL);
        cr_assert_eq(s.result, 0);
}

/* Only the lower bound: how much later is the scheduler's affair. */
TEST_BOTH(deadline_is_not_early) {
        uint32_t word = 0;
        int64_t at;

        for (int i = 0; i < 20; ++i) {
                at = clock_ns() + 1000000 * i / 4;
                cr_assert_eq(park_wait(&word, 0, at), -ETIME);
                cr_assert_geq(clock_ns(), at);
        }
        cr_assert_eq(park_wait(&word, 0, 0), -ETIME);
        cr_assert_eq(park_wait(&word, 0, INT64_MIN), -ETIME);
        cr_assert_eq(park_wait(&word, 1, 0), 0, "a changed word counts for more than the deadline");
}

/*
 * A wait that timed out must not linger: it would swallow the wake that is meant for the live sleeper. Time-outs first,
 * then a wake for one, which must report nobody; then a real sleeper on the same word must get its wake.
 */
TEST_BOTH(timed_out_wait_swallows_no_wake) {
        uint32_t word = 0;
        struct sleeper s = {.word = &word, .deadline_ns = CLOCK_FOREVER, .result = 1};
        pthread_t t;

        for (int i = 0; i < 50; ++i)
                cr_assert_eq(park_wait(&word, 0, clock_ns() + 20000), -ETIME);
        cr_assert_eq(park_wake(&word, 1), 0);
        t = sleeper_start(&s);
        cr_assert_eq(park_wake(&word, 1), 1);
        pthread_join(t, NULL);
        cr_assert_eq(s.result, 0);
}

/*
 * Deadlines and wakes at the same moment, over and over: sleeps of some 50 us (the slack of the timers), wakes some 50
 * us apart. The waker counts whom it woke; a wake that the kernel counted must come out as 0, never as -ETIME, and the
 * other way round.
 */
static void *wake_until_told(void *p) {
        uint32_t *words = p; /* 0 the word, 16 stop, 32 woken */

        for (unsigned i = 0; !__atomic_load_n(&words[16], __ATOMIC_ACQUIRE); ++i) {
                int64_t at = clock_ns() + i * 977 % 100000;

                while (clock_ns() < at)
                        cpu_pause();
                words[32] += (uint32_t)park_wake(&words[0], 1);
        }
        return NULL;
}

TEST_BOTH(wake_at_the_deadline_is_counted_on_both_sides) {
        uint32_t *words = map_words(), n_woken = 0, n_timed_out = 0;
        pthread_t t;
        int r;

        cr_assert_eq(pthread_create(&t, NULL, wake_until_told, words), 0);
        for (int i = 0; i < 20000; ++i) {
                if (i % 1000 == 0)
                        alarm(WATCHDOG_S);
                r = park_wait(&words[0], 0, clock_ns() + 1000 + 37 * (i % 100));
                cr_assert(r == 0 || r == -ETIME, "%d", r);
                n_woken += r == 0;
                n_timed_out += r == -ETIME;
        }
        __atomic_store_n(&words[16], 1, __ATOMIC_RELEASE);
        pthread_join(t, NULL);
        cr_log_info("%u woken, %u timed out", n_woken, n_timed_out);
        cr_assert_eq(n_woken, words[32]);
        cr_assert_gt(n_timed_out, 0);
}

static void on_signal(int signal_number) {
        (void)signal_number;
}

/* SA_RESTART must make no difference, nor must a deadline. After the signal the thread sleeps and wakes as before. */
static void interrupt_one(int flags, int64_t deadline_ns) {
        struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
        uint32_t word = 0;
        struct sleeper s = {.word = &word, .deadline_ns = deadline_ns, .result = 1};
        pthread_t t;

        sigaction(SIGUSR1, &action, NULL);
        t = sleeper_start(&s);
        pthread_kill(t, SIGUSR1);
        pthread_join(t, NULL);
        cr_assert_eq(s.result, -EINTR, "flags %x: %d", flags, s.result);
        cr_assert_eq(park_wake(&word, 1), 0, "the interrupted wait is still armed");
}

TEST_BOTH(signal_interrupts) {
        interrupt_one(0, CLOCK_FOREVER);
        interrupt_one(SA_RESTART, CLOCK_FOREVER);
        interrupt_one(0, clock_ns() + 60 * SECOND_NS);
        interrupt_one(SA_RESTART, clock_ns() + 60 * SECOND_NS);
}

/*
 * The ring is not left with something in it: one thread is interrupted, times out and is woken in every order, until it
 * has noticed 2,000 signals. A completion left behind would end a later wait, and with the wrong answer.
 */
static void *interrupted_often(void *p) {
        struct sleeper *s = p;
        int r;

        s->tid = gettid();
        while (!__atomic_load_n(s->word, __ATOMIC_ACQUIRE)) {
                r = park_wait(s->word, 0, clock_ns() + 200000);
                if (r != 0 && r != -EINTR && r != -ETIME)
                        abort();
                if (r == -EINTR)
                        __atomic_add_fetch(&s->result, 1, __ATOMIC_RELAXED);
        }
        return NULL;
}

TEST_BOTH(signal_storm_leaves_waiting_intact) {
        struct sigaction action = {.sa_handler = on_signal};
        uint32_t word = 0;
        struct sleeper s = {.word = &word};
        pthread_t t;

        sigaction(SIGUSR1, &action, NULL);
        cr_assert_eq(pthread_create(&t, NULL, interrupted_often, &s), 0);
        while (!s.tid)
                sched_yield();
        for (unsigned i = 0; __atomic_load_n(&s.result, __ATOMIC_RELAXED) < 2000; ++i) {
                pthread_kill(t, SIGUSR1);
                if (i % 64 == 0)
                        park_wake(&word, 1);
                if (i % 1024 == 0)
                        await_sleep(getpid(), s.tid, engine_syscall());
        }
        __atomic_store_n(&word, 1, __ATOMIC_RELEASE);
        park_wake(&word, 1);
        pthread_join(t, NULL);
}

/* Each side sleeps until the other has moved its word: one lost wake and both sleep until the watchdog. */
#define CYCLES 100000

static void *pong(void *p) {
        uint32_t *words = p;

        for (uint32_t i = 1; i <= CYCLES; ++i) {
                while (__atomic_load_n(&words[0], __ATOMIC_ACQUIRE) != i)
                        park_wait(&words[0], i - 1, CLOCK_FOREVER);
                __atomic_store_n(&words[32], i, __ATOMIC_RELEASE);
                park_wake(&words[32], 1);
        }
        return NULL;
}

TEST_BOTH(ping_pong_loses_no_wake) {
        uint32_t *words = map_words();
        pthread_t t;

        cr_assert_eq(pthread_create(&t, NULL, pong, words), 0);
        for (uint32_t i = 1; i <= CYCLES; ++i) {
                if (i % 1000 == 0)
                        alarm(WATCHDOG_S); /* a lost wake stops everything; a busy machine only slows it down */
                __atomic_store_n(&words[0], i, __ATOMIC_RELEASE);
                park_wake(&words[0], 1);
                while (__atomic_load_n(&words[32], __ATOMIC_ACQUIRE) != i)
                        park_wait(&words[32], i - 1, CLOCK_FOREVER);
        }
        pthread_join(t, NULL);
}

/* Readers may only map what a producer sealed: the sleeper's mapping is read-only, the waker's is not. */
TEST_BOTH(waits_on_a_read_only_mapping) {
        int fd = memfd_create("test", MFD_CLOEXEC);
        uint32_t *writable, *read_only;
        struct sleeper s = {.deadline_ns = CLOCK_FOREVER, .result = 1};
        pthread_t t;

        cr_assert_eq(ftruncate(fd, 4096), 0);
        writable = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        read_only = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        cr_assert(writable != MAP_FAILED && read_only != MAP_FAILED);
        s.word = read_only;
        t = sleeper_start(&s);
        cr_assert_eq(park_wake(writable, 1), 1);
        pthread_join(t, NULL);
        cr_assert_eq(s.result, 0);
}

TEST_BOTH(waits_on_a_huge_page) {
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_HUGETLB);
        struct sleeper s = {.deadline_ns = CLOCK_FOREVER, .result = 1};
        size_t size = 2 << 20;
        uint32_t *p, *q;
        pthread_t t;

        if (fd < 0 || ftruncate(fd, (off_t)size) < 0 ||
                (p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
                cr_skip_test("no huge pages: %s", strerror(errno));
        if (fallocate(fd, 0, 0, (off_t)size) < 0)
                cr_skip_test("no free huge page: %s", strerror(errno));
        q = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
        cr_assert_neq(q, MAP_FAILED);
        s.word = q + 12345;
        t = sleeper_start(&s);
        cr_assert_eq(park_wake(p + 12345, 1), 1);
        pthread_join(t, NULL);
        cr_assert_eq(s.result, 0);
}

TEST_BOTH(bad_addresses_are_errors) {
        uint32_t words[2] = {0};
        uint32_t *misaligned = (uint32_t *)((char *)words + 1), *unmapped;

        unmapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        munmap(unmapped, 4096);
        cr_assert_eq(park_wait(misaligned, 0, CLOCK_FOREVER), -EINVAL);
        cr_assert_eq(park_wake(misaligned, 1), -EINVAL);
        cr_assert_eq(park_wake(unmapped, 1), -EFAULT);
}

/* A hundred at a time, so that a hundred rings are open at once; all must be gone, and the second round reuses holders.
 */
static pthread_barrier_t hundred;

static void *prepare_and_end(void *p) {
        int *n_prepared = p;

        if (park_prepare() == 0)
                __atomic_add_fetch(n_prepared, 1, __ATOMIC_RELAXED);
        pthread_barrier_wait(&hundred);
        pthread_barrier_wait(&hundred);
        return NULL;
}

TEST_BOTH(thread_exit_frees_its_ring) {
        bool with_rings = park_probe(NULL, NULL) == PARK_URING;
        unsigned before = count_fds(), during;
        pthread_t threads[100];
        int n_prepared = 0;

        pthread_barrier_init(&hundred, NULL, 101);
        for (int round = 0; round < 3; ++round) {
                for (int i = 0; i < 100; ++i)
                        cr_assert_eq(pthread_create(&threads[i], NULL, prepare_and_end, &n_prepared), 0);
                pthread_barrier_wait(&hundred);
                during = count_fds();
                pthread_barrier_wait(&hundred);
                for (int i = 0; i < 100; ++i)
                        pthread_join(threads[i], NULL);
                cr_assert_eq(during, before + (with_rings ? 100 : 0));
                cr_assert_eq(count_fds(), before);
        }
        cr_assert_eq(n_prepared, 300);
}

/* The parent has two rings, one of another thread that sleeps in it; the child has none, and the parent's still work.
 */
TEST_BOTH(forked_child_gives_the_rings_back) {
        unsigned before = count_fds();
        uint32_t word = 0;
        struct sleeper s = {.word = &word, .deadline_ns = CLOCK_FOREVER, .result = 1};
        pthread_t t;
        pid_t pid;

        cr_assert_eq(park_prepare(), 0);
        t = sleeper_start(&s);
        pid = fork_child();
        if (pid == 0) {
                uint32_t other = 0;

                alarm(WATCHDOG_S);
                park_after_fork_child();
                if (count_fds() != before)
                        _exit(2);
                if (park_wait(&other, 0, clock_ns() + 1000000) != -ETIME || park_wake(&other, 1) != 0)
                        _exit(3);
                _exit(0);
        }
        cr_assert_eq(await_exit(pid), 0);
        cr_assert_eq(park_wake(&word, 1), 1);
        pthread_join(t, NULL);
        cr_assert_eq(s.result, 0);
}

/* No fd is to be had: the thread sleeps through futex(2), says so to whoever asks, and wakes. */
static void *without_ring(void *p) {
        struct sleeper *s = p;

        s->result = park_prepare() == -EMFILE ? 0 : 100;
        s->tid = gettid();
        s->result += park_wait(s->word, 0, s->deadline_ns);
        return NULL;
}

Test(park_uring, thread_without_a_ring_uses_futex) {
        uint32_t word = 0;
        struct sleeper s = {.word = &word, .deadline_ns = CLOCK_FOREVER, .result = 1};
        pthread_t t;
        int fd;

        use_engine(PARK_URING);
        cr_assert_eq(park_prepare(), 0);
        while ((fd = dup(0)) >= 0)
                ;
        cr_assert_eq(pthread_create(&t, NULL, without_ring, &s), 0);
        while (!s.tid)
                sched_yield();
        while (park_wake(&word, 1) == 0) /* no fd either to look into /proc whether it sleeps */
                sched_yield();
        pthread_join(t, NULL);
        cr_assert_eq(s.result, 0);
}
