/* Built without liburing: every send is a copy. */
#include "uring/wire-zc.h"

#include <errno.h>
#include <stddef.h>

int wire_zc_ring_new(struct wire_zc_ring **ret) {
        (void)ret;
        return -EOPNOTSUPP;
}

struct wire_zc_ring *wire_zc_ring_free(struct wire_zc_ring *r) {
        (void)r;
        return NULL;
}

struct wire_zc_ring *wire_zc_ring_forget(struct wire_zc_ring *r) {
        (void)r;
        return NULL;
}

struct wire_zc *wire_zc_ring_socket(struct wire_zc_ring *r, bool always) {
        (void)r, (void)always;
        return NULL;
}

void wire_zc_ring_give_up(struct wire_zc_ring *r, struct wire_zc *zc) {
        (void)r, (void)zc;
}

ssize_t wire_zc_ring_send(struct wire_zc_ring *r, struct wire_zc *zc, int fd, const struct iovec *v) {
        (void)r, (void)zc, (void)fd, (void)v;
        return -EOPNOTSUPP;
}
