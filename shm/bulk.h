/*
 * A lane by the byte: for links, which move runs of whole records and look at their headers only. The taking end stands
 * in for the reader of an exclusive group; the landing end is a producer whose records come ready-made.
 *
 * What lands is written behind the tail by somebody who does not know commit words (a kernel, from a socket). Readers
 * stand at the tail and look at the one word there, so that word alone is held back: everything behind it may say that it is
 * committed. Storing it, once all is checked, publishes the whole run.
 */
#ifndef PSYNE_SHM_BULK_H
#define PSYNE_SHM_BULK_H
#include <stdint.h>

#include "shm/lane.h"

/* ---- taking ---- */

/* How many bytes of whole records follow @position, which is a record's start: @most at most, except for a first record that
 * is longer alone. 0: none is there yet; -EBADMSG: a header that cannot be. */
int64_t bulk_span(const struct lane_rx *x, uint64_t position, uint64_t most);
const void *bulk_at(const struct lane_rx *x, uint64_t position); /* contiguous for a ring's length */
void bulk_take(struct lane_rx *x, uint64_t to);                  /* up to there, of what bulk_span() saw */
void bulk_release(struct lane_rx *x, uint64_t to);               /* of what is taken */

/* ---- landing ---- */

/* How many bytes may be written at the tail. More once lane_tx_refresh() has found room. No claim may be open. */
uint64_t bulk_room(const struct lane_tx *t);
void *bulk_tail(struct lane_tx *t);
/* [tail, tail + @n) is there, but for the first 32 bits, which are @word. The number of messages; -EBADMSG: these are no
 * records, and nothing was published. */
int64_t bulk_land(struct lane_tx *t, uint64_t n, uint32_t word);
#endif
