/* psyne_pipeline_*: no, one and many stages, in order, in place, drained, and what becomes of errors. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <psyne/info.h>
#include <psyne/psyne.h>

#define SECOND 1000000000ll
#define N 2000u
#define LIVES .timeout = 60

struct payload {
        uint64_t number, sum;
        uint32_t visits[8];
        void *seen; /* by the first stage */
};

#define must(expr) cr_assert_eq((expr), 0, "%s: %s", #expr, psyne_last_error())

static int adds(void *ctx, struct psyne_msg *m) {
        struct payload *p = m->data;
        unsigned which = *(unsigned *)ctx;

        for (unsigned i = 0; i < which; i++)
                if (p->visits[i] != 1)
                        return -EPROTO; /* before its turn */
        if (which == 0)
                p->seen = m->data;
        else if (p->seen != m->data)
                return -EXDEV; /* it was moved */
        p->visits[which]++;
        p->sum += which + 1;
        return 0;
}

static void send_one(struct psyne_pipeline *p, uint64_t number) {
        struct psyne_msg m;

        must(psyne_claim(psyne_pipeline_input(p), sizeof(struct payload), 10 * SECOND, &m));
        memset(m.data, 0, sizeof(struct payload));
        ((struct payload *)m.data)->number = number;
        m.type = (uint32_t)number;
        must(psyne_commit(psyne_pipeline_input(p), &m));
}

static struct psyne_pipeline *make(const char *uri, size_t ring) {
        struct psyne_pipeline *p;

        must(psyne_pipeline_new(uri, PSYNE_OPTS(.ring_bytes = ring), &p));
        return p;
}

/* @workers[i] is stage i's; 0 ends. Streams, and then leaves some for the drain. */
static void stream(const unsigned workers[]) {
        unsigned which[8] = {0, 1, 2, 3, 4, 5, 6, 7}, n = 0;
        struct psyne_pipeline *p = make(NULL, 64 << 10);
        uint64_t sent = 0, got = 0;
        struct psyne_msg m;
        int r;

        for (; workers[n]; n++) {
                const struct psyne_stage_opts opts = {
                        .struct_size = sizeof(opts), .workers = workers[n], .on_error = PSYNE_STAGE_STOP};

                must(psyne_pipeline_stage(p, adds, &which[n], &opts));
        }
        cr_assert_null(psyne_pipeline_input(p));
        must(psyne_pipeline_start(p));
        cr_assert_eq(psyne_pipeline_start(p), -EBUSY);
        cr_assert_eq(psyne_pipeline_stage(p, adds, &which[0], NULL), -EBUSY);
        while (got < N) {
                for (; sent < N && sent < got + 100; sent++)
                        send_one(p, sent);
                must(psyne_recv(psyne_pipeline_output(p), &m, 10 * SECOND));
                cr_assert_eq(((struct payload *)m.data)->number, got);
                cr_assert_eq(((struct payload *)m.data)->sum, n * (n + 1) / 2);
                must(psyne_release(psyne_pipeline_output(p), &m));
                got++;
        }
        for (; sent < N + 300; sent++)
                send_one(p, sent);
        must(psyne_pipeline_stop(p, PSYNE_DRAIN)); /* nobody reads meanwhile */
        cr_assert_eq(psyne_claim(psyne_pipeline_input(p), 8, PSYNE_NOWAIT, &m), -ESHUTDOWN);
        for (unsigned i = 0; i < n; i++) {
                struct psyne_stage_stats s = {.struct_size = sizeof(s)};

                must(psyne_pipeline_stats(p, i, &s));
                cr_assert_eq(s.messages, sent, "stage %u saw %lu of %lu", i, (unsigned long)s.messages, (unsigned long)sent);
                cr_assert_eq(s.workers, workers[i]);
                cr_assert_eq(s.backlog_bytes, 0);
                cr_assert_eq(s.errors + s.removed + s.dead_letters, 0);
        }
        while ((r = psyne_recv(psyne_pipeline_output(p), &m, 10 * SECOND)) == 0) {
                cr_assert_eq(((struct payload *)m.data)->number, got);
                cr_assert_eq(((struct payload *)m.data)->sum, n * (n + 1) / 2);
                must(psyne_release(psyne_pipeline_output(p), &m));
                got++;
        }
        cr_assert_eq(r, -ESHUTDOWN, "%s", psyne_last_error());
        cr_assert_eq(got, sent);
        cr_assert_null(psyne_pipeline_free(p));
}

Test(pipeline, no_stage, LIVES) {
        stream((const unsigned[]){0});
}
Test(pipeline, one_stage, LIVES) {
        stream((const unsigned[]){1, 0});
}
Test(pipeline, many_stages, LIVES) {
        stream((const unsigned[]){1, 1, 1, 1, 1, 0});
}
Test(pipeline, parallel_stages, LIVES) {
        stream((const unsigned[]){1, 3, 1, 4, 2, 0});
}

/* ---- errors -------------------------------------------------------------------------------------------------------- */

static int fails_on_7(void *ctx, struct psyne_msg *m) {
        (void)ctx;
        return m->type % 10 == 7 ? -EILSEQ : m->type % 10 == 3 ? 1 : 0;
}

static uint64_t receive_rest(struct psyne_pipeline *p) {
        struct psyne_msg m;
        uint64_t n = 0;

        while (psyne_recv(psyne_pipeline_output(p), &m, 10 * SECOND) == 0) {
                cr_assert(m.type % 10 != 7 && m.type % 10 != 3);
                must(psyne_release(psyne_pipeline_output(p), &m));
                n++;
        }
        return n;
}

Test(pipeline, drops, LIVES) {
        struct psyne_stage_stats s = {.struct_size = sizeof(s)};
        struct psyne_pipeline *p = make(NULL, 64 << 10);

        must(psyne_pipeline_stage(p, fails_on_7, NULL, NULL));
        must(psyne_pipeline_start(p));
        for (unsigned i = 0; i < 100; i++)
                send_one(p, i);
        must(psyne_pipeline_stop(p, PSYNE_DRAIN));
        cr_assert_eq(receive_rest(p), 80);
        must(psyne_pipeline_stats(p, 0, &s));
        cr_assert(s.messages == 100 && s.errors == 10 && s.removed == 10 && s.dead_letters == 0);
        cr_assert_str_eq(s.name, "stage1");
        psyne_pipeline_free(p);
}

Test(pipeline, dead_letters, LIVES) {
        struct psyne_stage_stats s = {.struct_size = sizeof(s)};
        struct psyne_pipeline *p = make(NULL, 64 << 10);
        struct psyne_channel *ch;
        struct psyne_producer *to;
        struct psyne_consumer *c;
        struct psyne_msg m;

        must(psyne_open("memory://", PSYNE_OPTS(.ring_bytes = 4096), &ch));
        must(psyne_producer_open(ch, NULL, &to));
        must(psyne_consumer_open(ch, NULL, &c));
        must(psyne_pipeline_stage(p, fails_on_7, NULL,
                &(struct psyne_stage_opts){.struct_size = sizeof(struct psyne_stage_opts),
                        .name = "checks", .workers = 2, .on_error = PSYNE_STAGE_DEAD_LETTER, .dead_letters = to}));
        must(psyne_pipeline_start(p));
        for (unsigned i = 0; i < 100; i++)
                send_one(p, i);
        must(psyne_pipeline_stop(p, PSYNE_DRAIN));
        cr_assert_eq(receive_rest(p), 80);
        must(psyne_pipeline_stats(p, 0, &s));
        cr_assert(s.errors == 10 && s.dead_letters == 10);
        cr_assert_str_eq(s.name, "checks");
        for (unsigned i = 0; i < 10; i++) {
                must(psyne_recv(c, &m, PSYNE_NOWAIT));
                cr_assert(m.type % 10 == 7 && m.len == sizeof(struct payload));
                cr_assert_eq(((struct payload *)m.data)->number, m.type);
                must(psyne_release(c, &m));
        }
        cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), -EAGAIN);
        psyne_pipeline_free(p);
        (void)psyne_producer_close(to);
        (void)psyne_consumer_close(c);
        psyne_close(ch);
}

/* The first error ends it all, and is what the stop returns; whoever waits is told. */
Test(pipeline, stops, LIVES) {
        struct psyne_pipeline *p = make(NULL, 64 << 10);
        unsigned zero = 0;
        struct psyne_msg m;
        int r;

        must(psyne_pipeline_stage(p, adds, &zero, NULL));
        must(psyne_pipeline_stage(p, fails_on_7, NULL,
                &(struct psyne_stage_opts){.struct_size = sizeof(struct psyne_stage_opts), .name = "strict",
                        .on_error = PSYNE_STAGE_STOP}));
        must(psyne_pipeline_start(p));
        for (unsigned i = 0; i < 8; i++)
                if (psyne_claim(psyne_pipeline_input(p), sizeof(struct payload), PSYNE_FOREVER, &m) == 0) {
                        memset(m.data, 0, m.len);
                        m.type = i;
                        (void)psyne_commit(psyne_pipeline_input(p), &m);
                }
        while ((r = psyne_recv(psyne_pipeline_output(p), &m, 10 * SECOND)) == 0) {
                cr_assert_lt(m.type, 7);
                (void)psyne_release(psyne_pipeline_output(p), &m);
        }
        cr_assert_eq(r, -ESHUTDOWN);
        cr_assert_eq(psyne_pipeline_stop(p, PSYNE_DRAIN), -EILSEQ);
        cr_assert(strstr(psyne_last_error(), "strict"), "%s", psyne_last_error());
        psyne_pipeline_free(p);
}

/* Whoever stops it waits until its threads have ended; several at once, too. */
struct stopper {
        struct psyne_pipeline *p;
        enum psyne_stop how;
        int r;
};
static void *stop_it(void *arg) {
        struct stopper *s = arg;

        s->r = psyne_pipeline_stop(s->p, s->how);
        return NULL;
}

Test(pipeline, stopped_by_many, LIVES) {
        for (unsigned round = 0; round < 40; round++) {
                struct psyne_pipeline *p = make(NULL, 64 << 10);
                unsigned which[3] = {0, 1, 2};
                struct stopper stoppers[4];
                pthread_t threads[4];

                for (unsigned i = 0; i < 3; i++)
                        must(psyne_pipeline_stage(p, adds, &which[i], NULL));
                must(psyne_pipeline_start(p));
                for (unsigned i = 0; i < 20; i++)
                        send_one(p, i);
                for (unsigned i = 0; i < 4; i++) {
                        stoppers[i] = (struct stopper){p, round % 2 ? PSYNE_DRAIN : i % 2 ? PSYNE_ABORT : PSYNE_DRAIN, 1};
                        cr_assert_eq(pthread_create(&threads[i], NULL, stop_it, &stoppers[i]), 0);
                }
                for (unsigned i = 0; i < 4; i++) {
                        cr_assert_eq(pthread_join(threads[i], NULL), 0);
                        cr_assert_eq(stoppers[i].r, 0);
                }
                psyne_pipeline_free(p);
        }
}

/* A child that inherited one may only free it. */
Test(pipeline, after_fork, LIVES) {
        struct psyne_stage_stats s = {.struct_size = sizeof(s)};
        struct psyne_pipeline *p = make(NULL, 64 << 10);
        unsigned zero = 0;
        int status;
        pid_t child;

        must(psyne_pipeline_stage(p, adds, &zero, NULL));
        must(psyne_pipeline_start(p));
        child = fork();
        if (child == 0) {
                int bad = psyne_pipeline_stats(p, 0, &s) != -EOWNERDEAD;

                bad |= (psyne_pipeline_stop(p, PSYNE_DRAIN) != -EOWNERDEAD) << 1;
                psyne_pipeline_free(p);
                _exit(bad);
        }
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert_eq(status, 0, "the child: %#x", (unsigned)status);
        send_one(p, 0);
        must(psyne_pipeline_stop(p, PSYNE_DRAIN));
        must(psyne_pipeline_stats(p, 0, &s));
        cr_assert_eq(s.messages, 1);
        psyne_pipeline_free(p);
}

/* Two on one name: the second is told so, and nothing of it runs. */
Test(pipeline, twice_on_a_name, LIVES) {
        struct psyne_pipeline *first = make("memory://twice", 64 << 10), *second;
        unsigned zero = 0;

        must(psyne_pipeline_stage(first, adds, &zero, NULL));
        must(psyne_pipeline_start(first));
        for (unsigned i = 0; i < 20; i++) {
                must(psyne_pipeline_new("memory://twice", NULL, &second));
                must(psyne_pipeline_stage(second, adds, &zero, NULL));
                cr_assert_eq(psyne_pipeline_start(second), -EBUSY, "%s", psyne_last_error());
                cr_assert_null(psyne_pipeline_input(second));
                psyne_pipeline_free(second);
                if (i == 10) { /* stopping ends both: they are one channel */
                        (void)psyne_pipeline_stop(first, PSYNE_ABORT);
                        break;
                }
        }
        psyne_pipeline_free(first);
}

/* A full ring, a stage in the middle of it, and nobody who reads: freeing ends all the same. */
Test(pipeline, freed_while_full, LIVES) {
        struct psyne_pipeline *p = make("memory://full", 4096);
        unsigned zero = 0;
        struct psyne_msg m;

        must(psyne_pipeline_stage(p, adds, &zero, NULL));
        must(psyne_pipeline_start(p));
        while (psyne_claim(psyne_pipeline_input(p), sizeof(struct payload), SECOND / 100, &m) == 0) {
                memset(m.data, 0, m.len);
                must(psyne_commit(psyne_pipeline_input(p), &m));
        }
        psyne_pipeline_free(p);
}

Test(pipeline, refuses, LIVES) {
        const struct psyne_stage_opts twice = {.struct_size = sizeof(twice), .name = "a"};
        const struct psyne_stage_opts bad[] = {
                {.struct_size = 1},
                {.struct_size = sizeof(bad[0]), .name = "no good"},
                {.struct_size = sizeof(bad[0]), .name = "output"},
                {.struct_size = sizeof(bad[0]), .name = "a"},
                {.struct_size = sizeof(bad[0]), .on_error = (enum psyne_stage_error)3},
                {.struct_size = sizeof(bad[0]), .on_error = PSYNE_STAGE_DEAD_LETTER},
                {.struct_size = sizeof(bad[0]), .wait = (enum psyne_wait)9},
        };
        struct psyne_stage_stats s = {.struct_size = sizeof(s)};
        struct psyne_channel *ch;
        struct psyne_pipeline *p;
        unsigned zero = 0;

        cr_assert_eq(psyne_pipeline_new(NULL, NULL, NULL), -EINVAL);
        cr_assert_eq(psyne_pipeline_start(NULL), -EINVAL);
        cr_assert_eq(psyne_pipeline_stop(NULL, PSYNE_DRAIN), -EINVAL);
        cr_assert_null(psyne_pipeline_free(NULL));
        must(psyne_pipeline_new("memory://taken", NULL, &p));
        cr_assert_eq(psyne_pipeline_stage(p, NULL, NULL, NULL), -EINVAL);
        must(psyne_pipeline_stage(p, adds, &zero, &twice));
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                cr_assert_eq(psyne_pipeline_stage(p, adds, &zero, &bad[i]), -EINVAL, "row %zu", i);
        cr_assert_eq(psyne_pipeline_stage(p, adds, &zero,
                             &(struct psyne_stage_opts){.struct_size = sizeof(twice), .workers = 64}), -EUSERS);
        cr_assert_eq(psyne_pipeline_stats(p, 0, &s), -EINVAL);
        cr_assert_eq(psyne_pipeline_stop(p, PSYNE_DRAIN), -EINVAL);
        must(psyne_open("memory://taken", PSYNE_OPTS(.mode = PSYNE_SPSC), &ch)); /* somebody else's name */
        cr_assert_eq(psyne_pipeline_start(p), -EMEDIUMTYPE, "%s", psyne_last_error());
        cr_assert_null(psyne_pipeline_input(p));
        psyne_close(ch);
        psyne_pipeline_free(p);
}
