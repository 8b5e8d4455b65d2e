/*
 * Sleeping and waking, over and over: two processes pass a message to and fro and think for 0 to 20 us in between, so
 * that every message meets the other side falling asleep, asleep, or spinning. A lost wake stalls both: the watchdog
 * sees it, or the backstop's periodic look does, which is as much a failure.
 *
 *      wake-cycles [N]      default 100,000 (or PSYNE_CYCLES) per strategy and engine
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/world.h"

struct shared {
        uint64_t beats[2];
        uint64_t blocks, backstop, wakes; /* of both channels, at the end */
};
static struct shared *s;

static void think(struct random *r) {
        int64_t until = now_ns() + (int64_t)random_below(r, 20001);

        while (now_ns() < until)
                ;
}

static int play(int side, uint64_t n, const char *wait, const char *engine, uint64_t seed) {
        struct random r = {seed + (unsigned)side};
        struct psyne_channel *out, *in;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        struct psyne_metrics m = {.struct_size = sizeof(m)};
        char uri[128];

        for (int i = 0; i < 2; i++) {
                snprintf(uri, sizeof(uri), "ipc://%s?size=4096&wait=%s&engine=%s", i ? "down" : "up", wait, engine);
                if (psyne_open(uri, NULL, i == side ? &out : &in) < 0)
                        return 2;
        }
        if (psyne_producer_open(out, NULL, &p) < 0 || psyne_consumer_open(in, NULL, &c) < 0)
                return 3;
        if (psyne_wait_peers(out, 1, 1, WATCHDOG_NS) < 0 || psyne_wait_peers(in, 1, 1, WATCHDOG_NS) < 0)
                return 4;
        for (uint64_t i = 0; i < n; i++) {
                struct psyne_msg msg;
                int e;

                for (int turn = 0; turn < 2; turn++)
                        if (turn == side) {
                                think(&r);
                                e = psyne_send(p, 0, &i, sizeof(i), WATCHDOG_NS);
                                if (e < 0) {
                                        fprintf(stderr, "send %llu: %s\n", (unsigned long long)i, psyne_last_error());
                                        return 5;
                                }
                        } else {
                                e = psyne_recv(c, &msg, WATCHDOG_NS);
                                if (e < 0 || *(uint64_t *)msg.data != i) {
                                        fprintf(stderr, "receive %llu: %s\n", (unsigned long long)i,
                                                psyne_last_error());
                                        return 6;
                                }
                                if (psyne_release(c, &msg) < 0)
                                        return 7;
                        }
                __atomic_store_n(&s->beats[side], i + 1, __ATOMIC_RELAXED);
        }
        if (psyne_metrics(in, &m) < 0)
                return 8;
        __atomic_fetch_add(&s->blocks, m.receive_blocks, __ATOMIC_RELAXED);
        __atomic_fetch_add(&s->backstop, m.backstop_hits, __ATOMIC_RELAXED);
        __atomic_fetch_add(&s->wakes, m.wakes_received, __ATOMIC_RELAXED);
        if (psyne_producer_close(p) || psyne_consumer_close(c))
                return 9;
        psyne_close(out);
        psyne_close(in);
        return 0;
}

static int run(uint64_t n, const char *wait, const char *engine) {
        struct random r = random_seeded("wake-cycles");
        int64_t began = now_ns(), moved = began;
        uint64_t last = 0;
        int failed = 0;
        pid_t pids[2];

        memset(s, 0, sizeof(*s));
        for (int i = 0; i < 2; i++) {
                fflush(NULL);
                pids[i] = fork();
                if (pids[i] == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        _exit(play(i, n, wait, engine, r.state));
                }
        }
        for (int open = 2; open;) {
                for (int i = 0; i < 2; i++) {
                        int status;

                        if (!pids[i] || waitpid(pids[i], &status, WNOHANG) != pids[i])
                                continue;
                        pids[i] = 0;
                        open--;
                        if (status) {
                                printf("side %d ended with status %x\n", i, status);
                                failed = 1;
                        }
                }
                if (s->beats[0] + s->beats[1] != last) {
                        last = s->beats[0] + s->beats[1];
                        moved = now_ns();
                }
                if (now_ns() - moved > 2 * WATCHDOG_NS || (failed && open)) {
                        printf("stalled at %llu and %llu\n", (unsigned long long)s->beats[0],
                                (unsigned long long)s->beats[1]);
                        for (int i = 0; i < 2; i++)
                                if (pids[i])
                                        kill(pids[i], SIGKILL);
                        failed = 1;
                }
                breathe();
        }
        printf("wait=%-7s engine=%-6s %8llu cycles %8llu waits %8llu wakes  backstop_hits %llu  %.1f us a cycle%s\n", wait,
                engine, (unsigned long long)n, (unsigned long long)s->blocks, (unsigned long long)s->wakes,
                (unsigned long long)s->backstop, (double)(now_ns() - began) / 1e3 / (double)n, failed ? "  FAIL" : "");
        fflush(stdout);
        return failed || s->backstop ? -1 : 0;
}

int main(int argc, char **argv) {
        const char *text = argc > 1 ? argv[1] : getenv("PSYNE_CYCLES");
        uint64_t n = text ? strtoull(text, NULL, 10) : 100000;
        char dir[64];
        int r = 0;

        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED)
                return 1;
        for (int i = 0; i < 4; i++)
                if (run(n, i & 1 ? "hybrid" : "block", i & 2 ? "futex" : "auto") < 0)
                        r = 1;
        if (count_files(dir)) {
                printf("%u files left\n", count_files(dir));
                r = 1;
        }
        remove_dir(dir);
        return r;
}
