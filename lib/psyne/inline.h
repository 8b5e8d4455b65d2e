/*
 * psyne/inline.h: the lane's fast paths. Included by psyne.h; nothing here is called by its psyne_lane_ or
 * psyne_hot_ name outside the library. What stands here is part of the binary interface: the record header in
 * the ring, and the two structs of cached pointers that every producer and consumer handle begins with.
 *
 * A lane is one producer's ring of variable-length records, mapped twice back to back so that none ever wraps.
 * A record starts with its commit word: zero while there is nothing, then the record's stride. A reader that has
 * caught up polls exactly the word where the next record will start, which shares a cache line with that
 * record's first payload bytes: one line moves per small message.
 *
 *      producer                                         reader
 *  A   free position, acquire: is there room?       C   commit word, acquire: is there a record?
 *      zero the word behind the record                  read the record
 *      write the record                             D   released position, release (exact, its own line)
 *  B   commit word, release                         E   published position, release (lazy, the producer polls it)
 *
 * B -> C: who sees the stride sees the whole record, and sees zero (or a later record) where it ends. Without it
 *         stale bytes are read as a message.
 * D, E -> A: who sees the position may overwrite what lies before it; the reader is done. Without it a message
 *         changes while it is being read.
 *
 *      producer, after B                                reader, before it sleeps
 *  F   load the bitmap of sleepers                  G   set its bit; heavy barrier; look at the commit word again
 *      reader, after D                                  producer, before it sleeps
 *  H   load the bitmap of waiting producers         I   set its bit; heavy barrier; look at the released position again
 *
 * F-G and H-I are store-then-load on both sides; the one outcome that loses a wake is both loads missing both
 * stores. The sleeper pays for both: its heavy barrier (membarrier) runs a full barrier on every CPU that runs
 * a participant, so F and H need only keep the compiler from turning store and load around. Where membarrier is
 * refused, `fence` is set and F and H are real fences.
 *
 * Clear-ahead keeps "zero" true with variable lengths: all words at multiples of the alignment in [tail, frontier)
 * are zero, except inside claimed payload. A claim needs room for one cell more than its record (the successor's
 * word); commit guarantees frontier >= end + align before B; extending the frontier happens after B, off the
 * critical path, and doubles as the prefetch of the lines that will be written next. The frontier never passes the
 * limit, behind which unread records lie.
 *
 * Positions are 64-bit, run freely and are compared by unsigned difference only.
 */
#ifndef PSYNE_INLINE_H
#define PSYNE_INLINE_H

/* The memory orders of A to E. A test builds with one of them weakened and must see a race reported. */
#ifndef PSYNE_ORDER_A
#define PSYNE_ORDER_A __ATOMIC_ACQUIRE
#endif
#ifndef PSYNE_ORDER_B
#define PSYNE_ORDER_B __ATOMIC_RELEASE
#endif
#ifndef PSYNE_ORDER_C
#define PSYNE_ORDER_C __ATOMIC_ACQUIRE
#endif
#ifndef PSYNE_ORDER_D
#define PSYNE_ORDER_D __ATOMIC_RELEASE
#endif
#ifndef PSYNE_ORDER_E
#define PSYNE_ORDER_E __ATOMIC_RELEASE
#endif

#define PSYNE_RECORD_HEADER 16u   /* bytes before the payload */
#define PSYNE_FRONTIER_BYTES 2048u /* farthest that words past the tail are cleared; less costs long records, more everyone */
#define PSYNE_PACE_MESSAGES 32u   /* commits between two looks at how fast they come; a power of two */

#define PSYNE_RECORD_PAD (1ull << 32)   /* an aborted claim that others followed: readers walk over it */
#define PSYNE_RECORD_STAMP (1ull << 33) /* 8 bytes of send time before the payload (reserved) */
#define PSYNE_RECORD_SHUFFLE (1ull << 34) /* payload went through the byte shuffle (reserved) */

#define psyne_likely(x) __builtin_expect(!!(x), 1)
#define psyne_unlikely(x) __builtin_expect(!!(x), 0)

/* In the ring. Written by the lane's producer before B; only an in-place pipeline stage may change bytes and type. */
struct psyne_record {
        uint32_t commit;   /* 0 = nothing here yet, else the stride: bytes to the next record, written once */
        uint32_t bytes;    /* payload */
        uint64_t kind;     /* bits 0-31 type, 32-47 PSYNE_RECORD_* flags, 48-55 codec (0 = raw), 56-63 zero */
};

/* The producer's own line in the control pages: for joiners, tools and lossy groups; readers never poll it. */
struct psyne_line_tx {
        uint64_t tail;          /* end of the newest commit; bits 0-3: those of messages_sent then, see psyne_lane_count() */
        uint64_t messages_sent; /* sequence number of the next record */
        uint64_t bytes_sent;    /* payload */
        uint64_t high_water;    /* most bytes ever seen in the lane, as of the last look at the free position */
};

/* An exclusive reader's exact line: nobody else reads it while things go well. */
struct psyne_line_rx {
        uint64_t released; /* everything before it may be overwritten */
        uint64_t taken;    /* end of the newest record handed to the reader */
        uint64_t messages_received;
        uint64_t bytes_received;
};

/* First member of struct psyne_producer. One thread at a time. */
struct psyne_hot_tx {
        unsigned char *base;      /* the ring; every span up to one ring length is contiguous from here */
        uint64_t mask;            /* ring bytes - 1 */
        uint64_t head;            /* end of the newest claim */
        uint64_t tail;            /* end of the newest commit */
        uint64_t limit;           /* cached slowest position + ring bytes: no record may reach it; only rises */
        uint64_t frontier;        /* see clear-ahead */
        uint64_t align;           /* bytes, power of two, 16 at least */
        uint64_t bytes_max;       /* largest payload */
        struct psyne_line_tx *line;
        const uint64_t *sleepers; /* bitmap of sleeping consumers, channel-wide */
        const uint64_t *stop;     /* the channel's stop word; low two bits 0 = running */
        uint64_t messages, bytes; /* what the line shows */
        uint64_t token;           /* marks this lane's messages */
        uint32_t fence;           /* F is a full fence (no membarrier here, or there) */
        uint32_t ahead;           /* how many records like the last one are cleared for at a time */
};

/* First member of struct psyne_consumer. The lane it is reading now. */
struct psyne_hot_rx {
        const unsigned char *base;
        uint64_t mask;
        uint64_t taken;           /* next record to take */
        uint64_t released;        /* oldest record not released */
        uint64_t published;       /* what the lazy line says */
        uint64_t lazy;            /* publish once this much is released and unpublished */
        uint64_t stride_max;      /* ring bytes - align */
        uint64_t align_mask;      /* align - 1 */
        struct psyne_line_rx *line;
        const uint64_t *waiters;  /* bitmap of producers that sleep for room, channel-wide */
        uint64_t messages, bytes; /* released, what the line shows */
        uint64_t token;           /* marks messages of this lane, received here */
        uint32_t held;            /* taken and not released */
        uint32_t held_max;        /* 0 while every record has to take the long way */
        uint32_t scattered;       /* released out of order: the next release takes the long way */
        uint32_t fence;           /* H is a full fence */
};

static inline struct psyne_record *psyne_lane_record(unsigned char *base, uint64_t position, uint64_t mask) {
        return (struct psyne_record *)(void *)(base + (position & mask));
}

static inline uint64_t psyne_lane_stride(size_t bytes, uint64_t align) {
        return ((uint64_t)bytes + PSYNE_RECORD_HEADER + align - 1) & ~(align - 1);
}

/* F and H. */
static inline uint64_t psyne_lane_sleepers(const uint64_t *bitmap, uint32_t fence) {
        if (psyne_unlikely(fence))
                __atomic_thread_fence(__ATOMIC_SEQ_CST);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        return __atomic_load_n(bitmap, __ATOMIC_RELAXED); /* relaxed: paired through the sleeper's barrier */
}

/* 1 = claimed, 0 = take the long way (no room by the cached limit, too large, stopped). */
static inline int psyne_lane_claim(struct psyne_hot_tx *h, size_t bytes, struct psyne_msg *ret) {
        uint64_t stride = psyne_lane_stride(bytes, h->align);
        struct psyne_record *r;

        if (psyne_unlikely(bytes > h->bytes_max || stride + h->align > h->limit - h->head ||
                           (__atomic_load_n(h->stop, __ATOMIC_RELAXED) & 3)))
                return 0;
        r = psyne_lane_record(h->base, h->head, h->mask);
        ret->data = r + 1;
        ret->len = bytes;
        ret->cap = stride - PSYNE_RECORD_HEADER;
        ret->type = 0;
        ret->flags = 0;
        ret->lost = 0;
        ret->opaque[0] = h->head;
        ret->opaque[1] = h->head + stride;
        ret->opaque[2] = h->token;
        h->head += stride;
        return 1;
}

static inline void psyne_lane_clear(struct psyne_hot_tx *h, uint64_t position) {
        __atomic_store_n(&psyne_lane_record(h->base, position, h->mask)->commit, 0, __ATOMIC_RELAXED); /* before B */
}

/*
 * Zeroes words past the tail, far enough for a record as long as the last one (@stride) and the one behind it: the
 * lines of the next record are then ours before it is claimed. Not while payload is claimed.
 *
 * Taking a line back from the reader's cache is what a commit waits for. In a conversation (`ahead` is 2) it happens a
 * record at a time: what is taken back earlier is fetched by the reader's prefetcher before it is written, and has to be
 * taken back again. In a stream (10) it happens for eight records at a time: stores that follow each other wait for
 * their lines together, stores with a record's other stores in between wait one after another.
 */
static inline void psyne_lane_extend(struct psyne_hot_tx *h, uint64_t stride) {
        uint64_t most = h->limit - h->tail, n = h->frontier - h->tail, tail = h->tail, align = h->align;
        unsigned char *base = h->base;
        uint64_t mask = h->mask;

        if (n >= 2 * stride || stride > PSYNE_FRONTIER_BYTES / 4)
                return;
        if (most > PSYNE_FRONTIER_BYTES)
                most = PSYNE_FRONTIER_BYTES;
        if (most > h->ahead * stride)
                most = h->ahead * stride;
        for (; n < most; n += align)
                __atomic_store_n(&psyne_lane_record(base, tail + n, mask)->commit, 0, __ATOMIC_RELAXED); /* before B */
        h->frontier = tail + n;
}

/* B. The record's end must be @end, and frontier >= end + align must hold already. */
static inline void psyne_lane_publish(struct psyne_hot_tx *h, uint64_t start, uint64_t end, size_t bytes,
        uint64_t kind) {
        struct psyne_record *r = psyne_lane_record(h->base, start, h->mask);

        r->bytes = (uint32_t)bytes;
        r->kind = kind;
        __atomic_store_n(&r->commit, (uint32_t)(end - start), PSYNE_ORDER_B); /* B, pairs with C */
}

/* Who joins needs both, the end and its number. Ends are multiples of 16, so the low bits say how far the count, which is
 * stored first, is ahead. */
static inline void psyne_lane_count(struct psyne_hot_tx *h, uint64_t messages, uint64_t bytes) {
        struct psyne_line_tx *line = h->line;

        h->messages = messages += h->messages;
        h->bytes = bytes += h->bytes;
        __atomic_store_n(&line->messages_sent, messages, __ATOMIC_RELEASE); /* not before the tail that came before it */
        __atomic_store_n(&line->bytes_sent, bytes, __ATOMIC_RELAXED);
        __atomic_store_n(&line->tail, h->tail | (messages & 15), __ATOMIC_RELEASE); /* a joiner that sees it sees the words before it */
}

/* The record's stride = committed, 0 = take the long way: not the only claim, shrunk below its cells, or not this
 * handle's at all. */
static inline uint64_t psyne_lane_commit(struct psyne_hot_tx *h, struct psyne_msg *m) {
        uint64_t start = m->opaque[0], end = m->opaque[1], stride = end - start, len = m->len;

        if (psyne_unlikely(start != h->tail || end != h->head || m->opaque[2] != h->token || len > m->cap ||
                           psyne_lane_stride(len, h->align) != stride))
                return 0;
        if (h->frontier - start < stride + h->align) {
                psyne_lane_clear(h, end);
                h->frontier = end + h->align;
        }
        psyne_lane_publish(h, start, end, len, m->type);
        h->tail = end;
        psyne_lane_count(h, 1, len);
        m->opaque[2] = 0;
        return stride;
}

/* 1 = got one, 0 = take the long way: nothing there, a damaged header, a flagged record, or too many held. */
static inline int psyne_lane_recv(struct psyne_hot_rx *h, struct psyne_msg *ret) {
        const unsigned char *at = h->base + (h->taken & h->mask);
        const struct psyne_record *r = (const struct psyne_record *)(const void *)at;
        uint64_t stride = __atomic_load_n(&r->commit, PSYNE_ORDER_C); /* C, pairs with B */
        uint64_t bytes, kind;

        if (psyne_unlikely(!stride || h->held >= h->held_max))
                return 0;
        bytes = __atomic_load_n(&r->bytes, __ATOMIC_RELAXED); /* once: the other process may change it any time */
        kind = __atomic_load_n(&r->kind, __ATOMIC_RELAXED);
        if (psyne_unlikely((stride & h->align_mask) || stride > h->stride_max || bytes > stride - PSYNE_RECORD_HEADER ||
                           kind >> 32))
                return 0;
        ret->data = (void *)(uintptr_t)(at + PSYNE_RECORD_HEADER);
        ret->len = bytes;
        ret->cap = stride - PSYNE_RECORD_HEADER;
        ret->type = (uint32_t)kind;
        ret->flags = 0;
        ret->lost = 0;
        ret->opaque[0] = h->taken;
        ret->opaque[1] = h->taken + stride;
        ret->opaque[2] = h->token;
        h->taken += stride;
        h->held++;
        __atomic_store_n(&h->line->taken, h->taken, __ATOMIC_RELEASE); /* for whoever takes over after a death */
        return 1;
}

/* 1 = released, 0 = take the long way: not the oldest, or not this handle's. */
static inline int psyne_lane_release(struct psyne_hot_rx *h, struct psyne_msg *m) {
        struct psyne_line_rx *line;
        uint64_t released, messages, bytes;

        if (psyne_unlikely(m->opaque[0] != h->released || m->opaque[2] != h->token || h->scattered ||
                           !h->held))
                return 0;
        line = h->line;
        released = m->opaque[1];
        messages = h->messages + 1;
        bytes = h->bytes + m->len;
        h->held--;
        h->released = released;
        h->messages = messages;
        h->bytes = bytes;
        __atomic_store_n(&line->messages_received, messages, __ATOMIC_RELAXED); /* for tools */
        __atomic_store_n(&line->bytes_received, bytes, __ATOMIC_RELAXED);
        __atomic_store_n(&line->released, released, PSYNE_ORDER_D); /* D, pairs with A */
        m->opaque[2] = 0;
        return 1;
}

#ifndef PSYNE_NO_INLINE
#define psyne_claim(p, bytes, timeout_ns, ret) psyne_claim_inline(p, bytes, timeout_ns, ret)
#define psyne_commit(p, m) psyne_commit_inline(p, m)
#define psyne_recv(c, ret, timeout_ns) psyne_recv_inline(c, ret, timeout_ns)
#define psyne_release(c, m) psyne_release_inline(c, m)
#endif

/* What the inline paths fall back to; the exported twins of the hot calls end here too. */
int psyne_claim_slow(struct psyne_producer *p, size_t bytes, int64_t timeout_ns, struct psyne_msg *ret);
int psyne_commit_slow(struct psyne_producer *p, struct psyne_msg *m);
int psyne_recv_slow(struct psyne_consumer *c, struct psyne_msg *ret, int64_t timeout_ns);
int psyne_release_slow(struct psyne_consumer *c, struct psyne_msg *m);
void psyne_wake_consumers(struct psyne_producer *p);
void psyne_pace(struct psyne_producer *p);
void psyne_publish_released(struct psyne_consumer *c);

static inline int psyne_claim_inline(struct psyne_producer *p, size_t bytes, int64_t timeout_ns,
        struct psyne_msg *ret) {
        if (psyne_likely(psyne_lane_claim((struct psyne_hot_tx *)(void *)p, bytes, ret)))
                return 0;
        return psyne_claim_slow(p, bytes, timeout_ns, ret);
}

static inline int psyne_commit_inline(struct psyne_producer *p, struct psyne_msg *m) {
        struct psyne_hot_tx *h = (struct psyne_hot_tx *)(void *)p;
        uint64_t stride = psyne_lane_commit(h, m);

        if (psyne_unlikely(!stride))
                return psyne_commit_slow(p, m);
#ifndef PSYNE_NO_WAKE_CHECK
        if (psyne_unlikely(psyne_lane_sleepers(h->sleepers, h->fence)))
                psyne_wake_consumers(p);
#endif
        psyne_lane_extend(h, stride);
        if (psyne_unlikely(h->messages % PSYNE_PACE_MESSAGES == 0))
                psyne_pace(p);
        return 0;
}

static inline int psyne_recv_inline(struct psyne_consumer *c, struct psyne_msg *ret, int64_t timeout_ns) {
        if (psyne_likely(psyne_lane_recv((struct psyne_hot_rx *)(void *)c, ret)))
                return 0;
        return psyne_recv_slow(c, ret, timeout_ns);
}

static inline int psyne_release_inline(struct psyne_consumer *c, struct psyne_msg *m) {
        struct psyne_hot_rx *h = (struct psyne_hot_rx *)(void *)c;

        if (psyne_unlikely(!psyne_lane_release(h, m)))
                return psyne_release_slow(c, m);
        if (psyne_unlikely(h->released - h->published >= h->lazy || psyne_lane_sleepers(h->waiters, h->fence)))
                psyne_publish_released(c);
        return 0;
}
#endif
