/*
 * The control pages: everything that processes share about a channel, except the records themselves.
 *
 * One file per channel, sized at creation from the limits, never resized below that, described by a table of
 * regions in its first page. Fixed-width fields, offsets instead of pointers, one writer per 128-byte line, padding
 * spelled out. The creator fills everything and publishes `magic` last; whoever attaches validates the header with
 * layout_validate() before it believes anything else, and treats every word as input for ever after: loaded once,
 * bounds-checked, then used.
 *
 * Changing anything here changes LAYOUT_MAJOR (or adds a region and changes LAYOUT_MINOR), the table in README.md
 * and the golden image in the tests.
 */
#ifndef PSYNE_SHM_LAYOUT_H
#define PSYNE_SHM_LAYOUT_H
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "psyne/info.h"
#include "psyne/psyne.h"

#define LAYOUT_MAGIC 0x31656e7973705f5fULL /* "__psyne1", little-endian: a foreign byte order does not match */
#define LAYOUT_MAJOR 1u
#define LAYOUT_MINOR 0u
#define LAYOUT_LINE 128u             /* see PSYNE_CACHELINE */
#define LAYOUT_PRODUCERS_MAX 64u     /* bitmaps are one word */
#define LAYOUT_CONSUMERS_MAX 64u
#define LAYOUT_OBSERVERS 8u          /* participants that are neither: tools, openers without a role yet */
#define LAYOUT_LANES_SPARE 2u        /* a restarted producer gets a fresh lane while its old one is drained */
#define LAYOUT_NAME_MAX 64u
#define LAYOUT_LOANS 64u             /* runs of records that a member of a shared group may hold; and records in one */
#define LAYOUT_BOUNDARIES 6u         /* fill a line */
#define LAYOUT_ERRORS 32u            /* distinct errors kept */
#define LAYOUT_EVENTS 4096u          /* flight recorder */
#define LAYOUT_HISTOGRAM_BYTES 20480u /* per member, allocated when it is first used */
#define LAYOUT_RING_MIN 4096ull
#define LAYOUT_RING_HUGE (2ull << 20) /* smaller rings cannot use huge pages */
#define LAYOUT_RING_MAX (1ull << 40)

enum layout_region_id {
        LAYOUT_REGION_PEERS,       /* struct layout_peer[n] */
        LAYOUT_REGION_LANES,       /* struct layout_lane[n] */
        LAYOUT_REGION_GROUPS,      /* struct layout_group[n] */
        LAYOUT_REGION_CURSORS,     /* struct layout_cursor[groups][lanes] */
        LAYOUT_REGION_MEMBERS,     /* struct layout_member[n] */
        LAYOUT_REGION_HOLDS,       /* uint64_t[members][lanes]: 0 = none, else position with bit 0 set (shared.h) */
        LAYOUT_REGION_LOANS,       /* struct layout_loan[members][LAYOUT_LOANS] (shared.h) */
        LAYOUT_REGION_FACTS,       /* struct layout_fact[n] */
        LAYOUT_REGION_ERRORS,      /* struct layout_error[LAYOUT_ERRORS] */
        LAYOUT_REGION_EVENTS,      /* struct layout_event[LAYOUT_EVENTS] */
        LAYOUT_REGION_HISTOGRAMS,  /* LAYOUT_HISTOGRAM_BYTES per member, past the end until first used */
        LAYOUT_REGION_TRANSFER,    /* reserved: recovery of shared groups */
        LAYOUT_N_REGIONS = 16,
};

struct layout_region {
        uint64_t offset;  /* bytes from the start of the file, multiple of LAYOUT_LINE */
        uint32_t n;       /* entries */
        uint32_t stride;  /* bytes from one entry to the next */
};

/* ---- the first page ------------------------------------------------------------------------------------------- */

/* Set by the creator, never changed afterwards. */
struct layout_config {
        uint64_t magic;          /* published last */
        uint16_t major, minor;
        uint32_t header_bytes;
        uint64_t total_bytes;    /* what the creator allocated; histograms may follow */
        uint64_t features_need;  /* an attacher that does not know one of these bits must refuse */
        uint64_t features_have;
        uint64_t ring_bytes;     /* per lane, power of two */
        uint32_t record_align;
        uint32_t mode;           /* enum psyne_mode */
        uint32_t max_producers, max_consumers, max_lanes, max_groups;
        uint32_t type_id, flags; /* LAYOUT_CHANNEL_* */
        uint64_t elem_bytes, type_hash;
        uint64_t created_ns;     /* CLOCK_REALTIME */
        uint64_t instance;       /* random: two channels of one name differ */
        uint64_t boot_id[2];
        uint64_t creator_start;  /* ticks after boot, /proc/PID/stat field 22 */
        uint64_t creator_pidns;  /* inode of its pid name space */
        uint32_t creator_pid, creator_uid;
        uint64_t tsc_base, tsc_base_ns;  /* calibration of stamps (reserved) */
        uint64_t tsc_hz_q16;     /* 0 = stamps use CLOCK_MONOTONIC */
        uint32_t stamp_every;    /* 1 of N messages, 0 = off (reserved) */
        uint32_t huge, numa, uring; /* enum psyne_try, as the creator asked: adopted by later openers */
        char name[LAYOUT_NAME_MAX + 8];
};

struct layout_header {
        struct layout_config config;
        uint8_t pad0[512 - sizeof(struct layout_config)];
        struct layout_region regions[LAYOUT_N_REGIONS];
        uint8_t pad1[1024 - 512 - LAYOUT_N_REGIONS * sizeof(struct layout_region)];

        /* Any participant, rarely: stop and the mode of the wake barrier. */
        uint64_t stop;           /* generation << 2 | 0 running, 1 drain, 2 abort */
        uint32_t barrier_fence;  /* a participant may not call membarrier: everyone fences. Never goes back */
        uint32_t pad2;
        uint64_t deaths;         /* participants found dead (RMW) */
        uint8_t pad3[LAYOUT_LINE - 24];

        /* Sleepers set and clear their own bit (RMW, seq_cst); wakers load. */
        uint64_t sleepers;       /* bit per member */
        uint8_t pad4[LAYOUT_LINE - 8];
        uint64_t waiters;        /* bit per lane: its producer sleeps for room */
        uint8_t pad5[LAYOUT_LINE - 8];

        /* Membership: bumped (RMW) after every change that a running participant has to notice. */
        uint64_t lanes_generation;
        uint64_t members_generation;
        uint64_t groups_active;     /* bit per group: counts in the free position */
        uint64_t producers_active;  /* bit per lane with an open producer; exclusive modes claim it by CAS */
        uint32_t peers_event;       /* bumped and woken at every join, leave and death */
        uint32_t pad6a;
        uint64_t groups_skipping;   /* bit per group that is overrun instead: not in groups_active */
        uint8_t pad6[LAYOUT_LINE - 48];

        uint8_t pad7[4096 - 1024 - 4 * LAYOUT_LINE];
};

/* ---- participants ---------------------------------------------------------------------------------------------- */

enum layout_state {
        LAYOUT_FREE,
        LAYOUT_JOINING,  /* taken, not usable yet */
        LAYOUT_ACTIVE,
        LAYOUT_CLOSED,   /* left in order; a lane may still hold records */
        LAYOUT_DEAD,     /* owner found dead; a lane may still hold records */
        LAYOUT_DAMAGED,  /* its owner wrote nonsense: set aside */
};

/* One process's handle on the channel. Alive = the OFD lock on its slot's byte is held (entry.h). Writer: the owner. */
struct layout_peer {
        uint32_t state;          /* enum layout_state; with generation: one 8-byte word, others change it by compare-and-swap */
        uint32_t generation;     /* bumped by each new owner of the slot */
        uint32_t pid, uid;
        uint64_t start_time;     /* ticks after boot */
        uint64_t pidns;
        uint32_t capabilities;   /* LAYOUT_CAN_* */
        uint32_t engine;         /* of its waits: enum park_engine */
        uint64_t joined_ns;      /* CLOCK_REALTIME */
        char comm[16];
        uint8_t pad[LAYOUT_LINE - 64];
};
enum { LAYOUT_CAN_MEMBARRIER = 1, LAYOUT_CAN_SERVE = 2 /* has a service socket */ };

/* ---- lanes ------------------------------------------------------------------------------------------------------ */

struct layout_lane {
        /* Writer: the producer while JOINING; `state` also by who finds it dead (CAS). */
        uint32_t state;          /* with owner: one 8-byte word, changed by compare-and-swap */
        uint32_t owner;          /* peer slot | its generation << 8 */
        uint32_t owner_generation; /* all of it */
        uint32_t generation;     /* of this index */
        uint64_t ring_bytes;
        uint64_t start;          /* position of its first record */
        uint64_t device, inode;  /* of the memfd */
        uint32_t record_align;
        uint32_t flags;          /* LAYOUT_LANE_* */
        uint64_t page_bytes;     /* obtained */
        int32_t node;            /* of the first page, -1 = not known */
        uint32_t thread;         /* tid of the opener */
        uint64_t order;          /* lanes_generation when it joined: readers drain older lanes first */
        uint64_t highest;        /* no record of this index, by any owner so far, ended past it */
        uint64_t start_messages; /* messages_sent at `start` */
        uint8_t pad0[LAYOUT_LINE - 96];

        struct psyne_line_tx tx; /* writer: the producer, each commit */
        uint8_t pad1[LAYOUT_LINE - sizeof(struct psyne_line_tx)];

        /* Writer: the producer, now and then. */
        uint64_t send_blocks, send_blocked_ns, full_events, aborted, copied_sends, wakes_sent, wakes_elided;
        uint64_t wakes_received, backstop_hits, dropped, unheard, stamps;
        uint64_t unheard_from;   /* of this index: messages_sent when the last group went, + 1; 0 = there is one (RMW) */
        uint8_t pad2[LAYOUT_LINE - 104];

        /* Waiting for room. event: wakers (RMW); the rest: the producer. */
        uint32_t event;
        uint32_t sleep_generation;
        uint64_t wanted;         /* the free position it sleeps for */
        uint32_t engine;
        uint32_t bell;           /* enum layout_bell */
        uint64_t sleeping_since_ns;
        uint8_t pad4[LAYOUT_LINE - 32];

        /* For who joins or may be overrun (overrun.h). Writer: the producer, when its limit rises. */
        uint64_t announced;      /* end of the region it may write or clear */
        uint64_t floor;          /* cached slowest position, for joiners */
        uint64_t boundary_version; /* which was written last: modulo their number */
        struct {
                uint64_t position, messages; /* a record's start and its number */
        } boundary[LAYOUT_BOUNDARIES];
        uint64_t committed_to;   /* not used: who lands records holds the first commit word back (bulk.h) */
};
enum { LAYOUT_CHANNEL_IN_PLACE = 1 /* rings are not sealed against being written by stages */ };

/* ---- groups ------------------------------------------------------------------------------------------------------ */

enum { /* layout_group.flags */
        LAYOUT_GROUP_ANONYMOUS = 1, /* ends with its member */
        LAYOUT_GROUP_OUT = 2,       /* ejected */
        LAYOUT_GROUP_IN_PLACE = 4,  /* its members write into the records they hold */
};
enum layout_bell { /* of a lane or a member: does it sleep by a handle that wakers have to strike? */
        LAYOUT_BELL_NONE,
        LAYOUT_BELL_ARMED,  /* in an event loop; in its own calls by its event word */
        LAYOUT_BELL_ALWAYS, /* nobody ever waits for its event word */
};

enum layout_group_kind { LAYOUT_GROUP_EXCLUSIVE = 1, LAYOUT_GROUP_SHARED = 2 };

struct layout_group {
        uint32_t state;          /* with owner: one 8-byte word, changed by compare-and-swap */
        uint32_t owner;          /* who makes it, has made it or takes it down: peer slot | generation << 8 */
        uint32_t generation;
        uint32_t pad0;
        uint32_t kind;           /* enum layout_group_kind */
        uint32_t policy;         /* enum psyne_behind, 0 = blocks */
        uint32_t flags;          /* LAYOUT_GROUP_* */
        int32_t follows;         /* group it is gated by, -1 = the producers */
        uint64_t eject_ns;       /* PSYNE_BEHIND_EJECTED: without progress while a producer waits */
        uint64_t members;        /* bitmap of members that are in it */
        uint64_t ever;           /* members that ever joined */
        char name[LAYOUT_NAME_MAX + 8];
        uint8_t pad[LAYOUT_LINE * 2 - 128];
};

/* A group's place in a lane. */
struct layout_cursor {
        /* Exclusive groups: the reader's exact line (psyne/inline.h). */
        struct psyne_line_rx exact;
        uint8_t pad0[LAYOUT_LINE - sizeof(struct psyne_line_rx)];

        uint64_t published;      /* exclusive: the lazy copy that producers read. Writer: the member */
        uint64_t claim;          /* shared: {position / 16, claimant}, by compare-and-swap */
        uint64_t told;           /* of `lost`, to the reader's owner: behind.c */
        uint64_t lost, redelivered;
        uint64_t before;         /* messages of this index that the group has nothing to do with: sent before it was made */
        uint64_t late;           /* it joined this lane in its middle, at its oldest: `before` is not exact */
        uint64_t finished;       /* generation of the lane whose end a reader of the group has seen */
        uint8_t pad1[LAYOUT_LINE - 64];
};

/* ---- members ----------------------------------------------------------------------------------------------------- */

struct layout_member {
        uint32_t state;          /* with owner: one 8-byte word, changed by compare-and-swap */
        uint32_t owner;          /* peer slot | its generation << 8 */
        uint32_t owner_generation; /* all of it */
        uint32_t generation;
        uint32_t group;
        uint32_t held_max, prefetch;
        uint32_t thread;
        uint64_t joined_ns;      /* CLOCK_MONOTONIC */
        uint64_t gates_seen;     /* it wakes the groups that followed its own when lanes_generation was this */
        uint8_t pad0[LAYOUT_LINE - 48];

        /* event: wakers (RMW); the rest: the member. */
        uint32_t event;
        uint32_t sleep_generation;
        uint32_t engine, wait;
        uint64_t sleeping_since_ns;
        uint32_t bell;           /* as a lane's */
        uint8_t pad1[LAYOUT_LINE - 28];

        /* Writer: the member, now and then. */
        uint64_t receive_blocks, receive_blocked_ns, wakes_received, wakes_sent, backstop_hits, redelivered;
        uint64_t damaged, oldest_hold_ns, copied;
        uint64_t messages_received, bytes_received; /* as a member of a shared group */
        uint64_t removed;        /* as a stage */
        uint8_t pad2[LAYOUT_LINE - 96];
};

/* A run of records that a member of a shared group holds, or is about to claim. Writer: the owner; `owner` by
 * compare-and-swap, also from who helps or adopts. */
struct layout_loan {
        uint64_t owner;          /* state, member, generation and a sequence number: shared.c */
        uint64_t start, end;     /* positions */
        uint64_t done;           /* bit per record: released, or padding */
        uint32_t lane, n;
        uint8_t pad[64 - 40];
};

/* ---- for people -------------------------------------------------------------------------------------------------- */

enum layout_scope { LAYOUT_SCOPE_NONE, LAYOUT_SCOPE_CHANNEL, LAYOUT_SCOPE_LANE, LAYOUT_SCOPE_MEMBER };

struct layout_fact { /* writer: the owner of what it is about; `scope` last */
        uint32_t scope;          /* enum layout_scope, 0 = row unused */
        uint32_t index;
        char what[16], asked[24], obtained[24], why[96], fix[64];
        uint8_t pad[LAYOUT_LINE * 2 - 232];
};

struct layout_error { /* distinct errors, counted */
        uint64_t count, first_ns, last_ns;
        int32_t code;
        uint32_t peer;
        char sentence[88];
        uint8_t pad[8];
};

struct layout_event { /* flight recorder */
        uint64_t at_ns;
        uint16_t what, who;
        uint32_t value;
};

static_assert(sizeof(struct layout_config) <= 512, "fits before the regions");
static_assert(offsetof(struct layout_header, regions) == 512, "layout");
static_assert(offsetof(struct layout_header, stop) == 1024, "layout");
static_assert(offsetof(struct layout_header, sleepers) == 1024 + LAYOUT_LINE, "layout");
static_assert(offsetof(struct layout_header, waiters) == 1024 + 2 * LAYOUT_LINE, "layout");
static_assert(offsetof(struct layout_header, lanes_generation) == 1024 + 3 * LAYOUT_LINE, "layout");
static_assert(sizeof(struct layout_header) == 4096, "one page");
static_assert(offsetof(struct layout_config, ring_bytes) == 40, "layout");
static_assert(offsetof(struct layout_config, type_id) == 72, "layout");
static_assert(offsetof(struct layout_config, instance) == 104, "layout");
static_assert(sizeof(struct layout_peer) == LAYOUT_LINE, "layout");
static_assert(offsetof(struct layout_peer, start_time) == 16, "layout");
static_assert(offsetof(struct layout_peer, comm) == 48, "layout");
static_assert(sizeof(struct layout_lane) == 5 * LAYOUT_LINE, "layout");
static_assert(offsetof(struct layout_lane, owner) == 4, "layout");
static_assert(offsetof(struct layout_lane, ring_bytes) == 16, "layout");
static_assert(offsetof(struct layout_lane, highest) == 80, "layout");
static_assert(offsetof(struct layout_lane, tx) == LAYOUT_LINE, "layout");
static_assert(offsetof(struct layout_lane, send_blocks) == 2 * LAYOUT_LINE, "layout");
static_assert(offsetof(struct layout_lane, event) == 3 * LAYOUT_LINE, "layout");
static_assert(offsetof(struct layout_lane, announced) == 4 * LAYOUT_LINE, "layout");
static_assert(sizeof(struct layout_group) == 2 * LAYOUT_LINE, "layout");
static_assert(offsetof(struct layout_group, owner) == 4, "layout");
static_assert(offsetof(struct layout_group, name) == 56, "layout");
static_assert(sizeof(struct layout_cursor) == 2 * LAYOUT_LINE, "layout");
static_assert(offsetof(struct layout_cursor, published) == LAYOUT_LINE, "layout");
static_assert(sizeof(struct layout_member) == 3 * LAYOUT_LINE, "layout");
static_assert(offsetof(struct layout_member, owner) == 4, "layout");
static_assert(offsetof(struct layout_member, event) == LAYOUT_LINE, "layout");
static_assert(offsetof(struct layout_member, receive_blocks) == 2 * LAYOUT_LINE, "layout");
static_assert(sizeof(struct layout_loan) == 64, "layout");
static_assert(offsetof(struct layout_loan, lane) == 32, "layout");
static_assert(sizeof(struct layout_fact) == 2 * LAYOUT_LINE, "layout");
static_assert(offsetof(struct layout_fact, why) == 72, "layout");
static_assert(sizeof(struct layout_error) == LAYOUT_LINE, "layout");
static_assert(sizeof(struct layout_event) == 16, "layout");
static_assert(sizeof(struct psyne_record) == PSYNE_RECORD_HEADER, "layout");
static_assert(offsetof(struct psyne_record, kind) == 8, "layout");

#define LAYOUT_ALIGN_FIELD(type, member) static_assert(offsetof(type, member) % 8 == 0, "aligned words do not tear")
LAYOUT_ALIGN_FIELD(struct layout_config, total_bytes);
LAYOUT_ALIGN_FIELD(struct layout_lane, send_blocks);
LAYOUT_ALIGN_FIELD(struct layout_member, receive_blocks);

/* What is decided when a channel is made. */
struct layout_limits {
        uint32_t max_producers, max_consumers;
};

/* Fills @regions for @limits. Returns the file's size in bytes, or 0 when a limit is out of range. */
uint64_t layout_compute(const struct layout_limits *limits, struct layout_region regions[LAYOUT_N_REGIONS]);

/* Writes the header of a fresh, zeroed mapping, all but the magic. @config's sizes and regions are filled in. */
void layout_init(struct layout_header *h, const struct layout_config *config);

/* The last step of creation: from here on attachers believe the page. */
void layout_publish(struct layout_header *h);

/* Checks a header that someone else wrote, copied out of the file, against the file's size. 0; -EPROTO: another
 * version or byte order; -EBADMSG: nonsense; -EAGAIN: not published yet. Records the sentence. */
int layout_validate(const struct layout_header *h, uint64_t file_bytes);

/* Messages that were sent while there was no group at all. */
static inline uint64_t layout_lane_unheard(const struct layout_lane *l) {
        uint64_t from = __atomic_load_n(&l->unheard_from, __ATOMIC_RELAXED), sent = __atomic_load_n(&l->tx.messages_sent, __ATOMIC_RELAXED);

        return __atomic_load_n(&l->unheard, __ATOMIC_RELAXED) + (from && sent >= from ? sent - (from - 1) : 0);
}

/* The end of a lane's newest commit. */
static inline uint64_t layout_lane_tail(const struct layout_lane *l) {
        return __atomic_load_n(&l->tx.tail, __ATOMIC_ACQUIRE) & ~15ull; /* pairs with psyne_lane_count() */
}

/* The same, and how many messages there are before it. */
uint64_t layout_lane_end(const struct layout_lane *l, uint64_t *ret_messages);

/* A lane's, group's or member's owner word names a slot and which of its users. */
static inline uint32_t layout_owner_slot(uint32_t owner) {
        return owner & 0xff;
}

static inline void *layout_at(void *map, enum layout_region_id id, uint32_t i) {
        const struct layout_region *r = &((struct layout_header *)map)->regions[id];

        return (char *)map + r->offset + (uint64_t)r->stride * i;
}

/*
 * A validated view: offsets copied out of the header once, so that a peer that scribbles over the page later
 * cannot move anything. All pointers point into the mapping.
 */
struct layout_view {
        struct layout_header *header;
        struct layout_peer *peers;
        struct layout_lane *lanes;
        struct layout_group *groups;
        struct layout_cursor *cursors; /* [group * n_lanes + lane] */
        struct layout_member *members;
        struct layout_loan *loans;     /* [member * LAYOUT_LOANS + loan] */
        uint64_t *holds;               /* rows of holds_stride bytes */
        struct layout_fact *facts;
        struct layout_error *errors;
        uint32_t n_peers, n_lanes, n_groups, n_members, n_facts, holds_stride;
        struct layout_config config;   /* a copy */
};

/* @map must have been validated (its creator's own counts as such). */
void layout_view_init(struct layout_view *v, void *map, const struct layout_header *copy);

static inline struct layout_cursor *layout_cursor(const struct layout_view *v, uint32_t group, uint32_t lane) {
        return &v->cursors[group * v->n_lanes + lane];
}

/* Writes (or rewrites) the row for @what of that thing; the table is sized so that there is always room. */
void layout_fact_set(const struct layout_view *v, enum layout_scope scope, uint32_t index, const char *what,
        const char *asked, const char *obtained, const char *why, const char *fix);
void layout_fact_clear(const struct layout_view *v, enum layout_scope scope, uint32_t index);
#endif
