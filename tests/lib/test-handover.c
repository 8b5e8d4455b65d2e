/*
 * Descriptors handed over between processes: to listeners that are stopped, from senders that are dead, and by peers
 * that cheat.
 */
#include "base/clock.h"
#include "base/error.h"
#include "lib/handover.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED 77
#define WATCHDOG_S 10
#define INODE UINT64_C(0xfedcba9876543210) /* the longest name there is */
#define PEERPIDFD 77                       /* SO_PEERPIDFD, which old headers lack */

static char base[64];
static int base_fd = -1;

static void setup(void) {
        strcpy(base, "/dev/shm/psyne-test-handover-XXXXXX");
        cr_assert_not_null(mkdtemp(base));
        base_fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        cr_assert_geq(base_fd, 0);
}

static void teardown(void) {
        char command[128];

        snprintf(command, sizeof(command), "rm -rf %s", base);
        cr_assert_eq(system(command), 0);
}

/* A skipped test does not get to its teardown. */
#define skip_test(reason)                                                                                              \
        do {                                                                                                           \
                teardown();                                                                                            \
                cr_skip_test(reason);                                                                                  \
        } while (0)

TestSuite(handover, .init = setup, .fini = teardown, .timeout = WATCHDOG_S);

/* ---- help ------------------------------------------------------------------------------------------------------ */

static unsigned fds_open(void) {
        unsigned n = 0;

        for (int fd = 0; fd < 1024; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

static unsigned files_in_base(void) {
        DIR *d = opendir(base);
        struct dirent *e;
        unsigned n = 0;

        while ((e = readdir(d)))
                n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
        closedir(d);
        return n;
}

static pid_t start(int (*body)(void *), void *ctx) {
        pid_t pid;

        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                alarm(WATCHDOG_S);
                _exit(body(ctx));
        }
        return pid;
}

/* Exit code, or 128 and the signal. */
static int ended(pid_t pid) {
        int status;

        if (pid < 0 || waitpid(pid, &status, 0) != pid)
                return 127;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int in_child(int (*body)(void *), void *ctx) {
        return ended(start(body, ctx));
}

static bool stopped(pid_t pid) {
        int status;

        return waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status);
}

/* Makes one system call fail; with value, only where that argument has it. */
static int refuse(int nr, int arg, uint32_t value, int error) {
        struct sock_filter filter[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, arg < 0 ? 2 : 0, 3),
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                        (uint32_t)(offsetof(struct seccomp_data, args) + 8 * (unsigned)(arg < 0 ? 0 : arg))),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
                return SKIPPED;
        return 0;
}

/* A connection as both sides see it. */
struct pair {
        int listener, client, server;
};

static struct pair connected(void) {
        struct pair p;

        cr_assert_eq(handover_listen(base_fd, INODE, 0, 0600, &p.listener), 0, "%s", error_get());
        cr_assert_eq(handover_connect(base_fd, INODE, 0, &p.client), 0, "%s", error_get());
        cr_assert_eq(handover_accept(p.listener, &p.server), 0, "%s", error_get());
        return p;
}

static void disconnect(struct pair *p) {
        close(p->server);
        close(p->client);
        close(p->listener);
}

/* Sends what handover_send() never would. */
static void send_raw(int sock, const void *msg, size_t n, const int fds[], size_t n_fds) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {0};
        struct iovec iov = {.iov_base = (void *)(uintptr_t)msg, .iov_len = n};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};
        struct cmsghdr *c = (struct cmsghdr *)control;

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
        m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        cr_assert_eq(sendmsg(sock, &m, MSG_NOSIGNAL), (ssize_t)n, "%m");
}

/* Is the write end of this pipe closed everywhere? Then whoever received it has kept nothing. */
static bool nobody_writes(int read_end) {
        struct pollfd p = {.fd = read_end, .events = POLLIN};

        return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP);
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

Test(handover, puts_up_a_name_with_its_mode_and_takes_it_away) {
        unsigned before = fds_open();
        struct stat st;
        mode_t mask;
        int fd;

        mask = umask(0777);
        cr_assert_eq(handover_listen(base_fd, INODE, 7, 0660, &fd), 0, "%s", error_get());
        umask(mask);
        cr_assert_eq(fstatat(base_fd, "fedcba9876543210.7", &st, 0), 0);
        cr_expect(S_ISSOCK(st.st_mode));
        cr_expect_eq(st.st_mode & 07777, 0660);
        cr_expect_eq(files_in_base(), 1);
        cr_expect_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        cr_expect_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
        close(fd);
        cr_expect_eq(handover_unlink(base_fd, INODE, 7), 0);
        cr_expect_eq(handover_unlink(base_fd, INODE, 7), 0);
        cr_expect_eq(files_in_base(), 0);
        cr_expect_eq(fds_open(), before);
}

Test(handover, tells_nobody_from_nobody_any_more) {
        unsigned before = fds_open();
        int listener, fd = 12345;

        cr_expect_eq(handover_connect(base_fd, INODE, 1, &fd), -ENOENT);
        cr_assert_eq(handover_listen(base_fd, INODE, 1, 0600, &listener), 0);
        close(listener);
        cr_expect_eq(handover_connect(base_fd, INODE, 1, &fd), -ECONNREFUSED);
        cr_expect_eq(handover_connect(base_fd, INODE, 2, &fd), -ENOENT);
        cr_expect_eq(fd, 12345);
        cr_expect_eq(fds_open(), before);

        /* The next holder of the slot takes over both the name and what its predecessor had not finished. */
        cr_assert_eq(linkat(base_fd, "fedcba9876543210.1", base_fd, "fedcba9876543210.1.new", 0), 0);
        cr_assert_eq(handover_listen(base_fd, INODE, 1, 0600, &listener), 0, "%s", error_get());
        cr_expect_eq(files_in_base(), 1);
        cr_expect_eq(handover_connect(base_fd, INODE, 1, &fd), 0);
        close(fd);
        close(listener);
}

Test(handover, sweeps_the_sockets_of_one_inode_only) {
        static const char *const mine[] = {"ab.0", "ab.63", "ab.7.new"};
        static const char *const others[] = {
                "ab.psy", "ab.dead", "ab.1.psy", "ab.", "ab.1x", "ab.1.newer", "abc.0", "a.0", "AB.0"};

        for (size_t i = 0; i < sizeof(mine) / sizeof(mine[0]); i++)
                cr_assert_eq(mknodat(base_fd, mine[i], S_IFSOCK | 0600, 0), 0);
        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
                cr_assert_eq(mknodat(base_fd, others[i], S_IFREG | 0600, 0), 0);
        for (unsigned twice = 0; twice < 2; twice++) { /* the second finds the caller's directory fd as it was */
                handover_unlink_all(base_fd, 0xab);
                cr_expect_eq(files_in_base(), sizeof(others) / sizeof(others[0]));
        }
}

/* A socket address holds 108 bytes, this path more than 600. */
Test(handover, works_in_directories_of_any_length) {
        int dir = dup(base_fd), listener, fd;
        char name[201];

        memset(name, 'd', sizeof(name) - 1);
        name[sizeof(name) - 1] = '\0';
        for (unsigned i = 0; i < 3; i++) {
                int next;

                cr_assert_eq(mkdirat(dir, name, 0700), 0);
                next = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                close(dir);
                dir = next;
        }
        cr_assert_eq(handover_listen(dir, INODE, 4294967295, 0600, &listener), 0, "%s", error_get());
        cr_assert_eq(handover_connect(dir, INODE, 4294967295, &fd), 0, "%s", error_get());
        close(fd);
        close(listener);
        close(dir);
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

Test(handover, hands_over_a_descriptor_and_keeps_the_senders) {
        unsigned before = fds_open();
        int memfd, got = -1;
        struct stat a, b;
        struct pair p;
        char buf[6];

        p = connected();
        cr_expect_eq(fcntl(p.client, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        cr_expect_eq(fcntl(p.server, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        cr_expect_eq(fcntl(p.client, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
        cr_expect_eq(fcntl(p.server, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
        memfd = memfd_create("test", MFD_CLOEXEC);

        cr_expect_eq(handover_recv(p.server, buf, 6, &got), -EAGAIN);
        cr_expect_eq(handover_accept(p.listener, &got), -EAGAIN);
        cr_expect_eq(got, -1);
        cr_expect_eq(handover_send(p.client, "first", 6, memfd), 0);
        cr_expect_eq(handover_send(p.client, "second", 7, -1), 0);
        cr_assert_eq(handover_recv(p.server, buf, 6, &got), 0, "%s", error_get());
        cr_expect_str_eq(buf, "first");
        cr_assert(fstat(memfd, &a) == 0 && fstat(got, &b) == 0);
        cr_expect_eq(a.st_ino, b.st_ino);
        cr_expect_eq(fcntl(got, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        close(got);
        close(memfd);

        close(p.client);
        {
                char seven[7];

                cr_assert_eq(handover_recv(p.server, seven, 7, NULL), 0); /* sent before the hang-up: it counts */
                cr_expect_str_eq(seven, "second");
        }
        cr_expect_eq(handover_recv(p.server, buf, 6, &got), -EPIPE);
        cr_expect_eq(handover_send(p.server, buf, 6, -1), -EPIPE, "and no SIGPIPE");
        close(p.server);
        close(p.listener);
        cr_expect_eq(fds_open(), before);
}

Test(handover, reports_a_message_without_a_descriptor) {
        struct pair p = connected();
        char buf[3] = "";
        int got = 12345;

        cr_expect_eq(handover_send(p.client, "no", 3, -1), 0);
        cr_expect_eq(handover_recv(p.server, buf, 3, &got), 0);
        cr_expect_eq(got, -1);
        cr_expect_str_eq(buf, "no");
        disconnect(&p);
}

/* Whoever keeps one of the descriptors by mistake keeps the pipe open, and leaks a number. */
Test(handover, keeps_nothing_of_a_message_it_refuses) {
        struct pair p = connected();
        unsigned before = fds_open();
        int got;
        static const struct {
                size_t n_sent, n_wanted;
                unsigned n_fds;
                bool takes_fd;
                int result;
        } cases[] = {
                {8, 8, 2, true, -EBADMSG},  /* two */
                {8, 8, 4, true, -EBADMSG},  /* four */
                {7, 8, 1, true, -EBADMSG},  /* short */
                {9, 8, 1, true, -EBADMSG},  /* long */
                {9, 8, 2, true, -EBADMSG},  /* both */
                {7, 8, 1, false, -EBADMSG}, /* short, plain */
                {9, 8, 1, false, -EBADMSG}, /* long, plain */
                {8, 8, 1, false, 0},        /* plain: the message is welcome, what hangs on it is not taken */
                {8, 8, 3, false, 0},        /* the same with three */
                {0, 8, 1, true, -EPIPE},    /* empty: looks like a hang-up */
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                char bytes[16] = "0123456789", buf[16] = "";
                int ends[2], fds[4], r;

                cr_assert_eq(pipe(ends), 0);
                for (unsigned k = 0; k < 4; k++)
                        fds[k] = ends[1];
                send_raw(p.client, bytes, cases[i].n_sent, fds, cases[i].n_fds);
                close(ends[1]);
                cr_assert(!nobody_writes(ends[0]), "the descriptors must be on their way");
                got = 12345;
                error_clear();
                r = handover_recv(p.server, buf, cases[i].n_wanted, cases[i].takes_fd ? &got : NULL);
                cr_expect_eq(r, cases[i].result, "case %zu: %d, %s", i, r, error_get());
                cr_expect_eq(got, 12345, "case %zu", i);
                cr_expect(nobody_writes(ends[0]), "case %zu: a descriptor was kept", i);
                cr_expect_eq(buf[8], '\0', "case %zu: written beyond the buffer", i);
                close(ends[0]);
                cr_expect_eq(fds_open(), before, "case %zu", i);

                /* And the connection still works. */
                cr_expect_eq(handover_send(p.client, "12345678", 8, -1), 0);
                cr_expect_eq(handover_recv(p.server, buf, 8, NULL), 0);
        }
        disconnect(&p);
}

Test(handover, does_not_block_a_sender_nobody_reads) {
        struct pair p = connected();
        char block[4096] = "";
        unsigned n = 0;
        int r;

        while ((r = handover_send(p.client, block, sizeof(block), -1)) == 0)
                cr_assert_lt(++n, 100000);
        cr_expect_eq(r, -EAGAIN);
        cr_expect_eq(handover_recv(p.server, block, sizeof(block), NULL), 0);
        disconnect(&p);
}

/* ---- peers that are stopped or dead ---------------------------------------------------------------------------- */

static int listen_and_stop(void *ctx) {
        int fd;

        (void)ctx;
        if (handover_listen(base_fd, INODE, 0, 0600, &fd) < 0)
                return 1;
        raise(SIGSTOP);
        return 0;
}

/* The queue fills, and then the answer is an error at once: this test hangs where connect would wait. */
Test(handover, says_at_once_that_a_stopped_listener_does_not_answer) {
        static int fds[512];
        unsigned n = 0;
        int r, fd = 12345;
        pid_t pid;

        pid = start(listen_and_stop, NULL);
        cr_assert(stopped(pid));
        while ((r = handover_connect(base_fd, INODE, 0, &fd)) == 0) {
                fds[n++] = fd;
                cr_assert_lt(n, 512, "no end of the queue");
        }
        cr_expect_eq(r, -EAGAIN, "%s", error_get());
        cr_expect(strstr(error_get(), "not answering"));
        cr_expect_gt(n, 64, "only %u may wait", n);
        kill(pid, SIGKILL);
        cr_expect_eq(ended(pid), 128 + SIGKILL);
        cr_expect_eq(handover_connect(base_fd, INODE, 0, &fd), -ECONNREFUSED);
        while (n > 0)
                close(fds[--n]);
}

/* Listens, is stopped, and afterwards must find everything its dead visitor left. */
static int serve_the_dead(void *ctx) {
        pid_t *visitor = ctx; /* shared with the test */
        struct handover_peer peer;
        char msg[8], content[8];
        int listener, sock, got;

        if (handover_listen(base_fd, INODE, 0, 0600, &listener) < 0)
                return 1;
        raise(SIGSTOP);
        if (handover_accept(listener, &sock) < 0)
                return 2;
        if (handover_peer(sock, &peer) < 0)
                return 3;
        if (peer.pid != *visitor || peer.uid != geteuid() || peer.gid != getegid())
                return 4;
        if (peer.pidfd >= 0) { /* where the kernel gives one for a reaped process, it must say dead */
                struct pollfd p = {.fd = peer.pidfd, .events = POLLIN};

                if (poll(&p, 1, 0) != 1)
                        return 5;
        }
        if (handover_recv(sock, msg, sizeof(msg), &got) < 0 || memcmp(msg, "testamen", 8) != 0)
                return 6;
        if (got < 0 || pread(got, content, 8, 0) != 8 || memcmp(content, "ring ...", 8) != 0)
                return 7;
        if (handover_recv(sock, msg, sizeof(msg), &got) != -EPIPE)
                return 8;
        return 0;
}

static int visit_and_die(void *ctx) {
        int sock, memfd = memfd_create("ring", MFD_CLOEXEC);

        (void)ctx;
        if (write(memfd, "ring ...", 8) != 8)
                return 1;
        if (handover_connect(base_fd, INODE, 0, &sock) < 0)
                return 2;
        if (handover_send(sock, "testamen", 8, memfd) < 0)
                return 3;
        raise(SIGKILL);
        return 4;
}

/*
 * Why a producer can hand its ring to a reader that is stopped, and be killed: the kernel keeps connection, message and
 * descriptor until the listener gets to them.
 */
Test(handover, delivers_what_a_killed_sender_left_at_a_stopped_listener) {
        pid_t server, *visitor;

        visitor = mmap(NULL, sizeof(*visitor), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        server = start(serve_the_dead, visitor);
        cr_assert(stopped(server));
        *visitor = start(visit_and_die, NULL);
        cr_assert_eq(ended(*visitor), 128 + SIGKILL); /* reaped: not even a zombie is left */
        kill(server, SIGCONT);
        cr_expect_eq(ended(server), 0);
        munmap(visitor, sizeof(*visitor));
}

/* ---- who is there ---------------------------------------------------------------------------------------------- */

static int connect_and_stay(void *ctx) {
        int sock;

        (void)ctx;
        if (handover_connect(base_fd, INODE, 0, &sock) < 0)
                return 1;
        raise(SIGSTOP);
        pause();
        return 2;
}

/* Accepts a child's connection, asks who it is, kills it and sees that by the pidfd. */
static int watch_a_peer_die(void *ctx) {
        struct handover_peer peer;
        int listener, sock, r;
        struct pollfd p;
        pid_t pid;

        (void)ctx;
        if (handover_listen(base_fd, INODE, 0, 0600, &listener) < 0)
                return 1;
        pid = start(connect_and_stay, NULL);
        if (!stopped(pid) || handover_accept(listener, &sock) < 0)
                return 2;
        r = handover_peer(sock, &peer);
        if (r < 0 || peer.pid != pid || peer.uid != geteuid() || peer.pidfd < 0)
                return 3;
        if (!(fcntl(peer.pidfd, F_GETFD) & FD_CLOEXEC))
                return 4;
        p = (struct pollfd){.fd = peer.pidfd, .events = POLLIN};
        if (poll(&p, 1, 0) != 0) /* stopped is not dead */
                return 5;
        kill(pid, SIGKILL);
        if (poll(&p, 1, WATCHDOG_S * 1000) != 1)
                return 6;
        close(peer.pidfd);
        if (ended(pid) != 128 + SIGKILL)
                return 7;

        /* Dead and reaped: the credentials stand, and a pidfd, if there is one at all, is not somebody else's. */
        r = handover_peer(sock, &peer);
        if (r < 0 || peer.pid != pid)
                return 8;
        if (peer.pidfd >= 0) {
                p.fd = peer.pidfd;
                if (poll(&p, 1, 0) != 1)
                        return 9;
                close(peer.pidfd);
        }
        close(sock);
        close(listener);
        return 0;
}

Test(handover, knows_its_peer_and_sees_it_die) {
        cr_expect_eq(in_child(watch_a_peer_die, NULL), 0);
}

static int watch_on_an_old_kernel(void *ctx) {
        unsigned before = fds_open();
        int r = refuse(SYS_getsockopt, 2, PEERPIDFD, ENOPROTOOPT);

        if (r)
                return r;
        r = watch_a_peer_die(ctx);
        return r ? r : fds_open() == before ? 0 : 10;
}

/* A kernel before 6.5 is played by a filter that does not know the socket option. */
Test(handover, knows_its_peer_on_kernels_without_the_option) {
        int code = in_child(watch_on_an_old_kernel, NULL);

        if (code == SKIPPED)
                skip_test("no seccomp filters here");
        cr_expect_eq(code, 0, "step %d", code);
}

/*
 * The number of a dead peer may long be another's. We play that by killing the connection but not the process: its
 * number is valid, and yet must not be believed any more.
 */
static int doubt_a_number(void *ctx) {
        struct handover_peer peer;
        int listener, client, server, r;
        unsigned before;

        (void)ctx;
        if (handover_listen(base_fd, INODE, 0, 0600, &listener) < 0 ||
                handover_connect(base_fd, INODE, 0, &client) < 0 || handover_accept(listener, &server) < 0)
                return 1;
        close(client);
        r = refuse(SYS_getsockopt, 2, PEERPIDFD, ENOPROTOOPT);
        if (r)
                return r;
        before = fds_open();
        if (handover_peer(server, &peer) < 0 || peer.pid != getpid() || peer.pidfd != -1)
                return 2;
        return fds_open() == before ? 0 : 3;
}

Test(handover, doubts_a_process_number_without_its_connection) {
        int code = in_child(doubt_a_number, NULL);

        if (code == SKIPPED)
                skip_test("no seccomp filters here");
        cr_expect_eq(code, 0, "step %d", code);
}

static int allowed_as_a_user(void *ctx) {
        (void)ctx;
        if (geteuid() != 0 || setresuid(4711, 4711, 4711) < 0)
                return SKIPPED;
        return handover_allowed(4711) && handover_allowed(0) && !handover_allowed(4712) ? 0 : 1;
}

Test(handover, allows_the_same_user_and_root) {
        int code;

        cr_expect(handover_allowed(geteuid()));
        cr_expect(handover_allowed(0));
        cr_expect(!handover_allowed(geteuid() + 1));
        code = in_child(allowed_as_a_user, NULL);
        if (code == SKIPPED)
                skip_test("only root can become somebody else");
        cr_expect_eq(code, 0);
}

static int connect_as_a_stranger(void *ctx) {
        int fd;

        (void)ctx;
        if (geteuid() != 0 || setresuid(4711, 4711, 4711) < 0)
                return SKIPPED;
        return handover_connect(base_fd, INODE, 0, &fd) == -EACCES ? 0 : 1;
}

Test(handover, lets_the_sockets_mode_keep_strangers_out) {
        int listener, code;

        cr_assert_eq(chmod(base, 0755), 0);
        cr_assert_eq(handover_listen(base_fd, INODE, 0, 0600, &listener), 0);
        code = in_child(connect_as_a_stranger, NULL);
        close(listener);
        if (code == SKIPPED)
                skip_test("only root can become somebody else");
        cr_expect_eq(code, 0);
}

/* ---- failing system calls -------------------------------------------------------------------------------------- */

static void limit_fds(int n) {
        struct rlimit limit = {.rlim_cur = (rlim_t)n, .rlim_max = 1024};

        setrlimit(RLIMIT_NOFILE, &limit);
}

static int without_descriptors(void *ctx) {
        int listener, client, server, got = 12345, memfd = memfd_create("x", MFD_CLOEXEC), lowest;
        struct handover_peer peer;
        unsigned before;
        char buf[2];

        (void)ctx;
        limit_fds(1024);
        if (handover_listen(base_fd, INODE, 0, 0600, &listener) < 0 ||
                handover_connect(base_fd, INODE, 0, &client) < 0 || handover_accept(listener, &server) < 0 ||
                handover_send(client, "a", 2, memfd) < 0 || handover_send(client, "b", 2, memfd) < 0)
                return 1;
        if (handover_connect(base_fd, INODE, 0, &got) < 0) /* this one waits to be accepted */
                return 2;
        close(got);
        got = 12345;
        lowest = dup(0);
        close(lowest);
        before = fds_open();

        limit_fds(lowest);
        if (handover_recv(server, buf, 2, &got) != -EMFILE || got != 12345)
                return 3;
        if (handover_accept(listener, &got) != -EMFILE)
                return 4;
        if (handover_listen(base_fd, INODE, 1, 0600, &got) != -EMFILE ||
                faccessat(base_fd, "fedcba9876543210.1", F_OK, 0) == 0)
                return 5;
        if (handover_connect(base_fd, INODE, 0, &got) != -EMFILE)
                return 6;
        if (handover_peer(server, &peer) != -EMFILE) /* not taken for a dead peer */
                return 7;
        handover_unlink_all(base_fd, INODE); /* may do nothing, must not crash */
        limit_fds(1024);
        if (fds_open() != before || got != 12345)
                return 8;
        /* And nothing is spoilt: the next message and the waiting connection are there. */
        if (handover_recv(server, buf, 2, &got) < 0 || buf[0] != 'b' || got < 0)
                return 9;
        if (handover_accept(listener, &got) < 0)
                return 10;
        return 0;
}

Test(handover, reports_a_full_descriptor_table_and_recovers) {
        cr_expect_eq(in_child(without_descriptors, NULL), 0);
}

struct refusal {
        int nr, error;
};

static int listen_refused(void *ctx) {
        const struct refusal *f = ctx;
        int fd = 12345, r;
        unsigned before;

        before = fds_open();
        r = refuse(f->nr, -1, 0, f->error);
        if (r)
                return r;
        if (handover_listen(base_fd, INODE, 0, 0600, &fd) != -f->error)
                return 1;
        if (fd != 12345 || fds_open() != before)
                return 2;
        return strstr(error_get(), "socket") ? 0 : 3;
}

Test(handover, leaves_nothing_behind_when_a_system_call_fails) {
        static struct refusal refusals[] = {
                {SYS_socket, EAFNOSUPPORT},
                {SYS_fchmod, EPERM},
                {SYS_bind, ENOSPC},
                {SYS_fchmodat, EPERM},
                {SYS_listen, EIO},
                {SYS_renameat, EIO},
        };

        for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
                int code = in_child(listen_refused, &refusals[i]);

                if (code == SKIPPED)
                        skip_test("no seccomp filters here");
                cr_expect_eq(code, 0, "case %zu: step %d", i, code);
                cr_expect_eq(files_in_base(), 0, "case %zu", i);
        }
}
