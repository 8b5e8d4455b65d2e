/* Time: nanoseconds on CLOCK_MONOTONIC, and deadlines made from relative timeouts. */
#ifndef PSYNE_BASE_CLOCK_H
#define PSYNE_BASE_CLOCK_H
#include <stdint.h>
#include <time.h>

#define CLOCK_FOREVER INT64_MAX /* a deadline that never comes */

static inline int64_t clock_ns(void) {
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail for this clock */
        return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* For people and files only: the wall clock may jump. */
static inline uint64_t clock_realtime_ns(void) {
        struct timespec ts;

        clock_gettime(CLOCK_REALTIME, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* timeout_ns < 0 waits for ever; sums that would overflow do too. */
static inline int64_t clock_deadline_ns(int64_t timeout_ns) {
        int64_t at;

        if (timeout_ns < 0 || __builtin_add_overflow(clock_ns(), timeout_ns, &at))
                return CLOCK_FOREVER;
        return at;
}

/* Raw ticks, for comparing two moments of one thread cheaply: a few per nanosecond on x86, see CLOCK_TICKS_PER_NS. */
static inline uint64_t clock_ticks(void) {
#if defined(__x86_64__)
        return __builtin_ia32_rdtsc();
#else
        return (uint64_t)clock_ns();
#endif
}
#if defined(__x86_64__)
#define CLOCK_TICKS_PER_NS 2.5 /* from 1.5 to 4 in practice: for thresholds that are rough themselves */
#else
#define CLOCK_TICKS_PER_NS 1.0
#endif

/* One step of a spin: tells the core that this is a wait loop, so that a sibling thread gets its share. */
static inline void cpu_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ __volatile__("isb" ::: "memory");
#else
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
#endif
}
#endif
