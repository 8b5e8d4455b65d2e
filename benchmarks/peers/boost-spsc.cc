/*
 * boost-spsc.cc: boost::lockfree::spsc_queue, capacity known to the compiler, so that it has no pointers and may live
 * in shared memory (its documentation allows that).
 *
 * Sending copies. Receiving is in place: front() and pop() for one, consume_all() for all that is there, which
 * publishes the read index once.
 */
#include "peers/peer.h"

#include <boost/lockfree/spsc_queue.hpp>
#include <boost/version.hpp>

namespace {

template <size_t Size, size_t Ring> struct Boost {
        static constexpr bool fits = Ring / Size >= 2;
        static constexpr bool has_bulk = Size < PAYLOAD_COPY_MIN; /* a bulk of these would be copied twice */
        using Message = peer::Message<Size>;
        using Queue = boost::lockfree::spsc_queue<Message, boost::lockfree::capacity<fits ? Ring / Size : 1>>;

        static_assert(!fits || sizeof(Queue) <= BENCH_ARENA_BYTES / 2, "the arena holds it");

        static void *make(void *memory) {
                return new (memory) Queue;
        }
        static void *join(void *memory) {
                return memory;
        }
        static void drop(Queue *) {
        }
        static void send(Queue *q, uint64_t seq, uint32_t pauses) {
                peer::with_message<Size>(seq, [q, pauses](const Message &m) {
                        while (!q->push(m))
                                tick_pauses(pauses);
                });
        }
        static void take(Queue *q, payload_reader *t, uint32_t pauses) {
                while (!q->read_available())
                        tick_pauses(pauses);
                payload_take(t, &q->front(), Size);
                q->pop();
        }
        static void send_n(Queue *q, uint64_t seq, unsigned n, uint32_t pauses) {
                Message m[BENCH_BULK_N];

                for (unsigned i = 0; i < n; i++)
                        payload_fill(&m[i], Size, seq == PAYLOAD_STOP ? seq : seq + i);
                for (unsigned done = 0, got; done < n; done += got) {
                        got = static_cast<unsigned>(q->push(m + done, n - done));
                        if (!got)
                                tick_pauses(pauses);
                }
        }
        static void take_n(Queue *q, payload_reader *t, uint32_t pauses) {
                while (!q->consume_all([t](const Message &m) { payload_take(t, &m, Size); }))
                        tick_pauses(pauses);
        }
};

} // namespace

int main(int argc, char **argv) {
        return peer::main<Boost>(argc, argv, "boost-spsc", "libboost-dev", BOOST_LIB_VERSION, BENCH_SINGLE | BENCH_BULK,
                BENCH_PROCESSES | BENCH_THREADS, true);
}
