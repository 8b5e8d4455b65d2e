/*
 * many.h: adapters for queues with many producers and many consumers; peer.h is for one of each, team.h says how they
 * are driven. An adapter is a class template over the message's size and the ring's bytes, with
 *
 *      Queue, Producer, Consumer       the queue, and what each thread has of its own: Producer(Queue *)
 *      fits                            whether that size and ring make sense for the library
 *      refuses(spec, variant)          why it does not take part, or NULL
 *      make(memory, spec, variant)     side A: a queue in memory (shared, zeroed), or anywhere with its address there
 *      join(memory)                    side B: the queue that A made
 *      drop(queue)                     each side, when its ends are gone
 *      try_send(producer, message)     false: no room
 *      try_take(consumer, message)     false: nothing there
 *      has_bulk, try_send_n(producer, messages, n), try_take_n(consumer, messages, n)      how many, at most n
 *      has_waits, send(producer, message), take(consumer, message)     the library's own way to wait, which spins
 *
 * Messages pass by value: filled beside the queue and copied in, copied out and read. For most of these there is no
 * other way. A thread that cannot go on spins or yields, as the driver found best for that queue and shape.
 */
#ifndef PSYNE_BENCH_MANY_H
#define PSYNE_BENCH_MANY_H

#include "bench/team.h"
#include "peers/peer.h"

#include <sched.h>

namespace many {

template <class Own> struct End {
        Own own;
        uint32_t pauses;
        bool yields;

        template <class Queue>
        End(Queue *q, const bench_spec *spec) : own(q), pauses(spec->pauses), yields(spec->wait == BENCH_WAIT_YIELD) {
        }
        __attribute__((always_inline)) void wait() const {
                tick_pauses(pauses);
                if (yields)
                        sched_yield();
        }
};

struct Held {
        struct team *team;
        void *queue;
        void (*drop)(Held *h);
};

template <class Q, size_t Size> struct Runner {
        using Queue = typename Q::Queue;
        using Out = End<typename Q::Producer>;
        using In = End<typename Q::Consumer>;
        using Message = peer::Message<Size>;

        LOOP_CALL void send(void *end, size_t, uint64_t id, unsigned) {
                Out *e = static_cast<Out *>(end);
                Message m;

                payload_fill(&m, Size, id);
                if constexpr (Q::has_waits)
                        if (!e->yields) {
                                Q::send(e->own, m);
                                return;
                        }
                while (!Q::try_send(e->own, m))
                        e->wait();
        }
        LOOP_CALL unsigned take(void *end, size_t, team_reader *t, int wait) {
                In *e = static_cast<In *>(end);
                Message m;

                if constexpr (Q::has_waits)
                        if (wait && !e->yields) {
                                Q::take(e->own, m);
                                team_read(t, &m, Size);
                                return 1;
                        }
                while (!Q::try_take(e->own, m)) {
                        if (!wait)
                                return 0;
                        e->wait();
                }
                team_read(t, &m, Size);
                return 1;
        }
        LOOP_CALL void send_n(void *end, size_t, uint64_t id, unsigned n) {
                Out *e = static_cast<Out *>(end);
                Message m[BENCH_BULK_N];

                for (unsigned i = 0; i < n; i++)
                        payload_fill(&m[i], Size, team_nth(id, i));
                for (unsigned done = 0, got; done < n; done += got) {
                        got = Q::try_send_n(e->own, m + done, n - done);
                        if (!got)
                                e->wait();
                }
        }
        LOOP_CALL unsigned take_n(void *end, size_t, team_reader *t, int wait) {
                In *e = static_cast<In *>(end);
                Message m[BENCH_BULK_N];
                unsigned got;

                while (!(got = Q::try_take_n(e->own, m, BENCH_BULK_N))) {
                        if (!wait)
                                return 0;
                        e->wait();
                }
                for (unsigned i = 0; i < got; i++)
                        team_read(t, &m[i], Size);
                return got;
        }
        static void member_run(team_member *m) {
                if constexpr (Q::has_bulk)
                        team_member_run(m, Size, send, take, send_n, take_n);
                else
                        team_member_run(m, Size, send, take, send, take);
        }
        static void end_ends(Held *h, bool producers) {
                for (unsigned i = 0; i < team_size(h->team); i++) {
                        if (producers)
                                delete static_cast<Out *>(team_at(h->team, i)->end);
                        else
                                delete static_cast<In *>(team_at(h->team, i)->end);
                }
                h->team = team_free(h->team);
        }
        template <bool producers> static void drop(Held *h) {
                end_ends(h, producers);
                Q::drop(static_cast<Queue *>(h->queue));
        }
        static int attach(bench_side *s, bench_arena *arena, void **ret, int variant) {
                void *memory = bench_arena_ring(s, arena, 0);
                const bool makes = s->side == BENCH_SIDE_A;
                Held *h;

                if (!memory)
                        return s->answer->error;
                if (Q::refuses(s->spec, variant))
                        return bench_refuse(s, -ENOTSUP, "%s", Q::refuses(s->spec, variant));
                h = static_cast<Held *>(std::calloc(1, sizeof(*h)));
                if (!h)
                        return -ENOMEM;
                if (team_new(&h->team, s, member_run) < 0) {
                        std::free(h);
                        return s->answer->error;
                }
                h->queue = makes ? Q::make(memory, s->spec, variant) : Q::join(memory);
                if (!h->queue) {
                        team_free(h->team);
                        std::free(h);
                        return bench_refuse(s, -ENOMEM, "the library could not make its queue");
                }
                for (unsigned i = 0; i < team_size(h->team); i++) {
                        if (makes)
                                team_at(h->team, i)->end = new Out(static_cast<Queue *>(h->queue), s->spec);
                        else
                                team_at(h->team, i)->end = new In(static_cast<Queue *>(h->queue), s->spec);
                }
                h->drop = makes ? drop<true> : drop<false>;
                *ret = h;
                return 0;
        }
};

using Attach = int (*)(bench_side *s, bench_arena *arena, void **ret, int variant);

template <template <size_t, size_t> class Q, size_t Size, size_t Ring> Attach attach_if_fits() {
        if constexpr (Q<Size, Ring>::fits)
                return Runner<Q<Size, Ring>, Size>::attach;
        else
                return nullptr;
}

/* Ring is 0 where the library takes its capacity at run time, from the spec. */
template <template <size_t, size_t> class Q, size_t Size> Attach attach_by_ring(uint64_t ring) {
        if constexpr (Q<Size, 0>::fits)
                return attach_if_fits<Q, Size, 0>();
        switch (ring) {
        case 64u << 10:
                return attach_if_fits<Q, Size, 64u << 10>();
        case 256u << 10:
                return attach_if_fits<Q, Size, 256u << 10>();
        case 1u << 20:
                return attach_if_fits<Q, Size, 1u << 20>();
        case 4u << 20:
                return attach_if_fits<Q, Size, 4u << 20>();
        default:
                return nullptr;
        }
}

template <template <size_t, size_t> class Q, int Variant> int attach(bench_side *s, bench_arena *arena, void **ret) {
        Attach f = nullptr;

        switch (s->spec->size) {
        case 8:
                f = attach_by_ring<Q, 8>(s->spec->ring_bytes);
                break;
        case 64:
                f = attach_by_ring<Q, 64>(s->spec->ring_bytes);
                break;
        case 256:
                f = attach_by_ring<Q, 256>(s->spec->ring_bytes);
                break;
        case 1024:
                f = attach_by_ring<Q, 1024>(s->spec->ring_bytes);
                break;
        default:
                break;
        }
        if (!f)
                return bench_refuse(s, -EMSGSIZE, "no code here for messages of %llu bytes in a ring of %llu",
                        static_cast<unsigned long long>(s->spec->size),
                        static_cast<unsigned long long>(s->spec->ring_bytes));
        return f(s, arena, ret, Variant);
}

inline void run(void *ctx, bench_side *) {
        team_run(static_cast<Held *>(ctx)->team);
}

inline void detach(void *ctx, bench_side *) {
        Held *h = static_cast<Held *>(ctx);

        h->drop(h);
        std::free(h);
}

template <template <size_t, size_t> class Q, int Variant>
constexpr bench_impl impl(const char *name, const char *package, const char *version, unsigned calls, unsigned modes) {
        return {name, package, version, BENCH_MODES, calls, modes, BENCH_WAIT_SPIN | BENCH_WAIT_YIELD, BENCH_MEMORY,
                true,                 attach<Q, Variant>, run, detach};
}

inline int main(int argc, char **argv, const bench_impl *const *impls, size_t n) {
        int ret;

        if (bench_worker_main(argc, argv, impls, n, &ret))
                return ret;
        std::fprintf(stderr, "%s is an adapter: psyne-bench starts it\n", argv[0]);
        return EXIT_FAILURE;
}

} // namespace many
#endif
