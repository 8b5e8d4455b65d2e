/* Pipelines: groups that follow groups, in place. */
#include <pthread.h>

#include "family.h"

#define BROADCAST(family, a, b) FAMILY_MODE(family, a, b, broadcast)

static int open_stage(struct psyne_channel *ch, const char *group, const char *follows, bool in_place, bool shared,
        struct psyne_consumer **ret) {
        const struct psyne_consumer_opts opts = {.struct_size = sizeof(opts), .group = group, .follows = follows,
                .in_place = in_place, .shared = shared};

        return psyne_consumer_open(ch, &opts, ret);
}

/* A message is the next group's when it is released, and as it then is. */
static int steps(struct world *w) {
        struct psyne_consumer *one, *two, *out, *refused;
        struct psyne_msg m[3], n;
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=4K&inplace=1");
        MUST_BE(open_stage(e.ch, "one", NULL, true, false, &one), 0);
        MUST_REFUSE(open_stage(e.ch, "out", "two", false, false, &out), -ENOENT);
        MUST_BE(open_stage(e.ch, "two", "one", true, false, &two), 0);
        MUST_BE(open_stage(e.ch, "out", "two", false, false, &out), 0);
        MUST_REFUSE(open_stage(e.ch, "tee", NULL, false, false, &refused), -EINVAL); /* would read beside writers */
        MUST_REFUSE(open_stage(e.ch, "tee", "one", false, false, &refused), -EINVAL);
        MUST_REFUSE(open_stage(e.ch, "two", "out", true, false, &refused), -EMEDIUMTYPE);
        MUST_REFUSE(open_stage(e.ch, "two", "one", true, true, &refused), -EMEDIUMTYPE);
        MUST_REFUSE(open_stage(e.ch, "two", "one", true, false, &refused), -EBUSY);

        for (uint32_t i = 0; i < 3; i++)
                SEND(&e, i, 40);
        MUST_REFUSE(psyne_recv(two, &n, PSYNE_NOWAIT), -EAGAIN);
        for (uint32_t i = 0; i < 3; i++) {
                MUST_BE(psyne_recv(one, &m[i], PSYNE_NOWAIT), 0);
                MUST(pattern_is(m[i].data, 40, i));
        }
        pattern_fill(m[1].data, 30, 101);
        m[1].len = 30;
        m[1].type = 101;
        MUST_BE(psyne_release(one, &m[1]), 0);
        MUST_REFUSE(psyne_recv(two, &n, PSYNE_NOWAIT), -EAGAIN); /* order stays: the first is still held */
        m[0].len = m[0].cap + 1;
        MUST_REFUSE(psyne_release(one, &m[0]), -EINVAL); /* past the record: still held */
        m[0].len = m[0].cap;
        m[0].type = 100;
        pattern_fill(m[0].data, m[0].len, 100); /* grown to the capacity */
        MUST_BE(psyne_release(one, &m[0]), 0);
        MUST_REFUSE(psyne_release(one, &m[0]), -EINVAL);
        MUST_BE(psyne_recv(two, &n, PSYNE_NOWAIT), 0);
        MUST(n.type == 100 && n.data == m[0].data && n.len == m[0].cap && pattern_is(n.data, n.len, 100));
        MUST_BE(psyne_release(two, &n), 0);
        MUST_BE(psyne_recv(two, &n, PSYNE_NOWAIT), 0);
        MUST(n.type == 101 && n.len == 30 && pattern_is(n.data, 30, 101));
        MUST_BE(psyne_remove(two, &n), 0); /* nobody behind gets it */
        MUST_REFUSE(psyne_recv(two, &n, PSYNE_NOWAIT), -EAGAIN);
        MUST_BE(psyne_release(one, &m[2]), 0);
        MUST_BE(psyne_recv(out, &n, PSYNE_NOWAIT), 0);
        MUST_BE(n.type, 100);
        MUST_REFUSE(psyne_remove(out, &n), -EINVAL);
        MUST_BE(psyne_release(out, &n), 0);
        MUST_REFUSE(psyne_recv(out, &n, PSYNE_NOWAIT), -EAGAIN);
        MUST_BE(psyne_recv(two, &n, PSYNE_NOWAIT), 0);
        MUST_BE(psyne_release(two, &n), 0);
        MUST_BE(psyne_recv(out, &n, PSYNE_NOWAIT), 0);
        MUST(n.type == 2 && n.data == m[2].data && pattern_is(n.data, 40, 2));
        MUST_BE(psyne_release(out, &n), 0);

        /* The producer waits for the last. */
        for (uint32_t i = 0; psyne_claim(e.p, 300, PSYNE_NOWAIT, &n) == 0; i++) {
                n.type = i;
                MUST_BE(psyne_commit(e.p, &n), 0);
        }
        while (psyne_recv(one, &n, PSYNE_NOWAIT) == 0)
                MUST_BE(psyne_release(one, &n), 0);
        MUST_REFUSE(psyne_claim(e.p, 300, PSYNE_NOWAIT, &n), -EAGAIN);
        while (psyne_recv(two, &n, PSYNE_NOWAIT) == 0)
                MUST_BE(psyne_release(two, &n), 0);
        MUST_REFUSE(psyne_claim(e.p, 300, PSYNE_NOWAIT, &n), -EAGAIN);
        MUST_BE(psyne_recv(out, &n, PSYNE_NOWAIT), 0);
        MUST_BE(psyne_release(out, &n), 0);
        MUST_BE(psyne_claim(e.p, 200, PSYNE_NOWAIT, &n), 0);
        MUST_BE(psyne_abort(e.p, &n), 0);
        while (psyne_recv(out, &n, PSYNE_NOWAIT) == 0)
                MUST_BE(psyne_release(out, &n), 0);
        MUST_BE(psyne_consumer_close(one), 0);
        MUST_BE(psyne_consumer_close(two), 0);
        e.c = out;
        CLOSE(&e);
        return 0;
}
BROADCAST(stage_steps, steps, NULL)

/* Only a channel whose rings are open to it has stages that write; without, groups may follow all the same. */
static int sealed(struct world *w) {
        const struct psyne_opts in_place = {.struct_size = sizeof(in_place), .flags = PSYNE_IN_PLACE};
        struct psyne_consumer *one, *two;
        struct psyne_channel *other;
        struct ends e = {0};
        struct psyne_msg m;

        NEAR("it has both ends in one process");
        OPEN_PRODUCER(&e, "size=4K");
        MUST_REFUSE(open_stage(e.ch, "one", NULL, true, false, &one), -ENOTSUP);
        MUST_REFUSE(psyne_open(w->uri, &in_place, &other), -EMEDIUMTYPE);
        MUST_BE(open_stage(e.ch, "one", NULL, false, false, &one), 0);
        MUST_BE(open_stage(e.ch, "two", "one", false, false, &two), 0);
        SEND(&e, 7, 5);
        MUST_REFUSE(psyne_recv(two, &m, PSYNE_NOWAIT), -EAGAIN);
        MUST_BE(psyne_recv(one, &m, PSYNE_NOWAIT), 0);
        MUST_BE(psyne_release(one, &m), 0);
        MUST_BE(psyne_recv(two, &m, PSYNE_NOWAIT), 0);
        MUST_BE(psyne_release(two, &m), 0);
        MUST_BE(psyne_consumer_close(one), 0);
        MUST_BE(psyne_consumer_close(two), 0);
        CLOSE(&e);
        return 0;
}
BROADCAST(stage_sealed, sealed, NULL)

/* ---- streams ------------------------------------------------------------------------------------------------------ */

#define N 5000u

/* In the middle, in another thread or process; both ends sleep for it and are woken. Ends when all is through. */
static int stream_stage(struct world *w) {
        struct psyne_consumer *c;
        struct ends e = {0};
        struct psyne_msg m;
        int r;

        MUST_BE(world_open(w, "size=4K&inplace=1&wait=block", &e.ch), 0);
        MUST_BE(open_stage(e.ch, "one", NULL, true, false, &c), 0);
        world_reach(w, 1);
        AWAIT(2);
        for (uint32_t n = 0; (r = psyne_recv(c, &m, WATCHDOG_NS)) == 0; n++) {
                MUST_BE(m.type, n);
                MUST(pattern_is(m.data, m.len, n));
                pattern_fill(m.data, m.len, n + 1000000);
                m.type += 1000000;
                MUST_BE(n % 5 == 4 ? psyne_remove(c, &m) : psyne_release(c, &m), 0);
        }
        MUST_BE(r, -EPIPE);
        MUST_BE(psyne_consumer_close(c), 0);
        MUST(!psyne_close(e.ch));
        return 0;
}
static int stream_ends(struct world *w) {
        struct psyne_consumer *out;
        struct ends e = {0};
        struct psyne_msg m;
        uint32_t n = 0, got = 0;

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        MUST_BE(open_stage(e.ch, "out", "one", false, false, &out), 0);
        world_reach(w, 2);
        while (got < N) {
                for (unsigned burst = 1 + n % 13; burst && n < N && n < got + 20; burst--, n++)
                        SEND(&e, n, n % 100);
                while (got < n) {
                        if (got % 5 == 4) {
                                got++;
                                continue;
                        }
                        MUST_BE(psyne_recv(out, &m, WATCHDOG_NS), 0);
                        MUST_BE(m.type, got + 1000000);
                        MUST_BE(m.len, got % 100);
                        MUST(pattern_is(m.data, m.len, got + 1000000));
                        MUST_BE(psyne_release(out, &m), 0);
                        got++;
                }
        }
        MUST_BE(psyne_producer_close(e.p), 0);
        e.p = NULL;
        MUST_REFUSE(psyne_recv(out, &m, WATCHDOG_NS), -EPIPE);
        e.c = out;
        CLOSE(&e);
        return 0;
}
BROADCAST(stage_stream, stream_stage, stream_ends)

/* A stage of two workers, one in each world: what it passes on is in the producer's order all the same. */
static int worker(struct world *w, const char *query, unsigned which) {
        struct psyne_consumer *c;
        struct psyne_channel *ch;
        struct psyne_msg m[3];
        int r;

        MUST_BE(world_open(w, query, &ch), 0);
        MUST_BE(open_stage(ch, "work", "first", true, true, &c), 0);
        __atomic_fetch_add(&w->page->words[1], 1, __ATOMIC_SEQ_CST);
        while ((r = psyne_recv_n(c, m, 3, WATCHDOG_NS)) > 0)
                for (int i = r - 1; i >= 0; i--) { /* released from behind */
                        ((unsigned char *)m[i].data)[0] = (unsigned char)(which + 1);
                        m[i].type |= 1u << 30;
                        w->page->words[10 + which]++;
                        MUST_BE(psyne_release(c, &m[i]), 0);
                }
        MUST_BE(r, -EPIPE);
        MUST_BE(psyne_consumer_close(c), 0);
        MUST(!psyne_close(ch));
        return 0;
}
struct in_thread {
        struct world *w;
        int r;
};
static void *worker_thread(void *arg) {
        struct in_thread *t = arg;

        t->r = worker(t->w, NULL, 1);
        return NULL;
}
static int parallel_here(struct world *w) {
        AWAIT(1);
        return worker(w, NULL, 0);
}
static int parallel_all(struct world *w) {
        struct in_thread t = {w, 0};
        struct psyne_consumer *first, *out;
        struct ends e = {0};
        struct psyne_msg m;
        uint32_t n = 0, passed = 0, got = 0;
        pthread_t thread;

        OPEN_PRODUCER(&e, "size=8K&inplace=1");
        MUST_BE(open_stage(e.ch, "first", NULL, true, false, &first), 0);
        world_reach(w, 1);
        MUST_BE(pthread_create(&thread, NULL, worker_thread, &t), 0);
        UNTIL(__atomic_load_n(&w->page->words[1], __ATOMIC_SEQ_CST) == 2);
        MUST_BE(open_stage(e.ch, "out", "work", false, false, &out), 0);
        while (got < N) {
                for (; n < N && n < got + 30; n++)
                        SEND(&e, n, 1 + n % 50);
                for (; passed < n; passed++) {
                        MUST_BE(psyne_recv(first, &m, WATCHDOG_NS), 0);
                        MUST_BE(psyne_release(first, &m), 0);
                }
                MUST_BE(psyne_recv(out, &m, WATCHDOG_NS), 0);
                MUST_BE(m.type, got | 1u << 30);
                MUST_BE(m.len, 1 + got % 50);
                MUST(((unsigned char *)m.data)[0] - 1 < 2);
                MUST_BE(psyne_release(out, &m), 0);
                got++;
        }
        MUST_BE(psyne_producer_close(e.p), 0);
        e.p = NULL;
        MUST_REFUSE(psyne_recv(first, &m, WATCHDOG_NS), -EPIPE);
        MUST_REFUSE(psyne_recv(out, &m, WATCHDOG_NS), -EPIPE);
        MUST_BE(pthread_join(thread, NULL), 0);
        MUST_BE(t.r, 0);
        MUST(w->page->words[10] + w->page->words[11] == N);
        MUST_BE(psyne_consumer_close(first), 0);
        e.c = out;
        CLOSE(&e);
        return 0;
}
BROADCAST(stage_parallel, parallel_all, parallel_here)

/* Stopped to drain: what was sent before goes all the way. */
static int drain(struct world *w) {
        struct psyne_consumer *one, *out;
        struct ends e = {0};
        struct psyne_msg m;

        OPEN_PRODUCER(&e, "size=4K&inplace=1");
        MUST_BE(open_stage(e.ch, "one", NULL, true, false, &one), 0);
        MUST_BE(open_stage(e.ch, "out", "one", false, false, &out), 0);
        for (uint32_t n = 0; n < 10; n++)
                SEND(&e, n, 10);
        MUST_BE(psyne_stop(e.ch, PSYNE_DRAIN), 0);
        MUST_REFUSE(psyne_claim(e.p, 1, PSYNE_NOWAIT, &m), -ESHUTDOWN);
        for (uint32_t n = 0; n < 10; n++) {
                MUST_REFUSE(psyne_recv(out, &m, PSYNE_NOWAIT), -EAGAIN); /* on its way */
                MUST_BE(psyne_recv(one, &m, PSYNE_NOWAIT), 0);
                MUST_BE(psyne_release(one, &m), 0);
                MUST_BE(psyne_recv(out, &m, PSYNE_NOWAIT), 0);
                MUST_BE(m.type, n);
                MUST_BE(psyne_release(out, &m), 0);
        }
        MUST_REFUSE(psyne_recv(one, &m, PSYNE_NOWAIT), -ESHUTDOWN);
        MUST_REFUSE(psyne_recv(out, &m, PSYNE_NOWAIT), -ESHUTDOWN);
        MUST_BE(psyne_consumer_close(one), 0);
        e.c = out;
        CLOSE(&e);
        return 0;
}
BROADCAST(stage_drain, drain, NULL)

/* To another channel it is a copy, and says so. */
static int forward(struct world *w) {
        struct psyne_channel *other;
        struct psyne_producer *to;
        struct psyne_consumer *from;
        struct ends e = {0};
        struct psyne_msg m, n;

        OPEN_PRODUCER(&e, "size=4K");
        MUST_BE(open_stage(e.ch, "f", NULL, false, false, &e.c), 0);
        MUST_BE(psyne_open("memory://", PSYNE_OPTS(.ring_bytes = 4096), &other), 0);
        MUST_BE(psyne_producer_open(other, NULL, &to), 0);
        MUST_BE(psyne_consumer_open(other, NULL, &from), 0);
        SEND(&e, 77, 33);
        MUST_BE(psyne_recv(e.c, &m, PSYNE_NOWAIT), 0);
        MUST_BE(psyne_stop(e.ch, PSYNE_DRAIN), 0);
        MUST_REFUSE(psyne_forward(e.c, &m, NULL, PSYNE_NOWAIT), -EINVAL);
        MUST_BE(psyne_forward(e.c, &m, to, PSYNE_NOWAIT), 0);
        MUST_REFUSE(psyne_release(e.c, &m), -EINVAL); /* is released */
        MUST_BE(psyne_recv(from, &n, PSYNE_NOWAIT), 0);
        MUST(n.type == 77 && n.len == 33 && pattern_is(n.data, 33, 77));
        MUST_BE(psyne_release(from, &n), 0);
        MUST_BE(psyne_consumer_close(from), 0);
        MUST_BE(psyne_producer_close(to), 0);
        MUST(!psyne_close(other));
        CLOSE(&e);
        return 0;
}
BROADCAST(forward, forward, NULL)
