/* The descriptor, and the thread that serves it where no ring can: see bell.h. The ring stands in bell-ring.c. */
#include "uring/bell.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "uring/bell-ring.h"
#include "uring/futex.h"
#include "uring/park.h"

struct bell {
        int fd;
        uint32_t *word;
        struct bell_ring *ring; /* NULL: the thread */

        pthread_t thread;
        uint32_t orders;        /* atomic, the thread sleeps on it: goes up with every order */
        uint32_t expected;      /* of the last order; and the next two */
        int64_t until_ns;
        bool quit;
        bool waiting;           /* atomic: it has an order */
};

#define BELL_NULL                                                                                                      \
        { .fd = -1 }

static void *bell_run(void *arg) {
        struct bell *b = arg;
        uint32_t done = 0, orders;

        (void)pthread_setname_np(pthread_self(), "psyne-bell");
        for (;;) {
                /* Acquire, pairs with the release in give_order(). */
                while ((orders = __atomic_load_n(&b->orders, __ATOMIC_ACQUIRE)) == done)
                        (void)park_futex_wait(&b->orders, done, CLOCK_FOREVER);
                done = orders;
                if (b->quit)
                        return NULL;
                (void)park_futex_wait(b->word, b->expected, b->until_ns);
                __atomic_store_n(&b->waiting, false, __ATOMIC_RELEASE); /* before the ring: who is rung may order again */
                bell_ring(b);
        }
}

static void give_order(struct bell *b) {
        __atomic_fetch_add(&b->orders, 1, __ATOMIC_RELEASE);
        (void)park_futex_wake(&b->orders, 1);
}

/* Its wait ends: the word is the endpoint's own, and one change more of it makes somebody look once for nothing. */
static void interrupt(struct bell *b) {
        __atomic_fetch_add(b->word, 1, __ATOMIC_RELEASE);
        (void)park_futex_wake(b->word, INT32_MAX);
}

static int start_thread(struct bell *b) {
        sigset_t all, old;
        int r;

        sigfillset(&all); /* the application's signals are not for this thread */
        pthread_sigmask(SIG_SETMASK, &all, &old);
        r = -pthread_create(&b->thread, NULL, bell_run, b);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        return r;
}

int bell_new(struct bell **ret, uint32_t *word) {
        struct bell *b;
        int r = 0;

        b = malloc(sizeof(*b));
        if (!b)
                return -ENOMEM;
        *b = (struct bell)BELL_NULL;
        b->word = word;
        b->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (b->fd < 0)
                r = -errno;
        else if (park_probe(NULL, NULL) != PARK_URING || bell_ring_new(&b->ring, b->fd) < 0)
                r = start_thread(b);
        if (r < 0) {
                cleanup_closep(&b->fd);
                free(b);
                return r;
        }
        *ret = b;
        return 0;
}

struct bell *bell_free(struct bell *b) {
        if (!b)
                return NULL;
        if (b->fd < 0) { /* a forked child's: there is no thread here, and the ring is gone */
                free(b);
                return NULL;
        }
        if (!b->ring) {
                b->quit = true;
                give_order(b);
                interrupt(b);
                pthread_join(b->thread, NULL);
        }
        bell_ring_free(b->ring);
        close(b->fd);
        free(b);
        return NULL;
}

int bell_fd(const struct bell *b) {
        return b->fd;
}

bool bell_has_thread(const struct bell *b) {
        return !b->ring;
}

void bell_quiet(struct bell *b) {
        uint64_t n;

        (void)!read(b->fd, &n, sizeof(n)); /* empty: it is quiet */
}

void bell_ring(struct bell *b) {
        const uint64_t one = 1;

        (void)!write(b->fd, &one, sizeof(one)); /* full: it is readable */
}

int bell_arm(struct bell *b, uint32_t expected, int64_t until_ns) {
        bool waiting;
        int r = 0;

        bell_quiet(b);
        if (b->ring) {
                r = bell_ring_arm(b->ring, b->word, expected, until_ns);
        } else {
                waiting = __atomic_load_n(&b->waiting, __ATOMIC_ACQUIRE);
                /* What waits already has a word to wait for that came before this one: it rings for whatever this would. */
                if (waiting && until_ns < b->until_ns)
                        interrupt(b);
                if (!waiting) {
                        b->expected = expected;
                        b->until_ns = until_ns;
                        b->waiting = true;
                        give_order(b);
                }
        }
        /* What is armed may have been armed for a word that came before this one. */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (r > 0 || __atomic_load_n(b->word, __ATOMIC_RELAXED) != expected)
                bell_ring(b);
        return r < 0 ? r : 0;
}

void bell_after_fork_child(struct bell *b) {
        b->ring = bell_ring_forget(b->ring);
        cleanup_closep(&b->fd);
        b->fd = -1;
}
