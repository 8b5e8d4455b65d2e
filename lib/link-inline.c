/*
 * inline=1: a message leaves with the commit that publishes it, and lands with the receive that looks for it. No other thread
 * has to be woken in between, which is most of what a short round trip takes.
 *
 * Sending: the link's reader has its bit among the sleepers for good, so every commit finds somebody to wake; that is we, and
 * we send. Receiving: a reader that spins (wait=spin) looks at the sockets between two looks at its ring. The thread stays
 * for everything else (connecting, accepting, acknowledging what nobody waits behind, connections that break, sockets that
 * take no more), and reads the sockets while no reader does: they are out of its set for a while after one has been there.
 *
 * Whoever gets the lock moves the bytes. Who does not, or meets what is the thread's, wakes it.
 */
#include "lib/link.h"

void link_push(struct psyne_producer *p) {
        struct link *l = p->channel->link;
        bool done = false;

        if (pthread_mutex_trylock(&l->links->lock) == 0) {
                struct outbound *o = outbound_of(l, p->tx.index, __atomic_load_n(&p->tx.shared->generation, __ATOMIC_RELAXED));

                done = o && l->life != LINK_GONE && outbound_push(o);
                pthread_mutex_unlock(&l->links->lock);
        }
        if (!done)
                (void)psyne_waitset_wake(l->links->set);
}

void link_reap(struct psyne_channel *ch) {
        struct link *l = ch->link;
        int64_t now = clock_ns();
        bool done = true;

        if (pthread_mutex_trylock(&l->links->lock) != 0) {
                cpu_pause(); /* the thread is at it */
                return;
        }
        if (!l->reaped) {
                __atomic_store_n(&l->reaped, true, __ATOMIC_RELAXED);
                done = false; /* it takes the sockets out of its set */
        }
        l->reaped_ns = now;
        for (struct inbound *in = l->in; in; in = in->next)
                done &= !in->session || inbound_reap(in, now);
        pthread_mutex_unlock(&l->links->lock);
        if (!done)
                (void)psyne_waitset_wake(l->links->set);
}

void link_reap_no_more(struct psyne_channel *ch) {
        struct link *l = ch->link;

        if (!__atomic_load_n(&l->reaped, __ATOMIC_RELAXED)) /* by this very thread, as a rule */
                return;
        pthread_mutex_lock(&l->links->lock);
        l->reaped_ns = 0;
        pthread_mutex_unlock(&l->links->lock);
        (void)psyne_waitset_wake(l->links->set);
}

/* [the thread] */
bool link_is_reaped(struct link *l, int64_t now) {
        if (!l->reaped)
                return false;
        if (now - l->reaped_ns >= LINK_REAPED_FOR_NS) {
                __atomic_store_n(&l->reaped, false, __ATOMIC_RELAXED);
                return false;
        }
        link_due(l, l->reaped_ns + LINK_REAPED_FOR_NS);
        return true;
}
