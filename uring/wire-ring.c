/* See wire.h. MSG_DONTWAIT makes the kernel do a request while it submits it, or refuse it: none is left in flight. */
#include "uring/wire-ring.h"

#include <errno.h>
#include <stdlib.h>

#include "uring/thread-ring.h"

struct wire_ring {
        struct thread_ring ring;
};

int wire_ring_new(bool by_many, struct wire_ring **ret) {
        struct wire_ring *r = malloc(sizeof(*r));
        int e;

        if (!r)
                return -ENOMEM;
        r->ring = (struct thread_ring)THREAD_RING_NULL;
        e = thread_ring_init(&r->ring, by_many ? THREAD_RING_OF_MANY : THREAD_RING_MOVABLE);
        if (e < 0) {
                free(r);
                return e;
        }
        *ret = r;
        return 0;
}

struct wire_ring *wire_ring_free(struct wire_ring *r) {
        if (r)
                thread_ring_deinit(&r->ring);
        free(r);
        return NULL;
}

struct wire_ring *wire_ring_forget(struct wire_ring *r) {
        thread_ring_forget(&r->ring);
        free(r);
        return NULL;
}

static ssize_t go(struct wire_ring *r) {
        uint64_t user_data;
        int result, e;

        e = thread_ring_enter(&r->ring, 0, -1);
        if (e < 0)
                return e == -EBUSY || e == -EAGAIN ? -ENOBUFS : e; /* not submitted: no memory for a request */
        while (!thread_ring_reap(&r->ring, &user_data, &result)) { /* it is there already, as a rule */
                e = thread_ring_enter(&r->ring, 1, -1);
                if (e < 0 && e != -EINTR)
                        return e;
        }
        return result;
}

ssize_t wire_ring_send(struct wire_ring *r, int fd, const struct msghdr *m) {
        struct io_uring_sqe *sqe = thread_ring_entry(&r->ring);

        if (m->msg_iovlen == 1)
                io_uring_prep_send(sqe, fd, m->msg_iov->iov_base, m->msg_iov->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        else
                io_uring_prep_sendmsg(sqe, fd, m, MSG_DONTWAIT | MSG_NOSIGNAL);
        sqe->user_data = 0;
        return go(r);
}

ssize_t wire_ring_receive(struct wire_ring *r, int fd, struct msghdr *m) {
        struct io_uring_sqe *sqe = thread_ring_entry(&r->ring);

        if (m->msg_iovlen == 1)
                io_uring_prep_recv(sqe, fd, m->msg_iov->iov_base, m->msg_iov->iov_len, MSG_DONTWAIT);
        else
                io_uring_prep_recvmsg(sqe, fd, m, MSG_DONTWAIT);
        sqe->user_data = 0;
        return go(r);
}
