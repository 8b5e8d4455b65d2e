/*
 * batch.h: many small things in one message. A record costs its header, its alignment and perhaps a wake, however small it is.
 *
 * The coalescer packs messages of any length, each behind its length, and what comes out is taken apart by
 * psyne_coalesced_next():
 *
 *      struct psyne_coalescer k;
 *      r = psyne_coalescer_init(&k, p, PSYNE_COALESCER_OPTS(.max_delay_ns = 100000));
 *      r = psyne_coalescer_add(&k, data, bytes, timeout_ns);          -EAGAIN, -ETIME: not taken, try again; nothing is lost
 *      ...
 *      r = psyne_coalescer_deinit(&k);                                sends the rest
 *
 *      r = psyne_recv(c, &m, timeout_ns);
 *      it = psyne_decoalesce(m.data, m.len);
 *      while ((r = psyne_coalesced_next(&it, &data, &bytes)) > 0)     r < 0: the message is damaged
 *              ...                                                    data lies in the message
 *      psyne_release(c, &m);
 *

 * The batcher makes vectors (vector.h) of elements that come one by one:
 *
 *      struct psyne_batcher b;
 *      r = psyne_batcher_init(&b, p, PSYNE_F32, PSYNE_BATCHER_OPTS(.max_items = 1000, .max_delay_ns = 100000, .adaptive = 1));
 *      r = psyne_batcher_add(&b, &element, timeout_ns);
 *
 * Both write straight into the ring, into a claim that stays open until it is full, max_delay_ns after its oldest
 * item, or flushed; so the producer is theirs alone until _deinit(). Time passes unseen while nothing
 * is added: who waits elsewhere does so until _deadline(), and calls _poll() then.
 *
 * Items in a coalescer's message: any number of a little-endian 32-bit length and so many bytes. Where UINT32_MAX comes first, there are up to
 * 7 bytes more between an item and the next length, so that all items lie at multiples of 8 bytes. Nothing is allocated. One
 * thread at a time.
 */
#ifndef PSYNE_BATCH_H
#define PSYNE_BATCH_H
#include <stddef.h>
#include <stdint.h>

#include "psyne.h"
#include "vector.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct psyne_coalescer_opts {
        size_t struct_size;
        size_t max_bytes;     /* of a message, lengths and all; default 65536, and no more than a record of the channel */
        int64_t max_delay_ns; /* an item waits no longer, if anybody looks; 0: until the message is full */
        uint32_t type;        /* of the messages */
        uint32_t align8;      /* 1: items lie at multiples of 8 bytes */
};
#define PSYNE_COALESCER_OPTS(...)                                                                                      \
        (&(struct psyne_coalescer_opts){.struct_size = sizeof(struct psyne_coalescer_opts), __VA_ARGS__}) /* C only */

/* What has to be remembered; yours to keep, not to write. */
struct psyne_coalescer {
        struct psyne_producer *p;
        size_t max_bytes;
        int64_t max_delay_ns;
        uint32_t type, align8;
        struct psyne_msg msg;  /* the open claim, if there are items */
        size_t used;           /* bytes of it */
        uint32_t items;
        int64_t oldest_ns;     /* CLOCK_MONOTONIC: when the first of them came */
        uint64_t messages, total_items; /* sent so far */
};

/* @opts may be NULL. -EINVAL; and what psyne_claim() says of the channel. */
int psyne_coalescer_init(struct psyne_coalescer *k, struct psyne_producer *p, const struct psyne_coalescer_opts *opts);
/*
 * Takes a copy of @bytes. One that does not fit with the others sends them first; one that is longer than max_bytes goes alone,
 * in a message as long as it takes. Not taken, and to be tried again: -EAGAIN, -ETIME, -EINTR. Not taken: -EMSGSIZE, never
 * fits; -EPIPE, -ESHUTDOWN as from psyne_claim(), -EINVAL. What was taken before stays.
 */
int psyne_coalescer_add(struct psyne_coalescer *k, const void *data, size_t bytes, int64_t timeout_ns);
int psyne_coalescer_flush(struct psyne_coalescer *k);  /* sends what there is; how many items. Never waits */
int64_t psyne_coalescer_deadline(const struct psyne_coalescer *k); /* CLOCK_MONOTONIC, in ns; INT64_MAX: there is none */
int psyne_coalescer_poll(struct psyne_coalescer *k);   /* flushes if it is time: how many items */
int psyne_coalescer_deinit(struct psyne_coalescer *k); /* sends what there is: how many items. The producer is yours again */

struct psyne_coalesced {
        const unsigned char *at;
        size_t left; /* bytes */
        uint32_t begun, padded;
};
struct psyne_coalesced psyne_decoalesce(const void *data, size_t bytes); /* [any] the items of a message, from the first on */
/* [any] 1: *@data and *@bytes are the next item, *@data lies in the message; 0: there is none left; -EBADMSG: damaged, for good. */
int psyne_coalesced_next(struct psyne_coalesced *it, const void **data, size_t *bytes);

/* ---- batcher ---------------------------------------------------------------------------------------------------- */

struct psyne_batcher_opts {
        size_t struct_size;
        size_t max_items;     /* of a message; default 1000, and no more than fit into a record of the channel */
        int64_t max_delay_ns; /* an element waits no longer, if anybody looks; 0: until the message is full */
        uint32_t type;        /* of the messages */
        uint32_t adaptive;    /* 1: whatever there is is sent as soon as readers have nothing left to do, and only then small */
};
#define PSYNE_BATCHER_OPTS(...)                                                                                        \
        (&(struct psyne_batcher_opts){.struct_size = sizeof(struct psyne_batcher_opts), __VA_ARGS__}) /* C only */

/* What has to be remembered; yours to keep, not to write. */
struct psyne_batcher {
        struct psyne_producer *p;
        size_t max_items;
        int64_t max_delay_ns;
        uint32_t type, adaptive, dtype, elem_bytes;
        struct psyne_vec vec;  /* the open claim, if there are elements */
        size_t items;
        size_t look_at;        /* so many elements: the next look at the readers */
        int64_t oldest_ns;     /* CLOCK_MONOTONIC: when the first of them came */
        uint64_t messages, total_items; /* sent so far */
};

/* As for the coalescer. psyne_batcher_init(): -EINVAL, also for max_items that no number of 63 bits is. */
int psyne_batcher_init(struct psyne_batcher *b, struct psyne_producer *p, enum psyne_dtype dtype, const struct psyne_batcher_opts *opts);
int psyne_batcher_add(struct psyne_batcher *b, const void *element, int64_t timeout_ns); /* a copy of one */
int psyne_batcher_flush(struct psyne_batcher *b);
int64_t psyne_batcher_deadline(const struct psyne_batcher *b);
int psyne_batcher_poll(struct psyne_batcher *b);
int psyne_batcher_deinit(struct psyne_batcher *b);

/*
 * Sends @n elements as vectors of @batch each, the last one shorter; of fewer, where a record of the channel takes no more. How
 * many were sent, which is fewer than @n if the time is over, or the channel is stopped, in between; if none was, why not.
 * -EINVAL: @batch is 0, and as for psyne_vec_send().
 */
int64_t psyne_send_batched(struct psyne_producer *p, enum psyne_dtype dtype, const void *from, size_t n, size_t batch, int64_t timeout_ns);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
