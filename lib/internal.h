/*
 * What the files of lib/ share: the channel of one process, and its two kinds of handles.
 *
 * Locks, outermost first: the process's registry (process.c), the links' (link.c), the services' (service.c), a
 * channel's. Hot calls take none. What the
 * service thread does to a handle that another thread is using is limited to atomic words named here.
 */
#ifndef PSYNE_INTERNAL_H
#define PSYNE_INTERNAL_H
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "lib/entry.h"
#include "lib/uri.h"
#include "psyne/info.h"
#include "psyne/psyne.h"
#include "shm/lane.h"
#include "shm/layout.h"
#include "shm/segment.h"
#include "shm/shared.h"
#include "uring/bell.h"
#include "uring/park.h"

#define GROUP_DEFAULT "default" /* of every mode but broadcast, from creation on */

struct service;

/* A lane's ring as this process has it mapped. */
struct channel_lane {
        struct segment segment;   /* SEGMENT_NULL = not mapped here */
        uint32_t generation;      /* of the lane index, when it was mapped */
        unsigned readers;         /* consumers of this process that have it open */
        bool owned;               /* a producer handle of this process writes the index's newest lane */
        struct lane_past *past;   /* the index's earlier lanes that some endpoint here has not turned away from */
};

struct lane_past {
        struct lane_past *next;
        struct segment segment;
        unsigned users;
};

/* Rows that sleep. */
enum bells_side { BELLS_MEMBER, BELLS_LANE, BELLS_SIDES };

struct psyne_channel {
        struct psyne_channel *next; /* registry */
        unsigned references;        /* registry lock */
        pthread_mutex_t lock;
        bool forked;                /* we are a child that inherited it */
        enum uri_scheme scheme;
        char name[URI_NAME_MAX + 1];
        char uri[160];
        uint32_t flags;             /* psyne_opts.flags */
        enum psyne_wait wait;       /* default of its endpoints */
        int64_t linger_ns;
        enum psyne_try huge, numa;
        enum park_engine engine;    /* that was asked for */

        struct layout_view view;
        void *map;
        size_t map_bytes;
        struct entry entry;         /* ipc */
        int dirfd;                  /* ipc */
        uint32_t slot;              /* our peer slot */
        uint32_t fence;             /* no membarrier: ours, or a peer's. Atomic, set once */
        uint64_t bells[BELLS_SIDES][LAYOUT_CONSUMERS_MAX]; /* bells.c. Atomic; written under the lock */

        struct channel_lane lanes[LAYOUT_PRODUCERS_MAX]; /* lock */
        struct psyne_producer *producers; /* lock: lists, for deaths, fences and fork */
        struct psyne_consumer *consumers;

        struct psyne_link *link;    /* tcp: its own */
        struct links *linked;       /* who drives links that were added, if it has none. Atomic, set once */
        bool inlined;               /* ... whose bytes are moved by those who send and receive */
        struct service *service;    /* ipc: who accepts and watches for us */
        void *service_state;
};

/* What an endpoint that is about to sleep goes by. */
struct rest {
        uint32_t event;             /* its event word, read before the look that found nothing */
        int64_t until_ns;           /* it looks again then, woken or not */
        bool must;                  /* nobody promises a wake before that */
        bool backstop;              /* ... because nobody should have to: what is found then was not told */
};

struct psyne_endpoint {
        bool is_producer;
        uint32_t wait;              /* enum psyne_wait, atomic */
        /* arm.c */
        bool armed;                 /* its bit stands, while the thread is not in a call of ours */
        uint32_t in_flight;         /* requests of it in a ring of the caller's */
        struct rest rest;           /* while it is armed */
        int handle;                 /* of the bell, if its waits go by that; -1: by its event word */
        struct bell *bell;          /* NULL: not asked for yet. Changed under the channel's lock: the service hands it out */
        struct psyne_waitset *set;  /* that it is in, or NULL */
};

/* One waker's memory of whom it woke: at most one wake per sleeper and sleep (wake.c). */
struct wake_memory {
        uint32_t woken[LAYOUT_CONSUMERS_MAX];
};

struct psyne_producer {
        struct lane_tx tx;          /* first */
        struct psyne_channel *channel;
        struct psyne_producer *next;
        struct psyne_endpoint endpoint;
        bool of_link;               /* it does not keep the channel */
        int64_t linger_ns;
        enum psyne_full full;
        enum psyne_full (*on_full)(void *ctx);
        void *on_full_ctx;
        uint32_t busy;              /* atomic: a thread is inside a slow call */
        bool drop;                  /* the last claim found no room, and drops */
        uint64_t asked;             /* bytes in the ring that the last claim without room needed */
        struct wake_memory memory;
        int64_t eject_at;           /* while it waits for room: when a group will have been in the way for too long */
        struct {
                uint64_t at;
                int64_t since;      /* 0 = not in the way */
                uint32_t generation;
        } stalled[LAYOUT_CONSUMERS_MAX];
        uint64_t paced_ticks;       /* psyne_pace(): when, and what this thread had received by polling then */
        uint64_t paced_answers;
};

struct psyne_consumer {
        struct lane_rx rx;          /* first: the lane it stands in, or none (walk_none()) */
        struct psyne_channel *channel;
        struct psyne_consumer *next;
        struct psyne_endpoint endpoint;
        struct layout_member *shared;
        uint32_t index;             /* member */
        uint32_t group;
        /* walk.c */
        int32_t lane;               /* in rx; -1 = none */
        struct lane_rx *lanes;      /* [n_lanes]: the reading ends that are not in rx */
        uint64_t open;              /* lanes that have a reading end */
        uint64_t finished;          /* of those: all is taken, something is still held */
        uint64_t ended;             /* of those: the producer was gone when the list was made */
        uint32_t generations[LAYOUT_PRODUCERS_MAX]; /* of the lanes that are open */
        uint32_t done_with[LAYOUT_PRODUCERS_MAX];   /* generation of the lane of that index that was finished or is damaged */
        uint8_t walk[LAYOUT_PRODUCERS_MAX];         /* the lanes to look at */
        uint32_t n_walk;
        uint64_t lanes_seen;        /* lanes_generation when the list was made */
        bool stale;                 /* make the list again, whatever the generation says */
        bool pending;               /* a lane is there that cannot be read yet: make the list again */
        bool turn_over;             /* the others come first in the next look */
        uint32_t held_away;         /* messages held in lanes other than the one in rx. Atomic for report.c */

        /* share.c, in shared groups only */
        bool is_shared;
        bool orphans;               /* somebody left or died: look for what it held */
        struct shared_self self;
        uint32_t claimed;           /* messages claimed and not released, those not handed out yet included */
        uint32_t claimed_in[LAYOUT_PRODUCERS_MAX]; /* of those: in each lane, whose ring stays mapped as long */
        uint32_t prefetch;
        uint32_t want;              /* how many the caller asked for */
        uint64_t turn_bytes;        /* claimed in the lane it stands in since the others had their turn */
        struct psyne_line_rx scratch; /* what the inlined receive counts in */
        struct {
                bool any;
                uint32_t member, loan, i;
                uint64_t at, owner;
        } adopted;                  /* the loan of somebody else's that is being handed out again */

        /* stage.c */
        int32_t follows;            /* group in front of its own, -1 = none */
        bool gates;                 /* groups follow its own: every release is theirs to see */
        bool in_place;
        uint64_t turn_from;         /* released position when the others last had their turn, while it gates */
        struct wake_memory followers;

        /* behind.c, in groups that their producers do not wait for, or not for ever */
        bool copies;
        struct {
                unsigned char *memory;      /* held_max places of slot_bytes */
                size_t slot_bytes;
                uint64_t used;              /* bit per place */
                uint64_t serial, serials[LANE_HELD_MAX];
                bool again;                 /* `newest` was put back */
                struct psyne_msg newest;
                uint32_t newest_lane;       /* of the last message taken */
                uint64_t missed;            /* and not told yet */
        } copied;

        uint32_t held_max;
        uint32_t busy;
        int told_later;             /* an error that a look for readiness met: the next receive's */
        bool of_link;               /* it does not keep the channel */
        bool had_producer;          /* since it opened, also one that came and left before it looked */
        uint64_t opened_at;         /* lanes_generation then; lanes of a higher order joined later */
        uint64_t received_before;   /* when it last found nothing */
        bool reaps;                 /* its looks move what has come over a link (link-inline.c) */
        bool alone;                 /* one usable CPU, at the last look: spinning would keep the producer off it */
        uint32_t backoff;           /* pauses to take when it finds nothing after a run */
        struct wake_memory memory;  /* of producers */
        struct wake_memory members; /* of its group, that it woke in its turn */
};

/* process.c: the registry of this process's channels, and what fork() does to them. */
int process_init(void);                                 /* idempotent: atfork handlers, membarrier registration */
bool process_has_membarrier(void);
void process_lock(void);
void process_unlock(void);
struct psyne_channel *process_find(const char *name);   /* memory:// only; lock held */
void process_add(struct psyne_channel *ch);
void process_remove(struct psyne_channel *ch);
unsigned process_forks(void);                           /* in this process's line: a handle from before is not ours */
unsigned process_cpus(void);                            /* usable by this thread */
/* How long polling pays before a sleep: about what a sleep and a wake cost here. 0: there is no CPU to poll on. */
int64_t process_spin_ns(void);
void process_spinning(int change);                      /* +1, -1: a thread of ours polls */

/* measure.c */
int64_t measure_wake_ns(void);                          /* a sleep and a wake; 0: it cannot be told here */

/* channel.c */
struct psyne_channel *channel_ref(struct psyne_channel *ch);
struct psyne_channel *channel_unref(struct psyne_channel *ch);
int channel_check(const struct psyne_channel *ch);      /* -EOWNERDEAD after fork, else 0 */
uint32_t channel_stop_state(const struct psyne_channel *ch); /* 0, 1 drain, 2 abort */
static inline void channel_lockp(pthread_mutex_t **m) {
        if (*m)
                pthread_mutex_unlock(*m);
}

/* membership.c: who is in, who left, who died. */
bool membership_alive(const struct psyne_channel *ch, uint32_t slot, uint32_t generation);
/* Who has a row, in its word: slot and generation, so that a row is never taken for a successor's in that slot. */
static inline uint32_t membership_id(uint32_t slot, uint32_t generation) {
        return slot | generation << 8;
}
uint32_t membership_me(const struct psyne_channel *ch);
bool membership_owner_alive(const struct psyne_channel *ch, uint32_t id);
void membership_died(struct psyne_channel *ch, uint32_t slot, uint32_t generation);
void membership_changed(struct psyne_channel *ch);      /* bump generations, wake everyone who may care */
void membership_changed_by_call(struct psyne_channel *ch);
int membership_take_lane(struct psyne_channel *ch, uint32_t *ret);
/* Gives the index of a lane that ended back: once every group has released all of it, those that may be overrun or not,
 * or whatever they have. */
enum retire { RETIRE_DRAINED, RETIRE_SKIPPED, RETIRE_UNREAD };
void membership_retire_lane(struct psyne_channel *ch, uint32_t lane, uint32_t generation, enum retire how);
int membership_take_member(struct psyne_channel *ch, uint32_t group, uint32_t *ret);
void membership_leave_member(struct psyne_channel *ch, uint32_t member, uint32_t group);
bool membership_has_consumers(const struct psyne_channel *ch);
bool membership_row_change(void *row, uint32_t from, uint32_t owner, uint32_t to, uint32_t new_owner);
uint32_t membership_row_state(const void *row, uint32_t *owner);
void membership_prune_lanes(struct psyne_channel *ch);  /* unmap what nobody needs any more; lock held */
/* @s becomes the index's lane here; endpoints that have its predecessor open keep that until they drop it. Lock held.
 * -ENOMEM: @s stays the caller's. */
int membership_map_lane(struct psyne_channel *ch, uint32_t lane, const struct segment *s, uint32_t generation,
        bool owned);
/* The ring at @base is no longer used by a reader here, or by its @owner. Lock held. */
void membership_drop_lane(struct psyne_channel *ch, uint32_t lane, const void *base, bool owner);
void membership_forget_lanes(struct psyne_channel *ch, void (*forget)(struct segment *)); /* all of them; lock held */

/* groups.c: a wish's name NULL = a group of one, which ends with its member. */
struct group_wish {
        const char *name;
        const char *follows;        /* NULL: none */
        bool shared, from_oldest, in_place;
        enum psyne_behind behind;   /* default: whatever it is, or blocks */
        int64_t eject_ns;
};
int group_take(struct psyne_channel *ch, const struct group_wish *wish, uint32_t *ret);
bool group_is_taken(struct psyne_channel *ch, const char *name); /* it exists, and somebody reads for it */
void group_eject(struct psyne_channel *ch, uint32_t group);
void group_leave(struct psyne_channel *ch, uint32_t group, bool was_in); /* its member, or who took it and could not be one */
void groups_of_the_dead(struct psyne_channel *ch, uint32_t slot, uint32_t generation);

/* walk.c: which lanes a consumer reads. */
void walk_none(struct psyne_consumer *c);               /* stand in no lane */
int walk_refresh(struct psyne_consumer *c);             /* 0, -EBADMSG */
int walk_take(struct psyne_consumer *c, struct psyne_msg *ret); /* one look: 1, 0 = nothing, -ENOBUFS, -EBADMSG */
int walk_ready(struct psyne_consumer *c);               /* a lane in which something is, or -1 */
void walk_to(struct psyne_consumer *c, uint32_t lane);  /* stand in it */
void walk_turn_over(struct psyne_consumer *c);
bool walk_publish(struct psyne_consumer *c);            /* E for all lanes; true when one moved */
struct lane_rx *walk_end(struct psyne_consumer *c, uint32_t lane); /* NULL: not read by this consumer */
void walk_finish(struct psyne_consumer *c, uint32_t lane); /* its producer is gone, and all of it was taken: by a link */
void walk_released(struct psyne_consumer *c, uint32_t lane); /* something of a lane it does not stand in */
bool walk_group_is_done(struct psyne_consumer *c, uint32_t lane); /* its producer is gone, and all is released */
void walk_leave(struct psyne_consumer *c);              /* gives every lane back */

/* share.c: a member of a shared group. */
void share_open(struct psyne_consumer *c, struct lane_rx *x, uint32_t lane, const struct segment *s);
bool share_ready(struct psyne_consumer *c, uint32_t lane);
bool share_all_claimed(struct psyne_consumer *c, uint32_t lane);
#define SHARE_TURN_OVER 2 /* the other lanes have their turn first */
int share_take(struct psyne_consumer *c, struct psyne_msg *ret);    /* from the lane it stands in: as lane_rx_take(), or that */
/* Without looking at anything else, for when there is nothing else to look at. False: take the long way. */
bool share_take_quick(struct psyne_consumer *c, struct psyne_msg *ret);
bool share_release_quick(struct psyne_consumer *c, struct psyne_msg *m);
int share_adopted(struct psyne_consumer *c, struct psyne_msg *ret); /* what somebody who is gone had held: the same */
void share_untake(struct psyne_consumer *c, const struct psyne_msg *m);
int share_release_n(struct psyne_consumer *c, struct psyne_msg m[], unsigned n); /* how many, or -EINVAL */

/* behind.c: a consumer whose producers do not wait for it. */
int behind_open(struct psyne_consumer *c);               /* 0, -ENOMEM */
void behind_begin(struct psyne_consumer *c);             /* a member: what was no predecessor told? */
void behind_end(struct psyne_consumer *c);               /* it leaves; the lanes are given back */
void behind_close(struct psyne_consumer *c);
bool behind_is_out(const struct psyne_consumer *c);     /* its group was ejected */
int behind_take(struct psyne_consumer *c, struct psyne_msg *ret); /* from the lane it stands in: as lane_rx_take() */
void behind_missed(struct psyne_consumer *c, uint32_t lane, uint64_t messages); /* it never got those of the lane before */
int behind_told(struct psyne_consumer *c, struct psyne_msg *ret, int r); /* @r, and *ret says what was missed */
int behind_ejected(struct psyne_consumer *c, struct psyne_msg *ret);     /* -ECONNABORTED */
void behind_untake(struct psyne_consumer *c, const struct psyne_msg *m);
int behind_again(struct psyne_consumer *c, struct psyne_msg *ret);       /* 1: what was put back */
void behind_untell(struct psyne_consumer *c, uint64_t lost);            /* for the next to be told */
int behind_release(struct psyne_consumer *c, struct psyne_msg *m);       /* 0, -EINVAL */

/* stage.c: a consumer whose group follows another, is followed, or writes in place. */
void stage_look(struct psyne_consumer *c, uint64_t generation); /* who follows its group now? */
bool stage_is_heard(const struct psyne_consumer *c);    /* those in front know that they have to wake it */
bool stage_has_all(const struct psyne_consumer *c);     /* nothing that was sent is still on its way to it */
bool stage_ended(const struct psyne_consumer *c, uint32_t lane, uint32_t generation, bool died);
int stage_write(struct psyne_consumer *c, const struct lane_rx *x, const struct psyne_msg *m, bool remove);
#define STAGE_REMOVE (1u << 31) /* in a message's flags, on its way from psyne_remove() */
#define STAGE_TOKEN (LANE_HANDLE_ALIGN / 2) /* in a message's token: its release takes the long way */

/* wake.c: edges F to I of psyne/inline.h; and the barrier. */
bool wake_barrier_expedited(void);                      /* every CPU that runs a participant; false where refused */
void wake_barrier_heavy(const struct psyne_channel *ch);
void wake_everyone(struct psyne_channel *ch);           /* async-signal-safe */
void wake_local(struct psyne_channel *ch);              /* this process's endpoints */
void wake_producers(struct psyne_consumer *c);            /* and the groups that follow */
void wake_next(struct psyne_consumer *c);               /* another member: there is more than this one took */
enum wait_phase { WAIT_SPIN_ON, WAIT_SLEEP };
struct waiter {
        int64_t deadline_ns;
        int64_t spin_until_ns;
        int64_t started_ns;
        enum psyne_wait wait;
        uint32_t polls;
};
void waiter_init(struct waiter *w, const struct psyne_endpoint *e, int64_t timeout_ns);

/* arm.c: an endpoint that sleeps outside our calls. */
enum ready { READY_NOT, READY_GO, READY_STOPPED, READY_GONE }; /* what the next call would do, other than wait */
enum ready endpoint_ready(struct psyne_endpoint *e);
bool endpoint_lie_down(struct psyne_endpoint *e); /* sets its bit; false: it is ready */
bool endpoint_second_look(struct psyne_endpoint *e); /* behind the barrier: true = it may be ready */
void endpoint_disarm(struct psyne_endpoint *e);
void endpoint_give_up(struct psyne_endpoint *e); /* disarms, and takes nothing */
void endpoint_nudge(struct psyne_endpoint *e); /* it has to lie down anew */
void endpoint_close(struct psyne_endpoint *e);
uint32_t *endpoint_event(struct psyne_endpoint *e);
int endpoint_need_bell(struct psyne_endpoint *e);
uint32_t *endpoint_bell_word(struct psyne_endpoint *e);
void endpoint_row(struct psyne_endpoint *e, enum bells_side *side, uint32_t *index, uint32_t *generation);
struct psyne_channel *endpoint_channel(const struct psyne_endpoint *e);
enum ready consumer_ready(struct psyne_consumer *c);
void consumer_lie_down(struct psyne_consumer *c, int64_t deadline_ns, struct rest *rest);
void consumer_get_up(struct psyne_consumer *c);
enum ready producer_ready(struct psyne_producer *p);
void producer_lie_down(struct psyne_producer *p, uint64_t ask, struct rest *rest);
void producer_get_up(struct psyne_producer *p);
uint64_t producer_wanted(const struct psyne_producer *p);

/* engine.c */
void endpoint_settle(struct psyne_endpoint *e, int prepared);
void endpoint_cap_rest(const struct psyne_endpoint *e, struct rest *rest);
int endpoint_sleep(struct psyne_endpoint *e, uint32_t expected, int64_t until_ns);

/* bells.c */
int bells_put(struct psyne_channel *ch, enum bells_side side, uint32_t index, uint32_t generation, int fd);
bool bells_strike(const struct psyne_channel *ch, enum bells_side side, uint32_t index, uint32_t generation);
void bells_strike_own(struct psyne_channel *ch);
void bells_close(struct psyne_channel *ch);

/* waitset.c */
void waitset_forget(struct psyne_waitset *w, struct psyne_endpoint *e); /* it closes */
struct item;
/* A descriptor that is told once, and then not before it is asked for again: by any thread, but not while it is removed. */
int waitset_add_once(struct psyne_waitset *w, int fd, uint32_t poll_events, void *ctx, struct item **ret);
int waitset_once_more(struct psyne_waitset *w, struct item *t, uint32_t poll_events);

/* service.c (ipc) */
int service_join(struct psyne_channel *ch);
void service_leave(struct psyne_channel *ch);
void service_announce_lane(struct psyne_channel *ch, uint32_t lane);
void service_take(const struct psyne_channel *ch);
void service_announce_bell(struct psyne_channel *ch, struct psyne_endpoint *e);
bool service_owes(const struct psyne_channel *ch);      /* a peer may not have a bell of ours yet */
bool service_handshaking(const struct psyne_channel *ch); /* a peer has not answered our hello yet */
bool service_lane_lost(struct psyne_channel *ch, uint32_t lane, uint32_t generation);
int service_poll(struct psyne_channel *ch, int64_t timeout_ns);
void service_after_fork_child(struct psyne_channel *ch);

/* link.c (tcp) */
int link_join(struct psyne_channel *ch, const struct uri *u, uint32_t mode);
void link_leave(struct psyne_channel *ch);              /* nobody else has it any more */
void link_uri(const struct uri *u, char *ret, size_t n);
void link_changed(const struct psyne_channel *ch);      /* somebody joined or left */
int link_refused(const struct psyne_channel *ch);       /* 0, or why the other end wants nothing of us */
uint64_t link_readers(const struct psyne_channel *ch);
int link_poll(struct psyne_channel *ch, int64_t timeout_ns);
int link_takes(const struct psyne_channel *ch, bool producer); /* 0; -ENOTSUP: that is the other end's */
void link_push(struct psyne_producer *p);               /* inlined: what it committed leaves now */
size_t link_reap(struct psyne_channel *ch);             /* inlined: what has come, lands; how many bytes it was */
void link_reap_no_more(struct psyne_channel *ch);       /* its reader is about to sleep */
void link_after_fork_child(struct psyne_channel *ch);
void link_fork_prepare(void);
void link_fork_parent(void);
void link_fork_child(void);
/* @group: NULL = the default one; empty = one of its own, which ends with it. It is the only member. */
int link_reader_open(struct psyne_channel *ch, const char *group, struct psyne_consumer **ret);
int link_writer_open(struct psyne_channel *ch, struct psyne_producer **ret);

/* producer.c, consumer.c */
extern __thread uint64_t consumer_answers __attribute__((tls_model("initial-exec"))); /* messages this thread polled for */
void producer_after_fork_child(struct psyne_producer *p);
void consumer_untake(struct psyne_consumer *c, const struct psyne_msg *m); /* the one just received */
void consumer_after_fork_child(struct psyne_consumer *c);
#endif
