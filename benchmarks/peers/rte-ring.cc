/*
 * rte-ring.cc: DPDK's rte_ring with elements of any size, one producer and one consumer, through its zero-copy calls:
 * reserve and write in place, look and read in place, in bursts of up to 32.
 *
 * Without the rest of DPDK: a ring is initialised in memory that we bring, and needs no environment layer. Offsets
 * only, so it works between processes.
 */
#define ALLOW_EXPERIMENTAL_API /* the zero-copy calls are, in 22.11 */
#include "peers/peer.h"

#include <rte_ring.h>
#include <rte_ring_elem.h>
#include <rte_ring_peek_zc.h>
#include <rte_version.h>

namespace {

template <size_t Size, size_t Ring> struct Rte {
        static constexpr bool fits = Ring / Size >= 2;
        static constexpr bool has_bulk = true;
        using Queue = struct rte_ring;

        static constexpr unsigned count() {
                unsigned n = 2;

                while (n * 2 * Size <= Ring)
                        n *= 2;
                return n;
        }
        static void *make(void *memory) {
                Queue *q = static_cast<Queue *>(memory);

                /* A power of two; it holds one less. */
                if (rte_ring_init(q, "psyne-bench", count(), RING_F_SP_ENQ | RING_F_SC_DEQ) != 0)
                        return nullptr;
                return q;
        }
        static void *join(void *memory) {
                return memory;
        }
        static void drop(Queue *) {
        }
        static void send(Queue *q, uint64_t seq, uint32_t pauses) {
                rte_ring_zc_data z;

                while (!rte_ring_enqueue_zc_burst_elem_start(q, Size, 1, &z, nullptr))
                        tick_pauses(pauses);
                payload_fill(z.ptr1, Size, seq);
                rte_ring_enqueue_zc_elem_finish(q, 1);
        }
        static void take(Queue *q, payload_reader *t, uint32_t pauses) {
                rte_ring_zc_data z;

                while (!rte_ring_dequeue_zc_burst_elem_start(q, Size, 1, &z, nullptr))
                        tick_pauses(pauses);
                payload_take(t, z.ptr1, Size);
                rte_ring_dequeue_zc_elem_finish(q, 1);
        }
        static void *at(const rte_ring_zc_data &z, unsigned i) {
                unsigned char *p = static_cast<unsigned char *>(i < z.n1 ? z.ptr1 : z.ptr2);

                return p + (i < z.n1 ? i : i - z.n1) * Size;
        }
        static void send_n(Queue *q, uint64_t seq, unsigned n, uint32_t pauses) {
                rte_ring_zc_data z;

                while (n) {
                        const unsigned got = rte_ring_enqueue_zc_burst_elem_start(q, Size, n, &z, nullptr);

                        if (!got) {
                                tick_pauses(pauses);
                                continue;
                        }
                        for (unsigned i = 0; i < got; i++)
                                payload_fill(at(z, i), Size, seq == PAYLOAD_STOP ? seq : seq + i);
                        rte_ring_enqueue_zc_elem_finish(q, got);
                        seq += got;
                        n -= got;
                }
        }
        static void take_n(Queue *q, payload_reader *t, uint32_t pauses) {
                rte_ring_zc_data z;
                unsigned got;

                while (!(got = rte_ring_dequeue_zc_burst_elem_start(q, Size, BENCH_BULK_N, &z, nullptr)))
                        tick_pauses(pauses);
                for (unsigned i = 0; i < got; i++)
                        payload_take(t, at(z, i), Size);
                rte_ring_dequeue_zc_elem_finish(q, got);
        }
};

#define STRING_(x) #x
#define STRING(x) STRING_(x)

} // namespace

int main(int argc, char **argv) {
        return peer::main<Rte>(argc, argv, "rte-ring", "libdpdk-dev", STRING(RTE_VER_YEAR) "." STRING(RTE_VER_MONTH),
                BENCH_SINGLE | BENCH_BULK, BENCH_PROCESSES | BENCH_THREADS, true);
}
