/* The set of fds and its sleeper: see watch.h. The ring, if there is one, is hidden behind watch-sleep.h. */
#include "uring/watch.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "uring/park.h"
#include "uring/watch-sleep.h"

#define WATCH_BATCH_MAX                                                                                                \
        64 /* events taken per call, on the stack; chosen by feel, the rest comes with the next call                   \
            */

enum watch_engine {
        WATCH_UNDECIDED, /* until the first wait */
        WATCH_URING,
        WATCH_EPOLL,
};

struct watch {
        int epoll_fd;
        int wake_fd; /* eventfd in the epoll set, its cookie is the address of this field, which no caller can have */
        struct watch_sleep *sleep; /* touched by the waiting thread only; and the next */
        unsigned epoch;
        bool worded; /* words were said */
        atomic_int engine;         /* written by the waiting thread, read by any */
};

#define WATCH_NULL                                                                                                     \
        { .epoll_fd = -1, .wake_fd = -1 }

static void watch_freep(struct watch **w) {
        watch_free(*w);
}

int watch_new(struct watch **ret) {
        _cleanup_(watch_freep) struct watch *w = NULL;
        int r;

        w = malloc(sizeof(*w));
        if (!w)
                return -ENOMEM;
        *w = (struct watch)WATCH_NULL;

        w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (w->epoll_fd < 0)
                return -errno;
        /* Nonblocking: a full counter must not stop the one who wakes, and one wake is as good as many. */
        w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (w->wake_fd < 0)
                return -errno;
        r = watch_add(w, w->wake_fd, EPOLLIN, &w->wake_fd);
        if (r < 0)
                return r;

        *ret = steal_ptr(w);
        return 0;
}

/* Nobody may be in watch_wait() any more. The fds added stay the caller's. Accepts NULL. */
struct watch *watch_free(struct watch *w) {
        if (w) {
                watch_sleep_free(w->sleep);
                cleanup_closep(&w->wake_fd);
                cleanup_closep(&w->epoll_fd);
                free(w);
        }
        return NULL;
}

/* Level-triggered: an fd is reported by every wait until it has been served. It stays the caller's. */
int watch_add(struct watch *w, int fd, uint32_t events, void *cookie) {
        struct epoll_event event = {.events = events, .data.ptr = cookie};

        if (epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
                return -errno;
        return 0;
}

/* For other events from now on; one that was reported with EPOLLONESHOT is again, should there be anything. */
int watch_change(struct watch *w, int fd, uint32_t events, void *cookie) {
        struct epoll_event event = {.events = events, .data.ptr = cookie};

        if (epoll_ctl(w->epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0)
                return -errno;
        return 0;
}

/*
 * Before the fd is closed: epoll knows open files, not numbers, and one that a forked child has inherited would stay in
 * the set. A wait that has already collected an event may still report this fd once: keep its cookie valid until that
 * wait has returned.
 */
int watch_remove(struct watch *w, int fd) {
        if (epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, fd, NULL) < 0)
                return -errno;
        return 0;
}

/* The wait in progress, or else the next one, returns at once. */
int watch_wake(struct watch *w) {
        int saved = errno; /* a signal handler leaves no trace */
        uint64_t one = 1;
        ssize_t n;
        int r = 0;

        n = syscall(SYS_write, w->wake_fd, &one, sizeof(one));
        if (n < 0 && errno != EAGAIN) /* EAGAIN: 2^64 - 2 wakes are pending, that will do */
                r = -errno;
        errno = saved;
        return r;
}

/* What the waiting thread sleeps in, as decided at its first wait; "epoll" before that. */
const char *watch_engine(const struct watch *w) {
        return atomic_load_explicit(&w->engine, memory_order_relaxed) == WATCH_URING ? "io_uring" : "epoll";
}

/* The parent's registrations are shared with it, and so nothing is removed: closing our copies is all. */
void watch_after_fork_child(struct watch *w) {
        w->sleep = watch_sleep_forget(w->sleep);
        cleanup_closep(&w->wake_fd);
        cleanup_closep(&w->epoll_fd);
        *w = (struct watch)WATCH_NULL; /* calls in the child say -EBADF, free is fine */
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

/*
 * One epoll_wait: at most @n events, of which a wake is one; *ret_woken if there was one. Never more than can be told: what
 * epoll reports goes behind the others, and what is dropped here would wait for its turn again.
 */
static int watch_collect(struct watch *w, struct watch_event *ret, unsigned n, int64_t deadline_ns, bool *ret_woken) {
        struct epoll_event events[WATCH_BATCH_MAX];
        struct timespec timeout, *timeoutp = NULL;
        int n_events, n_ret = 0, n_max = (int)(n < WATCH_BATCH_MAX ? n : WATCH_BATCH_MAX);

        if (deadline_ns != CLOCK_FOREVER) {
                int64_t left = deadline_ns > 0 ? deadline_ns - clock_ns() : 0;

                left = left > 0 ? left : 0;
                timeout = (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
                timeoutp = &timeout;
        }
        n_events = epoll_pwait2(w->epoll_fd, events, n_max, timeoutp, NULL);
        if (n_events < 0 && (errno == ENOSYS || errno == EPERM)) { /* before 5.11, or an old seccomp profile */
                int64_t left_ms = timeoutp ? timeout.tv_sec * 1000 + (timeout.tv_nsec + 999999) / 1000000 : -1;

                n_events = epoll_wait(w->epoll_fd, events, n_max, (int)(left_ms < INT32_MAX ? left_ms : INT32_MAX));
        }
        if (n_events < 0)
                return -errno;

        for (int i = 0; i < n_events; ++i) {
                if (events[i].data.ptr == &w->wake_fd) {
                        uint64_t count;

                        (void)!read(w->wake_fd, &count, sizeof(count)); /* empty is fine, too */
                        *ret_woken = true;
                } else {
                        ret[n_ret++] = (struct watch_event){.cookie = events[i].data.ptr, .events = events[i].events};
                }
        }
        return n_ret;
}

static void watch_decide(struct watch *w) {
        w->sleep = watch_sleep_free(w->sleep);
        w->epoch++;
        if (park_uring_allowed() && watch_sleep_new(&w->sleep) == 0)
                atomic_store_explicit(&w->engine, WATCH_URING, memory_order_relaxed);
        else
                atomic_store_explicit(&w->engine, WATCH_EPOLL, memory_order_relaxed);
}

/* By the thread that will wait: its ring is made now, and not by its first wait. */
void watch_prepare(struct watch *w) {
        if (atomic_load_explicit(&w->engine, memory_order_relaxed) == WATCH_UNDECIDED)
                watch_decide(w);
}

/*
 * Waits for at least one of the fds and fills in up to @n of them. The count; 0 at the deadline or after watch_wake();
 * -EINTR after a signal, or because the kernel was taking a ring of this thread apart: simply wait again. One thread at
 * a time, usually always the same: a new one has to make a new ring.
 */
int watch_wait(struct watch *w, struct watch_event *ret, unsigned n, int64_t deadline_ns) {
        bool woken = false;
        int r;

        watch_prepare(w);
        while (w->sleep) {
                unsigned words = 0;

                r = watch_sleep_until(w->sleep, w->epoll_fd, deadline_ns, ret, n, &words);
                if (words) {
                        int fds = words < n ? watch_collect(w, ret + words, n - words, 0, &woken) : 0;

                        return (int)words + (fds > 0 ? fds : 0);
                }
                if (r == -EEXIST) {
                        watch_decide(w);
                        if (w->worded) /* they have to be said again */
                                return -EINTR;
                } else if (r == -ETIME) {
                        return 0;
                } else if (r == -EINTR) {
                        return r;
                } else if (r < 0) { /* no memory for a request */
                        w->epoch++;
                        if (w->worded)
                                return r;
                        break; /* sleep without the ring, this time */
                } else {
                        r = watch_collect(w, ret, n, 0, &woken);
                        if (r != 0 || woken)
                                return r;
                        /* It was there and is gone, or was removed: sleep on. */
                }
        }
        return watch_collect(w, ret, n, deadline_ns, &woken);
}

/*
 * By the waiting thread: its next watch_wait() also ends when the word is woken or is not @expected, and reports @tag, which
 * is not 0, once. Until then it stays, over any number of waits, for as long as watch_words_epoch() does not change.
 * -ENOSYS: not in this kernel, or not on this machine; -EAGAIN, -ENOMEM: not now.
 */
int watch_word(struct watch *w, uint64_t tag, const uint32_t *word, uint32_t expected) {
        int r;

        watch_prepare(w);
        if (!w->sleep || park_probe(NULL, NULL) != PARK_URING)
                return -ENOSYS;
        r = watch_sleep_word(w->sleep, tag, word, expected);
        if (r == -EEXIST) { /* another thread's now */
                watch_decide(w);
                r = w->sleep ? watch_sleep_word(w->sleep, tag, word, expected) : -ENOSYS;
        } else if (r < 0)
                w->epoch++;
        w->worded = true;
        return r;
}

/* It may be reported all the same. */
void watch_forget_word(struct watch *w, uint64_t tag) {
        if (w->sleep)
                watch_sleep_cancel(w->sleep, tag);
}

/* What was said before it changed has to be said again. */
unsigned watch_words_epoch(const struct watch *w) {
        return w->epoch;
}
