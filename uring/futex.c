/*
 * futex(2) with the manners of park.h: absolute deadlines, and every handled signal is reported.
 *
 * Never FUTEX_PRIVATE_FLAG: a private futex is keyed by the address space, and its waiter would sleep through every
 * wake of another process.
 */
#include "uring/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "uring/park.h"

/*
 * CLOCK_FOREVER goes to the kernel as what it is, a deadline 292 years away, and not as "no timeout": a futex wait
 * without one is restarted silently after a handler installed with SA_RESTART, one with a deadline says EINTR.
 */
int park_futex_wait(uint32_t *word, uint32_t expected, int64_t deadline_ns) {
        int64_t at_ns = deadline_ns > 0 ? deadline_ns : 0; /* negative times are EINVAL, 0 is long past */
        struct timespec at = {.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000};
        int r;

        if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, &at, NULL, FUTEX_BITSET_MATCH_ANY) == 0)
                return 0;
        r = -errno;
        switch (r) {
        case -EAGAIN:
                return 0; /* the word has changed: what the caller waited for has happened */
        case -ETIMEDOUT:
                return -ETIME;
        default:
                return r;
        }
}

int park_futex_wake(uint32_t *word, int n) {
        long r;

        if (n <= 0)
                return 0; /* the kernel would wake one */
        r = syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
        return r < 0 ? -errno : (int)r;
}

int park_wake_signal_safe(uint32_t *word, int n) {
        int saved = errno; /* the interrupted code may be about to read it */
        int r;

        r = park_futex_wake(word, n);
        errno = saved;
        return r;
}
