/* links.c: one row per listener and per connection of each link of this host's processes, which are asked. */
#include "stat/commands.h"

#include "stat/text.h"
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <psyne/info.h>
#include <psyne/psyne.h>
#include <psyne/stat.h>

struct view {
        const struct options *o;
        struct json j;
        struct text_table *t;
        bool any, silent;
};

/* Of the process, which may be gone by now. */
static void command_of(uint32_t pid, char ret[16]) {
        char path[32];
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%u/comm", pid);
        f = fopen(path, "re");
        if (!f || !fgets(ret, 16, f))
                snprintf(ret, 16, "-");
        if (f)
                fclose(f);
        ret[strcspn(ret, "\n")] = '\0';
        text_clean(ret);
}

static bool selected(const struct options *o, const char *channel, const char *link) {
        for (int i = 0; i < o->n_patterns; i++)
                if (fnmatch(o->patterns[i], channel, 0) == 0 || fnmatch(o->patterns[i], link, 0) == 0)
                        return true;
        return o->n_patterns == 0;
}

/* up; ready: the same, of one that is kept for the next producer; down; its errno's name where the other end refuses. */
static const char *state_of(const struct psyne_stat_link *l) {
        const struct psyne_link_info *i = l->info;

        if (l->listens)
                return "listens";
        if (i->up)
                return i->has_lane || !i->sends ? "up" : "ready";
        return i->refused ? strerrorname_np(-i->refused) ? strerrorname_np(-i->refused) : "refused" : "down";
}

static void row(struct text_table *t, const struct psyne_stat_link *l, const char *command, const char *channel, const char *link) {
        const struct psyne_link_info *i = l->info;
        char text[TEXT_NUMBER];

        text_table_cell(t, "%u", l->pid);
        text_table_cell(t, "%s", command);
        text_table_cell(t, "%s", channel);
        text_table_cell(t, "%s", i->sends ? ">" : "<");
        text_table_cell(t, "%s", link);
        text_table_cell(t, "%s", i->peer[0] ? i->peer : "-");
        text_table_cell(t, "%s", state_of(l));
        text_table_color(t, i->up || l->listens ? TEXT_PLAIN : TEXT_RED);
        if (i->peer[0])
                text_table_cell(t, "%s", text_duration(text, i->rtt_us * 1000ull));
        else
                text_table_cell(t, "-");
        text_table_cell(t, "%s", text_count(text, i->retransmits));
        text_table_cell(t, "%s", text_bytes(text, i->in_flight_bytes));
        text_table_cell(t, "%s", text_bytes(text, i->queued_bytes));
        text_table_cell(t, "%s", text_count(text, i->connections ? i->connections - 1 : 0));
        if (i->zerocopy_sends)
                text_table_cell(t, "%" PRIu64, (i->zerocopy_sends - (i->zerocopy_copied < i->zerocopy_sends ? i->zerocopy_copied
                                                                                                          : i->zerocopy_sends)) * 100 / i->zerocopy_sends);
        else
                text_table_cell(t, "-");
        text_table_cell(t, "%s", text_bytes(text, i->lost_bytes));
        text_table_color(t, i->lost_bytes ? TEXT_YELLOW : TEXT_PLAIN);
}

static void object(struct json *j, const struct psyne_stat_link *l, const char *command, const char *channel, const char *link) {
        const struct psyne_link_info *i = l->info;

        json_open(j, NULL, '{');
        json_uint(j, "pid", l->pid);
        json_uint(j, "uid", l->uid);
        json_string(j, "command", command);
        json_string(j, "channel", channel);
        json_string(j, "link", link);
        json_string(j, "peer", i->peer);
        json_bool(j, "sends", i->sends);
        json_bool(j, "listens", l->listens);
        json_bool(j, "up", i->up);
        json_bool(j, "has_lane", i->has_lane);
        json_bool(j, "added", i->added);
        json_int(j, "refused", -(int64_t)i->refused);
        json_uint(j, "readers", i->readers);
        json_uint(j, "connections", i->connections);
        json_uint(j, "in_flight_bytes", i->in_flight_bytes);
        json_uint(j, "queued_bytes", i->queued_bytes);
        json_uint(j, "rtt_us", i->rtt_us);
        json_uint(j, "rtt_var_us", i->rtt_var_us);
        json_uint(j, "retransmits", i->retransmits);
        json_uint(j, "unacked_segments", i->unacked_segments);
        json_uint(j, "mss_bytes", i->mss_bytes);
        json_uint(j, "congestion_window", i->congestion_window);
        json_uint(j, "send_buffer", i->send_buffer);
        json_uint(j, "receive_buffer", i->receive_buffer);
        json_bool(j, "no_delay", i->no_delay);
        json_bool(j, "io_uring", i->io_uring);
        json_uint(j, "zerocopy_sends", i->zerocopy_sends);
        json_uint(j, "zerocopy_copied", i->zerocopy_copied);
        json_uint(j, "zerocopy_bytes", i->zerocopy_bytes);
        json_uint(j, "quick_acks", i->quick_acks);
        json_uint(j, "ejections", i->ejections);
        json_uint(j, "lost_bytes", i->lost_bytes);
        json_close(j, '}');
}

static int show(void *ctx, const struct psyne_stat_link *l) {
        struct view *v = ctx;
        char command[16], channel[160], link[160];
        struct psyne_stat_link clean = *l;
        struct psyne_link_info info;

        command_of(l->pid, command);
        if (l->error) {
                v->silent = true;
                if (!v->o->quiet)
                        complain("process %u (%s) has links and does not answer", l->pid, command);
                return 0;
        }
        snprintf(channel, sizeof(channel), "%s", l->channel);
        snprintf(link, sizeof(link), "%s", l->link);
        text_clean(channel);
        text_clean(link);
        if (!selected(v->o, channel, link))
                return 0;
        info = *l->info;
        text_clean(info.peer);
        clean.info = &info;
        v->any = true;
        if (v->o->json)
                object(&v->j, &clean, command, channel, link);
        else
                row(v->t, &clean, command, channel, link);
        return 0;
}

static const char *const heads[] = {">PID", "COMMAND", "CHANNEL", "D", "LINK", "PEER", "STATE", ">RTT", ">RETR", ">FLIGHT", ">QUEUE", ">RESUMED",
        ">ZC%", ">LOST", NULL};

int command_links(const struct options *o) {
        struct view v = {.o = o, .j = {.file = stdout}};
        int r;

        if (o->json)
                document_begin(&v.j, "links");
        else
                v.t = text_table_new(heads);
        if (!o->json && !v.t) {
                complain("no memory for a table");
                return EXIT_UNREADABLE;
        }
        if (o->json)
                json_open(&v.j, "links", '[');
        r = psyne_stat_links(show, &v);
        if (o->json)
                document_close(&v.j);
        else
                text_table_print(v.t, "", !o->no_header);
        text_table_free(v.t);
        if (r < 0) {
                complain("%s", psyne_last_error());
                return EXIT_UNREADABLE;
        }
        return v.silent ? EXIT_PARTLY : o->n_patterns && !v.any ? EXIT_UNMATCHED : EXIT_SUCCESS;
}
