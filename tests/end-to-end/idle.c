/*
 * Doing nothing costs nothing: for a while, one process is blocked on a full ring and another one on an empty one, and
 * a third as a member of a shared group, their service threads beside them. Counted over that time: CPU of all
 * together, and voluntary context switches of each thread, which is how often it woke up for nothing. Only the member
 * of the shared group has something to look for every second.
 *
 *      idle [SECONDS]       default 5 (or PSYNE_IDLE_S)
 */
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/world.h"

#define CPU_MS_MAX 10.0
#define SWITCHES_MAX 4
#define THREADS_MAX 8

enum { SENDER, RECEIVER, WORKER, N_SIDES };
static const char *const sides[] = {"sender", "receiver", "worker"};

struct shared {
        uint64_t backstop_hits;
};
static struct shared *s;

static int wait_for_ever(bool sender) {
        static const char *const uris[] = {"ipc://full?size=4096&wait=block", "ipc://empty?size=4096&wait=block"};
        struct psyne_metrics m = {.struct_size = sizeof(m)};
        struct psyne_channel *ch[2];
        struct psyne_producer *p[2];
        struct psyne_consumer *c[2];
        struct psyne_msg msg;
        int r;

        for (int i = 0; i < 2; i++) {
                if (psyne_open(uris[i], NULL, &ch[i]) < 0)
                        return 2;
                if ((sender ? psyne_producer_open(ch[i], NULL, &p[i]) : psyne_consumer_open(ch[i], NULL, &c[i])) < 0)
                        return 3;
        }
        for (int i = 0; i < 2; i++)
                if (psyne_wait_peers(ch[i], 1, 1, WATCHDOG_NS) < 0)
                        return 4;
        if (sender) {
                while (psyne_send(p[0], 0, "x", 1, PSYNE_NOWAIT) == 0)
                        ;
                r = psyne_send(p[0], 0, "x", 1, PSYNE_FOREVER);
        } else
                r = psyne_recv(c[1], &msg, PSYNE_FOREVER);
        if (r != -ESHUTDOWN && r != -EPIPE) /* the other one may have been stopped and be gone first */
                return 5;
        for (int i = 0; i < 2; i++) {
                if (psyne_metrics(ch[i], &m) < 0)
                        return 6;
                __atomic_fetch_add(&s->backstop_hits, m.backstop_hits, __ATOMIC_SEQ_CST);
        }
        _exit(0); /* what is unread is no matter here */
}

static int work_for_ever(void) {
        struct psyne_metrics m = {.struct_size = sizeof(m)};
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg msg;

        if (psyne_open("ipc://shared?mode=spmc&size=4096&wait=block", NULL, &ch) < 0 ||
                psyne_consumer_open(ch, NULL, &c) < 0)
                return 2;
        if (psyne_recv(c, &msg, PSYNE_FOREVER) != -ESHUTDOWN)
                return 5;
        if (psyne_metrics(ch, &m) < 0)
                return 6;
        __atomic_fetch_add(&s->backstop_hits, m.backstop_hits, __ATOMIC_SEQ_CST);
        (void)psyne_consumer_close(c);
        (void)psyne_close(ch);
        return 0;
}

struct cost {
        double cpu_ms;
        unsigned n_threads;
        unsigned long switches[THREADS_MAX];
        char names[THREADS_MAX][32];
        bool asleep;
};

static struct cost cost_of(pid_t pid) {
        struct cost c = {.asleep = true};
        struct timespec ts;
        struct dirent *e;
        clockid_t clock;
        char path[64];
        DIR *d;

        if (clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &ts) == 0)
                c.cpu_ms = (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
        snprintf(path, sizeof(path), "/proc/%d/task", pid);
        d = opendir(path);
        while (d && (e = readdir(d))) {
                char status[350], line[256];
                FILE *f;

                if (e->d_name[0] == '.' || c.n_threads == THREADS_MAX)
                        continue;
                snprintf(status, sizeof(status), "%s/%s/status", path, e->d_name);
                f = fopen(status, "re");
                while (f && fgets(line, sizeof(line), f)) {
                        (void)sscanf(line, "Name: %31s", c.names[c.n_threads]);
                        (void)sscanf(line, "voluntary_ctxt_switches: %lu", &c.switches[c.n_threads]);
                }
                if (f)
                        fclose(f);
                c.asleep &= task_state(pid, atoi(e->d_name)) == 'S';
                c.n_threads++;
        }
        if (d)
                closedir(d);
        return c;
}

static int stop(const char *uri) {
        struct psyne_channel *ch;

        if (psyne_open(uri, NULL, &ch) < 0)
                return -1;
        (void)psyne_stop(ch, PSYNE_ABORT);
        psyne_close(ch);
        return 0;
}

int main(int argc, char **argv) {
        const char *text = argc > 1 ? argv[1] : getenv("PSYNE_IDLE_S");
        double seconds = text ? strtod(text, NULL) : 5, cpu_ms = 0;
        struct cost before[N_SIDES], after[N_SIDES];
        char dir[64];
        pid_t pids[N_SIDES];
        int64_t until, still = 0;
        int r = 0;

        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED)
                return 1;
        for (int i = 0; i < N_SIDES; i++) {
                pids[i] = fork();
                if (pids[i] == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        _exit(i == WORKER ? work_for_ever() : wait_for_ever(i == SENDER));
                }
        }
        /* Until all have their service thread and no thread has moved for a tenth of a second. */
        for (until = now_ns() + 2 * WATCHDOG_NS, memset(before, 0, sizeof(before));;) {
                bool same = true;

                for (int i = 0; i < N_SIDES; i++) {
                        after[i] = cost_of(pids[i]);
                        same &= after[i].asleep && after[i].n_threads == 2 &&
                                !memcmp(after[i].switches, before[i].switches, sizeof(after[i].switches));
                        before[i] = after[i];
                }
                if (!same)
                        still = now_ns();
                else if (now_ns() - still > 100 * MSEC)
                        break;
                if (now_ns() > until) {
                        printf("FAIL: they do not come to rest\n");
                        r = 1;
                        break;
                }
                breathe();
        }
        if (!r) {
                struct timespec nap = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};

                while (nanosleep(&nap, &nap) < 0) /* the one thing here that is about time */
                        ;
                for (int i = 0; i < N_SIDES; i++) {
                        after[i] = cost_of(pids[i]);
                        cpu_ms += after[i].cpu_ms - before[i].cpu_ms;
                        for (unsigned k = 0; k < after[i].n_threads; k++) {
                                unsigned long n = after[i].switches[k] - before[i].switches[k];

                                printf("%-8s %-10s %lu voluntary switches\n", sides[i], after[i].names[k], n);
                                if (i == WORKER && strcmp(after[i].names[k], "psyne-io") != 0)
                                        n -= n < (unsigned long)seconds ? n : (unsigned long)seconds;
                                if (n > SWITCHES_MAX)
                                        r = 1;
                        }
                        if (after[i].n_threads != before[i].n_threads || !after[i].asleep)
                                r = 1;
                }
                printf("%.0f s idle: %.3f ms CPU together (at most %.0f)\n", seconds, cpu_ms, CPU_MS_MAX);
                if (cpu_ms >= CPU_MS_MAX)
                        r = 1;
                if (stop("ipc://full") < 0 || stop("ipc://empty") < 0 || stop("ipc://shared") < 0)
                        r = 1;
        }
        for (int i = 0; i < N_SIDES; i++) {
                int status = child_wait(pids[i], r ? 0 : WATCHDOG_NS);

                if (status) {
                        printf("side %d ended with %d\n", i, status);
                        r = 1;
                }
        }
        printf("backstop_hits %llu\n", (unsigned long long)s->backstop_hits);
        if (s->backstop_hits)
                r = 1;
        remove_dir(dir);
        printf("%s\n", r ? "FAIL" : "PASS");
        return r;
}
