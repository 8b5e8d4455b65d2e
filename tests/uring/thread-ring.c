/* thread-ring: what park.c and watch-sleep.c rely on, and would hide by falling back if it broke. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>

#include "support.h"
#include "uring/compat.h"
#include "uring/thread-ring.h"

static void init_or_skip(struct thread_ring *r, enum thread_ring_owner owner) {
        int err;

        alarm(WATCHDOG_S);
        err = thread_ring_init(r, owner);
        if (err < 0)
                cr_skip_test("no io_uring: %s", strerror(-err));
}

static int nop(struct thread_ring *r, uint64_t user_data, unsigned n_complete) {
        struct io_uring_sqe *sqe = thread_ring_entry(r);

        io_uring_prep_nop(sqe);
        sqe->user_data = user_data;
        return thread_ring_enter(r, n_complete, -1);
}

/* Far more requests than entries: positions wrap, and each completion is its own. */
Test(thread_ring, queues_wrap) {
        struct thread_ring r = THREAD_RING_NULL;
        uint64_t user_data;
        int result;

        init_or_skip(&r, THREAD_RING_PINNED);
        for (uint64_t i = 0; i < 1000; ++i) {
                cr_assert_eq(nop(&r, i, 1), 0);
                cr_assert(thread_ring_reap(&r, &user_data, &result));
                cr_assert_eq(user_data, i);
                cr_assert_not(thread_ring_reap(&r, &user_data, &result));
        }
        thread_ring_deinit(&r);
        thread_ring_deinit(&r); /* the NULL form */
}

static void *make_movable(void *p) {
        cr_assert_eq(thread_ring_init(p, THREAD_RING_MOVABLE), 0);
        cr_assert_eq(nop(p, 1, 1), 0);
        return NULL;
}

/* Registered rings are numbers per thread: closing another thread's ring must not strike our own of that number. */
Test(thread_ring, deinit_of_anothers_ring_spares_our_own) {
        struct thread_ring mine = THREAD_RING_NULL, other = THREAD_RING_NULL;
        pthread_t t;

        init_or_skip(&mine, THREAD_RING_PINNED);
        cr_assert_eq(pthread_create(&t, NULL, make_movable, &other), 0);
        pthread_join(t, NULL);
        thread_ring_deinit(&other);
        cr_assert_eq(nop(&mine, 1, 1), 0);
        thread_ring_deinit(&mine);
}

static void *use_foreign(void *p) {
        return (void *)(intptr_t)nop(p, 7, 0);
}

/* What the kernel refuses is taken back: had the entry stayed in the queue, the next enter would submit it as well. */
Test(thread_ring, refused_entry_is_taken_back) {
        struct thread_ring r = THREAD_RING_NULL;
        uint64_t user_data;
        int result;
        void *answer;
        pthread_t t;

        init_or_skip(&r, THREAD_RING_MOVABLE);
        if (!(r.uring.flags & IORING_SETUP_SINGLE_ISSUER))
                cr_skip_test("this kernel lets any thread submit");
        cr_assert_eq(pthread_create(&t, NULL, use_foreign, &r), 0);
        pthread_join(t, &answer);
        cr_assert_eq((int)(intptr_t)answer, -EEXIST);
        cr_assert_eq(nop(&r, 8, 1), 0);
        cr_assert(thread_ring_reap(&r, &user_data, &result));
        cr_assert_eq(user_data, 8);
        cr_assert_not(thread_ring_reap(&r, &user_data, &result));
        thread_ring_deinit(&r);
}

/* The prepared wait is submitted and stays armed when the time is over: the wake that follows completes both. */
Test(thread_ring, timeout_leaves_the_request_in_flight) {
        struct thread_ring r = THREAD_RING_NULL;
        uint32_t word = 0;
        uint64_t user_data;
        int result, n = 0;

        init_or_skip(&r, THREAD_RING_PINNED);
        compat_prep_futex_wait(thread_ring_entry(&r), &word, 0);
        result = thread_ring_enter(&r, 1, 1000000);
        if (result == 0)
                cr_skip_test("no futex operations in this kernel");
        cr_assert_eq(result, -EINTR);
        cr_assert_not(thread_ring_reap(&r, &user_data, &result));
        compat_prep_futex_wake(thread_ring_entry(&r), &word, 1);
        cr_assert_eq(thread_ring_enter(&r, 2, -1), 0);
        while (thread_ring_reap(&r, &user_data, &result))
                ++n;
        cr_assert_eq(n, 2);
        thread_ring_deinit(&r);
}
