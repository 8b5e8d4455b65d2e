/* futex.h: sleeping on a word that processes share. Never the private kind: the other side is another process. */
#ifndef PSYNE_BENCH_FUTEX_H
#define PSYNE_BENCH_FUTEX_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Sleeps while *word is seen; timeout_ns < 0 is for ever. 0, -EAGAIN (changed already), -EINTR or -ETIMEDOUT. */
static inline int futex_wait(uint32_t *word, uint32_t seen, int64_t timeout_ns) {
        struct timespec t = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};

        if (syscall(SYS_futex, word, FUTEX_WAIT, seen, timeout_ns < 0 ? NULL : &t, NULL, 0) < 0)
                return -errno;
        return 0;
}

static inline void futex_wake(uint32_t *word, int n) {
        syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
}

#endif
