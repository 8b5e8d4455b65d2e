/*
 * team.h: many producers and many consumers in one queue, for `psyne-bench modes`.
 *
 * Each side of a worker is a team: its own thread is member 0 and starts one more thread for each further member. The
 * members of a side share its CPU, unless the spec leaves them to the scheduler. A message's number says who sent it
 * and which it is, and is repeated through the payload; a consumer adds up the words of each (damage), the messages and
 * their numbers. At the end of a slice both sums of all consumers must be those of all producers, or in a broadcast
 * channel as many times those as there are consumers: then nothing was lost and nothing came twice.
 *
 * How a slice ends, where who reads what is nobody's to say:
 *
 *      a producer      sends until the time is over, then adds its sums to the score
 *      producer 0      waits for the others, then sends PAYLOAD_STOP until every consumer has met one
 *      a consumer      reads, waiting as the implementation does, until it meets a stop; from then on without waiting
 *                      until the score says that everything was received, because a stop overtakes what is in other
 *                      lanes, and a batch may bring more stops than its own
 *
 * The rate is what was received until the last of it was, by the clock of the consumers. They look at that clock every
 * TEAM_TICK_EVERY messages: it costs more than a message.
 */
#ifndef PSYNE_BENCH_TEAM_H
#define PSYNE_BENCH_TEAM_H

#include "bench/loops.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TEAM_MAX 16u /* members of one side */
#define TEAM_TICK_EVERY 32u
#define TEAM_WHO_SHIFT 48 /* in a message's number; a slice has fewer messages than that leaves room for */

struct team;

struct team_member {
        struct team *team;
        struct bench_side *side;
        unsigned index;
        void *end; /* the implementation's: where this member sends or receives */
        /* A consumer's: when it received what it received last, until when it waits for more, and whether it is going
         * to look for the last time. */
        uint64_t last_tick, patience_tick;
        int is_last_look;
};

struct team_reader {
        uint64_t n, sum, damaged;
        int stopped;
};

/* n messages numbered from id, or n stops. */
typedef void (*team_send)(void *end, size_t size, uint64_t id, unsigned n);
/* Hands messages to team_read(); how many. Waits for the first if asked to, else 0 means there was none. */
typedef unsigned (*team_take)(void *end, size_t size, struct team_reader *t, int wait);

/*
 * Starts the members of this side; run() is called on each of them for every slice. The ends are the caller's to set
 * before the first one. 0, or -errno with the sentence in the answer.
 */
int team_new(struct team **ret, struct bench_side *s, void (*run)(struct team_member *m));
struct team *team_free(struct team *t); /* NULL is fine */
unsigned team_size(const struct team *t);
struct team_member *team_at(struct team *t, unsigned index);

/* One slice: a bench_impl's run(). */
void team_run(struct team *t);

/* What the loops below need once per slice. */
void team_count_sent(struct team_member *m, uint64_t n);
void team_await_producers(struct team_member *m);
int team_await_stops(struct team_member *m); /* true once every consumer has met one */
unsigned team_stops(const struct team_member *m);
void team_count_stopped(struct team_member *m, uint64_t n, uint64_t sum, uint64_t damaged, uint64_t last_tick);
/* More of it. False when there is no more to come. */
int team_count_rest(struct team_member *m, const struct team_reader *t);

BENCH_INLINE uint64_t team_id(unsigned member, uint64_t seq) {
        return (uint64_t)member << TEAM_WHO_SHIFT | seq;
}

BENCH_INLINE void team_read(struct team_reader *t, const void *src, size_t size) {
        const uint64_t sum = payload_sum(src, size), id = *(const payload_word *)src;

        if (__builtin_expect(id == PAYLOAD_STOP, 0)) {
                t->stopped = 1;
                return;
        }
        t->damaged += sum != payload_sum_expected(size, id);
        t->sum += id;
        t->n++;
}

/* The next of a batch: stops are all alike. */
BENCH_INLINE uint64_t team_nth(uint64_t id, unsigned i) {
        return id == PAYLOAD_STOP ? id : id + i;
}

BENCH_INLINE void team_pour(struct team_member *m, size_t size, team_send send, unsigned n) {
        const uint64_t slice = (uint64_t)((double)m->side->spec->slice_ns * m->side->ticks_per_ns);
        const unsigned rounds = size * n >= 4096 ? 1 : (unsigned)(4096 / (size * n));
        void *const end = m->end;
        uint64_t id = team_id(m->index, PAYLOAD_FIRST), until;

        until = tick_now() + slice;
        do {
                for (unsigned i = 0; i < rounds; i++) {
                        send(end, size, id, n);
                        id += n;
                }
        } while (tick_now() < until);
        team_count_sent(m, id - team_id(m->index, PAYLOAD_FIRST));
        if (m->index != 0)
                return;
        team_await_producers(m);
        do
                for (unsigned i = 0; i < team_stops(m); i++)
                        send(end, size, PAYLOAD_STOP, 1);
        while (!team_await_stops(m));
}

BENCH_INLINE void team_drain(struct team_member *m, size_t size, team_take take) {
        struct team_reader t = {0, 0, 0, 0}, rest; /* the first one's address goes nowhere: it stays in registers */
        uint64_t last = tick_now(), mark = TEAM_TICK_EVERY;
        void *const end = m->end;

        do {
                take(end, size, &t, 1);
                if (__builtin_expect(t.n >= mark, 0)) {
                        last = tick_now();
                        mark = t.n + TEAM_TICK_EVERY;
                }
        } while (!t.stopped);
        team_count_stopped(m, t.n, t.sum, t.damaged, last);
        do {
                rest = (struct team_reader){0, 0, 0, 0};
                while (rest.n < TEAM_TICK_EVERY && take(end, size, &rest, 0))
                        ;
        } while (team_count_rest(m, &rest));
}

BENCH_INLINE void team_member_run(
        struct team_member *m, size_t size, team_send send, team_take take, team_send send_bulk, team_take take_bulk) {
        const int bulk = m->side->spec->calls == BENCH_BULK;

        if (m->side->side == BENCH_SIDE_A && bulk)
                team_pour(m, size, send_bulk, BENCH_BULK_N);
        else if (m->side->side == BENCH_SIDE_A)
                team_pour(m, size, send, 1);
        else if (bulk)
                team_drain(m, size, take_bulk);
        else
                team_drain(m, size, take);
}

#ifdef __cplusplus
}
#endif
#endif
