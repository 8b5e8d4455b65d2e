/*
 * Endpoints that sleep outside our calls: in an event loop, by a descriptor, or in an io_uring of the application's.
 *
 * Arming is the first half of a sleep (wake.c): the event word is read, the look finds nothing, the bit is set, the
 * barrier runs, the second look finds nothing. Then the thread goes away with the bit set, and a bell (uring/bell.h) or
 * the application's ring waits for the word. The first call that takes or claims something, or waits by itself, takes the
 * bit back; one that finds nothing leaves it, so a loop that looks once too often does not sleep through what comes next.
 *
 * While an endpoint is armed its inlined calls take the long way, which is how they come to know.
 */
#include "lib/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>

#include "uring/users-ring.h"

#define ROUNDS_MAX 8 /* looks, while joins and deaths keep raising the event word */

static struct psyne_consumer *consumer_of(struct psyne_endpoint *e) {
        return (struct psyne_consumer *)(void *)((char *)e - offsetof(struct psyne_consumer, endpoint));
}

static struct psyne_producer *producer_of(struct psyne_endpoint *e) {
        return (struct psyne_producer *)(void *)((char *)e - offsetof(struct psyne_producer, endpoint));
}

struct psyne_channel *endpoint_channel(const struct psyne_endpoint *e) {
        struct psyne_endpoint *x = (struct psyne_endpoint *)(uintptr_t)e;

        return e->is_producer ? producer_of(x)->channel : consumer_of(x)->channel;
}

void endpoint_row(struct psyne_endpoint *e, enum bells_side *side, uint32_t *index, uint32_t *generation) {
        *side = e->is_producer ? BELLS_LANE : BELLS_MEMBER;
        *index = e->is_producer ? producer_of(e)->tx.index : consumer_of(e)->index;
        *generation = e->is_producer ? producer_of(e)->tx.shared->generation : consumer_of(e)->shared->generation;
}

uint32_t *endpoint_event(struct psyne_endpoint *e) {
        return e->is_producer ? &producer_of(e)->tx.shared->event : &consumer_of(e)->shared->event;
}

uint32_t *endpoint_bell_word(struct psyne_endpoint *e) {
        return e->is_producer ? &producer_of(e)->tx.shared->bell : &consumer_of(e)->shared->bell;
}

static int enter(struct psyne_endpoint *e, const char *call) {
        uint32_t *busy;

        if (!e)
                return error_set(-EINVAL, "%s: no endpoint", call);
        busy = e->is_producer ? &producer_of(e)->busy : &consumer_of(e)->busy;
        if (endpoint_channel(e)->forked)
                return error_set(-EOWNERDEAD, "%s: this endpoint came through fork(); it belongs to the parent", call);
        if (__atomic_exchange_n(busy, 1, __ATOMIC_ACQUIRE))
                return error_set(-EBUSY, "%s: another thread is using this endpoint", call);
        return 0;
}

static void leave(struct psyne_endpoint *e) {
        __atomic_store_n(e->is_producer ? &producer_of(e)->busy : &consumer_of(e)->busy, 0, __ATOMIC_RELEASE);
}

/* ---- inside ------------------------------------------------------------------------------------------------------ */

enum ready endpoint_ready(struct psyne_endpoint *e) {
        return e->is_producer ? producer_ready(producer_of(e)) : consumer_ready(consumer_of(e));
}

/* The inlined calls take the long way from here on. */
static void go_long(struct psyne_endpoint *e) {
        if (e->is_producer)
                producer_of(e)->tx.hot.limit = producer_of(e)->tx.hot.head; /* the next look raises it */
        else if (!consumer_of(e)->is_shared && !consumer_of(e)->copies)
                consumer_of(e)->rx.hot.held_max = 0;
}

static void go_short(struct psyne_endpoint *e) {
        struct psyne_consumer *c = consumer_of(e);

        if (!e->is_producer && !c->is_shared && !c->copies && c->lane >= 0 && !c->turn_over)
                lane_rx_limit(&c->rx, c->held_max - c->held_away);
}

bool endpoint_lie_down(struct psyne_endpoint *e) {
        uint32_t event = __atomic_load_n(endpoint_event(e), __ATOMIC_ACQUIRE); /* before the look */

        if (endpoint_ready(e))
                return false;
        e->rest.event = event;
        if (e->is_producer)
                producer_lie_down(producer_of(e), producer_wanted(producer_of(e)), &e->rest);
        else
                consumer_lie_down(consumer_of(e), CLOCK_FOREVER, &e->rest);
        e->armed = true;
        go_long(e);
        return true;
}

bool endpoint_second_look(struct psyne_endpoint *e) {
        bool there = e->is_producer ? producer_ready(producer_of(e)) != READY_NOT : walk_ready(consumer_of(e)) >= 0;

        return there || __atomic_load_n(endpoint_event(e), __ATOMIC_ACQUIRE) != e->rest.event;
}

void endpoint_disarm(struct psyne_endpoint *e) {
        uint64_t *hits = e->is_producer ? &producer_of(e)->tx.shared->backstop_hits : &consumer_of(e)->shared->backstop_hits;

        if (!e->armed)
                return;
        e->armed = false;
        if (e->rest.backstop && __atomic_load_n(endpoint_event(e), __ATOMIC_ACQUIRE) == e->rest.event &&
                clock_ns() >= e->rest.until_ns && endpoint_second_look(e))
                __atomic_store_n(hits, *hits + 1, __ATOMIC_RELAXED); /* one writer */
        if (e->is_producer)
                producer_get_up(producer_of(e));
        else
                consumer_get_up(consumer_of(e));
        go_short(e);
}

void endpoint_give_up(struct psyne_endpoint *e) {
        struct psyne_consumer *c = consumer_of(e);
        bool told = e->armed && __atomic_load_n(endpoint_event(e), __ATOMIC_ACQUIRE) != e->rest.event;

        endpoint_disarm(e);
        if (told && !e->is_producer && c->is_shared) /* what it was woken for is the others' */
                wake_next(c);
}

void endpoint_nudge(struct psyne_endpoint *e) {
        __atomic_fetch_add(endpoint_event(e), 1, __ATOMIC_RELEASE);
        (void)park_wake(endpoint_event(e), INT32_MAX);
        if (e->bell)
                bell_ring(e->bell);
}

/* One that lingers may sleep by its bell. */
void endpoint_close(struct psyne_endpoint *e) {
        if (e->set)
                waitset_forget(e->set, e);
        endpoint_disarm(e); /* its bell stays */
}

/* 1 = ready, and not armed; 0 = armed. */
static int arm(struct psyne_endpoint *e) {
        for (unsigned i = 0; i < ROUNDS_MAX; i++) {
                if (!endpoint_lie_down(e))
                        break;
                wake_barrier_heavy(endpoint_channel(e));
                if (!endpoint_second_look(e))
                        return 0;
        }
        endpoint_disarm(e);
        return 1;
}

/* The descriptor's fact: who rings. */
static void tell(struct psyne_endpoint *e, uint32_t index) {
        struct psyne_channel *ch = endpoint_channel(e);
        bool by_hand = bell_handle(e->bell) >= 0, as_asked = by_hand == (ch->engine != PARK_URING);
        const char *why = "", *fix = "";

        if (by_hand)
                (void)park_probe(&why, &fix);
        layout_fact_set(&ch->view, e->is_producer ? LAYOUT_SCOPE_LANE : LAYOUT_SCOPE_MEMBER, index, "fd",
                ch->engine == PARK_URING ? "io_uring" : "eventfd", by_hand ? "eventfd" : "io_uring", as_asked ? "" : why,
                as_asked ? "" : fix);
}

/* A handle for whoever wakes: for this process, for all that are in the channel, and for those that come. */
static int hand_out(struct psyne_endpoint *e, struct bell *b) {
        struct psyne_channel *ch = endpoint_channel(e);
        enum bells_side side;
        uint32_t index, generation;
        int fd = fcntl(bell_handle(b), F_DUPFD_CLOEXEC, 3), r;

        if (fd < 0)
                return -errno;
        endpoint_row(e, &side, &index, &generation);
        pthread_mutex_lock(&ch->lock);
        r = bells_put(ch, side, index, generation, fd);
        if (r == 0)
                e->bell = b;
        pthread_mutex_unlock(&ch->lock);
        if (r < 0)
                return r;
        service_announce_bell(ch, e);
        __atomic_store_n(endpoint_bell_word(e), LAYOUT_BELL_ARMED, __ATOMIC_RELEASE); /* before its bit */
        return 0;
}

int endpoint_need_bell(struct psyne_endpoint *e) {
        struct bell *b = NULL;
        enum bells_side side;
        uint32_t index, generation;
        int r;

        if (e->bell)
                return 0;
        r = bell_new(&b, endpoint_event(e));
        if (r == 0 && bell_handle(b) >= 0)
                r = hand_out(e, b);
        else if (r == 0) {
                pthread_mutex_lock(&endpoint_channel(e)->lock);
                e->bell = b;
                pthread_mutex_unlock(&endpoint_channel(e)->lock);
        }
        if (r < 0) {
                if (!e->bell)
                        bell_free(b);
                return error_set(r, "a descriptor for an endpoint of %s: %s", endpoint_channel(e)->uri, strerror(-r));
        }
        endpoint_row(e, &side, &index, &generation);
        tell(e, index);
        return 0;
}

/* ---- the calls ---------------------------------------------------------------------------------------------------- */

/* [any thread] Changes how an endpoint waits, from its next wait on. -EINVAL. */
int psyne_set_wait(struct psyne_endpoint *e, enum psyne_wait wait) {
        if (!e || wait > PSYNE_WAIT_BLOCK)
                return error_set(-EINVAL, "psyne_set_wait: no endpoint or unknown strategy");
        __atomic_store_n(&e->wait, wait == PSYNE_WAIT_DEFAULT ? PSYNE_WAIT_HYBRID : wait, __ATOMIC_RELAXED);
        return 0;
}

/*
 * A descriptor for poll(), epoll and the like, the endpoint's until that is closed; the same at every call. Never read it
 * or write to it. It is readable, after psyne_arm(), while the endpoint is ready: while psyne_recv() or psyne_claim() with
 * PSYNE_NOWAIT would say anything but -EAGAIN. Now and then it is readable when there is nothing: arm it again.
 * -EMFILE, -ENOMEM, -EBUSY, -EOWNERDEAD, -EINVAL.
 */
int psyne_fd(struct psyne_endpoint *e) {
        CANCEL_HOLD;
        int r = enter(e, "psyne_fd");

        if (r < 0)
                return r;
        r = endpoint_need_bell(e);
        if (r == 0)
                r = bell_fd(e->bell);
        if (r < 0)
                error_default(r, "a descriptor for an endpoint of %s: %s", endpoint_channel(e)->uri, strerror(-r));
        leave(e);
        return r;
}

/*
 * Before going to sleep on psyne_fd(). 0: nothing is there, and the descriptor will be readable when something is.
 * 1: something is there already, and the descriptor is readable. A producer's "something" is room for a claim as long as
 * the last one that found none. What it arms lasts until the next call that takes or claims something.
 * -EMFILE, -ENOMEM, -EBUSY, -EOWNERDEAD, -EINVAL: not armed.
 */
int psyne_arm(struct psyne_endpoint *e) {
        CANCEL_HOLD;
        int r = enter(e, "psyne_arm");

        if (r < 0)
                return r;
        r = endpoint_need_bell(e);
        if (r == 0)
                r = arm(e);
        if (r == 1)
                bell_ring(e->bell);
        else if (r == 0) {
                r = bell_arm(e->bell, e->rest.event, e->rest.until_ns);
                if (r < 0) {
                        endpoint_disarm(e);
                        error_set(r, "arming an endpoint of %s: %s", endpoint_channel(e)->uri, strerror(-r));
                }
        }
        leave(e);
        return r;
}

/* Takes psyne_arm() back: nobody needs to wake this endpoint, and its descriptor is not readable. -EBUSY, -EOWNERDEAD,
 * -EINVAL. */
int psyne_disarm(struct psyne_endpoint *e) {
        CANCEL_HOLD;
        int r = enter(e, "psyne_disarm");

        if (r < 0)
                return r;
        endpoint_give_up(e);
        if (e->bell)
                bell_quiet(e->bell);
        leave(e);
        return 0;
}

/*
 * The same with an io_uring of the caller's: prepares *@sqe, whose user_data is the caller's to set, to submit and to wait
 * for; give its completion to psyne_complete(). 0: it completes when something is there. 1: something is there already, and
 * it completes at once. One at a time: -EALREADY if the last one has not been completed, it stands for this one, and *@sqe
 * completes at once and is not to be given back. Before the endpoint is closed the request must be complete or cancelled.
 * -ENOTSUP: built without liburing; -EMFILE, -ENOMEM, -EBUSY, -EOWNERDEAD, -EINVAL: *@sqe is as it was.
 */
int psyne_arm_sqe(struct psyne_endpoint *e, struct io_uring_sqe *sqe) {
        CANCEL_HOLD;
        int r;

        if (!sqe)
                return error_set(-EINVAL, "psyne_arm_sqe: no entry");
        r = enter(e, "psyne_arm_sqe");
        if (r < 0)
                return r;
        r = arm(e);
        if (e->in_flight && r == 0) {
                (void)users_ring_nothing(sqe);
                if (e->rest.must && e->bell)
                        (void)bell_arm(e->bell, e->rest.event, e->rest.until_ns);
                leave(e);
                return error_set(-EALREADY, "psyne_arm_sqe: the last request of this endpoint is not complete");
        }
        if (r == 1) {
                if (users_ring_nothing(sqe) < 0)
                        r = -ENOTSUP;
        } else if (e->rest.must || users_ring_wait(sqe, endpoint_event(e), e->rest.event) < 0) {
                /* Only the bell keeps a time, or only it can wait for a word here. */
                r = endpoint_need_bell(e);
                if (r == 0)
                        r = bell_arm(e->bell, e->rest.event, e->rest.until_ns);
                if (r == 0)
                        r = bell_fd(e->bell);
                if (r >= 0)
                        r = users_ring_poll(sqe, r) < 0 ? -ENOTSUP : 0;
        }
        if (r < 0) {
                endpoint_disarm(e);
                error_default(r, r == -ENOTSUP ? "psyne was built without liburing" : "arming an endpoint: %s", strerror(-r));
        } else
                e->in_flight++;
        leave(e);
        return r;
}

/*
 * What psyne_arm_sqe() prepared is complete. 1: receive, or claim; 0: nothing is there after all, arm again; -errno: what
 * the kernel said instead, above all -ECANCELED. Also -EBUSY, -EOWNERDEAD, -EINVAL.
 */
int psyne_complete(struct psyne_endpoint *e, const struct io_uring_cqe *cqe) {
        CANCEL_HOLD;
        int r;

        if (!cqe)
                return error_set(-EINVAL, "psyne_complete: no completion");
        r = enter(e, "psyne_complete");
        if (r < 0)
                return r;
        e->in_flight -= e->in_flight > 0;
        r = users_ring_result(cqe);
        if (r < 0 && r != -EAGAIN) { /* that one means: the word had changed already */
                endpoint_disarm(e);
                error_set(r, "waiting for an endpoint of %s: %s", endpoint_channel(e)->uri, strerror(-r));
        } else
                r = endpoint_ready(e) != READY_NOT;
        leave(e);
        return r;
}
