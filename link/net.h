/*
 * Sockets for links: addresses, listening, connecting, and what the kernel is told about them. Everything is non-blocking
 * except the resolving of names.
 */
#ifndef PSYNE_LINK_NET_H
#define PSYNE_LINK_NET_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define NET_ADDRESSES_MAX 8
#define NET_TEXT_MAX 64

struct net_address {
        socklen_t bytes;
        struct sockaddr_storage at;
};

struct net_options {
        uint32_t send_buffer, receive_buffer; /* bytes; 0: the kernel adapts them by itself, which setting them ends */
        uint32_t user_timeout_ms;             /* unacknowledged for so long: the connection is over */
        bool quick_ack;                       /* its user calls net_acknowledge() after every read */
};

/* What the kernel really set, and what it measured. */
struct net_info {
        uint32_t send_buffer, receive_buffer, rtt_us, rtt_var_us, retransmits, unacked, mss, congestion_window;
        bool no_delay;
};

/* All addresses of @host (NULL or "": loopback) and @port, a number or a service's name. May ask name servers, and wait for
 * them. How many; -ENOENT, -EAGAIN, ... with a sentence. */
int net_resolve(const char *host, const char *port, bool to_listen, struct net_address ret[], unsigned n);
int net_listen(const struct net_address *at, const struct net_options *o, int *ret_fd);
int net_accept(int listener, const struct net_options *o, int *ret_fd); /* -EAGAIN: nobody is there */
/* 0: connected; -EINPROGRESS: *@ret_fd becomes writable once it is decided, and net_outcome() tells. */
int net_connect(const struct net_address *to, const struct net_options *o, int *ret_fd);
int net_outcome(int fd);
uint16_t net_port(int fd);
void net_set_port(struct net_address *a, uint16_t port);
void net_name(const struct net_address *a, char ret[NET_TEXT_MAX]); /* 127.0.0.1:4711, [::1]:4711 */
void net_peer(int fd, char ret[NET_TEXT_MAX]);
void net_acknowledge(int fd); /* what was read, now: the kernel may wait 40 ms for something to send it along with */
void net_look(int fd, struct net_info *ret);
#endif
