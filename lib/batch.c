/*
 * Elements that come one by one, in vectors (psyne/batch.h).
 *
 * How many make a message is a trade: a record costs its header and perhaps a wake, and an element in a batch waits for those
 * behind it. The adaptive batcher does not guess: while readers have something to do, nobody waits for what is kept here, and it
 * grows; once they have released everything, it is sent, however small. Their positions are lines that they write, so a look
 * is dear: it is done at 1, 2, 4, 8, ... elements, and whenever somebody asks (psyne_batcher_poll()).
 */
#include "psyne/batch.h"

#include <errno.h>
#include <string.h>

#include "lib/internal.h"

#define MAX_ITEMS_DEFAULT 1000u

/* How many elements of a message the channel takes, @most at most. */
static int64_t find_max(struct psyne_producer *p, enum psyne_dtype dtype, size_t most) {
        struct psyne_vec v;
        int r;

        while ((r = psyne_vec_claim(p, dtype, most, PSYNE_NOWAIT, &v)) == -EMSGSIZE && most > 1)
                most /= 2;
        if (r == 0)
                r = psyne_vec_abort(p, &v);
        return r == 0 || r == -EAGAIN || r == -EPIPE ? (int64_t)most : r; /* there is no room, or nobody, now */
}

int psyne_batcher_init(struct psyne_batcher *b, struct psyne_producer *p, enum psyne_dtype dtype, const struct psyne_batcher_opts *opts) {
        int64_t most;

        if (!b || !p || (opts && opts->struct_size != sizeof(*opts)))
                return error_set(-EINVAL, "psyne_batcher_init: no batcher, no producer or struct_size is missing");
        if (opts && (opts->max_delay_ns < 0 || opts->adaptive > 1 || opts->max_items > INT64_MAX))
                return error_set(-EINVAL, "psyne_batcher_init: a delay of 0 or more, adaptive of 0 or 1, and fewer items");
        most = find_max(p, dtype, opts && opts->max_items ? opts->max_items : MAX_ITEMS_DEFAULT);
        if (most < 0)
                return (int)most;
        *b = (struct psyne_batcher){
                .p = p,
                .max_items = (size_t)most,
                .max_delay_ns = opts ? opts->max_delay_ns : 0,
                .type = opts ? opts->type : 0,
                .adaptive = opts ? opts->adaptive : 0,
                .dtype = (uint32_t)dtype,
                .elem_bytes = (uint32_t)psyne_dtype_bytes(dtype),
        };
        return 0;
}

int psyne_batcher_flush(struct psyne_batcher *b) {
        size_t items;
        int r;

        if (!b || !b->p)
                return error_set(-EINVAL, "psyne_batcher_flush: no batcher");
        items = b->items;
        if (!items)
                return 0;
        b->vec.len = items;
        b->vec.msg.type = b->type;
        r = psyne_vec_commit(b->p, &b->vec);
        if (r < 0)
                return r;
        b->items = 0;
        b->messages++;
        b->total_items += items;
        return items < INT32_MAX ? (int)items : INT32_MAX;
}

/* All that was sent before has been released: who reads here waits. */
static bool readers_wait(const struct psyne_batcher *b) {
        return lane_tx_free_position(&b->p->tx, true) == b->p->tx.hot.tail;
}

static bool is_late(const struct psyne_batcher *b) {
        return b->max_delay_ns && clock_ns() - b->oldest_ns >= b->max_delay_ns;
}

int64_t psyne_batcher_deadline(const struct psyne_batcher *b) {
        return !b || !b->items || !b->max_delay_ns || b->max_delay_ns > INT64_MAX - b->oldest_ns ? INT64_MAX : b->oldest_ns + b->max_delay_ns;
}

int psyne_batcher_poll(struct psyne_batcher *b) {
        return b && b->p && !(b->items && (is_late(b) || (b->adaptive && readers_wait(b)))) ? 0 : psyne_batcher_flush(b);
}

int psyne_batcher_deinit(struct psyne_batcher *b) {
        int r = psyne_batcher_flush(b);

        if (r >= 0)
                b->p = NULL;
        return r;
}

/* A message for one, which is what is waited for, or counted as dropped; and if there is room, for all that may come. */
static int begin(struct psyne_batcher *b, int64_t timeout_ns) {
        int r = psyne_vec_claim(b->p, (enum psyne_dtype)b->dtype, 1, timeout_ns, &b->vec);

        if (r < 0)
                return r;
        if (b->max_items > b->vec.cap)
                (void)psyne_vec_resize(b->p, &b->vec, b->max_items); /* else it grows with what comes */
        b->look_at = 1;
        b->oldest_ns = b->max_delay_ns ? clock_ns() : 0;
        return 0;
}

int psyne_batcher_add(struct psyne_batcher *b, const void *element, int64_t timeout_ns) {
        bool go;
        int r;

        if (!b || !b->p || !element)
                return error_set(-EINVAL, "psyne_batcher_add: no batcher, or no element");
        if (b->items && b->items >= b->vec.cap && psyne_vec_resize(b->p, &b->vec, b->items + 1) < 0) {
                r = psyne_batcher_flush(b);
                if (r < 0)
                        return r;
        }
        if (!b->items) {
                r = begin(b, timeout_ns);
                if (r < 0)
                        return r;
        }
        memcpy((char *)b->vec.data + b->items * b->elem_bytes, element, b->elem_bytes);
        b->items++;
        go = b->items >= b->max_items || is_late(b);
        if (!go && b->adaptive && b->items >= b->look_at) {
                b->look_at *= 2;
                go = readers_wait(b);
        }
        r = go ? psyne_batcher_flush(b) : 0;
        return r < 0 ? r : 0;
}

int64_t psyne_send_batched(struct psyne_producer *p, enum psyne_dtype dtype, const void *from, size_t n, size_t batch, int64_t timeout_ns) {
        const int64_t deadline_ns = clock_deadline_ns(timeout_ns);
        size_t sent = 0;
        int64_t most;

        if (!p || !batch || (n && !from) || n > INT64_MAX)
                return error_set(-EINVAL, "psyne_send_batched: no producer, batches of 0, or elements and no memory");
        most = n ? find_max(p, dtype, batch < n ? batch : n) : 0;
        if (most < 0)
                return most;
        while (sent < n) {
                size_t now = n - sent < (size_t)most ? n - sent : (size_t)most;
                int64_t left = timeout_ns <= 0 ? timeout_ns : deadline_ns - clock_ns();
                int r = psyne_vec_send(p, dtype, (const char *)from + sent * psyne_dtype_bytes(dtype), now, timeout_ns > 0 && left < 0 ? 0 : left);

                if (r < 0)
                        return sent ? (int64_t)sent : r;
                sent += now;
        }
        return (int64_t)sent;
}
