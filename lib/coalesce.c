/*
 * Small messages in one (psyne/batch.h): into an open claim, which ends as a record when it is full, old, or flushed.
 *
 * A claim is for the item at hand, and grows to a whole message at once if there is room for one; else with the items that follow.
 * So a ring that is almost full takes what it can, and what it cannot the caller still has.
 */
#include "psyne/batch.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "lib/items.h"

#define MAX_BYTES_DEFAULT 65536u

/* A record of the channel's may not be that long: then as long as it may. */
static int find_max(struct psyne_coalescer *k) {
        struct psyne_msg m;
        int r;

        while ((r = psyne_claim(k->p, k->max_bytes, PSYNE_NOWAIT, &m)) == -EMSGSIZE && k->max_bytes / 2 > ITEMS_LENGTH_BYTES)
                k->max_bytes /= 2;
        if (r == 0)
                r = psyne_abort(k->p, &m);
        return r == -EAGAIN || r == -EPIPE ? 0 : r; /* there is no room, or nobody, now */
}

int psyne_coalescer_init(struct psyne_coalescer *k, struct psyne_producer *p, const struct psyne_coalescer_opts *opts) {
        if (!k || !p || (opts && opts->struct_size != sizeof(*opts)))
                return error_set(-EINVAL, "psyne_coalescer_init: no coalescer, no producer or struct_size is missing");
        if (opts && (opts->max_delay_ns < 0 || opts->align8 > 1 || (opts->max_bytes && opts->max_bytes < 16) || opts->max_bytes > UINT32_MAX))
                return error_set(-EINVAL, "psyne_coalescer_init: 16 bytes to 4 GiB, a delay of 0 or more, align8 of 0 or 1");
        *k = (struct psyne_coalescer){
                .p = p,
                .max_bytes = opts && opts->max_bytes ? opts->max_bytes : MAX_BYTES_DEFAULT,
                .max_delay_ns = opts ? opts->max_delay_ns : 0,
                .type = opts ? opts->type : 0,
                .align8 = opts ? opts->align8 : 0,
        };
        return find_max(k);
}

int psyne_coalescer_flush(struct psyne_coalescer *k) {
        uint32_t items;
        int r;

        if (!k || !k->p)
                return error_set(-EINVAL, "psyne_coalescer_flush: no coalescer");
        items = k->items;
        if (!items)
                return 0;
        k->msg.len = k->used;
        k->msg.type = k->type;
        r = psyne_commit(k->p, &k->msg);
        if (r < 0)
                return r;
        k->items = 0;
        k->used = 0;
        k->messages++;
        k->total_items += items;
        return items < INT32_MAX ? (int)items : INT32_MAX;
}

static bool is_due(const struct psyne_coalescer *k) {
        return k->items && k->max_delay_ns && clock_ns() - k->oldest_ns >= k->max_delay_ns;
}

int64_t psyne_coalescer_deadline(const struct psyne_coalescer *k) {
        return !k || !k->items || !k->max_delay_ns || k->max_delay_ns > INT64_MAX - k->oldest_ns ? INT64_MAX : k->oldest_ns + k->max_delay_ns;
}

int psyne_coalescer_poll(struct psyne_coalescer *k) {
        return k && k->p && !is_due(k) ? 0 : psyne_coalescer_flush(k);
}

int psyne_coalescer_deinit(struct psyne_coalescer *k) {
        int r = psyne_coalescer_flush(k);

        if (r >= 0)
                k->p = NULL;
        return r;
}

static size_t takes(const struct psyne_coalescer *k, size_t used, size_t bytes) {
        return (k->align8 ? items_padding(used) : 0) + ITEMS_LENGTH_BYTES + bytes;
}

static void put(struct psyne_coalescer *k, uint32_t word) {
        const uint32_t little = htole32(word);

        memcpy((unsigned char *)k->msg.data + k->used, &little, sizeof(little)); /* may lie anywhere */
        k->used += sizeof(little);
}

/* Makes room for @more bytes in the message that is begun. */
static bool grow(struct psyne_coalescer *k, size_t more) {
        return k->used + more <= k->max_bytes &&
                (k->used + more <= k->msg.cap || psyne_resize(k->p, &k->msg, k->used + more) == 0);
}

/* Begins a message with room for @need bytes at least. That is what is waited for, or counted as dropped, and not a whole message. */
static int begin(struct psyne_coalescer *k, size_t need, int64_t timeout_ns) {
        int r = psyne_claim(k->p, need, timeout_ns, &k->msg);

        if (r == 0 && need < k->max_bytes)
                (void)psyne_resize(k->p, &k->msg, k->max_bytes); /* else it grows with what comes */
        return r;
}

int psyne_coalescer_add(struct psyne_coalescer *k, const void *data, size_t bytes, int64_t timeout_ns) {
        size_t need;
        int r;

        if (!k || !k->p || (bytes && !data))
                return error_set(-EINVAL, "psyne_coalescer_add: no coalescer, or bytes and no memory");
        if (bytes >= ITEMS_IN_EIGHTS)
                return error_set(-EMSGSIZE, "psyne_coalescer_add: %zu bytes are more than a length of 32 bits tells", bytes);
        if (k->items && !grow(k, takes(k, k->used, bytes))) {
                r = psyne_coalescer_flush(k);
                if (r < 0)
                        return r;
        }
        if (!k->items) {
                need = takes(k, 0, bytes);
                r = begin(k, need, timeout_ns);
                if (r < 0)
                        return r;
                k->used = 0;
                k->oldest_ns = k->max_delay_ns ? clock_ns() : 0;
        }
        if (k->align8) {
                const size_t pad = items_padding(k->used);

                memset((unsigned char *)k->msg.data + k->used, k->used ? 0 : 0xff, pad);
                k->used += pad;
        }
        put(k, (uint32_t)bytes);
        if (bytes)
                memcpy((unsigned char *)k->msg.data + k->used, data, bytes);
        k->used += bytes;
        k->items++;
        if (k->used + ITEMS_LENGTH_BYTES > k->max_bytes || is_due(k)) {
                r = psyne_coalescer_flush(k);
                if (r < 0)
                        return r;
        }
        return 0;
}
