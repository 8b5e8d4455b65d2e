/*
 * Opening and closing a channel. The first opener decides and creates, later ones adopt what they leave open and are
 * told which value differs where they do not. memory:// and ipc:// differ in where the control pages live and in who
 * hands rings over; everything behind that is one code.
 */
#include "lib/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "shm/group.h"

#include "lib/directory.h"

#define RING_DEFAULT (2ull << 20)
#define OPEN_DEADLINE_NS 10000000000ll /* others creating and sweeping the same name over and over */

/* What one opener asks for: option struct and query merged. Zero = not asked. */
struct wishes {
        uint64_t ring_bytes, ring_asked; /* rounded, and as it was asked for */
        uint32_t mode, align, max_producers, max_consumers, type_id, flags, file_mode;
        uint64_t elem_bytes, type_hash;
        enum psyne_try huge, numa, uring;
        enum psyne_wait wait;
        int64_t linger_ns;
        bool fence, membarrier;
        enum uri_engine engine;
};

static const char *mode_name(uint32_t mode) {
        static const char *const names[] = {"default", "spsc", "mpsc", "spmc", "mpmc", "broadcast"};

        return mode < sizeof(names) / sizeof(names[0]) ? names[mode] : "unknown";
}

static uint64_t round_up_pow2(uint64_t n) {
        return n <= 1 ? 1 : 1ull << (64 - __builtin_clzll(n - 1));
}

static int wishes_merge(struct wishes *w, const struct uri *u, const struct psyne_opts *o) {
        struct sysinfo si;

        *w = (struct wishes){0};
        if (o) {
                if (o->struct_size != sizeof(*o))
                        return error_set(-EINVAL, "psyne_opts.struct_size is %zu, this library's is %zu",
                                o->struct_size, sizeof(*o));
                if (o->mode > PSYNE_BROADCAST || o->huge > PSYNE_REQUIRE || o->numa > PSYNE_REQUIRE ||
                        o->uring > PSYNE_REQUIRE || o->flags & ~(uint32_t)(PSYNE_NO_THREAD | PSYNE_IN_PLACE))
                        return error_set(-EINVAL, "psyne_opts: mode, huge, numa, uring or flags out of range");
                *w = (struct wishes){
                        .ring_bytes = o->ring_bytes,
                        .mode = o->mode,
                        .align = o->record_align,
                        .max_producers = o->max_producers,
                        .max_consumers = o->max_consumers,
                        .type_id = o->type_id,
                        .flags = o->flags,
                        .file_mode = o->file_mode,
                        .elem_bytes = o->elem_bytes,
                        .type_hash = o->type_hash,
                        .huge = o->huge,
                        .numa = o->numa,
                        .uring = o->uring,
                };
        }
        if (uri_has(u, URI_SIZE))
                w->ring_bytes = u->size_bytes;
        if (uri_has(u, URI_MODE))
                w->mode = u->mode;
        if (uri_has(u, URI_ALIGN))
                w->align = u->align_bytes;
        if (uri_has(u, URI_PRODUCERS))
                w->max_producers = u->n_producers;
        if (uri_has(u, URI_CONSUMERS))
                w->max_consumers = u->n_consumers;
        if (uri_has(u, URI_TYPE))
                w->type_id = u->type;
        if (uri_has(u, URI_ELEM))
                w->elem_bytes = u->elem_bytes;
        if (uri_has(u, URI_HASH))
                w->type_hash = u->hash;
        if (uri_has(u, URI_HUGE))
                w->huge = (enum psyne_try)u->huge;
        if (uri_has(u, URI_NUMA))
                w->numa = (enum psyne_try)u->numa;
        if (uri_has(u, URI_URING))
                w->uring = (enum psyne_try)u->uring;
        if (uri_has(u, URI_PERM))
                w->file_mode = u->file_mode;
        if (uri_has(u, URI_INPLACE) && u->in_place)
                w->flags |= PSYNE_IN_PLACE;
        if (uri_has(u, URI_NOTHREAD) && u->nothread)
                w->flags |= PSYNE_NO_THREAD;
        if (uri_has(u, URI_LINGER))
                w->linger_ns = u->linger_ns ? (int64_t)u->linger_ns : 1;
        if (uri_has(u, URI_WAIT))
                w->wait = (enum psyne_wait)(u->wait + PSYNE_WAIT_HYBRID);
        if (uri_has(u, URI_ENGINE))
                w->engine = (enum uri_engine)u->engine;
        if (uri_has(u, URI_BARRIER)) {
                w->fence = u->barrier == URI_BARRIER_FENCE;
                w->membarrier = u->barrier == URI_BARRIER_MEMBARRIER;
        }

        if (w->file_mode && (w->file_mode < 0600 || w->file_mode > 0666))
                return error_set(-ERANGE, "file mode %#o: must lie between 0600 and 0666", w->file_mode);
        if (w->file_mode & 0111)
                return error_set(-EINVAL, "file mode %#o: nobody may execute a control file", w->file_mode);
        if (w->align && (w->align < PSYNE_RECORD_HEADER || w->align > 4096))
                return error_set(-ERANGE, "align=%u: must lie between %u and 4096", w->align, PSYNE_RECORD_HEADER);
        if (w->align & (w->align - 1))
                return error_set(-EINVAL, "align=%u: a power of two is needed", w->align);
        if (w->max_producers > LAYOUT_PRODUCERS_MAX || w->max_consumers > LAYOUT_CONSUMERS_MAX)
                return error_set(-ERANGE, "at most %u producers and %u consumers", LAYOUT_PRODUCERS_MAX,
                        LAYOUT_CONSUMERS_MAX);

        w->ring_asked = w->ring_bytes;
        if (w->ring_bytes) {
                if (sysinfo(&si) == 0 && w->ring_bytes > (uint64_t)si.totalram * si.mem_unit)
                        return error_set(-ENOMEM, "size=%llu is more than this machine's memory",
                                (unsigned long long)w->ring_bytes);
                if (w->ring_bytes > LAYOUT_RING_MAX)
                        return error_set(-ERANGE, "size=%llu: at most %llu", (unsigned long long)w->ring_bytes,
                                LAYOUT_RING_MAX);
                w->ring_bytes = round_up_pow2(w->ring_bytes);
                if (w->ring_bytes < LAYOUT_RING_MIN)
                        w->ring_bytes = LAYOUT_RING_MIN;
                if (w->align && w->align * 4ull > w->ring_bytes)
                        return error_set(-EINVAL, "size=%llu holds fewer than four records of align=%u",
                                (unsigned long long)w->ring_bytes, w->align);
        }
        if (uri_has(u, URI_SIZE) && !w->ring_bytes)
                return error_set(-ERANGE, "size=0: a ring needs memory");
        return 0;
}

/* Wishes against what is there: the first that differs is named, with both values. */
static int wishes_match(const struct wishes *w, const struct layout_config *c) {
        const struct {
                const char *what;
                uint64_t asked, have;
        } rows[] = {
                {"size", w->ring_bytes, c->ring_bytes},
                {"align", w->align, c->record_align},
                {"producers", w->max_producers, c->max_producers},
                {"consumers", w->max_consumers, c->max_consumers},
                {"type", w->type_id, c->type_id},
                {"elem", w->elem_bytes, c->elem_bytes},
                {"hash", w->type_hash, c->type_hash},
        };

        if (w->flags & PSYNE_IN_PLACE && !(c->flags & LAYOUT_CHANNEL_IN_PLACE))
                return error_set(-EMEDIUMTYPE, "%s has sealed rings, inplace=1 was asked for", c->name);
        if (w->mode && w->mode != c->mode)
                return error_set(-EMEDIUMTYPE, "%s has mode=%s, mode=%s was asked for", c->name, mode_name(c->mode),
                        mode_name(w->mode));
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
                if (rows[i].asked && rows[i].asked != rows[i].have)
                        return error_set(-EMEDIUMTYPE, "%s has %s=%llu, %s=%llu was asked for", c->name, rows[i].what,
                                (unsigned long long)rows[i].have, rows[i].what, (unsigned long long)rows[i].asked);
        return 0;
}

/* ---- identity --------------------------------------------------------------------------------------------------- */

static uint64_t start_time_self(void) {
        char text[1024], *at;
        uint64_t ticks = 0;
        int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
        ssize_t n;

        if (fd < 0)
                return 0;
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
        if (n <= 0)
                return 0;
        text[n] = '\0';
        at = strrchr(text, ')'); /* the name may hold anything */
        for (unsigned field = 2; at && field < 22; field++)
                at = strchr(at + 1, ' ');
        if (at)
                ticks = strtoull(at + 1, NULL, 10);
        return ticks;
}

static uint64_t pidns_self(void) {
        struct stat st;

        return stat("/proc/self/ns/pid", &st) == 0 ? (uint64_t)st.st_ino : 0;
}

static void boot_id(uint64_t ret[2]) {
        char text[64] = "";
        unsigned char bytes[16] = {0};
        unsigned n = 0;
        int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

        if (fd >= 0) {
                if (read(fd, text, sizeof(text) - 1) < 0)
                        text[0] = '\0';
                close(fd);
        }
        for (const char *at = text; at[0] && at[1] && n < 16; at += 2) {
                while (*at == '-')
                        at++;
                if (sscanf(at, "%2hhx", &bytes[n]) != 1)
                        break;
                n++;
        }
        memcpy(ret, bytes, sizeof(bytes));
}

static void comm_self(char to[16]) {
        char text[32] = "";
        int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);

        if (fd >= 0) {
                if (read(fd, text, sizeof(text) - 1) < 0)
                        text[0] = '\0';
                close(fd);
        }
        text[strcspn(text, "\n")] = '\0';
        snprintf(to, 16, "%.15s", text);
}

/* ---- control pages ---------------------------------------------------------------------------------------------- */

static void config_fill(struct layout_config *c, const struct wishes *w, const char *name) {
        *c = (struct layout_config){
                .ring_bytes = w->ring_bytes ? w->ring_bytes : RING_DEFAULT,
                .record_align = w->align ? w->align : 64,
                .mode = w->mode ? w->mode : PSYNE_SPSC,
                .max_producers = w->max_producers ? w->max_producers : 8,
                .max_consumers = w->max_consumers ? w->max_consumers : 8,
                .type_id = w->type_id,
                .flags = w->flags & PSYNE_IN_PLACE ? LAYOUT_CHANNEL_IN_PLACE : 0,
                .elem_bytes = w->elem_bytes,
                .type_hash = w->type_hash,
                .created_ns = clock_realtime_ns(),
                .creator_start = start_time_self(),
                .creator_pidns = pidns_self(),
                .creator_pid = (uint32_t)getpid(),
                .creator_uid = (uint32_t)geteuid(),
                .huge = w->huge,
                .numa = w->numa,
                .uring = w->uring,
        };
        boot_id(c->boot_id);
        if (getrandom(&c->instance, sizeof(c->instance), GRND_NONBLOCK) < 0)
                c->instance = c->created_ns;
        snprintf(c->name, sizeof(c->name), "%s", name);
}

/* A fresh, zeroed mapping becomes a channel: header, the default group that keeps messages from the start. */
static void pages_init(void *map, const struct layout_config *config) {
        struct layout_header *h = map;
        struct layout_view v;

        layout_init(h, config);
        layout_view_init(&v, map, h);
        for (uint32_t g = 0; g < v.n_groups; g++)
                v.groups[g].follows = -1; /* a row that is being made follows nothing yet */
        if (config->mode != PSYNE_BROADCAST) { /* there it is each reader's own */
                v.groups[0] = (struct layout_group){
                        .state = LAYOUT_ACTIVE,
                        .generation = 1,
                        .kind = config->mode == PSYNE_SPMC || config->mode == PSYNE_MPMC ? LAYOUT_GROUP_SHARED
                                                                                         : LAYOUT_GROUP_EXCLUSIVE,
                        .follows = -1,
                        .name = GROUP_DEFAULT,
                };
                h->groups_active = 1;
        } else
                group_unheard(&v);
        FAULT_POINT("create.publish");
        layout_publish(h);
}

/* Takes our row of the participant table; the slot's lock is ours already. */
static void peer_join(struct psyne_channel *ch) {
        struct layout_peer *p = &ch->view.peers[ch->slot];
        uint32_t old = p->generation;
        const char *why, *fix;

        /* A predecessor nobody cleared up after: its lanes and members are named by its generation. */
        if (__atomic_load_n(&p->state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE)
                membership_died(ch, ch->slot, old);
        p->pid = (uint32_t)getpid();
        p->uid = (uint32_t)geteuid();
        p->start_time = start_time_self();
        p->pidns = pidns_self();
        p->capabilities = (process_has_membarrier() ? LAYOUT_CAN_MEMBARRIER : 0u);
        p->joined_ns = clock_realtime_ns();
        p->engine = park_probe(&why, &fix);
        comm_self(p->comm);
        __atomic_store_n(&p->generation, old + 1, __ATOMIC_RELEASE);
        FAULT_POINT("peer.joining");
        __atomic_store_n(&p->state, LAYOUT_ACTIVE, __ATOMIC_SEQ_CST);
}

static int open_memory(struct psyne_channel *ch, const struct wishes *w) {
        struct layout_config config;
        struct layout_region regions[LAYOUT_N_REGIONS];
        struct layout_limits limits;
        char name[96];
        uint64_t bytes;
        void *map;
        int fd, r;

        config_fill(&config, w, ch->name[0] ? ch->name : "anonymous");
        limits = (struct layout_limits){config.max_producers, config.max_consumers};
        bytes = layout_compute(&limits, regions);
        snprintf(name, sizeof(name), "psyne-control:%s", ch->name);
        fd = memfd_create(name, MFD_CLOEXEC);
        if (fd < 0)
                return error_set(-errno, "memfd_create: %s", strerror(errno));
        r = ftruncate(fd, (off_t)bytes) < 0 ? -errno : segment_reserve(fd, bytes);
        if (r < 0) {
                close(fd);
                return error_set(r, "no memory for %llu bytes of control pages: %s", (unsigned long long)bytes,
                        strerror(-r));
        }
        map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        r = -errno;
        close(fd);
        if (map == MAP_FAILED)
                return error_set(r, "mapping control pages: %s", strerror(-r));
        pages_init(map, &config);
        ch->map = map;
        ch->map_bytes = bytes;
        layout_view_init(&ch->view, map, map);
        ch->slot = 0;
        return 0;
}

struct open_context {
        const struct wishes *wishes;
        struct layout_config config;
        struct layout_header found;
};

static int entry_init_pages(void *map, size_t size, unsigned slot, void *ctx) {
        struct open_context *o = ctx;

        (void)size, (void)slot;
        pages_init(map, &o->config);
        memcpy(&o->found, map, sizeof(o->found)); /* now: once it has its name, others may have scribbled over it */
        return 0;
}

static int entry_check_pages(int fd, size_t size, void *ctx) {
        struct open_context *o = ctx;
        ssize_t n = pread(fd, &o->found, sizeof(o->found), 0);
        int r;

        if (n != (ssize_t)sizeof(o->found))
                return error_set(-EBADMSG, "the control file is shorter than its own header");
        r = layout_validate(&o->found, size);
        if (r == -EAGAIN) /* a name appears with its contents complete: this one was spoilt later */
                return error_set(-EBADMSG, "the control file is damaged: it says that it is not complete");
        if (r < 0)
                return r;
        return (int)o->found.regions[LAYOUT_REGION_PEERS].n;
}

static int open_ipc(struct psyne_channel *ch, const struct uri *u, const struct wishes *w) {
        struct layout_limits limits;
        struct layout_region regions[LAYOUT_N_REGIONS];
        struct open_context o = {.wishes = w};
        struct entry_ops ops = {
                .init = entry_init_pages,
                .check = entry_check_pages,
                .ctx = &o,
                .size_min = sizeof(struct layout_header),
        };
        uint64_t bytes;
        int r;

        r = directory_open(u->dir, &ch->dirfd, NULL, 0);
        if (r < 0)
                return r;
        config_fill(&o.config, w, ch->name);
        limits = (struct layout_limits){o.config.max_producers, o.config.max_consumers};
        bytes = layout_compute(&limits, regions);
        ops.n_slots = regions[LAYOUT_REGION_PEERS].n;
        r = entry_open(ch->dirfd, ch->name, w->file_mode ? w->file_mode : 0600, bytes, &ops,
                clock_ns() + OPEN_DEADLINE_NS, &ch->entry);
        if (r < 0)
                return r;
        /* What was made or judged last is the file that we are in now; from its header's copy, never from the page. */
        ch->map = ch->entry.map;
        ch->map_bytes = ch->entry.size;
        layout_view_init(&ch->view, ch->map, &o.found);
        ch->slot = ch->entry.slot;
        return wishes_match(w, &ch->view.config);
}

static void channel_free(struct psyne_channel *ch) {
        if (ch->service) /* first: its thread tells links of deaths */
                service_leave(ch);
        link_leave(ch);
        membership_forget_lanes(ch, segment_deinit);
        bells_close(ch);
        if (ch->scheme == URI_IPC) {
                if (ch->entry.fd >= 0 && !ch->forked) {
                        struct layout_peer *p = &ch->view.peers[ch->slot];

                        if (ch->view.header && __atomic_load_n(&p->state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE)
                                __atomic_store_n(&p->state, LAYOUT_FREE, __ATOMIC_RELEASE);
                        FAULT_POINT("close.leaving");
                        (void)entry_leave(ch->dirfd, ch->name, &ch->entry);
                } else
                        entry_close(&ch->entry);
                if (ch->dirfd >= 0)
                        close(ch->dirfd);
        } else if (ch->map)
                munmap(ch->map, ch->map_bytes);
        pthread_mutex_destroy(&ch->lock);
        free(ch);
}

static void channel_freep(struct psyne_channel **ch) {
        if (*ch)
                channel_free(*ch);
}

static void channel_facts(struct psyne_channel *ch, const struct wishes *w) {
        char asked[24], obtained[24];

        snprintf(obtained, sizeof(obtained), "%llu", (unsigned long long)ch->view.config.ring_bytes);
        snprintf(asked, sizeof(asked), "%llu", (unsigned long long)(w->ring_asked ? w->ring_asked : ch->view.config.ring_bytes));
        layout_fact_set(&ch->view, LAYOUT_SCOPE_CHANNEL, 0, "ring", asked, obtained,
                w->ring_asked && w->ring_asked != ch->view.config.ring_bytes ? "rounded up to a power of two" : "", "");
        layout_fact_set(&ch->view, LAYOUT_SCOPE_CHANNEL, 0, "barrier", w->fence ? "fence" : "membarrier",
                ch->view.header->barrier_fence ? "fence" : "membarrier",
                ch->view.header->barrier_fence && !w->fence ? "a participant may not call membarrier" : "",
                ch->view.header->barrier_fence && !w->fence ? "allow membarrier in the seccomp profile" : "");
}

/*
 * Opens a channel by address, creating it if nobody is in it, and returns without waiting for anybody. Close with
 * psyne_close(). memory://NAME gives every opener of the process the same channel.
 *
 * -EINVAL: address, key or option; -ENAMETOOLONG; -EMEDIUMTYPE: exists with another value, the sentence names both;
 * -EPROTO: another layout version, or no control file at all; -EBADMSG: it is damaged; -ERANGE: a number; -EACCES; -EUSERS: all slots are taken;
 * -ENOTSUP: a `require` that cannot be met, or a mode that is not built; -ENOSPC, -ENOMEM, -EMFILE; -ENOENT,
 * -ENOTDIR, -EXDEV: the directory is missing, none, or not on tmpfs; -ETIME: others kept making and sweeping the name.
 */
int psyne_open(const char *uri, const struct psyne_opts *opts, struct psyne_channel **ret) {
        CANCEL_HOLD;
        _cleanup_(channel_freep) struct psyne_channel *ch = NULL;
        struct psyne_channel *found;
        _cleanup_(cleanup_freep) struct uri *u = NULL;
        struct wishes w;
        enum park_engine asked;
        const char *why, *fix;
        int r;

        if (!uri || !ret)
                return error_set(-EINVAL, "psyne_open: no address or no result");
        error_clear();
        u = malloc(sizeof(*u)); /* holds a path: too large for small stacks */
        if (!u)
                return error_set(-ENOMEM, "no memory for an address");
        r = uri_parse(uri, u);
        if (r < 0)
                return r;
        if (u->set & URI_ADDED_KEYS)
                return error_set(-EINVAL, "group, behind and eject are for links that are added (psyne_link_open)");
        r = wishes_merge(&w, u, opts);
        if (r < 0)
                return r;
        r = process_init();
        if (r < 0)
                return r;
        asked = w.engine == URI_ENGINE_FUTEX || w.uring == PSYNE_NEVER ? PARK_FUTEX :
                w.engine == URI_ENGINE_EVENTFD                        ? PARK_EVENTFD :
                                                                        PARK_URING;
        if (w.engine == URI_ENGINE_EVENTFD && w.flags & PSYNE_NO_THREAD)
                return error_set(-ENOTSUP, "engine=eventfd cannot be had with nothread=1: nobody would hand eventfds over");
        if (asked != PARK_URING)
                park_force(asked);
        if (w.engine == URI_ENGINE_EVENTFD && park_probe(&why, &fix) != PARK_EVENTFD)
                return error_set(-ENOTSUP, "engine=eventfd cannot be had: %s", why);
        if (w.engine == URI_ENGINE_URING && park_probe(&why, &fix) != PARK_URING)
                return error_set(-ENOTSUP, "engine=uring cannot be had: %s", why);
        if (w.uring == PSYNE_REQUIRE && (park_probe(&why, &fix) == PARK_FUTEX ||
                                                (w.flags & PSYNE_NO_THREAD && park_probe(&why, &fix) == PARK_EVENTFD)))
                return error_set(-ENOTSUP, "io_uring is required and cannot be had: %s", why);

        if (w.membarrier && !process_has_membarrier())
                return error_set(-ENOTSUP, "barrier=membarrier: the kernel or a seccomp profile refuses it");

        ch = calloc(1, sizeof(*ch));
        if (!ch)
                return error_set(-ENOMEM, "no memory for a channel");
        pthread_mutex_init(&ch->lock, NULL);
        ch->references = 1;
        ch->scheme = u->scheme;
        ch->dirfd = -1;
        ch->entry.fd = -1;
        for (unsigned i = 0; i < LAYOUT_PRODUCERS_MAX; i++)
                ch->lanes[i].segment = SEGMENT_NULL;
        snprintf(ch->name, sizeof(ch->name), "%s", u->name);
        if (u->scheme == URI_TCP)
                link_uri(u, ch->uri, sizeof(ch->uri));
        else
                snprintf(ch->uri, sizeof(ch->uri), "%s://%s", u->scheme == URI_MEMORY ? "memory" : "ipc", u->name);
        ch->flags = w.flags;
        ch->wait = w.wait ? w.wait : PSYNE_WAIT_HYBRID;
        ch->linger_ns = w.linger_ns;
        ch->engine = asked;

        if (u->scheme == URI_MEMORY) {
                process_lock();
                found = u->name[0] ? process_find(u->name) : NULL;
                if (found) {
                        r = wishes_match(&w, &found->view.config);
                        if (r == 0)
                                found->references++;
                        process_unlock();
                        if (r < 0)
                                return r;
                        *ret = found;
                        return 0;
                }
                r = open_memory(ch, &w);
                if (r < 0) {
                        process_unlock();
                        return r;
                }
        } else if (u->scheme == URI_TCP) {
                struct wishes local = w;

                /* The sending end has one reader, the link, whatever the mode is at the other. */
                if (u->role == URI_ROLE_CONNECT && w.mode)
                        local.mode = w.mode == PSYNE_MPSC || w.mode == PSYNE_MPMC ? PSYNE_MPSC : PSYNE_SPSC;
                r = open_memory(ch, &local);
                if (r < 0)
                        return r;
        } else {
                r = open_ipc(ch, u, &w);
                if (r < 0)
                        return r;
        }
        ch->huge = w.huge ? w.huge : (enum psyne_try)(ch->view.config.huge & 3);
        ch->numa = w.numa ? w.numa : (enum psyne_try)(ch->view.config.numa & 3);
        peer_join(ch);
        if (w.fence || !process_has_membarrier())
                __atomic_store_n(&ch->view.header->barrier_fence, 1, __ATOMIC_SEQ_CST);
        ch->fence = __atomic_load_n(&ch->view.header->barrier_fence, __ATOMIC_SEQ_CST);
        channel_facts(ch, &w);
        if (u->scheme == URI_IPC) {
                r = service_join(ch);
                if (r < 0)
                        return r;
                process_lock();
        } else if (u->scheme == URI_TCP) {
                r = link_join(ch, u, w.mode);
                if (r < 0)
                        return r;
                process_lock();
        }
        process_add(ch);
        process_unlock();
        *ret = ch;
        ch = NULL;
        return 0;
}

struct psyne_channel *channel_ref(struct psyne_channel *ch) {
        process_lock();
        ch->references++;
        process_unlock();
        return ch;
}

struct psyne_channel *channel_unref(struct psyne_channel *ch) {
        bool last;

        if (!ch)
                return NULL;
        process_lock();
        last = --ch->references == 0;
        if (last)
                process_remove(ch);
        process_unlock();
        if (last)
                channel_free(ch);
        return NULL;
}

/* Gives the caller's reference back; open producers and consumers keep the channel alive. Accepts NULL, returns NULL. */
struct psyne_channel *psyne_close(struct psyne_channel *ch) {
        CANCEL_HOLD;
        return channel_unref(ch);
}

int channel_check(const struct psyne_channel *ch) {
        if (ch->forked)
                return error_set(-EOWNERDEAD, "%s came through fork(); it belongs to the parent", ch->uri);
        return 0;
}

uint32_t channel_stop_state(const struct psyne_channel *ch) {
        return (uint32_t)(__atomic_load_n(&ch->view.header->stop, __ATOMIC_ACQUIRE) & 3);
}

/*
 * Stops the channel for everyone, for good: sends are refused, sleepers in every process wake. PSYNE_DRAIN lets
 * readers take what is there; PSYNE_ABORT also ends lingering closes. Idempotent; DRAIN can become ABORT, not the
 * other way. Any thread, any signal handler; a PSYNE_NO_THREAD channel's sleepers that go by eventfds (engine=) may wake at
 * its next psyne_poll() or close only. -EINVAL, -EOWNERDEAD.
 */
int psyne_stop(struct psyne_channel *ch, enum psyne_stop how) {
        uint64_t *word, old, wanted = how == PSYNE_ABORT ? 2 : 1;

        if (!ch || (how != PSYNE_DRAIN && how != PSYNE_ABORT))
                return -EINVAL;
        if (ch->forked)
                return -EOWNERDEAD;
        word = &ch->view.header->stop;
        old = __atomic_load_n(word, __ATOMIC_ACQUIRE);
        while ((old & 3) < wanted)
                if (__atomic_compare_exchange_n(word, &old, (old & ~3ull) | wanted, false, __ATOMIC_SEQ_CST,
                            __ATOMIC_ACQUIRE))
                        break;
        wake_everyone(ch);
        link_changed(ch);
        return 0;
}

/* Any thread, any signal handler: 1 once psyne_stop() was called by anyone, else 0. */
int psyne_is_stopped(const struct psyne_channel *ch) {
        return ch && !ch->forked && (__atomic_load_n(&ch->view.header->stop, __ATOMIC_RELAXED) & 3) != 0;
}

static void count_peers(const struct psyne_channel *ch, unsigned *producers, unsigned *consumers) {
        const struct layout_view *v = &ch->view;

        *producers = *consumers = 0;
        for (uint32_t i = 0; i < v->n_lanes; i++)
                *producers += __atomic_load_n(&v->lanes[i].state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE;
        for (uint32_t i = 0; i < v->n_members; i++)
                *consumers += __atomic_load_n(&v->members[i].state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE;
}

/* [any thread] Waits until at least so many producers and consumers are open, in any process. -ETIME, -EAGAIN with a
 * zero timeout, -EINTR, -ESHUTDOWN. */
int psyne_wait_peers(struct psyne_channel *ch, unsigned producers, unsigned consumers, int64_t timeout_ns) {
        CANCEL_HOLD;
        unsigned have_producers, have_consumers;
        int64_t deadline = 0;
        uint32_t event;
        int r;

        if (!ch)
                return error_set(-EINVAL, "psyne_wait_peers: no channel");
        r = channel_check(ch);
        if (r < 0)
                return r;
        if (timeout_ns != PSYNE_NOWAIT)
                deadline = clock_deadline_ns(timeout_ns);
        for (;;) {
                event = __atomic_load_n(&ch->view.header->peers_event, __ATOMIC_ACQUIRE);
                count_peers(ch, &have_producers, &have_consumers);
                if (have_producers >= producers && have_consumers >= consumers)
                        return 0;
                if (channel_stop_state(ch))
                        return error_set(-ESHUTDOWN, "%s is stopped", ch->uri);
                r = link_refused(ch);
                if (r < 0)
                        return r;
                if (timeout_ns == PSYNE_NOWAIT)
                        return error_set(-EAGAIN, "%u of %u producers and %u of %u consumers are there", have_producers,
                                producers, have_consumers, consumers);
                r = park_wait(&ch->view.header->peers_event, event, deadline);
                if (r == -ETIME || (r == 0 && clock_ns() >= deadline)) /* a word that never rests does not hold us */
                        return error_set(-ETIME, "%u of %u producers and %u of %u consumers came in time",
                                have_producers, producers, have_consumers, consumers);
                if (r < 0)
                        return error_set(r, "waiting for peers: %s", strerror(-r));
        }
}

/* PSYNE_NO_THREAD channels only: serves peers for up to @timeout_ns. Returns how many events it handled. -EINVAL: the
 * channel has a service thread, or is memory://, which needs none. */
int psyne_poll(struct psyne_channel *ch, int64_t timeout_ns) {
        CANCEL_HOLD;
        int r;

        if (!ch)
                return error_set(-EINVAL, "psyne_poll: no channel");
        r = channel_check(ch); /* before what it is for: the same answer for every inherited handle */
        if (r < 0)
                return r;
        if (!(ch->flags & PSYNE_NO_THREAD) || (ch->scheme == URI_MEMORY && !__atomic_load_n(&ch->linked, __ATOMIC_ACQUIRE))) /* there is nobody to serve */
                return error_set(-EINVAL, "psyne_poll is for ipc:// and tcp:// channels opened with PSYNE_NO_THREAD");
        return ch->scheme == URI_IPC ? service_poll(ch, timeout_ns) : link_poll(ch, timeout_ns);
}
