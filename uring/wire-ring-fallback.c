/* Built without liburing: the plain calls only. */
#include "uring/wire-ring.h"

#include <errno.h>
#include <stddef.h>

int wire_ring_new(bool by_many, struct wire_ring **ret) {
        (void)by_many, (void)ret;
        return -ENOSYS;
}

struct wire_ring *wire_ring_free(struct wire_ring *r) {
        (void)r;
        return NULL;
}

struct wire_ring *wire_ring_forget(struct wire_ring *r) {
        (void)r;
        return NULL;
}

ssize_t wire_ring_send(struct wire_ring *r, int fd, const struct msghdr *m) {
        (void)r, (void)fd, (void)m;
        return -ENOSYS;
}

ssize_t wire_ring_receive(struct wire_ring *r, int fd, struct msghdr *m) {
        (void)r, (void)fd, (void)m;
        return -ENOSYS;
}
