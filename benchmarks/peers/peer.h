/*
 * peer.h: an adapter is one class per library; this turns it into what psyne-bench runs.
 *
 * The class is a template over the message's size and the ring's bytes, because most of these libraries want their
 * element type and capacity from the compiler, and are fastest so. It has a type Queue and these functions, all static,
 * all inlined into the loops of bench/loops.h:
 *
 *      make(memory)            side A: makes a queue in memory (shared, zeroed, BENCH_ARENA_BYTES / 2), or anywhere
 * with its address there; NULL if it cannot join(memory)            side B: the queue that A made drop(queue) side A:
 * undoes make send(queue, seq, pauses)        one message; waits for room, spinning with tick_pauses(pauses)
 *      take(queue, reader, pauses)     waits for one, spinning, and reads it
 *      send_n(queue, seq, n, pauses)   n messages by bulk calls           if has_bulk
 *      take_n(queue, reader, pauses)   what is there, one at least        if has_bulk
 *
 * and `fits`, which says whether that size and ring make sense for the library at all. The rules are the same for
 * everybody: payload_fill() writes a message and payload_take() reads it, in place where the library allows it, and in
 * one copy where it does not.
 */
#ifndef PSYNE_BENCH_PEER_H
#define PSYNE_BENCH_PEER_H

#include "bench/loops.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <type_traits>

namespace peer {

/* What libraries that store elements by value are given. No constructor: it would write an element before its fill
 * does. */
template <size_t Size> struct Message { uint64_t words[Size / 8]; };

/*
 * Calls f with a message to copy from. A small one is local, filled by the same stores as everybody's. A large one is
 * the template, in which only the number changes: the library's copy is then the memcpy that others make as their fill.
 */
template <size_t Size, class F> BENCH_INLINE void with_message(uint64_t seq, F f) {
        if constexpr (Size >= PAYLOAD_COPY_MIN) {
                payload_template[0] = seq;
                f(*reinterpret_cast<const Message<Size> *>(payload_template));
        } else {
                Message<Size> m;

                payload_fill(&m, Size, seq);
                f(m);
        }
}

/* What an attached side holds: its two ends, and the code for its size and ring. */
struct Held {
        void (*run)(Held *h, bench_side *s);
        void (*drop)(Held *h);
        void *out, *in;
        uint32_t pauses;
};

template <class Q, size_t Size> struct Runner {
        using Queue = typename Q::Queue;

        static Queue *out(void *ctx) {
                return static_cast<Queue *>(static_cast<Held *>(ctx)->out);
        }
        static Queue *in(void *ctx) {
                return static_cast<Queue *>(static_cast<Held *>(ctx)->in);
        }
        static uint32_t pauses(void *ctx) {
                return static_cast<Held *>(ctx)->pauses;
        }
        LOOP_CALL void send(void *ctx, size_t, uint64_t seq, unsigned) {
                Q::send(out(ctx), seq, pauses(ctx));
        }
        LOOP_CALL void take(void *ctx, size_t, payload_reader *t) {
                Q::take(in(ctx), t, pauses(ctx));
        }
        LOOP_CALL void send_n(void *ctx, size_t, uint64_t seq, unsigned n) {
                Q::send_n(out(ctx), seq, n, pauses(ctx));
        }
        LOOP_CALL void take_n(void *ctx, size_t, payload_reader *t) {
                Q::take_n(in(ctx), t, pauses(ctx));
        }
        static void run(Held *h, bench_side *s) {
                if constexpr (Q::has_bulk)
                        loop_run(h, s, Size, send, take, send_n, take_n);
                else
                        loop_run(h, s, Size, send, take, send, take);
        }
        static void drop(Held *h) {
                Q::drop(static_cast<Queue *>(h->out));
                Q::drop(static_cast<Queue *>(h->in));
        }
        static Held *attach(bench_side *s, bench_arena *arena) {
                void *out = bench_arena_ring(s, arena, s->side), *in = bench_arena_ring(s, arena, !s->side);
                Held *h;

                if (!out || !in)
                        return nullptr;
                if (s->spec->calls == BENCH_BULK && !Q::has_bulk) {
                        bench_refuse(s, -ENOTSUP, "no bulk calls at this size");
                        return nullptr;
                }
                h = static_cast<Held *>(std::calloc(1, sizeof(*h)));
                if (!h)
                        return nullptr;
                h->run = run;
                h->pauses = s->spec->pauses;
                h->out = s->side == BENCH_SIDE_A ? Q::make(out) : Q::join(out);
                h->in = s->side == BENCH_SIDE_A ? Q::make(in) : Q::join(in);
                h->drop = s->side == BENCH_SIDE_A ? drop : nullptr;
                if (h->out && h->in)
                        return h;
                std::free(h);
                return nullptr;
        }
};

using Attach = Held *(*)(bench_side *s, bench_arena *arena);

template <template <size_t, size_t> class Q, size_t Size, size_t Ring> Attach attach_if_fits() {
        if constexpr (Q<Size, Ring>::fits)
                return Runner<Q<Size, Ring>, Size>::attach;
        else
                return nullptr;
}

template <template <size_t, size_t> class Q, size_t Size> Attach attach_by_ring(uint64_t ring) {
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

template <template <size_t, size_t> class Q> Attach attach_by_size(uint64_t size, uint64_t ring) {
        switch (size) {
        case 8:
                return attach_by_ring<Q, 8>(ring);
        case 32:
                return attach_by_ring<Q, 32>(ring);
        case 48:
                return attach_by_ring<Q, 48>(ring);
        case 64:
                return attach_by_ring<Q, 64>(ring);
        case 128:
                return attach_by_ring<Q, 128>(ring);
        case 256:
                return attach_by_ring<Q, 256>(ring);
        case 1024:
                return attach_by_ring<Q, 1024>(ring);
        case 65536:
                return attach_by_ring<Q, 65536>(ring);
        case 1048576:
                return attach_by_ring<Q, 1048576>(ring);
        default:
                return nullptr;
        }
}

template <template <size_t, size_t> class Q> int attach(bench_side *s, bench_arena *arena, void **ret) {
        const Attach f = attach_by_size<Q>(s->spec->size, s->spec->ring_bytes);
        Held *h;

        if (!f)
                return bench_refuse(s, -EMSGSIZE, "no code here for messages of %llu bytes in a ring of %llu",
                        static_cast<unsigned long long>(s->spec->size),
                        static_cast<unsigned long long>(s->spec->ring_bytes));
        h = f(s, arena);
        if (!h)
                return s->answer->error ? s->answer->error
                                        : bench_refuse(s, -ENOMEM, "the library could not make its queue");
        *ret = h;
        return 0;
}

inline void run(void *ctx, bench_side *s) {
        Held *h = static_cast<Held *>(ctx);

        h->run(h, s);
}

inline void detach(void *ctx, bench_side *) {
        Held *h = static_cast<Held *>(ctx);

        if (h->drop)
                h->drop(h);
        std::free(h);
}

/* The adapter's main(). */
template <template <size_t, size_t> class Q>
int main(int argc, char **argv, const char *name, const char *package, const char *version, unsigned calls,
        unsigned modes, bool has_pauses) {
        static const bench_impl impl = {name, package, version, BENCH_LAT | BENCH_RATE, calls, modes, BENCH_WAIT_SPIN,
                BENCH_MEMORY, has_pauses, attach<Q>, run, detach};
        const bench_impl *const impls[] = {&impl};
        int ret;

        if (bench_worker_main(argc, argv, impls, 1, &ret))
                return ret;
        std::fprintf(stderr, "%s is an adapter: psyne-bench starts it\n", argv[0]);
        return EXIT_FAILURE;
}

} // namespace peer
#endif
