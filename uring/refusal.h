/* Why the kernel refused io_uring, in words for a user, and what that user can do about it. */
#ifndef PSYNE_URING_REFUSAL_H
#define PSYNE_URING_REFUSAL_H

struct refusal {
        char why[192]; /* "io_uring_setup: EPERM, seccomp mode 2" */
        char fix[192]; /* a command or a setting; "" when there is none */
};

/* @call failed with the negative errno @error; looks at sysctl, seccomp and limits of this process for the cause. */
void refusal_explain(struct refusal *ret, const char *call, int error);
#endif
