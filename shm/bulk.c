/* See bulk.h. */
#include "shm/bulk.h"

#include <errno.h>

#include "base/error.h"
#include "base/fault.h"

#define COUNT_MOST 7u /* messages that a tail's number may be off by while it is looked at */

/* ---- taking ------------------------------------------------------------------------------------------------------ */

static const struct psyne_record *record_at(const struct lane_rx *x, uint64_t position) {
        return (const void *)(x->hot.base + (position & x->hot.mask));
}

int64_t bulk_span(const struct lane_rx *x, uint64_t position, uint64_t most) {
        uint64_t n = 0, ring = x->hot.mask + 1, held = position - x->hot.released;

        while (n < most && held + n < ring) {
                uint64_t stride = __atomic_load_n(&record_at(x, position + n)->commit, PSYNE_ORDER_C); /* C, pairs with B */

                if (!stride)
                        break;
                /* One that came round to what we hold has not been released: it is no record's end. */
                if (stride & x->hot.align_mask || stride > x->hot.stride_max || held + n + stride > ring)
                        return error_set(-EBADMSG, "the producer wrote a damaged record header");
                if (n && n + stride > most)
                        break;
                n += stride;
        }
        return (int64_t)n;
}

const void *bulk_at(const struct lane_rx *x, uint64_t position) {
        return record_at(x, position);
}

static void rx_store(struct lane_rx *x) {
        x->hot.held = x->hot.taken != x->hot.released; /* one run: whoever asks whether something is held */
        __atomic_store_n(&x->hot.line->taken, x->hot.taken, __ATOMIC_RELEASE);
        __atomic_store_n(&x->hot.line->released, x->hot.released, PSYNE_ORDER_D); /* D, pairs with A */
}

/* Counts what is released: the headers are ours to read until it is. */
static void rx_count(struct lane_rx *x, uint64_t to) {
        for (uint64_t stride; x->hot.released != to; x->hot.released += stride) {
                const struct psyne_record *r = record_at(x, x->hot.released);
                uint64_t left = to - x->hot.released;

                stride = __atomic_load_n(&r->commit, __ATOMIC_RELAXED);
                if (!stride || stride & x->hot.align_mask || stride > left) /* changed since we took it */
                        stride = left;
                else if (!(r->kind >> 32)) {
                        x->hot.messages++;
                        x->hot.bytes += r->bytes;
                }
        }
        __atomic_store_n(&x->hot.line->messages_received, x->hot.messages, __ATOMIC_RELAXED);
        __atomic_store_n(&x->hot.line->bytes_received, x->hot.bytes, __ATOMIC_RELAXED);
}

void bulk_take(struct lane_rx *x, uint64_t to) {
        x->hot.taken = to;
        rx_store(x);
}

void bulk_release(struct lane_rx *x, uint64_t to) {
        rx_count(x, to);
        rx_store(x);
}

/* ---- landing ----------------------------------------------------------------------------------------------------- */

uint64_t bulk_room(const struct lane_tx *t) {
        uint64_t room = t->hot.limit - t->hot.tail;

        return room > t->hot.align ? room - t->hot.align : 0; /* the successor's word has to be cleared */
}

void *bulk_tail(struct lane_tx *t) {
        return psyne_lane_record(t->hot.base, t->hot.tail, t->hot.mask);
}

/* A few at a time: who joins tells the end's number from how far the count is ahead (psyne_lane_count()). */
static void land_count(struct psyne_hot_tx *h, uint64_t start, uint64_t n, uint32_t word) {
        uint64_t messages = 0, bytes = 0, at = 0;

        while (at < n) {
                const struct psyne_record *r = psyne_lane_record(h->base, start + at, h->mask);

                at += at ? r->commit : word;
                if (!(r->kind >> 32)) {
                        messages++;
                        bytes += r->bytes;
                }
                if (messages == COUNT_MOST || at == n) {
                        h->tail = start + at;
                        psyne_lane_count(h, messages, bytes);
                        messages = bytes = 0;
                }
        }
}

int64_t bulk_land(struct lane_tx *t, uint64_t n, uint32_t word) {
        struct psyne_hot_tx *h = &t->hot;
        uint64_t at = 0, start = h->tail, stride, messages = 0;

        if (n == 0 || n > bulk_room(t))
                return error_set(-EBADMSG, "%llu bytes of records where there is room for %llu", (unsigned long long)n,
                        (unsigned long long)bulk_room(t));
        for (; at < n; at += stride) {
                const struct psyne_record *r = psyne_lane_record(h->base, start + at, h->mask);

                stride = at ? r->commit : word;
                if (!stride || stride & (h->align - 1) || stride > n - at || stride > h->mask + 1 - h->align ||
                        r->bytes > stride - PSYNE_RECORD_HEADER || (r->kind >> 32 && r->kind != PSYNE_RECORD_PAD))
                        return error_set(-EBADMSG, "what came is not made of records");
                messages += !(r->kind >> 32);
        }
        psyne_lane_clear(h, start + n);
        h->frontier = start + n + h->align; /* behind it lies whatever came before */
        h->head = start + n;
        FAULT_POINT("land.before");
        __atomic_store_n(&psyne_lane_record(h->base, start, h->mask)->commit, word, PSYNE_ORDER_B); /* B, pairs with C */
        land_count(h, start, n, word);
        return (int64_t)messages;
}
