/*
 * psyne.h: messages between threads and processes. The whole core on one page; psyne(7) tells the story.
 *
 * Every call returns 0 or a count on success, else -errno, and psyne_last_error() holds the sentence:
 *   -EAGAIN no room / nothing there    -ETIME timeout passed           -EINTR a signal came, nothing was taken
 *   -EPIPE no peer left, all drained (clears when one joins)           -ESHUTDOWN stopped (and, for DRAIN, drained)
 *   -EMSGSIZE can never fit            -ENOSPC grow refused, contents kept   -ENOBUFS holds too many messages
 *   -EBADMSG peer wrote nonsense: its lane is set aside                -EPROTO other layout version
 *   -EMEDIUMTYPE mode, size or type differs (sentence says which)      -EBUSY role is taken, or in use by another thread
 *   -EUSERS table is full              -ESTALE channel was made anew   -EOWNERDEAD handle came through fork()
 *   -ENOTSUP explicit wish cannot be met                               -EACCES peer or directory is not allowed
 *   -ECONNABORTED this group fell behind and was ejected
 *   -ERANGE a number does not fit      -EXDEV directory is not on tmpfs, -ENOENT or not there
 *   -EINVAL misuse (second commit, other's message, unknown URI key)   -ENAMETOOLONG channel name
 *
 * Timeouts are nanoseconds from now on CLOCK_MONOTONIC; 0 never waits, negative waits for ever. A producer, a
 * consumer and its messages belong to one thread at a time; [any] = any thread at any time; [sig] = also from a
 * signal handler. No call is a cancellation point, prints, aborts or installs a handler.
 *
 * psyne_claim, _commit, _recv and _release check nothing they need not: handle and message must not be NULL. The other
 * calls say -EINVAL to that.
 */
#ifndef PSYNE_H
#define PSYNE_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) /* the library is built with hidden visibility */

#define PSYNE_VERSION "0.1.0"
#define PSYNE_CACHELINE 128 /* words written by different sides are this far apart: the prefetcher fetches pairs of lines */

enum { PSYNE_NOWAIT = 0, PSYNE_FOREVER = -1 };

struct iovec;
struct io_uring_cqe;
struct io_uring_sqe;
struct psyne_channel;
struct psyne_consumer;
struct psyne_endpoint;
struct psyne_producer;

enum psyne_mode { PSYNE_MODE_DEFAULT, PSYNE_SPSC, PSYNE_MPSC, PSYNE_SPMC, PSYNE_MPMC, PSYNE_BROADCAST }; /* SPSC */
enum psyne_wait { PSYNE_WAIT_DEFAULT, PSYNE_WAIT_HYBRID, PSYNE_WAIT_SPIN, PSYNE_WAIT_BLOCK };            /* hybrid */
enum psyne_stop { PSYNE_DRAIN, PSYNE_ABORT };
enum psyne_full { PSYNE_FULL_DEFAULT, PSYNE_FULL_BLOCK, PSYNE_FULL_FAIL, PSYNE_FULL_DROP }; /* block */
enum psyne_behind { PSYNE_BEHIND_DEFAULT, PSYNE_BEHIND_BLOCKS, PSYNE_BEHIND_SKIPS, PSYNE_BEHIND_EJECTED }; /* blocks */
enum psyne_try { PSYNE_TRY_DEFAULT, PSYNE_TRY, PSYNE_NEVER, PSYNE_REQUIRE }; /* REQUIRE fails instead of falling back */

enum { /* psyne_opts.flags */
        PSYNE_NO_THREAD = 1, /* no service thread for this channel: call psyne_poll() */
        PSYNE_IN_PLACE = 2,  /* consumers that ask for it may write into the messages they hold: stages of a pipeline */
};

/* Option structs: zero = not asked (adopt what the channel has, or the default). struct_size = sizeof. NULL = ask
 * nothing. Query keys of the URI say the same and win. */
struct psyne_opts {
        size_t struct_size;
        size_t ring_bytes;                     /* per lane, rounded up to a power of two, default 2 MiB; below 2 MiB: 4K pages */
        enum psyne_mode mode;
        uint32_t record_align;                 /* 16 to 4096, power of two, default 64 */
        uint32_t max_producers, max_consumers; /* default 8 and 8, at most 64 and 64 */
        uint32_t type_id;                      /* 0 = messages of many types */
        uint32_t flags;
        size_t elem_bytes;
        uint64_t type_hash;
        enum psyne_try huge, numa, uring;      /* huge pages; data on the producer's node; io_uring waits and wakes */
        uint32_t file_mode;                    /* of the control file, default 0600 */
};
#define PSYNE_OPTS(...)                                                                                                \
        (&(struct psyne_opts){.struct_size = sizeof(struct psyne_opts), __VA_ARGS__}) /* C only */

struct psyne_producer_opts {
        size_t struct_size;
        enum psyne_wait wait;
        enum psyne_full full; /* what a claim does that finds no room: wait, -EAGAIN at once, or the same and drop */
        /* asked instead, each time, if not NULL: what to do this time; must not use the producer */
        enum psyne_full (*on_full)(void *ctx);
        void *on_full_ctx;
        int64_t linger_ns; /* close: 0 = default (1 s without progress), negative = until drained, else this long without */
};

struct psyne_consumer_opts {
        size_t struct_size;
        enum psyne_wait wait;
        uint32_t held_max;    /* most messages held at once, default 16, at most 64 */
        const char *group;    /* NULL: the default group; in broadcast a group of its own, which ends with it */
        uint32_t from_oldest; /* a group made by this: begins with the oldest message that is still there, not with the next */
        uint32_t prefetch;    /* shared groups: taken at a time for later receives, at most held_max; default 1 */
        /* a group of one consumer falls behind: producers wait for it, or overwrite what it has not got, or wait this long
         * for it to move and then go on without it for good (default 1 s) */
        enum psyne_behind behind;
        int64_t eject_ns;
        const char *follows;  /* a group made by this: gets what that group has released, and nothing before that */
        uint32_t in_place;    /* messages may be written, up to cap, and their len and type changed until the release */
        uint32_t shared;      /* a group made by this is shared in every mode */
};

/* ---- channel ---------------------------------------------------------------------------------------------------- */
int psyne_open(const char *uri, const struct psyne_opts *opts, struct psyne_channel **ret);
struct psyne_channel *psyne_close(struct psyne_channel *ch);
int psyne_stop(struct psyne_channel *ch, enum psyne_stop how);  /* [any][sig] */
int psyne_is_stopped(const struct psyne_channel *ch);           /* [any][sig] */
int psyne_wait_peers(struct psyne_channel *ch, unsigned producers, unsigned consumers, int64_t timeout_ns); /* [any] */
int psyne_poll(struct psyne_channel *ch, int64_t timeout_ns);   /* PSYNE_NO_THREAD only */
int psyne_port(const struct psyne_channel *ch); /* [any] tcp://, listening: the port, also if it was 0 */
const char *psyne_last_error(void);                             /* [any] */

/* ---- messages --------------------------------------------------------------------------------------------------- */
enum { /* psyne_msg.flags */
        PSYNE_MSG_REDELIVERED = 1, /* handed out before, to a consumer that died before it released it */
        PSYNE_MSG_COPIED = 2,      /* not in the ring: its group may be overrun */
};

/* A view into the ring, by value: no allocation. It ends at commit, abort, release or close of its endpoint. */
struct psyne_msg {
        void *data;     /* to write after a claim; read-only after a receive */
        size_t len;     /* bytes; after a claim: set it to anything up to cap before the commit */
        size_t cap;
        uint32_t type;  /* set it before the commit */
        uint32_t flags;
        uint64_t lost;  /* messages that its group missed just before this one */
        uint64_t opaque[3];
};

/* ---- producer: one lane, never contends with another ------------------------------------------------------------ */
int psyne_producer_open(struct psyne_channel *ch, const struct psyne_producer_opts *opts, struct psyne_producer **ret);
int64_t psyne_producer_close(struct psyne_producer *p);
int psyne_claim(struct psyne_producer *p, size_t bytes, int64_t timeout_ns, struct psyne_msg *ret);
int psyne_resize(struct psyne_producer *p, struct psyne_msg *m, size_t bytes);
int psyne_commit(struct psyne_producer *p, struct psyne_msg *m);
int psyne_commit_next(struct psyne_producer *p, struct psyne_msg *m, int64_t timeout_ns);
int psyne_abort(struct psyne_producer *p, struct psyne_msg *m);
int psyne_claim_n(struct psyne_producer *p, size_t bytes, unsigned n, int64_t timeout_ns, struct psyne_msg ret[]);
int psyne_commit_n(struct psyne_producer *p, struct psyne_msg m[], unsigned n);
int psyne_send(struct psyne_producer *p, uint32_t type, const void *data, size_t bytes, int64_t timeout_ns);
int psyne_sendv(struct psyne_producer *p, uint32_t type, const struct iovec *v, int n, int64_t timeout_ns);
int psyne_flush(struct psyne_producer *p, int64_t timeout_ns);

/* ---- consumer: one member of one group -------------------------------------------------------------------------- */
int psyne_consumer_open(struct psyne_channel *ch, const struct psyne_consumer_opts *opts, struct psyne_consumer **ret);
int psyne_consumer_close(struct psyne_consumer *c);
int psyne_recv(struct psyne_consumer *c, struct psyne_msg *ret, int64_t timeout_ns);
int psyne_recv_n(struct psyne_consumer *c, struct psyne_msg ret[], unsigned n, int64_t timeout_ns);
int psyne_recv_copy(struct psyne_consumer *c, void *buf, size_t cap, uint32_t *type, int64_t timeout_ns);
int psyne_recv_type(struct psyne_consumer *c, uint32_t type, struct psyne_msg *ret, int64_t timeout_ns);
int psyne_recv_latest(struct psyne_consumer *c, struct psyne_msg *ret);
int psyne_release(struct psyne_consumer *c, struct psyne_msg *m);
int psyne_release_n(struct psyne_consumer *c, struct psyne_msg m[], unsigned n);
int psyne_remove(struct psyne_consumer *c, struct psyne_msg *m);                           /* in place: nobody behind gets it */
int psyne_forward(struct psyne_consumer *c, struct psyne_msg *m, struct psyne_producer *to, int64_t timeout_ns); /* copies */

#define PSYNE_ANY_TYPE UINT32_MAX
struct psyne_handler {
        uint32_t type; /* or PSYNE_ANY_TYPE */
        int (*fn)(void *ctx, struct psyne_msg *m); /* 0 = done with it, more = keeps it, less = done, and stop */
        void *ctx;
};
int psyne_dispatch(struct psyne_consumer *c, const struct psyne_handler handlers[], unsigned n, unsigned budget,
        int64_t timeout_ns);

/* ---- pipeline: stages as threads of this process, in place (stages in other processes: follows and in_place above) -- */
struct psyne_pipeline;
enum psyne_stage_error { PSYNE_STAGE_DROP, PSYNE_STAGE_STOP, PSYNE_STAGE_DEAD_LETTER }; /* drop: the message, counted */
typedef int (*psyne_stage_fn)(void *ctx, struct psyne_msg *m); /* 0 = pass it on, more = remove it, -errno = on_error decides */
struct psyne_stage_opts {
        size_t struct_size;
        const char *name;                    /* of its group, default stage1, stage2, ... */
        unsigned workers;                    /* threads, default 1; what they pass on stays in order */
        enum psyne_wait wait;
        enum psyne_stage_error on_error;
        struct psyne_producer *dead_letters; /* gets copies of what failed; of another channel, nobody else's meanwhile */
        const void *cpus;                    /* cpu_set_t its threads run on, of cpus_bytes; NULL = the caller's */
        size_t cpus_bytes;
};
struct psyne_stage_stats {
        size_t struct_size;
        char name[65];
        unsigned workers;
        uint64_t messages, removed, errors, dead_letters; /* given to fn; of those: removed by it, failed, failed and kept */
        uint64_t waited_ns;     /* by all workers, with nothing to do */
        uint64_t backlog_bytes; /* passed by the stage in front and not by this one: the largest backlog is the slow stage's */
};
int psyne_pipeline_new(const char *uri, const struct psyne_opts *opts, struct psyne_pipeline **ret);
int psyne_pipeline_stage(struct psyne_pipeline *p, psyne_stage_fn fn, void *ctx, const struct psyne_stage_opts *opts);
int psyne_pipeline_start(struct psyne_pipeline *p);
struct psyne_producer *psyne_pipeline_input(struct psyne_pipeline *p);
struct psyne_consumer *psyne_pipeline_output(struct psyne_pipeline *p);
int psyne_pipeline_stop(struct psyne_pipeline *p, enum psyne_stop how);                                    /* [any] */
int psyne_pipeline_stats(struct psyne_pipeline *p, unsigned stage, struct psyne_stage_stats *ret);         /* [any] */
struct psyne_pipeline *psyne_pipeline_free(struct psyne_pipeline *p);

/* ---- waiting ---------------------------------------------------------------------------------------------------- */
struct psyne_endpoint *psyne_producer_endpoint(struct psyne_producer *p);
struct psyne_endpoint *psyne_consumer_endpoint(struct psyne_consumer *c);
int psyne_set_wait(struct psyne_endpoint *e, enum psyne_wait wait); /* [any] takes effect at the next wait */
/* In an event loop: arm, sleep until the descriptor is readable, receive (or claim) until -EAGAIN, arm again. */
int psyne_fd(struct psyne_endpoint *e);     /* the endpoint's; for poll and epoll only */
int psyne_arm(struct psyne_endpoint *e);    /* 1 = ready already, do not sleep; 0 = the descriptor will tell */
int psyne_disarm(struct psyne_endpoint *e);
/* In the caller's own io_uring. */
int psyne_arm_sqe(struct psyne_endpoint *e, struct io_uring_sqe *sqe);         /* 1 = ready already, completes at once */
int psyne_complete(struct psyne_endpoint *e, const struct io_uring_cqe *cqe);  /* 1 = ready, 0 = arm again */
/* Many endpoints, descriptors and timers in one wait. */
enum { /* psyne_event.what */
        PSYNE_EVENT_READABLE = 1,  /* a consumer: receive */
        PSYNE_EVENT_WRITABLE = 2,  /* a producer: claim */
        PSYNE_EVENT_STOPPED = 4,   /* either: the channel is, and a consumer has received all */
        PSYNE_EVENT_PEER_GONE = 8, /* either: nobody is left on the other side, and a consumer has received all */
        PSYNE_EVENT_FD = 16,
        PSYNE_EVENT_TIMER = 32,
};
struct psyne_event {
        void *ctx;
        uint32_t what;
        uint32_t poll_events; /* of a descriptor: EPOLLIN and so on */
};
struct psyne_waitset;
int psyne_waitset_new(struct psyne_waitset **ret);
struct psyne_waitset *psyne_waitset_free(struct psyne_waitset *w);
int psyne_waitset_add(struct psyne_waitset *w, struct psyne_endpoint *e, void *ctx);
int psyne_waitset_add_fd(struct psyne_waitset *w, int fd, uint32_t poll_events, void *ctx);
int psyne_waitset_add_timer(struct psyne_waitset *w, int64_t in_ns, int64_t every_ns, void *ctx); /* every 0: once */
int psyne_waitset_remove(struct psyne_waitset *w, void *ctx);
int psyne_waitset_wait(struct psyne_waitset *w, struct psyne_event ret[], unsigned n, int64_t timeout_ns);
int psyne_waitset_wake(struct psyne_waitset *w); /* [any][sig] a wait returns, the one in progress or the next */

/* ---- links: a tcp:// channel has one of its own; any channel may feed more hosts, or receive from them ---------------- */
struct psyne_link;
int psyne_link_open(struct psyne_channel *ch, const char *uri, struct psyne_link **ret); /* [any] */
struct psyne_link *psyne_link_close(struct psyne_link *l);
int psyne_link_port(const struct psyne_link *l); /* [any] of one that listens */

/* ---- watching: struct contents in psyne/info.h ------------------------------------------------------------------- */
struct psyne_info;
struct psyne_metrics;
struct psyne_link_info;
int psyne_info(const struct psyne_channel *ch, struct psyne_info *ret);       /* [any] */
int psyne_metrics(const struct psyne_channel *ch, struct psyne_metrics *ret); /* [any] */
int psyne_links(const struct psyne_channel *ch, struct psyne_link_info *ret, unsigned n);  /* [any] how many; fills in @n */
int psyne_link_info(const struct psyne_link *l, struct psyne_link_info *ret, unsigned n);  /* [any] the same of one */

#include "inline.h" /* fast paths of claim, commit, recv and release; -DPSYNE_NO_INLINE for bindings */

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
#endif
