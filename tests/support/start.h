/*
 * Processes for tests with links. Who forks has no thread of the library yet: what that held (a lock of the sanitizer's allocator)
 * stays held in a child. So all processes are there first, and wait for a word in shared memory: a port, a turn.
 */
#ifndef PSYNE_TESTS_START_H
#define PSYNE_TESTS_START_H
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "support/world.h"

/* Until it is @least at least. 0, or -1 when the watchdog's time is over. */
static inline int await_word(const uint32_t *word, uint32_t least) {
        int64_t until = now_ns() + WATCHDOG_NS;

        for (; __atomic_load_n(word, __ATOMIC_ACQUIRE) < least; breathe())
                if (now_ns() > until)
                        return -1;
        return 0;
}

/* A process that runs once *@turn is @at, however long that takes, and that its parent takes with it. */
static inline pid_t start_at(const uint32_t *turn, uint32_t at, int (*run)(const char *uri, unsigned i), const char *uri, unsigned i) {
        pid_t pid;

        fflush(NULL);
        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) < at)
                        breathe();
                _exit(run(uri, i));
        }
        return pid;
}

static inline void next_turn(uint32_t *turn) {
        __atomic_fetch_add(turn, 1, __ATOMIC_RELEASE);
}
#endif
