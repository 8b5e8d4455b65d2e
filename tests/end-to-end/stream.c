/*
 * A sender and a receiver in two processes, spinning, for strace-count.sh to look at: stream N. Each calls getppid(),
 * which nothing else here does, when WARM_UP messages have passed and again behind the next N.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/world.h"

#define WARM_UP 10000 /* and whatever joining takes is done */

static int side(bool sender, uint64_t n) {
        struct psyne_channel *ch;
        struct psyne_producer *p = NULL;
        struct psyne_consumer *c = NULL;
        struct psyne_msg m;

        if (psyne_open("ipc://stream?size=64K&wait=spin&huge=never", NULL, &ch) < 0)
                return 1;
        if ((sender ? psyne_producer_open(ch, NULL, &p) : psyne_consumer_open(ch, NULL, &c)) < 0)
                return 2;
        while (psyne_wait_peers(ch, 1, 1, PSYNE_NOWAIT) < 0) /* without sleeping: that would be a call more or less */
                ;
        for (uint64_t i = 0; i < WARM_UP + n; i++) {
                if (i == WARM_UP)
                        (void)getppid();
                if (sender) {
                        if (psyne_claim(p, 8, PSYNE_FOREVER, &m) < 0)
                                return 3;
                        *(uint64_t *)m.data = i;
                        if (psyne_commit(p, &m) < 0)
                                return 4;
                } else {
                        if (psyne_recv(c, &m, PSYNE_FOREVER) < 0 || *(uint64_t *)m.data != i)
                                return 5;
                        if (psyne_release(c, &m) < 0)
                                return 6;
                }
        }
        (void)getppid();
        _exit(0); /* not through close(), which may have to wait */
}

int main(int argc, char **argv) {
        uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000;
        char dir[64];
        int r = 0;

        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        for (int i = 0; i < 2; i++)
                if (fork() == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        alarm(60);
                        _exit(side(i == 0, n));
                }
        for (int i = 0; i < 2; i++) {
                int status;

                if (wait(&status) < 0 || status)
                        r = 1;
        }
        remove_dir(dir);
        return r;
}
