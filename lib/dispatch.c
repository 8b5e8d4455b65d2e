/*
 * Receiving by type, the newest only, or by a table of handlers. A message that is not wanted after all is put back as
 * if it had not been taken: it is the newest of the lane that was looked at, so its place is still where the next look
 * begins.
 */
#include "lib/internal.h"

#include <errno.h>
#include <stdio.h>

static int check(const struct psyne_consumer *c, const char *call) {
        if (!c)
                return error_set(-EINVAL, "%s: no consumer", call);
        if (c->channel->forked)
                return error_set(-EOWNERDEAD, "this consumer came through fork(); it belongs to the parent");
        return 0;
}

static int wrong_type(struct psyne_consumer *c, const struct psyne_msg *m, const char *wanted) {
        uint32_t type = m->type;

        consumer_untake(c, m);
        return error_set(-EMEDIUMTYPE, "the next message has type %u, %s", type, wanted);
}

/*
 * psyne_recv() of a message of @type. One of another type stays where it is, for the next receive.
 *
 * -EMEDIUMTYPE: the next message is of another type, which the sentence names. Else as psyne_recv().
 */
int psyne_recv_type(struct psyne_consumer *c, uint32_t type, struct psyne_msg *ret, int64_t timeout_ns) {
        char wanted[40];
        struct psyne_msg m = {0};
        int r;

        r = check(c, "psyne_recv_type");
        if (r < 0)
                return r;
        if (!ret)
                return error_set(-EINVAL, "psyne_recv_type: no message");
        r = psyne_recv_inline(c, &m, timeout_ns);
        if (r < 0) {
                ret->lost = m.lost; /* an end may say what was missed before it */
                return r;
        }
        if (m.type != type) {
                snprintf(wanted, sizeof(wanted), "type %u was asked for", type);
                return wrong_type(c, &m, wanted);
        }
        *ret = m;
        return 0;
}

/*
 * Takes the newest message that is there and releases those before it; ret->lost says how many. Does not wait. Of
 * several producers it is the newest of one of them.
 *
 * -EAGAIN: nothing there; -EPIPE, -ESHUTDOWN, -EBADMSG, -ENOBUFS, -EOWNERDEAD, -EBUSY, -EINVAL as psyne_recv().
 */
int psyne_recv_latest(struct psyne_consumer *c, struct psyne_msg *ret) {
        struct psyne_msg newest = {0}, next;
        uint64_t skipped = 0, lost, most;
        int r;

        r = check(c, "psyne_recv_latest");
        if (r < 0)
                return r;
        if (!ret)
                return error_set(-EINVAL, "psyne_recv_latest: no message");
        r = psyne_recv_inline(c, &newest, PSYNE_NOWAIT);
        if (r < 0) {
                if (c->copies)
                        ret->lost = newest.lost;
                return r;
        }
        lost = newest.lost;
        /* A producer that goes on sending must not keep us here: what was there when we came is at most this. */
        most = (uint64_t)c->channel->view.n_lanes * c->channel->view.config.ring_bytes / c->channel->view.config.record_align;
        for (; skipped < most; skipped++) {
                r = psyne_recv_inline(c, &next, PSYNE_NOWAIT);
                if (r == -ENOBUFS) { /* there is one, and what we have is in its way */
                        (void)psyne_release_inline(c, &newest);
                        r = psyne_recv_inline(c, &newest, PSYNE_NOWAIT);
                        if (r < 0)
                                return r;
                        lost += newest.lost;
                        continue;
                }
                if (r < 0)
                        break;
                (void)psyne_release_inline(c, &newest);
                newest = next;
                lost += newest.lost;
        }
        newest.lost = lost + skipped;
        *ret = newest;
        return 0;
}

/*
 * Receives up to @budget messages and hands each to the handler of its type, the first in @handlers that fits;
 * PSYNE_ANY_TYPE fits all. Waits up to @timeout_ns for the first only. A handler that returns 0 is done with its message,
 * which is then released; one that returns more keeps it, to be released by the caller; one that returns less is done
 * with it and ends the call.
 *
 * Returns how many were handled; if none was: -EMEDIUMTYPE: no handler for the next message, which stays where it is;
 * what the first handler returned; -EINVAL; else as psyne_recv().
 */
int psyne_dispatch(struct psyne_consumer *c, const struct psyne_handler handlers[], unsigned n, unsigned budget,
        int64_t timeout_ns) {
        unsigned handled = 0;
        int r;

        r = check(c, "psyne_dispatch");
        if (r < 0)
                return r;
        if (!handlers || !n || !budget || budget > INT32_MAX)
                return error_set(-EINVAL, "psyne_dispatch: no handlers, or a budget out of range");
        for (unsigned i = 0; i < n; i++)
                if (!handlers[i].fn)
                        return error_set(-EINVAL, "psyne_dispatch: handler %u has no function", i);
        while (handled < budget) {
                const struct psyne_handler *h = handlers;
                struct psyne_msg m;

                r = psyne_recv_inline(c, &m, handled ? PSYNE_NOWAIT : timeout_ns);
                if (r < 0)
                        break;
                while (h < handlers + n && h->type != m.type && h->type != PSYNE_ANY_TYPE)
                        h++;
                if (h == handlers + n) {
                        r = wrong_type(c, &m, "for which there is no handler");
                        break;
                }
                r = h->fn(h->ctx, &m);
                if (r <= 0)
                        (void)psyne_release_inline(c, &m);
                if (r < 0)
                        break;
                handled++;
        }
        return handled ? (int)handled : r;
}
