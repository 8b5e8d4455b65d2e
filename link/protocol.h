/*
 * What two ends of a link say to each other, without a socket: bytes in, bytes out, time in.
 *
 * A link carries one lane over a connection that may break. The stream has the lane's own positions: a DATA frame says
 * where in it its bytes belong, the receiver says how far what it has reaches, and the sender's span stays its own until
 * then. So whatever a broken connection swallowed is sent again from where the receiver stands, and nothing else.
 *
 *      sender                                     receiver
 *      HELLO session, channel, ring, nonce     ->
 *                                              <- CHALLENGE nonce, proof                     where a key is asked for:
 *      PROOF                                   ->                                            each has to know it
 *                                              <- WELCOME session, position it stands at     (or REFUSE errno, sentence)
 *                                              <- READERS how many there are, now and when it changes
 *      START position                          ->                                            a lane, if it has none yet
 *      DATA position, whole records            ->
 *                                              <- ACK position                               (or REFUSE, at any time)
 *      BYE position                            ->                                            the lane is closed there
 *                                              <- BYE position
 *      STOP how                               <->                                            the channel is, for everyone
 *
 * A link may be up before its lane is there: who only waits for readers learns of them.
 *
 * All numbers are little-endian. Every frame starts with the same header, which is checked by itself before its length is
 * believed; the payload of a DATA frame goes straight to where it belongs and is checked there.
 */
#ifndef PSYNE_LINK_PROTOCOL_H
#define PSYNE_LINK_PROTOCOL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINK_VERSION 1u
#define LINK_MAGIC 0x6b6e696c656e7973ull /* "synelink" */
#define LINK_NAME_MAX 64
#define LINK_FRAME_MAX (1u << 20)          /* payload bytes in one frame, unless the ring is smaller */
#define LINK_HELLO_WITHIN_NS 5000000000ll  /* a peer that says nothing for so long is hung up on */
#define LINK_ACK_AFTER_NS 10000000ll       /* or a quarter of the ring, whichever comes first */

#define LINK_NOWHERE UINT64_MAX            /* WELCOME: it has no lane of that session */

enum link_kind { LINK_HELLO = 1, LINK_WELCOME, LINK_REFUSE, LINK_DATA, LINK_ACK, LINK_BYE, LINK_START, LINK_READERS, LINK_STOP, LINK_CHALLENGE, LINK_PROOF };

struct link_header {
        uint32_t kind;
        uint32_t bytes;    /* of the payload */
        uint64_t position; /* DATA: of its first byte; ACK, BYE, START, WELCOME: of what comes next; READERS: how many; STOP: 1 drain, 2 abort */
        uint64_t session;  /* of the lane, chosen at random by its producer: what an old connection had left does not match */
        uint32_t crc;      /* crc32c of the payload */
        uint32_t crc_self; /* crc32c of the 28 bytes before */
};

#define LINK_UNCHECKED 1u /* feature: DATA says nothing about its payload (crc 0), which is not looked at */

/* HELLO. What two openers of a channel on one host agree about by its control page. */
struct link_hello {
        uint64_t magic;
        uint32_t version, features;
        uint64_t ring_bytes, type_hash;
        uint32_t record_align, mode, type_id, name_bytes;
        uint64_t elem_bytes;
        char name[LINK_NAME_MAX];
        uint64_t nonce[2]; /* drawn for this connection */
};

/*
 * A key that both ends know: a message authentication code of the hello, both nonces and who says it. Whoever does not know
 * the key can neither answer nor use what he heard for another connection.
 */
#define LINK_MAC_BYTES 32
typedef void (*link_mac_fn)(void *ctx, const void *bytes, size_t n, unsigned char ret[LINK_MAC_BYTES]);

struct link_challenge {
        unsigned char nonce[32], proof[LINK_MAC_BYTES];
};

/* REFUSE. */
struct link_refusal {
        int32_t error; /* a negative errno */
        char sentence[124];
};

/* What goes out next: a frame's own bytes, then perhaps bytes of the ring. */
struct link_out {
        const void *head;
        size_t head_bytes;
        uint64_t position; /* of the span in the ring */
        size_t span_bytes;
};

/* Bytes that wait to be a header or a small payload. */
struct link_in {
        size_t have;
        unsigned char bytes[sizeof(struct link_header) + sizeof(struct link_hello)];
};

enum link_state {
        LINK_DOWN,    /* no connection */
        LINK_MEETING, /* hello said or awaited */
        LINK_OPEN,
        LINK_ENDED,   /* refused, or said goodbye: do not connect again */
};

/* ---- the sender -------------------------------------------------------------------------------------------------- */

struct link_tx {
        enum link_state state;
        uint64_t session;
        struct link_hello hello;
        bool has_lane;
        uint64_t acked, sent, tail; /* positions: theirs for good; handed out; to be handed out, after a WELCOME anew */
        uint64_t reached;           /* the highest `sent` ever was */
        bool has_end, must_start, said_bye;
        uint64_t end;               /* BYE once it is sent */
        uint64_t readers;           /* theirs, as they said last; 0 while not connected */
        uint64_t stop, said_stop;   /* ours */
        uint64_t stopped;           /* theirs */
        int64_t deadline_ns;
        struct link_in in;
        size_t head_left, span_left, head_bytes;
        uint64_t span_at;
        unsigned char head[sizeof(struct link_header) + sizeof(struct link_hello)];
        uint32_t (*crc)(void *ctx, uint64_t position, size_t n); /* of the ring's bytes */
        void *crc_ctx;
        link_mac_fn mac; /* NULL: no key */
        void *mac_ctx;
        bool proved;     /* it has, and so have we */
        struct link_refusal refusal;
};

void link_tx_init(struct link_tx *t, uint64_t session, const struct link_hello *hello,
        uint32_t (*crc)(void *ctx, uint64_t position, size_t n), void *ctx);
void link_tx_key(struct link_tx *t, link_mac_fn mac, void *ctx);
void link_tx_start(struct link_tx *t, uint64_t position); /* there is a lane now, and here it begins */
void link_tx_connected(struct link_tx *t, int64_t now_ns, const uint64_t nonce[2]);
void link_tx_lost(struct link_tx *t);                      /* the connection is gone: everything not acked goes again */
/* What may be sent reaches to here: whole records, LINK_FRAME_MAX or one record's bytes at most past t->sent, which a
 * WELCOME moves back. */
void link_tx_commit(struct link_tx *t, uint64_t tail);
void link_tx_close(struct link_tx *t, uint64_t end);       /* nothing will come after it */
void link_tx_stop(struct link_tx *t, uint64_t how);        /* after what is committed */
bool link_tx_out(struct link_tx *t, struct link_out *ret); /* false: nothing to say */
void link_tx_wrote(struct link_tx *t, size_t n);           /* of what link_tx_out() last said */
int link_tx_read(struct link_tx *t, const void *bytes, size_t n); /* -errno: hang up */
int link_tx_tick(struct link_tx *t, int64_t now_ns);                              /* -ETIME: hang up */

/* ---- the receiver ------------------------------------------------------------------------------------------------- */

/* Where the next bytes of the connection go. */
struct link_into {
        void *bytes;       /* NULL: into the ring, at @position */
        uint64_t position;
        size_t n;
};

enum link_event { LINK_NOTHING, LINK_CALLED, LINK_STARTED, LINK_ARRIVED, LINK_CLOSED, LINK_STOPPED };

struct link_rx {
        enum link_state state;
        uint64_t session;           /* 0: none yet */
        struct link_hello hello;
        struct link_header now;     /* the frame whose payload is being read */
        bool has_lane;
        uint64_t ring_bytes;        /* of the receiver's own lane */
        uint64_t got, acked, floor; /* positions: checked and ours; said so; free to be written below floor + ring */
        uint64_t readers;
        uint64_t stop, said_stop, stopped; /* ours; theirs */
        bool welcome_due, readers_due, ack_due, refusal_due, challenge_due;
        link_mac_fn mac;
        void *mac_ctx;
        bool proving;               /* it has been challenged */
        struct link_challenge challenge;
        uint64_t frame_at;
        size_t frame_left;
        int64_t deadline_ns, ack_at_ns;
        bool refusing;
        struct link_in in;
        size_t head_left, head_bytes;
        struct link_refusal refusal;
        unsigned char head[sizeof(struct link_header) + sizeof(struct link_refusal)];
};

void link_rx_init(struct link_rx *r);
void link_rx_key(struct link_rx *r, link_mac_fn mac, void *ctx, const unsigned char nonce[32]); /* after it has connected */
void link_rx_connected(struct link_rx *r, int64_t now_ns);
void link_rx_lost(struct link_rx *r);
void link_rx_want(struct link_rx *r, struct link_into *ret);
/*
 * @n bytes are there, where link_rx_want() said. CALLED: look at r->hello and r->now.session, and answer with
 * link_rx_welcome() or link_rx_refuse(). STARTED: a lane that begins at r->now.position: say link_rx_started() or
 * link_rx_refuse(). ARRIVED: the bytes from r->frame_at on, r->now.bytes of them, lie in the ring; check them and say
 * link_rx_accept(). CLOSED: the sender's lane ends at r->got. STOPPED: see r->stopped. -errno: hang up.
 */
int link_rx_read(struct link_rx *r, size_t n);
void link_rx_welcome(struct link_rx *r, uint64_t ring_bytes, uint64_t position); /* LINK_NOWHERE: no lane yet */
void link_rx_refuse(struct link_rx *r, int error, const char *sentence); /* at any time; the connection ends after it */
void link_rx_started(struct link_rx *r);
void link_rx_accept(struct link_rx *r, int64_t now_ns);
void link_rx_freed(struct link_rx *r, uint64_t position); /* readers have released up to here */
void link_rx_readers(struct link_rx *r, uint64_t n);
void link_rx_stop(struct link_rx *r, uint64_t how);
bool link_rx_out(struct link_rx *r, struct link_out *ret);
void link_rx_wrote(struct link_rx *r, size_t n);
int link_rx_tick(struct link_rx *r, int64_t now_ns);
int64_t link_rx_due_ns(const struct link_rx *r); /* when link_rx_tick() has something to do */

uint32_t link_crc32c(uint32_t crc, const void *bytes, size_t n);
#endif
