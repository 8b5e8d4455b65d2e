/* See users-ring.h. */
#include "uring/users-ring.h"

#include <errno.h>
#include <poll.h>

#include "uring/compat.h"
#include "uring/park.h"

int users_ring_wait(struct io_uring_sqe *sqe, const uint32_t *word, uint32_t expected) {
        if (park_probe(NULL, NULL) != PARK_URING)
                return -ENOSYS;
        compat_prep_futex_wait(sqe, word, expected);
        return 0;
}

int users_ring_poll(struct io_uring_sqe *sqe, int fd) {
        io_uring_prep_poll_add(sqe, fd, POLLIN);
        return 0;
}

int users_ring_nothing(struct io_uring_sqe *sqe) {
        io_uring_prep_nop(sqe);
        return 0;
}

int users_ring_result(const struct io_uring_cqe *cqe) {
        return cqe->res;
}
