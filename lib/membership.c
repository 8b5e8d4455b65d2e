/*
 * Who is in a channel. Liveness is the kernel's word (entry.h); the tables in the control pages only say who was
 * where. A row's state and its owner's slot change together, by one compare-and-swap, so a row that was being taken
 * when its taker died can still be told from one that is in use.
 *
 * Survivors of a death only mark it. What the dead one left in shared bitmaps is cleared by whoever takes the row
 * next, and is read as "is the row's owner alive" until then: two survivors that clear up at different speeds
 * would otherwise clear what a successor has set meanwhile.
 *
 * A lane's life: FREE > JOINING (its producer prepares it) > ACTIVE > CLOSED (producer left) or DEAD (found dead) >
 * FREE again, once the group has taken and released everything. Its positions go on from its highest, so a stale
 * reader of an earlier lane of that index can never mistake one for the other.
 */
#include "lib/internal.h"

#include <errno.h>
#include <string.h>

#include "shm/group.h"
#include "shm/shared.h"

bool membership_alive(const struct psyne_channel *ch, uint32_t slot, uint32_t generation) {
        const struct layout_view *v = &ch->view;

        if (slot >= v->n_peers || __atomic_load_n(&v->peers[slot].generation, __ATOMIC_ACQUIRE) != generation)
                return false;
        if (slot == ch->slot)
                return true;
        if (__atomic_load_n(&v->peers[slot].state, __ATOMIC_ACQUIRE) != LAYOUT_ACTIVE)
                return false;
        return ch->scheme != URI_IPC || entry_slot_alive(&ch->entry, slot) != 0;
}

uint32_t membership_me(const struct psyne_channel *ch) {
        return membership_id(ch->slot, ch->view.peers[ch->slot].generation);
}

bool membership_owner_alive(const struct psyne_channel *ch, uint32_t id) {
        uint32_t slot = layout_owner_slot(id), generation;

        if (slot >= ch->view.n_peers)
                return false;
        generation = __atomic_load_n(&ch->view.peers[slot].generation, __ATOMIC_ACQUIRE);
        return membership_id(slot, generation) == id && membership_alive(ch, slot, generation);
}

void membership_changed(struct psyne_channel *ch) {
        __atomic_fetch_add(&ch->view.header->lanes_generation, 1, __ATOMIC_SEQ_CST);
        wake_everyone(ch);
        link_changed(ch);
}

/* The same from a thread of the application's, no lock held: without a service thread, handles of those who sleep may lie
 * where they arrived. */
void membership_changed_by_call(struct psyne_channel *ch) {
        if (ch->flags & PSYNE_NO_THREAD)
                service_take(ch);
        membership_changed(ch);
}

static uint64_t row_word(uint32_t state, uint32_t owner) {
        return state | (uint64_t)owner << 32;
}

/* @row is a lane's, group's or member's first word, {state, owner}, or a participant's, {state, generation}. Changes the state if row still is {from, owner}. */
bool membership_row_change(void *row, uint32_t from, uint32_t owner, uint32_t to, uint32_t new_owner) {
        uint64_t *word = row, old = row_word(from, owner);

        return __atomic_compare_exchange_n(word, &old, row_word(to, new_owner), false, __ATOMIC_ACQ_REL,
                __ATOMIC_ACQUIRE);
}

uint32_t membership_row_state(const void *row, uint32_t *owner) {
        uint64_t word = __atomic_load_n((const uint64_t *)row, __ATOMIC_ACQUIRE);

        *owner = (uint32_t)(word >> 32);
        return (uint32_t)word;
}

void membership_died(struct psyne_channel *ch, uint32_t slot, uint32_t generation) {
        const struct layout_view *v = &ch->view;
        uint32_t owner, state, id = membership_id(slot, generation);

        if (slot >= v->n_peers || __atomic_load_n(&v->peers[slot].generation, __ATOMIC_ACQUIRE) != generation)
                return;
        FAULT_POINT("died.before");
        for (uint32_t i = 0; i < v->n_lanes; i++) {
                struct layout_lane *l = &v->lanes[i];

                state = membership_row_state(l, &owner);
                if (owner != id)
                        continue;
                /* What it had committed stays readable; what it had not, never was. */
                if (state == LAYOUT_JOINING || state == LAYOUT_DAMAGED)
                        (void)membership_row_change(l, state, id, LAYOUT_FREE, id);
                else if (state == LAYOUT_ACTIVE)
                        (void)membership_row_change(l, LAYOUT_ACTIVE, id, LAYOUT_DEAD, id);
        }
        FAULT_POINT("died.between");
        groups_of_the_dead(ch, slot, generation); /* before its members: what nobody reads must not look kept for them */
        for (uint32_t i = 0; i < v->n_members; i++) {
                struct layout_member *m = &v->members[i];

                state = membership_row_state(m, &owner);
                if (owner == id && (state == LAYOUT_JOINING || state == LAYOUT_ACTIVE))
                        (void)membership_row_change(m, state, id, LAYOUT_DEAD, id);
        }
        FAULT_POINT("died.after");
        /* State and generation are one word: a survivor that was stopped in here does not bury a successor. */
        if (membership_row_change(&v->peers[slot], LAYOUT_ACTIVE, generation, LAYOUT_DEAD, generation))
                __atomic_fetch_add(&v->header->deaths, 1, __ATOMIC_RELAXED);
        membership_changed(ch); /* every survivor says so: the first may have died before it could */
}

/* For a sentence. */
static uint32_t row_pid(const struct layout_view *v, uint32_t owner) {
        uint32_t slot = layout_owner_slot(owner);

        return slot < v->n_peers ? v->peers[slot].pid : 0;
}

/* ---- producers --------------------------------------------------------------------------------------------------- */

/* Does bit @i of producers_active stand for somebody? Ours, not set yet, and those of the dead do not. */
static bool producer_counts(struct psyne_channel *ch, uint32_t i, uint32_t mine) {
        const struct layout_view *v = &ch->view;
        uint32_t owner, state = membership_row_state(&v->lanes[i], &owner);

        if (i == mine || (state != LAYOUT_ACTIVE && state != LAYOUT_JOINING && state != LAYOUT_DAMAGED))
                return false;
        return membership_owner_alive(ch, owner);
}

/* Modes with one producer claim the word as a whole. */
static int claim_producer_bit(struct psyne_channel *ch, uint32_t lane) {
        const struct layout_view *v = &ch->view;
        uint64_t *word = &v->header->producers_active, old = __atomic_load_n(word, __ATOMIC_ACQUIRE);

        if (v->config.mode != PSYNE_SPSC && v->config.mode != PSYNE_SPMC) {
                uint32_t others = 0;

                /* Ours first: of two that take the last place at once, at least one sees the other's. */
                __atomic_fetch_or(word, 1ull << lane, __ATOMIC_SEQ_CST);
                for (uint32_t i = 0; i < v->n_lanes; i++)
                        others += producer_counts(ch, i, lane);
                if (others < v->config.max_producers)
                        return 0;
                __atomic_fetch_and(word, ~(1ull << lane), __ATOMIC_SEQ_CST);
                return error_set(-EUSERS, "all %u producers of %s are taken", v->config.max_producers, ch->uri);
        }
        do {
                for (uint32_t i = 0; i < v->n_lanes; i++)
                        if (old & (1ull << i) && producer_counts(ch, i, lane))
                                return error_set(-EBUSY, "%s has a producer already (pid %u), and this mode takes one",
                                        ch->uri, row_pid(v, __atomic_load_n(&v->lanes[i].owner, __ATOMIC_RELAXED)));
                for (uint32_t i = 0; i < v->n_lanes; i++) {
                        struct layout_lane *l = &v->lanes[i];

                        if (old & (1ull << i) && i != lane &&
                                __atomic_load_n(&l->state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE)
                                membership_died(ch, layout_owner_slot(__atomic_load_n(&l->owner, __ATOMIC_RELAXED)),
                                        l->owner_generation);
                }
        } while (!__atomic_compare_exchange_n(word, &old, 1ull << lane, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE));
        return 0;
}

/*
 * Lanes that ended and hold nothing, but whose reader has not come by to give the index back. The next lane starts at
 * the very position where the reader stands, so whatever it still stores there is what stands there.
 */
static bool retire_drained(struct psyne_channel *ch, enum retire how) {
        const struct layout_view *v = &ch->view;
        bool any = false;

        for (uint32_t i = 0; i < v->n_lanes; i++) {
                struct layout_lane *l = &v->lanes[i];
                uint32_t generation = __atomic_load_n(&l->generation, __ATOMIC_ACQUIRE);

                if (l->state != LAYOUT_CLOSED) /* a dead one may have shown more than its tail says */
                        continue;
                membership_retire_lane(ch, i, generation, how);
                any |= __atomic_load_n(&l->state, __ATOMIC_ACQUIRE) == LAYOUT_FREE;
        }
        return any;
}

int membership_take_lane(struct psyne_channel *ch, uint32_t *ret) {
        const struct layout_view *v = &ch->view;
        uint32_t owner, state, me = membership_me(ch);
        bool retired = false;
        int r;

again:
        for (uint32_t i = 0; i < v->n_lanes; i++) {
                struct layout_lane *l = &v->lanes[i];

                state = membership_row_state(l, &owner);
                if ((state != LAYOUT_FREE && (state != LAYOUT_JOINING || membership_owner_alive(ch, owner))) ||
                        !membership_row_change(l, state, owner, LAYOUT_JOINING, me))
                        continue;
                FAULT_POINT("lane.taken");
                l->owner_generation = v->peers[ch->slot].generation;
                __atomic_add_fetch(&l->generation, 1, __ATOMIC_RELEASE);
                __atomic_fetch_and(&v->header->waiters, ~(1ull << i), __ATOMIC_SEQ_CST); /* of a dead predecessor */
                r = claim_producer_bit(ch, i);
                if (r < 0) {
                        (void)membership_row_change(l, LAYOUT_JOINING, me, LAYOUT_FREE, me);
                        return r;
                }
                FAULT_POINT("lane.claimed");
                *ret = i;
                return 0;
        }
        if (!retired && (retired = retire_drained(ch, RETIRE_DRAINED) || retire_drained(ch, RETIRE_SKIPPED)))
                goto again;
        return error_set(-EUSERS, "all %u lanes of %s are taken, or not drained yet", v->n_lanes, ch->uri);
}

void membership_retire_lane(struct psyne_channel *ch, uint32_t lane, uint32_t generation, enum retire how) {
        const struct layout_view *v = &ch->view;
        struct layout_lane *l = &v->lanes[lane];
        uint64_t tail = layout_lane_tail(l);
        uint32_t owner, state = membership_row_state(l, &owner);

        if (__atomic_load_n(&l->generation, __ATOMIC_ACQUIRE) != generation ||
                (state != LAYOUT_CLOSED && state != LAYOUT_DEAD))
                return;
        if (how != RETIRE_UNREAD &&
                !group_all_drained(v, lane, generation, state == LAYOUT_DEAD, how == RETIRE_DRAINED))
                return;
        for (uint32_t g = 0; state == LAYOUT_DEAD && g < v->n_groups; g++) {
                /* It may have died between showing a record and counting it: the readers know better. */
                const struct layout_cursor *c = layout_cursor(v, g, lane);
                uint64_t received = c->before + c->exact.messages_received + c->lost;

                if (!(__atomic_load_n(&v->header->groups_active, __ATOMIC_ACQUIRE) & (1ull << g)) || c->late)
                        continue;
                if ((int64_t)(group_position(v, g, lane, true) - tail) > 0)
                        tail = group_position(v, g, lane, true);
                if (received > l->tx.messages_sent)
                        __atomic_store_n(&l->tx.messages_sent, received, __ATOMIC_RELAXED);
                if (c->exact.bytes_received > l->tx.bytes_sent)
                        __atomic_store_n(&l->tx.bytes_sent, c->exact.bytes_received, __ATOMIC_RELAXED);
        }
        if (state == LAYOUT_DEAD)
                __atomic_store_n(&l->tx.tail, tail | (l->tx.messages_sent & 15), __ATOMIC_RELAXED);
        if ((int64_t)(tail - l->highest) > 0)
                __atomic_store_n(&l->highest, tail, __ATOMIC_RELAXED);
        FAULT_POINT("lane.retire");
        layout_fact_clear(v, LAYOUT_SCOPE_LANE, lane);
        __atomic_fetch_and(&v->header->waiters, ~(1ull << lane), __ATOMIC_SEQ_CST); /* it died while it slept */
        if (membership_row_change(l, state, owner, LAYOUT_FREE, owner))
                membership_changed(ch);
}

/* ---- consumers --------------------------------------------------------------------------------------------------- */

static bool member_counts(struct psyne_channel *ch, uint32_t i, uint32_t mine) {
        const struct layout_view *v = &ch->view;
        uint32_t owner, state = membership_row_state(&v->members[i], &owner);

        if (i == mine || (state != LAYOUT_ACTIVE && state != LAYOUT_JOINING))
                return false;
        return membership_owner_alive(ch, owner);
}

bool membership_has_consumers(const struct psyne_channel *ch) {
        const struct layout_view *v = &ch->view;

        for (uint32_t i = 0, owner; i < v->n_members; i++) {
                uint32_t state = membership_row_state(&v->members[i], &owner);
                uint32_t g = __atomic_load_n(&v->members[i].group, __ATOMIC_RELAXED);

                if (g < v->n_groups && __atomic_load_n(&v->groups[g].members, __ATOMIC_ACQUIRE) & (1ull << i) &&
                        (state == LAYOUT_ACTIVE || state == LAYOUT_JOINING))
                        return true;
        }
        return false;
}

/* An exclusive group's member word is claimed as a whole. */
static int claim_member_bit(struct psyne_channel *ch, uint32_t group, uint32_t member) {
        const struct layout_view *v = &ch->view;
        struct layout_group *g = &v->groups[group];
        uint64_t old = __atomic_load_n(&g->members, __ATOMIC_ACQUIRE);

        if (g->kind == LAYOUT_GROUP_SHARED) {
                __atomic_fetch_or(&g->members, 1ull << member, __ATOMIC_SEQ_CST);
                return 0;
        }
        do {
                for (uint32_t i = 0; i < v->n_members; i++) {
                        struct layout_member *m = &v->members[i];

                        /* A dead member's row may be somebody's in another group by now. */
                        if (!(old & (1ull << i)) || __atomic_load_n(&m->group, __ATOMIC_ACQUIRE) != group)
                                continue;
                        if (member_counts(ch, i, member))
                                return error_set(-EBUSY, "group \"%.64s\" of %s has a consumer already (pid %u), and takes one",
                                        g->name, ch->uri, row_pid(v, __atomic_load_n(&m->owner, __ATOMIC_RELAXED)));
                        if (i != member && __atomic_load_n(&m->state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE)
                                membership_died(ch, layout_owner_slot(__atomic_load_n(&m->owner, __ATOMIC_RELAXED)),
                                        m->owner_generation);
                }
        } while (!__atomic_compare_exchange_n(&g->members, &old, 1ull << member, false, __ATOMIC_SEQ_CST,
                __ATOMIC_ACQUIRE));
        return 0;
}

int membership_take_member(struct psyne_channel *ch, uint32_t group, uint32_t *ret) {
        const struct layout_view *v = &ch->view;
        uint32_t owner, state, me = membership_me(ch);
        int r;

        /* Rows of the dead first: what they left in the bitmap of sleepers costs every commit a look until cleared. */
        for (unsigned pass = 0; pass < 2; pass++)
                for (uint32_t i = 0; i < v->n_members; i++) {
                        struct layout_member *m = &v->members[i];

                        state = membership_row_state(m, &owner);
                        if (pass ? state != LAYOUT_FREE
                                 : state != LAYOUT_DEAD && (state != LAYOUT_JOINING || membership_owner_alive(ch, owner)))
                                continue;
                        /* What a dead member of a shared group held is its group's. */
                        if ((!pass && m->group != group && !shared_row_is_clean(v, i)) ||
                                !membership_row_change(m, state, owner, LAYOUT_JOINING, me))
                                continue;
                        FAULT_POINT("member.taken");
                        m->owner_generation = v->peers[ch->slot].generation;
                        __atomic_store_n(&m->group, group, __ATOMIC_RELEASE);
                        __atomic_add_fetch(&m->generation, 1, __ATOMIC_RELEASE);
                        __atomic_fetch_and(&v->header->sleepers, ~(1ull << i), __ATOMIC_SEQ_CST);
                        r = claim_member_bit(ch, group, i);
                        if (r < 0) {
                                (void)membership_row_change(m, LAYOUT_JOINING, me, LAYOUT_FREE, me);
                                return r;
                        }
                        FAULT_POINT("member.claimed");
                        __atomic_fetch_or(&v->groups[group].ever, 1ull << i, __ATOMIC_RELAXED);
                        *ret = i;
                        return 0;
                }
        return error_set(-EUSERS, "all %u consumers of %s are taken", v->n_members, ch->uri);
}

void membership_leave_member(struct psyne_channel *ch, uint32_t i, uint32_t group) {
        const struct layout_view *v = &ch->view;
        struct layout_member *m = &v->members[i];
        uint32_t me = membership_me(ch);

        __atomic_fetch_and(&v->header->sleepers, ~(1ull << i), __ATOMIC_SEQ_CST);
        group_leave(ch, group, true); /* first: a producer that sees no reader must not see it still holding back */
        __atomic_fetch_and(&v->groups[group].members, ~(1ull << i), __ATOMIC_ACQ_REL);
        layout_fact_clear(v, LAYOUT_SCOPE_MEMBER, i);
        FAULT_POINT("member.leaving");
        /* What it holds in a shared group is for the others to take, or for the next in this row. */
        (void)membership_row_change(m, LAYOUT_ACTIVE, me, shared_row_is_clean(v, i) ? LAYOUT_FREE : LAYOUT_DEAD, me);
}

/* ---- rings mapped here ------------------------------------------------------------------------------------------- */

void membership_prune_lanes(struct psyne_channel *ch) {
        for (uint32_t i = 0; i < ch->view.n_lanes; i++) {
                struct channel_lane *cl = &ch->lanes[i];
                struct layout_lane *l = &ch->view.lanes[i];

                if (cl->segment.base && !cl->owned && !cl->readers &&
                        (__atomic_load_n(&l->generation, __ATOMIC_ACQUIRE) != cl->generation ||
                                __atomic_load_n(&l->state, __ATOMIC_ACQUIRE) == LAYOUT_FREE))
                        segment_deinit(&cl->segment);
        }
}

int membership_map_lane(struct psyne_channel *ch, uint32_t lane, const struct segment *s, uint32_t generation,
        bool owned) {
        struct channel_lane *cl = &ch->lanes[lane];
        unsigned users = cl->readers + cl->owned;

        if (users) { /* an owner among them only if somebody wrote over the lane's row */
                struct lane_past *past = malloc(sizeof(*past));

                if (!past)
                        return error_set(-ENOMEM, "no memory to map a lane");
                *past = (struct lane_past){cl->past, cl->segment, users};
                cl->past = past;
                cl->readers = 0;
        } else
                segment_deinit(&cl->segment);
        cl->segment = *s;
        cl->generation = generation;
        cl->owned = owned;
        return 0;
}

void membership_drop_lane(struct psyne_channel *ch, uint32_t lane, const void *base, bool owner) {
        struct channel_lane *cl = &ch->lanes[lane];

        if (cl->segment.base == base) {
                if (owner)
                        cl->owned = false;
                else
                        cl->readers--;
                return;
        }
        for (struct lane_past **at = &cl->past; *at; at = &(*at)->next) {
                struct lane_past *past = *at;

                if (past->segment.base != base)
                        continue;
                if (--past->users == 0) {
                        *at = past->next;
                        segment_deinit(&past->segment);
                        free(past);
                }
                return;
        }
}

void membership_forget_lanes(struct psyne_channel *ch, void (*forget)(struct segment *)) {
        for (uint32_t i = 0; i < LAYOUT_PRODUCERS_MAX; i++) {
                struct lane_past *past = ch->lanes[i].past;

                forget(&ch->lanes[i].segment);
                for (ch->lanes[i].past = NULL; past;) {
                        struct lane_past *next = past->next;

                        forget(&past->segment);
                        free(past);
                        past = next;
                }
        }
}
