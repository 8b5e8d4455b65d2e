#include <errno.h>
#include <psyne/psyne.h>
#include <stdio.h>

int main(void) {
        struct psyne_channel *channel;
        struct psyne_consumer *c;
        struct psyne_msg m;
        int r;

        if (psyne_open("ipc://demo", NULL, &channel) < 0 ||
                psyne_consumer_open(channel, NULL, &c) < 0)
                return fprintf(stderr, "receiver: %s\n", psyne_last_error()), 1;
        while ((r = psyne_recv(c, &m, PSYNE_FOREVER)) == 0 || r == -EINTR) {
                if (r == -EINTR) /* a signal, or Ctrl-Z and fg: nothing was taken */
                        continue;
                printf("%d\n", *(const int *)m.data); /* read where the sender wrote it */
                psyne_release(c, &m);                 /* from here on the sender may overwrite it */
        }
        if (r != -EPIPE) /* -EPIPE: the sender is gone and all it sent was received */
                fprintf(stderr, "receiver: %s\n", psyne_last_error());
        psyne_consumer_close(c);
        psyne_close(channel);
        return r != -EPIPE;
}
