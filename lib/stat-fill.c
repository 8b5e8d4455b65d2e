/*
 * From the pages of a channel, as they were read, to the structs of psyne/stat.h. Whatever the pages say: indices are
 * checked, strings cut and cleaned, positions compared with care.
 */
#include "lib/stat-fill.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "shm/group.h"
#include "shm/lane.h"
#include "shm/shared.h"
#include "uring/park.h"

/* Up to the end mark, printable ASCII only: nothing that a terminal would obey. */
static void copy_text(char *to, size_t n, const char *from, size_t from_n) {
        size_t i;

        for (i = 0; i + 1 < n && i < from_n && from[i]; i++)
                to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
        to[i] = '\0';
}
#define COPY_TEXT(to, from) copy_text(to, sizeof(to), from, sizeof(from))

static_assert((int)PSYNE_STAT_FREE == LAYOUT_FREE && (int)PSYNE_STAT_DAMAGED == LAYOUT_DAMAGED, "same order");
static_assert((int)PSYNE_STAT_ENGINE_URING == PARK_URING && (int)PSYNE_STAT_ENGINE_FUTEX == PARK_FUTEX &&
                (int)PSYNE_STAT_ENGINE_EVENTFD == PARK_EVENTFD, "same order");
static_assert(
        (int)PSYNE_STAT_CHANNEL == LAYOUT_SCOPE_CHANNEL && (int)PSYNE_STAT_MEMBER == LAYOUT_SCOPE_MEMBER, "same order");

static enum psyne_stat_state state_of(uint32_t state) {
        return state <= LAYOUT_DAMAGED ? (enum psyne_stat_state)state : PSYNE_STAT_UNKNOWN;
}

static enum psyne_stat_engine engine_of(uint32_t engine) {
        return engine <= PARK_EVENTFD ? (enum psyne_stat_engine)engine : PSYNE_STAT_ENGINE_UNKNOWN;
}

static enum psyne_try try_of(uint32_t t) {
        return t <= PSYNE_REQUIRE ? (enum psyne_try)t : PSYNE_TRY_DEFAULT;
}

/*
 * Is the process still the one that wrote its id into the page? Only that, and whether it is stopped: whether anybody
 * holds the slot was asked of the lock. An id of another name space says nothing here.
 */
static enum psyne_stat_process process_of(const struct stat_look *l, const struct layout_peer *p) {
        _cleanup_(cleanup_closep) int fd = -1;
        char path[32], text[1024], state = 0;
        unsigned long long start = 0;
        const char *at;
        long threads = 0;
        ssize_t n;

        if (!l->pidns || p->pidns != l->pidns || p->pid == 0 || p->pid > INT_MAX)
                return PSYNE_STAT_PROCESS_UNKNOWN;
        snprintf(path, sizeof(path), "/proc/%u/stat", p->pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) /* hidepid= shows us our own user's processes only */
                return errno == ENOENT && (p->uid == geteuid() || geteuid() == 0) ? PSYNE_STAT_PROCESS_GONE
                                                                                  : PSYNE_STAT_PROCESS_UNKNOWN;
        n = read(fd, text, sizeof(text) - 1);
        if (n <= 0)
                return n < 0 && errno == ESRCH ? PSYNE_STAT_PROCESS_GONE : PSYNE_STAT_PROCESS_UNKNOWN;
        text[n] = '\0';
        at = strrchr(text, ')'); /* the name may hold anything */
        /* Fields 3, 20 and 22 of proc_pid_stat(5). */
        if (!at || sscanf(at + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d %llu",
                           &state, &threads, &start) != 3)
                return PSYNE_STAT_PROCESS_UNKNOWN;
        if (start != p->start_time)
                return PSYNE_STAT_PROCESS_GONE; /* a successor under the same number */
        if (state == 'T' || state == 't')
                return PSYNE_STAT_PROCESS_STOPPED;
        /* A leader that ended before its other threads looks like a zombie, but they go on. */
        if (state == 'X' || (state == 'Z' && threads <= 1))
                return PSYNE_STAT_PROCESS_GONE;
        return PSYNE_STAT_PROCESS_RUNNING;
}

static void fill_peer(struct psyne_stat_peer *to, const struct stat_look *l, uint32_t i) {
        const struct layout_peer *p = &l->now.peers[i];
        bool joined_since = p->generation != l->before.peers[i].generation; /* and then the slot may have been free */

        *to = (struct psyne_stat_peer){
                .state = state_of(p->state),
                .alive = l->held[i] || (joined_since && p->state == LAYOUT_ACTIVE),
                .can_membarrier = p->capabilities & LAYOUT_CAN_MEMBARRIER,
                .can_serve = p->capabilities & LAYOUT_CAN_SERVE,
                .pid = p->pid,
                .uid = p->uid,
                .generation = p->generation,
                .pidns = p->pidns,
                .joined_realtime_ns = p->joined_ns,
        };
        COPY_TEXT(to->comm, p->comm);
        to->dead = to->state == PSYNE_STAT_DEAD || (to->state == PSYNE_STAT_ACTIVE && !to->alive);
        if (to->state == PSYNE_STAT_FREE)
                return;
        if (to->alive)
                to->process = process_of(l, p);
        else if (to->dead)
                to->process = PSYNE_STAT_PROCESS_GONE;
        to->held_by_fork = to->alive && to->state == PSYNE_STAT_ACTIVE && to->process == PSYNE_STAT_PROCESS_GONE;
}

/* Did the owner of a row die? @generation is the slot's as the row has it. */
static bool owner_died(
        const struct stat_look *l, const struct psyne_stat_peer *peers, uint32_t slot, uint32_t generation) {
        int32_t newer;

        if (slot >= l->now.n_peers)
                return false;
        newer = (int32_t)(generation - peers[slot].generation);
        if (newer != 0)
                return newer < 0; /* the slot has a successor; or it joined after we had looked at its slot */
        return peers[slot].dead;
}

static int32_t owner_slot(const struct stat_look *l, uint32_t owner) {
        uint32_t slot = layout_owner_slot(owner);

        return slot < l->now.n_peers ? (int32_t)slot : -1;
}

static bool holds_records(enum psyne_stat_state state) {
        return state == PSYNE_STAT_ACTIVE || state == PSYNE_STAT_CLOSED || state == PSYNE_STAT_DEAD ||
               state == PSYNE_STAT_DAMAGED;
}

static void fill_lane(
        struct psyne_stat_lane *to, const struct stat_look *l, const struct psyne_stat_peer *peers, uint32_t i) {
        const struct layout_lane *f = &l->now.lanes[i];
        uint64_t page = f->page_bytes;

        *to = (struct psyne_stat_lane){
                .state = state_of(f->state),
                .engine = engine_of(f->engine),
                .peer = owner_slot(l, f->owner),
                .generation = f->generation,
                .thread = f->thread,
                .node = f->node < 0 || f->node > 4096 ? -1 : f->node,
                .page_bytes = page & (page - 1) || page > LAYOUT_RING_MAX ? 0 : page,
                .device = f->device,
                .inode = f->inode,
                .start = f->start,
                .tail = f->tx.tail & ~15ull,
                .high_water_bytes = f->tx.high_water,
                .messages_sent = f->tx.messages_sent,
                .bytes_sent = f->tx.bytes_sent,
                .send_blocks = f->send_blocks,
                .send_blocked_ns = f->send_blocked_ns,
                .full_events = f->full_events,
                .aborted = f->aborted,
                .copied_sends = f->copied_sends,
                .wakes_sent = f->wakes_sent,
                .wakes_elided = f->wakes_elided,
                .wakes_received = f->wakes_received,
                .backstop_hits = f->backstop_hits,
                .dropped = f->dropped,
                .unheard = layout_lane_unheard(f),
                .wanted = f->wanted,
        };
        to->dead = to->state == PSYNE_STAT_DEAD ||
                   (to->state == PSYNE_STAT_ACTIVE && owner_died(l, peers, layout_owner_slot(f->owner), f->owner_generation));
        to->asleep = to->state == PSYNE_STAT_ACTIVE && !to->dead && l->now.header->waiters & (1ull << i);
        to->asleep_since_ns = to->asleep ? f->sleeping_since_ns : 0;
}

/*
 * A group's place in a lane. @tail_before is older than the position, @tail newer; the truth lies between. A producer
 * counts a record just after it has shown it, and may be stopped or killed in between: a position up to a ring ahead
 * of the tail is not damaged, only not caught up with.
 */
static void fill_cursor(struct psyne_stat_cursor *to, const struct layout_cursor *c, uint64_t tail_before,
        uint64_t tail, uint64_t ring, bool in_use, bool same_owner) {
        uint64_t released = c->exact.released, lag = tail - released, held = c->exact.taken - released;

        *to = (struct psyne_stat_cursor){
                .released = released,
                .taken = c->exact.taken,
                .published = c->published,
                .messages_received = c->exact.messages_received,
                .bytes_received = c->exact.bytes_received,
                .lost = c->lost,
                .redelivered = c->redelivered,
        };
        if (!in_use)
                return;
        if ((int64_t)lag < 0)
                to->damaged = released - tail > ring;
        else
                to->damaged = (int64_t)(tail_before - released) > (int64_t)ring;
        to->damaged &= same_owner;
        if (to->damaged)
                lag = ring; /* as a producer counts it */
        to->lag_bytes = (int64_t)lag < 0 ? 0 : lag < ring ? lag : ring;
        to->held_bytes = (int64_t)held < 0 ? 0 : held < ring ? held : ring;
}

static void fill_group(struct psyne_stat_group *to, struct psyne_stat_cursor *cursors, const struct stat_look *l,
        struct psyne_stat_lane *lanes, uint32_t i) {
        const struct layout_group *g = &l->now.groups[i];
        uint32_t n_members = l->now.n_members, policy = __atomic_load_n(&g->policy, __ATOMIC_RELAXED);
        uint64_t known = n_members < 64 ? (1ull << n_members) - 1 : ~0ull;

        *to = (struct psyne_stat_group){
                .state = state_of(g->state),
                .active = l->now.header->groups_active & (1ull << i),
                .ejected = g->state == LAYOUT_ACTIVE && g->flags & LAYOUT_GROUP_OUT,
                .behind = policy <= PSYNE_BEHIND_EJECTED ? policy : PSYNE_BEHIND_DEFAULT,
                .shared = g->kind == LAYOUT_GROUP_SHARED,
                .follows = group_front(&l->now, i),
                .generation = g->generation,
                .members = g->members & known,
                .ever = g->ever & known,
                .cursors = cursors,
        };
        COPY_TEXT(to->name, g->name);
        for (uint32_t j = 0; j < l->now.n_lanes; j++) {
                const struct layout_lane *before = &l->before.lanes[j], *now = &l->now.lanes[j];
                struct psyne_stat_cursor *c = &cursors[j];
                struct layout_cursor place = *layout_cursor(&l->before, i, j);

                if (to->shared) { /* it has no positions of its own, they follow from its members' */
                        place.exact.released = place.published = group_position(&l->before, i, j, true);
                        place.exact.taken = shared_claim_position(place.claim);
                }
                fill_cursor(c, &place, before->tx.tail & ~15ull, lanes[j].tail,
                        l->now.config.ring_bytes, to->active && holds_records(lanes[j].state),
                        before->generation == now->generation && before->state == now->state);
                if (to->follows >= 0 && holds_records(lanes[j].state)) {
                        uint64_t behind = group_position(&l->before, (uint32_t)to->follows, j, true) - place.exact.released;

                        if (behind <= l->now.config.ring_bytes) /* else one of them cannot be, or moved meanwhile */
                                to->backlog_bytes += behind;
                }
                to->lag_bytes += c->lag_bytes;
                to->held_bytes += c->held_bytes;
                to->messages_received += c->messages_received;
                to->bytes_received += c->bytes_received;
                to->lost += c->lost;
                to->redelivered += c->redelivered;
                lanes[j].damaged |= c->damaged;
                if (c->lag_bytes > lanes[j].waiting_bytes)
                        lanes[j].waiting_bytes = c->lag_bytes;
        }
        for (uint32_t m = 0; to->shared && m < n_members; m++) {
                const struct layout_member *member = &l->now.members[m];

                if (member->group != i)
                        continue;
                to->messages_received += member->messages_received;
                to->bytes_received += member->bytes_received;
                to->redelivered += member->redelivered;
        }
}

static void fill_member(
        struct psyne_stat_member *to, const struct stat_look *l, const struct psyne_stat_peer *peers, uint32_t i) {
        const struct layout_member *m = &l->now.members[i];

        *to = (struct psyne_stat_member){
                .state = state_of(m->state),
                .engine = engine_of(m->engine),
                .peer = owner_slot(l, m->owner),
                .group = m->group < l->now.n_groups ? (int32_t)m->group : -1,
                .generation = m->generation,
                .thread = m->thread,
                .held_max = m->held_max,
                .joined_ns = m->joined_ns,
                .receive_blocks = m->receive_blocks,
                .receive_blocked_ns = m->receive_blocked_ns,
                .wakes_received = m->wakes_received,
                .wakes_sent = m->wakes_sent,
                .backstop_hits = m->backstop_hits,
                .redelivered = m->redelivered,
                .damaged = m->damaged,
                .copied = m->copied,
        };
        to->dead = to->state == PSYNE_STAT_DEAD ||
                   (to->state == PSYNE_STAT_ACTIVE && owner_died(l, peers, layout_owner_slot(m->owner), m->owner_generation));
        to->asleep = to->state == PSYNE_STAT_ACTIVE && !to->dead && l->now.header->sleepers & (1ull << i);
        to->asleep_since_ns = to->asleep ? m->sleeping_since_ns : 0;
}

/* A row may be read while its owner rewrites it: then its texts are of two wishes, which is seen once and is gone. */
static bool fill_fact(struct psyne_stat_fact *to, const struct layout_fact *f, const struct psyne_stat *s) {
        bool gone = false;

        if (f->scope < LAYOUT_SCOPE_CHANNEL || f->scope > LAYOUT_SCOPE_MEMBER)
                return false;
        if ((f->scope == LAYOUT_SCOPE_LANE && f->index >= s->n_lanes) ||
                (f->scope == LAYOUT_SCOPE_MEMBER && f->index >= s->n_members))
                return false;
        *to = (struct psyne_stat_fact){.scope = (enum psyne_stat_scope)f->scope, .index = f->index};
        COPY_TEXT(to->text.what, f->what);
        COPY_TEXT(to->text.asked, f->asked);
        COPY_TEXT(to->text.obtained, f->obtained);
        COPY_TEXT(to->text.why, f->why);
        COPY_TEXT(to->text.fix, f->fix);
        if (to->scope == PSYNE_STAT_CHANNEL) {
                to->index = 0;
                snprintf(to->text.whose, sizeof(to->text.whose), "channel");
        } else {
                bool lane = to->scope == PSYNE_STAT_LANE;
                enum psyne_stat_state state = lane ? s->lanes[f->index].state : s->members[f->index].state;

                gone = state == PSYNE_STAT_FREE || (lane ? s->lanes[f->index].dead : s->members[f->index].dead);
                snprintf(to->text.whose, sizeof(to->text.whose), "%s %u", lane ? "lane" : "consumer", f->index % 1000);
        }
        to->fallback = to->text.why[0] != '\0';
        to->in_force = !gone && s->anybody;
        return true;
}

static void fill_channel(struct psyne_stat *s, const struct stat_look *l) {
        const struct layout_config *c = &l->now.config;
        const struct layout_header *h = l->now.header;
        struct timespec ts;

        clock_gettime(CLOCK_REALTIME, &ts);
        s->struct_size = sizeof(*s);
        s->taken_ns = (uint64_t)clock_ns();
        s->taken_realtime_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
        COPY_TEXT(s->calls_itself, c->name);
        s->anybody = l->anybody;
        s->fence = h->barrier_fence != 0;
        s->stop = (uint32_t)(h->stop & 3) > 2 ? 2 : (uint32_t)(h->stop & 3);
        s->deaths = h->deaths;
        s->file_uid = l->st.st_uid;
        s->file_mode = l->st.st_mode & 07777;
        s->file_bytes = (uint64_t)l->st.st_size;
        s->pages_bytes = c->total_bytes;
        s->major = c->major;
        s->minor = c->minor;
        s->mode = (enum psyne_mode)c->mode; /* layout_validate() has seen to the range */
        s->record_align = c->record_align;
        s->ring_bytes = c->ring_bytes;
        s->message_max = lane_message_max(c->ring_bytes, c->record_align);
        s->max_producers = c->max_producers;
        s->max_consumers = c->max_consumers;
        s->type_id = c->type_id;
        s->creator_pid = c->creator_pid;
        s->creator_uid = c->creator_uid;
        s->huge = try_of(c->huge);
        s->numa = try_of(c->numa);
        s->uring = try_of(c->uring);
        s->elem_bytes = c->elem_bytes;
        s->type_hash = c->type_hash;
        s->created_realtime_ns = c->created_ns;
        s->instance = c->instance;
}

/* Everything in one block: the arrays lie behind the struct, so that one free() takes all. */
int stat_fill(struct psyne_stat **ret, const struct stat_look *l) {
        const struct layout_view *v = &l->now;
        size_t n_cursors = (size_t)v->n_groups * v->n_lanes;
        struct psyne_stat_peer *peers;
        struct psyne_stat_lane *lanes;
        struct psyne_stat_group *groups;
        struct psyne_stat_cursor *cursors;
        struct psyne_stat_member *members;
        struct psyne_stat_fact *facts;
        struct psyne_stat *s;

        /* The sizes follow from the limits, which are 64 at most: no overflow. Multiples of 8 stay aligned. */
        static_assert(sizeof(*s) % 8 == 0 && sizeof(*peers) % 8 == 0 && sizeof(*lanes) % 8 == 0 &&
                              sizeof(*groups) % 8 == 0 && sizeof(*cursors) % 8 == 0 && sizeof(*members) % 8 == 0,
                "each array starts where the one before it ends");
        s = calloc(1, sizeof(*s) + v->n_peers * sizeof(*peers) + v->n_lanes * sizeof(*lanes) +
                              v->n_groups * sizeof(*groups) + n_cursors * sizeof(*cursors) +
                              v->n_members * sizeof(*members) + v->n_facts * sizeof(*facts));
        if (!s)
                return error_set(-ENOMEM, "no memory for a snapshot");
        s->peers = peers = (void *)(s + 1);
        s->lanes = lanes = (void *)(peers + v->n_peers);
        s->groups = groups = (void *)(lanes + v->n_lanes);
        cursors = (void *)(groups + v->n_groups);
        s->members = members = (void *)(cursors + n_cursors);
        s->facts = facts = (void *)(members + v->n_members);
        s->n_peers = v->n_peers;
        s->n_lanes = v->n_lanes;
        s->n_groups = v->n_groups;
        s->n_members = v->n_members;

        fill_channel(s, l);
        for (uint32_t i = 0; i < v->n_peers; i++) {
                fill_peer(&peers[i], l, i);
                s->anybody |= peers[i].alive;
        }
        for (uint32_t i = 0; i < v->n_lanes; i++)
                fill_lane(&lanes[i], l, peers, i);
        for (uint32_t i = 0; i < v->n_groups; i++)
                fill_group(&groups[i], &cursors[(size_t)i * v->n_lanes], l, lanes, i);
        for (uint32_t i = 0; i < v->n_members; i++)
                fill_member(&members[i], l, peers, i);
        for (uint32_t i = 0; i < v->n_facts; i++)
                s->n_facts += fill_fact(&facts[s->n_facts], &v->facts[i], s);
        *ret = s;
        return 0;
}
