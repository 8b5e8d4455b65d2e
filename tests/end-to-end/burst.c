/*
 * A wake is sent once per sleep, and to nobody who is awake: a thousand messages for a reader that sleeps and is stopped
 * (SIGSTOP, so that it cannot get up in between) are one wake; any number of messages for a reader that polls are none.
 *
 *      burst [N]      default 1,000 messages, for each engine
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/world.h"

static int read_all(const char *uri, uint32_t n) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;

        if (psyne_open(uri, NULL, &ch) < 0 || psyne_consumer_open(ch, NULL, &c) < 0)
                return 2;
        for (uint32_t i = 0; i < n;) {
                int r = psyne_recv(c, &m, WATCHDOG_NS);

                if (r == -EINTR) /* it was stopped and goes on */
                        continue;
                if (r < 0 || m.type != i++ || psyne_release(c, &m) < 0)
                        return 3;
        }
        return psyne_recv(c, &m, WATCHDOG_NS) == -EPIPE ? 0 : 4;
}

static uint64_t wakes(const struct psyne_channel *ch) {
        struct psyne_metrics m = {.struct_size = sizeof(m)};

        return psyne_metrics(ch, &m) < 0 ? UINT64_MAX : m.wakes_sent;
}

static int fail(const char *what) {
        printf("FAIL: %s (%s)\n", what, psyne_last_error());
        return -1;
}

static int until_state(pid_t pid, char state) {
        int64_t until = now_ns() + WATCHDOG_NS;

        while (state == 'S' ? !asleep_for_long(pid, pid) : task_state(pid, pid) != state) {
                if (now_ns() > until)
                        return -1;
                breathe();
        }
        return 0;
}

static int run(const char *engine, bool asleep, uint32_t n) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        char uri[96];
        uint64_t before, sent;
        pid_t pid;

        snprintf(uri, sizeof(uri), "ipc://burst?size=1M&wait=%s&engine=%s", asleep ? "block" : "spin", engine);
        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                _exit(read_all(uri, n));
        }
        if (psyne_open(uri, NULL, &ch) < 0 || psyne_producer_open(ch, NULL, &p) < 0 ||
                psyne_wait_peers(ch, 1, 1, WATCHDOG_NS) < 0)
                return fail("no channel");
        if (asleep) {
                if (until_state(pid, 'S') < 0)
                        return fail("the reader does not go to sleep");
                kill(pid, SIGSTOP);
                if (until_state(pid, 'T') < 0)
                        return fail("the reader does not stop");
        }
        before = wakes(ch);
        for (uint32_t i = 0; i < n; i++)
                if (psyne_send(p, i, "x", 1, WATCHDOG_NS) < 0)
                        return fail("a send");
        sent = wakes(ch) - before;
        if (asleep)
                kill(pid, SIGCONT);
        if (psyne_producer_close(p) != 0 || child_wait(pid, WATCHDOG_NS) != 0)
                return fail("the reader did not get everything");
        psyne_close(ch);
        printf("engine=%-7s reader %-18s %u messages, %llu wakes\n", engine, asleep ? "asleep and stopped:" : "polling:", n,
                (unsigned long long)sent);
        return sent == asleep ? 0 : fail("not as many wakes as sleeps");
}

int main(int argc, char **argv) {
        static const char *const engines[] = {"auto", "eventfd", "futex"}; /* auto first: a choice is the process's from then on */
        uint32_t n = argc > 1 ? (uint32_t)atoi(argv[1]) : 1000;
        char dir[64];
        int r = 0;

        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        for (unsigned i = 0; i < 3 && !r; i++)
                for (int asleep = 1; asleep >= 0 && !r && (asleep == 0 || engine_is_there(engines[i])); asleep--)
                        r = run(engines[i], asleep, n);
        remove_dir(dir);
        return r ? 1 : 0;
}
