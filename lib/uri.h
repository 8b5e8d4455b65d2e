/*
 * A channel's address, taken apart: scheme, directory, name, and the options asked for in the query.
 *
 *      memory://NAME   memory://                 threads of one process; without a name: anonymous
 *      ipc://NAME      ipc:///ABS/DIR/NAME       processes of one host, meeting in the default or that directory
 *      tcp://HOST:PORT/NAME                      this end connects; what it sends is read at the other
 *      tcp://:PORT/NAME                          this end listens, for this host only; tcp://ADDRESS:PORT for others, too
 *      ...?size=16M&mode=mpsc&wait=block         options; each at most once
 *
 * Parsing is strict: what is not understood is refused with a sentence naming it, never ignored, because an
 * option that silently does nothing is found months later. Only the text is judged here; whether a size is a
 * power of two or 65 producers fit is the opener's business, who gets the same numbers from option structs too.
 */
#ifndef PSYNE_URI_H
#define PSYNE_URI_H
#include <linux/limits.h>
#include <stdbool.h>
#include <stdint.h>

#define URI_NAME_MAX 64      /* characters, the end mark not counted */
#define URI_DIR_MAX PATH_MAX /* bytes, the end mark counted */

#define URI_HOST_MAX 253     /* characters */
#define URI_PORT_MAX 32

enum uri_scheme { URI_MEMORY, URI_IPC, URI_TCP };

/* Which option; bit 1 << key of `set` says that it was asked for. */
enum uri_key {
        URI_SIZE,
        URI_MODE,
        URI_ALIGN,
        URI_PRODUCERS,
        URI_CONSUMERS,
        URI_TYPE,
        URI_ELEM,
        URI_HASH,
        URI_HUGE,
        URI_NUMA,
        URI_URING,
        URI_WAIT,
        URI_PERM,
        URI_LINGER,
        URI_INPLACE,
        URI_NOTHREAD,
        URI_METRICS,
        URI_ENGINE,
        URI_BARRIER,
        URI_ROLE,
        URI_SNDBUF,
        URI_RCVBUF,
        URI_RESUME,
        URI_KEY,
        URI_INLINE,
        URI_ZEROCOPY,
        URI_CHECKSUM,
        URI_PRESET,
        URI_QUICKACK,
        URI_GROUP,
        URI_BEHIND,
        URI_EJECT,
        URI_N_KEYS,
};

/* Of a link that is added to a channel (psyne_link_open()), and those of any link. */
#define URI_ADDED_KEYS (1ull << URI_GROUP | 1ull << URI_BEHIND | 1ull << URI_EJECT)
#define URI_LINK_KEYS \
        (1ull << URI_ROLE | 1ull << URI_SNDBUF | 1ull << URI_RCVBUF | 1ull << URI_RESUME | 1ull << URI_KEY | 1ull << URI_INLINE | \
                1ull << URI_PRESET | 1ull << URI_ZEROCOPY | 1ull << URI_CHECKSUM | 1ull << URI_QUICKACK | URI_ADDED_KEYS)

/* The words, numbered like their public twins (enum psyne_mode, psyne_try, psyne_wait, psyne_behind), so that they copy over. */
enum uri_mode { URI_MODE_SPSC = 1, URI_MODE_MPSC, URI_MODE_SPMC, URI_MODE_MPMC, URI_MODE_BROADCAST };
enum uri_try { URI_TRY = 1, URI_NEVER, URI_REQUIRE };
enum uri_wait { URI_WAIT_HYBRID, URI_WAIT_SPIN, URI_WAIT_BLOCK };
enum uri_engine { URI_ENGINE_AUTO, URI_ENGINE_URING, URI_ENGINE_FUTEX, URI_ENGINE_EVENTFD };
enum uri_role { URI_ROLE_CONNECT = 1, URI_ROLE_LISTEN };
enum uri_behind { URI_BEHIND_BLOCKS = 1, URI_BEHIND_EJECTED = 3 };
enum uri_preset { URI_PRESET_LATENCY = 1, URI_PRESET_THROUGHPUT };
enum uri_barrier { URI_BARRIER_AUTO, URI_BARRIER_FENCE, URI_BARRIER_MEMBARRIER };

/* A value means something only where its bit in `set` is on; elsewhere it is 0. */
struct uri {
        enum uri_scheme scheme;
        char dir[URI_DIR_MAX];       /* ipc: absolute; "" = the default directory */
        char name[URI_NAME_MAX + 1]; /* "" = anonymous, memory only */
        char host[URI_HOST_MAX + 1]; /* tcp, without brackets; "" = this host */
        char key_file[URI_DIR_MAX];  /* tcp: a path */
        char group[URI_NAME_MAX + 1]; /* tcp */
        char port[URI_PORT_MAX + 1]; /* tcp: a number or a service */
        uint64_t set;
        uint64_t size_bytes; /* per lane, 1 or more */
        uint64_t elem_bytes; /* 1 or more */
        uint64_t hash;
        uint64_t linger_ns;   /* at most INT64_MAX */
        uint32_t align_bytes; /* 1 or more */
        uint32_t n_producers; /* 1 or more */
        uint32_t n_consumers; /* 1 or more */
        uint32_t type;
        uint32_t file_mode; /* permission bits, the owner's read and write among them, nobody's execute */
        uint32_t mode;      /* enum uri_mode */
        uint32_t huge;      /* enum uri_try, like the next two */
        uint32_t numa;
        uint32_t uring;
        uint32_t wait;     /* enum uri_wait */
        uint32_t engine;   /* enum uri_engine */
        uint32_t barrier;  /* enum uri_barrier */
        uint32_t role;     /* enum uri_role; tcp: always told */
        uint32_t send_buffer, receive_buffer; /* bytes, of the kernel's */
        uint64_t resume_ns; /* how long a broken connection is waited for */
        uint64_t eject_ns;  /* 1 or more */
        uint32_t in_place; /* 0 or 1 */
        uint32_t nothread; /* 0 or 1, like the next */
        uint32_t metrics;
        uint32_t inlined;
        uint32_t zerocopy; /* enum uri_try */
        uint32_t unchecked;
        uint32_t quick_ack; /* 0 or 1 */
        uint32_t preset; /* enum uri_preset */
        uint32_t behind; /* enum uri_behind */
};

/*
 * -EINVAL malformed, unknown scheme or key, key given twice; -ENAMETOOLONG name or directory; -ERANGE a number
 * its field cannot hold. error_get() has the sentence.
 */
int uri_parse(const char *text, struct uri *ret);

/* 1 to 64 of [A-Za-z0-9._-], the first not a dot. */
bool uri_name_valid(const char *name);

static inline bool uri_has(const struct uri *u, enum uri_key key) {
        return (u->set >> key) & 1;
}
#endif
