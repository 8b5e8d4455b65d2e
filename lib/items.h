/* How the items of a coalesced message lie in it: see psyne/batch.h. */
#ifndef PSYNE_ITEMS_H
#define PSYNE_ITEMS_H
#include <stddef.h>
#include <stdint.h>

#define ITEMS_LENGTH_BYTES sizeof(uint32_t)
#define ITEMS_IN_EIGHTS UINT32_MAX /* in place of the first length: items are padded */

/* Bytes in front of a length that comes behind @used others, for what follows it to lie at a multiple of 8. The first four say so. */
static inline size_t items_padding(size_t used) {
        return -(used + ITEMS_LENGTH_BYTES) % 8;
}
#endif
