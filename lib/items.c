/* Taking a coalesced message apart (psyne/batch.h). Its bytes are somebody else's. */
#include "lib/items.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "psyne/batch.h"

struct psyne_coalesced psyne_decoalesce(const void *data, size_t bytes) {
        return (struct psyne_coalesced){.at = data, .left = data ? bytes : 0};
}

/* The length at @it; what it says is read once, for its writer may still be there. */
static int length_at(const struct psyne_coalesced *it, uint32_t *ret) {
        if (it->left < ITEMS_LENGTH_BYTES)
                return error_set(-EBADMSG, "%zu bytes behind the last item", it->left);
        memcpy(ret, it->at, ITEMS_LENGTH_BYTES);
        *ret = le32toh(*ret);
        return 0;
}

static void skip(struct psyne_coalesced *it, size_t n) {
        it->at += n;
        it->left -= n;
}

int psyne_coalesced_next(struct psyne_coalesced *it, const void **data, size_t *bytes) {
        struct psyne_coalesced next;
        uint32_t length = 0;
        int r;

        if (!it || !data || !bytes)
                return error_set(-EINVAL, "psyne_coalesced_next: nothing to go on with, or no result");
        next = *it;
        if (!next.left)
                return 0;
        r = length_at(&next, &length);
        if (r == 0 && !next.begun && length == ITEMS_IN_EIGHTS) {
                next.padded = 1;
                skip(&next, ITEMS_LENGTH_BYTES);
                r = length_at(&next, &length);
        }
        if (r < 0)
                return r;
        skip(&next, ITEMS_LENGTH_BYTES);
        if (length > next.left)
                return error_set(-EBADMSG, "an item of %u bytes, and %zu are left", length, next.left);
        *data = next.at;
        *bytes = length;
        skip(&next, length);
        if (next.padded && next.left) { /* the last one is not */
                const size_t pad = items_padding(length);

                if (pad >= next.left)
                        return error_set(-EBADMSG, "%zu bytes behind the last item", next.left);
                skip(&next, pad);
        }
        next.begun = 1;
        *it = next;
        return 1;
}
