/*
 * A member of a shared group: what it claims, hands out, and takes over from members that are gone.
 *
 * A claim takes as many messages as the caller asked for or as `prefetch` says and puts them where the inlined receive
 * looks: it hands them out one by one and stops behind the last, because "held" counts the messages of this claim
 * there and "held_max" is their number. Releases go the long way. The token of a message says which loan it is of.
 */
#include "lib/internal.h"

#include <errno.h>
#include <string.h>

#define TOKEN_SHIFT 48 /* user addresses end below */

static uint64_t token_make(const struct psyne_consumer *c, uint32_t lane, uint32_t member, uint32_t k) {
        return (uint64_t)(uintptr_t)c | lane | (1ull | (uint64_t)k << 1 | (uint64_t)member << 7) << TOKEN_SHIFT;
}

void share_open(struct psyne_consumer *c, struct lane_rx *x, uint32_t lane, const struct segment *s) {
        *x = (struct lane_rx){
                .hot = {
                        .base = s->base,
                        .mask = s->bytes - 1,
                        .lazy = UINT64_MAX, /* nothing is published: the claim and hold words are exact */
                        .stride_max = s->bytes - c->channel->view.config.record_align,
                        .align_mask = c->channel->view.config.record_align - 1,
                        .line = &c->scratch,
                        .waiters = &c->channel->view.header->waiters,
                        .scattered = 1, /* releases take the long way */
                },
                .cursor = layout_cursor(&c->channel->view, c->group, lane),
                .follows = -1,
        };
        x->hot.released = x->hot.published = 0;
        x->gate = shared_claim_position(__atomic_load_n(&x->cursor->claim, __ATOMIC_RELAXED));
}

static struct shared_ring ring_of(const struct psyne_consumer *c, struct lane_rx *x, uint32_t lane) {
        return (struct shared_ring){x->hot.base, x->hot.mask, c->channel->view.config.record_align, lane,
                c->generations[lane], c->follows, &x->gate};
}

/* In the lane we stand in a claim may be half handed out; no other lane has one. */
static bool window_is_open(const struct psyne_consumer *c) {
        return c->lane >= 0 && c->rx.hot.held < c->rx.hot.held_max;
}

bool share_ready(struct psyne_consumer *c, uint32_t lane) {
        struct shared_ring x;

        if (window_is_open(c))
                return (int32_t)lane == c->lane;
        x = ring_of(c, walk_end(c, lane), lane);
        return shared_ready(&c->channel->view, c->group, &x);
}

bool share_all_claimed(struct psyne_consumer *c, uint32_t lane) {
        struct lane_rx *end = walk_end(c, lane);
        struct shared_ring x;

        if (!end)
                return false;
        x = ring_of(c, end, lane);
        return !shared_ready(&c->channel->view, c->group, &x);
}

/* A record of ours, or one that we walk over. 1, 0 = padding, -EBADMSG. */
static int record_at(const struct lane_rx *x, uint64_t at, uint64_t *stride, struct psyne_msg *ret) {
        const unsigned char *p = x->hot.base + (at & x->hot.mask & ~x->hot.align_mask); /* the loan's words are a peer's */
        const struct psyne_record *r = (const void *)p;
        uint64_t bytes, kind;

        *stride = __atomic_load_n(&r->commit, PSYNE_ORDER_C);
        bytes = __atomic_load_n(&r->bytes, __ATOMIC_RELAXED);
        kind = __atomic_load_n(&r->kind, __ATOMIC_RELAXED);
        if (!*stride || *stride & x->hot.align_mask || *stride > x->hot.stride_max ||
                bytes > *stride - PSYNE_RECORD_HEADER)
                return error_set(-EBADMSG, "the producer wrote a damaged record header");
        *ret = (struct psyne_msg){
                .data = (void *)(uintptr_t)(p + PSYNE_RECORD_HEADER),
                .len = bytes,
                .cap = *stride - PSYNE_RECORD_HEADER,
                .type = (uint32_t)kind,
                .opaque = {at, at + *stride, 0},
        };
        return kind >> 32 == 0;
}

/* How many of a claim's @n records to walk. Padding behind the last message is left alone: with that message's release
 * the loan is over, and the padding is somebody's next record. */
static uint32_t through_last_message(uint32_t n, uint64_t pads) {
        while (n && pads & (1ull << (n - 1)))
                n--;
        return n;
}

int share_take(struct psyne_consumer *c, struct psyne_msg *ret) {
        struct psyne_hot_rx *h = &c->rx.hot;
        struct shared_ring x = ring_of(c, &c->rx, (uint32_t)c->lane);
        struct shared_claim claim;
        uint32_t room, most;
        uint64_t pads, stride, walked = 0;
        struct psyne_msg over;
        int r;

        for (;;) {
                while (window_is_open(c)) {
                        if (psyne_lane_recv(h, ret))
                                return 1;
                        r = record_at(&c->rx, h->taken, &stride, &over);
                        if (r != 0) /* it changed since it was claimed */
                                return r < 0 ? r : error_set(-EBADMSG, "the producer changed a record that was sent");
                        h->taken += stride;
                        h->held++;
                }
                /* A lane that is never empty gives way after an eighth of a ring. */
                if (c->turn_bytes > h->mask / 8 && c->n_walk > 1) {
                        c->turn_bytes = 0;
                        c->turn_over = true;
                        return SHARE_TURN_OVER;
                }
                room = c->claimed < c->held_max ? c->held_max - c->claimed : 0;
                most = c->want > c->prefetch ? c->want : c->prefetch;
                if (most > room)
                        most = room;
                if (!most)
                        return shared_ready(&c->channel->view, c->group, &x)
                                ? error_set(-ENOBUFS, "%u messages are held, the limit of this consumer", c->claimed)
                                : 0;
                r = shared_claim(&c->self, &x, most, &claim);
                if (claim.raised)
                        wake_producers(c);
                if (r <= 0)
                        return r;
                pads = claim.pads;
                room = claim.n;
                if (pads)
                        room -= (uint32_t)__builtin_popcountll(pads);
                c->claimed += room;
                c->claimed_in[c->lane] += room;
                c->turn_bytes += claim.end - claim.start;
                h->taken = claim.start;
                h->held = 0;
                h->held_max = through_last_message(claim.n, pads);
                h->token = token_make(c, (uint32_t)c->lane, c->self.member, claim.loan);
                if (!h->held_max) { /* nothing but padding */
                        if (shared_done(&c->self, c->self.member, claim.loan, 0))
                                wake_producers(c);
                        walked += claim.end - claim.start;
                        if (walked > h->mask) /* a ring of it: no honest producer's. Look again later */
                                return 0;
                }
                if (shared_ready(&c->channel->view, c->group, &x))
                        wake_next(c);
        }
}

/* The last loan of a lane whose producer has gone: it is over, and not only we walk it. */
static void lane_may_be_over(struct psyne_consumer *c, uint32_t lane) {
        if (__atomic_load_n(&c->channel->view.lanes[lane].state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE)
                return;
        membership_retire_lane(c->channel, lane, c->generations[lane], RETIRE_DRAINED);
        if (walk_group_is_done(c, lane))
                membership_changed(c->channel);
}

bool share_take_quick(struct psyne_consumer *c, struct psyne_msg *ret) {
        const struct psyne_channel *ch = c->channel;

        if (c->lane < 0 || c->orphans || c->adopted.any || c->pending || c->stale || c->turn_over || ch->forked ||
                c->lanes_seen != __atomic_load_n(&ch->view.header->lanes_generation, __ATOMIC_ACQUIRE))
                return false;
        return share_take(c, ret) == 1;
}

bool share_release_quick(struct psyne_consumer *c, struct psyne_msg *m) {
        uint64_t token = m->opaque[2];
        uint32_t k = (uint32_t)(token >> (TOKEN_SHIFT + 1) & 63), i = c->self.next[k];
        struct layout_member *counters = c->shared;

        /* Of the lane we stand in, in our own row: what a token of ours says about a loan of ours is all there is to ask. */
        if (c->lane < 0 || token != token_make(c, (uint32_t)c->lane, c->self.member, k) ||
                !(c->self.left[k] & (1ull << i)) || c->self.starts[k][i] != m->opaque[0] || c->in_place || c->channel->forked)
                return false;
        m->opaque[2] = 0;
        c->claimed--;
        c->claimed_in[c->lane]--;
        __atomic_store_n(&counters->messages_received, counters->messages_received + 1, __ATOMIC_RELAXED);
        __atomic_store_n(&counters->bytes_received, counters->bytes_received + m->len, __ATOMIC_RELAXED);
        if (shared_done_own(&c->self, k, i)) {
                lane_may_be_over(c, (uint32_t)c->lane);
                /* H: every hold word that goes up is followed by a look for producers that wait. */
                if (c->gates || psyne_lane_sleepers(c->rx.hot.waiters, c->rx.hot.fence))
                        wake_producers(c);
        }
        return true;
}

/* ---- what the gone held ------------------------------------------------------------------------------------------ */

static bool find_orphan(struct psyne_consumer *c) {
        const struct layout_view *v = &c->channel->view;

        for (uint32_t m = 0; m < v->n_members; m++) {
                const struct layout_member *row = &v->members[m];

                if (__atomic_load_n(&row->group, __ATOMIC_ACQUIRE) != c->group ||
                        (m != c->self.member && __atomic_load_n(&row->state, __ATOMIC_ACQUIRE) != LAYOUT_DEAD))
                        continue;
                if (shared_adopt(&c->self, m, &c->adopted.loan, &c->adopted.owner)) {
                        c->adopted.any = true;
                        c->adopted.member = m;
                        c->adopted.i = 0;
                        c->adopted.at = shared_loan(v, m, c->adopted.loan)->start;
                        if (m == c->self.member) /* who sat here before us knew where they start; share_adopted() learns it */
                                memset(c->self.starts[c->adopted.loan], 0xff, sizeof(c->self.starts[0]));
                        return true;
                }
        }
        c->orphans = false;
        (void)shared_holds_refresh(&c->self);
        wake_producers(c); /* a dead member's hold word may have gone */
        return false;
}

int share_adopted(struct psyne_consumer *c, struct psyne_msg *ret) {
        const struct layout_view *v = &c->channel->view;

        while (c->adopted.any || find_orphan(c)) {
                struct layout_loan *e = shared_loan(v, c->adopted.member, c->adopted.loan);
                struct lane_rx *x;
                uint64_t stride;
                uint32_t lane;
                int r;

                /* Behind the last that is not done the loan may be over already, and its records gone. */
                if (!shared_rest(e, c->adopted.owner, c->adopted.i)) {
                        c->adopted.any = false;
                        continue;
                }
                lane = __atomic_load_n(&e->lane, __ATOMIC_RELAXED);
                x = lane < v->n_lanes ? walk_end(c, lane) : NULL;
                if (!x) { /* its ring is on its way to us */
                        c->pending = true;
                        return 0;
                }
                if (c->claimed >= c->held_max)
                        return error_set(-ENOBUFS, "%u messages are held, the limit of this consumer", c->claimed);
                r = record_at(x, c->adopted.at, &stride, ret);
                if (r < 0) { /* its producer destroyed it: nobody can read the rest */
                        c->adopted.any = false;
                        if (shared_done(&c->self, c->adopted.member, c->adopted.loan, UINT64_MAX))
                                wake_producers(c);
                        return r;
                }
                if (c->adopted.member == c->self.member)
                        c->self.starts[c->adopted.loan][c->adopted.i] = c->adopted.at;
                c->adopted.at += stride;
                if (__atomic_load_n(&e->done, __ATOMIC_ACQUIRE) & (1ull << c->adopted.i++))
                        continue;
                ret->flags = PSYNE_MSG_REDELIVERED;
                ret->opaque[2] = token_make(c, lane, c->adopted.member, c->adopted.loan);
                c->claimed++;
                c->claimed_in[lane]++;
                return 1;
        }
        return 0;
}

void share_untake(struct psyne_consumer *c, const struct psyne_msg *m) {
        if (m->flags & PSYNE_MSG_REDELIVERED) {
                c->adopted.any = true;
                c->adopted.i--;
                c->adopted.at = m->opaque[0];
                c->claimed--;
                c->claimed_in[m->opaque[2] & (LANE_HANDLE_ALIGN / 2 - 1)]--;
        } else {
                c->rx.hot.taken = m->opaque[0];
                c->rx.hot.held--;
        }
}

/* ---- releasing ---------------------------------------------------------------------------------------------------- */

/* Which record of its loan a message is; LAYOUT_LOANS: none. In our own row we know where they start. */
static uint32_t record_index(struct psyne_consumer *c, const struct lane_rx *x, uint32_t member, uint32_t k,
        const struct psyne_msg *m, uint32_t hint) {
        const struct layout_loan *e = shared_loan(&c->channel->view, member, k);
        uint32_t n = __atomic_load_n(&e->n, __ATOMIC_RELAXED);
        uint64_t at = e->start, stride;
        struct psyne_msg over;
        bool own = member == c->self.member;

        if (own && hint < n && hint < LAYOUT_LOANS && c->self.starts[k][hint] == m->opaque[0])
                return hint;
        for (uint32_t i = 0; i < n && i < LAYOUT_LOANS; i++, at += stride) {
                if ((own ? c->self.starts[k][i] : at) == m->opaque[0])
                        return i;
                stride = 0;
                if (!own && record_at(x, at, &stride, &over) < 0)
                        break;
        }
        return LAYOUT_LOANS;
}

int share_release_n(struct psyne_consumer *c, struct psyne_msg m[], unsigned n) {
        struct layout_member *counters = c->shared;
        uint64_t bytes = 0, mask = 0;
        unsigned i, released = 0;
        bool raised = false, over, own;

        for (i = 0; i < n;) {
                uint64_t token = m[i].opaque[2];
                uint32_t lane = (uint32_t)(token & (LANE_HANDLE_ALIGN - 1)), index = 0;
                uint32_t k = (uint32_t)(token >> (TOKEN_SHIFT + 1) & 63), member = (uint32_t)(token >> (TOKEN_SHIFT + 7) & 63);
                const struct lane_rx *x = lane < c->channel->view.n_lanes ? walk_end(c, lane) : NULL;
                unsigned first = i;

                if (!x || member >= c->channel->view.n_members || token != token_make(c, lane, member, k))
                        break;
                /* Those of one loan that stand together are released together. */
                own = member == c->self.member;
                index = own ? c->self.next[k] : 0;
                for (mask = 0; i < n && m[i].opaque[2] == token; i++, index++) {
                        index = record_index(c, x, member, k, &m[i], index);
                        if (index >= LAYOUT_LOANS || mask & (1ull << index) ||
                                !((own && c->self.left[k] & (1ull << index)) || shared_owns(&c->self, member, k, index)))
                                break;
                        if (c->in_place && stage_write(c, x, &m[i], m[i].flags & STAGE_REMOVE) < 0)
                                break;
                        mask |= 1ull << index;
                        bytes += m[i].len;
                }
                if (!mask)
                        break;
                if (own)
                        c->self.next[k] = (uint8_t)(index % LAYOUT_LOANS);
                for (unsigned j = first; j < i; j++)
                        m[j].opaque[2] = 0;
                released += i - first;
                c->claimed -= i - first;
                c->claimed_in[lane] -= i - first;
                over = shared_done(&c->self, member, k, mask);
                raised |= over;
                /* Of a row that has a new member: its hold word still counts this loan, and only it may write that. */
                if (over && member != c->self.member &&
                        __atomic_load_n(&c->channel->view.members[member].state, __ATOMIC_ACQUIRE) != LAYOUT_DEAD)
                        membership_changed(c->channel);
                if (over)
                        lane_may_be_over(c, lane);
        }
        if (released) {
                __atomic_store_n(&counters->messages_received, counters->messages_received + released, __ATOMIC_RELAXED);
                __atomic_store_n(&counters->bytes_received, counters->bytes_received + bytes, __ATOMIC_RELAXED);
                /* H: every hold word that goes up is followed by a look for producers that wait. */
                if (raised && (c->gates || psyne_lane_sleepers(c->rx.hot.waiters, c->rx.hot.fence)))
                        wake_producers(c);
        }
        if (released < n && released == i)
                return released ? (int)released
                                : error_set(-EINVAL, "release of a message that this consumer does not hold");
        return (int)released;
}
