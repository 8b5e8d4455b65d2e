/*
 * Edges F-G and H-I on the machine at hand: store buffering. Waker and sleeper each store, then load what the other
 * stores; a wake is lost where both loads miss.
 *
 *      waker (F, H)                            sleeper (G, I)
 *      store commit word / position            set its bit
 *      psyne_lane_sleepers(): load the bitmap  heavy barrier: membarrier, or a fence where that is refused
 *                                              load commit word / position
 *
 * Three runs: with membarrier and a waker that only keeps the compiler still; with fences on both sides; and with
 * nothing, to see that this machine can lose a wake at all (reported, not asserted: the two may never meet).
 * Registered for membarrier here means GLOBAL_EXPEDITED, as the library does: it works between processes.
 *
 * litmus-wake [SECONDS for each run]. Exit 77 where there is one CPU only.
 */
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "support.h"

enum way { NOTHING, MEMBARRIER, FENCES };

/* One round's words, each on a line of its own; a fresh set per round, so nothing has to be put back. */
struct round {
        _Alignas(128) uint32_t commit;
        _Alignas(128) uint64_t sleepers;
};

#define ROUNDS 4096u
static struct round rounds[ROUNDS];
static uint8_t waker_saw[ROUNDS], sleeper_saw[ROUNDS];
static _Alignas(128) uint64_t waker_at;
static _Alignas(128) uint64_t sleeper_at;
static _Alignas(128) uint32_t stop;
static enum way way;

/* Both start a round at the same moment, as far as two CPUs can. False: over. */
static bool meet(uint64_t *mine, uint64_t *theirs, uint64_t n) {
        __atomic_store_n(mine, n, __ATOMIC_RELEASE);
        for (unsigned spins = 0; __atomic_load_n(theirs, __ATOMIC_ACQUIRE) < n; spins++) {
                if (__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
                        return false;
                if (spins > 10000) {
                        sched_yield(); /* the other is not running */
                        spins = 0;
                } else
                        cpu_pause();
        }
        return true;
}

static void *wake(void *arg) {
        (void)arg;
        for (uint64_t n = 1; meet(&waker_at, &sleeper_at, n); n++) {
                struct round *r = &rounds[n % ROUNDS];

                for (volatile unsigned wait = (unsigned)(n * 7 % 23); wait > 0; wait--)
                        ;
                __atomic_store_n(&r->commit, 64, PSYNE_ORDER_B);
                waker_saw[n % ROUNDS] = psyne_lane_sleepers(&r->sleepers, way == FENCES) != 0;
        }
        return NULL;
}

/* How many rounds, and how many of them lost the wake. */
static uint64_t sleep_rounds(int64_t until_ns, uint64_t *lost) {
        uint64_t n, checked = 1;

        *lost = 0;
        for (n = 1;; n++) {
                struct round *r = &rounds[n % ROUNDS];

                if (n % ROUNDS == 0 || clock_ns() >= until_ns) {
                        /* The waker waits for us at @n: everything before is finished. Count, and start over. */
                        while (__atomic_load_n(&waker_at, __ATOMIC_ACQUIRE) < n)
                                sched_yield();
                        for (; checked < n; checked++)
                                *lost += !waker_saw[checked % ROUNDS] && !sleeper_saw[checked % ROUNDS];
                        memset(rounds, 0, sizeof(rounds));
                        if (clock_ns() >= until_ns)
                                break;
                }
                if (!meet(&sleeper_at, &waker_at, n))
                        break;
                for (volatile unsigned wait = (unsigned)(n * 5 % 19); wait > 0; wait--)
                        ;
                if (way == MEMBARRIER) {
                        __atomic_fetch_or(&r->sleepers, 1, __ATOMIC_SEQ_CST);
                        if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) < 0)
                                abort();
                } else {
                        __atomic_fetch_or(&r->sleepers, 1, __ATOMIC_SEQ_CST);
                        if (way == FENCES)
                                __atomic_thread_fence(__ATOMIC_SEQ_CST);
                }
                sleeper_saw[n % ROUNDS] = __atomic_load_n(&r->commit, PSYNE_ORDER_C) != 0;
        }
        __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
        return n;
}

static uint64_t run(enum way w, const char *name, double seconds) {
        uint64_t n, lost;
        pthread_t waker;

        way = w;
        stop = 0;
        waker_at = sleeper_at = 0;
        memset(rounds, 0, sizeof(rounds));
        must(pthread_create(&waker, NULL, wake, NULL) == 0);
        n = sleep_rounds(clock_ns() + (int64_t)(seconds * 1e9), &lost);
        must(pthread_join(waker, NULL) == 0);
        printf("%-12s %10lu rounds, %lu wakes lost\n", name, n, lost);
        fflush(stdout);
        return lost;
}

int main(int argc, char **argv) {
        double seconds = argc > 1 ? strtod(argv[1], NULL) : 0.5;
        uint64_t lost = 0;
        cpu_set_t cpus;

        must(sched_getaffinity(0, sizeof(cpus), &cpus) == 0);
        if (CPU_COUNT(&cpus) < 2) {
                printf("one CPU: nothing to see\n");
                return 77;
        }
        lost += run(FENCES, "fences", seconds);
        if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0)
                lost += run(MEMBARRIER, "membarrier", seconds);
        else
                printf("membarrier   refused here: %s\n", strerror(errno));
        if (run(NOTHING, "nothing", seconds) == 0)
                printf("this machine lost none without a barrier either, this time\n");
        return lost ? 1 : 0;
}
