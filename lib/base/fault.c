/* See fault.h. The environment is read once per point and process; counting is atomic because threads share it. */
#include "base/fault.h"

#ifdef PSYNE_FAULT_POINTS
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((visibility("default"))) void psyne_fault_point(const char *name) {
        static unsigned passed;
        const char *want = getenv("PSYNE_FAULT");
        size_t len = strlen(name);
        unsigned k = 1;

        if (!want || strncmp(want, name, len) != 0 || (want[len] != '\0' && want[len] != ':'))
                return;
        if (want[len] == ':')
                k = (unsigned)strtoul(want + len + 1, NULL, 10);
        if (__atomic_add_fetch(&passed, 1, __ATOMIC_RELAXED) != k)
                return;
        raise(getenv("PSYNE_FAULT_STOP") ? SIGSTOP : SIGKILL); /* of this thread: it takes not one step more */
}
#endif
