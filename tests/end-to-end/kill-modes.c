/*
 * Deaths in every mode: several producers and consumers, each a process, stream over one ipc:// channel; any of them is
 * killed, at a random moment or by itself at a named stop point, and replaced. Nobody may hang, nothing that was
 * committed may be lost or torn, nothing released may come again, nothing may come twice without the flag.
 *
 *      kill-modes random [N [MODE]]      N kills per mode, default 100 (or PSYNE_KILLS)
 *      kill-modes points [NAME]          every compiled-in stop point in every mode and role (-Dfault_points=true)
 *
 * The witness is a page outside psyne: a byte for each message of each producer's life. A producer notes how many it is
 * about to have committed and how many it has. A consumer notes a message as taken after it got it and as released
 * after the release returned. In broadcast each consumer checks for itself that it misses nothing.
 */
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/world.h"

#define LIVES_MAX 12000
#define PER_LIFE 600u /* then it closes and opens again */
#define ROLES_MAX 3

enum { TAKEN = 1, RELEASED = 2 };

struct life {
        uint32_t started, committed;
        unsigned char seen[PER_LIFE];
};

struct witness {
        char uri[128];
        uint32_t failed;
        char failure[512];
        uint32_t finish;      /* producers stop */
        uint32_t drained;     /* 1 = consumers may stop when there is nothing */
        uint32_t next_life, deaths;
        uint32_t alive[2][ROLES_MAX];
        uint32_t life_now[ROLES_MAX]; /* of each producer */
        uint64_t received, redelivered;
        struct life lives[LIVES_MAX];
};
static struct witness *w;

struct message {
        uint32_t life, number, bytes, zero;
        unsigned char data[];
};

static const struct shape {
        const char *name;
        unsigned producers, consumers;
        bool each_sees_all, shared;
} shapes[] = {{"mpsc", 2, 1, false, false}, {"spmc", 1, 3, false, true}, {"mpmc", 2, 3, false, true},
        {"broadcast", 2, 2, true, false}};
static const struct shape *shape;

static int fail(int line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int fail(int line, const char *format, ...) {
        char text[400];
        va_list ap;

        if (__atomic_exchange_n(&w->failed, 1, __ATOMIC_ACQ_REL))
                return -1;
        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        snprintf(w->failure, sizeof(w->failure), "kill-modes.c:%d: %s (last error: %s)", line, text, psyne_last_error());
        return -1;
}
#define FAIL(...) fail(__LINE__, __VA_ARGS__)

static uint32_t get(const uint32_t *word) {
        return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}
static void put(uint32_t *word, uint32_t value) {
        __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static size_t bytes_of(uint32_t life, uint32_t number) {
        return sizeof(struct message) + (life * 7919u + number * 104729u) % 700;
}

/* ---- the two roles ----------------------------------------------------------------------------------------------- */

static void fill(struct psyne_msg *m, uint32_t life, uint32_t n) {
        struct message *t = m->data;

        m->len = bytes_of(life, n);
        *t = (struct message){.life = life, .number = n, .bytes = (uint32_t)m->len};
        pattern_fill(t->data, m->len - sizeof(*t), (uint64_t)life << 32 | n);
}

/* Up to three at once. How many, 0 = no room now, or an error. */
static int send_batch(struct psyne_producer *p, uint32_t life, uint32_t n) {
        struct psyne_msg m[3];
        int got = psyne_claim_n(p, sizeof(struct message) + 700, PER_LIFE - n < 3 ? PER_LIFE - n : 3, PSYNE_NOWAIT, m);

        if (got <= 0)
                return got == -EAGAIN || got == -EPIPE ? 0 : got;
        for (int i = 0; i < got; i++)
                fill(&m[i], life, n + (uint32_t)i);
        put(&w->lives[life].started, n + (uint32_t)got);
        return psyne_commit_n(p, m, (unsigned)got);
}

static int produce(unsigned index) {
        const struct psyne_producer_opts opts = {.struct_size = sizeof(opts), .linger_ns = 10 * SECOND};
        struct random r = {index + 1 + (uint64_t)getpid()};
        struct psyne_channel *ch;
        struct psyne_producer *p;
        int e;

        e = psyne_open(w->uri, NULL, &ch);
        if (e < 0)
                return FAIL("producer: open: %d", e);
        e = psyne_producer_open(ch, &opts, &p);
        if (e < 0)
                return FAIL("producer: producer_open: %d", e);
        put(&w->alive[0][index], 1);
        while (!get(&w->finish)) {
                uint32_t life, n = 0;

                if (!p) {
                        e = psyne_producer_open(ch, &opts, &p);
                        if (e == -EUSERS) { /* its lanes are not drained yet */
                                breathe();
                                continue;
                        }
                        if (e < 0)
                                return FAIL("producer: opening again: %d", e);
                }
                life = __atomic_fetch_add(&w->next_life, 1, __ATOMIC_SEQ_CST);

                if (life >= LIVES_MAX)
                        return FAIL("more lives than there is room for");
                put(&w->life_now[index], life);
                while (n < PER_LIFE && !get(&w->finish)) {
                        struct psyne_msg m;

                        if (!random_below(&r, 10)) {
                                e = send_batch(p, life, n);
                                if (e < 0)
                                        return FAIL("producer: a batch: %d", e);
                                n += (uint32_t)e;
                                put(&w->lives[life].committed, n);
                                continue;
                        }
                        e = psyne_claim(p, bytes_of(life, n) + random_below(&r, 2) * 200, 200 * MSEC, &m);
                        if (get(&w->failed))
                                return -1;
                        if (e == -ETIME || e == -EINTR)
                                continue; /* the parent watches progress */
                        if (e == -EPIPE) {
                                (void)psyne_wait_peers(ch, 1, 1, 20 * MSEC);
                                continue;
                        }
                        if (e < 0)
                                return FAIL("producer: claim: %d", e);
                        fill(&m, life, n);
                        put(&w->lives[life].started, n + 1);
                        e = psyne_commit(p, &m);
                        if (e < 0)
                                return FAIL("producer: commit: %d", e);
                        put(&w->lives[life].committed, ++n);
                        if (!random_below(&r, 40) && psyne_claim(p, 90, PSYNE_NOWAIT, &m) == 0)
                                (void)psyne_abort(p, &m);
                        if (!random_below(&r, 64))
                                breathe();
                }
                if (psyne_producer_close(p) != 0 && !shape->each_sees_all)
                        return FAIL("producer: close leaves messages behind");
                p = NULL;
        }
        put(&w->alive[0][index], 0);
        psyne_close(ch);
        return 0;
}

/* One message, looked at. */
static int judge(const struct psyne_msg *m, uint32_t next[]) {
        const struct message *t = m->data;
        bool again = m->flags & PSYNE_MSG_REDELIVERED;
        unsigned char before;

        if (m->len < sizeof(*t) || t->bytes != m->len || t->life >= LIVES_MAX || t->number >= PER_LIFE)
                return FAIL("torn: %zu bytes, header says %u, life %u, number %u", m->len, t->bytes, t->life, t->number);
        if (m->len != bytes_of(t->life, t->number) ||
                !pattern_is(t->data, m->len - sizeof(*t), (uint64_t)t->life << 32 | t->number))
                return FAIL("message %u of life %u is torn", t->number, t->life);
        if (shape->each_sees_all) {
                if (next[t->life] && t->number + 1 != next[t->life] + 1)
                        return FAIL("message %u of life %u, expected %u", t->number, t->life, next[t->life]);
                next[t->life] = t->number + 1;
                __atomic_fetch_or(&w->lives[t->life].seen[t->number], TAKEN, __ATOMIC_SEQ_CST);
                return 0;
        }
        if (!again && next[t->life] > t->number)
                return FAIL("message %u of life %u after %u of it", t->number, t->life, next[t->life] - 1);
        if (!again)
                next[t->life] = t->number + 1;
        before = __atomic_fetch_or(&w->lives[t->life].seen[t->number], TAKEN, __ATOMIC_SEQ_CST);
        if (before & RELEASED)
                return FAIL("message %u of life %u comes again after it was released%s", t->number, t->life,
                        again ? ", flagged" : "");
        if (before & TAKEN && !again)
                return FAIL("message %u of life %u comes twice without the flag", t->number, t->life);
        if (again)
                __atomic_fetch_add(&w->redelivered, 1, __ATOMIC_SEQ_CST);
        return 0;
}

static int consume(unsigned index) {
        const struct psyne_consumer_opts opts = {
                .struct_size = sizeof(opts), .held_max = 12, .prefetch = shape->each_sees_all ? 1 : 1 + index * 3};
        uint32_t *next = calloc(LIVES_MAX, sizeof(*next));
        struct random r = {index + 77 + (uint64_t)getpid()};
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg held[12];
        unsigned n_held = 0;
        bool ever = false;
        int e;

        e = psyne_open(w->uri, NULL, &ch);
        if (e < 0)
                return FAIL("consumer: open: %d", e);
        e = psyne_consumer_open(ch, &opts, &c);
        if (e < 0)
                return FAIL("consumer: consumer_open: %d", e);
        put(&w->alive[1][index], 1);
        for (;;) {
                int got;

                if (!random_below(&r, 300)) { /* what it holds goes back to the group */
                        e = psyne_consumer_close(c);
                        if (e < 0)
                                return FAIL("consumer: close: %d", e);
                        n_held = 0;
                        ever = false;
                        if (shape->each_sees_all)
                                memset(next, 0, LIVES_MAX * sizeof(*next));
                        e = psyne_consumer_open(ch, &opts, &c);
                        if (e < 0)
                                return FAIL("consumer: opening again: %d", e);
                }
                got = psyne_recv_n(c, &held[n_held], 1 + (unsigned)random_below(&r, 4), n_held ? PSYNE_NOWAIT : 50 * MSEC);

                if (get(&w->failed))
                        return -1;
                if (got < 0 && got != -ETIME && got != -EAGAIN && got != -EPIPE && got != -ENOBUFS && got != -EINTR)
                        return FAIL("consumer: receiving: %d", got);
                for (int i = 0; i < got; i++)
                        if (judge(&held[n_held + (unsigned)i], next) < 0)
                                return -1;
                n_held += got > 0 ? (unsigned)got : 0;
                if (got == -ETIME && !ever && get(&w->drained))
                        break; /* it came when the last producer had gone, and has never seen one */
                ever |= got > 0;
                if (got == -EPIPE && !n_held) {
                        if (get(&w->drained))
                                break;
                        (void)psyne_wait_peers(ch, 1, 1, 20 * MSEC);
                }
                /* Some are kept for a while, and go in any order; where one reader has the group to itself, what it
                 * released behind a gap comes again with the gap, so there in theirs. */
                while (n_held && (got < 0 || n_held > 8 || random_below(&r, 2))) {
                        unsigned k = shape->shared ? (unsigned)random_below(&r, n_held) : 0;
                        const struct message t = *(const struct message *)held[k].data;

                        e = psyne_release(c, &held[k]);
                        if (e < 0)
                                return FAIL("consumer: release: %d", e);
                        if (!shape->each_sees_all)
                                __atomic_fetch_or(&w->lives[t.life].seen[t.number], RELEASED, __ATOMIC_SEQ_CST);
                        __atomic_fetch_add(&w->received, 1, __ATOMIC_SEQ_CST);
                        n_held--;
                        memmove(&held[k], &held[k + 1], (n_held - k) * sizeof(held[0]));
                }
        }
        put(&w->alive[1][index], 0);
        e = psyne_consumer_close(c);
        if (e < 0)
                return FAIL("consumer: close: %d", e);
        psyne_close(ch);
        free(next);
        return 0;
}

/* ---- the parent -------------------------------------------------------------------------------------------------- */

static char dir[64];
static pid_t pids[2][ROLES_MAX];

static unsigned n_of(unsigned role) {
        return role ? shape->consumers : shape->producers;
}

static void start(unsigned role, unsigned index, const char *fault) {
        pid_t pid;

        fflush(NULL);
        put(&w->alive[role][index], 0);
        pid = fork();
        if (pid) {
                pids[role][index] = pid;
                return;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (fault)
                setenv("PSYNE_FAULT", fault, 1);
        _exit((role ? consume(index) : produce(index)) < 0 ? 1 : 0);
}

static bool progress(uint64_t more) {
        uint64_t until_n = __atomic_load_n(&w->received, __ATOMIC_SEQ_CST) + more;
        int64_t until = now_ns() + WATCHDOG_NS;

        while (__atomic_load_n(&w->received, __ATOMIC_SEQ_CST) < until_n) {
                if (now_ns() > until || get(&w->failed))
                        return false;
                nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        }
        return true;
}

/*
 * Until a message that producer @i commits from now on was taken: a reader has its ring then, and what it has committed
 * survives it. Without a reader attached it does not, and on a busy machine one that was replaced takes its time. Gives
 * up after two seconds: the producer may be at a stop point.
 */
static void attached(unsigned i) {
        uint32_t life = get(&w->life_now[i]), from = get(&w->lives[life].committed);
        int64_t until = now_ns() + 2 * SECOND;

        while (!shape->each_sees_all && now_ns() < until && !get(&w->failed)) {
                if (get(&w->life_now[i]) != life) {
                        life = get(&w->life_now[i]);
                        from = 0;
                }
                for (uint32_t n = from, to = get(&w->lives[life].committed); n < to; n++)
                        if (__atomic_load_n(&w->lives[life].seen[n], __ATOMIC_SEQ_CST) & TAKEN)
                                return;
                nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
        }
}

static void kill_all(void) {
        for (unsigned role = 0; role < 2; role++)
                for (unsigned i = 0; i < n_of(role); i++)
                        if (pids[role][i] > 0) {
                                kill(pids[role][i], SIGKILL);
                                waitpid(pids[role][i], NULL, 0);
                                pids[role][i] = 0;
                        }
}

static void begin(void) {
        memset(w, 0, sizeof(*w));
        snprintf(w->uri, sizeof(w->uri), "ipc://m?mode=%s&size=16K&wait=block", shape->name);
        memset(pids, 0, sizeof(pids));
        for (unsigned role = 2; role-- > 0;)
                for (unsigned i = 0; i < n_of(role); i++)
                        start(role, i, NULL);
}

static int end(void) {
        uint32_t open_ends = 0;

        put(&w->finish, 1);
        for (unsigned role = 0; role < 2; role++) {
                for (unsigned i = 0; i < n_of(role); i++) {
                        int r = child_wait(pids[role][i], 2 * WATCHDOG_NS);

                        if (r && getenv("PSYNE_STAT")) /* what a person would look at */
                                (void)!system("$PSYNE_STAT show m >&2");
                        pids[role][i] = 0;
                        if (r)
                                return FAIL("%s %u ends with %d", role ? "consumer" : "producer", i, r);
                }
                put(&w->drained, 1);
        }
        for (uint32_t life = 0; life < w->next_life; life++)
                for (uint32_t n = 0; n < w->lives[life].committed; n++) {
                        unsigned char seen = w->lives[life].seen[n];

                        if (!seen && !shape->each_sees_all)
                                return FAIL("message %u of life %u, of %u committed, never came", n, life,
                                        w->lives[life].committed);
                        open_ends += !shape->each_sees_all && !(seen & RELEASED);
                }
        /* Killed between the release and its note: one message at most for each death of a consumer. */
        if (open_ends > w->deaths)
                return FAIL("%u messages were taken and never released, with %u deaths", open_ends, w->deaths);
        if (count_files(dir) > 0 && !(count_files(dir) == 1 && access(strcat(strcpy((char[128]){0}, dir), "/m.dead"), F_OK) == 0))
                return FAIL("%u files are left", count_files(dir));
        remove_dir(dir);
        mkdir(dir, 0700);
        return 0;
}

static int random_kills(unsigned n) {
        struct random r = random_seeded(shape->name);
        unsigned by_role[2] = {0};

        begin();
        if (!progress(200)) {
                kill_all();
                return FAIL("no start");
        }
        for (unsigned k = 0; k < n; k++) {
                unsigned role = (unsigned)random_below(&r, 2), i = (unsigned)random_below(&r, n_of(role));

                if (role == 0)
                        attached(i);
                nanosleep(&(struct timespec){.tv_nsec = (long)random_below(&r, 3000000)}, NULL);
                kill(pids[role][i], SIGKILL);
                if (role)
                        __atomic_fetch_add(&w->deaths, 1, __ATOMIC_SEQ_CST);
                waitpid(pids[role][i], NULL, 0);
                by_role[role]++;
                if (random_below(&r, 2) && n_of(role) > 1 && !progress(20)) { /* the others go on without it */
                        FAIL("the survivors of a %s hang", role ? "consumer" : "producer");
                        break;
                }
                start(role, i, NULL);
                if (!progress(20)) {
                        FAIL("they hang after a %s was replaced", role ? "consumer" : "producer");
                        break;
                }
        }
        if (get(&w->failed) || end() < 0) {
                kill_all();
                return -1;
        }
        printf("%-10s %u producers, %u consumers: %u and %u killed; %llu messages received, %llu came again flagged\n",
                shape->name, shape->producers, shape->consumers, by_role[0], by_role[1],
                (unsigned long long)w->received, (unsigned long long)w->redelivered);
        return 0;
}

/* Dies by itself at the point's K-th passage, while it lives or because another one died; then all goes on. */
static int one_point(const char *point, unsigned role, unsigned k, bool *reached) {
        char fault[96];
        int64_t until;
        pid_t p = 0;
        int status;

        snprintf(fault, sizeof(fault), "%s:%u", point, k);
        if (role == 0)
                attached(0);
        kill(pids[role][0], SIGKILL);
        waitpid(pids[role][0], NULL, 0);
        __atomic_fetch_add(&w->deaths, 1, __ATOMIC_SEQ_CST);
        start(role, 0, fault);
        for (unsigned round = 0; round < 8 && !p; round++) {
                unsigned other = round % 2, i = other == role;

                until = now_ns() + 15 * MSEC;
                while (!p && now_ns() < until) {
                        p = waitpid(pids[role][0], &status, WNOHANG);
                        sched_yield();
                }
                if (!p && other == 0 && i < n_of(0))
                        attached(i);
                if (!p && i < n_of(other)) { /* perhaps on the way of taking over from somebody else */
                        kill(pids[other][i], SIGKILL);
                        waitpid(pids[other][i], NULL, 0);
                        __atomic_fetch_add(&w->deaths, 1, __ATOMIC_SEQ_CST);
                        start(other, i, NULL);
                }
        }
        *reached = p && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        __atomic_fetch_add(&w->deaths, 1, __ATOMIC_SEQ_CST);
        if (!p) {
                kill(pids[role][0], SIGKILL);
                waitpid(pids[role][0], NULL, 0);
        }
        if (n_of(role) > 1 && !progress(10))
                return FAIL("%s in a %s: the survivors hang", point, role ? "consumer" : "producer");
        start(role, 0, NULL);
        if (!progress(30))
                return FAIL("%s in a %s: they hang after it was replaced", point, role ? "consumer" : "producer");
        return 0;
}

static int points(const char *only) {
        static char list[8192];
        char *at = list, *point;
        unsigned n = 0, never = 0;

        snprintf(list, sizeof(list), "%s", FAULT_POINTS);
        if (!list[0]) {
                printf("SKIP: no stop points are compiled in (meson setup -Dfault_points=true)\n");
                return 77;
        }
        while ((point = strsep(&at, " ,\n"))) {
                bool any = false;

                if (!point[0] || (only && strcmp(only, point)))
                        continue;
                n++;
                printf("%-24s", point);
                for (unsigned s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
                        shape = &shapes[s];
                        begin();
                        if (!progress(100))
                                FAIL("no start");
                        for (unsigned i = 0; i < 6 && !get(&w->failed); i++) {
                                bool reached = false;

                                (void)one_point(point, i % 2, i < 2 ? 1 : i < 4 ? 3 : 20, &reached);
                                if (reached)
                                        printf(" %s:%s:%u", shape->name, i % 2 ? "c" : "p", i < 2 ? 1 : i < 4 ? 3 : 20);
                                any |= reached;
                        }
                        if (get(&w->failed) || end() < 0) {
                                kill_all();
                                return -1;
                        }
                }
                printf("%s\n", any ? "" : " NEVER");
                fflush(stdout);
                never += !any;
        }
        printf("%u points, %u never reached by any mode\n", n, never);
        return 0;
}

int main(int argc, char **argv) {
        const char *what = argc > 1 ? argv[1] : "random", *n = argc > 2 ? argv[2] : getenv("PSYNE_KILLS");
        int r = 0;

        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (w == MAP_FAILED)
                return 1;
        if (!strcmp(what, "points"))
                r = points(argc > 2 ? argv[2] : NULL);
        else
                for (unsigned s = 0; r == 0 && s < sizeof(shapes) / sizeof(shapes[0]); s++) {
                        shape = &shapes[s];
                        if (argc <= 3 || !strcmp(argv[3], shape->name))
                                r = random_kills(n ? (unsigned)strtoul(n, NULL, 10) : 100);
                }
        remove_dir(dir);
        if (r < 0)
                printf("FAIL %s: %s\n", shape->name, w->failure);
        return r == 77 ? 77 : r < 0 ? 1 : 0;
}
