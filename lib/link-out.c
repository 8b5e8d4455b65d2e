/* The end of a link that sends: see link.h. */
#include "lib/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

#include "shm/bulk.h"
#include "shm/group.h"

#define CONNECT_WITHIN_NS 5000000000ll
#define RETRY_FIRST_NS 1000000ll
#define RETRY_MOST_NS 250000000ll
#define TURNS_MOST 64u /* reads of one connection before others have their turn */

/* A channel's own link has the default one, whether it reads or not; an added one has what its reader is in. */
static uint32_t group_of(const struct psyne_link *l) {
        return l->added ? l->reader->group : 0;
}

static struct lane_rx *place_of(const struct outbound *o) {
        struct psyne_consumer *c = o->link->reader;

        return c && o->taken && c->generations[o->lane] == o->generation ? walk_end(c, o->lane) : NULL;
}

static uint32_t crc_of_span(void *ctx, uint64_t position, size_t n) {
        const struct outbound *o = ctx;

        if (o->link->unchecked)
                return 0;
        return link_crc32c(0, bulk_at(place_of(o), position), n);
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

static struct outbound *outbound_new(struct psyne_link *l) {
        const struct layout_config *config = &l->channel->view.config;
        struct link_hello hello = {
                .ring_bytes = config->ring_bytes,
                .type_hash = config->type_hash,
                .record_align = config->record_align,
                .mode = l->mode,
                .type_id = config->type_id,
                .name_bytes = (uint32_t)strlen(l->name),
                .elem_bytes = config->elem_bytes,
                .features = l->unchecked ? LINK_UNCHECKED : 0,
        };
        struct outbound *o = calloc(1, sizeof(*o));
        uint64_t session = 0;

        if (!o)
                return NULL;
        while (!session)
                if (getrandom(&session, sizeof(session), 0) < 0)
                        session = (uint64_t)clock_ns() * 0x9e3779b97f4a7c15ull;
        *o = (struct outbound){.link = l, .socket = {.what = WATCHED_OUTBOUND}, .fd = -1};
        o->socket.of = o;
        memcpy(hello.name, l->name, hello.name_bytes);
        link_tx_init(&o->tx, session, &hello, crc_of_span, o);
        if (l->key)
                link_tx_key(&o->tx, key_mac, l->key);
        o->lost_ns = clock_ns();
        o->next = l->out;
        l->out = o;
        return o;
}

static void outbound_drop_socket(struct outbound *o) {
        if (o->fd < 0)
                return;
        link_watch(o->link, &o->socket, o->fd, 0);
        o->zc = wire_zc_free(o->link->links->wire, o->zc);
        close(o->fd);
        o->fd = -1;
        o->connecting = o->blocked = false;
}

static void outbound_free(struct outbound *o) {
        for (struct outbound **at = &o->link->out; *at; at = &(*at)->next)
                if (*at == o) {
                        *at = o->next;
                        break;
                }
        outbound_drop_socket(o);
        o->dead = true; /* an event of this turn may still name it */
        o->grave = o->link->links->outbound_graves;
        o->link->links->outbound_graves = o;
}

/* Later each time, and not all of them at once. */
static void outbound_lost(struct outbound *o, int64_t now) {
        struct psyne_link *l = o->link;
        int64_t wait = RETRY_FIRST_NS << (o->attempts < 8 ? o->attempts : 8);

        link_tx_lost(&o->tx);
        outbound_drop_socket(o);
        if (!o->lost_ns)
                o->lost_ns = now;
        l->random = l->random * 6364136223846793005ull + 1442695040888963407ull;
        wait = wait < RETRY_MOST_NS ? wait : RETRY_MOST_NS;
        o->retry_ns = now + wait / 2 + (int64_t)((l->random >> 33) % (uint64_t)wait);
        o->attempts++;
}

static void outbound_up(struct outbound *o, int64_t now) {
        uint64_t nonce[2];

        o->connecting = false;
        o->connections++;
        /* Not where what still lies in the socket could be written again, and nobody would notice. */
        if (o->link->zerocopy != URI_NEVER && !o->link->inlined && !(o->link->eject_ns && o->link->unchecked))
                o->zc = wire_zc_new(o->link->links->wire, o->link->zerocopy == URI_REQUIRE ? WIRE_ZC_ALWAYS : WIRE_ZC_TRY);
        if (key_random(nonce, sizeof(nonce)) < 0) { /* no connection without: it could be one of before */
                outbound_lost(o, now);
                return;
        }
        link_tx_connected(&o->tx, now, nonce);
}

static void outbound_connect(struct outbound *o, int64_t now) {
        struct psyne_link *l = o->link;
        int r = net_connect(&l->addresses[o->address++ % l->n_addresses], &l->options, &o->fd);

        if (r < 0 && r != -EINPROGRESS) {
                outbound_lost(o, now);
                return;
        }
        o->connecting = r < 0;
        o->tx.deadline_ns = now + CONNECT_WITHIN_NS;
        link_watch(l, &o->socket, o->fd, o->connecting ? EPOLLOUT : EPOLLIN);
        if (!o->connecting)
                outbound_up(o, now);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* What is held in the lanes that the reader does not stand in. */
static void recount(struct psyne_consumer *c) {
        c->held_away = 0;
        for (uint64_t left = c->open; left; left &= left - 1) {
                uint32_t lane = (uint32_t)__builtin_ctzll(left);

                if ((int32_t)lane != c->lane)
                        c->held_away += c->lanes[lane].hot.held;
        }
}

/* The next frame: what has been committed since the last one. */
static void outbound_commit(struct outbound *o, struct lane_rx *x) {
        uint64_t ring = o->tx.hello.ring_bytes, most = ring / 4 < LINK_FRAME_BYTES ? ring / 4 : LINK_FRAME_BYTES;
        int64_t n;

        if (o->link->last_known && o->last - o->tx.sent < most) /* on a record's end */
                most = o->last - o->tx.sent;
        n = most ? bulk_span(x, o->tx.sent, most) : 0;

        if (n == -EBADMSG && o->link->added) { /* the other end's doing, perhaps: not everybody's trouble */
                o->link->senseless = true;
                link_due(o->link, 0);
        } else if (n == -EBADMSG && !o->tx.has_end) { /* nothing behind it can be believed */
                uint32_t active = LAYOUT_ACTIVE;

                __atomic_compare_exchange_n(&o->link->channel->view.lanes[o->lane].state, &active, LAYOUT_DAMAGED, false,
                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
                link_tx_close(&o->tx, o->tx.sent);
                wake_everyone(o->link->channel);
        }
        if (n <= 0)
                return;
        if (o->tx.sent == o->tx.acked)
                o->progress_ns = clock_ns();
        if (o->tx.sent + (uint64_t)n - x->hot.released > x->hot.taken - x->hot.released)
                bulk_take(x, o->tx.sent + (uint64_t)n);
        link_tx_commit(&o->tx, o->tx.sent + (uint64_t)n);
}

/* What cannot be sent now is taken all the same: the reader is not woken for it again and again. */
static void take_what_waits(struct outbound *o) {
        struct lane_rx *x = place_of(o);
        int64_t n = x ? bulk_span(x, x->hot.taken, x->hot.mask + 1) : 0;

        if (n > 0)
                bulk_take(x, x->hot.taken + (uint64_t)n);
}

/* -errno: hang up. */
static int outbound_send(struct outbound *o) {
        struct lane_rx *x = place_of(o);

        while (o->fd >= 0 && !o->connecting) {
                struct link_out out;
                struct iovec v[2];
                unsigned n = 0;
                ssize_t r;

                if (x && o->tx.state == LINK_OPEN && !o->tx.must_start && o->tx.tail == o->tx.sent && !o->tx.head_left &&
                        !o->tx.span_left)
                        outbound_commit(o, x);
                if (!link_tx_out(&o->tx, &out))
                        break;
                if (out.span_bytes && !x) /* nobody has the place where it lies any more */
                        return -EPIPE;
                if (out.head_bytes)
                        v[n++] = (struct iovec){(void *)(uintptr_t)out.head, out.head_bytes};
                if (out.span_bytes)
                        v[n++] = (struct iovec){(void *)(uintptr_t)bulk_at(x, out.position), out.span_bytes};
                r = out.span_bytes >= WIRE_LONG_BYTES ? wire_send_long(o->link->links->wire, o->fd, v, n, o->zc)
                                                     : wire_send(o->link->links->wire, o->fd, v, n);
                if (r == -EAGAIN) {
                        o->blocked = true;
                        return 0;
                }
                if (r < 0)
                        return (int)r;
                link_tx_wrote(&o->tx, (size_t)r);
        }
        o->blocked = false;
        return 0;
}

bool outbound_push(struct outbound *o) {
        if (o->fd < 0 || o->connecting || o->blocked || o->tx.state != LINK_OPEN)
                return true; /* it will be sent when that has changed */
        if (!place_of(o))
                return false;
        if (outbound_send(o) < 0)
                o->broken = true;
        recount(o->link->reader);
        return !o->broken && !o->blocked;
}

/* The other end has it. */
static void outbound_acknowledged(struct outbound *o) {
        struct lane_rx *x = place_of(o);

        if (!x || !o->tx.has_lane || o->tx.acked - x->hot.released > x->hot.mask + 1 || o->tx.acked == x->hot.released)
                return;
        o->progress_ns = clock_ns();
        o->attempts = 0;
        if (o->tx.acked - x->hot.released > x->hot.taken - x->hot.released)
                bulk_take(x, o->tx.acked); /* by the reader before this one */
        bulk_release(x, o->tx.acked);
        (void)lane_rx_publish(x);
        wake_producers(o->link->reader);
}

/* What the other end says is what somebody wrote into a socket. */
static void make_printable(char *text) {
        for (; *text; text++)
                if ((unsigned char)*text < 0x20 || (unsigned char)*text > 0x7e)
                        *text = '?';
}

static bool is_refusal(int r) {
        return r == -ENOENT || r == -EMEDIUMTYPE || r == -EUSERS || r == -ENOMEM || r == -EACCES || r == -ESHUTDOWN || r == -ENOTSUP;
}

/* Who waits for the other end learns of it. */
static void refused(struct psyne_link *l, int r, const char *sentence) {
        uint32_t *event = &l->channel->view.header->peers_event;

        l->refused = r;
        snprintf(l->refusal, sizeof(l->refusal), "%.*s", (int)sizeof(l->refusal) - 1, sentence);
        __atomic_fetch_add(event, 1, __ATOMIC_RELEASE);
        (void)park_wake_signal_safe(event, INT32_MAX);
}

static void outbound_receive(struct outbound *o, int64_t now) {
        struct psyne_link *l = o->link;
        unsigned char bytes[1024];

        for (unsigned turns = 0; turns < TURNS_MOST; turns++) {
                const struct iovec v = {bytes, sizeof(bytes)};
                ssize_t n = wire_receive(l->links->wire, o->fd, &v, 1);
                enum link_state before = o->tx.state;
                int r;

                if (n == -EAGAIN)
                        return;
                if (n <= 0) {
                        outbound_lost(o, now);
                        return;
                }
                if (l->options.quick_ack) {
                        net_acknowledge(o->fd);
                        o->quick_acks++;
                }
                r = link_tx_read(&o->tx, bytes, (size_t)n);
                if (before == LINK_MEETING && o->tx.state == LINK_OPEN) {
                        if (!o->taken) /* else: once something has arrived */
                                o->attempts = 0;
                        l->refused = 0;
                }
                if (o->tx.readers) /* another process may be there before its reader is */
                        o->lost_ns = 0;
                outbound_acknowledged(o);
                if (o->tx.stopped > channel_stop_state(l->channel))
                        (void)psyne_stop(l->channel, o->tx.stopped == 2 ? PSYNE_ABORT : PSYNE_DRAIN);
                if (r < 0) {
                        if (o->tx.state == LINK_ENDED) { /* refused */
                                make_printable(o->tx.refusal.sentence);
                                if (r != -EBUSY && r != -EPIPE)
                                        refused(l, is_refusal(r) ? r : -EPROTO, o->tx.refusal.sentence);
                                link_log(l, "refused: %s", o->tx.refusal.sentence);
                                o->tx.state = LINK_DOWN;
                                if (o->attempts < 8)
                                        o->attempts = 8;
                        }
                        outbound_lost(o, now);
                        return;
                }
                if (o->tx.state == LINK_ENDED) { /* goodbye, and goodbye */
                        outbound_drop_socket(o);
                        return;
                }
        }
}

void outbound_event(struct outbound *o, uint32_t events) {
        int64_t now = clock_ns();

        if (o->dead || o->fd < 0)
                return;
        if (o->connecting) {
                int r = net_outcome(o->fd);

                if (r < 0) {
                        outbound_lost(o, now);
                        return;
                }
                outbound_up(o, now);
                return;
        }
        o->writable = events & EPOLLOUT;
        if (events & ~(uint32_t)EPOLLOUT)
                outbound_receive(o, now);
}

/* ---- the reader --------------------------------------------------------------------------------------------------- */

/* In the set while some lane of it can be sent. */
static void reader_watch(struct psyne_link *l) {
        bool useful = false;

        for (struct outbound *o = l->out; o; o = o->next)
                useful |= o->taken && o->tx.state == LINK_OPEN && !o->blocked;
        useful = useful && l->reader && !l->reader_rests && !l->inlined && !l->last_known;
        if (useful == (l->reading.events != 0))
                return;
        l->reading.events = useful;
        if (useful)
                (void)psyne_waitset_add(l->links->set, psyne_consumer_endpoint(l->reader), &l->reading);
        else
                (void)psyne_waitset_remove(l->links->set, &l->reading);
}

/* Bytes that the other end will acknowledge. If it has no reader and a full ring, it will not. */
static bool is_underway(const struct outbound *o, int64_t now) {
        if (!o->taken || o->fd < 0 || o->tx.state != LINK_OPEN || (o->tx.sent == o->tx.acked && !o->tx.head_left && !o->tx.span_left))
                return false;
        link_due(o->link, o->progress_ns + o->link->resume_ns > now ? o->progress_ns + o->link->resume_ns : CLOCK_FOREVER);
        return now < o->progress_ns + o->link->resume_ns;
}

/* It has no position in its lane any more. The other end learns that no more comes, unless half a frame is on its way. */
static void outbound_part(struct outbound *o) {
        if (o->fd < 0 || o->tx.state != LINK_OPEN || o->tx.must_start || o->tx.head_left || o->tx.span_left) {
                outbound_free(o);
                return;
        }
        if (!o->tx.has_end)
                link_tx_close(&o->tx, o->tx.sent);
        o->taken = false;
        o->parting = true;
}

/* From lane @lane, or -1 = any. The other end may take one producer at a time: it hears first that the one of before is gone. */
static bool is_parting(const struct psyne_link *l, int64_t lane) {
        for (const struct outbound *o = l->out; o; o = o->next)
                if (o->parting && (lane < 0 || o->lane == lane))
                        return true;
        return false;
}

static void forget_lanes(struct psyne_link *l) {
        struct outbound *next;

        for (struct outbound *o = l->out; o; o = next) {
                next = o->next;
                if (o->taken)
                        outbound_part(o);
        }
}

/* Every commit has somebody to wake, from now on: it comes to link_push(). What was committed before is sent by this turn. */
static void reader_lie_down(struct psyne_link *l) {
        struct rest rest;

        consumer_lie_down(l->reader, CLOCK_FOREVER, &rest);
        wake_barrier_heavy(l->channel);
        l->lies = true;
}

static void reader_close(struct psyne_link *l) {
        if (l->lies)
                consumer_get_up(l->reader);
        l->lies = false;
        l->senseless = false;
        l->reading.events = 0; /* it leaves the set as it closes */
        (void)psyne_consumer_close(l->reader);
        l->reader = NULL;
        if (l->added && !l->group[0]) /* nor is its group any more: the next one begins anew */
                forget_lanes(l);
}

static void reader_refused(struct psyne_link *l, int r, int64_t now) {
        refused(l, r, psyne_last_error());
        l->rejoin_ns = now + RETRY_MOST_NS;
        link_due(l, l->rejoin_ns);
        link_log(l, "%s", l->refusal);
}

static void reader_open(struct psyne_link *l, int64_t now) {
        struct outbound *next;
        int r;

        if (now < l->rejoin_ns) {
                link_due(l, l->rejoin_ns);
                return;
        }
        if (is_parting(l, -1))
                return;
        r = link_reader_open(l->channel, l->added ? l->group : NULL, &l->reader);
        if (r < 0) {
                l->reader = NULL;
                reader_refused(l, r, now);
                return;
        }
        l->refused = 0;
        l->reader_rests = false;
        if (l->inlined)
                reader_lie_down(l);
        for (struct outbound *o = l->out; l->added && o; o = next) { /* somebody else read for its group in the meantime */
                next = o->next;
                if (o->taken && (int64_t)(group_position(&l->channel->view, group_of(l), o->lane, true) - o->tx.acked) > 0)
                        outbound_part(o);
        }
}

/* behind=ejected: for so long there was something to be had, and nothing of it was acknowledged, whatever the reason. */
static bool is_left_behind(struct psyne_link *l, int64_t now) {
        const struct layout_view *v = &l->channel->view;
        uint64_t messages;

        for (struct outbound *o = l->out; l->eject_ns && o; o = o->next) {
                if (!o->taken || __atomic_load_n(&v->lanes[o->lane].generation, __ATOMIC_ACQUIRE) != o->generation ||
                        o->tx.acked == layout_lane_end(&v->lanes[o->lane], &messages)) {
                        o->stuck_ns = 0;
                        continue;
                }
                if (!o->stuck_ns || o->stuck_at != o->tx.acked) {
                        o->stuck_ns = now;
                        o->stuck_at = o->tx.acked;
                }
                if (now >= o->stuck_ns + l->eject_ns)
                        return true;
                link_due(l, o->stuck_ns + l->eject_ns);
        }
        return false;
}

static void reader_eject(struct psyne_link *l, int64_t now) {
        const struct layout_view *v = &l->channel->view;
        uint64_t messages;

        for (const struct outbound *o = l->out; o; o = o->next)
                if (o->taken && __atomic_load_n(&v->lanes[o->lane].generation, __ATOMIC_ACQUIRE) == o->generation)
                        l->lost_bytes += layout_lane_end(&v->lanes[o->lane], &messages) - o->tx.acked;
        l->ejections++;
        l->rejoin_ns = now + l->eject_ns;
        reader_close(l);
        link_log(l, "it did not get on, and is left behind");
}

/* As many as there are readers at the other end: one, or none. */
static void reader_follow(struct psyne_link *l, int64_t now) {
        bool wanted = false, underway = false;

        for (struct outbound *o = l->out; o; o = o->next) {
                wanted |= o->tx.readers > 0 || (l->reader && o->lost_ns && now < o->lost_ns + l->resume_ns && o->taken);
                underway |= is_underway(o, now);
                if (l->reader && o->lost_ns && o->taken && now < o->lost_ns + l->resume_ns)
                        link_due(l, o->lost_ns + l->resume_ns);
        }
        if (wanted && !l->reader)
                reader_open(l, now);
        else if (l->reader && is_left_behind(l, now))
                reader_eject(l, now);
        else if (l->reader && l->senseless) {
                reader_close(l);
                forget_lanes(l);
                reader_refused(l, error_set(-EPROTO, "it acknowledges what no record ends with"), now);
        } else if (!wanted && l->reader && !underway) {
                for (struct outbound *o = l->out; o; o = o->next) /* a frame that is stuck halfway: WELCOME will say where */
                        if (o->taken && o->tx.state == LINK_OPEN && (o->tx.sent != o->tx.acked || o->tx.span_left))
                                outbound_lost(o, now);
                reader_close(l);
        }
}

void outbound_reader_event(struct psyne_link *l, uint32_t what) {
        if (what == PSYNE_EVENT_PEER_GONE || what == PSYNE_EVENT_STOPPED)
                l->reader_rests = true;
}

/* ---- lanes -------------------------------------------------------------------------------------------------------- */

struct outbound *outbound_of(struct psyne_link *l, uint32_t lane, uint32_t generation) {
        struct outbound *o;

        for (o = l->out; o && !(o->taken && o->lane == lane && o->generation == generation); o = o->next)
                ;
        return o;
}

static struct outbound *outbound_spare(struct psyne_link *l) {
        struct outbound *o;

        for (o = l->out; o && (o->taken || o->parting); o = o->next)
                ;
        return o ? o : outbound_new(l);
}

static void find_lanes(struct psyne_link *l) {
        const struct layout_view *v = &l->channel->view;

        for (uint32_t i = 0; i < v->n_lanes && (!l->added || l->reader) && !l->last_known; i++) {
                uint32_t state = __atomic_load_n(&v->lanes[i].state, __ATOMIC_ACQUIRE);
                uint32_t generation = __atomic_load_n(&v->lanes[i].generation, __ATOMIC_ACQUIRE);
                struct outbound *o;

                if ((state != LAYOUT_ACTIVE && state != LAYOUT_CLOSED && state != LAYOUT_DEAD) || outbound_of(l, i, generation) || is_parting(l, i))
                        continue;
                if (l->added && state != LAYOUT_ACTIVE && group_position(v, group_of(l), i, true) == layout_lane_tail(&v->lanes[i]))
                        continue; /* what it sent was before our time */
                o = outbound_spare(l);
                if (!o)
                        return;
                o->taken = true;
                o->lane = i;
                o->generation = generation;
                link_tx_start(&o->tx, group_position(v, group_of(l), i, true));
                l->reader_rests = false;
        }
        (void)outbound_spare(l);
}

/* An added link leaves while producers stay: what has been committed by now is the last of it. */
static void find_last(struct psyne_link *l) {
        for (struct outbound *o = l->out; o; o = o->next) {
                const struct layout_lane *lane = &o->link->channel->view.lanes[o->lane];
                struct lane_rx *x = place_of(o);
                int64_t n = x ? bulk_span(x, o->tx.sent, x->hot.mask + 1) : 0;
                uint64_t messages;

                o->last = o->tx.sent + (n > 0 ? (uint64_t)n : 0);
                if (o->taken && !x && __atomic_load_n(&lane->generation, __ATOMIC_ACQUIRE) == o->generation) /* its turn, or its ring, comes */
                        o->last = layout_lane_end(lane, &messages);
        }
        l->last_known = true;
}

/* Has the lane's producer gone, and is all of it sent? */
static void look_for_end(struct outbound *o) {
        const struct layout_lane *lane = &o->link->channel->view.lanes[o->lane];
        struct lane_rx *x = place_of(o);
        uint32_t state = __atomic_load_n(&lane->state, __ATOMIC_ACQUIRE);
        uint64_t tail;

        if (o->tx.has_end)
                return;
        if (__atomic_load_n(&lane->generation, __ATOMIC_ACQUIRE) != o->generation || state == LAYOUT_FREE) {
                link_tx_close(&o->tx, o->tx.acked); /* its index is somebody else's: all of it was released */
                return;
        }
        if (o->link->last_known && o->tx.sent == o->last)
                link_tx_close(&o->tx, o->last);
        if (state != LAYOUT_CLOSED && state != LAYOUT_DEAD)
                return;
        tail = layout_lane_tail(lane); /* behind the state: final */
        if (x ? bulk_span(x, o->tx.sent, 1) == 0 : o->tx.acked == tail)
                link_tx_close(&o->tx, o->tx.sent);
}

/*
 * Lanes that have ended, and of which the other end has all: the reader turns away from them, whatever other groups still have to
 * read there, and to the younger ones.
 */
static void finish_lanes(struct psyne_link *l, int64_t now) {
        const struct layout_view *v = &l->channel->view;
        struct psyne_consumer *c = l->reader;

        for (uint32_t i = 0; i < v->n_lanes; i++) {
                uint32_t state = __atomic_load_n(&v->lanes[i].state, __ATOMIC_ACQUIRE);
                uint32_t generation = __atomic_load_n(&v->lanes[i].generation, __ATOMIC_ACQUIRE);
                struct lane_rx *x = (state == LAYOUT_CLOSED || state == LAYOUT_DEAD) && c->generations[i] == generation ? walk_end(c, i) : NULL;
                const struct outbound *o = x ? outbound_of(l, i, generation) : NULL; /* as a rule no lane has just ended */

                if (!x || (o && o->tx.state != LINK_ENDED) || x->hot.held || bulk_span(x, x->hot.released, 1) != 0)
                        continue;
                walk_finish(c, i);
                link_due(l, now);
        }
}

/* All of it has been acknowledged. It stays until its lane's index is free, so that the lane is not taken for a new one. */
static void outbound_outlive(struct outbound *o) {
        struct psyne_channel *ch = o->link->channel;
        const struct layout_lane *lane = &ch->view.lanes[o->lane];

        outbound_acknowledged(o);
        if (__atomic_load_n(&lane->generation, __ATOMIC_ACQUIRE) != o->generation ||
                __atomic_load_n(&lane->state, __ATOMIC_ACQUIRE) == LAYOUT_FREE) {
                outbound_free(o);
                return;
        }
        membership_retire_lane(ch, o->lane, o->generation, RETIRE_DRAINED);
        link_due(o->link, clock_ns() + RETRY_MOST_NS);
}

/* A drain is told when everything has arrived that was sent before it, over whatever connection; an abort at once. */
static uint64_t stop_to_tell(const struct psyne_link *l) {
        uint32_t stop = channel_stop_state(l->channel);

        for (const struct outbound *o = l->out; stop == 1 && o; o = o->next)
                if (o->taken && o->tx.state != LINK_ENDED && o->tx.acked != layout_lane_tail(&l->channel->view.lanes[o->lane]))
                        return 0;
        return stop;
}

void outbound_tick(struct psyne_link *l, int64_t now) {
        struct outbound *next;
        uint64_t stop;

        reader_follow(l, now);
        find_lanes(l);
        if (l->reader && walk_refresh(l->reader) == 0)
                finish_lanes(l, now);
        if (l->life == LINK_LEAVES && l->added && !l->last_known)
                find_last(l);
        stop = stop_to_tell(l);
        for (struct outbound *o = l->out; o; o = next) {
                next = o->next;
                if (o->parting && (o->fd < 0 || o->broken || o->tx.state == LINK_ENDED)) {
                        outbound_free(o);
                        link_due(l, now);
                        continue;
                }
                if (o->tx.state == LINK_ENDED) {
                        outbound_outlive(o);
                        continue;
                }
                if (o->broken && o->fd >= 0)
                        outbound_lost(o, now);
                o->broken = false;
                if (o->fd < 0) {
                        if (now >= o->retry_ns && (l->life == LINK_LIVES || o->taken)) /* one that leaves has that to send */
                                outbound_connect(o, now);
                        if (o->fd < 0) {
                                if (l->life == LINK_LIVES || o->taken)
                                        link_due(l, o->retry_ns);
                                take_what_waits(o);
                                continue;
                        }
                }
                if (o->taken && o->tx.state == LINK_OPEN)
                        outbound_acknowledged(o); /* by a reader before this one, perhaps */
                if (link_tx_tick(&o->tx, now) < 0) {
                        outbound_lost(o, now);
                        link_due(l, o->retry_ns);
                        continue;
                }
                if (o->taken && o->tx.state == LINK_OPEN)
                        look_for_end(o);
                link_tx_stop(&o->tx, stop);
                if ((!o->blocked || o->writable) && outbound_send(o) < 0)
                        outbound_lost(o, now);
                o->writable = false;
                if (o->fd >= 0)
                        link_watch(l, &o->socket, o->fd, o->connecting ? EPOLLOUT : o->blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
                if (o->blocked || o->tx.state != LINK_OPEN)
                        take_what_waits(o);
                link_due(l, o->fd >= 0 ? o->tx.deadline_ns : o->retry_ns);
        }
        if (l->reader)
                recount(l->reader);
        reader_watch(l);
}

bool outbound_is_through(const struct psyne_link *l) {
        uint64_t stop = stop_to_tell(l);

        for (const struct outbound *o = l->out; o; o = o->next)
                if ((o->taken && o->tx.state != LINK_ENDED && (!l->added || l->reader)) || o->parting ||
                        (o->tx.state == LINK_OPEN && (o->tx.said_stop < stop || o->tx.head_left)))
                        return false;
        return true;
}

uint64_t outbound_acked(const struct psyne_link *l) {
        uint64_t sum = 0;

        for (const struct outbound *o = l->out; o; o = o->next)
                sum += o->tx.acked;
        return sum;
}

void outbound_free_all(struct psyne_link *l) {
        while (l->out)
                outbound_free(l->out);
        if (l->reader)
                reader_close(l);
}
