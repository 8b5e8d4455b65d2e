/* watch: on io_uring and on epoll alone; the io_uring half is skipped, with the reason, where the machine refuses it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "support.h"
#include "uring/park.h"
#include "uring/watch.h"

static struct watch *watch_make(const char *engine) {
        struct watch *w = NULL;
        struct watch_event e;

        alarm(WATCHDOG_S);
        if (!strcmp(engine, "epoll"))
                park_force(PARK_FUTEX);
        cr_assert_eq(watch_new(&w), 0);
        cr_assert_eq(watch_wait(w, &e, 1, 0), 0);
        if (strcmp(watch_engine(w), engine) != 0)
                cr_skip_test("%s refused, the watch uses %s", engine, watch_engine(w));
        return w;
}

#define TEST_BOTH(name)                                                                                                \
        static void name(struct watch *w);                                                                             \
        Test(watch_uring, name) {                                                                                      \
                name(watch_make("io_uring"));                                                                          \
        }                                                                                                              \
        Test(watch_epoll, name) {                                                                                      \
                name(watch_make("epoll"));                                                                             \
        }                                                                                                              \
        static void name(struct watch *w)

struct waiter {
        struct watch *w;
        _Atomic pid_t tid;
        int64_t deadline_ns;
        int result;
        struct watch_event event;
};

static void *wait_once(void *p) {
        struct waiter *t = p;
        struct watch_event e;

        watch_wait(t->w, &e, 1, 0); /* makes its ring, so that asleep means asleep in there */
        t->tid = gettid();
        t->result = watch_wait(t->w, &t->event, 1, t->deadline_ns);
        return NULL;
}

static pthread_t waiter_start(struct waiter *t) {
        pthread_t thread;

        cr_assert_eq(pthread_create(&thread, NULL, wait_once, t), 0);
        while (!t->tid)
                sched_yield();
        await_sleep(getpid(), t->tid, park_uring_allowed() ? SYS_io_uring_enter : SYS_epoll_pwait2);
        return thread;
}

/* Level-triggered: reported until it has been read, and with the caller's cookie. */
TEST_BOTH(readable_socket_is_reported_until_served) {
        struct watch_event e[4];
        int s[2], cookie;
        char c;

        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
        cr_assert_eq(watch_add(w, s[0], EPOLLIN, &cookie), 0);
        cr_assert_eq(watch_wait(w, e, 4, 0), 0);
        cr_assert_eq(write(s[1], "x", 1), 1);
        for (int i = 0; i < 3; ++i) {
                cr_assert_eq(watch_wait(w, e, 4, CLOCK_FOREVER), 1);
                cr_assert_eq(e[0].cookie, &cookie);
                cr_assert_eq(e[0].events, EPOLLIN);
        }
        cr_assert_eq(read(s[0], &c, 1), 1);
        cr_assert_eq(watch_wait(w, e, 4, 0), 0);
        cr_assert_eq(watch_free(w), NULL);
        cr_assert_eq(write(s[0], "x", 1), 1, "the socket is ours and still open");
}

TEST_BOTH(socket_wakes_a_sleeper) {
        struct waiter t = {.w = w, .deadline_ns = CLOCK_FOREVER};
        pthread_t thread;
        int s[2];

        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
        cr_assert_eq(watch_add(w, s[0], EPOLLIN, &t), 0);
        thread = waiter_start(&t);
        cr_assert_eq(write(s[1], "x", 1), 1);
        pthread_join(thread, NULL);
        cr_assert_eq(t.result, 1);
        cr_assert_eq(t.event.cookie, &t);
        watch_free(w);
}

TEST_BOTH(pidfd_of_a_killed_child_is_readable) {
        struct waiter t = {.w = w, .deadline_ns = CLOCK_FOREVER};
        pid_t pid = fork_child();
        pthread_t thread;
        int pidfd;

        if (pid == 0)
                for (;;)
                        pause();
        pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        cr_assert_geq(pidfd, 0);
        cr_assert_eq(watch_add(w, pidfd, EPOLLIN, &pidfd), 0);
        thread = waiter_start(&t);
        kill(pid, SIGKILL);
        pthread_join(thread, NULL);
        cr_assert_eq(t.result, 1);
        cr_assert_eq(t.event.cookie, &pidfd);
        cr_assert(t.event.events & EPOLLIN);
        await_exit(pid);
        watch_free(w);
}

/* Added under a sleeper it counts, removed under a sleeper it does not: only the wake ends that sleep. */
TEST_BOTH(add_and_remove_while_waiting) {
        struct waiter t = {.w = w, .deadline_ns = CLOCK_FOREVER};
        pthread_t thread = waiter_start(&t);
        int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
        uint64_t n;

        cr_assert_eq(watch_add(w, fd, EPOLLIN, &fd), 0);
        pthread_join(thread, NULL);
        cr_assert_eq(t.result, 1);
        cr_assert_eq(t.event.cookie, &fd);

        cr_assert_eq(read(fd, &n, sizeof(n)), sizeof(n));
        t = (struct waiter){.w = w, .deadline_ns = CLOCK_FOREVER, .result = -1};
        thread = waiter_start(&t);
        cr_assert_eq(watch_remove(w, fd), 0);
        cr_assert_eq(watch_remove(w, fd), -ENOENT);
        n = 1;
        cr_assert_eq(write(fd, &n, sizeof(n)), sizeof(n));
        cr_assert_eq(watch_wake(w), 0);
        pthread_join(thread, NULL);
        cr_assert_eq(t.result, 0, "a removed fd was reported");
        watch_free(w);
}

TEST_BOTH(wake_from_another_thread) {
        struct waiter t = {.w = w, .deadline_ns = CLOCK_FOREVER, .result = -1};
        pthread_t thread = waiter_start(&t);

        cr_assert_eq(watch_wake(w), 0);
        pthread_join(thread, NULL);
        cr_assert_eq(t.result, 0);
        watch_free(w);
}

/* One that comes before the wait is kept, once: the second wait runs into its deadline. */
TEST_BOTH(wake_before_the_wait_is_kept_once) {
        struct watch_event e;
        int64_t at;

        cr_assert_eq(watch_wake(w), 0);
        cr_assert_eq(watch_wake(w), 0);
        cr_assert_eq(watch_wait(w, &e, 1, CLOCK_FOREVER), 0);
        at = clock_ns() + 3000000;
        cr_assert_eq(watch_wait(w, &e, 1, at), 0);
        cr_assert_geq(clock_ns(), at);
        watch_free(w);
}

static void on_signal(int signal_number) {
        (void)signal_number;
}

TEST_BOTH(signal_interrupts) {
        struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
        struct waiter t = {.w = w, .deadline_ns = CLOCK_FOREVER};
        pthread_t thread;

        sigaction(SIGUSR1, &action, NULL);
        thread = waiter_start(&t);
        pthread_kill(thread, SIGUSR1);
        pthread_join(thread, NULL);
        cr_assert_eq(t.result, -EINTR);
        watch_free(w);
}

/* Time-outs leave the poll armed: the event that comes after them must still be seen, and all that fit are told. */
TEST_BOTH(events_after_time_outs_are_seen) {
        struct watch_event e[8];
        int fds[8];
        uint64_t n = 1;

        for (int i = 0; i < 8; ++i) {
                fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
                cr_assert_eq(watch_add(w, fds[i], EPOLLIN, &fds[i]), 0);
        }
        for (int i = 0; i < 100; ++i) {
                int64_t at = clock_ns() + 50000;

                cr_assert_eq(watch_wait(w, e, 8, at), 0);
                cr_assert_geq(clock_ns(), at);
                cr_assert_eq(write(fds[i % 8], &n, sizeof(n)), sizeof(n));
                cr_assert_eq(watch_wait(w, e, 8, CLOCK_FOREVER), 1);
                cr_assert_eq(e[0].cookie, &fds[i % 8]);
                cr_assert_eq(read(fds[i % 8], &n, sizeof(n)), sizeof(n));
        }
        for (int i = 0; i < 8; ++i)
                cr_assert_eq(write(fds[i], &n, sizeof(n)), sizeof(n));
        cr_assert_eq(watch_wait(w, e, 3, CLOCK_FOREVER), 3);
        cr_assert_eq(watch_wait(w, e, 8, CLOCK_FOREVER), 8);
        watch_free(w);
}

/* A ring serves one thread; when another comes to wait, it is replaced. Three threads, one after the other. */
TEST_BOTH(waiting_thread_may_change) {
        unsigned before;

        for (int i = 0; i < 3; ++i) {
                struct waiter t = {.w = w, .deadline_ns = CLOCK_FOREVER, .result = -1};
                pthread_t thread;

                before = count_fds();
                thread = waiter_start(&t);
                cr_assert_eq(watch_wake(w), 0);
                pthread_join(thread, NULL);
                cr_assert_eq(t.result, 0);
                cr_assert_eq(count_fds(), before);
        }
        watch_free(w);
}

TEST_BOTH(thousand_adds_and_removes_leak_nothing) {
        unsigned before = count_fds();
        struct watch_event e;
        int s[2];

        for (int i = 0; i < 1000; ++i) {
                cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
                cr_assert_eq(watch_add(w, s[0], EPOLLIN, s), 0);
                cr_assert_eq(watch_add(w, s[0], EPOLLIN, s), -EEXIST);
                if (i % 2)
                        cr_assert_eq(write(s[1], "x", 1), 1);
                cr_assert_eq(watch_wait(w, &e, 1, 0), i % 2);
                cr_assert_eq(watch_remove(w, s[0]), 0);
                close(s[0]);
                close(s[1]);
        }
        cr_assert_eq(count_fds(), before);
        watch_free(w);
}

/* Free closes the ring of a thread that is long gone. */
TEST_BOTH(free_closes_everything) {
        struct waiter t = {.w = w, .deadline_ns = 0};
        unsigned before;
        pthread_t thread;

        watch_free(w);
        before = count_fds();
        cr_assert_eq(watch_new(&t.w), 0);
        cr_assert_eq(pthread_create(&thread, NULL, wait_once, &t), 0);
        pthread_join(thread, NULL);
        watch_free(t.w);
        cr_assert_eq(count_fds(), before);
        cr_assert_eq(watch_free(NULL), NULL);
}

/* The child closes its copies; the parent's sleeper, its fds and its registrations are as before. */
TEST_BOTH(forked_child_lets_go) {
        struct waiter t = {.w = w, .deadline_ns = CLOCK_FOREVER};
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        unsigned all;
        uint64_t n = 1;
        pthread_t thread;
        pid_t pid;

        cr_assert_eq(watch_add(w, fd, EPOLLIN, &fd), 0);
        thread = waiter_start(&t);
        all = count_fds();
        pid = fork_child();
        if (pid == 0) {
                struct watch_event e;

                watch_after_fork_child(w);
                if (count_fds() != all - (park_uring_allowed() ? 3 : 2))
                        _exit(2);
                if (watch_wait(w, &e, 1, CLOCK_FOREVER) != -EBADF || watch_wake(w) != -EBADF)
                        _exit(3);
                watch_free(w);
                _exit(0);
        }
        cr_assert_eq(await_exit(pid), 0);
        cr_assert_eq(write(fd, &n, sizeof(n)), sizeof(n));
        pthread_join(thread, NULL);
        cr_assert_eq(t.result, 1);
        cr_assert_eq(t.event.cookie, &fd);
        watch_free(w);
}
