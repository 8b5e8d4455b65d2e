/*
 * One test body, four worlds: two threads that share a memory:// channel, two threads that opened one ipc:// channel
 * each for itself, two processes on ipc://, and two with a tcp:// link between them. A body has two sides; what they have to agree on goes through a page both see:
 * numbered steps, some words, and the first failure. A side never asserts, it returns: only the parent asserts.
 *
 * Every wait has a deadline. A world has a directory of its own, and is over only when that directory is empty and
 * descriptors and maps are as many as before.
 */
#ifndef PSYNE_TESTS_SUPPORT_WORLD_H
#define PSYNE_TESTS_SUPPORT_WORLD_H
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include <psyne/info.h>
#include <psyne/psyne.h>

#define MSEC 1000000ll
#define SECOND 1000000000ll
#define WATCHDOG_NS (10 * SECOND) /* no condition takes longer, on a loaded machine and under sanitizers either */

enum scheme { SCHEME_MEMORY, SCHEME_IPC_SAME, SCHEME_IPC_TWO, SCHEME_TCP_TWO, N_SCHEMES };

/* What a mode promises beyond a lane; bodies ask these rather than the mode's name. */
struct mode {
        const char *name;
        enum psyne_mode mode;
        bool many_producers, many_consumers, each_sees_all;
};
extern const struct mode modes[];
enum { MODE_spsc, MODE_mpsc, MODE_spmc, MODE_mpmc, MODE_broadcast, N_MODES };

struct world_page {
        uint32_t step; /* futex */
        uint32_t failed;
        char failure[1024];
        uint64_t words[64]; /* the body's */
        char shape[128]; /* tcp: what the first opener asked for, which nobody can adopt from afar before it has come */
};

struct world {
        enum scheme scheme;
        const struct mode *mode;
        char dir[64];
        char name[32];
        char uri[128];
        struct world_page *page;
};

typedef int (*side_fn)(struct world *w);

int world_init(struct world *w, enum scheme scheme, const struct mode *mode);
int world_run(struct world *w, side_fn a, side_fn b); /* b may be NULL. 0, or -1 with page->failure */
void world_deinit(struct world *w);                   /* counts the files left, too */

int world_fail(struct world *w, const char *file, int line, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
void world_reach(struct world *w, uint32_t step);
int world_await(struct world *w, uint32_t step, const char *file, int line);

bool engine_is_there(const char *engine); /* or says why not */

/*
 * psyne_open() of the world's channel in the world's mode; @query as in a URI, or NULL. Over tcp an end sends or receives,
 * and it is told here which; a body that has both ends in one side, or none, has no place there.
 */
enum world_role { ROLE_BOTH, ROLE_SENDS, ROLE_RECEIVES };
/* Over tcp the two sides may live in network name spaces of their own: PSYNE_TEST_HOSTS, see world.c. */
int world_open_as(struct world *w, enum world_role role, const char *query, struct psyne_channel **ret);
int world_open(struct world *w, const char *query, struct psyne_channel **ret); /* ROLE_BOTH */
int world_skip(struct world *w, const char *why); /* returns -1: return that */
bool world_skipped(const struct world *w); /* page->failure says why */

#define MUST(cond)                                                                                                     \
        do {                                                                                                           \
                if (!(cond))                                                                                           \
                        return world_fail(w, __FILE__, __LINE__, "%s does not hold", #cond);                           \
        } while (0)
#define MUST_BE(expr, want)                                                                                            \
        do {                                                                                                           \
                long long got_ = (long long)(expr), want_ = (long long)(want);                                         \
                if (got_ != want_)                                                                                     \
                        return world_fail(w, __FILE__, __LINE__, "%s is %lld, not %lld", #expr, got_, want_);          \
        } while (0)
/* An error has its number and a sentence of its own, not what an earlier call left there. */
#define MUST_REFUSE(expr, want)                                                                                        \
        do {                                                                                                           \
                char stale_[256];                                                                                      \
                (void)psyne_set_wait(NULL, PSYNE_WAIT_DEFAULT);                                                        \
                snprintf(stale_, sizeof(stale_), "%s", psyne_last_error());                                            \
                MUST_BE(expr, want);                                                                                   \
                if (!sentence_is_new(stale_))                                                                          \
                        return world_fail(w, __FILE__, __LINE__, "%s: no sentence", #expr);                            \
        } while (0)
#define AWAIT(step)                                                                                                    \
        do {                                                                                                           \
                if (world_await(w, step, __FILE__, __LINE__) < 0)                                                      \
                        return -1;                                                                                     \
        } while (0)
/* Until the condition holds. */
#define UNTIL(cond)                                                                                                    \
        do {                                                                                                           \
                int64_t until_ = now_ns() + WATCHDOG_NS;                                                               \
                while (!(cond)) {                                                                                      \
                        if (now_ns() > until_ || w->page->failed)                                                      \
                                return world_fail(w, __FILE__, __LINE__, "%s did not come true in 10 s", #cond);       \
                        breathe();                                                                                     \
                }                                                                                                      \
        } while (0)

int64_t now_ns(void);
void breathe(void); /* lets others run between two looks at a condition */

bool sentence_is_new(const char *stale); /* psyne_last_error() says something, and not @stale */

/* ---- counting ---- */
unsigned count_fds(void);
unsigned count_maps(const char *containing); /* NULL: all lines */
unsigned count_files(const char *dir);
bool under_sanitizer(void);
void print_fds(void); /* to stderr, for a failure's sake */
void print_maps(void);
bool asleep_for_long(pid_t pid, pid_t tid); /* in 50 looks in a row */
char task_state(pid_t pid, pid_t tid); /* R, S, T, Z, ...; 0: gone */

/* ---- messages anybody can verify ---- */
struct random {
        uint64_t state;
};
struct random random_seeded(const char *what); /* PSYNE_SEED, else the clock; prints it */
uint64_t random_next(struct random *r);
uint64_t random_below(struct random *r, uint64_t n);
void pattern_fill(void *data, size_t n, uint64_t sequence);
bool pattern_is(const void *data, size_t n, uint64_t sequence);

/* ---- directories and children ---- */
int private_dir(char *ret, size_t n); /* made under /dev/shm, and set as PSYNE_DIR */
void remove_dir(const char *dir);
int child_wait(pid_t pid, int64_t timeout_ns); /* exit status, 128 + signal, or -ETIME: then it was killed */
#endif
