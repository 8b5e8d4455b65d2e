/* What no honest end says: lies, noise, other protocols. Each is hung up on, and nothing is believed before it is checked. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "link/protocol.h"

#define RING 4096u

static const struct link_hello good = {.ring_bytes = RING, .record_align = 64, .mode = 1, .name_bytes = 4, .name = "name"};
static const uint64_t no_nonce[2];
static unsigned char ring[RING];

static uint32_t no_crc(void *ctx, uint64_t position, size_t n) {
        (void)ctx;
        return link_crc32c(0, ring + position % RING, n);
}

/* All of @bytes, as a connection would bring them; the first event, or what it was hung up for. */
static int feed(struct link_rx *r, const void *bytes, size_t n) {
        const unsigned char *at = bytes;

        while (n) {
                struct link_into into;
                size_t take;
                int e;

                link_rx_want(r, &into);
                if (!into.n)
                        return LINK_NOTHING;
                take = into.n < n ? into.n : n;
                memcpy(into.bytes ? into.bytes : ring + into.position % RING, at, take);
                at += take;
                n -= take;
                e = link_rx_read(r, take);
                if (e != LINK_NOTHING)
                        return e;
        }
        return LINK_NOTHING;
}

/* What a sender says first, in one piece. */
static size_t hello_of(struct link_tx *t, const struct link_hello *hello, unsigned char to[256]) {
        struct link_out out;

        link_tx_init(t, 7, hello, no_crc, NULL);
        link_tx_start(t, 0);
        link_tx_connected(t, 0, no_nonce);
        cr_assert(link_tx_out(t, &out));
        cr_assert_eq(out.span_bytes, 0);
        memcpy(to, out.head, out.head_bytes);
        link_tx_wrote(t, out.head_bytes);
        return out.head_bytes;
}

static struct link_rx fresh(void) {
        struct link_rx r;

        link_rx_init(&r);
        link_rx_connected(&r, 0);
        return r;
}

static size_t frame(unsigned char *to, uint32_t kind, uint32_t bytes, uint64_t session, uint64_t position, uint32_t crc) {
        struct link_header h = {.kind = kind, .bytes = bytes, .position = position, .session = session, .crc = crc};

        h.crc_self = link_crc32c(0, &h, offsetof(struct link_header, crc_self));
        memcpy(to, &h, sizeof(h));
        return sizeof(h);
}

Test(link, crc32c_is_the_one) {
        static unsigned char many[20000];
        unsigned char zeros[32] = {0}, up[32];

        for (unsigned i = 0; i < 32; i++)
                up[i] = (unsigned char)i;
        cr_assert_eq(link_crc32c(0, "123456789", 9), 0xe3069283u);
        cr_assert_eq(link_crc32c(0, zeros, 32), 0x8a9136aau);
        cr_assert_eq(link_crc32c(0, up, 32), 0x46dd794eu);

        /* However it is divided, and at every length around those that are worked on in several stretches. */
        for (size_t n = 0; n < sizeof(many); n++)
                many[n] = (unsigned char)(n * 2654435761u >> 13);
        for (size_t n = 0; n <= sizeof(many); n += n < 3000 || n > 3100 ? 97 : 1) {
                uint32_t bytewise = 0;

                for (size_t i = 0; i < n; i++)
                        bytewise = link_crc32c(bytewise, many + i, 1);
                cr_assert_eq(link_crc32c(0, many, n), bytewise, "of %zu bytes", n);
                cr_assert_eq(link_crc32c(link_crc32c(0, many, n / 3), many + n / 3, n - n / 3), bytewise);
        }
        for (unsigned cut = 0; cut <= 32; cut++)
                cr_assert_eq(link_crc32c(link_crc32c(0, up, cut), up + cut, 32 - cut), 0x46dd794eu);
}

Test(link, hello_in_two_pieces) {
        unsigned char bytes[256];
        struct link_tx t;
        size_t n = hello_of(&t, &good, bytes);

        for (size_t cut = 0; cut < n; cut++) {
                struct link_rx r = fresh();

                cr_assert_eq(feed(&r, bytes, cut), LINK_NOTHING);
                cr_assert_eq(feed(&r, bytes + cut, n - cut), LINK_CALLED);
                cr_assert_eq(r.now.session, 7);
                cr_assert_str_eq(r.hello.name, "name");
        }
}

Test(link, hello_with_one_bit_flipped) {
        unsigned char bytes[256];
        struct link_tx t;
        size_t n = hello_of(&t, &good, bytes);

        for (size_t bit = 0; bit < n * 8; bit++) {
                struct link_rx r = fresh();

                bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
                cr_assert_lt(feed(&r, bytes, n), 0, "bit %zu", bit);
                bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
}

Test(link, half_a_hello_is_not_waited_for) {
        unsigned char bytes[256];
        struct link_tx t;
        size_t n = hello_of(&t, &good, bytes);
        struct link_rx r = fresh();

        cr_assert_eq(feed(&r, bytes, n / 2), LINK_NOTHING);
        cr_assert_eq(link_rx_due_ns(&r), LINK_HELLO_WITHIN_NS);
        cr_assert_eq(link_rx_tick(&r, LINK_HELLO_WITHIN_NS - 1), 0);
        cr_assert_eq(link_rx_tick(&r, LINK_HELLO_WITHIN_NS), -ETIME);
        cr_assert_eq(link_tx_tick(&t, LINK_HELLO_WITHIN_NS), -ETIME, "nor is an answer to it");
}

Test(link, other_protocols) {
        static const char *const said[] = {"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n                 ",
                "\x16\x03\x01\x02\x01\x01\x01\x01\xfc\x03\x03 a client hello of TLS, but for its zeros ............",
                "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n                            "};
        uint64_t x = 1;

        for (unsigned i = 0; i < sizeof(said) / sizeof(*said); i++) {
                struct link_rx r = fresh();

                cr_assert_lt(feed(&r, said[i], strlen(said[i])), 0, "%u", i);
        }
        for (unsigned i = 0; i < 100000; i++) {
                unsigned char noise[64];
                struct link_rx r = fresh();

                for (unsigned k = 0; k < sizeof(noise); k++) {
                        x = x * 6364136223846793005ull + 1442695040888963407ull;
                        noise[k] = (unsigned char)(x >> 56);
                }
                cr_assert_lt(feed(&r, noise, sizeof(noise)), 0, "%u", i);
        }
}

Test(link, hellos_that_lie) {
#define LIE(field, value, error)                                                                                       \
        do {                                                                                                           \
                struct link_hello h = good;                                                                            \
                struct link_rx r = fresh();                                                                            \
                unsigned char bytes[256];                                                                              \
                struct link_tx t;                                                                                      \
                                                                                                                       \
                h.field = value;                                                                                       \
                cr_assert_eq(feed(&r, bytes, hello_of(&t, &h, bytes)), error, #field " = " #value);                    \
        } while (0)
        LIE(ring_bytes, 0, -EPROTO);
        LIE(ring_bytes, 4095, -EPROTO);
        LIE(ring_bytes, 32, -EPROTO);
        LIE(record_align, 0, -EPROTO);
        LIE(record_align, 8, -EPROTO);
        LIE(record_align, 48, -EPROTO);
        LIE(name_bytes, 0, -EPROTO);
        LIE(name_bytes, 65, -EPROTO);
        LIE(ring_bytes, RING, LINK_CALLED);
}

Test(link, another_version) {
        unsigned char bytes[256];
        struct link_hello h;
        struct link_tx t;
        struct link_rx r = fresh();
        size_t n = hello_of(&t, &good, bytes);

        memcpy(&h, bytes + sizeof(struct link_header), sizeof(h));
        h.version = LINK_VERSION + 1;
        memcpy(bytes + sizeof(struct link_header), &h, sizeof(h));
        frame(bytes, LINK_HELLO, sizeof(h), 7, 0, link_crc32c(0, &h, sizeof(h)));
        cr_assert_eq(feed(&r, bytes, n), -EPROTONOSUPPORT);
}

static struct link_rx met(void) {
        unsigned char bytes[256];
        struct link_tx t;
        struct link_rx r = fresh();

        cr_assert_eq(feed(&r, bytes, hello_of(&t, &good, bytes)), LINK_CALLED);
        link_rx_freed(&r, 640);
        link_rx_welcome(&r, RING, 640);
        return r;
}

Test(link, frames_that_lie) {
        static const struct {
                uint32_t kind, bytes;
                uint64_t session, position;
        } lies[] = {
                {LINK_DATA, 0, 7, 640},              /* nothing */
                {LINK_DATA, 65, 7, 640},             /* part of a record */
                {LINK_DATA, RING + 64, 7, 640},      /* more than the ring */
                {LINK_DATA, LINK_FRAME_MAX + 64, 7, 640},
                {LINK_DATA, UINT32_MAX - 63, 7, 640},
                {LINK_DATA, 64, 8, 640},             /* another session's */
                {LINK_DATA, 64, 7, 576},             /* again */
                {LINK_DATA, 64, 7, 704},             /* with a gap */
                {LINK_BYE, 0, 7, 704},               /* before its end */
                {LINK_BYE, 64, 7, 640},
                {LINK_START, 0, 7, 640},             /* it has started */
                {LINK_READERS, 0, 7, 1},             /* the wrong way */
                {LINK_STOP, 0, 7, 0},
                {LINK_STOP, 0, 7, 3},
                {LINK_STOP, 64, 7, 1},
                {LINK_HELLO, sizeof(struct link_hello), 7, 640},
                {LINK_ACK, 0, 7, 640},               /* the wrong way */
                {0, 0, 7, 640},
                {UINT32_MAX, 0, 7, 640},
        };

        for (unsigned i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
                struct link_rx r = met();
                unsigned char bytes[sizeof(struct link_header)];

                frame(bytes, lies[i].kind, lies[i].bytes, lies[i].session, lies[i].position, 0);
                cr_assert_eq(feed(&r, bytes, sizeof(bytes)), -EPROTO, "%u", i);
        }
}

/* A ring whose readers do not read takes no more than it has room for. */
Test(link, readers_that_do_not_read) {
        struct link_rx r = met();
        unsigned char bytes[sizeof(struct link_header)];
        struct link_into into;

        frame(bytes, LINK_DATA, RING, 7, 640, 0);
        cr_assert_eq(feed(&r, bytes, sizeof(bytes)), LINK_NOTHING);
        link_rx_want(&r, &into);
        cr_assert_eq(into.position, 640);
        cr_assert_eq(into.n, RING);
        cr_assert_eq(link_rx_read(&r, RING), LINK_ARRIVED);
        link_rx_want(&r, &into);
        cr_assert_eq(into.n, 0, "nothing more before somebody has said that it is good");
        link_rx_accept(&r, 0);
        frame(bytes, LINK_DATA, 128, 7, 640 + RING, 0);
        cr_assert_eq(feed(&r, bytes, sizeof(bytes)), LINK_NOTHING);
        link_rx_want(&r, &into);
        cr_assert_eq(into.n, 0, "no room");
        link_rx_freed(&r, 704);
        link_rx_want(&r, &into);
        cr_assert_eq(into.n, 64);
}

Test(link, receivers_that_lie) {
        static const struct {
                bool open;
                uint32_t kind, bytes;
                uint64_t session, position;
        } lies[] = {
                {false, LINK_WELCOME, 0, 7, 4096},    /* more than was ever committed */
                {false, LINK_WELCOME, 0, 7, UINT64_MAX - 63},
                {false, LINK_WELCOME, 0, 6, 0},
                {false, LINK_WELCOME, 64, 7, 0},
                {false, LINK_ACK, 0, 7, 0},
                {false, LINK_REFUSE, 4, 7, 0},
                {false, LINK_DATA, 64, 7, 0},
                {true, LINK_WELCOME, 0, 7, 0},        /* twice */
                {true, LINK_ACK, 0, 7, 1088},         /* more than was sent */
                {true, LINK_ACK, 0, 7, UINT64_MAX},   /* back */
                {true, LINK_ACK, 0, 7, 65},           /* within a record */
                {true, LINK_ACK, 0, 6, 64},
                {true, LINK_BYE, 0, 7, 1024},         /* that nobody said first */
                {true, LINK_REFUSE, 4, 7, 0},
                {true, LINK_READERS, 8, 7, 0},
                {true, LINK_READERS, 0, 6, 0},
                {true, LINK_START, 0, 7, 0},
                {true, LINK_STOP, 0, 7, 0},
                {true, LINK_STOP, 0, 7, 3},
                {true, LINK_STOP, 0, 6, 1},
                {false, LINK_STOP, 0, 7, 1},
                {true, LINK_HELLO, 136, 7, 0},
        };

        for (unsigned i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
                unsigned char bytes[sizeof(struct link_header) + 136] = {0};
                struct link_out out;
                struct link_tx t;

                hello_of(&t, &good, (unsigned char[256]){0});
                link_tx_commit(&t, 1024);
                if (lies[i].open) {
                        cr_assert_eq(link_tx_read(&t, bytes, frame(bytes, LINK_WELCOME, 0, 7, 0, 0)), 0);
                        link_tx_commit(&t, 1024);
                        cr_assert(link_tx_out(&t, &out));
                        cr_assert_eq(out.span_bytes, 1024);
                }
                memset(bytes, 0, sizeof(bytes));
                frame(bytes, lies[i].kind, lies[i].bytes, lies[i].session, lies[i].position,
                        link_crc32c(0, bytes + sizeof(struct link_header), lies[i].bytes));
                cr_assert_eq(link_tx_read(&t, bytes, sizeof(struct link_header) + lies[i].bytes), -EPROTO, "%u", i);
        }
}

/* A lane starts once, at a record's start; before that nothing else is said about it. */
Test(link, starts_that_lie) {
        static const struct {
                uint32_t kind, bytes;
                uint64_t position;
                int event;
        } said[] = {
                {LINK_START, 0, 640, LINK_STARTED}, {LINK_START, 0, 641, -EPROTO}, {LINK_START, 64, 640, -EPROTO},
                {LINK_DATA, 64, 0, -EPROTO},        {LINK_BYE, 0, 0, -EPROTO},     {LINK_DATA, 64, LINK_NOWHERE, -EPROTO},
        };

        for (unsigned i = 0; i < sizeof(said) / sizeof(*said); i++) {
                unsigned char bytes[256];
                struct link_into into;
                struct link_tx t;
                struct link_rx r = fresh();

                cr_assert_eq(feed(&r, bytes, hello_of(&t, &good, bytes)), LINK_CALLED);
                link_rx_welcome(&r, RING, LINK_NOWHERE);
                cr_assert_eq(feed(&r, bytes, frame(bytes, said[i].kind, said[i].bytes, 7, said[i].position, 0)), said[i].event,
                        "%u", i);
                if (said[i].event < 0)
                        continue;
                link_rx_want(&r, &into);
                cr_assert_eq(into.n, 0, "nothing more before there is a lane");
                link_rx_started(&r);
                cr_assert_eq(feed(&r, bytes, frame(bytes, LINK_START, 0, 7, 640, 0)), -EPROTO);
        }
}

/* A receiver that does not know the session starts where the sender stands; one that does says where it stands itself. */
Test(link, welcomes) {
        unsigned char bytes[256];
        struct link_header h;
        struct link_out out;
        struct link_tx t;

        hello_of(&t, &good, bytes);
        link_tx_commit(&t, 1024);
        cr_assert_eq(link_tx_read(&t, bytes, frame(bytes, LINK_WELCOME, 0, 7, LINK_NOWHERE, 0)), 0);
        cr_assert(link_tx_out(&t, &out));
        memcpy(&h, out.head, sizeof(h));
        cr_assert_eq(h.kind, LINK_START);
        cr_assert_eq(h.position, 0);
        link_tx_wrote(&t, out.head_bytes);
        cr_assert_not(link_tx_out(&t, &out), "what was committed before is to be committed anew");
        link_tx_commit(&t, 1024);
        cr_assert(link_tx_out(&t, &out));
        link_tx_wrote(&t, out.head_bytes + out.span_bytes);
        cr_assert_eq(t.sent, 1024);

        link_tx_lost(&t);
        link_tx_connected(&t, 0, no_nonce);
        cr_assert(link_tx_out(&t, &out));
        link_tx_wrote(&t, out.head_bytes);
        cr_assert_eq(link_tx_read(&t, bytes, frame(bytes, LINK_WELCOME, 0, 7, 512, 0)), 0);
        cr_assert_eq(t.acked, 512);
        cr_assert_eq(t.sent, 512);
        link_tx_close(&t, 1024);
        cr_assert_not(link_tx_out(&t, &out), "it is not through");
        link_tx_commit(&t, 1024);
        cr_assert(link_tx_out(&t, &out));
        cr_assert_eq(out.position, 512);
        link_tx_wrote(&t, out.head_bytes + out.span_bytes);
        cr_assert(link_tx_out(&t, &out));
        memcpy(&h, out.head, sizeof(h));
        cr_assert_eq(h.kind, LINK_BYE);
}

/* A stop goes with what was committed before it, and comes again over a new connection. */
Test(link, stops) {
        unsigned char bytes[256];
        struct link_header h;
        struct link_out out;
        struct link_tx t;
        struct link_rx r = met();

        for (unsigned round = 0; round < 2; round++) {
                if (round) {
                        link_tx_lost(&t);
                        link_tx_connected(&t, 0, no_nonce);
                        cr_assert(link_tx_out(&t, &out));
                        link_tx_wrote(&t, out.head_bytes);
                } else
                        hello_of(&t, &good, bytes);
                link_tx_stop(&t, 1);
                link_tx_close(&t, 64);
                cr_assert_eq(link_tx_read(&t, bytes, frame(bytes, LINK_WELCOME, 0, 7, 0, 0)), 0);
                link_tx_commit(&t, 64);
                for (unsigned i = 0; i < 3; i++) {
                        static const uint32_t kinds[] = {LINK_DATA, LINK_STOP, LINK_BYE};

                        cr_assert(link_tx_out(&t, &out));
                        memcpy(&h, out.head, sizeof(h));
                        cr_assert_eq(h.kind, kinds[i], "%u", i);
                        link_tx_wrote(&t, out.head_bytes + out.span_bytes);
                }
        }
        cr_assert_eq(feed(&r, bytes, frame(bytes, LINK_STOP, 0, 7, 2, 0)), LINK_STOPPED);
        cr_assert_eq(r.stopped, 2);
        link_rx_stop(&r, 2);
        for (unsigned i = 0; i < 6; i++) {
                static const uint32_t kinds[] = {LINK_WELCOME, LINK_READERS, LINK_STOP};

                if (i == 3) {
                        struct link_tx another;

                        cr_assert_not(link_rx_out(&r, &out));
                        link_rx_lost(&r);
                        link_rx_connected(&r, 0);
                        cr_assert_eq(feed(&r, bytes, hello_of(&another, &good, bytes)), LINK_CALLED);
                        link_rx_welcome(&r, RING, 640);
                }
                cr_assert(link_rx_out(&r, &out));
                memcpy(&h, out.head, sizeof(h));
                cr_assert_eq(h.kind, kinds[i % 3], "%u", i);
                link_rx_wrote(&r, out.head_bytes);
        }
        cr_assert_not(link_rx_out(&r, &out));
        cr_assert_eq(link_tx_read(&t, bytes, frame(bytes, LINK_STOP, 0, 7, 2, 0)), 0);
        cr_assert_eq(t.stopped, 2);
}

/* Where a receiver stands is where a record starts: what it says becomes a place in the sender's own lane. */
Test(link, welcome_within_a_record) {
        static const struct {
                uint64_t position;
                int result;
        } said[] = {{1, -EPROTO}, {63, -EPROTO}, {64, 0}, {1024, 0}, {1025, -EPROTO}};

        for (unsigned i = 0; i < sizeof(said) / sizeof(*said); i++) {
                unsigned char bytes[256];
                struct link_out out;
                struct link_tx t;

                hello_of(&t, &good, bytes);
                cr_assert_eq(link_tx_read(&t, bytes, frame(bytes, LINK_WELCOME, 0, 7, 0, 0)), 0);
                link_tx_commit(&t, 1024);
                cr_assert(link_tx_out(&t, &out));
                link_tx_lost(&t);
                link_tx_connected(&t, 0, no_nonce);
                cr_assert_eq(link_tx_read(&t, bytes, frame(bytes, LINK_WELCOME, 0, 7, said[i].position, 0)), said[i].result, "%u", i);
                cr_assert_eq(t.acked, said[i].result ? 0 : said[i].position);
        }
}

/* What it is refused for is passed on as an errno, so it has to be one. */
Test(link, refusals_that_lie) {
        static const struct {
                int32_t error;
                int result;
        } said[] = {{-EPIPE, -EPIPE}, {-4095, -4095}, {-4096, -EPROTO}, {INT32_MIN, -EPROTO}, {0, -EPROTO}, {EPIPE, -EPROTO}};

        for (unsigned i = 0; i < sizeof(said) / sizeof(*said); i++) {
                struct link_refusal refusal = {.error = said[i].error};
                unsigned char bytes[256];
                struct link_tx t;

                hello_of(&t, &good, bytes);
                frame(bytes, LINK_REFUSE, sizeof(refusal), 7, 0, link_crc32c(0, &refusal, sizeof(refusal)));
                memcpy(bytes + sizeof(struct link_header), &refusal, sizeof(refusal));
                cr_assert_eq(link_tx_read(&t, bytes, sizeof(struct link_header) + sizeof(refusal)), said[i].result, "%u", i);
                cr_assert_eq(t.state, LINK_ENDED);
        }
}

/* Not one to rely on: it tells what it is of. */
static void toy_mac(void *ctx, const void *bytes, size_t n, unsigned char ret[LINK_MAC_BYTES]) {
        const unsigned char *key = ctx;

        for (unsigned i = 0; i < LINK_MAC_BYTES; i++)
                ret[i] = (unsigned char)(link_crc32c(*key + i, bytes, n) >> 8);
}

static size_t say(struct link_rx *r, unsigned char to[256]) {
        struct link_out out;

        cr_assert(link_rx_out(r, &out));
        memcpy(to, out.head, out.head_bytes);
        link_rx_wrote(r, out.head_bytes);
        return out.head_bytes;
}

/* Both know the key, or not; with one bit wrong in what goes between them, or not. */
Test(link, keys) {
        static unsigned char nonce[32] = {9};
        unsigned char ours = 1, other = 2, bytes[256], answer[256], proof[256];
        struct link_out out;

        for (int bit = -1; bit < (int)(sizeof(struct link_header) + sizeof(struct link_challenge)) * 8; bit++)
                for (unsigned there = 0; there < 2; there++) { /* the challenge, or its answer */
                        struct link_rx r = fresh();
                        struct link_tx t;
                        size_t n;
                        int e;

                        if (there && bit >= (int)(sizeof(struct link_header) + LINK_MAC_BYTES) * 8)
                                break;
                        link_rx_key(&r, toy_mac, &ours, nonce);
                        n = hello_of(&t, &good, bytes);
                        link_tx_key(&t, toy_mac, &ours);
                        cr_assert_eq(feed(&r, bytes, n), LINK_NOTHING, "not yet");
                        n = say(&r, answer);
                        cr_assert_not(link_rx_out(&r, &out), "nothing more before the proof");
                        if (!there && bit >= 0)
                                answer[bit / 8] ^= (unsigned char)(1u << bit % 8);
                        e = link_tx_read(&t, answer, n);
                        if (!there && bit >= 0) {
                                cr_assert_lt(e, 0, "bit %d of the challenge", bit);
                                continue;
                        }
                        cr_assert_eq(e, 0);
                        cr_assert(link_tx_out(&t, &out));
                        memcpy(proof, out.head, out.head_bytes);
                        link_tx_wrote(&t, out.head_bytes);
                        cr_assert_not(link_tx_out(&t, &out), "nothing more before the welcome");
                        if (bit >= 0)
                                proof[bit / 8] ^= (unsigned char)(1u << bit % 8);
                        e = feed(&r, proof, sizeof(struct link_header) + LINK_MAC_BYTES);
                        if (bit >= 0) {
                                cr_assert_lt(e, 0, "bit %d of the proof", bit);
                                continue;
                        }
                        cr_assert_eq(e, LINK_CALLED);
                        link_rx_welcome(&r, RING, LINK_NOWHERE);
                        cr_assert_eq(link_tx_read(&t, answer, say(&r, answer)), 0);
                        cr_assert_eq(t.state, LINK_OPEN);
                }
        for (unsigned i = 0; i < 4; i++) {
                struct link_rx r = fresh();
                struct link_tx t;
                size_t n;

                if (i != 2) /* 0: another key, 1: none at the sender, 2: none at the receiver, 3: what another connection said */
                        link_rx_key(&r, toy_mac, &ours, nonce);
                n = hello_of(&t, &good, bytes);
                if (i != 1)
                        link_tx_key(&t, toy_mac, i == 0 ? &other : &ours);
                if (i == 2) {
                        cr_assert_eq(feed(&r, bytes, n), LINK_CALLED);
                        link_rx_welcome(&r, RING, LINK_NOWHERE);
                } else
                        cr_assert_eq(feed(&r, bytes, n), LINK_NOTHING);
                n = say(&r, answer);
                if (i == 3) {
                        struct link_rx later = fresh();
                        static unsigned char another[32] = {10};

                        cr_assert_eq(link_tx_read(&t, answer, n), 0);
                        cr_assert(link_tx_out(&t, &out));
                        memcpy(proof, out.head, out.head_bytes);
                        link_rx_key(&later, toy_mac, &ours, another);
                        cr_assert_eq(feed(&later, bytes, sizeof(struct link_header) + sizeof(struct link_hello)), LINK_NOTHING);
                        cr_assert_eq(feed(&later, proof, sizeof(struct link_header) + LINK_MAC_BYTES), -EACCES, "said before");
                        continue;
                }
                cr_assert_eq(link_tx_read(&t, answer, n), -EACCES, "%u", i);
                cr_assert_eq(t.state, LINK_ENDED);
                cr_assert_gt(strlen(t.refusal.sentence), 10);
        }
}

Test(link, refused) {
        unsigned char bytes[256], answer[256];
        struct link_out out;
        struct link_tx t;
        struct link_rx r = fresh();

        cr_assert_eq(feed(&r, bytes, hello_of(&t, &good, bytes)), LINK_CALLED);
        link_rx_refuse(&r, -EMEDIUMTYPE, "a sentence that is longer than what a refusal holds, over and over and over and over "
                                         "and over and over and over and over and over and over and over and over");
        cr_assert(link_rx_out(&r, &out));
        memcpy(answer, out.head, out.head_bytes);
        cr_assert_eq(link_tx_read(&t, answer, out.head_bytes), -EMEDIUMTYPE);
        cr_assert_eq(t.state, LINK_ENDED);
        cr_assert_eq(strlen(t.refusal.sentence), sizeof(t.refusal.sentence) - 1);
        link_rx_wrote(&r, out.head_bytes);
        cr_assert_eq(r.state, LINK_ENDED);

        r = met(); /* in the middle */
        cr_assert(link_rx_out(&r, &out));
        link_rx_wrote(&r, out.head_bytes);
        cr_assert_eq(feed(&r, bytes, frame(bytes, LINK_DATA, 64, 7, 640, link_crc32c(0, ring + 640, 64))), LINK_NOTHING);
        cr_assert_eq(feed(&r, ring + 640, 64), LINK_ARRIVED);
        link_rx_accept(&r, 0);
        link_rx_refuse(&r, -EPIPE, "closed");
        for (unsigned i = 0; i < 3; i++) {
                static const uint32_t kinds[] = {LINK_READERS, LINK_ACK, LINK_REFUSE}; /* what has come has come */
                struct link_header h;

                cr_assert_eq(r.state, LINK_OPEN);
                cr_assert(link_rx_out(&r, &out));
                memcpy(&h, out.head, sizeof(h));
                cr_assert_eq(h.kind, kinds[i], "%u", i);
                link_rx_wrote(&r, out.head_bytes);
        }
        cr_assert_eq(r.state, LINK_ENDED);

        r = met(); /* after a goodbye that is not answered yet */
        for (unsigned i = 0; i < 2; i++) { /* WELCOME, READERS */
                cr_assert(link_rx_out(&r, &out));
                link_rx_wrote(&r, out.head_bytes);
        }
        cr_assert_eq(feed(&r, bytes, frame(bytes, LINK_BYE, 0, 7, 640, 0)), LINK_CLOSED);
        cr_assert_eq(link_rx_tick(&r, 0), 0);
        link_rx_refuse(&r, -EPIPE, "closed");
        cr_assert(link_rx_out(&r, &out));
        link_rx_wrote(&r, out.head_bytes);
        cr_assert_not(link_rx_out(&r, &out), "the goodbye is the last word");
        cr_assert_eq(link_rx_due_ns(&r), INT64_MAX);
}

/* What was accepted, or said goodbye to, while an ACK was due is said with it, and not once more later. */
Test(link, said_once) {
        struct link_rx r = met();
        unsigned char bytes[sizeof(struct link_header)];
        struct link_header h;
        struct link_out out;

        for (unsigned i = 0; i < 2; i++) { /* WELCOME, READERS */
                cr_assert(link_rx_out(&r, &out));
                link_rx_wrote(&r, out.head_bytes);
        }
        for (unsigned i = 0; i < 2; i++) {
                cr_assert_eq(feed(&r, bytes, frame(bytes, LINK_DATA, 64, 7, r.got, 0)), LINK_NOTHING);
                cr_assert_eq(link_rx_read(&r, 64), LINK_ARRIVED);
                link_rx_accept(&r, 0);
                cr_assert_eq(link_rx_tick(&r, i ? 0 : LINK_ACK_AFTER_NS), 0);
        }
        cr_assert_eq(feed(&r, bytes, frame(bytes, LINK_BYE, 0, 7, r.got, 0)), LINK_CLOSED);
        cr_assert(link_rx_out(&r, &out));
        memcpy(&h, out.head, sizeof(h));
        cr_assert_eq(h.kind, LINK_BYE);
        cr_assert_eq(h.position, 640 + 128);
        link_rx_wrote(&r, out.head_bytes);
        cr_assert_eq(link_rx_due_ns(&r), INT64_MAX);
        cr_assert_eq(link_rx_tick(&r, INT64_MAX - 1), 0);
        cr_assert_not(link_rx_out(&r, &out));
}
