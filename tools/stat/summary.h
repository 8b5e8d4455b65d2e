/* summary.h: one channel in one line. What follows from a single snapshot, and nothing that would need two. */
#ifndef PSYNE_TOOLS_STAT_SUMMARY_H
#define PSYNE_TOOLS_STAT_SUMMARY_H

#include <psyne/stat.h>
#include <stdbool.h>
#include <stdint.h>

#include "stat/text.h"

enum summary_bits {
        SUMMARY_ALL_DEAD = 1,  /* X: nobody is in it any more */
        SUMMARY_SIDE_DEAD = 2, /* O: all producers there were, or all consumers, died and none took their place */
        SUMMARY_BLOCKED = 4,   /* B: a producer sleeps for room */
        SUMMARY_WAITING = 8,   /* W: a consumer sleeps */
        SUMMARY_DEGRADED = 16, /* D: a fallback is in force */
};

struct summary {
        unsigned bits;
        char letters[8];               /* of the bits, in their order; "-" = none */
        uint64_t sent;                 /* messages */
        uint64_t received;             /* messages, of the group that has the fewest */
        uint64_t lag_bytes;            /* of the group that has the most to take */
        unsigned occupancy;            /* percent of the fullest lane, rounded */
        unsigned producers, consumers; /* alive */
        unsigned producers_dead, consumers_dead;
        char page[TEXT_NUMBER]; /* "-" not known, "mixed" they differ; likewise the next two */
        char wake[TEXT_NUMBER];
        char node[TEXT_NUMBER];
        bool has_age;
        uint64_t age_ns;
};

void summary_make(struct summary *to, const struct psyne_stat *s);

const char *summary_mode(const struct psyne_stat *s);
const char *summary_state(enum psyne_stat_state state);
const char *summary_engine(enum psyne_stat_engine engine);

#endif
