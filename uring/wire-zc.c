/* See wire-zc.h. */
#include "uring/wire-zc.h"

#include <errno.h>
#include <stdlib.h>

#include "uring/compat.h"
#include "uring/thread-ring.h"

#define TRIED 16u /* told about: if all of them were copied, so will be the next */

struct wire_zc_ring {
        struct thread_ring ring;
        struct wire_zc *sockets;
};

/* The operation, and the flag: both are looked at before the descriptor is. */
static bool knows(struct wire_zc_ring *r) {
        struct io_uring_sqe *sqe = thread_ring_entry(&r->ring);
        uint64_t user_data;
        int result;

        io_uring_prep_send_zc(sqe, -1, NULL, 0, MSG_DONTWAIT, COMPAT_SEND_ZC_REPORT);
        sqe->user_data = 0;
        return thread_ring_enter(&r->ring, 1, -1) == 0 && thread_ring_reap(&r->ring, &user_data, &result) && result == -EBADF;
}

int wire_zc_ring_new(struct wire_zc_ring **ret) {
        struct wire_zc_ring *r = calloc(1, sizeof(*r));
        int e;

        if (!r)
                return -ENOMEM;
        r->ring = (struct thread_ring)THREAD_RING_NULL;
        e = thread_ring_init(&r->ring, THREAD_RING_MOVABLE);
        if (e < 0) {
                free(r);
                return e;
        }
        if (!knows(r)) {
                wire_zc_ring_free(r);
                return -EOPNOTSUPP;
        }
        *ret = r;
        return 0;
}

static void sockets_free(struct wire_zc_ring *r) {
        while (r->sockets) {
                struct wire_zc *zc = r->sockets;

                r->sockets = zc->next;
                free(zc);
        }
}

/* What is in flight has its pages held by the kernel. */
struct wire_zc_ring *wire_zc_ring_free(struct wire_zc_ring *r) {
        if (!r)
                return NULL;
        thread_ring_deinit(&r->ring);
        sockets_free(r);
        free(r);
        return NULL;
}

struct wire_zc_ring *wire_zc_ring_forget(struct wire_zc_ring *r) {
        if (!r)
                return NULL;
        thread_ring_forget(&r->ring);
        sockets_free(r);
        free(r);
        return NULL;
}

struct wire_zc *wire_zc_ring_socket(struct wire_zc_ring *r, bool always) {
        struct wire_zc *zc = calloc(1, sizeof(*zc));

        if (!zc)
                return NULL;
        zc->always = always;
        zc->next = r->sockets;
        r->sockets = zc;
        return zc;
}

static void end(struct wire_zc_ring *r, struct wire_zc *zc) {
        for (struct wire_zc **at = &r->sockets; *at; at = &(*at)->next)
                if (*at == zc) {
                        *at = zc->next;
                        break;
                }
        free(zc);
}

void wire_zc_ring_give_up(struct wire_zc_ring *r, struct wire_zc *zc) {
        zc->given_up = true;
        if (!zc->pending)
                end(r, zc);
}

/* What the kernel has told, of any socket. True: *@ret is what became of the send of @zc. */
static bool hear(struct wire_zc_ring *r, const struct wire_zc *zc, int *ret) {
        struct wire_zc *of;
        uint64_t user_data;
        uint32_t flags;
        bool heard = false;
        int result;

        while (thread_ring_reap_flags(&r->ring, &user_data, &result, &flags)) {
                of = (struct wire_zc *)(uintptr_t)user_data;
                if (!of)
                        continue; /* knows() asked */
                if (!(flags & IORING_CQE_F_NOTIF)) {
                        of->pending += (flags & IORING_CQE_F_MORE) != 0;
                        of->empty += (flags & IORING_CQE_F_MORE) && result <= 0;
                        *ret = result;
                        heard = of == zc;
                        continue;
                }
                of->pending--;
                if (of->empty) /* of one that sent nothing, which says nothing */
                        of->empty--;
                else {
                        of->told++;
                        of->copied += ((uint32_t)result & COMPAT_NOTIF_COPIED) != 0;
                }
                of->off |= !of->always && of->told >= TRIED && of->copied == of->told;
                if (of->given_up && !of->pending)
                        end(r, of);
        }
        return heard;
}

ssize_t wire_zc_ring_send(struct wire_zc_ring *r, struct wire_zc *zc, int fd, const struct iovec *v) {
        struct io_uring_sqe *sqe;
        int result = 0, e;

        (void)hear(r, NULL, &result);
        sqe = thread_ring_entry(&r->ring);
        io_uring_prep_send_zc(sqe, fd, v->iov_base, v->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL, COMPAT_SEND_ZC_REPORT);
        sqe->user_data = (uint64_t)(uintptr_t)zc;
        do { /* asking for one brings those that wait to be asked for as well */
                e = thread_ring_enter(&r->ring, 1, -1);
                e = e == -EINTR ? 0 : e;
        } while (e >= 0 && !hear(r, zc, &result));
        if (e < 0)
                return e == -EBUSY || e == -EAGAIN ? -ENOBUFS : e;
        if (result > 0)
                zc->sends++;
        return result;
}
