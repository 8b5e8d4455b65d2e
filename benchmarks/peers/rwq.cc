/*
 * rwq.cc: moodycamel::ReaderWriterQueue. Its blocks are allocated and linked by pointers, so it lives inside one
 * process: this adapter runs two threads.
 *
 * Sending copies, and never allocates here (try_enqueue); receiving is in place with peek() and pop(). No bulk calls.
 */
#include "peers/peer.h"

#include <readerwriterqueue/readerwriterqueue.h>

namespace {

template <size_t Size, size_t Ring> struct Rwq {
        static constexpr bool fits = Ring / Size >= 2;
        static constexpr bool has_bulk = false;
        using Message = peer::Message<Size>;
        using Queue = moodycamel::ReaderWriterQueue<Message>;

        /* The other thread finds it through the arena. */
        static void *make(void *memory) {
                Queue *q = new Queue(Ring / Size);

                *static_cast<Queue **>(memory) = q;
                return q;
        }
        static void *join(void *memory) {
                return *static_cast<Queue **>(memory);
        }
        static void drop(Queue *q) {
                delete q;
        }
        static void send(Queue *q, uint64_t seq, uint32_t pauses) {
                peer::with_message<Size>(seq, [q, pauses](const Message &m) {
                        while (!q->try_enqueue(m))
                                tick_pauses(pauses);
                });
        }
        static void take(Queue *q, payload_reader *t, uint32_t pauses) {
                const Message *m;

                while (!(m = q->peek()))
                        tick_pauses(pauses);
                payload_take(t, m, Size);
                q->pop();
        }
};

} // namespace

int main(int argc, char **argv) {
        return peer::main<Rwq>(argc, argv, "rwq", "libreaderwriterqueue-dev", "-", BENCH_SINGLE, BENCH_THREADS, true);
}
