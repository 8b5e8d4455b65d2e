/* What links are doing, for who asks: psyne/info.h. */
#include "lib/link.h"

#include <errno.h>

static void look_out(const struct outbound *o, struct psyne_link_info *ret) {
        const struct layout_view *v = &o->link->channel->view;

        *ret = (struct psyne_link_info){
                .sends = 1,
                .up = o->tx.state == LINK_OPEN,
                .has_lane = o->taken,
                .readers = (uint32_t)o->tx.readers,
                .connections = o->connections,
                .quick_acks = o->quick_acks,
                .in_flight_bytes = o->taken ? o->tx.sent - o->tx.acked : 0,
        };
        if (o->taken && __atomic_load_n(&v->lanes[o->lane].generation, __ATOMIC_ACQUIRE) == o->generation)
                ret->queued_bytes = layout_lane_tail(&v->lanes[o->lane]) - o->tx.sent;
}

static void look_in(const struct inbound *in, struct psyne_link_info *ret) {
        *ret = (struct psyne_link_info){
                .up = in->fd >= 0 && in->rx.state == LINK_OPEN,
                .has_lane = in->p != NULL,
                .connections = in->connections,
                .quick_acks = in->quick_acks,
                .in_flight_bytes = in->rx.has_lane ? in->rx.got - in->rx.acked : 0,
        };
        if (in->p)
                ret->queued_bytes = in->p->tx.hot.tail - lane_tx_free_position(&in->p->tx, true);
}

static void look_at_socket(const struct psyne_link *l, int fd, const struct wire_zc *zc, struct psyne_link_info *ret) {
        struct wire_zc_info long_ones;
        struct net_info i;

        ret->io_uring = wire_is_uring(l->links->wire);
        wire_zc_look(zc, &long_ones);
        ret->zerocopy_sends = long_ones.sends;
        ret->zerocopy_copied = long_ones.copied;
        ret->zerocopy_bytes = long_ones.from_bytes;
        if (fd < 0)
                return;
        net_peer(fd, ret->peer);
        net_look(fd, &i);
        ret->rtt_us = i.rtt_us;
        ret->rtt_var_us = i.rtt_var_us;
        ret->retransmits = i.retransmits;
        ret->unacked_segments = i.unacked;
        ret->mss_bytes = i.mss;
        ret->congestion_window = i.congestion_window;
        ret->send_buffer = i.send_buffer;
        ret->receive_buffer = i.receive_buffer;
        ret->no_delay = i.no_delay;
}

unsigned link_look(const struct psyne_link *l, struct psyne_link_info *ret, unsigned n, unsigned got) {
        const unsigned first = got;

        for (const struct outbound *o = l->out; o; o = o->next, got++)
                if (got < n) {
                        look_out(o, &ret[got]);
                        look_at_socket(l, o->fd, o->zc, &ret[got]);
                }
        for (const struct inbound *in = l->in; in; in = in->next)
                if (in->session) {
                        if (got < n) {
                                look_in(in, &ret[got]);
                                look_at_socket(l, in->fd, NULL, &ret[got]);
                        }
                        got++;
                }
        for (unsigned i = first; i < got && i < n; i++) {
                ret[i].struct_size = sizeof(*ret);
                ret[i].added = l->added;
                ret[i].refused = l->refused;
                ret[i].ejections = l->ejections;
                ret[i].lost_bytes = l->lost_bytes;
        }
        return got - first;
}

/*
 * [any thread] Fills in the first @n connections of all links of a channel, its own and those that were added, and says how
 * many there are: of a link that sends one for each producer and one that is kept ready, of one that receives one for each
 * sender that has said who it is. Set the first one's struct_size before. 0: it has no links; -EINVAL, -EOWNERDEAD.
 */
int psyne_links(const struct psyne_channel *ch, struct psyne_link_info *ret, unsigned n) {
        unsigned got = 0;
        struct links *s;
        int r;

        if (!ch || (n && (!ret || ret->struct_size != sizeof(*ret))))
                return error_set(-EINVAL, "psyne_links: no channel, no memory or struct_size is missing");
        r = channel_check(ch);
        if (r < 0)
                return r;
        s = links_of(ch);
        if (!s)
                return 0;
        pthread_mutex_lock(&s->lock);
        for (const struct psyne_link *l = s->list; l; l = l->next)
                if (l->channel == ch)
                        got += link_look(l, ret, n, got);
        pthread_mutex_unlock(&s->lock);
        return (int)got;
}

/* The same of one link that was added. [any thread] */
int psyne_link_info(const struct psyne_link *l, struct psyne_link_info *ret, unsigned n) {
        unsigned got;
        int r;

        if (!l || (n && (!ret || ret->struct_size != sizeof(*ret))))
                return error_set(-EINVAL, "psyne_link_info: no link, no memory or struct_size is missing");
        r = channel_check(l->channel);
        if (r < 0)
                return r;
        pthread_mutex_lock(&l->links->lock);
        got = link_look(l, ret, n, 0);
        pthread_mutex_unlock(&l->links->lock);
        return (int)got;
}
