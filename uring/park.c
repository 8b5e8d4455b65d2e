/*
 * Sleeping and waking through io_uring: IORING_OP_FUTEX_WAIT and IORING_OP_FUTEX_WAKE, one io_uring_enter() each.
 *
 * Every thread that sleeps or wakes gets a ring of its own, made at its first call (or by park_prepare()) and gone with
 * the thread. No two threads share a ring, so there is no lock, and the kernel may assume so, too (SINGLE_ISSUER).
 * A thread whose ring cannot be made uses futex(2) from then on; its words and its peers do not notice.
 *
 * When park_wait() returns, the ring is empty: a wait cut short by a signal or a deadline is cancelled and its
 * completion collected. A wait left armed would take the next wake meant for this word and sink it.
 *
 * The holders of the rings are never freed but used again, and hang in a list that only grows, so that a forked child
 * can walk it without a lock that some thread of the parent may have held at the moment of the fork.
 */
#include "uring/park.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "uring/compat.h"
#include "uring/futex.h"
#include "uring/refusal.h"
#include "uring/thread-ring.h"

/* user_data: what a completion belongs to. There is never more than one of each in a ring. */
enum {
        PARK_DATA_WAIT = 1,
        PARK_DATA_WAKE,
        PARK_DATA_CANCEL,
};

/*
 * One page never holds just a part of it: a fork copies page by page while other threads run on, and @live must not be
 * newer or older than the ring beside it.
 */
#define PARK_THREAD_ALIGN 512

struct park_thread {
        struct thread_ring ring;
        struct park_thread *next; /* set before the holder is published, then constant */
        atomic_bool taken;        /* by a thread */
        atomic_bool live;         /* the ring is open */
};

static_assert(sizeof(struct park_thread) <= PARK_THREAD_ALIGN, "must not straddle two pages");

static pthread_once_t park_once = PTHREAD_ONCE_INIT;
static pthread_key_t park_key; /* only for its destructor, at the end of a thread */
static bool park_have_key;
static enum park_engine park_found; /* and the next: written once, under park_once */
static struct refusal park_refusal;
static atomic_int park_forced;  /* enum park_engine: PARK_FUTEX, or PARK_NONE for what the probe finds */
static atomic_int park_current; /* enum park_engine in use; PARK_NONE: probe first */
static _Atomic(struct park_thread *) park_threads;

/*
 * initial-exec: a plain load instead of a call per access. That takes 16 bytes of the surplus that libc keeps for
 * libraries loaded by dlopen().
 */
static __thread struct park_thread *park_self __attribute__((tls_model("initial-exec")));
static __thread bool park_self_refused __attribute__((tls_model("initial-exec")));

/* ---- which engine ------------------------------------------------------------------------------------------------ */

/* A wait, a wake that ends it, and both completions: what the kernel claims it can do, done once. */
static int park_round_trip(struct thread_ring *ring) {
        uint32_t word = 0;
        struct io_uring_sqe *sqe;
        uint64_t user_data;
        int64_t deadline = clock_deadline_ns(1000000000);
        unsigned n_good = 0;
        int r, result;

        sqe = thread_ring_entry(ring);
        compat_prep_futex_wait(sqe, &word, 0);
        sqe->user_data = PARK_DATA_WAIT;
        r = thread_ring_enter(ring, 0, -1);
        if (r < 0)
                return r;

        sqe = thread_ring_entry(ring);
        compat_prep_futex_wake(sqe, &word, 1);
        sqe->user_data = PARK_DATA_WAKE;
        do {
                int64_t left = deadline - clock_ns();

                if (left <= 0)
                        return -ETIME;
                r = thread_ring_enter(ring, 2, left);
        } while (r == -EINTR);
        if (r < 0)
                return r;

        while (thread_ring_reap(ring, &user_data, &result)) {
                if (result < 0)
                        return result;
                n_good += result == (user_data == PARK_DATA_WAKE ? 1 : 0);
        }
        return n_good == 2 ? 0 : -EPROTO;
}

static int park_look(const char **ret_call) {
        struct thread_ring ring = THREAD_RING_NULL;
        struct io_uring_probe *probe;
        bool known;
        int r;

        *ret_call = "io_uring_setup";
        r = thread_ring_init(&ring, THREAD_RING_PINNED);
        if (r < 0)
                return r;

        *ret_call = "io_uring_register";
        probe = io_uring_get_probe_ring(&ring.uring);
        known = probe && io_uring_opcode_supported(probe, COMPAT_OP_FUTEX_WAIT) &&
                io_uring_opcode_supported(probe, COMPAT_OP_FUTEX_WAKE);
        r = probe ? (known ? 0 : -EOPNOTSUPP) : -ENOSYS; /* no probe before 5.6, or it is filtered */
        io_uring_free_probe(probe);

        if (!r) {
                *ret_call = "io_uring_enter";
                r = park_round_trip(&ring);
        }
        thread_ring_deinit(&ring);
        return r;
}

static void park_thread_exit(void *holder);

static void park_probe_once(void) {
        const char *call;
        int r;

        r = park_look(&call);
        park_have_key = pthread_key_create(&park_key, park_thread_exit) == 0;
        if (!r && !park_have_key) { /* rings would never be closed again */
                call = "pthread_key_create";
                r = -EAGAIN;
        }
        park_found = r ? PARK_FUTEX : PARK_URING;
        if (r)
                refusal_explain(&park_refusal, call, r);
}

/*
 * Which engine this process uses. Looked into once, by opcode and by a real wait and wake; any thread, any time. @why
 * is a sentence about what stood in the way of the best, "" when nothing did, and @fix what a user could do; both
 * static, either pointer may be NULL.
 */
enum park_engine park_probe(const char **why, const char **fix) {
        int none = PARK_NONE;

        if (!park_uring_allowed()) {
                if (why)
                        *why = "futex(2) was asked for";
                if (fix)
                        *fix = "";
                return PARK_FUTEX;
        }
        pthread_once(&park_once, park_probe_once);
        /* Only from undecided: a park_force() in the meantime stands. */
        atomic_compare_exchange_strong(&park_current, &none, (int)park_found);
        if (why)
                *why = park_refusal.why;
        if (fix)
                *fix = park_refusal.fix;
        return park_found;
}

/*
 * From now on this process uses @e; PARK_NONE goes back to what the probe finds. Asking for PARK_URING where it is
 * refused changes nothing: park_probe() then still answers PARK_FUTEX and why. PARK_FUTEX does not even probe, for a
 * sandbox may kill whoever tries io_uring. Threads keep the rings they have.
 */
void park_force(enum park_engine e) {
        if (e == PARK_FUTEX) {
                atomic_store(&park_forced, PARK_FUTEX);
                atomic_store(&park_current, PARK_FUTEX);
        } else {
                atomic_store(&park_forced, PARK_NONE);
                atomic_store(&park_current, PARK_NONE); /* the next call probes, or remembers */
        }
}

bool park_uring_allowed(void) {
        return atomic_load_explicit(&park_forced, memory_order_relaxed) != PARK_FUTEX;
}

/* ---- a thread's ring --------------------------------------------------------------------------------------------- */

static struct park_thread *park_holder_take(void) {
        struct park_thread *t, *head;

        for (t = atomic_load_explicit(&park_threads, memory_order_acquire); t; t = t->next) {
                bool taken = false;

                /* Acquire, pairs with the release in park_holder_give(): its former thread is done with it. */
                if (atomic_compare_exchange_strong_explicit(
                            &t->taken, &taken, true, memory_order_acquire, memory_order_relaxed))
                        return t;
        }

        t = aligned_alloc(PARK_THREAD_ALIGN, PARK_THREAD_ALIGN);
        if (!t)
                return NULL;
        *t = (struct park_thread){.ring = THREAD_RING_NULL, .taken = true};
        head = atomic_load_explicit(&park_threads, memory_order_relaxed);
        do
                t->next = head;
        /* Release, pairs with the acquire above: who finds the holder sees it complete. */
        while (!atomic_compare_exchange_weak_explicit(
                &park_threads, &head, t, memory_order_release, memory_order_relaxed));
        return t;
}

static void park_holder_give(struct park_thread *t) {
        atomic_store_explicit(&t->taken, false, memory_order_release);
}

static void park_thread_close(struct park_thread *t) {
        /*
         * Not live before closing: a child forked in between keeps one fd too many (until it execs); the other way
         * round it would close a number that by then means something else.
         */
        atomic_store_explicit(&t->live, false, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
        thread_ring_deinit(&t->ring);
        park_self = NULL;
        park_holder_give(t);
}

/* A later destructor may park again: it gets a new ring and this is called once more (PTHREAD_DESTRUCTOR_ITERATIONS).
 */
static void park_thread_exit(void *holder) {
        park_thread_close(holder);
}

static int park_thread_open(void) {
        struct park_thread *t;
        int r;

        t = park_holder_take();
        if (!t)
                return -ENOMEM;
        r = thread_ring_init(&t->ring, THREAD_RING_PINNED);
        if (!r) {
                r = -pthread_setspecific(park_key, t);
                if (r)
                        thread_ring_deinit(&t->ring);
        }
        if (r) {
                park_holder_give(t);
                return r;
        }
        /* Release: a child that finds it live finds the ring written. */
        atomic_store_explicit(&t->live, true, memory_order_release);
        park_self = t;
        return 0;
}

static bool park_in_use(enum park_engine e) {
        enum park_engine current = (enum park_engine)atomic_load_explicit(&park_current, memory_order_relaxed);

        if (__builtin_expect(current == PARK_NONE, 0))
                current = park_probe(NULL, NULL);
        return current == e;
}

/* The calling thread's ring, or NULL: this thread uses futex(2). One refusal is enough, we do not ask at every sleep.
 */
static struct park_thread *park_thread_get(void) {
        if (!park_in_use(PARK_URING))
                return NULL;
        if (__builtin_expect(!park_self, 0) && !park_self_refused)
                park_self_refused = park_thread_open() < 0;
        return park_self;
}

/*
 * Makes the calling thread's ring now, so that a later wait allocates nothing. A negative errno is for the record: this
 * thread uses futex(2) then, and everything works; calling it again tries again.
 */
int park_prepare(void) {
        int r;

        if (!park_in_use(PARK_URING) || park_self)
                return 0;
        r = park_thread_open();
        park_self_refused = r < 0;
        return r;
}

/*
 * In the child, right after fork(), from the only thread it has. The rings it inherited belong to the parent's threads:
 * their fds and addresses are given back, their queues, which are shared memory, are left alone. The child makes rings
 * of its own when it needs them.
 */
void park_after_fork_child(void) {
        for (struct park_thread *t = atomic_load_explicit(&park_threads, memory_order_acquire); t; t = t->next) {
                if (atomic_load_explicit(&t->live, memory_order_acquire))
                        thread_ring_forget(&t->ring);
                else
                        t->ring = (struct thread_ring)THREAD_RING_NULL; /* perhaps half written; not ours to close */
                atomic_store_explicit(&t->live, false, memory_order_relaxed);
                atomic_store_explicit(&t->taken, false, memory_order_relaxed);
        }
        if (park_self)
                pthread_setspecific(park_key, NULL);
        park_self = NULL;
        park_self_refused = false;
}

/* ---- sleeping and waking ----------------------------------------------------------------------------------------- */

/*
 * Takes an armed wait back and says how it ended: 0 if a wake was faster (it must not be lost: the caller reports it),
 * -ECANCELED if not. Both completions are awaited, whatever signals arrive, for one left behind would be taken for the
 * answer to the next wait.
 */
static int park_cancel(struct park_thread *t) {
        struct io_uring_sqe *sqe;
        uint64_t user_data;
        int r, result, ended = -ECANCELED;

        sqe = thread_ring_entry(&t->ring);
        compat_prep_cancel(sqe, PARK_DATA_WAIT);
        sqe->user_data = PARK_DATA_CANCEL;
        do
                r = thread_ring_enter(&t->ring, 2, -1);
        while (r == -EINTR);
        if (r < 0) { /* no memory for a cancellation: closing the ring takes the wait with it */
                park_thread_close(t);
                pthread_setspecific(park_key, NULL);
                park_self_refused = true;
                return -ECANCELED;
        }
        while (thread_ring_reap(&t->ring, &user_data, &result))
                if (user_data == PARK_DATA_WAIT)
                        ended = result;
        return ended;
}

/*
 * Sleeps while *@word is @expected, until woken or until @deadline_ns (absolute, CLOCK_MONOTONIC; CLOCK_FOREVER: none).
 * 0: woken, or the word is different, or for no reason at all: look again. -ETIME: the deadline has passed. -EINTR: a
 * signal came (a stop and continue looks the same). Not from a signal handler.
 */
int park_wait(uint32_t *word, uint32_t expected, int64_t deadline_ns) {
        struct park_thread *t;
        struct io_uring_sqe *sqe;
        uint64_t user_data;
        int64_t timeout_ns = -1;
        int r, result = -EAGAIN;

        t = park_thread_get();
        if (!t)
                return park_futex_wait(word, expected, deadline_ns);

        /* Relaxed: saves a system call and promises nothing; what the change means, the caller reads for itself. */
        if (__atomic_load_n(word, __ATOMIC_RELAXED) != expected)
                return 0;
        if (deadline_ns != CLOCK_FOREVER) {
                int64_t now_ns = clock_ns();

                if (deadline_ns <= now_ns)
                        return -ETIME;
                timeout_ns = deadline_ns - now_ns;
        }

        sqe = thread_ring_entry(&t->ring);
        compat_prep_futex_wait(sqe, word, expected);
        sqe->user_data = PARK_DATA_WAIT;
        r = thread_ring_enter(&t->ring, 1, timeout_ns);
        if (r == 0)
                thread_ring_reap(&t->ring, &user_data, &result); /* the only one in the ring */
        else if (r == -EINTR)
                result = park_cancel(t);
        else
                return park_futex_wait(word, expected, deadline_ns); /* no memory for a request: not submitted */

        switch (result) {
        case -EAGAIN: /* the word had changed already */
                return 0;
        case -ECANCELED:
                return deadline_ns != CLOCK_FOREVER && clock_ns() >= deadline_ns ? -ETIME : -EINTR;
        default:
                return result;
        }
}

/* Wakes at most @n sleepers on @word; the number woken, or -errno. Not from a signal handler. */
int park_wake(uint32_t *word, int n) {
        struct park_thread *t;
        struct io_uring_sqe *sqe;
        uint64_t user_data;
        int r, result;

        if (n <= 0)
                return 0;
        t = park_thread_get();
        if (!t)
                return park_futex_wake(word, n);

        sqe = thread_ring_entry(&t->ring);
        compat_prep_futex_wake(sqe, word, (unsigned)n);
        sqe->user_data = PARK_DATA_WAKE;
        /* No completion is waited for, and still it is there: the kernel does a wake while it submits it. */
        r = thread_ring_enter(&t->ring, 0, -1);
        if (r < 0)
                return park_futex_wake(word, n);
        while (!thread_ring_reap(&t->ring, &user_data, &result)) {
                r = thread_ring_enter(&t->ring, 1, -1);
                if (r < 0 && r != -EINTR)
                        return r;
        }
        return result;
}
