/*
 * A family of tests is one body run in every world and mode: FAMILY(order, send, receive) makes the Criterion
 * tests order/memory_spsc, order/ipc_same_spsc, order/ipc_two_spsc and order/tcp_two_spsc. matrix.c prints family x world at the end.
 * A body that a mode cannot have is skipped in it, with the reason.
 */
#ifndef PSYNE_TESTS_CONFORMANCE_FAMILY_H
#define PSYNE_TESTS_CONFORMANCE_FAMILY_H
#include <criterion/criterion.h>
#include <stdlib.h>

#include "support/world.h"

static inline void family_run(enum scheme scheme, int mode, side_fn a, side_fn b) {
        struct world w;
        char failure[1024] = "";
        int r;

        cr_assert_eq(world_init(&w, scheme, &modes[mode]), 0, "no private directory under /dev/shm");
        r = world_run(&w, a, b);
        if (scheme == SCHEME_TCP_TWO && r < 0 && strstr(w.page->failure, "is -95, not 0") &&
                (strstr(w.page->failure, "this end sends") || strstr(w.page->failure, "this end receives")))
                snprintf(w.page->failure, sizeof(w.page->failure), "it has both ends in one process");
        if (r < 0 && (world_skipped(&w) || strcmp(w.page->failure, "it has both ends in one process") == 0)) {
                memcpy(failure, w.page->failure, sizeof(failure));
                world_deinit(&w);
                cr_skip_test("%s", failure);
        }
        if (r < 0)
                memcpy(failure, w.page->failure, sizeof(failure));
        world_deinit(&w); /* before the assertion, which does not come back */
        cr_assert(r == 0, "%s", failure);
}

#define FAMILY_ONE(family, a, b, world, scheme, mode)                                                                  \
        Test(family, world##_##mode, .timeout = 120) {                                                                 \
                family_run(scheme, MODE_##mode, a, b);                                                                 \
        }
#define FAMILY_MODE(family, a, b, mode)                                                                                \
        FAMILY_ONE(family, a, b, memory, SCHEME_MEMORY, mode)                                                          \
        FAMILY_ONE(family, a, b, ipc_same, SCHEME_IPC_SAME, mode)                                                      \
        FAMILY_ONE(family, a, b, ipc_two, SCHEME_IPC_TWO, mode)                                                        \
        FAMILY_ONE(family, a, b, tcp_two, SCHEME_TCP_TWO, mode)
#define FAMILY(family, a, b)                                                                                           \
        FAMILY_MODE(family, a, b, spsc)                                                                                \
        FAMILY_MODE(family, a, b, mpsc)                                                                                \
        FAMILY_MODE(family, a, b, spmc)                                                                                \
        FAMILY_MODE(family, a, b, mpmc)

/* A body that asks of two ends what only one memory can give. */
#define NEAR(why)                                                                                                      \
        do {                                                                                                           \
                if (w->scheme == SCHEME_TCP_TWO)                                                                       \
                        return world_skip(w, why);                                                                     \
        } while (0)
#define AT_ONCE "what one end does is seen by the other at once"
#define ONE_COUNT "one end looks at what the other has counted"

/* The two ends of a body: open, and close with what each has to leave behind. */
struct ends {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_consumer *c;
};

#define OPEN_PRODUCER(e, query)                                                                                        \
        do {                                                                                                           \
                MUST_BE(world_open_as(w, ROLE_SENDS, query, &(e)->ch), 0);                                             \
                MUST_BE(psyne_producer_open((e)->ch, NULL, &(e)->p), 0);                                               \
        } while (0)
#define OPEN_CONSUMER(e, query)                                                                                        \
        do {                                                                                                           \
                MUST_BE(world_open_as(w, ROLE_RECEIVES, query, &(e)->ch), 0);                                          \
                MUST_BE(psyne_consumer_open((e)->ch, NULL, &(e)->c), 0);                                               \
        } while (0)
#define CLOSE(e)                                                                                                       \
        do {                                                                                                           \
                if ((e)->p)                                                                                            \
                        MUST_BE(psyne_producer_close((e)->p), 0);                                                      \
                if ((e)->c)                                                                                            \
                        MUST_BE(psyne_consumer_close((e)->c), 0);                                                      \
                MUST(!psyne_close((e)->ch));                                                                           \
                *(e) = (struct ends){NULL, NULL, NULL};                                                                \
        } while (0)

/* Message @n: its number as type, and a pattern of it. */
#define SEND(e, n, bytes)                                                                                              \
        do {                                                                                                           \
                struct psyne_msg sent_;                                                                                \
                int64_t sent_at_ = now_ns();                                                                           \
                uint64_t sent_n_ = (n);                                                                                \
                size_t sent_bytes_ = (bytes);                                                                          \
                MUST_BE(psyne_claim((e)->p, sent_bytes_, WATCHDOG_NS, &sent_), 0);                                     \
                MUST(now_ns() - sent_at_ < WATCHDOG_NS); /* woken, not found at the last look */                       \
                pattern_fill(sent_.data, sent_bytes_, sent_n_);                                                        \
                sent_.type = (uint32_t)sent_n_;                                                                        \
                MUST_BE(psyne_commit((e)->p, &sent_), 0);                                                              \
        } while (0)
/* Takes the next and looks at it, without releasing it. */
#define TAKE(e, m, n, bytes)                                                                                           \
        do {                                                                                                           \
                uint64_t want_n_ = (n);                                                                                \
                size_t want_bytes_ = (bytes);                                                                          \
                int64_t taken_at_ = now_ns();                                                                          \
                MUST_BE(psyne_recv((e)->c, m, WATCHDOG_NS), 0);                                                        \
                MUST(now_ns() - taken_at_ < WATCHDOG_NS); /* woken, not found at the last look */                      \
                MUST_BE((m)->type, (uint32_t)want_n_);                                                                 \
                MUST_BE((m)->len, want_bytes_);                                                                        \
                MUST((m)->cap >= (m)->len);                                                                            \
                MUST_BE((m)->lost, 0);                                                                                 \
                MUST(pattern_is((m)->data, want_bytes_, want_n_));                                                     \
        } while (0)
#define RECEIVE_FLAGGED(e, n, bytes, flagged)                                                                          \
        do {                                                                                                           \
                struct psyne_msg taken_;                                                                               \
                TAKE(e, &taken_, n, bytes);                                                                            \
                MUST_BE(taken_.flags, flagged);                                                                        \
                MUST_BE(psyne_release((e)->c, &taken_), 0);                                                            \
        } while (0)
#define RECEIVE(e, n, bytes) RECEIVE_FLAGGED(e, n, bytes, 0)

static inline uint64_t metric_(const struct psyne_channel *ch, size_t offset) {
        struct psyne_metrics m = {.struct_size = sizeof(m)};

        if (psyne_metrics(ch, &m) < 0)
                return UINT64_MAX;
        return *(const uint64_t *)(const void *)((const char *)&m + offset);
}
#define METRIC(ch, name) metric_(ch, offsetof(struct psyne_metrics, name))
#endif
