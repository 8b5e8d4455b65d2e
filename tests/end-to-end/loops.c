/*
 * A receiver that sleeps in a loop of its own (lib/examples/loops) gets everything, and nothing wakes it for nothing:
 * this program sends numbers with random pauses, some messages apart and some in a row, lets the receiver have its
 * rest in the middle of it and counts how often that woke up, and compares what the receiver says in the end.
 *
 *      loops RECEIVER [N [SECONDS]]      default 100,000 messages and 2 seconds of rest
 */
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/world.h"

static int fail(const char *what) {
        printf("FAIL: %s (%s)\n", what, psyne_last_error());
        return 1;
}

/* How often any thread of @pid gave its CPU up: that is how often it had had one. */
static long switches(pid_t pid) {
        char path[64], line[128];
        struct dirent *d;
        long sum = 0, n;
        DIR *tasks;

        snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
        tasks = opendir(path);
        while (tasks && (d = readdir(tasks))) {
                char status[384];
                FILE *f;

                snprintf(status, sizeof(status), "%s/%s/status", path, d->d_name);
                f = d->d_name[0] == '.' ? NULL : fopen(status, "re");
                while (f && fgets(line, sizeof(line), f))
                        if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1)
                                sum += n;
                if (f)
                        fclose(f);
        }
        if (tasks)
                closedir(tasks);
        return sum;
}

/* All threads asleep, and none of them woken for a while. */
static int until_at_rest(pid_t pid) {
        int64_t until = now_ns() + WATCHDOG_NS;
        long before = -1, now;

        while ((now = switches(pid)) != before) {
                before = now;
                if (now_ns() > until)
                        return -1;
                while (!asleep_for_long(pid, pid))
                        if (now_ns() > until)
                                return -1;
        }
        return 0;
}

static int send_some(struct psyne_producer *p, struct random *r, int from, int to) {
        for (int n = from; n < to; n++) {
                if (psyne_send(p, 0, &n, sizeof(n), WATCHDOG_NS) < 0)
                        return -1;
                if (random_below(r, 40) == 0)
                        usleep((unsigned)random_below(r, 200));
        }
        return 0;
}

static int run(const char *receiver, int n, int seconds) {
        struct psyne_metrics metrics = {.struct_size = sizeof(metrics)};
        struct random r = random_seeded("loops");
        struct timespec rest = {.tv_sec = seconds};
        struct psyne_producer *p;
        struct psyne_channel *ch;
        char want[128], got[128] = "";
        long before, woken;
        int out[2], status;
        ssize_t bytes;
        pid_t pid;

        if (psyne_open("ipc://loops?size=16K", NULL, &ch) < 0 || psyne_producer_open(ch, NULL, &p) < 0)
                return fail("no channel");
        if (pipe(out) < 0)
                return fail("no pipe");
        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                dup2(out[1], STDOUT_FILENO);
                close(out[0]);
                close(out[1]);
                execl(receiver, receiver, "ipc://loops", NULL);
                _exit(127);
        }
        close(out[1]);
        if (psyne_wait_peers(ch, 0, 1, WATCHDOG_NS) < 0)
                return fail("the receiver does not come");
        if (send_some(p, &r, 0, n / 2) < 0 || psyne_flush(p, WATCHDOG_NS) < 0)
                return fail("a send of the first half");
        if (until_at_rest(pid) < 0)
                return fail("the receiver does not come to rest");
        before = switches(pid);
        nanosleep(&rest, NULL); /* the time is what is measured over */
        woken = switches(pid) - before;
        if (send_some(p, &r, n / 2, n) < 0 || psyne_flush(p, WATCHDOG_NS) < 0)
                return fail("a send of the second half");
        if (psyne_metrics(ch, &metrics) < 0)
                return fail("no metrics");
        if (psyne_producer_close(p) != 0)
                return fail("something was left behind");
        for (size_t at = 0; (bytes = read(out[0], got + at, sizeof(got) - 1 - at)) > 0; at += (size_t)bytes)
                ;
        close(out[0]);
        status = child_wait(pid, WATCHDOG_NS);
        psyne_close(ch);
        snprintf(want, sizeof(want), "%d messages, sum %ld\n", n, (long)n * (n - 1) / 2);
        printf("%s: %.*s, woken %ld times in %d s of rest, %llu wakes for %d messages, backstop_hits %llu\n",
                strrchr(receiver, '/') ? strrchr(receiver, '/') + 1 : receiver, (int)strcspn(got, "\n"), got, woken, seconds,
                (unsigned long long)metrics.wakes_sent, n, (unsigned long long)metrics.backstop_hits);
        if (status != 0)
                return fail("the receiver's exit status");
        if (strcmp(got, want) != 0)
                return fail("not everything came");
        if (woken != 0)
                return fail("something woke the receiver while nothing was there");
        if (metrics.backstop_hits)
                return fail("a message was found by the backstop");
        return 0;
}

int main(int argc, char **argv) {
        char dir[64];
        int r;

        setvbuf(stdout, NULL, _IOLBF, 0);
        if (argc < 2) {
                fprintf(stderr, "usage: loops RECEIVER [N [SECONDS]]\n");
                return 2;
        }
        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        r = run(argv[1], argc > 2 ? atoi(argv[2]) : 100000, argc > 3 ? atoi(argv[3]) : 2);
        remove_dir(dir);
        return r;
}
