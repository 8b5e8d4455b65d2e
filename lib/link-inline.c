/*
 * inline=1: a message leaves with the commit that publishes it, and lands with the receive that looks for it. No other thread
 * has to be woken in between, which is most of what a short round trip takes.
 *
 * Sending: the link's reader has its bit among the sleepers for good, so every commit finds somebody to wake; that is we, and
 * we send. Receiving: a reader that spins (wait=spin) looks at the sockets between two looks at its ring. The thread stays
 * for everything else (connecting, accepting, acknowledging what nobody waits behind, connections that break, sockets that
 * take no more), and reads the sockets while no reader does. It is told once that there is something to read, and leaves that
 * to a reader that was there a moment ago; the reader asks for it to be told again before it sleeps.
 *
 * Whoever gets the lock moves the bytes. Who does not, or meets what is the thread's, wakes it.
 */
#include "lib/link.h"

void link_push(struct psyne_producer *p) {
        struct psyne_link *l = p->channel->link;
        bool done = false;

        if (!__atomic_load_n(&l->links->wanted, __ATOMIC_RELAXED) && pthread_mutex_trylock(&l->links->lock) == 0) {
                struct outbound *o = outbound_of(l, p->tx.index, __atomic_load_n(&p->tx.shared->generation, __ATOMIC_RELAXED));

                done = o && l->life != LINK_GONE && outbound_push(o);
                pthread_mutex_unlock(&l->links->lock);
        }
        if (!done)
                (void)psyne_waitset_wake(l->links->set);
}

size_t link_reap(struct psyne_channel *ch) {
        struct psyne_link *l = ch->link;
        int64_t now = clock_ns();
        bool look = false;
        size_t n = 0;

        if (__atomic_load_n(&l->links->wanted, __ATOMIC_RELAXED) || pthread_mutex_trylock(&l->links->lock) != 0) {
                cpu_pause(); /* the thread is at it, or would wait for one that polls again and again */
                return 0;
        }
        __atomic_store_n(&l->reaped, true, __ATOMIC_RELAXED);
        l->reaped_ns = now;
        for (struct inbound *in = l->in; in; in = in->next)
                if (in->session)
                        n += inbound_reap(in, now, &look);
        pthread_mutex_unlock(&l->links->lock);
        if (look)
                (void)psyne_waitset_wake(l->links->set);
        return n;
}

void link_reap_no_more(struct psyne_channel *ch) {
        struct psyne_link *l = ch->link;

        if (!__atomic_load_n(&l->reaped, __ATOMIC_RELAXED)) /* set by this very thread, as a rule */
                return;
        pthread_mutex_lock(&l->links->lock);
        __atomic_store_n(&l->reaped, false, __ATOMIC_RELAXED);
        for (struct inbound *in = l->in; in; in = in->next)
                if (in->fd >= 0 && in->socket.events)
                        link_watch_again(l, &in->socket);
        pthread_mutex_unlock(&l->links->lock);
}

/* [the thread] */
bool link_is_reaped(struct psyne_link *l, int64_t now) {
        if (!l->reaped)
                return false;
        if (__atomic_load_n(&l->channel->view.header->sleepers, __ATOMIC_RELAXED)) /* others wait: what comes is not only the poller's */
                return false;
        if (now - l->reaped_ns >= LINK_REAPED_FOR_NS) { /* it does not come any more */
                __atomic_store_n(&l->reaped, false, __ATOMIC_RELAXED);
                return false;
        }
        link_due(l, l->reaped_ns + LINK_REAPED_FOR_NS);
        return true;
}
