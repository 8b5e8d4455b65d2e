/* driver.c: see driver.h. Workers die with the driver (PR_SET_PDEATHSIG) and the driver notices dead and stuck ones. */
#include "bench/driver.h"
#include "bench/env.h"
#include "bench/futex.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define STUCK_NS 10000000000ll /* no order takes longer; attaching maps and fills a few MiB */
#define LOOK_NS 200000000ll    /* how often a wait looks whether the workers still live */

struct driver {
        struct bench_control *control;
        int control_fd;
        struct contender contenders[BENCH_SLOTS_MAX];
        uint32_t serial;
        char error[256];
};

static int fail(struct driver *d, int r, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int fail(struct driver *d, int r, const char *format, ...) {
        va_list args;

        va_start(args, format);
        vsnprintf(d->error, sizeof(d->error), format, args);
        va_end(args);
        return r;
}

const char *driver_error(const struct driver *d) {
        return d->error;
}

int driver_new(struct driver **ret) {
        struct driver *d;
        int r;

        d = calloc(1, sizeof(*d));
        if (!d)
                return -ENOMEM;
        d->control_fd = memfd_create("psyne-bench-control", MFD_CLOEXEC);
        if (d->control_fd < 0 || ftruncate(d->control_fd, sizeof(*d->control)) < 0) {
                r = -errno;
                driver_free(d);
                return r;
        }
        d->control = mmap(NULL, sizeof(*d->control), PROT_READ | PROT_WRITE, MAP_SHARED, d->control_fd, 0);
        if (d->control == MAP_FAILED) {
                r = -errno;
                d->control = NULL;
                driver_free(d);
                return r;
        }
        d->control->magic = BENCH_MAGIC;
        d->control->protocol = BENCH_PROTOCOL;
        d->control->size_bytes = sizeof(*d->control);
        d->control->ticks_per_ns = env_ticks_per_ns();
        *ret = d;
        return 0;
}

/* All a detached worker has is memory, and a stuck one would not hear an order to quit. */
static void workers_end(struct contender *c) {
        for (int k = 0; k < c->n_pids; k++)
                kill(c->pids[k], SIGKILL);
        for (int k = 0; k < c->n_pids; k++)
                waitpid(c->pids[k], NULL, 0);
        c->n_pids = 0;
        c->in_use = false;
}

void driver_retire(struct driver *d, struct contender *c) {
        contender_detach(d, c);
        workers_end(c);
}

struct driver *driver_free(struct driver *d) {
        if (!d)
                return NULL;
        for (unsigned i = 0; i < BENCH_SLOTS_MAX; i++)
                if (d->contenders[i].in_use)
                        workers_end(&d->contenders[i]);
        if (d->control)
                munmap(d->control, sizeof(*d->control));
        if (d->control_fd >= 0)
                close(d->control_fd);
        free(d);
        return NULL;
}

int driver_describe(struct driver *d, const char *path, struct adapter *ret, size_t max) {
        char line[256];
        int fds[2], status;
        size_t n = 0;
        pid_t pid;
        FILE *f;
        bool more;

        if (access(path, X_OK) < 0)
                return -ENOENT;
        if (pipe2(fds, O_CLOEXEC) < 0)
                return fail(d, -errno, "pipe: %s", strerror(errno));
        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                dup2(fds[1], STDOUT_FILENO);
                execl(path, path, "--bench-describe", (char *)NULL);
                _exit(127);
        }
        close(fds[1]);
        if (pid < 0) {
                close(fds[0]);
                return fail(d, -EAGAIN, "fork: %s", strerror(errno));
        }
        f = fdopen(fds[0], "r");
        while (f && n < max && fgets(line, sizeof(line), f)) {
                struct adapter *a = &ret[n];

                memset(a, 0, sizeof(*a));
                if (sscanf(line, "%31s %47s %31s %u %u %u %u %u %u %u", a->name, a->package, a->version, &a->protocol,
                            &a->what, &a->calls, &a->modes, &a->waits, &a->over, &a->has_pauses) != 10 ||
                        a->protocol != BENCH_PROTOCOL)
                        continue;
                snprintf(a->path, sizeof(a->path), "%s", path);
                n++;
        }
        more = n == max && f && fgets(line, sizeof(line), f);
        if (f)
                fclose(f);
        waitpid(pid, &status, 0);
        if (more)
                return fail(d, -ENOSPC, "%s has more than %zu implementations", path, max);
        if (n == 0)
                return fail(d, -EPROTO, "%s does not speak this psyne-bench's worker protocol (version %u)", path,
                        BENCH_PROTOCOL);
        return (int)n;
}

/* In the child: the worker's arguments are numbers, and its two fds survive the exec. */
static void worker_exec(const struct contender *c, int control_fd, int arena_fd, const char *side, pid_t driver) {
        char control[16], arena[16], slot[16];

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* The terminal, and timeout(1), send these to all of us; the driver ends the round first. */
        signal(SIGHUP, SIG_IGN);
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        if (getppid() != driver)
                _exit(EXIT_FAILURE); /* it died before the line above */
        fcntl(control_fd, F_SETFD, 0);
        fcntl(arena_fd, F_SETFD, 0);
        snprintf(control, sizeof(control), "%d", control_fd);
        snprintf(arena, sizeof(arena), "%d", arena_fd);
        snprintf(slot, sizeof(slot), "%u", c->slot);
        execl(c->adapter.path, c->adapter.path, "--bench-worker", c->adapter.name, control, arena, slot, side,
                (char *)NULL);
        _exit(127);
}

int driver_add(struct driver *d, const struct adapter *a, const char *label, enum bench_mode mode,
        enum bench_calls calls, struct contender **ret) {
        static const char *const processes[] = {"a", "b"}, *const threads[] = {"ab"};
        const int n = mode == BENCH_THREADS ? 1 : 2;
        const pid_t self = getpid();
        struct contender *c;
        unsigned index = 0;
        int arena_fd;

        while (index < BENCH_SLOTS_MAX && d->contenders[index].in_use)
                index++;
        if (index == BENCH_SLOTS_MAX)
                return fail(d, -ENOSPC, "more than %u contenders at once", BENCH_SLOTS_MAX);
        arena_fd = memfd_create(a->name, MFD_CLOEXEC);
        if (arena_fd < 0 || ftruncate(arena_fd, BENCH_ARENA_BYTES) < 0) {
                const int r = -errno;

                if (arena_fd >= 0)
                        close(arena_fd);
                return fail(d, r, "no memory to share for %s: %s", label, strerror(-r));
        }
        c = &d->contenders[index];
        *c = (struct contender){.adapter = *a, .mode = mode, .calls = calls, .slot = index, .in_use = true};
        memset(&d->control->slot[index], 0, sizeof(d->control->slot[index]));
        snprintf(c->label, sizeof(c->label), "%s", label);
        fflush(NULL);
        for (int i = 0; i < n; i++) {
                const pid_t pid = fork();

                if (pid == 0)
                        worker_exec(
                                c, d->control_fd, arena_fd, mode == BENCH_THREADS ? threads[i] : processes[i], self);
                if (pid < 0) {
                        close(arena_fd);
                        return fail(d, -EAGAIN, "fork: %s", strerror(errno));
                }
                c->pids[c->n_pids++] = pid;
        }
        close(arena_fd);
        *ret = c;
        return 0;
}

/* -ECHILD with a sentence if a worker of this contender ended. */
static int workers_check(struct driver *d, struct contender *c) {
        int status;

        for (int i = 0; i < c->n_pids; i++) {
                const pid_t pid = c->pids[i];

                if (waitpid(pid, &status, WNOHANG) != pid)
                        continue;
                c->pids[i] = c->pids[--c->n_pids];
                if (WIFSIGNALED(status))
                        return fail(d, -ECHILD, "a worker of %s died of signal %d", c->label, WTERMSIG(status));
                return fail(d, -ECHILD, "a worker of %s ended with exit code %d", c->label, WEXITSTATUS(status));
        }
        return 0;
}

static int order(struct driver *d, struct contender *c, enum bench_order what, struct bench_answer answers[2]) {
        struct bench_slot *slot = &d->control->slot[c->slot];
        int64_t waited = 0;
        uint32_t done;
        int r;

        slot->spec.order = what;
        __atomic_store_n(&slot->done, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&slot->turn, ++c->turn, __ATOMIC_RELEASE);
        futex_wake(&slot->turn, 2);
        while ((done = __atomic_load_n(&slot->done, __ATOMIC_ACQUIRE)) != 2) {
                /* The first side to finish changes the word without a wake; that only makes this wait return early. */
                r = futex_wait(&slot->done, done, LOOK_NS);
                if (r != -ETIMEDOUT)
                        continue;
                waited += LOOK_NS;
                r = workers_check(d, c);
                if (r < 0)
                        return r;
                if (waited >= STUCK_NS)
                        return fail(d, -ETIME, "%s (%s) has not answered for %lld s: stuck, or a message was lost",
                                c->label, c->mode == BENCH_THREADS ? "threads" : "processes", STUCK_NS / 1000000000);
        }
        for (int i = 0; i < 2; i++)
                if (answers)
                        answers[i] = slot->answer[i];
        for (int i = 0; i < 2; i++)
                if (slot->answer[i].error)
                        return fail(d, -EREMOTEIO, "%.*s", (int)sizeof(slot->answer[i].text) - 1, slot->answer[i].text);
        return 0;
}

int contender_attach(
        struct driver *d, struct contender *c, const struct bench_spec *spec, struct bench_answer answers[2]) {
        struct bench_slot *slot = &d->control->slot[c->slot];
        int r;

        slot->spec = *spec;
        slot->spec.mode = c->mode;
        slot->spec.calls = c->calls;
        slot->spec.serial = ++d->serial;
        slot->spec.driver_pid = getpid();
        r = order(d, c, BENCH_ATTACH, answers);
        c->attached = r == 0;
        return r;
}

int contender_run(struct driver *d, struct contender *c, uint64_t slice_ns, struct bench_answer answers[2]) {
        d->control->slot[c->slot].spec.slice_ns = slice_ns;
        return order(d, c, BENCH_RUN, answers);
}

int contender_detach(struct driver *d, struct contender *c) {
        if (!c->attached)
                return 0;
        c->attached = false;
        return order(d, c, BENCH_DETACH, NULL);
}
