/*
 * zmq-tcp.c: ZeroMQ over TCP: a PUSH and a PULL socket per direction, messages filled and read in the library's own buffers.
 * It batches by itself, in its I/O thread; the marks that hold a sender back are as high as the other rows' rings.
 */
#include <zmq.h>

#include "bench/loops.h"
#include "bench/tcp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct side {
        struct bench_arena *arena;
        void *context, *in, *out;
        int flags;
};

static void side_free(struct side *p) {
        if (p->in)
                zmq_close(p->in);
        if (p->out)
                zmq_close(p->out);
        if (p->context)
                zmq_ctx_term(p->context);
        free(p);
}

static void *socket_new(const struct bench_side *s, struct side *p, int type) {
        const int linger = 0, mark = (int)(s->spec->ring_bytes / s->spec->size);
        void *socket = zmq_socket(p->context, type);

        if (socket) {
                zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof(linger));
                zmq_setsockopt(socket, type == ZMQ_PUSH ? ZMQ_SNDHWM : ZMQ_RCVHWM, &mark, sizeof(mark));
        }
        return socket;
}

static int side_connect(const struct bench_side *s, struct side *p) {
        char uri[64];

        p->out = socket_new(s, p, ZMQ_PUSH);
        snprintf(uri, sizeof(uri), "tcp://" TCP_HOST ":%u", *tcp_port(p->arena, s->side));
        return p->out && zmq_connect(p->out, uri) == 0 ? 0 : -zmq_errno();
}

static int side_listen(const struct bench_side *s, struct side *p) {
        char uri[64];
        size_t n = sizeof(uri);
        const char *port;

        p->in = socket_new(s, p, ZMQ_PULL);
        if (!p->in || zmq_bind(p->in, "tcp://" TCP_HOST ":*") < 0 || zmq_getsockopt(p->in, ZMQ_LAST_ENDPOINT, uri, &n) < 0)
                return -zmq_errno();
        port = strrchr(uri, ':');
        *tcp_port(p->arena, !s->side) = (uint32_t)strtoul(port + 1, NULL, 10);
        return 0;
}

static int attach(struct bench_side *s, struct bench_arena *arena, void **ret) {
        struct side *p = calloc(1, sizeof(*p));
        int r = 0;

        if (!p)
                return -ENOMEM;
        p->arena = arena;
        p->flags = s->spec->wait == BENCH_WAIT_SPIN ? ZMQ_DONTWAIT : 0;
        bench_pin(s, false); /* its threads are not to run where this side spins */
        p->context = zmq_ctx_new();
        if (!p->context)
                r = -ENOMEM;
        if (r == 0 && tcp_receives(s))
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

static void give_up(const char *call) {
        fprintf(stderr, "%s: %s\n", call, zmq_strerror(zmq_errno()));
        _exit(EXIT_FAILURE);
}

LOOP_CALL void send_one(void *ctx, size_t size, uint64_t seq, unsigned n) {
        struct side *p = ctx;
        zmq_msg_t m;

        (void)n;
        if (zmq_msg_init_size(&m, size) < 0)
                give_up("zmq_msg_init_size");
        payload_fill(zmq_msg_data(&m), size, seq);
        while (zmq_msg_send(&m, p->out, p->flags) < 0)
                if (zmq_errno() != EAGAIN && zmq_errno() != EINTR)
                        give_up("zmq_msg_send");
}

LOOP_CALL void take_one(void *ctx, size_t size, struct payload_reader *t) {
        struct side *p = ctx;
        zmq_msg_t m;

        zmq_msg_init(&m);
        while (zmq_msg_recv(&m, p->in, p->flags) < 0)
                if (zmq_errno() != EAGAIN && zmq_errno() != EINTR)
                        give_up("zmq_msg_recv");
        if (zmq_msg_size(&m) != size)
                give_up("a message of another length");
        payload_take(t, zmq_msg_data(&m), size);
        zmq_msg_close(&m);
}

LOOP_RUN_DEFINE(loops, send_one, take_one, send_one, take_one)

static void run(void *ctx, struct bench_side *s) {
        struct side *p = ctx;

        if (tcp_sends(s) && !p->out) {
                int r;

                bench_pin(s, false);
                r = side_connect(s, p);
                bench_pin(s, true);
                if (r < 0)
                        give_up("zmq_connect");
        }
        loops(ctx, s);
}

static void detach(void *ctx, struct bench_side *s) {
        (void)s;
        side_free(ctx);
}

int main(int argc, char **argv) {
        static char version[16];
        static struct bench_impl impl = {
                .name = "zmq-tcp",
                .package = "libzmq3-dev",
                .version = version,
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
        int ret, major, minor, patch;

        zmq_version(&major, &minor, &patch);
        snprintf(version, sizeof(version), "%d.%d.%d", major, minor, patch);
        if (bench_worker_main(argc, argv, impls, 1, &ret))
                return ret;
        fprintf(stderr, "%s is an adapter: psyne-bench starts it\n", argv[0]);
        return EXIT_FAILURE;
}
