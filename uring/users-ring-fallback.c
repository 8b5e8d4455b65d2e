/* Built without liburing: the application may have it, we do not know its entries. */
#include "uring/users-ring.h"

#include <errno.h>

int users_ring_wait(struct io_uring_sqe *sqe, const uint32_t *word, uint32_t expected) {
        (void)sqe;
        (void)word;
        (void)expected;
        return -ENOSYS;
}

int users_ring_poll(struct io_uring_sqe *sqe, int fd) {
        (void)sqe;
        (void)fd;
        return -ENOSYS;
}

int users_ring_nothing(struct io_uring_sqe *sqe) {
        (void)sqe;
        return -ENOSYS;
}

int users_ring_result(const struct io_uring_cqe *cqe) {
        (void)cqe;
        return -ENOSYS;
}
