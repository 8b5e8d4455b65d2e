/*
 * Many messages between two processes: random sizes, batches, shrunk and aborted claims on one side, releases out of
 * order on the other. Each message carries its number, and its type the checksum of all of it. The reader is another
 * program run (fork and exec of itself), which inherits two descriptors and nothing else: the control pages, and the
 * sealed ring that it imports read-only.
 *
 * long-lane [MESSAGES [RING_BYTES]]; 1000000 by default. PSYNE_SEED chooses sizes and order.
 */
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "support.h"

#define ALIGN 64u
#define STALL_NS 60000000000ll /* no progress for so long is a lost message */
#define NUMBER_BYTES 8u        /* shortest message: its number */

static _Alignas(LANE_HANDLE_ALIGN) struct lane_tx tx;
static _Alignas(LANE_HANDLE_ALIGN) struct lane_rx rx;

struct patience {
        unsigned spins;
        int64_t since_ns;
};

/* Polls a little, then lets others run; gives up when nothing comes for a minute. */
static void wait_a_little(struct patience *p, const char *who, uint64_t at) {
        if (++p->spins < 64) {
                cpu_pause();
                return;
        }
        if (p->spins == 64)
                p->since_ns = clock_ns();
        else if (p->spins % 4096 == 0 && clock_ns() - p->since_ns > STALL_NS) {
                fprintf(stderr, "%s: nothing moves at message %lu\n", who, at);
                exit(1);
        }
        sched_yield();
}

static size_t random_bytes(uint64_t *state, size_t most) {
        uint64_t r = random_next(state) >> 16;

        if (r % 4096 == 0)
                return NUMBER_BYTES + (r >> 16) % (most - NUMBER_BYTES + 1);
        if (r % 64 == 0)
                return NUMBER_BYTES + (r >> 16) % 2000;
        return NUMBER_BYTES + (r >> 16) % 112;
}

static void fill(struct psyne_msg *m, uint64_t number, uint64_t *state) {
        unsigned char *at = m->data;
        uint64_t word = number;

        for (size_t i = 0; i < m->len; i += 8) {
                memcpy(at + i, &word, m->len - i < 8 ? m->len - i : 8);
                word = random_next(state);
        }
        m->type = crc32_of(m->data, m->len);
}

static void claim(size_t bytes, struct psyne_msg *m, uint64_t number) {
        struct patience p = {0};

        while (!psyne_lane_claim(&tx.hot, bytes, m)) {
                lane_tx_refresh(&tx, p.spins % 16 == 15);
                if (psyne_lane_claim(&tx.hot, bytes, m))
                        break;
                wait_a_little(&p, "producer", number);
        }
}

static void commit(struct psyne_msg *m) {
        must(lane_commit(&tx, m) == 0);
}

static void produce(uint64_t n_messages, uint64_t seed) {
        uint64_t state = seed, number = 0;
        struct patience p = {0};

        while (number < n_messages) {
                uint64_t how = random_below(&state, 64);
                struct psyne_msg m[8];

                if (how == 0) { /* claimed, written, given back */
                        claim(random_bytes(&state, tx.hot.bytes_max), &m[0], number);
                        memset(m[0].data, 0x40, m[0].cap);
                        must(lane_tx_abort(&tx, &m[0]) == 0);
                } else if (how == 1) { /* padding: the older of two is given back */
                        claim(40, &m[0], number);
                        claim(100, &m[1], number);
                        memset(m[0].data, 0x40, m[0].cap);
                        fill(&m[1], number++, &state);
                        must(lane_tx_abort(&tx, &m[0]) == 0);
                        commit(&m[1]);
                } else if (how < 6) { /* claimed large, committed small */
                        size_t bytes = random_bytes(&state, tx.hot.bytes_max);

                        claim(bytes, &m[0], number);
                        memset(m[0].data, 0x40, m[0].cap);
                        m[0].len = NUMBER_BYTES + random_below(&state, bytes - NUMBER_BYTES + 1);
                        fill(&m[0], number++, &state);
                        commit(&m[0]);
                } else if (how < 12) { /* as many of a batch as fit, the last one shorter */
                        size_t bytes = random_bytes(&state, 500);
                        unsigned n = lane_tx_claim_n(&tx, bytes, 8, m);

                        if (n > n_messages - number) {
                                lane_tx_abort_all(&tx);
                                continue;
                        }
                        if (n == 0) {
                                lane_tx_refresh(&tx, true);
                                wait_a_little(&p, "producer", number);
                                continue;
                        }
                        p.spins = 0;
                        m[n - 1].len = NUMBER_BYTES + random_below(&state, bytes - NUMBER_BYTES + 1);
                        for (unsigned i = 0; i < n; i++)
                                fill(&m[i], number++, &state);
                        must(lane_tx_commit_n(&tx, m, n) == (int)n);
                } else {
                        claim(random_bytes(&state, tx.hot.bytes_max), &m[0], number);
                        fill(&m[0], number++, &state);
                        commit(&m[0]);
                }
        }
        /* Everything is read when the exact position says so. */
        p.spins = 0;
        while (lane_tx_free_position(&tx, true) != tx.hot.tail)
                wait_a_little(&p, "producer, at the end", number);
}

static int consume(uint64_t n_messages, uint64_t seed) {
        uint64_t state = seed, number = 0;
        struct psyne_msg held[16];
        unsigned n_held = 0;
        struct patience p = {0};

        while (number < n_messages || n_held) {
                unsigned want = 1 + (unsigned)random_below(&state, 12);
                int r = 1;

                while (n_held < want && number < n_messages) {
                        struct psyne_msg *m = &held[n_held];
                        uint64_t got;

                        r = lane_recv(&rx, m);
                        if (r != 1)
                                break;
                        memcpy(&got, m->data, sizeof(got));
                        if (m->len < NUMBER_BYTES || got != number || crc32_of(m->data, m->len) != m->type) {
                                fprintf(stderr, "message %lu: number %lu, %zu bytes, type %08x, sum %08x, seed %lu\n",
                                        number, got, m->len, m->type, crc32_of(m->data, m->len), seed);
                                return 1;
                        }
                        number++;
                        n_held++;
                }
                if (r < 0) {
                        fprintf(stderr, "message %lu: %s\n", number, error_get());
                        return 1;
                }
                if (n_held) {
                        p.spins = 0;
                        while (n_held) { /* in order mostly, else from anywhere */
                                unsigned i = want % 4 ? 0 : (unsigned)random_below(&state, n_held);

                                must(lane_release(&rx, &held[i]) == 0);
                                memmove(&held[i], &held[i + 1], (--n_held - i) * sizeof(held[0]));
                        }
                        if (rx.hot.released - rx.hot.published >= rx.hot.lazy)
                                (void)lane_rx_publish(&rx);
                } else {
                        (void)lane_rx_publish(&rx);
                        wait_a_little(&p, "reader", number);
                }
        }
        must(lane_rx_take(&rx, &held[0]) == 0); /* nothing behind the last, and padding before it walked over */
        return 0;
}

static struct layout_header *map_control(int fd, struct layout_view *v) {
        struct layout_config config = fixture_config(0, ALIGN);
        struct layout_limits limits = {config.max_producers, config.max_consumers};
        struct layout_region regions[LAYOUT_N_REGIONS];
        uint64_t total = layout_compute(&limits, regions);
        struct layout_header *h;

        h = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        must(h != MAP_FAILED);
        if (v) {
                must(layout_validate(h, total) == 0);
                layout_view_init(v, h, h);
        }
        return h;
}

static int reader_main(char **argv) {
        int control = atoi(argv[2]), ring = atoi(argv[3]);
        size_t ring_bytes = strtoul(argv[4], NULL, 0);
        struct segment s = SEGMENT_NULL;
        struct layout_view v;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)map_control(control, &v);
        must(segment_import(&s, ring, ring_bytes, false, NULL) == 0);
        must(lane_rx_init(&rx, &v, 0, 0, s.base, ring_bytes, 16) == 0);
        return consume(strtoull(argv[5], NULL, 0), strtoull(argv[6], NULL, 0));
}

int main(int argc, char **argv) {
        const struct segment_wish wish = {.numa = PSYNE_NEVER};
        uint64_t n_messages = argc > 1 && strcmp(argv[1], "--reader") != 0 ? strtoull(argv[1], NULL, 0) : 1000000;
        size_t ring_bytes = argc > 2 ? strtoul(argv[2], NULL, 0) : 65536;
        struct layout_config config = fixture_config(ring_bytes, ALIGN);
        uint64_t seed = random_seed_from_environment();
        struct layout_region regions[LAYOUT_N_REGIONS];
        struct layout_limits limits = {config.max_producers, config.max_consumers};
        char texts[5][32], *args[] = {argv[0], "--reader", texts[0], texts[1], texts[2], texts[3], texts[4], NULL};
        struct segment s = SEGMENT_NULL;
        struct segment_report report;
        struct layout_header *h;
        struct layout_view v;
        int control, status;
        int64_t started;
        pid_t pid;

        if (argc == 7 && strcmp(argv[1], "--reader") == 0)
                return reader_main(argv);
        printf("PSYNE_SEED=%lu\n", seed);
        fflush(stdout);

        control = memfd_create("long-lane", MFD_CLOEXEC);
        must(control >= 0 && ftruncate(control, (off_t)layout_compute(&limits, regions)) == 0);
        h = map_control(control, NULL);
        layout_init(h, &config);
        layout_publish(h);
        (void)map_control(control, &v);
        must(segment_new(&s, "long-lane", ring_bytes, &wish, &report) == 0);
        h->groups_active = 1;
        lane_tx_init(&tx, &v, 0, s.base, 0);

        snprintf(texts[0], sizeof(texts[0]), "%d", control);
        snprintf(texts[1], sizeof(texts[1]), "%d", s.fd);
        snprintf(texts[2], sizeof(texts[2]), "%zu", ring_bytes);
        snprintf(texts[3], sizeof(texts[3]), "%lu", n_messages);
        snprintf(texts[4], sizeof(texts[4]), "%lu", seed);
        pid = fork();
        must(pid >= 0);
        if (pid == 0) {
                must(fcntl(control, F_SETFD, 0) == 0 && fcntl(s.fd, F_SETFD, 0) == 0);
                execv("/proc/self/exe", args);
                _exit(127);
        }
        started = clock_ns();
        signal(SIGCHLD, SIG_DFL);
        produce(n_messages, seed);
        must(waitpid(pid, &status, 0) == pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
                fprintf(stderr, "reader: status %#x\n", (unsigned)status);
                return 1;
        }
        must(v.lanes[0].tx.messages_sent == n_messages);
        must(layout_cursor(&v, 0, 0)->exact.messages_received == n_messages);
        must(layout_cursor(&v, 0, 0)->exact.bytes_received == v.lanes[0].tx.bytes_sent);
        printf("%lu messages, %lu bytes, %s pages, %.1f s\n", n_messages, v.lanes[0].tx.bytes_sent,
                segment_pages_name(report.pages), (double)(clock_ns() - started) / 1e9);
        return 0;
}
