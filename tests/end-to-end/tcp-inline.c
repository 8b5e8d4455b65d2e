/*
 * inline=1: who sends and who receives moves the bytes, and the threads are left alone; and a reader that lies down has its
 * thread back at once.
 */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "support/require.h"
#include "support/world.h"

struct shared {
        uint32_t ports[2];
};
static struct shared *s;

/* How often this process's link threads have gone to sleep. */
static long naps_of_links(void) {
        struct dirent *e;
        long naps = 0;
        DIR *d = opendir("/proc/self/task");

        while (d && (e = readdir(d))) {
                char path[320], line[128];
                bool ours = false;
                long n;
                FILE *f;

                snprintf(path, sizeof(path), "/proc/self/task/%s/status", e->d_name);
                f = fopen(path, "re");
                while (f && fgets(line, sizeof(line), f)) {
                        ours |= strcmp(line, "Name:\tpsyne-link\n") == 0;
                        if (ours && sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1)
                                naps += n;
                }
                if (f)
                        fclose(f);
        }
        if (d)
                closedir(d);
        return naps;
}

#define TRIPS 2000

/* A round trip takes no turn of either end's thread: they wake for time that has passed, and no more. */
static int talk(unsigned second) {
        struct psyne_channel *in, *out;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        struct psyne_msg m;
        int64_t began;
        long naps;
        char uri[128];

        snprintf(uri, sizeof(uri), "tcp://:0/%s?size=64K&inline=1&wait=spin", second ? "there" : "back");
        REQUIRE(psyne_open(uri, NULL, &in) == 0 && psyne_consumer_open(in, NULL, &c) == 0);
        __atomic_store_n(&s->ports[second], (uint32_t)psyne_port(in), __ATOMIC_RELEASE);
        for (int64_t until = now_ns() + WATCHDOG_NS; !__atomic_load_n(&s->ports[!second], __ATOMIC_ACQUIRE);)
                REQUIRE(now_ns() < until);
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%u/%s?size=64K&inline=1", __atomic_load_n(&s->ports[!second], __ATOMIC_ACQUIRE),
                second ? "back" : "there");
        REQUIRE(psyne_open(uri, NULL, &out) == 0 && psyne_producer_open(out, NULL, &p) == 0);
        REQUIRE(psyne_wait_peers(out, 1, 1, WATCHDOG_NS) == 0 && psyne_wait_peers(in, 1, 1, WATCHDOG_NS) == 0);
        began = now_ns();
        naps = naps_of_links();
        for (uint32_t i = 0; i < TRIPS; i++)
                for (unsigned turn = 0; turn < 2; turn++)
                        if (turn == second) {
                                REQUIRE(psyne_send(p, i, &i, sizeof(i), WATCHDOG_NS) == 0);
                        } else {
                                REQUIRE(psyne_recv(c, &m, WATCHDOG_NS) == 0 && m.type == i);
                                REQUIRE(psyne_release(c, &m) == 0);
                        }
        naps = naps_of_links() - naps;
        /* Timers, acknowledgements and the lock take some; a thread that has a part in each message takes 2,000. */
        if (naps > TRIPS / 2 + 10 * (now_ns() - began) / (10 * MSEC)) {
                printf("the threads slept %ld times in %d round trips, %lld us\n", naps, TRIPS, (long long)(now_ns() - began) / 1000);
                fflush(stdout);
                return 1;
        }
        REQUIRE(psyne_producer_close(p) == 0 && psyne_consumer_close(c) == 0);
        (void)psyne_close(out);
        (void)psyne_close(in);
        return 0;
}

static int alone(void) {
        pid_t pids[2];
        int r;

        for (unsigned i = 0; i < 2; i++) {
                fflush(NULL);
                pids[i] = fork();
                if (pids[i] == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        _exit(talk(i));
                }
        }
        r = child_wait(pids[0], 3 * WATCHDOG_NS);
        return child_wait(pids[1], 3 * WATCHDOG_NS) | r;
}

#define RESTS 50

static int compare(const void *a, const void *b) {
        const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

        return (x > y) - (x < y);
}

/* A reader that polls, then sleeps in a waitset, is woken as soon as one that has never polled: its thread has the sockets. */
static int rests(void) {
        struct psyne_waitset *set;
        struct psyne_channel *to, *from;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        struct psyne_msg m;
        int64_t took[2][RESTS];
        char uri[128];

        REQUIRE(psyne_open("tcp://:0/rests?size=64K&inline=1", NULL, &to) == 0 && psyne_consumer_open(to, NULL, &c) == 0);
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%d/rests?size=64K&inline=1", psyne_port(to));
        REQUIRE(psyne_open(uri, NULL, &from) == 0 && psyne_producer_open(from, NULL, &p) == 0);
        REQUIRE(psyne_waitset_new(&set) == 0 && psyne_waitset_add(set, psyne_consumer_endpoint(c), c) == 0);
        for (uint32_t i = 0; i < 2 * RESTS; i++) {
                const bool polls = i >= RESTS;
                struct psyne_event e;
                int64_t began;

                REQUIRE(psyne_set_wait(psyne_consumer_endpoint(c), polls ? PSYNE_WAIT_SPIN : PSYNE_WAIT_BLOCK) == 0);
                REQUIRE(psyne_send(p, i, &i, sizeof(i), WATCHDOG_NS) == 0);
                REQUIRE(psyne_recv(c, &m, WATCHDOG_NS) == 0 && m.type == i && psyne_release(c, &m) == 0);
                REQUIRE(psyne_set_wait(psyne_consumer_endpoint(c), PSYNE_WAIT_BLOCK) == 0);
                REQUIRE(psyne_waitset_wait(set, &e, 1, MSEC) == -ETIME);
                began = now_ns();
                REQUIRE(psyne_send(p, i, NULL, 0, WATCHDOG_NS) == 0);
                REQUIRE(psyne_waitset_wait(set, &e, 1, WATCHDOG_NS) == 1 && e.what == PSYNE_EVENT_READABLE);
                took[polls][i % RESTS] = now_ns() - began;
                REQUIRE(psyne_recv(c, &m, PSYNE_NOWAIT) == 0 && m.len == 0 && psyne_release(c, &m) == 0);
        }
        for (unsigned k = 0; k < 2; k++)
                qsort(took[k], RESTS, sizeof(took[k][0]), compare);
        printf("rests: woken in %.1f us, and in %.1f after polling\n", (double)took[0][RESTS / 2] / 1e3, (double)took[1][RESTS / 2] / 1e3);
        REQUIRE(took[1][RESTS / 2] < 10 * took[0][RESTS / 2]);
        (void)psyne_waitset_free(set);
        REQUIRE(psyne_producer_close(p) == 0 && psyne_consumer_close(c) == 0);
        (void)psyne_close(from);
        (void)psyne_close(to);
        return 0;
}

/* A link that has been idle, and a reader that takes one message and does nothing after it: it is acknowledged all the same. */
static int answers(void) {
        struct psyne_channel *to, *from;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        struct psyne_msg m;
        char uri[128];

        REQUIRE(psyne_open("tcp://:0/answers?size=64K&inline=1&wait=spin", NULL, &to) == 0 && psyne_consumer_open(to, NULL, &c) == 0);
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%d/answers?size=64K&inline=1", psyne_port(to));
        REQUIRE(psyne_open(uri, NULL, &from) == 0 && psyne_producer_open(from, NULL, &p) == 0);
        for (uint32_t i = 0; i < 30; i++) {
                const struct timespec rest = {.tv_nsec = 30000000};

                REQUIRE(psyne_send(p, i, &i, sizeof(i), WATCHDOG_NS) == 0);
                REQUIRE(psyne_recv(c, &m, WATCHDOG_NS) == 0 && m.type == i && psyne_release(c, &m) == 0);
                REQUIRE(psyne_flush(p, WATCHDOG_NS) == 0);
                (void)nanosleep(&rest, NULL); /* three of the thread's timers: none is left */
        }
        REQUIRE(psyne_producer_close(p) == 0 && psyne_consumer_close(c) == 0);
        (void)psyne_close(from);
        (void)psyne_close(to);
        return 0;
}

struct member {
        struct psyne_consumer *c;
        unsigned got;
        int r;
};

static int take(struct member *m) {
        struct psyne_msg msg;
        int r;

        while ((r = psyne_recv(m->c, &msg, WATCHDOG_NS)) == 0) {
                m->got++;
                REQUIRE(psyne_release(m->c, &msg) == 0);
        }
        REQUIRE(r == -EPIPE);
        return 0;
}

static void *member_run(void *arg) {
        struct member *m = arg;

        m->r = take(m);
        return NULL;
}

#define SHARED_OUT 2000

/* One of a group polls the sockets and one sleeps: nothing stays behind in a socket that each leaves to the other. */
static int shares(void) {
        struct member m[2] = {{0}};
        struct psyne_channel *to, *from;
        struct psyne_producer *p;
        pthread_t threads[2];
        char uri[128];

        REQUIRE(psyne_open("tcp://:0/shares?size=64K&inline=1&mode=spmc", NULL, &to) == 0);
        for (unsigned i = 0; i < 2; i++) {
                REQUIRE(psyne_consumer_open(to, NULL, &m[i].c) == 0);
                REQUIRE(psyne_set_wait(psyne_consumer_endpoint(m[i].c), i ? PSYNE_WAIT_BLOCK : PSYNE_WAIT_SPIN) == 0);
        }
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%d/shares?size=64K&inline=1&mode=spmc", psyne_port(to));
        REQUIRE(psyne_open(uri, NULL, &from) == 0 && psyne_producer_open(from, NULL, &p) == 0);
        for (unsigned i = 0; i < 2; i++)
                REQUIRE(pthread_create(&threads[i], NULL, member_run, &m[i]) == 0);
        for (uint32_t i = 0; i < SHARED_OUT; i++) {
                REQUIRE(psyne_send(p, i, &i, sizeof(i), WATCHDOG_NS) == 0);
                if (i % 16 == 0) /* one by one, and with pauses in which both find nothing */
                        REQUIRE(psyne_flush(p, WATCHDOG_NS) == 0);
        }
        REQUIRE(psyne_producer_close(p) == 0);
        for (unsigned i = 0; i < 2; i++)
                REQUIRE(pthread_join(threads[i], NULL) == 0 && m[i].r == 0);
        printf("shares: %u taken by the one that polls, %u by the one that sleeps\n", m[0].got, m[1].got);
        REQUIRE(m[0].got + m[1].got == SHARED_OUT);
        for (unsigned i = 0; i < 2; i++)
                REQUIRE(psyne_consumer_close(m[i].c) == 0);
        (void)psyne_close(from);
        (void)psyne_close(to);
        return 0;
}

/* In a waitset, a reader that spins leaves the sockets to the thread, and is told; and one that left the set has them again. */
static int spins_in_a_set(void) {
        struct psyne_waitset *set;
        struct psyne_channel *to, *from;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        struct psyne_msg m;
        char uri[128];

        REQUIRE(psyne_open("tcp://:0/set?size=64K&inline=1&wait=spin", NULL, &to) == 0 && psyne_consumer_open(to, NULL, &c) == 0);
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%d/set?size=64K&inline=1", psyne_port(to));
        REQUIRE(psyne_open(uri, NULL, &from) == 0 && psyne_producer_open(from, NULL, &p) == 0);
        REQUIRE(psyne_waitset_new(&set) == 0);
        for (uint32_t i = 0; i < 200; i++) {
                const bool in_set = i % 4 < 2;
                struct psyne_event e;

                if (i % 4 == 0)
                        REQUIRE(psyne_waitset_add(set, psyne_consumer_endpoint(c), c) == 0);
                if (i % 4 == 2)
                        REQUIRE(psyne_waitset_remove(set, c) == 1);
                REQUIRE(psyne_send(p, i, &i, sizeof(i), WATCHDOG_NS) == 0);
                if (in_set)
                        REQUIRE(psyne_waitset_wait(set, &e, 1, WATCHDOG_NS) == 1 && e.what == PSYNE_EVENT_READABLE);
                REQUIRE(psyne_recv(c, &m, in_set ? PSYNE_NOWAIT : WATCHDOG_NS) == 0 && m.type == i && psyne_release(c, &m) == 0);
        }
        (void)psyne_waitset_free(set);
        REQUIRE(psyne_producer_close(p) == 0 && psyne_consumer_close(c) == 0);
        (void)psyne_close(from);
        (void)psyne_close(to);
        return 0;
}

int main(void) {
        int r;

        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED)
                return 1;
        r = alone();
        printf("alone %s\n", r ? "FAIL" : "PASS");
        if (rests() || answers() || shares() || spins_in_a_set())
                r = 1;
        printf("%s\n", r ? "FAIL" : "PASS");
        return r != 0;
}
