/*
 * A group shares messages out, and one worker is slow: what it has not claimed must not wait for it. It claims
 * `prefetch` messages at a time, so while it is inside one of them, at most prefetch - 1 others wait behind it. It is
 * held in there by a word that the parent writes, for as long as it takes, so nothing here depends on how fast anybody
 * is: all other messages have to come to the other worker while the slow one does not move at all.
 *
 * The slow one gets its claim from a batch that is there before it looks, of fewer messages than its prefetch or of
 * more. Then the other worker starts, and N messages follow: one by one, each awaited, so that the other one sleeps in
 * between and is the one to be woken; or all at once.
 *
 *      slow-worker [N]      default 100 messages while the slow one is held
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/world.h"

#define PREFETCH_MAX 8u
#define MESSAGES_MAX 900u /* 64 bytes each: fewer than a ring of 64K holds */

enum { SLOW, FAST, N_WORKERS };

struct shared {
        uint32_t may_receive[N_WORKERS]; /* atomic: the worker calls receive */
        uint32_t may_finish;             /* the slow one goes on with what it is inside of */
        uint32_t received[N_WORKERS];
        uint8_t whose[MESSAGES_MAX];     /* by number: 1 + who received it */
        uint8_t twice, flagged;
};
static struct shared *s;

static uint32_t get(const uint32_t *word) {
        return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void put(uint32_t *word, uint32_t value) {
        __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

/* Until @word has reached @value. */
static int until(const uint32_t *word, uint32_t value) {
        int64_t end = now_ns() + WATCHDOG_NS;

        while (get(word) < value) {
                if (now_ns() > end)
                        return -1;
                breathe();
        }
        return 0;
}

static int work(int who, const char *uri, uint32_t prefetch) {
        const struct psyne_consumer_opts opts = {.struct_size = sizeof(opts), .prefetch = prefetch};
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        int r;

        if (psyne_open(uri, NULL, &ch) < 0 || psyne_consumer_open(ch, &opts, &c) < 0)
                return 2;
        if (until(&s->may_receive[who], 1) < 0)
                return 3;
        while ((r = psyne_recv(c, &m, 6 * WATCHDOG_NS)) == 0) {
                if (m.type >= MESSAGES_MAX)
                        return 4;
                if (s->whose[m.type])
                        s->twice = 1;
                s->whose[m.type] = (uint8_t)(1 + who);
                if (m.flags)
                        s->flagged = 1;
                __atomic_fetch_add(&s->received[who], 1, __ATOMIC_SEQ_CST);
                while (who == SLOW && !get(&s->may_finish))
                        breathe(); /* no deadline: the parent kills us when it gives up */
                if (psyne_release(c, &m) < 0)
                        return 5;
        }
        (void)psyne_consumer_close(c);
        (void)psyne_close(ch);
        return r == -EPIPE ? 0 : 6;
}

static int send_all(struct psyne_producer *p, uint32_t first, uint32_t n) {
        static struct psyne_msg m[MESSAGES_MAX];

        if (psyne_claim_n(p, 8, n, PSYNE_NOWAIT, m) != (int)n)
                return -1;
        for (uint32_t i = 0; i < n; i++) {
                pattern_fill(m[i].data, 8, first + i);
                m[i].type = first + i;
        }
        return psyne_commit_n(p, m, n) == (int)n ? 0 : -1;
}

struct variant {
        const struct mode *mode;
        uint32_t prefetch, batch;
        bool one_by_one;
};

static int fail(const struct variant *v, const char *what) {
        printf("%-5s prefetch %u FAIL: %s; the slow worker has received %u, the other one %u (%s)\n", v->mode->name,
                v->prefetch, what, get(&s->received[SLOW]), get(&s->received[FAST]), psyne_last_error());
        return -1;
}

/* What it takes while the slow worker is inside its first message. */
static int play(const struct variant *v, struct psyne_channel *ch, struct psyne_producer *const p[2], uint32_t n,
        uint32_t *claimed) {
        struct psyne_metrics metrics = {.struct_size = sizeof(metrics)};
        uint32_t total = v->batch + n;

        *claimed = v->batch < v->prefetch ? v->batch : v->prefetch;
        if (psyne_wait_peers(ch, 0, N_WORKERS, WATCHDOG_NS) < 0)
                return fail(v, "no workers");
        if (send_all(p[0], 0, v->batch) < 0)
                return fail(v, "the batch");
        put(&s->may_receive[SLOW], 1);
        if (until(&s->received[SLOW], 1) < 0)
                return fail(v, "the slow worker receives nothing");
        put(&s->may_receive[FAST], 1);
        if (until(&s->received[FAST], v->batch - *claimed) < 0)
                return fail(v, "what the slow worker did not claim waits behind it");
        if (!v->one_by_one && send_all(p[1], v->batch, n) < 0)
                return fail(v, "sending");
        for (uint32_t i = 0; v->one_by_one && i < n; i++) {
                if (send_all(p[i % 2], v->batch + i, 1) < 0)
                        return fail(v, "sending");
                if (until(&s->received[FAST], v->batch - *claimed + i + 1) < 0)
                        return fail(v, "a message that came later waits behind the slow worker");
        }
        if (until(&s->received[FAST], total - *claimed) < 0)
                return fail(v, "messages that came later wait behind the slow worker");
        if (get(&s->received[SLOW]) != 1 || get(&s->received[FAST]) != total - *claimed)
                return fail(v, "the slow worker has moved");
        /* What is missing is what it claimed: the oldest ones. */
        for (uint32_t i = 0; i < total; i++)
                if (s->whose[i] != (i == 0 ? 1 + SLOW : i < *claimed ? 0 : 1 + FAST))
                        return fail(v, "it is not its claim that waits");
        put(&s->may_finish, 1);
        if (until(&s->received[SLOW], *claimed) < 0)
                return fail(v, "the slow worker does not receive its claim");
        if (psyne_metrics(ch, &metrics) < 0 || metrics.backstop_hits)
                return fail(v, "no wake told the other worker of a message");
        return 0;
}

static int run(const struct variant *v, uint32_t n) {
        struct psyne_producer *p[2] = {NULL, NULL};
        struct psyne_channel *ch = NULL;
        pid_t pids[N_WORKERS];
        uint32_t claimed = 0;
        char uri[96];
        int r;

        memset(s, 0, sizeof(*s));
        snprintf(uri, sizeof(uri), "ipc://slow?mode=%s&size=64K&wait=block", v->mode->name);
        for (int i = 0; i < N_WORKERS; i++) {
                pids[i] = fork();
                if (pids[i] == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        _exit(work(i, uri, v->prefetch));
                }
        }
        r = psyne_open(uri, NULL, &ch) < 0 || psyne_producer_open(ch, NULL, &p[0]) < 0 ||
                (v->mode->many_producers && psyne_producer_open(ch, NULL, &p[1]) < 0);
        r = r ? fail(v, "opening") : play(v, ch, (struct psyne_producer *[2]){p[0], p[1] ? p[1] : p[0]}, n, &claimed);
        if (r < 0) {
                for (int i = 0; i < N_WORKERS; i++)
                        kill(pids[i], SIGKILL);
                for (int i = 0; i < N_WORKERS; i++)
                        (void)child_wait(pids[i], 0);
        }
        for (int k = 0; k < 2; k++)
                if (psyne_producer_close(p[k]) != 0 && !r)
                        r = fail(v, "something was not received");
        psyne_close(ch);
        for (int i = 0; i < N_WORKERS && !r; i++) {
                int status = child_wait(pids[i], WATCHDOG_NS);

                if (status)
                        r = fail(v, i == SLOW ? "the slow worker failed" : "the other worker failed");
        }
        if (!r && (s->twice || s->flagged || get(&s->received[SLOW]) + get(&s->received[FAST]) != v->batch + n))
                r = fail(v, "one was lost, or came twice");
        if (!r)
                printf("%-5s prefetch %u, %u there before it looked, %u more %s: %u waited behind the slow worker\n",
                        v->mode->name, v->prefetch, v->batch, n, v->one_by_one ? "one by one" : "at once ", claimed - 1);
        return r;
}

int main(int argc, char **argv) {
        static const uint32_t prefetches[] = {1, PREFETCH_MAX}, batches[] = {1, 5, 2 * PREFETCH_MAX};
        static const int tried[] = {MODE_spmc, MODE_mpmc};
        uint32_t n = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 100;
        char dir[64];
        int r = 0;

        if (n > MESSAGES_MAX - 2 * PREFETCH_MAX)
                n = MESSAGES_MAX - 2 * PREFETCH_MAX;
        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED)
                return 1;
        setvbuf(stdout, NULL, _IOLBF, 0);
        for (unsigned i = 0; i < 24 && !r; i++)
                r = run(&(struct variant){&modes[tried[i / 12]], prefetches[i / 6 % 2], batches[i / 2 % 3], i % 2}, n);
        if (count_files(dir)) {
                printf("%u files are left\n", count_files(dir));
                r = 1;
        }
        remove_dir(dir);
        printf("%s\n", r ? "FAIL" : "PASS");
        return r ? 1 : 0;
}
