/*
 * What both targets share: an input is read as decisions, one byte after the other, and 0 where it has run out, so that
 * every prefix of an input is one too. A promise that is not kept aborts.
 */
#ifndef PSYNE_FUZZ_H
#define PSYNE_FUZZ_H
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link/protocol.h"

#define ERRNO_MAX 4095 /* of Linux */

#define promise(kept)                                                                                                  \
        do {                                                                                                           \
                if (!(kept)) {                                                                                         \
                        fprintf(stderr, "%s:%d: not kept: %s\n", __FILE__, __LINE__, #kept);                           \
                        abort();                                                                                       \
                }                                                                                                      \
        } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
        const uint8_t *at;
        size_t left;
};

static inline uint8_t choose(struct input *in) {
        if (!in->left)
                return 0;
        in->left--;
        return *in->at++;
}

static inline uint64_t choose_number(struct input *in, unsigned bytes) {
        uint64_t n = 0;

        for (unsigned i = 0; i < bytes; i++)
                n |= (uint64_t)choose(in) << 8 * i;
        return n;
}

/* By how much something is off: what is added, and may be negative. */
static inline uint64_t choose_off(struct input *in) {
        int64_t off = (int8_t)choose(in);

        return (uint64_t)off;
}

/* Small ones, large ones, and those around the end of numbers; a multiple of @align. */
static inline uint64_t choose_position(struct input *in, uint64_t align) {
        uint8_t a = choose(in);

        return (a < 128 ? a * align : (uint64_t)0 - (uint64_t)(256 - a) * align);
}

static inline void header_repair(unsigned char *frame) {
        uint32_t crc = link_crc32c(0, frame, offsetof(struct link_header, crc_self));

        memcpy(frame + offsetof(struct link_header, crc_self), &crc, sizeof(crc));
}

static inline void payload_repair(unsigned char *frame, size_t n) {
        uint32_t crc = link_crc32c(0, frame + sizeof(struct link_header), n);

        memcpy(frame + offsetof(struct link_header, crc), &crc, sizeof(crc));
}

static inline bool header_is_good(const struct link_header *h) {
        return h->crc_self == link_crc32c(0, h, offsetof(struct link_header, crc_self));
}

/* A crc callback and the byte at a position, the same for everyone. */
static inline unsigned char byte_at(uint64_t position) {
        return (unsigned char)((position * 0x9e3779b97f4a7c15ull) >> 56);
}

/* Where a receiver wants its next bytes: the struct is in the heap, but an overrun of `in` would stay inside it. */
static inline void want_stays_inside(const struct link_rx *r, const struct link_into *into) {
        const unsigned char *at = into->bytes;

        promise(at >= r->in.bytes && at <= r->in.bytes + sizeof(r->in.bytes));
        promise(into->n <= (size_t)(r->in.bytes + sizeof(r->in.bytes) - at));
        promise(at == r->in.bytes + r->in.have);
}

/* Bytes that a sender is given lie in memory of exactly their size, so that reading past them is seen. What follows `in` in
 * the struct must not change by it. */
static inline int tx_feed(struct link_tx *t, const unsigned char *bytes, size_t n) {
        size_t head_left = t->head_left, span_left = t->span_left, head_bytes = t->head_bytes;
        bool proved = t->proved;
        unsigned char *copy = malloc(n ? n : 1);
        int r;

        promise(copy);
        memcpy(copy, bytes, n);
        r = link_tx_read(t, copy, n);
        free(copy);
        promise(t->in.have <= sizeof(struct link_header) + sizeof(struct link_refusal));
        if (t->proved == proved) /* else it says its proof */
                promise(t->head_left == head_left && t->span_left == span_left && t->head_bytes == head_bytes);
        promise(r <= 0 && r >= -ERRNO_MAX);
        return r;
}

/* A key that everyone knows; as a code it is worth nothing, but no byte of what is said can change without it. */
static inline void mac_of(void *ctx, const void *bytes, size_t n, unsigned char ret[LINK_MAC_BYTES]) {
        (void)ctx;
        for (uint32_t i = 0; i < LINK_MAC_BYTES / sizeof(uint32_t); i++) {
                uint32_t crc = link_crc32c(i, bytes, n) * 0x9e3779b1u;

                memcpy(ret + i * sizeof(crc), &crc, sizeof(crc));
        }
}

static inline void proof_of(char who, uint64_t session, const struct link_hello *hello, const unsigned char nonce[32],
        unsigned char ret[LINK_MAC_BYTES]) {
        unsigned char said[8 + sizeof(session) + sizeof(*hello) + 32] = {'p', 's', 'y', 'n', 'e', '1', ' ', (unsigned char)who};

        memcpy(said + 8, &session, sizeof(session));
        memcpy(said + 8 + sizeof(session), hello, sizeof(*hello));
        memcpy(said + 8 + sizeof(session) + sizeof(*hello), nonce, 32);
        mac_of(NULL, said, sizeof(said), ret);
}

/* What a sender answers to one whole frame, said in other words than its own. 0: it goes on. */
struct tx_stand {
        enum link_state state;
        bool has_lane, said_bye;
        uint64_t session, align, acked, sent, reached, end;
        uint64_t written; /* so far has the connection taken what was handed out */
        bool has_key, proved, said_hello;
        struct link_hello hello;
};

static inline int tx_should(const struct tx_stand *s, const struct link_header *h, const unsigned char *payload) {
        struct link_refusal refusal;
        uint64_t ahead = h->position - s->acked;

        if (!header_is_good(h) || h->bytes > sizeof(refusal))
                return -EPROTO;
        if (h->bytes && h->crc != link_crc32c(0, payload, h->bytes))
                return -EPROTO;
        if (h->kind == LINK_REFUSE) { /* whoever it is from: it may not know us */
                if (h->bytes != sizeof(refusal))
                        return -EPROTO;
                memcpy(&refusal, payload, sizeof(refusal));
                return refusal.error < 0 && refusal.error >= -ERRNO_MAX ? refusal.error : -EPROTO;
        }
        if (h->session != s->session)
                return -EPROTO;
        if (h->kind == LINK_CHALLENGE) {
                struct link_challenge c;
                unsigned char proof[LINK_MAC_BYTES];

                if (s->state != LINK_MEETING || s->proved || !s->said_hello || h->bytes != sizeof(c))
                        return -EPROTO;
                memcpy(&c, payload, sizeof(c));
                proof_of('R', s->session, &s->hello, c.nonce, proof);
                return s->has_key && memcmp(proof, c.proof, sizeof(proof)) == 0 ? 0 : -EACCES;
        }
        if (h->bytes)
                return -EPROTO;
        switch (h->kind) {
        case LINK_WELCOME:
                if (s->state != LINK_MEETING)
                        return -EPROTO;
                if (s->has_key && !s->proved)
                        return -EACCES;
                return h->position == LINK_NOWHERE || (s->has_lane && ahead <= s->reached - s->acked && ahead % s->align == 0)
                        ? 0 : -EPROTO;
        case LINK_ACK:
                return s->state == LINK_OPEN && ahead <= s->written - s->acked && ahead % s->align == 0 ? 0 : -EPROTO;
        case LINK_READERS:
                return s->state == LINK_OPEN ? 0 : -EPROTO;
        case LINK_STOP:
                return s->state == LINK_OPEN && (h->position == 1 || h->position == 2) ? 0 : -EPROTO;
        case LINK_BYE:
                return s->said_bye && h->position == s->end ? 0 : -EPROTO;
        default:
                return -EPROTO;
        }
}
#endif
