/* show.h: what show.c (text) and show-json.c agree on. */
#ifndef PSYNE_TOOLS_STAT_SHOW_H
#define PSYNE_TOOLS_STAT_SHOW_H

#include "stat/commands.h"
#include <psyne/stat.h>
#include <stdbool.h>
#include <stdint.h>

/* Rows that nobody ever took say nothing. */
static inline bool show_lane(const struct psyne_stat_lane *l) {
        return l->state != PSYNE_STAT_FREE || l->generation || l->messages_sent;
}
static inline bool show_group(const struct psyne_stat_group *g) {
        return g->state != PSYNE_STAT_FREE || g->active;
}
static inline bool show_member(const struct psyne_stat_member *m) {
        return m->state != PSYNE_STAT_FREE;
}
static inline bool show_peer(const struct psyne_stat_peer *p) {
        return p->state != PSYNE_STAT_FREE || p->alive;
}

const char *show_try(enum psyne_try t);
const char *show_stop(const struct psyne_stat *s);
const char *show_process(const struct psyne_stat_peer *p);

/* How long somebody has been asleep at the time of the snapshot, 0 = not known. */
uint64_t show_asleep_ns(const struct psyne_stat *s, uint64_t since_ns);

void show_json(struct json *j, const struct channel *c);

#endif
