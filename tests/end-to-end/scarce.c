/*
 * Descriptors run out, sockets fill up: what one process hands to another does not arrive, and has to once there is room
 * again, without anybody asking for it. Meanwhile nobody waits for ever, and nobody spins.
 *
 *      scarce [CASE]      ring, bell, accept, queue; default all
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/require.h"
#include "support/world.h"

#define SOON_NS (2 * SECOND) /* far less than the 30 s after which a sleeper looks by itself */

struct shared {
        uint32_t step;      /* of the other process */
        uint32_t wanted;    /* ... and how far it may go */
        uint64_t cpu_ns;
};
static struct shared *s;

static int await(uint32_t *word, uint32_t at_least) {
        int64_t until = now_ns() + WATCHDOG_NS;

        while (__atomic_load_n(word, __ATOMIC_SEQ_CST) < at_least) {
                if (now_ns() > until)
                        return -1;
                breathe();
        }
        return 0;
}

static void reach(uint32_t *word, uint32_t step) {
        __atomic_store_n(word, step, __ATOMIC_SEQ_CST);
}

/* ---- a descriptor table without a free place ---- */

static int hoard[4096];
static unsigned n_hoard;

static void exhaust(void) {
        struct rlimit limit;
        int fd;

        (void)getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = 256;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        for (n_hoard = 0; (fd = dup(STDERR_FILENO)) >= 0; n_hoard++)
                hoard[n_hoard] = fd;
}

static void relent(void) {
        while (n_hoard)
                close(hoard[--n_hoard]);
}

static int64_t cpu_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return t.tv_sec * SECOND + t.tv_nsec;
}

/* ---- cases: the parent's part, and the other's ---- */

static int pass_some_time(int64_t ns) {
        int64_t until = now_ns() + ns;

        while (now_ns() < until)
                breathe();
        return 0;
}

/* A reader that could not take the ring, and a channel that it joined while it could not be accepted. */
static int read_without(const char *uri) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;

        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        exhaust();
        reach(&s->step, 1);
        REQUIRE(await(&s->wanted, 2) == 0);
        REQUIRE(psyne_recv(c, &m, 300 * MSEC) < 0); /* the ring is not here */
        relent();
        for (unsigned i = 0; i < 10; i++) {
                REQUIRE(psyne_recv(c, &m, SOON_NS) == 0 && m.type == i + 1);
                REQUIRE(psyne_release(c, &m) == 0);
        }
        REQUIRE(psyne_consumer_close(c) == 0 && psyne_close(ch) == 0);
        return 0;
}

static int write_to_one_without(const char *uri) {
        struct psyne_channel *ch;
        struct psyne_producer *p;

        REQUIRE(psyne_open(uri, NULL, &ch) == 0);
        REQUIRE(await(&s->step, 1) == 0);
        REQUIRE(psyne_producer_open(ch, NULL, &p) == 0);
        for (unsigned i = 0; i < 10; i++)
                REQUIRE(psyne_send(p, i + 1, "x", 1, PSYNE_NOWAIT) == 0);
        reach(&s->wanted, 2);
        REQUIRE(psyne_producer_close(p) == 0 && psyne_close(ch) == 0); /* it lingers until all is read */
        return 0;
}

/* A producer whose process has no place for the handle of a reader that sleeps. */
static int wake_without(const char *uri) {
        struct psyne_channel *ch;
        struct psyne_producer *p;

        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        REQUIRE(await(&s->wanted, 1) == 0);
        exhaust();
        reach(&s->step, 1);
        for (unsigned i = 0; i < 20; i++) {
                REQUIRE(await(&s->wanted, 2 + i) == 0);
                if (i == 10)
                        relent();
                REQUIRE(psyne_send(p, i + 1, "x", 1, PSYNE_NOWAIT) == 0);
        }
        REQUIRE(psyne_producer_close(p) == 0 && psyne_close(ch) == 0);
        return 0;
}

static int sleep_unheard(const char *uri) {
        struct psyne_metrics metrics = {.struct_size = sizeof(metrics)};
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        uint64_t before = 0;

        REQUIRE(psyne_open(uri, NULL, &ch) == 0);
        REQUIRE(psyne_wait_peers(ch, 1, 0, WATCHDOG_NS) == 0);
        reach(&s->wanted, 1);
        REQUIRE(await(&s->step, 1) == 0);
        REQUIRE(psyne_consumer_open(ch, NULL, &c) == 0);
        for (unsigned i = 0; i < 20; i++) {
                int64_t at = now_ns();

                if (i == 15) { /* it has had time to come: from here on it is woken, and does not look by itself */
                        pass_some_time(500 * MSEC);
                        REQUIRE(psyne_metrics(ch, &metrics) == 0);
                        before = metrics.wakes_received;
                }
                reach(&s->wanted, 2 + i);
                REQUIRE(psyne_recv(c, &m, SOON_NS) == 0 && m.type == i + 1);
                REQUIRE(psyne_release(c, &m) == 0);
                REQUIRE(now_ns() - at < SOON_NS);
        }
        REQUIRE(psyne_metrics(ch, &metrics) == 0);
        printf("bell: %llu wakes received, of those %llu with the handle there\n", (unsigned long long)metrics.wakes_received,
                (unsigned long long)(metrics.wakes_received - before));
        REQUIRE(metrics.backstop_hits == 0);
        REQUIRE(psyne_consumer_close(c) == 0 && psyne_close(ch) == 0);
        return 0;
}

/* A process that cannot accept who comes. */
static int deaf(const char *uri) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        int64_t before;

        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        exhaust();
        reach(&s->step, 1);
        REQUIRE(await(&s->wanted, 1) == 0); /* it has come */
        before = cpu_ns();
        usleep(500000); /* the time is what is measured */
        s->cpu_ns = (uint64_t)(cpu_ns() - before);
        relent();
        for (unsigned i = 0; i < 10; i++)
                REQUIRE(psyne_send(p, i + 1, "x", 1, PSYNE_NOWAIT) == 0);
        REQUIRE(psyne_producer_close(p) == 0 && psyne_close(ch) == 0);
        return 0;
}

static int come_to_the_deaf(const char *uri) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;

        REQUIRE(await(&s->step, 1) == 0);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        reach(&s->wanted, 1);
        for (unsigned i = 0; i < 10; i++) {
                REQUIRE(psyne_recv(c, &m, SOON_NS) == 0 && m.type == i + 1);
                REQUIRE(psyne_release(c, &m) == 0);
        }
        printf("accept: %.1f ms of CPU in 500 ms of nobody being accepted\n", (double)s->cpu_ns / 1e6);
        REQUIRE(s->cpu_ns < 100 * MSEC);
        REQUIRE(psyne_consumer_close(c) == 0 && psyne_close(ch) == 0);
        return 0;
}

/* A peer that is stopped while more handles are sent to it than its socket takes. */
static int stopped_writer(const char *uri) {
        struct psyne_channel *ch;
        struct psyne_producer *p;

        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        reach(&s->step, 1);
        REQUIRE(await(&s->wanted, 1) == 0);
        for (int64_t until = now_ns() + WATCHDOG_NS; !asleep_for_long(getppid(), getppid());)
                REQUIRE(now_ns() < until);
        for (unsigned i = 0; i < 10; i++)
                REQUIRE(psyne_send(p, i + 1, "x", 1, PSYNE_NOWAIT) == 0);
        REQUIRE(await(&s->wanted, 2) == 0); /* a hang-up would wake it, too */
        REQUIRE(psyne_producer_close(p) == 0 && psyne_close(ch) == 0);
        return 0;
}

static pid_t other;

static int fill_its_queue(const char *uri) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;

        REQUIRE(psyne_open(uri, NULL, &ch) == 0);
        REQUIRE(await(&s->step, 1) == 0 && psyne_wait_peers(ch, 1, 0, WATCHDOG_NS) == 0);
        kill(other, SIGSTOP);
        for (char t = 0; t != 'T' && t != 't'; t = task_state(other, other)) /* 't': traced as well */
                breathe();
        for (unsigned i = 0; i < 1000; i++)
                REQUIRE(psyne_consumer_open(ch, NULL, &c) == 0 && psyne_consumer_close(c) == 0);
        REQUIRE(psyne_consumer_open(ch, NULL, &c) == 0);
        kill(other, SIGCONT);
        reach(&s->wanted, 1);
        for (unsigned i = 0; i < 10; i++) {
                int64_t at = now_ns();

                REQUIRE(psyne_recv(c, &m, SOON_NS) == 0 && m.type == i + 1);
                REQUIRE(now_ns() - at < SOON_NS); /* a receive whose time is up looks once more */
                REQUIRE(psyne_release(c, &m) == 0);
        }
        reach(&s->wanted, 2);
        REQUIRE(psyne_consumer_close(c) == 0 && psyne_close(ch) == 0);
        return 0;
}

static const struct scarcity {
        const char *name, *uri;
        int (*other)(const char *uri), (*here)(const char *uri);
} cases[] = {
        {"ring", "ipc://scarce-ring?size=64K&wait=block", read_without, write_to_one_without},
        {"bell", "ipc://scarce-bell?size=64K&wait=block&engine=eventfd", wake_without, sleep_unheard},
        {"accept", "ipc://scarce-accept?size=64K&wait=block", deaf, come_to_the_deaf},
        {"queue", "ipc://scarce-queue?size=64K&wait=block&engine=eventfd", stopped_writer, fill_its_queue},
};

int main(int argc, char **argv) {
        char dir[64];
        int failed = 0;

        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED)
                return 1;
        setvbuf(stdout, NULL, _IOLBF, 0);
        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                const struct scarcity *x = &cases[i];
                int r, status;

                if (argc > 1 && strcmp(argv[1], x->name))
                        continue;
                if (strstr(x->uri, "eventfd") && !engine_is_there("eventfd"))
                        continue;
                memset(s, 0, sizeof(*s));
                other = fork();
                if (other == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        _exit(x->other(x->uri));
                }
                r = x->here(x->uri);
                if (r)
                        kill(other, SIGKILL);
                status = child_wait(other, WATCHDOG_NS);
                printf("%-6s %s\n", x->name, r || status ? "FAIL" : "PASS");
                failed |= r || status;
        }
        if (count_files(dir)) {
                printf("%u files are left\n", count_files(dir));
                failed = 1;
        }
        remove_dir(dir);
        printf("%s\n", failed ? "FAIL" : "PASS");
        return failed;
}
