/*
 * Sending and receiving on non-blocking sockets by io_uring, where it is to be had: one entry, one io_uring_enter(), which
 * also reaps its completion, for a request that would have to wait is refused instead. Elsewhere by sendmsg() and readv().
 * One thread at a time.
 */
#ifndef PSYNE_URING_WIRE_H
#define PSYNE_URING_WIRE_H
#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

struct wire;

int wire_new(bool by_many, struct wire **ret); /* used by several threads in turn, who poll; or by one that is told */
struct wire *wire_free(struct wire *w); /* returns NULL, accepts it */
bool wire_is_uring(const struct wire *w);

/* How many bytes; 0 from wire_receive(): the peer will not send any more. -EAGAIN: it would have to wait. */
ssize_t wire_send(struct wire *w, int fd, const struct iovec *v, unsigned n);
ssize_t wire_receive(struct wire *w, int fd, const struct iovec *v, unsigned n);

void wire_after_fork_child(struct wire *w); /* gives back what the child must not keep; free is all that may follow */
#endif
