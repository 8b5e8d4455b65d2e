/* See world.h. */
#include "world.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <malloc.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FAILED_SKIP 3u
#define RUN_NS (50 * SECOND) /* a whole body; its single waits have WATCHDOG_NS */

const struct mode modes[] = {
        [MODE_spsc] = {.name = "spsc", .mode = PSYNE_SPSC},
        [MODE_mpsc] = {.name = "mpsc", .mode = PSYNE_MPSC, .many_producers = true},
        [MODE_spmc] = {.name = "spmc", .mode = PSYNE_SPMC, .many_consumers = true},
        [MODE_mpmc] = {.name = "mpmc", .mode = PSYNE_MPMC, .many_producers = true, .many_consumers = true},
        [MODE_broadcast] = {.name = "broadcast", .mode = PSYNE_BROADCAST, .many_producers = true, .many_consumers = true, .each_sees_all = true},
};

int64_t now_ns(void) {
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (int64_t)ts.tv_sec * SECOND + ts.tv_nsec;
}

void breathe(void) {
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

bool under_sanitizer(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
        return true;
#else
        return false;
#endif
}

bool sentence_is_new(const char *stale) {
        const char *now = psyne_last_error();

        return now[0] && strcmp(now, "no error") != 0 && strcmp(now, stale) != 0;
}

/* ---- counting --------------------------------------------------------------------------------------------------- */

unsigned count_files(const char *dir) {
        DIR *d = opendir(dir);
        struct dirent *e;
        unsigned n = 0;

        if (!d)
                return 0;
        while ((e = readdir(d)))
                n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
        closedir(d);
        return n;
}

unsigned count_fds(void) {
        return count_files("/proc/self/fd"); /* one of them is the directory itself, each time */
}

static FILE *open_maps(void) {
        return fopen("/proc/self/maps", "re");
}

unsigned count_maps(const char *containing) {
        FILE *f = open_maps();
        char line[4400];
        unsigned n = 0;

        while (f && fgets(line, sizeof(line), f))
                n += !containing || strstr(line, containing);
        if (f)
                fclose(f);
        return n;
}

void print_maps(void) {
        FILE *f = open_maps();
        char line[4400];

        while (f && fgets(line, sizeof(line), f))
                fputs(line, stderr);
        if (f)
                fclose(f);
}

void print_fds(void) {
        for (int fd = 0; fd < 1024; fd++) {
                char path[64], to[256];
                ssize_t n;

                snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
                n = readlink(path, to, sizeof(to) - 1);
                if (n > 0)
                        fprintf(stderr, "fd %d %.*s\n", fd, (int)n, to);
        }
}

static unsigned count_psyne_maps(void) {
        return count_maps("psyne") - count_maps("libpsyne") + count_maps(".psy");
}

char task_state(pid_t pid, pid_t tid) {
        char path[64], text[512] = "", *p = NULL;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
        f = fopen(path, "re");
        if (!f)
                return 0;
        if (fgets(text, sizeof(text), f))
                p = strrchr(text, ')'); /* the name may hold anything */
        fclose(f);
        return p && p[1] ? p[2] : 0;
}

bool asleep_for_long(pid_t pid, pid_t tid) {
        for (unsigned i = 0; i < 50; i++) {
                if (task_state(pid, tid) != 'S')
                        return false;
                breathe();
        }
        return true;
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

struct random random_seeded(const char *what) {
        const char *text = getenv("PSYNE_SEED");
        struct random r = {text ? strtoull(text, NULL, 0) : (uint64_t)now_ns()};

        fprintf(stderr, "%s: PSYNE_SEED=%llu\n", what, (unsigned long long)r.state);
        return r;
}

uint64_t random_next(struct random *r) { /* splitmix64 */
        uint64_t z = r->state += 0x9e3779b97f4a7c15u;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
}

uint64_t random_below(struct random *r, uint64_t n) {
        return n ? random_next(r) % n : 0;
}

static unsigned char pattern_byte(uint64_t sequence, size_t i) {
        return (unsigned char)((sequence * 2654435761u + i * 40503u) >> 7 ^ sequence >> 3);
}

void pattern_fill(void *data, size_t n, uint64_t sequence) {
        unsigned char *p = data;

        for (size_t i = 0; i < n; i++)
                p[i] = pattern_byte(sequence, i);
}

bool pattern_is(const void *data, size_t n, uint64_t sequence) {
        const unsigned char *p = data;

        for (size_t i = 0; i < n; i++)
                if (p[i] != pattern_byte(sequence, i))
                        return false;
        return true;
}

/* ---- directories and children ----------------------------------------------------------------------------------- */

int private_dir(char *ret, size_t n) {
        snprintf(ret, n, "/dev/shm/psyne-test-XXXXXX");
        if (!mkdtemp(ret))
                return -errno;
        return setenv("PSYNE_DIR", ret, 1) < 0 ? -errno : 0;
}

void remove_dir(const char *dir) {
        DIR *d = opendir(dir);
        struct dirent *e;

        while (d && (e = readdir(d)))
                if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
                        unlinkat(dirfd(d), e->d_name, 0);
        if (d)
                closedir(d);
        rmdir(dir);
}

int child_wait(pid_t pid, int64_t timeout_ns) {
        int64_t until = now_ns() + timeout_ns;
        bool late = false;
        int status;

        for (;;) {
                pid_t p = waitpid(pid, &status, late ? 0 : WNOHANG);

                if (p < 0 && errno != EINTR)
                        return -errno;
                if (p == pid)
                        break;
                if (!late && now_ns() > until) {
                        late = true;
                        kill(pid, SIGKILL);
                }
                if (!late)
                        breathe();
        }
        if (late)
                return -ETIME;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- worlds ----------------------------------------------------------------------------------------------------- */

static bool fails_first(struct world *w) {
        uint32_t no = 0;

        return __atomic_compare_exchange_n(&w->page->failed, &no, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

int world_fail(struct world *w, const char *file, int line, const char *format, ...) {
        const char *base = strrchr(file, '/'), *sentence = psyne_last_error();
        char text[700];
        va_list ap;

        if (!fails_first(w))
                return -1; /* the first failure is the cause, this one its consequence */
        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        snprintf(w->page->failure, sizeof(w->page->failure), "%s:%d: %s (last error: %s)", base ? base + 1 : file, line,
                text, sentence && sentence[0] ? sentence : "none");
        __atomic_store_n(&w->page->failed, 2, __ATOMIC_RELEASE);
        return -1;
}

void world_reach(struct world *w, uint32_t step) {
        __atomic_store_n(&w->page->step, step, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, &w->page->step, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

int world_await(struct world *w, uint32_t step, const char *file, int line) {
        int64_t until = now_ns() + WATCHDOG_NS;
        uint32_t now;

        while ((now = __atomic_load_n(&w->page->step, __ATOMIC_SEQ_CST)) < step) {
                struct timespec nap = {.tv_nsec = 20 * MSEC};

                if (__atomic_load_n(&w->page->failed, __ATOMIC_ACQUIRE))
                        return -1;
                if (now_ns() > until)
                        return world_fail(w, file, line, "the other side stands at step %u, not %u", now, step);
                syscall(SYS_futex, &w->page->step, FUTEX_WAIT, now, &nap, NULL, 0);
        }
        return 0;
}

bool engine_is_there(const char *engine) {
        int status = 1;
        pid_t pid;

        fflush(NULL);
        pid = fork(); /* an engine is a choice of the whole process */
        if (pid == 0) {
                struct psyne_channel *ch;
                char uri[64];

                snprintf(uri, sizeof(uri), "memory://?engine=%s", engine);
                if (psyne_open(uri, NULL, &ch) < 0) {
                        printf("engine=%s: SKIP, %s\n", engine, psyne_last_error());
                        fflush(stdout);
                        _exit(1);
                }
                _exit(0);
        }
        return waitpid(pid, &status, 0) == pid && status == 0;
}

int world_skip(struct world *w, const char *why) {
        if (fails_first(w)) {
                snprintf(w->page->failure, sizeof(w->page->failure), "%s", why);
                __atomic_store_n(&w->page->failed, FAILED_SKIP, __ATOMIC_RELEASE);
        }
        return -1;
}

bool world_skipped(const struct world *w) {
        return __atomic_load_n(&w->page->failed, __ATOMIC_ACQUIRE) == FAILED_SKIP;
}

/* Of @query, what both ends have to agree about. */
static void keep_shape(struct world *w, const char *query) {
        static const char *const keys[] = {"size=", "align=", "type=", "elem=", "hash="};
        size_t at = 0;

        for (const char *pair = query; pair && *pair; pair = strchr(pair, '&') ? strchr(pair, '&') + 1 : NULL)
                for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
                        if (strncmp(pair, keys[i], strlen(keys[i])) == 0)
                                at += (size_t)snprintf(w->page->shape + at, sizeof(w->page->shape) - at, "&%.*s",
                                        (int)strcspn(pair, "&"), pair);
}

/*
 * PSYNE_TEST_HOSTS="NAME ADDRESS NAME ADDRESS": two network name spaces, as ip-netns(8) makes them, and the address of each
 * at the other: side a lives in the first, side b in the second.
 */
static bool two_hosts(int side, char own[64], char other[64]) {
        const char *text = getenv("PSYNE_TEST_HOSTS");
        char names[2][64], addresses[2][64];

        if (!text || sscanf(text, "%63s %63s %63s %63s", names[0], addresses[0], names[1], addresses[1]) != 4)
                return false;
        memcpy(own, side ? names[1] : names[0], 64);
        memcpy(other, side ? addresses[0] : addresses[1], 64);
        return true;
}

static int my_side;

static int move_to_host(int side) {
        char name[64], other[64], path[128];
        int fd, r;

        my_side = side;
        if (!two_hosts(side, name, other))
                return 0;
        snprintf(path, sizeof(path), "/run/netns/%s", name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = setns(fd, CLONE_NEWNET) < 0 ? -errno : 0;
        close(fd);
        return r;
}

int world_open_as(struct world *w, enum world_role role, const char *query, struct psyne_channel **ret) {
        const char *more = getenv("PSYNE_TEST_LINK"); /* the whole suite with such links: inline=1&wait=spin */
        char uri[512], own[64], other[64];
        int r;

        if (w->scheme != SCHEME_TCP_TWO)
                return world_open(w, query, ret);
        if (query && !w->page->shape[0])
                keep_shape(w, query);
        if (two_hosts(my_side, own, other))
                snprintf(uri, sizeof(uri), "tcp://%s%s", role == ROLE_SENDS ? other : "0.0.0.0", strrchr(w->uri, ':'));
        else
                snprintf(uri, sizeof(uri), "%s", w->uri);
        snprintf(uri + strlen(uri), sizeof(uri) - strlen(uri), "?role=%s%s%s%s", role == ROLE_SENDS ? "connect" : "listen",
                query ? "&" : "", query ? query : "",
                query && (strstr(query, "size=") || strstr(query, "align=")) ? "" : w->page->shape);
        if (more) /* its wait only where the body has none of its own */
                snprintf(uri + strlen(uri), sizeof(uri) - strlen(uri), "&%.*s",
                        query && strstr(query, "wait=") ? (int)strcspn(more, "&") : (int)strlen(more), more);
        r = psyne_open(uri, PSYNE_OPTS(.mode = w->mode->mode), ret);
        if (r < 0)
                fprintf(stderr, "%s: %s\n", uri, psyne_last_error());
        return r;
}

int world_open(struct world *w, const char *query, struct psyne_channel **ret) {
        const char *more = getenv("PSYNE_TEST_ENGINE"); /* the whole suite on another engine: engine=eventfd */
        char uri[256];

        if (w->scheme == SCHEME_TCP_TWO)
                return world_skip(w, "it has both ends in one process, or asks who is at the other");

        if (more && !(query && (strstr(query, "engine=") || strstr(query, "nothread"))))
                snprintf(uri, sizeof(uri), "%s?%s%s%s", w->uri, more, query ? "&" : "", query ? query : "");
        else
                snprintf(uri, sizeof(uri), "%s%s%s", w->uri, query ? "?" : "", query ? query : "");
        return psyne_open(uri, PSYNE_OPTS(.mode = w->mode->mode), ret);
}

/* One that nobody listens on: both ends have to know it before the first of them is there. Below the range from which
 * the kernel takes ports for those who connect (32768 by default), or one of them may have it by then. */
static unsigned free_port(void) {
        for (unsigned i = 0; i < 12000; i++) {
                unsigned port = 20000 + ((unsigned)getpid() * 7 + i) % 12000;
                struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
                int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
                bool is_free = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;

                if (fd >= 0)
                        close(fd);
                if (is_free)
                        return port;
        }
        return 0;
}

int world_init(struct world *w, enum scheme scheme, const struct mode *mode) {
        int r;

        *w = (struct world){.scheme = scheme, .mode = mode};
        mallopt(M_ARENA_MAX, 1); /* or the number of maps depends on which thread allocates first */
        r = private_dir(w->dir, sizeof(w->dir));
        if (r < 0)
                return r;
        snprintf(w->name, sizeof(w->name), "t-%s", mode->name);
        if (scheme == SCHEME_TCP_TWO)
                snprintf(w->uri, sizeof(w->uri), "tcp://127.0.0.1:%u/%s", free_port(), w->name);
        else
                snprintf(w->uri, sizeof(w->uri), "%s://%s", scheme == SCHEME_MEMORY ? "memory" : "ipc", w->name);
        w->page = mmap(NULL, sizeof(*w->page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (w->page == MAP_FAILED) {
                w->page = NULL;
                return -errno;
        }
        return 0;
}

void world_deinit(struct world *w) {
        remove_dir(w->dir);
        /* The page stays: a thread that hangs may still look at it. */
}

/* What stays for good after the first use: the thread's own ring, registrations, cached stacks. */
static void warm_up(void) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_consumer *c;

        if (psyne_open("ipc://warm?size=4096", NULL, &ch) < 0)
                return;
        if (psyne_producer_open(ch, NULL, &p) == 0)
                psyne_producer_close(p);
        if (psyne_consumer_open(ch, NULL, &c) == 0)
                psyne_consumer_close(c);
        psyne_close(ch);
}

struct run {
        struct world *w;
        side_fn side;
        pthread_t thread;
        pid_t pid;
        int result;
};

static int counted(struct run *r) {
        unsigned fds, maps;
        int result;

        warm_up();
        fds = count_fds();
        maps = count_psyne_maps();
        result = r->side(r->w);
        if (result < 0 || __atomic_load_n(&r->w->page->failed, __ATOMIC_ACQUIRE))
                return -1;
        if (count_fds() != fds) {
                print_fds();
                return world_fail(r->w, __FILE__, __LINE__, "%u descriptors before, %u after", fds, count_fds());
        }
        if (count_psyne_maps() != maps) {
                print_maps();
                return world_fail(r->w, __FILE__, __LINE__, "%u maps before, %u after", maps, count_psyne_maps());
        }
        return 0;
}

static void *thread_main(void *arg) {
        struct run *r = arg;

        warm_up(); /* this thread's ring; it goes with the thread */
        r->result = r->side(r->w);
        return NULL;
}

static int run_threads(struct world *w, struct run runs[], unsigned n) {
        unsigned fds, maps;

        warm_up();
        fds = count_fds();
        maps = count_psyne_maps();
        for (unsigned i = 0; i < n; i++)
                if (pthread_create(&runs[i].thread, NULL, thread_main, &runs[i]))
                        return world_fail(w, __FILE__, __LINE__, "no thread to be had");
        for (unsigned i = 0; i < n; i++) {
                struct timespec until;

                clock_gettime(CLOCK_REALTIME, &until);
                until.tv_sec += RUN_NS / SECOND;
                /* A side that has failed leaves the other one waiting: it need not come back. */
                while (pthread_tryjoin_np(runs[i].thread, NULL)) {
                        struct timespec now;

                        clock_gettime(CLOCK_REALTIME, &now);
                        if (__atomic_load_n(&w->page->failed, __ATOMIC_ACQUIRE) == 2)
                                return -1;
                        if (now.tv_sec > until.tv_sec)
                                return world_fail(w, __FILE__, __LINE__, "side %c hangs", 'a' + (int)i);
                        breathe();
                }
                if (runs[i].result < 0)
                        return -1;
        }
        if (count_fds() != fds) {
                print_fds();
                return world_fail(w, __FILE__, __LINE__, "%u descriptors before, %u after", fds, count_fds());
        }
        if (count_psyne_maps() != maps) {
                print_maps();
                return world_fail(w, __FILE__, __LINE__, "%u maps before, %u after", maps, count_psyne_maps());
        }
        return 0;
}

static int run_processes(struct world *w, struct run runs[], unsigned n) {
        int64_t until = now_ns() + RUN_NS;
        bool open[2] = {false, false};

        for (unsigned i = 0; i < n; i++) {
                fflush(NULL);
                runs[i].pid = fork();
                if (runs[i].pid < 0)
                        return world_fail(w, __FILE__, __LINE__, "fork: %s", strerror(errno));
                if (runs[i].pid == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        if (w->scheme == SCHEME_TCP_TWO && move_to_host((int)i) < 0)
                                _exit(2);
                        _exit(counted(&runs[i]) < 0 ? 1 : 0);
                }
                open[i] = true;
        }
        while (open[0] || open[1])
                for (unsigned i = 0; i < n; i++) {
                        int status;

                        if (!open[i])
                                continue;
                        if (waitpid(runs[i].pid, &status, WNOHANG) == runs[i].pid) {
                                open[i] = false;
                                if (!WIFEXITED(status))
                                        world_fail(w, __FILE__, __LINE__, "side %c died of signal %d", 'a' + (int)i,
                                                WTERMSIG(status));
                                else if (WEXITSTATUS(status))
                                        world_fail(w, __FILE__, __LINE__, "side %c exited with %d", 'a' + (int)i,
                                                WEXITSTATUS(status));
                                continue;
                        }
                        if (now_ns() > until)
                                world_fail(w, __FILE__, __LINE__, "side %c hangs", 'a' + (int)i);
                        if (__atomic_load_n(&w->page->failed, __ATOMIC_ACQUIRE) >= 2)
                                kill(runs[i].pid, SIGKILL);
                        breathe();
                }
        return w->page->failed ? -1 : 0;
}

int world_run(struct world *w, side_fn a, side_fn b) {
        struct run runs[2] = {{.w = w, .side = a}, {.w = w, .side = b}};
        unsigned n = b ? 2 : 1;
        int r = w->scheme >= SCHEME_IPC_TWO ? run_processes(w, runs, n) : run_threads(w, runs, n);

        if (r == 0 && count_files(w->dir))
                return world_fail(w, __FILE__, __LINE__, "%u files are left in %s", count_files(w->dir), w->dir);
        return r;
}
