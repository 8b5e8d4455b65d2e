/*
 * What the tests of this room share: a lane with its control pages and a reader of its own, made of memory that
 * nobody else sees. The reader goes through a read-only import of the ring, so a reader that writes dies, and what
 * lies behind the second map is not mapped, so an access out of bounds dies too.
 */
#ifndef PSYNE_TESTS_SHM_SUPPORT_H
#define PSYNE_TESTS_SHM_SUPPORT_H
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "shm/lane.h"

struct fixture {
        _Alignas(LANE_HANDLE_ALIGN) struct lane_tx tx;
        _Alignas(LANE_HANDLE_ALIGN) struct lane_rx rx;
        struct segment writer, reader;
        struct layout_header *control;
        size_t control_bytes;
        struct layout_view view;
        uint64_t ring, align, start;
        uint32_t held_max;
};

/* Set-up that fails is no test result: it dies with a line that says where. */
#define must(condition)                                                                                                \
        do {                                                                                                           \
                if (!(condition)) {                                                                                    \
                        fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, error_get());               \
                        abort();                                                                                       \
                }                                                                                                      \
        } while (0)

#ifndef FIXTURE_CONSUMERS
#define FIXTURE_CONSUMERS 2
#endif

static inline struct layout_config fixture_config(uint64_t ring, uint64_t align) {
        return (struct layout_config){
                .ring_bytes = ring,
                .record_align = (uint32_t)align,
                .mode = PSYNE_SPSC,
                .max_producers = 1,
                .max_consumers = FIXTURE_CONSUMERS,
                .name = "test",
        };
}

static inline void fixture_control(struct fixture *f, uint64_t ring, uint64_t align) {
        struct layout_config config = fixture_config(ring, align);
        struct layout_limits limits = {config.max_producers, config.max_consumers};
        struct layout_region regions[LAYOUT_N_REGIONS];
        void *at;

        f->control_bytes = layout_compute(&limits, regions);
        at = mmap(NULL, f->control_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        must(at != MAP_FAILED);
        f->control = at;
        layout_init(f->control, &config);
        layout_publish(f->control);
        must(layout_validate(f->control, f->control_bytes) == 0);
        layout_view_init(&f->view, f->control, f->control);
}

/* A fresh ring whose first record starts at @start, one group that counts, and its reader. */
static inline void fixture_init(struct fixture *f, uint64_t ring, uint64_t align, uint64_t start) {
        const struct segment_wish wish = {.huge = PSYNE_NEVER, .numa = PSYNE_NEVER};
        struct segment_report report;
        struct layout_cursor *c;
        int fd;

        memset(f, 0, sizeof(*f));
        f->ring = ring;
        f->align = align;
        f->start = start;
        f->held_max = LANE_HELD_MAX;
        fixture_control(f, ring, align);
        must(segment_new(&f->writer, "test", ring, &wish, &report) == 0);
        fd = fcntl(f->writer.fd, F_DUPFD_CLOEXEC, 0);
        must(segment_import(&f->reader, fd, ring, false, NULL) == 0);
        c = layout_cursor(&f->view, 0, 0);
        c->exact.released = c->exact.taken = c->published = start;
        f->control->groups_active = 1;
        lane_tx_init(&f->tx, &f->view, 0, f->writer.base, start);
        must(lane_rx_init(&f->rx, &f->view, 0, 0, f->reader.base, ring, f->held_max) == 0);
}

static inline void fixture_deinit(struct fixture *f) {
        segment_deinit(&f->writer);
        segment_deinit(&f->reader);
        munmap(f->control, f->control_bytes);
}

/* What is left of a reader that died: its cursor. The next one knows nothing else. */
static inline int fixture_reader_dies(struct fixture *f) {
        memset(&f->rx, 0xee, sizeof(f->rx));
        return lane_rx_init(&f->rx, &f->view, 0, 0, f->reader.base, f->ring, f->held_max);
}

/* As psyne_claim(), without waiting. */
static inline bool lane_claim(struct lane_tx *t, size_t bytes, struct psyne_msg *ret) {
        if (psyne_lane_claim(&t->hot, bytes, ret))
                return true;
        lane_tx_refresh(t, true);
        return psyne_lane_claim(&t->hot, bytes, ret);
}

/* As psyne_commit(), without the wake. */
static inline int lane_commit(struct lane_tx *t, struct psyne_msg *m) {
        uint64_t stride = psyne_lane_commit(&t->hot, m);
        int r = 0;

        if (!stride) {
                stride = m->opaque[1] - m->opaque[0];
                r = lane_tx_commit(t, m);
        }
        if (r == 0 && t->hot.head == t->hot.tail)
                psyne_lane_extend(&t->hot, stride);
        return r;
}

static inline int lane_recv(struct lane_rx *x, struct psyne_msg *ret) {
        return psyne_lane_recv(&x->hot, ret) ? 1 : lane_rx_take(x, ret);
}

static inline int lane_release(struct lane_rx *x, struct psyne_msg *m) {
        return psyne_lane_release(&x->hot, m) ? 0 : lane_rx_release(x, m);
}

/* The worst payload there is: every word of it looks like the header of a small record. */
static inline void fill_like_records(void *data, size_t bytes, uint32_t seed, uint64_t align) {
        unsigned char *at = data;

        for (size_t i = 0; i < bytes; i += sizeof(struct psyne_record)) {
                struct psyne_record r = {
                        .commit = (uint32_t)(align * (1 + (seed + i) % 3)),
                        .bytes = (uint32_t)((seed ^ i) % (align - PSYNE_RECORD_HEADER + 1)),
                        .kind = (seed * 2654435761u) ^ (uint32_t)i,
                };

                memcpy(at + i, &r, bytes - i < sizeof(r) ? bytes - i : sizeof(r));
        }
}

static inline bool is_filled_like(const void *data, size_t bytes, uint32_t seed, uint64_t align) {
        unsigned char want[64];

        for (size_t i = 0; i < bytes; i += sizeof(struct psyne_record)) {
                struct psyne_record r = {
                        .commit = (uint32_t)(align * (1 + (seed + i) % 3)),
                        .bytes = (uint32_t)((seed ^ i) % (align - PSYNE_RECORD_HEADER + 1)),
                        .kind = (seed * 2654435761u) ^ (uint32_t)i,
                };

                memcpy(want, &r, sizeof(r));
                if (memcmp((const unsigned char *)data + i, want, bytes - i < sizeof(r) ? bytes - i : sizeof(r)) != 0)
                        return false;
        }
        return true;
}

/*
 * Clear-ahead as the top of psyne/inline.h states it: words in [tail, frontier) are zero but for the payload of open
 * claims, the word at the tail always is, the frontier covers the tail's cell and stays within the limit, and the
 * limit within a ring of the exact released position. @open: claims. NULL = it holds, else what does not.
 */
static inline const char *clear_ahead_broken(const struct fixture *f, const struct lane_span open[], unsigned n_open) {
        const struct psyne_hot_tx *h = &f->tx.hot;
        uint64_t released = layout_cursor(&f->view, 0, 0)->exact.released;

        if (h->frontier - h->tail < h->align || h->frontier - h->tail > 2 * f->ring)
                return "the frontier does not cover the tail's word";
        if (h->frontier - h->tail > h->limit - h->tail)
                return "the frontier passes the limit";
        if (h->limit - h->tail > released + f->ring - h->tail)
                return "the limit lies more than a ring past what is released";
        if (h->head - h->tail > h->limit - h->tail - h->align)
                return "claims reach into the last cell";
        for (uint64_t n = 0; n < h->frontier - h->tail; n += h->align) {
                uint64_t at = h->tail + n;
                bool payload = false;

                for (unsigned i = 0; i < n_open; i++)
                        payload |= at - open[i].start - 1 < open[i].end - open[i].start - 1;
                if (!payload && psyne_lane_record(h->base, at, h->mask)->commit)
                        return "a word that counts as clear is not";
        }
        return NULL;
}

/* ---- sums and randomness ---------------------------------------------------------------------------------------- */

static inline uint32_t crc32_of(const void *data, size_t bytes) {
        static uint32_t table[256];
        const unsigned char *at = data;
        uint32_t crc = ~0u;

        if (!table[1])
                for (uint32_t i = 256; i-- > 0;) { /* [1] last: it says that the table is there */
                        uint32_t c = i;

                        for (int k = 0; k < 8; k++)
                                c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
                        table[i] = c;
                }
        for (size_t i = 0; i < bytes; i++)
                crc = table[(crc ^ at[i]) & 0xff] ^ (crc >> 8);
        return ~crc;
}

/* xorshift64*: small, and good enough to choose what to do next. */
static inline uint64_t random_next(uint64_t *state) {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        return *state * 0x2545f4914f6cdd1dull;
}

static inline uint64_t random_below(uint64_t *state, uint64_t n) {
        return (random_next(state) >> 16) % n;
}

static inline uint64_t random_seed_from_environment(void) {
        const char *text = getenv("PSYNE_SEED");
        uint64_t pid = (uint32_t)getpid(), seed = text ? strtoull(text, NULL, 0) : pid * 0x9e3779b97f4a7c15ull;

        return seed ? seed : 1;
}

/* ---- what a process has ----------------------------------------------------------------------------------------- */

static inline unsigned count_fds(void) {
        DIR *d = opendir("/proc/self/fd");
        unsigned n = 0;

        must(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static inline unsigned count_maps(void) {
        char line[512];
        unsigned n = 0;
        FILE *f = fopen("/proc/self/maps", "re");

        must(f);
        while (fgets(line, sizeof(line), f))
                n++;
        fclose(f);
        return n;
}
#endif
