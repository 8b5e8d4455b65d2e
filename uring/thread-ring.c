/* The ring of one thread: see thread-ring.h. */
#include "uring/thread-ring.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * Best first. DEFER_TASKRUN (6.1) completes a request only when its thread comes to ask, and so without an
 * interruption elsewhere; it needs SINGLE_ISSUER (6.0). COOP_TASKRUN (5.19) at least spares the interrupt.
 */
static const unsigned thread_ring_setups[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
#define SETUPS_OF_ONE 2
        IORING_SETUP_COOP_TASKRUN,
        0,
};

int thread_ring_init(struct thread_ring *ret, enum thread_ring_owner owner) {
        struct thread_ring r = THREAD_RING_NULL;
        int err = -EINVAL;

        if (owner == THREAD_RING_TELLS) {
                err = io_uring_queue_init(THREAD_RING_ENTRIES, &r.uring, thread_ring_setups[0] | IORING_SETUP_TASKRUN_FLAG);
                if (err == -EINVAL)
                        return -EOPNOTSUPP;
        }
        for (unsigned i = owner == THREAD_RING_OF_MANY ? SETUPS_OF_ONE : 0; i < sizeof(thread_ring_setups) / sizeof(*thread_ring_setups) && err == -EINVAL; ++i)
                err = io_uring_queue_init(THREAD_RING_ENTRIES, &r.uring, thread_ring_setups[i]);
        if (err < 0)
                return err;
        if (!(r.uring.features & IORING_FEAT_EXT_ARG)) { /* before 5.11 a timeout was a request of its own */
                io_uring_queue_exit(&r.uring);
                return -EOPNOTSUPP;
        }

        /*
         * We submit in order and all at once: entry i always goes through slot i, written here once and for all.
         */
        for (unsigned i = 0; i < r.uring.sq.ring_entries; ++i)
                r.uring.sq.array[i] = i;

        /*
         * A registered ring is a number in a table of the *thread*. Unregistering it from another thread would strike
         * whichever ring that one keeps under the same number (SINGLE_ISSUER refuses that, older kernels do not), hence
         * only for rings that never leave their thread.
         */
        if (owner == THREAD_RING_PINNED && io_uring_register_ring_fd(&r.uring) == 1)
                r.enter_flags = IORING_ENTER_REGISTERED_RING;
        *ret = r;
        return 0;
}

void thread_ring_deinit(struct thread_ring *r) {
        if (r->uring.ring_fd < 0)
                return;
        io_uring_queue_exit(&r->uring);
        *r = (struct thread_ring)THREAD_RING_NULL;
}

/*
 * Not io_uring_queue_exit(): that would also unregister, by number, from the table of the calling thread, where the
 * number may by now stand for a ring of the child. The queues are shared with the parent and are not touched.
 */
void thread_ring_forget(struct thread_ring *r) {
        struct io_uring_sq *sq = &r->uring.sq;
        struct io_uring_cq *cq = &r->uring.cq;

        /* The second: a fork that fell into thread_ring_init() may have copied zeroes. */
        if (r->uring.ring_fd < 0 || !sq->ring_ptr)
                return;
        munmap(sq->sqes, sq->ring_entries * sizeof(struct io_uring_sqe));
        if (cq->ring_ptr && cq->ring_ptr != sq->ring_ptr)
                munmap(cq->ring_ptr, cq->ring_sz);
        munmap(sq->ring_ptr, sq->ring_sz);
        close(r->uring.ring_fd);
        *r = (struct thread_ring)THREAD_RING_NULL;
}

int thread_ring_enter(struct thread_ring *r, unsigned n_complete, int64_t timeout_ns) {
        struct io_uring_sq *sq = &r->uring.sq;
        struct io_uring_cq *cq = &r->uring.cq;
        struct __kernel_timespec timeout;
        struct io_uring_getevents_arg arg = {.ts = (uint64_t)(uintptr_t)&timeout};
        unsigned n_submit = r->n_prepared, flags = r->enter_flags, left;
        bool timed = n_complete && timeout_ns >= 0;
        int n;

        r->n_prepared = 0;
        /* Release, pairs with the kernel's acquire of the tail: it must see the entries below it as we wrote them. */
        __atomic_store_n(sq->ktail, *sq->ktail + n_submit, __ATOMIC_RELEASE);

        if (n_complete)
                flags |= IORING_ENTER_GETEVENTS;
        if (timed) {
                timeout.tv_sec = timeout_ns / 1000000000;
                timeout.tv_nsec = timeout_ns % 1000000000;
                flags |= IORING_ENTER_EXT_ARG;
                n = io_uring_enter2(
                        (unsigned)r->uring.enter_ring_fd, n_submit, n_complete, flags, (void *)&arg, sizeof(arg));
        } else {
                n = io_uring_enter2((unsigned)r->uring.enter_ring_fd, n_submit, n_complete, flags, NULL, 0);
        }

        /* What the kernel did not take (out of memory, mostly) is taken back, so that the queue is empty again. */
        left = *sq->ktail - __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
        if (left) {
                __atomic_store_n(sq->ktail, *sq->ktail - left, __ATOMIC_RELEASE);
                return n < 0 && n != -EINTR && n != -ETIME ? n : -EAGAIN;
        }

        /* The return value says "submitted" even when the wait behind it was cut short: only the queue tells. */
        if (__atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE) - *cq->khead >= n_complete)
                return 0;
        return n >= 0 || n == -ETIME ? -EINTR : n;
}
