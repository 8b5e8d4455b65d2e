/* team.c: see team.h. The threads of a side, and the sums of a slice. */
#include "bench/team.h"
#include "bench/futex.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define AWAIT_SPINS 2000u       /* about 15 us */
#define STOP_AGAIN_NS 200000.0  /* a consumer took more stops than its own: send others */
#define MISSING_NS 1000000000.0 /* what has not come by then is lost */

struct team {
        struct bench_side *side;
        void (*run)(struct team_member *m);
        unsigned n;
        struct team_member members[TEAM_MAX];
        pthread_t threads[TEAM_MAX];
        unsigned n_threads;
        uint64_t begin;
        /* Each in a line of its own would gain nothing: nobody looks at them while messages flow. */
        uint32_t turn, ready, go, finished;
        bool quit;
};

static struct bench_score *score_of(const struct team_member *m) {
        return &m->side->slot->score;
}

static uint64_t ticks(const struct team_member *m, double ns) {
        return (uint64_t)(ns * m->side->ticks_per_ns);
}

/* Members of one side share a CPU: whoever waits for another one has to make room for it, but not at once. A side of
 * one that yields while the driver goes to sleep would count as preempted. */
static void await(const uint32_t *word, uint32_t value) {
        for (unsigned i = 0; __atomic_load_n(word, __ATOMIC_ACQUIRE) != value; i++) {
                if (i < AWAIT_SPINS)
                        tick_pause();
                else
                        sched_yield();
        }
}

static void *member_main(void *arg) {
        struct team_member *m = arg;
        struct team *t = m->team;
        uint32_t turn = 0;

        bench_pin(m->side, true);
        for (;;) {
                while (__atomic_load_n(&t->turn, __ATOMIC_ACQUIRE) == turn)
                        futex_wait(&t->turn, turn, -1);
                turn++;
                if (t->quit)
                        return NULL;
                __atomic_add_fetch(&t->ready, 1, __ATOMIC_ACQ_REL);
                await(&t->go, turn);
                t->run(m);
                __atomic_add_fetch(&t->finished, 1, __ATOMIC_ACQ_REL);
        }
}

int team_new(struct team **ret, struct bench_side *s, void (*run)(struct team_member *m)) {
        const unsigned n = s->side == BENCH_SIDE_A ? s->spec->producers : s->spec->consumers;
        struct team *t;
        int r;

        if (n < 1 || n > TEAM_MAX)
                return bench_refuse(s, -EINVAL, "1 to %u on each side", TEAM_MAX);
        t = calloc(1, sizeof(*t));
        if (!t)
                return bench_refuse(s, -ENOMEM, "no memory for a team");
        t->side = s;
        t->run = run;
        t->n = n;
        for (unsigned i = 0; i < n; i++)
                t->members[i] = (struct team_member){.team = t, .side = s, .index = i};
        for (unsigned i = 1; i < n; i++) {
                r = pthread_create(&t->threads[t->n_threads], NULL, member_main, &t->members[i]);
                if (r != 0) {
                        team_free(t);
                        return bench_refuse(s, -r, "cannot start a thread: %s", strerror(r));
                }
                t->n_threads++;
        }
        *ret = t;
        return 0;
}

struct team *team_free(struct team *t) {
        if (!t)
                return NULL;
        t->quit = true;
        __atomic_add_fetch(&t->turn, 1, __ATOMIC_RELEASE);
        futex_wake(&t->turn, INT_MAX);
        for (unsigned i = 0; i < t->n_threads; i++)
                pthread_join(t->threads[i], NULL);
        free(t);
        return NULL;
}

unsigned team_size(const struct team *t) {
        return t->n;
}

struct team_member *team_at(struct team *t, unsigned index) {
        return &t->members[index];
}

/* What all consumers together should have received once the producers are done. */
static uint64_t copies(const struct team_member *m) {
        return m->side->spec->channel == BENCH_BROADCAST ? m->side->spec->consumers : 1;
}

/* By the thread of side B, when all of both sides is in the score: in a broadcast channel the rate is that of sending.
 */
static void team_answer(struct team *t) {
        struct bench_answer *a = t->side->answer;
        struct team_member *first = &t->members[0];
        const struct bench_score *score = score_of(first);
        const uint64_t expected = score->sent * copies(first), got = score->received;
        uint64_t last = 0;

        for (unsigned i = 0; i < t->n; i++)
                if (t->members[i].last_tick > last)
                        last = t->members[i].last_tick;
        a->n = got;
        a->damaged = score->damaged + (got < expected ? expected - got : got - expected);
        if (!a->damaged && score->received_sum != score->sent_sum * copies(first))
                a->damaged = 1; /* as many as were sent, but not the same ones: two at least, how many is not known */
        if (last > t->begin)
                a->value = (double)(got / copies(first)) * t->side->ticks_per_ns * 1e9 / (double)(last - t->begin);
}

void team_run(struct team *t) {
        struct bench_side *s = t->side;

        if (s->side == BENCH_SIDE_A)
                s->slot->score = (struct bench_score){0};
        t->ready = t->finished = 0;
        __atomic_add_fetch(&t->turn, 1, __ATOMIC_RELEASE);
        futex_wake(&t->turn, INT_MAX);
        await(&t->ready, t->n_threads);
        bench_meet(s);
        t->begin = tick_now();
        __atomic_store_n(&t->go, t->turn, __ATOMIC_RELEASE);
        t->run(&t->members[0]);
        await(&t->finished, t->n_threads);
        if (s->side == BENCH_SIDE_B)
                team_answer(t);
        else
                s->answer->n = score_of(&t->members[0])->sent;
}

/* ---- producers -------------------------------------------------------------------------------------------------- */

void team_count_sent(struct team_member *m, uint64_t n) {
        struct bench_score *score = score_of(m);
        const uint64_t first = team_id(m->index, PAYLOAD_FIRST);

        __atomic_add_fetch(&score->sent, n, __ATOMIC_RELAXED);
        __atomic_add_fetch(&score->sent_sum, n * first + n * (n - 1) / 2, __ATOMIC_RELAXED);
        __atomic_add_fetch(&score->producers_done, 1, __ATOMIC_RELEASE);
}

void team_await_producers(struct team_member *m) {
        await(&score_of(m)->producers_done, m->side->spec->producers);
}

unsigned team_stops(const struct team_member *m) {
        return m->side->spec->channel == BENCH_BROADCAST ? 1 : m->side->spec->consumers;
}

int team_await_stops(struct team_member *m) {
        const uint64_t until = tick_now() + ticks(m, STOP_AGAIN_NS);
        struct bench_score *score = score_of(m);

        do {
                if (__atomic_load_n(&score->consumers_stopped, __ATOMIC_ACQUIRE) == m->side->spec->consumers) {
                        __atomic_store_n(&score->stops_done, 1, __ATOMIC_RELEASE);
                        return 1;
                }
                sched_yield();
        } while (tick_now() < until);
        return 0;
}

/* ---- consumers -------------------------------------------------------------------------------------------------- */

static void count_received(struct bench_score *score, uint64_t n, uint64_t sum, uint64_t damaged) {
        __atomic_add_fetch(&score->received_sum, sum, __ATOMIC_RELAXED);
        __atomic_add_fetch(&score->damaged, damaged, __ATOMIC_RELAXED);
        __atomic_add_fetch(&score->received, n, __ATOMIC_RELEASE);
}

void team_count_stopped(struct team_member *m, uint64_t n, uint64_t sum, uint64_t damaged, uint64_t last_tick) {
        m->last_tick = last_tick;
        m->patience_tick = tick_now() + ticks(m, MISSING_NS);
        m->is_last_look = 0;
        count_received(score_of(m), n, sum, damaged);
        __atomic_add_fetch(&score_of(m)->consumers_stopped, 1, __ATOMIC_RELEASE);
}

int team_count_rest(struct team_member *m, const struct team_reader *t) {
        struct bench_score *score = score_of(m);
        uint64_t expected;

        if (t->n) {
                m->last_tick = tick_now();
                m->patience_tick = m->last_tick + ticks(m, MISSING_NS);
                count_received(score, t->n, t->sum, t->damaged);
                return 1;
        }
        if (t->stopped)
                return 1; /* there may be something behind it */
        if (m->is_last_look)
                return 0;
        sched_yield();
        expected = score->sent * copies(m); /* all producers were done before the first stop was sent */
        /* What came between our look and this is a stop: the next slice must not begin with it. */
        if (__atomic_load_n(&score->stops_done, __ATOMIC_ACQUIRE))
                m->is_last_look = __atomic_load_n(&score->received, __ATOMIC_ACQUIRE) >= expected ||
                                  tick_now() > m->patience_tick;
        return 1;
}
