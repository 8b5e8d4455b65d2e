/*
 * Who joins connects to everybody who is there and says who it is; both ends then hold a pidfd of the other and
 * send each other the rings they have mapped. Messages sent to a listener that has not accepted yet are kept by the
 * kernel with their descriptors, so handing a ring to a busy or stopped peer never waits, and what its producer
 * commits afterwards survives that producer.
 *
 * Death is a readable pidfd. A hang-up alone is only a reason to look at the slot's lock: a socket hangs up late,
 * and also on exec, where the pidfd stays silent but the lock goes.
 */
#include "lib/service.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/handover.h"
#include "uring/watch.h"

#define HAIL_MAGIC 0x656e79736c696168ull /* "hailsyne" */
#define EVENTS_AT_ONCE 32
#define LOOK_NS 2000000ll         /* between looks at the lock of one who hung up, where only that tells of a death */
#define LOOK_FOR_NS 1000000000ll  /* a process closes its files one by one as it dies; one that goes on has exec'ed */
#define AGAIN_NS 100000000ll      /* until what found no descriptor, no memory or no room in a socket is tried again */

/* LACK: something you sent found no descriptor here. Send all of it again, a little later. */
enum hail_kind { HAIL_HELLO = 1, HAIL_LANE = 2, HAIL_BELL = 3, HAIL_LACK = 4 };

/* What passes between service threads: one fixed record, a LANE one with the ring's descriptor, a BELL one with a handle. */
struct hail {
        uint64_t magic;
        uint16_t version, kind;
        uint32_t slot, generation;   /* who speaks */
        uint32_t capabilities;       /* LAYOUT_CAN_* */
        uint32_t lane, lane_generation; /* BELL: or a member's */
        uint32_t reply;              /* HELLO: this answers yours */
        uint64_t instance;           /* of the channel */
        uint64_t bytes;              /* of the ring; BELL: enum bells_side */
        uint64_t reserved[2];
};
static_assert(sizeof(struct hail) == 72, "the same everywhere");

struct connection {
        struct connection *next;
        struct psyne_channel *channel;
        uint64_t id;                 /* cookies: 2 * id the socket, 2 * id + 1 the pidfd */
        int sock, pidfd;             /* -1 = closed */
        int32_t slot;                /* -1 = has not said yet */
        uint32_t generation;
        bool waiting;                /* our HELLO is not answered yet */
        bool owed;                   /* a ring or a bell of ours has not reached it */
        bool lacks;                  /* it does not know yet that one of its own has not reached us */
        bool unwatched;              /* there is no pidfd to be had */
        int64_t look_until_ns;       /* it hung up, and its slot's lock will tell before that; 0 = it did not */
};

/* Per channel. */
struct service_state {
        int listener;
        uint64_t id;                 /* cookie: 2 * id */
        struct connection *connections;
        uint32_t handshakes;         /* atomic: HELLOs not answered yet */
        uint32_t owed;               /* atomic: connections that are */
        uint32_t unmet;              /* atomic: somebody is there whom we could not connect to */
        bool kept;                   /* somebody here waits for the ring of a lane that is closed, by one who is there */
        bool deaf;                   /* the listener is not watched, for nobody can be accepted */
        struct {
                uint32_t generation, tick;
                bool asked;
        } lost[LAYOUT_PRODUCERS_MAX];
};

struct service {
        struct watch *watch;
        pthread_t thread;
        sem_t ready;                 /* the thread has all it needs: from here on it allocates for new peers only */
        bool threaded, stop;
        bool looking;                /* at locks of connections that hung up */
        int64_t again_ns;            /* when to try again what was short of something, 0 = nothing was. Atomic */
        int misplaced;               /* why the thread runs where its opener does, 0 = it does not */
        unsigned users;
        uint32_t ticks;              /* turns of the loop: everything that was readable before was handled */
        struct psyne_channel *channels[256];
        unsigned n_channels;
};

static pthread_mutex_t service_lock = PTHREAD_MUTEX_INITIALIZER; /* all services; before any channel's lock */
static struct service *process_service;
static uint64_t next_id = 1;

void service_fork_prepare(void) {
        pthread_mutex_lock(&service_lock);
}

void service_fork_parent(void) {
        pthread_mutex_unlock(&service_lock);
}

static struct service_state *state_of(const struct psyne_channel *ch) {
        return ch->service_state;
}

/* ---- what was short of something --------------------------------------------------------------------------------- */

static void again(struct service *s) {
        if (__atomic_load_n(&s->again_ns, __ATOMIC_RELAXED))
                return;
        __atomic_store_n(&s->again_ns, clock_ns() + AGAIN_NS, __ATOMIC_RELAXED);
        (void)watch_wake(s->watch); /* it may be sleeping for longer */
}

/* Its end of what we sent may be missing: until it has all, who sleeps by a handle of ours looks up now and then. */
static void connection_owe(struct connection *k) {
        if (!k->owed)
                __atomic_fetch_add(&state_of(k->channel)->owed, 1, __ATOMIC_RELAXED);
        k->owed = true;
        again(k->channel->service);
}

static void connection_settle(struct connection *k) {
        if (k->owed)
                __atomic_fetch_sub(&state_of(k->channel)->owed, 1, __ATOMIC_RELAXED);
        k->owed = false;
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

static void connection_answered(struct connection *k) {
        if (k->waiting)
                __atomic_fetch_sub(&state_of(k->channel)->handshakes, 1, __ATOMIC_RELAXED);
        k->waiting = false;
}

static void connection_close_socket(struct connection *k) {
        connection_answered(k);
        connection_settle(k);
        if (k->sock < 0)
                return;
        (void)watch_remove(k->channel->service->watch, k->sock);
        close(k->sock);
        k->sock = -1;
}

static void connection_free(struct connection *k) {
        struct service_state *st = state_of(k->channel);

        connection_close_socket(k);
        if (k->pidfd >= 0) {
                (void)watch_remove(k->channel->service->watch, k->pidfd);
                close(k->pidfd);
        }
        for (struct connection **at = &st->connections; *at; at = &(*at)->next)
                if (*at == k) {
                        *at = k->next;
                        break;
                }
        free(k);
}

static struct connection *connection_find(struct service_state *st, uint64_t id) {
        struct connection *k;

        for (k = st->connections; k && k->id != id; k = k->next)
                ;
        return k;
}

/* Takes @sock over, on failure too. */
static int connection_new(struct psyne_channel *ch, int sock, struct connection **ret) {
        struct service_state *st = state_of(ch);
        struct watch *w = ch->service->watch;
        struct handover_peer who;
        struct connection *k;
        int r;

        r = handover_peer(sock, &who);
        if (r < 0) {
                close(sock);
                return r;
        }
        if (!handover_allowed(who.uid)) {
                close(sock);
                if (who.pidfd >= 0)
                        close(who.pidfd);
                return error_set(-EACCES, "a process of user %u is not allowed on %s", (unsigned)who.uid, ch->uri);
        }
        k = calloc(1, sizeof(*k));
        if (!k) {
                close(sock);
                if (who.pidfd >= 0)
                        close(who.pidfd);
                return -ENOMEM;
        }
        *k = (struct connection){.channel = ch, .id = next_id++, .sock = sock, .pidfd = who.pidfd, .slot = -1, .unwatched = who.refused};
        if (who.refused) {
                char why[64];

                snprintf(why, sizeof(why), "pidfd_open: %s", strerror(who.refused));
                layout_fact_set(&ch->view, LAYOUT_SCOPE_CHANNEL, 0, "deaths", "pidfd", "hang-up and lock", why,
                        "allow pidfd_open in the seccomp profile");
        }
        k->next = st->connections;
        st->connections = k;
        r = watch_add(w, sock, EPOLLIN, (void *)(uintptr_t)(2 * k->id));
        if (r == 0 && k->pidfd >= 0)
                r = watch_add(w, k->pidfd, EPOLLIN, (void *)(uintptr_t)(2 * k->id + 1));
        if (r < 0) {
                connection_free(k);
                return r;
        }
        *ret = k;
        return 0;
}

static struct hail hail_make(const struct psyne_channel *ch, enum hail_kind kind) {
        const struct layout_peer *p = &ch->view.peers[ch->slot];

        return (struct hail){
                .magic = HAIL_MAGIC,
                .version = 1,
                .kind = (uint16_t)kind,
                .slot = ch->slot,
                .generation = p->generation,
                .capabilities = process_has_membarrier() ? LAYOUT_CAN_MEMBARRIER : 0,
                .instance = ch->view.config.instance,
        };
}

static int send_hello(struct connection *k, bool reply) {
        struct hail h = hail_make(k->channel, HAIL_HELLO);

        h.reply = reply;
        return handover_send(k->sock, &h, sizeof(h), -1);
}

static int send_lane(struct connection *k, uint32_t lane) {
        struct psyne_channel *ch = k->channel;
        struct hail h = hail_make(ch, HAIL_LANE);
        const struct segment *s;
        int r = 0;

        pthread_mutex_lock(&ch->lock);
        s = &ch->lanes[lane].segment;
        if (s->base) {
                h.lane = lane;
                h.lane_generation = ch->lanes[lane].generation;
                h.bytes = s->bytes;
                r = handover_send(k->sock, &h, sizeof(h), s->fd);
        }
        pthread_mutex_unlock(&ch->lock);
        if (r < 0 && r != -EPIPE)
                connection_owe(k);
        return r;
}

static void send_all_lanes(struct connection *k) {
        pthread_mutex_lock(&k->channel->lock);
        membership_prune_lanes(k->channel); /* rings nobody will read again */
        pthread_mutex_unlock(&k->channel->lock);
        for (uint32_t i = 0; i < k->channel->view.n_lanes; i++)
                (void)send_lane(k, i);
}

static int send_bell(struct connection *k, struct psyne_endpoint *e) {
        struct hail h = hail_make(k->channel, HAIL_BELL);
        enum bells_side side;
        int r;

        if (!e->bell || bell_handle(e->bell) < 0)
                return 0;
        endpoint_row(e, &side, &h.lane, &h.lane_generation);
        h.bytes = side;
        r = handover_send(k->sock, &h, sizeof(h), bell_handle(e->bell));
        if (r < 0 && r != -EPIPE)
                connection_owe(k);
        return r;
}

static void send_all_bells(struct connection *k) {
        struct psyne_channel *ch = k->channel;

        pthread_mutex_lock(&ch->lock);
        for (struct psyne_producer *p = ch->producers; p; p = p->next)
                (void)send_bell(k, &p->endpoint);
        for (struct psyne_consumer *c = ch->consumers; c; c = c->next)
                (void)send_bell(k, &c->endpoint);
        pthread_mutex_unlock(&ch->lock);
}

static bool is_there(const struct psyne_channel *ch, uint32_t slot) {
        const struct layout_peer *p = &ch->view.peers[slot];

        return slot != ch->slot && __atomic_load_n(&p->state, __ATOMIC_SEQ_CST) == LAYOUT_ACTIVE &&
               __atomic_load_n(&p->capabilities, __ATOMIC_SEQ_CST) & LAYOUT_CAN_SERVE;
}

static struct connection *connection_to(struct service_state *st, uint32_t slot, uint32_t generation) {
        struct connection *k;

        for (k = st->connections; k; k = k->next)
                if (k->slot == (int32_t)slot && k->generation == generation && k->sock >= 0)
                        break;
        return k;
}

/* Connects to whoever holds @slot and says hello. */
static int connect_to(struct psyne_channel *ch, uint32_t slot, struct connection **ret) {
        struct connection *k;
        uint32_t generation = __atomic_load_n(&ch->view.peers[slot].generation, __ATOMIC_ACQUIRE);
        int sock, r;

        r = handover_connect(ch->dirfd, ch->entry.inode, slot, &sock);
        if (r >= 0)
                r = connection_new(ch, sock, &k);
        if (r < 0) {
                if (r == -EMFILE || r == -ENFILE || r == -ENOMEM || r == -EAGAIN) { /* of ours, or its queue is full */
                        __atomic_store_n(&state_of(ch)->unmet, 1, __ATOMIC_RELAXED);
                        again(ch->service);
                }
                return r;
        }
        k->slot = (int32_t)slot;
        k->generation = generation;
        k->waiting = true;
        __atomic_fetch_add(&state_of(ch)->handshakes, 1, __ATOMIC_RELAXED);
        r = send_hello(k, false);
        if (r < 0) {
                connection_free(k);
                return r;
        }
        *ret = k;
        return 0;
}

/* ---- deaths ------------------------------------------------------------------------------------------------------ */

static void peer_is_dead(struct psyne_channel *ch, uint32_t slot, uint32_t generation) {
        const struct layout_peer *p = &ch->view.peers[slot];

        if (__atomic_load_n(&p->generation, __ATOMIC_ACQUIRE) == generation &&
                __atomic_load_n(&p->state, __ATOMIC_ACQUIRE) != LAYOUT_FREE)
                membership_died(ch, slot, generation);
}

static void on_hangup(struct connection *k) {
        struct psyne_channel *ch = k->channel;

        connection_close_socket(k);
        bells_strike_own(ch);
        if (k->slot < 0) {
                connection_free(k);
                return;
        }
        if (entry_slot_alive(&ch->entry, (unsigned)k->slot) == 0) {
                peer_is_dead(ch, (uint32_t)k->slot, k->generation);
                connection_free(k);
        } else if (k->unwatched && !k->look_until_ns) {
                k->look_until_ns = clock_ns() + LOOK_FOR_NS;
                ch->service->looking = true;
        } else if (k->pidfd < 0)
                connection_free(k);
        /* else: the lock is still held; the pidfd will tell */
}

/* Those who hung up where no pidfd tells what for. */
static void look_at_locks(struct service *s) {
        s->looking = false;
        for (unsigned i = 0; i < s->n_channels; i++) {
                struct psyne_channel *ch = s->channels[i];
                struct connection *k, *next;

                for (k = state_of(ch)->connections; k; k = next) {
                        next = k->next;
                        if (!k->look_until_ns)
                                continue;
                        if (entry_slot_alive(&ch->entry, (unsigned)k->slot) == 0)
                                peer_is_dead(ch, (uint32_t)k->slot, k->generation);
                        else if (clock_ns() < k->look_until_ns) {
                                s->looking = true;
                                continue;
                        }
                        connection_free(k);
                }
        }
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/* A peer may not call membarrier: our stores before its looks need fences from now on. */
static void switch_to_fences(struct psyne_channel *ch) {
        pthread_mutex_lock(&ch->lock);
        __atomic_store_n(&ch->fence, 1, __ATOMIC_SEQ_CST);
        for (struct psyne_producer *p = ch->producers; p; p = p->next)
                __atomic_store_n(&p->tx.hot.fence, 1, __ATOMIC_RELAXED);
        for (struct psyne_consumer *c = ch->consumers; c; c = c->next)
                __atomic_store_n(&c->rx.hot.fence, 1, __ATOMIC_RELAXED);
        pthread_mutex_unlock(&ch->lock);
}

static void on_hello(struct connection *k, const struct hail *h) {
        struct psyne_channel *ch = k->channel;

        k->slot = (int32_t)h->slot;
        k->generation = h->generation;
        if (!(h->capabilities & LAYOUT_CAN_MEMBARRIER) ||
                __atomic_load_n(&ch->view.header->barrier_fence, __ATOMIC_SEQ_CST)) {
                switch_to_fences(ch);
                /* Running threads of ours have the new word before the peer hears from us. */
                (void)wake_barrier_expedited();
        }
        if (h->reply) {
                connection_answered(k);
                wake_local(ch);
        } else
                (void)send_hello(k, true);
        send_all_lanes(k);
        send_all_bells(k);
}

/* Nothing that a write can wait for or change: of the files without a type, which are the kernel's own kinds, eventfds are
 * the ones that take one. */
static bool is_handle(int fd) {
        struct stat st;

        return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == 0 && fcntl(fd, F_GETFL) & O_NONBLOCK;
}

/* Takes @fd over. */
static void on_bell(struct connection *k, const struct hail *h, int fd) {
        struct psyne_channel *ch = k->channel;
        const struct layout_view *v = &ch->view;
        uint64_t asleep;
        uint32_t owner, generation;
        int r = -EINVAL;

        if (fd < 0)
                return;
        if (h->bytes < BELLS_SIDES && h->lane < (h->bytes == BELLS_LANE ? v->n_lanes : v->n_members) && is_handle(fd)) {
                (void)membership_row_state(h->bytes == BELLS_LANE ? (const void *)&v->lanes[h->lane]
                                                                  : (const void *)&v->members[h->lane], &owner);
                generation = __atomic_load_n(h->bytes == BELLS_LANE ? &v->lanes[h->lane].generation
                                                                    : &v->members[h->lane].generation, __ATOMIC_ACQUIRE);
                /* Nobody rings for somebody else, nor for who was there before. */
                r = layout_owner_slot(owner) == h->slot && generation == h->lane_generation ? 0 : -EACCES;
        }
        if (r < 0) {
                close(fd);
                return;
        }
        pthread_mutex_lock(&ch->lock);
        r = bells_put(ch, (enum bells_side)h->bytes, h->lane, h->lane_generation, fd);
        pthread_mutex_unlock(&ch->lock);
        /* A waker that saw its bit and not this handle struck nothing: then we see the bit. Pairs with the exchange that
         * sets it. */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        asleep = __atomic_load_n(h->bytes == BELLS_LANE ? &v->header->waiters : &v->header->sleepers, __ATOMIC_ACQUIRE);
        if (r == 0 && asleep & 1ull << h->lane) /* it may be owed a wake */
                (void)bells_strike(ch, (enum bells_side)h->bytes, h->lane, h->lane_generation);
}

/* Takes @fd over. */
static void on_lane(struct connection *k, const struct hail *h, int fd) {
        struct psyne_channel *ch = k->channel;
        const struct layout_view *v = &ch->view;
        struct segment_identity id;
        struct segment s;
        struct layout_lane *l;
        bool have;

        if (fd < 0)
                return;
        if (h->lane >= v->n_lanes || h->bytes != v->config.ring_bytes) {
                close(fd);
                return;
        }
        l = &v->lanes[h->lane];
        pthread_mutex_lock(&ch->lock);
        have = ch->lanes[h->lane].segment.base && ch->lanes[h->lane].generation == h->lane_generation;
        pthread_mutex_unlock(&ch->lock);
        /* One that is free again was on its way while its reader finished it: there is nothing in it. */
        if (have || __atomic_load_n(&l->generation, __ATOMIC_ACQUIRE) != h->lane_generation ||
                __atomic_load_n(&l->state, __ATOMIC_ACQUIRE) == LAYOUT_FREE) {
                close(fd);
                return;
        }
        id = (struct segment_identity){.device = l->device, .inode = l->inode};
        if (segment_import(&s, fd, v->config.ring_bytes, v->config.flags & LAYOUT_CHANNEL_IN_PLACE, &id) < 0)
                return;
        pthread_mutex_lock(&ch->lock);
        if (ch->lanes[h->lane].owned || /* not by a peer that keeps to the rules */
                membership_map_lane(ch, h->lane, &s, h->lane_generation, false) < 0) {
                pthread_mutex_unlock(&ch->lock);
                segment_deinit(&s);
                return;
        }
        pthread_mutex_unlock(&ch->lock);
        FAULT_POINT("service.imported");
        wake_local(ch);
}

static void lack(struct connection *k) {
        struct hail h = hail_make(k->channel, HAIL_LACK);
        int r = handover_send(k->sock, &h, sizeof(h), -1);

        k->lacks = r < 0 && r != -EPIPE;
        if (k->lacks)
                again(k->channel->service);
}

static void on_readable(struct connection *k) {
        struct psyne_channel *ch = k->channel;

        for (;;) {
                struct hail h;
                int fd = -1, r;

                if (k->sock < 0)
                        return;
                r = handover_recv(k->sock, &h, sizeof(h), &fd);
                if (r == -EAGAIN)
                        return;
                if (r == -EMFILE) { /* the message is gone, and who sent it does not know */
                        lack(k);
                        continue;
                }
                if (r < 0) { /* gone, or it speaks nonsense: then we do not speak with it */
                        on_hangup(k);
                        return;
                }
                if (h.magic != HAIL_MAGIC || h.version != 1 || h.instance != ch->view.config.instance ||
                        h.slot >= ch->view.n_peers || h.slot == ch->slot ||
                        (k->slot >= 0 ? (uint32_t)k->slot != h.slot : h.kind != HAIL_HELLO)) {
                        if (fd >= 0)
                                close(fd);
                        on_hangup(k);
                        return;
                }
                if (h.kind == HAIL_LANE)
                        on_lane(k, &h, fd);
                else if (h.kind == HAIL_BELL)
                        on_bell(k, &h, fd);
                else {
                        if (fd >= 0)
                                close(fd);
                        if (h.kind == HAIL_HELLO)
                                on_hello(k, &h);
                        else if (h.kind == HAIL_LACK) {
                                connection_owe(k);
                                bells_strike_own(ch); /* who sleeps does not know yet */
                        }
                }
        }
}

static void on_accept(struct psyne_channel *ch) {
        struct service_state *st = state_of(ch);
        struct connection *k = NULL;
        int sock, r;

        for (;;) {
                r = handover_accept(st->listener, &sock);
                if (r == -EAGAIN)
                        return;
                if (r < 0) { /* no descriptor: it would stay readable */
                        if (!st->deaf && watch_remove(ch->service->watch, st->listener) == 0)
                                st->deaf = true;
                        again(ch->service);
                        return;
                }
                r = connection_new(ch, sock, &k);
                if (r < 0)
                        continue;
                on_readable(k); /* its hello is usually there already */
        }
}

/* To everybody who is there, and whom we do not know yet. */
static void meet(struct psyne_channel *ch) {
        struct service_state *st = state_of(ch);
        struct connection *k;

        __atomic_store_n(&st->unmet, 0, __ATOMIC_RELAXED);
        for (uint32_t i = 0; i < ch->view.n_peers; i++) {
                struct layout_peer *p = &ch->view.peers[i];
                uint32_t generation = __atomic_load_n(&p->generation, __ATOMIC_ACQUIRE);

                if (!is_there(ch, i))
                        continue;
                if (entry_slot_alive(&ch->entry, i) == 0)
                        peer_is_dead(ch, i, generation);
                else if (!connection_to(st, i, generation))
                        (void)connect_to(ch, i, &k); /* one that does not answer now can still come to us */
        }
}

/* Somebody may not have a handle of ours. */
bool service_owes(const struct psyne_channel *ch) {
        const struct service_state *st = state_of(ch);

        return ch->service && (__atomic_load_n(&st->owed, __ATOMIC_RELAXED) || __atomic_load_n(&st->unmet, __ATOMIC_RELAXED));
}

static void try_again(struct service *s) {
        __atomic_store_n(&s->again_ns, 0, __ATOMIC_RELAXED);
        for (unsigned i = 0; i < s->n_channels; i++) {
                struct psyne_channel *ch = s->channels[i];
                struct service_state *st = state_of(ch);

                if (st->deaf) {
                        st->deaf = watch_add(s->watch, st->listener, EPOLLIN, (void *)(uintptr_t)(2 * st->id)) < 0;
                        on_accept(ch);
                }
                if (st->kept)
                        wake_local(ch);
                st->kept = false;
                if (__atomic_load_n(&st->unmet, __ATOMIC_RELAXED))
                        meet(ch);
                for (struct connection *k = st->connections; k; k = k->next) {
                        if (k->sock < 0)
                                continue;
                        if (k->lacks)
                                lack(k);
                        if (k->owed) {
                                connection_settle(k);
                                send_all_lanes(k);
                                send_all_bells(k);
                        }
                }
                if (service_owes(ch))
                        bells_strike_own(ch);
        }
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

static void dispatch(struct service *s, uint64_t cookie) {
        for (unsigned i = 0; i < s->n_channels; i++) {
                struct psyne_channel *ch = s->channels[i];
                struct service_state *st = state_of(ch);

                if (cookie == 2 * st->id) {
                        on_accept(ch);
                        return;
                }
                for (struct connection *k = st->connections; k; k = k->next) {
                        if (cookie == 2 * k->id) {
                                on_readable(k);
                                return;
                        }
                        if (cookie == 2 * k->id + 1) {
                                /* What it sent before it died is still in the socket, or in one that is not
                                 * accepted yet: rings above all. */
                                uint64_t id = k->id;

                                on_readable(k);
                                on_accept(ch);
                                k = connection_find(st, id);
                                if (k && k->slot >= 0)
                                        peer_is_dead(ch, (uint32_t)k->slot, k->generation);
                                if (k)
                                        connection_free(k);
                                return;
                        }
                }
        }
        /* not found: freed earlier in this turn */
}

static int turn(struct service *s, int64_t deadline_ns) {
        struct watch_event events[EVENTS_AT_ONCE];
        int64_t due_ns = __atomic_load_n(&s->again_ns, __ATOMIC_RELAXED);
        int n;

        if (due_ns && due_ns < deadline_ns)
                deadline_ns = due_ns;
        if (s->looking) {
                int64_t soon = clock_ns() + LOOK_NS;

                deadline_ns = soon < deadline_ns ? soon : deadline_ns;
        }
        n = watch_wait(s->watch, events, EVENTS_AT_ONCE, deadline_ns);
        pthread_mutex_lock(&service_lock);
        for (int i = 0; i < n; i++)
                dispatch(s, (uint64_t)(uintptr_t)events[i].cookie);
        if (s->looking)
                look_at_locks(s);
        due_ns = __atomic_load_n(&s->again_ns, __ATOMIC_RELAXED);
        if (due_ns && clock_ns() >= due_ns)
                try_again(s);
        s->ticks++;
        for (unsigned i = 0; i < s->n_channels; i++)
                for (unsigned l = 0; l < LAYOUT_PRODUCERS_MAX; l++)
                        if (state_of(s->channels[i])->lost[l].asked) {
                                state_of(s->channels[i])->lost[l].asked = false;
                                wake_local(s->channels[i]);
                        }
        pthread_mutex_unlock(&service_lock);
        return n;
}

static void *service_run(void *arg) {
        struct service *s = arg;

        (void)pthread_setname_np(pthread_self(), "psyne-io");
        watch_prepare(s->watch);
        sem_post(&s->ready);
        while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE))
                (void)turn(s, CLOCK_FOREVER);
        return NULL;
}

static void service_free(struct service *s) {
        sem_destroy(&s->ready);
        watch_free(s->watch);
        free(s);
}

static int service_new(bool threaded, struct service **ret) {
        struct service *s;
        pthread_attr_t attr;
        cpu_set_t cpus;
        sigset_t all, old;
        int r;

        s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->threaded = threaded;
        sem_init(&s->ready, 0, 0);
        r = watch_new(&s->watch);
        if (r < 0) {
                service_free(s);
                return r;
        }
        if (threaded) {
                /* No signal of the application's may land here. */
                sigfillset(&all);
                pthread_sigmask(SIG_SETMASK, &all, &old);
                /* The opener may be pinned beside its data; this thread keeps out of its way where the process may. Where
                 * a filter refuses the placing, it is better there than nowhere. */
                pthread_attr_init(&attr);
                if (sched_getaffinity(getpid(), sizeof(cpus), &cpus) == 0)
                        (void)pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
                r = -pthread_create(&s->thread, &attr, service_run, s);
                pthread_attr_destroy(&attr);
                if (r == -EPERM || r == -ENOSYS) {
                        s->misplaced = r;
                        r = -pthread_create(&s->thread, NULL, service_run, s);
                }
                pthread_sigmask(SIG_SETMASK, &old, NULL);
                if (r < 0) {
                        service_free(s);
                        return r;
                }
                while (sem_wait(&s->ready) < 0 && errno == EINTR)
                        ;
        }
        *ret = s;
        return 0;
}

int service_join(struct psyne_channel *ch) {
        bool threaded = !(ch->flags & PSYNE_NO_THREAD);
        struct service_state *st;
        struct service *s;
        int r = 0;

        st = calloc(1, sizeof(*st));
        if (!st)
                return error_set(-ENOMEM, "no memory for a channel's service");
        st->listener = -1;
        pthread_mutex_lock(&service_lock);
        s = threaded ? process_service : NULL;
        if (!s)
                r = service_new(threaded, &s);
        if (r == 0 && s->n_channels == sizeof(s->channels) / sizeof(s->channels[0]))
                r = -EUSERS;
        if (r < 0) {
                pthread_mutex_unlock(&service_lock);
                free(st);
                return error_default(r, "starting the service thread: %s", strerror(-r));
        }
        if (threaded)
                process_service = s;
        s->users++;
        ch->service = s;
        ch->service_state = st;
        st->id = next_id++;
        s->channels[s->n_channels++] = ch;
        r = handover_listen(ch->dirfd, ch->entry.inode, ch->slot, 0600, &st->listener);
        if (r == 0)
                r = watch_add(s->watch, st->listener, EPOLLIN, (void *)(uintptr_t)(2 * st->id));
        if (r < 0) {
                pthread_mutex_unlock(&service_lock);
                return error_default(r, "listening for peers: %s", strerror(-r)); /* channel_free() leaves */
        }
        if (s->misplaced) {
                char why[64];

                snprintf(why, sizeof(why), "sched_setaffinity: %s", strerror(-s->misplaced));
                layout_fact_set(&ch->view, LAYOUT_SCOPE_CHANNEL, 0, "thread", "process's CPUs", "its opener's CPUs", why,
                        "allow sched_setaffinity in the seccomp profile");
        }
        FAULT_POINT("service.listening");
        /* Two that join at the same time: the one whose flag is set last sees the other's. */
        __atomic_fetch_or(&ch->view.peers[ch->slot].capabilities, LAYOUT_CAN_SERVE, __ATOMIC_SEQ_CST);
        meet(ch);
        pthread_mutex_unlock(&service_lock);
        return 0;
}

void service_leave(struct psyne_channel *ch) {
        struct service *s = ch->service;
        struct service_state *st = state_of(ch);
        bool last;

        if (ch->forked) {
                free(st);
                return;
        }
        pthread_mutex_lock(&service_lock);
        while (st->connections)
                connection_free(st->connections);
        if (st->listener >= 0) {
                (void)watch_remove(s->watch, st->listener);
                (void)handover_unlink(ch->dirfd, ch->entry.inode, ch->slot);
                close(st->listener);
        }
        for (unsigned i = 0; i < s->n_channels; i++)
                if (s->channels[i] == ch) {
                        s->channels[i] = s->channels[--s->n_channels];
                        break;
                }
        ch->service = NULL;
        ch->service_state = NULL;
        free(st);
        last = --s->users == 0;
        if (last && s == process_service)
                process_service = NULL;
        pthread_mutex_unlock(&service_lock);
        if (last) {
                if (s->threaded) {
                        __atomic_store_n(&s->stop, true, __ATOMIC_RELEASE);
                        (void)watch_wake(s->watch);
                        pthread_join(s->thread, NULL);
                }
                service_free(s);
        }
}

/* To everybody who is there: a lane's ring, or an endpoint's bell. */
static void announce(struct psyne_channel *ch, uint32_t lane, struct psyne_endpoint *e) {
        if (!ch->service)
                return;
        pthread_mutex_lock(&service_lock);
        for (uint32_t i = 0; i < ch->view.n_peers; i++) {
                uint32_t generation = __atomic_load_n(&ch->view.peers[i].generation, __ATOMIC_ACQUIRE);
                struct connection *k;

                if (!is_there(ch, i))
                        continue;
                k = connection_to(state_of(ch), i, generation);
                if (k || connect_to(ch, i, &k) == 0)
                        (void)(e ? send_bell(k, e) : send_lane(k, lane));
        }
        pthread_mutex_unlock(&service_lock);
}

void service_announce_lane(struct psyne_channel *ch, uint32_t lane) {
        announce(ch, lane, NULL);
}

void service_announce_bell(struct psyne_channel *ch, struct psyne_endpoint *e) {
        announce(ch, 0, e);
}

bool service_lane_lost(struct psyne_channel *ch, uint32_t lane, uint32_t generation) {
        struct service_state *st;
        struct layout_lane *l = &ch->view.lanes[lane];
        bool lost = false;

        if (!ch->service)
                return true;
        pthread_mutex_lock(&service_lock);
        st = state_of(ch);
        /* While its owner's process lives, that one has the ring and will send it: unless it leaves first, of which nobody is told. */
        if (membership_owner_alive(ch, l->owner)) {
                st->kept = true;
                again(ch->service);
                pthread_mutex_unlock(&service_lock);
                return false;
        }
        if (st->lost[lane].generation != generation) {
                st->lost[lane].generation = generation;
                st->lost[lane].tick = ch->service->ticks;
        }
        /* Two whole turns since we first asked: whatever was on its way when its owner died has arrived. */
        if (ch->service->ticks - st->lost[lane].tick >= 3 && !__atomic_load_n(&st->handshakes, __ATOMIC_RELAXED))
                lost = true;
        else
                st->lost[lane].asked = true;
        pthread_mutex_unlock(&service_lock);
        if (!lost)
                (void)watch_wake(ch->service->watch);
        return lost;
}

int service_poll(struct psyne_channel *ch, int64_t timeout_ns) {
        return turn(ch->service, timeout_ns == PSYNE_NOWAIT ? 0 : clock_deadline_ns(timeout_ns));
}

/* Takes what peers have sent, for a thread that cannot wait for the next psyne_poll(). No lock of the channel's held. */
void service_take(const struct psyne_channel *ch) {
        CANCEL_HOLD;
        struct connection *k, *next;

        if (!ch->service)
                return;
        pthread_mutex_lock(&service_lock);
        on_accept((struct psyne_channel *)(uintptr_t)ch);
        for (k = state_of(ch)->connections; k; k = next) {
                next = k->next;
                on_readable(k);
        }
        pthread_mutex_unlock(&service_lock);
}

bool service_handshaking(const struct psyne_channel *ch) {
        return ch->service && __atomic_load_n(&state_of(ch)->handshakes, __ATOMIC_RELAXED) != 0;
}

void service_after_fork_child(struct psyne_channel *ch) {
        struct service_state *st = state_of(ch);

        if (!ch->service)
                return;
        for (struct connection *k = st->connections; k; k = k->next) {
                if (k->sock >= 0)
                        close(k->sock);
                if (k->pidfd >= 0)
                        close(k->pidfd);
        }
        if (st->listener >= 0)
                close(st->listener);
        watch_after_fork_child(ch->service->watch); /* idempotent: channels share it */
        process_service = NULL;
}
