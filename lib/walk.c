/*
 * Which lanes a consumer reads, and in what order it looks at them.
 *
 * It stands in one lane at a time, whose reading end lies at the head of its handle, where the inlined calls find it;
 * the ends of the others wait in `lanes`, each as it was left, and change places with it. While one lane has messages,
 * nothing else is looked at until an eighth of a ring was released: then the others have their turn, so a producer
 * that floods keeps a quiet one waiting for no longer than that.
 *
 * The list of lanes is made anew when lanes_generation has moved: every join, end and death moves it after the lane's
 * row has changed, so a lane that is not in the list has not shown anything that this consumer must know of yet.
 * Whoever sends first on one lane and, after closing it, on another, is read in that order: a lane is not read before
 * every older one that had ended by then is empty.
 */
#include "lib/internal.h"

#include <errno.h>
#include <string.h>

#include "shm/group.h"
#include "shm/overrun.h"

/* What a consumer without a lane reads: nothing, for ever. */
static const _Alignas(64) struct psyne_record nothing;
static struct psyne_line_rx no_line;

void walk_none(struct psyne_consumer *c) {
        struct lane_rx none = {
                .hot = {
                        .base = (const unsigned char *)&nothing,
                        .released = UINT64_MAX,
                        .published = UINT64_MAX,
                        .lazy = UINT64_MAX,
                        .line = &no_line,
                        .waiters = &c->channel->view.header->waiters,
                        .token = UINT64_MAX,
                        .held_max = c->held_max,
                },
                .follows = -1,
        };

        c->lane = -1;
        lane_rx_move(&c->rx, &none);
}

static struct lane_rx *end_of(struct psyne_consumer *c, uint32_t lane) {
        return (int32_t)lane == c->lane ? &c->rx : &c->lanes[lane];
}

struct lane_rx *walk_end(struct psyne_consumer *c, uint32_t lane) {
        return lane < c->channel->view.n_lanes && c->open & (1ull << lane) ? end_of(c, lane) : NULL;
}

/* Puts the lane we stand in back among the others, its position published: a producer may need the room meanwhile. */
static void step_out(struct psyne_consumer *c) {
        if (c->lane < 0)
                return;
        if (lane_rx_publish(&c->rx))
                wake_producers(c);
        if (!c->is_shared)
                c->held_away += c->rx.hot.held;
        lane_rx_move(&c->lanes[c->lane], &c->rx);
        walk_none(c);
}

void walk_to(struct psyne_consumer *c, uint32_t lane) {
        if ((int32_t)lane != c->lane) {
                step_out(c);
                c->turn_bytes = 0;
                lane_rx_move(&c->rx, &c->lanes[lane]);
                if (!c->is_shared)
                        c->held_away -= c->rx.hot.held;
                c->lane = (int32_t)lane;
        }
        c->turn_over = false;
        if (!c->is_shared && !c->copies)
                lane_rx_limit(&c->rx, c->held_max - c->held_away);
}

/* After an eighth of a ring: the next receive looks at the others first. */
void walk_turn_over(struct psyne_consumer *c) {
        if (c->n_walk < 2)
                return;
        c->turn_over = true;
        c->rx.hot.held_max = 0;
}

/* A lane's records are all released: its index may be used again. */
static void close_lane(struct psyne_consumer *c, uint32_t lane) {
        CANCEL_HOLD;
        struct psyne_channel *ch = c->channel;
        uint64_t bit = 1ull << lane;
        const unsigned char *base = end_of(c, lane)->hot.base;

        if ((int32_t)lane == c->lane)
                walk_none(c);
        for (unsigned i = 0, n = c->n_walk; i < n; i++) /* it may stand in the list, until that is made anew */
                if (c->walk[i] == lane) {
                        memmove(&c->walk[i], &c->walk[i + 1], n - i - 1);
                        c->n_walk--;
                        break;
                }
        c->open &= ~bit;
        c->finished &= ~bit;
        c->done_with[lane] = c->generations[lane]; /* other groups may not be */
        membership_retire_lane(ch, lane, c->generations[lane], RETIRE_DRAINED);
        pthread_mutex_lock(&ch->lock);
        membership_drop_lane(ch, lane, base, false);
        membership_prune_lanes(ch);
        pthread_mutex_unlock(&ch->lock);
        if (c->gates)
                membership_changed(ch); /* for groups behind it may end now */
}

bool walk_group_is_done(struct psyne_consumer *c, uint32_t lane) {
        const struct layout_view *v = &c->channel->view;
        uint32_t state = __atomic_load_n(&v->lanes[lane].state, __ATOMIC_ACQUIRE);

        return __atomic_load_n(&v->lanes[lane].generation, __ATOMIC_ACQUIRE) == c->generations[lane] &&
                (state == LAYOUT_CLOSED || state == LAYOUT_DEAD) &&
                group_drained(v, c->group, lane, c->generations[lane], state == LAYOUT_DEAD);
}

/* The end of a lane whose producer is gone: all of it is taken. What is still held may be released at any time. */
static void finish_lane(struct psyne_consumer *c, uint32_t lane) {
        CANCEL_HOLD;
        struct lane_rx *x = end_of(c, lane);

        FAULT_POINT("consumer.lane.finished");
        group_finish(&c->channel->view, c->group, lane, c->generations[lane]);
        if (c->is_shared) {
                /* Others of the group may hold some of it, and die: it is over when all is released. */
                membership_retire_lane(c->channel, lane, c->generations[lane], RETIRE_DRAINED);
                if (!c->claimed_in[lane] && walk_group_is_done(c, lane)) { /* other groups may not be */
                        close_lane(c, lane);
                        c->stale = true;
                }
                return;
        }
        (void)lane_rx_publish(x);
        wake_producers(c);
        c->stale = true; /* younger ones may have waited for this one */
        if (!x->hot.held) {
                close_lane(c, lane);
                return;
        }
        if ((int32_t)lane == c->lane)
                step_out(c);
        c->finished |= 1ull << lane;
        if (c->gates)
                membership_changed(c->channel);
}

void walk_finish(struct psyne_consumer *c, uint32_t lane) {
        finish_lane(c, lane);
}

void walk_released(struct psyne_consumer *c, uint32_t lane) {
        struct lane_rx *x = &c->lanes[lane];

        if (lane_rx_publish(x))
                wake_producers(c);
        if (c->finished & (1ull << lane) && !x->hot.held)
                close_lane(c, lane);
}

static void walk_set_aside(struct psyne_consumer *c) {
        struct layout_lane *l = &c->channel->view.lanes[c->lane];
        uint32_t active = LAYOUT_ACTIVE, lane = (uint32_t)c->lane;

        c->done_with[lane] = c->generations[lane];
        __atomic_store_n(&c->shared->damaged, c->shared->damaged + 1, __ATOMIC_RELAXED);
        __atomic_compare_exchange_n(&l->state, &active, LAYOUT_DAMAGED, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
        step_out(c);
        c->finished |= 1ull << lane; /* never looked at again; what is held of it may be released */
        c->stale = true;
        wake_everyone(c->channel);
}

enum opened { LANE_OPEN, LANE_PENDING, LANE_GONE, LANE_DAMAGED };

/* Starts reading a lane that is there. One that is not mapped here yet is waited for. */
static enum opened open_lane(struct psyne_consumer *c, uint32_t lane, uint32_t state, uint32_t generation) {
        struct psyne_channel *ch = c->channel;
        const struct layout_view *v = &ch->view;
        struct lane_rx *x = &c->lanes[lane];
        int r;

        pthread_mutex_lock(&ch->lock);
        if (!ch->lanes[lane].segment.base || ch->lanes[lane].generation != generation) {
                struct layout_cursor *cursor = layout_cursor(v, c->group, lane);
                uint64_t tail = layout_lane_tail(&v->lanes[lane]), sent;

                pthread_mutex_unlock(&ch->lock);
                if (state == LAYOUT_ACTIVE)
                        return LANE_PENDING;
                /* Its producer left: either nothing is in it, or its ring reaches us from a process that has it, or
                 * it is gone with the last of those. */
                if (state == LAYOUT_DEAD || tail != group_position(v, c->group, lane, true)) {
                        if (!service_lane_lost(ch, lane, generation))
                                return LANE_PENDING;
                        sent = v->lanes[lane].tx.messages_sent - cursor->before;
                        if (c->is_shared && group_position(v, c->group, lane, true) != v->lanes[lane].start)
                                sent = 0; /* some of it was received, its members know how many */
                        if (c->copies)
                                behind_missed(c, lane, v->lanes[lane].tx.messages_sent);
                        else if (sent > cursor->exact.messages_received + cursor->lost)
                                __atomic_store_n(&cursor->lost, sent - cursor->exact.messages_received,
                                        __ATOMIC_RELAXED);
                        __atomic_store_n(&cursor->exact.taken, tail, __ATOMIC_RELAXED);
                        __atomic_store_n(&cursor->published, tail, __ATOMIC_RELAXED);
                        __atomic_store_n(&cursor->claim, shared_claim_word(tail, 0), __ATOMIC_RELEASE);
                        __atomic_store_n(&cursor->exact.released, tail, __ATOMIC_RELEASE);
                }
                c->done_with[lane] = generation;
                group_finish(v, c->group, lane, generation);
                membership_retire_lane(ch, lane, generation, RETIRE_DRAINED);
                return LANE_GONE;
        }
        r = 0;
        if (c->is_shared)
                share_open(c, x, lane, &ch->lanes[lane].segment);
        else if (c->copies) {
                behind_missed(c, lane, v->lanes[lane].start_messages); /* of the index's last lane */
                r = overrun_init(x, v, c->group, lane, ch->lanes[lane].segment.base, ch->lanes[lane].segment.bytes);
        } else
                r = lane_rx_init(x, v, c->group, lane, ch->lanes[lane].segment.base, ch->lanes[lane].segment.bytes,
                        c->held_max);
        if (r == 0 && c->in_place)
                r = segment_allow_writing(&ch->lanes[lane].segment);
        if (r == 0)
                ch->lanes[lane].readers++;
        pthread_mutex_unlock(&ch->lock);
        if (r < 0) {
                c->done_with[lane] = generation;
                __atomic_store_n(&c->shared->damaged, c->shared->damaged + 1, __ATOMIC_RELAXED);
                return LANE_DAMAGED;
        }
        x->hot.token = (uint64_t)(uintptr_t)c | lane; /* the same wherever the end lies */
        if (!c->is_shared && !c->copies && (c->in_place || c->follows >= 0))
                lane_rx_stage(x, v, c->follows);
        if (c->gates && !c->is_shared)
                x->hot.lazy = 0;
        c->generations[lane] = generation;
        c->open |= 1ull << lane;
        return LANE_OPEN;
}

/* An end whose lane is free or has a successor already: it was empty, and somebody else gave its index back. */
static void close_outlived(struct psyne_consumer *c) {
        for (uint64_t left = c->open; left; left &= left - 1) {
                uint32_t lane = (uint32_t)__builtin_ctzll(left);

                if ((__atomic_load_n(&c->channel->view.lanes[lane].generation, __ATOMIC_ACQUIRE) ==
                                    c->generations[lane] &&
                            __atomic_load_n(&c->channel->view.lanes[lane].state, __ATOMIC_ACQUIRE) != LAYOUT_FREE) ||
                        (c->is_shared ? c->claimed_in[lane] : end_of(c, lane)->hot.held))
                        continue;
                (void)lane_rx_publish(end_of(c, lane));
                close_lane(c, lane);
        }
}

int walk_refresh(struct psyne_consumer *c) {
        const struct layout_view *v = &c->channel->view;
        uint64_t generation = __atomic_load_n(&v->header->lanes_generation, __ATOMIC_ACQUIRE), oldest_ended;
        uint32_t states[LAYOUT_PRODUCERS_MAX], generations[LAYOUT_PRODUCERS_MAX];
        uint64_t there;
        bool again;

        if (generation == c->lanes_seen && !c->pending && !c->stale)
                return 0;
        CANCEL_HOLD;
        c->orphans = c->orphans || c->is_shared;
        c->lanes_seen = generation;
        stage_look(c, generation);
        close_outlived(c);
        do {
                again = c->pending = c->stale = false;
                c->n_walk = 0;
                c->ended = there = 0;
                oldest_ended = UINT64_MAX;
                for (uint32_t i = 0; i < v->n_lanes; i++) {
                        struct layout_lane *l = &v->lanes[i];

                        /* Before the state: whoever joins says JOINING first. */
                        if (__atomic_load_n(&l->order, __ATOMIC_ACQUIRE) > c->opened_at)
                                c->had_producer = true;
                        states[i] = __atomic_load_n(&l->state, __ATOMIC_ACQUIRE);
                        generations[i] = __atomic_load_n(&l->generation, __ATOMIC_ACQUIRE);
                        c->pending |= states[i] == LAYOUT_JOINING;
                        if (c->copies && states[i] == LAYOUT_FREE && !(c->open & (1ull << i)))
                                behind_missed(c, i, __atomic_load_n(&l->tx.messages_sent, __ATOMIC_RELAXED));
                        if ((states[i] != LAYOUT_ACTIVE && states[i] != LAYOUT_CLOSED && states[i] != LAYOUT_DEAD) ||
                                c->finished & (1ull << i) || c->done_with[i] == generations[i])
                                continue;
                        there |= 1ull << i;
                        /* In a shared group one that is all claimed does not keep the younger ones, only its index. */
                        if (states[i] != LAYOUT_ACTIVE && l->order < oldest_ended &&
                                !(c->is_shared && share_all_claimed(c, i)))
                                oldest_ended = l->order;
                }
                if (there)
                        c->had_producer = true;
                for (; there && !again; there &= there - 1) {
                        uint32_t i = (uint32_t)__builtin_ctzll(there);
                        enum opened o = LANE_OPEN;

                        if (v->lanes[i].order > oldest_ended) {
                                c->pending = true;
                                continue;
                        }
                        if (!(c->open & (1ull << i)))
                                o = open_lane(c, i, states[i], generations[i]);
                        if (o == LANE_DAMAGED) {
                                c->stale = true;
                                return error_set(-EBADMSG,
                                        "this group's place in a lane of %s is damaged; it was set aside",
                                        c->channel->uri);
                        }
                        again = o == LANE_GONE;
                        c->pending |= o == LANE_PENDING;
                        if (o != LANE_OPEN)
                                continue;
                        if (states[i] != LAYOUT_ACTIVE && stage_ended(c, i, generations[i], states[i] == LAYOUT_DEAD))
                                c->ended |= 1ull << i;
                        c->walk[c->n_walk++] = (uint8_t)i;
                }
        } while (again);
        if (c->lane >= 0 && c->finished & (1ull << c->lane))
                step_out(c);
        return 0;
}

/* Is something there, for the short way or the long one? */
static bool has_next(struct psyne_consumer *c, uint32_t lane) {
        if (c->is_shared)
                return share_ready(c, lane);
        if (c->copies)
                return overrun_ready(end_of(c, lane), &c->channel->view.lanes[lane]);
        return lane_rx_ready(end_of(c, lane));
}

/* Where in the walk the next look begins: with the lane we stand in, or behind it if its turn is over. */
static unsigned walk_first(const struct psyne_consumer *c) {
        for (unsigned i = 0; i < c->n_walk; i++)
                if (c->walk[i] == c->lane)
                        return c->turn_over ? i + 1 : i;
        return 0;
}

int walk_ready(struct psyne_consumer *c) {
        unsigned first = walk_first(c);

        if (c->copied.again)
                return c->n_walk ? c->walk[0] : 0;
        for (unsigned k = 0; k < c->n_walk; k++) {
                uint32_t lane = c->walk[(first + k) % c->n_walk];

                if (has_next(c, lane))
                        return (int)lane;
        }
        return -1;
}

#define ROUNDS_MAX 1024 /* a lane takes part in nine at most: its end, and an eighth of its ring at a time */

int walk_take(struct psyne_consumer *c, struct psyne_msg *ret) {
        unsigned rounds = 0;
        int r;

again:
        if (rounds++ == ROUNDS_MAX) /* nothing but padding, or somebody who never stops joining and leaving: later */
                return 0;
        r = walk_refresh(c);
        if (r < 0)
                return r;
        if (c->copied.again) {
                return behind_again(c, ret);
        }
        if (c->copies && behind_is_out(c))
                return -ECONNABORTED;
        if (c->orphans || c->adopted.any) {
                r = share_adopted(c, ret);
                if (r != 0)
                        return r;
        }
        for (unsigned k = 0, first = walk_first(c); k < c->n_walk; k++) {
                uint32_t lane = c->walk[(first + k) % c->n_walk];

                if (!has_next(c, lane) && !(c->ended & (1ull << lane)))
                        continue;
                walk_to(c, lane);
                r = c->is_shared ? share_take(c, ret) : c->copies ? behind_take(c, ret) : lane_rx_take(&c->rx, ret);
                if (r == 1 && c->in_place && !c->is_shared)
                        ret->opaque[2] |= STAGE_TOKEN;
                if (r == SHARE_TURN_OVER)
                        goto again;
                if (r == -EBADMSG)
                        walk_set_aside(c); /* a header that cannot be: nothing behind it can be believed */
                if (r != 0)
                        return r;
                if (c->ended & (1ull << lane)) { /* seen before this look: there is nothing more to come */
                        finish_lane(c, lane);
                        if (c->stale ||
                                c->lanes_seen != __atomic_load_n(&c->channel->view.header->lanes_generation, __ATOMIC_ACQUIRE))
                                goto again;
                }
        }
        return 0;
}

bool walk_publish(struct psyne_consumer *c) {
        bool moved = false;

        for (unsigned i = 0; i < c->n_walk; i++)
                moved |= lane_rx_publish(end_of(c, c->walk[i]));
        return moved;
}

void walk_leave(struct psyne_consumer *c) {
        struct psyne_channel *ch = c->channel;

        step_out(c);
        pthread_mutex_lock(&ch->lock);
        for (uint64_t left = c->open; left; left &= left - 1) {
                uint32_t lane = (uint32_t)__builtin_ctzll(left);

                (void)lane_rx_publish(&c->lanes[lane]);
                membership_drop_lane(ch, lane, c->lanes[lane].hot.base, false);
        }
        pthread_mutex_unlock(&ch->lock);
        wake_producers(c);
        c->open = 0;
        c->n_walk = 0;
}
