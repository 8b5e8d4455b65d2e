/* The ring of a bell (bell-ring.c), or none where there is no liburing (bell-ring-fallback.c). Private to bell.c. */
#ifndef PSYNE_URING_BELL_RING_H
#define PSYNE_URING_BELL_RING_H
#include <stdint.h>

struct bell_ring;

int bell_ring_new(struct bell_ring **ret, int eventfd);
struct bell_ring *bell_ring_free(struct bell_ring *b);
struct bell_ring *bell_ring_forget(struct bell_ring *b); /* in a forked child, instead of free */
/* 0; 1: it fired meanwhile, and the eventfd may not know; -errno: nothing is armed. The caller looks at the word again. */
int bell_ring_arm(struct bell_ring *b, const uint32_t *word, uint32_t expected, int64_t until_ns);
#endif
