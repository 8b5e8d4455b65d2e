/*
 * The control pages and the ring as bytes. What two builds of the library share must not move unnoticed: both are
 * compared with a checked-in image. Changing it on purpose means another layout version; then
 *
 *      PSYNE_GOLDEN_WRITE=tests/shm/golden/layout-1.0.txt test-layout --filter 'layout/matches*'
 *
 * writes the new one.
 */
#include <criterion/criterion.h>

#include "support.h"

#ifndef GOLDEN
#define GOLDEN "tests/shm/golden/layout-1.0.txt"
#endif

#define RING 4096u

/* Every field that a creator chooses has a value of its own. */
static const struct layout_config fixed = {
        .magic = 99, /* whatever stands here: not published */
        .features_have = 0x8000000000000001ull,
        .ring_bytes = RING,
        .record_align = 64,
        .mode = PSYNE_SPSC,
        .max_producers = 3,
        .max_consumers = 2,
        .type_id = 0x01020304,
        .elem_bytes = 48,
        .type_hash = 0x1122334455667788ull,
        .created_ns = 1700000000000000001ull,
        .instance = 0xfedcba9876543210ull,
        .boot_id = {0xaaaaaaaaaaaaaaaaull, 0xbbbbbbbbbbbbbbbbull},
        .creator_start = 12345,
        .creator_pidns = 4026531836,
        .creator_pid = 4242,
        .creator_uid = 1000,
        .tsc_base = 7,
        .tsc_base_ns = 8,
        .tsc_hz_q16 = 9,
        .stamp_every = 10,
        .huge = PSYNE_TRY,
        .numa = PSYNE_NEVER,
        .uring = PSYNE_REQUIRE,
        .name = "golden",
};

static uint64_t total_of(const struct layout_config *c, struct layout_region regions[LAYOUT_N_REGIONS]) {
        const struct layout_limits limits = {c->max_producers, c->max_consumers};

        return layout_compute(&limits, regions);
}

static struct layout_header *header_of(const struct layout_config *config, uint64_t *total) {
        struct layout_region regions[LAYOUT_N_REGIONS];
        struct layout_header *h;

        *total = total_of(config, regions);
        cr_assert_neq(*total, 0);
        h = aligned_alloc(4096, *total);
        must(h);
        memset(h, 0, *total);
        layout_init(h, config);
        cr_assert_eq(h->config.magic, 0, "published before it was complete");
        cr_assert_eq(layout_validate(h, *total), -EAGAIN);
        layout_publish(h);
        cr_assert_eq(layout_validate(h, *total), 0, "%s", error_get());
        return h;
}

/* ---- the golden image ---------------------------------------------------------------------------------------------
 */

/* As text: one line for each 8-byte word that is not zero. Addresses of this process have no business in there. */
static void image_write(FILE *f, const char *name, const void *at, uint64_t bytes) {
        const uint64_t *word = at;

        fprintf(f, "%s %lu\n", name, bytes);
        for (uint64_t i = 0; i < bytes / 8; i++)
                if (word[i])
                        fprintf(f, "%06lx %016lx\n", 8 * i, word[i]);
}

static void image_compare(FILE *f, const char *name, const void *at, uint64_t bytes) {
        uint64_t *want = calloc(1, bytes), size, offset, value;
        const uint64_t *have = at;
        char section[32], line[128];

        must(want);
        cr_assert(fgets(line, sizeof(line), f) && sscanf(line, "%31s %lu", section, &size) == 2, "no section %s", name);
        cr_assert_str_eq(section, name);
        cr_assert_eq(size, bytes, "%s: %lu bytes instead of %lu", name, bytes, size);
        for (long mark = ftell(f); fgets(line, sizeof(line), f); mark = ftell(f)) {
                if (sscanf(line, "%lx %16lx", &offset, &value) != 2 || offset >= bytes || offset % 8) {
                        must(fseek(f, mark, SEEK_SET) == 0); /* the next section */
                        break;
                }
                want[offset / 8] = value;
        }
        for (uint64_t i = 0; i < bytes / 8; i++)
                cr_assert_eq(have[i], want[i], "%s at %#lx: %#018lx instead of %#018lx", name, 8 * i, have[i], want[i]);
        free(want);
}

/*
 * A channel as it is after its making, a fact and a little traffic: plain records, a shrunk one, padding, a batch,
 * and a reader that has taken two and released one.
 */
Test(layout, matches_the_golden_image) {
        static _Alignas(LANE_HANDLE_ALIGN) struct lane_tx t;
        static _Alignas(LANE_HANDLE_ALIGN) struct lane_rx x;
        const char *path = getenv("PSYNE_GOLDEN_WRITE");
        unsigned char *ring = aligned_alloc(4096, 2 * RING); /* no mirror: nothing here crosses the end */
        struct psyne_msg m[4];
        struct layout_view v;
        uint64_t total;
        struct layout_header *h = header_of(&fixed, &total);
        FILE *f;

        must(ring);
        memset(ring, 0, 2 * RING);
        layout_view_init(&v, h, h);
        layout_fact_set(&v, LAYOUT_SCOPE_LANE, 1, "pages", "2M", "4K", "no pool", "sysctl");
        lane_tx_init(&t, &v, 1, ring, 0);
        h->groups_active = 1;
        cr_assert_eq(lane_rx_init(&x, &v, 0, 1, ring, RING, 4), 0);

        cr_assert(psyne_lane_claim(&t.hot, 5, &m[0]));
        memcpy(m[0].data, "hello", 5);
        m[0].type = 0x11;
        cr_assert(psyne_lane_commit(&t.hot, &m[0]));
        cr_assert(psyne_lane_claim(&t.hot, 300, &m[0]));
        memset(m[0].data, 0x77, 20);
        m[0].len = 20;
        m[0].type = 0xffffffff;
        cr_assert_eq(lane_tx_commit(&t, &m[0]), 0);
        cr_assert_eq(lane_tx_claim_n(&t, 48, 4, m), 4);
        cr_assert_eq(lane_tx_abort(&t, &m[0]), 0);
        cr_assert_eq(lane_tx_commit_n(&t, &m[1], 3), 3);
        lane_tx_refresh(&t, true);

        cr_assert_eq(lane_rx_take(&x, &m[0]), 1);
        cr_assert_eq(lane_rx_take(&x, &m[1]), 1);
        cr_assert_eq(lane_rx_release(&x, &m[0]), 0);
        (void)lane_rx_publish(&x);

        f = fopen(path ? path : GOLDEN, path ? "we" : "re");
        cr_assert_not_null(f, "%s: %s", path ? path : GOLDEN, strerror(errno));
        (path ? (void (*)(FILE *, const char *, const void *, uint64_t))image_write : image_compare)(
                f, "control", h, total);
        (path ? (void (*)(FILE *, const char *, const void *, uint64_t))image_write : image_compare)(
                f, "ring", ring, RING);
        fclose(f);
        free(ring);
        free(h);
}

/* ---- regions ------------------------------------------------------------------------------------------------------
 */

/* For all limits there are: every region whole, on its own lines, inside the file, and large enough for its entries. */
Test(layout, keeps_regions_apart_for_all_limits) {
        static const uint32_t entry[LAYOUT_N_REGIONS] = {
                [LAYOUT_REGION_PEERS] = sizeof(struct layout_peer),
                [LAYOUT_REGION_LANES] = sizeof(struct layout_lane),
                [LAYOUT_REGION_GROUPS] = sizeof(struct layout_group),
                [LAYOUT_REGION_CURSORS] = sizeof(struct layout_cursor),
                [LAYOUT_REGION_MEMBERS] = sizeof(struct layout_member),
                [LAYOUT_REGION_LOANS] = LAYOUT_LOANS * sizeof(struct layout_loan),
                [LAYOUT_REGION_FACTS] = sizeof(struct layout_fact),
                [LAYOUT_REGION_ERRORS] = sizeof(struct layout_error),
                [LAYOUT_REGION_EVENTS] = sizeof(struct layout_event),
                [LAYOUT_REGION_HISTOGRAMS] = LAYOUT_HISTOGRAM_BYTES,
        };

        for (uint32_t p = 1; p <= 64; p++)
                for (uint32_t c = 1; c <= 64; c++) {
                        const struct layout_limits limits = {p, c};
                        struct layout_region r[LAYOUT_N_REGIONS];
                        uint64_t total = layout_compute(&limits, r);

                        cr_assert_neq(total, 0);
                        cr_assert_eq(total % 4096, 0);
                        for (unsigned i = 0; i < LAYOUT_N_REGIONS; i++) {
                                uint64_t end = r[i].offset + (uint64_t)r[i].n * r[i].stride;

                                if (!r[i].n)
                                        continue;
                                cr_assert_geq(r[i].offset, sizeof(struct layout_header));
                                cr_assert_eq(r[i].offset % LAYOUT_LINE, 0, "region %u", i);
                                cr_assert_geq(r[i].stride, entry[i], "region %u", i);
                                if (i == LAYOUT_REGION_HISTOGRAMS) /* behind the end until first used */
                                        cr_assert_geq(r[i].offset, total);
                                else
                                        cr_assert_leq(end, total, "region %u of %ux%u", i, p, c);
                                for (unsigned k = 0; k < i; k++)
                                        if (r[k].n)
                                                cr_assert(r[k].offset >= end ||
                                                                  r[k].offset + (uint64_t)r[k].n * r[k].stride <=
                                                                          r[i].offset,
                                                        "regions %u and %u of %ux%u overlap", k, i, p, c);
                        }
                        cr_assert_geq(r[LAYOUT_REGION_PEERS].n, p + c);
                        cr_assert_geq(r[LAYOUT_REGION_LANES].n, p);
                        cr_assert_leq(r[LAYOUT_REGION_LANES].n, 64); /* one bitmap word */
                        cr_assert_leq(r[LAYOUT_REGION_MEMBERS].n, 64);
                        cr_assert_eq(r[LAYOUT_REGION_CURSORS].n, r[LAYOUT_REGION_GROUPS].n * r[LAYOUT_REGION_LANES].n);
                        cr_assert_geq(r[LAYOUT_REGION_HOLDS].stride, 8 * r[LAYOUT_REGION_LANES].n);
                        cr_assert_eq(r[LAYOUT_REGION_CURSORS].stride, sizeof(struct layout_cursor),
                                "layout_cursor() counts on it");
                }
}

Test(layout, refuses_limits_out_of_range) {
        static const struct layout_limits wrong[] = {
                {0, 1}, {1, 0}, {65, 1}, {1, 65}, {UINT32_MAX, 1}, {1, UINT32_MAX}, {0, 0}};
        struct layout_region r[LAYOUT_N_REGIONS];

        for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
                cr_assert_eq(layout_compute(&wrong[i], r), 0);
}

/* The view's pointers and counts, at the smallest and the largest: the last entry of each ends inside. */
Test(layout, views_stay_inside_the_map) {
        for (uint32_t n = 1; n <= 64; n += 63) {
                struct layout_config config = fixed;
                struct layout_header *h;
                struct layout_view v;
                uint64_t total;
                const char *end;

                config.max_producers = config.max_consumers = n;
                h = header_of(&config, &total);
                layout_view_init(&v, h, h);
                end = (const char *)h + total;
                cr_assert((const char *)&v.peers[v.n_peers] <= end);
                cr_assert((const char *)&v.lanes[v.n_lanes] <= end);
                cr_assert((const char *)&v.groups[v.n_groups] <= end);
                cr_assert((const char *)(layout_cursor(&v, v.n_groups - 1, v.n_lanes - 1) + 1) <= end);
                cr_assert((const char *)&v.members[v.n_members] <= end);
                cr_assert((const char *)&v.facts[v.n_facts] <= end);
                cr_assert_eq(layout_at(h, LAYOUT_REGION_LANES, 1), &v.lanes[1]);
                free(h);
        }
}

/* The table is sized so that there is always room: six rows of one thing never touch the next one's. */
Test(layout, keeps_facts_of_things_apart) {
        struct layout_view v;
        uint64_t total;
        struct layout_header *h = header_of(&fixed, &total);
        static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
        unsigned rows = 0;

        layout_view_init(&v, h, h);
        for (unsigned pass = 0; pass < 2; pass++) /* the second rewrites the same rows */
                for (unsigned i = 0; i < 6; i++) {
                        layout_fact_set(&v, LAYOUT_SCOPE_CHANNEL, 0, names[i], "x", "y", NULL, NULL);
                        for (uint32_t k = 0; k < v.n_lanes; k++)
                                layout_fact_set(&v, LAYOUT_SCOPE_LANE, k, names[i], "x", "y", "z", "");
                        for (uint32_t k = 0; k < v.n_members; k++)
                                layout_fact_set(&v, LAYOUT_SCOPE_MEMBER, k, names[i], "x", "y", "z", "");
                }
        for (uint32_t i = 0; i < v.n_facts; i++)
                rows += v.facts[i].scope != LAYOUT_SCOPE_NONE;
        cr_assert_eq(rows, 6 * (1 + v.n_lanes + v.n_members));
        cr_assert_eq(rows, v.n_facts);
        layout_fact_clear(&v, LAYOUT_SCOPE_LANE, v.n_lanes - 1);
        for (uint32_t i = 0; i < v.n_facts; i++)
                rows -= v.facts[i].scope != LAYOUT_SCOPE_NONE;
        cr_assert_eq(rows, 6);
        free(h);
}

/* A text that is too long is cut, and nothing behind it is touched. */
Test(layout, cuts_facts_that_are_too_long) {
        char text[300];
        struct layout_view v;
        uint64_t total;
        struct layout_header *h = header_of(&fixed, &total);

        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        layout_view_init(&v, h, h);
        layout_fact_set(&v, LAYOUT_SCOPE_MEMBER, v.n_members - 1, text, text, text, text, text);
        for (uint32_t i = 0; i < v.n_facts; i++)
                if (v.facts[i].scope) {
                        cr_assert_eq(strlen(v.facts[i].what), sizeof(v.facts[i].what) - 1);
                        cr_assert_eq(strlen(v.facts[i].fix), sizeof(v.facts[i].fix) - 1);
                        for (unsigned k = 0; k < sizeof(v.facts[i].pad); k++)
                                cr_assert_eq(v.facts[i].pad[k], 0);
                }
        free(h);
}

/* ---- validation ---------------------------------------------------------------------------------------------------
 */

#define FIELD(member)                                                                                                  \
        { #member, offsetof(struct layout_header, config.member), sizeof(((struct layout_header *)0)->config.member) }

/* Fields that nothing else depends on: any value is as good as any other. All others are flipped bit by bit. */
static const struct {
        const char *name;
        size_t offset, bytes;
} free_fields[] = {
        FIELD(minor), FIELD(features_have), FIELD(type_id), FIELD(flags), FIELD(elem_bytes), FIELD(type_hash),
        FIELD(created_ns), FIELD(instance), FIELD(boot_id), FIELD(creator_start), FIELD(creator_pidns),
        FIELD(creator_pid), FIELD(creator_uid), FIELD(tsc_base), FIELD(tsc_base_ns), FIELD(tsc_hz_q16),
        FIELD(stamp_every), FIELD(huge), FIELD(numa), FIELD(uring), FIELD(name),
        FIELD(mode), /* the last two have tests of their own */
};

static bool is_free(size_t offset) {
        for (unsigned i = 0; i < sizeof(free_fields) / sizeof(free_fields[0]); i++)
                if (offset - free_fields[i].offset < free_fields[i].bytes)
                        return true;
        return offset >= sizeof(struct layout_config) && offset < offsetof(struct layout_header, regions);
}

/* Each bit of each field that is checked, flipped alone, is refused; each bit of a free one is not. */
Test(layout, refuses_every_flipped_bit_of_what_it_relies_on) {
        size_t end = offsetof(struct layout_header, pad1), refused = 0;
        uint64_t total;
        struct layout_header *h = header_of(&fixed, &total);
        unsigned char *at = (unsigned char *)h;

        for (size_t i = 0; i < end; i++)
                for (unsigned bit = 0; bit < 8; bit++) {
                        int r;

                        at[i] ^= (unsigned char)(1u << bit);
                        r = layout_validate(h, total);
                        if (!is_free(i)) {
                                cr_assert(r == -EPROTO || r == -EBADMSG || r == -EAGAIN, "byte %zu bit %u: %d", i, bit,
                                        r);
                                refused++;
                        } else if (i - offsetof(struct layout_header, config.mode) >= 4 &&
                                   i - offsetof(struct layout_header, config.name) >= sizeof(h->config.name))
                                cr_assert_eq(r, 0, "byte %zu bit %u: %s", i, bit, error_get());
                        at[i] ^= (unsigned char)(1u << bit);
                }
        cr_assert_geq(refused, 8 * sizeof(h->regions));
        cr_assert_eq(layout_validate(h, total), 0);
        free(h);
}

#define REFUSED(change, code)                                                                                          \
        do {                                                                                                           \
                uint64_t _total;                                                                                       \
                struct layout_header *h = header_of(&fixed, &_total);                                                  \
                                                                                                                       \
                change;                                                                                                \
                error_clear();                                                                                         \
                cr_assert_eq(layout_validate(h, _total), code, "%s: %s", #change, error_get());                        \
                cr_assert_str_neq(error_get(), "no error");                                                            \
                free(h);                                                                                               \
        } while (0)

Test(layout, refuses_other_versions_and_values_out_of_range) {
        REFUSED(h->config.magic = __builtin_bswap64(LAYOUT_MAGIC), -EPROTO);
        REFUSED(h->config.magic = 0, -EAGAIN);
        REFUSED(h->config.major = LAYOUT_MAJOR + 1, -EPROTO);
        REFUSED(h->config.major = 0, -EPROTO);
        REFUSED(h->config.features_need = 1ull << 63, -EPROTO);
        REFUSED(h->config.header_bytes = 0, -EBADMSG);
        REFUSED(h->config.total_bytes += 4096, -EBADMSG);
        REFUSED(h->config.total_bytes = UINT64_MAX, -EBADMSG);
        REFUSED(h->config.max_producers = 0, -EBADMSG);
        REFUSED(h->config.max_producers = 65, -EBADMSG);
        REFUSED(h->config.max_consumers = UINT32_MAX, -EBADMSG);
        REFUSED(h->config.max_lanes = 64, -EBADMSG);
        REFUSED(h->config.max_groups = 64, -EBADMSG);
        REFUSED(h->config.ring_bytes = 0, -EBADMSG);
        REFUSED(h->config.ring_bytes = 2048, -EBADMSG);
        REFUSED(h->config.ring_bytes = 6144, -EBADMSG);
        REFUSED(h->config.ring_bytes = 1ull << 41, -EBADMSG);
        REFUSED(h->config.ring_bytes = 1ull << 63, -EBADMSG);
        REFUSED(h->config.record_align = 0, -EBADMSG);
        REFUSED(h->config.record_align = 8, -EBADMSG);
        REFUSED(h->config.record_align = 48, -EBADMSG);
        REFUSED(h->config.record_align = 8192, -EBADMSG);
        REFUSED(h->config.record_align = 2048, -EBADMSG); /* two cells in the ring */
        REFUSED(h->config.record_align = 4096,
                -EBADMSG); /* the ring is one cell: the largest record would be negative */
        REFUSED(h->config.mode = 0, -EBADMSG);
        REFUSED(h->config.mode = PSYNE_BROADCAST + 1, -EBADMSG);
        REFUSED(h->config.mode = UINT32_MAX, -EBADMSG);
        REFUSED(memset(h->config.name, 'x', sizeof(h->config.name)), -EBADMSG);
        REFUSED(h->regions[LAYOUT_REGION_LANES].offset = UINT64_MAX - 63, -EBADMSG);
        REFUSED(h->regions[LAYOUT_REGION_LANES].stride = 0, -EBADMSG);
        REFUSED(h->regions[LAYOUT_N_REGIONS - 1].n = 1, -EBADMSG); /* one we know nothing of */
}

Test(layout, refuses_a_file_that_is_too_short) {
        uint64_t total;
        struct layout_header *h = header_of(&fixed, &total);

        cr_assert_eq(layout_validate(h, 0), -EBADMSG);
        cr_assert_eq(layout_validate(h, sizeof(*h) - 1), -EBADMSG);
        cr_assert_eq(layout_validate(h, sizeof(*h)), -EBADMSG);
        cr_assert_eq(layout_validate(h, total - 1), -EBADMSG);
        cr_assert_eq(layout_validate(h, total), 0);
        cr_assert_eq(layout_validate(h, total + 100 * LAYOUT_HISTOGRAM_BYTES), 0, "histograms may follow");
        free(h);
}

Test(layout, accepts_every_mode_size_and_alignment_there_is) {
        for (uint32_t mode = PSYNE_SPSC; mode <= PSYNE_BROADCAST; mode++)
                for (uint64_t ring = LAYOUT_RING_MIN; ring <= LAYOUT_RING_MAX; ring *= 2)
                        for (uint32_t align = PSYNE_RECORD_HEADER; align <= 4096 && align * 4 <= ring; align *= 2) {
                                struct layout_config config = fixed;
                                uint64_t total;

                                config.mode = mode;
                                config.ring_bytes = ring;
                                config.record_align = align;
                                free(header_of(&config, &total));
                        }
}
