/*
 * See handover.h. Names are reached through /proc/self/fd/DIRFD/, because a socket address holds 108 bytes and a
 * directory may have any length; that also keeps us in the directory that was checked, whatever is renamed meanwhile.
 */
#include "lib/handover.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fault.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5; the same on every architecture psyne runs on */
#endif
#define BACKLOG 128 /* 64 producers and 64 readers may knock at once; somaxconn may say less */

/* Behind a name while its listener is being prepared. */
#define SUFFIX_NEW ".new"

struct filename {
        char text[16 + 1 + 10 + sizeof(SUFFIX_NEW)];
};

static struct filename filename(uint64_t inode, unsigned slot, const char *suffix) {
        struct filename f;

        snprintf(f.text, sizeof(f.text), "%" PRIx64 ".%u%s", inode, slot, suffix);
        return f;
}

static struct sockaddr_un address(int dirfd, const struct filename *f) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        int n;

        n = snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/%s", dirfd, f->text);
        assert(n > 0 && (size_t)n < sizeof(a.sun_path)); /* 14 + 10 + 1 + 31 at most */
        return a;
}

static int socket_new(int *ret_fd) {
        int fd;

        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return error_set(-errno, "no unix socket to be had: %m");
        *ret_fd = fd;
        return 0;
}

int handover_listen(int dirfd, uint64_t inode, unsigned slot, mode_t mode, int *ret_fd) {
        struct filename f = filename(inode, slot, ""), new = filename(inode, slot, SUFFIX_NEW);
        struct sockaddr_un a = address(dirfd, &new);
        _cleanup_(cleanup_closep) int fd = -1;
        int r;

        r = socket_new(&fd);
        if (r < 0)
                return r;
        /* The file inherits the socket's mode and so is never wider; a umask may narrow it, hence once more below. */
        if (fchmod(fd, mode) < 0)
                return error_set(-errno, "socket %s: mode %04o refused: %m", f.text, mode);
        if (unlinkat(dirfd, new.text, 0) < 0 && errno != ENOENT)
                return error_set(-errno, "stale socket %s cannot be removed: %m", new.text);
        if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
                return error_set(-errno, "socket %s cannot be made: %m", new.text);
        FAULT_POINT("handover-listen-bound");
        /*
         * Ready first, named second: who connects between bind() and listen() is refused and would take us for dead.
         * rename() also replaces a predecessor's file without a moment in which there is none.
         */
        if (fchmodat(dirfd, new.text, mode, 0) < 0 || listen(fd, BACKLOG) < 0 ||
                renameat(dirfd, new.text, dirfd, f.text) < 0) {
                r = error_set(-errno, "socket %s cannot be put up: %m", f.text);
                unlinkat(dirfd, new.text, 0);
                return r;
        }
        *ret_fd = steal_fd(&fd);
        return 0;
}

int handover_unlink(int dirfd, uint64_t inode, unsigned slot) {
        struct filename f = filename(inode, slot, "");

        if (unlinkat(dirfd, f.text, 0) < 0 && errno != ENOENT)
                return error_set(-errno, "socket %s cannot be removed: %m", f.text);
        return 0;
}

/* INODE.SLOT or INODE.SLOT.new? A control file always ends in .psy or .dead, so none is taken for a socket. */
static bool is_socket_of(const char *name, const char *prefix, size_t n_prefix) {
        size_t n_digits;

        if (strncmp(name, prefix, n_prefix) != 0)
                return false;
        n_digits = strspn(name + n_prefix, "0123456789");
        name += n_prefix + n_digits;
        return n_digits > 0 && (!name[0] || strcmp(name, SUFFIX_NEW) == 0);
}

void handover_unlink_all(int dirfd, uint64_t inode) {
        char prefix[16 + 2];
        struct dirent *entry;
        DIR *dir;
        int fd;

        /* Opened anew: the position of a directory stream belongs to the description, and dirfd's is the caller's. */
        fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return;
        dir = fdopendir(fd);
        if (!dir) {
                close(fd);
                return;
        }
        snprintf(prefix, sizeof(prefix), "%" PRIx64 ".", inode);
        while ((entry = readdir(dir))) {
                if (is_socket_of(entry->d_name, prefix, strlen(prefix)))
                        unlinkat(dirfd, entry->d_name, 0);
        }
        closedir(dir);
}

int handover_connect(int dirfd, uint64_t inode, unsigned slot, int *ret_fd) {
        struct filename f = filename(inode, slot, "");
        struct sockaddr_un a = address(dirfd, &f);
        _cleanup_(cleanup_closep) int fd = -1;
        int r;

        r = socket_new(&fd);
        if (r < 0)
                return r;
        /* With O_NONBLOCK a unix connect is done or refused at once: a full queue is EAGAIN, and there is no EINTR. */
        if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
                if (errno == EAGAIN)
                        return error_set(-EAGAIN, "slot %u is not answering: its queue of connections is full", slot);
                if (errno == ENOENT)
                        return error_set(-ENOENT, "slot %u has no socket (%s)", slot, f.text);
                if (errno == ECONNREFUSED)
                        return error_set(
                                -ECONNREFUSED, "nobody listens behind slot %u's socket (%s) any more", slot, f.text);
                return error_set(-errno, "slot %u cannot be connected to (%s): %m", slot, f.text);
        }
        *ret_fd = steal_fd(&fd);
        return 0;
}

int handover_accept(int listen_fd, int *ret_fd) {
        int fd;

        do {
                fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
        if (fd < 0)
                return error_set(-errno, "no connection to accept: %m");
        *ret_fd = fd;
        return 0;
}

int handover_send(int sock, const void *msg, size_t n, int fd) {
        union {
                struct cmsghdr header; /* for its alignment */
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = {.bytes = {0}};
        struct iovec iov = {.iov_base = (void *)(uintptr_t)msg, .iov_len = n};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
        ssize_t sent;

        assert(n > 0); /* an empty message cannot be told from a hang-up */
        if (fd >= 0) {
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
                m.msg_control = control.bytes;
                m.msg_controllen = sizeof(control.bytes);
        }
        do {
                sent = sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        } while (sent < 0 && errno == EINTR);
        if (sent < 0 && errno == EAGAIN)
                return error_set(-EAGAIN, "the peer is not reading: its queue of messages is full");
        if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
                return error_set(-EPIPE, "the peer hung up");
        if (sent < 0 && errno == ETOOMANYREFS)
                return error_set(-ETOOMANYREFS, "too many descriptors of this user are on their way (ulimit -n)");
        if (sent < 0)
                return error_set(-errno, "the message cannot be sent: %m");
        assert((size_t)sent == n); /* SEQPACKET: all or nothing */
        return 0;
}

/* The descriptor a message brought, or -1. The buffer never holds more than one. */
static int received_fd(struct msghdr *m) {
        struct cmsghdr *c = CMSG_FIRSTHDR(m);
        int fd = -1;

        if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
                memcpy(&fd, CMSG_DATA(c), sizeof(fd));
        return fd;
}

int handover_recv(int sock, void *buf, size_t n, int *ret_fd) {
        union {
                struct cmsghdr header; /* for its alignment */
                char bytes[CMSG_LEN(sizeof(int))];
        } control;
        struct iovec iov = {.iov_base = buf, .iov_len = n};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
        _cleanup_(cleanup_closep) int fd = -1;
        ssize_t got;

        if (ret_fd) {
                m.msg_control = &control;
                /* Not CMSG_SPACE() and not sizeof(control): both round up, and the kernel would fit a second one in. */
                m.msg_controllen = CMSG_LEN(sizeof(int));
        }
        do {
                got = recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        } while (got < 0 && errno == EINTR);
        if (got < 0 && errno == EAGAIN)
                return error_set(-EAGAIN, "no message is there");
        if (got < 0 && errno == ECONNRESET)
                return error_set(-EPIPE, "the peer hung up with messages of ours unread");
        if (got < 0)
                return error_set(-errno, "no message can be received: %m");
        if (ret_fd)
                fd = received_fd(&m);
        if (got == 0)
                return error_set(-EPIPE, "the peer hung up");
        if (ret_fd && (m.msg_flags & MSG_CTRUNC)) {
                if (fd < 0)
                        return error_set(-EMFILE, "the peer's descriptor finds no place in our table (ulimit -n)");
                return error_set(-EBADMSG, "the peer sent more than one descriptor");
        }
        if ((m.msg_flags & MSG_TRUNC) || (size_t)got != n)
                return error_set(-EBADMSG, "the peer sent a message of %s bytes than %zu",
                        (m.msg_flags & MSG_TRUNC) ? "more" : "fewer", n);
        if (ret_fd)
                *ret_fd = steal_fd(&fd);
        return 0;
}

static int peer_credentials(int sock, struct ucred *ret) {
        socklen_t n = sizeof(*ret);

        if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, ret, &n) < 0)
                return error_set(-errno, "the peer's credentials cannot be read: %m");
        return 0;
}

/*
 * Before Linux 6.5: a pidfd by number. The number may have passed to another process if the peer is dead; but as long
 * as the connection stands after we hold the pidfd, its process was there when we opened it. -1: it is gone, or a filter
 * refuses pidfds.
 */
static int pidfd_by_number(int sock, pid_t pid, int *ret_fd, int *refused) {
        struct pollfd p = {.fd = sock, .events = POLLRDHUP};
        _cleanup_(cleanup_closep) int fd = -1;
        struct ucred again;
        int r;

        if (pid <= 0) { /* of a name space that ours cannot see into */
                *ret_fd = -1;
                return 0;
        }
        fd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (fd < 0 && (errno == EPERM || errno == EACCES || errno == ENOSYS)) {
                *refused = errno;
                *ret_fd = -1;
                return 0;
        }
        if (fd < 0 && errno != ESRCH)
                return error_set(-errno, "no pidfd for process %d: %m", pid);
        if (poll(&p, 1, 0) < 0)
                return error_set(-errno, "the connection cannot be examined: %m");
        r = peer_credentials(sock, &again);
        if (r < 0)
                return r;
        *ret_fd = (p.revents & (POLLHUP | POLLRDHUP | POLLERR)) || again.pid != pid ? -1 : steal_fd(&fd);
        return 0;
}

int handover_peer(int sock, struct handover_peer *ret) {
        struct ucred cred;
        socklen_t n = sizeof(int);
        int pidfd = -1, refused = 0;
        int r;

        r = peer_credentials(sock, &cred);
        if (r < 0)
                return r;
        if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &n) < 0) {
                pidfd = -1;
                if (errno == ENOPROTOOPT || errno == EPERM || errno == EACCES || errno == ENOSYS) {
                        r = pidfd_by_number(sock, cred.pid, &pidfd, &refused);
                        if (r < 0)
                                return r;
                } else if (errno != ESRCH && errno != EINVAL && errno != ENODATA)
                        /* Those three: the peer is reaped, as different kernels put it. */
                        return error_set(-errno, "no pidfd for process %d: %m", cred.pid);
        }
        *ret = (struct handover_peer){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid, .pidfd = pidfd, .refused = refused};
        return 0;
}

bool handover_allowed(uid_t uid) {
        return uid == geteuid() || uid == 0;
}
