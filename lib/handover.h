/*
 * Handing file descriptors from one process to another: SOCK_SEQPACKET sockets beside the control file, one per
 * serving slot, called INODE.SLOT (the control file's inode in hexadecimal). One message is one record: it arrives
 * whole or not at all, with at most one descriptor. Nothing here blocks; every socket is non-blocking and CLOEXEC.
 *
 * Who is at the other end, and when it dies, is the kernel's word (credentials and pidfd of the connection); what it
 * sends is input.
 */
#ifndef PSYNE_HANDOVER_H
#define PSYNE_HANDOVER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct handover_peer {
        pid_t pid;
        uid_t uid; /* effective, when it connected or began to listen */
        gid_t gid;
        int pidfd; /* the caller closes it; -1: gone already, and nothing is left to watch, or */
        int refused; /* the errno for which there is none: hang-ups and locks must tell then; else 0 */
};

/*
 * Listens for @slot, which the caller holds: so a file of that name is a dead predecessor's and is replaced. Who may
 * connect is said by @mode (0600; the owner's bits at least). The name appears with the listener ready behind it.
 */
int handover_listen(int dirfd, uint64_t inode, unsigned slot, mode_t mode, int *ret_fd);

/* Takes the name away again; the caller still holds the slot. 0 also if there was none. */
int handover_unlink(int dirfd, uint64_t inode, unsigned slot);

/* Takes the names of all slots away, for a sweeper, who excludes them all. What cannot be removed stays. */
void handover_unlink_all(int dirfd, uint64_t inode);

/*
 * Connects without waiting for the other side to accept: messages can be sent at once and are kept for it.
 * -EAGAIN not answering (its queue is full: stopped, or overrun); -ENOENT nobody ever listened; -ECONNREFUSED who
 * listened is gone; -EACCES.
 */
int handover_connect(int dirfd, uint64_t inode, unsigned slot, int *ret_fd);

/* -EAGAIN nobody is waiting; -EMFILE or -ENFILE: the connection waits, but accepting again at once would spin. */
int handover_accept(int listen_fd, int *ret_fd);

/* Sends @n bytes, 1 or more, and a descriptor, which stays the caller's (-1: none). -EAGAIN; -EPIPE peer gone. */
int handover_send(int sock, const void *msg, size_t n, int fd);

/*
 * Receives one message of exactly @n bytes. With @ret_fd, one descriptor may come along: the caller closes it; -1 if
 * none did. Without, the kernel drops what was attached, so a peer can plant nothing.
 * -EAGAIN nothing there; -EPIPE peer gone; -EBADMSG another length or more descriptors than one: nothing is kept;
 * -EMFILE the message is consumed, but its descriptor found no place in our table.
 */
int handover_recv(int sock, void *buf, size_t n, int *ret_fd);

/* Asks the kernel who is at the other end of a connection. */
int handover_peer(int sock, struct handover_peer *ret);

/* The policy, for both ends: the same user, or root. */
bool handover_allowed(uid_t uid);
#endif
