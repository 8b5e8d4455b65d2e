/* psyne-impl.h: what psyne's two kinds of workers share: one on each side (psyne-impl.c), many (psyne-team.c). */
#ifndef PSYNE_BENCH_PSYNE_IMPL_H
#define PSYNE_BENCH_PSYNE_IMPL_H

#include <psyne/psyne.h>

#include "bench/worker.h"

struct psyne_side {
        struct psyne_channel *out_channel, *in_channel;
        struct psyne_producer *out;
        struct psyne_consumer *in;
};

void psyne_side_free(struct psyne_side *p); /* what is open in it, and itself */

/* One slice. */
void psyne_impl_loops(struct psyne_side *p, struct bench_side *s);

enum psyne_wait psyne_side_wait(const struct bench_side *s);

/* "pages 4K, wake io_uring, ..." as the channels report it; either may be NULL. */
void psyne_side_obtained(const struct psyne_channel *const channels[2], char *text, size_t size);

/* Ends the worker with a sentence. */
void psyne_give_up(const char *call, int r) __attribute__((noreturn, cold));

struct psyne_team;

int psyne_team_attach(struct bench_side *s, void **ret);
void psyne_team_run(struct psyne_team *p);
void psyne_team_detach(struct psyne_team *p);

#endif
