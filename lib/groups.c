/*
 * Making, finding and giving up groups.
 *
 * A group that joins a running channel is put at a position of every lane, is made to count, and then, behind a barrier
 * that every producer passes, is put at that position's present value. A producer that had computed its limit without
 * it meanwhile had done so before that barrier: what it may overwrite lies before the tail and the floor that are read
 * after it. From "now" is the tail; from "the oldest" is the floor, the position up to which the producer last knew all
 * to be released: nothing behind it has been overwritten, and the first record that is sure to be there starts at it.
 *
 * A row's state and its maker's slot change as one word, like those of lanes and members: one whose maker died is found
 * and made free again. A group without a name ends with its member; whoever takes its row out of ACTIVE clears its bit,
 * and only then is the row free, so the bit is never a successor's.
 */
#include "lib/internal.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "shm/group.h"
#include "shm/overrun.h"

#define NAME_DEADLINE_NS 10000000000ll /* another opener of the same name is at it, stopped perhaps */


/* Takes a row down that is {@state, @owner}. False: somebody else did. */
static bool row_take_down(struct psyne_channel *ch, uint32_t g, uint32_t state, uint32_t owner) {
        struct layout_group *row = &ch->view.groups[g];
        uint32_t me = membership_me(ch);

        if (!membership_row_change(row, state, owner, LAYOUT_CLOSED, me))
                return false;
        FAULT_POINT("group.vanishing");
        __atomic_fetch_and(&ch->view.header->groups_active, ~(1ull << g), __ATOMIC_SEQ_CST);
        __atomic_fetch_and(&ch->view.header->groups_skipping, ~(1ull << g), __ATOMIC_SEQ_CST);
        group_unheard(&ch->view);
        __atomic_fetch_add(&ch->view.header->members_generation, 1, __ATOMIC_SEQ_CST);
        return membership_row_change(row, LAYOUT_CLOSED, me, LAYOUT_FREE, me);
}

/* Makes a FREE row out of one whose owner died while it had it between two states. */
static void row_recover(struct psyne_channel *ch, uint32_t g) {
        uint32_t owner, state = membership_row_state(&ch->view.groups[g], &owner);

        if ((state == LAYOUT_JOINING || state == LAYOUT_CLOSED) && !membership_owner_alive(ch, owner))
                (void)row_take_down(ch, g, state, owner);
}

static void place_all(struct psyne_channel *ch, uint32_t g, bool from_oldest) {
        const struct layout_view *v = &ch->view;
        const int32_t front = group_front(v, g);

        for (uint32_t i = 0; i < v->n_lanes; i++) {
                struct layout_lane *l = &v->lanes[i];
                uint64_t position, messages;

                if (__atomic_load_n(&l->state, __ATOMIC_ACQUIRE) == LAYOUT_FREE)
                        continue;
                position = layout_lane_end(l, &messages);
                if (front >= 0) /* where the one in front is: what that has passed is on nobody's way */
                        position = group_position(v, (uint32_t)front, i, true);
                else if (from_oldest && group_copies(v, g))
                        (void)overrun_boundary(l, v->config.record_align,
                                __atomic_load_n(&l->announced, __ATOMIC_ACQUIRE) - v->config.ring_bytes * 7 / 8, &position,
                                &messages);
                else if (from_oldest)
                        position = __atomic_load_n(&l->floor, __ATOMIC_ACQUIRE);
                group_place(v, g, i, position, messages, front >= 0 || (from_oldest && !group_copies(v, g)));
        }
}

/*
 * Two that make the same name at once: both have taken a row, then look for each other here. The one with the higher
 * row gives way; the other one waits until it has, or is done: it may have looked before we took ours.
 */
static bool may_make(struct psyne_channel *ch, uint32_t mine, const char *name, int64_t deadline) {
        for (uint32_t g = 0; g < ch->view.n_groups; g++) {
                struct layout_group *row = &ch->view.groups[g];
                uint32_t owner, state;

                if (g == mine)
                        continue;
                while ((state = membership_row_state(row, &owner)) == LAYOUT_JOINING) {
                        if (g < mine || clock_ns() > deadline)
                                return false;
                        row_recover(ch, g);
                        sched_yield();
                }
                if (state == LAYOUT_ACTIVE && !(row->flags & LAYOUT_GROUP_ANONYMOUS) &&
                        strncmp(row->name, name, sizeof(row->name)) == 0)
                        return false;
        }
        return true;
}

static int group_matches(struct psyne_channel *ch, const struct layout_group *row, const struct group_wish *wish, int front) {
        static const char *const policies[] = {"blocks", "blocks", "skips", "is ejected"};
        uint32_t is = __atomic_load_n(&row->policy, __ATOMIC_RELAXED), wanted = (uint32_t)wish->behind;

        is = is <= PSYNE_BEHIND_EJECTED ? is : 0;
        if (wish->follows && row->follows != front)
                return error_set(-EMEDIUMTYPE, "group \"%.64s\" of %s does not follow \"%.64s\"", row->name, ch->uri,
                        wish->follows);
        if (wish->shared && row->kind != LAYOUT_GROUP_SHARED)
                return error_set(-EMEDIUMTYPE, "group \"%.64s\" of %s takes one consumer", row->name, ch->uri);
        if (wanted == PSYNE_BEHIND_DEFAULT || wanted == is || wanted + is == PSYNE_BEHIND_BLOCKS)
                return 0;
        return error_set(-EMEDIUMTYPE, "group \"%.64s\" of %s %s when it falls behind, not %s", row->name, ch->uri,
                policies[is], policies[wanted]);
}

static bool is_of_one(const struct layout_group *row) {
        return __atomic_load_n(&row->flags, __ATOMIC_RELAXED) & LAYOUT_GROUP_ANONYMOUS;
}

/* The row of an existing group; -ENOENT. */
static int find_named(struct psyne_channel *ch, const char *name) {
        for (uint32_t g = 0, owner; g < ch->view.n_groups; g++) {
                struct layout_group *row = &ch->view.groups[g];

                if (membership_row_state(row, &owner) == LAYOUT_ACTIVE && !is_of_one(row) &&
                        strncmp(row->name, name, sizeof(row->name)) == 0)
                        return (int)g;
        }
        return error_set(-ENOENT, "%s has no group \"%.64s\" to follow, yet", ch->uri, name);
}

bool group_is_taken(struct psyne_channel *ch, const char *name) {
        int g = find_named(ch, name);

        return g >= 0 && group_has_reader(&ch->view, (uint32_t)g);
}

/* Is @g behind @front, however far? */
static bool is_behind(const struct layout_view *v, int32_t g, uint32_t front) {
        for (unsigned n = 0; n < v->n_groups && g >= 0 && g < (int32_t)v->n_groups; n++) {
                g = group_front(v, (uint32_t)g);
                if (g == (int32_t)front)
                        return true;
        }
        return false;
}

/* While one group writes, no other may read: all are in one line with every group that works in place. */
static int check_beside(struct psyne_channel *ch, int32_t self, int32_t front, bool in_place) {
        const struct layout_view *v = &ch->view;

        for (uint32_t g = 0, owner; g < v->n_groups; g++) {
                struct layout_group *row = &v->groups[g];

                if (membership_row_state(row, &owner) != LAYOUT_ACTIVE || (int32_t)g == self ||
                        (!in_place && !(row->flags & LAYOUT_GROUP_IN_PLACE)) || (int32_t)g == front ||
                        is_behind(v, front, g) || (self >= 0 && is_behind(v, (int32_t)g, (uint32_t)self)))
                        continue;
                return error_set(-EINVAL, "group \"%.64s\" of %s would read beside one that works in place: let one follow the other",
                        row->name, ch->uri);
        }
        return 0;
}

/* 0 = found or made; -EAGAIN = somebody else is making one of that name; -EUSERS. */
static int find_or_make(struct psyne_channel *ch, const struct group_wish *wish, int64_t deadline, uint32_t *ret) {
        const struct layout_view *v = &ch->view;
        const char *name = wish->name;
        uint32_t owner, free_row = UINT32_MAX, me = membership_me(ch);
        struct layout_group *row;
        bool others = false;
        int front = -1, r;

        if (wish->follows) {
                front = find_named(ch, wish->follows);
                if (front < 0)
                        return front;
                if (group_copies(v, (uint32_t)front))
                        return error_set(-EINVAL, "group \"%.64s\" of %s gets copies: nothing can follow it", wish->follows, ch->uri);
        }

        for (uint32_t g = 0; g < v->n_groups; g++) {
                uint32_t state;

                row_recover(ch, g);
                row = &v->groups[g];
                state = membership_row_state(row, &owner);
                if (state == LAYOUT_FREE && free_row == UINT32_MAX)
                        free_row = g;
                if (state == LAYOUT_ACTIVE && name && !(row->flags & LAYOUT_GROUP_ANONYMOUS) &&
                        strncmp(row->name, name, sizeof(row->name)) == 0) {
                        if (__atomic_load_n(&row->flags, __ATOMIC_ACQUIRE) & LAYOUT_GROUP_OUT) {
                                if (group_has_reader(v, g))
                                        return error_set(-ECONNABORTED,
                                                "group \"%s\" of %s fell behind and was ejected, and its consumer has not closed yet",
                                                name, ch->uri);
                                (void)row_take_down(ch, g, LAYOUT_ACTIVE, owner);
                                return -EAGAIN;
                        }
                        *ret = g;
                        r = group_matches(ch, row, wish, front);
                        if (r == 0)
                                r = check_beside(ch, (int32_t)g, group_front(v, g),
                                        wish->in_place || row->flags & LAYOUT_GROUP_IN_PLACE);
                        if (r == 0 && wish->in_place)
                                __atomic_fetch_or(&row->flags, LAYOUT_GROUP_IN_PLACE, __ATOMIC_ACQ_REL);
                        return r;
                }
                others |= state == LAYOUT_JOINING;
        }
        if (name && others)
                return -EAGAIN; /* perhaps of the same name */
        if (free_row == UINT32_MAX)
                return error_set(-EUSERS, "all %u groups of %s are taken", v->n_groups, ch->uri);
        r = check_beside(ch, -1, front, wish->in_place);
        if (r < 0)
                return r;
        row = &v->groups[free_row];
        (void)membership_row_state(row, &owner);
        if (!membership_row_change(row, LAYOUT_FREE, owner, LAYOUT_JOINING, me))
                return -EAGAIN;
        FAULT_POINT("group.taken");
        if (name && !may_make(ch, free_row, name, deadline)) {
                (void)membership_row_change(row, LAYOUT_JOINING, me, LAYOUT_FREE, me);
                return -EAGAIN;
        }
        __atomic_add_fetch(&row->generation, 1, __ATOMIC_RELEASE);
        row->kind = wish->shared ? LAYOUT_GROUP_SHARED : LAYOUT_GROUP_EXCLUSIVE;
        row->policy = wish->behind;
        row->eject_ns = (uint64_t)wish->eject_ns;
        row->flags = (name ? 0 : LAYOUT_GROUP_ANONYMOUS) | (wish->in_place ? LAYOUT_GROUP_IN_PLACE : 0u);
        __atomic_store_n(&row->follows, front, __ATOMIC_RELEASE);
        row->members = 0;
        row->ever = 0;
        snprintf(row->name, sizeof(row->name), "%s", name ? name : "");
        for (uint32_t i = 0; i < v->n_lanes; i++) {
                struct layout_cursor *c = layout_cursor(v, free_row, i);

                c->exact.messages_received = c->exact.bytes_received = c->lost = c->told = c->redelivered = 0;
                c->before = __atomic_load_n(&v->lanes[i].tx.messages_sent, __ATOMIC_RELAXED); /* of lanes that are free */
        }
        place_all(ch, free_row, wish->from_oldest);
        FAULT_POINT("group.placed");
        __atomic_fetch_or(wish->behind == PSYNE_BEHIND_SKIPS ? &v->header->groups_skipping : &v->header->groups_active,
                1ull << free_row, __ATOMIC_SEQ_CST);
        group_heard(v);
        __atomic_fetch_add(&v->header->members_generation, 1, __ATOMIC_SEQ_CST);
        wake_barrier_heavy(ch);
        place_all(ch, free_row, wish->from_oldest);
        FAULT_POINT("group.counts");
        (void)membership_row_change(row, LAYOUT_JOINING, me, LAYOUT_ACTIVE, me);
        *ret = free_row;
        return 0;
}

int group_take(struct psyne_channel *ch, const struct group_wish *wish, uint32_t *ret) {
        int64_t deadline = clock_ns() + NAME_DEADLINE_NS;
        int r;

        while ((r = find_or_make(ch, wish, deadline, ret)) == -EAGAIN) {
                if (clock_ns() > deadline)
                        return error_set(-EBUSY, "another process is making a group of %s and does not go on", ch->uri);
                sched_yield();
        }
        return r;
}

/* A lane may have been kept for a group that is gone. */
static void retire_lanes(struct psyne_channel *ch) {
        for (uint32_t i = 0; i < ch->view.n_lanes; i++)
                membership_retire_lane(ch, i, __atomic_load_n(&ch->view.lanes[i].generation, __ATOMIC_ACQUIRE), RETIRE_DRAINED);
}

void group_leave(struct psyne_channel *ch, uint32_t g, bool was_in) {
        struct layout_group *row = &ch->view.groups[g];
        uint32_t owner = membership_me(ch);

        if (was_in && __atomic_load_n(&row->flags, __ATOMIC_ACQUIRE) & LAYOUT_GROUP_OUT)
                (void)membership_row_state(row, &owner); /* whoever made it: this consumer was its last */
        else if (!is_of_one(row))
                return;
        if (row_take_down(ch, g, LAYOUT_ACTIVE, owner))
                retire_lanes(ch);
}

void group_eject(struct psyne_channel *ch, uint32_t g) {
        /* First: its reader must not find itself overtaken before it can find out why. */
        __atomic_fetch_or(&ch->view.groups[g].flags, LAYOUT_GROUP_OUT, __ATOMIC_SEQ_CST);
        FAULT_POINT("group.ejecting");
        __atomic_fetch_and(&ch->view.header->groups_active, ~(1ull << g), __ATOMIC_SEQ_CST);
        group_unheard(&ch->view);
        __atomic_fetch_add(&ch->view.header->members_generation, 1, __ATOMIC_SEQ_CST);
        retire_lanes(ch);
        membership_changed(ch);
}

void groups_of_the_dead(struct psyne_channel *ch, uint32_t slot, uint32_t generation) {
        uint32_t id = membership_id(slot, generation), owner;
        bool any = false;

        for (uint32_t g = 0; g < ch->view.n_groups; g++) {
                struct layout_group *row = &ch->view.groups[g];

                if (membership_row_state(row, &owner) == LAYOUT_ACTIVE && owner == id && is_of_one(row))
                        any |= row_take_down(ch, g, LAYOUT_ACTIVE, id);
                else
                        row_recover(ch, g);
        }
        if (any)
                retire_lanes(ch);
}
