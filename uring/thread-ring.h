/*
 * A small io_uring that belongs to one thread, and one system call per step: thread_ring_enter() submits what was
 * prepared and waits in the same io_uring_enter(). Everything prepared is submitted by the next enter, so between two
 * enters the submission queue is empty and thread_ring_entry() always finds room for a handful of entries.
 *
 * liburing makes and maps the ring. Its submit-and-wait is not used: with a timeout it waits again after a signal as
 * soon as the first enter has submitted something, and a signal would go unnoticed until the deadline.
 */
#ifndef PSYNE_URING_THREAD_RING_H
#define PSYNE_URING_THREAD_RING_H
#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

/* The most that is ever in flight is a wait and its cancellation; 8 entries and the queue heads fill two pages. */
#define THREAD_RING_ENTRIES 8

struct thread_ring {
        struct io_uring uring;
        unsigned n_prepared; /* entries written and not yet submitted */
        unsigned enter_flags;
};

#define THREAD_RING_NULL                                                                                               \
        { .uring.ring_fd = -1 }

enum thread_ring_owner {
        THREAD_RING_PINNED, /* used and deinitialised by the thread that made it: its fd is registered, saving a look-up
                             */
        THREAD_RING_MOVABLE, /* may be deinitialised by another thread, but is still used by one only */
        THREAD_RING_OF_MANY, /* used by several threads, one at a time */
        THREAD_RING_TELLS, /* that, and thread_ring_has_work() says whether something completed. -EOPNOTSUPP before 6.1 */
};

int thread_ring_init(struct thread_ring *r, enum thread_ring_owner owner);
void thread_ring_deinit(struct thread_ring *r); /* nothing may be armed, except polls */
void thread_ring_forget(
        struct thread_ring *r); /* in a forked child: gives back fd and addresses, the parent unharmed */

/*
 * Submits what was prepared and waits until @n_complete completions are there, at most @timeout_ns (negative: for
 * ever). 0 when they are; -EINTR when it came back short, because of a signal or because the time has passed: the
 * caller's clock tells which, and what was submitted stays in flight. Any other error: nothing was submitted.
 */
int thread_ring_enter(struct thread_ring *r, unsigned n_complete, int64_t timeout_ns);

/* The next free entry, for a prep function that sets all of it; user_data is the caller's to set after that. */
static inline struct io_uring_sqe *thread_ring_entry(struct thread_ring *r) {
        /* The tail is ours alone, and so a plain load of the shared word is our own last store. */
        return &r->uring.sq.sqes[(*r->uring.sq.ktail + r->n_prepared++) & r->uring.sq.ring_mask];
}

/* Something completed: it is in the queue, or the next enter with @n_complete > 0 puts it there. THREAD_RING_TELLS. */
static inline bool thread_ring_has_work(const struct thread_ring *r) {
        return __atomic_load_n(r->uring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN ||
                __atomic_load_n(r->uring.cq.ktail, __ATOMIC_ACQUIRE) != *r->uring.cq.khead;
}

/* Takes the oldest completion out. False when there is none. */
static inline bool thread_ring_reap_flags(struct thread_ring *r, uint64_t *ret_user_data, int *ret_result, uint32_t *ret_flags) {
        struct io_uring_cq *cq = &r->uring.cq;
        const struct io_uring_cqe *cqe;
        unsigned head = *cq->khead; /* written only by us */

        /* Acquire, pairs with the kernel's release of the tail: the completion was written before it. */
        if (head == __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE))
                return false;
        cqe = &cq->cqes[head & cq->ring_mask];
        *ret_user_data = cqe->user_data;
        *ret_result = cqe->res;
        *ret_flags = cqe->flags;
        /* Release: the kernel may reuse the slot once it sees the new head; we have read it by then. */
        __atomic_store_n(cq->khead, head + 1, __ATOMIC_RELEASE);
        return true;
}

static inline bool thread_ring_reap(struct thread_ring *r, uint64_t *ret_user_data, int *ret_result) {
        uint32_t flags;

        return thread_ring_reap_flags(r, ret_user_data, ret_result, &flags);
}
#endif
