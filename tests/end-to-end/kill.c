/*
 * Deaths. Two processes stream over ipc://; one is killed, by SIGKILL at a random moment or by itself at a named stop
 * point; the other one has to be told, nothing that was committed may be lost, torn, out of order or come twice
 * without the flag; and a new one in the dead one's role goes on.
 *
 *      kill points [NAME]   every compiled-in stop point, in every role (needs -Dfault_points=true); "all": also in
 *                           whoever survives another's death, where a role alone has led there already
 *      kill random [N]      N kills at random moments, default 100 (or PSYNE_KILLS)
 *      kill stop [S]        SIGSTOP for S seconds, default 2 (or PSYNE_STOP_S), is not a death
 *
 * The witness is a page outside psyne. A producer's life has a number; it notes what it is about to commit and, when
 * the call has returned, what it has committed; a consumer notes what it took and what it released. What must arrive
 * lies between the two notes of a life; what may come again, and then flagged, between the two of the consumer.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/world.h"

#define LIVES_MAX 8192
#define BYTES_MAX 1500
#define SEND_NS (60 * SECOND) /* longer than any stop; the parent has the watchdogs */

enum role { PRODUCER, CONSUMER };
static const char *const role_names[] = {"producer", "consumer"};

struct life {
        uint32_t started, committed; /* messages, by the producer; a restarted consumer reads them */
};

struct witness {
        char uri[128];
        uint32_t failed;
        char failure[512];
        uint32_t life;       /* of the producer that is started next */
        uint32_t finish;     /* stop after this */
        uint32_t hurry;      /* think no more: a notice is being timed */
        uint32_t quota;      /* messages a producer's life sends before it closes, 0 = until finish */
        /* What the consumer has seen, over all its lives. */
        uint32_t next_life, next; /* the first message not released, as noted */
        uint32_t taken_life, taken;
        uint32_t active[2];  /* the endpoint was opened, and is not being closed */
        uint32_t deaths;     /* that the survivor has to be told of */
        uint32_t told;
        int64_t told_ns;
        uint64_t received;
        uint64_t redelivered;
        struct life lives[LIVES_MAX];
};
static struct witness *w;

struct message {
        uint32_t life, number, bytes, zero;
        unsigned char data[];
};

static int fail(int line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int fail(int line, const char *format, ...) {
        char text[400];
        va_list ap;

        if (__atomic_exchange_n(&w->failed, 1, __ATOMIC_ACQ_REL))
                return -1;
        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        snprintf(w->failure, sizeof(w->failure), "kill.c:%d: %s (last error: %s)", line, text, psyne_last_error());
        return -1;
}
#define FAIL(...) fail(__LINE__, __VA_ARGS__)

static uint32_t get(const uint32_t *word) {
        return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}
static void put(uint32_t *word, uint32_t value) {
        __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static void think(struct random *r) {
        int64_t until;

        if (get(&w->hurry) || random_below(r, 4))
                return;
        until = now_ns() + (int64_t)random_below(r, 50000);
        while (now_ns() < until && !get(&w->hurry))
                ;
}

/* The death we were to be told of, if this is the first we hear of it. */
static void told(void) {
        if (get(&w->told) == get(&w->deaths))
                return;
        __atomic_store_n(&w->told_ns, now_ns(), __ATOMIC_SEQ_CST);
        put(&w->told, get(&w->deaths));
}

/* ---- the two roles ----------------------------------------------------------------------------------------------- */

static void message_fill(void *to, uint32_t life, uint32_t number, size_t bytes) {
        struct message *m = to;

        *m = (struct message){.life = life, .number = number, .bytes = (uint32_t)bytes};
        pattern_fill(m->data, bytes - sizeof(*m), (uint64_t)life << 32 | number);
}

static size_t message_bytes(uint32_t life, uint32_t number) {
        return sizeof(struct message) + (life * 7919u + number * 104729u) % (BYTES_MAX - 4 * sizeof(struct message));
}

/* One or several messages, each kind of call in turn. Returns how many, or an error of which nothing was sent. */
static int send_some(struct psyne_producer *p, uint32_t life, uint32_t n, int64_t timeout_ns) {
        struct life *l = &w->lives[life];
        struct psyne_msg m[3];
        char copy[BYTES_MAX];
        size_t bytes = message_bytes(life, n);
        int r, got;

        switch (n % 8) {
        case 0: /* shrunk before the commit */
                r = psyne_claim(p, BYTES_MAX, timeout_ns, &m[0]);
                if (r < 0)
                        return r;
                message_fill(m[0].data, life, n, bytes);
                m[0].len = bytes;
                put(&l->started, n + 1);
                r = psyne_commit(p, &m[0]);
                return r < 0 ? r : 1;
        case 1: /* after an aborted one */
                r = psyne_claim(p, 300, timeout_ns, &m[0]);
                if (r < 0)
                        return r;
                memset(m[0].data, 0xff, m[0].cap);
                r = psyne_abort(p, &m[0]);
                if (r < 0)
                        return r;
                break;
        case 2: /* a batch */
                got = psyne_claim_n(p, BYTES_MAX, 3, timeout_ns, m);
                if (got < 0)
                        return got;
                for (int i = 0; i < got; i++) {
                        m[i].len = message_bytes(life, n + (uint32_t)i);
                        message_fill(m[i].data, life, n + (uint32_t)i, m[i].len);
                }
                put(&l->started, n + (uint32_t)got);
                return psyne_commit_n(p, m, (unsigned)got);
        case 3: /* in place, exactly */
                r = psyne_claim(p, bytes, timeout_ns, &m[0]);
                if (r < 0)
                        return r;
                message_fill(m[0].data, life, n, bytes);
                put(&l->started, n + 1);
                r = psyne_commit(p, &m[0]);
                return r < 0 ? r : 1;
        default:
                break;
        }
        message_fill(copy, life, n, bytes);
        put(&l->started, n + 1); /* may be noted for what then finds no room: an upper bound all the same */
        r = psyne_send(p, life, copy, bytes, timeout_ns);
        return r < 0 ? r : 1;
}

static int produce(uint32_t life) {
        const struct psyne_producer_opts opts = {.struct_size = sizeof(opts), .linger_ns = 10 * SECOND};
        struct random think_time = {life + 1};
        struct psyne_channel *ch;
        struct psyne_producer *p;
        uint32_t n = 0;
        int r;

        r = psyne_open(w->uri, NULL, &ch);
        if (r < 0)
                return FAIL("producer: open: %d", r);
        r = psyne_producer_open(ch, &opts, &p);
        if (r < 0)
                return FAIL("producer: producer_open: %d", r);
        put(&w->active[PRODUCER], 1);
        while (!get(&w->finish) && (!w->quota || n < w->quota)) {
                r = send_some(p, life, n, SEND_NS);
                if (r > 0) {
                        n += (uint32_t)r;
                        put(&w->lives[life].committed, n);
                } else if (r == -EPIPE) { /* full, and the reader is gone */
                        told();
                        r = psyne_wait_peers(ch, 1, 1, 20 * MSEC);
                        if (r < 0 && r != -ETIME)
                                return FAIL("producer: wait_peers: %d", r);
                } else
                        return FAIL("producer: sending %u: %d", n, r);
                if (get(&w->failed))
                        return -1;
                think(&think_time);
        }
        put(&w->active[PRODUCER], 0);
        if (get(&w->finish)) {
                r = (int)psyne_producer_close(p);
                if (r)
                        return FAIL("producer: close: %d", r);
        } else
                (void)psyne_producer_close(p);
        psyne_close(ch);
        return 0;
}

/* Everything of that life has come. */
static int life_is_whole(uint32_t life, uint32_t got) {
        if (got < get(&w->lives[life].committed))
                return FAIL("life %u had committed %u messages, %u arrived", life, get(&w->lives[life].committed), got);
        if (got > get(&w->lives[life].started))
                return FAIL("life %u had started %u messages, %u arrived", life, get(&w->lives[life].started), got);
        return 0;
}

static int consume(void) {
        const struct psyne_consumer_opts opts = {.struct_size = sizeof(opts), .held_max = 8};
        uint32_t life = get(&w->next_life), n = get(&w->next), taken_life = get(&w->taken_life),
                 taken = get(&w->taken);
        struct random r = {now_ns() ? (uint64_t)now_ns() : 1};
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        bool first = true;
        int e;

        e = psyne_open(w->uri, NULL, &ch);
        if (e < 0)
                return FAIL("consumer: open: %d", e);
        e = psyne_consumer_open(ch, &opts, &c);
        if (e < 0)
                return FAIL("consumer: consumer_open: %d", e);
        put(&w->active[CONSUMER], 1);
        for (;;) {
                struct psyne_msg m[4];
                int got;

                got = psyne_recv_n(c, m, 1 + (unsigned)random_below(&r, 4), 50 * MSEC);
                if (got == -EPIPE) {
                        if (!get(&w->quota) && get(&w->told) == get(&w->deaths) && !get(&w->finish) &&
                                get(&w->active[PRODUCER]) && psyne_wait_peers(ch, 1, 1, PSYNE_NOWAIT) == 0)
                                continue; /* it has just come back */
                        if (!get(&w->active[PRODUCER]) || get(&w->told) != get(&w->deaths)) {
                                if (life_is_whole(life, n) < 0)
                                        return -1;
                                told();
                        }
                        if (get(&w->finish) && !get(&w->active[PRODUCER]))
                                break;
                        e = psyne_wait_peers(ch, 1, 1, 20 * MSEC);
                        if (e < 0 && e != -ETIME)
                                return FAIL("consumer: wait_peers: %d", e);
                        continue;
                }
                if (get(&w->failed))
                        return -1;
                if (got == -ETIME || got == -EAGAIN)
                        continue;
                if (got < 0)
                        return FAIL("consumer: receiving: %d", got);
                for (int i = 0; i < got; i++) {
                        const struct message *t = m[i].data;
                        bool again = m[i].flags & PSYNE_MSG_REDELIVERED;

                        if (m[i].len < sizeof(*t) || t->bytes != m[i].len)
                                return FAIL("torn: %zu bytes, header says %u", m[i].len, t->bytes);
                        if (t->life != life) {
                                if (t->life < life || t->number)
                                        return FAIL("message %u of life %u after %u of life %u", t->number, t->life, n,
                                                life);
                                if (life_is_whole(life, n) < 0)
                                        return -1;
                                for (uint32_t k = life + 1; k < t->life; k++)
                                        if (life_is_whole(k, 0) < 0) /* lives that ended before they sent anything */
                                                return -1;
                                life = t->life;
                                n = 0;
                        } else if (first && t->number == n + 1)
                                n++; /* released by the dead one, which could not note it any more */
                        if (t->number != n)
                                return FAIL("message %u of life %u, expected %u%s", t->number, life, n,
                                        again ? " (flagged)" : "");
                        if (m[i].len != message_bytes(life, n) ||
                                !pattern_is(t->data, m[i].len - sizeof(*t), (uint64_t)life << 32 | n))
                                return FAIL("message %u of life %u is torn", n, life);
                        /* Taken before, as noted: then it must say so. */
                        if (!again && (life < taken_life || (life == taken_life && n < taken)))
                                return FAIL("message %u of life %u came twice without the flag", n, life);
                        if (again)
                                __atomic_fetch_add(&w->redelivered, 1, __ATOMIC_SEQ_CST);
                        first = false;
                        n++;
                        /* Two words that change together would need a lock: a new life's number is noted last. */
                        if (get(&w->taken_life) != life)
                                put(&w->taken, 0);
                        put(&w->taken_life, life);
                        put(&w->taken, n);
                }
                think(&r);
                for (int i = 0; i < got; i++) { /* one by one: the note may be one behind, never more */
                        const struct message t = *(const struct message *)m[i].data;

                        e = psyne_release(c, &m[i]);
                        if (e < 0)
                                return FAIL("consumer: release: %d", e);
                        if (get(&w->next_life) != t.life) {
                                put(&w->next, 0);
                                put(&w->next_life, t.life);
                        }
                        put(&w->next, t.number + 1);
                        __atomic_fetch_add(&w->received, 1, __ATOMIC_SEQ_CST);
                }
        }
        put(&w->active[CONSUMER], 0);
        e = psyne_consumer_close(c);
        if (e < 0)
                return FAIL("consumer: close: %d", e);
        psyne_close(ch);
        return 0;
}

/* ---- the parent -------------------------------------------------------------------------------------------------- */

static char dir[64];

static pid_t start(enum role role, const char *fault) {
        uint32_t life = role == PRODUCER ? ++w->life : 0;
        pid_t pid;

        if (life >= LIVES_MAX)
                abort();
        fflush(NULL);
        put(&w->active[role], 0);
        pid = fork();
        if (pid)
                return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (fault)
                setenv("PSYNE_FAULT", fault, 1);
        _exit((role == PRODUCER ? produce(life) : consume()) < 0 ? 1 : 0);
}

static bool wait_until(bool (*holds)(uint64_t), uint64_t arg) {
        int64_t until = now_ns() + WATCHDOG_NS;

        while (!holds(arg)) {
                if (now_ns() > until || get(&w->failed))
                        return false;
                nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
        }
        return true;
}
static bool is_active(uint64_t role) {
        return get(&w->active[role]) == 1;
}
static bool has_received(uint64_t n) {
        return __atomic_load_n(&w->received, __ATOMIC_SEQ_CST) >= n;
}
static bool has_committed(uint64_t n) {
        return get(&w->lives[w->life].committed) >= n;
}
static bool is_told(uint64_t n) {
        return get(&w->told) >= n;
}

/* A bare notice: another thread waits for the same death on a pidfd. */
struct watcher {
        int pidfd;
        int64_t at_ns;
        uint32_t ready;
};
static void *watch_main(void *arg) {
        struct watcher *x = arg;
        struct pollfd p = {.fd = x->pidfd, .events = POLLIN};

        put(&x->ready, (uint32_t)syscall(SYS_gettid));
        while (poll(&p, 1, 20000) < 0)
                ;
        x->at_ns = now_ns();
        return NULL;
}

static int compare(const void *a, const void *b) {
        int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

        return (x > y) - (x < y);
}
static double quantile(int64_t *values, unsigned n, double q) {
        qsort(values, n, sizeof(*values), compare);
        return n ? (double)values[(unsigned)(q * (n - 1) + 0.5)] / 1e6 : 0;
}

static void setup(void) {
        if (private_dir(dir, sizeof(dir)) < 0) {
                fprintf(stderr, "no directory under /dev/shm\n");
                exit(77);
        }
        w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (w == MAP_FAILED)
                exit(1);
}

static void again(const char *uri) {
        memset(w, 0, sizeof(*w));
        snprintf(w->uri, sizeof(w->uri), "%s", uri);
        w->next_life = 1;
        w->taken_life = 1;
}

/* Both end in order, or have. */
static int finish(pid_t pids[2]) {
        int r;

        put(&w->finish, 1);
        for (int i = 0; i < 2; i++) {
                r = child_wait(pids[i], 30 * SECOND);
                if (r && !get(&w->failed))
                        FAIL("%s ended with %d", role_names[i], r);
                pids[i] = 0;
        }
        return get(&w->failed) ? -1 : 0;
}

/* After the next open of that name nothing is left but one dead entry for the post-mortem. */
static int nothing_left(void) {
        struct psyne_channel *ch;
        unsigned files;
        int r;

        r = psyne_open(w->uri, NULL, &ch);
        if (r < 0)
                return FAIL("opening the name again: %d", r);
        psyne_close(ch);
        files = count_files(dir);
        if (files > 1) {
                char command[128];

                snprintf(command, sizeof(command), "ls -la %s >&2", dir);
                if (system(command))
                        fprintf(stderr, "no ls\n");
                return FAIL("%u files are left", files);
        }
        if (count_maps("psyne:"))
                return FAIL("rings are still mapped");
        remove_dir(dir);
        return mkdir(dir, 0700) < 0 ? FAIL("mkdir: %s", strerror(errno)) : 0;
}

static void give_up(pid_t pids[2]) {
        for (int i = 0; i < 2; i++)
                if (pids[i] > 0) {
                        kill(pids[i], SIGKILL);
                        waitpid(pids[i], NULL, 0);
                        pids[i] = 0;
                }
}

/* ---- at random moments ------------------------------------------------------------------------------------------- */

static int kill_random(unsigned n_kills) {
        struct random r = random_seeded("kill random");
        int64_t *notices = calloc(n_kills + 1, sizeof(*notices)), *bare = calloc(n_kills + 1, sizeof(*bare));
        unsigned n_notices = 0, n_bare = 0, n_both = 0, n_unseen = 0, n_role[2] = {0, 0};
        pid_t pids[2];

        again("ipc://k?size=16K&wait=block");
        pids[CONSUMER] = start(CONSUMER, NULL);
        pids[PRODUCER] = start(PRODUCER, NULL);
        for (unsigned i = 0; i < n_kills; i++) {
                enum role victim = random_below(&r, 2) ? PRODUCER : CONSUMER;
                bool both = random_below(&r, 10) == 0;
                struct watcher x = {0};
                bool watched;
                int64_t until, killed;
                pthread_t t;

                if (!wait_until(is_active, PRODUCER) || !wait_until(is_active, CONSUMER) ||
                        !wait_until(has_received, w->received + random_below(&r, 300))) {
                        FAIL("kill %u: no progress in 10 s (active %u %u, %llu received)", i, w->active[0], w->active[1],
                                (unsigned long long)w->received);
                        break;
                }
                until = now_ns() + (int64_t)random_below(&r, 2 * MSEC);
                while (now_ns() < until)
                        ;
                if (both) {
                        kill(pids[victim], SIGKILL);
                        kill(pids[!victim], SIGKILL);
                        waitpid(pids[0], NULL, 0);
                        waitpid(pids[1], NULL, 0);
                        n_both++;
                        /* The ring went with its last user. What comes next is another channel. */
                        put(&w->next_life, w->life + 1);
                        put(&w->next, 0);
                        put(&w->taken_life, w->life + 1);
                        put(&w->taken, 0);
                        pids[victim] = start(victim, NULL);
                        pids[!victim] = start(!victim, NULL);
                        continue;
                }
                x.pidfd = (int)syscall(SYS_pidfd_open, pids[victim], 0);
                watched = x.pidfd >= 0; /* a filter may refuse us, and must not keep the library from noticing */
                if (watched)
                        pthread_create(&t, NULL, watch_main, &x);
                while (watched && (!get(&x.ready) || task_state(getpid(), (pid_t)get(&x.ready)) != 'S'))
                        sched_yield();
                put(&w->deaths, get(&w->deaths) + 1);
                put(&w->hurry, 1);
                killed = now_ns();
                kill(pids[victim], SIGKILL);
                n_role[victim]++;
                if (!wait_until(is_told, w->deaths))
                        FAIL("kill %u (%s): the survivor was not told in 10 s", i, role_names[victim]);
                if (watched) {
                        pthread_join(t, NULL);
                        close(x.pidfd);
                }
                waitpid(pids[victim], NULL, 0);
                pids[victim] = 0;
                if (get(&w->failed))
                        break;
                notices[n_notices] = w->told_ns - killed;
                if (watched)
                        bare[n_bare++] = x.at_ns - killed;
                n_notices++;
                put(&w->hurry, 0);
                /* A life while the reader is stopped: it attached to nothing, and yet all of it has to arrive. */
                if (victim == PRODUCER && random_below(&r, 3) == 0) {
                        uint32_t some = 1 + (uint32_t)random_below(&r, 6);

                        kill(pids[CONSUMER], SIGSTOP);
                        while (task_state(pids[CONSUMER], pids[CONSUMER]) != 'T')
                                sched_yield();
                        pids[PRODUCER] = start(PRODUCER, NULL);
                        if (!wait_until(has_committed, some))
                                FAIL("kill %u: no %u messages beside a stopped reader", i, some);
                        put(&w->deaths, get(&w->deaths) + 1);
                        kill(pids[PRODUCER], SIGKILL);
                        waitpid(pids[PRODUCER], NULL, 0);
                        kill(pids[CONSUMER], SIGCONT);
                        n_unseen++;
                        if (!wait_until(is_told, w->deaths))
                                FAIL("kill %u: a continued consumer was not told in 10 s", i);
                        if (get(&w->failed))
                                break;
                }
                pids[victim] = start(victim, NULL);
        }
        if (get(&w->failed))
                give_up(pids);
        else if (wait_until(is_active, PRODUCER) && wait_until(is_active, CONSUMER) && finish(pids) == 0)
                (void)nothing_left();
        give_up(pids);
        printf("%u kills of a producer, %u of a consumer, %u of both, %u beside a stopped reader; %llu messages "
               "received, %llu came again flagged\n",
                n_role[PRODUCER], n_role[CONSUMER], n_both, n_unseen, (unsigned long long)w->received,
                (unsigned long long)w->redelivered);
        printf("%-14s %10s %10s %10s ms\n", "told after", "p50", "p99", "max");
        printf("%-14s %10.3f %10.3f %10.3f\n", "psyne", quantile(notices, n_notices, 0.5),
                quantile(notices, n_notices, 0.99), quantile(notices, n_notices, 1));
        if (n_bare)
                printf("%-14s %10.3f %10.3f %10.3f\nratio          %10.2f %10.2f\n", "bare pidfd", quantile(bare, n_bare, 0.5),
                        quantile(bare, n_bare, 0.99), quantile(bare, n_bare, 1),
                        quantile(notices, n_notices, 0.5) / quantile(bare, n_bare, 0.5),
                        quantile(notices, n_notices, 0.99) / quantile(bare, n_bare, 0.99));
        free(notices);
        free(bare);
        return get(&w->failed) ? -1 : 0;
}

/* ---- at named points --------------------------------------------------------------------------------------------- */

#ifndef FAULT_POINTS
#define FAULT_POINTS ""
#endif

/* The victim comes second, dies where it was told to, and is started again. */
static int point_in_role(const char *point, enum role victim, unsigned k, bool *reached) {
        pid_t pids[2];
        char fault[96];
        int r;

        *reached = false;
        snprintf(fault, sizeof(fault), "%s:%u", point, k);
        again("ipc://k?size=16K&wait=block");
        pids[!victim] = start(!victim, NULL);
        if (!wait_until(is_active, !victim))
                return FAIL("%s: the other side did not start", fault);
        /* So that it passes the points of its close as well. */
        if (victim == PRODUCER)
                w->quota = 400;
        put(&w->deaths, 1);
        pids[victim] = start(victim, fault);
        if (victim == CONSUMER) {
                /* A consumer runs until its producer ends: give it something, then an end. */
                int64_t until = now_ns() + WATCHDOG_NS;

                while (waitpid(pids[victim], &r, WNOHANG) == 0) {
                        if (has_received(400) && !get(&w->finish))
                                put(&w->finish, 1);
                        if (now_ns() > until || get(&w->failed))
                                return FAIL("%s in a consumer: no end", fault);
                        breathe();
                }
        } else {
                int64_t until = now_ns() + WATCHDOG_NS;

                while (waitpid(pids[victim], &r, WNOHANG) == 0) {
                        if (now_ns() > until || get(&w->failed))
                                return FAIL("%s in a producer: no end", fault);
                        breathe();
                }
        }
        *reached = WIFSIGNALED(r) && WTERMSIG(r) == SIGKILL;
        if (!*reached && (!WIFEXITED(r) || WEXITSTATUS(r)))
                return FAIL("%s in a %s: ended with status %x", fault, role_names[victim], r);
        if (*reached && get(&w->active[victim]) && victim == PRODUCER && !wait_until(is_told, 1))
                return FAIL("%s in a %s: the survivor was not told in 10 s", fault, role_names[victim]);
        put(&w->told, 1);
        w->quota = 0;
        if (get(&w->finish)) { /* a consumer that had received all, and died or ended when its producer had left */
                if (child_wait(pids[!victim], 20 * SECOND))
                        return FAIL("%s: the producer did not end in order", fault);
        } else {
                uint64_t before = w->received;

                pids[victim] = start(victim, NULL);
                if (!wait_until(is_active, victim))
                        return FAIL("%s: the restarted %s did not get in", fault, role_names[victim]);
                if (!wait_until(has_received, before + 100))
                        return FAIL("%s: no progress after the restart", fault);
                if (finish(pids) < 0)
                        return -1;
        }
        return nothing_left();
}

/* The victim notices another's death, or sweeps up after one, and dies of that. */
static int point_in_survivor(const char *point, enum role victim, bool *reached) {
        pid_t pids[2];
        int r;

        again("ipc://k?size=16K&wait=block");
        pids[victim] = start(victim, point);
        pids[!victim] = start(!victim, NULL);
        if (!wait_until(has_received, 20)) { /* it may have died on the way in: then this point is tested elsewhere */
                *reached = waitpid(pids[victim], &r, WNOHANG) == pids[victim];
                kill(pids[!victim], SIGKILL);
                waitpid(pids[!victim], NULL, 0);
                if (!*reached)
                        kill(pids[victim], SIGKILL), waitpid(pids[victim], NULL, 0);
                put(&w->failed, 0);
                goto fresh;
        }
        kill(pids[!victim], SIGKILL);
        waitpid(pids[!victim], NULL, 0);
        {
                int64_t until = now_ns() + SECOND;
                pid_t p = 0;

                while (p == 0 && now_ns() < until) {
                        p = waitpid(pids[victim], &r, WNOHANG);
                        breathe();
                }
                *reached = p == pids[victim] && WIFSIGNALED(r) && WTERMSIG(r) == SIGKILL;
                if (p == 0) {
                        kill(pids[victim], SIGKILL);
                        waitpid(pids[victim], NULL, 0);
                }
                put(&w->failed, 0);
        }
fresh:
        /* Two dead: who comes next sweeps, and may die of that, too; who comes then starts afresh. */
        pids[victim] = start(victim, point);
        {
                int64_t until = now_ns() + 300 * MSEC;
                pid_t p = 0;

                while (p == 0 && now_ns() < until) {
                        p = waitpid(pids[victim], &r, WNOHANG);
                        breathe();
                }
                if (p == pids[victim] && WIFSIGNALED(r) && WTERMSIG(r) == SIGKILL)
                        *reached = true;
                if (p == 0) {
                        kill(pids[victim], SIGKILL);
                        waitpid(pids[victim], NULL, 0);
                }
        }
        again("ipc://k?size=16K&wait=block");
        pids[CONSUMER] = start(CONSUMER, NULL);
        pids[PRODUCER] = start(PRODUCER, NULL);
        if (!wait_until(has_received, 100))
                return FAIL("%s in a surviving %s: the next two do not get on", point, role_names[victim]);
        if (finish(pids) < 0)
                return -1;
        return nothing_left();
}

static int kill_points(const char *only) {
        bool thorough = only && !strcmp(only, "all");
        char points[4096], *at = points, *point;
        unsigned n = 0, unreached = 0;
        int failures = 0;

        snprintf(points, sizeof(points), "%s", FAULT_POINTS);
        if (!points[0]) {
                printf("SKIP: no stop points are compiled in (meson setup -Dfault_points=true)\n");
                return 77;
        }
        printf("%-28s %s\n", "stop point", "died there: producer, consumer, survivor");
        while ((point = strsep(&at, " ,\n"))) {
                bool reached[6] = {false}, any = false;

                if (!point[0] || (only && !thorough && strcmp(only, point)))
                        continue;
                if (!strncmp(point, "group.", 6) || !strncmp(point, "shared.", 7))
                        continue; /* other modes: kill-modes.c */
                n++;
                /* A survivor's own death costs seconds to wait for: by default only where nothing else leads. */
                for (int i = 0; i < (any && !thorough ? 4 : 6); i++) {
                        enum role role = i % 2 ? CONSUMER : PRODUCER;
                        int r = i < 4 ? point_in_role(point, role, i < 2 ? 1 : 7, &reached[i])
                                      : point_in_survivor(point, role, &reached[i]);

                        if (r < 0) {
                                printf("FAIL %s, case %d: %s\n", point, i, w->failure);
                                failures++;
                                put(&w->failed, 0);
                                /* Children of a failed case die with SIGKILL: nobody else's. */
                                for (pid_t p; (p = waitpid(-1, NULL, WNOHANG)) >= 0;)
                                        if (p == 0) {
                                                char path[64], list[512] = "";
                                                FILE *f;

                                                snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
                                                f = fopen(path, "re");
                                                if (f && fgets(list, sizeof(list), f))
                                                        for (char *c = list, *t; (t = strsep(&c, " "));)
                                                                if (atoi(t) > 0)
                                                                        kill(atoi(t), SIGKILL);
                                                if (f)
                                                        fclose(f);
                                                breathe();
                                        }
                                remove_dir(dir);
                                mkdir(dir, 0700);
                        }
                        any |= reached[i];
                }
                printf("%-28s %s%s%s%s\n", point, reached[0] || reached[2] ? "producer " : "",
                        reached[1] || reached[3] ? "consumer " : "", reached[4] || reached[5] ? "survivor " : "",
                        any ? "" : "NEVER");
                fflush(stdout);
                unreached += !any;
        }
        printf("%u points, %u never reached, %d failures\n", n, unreached, failures);
        return failures || unreached ? -1 : 0;
}

/* ---- stopped is not dead ----------------------------------------------------------------------------------------- */

static int stop_one(enum role victim, int64_t ns) {
        struct psyne_metrics m = {.struct_size = sizeof(m)};
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        int64_t until;
        unsigned asked = 0;
        pid_t pids[2];

        again("ipc://k?size=16K&wait=block");
        pids[CONSUMER] = start(CONSUMER, NULL);
        pids[PRODUCER] = start(PRODUCER, NULL);
        if (!wait_until(has_received, 100))
                return FAIL("no start");
        if (psyne_open(w->uri, NULL, &ch) < 0)
                return FAIL("no third");
        kill(pids[victim], SIGSTOP);
        while (task_state(pids[victim], pids[victim]) != 'T')
                sched_yield();
        put(&w->deaths, 1); /* nobody may report one */
        for (until = now_ns() + ns; now_ns() < until; asked++) {
                if (psyne_producer_open(ch, NULL, &p) != -EBUSY || psyne_consumer_open(ch, NULL, &c) != -EBUSY)
                        FAIL("a stopped %s was taken for dead", role_names[victim]);
                if (get(&w->told) || get(&w->failed))
                        FAIL("the other side was told of a death");
                if (get(&w->failed))
                        break;
                nanosleep(&(struct timespec){.tv_nsec = 10 * MSEC}, NULL);
        }
        put(&w->deaths, 0);
        psyne_metrics(ch, &m);
        if (m.peer_deaths)
                FAIL("%llu deaths were counted", (unsigned long long)m.peer_deaths);
        psyne_close(ch);
        kill(pids[victim], SIGCONT);
        if (!get(&w->failed) && !wait_until(has_received, w->received + 100))
                FAIL("a continued %s does not go on", role_names[victim]);
        if (get(&w->failed)) {
                give_up(pids);
                return -1;
        }
        printf("%s stopped for %.1f s: -EBUSY %u times, no death\n", role_names[victim], (double)ns / 1e9, asked);
        return finish(pids) < 0 ? -1 : nothing_left();
}

int main(int argc, char **argv) {
        const char *what = argc > 1 ? argv[1] : "random";
        int r;

        setup();
        if (!strcmp(what, "random")) {
                const char *n = argc > 2 ? argv[2] : getenv("PSYNE_KILLS");

                r = kill_random(n ? (unsigned)strtoul(n, NULL, 10) : 100);
        } else if (!strcmp(what, "points"))
                r = kill_points(argc > 2 ? argv[2] : NULL);
        else if (!strcmp(what, "stop")) {
                const char *s = argc > 2 ? argv[2] : getenv("PSYNE_STOP_S");
                int64_t ns = (s ? strtoll(s, NULL, 10) : 2) * SECOND;

                r = stop_one(PRODUCER, ns);
                if (r == 0)
                        r = stop_one(CONSUMER, ns);
        } else {
                fprintf(stderr, "usage: kill [random [N] | points [NAME|all] | stop [SECONDS]]\n");
                return 2;
        }
        remove_dir(dir);
        if (r < 0)
                printf("FAIL: %s\n", w->failure);
        return r == 77 ? 77 : r < 0 ? 1 : 0;
}
