/*
 * The lane under ThreadSanitizer: a producer and a reader thread through the inline paths. Whoever weakens an edge
 * must see a race reported, so every edge that TSan can see is built once more with a relaxed order:
 *
 *  A  -DPSYNE_ORDER_A=__ATOMIC_RELAXED   race, with `exact` and with `lazy`: the producer writes what is being read
 *  B  -DPSYNE_ORDER_B=...                race: the reader reads what is being written
 *  C  -DPSYNE_ORDER_C=...                race: the same
 *  D  -DPSYNE_ORDER_D=...                race with `exact`; with `lazy` E carries the edge
 *  E  -DPSYNE_ORDER_E=...                race with `lazy`; with `exact` D carries the edge
 *  F-G, H-I                              store-then-load: no order of one access shows it. litmus-wake.c shows the
 *                                        hardware's side, tests/models/sleep.pml and room.pml the algorithm's
 *
 * TSan keeps its shadow by virtual address: a second map of the same bytes would hide races. So the ring here is a
 * plain array, mapped once, and each record lies within one of the blocks that divide it: none crosses the end.
 * TSan does not know fences; none of A to E is one.
 *
 * tsan-lane exact|lazy|both [MESSAGES]
 */
#include <pthread.h>
#include <sched.h>

#include "support.h"

#define RING 8192u
#define ALIGN 64u
#define BLOCK 1024u /* divides the ring; records of one block have one size, which divides the block */

static struct fixture f;
static _Alignas(4096) unsigned char ring[RING];
static bool lazy, exact;
static unsigned long n_messages = 100000;

/* As psyne_claim_slow() waits, on the position that this run is about. */
static void claim(size_t bytes, struct psyne_msg *m) {
        while (!psyne_lane_claim(&f.tx.hot, bytes, m)) {
                if (lazy)
                        lane_tx_refresh(&f.tx, false);
                if (exact)
                        lane_tx_refresh(&f.tx, true);
                sched_yield();
        }
}

/* Blocks are cut into records of 64, 128, 256, 512 and 1024 bytes in turn. */
static void *produce(void *arg) {
        uint64_t block = 0, at = 0;

        (void)arg;
        for (unsigned long i = 0; i < n_messages; i++) {
                size_t stride = ALIGN << (block % 5), bytes = stride - PSYNE_RECORD_HEADER;
                struct psyne_msg m, extra;
                uint64_t committed;

                claim(bytes, &m);
                for (size_t k = 0; k < bytes; k += 8) {
                        uint64_t value = i * 0x9e3779b97f4a7c15ull + k;

                        memcpy((char *)m.data + k, &value, 8);
                }
                m.type = (uint32_t)i;
                committed = psyne_lane_commit(&f.tx.hot, &m);
                must(committed);
                psyne_lane_extend(&f.tx.hot, committed);
                at += stride;
                if (at == BLOCK) {
                        at = 0;
                        block++;
                } else if (i % 7 == 0 && psyne_lane_claim(&f.tx.hot, bytes, &extra)) {
                        memset(extra.data, 0xff, bytes); /* written and given back */
                        must(lane_tx_abort(&f.tx, &extra) == 0);
                }
        }
        return NULL;
}

static void *consume(void *arg) {
        struct psyne_msg held[3];
        unsigned n_held = 0;

        (void)arg;
        for (unsigned long i = 0; i < n_messages;) {
                struct psyne_msg *m = &held[n_held];

                /* The long way now and then: it loads by the same letters. */
                if (!(i % 11 ? psyne_lane_recv(&f.rx.hot, m) : lane_rx_take(&f.rx, m) == 1)) {
                        if (lazy)
                                (void)lane_rx_publish(&f.rx);
                        sched_yield();
                        continue;
                }
                for (size_t k = 0; k < m->len; k += 8) {
                        uint64_t value;

                        memcpy(&value, (char *)m->data + k, 8);
                        must(value == i * 0x9e3779b97f4a7c15ull + k);
                }
                must(m->type == (uint32_t)i);
                i++;
                if (++n_held < 1 + i % 3)
                        continue;
                while (n_held) { /* newest first: out of order where there are more than one */
                        n_held--;
                        if (!psyne_lane_release(&f.rx.hot, &held[n_held]))
                                must(lane_rx_release(&f.rx, &held[n_held]) == 0);
                }
                if (lazy && f.rx.hot.released - f.rx.hot.published >= f.rx.hot.lazy)
                        (void)lane_rx_publish(&f.rx);
        }
        return NULL;
}

int main(int argc, char **argv) {
        pthread_t producer, consumer;

        if (argc < 2) {
                fprintf(stderr, "usage: tsan-lane exact|lazy|both [MESSAGES]\n");
                return 2;
        }
        lazy = strcmp(argv[1], "exact") != 0;
        exact = strcmp(argv[1], "lazy") != 0;
        if (argc > 2)
                n_messages = strtoul(argv[2], NULL, 0);

        f.ring = RING;
        f.align = ALIGN;
        fixture_control(&f, RING, ALIGN);
        f.control->groups_active = 1;
        lane_tx_init(&f.tx, &f.view, 0, ring, 0);
        must(lane_rx_init(&f.rx, &f.view, 0, 0, ring, RING, 4) == 0);
        must(pthread_create(&producer, NULL, produce, NULL) == 0);
        must(pthread_create(&consumer, NULL, consume, NULL) == 0);
        must(pthread_join(producer, NULL) == 0);
        must(pthread_join(consumer, NULL) == 0);
        printf("%lu messages, %s position\n", n_messages, argv[1]);
        return 0;
}
