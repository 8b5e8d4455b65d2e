/*
 * Scope-bound clean-up: _cleanup_(f) calls f(&variable) when the variable leaves its scope. Every object
 * has a NULL form that its clean-up function accepts, so a half-built one unwinds by itself.
 */
#ifndef PSYNE_BASE_CLEANUP_H
#define PSYNE_BASE_CLEANUP_H
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

static inline void cleanup_freep(void *p) {
        free(*(void **)p);
}

static inline void cleanup_closep(int *fd) {
        if (*fd >= 0)
                close(*fd);
}

/* Hands the value out and leaves the NULL form behind, so the clean-up finds nothing to do. */
#define steal_ptr(p)                                                                                                   \
        ({                                                                                                             \
                __typeof__(p) *_pp = &(p);                                                                             \
                __typeof__(p) _v = *_pp;                                                                               \
                *_pp = NULL;                                                                                           \
                _v;                                                                                                    \
        })

static inline int steal_fd(int *fd) {
        int v = *fd;

        *fd = -1;
        return v;
}
#endif
