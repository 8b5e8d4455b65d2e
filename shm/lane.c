/* See lane.h, and psyne/inline.h for the algorithm and the letters A to I. */
#include "shm/lane.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/fault.h"
#include "shm/group.h"

/*
 * Says that everything before @end may be overwritten, after a place further on where who is overrun can go on: who sees
 * the one sees the other. Of those places the oldest is written over, so there always are some that are whole.
 */
static void announce(struct lane_tx *t, uint64_t end) {
        struct layout_lane *l = t->shared;
        uint64_t version = __atomic_load_n(&l->boundary_version, __ATOMIC_RELAXED) + 1; /* once: it is an index */

        __atomic_store_n(&l->boundary[version % LAYOUT_BOUNDARIES].position, t->hot.tail, __ATOMIC_RELAXED);
        __atomic_store_n(&l->boundary[version % LAYOUT_BOUNDARIES].messages, t->hot.messages, __ATOMIC_RELAXED);
        __atomic_store_n(&l->boundary_version, version, __ATOMIC_RELEASE); /* pairs with overrun_boundary()'s */
        __atomic_store_n(&l->announced, end, __ATOMIC_RELEASE);            /* pairs with overtaken()'s */
        __atomic_thread_fence(__ATOMIC_RELEASE); /* before the payload and the words that are cleared: who copied any of
                                                  * those looks at `announced` behind an acquire fence */
}

/* ---- writing end ------------------------------------------------------------------------------------------------ */

void lane_tx_init(struct lane_tx *t, const struct layout_view *v, uint32_t index, unsigned char *base,
        uint64_t start) {
        uint64_t ring = v->config.ring_bytes, align = v->config.record_align;

        *t = (struct lane_tx){
                .hot = {
                        .base = base,
                        .mask = ring - 1,
                        .head = start,
                        .tail = start,
                        .limit = start + ring,
                        .frontier = start + align, /* fresh pages are zero; the rest is zero too, but cold */
                        .align = align,
                        .bytes_max = lane_message_max(ring, align),
                        .line = &v->lanes[index].tx,
                        .sleepers = &v->header->sleepers,
                        .stop = &v->header->stop,
                        .messages = v->lanes[index].tx.messages_sent, /* goes on over all owners of the index */
                        .bytes = v->lanes[index].tx.bytes_sent,
                        .token = (uint64_t)(uintptr_t)t | index,
                        .ahead = LANE_AHEAD_CONVERSATION,
                },
                .view = v,
                .shared = &v->lanes[index],
                .index = index,
        };
        t->free = start;
        __atomic_store_n(&t->hot.line->tail, start | (t->hot.messages & 15), __ATOMIC_RELAXED);
        __atomic_store_n(&t->shared->floor, start, __ATOMIC_RELAXED);
        announce(t, t->hot.limit);
}

uint64_t lane_tx_free_position(const struct lane_tx *t, bool exact) {
        uint64_t groups = __atomic_load_n(&t->view->header->groups_active, __ATOMIC_ACQUIRE);
        uint64_t tail = t->hot.tail, ring = t->hot.mask + 1, behind = 0;

        for (; groups; groups &= groups - 1) {
                uint32_t g = (uint32_t)__builtin_ctzll(groups);
                uint64_t at;

                if (g >= t->view->n_groups)
                        break;
                at = group_position(t->view, g, t->index, exact);
                /* A position ahead of the tail or more than a ring behind is a damaged word: it must not make
                 * room, so it counts as a full ring behind. */
                if (tail - at > ring)
                        behind = ring;
                else if (tail - at > behind)
                        behind = tail - at;
        }
        return tail - behind;
}

#define LOOKS_MAX 1000 /* a generation that changes between two looks, so many times: by no honest joiners */

/*
 * The floor is the position up to which all is free, for groups that join and want the oldest record there is. One that
 * joins meanwhile either sees the floor that we are going by, or is seen by our second look at the generation.
 */
void lane_tx_refresh(struct lane_tx *t, bool exact) {
        const uint64_t *members = &t->view->header->members_generation;
        uint64_t ring = t->hot.mask + 1, free_position, generation, used, limit;
        unsigned looks = 0;

        if (t->hot.fence)
                __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the tail before the groups; else the joiner's barrier does it */
        do {
                generation = __atomic_load_n(members, __ATOMIC_ACQUIRE);
                free_position = lane_tx_free_position(t, exact);
                used = t->hot.tail - free_position;
                if (used > t->hot.line->high_water)
                        __atomic_store_n(&t->hot.line->high_water, used, __ATOMIC_RELAXED);
                /* Monotonic: a candidate behind the cached one (a reader that joined late, a damaged word) changes
                 * nothing. */
                if (free_position + ring - t->hot.tail <= t->free + ring - t->hot.tail)
                        break;
                __atomic_store_n(&t->shared->floor, free_position, __ATOMIC_RELAXED);
                __atomic_thread_fence(__ATOMIC_SEQ_CST);
                if (__atomic_load_n(members, __ATOMIC_ACQUIRE) == generation)
                        t->free = free_position;
        } while (t->free != free_position && ++looks < LOOKS_MAX); /* behind the floor is safe, ahead of it is not */
        limit = t->free + ring - t->hot.tail;
        if (__atomic_load_n(&t->view->header->groups_skipping, __ATOMIC_ACQUIRE)) {
                uint64_t near = t->hot.head - t->hot.tail + t->need + ring / 8;

                if (t->hot.limit - t->hot.head >= t->need)
                        return; /* nothing is said to be gone for nothing */

                if (near < limit)
                        limit = near;
        }
        if (limit <= t->hot.limit - t->hot.tail)
                return;
        announce(t, t->hot.tail + limit);
        t->hot.limit = t->hot.tail + limit;
}

unsigned lane_tx_unread(const struct lane_tx *t, uint64_t position) {
        uint64_t align = t->hot.align, stride;
        unsigned n = 0;

        if (position & (align - 1))
                return 0; /* a group's place that cannot be */
        for (; position - t->hot.tail != 0 && t->hot.tail - position <= t->hot.mask + 1; position += stride) {
                const struct psyne_record *r = psyne_lane_record(t->hot.base, position, t->hot.mask);

                stride = r->commit;
                if (!stride || stride & (align - 1))
                        break; /* not a record's start: a damaged position */
                n += !(r->kind >> 32);
        }
        return n;
}

unsigned lane_tx_claim_n(struct lane_tx *t, size_t bytes, unsigned n, struct psyne_msg ret[]) {
        unsigned i;

        for (i = 0; i < n && psyne_lane_claim(&t->hot, bytes, &ret[i]); i++)
                ;
        return i;
}

/* The aborted claim that starts at @start and waits for older ones; n_aborted if there is none. */
static unsigned aborted_at(const struct lane_tx *t, uint64_t start) {
        unsigned i = 0;

        while (i < t->n_aborted && t->aborted[i].start != start)
                i++;
        return i;
}

/* Is @m a claim of this lane that is still open? Messages are values: a copy of one that was aborted looks as if. */
static bool claim_is_open(const struct lane_tx *t, const struct psyne_msg *m) {
        uint64_t open = t->hot.head - t->hot.tail, start = m->opaque[0] - t->hot.tail, end = m->opaque[1] - t->hot.tail;

        return m->opaque[2] == t->hot.token && start < end && end <= open && end - start >= t->hot.align &&
                !((start | end) & (t->hot.align - 1)) && aborted_at(t, m->opaque[0]) == t->n_aborted;
}

/*
 * Makes sure that the record [start, end) can be committed: the word at its end is zero and the frontier covers
 * it. A newest claim that shrinks gives its cells back; they hold payload, so the frontier falls back with it.
 */
static uint64_t claim_settle(struct lane_tx *t, uint64_t start, uint64_t end, size_t bytes) {
        struct psyne_hot_tx *h = &t->hot;
        uint64_t new_end = end;

        if (end == h->head)
                new_end = start + psyne_lane_stride(bytes, h->align);
        /* The payload may have been written through the mirror: the compiler must not move those stores past the clear. */
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        if (new_end != end) {
                psyne_lane_clear(h, new_end);
                h->frontier = new_end + h->align;
                h->head = new_end;
        } else if (h->frontier - h->tail < end - h->tail + h->align) {
                psyne_lane_clear(h, end);
                h->frontier = end + h->align;
        }
        return new_end;
}

/* Claims that were aborted while older ones stood become padding as soon as they are the oldest. */
static void aborted_flush(struct lane_tx *t) {
        for (unsigned i = 0; i < t->n_aborted;) {
                struct lane_span *s = &t->aborted[i];

                if (s->start != t->hot.tail) {
                        i++;
                        continue;
                }
                (void)claim_settle(t, s->start, s->end, (size_t)(s->end - s->start - PSYNE_RECORD_HEADER));
                psyne_lane_publish(&t->hot, s->start, s->end, 0, PSYNE_RECORD_PAD);
                t->hot.tail = s->end;
                psyne_lane_count(&t->hot, 0, 0);
                *s = t->aborted[--t->n_aborted];
                i = 0;
        }
}

int lane_tx_commit(struct lane_tx *t, struct psyne_msg *m) {
        uint64_t start = m->opaque[0], end = m->opaque[1];

        if (!claim_is_open(t, m))
                return error_set(-EINVAL, "commit of a message that is not an open claim of this producer");
        if (start != t->hot.tail)
                return error_set(-EINVAL, "messages commit in the order in which they were claimed");
        if (m->len > end - start - PSYNE_RECORD_HEADER)
                return error_set(-EINVAL, "message length %zu exceeds the claim's %llu bytes", m->len,
                        (unsigned long long)(end - start - PSYNE_RECORD_HEADER));
        end = claim_settle(t, start, end, m->len);
        FAULT_POINT("commit.before");
        psyne_lane_publish(&t->hot, start, end, m->len, m->type);
        FAULT_POINT("commit.after");
        t->hot.tail = end;
        psyne_lane_count(&t->hot, 1, m->len);
        m->opaque[2] = 0;
        if (t->n_aborted)
                aborted_flush(t);
        return 0;
}

/* From @position over the aborted claims that follow each other there. */
static uint64_t behind_aborted(const struct lane_tx *t, uint64_t position) {
        unsigned i;

        while ((i = aborted_at(t, position)) < t->n_aborted)
                position = t->aborted[i].end;
        return position;
}

/* Writes the aborted claims in [@from, @to) as padding, which becomes visible with whatever is in front of it. */
static void aborted_write(struct lane_tx *t, uint64_t from, uint64_t to) {
        while (from != to) {
                unsigned i = aborted_at(t, from);
                struct psyne_record *r = psyne_lane_record(t->hot.base, from, t->hot.mask);

                r->bytes = 0;
                r->kind = PSYNE_RECORD_PAD;
                __atomic_store_n(&r->commit, (uint32_t)(t->aborted[i].end - from), __ATOMIC_RELAXED);
                from = t->aborted[i].end;
                t->aborted[i] = t->aborted[--t->n_aborted];
        }
}

/* Aborted claims between those of the batch are part of it, as padding: a reader sees all of it or nothing. */
int lane_tx_commit_n(struct lane_tx *t, struct psyne_msg m[], unsigned n) {
        struct psyne_hot_tx *h = &t->hot;
        uint64_t end;

        for (unsigned i = 0; i < n; i++) {
                if (m[i].opaque[0] != (i ? behind_aborted(t, m[i - 1].opaque[1]) : h->tail) || !claim_is_open(t, &m[i]))
                        return error_set(-EINVAL, "message %u is not the next open claim of this producer", i);
                if (m[i].len > m[i].opaque[1] - m[i].opaque[0] - PSYNE_RECORD_HEADER)
                        return error_set(-EINVAL, "length of message %u exceeds its claim", i);
        }
        if (n == 0)
                return 0;
        /* The word behind the last is clear; words go last to second, plainly; the first one's release shows all. */
        end = claim_settle(t, m[n - 1].opaque[0], m[n - 1].opaque[1], m[n - 1].len);
        for (unsigned i = n - 1; i > 0; i--) {
                struct psyne_record *r = psyne_lane_record(h->base, m[i].opaque[0], h->mask);

                r->bytes = (uint32_t)m[i].len;
                r->kind = m[i].type;
                __atomic_store_n(&r->commit,
                        (uint32_t)((i == n - 1 ? end : m[i].opaque[1]) - m[i].opaque[0]), __ATOMIC_RELAXED);
                aborted_write(t, m[i - 1].opaque[1], m[i].opaque[0]);
        }
        FAULT_POINT("commit_n.before");
        psyne_lane_publish(h, m[0].opaque[0], n == 1 ? end : m[0].opaque[1], m[0].len, m[0].type);
        FAULT_POINT("commit_n.after");
        /* Counted in steps that the tail's low bits can tell apart: layout_lane_end(). */
        for (unsigned i = 0, to; i < n; i = to) {
                uint64_t bytes = 0;

                for (to = i; to < n && to < i + 7; to++)
                        bytes += m[to].len;
                h->tail = to == n ? end : m[to - 1].opaque[1];
                psyne_lane_count(h, to - i, bytes);
        }
        for (unsigned i = 0; i < n; i++)
                m[i].opaque[2] = 0;
        if (t->n_aborted)
                aborted_flush(t);
        return (int)n;
}

int lane_tx_abort(struct lane_tx *t, struct psyne_msg *m) {
        struct psyne_hot_tx *h = &t->hot;
        uint64_t start = m->opaque[0], end = m->opaque[1];

        if (!claim_is_open(t, m))
                return error_set(-EINVAL, "abort of a message that is not an open claim of this producer");
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        if (end == h->head) {
                /* Its cells hold payload now: take back the promise for all but the word at its start. */
                h->head = start;
                if (h->frontier - h->tail > start + h->align - h->tail)
                        h->frontier = start + h->align;
        } else {
                if (t->n_aborted == LANE_ABORTED_MAX)
                        return error_set(-ENOBUFS, "%u aborted claims wait for older ones", LANE_ABORTED_MAX);
                t->aborted[t->n_aborted++] = (struct lane_span){start, end};
                aborted_flush(t);
        }
        m->opaque[2] = 0;
        /* An older aborted claim may be the newest now. */
        for (unsigned i = 0; i < t->n_aborted;) {
                if (t->aborted[i].end != h->head) {
                        i++;
                        continue;
                }
                h->head = t->aborted[i].start;
                if (h->frontier - h->tail > h->head + h->align - h->tail)
                        h->frontier = h->head + h->align;
                t->aborted[i] = t->aborted[--t->n_aborted];
                i = 0;
        }
        return 0;
}

int lane_tx_resize(struct lane_tx *t, struct psyne_msg *m, size_t bytes) {
        struct psyne_hot_tx *h = &t->hot;
        uint64_t stride;

        if (!claim_is_open(t, m))
                return error_set(-EINVAL, "resize of a message that is not an open claim of this producer");
        if (bytes <= m->opaque[1] - m->opaque[0] - PSYNE_RECORD_HEADER) {
                m->len = bytes;
                return 0;
        }
        if (bytes > h->bytes_max)
                return error_set(-EMSGSIZE, "%zu bytes can never fit, the largest message is %llu", bytes,
                        (unsigned long long)h->bytes_max);
        if (m->opaque[1] != h->head)
                return error_set(-ENOSPC, "only the newest claim can grow past its %zu bytes", m->cap);
        stride = psyne_lane_stride(bytes, h->align);
        if (m->opaque[0] + stride + h->align - h->tail > h->limit - h->tail) {
                t->need = m->opaque[0] + stride + h->align - h->head;
                lane_tx_refresh(t, true);
                t->need = 0;
        }
        if (m->opaque[0] + stride + h->align - h->tail > h->limit - h->tail)
                return error_set(-ENOSPC, "no room to grow to %zu bytes yet", bytes);
        h->head = m->opaque[1] = m->opaque[0] + stride;
        m->cap = stride - PSYNE_RECORD_HEADER;
        m->len = bytes;
        return 0;
}

void lane_tx_abort_all(struct lane_tx *t) {
        t->n_aborted = 0;
        t->hot.head = t->hot.tail;
        if (t->hot.frontier - t->hot.tail > t->hot.align)
                t->hot.frontier = t->hot.tail + t->hot.align;
}

/* ---- reading end ------------------------------------------------------------------------------------------------ */

int lane_rx_init(struct lane_rx *x, const struct layout_view *v, uint32_t group, uint32_t index,
        const unsigned char *base, uint64_t ring_bytes, uint32_t held_max) {
        struct layout_cursor *c = layout_cursor(v, group, index);
        uint64_t released = __atomic_load_n(&c->exact.released, __ATOMIC_ACQUIRE);
        uint64_t taken = __atomic_load_n(&c->exact.taken, __ATOMIC_ACQUIRE);
        uint64_t align = v->config.record_align;

        if (taken - released > ring_bytes || ((taken | released) & (align - 1)))
                return error_set(-EBADMSG, "the group's place in lane %u is damaged", index);
        *x = (struct lane_rx){
                .hot = {
                        .base = base,
                        .mask = ring_bytes - 1,
                        .taken = released,
                        .released = released,
                        .published = __atomic_load_n(&c->published, __ATOMIC_RELAXED), /* this end is its only writer */
                        .lazy = ring_bytes / 8,
                        .stride_max = ring_bytes - align,
                        .align_mask = align - 1,
                        .line = &c->exact,
                        .waiters = &v->header->waiters,
                        .messages = c->exact.messages_received,
                        .bytes = c->exact.bytes_received,
                        .token = (uint64_t)(uintptr_t)x | index,
                        .held_max = taken == released ? held_max : 0,
                },
                .cursor = c,
                .held_max = held_max,
                .redeliver = taken,
                .redelivering = taken != released,
                .follows = -1,
                .gate = released,
        };
        return 0;
}

void lane_rx_move(struct lane_rx *to, const struct lane_rx *from) {
        static_assert(offsetof(struct psyne_hot_rx, fence) + sizeof(uint32_t) == sizeof(struct psyne_hot_rx), "last");
        memcpy(&to->hot, &from->hot, offsetof(struct psyne_hot_rx, fence));
        to->cursor = from->cursor;
        to->held_max = from->held_max;
        to->redeliver = from->redeliver;
        to->redelivering = from->redelivering;
        to->stage = from->stage;
        to->follows = from->follows;
        to->gate = from->gate;
        to->view = from->view;
        to->sequence = from->sequence;
        memcpy(to->scattered, from->scattered, from->hot.scattered * sizeof(to->scattered[0]));
}

/* One header, loaded once and checked. 1, 0 = nothing, -EBADMSG. */
static int record_look(const struct lane_rx *x, uint64_t position, uint64_t *stride, uint64_t *bytes, uint64_t *kind) {
        const struct psyne_record *r = (const void *)(x->hot.base + (position & x->hot.mask));

        *stride = __atomic_load_n(&r->commit, PSYNE_ORDER_C); /* C, pairs with B */
        if (!*stride)
                return 0;
        *bytes = __atomic_load_n(&r->bytes, __ATOMIC_RELAXED);
        *kind = __atomic_load_n(&r->kind, __ATOMIC_RELAXED);
        if ((*stride & x->hot.align_mask) || *stride > x->hot.stride_max || *bytes > *stride - PSYNE_RECORD_HEADER ||
                (*kind >> 32 && *kind >> 32 != PSYNE_RECORD_PAD >> 32))
                return -EBADMSG;
        return 1;
}

/* A span released out of order stays in the table until what is before it goes: together with the held ones, which
 * may all end up there, they must fit. */
static void rx_limit_held(struct lane_rx *x) {
        uint32_t room = LANE_HELD_MAX - x->hot.scattered;

        x->hot.held_max = x->redelivering || x->stage ? 0 : room < x->held_max ? room : x->held_max;
}

void lane_rx_stage(struct lane_rx *x, const struct layout_view *v, int32_t follows) {
        x->view = v;
        x->follows = follows;
        x->stage = true;
        rx_limit_held(x);
}

static bool gate_passes(struct lane_rx *x, uint64_t to) {
        return group_passes(x->view, x->follows, (uint32_t)(x->hot.token & (LANE_HANDLE_ALIGN / 2 - 1)), &x->gate, to);
}

bool lane_rx_ready(struct lane_rx *x) {
        return __atomic_load_n(lane_rx_next(x), PSYNE_ORDER_C) != 0 && gate_passes(x, x->hot.taken + 1);
}

void lane_rx_limit(struct lane_rx *x, uint32_t held_max) {
        x->held_max = held_max;
        rx_limit_held(x);
}

/* After every step of `taken`, over padding too: redelivery ends where the dead one had come to. Before that the exact
 * `taken` stays where the dead one left it, or a second death would forget. */
static void rx_store_taken(struct lane_rx *x) {
        struct psyne_hot_rx *h = &x->hot;

        if (x->redelivering && h->taken - x->redeliver <= h->mask) {
                x->redelivering = false;
                rx_limit_held(x);
        }
        if (!x->redelivering)
                __atomic_store_n(&h->line->taken, h->taken, __ATOMIC_RELEASE);
}

static void rx_store_released(struct lane_rx *x) {
        __atomic_store_n(&x->hot.line->released, x->hot.released, PSYNE_ORDER_D); /* D, pairs with A */
}

int lane_rx_take(struct lane_rx *x, struct psyne_msg *ret) {
        struct psyne_hot_rx *h = &x->hot;
        uint64_t stride, bytes, kind, walked = 0;
        int r;

        for (;;) {
                /* The gate first: what the group in front wrote into the record is there once that has passed it. */
                r = gate_passes(x, h->taken + 1) ? record_look(x, h->taken, &stride, &bytes, &kind) : 0;
                if (r == -EBADMSG)
                        return error_set(-EBADMSG, "the producer wrote a damaged record header");
                if (r == 1 && !gate_passes(x, h->taken + stride))
                        r = 0; /* a position that cannot be */
                if (r == 0) {
                        /* Nothing held and only padding in between: all of it is released. */
                        if (!h->held && h->released != h->taken) {
                                h->released = h->taken;
                                rx_store_released(x);
                        }
                        return 0;
                }
                if (!(kind >> 32))
                        break;
                /* A ring that is nothing but padding must not keep us here for ever: unreleased, it cannot be that
                 * much; else look again later. */
                if (h->taken - h->released + stride > h->mask)
                        return error_set(-EBADMSG, "the producer wrote more padding than the ring holds");
                if (walked > h->mask)
                        return 0;
                walked += stride;
                h->taken += stride;
                if (!h->held)
                        h->released = h->taken;
                rx_store_taken(x);
                if (!h->held)
                        rx_store_released(x);
        }
        if (h->held >= x->held_max)
                return error_set(-ENOBUFS, "%u messages are held, the limit of this consumer", h->held);
        if (h->held + h->scattered >= LANE_HELD_MAX)
                return error_set(-ENOBUFS, "%u messages are held with %u gaps between them, release the oldest first",
                        h->held, h->scattered);

        *ret = (struct psyne_msg){
                .data = (void *)(uintptr_t)(h->base + (h->taken & h->mask) + PSYNE_RECORD_HEADER),
                .len = bytes,
                .cap = stride - PSYNE_RECORD_HEADER,
                .type = (uint32_t)kind,
                .opaque = {h->taken, h->taken + stride, h->token},
        };
        if (x->redelivering && x->redeliver - h->taken - 1 < h->mask + 1)
                ret->flags = PSYNE_MSG_REDELIVERED;
        h->taken += stride;
        h->held++;
        rx_store_taken(x);
        return 1;
}

void lane_rx_untake(struct lane_rx *x, const struct psyne_msg *m) {
        x->hot.taken = m->opaque[0];
        x->hot.held--;
        if (m->flags & PSYNE_MSG_REDELIVERED) { /* the exact `taken` is where the dead one left it, and stays */
                x->redelivering = true;
                x->hot.held_max = 0;
        } else
                __atomic_store_n(&x->hot.line->taken, x->hot.taken, __ATOMIC_RELEASE);
}

unsigned lane_rx_take_n(struct lane_rx *x, struct psyne_msg ret[], unsigned n) {
        unsigned i;

        for (i = 0; i < n && psyne_lane_recv(&x->hot, &ret[i]); i++)
                ;
        return i;
}

/* Padding at the released position goes with what was before it. */
static void release_padding(struct lane_rx *x) {
        uint64_t stride, bytes, kind;

        while (x->hot.released != x->hot.taken && record_look(x, x->hot.released, &stride, &bytes, &kind) == 1 &&
                kind >> 32 && stride <= x->hot.taken - x->hot.released)
                x->hot.released += stride;
}

/* Neighbours become one span: a reader that keeps one message and goes on with the rest needs one entry, not many. */
static void scattered_add(struct lane_rx *x, uint64_t start, uint64_t end) {
        struct psyne_hot_rx *h = &x->hot;

        for (unsigned i = 0; i < h->scattered;) {
                struct lane_span *s = &x->scattered[i];

                if (s->end == start)
                        start = s->start;
                else if (s->start == end)
                        end = s->end;
                else {
                        i++;
                        continue;
                }
                *s = x->scattered[--h->scattered];
        }
        x->scattered[h->scattered++] = (struct lane_span){start, end};
}

bool lane_rx_holds(const struct lane_rx *x, const struct psyne_msg *m) {
        const struct psyne_hot_rx *h = &x->hot;
        uint64_t start = m->opaque[0], end = m->opaque[1];

        if (m->opaque[2] != h->token || start - h->released >= h->taken - h->released ||
                end - h->released > h->taken - h->released || start - h->released >= end - h->released || !h->held)
                return false;
        for (unsigned i = 0; i < h->scattered; i++)
                if (start - x->scattered[i].start < x->scattered[i].end - x->scattered[i].start)
                        return false;
        return true;
}

int lane_rx_release(struct lane_rx *x, struct psyne_msg *m) {
        struct psyne_hot_rx *h = &x->hot;
        uint64_t start = m->opaque[0], end = m->opaque[1];

        if (!lane_rx_holds(x, m))
                return error_set(-EINVAL, "release of a message that this consumer does not hold, or has released");

        release_padding(x); /* goes over what a stage removed, too, this one perhaps */
        if (start == h->released)
                h->released = end;
        else if ((int64_t)(start - h->released) > 0)
                scattered_add(x, start, end);
        /* Whatever was released earlier out of order and is contiguous now goes along. */
        for (unsigned i = 0; i < h->scattered;) {
                release_padding(x);
                if ((int64_t)(x->scattered[i].start - h->released) > 0) {
                        i++;
                        continue;
                }
                if ((int64_t)(x->scattered[i].end - h->released) > 0)
                        h->released = x->scattered[i].end;
                x->scattered[i] = x->scattered[--h->scattered];
                i = 0;
        }
        rx_limit_held(x);
        h->held--;
        h->messages++;
        h->bytes += m->len;
        __atomic_store_n(&h->line->messages_received, h->messages, __ATOMIC_RELAXED);
        __atomic_store_n(&h->line->bytes_received, h->bytes, __ATOMIC_RELAXED);
        rx_store_released(x);
        m->opaque[2] = 0;
        return 0;
}

int lane_rx_release_n(struct lane_rx *x, struct psyne_msg m[], unsigned n) {
        struct psyne_hot_rx *h = &x->hot;
        uint64_t at = h->released, bytes = 0;
        unsigned i;
        int r;

        /* A whole batch in order is one store. */
        for (i = 0; i < n && m[i].opaque[0] == at && m[i].opaque[2] == h->token; i++) {
                at = m[i].opaque[1];
                bytes += m[i].len;
                m[i].opaque[2] = 0;
        }
        if (i && !h->scattered && i <= h->held) {
                h->held -= i;
                h->released = at;
                h->messages += i;
                h->bytes += bytes;
                __atomic_store_n(&h->line->messages_received, h->messages, __ATOMIC_RELAXED);
                __atomic_store_n(&h->line->bytes_received, h->bytes, __ATOMIC_RELAXED);
                rx_store_released(x);
        } else {
                for (unsigned k = 0; k < i; k++)
                        m[k].opaque[2] = h->token;
                i = 0;
        }
        for (; i < n; i++) {
                r = lane_rx_release(x, &m[i]);
                if (r < 0)
                        return i ? (int)i : r;
        }
        return (int)n;
}

bool lane_rx_publish(struct lane_rx *x) {
        if (x->hot.published == x->hot.released)
                return false;
        x->hot.published = x->hot.released;
        __atomic_store_n(&x->cursor->published, x->hot.published, PSYNE_ORDER_E); /* E, pairs with A */
        return true;
}
