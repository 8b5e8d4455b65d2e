/* show-json.c: one channel in full, as JSON. Keys are a promise: they are added to, never changed. */
#include "stat/show.h"

#include "stat/summary.h"
#include <string.h>

static void word(struct json *j, const char *key, const char *value) {
        if (strcmp(value, "-") == 0)
                json_null(j, key);
        else
                json_string(j, key, value);
}

/* -1 and 0 stand for "not known" in the structs, null does in JSON. */
static void index_or_null(struct json *j, const char *key, int32_t value) {
        if (value < 0)
                json_null(j, key);
        else
                json_int(j, key, value);
}

static void known_or_null(struct json *j, const char *key, uint64_t value) {
        if (value)
                json_uint(j, key, value);
        else
                json_null(j, key);
}

static void channel_json(struct json *j, const struct psyne_stat *s) {
        json_string(j, "file", s->file);
        json_string(j, "calls_itself", s->calls_itself);
        json_uint(j, "file_bytes", s->file_bytes);
        json_uint(j, "file_uid", s->file_uid);
        json_uint(j, "file_mode", s->file_mode);
        json_uint(j, "control_bytes", s->pages_bytes);
        json_uint(j, "layout_major", s->major);
        json_uint(j, "layout_minor", s->minor);
        json_uint(j, "record_align", s->record_align);
        json_uint(j, "message_max", s->message_max);
        json_uint(j, "max_producers", s->max_producers);
        json_uint(j, "max_consumers", s->max_consumers);
        json_uint(j, "type_id", s->type_id);
        json_uint(j, "elem_bytes", s->elem_bytes);
        json_uint(j, "type_hash", s->type_hash);
        json_string(j, "asked_huge", show_try(s->huge));
        json_string(j, "asked_numa", show_try(s->numa));
        json_string(j, "asked_uring", show_try(s->uring));
        json_uint(j, "created_realtime_ns", s->created_realtime_ns);
        json_uint(j, "creator_pid", s->creator_pid);
        json_uint(j, "creator_uid", s->creator_uid);
        json_uint(j, "instance", s->instance);
        json_uint(j, "stop", s->stop);
        json_bool(j, "fence", s->fence);
        json_uint(j, "deaths", s->deaths);
}

static void fact_json(struct json *j, const struct psyne_stat_fact *f) {
        json_open(j, NULL, '{');
        json_string(j, "whose", f->text.whose);
        json_string(j, "what", f->text.what);
        json_string(j, "asked", f->text.asked);
        json_string(j, "obtained", f->text.obtained);
        json_string(j, "why", f->text.why);
        json_string(j, "fix", f->text.fix);
        json_bool(j, "fallback", f->fallback);
        json_bool(j, "in_force", f->in_force);
        json_close(j, '}');
}

static void lane_json(struct json *j, const struct psyne_stat *s, uint32_t i) {
        const struct psyne_stat_lane *l = &s->lanes[i];

        json_open(j, NULL, '{');
        json_uint(j, "lane", i);
        json_string(j, "state", summary_state(l->state));
        json_bool(j, "dead", l->dead);
        json_bool(j, "damaged", l->damaged);
        json_bool(j, "asleep", l->asleep);
        known_or_null(j, "asleep_ns", l->asleep ? show_asleep_ns(s, l->asleep_since_ns) : 0);
        json_uint(j, "wanted", l->wanted);
        index_or_null(j, "peer", l->peer);
        json_uint(j, "generation", l->generation);
        json_uint(j, "thread", l->thread);
        index_or_null(j, "node", l->node);
        known_or_null(j, "page_bytes", l->page_bytes);
        json_uint(j, "device", l->device);
        json_uint(j, "inode", l->inode);
        json_uint(j, "start", l->start);
        json_uint(j, "tail", l->tail);
        json_uint(j, "waiting_bytes", l->waiting_bytes);
        json_uint(j, "high_water_bytes", l->high_water_bytes);
        json_uint(j, "messages_sent", l->messages_sent);
        json_uint(j, "bytes_sent", l->bytes_sent);
        json_uint(j, "send_blocks", l->send_blocks);
        json_uint(j, "send_blocked_ns", l->send_blocked_ns);
        json_uint(j, "full_events", l->full_events);
        json_uint(j, "aborted", l->aborted);
        json_uint(j, "copied_sends", l->copied_sends);
        json_uint(j, "wakes_sent", l->wakes_sent);
        json_uint(j, "wakes_elided", l->wakes_elided);
        json_uint(j, "wakes_received", l->wakes_received);
        json_uint(j, "backstop_hits", l->backstop_hits);
        json_uint(j, "dropped", l->dropped);
        json_uint(j, "unheard", l->unheard);
        json_close(j, '}');
}

static void cursor_json(struct json *j, const struct psyne_stat_cursor *c, uint32_t lane) {
        json_open(j, NULL, '{');
        json_uint(j, "lane", lane);
        json_uint(j, "released", c->released);
        json_uint(j, "taken", c->taken);
        json_uint(j, "published", c->published);
        json_uint(j, "lag_bytes", c->lag_bytes);
        json_uint(j, "held_bytes", c->held_bytes);
        json_uint(j, "messages_received", c->messages_received);
        json_uint(j, "bytes_received", c->bytes_received);
        json_uint(j, "lost", c->lost);
        json_uint(j, "redelivered", c->redelivered);
        json_bool(j, "damaged", c->damaged);
        json_close(j, '}');
}

static void group_json(struct json *j, const struct psyne_stat *s, uint32_t i) {
        const struct psyne_stat_group *g = &s->groups[i];

        json_open(j, NULL, '{');
        json_uint(j, "group", i);
        json_string(j, "name", g->name);
        json_string(j, "state", summary_state(g->state));
        json_bool(j, "active", g->active);
        json_bool(j, "shared", g->shared);
        json_bool(j, "ejected", g->ejected);
        json_string(j, "behind", g->behind == PSYNE_BEHIND_SKIPS ? "skips" : g->behind == PSYNE_BEHIND_EJECTED ? "ejected" : "blocks");
        index_or_null(j, "follows", g->follows);
        json_uint(j, "backlog_bytes", g->backlog_bytes);
        json_open(j, "members", '[');
        for (uint32_t k = 0; k < s->n_members; k++)
                if (g->members & (1ull << k))
                        json_uint(j, NULL, k);
        json_close(j, ']');
        json_uint(j, "lag_bytes", g->lag_bytes);
        json_uint(j, "held_bytes", g->held_bytes);
        json_uint(j, "messages_received", g->messages_received);
        json_uint(j, "bytes_received", g->bytes_received);
        json_uint(j, "lost", g->lost);
        json_uint(j, "redelivered", g->redelivered);
        json_open(j, "cursors", '[');
        for (uint32_t k = 0; k < s->n_lanes; k++)
                if (show_lane(&s->lanes[k]))
                        cursor_json(j, &g->cursors[k], k);
        json_close(j, ']');
        json_close(j, '}');
}

static void member_json(struct json *j, const struct psyne_stat *s, uint32_t i) {
        const struct psyne_stat_member *m = &s->members[i];

        json_open(j, NULL, '{');
        json_uint(j, "member", i);
        json_string(j, "state", summary_state(m->state));
        json_bool(j, "dead", m->dead);
        json_bool(j, "asleep", m->asleep);
        known_or_null(j, "asleep_ns", m->asleep ? show_asleep_ns(s, m->asleep_since_ns) : 0);
        index_or_null(j, "peer", m->peer);
        index_or_null(j, "group", m->group);
        json_uint(j, "generation", m->generation);
        json_uint(j, "thread", m->thread);
        word(j, "wake", summary_engine(m->engine));
        json_uint(j, "held_max", m->held_max);
        json_uint(j, "joined_monotonic_ns", m->joined_ns);
        json_uint(j, "receive_blocks", m->receive_blocks);
        json_uint(j, "receive_blocked_ns", m->receive_blocked_ns);
        json_uint(j, "wakes_received", m->wakes_received);
        json_uint(j, "wakes_sent", m->wakes_sent);
        json_uint(j, "backstop_hits", m->backstop_hits);
        json_uint(j, "redelivered", m->redelivered);
        json_uint(j, "damaged_lanes", m->damaged);
        json_close(j, '}');
}

static void peer_json(struct json *j, const struct psyne_stat *s, uint32_t i) {
        const struct psyne_stat_peer *p = &s->peers[i];

        json_open(j, NULL, '{');
        json_uint(j, "slot", i);
        json_string(j, "state", show_process(p));
        json_bool(j, "alive", p->alive);
        json_bool(j, "dead", p->dead);
        json_bool(j, "stopped", p->process == PSYNE_STAT_PROCESS_STOPPED);
        json_bool(j, "held_by_fork", p->held_by_fork);
        json_uint(j, "pid", p->pid);
        json_uint(j, "uid", p->uid);
        json_uint(j, "pid_namespace", p->pidns);
        json_string(j, "command", p->comm);
        json_uint(j, "joined_realtime_ns", p->joined_realtime_ns);
        json_bool(j, "can_membarrier", p->can_membarrier);
        json_bool(j, "can_serve", p->can_serve);
        json_close(j, '}');
}

void show_json(struct json *j, const struct channel *c) {
        const struct psyne_stat *s = c->stat;

        json_open(j, NULL, '{');
        document_channel(j, c);
        if (s) {
                channel_json(j, s);
                json_open(j, "facts", '[');
                for (uint32_t i = 0; i < s->n_facts; i++)
                        fact_json(j, &s->facts[i]);
                json_close(j, ']');
                json_open(j, "lanes", '[');
                for (uint32_t i = 0; i < s->n_lanes; i++)
                        if (show_lane(&s->lanes[i]))
                                lane_json(j, s, i);
                json_close(j, ']');
                json_open(j, "groups", '[');
                for (uint32_t i = 0; i < s->n_groups; i++)
                        if (show_group(&s->groups[i]))
                                group_json(j, s, i);
                json_close(j, ']');
                json_open(j, "members", '[');
                for (uint32_t i = 0; i < s->n_members; i++)
                        if (show_member(&s->members[i]))
                                member_json(j, s, i);
                json_close(j, ']');
                json_open(j, "participants", '[');
                for (uint32_t i = 0; i < s->n_peers; i++)
                        if (show_peer(&s->peers[i]))
                                peer_json(j, s, i);
                json_close(j, ']');
        }
        json_close(j, '}');
}
