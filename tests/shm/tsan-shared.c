/*
 * A shared group under ThreadSanitizer: a producer and three members, one of which gives up now and then and leaves its
 * loans to the others. Each message has to come to a member whole, and but for the adopted ones to one only.
 *
 *  B, C  as in tsan-lane.c
 *  D     here the hold word: -DSHARED_ORDER_D=__ATOMIC_RELAXED, and the producer writes what is being read
 *  A     the producer reads claim and hold words: -DSHARED_ORDER_A=__ATOMIC_RELAXED, the same
 *
 * One plain mapping, and blocks as in tsan-lane.c.
 */
#include <pthread.h>
#include <sched.h>

#include "shm/group.h"
#include "shm/shared.h"
#define FIXTURE_CONSUMERS 4
#include "support.h"

#define RING 8192u
#define ALIGN 64u
#define BLOCK 1024u
#define MEMBERS 3u

static struct fixture f;
static _Alignas(4096) unsigned char ring[RING];
static unsigned long n_messages = 60000;
static uint64_t n_done, sum_done;

static void *produce(void *arg) {
        uint64_t block = 0, at = 0;

        (void)arg;
        for (unsigned long i = 0; i < n_messages; i++) {
                size_t stride = ALIGN << (block % 5), bytes = stride - PSYNE_RECORD_HEADER;
                struct psyne_msg m;
                uint64_t committed;

                while (!psyne_lane_claim(&f.tx.hot, bytes, &m)) {
                        lane_tx_refresh(&f.tx, true);
                        sched_yield();
                }
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
                }
        }
        return NULL;
}

static void read_one(uint64_t at) {
        const struct psyne_record *r = (const void *)(ring + (at & (RING - 1)));
        uint32_t stride = __atomic_load_n(&r->commit, PSYNE_ORDER_C); /* C, in ThreadSanitizer's sight */

        must(stride && r->bytes == stride - PSYNE_RECORD_HEADER);
        for (size_t k = 0; k < r->bytes; k += 8) {
                uint64_t value;

                memcpy(&value, (const char *)(r + 1) + k, 8);
                must(value == (uint32_t)r->kind * 0x9e3779b97f4a7c15ull + k);
        }
        __atomic_fetch_add(&n_done, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&sum_done, (uint32_t)r->kind, __ATOMIC_RELAXED);
}

static void begin(struct shared_self *s, uint32_t i) {
        struct layout_member *m = &f.view.members[i];

        __atomic_store_n(&m->generation, m->generation + 1, __ATOMIC_RELEASE);
        __atomic_store_n(&m->state, LAYOUT_ACTIVE, __ATOMIC_RELEASE);
        s->view = &f.view;
        s->member = i;
        s->generation = m->generation;
        shared_begin(s);
}

/* Takes over what members that gave up left, this one's former self included. */
static void adopt(struct shared_self *s) {
        for (uint32_t m = 0; m < MEMBERS; m++) {
                uint64_t owner;
                uint32_t k;

                if (m != s->member && __atomic_load_n(&f.view.members[m].state, __ATOMIC_ACQUIRE) != LAYOUT_DEAD)
                        continue;
                while (shared_adopt(s, m, &k, &owner)) {
                        struct layout_loan *e = shared_loan(&f.view, m, k);
                        uint64_t at = e->start;

                        for (uint32_t i = 0; shared_rest(e, owner, i); i++) {
                                const struct psyne_record *r = (const void *)(ring + (at & (RING - 1)));
                                uint32_t stride = __atomic_load_n(&r->commit, PSYNE_ORDER_C);

                                if (!(e->done & (1ull << i))) {
                                        read_one(at);
                                        (void)shared_done(s, m, k, 1ull << i);
                                }
                                at += stride;
                        }
                }
        }
        (void)shared_holds_refresh(s);
}

static void *consume(void *arg) {
        uint32_t me = (uint32_t)(uintptr_t)arg;
        static uint64_t starts[MEMBERS][LAYOUT_LOANS][LAYOUT_LOANS];
        struct shared_self s = {.starts = starts[me]};
        const struct shared_ring x = {.base = ring, .mask = RING - 1, .align = ALIGN, .follows = -1};

        begin(&s, me);
        for (unsigned long turn = 0; __atomic_load_n(&n_done, __ATOMIC_RELAXED) < n_messages; turn++) {
                struct shared_claim claim;
                int n = shared_claim(&s, &x, 1 + (unsigned)(turn % 5), &claim);

                must(n >= 0);
                if (n == 0) {
                        adopt(&s);
                        sched_yield();
                        continue;
                }
                if (me == 0 && turn % 50 == 49) {
                        __atomic_store_n(&f.view.members[me].state, LAYOUT_DEAD, __ATOMIC_RELEASE);
                        sched_yield();
                        begin(&s, me);
                        adopt(&s);
                        continue;
                }
                for (int i = n; i-- > 0;) {
                        read_one(starts[me][claim.loan][i]);
                        (void)shared_done(&s, me, claim.loan, 1ull << i);
                }
        }
        return NULL;
}

int main(int argc, char **argv) {
        pthread_t threads[1 + MEMBERS];

        if (argc > 1)
                n_messages = strtoul(argv[1], NULL, 0);
        f.ring = RING;
        f.align = ALIGN;
        fixture_control(&f, RING, ALIGN);
        must(f.view.n_members >= MEMBERS);
        f.view.groups[0].kind = LAYOUT_GROUP_SHARED;
        f.control->groups_active = 1;
        for (uint32_t m = MEMBERS; m < f.view.n_members; m++)
                f.view.members[m].group = 1;
        lane_tx_init(&f.tx, &f.view, 0, ring, 0);
        group_place(&f.view, 0, 0, 0, 0, false);
        must(pthread_create(&threads[0], NULL, produce, NULL) == 0);
        for (uint32_t i = 0; i < MEMBERS; i++)
                must(pthread_create(&threads[1 + i], NULL, consume, (void *)(uintptr_t)i) == 0);
        for (unsigned i = 0; i < 1 + MEMBERS; i++)
                must(pthread_join(threads[i], NULL) == 0);
        must(n_done == n_messages && sum_done == n_messages * (n_messages - 1) / 2);
        printf("%lu messages, each to one of %u\n", n_messages, MEMBERS);
        return 0;
}
