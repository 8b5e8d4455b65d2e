/*
 * A peer that writes nonsense over the control pages: random words, and values that look right, at every byte of them,
 * while others send, receive and look on. Whatever it does, nobody else may crash, read or write out of bounds (run it under
 * AddressSanitizer), or stay in a call for long after its timeout. Errors are fine, and so is losing messages.
 *
 *      scribble [SECONDS-PER-MODE [MODE]]     default 1 (or PSYNE_SCRIBBLE_S), each
 *
 * Not touched are the locks, the rings (sealed) and the length of the file: who may write it may end everybody by
 * truncating it, which the README states as the boundary of trust.
 */
#include <dirent.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "psyne/stat.h"
#include "support/world.h"

#define CALL_NS (5 * MSEC)
#define CYCLE_MAX_NS (20 * SECOND) /* opening a name that is in a mess may take its own ten seconds */

static const struct shape {
        const char *name, *query;
        bool behind, stages;
} shapes[] = {
        {"spsc", "mode=spsc", false, false},
        {"mpsc", "mode=mpsc", true, false},
        {"spmc", "mode=spmc", false, false},
        {"mpmc", "mode=mpmc", false, false},
        {"broadcast", "mode=broadcast", true, false},
        {"stages", "mode=broadcast&inplace=1", false, true},
};

struct page {
        uint32_t stop;
        int64_t cycle_began; /* of the victim's calls, for the watchdog */
        int64_t longest_open_ns;
        uint64_t sent, received, errors, cycles, scribbles, looks;
};
static struct page *page;

/* A victim that crashes says where: the next run may never hit the same word at the same moment. */
#ifndef __SANITIZE_ADDRESS__ /* which says it itself */
static void crashed(int sig, siginfo_t *info, void *context) {
        void *frames[32];
        char line[96];

        (void)context;
        backtrace_symbols_fd(frames, backtrace(frames, 32), STDERR_FILENO);
        (void)!write(STDERR_FILENO, line, (size_t)snprintf(line, sizeof(line), "signal %d, code %d, address %p\n", sig,
                                                           info->si_code, info->si_addr));
        signal(sig, SIG_DFL);
        raise(sig);
}

static void say_where_it_crashed(void) {
        const struct sigaction say = {.sa_sigaction = crashed, .sa_flags = SA_SIGINFO | SA_NODEFER};
        void *first[1];

        backtrace(first, 1); /* loads what it needs now, not in the handler */
        sigaction(SIGSEGV, &say, NULL);
        sigaction(SIGBUS, &say, NULL);
}
#else
static void say_where_it_crashed(void) {
}
#endif

/* The victim: opens everything, uses it a while by short waits, closes it, again and again. */
static int victim(const char *uri, const struct shape *shape) {
        struct random r = {(uint64_t)getpid()};

        say_where_it_crashed();
        while (!__atomic_load_n(&page->stop, __ATOMIC_ACQUIRE)) {
                struct psyne_channel *ch = NULL;
                struct psyne_producer *p[2] = {NULL, NULL};
                struct psyne_consumer *c[2] = {NULL, NULL};
                const struct psyne_producer_opts hasty = {.struct_size = sizeof(hasty), .linger_ns = 1};
                const struct psyne_consumer_opts one = {.struct_size = sizeof(one),
                        .group = shape->stages ? "one" : NULL,
                        .in_place = shape->stages,
                        .shared = shape->stages};
                const struct psyne_consumer_opts two = {.struct_size = sizeof(two), .prefetch = 4,
                        .group = shape->stages || random_below(&r, 2) ? "g" : NULL,
                        .behind = shape->behind ? (enum psyne_behind)random_below(&r, 4) : PSYNE_BEHIND_DEFAULT,
                        .eject_ns = MSEC,
                        .follows = shape->stages ? "one" : NULL,
                        .in_place = shape->stages && random_below(&r, 2)};
                int64_t began;
                int rc;

                __atomic_store_n(&page->cycle_began, now_ns(), __ATOMIC_RELEASE);
                page->cycles++;
                began = now_ns();
                rc = psyne_open(uri, NULL, &ch);
                if (now_ns() - began > page->longest_open_ns)
                        page->longest_open_ns = now_ns() - began;
                if (rc < 0) { /* the pages are beyond repair: others would start afresh elsewhere */
                        page->errors++;
                        breathe();
                        continue;
                }
                for (unsigned i = 0; i < 2; i++) {
                        page->errors += psyne_producer_open(ch, &hasty, &p[i]) < 0;
                        page->errors += psyne_consumer_open(ch, i ? &two : &one, &c[i]) < 0;
                }
                for (unsigned n = 0; n < 400 && !__atomic_load_n(&page->stop, __ATOMIC_ACQUIRE); n++) {
                        struct psyne_msg m, some[5];
                        unsigned i = n % 2;
                        int got;

                        if (p[i] && psyne_claim(p[i], random_below(&r, 300), n % 16 ? PSYNE_NOWAIT : CALL_NS, &m) == 0) {
                                memset(m.data, 0x5a, m.len);
                                page->sent += psyne_commit(p[i], &m) == 0;
                        } else
                                page->errors++;
                        got = c[i] ? psyne_recv_n(c[i], some, 5, n % 16 ? PSYNE_NOWAIT : CALL_NS) : -1;
                        page->errors += got < 0;
                        for (int k = 0; k < got; k++) {
                                uint64_t sum = 0;

                                for (size_t b = 0; b < some[k].len; b++) /* all of it is there to be read */
                                        sum += ((const unsigned char *)some[k].data)[b];
                                page->received += sum >= 0x5a || some[k].len == 0;
                                if (shape->stages && !i)
                                        memset(some[k].data, 0x5a, some[k].cap);
                                if (shape->stages && !i && n % 32 == 0)
                                        (void)psyne_remove(c[i], &some[k]);
                                else
                                        (void)psyne_release(c[i], &some[k]);
                        }
                        if (n % 100 == 50) {
                                struct psyne_metrics metrics = {.struct_size = sizeof(metrics)};

                                (void)psyne_metrics(ch, &metrics);
                                (void)psyne_wait_peers(ch, 1, 1, PSYNE_NOWAIT);
                        }
                }
                for (unsigned i = 0; i < 2; i++) {
                        (void)psyne_producer_close(p[i]);
                        (void)psyne_consumer_close(c[i]);
                }
                psyne_close(ch);
        }
        return 0;
}

/* Looks at everything, as psyne-stat does. */
static int onlooker(const char *dir, const char *name) {
        char file[64];

        say_where_it_crashed();
        snprintf(file, sizeof(file), "s-%s.psy", name);
        while (!__atomic_load_n(&page->stop, __ATOMIC_ACQUIRE)) {
                struct psyne_stat_dir *d;
                struct psyne_stat *s = NULL;

                if (psyne_stat_open_dir(dir, &d) < 0)
                        return 1;
                for (unsigned n = 0; n < 100; n++)
                        if (psyne_stat_read(d, file, &s) == 0) {
                                page->looks++;
                                s = psyne_stat_free(s);
                        }
                psyne_stat_close_dir(d);
                breathe();
        }
        return 0;
}

/* Writes over whatever control file has the name now. */
static int scribbler(const char *path, uint64_t seed) {
        struct random r = {seed};

        while (!__atomic_load_n(&page->stop, __ATOMIC_ACQUIRE)) {
                struct stat st;
                int fd = open(path, O_RDWR | O_CLOEXEC);
                unsigned char *at;

                if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < 4096) {
                        if (fd >= 0)
                                close(fd);
                        continue;
                }
                at = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
                close(fd);
                if (at == MAP_FAILED)
                        continue;
                for (unsigned n = 0; n < 3000; n++) {
                        /* Not the flight recorder and what follows: nobody reads it yet. The header rarely, or nobody gets in. */
                        uint64_t area = (uint64_t)st.st_size < 106240 ? (uint64_t)st.st_size : 106240;
                        uint64_t offset = random_below(&r, 50) ? 1024 + random_below(&r, area - 1024) : random_below(&r, 1024);
                        uint64_t other = random_below(&r, area & ~7ull) & ~7ull, value = random_next(&r);

                        switch (random_below(&r, 6)) {
                        case 0:
                                at[offset] = (unsigned char)value;
                                break;
                        case 1:
                                at[offset] ^= (unsigned char)(1u << (value & 7));
                                break;
                        case 2: /* a small number: an index, a state, a count */
                                *(volatile uint32_t *)(void *)(at + (offset & ~3ull)) = (uint32_t)(value % 70);
                                break;
                        case 3: /* a word from elsewhere: a position, a claim, an owner */
                                *(volatile uint64_t *)(void *)(at + (offset & ~7ull)) = *(volatile uint64_t *)(void *)(at + other);
                                break;
                        case 4: /* nearly what was there */
                                *(volatile uint64_t *)(void *)(at + (offset & ~7ull)) += (value % 257 - 128) * (value & 1 ? 64 : 1);
                                break;
                        default:
                                *(volatile uint64_t *)(void *)(at + (offset & ~7ull)) = value;
                        }
                        page->scribbles++;
                        if (n % 64 == 0 && random_below(&r, 4) == 0)
                                breathe();
                }
                munmap(at, (size_t)st.st_size);
        }
        return 0;
}

/* A busy machine may take a second to let the first of them in: the time asked for is what they run at least. */
static bool something_happened(void) {
        return __atomic_load_n(&page->scribbles, __ATOMIC_RELAXED) && __atomic_load_n(&page->received, __ATOMIC_RELAXED) &&
                __atomic_load_n(&page->looks, __ATOMIC_RELAXED);
}

static int one_mode(const struct shape *shape, const char *dir, int64_t ns) {
        static const char *const who[] = {"a victim", "another victim", "the onlooker", "the scribbler"};
        const char *mode = shape->name;
        struct random r = random_seeded(mode);
        char uri[128], path[160];
        pid_t pids[4];
        int64_t until = now_ns() + ns;
        int bad = 0;

        memset(page, 0, sizeof(*page));
        page->cycle_began = now_ns();
        snprintf(uri, sizeof(uri), "ipc://s-%s?%s&size=8K", mode, shape->query);
        snprintf(path, sizeof(path), "%s/s-%s.psy", dir, mode);
        fflush(NULL);
        for (unsigned i = 0; i < 4; i++) {
                pids[i] = fork();
                if (pids[i] == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        _exit(i == 3 ? scribbler(path, r.state) : i == 2 ? onlooker(dir, mode) : victim(uri, shape));
                }
        }
        while ((now_ns() < until || !something_happened()) && !bad) {
                for (unsigned i = 0; i < 3; i++) {
                        int status;

                        if (waitpid(pids[i], &status, WNOHANG) == pids[i]) {
                                printf("FAIL %s: %s ended with status %#x\n", mode, who[i], status);
                                pids[i] = 0;
                                bad = 1;
                        }
                }
                if (now_ns() > until + CYCLE_MAX_NS) {
                        printf("FAIL %s: nothing happened\n", mode);
                        bad = 1;
                }
                if (now_ns() - __atomic_load_n(&page->cycle_began, __ATOMIC_ACQUIRE) > CYCLE_MAX_NS) {
                        printf("FAIL %s: the victims hang\n", mode);
                        bad = 1;
                }
                breathe();
        }
        __atomic_store_n(&page->stop, 1, __ATOMIC_RELEASE);
        for (unsigned i = 0; i < 4; i++)
                if (pids[i]) {
                        int status = child_wait(pids[i], CYCLE_MAX_NS);

                        if (status && !bad) {
                                printf("FAIL %s: %s ended with %d\n", mode, who[i], status);
                                bad = 1;
                        }
                }
        printf("%-10s %llu scribbles; %llu cycles, %llu sent, %llu received, %llu errors; %llu looks; longest open %.1f ms\n", mode,
                (unsigned long long)page->scribbles, (unsigned long long)page->cycles, (unsigned long long)page->sent,
                (unsigned long long)page->received, (unsigned long long)page->errors, (unsigned long long)page->looks,
                (double)page->longest_open_ns / MSEC);
        return bad;
}

int main(int argc, char **argv) {
        const char *s = argc > 1 ? argv[1] : getenv("PSYNE_SCRIBBLE_S");
        int64_t ns = (s ? strtoll(s, NULL, 10) : 1) * SECOND;
        char dir[64];
        int bad = 0;

        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
                return 1;
        for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
                if (argc <= 2 || !strcmp(argv[2], shapes[i].name))
                        bad |= one_mode(&shapes[i], dir, ns);
        remove_dir(dir);
        return bad;
}
