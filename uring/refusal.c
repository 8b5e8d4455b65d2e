/*
 * From an errno to a cause. One number has several: EPERM alone is a sysctl, a seccomp filter or a security module,
 * and each is mended elsewhere. So we look at what this process can see of itself under /proc.
 */
#include "uring/refusal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"

static bool refusal_read(const char *path, char *ret, size_t size) {
        _cleanup_(cleanup_closep) int fd = -1;
        ssize_t n;

        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return false;
        n = read(fd, ret, size - 1);
        if (n < 0)
                return false;
        ret[n] = '\0';
        return true;
}

/* 0 none, 1 strict, 2 filter. From /proc, because prctl() itself may be filtered. */
static int refusal_seccomp_mode(void) {
        char status[4096]; /* some 1,500 bytes today */
        const char *line;
        int mode = 0;

        if (refusal_read("/proc/self/status", status, sizeof(status)) && (line = strstr(status, "\nSeccomp:")))
                sscanf(line, "\nSeccomp: %d", &mode);
        return mode;
}

/* 0 everyone may, 1 the io_uring group, 2 nobody; before 6.6 there is no such file, and so no restriction. */
static int refusal_sysctl(void) {
        char text[16];
        int value = 0;

        if (refusal_read("/proc/sys/kernel/io_uring_disabled", text, sizeof(text)))
                sscanf(text, "%d", &value);
        return value;
}

static void refusal_explain_denied(struct refusal *ret, const char *call, const char *name) {
        int disabled = refusal_sysctl(), seccomp = refusal_seccomp_mode();

        if (disabled) {
                snprintf(ret->why, sizeof(ret->why), "%s: %s, kernel.io_uring_disabled = %d", call, name, disabled);
                snprintf(ret->fix, sizeof(ret->fix),
                        disabled == 1 ? "sysctl -w kernel.io_uring_disabled=0, or join the group kernel.io_uring_group"
                                      : "sysctl -w kernel.io_uring_disabled=0");
        } else if (seccomp) {
                snprintf(ret->why, sizeof(ret->why), "%s: %s, seccomp mode %d", call, name, seccomp);
                snprintf(ret->fix, sizeof(ret->fix),
                        "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile "
                        "(containers: --security-opt seccomp=FILE)");
        } else {
                snprintf(ret->why, sizeof(ret->why), "%s: %s, probably a security module", call, name);
                snprintf(ret->fix, sizeof(ret->fix), "look for io_uring denials in the audit log");
        }
}

void refusal_explain(struct refusal *ret, const char *call, int error) {
        const char *name = strerrorname_np(-error);
        struct rlimit limit = {0};

        if (!name)
                name = "unknown error";
        ret->fix[0] = '\0';
        switch (error) {
        case -EPERM:
        case -EACCES:
                refusal_explain_denied(ret, call, name);
                return;
        case -ENOSYS:
                if (refusal_seccomp_mode()) { /* some profiles answer so, to look like an old kernel */
                        refusal_explain_denied(ret, call, name);
                        return;
                }
                snprintf(ret->why, sizeof(ret->why), "%s: %s, the kernel has no io_uring", call, name);
                snprintf(ret->fix, sizeof(ret->fix), "run Linux 6.7 or newer with CONFIG_IO_URING");
                return;
        case -EOPNOTSUPP: {
                struct utsname u = {0};

                uname(&u);
                snprintf(ret->why, sizeof(ret->why), "io_uring of kernel %.40s has no futex operations", u.release);
                snprintf(ret->fix, sizeof(ret->fix), "run Linux 6.7 or newer");
                return;
        }
        case -ENOMEM:
                getrlimit(RLIMIT_MEMLOCK, &limit);
                snprintf(ret->why, sizeof(ret->why), "%s: %s, memlock limit %llu KiB or out of memory", call, name,
                        (unsigned long long)limit.rlim_cur / 1024);
                snprintf(ret->fix, sizeof(ret->fix), "ulimit -l unlimited (LimitMEMLOCK= in systemd)");
                return;
        case -EMFILE:
                getrlimit(RLIMIT_NOFILE, &limit);
                snprintf(ret->why, sizeof(ret->why), "%s: %s, limit of %llu open files", call, name,
                        (unsigned long long)limit.rlim_cur);
                snprintf(ret->fix, sizeof(ret->fix), "ulimit -n (LimitNOFILE= in systemd)");
                return;
        case -ETIME:
                snprintf(ret->why, sizeof(ret->why), "%s: a wake did not reach its waiter within a second", call);
                return;
        default:
                snprintf(ret->why, sizeof(ret->why), "%s: %s", call, name);
                return;
        }
}
