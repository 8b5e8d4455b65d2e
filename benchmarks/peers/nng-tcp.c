/*
 * nng-tcp.c: nng over TCP: a push and a pull socket per direction, messages filled and read in the library's own buffers.
 */
#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>

#include "bench/loops.h"
#include "bench/tcp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BUFFER_MOST 8192 /* messages: what the library allows */

struct side {
        struct bench_arena *arena;
        nng_socket in, out;
        bool has_in, has_out;
        int flags;
};

static void side_free(struct side *p) {
        if (p->has_in)
                nng_close(p->in);
        if (p->has_out)
                nng_close(p->out);
        free(p);
}

static int depth(const struct bench_side *s) {
        const uint64_t n = s->spec->ring_bytes / s->spec->size;

        return n < BUFFER_MOST ? (int)n : BUFFER_MOST;
}

static int side_connect(const struct bench_side *s, struct side *p) {
        char uri[64];

        if (nng_push0_open(&p->out) != 0)
                return -ENOMEM;
        p->has_out = true;
        nng_socket_set_int(p->out, NNG_OPT_SENDBUF, depth(s));
        snprintf(uri, sizeof(uri), "tcp://" TCP_HOST ":%u", *tcp_port(p->arena, s->side));
        return nng_dial(p->out, uri, NULL, 0) == 0 ? 0 : -ECONNREFUSED;
}

static int side_listen(const struct bench_side *s, struct side *p) {
        nng_listener listener;
        nng_sockaddr at;

        if (nng_pull0_open(&p->in) != 0)
                return -ENOMEM;
        p->has_in = true;
        nng_socket_set_int(p->in, NNG_OPT_RECVBUF, depth(s));
        nng_socket_set_size(p->in, NNG_OPT_RECVMAXSZ, 0);
        if (nng_listen(p->in, "tcp://" TCP_HOST ":0", &listener, 0) != 0 || nng_listener_get_addr(listener, NNG_OPT_LOCADDR, &at) != 0)
                return -EADDRINUSE;
        *tcp_port(p->arena, !s->side) = __builtin_bswap16(at.s_in.sa_port);
        return 0;
}

static int attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        struct side *p = calloc(1, sizeof(*p));
        int r = 0;

        if (!p)
                return -ENOMEM;
        p->arena = arena;
        p->flags = s->spec->wait == BENCH_WAIT_SPIN ? NNG_FLAG_NONBLOCK : 0;
        bench_pin(s, false); /* its threads are not to run where this side spins */
        if (tcp_receives(s))
                r = side_listen(s, p);
        if (r == 0 && tcp_sends(s) && s->side == BENCH_SIDE_B)
                r = side_connect(s, p);
        bench_pin(s, true);
        if (r < 0) {
                side_free(p);
                return r;
        }
        *ret = p;
        return 0;
}

static void give_up(const char *call, int r) {
        fprintf(stderr, "%s: %s\n", call, nng_strerror(r));
        _exit(EXIT_FAILURE);
}

LOOP_CALL void send_one(void *ctx, size_t size, uint64_t seq, unsigned n) {
        struct side *p = ctx;
        nng_msg *m;
        int r;

        (void)n;
        r = nng_msg_alloc(&m, size);
        if (r != 0)
                give_up("nng_msg_alloc", r);
        payload_fill(nng_msg_body(m), size, seq);
        while ((r = nng_sendmsg(p->out, m, p->flags)) != 0)
                if (r != NNG_EAGAIN)
                        give_up("nng_sendmsg", r);
}

LOOP_CALL void take_one(void *ctx, size_t size, struct payload_reader *t) {
        struct side *p = ctx;
        nng_msg *m;
        int r;

        while ((r = nng_recvmsg(p->in, &m, p->flags)) != 0)
                if (r != NNG_EAGAIN)
                        give_up("nng_recvmsg", r);
        if (nng_msg_len(m) != size)
                give_up("a message of another length", 0);
        payload_take(t, nng_msg_body(m), size);
        nng_msg_free(m);
}

LOOP_RUN_DEFINE(loops, send_one, take_one, send_one, take_one)

static void run(void *ctx, struct bench_side *s) {
        struct side *p = ctx;

        if (tcp_sends(s) && !p->has_out) {
                int r;

                bench_pin(s, false);
                r = side_connect(s, p);
                bench_pin(s, true);
                if (r < 0)
                        give_up("nng_dial", NNG_ECONNREFUSED);
        }
        loops(ctx, s);
}

static void detach(void *ctx, struct bench_side *s) {
        (void)s;
        side_free(ctx);
}

int main(int argc, char **argv) {
        static struct bench_impl impl = {
                .name = "nng-tcp",
                .package = "libnng-dev",
                .what = BENCH_LAT | BENCH_RATE,
                .calls = BENCH_SINGLE,
                .modes = BENCH_PROCESSES,
                .waits = BENCH_WAIT_SPIN | BENCH_WAIT_BLOCK,
                .over = BENCH_TCP,
                .attach = attach,
                .run = run,
                .detach = detach,
        };
        const struct bench_impl *const impls[] = {&impl};
        int ret;

        impl.version = nng_version();
        if (bench_worker_main(argc, argv, impls, 1, &ret))
                return ret;
        fprintf(stderr, "%s is an adapter: psyne-bench starts it\n", argv[0]);
        return EXIT_FAILURE;
}
