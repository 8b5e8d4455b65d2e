/*
 * The consumer: what it does when it finds nothing on its fast path. Which lanes it looks at, and in what order, is
 * walk.c's business.
 */
#include "lib/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm/group.h"

#define HELD_DEFAULT 16u
#define EJECT_DEFAULT_NS 1000000000ll
#define BACKSTOP_NS 30000000000ll /* a lone reader: it has one waker, whose death wakes it too */
#define BACKSTOP_SHARED_NS 1000000000ll /* the one wake may have gone to a member that is stopped; chosen by feel */
#define FENCE_NAP_NS 1000000ll    /* between looks until every peer knows that we cannot call membarrier */
#define RUN_BEFORE_BACKOFF 4u     /* messages taken in a row: a stream, not a conversation */
#define POLLS_FIRST 256u          /* before the clock is read: some microseconds */
#define REAPS_FIRST 16u         /* of what may be a small part of a long message each */
#define BACKOFF_MAX 128u          /* pauses: some microseconds, reached only by a stream that keeps filling them */

static int consumer_enter(struct psyne_consumer *c) {
        if (c->channel->forked)
                return error_set(-EOWNERDEAD, "this consumer came through fork(); it belongs to the parent");
        if (__atomic_exchange_n(&c->busy, 1, __ATOMIC_ACQUIRE))
                return error_set(-EBUSY, "another thread is using this consumer");
        return 0;
}

static void consumer_leave(struct psyne_consumer *c) {
        __atomic_store_n(&c->busy, 0, __ATOMIC_RELEASE);
}

void consumer_after_fork_child(struct psyne_consumer *c) {
        static const uint64_t no_waiters;

        if (c->endpoint.bell)
                bell_after_fork_child(c->endpoint.bell);
        walk_none(c);
        c->n_walk = 0; /* nothing to poll: the rings are out of reach */
        c->rx.hot.waiters = &no_waiters;
}

static void count(uint64_t *counter, uint64_t n) {
        __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED); /* one writer */
}

/* The group that is asked for, made if need be. */
static int consumer_group(struct psyne_channel *ch, const struct psyne_consumer_opts *opts, bool alone, uint32_t *ret) {
        const char *name = opts ? opts->group : NULL;
        struct group_wish wish;

        if (name && strnlen(name, LAYOUT_NAME_MAX + 1) > LAYOUT_NAME_MAX)
                return error_set(-ENAMETOOLONG, "a group's name has at most %u characters", LAYOUT_NAME_MAX);
        if (name && !uri_name_valid(name))
                return error_set(-EINVAL, "a group's name is made of A-Z a-z 0-9 . _ - and does not start with a dot");
        if (!name && !alone && ch->view.config.mode != PSYNE_BROADCAST)
                name = GROUP_DEFAULT;
        wish = (struct group_wish){
                .name = name,
                .shared = !alone && (ch->view.config.mode == PSYNE_SPMC || ch->view.config.mode == PSYNE_MPMC || (opts && opts->shared)),
                .follows = opts ? opts->follows : NULL,
                .in_place = opts && opts->in_place,
                .from_oldest = opts && opts->from_oldest,
                .behind = opts ? opts->behind : PSYNE_BEHIND_DEFAULT,
                .eject_ns = opts && opts->eject_ns ? opts->eject_ns : EJECT_DEFAULT_NS,
        };
        if (wish.behind > PSYNE_BEHIND_EJECTED || wish.eject_ns < 0)
                return error_set(-EINVAL, "psyne_consumer_open: behind is one of enum psyne_behind, eject_ns not negative");
        if (wish.in_place && !(ch->view.config.flags & LAYOUT_CHANNEL_IN_PLACE))
                return error_set(-ENOTSUP, "the rings of %s are sealed: in_place needs a channel made with inplace=1", ch->uri);
        if (wish.behind > PSYNE_BEHIND_BLOCKS && (wish.follows || wish.in_place))
                return error_set(-EINVAL, "a group that gets copies cannot follow another, or work in place");
        if (wish.shared && wish.behind > PSYNE_BEHIND_BLOCKS)
                return error_set(-EINVAL,
                        "a group that several consumers share holds messages in place: producers wait for it");
        return group_take(ch, &wish, ret);
}

/* @alone: as the only member of the group that @opts name, or of one without a name. */
static int open_consumer(struct psyne_channel *ch, const struct psyne_consumer_opts *opts, bool of_link, bool alone,
        struct psyne_consumer **ret) {
        struct psyne_consumer *c;
        uint32_t held_max = opts && opts->held_max ? opts->held_max : HELD_DEFAULT, group, index;
        void *memory = NULL;
        int r, prepared;

        if (!ch || !ret || (opts && opts->struct_size != sizeof(*opts)))
                return error_set(-EINVAL, "psyne_consumer_open: channel, result or struct_size is missing");
        error_clear();
        r = channel_check(ch);
        if (r < 0)
                return r;
        if (held_max > LANE_HELD_MAX || (opts && opts->prefetch > held_max) || (opts && opts->wait > PSYNE_WAIT_BLOCK))
                return error_set(-EINVAL, "psyne_consumer_open: held_max is at most %u, prefetch at most held_max, wait one of enum psyne_wait",
                        LANE_HELD_MAX);
        if (channel_stop_state(ch) == 2)
                return error_set(-ESHUTDOWN, "%s is stopped", ch->uri);

        r = -posix_memalign(&memory, LANE_HANDLE_ALIGN, sizeof(*c));
        if (r < 0)
                return error_set(r, "no memory for a consumer");
        c = memset(memory, 0, sizeof(*c));
        c->lanes = calloc(ch->view.n_lanes, sizeof(*c->lanes)); /* now: a receive allocates nothing */
        c->self.starts = calloc(LAYOUT_LOANS, sizeof(*c->self.starts));
        if (!c->lanes || !c->self.starts) {
                free(c->lanes);
                free(c->self.starts);
                free(c);
                return error_set(-ENOMEM, "no memory for a consumer");
        }
        prepared = park_prepare(); /* now: a wait allocates nothing */
        c->channel = ch;
        c->held_max = held_max;
        r = consumer_group(ch, opts, alone, &group);
        if (r == 0 && alone && ch->view.groups[group].kind == LAYOUT_GROUP_SHARED) {
                group_leave(ch, group, false);
                r = error_set(-EMEDIUMTYPE, "group \"%s\" of %s is shared, and a link reads alone", opts->group, ch->uri);
        } else if (r == 0) {
                if (group_copies(&ch->view, group))
                        r = behind_open(c);
                if (r == 0)
                        r = membership_take_member(ch, group, &index);
                if (r < 0)
                        group_leave(ch, group, false);
        }
        if (r < 0) {
                behind_close(c);
                free(c->lanes);
                free(c->self.starts);
                free(c);
                return error_default(r, "opening a consumer: %s", strerror(-r));
        }
        c->channel = of_link ? ch : channel_ref(ch);
        c->of_link = of_link;
        c->index = index;
        c->group = group;
        c->alone = process_cpus() < 2;
        c->shared = &ch->view.members[index];
        c->endpoint.wait = opts && opts->wait ? opts->wait : ch->wait;
        walk_none(c);
        c->opened_at = __atomic_load_n(&ch->view.header->lanes_generation, __ATOMIC_ACQUIRE);
        c->follows = group_front(&ch->view, group);
        c->in_place = opts && opts->in_place;
        c->is_shared = ch->view.groups[group].kind == LAYOUT_GROUP_SHARED;
        c->want = 1;
        c->prefetch = opts && opts->prefetch ? opts->prefetch : 1;
        if (c->copies)
                behind_begin(c);
        if (c->is_shared) {
                c->self.view = &ch->view;
                c->self.group = group;
                c->self.member = index;
                c->self.generation = c->shared->generation;
                c->orphans = true;
                shared_begin(&c->self);
        }

        stage_look(c, c->opened_at);
        c->shared->removed = 0;
        __atomic_store_n(&c->shared->bell, 0, __ATOMIC_RELAXED);
        c->shared->held_max = held_max;
        c->shared->thread = (uint32_t)syscall(SYS_gettid);
        c->shared->joined_ns = (uint64_t)clock_ns();
        c->shared->wait = (uint32_t)c->endpoint.wait;
        c->shared->prefetch = c->prefetch;
        pthread_mutex_lock(&ch->lock);
        c->rx.hot.fence = __atomic_load_n(&ch->fence, __ATOMIC_RELAXED); /* from here on the service's to change */
        c->next = ch->consumers;
        ch->consumers = c;
        pthread_mutex_unlock(&ch->lock);
        endpoint_settle(&c->endpoint, prepared);
        FAULT_POINT("consumer.joining");
        __atomic_store_n(&c->shared->state, LAYOUT_ACTIVE, __ATOMIC_RELEASE);
        __atomic_fetch_add(&ch->view.header->members_generation, 1, __ATOMIC_SEQ_CST);
        membership_changed_by_call(ch);
        FAULT_POINT("consumer.active");
        *ret = c;
        return 0;
}

/*
 * Opens the channel's receiving end for the calling thread. It starts where the group stands: what a predecessor
 * had taken and not released comes first, flagged PSYNE_MSG_REDELIVERED. Never waits for a producer. The handle
 * belongs to one thread at a time and keeps the channel alive.
 *
 * -EBUSY: the group takes one consumer and it lives (stopped is alive); -EUSERS; -ESHUTDOWN: stopped with
 * PSYNE_ABORT; -EINVAL: bad options, or it would read beside a group that works in place; -ENOENT: no group to follow;
 * -EMEDIUMTYPE: the group is another kind; -ECONNABORTED: it was ejected and its consumer has not closed; -ENOTSUP: in place
 * on sealed rings; -ENAMETOOLONG; -ENOMEM; -EOWNERDEAD.
 */
int psyne_consumer_open(struct psyne_channel *ch, const struct psyne_consumer_opts *opts, struct psyne_consumer **ret) {
        CANCEL_HOLD;
        int r = ch ? link_takes(ch, false) : 0;

        return r < 0 ? r : open_consumer(ch, opts, false, false, ret);
}

/* The link's own, at the end that sends. */
int link_reader_open(struct psyne_channel *ch, const char *group, struct psyne_consumer **ret) {
        struct psyne_consumer_opts opts = {.struct_size = sizeof(opts), .group = group && group[0] ? group : NULL};

        return open_consumer(ch, &opts, true, group != NULL, ret);
}

static int look(struct psyne_consumer *c, struct psyne_msg *ret) {
        struct psyne_channel *ch = c->channel;
        uint32_t stop = channel_stop_state(ch); /* before the look: what came before the stop is found */
        int r = walk_take(c, ret);

        if (r == 1) {
                if (ret->flags & PSYNE_MSG_REDELIVERED)
                        count(&c->shared->redelivered, 1);
                return 0;
        }
        if (r < 0)
                return r;

        /* Idle: bring what producers poll up to date, or one that needs all the room would never see it. */
        if (walk_publish(c))
                wake_producers(c);
        if (stop == 2 || (stop && !c->pending && stage_has_all(c))) /* draining includes what is still on its way */
                return error_set(-ESHUTDOWN, "%s is stopped", ch->uri);
        if (!c->n_walk && !c->pending && c->had_producer)
                return error_set(-EPIPE, "no producer is left on %s, and all it sent was received", ch->uri);
        return -EAGAIN;
}

/* One full look. 0 = *ret is a message; -EAGAIN nothing; -EPIPE, -ESHUTDOWN, -EBADMSG, -ENOBUFS, -ECONNABORTED. What was
 * missed and not told yet comes with the next message, or with the end. */
static int consumer_look(struct psyne_consumer *c, struct psyne_msg *ret) {
        int r = look(c, ret);

        if (!c->copies || r == 0 || r == -EAGAIN || r == -ENOBUFS)
                return r;
        return r == -ECONNABORTED ? behind_ejected(c, ret) : behind_told(c, ret, r);
}

/* Polls. 0 = *ret is a message, -EAGAIN = an event came, or it no longer pays. */
static int poll_for_one(struct psyne_consumer *c, struct waiter *w, uint32_t event, struct psyne_msg *ret) {
        uint32_t polls = 0;

        for (;;) {
                if (c->n_walk == 1 && psyne_lane_recv(&c->rx.hot, ret))
                        return 0;
                if (walk_ready(c) >= 0)
                        return -EAGAIN; /* in another lane; or for the long way: padding, a flag, nonsense */
                if (c->reaps)
                        (void)link_reap(c->channel);
                else
                        cpu_pause();
                polls += c->reaps ? 64 : 1; /* behind so dear a look the event and the clock have their turn each time */
                if (polls % 16 == 0 && __atomic_load_n(&c->shared->event, __ATOMIC_ACQUIRE) != event)
                        return -EAGAIN;
                if (polls % 64 == 0 && (w->deadline_ns != CLOCK_FOREVER || w->spin_until_ns != CLOCK_FOREVER)) {
                        int64_t now = clock_ns();

                        if (now >= w->spin_until_ns || now >= w->deadline_ns)
                                return -EAGAIN;
                }
        }
}

/* Without taking anything: 0 = a receive would wait. */
enum ready consumer_ready(struct psyne_consumer *c) {
        struct psyne_msg m;
        int r;

        if (c->of_link) { /* it takes in another way, and padding with it */
                if (walk_refresh(c) == 0 && walk_ready(c) >= 0)
                        return READY_GO;
                return channel_stop_state(c->channel) == 2 ? READY_STOPPED : READY_NOT;
        }
        if (c->told_later)
                return READY_GO;
        /* In a shared group what is taken is taken from the others: only who comes for it may do so. */
        if (c->is_shared) {
                r = walk_refresh(c);
                if (r == 0 && walk_ready(c) >= 0)
                        return READY_GO;
                if (r < 0)
                        c->told_later = r;
        }
        r = c->told_later ? 0 : consumer_look(c, &m);
        switch (r) {
        case 0:
                if (!c->told_later)
                        consumer_untake(c, &m);
                return READY_GO;
        case -EAGAIN:
                return READY_NOT;
        case -ESHUTDOWN:
                return READY_STOPPED;
        case -EPIPE:
                return READY_GONE;
        case -EBADMSG:
                c->told_later = r; /* the lane was set aside: nothing says it a second time */
                return READY_GO;
        default:
                return READY_GO;
        }
}

static int spin_recv(struct psyne_consumer *c, struct waiter *w, uint32_t event, struct psyne_msg *ret) {
        int r;

        process_spinning(1);
        r = poll_for_one(c, w, event, ret);
        process_spinning(-1);
        return r;
}

/* The first half of G: to sleep until @deadline_ns at most. The barrier and the second look are the caller's. */
void consumer_lie_down(struct psyne_consumer *c, int64_t deadline_ns, struct rest *rest) {
        struct layout_member *m = c->shared;
        int64_t now = clock_ns();

        if (c->channel->inlined && !c->of_link)
                link_reap_no_more(c->channel);

        rest->until_ns = now + (c->is_shared ? BACKSTOP_SHARED_NS : BACKSTOP_NS);
        rest->must = c->is_shared;
        rest->backstop = rest->until_ns < deadline_ns;
        if (!rest->backstop)
                rest->until_ns = deadline_ns;
        /* We fence because we may not call membarrier; a producer that has not heard of it yet does not. And who is in
         * front of our group may not know yet. */
        if (((!process_has_membarrier() && service_handshaking(c->channel)) || (c->follows >= 0 && !stage_is_heard(c))) &&
                now + FENCE_NAP_NS < rest->until_ns) {
                rest->until_ns = now + FENCE_NAP_NS;
                rest->must = true;
                rest->backstop = false;
        }
        endpoint_cap_rest(&c->endpoint, rest);
        __atomic_store_n(&m->sleeping_since_ns, (uint64_t)now, __ATOMIC_RELAXED);
        __atomic_store_n(&m->sleep_generation, m->sleep_generation + 1, __ATOMIC_RELEASE);
        __atomic_fetch_or(&c->channel->view.header->sleepers, 1ull << c->index, __ATOMIC_SEQ_CST); /* G */
        FAULT_POINT("consumer.asleep");
}

void consumer_get_up(struct psyne_consumer *c) {
        __atomic_fetch_and(&c->channel->view.header->sleepers, ~(1ull << c->index), __ATOMIC_SEQ_CST);
        __atomic_store_n(&c->shared->sleeping_since_ns, 0, __ATOMIC_RELAXED);
}

/* 0 = look again; 1 = look again, and if there is something, no wake told us; -EINTR. */
static int sleep_recv(struct psyne_consumer *c, struct waiter *w, uint32_t event) {
        struct layout_member *m = c->shared;
        struct rest rest;
        int r = 0;

        consumer_lie_down(c, w->deadline_ns, &rest);
        wake_barrier_heavy(c->channel);
        if (walk_ready(c) < 0) { /* a lane that joined since has raised the event word */
                r = endpoint_sleep(&c->endpoint, event, rest.until_ns);
                if (r == 0 && __atomic_load_n(&m->event, __ATOMIC_RELAXED) != event)
                        count(&m->wakes_received, 1);
        }
        consumer_get_up(c);
        if (r == -ETIME)
                return rest.backstop && __atomic_load_n(&m->event, __ATOMIC_ACQUIRE) == event;
        return r == -EINTR ? r : 0;
}

static int recv_locked(struct psyne_consumer *c, struct psyne_msg *ret, int64_t timeout_ns) {
        struct waiter w;
        bool waiting = false, backstop = false;
        int r;

        for (;;) {
                uint32_t event = __atomic_load_n(&c->shared->event, __ATOMIC_ACQUIRE); /* before every look */

                r = consumer_look(c, ret);
                if (r == 0 && backstop)
                        count(&c->shared->backstop_hits, 1);
                if (r != -EAGAIN || timeout_ns == PSYNE_NOWAIT)
                        break;
                backstop = false;
                if (!waiting) {
                        waiting = true;
                        waiter_init(&w, &c->endpoint, timeout_ns);
                        c->alone = w.wait == PSYNE_WAIT_HYBRID && !w.spin_until_ns;
                        count(&c->shared->receive_blocks, 1);
                }
                if (w.spin_until_ns > w.started_ns && spin_recv(c, &w, event, ret) == 0) {
                        r = 0;
                        break;
                }
                if (clock_ns() >= w.deadline_ns) {
                        r = consumer_look(c, ret);
                        if (r == -EAGAIN)
                                r = error_set(-ETIME, "no message in time");
                        break;
                }
                if (w.wait == PSYNE_WAIT_SPIN || __atomic_load_n(&c->shared->event, __ATOMIC_ACQUIRE) != event)
                        continue;
                r = sleep_recv(c, &w, event);
                if (r < 0) {
                        error_set(r, "interrupted by a signal, nothing was taken");
                        break;
                }
                backstop = r == 1;
                w.spin_until_ns = 0; /* it pays once per wait */
        }
        if (waiting)
                count(&c->shared->receive_blocked_ns, (uint64_t)(clock_ns() - w.started_ns));
        return r;
}

__thread uint64_t consumer_answers __attribute__((tls_model("initial-exec")));

/* The same where there are several lanes to look at. */
static bool poll_lanes(struct psyne_consumer *c, struct psyne_msg *ret) {
        for (unsigned i = 0; i < POLLS_FIRST && c->n_walk; i++) {
                int lane = walk_ready(c);

                if (lane >= 0) {
                        consumer_answers++;
                        walk_to(c, (uint32_t)lane);
                        return psyne_lane_recv(&c->rx.hot, ret);
                }
                cpu_pause();
        }
        return false;
}

/*
 * The answer in a conversation comes within a few hundred nanoseconds: poll for it before anything else is looked
 * at, counted or timed. A stream is different: a reader that runs right behind its producer takes a line from it for
 * every message, so let the producer get ahead, and take whole runs for the price of one.
 */
static bool poll_recv(struct psyne_consumer *c, struct psyne_msg *ret) {
        uint64_t received, run;

        if (c->n_walk != 1 || c->turn_over || c->is_shared || c->copies || c->rx.stage)
                return poll_lanes(c, ret);
        received = c->rx.hot.messages + c->rx.hot.held;
        run = received - c->received_before;
        c->received_before = received;
        if (run < RUN_BEFORE_BACKOFF + c->backoff / 32)
                c->backoff /= 2;
        else if (c->backoff < BACKOFF_MAX)
                c->backoff = 2 * c->backoff + 4;
        for (unsigned i = 0; i < c->backoff; i++)
                cpu_pause();
        for (unsigned i = 0; i < POLLS_FIRST; i++) {
                if (psyne_lane_recv(&c->rx.hot, ret)) {
                        consumer_answers++;
                        return true;
                }
                cpu_pause();
        }
        return false;
}

/* Nothing was in the ring: what has come to the sockets? */
static bool look_and_reap(struct psyne_consumer *c, struct psyne_msg *ret) {
        const bool plain = c->n_walk == 1 && !c->turn_over && !c->is_shared && !c->copies && !c->rx.stage;

        const uint32_t event = __atomic_load_n(&c->shared->event, __ATOMIC_ACQUIRE);

        for (unsigned i = 0; i < REAPS_FIRST && link_reap(c->channel); i++)
                if (plain && psyne_lane_recv(&c->rx.hot, ret))
                        return true;
                else if (walk_ready(c) >= 0 || __atomic_load_n(&c->shared->event, __ATOMIC_ACQUIRE) != event)
                        break; /* for the long way */
        return false;
}

/* The first receive after a sleep elsewhere. One that finds nothing and does not wait leaves everything as it is. */
static int recv_armed(struct psyne_consumer *c, struct psyne_msg *ret, int64_t timeout_ns) {
        int r;

        r = consumer_enter(c);
        if (r < 0)
                return r;
        if (timeout_ns != PSYNE_NOWAIT)
                endpoint_disarm(&c->endpoint);
        if (c->told_later) {
                r = error_set(c->told_later, "a lane of %s was damaged, and set aside", c->channel->uri);
                c->told_later = 0;
        } else
                r = recv_locked(c, ret, timeout_ns);
        if (r != -EAGAIN)
                endpoint_disarm(&c->endpoint);
        consumer_leave(c);
        return r == -EAGAIN ? error_set(r, "nothing there") : r;
}

int psyne_recv_slow(struct psyne_consumer *c, struct psyne_msg *ret, int64_t timeout_ns) {
        uint32_t wait;
        int r;

        if (!c || !ret)
                return error_set(-EINVAL, "psyne_recv: no consumer or no message");
        wait = __atomic_load_n(&c->endpoint.wait, __ATOMIC_RELAXED);
        c->reaps = c->channel->inlined && !c->channel->forked && !c->endpoint.set && (wait == PSYNE_WAIT_SPIN || timeout_ns != PSYNE_NOWAIT);
        if (c->endpoint.armed || c->told_later)
                return recv_armed(c, ret, timeout_ns);
        if (c->is_shared && share_take_quick(c, ret))
                return 0;
        if (c->reaps && look_and_reap(c, ret))
                return 0;
        if (timeout_ns != PSYNE_NOWAIT && !c->reaps && (wait == PSYNE_WAIT_SPIN || (wait == PSYNE_WAIT_HYBRID && !c->alone)) &&
                poll_recv(c, ret))
                return 0;
        error_clear();
        r = consumer_enter(c);
        if (r < 0)
                return r;
        r = recv_locked(c, ret, timeout_ns);
        consumer_leave(c);
        if (r == -EAGAIN)
                error_set(r, "nothing there");
        return r;
}

int psyne_release_slow(struct psyne_consumer *c, struct psyne_msg *m) {
        struct lane_rx *x;
        uint32_t lane;
        int r;

        if (!c || !m)
                return error_set(-EINVAL, "psyne_release: no consumer or no message");
        if (c->is_shared && share_release_quick(c, m))
                return 0;
        r = consumer_enter(c);
        if (r < 0)
                return r;
        if (c->in_place && !c->is_shared)
                m->opaque[2] &= ~(uint64_t)STAGE_TOKEN;
        lane = (uint32_t)(m->opaque[2] & (LANE_HANDLE_ALIGN - 1));
        x = walk_end(c, lane);
        r = 0;
        if (c->in_place && !c->is_shared && x && lane_rx_holds(x, m))
                r = stage_write(c, x, m, m->flags & STAGE_REMOVE);
        if (r < 0) {
                m->opaque[2] |= STAGE_TOKEN;
        } else if (c->is_shared) {
                r = share_release_n(c, m, 1);
                r = r < 0 ? r : 0;
        } else if (c->copies) {
                r = behind_release(c, m);
        } else if (x && x != &c->rx) {
                r = lane_rx_release(x, m);
                if (r == 0) {
                        c->held_away--;
                        walk_released(c, lane);
                }
        } else {
                r = lane_rx_release(&c->rx, m);
                if (r == 0 && (c->gates || c->rx.hot.released - c->rx.hot.published >= c->rx.hot.lazy ||
                                      psyne_lane_sleepers(c->rx.hot.waiters, c->rx.hot.fence)))
                        psyne_publish_released(c);
        }
        consumer_leave(c);
        return r;
}

/*
 * Takes up to @n messages that are there, waiting only while there is none. Returns how many, at least 1; errors as
 * psyne_recv(). All must be released, in any order.
 */
int psyne_recv_n(struct psyne_consumer *c, struct psyne_msg ret[], unsigned n, int64_t timeout_ns) {
        unsigned got;
        int r;

        if (!c || !ret || n == 0 || n > INT32_MAX)
                return error_set(-EINVAL, "psyne_recv_n: no consumer, no messages or a count out of range");
        got = lane_rx_take_n(&c->rx, ret, n);
        if (got)
                return (int)got;
        c->want = n < LAYOUT_LOANS ? n : LAYOUT_LOANS;
        r = psyne_recv_slow(c, &ret[0], timeout_ns);
        c->want = 1;
        if (r < 0)
                return r;
        for (got = 1; (c->copies || c->rx.stage) && got < n && walk_take(c, &ret[got]) == 1;)
                got++;
        return (int)got + (int)lane_rx_take_n(&c->rx, &ret[got], n - got);
}

/* Releases @n messages; those given in the order of their receipt cost one store together. Returns how many were
 * released; -EINVAL: the first is not held by this consumer. */
int psyne_release_n(struct psyne_consumer *c, struct psyne_msg m[], unsigned n) {
        unsigned i = 0;
        int r;

        if (!c || (!m && n) || n > INT32_MAX)
                return error_set(-EINVAL, "psyne_release_n: no consumer, no messages or a count out of range");
        if (c->is_shared && n) {
                r = consumer_enter(c);
                if (r < 0)
                        return r;
                r = share_release_n(c, m, n);
                consumer_leave(c);
                return r;
        }
        if (n && m[0].opaque[2] == c->rx.hot.token && !c->channel->forked) {
                r = lane_rx_release_n(&c->rx, m, n);
                if (r > 0)
                        i = (unsigned)r;
                if (c->rx.hot.released - c->rx.hot.published >= c->rx.hot.lazy ||
                        psyne_lane_sleepers(c->rx.hot.waiters, c->rx.hot.fence))
                        psyne_publish_released(c);
        }
        for (; i < n; i++) {
                r = psyne_release_slow(c, &m[i]);
                if (r < 0)
                        return i ? (int)i : r;
        }
        return (int)n;
}

void consumer_untake(struct psyne_consumer *c, const struct psyne_msg *m) {
        if (c->is_shared)
                share_untake(c, m);
        else if (c->copies)
                behind_untake(c, m);
        else
                lane_rx_untake(&c->rx, m);
}

/*
 * Receives one message into the caller's memory and releases it: for a producer that is not trusted to leave a
 * message alone while it is read. Returns its length in bytes. -EMSGSIZE: it is longer than @cap; it was not consumed.
 */
int psyne_recv_copy(struct psyne_consumer *c, void *buf, size_t cap, uint32_t *type, int64_t timeout_ns) {
        struct psyne_msg m;
        int r;

        if (!c || (!buf && cap))
                return error_set(-EINVAL, "psyne_recv_copy: no consumer or no memory");
        r = psyne_recv_inline(c, &m, timeout_ns);
        if (r < 0)
                return r;
        if (m.len > cap || m.len > INT32_MAX) {
                consumer_untake(c, &m);
                return error_set(-EMSGSIZE, "the message has %zu bytes, the memory given %zu", m.len, cap);
        }
        if (m.len)
                memcpy(buf, m.data, m.len);
        if (type)
                *type = m.type;
        r = (int)m.len;
        if (c->copies && m.lost)
                behind_untell(c, m.lost); /* there is no place for it here: the next receive says it */
        count(&c->shared->copied, 1);
        (void)psyne_release_inline(c, &m);
        return r;
}

/* Closes. What is still held goes back to the group: the next consumer gets it again, flagged. -EBUSY: another thread
 * waits in it; the handle stays. */
int psyne_consumer_close(struct psyne_consumer *c) {
        CANCEL_HOLD;
        struct psyne_channel *ch;
        bool of_link;
        int r;

        if (!c)
                return 0;
        ch = c->channel;
        if (!ch->forked) {
                r = consumer_enter(c);
                if (r < 0)
                        return r;
                pthread_mutex_lock(&ch->lock);
                for (struct psyne_consumer **at = &ch->consumers; *at; at = &(*at)->next)
                        if (*at == c) {
                                *at = c->next;
                                break;
                        }
                pthread_mutex_unlock(&ch->lock);
                endpoint_close(&c->endpoint);
                walk_leave(c);
                if (c->copies)
                        behind_end(c);
                FAULT_POINT("consumer.closing");
                membership_leave_member(ch, c->index, c->group);
                __atomic_fetch_add(&ch->view.header->members_generation, 1, __ATOMIC_SEQ_CST);
                membership_changed_by_call(ch);
        }
        bell_free(c->endpoint.bell);
        behind_close(c);
        free(c->self.starts);
        free(c->lanes);
        of_link = c->of_link;
        free(c);
        if (!of_link)
                channel_unref(ch);
        return 0;
}

struct psyne_endpoint *psyne_consumer_endpoint(struct psyne_consumer *c) {
        return c ? &c->endpoint : NULL;
}
