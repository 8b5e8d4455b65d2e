/*
 * Long sends without the kernel's copy (IORING_OP_SEND_ZC), for wire.h; inside uring/ only.
 *
 * What was sent stays the sender's to keep as it is: until its peer says that it has it, which a link waits for anyway. The
 * kernel tells afterwards whether it could do without a copy: on loopback, virtual devices and plain drivers it cannot, and such
 * a send costs more than a plain one. So a socket is tried with a few, and left alone if all were copied; where they are not,
 * zc-trial.h finds out from what length on they are worth it.
 */
#ifndef PSYNE_URING_WIRE_ZC_H
#define PSYNE_URING_WIRE_ZC_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/types.h>

#include "uring/zc-trial.h"

struct wire_zc_ring;

/* A socket's: alive until it is given up and the kernel has told about all of it. */
struct wire_zc {
        struct wire_zc *next;
        uint32_t pending;      /* not told about yet */
        uint32_t empty;        /* ... of those: sent nothing */
        uint64_t sends, told, copied;
        bool always, off, given_up;
        struct zc_trial trial;
};

int wire_zc_ring_new(struct wire_zc_ring **ret); /* -EOPNOTSUPP: the kernel has no such sends */
struct wire_zc_ring *wire_zc_ring_free(struct wire_zc_ring *r);
struct wire_zc_ring *wire_zc_ring_forget(struct wire_zc_ring *r);
struct wire_zc *wire_zc_ring_socket(struct wire_zc_ring *r, bool always); /* NULL: no memory */
void wire_zc_ring_give_up(struct wire_zc_ring *r, struct wire_zc *zc);
ssize_t wire_zc_ring_send(struct wire_zc_ring *r, struct wire_zc *zc, int fd, const struct iovec *v);
#endif
