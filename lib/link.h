/*
 * tcp:// channels: what hangs on a channel whose other end is elsewhere, and the thread that moves its bytes.
 *
 * The channel of a tcp:// address is this process's own, like memory://; to channels of every kind links can be added. At the
 * end that sends, a link is the one reader of its group: it takes runs of records as they lie in the ring, and releases them
 * when the other end has them. At the end that receives, every session is a producer: what arrives lands in its lane. So
 * whatever holds between a producer and a reader (order, back-pressure, waiting, metrics) holds at both ends, and no other
 * part of lib/ treats their messages differently.
 *
 * One thread per process ("psyne-link"), or psyne_poll(). It sleeps in a waitset of endpoints and sockets, and owns
 * everything here that is not said to be under the lock. An inlined channel has one of its own, which leaves the moving of
 * bytes to those who send and receive (link-inline.c); there everything is under the lock.
 */
#ifndef PSYNE_LINK_H
#define PSYNE_LINK_H
#include "lib/internal.h"
#include "link/key.h"
#include "link/net.h"
#include "link/protocol.h"
#include "uring/wire.h"

#define LINK_STAGE_BYTES 32768u      /* of a session: what is received before it is known where it belongs */
#define LINK_FRAME_BYTES 262144u     /* at most, but for longer records: checksummed and sent while it is in the cache */
#define LINK_CALLERS_MAX 64u         /* connections that have not said who they are */
#define LINK_SESSIONS_MAX LAYOUT_PRODUCERS_MAX * 2
#define LINK_RESUME_DEFAULT_NS 2000000000ll

#define LINK_LEAVE_WITHIN_NS 1000000000ll /* without progress: for the other end to have it all, and hear goodbye */

struct links;
struct psyne_link;

/* What a waitset's event is about. */
struct watched {
        enum { WATCHED_LISTENER, WATCHED_OUTBOUND, WATCHED_INBOUND, WATCHED_READER, WATCHED_WRITER, WATCHED_TELLER } what;
        uint32_t events;             /* asked for; 0: not in the set */
        void *of;
        bool once;                   /* of an inlined channel: told once, and then a reader's before it is the thread's */
        bool spent;                  /* it was, and has not been asked for again */
        struct item *item;
};

/* A lane on its way out, or the one that is kept ready for the next. */
struct outbound {
        struct outbound *next, *grave;
        bool dead;
        bool broken;                 /* found by link_push(): the thread's to hang up on */
        struct psyne_link *link;
        struct watched socket;
        struct link_tx tx;
        int fd;                      /* -1: none */
        struct wire_zc *zc;          /* NULL: none, or not wanted */
        bool connecting, blocked, writable;
        bool taken;                  /* by a lane */
        bool parting;                /* from one: it says goodbye, if its connection stays */
        uint32_t lane, generation;
        uint64_t last;               /* while an added link leaves: what is sent ends here */
        unsigned attempts;           /* since it was last up */
        unsigned address;            /* the next to be tried */
        int64_t progress_ns;         /* when something was acknowledged last, or the first of it sent */
        int64_t stuck_ns;            /* behind=ejected: since when there is something and nothing was acknowledged; 0: there is nothing */
        uint64_t stuck_at;           /* ... what had been */
        int64_t retry_ns, lost_ns;   /* lost: 0 since it was told of readers */
        uint64_t connections;
        uint64_t quick_acks;         /* quickack=1: how often it was asked for */
};

/* A session on its way in; before its hello, a caller. */
struct inbound {
        struct inbound *next;
        struct psyne_link *link;
        struct watched socket, writer;
        struct link_rx rx;
        uint64_t session;            /* 0: a caller */
        int fd;                      /* -1: lost, and waited for */
        bool blocked;                /* its answers are */
        bool starved;                /* there is no room in its lane */
        bool hopeless;               /* ... and nobody to make some */
        bool ending;                 /* the connection is over once what it has to say is said */
        bool closed;                 /* its sender said goodbye */
        bool dead;
        int verdict;                 /* of link_reap(): the thread's to hang up for */
        struct inbound *grave;       /* links->graves */
        int64_t lost_ns;
        struct psyne_producer *p;    /* NULL: no lane yet */
        uint64_t shift;              /* from the sender's positions to the lane's */
        uint32_t first;              /* the first 32 bits of the frame that is landing */
        uint32_t crc;                /* of what has landed of it */
        uint64_t untold;             /* bytes that its readers have not been woken for */
        unsigned char *stage;
        uint32_t stage_from, stage_to;
        uint64_t bytes;              /* received, by this connection's descriptor and those before */
        uint64_t connections;
        uint64_t quick_acks;
};

enum link_life { LINK_BORN, LINK_LIVES, LINK_LEAVES, LINK_GONE };

struct psyne_link {
        struct psyne_link *next;
        struct links *links;
        struct psyne_channel *channel;
        bool added;                  /* by psyne_link_open(): it has a reference of the channel, and a group of its own */
        char name[URI_NAME_MAX + 1]; /* of the channel at the other end */
        char uri[160];
        bool listens;
        bool inlined;                /* link-inline.c */
        bool lies;                   /* inlined: its reader's bit stands, and every commit comes to link_push() */
        int64_t reaped_ns;           /* lock: when a reader looked last; 0: the thread reads */
        bool reaped;                 /* ... atomic, as those see it who do */
        enum psyne_mode mode;        /* that was asked for, 0 = any */
        struct net_address addresses[NET_ADDRESSES_MAX];
        unsigned n_addresses;
        struct net_options options;
        int64_t resume_ns;
        enum uri_try zerocopy;
        bool unchecked;              /* payloads need no checksum */
        struct key *key;             /* NULL: none is asked for */
        uint64_t random;

        enum link_life life;         /* lock */
        int64_t leave_ns;
        uint64_t left_acked;         /* while it leaves: how far the other end had come */
        int64_t deaf_ns;             /* nobody can be accepted before that; 0: they can */
        struct {
                struct watched watched;
                int fd;
        } listeners[NET_ADDRESSES_MAX];
        unsigned n_listeners;
        uint16_t port;

        struct psyne_consumer *reader; /* sending end; NULL while nobody reads there */
        char group[URI_NAME_MAX + 1]; /* of an added link's reader; empty: one that ends with it */
        int64_t eject_ns;            /* without progress: then it goes on without what waits. 0: never */
        int64_t rejoin_ns;           /* and begins anew, at that time */
        uint64_t ejections, lost_bytes;
        bool senseless;              /* added: what it has acknowledged is no record's end */
        bool last_known;             /* while it leaves: outbound.last */
        struct watched reading;
        bool reader_rests;           /* it has nothing to wait for before a lane joins */
        struct outbound *out;
        struct inbound *in;
        unsigned n_callers, n_sessions;

        int refused;                 /* lock: why, as long as it is */
        char refusal[sizeof(((struct link_refusal *)NULL)->sentence)];
        uint64_t turned_away, damaged; /* counted: callers that were hung up on, frames that were no records */
};

struct links {
        pthread_mutex_t lock;
        bool wanted;                 /* the lock, by the thread: who polls keeps off it. Atomic */
        pthread_cond_t gone;
        struct psyne_waitset *set;
        struct wire *wire;
        struct psyne_link *list;           /* lock */
        struct links *next;          /* links_lock: all of this process */
        int teller;                  /* link-tell.h; -1: there is none */
        struct watched telling;
        pthread_t thread;
        bool threaded, stop;
        unsigned users;
        struct inbound *graves;      /* freed when no event names them any more */
        struct outbound *outbound_graves;
        int64_t due_ns;              /* of this turn's timers: the earliest */
        int64_t asked_ns;            /* lock: the same, of those that callers have set since, and have woken the thread for */
};

/* link-inline.c */
#define LINK_REAPED_FOR_NS 10000000ll /* the thread keeps off the sockets for so long after a reader was there */
bool link_is_reaped(struct psyne_link *l, int64_t now);

/* Whose links they are: the process's, or the channel's alone. NULL: there is no link. */
static inline struct links *links_of(const struct psyne_channel *ch) {
        return ch->link ? ch->link->links : __atomic_load_n(&ch->linked, __ATOMIC_ACQUIRE);
}

/* link-info.c: how many connections @l has or waits for; those from the @got'th on that fit are filled in. Under the lock. */
unsigned link_look(const struct psyne_link *l, struct psyne_link_info *ret, unsigned n, unsigned got);

/* link.c */
int links_get(bool threaded, bool inlined, struct links **ret); /* the process's, or new ones; give them back */
void links_put(struct links *s);
int links_turn(struct links *s, int64_t deadline_ns);           /* one sleep, and what came of it: how much; -EINTR */
void link_watch(struct psyne_link *l, struct watched *w, int fd, uint32_t events); /* 0: no more */
void link_watch_again(struct psyne_link *l, struct watched *w); /* [who has the lock] */
void link_due(struct psyne_link *l, int64_t at_ns);
void link_log(struct psyne_link *l, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* link-out.c */
struct outbound *outbound_of(struct psyne_link *l, uint32_t lane, uint32_t generation);
bool outbound_push(struct outbound *o); /* false: the thread has to look */
void outbound_tick(struct psyne_link *l, int64_t now);
void outbound_event(struct outbound *o, uint32_t events);
void outbound_reader_event(struct psyne_link *l, uint32_t what);
bool outbound_is_through(const struct psyne_link *l); /* nothing of ours is on its way */
uint64_t outbound_acked(const struct psyne_link *l);  /* rises while something arrives */
void outbound_free_all(struct psyne_link *l);

/* link-in.c */
int inbound_accept(struct psyne_link *l, int listener); /* -errno: no descriptor, or no memory */
void inbound_tick(struct psyne_link *l, int64_t now);
void inbound_event(struct inbound *in, uint32_t events);
size_t inbound_reap(struct inbound *in, int64_t now, bool *look); /* bytes; *@look: the thread has to */
void inbound_writable(struct inbound *in, uint32_t what);
void inbound_free_all(struct psyne_link *l);
#endif
