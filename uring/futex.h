/* futex(2), shared, and poll(2): the engine where io_uring is refused or too old, and the only one a signal handler may use. */
#ifndef PSYNE_URING_FUTEX_H
#define PSYNE_URING_FUTEX_H
#include <stdint.h>

/* As park_wait(), park_wake() and park_wait_handle() in park.h. */
int park_futex_wait(uint32_t *word, uint32_t expected, int64_t deadline_ns);
int park_futex_wake(uint32_t *word, int n);
int park_poll_wait(int handle, int64_t deadline_ns);
#endif
