/*
 * A ring for every thread that sleeps or wakes, made at its first call (or ahead of it) and gone with the thread. No two
 * threads share a ring, so there is no lock, and the kernel may assume so, too (SINGLE_ISSUER). Inside uring/ only.
 */
#ifndef PSYNE_URING_PARK_RINGS_H
#define PSYNE_URING_PARK_RINGS_H
#include <stdbool.h>
#include <stdint.h>

#include "uring/thread-ring.h"

/* user_data: what a completion belongs to. There is never more than one of each in a ring. */
enum {
        PARK_DATA_WAIT = 1,
        PARK_DATA_WAKE,
        PARK_DATA_CANCEL,
        PARK_DATA_EMPTY,
};

/*
 * One page never holds just a part of it: a fork copies page by page while other threads run on, and @live must not be
 * newer or older than the ring beside it.
 */
#define PARK_RING_ALIGN 512

struct park_ring {
        struct thread_ring ring;
        uint64_t sink;          /* what the kernel reads out of an eventfd; nobody looks at it */
        struct park_ring *next; /* set before the holder is published, then constant */
        bool taken;             /* by a thread; atomic */
        bool live;              /* the ring is open; atomic */
};

int park_rings_init(void);             /* before any of the others, once */
struct park_ring *park_ring_get(void); /* the calling thread's, or NULL: it could not be made, and is not tried again */
int park_ring_make(void);              /* now, again if it failed before */
void park_ring_drop(void);             /* closes it for good: this thread does without */
void park_rings_after_fork_child(void);

/*
 * Takes the armed PARK_DATA_WAIT back and says how it ended: as if it had not been asked to end, or -ECANCELED. All of its
 * @n completions and the cancellation's are awaited, whatever signals arrive, for one left behind would be taken for the
 * answer to the next wait.
 */
int park_ring_cancel(struct park_ring *p, unsigned n);
#endif
