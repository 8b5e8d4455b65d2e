/*
 * How links come and go: the one that a tcp:// channel is made of, and those that are added to a channel of any kind. The
 * first has the channel's default group, and ends with the channel; an added one has a group of its own, and keeps the
 * channel as an endpoint does.
 */
#include "lib/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define USER_TIMEOUT_MS 25000u /* a host that vanished with bytes of ours under way; as long as keepalive takes else */
#define EJECT_DEFAULT_NS 1000000000ll

/* Of an added link: what else there is belongs to the channel, which has it already. */
#define KEYS_TAKEN (URI_LINK_KEYS & ~(1ull << URI_INLINE))

void link_uri(const struct uri *u, char *ret, size_t n) {
        snprintf(ret, n, strchr(u->host, ':') ? "tcp://[%.48s]:%s/%s" : "tcp://%.48s:%s/%s", u->host, u->port, u->name);
}

static int listen_everywhere(struct psyne_link *l) {
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

static struct psyne_link *link_free(struct psyne_link *l) {
        for (unsigned i = 0; i < l->n_listeners; i++)
                close(l->listeners[i].fd);
        key_free(l->key);
        free(l);
        return NULL;
}

/* By a wire of its own: the thread's is not ours to use. */
static int zerocopy_check(const struct psyne_link *l) {
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

/* A link that nobody drives yet. */
static int link_new(struct psyne_channel *ch, const struct uri *u, struct psyne_link **ret) {
        struct psyne_link *l = calloc(1, sizeof(*l));
        int r;

        if (!l)
                return error_set(-ENOMEM, "no memory for a link");
        *l = (struct psyne_link){
                .channel = ch,
                .listens = u->role == URI_ROLE_LISTEN,
                .zerocopy = u->zerocopy ? (enum uri_try)u->zerocopy : URI_TRY,
                .unchecked = u->unchecked,
                .inlined = u->inlined || u->preset == URI_PRESET_LATENCY,
                .options = {.send_buffer = u->send_buffer, .receive_buffer = u->receive_buffer, .user_timeout_ms = USER_TIMEOUT_MS,
                        .quick_ack = u->quick_ack},
                .resume_ns = uri_has(u, URI_RESUME) ? (int64_t)u->resume_ns : LINK_RESUME_DEFAULT_NS,
                .reading = {.what = WATCHED_READER},
        };
        l->reading.of = l;
        snprintf(l->name, sizeof(l->name), "%s", u->name);
        link_uri(u, l->uri, sizeof(l->uri));
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
        *ret = l;
        return 0;
}

/* From here on it is its thread's. */
static void link_begin(struct psyne_link *l, struct links *s) {
        l->links = s;
        pthread_mutex_lock(&s->lock);
        l->next = s->list;
        s->list = l;
        pthread_mutex_unlock(&s->lock);
        (void)psyne_waitset_wake(s->set);
}

/* Waits until what was committed has arrived at the other end, as long as it gets on. Nobody drives it afterwards. */
static void link_finish(struct psyne_link *l) {
        struct links *s = l->links;

        pthread_mutex_lock(&s->lock);
        if (l->life != LINK_GONE) {
                l->life = LINK_LEAVES;
                l->leave_ns = clock_deadline_ns(LINK_LEAVE_WITHIN_NS);
        }
        while (l->life != LINK_GONE) {
                if (s->threaded) {
                        (void)psyne_waitset_wake(s->set);
                        pthread_cond_wait(&s->gone, &s->lock);
                } else {
                        pthread_mutex_unlock(&s->lock);
                        (void)psyne_waitset_wake(s->set);
                        (void)links_turn(s, l->leave_ns);
                        pthread_mutex_lock(&s->lock);
                }
        }
        for (struct psyne_link **at = &s->list; *at; at = &(*at)->next)
                if (*at == l) {
                        *at = l->next;
                        break;
                }
        pthread_mutex_unlock(&s->lock);
}

int link_join(struct psyne_channel *ch, const struct uri *u, uint32_t mode) {
        struct psyne_link *l;
        struct links *s = NULL;
        int r = link_new(ch, u, &l);

        if (r < 0)
                return r;
        l->mode = mode;
        r = links_get(!(ch->flags & PSYNE_NO_THREAD), l->inlined, &s);
        if (r < 0) {
                link_free(l);
                return error_default(r, "starting the thread for links: %s", strerror(-r));
        }
        ch->link = l;
        ch->inlined = l->inlined;
        link_begin(l, s);
        layout_fact_set(&ch->view, LAYOUT_SCOPE_CHANNEL, 0, "link", "io_uring", wire_is_uring(s->wire) ? "io_uring" : "sendmsg",
                wire_is_uring(s->wire) ? "" : "io_uring is refused, or was not wanted", "");
        return 0;
}

void link_leave(struct psyne_channel *ch) {
        struct psyne_link *l = ch->link;
        struct links *s = links_of(ch);

        if (l && !ch->forked) /* else: closed already; the rest is the parent's, and gone with the maps */
                link_finish(l);
        if (l)
                ch->link = link_free(l);
        if (s && !ch->forked)
                links_put(s);
}

/* ---- added ones ---------------------------------------------------------------------------------------------------- */

/* Who drives the channel's links, from now on as long as there is the channel. */
static int links_for(struct psyne_channel *ch, struct links **ret) {
        struct links *s = links_of(ch), *none = NULL;
        int r;

        if (!s) {
                r = links_get(!(ch->flags & PSYNE_NO_THREAD), false, &s);
                if (r < 0)
                        return error_default(r, "starting the thread for links: %s", strerror(-r));
                if (!__atomic_compare_exchange_n(&ch->linked, &none, s, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
                        links_put(s); /* another thread adds one, too */
                        s = none;
                }
        }
        *ret = s;
        return 0;
}

static int added_check(const struct psyne_channel *ch, const struct uri *u) {
        if (u->scheme != URI_TCP)
                return error_set(-EINVAL, "psyne_link_open: a link's address starts with tcp://");
        if (u->set & ~(uint64_t)KEYS_TAKEN || u->preset == URI_PRESET_LATENCY)
                return error_set(u->set & 1ull << URI_INLINE || u->preset ? -ENOTSUP : -EINVAL,
                        u->set & 1ull << URI_INLINE || u->preset
                                ? "psyne_link_open: inline=1 and preset=latency are for a channel's own link"
                                : "psyne_link_open: a link has role, group, behind, eject, resume, key, sndbuf, rcvbuf, zerocopy, checksum and quickack; the rest is the channel's");
        if (u->role == URI_ROLE_LISTEN && u->set & URI_ADDED_KEYS)
                return error_set(-EINVAL, "psyne_link_open: group, behind and eject are for links that send");
        if (u->behind == URI_BEHIND_EJECTED && u->group[0])
                return error_set(-EINVAL, "psyne_link_open: behind=ejected is for a group that ends with its link: without group=");
        if (uri_has(u, URI_EJECT) && u->behind != URI_BEHIND_EJECTED)
                return error_set(-EINVAL, "psyne_link_open: eject= says when with behind=ejected");
        if (ch->inlined)
                return error_set(-ENOTSUP, "%s is inlined: it has one link", ch->uri);
        if (ch->scheme == URI_IPC && ch->flags & PSYNE_NO_THREAD)
                return error_set(-ENOTSUP, "%s has no thread, and psyne_poll() serves its peers only", ch->uri);
        if (strcmp(u->group, GROUP_DEFAULT) == 0 && (ch->view.config.mode == PSYNE_SPMC || ch->view.config.mode == PSYNE_MPMC))
                return error_set(-EMEDIUMTYPE, "the default group of %s is shared, and a link reads alone", ch->uri);
        return 0;
}

/*
 * [any thread] Adds a link to @ch, which may be of any scheme. A link that connects sends everything that is sent on the
 * channel from when a reader at the other end is there: it is one more reader, alone in a group of its own, which ends with
 * it. group=NAME gives it a named group, which stays where it stood; group=default makes it the reader of a channel
 * that has no other. One that listens is one more producer for each sender that comes.
 *
 * Producers wait for it as for any reader, until it has been without the other end for resume=; with behind=ejected also no
 * longer than eject= (1 s) for one that does not get on: it begins anew when the far end has taken what it was sent, where the
 * channel then stands, as a new producer there. The link keeps the channel, until psyne_link_close().
 *
 * -EINVAL: no tcp:// address, or a key that is not a link's; -ENOTSUP: inline=1, a channel that is inlined, ipc:// with
 * nothread=1, what zerocopy=require asks for; -EMEDIUMTYPE: the group is shared; -ESHUTDOWN: it is stopped; -ENOMEM, -EMFILE,
 * -EADDRINUSE, -EACCES and what name service and key files say; -EOWNERDEAD.
 */
int psyne_link_open(struct psyne_channel *ch, const char *uri, struct psyne_link **ret) {
        CANCEL_HOLD;
        _cleanup_(cleanup_freep) struct uri *u = NULL;
        struct psyne_link *l;
        struct links *s = NULL;
        int r;

        if (!ch || !uri || !ret)
                return error_set(-EINVAL, "psyne_link_open: channel, address or result is missing");
        error_clear();
        r = channel_check(ch);
        if (r < 0)
                return r;
        if (channel_stop_state(ch) == 2)
                return error_set(-ESHUTDOWN, "%s is stopped", ch->uri);
        u = malloc(sizeof(*u));
        if (!u)
                return error_set(-ENOMEM, "no memory for an address");
        r = uri_parse(uri, u);
        if (r == 0)
                r = added_check(ch, u);
        if (r == 0)
                r = link_new(ch, u, &l);
        if (r < 0)
                return r;
        l->added = true;
        snprintf(l->group, sizeof(l->group), "%s", u->group);
        if (u->behind == URI_BEHIND_EJECTED)
                l->eject_ns = uri_has(u, URI_EJECT) ? (int64_t)u->eject_ns : EJECT_DEFAULT_NS;
        r = links_for(ch, &s);
        if (r < 0) {
                link_free(l);
                return r;
        }
        (void)channel_ref(ch);
        link_begin(l, s);
        *ret = l;
        return 0;
}

/*
 * Ends it. What was committed before is sent first, and waited for as long as it arrives: up to a second without. The far end
 * learns that its producers are gone. The handle is gone. Accepts NULL, returns NULL. [not while another thread uses @l]
 */
struct psyne_link *psyne_link_close(struct psyne_link *l) {
        CANCEL_HOLD;
        struct psyne_channel *ch;

        if (!l)
                return NULL;
        ch = l->channel;
        if (!ch->forked)
                link_finish(l);
        link_free(l);
        (void)channel_unref(ch);
        return NULL;
}

/* ---- a channel's view ------------------------------------------------------------------------------------------------ */

void link_changed(const struct psyne_channel *ch) {
        struct links *s = links_of(ch);

        if (s)
                (void)psyne_waitset_wake(s->set);
}

int link_refused(const struct psyne_channel *ch) {
        struct links *s = links_of(ch);
        int r = 0;

        if (!s)
                return 0;
        pthread_mutex_lock(&s->lock);
        for (const struct psyne_link *l = s->list; l && r == 0; l = l->next)
                if (l->channel == ch && l->refused < 0)
                        r = error_set(l->refused, "%s: %s", l->uri, l->refusal);
        pthread_mutex_unlock(&s->lock);
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
                n = links_turn(links_of(ch), deadline);
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

/* The local port: of the listener, or 0 if this is no tcp:// channel that listens. [any thread] */
int psyne_port(const struct psyne_channel *ch) {
        return ch && !ch->forked && ch->link ? ch->link->port : 0;
}

/* The same of an added one: 0 if it does not listen. [any thread] */
int psyne_link_port(const struct psyne_link *l) {
        return l && !l->channel->forked ? l->port : 0;
}

