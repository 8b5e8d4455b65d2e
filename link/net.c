/* See net.h. */
#include "link/net.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

#define BACKLOG 128
#define KEEPALIVE_IDLE_S 10 /* a peer whose host vanished is found by this, when nothing is on its way */
#define KEEPALIVE_EVERY_S 5
#define KEEPALIVE_TRIES 3

static int errno_of(int gai) {
        switch (gai) {
        case EAI_NONAME:
        case EAI_NODATA:
        case EAI_SERVICE:
        case EAI_ADDRFAMILY:
                return -ENOENT;
        case EAI_AGAIN:
                return -EAGAIN;
        case EAI_MEMORY:
                return -ENOMEM;
        case EAI_SYSTEM:
                return -errno;
        default:
                return -EINVAL;
        }
}

int net_resolve(const char *host, const char *port, bool to_listen, struct net_address ret[], unsigned n) {
        const struct addrinfo hints = {
                .ai_family = AF_UNSPEC,
                .ai_socktype = SOCK_STREAM,
                .ai_flags = to_listen ? AI_PASSIVE : 0,
        };
        struct addrinfo *found;
        unsigned got = 0;
        int r;

        if (!host || !host[0])
                host = "127.0.0.1";
        r = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &hints, &found);
        if (r != 0) {
                int e = errno_of(r);

                return error_set(e, "%s, port %s: %s", host, port, gai_strerror(r));
        }
        for (const struct addrinfo *i = found; i && got < n; i = i->ai_next) {
                if (i->ai_addrlen > sizeof(ret[got].at))
                        continue;
                ret[got].bytes = i->ai_addrlen;
                memcpy(&ret[got].at, i->ai_addr, i->ai_addrlen);
                got++;
        }
        freeaddrinfo(found);
        return got ? (int)got : error_set(-ENOENT, "%s, port %s: no address", host, port);
}

static int set(int fd, int level, int option, int value) {
        return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int get(int fd, int level, int option) {
        int value = 0;
        socklen_t n = sizeof(value);

        return getsockopt(fd, level, option, &value, &n) < 0 ? 0 : value;
}

/* Before connect() and listen(): the window's scale is agreed on then. */
static void set_buffers(int fd, const struct net_options *o) {
        if (o->send_buffer)
                (void)set(fd, SOL_SOCKET, SO_SNDBUF, (int)o->send_buffer);
        if (o->receive_buffer)
                (void)set(fd, SOL_SOCKET, SO_RCVBUF, (int)o->receive_buffer);
}

static void set_connection(int fd, const struct net_options *o) {
        (void)set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        (void)set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        (void)set(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
        (void)set(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_EVERY_S);
        (void)set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_TRIES);
        if (o->user_timeout_ms)
                (void)set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)o->user_timeout_ms);
}

int net_listen(const struct net_address *at, const struct net_options *o, int *ret_fd) {
        _cleanup_(cleanup_closep) int fd = socket(at->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        char text[NET_TEXT_MAX];

        net_name(at, text);
        if (fd < 0)
                return error_set(-errno, "a socket to listen on %s: %m", text);
        (void)set(fd, SOL_SOCKET, SO_REUSEADDR, 1); /* connections of a predecessor that linger are not in the way */
        if (at->at.ss_family == AF_INET6)
                (void)set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1); /* the other family has a socket of its own */
        set_buffers(fd, o);
        if (bind(fd, (const struct sockaddr *)&at->at, at->bytes) < 0)
                return error_set(-errno, "listening on %s: %m", text);
        if (listen(fd, BACKLOG) < 0)
                return error_set(-errno, "listening on %s: %m", text);
        *ret_fd = steal_fd(&fd);
        return 0;
}

int net_accept(int listener, const struct net_options *o, int *ret_fd) {
        int fd;

        do
                fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
        if (fd < 0)
                return error_set(-errno, "no connection can be accepted: %m");
        set_connection(fd, o);
        *ret_fd = fd;
        return 0;
}

int net_connect(const struct net_address *to, const struct net_options *o, int *ret_fd) {
        _cleanup_(cleanup_closep) int fd = socket(to->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        char text[NET_TEXT_MAX];
        int r = 0;

        net_name(to, text);
        if (fd < 0)
                return error_set(-errno, "a socket to connect to %s: %m", text);
        set_buffers(fd, o);
        set_connection(fd, o);
        if (connect(fd, (const struct sockaddr *)&to->at, to->bytes) < 0)
                r = -errno;
        if (r < 0 && r != -EINPROGRESS && r != -EINTR)
                return error_set(r, "connecting to %s: %s", text, strerror(-r));
        *ret_fd = steal_fd(&fd);
        return r < 0 ? -EINPROGRESS : 0;
}

int net_outcome(int fd) {
        struct sockaddr_storage self, peer;
        socklen_t n_self = sizeof(self), n_peer = sizeof(peer);
        int r = -get(fd, SOL_SOCKET, SO_ERROR);

        if (r < 0)
                return r;
        /* A connect to a free port of the local range may meet itself. */
        if (getsockname(fd, (struct sockaddr *)&self, &n_self) == 0 && getpeername(fd, (struct sockaddr *)&peer, &n_peer) == 0 &&
                n_self == n_peer && memcmp(&self, &peer, n_self) == 0)
                return -ECONNREFUSED;
        return 0;
}

uint16_t net_port(int fd) {
        struct sockaddr_storage a;
        socklen_t n = sizeof(a);

        if (getsockname(fd, (struct sockaddr *)&a, &n) < 0)
                return 0;
        return ntohs(a.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)(const void *)&a)->sin6_port
                                             : ((const struct sockaddr_in *)(const void *)&a)->sin_port);
}

void net_set_port(struct net_address *a, uint16_t port) {
        if (a->at.ss_family == AF_INET6)
                ((struct sockaddr_in6 *)(void *)&a->at)->sin6_port = htons(port);
        else
                ((struct sockaddr_in *)(void *)&a->at)->sin_port = htons(port);
}

void net_name(const struct net_address *a, char ret[NET_TEXT_MAX]) {
        char text[INET6_ADDRSTRLEN] = "?";

        if (a->at.ss_family == AF_INET6) {
                const struct sockaddr_in6 *in = (const void *)&a->at;

                (void)inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof(text));
                snprintf(ret, NET_TEXT_MAX, "[%s]:%u", text, ntohs(in->sin6_port));
        } else {
                const struct sockaddr_in *in = (const void *)&a->at;

                (void)inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
                snprintf(ret, NET_TEXT_MAX, "%s:%u", text, ntohs(in->sin_port));
        }
}

void net_peer(int fd, char ret[NET_TEXT_MAX]) {
        struct net_address a = {.bytes = sizeof(a.at)};

        if (getpeername(fd, (struct sockaddr *)&a.at, &a.bytes) < 0)
                snprintf(ret, NET_TEXT_MAX, "gone");
        else
                net_name(&a, ret);
}

void net_acknowledge(int fd) {
        (void)set(fd, IPPROTO_TCP, TCP_QUICKACK, 1);
}

void net_look(int fd, struct net_info *ret) {
        struct tcp_info t;
        socklen_t n = sizeof(t);

        *ret = (struct net_info){
                .send_buffer = (uint32_t)get(fd, SOL_SOCKET, SO_SNDBUF),
                .receive_buffer = (uint32_t)get(fd, SOL_SOCKET, SO_RCVBUF),
                .no_delay = get(fd, IPPROTO_TCP, TCP_NODELAY) != 0,
        };
        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &t, &n) < 0)
                return;
        ret->rtt_us = t.tcpi_rtt;
        ret->rtt_var_us = t.tcpi_rttvar;
        ret->retransmits = t.tcpi_total_retrans;
        ret->unacked = t.tcpi_unacked;
        ret->mss = t.tcpi_snd_mss;
        ret->congestion_window = t.tcpi_snd_cwnd;
}
