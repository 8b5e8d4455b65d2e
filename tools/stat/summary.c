/* summary.c: see summary.h. */
#include "stat/summary.h"

#include <stdio.h>
#include <string.h>

const char *summary_mode(const struct psyne_stat *s) {
        static const char *const names[] = {"default", "spsc", "mpsc", "spmc", "mpmc", "broadcast"};

        return (unsigned)s->mode < sizeof(names) / sizeof(*names) ? names[s->mode] : "unknown";
}

const char *summary_state(enum psyne_stat_state state) {
        static const char *const names[] = {"free", "joining", "active", "closed", "dead", "damaged", "unknown"};

        return (unsigned)state < sizeof(names) / sizeof(*names) ? names[state] : "unknown";
}

const char *summary_engine(enum psyne_stat_engine engine) {
        static const char *const names[] = {"-", "uring", "futex", "eventfd"};

        return (unsigned)engine < sizeof(names) / sizeof(*names) ? names[engine] : "-";
}

/* One word for many things: theirs, or "mixed" where they differ. */
static void agree(char to[TEXT_NUMBER], const char *word) {
        if (strcmp(to, "-") == 0)
                snprintf(to, TEXT_NUMBER, "%s", word);
        else if (strcmp(word, "-") != 0 && strcmp(to, word) != 0)
                snprintf(to, TEXT_NUMBER, "mixed");
}

/* Collapsed pages are as large as reserved ones, but can be lost again: the row in the table of wishes tells. */
static bool lane_is_collapsed(const struct psyne_stat *s, uint32_t lane) {
        for (uint32_t i = 0; i < s->n_facts; i++) {
                const struct psyne_stat_fact *f = &s->facts[i];

                if (f->scope == PSYNE_STAT_LANE && f->index == lane && strcmp(f->text.what, "pages") == 0)
                        return strstr(f->text.obtained, "THP") != NULL;
        }
        return false;
}

static void see_lanes(struct summary *to, const struct psyne_stat *s) {
        for (uint32_t i = 0; i < s->n_lanes; i++) {
                const struct psyne_stat_lane *l = &s->lanes[i];
                unsigned percent = (unsigned)((l->waiting_bytes * 100 + s->ring_bytes / 2) / s->ring_bytes);
                char word[TEXT_NUMBER];

                to->sent += l->messages_sent;
                if (l->state == PSYNE_STAT_FREE || l->state == PSYNE_STAT_JOINING || l->state == PSYNE_STAT_UNKNOWN)
                        continue;
                to->producers_dead += l->dead;
                to->producers += (l->state == PSYNE_STAT_ACTIVE || l->state == PSYNE_STAT_DAMAGED) && !l->dead;
                if (l->asleep)
                        to->bits |= SUMMARY_BLOCKED;
                if (percent > to->occupancy)
                        to->occupancy = percent;
                if (lane_is_collapsed(s, i))
                        agree(to->page, "THP");
                else if (l->page_bytes)
                        agree(to->page, text_bytes(word, l->page_bytes));
                if (l->node >= 0) {
                        snprintf(word, sizeof(word), "%d", l->node);
                        agree(to->node, word);
                }
        }
}

static void see_members(struct summary *to, const struct psyne_stat *s) {
        for (uint32_t i = 0; i < s->n_members; i++) {
                const struct psyne_stat_member *m = &s->members[i];

                if (m->state != PSYNE_STAT_ACTIVE && !m->dead)
                        continue;
                to->consumers_dead += m->dead;
                to->consumers += !m->dead;
                if (m->asleep)
                        to->bits |= SUMMARY_WAITING;
                agree(to->wake, summary_engine(m->engine));
        }
}

static void see_groups(struct summary *to, const struct psyne_stat *s) {
        bool any = false;

        for (uint32_t i = 0; i < s->n_groups; i++) {
                const struct psyne_stat_group *g = &s->groups[i];

                if (!g->active)
                        continue;
                if (!any || g->messages_received < to->received)
                        to->received = g->messages_received;
                if (g->lag_bytes > to->lag_bytes)
                        to->lag_bytes = g->lag_bytes;
                any = true;
        }
}

void summary_make(struct summary *to, const struct psyne_stat *s) {
        static const struct {
                unsigned bit;
                char letter;
        } letters[] = {
                {SUMMARY_ALL_DEAD, 'X'},
                {SUMMARY_SIDE_DEAD, 'O'},
                {SUMMARY_BLOCKED, 'B'},
                {SUMMARY_WAITING, 'W'},
                {SUMMARY_DEGRADED, 'D'},
        };
        unsigned n = 0;

        *to = (struct summary){.page = "-", .wake = "-", .node = "-"};
        see_lanes(to, s);
        see_members(to, s);
        see_groups(to, s);
        if (!s->anybody)
                to->bits |= SUMMARY_ALL_DEAD;
        else if ((to->producers_dead && !to->producers) || (to->consumers_dead && !to->consumers))
                to->bits |= SUMMARY_SIDE_DEAD;
        for (uint32_t i = 0; i < s->n_facts; i++)
                if (s->facts[i].fallback && s->facts[i].in_force)
                        to->bits |= SUMMARY_DEGRADED;
        for (unsigned i = 0; i < sizeof(letters) / sizeof(*letters); i++)
                if (to->bits & letters[i].bit)
                        to->letters[n++] = letters[i].letter;
        if (n == 0)
                to->letters[n] = '-';
        if (s->created_realtime_ns && s->created_realtime_ns <= s->taken_realtime_ns) {
                to->has_age = true;
                to->age_ns = s->taken_realtime_ns - s->created_realtime_ns;
        }
}
