/*
 * Deaths in a pipeline of processes: a producer, a stage that writes, a stage of two workers that write, a stage that
 * removes some, and an output. Stages and the output are killed at random moments and replaced under their names.
 * Everything that was sent and not removed comes out, in order, and after every stage has written into it. A message that
 * a dead one had held may be given to the same stage again, flagged; one that a stage had passed on never is.
 *
 *      kill-stages [KILLS]     default 100
 */
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/world.h"

enum { PRODUCER, FIRST, WORK_A, WORK_B, THIRD, OUTPUT, N_ROLES };
#define REMOVED(n) ((n) % 7 == 3)

struct page {
        uint32_t finish, over, failed;
        uint64_t sent, received, again;
        uint64_t expected;  /* by the output: what it has released, so that its successor goes on */
        uint32_t ready[N_ROLES];
        char failure[300];
};
static struct page *page;

struct message {
        uint64_t number;
        uint32_t first, work, third; /* how often each stage wrote; last words of a dead one may count twice */
        uint32_t bytes;
        unsigned char pattern[];
};

static int failed(const char *who, const char *what) {
        if (!__atomic_exchange_n(&page->failed, 1, __ATOMIC_SEQ_CST))
                snprintf(page->failure, sizeof(page->failure), "%s: %s (%s)", who, what, psyne_last_error());
        return 1;
}

static int producer(struct psyne_channel *ch) {
        const struct psyne_producer_opts opts = {.struct_size = sizeof(opts), .linger_ns = -1};
        struct random r = {11};
        struct psyne_producer *p;
        struct psyne_msg m;

        if (psyne_producer_open(ch, &opts, &p) < 0)
                return failed("producer", "does not open");
        __atomic_store_n(&page->ready[PRODUCER], 1, __ATOMIC_SEQ_CST);
        while (!__atomic_load_n(&page->finish, __ATOMIC_ACQUIRE)) {
                uint32_t bytes = (uint32_t)random_below(&r, 200);
                int e = psyne_claim(p, sizeof(struct message) + bytes, 100 * MSEC, &m);
                struct message *at = m.data;

                if (e == -ETIME || e == -EPIPE) /* the output is being replaced */
                        continue;
                if (e < 0)
                        return failed("producer", "cannot claim");
                *at = (struct message){.number = page->sent, .bytes = bytes};
                pattern_fill(at->pattern, bytes, page->sent);
                m.type = 0;
                if (psyne_commit(p, &m) < 0)
                        return failed("producer", "cannot commit");
                __atomic_store_n(&page->sent, page->sent + 1, __ATOMIC_RELEASE);
        }
        return psyne_producer_close(p) == 0 ? 0 : failed("producer", "leaves something behind");
}

static int stage(struct psyne_channel *ch, unsigned role) {
        static const char *const names[] = {"", "first", "work", "work", "third", "out"};
        static const char *const fronts[] = {"", NULL, "first", "first", "work", "third"};
        const struct psyne_consumer_opts opts = {.struct_size = sizeof(opts), .group = names[role], .follows = fronts[role],
                .in_place = role != OUTPUT, .shared = role == WORK_A || role == WORK_B, .prefetch = 3};
        struct psyne_consumer *c;
        struct psyne_msg m;
        int64_t until = now_ns() + WATCHDOG_NS;
        char what[100];
        int e;

        while ((e = psyne_consumer_open(ch, &opts, &c)) == -ENOENT || e == -EBUSY) /* the front is not there yet */
                if (now_ns() > until)
                        break;
                else
                        breathe();
        if (e < 0)
                return failed(names[role], "does not open");
        __atomic_store_n(&page->ready[role], 1, __ATOMIC_SEQ_CST);
        for (uint64_t last = 0;;) {
                struct message *at;
                uint64_t number;

                e = psyne_recv(c, &m, 100 * MSEC);
                /* Who joins when all is over has never seen a producer, and waits for one. */
                if ((e == -EPIPE || e == -ETIME) && __atomic_load_n(&page->over, __ATOMIC_ACQUIRE))
                        break;
                if (e == 0)
                        until = now_ns() + WATCHDOG_NS;
                if (e == -EPIPE || e == -EINTR || (e == -ETIME && now_ns() < until)) {
                        breathe();
                        continue;
                }
                if (e < 0)
                        return failed(names[role], "hangs");
                at = m.data;
                number = at->number; /* from its release on it is not ours to look at */
                if (m.flags & PSYNE_MSG_REDELIVERED)
                        __atomic_fetch_add(&page->again, 1, __ATOMIC_RELAXED);
                if (m.len != sizeof(*at) + at->bytes || !pattern_is(at->pattern, at->bytes, at->number) ||
                        (role > FIRST && !at->first) || (role > WORK_B && !at->work) || (role == OUTPUT && !at->third) ||
                        m.type != (role == FIRST ? 0 : 1))
                        if (!(m.flags & PSYNE_MSG_REDELIVERED && role == FIRST && m.type == 1))
                                return failed(names[role], "got a message before its turn, or torn");
                if (at->number < last)
                        return failed(names[role], "got messages out of order");
                last = role == WORK_A || role == WORK_B ? 0 : at->number;
                switch (role) {
                case FIRST:
                        at->first++;
                        m.type = 1;
                        e = psyne_release(c, &m);
                        break;
                case WORK_A:
                case WORK_B:
                        at->work++;
                        e = psyne_release(c, &m);
                        break;
                case THIRD:
                        at->third++;
                        e = REMOVED(at->number) ? psyne_remove(c, &m) : psyne_release(c, &m);
                        break;
                default:
                        /* Released and noted are two steps: who dies in between has noted one less. */
                        while (REMOVED(page->expected))
                                page->expected++;
                        if (at->number != page->expected && !(m.flags & PSYNE_MSG_REDELIVERED) &&
                                !(at->number > page->expected && page->expected + 2 >= at->number))
                                return snprintf(what, sizeof(what), "something is missing, or comes again: %llu, not %llu",
                                               (unsigned long long)at->number, (unsigned long long)page->expected),
                                       failed(names[role], what);
                        e = psyne_release(c, &m);
                        page->expected = number + 1;
                        page->received++;
                }
                if (e < 0)
                        return failed(names[role], "cannot release");
        }
        (void)psyne_consumer_close(c);
        return 0;
}

static pid_t start(unsigned role) {
        pid_t p;

        __atomic_store_n(&page->ready[role], 0, __ATOMIC_SEQ_CST);
        fflush(NULL);
        p = fork();
        if (p == 0) {
                struct psyne_channel *ch;
                int r;

                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (psyne_open("ipc://stages?mode=broadcast&size=16K&inplace=1&wait=block", NULL, &ch) < 0)
                        _exit(failed("somebody", "does not open"));
                r = role == PRODUCER ? producer(ch) : stage(ch, role);
                psyne_close(ch);
                _exit(r);
        }
        return p;
}

static bool progress(uint64_t messages) {
        uint64_t from = __atomic_load_n(&page->received, __ATOMIC_ACQUIRE);
        int64_t until = now_ns() + WATCHDOG_NS;

        while (__atomic_load_n(&page->received, __ATOMIC_ACQUIRE) < from + messages && now_ns() < until &&
                !__atomic_load_n(&page->failed, __ATOMIC_ACQUIRE))
                breathe();
        return now_ns() < until;
}

int main(int argc, char **argv) {
        unsigned kills = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 100, deaths[N_ROLES] = {0};
        struct random r = random_seeded("kill-stages");
        pid_t pids[N_ROLES];
        char dir[64];

        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
                return 1;
        for (unsigned i = FIRST; i < N_ROLES; i++) { /* the chain first: a message sent before it is nobody's */
                pids[i] = start(i);
                for (int64_t until = now_ns() + WATCHDOG_NS; !page->ready[i] && !page->failed && now_ns() < until;)
                        breathe();
        }
        pids[PRODUCER] = start(PRODUCER);
        if (!progress(100))
                failed("main", "no start");
        for (unsigned n = 0; n < kills && !page->failed; n++) {
                unsigned who = FIRST + (unsigned)random_below(&r, N_ROLES - FIRST);
                int64_t until = now_ns() + (int64_t)random_below(&r, 3 * MSEC);
                int status;

                while (now_ns() < until)
                        breathe();
                if (waitpid(pids[who], &status, WNOHANG) == pids[who])
                        break; /* it has said why */
                kill(pids[who], SIGKILL);
                waitpid(pids[who], NULL, 0);
                deaths[who]++;
                pids[who] = start(who);
                if (n % 4 == 3 && !progress(30))
                        failed("main", "they hang after a death");
        }
        __atomic_store_n(&page->finish, 1, __ATOMIC_SEQ_CST);
        for (unsigned i = 0; i < N_ROLES; i++) {
                int status;

                if (i == FIRST) /* the producer has ended, and waited until everybody had everything */
                        __atomic_store_n(&page->over, 1, __ATOMIC_SEQ_CST);
                status = page->failed ? (kill(pids[i], SIGKILL), waitpid(pids[i], NULL, 0), 0)
                                      : child_wait(pids[i], 2 * WATCHDOG_NS);

                if (status && !page->failed)
                        failed("main", "somebody does not end");
        }
        while (REMOVED(page->expected))
                page->expected++;
        if (!page->failed && page->expected < page->sent)
                failed("main", "not everything came out");
        printf("%s %llu sent, %llu came out, %llu given to a stage again; killed: first %u, workers %u, third %u, output %u\n",
                page->failed ? "FAIL" : "ok", (unsigned long long)page->sent, (unsigned long long)page->received,
                (unsigned long long)page->again, deaths[FIRST], deaths[WORK_A] + deaths[WORK_B], deaths[THIRD], deaths[OUTPUT]);
        if (page->failed)
                printf("FAIL %s\n", page->failure);
        remove_dir(dir);
        return page->failed != 0;
}
