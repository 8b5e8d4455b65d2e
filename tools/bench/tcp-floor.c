/*
 * tcp-floor.c: what the kernel's TCP allows over loopback: a socket per direction, send() and recv() around a buffer.
 *
 * A ping-pong sends each message by itself, and looks for the answer with non-blocking calls or sleeps in them, as the table
 * says. One way, messages are written into a buffer of 64 KiB (or one message, if it is longer) that is sent when it is
 * full, and read from one as large that recv() fills with what is there: nobody could have fewer calls per byte. Both sides
 * compute a crc32c of all that passes, as psyne does.
 */
#include "bench/impls.h"
#include "bench/loops.h"
#include "bench/tcp.h"
#include "link/protocol.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define FLOOR_BYTES 65536u

struct bare_tcp {
        struct bench_arena *arena;
        int listener, in, out; /* -1: none */
        unsigned char *out_bytes, *in_bytes;
        size_t bytes;       /* of either */
        size_t out_n;       /* written, and not sent */
        size_t in_at, in_n; /* taken; there */
        int receive_flags;
        bool at_once;
        uint32_t sum;       /* as if it were sent along and compared */
};

static void bare_tcp_free(struct bare_tcp *b) {
        const int fds[] = {b->listener, b->in, b->out};

        for (size_t i = 0; i < 3; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
        free(b->out_bytes);
        free(b->in_bytes);
        free(b);
}

static int tcp_socket(void) {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        return fd < 0 ? -errno : fd;
}

static int tcp_listen(struct bare_tcp *b, int direction) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t n = sizeof(at);

        b->listener = tcp_socket();
        if (b->listener < 0)
                return b->listener;
        if (bind(b->listener, (struct sockaddr *)&at, n) < 0 || listen(b->listener, 1) < 0 ||
                getsockname(b->listener, (struct sockaddr *)&at, &n) < 0)
                return -errno;
        *tcp_port(b->arena, direction) = ntohs(at.sin_port);
        return 0;
}

static int tcp_connect(struct bare_tcp *b, int direction) {
        const struct sockaddr_in at = {.sin_family = AF_INET,
                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                .sin_port = htons((uint16_t)*tcp_port(b->arena, direction))};
        const int on = 1;

        b->out = tcp_socket();
        if (b->out < 0)
                return b->out;
        return connect(b->out, (const struct sockaddr *)&at, sizeof(at)) < 0 ||
                               setsockopt(b->out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0
                       ? -errno
                       : 0;
}

static int tcp_floor_attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        struct bare_tcp *b = calloc(1, sizeof(*b));
        int r = 0;

        if (!b)
                return -ENOMEM;
        b->arena = arena;
        b->listener = b->in = b->out = -1;
        b->bytes = s->spec->size > FLOOR_BYTES ? s->spec->size : FLOOR_BYTES / s->spec->size * s->spec->size;
        b->out_bytes = malloc(b->bytes);
        b->in_bytes = malloc(b->bytes);
        b->at_once = s->spec->what == BENCH_LAT;
        b->receive_flags = s->spec->wait == BENCH_WAIT_SPIN ? MSG_DONTWAIT : 0;
        if (!b->out_bytes || !b->in_bytes)
                r = -ENOMEM;
        if (r == 0 && tcp_receives(s))
                r = tcp_listen(b, !s->side);
        if (r == 0 && tcp_sends(s) && s->side == BENCH_SIDE_B)
                r = tcp_connect(b, s->side);
        if (r < 0) {
                bare_tcp_free(b);
                return r;
        }
        snprintf(s->answer->obtained, sizeof(s->answer->obtained), "send(), recv()%s", b->at_once ? "" : ", crc32c");
        *ret = b;
        return 0;
}

__attribute__((noinline, cold, noreturn)) static void tcp_give_up(const char *call) {
        perror(call);
        _exit(EXIT_FAILURE);
}

LOOP_CALL void tcp_flush(struct bare_tcp *b) {
        if (!b->at_once)
                b->sum ^= link_crc32c(0, b->out_bytes, b->out_n);
        for (size_t done = 0; done < b->out_n;) {
                const ssize_t n = send(b->out, b->out_bytes + done, b->out_n - done, MSG_NOSIGNAL);

                if (n < 0)
                        tcp_give_up("send");
                done += (size_t)n;
        }
        b->out_n = 0;
}

LOOP_CALL void tcp_send(void *ctx, size_t size, uint64_t seq, unsigned n) {
        struct bare_tcp *b = ctx;

        for (unsigned i = 0; i < n; i++) {
                payload_fill(b->out_bytes + b->out_n, size, seq == PAYLOAD_STOP ? seq : seq + i);
                b->out_n += size;
                if (b->out_n == b->bytes || b->at_once || seq == PAYLOAD_STOP)
                        tcp_flush(b);
        }
}

LOOP_CALL void tcp_take(void *ctx, size_t size, struct payload_reader *t) {
        struct bare_tcp *b = ctx;

        while (b->in_n - b->in_at < size) {
                ssize_t n;

                if (b->in_at == b->in_n)
                        b->in_at = b->in_n = 0;
                else if (b->in_at && b->in_n == b->bytes) { /* its rest is to come */
                        memmove(b->in_bytes, b->in_bytes + b->in_at, b->in_n - b->in_at);
                        b->in_n -= b->in_at;
                        b->in_at = 0;
                }
                n = recv(b->in, b->in_bytes + b->in_n, b->bytes - b->in_n, b->receive_flags);
                if (n > 0) {
                        if (!b->at_once)
                                b->sum ^= link_crc32c(0, b->in_bytes + b->in_n, (size_t)n);
                        b->in_n += (size_t)n;
                }
                else if (n == 0 || errno != EAGAIN)
                        tcp_give_up("recv");
        }
        payload_take(t, b->in_bytes + b->in_at, size);
        b->in_at += size;
}

LOOP_RUN_DEFINE(tcp_floor_loops, tcp_send, tcp_take, tcp_send, tcp_take)

static void tcp_floor_run(void *ctx, struct bench_side *s) {
        struct bare_tcp *b = ctx;

        if (tcp_sends(s) && b->out < 0 && tcp_connect(b, s->side) < 0)
                tcp_give_up("connect");
        if (tcp_receives(s) && b->in < 0) {
                b->in = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC);
                if (b->in < 0)
                        tcp_give_up("accept");
        }
        tcp_floor_loops(ctx, s);
}

static void tcp_floor_detach(void *ctx, struct bench_side *s) {
        (void)s;
        bare_tcp_free(ctx);
}

const struct bench_impl impl_tcp_floor = {
        .name = "tcp-floor",
        .package = "-",
        .version = "-",
        .what = BENCH_LAT | BENCH_RATE,
        .calls = BENCH_SINGLE | BENCH_BULK,
        .modes = BENCH_PROCESSES,
        .waits = BENCH_WAIT_SPIN | BENCH_WAIT_BLOCK,
        .over = BENCH_TCP,
        .attach = tcp_floor_attach,
        .run = tcp_floor_run,
        .detach = tcp_floor_detach,
};
