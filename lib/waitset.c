/*
 * Many endpoints, descriptors and timers, one sleeper.
 *
 * A wait looks at everything, beginning each time with another endpoint; if nothing is there, the endpoints that are not
 * asleep lie down (arm.c), with one barrier for all of them, and the thread sleeps in its watch: one io_uring_enter() that
 * waits for the endpoints' words and for an epoll of the descriptors. Who stays asleep stays armed over the next waits:
 * only those that were served have to be armed again. Where io_uring cannot wait for words, bells ring for them.
 */
#include "lib/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uring/watch.h"

#define LOOKS_BEFORE_FDS 16     /* looks at the endpoints, between two at the descriptors */
#define EVENTS_AT_ONCE 64

enum item_kind { ITEM_FREE, ITEM_ENDPOINT, ITEM_FD, ITEM_TIMER };

struct item {
        enum item_kind kind;
        uint32_t generation;    /* of the place: a completion may come after its item has gone */
        void *ctx;
        struct psyne_endpoint *e;
        bool worded;            /* its word is in the ring */
        bool belled;            /* its bell is in the epoll set, because its word cannot be in the ring */
        int fd;
        int64_t at_ns, every_ns;
};

struct psyne_waitset {
        struct watch *watch;
        int wake_fd;            /* eventfd in the watch; its cookie is the set */
        struct item **items;    /* never moved: descriptors carry their addresses */
        unsigned n_items;
        unsigned first;         /* where the next look begins */
        unsigned looks;
        unsigned epoch;         /* of the words in the ring */
        unsigned forks;
};

static int check(const struct psyne_waitset *w, const char *call) {
        if (!w)
                return error_set(-EINVAL, "%s: no waitset", call);
        if (w->forks != process_forks())
                return error_set(-EOWNERDEAD, "%s: this waitset came through fork(); it belongs to the parent", call);
        return 0;
}

/* Makes an empty set. -EMFILE, -ENOMEM, -EINVAL. */
int psyne_waitset_new(struct psyne_waitset **ret) {
        CANCEL_HOLD;
        struct psyne_waitset *w;
        int r;

        if (!ret)
                return error_set(-EINVAL, "psyne_waitset_new: no result");
        r = process_init();
        if (r < 0)
                return r;
        w = calloc(1, sizeof(*w));
        if (!w)
                return error_set(-ENOMEM, "no memory for a waitset");
        w->forks = process_forks();
        w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = w->wake_fd < 0 ? -errno : watch_new(&w->watch);
        if (r == 0)
                r = watch_add(w->watch, w->wake_fd, EPOLLIN, w);
        if (r < 0) {
                psyne_waitset_free(w);
                return error_set(r, "a waitset: %s", strerror(-r));
        }
        *ret = w;
        return 0;
}

static void item_end(struct psyne_waitset *w, struct item *t, uint64_t tag) {
        if (t->kind == ITEM_ENDPOINT) {
                if (t->worded)
                        watch_forget_word(w->watch, tag);
                if (t->belled)
                        (void)watch_remove(w->watch, bell_fd(t->e->bell));
                t->e->set = NULL;
                endpoint_give_up(t->e);
        } else if (t->kind == ITEM_FD)
                (void)watch_remove(w->watch, t->fd);
        *t = (struct item){.generation = t->generation + 1};
}

static uint64_t tag_of(const struct psyne_waitset *w, unsigned i) {
        return ((uint64_t)w->items[i]->generation << 32 | i) + 1;
}

/* The endpoints and descriptors in it stay open, and are not waited for any more. Nobody may be in psyne_waitset_wait().
 * Returns NULL, accepts NULL. */
struct psyne_waitset *psyne_waitset_free(struct psyne_waitset *w) {
        CANCEL_HOLD;
        if (!w)
                return NULL;
        if (w->forks != process_forks())
                watch_after_fork_child(w->watch);
        for (unsigned i = 0; i < w->n_items; i++) {
                if (w->forks == process_forks())
                        item_end(w, w->items[i], tag_of(w, i));
                free(w->items[i]);
        }
        watch_free(w->watch);
        cleanup_closep(&w->wake_fd);
        free(w->items);
        free(w);
        return NULL;
}

static struct item *item_new(struct psyne_waitset *w, enum item_kind kind, void *ctx) {
        struct item **items, *t;

        for (unsigned i = 0; i < w->n_items; i++)
                if (w->items[i]->kind == ITEM_FREE) {
                        w->items[i]->kind = kind;
                        w->items[i]->ctx = ctx;
                        return w->items[i];
                }
        items = realloc(w->items, (w->n_items + 1) * sizeof(*items));
        if (items)
                w->items = items;
        t = items ? calloc(1, sizeof(*t)) : NULL;
        if (!t) {
                (void)error_set(-ENOMEM, "no memory for a waitset's member");
                return NULL;
        }
        t->kind = kind;
        t->ctx = ctx;
        w->items[w->n_items++] = t;
        return t;
}

/*
 * Adds an endpoint, which stays its opener's; it leaves the set when it is closed. From now on the thread that waits is the
 * one that uses it. -EBUSY: it is in a set already; -EOWNERDEAD; -ENOMEM; -EINVAL.
 */
int psyne_waitset_add(struct psyne_waitset *w, struct psyne_endpoint *e, void *ctx) {
        CANCEL_HOLD;
        struct item *t;
        int r = check(w, "psyne_waitset_add");

        if (r < 0)
                return r;
        if (!e)
                return error_set(-EINVAL, "psyne_waitset_add: no endpoint");
        if (endpoint_channel(e)->forked)
                return error_set(-EOWNERDEAD, "this endpoint came through fork(); it belongs to the parent");
        if (e->set)
                return error_set(-EBUSY, "this endpoint is in a waitset already");
        t = item_new(w, ITEM_ENDPOINT, ctx);
        if (!t)
                return -ENOMEM;
        t->e = e;
        e->set = w;
        return 0;
}

/*
 * Adds a descriptor, which stays the caller's: remove it before it is closed. @poll_events: EPOLLIN, EPOLLOUT, ... as of
 * epoll_ctl(2), level-triggered. -EEXIST: it is in this set already; -EPERM: it cannot be polled (a regular file); -EBADF;
 * -ENOMEM; -EINVAL; -EOWNERDEAD.
 */
int psyne_waitset_add_fd(struct psyne_waitset *w, int fd, uint32_t poll_events, void *ctx) {
        CANCEL_HOLD;
        struct item *t;
        int r = check(w, "psyne_waitset_add_fd");

        if (r < 0)
                return r;
        if (!poll_events || poll_events & (EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | WATCH_WORD))
                return error_set(-EINVAL, "psyne_waitset_add_fd: no events, or a flag that is not one");
        t = item_new(w, ITEM_FD, ctx);
        if (!t)
                return -ENOMEM;
        t->fd = fd;
        r = watch_add(w->watch, fd, poll_events, t);
        if (r < 0) {
                *t = (struct item){.generation = t->generation};
                return error_set(r, "watching descriptor %d: %s", fd, strerror(-r));
        }
        return 0;
}

int waitset_add_once(struct psyne_waitset *w, int fd, uint32_t poll_events, void *ctx, struct item **ret) {
        struct item *t = item_new(w, ITEM_FD, ctx);
        int r;

        if (!t)
                return -ENOMEM;
        t->fd = fd;
        r = watch_add(w->watch, fd, poll_events | EPOLLONESHOT, t);
        if (r < 0)
                *t = (struct item){.generation = t->generation};
        *ret = t;
        return r;
}

int waitset_once_more(struct psyne_waitset *w, struct item *t, uint32_t poll_events) {
        return watch_change(w->watch, t->fd, poll_events | EPOLLONESHOT, t);
}

/*
 * Adds a timer: it fires in @in_ns from now, and then every @every_ns; with 0 it fires once and is gone. One that nobody
 * waited for in time fires once for all that was missed. -ENOMEM; -EINVAL; -EOWNERDEAD.
 */
int psyne_waitset_add_timer(struct psyne_waitset *w, int64_t in_ns, int64_t every_ns, void *ctx) {
        CANCEL_HOLD;
        struct item *t;
        int r = check(w, "psyne_waitset_add_timer");

        if (r < 0)
                return r;
        if (in_ns < 0 || every_ns < 0)
                return error_set(-EINVAL, "psyne_waitset_add_timer: times are not negative");
        t = item_new(w, ITEM_TIMER, ctx);
        if (!t)
                return -ENOMEM;
        t->at_ns = clock_deadline_ns(in_ns);
        t->every_ns = every_ns;
        return 0;
}

/* Removes whatever was added with @ctx, of any kind. Returns how many; -ENOENT: nothing; -EINVAL; -EOWNERDEAD. */
int psyne_waitset_remove(struct psyne_waitset *w, void *ctx) {
        CANCEL_HOLD;
        int r = check(w, "psyne_waitset_remove"), n = 0;

        if (r < 0)
                return r;
        for (unsigned i = 0; i < w->n_items; i++)
                if (w->items[i]->kind != ITEM_FREE && w->items[i]->ctx == ctx) {
                        item_end(w, w->items[i], tag_of(w, i));
                        n++;
                }
        return n ? n : error_set(-ENOENT, "nothing in this waitset has that ctx");
}

void waitset_forget(struct psyne_waitset *w, struct psyne_endpoint *e) {
        if (w->forks != process_forks())
                return;
        for (unsigned i = 0; i < w->n_items; i++)
                if (w->items[i]->kind == ITEM_ENDPOINT && w->items[i]->e == e)
                        item_end(w, w->items[i], tag_of(w, i));
}

/* ---- looking ------------------------------------------------------------------------------------------------------ */

static bool tell_endpoint(const struct item *t, struct psyne_event *ret) {
        enum ready ready = endpoint_ready(t->e);

        if (ready == READY_NOT)
                return false;
        *ret = (struct psyne_event){
                .ctx = t->ctx,
                .what = ready == READY_STOPPED   ? PSYNE_EVENT_STOPPED
                        : ready == READY_GONE    ? PSYNE_EVENT_PEER_GONE
                        : t->e->is_producer      ? PSYNE_EVENT_WRITABLE
                                                 : PSYNE_EVENT_READABLE,
        };
        return true;
}

static bool tell_timer(struct item *t, int64_t now, struct psyne_event *ret) {
        if (now < t->at_ns)
                return false;
        *ret = (struct psyne_event){.ctx = t->ctx, .what = PSYNE_EVENT_TIMER};
        if (!t->every_ns)
                *t = (struct item){.generation = t->generation + 1};
        else if (__builtin_add_overflow(t->at_ns, ((now - t->at_ns) / t->every_ns) * t->every_ns, &t->at_ns) ||
                __builtin_add_overflow(t->at_ns, t->every_ns, &t->at_ns))
                t->at_ns = CLOCK_FOREVER;
        return true;
}

/* Asleep, and nobody has told it anything since it lay down: nothing is there. */
static bool sleeps(const struct psyne_waitset *w, const struct item *t, int64_t now) {
        return t->e->armed && now < t->e->rest.until_ns && (t->belled || (t->worded && w->epoch == watch_words_epoch(w->watch))) &&
                __atomic_load_n(endpoint_event(t->e), __ATOMIC_ACQUIRE) == t->e->rest.event;
}

/* Endpoints that do not sleep, and timers: how many events. */
static unsigned look(struct psyne_waitset *w, struct psyne_event ret[], unsigned n, int64_t now) {
        unsigned got = 0, i, k;

        for (k = 0, i = w->first; k < w->n_items && got < n; k++, i++) {
                struct item *t;

                i = i < w->n_items ? i : 0;
                t = w->items[i];
                if (t->kind == ITEM_ENDPOINT && !sleeps(w, t, now))
                        got += tell_endpoint(t, &ret[got]);
                else if (t->kind == ITEM_TIMER)
                        got += tell_timer(t, now, &ret[got]);
        }
        if (got == n) /* the next look begins behind the last that was told */
                w->first = i;
        return got;
}

/* What the watch found: how many events. Words only say that there is a reason to look. */
static unsigned take_events(struct psyne_waitset *w, const struct watch_event events[], int n_events, struct psyne_event ret[],
        unsigned n, bool *woken) {
        unsigned got = 0;
        uint64_t count;

        for (int k = 0; k < n_events; k++) {
                const struct watch_event *v = &events[k];
                struct item *t = v->cookie;

                if (v->events == WATCH_WORD) {
                        unsigned i = (unsigned)((v->tag - 1) & UINT32_MAX);

                        if (i < w->n_items && tag_of(w, i) == v->tag)
                                w->items[i]->worded = false;
                } else if (v->cookie == w) {
                        (void)!read(w->wake_fd, &count, sizeof(count));
                        *woken = true;
                } else if (t->kind == ITEM_FD && got < n) { /* level-triggered: what finds no place comes again */
                        ret[got++] = (struct psyne_event){.ctx = t->ctx, .what = PSYNE_EVENT_FD, .poll_events = v->events};
                } else if (t->kind == ITEM_ENDPOINT) /* its bell: it is armed again with the next sleep */
                        bell_quiet(t->e->bell);
        }
        return got;
}

/* ---- sleeping ----------------------------------------------------------------------------------------------------- */

/* Those that have been served since they lay down, or were told something. False: one of them is ready. */
static bool lie_down(struct psyne_waitset *w, int64_t now) {
        bool fence = false, barrier = false, found = false;
        struct psyne_channel *with_barrier = NULL;

        for (unsigned i = 0; i < w->n_items; i++) {
                struct item *t = w->items[i];
                struct psyne_channel *ch;

                if (t->kind != ITEM_ENDPOINT || sleeps(w, t, now))
                        continue;
                if (!endpoint_lie_down(t->e))
                        return false;
                ch = endpoint_channel(t->e);
                if (__atomic_load_n(&ch->fence, __ATOMIC_RELAXED))
                        fence = true;
                else {
                        barrier = true;
                        with_barrier = ch;
                }
        }
        if (barrier)
                wake_barrier_heavy(with_barrier); /* every CPU that runs anybody who registered */
        if (fence)
                __atomic_thread_fence(__ATOMIC_SEQ_CST);
        for (unsigned i = 0; i < w->n_items; i++)
                if (w->items[i]->kind == ITEM_ENDPOINT && endpoint_second_look(w->items[i]->e)) {
                        endpoint_disarm(w->items[i]->e); /* it does not sleep: nobody may have to tell it */
                        found = true;
                }
        return !found;
}

/* Their words go into the ring, or their bells are armed. */
static int hand_over(struct psyne_waitset *w, int64_t *until_ns) {
        if (w->epoch != watch_words_epoch(w->watch)) {
                w->epoch = watch_words_epoch(w->watch);
                for (unsigned i = 0; i < w->n_items; i++)
                        w->items[i]->worded = false;
        }
        for (unsigned i = 0; i < w->n_items; i++) {
                struct item *t = w->items[i];
                int r = 0;

                if (t->kind == ITEM_TIMER && t->at_ns < *until_ns)
                        *until_ns = t->at_ns;
                if (t->kind != ITEM_ENDPOINT)
                        continue;
                if (t->e->rest.until_ns < *until_ns)
                        *until_ns = t->e->rest.until_ns;
                if (!t->worded && !t->belled) {
                        r = watch_word(w->watch, tag_of(w, i), endpoint_event(t->e), t->e->rest.event);
                        t->worded = r == 0;
                }
                if (r == -ENOSYS) {
                        r = endpoint_need_bell(t->e);
                        if (r == 0)
                                r = bell_fd(t->e->bell);
                        if (r >= 0)
                                r = watch_add(w->watch, r, EPOLLIN, t);
                        t->belled = r == 0;
                }
                if (r == 0 && t->belled)
                        r = bell_arm(t->e->bell, t->e->rest.event, t->e->rest.until_ns);
                if (r < 0)
                        return error_default(r, "arming an endpoint of %s: %s", endpoint_channel(t->e)->uri, strerror(-r));
        }
        return 0;
}

/* As its most impatient endpoint would. */
static int64_t spins_until(const struct psyne_waitset *w, int64_t now) {
        bool hybrid = false;

        for (unsigned i = 0; i < w->n_items; i++)
                if (w->items[i]->kind == ITEM_ENDPOINT) {
                        uint32_t wait = __atomic_load_n(&w->items[i]->e->wait, __ATOMIC_RELAXED);

                        if (wait == PSYNE_WAIT_SPIN)
                                return CLOCK_FOREVER;
                        hybrid |= wait == PSYNE_WAIT_HYBRID;
                }
        return hybrid ? now + process_spin_ns() : 0;
}

/*
 * Waits until at least one of the set's members has something, and fills in up to @n of them. Everything is level-
 * triggered: what is not served is told again by the next wait, and the members take turns, so that one that always has
 * something keeps none of the others. Endpoints are told as long as psyne_recv() or psyne_claim() with PSYNE_NOWAIT would say
 * anything but -EAGAIN.
 *
 * The number of events; 0: psyne_waitset_wake(). -ETIME, or -EAGAIN with a zero timeout; -EINTR: a signal came; -EINVAL;
 * -EOWNERDEAD; -ENOMEM, -EMFILE: it cannot sleep now.
 */
int psyne_waitset_wait(struct psyne_waitset *w, struct psyne_event ret[], unsigned n, int64_t timeout_ns) {
        CANCEL_HOLD;
        struct watch_event events[EVENTS_AT_ONCE];
        int64_t started, deadline, spin_until;
        bool woken = false;
        int r = check(w, "psyne_waitset_wait");

        if (r < 0)
                return r;
        if (!ret || n == 0 || n > INT32_MAX)
                return error_set(-EINVAL, "psyne_waitset_wait: no events, or a count out of range");
        started = clock_ns();
        deadline = timeout_ns == PSYNE_NOWAIT ? started : clock_deadline_ns(timeout_ns);
        spin_until = spins_until(w, started);
        for (;;) {
                int64_t now = clock_ns(), until = deadline;
                bool late = now >= deadline;
                unsigned got = 0;

                /* The descriptors' turn, before everything else: what is always ready could fill @ret. */
                if (late || w->looks++ % LOOKS_BEFORE_FDS == 0) {
                        r = watch_wait(w->watch, events, n < EVENTS_AT_ONCE ? n : EVENTS_AT_ONCE, 0);
                        got = take_events(w, events, r, ret, n, &woken);
                }
                got += look(w, ret + got, n - got, now);
                if (got || woken)
                        return (int)got;
                if (late)
                        return timeout_ns == PSYNE_NOWAIT ? error_set(-EAGAIN, "nothing there")
                                                          : error_set(-ETIME, "nothing came in time");
                if (now < spin_until) {
                        cpu_pause();
                        continue;
                }
                if (!lie_down(w, now))
                        continue;
                r = hand_over(w, &until);
                if (r < 0)
                        return r;
                r = watch_wait(w->watch, events, n < EVENTS_AT_ONCE ? n : EVENTS_AT_ONCE, until);
                if (r == -EINTR && w->epoch == watch_words_epoch(w->watch))
                        return error_set(r, "interrupted by a signal");
                if (r < 0 && r != -EINTR)
                        return error_set(r, "a waitset cannot sleep: %s", strerror(-r));
                got = take_events(w, events, r, ret, n, &woken);
                if (got || woken)
                        return (int)got;
        }
}

/* [any thread, any signal handler] The wait in progress, or else the next, returns; with 0 if there is nothing to tell.
 * -EINVAL, -EOWNERDEAD. */
int psyne_waitset_wake(struct psyne_waitset *w) {
        const uint64_t one = 1;
        int saved = errno; /* a signal handler leaves no trace */

        if (!w)
                return -EINVAL;
        if (w->forks != process_forks())
                return -EOWNERDEAD;
        (void)syscall(SYS_write, w->wake_fd, &one, sizeof(one)); /* full: it is readable */
        errno = saved;
        return 0;
}
