/*
 * payload.h: what goes into a message and how it is read back; the same code for every implementation.
 *
 * A message is filled with its sequence number, repeated, and read by adding up all of its words: every byte is
 * written and every byte is read, and one comparison per message finds loss, damage, repetition and disorder. From
 * PAYLOAD_COPY_MIN on, filling is one memcpy from a private template with the number in its first word, so that
 * libraries whose send is itself a copy can take that copy as their fill and nobody writes twice.
 *
 * Two traps. Stores and loads are 16 bytes wide on both sides (8 for a single word), also in a copy on the way: an
 * 8-byte store followed by a wider load of the same line stalls until the store has left the core, and halves a
 * result. And the size must be a constant for all or for none: LOOP_RUN_DEFINE() sees to it, or some
 * implementations get an unrolled fill and others a loop.
 */
#ifndef PSYNE_BENCH_PAYLOAD_H
#define PSYNE_BENCH_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PAYLOAD_COPY_MIN 4096u    /* bytes; below, computing the words is cheaper than fetching them */
#define PAYLOAD_STOP UINT64_MAX   /* the number of the last message of a slice */
#define PAYLOAD_FIRST UINT64_C(1) /* never 0: some queues use 0 to mean "empty" */

#define BENCH_INLINE static inline __attribute__((always_inline))
#define BENCH_LIKELY(x) __builtin_expect(!!(x), 1)

typedef uint64_t payload_vec __attribute__((vector_size(16), aligned(8), may_alias));
typedef uint64_t payload_word __attribute__((may_alias));

extern uint64_t *payload_template;    /* this process's, of the size being run; NULL below PAYLOAD_COPY_MIN */
extern uint64_t payload_template_sum; /* of its words but the first */

/* Makes the template for messages of this size. 0 or -ENOMEM. */
int payload_prepare(size_t size);

BENCH_INLINE void payload_fill(void *dst, size_t size, uint64_t seq) {
        unsigned char *p = (unsigned char *)dst;

        if (size >= PAYLOAD_COPY_MIN) {
                memcpy(p, payload_template, size);
                *(payload_word *)p = seq;
        } else if (size == 8) {
                *(payload_word *)p = seq;
        } else {
                const payload_vec v = {seq, seq};
                size_t i = 0;

                for (; i + 64 <= size; i += 64) {
                        *(payload_vec *)(p + i) = v;
                        *(payload_vec *)(p + i + 16) = v;
                        *(payload_vec *)(p + i + 32) = v;
                        *(payload_vec *)(p + i + 48) = v;
                }
                for (; i + 16 <= size; i += 16)
                        *(payload_vec *)(p + i) = v;
                if (size & 8)
                        *(payload_word *)(p + i) = seq;
        }
}

/* Adds up the words; size is a multiple of 8. */
BENCH_INLINE uint64_t payload_sum(const void *src, size_t size) {
        const unsigned char *p = (const unsigned char *)src;

        if (size == 8)
                return *(const payload_word *)p;

        payload_vec a = {0, 0}, b = a, c = a, d = a;
        uint64_t tail = 0;
        size_t i = 0;

        for (; i + 64 <= size; i += 64) {
                a += *(const payload_vec *)(p + i);
                b += *(const payload_vec *)(p + i + 16);
                c += *(const payload_vec *)(p + i + 32);
                d += *(const payload_vec *)(p + i + 48);
        }
        for (; i + 16 <= size; i += 16)
                a += *(const payload_vec *)(p + i);
        if (size & 8)
                tail = *(const payload_word *)(p + i);
        a += b;
        c += d;
        a += c;
        return a[0] + a[1] + tail;
}

BENCH_INLINE uint64_t payload_sum_expected(size_t size, uint64_t seq) {
        return size >= PAYLOAD_COPY_MIN ? payload_template_sum + seq : (uint64_t)(size / 8) * seq;
}

/* One side's reading: what must come next, and what went wrong so far. */
struct payload_reader {
        uint64_t expect;
        uint64_t damaged; /* messages that were not the one expected, whole */
        int stopped;
};

/*
 * Reads one message in place. All of it is inline, the unexpected too: were the reader's address given to a function,
 * its fields could not stay in registers, and counting would cost more than a small message.
 */
BENCH_INLINE void payload_take(struct payload_reader *t, const void *src, size_t size) {
        if (BENCH_LIKELY(payload_sum(src, size) == payload_sum_expected(size, t->expect))) {
                t->expect++;
        } else if (*(const payload_word *)src == PAYLOAD_STOP) {
                t->stopped = 1;
        } else {
                /* Go on from what came, so that one lost message counts once and not for all that follow. */
                t->damaged++;
                t->expect = *(const payload_word *)src + 1;
        }
}

#ifdef __cplusplus
}
#endif
#endif
