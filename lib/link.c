/* The thread that moves links' bytes: see link.h. */
#include "lib/link.h"
#include "lib/link-tell.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

#define EVENTS_AT_ONCE 32
#define LOOK_NS 100000000ll /* ipc://: who joins, leaves or stops in another process is not told to a thread that waits for bytes */

static pthread_mutex_t links_lock = PTHREAD_MUTEX_INITIALIZER; /* process_links; before any links' lock */
static struct links *process_links, *all_links;
static unsigned tellers; /* so far */

/* ---- for link-in.c and link-out.c ---------------------------------------------------------------------------------- */

void link_watch(struct psyne_link *l, struct watched *w, int fd, uint32_t events) {
        int r = 0;

        if (events == w->events) {
                link_watch_again(l, w);
                return;
        }
        if (w->events)
                (void)psyne_waitset_remove(l->links->set, w);
        w->events = 0;
        w->spent = false;
        if (events)
                r = w->once ? waitset_add_once(l->links->set, fd, events, w, &w->item) : psyne_waitset_add_fd(l->links->set, fd, events, w);
        if (r == 0)
                w->events = events;
        else
                link_due(l, clock_ns() + 100000000); /* no memory: the next turn tries again */
}

void link_watch_again(struct psyne_link *l, struct watched *w) {
        if (w->spent && waitset_once_more(l->links->set, w->item, w->events) == 0)
                w->spent = false;
}

void link_due(struct psyne_link *l, int64_t at_ns) {
        if (at_ns < l->links->due_ns)
                l->links->due_ns = at_ns;
}

/* One line, for a person who asks why: only where PSYNE_LOG is set. */
void link_log(struct psyne_link *l, const char *format, ...) {
        char line[256];
        va_list args;

        if (!getenv("PSYNE_LOG"))
                return;
        va_start(args, format);
        vsnprintf(line, sizeof(line), format, args);
        va_end(args);
        fprintf(stderr, "psyne: %s: %s\n", l->uri, line);
}

/* ---- a turn --------------------------------------------------------------------------------------------------------- */

static void event(const struct psyne_event *e) {
        struct watched *w = e->ctx;

        w->spent = w->once;
        switch (w->what) {
        case WATCHED_LISTENER: {
                struct psyne_link *l = w->of;

                for (unsigned i = 0; i < l->n_listeners; i++)
                        if (&l->listeners[i].watched == w && inbound_accept(l, l->listeners[i].fd) < 0) {
                                link_watch(l, w, l->listeners[i].fd, 0); /* it would stay readable */
                                l->deaf_ns = clock_ns() + 100000000;
                        }
                break;
        }
        case WATCHED_OUTBOUND:
                outbound_event(w->of, e->poll_events);
                break;
        case WATCHED_INBOUND:
                inbound_event(w->of, e->poll_events);
                break;
        case WATCHED_READER:
                outbound_reader_event(w->of, e->what);
                break;
        case WATCHED_WRITER:
                inbound_writable(w->of, e->what);
                break;
        case WATCHED_TELLER:
                link_tell(w->of);
                break;
        }
}

static void link_end(struct psyne_link *l) {
        for (unsigned i = 0; i < l->n_listeners; i++) {
                link_watch(l, &l->listeners[i].watched, l->listeners[i].fd, 0);
                close(l->listeners[i].fd);
                l->listeners[i].fd = -1;
        }
        l->n_listeners = 0;
        inbound_free_all(l);
        outbound_free_all(l);
        l->life = LINK_GONE;
}

static void tick(struct psyne_link *l, int64_t now) {
        if (l->life == LINK_BORN)
                l->life = LINK_LIVES;
        if (now < l->deaf_ns)
                link_due(l, l->deaf_ns);
        else
                for (unsigned i = 0; i < l->n_listeners; i++)
                        link_watch(l, &l->listeners[i].watched, l->listeners[i].fd, EPOLLIN);
        if (l->listens)
                inbound_tick(l, now);
        else
                outbound_tick(l, now);
        if (l->channel->scheme == URI_IPC)
                link_due(l, now + LOOK_NS);
        if (l->life == LINK_LEAVES) {
                if (outbound_acked(l) != l->left_acked) { /* it moves */
                        l->left_acked = outbound_acked(l);
                        l->leave_ns = now + LINK_LEAVE_WITHIN_NS;
                }
                if (l->listens || outbound_is_through(l) || now >= l->leave_ns)
                        link_end(l);
                else
                        link_due(l, l->leave_ns);
        }
}

int links_turn(struct links *s, int64_t deadline_ns) {
        struct psyne_event events[EVENTS_AT_ONCE];
        int64_t until = s->due_ns < deadline_ns ? s->due_ns : deadline_ns, now = clock_ns();
        bool gone = false;
        int n;

        n = psyne_waitset_wait(s->set, events, EVENTS_AT_ONCE,
                until == CLOCK_FOREVER ? PSYNE_FOREVER : until <= now ? PSYNE_NOWAIT : until - now);
        __atomic_store_n(&s->wanted, true, __ATOMIC_RELAXED);
        pthread_mutex_lock(&s->lock);
        __atomic_store_n(&s->wanted, false, __ATOMIC_RELAXED);
        s->asked_ns = CLOCK_FOREVER;
        for (int i = 0; i < n; i++)
                event(&events[i]);
        s->due_ns = CLOCK_FOREVER;
        now = clock_ns();
        for (struct psyne_link *l = s->list; l; l = l->next)
                if (l->life != LINK_GONE) {
                        tick(l, now);
                        gone |= l->life == LINK_GONE;
                }
        while (s->graves) {
                struct inbound *in = s->graves;

                s->graves = in->grave;
                free(in);
        }
        while (s->outbound_graves) {
                struct outbound *o = s->outbound_graves;

                s->outbound_graves = o->grave;
                free(o);
        }
        if (gone)
                pthread_cond_broadcast(&s->gone);
        pthread_mutex_unlock(&s->lock);
        return n == -EINTR ? n : n < 0 ? 0 : n;
}

static void *links_run(void *arg) {
        struct links *s = arg;

        (void)pthread_setname_np(pthread_self(), "psyne-link");
        while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE))
                (void)links_turn(s, CLOCK_FOREVER);
        return NULL;
}

/* ---- the thread ----------------------------------------------------------------------------------------------------- */

static void links_free(struct links *s) {
        if (s->teller >= 0)
                close(s->teller);
        psyne_waitset_free(s->set);
        wire_free(s->wire);
        pthread_cond_destroy(&s->gone);
        pthread_mutex_destroy(&s->lock);
        free(s);
}

static int links_new(bool threaded, bool by_many, struct links **ret) {
        struct links *s = calloc(1, sizeof(*s));
        sigset_t all, old;
        int r;

        if (!s)
                return -ENOMEM;
        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->gone, NULL);
        s->threaded = threaded;
        s->teller = -1;
        r = psyne_waitset_new(&s->set);
        if (r == 0 && threaded) { /* who has no thread answers nobody; and without it all goes on */
                s->telling = (struct watched){.what = WATCHED_TELLER, .of = s};
                s->teller = link_tell_open(tellers++);
                if (s->teller >= 0)
                        (void)psyne_waitset_add_fd(s->set, s->teller, EPOLLIN, &s->telling);
        }
        if (r == 0)
                r = wire_new(by_many, &s->wire);
        if (r == 0 && threaded) {
                sigfillset(&all); /* no signal of the application's may land here */
                pthread_sigmask(SIG_SETMASK, &all, &old);
                r = -pthread_create(&s->thread, NULL, links_run, s);
                pthread_sigmask(SIG_SETMASK, &old, NULL);
        }
        if (r < 0) {
                links_free(s);
                return r;
        }
        s->next = all_links;
        all_links = s;
        *ret = s;
        return 0;
}

int links_get(bool threaded, bool inlined, struct links **ret) {
        struct links *s;
        int r = 0;

        pthread_mutex_lock(&links_lock);
        s = threaded && !inlined ? process_links : NULL;
        if (!s)
                r = links_new(threaded, inlined, &s);
        if (r == 0) {
                s->users++;
                if (threaded && !inlined)
                        process_links = s;
                *ret = s;
        }
        pthread_mutex_unlock(&links_lock);
        return r;
}

void links_put(struct links *s) {
        bool last;

        pthread_mutex_lock(&links_lock);
        last = --s->users == 0;
        if (last && s == process_links)
                process_links = NULL;
        for (struct links **at = &all_links; last && *at; at = &(*at)->next)
                if (*at == s) {
                        *at = s->next;
                        break;
                }
        pthread_mutex_unlock(&links_lock);
        if (!last)
                return;
        if (s->threaded) {
                __atomic_store_n(&s->stop, true, __ATOMIC_RELEASE);
                (void)psyne_waitset_wake(s->set);
                pthread_join(s->thread, NULL);
        }
        links_free(s);
}

/* ---- fork ------------------------------------------------------------------------------------------------------------ */

void link_fork_prepare(void) {
        pthread_mutex_lock(&links_lock);
        for (struct links *s = all_links; s; s = s->next)
                pthread_mutex_lock(&s->lock);
}

void link_fork_parent(void) {
        for (struct links *s = all_links; s; s = s->next)
                pthread_mutex_unlock(&s->lock);
        pthread_mutex_unlock(&links_lock);
}

/* The sockets are the parent's: copies of them would keep its connections open when it has closed them. */
void link_after_fork_child(struct psyne_channel *ch) {
        struct links *s = links_of(ch);

        if (!s)
                return;
        if (s->teller >= 0) /* the parent's name would answer nobody while we have it */
                close(s->teller);
        s->teller = -1;
        for (struct psyne_link *l = s->list; l; l = l->next) {
                if (l->channel != ch)
                        continue;
                for (unsigned i = 0; i < l->n_listeners; i++)
                        close(l->listeners[i].fd);
                l->n_listeners = 0;
                for (struct outbound *o = l->out; o; o = o->next)
                        if (o->fd >= 0)
                                close(o->fd);
                for (struct inbound *in = l->in; in; in = in->next)
                        if (in->fd >= 0)
                                close(in->fd);
        }
        wire_after_fork_child(s->wire); /* idempotent: channels share it */
}

void link_fork_child(void) {
        process_links = all_links = NULL;
        pthread_mutex_init(&links_lock, NULL);
}
