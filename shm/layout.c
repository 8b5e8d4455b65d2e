/* Sizes and checks of the control pages. One function computes the regions, for the creator and for whoever doubts. */
#include "shm/layout.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

#define LAYOUT_FEATURES_KNOWN 0ull
#define END_TRIES 10000u
#define LAYOUT_FACTS_PER_THING 6u /* rows per lane, per member and for the channel */

static uint64_t round_line(uint64_t n) {
        return (n + LAYOUT_LINE - 1) & ~(uint64_t)(LAYOUT_LINE - 1);
}

uint64_t layout_compute(const struct layout_limits *limits, struct layout_region regions[LAYOUT_N_REGIONS]) {
        uint64_t at = sizeof(struct layout_header);
        uint32_t p = limits->max_producers, c = limits->max_consumers, lanes = p + LAYOUT_LANES_SPARE;
        struct layout_region r[LAYOUT_N_REGIONS] = {
                [LAYOUT_REGION_PEERS] = {0, p + c + LAYOUT_OBSERVERS, sizeof(struct layout_peer)},
                [LAYOUT_REGION_LANES] = {0, 0, sizeof(struct layout_lane)},
                [LAYOUT_REGION_GROUPS] = {0, c, sizeof(struct layout_group)},
                [LAYOUT_REGION_CURSORS] = {0, 0, sizeof(struct layout_cursor)},
                [LAYOUT_REGION_MEMBERS] = {0, c, sizeof(struct layout_member)},
                [LAYOUT_REGION_HOLDS] = {0, c, 0},
                [LAYOUT_REGION_LOANS] = {0, c, LAYOUT_LOANS * sizeof(struct layout_loan)},
                [LAYOUT_REGION_FACTS] = {0, 0, sizeof(struct layout_fact)},
                [LAYOUT_REGION_ERRORS] = {0, LAYOUT_ERRORS, sizeof(struct layout_error)},
                [LAYOUT_REGION_EVENTS] = {0, LAYOUT_EVENTS, sizeof(struct layout_event)},
                [LAYOUT_REGION_TRANSFER] = {0, c, LAYOUT_LINE},
        };

        if (p < 1 || p > LAYOUT_PRODUCERS_MAX || c < 1 || c > LAYOUT_CONSUMERS_MAX)
                return 0;
        if (lanes > LAYOUT_PRODUCERS_MAX)
                lanes = LAYOUT_PRODUCERS_MAX; /* one bitmap word; at 64 producers a restart waits for its old lane */
        r[LAYOUT_REGION_LANES].n = lanes;
        r[LAYOUT_REGION_CURSORS].n = c * lanes;
        r[LAYOUT_REGION_HOLDS].stride = (uint32_t)round_line(lanes * sizeof(uint64_t));
        r[LAYOUT_REGION_FACTS].n = LAYOUT_FACTS_PER_THING * (1 + lanes + c);

        for (unsigned i = 0; i < LAYOUT_N_REGIONS; i++) {
                if (!r[i].n)
                        continue;
                r[i].offset = at;
                at = round_line(at + (uint64_t)r[i].n * r[i].stride);
        }
        at = (at + 4095) & ~4095ull;
        r[LAYOUT_REGION_HISTOGRAMS] = (struct layout_region){at, c, LAYOUT_HISTOGRAM_BYTES};
        memcpy(regions, r, sizeof(r));
        return at;
}

void layout_init(struct layout_header *h, const struct layout_config *config) {
        const struct layout_limits limits = {config->max_producers, config->max_consumers};
        struct layout_region regions[LAYOUT_N_REGIONS];
        uint64_t total = layout_compute(&limits, regions);

        memcpy(&h->config, config, sizeof(*config));
        h->config.magic = 0;
        h->config.major = LAYOUT_MAJOR;
        h->config.minor = LAYOUT_MINOR;
        h->config.header_bytes = sizeof(*h);
        h->config.total_bytes = total;
        h->config.max_lanes = regions[LAYOUT_REGION_LANES].n;
        h->config.max_groups = regions[LAYOUT_REGION_GROUPS].n;
        memcpy(h->regions, regions, sizeof(regions));
}

void layout_publish(struct layout_header *h) {
        __atomic_store_n(&h->config.magic, LAYOUT_MAGIC, __ATOMIC_RELEASE); /* pairs with the attacher's acquire */
}

static bool is_power_of_two(uint64_t n) {
        return n && !(n & (n - 1));
}

int layout_validate(const struct layout_header *h, uint64_t file_bytes) {
        const struct layout_config *c = &h->config;
        const struct layout_limits limits = {c->max_producers, c->max_consumers};
        struct layout_region regions[LAYOUT_N_REGIONS];
        uint64_t total;

        if (file_bytes < sizeof(*h))
                return error_set(-EBADMSG, "control file is %llu bytes, shorter than its own header",
                        (unsigned long long)file_bytes);
        if (c->magic == 0)
                return error_set(-EAGAIN, "control file is not published yet");
        if (c->magic != LAYOUT_MAGIC)
                return error_set(-EPROTO, "not a psyne control file, or one of another byte order");
        if (c->major != LAYOUT_MAJOR)
                return error_set(-EPROTO, "control file has layout version %u.%u, this library speaks %u.%u", c->major,
                        c->minor, LAYOUT_MAJOR, LAYOUT_MINOR);
        if (c->features_need & ~LAYOUT_FEATURES_KNOWN)
                return error_set(-EPROTO, "control file needs feature bits %#llx, which this library does not know",
                        (unsigned long long)(c->features_need & ~LAYOUT_FEATURES_KNOWN));
        total = layout_compute(&limits, regions);
        if (!total || c->header_bytes != sizeof(*h) || c->total_bytes != total || total > file_bytes ||
                c->max_lanes != regions[LAYOUT_REGION_LANES].n || c->max_groups != regions[LAYOUT_REGION_GROUPS].n ||
                memcmp(h->regions, regions, sizeof(regions)) != 0)
                return error_set(-EBADMSG, "control file is damaged: its regions do not follow from its limits");
        if (!is_power_of_two(c->ring_bytes) || c->ring_bytes < LAYOUT_RING_MIN || c->ring_bytes > LAYOUT_RING_MAX ||
                !is_power_of_two(c->record_align) || c->record_align < PSYNE_RECORD_HEADER || c->record_align > 4096 ||
                c->record_align * 4ull > c->ring_bytes ||
                c->mode < PSYNE_SPSC || c->mode > PSYNE_BROADCAST || memchr(c->name, '\0', sizeof(c->name)) == NULL)
                return error_set(-EBADMSG, "control file is damaged: ring size, alignment, mode or name out of range");
        return 0;
}

void layout_view_init(struct layout_view *v, void *map, const struct layout_header *copy) {
        const struct layout_region *r = copy->regions;
        char *at = map;

        *v = (struct layout_view){
                .header = map,
                .peers = (void *)(at + r[LAYOUT_REGION_PEERS].offset),
                .lanes = (void *)(at + r[LAYOUT_REGION_LANES].offset),
                .groups = (void *)(at + r[LAYOUT_REGION_GROUPS].offset),
                .cursors = (void *)(at + r[LAYOUT_REGION_CURSORS].offset),
                .members = (void *)(at + r[LAYOUT_REGION_MEMBERS].offset),
                .loans = (void *)(at + r[LAYOUT_REGION_LOANS].offset),
                .holds = (void *)(at + r[LAYOUT_REGION_HOLDS].offset),
                .holds_stride = r[LAYOUT_REGION_HOLDS].stride,
                .facts = (void *)(at + r[LAYOUT_REGION_FACTS].offset),
                .errors = (void *)(at + r[LAYOUT_REGION_ERRORS].offset),
                .n_peers = r[LAYOUT_REGION_PEERS].n,
                .n_lanes = r[LAYOUT_REGION_LANES].n,
                .n_groups = r[LAYOUT_REGION_GROUPS].n,
                .n_members = r[LAYOUT_REGION_MEMBERS].n,
                .n_facts = r[LAYOUT_REGION_FACTS].n,
                .config = copy->config,
        };
}

uint64_t layout_lane_end(const struct layout_lane *l, uint64_t *ret_messages) {
        uint64_t tail, before, after;

        /*
         * The count is stored before the tail and is at most seven ahead of it: so the number at the tail is not less than
         * the count read before it, less seven, and not more than the one read behind it. With less than sixteen in
         * between its low bits, which the tail has, name it. A producer that goes on so fast that this never comes true
         * is given up on: the three are in one line.
         */
        for (unsigned i = 0; i < END_TRIES; i++) {
                before = __atomic_load_n(&l->tx.messages_sent, __ATOMIC_ACQUIRE);
                tail = __atomic_load_n(&l->tx.tail, __ATOMIC_ACQUIRE);
                after = __atomic_load_n(&l->tx.messages_sent, __ATOMIC_ACQUIRE);
                if (after - before <= 8)
                        break;
        }
        *ret_messages = after - ((after - tail) & 15);
        return tail & ~15ull;
}

/* Rows of one thing lie together, so two writers never look for a free row in the same place. */
static struct layout_fact *facts_of(const struct layout_view *v, enum layout_scope scope, uint32_t index) {
        uint32_t thing = scope == LAYOUT_SCOPE_CHANNEL ? 0
                : scope == LAYOUT_SCOPE_LANE          ? 1 + index
                                                      : 1 + v->n_lanes + index;

        return &v->facts[thing * LAYOUT_FACTS_PER_THING];
}

void layout_fact_set(const struct layout_view *v, enum layout_scope scope, uint32_t index, const char *what,
        const char *asked, const char *obtained, const char *why, const char *fix) {
        struct layout_fact *f = facts_of(v, scope, index), *row = f;

        for (unsigned i = 0; i < LAYOUT_FACTS_PER_THING; i++) {
                row = &f[i];
                if (!row->scope || strncmp(row->what, what, sizeof(row->what)) == 0)
                        break;
        }
        __atomic_store_n(&row->scope, LAYOUT_SCOPE_NONE, __ATOMIC_RELEASE);
        row->index = index;
        snprintf(row->what, sizeof(row->what), "%s", what);
        snprintf(row->asked, sizeof(row->asked), "%s", asked);
        snprintf(row->obtained, sizeof(row->obtained), "%s", obtained);
        snprintf(row->why, sizeof(row->why), "%s", why ? why : "");
        snprintf(row->fix, sizeof(row->fix), "%s", fix ? fix : "");
        __atomic_store_n(&row->scope, scope, __ATOMIC_RELEASE); /* a reader that sees it sees the row */
}

void layout_fact_clear(const struct layout_view *v, enum layout_scope scope, uint32_t index) {
        struct layout_fact *f = facts_of(v, scope, index);

        for (unsigned i = 0; i < LAYOUT_FACTS_PER_THING; i++)
                __atomic_store_n(&f[i].scope, LAYOUT_SCOPE_NONE, __ATOMIC_RELEASE);
}
