/*
 * driver.h: contenders and the turns they take. Each contender is one implementation with one kind of call in one mode,
 * with workers of its own that stay for a table. control.h has the protocol.
 */
#ifndef PSYNE_BENCH_DRIVER_H
#define PSYNE_BENCH_DRIVER_H

#include "bench/control.h"

#include <stdbool.h>
#include <sys/types.h>

/* One line of an executable's --bench-describe. */
struct adapter {
        char path[512];
        char name[32], package[48], version[32];
        unsigned protocol, what, calls, modes, waits, over, has_pauses;
};

struct contender {
        struct adapter adapter;
        char label[48]; /* the name, and where it came from if that is not plain */
        enum bench_mode mode;
        enum bench_calls calls;
        unsigned slot;
        pid_t pids[2]; /* one in threads mode */
        int n_pids;
        uint32_t turn; /* orders given */
        bool attached;
        bool in_use;
};

struct driver;

/* Makes the control page. */
int driver_new(struct driver **ret);

/* Ends all workers, the hard way if need be, and reaps them. NULL is fine. */
struct driver *driver_free(struct driver *d);

/* The sentence about the last failure of any call below. */
const char *driver_error(const struct driver *d);

/* Asks an executable what it implements: the count, at most max. -ENOENT: there is none. */
int driver_describe(struct driver *d, const char *path, struct adapter *ret, size_t max);

/* Starts the workers. The contender is the driver's. */
int driver_add(struct driver *d, const struct adapter *a, const char *label, enum bench_mode mode,
        enum bench_calls calls, struct contender **ret);

/* Sends the workers home and frees the slot. */
void driver_retire(struct driver *d, struct contender *c);

/*
 * Give one order and wait until both sides have done it. spec's order, mode, calls, serial and driver_pid are filled
 * in. The answers of both sides are copied to answers[2]. -EREMOTEIO: a side refused, its sentence is driver_error().
 * Anything else, such as -ETIME after 10 s without an answer or -ECHILD when a worker ended, is the end of the run.
 */
int contender_attach(
        struct driver *d, struct contender *c, const struct bench_spec *spec, struct bench_answer answers[2]);
int contender_run(struct driver *d, struct contender *c, uint64_t slice_ns, struct bench_answer answers[2]);
int contender_detach(struct driver *d, struct contender *c);

#endif
