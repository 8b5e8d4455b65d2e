/* A receiver in a service that has an io_uring: adds up the numbers that come. */
#include <errno.h>
#include <liburing.h>
#include <psyne/psyne.h>
#include <stdio.h>

int main(int argc, char **argv) {
        struct io_uring ring;
        struct io_uring_sqe *sqe;
        struct io_uring_cqe *cqe;
        struct psyne_channel *channel;
        struct psyne_consumer *c;
        struct psyne_endpoint *e;
        struct psyne_msg m;
        long n = 0, sum = 0;
        int r;

        if (io_uring_queue_init(64, &ring, 0) < 0)
                return fprintf(stderr, "io_uring: no ring\n"), 1;
        if (psyne_open(argc > 1 ? argv[1] : "ipc://demo", NULL, &channel) < 0 ||
                psyne_consumer_open(channel, NULL, &c) < 0)
                return fprintf(stderr, "io_uring: %s\n", psyne_last_error()), 1;
        e = psyne_consumer_endpoint(c);
        for (;;) {
                /* A few at a time: the ring may have other completions to serve. */
                for (int i = 0; i < 64 && (r = psyne_recv(c, &m, PSYNE_NOWAIT)) == 0; i++) {
                        n++;
                        sum += *(const int *)m.data;
                        psyne_release(c, &m);
                }
                if (r < 0 && r != -EAGAIN)
                        break;
                sqe = io_uring_get_sqe(&ring); /* there is room: this loop has one request at a time */
                r = psyne_arm_sqe(e, sqe);     /* completes at once if there is more */
                if (r < 0)
                        break;
                io_uring_sqe_set_data(sqe, e);
                io_uring_submit(&ring);
                while (io_uring_wait_cqe(&ring, &cqe) == -EINTR)
                        ; /* a signal, or Ctrl-Z and fg */
                if (io_uring_cqe_get_data(cqe) == e)
                        psyne_complete(e, cqe);
                io_uring_cqe_seen(&ring, cqe);
        }
        printf("%ld messages, sum %ld\n", n, sum);
        if (r != -EPIPE) /* -EPIPE: the sender is gone and all it sent was received */
                fprintf(stderr, "io_uring: %s\n", psyne_last_error());
        io_uring_queue_exit(&ring);
        psyne_consumer_close(c);
        psyne_close(channel);
        return r != -EPIPE;
}
