/*
 * control.h: the page that the driver and its workers share, and the worker protocol written down.
 *
 * Every implementation, floors and psyne included, is run by workers: two processes (side A and side B), or one process
 * with two threads for libraries that live inside one. At most one implementation runs at any time; all others sleep
 * in a futex wait, so that they cost the running one nothing. The driver sleeps, too.
 *
 *      driver                                          both sides of a worker
 *      write order                                     wait until turn changes (futex)
 *      turn = turn + 1, wake both with one call        do the order, meeting each other at arrived
 *      wait until done == 2 (futex, with deadline)     write report[side]; done = done + 1; wake the driver
 *
 * One call wakes both: a side woken alone would preempt the driver on its CPU and spin for a partner that
 * nobody has woken yet.
 *
 * A worker is started as   PROGRAM --bench-worker IMPL CONTROL-FD ARENA-FD SLOT SIDE   with SIDE one of a, b, ab; and
 * PROGRAM --bench-describe   prints one line per implementation (see worker.h). The page has no pointers and no atomics
 * in its types, because workers are also C++.
 */
#ifndef PSYNE_BENCH_CONTROL_H
#define PSYNE_BENCH_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#define BENCH_PROTOCOL 2u
#define BENCH_MAGIC 0x68636e6265797370ull /* "psyebnch", little-endian */
#define BENCH_SLOTS_MAX 48u
#define BENCH_ARENA_BYTES (16u << 20) /* two rings of 4 MiB, each with as much again for what else a queue keeps */

enum bench_order {
        BENCH_ATTACH = 1, /* make or join the rings for this spec; side A first */
        BENCH_RUN,        /* one slice */
        BENCH_DETACH,
};

enum bench_what {
        BENCH_LAT = 1 << 0,     /* ping-pong; a slice answers its median round trip, ns */
        BENCH_RATE = 1 << 1,    /* one way; a slice answers messages per second */
        BENCH_PUBLISH = 1 << 2, /* bursts into an empty ring that nobody waits on; ns per message */
        BENCH_MODES = 1 << 3,   /* one way, many on each side (team.h); a slice answers messages per second */
};

enum bench_calls {
        BENCH_SINGLE = 1 << 0,
        BENCH_BULK = 1 << 1,
};

enum bench_mode {
        BENCH_PROCESSES = 1 << 0,
        BENCH_THREADS = 1 << 1,
};

enum bench_wait {
        BENCH_WAIT_SPIN = 1 << 0,
        BENCH_WAIT_BLOCK = 1 << 1,
        BENCH_WAIT_HYBRID = 1 << 2,
        BENCH_WAIT_YIELD = 1 << 3, /* sched_yield() between two looks */
};

/* What lies between the two sides. An implementation is made for one of them. */
enum bench_over {
        BENCH_MEMORY,
        BENCH_TCP, /* over loopback */
};

/* What a channel is for; BENCH_MODES only. */
enum bench_channel {
        BENCH_NO_CHANNEL,
        BENCH_SPSC,
        BENCH_MPSC,
        BENCH_SPMC,
        BENCH_MPMC,
        BENCH_BROADCAST,
        BENCH_CHANNELS,
};

#define BENCH_PAUSES_DEFAULT 1u
#define BENCH_BULK_N 32u /* messages per bulk call */

struct bench_spec {
        uint32_t order;
        uint32_t what, calls, wait;
        uint32_t mode, over;
        uint32_t serial;     /* differs for every attach: for names */
        uint64_t size;       /* bytes of payload, a multiple of 8 */
        uint64_t ring_bytes; /* per direction */
        uint64_t slice_ns;
        uint32_t align; /* of psyne's records, 0: its default */
        /* BENCH_MODES only: how many take part, and the prefetch of psyne's shared groups */
        uint8_t channel, producers, consumers, prefetch;
        int32_t cpu[2]; /* -1: wherever the scheduler puts it */
        int32_t driver_pid;
        uint32_t pauses; /* between two looks of a spinning wait that is the adapter's own */
};

struct bench_answer {
        int32_t error;      /* -errno, with the sentence in text */
        uint32_t preempted; /* times this side lost its CPU to another process during the slice */
        double value;
        double p90;       /* of a ping-pong slice's round trips, ns */
        uint64_t n;       /* round trips or messages behind value */
        uint64_t damaged; /* messages lost, damaged, repeated or out of order */
        char text[160];
        char obtained[96]; /* after an attach: pages, wake engine, node */
};

/* BENCH_MODES: what the members of both sides add up, and how a slice ends (team.h). */
struct bench_score {
        uint32_t producers_done, consumers_stopped, stops_done, pad;
        uint64_t sent, sent_sum, received, received_sum, damaged;
};

struct bench_slot {
        /* driver writes */
        uint32_t turn __attribute__((aligned(128)));
        struct bench_spec spec;
        /* workers write */
        uint32_t done __attribute__((aligned(128)));
        uint32_t arrived __attribute__((aligned(128))); /* meeting point: counts up, two per meeting */
        uint32_t burst __attribute__((aligned(128)));   /* BENCH_PUBLISH: whose turn inside a slice */
        struct bench_score score;                       /* in the same line: never both in one slice */
        struct bench_answer answer[2] __attribute__((aligned(128)));
};

struct bench_control {
        uint64_t magic;
        uint32_t protocol, size_bytes; /* of this struct: a differently compiled worker refuses */
        double ticks_per_ns;
        struct bench_slot slot[BENCH_SLOTS_MAX];
};

#endif
