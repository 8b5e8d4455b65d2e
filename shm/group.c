/* See group.h. */
#include "shm/group.h"

#include "psyne/inline.h"
#include "shm/shared.h"

uint64_t group_position(const struct layout_view *v, uint32_t group, uint32_t lane, bool exact) {
        const struct layout_cursor *c = layout_cursor(v, group, lane);

        if (__atomic_load_n(&v->groups[group].kind, __ATOMIC_RELAXED) == LAYOUT_GROUP_SHARED)
                return shared_position(v, group, lane);
        return __atomic_load_n(exact ? &c->exact.released : &c->published, PSYNE_ORDER_A); /* A, pairs with D, E */
}

static void place(struct layout_cursor *c, uint64_t position) {
        __atomic_store_n(&c->claim, shared_claim_word(position, 0), __ATOMIC_RELAXED);
        __atomic_store_n(&c->exact.taken, position, __ATOMIC_RELAXED);
        __atomic_store_n(&c->exact.released, position, __ATOMIC_RELAXED);
        __atomic_store_n(&c->published, position, __ATOMIC_RELEASE);
}

void group_place(const struct layout_view *v, uint32_t group, uint32_t lane, uint64_t position, uint64_t messages,
        bool late) {
        struct layout_cursor *c = layout_cursor(v, group, lane);

        c->before = messages - c->exact.messages_received - c->lost;
        c->late = late;
        place(c, position);
}

void group_place_all(const struct layout_view *v, uint32_t lane, uint64_t position) {
        for (uint32_t g = 0; g < v->n_groups; g++)
                if (group_copies(v, g))
                        place(layout_cursor(v, g, lane), position);
                else
                        group_place(v, g, lane, position, v->lanes[lane].tx.messages_sent, false);
}

void group_finish(const struct layout_view *v, uint32_t group, uint32_t lane, uint32_t generation) {
        __atomic_store_n(&layout_cursor(v, group, lane)->finished, generation, __ATOMIC_RELEASE);
}

bool group_passes(const struct layout_view *v, int32_t front, uint32_t lane, uint64_t *gate, uint64_t to) {
        uint64_t at;

        if (front < 0 || (int64_t)(*gate - to) >= 0)
                return true;
        at = group_position(v, (uint32_t)front, lane, true);
        if ((int64_t)(at - *gate) > 0)
                *gate = at;
        return (int64_t)(*gate - to) >= 0;
}

uint64_t group_handed_out(const struct layout_view *v, uint32_t group, uint32_t lane) {
        const struct layout_cursor *c = layout_cursor(v, group, lane);

        if (__atomic_load_n(&v->groups[group].kind, __ATOMIC_RELAXED) == LAYOUT_GROUP_SHARED)
                return shared_claim_position(__atomic_load_n(&c->claim, __ATOMIC_ACQUIRE));
        return __atomic_load_n(&c->exact.taken, __ATOMIC_ACQUIRE);
}

bool group_drained(const struct layout_view *v, uint32_t group, uint32_t lane, uint32_t generation, bool died) {
        uint64_t tail = layout_lane_tail(&v->lanes[lane]), end;

        if (died && __atomic_load_n(&layout_cursor(v, group, lane)->finished, __ATOMIC_ACQUIRE) != generation)
                return false;
        end = group_handed_out(v, group, lane);
        return (died ? (int64_t)(end - tail) >= 0 : end == tail) && group_position(v, group, lane, true) == end;
}

bool group_has_reader(const struct layout_view *v, uint32_t group) {
        for (uint64_t m = __atomic_load_n(&v->groups[group].members, __ATOMIC_ACQUIRE); m; m &= m - 1) {
                uint32_t i = (uint32_t)__builtin_ctzll(m);

                if (i < v->n_members && __atomic_load_n(&v->members[i].group, __ATOMIC_ACQUIRE) == group &&
                        __atomic_load_n(&v->members[i].state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE)
                        return true;
        }
        return false;
}

bool group_all_drained(const struct layout_view *v, uint32_t lane, uint32_t generation, bool died, bool skipping) {
        uint64_t groups = __atomic_load_n(&v->header->groups_active, __ATOMIC_ACQUIRE), s = 0;

        if (skipping)
                s = __atomic_load_n(&v->header->groups_skipping, __ATOMIC_ACQUIRE);
        for (; s; s &= s - 1) {
                uint32_t g = (uint32_t)__builtin_ctzll(s);

                if (g < v->n_groups && group_has_reader(v, g) && !group_drained(v, g, lane, generation, died))
                        return false;
        }

        for (; groups; groups &= groups - 1) {
                uint32_t g = (uint32_t)__builtin_ctzll(groups);

                if (g >= v->n_groups)
                        break;
                if (!group_drained(v, g, lane, generation, died))
                        return false;
        }
        return true;
}

void group_heard(const struct layout_view *v) {
        for (uint32_t i = 0; i < v->n_lanes; i++) {
                struct layout_lane *l = &v->lanes[i];
                uint64_t messages, from;

                if (!__atomic_load_n(&l->unheard_from, __ATOMIC_RELAXED))
                        continue;
                (void)layout_lane_end(l, &messages);
                from = __atomic_exchange_n(&l->unheard_from, 0, __ATOMIC_ACQ_REL); /* of several that come one counts */
                if (from && messages >= from)
                        __atomic_fetch_add(&l->unheard, messages - (from - 1), __ATOMIC_RELAXED);
        }
}

void group_unheard(const struct layout_view *v) {
        if (__atomic_load_n(&v->header->groups_active, __ATOMIC_ACQUIRE) ||
                __atomic_load_n(&v->header->groups_skipping, __ATOMIC_ACQUIRE))
                return;
        for (uint32_t i = 0; i < v->n_lanes; i++) {
                uint64_t messages, none = 0;

                (void)layout_lane_end(&v->lanes[i], &messages);
                __atomic_compare_exchange_n(&v->lanes[i].unheard_from, &none, messages + 1, false, __ATOMIC_ACQ_REL,
                        __ATOMIC_RELAXED);
        }
        /* One that came meanwhile has not seen these yet. */
        if (__atomic_load_n(&v->header->groups_active, __ATOMIC_SEQ_CST) ||
                __atomic_load_n(&v->header->groups_skipping, __ATOMIC_SEQ_CST))
                group_heard(v);
}
