/* run.c: find everybody who can take part, choose CPUs, and put contenders into tables. */
#include "bench/run.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef BENCH_PEERDIR
#define BENCH_PEERDIR "" /* where adapters are installed; the build says */
#endif

/* The libraries we know an adapter for, so that a missing one can be named with what would bring it. */
static const struct {
        const char *name, *package;
        unsigned what;
        enum bench_over over;
} known_peers[] = {
        {"atomic-queue", "libatomic-queue-dev", BENCH_LAT | BENCH_RATE, BENCH_MEMORY},
        {"atomic-queue-many", "libatomic-queue-dev", BENCH_MODES, BENCH_MEMORY},
        {"boost-queue", "libboost-dev", BENCH_MODES, BENCH_MEMORY},
        {"boost-spsc", "libboost-dev", BENCH_LAT | BENCH_RATE, BENCH_MEMORY},
        {"concurrentqueue", "libconcurrentqueue-dev", BENCH_MODES, BENCH_MEMORY},
        {"nng-tcp", "libnng-dev", BENCH_LAT | BENCH_RATE, BENCH_TCP},
        {"rte-ring", "libdpdk-dev", BENCH_LAT | BENCH_RATE, BENCH_MEMORY},
        {"rte-ring-many", "libdpdk-dev", BENCH_MODES, BENCH_MEMORY},
        {"rwq", "libreaderwriterqueue-dev", BENCH_LAT | BENCH_RATE, BENCH_MEMORY},
        {"zmq-tcp", "libzmq3-dev", BENCH_LAT | BENCH_RATE, BENCH_TCP},
};

static int complain(int r, const char *sentence) {
        fprintf(stderr, "psyne-bench: %s\n", sentence);
        return r;
}

/* True if `name` is one of the comma-separated words. */
static bool list_has(const char *list, const char *name) {
        const size_t n = strlen(name);

        for (const char *p = list; *p; p += *p == ',') {
                const size_t word = strcspn(p, ",");

                if (word == n && !strncmp(p, name, n))
                        return true;
                p += word;
        }
        return false;
}

/* ---- CPUs ------------------------------------------------------------------------------------------------------- */

/* The first two of the inherited mask, unless asked otherwise: numactl -C decides. */
static int run_cpus(struct run *r) {
        const struct run_options *o = &r->options;
        int *cpus = r->report.cpus, found = 0;
        char sentence[160];
        cpu_set_t set;

        CPU_ZERO(&set);
        if (sched_getaffinity(0, sizeof(set), &set) < 0)
                return complain(-errno, "cannot read this process's CPU affinity");
        cpus[0] = cpus[1] = -1;
        for (int i = 0; i < CPU_SETSIZE && found < 2; i++)
                if (CPU_ISSET((size_t)i, &set))
                        cpus[found++] = i;
        for (int k = 0; k < 2; k++) {
                if (o->cpus[k] < 0)
                        continue;
                if (o->cpus[k] >= CPU_SETSIZE || !CPU_ISSET((size_t)o->cpus[k], &set)) {
                        snprintf(sentence, sizeof(sentence),
                                "CPU %d is not one this process may use (taskset, numactl or a cpuset says so)",
                                o->cpus[k]);
                        return complain(-EINVAL, sentence);
                }
                cpus[k] = o->cpus[k];
        }
        if (o->same_cpu) {
                cpus[1] = cpus[0];
                return 0;
        }
        if (cpus[1] < 0 || cpus[0] == cpus[1])
                return complain(-EINVAL,
                        "needs two CPUs and may use only one: both sides spin, and on one CPU they would measure the "
                        "scheduler's time slice (floor --same-cpu and wake --same-cpu are for one)");
        return 0;
}

/* ---- who is here ------------------------------------------------------------------------------------------------ */

static void run_add_adapters(struct run *r, const struct adapter *a, int n, bool is_peer, bool is_against) {
        for (int i = 0; i < n && r->n_adapters < RUN_ADAPTERS_MAX; i++) {
                const bool is_psyne = !is_peer && !strncmp(a[i].name, "psyne", 5);

                if (is_against && !is_psyne)
                        continue; /* its floors are the same as ours */
                r->adapters[r->n_adapters].adapter = a[i];
                r->adapters[r->n_adapters].is_peer = is_peer;
                r->adapters[r->n_adapters].is_psyne = is_psyne;
                r->adapters[r->n_adapters].is_against = is_against;
                r->adapters[r->n_adapters].is_floor =
                        !is_peer && (!strcmp(a[i].name, "floor") || !strcmp(a[i].name, "futex") || !strcmp(a[i].name, "tcp-floor"));
                r->n_adapters++;
        }
}

/* Looks for psyne-peer-NAME where it may have been put; ret is empty if it is nowhere. */
static void find_peer(const struct run *r, const char *name, char *ret, size_t size) {
        const char *env = getenv("PSYNE_BENCH_PEERS");
        char self[400];
        ssize_t n;

        if (strchr(name, '/')) {
                snprintf(ret, size, "%s", name);
                return;
        }
        n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        self[n > 0 ? n : 0] = 0;
        if (strrchr(self, '/'))
                *strrchr(self, '/') = 0;

        /* As asked; then beside this program in a build tree; then where they are installed. */
        const char *const places[][2] = {
                {r->options.peer_dir ? r->options.peer_dir : "", ""},
                {env ? env : "", ""},
                {self, "/../benchmarks/peers"},
                {self, "/../benchmarks"},
                {self, ""},
                {BENCH_PEERDIR, ""},
        };
        for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
                if (!places[i][0][0])
                        continue;
                if (snprintf(ret, size, "%s%s/psyne-peer-%s", places[i][0], places[i][1], name) >= (int)size)
                        continue;
                if (access(ret, X_OK) == 0)
                        return;
        }
        ret[0] = 0;
}

static int run_add_peer(struct run *r, const char *name, const char *package) {
        struct adapter a[4];
        char path[512];
        int n;

        find_peer(r, name, path, sizeof(path));
        n = path[0] ? driver_describe(r->driver, path, a, 4) : -ENOENT;
        if (n == -ENOENT && package)
                report_missing(&r->report, name,
                        "not here; its adapter is built when the Debian package %s is installed", package);
        else if (n == -ENOENT)
                report_missing(&r->report, name, "no such adapter");
        else if (n < 0)
                report_missing(&r->report, name, "%s", driver_error(r->driver));
        else
                run_add_adapters(r, a, n, true, false);
        return 0;
}

static void run_add_peers(struct run *r, unsigned what, enum bench_over over) {
        const char *list = r->options.peers;

        if (list && !strcmp(list, "none"))
                return;
        for (size_t i = 0; i < sizeof(known_peers) / sizeof(*known_peers); i++)
                if ((known_peers[i].what & what) && known_peers[i].over == over && (!list || list_has(list, known_peers[i].name)))
                        run_add_peer(r, known_peers[i].name, known_peers[i].package);
        for (const char *p = list ? list : ""; *p; p += *p == ',') {
                const size_t word = strcspn(p, ",");
                char name[256];
                bool known = false;

                snprintf(name, sizeof(name), "%.*s", (int)word, p);
                for (size_t i = 0; i < sizeof(known_peers) / sizeof(*known_peers); i++)
                        known = known || !strcmp(known_peers[i].name, name);
                if (!known && name[0])
                        run_add_peer(r, name, NULL);
                p += word;
        }
}

static int run_add_own(struct run *r, const char *path, bool is_against) {
        struct adapter a[16];
        char sentence[320];
        int n;

        n = driver_describe(r->driver, path, a, sizeof(a) / sizeof(*a));
        if (n < 0) {
                snprintf(sentence, sizeof(sentence), "%s",
                        n == -ENOENT ? "--against names no executable" : driver_error(r->driver));
                return complain(n, sentence);
        }
        run_add_adapters(r, a, n, false, is_against);
        return 0;
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

/*
 * Channels between processes have names in a directory. A worker that is killed leaves its own behind, so they get a
 * directory of this run, unless PSYNE_DIR says where they are to be seen.
 */
static void run_directory_make(struct run *r) {
        if (getenv("PSYNE_DIR"))
                return;
        snprintf(r->directory, sizeof(r->directory), "/dev/shm/psyne-bench-XXXXXX");
        if (mkdtemp(r->directory))
                setenv("PSYNE_DIR", r->directory, 1);
        else
                r->directory[0] = 0; /* the library's default will do */
}

static void run_directory_remove(struct run *r) {
        struct dirent *entry;
        DIR *d;

        d = r->directory[0] ? opendir(r->directory) : NULL;
        if (!d)
                return;
        while ((entry = readdir(d)))
                if (entry->d_name[0] != '.')
                        unlinkat(dirfd(d), entry->d_name, 0);
        closedir(d);
        rmdir(r->directory);
}

/* ---- probe ------------------------------------------------------------------------------------------------------ */

static int run_probe_start(struct run *r) {
        const struct bench_spec spec = {
                .what = BENCH_LAT,
                .wait = BENCH_WAIT_SPIN,
                .size = 8,
                .ring_bytes = 64u << 10,
                .cpu = {r->report.cpus[0], r->report.cpus[1]},
        };
        int err = -ENOENT;

        r->probes.below_ns = r->options.siblings_below_ns;
        r->report.probes = &r->probes;
        if (r->options.same_cpu)
                return 0;
        for (unsigned i = 0; i < r->n_adapters; i++)
                if (!strcmp(r->adapters[i].adapter.name, "line"))
                        err = driver_add(r->driver, &r->adapters[i].adapter, "line", BENCH_PROCESSES, BENCH_SINGLE,
                                &r->probes.line);
        if (err == 0)
                err = probe_start(r->driver, &r->probes, &spec);
        return err < 0 ? complain(err, driver_error(r->driver)) : 0;
}

int run_init(struct run *r, const struct run_options *o, const char *command, unsigned peers_for, enum bench_over over) {
        int err;

        r->options = *o;
        snprintf(r->report.command, sizeof(r->report.command), "%s", command);
        err = run_cpus(r);
        if (err < 0)
                return err;
        env_read(&r->report.env);
        run_directory_make(r);
        err = driver_new(&r->driver);
        if (err < 0)
                return complain(err, "cannot make the page that the driver and its workers share");
        err = run_add_own(r, "/proc/self/exe", false);
        if (err == 0 && o->against)
                err = run_add_own(r, o->against, true);
        if (err < 0)
                return err;
        if (peers_for)
                run_add_peers(r, peers_for, over);
        return run_probe_start(r);
}

void run_deinit(struct run *r) {
        r->driver = driver_free(r->driver);
        run_directory_remove(r);
        for (unsigned i = 0; i < r->report.n_tables; i++)
                table_free((struct table *)(uintptr_t)r->report.tables[i]);
        r->report.n_tables = 0;
}

/* ---- tables ----------------------------------------------------------------------------------------------------- */

int run_row(
        struct run *r, struct table *t, unsigned i, enum bench_mode mode, enum bench_calls calls, struct row **ret) {
        const struct adapter *a = &r->adapters[i].adapter;
        struct contender *c;
        struct row *row;
        char label[48];
        int err;

        snprintf(label, sizeof(label), "%s%s", a->name, r->adapters[i].is_against ? ":against" : "");
        err = driver_add(r->driver, a, label, mode, calls, &c);
        if (err < 0)
                return complain(err, driver_error(r->driver));
        row = table_add(t, c);
        if (!row)
                return complain(-ENOSPC, "too many rows in one table");
        row->is_floor = r->adapters[i].is_floor;
        row->is_psyne = r->adapters[i].is_psyne;
        row->is_against = r->adapters[i].is_against;
        *ret = row;
        return 0;
}

/* Only when it is named: the kernel's threads of a sqpoll run on, and take the CPU from whoever is measured next. */
static bool only_by_name(const struct adapter *a) {
        return strcmp(a->name, "sqpoll") == 0;
}

bool run_takes_part(const struct run *r, const struct table *t, unsigned i) {
        const struct adapter *a = &r->adapters[i].adapter;

        return (a->what & t->spec.what) && (a->waits & t->spec.wait) && a->over == t->spec.over &&
               (r->options.impls ? list_has(r->options.impls, a->name) : !only_by_name(a));
}

/* Whoever can do it, in every kind of call that it has; psyne in both modes, others between processes if they can. */
static int run_rows(struct run *r, struct table *t) {
        struct row *row;

        for (unsigned i = 0; i < r->n_adapters; i++) {
                const struct adapter *a = &r->adapters[i].adapter;

                if (r->floors_only && r->adapters[i].is_psyne)
                        continue;
                if (!run_takes_part(r, t, i) || !strcmp(a->name, "line"))
                        continue;
                for (unsigned mode = BENCH_PROCESSES; mode <= BENCH_THREADS; mode <<= 1) {
                        if (!(a->modes & mode) ||
                                (mode == BENCH_THREADS && (a->modes & BENCH_PROCESSES) && !r->adapters[i].is_psyne))
                                continue;
                        for (unsigned calls = BENCH_SINGLE; calls <= BENCH_BULK; calls <<= 1) {
                                int err;

                                /* A ping-pong never has two messages to handle at once. */
                                if (!(a->calls & calls) || (calls == BENCH_BULK && t->spec.what != BENCH_RATE &&
                                                                   (a->calls & BENCH_SINGLE)))
                                        continue;
                                /* And there is one floor: one way, the bare ring that publishes in runs. */
                                if (r->adapters[i].is_floor && calls == BENCH_SINGLE && t->spec.what == BENCH_RATE)
                                        continue;
                                err = run_row(r, t, i, (enum bench_mode)mode, (enum bench_calls)calls, &row);
                                if (err < 0)
                                        return err;
                        }
                }
        }
        return 0;
}

static void run_progress(const struct table *t, unsigned round) {
        fprintf(stderr, "\r%s %llu bytes: round %u ", t->bench, (unsigned long long)t->spec.size, round);
        fflush(stderr);
}

int run_table(struct run *r, const char *bench, const char *title, const struct bench_spec *spec) {
        return run_table_with(r, bench, title, spec, run_rows);
}

int run_table_with(struct run *r, const char *bench, const char *title, const struct bench_spec *spec,
        int (*add_rows)(struct run *r, struct table *t)) {
        const struct table_options options = {
                .rounds = r->options.rounds,
                .slice_ns = (uint64_t)(r->report.slice_ms * 1e6),
                .ring_bytes = r->options.ring_bytes,
                .interrupted = r->interrupted,
                .progress = r->options.quiet ? NULL : run_progress,
        };
        struct table *t;
        int err;

        t = table_new(bench, title, spec);
        if (!t || r->report.n_tables == REPORT_TABLES_MAX) {
                table_free(t);
                return complain(-ENOMEM, "no memory for another table");
        }
        err = add_rows(r, t);
        if (err == 0 && t->n_rows == 0) {
                table_free(t);
                return 0;
        }
        if (err == 0) {
                err = table_measure(t, r->driver, spec->cpu[0] == spec->cpu[1] ? &r->no_probes : &r->probes, &options);
                if (err < 0 && err != -EINTR)
                        complain(err, driver_error(r->driver));
        }
        if (err < 0 && (err != -EINTR || t->n_rounds == 0)) {
                table_free(t);
                return err;
        }
        /* The slots of a table are free for the next one; the workers of this are done. */
        for (unsigned i = 0; i < t->n_rows; i++)
                driver_retire(r->driver, t->rows[i].contender);
        r->report.tables[r->report.n_tables++] = t;
        if (!r->options.quiet)
                fprintf(stderr, "\r\033[K");
        report_table(&r->report, t, r->text);
        return err; /* interrupted: what was measured until then is shown */
}
