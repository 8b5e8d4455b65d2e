/*
 * The first bytes of a connection: what a receiver does with a caller's, and what a sender does with the answer.
 *
 * byte 0   0x01 the end that sends; 0x02 and 0x04: the checksums of payload and header are made right after all; 0x08 the
 *          frame is the input's bytes as they are, instead of a good one with some bytes changed; 0x40 there is a key; 0x80
 *          the sender is asked for it; 0x30 what else is chosen
 * byte 1   how many bytes arrive at a time, 0: all
 * then     for the end that sends, four bytes of where it stands; then the bytes, or pairs (where, which bits) after their
 *          number; the same once more for a proof, at the end that receives; what follows an answer follows it
 */
#include "fuzz.h"

#define ALIGN 64u
#define SESSION 7u
#define FRAME_MOST (sizeof(struct link_header) + sizeof(struct link_hello))

static const struct link_hello good = {.magic = LINK_MAGIC, .version = LINK_VERSION, .ring_bytes = 4096, .record_align = ALIGN,
        .mode = 1, .name_bytes = 4, .name = "name"};

static const unsigned char nonce[32] = "drawn for this connection";

struct bytes {
        unsigned char b[FRAME_MOST + 256];
        size_t n;
};

static void frame_put(struct bytes *to, uint32_t kind, uint64_t position, const void *payload, size_t n) {
        struct link_header h = {.kind = kind, .bytes = (uint32_t)n, .position = position, .session = SESSION};

        memcpy(to->b, &h, sizeof(h));
        if (n)
                memcpy(to->b + sizeof(h), payload, n);
        to->n = sizeof(h) + n;
        payload_repair(to->b, n);
        header_repair(to->b);
}

/* What the input makes of a good frame. */
static void frame_spoil(struct bytes *f, struct input *in, unsigned flags) {
        size_t n = f->n, payload;
        uint32_t said;

        if (flags & 0x08) {
                f->n = 0;
                while (in->left && f->n < n)
                        f->b[f->n++] = choose(in);
        } else
                for (unsigned edits = choose(in) % 32; edits; edits--) {
                        size_t where = choose(in) % n;

                        f->b[where] ^= choose(in);
                }
        if (f->n < sizeof(struct link_header))
                return;
        memcpy(&said, f->b + offsetof(struct link_header, bytes), sizeof(said));
        payload = said < f->n - sizeof(struct link_header) ? said : f->n - sizeof(struct link_header);
        if (flags & 0x02)
                payload_repair(f->b, payload);
        if (flags & 0x04)
                header_repair(f->b);
}

/* ---- the receiver ------------------------------------------------------------------------------------------------- */

static bool is_power_of_two(uint64_t n) {
        return n && !(n & (n - 1));
}

/* The answer to @n bytes, said in other words than its own. */
static int rx_should(const unsigned char *bytes, size_t n) {
        struct link_header h;
        struct link_hello hello;

        if (n < sizeof(h))
                return LINK_NOTHING;
        memcpy(&h, bytes, sizeof(h));
        if (!header_is_good(&h) || h.kind != LINK_HELLO || h.bytes != sizeof(hello))
                return -EPROTO;
        if (n < sizeof(h) + sizeof(hello))
                return LINK_NOTHING;
        memcpy(&hello, bytes + sizeof(h), sizeof(hello));
        if (h.crc != link_crc32c(0, &hello, sizeof(hello)) || hello.magic != LINK_MAGIC || !h.session)
                return -EPROTO;
        if (hello.version != LINK_VERSION)
                return -EPROTONOSUPPORT;
        if (hello.name_bytes < 1 || hello.name_bytes > sizeof(hello.name) || !is_power_of_two(hello.record_align) ||
                hello.record_align < 16 || !is_power_of_two(hello.ring_bytes) || hello.ring_bytes < hello.record_align)
                return -EPROTO;
        return LINK_CALLED;
}

/* All it says, a few bytes at a time: the kinds of frames in their order. */
static unsigned rx_says(struct link_rx *r, uint64_t session, size_t at_a_time, struct link_header said[4]) {
        struct bytes b = {.n = 0};
        struct link_out out;
        unsigned n = 0;

        while (link_rx_out(r, &out)) {
                size_t take = out.head_bytes < at_a_time ? out.head_bytes : at_a_time;

                promise(out.head_bytes && !out.span_bytes);
                promise(b.n + take <= sizeof(b.b));
                memcpy(b.b + b.n, out.head, take);
                b.n += take;
                link_rx_wrote(r, take);
                if (b.n < sizeof(*said))
                        continue;
                memcpy(&said[n], b.b, sizeof(*said));
                promise(header_is_good(&said[n]) && said[n].session == session);
                if (b.n == sizeof(*said) + said[n].bytes) {
                        promise(said[n].crc == (said[n].bytes ? link_crc32c(0, b.b + sizeof(*said), said[n].bytes) : 0));
                        promise(++n < 4);
                        b.n = 0;
                }
        }
        promise(b.n == 0);
        return n;
}

/* All of @f, or until there is something to do. */
static int rx_feed(struct link_rx *r, const struct bytes *f, size_t at_a_time) {
        int e = LINK_NOTHING;

        for (size_t fed = 0, n; fed < f->n && e == LINK_NOTHING; fed += n) {
                struct link_into into;

                n = f->n - fed < at_a_time ? f->n - fed : at_a_time;
                link_rx_want(r, &into);
                want_stays_inside(r, &into);
                promise(into.n);
                n = n < into.n ? n : into.n;
                memcpy(into.bytes, f->b + fed, n);
                e = link_rx_read(r, n);
        }
        return e;
}

/* Its hello was good. It is asked for the key, and what it says may be good too. */
static int rx_challenge(struct link_rx *r, struct input *in, unsigned flags, const struct bytes *said_hello, size_t at_a_time) {
        unsigned char proof[LINK_MAC_BYTES];
        struct link_header h, said[4];
        struct link_hello hello;
        struct bytes f;
        int should, e;

        memcpy(&h, said_hello->b, sizeof(h));
        memcpy(&hello, said_hello->b + sizeof(h), sizeof(hello));
        promise(rx_says(r, h.session, at_a_time, said) == 1);
        promise(said[0].kind == LINK_CHALLENGE && said[0].bytes == sizeof(struct link_challenge));
        promise(memcmp(r->challenge.nonce, nonce, sizeof(nonce)) == 0);
        proof_of('R', h.session, &hello, nonce, proof);
        promise(memcmp(r->challenge.proof, proof, sizeof(proof)) == 0);

        proof_of('S', h.session, &hello, nonce, proof);
        frame_put(&f, LINK_PROOF, 0, proof, sizeof(proof));
        memcpy(f.b + offsetof(struct link_header, session), &h.session, sizeof(h.session));
        header_repair(f.b);
        frame_spoil(&f, in, flags);
        should = LINK_NOTHING;
        if (f.n >= sizeof(h)) {
                uint64_t session = h.session;

                memcpy(&h, f.b, sizeof(h));
                if (!header_is_good(&h) || h.kind != LINK_PROOF || h.bytes != sizeof(proof) || h.session != session)
                        should = -EPROTO;
                else if (f.n == sizeof(h) + sizeof(proof))
                        should = h.crc != link_crc32c(0, f.b + sizeof(h), sizeof(proof)) ? -EPROTO
                                : memcmp(f.b + sizeof(h), proof, sizeof(proof)) != 0     ? -EACCES
                                                                                         : LINK_CALLED;
        }
        e = rx_feed(r, &f, at_a_time);
        promise(e == should);
        return e;
}

static void rx_answer(struct link_rx *r, unsigned flags, size_t at_a_time) {
        struct link_header said[4];
        struct link_into into;
        uint64_t session = r->now.session;

        promise(r->state == LINK_MEETING);
        if (flags & 0x10) {
                link_rx_refuse(r, -ENOENT, flags & 0x20 ? "a short sentence"
                        : "one that is longer than what a refusal holds, which is a hundred and twenty-three bytes and the "
                          "zero that ends it, as one can count");
                link_rx_want(r, &into);
                promise(!into.n);
                promise(rx_says(r, session, at_a_time, said) == 1);
                promise(said[0].kind == LINK_REFUSE && said[0].bytes == sizeof(struct link_refusal));
                promise(r->state == LINK_ENDED);
                return;
        }
        link_rx_freed(r, 128);
        link_rx_welcome(r, 4096, flags & 0x20 ? LINK_NOWHERE : 128);
        link_rx_want(r, &into);
        want_stays_inside(r, &into);
        promise(into.n == sizeof(struct link_header));
        promise(link_rx_tick(r, INT64_MAX - 1) == 0); /* it has said who it is */
        promise(rx_says(r, session, at_a_time, said) == 2);
        promise(said[0].kind == LINK_WELCOME && said[0].position == (flags & 0x20 ? LINK_NOWHERE : 128));
        promise(said[1].kind == LINK_READERS && said[1].position == 0);
}

static void receiver(struct input *in, unsigned flags, size_t at_a_time) {
        struct link_rx *r = malloc(sizeof(*r));
        struct bytes f;
        int e, should;

        promise(r);
        link_rx_init(r);
        link_rx_connected(r, 0);
        if (flags & 0x40)
                link_rx_key(r, mac_of, NULL, nonce);
        frame_put(&f, LINK_HELLO, 0, &good, sizeof(good));
        frame_spoil(&f, in, flags);
        should = rx_should(f.b, f.n);
        e = rx_feed(r, &f, at_a_time);
        if (should == LINK_CALLED && flags & 0x40) {
                promise(e == LINK_NOTHING);
                e = should = rx_challenge(r, in, flags, &f, at_a_time);
        }
        promise(e == should);
        promise(link_rx_due_ns(r) == LINK_HELLO_WITHIN_NS);
        promise(link_rx_tick(r, LINK_HELLO_WITHIN_NS - 1) == 0);
        promise(link_rx_tick(r, LINK_HELLO_WITHIN_NS) == -ETIME);
        if (e == LINK_CALLED)
                rx_answer(r, flags, at_a_time);
        link_rx_lost(r);
        promise(link_rx_tick(r, INT64_MAX - 1) == 0);
        free(r);
}

/* ---- the sender -------------------------------------------------------------------------------------------------- */

static uint32_t crc_of_span(void *ctx, uint64_t position, size_t n) {
        (void)ctx;
        (void)position;
        return (uint32_t)n;
}

static void write_all(struct link_tx *t, size_t at_a_time) {
        struct link_out out;

        while (link_tx_out(t, &out)) {
                size_t n = out.head_bytes + out.span_bytes;

                promise(n);
                link_tx_wrote(t, n < at_a_time ? n : at_a_time);
        }
}

/* What a challenge led to: its own proof, and then it believes a welcome. */
static void tx_proves(struct link_tx *t, struct tx_stand *s, const unsigned char *challenge, size_t at_a_time) {
        unsigned char proof[LINK_MAC_BYTES];
        struct link_header h;
        struct link_tx again;
        struct link_out out;
        struct bytes f;

        promise(t->state == LINK_MEETING && link_tx_out(t, &out));
        promise(out.head_bytes == sizeof(h) + sizeof(proof) && !out.span_bytes);
        memcpy(&h, out.head, sizeof(h));
        promise(header_is_good(&h) && h.kind == LINK_PROOF && h.bytes == sizeof(proof) && h.session == SESSION);
        proof_of('S', SESSION, &s->hello, challenge, proof);
        promise(memcmp((const unsigned char *)out.head + sizeof(h), proof, sizeof(proof)) == 0);
        promise(h.crc == link_crc32c(0, proof, sizeof(proof)));
        write_all(t, at_a_time);
        s->proved = true;
        again = *t;
        frame_put(&f, LINK_CHALLENGE, 0, challenge, sizeof(struct link_challenge));
        promise(tx_feed(&again, f.b, f.n) == -EPROTO); /* it is asked once */
        frame_put(&f, LINK_WELCOME, LINK_NOWHERE, NULL, 0);
        memcpy(&h, f.b, sizeof(h));
        promise(tx_should(s, &h, NULL) == 0 && tx_feed(t, f.b, f.n) == 0 && t->state == LINK_OPEN);
}

static void sender(struct input *in, unsigned flags, size_t at_a_time) {
        struct link_tx *t = malloc(sizeof(*t));
        struct tx_stand s = {.session = SESSION, .align = ALIGN, .state = LINK_MEETING};
        uint64_t start = choose_position(in, ALIGN), before = choose(in) % 8 * ALIGN;
        unsigned what = choose(in);
        uint64_t step = choose_off(in) * (flags & 0x20 ? 1 : ALIGN);
        struct link_refusal refusal = {.error = -EMEDIUMTYPE, .sentence = "no"};
        struct link_challenge challenge;
        struct link_header h;
        struct bytes f;
        size_t whole;
        int r = 0, should = 0;

        promise(t);
        link_tx_init(t, SESSION, &good, crc_of_span, NULL);
        s.hello = good;
        s.hello.nonce[0] = 1;
        s.hello.nonce[1] = 2;
        s.has_lane = what & 0x80;
        if (s.has_lane) {
                link_tx_start(t, start);
                s.acked = s.sent = s.reached = s.end = start;
        }
        if (s.has_lane && before) { /* it was up before, and heard nothing of what it sent */
                link_tx_connected(t, 0, (uint64_t[2]){1, 2});
                write_all(t, at_a_time);
                frame_put(&f, LINK_WELCOME, start, NULL, 0);
                promise(tx_feed(t, f.b, f.n) == 0);
                link_tx_commit(t, start + before);
                write_all(t, at_a_time);
                link_tx_lost(t);
                s.sent = s.reached = start + before;
        }
        s.has_key = flags & 0x40;
        if (s.has_key)
                link_tx_key(t, mac_of, NULL);
        link_tx_connected(t, 0, (uint64_t[2]){1, 2});
        s.said_hello = what & 0x40;
        if (s.said_hello)
                write_all(t, at_a_time);
        memcpy(challenge.nonce, nonce, sizeof(nonce));
        proof_of('R', SESSION, &s.hello, nonce, challenge.proof);
        switch (flags & 0x80 ? 4 : what % 4) {
        case 0:
                frame_put(&f, LINK_WELCOME, start + step, NULL, 0);
                break;
        case 1:
                frame_put(&f, LINK_WELCOME, LINK_NOWHERE, NULL, 0);
                break;
        case 2:
                frame_put(&f, LINK_REFUSE, 0, &refusal, sizeof(refusal));
                break;
        case 3:
                frame_put(&f, LINK_READERS, step, NULL, 0);
                break;
        default:
                frame_put(&f, LINK_CHALLENGE, 0, &challenge, sizeof(challenge));
        }
        frame_spoil(&f, in, flags);
        while (in->left && f.n < sizeof(f.b))
                f.b[f.n++] = choose(in);

        /* One frame of it, and what that leads to; then the rest, which leads to something. */
        if (f.n >= sizeof(h))
                memcpy(&h, f.b, sizeof(h));
        whole = f.n < sizeof(h) ? f.n : sizeof(h);
        if (whole == sizeof(h) && header_is_good(&h) && h.bytes <= sizeof(refusal))
                whole = sizeof(h) + h.bytes < f.n ? sizeof(h) + h.bytes : f.n;
        if (whole >= sizeof(h))
                should = header_is_good(&h) && h.bytes <= sizeof(refusal) && whole < sizeof(h) + h.bytes
                        ? 0 : tx_should(&s, &h, f.b + sizeof(h));
        for (size_t fed = 0, n; fed < whole && r == 0; fed += n) {
                n = whole - fed < at_a_time ? whole - fed : at_a_time;
                r = tx_feed(t, f.b + fed, n);
        }
        promise(r == should);
        promise(t->acked - s.acked <= s.reached - s.acked);
        if (r == 0 && t->state == LINK_OPEN) {
                promise(whole == sizeof(h) && h.kind == LINK_WELCOME);
                promise(t->sent == t->acked && t->tail == t->acked);
                promise(t->acked == (h.position == LINK_NOWHERE ? s.acked : h.position));
                promise(link_tx_tick(t, INT64_MAX - 1) == 0); /* it is answered */
        } else if (r == 0 && h.bytes == sizeof(challenge) && whole == sizeof(h) + sizeof(challenge) &&
                h.kind == LINK_CHALLENGE)
                tx_proves(t, &s, f.b + sizeof(h), at_a_time);
        else if (r == 0)
                promise(link_tx_tick(t, LINK_HELLO_WITHIN_NS - 1) == 0 && link_tx_tick(t, LINK_HELLO_WITHIN_NS) == -ETIME);
        if (t->state == LINK_ENDED)
                promise(memchr(t->refusal.sentence, '\0', sizeof(t->refusal.sentence)));
        if (r == 0)
                (void)tx_feed(t, f.b + whole, f.n - whole);
        promise(t->acked - s.acked <= s.reached - s.acked);
        write_all(t, at_a_time);
        link_tx_lost(t);
        promise(t->readers == 0 && link_tx_tick(t, INT64_MAX - 1) == 0);
        free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct input in = {data, size};
        unsigned flags = choose(&in);
        size_t at_a_time = choose(&in);

        (flags & 0x01 ? sender : receiver)(&in, flags, at_a_time ? at_a_time : SIZE_MAX);
        return 0;
}
