/*
 * slot.h: the least that carries a message: a word that counts, and the payload right behind it.
 *
 * Up to 56 bytes travel in the word's own cache line; 64 are cut to those 56, because the floor is one line. Larger
 * payloads take the lines that follow. There is no ring: it serves ping-pong only, where each side waits for the other.
 */
#ifndef PSYNE_BENCH_SLOT_H
#define PSYNE_BENCH_SLOT_H

#include "bench/payload.h"

#define SLOT_PAYLOAD_MAX 56u

struct slot {
        uint32_t count __attribute__((aligned(128))); /* 32 bits: what a futex waits on */
        uint32_t pad;
        unsigned char payload[];
};

/* One side's two ends. */
struct slot_pair {
        struct slot *out, *in;
        uint32_t sent, taken;
        uint32_t pauses;
};

BENCH_INLINE size_t slot_bytes(size_t size) {
        return size > SLOT_PAYLOAD_MAX && size <= 64 ? SLOT_PAYLOAD_MAX : size;
}

BENCH_INLINE void slot_put(struct slot_pair *p, size_t size, uint64_t seq) {
        payload_fill(p->out->payload, slot_bytes(size), seq);
        __atomic_store_n(&p->out->count, ++p->sent, __ATOMIC_RELEASE);
}

BENCH_INLINE int slot_is_new(const struct slot_pair *p) {
        return __atomic_load_n(&p->in->count, __ATOMIC_ACQUIRE) != p->taken;
}

BENCH_INLINE void slot_get(struct slot_pair *p, size_t size, struct payload_reader *t) {
        p->taken++;
        payload_take(t, p->in->payload, slot_bytes(size));
}

#endif
