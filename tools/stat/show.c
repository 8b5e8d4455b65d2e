/* show.c: one channel in full, as text. */
#include "stat/show.h"

#include "stat/summary.h"
#include "stat/text.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char *show_try(enum psyne_try t) {
        static const char *const names[] = {"default", "try", "never", "require"};

        return (unsigned)t < sizeof(names) / sizeof(*names) ? names[t] : "unknown";
}

const char *show_stop(const struct psyne_stat *s) {
        static const char *const names[] = {"running", "stopped, draining", "stopped, aborted"};

        return names[s->stop % 3];
}

const char *show_process(const struct psyne_stat_peer *p) {
        if (p->held_by_fork)
                return "held by a fork";
        if (p->dead)
                return "dead";
        if (p->state == PSYNE_STAT_FREE)
                return "joining";
        if (p->process == PSYNE_STAT_PROCESS_STOPPED)
                return "stopped";
        return p->alive ? "alive" : "left";
}

uint64_t show_asleep_ns(const struct psyne_stat *s, uint64_t since_ns) {
        return since_ns && since_ns < s->taken_ns ? s->taken_ns - since_ns : 0;
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

static void line(const char *key, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void line(const char *key, const char *format, ...) {
        va_list ap;

        printf("  %-11s ", key);
        va_start(ap, format);
        vprintf(format, ap);
        va_end(ap);
        putchar('\n');
}

static void title(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void title(const char *format, ...) {
        va_list ap;

        fputs(text_on(TEXT_BOLD), stdout);
        va_start(ap, format);
        vprintf(format, ap);
        va_end(ap);
        printf("%s\n", text_off(TEXT_BOLD));
}

/* "2M (2097152 B)"; what is short anyway stands alone. */
struct amount {
        char text[128];
};

static struct amount bytes(uint64_t n) {
        struct amount a;
        char s[TEXT_NUMBER];

        if (n < 1024)
                snprintf(a.text, sizeof(a.text), "%" PRIu64 " B", n);
        else
                snprintf(a.text, sizeof(a.text), "%s (%" PRIu64 " B)", text_bytes(s, n), n);
        return a;
}

static struct amount count(uint64_t n) {
        struct amount a;
        char s[TEXT_NUMBER];

        if (n < 10000)
                snprintf(a.text, sizeof(a.text), "%" PRIu64, n);
        else
                snprintf(a.text, sizeof(a.text), "%s (%" PRIu64 ")", text_count(s, n), n);
        return a;
}

static struct amount duration(uint64_t ns) {
        struct amount a;
        char s[TEXT_NUMBER];

        snprintf(a.text, sizeof(a.text), "%s", text_duration(s, ns));
        return a;
}

static struct amount owner(const struct psyne_stat *s, int32_t peer) {
        struct amount a = {"nobody"};

        if (peer >= 0)
                snprintf(a.text, sizeof(a.text), "slot %d, pid %u", peer, s->peers[peer].pid);
        return a;
}

static struct amount asleep(const struct psyne_stat *s, bool yes, uint64_t since_ns) {
        struct amount a = {"awake"};
        uint64_t ns = show_asleep_ns(s, since_ns);
        char for_ns[TEXT_NUMBER];

        if (yes && ns)
                snprintf(a.text, sizeof(a.text), "asleep for %s", text_duration(for_ns, ns));
        else if (yes)
                snprintf(a.text, sizeof(a.text), "asleep");
        return a;
}

/* ---- sections ---------------------------------------------------------------------------------------------------- */

static void channel_lines(const struct channels *all, const struct channel *c) {
        const struct psyne_stat *s = c->stat;
        char a[TEXT_NUMBER];
        struct summary sum;

        summary_make(&sum, s);
        title("%s%s", c->label, s->post_mortem ? "  (post-mortem)" : "");
        printf("  %-11s ", "file");
        for (const char *p = psyne_stat_dir_path(all->dir); *p; p++)
                putchar(*p < ' ' || *p > '~' ? '?' : *p);
        printf("/%s, mode %04o, user %u, %s\n", s->file, s->file_mode, s->file_uid, bytes(s->file_bytes).text);
        if (strcmp(s->name, s->calls_itself) != 0)
                line("calls itself", "%s", s->calls_itself);
        line("state", "%s%s%s", show_stop(s), s->anybody ? "" : ", nobody is in it any more",
                sum.bits & SUMMARY_SIDE_DEAD ? ", one side is dead" : "");
        line("created", "%s, %s ago, by pid %u of user %u, instance %016" PRIx64, text_time(a, s->created_realtime_ns),
                sum.has_age ? duration(sum.age_ns).text : "-", s->creator_pid, s->creator_uid, s->instance);
        line("mode", "%s, layout %u.%u, wake checks by %s", summary_mode(s), s->major, s->minor,
                s->fence ? "fences" : "membarrier");
        line("ring", "%s per lane, records start at multiples of %u B, largest message %s", bytes(s->ring_bytes).text,
                s->record_align, bytes(s->message_max).text);
        line("limits", "%u producers, %u consumers (%u lanes, %u groups, %u participants), %s of control pages",
                s->max_producers, s->max_consumers, s->n_lanes, s->n_groups, s->n_peers, bytes(s->pages_bytes).text);
        line("type", "id %u, element %" PRIu64 " B, hash %016" PRIx64, s->type_id, s->elem_bytes, s->type_hash);
        line("asked", "huge %s, numa %s, io_uring %s", show_try(s->huge), show_try(s->numa), show_try(s->uring));
        line("messages", "sent %s, received %s", count(sum.sent).text, count(sum.received).text);
        line("waiting", "%s, fullest lane %u%%", bytes(sum.lag_bytes).text, sum.occupancy);
        line("peers", "%u producers, %u of them dead; %u consumers, %u of them dead; %" PRIu64 " deaths so far",
                sum.producers + sum.producers_dead, sum.producers_dead, sum.consumers + sum.consumers_dead,
                sum.consumers_dead, s->deaths);
}

static int facts_table(const struct psyne_stat *s) {
        static const char *const heads[] = {"WHOSE", "WHAT", "ASKED", "OBTAINED", "WHY", NULL};
        struct text_table *t = text_table_new(heads);

        if (!t)
                return -1;
        for (uint32_t i = 0; i < s->n_facts; i++) {
                const struct psyne_stat_fact *f = &s->facts[i];

                text_table_cell(t, "%s", f->text.whose);
                text_table_cell(t, "%s", f->text.what);
                text_table_cell(t, "%s", f->text.asked);
                text_table_cell(t, "%s", f->text.obtained);
                text_table_color(t, f->fallback && f->in_force ? TEXT_YELLOW : TEXT_PLAIN);
                text_table_cell(t, "%s%s%s%s", f->text.why, f->text.fix[0] ? "  fix: " : "", f->text.fix,
                        f->fallback && !f->in_force ? "  (its owner is gone)" : "");
        }
        if (text_table_rows(t)) {
                title(" asked and obtained");
                text_table_print(t, "  ", true);
        }
        text_table_free(t);
        return 0;
}

static void lane_lines(const struct psyne_stat *s, uint32_t i) {
        const struct psyne_stat_lane *l = &s->lanes[i];
        char node[TEXT_NUMBER] = "not known";

        title(" lane %u", i);
        line("state", "%s%s%s, generation %u", summary_state(l->state),
                l->dead && l->state != PSYNE_STAT_DEAD ? ", but its producer is dead" : "",
                l->damaged ? ", a position cannot be" : "", l->generation);
        if (l->node >= 0)
                snprintf(node, sizeof(node), "%d", l->node);
        if (l->state != PSYNE_STAT_FREE) {
                line("producer", "%s, thread %u, %s", owner(s, l->peer).text, l->thread,
                        asleep(s, l->asleep, l->asleep_since_ns).text);
                line("memory", "pages of %s, node %s, memfd inode %" PRIu64, bytes(l->page_bytes).text, node, l->inode);
                line("positions", "start %" PRIu64 ", tail %" PRIu64, l->start, l->tail);
                if (l->asleep)
                        line("wanted", "free position %" PRIu64, l->wanted);
                line("waiting", "%s of %s", bytes(l->waiting_bytes).text, bytes(s->ring_bytes).text);
        }
        line("high water", "%s", bytes(l->high_water_bytes).text);
        line("sent", "%s messages, %s", count(l->messages_sent).text, bytes(l->bytes_sent).text);
        line("blocked", "%s times for %s in all; claims that found no room %s", count(l->send_blocks).text,
                duration(l->send_blocked_ns).text, count(l->full_events).text);
        line("claims", "aborted %s, copied sends %s, dropped %s, unheard %s", count(l->aborted).text,
                count(l->copied_sends).text, count(l->dropped).text, count(l->unheard).text);
        line("wakes", "sent %s, spared %s, received %s, backstop hits %s", count(l->wakes_sent).text,
                count(l->wakes_elided).text, count(l->wakes_received).text, count(l->backstop_hits).text);
}

static void group_lines(const struct psyne_stat *s, uint32_t i) {
        const struct psyne_stat_group *g = &s->groups[i];

        title(" group %u  %s", i, g->name);
        line("state", "%s, %s%s, %u members", summary_state(g->state), g->shared ? "shared" : "exclusive",
                g->ejected ? ", ejected"
                        : g->behind == PSYNE_BEHIND_SKIPS ? ", skips what it cannot keep up with"
                        : g->behind == PSYNE_BEHIND_EJECTED ? ", holds producers back until it is ejected"
                        : g->active ? ", holds producers back" : "", (unsigned)__builtin_popcountll(g->members));
        if (g->follows >= 0)
                line("follows", "group %d, %s behind it", g->follows, bytes(g->backlog_bytes).text);
        line("lag", "%s, of that held %s", bytes(g->lag_bytes).text, bytes(g->held_bytes).text);
        line("received", "%s messages, %s, lost %s, redelivered %s", count(g->messages_received).text,
                bytes(g->bytes_received).text, count(g->lost).text, count(g->redelivered).text);
        for (uint32_t k = 0; k < s->n_lanes; k++) {
                const struct psyne_stat_cursor *c = &g->cursors[k];

                if (show_lane(&s->lanes[k]) && s->lanes[k].state != PSYNE_STAT_FREE)
                        printf("  lane %-6u released %" PRIu64 ", taken %" PRIu64 ", published %" PRIu64 ", lag %s%s\n",
                                k, c->released, c->taken, c->published, bytes(c->lag_bytes).text,
                                c->damaged ? ", cannot be" : "");
        }
}

static void member_lines(const struct psyne_stat *s, uint32_t i) {
        const struct psyne_stat_member *m = &s->members[i];

        title(" consumer %u", i);
        line("state", "%s%s, generation %u, group %d", summary_state(m->state),
                m->dead && m->state != PSYNE_STAT_DEAD ? ", but its process is dead" : "", m->generation, m->group);
        line("process", "%s, thread %u, %s, waits by %s", owner(s, m->peer).text, m->thread,
                asleep(s, m->asleep, m->asleep_since_ns).text, summary_engine(m->engine));
        line("joined", "%s ago, may hold %u messages", duration(show_asleep_ns(s, m->joined_ns)).text, m->held_max);
        line("blocked", "%s times for %s in all", count(m->receive_blocks).text, duration(m->receive_blocked_ns).text);
        line("wakes", "received %s, sent %s, backstop hits %s", count(m->wakes_received).text,
                count(m->wakes_sent).text, count(m->backstop_hits).text);
        line("trouble", "redelivered %s, damaged lanes %s", count(m->redelivered).text, count(m->damaged).text);
}

static int peers_table(const struct psyne_stat *s) {
        static const char *const heads[] = {
                ">SLOT", "STATE", ">PID", ">UID", "COMMAND", "JOINED", "LANES", "CONSUMERS", "MEMBARRIER", NULL};
        struct text_table *t = text_table_new(heads);
        char a[TEXT_NUMBER];

        if (!t)
                return -1;
        for (uint32_t i = 0; i < s->n_peers; i++) {
                const struct psyne_stat_peer *p = &s->peers[i];
                unsigned lanes = 0, members = 0;

                if (!show_peer(p))
                        continue;
                for (uint32_t k = 0; k < s->n_lanes; k++)
                        lanes += s->lanes[k].peer == (int32_t)i && s->lanes[k].state != PSYNE_STAT_FREE;
                for (uint32_t k = 0; k < s->n_members; k++)
                        members += s->members[k].peer == (int32_t)i && s->members[k].state != PSYNE_STAT_FREE;
                text_table_cell(t, "%u", i);
                text_table_cell(t, "%s", show_process(p));
                text_table_color(t, p->dead || p->held_by_fork                 ? TEXT_RED
                                    : p->process == PSYNE_STAT_PROCESS_STOPPED ? TEXT_YELLOW
                                                                               : TEXT_PLAIN);
                text_table_cell(t, "%u", p->pid);
                text_table_cell(t, "%u", p->uid);
                text_table_cell(t, "%s", p->comm);
                text_table_cell(t, "%s", text_time(a, p->joined_realtime_ns));
                text_table_cell(t, "%u", lanes);
                text_table_cell(t, "%u", members);
                text_table_cell(t, "%s", p->can_membarrier ? "yes" : "no");
        }
        if (text_table_rows(t)) {
                title(" participants");
                text_table_print(t, "  ", true);
        }
        text_table_free(t);
        return 0;
}

static int show_text(const struct channels *all, const struct channel *c) {
        const struct psyne_stat *s = c->stat;

        if (!s) {
                title("%s", c->label);
                line("unreadable", "%s", c->sentence);
                return 0;
        }
        channel_lines(all, c);
        if (facts_table(s) < 0)
                return -1;
        for (uint32_t i = 0; i < s->n_lanes; i++)
                if (show_lane(&s->lanes[i]))
                        lane_lines(s, i);
        for (uint32_t i = 0; i < s->n_groups; i++)
                if (show_group(&s->groups[i]))
                        group_lines(s, i);
        for (uint32_t i = 0; i < s->n_members; i++)
                if (show_member(&s->members[i]))
                        member_lines(s, i);
        return peers_table(s);
}

int command_show(const struct options *o) {
        struct json j = {.file = stdout};
        struct channels c;
        int status = EXIT_UNREADABLE;

        if (channels_init(&c, o) < 0)
                goto out;
        if (o->json)
                document_open(&j, "show", &c);
        for (size_t i = 0; i < c.n; i++) {
                if (o->json)
                        show_json(&j, &c.items[i]);
                else {
                        if (i)
                                putchar('\n');
                        if (show_text(&c, &c.items[i]) < 0) {
                                complain("no memory for a table");
                                goto out;
                        }
                }
        }
        if (o->json)
                document_close(&j);
        status = channels_status(&c);
out:
        channels_deinit(&c);
        return status;
}
