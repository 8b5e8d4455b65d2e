/*
 * Each system call of open, attach, producer_open and consumer_open fails once: a tracer counts those of the thread
 * that opens, and at the k-th puts an invalid number in its place and the error into its result; then the same with
 * k + 1, until a run needs no k-th call. The outcome has to be an error with a sentence, or success by another way
 * (and then messages flow); never a crash, a hang, or something left open.
 *
 * Only calls between two marks count: the marks are writes to descriptor -1. Three are treated apart: close() and
 * munmap() do their work and only say that they failed, because nobody can give back what these do not; futex() is left
 * alone, because here it is the C library's locks, where a wake that does not happen is a hang by definition.
 */
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <elf.h>
#include <unistd.h>

#include "support/world.h"

#if !defined(__x86_64__)
int main(void) {
        printf("SKIP: knows the registers of x86-64 only\n");
        return 77;
}
#else

#define MARK_BEGIN 0x6265 /* lengths of the writes */
#define MARK_END 0x656e

enum scenario { CREATE, ATTACH, MEMORY, N_SCENARIOS };
static const char *const scenario_names[] = {"ipc:// created", "ipc:// joined", "memory://"};

static void mark(size_t which) {
        syscall(SYS_write, -1, NULL, which);
}

static int once(enum scenario s, bool marked, int *ret) {
        const char *uri = s == MEMORY ? "memory://s?size=4096" : s == CREATE ? "ipc://c?size=4096" : "ipc://s?size=4096";
        struct psyne_channel *ch = NULL;
        struct psyne_producer *p = NULL;
        struct psyne_consumer *c = NULL;
        struct psyne_msg m;
        int r, bad = 0;

        psyne_set_wait(NULL, PSYNE_WAIT_DEFAULT);
        if (marked)
                mark(MARK_BEGIN);
        r = psyne_open(uri, NULL, &ch);
        if (r == 0)
                r = psyne_producer_open(ch, NULL, &p);
        if (r == 0)
                r = psyne_consumer_open(ch, NULL, &c);
        if (marked)
                mark(MARK_END);
        if (r < 0 && !sentence_is_new("psyne_set_wait: no endpoint or unknown strategy"))
                bad = 20;
        if (r == 0) { /* some other way was found: it has to work */
                int e = psyne_send(p, 5, "hello", 5, PSYNE_NOWAIT);

                if (e == 0)
                        e = psyne_recv(c, &m, SECOND);
                if (e < 0 || m.type != 5 || m.len != 5 || psyne_release(c, &m) < 0)
                        bad = 21;
        }
        psyne_producer_close(p);
        psyne_consumer_close(c);
        psyne_close(ch);
        *ret = r;
        return bad;
}

/* 0 refused, 1 done another way; 10.. what was wrong. */
static int traced(enum scenario s, const char *dir) {
        unsigned fds, maps, files;
        int r, result, bad;

        mallopt(M_ARENA_MAX, 1);
        alarm(20);
        for (int i = 0; i < 4; i++)
                if (once(s, false, &r) || r < 0)
                        return 10;
        fds = count_fds();
        maps = under_sanitizer() ? 0 : count_maps(NULL);
        files = count_files(dir);
        bad = once(s, true, &result);
        if (bad)
                return bad;
        if (count_fds() != fds) {
                print_fds();
                return 22;
        }
        if (!under_sanitizer() && count_maps(NULL) > maps) {
                print_maps();
                return 23;
        }
        if (count_files(dir) > files + (s == CREATE)) /* an entry that could not be removed is the next one's to sweep */
                return 24;
        /* And the next one finds all in order. */
        bad = once(s, false, &r);
        if (bad || r < 0)
                return 25;
        if (count_files(dir) > files + (s == CREATE))
                return 26;
        return result ? 0 : 1;
}

static bool regs_get(pid_t pid, struct user_regs_struct *regs) {
        struct iovec v = {regs, sizeof(*regs)};

        return ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &v) == 0;
}
static void regs_set(pid_t pid, struct user_regs_struct *regs) {
        struct iovec v = {regs, sizeof(*regs)};

        ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &v);
}

/* Runs the scenario with its k-th call failing. Returns the exit status, or -1 if there was no k-th. */
static int fail_kth(enum scenario s, const char *dir, unsigned k, int error, long *which) {
        bool inside = false, entry = true, hit = false, replaced = false;
        struct user_regs_struct regs;
        unsigned n = 0;
        int status;
        pid_t pid;

        fflush(NULL);
        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                ptrace(PTRACE_TRACEME, 0, NULL, NULL);
                raise(SIGSTOP);
                _exit(traced(s, dir));
        }
        if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
                return 30;
        ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
        ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
        for (;;) {
                int deliver = 0;

                if (waitpid(pid, &status, __WALL) != pid)
                        return 31;
                if (WIFEXITED(status))
                        return hit ? WEXITSTATUS(status) : WEXITSTATUS(status) > 1 ? WEXITSTATUS(status) : -1;
                if (WIFSIGNALED(status))
                        return 128 + WTERMSIG(status);
                if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
                        if (!regs_get(pid, &regs))
                                return 32;
                        if (entry && regs.orig_rax == SYS_write && (int)regs.rdi == -1) {
                                inside = regs.rdx == MARK_BEGIN;
                        } else if (entry && inside && !hit && regs.orig_rax != SYS_futex && ++n == k) {
                                *which = (long)regs.orig_rax;
                                if (regs.orig_rax != SYS_close && regs.orig_rax != SYS_munmap) {
                                        regs.orig_rax = (unsigned long)-1;
                                        regs_set(pid, &regs);
                                }
                                hit = replaced = true;
                        } else if (!entry && replaced) {
                                regs.rax = (unsigned long long)-(long long)error;
                                regs_set(pid, &regs);
                                replaced = false;
                        }
                        entry = !entry;
                } else
                        deliver = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
                ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(uintptr_t)deliver);
        }
}

static const char *name_of(long nr) {
        static char text[32];
        static const struct {
                long nr;
                const char *name;
        } names[] = {{SYS_openat, "openat"}, {SYS_mmap, "mmap"}, {SYS_munmap, "munmap"}, {SYS_close, "close"},
                {SYS_fstat, "fstat"}, {SYS_newfstatat, "newfstatat"}, {SYS_fstatfs, "fstatfs"}, {SYS_fcntl, "fcntl"},
                {SYS_fallocate, "fallocate"}, {SYS_ftruncate, "ftruncate"}, {SYS_linkat, "linkat"},
                {SYS_memfd_create, "memfd_create"}, {SYS_socket, "socket"}, {SYS_bind, "bind"}, {SYS_listen, "listen"},
                {SYS_renameat, "renameat"}, {SYS_unlinkat, "unlinkat"}, {SYS_io_uring_setup, "io_uring_setup"},
                {SYS_clone3, "clone3"}, {SYS_mprotect, "mprotect"}, {SYS_read, "read"}, {SYS_fchmod, "fchmod"},
                {SYS_fchmodat, "fchmodat"}, {SYS_getrandom, "getrandom"}, {SYS_futex, "futex"},
                {SYS_membarrier, "membarrier"}, {SYS_madvise, "madvise"}, {SYS_connect, "connect"},
                {SYS_sendmsg, "sendmsg"}, {SYS_getsockopt, "getsockopt"}, {SYS_epoll_ctl, "epoll_ctl"},
                {SYS_epoll_create1, "epoll_create1"}, {SYS_eventfd2, "eventfd2"},
                {SYS_io_uring_register, "io_uring_register"}, {SYS_io_uring_enter, "io_uring_enter"},
                {SYS_rt_sigprocmask, "rt_sigprocmask"}, {SYS_sysinfo, "sysinfo"}, {SYS_mbind, "mbind"},
                {SYS_geteuid, "geteuid"}, {SYS_getpid, "getpid"}, {SYS_gettid, "gettid"}};

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (names[i].nr == nr)
                        return names[i].name;
        snprintf(text, sizeof(text), "call %ld", nr);
        return text;
}

/* Somebody to join. */
static pid_t start_peer(void) {
        int ready[2];
        char byte;
        pid_t pid;

        if (pipe2(ready, O_CLOEXEC) < 0)
                return -1;
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
                struct psyne_channel *ch;

                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (psyne_open("ipc://s?size=4096", NULL, &ch) < 0 || write(ready[1], "r", 1) != 1)
                        _exit(1);
                for (;;)
                        pause();
        }
        close(ready[1]);
        if (read(ready[0], &byte, 1) != 1)
                pid = -1;
        close(ready[0]);
        return pid;
}

int main(int argc, char **argv) {
        static const int errors[] = {ENOMEM, EPERM, EMFILE, EINTR};
        unsigned only_k = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
        int failures = 0;
        char dir[64];
        pid_t peer;

        if (under_sanitizer()) {
                printf("SKIP: the sanitizer's own calls would be failed, too\n");
                return 77;
        }
        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        peer = start_peer();
        if (peer < 0)
                return 1;
        for (int s = 0; s < N_SCENARIOS; s++)
                for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
                        unsigned refused = 0, otherwise = 0, k;

                        if ((argc > 1 && atoi(argv[1]) != s) || (argc > 2 && atoi(argv[2]) != errors[e]))
                                continue;
                        for (k = only_k ? only_k : 1;; k++) {
                                long which = 0;
                                int r = fail_kth((enum scenario)s, dir, k, errors[e], &which);

                                if (r == -1)
                                        break;
                                if (r == 30 || r == 31 || r == 32) {
                                        printf("SKIP: ptrace is refused here\n");
                                        kill(peer, SIGKILL);
                                        remove_dir(dir);
                                        return 77;
                                }
                                refused += r == 0;
                                otherwise += r == 1;
                                if (r > 1) {
                                        printf("FAIL %s: call %u (%s) with %s: %d (%s)\n", scenario_names[s], k,
                                                name_of(which), strerrorname_np(errors[e]), r,
                                                r == 20   ? "no sentence"
                                                : r == 21 ? "succeeded, and no message flows"
                                                : r == 22 ? "descriptors leaked"
                                                : r == 23 ? "maps leaked"
                                                : r == 24 ? "files left"
                                                : r == 25 ? "the next open fails"
                                                : r == 26 ? "files left by the next"
                                                : r > 128 ? strsignal(r - 128)
                                                          : "?");
                                        failures++;
                                }
                                if (only_k)
                                        break;
                        }
                        printf("%-16s %-7s %3u calls failed once each: %3u refused, %3u done another way\n",
                                scenario_names[s], strerrorname_np(errors[e]), k - 1, refused, otherwise);
                        fflush(stdout);
                }
        kill(peer, SIGKILL);
        waitpid(peer, NULL, 0);
        remove_dir(dir);
        printf("%d failures\n", failures);
        return failures ? 1 : 0;
}
#endif
