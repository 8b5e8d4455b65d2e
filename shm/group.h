/*
 * Where a group stands in a lane. An exclusive group has one reader, which stores its exact positions and now and then
 * a lazy copy; a shared group has one claim word and a hold word of each member.
 */
#ifndef PSYNE_SHM_GROUP_H
#define PSYNE_SHM_GROUP_H
#include <stdbool.h>
#include <stdint.h>

#include "shm/layout.h"

/* Everything before it is released by the group: @exact, or as its reader last published it. Never a promise that it is
 * a position of that lane: the words are a peer's. */
uint64_t group_position(const struct layout_view *v, uint32_t group, uint32_t lane, bool exact);

/* Puts a group that nobody reads yet at @position, before which there are @messages; @late: only about. */
void group_place(const struct layout_view *v, uint32_t group, uint32_t lane, uint64_t position, uint64_t messages,
        bool late);

/* Puts every group at the beginning of a lane that has not begun. What a group that may be overrun missed of the index's
 * last lane is for its reader to count. */
void group_place_all(const struct layout_view *v, uint32_t lane, uint64_t position);

/* Does the group's reader copy, because its producers need not wait for it, or not for ever? */
static inline bool group_copies(const struct layout_view *v, uint32_t group) {
        return __atomic_load_n(&v->groups[group].policy, __ATOMIC_RELAXED) > PSYNE_BEHIND_BLOCKS;
}

/* The group in front of @group, -1 = none, or a word that cannot be. Read once: it may change under the reader's hands. */
static inline int32_t group_front(const struct layout_view *v, uint32_t group) {
        int32_t front = __atomic_load_n(&v->groups[group].follows, __ATOMIC_ACQUIRE); /* pairs with the release of who makes it */

        return front < 0 || (uint32_t)front >= v->n_groups ? -1 : front;
}

/* A group that hears has come, or one has gone: what is sent while there is none is counted as unheard. */
void group_heard(const struct layout_view *v);
void group_unheard(const struct layout_view *v);

/* Is somebody there to read for the group? One that died is there until its death was noticed. */
bool group_has_reader(const struct layout_view *v, uint32_t group);

/* May what lies before @to be taken by who follows @front (-1 = nobody: all may)? *@gate is how far that one was seen, and
 * only rises: the position of a shared group may fall back for a moment. */
bool group_passes(const struct layout_view *v, int32_t front, uint32_t lane, uint64_t *gate, uint64_t to);

/* How far a group has handed records out. */
uint64_t group_handed_out(const struct layout_view *v, uint32_t group, uint32_t lane);

/* A reader of the group looked after the lane's producer had gone, and found nothing more. */
void group_finish(const struct layout_view *v, uint32_t group, uint32_t lane, uint32_t generation);

/*
 * Has every group that counts released all of a lane that ended? A producer that died may have shown a record without
 * counting it: then only a group that has seen the end has.
 */
bool group_drained(const struct layout_view *v, uint32_t group, uint32_t lane, uint32_t generation, bool died); /* one */
/* @skipping: those that are overrun too, as long as they have a reader. */
bool group_all_drained(const struct layout_view *v, uint32_t lane, uint32_t generation, bool died, bool skipping);
#endif
