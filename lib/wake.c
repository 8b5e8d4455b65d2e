/*
 * Waking, and the barrier that makes it cheap (edges F to I in psyne/inline.h).
 *
 * Every waiter has an event word of its own. It reads the word, sets its bit in the channel-wide bitmap, runs the
 * heavy barrier, looks again, and sleeps on the word. Only the sleeper writes its bit and its sleep generation; a
 * waker remembers privately which generation of whom it has woken, so it bumps and wakes once per sleep, whatever
 * other wakers did or failed to do: one that is stopped or killed halfway swallows nobody else's wake.
 *
 * Everything rarer than a message (a join, a stop, a death) bumps every event word, asleep or not: whoever read its
 * word before it looked cannot fall asleep over it.
 */
#include "lib/internal.h"

#include <limits.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm/group.h"

bool wake_barrier_expedited(void) {
        return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
}

void wake_barrier_heavy(const struct psyne_channel *ch) {
        if (!__atomic_load_n(&ch->fence, __ATOMIC_RELAXED) && wake_barrier_expedited())
                return;
        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* both sides fence: pairs with psyne_lane_sleepers() */
}

/* Without a service thread handles lie where they arrived. */
static bool wake_handle(const struct psyne_channel *ch, enum bells_side side, uint32_t i, uint32_t generation) {
        if (bells_strike(ch, side, i, generation))
                return true;
        if (!(ch->flags & PSYNE_NO_THREAD))
                return false; /* the service strikes it as it comes */
        service_take(ch);
        return bells_strike(ch, side, i, generation);
}

/* The kernel's part: everyone who waits for the row's event word, and its bell where the kernel does not ring it. False:
 * by the bell alone, and we have no handle. */
static bool wake_row_member(const struct psyne_channel *ch, uint32_t i) {
        struct layout_member *m = &ch->view.members[i];
        uint32_t bell = __atomic_load_n(&m->bell, __ATOMIC_RELAXED); /* set before its bit, which we have seen */

        if (bell != LAYOUT_BELL_ALWAYS)
                (void)park_wake(&m->event, INT_MAX); /* all are its own: a ring's of it that waits must not take another's */
        return !bell || wake_handle(ch, BELLS_MEMBER, i, __atomic_load_n(&m->generation, __ATOMIC_RELAXED));
}

static bool wake_row_lane(const struct psyne_channel *ch, uint32_t i) {
        struct layout_lane *l = &ch->view.lanes[i];
        uint32_t bell = __atomic_load_n(&l->bell, __ATOMIC_RELAXED);

        if (bell != LAYOUT_BELL_ALWAYS)
                (void)park_wake(&l->event, INT_MAX);
        return !bell || wake_handle(ch, BELLS_LANE, i, __atomic_load_n(&l->generation, __ATOMIC_RELAXED));
}

/* False: we have woken it in its present sleep before, or cannot yet, and will try again. */
static bool wake_member(const struct psyne_channel *ch, uint32_t i, struct wake_memory *memory) {
        struct layout_member *m = &ch->view.members[i];
        uint32_t generation = __atomic_load_n(&m->sleep_generation, __ATOMIC_ACQUIRE);

        if (memory->woken[i] == generation)
                return false;
        memory->woken[i] = generation;
        FAULT_POINT("wake.before");
        __atomic_fetch_add(&m->event, 1, __ATOMIC_RELEASE);
        FAULT_POINT("wake.between");
        if (wake_row_member(ch, i))
                return true;
        memory->woken[i] = generation - 1;
        return false;
}

/*
 * One more sleeper of the group, not woken by us in its present sleep. Returns false if there is none.
 *
 * One that got up since @sleepers was read may have looked before what we sent was visible, and be busy with something
 * else: it is not the one to wake. One whose bit still stands behind our fence has its look ahead of it (pairs with the
 * exchanges that set and clear the bits).
 */
static bool wake_one_of(const struct psyne_channel *ch, uint32_t group, uint64_t sleepers, struct wake_memory *memory,
        uint64_t *sent) {
        const struct layout_view *v = &ch->view;

        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        sleepers &= __atomic_load_n(&v->header->sleepers, __ATOMIC_RELAXED);
        for (; sleepers; sleepers &= sleepers - 1) {
                uint32_t i = (uint32_t)__builtin_ctzll(sleepers);

                if (i >= v->n_members)
                        break;
                if (__atomic_load_n(&v->members[i].group, __ATOMIC_ACQUIRE) != group ||
                        !wake_member(ch, i, memory))
                        continue;
                ++*sent;
                return true;
        }
        return false;
}

void psyne_wake_consumers(struct psyne_producer *p) {
        const struct layout_view *v = &p->channel->view;
        uint64_t sleepers = __atomic_load_n(&v->header->sleepers, __ATOMIC_ACQUIRE), sent = 0, elided = 0, shared = 0;

        if (p->channel->forked)
                return;
        if (p->channel->inlined && !p->of_link) {
                link_push(p);
                return;
        }
        for (; sleepers; sleepers &= sleepers - 1) {
                uint32_t i = (uint32_t)__builtin_ctzll(sleepers), group;

                if (i >= v->n_members)
                        break;
                group = __atomic_load_n(&v->members[i].group, __ATOMIC_ACQUIRE);
                if (group < v->n_groups && v->groups[group].follows >= 0)
                        continue; /* it waits for the group in front */
                if (group < v->n_groups && v->groups[group].kind == LAYOUT_GROUP_SHARED) {
                        /* A message is for one of them: wake one, of those that we have not woken already. */
                        if (!(shared & (1ull << group)) && !wake_one_of(p->channel, group, sleepers, &p->memory, &sent))
                                elided++;
                        shared |= 1ull << group;
                        continue;
                }
                if (wake_member(p->channel, i, &p->memory))
                        sent++;
                else
                        elided++;
        }
        if (sent)
                __atomic_store_n(&p->tx.shared->wakes_sent, p->tx.shared->wakes_sent + sent, __ATOMIC_RELAXED);
        if (elided)
                __atomic_store_n(&p->tx.shared->wakes_elided, p->tx.shared->wakes_elided + elided, __ATOMIC_RELAXED);
}

/* Those that wait for our group to release something. */
static void wake_followers(struct psyne_consumer *c) {
        const struct layout_view *v = &c->channel->view;
        uint64_t sleepers = psyne_lane_sleepers(&v->header->sleepers, c->rx.hot.fence), sent = 0, shared = 0;

        for (; sleepers; sleepers &= sleepers - 1) {
                uint32_t i = (uint32_t)__builtin_ctzll(sleepers), group;

                if (i >= v->n_members)
                        break;
                group = __atomic_load_n(&v->members[i].group, __ATOMIC_ACQUIRE);
                if (group >= v->n_groups || v->groups[group].follows != (int32_t)c->group)
                        continue;
                if (v->groups[group].kind == LAYOUT_GROUP_SHARED) {
                        if (!(shared & (1ull << group)))
                                (void)wake_one_of(c->channel, group, sleepers, &c->followers, &sent);
                        shared |= 1ull << group;
                        continue;
                }
                sent += wake_member(c->channel, i, &c->followers);
        }
        if (sent)
                __atomic_store_n(&c->shared->wakes_sent, c->shared->wakes_sent + sent, __ATOMIC_RELAXED);
}

/* A producer sleeps for a free position: it is woken when this reader's own released position has reached it. */
void wake_producers(struct psyne_consumer *c) {
        const struct layout_view *v = &c->channel->view;
        uint64_t waiters = __atomic_load_n(&v->header->waiters, __ATOMIC_ACQUIRE);

        for (; waiters; waiters &= waiters - 1) {
                uint32_t i = (uint32_t)__builtin_ctzll(waiters), generation;
                struct layout_lane *l;
                uint64_t wanted, released;

                if (i >= v->n_lanes)
                        break;
                l = &v->lanes[i];
                generation = __atomic_load_n(&l->sleep_generation, __ATOMIC_ACQUIRE);
                wanted = __atomic_load_n(&l->wanted, __ATOMIC_ACQUIRE);
                released = group_position(v, c->group, i, true);
                if ((int64_t)(released - wanted) < 0 || c->memory.woken[i] == generation)
                        continue;
                c->memory.woken[i] = generation;
                __atomic_fetch_add(&l->event, 1, __ATOMIC_RELEASE);
                if (!wake_row_lane(c->channel, i))
                        c->memory.woken[i] = generation - 1;
                __atomic_store_n(&c->shared->wakes_sent, c->shared->wakes_sent + 1, __ATOMIC_RELAXED);
        }
        if (c->gates)
                wake_followers(c);
}

void wake_next(struct psyne_consumer *c) {
        const struct layout_view *v = &c->channel->view;
        uint64_t sent = 0;

        (void)wake_one_of(c->channel, c->group, __atomic_load_n(&v->header->sleepers, __ATOMIC_ACQUIRE), &c->members, &sent);
        if (sent)
                __atomic_store_n(&c->shared->wakes_sent, c->shared->wakes_sent + sent, __ATOMIC_RELAXED);
}

void psyne_publish_released(struct psyne_consumer *c) {
        if (c->channel->forked)
                return;
        if (!c->gates) {
                if (c->rx.hot.released - c->rx.hot.published >= c->rx.hot.lazy)
                        walk_turn_over(c);
        } else if (c->rx.hot.released - c->turn_from >= (c->rx.hot.mask + 1) / 8) {
                c->turn_from = c->rx.hot.released;
                walk_turn_over(c);
        }
        (void)lane_rx_publish(&c->rx);
        wake_producers(c);
}

void wake_everyone(struct psyne_channel *ch) {
        const struct layout_view *v = &ch->view;

        for (uint32_t i = 0; i < v->n_members; i++)
                if (__atomic_load_n(&v->members[i].state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE) {
                        __atomic_fetch_add(&v->members[i].event, 1, __ATOMIC_RELEASE);
                        (void)park_wake_signal_safe(&v->members[i].event, INT_MAX);
                        (void)bells_strike(ch, BELLS_MEMBER, i, __atomic_load_n(&v->members[i].generation, __ATOMIC_RELAXED));
                }
        for (uint32_t i = 0; i < v->n_lanes; i++)
                if (__atomic_load_n(&v->lanes[i].state, __ATOMIC_ACQUIRE) != LAYOUT_FREE) {
                        __atomic_fetch_add(&v->lanes[i].event, 1, __ATOMIC_RELEASE);
                        (void)park_wake_signal_safe(&v->lanes[i].event, INT_MAX);
                        (void)bells_strike(ch, BELLS_LANE, i, __atomic_load_n(&v->lanes[i].generation, __ATOMIC_RELAXED));
                }
        __atomic_fetch_add(&v->header->peers_event, 1, __ATOMIC_RELEASE);
        (void)park_wake_signal_safe(&v->header->peers_event, INT_MAX);
}

void wake_local(struct psyne_channel *ch) {
        pthread_mutex_lock(&ch->lock);
        for (struct psyne_consumer *c = ch->consumers; c; c = c->next) {
                __atomic_fetch_add(&c->shared->event, 1, __ATOMIC_RELEASE);
                (void)park_wake_signal_safe(&c->shared->event, INT_MAX);
                (void)bells_strike(ch, BELLS_MEMBER, c->index, __atomic_load_n(&c->shared->generation, __ATOMIC_RELAXED));
        }
        for (struct psyne_producer *p = ch->producers; p; p = p->next) {
                __atomic_fetch_add(&p->tx.shared->event, 1, __ATOMIC_RELEASE);
                (void)park_wake_signal_safe(&p->tx.shared->event, INT_MAX);
                (void)bells_strike(ch, BELLS_LANE, p->tx.index, __atomic_load_n(&p->tx.shared->generation, __ATOMIC_RELAXED));
        }
        pthread_mutex_unlock(&ch->lock);
}

void waiter_init(struct waiter *w, const struct psyne_endpoint *e, int64_t timeout_ns) {
        int64_t now = clock_ns();

        *w = (struct waiter){
                .started_ns = now,
                .deadline_ns = clock_deadline_ns(timeout_ns),
                .wait = (enum psyne_wait)__atomic_load_n(&e->wait, __ATOMIC_RELAXED),
        };
        if (w->wait == PSYNE_WAIT_SPIN)
                w->spin_until_ns = CLOCK_FOREVER;
        else if (w->wait == PSYNE_WAIT_HYBRID) { /* longer wastes more than it saves, shorter pays for the sleep anyway */
                int64_t spin = process_spin_ns();

                w->spin_until_ns = spin ? now + spin : 0;
        }
}
