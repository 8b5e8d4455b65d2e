/*
 * atomic-queue.cc: atomic_queue's AtomicQueue2, the one for elements of any size, in its single-producer
 * single-consumer form; and AtomicQueue, whose elements are themselves atomic, for 8 bytes.
 *
 * Both copy in and out. There are no bulk calls. Elements and indices lie in the object, so it works in shared memory.
 * Above PAYLOAD_COPY_MIN a message would pass through the stack by value: not what it is for, not measured.
 */
#include "peers/peer.h"

#include <atomic_queue/atomic_queue.h>

namespace {

constexpr bool minimize_contention = true, maximize_throughput = true, total_order = false, spsc = true;

template <size_t Size, size_t Ring> struct Atomic {
        static constexpr bool fits = Size < PAYLOAD_COPY_MIN && Ring / Size >= 2;
        static constexpr bool has_bulk = false;
        static constexpr unsigned count = fits ? Ring / Size : 2;
        using Message = std::conditional_t<Size == 8, uint64_t, peer::Message<fits ? Size : 8>>;
        /* 0 means an empty element of AtomicQueue, and no message's number is 0. */
        using Queue = std::conditional_t<Size == 8,
                atomic_queue::AtomicQueue<uint64_t, count, 0, minimize_contention, maximize_throughput, total_order,
                        spsc>,
                atomic_queue::AtomicQueue2<Message, count, minimize_contention, maximize_throughput, total_order,
                        spsc>>;

        static_assert(sizeof(Queue) <= BENCH_ARENA_BYTES / 2, "the arena holds it");

        static void *make(void *memory) {
                return new (memory) Queue;
        }
        static void *join(void *memory) {
                return memory;
        }
        static void drop(Queue *) {
        }
        static void send(Queue *q, uint64_t seq, uint32_t) {
                Message m;

                payload_fill(&m, Size, seq);
                q->push(m);
        }
        static void take(Queue *q, payload_reader *t, uint32_t) {
                const Message m = q->pop();

                payload_take(t, &m, Size);
        }
};

} // namespace

int main(int argc, char **argv) {
        return peer::main<Atomic>(argc, argv, "atomic-queue", "libatomic-queue-dev", "-", BENCH_SINGLE,
                BENCH_PROCESSES | BENCH_THREADS, false);
}
