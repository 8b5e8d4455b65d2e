/*
 * concurrentqueue.cc: moodycamel::ConcurrentQueue, with a token for each producer and consumer. Its blocks are linked
 * by pointers, so it lives inside one process. Its memory is taken before the first message: try_enqueue never
 * allocates. A producer keeps the blocks it once had, and one that came first could have them all; so each takes its
 * share before any of them runs.
 */
#include "peers/many.h"

#include <concurrentqueue/concurrentqueue.h>

namespace {

template <size_t Size, size_t Ring> struct Concurrent {
        static constexpr bool fits = Ring == 0; /* at run time */
        static constexpr bool has_bulk = true, has_waits = false;
        using Message = peer::Message<Size>;
        struct Queue : moodycamel::ConcurrentQueue<Message> {
                const size_t share;
                std::atomic<int> users{2}; /* the two sides; tokens go before the queue */

                Queue(size_t n, size_t producers) : moodycamel::ConcurrentQueue<Message>(n, producers, 0), share(n) {
                }
        };

        struct Producer {
                Queue *q;
                moodycamel::ProducerToken token;

                explicit Producer(Queue *queue) : q(queue), token(*queue) {
                        Message m{};

                        for (size_t i = 0; i < q->share; i++)
                                q->try_enqueue(token, m);
                        while (q->try_dequeue(m))
                                ;
                }
        };
        struct Consumer {
                Queue *q;
                moodycamel::ConsumerToken token;

                explicit Consumer(Queue *queue) : q(queue), token(*queue) {
                }
        };

        /* The other thread finds it through the arena. The capacity is that of each producer. */
        static void *make(void *memory, const bench_spec *spec, int) {
                Queue *q = new Queue(spec->ring_bytes / Size, spec->producers);

                *static_cast<Queue **>(memory) = q;
                return q;
        }
        static const char *refuses(const bench_spec *, int) {
                return nullptr;
        }
        static void *join(void *memory) {
                return *static_cast<Queue **>(memory);
        }
        static void drop(Queue *q) {
                if (q->users.fetch_sub(1) == 1)
                        delete q;
        }
        LOOP_CALL bool try_send(Producer &p, const Message &m) {
                return p.q->try_enqueue(p.token, m);
        }
        LOOP_CALL bool try_take(Consumer &c, Message &m) {
                return c.q->try_dequeue(c.token, m);
        }
        /* All or nothing. */
        LOOP_CALL unsigned try_send_n(Producer &p, const Message *m, unsigned n) {
                return p.q->try_enqueue_bulk(p.token, m, n) ? n : 0;
        }
        LOOP_CALL unsigned try_take_n(Consumer &c, Message *m, unsigned n) {
                return static_cast<unsigned>(c.q->try_dequeue_bulk(c.token, m, n));
        }
};

constexpr bench_impl queue = many::impl<Concurrent, 0>(
        "concurrentqueue", "libconcurrentqueue-dev", "-", BENCH_SINGLE | BENCH_BULK, BENCH_THREADS);
constexpr const bench_impl *impls[] = {&queue};

} // namespace

int main(int argc, char **argv) {
        return many::main(argc, argv, impls, 1);
}
