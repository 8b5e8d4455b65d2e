/* impls.h: the implementations that live in psyne-bench itself. Adapters for other libraries are in benchmarks/peers/.
 */
#ifndef PSYNE_BENCH_IMPLS_H
#define PSYNE_BENCH_IMPLS_H

#include "bench/worker.h"

extern const struct bench_impl impl_futex; /* sleep-futex.c */
extern const struct bench_impl impl_line;  /* floor.c: the raw line, also the probe between runs */
extern const struct bench_impl impl_floor; /* floor.c: one line with the payload in it; a bare ring */
extern const struct bench_impl impl_psyne; /* psyne-impl.c */
extern const struct bench_impl impl_psyne_futex;
extern const struct bench_impl impl_psyne_eventfd;
extern const struct bench_impl impl_eventfd; /* sleep-eventfd.c */
extern const struct bench_impl impl_uring; /* sleep-uring.c */
extern const struct bench_impl impl_sqpoll;
extern const struct bench_impl impl_tcp_floor; /* tcp-floor.c */
extern const struct bench_impl impl_psyne_tcp; /* psyne-tcp.c */
extern const struct bench_impl impl_psyne_latency;

#endif
