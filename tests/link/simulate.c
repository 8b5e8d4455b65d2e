/*
 * Both ends of a link over a network that is not there: every run is one seed, which decides how much is written and read
 * at a time, how the bytes are cut, how long they take, when a connection breaks (each end learns of it in its own time),
 * which bit is flipped, and whether what an old connection had left still arrives. What comes out has to be what went in,
 * every byte at its position, nothing twice, and it has to come to an end.
 *
 *      simulate [RUNS [SEED]]      default 100,000 (or PSYNE_RUNS); with SEED only that one, and what it did
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link/protocol.h"

#define RING 4096u
#define ALIGN 64u
#define PIPE 3000u /* what the network holds in one direction */
#define STEPS_MAX 200000u

struct pipe {
        unsigned char bytes[PIPE];
        size_t n;
};

struct run {
        uint64_t seed, random;
        int64_t now;

        /* The sender's host: a ring of bytes that depend on their position, and its end of the link. */
        struct link_tx tx;
        bool tx_up;
        uint64_t start, end;

        /* The receiver's: what outlives a connection is the lane. */
        struct link_rx rx;
        bool rx_up, have_lane, ended;
        uint64_t session, got, released, readers;
        unsigned char ring[RING];

        struct pipe there, back;
        bool severed;       /* nothing passes any more, and not both ends know */
        uint64_t connections, breaks, flips, frames, hung_up;
};

static uint64_t next(struct run *u) {
        u->random += 0x9e3779b97f4a7c15ull;
        uint64_t z = u->random;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        return z ^ z >> 31;
}

static uint64_t below(struct run *u, uint64_t n) {
        return next(u) % n;
}

static unsigned char byte_at(const struct run *u, uint64_t position) {
        return (unsigned char)(((position + u->seed) * 0x9e3779b97f4a7c15ull) >> 56);
}

static int fail(const struct run *u, const char *what) {
        printf("FAIL PSYNE_SEED=%llu: %s (acked %llu, sent %llu, tail %llu, got %llu, released %llu of %llu; tx %d, rx %d)\n",
                (unsigned long long)u->seed, what, (unsigned long long)u->tx.acked, (unsigned long long)u->tx.sent,
                (unsigned long long)u->tx.tail, (unsigned long long)u->got, (unsigned long long)u->released,
                (unsigned long long)u->end, u->tx.state, u->rx.state);
        return -1;
}

static uint32_t crc_of_span(void *ctx, uint64_t position, size_t n) {
        struct run *u = ctx;
        unsigned char bytes[RING];

        for (size_t i = 0; i < n; i++)
                bytes[i] = byte_at(u, position + i);
        return link_crc32c(0, bytes, n);
}

static void hang_up_tx(struct run *u) {
        link_tx_lost(&u->tx);
        u->tx_up = false;
        u->severed = true;
}

static void hang_up_rx(struct run *u) {
        link_rx_lost(&u->rx);
        u->rx_up = false;
        u->severed = true;
}

/* ---- the network ------------------------------------------------------------------------------------------------- */

static void put(struct run *u, struct pipe *p, unsigned char byte) {
        if (!u->severed)
                p->bytes[p->n++] = byte;
}

static size_t room(const struct pipe *p) {
        return PIPE - p->n;
}

static void take(struct pipe *p, size_t n) {
        memmove(p->bytes, p->bytes + n, p->n - n);
        p->n -= n;
}

static void flip(struct run *u, struct pipe *p) {
        if (!p->n)
                return;
        p->bytes[below(u, p->n)] ^= (unsigned char)(1u << below(u, 8));
        u->flips++;
}

/* ---- steps of each end ------------------------------------------------------------------------------------------- */

static void connect_again(struct run *u) {
        /* What is still under way belongs to the old one, and a new socket does not see it. */
        u->there.n = u->back.n = 0;
        u->severed = false;
        u->tx_up = u->rx_up = true;
        link_tx_connected(&u->tx, u->now, (uint64_t[2]){next(u), next(u)});
        link_rx_init(&u->rx);
        link_rx_connected(&u->rx, u->now);
        u->connections++;
}

static void tx_write(struct run *u) {
        struct link_out out;
        size_t n, most;

        if (!u->tx_up || !link_tx_out(&u->tx, &out))
                return;
        most = out.head_bytes + out.span_bytes;
        n = 1 + below(u, below(u, 4) ? most : 16 < most ? 16 : most);
        if (!u->severed && n > room(&u->there))
                n = room(&u->there);
        for (size_t i = 0; i < n; i++)
                put(u, &u->there, i < out.head_bytes ? ((const unsigned char *)out.head)[i]
                                                     : byte_at(u, out.position + i - out.head_bytes));
        link_tx_wrote(&u->tx, n);
}

static int tx_read(struct run *u) {
        size_t n = u->back.n ? 1 + below(u, u->back.n) : 0;

        if (!u->tx_up)
                return 0;
        if (n) {
                int r = link_tx_read(&u->tx, u->back.bytes, n);

                take(&u->back, n);
                if (r < 0) {
                        u->hung_up++;
                        hang_up_tx(u);
                }
        }
        if (link_tx_tick(&u->tx, u->now) < 0)
                hang_up_tx(u);
        return 0;
}

static void rx_write(struct run *u) {
        struct link_out out;
        size_t n;

        if (!u->rx_up)
                return;
        if (link_rx_tick(&u->rx, u->now) < 0) {
                hang_up_rx(u);
                return;
        }
        if (!link_rx_out(&u->rx, &out))
                return;
        n = 1 + below(u, out.head_bytes);
        if (!u->severed && n > room(&u->back))
                n = room(&u->back);
        for (size_t i = 0; i < n; i++)
                put(u, &u->back, ((const unsigned char *)out.head)[i]);
        link_rx_wrote(&u->rx, n);
}

static int rx_called(struct run *u) {
        if (u->have_lane && u->session != u->rx.now.session)
                return fail(u, "another session");
        if (strncmp(u->rx.hello.name, "simulated", LINK_NAME_MAX) != 0 || u->rx.hello.ring_bytes != RING)
                return fail(u, "a hello that was changed went through");
        u->session = u->rx.now.session;
        link_rx_freed(&u->rx, u->released);
        link_rx_welcome(&u->rx, RING, u->have_lane ? u->got : LINK_NOWHERE);
        link_rx_readers(&u->rx, u->readers);
        return 0;
}

static int rx_started(struct run *u) {
        if (u->have_lane)
                return fail(u, "a second start");
        if (u->rx.now.position != u->start)
                return fail(u, "it starts elsewhere");
        u->have_lane = true;
        u->got = u->released = u->rx.now.position;
        link_rx_freed(&u->rx, u->released);
        link_rx_started(&u->rx);
        return 0;
}

static int rx_arrived(struct run *u) {
        unsigned char bytes[RING];

        u->frames++;
        if (u->rx.frame_at != u->got)
                return fail(u, "a frame where nothing is expected");
        for (size_t i = 0; i < u->rx.now.bytes; i++)
                bytes[i] = u->ring[(u->rx.frame_at + i) % RING];
        if (link_crc32c(0, bytes, u->rx.now.bytes) != u->rx.now.crc) {
                u->hung_up++;
                hang_up_rx(u);
                return 0;
        }
        link_rx_accept(&u->rx, u->now);
        u->got = u->rx.got;
        return 0;
}

static int rx_read(struct run *u) {
        struct link_into into;
        size_t n;
        int e;

        if (!u->rx_up || !u->there.n)
                return 0;
        link_rx_want(&u->rx, &into);
        if (!into.n)
                return 0;
        n = 1 + below(u, into.n < u->there.n ? into.n : u->there.n);
        if (into.bytes)
                memcpy(into.bytes, u->there.bytes, n);
        else {
                if (into.position - u->released + into.n > RING || into.position - u->got > RING)
                        return fail(u, "it would write over what readers still have");
                for (size_t i = 0; i < n; i++)
                        u->ring[(into.position + i) % RING] = u->there.bytes[i];
        }
        take(&u->there, n);
        e = link_rx_read(&u->rx, n);
        if (e < 0) {
                u->hung_up++;
                hang_up_rx(u);
        } else if (e == LINK_CALLED)
                return rx_called(u);
        else if (e == LINK_STARTED)
                return rx_started(u);
        else if (e == LINK_ARRIVED)
                return rx_arrived(u);
        else if (e == LINK_CLOSED) {
                if (u->got != u->end)
                        return fail(u, "closed before its end");
                u->ended = true;
        }
        return 0;
}

/* The receiver's readers: each byte has to be the one of its position. */
static int release(struct run *u) {
        uint64_t n = u->got - u->released;

        if (!n)
                return 0;
        n = (1 + below(u, n / ALIGN)) * ALIGN;
        for (; n; n--, u->released++)
                if (u->ring[u->released % RING] != byte_at(u, u->released))
                        return fail(u, "a byte that nobody sent");
        if (u->rx_up)
                link_rx_freed(&u->rx, u->released);
        return 0;
}

static void commit(struct run *u) {
        uint64_t most = u->tx.acked + RING - u->tx.tail, left = u->end - u->tx.tail;

        if (!u->tx.has_lane) { /* links are up before there is a lane, and lanes before there is a link */
                if (below(u, 4) == 0)
                        link_tx_start(&u->tx, u->start);
                return;
        }
        if (most > left)
                most = left;
        if (most > RING - (u->tx.tail - u->tx.sent)) /* a frame that the ring cannot hold */
                most = RING - (u->tx.tail - u->tx.sent);
        if (most)
                link_tx_commit(&u->tx, u->tx.tail + (1 + below(u, most / ALIGN)) * ALIGN);
        if (below(u, 4) == 0)
                link_tx_close(&u->tx, u->end);
}

static void readers_change(struct run *u) {
        u->readers = below(u, 3);
        if (u->rx_up)
                link_rx_readers(&u->rx, u->readers);
}

/* ---- a run ------------------------------------------------------------------------------------------------------- */

static int run(uint64_t seed, bool loud, uint64_t totals[4]) {
        static struct run u;
        struct link_hello hello = {.ring_bytes = RING, .record_align = ALIGN, .mode = 1, .name_bytes = 9, .name = "simulated"};
        uint64_t breaks, flips;
        unsigned step;

        memset(&u, 0, sizeof(u));
        u.seed = u.random = seed;
        u.start = below(&u, 2) ? below(&u, 1000) * ALIGN : (uint64_t)0 - below(&u, 100) * ALIGN; /* across the end of numbers */
        u.end = u.start + (1 + below(&u, 400)) * ALIGN;
        breaks = below(&u, 3) ? below(&u, 30) : 0;
        flips = below(&u, 4) ? 0 : below(&u, 5);
        link_tx_init(&u.tx, next(&u) | 1, &hello, crc_of_span, &u);
        for (step = 0; step < STEPS_MAX && !(u.ended && u.released == u.end && u.tx.state == LINK_ENDED); step++) {
                int r = 0;

                u.now += (int64_t)below(&u, 2000000);
                if (!u.tx_up && u.tx.state != LINK_ENDED && below(&u, 4) == 0) {
                        u.ended = false;
                        connect_again(&u);
                }
                if (u.tx_up && u.rx_up && !u.severed && !u.there.n && !u.back.n && u.tx.state == LINK_OPEN && !u.rx.head_left &&
                        !u.rx.readers_due && u.rx.state == LINK_OPEN && u.tx.readers != u.readers && !u.flips)
                        r = fail(&u, "it has heard of other readers than there are");
                if (below(&u, 50) == 0)
                        readers_change(&u);
                switch (below(&u, 8)) {
                case 0:
                        commit(&u);
                        break;
                case 1:
                case 2:
                        tx_write(&u);
                        break;
                case 3:
                        r = tx_read(&u);
                        break;
                case 4:
                case 5:
                        r = rx_read(&u);
                        break;
                case 6:
                        rx_write(&u);
                        break;
                default:
                        r = release(&u);
                }
                if (r < 0)
                        return -1;
                if (breaks && below(&u, 200) == 0) {
                        breaks--;
                        u.breaks++;
                        u.severed = true; /* what was under way is lost, or arrives all the same */
                        if (below(&u, 2))
                                u.there.n = below(&u, u.there.n + 1);
                        if (below(&u, 2))
                                u.back.n = below(&u, u.back.n + 1);
                }
                if (flips && below(&u, 100) == 0) {
                        flips--;
                        flip(&u, below(&u, 4) ? &u.there : &u.back);
                }
                /* Each end hears of a broken connection once what had arrived is read, sooner or later. */
                if (u.severed && u.tx_up && !u.back.n && below(&u, 20) == 0)
                        hang_up_tx(&u);
                if (u.severed && u.rx_up && !u.there.n && below(&u, 20) == 0)
                        hang_up_rx(&u);
        }
        if (loud)
                printf("seed %llu: %u steps, %llu bytes, %llu connections, %llu breaks, %llu flips, %llu frames, %llu hung up\n",
                        (unsigned long long)seed, step, (unsigned long long)(u.end - u.start),
                        (unsigned long long)u.connections, (unsigned long long)u.breaks, (unsigned long long)u.flips,
                        (unsigned long long)u.frames, (unsigned long long)u.hung_up);
        totals[0] += u.end - u.start;
        totals[1] += u.connections;
        totals[2] += u.flips;
        totals[3] += u.hung_up;
        return step < STEPS_MAX ? 0 : fail(&u, "it does not come to an end");
}

int main(int argc, char **argv) {
        const char *text = argc > 1 ? argv[1] : getenv("PSYNE_RUNS");
        uint64_t n = text ? strtoull(text, NULL, 10) : 100000, totals[4] = {0};

        if (link_crc32c(0, "123456789", 9) != 0xe3069283u) {
                printf("FAIL: crc32c\n");
                return 1;
        }
        if (argc > 2)
                return run(strtoull(argv[2], NULL, 10), true, totals) < 0;
        for (uint64_t seed = 1; seed <= n; seed++)
                if (run(seed, false, totals) < 0)
                        return 1;
        printf("%llu runs: %llu bytes over %llu connections, %llu bits flipped, %llu times hung up on nonsense\n",
                (unsigned long long)n, (unsigned long long)totals[0], (unsigned long long)totals[1],
                (unsigned long long)totals[2], (unsigned long long)totals[3]);
        return 0;
}
