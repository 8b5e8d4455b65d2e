/*
 * What follows the hello: a receiver and a sender that are led through anything, by bytes that are noise, frames that lie
 * and frames that do not. Noise rarely has the right checksum, so most frames are built here: the input chooses their
 * fields, by how far they are off, and whether the checksums are right.
 *
 * byte 0   0x01 the end that sends; the rest is what it starts from
 * then     steps: one byte that says which, and the bytes that it chooses by
 */
#include "fuzz.h"

#define SESSION 7u
#define RING_MOST 4096u
#define PIPE 16384u

/* What is under way: [from, n). It is not used twice, so that what is pushed has its limit. */
struct bytes {
        size_t from, n;
        unsigned char b[PIPE];
};

enum { LIE_CRC_SELF = 1, LIE_CRC = 2, LIE_SESSION = 4, LIE_PAYLOAD = 8 };

/* A frame on its way, with @n bytes behind it: those of the ring at its position, or zeros. */
static void frame_push(struct bytes *p, uint32_t kind, uint32_t said, uint64_t position, size_t n, unsigned lies) {
        struct link_header h = {.kind = kind, .bytes = said, .position = position, .session = SESSION + !!(lies & LIE_SESSION)};
        unsigned char *at = p->b + p->n;

        if (sizeof(h) + n > PIPE - p->n)
                return;
        memcpy(at, &h, sizeof(h));
        for (size_t i = 0; i < n; i++)
                at[sizeof(h) + i] = lies & LIE_PAYLOAD ? 0 : byte_at(position + i);
        payload_repair(at, n);
        if (lies & LIE_CRC)
                at[offsetof(struct link_header, crc)] ^= 1;
        header_repair(at);
        if (lies & LIE_CRC_SELF)
                at[offsetof(struct link_header, crc_self)] ^= 1;
        p->n += sizeof(h) + n;
}

/* What an end says, frame by frame. */
struct said {
        struct link_header h;
        size_t have;
        unsigned char bytes[sizeof(struct link_header) + sizeof(struct link_hello)];
};

/* One byte more; true: a frame is whole. The payload of DATA does not come here. */
static bool said_byte(struct said *s, unsigned char byte) {
        promise(s->have < sizeof(s->bytes));
        s->bytes[s->have++] = byte;
        if (s->have == sizeof(s->h)) {
                memcpy(&s->h, s->bytes, sizeof(s->h));
                promise(header_is_good(&s->h) && s->h.session == SESSION);
                if (s->h.kind == LINK_DATA)
                        return true;
                promise(s->h.bytes <= sizeof(s->bytes) - sizeof(s->h));
        }
        if (s->have < sizeof(s->h) || s->have < sizeof(s->h) + s->h.bytes)
                return false;
        promise(s->h.crc == (s->h.bytes ? link_crc32c(0, s->bytes + sizeof(s->h), s->h.bytes) : 0));
        s->have = 0;
        return true;
}

/* ---- the receiver, and a driver as lib/link-in.c is one ------------------------------------------------------------ */

struct receiver {
        struct input *in;
        struct link_rx *r;
        int64_t now, connected;

        /* The lane, which outlives connections: [released, got) is its readers', and must not change. */
        uint64_t align, ring, their_ring, released, got;
        bool has_lane;
        unsigned char *lane, *kept;

        /* The connection. */
        bool up, open, closed;
        bool honest;               /* so far nothing came that an honest sender would not have said */
        bool refused;              /* by us */
        uint64_t written;          /* of the frame that is arriving */
        uint64_t at_welcome;       /* where the lane stood then */
        struct bytes pipe;

        /* The sender that there might be: where it goes on. */
        uint64_t start, next;
        bool has_started, has_ended;

        /* What was answered. */
        struct said said;
        bool said_welcome, said_refuse, said_bye;
        uint64_t said_acked, said_readers, said_stop;
        uint64_t readers, stop;
};

static void rx_connect(struct receiver *u, bool anew) {
        const struct link_hello hello = {.magic = LINK_MAGIC, .version = LINK_VERSION, .ring_bytes = u->their_ring,
                .record_align = (uint32_t)u->align, .name_bytes = 4, .name = "name"};
        unsigned char *at = u->pipe.b;

        if (anew)
                link_rx_init(u->r);
        link_rx_connected(u->r, u->now);
        u->connected = u->now;
        u->up = u->honest = true;
        u->open = u->closed = u->refused = u->said_welcome = u->said_refuse = u->said_bye = false;
        u->written = u->said.have = u->pipe.from = u->pipe.n = 0;
        frame_push(&u->pipe, LINK_HELLO, sizeof(hello), 0, sizeof(hello), 0);
        memcpy(at + sizeof(struct link_header), &hello, sizeof(hello));
        payload_repair(at, sizeof(hello));
        header_repair(at);
        u->next = u->has_lane ? u->got : u->start;
        u->has_started = u->has_lane;
        u->has_ended = false;
}

/* Down, or with a frame that waits for an answer. */
static void rx_wants_nothing(struct receiver *u) {
        struct link_into into;

        link_rx_want(u->r, &into);
        promise(!into.n);
}

static void rx_hang_up(struct receiver *u) {
        link_rx_lost(u->r);
        rx_wants_nothing(u);
        u->up = false;
}

static void rx_called(struct receiver *u) {
        promise(!u->open && u->r->now.session != 0);
        promise(u->r->hello.record_align >= 16 && u->r->hello.ring_bytes >= u->r->hello.record_align);
        if (u->r->now.session != SESSION || u->r->hello.ring_bytes != u->their_ring || u->r->hello.record_align != u->align) {
                rx_hang_up(u); /* noise that is a hello: somebody else's */
                return;
        }
        link_rx_welcome(u->r, u->ring, u->has_lane ? u->got : LINK_NOWHERE);
        link_rx_readers(u->r, u->readers);
        link_rx_stop(u->r, u->stop);
        u->said_readers = LINK_NOWHERE;
        u->said_stop = 0;
        if (u->has_lane)
                link_rx_freed(u->r, u->released);
        u->at_welcome = u->said_acked = u->got;
        u->open = true;
}

static void rx_started(struct receiver *u) {
        promise(u->open && !u->has_lane && u->r->now.position % u->align == 0);
        promise(!u->honest || u->r->now.position == u->start);
        rx_wants_nothing(u);
        u->has_lane = true;
        u->got = u->released = u->said_acked = u->at_welcome = u->r->now.position;
        link_rx_freed(u->r, u->released);
        link_rx_started(u->r);
}

static void rx_arrived(struct receiver *u) {
        const struct link_header *h = &u->r->now;
        unsigned char frame[RING_MOST * 2];

        promise(header_is_good(h) && h->kind == LINK_DATA && h->session == SESSION);
        promise(h->bytes && h->position == u->got && u->r->frame_at == u->got && u->written == h->bytes);
        promise(u->got + h->bytes - u->released <= u->ring);
        rx_wants_nothing(u);
        for (uint64_t i = 0; i < h->bytes; i++)
                frame[i] = u->lane[(u->got + i) % u->ring];
        if (h->crc != link_crc32c(0, frame, h->bytes)) {
                promise(!u->honest);
                rx_hang_up(u);
                return;
        }
        for (uint64_t i = 0; i < h->bytes; i++)
                u->kept[(u->got + i) % u->ring] = frame[i];
        u->got += h->bytes;
        u->written = 0;
        link_rx_accept(u->r, u->now);
        promise(u->r->got == u->got);
        if (u->got - u->r->acked >= u->their_ring / 4)
                promise(link_rx_due_ns(u->r) <= u->now);
        promise(link_rx_due_ns(u->r) <= u->now + LINK_ACK_AFTER_NS);
}

static void rx_deliver(struct receiver *u, size_t n, size_t at_a_time) {
        while (u->up && n && u->pipe.from < u->pipe.n) {
                struct link_into into;
                size_t take = at_a_time;
                int e;

                link_rx_want(u->r, &into);
                if (!into.n) {
                        promise(u->refused || u->closed || u->got + u->written - u->released == u->ring);
                        return;
                }
                promise(!u->refused && !u->closed);
                take = take < into.n ? take : into.n;
                take = take < n ? take : n;
                take = take < u->pipe.n - u->pipe.from ? take : u->pipe.n - u->pipe.from;
                if (into.bytes) {
                        want_stays_inside(u->r, &into);
                        memcpy(into.bytes, u->pipe.b + u->pipe.from, take);
                } else {
                        promise(u->open && u->has_lane);
                        promise(into.position == u->got + u->written);
                        promise(into.position + into.n - u->released <= u->ring);
                        for (size_t i = 0; i < take; i++)
                                u->lane[(into.position + i) % u->ring] = u->pipe.b[u->pipe.from + i];
                        u->written += take;
                }
                u->pipe.from += take;
                n -= take;
                e = link_rx_read(u->r, take);
                if (u->r->frame_left) {
                        const struct link_header *h = &u->r->now;

                        promise(e == LINK_NOTHING && u->open && u->has_lane && h->kind == LINK_DATA && h->session == SESSION);
                        promise(h->position == u->got && h->bytes % u->align == 0);
                        promise(h->bytes <= u->ring && h->bytes <= u->their_ring);
                }
                if (e < 0) {
                        promise(!u->honest);
                        rx_hang_up(u);
                } else if (e == LINK_CALLED)
                        rx_called(u);
                else if (e == LINK_STARTED)
                        rx_started(u);
                else if (e == LINK_ARRIVED)
                        rx_arrived(u);
                else if (e == LINK_CLOSED) {
                        promise(u->open && u->has_lane && u->r->now.position == u->got);
                        u->closed = true;
                } else if (e == LINK_STOPPED) {
                        struct link_header h;

                        memcpy(&h, u->pipe.b + u->pipe.from - sizeof(h), sizeof(h));
                        promise(u->open && header_is_good(&h) && h.kind == LINK_STOP && !h.bytes && h.session == SESSION);
                        promise(u->r->stopped == h.position && (h.position == 1 || h.position == 2));
                } else
                        promise(e == LINK_NOTHING);
        }
}

/* Its readers are through with some: it is still what arrived. */
static void rx_release(struct receiver *u, uint64_t n) {
        uint64_t most = u->got - u->released;

        if (!u->has_lane)
                return;
        for (n = n < most ? n : most; n; n--, u->released++)
                promise(u->lane[u->released % u->ring] == u->kept[u->released % u->ring]);
        if (u->open)
                link_rx_freed(u->r, u->released);
}

static void rx_said(struct receiver *u) {
        const struct link_header *h = &u->said.h;

        promise(!u->said_refuse);
        switch (h->kind) {
        case LINK_WELCOME:
                promise(u->open && !u->said_welcome && !h->bytes);
                promise(u->has_lane ? h->position - u->at_welcome <= u->got - u->at_welcome || h->position == LINK_NOWHERE
                                    : h->position == LINK_NOWHERE);
                if (h->position != LINK_NOWHERE)
                        u->said_acked = h->position;
                u->said_welcome = true;
                break;
        case LINK_READERS:
                promise(u->said_welcome && !h->bytes);
                u->said_readers = h->position;
                break;
        case LINK_STOP:
                promise(u->said_welcome && !h->bytes && !u->said_bye);
                promise(h->position > u->said_stop && h->position <= u->stop);
                u->said_stop = h->position;
                break;
        case LINK_ACK:
                promise(u->said_welcome && u->has_lane && !h->bytes && !u->said_bye);
                promise(h->position % u->align == 0 && h->position - u->said_acked <= u->got - u->said_acked);
                u->said_acked = h->position;
                break;
        case LINK_BYE:
                promise(u->closed && h->position == u->got && !h->bytes && !u->said_bye);
                u->said_bye = true;
                break;
        default:
                promise(h->kind == LINK_REFUSE && u->refused && h->bytes == sizeof(struct link_refusal));
                promise(u->said_welcome);
                promise(!u->has_lane || u->said_acked == u->got); /* what has come has come */
                u->said_refuse = true;
        }
}

static void rx_write(struct receiver *u, size_t n) {
        struct link_out out;

        while (u->up && n && link_rx_out(u->r, &out)) {
                const unsigned char *head = out.head;
                size_t take = n < out.head_bytes ? n : out.head_bytes;

                promise(out.head_bytes && !out.span_bytes);
                promise(head >= u->r->head && head + out.head_bytes <= u->r->head + sizeof(u->r->head));
                for (size_t i = 0; i < take; i++)
                        if (said_byte(&u->said, head[i]))
                                rx_said(u);
                link_rx_wrote(u->r, take);
                n -= take;
        }
        if (u->up && n && u->open && !u->closed && !u->refused)
                promise(u->said_readers == u->readers && u->said_stop == u->stop);
}

static void rx_tick(struct receiver *u, int64_t later) {
        bool late;
        int r;

        u->now += later;
        if (!u->up)
                return;
        late = !u->open && u->now - u->connected >= LINK_HELLO_WITHIN_NS;
        r = link_rx_tick(u->r, u->now);
        promise(r == (late ? -ETIME : 0));
        if (late) {
                rx_hang_up(u);
                return;
        }
        promise(u->open ? link_rx_due_ns(u->r) > u->now : link_rx_due_ns(u->r) == u->connected + LINK_HELLO_WITHIN_NS);
        if (u->open && !u->refused && u->has_lane && u->got != u->r->acked)
                promise(u->r->ack_due || link_rx_due_ns(u->r) <= u->now + LINK_ACK_AFTER_NS);
}

static void rx_data(struct receiver *u, uint64_t n) {
        uint64_t most = u->their_ring < u->ring ? u->their_ring : u->ring;
        size_t before = u->pipe.n;

        n = n * u->align < most ? n * u->align : most;
        u->honest &= u->has_started && !u->has_ended;
        frame_push(&u->pipe, LINK_DATA, (uint32_t)n, u->next, n, 0);
        if (u->pipe.n != before)
                u->next += n;
}

/* A frame that is wrong in one way. */
static void rx_lie(struct receiver *u) {
        static const uint32_t kinds[] = {LINK_DATA, LINK_STOP, LINK_START, LINK_BYE};
        struct input *in = u->in;
        uint8_t what = choose(in);
        uint32_t kind = kinds[what & 3];
        uint64_t bytes = kind == LINK_DATA ? u->align : 0, position = kind == LINK_STOP ? 1 : u->next, off = choose_off(in);
        unsigned lies = 0;

        switch (what >> 2 & 7) {
        case 0:
                position += off;
                break;
        case 1:
                position += off * u->align;
                break;
        case 2:
                bytes += off;
                break;
        case 3: /* around what the rings hold */
                bytes = (what & 32 ? u->ring : u->their_ring) + (uint64_t)((int64_t)off / 32) * u->align;
                break;
        case 4:
                lies = LIE_SESSION;
                break;
        case 5:
                lies = LIE_CRC;
                break;
        case 6:
                lies = LIE_CRC_SELF;
                break;
        default:
                kind = (uint32_t)off;
        }
        u->honest = false;
        frame_push(&u->pipe, kind, (uint32_t)bytes, position, bytes <= RING_MOST ? bytes : 0, lies);
}

static void rx_step(struct receiver *u) {
        struct input *in = u->in;
        uint8_t step = choose(in);

        switch (step & 15) {
        case 0: { /* noise */
                uint8_t n = choose(in) % 64;

                u->honest = false;
                for (; n && u->pipe.n < PIPE; n--)
                        u->pipe.b[u->pipe.n++] = choose(in);
                break;
        }
        case 1: /* what an honest sender says */
                rx_data(u, 1 + choose(in) % 16);
                break;
        case 2:
                rx_lie(u);
                break;
        case 3:
                u->honest &= !u->has_started;
                frame_push(&u->pipe, LINK_START, 0, u->start, 0, 0);
                u->has_started = true;
                break;
        case 4:
                if (choose(in) & 1) {
                        frame_push(&u->pipe, LINK_STOP, 0, 1 + choose(in) % 2, 0, 0);
                        break;
                }
                u->honest &= u->has_started && !u->has_ended;
                frame_push(&u->pipe, LINK_BYE, 0, u->next, 0, 0);
                u->has_ended = true;
                break;
        case 5: { /* and what it does not, of which the most is wrong in more than one way */
                uint32_t kind = choose(in) % 10;
                unsigned lies = choose(in);
                uint64_t bytes = kind == LINK_DATA ? u->align : 0;

                u->honest = false;
                bytes += choose_off(in) * (lies & 16 ? 1 : lies & 32 ? u->align : u->their_ring);
                frame_push(&u->pipe, kind, (uint32_t)bytes, u->next + choose_off(in) * (lies & 64 ? 1 : u->align),
                        bytes < RING_MOST * 2 ? bytes : 0, lies & 15);
                break;
        }
        case 6:
                rx_release(u, (1 + choose(in) % 16) * u->align);
                break;
        case 7:
                rx_release(u, UINT64_MAX);
                break;
        case 8:
                rx_tick(u, (int64_t)choose(in) << 17); /* 0 to 33 ms */
                break;
        case 9:
                rx_tick(u, LINK_HELLO_WITHIN_NS - choose(in) % 2);
                break;
        case 10:
                rx_write(u, choose(in));
                break;
        case 11:
                if (u->open && u->up) {
                        uint8_t which = choose(in);

                        if (which >= 128)
                                u->stop = which % 2 || u->stop == 2 ? 2 : 1;
                        else
                                u->readers = which % 3;
                        link_rx_readers(u->r, u->readers);
                        link_rx_stop(u->r, u->stop);
                }
                break;
        case 12:
                if (u->open && u->up && !u->refused) {
                        link_rx_refuse(u->r, -EPIPE, "it has closed");
                        u->refused = !u->closed; /* who has said goodbye is not refused */
                }
                break;
        case 13:
                if (u->up)
                        rx_hang_up(u);
                rx_connect(u, choose(in) % 2);
                break;
        case 14: {
                size_t n = choose(in);

                rx_deliver(u, n, 1 + choose(in) % 64);
                break;
        }
        default:
                rx_deliver(u, SIZE_MAX, 1 + choose(in));
        }
        if (step & 0x80)
                rx_deliver(u, SIZE_MAX, SIZE_MAX);
        if (step & 0x40)
                rx_tick(u, 0);
        if (step & 0x20)
                rx_write(u, SIZE_MAX);
}

static void receiver(struct input *in, unsigned flags) {
        static struct receiver u;

        u = (struct receiver){.in = in, .r = malloc(sizeof(*u.r))};
        u.align = 16u << (flags >> 1 & 3);
        u.their_ring = u.align << (1 + (flags >> 3 & 3));
        u.ring = !(flags & 0x20) ? u.their_ring : flags & 0x08 ? u.their_ring * 2 : u.their_ring / 2;
        u.lane = calloc(1, u.ring);
        u.kept = calloc(1, u.ring);
        promise(u.r && u.lane && u.kept);
        u.start = choose_position(in, u.align);
        u.has_lane = flags & 0x40;
        if (u.has_lane) { /* from another connection, and its readers are behind */
                u.released = u.start;
                u.got = u.start + choose(in) % (u.ring / u.align + 1) * u.align;
                for (uint64_t i = u.released; i != u.got; i++)
                        u.lane[i % u.ring] = u.kept[i % u.ring] = byte_at(i);
        }
        link_rx_init(u.r);
        rx_connect(&u, true);
        while (in->left)
                rx_step(&u);
        rx_deliver(&u, SIZE_MAX, SIZE_MAX);
        rx_write(&u, SIZE_MAX);
        rx_release(&u, UINT64_MAX);
        free(u.r);
        free(u.lane);
        free(u.kept);
}

/* ---- the sender, and a driver as lib/link-out.c is one ------------------------------------------------------------- */

struct sender {
        struct input *in;
        struct link_tx *t;
        struct tx_stand s;         /* where it stands, as we see it */
        int64_t now, connected;
        uint64_t start, tail, most; /* most: the highest tail there ever was */
        bool up, has_end;
        bool in_step;              /* nothing but whole frames came, so that we know what it should say */
        uint64_t readers, stop, stopped;

        /* What it said. */
        struct said said;
        size_t span;               /* of a DATA frame, still to come */
        bool said_hello, said_start, said_bye, must_start;
        uint64_t said_stop;
};

static uint32_t crc_of_span(void *ctx, uint64_t position, size_t n) {
        const struct sender *u = ctx;
        unsigned char bytes[RING_MOST];

        promise(u->s.state == LINK_OPEN && n && n <= sizeof(bytes));
        promise(position == u->s.sent && position + n - u->s.acked <= u->tail - u->s.acked);
        for (size_t i = 0; i < n; i++)
                bytes[i] = byte_at(position + i);
        return link_crc32c(0, bytes, n);
}

static void tx_look(const struct sender *u) {
        const struct link_tx *t = u->t;

        promise(t->acked == u->s.acked && t->sent == u->s.sent && t->reached == u->s.reached);
        promise(t->sent - t->acked <= t->reached - t->acked && t->tail - t->sent <= RING_MOST);
        promise(t->readers == u->readers && t->stopped == u->stopped && t->has_lane == u->s.has_lane);
        promise(!u->up || t->state == u->s.state);
}

static void tx_hang_up(struct sender *u) {
        struct link_out out;

        link_tx_lost(u->t);
        promise(!link_tx_out(u->t, &out));
        promise(u->t->state == (u->s.state == LINK_ENDED ? LINK_ENDED : LINK_DOWN));
        u->up = false;
        u->readers = 0;
        u->span = 0;
}

static void tx_connect(struct sender *u) {
        link_tx_connected(u->t, u->now, (uint64_t[2]){1, 2});
        u->connected = u->now;
        u->up = u->in_step = true;
        u->s.state = LINK_MEETING;
        u->s.said_bye = u->said_hello = u->said_start = u->said_bye = u->must_start = false;
        u->said_stop = 0;
        u->said.have = u->span = 0;
        u->readers = 0;
}

/* What a frame that was believed changes. */
static void tx_believed(struct sender *u, const struct link_header *h) {
        switch (h->kind) {
        case LINK_WELCOME:
                if (h->position == LINK_NOWHERE)
                        u->must_start = true;
                else
                        u->s.acked = h->position;
                u->s.sent = u->tail = u->s.written = u->s.acked;
                u->s.state = LINK_OPEN;
                break;
        case LINK_ACK:
                u->s.acked = h->position;
                break;
        case LINK_READERS:
                u->readers = h->position;
                break;
        case LINK_STOP:
                u->stopped = h->position;
                break;
        default: /* BYE */
                u->s.acked = u->s.end;
                u->s.state = LINK_ENDED;
        }
}

/* Noise: we do not know what it means, but what it may not do. */
static void tx_noise(struct sender *u, const unsigned char *bytes, size_t n) {
        uint64_t acked = u->s.acked;
        enum link_state before = u->s.state;
        int r;

        u->in_step = false;
        r = tx_feed(u->t, bytes, n);
        promise(u->t->acked - acked <= u->s.reached - acked && u->t->acked % u->s.align == 0);
        promise(u->t->state == before || u->t->state != LINK_DOWN);
        u->s.acked = u->t->acked;
        u->s.state = u->t->state;
        if (before == LINK_MEETING && u->s.state == LINK_OPEN) {
                u->s.sent = u->tail = u->s.written = u->s.acked;
                u->must_start = u->t->must_start;
        }
        u->readers = u->t->readers;
        u->stopped = u->t->stopped;
        promise(u->stopped <= 2);
        if (r < 0)
                tx_hang_up(u);
}

static void tx_frame(struct sender *u, uint32_t kind, uint64_t position, uint32_t bytes, unsigned lies, size_t at_a_time) {
        static struct bytes b;
        struct link_refusal refusal = {.error = (int32_t)position, .sentence = ""};
        struct link_header h;
        int should, r = 0;

        b.n = 0;
        frame_push(&b, kind, bytes, position, bytes < 256 ? bytes : 0, lies);
        if (kind == LINK_REFUSE && !(lies & ~(unsigned)LIE_SESSION) && bytes >= sizeof(refusal) && bytes < 256) {
                memset(refusal.sentence, 'x', sizeof(refusal.sentence));
                memcpy(b.b + sizeof(h), &refusal, sizeof(refusal));
                payload_repair(b.b, bytes);
                header_repair(b.b);
        }
        memcpy(&h, b.b, sizeof(h));
        if (!u->in_step) {
                tx_noise(u, b.b, b.n);
                return;
        }
        should = tx_should(&u->s, &h, b.b + sizeof(h));
        for (size_t fed = 0, n; fed < b.n && r == 0; fed += n) {
                n = b.n - fed < at_a_time ? b.n - fed : at_a_time;
                r = tx_feed(u->t, b.b + fed, n);
        }
        promise(r == should);
        if (r == 0)
                tx_believed(u, &h);
        else {
                if (u->t->state == LINK_ENDED) {
                        promise(kind == LINK_REFUSE || u->s.state == LINK_ENDED);
                        promise(memchr(u->t->refusal.sentence, '\0', sizeof(u->t->refusal.sentence)));
                        u->s.state = LINK_ENDED;
                }
                tx_hang_up(u);
        }
}

static void tx_said(struct sender *u) {
        const struct link_header *h = &u->said.h;

        if (!u->said_hello) {
                promise(h->kind == LINK_HELLO && h->bytes == sizeof(struct link_hello));
                u->said_hello = true;
                return;
        }
        switch (h->kind) {
        case LINK_START: /* one that was begun is said to its end, whatever came meanwhile */
                promise(u->must_start && !u->said_start && !h->bytes && h->position == u->s.written);
                u->said_start = true;
                break;
        case LINK_DATA:
                promise(!u->said_bye && u->said_start == u->must_start);
                promise(h->bytes && h->bytes <= RING_MOST && h->position == u->s.written);
                u->span = h->bytes;
                u->said.have = 0;
                break;
        case LINK_STOP:
                promise(!h->bytes && h->position > u->said_stop && h->position <= u->stop);
                u->said_stop = h->position;
                break;
        default:
                promise(!u->said_bye);
                u->said_bye = true;
                promise(h->kind == LINK_BYE && u->has_end && h->position == u->s.end && u->s.written == u->s.end && !h->bytes);
                promise(u->said_start == u->must_start);
        }
}

static void tx_write(struct sender *u, size_t n) {
        struct link_out out;

        while (n && u->up) {
                bool whole = !u->t->head_left && !u->t->span_left;
                struct link_header h;
                size_t take;

                if (!link_tx_out(u->t, &out))
                        break;
                promise(out.head_bytes + out.span_bytes);
                promise(!out.head_bytes || ((const unsigned char *)out.head >= u->t->head &&
                        (const unsigned char *)out.head + out.head_bytes <= u->t->head + sizeof(u->t->head)));
                if (whole) { /* it has just begun to say it */
                        memcpy(&h, out.head, sizeof(h));
                        if (h.kind == LINK_DATA) {
                                promise(out.span_bytes == h.bytes && out.position == u->s.sent);
                                u->s.sent += h.bytes;
                                if (u->s.sent - u->s.acked > u->s.reached - u->s.acked)
                                        u->s.reached = u->s.sent;
                        }
                        promise(h.kind != LINK_BYE || u->said_stop == u->stop);
                        u->s.said_bye |= h.kind == LINK_BYE;
                }
                take = out.head_bytes + out.span_bytes < n ? out.head_bytes + out.span_bytes : n;
                for (size_t i = 0; i < take; i++)
                        if (i >= out.head_bytes) {
                                promise(u->span && out.position + i - out.head_bytes == u->s.written);
                                u->s.written++;
                                u->span--;
                        } else if (said_byte(&u->said, ((const unsigned char *)out.head)[i]))
                                tx_said(u);
                link_tx_wrote(u->t, take);
                n -= take;
        }
}

static void tx_commit(struct sender *u, uint64_t n) {
        uint64_t room = u->s.acked + RING_MOST - u->tail;

        if (!u->s.has_lane)
                return;
        if (room > RING_MOST - (u->tail - u->s.sent))
                room = RING_MOST - (u->tail - u->s.sent);
        n = n < room ? n : room;
        if (u->has_end && n > u->s.end - u->tail)
                n = u->s.end - u->tail;
        u->tail += n;
        if (u->tail - u->start > u->most - u->start)
                u->most = u->tail;
        link_tx_commit(u->t, u->tail);
}

static void tx_step(struct sender *u) {
        struct input *in = u->in;
        uint8_t step = choose(in);

        switch (step & 15) {
        case 0: {
                unsigned char noise[64];
                size_t n = choose(in) % (sizeof(noise) + 1);

                for (size_t i = 0; i < n; i++)
                        noise[i] = choose(in);
                if (u->up)
                        tx_noise(u, noise, n);
                break;
        }
        case 1:
        case 2:
        case 3: { /* a frame: an honest one is where it stands, and lies by nothing */
                uint32_t kind = choose(in) % 10;
                uint8_t where = choose(in), lies = (step & 15) == 3 ? choose(in) : 0;
                uint64_t positions[] = {u->s.acked, u->s.sent, u->s.reached, u->s.end, u->tail, LINK_NOWHERE, 0,
                        (uint64_t)INT32_MIN};
                uint64_t position = positions[where % 8];
                uint32_t bytes = kind == LINK_REFUSE ? sizeof(struct link_refusal) : 0;

                if ((step & 15) != 1)
                        position += choose_off(in) * (where & 8 ? 1 : u->s.align);
                if (lies & 16)
                        bytes += (uint32_t)choose_off(in);
                if (lies & 32)
                        position += choose_number(in, 8);
                if (u->up)
                        tx_frame(u, kind, position, bytes, lies & 15, where & 16 ? (size_t)1 + choose(in) : SIZE_MAX);
                break;
        }
        case 4:
                if (u->up)
                        tx_frame(u, LINK_WELCOME, u->s.has_lane ? u->s.acked : LINK_NOWHERE, 0, 0, SIZE_MAX);
                break;
        case 5:
                tx_commit(u, (1 + choose(in) % 16) * u->s.align);
                break;
        case 6:
                tx_commit(u, RING_MOST);
                break;
        case 7:
                if (!u->has_end && u->s.has_lane) {
                        u->has_end = true;
                        u->s.end = u->most;
                        link_tx_close(u->t, u->s.end);
                }
                break;
        case 8:
                tx_write(u, choose(in));
                break;
        case 9:
                if (u->up)
                        tx_hang_up(u);
                tx_connect(u);
                break;
        case 10:
                if (u->up)
                        tx_hang_up(u);
                break;
        case 11:
                if (!u->s.has_lane) {
                        u->s.has_lane = true;
                        u->s.acked = u->s.sent = u->s.reached = u->tail = u->most = u->s.written = u->start;
                        link_tx_start(u->t, u->start);
                }
                break;
        case 12: /* with what is committed before it */
                u->stop = u->stop == 2 ? 2 : 1 + choose(in) % 2;
                link_tx_stop(u->t, u->stop);
                break;
        default:
                u->now += LINK_HELLO_WITHIN_NS / 4 * (choose(in) % 8);
                if (u->up) {
                        bool late = u->s.state == LINK_MEETING && u->now - u->connected >= LINK_HELLO_WITHIN_NS;

                        promise(u->s.state == LINK_ENDED || link_tx_tick(u->t, u->now) == (late ? -ETIME : 0));
                        if (late)
                                tx_hang_up(u);
                }
        }
        if (step & 0x80)
                tx_write(u, SIZE_MAX);
        tx_look(u);
}

static void sender(struct input *in, unsigned flags) {
        static struct sender u;
        struct link_hello hello = {.record_align = 16u << (flags >> 1 & 3), .ring_bytes = RING_MOST,
                .name_bytes = 4, .name = "name"};

        u = (struct sender){.in = in, .t = malloc(sizeof(*u.t)), .s = {.session = SESSION, .align = hello.record_align}};
        promise(u.t);
        u.start = choose_position(in, u.s.align);
        link_tx_init(u.t, SESSION, &hello, crc_of_span, &u);
        if (flags & 0x40) {
                u.s.has_lane = true;
                u.s.acked = u.s.sent = u.s.reached = u.tail = u.most = u.s.written = u.start;
                link_tx_start(u.t, u.start);
        }
        tx_connect(&u);
        while (in->left)
                tx_step(&u);
        tx_write(&u, SIZE_MAX);
        tx_look(&u);
        free(u.t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct input in = {data, size};
        unsigned flags = choose(&in);

        (flags & 0x01 ? sender : receiver)(&in, flags);
        return 0;
}
