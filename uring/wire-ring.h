/* The io_uring side of wire.h; inside uring/ only. */
#ifndef PSYNE_URING_WIRE_RING_H
#define PSYNE_URING_WIRE_RING_H
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

struct wire_ring;

int wire_ring_new(bool by_many, struct wire_ring **ret);
struct wire_ring *wire_ring_free(struct wire_ring *r);
struct wire_ring *wire_ring_forget(struct wire_ring *r); /* in a forked child; returns NULL */
ssize_t wire_ring_send(struct wire_ring *r, int fd, const struct msghdr *m);
ssize_t wire_ring_receive(struct wire_ring *r, int fd, struct msghdr *m);
#endif
