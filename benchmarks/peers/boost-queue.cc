/*
 * boost-queue.cc: boost::lockfree::queue, a list of nodes out of a pool of fixed size, so that it has no pointers and
 * may live in shared memory. No bulk calls. Its node numbers have 16 bits.
 */
#include "peers/many.h"

#include <boost/lockfree/queue.hpp>
#include <boost/version.hpp>

namespace {

template <size_t Size, size_t Ring> struct Boost {
        static constexpr size_t nodes_max = 65534, count = Ring / Size < nodes_max ? Ring / Size : nodes_max;
        /* A node is the message, a link, and padding up to a cache line. */
        static constexpr bool fits = count >= 2 && count * ((Size + 8 + 63) / 64 * 64) < BENCH_ARENA_BYTES / 2 - 4096;
        static constexpr bool has_bulk = false, has_waits = false;
        using Message = peer::Message<Size>;
        using Queue = boost::lockfree::queue<Message, boost::lockfree::capacity<fits ? count : 2>>;

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
        LOOP_CALL bool try_send(Producer &p, const Message &m) {
                return p.q->push(m);
        }
        LOOP_CALL bool try_take(Consumer &c, Message &m) {
                return c.q->pop(m);
        }
};

constexpr bench_impl queue = many::impl<Boost, 0>(
        "boost-queue", "libboost-dev", BOOST_LIB_VERSION, BENCH_SINGLE, BENCH_PROCESSES | BENCH_THREADS);
constexpr const bench_impl *impls[] = {&queue};

} // namespace

int main(int argc, char **argv) {
        return many::main(argc, argv, impls, 1);
}
