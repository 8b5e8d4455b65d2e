/*
 * Nothing is unaccounted for: one producer, a fast and a slow reader that each see everything, all processes, and for
 * every policy of a group that falls behind and of a sender that finds no room
 *
 *      sent == received + reported lost
 *
 * exactly, for each reader; what arrives is whole and in order, and the gaps in it are those that were reported.
 *
 *      policies [MESSAGES]     default 100000, for each policy
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/world.h"

static const struct policy {
        const char *name;
        enum psyne_behind behind; /* of the slow reader */
        enum psyne_full full;     /* of the producer */
        bool callback;
} policies[] = {
        {"blocks", PSYNE_BEHIND_BLOCKS, PSYNE_FULL_BLOCK, false},
        {"skips", PSYNE_BEHIND_SKIPS, PSYNE_FULL_BLOCK, false},
        {"ejected", PSYNE_BEHIND_EJECTED, PSYNE_FULL_BLOCK, false},
        {"fails", PSYNE_BEHIND_BLOCKS, PSYNE_FULL_FAIL, false},
        {"drops", PSYNE_BEHIND_BLOCKS, PSYNE_FULL_DROP, false},
        {"callback", PSYNE_BEHIND_BLOCKS, PSYNE_FULL_BLOCK, true},
};
enum { FAST, SLOW };

struct page {
        uint32_t ready, sent_all, failed;
        uint64_t sent, dropped; /* committed; refused or dropped, as the sender was told */
        uint64_t received[2], lost[2], gaps[2];
};
static struct page *page;
static unsigned n_messages = 100000;

struct message {
        uint64_t number; /* of those that were sent */
        unsigned char pattern[];
};

static int failed(const char *who, const char *what) {
        fprintf(stderr, "%s: %s (%s)\n", who, what, psyne_last_error());
        __atomic_store_n(&page->failed, 1, __ATOMIC_SEQ_CST);
        return 1;
}

static int reader(const char *uri, unsigned which, enum psyne_behind behind) {
        const struct psyne_consumer_opts opts = {.struct_size = sizeof(opts),
                .group = which == SLOW ? "slow" : "fast",
                .behind = which == SLOW ? behind : behind == PSYNE_BEHIND_SKIPS ? behind : PSYNE_BEHIND_BLOCKS,
                .eject_ns = 2 * MSEC};
        const char *name = which == SLOW ? "the slow reader" : "the fast reader";
        uint64_t next = 0, count = 0;
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m = {0};
        int r;

        if (psyne_open(uri, NULL, &ch) < 0 || psyne_consumer_open(ch, &opts, &c) < 0)
                return failed(name, "does not open");
        __atomic_fetch_add(&page->ready, 1, __ATOMIC_SEQ_CST);
        while ((r = psyne_recv(c, &m, WATCHDOG_NS)) == 0) {
                struct message s;
                const struct message *at = m.data;

                if (m.len < sizeof(s))
                        return failed(name, "got a message that nobody sent");
                memcpy(&s, at, sizeof(s));
                if (s.number < next || !pattern_is(at->pattern, m.len - sizeof(s), s.number))
                        return failed(name, "got a message that is torn, or comes again");
                page->gaps[which] += s.number - next;
                next = s.number + 1;
                page->received[which]++;
                page->lost[which] += m.lost;
                if (page->gaps[which] != page->lost[which])
                        return failed(name, "misses something that was not reported");
                if (psyne_release(c, &m) < 0)
                        return failed(name, "cannot release");
                /* Now and then it is held up until the ring was full, and this long again if it may be ejected. */
                if (which == SLOW && ++count % 5000 == 0) {
                        int64_t until = now_ns() + (behind == PSYNE_BEHIND_EJECTED && count == 20000 ? WATCHDOG_NS : MSEC);

                        while (now_ns() < until && !__atomic_load_n(&page->sent_all, __ATOMIC_ACQUIRE))
                                breathe();
                }
        }
        page->lost[which] += m.lost;
        if (r != -EPIPE && !(r == -ECONNABORTED && which == SLOW && behind == PSYNE_BEHIND_EJECTED))
                return failed(name, "ended");
        while (r == -ECONNABORTED && !__atomic_load_n(&page->sent_all, __ATOMIC_ACQUIRE))
                breathe();
        if (r == -ECONNABORTED) { /* what was sent since it was told */
                (void)psyne_recv(c, &m, PSYNE_NOWAIT);
                page->lost[which] += m.lost;
        }
        (void)psyne_consumer_close(c);
        psyne_close(ch);
        return 0;
}

static enum psyne_full alternate(void *ctx) {
        unsigned *n = ctx;

        return ++*n % 2 ? PSYNE_FULL_DROP : PSYNE_FULL_BLOCK;
}

static int sender(const char *uri, const struct policy *p) {
        unsigned calls = 0;
        const struct psyne_producer_opts opts = {.struct_size = sizeof(opts), .full = p->full,
                .on_full = p->callback ? alternate : NULL, .on_full_ctx = &calls, .linger_ns = -1};
        struct random r = {3};
        struct psyne_channel *ch;
        struct psyne_producer *tx;
        struct psyne_msg m;

        if (psyne_open(uri, NULL, &ch) < 0 || psyne_producer_open(ch, &opts, &tx) < 0)
                return failed("the sender", "does not open");
        while (__atomic_load_n(&page->ready, __ATOMIC_ACQUIRE) < 2)
                breathe();
        for (unsigned n = 0; n < n_messages; n++) {
                size_t bytes = random_below(&r, 120);
                int e = psyne_claim(tx, sizeof(struct message) + bytes, WATCHDOG_NS, &m);
                struct message *at = m.data;

                if (e == -EAGAIN && (p->full > PSYNE_FULL_BLOCK || p->callback)) {
                        page->dropped++;
                        if (page->dropped % 64 == 0)
                                breathe();
                        continue;
                }
                if (e < 0)
                        return failed("the sender", "cannot claim");
                at->number = page->sent++;
                pattern_fill(at->pattern, bytes, at->number);
                if (psyne_commit(tx, &m) < 0)
                        return failed("the sender", "cannot commit");
        }
        __atomic_store_n(&page->sent_all, 1, __ATOMIC_SEQ_CST);
        if (psyne_producer_close(tx) != 0)
                return failed("the sender", "leaves something behind");
        psyne_close(ch);
        return 0;
}

static int one(const struct policy *p) {
        char uri[80];
        pid_t pids[3];
        int bad = 0;

        memset(page, 0, sizeof(*page));
        snprintf(uri, sizeof(uri), "ipc://policy-%s?mode=broadcast&size=16K", p->name);
        fflush(NULL);
        for (unsigned i = 0; i < 3; i++) {
                pids[i] = fork();
                if (pids[i] == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        _exit(i == 2 ? sender(uri, p) : reader(uri, i, p->behind));
                }
        }
        for (unsigned i = 0; i < 3; i++)
                bad |= child_wait(pids[i], 120 * SECOND) != 0;
        for (unsigned i = 0; i < 2; i++)
                bad |= page->received[i] + page->lost[i] != page->sent;
        bad |= page->sent + page->dropped != n_messages;
        printf("%s %-9s asked to send %u = sent %llu + refused or dropped %llu; fast: received %llu + lost %llu; slow: received "
               "%llu + lost %llu\n",
                bad ? "FAIL" : "ok  ", p->name, n_messages, (unsigned long long)page->sent, (unsigned long long)page->dropped,
                (unsigned long long)page->received[FAST], (unsigned long long)page->lost[FAST],
                (unsigned long long)page->received[SLOW], (unsigned long long)page->lost[SLOW]);
        /* A run in which nothing was lost where something can be shows nothing. */
        if (!bad && n_messages >= 100000 &&
                ((p->behind > PSYNE_BEHIND_BLOCKS && !page->lost[SLOW]) || ((p->full > PSYNE_FULL_BLOCK || p->callback) && !page->dropped))) {
                printf("FAIL %s: nobody fell behind\n", p->name);
                bad = 1;
        }
        return bad;
}

int main(int argc, char **argv) {
        char dir[64];
        int bad = 0;

        if (argc > 1)
                n_messages = (unsigned)strtoul(argv[1], NULL, 10);
        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
                return 1;
        for (unsigned i = 0; i < sizeof(policies) / sizeof(policies[0]); i++)
                bad |= one(&policies[i]);
        remove_dir(dir);
        return bad;
}
