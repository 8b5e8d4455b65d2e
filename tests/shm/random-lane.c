/*
 * One producer and one reader, driven in one thread by a random schedule of everything they can do, next to a plain
 * list in memory that knows what must come out. After every step the whole clear-ahead invariant is checked over the
 * ring. Deaths of the reader included: what was handed out and not released must come again, marked.
 *
 * PSYNE_SEED chooses the schedule (printed), PSYNE_STEPS how many steps, 1000000 by default.
 */
#include "support.h"

#define SENT_MAX 2048u /* power of two, more than a ring can hold */
#define OPEN_MAX 40u

enum { WAITING, HELD, GONE_EARLY }; /* handed out and released out of order = GONE_EARLY */

struct sent {
        uint64_t start, end;
        uint32_t bytes, type, crc;
        bool padding;
        int state;
        struct psyne_msg m; /* while held */
};

struct open_claim {
        struct psyne_msg m;
        uint64_t start, end;
        bool aborted;
};

static struct fixture f;
static uint64_t seed, state, step;
static const char *what = "start";

/* What must be in the ring: from the oldest not released to the newest committed. */
static struct sent sent[SENT_MAX];
static uint64_t first, next,
        count_taken;        /* indices; [first, next) in the ring, below count_taken handed out or walked */
static uint64_t handed_end; /* no reader ever was handed a message that starts at or past it */
static uint32_t serial, n_held, n_early;
static struct open_claim claims[OPEN_MAX];
static unsigned n_open;
static uint64_t received, redelivered, deaths, fulls;

#define check(condition, ...)                                                                                          \
        do {                                                                                                           \
                if (!(condition)) {                                                                                    \
                        fprintf(stderr, "step %lu (%s), ring %lu align %lu, PSYNE_SEED=%lu: %s: ", step, what, f.ring, \
                                f.align, seed, #condition);                                                            \
                        fprintf(stderr, __VA_ARGS__);                                                                  \
                        fprintf(stderr, "\n");                                                                         \
                        exit(1);                                                                                       \
                }                                                                                                      \
        } while (0)

static uint64_t below(uint64_t n) {
        return random_below(&state, n);
}

static struct sent *at(uint64_t i) {
        return &sent[i % SENT_MAX];
}

/* Small ones mostly, a cell's edge often, sometimes the largest. */
static size_t random_bytes(void) {
        uint64_t n = below(16);

        if (n == 0)
                return f.tx.hot.bytes_max - below(3);
        if (n < 4)
                return (1 + below(6)) * f.align - PSYNE_RECORD_HEADER;
        if (n < 6)
                return below(f.tx.hot.bytes_max + 1);
        return below(4 * f.align);
}

/* ---- what the producer does ----------------------------------------------------------------------------------------
 */

static void opened(const struct psyne_msg *m) {
        check(n_open < OPEN_MAX, "test");
        claims[n_open++] = (struct open_claim){.m = *m, .start = m->opaque[0], .end = m->opaque[1]};
        fill_like_records(m->data, m->cap, serial + (uint32_t)below(1000), f.align);
}

static void appended(uint64_t start, uint64_t end, const struct psyne_msg *m) {
        struct sent *s = at(next++);

        check(next - first <= SENT_MAX, "test");
        *s = (struct sent){.start = start, .end = end, .padding = !m};
        if (m) {
                s->bytes = (uint32_t)m->len;
                s->type = m->type;
                s->crc = crc32_of(m->data, m->len);
        }
}

/* The aborted ones that are the oldest now are padding; those that are the newest are as if they had never been. */
static void settle(void) {
        while (n_open && claims[0].aborted && n_open > 1) {
                appended(claims[0].start, claims[0].end, NULL);
                memmove(&claims[0], &claims[1], --n_open * sizeof(claims[0]));
        }
        while (n_open && claims[n_open - 1].aborted)
                n_open--;
}

static void do_claim(void) {
        unsigned n = below(4) ? 1 : 1 + (unsigned)below(8), got = 0;
        struct psyne_msg m[8];
        size_t bytes = random_bytes();
        uint64_t stride = psyne_lane_stride(bytes, f.align), head = f.tx.hot.head, released = f.rx.hot.line->released;

        if (n_open + n > OPEN_MAX)
                return;
        if (below(2))
                lane_tx_refresh(&f.tx, false);
        if (n > 1) {
                lane_tx_refresh(&f.tx, true);
                got = lane_tx_claim_n(&f.tx, bytes, n, m);
        } else
                got = lane_claim(&f.tx, bytes, &m[0]);
        for (unsigned i = 0; i < got; i++) {
                check(m[i].opaque[0] == head && m[i].opaque[1] == head + stride && m[i].len == bytes,
                        "claim is elsewhere");
                head += stride;
                opened(&m[i]);
        }
        check(head + f.align - released <= f.ring, "a claim reaches into what is not released");
        if (got < n) {
                check(head + stride + f.align - released > f.ring, "refused although there is room");
                fulls++;
        }
}

static void do_commit(void) {
        struct open_claim c;
        uint64_t end;
        unsigned i;

        if (!n_open)
                return;
        i = below(8) ? 0 : (unsigned)below(n_open);
        if (i || claims[0].aborted) {
                int r = lane_commit(&f.tx, &claims[i].m);

                check(r == -EINVAL, "committed out of order: %d", r);
                return;
        }
        c = claims[0];
        if (!below(3))
                c.m.len = below(c.m.cap + 1);
        c.m.type = ++serial;
        fill_like_records(c.m.data, c.m.cap, serial, f.align);
        end = n_open > 1 ? c.end : c.start + psyne_lane_stride(c.m.len, f.align);
        appended(c.start, end, &c.m);
        check(lane_commit(&f.tx, &c.m) == 0, "%s", error_get());
        memmove(&claims[0], &claims[1], --n_open * sizeof(claims[0]));
        settle();
        check(lane_commit(&f.tx, &c.m) == -EINVAL, "committed twice");
}

static void do_commit_batch(void) {
        struct psyne_msg m[OPEN_MAX];
        unsigned n = 0, most;
        int r;

        if (!n_open)
                return;
        most = 1 + (unsigned)below(n_open);
        while (claims[most - 1].aborted) /* behind the batch it is not part of it; the oldest is none */
                most--;
        for (unsigned i = 0; i < most; i++) { /* those in between become padding with it */
                if (claims[i].aborted)
                        continue;
                m[n] = claims[i].m;
                if (!below(3))
                        m[n].len = below(m[n].cap + 1);
                m[n].type = ++serial;
                fill_like_records(m[n].data, m[n].cap, serial, f.align);
                n++;
        }
        for (unsigned i = 0, k = 0; i < most; i++)
                if (claims[i].aborted)
                        appended(claims[i].start, claims[i].end, NULL);
                else {
                        appended(claims[i].start,
                                i == n_open - 1 ? claims[i].start + psyne_lane_stride(m[k].len, f.align) : claims[i].end,
                                &m[k]);
                        k++;
                }
        r = lane_tx_commit_n(&f.tx, m, n);
        check(r == (int)n, "%d: %s", r, error_get());
        n_open -= most;
        memmove(&claims[0], &claims[most], n_open * sizeof(claims[0]));
        settle();
        f.tx.hot.ahead = below(2) ? LANE_AHEAD_STREAM : LANE_AHEAD_CONVERSATION;
        if (f.tx.hot.head == f.tx.hot.tail && below(2))
                psyne_lane_extend(&f.tx.hot, f.align << below(8));
}

static void do_abort(void) {
        unsigned i, waiting = 0;
        int r;

        if (!n_open)
                return;
        i = (unsigned)below(n_open);
        for (unsigned k = 0; k < n_open; k++)
                waiting += claims[k].aborted;
        r = lane_tx_abort(&f.tx, &claims[i].m);
        if (claims[i].aborted)
                check(r == -EINVAL, "aborted twice: %d", r);
        else if (r == -ENOBUFS)
                check(waiting == LANE_ABORTED_MAX && i != n_open - 1, "%u wait", waiting);
        else {
                check(r == 0, "%s", error_get());
                claims[i].aborted = true;
                settle();
        }
        f.tx.hot.ahead = below(2) ? LANE_AHEAD_STREAM : LANE_AHEAD_CONVERSATION;
        if (f.tx.hot.head == f.tx.hot.tail && below(2))
                psyne_lane_extend(&f.tx.hot, f.align << below(8));
}

static void do_abort_all(void) {
        lane_tx_abort_all(&f.tx);
        n_open = 0;
}

static void do_resize(void) {
        struct open_claim *c;
        size_t bytes = random_bytes();
        uint64_t stride = psyne_lane_stride(bytes, f.align), released = f.rx.hot.line->released;
        unsigned i;
        int r;

        if (!n_open)
                return;
        i = below(2) ? n_open - 1 : (unsigned)below(n_open);
        c = &claims[i];
        if (c->aborted)
                return;
        r = lane_tx_resize(&f.tx, &c->m, bytes);
        if (bytes <= c->end - c->start - PSYNE_RECORD_HEADER)
                check(r == 0 && c->m.len == bytes, "%d", r);
        else if (bytes > f.tx.hot.bytes_max)
                check(r == -EMSGSIZE, "%d", r);
        else if (i != n_open - 1)
                check(r == -ENOSPC, "%d", r);
        else if (c->start + stride + f.align - released > f.ring)
                check(r == -ENOSPC, "%d", r);
        else {
                check(r == 0 && c->m.len == bytes && c->m.cap >= bytes, "%d: %s", r, error_get());
                c->end = c->start + stride;
                fill_like_records(c->m.data, c->m.cap, serial, f.align);
        }
        check(c->m.opaque[0] == c->start && c->m.opaque[1] == c->end, "a resize moved the claim");
}

/* ---- what the reader does ------------------------------------------------------------------------------------------
 */

static void forget_released(void) {
        while (first != count_taken) {
                struct sent *s = at(first);

                if (s->padding || s->state == GONE_EARLY) {
                        n_early -= s->state == GONE_EARLY;
                        first++;
                } else
                        break;
        }
}

static void received_one(const struct psyne_msg *m) {
        struct sent *s;
        bool again;

        while (count_taken != next && at(count_taken)->padding)
                count_taken++;
        check(count_taken != next, "a message that was never sent");
        s = at(count_taken++);
        again = (int64_t)(handed_end - s->start) > 0;
        check(m->opaque[0] == s->start && m->opaque[1] == s->end, "it lies elsewhere");
        check(m->len == s->bytes && m->type == s->type, "%zu bytes of type %u instead of %u of %u", m->len, m->type,
                s->bytes, s->type);
        check(crc32_of(m->data, m->len) == s->crc, "message %u is torn", m->type);
        check(m->flags == (again ? PSYNE_MSG_REDELIVERED : 0), "flags %u, handed out before: %d", m->flags, again);
        if (!again)
                handed_end = s->end;
        s->state = HELD;
        s->m = *m;
        n_held++;
        received++;
        redelivered += again;
}

static void do_take(void) {
        bool many = !below(3);
        struct psyne_msg m[8];
        unsigned n = 1 + (unsigned)below(8), got;
        uint64_t waiting = count_taken;

        if (many) {
                got = lane_rx_take_n(&f.rx, m, n);
                for (unsigned i = 0; i < got; i++)
                        received_one(&m[i]);
        } else {
                int r = lane_recv(&f.rx, &m[0]);

                while (waiting != next && at(waiting)->padding)
                        waiting++;
                if (r == 1)
                        received_one(&m[0]);
                else if (r == 0) {
                        check(waiting == next, "a message is there and was not found");
                        count_taken = next;
                } else {
                        check(r == -ENOBUFS, "%s", error_get());
                        check(n_held >= f.held_max || n_held + n_early >= LANE_HELD_MAX, "%u held", n_held);
                        check(waiting != next, "refused where nothing is");
                        count_taken = waiting;
                }
                check(n_held <= f.held_max, "%u held", n_held);
        }
        forget_released();
}

static struct sent *random_held(void) {
        uint64_t pick = n_held ? below(n_held) : 0;

        for (uint64_t i = first; i != count_taken; i++)
                if (at(i)->state == HELD && pick-- == 0)
                        return at(i);
        return NULL;
}

static void do_release(void) {
        struct sent *s = random_held();
        struct psyne_msg copy;

        if (!s)
                return;
        copy = s->m;
        check(lane_release(&f.rx, &s->m) == 0, "%s", error_get());
        s->state = GONE_EARLY;
        n_held--;
        n_early++;
        if (!below(8))
                check(lane_release(&f.rx, &copy) == -EINVAL, "released twice");
        forget_released();
}

static void do_release_batch(void) {
        struct psyne_msg m[LANE_HELD_MAX];
        struct sent *which[LANE_HELD_MAX];
        unsigned n = 0, most = 1 + (unsigned)below(12);
        uint64_t i = first + (below(2) ? 0 : below(count_taken - first + 1));
        int r;

        for (; i != count_taken && n < most; i++)
                if (at(i)->state == HELD) {
                        which[n] = at(i);
                        m[n++] = at(i)->m;
                }
        r = lane_rx_release_n(&f.rx, m, n);
        check(r == (int)n, "%d of %u: %s", r, n, error_get());
        for (unsigned k = 0; k < n; k++)
                which[k]->state = GONE_EARLY;
        n_held -= n;
        n_early += n;
        forget_released();
}

static void do_publish(void) {
        (void)lane_rx_publish(&f.rx);
        check(layout_cursor(&f.view, 0, 0)->published == f.rx.hot.released, "it lags");
}

static void do_die(void) {
        deaths++;
        f.held_max = 1 + (uint32_t)below(LANE_HELD_MAX);
        check(fixture_reader_dies(&f) == 0, "%s", error_get());
        for (uint64_t i = first; i != next; i++)
                at(i)->state = WAITING;
        count_taken = first;
        n_held = n_early = 0;
}

/* ---- all of it -----------------------------------------------------------------------------------------------------
 */

static void check_all(void) {
        struct lane_span spans[OPEN_MAX];
        const char *broken;
        uint64_t low, high, released = f.rx.hot.line->released;

        for (unsigned i = 0; i < n_open; i++)
                spans[i] = (struct lane_span){claims[i].start, claims[i].end};
        broken = clear_ahead_broken(&f, spans, n_open);
        check(!broken, "%s", broken);
        check(f.tx.hot.tail == (n_open ? claims[0].start : f.tx.hot.head), "tail");
        check(f.tx.hot.head == (n_open ? claims[n_open - 1].end : f.tx.hot.tail), "head");
        check(f.rx.hot.held == n_held, "%u held instead of %u", f.rx.hot.held, n_held);

        /* The exact position: at the oldest message not released, or at padding right before it. */
        high = first == next ? f.tx.hot.tail : at(first)->start;
        low = high;
        for (uint64_t i = first; first - i < SENT_MAX / 2 && at(i - 1)->padding && at(i - 1)->end == low && i; i--)
                low = at(i - 1)->start;
        check(released - low <= high - low, "released %lu, not in [%lu, %lu]", released, low, high);
}

static void run(uint64_t steps) {
        static const struct {
                const char *name;
                void (*run)(void);
                unsigned weight;
        } all[] = {
                {"claim", do_claim, 40},
                {"commit", do_commit, 30},
                {"commit a batch", do_commit_batch, 6},
                {"abort", do_abort, 8},
                {"abort all", do_abort_all, 1},
                {"resize", do_resize, 6},
                {"take", do_take, 40},
                {"release", do_release, 36},
                {"release a batch", do_release_batch, 8},
                {"publish", do_publish, 4},
                {"die", do_die, 1},
        };
        unsigned sum = 0, bias = 0;

        for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
                sum += all[i].weight;
        for (uint64_t n = 0; n < steps; n++, step++) {
                unsigned i = 0;
                int pick;

                if (n % 256 == 0) /* phases in which one end is lazy: full rings and empty ones */
                        bias = (unsigned)below(3);
                do {
                        for (i = 0, pick = (int)below(sum); (pick -= (int)all[i].weight) >= 0; i++)
                                ;
                } while ((bias == 1 && i >= 6 && below(4)) || (bias == 2 && i < 6 && below(4)));
                what = all[i].name;
                all[i].run();
                check_all();
        }
}

int main(void) {
        static const uint64_t aligns[] = {16, 64, 128, 1024};
        static const uint64_t starts[] = {0, (1ull << 32) - 4096, (1ull << 63) - 4096, 0ull - 4096};
        const char *text = getenv("PSYNE_STEPS");
        uint64_t steps = text ? strtoull(text, NULL, 0) : 1000000, rounds = 64;

        seed = random_seed_from_environment();
        state = seed;
        printf("PSYNE_SEED=%lu\n", seed);
        fflush(stdout);
        for (uint64_t round = 0; round < rounds; round++) {
                uint64_t ring = 4096ull << below(2);

                fixture_init(&f, ring, aligns[below(4)], starts[below(4)]);
                f.held_max = LANE_HELD_MAX;
                memset(sent, 0, sizeof(sent));
                first = next = count_taken = SENT_MAX;
                handed_end = f.start;
                n_held = n_early = n_open = 0;
                run(steps / rounds + 1);

                /* In the end all of it comes out. */
                what = "drain";
                do_abort_all();
                while (count_taken != next || n_held) {
                        do_take();
                        while (n_held)
                                do_release();
                }
                check(lane_rx_take(&f.rx, &(struct psyne_msg){0}) == 0,
                        "something is left"); /* walks the last padding */
                check(f.rx.hot.line->released == f.tx.hot.tail, "not all of it was released");
                check(lane_tx_free_position(&f.tx, true) == f.tx.hot.tail, "drained and not free");
                fixture_deinit(&f);
        }
        printf("%lu steps: %lu received, %lu of them again after %lu deaths, %lu times full\n", step, received,
                redelivered, deaths, fulls);
        return 0;
}
