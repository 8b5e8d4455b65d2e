/* Built without liburing: a thread sleeps for every bell (bell.c). */
#include "uring/bell-ring.h"

#include <errno.h>
#include <stddef.h>

int bell_ring_new(struct bell_ring **ret, int eventfd) {
        (void)ret;
        (void)eventfd;
        return -ENOSYS;
}

struct bell_ring *bell_ring_free(struct bell_ring *b) {
        (void)b;
        return NULL;
}

struct bell_ring *bell_ring_forget(struct bell_ring *b) {
        (void)b;
        return NULL;
}

int bell_ring_arm(struct bell_ring *b, const uint32_t *word, uint32_t expected, int64_t until_ns) {
        (void)b;
        (void)word;
        (void)expected;
        (void)until_ns;
        return -ENOSYS;
}
