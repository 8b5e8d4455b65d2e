/*
 * futex(2) with the manners of park.h: absolute deadlines, and every handled signal is reported.
 *
 * Never FUTEX_PRIVATE_FLAG: a private futex is keyed by the address space, and its waiter would sleep through every
 * wake of another process.
 */
#include "uring/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
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

/* Until the eventfd @handle is struck; then it is quiet again. Any signal handler that ran is reported. */
int park_poll_wait(int handle, int64_t deadline_ns) {
        int64_t left_ns = deadline_ns == CLOCK_FOREVER || deadline_ns <= 0 ? 0 : deadline_ns - clock_ns();
        struct timespec timeout = {.tv_sec = left_ns > 0 ? left_ns / 1000000000 : 0,
                .tv_nsec = left_ns > 0 ? left_ns % 1000000000 : 0};
        struct pollfd p = {.fd = handle, .events = POLLIN};
        uint64_t sink;
        int n = (int)syscall(SYS_ppoll, &p, 1, deadline_ns == CLOCK_FOREVER ? NULL : &timeout, NULL, (size_t)0);

        if (n < 0)
                return -errno;
        if (n == 0)
                return -ETIME;
        (void)syscall(SYS_read, handle, &sink, sizeof(sink));
        return 0;
}
