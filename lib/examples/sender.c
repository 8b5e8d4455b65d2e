#include <errno.h>
#include <psyne/psyne.h>
#include <stdio.h>

int main(void) {
        struct psyne_channel *channel;
        struct psyne_producer *p;
        struct psyne_msg m;

        if (psyne_open("ipc://demo", NULL, &channel) < 0 ||
                psyne_producer_open(channel, NULL, &p) < 0)
                return fprintf(stderr, "sender: %s\n", psyne_last_error()), 1;
        while (psyne_wait_peers(channel, 0, 1, PSYNE_FOREVER) == -EINTR)
                ; /* the ring goes when we do: wait for a reader. -EINTR: a signal, or Ctrl-Z and fg */
        for (int i = 0, r; i < 10; i++) {
                while ((r = psyne_claim(p, sizeof(i), PSYNE_FOREVER, &m)) == -EINTR)
                        ; /* room in the ring */
                if (r < 0)
                        return fprintf(stderr, "sender: %s\n", psyne_last_error()), 1;
                *(int *)m.data = i;   /* is filled in place */
                psyne_commit(p, &m);  /* and is a message from here on */
        }
        if (psyne_producer_close(p) != 0) /* waits for the reader; how many it will never get */
                fprintf(stderr, "sender: not everything was read\n");
        psyne_close(channel);
}
