/*
 * tick.h: the processor's own counter, for intervals too short to ask the kernel about.
 *
 * One read costs some 15 ns and does not wait for earlier instructions to finish. That is what we want for a
 * round trip: the value that ends it was loaded before the read, and both readings are late by the same amount.
 * Ticks become nanoseconds only in reports; the driver measures the rate once and hands it to every worker.
 */
#ifndef PSYNE_BENCH_TICK_H
#define PSYNE_BENCH_TICK_H

#include <stdint.h>

static inline uint64_t tick_now(void) {
#if defined(__x86_64__)
        return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
        uint64_t t;

        __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
        return t;
#else
#error "psyne-bench reads x86-64's TSC or aarch64's cntvct"
#endif
}

/* Inside a spinning wait. */
static inline void tick_pause(void) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#else
        __asm__ volatile("yield");
#endif
}

/*
 * Between two looks of a spinning wait. How many pauses are best depends on the processor: on a Zen 4, looking without
 * any takes the line back from the writer before it is done, and a round trip goes from 94 to 125 ns; elsewhere a pause
 * is long. So the driver tries some for everybody whose waits are loops in an adapter, as it tries ring sizes.
 */
static inline void tick_pauses(uint32_t n) {
        for (; n; n--)
                tick_pause();
}

#endif
