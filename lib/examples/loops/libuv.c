/* A receiver in libuv's loop: adds up the numbers that come. */
#include <errno.h>
#include <psyne/psyne.h>
#include <stdio.h>
#include <uv.h>

static struct psyne_consumer *c;
static long n, sum;
static int result;

static void on_readable(uv_poll_t *handle, int status, int events) {
        struct psyne_msg m;

        (void)status;
        (void)events;
        /* A few at a time: the loop may have others to serve. */
        for (int i = 0; i < 64 && (result = psyne_recv(c, &m, PSYNE_NOWAIT)) == 0; i++) {
                n++;
                sum += *(const int *)m.data;
                psyne_release(c, &m);
        }
        if (result == 0 || result == -EAGAIN)
                result = psyne_arm(psyne_consumer_endpoint(c)); /* readable at once if there is more */
        if (result < 0)
                uv_close((uv_handle_t *)handle, NULL); /* the loop ends with its last handle */
}

int main(int argc, char **argv) {
        struct psyne_channel *channel;
        uv_poll_t handle;

        if (psyne_open(argc > 1 ? argv[1] : "ipc://demo", NULL, &channel) < 0 ||
                psyne_consumer_open(channel, NULL, &c) < 0)
                return fprintf(stderr, "libuv: %s\n", psyne_last_error()), 1;
        uv_poll_init(uv_default_loop(), &handle, psyne_fd(psyne_consumer_endpoint(c)));
        uv_poll_start(&handle, UV_READABLE, on_readable);
        psyne_arm(psyne_consumer_endpoint(c));
        uv_run(uv_default_loop(), UV_RUN_DEFAULT);
        printf("%ld messages, sum %ld\n", n, sum);
        if (result != -EPIPE) /* -EPIPE: the sender is gone and all it sent was received */
                fprintf(stderr, "libuv: %s\n", psyne_last_error());
        psyne_consumer_close(c);
        psyne_close(channel);
        return result != -EPIPE;
}
