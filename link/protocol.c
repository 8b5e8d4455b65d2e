/* Both ends of a link: see protocol.h. */
#include "link/protocol.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define ERRNO_MAX 4095 /* the kernel's: what is returned can be negated, and is an error's number */

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structures go over the wire as they are");
static_assert(sizeof(struct link_header) == 32, "the wire");
static_assert(sizeof(struct link_hello) == 136, "the wire");
static_assert(sizeof(struct link_refusal) == 128, "the wire");
static_assert(sizeof(struct link_rx) < 1024 && sizeof(struct link_tx) < 1024, "what a connection may cost");

/* ---- frames ------------------------------------------------------------------------------------------------------ */

static size_t frame_make(void *to, enum link_kind kind, uint64_t session, uint64_t position, const void *payload, uint32_t n) {
        struct link_header h = {.kind = kind, .bytes = n, .position = position, .session = session};

        h.crc = payload ? link_crc32c(0, payload, n) : 0;
        h.crc_self = link_crc32c(0, &h, offsetof(struct link_header, crc_self));
        memcpy(to, &h, sizeof(h));
        if (payload && n)
                memcpy((unsigned char *)to + sizeof(h), payload, n);
        return sizeof(h) + n;
}

static bool header_is_whole(const struct link_header *h) {
        return h->crc_self == link_crc32c(0, h, offsetof(struct link_header, crc_self));
}

/* Who says it comes first, so that neither's proof is the other's. */
static void prove(link_mac_fn mac, void *ctx, char who, uint64_t session, const struct link_hello *hello,
        const unsigned char nonce[32], unsigned char ret[LINK_MAC_BYTES]) {
        struct {
                char who[8];
                uint64_t session;
                struct link_hello hello;
                unsigned char nonce[32];
        } said = {.who = {'p', 's', 'y', 'n', 'e', '1', ' ', who}, .session = session, .hello = *hello};

        memcpy(said.nonce, nonce, sizeof(said.nonce));
        mac(ctx, &said, sizeof(said), ret);
}

/* In a time that says nothing about where they differ. */
static bool same(const unsigned char a[LINK_MAC_BYTES], const unsigned char b[LINK_MAC_BYTES]) {
        unsigned char differ = 0;

        for (unsigned i = 0; i < LINK_MAC_BYTES; i++)
                differ |= (unsigned char)(a[i] ^ b[i]);
        return !differ;
}

/* Collects up to @need bytes; true once they are there. */
static bool collect(struct link_in *in, size_t need, const unsigned char **bytes, size_t *n) {
        size_t take = need - in->have < *n ? need - in->have : *n;

        memcpy(in->bytes + in->have, *bytes, take);
        in->have += take;
        *bytes += take;
        *n -= take;
        return in->have == need;
}

/* ---- the sender -------------------------------------------------------------------------------------------------- */

void link_tx_init(struct link_tx *t, uint64_t session, const struct link_hello *hello,
        uint32_t (*crc)(void *ctx, uint64_t position, size_t n), void *ctx) {
        *t = (struct link_tx){
                .session = session,
                .hello = *hello,
                .deadline_ns = INT64_MAX,
                .crc = crc,
                .crc_ctx = ctx,
        };
        t->hello.magic = LINK_MAGIC;
        t->hello.version = LINK_VERSION;
}

void link_tx_key(struct link_tx *t, link_mac_fn mac, void *ctx) {
        t->mac = mac;
        t->mac_ctx = ctx;
}

void link_tx_start(struct link_tx *t, uint64_t position) {
        t->acked = t->sent = t->tail = t->reached = position;
        t->has_lane = true;
}

static void tx_say(struct link_tx *t, size_t n) {
        t->head_bytes = t->head_left = n;
}

static void tx_say_frame(struct link_tx *t, enum link_kind kind, uint64_t position) {
        tx_say(t, frame_make(t->head, kind, t->session, position, NULL, 0));
}

void link_tx_connected(struct link_tx *t, int64_t now_ns, const uint64_t nonce[2]) {
        t->state = LINK_MEETING;
        t->proved = false;
        memcpy(t->hello.nonce, nonce, sizeof(t->hello.nonce));
        t->in.have = 0;
        t->span_left = 0;
        t->must_start = t->said_bye = false;
        t->readers = t->said_stop = 0;
        t->deadline_ns = now_ns + LINK_HELLO_WITHIN_NS;
        tx_say(t, frame_make(t->head, LINK_HELLO, t->session, 0, &t->hello, sizeof(t->hello)));
}

void link_tx_lost(struct link_tx *t) {
        if (t->state != LINK_ENDED)
                t->state = LINK_DOWN;
        t->head_left = t->span_left = 0;
        t->readers = 0;
        t->deadline_ns = INT64_MAX;
}

void link_tx_commit(struct link_tx *t, uint64_t tail) {
        t->tail = tail;
}

void link_tx_close(struct link_tx *t, uint64_t end) {
        t->has_end = true;
        t->end = end;
}

void link_tx_stop(struct link_tx *t, uint64_t how) {
        t->stop = how;
}

bool link_tx_out(struct link_tx *t, struct link_out *ret) {
        if (!t->head_left && !t->span_left && t->state == LINK_OPEN && t->has_lane) {
                if (t->must_start) {
                        tx_say_frame(t, LINK_START, t->acked);
                        t->must_start = false;
                } else if (t->tail != t->sent) {
                        struct link_header h = {.kind = LINK_DATA,
                                .bytes = (uint32_t)(t->tail - t->sent),
                                .position = t->sent,
                                .session = t->session};

                        h.crc = t->crc(t->crc_ctx, t->sent, h.bytes);
                        h.crc_self = link_crc32c(0, &h, offsetof(struct link_header, crc_self));
                        memcpy(t->head, &h, sizeof(h));
                        tx_say(t, sizeof(h));
                        t->span_at = t->sent;
                        t->span_left = h.bytes;
                        t->sent += h.bytes;
                        if (t->sent - t->acked > t->reached - t->acked)
                                t->reached = t->sent;
                } else if (t->has_end && t->sent == t->end && !t->said_bye && t->said_stop >= t->stop) {
                        tx_say_frame(t, LINK_BYE, t->end);
                        t->said_bye = true;
                }
        }
        if (!t->head_left && !t->span_left && t->state == LINK_OPEN && t->said_stop < t->stop) {
                tx_say_frame(t, LINK_STOP, t->stop);
                t->said_stop = t->stop;
        }
        if (!t->head_left && !t->span_left)
                return false;
        *ret = (struct link_out){
                .head = t->head + t->head_bytes - t->head_left,
                .head_bytes = t->head_left,
                .position = t->span_at,
                .span_bytes = t->span_left,
        };
        return true;
}

void link_tx_wrote(struct link_tx *t, size_t n) {
        size_t head = n < t->head_left ? n : t->head_left;

        t->head_left -= head;
        n -= head;
        t->span_at += n;
        t->span_left -= n;
}

/* Handed out, up to @last, and where a record may start: what is acknowledged becomes a place in the sender's own lane. */
static bool tx_may_stand(const struct link_tx *t, uint64_t position, uint64_t last) {
        return position - t->acked <= last - t->acked && (position & (t->hello.record_align - 1)) == 0;
}

/* -EACCES, and it does not connect again before somebody has looked. */
static int tx_denied(struct link_tx *t, const char *sentence) {
        t->refusal.error = -EACCES;
        snprintf(t->refusal.sentence, sizeof(t->refusal.sentence), "%s", sentence);
        t->state = LINK_ENDED;
        return -EACCES;
}

static int tx_challenged(struct link_tx *t, const struct link_challenge *c) {
        unsigned char proof[LINK_MAC_BYTES];

        if (!t->mac)
                return tx_denied(t, "the other end asks for a key (key=)");
        prove(t->mac, t->mac_ctx, 'R', t->session, &t->hello, c->nonce, proof);
        if (!same(proof, c->proof))
                return tx_denied(t, "the other end has another key");
        prove(t->mac, t->mac_ctx, 'S', t->session, &t->hello, c->nonce, proof);
        tx_say(t, frame_make(t->head, LINK_PROOF, t->session, 0, proof, sizeof(proof)));
        t->proved = true;
        return 0;
}

static int tx_frame(struct link_tx *t, const struct link_header *h, const void *payload) {
        switch (h->kind) {
        case LINK_WELCOME:
                if (t->state != LINK_MEETING || h->bytes || h->session != t->session)
                        return -EPROTO;
                if (t->mac && !t->proved)
                        return tx_denied(t, "the other end did not ask for the key, and may be anybody");
                if (h->position == LINK_NOWHERE)
                        t->must_start = true; /* where we stand: what another process acknowledged stays with that */
                else if (!t->has_lane || !tx_may_stand(t, h->position, t->reached))
                        return -EPROTO;
                else
                        t->acked = h->position;
                t->sent = t->tail = t->acked;
                t->state = LINK_OPEN;
                t->deadline_ns = INT64_MAX;
                return 0;
        case LINK_CHALLENGE: {
                struct link_challenge c;

                if (t->state != LINK_MEETING || t->proved || t->head_left || h->bytes != sizeof(c) || h->session != t->session)
                        return -EPROTO;
                memcpy(&c, payload, sizeof(c));
                return tx_challenged(t, &c);
        }
        case LINK_REFUSE:
                if (h->bytes != sizeof(t->refusal))
                        return -EPROTO;
                memcpy(&t->refusal, payload, sizeof(t->refusal));
                t->refusal.sentence[sizeof(t->refusal.sentence) - 1] = '\0';
                t->state = LINK_ENDED;
                return t->refusal.error < 0 && t->refusal.error >= -ERRNO_MAX ? t->refusal.error : -EPROTO;
        case LINK_ACK:
                if (t->state != LINK_OPEN || h->bytes || h->session != t->session || !tx_may_stand(t, h->position, t->sent - t->span_left))
                        return -EPROTO;
                t->acked = h->position;
                return 0;
        case LINK_BYE: /* that all arrived is not enough: it has to know that nothing more comes */
                if (!t->said_bye || h->bytes || h->session != t->session || h->position != t->end)
                        return -EPROTO;
                t->acked = t->end;
                t->state = LINK_ENDED;
                return 0;
        case LINK_READERS:
                if (t->state != LINK_OPEN || h->bytes || h->session != t->session)
                        return -EPROTO;
                t->readers = h->position;
                return 0;
        case LINK_STOP:
                if (t->state != LINK_OPEN || h->bytes || h->session != t->session || h->position < 1 || h->position > 2)
                        return -EPROTO;
                t->stopped = h->position;
                return 0;
        default:
                return -EPROTO;
        }
}

int link_tx_read(struct link_tx *t, const void *bytes, size_t n) {
        const unsigned char *at = bytes;
        struct link_header h;
        int r;

        while (n) {
                if (t->in.have < sizeof(h) && !collect(&t->in, sizeof(h), &at, &n))
                        return 0;
                memcpy(&h, t->in.bytes, sizeof(h));
                if (!header_is_whole(&h) || h.bytes > sizeof(struct link_refusal))
                        return -EPROTO;
                if (!collect(&t->in, sizeof(h) + h.bytes, &at, &n))
                        return 0;
                if (h.bytes && h.crc != link_crc32c(0, t->in.bytes + sizeof(h), h.bytes))
                        return -EPROTO;
                t->in.have = 0;
                r = tx_frame(t, &h, t->in.bytes + sizeof(h));
                if (r < 0)
                        return r;
        }
        return 0;
}

int link_tx_tick(struct link_tx *t, int64_t now_ns) {
        return now_ns >= t->deadline_ns ? -ETIME : 0;
}

/* ---- the receiver ------------------------------------------------------------------------------------------------- */

void link_rx_init(struct link_rx *r) {
        *r = (struct link_rx){.deadline_ns = INT64_MAX, .ack_at_ns = INT64_MAX};
}

void link_rx_key(struct link_rx *r, link_mac_fn mac, void *ctx, const unsigned char nonce[32]) {
        r->mac = mac;
        r->mac_ctx = ctx;
        memcpy(r->challenge.nonce, nonce, sizeof(r->challenge.nonce));
}

void link_rx_connected(struct link_rx *r, int64_t now_ns) {
        r->state = LINK_MEETING;
        r->in.have = 0;
        r->head_left = r->frame_left = 0;
        r->now = (struct link_header){0};
        r->refusing = r->welcome_due = r->readers_due = r->ack_due = r->refusal_due = r->challenge_due = r->proving = false;
        r->said_stop = 0;
        r->deadline_ns = now_ns + LINK_HELLO_WITHIN_NS;
        r->ack_at_ns = INT64_MAX;
}

/* What has not been accepted was never ours: its bytes in the ring are written again. */
void link_rx_lost(struct link_rx *r) {
        if (r->state != LINK_ENDED)
                r->state = LINK_DOWN;
        r->head_left = r->frame_left = 0;
        r->deadline_ns = r->ack_at_ns = INT64_MAX;
}

void link_rx_want(struct link_rx *r, struct link_into *ret) {
        *ret = (struct link_into){0};
        if (r->refusing || r->state == LINK_DOWN || r->state == LINK_ENDED)
                return;
        if (r->frame_left) {
                uint64_t at = r->frame_at + r->now.bytes - r->frame_left, room = r->floor + r->ring_bytes - at;

                *ret = (struct link_into){.position = at, .n = r->frame_left < room ? r->frame_left : (size_t)room};
                return;
        }
        if (r->now.kind == LINK_DATA || r->now.kind == LINK_START) /* and nobody has said yet that it is good */
                return;
        ret->bytes = r->in.bytes + r->in.have;
        ret->n = (r->in.have < sizeof(r->now) ? sizeof(r->now) : sizeof(r->now) + r->now.bytes) - r->in.have;
}

static int rx_header(struct link_rx *r) {
        struct link_header *h = &r->now;

        memcpy(h, r->in.bytes, sizeof(*h));
        if (!header_is_whole(h))
                return -EPROTO;
        if (r->state == LINK_MEETING && r->proving)
                return h->kind == LINK_PROOF && h->bytes == LINK_MAC_BYTES && h->session == r->session ? LINK_NOTHING : -EPROTO;
        if (r->state == LINK_MEETING)
                return h->kind == LINK_HELLO && h->bytes == sizeof(r->hello) ? LINK_NOTHING : -EPROTO;
        if (h->session != r->session)
                return -EPROTO;
        if (h->kind == LINK_STOP && h->bytes == 0 && h->position >= 1 && h->position <= 2) {
                r->stopped = h->position;
                r->now = (struct link_header){0};
                r->in.have = 0;
                return LINK_STOPPED;
        }
        if (h->kind == LINK_START && !r->has_lane && h->bytes == 0 && h->position % r->hello.record_align == 0) {
                r->in.have = 0;
                return LINK_STARTED;
        }
        if (!r->has_lane || h->position != r->got)
                return -EPROTO;
        if (h->kind == LINK_BYE && h->bytes == 0) {
                r->state = LINK_ENDED;
                r->ack_at_ns = INT64_MIN; /* now */
                return LINK_CLOSED;
        }
        if (h->kind != LINK_DATA || h->bytes == 0 || h->bytes > r->ring_bytes || h->bytes > r->hello.ring_bytes ||
                h->bytes % r->hello.record_align)
                return -EPROTO;
        r->frame_at = h->position;
        r->frame_left = h->bytes;
        r->in.have = 0;
        return LINK_NOTHING;
}

static int rx_hello(struct link_rx *r) {
        struct link_hello h;

        memcpy(&h, r->in.bytes + sizeof(r->now), sizeof(h));
        r->in.have = 0;
        if (r->now.crc != link_crc32c(0, &h, sizeof(h)) || h.magic != LINK_MAGIC || r->now.session == 0)
                return -EPROTO;
        if (h.version != LINK_VERSION)
                return -EPROTONOSUPPORT;
        if (h.name_bytes == 0 || h.name_bytes > LINK_NAME_MAX || h.record_align < 16 || h.record_align & (h.record_align - 1) ||
                h.ring_bytes < h.record_align || h.ring_bytes & (h.ring_bytes - 1))
                return -EPROTO;
        r->hello = h;
        if (!r->mac)
                return LINK_CALLED;
        r->session = r->now.session; /* whose proof it has to be */
        prove(r->mac, r->mac_ctx, 'R', r->session, &r->hello, r->challenge.nonce, r->challenge.proof);
        r->proving = r->challenge_due = true;
        return LINK_NOTHING;
}

static int rx_proof(struct link_rx *r) {
        unsigned char proof[LINK_MAC_BYTES];

        r->in.have = 0;
        if (r->now.crc != link_crc32c(0, r->in.bytes + sizeof(r->now), LINK_MAC_BYTES))
                return -EPROTO;
        prove(r->mac, r->mac_ctx, 'S', r->session, &r->hello, r->challenge.nonce, proof);
        if (!same(proof, r->in.bytes + sizeof(r->now)))
                return -EACCES;
        r->proving = false;
        return LINK_CALLED;
}

int link_rx_read(struct link_rx *r, size_t n) {
        if (r->frame_left) {
                r->frame_left -= n;
                return r->frame_left ? LINK_NOTHING : LINK_ARRIVED;
        }
        r->in.have += n;
        if (r->in.have == sizeof(r->now)) {
                int e = rx_header(r);

                if (e != LINK_NOTHING || r->frame_left)
                        return e;
        }
        if (r->in.have > sizeof(r->now) && r->in.have == sizeof(r->now) + r->now.bytes)
                return r->proving ? rx_proof(r) : rx_hello(r);
        return LINK_NOTHING;
}

void link_rx_welcome(struct link_rx *r, uint64_t ring_bytes, uint64_t position) {
        r->session = r->now.session;
        r->ring_bytes = ring_bytes;
        r->has_lane = position != LINK_NOWHERE;
        r->got = r->acked = position;
        r->now = (struct link_header){0};
        r->state = LINK_OPEN;
        r->deadline_ns = INT64_MAX;
        r->welcome_due = r->readers_due = true;
}

void link_rx_refuse(struct link_rx *r, int error, const char *sentence) {
        if (r->state == LINK_ENDED) /* it has said goodbye: there is nothing left to refuse */
                return;
        r->ack_due |= r->state == LINK_OPEN && r->has_lane && r->got != r->acked; /* what has come has come */
        r->refusal = (struct link_refusal){.error = error};
        snprintf(r->refusal.sentence, sizeof(r->refusal.sentence), "%s", sentence);
        r->refusing = r->refusal_due = true;
}

void link_rx_started(struct link_rx *r) {
        r->has_lane = true;
        r->got = r->acked = r->now.position;
        r->now = (struct link_header){0};
}

void link_rx_accept(struct link_rx *r, int64_t now_ns) {
        r->got += r->now.bytes;
        r->now = (struct link_header){0};
        if (r->ack_at_ns > now_ns + LINK_ACK_AFTER_NS)
                r->ack_at_ns = now_ns + LINK_ACK_AFTER_NS;
        if (r->got - r->acked >= r->hello.ring_bytes / 4)
                r->ack_at_ns = now_ns;
}

void link_rx_freed(struct link_rx *r, uint64_t position) {
        r->floor = position;
}

void link_rx_readers(struct link_rx *r, uint64_t n) {
        r->readers_due |= n != r->readers;
        r->readers = n;
}

void link_rx_stop(struct link_rx *r, uint64_t how) {
        r->stop = how;
}

static void rx_say(struct link_rx *r, enum link_kind kind, uint64_t position, const void *payload, uint32_t n) {
        r->head_bytes = r->head_left = frame_make(r->head, kind, r->now.session ? r->now.session : r->session, position, payload, n);
}

bool link_rx_out(struct link_rx *r, struct link_out *ret) {
        if (r->head_left)
                ;
        else if (r->challenge_due) {
                rx_say(r, LINK_CHALLENGE, 0, &r->challenge, sizeof(r->challenge));
                r->challenge_due = false;
        } else if (r->welcome_due) {
                rx_say(r, LINK_WELCOME, r->got, NULL, 0);
                r->welcome_due = false;
        } else if (r->state == LINK_OPEN && r->readers_due) {
                rx_say(r, LINK_READERS, r->readers, NULL, 0);
                r->readers_due = false;
        } else if (r->state == LINK_OPEN && r->said_stop < r->stop) {
                rx_say(r, LINK_STOP, r->stop, NULL, 0);
                r->said_stop = r->stop;
        } else if (r->ack_due) {
                rx_say(r, r->state == LINK_ENDED ? LINK_BYE : LINK_ACK, r->got, NULL, 0);
                r->acked = r->got;
                r->ack_due = false;
                r->ack_at_ns = INT64_MAX; /* what was to be said then is said with it */
        } else if (r->refusal_due) {
                rx_say(r, LINK_REFUSE, 0, &r->refusal, sizeof(r->refusal));
                r->refusal_due = false;
        }
        if (!r->head_left)
                return false;
        *ret = (struct link_out){.head = r->head + r->head_bytes - r->head_left, .head_bytes = r->head_left};
        return true;
}

void link_rx_wrote(struct link_rx *r, size_t n) {
        r->head_left -= n;
        if (!r->head_left && r->refusing && !r->refusal_due) { /* the last word, also where an ACK or BYE was due */
                r->state = LINK_ENDED;
                r->ack_due = false;
                r->ack_at_ns = INT64_MAX;
        }
}

int link_rx_tick(struct link_rx *r, int64_t now_ns) {
        if (now_ns >= r->deadline_ns)
                return -ETIME;
        if (now_ns >= r->ack_at_ns) {
                r->ack_due = true;
                r->ack_at_ns = INT64_MAX;
        }
        return 0;
}

int64_t link_rx_due_ns(const struct link_rx *r) {
        return r->deadline_ns < r->ack_at_ns ? r->deadline_ns : r->ack_at_ns;
}
