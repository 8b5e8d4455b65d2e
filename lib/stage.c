/*
 * Groups that follow groups: a pipeline. A group gets what the one in front has released, in place; its gate is that
 * one's free position, so whatever it gets, everybody in front is done with. Producers are held back by the last, as by
 * any slow group.
 *
 * A consumer whose group is followed wakes the followers with every release. It learns that it is followed when it makes
 * its list of lanes; until it has, followers do not sleep for long.
 *
 * A stage of a channel with PSYNE_IN_PLACE writes into the records it holds. Length and type in the header are its to
 * change, and are written before the release that shows them to the next; the stride, by which everybody walks, is not.
 * A removed record is padding from there on.
 */
#include "lib/internal.h"

#include <errno.h>

#include "shm/group.h"

void stage_look(struct psyne_consumer *c, uint64_t generation) {
        const struct layout_view *v = &c->channel->view;
        bool gates = false;

        for (uint32_t g = 0; g < v->n_groups; g++) {
                uint32_t state = __atomic_load_n(&v->groups[g].state, __ATOMIC_ACQUIRE);

                gates |= (state == LAYOUT_ACTIVE || state == LAYOUT_JOINING) && g != c->group &&
                        __atomic_load_n(&v->groups[g].follows, __ATOMIC_ACQUIRE) == (int32_t)c->group;
        }
        if (gates && !c->gates)
                for (uint32_t i = 0; i < v->n_lanes; i++) {
                        struct lane_rx *x = walk_end(c, i);

                        if (x && !c->is_shared)
                                x->hot.lazy = 0;
                }
        c->gates = c->gates || gates; /* a group with a name does not go away */
        __atomic_store_n(&c->shared->gates_seen, generation, __ATOMIC_RELEASE); /* pairs with stage_is_heard() */
}

bool stage_is_heard(const struct psyne_consumer *c) {
        const struct layout_view *v = &c->channel->view;

        for (uint64_t m = __atomic_load_n(&v->groups[c->follows].members, __ATOMIC_ACQUIRE); m; m &= m - 1) {
                uint32_t i = (uint32_t)__builtin_ctzll(m);

                if (i < v->n_members && __atomic_load_n(&v->members[i].group, __ATOMIC_ACQUIRE) == (uint32_t)c->follows &&
                        __atomic_load_n(&v->members[i].state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE &&
                        __atomic_load_n(&v->members[i].gates_seen, __ATOMIC_ACQUIRE) <= c->opened_at)
                        return false;
        }
        return true;
}

bool stage_ended(const struct psyne_consumer *c, uint32_t lane, uint32_t generation, bool died) {
        return c->follows < 0 || group_drained(&c->channel->view, (uint32_t)c->follows, lane, generation, died);
}

bool stage_has_all(const struct psyne_consumer *c) {
        const struct layout_view *v = &c->channel->view;

        for (uint32_t i = 0; c->follows >= 0 && i < v->n_lanes; i++) {
                const struct layout_lane *l = &v->lanes[i];
                uint32_t state = __atomic_load_n(&l->state, __ATOMIC_ACQUIRE);
                uint32_t generation = __atomic_load_n(&l->generation, __ATOMIC_ACQUIRE);

                if ((state != LAYOUT_ACTIVE && state != LAYOUT_CLOSED && state != LAYOUT_DEAD) ||
                        c->done_with[i] == generation)
                        continue;
                if ((int64_t)(group_handed_out(v, c->group, i) - layout_lane_tail(l)) < 0 ||
                        (state == LAYOUT_DEAD && !stage_ended(c, i, generation, true)))
                        return false;
        }
        return true;
}

int stage_write(struct psyne_consumer *c, const struct lane_rx *x, const struct psyne_msg *m, bool remove) {
        unsigned char *at = (unsigned char *)(uintptr_t)x->hot.base + (m->opaque[0] & x->hot.mask & ~x->hot.align_mask); /* an adopted place is a peer's word */
        struct psyne_record *r = (void *)at;
        uint64_t kind;

        if (m->len > m->opaque[1] - m->opaque[0] - PSYNE_RECORD_HEADER)
                return error_set(-EINVAL, "message length %zu exceeds the record's %llu bytes", m->len,
                        (unsigned long long)(m->opaque[1] - m->opaque[0] - PSYNE_RECORD_HEADER));
        kind = (__atomic_load_n(&r->kind, __ATOMIC_RELAXED) & ~(uint64_t)UINT32_MAX) | m->type;
        if (remove) {
                kind |= PSYNE_RECORD_PAD;
                __atomic_store_n(&c->shared->removed, c->shared->removed + 1, __ATOMIC_RELAXED);
        }
        __atomic_store_n(&r->bytes, (uint32_t)m->len, __ATOMIC_RELAXED); /* both before D */
        __atomic_store_n(&r->kind, kind, __ATOMIC_RELAXED);
        return 0;
}

/*
 * Releases a message so that no group behind this one gets it. -EINVAL: not held by this consumer, or that does not work
 * in place (psyne_consumer_opts.in_place).
 */
int psyne_remove(struct psyne_consumer *c, struct psyne_msg *m) {
        int r;

        if (!c || !m)
                return error_set(-EINVAL, "psyne_remove: no consumer or no message");
        if (!c->in_place)
                return error_set(-EINVAL, "psyne_remove: this consumer does not work in place");
        m->flags |= STAGE_REMOVE;
        r = psyne_release_slow(c, m);
        m->flags &= ~STAGE_REMOVE;
        return r;
}

/*
 * Sends a copy of a received message to another channel, with its type, and then releases it. On failure it stays held.
 * Errors as psyne_send() and psyne_release(). To pass a message on within a channel, let a group follow and release it:
 * that copies nothing.
 */
int psyne_forward(struct psyne_consumer *c, struct psyne_msg *m, struct psyne_producer *to, int64_t timeout_ns) {
        int r;

        if (!c || !m || !to)
                return error_set(-EINVAL, "psyne_forward: no consumer, no message or no producer");
        r = psyne_send(to, m->type, m->data, m->len, timeout_ns);
        if (r < 0)
                return r;
        return psyne_release_inline(c, m);
}
