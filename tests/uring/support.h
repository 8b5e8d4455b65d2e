/* What the tests of this room share. Everything waits for a condition, under a watchdog that kills the test. */
#ifndef PSYNE_TESTS_URING_SUPPORT_H
#define PSYNE_TESTS_URING_SUPPORT_H
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

#define SECOND_NS 1000000000ll

/* A test that hangs dies of SIGALRM instead. */
#define WATCHDOG_S 10

static inline unsigned count_fds(void) {
        DIR *d = opendir("/proc/self/fd");
        unsigned n = 0;

        while (readdir(d))
                ++n;
        closedir(d);
        return n;
}

/* Is this thread asleep in the kernel? The third field of its stat, behind the name in parentheses. */
static inline bool thread_sleeps(pid_t pid, pid_t tid) {
        char path[64], text[512] = "", *p;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
        f = fopen(path, "re");
        if (!f)
                return false;
        p = fgets(text, sizeof(text), f) ? strrchr(text, ')') : NULL;
        fclose(f);
        return p && p[1] && p[2] == 'S';
}

/* The system call a thread is in, -1 when running, or -2 when we may not know. */
static inline long thread_syscall(pid_t pid, pid_t tid) {
        char path[64];
        FILE *f;
        long nr = -2;

        snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
        f = fopen(path, "re");
        if (!f)
                return -2;
        if (fscanf(f, "%ld", &nr) != 1)
                nr = errno ? -2 : -1; /* "running" is no number */
        fclose(f);
        return nr;
}

/* Until it sleeps in that very system call: a fallback nobody asked for ends in the watchdog. */
static inline void await_sleep(pid_t pid, pid_t tid, long nr) {
        for (;;) {
                if (thread_sleeps(pid, tid)) {
                        long in;

                        errno = 0;
                        in = thread_syscall(pid, tid);
                        if (in == nr || in == -2)
                                return;
                }
                sched_yield();
        }
}

/* Memory two processes share. */
static inline uint32_t *map_words(void) {
        int fd = memfd_create("test-words", MFD_CLOEXEC);
        void *p;

        if (fd < 0 || ftruncate(fd, 4096) < 0)
                abort();
        p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (p == MAP_FAILED)
                abort();
        return p;
}

/* fork() whose child dies with the test, also when the watchdog ends it, and so never outlives it. */
static inline pid_t fork_child(void) {
        pid_t parent = getpid(), pid = fork();

        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() != parent)
                        _exit(1);
        }
        return pid;
}

static inline int await_exit(pid_t pid) {
        int status;

        if (waitpid(pid, &status, 0) != pid)
                return -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
#endif
