/*
 * A message is for one of a group: one sleeper is woken for it. If that one is stopped (SIGSTOP), the wake is gone and
 * the message still there, and another member that sleeps has to find it by itself. Two worker processes sleep; each in
 * turn is stopped; a single message is sent, and the other one must have it within two seconds. Which of them is the
 * one to be woken is the library's business: it is one of the two, so with each of them stopped it happens, and
 * backstop_hits tells that it did.
 *
 *      stopped-worker [ROUNDS]      default 3, for each worker and mode
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/world.h"

#define REACH_NS (2 * SECOND)

struct shared {
        uint64_t received[2]; /* by each worker */
        uint32_t newest[2];
};
static struct shared *s;

static int work(int i, const char *uri) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        int r;

        if (psyne_open(uri, NULL, &ch) < 0 || psyne_consumer_open(ch, NULL, &c) < 0)
                return 2;
        for (;;) {
                r = psyne_recv(c, &m, PSYNE_FOREVER);
                if (r == -EINTR) /* it was stopped and goes on */
                        continue;
                if (r < 0)
                        break;
                __atomic_store_n(&s->newest[i], m.type, __ATOMIC_RELAXED);
                __atomic_fetch_add(&s->received[i], 1, __ATOMIC_SEQ_CST);
                if (m.flags || psyne_release(c, &m) < 0)
                        return 3;
        }
        (void)psyne_consumer_close(c);
        (void)psyne_close(ch);
        return r == -EPIPE ? 0 : 4;
}

static int until_asleep(const pid_t pids[2]) {
        int64_t until = now_ns() + WATCHDOG_NS;

        while (!asleep_for_long(pids[0], pids[0]) || !asleep_for_long(pids[1], pids[1]))
                if (now_ns() > until)
                        return -1;
        return 0;
}

static int until_stopped(pid_t pid) {
        int64_t until = now_ns() + WATCHDOG_NS;

        while (task_state(pid, pid) != 'T') {
                if (now_ns() > until)
                        return -1;
                breathe();
        }
        return 0;
}

static int fail(const char *mode, const char *what) {
        printf("%-5s FAIL: %s (%s)\n", mode, what, psyne_last_error());
        return 1;
}

static int run(const struct mode *mode, unsigned rounds) {
        unsigned n_producers = mode->many_producers ? 2 : 1, sent = 0;
        struct psyne_metrics metrics = {.struct_size = sizeof(metrics)};
        struct psyne_producer *p[2] = {NULL, NULL};
        struct psyne_channel *ch;
        char uri[96];
        pid_t pids[2];
        int r = 0;

        memset(s, 0, sizeof(*s));
        snprintf(uri, sizeof(uri), "ipc://stopped?mode=%s&size=64K&wait=block", mode->name);
        for (int i = 0; i < 2; i++) {
                pids[i] = fork();
                if (pids[i] == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        _exit(work(i, uri));
                }
        }
        if (psyne_open(uri, NULL, &ch) < 0)
                return fail(mode->name, "no channel");
        for (unsigned k = 0; k < n_producers; k++)
                if (psyne_producer_open(ch, NULL, &p[k]) < 0)
                        return fail(mode->name, "no producer");
        if (psyne_wait_peers(ch, 0, 2, WATCHDOG_NS) < 0)
                return fail(mode->name, "no workers");
        for (unsigned round = 0; round < 2 * rounds && !r; round++) {
                int stopped = round % 2, other = !stopped;
                uint64_t before = s->received[other];
                int64_t at;

                if (until_asleep(pids) < 0)
                        r = fail(mode->name, "the workers do not come to rest");
                kill(pids[stopped], SIGSTOP);
                if (!r && until_stopped(pids[stopped]) < 0)
                        r = fail(mode->name, "a worker does not stop");
                at = now_ns();
                if (!r && psyne_send(p[round / 2 % n_producers], ++sent, "x", 1, PSYNE_NOWAIT) < 0)
                        r = fail(mode->name, "a send");
                while (!r && __atomic_load_n(&s->received[other], __ATOMIC_SEQ_CST) == before) {
                        if (now_ns() - at > REACH_NS)
                                r = fail(mode->name, "the message did not reach the other worker in 2 s");
                        breathe();
                }
                if (!r && s->newest[other] != sent)
                        r = fail(mode->name, "another message came");
                if (!r)
                        printf("%-5s worker %d is stopped: worker %d has message %u after %.1f ms\n", mode->name,
                                stopped, other, sent, (double)(now_ns() - at) / 1e6);
                kill(pids[stopped], SIGCONT);
        }
        if (!r && psyne_metrics(ch, &metrics) < 0)
                r = fail(mode->name, "no metrics");
        if (!r) {
                printf("%-5s %llu of %u were found by the backstop\n", mode->name,
                        (unsigned long long)metrics.backstop_hits, sent);
                if (!metrics.backstop_hits)
                        r = fail(mode->name, "no wake went to a stopped worker: this has tested nothing");
                if (s->received[0] != rounds || s->received[1] != rounds)
                        r = fail(mode->name, "one came twice, or to the stopped one");
        }
        for (unsigned k = 0; k < n_producers; k++)
                if (psyne_producer_close(p[k]) != 0 && !r)
                        r = fail(mode->name, "something was not received");
        psyne_close(ch);
        for (int i = 0; i < 2; i++) {
                int status = child_wait(pids[i], WATCHDOG_NS);

                if (status && !r) {
                        printf("%-5s FAIL: worker %d ended with %d\n", mode->name, i, status);
                        r = 1;
                }
        }
        return r;
}

int main(int argc, char **argv) {
        unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 3;
        char dir[64];
        int r = 0;

        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED)
                return 1;
        setvbuf(stdout, NULL, _IOLBF, 0);
        r |= run(&modes[MODE_spmc], rounds);
        r |= run(&modes[MODE_mpmc], rounds);
        if (count_files(dir)) {
                printf("%u files are left\n", count_files(dir));
                r = 1;
        }
        remove_dir(dir);
        printf("%s\n", r ? "FAIL" : "PASS");
        return r;
}
