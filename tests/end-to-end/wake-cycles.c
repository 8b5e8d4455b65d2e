/*
 * Sleeping and waking, over and over: two processes pass a message to and fro and think for a moment in between, so
 * that every message meets the other side falling asleep, asleep, or spinning; on one CPU, and on two. A lost wake stalls
 * both: the backstop's periodic look finds what nobody told, or both are asleep, and stay so, for a tenth of a second.
 * One that is awake and does not get the CPU is no such thing: that happens to a bare futex loop as well, which does the
 * same on the same CPUs for comparison.
 *
 *      wake-cycles [N [THINK_US [CELL]]]   default 100,000 cycles (or PSYNE_CYCLES) per cell, up to 20 us of thinking; CELL:
 *                                          only that one, 0 to 13, so that several may run side by side
 *
 * Long thoughts (more than 50 us at most) are slept through: the CPU is another cell's meanwhile.
 */
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/world.h"

#define STALL_NS (100 * MSEC)

struct shared {
        uint64_t beats[2];
        int64_t longest[2];               /* cycle */
        uint64_t blocks, backstop, wakes; /* of both channels, at the end */
        uint32_t word;                    /* of the bare loop: whose turn it is */
};
static struct shared *s;
static uint64_t think_ns = 20000;

struct cell {
        const char *wait, *engine; /* engine NULL: the bare loop */
        bool one_cpu;
};

static void think(struct random *r) {
        int64_t until = now_ns() + (int64_t)random_below(r, think_ns + 1);
        const struct timespec at = {.tv_sec = until / SECOND, .tv_nsec = until % SECOND};

        if (think_ns > 50000)
                (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        while (now_ns() < until)
                ;
}

static void beat(int side, uint64_t i, int64_t *at) {
        int64_t now = now_ns();

        if (now - *at > s->longest[side])
                s->longest[side] = now - *at;
        *at = now;
        __atomic_store_n(&s->beats[side], i + 1, __ATOMIC_RELAXED);
}

static int play_bare(int side, uint64_t n, uint64_t seed) {
        const struct timespec watchdog = {.tv_sec = WATCHDOG_NS / SECOND};
        struct random r = {seed + (unsigned)side};
        int64_t at = now_ns();

        for (uint64_t i = 0; i < n; i++) {
                while (__atomic_load_n(&s->word, __ATOMIC_ACQUIRE) != (uint32_t)side)
                        if (syscall(SYS_futex, &s->word, FUTEX_WAIT, !side, &watchdog, NULL, 0) < 0 && errno == ETIMEDOUT)
                                return 3;
                think(&r);
                __atomic_store_n(&s->word, !side, __ATOMIC_RELEASE);
                syscall(SYS_futex, &s->word, FUTEX_WAKE, 1, NULL, NULL, 0);
                beat(side, i, &at);
        }
        return 0;
}

static int play(int side, uint64_t n, const struct cell *cell, uint64_t seed) {
        struct random r = {seed + (unsigned)side};
        struct psyne_channel *out, *in;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        struct psyne_metrics m = {.struct_size = sizeof(m)};
        char uri[128];
        int64_t at;

        for (int i = 0; i < 2; i++) {
                snprintf(uri, sizeof(uri), "ipc://%s?size=4096&wait=%s&engine=%s", i ? "down" : "up", cell->wait, cell->engine);
                if (psyne_open(uri, NULL, i == side ? &out : &in) < 0)
                        return 2;
        }
        if (psyne_producer_open(out, NULL, &p) < 0 || psyne_consumer_open(in, NULL, &c) < 0)
                return 3;
        if (psyne_wait_peers(out, 1, 1, WATCHDOG_NS) < 0 || psyne_wait_peers(in, 1, 1, WATCHDOG_NS) < 0)
                return 4;
        at = now_ns();
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
                beat(side, i, &at);
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

static void pin(unsigned cpu) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        (void)sched_setaffinity(0, sizeof(set), &set); /* where it is refused, the scheduler decides */
}

/* Both sleep, and nothing moves. */
static bool lost(const pid_t pids[2], uint64_t last) {
        return pids[0] && pids[1] && asleep_for_long(pids[0], pids[0]) && asleep_for_long(pids[1], pids[1]) &&
                __atomic_load_n(&s->beats[0], __ATOMIC_RELAXED) + __atomic_load_n(&s->beats[1], __ATOMIC_RELAXED) == last;
}

static int run(uint64_t n, const struct cell *cell, const unsigned cpus[2]) {
        struct random r = random_seeded("wake-cycles");
        int64_t began = now_ns(), moved = began, longest;
        uint64_t last = 0;
        int failed = 0;
        pid_t pids[2];

        memset(s, 0, sizeof(*s));
        for (int i = 0; i < 2; i++) {
                fflush(NULL);
                pids[i] = fork();
                if (pids[i] == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        pin(cpus[cell->one_cpu ? 0 : i]);
                        _exit(cell->engine ? play(i, n, cell, r.state) : play_bare(i, n, r.state));
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
                if ((now_ns() - moved > STALL_NS && lost(pids, last)) || now_ns() - moved > 3 * WATCHDOG_NS || (failed && open)) {
                        printf("stalled at %llu and %llu\n", (unsigned long long)s->beats[0],
                                (unsigned long long)s->beats[1]);
                        for (int i = 0; i < 2; i++)
                                if (pids[i])
                                        kill(pids[i], SIGKILL);
                        failed = 1;
                }
                usleep(2000); /* a look now and then: it takes the CPU from those it looks at */
        }
        longest = s->longest[0] > s->longest[1] ? s->longest[0] : s->longest[1];
        if (cell->engine)
                printf("wait=%-7s engine=%-7s", cell->wait, cell->engine);
        else
                printf("%-27s", "a bare futex loop");
        printf(" %-9s %8llu cycles %8llu waits %8llu wakes  backstop_hits %llu  %.1f us a cycle, longest %.2f ms%s\n",
                cell->one_cpu ? "one CPU" : "two CPUs", (unsigned long long)n, (unsigned long long)s->blocks,
                (unsigned long long)s->wakes, (unsigned long long)s->backstop, (double)(now_ns() - began) / 1e3 / (double)n,
                (double)longest / 1e6, failed || s->backstop ? "  FAIL" : "");
        fflush(stdout);
        return failed || s->backstop;
}

int main(int argc, char **argv) {
        static const char *const engines[] = {"auto", "futex", "eventfd"};
        const char *text = argc > 1 ? argv[1] : getenv("PSYNE_CYCLES");
        uint64_t n = text ? strtoull(text, NULL, 10) : 100000;
        unsigned cpus[2] = {0, 0}, n_cpus = 0;
        cpu_set_t set;
        char dir[64];
        int r = 0, only = -1;

        if (argc > 2)
                think_ns = 1000 * strtoull(argv[2], NULL, 10);
        if (argc > 3)
                only = (int)strtol(argv[3], NULL, 10);
        (void)prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED || sched_getaffinity(0, sizeof(set), &set) < 0)
                return 1;
        for (unsigned i = 0; i < CPU_SETSIZE && n_cpus < 2; i++)
                if (CPU_ISSET(i, &set))
                        cpus[n_cpus++] = i;
        for (int one = n_cpus < 2; one < 2; one++) {
                const struct cell bare = {.one_cpu = one};

                if (only < 0 || only == 7 * one)
                        r |= run(n / 10 ? n / 10 : 1, &bare, cpus); /* enough to see how long this machine keeps anybody waiting */
                for (unsigned i = 0; i < 6; i++) {
                        const struct cell cell = {i & 1 ? "hybrid" : "block", engines[i / 2], one};

                        if (i % 2 == 0 && !engine_is_there(cell.engine))
                                i++;
                        else if (only < 0 || only == 7 * one + 1 + (int)i)
                                r |= run(n, &cell, cpus);
                }
        }
        if (count_files(dir)) {
                printf("%u files left\n", count_files(dir));
                r = 1;
        }
        remove_dir(dir);
        return r;
}
