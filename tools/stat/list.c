/* list.c: one row per channel. */
#include "stat/commands.h"

#include "stat/summary.h"
#include "stat/text.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t clock_now(clockid_t clock) {
        struct timespec ts;

        clock_gettime(clock, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int channels_status(const struct channels *c) {
        if (c->n_unreadable)
                return EXIT_PARTLY;
        return c->unmatched ? EXIT_UNMATCHED : EXIT_SUCCESS;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

void document_begin(struct json *j, const char *command) {
        json_open(j, NULL, '{');
        json_string(j, "schema", "psyne-stat/1");
        json_string(j, "version", PSYNE_VERSION);
        json_string(j, "command", command);
        json_uint(j, "monotonic_ns", clock_now(CLOCK_MONOTONIC));
        json_uint(j, "realtime_ns", clock_now(CLOCK_REALTIME));
}

void document_open(struct json *j, const char *command, const struct channels *c) {
        document_begin(j, command);
        json_string(j, "dir", psyne_stat_dir_path(c->dir));
        json_uint(j, "interval_ns", 0); /* counters are totals */
        json_open(j, "channels", '[');
}

void document_close(struct json *j) {
        json_close(j, ']');
        json_close(j, '}');
}

static void word_or_null(struct json *j, const char *key, const char *word) {
        if (strcmp(word, "-") == 0)
                json_null(j, key);
        else
                json_string(j, key, word);
}

void document_channel(struct json *j, const struct channel *c) {
        const struct psyne_stat *s = c->stat;
        struct summary sum;

        json_string(j, "channel", c->label);
        json_bool(j, "post_mortem", c->post_mortem);
        if (!s) {
                json_string(j, "error", c->sentence);
                json_int(j, "errno", -c->error);
                return;
        }
        summary_make(&sum, s);
        json_null(j, "error");
        json_uint(j, "monotonic_ns", s->taken_ns);
        json_uint(j, "realtime_ns", s->taken_realtime_ns);
        json_string(j, "mode", summary_mode(s));
        json_string(j, "st", sum.letters);
        json_bool(j, "all_dead", sum.bits & SUMMARY_ALL_DEAD);
        json_bool(j, "side_dead", sum.bits & SUMMARY_SIDE_DEAD);
        json_bool(j, "producer_blocked", sum.bits & SUMMARY_BLOCKED);
        json_bool(j, "consumer_asleep", sum.bits & SUMMARY_WAITING);
        json_bool(j, "degraded", sum.bits & SUMMARY_DEGRADED);
        json_uint(j, "messages_sent", sum.sent);
        json_uint(j, "messages_received", sum.received);
        json_uint(j, "lag_bytes", sum.lag_bytes);
        json_uint(j, "ring_bytes", s->ring_bytes);
        json_uint(j, "occupancy_percent", sum.occupancy);
        json_uint(j, "producers", sum.producers);
        json_uint(j, "producers_dead", sum.producers_dead);
        json_uint(j, "consumers", sum.consumers);
        json_uint(j, "consumers_dead", sum.consumers_dead);
        word_or_null(j, "page", sum.page);
        word_or_null(j, "wake", sum.wake);
        word_or_null(j, "node", sum.node);
        if (sum.has_age)
                json_uint(j, "age_ns", sum.age_ns);
        else
                json_null(j, "age_ns");
}

/* ---- table ------------------------------------------------------------------------------------------------------- */

static void row(struct text_table *t, const struct channel *c) {
        char a[TEXT_NUMBER];
        struct summary s;

        text_table_cell(t, "%s", c->label);
        if (!c->stat) {
                text_table_cell(t, "-");
                text_table_cell(t, "E");
                text_table_color(t, TEXT_RED);
                for (unsigned i = 0; i < 9; i++)
                        text_table_cell(t, "-");
                return;
        }
        summary_make(&s, c->stat);
        text_table_cell(t, "%s", summary_mode(c->stat));
        text_table_cell(t, "%s", s.letters);
        text_table_color(t, s.bits & (SUMMARY_ALL_DEAD | SUMMARY_SIDE_DEAD) ? TEXT_RED
                            : s.bits & (SUMMARY_BLOCKED | SUMMARY_DEGRADED) ? TEXT_YELLOW
                                                                            : TEXT_PLAIN);
        text_table_cell(t, "%s", text_count(a, s.sent));
        text_table_cell(t, "%s", text_count(a, s.received));
        text_table_cell(t, "%s", text_bytes(a, s.lag_bytes));
        text_table_cell(t, "%u", s.occupancy);
        text_table_cell(
                t, "%u%s>%u%s", s.producers, s.producers_dead ? "!" : "", s.consumers, s.consumers_dead ? "!" : "");
        text_table_color(t, s.producers_dead || s.consumers_dead ? TEXT_RED : TEXT_PLAIN);
        text_table_cell(t, "%s", s.page);
        text_table_cell(t, "%s", s.wake);
        text_table_cell(t, "%s", s.node);
        text_table_cell(t, "%s", s.has_age ? text_duration(a, s.age_ns) : "-");
}

static const char *const heads[] = {
        "CHANNEL", "MODE", "ST", ">SENT", ">RECV", ">LAG", ">OCC%", "PEERS", ">PAGE", "WAKE", ">NODE", ">AGE", NULL};

int command_list(const struct options *o) {
        struct json j = {.file = stdout};
        struct text_table *t = NULL;
        struct channels c;
        int status = EXIT_UNREADABLE;

        if (channels_init(&c, o) < 0)
                goto out;
        if (o->json) {
                document_open(&j, "list", &c);
                for (size_t i = 0; i < c.n; i++) {
                        json_open(&j, NULL, '{');
                        document_channel(&j, &c.items[i]);
                        json_close(&j, '}');
                }
                document_close(&j);
        } else {
                t = text_table_new(heads);
                if (!t) {
                        complain("no memory for a table");
                        goto out;
                }
                for (size_t i = 0; i < c.n; i++)
                        row(t, &c.items[i]);
                text_table_print(t, "", !o->no_header);
        }
        status = channels_status(&c);
out:
        text_table_free(t);
        channels_deinit(&c);
        return status;
}
