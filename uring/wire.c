/* See wire.h. */
#include "uring/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "uring/park.h"
#include "uring/wire-ring.h"
#include "uring/wire-zc.h"

#define GATHER_BYTES 1024u /* a copy of so little is less than the kernel's look at a second vector */

struct wire {
        struct wire_ring *ring; /* NULL: by the plain calls */
        bool by_many;
        struct wire_zc_ring *zc; /* made when it is first wanted */
        unsigned char gathered[GATHER_BYTES];
};

int wire_new(bool by_many, struct wire **ret) {
        struct wire *w = calloc(1, sizeof(*w));

        if (!w)
                return -ENOMEM;
        w->by_many = by_many;
        if (park_uring_allowed() && wire_ring_new(by_many, &w->ring) < 0)
                w->ring = NULL;
        *ret = w;
        return 0;
}

struct wire *wire_free(struct wire *w) {
        if (w) {
                wire_zc_ring_free(w->zc);
                wire_ring_free(w->ring);
        }
        free(w);
        return NULL;
}

bool wire_is_uring(const struct wire *w) {
        return w->ring;
}

/* A ring is one thread's: another than made it, or used it last, makes its own. */
static bool moved(struct wire *w, ssize_t r) {
        if (r != -EEXIST)
                return false;
        w->ring = wire_ring_free(w->ring);
        if (wire_ring_new(w->by_many, &w->ring) < 0)
                w->ring = NULL;
        return true;
}

/* Not by libc's functions, here and below: they are cancellation points, and callers hold a lock. */
static ssize_t plain_send(int fd, const struct msghdr *m, int flags) {
        flags |= MSG_DONTWAIT | MSG_NOSIGNAL;
        return m->msg_iovlen == 1 ? syscall(SYS_sendto, fd, m->msg_iov->iov_base, m->msg_iov->iov_len, flags, NULL, 0)
                                  : syscall(SYS_sendmsg, fd, m, flags);
}

ssize_t wire_send(struct wire *w, int fd, const struct iovec *v, unsigned n) {
        struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)v, .msg_iovlen = n};
        struct iovec all = {w->gathered, 0};
        ssize_t r;

        if (n == 2 && v[0].iov_len + v[1].iov_len <= sizeof(w->gathered)) {
                memcpy(w->gathered, v[0].iov_base, v[0].iov_len);
                memcpy(w->gathered + v[0].iov_len, v[1].iov_base, v[1].iov_len);
                all.iov_len = v[0].iov_len + v[1].iov_len;
                m.msg_iov = &all;
                m.msg_iovlen = 1;
        }

        do
                if (w->ring)
                        r = wire_ring_send(w->ring, fd, &m);
                else {
                        r = plain_send(fd, &m, 0);
                        r = r < 0 ? -errno : r;
                }
        while (r == -EINTR || moved(w, r));
        return r;
}

ssize_t wire_receive(struct wire *w, int fd, const struct iovec *v, unsigned n) {
        struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)v, .msg_iovlen = n};
        ssize_t r;

        /* Who takes turns polls: most looks find nothing, and such a one costs twice as much through a ring (a round trip of
         * 64 bytes then takes 1.18 of two bare connections, else 1.03). */
        do
                if (w->ring && !w->by_many)
                        r = wire_ring_receive(w->ring, fd, &m);
                else {
                        r = n == 1 ? syscall(SYS_recvfrom, fd, v->iov_base, v->iov_len, MSG_DONTWAIT, NULL, NULL)
                                   : syscall(SYS_recvmsg, fd, &m, MSG_DONTWAIT);
                        r = r < 0 ? -errno : r;
                }
        while (r == -EINTR || moved(w, r));
        return r;
}

int wire_zc_probe(struct wire *w) {
        return w->zc ? 0 : w->by_many || !w->ring ? -EOPNOTSUPP : wire_zc_ring_new(&w->zc);
}

struct wire_zc *wire_zc_new(struct wire *w, enum wire_zc_wish wish) {
        return wire_zc_probe(w) == 0 ? wire_zc_ring_socket(w->zc, wish == WIRE_ZC_ALWAYS) : NULL;
}

struct wire_zc *wire_zc_free(struct wire *w, struct wire_zc *zc) {
        if (zc)
                wire_zc_ring_give_up(w->zc, zc);
        return NULL;
}

static ssize_t send_without_copy(struct wire *w, int fd, const struct iovec *v, unsigned n, struct wire_zc *zc) {
        size_t head = 0;
        ssize_t r;

        if (n == 2) { /* its memory is used again at once */
                const struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)v, .msg_iovlen = 1};

                r = plain_send(fd, &m, MSG_MORE);
                if (r < 0 || (size_t)r < v[0].iov_len)
                        return r < 0 ? -errno : r;
                head = v[0].iov_len;
        }
        r = wire_zc_ring_send(w->zc, zc, fd, &v[n - 1]);
        if (r > 0)
                return r + (ssize_t)head;
        if (head)
                return (ssize_t)head;
        if (r == -EINVAL || r == -EOPNOTSUPP || r == -EEXIST)
                zc->off = true; /* not on this socket; or another thread's ring now (psyne_poll()) */
        if (zc->off || r == -ENOMEM || r == -ENOBUFS) /* no more memory may be locked at present */
                return wire_send(w, fd, v, n);
        return r;
}

ssize_t wire_send_long(struct wire *w, int fd, const struct iovec *v, unsigned n, struct wire_zc *zc) {
        const size_t bytes = v[n - 1].iov_len;
        int64_t begun;
        bool without;
        ssize_t r;

        if (!zc || zc->off)
                return wire_send(w, fd, v, n);
        if (zc->always)
                return send_without_copy(w, fd, v, n, zc);
        without = zc_trial_wants(&zc->trial, bytes);
        begun = zc_trial_open(&zc->trial, bytes) ? clock_ns() : 0;
        r = without ? send_without_copy(w, fd, v, n, zc) : wire_send(w, fd, v, n);
        if (begun && !zc->off && r == (ssize_t)(bytes + (n == 2 ? v[0].iov_len : 0))) /* one that was cut short says nothing */
                zc_trial_note(&zc->trial, bytes, without, clock_ns() - begun);
        return r;
}

void wire_zc_look(const struct wire_zc *zc, struct wire_zc_info *ret) {
        *ret = (struct wire_zc_info){0};
        if (!zc)
                return;
        ret->sends = zc->sends;
        ret->copied = zc->copied;
        ret->from_bytes = zc->off ? 0 : zc->always ? WIRE_LONG_BYTES : zc_trial_from(&zc->trial);
}

void wire_after_fork_child(struct wire *w) {
        w->zc = wire_zc_ring_forget(w->zc);
        if (w->ring)
                w->ring = wire_ring_forget(w->ring);
}
