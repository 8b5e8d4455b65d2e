/* By a filter of libseccomp: see deny.h. */
#include "deny.h"

#include <errno.h>
#include <seccomp.h>

bool deny_uring(int error, bool enter_only) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
        uint32_t action = error ? SCMP_ACT_ERRNO((unsigned)error) : SCMP_ACT_KILL_PROCESS;
        int r;

        if (!filter)
                return false;
        r = seccomp_rule_add(filter, action, SCMP_SYS(io_uring_enter), 0);
        if (!r && !enter_only)
                r = seccomp_rule_add(filter, action, SCMP_SYS(io_uring_setup), 0);
        if (!r)
                r = seccomp_load(filter);
        seccomp_release(filter);
        return r == 0;
}
