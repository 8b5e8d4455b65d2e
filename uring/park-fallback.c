/* Built without liburing: everything through futex(2). The descriptions stand in park.c. */
#include <stddef.h>

#include "uring/futex.h"
#include "uring/park.h"

enum park_engine park_probe(const char **why, const char **fix) {
        if (why)
                *why = "built without liburing";
        if (fix)
                *fix = "install liburing 2.3 or newer and build with -During=enabled";
        return PARK_FUTEX;
}

void park_force(enum park_engine e) {
        (void)e;
}

bool park_uring_allowed(void) {
        return false;
}

int park_prepare(void) {
        return 0;
}

int park_wait(uint32_t *word, uint32_t expected, int64_t deadline_ns) {
        return park_futex_wait(word, expected, deadline_ns);
}

int park_wait_handle(int handle, const uint32_t *word, uint32_t expected, int64_t deadline_ns) {
        return __atomic_load_n(word, __ATOMIC_RELAXED) != expected ? 0 : park_poll_wait(handle, deadline_ns);
}

int park_wake(uint32_t *word, int n) {
        return park_futex_wake(word, n);
}

void park_after_fork_child(void) {
}
