/* env.h: the machine a figure belongs to, and how quiet it was. */
#ifndef PSYNE_BENCH_ENV_H
#define PSYNE_BENCH_ENV_H

#include <stdint.h>

struct env {
        char cpu_model[96];
        char kernel[96];
        char governor[32];   /* "unknown" where it cannot be read */
        char hypervisor[32]; /* "none" */
        char thp_shmem[32];  /* shmem_enabled as selected */
        long huge_free, huge_total;
        int cpus_online;
        uint64_t ticks_all, ticks_steal; /* of /proc/stat, at env_read() */
};

void env_read(struct env *e);

/* Percent of all CPU time since env_read() that the hypervisor gave to others. */
double env_steal_percent(const struct env *e);

/* Ticks of tick.h per nanosecond; takes 50 ms. */
double env_ticks_per_ns(void);

#endif
