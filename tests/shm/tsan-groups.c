/*
 * Several groups in one lane under ThreadSanitizer, see tsan-lane.c for why there is one mapping.
 *
 *      tsan-groups broadcast [MESSAGES]   two groups that hold the producer back, and one that is overrun
 *      tsan-groups stages [MESSAGES]      three groups that follow each other; the second writes, the third sees it
 *
 * What a weakened order shows: B in both; A and D a producer that writes what somebody still reads, D in stages also a
 * stage that writes what the one in front still reads.
 */
#include <pthread.h>
#include <sched.h>

#include "shm/group.h"
#include "shm/overrun.h"
#define FIXTURE_CONSUMERS 4
#include "support.h"

#define RING 8192u
#define ALIGN 64u
#define STRIDE 128u
#define BYTES (STRIDE - PSYNE_RECORD_HEADER)
#define SKIPS 3u /* group */

static struct fixture f;
static _Alignas(4096) unsigned char ring[RING];
static bool stages;
static unsigned long n_messages = 100000;
static uint32_t done;

static void fill(void *to, uint64_t n) {
        for (size_t k = 0; k < BYTES; k += 8) {
                uint64_t value = n * 0x9e3779b97f4a7c15ull + k;

                memcpy((char *)to + k, &value, 8);
        }
}

static void check(const void *at, uint64_t n) {
        for (size_t k = 0; k < BYTES; k += 8) {
                uint64_t value;

                memcpy(&value, (const char *)at + k, 8);
                must(value == n * 0x9e3779b97f4a7c15ull + k);
        }
}

static void *produce(void *arg) {
        (void)arg;
        for (unsigned long i = 0; i < n_messages; i++) {
                struct psyne_msg m;

                f.tx.need = STRIDE + ALIGN;
                while (!psyne_lane_claim(&f.tx.hot, BYTES, &m)) {
                        lane_tx_refresh(&f.tx, true);
                        sched_yield();
                }
                fill(m.data, i);
                m.type = (uint32_t)i;
                must(psyne_lane_commit(&f.tx.hot, &m));
                psyne_lane_extend(&f.tx.hot, STRIDE);
        }
        __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
        return NULL;
}

static void *consume(void *arg) {
        uint32_t group = (uint32_t)(uintptr_t)arg;
        _Alignas(LANE_HANDLE_ALIGN) struct lane_rx x;

        must(lane_rx_init(&x, &f.view, group, 0, ring, RING, 4) == 0);
        if (stages && group > 0)
                lane_rx_stage(&x, &f.view, (int32_t)group - 1);
        for (unsigned long i = 0; i < n_messages;) {
                struct psyne_msg m;

                if (!psyne_lane_recv(&x.hot, &m) && lane_rx_take(&x, &m) != 1) {
                        sched_yield();
                        continue;
                }
                must(m.type == (uint32_t)i);
                check(m.data, stages && group == 2 ? i + 7 : i);
                if (stages && group == 1)
                        fill(m.data, i + 7);
                if (!psyne_lane_release(&x.hot, &m))
                        must(lane_rx_release(&x, &m) == 0);
                i++;
        }
        return NULL;
}

static void *skip(void *arg) {
        uint64_t received = 0, lost = 0, next = 0;
        unsigned char copy[RING];
        _Alignas(LANE_HANDLE_ALIGN) struct lane_rx x;

        (void)arg;
        must(overrun_init(&x, &f.view, SKIPS, 0, ring, RING) == 0);
        for (;;) {
                bool last = __atomic_load_n(&done, __ATOMIC_ACQUIRE);
                uint64_t before = lost;
                struct psyne_msg m;
                int r = overrun_take(&x, f.tx.shared, copy, sizeof(copy), true, &m, &lost);

                must(r >= 0);
                next += lost - before;
                if (r == 1) {
                        must(m.type == (uint32_t)next);
                        check(m.data, next++);
                        received++;
                } else if (last && !overrun_ready(&x, f.tx.shared))
                        break;
                else
                        sched_yield();
        }
        must(received + lost == n_messages);
        printf("overrun: %lu received, %lu missed\n", (unsigned long)received, (unsigned long)lost);
        return NULL;
}

int main(int argc, char **argv) {
        pthread_t threads[4];
        unsigned readers;

        if (argc < 2) {
                fprintf(stderr, "usage: tsan-groups broadcast|stages [MESSAGES]\n");
                return 2;
        }
        stages = strcmp(argv[1], "stages") == 0;
        readers = stages ? 3 : 2;
        if (argc > 2)
                n_messages = strtoul(argv[2], NULL, 0);
        f.ring = RING;
        f.align = ALIGN;
        fixture_control(&f, RING, ALIGN);
        f.control->groups_active = (1u << readers) - 1;
        f.control->groups_skipping = stages ? 0 : 1u << SKIPS;
        for (uint32_t g = 0; g < readers; g++) {
                f.view.groups[g].kind = LAYOUT_GROUP_EXCLUSIVE;
                f.view.groups[g].follows = stages ? (int32_t)g - 1 : -1;
        }
        lane_tx_init(&f.tx, &f.view, 0, ring, 0);
        for (uint32_t g = 0; g < 4; g++)
                group_place(&f.view, g, 0, 0, 0, false);
        must(pthread_create(&threads[0], NULL, produce, NULL) == 0);
        for (unsigned g = 0; g < readers; g++)
                must(pthread_create(&threads[1 + g], NULL, consume, (void *)(uintptr_t)g) == 0);
        if (!stages)
                must(pthread_create(&threads[1 + readers], NULL, skip, NULL) == 0);
        for (unsigned i = 0; i < 4; i++)
                must(pthread_join(threads[i], NULL) == 0);
        printf("%lu messages, %s\n", n_messages, argv[1]);
        return 0;
}
