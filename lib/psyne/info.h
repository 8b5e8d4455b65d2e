/* psyne/info.h: what a channel is, what was asked and obtained, and what happened on it so far. */
#ifndef PSYNE_INFO_H
#define PSYNE_INFO_H
#include "psyne.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One wish and its outcome. Every fallback is a row: `why` says what stood in the way, `fix` the command that helps. */
struct psyne_fact {
        char what[16];    /* "pages", "wake", "fd", "numa", "barrier", "ring", "thread" */
        char whose[16];   /* "lane 0", "consumer 3", "channel" */
        char asked[24];
        char obtained[24];
        char why[96];     /* empty when obtained = asked */
        char fix[64];
};

enum { PSYNE_FACTS_MAX = 64 };

struct psyne_info {
        size_t struct_size;       /* in: sizeof(struct psyne_info) */
        char uri[160];            /* scheme and name, without options */
        enum psyne_mode mode;
        uint32_t record_align;
        uint64_t ring_bytes;      /* per lane, as obtained */
        uint64_t message_max;     /* largest payload in bytes */
        uint32_t max_producers, max_consumers;
        uint32_t producers, consumers; /* open and alive now */
        uint32_t n_facts;
        struct psyne_fact facts[PSYNE_FACTS_MAX];
};

/* Counted since the channel was made, over all producers and consumers. Each is one aligned word with one writer. */
struct psyne_metrics {
        size_t struct_size;       /* in: sizeof(struct psyne_metrics) */
        uint64_t messages_sent;
        uint64_t bytes_sent;
        uint64_t messages_received; /* released, by all groups; with one never more than sent */
        uint64_t bytes_received;
        uint64_t send_blocks;     /* times a send had to wait for room */
        uint64_t receive_blocks;  /* times a receive had to wait for a message */
        uint64_t send_blocked_ns;
        uint64_t receive_blocked_ns;
        uint64_t wakes_sent;
        uint64_t wakes_received;  /* waits that the kernel ended because of a wake */
        uint64_t full_events;     /* claims that found no room */
        uint64_t aborted;
        uint64_t dropped;         /* for want of room, by producers that asked for that */
        uint64_t copied_sends;    /* psyne_send and psyne_sendv */
        uint64_t redelivered;
        uint64_t held;            /* taken and not released now */
        uint64_t high_water_bytes;
        uint64_t peer_deaths;
        uint64_t backstop_hits;   /* a periodic look found what a wake should have told: must stay 0 where no member is stopped */
        uint64_t damaged_lanes;
        uint64_t unheard;         /* sent while there was no group at all: broadcast without a reader */
        uint64_t lost;            /* over all groups: overrun, ejected before them, or gone with a dead producer's ring */
};

/* A connection of a link, as it is now. What the kernel measured is of the present one, 0 while there is none. */
struct psyne_link_info {
        size_t struct_size;       /* in, of the first: sizeof(struct psyne_link_info) */
        char peer[64];            /* address:port; empty while there is no connection */
        uint32_t sends;           /* 1: this end sends, 0: it receives */
        uint32_t up;              /* 1: both ends have met, over a connection that stands */
        uint32_t has_lane;        /* 1: of a producer; 0: kept ready for the next */
        uint32_t readers;         /* sending: at the other end, as it told last */
        uint64_t connections;     /* made so far; each after the first went on where it was */
        uint64_t in_flight_bytes; /* sending: sent and not acknowledged; receiving: arrived and not acknowledged yet */
        uint64_t queued_bytes;    /* sending: committed and not sent; receiving: in the ring and not released */
        uint32_t rtt_us, rtt_var_us, retransmits, unacked_segments, mss_bytes, congestion_window;
        uint32_t send_buffer, receive_buffer; /* bytes, as the kernel has them */
        uint32_t no_delay;
        uint32_t io_uring;        /* 1: its bytes go through it */
        uint64_t zerocopy_sends;  /* long ones that the kernel was asked to do without a copy, over this connection */
        uint64_t zerocopy_copied; /* ... of which it told that it copied all the same */
        uint64_t zerocopy_bytes;  /* such a run and longer ones go without, as was found out on this connection; 0: none do */
        uint64_t quick_acks;      /* quickack=1: how often the kernel was asked to acknowledge at once what had been read */
        /* of the whole link */
        uint32_t added;           /* 1: by psyne_link_open() */
        int32_t refused;          /* why the other end wants nothing of it, as long as it does not: a negative errno; else 0 */
        uint64_t ejections;       /* behind=ejected: how often it went on without what waited */
        uint64_t lost_bytes;      /* ... and how much of the ring that was */
};
#ifdef __cplusplus
}
#endif
#endif
