/*
 * The threads' rings: see park-rings.h. Their holders are never freed but used again, and hang in a list that only grows,
 * so that a forked child can walk it without a lock that some thread of the parent may have held at the moment of the fork.
 */
#include "uring/park-rings.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "uring/compat.h"

static_assert(sizeof(struct park_ring) <= PARK_RING_ALIGN, "must not straddle two pages");

static pthread_key_t key; /* only for its destructor, at the end of a thread */
static struct park_ring *rings; /* atomic */

/*
 * initial-exec: a plain load instead of a call per access. That takes 16 bytes of the surplus that libc keeps for
 * libraries loaded by dlopen().
 */
static __thread struct park_ring *self __attribute__((tls_model("initial-exec")));
static __thread bool self_refused __attribute__((tls_model("initial-exec")));

static struct park_ring *holder_take(void) {
        struct park_ring *p, *head;

        for (p = __atomic_load_n(&rings, __ATOMIC_ACQUIRE); p; p = p->next) {
                bool taken = false;

                /* Acquire, pairs with the release in holder_give(): its former thread is done with it. */
                if (__atomic_compare_exchange_n(&p->taken, &taken, true, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
                        return p;
        }

        p = aligned_alloc(PARK_RING_ALIGN, PARK_RING_ALIGN);
        if (!p)
                return NULL;
        *p = (struct park_ring){.ring = THREAD_RING_NULL, .taken = true};
        head = __atomic_load_n(&rings, __ATOMIC_RELAXED);
        do
                p->next = head;
        /* Release, pairs with the acquire above: who finds the holder sees it complete. */
        while (!__atomic_compare_exchange_n(&rings, &head, p, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
        return p;
}

static void holder_give(struct park_ring *p) {
        __atomic_store_n(&p->taken, false, __ATOMIC_RELEASE);
}

/* A later destructor may park again: it gets a new ring and this is called once more (PTHREAD_DESTRUCTOR_ITERATIONS). */
static void close_holder(void *holder) {
        struct park_ring *p = holder;

        /*
         * Not live before closing: a child forked in between keeps one fd too many (until it execs); the other way
         * round it would close a number that by then means something else.
         */
        __atomic_store_n(&p->live, false, __ATOMIC_RELAXED);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        thread_ring_deinit(&p->ring);
        self = NULL;
        holder_give(p);
}

int park_rings_init(void) {
        return -pthread_key_create(&key, close_holder);
}

static int open_holder(void) {
        struct park_ring *p = holder_take();
        int r;

        if (!p)
                return -ENOMEM;
        r = thread_ring_init(&p->ring, THREAD_RING_PINNED);
        if (!r) {
                r = -pthread_setspecific(key, p);
                if (r)
                        thread_ring_deinit(&p->ring);
        }
        if (r) {
                holder_give(p);
                return r;
        }
        /* Release: a child that finds it live finds the ring written. */
        __atomic_store_n(&p->live, true, __ATOMIC_RELEASE);
        self = p;
        return 0;
}

struct park_ring *park_ring_get(void) {
        if (__builtin_expect(!self, 0) && !self_refused)
                self_refused = open_holder() < 0;
        return self;
}

int park_ring_make(void) {
        int r;

        if (self)
                return 0;
        r = open_holder();
        self_refused = r < 0;
        return r;
}

void park_ring_drop(void) {
        close_holder(self);
        pthread_setspecific(key, NULL);
        self_refused = true;
}

void park_rings_after_fork_child(void) {
        for (struct park_ring *p = __atomic_load_n(&rings, __ATOMIC_ACQUIRE); p; p = p->next) {
                if (__atomic_load_n(&p->live, __ATOMIC_ACQUIRE))
                        thread_ring_forget(&p->ring);
                else
                        p->ring = (struct thread_ring)THREAD_RING_NULL; /* perhaps half written; not ours to close */
                __atomic_store_n(&p->live, false, __ATOMIC_RELAXED);
                __atomic_store_n(&p->taken, false, __ATOMIC_RELAXED);
        }
        if (self)
                pthread_setspecific(key, NULL);
        self = NULL;
        self_refused = false;
}

int park_ring_cancel(struct park_ring *p, unsigned n) {
        struct io_uring_sqe *sqe;
        uint64_t user_data;
        int r, result, ended = -ECANCELED;

        sqe = thread_ring_entry(&p->ring);
        compat_prep_cancel(sqe, PARK_DATA_WAIT);
        sqe->user_data = PARK_DATA_CANCEL;
        do
                r = thread_ring_enter(&p->ring, n + 1, -1);
        while (r == -EINTR);
        if (r < 0) { /* no memory for a cancellation: closing the ring takes the wait with it */
                park_ring_drop();
                return -ECANCELED;
        }
        while (thread_ring_reap(&p->ring, &user_data, &result))
                if (user_data == PARK_DATA_WAIT)
                        ended = result;
        return ended;
}
