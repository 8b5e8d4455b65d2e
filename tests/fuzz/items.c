/*
 * A coalesced message whose bytes somebody else chose: taken apart by lib/items.c, and by a second reading of the format that was
 * written apart from it, over positions instead of what is left. They have to agree on every item, on where the message turns out
 * to be damaged, and that nothing outside of it is looked at (the sanitizers see that).
 *
 * The input is the message.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "psyne/batch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PROMISE(cond) \
        do { \
                if (!(cond)) { \
                        fprintf(stderr, "%s:%d: not kept: %s\n", __FILE__, __LINE__, #cond); \
                        abort(); \
                } \
        } while (0)

/* The number that four bytes at @at are; @size: there are no four. */
static uint64_t number(const uint8_t *data, size_t size, size_t at) {
        return size - at < 4 ? UINT64_MAX
                             : (uint64_t)data[at] | (uint64_t)data[at + 1] << 8 | (uint64_t)data[at + 2] << 16 | (uint64_t)data[at + 3] << 24;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct psyne_coalesced it = psyne_decoalesce(data, size);
        const int eights = number(data, size, 0) == UINT32_MAX;
        size_t at = eights ? 4 : 0; /* of the next length */

        for (unsigned items = 0;; items++) {
                const void *item = NULL;
                size_t bytes = 0;
                int r = psyne_coalesced_next(&it, &item, &bytes);
                uint64_t length = at <= size ? number(data, size, at) : UINT64_MAX;

                if (at == size && !(eights && !items)) {
                        PROMISE(r == 0 && psyne_coalesced_next(&it, &item, &bytes) == 0);
                        return 0;
                }
                if (length > size || at + 4 + length > size) {
                        PROMISE(r == -EBADMSG && psyne_coalesced_next(&it, &item, &bytes) == -EBADMSG);
                        return 0;
                }
                at += 4 + (size_t)length;
                if (eights && at < size) {
                        while (at % 8 != 4)
                                at++;
                        if (at >= size) { /* padding, and nothing that it is for */
                                PROMISE(r == -EBADMSG && psyne_coalesced_next(&it, &item, &bytes) == -EBADMSG);
                                return 0;
                        }
                }
                PROMISE(r == 1 && bytes == length && item >= (const void *)data);
                PROMISE((const uint8_t *)item + bytes <= data + size);
                PROMISE(!eights || ((const uint8_t *)item - data) % 8 == 0);
        }
}
