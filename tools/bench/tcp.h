/*
 * tcp.h: where two sides that talk by TCP over loopback find each other: whoever receives listens, on a port that the kernel
 * picks, and leaves its number at the beginning of the arena.
 *
 *      A attaches      listens for what B will send, if B will
 *      B attaches      listens for what A will send; connects to A
 *      A's first run   connects to B
 */
#ifndef PSYNE_BENCH_TCP_H
#define PSYNE_BENCH_TCP_H

#include "bench/worker.h"

#define TCP_HOST "127.0.0.1"

/* Of a direction: 0 is A to B. Both sides see the same. */
static inline uint32_t *tcp_port(struct bench_arena *arena, int direction) {
        return (uint32_t *)(void *)arena->base + direction;
}

/* Does this side receive, or send, in what is to be measured? */
static inline bool tcp_receives(const struct bench_side *s) {
        return s->side == BENCH_SIDE_B || s->spec->what == BENCH_LAT;
}
static inline bool tcp_sends(const struct bench_side *s) {
        return s->side == BENCH_SIDE_A || s->spec->what == BENCH_LAT;
}
#endif
