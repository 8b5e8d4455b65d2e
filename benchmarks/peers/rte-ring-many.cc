/*
 * rte-ring-many.cc: DPDK's rte_ring with elements of any size, in its three ways for many producers and consumers:
 * MP/MC (rte-ring-mp), one at a time through the head (rte-ring-hts), and the relaxed tail (rte-ring-rts); single
 * calls, and bursts of up to 32. A side that has one member only is opened for one, since nobody would do otherwise;
 * not at 1x1, where the three would be the same ring.
 *
 * MP/MC is for threads that do not take the CPU from each other (DPDK's manual says so): one that loses it between the
 * head and the tail lets the next one spin for its whole turn, and then that one the first. Two consumers on one CPU
 * moved one message per turn of the scheduler. So it takes part at 1x1 only, and the other two are what DPDK has for
 * the rest.
 */
#include "peers/many.h"

#include <rte_ring.h>
#include <rte_ring_elem.h>
#include <rte_version.h>

namespace {

enum { MP, HTS, RTS };

template <size_t Size, size_t Ring> struct Rte {
        static constexpr bool fits = Ring == 0; /* at run time */
        static constexpr bool has_bulk = true, has_waits = false;
        using Message = peer::Message<Size>;
        using Queue = struct rte_ring;

        struct Producer {
                Queue *q;

                explicit Producer(Queue *queue) : q(queue) {
                }
        };
        using Consumer = Producer;

        static unsigned flags(const bench_spec *spec, int variant) {
                const bool both = spec->producers == 1 && spec->consumers == 1;
                const unsigned enqueue = variant == HTS   ? RING_F_MP_HTS_ENQ
                                         : variant == RTS ? RING_F_MP_RTS_ENQ
                                                          : 0,
                               dequeue = variant == HTS   ? RING_F_MC_HTS_DEQ
                                         : variant == RTS ? RING_F_MC_RTS_DEQ
                                                          : 0;

                return (both || spec->producers > 1 ? enqueue : RING_F_SP_ENQ) |
                       (both || spec->consumers > 1 ? dequeue : RING_F_SC_DEQ);
        }
        static void *make(void *memory, const bench_spec *spec, int variant) {
                Queue *q = static_cast<Queue *>(memory);
                unsigned n = 2;

                while (n * 2 * Size <= spec->ring_bytes)
                        n *= 2;
                /* A power of two; it holds one less. */
                return rte_ring_init(q, "psyne-bench", n, flags(spec, variant)) == 0 ? q : nullptr;
        }
        static const char *refuses(const bench_spec *spec, int variant) {
                return variant == MP && spec->producers + spec->consumers > 2
                               ? "MP/MC is not for threads that share a CPU; hts and rts are"
                               : nullptr;
        }
        static void *join(void *memory) {
                return memory;
        }
        static void drop(Queue *) {
        }
        LOOP_CALL bool try_send(Producer &p, const Message &m) {
                return rte_ring_enqueue_elem(p.q, const_cast<Message *>(&m), Size) == 0;
        }
        LOOP_CALL bool try_take(Consumer &c, Message &m) {
                return rte_ring_dequeue_elem(c.q, &m, Size) == 0;
        }
        LOOP_CALL unsigned try_send_n(Producer &p, const Message *m, unsigned n) {
                return rte_ring_enqueue_burst_elem(p.q, m, Size, n, nullptr);
        }
        LOOP_CALL unsigned try_take_n(Consumer &c, Message *m, unsigned n) {
                return rte_ring_dequeue_burst_elem(c.q, m, Size, n, nullptr);
        }
};

#define STRING_(x) #x
#define STRING(x) STRING_(x)
#define VERSION STRING(RTE_VER_YEAR) "." STRING(RTE_VER_MONTH)

template <int Variant> constexpr bench_impl rte_impl(const char *name) {
        return many::impl<Rte, Variant>(
                name, "libdpdk-dev", VERSION, BENCH_SINGLE | BENCH_BULK, BENCH_PROCESSES | BENCH_THREADS);
}

constexpr bench_impl mp = rte_impl<MP>("rte-ring-mp"), hts = rte_impl<HTS>("rte-ring-hts"),
                     rts = rte_impl<RTS>("rte-ring-rts");
constexpr const bench_impl *impls[] = {&mp, &hts, &rts};

} // namespace

int main(int argc, char **argv) {
        return many::main(argc, argv, impls, 3);
}
