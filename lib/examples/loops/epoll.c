/* A receiver in a loop of its own, with epoll: adds up the numbers that come. */
#include <errno.h>
#include <psyne/psyne.h>
#include <stdio.h>
#include <sys/epoll.h>

int main(int argc, char **argv) {
        struct epoll_event event = {.events = EPOLLIN};
        struct psyne_channel *channel;
        struct psyne_consumer *c;
        struct psyne_endpoint *e;
        struct psyne_msg m;
        long n = 0, sum = 0;
        int loop = epoll_create1(EPOLL_CLOEXEC), r;

        if (psyne_open(argc > 1 ? argv[1] : "ipc://demo", NULL, &channel) < 0 ||
                psyne_consumer_open(channel, NULL, &c) < 0)
                return fprintf(stderr, "epoll: %s\n", psyne_last_error()), 1;
        e = psyne_consumer_endpoint(c);
        if (epoll_ctl(loop, EPOLL_CTL_ADD, psyne_fd(e), &event) < 0)
                return perror("epoll"), 1;
        for (;;) {
                /* A few at a time: the loop may have others to serve. */
                for (int i = 0; i < 64 && (r = psyne_recv(c, &m, PSYNE_NOWAIT)) == 0; i++) {
                        n++;
                        sum += *(const int *)m.data;
                        psyne_release(c, &m);
                }
                if (r < 0 && r != -EAGAIN)
                        break;
                r = psyne_arm(e); /* readable at once if there is more */
                if (r < 0)
                        break;
                epoll_wait(loop, &event, 1, -1);
        }
        printf("%ld messages, sum %ld\n", n, sum);
        if (r != -EPIPE) /* -EPIPE: the sender is gone and all it sent was received */
                fprintf(stderr, "epoll: %s\n", psyne_last_error());
        psyne_consumer_close(c);
        psyne_close(channel);
        return r != -EPIPE;
}
