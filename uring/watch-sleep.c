/*
 * Sleeping in io_uring: one IORING_OP_POLL_ADD of the epoll fd, and an IORING_OP_FUTEX_WAIT for each word. They stay armed
 * over time-outs and signals and are only prepared again once they have fired; arming looks at the epoll fd, and at the
 * word, so nothing that came in between is missed.
 */
#include "uring/watch-sleep.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "uring/compat.h"
#include "uring/thread-ring.h"

/* user_data of what is not a word. */
#define SLEEP_POLL 0u
#define SLEEP_CANCEL UINT64_MAX

struct watch_sleep {
        struct thread_ring ring;
        bool armed;
};

int watch_sleep_new(struct watch_sleep **ret) {
        _cleanup_(cleanup_freep) struct watch_sleep *s = NULL;
        int r;

        s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        /* Movable: whoever frees the watch closes the ring, after the sleeping thread has ended. */
        r = thread_ring_init(&s->ring, THREAD_RING_MOVABLE);
        if (r < 0)
                return r;
        *ret = steal_ptr(s);
        return 0;
}

struct watch_sleep *watch_sleep_free(struct watch_sleep *s) {
        if (s) {
                thread_ring_deinit(&s->ring);
                free(s);
        }
        return NULL;
}

struct watch_sleep *watch_sleep_forget(struct watch_sleep *s) {
        if (s) {
                thread_ring_forget(&s->ring);
                free(s);
        }
        return NULL;
}

int watch_sleep_until(struct watch_sleep *s, int epoll_fd, int64_t deadline_ns, struct watch_event *ret, unsigned n,
        unsigned *ret_n) {
        int64_t timeout_ns = -1;
        uint64_t user_data;
        int r, result, polled = -EINTR;
        bool cancelled;

        if (deadline_ns != CLOCK_FOREVER) {
                int64_t now_ns = clock_ns();

                timeout_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0; /* one look even when it is past */
        }
        do {
                if (!s->armed) {
                        struct io_uring_sqe *sqe = thread_ring_entry(&s->ring);

                        io_uring_prep_poll_add(sqe, epoll_fd, POLLIN);
                        sqe->user_data = SLEEP_POLL; /* the slot's last one stands there still */
                }
                r = thread_ring_enter(&s->ring, 1, timeout_ns);
                if (r < 0 && r != -EINTR)
                        return r;
                s->armed = true;
                cancelled = false;
                while (*ret_n < n && thread_ring_reap(&s->ring, &user_data, &result)) {
                        if (user_data == SLEEP_POLL) {
                                s->armed = false;
                                polled = result < 0 ? result : 0;
                        } else if (user_data == SLEEP_CANCEL)
                                cancelled = true;
                        else
                                ret[(*ret_n)++] = (struct watch_event){.events = WATCH_WORD, .tag = user_data};
                }
        } while (cancelled && polled == -EINTR && !*ret_n); /* nobody waits for that */
        if (polled == -EINTR && !*ret_n && deadline_ns != CLOCK_FOREVER && clock_ns() >= deadline_ns)
                return -ETIME;
        return polled;
}

/* Makes room for one more entry. */
static int submit_some(struct watch_sleep *s) {
        return s->ring.n_prepared + 2 < THREAD_RING_ENTRIES ? 0 : thread_ring_enter(&s->ring, 0, -1);
}

int watch_sleep_word(struct watch_sleep *s, uint64_t tag, const uint32_t *word, uint32_t expected) {
        struct io_uring_sqe *sqe;
        int r;

        r = submit_some(s);
        if (r < 0)
                return r;
        sqe = thread_ring_entry(&s->ring);
        compat_prep_futex_wait(sqe, word, expected);
        sqe->user_data = tag;
        return 0;
}

void watch_sleep_cancel(struct watch_sleep *s, uint64_t tag) {
        struct io_uring_sqe *sqe;

        if (submit_some(s) < 0)
                return;
        sqe = thread_ring_entry(&s->ring);
        compat_prep_cancel(sqe, tag);
        sqe->user_data = SLEEP_CANCEL;
}
