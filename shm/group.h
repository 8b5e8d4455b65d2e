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

/* Puts a group that nobody reads yet at @position: of a lane that has not begun, or @late. */
void group_place(const struct layout_view *v, uint32_t group, uint32_t lane, uint64_t position, bool late);

/* A reader of the group looked after the lane's producer had gone, and found nothing more. */
void group_finish(const struct layout_view *v, uint32_t group, uint32_t lane, uint32_t generation);

/*
 * Has every group that counts released all of a lane that ended? A producer that died may have shown a record without
 * counting it: then only a group that has seen the end has.
 */
bool group_drained(const struct layout_view *v, uint32_t group, uint32_t lane, uint32_t generation, bool died); /* one */
bool group_all_drained(const struct layout_view *v, uint32_t lane, uint32_t generation, bool died);
#endif
