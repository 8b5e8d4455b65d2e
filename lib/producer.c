/*
 * The producer: one lane, its claims and commits beyond the fast path, and waiting for room.
 *
 * "Full" is never said on a cached or lazy position: the exact one is read first. While it waits awake, the producer
 * polls the lazy copy, which the reader updates every eighth of the ring, and looks at the exact one only every few
 * microseconds: each look takes the reader's line away from it.
 */
#include "lib/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shm/group.h"

#define LINGER_DEFAULT_NS 1000000000ll /* without progress */
#define EXACT_EVERY_NS 3000            /* between looks at the exact position while spinning; chosen by measurement */
#define BACKSTOP_NS 30000000000ll
#define FIRST_NAP_NS 500000            /* first sleep asks for an eighth of the ring, but not for longer than this */

static int producer_enter(struct psyne_producer *p) {
        if (p->channel->forked)
                return error_set(-EOWNERDEAD, "this producer came through fork(); it belongs to the parent");
        if (__atomic_exchange_n(&p->busy, 1, __ATOMIC_ACQUIRE))
                return error_set(-EBUSY, "another thread is using this producer");
        return 0;
}

static void producer_leave(struct psyne_producer *p) {
        __atomic_store_n(&p->busy, 0, __ATOMIC_RELEASE);
}

void producer_after_fork_child(struct psyne_producer *p) {
        if (p->endpoint.bell)
                bell_after_fork_child(p->endpoint.bell);
        /* No room for the inline claim, no claim that the inline commit could match. */
        p->tx.hot.limit = p->tx.hot.head;
        p->tx.hot.token = 1;
}

static void count(uint64_t *counter, uint64_t n) {
        __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED); /* one writer */
}

/* Publishes what was obtained for this lane's memory. */
static void lane_facts(struct psyne_channel *ch, uint32_t lane, const struct segment_wish *wish,
        const struct segment_report *report) {
        static const char *const tries[] = {"try", "try", "never", "require"};
        char asked[24], obtained[24];

        /* Nobody who left it open asked for large pages under a small ring. */
        if (wish->huge == PSYNE_TRY_DEFAULT && ch->view.config.ring_bytes < LAYOUT_RING_HUGE)
                layout_fact_set(&ch->view, LAYOUT_SCOPE_LANE, lane, "pages", "4K", "4K", "", "");
        else
                layout_fact_set(&ch->view, LAYOUT_SCOPE_LANE, lane, "pages", wish->huge == PSYNE_NEVER ? "4K" : "2M",
                        segment_pages_name(report->pages), report->pages_why, report->pages_fix);
        snprintf(asked, sizeof(asked), "node %d (%s)", report->node_wanted, tries[wish->numa & 3]);
        if (report->node < 0)
                snprintf(obtained, sizeof(obtained), "not known");
        else
                snprintf(obtained, sizeof(obtained), "node %d", report->node);
        layout_fact_set(&ch->view, LAYOUT_SCOPE_LANE, lane, "numa", asked, obtained, report->node_why,
                report->node_fix);
}

static int lane_prepare(struct psyne_channel *ch, uint32_t lane, struct psyne_producer *p) {
        const struct layout_view *v = &ch->view;
        struct layout_lane *l = &v->lanes[lane];
        const struct segment_wish wish = {
                .huge = ch->huge,
                .numa = ch->numa,
                .in_place = v->config.flags & LAYOUT_CHANNEL_IN_PLACE,
        };
        struct segment s = SEGMENT_NULL;
        struct segment_report report;
        struct segment_identity id;
        char name[96];
        uint64_t start;
        int r;

        snprintf(name, sizeof(name), "psyne:%s:%u", ch->name, lane);
        r = segment_new(&s, name, v->config.ring_bytes, &wish, &report);
        if (r < 0)
                return r;
        r = segment_identify(&s, &id);
        if (r < 0) {
                segment_deinit(&s);
                return r;
        }
        start = l->highest & ~(uint64_t)(v->config.record_align - 1);
        l->ring_bytes = v->config.ring_bytes;
        l->start = start;
        l->record_align = v->config.record_align;
        l->device = id.device;
        l->inode = id.inode;
        l->page_bytes = report.page_bytes;
        l->node = report.node;
        l->thread = (uint32_t)syscall(SYS_gettid);
        __atomic_store_n(&l->bell, 0, __ATOMIC_RELAXED);
        l->flags = 0;
        __atomic_store_n(&l->order, __atomic_add_fetch(&v->header->lanes_generation, 1, __ATOMIC_SEQ_CST),
                __ATOMIC_RELEASE); /* who sees it sees that the row is not free */
        lane_facts(ch, lane, &wish, &report);
        l->start_messages = l->tx.messages_sent;
        group_place_all(v, lane, start);
        lane_tx_init(&p->tx, v, lane, s.base, start);

        pthread_mutex_lock(&ch->lock);
        r = membership_map_lane(ch, lane, &s, l->generation, true);
        pthread_mutex_unlock(&ch->lock);
        if (r < 0)
                segment_deinit(&s);
        return r;
}

static int open_producer(struct psyne_channel *ch, const struct psyne_producer_opts *opts, bool of_link,
        struct psyne_producer **ret) {
        struct psyne_producer *p = NULL;
        uint32_t lane;
        void *memory = NULL;
        int prepared, r;

        if (!ch || !ret || (opts && opts->struct_size != sizeof(*opts)))
                return error_set(-EINVAL, "psyne_producer_open: channel, result or struct_size is missing");
        error_clear();
        r = channel_check(ch);
        if (r < 0)
                return r;
        if (channel_stop_state(ch))
                return error_set(-ESHUTDOWN, "%s is stopped", ch->uri);
        if (opts && (opts->wait > PSYNE_WAIT_BLOCK || opts->full > PSYNE_FULL_DROP))
                return error_set(-EINVAL, "psyne_producer_open: unknown wait strategy, or what to do when full");

        r = -posix_memalign(&memory, LANE_HANDLE_ALIGN, sizeof(*p));
        if (r < 0)
                return error_set(r, "no memory for a producer");
        p = memset(memory, 0, sizeof(*p));
        r = membership_take_lane(ch, &lane);
        if (r < 0) {
                free(p);
                return r;
        }
        FAULT_POINT("producer.joining");
        r = lane_prepare(ch, lane, p);
        if (r < 0) {
                __atomic_fetch_and(&ch->view.header->producers_active, ~(1ull << lane), __ATOMIC_SEQ_CST);
                __atomic_store_n(&ch->view.lanes[lane].state, LAYOUT_FREE, __ATOMIC_RELEASE);
                free(p);
                return error_default(r, "opening a producer: %s", strerror(-r));
        }
        prepared = park_prepare(); /* now: a wait allocates nothing */
        p->channel = of_link ? ch : channel_ref(ch);
        p->of_link = of_link;
        p->endpoint = (struct psyne_endpoint){
                .is_producer = true,
                .wait = opts && opts->wait ? opts->wait : ch->wait,
        };
        if (opts) {
                p->full = opts->full;
                p->on_full = opts->on_full;
                p->on_full_ctx = opts->on_full_ctx;
        }
        p->linger_ns = opts && opts->linger_ns ? opts->linger_ns : ch->linger_ns;
        pthread_mutex_lock(&ch->lock);
        p->tx.hot.fence = __atomic_load_n(&ch->fence, __ATOMIC_RELAXED);
        p->next = ch->producers;
        ch->producers = p;
        pthread_mutex_unlock(&ch->lock);
        endpoint_settle(&p->endpoint, prepared);

        /* Every live reader has the ring's descriptor before anything can be committed to it: what follows a death
         * of this process is then theirs to read. */
        service_announce_lane(ch, lane);
        FAULT_POINT("producer.announced");
        __atomic_store_n(&p->tx.shared->state, LAYOUT_ACTIVE, __ATOMIC_RELEASE);
        membership_changed_by_call(ch);
        FAULT_POINT("producer.active");
        *ret = p;
        return 0;
}

/*
 * Opens the channel's sending end for the calling thread: makes and places the lane's memory (the calling thread's
 * node is the producer's), hands it to every consumer there is, and returns without waiting for one. The handle
 * belongs to one thread at a time and keeps the channel alive.
 *
 * -EBUSY: the mode takes one producer and it lives; -EUSERS: table full; -ENOTSUP: huge or numa is `require` and
 * cannot be had; -ESHUTDOWN: stopped; -EINVAL; -ENOMEM.
 */
int psyne_producer_open(struct psyne_channel *ch, const struct psyne_producer_opts *opts, struct psyne_producer **ret) {
        CANCEL_HOLD;
        int r = ch ? link_takes(ch, true) : 0;

        return r < 0 ? r : open_producer(ch, opts, false, ret);
}

/* A session's. What its sender closed ends for its readers, too: it does not wait for them. */
int link_writer_open(struct psyne_channel *ch, struct psyne_producer **ret) {
        static const struct psyne_producer_opts opts = {.struct_size = sizeof(opts)};

        return open_producer(ch, &opts, true, ret);
}

static bool reader_gone(const struct psyne_producer *p) {
        const struct layout_view *v = &p->channel->view;
        uint64_t ever = 0;

        for (uint32_t g = 0; g < v->n_groups; g++)
                ever |= __atomic_load_n(&v->groups[g].ever, __ATOMIC_RELAXED);
        return ever && !membership_has_consumers(p->channel);
}

/* Is @wanted free by now? @exact as in lane_tx_refresh(). */
static bool is_free(struct psyne_producer *p, uint64_t wanted, bool exact) {
        lane_tx_refresh(&p->tx, exact);
        return (int64_t)(p->tx.free - wanted) >= 0;
}

/*
 * Groups that may be ejected and are in the way of @wanted: one that has not moved for its time, while we waited, is
 * ejected. True: one was. Else eject_at says when the next one will have to be.
 */
static bool eject_stalled(struct psyne_producer *p, uint64_t wanted) {
        const struct layout_view *v = &p->channel->view;
        uint64_t groups = __atomic_load_n(&v->header->groups_active, __ATOMIC_ACQUIRE);
        bool ejected = false;

        p->eject_at = CLOCK_FOREVER;
        for (; groups; groups &= groups - 1) {
                uint32_t g = (uint32_t)__builtin_ctzll(groups), generation;
                int64_t now, until;
                uint64_t at, patience;

                if (g >= v->n_groups || __atomic_load_n(&v->groups[g].policy, __ATOMIC_RELAXED) != PSYNE_BEHIND_EJECTED)
                        continue;
                at = group_position(v, g, p->tx.index, true);
                generation = __atomic_load_n(&v->groups[g].generation, __ATOMIC_ACQUIRE);
                if ((int64_t)(at - wanted) >= 0) {
                        p->stalled[g].since = 0;
                        continue;
                }
                now = clock_ns();
                if (!p->stalled[g].since || p->stalled[g].at != at || p->stalled[g].generation != generation) {
                        p->stalled[g].since = now;
                        p->stalled[g].at = at;
                        p->stalled[g].generation = generation;
                }
                patience = __atomic_load_n(&v->groups[g].eject_ns, __ATOMIC_RELAXED);
                if (patience > INT64_MAX / 2)
                        continue;
                until = p->stalled[g].since + (int64_t)patience;
                if (now >= until) {
                        p->stalled[g].since = 0;
                        group_eject(p->channel, g);
                        ejected = true;
                } else if (until < p->eject_at)
                        p->eject_at = until;
        }
        return ejected;
}

/* Polls until it may pay to sleep. 1 = free, 0 = spun long enough, or an event came. */
static int poll_for(struct psyne_producer *p, struct waiter *w, uint64_t wanted, uint32_t event) {
        int64_t exact_at = clock_ns() + EXACT_EVERY_NS;

        for (;;) {
                int64_t now;

                for (unsigned i = 0; i < 32; i++) {
                        if (is_free(p, wanted, false))
                                return 1;
                        cpu_pause();
                }
                if (__atomic_load_n(&p->tx.shared->event, __ATOMIC_ACQUIRE) != event)
                        return 0;
                now = clock_ns();
                if (now >= exact_at) {
                        if (is_free(p, wanted, true))
                                return 1;
                        exact_at = clock_ns() + EXACT_EVERY_NS;
                }
                if (now >= w->spin_until_ns || now >= w->deadline_ns || now >= p->eject_at)
                        return 0;
        }
}

static int spin_for(struct psyne_producer *p, struct waiter *w, uint64_t wanted, uint32_t event) {
        int r;

        process_spinning(1);
        r = poll_for(p, w, wanted, event);
        process_spinning(-1);
        return r;
}

/* The first half of I: to sleep for @ask. The barrier and the second look are the caller's. */
void producer_lie_down(struct psyne_producer *p, uint64_t ask, struct rest *rest) {
        struct layout_lane *l = p->tx.shared;
        int64_t now = clock_ns();

        rest->until_ns = now + BACKSTOP_NS;
        rest->must = p->eject_at < CLOCK_FOREVER && p->eject_at != 0;
        rest->backstop = true;
        if (rest->must && p->eject_at < rest->until_ns) {
                rest->until_ns = p->eject_at;
                rest->backstop = false;
        }
        endpoint_cap_rest(&p->endpoint, rest);
        __atomic_store_n(&l->wanted, ask, __ATOMIC_RELAXED);
        __atomic_store_n(&l->sleeping_since_ns, (uint64_t)now, __ATOMIC_RELAXED);
        __atomic_store_n(&l->sleep_generation, l->sleep_generation + 1, __ATOMIC_RELEASE);
        __atomic_fetch_or(&p->channel->view.header->waiters, 1ull << p->tx.index, __ATOMIC_SEQ_CST); /* I */
        FAULT_POINT("producer.asleep");
}

void producer_get_up(struct psyne_producer *p) {
        __atomic_fetch_and(&p->channel->view.header->waiters, ~(1ull << p->tx.index), __ATOMIC_SEQ_CST);
        __atomic_store_n(&p->tx.shared->sleeping_since_ns, 0, __ATOMIC_RELAXED);
}

/* 0 = look again, -EINTR. */
static int sleep_for(struct psyne_producer *p, struct waiter *w, uint64_t wanted, uint32_t event) {
        struct layout_lane *l = p->tx.shared;
        uint64_t ask = wanted;
        struct rest rest;
        int64_t nap = CLOCK_FOREVER;
        int r = 0;

        /* A reader that frees one record at a time should not wake us for each: ask for an eighth of the ring at
         * first, but only for a moment, because nobody promises that a reader frees so much without us. */
        if (w->polls++ == 0 && wanted != p->tx.hot.tail) {
                uint64_t eighth = wanted + (p->tx.hot.mask + 1) / 8;

                ask = (int64_t)(eighth - p->tx.hot.tail) > 0 ? p->tx.hot.tail : eighth;
                nap = clock_ns() + FIRST_NAP_NS;
        }
        if (w->deadline_ns < nap)
                nap = w->deadline_ns;
        producer_lie_down(p, ask, &rest);
        wake_barrier_heavy(p->channel);
        if (!is_free(p, wanted, true)) {
                r = endpoint_sleep(&p->endpoint, event, nap < rest.until_ns ? nap : rest.until_ns);
                if (r == -ETIME && rest.backstop && nap > rest.until_ns && is_free(p, wanted, true))
                        count(&l->backstop_hits, 1);
                else if (r == 0 && __atomic_load_n(&l->event, __ATOMIC_RELAXED) != event)
                        count(&l->wakes_received, 1);
        }
        producer_get_up(p);
        return r == -EINTR ? r : 0;
}

/* What has to be free for the claim that found no room last, or for the smallest there is. */
uint64_t producer_wanted(const struct psyne_producer *p) {
        uint64_t least = 2 * p->tx.hot.align;

        return p->tx.hot.head + (p->asked > least ? p->asked : least) - (p->tx.hot.mask + 1);
}

/* Would a claim of that size wait? */
enum ready producer_ready(struct psyne_producer *p) {
        uint64_t wanted = producer_wanted(p);

        if (channel_stop_state(p->channel))
                return READY_STOPPED;
        if (is_free(p, wanted, true) || (eject_stalled(p, wanted) && is_free(p, wanted, true)))
                return READY_GO;
        if (reader_gone(p) || __atomic_load_n(&p->tx.shared->state, __ATOMIC_ACQUIRE) == LAYOUT_DAMAGED)
                return is_free(p, wanted, true) ? READY_GO : READY_GONE;
        return READY_NOT;
}

/*
 * Waits until everything before @wanted is free, to @claim there or to have it all read. 0; -EAGAIN with a zero
 * timeout; -ETIME, -EINTR, -EPIPE (readers were here and are gone), -ESHUTDOWN.
 */
static int wait_free(struct psyne_producer *p, uint64_t wanted, int64_t timeout_ns, bool need_reader, bool claim) {
        struct layout_lane *l = p->tx.shared;
        struct waiter w;
        bool waiting = false;
        int r = 0;

        for (;;) {
                uint32_t event = __atomic_load_n(&l->event, __ATOMIC_ACQUIRE); /* before every look */
                uint32_t stop = channel_stop_state(p->channel);

                if (is_free(p, wanted, timeout_ns == PSYNE_NOWAIT) || (eject_stalled(p, wanted) && is_free(p, wanted, true)))
                        break;
                if (stop == 2 || (stop == 1 && claim))
                        r = error_set(-ESHUTDOWN, "%s is stopped", p->channel->uri);
                else if (need_reader && reader_gone(p))
                        r = is_free(p, wanted, true)
                                ? 0
                                : error_set(-EPIPE, "no reader is left on %s, and there is no room for more",
                                          p->channel->uri);
                else if (__atomic_load_n(&l->state, __ATOMIC_ACQUIRE) == LAYOUT_DAMAGED)
                        r = error_set(-EPIPE, "the reader set this lane aside as damaged");
                else if (timeout_ns == PSYNE_NOWAIT)
                        r = error_set(-EAGAIN, claim ? "no room" : "not all is read yet");
                if (r < 0 || timeout_ns == PSYNE_NOWAIT)
                        break;
                if (!waiting) {
                        waiting = true;
                        waiter_init(&w, &p->endpoint, timeout_ns);
                        count(&l->send_blocks, 1);
                }
                if (w.spin_until_ns > w.started_ns && spin_for(p, &w, wanted, event))
                        break;
                if (clock_ns() >= w.deadline_ns) {
                        r = is_free(p, wanted, true) ? 0 : error_set(-ETIME, "no room in time");
                        break;
                }
                if (w.wait == PSYNE_WAIT_SPIN || __atomic_load_n(&l->event, __ATOMIC_ACQUIRE) != event)
                        continue; /* a stop, a death, a join */
                r = sleep_for(p, &w, wanted, event);
                if (r < 0) {
                        error_set(r, "interrupted by a signal, nothing was taken");
                        break;
                }
                w.spin_until_ns = 0; /* it pays once per wait */
        }
        if (waiting)
                count(&l->send_blocked_ns, (uint64_t)(clock_ns() - w.started_ns));
        return r;
}

static int claim_locked(struct psyne_producer *p, size_t bytes, int64_t timeout_ns, struct psyne_msg *ret) {
        struct psyne_hot_tx *h = &p->tx.hot;
        enum psyne_full full;
        uint64_t need;
        int r;

        if (channel_stop_state(p->channel))
                return error_set(-ESHUTDOWN, "%s is stopped", p->channel->uri);
        if (bytes > h->bytes_max)
                return error_set(-EMSGSIZE, "%zu bytes can never fit, the largest message is %llu", bytes,
                        (unsigned long long)h->bytes_max);
        p->tx.need = p->asked = need = psyne_lane_stride(bytes, h->align) + h->align;
        lane_tx_refresh(&p->tx, false);
        if (psyne_lane_claim(h, bytes, ret))
                return 0;
        /* Claims of our own that are still open may be what is in the way: nobody else can free those. */
        if (h->head + need - h->tail > h->mask + 1)
                return error_set(-EAGAIN, "this producer's own open claims leave no room");
        if ((p->on_full || p->full > PSYNE_FULL_BLOCK) && is_free(p, h->head + need - (h->mask + 1), true) &&
                psyne_lane_claim(h, bytes, ret))
                return 0; /* what the reader published last said otherwise */
        count(&p->tx.shared->full_events, 1);
        if ((p->on_full || p->full > PSYNE_FULL_BLOCK) && eject_stalled(p, h->head + need - (h->mask + 1)) &&
                is_free(p, h->head + need - (h->mask + 1), true) && psyne_lane_claim(h, bytes, ret))
                return 0;
        full = p->on_full ? p->on_full(p->on_full_ctx) : p->full;
        p->drop = full == PSYNE_FULL_DROP;
        if (p->drop)
                count(&p->tx.shared->dropped, 1);
        if (full == PSYNE_FULL_FAIL || p->drop)
                return error_set(-EAGAIN, p->drop ? "no room, dropped" : "no room");
        r = wait_free(p, h->head + need - (h->mask + 1), timeout_ns, true, true);
        if (r < 0)
                return r;
        if (!psyne_lane_claim(h, bytes, ret))
                return error_set(-ESHUTDOWN, "%s is stopped", p->channel->uri);
        return 0;
}

int psyne_claim_slow(struct psyne_producer *p, size_t bytes, int64_t timeout_ns, struct psyne_msg *ret) {
        int r;

        if (!p || !ret)
                return error_set(-EINVAL, "psyne_claim: no producer or no message");
        error_clear();
        r = producer_enter(p);
        if (r < 0)
                return r;
        p->drop = false;
        if (timeout_ns != PSYNE_NOWAIT)
                endpoint_disarm(&p->endpoint);
        r = claim_locked(p, bytes, timeout_ns, ret);
        if (r != -EAGAIN)
                endpoint_disarm(&p->endpoint);
        if (r == 0)
                p->asked = 0;
        if (r == -EAGAIN && p->endpoint.armed && __atomic_load_n(&p->tx.shared->wanted, __ATOMIC_RELAXED) != producer_wanted(p))
                endpoint_nudge(&p->endpoint); /* it sleeps for another size than this one now */
        p->tx.need = 0;
        producer_leave(p);
        return r;
}

/*
 * Every PSYNE_PACE_MESSAGES commits: a stream, or a conversation? Slower than a message in 200 ns, or with answers
 * waited for in between by the same thread, it is a conversation, where each message's own time counts.
 */
void psyne_pace(struct psyne_producer *p) {
        const uint64_t slow = (uint64_t)(PSYNE_PACE_MESSAGES * 200 * CLOCK_TICKS_PER_NS);
        uint64_t now = clock_ticks(), answers = consumer_answers;
        bool stream = now - p->paced_ticks < slow && answers - p->paced_answers < PSYNE_PACE_MESSAGES / 4;

        p->paced_ticks = now;
        p->paced_answers = answers;
        p->tx.hot.ahead = stream ? LANE_AHEAD_STREAM : LANE_AHEAD_CONVERSATION;
}

/* F and the frontier, after the long forms of commit. */
static void committed(struct psyne_producer *p, uint64_t stride) {
#ifndef PSYNE_NO_WAKE_CHECK
        if (psyne_lane_sleepers(p->tx.hot.sleepers, p->tx.hot.fence))
                psyne_wake_consumers(p);
#endif
        if (p->tx.hot.head == p->tx.hot.tail)
                psyne_lane_extend(&p->tx.hot, stride);
}

int psyne_commit_slow(struct psyne_producer *p, struct psyne_msg *m) {
        uint64_t stride;
        int r;

        if (!p || !m)
                return error_set(-EINVAL, "psyne_commit: no producer or no message");
        r = producer_enter(p);
        if (r < 0)
                return r;
        stride = psyne_lane_stride(m->len, p->tx.hot.align);
        r = lane_tx_commit(&p->tx, m);
        if (r == 0)
                committed(p, stride);
        producer_leave(p);
        return r;
}

/* Gives a claim's space back: nothing was sent. -EINVAL: not an open claim of this producer; -ENOBUFS: too many aborted
 * claims wait for older ones that are still open. */
int psyne_abort(struct psyne_producer *p, struct psyne_msg *m) {
        int r;

        if (!p || !m)
                return error_set(-EINVAL, "psyne_abort: no producer or no message");
        r = producer_enter(p);
        if (r < 0)
                return r;
        r = lane_tx_abort(&p->tx, m);
        if (r == 0) {
                count(&p->tx.shared->aborted, 1);
                committed(p, p->tx.hot.align); /* padding may have been published */
                if (p->endpoint.armed) /* the room it sleeps for may be this */
                        endpoint_nudge(&p->endpoint);
        }
        producer_leave(p);
        return r;
}

/*
 * Sets a claim's length. Shrinking always works; the newest claim may also grow past its capacity while there is
 * room, contents kept. -ENOSPC: no room to grow now; -EMSGSIZE: never; -EINVAL: not an open claim.
 */
int psyne_resize(struct psyne_producer *p, struct psyne_msg *m, size_t bytes) {
        int r;

        if (!p || !m)
                return error_set(-EINVAL, "psyne_resize: no producer or no message");
        r = producer_enter(p);
        if (r < 0)
                return r;
        r = lane_tx_resize(&p->tx, m, bytes);
        if (r == 0 && p->endpoint.armed)
                endpoint_nudge(&p->endpoint);
        producer_leave(p);
        return r;
}

/* Commits @m and claims the next of the same length into it. On failure of the claim (-EAGAIN, -ETIME, ...) @m was
 * committed and is over. */
int psyne_commit_next(struct psyne_producer *p, struct psyne_msg *m, int64_t timeout_ns) {
        size_t bytes;
        int r;

        if (!p || !m)
                return error_set(-EINVAL, "psyne_commit_next: no producer or no message");
        bytes = m->len;
        r = psyne_commit_inline(p, m);
        if (r < 0)
                return r;
        return psyne_claim_inline(p, bytes, timeout_ns, m);
}

/*
 * Claims up to @n messages of @bytes each: as many as fit, waiting only while not even one does. Returns how many.
 * Errors as psyne_claim().
 */
int psyne_claim_n(struct psyne_producer *p, size_t bytes, unsigned n, int64_t timeout_ns, struct psyne_msg ret[]) {
        unsigned got;
        int r;

        if (!p || !ret || n == 0 || n > INT32_MAX)
                return error_set(-EINVAL, "psyne_claim_n: no producer, no messages or a count out of range");
        got = lane_tx_claim_n(&p->tx, bytes, n, ret);
        if (got)
                return (int)got;
        r = psyne_claim_slow(p, bytes, timeout_ns, &ret[0]);
        if (r < 0)
                return r;
        return 1 + (int)lane_tx_claim_n(&p->tx, bytes, n - 1, &ret[1]);
}

/* Commits the @n oldest open claims, given in claim order, with one release store and at most one wake per sleeper;
 * aborted ones between them are no claims any more. Returns @n; -EINVAL: nothing was committed. */
int psyne_commit_n(struct psyne_producer *p, struct psyne_msg m[], unsigned n) {
        int r;

        if (!p || (!m && n) || n > INT32_MAX)
                return error_set(-EINVAL, "psyne_commit_n: no producer, no messages or a count out of range");
        r = producer_enter(p);
        if (r < 0)
                return r;
        r = lane_tx_commit_n(&p->tx, m, n);
        if (r > 0)
                committed(p, p->tx.hot.align); /* a batch pays for its one successor at its commit */
        producer_leave(p);
        return r;
}

/* Claims, copies @bytes from @data, commits. Errors as psyne_claim(); @data stays the caller's. With PSYNE_FULL_DROP a
 * message for which there is no room is counted as dropped, and the call returns 0. -EINVAL while a claim is open. */
int psyne_send(struct psyne_producer *p, uint32_t type, const void *data, size_t bytes, int64_t timeout_ns) {
        const struct iovec v = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};

        return psyne_sendv(p, type, &v, 1, timeout_ns);
}

/* psyne_send() of several pieces, as one message. */
int psyne_sendv(struct psyne_producer *p, uint32_t type, const struct iovec *v, int n, int64_t timeout_ns) {
        struct psyne_msg m;
        size_t bytes = 0, at = 0;
        int r;

        if (!p || n < 0 || (n && !v))
                return error_set(-EINVAL, "psyne_sendv: no producer or no pieces");
        for (int i = 0; i < n; i++) {
                if (!v[i].iov_base && v[i].iov_len)
                        return error_set(-EINVAL, "psyne_sendv: piece %d is NULL", i);
                if (__builtin_add_overflow(bytes, v[i].iov_len, &bytes))
                        return error_set(-EMSGSIZE, "psyne_sendv: the pieces' lengths overflow");
        }
        if (p->tx.hot.head != p->tx.hot.tail && !p->channel->forked && !channel_stop_state(p->channel)) /* before it becomes a claim that nobody can commit */
                return error_set(-EINVAL, "messages commit in the order in which they were claimed: commit or abort "
                        "this producer's open claims before a send");
        r = psyne_claim_inline(p, bytes, timeout_ns, &m);
        if (r == -EAGAIN && p->drop)
                return 0; /* as if it had been sent, and counted */
        if (r < 0)
                return r;
        for (int i = 0; i < n; at += v[i].iov_len, i++)
                if (v[i].iov_len)
                        memcpy((char *)m.data + at, v[i].iov_base, v[i].iov_len);
        m.type = type;
        FAULT_POINT("send.copied");
        count(&p->tx.shared->copied_sends, 1);
        return psyne_commit_inline(p, &m);
}

/* Waits until every reader that can hold this producer back has released all it committed. -ETIME, or
 * -EAGAIN with a zero timeout; -EPIPE: readers were here and are gone; -EINTR; -ESHUTDOWN: stopped with PSYNE_ABORT. */
int psyne_flush(struct psyne_producer *p, int64_t timeout_ns) {
        int r;

        if (!p)
                return error_set(-EINVAL, "psyne_flush: no producer");
        r = producer_enter(p);
        if (r < 0)
                return r;
        endpoint_disarm(&p->endpoint); /* a wait of its own */
        r = is_free(p, p->tx.hot.tail, true) ? 0 : wait_free(p, p->tx.hot.tail, timeout_ns, true, false);
        producer_leave(p);
        return r;
}

/* Waits for readers as long as they move, or for one to come. */
static void linger(struct psyne_producer *p) {
        int64_t patience = p->linger_ns ? p->linger_ns : LINGER_DEFAULT_NS; /* negative: for ever */

        while (!is_free(p, p->tx.hot.tail, true)) {
                uint64_t before = p->tx.free; /* our own, which only rises: a reader's word may go to and fro */
                int r = wait_free(p, p->tx.hot.tail, patience, false, false);

                if (r == -ESHUTDOWN || r == -EPIPE) /* aborted, or set aside as damaged */
                        return;
                if (r == -ETIME && p->tx.free == before)
                        return;
        }
}

/*
 * Closes: open claims are aborted, then it lingers: with a reader for as long as that one moves, without one for a
 * second, or as psyne_producer_opts.linger_ns says. Returns how many committed messages nobody will ever read: 0 if a
 * live reader still has them in front of it. -EBUSY: another thread waits in it; the handle stays.
 */
int64_t psyne_producer_close(struct psyne_producer *p) {
        CANCEL_HOLD;
        struct psyne_channel *ch;
        struct layout_lane *l;
        uint32_t lane;
        uint64_t unread = 0;
        bool nobody, of_link;
        int r;

        if (!p)
                return 0;
        ch = p->channel;
        if (!ch->forked) {
                r = producer_enter(p);
                if (r < 0)
                        return r;
                lane = p->tx.index;
                l = p->tx.shared;
                endpoint_close(&p->endpoint);
                lane_tx_abort_all(&p->tx);
                if (!p->of_link)
                        linger(p);
                lane_tx_refresh(&p->tx, true);
                nobody = !membership_has_consumers(ch);
                if (nobody || __atomic_load_n(&l->state, __ATOMIC_ACQUIRE) == LAYOUT_DAMAGED)
                        unread = lane_tx_unread(&p->tx, lane_tx_free_position(&p->tx, true));
                for (uint32_t g = 0; nobody && g < ch->view.n_groups; g++) { /* those that skip are nobody's position */
                        const struct layout_cursor *c = layout_cursor(&ch->view, g, lane);
                        uint64_t left = p->tx.hot.messages - c->before - c->exact.messages_received - c->lost;

                        if (ch->view.header->groups_skipping & (1ull << g) && left > unread && (int64_t)left > 0)
                                unread = left;
                }

                pthread_mutex_lock(&ch->lock);
                for (struct psyne_producer **at = &ch->producers; *at; at = &(*at)->next)
                        if (*at == p) {
                                *at = p->next;
                                break;
                        }
                pthread_mutex_unlock(&ch->lock);

                FAULT_POINT("producer.closing");
                __atomic_fetch_and(&ch->view.header->producers_active, ~(1ull << lane), __ATOMIC_SEQ_CST);
                /* After the tail. A lane set aside as damaged has no reader that would give its index back. */
                __atomic_store_n(&l->state,
                        __atomic_load_n(&l->state, __ATOMIC_ACQUIRE) == LAYOUT_DAMAGED ? LAYOUT_FREE : LAYOUT_CLOSED,
                        __ATOMIC_RELEASE);
                FAULT_POINT("producer.closed");
                /* Nobody is owed anything: whoever reads it last gives the index back, or we do. */
                for (uint32_t g = 0; nobody && unread && g < ch->view.n_groups; g++) {
                        struct layout_cursor *c = layout_cursor(&ch->view, g, lane);

                        if (ch->view.header->groups_active & (1ull << g))
                                __atomic_store_n(&c->lost,
                                        c->lost + lane_tx_unread(&p->tx, group_position(&ch->view, g, lane, true)),
                                        __ATOMIC_RELAXED);
                }
                membership_retire_lane(ch, lane, l->generation, nobody && unread ? RETIRE_UNREAD : RETIRE_DRAINED);
                membership_changed_by_call(ch);
                pthread_mutex_lock(&ch->lock);
                membership_drop_lane(ch, lane, p->tx.hot.base, true);
                membership_prune_lanes(ch);
                pthread_mutex_unlock(&ch->lock);
        }
        bell_free(p->endpoint.bell);
        of_link = p->of_link;
        free(p);
        if (!of_link)
                channel_unref(ch);
        return (int64_t)unread;
}

struct psyne_endpoint *psyne_producer_endpoint(struct psyne_producer *p) {
        return p ? &p->endpoint : NULL;
}
