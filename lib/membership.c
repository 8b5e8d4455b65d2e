/*
 * Who is in a channel. Liveness is the kernel's word (entry.h); the tables in the control pages only say who was
 * where. Every change of state that two survivors might make at once is a compare-and-swap, so a death is cleared up
 * once, and a death during the clearing up is cleared up by the next.
 *
 * A lane's life: FREE > JOINING (its producer prepares it) > ACTIVE > CLOSED (producer left) or DEAD (found dead) >
 * FREE again, once the group has taken and released everything. Its positions go on from its highest, so a stale
 * reader of an earlier lane of that index can never mistake one for the other.
 */
#include "lib/internal.h"

#include <errno.h>
#include <string.h>

bool membership_alive(const struct psyne_channel *ch, uint32_t slot, uint32_t generation) {
        const struct layout_view *v = &ch->view;

        if (slot >= v->n_peers || __atomic_load_n(&v->peers[slot].generation, __ATOMIC_ACQUIRE) != generation)
                return false;
        if (slot == ch->slot)
                return true;
        if (__atomic_load_n(&v->peers[slot].state, __ATOMIC_ACQUIRE) != LAYOUT_ACTIVE)
                return false;
        return ch->scheme == URI_MEMORY || entry_slot_alive(&ch->entry, slot) != 0;
}

void membership_changed(struct psyne_channel *ch) {
        __atomic_fetch_add(&ch->view.header->lanes_generation, 1, __ATOMIC_SEQ_CST);
        wake_everyone(ch);
}

static bool change_state(uint32_t *state, uint32_t from, uint32_t to) {
        return __atomic_compare_exchange_n(state, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

void membership_leave_member(struct psyne_channel *ch, uint32_t i) {
        const struct layout_view *v = &ch->view;
        struct layout_member *m = &v->members[i];
        uint32_t group = m->group;

        __atomic_fetch_and(&v->header->sleepers, ~(1ull << i), __ATOMIC_SEQ_CST);
        if (group < v->n_groups)
                __atomic_fetch_and(&v->groups[group].members, ~(1ull << i), __ATOMIC_ACQ_REL);
        layout_fact_clear(v, LAYOUT_SCOPE_MEMBER, i);
        __atomic_store_n(&m->state, LAYOUT_FREE, __ATOMIC_RELEASE);
}

void membership_died(struct psyne_channel *ch, uint32_t slot, uint32_t generation) {
        const struct layout_view *v = &ch->view;
        bool mine = false;

        if (slot >= v->n_peers || __atomic_load_n(&v->peers[slot].generation, __ATOMIC_ACQUIRE) != generation)
                return;
        FAULT_POINT("died.before");
        for (uint32_t i = 0; i < v->n_lanes; i++) {
                struct layout_lane *l = &v->lanes[i];

                if (l->owner != slot || l->owner_generation != generation)
                        continue;
                /* What it had committed stays readable; what it had not, never was. */
                if (change_state(&l->state, LAYOUT_ACTIVE, LAYOUT_DEAD))
                        mine = true;
                else if (change_state(&l->state, LAYOUT_JOINING, LAYOUT_FREE))
                        mine = true;
                else
                        continue;
                __atomic_fetch_and(&v->header->producers_active, ~(1ull << i), __ATOMIC_SEQ_CST);
                __atomic_fetch_and(&v->header->waiters, ~(1ull << i), __ATOMIC_SEQ_CST);
        }
        FAULT_POINT("died.between");
        for (uint32_t i = 0; i < v->n_members; i++) {
                struct layout_member *m = &v->members[i];

                if (m->owner != slot || m->owner_generation != generation)
                        continue;
                if (change_state(&m->state, LAYOUT_ACTIVE, LAYOUT_DEAD) ||
                        change_state(&m->state, LAYOUT_JOINING, LAYOUT_DEAD)) {
                        mine = true;
                        membership_leave_member(ch, i);
                } else if (__atomic_load_n(&m->state, __ATOMIC_ACQUIRE) == LAYOUT_DEAD)
                        membership_leave_member(ch, i); /* whoever began to clear it up may have died meanwhile */
        }
        if (change_state(&v->peers[slot].state, LAYOUT_ACTIVE, LAYOUT_DEAD)) {
                mine = true;
                __atomic_fetch_add(&v->header->deaths, 1, __ATOMIC_RELAXED);
        }
        if (mine)
                membership_changed(ch);
        else
                wake_everyone(ch); /* another survivor may have died between clearing up and waking */
}

/* Modes with one producer claim the word as a whole: whoever finds it taken asks whether the taker lives. */
static int claim_producer_bit(struct psyne_channel *ch, uint32_t lane) {
        const struct layout_view *v = &ch->view;
        uint64_t *word = &v->header->producers_active, old;
        bool single = v->config.mode == PSYNE_SPSC || v->config.mode == PSYNE_SPMC;

        if (!single) {
                old = __atomic_fetch_or(word, 1ull << lane, __ATOMIC_SEQ_CST);
                (void)old;
                return 0;
        }
        for (;;) {
                uint64_t none = 0;

                if (__atomic_compare_exchange_n(word, &none, 1ull << lane, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
                        return 0;
                old = none;
                for (uint32_t i = 0; i < v->n_lanes; i++) {
                        struct layout_lane *l = &v->lanes[i];
                        uint32_t owner = l->owner, generation = l->owner_generation;

                        if (!(old & (1ull << i)))
                                continue;
                        if (membership_alive(ch, owner, generation))
                                return error_set(-EBUSY, "%s has a producer already (pid %u), and this mode takes one",
                                        ch->uri, owner < v->n_peers ? v->peers[owner].pid : 0);
                        membership_died(ch, owner, generation);
                        __atomic_fetch_and(word, ~(1ull << i), __ATOMIC_SEQ_CST);
                }
        }
}

int membership_take_lane(struct psyne_channel *ch, uint32_t *ret) {
        const struct layout_view *v = &ch->view;
        int r;

        for (uint32_t i = 0; i < v->n_lanes; i++) {
                struct layout_lane *l = &v->lanes[i];

                if (!change_state(&l->state, LAYOUT_FREE, LAYOUT_JOINING))
                        continue;
                l->owner_generation = v->peers[ch->slot].generation;
                l->owner = ch->slot;
                __atomic_add_fetch(&l->generation, 1, __ATOMIC_RELEASE);
                FAULT_POINT("lane.taken");
                r = claim_producer_bit(ch, i);
                if (r < 0) {
                        __atomic_store_n(&l->state, LAYOUT_FREE, __ATOMIC_RELEASE);
                        return r;
                }
                *ret = i;
                return 0;
        }
        return error_set(-EUSERS, "all %u lanes of %s are taken, or not drained yet", v->n_lanes, ch->uri);
}

void membership_retire_lane(struct psyne_channel *ch, uint32_t lane, uint32_t generation) {
        struct layout_lane *l = &ch->view.lanes[lane];
        uint64_t tail = __atomic_load_n(&l->tx.tail, __ATOMIC_ACQUIRE);

        if (__atomic_load_n(&l->generation, __ATOMIC_ACQUIRE) != generation)
                return;
        if ((int64_t)(tail - l->highest) > 0)
                __atomic_store_n(&l->highest, tail, __ATOMIC_RELAXED);
        FAULT_POINT("lane.retire");
        layout_fact_clear(&ch->view, LAYOUT_SCOPE_LANE, lane);
        if (change_state(&l->state, LAYOUT_CLOSED, LAYOUT_FREE) || change_state(&l->state, LAYOUT_DEAD, LAYOUT_FREE))
                membership_changed(ch);
}

bool membership_group_has_members(const struct psyne_channel *ch) {
        return __atomic_load_n(&ch->view.groups[0].members, __ATOMIC_ACQUIRE) != 0;
}

int membership_take_member(struct psyne_channel *ch, uint32_t group, uint32_t *ret) {
        const struct layout_view *v = &ch->view;
        struct layout_group *g = &v->groups[group];

        for (uint32_t i = 0; i < v->n_members; i++) {
                struct layout_member *m = &v->members[i];
                uint64_t old;

                if (!change_state(&m->state, LAYOUT_FREE, LAYOUT_JOINING))
                        continue;
                m->owner_generation = v->peers[ch->slot].generation;
                m->owner = ch->slot;
                m->group = group;
                __atomic_add_fetch(&m->generation, 1, __ATOMIC_RELEASE);
                FAULT_POINT("member.taken");
                for (;;) {
                        old = 0;
                        if (__atomic_compare_exchange_n(&g->members, &old, 1ull << i, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST))
                                break;
                        for (uint32_t k = 0; k < v->n_members; k++) {
                                uint32_t owner = v->members[k].owner, generation = v->members[k].owner_generation;

                                if (!(old & (1ull << k)))
                                        continue;
                                if (membership_alive(ch, owner, generation)) {
                                        __atomic_store_n(&m->state, LAYOUT_FREE, __ATOMIC_RELEASE);
                                        return error_set(-EBUSY, "%s has a consumer already (pid %u)", ch->uri,
                                                owner < v->n_peers ? v->peers[owner].pid : 0);
                                }
                                membership_died(ch, owner, generation);
                                __atomic_fetch_and(&g->members, ~(1ull << k), __ATOMIC_SEQ_CST);
                        }
                }
                __atomic_fetch_or(&g->ever, 1ull << i, __ATOMIC_RELAXED);
                *ret = i;
                return 0;
        }
        return error_set(-EUSERS, "all %u consumers of %s are taken", v->n_members, ch->uri);
}

void membership_prune_lanes(struct psyne_channel *ch) {
        for (uint32_t i = 0; i < ch->view.n_lanes; i++) {
                struct channel_lane *cl = &ch->lanes[i];
                struct layout_lane *l = &ch->view.lanes[i];

                if (!cl->segment.base || cl->owned || cl->readers)
                        continue;
                if (__atomic_load_n(&l->generation, __ATOMIC_ACQUIRE) != cl->generation ||
                        __atomic_load_n(&l->state, __ATOMIC_ACQUIRE) == LAYOUT_FREE)
                        segment_deinit(&cl->segment);
        }
}
