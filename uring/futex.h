/* futex(2), shared: the engine where io_uring is refused or too old, and the only one a signal handler may use. */
#ifndef PSYNE_URING_FUTEX_H
#define PSYNE_URING_FUTEX_H
#include <stdint.h>

/* As park_wait() and park_wake() in park.h. */
int park_futex_wait(uint32_t *word, uint32_t expected, int64_t deadline_ns);
int park_futex_wake(uint32_t *word, int n);
#endif
