/*
 * Sleeping and waking through io_uring, one io_uring_enter() each, in the calling thread's own ring (park-rings.h):
 * IORING_OP_FUTEX_WAIT and IORING_OP_FUTEX_WAKE for words, a poll and a read for handles. A thread whose ring cannot be
 * made does it by futex(2) and poll(2) from then on; its words and its peers do not notice.
 *
 * When a wait returns, the ring is empty: one cut short by a signal or a deadline is cancelled and its completion
 * collected. A wait left armed would take the next wake meant for this word and sink it.
 */
#include "uring/park.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "uring/compat.h"
#include "uring/futex.h"
#include "uring/park-rings.h"
#include "uring/refusal.h"

struct found {
        bool usable;
        struct refusal refusal;
};

static pthread_once_t words_once = PTHREAD_ONCE_INIT, handles_once = PTHREAD_ONCE_INIT;
static struct found words, handles; /* written once, each under its own */
static int rings_refused; /* why no thread may have a ring: it would never be closed again. Under words_once */
/*
 * Asked for, PARK_NONE: the best there is; and in use, PARK_NONE: probe first. One atomic word of both, so that an answer to
 * what was asked before does not settle what is asked now.
 */
static uint32_t engines;

static uint32_t engines_make(enum park_engine asked, enum park_engine used) {
        return (uint32_t)asked << 8 | (uint32_t)used;
}

static enum park_engine engines_asked(uint32_t e) {
        return (enum park_engine)(e >> 8);
}

/* ---- which engine ------------------------------------------------------------------------------------------------ */

/* Until @n completions are there, a second at most. 0, or what was wrong with one of them. */
static int await_all(struct thread_ring *ring, unsigned n) {
        int64_t deadline = clock_deadline_ns(1000000000);
        uint64_t user_data;
        int r, result;

        do {
                int64_t left = deadline - clock_ns();

                if (left <= 0)
                        return -ETIME;
                r = thread_ring_enter(ring, n, left);
        } while (r == -EINTR);
        while (r >= 0 && thread_ring_reap(ring, &user_data, &result)) {
                if (result < 0)
                        r = result;
                else if (user_data == PARK_DATA_WAKE && result != 1)
                        r = -EPROTO;
        }
        return r;
}

/* A wait, a wake that ends it, and both completions: what the kernel claims it can do, done once. */
static int try_words(struct thread_ring *ring) {
        uint32_t word = 0;
        struct io_uring_sqe *sqe;
        int r;

        sqe = thread_ring_entry(ring);
        compat_prep_futex_wait(sqe, &word, 0);
        sqe->user_data = PARK_DATA_WAIT;
        r = thread_ring_enter(ring, 0, -1);
        if (r < 0)
                return r;
        sqe = thread_ring_entry(ring);
        compat_prep_futex_wake(sqe, &word, 1);
        sqe->user_data = PARK_DATA_WAKE;
        return await_all(ring, 2);
}

static void prepare_handle(struct thread_ring *ring, int handle, uint64_t *sink) {
        struct io_uring_sqe *sqe;

        sqe = thread_ring_entry(ring);
        io_uring_prep_poll_add(sqe, handle, POLLIN);
        sqe->user_data = PARK_DATA_WAIT;
        sqe->flags |= IOSQE_IO_LINK;
        sqe = thread_ring_entry(ring);
        io_uring_prep_read(sqe, handle, sink, sizeof(*sink), 0);
        sqe->user_data = PARK_DATA_EMPTY;
}

static int try_handles(struct thread_ring *ring) {
        _cleanup_(cleanup_closep) int handle = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        const uint64_t one = 1;
        uint64_t sink;
        int r;

        if (handle < 0)
                return -errno;
        prepare_handle(ring, handle, &sink);
        r = thread_ring_enter(ring, 0, -1);
        if (r < 0)
                return r;
        if (write(handle, &one, sizeof(one)) < 0)
                return -errno;
        return await_all(ring, 2);
}

/* Does the kernel know all of @ops, and does @try work out? */
static void look(struct found *ret, const uint8_t *ops, size_t n_ops, int (*try)(struct thread_ring *ring)) {
        struct thread_ring ring = THREAD_RING_NULL;
        const char *call = "io_uring_setup";
        struct io_uring_probe *probe;
        int r;

        r = thread_ring_init(&ring, THREAD_RING_PINNED);
        if (r >= 0) {
                call = "io_uring_register";
                probe = io_uring_get_probe_ring(&ring.uring);
                if (!probe)
                        r = -ENOSYS; /* no probe before 5.6, or it is filtered */
                for (size_t i = 0; r >= 0 && i < n_ops; i++)
                        if (!io_uring_opcode_supported(probe, ops[i]))
                                r = -EOPNOTSUPP;
                io_uring_free_probe(probe);
        }
        if (r >= 0) {
                call = "io_uring_enter";
                r = try(&ring);
        }
        thread_ring_deinit(&ring);
        ret->usable = r >= 0;
        if (r < 0)
                refusal_explain(&ret->refusal, call, r);
}

static void look_for_words(void) {
        static const uint8_t ops[] = {COMPAT_OP_FUTEX_WAIT, COMPAT_OP_FUTEX_WAKE};
        int r;

        look(&words, ops, sizeof(ops), try_words);
        r = rings_refused = park_rings_init();
        if (r < 0) {
                words.usable = false;
                refusal_explain(&words.refusal, "pthread_key_create", r);
        }
}

static void look_for_handles(void) {
        static const uint8_t ops[] = {IORING_OP_POLL_ADD, IORING_OP_READ, IORING_OP_ASYNC_CANCEL};

        look(&handles, ops, sizeof(ops), try_handles);
        if (rings_refused < 0) {
                handles.usable = false;
                refusal_explain(&handles.refusal, "pthread_key_create", rings_refused);
        }
}

/*
 * Which engine this process uses. Looked into once, by opcode and by a real wait and wake; any thread, any time. @why
 * is a sentence about what stood in the way of the best, or of what was asked for, "" when nothing did, and @fix what a
 * user could do; both static, either pointer may be NULL.
 */
enum park_engine park_probe(const char **why, const char **fix) {
        uint32_t now = __atomic_load_n(&engines, __ATOMIC_SEQ_CST), undecided;
        enum park_engine asked = engines_asked(now);
        static const struct refusal by_choice = {.why = "io_uring with eventfds was asked for"};
        const struct refusal *refusal;
        enum park_engine best;

        if (asked == PARK_FUTEX) {
                if (why)
                        *why = "futex(2) was asked for";
                if (fix)
                        *fix = "";
                return PARK_FUTEX;
        }
        pthread_once(&words_once, look_for_words);
        best = PARK_URING;
        if (asked == PARK_EVENTFD || !words.usable) {
                pthread_once(&handles_once, look_for_handles);
                best = handles.usable ? PARK_EVENTFD : PARK_FUTEX;
        }
        undecided = engines_make(asked, PARK_NONE); /* and nothing else: a park_force() in the meantime stands */
        __atomic_compare_exchange_n(&engines, &undecided, engines_make(asked, best), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        refusal = asked == PARK_EVENTFD ? handles.usable ? &by_choice : &handles.refusal : &words.refusal;
        if (why)
                *why = refusal->why;
        if (fix)
                *fix = refusal->fix;
        return best;
}

/*
 * From now on this process uses @e; PARK_NONE goes back to what the probe finds. Asking for what is refused gets futex(2),
 * and park_probe() says why. PARK_FUTEX does not even probe, for a sandbox may kill whoever tries io_uring. Threads keep
 * the rings they have.
 */
void park_force(enum park_engine e) {
        if (e == PARK_URING)
                e = PARK_NONE;
        /* Unless it needs none, the next call probes, or remembers. */
        __atomic_store_n(&engines, engines_make(e, e == PARK_FUTEX ? PARK_FUTEX : PARK_NONE), __ATOMIC_SEQ_CST);
}

bool park_uring_allowed(void) {
        return engines_asked(__atomic_load_n(&engines, __ATOMIC_RELAXED)) != PARK_FUTEX;
}

static enum park_engine in_use(void) {
        enum park_engine e = (enum park_engine)(__atomic_load_n(&engines, __ATOMIC_RELAXED) & 0xff);

        return __builtin_expect(e != PARK_NONE, 1) ? e : park_probe(NULL, NULL);
}

static struct park_ring *ring_for(enum park_engine e) {
        return in_use() == e ? park_ring_get() : NULL;
}

/*
 * Makes the calling thread's ring now, so that a later wait allocates nothing. A negative errno is for the record: this
 * thread does without then, and everything works; calling it again tries again.
 */
int park_prepare(void) {
        return in_use() == PARK_FUTEX ? 0 : park_ring_make();
}

/*
 * In the child, right after fork(), from the only thread it has. The rings it inherited belong to the parent's threads:
 * their fds and addresses are given back, their queues, which are shared memory, are left alone. The child makes rings of
 * its own when it needs them.
 */
void park_after_fork_child(void) {
        park_rings_after_fork_child();
}

/* ---- sleeping and waking ----------------------------------------------------------------------------------------- */

/* How long a wait may last in the kernel, negative: for ever. 0, or -ETIME. */
static int time_left(int64_t deadline_ns, int64_t *ret) {
        int64_t now_ns;

        *ret = -1;
        if (deadline_ns == CLOCK_FOREVER)
                return 0;
        now_ns = clock_ns();
        if (deadline_ns <= now_ns)
                return -ETIME;
        *ret = deadline_ns - now_ns;
        return 0;
}

static int cut_short(int64_t deadline_ns) {
        return deadline_ns != CLOCK_FOREVER && clock_ns() >= deadline_ns ? -ETIME : -EINTR;
}

/*
 * Sleeps while *@word is @expected, until woken or until @deadline_ns (absolute, CLOCK_MONOTONIC; CLOCK_FOREVER: none).
 * 0: woken, or the word is different, or for no reason at all: look again. -ETIME: the deadline has passed. -EINTR: a
 * signal came (a stop and continue looks the same). Not from a signal handler.
 */
int park_wait(uint32_t *word, uint32_t expected, int64_t deadline_ns) {
        struct park_ring *p = ring_for(PARK_URING);
        struct io_uring_sqe *sqe;
        uint64_t user_data;
        int64_t left_ns;
        int r, result = -EAGAIN;

        if (!p)
                return park_futex_wait(word, expected, deadline_ns);

        /* Relaxed: saves a system call and promises nothing; what the change means, the caller reads for itself. */
        if (__atomic_load_n(word, __ATOMIC_RELAXED) != expected)
                return 0;
        r = time_left(deadline_ns, &left_ns);
        if (r < 0)
                return r;

        sqe = thread_ring_entry(&p->ring);
        compat_prep_futex_wait(sqe, word, expected);
        sqe->user_data = PARK_DATA_WAIT;
        r = thread_ring_enter(&p->ring, 1, left_ns);
        if (r == 0)
                thread_ring_reap(&p->ring, &user_data, &result); /* the only one in the ring */
        else if (r == -EINTR)
                result = park_ring_cancel(p, 1);
        else
                return park_futex_wait(word, expected, deadline_ns); /* no memory for a request: not submitted */

        switch (result) {
        case -EAGAIN: /* the word had changed already */
                return 0;
        case -ECANCELED:
                return cut_short(deadline_ns);
        default:
                return result;
        }
}

/*
 * The same for a sleeper whose wakers write to a handle of it (bell.h) and do not wake its word: until the handle is
 * struck, and if *@word is not @expected not at all. The handle is quiet afterwards, or at the next wait's end.
 */
int park_wait_handle(int handle, const uint32_t *word, uint32_t expected, int64_t deadline_ns) {
        struct park_ring *p = ring_for(PARK_EVENTFD);
        uint64_t user_data;
        int64_t left_ns;
        int r, result, ended = 0;

        if (__atomic_load_n(word, __ATOMIC_RELAXED) != expected) /* relaxed: as above */
                return 0;
        r = time_left(deadline_ns, &left_ns);
        if (r < 0)
                return r;
        if (!p)
                return park_poll_wait(handle, deadline_ns);

        prepare_handle(&p->ring, handle, &p->sink);
        r = thread_ring_enter(&p->ring, 2, left_ns);
        if (r == -EINTR)
                ended = park_ring_cancel(p, 2);
        else if (r < 0) {
                park_ring_drop(); /* no memory for the second may leave the first armed */
                return park_poll_wait(handle, deadline_ns);
        } else
                while (thread_ring_reap(&p->ring, &user_data, &result))
                        if (user_data == PARK_DATA_WAIT)
                                ended = result;
        if (ended == -ECANCELED)
                return cut_short(deadline_ns);
        return ended < 0 ? park_poll_wait(handle, deadline_ns) : 0; /* no memory for a poll */
}

/* Wakes at most @n sleepers on @word; the number woken, or -errno. Not from a signal handler. */
int park_wake(uint32_t *word, int n) {
        struct park_ring *p;
        struct io_uring_sqe *sqe;
        uint64_t user_data;
        int r, result;

        if (n <= 0)
                return 0;
        p = ring_for(PARK_URING);
        if (!p)
                return park_futex_wake(word, n);

        sqe = thread_ring_entry(&p->ring);
        compat_prep_futex_wake(sqe, word, (unsigned)n);
        sqe->user_data = PARK_DATA_WAKE;
        /* No completion is waited for, and still it is there: the kernel does a wake while it submits it. */
        r = thread_ring_enter(&p->ring, 0, -1);
        if (r < 0)
                return park_futex_wake(word, n);
        while (!thread_ring_reap(&p->ring, &user_data, &result)) {
                r = thread_ring_enter(&p->ring, 1, -1);
                if (r < 0 && r != -EINTR)
                        return r;
        }
        return result;
}
