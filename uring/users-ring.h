/* Entries for a ring that is not ours: the application's. Nothing here submits or waits. */
#ifndef PSYNE_URING_USERS_RING_H
#define PSYNE_URING_USERS_RING_H
#include <stdint.h>

struct io_uring_sqe;
struct io_uring_cqe;

int users_ring_wait(struct io_uring_sqe *sqe, const uint32_t *word, uint32_t expected); /* -ENOSYS: no futex operations here */
int users_ring_poll(struct io_uring_sqe *sqe, int fd);
int users_ring_nothing(struct io_uring_sqe *sqe); /* completes at once */
int users_ring_result(const struct io_uring_cqe *cqe);
#endif
