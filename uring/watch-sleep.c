/*
 * Sleeping in io_uring: one IORING_OP_POLL_ADD of the epoll fd. It stays armed over time-outs and signals and is only
 * prepared again once it has fired; arming looks at the epoll fd, so nothing that came in between is missed.
 */
#include "uring/watch-sleep.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "uring/compat.h"
#include "uring/thread-ring.h"

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

int watch_sleep_until(struct watch_sleep *s, int epoll_fd, int64_t deadline_ns) {
        int64_t timeout_ns = -1;
        uint64_t user_data;
        int r, result = 0;

        if (deadline_ns != CLOCK_FOREVER) {
                int64_t now_ns = clock_ns();

                timeout_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0; /* one look even when it is past */
        }
        if (!s->armed)
                io_uring_prep_poll_add(thread_ring_entry(&s->ring), epoll_fd, POLLIN);
        r = thread_ring_enter(&s->ring, 1, timeout_ns);
        if (r < 0 && r != -EINTR)
                return r;
        s->armed = true;
        if (r == -EINTR)
                return deadline_ns != CLOCK_FOREVER && clock_ns() >= deadline_ns ? -ETIME : -EINTR;

        while (thread_ring_reap(&s->ring, &user_data, &result))
                s->armed = false;
        return result < 0 ? result : 0;
}
