/* The end of a link that receives: see link.h. */
#include "lib/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "shm/bulk.h"

#define DIRECT_BYTES 16384u /* so much that is still to come of a frame goes straight into the ring */
#define ACCEPT_AT_ONCE 16
#define TELL_BYTES 65536u
#define TURN_BYTES (1u << 20) /* that one connection is read before others have their turn */

/* ---- connections ------------------------------------------------------------------------------------------------- */

static void inbound_drop_socket(struct inbound *in) {
        if (in->fd < 0)
                return;
        link_watch(in->link, &in->socket, in->fd, 0);
        close(in->fd);
        in->fd = -1;
        in->verdict = 0;
        in->stage_from = in->stage_to = 0;
        in->blocked = in->ending = false;
}

/* It waits for room no more. */
static void inbound_eat(struct inbound *in) {
        in->starved = false;
        if (in->writer.events)
                (void)psyne_waitset_remove(in->link->links->set, &in->writer);
        in->writer.events = 0;
}

static void inbound_free(struct inbound *in) {
        struct psyne_link *l = in->link;

        for (struct inbound **at = &l->in; *at; at = &(*at)->next)
                if (*at == in) {
                        *at = in->next;
                        break;
                }
        if (in->session)
                l->n_sessions--;
        else
                l->n_callers--;
        inbound_drop_socket(in);
        inbound_eat(in);
        if (in->p)
                (void)psyne_producer_close(in->p);
        in->p = NULL;
        free(in->stage);
        in->stage = NULL;
        in->dead = true; /* an event of this turn may still name it */
        in->grave = l->links->graves;
        l->links->graves = in;
}

/* The connection is gone. A caller with it; a session that has a lane, or had, is remembered for a while: its sender may not
 * know yet how far it came. */
static void inbound_lost(struct inbound *in) {
        link_rx_lost(&in->rx);
        inbound_eat(in);
        if (!in->session || !in->rx.has_lane) {
                inbound_free(in);
                return;
        }
        inbound_drop_socket(in);
        in->lost_ns = clock_ns();
}

static void inbound_hang_up(struct inbound *in, const char *why) {
        char peer[NET_TEXT_MAX];

        net_peer(in->fd, peer);
        in->link->turned_away++;
        link_log(in->link, "hung up on %s: %s", peer, why);
        inbound_lost(in);
}

/* Who wants to say something has said it long before so many others came. */
static struct inbound *oldest_caller(const struct psyne_link *l) {
        struct inbound *oldest = NULL;

        for (struct inbound *in = l->in; in; in = in->next)
                if (!in->session)
                        oldest = in;
        return oldest;
}

int inbound_accept(struct psyne_link *l, int listener) {
        for (unsigned i = 0; i < ACCEPT_AT_ONCE; i++) {
                struct inbound *in;
                int fd, r;

                r = net_accept(listener, &l->options, &fd);
                if (r < 0)
                        return r == -EAGAIN ? 0 : r;
                if (l->n_callers >= LINK_CALLERS_MAX)
                        inbound_hang_up(oldest_caller(l), "others wait");
                in = calloc(1, sizeof(*in));
                if (!in) {
                        close(fd);
                        continue;
                }
                *in = (struct inbound){.link = l, .fd = fd, .socket = {.what = WATCHED_INBOUND, .once = l->inlined}, .writer = {.what = WATCHED_WRITER}};
                in->socket.of = in->writer.of = in;
                link_rx_init(&in->rx);
                link_rx_connected(&in->rx, clock_ns());
                if (l->key) {
                        unsigned char nonce[32];

                        if (key_random(nonce, sizeof(nonce)) < 0) {
                                close(fd);
                                free(in);
                                continue;
                        }
                        link_rx_key(&in->rx, key_mac, l->key, nonce);
                }
                in->next = l->in;
                l->in = in;
                l->n_callers++;
                link_watch(l, &in->socket, fd, EPOLLIN);
        }
        return 0;
}

/* ---- who is it? --------------------------------------------------------------------------------------------------- */

static struct inbound *session_find(struct psyne_link *l, uint64_t session) {
        struct inbound *in;

        for (in = l->in; in && in->session != session; in = in->next)
                ;
        return in;
}

static void refuse_difference(struct inbound *in, const char *what, uint64_t theirs, uint64_t ours) {
        char sentence[124];

        snprintf(sentence, sizeof(sentence), "%.40s has %s=%llu here, %s=%llu there", in->link->name, what,
                (unsigned long long)ours, what, (unsigned long long)theirs);
        link_rx_refuse(&in->rx, -EMEDIUMTYPE, sentence);
}

/* How far its readers have come. True: further than when we looked last. */
static bool room_look(struct inbound *in) {
        struct lane_tx *t = &in->p->tx;
        uint64_t before = in->rx.floor;

        t->need = in->rx.now.bytes + t->hot.align;
        lane_tx_refresh(t, true);
        t->need = 0;
        link_rx_freed(&in->rx, t->hot.tail + bulk_room(t) - in->rx.ring_bytes - in->shift);
        return in->rx.floor != before;
}

/* A session that is long gone makes room for a new one. */
static bool forget_oldest(struct psyne_link *l) {
        struct inbound *oldest = NULL;

        for (struct inbound *in = l->in; in; in = in->next)
                if (in->session && in->fd < 0 && !in->p)
                        oldest = in;
        if (oldest)
                inbound_free(oldest);
        return oldest;
}

/* In our own words: what stands in the way here is nobody else's business. */
static void refuse_start(struct inbound *in, int r) {
        link_rx_refuse(&in->rx, r, r == -EBUSY ? "another sender is there, and one is all it takes" : strerror(-r));
}

static void inbound_called(struct inbound *in) {
        struct psyne_link *l = in->link;
        const struct layout_config *c = &l->channel->view.config;
        const struct link_hello *h = &in->rx.hello;
        const struct {
                const char *what;
                uint64_t theirs, ours;
        } rows[] = {
                {"mode", h->mode, c->mode},
                {"align", h->record_align, c->record_align},
                {"type", h->type_id, c->type_id},
                {"elem", h->elem_bytes, c->elem_bytes},
                {"hash", h->type_hash, c->type_hash},
        };
        struct inbound *before = session_find(l, in->rx.now.session);

        in->ending = true; /* unless it is welcome */
        if (strnlen(h->name, LINK_NAME_MAX) != strlen(l->name) || strncmp(h->name, l->name, LINK_NAME_MAX) != 0) {
                char sentence[124];

                snprintf(sentence, sizeof(sentence), "the channel here is another: %.64s", l->name);
                link_rx_refuse(&in->rx, -ENOENT, sentence);
                return;
        }
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
                if (rows[i].theirs && rows[i].theirs != rows[i].ours) {
                        refuse_difference(in, rows[i].what, rows[i].theirs, rows[i].ours);
                        return;
                }
        if (h->ring_bytes > c->ring_bytes) {
                refuse_difference(in, "size", h->ring_bytes, c->ring_bytes);
                return;
        }
        if (h->features & ~(l->unchecked ? LINK_UNCHECKED : 0)) {
                link_rx_refuse(&in->rx, -ENOTSUP, h->features == LINK_UNCHECKED
                                ? "checksum=off there, and not here"
                                : "the sender wants something that this version does not know");
                return;
        }
        if (!before && l->n_sessions >= LINK_SESSIONS_MAX && !forget_oldest(l)) {
                link_rx_refuse(&in->rx, -EUSERS, "too many links on this channel");
                return;
        }
        in->stage = before && before->stage ? before->stage : malloc(LINK_STAGE_BYTES);
        if (!in->stage) {
                link_rx_refuse(&in->rx, -ENOMEM, "no memory for a link");
                return;
        }
        if (before) { /* the lane goes on where it stands */
                uint64_t got = before->rx.has_lane ? before->rx.got : LINK_NOWHERE;

                if (before->stage == in->stage)
                        before->stage = NULL;
                in->p = before->p;
                in->shift = before->shift;
                in->closed = before->closed;
                in->connections = before->connections;
                before->p = NULL;
                if (got != LINK_NOWHERE && !in->p && !in->closed) { /* its lane ended while it was away: here is another */
                        int r = link_writer_open(l->channel, &in->p);

                        if (r < 0) {
                                in->p = NULL;
                                refuse_start(in, r);
                                return;
                        }
                        in->shift = in->p->tx.hot.tail - got;
                }
                inbound_free(before);
                link_rx_welcome(&in->rx, c->ring_bytes, got);
                if (in->p)
                        (void)room_look(in);
        } else
                link_rx_welcome(&in->rx, c->ring_bytes, LINK_NOWHERE);
        in->session = in->rx.session;
        in->connections++;
        in->ending = false;
        l->n_callers--;
        l->n_sessions++;
}

static void inbound_started(struct inbound *in) {
        CANCEL_HOLD; /* a reader may have come to it (link_reap()) */
        int r = link_writer_open(in->link->channel, &in->p);

        if (r < 0) {
                in->p = NULL;
                refuse_start(in, r);
                in->ending = true;
                return;
        }
        in->shift = in->p->tx.hot.tail - in->rx.now.position;
        (void)room_look(in);
        link_rx_started(&in->rx);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static bool is_unchecked(const struct inbound *in) {
        return in->rx.hello.features & LINK_UNCHECKED;
}

/* Everything but the frame's first word, which is what its readers look at. */
static void land_bytes(struct inbound *in, uint64_t position, const unsigned char *from, size_t n) {
        uint64_t into = position - in->rx.frame_at;

        if (!is_unchecked(in))
                in->crc = link_crc32c(into ? in->crc : 0, from, n);
        while (n && into < sizeof(in->first)) {
                ((unsigned char *)&in->first)[into++] = *from++;
                n--;
        }
        if (n)
                memcpy((unsigned char *)bulk_tail(&in->p->tx) + into, from, n);
}

/* Those who wait, for all that has landed: a sleep and a wake cost more than a small frame. */
static void inbound_tell(struct inbound *in) {
        if (in->untold && in->p && psyne_lane_sleepers(in->p->tx.hot.sleepers, in->p->tx.hot.fence))
                psyne_wake_consumers(in->p);
        in->untold = 0;
}

static int inbound_arrived(struct inbound *in, int64_t now) {
        struct psyne_producer *p = in->p;

        if (bulk_room(&p->tx) < in->rx.now.bytes) /* a wait for room takes the cached limit back */
                (void)room_look(in);
        if ((in->crc != in->rx.now.crc && !is_unchecked(in)) || bulk_land(&p->tx, in->rx.now.bytes, in->first) < 0) {
                in->link->damaged++;
                return -EBADMSG;
        }
        in->untold += in->rx.now.bytes;
        link_rx_accept(&in->rx, now);
        if (in->untold >= TELL_BYTES)
                inbound_tell(in);
        return 0;
}

/* What a step of the protocol led to. -errno: hang up. */
static int inbound_step(struct inbound *in, int event, int64_t now) {
        switch (event) {
        case LINK_CALLED:
                inbound_called(in);
                return 0;
        case LINK_STARTED:
                inbound_started(in);
                return 0;
        case LINK_ARRIVED:
                return inbound_arrived(in, now);
        case LINK_CLOSED:
                in->closed = in->ending = true;
                return 0;
        case LINK_STOPPED:
                if (in->rx.stopped > channel_stop_state(in->link->channel))
                        (void)psyne_stop(in->link->channel, in->rx.stopped == 2 ? PSYNE_ABORT : PSYNE_DRAIN);
                return 0;
        default:
                return event < 0 ? event : in->rx.frame_left && (!in->p || in->closed) ? -EPROTO : 0; /* more of a lane that has ended */
        }
}

/* Feeds what lies in the stage. 0: all of it, or nothing more is wanted now. */
static int inbound_feed(struct inbound *in, int64_t now) {
        while (in->stage_from != in->stage_to) {
                struct link_into into;
                size_t n = in->stage_to - in->stage_from;
                int r;

                link_rx_want(&in->rx, &into);
                if (!into.n && in->rx.frame_left && room_look(in))
                        link_rx_want(&in->rx, &into);
                if (!into.n)
                        return 0;
                n = n < into.n ? n : into.n;
                if (into.bytes)
                        memcpy(into.bytes, in->stage + in->stage_from, n);
                else
                        land_bytes(in, into.position, in->stage + in->stage_from, n);
                in->stage_from += (uint32_t)n;
                r = inbound_step(in, link_rx_read(&in->rx, n), now);
                if (r < 0)
                        return r;
        }
        in->stage_from = in->stage_to = 0;
        return 0;
}

/* Until the socket is empty, the lane is full, or the other end is through. -errno: hang up; -ENOTCONN: it did. */
static int inbound_receive(struct inbound *in, int64_t now, size_t most) {
        struct wire *wire = in->link->links->wire;

        for (size_t all = 0;;) {
                struct link_into into;
                struct iovec v[2];
                size_t direct = 0;
                bool drained;
                ssize_t n;
                int r;

                if (in->ending || all > most || in->rx.ack_at_ns <= now)
                        return 0; /* what is there stays there: others have their turn, and who sent it its answer */
                link_rx_want(&in->rx, &into);
                if (!into.n && in->rx.frame_left && room_look(in))
                        link_rx_want(&in->rx, &into);
                if (!into.n) {
                        in->starved = in->rx.frame_left != 0;
                        return 0;
                }
                if (!in->stage)
                        v[0] = (struct iovec){into.bytes, into.n}; /* no more than its hello has */
                else if (!into.bytes && into.n >= DIRECT_BYTES && into.position - in->rx.frame_at >= sizeof(in->first)) {
                        direct = into.n;
                        v[0] = (struct iovec){(unsigned char *)bulk_tail(&in->p->tx) + (into.position - in->rx.frame_at), direct};
                        v[1] = (struct iovec){in->stage, LINK_STAGE_BYTES};
                } else
                        v[0] = (struct iovec){in->stage, LINK_STAGE_BYTES};
                n = wire_receive(wire, in->fd, v, direct ? 2 : 1);
                if (n == -EAGAIN)
                        return 0;
                if (n <= 0)
                        return n ? (int)n : -ENOTCONN;
                all += (size_t)n;
                in->bytes += (uint64_t)n;
                if (in->link->options.quick_ack) {
                        net_acknowledge(in->fd);
                        in->quick_acks++;
                }
                drained = (size_t)n < v[0].iov_len + (direct ? v[1].iov_len : 0);
                if (!in->stage || direct) {
                        size_t there = direct && (size_t)n > direct ? direct : (size_t)n;

                        if (direct) {
                                if (!is_unchecked(in))
                                        in->crc = link_crc32c(in->crc, v[0].iov_base, there);
                                in->stage_to = (uint32_t)((size_t)n - there);
                        }
                        r = inbound_step(in, link_rx_read(&in->rx, there), now);
                        if (r < 0)
                                return r;
                } else
                        in->stage_to = (uint32_t)n;
                r = inbound_feed(in, now);
                if (r < 0)
                        return r;
                if (in->stage_from != in->stage_to) { /* no room */
                        in->starved = in->rx.frame_left != 0;
                        return 0;
                }
                if (drained)
                        return 0;
        }
}

static int inbound_answer(struct inbound *in) {
        struct link_out out;

        while (link_rx_out(&in->rx, &out)) {
                const struct iovec v = {(void *)(uintptr_t)out.head, out.head_bytes};
                ssize_t r = wire_send(in->link->links->wire, in->fd, &v, 1);

                in->blocked = r == -EAGAIN;
                if (in->blocked)
                        return 0;
                if (r < 0)
                        return (int)r;
                link_rx_wrote(&in->rx, (size_t)r);
        }
        in->blocked = false;
        return 0;
}

/* Nothing about it is the thread's. */
static bool is_for_readers(const struct inbound *in) {
        return !in->starved && !in->ending && !in->blocked && !in->verdict && in->stage_from == in->stage_to;
}

/* What its socket and its lane's producer are watched for. */
static void inbound_watch(struct inbound *in) {
        struct psyne_link *l = in->link;

        if (in->rx.state == LINK_OPEN && in->socket.spent && in->socket.events == EPOLLIN && is_for_readers(in) && link_is_reaped(l, clock_ns()))
                return; /* a reader looks at it, and asks for it again before it sleeps */
        link_watch(l, &in->socket, in->fd, (in->starved || in->ending ? 0 : EPOLLIN) | (in->blocked ? EPOLLOUT : 0));
        if (in->starved && !in->hopeless && !in->writer.events) {
                in->p->asked = in->rx.now.bytes + in->p->tx.hot.align;
                in->writer.events = 1;
                (void)psyne_waitset_add(l->links->set, psyne_producer_endpoint(in->p), &in->writer);
        }
}

/* Everything that can be done for it now. It may be gone afterwards. */
static void inbound_go(struct inbound *in, int64_t now) {
        int r = 0;

        if (in->dead || in->fd < 0)
                return;
        inbound_eat(in);
        r = in->verdict;
        if (r == 0 && in->stage_from != in->stage_to)
                r = inbound_feed(in, now);
        if (r == 0 && in->stage_from == in->stage_to)
                r = inbound_receive(in, now, TURN_BYTES);
        else
                in->starved = in->rx.frame_left != 0;
        inbound_tell(in);
        if (r == 0 || r == -ENOTCONN) {
                int answered;

                if (in->rx.state == LINK_OPEN || in->rx.state == LINK_ENDED) {
                        link_rx_readers(&in->rx, link_readers(in->link->channel));
                        link_rx_stop(&in->rx, channel_stop_state(in->link->channel));
                }
                answered = link_rx_tick(&in->rx, now);
                if (answered == 0)
                        answered = inbound_answer(in);
                if (r == 0)
                        r = answered;
        }
        if (r == -ENOTCONN || r == -ECONNRESET || r == -EPIPE) {
                inbound_lost(in);
                return;
        }
        if (r < 0) {
                inbound_hang_up(in, r == -ETIME ? "it did not say who it is" : r == -EACCES ? "it does not know the key" : strerror(-r));
                return;
        }
        if (in->ending && !in->rx.head_left && !in->rx.refusal_due && !in->rx.ack_due && !in->rx.welcome_due) {
                inbound_lost(in);
                return;
        }
        inbound_watch(in);
}

size_t inbound_reap(struct inbound *in, int64_t now, bool *look) {
        struct links *s = in->link->links;
        const uint64_t before = in->bytes;
        int r = 0;

        if (in->dead || in->fd < 0 || in->rx.state != LINK_OPEN || !is_for_readers(in))
                return 0; /* the thread knows */
        if (now >= link_rx_due_ns(&in->rx))
                r = link_rx_tick(&in->rx, now);
        if (r == 0)
                r = inbound_receive(in, now, 0);
        inbound_tell(in);
        if (r == 0 && now >= link_rx_due_ns(&in->rx))
                r = link_rx_tick(&in->rx, now);
        if (r == 0)
                r = inbound_answer(in);
        if (link_rx_due_ns(&in->rx) < s->due_ns && link_rx_due_ns(&in->rx) < s->asked_ns) { /* an acknowledgement, if nobody comes by */
                s->asked_ns = link_rx_due_ns(&in->rx);
                *look = true;
        }
        in->verdict = r;
        *look |= r < 0 || in->starved || in->ending || in->blocked;
        return (size_t)(in->bytes - before);
}

void inbound_event(struct inbound *in, uint32_t events) {
        int64_t now = clock_ns();

        if (!in->dead && events == EPOLLIN && in->rx.state == LINK_OPEN && is_for_readers(in) && link_is_reaped(in->link, now))
                return; /* one is there, and reads it */
        inbound_go(in, now);
}

void inbound_writable(struct inbound *in, uint32_t what) {
        if (in->dead)
                return;
        in->hopeless = what != PSYNE_EVENT_WRITABLE; /* until a reader comes: the tick will see */
        inbound_eat(in);
        in->starved = in->hopeless;
        inbound_go(in, clock_ns());
}

/* A sender that said goodbye: its lane ends for its readers, once there is one to read the rest of it. */
static bool may_end(const struct inbound *in) {
        return link_readers(in->link->channel) > 0 || lane_tx_free_position(&in->p->tx, true) == in->p->tx.hot.tail;
}

/* Not heard of for so long: its lane ends, but what had come of it does not come twice, should it come again. */
static void inbound_expire(struct inbound *in) {
        if (in->p && !may_end(in))
                return; /* what was acknowledged waits for a reader */
        if (in->p)
                (void)psyne_producer_close(in->p);
        in->p = NULL;
        free(in->stage);
        in->stage = NULL;
        if (in->closed)
                inbound_free(in);
}

void inbound_tick(struct psyne_link *l, int64_t now) {
        struct inbound *next;
        uint64_t readers = link_readers(l->channel);

        for (struct inbound *in = l->in; in; in = next) {
                next = in->next;
                if (in->dead)
                        continue;
                if (in->closed && in->p && may_end(in)) {
                        inbound_eat(in);
                        (void)psyne_producer_close(in->p);
                        in->p = NULL;
                }
                if (in->fd < 0) {
                        if (now < in->lost_ns + l->resume_ns)
                                link_due(l, in->lost_ns + l->resume_ns);
                        else
                                inbound_expire(in);
                        continue;
                }
                if (in->rx.state == LINK_OPEN && (in->rx.readers != readers || in->rx.stop != channel_stop_state(l->channel))) {
                        in->hopeless = false;
                        inbound_go(in, now);
                } else if (now >= link_rx_due_ns(&in->rx) || in->verdict)
                        inbound_go(in, now);
                else
                        inbound_watch(in);
        }
        for (struct inbound *in = l->in; in; in = in->next)
                link_due(l, link_rx_due_ns(&in->rx));
}

void inbound_free_all(struct psyne_link *l) {
        while (l->in) {
                struct inbound *in = l->in;

                if (in->fd >= 0 && in->session) {
                        link_rx_refuse(&in->rx, -EPIPE, "the receiver has closed");
                        (void)inbound_answer(in);
                }
                inbound_free(in);
        }
}
