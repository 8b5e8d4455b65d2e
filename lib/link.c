/* The thread that moves a link's bytes, and what a channel sees of it: see link.h. */
#include "lib/link.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

#define EVENTS_AT_ONCE 32
#define LEAVE_WITHIN_NS 1000000000ll /* without progress: for the other end to have it all, and hear goodbye */
#define USER_TIMEOUT_MS 25000u       /* a host that vanished with bytes of ours under way; as long as keepalive takes else */

static pthread_mutex_t links_lock = PTHREAD_MUTEX_INITIALIZER; /* process_links; before any links' lock */
static struct links *process_links, *all_links;

/* ---- for link-in.c and link-out.c ---------------------------------------------------------------------------------- */

void link_watch(struct link *l, struct watched *w, int fd, uint32_t events) {
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

void link_watch_again(struct link *l, struct watched *w) {
        if (w->spent && waitset_once_more(l->links->set, w->item, w->events) == 0)
                w->spent = false;
}

void link_due(struct link *l, int64_t at_ns) {
        if (at_ns < l->links->due_ns)
                l->links->due_ns = at_ns;
}

/* One line, for a person who asks why: only where PSYNE_LOG is set. */
void link_log(struct link *l, const char *format, ...) {
        char line[256];
        va_list args;

        if (!getenv("PSYNE_LOG"))
                return;
        va_start(args, format);
        vsnprintf(line, sizeof(line), format, args);
        va_end(args);
        fprintf(stderr, "psyne: %s: %s\n", l->channel->uri, line);
}

/* ---- a turn --------------------------------------------------------------------------------------------------------- */

static void event(const struct psyne_event *e) {
        struct watched *w = e->ctx;

        w->spent = w->once;
        switch (w->what) {
        case WATCHED_LISTENER: {
                struct link *l = w->of;

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
        }
}

static void link_end(struct link *l) {
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

static void tick(struct link *l, int64_t now) {
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
        if (l->life == LINK_LEAVES) {
                if (outbound_acked(l) != l->left_acked) { /* it moves */
                        l->left_acked = outbound_acked(l);
                        l->leave_ns = now + LEAVE_WITHIN_NS;
                }
                if (l->listens || outbound_is_through(l) || now >= l->leave_ns)
                        link_end(l);
                else
                        link_due(l, l->leave_ns);
        }
}

static int turn(struct links *s, int64_t deadline_ns) {
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
        for (struct link *l = s->list; l; l = l->next)
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
                (void)turn(s, CLOCK_FOREVER);
        return NULL;
}

/* ---- the thread ----------------------------------------------------------------------------------------------------- */

static void links_free(struct links *s) {
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
        r = psyne_waitset_new(&s->set);
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

static void links_use_no_more(struct links *s) {
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

/* ---- a channel's view ------------------------------------------------------------------------------------------------ */

static int listen_everywhere(struct link *l) {
        int r = -EADDRNOTAVAIL;

        for (unsigned i = 0; i < l->n_addresses; i++) {
                int e = net_listen(&l->addresses[i], &l->options, &l->listeners[l->n_listeners].fd);

                if (e < 0) { /* a name may have an address that is not ours, or of a family that is off */
                        r = e;
                        continue;
                }
                l->listeners[l->n_listeners].watched = (struct watched){.what = WATCHED_LISTENER, .of = l};
                if (!l->port)
                        l->port = net_port(l->listeners[l->n_listeners].fd);
                l->n_listeners++;
                if (i + 1 < l->n_addresses) /* port 0: all on the one that the first was given */
                        net_set_port(&l->addresses[i + 1], l->port);
        }
        return l->n_listeners ? 0 : r;
}

static void link_free(struct link *l) {
        for (unsigned i = 0; i < l->n_listeners; i++)
                close(l->listeners[i].fd);
        key_free(l->key);
        free(l);
}

/* By a wire of its own: the thread's is not ours to use. */
static int zerocopy_check(const struct link *l) {
        struct wire *w;
        int r = l->inlined ? -EOPNOTSUPP : wire_new(false, &w);

        if (r == 0) {
                r = wire_zc_probe(w);
                wire_free(w);
        }
        return r < 0 ? error_set(-ENOTSUP, l->inlined ? "zerocopy=require: an inlined channel sends with a copy"
                                                      : "zerocopy=require: the kernel has no sends without a copy (Linux 6.2), or io_uring is refused")
                     : 0;
}

int link_join(struct psyne_channel *ch, const struct uri *u, uint32_t mode) {
        struct link *l = calloc(1, sizeof(*l));
        struct links *s;
        int r;

        if (!l)
                return error_set(-ENOMEM, "no memory for a link");
        *l = (struct link){
                .channel = ch,
                .listens = u->role == URI_ROLE_LISTEN,
                .zerocopy = u->zerocopy ? (enum uri_try)u->zerocopy : URI_TRY,
                .unchecked = u->unchecked,
                .inlined = u->inlined || u->preset == URI_PRESET_LATENCY,
                .mode = mode,
                .options = {.send_buffer = u->send_buffer, .receive_buffer = u->receive_buffer, .user_timeout_ms = USER_TIMEOUT_MS},
                .resume_ns = uri_has(u, URI_RESUME) ? (int64_t)u->resume_ns : LINK_RESUME_DEFAULT_NS,
                .reading = {.what = WATCHED_READER},
        };
        l->reading.of = l;
        if (getrandom(&l->random, sizeof(l->random), GRND_NONBLOCK) < 0)
                l->random = (uint64_t)clock_ns();
        r = uri_has(u, URI_KEY) ? key_load(u->key_file, &l->key) : 0;
        if (r == 0 && u->zerocopy == URI_REQUIRE)
                r = zerocopy_check(l);
        if (r == 0)
                r = net_resolve(u->host, u->port, l->listens, l->addresses, NET_ADDRESSES_MAX);
        if (r > 0) {
                l->n_addresses = (unsigned)r;
                r = l->listens ? listen_everywhere(l) : 0;
        }
        if (r < 0) {
                link_free(l);
                return r;
        }
        pthread_mutex_lock(&links_lock);
        s = ch->flags & PSYNE_NO_THREAD || l->inlined ? NULL : process_links;
        if (!s)
                r = links_new(!(ch->flags & PSYNE_NO_THREAD), l->inlined, &s);
        if (r == 0) {
                s->users++;
                if (s->threaded && !l->inlined)
                        process_links = s;
                l->links = s;
                ch->link = l;
                ch->inlined = l->inlined;
                pthread_mutex_lock(&s->lock);
                l->next = s->list;
                s->list = l;
                pthread_mutex_unlock(&s->lock);
        }
        pthread_mutex_unlock(&links_lock);
        if (r < 0) {
                link_free(l);
                return error_default(r, "starting the thread for links: %s", strerror(-r));
        }
        layout_fact_set(&ch->view, LAYOUT_SCOPE_CHANNEL, 0, "link", "io_uring", wire_is_uring(s->wire) ? "io_uring" : "sendmsg",
                wire_is_uring(s->wire) ? "" : "io_uring is refused, or was not wanted", "");
        (void)psyne_waitset_wake(s->set);
        return 0;
}

void link_leave(struct psyne_channel *ch) {
        struct link *l = ch->link;
        struct links *s = l->links;

        if (ch->forked) {
                l->n_listeners = 0; /* closed already; the rest is the parent's, and gone with the maps */
                link_free(l);
                ch->link = NULL;
                return;
        }
        pthread_mutex_lock(&s->lock);
        if (l->life != LINK_GONE) {
                l->life = LINK_LEAVES;
                l->leave_ns = clock_deadline_ns(LEAVE_WITHIN_NS);
        }
        while (l->life != LINK_GONE) {
                if (s->threaded) {
                        (void)psyne_waitset_wake(s->set);
                        pthread_cond_wait(&s->gone, &s->lock);
                } else {
                        pthread_mutex_unlock(&s->lock);
                        (void)psyne_waitset_wake(s->set);
                        (void)turn(s, l->leave_ns);
                        pthread_mutex_lock(&s->lock);
                }
        }
        for (struct link **at = &s->list; *at; at = &(*at)->next)
                if (*at == l) {
                        *at = l->next;
                        break;
                }
        pthread_mutex_unlock(&s->lock);
        ch->link = NULL;
        links_use_no_more(s);
        link_free(l);
}

void link_changed(const struct psyne_channel *ch) {
        if (ch->link)
                (void)psyne_waitset_wake(ch->link->links->set);
}

int link_refused(const struct psyne_channel *ch) {
        struct link *l = ch->link;
        int r;

        if (!l)
                return 0;
        pthread_mutex_lock(&l->links->lock);
        r = l->refused;
        if (r < 0)
                error_set(r, "%s: %s", ch->uri, l->refusal);
        pthread_mutex_unlock(&l->links->lock);
        return r;
}

uint64_t link_readers(const struct psyne_channel *ch) {
        const struct layout_view *v = &ch->view;
        uint64_t n = 0;

        for (uint32_t i = 0; i < v->n_members; i++)
                n += __atomic_load_n(&v->members[i].state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE;
        return n;
}

int link_poll(struct psyne_channel *ch, int64_t timeout_ns) {
        int64_t deadline = timeout_ns == PSYNE_NOWAIT ? 0 : clock_deadline_ns(timeout_ns);
        int n;

        do
                n = turn(ch->link->links, deadline);
        while (n == 0 && deadline && clock_ns() < deadline); /* its own timers are nobody's events */
        return n;
}

int link_takes(const struct psyne_channel *ch, bool producer) {
        if (!ch->link || ch->link->listens != producer)
                return 0;
        return error_set(-ENOTSUP, producer ? "%s listens: this end receives, producers are at the other"
                                            : "%s connects: this end sends, consumers are at the other",
                ch->uri);
}

static void look_out(const struct outbound *o, struct psyne_link_info *ret) {
        const struct layout_view *v = &o->link->channel->view;

        *ret = (struct psyne_link_info){
                .sends = 1,
                .up = o->tx.state == LINK_OPEN,
                .has_lane = o->taken,
                .readers = (uint32_t)o->tx.readers,
                .connections = o->connections,
                .in_flight_bytes = o->taken ? o->tx.sent - o->tx.acked : 0,
        };
        if (o->taken && __atomic_load_n(&v->lanes[o->lane].generation, __ATOMIC_ACQUIRE) == o->generation)
                ret->queued_bytes = layout_lane_tail(&v->lanes[o->lane]) - o->tx.sent;
}

static void look_in(const struct inbound *in, struct psyne_link_info *ret) {
        *ret = (struct psyne_link_info){
                .up = in->fd >= 0 && in->rx.state == LINK_OPEN,
                .has_lane = in->p != NULL,
                .connections = in->connections,
                .in_flight_bytes = in->rx.has_lane ? in->rx.got - in->rx.acked : 0,
        };
        if (in->p)
                ret->queued_bytes = in->p->tx.hot.tail - lane_tx_free_position(&in->p->tx, true);
}

static void look_at_socket(const struct link *l, int fd, const struct wire_zc *zc, struct psyne_link_info *ret) {
        struct net_info i;

        ret->io_uring = wire_is_uring(l->links->wire);
        wire_zc_look(zc, &ret->zerocopy_sends, &ret->zerocopy_copied);
        if (fd < 0)
                return;
        net_peer(fd, ret->peer);
        net_look(fd, &i);
        ret->rtt_us = i.rtt_us;
        ret->rtt_var_us = i.rtt_var_us;
        ret->retransmits = i.retransmits;
        ret->unacked_segments = i.unacked;
        ret->mss_bytes = i.mss;
        ret->congestion_window = i.congestion_window;
        ret->send_buffer = i.send_buffer;
        ret->receive_buffer = i.receive_buffer;
        ret->no_delay = i.no_delay;
}

/*
 * [any thread] Fills in the first @n links of a tcp:// channel, and says how many there are: at the end that sends one for
 * each producer and one that is kept ready, at the end that receives one for each sender that has said who it is. Set the
 * first one's struct_size before. 0 for other schemes; -EINVAL, -EOWNERDEAD.
 */
int psyne_links(const struct psyne_channel *ch, struct psyne_link_info *ret, unsigned n) {
        unsigned got = 0;
        struct link *l;
        int r;

        if (!ch || (n && (!ret || ret->struct_size != sizeof(*ret))))
                return error_set(-EINVAL, "psyne_links: no channel, no memory or struct_size is missing");
        r = channel_check(ch);
        if (r < 0)
                return r;
        l = ch->link;
        if (!l)
                return 0;
        pthread_mutex_lock(&l->links->lock);
        for (const struct outbound *o = l->out; o; o = o->next, got++)
                if (got < n) {
                        look_out(o, &ret[got]);
                        look_at_socket(l, o->fd, o->zc, &ret[got]);
                        ret[got].struct_size = sizeof(*ret);
                }
        for (const struct inbound *in = l->in; in; in = in->next)
                if (in->session) {
                        if (got < n) {
                                look_in(in, &ret[got]);
                                look_at_socket(l, in->fd, NULL, &ret[got]);
                                ret[got].struct_size = sizeof(*ret);
                        }
                        got++;
                }
        pthread_mutex_unlock(&l->links->lock);
        return (int)got;
}

/* The local port: of the listener, or 0 if this is no tcp:// channel that listens. [any thread] */
int psyne_port(const struct psyne_channel *ch) {
        return ch && !ch->forked && ch->link ? ch->link->port : 0;
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
        struct link *l = ch->link;

        if (!l)
                return;
        for (unsigned i = 0; i < l->n_listeners; i++)
                close(l->listeners[i].fd);
        for (struct outbound *o = l->out; o; o = o->next)
                if (o->fd >= 0)
                        close(o->fd);
        for (struct inbound *in = l->in; in; in = in->next)
                if (in->fd >= 0)
                        close(in->fd);
        wire_after_fork_child(l->links->wire); /* idempotent: channels share it */
}

void link_fork_child(void) {
        process_links = all_links = NULL;
        pthread_mutex_init(&links_lock, NULL);
}
