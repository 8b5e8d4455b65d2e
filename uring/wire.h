/*
 * Sending and receiving on non-blocking sockets by io_uring, where it is to be had: one entry, one io_uring_enter(), which
 * also reaps its completion, for a request that would have to wait is refused instead. Elsewhere by sendmsg() and readv().
 * One thread at a time.
 */
#ifndef PSYNE_URING_WIRE_H
#define PSYNE_URING_WIRE_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct wire;

int wire_new(bool by_many, struct wire **ret); /* used by several threads in turn, who poll; or by one that is told */
struct wire *wire_free(struct wire *w); /* returns NULL, accepts it */
bool wire_is_uring(const struct wire *w);

/* How many bytes; 0 from wire_receive(): the peer will not send any more. -EAGAIN: it would have to wait. */
ssize_t wire_send(struct wire *w, int fd, const struct iovec *v, unsigned n);
ssize_t wire_receive(struct wire *w, int fd, const struct iovec *v, unsigned n);

/* A socket's long sends: without a copy, where the kernel can. NULL: not to be had here, or there is no memory. */
#define WIRE_LONG_BYTES 32768u /* a shorter one is not worth wire_send_long() */
struct wire_zc;
enum wire_zc_wish { WIRE_ZC_TRY, WIRE_ZC_ALWAYS };
int wire_zc_probe(struct wire *w); /* 0; -EOPNOTSUPP, or whatever else stands in the way */
struct wire_zc *wire_zc_new(struct wire *w, enum wire_zc_wish wish);
struct wire_zc *wire_zc_free(struct wire *w, struct wire_zc *zc); /* NULL */
/* As wire_send(), but what lies in the last of @v has to stay as it is until the peer has said that it has it. @zc may be NULL. */
ssize_t wire_send_long(struct wire *w, int fd, const struct iovec *v, unsigned n, struct wire_zc *zc);

struct wire_zc_info {
        uint64_t sends, copied;
        size_t from_bytes; /* such a send and every longer one goes without a copy, as far as is known; 0: none does */
};
void wire_zc_look(const struct wire_zc *zc, struct wire_zc_info *ret);

void wire_after_fork_child(struct wire *w); /* gives back what the child must not keep; free is all that may follow */
#endif
