/*
 * No call of ours is a cancellation point (pthread_cancel()), because a thread that ends halfway through would leave a lock,
 * or a place in shared memory. libc's open(), close(), read() and many more are some, so calls that come to one say
 *
 *      CANCEL_HOLD;
 *
 * first: until the scope is left, whoever cancels this thread waits. On the way of every message there is none of them, and so
 * no hold; what has to be read or written there goes through syscall(), which is none.
 */
#ifndef PSYNE_BASE_CANCEL_H
#define PSYNE_BASE_CANCEL_H
#include <pthread.h>

#include "base/cleanup.h"

static inline int cancel_hold(void) {
        int before = PTHREAD_CANCEL_ENABLE;

        (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
        return before;
}

static inline void cancel_restorep(const int *before) {
        int ours;

        (void)pthread_setcancelstate(*before, &ours);
}

#define CANCEL_HOLD __attribute__((unused)) _cleanup_(cancel_restorep) const int cancel_held = cancel_hold()
#endif
