/*
 * psyne/stat.h: channels seen from outside, without joining them. What psyne-stat(1) is made of.
 *
 * A snapshot is read from the control file: never mapped, never written, no lock taken, so those watched notice
 * nothing, and it does not matter whether they run, are stopped or have died. Everything in the file is somebody
 * else's word: what cannot be is cut or marked, strings hold printable ASCII only, indices are in range or -1.
 */
#ifndef PSYNE_STAT_H
#define PSYNE_STAT_H
#include "info.h"
#include "psyne.h"

#ifndef __cplusplus
#include <stdbool.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct psyne_stat_dir;

enum psyne_stat_state {
        PSYNE_STAT_FREE,
        PSYNE_STAT_JOINING,
        PSYNE_STAT_ACTIVE,
        PSYNE_STAT_CLOSED,  /* left in order; a lane may still hold records */
        PSYNE_STAT_DEAD,    /* found dead by the others */
        PSYNE_STAT_DAMAGED, /* set aside: it wrote nonsense */
        PSYNE_STAT_UNKNOWN, /* a number that stands for none of these */
};

/* What the kernel says about the process that wrote its id into the page. */
enum psyne_stat_process {
        PSYNE_STAT_PROCESS_UNKNOWN, /* another pid name space, or /proc does not tell */
        PSYNE_STAT_PROCESS_RUNNING,
        PSYNE_STAT_PROCESS_STOPPED, /* by a signal or a debugger: stopped is not dead */
        PSYNE_STAT_PROCESS_GONE,
};

/* How it sleeps: by futex operations of io_uring, by futex(2), by io_uring and an eventfd that wakers write to. */
enum psyne_stat_engine {
        PSYNE_STAT_ENGINE_UNKNOWN,
        PSYNE_STAT_ENGINE_URING,
        PSYNE_STAT_ENGINE_FUTEX,
        PSYNE_STAT_ENGINE_EVENTFD,
};
enum psyne_stat_scope { PSYNE_STAT_CHANNEL = 1, PSYNE_STAT_LANE, PSYNE_STAT_MEMBER };

/* One process's handle on the channel. */
struct psyne_stat_peer {
        enum psyne_stat_state state;
        enum psyne_stat_process process;
        bool alive;        /* somebody holds its slot: the kernel's word, not the file's */
        bool dead;         /* died without leaving */
        bool held_by_fork; /* the process is gone, and a child that it forked keeps its slot */
        bool can_membarrier, can_serve;
        char comm[16];
        uint32_t pid, uid;
        uint32_t generation; /* of the slot */
        uint32_t reserved;
        uint64_t pidns; /* inode of its pid name space */
        uint64_t joined_realtime_ns;
};

/* One producer's ring. Counters go on over all producers that had this lane. */
struct psyne_stat_lane {
        enum psyne_stat_state state;
        enum psyne_stat_engine engine;
        int32_t peer; /* its owner, -1 = none that can be */
        bool dead;    /* its owner died and nobody has taken its place */
        bool asleep;  /* its producer sleeps for room */
        bool damaged; /* a position that cannot be */
        uint32_t generation;
        uint32_t thread;        /* tid of the producer */
        int32_t node;           /* -1 = not known */
        uint64_t page_bytes;    /* 0 = not known */
        uint64_t device, inode; /* of the ring's memfd */
        uint64_t start, tail;   /* positions, in bytes */
        uint64_t waiting_bytes; /* what the slowest group has not released, headers and padding included */
        uint64_t high_water_bytes;
        uint64_t messages_sent, bytes_sent;
        uint64_t send_blocks, send_blocked_ns, full_events, aborted, copied_sends;
        uint64_t wakes_sent, wakes_elided, wakes_received, backstop_hits, dropped, unheard;
        uint64_t wanted;          /* the free position it sleeps for */
        uint64_t asleep_since_ns; /* CLOCK_MONOTONIC, 0 = not known */
};

/* A group's place in a lane. */
struct psyne_stat_cursor {
        uint64_t released, taken, published; /* positions, in bytes */
        uint64_t lag_bytes;                  /* committed and not released */
        uint64_t held_bytes;                 /* taken and not released */
        uint64_t messages_received, bytes_received;
        uint64_t lost, redelivered;
        bool damaged; /* a position that cannot be: counts as a ring behind */
};

/* Consumers that share a cursor. The sums are over all lanes. */
struct psyne_stat_group {
        enum psyne_stat_state state;
        bool active;     /* holds producers back */
        bool ejected;
        uint32_t behind; /* enum psyne_behind; 0 = blocks */
        bool shared;     /* else exclusive: one member */
        int32_t follows; /* group before it, -1 = the producers */
        uint32_t generation;
        uint64_t members, ever; /* bit per member: in it now, and ever */
        uint64_t lag_bytes, held_bytes, messages_received, bytes_received, lost, redelivered;
        uint64_t backlog_bytes; /* released by the group in front and not by this one: a slow stage has much */
        const struct psyne_stat_cursor *cursors; /* [n_lanes] */
        char name[72];
};

/* One consumer. */
struct psyne_stat_member {
        enum psyne_stat_state state;
        enum psyne_stat_engine engine;
        int32_t peer;  /* its owner, -1 = none that can be */
        int32_t group; /* -1 = none that can be */
        bool dead;
        bool asleep;
        uint32_t generation;
        uint32_t thread;
        uint32_t held_max;
        uint32_t reserved;
        uint64_t asleep_since_ns; /* CLOCK_MONOTONIC, 0 = not known */
        uint64_t joined_ns;       /* CLOCK_MONOTONIC */
        uint64_t receive_blocks, receive_blocked_ns, wakes_received, wakes_sent, backstop_hits, redelivered;
        uint64_t damaged, copied;
};

struct psyne_stat_fact {
        enum psyne_stat_scope scope;
        uint32_t index; /* of the lane or member */
        bool fallback;  /* less than what was asked for */
        bool in_force;  /* what it is about is still there */
        struct psyne_fact text;
};

struct psyne_stat {
        size_t struct_size;    /* out: the library's */
        char file[80];         /* NAME.psy or NAME.dead */
        char name[72];         /* of the file, without the ending */
        char calls_itself[80]; /* the name that the page holds */
        bool post_mortem;      /* NAME.dead */
        bool anybody;          /* some slot is held */
        bool fence;            /* every wake check is a full fence: a participant may not call membarrier */
        uint32_t stop;         /* 0 running, 1 drain, 2 abort */
        uint32_t file_uid, file_mode;
        uint64_t file_bytes, pages_bytes;
        uint64_t taken_ns; /* CLOCK_MONOTONIC */
        uint64_t taken_realtime_ns;

        uint32_t major, minor;
        enum psyne_mode mode;
        uint32_t record_align;
        uint64_t ring_bytes;  /* per lane */
        uint64_t message_max; /* largest payload in bytes */
        uint32_t max_producers, max_consumers;
        uint32_t type_id;
        uint32_t creator_pid, creator_uid;
        enum psyne_try huge, numa, uring; /* as the creator asked */
        uint64_t elem_bytes, type_hash;
        uint64_t created_realtime_ns;
        uint64_t instance; /* two channels of one name differ */
        uint64_t deaths;

        /* Indexed by slot, lane, group and member: free ones are there too. */
        uint32_t n_peers, n_lanes, n_groups, n_members, n_facts, reserved;
        const struct psyne_stat_peer *peers;
        const struct psyne_stat_lane *lanes;
        const struct psyne_stat_group *groups;
        const struct psyne_stat_member *members;
        const struct psyne_stat_fact *facts;
};

int psyne_stat_open_dir(const char *dir, struct psyne_stat_dir **ret);
struct psyne_stat_dir *psyne_stat_close_dir(struct psyne_stat_dir *d);
const char *psyne_stat_dir_path(const struct psyne_stat_dir *d);
int psyne_stat_next(struct psyne_stat_dir *d, const char **ret);
int psyne_stat_read(struct psyne_stat_dir *d, const char *file, struct psyne_stat **ret);
struct psyne_stat *psyne_stat_free(struct psyne_stat *s);

/* ---- links: their processes are asked (psyne/info.h has struct psyne_link_info) ---- */
struct psyne_link_info;
struct psyne_stat_link {
        size_t struct_size;
        int error;                 /* 0; -ETIME: the process does not answer, and what is below is not there */
        uint32_t pid, uid;
        uint32_t row, n_rows;      /* of so many that the process has */
        uint32_t listens, reserved; /* 1: a listener, and info says nothing of a connection */
        const char *channel, *link; /* addresses. Not cleaned: the process says what it likes */
        const struct psyne_link_info *info;
};
int psyne_stat_links(int (*fn)(void *ctx, const struct psyne_stat_link *l), void *ctx);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
#endif
