/*
 * A thread goes to sleep on a 32-bit word, another thread or process wakes it: the kernel's side of that, nothing more.
 * Who looks at what before sleeping, and which order makes it safe, is the caller's affair.
 *
 * Words may lie in any mapping (tmpfs, huge pages, read-only for the sleeper). The first two engines use one kernel
 * table of sleepers, so a process on one wakes a process on the other. Who sleeps by a handle says so, and every engine can
 * strike it.
 */
#ifndef PSYNE_URING_PARK_H
#define PSYNE_URING_PARK_H
#include <stdbool.h>
#include <stdint.h>

enum park_engine {
        PARK_NONE,  /* not decided */
        PARK_URING, /* futex operations through the thread's own io_uring */
        PARK_FUTEX, /* futex(2) */
        PARK_EVENTFD, /* where io_uring has no futex operations: handles that wakers write to, see bell.h */
};

/* engine */
enum park_engine park_probe(const char **why, const char **fix);
void park_force(enum park_engine e);
bool park_uring_allowed(void); /* false after park_force(PARK_FUTEX): the watch keeps off io_uring then, too */

/* sleeping and waking */
int park_prepare(void);
int park_wait(uint32_t *word, uint32_t expected, int64_t deadline_ns);
int park_wait_handle(int handle, const uint32_t *word, uint32_t expected, int64_t deadline_ns);
int park_wake(uint32_t *word, int n);
int park_wake_signal_safe(uint32_t *word, int n);

/* fork */
void park_after_fork_child(void);
#endif
