/*
 * atomic-queue-many.cc: atomic_queue's AtomicQueue2 with many producers and consumers, and AtomicQueue for 8 bytes. No
 * bulk calls. A thread that spins waits in push() and pop(), which is what the library is fastest with: it draws a
 * number and waits for its place. One that yields tries.
 */
#include "peers/many.h"

#include <atomic_queue/atomic_queue.h>

namespace {

constexpr bool minimize_contention = true, maximize_throughput = true, total_order = false;

template <size_t Size, size_t Ring> struct Atomic {
        static constexpr bool fits = Ring / Size >= 2;
        static constexpr bool has_bulk = false, has_waits = true;
        static constexpr unsigned count = fits ? Ring / Size : 2;
        using Message = peer::Message<Size>;
        using Element = std::conditional_t<Size == 8, uint64_t, Message>;
        /* 0 means an empty element of AtomicQueue, and no message's number is 0. */
        using Queue = std::conditional_t<Size == 8,
                atomic_queue::AtomicQueue<uint64_t, count, 0, minimize_contention, maximize_throughput, total_order>,
                atomic_queue::AtomicQueue2<Message, count, minimize_contention, maximize_throughput, total_order>>;

        static_assert(sizeof(Queue) <= BENCH_ARENA_BYTES / 2, "the arena holds it");

        struct Producer {
                Queue *q;

                explicit Producer(Queue *queue) : q(queue) {
                }
        };
        using Consumer = Producer;

        static void *make(void *memory, const bench_spec *, int) {
                return new (memory) Queue;
        }
        static const char *refuses(const bench_spec *, int) {
                return nullptr;
        }
        static void *join(void *memory) {
                return memory;
        }
        static void drop(Queue *) {
        }
        static const Element &element(const Message &m) {
                if constexpr (Size == 8)
                        return m.words[0];
                else
                        return m;
        }
        static Element &element(Message &m) {
                if constexpr (Size == 8)
                        return m.words[0];
                else
                        return m;
        }
        LOOP_CALL bool try_send(Producer &p, const Message &m) {
                return p.q->try_push(element(m));
        }
        LOOP_CALL bool try_take(Consumer &c, Message &m) {
                return c.q->try_pop(element(m));
        }
        LOOP_CALL void send(Producer &p, const Message &m) {
                p.q->push(element(m));
        }
        LOOP_CALL void take(Consumer &c, Message &m) {
                element(m) = c.q->pop();
        }
};

constexpr bench_impl queue = many::impl<Atomic, 0>(
        "atomic-queue-many", "libatomic-queue-dev", "-", BENCH_SINGLE, BENCH_PROCESSES | BENCH_THREADS);
constexpr const bench_impl *impls[] = {&queue};

} // namespace

int main(int argc, char **argv) {
        return many::main(argc, argv, impls, 1);
}
