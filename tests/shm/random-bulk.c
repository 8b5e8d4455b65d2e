/*
 * Two lanes with bytes going from one to the other, as over a link: runs of records are taken from the first, written
 * behind the tail of the second in pieces, sometimes only in part and then again, and landed. The payload looks like record
 * headers. The second's reader sees nothing of a run before it has landed, and then exactly what the first's producer sent.
 *
 *      test-shm-bulk [ROUNDS [SEED]]      default 20,000
 */
#include "shm/bulk.h"
#include "support.h"

#define RING 4096u

static struct fixture from, to;
static uint64_t random_state;

static uint64_t below(uint64_t n) {
        uint64_t z = random_state += 0x9e3779b97f4a7c15u;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return (z ^ z >> 31) % n;
}

static int fail(const char *what, uint64_t round) {
        printf("FAIL in round %llu: %s (%s)\n", (unsigned long long)round, what, error_get());
        return 1;
}

static size_t size_of(uint32_t n, uint64_t align) {
        return n % 7 == 0 ? (n * 31u) % (RING - align - PSYNE_RECORD_HEADER + 1) : (n * 17u) % 200;
}

/* Sends a few, some of them given up between others. Returns the next number. */
static uint32_t send_some(uint32_t n) {
        struct psyne_msg m[3];

        for (unsigned left = 1 + (unsigned)below(6); left; left--, n++) {
                bool abort_one = below(4) == 0;

                if (abort_one && !lane_claim(&from.tx, below(100), &m[0]))
                        break;
                if (!lane_claim(&from.tx, size_of(n, from.align), &m[1])) {
                        if (abort_one)
                                must(lane_tx_abort(&from.tx, &m[0]) == 0);
                        break;
                }
                if (abort_one)
                        must(lane_tx_abort(&from.tx, &m[0]) == 0);
                fill_like_records(m[1].data, m[1].cap, n, from.align);
                m[1].type = n;
                must(lane_commit(&from.tx, &m[1]) == 0);
        }
        return n;
}

/* Everything that has landed, or some of it. Returns the next number, UINT32_MAX: it was another message. */
static uint32_t receive_some(uint32_t n, bool all) {
        struct psyne_msg m;

        while (all || below(8)) {
                int r = lane_recv(&to.rx, &m);

                if (r == 0)
                        break;
                if (r < 0 || m.type != n || m.len != size_of(n, to.align) || !is_filled_like(m.data, m.len, n, to.align))
                        return UINT32_MAX;
                must(lane_release(&to.rx, &m) == 0);
                (void)lane_rx_publish(&to.rx);
                n++;
        }
        return n;
}

/* The second lane's [tail, tail + n) from the first's, but for the first word. */
static void write_run(uint64_t position, uint64_t n, uint64_t upto, uint32_t *word) {
        const unsigned char *bytes = bulk_at(&from.rx, position);
        unsigned char *tail = bulk_tail(&to.tx);

        memcpy(word, bytes, sizeof(*word));
        for (uint64_t at = sizeof(*word); at < upto;) {
                uint64_t k = 1 + below(n);

                k = k < upto - at ? k : upto - at;
                memcpy(tail + at, bytes + at, k);
                at += k;
        }
}

static int64_t take_run(uint64_t position) {
        int64_t n = bulk_span(&from.rx, position, 1 + below(RING / 2));

        if (n > 0 && position + (uint64_t)n - from.rx.hot.released > from.rx.hot.taken - from.rx.hot.released)
                bulk_take(&from.rx, position + (uint64_t)n);
        return n;
}

static int run(uint64_t rounds, uint64_t align, uint64_t start) {
        uint32_t sent = 0, received = 0, word;
        uint64_t position = start, landed = 0, again = 0;

        fixture_init(&from, RING, align, start);
        fixture_init(&to, RING, align, start + 64 * align); /* the positions of the two differ */
        for (uint64_t round = 0; round < rounds; round++) {
                const char *broken;
                int64_t n;

                sent = send_some(sent);
                n = take_run(position);
                lane_tx_refresh(&to.tx, true);
                if (n > 0 && (uint64_t)n <= bulk_room(&to.tx) && below(4) == 0) { /* it breaks off, and another run comes there */
                        write_run(position, (uint64_t)n, sizeof(word) + below((uint64_t)n - sizeof(word) + 1), &word);
                        again++;
                        n = take_run(position);
                }
                if (n < 0)
                        return fail("a span", round);
                if (n > 0 && (uint64_t)n <= bulk_room(&to.tx)) {
                        write_run(position, (uint64_t)n, (uint64_t)n, &word);
                        received = receive_some(received, true);
                        if (received == UINT32_MAX || to.rx.hot.taken != to.tx.hot.tail)
                                return fail("a reader ahead of the tail, or another message", round);
                        if (bulk_land(&to.tx, (uint64_t)n, word) < 0)
                                return fail("a run that is one was refused", round);
                        position += (uint64_t)n;
                        landed++;
                }
                broken = clear_ahead_broken(&to, NULL, 0);
                if (broken)
                        return fail(broken, round);
                received = receive_some(received, false);
                if (received == UINT32_MAX)
                        return fail("another message", round);
                if (below(3) == 0) { /* acknowledged: up to here */
                        bulk_release(&from.rx, position);
                        (void)lane_rx_publish(&from.rx);
                }
        }
        bulk_release(&from.rx, position);
        if (from.rx.hot.messages != to.tx.hot.messages || from.rx.hot.bytes != to.tx.hot.bytes)
                return fail("the two ends have counted differently", rounds);
        printf("align %-4llu start %-20llu %u messages sent, %u received, %llu runs landed, %llu begun again\n",
                (unsigned long long)align, (unsigned long long)start, sent, received, (unsigned long long)landed,
                (unsigned long long)again);
        fixture_deinit(&from);
        fixture_deinit(&to);
        return received < sent / 2;
}

/* Runs that are none: nothing of them is published. */
static int lies(void) {
        static const struct {
                uint32_t word, bytes;
                uint64_t kind, n;
        } runs[] = {
                {0, 0, 0, 64}, {63, 0, 0, 64}, {128, 0, 0, 64}, {64, 49, 0, 64}, {64, UINT32_MAX, 0, 64}, {UINT32_MAX & ~63u, 0, 0, 64},
                {64, 0, PSYNE_RECORD_STAMP, 64}, {64, 0, 1ull << 63, 64}, {64, 48, 0, 128}, {64, 48, 0, 65}, {64, 48, 0, 0},
                {64, 48, 0, RING}, {64, 48, 0, UINT64_MAX},
        };

        fixture_init(&to, RING, 64, 0);
        for (unsigned i = 0; i < sizeof(runs) / sizeof(*runs); i++) {
                struct psyne_record *r = bulk_tail(&to.tx);
                struct psyne_msg m;

                r->bytes = runs[i].bytes;
                r->kind = runs[i].kind;
                if (bulk_land(&to.tx, runs[i].n, runs[i].word) != -EBADMSG)
                        return fail("a lie was landed", i);
                if (lane_recv(&to.rx, &m) != 0 || to.tx.hot.tail != 0 || r->commit)
                        return fail("a lie was published", i);
        }
        fixture_deinit(&to);
        return 0;
}

int main(int argc, char **argv) {
        uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 20000;
        static const uint64_t aligns[] = {16, 64, 128}, starts[] = {0, (1ull << 32) - 128, UINT64_MAX - 127};

        random_state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
        if (lies())
                return 1;
        for (unsigned a = 0; a < 3; a++)
                for (unsigned s = 0; s < 3; s++)
                        if (run(rounds, aligns[a], starts[s]))
                                return 1;
        return 0;
}
