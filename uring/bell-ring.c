/*
 * A ring that waits for one word and signals an eventfd: one IORING_OP_FUTEX_WAIT, and an IORING_OP_TIMEOUT for the
 * moment after which nobody should rely on it.
 *
 * What was armed and has not fired stays armed: any later wake reaches it, whatever the word was when it went to sleep.
 * So arming a bell that nothing has rung costs no system call here, and one where the wait has to be made anew: the
 * same io_uring_enter() that submits it collects its predecessor.
 *
 * The kernel signals an eventfd when the completion's work is queued and again when the completion is collected
 * (DEFER_TASKRUN), and the second is news to nobody. It is switched off while we collect; what is queued in that moment
 * the kernel has marked in the ring first, and we look afterwards. It need not be a wake that has just begun: whoever
 * woke may have changed the word long ago, and been kept from the rest.
 */
#include "uring/bell-ring.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "uring/compat.h"
#include "uring/thread-ring.h"

/* user_data: what of the two it was, below a number of its own. */
enum { BELL_WAIT, BELL_TIMER, BELL_KINDS };

struct bell_ring {
        struct thread_ring ring;
        int eventfd;
        uint64_t number;
        uint64_t wait;    /* the newest that is armed; 0: none. An older one can only have fired */
        uint64_t timer;
        int64_t timer_at;
};

static int bell_ring_open(struct bell_ring *b) {
        int r;

        b->wait = b->timer = 0;
        b->timer_at = CLOCK_FOREVER;
        r = thread_ring_init(&b->ring, THREAD_RING_TELLS);
        if (r < 0)
                return r;
        r = io_uring_register_eventfd(&b->ring.uring, b->eventfd);
        if (r < 0)
                thread_ring_deinit(&b->ring);
        return r;
}

int bell_ring_new(struct bell_ring **ret, int eventfd) {
        _cleanup_(cleanup_freep) struct bell_ring *b = NULL;
        int r;

        b = calloc(1, sizeof(*b));
        if (!b)
                return -ENOMEM;
        b->ring = (struct thread_ring)THREAD_RING_NULL;
        b->eventfd = eventfd;
        r = bell_ring_open(b);
        if (r < 0)
                return r;
        *ret = steal_ptr(b);
        return 0;
}

struct bell_ring *bell_ring_free(struct bell_ring *b) {
        if (b) {
                thread_ring_deinit(&b->ring);
                free(b);
        }
        return NULL;
}

struct bell_ring *bell_ring_forget(struct bell_ring *b) {
        if (b) {
                thread_ring_forget(&b->ring);
                free(b);
        }
        return NULL;
}

static uint64_t number_of(struct bell_ring *b, unsigned kind) {
        return ++b->number * BELL_KINDS + kind;
}

static void collect(struct bell_ring *b) {
        uint64_t user_data;
        int result;

        while (thread_ring_reap(&b->ring, &user_data, &result)) {
                if (user_data == b->wait)
                        b->wait = 0;
                if (user_data == b->timer) {
                        b->timer = 0;
                        b->timer_at = CLOCK_FOREVER;
                }
        }
}

/* Arms what is not, and collects at least @n that are there. */
static int enter(struct bell_ring *b, const uint32_t *word, uint32_t expected, int64_t until_ns, unsigned n) {
        struct __kernel_timespec at = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
        struct io_uring_sqe *sqe;
        int r;

        if (!b->wait) {
                sqe = thread_ring_entry(&b->ring);
                compat_prep_futex_wait(sqe, word, expected);
                sqe->user_data = b->wait = number_of(b, BELL_WAIT);
        }
        if (until_ns < b->timer_at) { /* one that is armed for later may ring once for nothing */
                sqe = thread_ring_entry(&b->ring);
                io_uring_prep_timeout(sqe, &at, 0, IORING_TIMEOUT_ABS);
                sqe->user_data = b->timer = number_of(b, BELL_TIMER);
                b->timer_at = until_ns;
        }
        r = thread_ring_enter(&b->ring, n, 0);
        if (r < 0 && r != -EINTR) { /* nothing was submitted */
                b->wait = b->timer = 0;
                b->timer_at = CLOCK_FOREVER;
                return r;
        }
        collect(b);
        return 0;
}

int bell_ring_arm(struct bell_ring *b, const uint32_t *word, uint32_t expected, int64_t until_ns) {
        bool due = b->timer_at <= clock_ns(), work = thread_ring_has_work(&b->ring);
        int r;

        if (!work && !due && b->wait && b->timer_at <= until_ns)
                return 0;
        if (work && !due)
                b->wait = 0; /* it was that */
        (void)io_uring_cq_eventfd_toggle(&b->ring.uring, false);
        r = enter(b, word, expected, until_ns, work || due);
        if (r == 0 && (!b->wait || until_ns < b->timer_at)) /* it had fired, or does at once */
                r = enter(b, word, expected, until_ns, 0);
        (void)io_uring_cq_eventfd_toggle(&b->ring.uring, true);
        if (r == -EEXIST) { /* another thread's now: what its predecessor armed goes with that one's ring */
                thread_ring_deinit(&b->ring);
                r = bell_ring_open(b);
                if (r == 0)
                        r = enter(b, word, expected, until_ns, 0);
        }
        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* switched on before we look; the kernel marks before it looks */
        return r < 0 ? r : thread_ring_has_work(&b->ring) || b->timer_at <= clock_ns();
}
