/*
 * Reading a lane whose producer does not wait for this reader: each record is copied out, and only then is it asked
 * whether it was still there.
 *
 *      producer, when its limit rises                    reader
 *      place to go on at {position, number}, release     the record
 *      announced, release                                copy; acquire fence
 *      release fence                                     announced: is the record's start a ring behind it?
 *      payload, cleared words                            then the place to go on at
 *
 * Who has copied a byte of a later lap sees the announcement that came before it, and nothing it read counts: not the
 * length, and not "nothing there" either, because a zero word may be one that was cleared for the next lap. Then the
 * reader goes on at the place that goes with the announcement, or at one of the last few before it if that is still far
 * enough from being overwritten; the difference of the numbers is exactly what it missed.
 *
 * Both sides touch the payload at the same time, by design; what is torn is thrown away. ThreadSanitizer is not shown
 * the copy.
 */
#ifndef PSYNE_SHM_OVERRUN_H
#define PSYNE_SHM_OVERRUN_H
#include <stdbool.h>
#include <stdint.h>

#include "shm/lane.h"

/* Where a group that copies stands: as lane_rx_init(), but the inlined calls take nothing from it. -EBADMSG. */
int overrun_init(struct lane_rx *x, const struct layout_view *v, uint32_t group, uint32_t index,
        const unsigned char *base, uint64_t ring_bytes);

/* Is there a record, or has it been overtaken? */
bool overrun_ready(const struct lane_rx *x, const struct layout_lane *l);

/* Copies the next record's payload to @to (@cap bytes) and points @ret at it. 1; 0 = nothing there; -EBADMSG;
 * -ECONNABORTED: overtaken and not @may_skip. *lost += what was passed over, also when nothing is returned. */
int overrun_take(struct lane_rx *x, const struct layout_lane *l, void *to, uint64_t cap, bool may_skip,
        struct psyne_msg *ret, uint64_t *lost);

/* The oldest place to go on at that is not before @from. False: its producer goes on too fast to tell, or it is damaged. */
bool overrun_boundary(const struct layout_lane *l, uint64_t align, uint64_t from, uint64_t *position, uint64_t *messages);
#endif
