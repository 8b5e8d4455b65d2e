/*
 * Many messages in every mode, threads over memory://: every consumer sees each producer's messages in order, and all of
 * them together see each exactly once (broadcast and the end of a pipeline: each consumer every one).
 *
 *      soak [MESSAGES [MODE]]      default 1000000, of all producers together
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "support/world.h"

#define BATCH 16u

static const struct shape {
        const char *name, *query;
        unsigned producers, consumers;
        bool each_sees_all, stages;
} shapes[] = {
        {"spsc", "mode=spsc", 1, 1, true, false},
        {"mpsc", "mode=mpsc", 2, 1, true, false},
        {"spmc", "mode=spmc", 1, 2, false, false},
        {"mpmc", "mode=mpmc", 2, 2, false, false},
        {"broadcast", "mode=broadcast", 2, 2, true, false},
        {"pipeline", "mode=broadcast&inplace=1", 2, 3, true, true}, /* first, second and last */
};

struct end {
        const struct shape *shape;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        unsigned index;
        uint64_t n, count[2], sum[2];
        char failure[200];
        pthread_t thread;
};

static uint64_t word(uint64_t number, unsigned producer, unsigned stage) {
        return (number * 0x9e3779b97f4a7c15ull) ^ (producer + 1) ^ (uint64_t)stage << 32;
}

static void *send_all(void *arg) {
        struct end *e = arg;
        struct random r = {e->index + 1};

        for (uint64_t i = 0; i < e->n;) {
                struct psyne_msg m[BATCH];
                unsigned want = random_below(&r, 4) ? 1 : BATCH;
                size_t bytes = 16 + 8 * random_below(&r, 6);
                int got = psyne_claim_n(e->p, bytes, want < e->n - i ? want : (unsigned)(e->n - i), WATCHDOG_NS, m);

                if (got < 0) {
                        snprintf(e->failure, sizeof(e->failure), "producer %u: %s", e->index, psyne_last_error());
                        break;
                }
                for (int k = 0; k < got; k++, i++) {
                        uint64_t *at = m[k].data;

                        m[k].type = e->index;
                        at[0] = i;
                        at[1] = word(i, e->index, 0);
                        at[bytes / 8 - 1] = bytes == 16 ? at[1] : i + 1;
                }
                if (psyne_commit_n(e->p, m, (unsigned)got) != got) {
                        snprintf(e->failure, sizeof(e->failure), "producer %u: %s", e->index, psyne_last_error());
                        break;
                }
        }
        return NULL;
}

static void *receive_all(void *arg) {
        struct end *e = arg;
        uint64_t next[2] = {0};
        int got;

        for (;;) {
                struct psyne_msg m[BATCH];

                got = psyne_recv_n(e->c, m, BATCH, WATCHDOG_NS);
                if (got < 0)
                        break;
                for (int k = 0; k < got; k++) {
                        uint64_t *at = m[k].data;
                        unsigned who = m[k].type & 1, stage = e->shape->stages ? e->index : 0;

                        if (m[k].len < 16 || (at[0] < next[who] || (e->shape->each_sees_all && at[0] != next[who])) ||
                                at[1] != word(at[0], who, stage) || (m[k].len > 16 && at[m[k].len / 8 - 1] != at[0] + 1)) {
                                snprintf(e->failure, sizeof(e->failure),
                                        "consumer %u: message %llu of producer %u where %llu was expected", e->index,
                                        (unsigned long long)at[0], who, (unsigned long long)next[who]);
                                return NULL;
                        }
                        next[who] = at[0] + 1;
                        e->count[who]++;
                        e->sum[who] += at[0];
                        if (e->shape->stages && e->index < 2)
                                at[1] = word(at[0], who, stage + 1);
                }
                /* Together and one by one: different ways through a shared group. */
                if (got % 2 && psyne_release(e->c, &m[0]) == 0)
                        for (int k = 1; k < got && psyne_release(e->c, &m[k]) == 0; k++)
                                ;
                else if (!(got % 2))
                        (void)psyne_release_n(e->c, m, (unsigned)got);
                if (m[got - 1].opaque[2]) { /* a release ends the message */
                        snprintf(e->failure, sizeof(e->failure), "consumer %u: %s", e->index, psyne_last_error());
                        return NULL;
                }
        }
        if (got != -EPIPE)
                snprintf(e->failure, sizeof(e->failure), "consumer %u: %s", e->index, psyne_last_error());
        return NULL;
}

static int one(const struct shape *s, uint64_t n) {
        static const char *const names[] = {"one", "two", "three"};
        struct psyne_channel *ch;
        struct end p[2] = {{0}}, c[3] = {{0}};
        uint64_t each = n / s->producers, wanted = each * (each - 1) / 2;
        char uri[100];
        int64_t began = now_ns();
        int bad = 0;

        snprintf(uri, sizeof(uri), "memory://soak?size=64K&%s", s->query);
        if (psyne_open(uri, NULL, &ch) < 0)
                return 1;
        for (unsigned i = 0; i < s->consumers; i++) {
                const struct psyne_consumer_opts opts = {.struct_size = sizeof(opts), .held_max = 32, .prefetch = 1 + 3 * i,
                        .group = s->stages ? names[i] : NULL, .follows = s->stages && i ? names[i - 1] : NULL,
                        .in_place = s->stages && i < 2};

                c[i].shape = s;
                c[i].index = i;
                if (psyne_consumer_open(ch, &opts, &c[i].c) < 0) {
                        printf("FAIL %s: %s\n", s->name, psyne_last_error());
                        return 1;
                }
        }
        for (unsigned i = 0; i < s->producers; i++) {
                p[i].shape = s;
                p[i].index = i;
                p[i].n = each;
                if (psyne_producer_open(ch, NULL, &p[i].p) < 0) {
                        printf("FAIL %s: %s\n", s->name, psyne_last_error());
                        return 1;
                }
        }
        for (unsigned i = 0; i < s->consumers; i++)
                pthread_create(&c[i].thread, NULL, receive_all, &c[i]);
        for (unsigned i = 0; i < s->producers; i++)
                pthread_create(&p[i].thread, NULL, send_all, &p[i]);
        for (unsigned i = 0; i < s->producers; i++) {
                pthread_join(p[i].thread, NULL);
                bad |= psyne_producer_close(p[i].p) != 0 || p[i].failure[0];
                if (p[i].failure[0])
                        printf("%s: %s\n", s->name, p[i].failure);
        }
        for (unsigned i = 0; i < s->consumers; i++) {
                pthread_join(c[i].thread, NULL);
                bad |= c[i].failure[0] || psyne_consumer_close(c[i].c) != 0;
                if (c[i].failure[0])
                        printf("%s: %s\n", s->name, c[i].failure);
                for (unsigned k = 0; k < s->producers; k++) {
                        if (s->each_sees_all)
                                bad |= c[i].count[k] != each || c[i].sum[k] != wanted;
                        else if (i == 1)
                                bad |= c[0].count[k] + c[1].count[k] != each || c[0].sum[k] + c[1].sum[k] != wanted;
                }
        }
        psyne_close(ch);
        printf("%s %-10s %u producers, %u consumers, %llu messages in %.1f s\n", bad ? "FAIL" : "ok  ", s->name, s->producers,
                s->consumers, (unsigned long long)(each * s->producers), (double)(now_ns() - began) / 1e9);
        fflush(stdout);
        return bad;
}

int main(int argc, char **argv) {
        uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
        int bad = 0;

        for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
                if (argc <= 2 || !strcmp(argv[2], shapes[i].name))
                        bad |= one(&shapes[i], n);
        return bad;
}
