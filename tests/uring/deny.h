/* Takes io_uring away from this process, as a container's seccomp profile does: with @error, or with death if 0. */
#ifndef PSYNE_TESTS_URING_DENY_H
#define PSYNE_TESTS_URING_DENY_H
#include <stdbool.h>

/* False: cannot be done here. */
bool deny_uring(int error, bool enter_only);
#endif
