/*
 * A word's wakes as a readable descriptor: for a thread that sleeps in an event loop of its own, where it can wait for
 * descriptors and not for words.
 *
 * Where io_uring has futex operations, a ring that belongs to the bell waits for the word and signals an eventfd, and a
 * waker knows nothing of it. Elsewhere the waker rings the bell itself: it has a handle, an eventfd, for whoever wakes to
 * have a copy of. Either way no thread stands between the waker and the loop. A bell belongs to one thread at a time.
 */
#ifndef PSYNE_URING_BELL_H
#define PSYNE_URING_BELL_H
#include <stdint.h>

struct bell;

int bell_new(struct bell **ret, uint32_t *word); /* the word outlives it */
struct bell *bell_free(struct bell *b);          /* returns NULL, accepts it */
int bell_fd(struct bell *b); /* the same at every call; -errno if it cannot be made */
int bell_handle(const struct bell *b); /* what wakers write to; -1: they need not */

/*
 * From now on the descriptor is readable once the word is woken or is not @expected, or at @until_ns (absolute,
 * CLOCK_MONOTONIC), and perhaps for no reason at all; until then it is not. -errno: it is not armed.
 */
int bell_arm(struct bell *b, uint32_t expected, int64_t until_ns);
void bell_ring(struct bell *b);  /* readable now, until it is armed or silenced */
void bell_quiet(struct bell *b); /* not readable; what was armed stays so */
void bell_strike(int handle);    /* a waker's part; any thread, any signal handler */

void bell_after_fork_child(struct bell *b); /* gives back what the child must not keep; free is all that may follow */
#endif
