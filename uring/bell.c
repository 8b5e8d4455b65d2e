/* The descriptor of a bell, and ringing it by hand: see bell.h. The ring stands in bell-ring.c. */
#include "uring/bell.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "uring/bell-ring.h"
#include "uring/park.h"

struct bell {
        uint32_t *word;
        int event_fd;
        struct bell_ring *ring; /* NULL: rung by hand */

        /* By hand: an epoll, once it is asked for, of the eventfd and of a timer once there is a time to keep. */
        int fd;
        int timer_fd;
        int64_t timer_at;
};

#define BELL_NULL                                                                                                      \
        { .event_fd = -1, .fd = -1, .timer_fd = -1, .timer_at = CLOCK_FOREVER }

static int bell_watch(struct bell *b, int fd) {
        struct epoll_event event = {.events = EPOLLIN};

        return epoll_ctl(b->fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int bell_new(struct bell **ret, uint32_t *word) {
        struct bell *b;
        int r = 0;

        b = malloc(sizeof(*b));
        if (!b)
                return -ENOMEM;
        *b = (struct bell)BELL_NULL;
        b->word = word;
        b->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (b->event_fd < 0)
                r = -errno;
        else if (park_probe(NULL, NULL) == PARK_URING)
                (void)bell_ring_new(&b->ring, b->event_fd); /* or by hand */
        if (r < 0) {
                bell_free(b);
                return r;
        }
        *ret = b;
        return 0;
}

struct bell *bell_free(struct bell *b) {
        if (b) {
                bell_ring_free(b->ring);
                cleanup_closep(&b->event_fd);
                cleanup_closep(&b->timer_fd);
                cleanup_closep(&b->fd);
                free(b);
        }
        return NULL;
}

int bell_fd(struct bell *b) {
        int r;

        if (b->ring)
                return b->event_fd;
        if (b->fd >= 0)
                return b->fd;
        b->fd = epoll_create1(EPOLL_CLOEXEC);
        r = b->fd < 0 ? -errno : bell_watch(b, b->event_fd);
        if (r == 0 && b->timer_fd >= 0)
                r = bell_watch(b, b->timer_fd);
        if (r < 0) {
                cleanup_closep(&b->fd);
                b->fd = -1;
                return r;
        }
        return b->fd;
}

int bell_handle(const struct bell *b) {
        return b->ring ? -1 : b->event_fd;
}

void bell_quiet(struct bell *b) {
        uint64_t n;

        (void)syscall(SYS_read, b->event_fd, &n, sizeof(n)); /* empty: it is quiet */
        if (b->timer_at <= clock_ns()) {
                (void)syscall(SYS_read, b->timer_fd, &n, sizeof(n));
                b->timer_at = CLOCK_FOREVER;
        }
}

void bell_strike(int handle) {
        const uint64_t one = 1;
        int saved = errno; /* a signal handler leaves no trace */

        (void)syscall(SYS_write, handle, &one, sizeof(one)); /* full: it is readable */
        errno = saved;
}

void bell_ring(struct bell *b) {
        bell_strike(b->event_fd);
}

/* A timer that goes off too early rings once for nothing; it is only set again for an earlier time. */
static int bell_set_timer(struct bell *b, int64_t at_ns) {
        struct itimerspec at = {.it_value = {.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000}};
        int r;

        if (at_ns >= b->timer_at)
                return 0;
        if (at_ns <= 0)
                at.it_value.tv_nsec = 1; /* zero would stop it */
        if (b->timer_fd < 0) {
                b->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
                if (b->timer_fd < 0)
                        return -errno;
                r = b->fd >= 0 ? bell_watch(b, b->timer_fd) : 0;
                if (r < 0)
                        return r;
        }
        if (timerfd_settime(b->timer_fd, TFD_TIMER_ABSTIME, &at, NULL) < 0)
                return -errno;
        b->timer_at = at_ns;
        return 0;
}

int bell_arm(struct bell *b, uint32_t expected, int64_t until_ns) {
        int r;

        bell_quiet(b);
        if (b->ring)
                r = bell_ring_arm(b->ring, b->word, expected, until_ns);
        else
                r = bell_set_timer(b, until_ns);
        /* What is armed may have been armed for a word that came before this one, and what was struck before we listened
         * is quiet again. */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (r > 0 || __atomic_load_n(b->word, __ATOMIC_RELAXED) != expected)
                bell_ring(b);
        return r < 0 ? r : 0;
}

void bell_after_fork_child(struct bell *b) {
        b->ring = bell_ring_forget(b->ring);
        cleanup_closep(&b->event_fd);
        cleanup_closep(&b->timer_fd);
        cleanup_closep(&b->fd);
        b->event_fd = b->timer_fd = b->fd = -1;
}
