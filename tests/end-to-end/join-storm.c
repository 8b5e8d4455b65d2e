/*
 * Deaths while joining: two processes open and close the only consumer of a named group each, and are killed every few
 * milliseconds, wherever they are. A group whose member is dead takes the next one, for ever: a row left half taken must
 * not be mistaken for its slot's next owner's.
 *
 *      join-storm [KILLS]      default 300
 *      join-storm late         a survivor is stopped while it clears up after a death, and goes on when the dead one's
 *                              slot has a new owner (-Dfault_points=true)
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/world.h"

#define PATIENCE_NS (10 * SECOND)
static const char *const shapes[] = {"broadcast", "mpsc", "mpmc"};

struct page {
        uint32_t joined[2];
};
static struct page *page;

/* Ends only by being killed, or with what went wrong. */
static int joiner(const char *uri, unsigned which) {
        static const char *const names[] = {"a", "b"};
        int64_t since = now_ns();

        for (;;) {
                const struct psyne_consumer_opts opts = {.struct_size = sizeof(opts), .group = names[which]};
                struct psyne_channel *ch = NULL;
                struct psyne_consumer *c = NULL;
                struct psyne_producer *p = NULL;
                int r = psyne_open(uri, NULL, &ch);

                if (r == 0)
                        r = psyne_consumer_open(ch, &opts, &c);
                if (r == 0 && which)
                        r = psyne_producer_open(ch, NULL, &p);
                if (r == 0) {
                        __atomic_fetch_add(&page->joined[which], 1, __ATOMIC_RELAXED);
                        since = now_ns();
                } else if (now_ns() - since > PATIENCE_NS) {
                        fprintf(stderr, "%s, group %s: %s\n", uri, names[which], psyne_last_error());
                        return 1;
                }
                (void)psyne_producer_close(p);
                (void)psyne_consumer_close(c);
                psyne_close(ch);
        }
}

static pid_t start(const char *uri, unsigned which) {
        pid_t p = fork();

        if (p == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                _exit(joiner(uri, which));
        }
        return p;
}

static int storm(const char *mode, unsigned kills) {
        struct random r = random_seeded(mode);
        struct psyne_channel *keeper = NULL;
        char uri[64];
        pid_t pids[2];
        int bad = 0, status;

        snprintf(uri, sizeof(uri), "ipc://storm-%s?mode=%s&size=8K", mode, mode);
        memset(page, 0, sizeof(*page));
        fflush(NULL);
        for (unsigned i = 0; i < 2; i++)
                pids[i] = start(uri, i);
        if (psyne_open(uri, NULL, &keeper) < 0) { /* or the name would be swept between two lives */
                printf("FAIL %s: %s\n", mode, psyne_last_error());
                bad = 1;
        }
        for (unsigned n = 0; n < kills && !bad; n++) {
                unsigned i = n % 2;
                uint32_t before = __atomic_load_n(&page->joined[i], __ATOMIC_RELAXED);
                int64_t until = now_ns() + (int64_t)random_below(&r, 4 * MSEC), patience = now_ns() + 2 * PATIENCE_NS;

                /* Mostly before it is in; now and then both have to show that they still can. */
                while (now_ns() < until || (n % 16 < 2 && __atomic_load_n(&page->joined[i], __ATOMIC_RELAXED) == before)) {
                        if (waitpid(pids[i], &status, WNOHANG) == pids[i] || now_ns() > patience) {
                                printf("FAIL %s: the joiner of group %c gave up after %u kills\n", mode, 'a' + i, n);
                                bad = 1;
                                break;
                        }
                        breathe();
                }
                kill(pids[i], SIGKILL);
                waitpid(pids[i], &status, 0);
                pids[i] = start(uri, i);
        }
        for (unsigned i = 0; i < 2; i++) {
                kill(pids[i], SIGKILL);
                waitpid(pids[i], &status, 0);
        }
        psyne_close(keeper);
        printf("%-10s %u kills; %u and %u joins\n", mode, kills, page->joined[0], page->joined[1]);
        return bad;
}

/* Do all threads of @p sleep? */
static bool at_rest(pid_t p) {
        char path[64], line[256];
        bool rest = true;
        DIR *d;

        snprintf(path, sizeof(path), "/proc/%d/task", p);
        d = opendir(path);
        for (struct dirent *e; d && (e = readdir(d)) && rest;) {
                FILE *f;

                if (e->d_name[0] == '.')
                        continue;
                snprintf(path, sizeof(path), "/proc/%d/task/%.20s/stat", p, e->d_name);
                f = fopen(path, "re");
                rest = f && fgets(line, sizeof(line), f) && strrchr(line, ')') && strrchr(line, ')')[2] == 'S';
                if (f)
                        fclose(f);
        }
        if (d)
                closedir(d);
        return rest;
}

/* Opens the only consumer of a group and sleeps until it is killed. */
static int holder(const char *uri, unsigned which) {
        const struct psyne_consumer_opts opts = {.struct_size = sizeof(opts), .group = "a"};
        struct psyne_channel *ch;
        struct psyne_consumer *c;

        if (psyne_open(uri, NULL, &ch) < 0 || (which && psyne_consumer_open(ch, &opts, &c) < 0)) {
                fprintf(stderr, "%s\n", psyne_last_error());
                return 1;
        }
        __atomic_fetch_add(&page->joined[which], 1, __ATOMIC_SEQ_CST);
        for (;;)
                pause();
}

/* Waits until it holds, or has stopped where it was told to. */
static pid_t hold(const char *uri, unsigned which, const char *fault) {
        uint32_t before = __atomic_load_n(&page->joined[which], __ATOMIC_SEQ_CST);
        int64_t until = now_ns() + PATIENCE_NS;
        pid_t p;
        int status;

        fflush(NULL);
        p = fork();
        if (p == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (fault) {
                        setenv("PSYNE_FAULT", fault, 1);
                        setenv("PSYNE_FAULT_STOP", "1", 1);
                }
                _exit(holder(uri, which));
        }
        while (__atomic_load_n(&page->joined[which], __ATOMIC_SEQ_CST) == before && now_ns() < until) {
                if (waitpid(p, &status, WNOHANG | WUNTRACED) == p)
                        return WIFSTOPPED(status) ? p : -1;
                breathe();
        }
        return now_ns() < until ? p : -1;
}

static void end(pid_t p) {
        if (p <= 0)
                return;
        kill(p, SIGKILL);
        waitpid(p, NULL, 0);
}

static int late(void) {
        static const char uri[] = "ipc://late?mode=broadcast&size=8K";
        const struct psyne_opts quiet = {.struct_size = sizeof(quiet), .flags = PSYNE_NO_THREAD};
        struct psyne_channel *keeper; /* of the name; clears up after nobody */
        int64_t until = now_ns() + PATIENCE_NS;
        pid_t survivor, first, second, third = -1, other;
        int status;

        if (!FAULT_POINTS[0]) {
                printf("SKIP: no stop points are compiled in (meson setup -Dfault_points=true)\n");
                return 77;
        }
        if (psyne_open(uri, &quiet, &keeper) < 0) {
                printf("FAIL late: %s\n", psyne_last_error());
                return 1;
        }
        survivor = hold(uri, 0, "died.after:1");
        first = hold(uri, 1, NULL);
        end(first); /* the survivor's service clears up after it, and stops there */
        if (waitpid(survivor, &status, WUNTRACED) != survivor || !WIFSTOPPED(status)) {
                printf("FAIL late: the survivor did not stop\n");
                return 1;
        }
        second = hold(uri, 1, "member.claimed:1"); /* and stops while it is joining */
        kill(survivor, SIGCONT);
        while (!at_rest(survivor) && now_ns() < until)
                breathe();
        end(survivor); /* before it notices the second death: the row is for the next to find */
        end(second);
        other = hold(uri, 0, NULL); /* in the survivor's slot, so that the next takes the dead one's */
        if (second > 0)
                third = hold(uri, 1, NULL);
        printf("%s late: the group of a dead consumer %s\n", third > 0 ? "ok" : "FAIL",
                third > 0 ? "takes the next" : "stays taken");
        end(third);
        end(other);
        psyne_close(keeper);
        return third <= 0;
}

int main(int argc, char **argv) {
        unsigned kills = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 300;
        char dir[64];
        int bad = 0;

        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
                return 1;
        if (argc > 1 && !strcmp(argv[1], "late"))
                bad = late();
        else
                for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
                        bad |= storm(shapes[i], kills);
        remove_dir(dir);
        return bad;
}
