/*
 * The exported twins of the inline calls: for bindings, for function pointers, and for code built without inlines. Like
 * those they do not look for NULL.
 */
#define PSYNE_NO_INLINE
#include "lib/internal.h"

/*
 * Claims room for a message of @bytes (0 is a message too) and points @ret into the ring: fill ret->data, set
 * ret->len (<= cap) and ret->type, then commit or abort. Waits up to @timeout_ns for room.
 *
 * -EAGAIN: no room and no time to wait; -ETIME; -EMSGSIZE: can never fit; -EPIPE: readers were here, all are gone,
 * and the ring is full; -ESHUTDOWN; -EINTR: a signal came while it slept; -EOWNERDEAD; -EBUSY.
 */
int psyne_claim(struct psyne_producer *p, size_t bytes, int64_t timeout_ns, struct psyne_msg *ret) {
        return psyne_claim_inline(p, bytes, timeout_ns, ret);
}

/*
 * Sends a claimed message: from here on readers see it, and the caller must not touch it. Claims commit in the order
 * in which they were made. At most one wake per sleeping reader. -EINVAL: not an open claim of this producer, out of
 * order, or longer than its capacity.
 */
int psyne_commit(struct psyne_producer *p, struct psyne_msg *m) {
        return psyne_commit_inline(p, m);
}

/*
 * Takes the next message, in place: ret->data is valid until released. Waits up to @timeout_ns.
 *
 * -EAGAIN: nothing there; -ETIME; -EPIPE: no producer is left and all was received (clears when one joins);
 * -ESHUTDOWN: stopped, and drained; -ENOBUFS: held_max messages are held; -EBADMSG: the producer wrote nonsense and
 * its lane was set aside; -ECONNABORTED: its group fell behind and was ejected; -EINTR; -EOWNERDEAD; -EBUSY. ret->lost is what
 * the group missed just before it; of a group that may be overrun also after -EPIPE, -ESHUTDOWN and -ECONNABORTED.
 */
int psyne_recv(struct psyne_consumer *c, struct psyne_msg *ret, int64_t timeout_ns) {
        return psyne_recv_inline(c, ret, timeout_ns);
}

/* Gives a message back, in any order. -EINVAL: not held by this consumer, or released before. */
int psyne_release(struct psyne_consumer *c, struct psyne_msg *m) {
        return psyne_release_inline(c, m);
}
