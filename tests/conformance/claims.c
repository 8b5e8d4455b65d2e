/* The sending end beyond claim and commit: abort, resize, commit_next, batches, and every way to misuse them. */
#include "family.h"

#include <sys/uio.h>

/* ---- abort ------------------------------------------------------------------------------------------------------- */

/*
 * An aborted claim leaves its bytes in the ring: they must never be read. At every offset of three laps, of the newest
 * claim, of an older one (which becomes padding), and of all. The reader spins on the word where the next message will
 * start, and is given the time to look at it after each message: what an aborted claim left there it takes for one.
 */
static int abort_send(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m[4];
        uint64_t blocks;
        uint32_t n = 0;

        NEAR(ONE_COUNT);
        OPEN_PRODUCER(&e, "size=4096");
        world_reach(w, 1);
        MUST_BE(psyne_wait_peers(e.ch, 1, 1, WATCHDOG_NS), 0);
        for (unsigned i = 0; i < 200; i++) {
                /* newest */
                MUST_BE(psyne_claim(e.p, 500, WATCHDOG_NS, &m[0]), 0);
                memset(m[0].data, 0xff, m[0].cap);
                MUST_BE(psyne_abort(e.p, &m[0]), 0);
                MUST_REFUSE(psyne_abort(e.p, &m[0]), -EINVAL);
                blocks = METRIC(e.ch, receive_blocks);
                SEND(&e, n++, i % 100);
                MUST_BE(psyne_flush(e.p, WATCHDOG_NS), 0);
                UNTIL(METRIC(e.ch, receive_blocks) > blocks);
                /* older, then the newest, then in the middle */
                for (unsigned k = 0; k < 4; k++) {
                        MUST_BE(psyne_claim(e.p, 40 * k + i % 64, WATCHDOG_NS, &m[k]), 0);
                        memset(m[k].data, 0xff, m[k].cap);
                }
                MUST_BE(psyne_abort(e.p, &m[0]), 0);
                MUST_BE(psyne_abort(e.p, &m[3]), 0);
                MUST_BE(psyne_abort(e.p, &m[i % 2 ? 2 : 1]), 0);
                m[0] = m[i % 2 ? 1 : 2];
                pattern_fill(m[0].data, m[0].len, n);
                m[0].type = n++;
                MUST_BE(psyne_commit(e.p, &m[0]), 0);
                /* all, oldest first */
                for (unsigned k = 0; k < 3; k++)
                        MUST_BE(psyne_claim(e.p, 100, WATCHDOG_NS, &m[k]), 0);
                for (unsigned k = 0; k < 3; k++) {
                        memset(m[k].data, 0xff, m[k].cap);
                        MUST_BE(psyne_abort(e.p, &m[k]), 0);
                }
        }
        MUST_BE(METRIC(e.ch, aborted), 200 * 7);
        MUST_BE(METRIC(e.ch, messages_sent), n);
        CLOSE(&e);
        return 0;
}
static int abort_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;
        uint32_t n = 0;

        AWAIT(1);
        OPEN_CONSUMER(&e, "wait=spin");
        MUST_BE(psyne_set_wait(psyne_consumer_endpoint(e.c), PSYNE_WAIT_SPIN), 0); /* memory:// is one channel */
        for (unsigned i = 0; i < 200; i++) {
                RECEIVE(&e, n++, i % 100);
                RECEIVE(&e, n++, (i % 2 ? 40 : 80) + i % 64);
        }
        MUST_REFUSE(psyne_recv(e.c, &m, WATCHDOG_NS), -EPIPE);
        CLOSE(&e);
        return 0;
}
FAMILY(abort, abort_send, abort_recv)

/* Closing aborts what is claimed. */
static int abort_close_send(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m[3];

        OPEN_PRODUCER(&e, "size=4096");
        world_reach(w, 1);
        SEND(&e, 1, 10);
        for (unsigned k = 0; k < 3; k++)
                MUST_BE(psyne_claim(e.p, 100, PSYNE_NOWAIT, &m[k]), 0);
        AWAIT(2);
        MUST_BE(psyne_producer_close(e.p), 0);
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        SEND(&e, 2, 20);
        CLOSE(&e);
        return 0;
}
static int abort_close_recv(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        RECEIVE(&e, 1, 10);
        world_reach(w, 2);
        for (;;) { /* between the two there is no producer */
                struct psyne_msg m;
                int r = psyne_recv(e.c, &m, WATCHDOG_NS);

                if (r == -EPIPE)
                        continue;
                MUST_BE(r, 0);
                MUST(m.type == 2 && m.len == 20 && pattern_is(m.data, 20, 2));
                MUST_BE(psyne_release(e.c, &m), 0);
                break;
        }
        CLOSE(&e);
        return 0;
}
FAMILY(abort_at_close, abort_close_send, abort_close_recv)

/* ---- resize ------------------------------------------------------------------------------------------------------ */

static int resize_send(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m, older;

        OPEN_PRODUCER(&e, "size=4096");
        world_reach(w, 1);
        for (uint32_t n = 0; n < 500; n++) {
                size_t first = 1 + n * 37 % 900, second = n * 101 % 1500;

                MUST_BE(psyne_claim(e.p, first, WATCHDOG_NS, &m), 0);
                memset(m.data, 0xff, m.cap);
                pattern_fill(m.data, first, n);
                if (second > first) /* until there is room, in case the reader is behind */
                        for (int r = -ENOSPC; r == -ENOSPC;) {
                                r = psyne_resize(e.p, &m, second);
                                MUST(r == 0 || r == -ENOSPC);
                                MUST(pattern_is(m.data, first, n)); /* kept, either way */
                                if (w->page->failed)
                                        return -1;
                        }
                else
                        MUST_BE(psyne_resize(e.p, &m, second), 0);
                MUST_BE(m.len, second);
                MUST(m.cap >= second);
                pattern_fill(m.data, second, n);
                m.type = n;
                MUST_BE(psyne_commit(e.p, &m), 0);
        }
        MUST_BE(psyne_flush(e.p, WATCHDOG_NS), 0);
        MUST_BE(psyne_claim(e.p, 10, PSYNE_NOWAIT, &older), 0);
        MUST_BE(psyne_claim(e.p, 10, PSYNE_NOWAIT, &m), 0);
        MUST_REFUSE(psyne_resize(e.p, &m, 4017), -EMSGSIZE);
        MUST_REFUSE(psyne_resize(e.p, &m, SIZE_MAX), -EMSGSIZE);
        MUST_REFUSE(psyne_resize(e.p, &m, 4016), -ENOSPC); /* the older one is in the way */
        MUST(psyne_resize(e.p, &older, 500) < 0);          /* not the newest */
        MUST_BE(psyne_resize(e.p, &older, 0), 0);
        memcpy(m.data, "kept", 4);
        MUST_BE(psyne_resize(e.p, &m, 3000), 0);
        MUST_BE(memcmp(m.data, "kept", 4), 0);
        MUST_BE(psyne_abort(e.p, &m), 0);
        MUST_REFUSE(psyne_resize(e.p, &m, 1), -EINVAL);
        MUST_BE(psyne_abort(e.p, &older), 0);
        /* Setting the length before the commit is a shrink as well. */
        MUST_BE(psyne_claim(e.p, 1000, PSYNE_NOWAIT, &m), 0);
        memset(m.data, 0xff, m.cap);
        pattern_fill(m.data, 3, 500);
        m.len = 3;
        m.type = 500;
        MUST_BE(psyne_commit(e.p, &m), 0);
        SEND(&e, 501, 64);
        CLOSE(&e);
        return 0;
}
static int resize_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        for (uint32_t n = 0; n < 500; n++)
                RECEIVE(&e, n, n * 101 % 1500);
        RECEIVE(&e, 500, 3);
        RECEIVE(&e, 501, 64);
        MUST_REFUSE(psyne_recv(e.c, &m, WATCHDOG_NS), -EPIPE);
        CLOSE(&e);
        return 0;
}
FAMILY(resize, resize_send, resize_recv)

/* ---- commit_next ------------------------------------------------------------------------------------------------- */

static int next_send(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;

        OPEN_PRODUCER(&e, "size=4096");
        world_reach(w, 1);
        MUST_BE(psyne_claim(e.p, 100, PSYNE_NOWAIT, &m), 0);
        for (uint32_t n = 0; n < 1000; n++) {
                int r;

                MUST_BE(m.len, 100);
                pattern_fill(m.data, 100, n);
                m.type = n;
                r = psyne_commit_next(e.p, &m, n % 2 ? WATCHDOG_NS : PSYNE_NOWAIT);
                if (r == -EAGAIN) { /* that one was sent all the same */
                        MUST_REFUSE(psyne_commit(e.p, &m), -EINVAL);
                        r = psyne_claim(e.p, 100, WATCHDOG_NS, &m);
                }
                MUST_BE(r, 0);
        }
        MUST_BE(psyne_abort(e.p, &m), 0);
        MUST_REFUSE(psyne_commit_next(e.p, &m, PSYNE_NOWAIT), -EINVAL);
        CLOSE(&e);
        return 0;
}
static int next_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        for (uint32_t n = 0; n < 1000; n++)
                RECEIVE(&e, n, 100);
        MUST_REFUSE(psyne_recv(e.c, &m, WATCHDOG_NS), -EPIPE);
        CLOSE(&e);
        return 0;
}
FAMILY(commit_next, next_send, next_recv)

/* ---- batches ----------------------------------------------------------------------------------------------------- */

#define BATCH_N 5000

static int batch_send(struct world *w) {
        struct random r = random_seeded("batch");
        struct ends e = {0};
        struct psyne_msg m[32], swapped[3], hole[2];
        uint32_t n = 0;

        OPEN_PRODUCER(&e, "size=8192");
        world_reach(w, 1);
        while (n < BATCH_N) {
                unsigned want = 1 + (unsigned)random_below(&r, 32), commit;
                int got = psyne_claim_n(e.p, 64, want, WATCHDOG_NS, m);

                MUST(got >= 1 && (unsigned)got <= want);
                commit = (unsigned)got;
                if (random_below(&r, 4) == 0) { /* the tail of a batch is aborted, newest first */
                        commit = (unsigned)random_below(&r, (uint64_t)got);
                        for (unsigned i = (unsigned)got; i-- > commit;) {
                                memset(m[i].data, 0xff, m[i].cap);
                                MUST_BE(psyne_abort(e.p, &m[i]), 0);
                        }
                }
                for (unsigned i = 0; i < commit; i++) {
                        m[i].len = (n + i) % 65; /* shrunk or not */
                        pattern_fill(m[i].data, m[i].len, n + i);
                        m[i].type = n + i;
                }
                MUST_BE(psyne_commit_n(e.p, m, commit), (int)commit);
                n += commit;
        }
        w->page->words[0] = n;
        MUST_REFUSE(psyne_commit_n(e.p, m, 1), -EINVAL); /* done before */
        MUST_BE(psyne_commit_n(e.p, m, 0), 0);
        MUST_REFUSE(psyne_claim_n(e.p, 64, 0, PSYNE_NOWAIT, m), -EINVAL);
        MUST_REFUSE(psyne_claim_n(e.p, 8192, 2, PSYNE_NOWAIT, m), -EMSGSIZE);
        /* Out of order, or with a hole: nothing of it is sent. */
        MUST_BE(psyne_flush(e.p, WATCHDOG_NS), 0);
        MUST_BE(psyne_claim_n(e.p, 64, 3, PSYNE_NOWAIT, m), 3);
        swapped[0] = m[1], swapped[1] = m[0], swapped[2] = m[2];
        hole[0] = m[0], hole[1] = m[2];
        MUST_REFUSE(psyne_commit_n(e.p, swapped, 3), -EINVAL);
        MUST_REFUSE(psyne_commit_n(e.p, hole, 2), -EINVAL);
        m[1].len = m[1].cap + 1;
        MUST_REFUSE(psyne_commit_n(e.p, m, 3), -EINVAL);
        m[1].len = 1;
        for (unsigned i = 0; i < 3; i++)
                MUST_BE(psyne_abort(e.p, &m[i]), 0);
        MUST_BE(METRIC(e.ch, messages_sent), n);
        world_reach(w, 2);
        CLOSE(&e);
        return 0;
}
static int batch_recv(struct world *w) {
        struct random r = random_seeded("batch");
        struct ends e = {0};
        struct psyne_msg m[16];
        uint32_t n = 0;
        int got;

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        for (;;) {
                unsigned want = 1 + (unsigned)random_below(&r, 16);

                got = psyne_recv_n(e.c, m, want, WATCHDOG_NS);
                if (got == -EPIPE)
                        break;
                MUST(got >= 1 && (unsigned)got <= want);
                for (int i = 0; i < got; i++, n++) {
                        MUST_BE(m[i].type, n);
                        MUST_BE(m[i].len, n % 65);
                        MUST(pattern_is(m[i].data, m[i].len, n));
                }
                if (random_below(&r, 2))
                        MUST_BE(psyne_release_n(e.c, m, (unsigned)got), got);
                else { /* in two pieces, the later first */
                        MUST_BE(psyne_release_n(e.c, m + got / 2, (unsigned)(got - got / 2)), got - got / 2);
                        MUST_BE(psyne_release_n(e.c, m, (unsigned)(got / 2)), got / 2);
                }
        }
        AWAIT(2);
        MUST_BE(n, w->page->words[0]);
        MUST_BE(METRIC(e.ch, messages_received), n);
        MUST_REFUSE(psyne_release_n(e.c, m, 1), -EINVAL);
        MUST_BE(psyne_release_n(e.c, m, 0), 0);
        MUST_REFUSE(psyne_recv_n(e.c, m, 0, PSYNE_NOWAIT), -EINVAL);
        CLOSE(&e);
        return 0;
}
FAMILY(batch, batch_send, batch_recv)

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static int pieces_send(struct world *w) {
        char a[] = "one", b[] = "three";
        const struct iovec v[] = {{a, 3}, {NULL, 0}, {b, 5}}, null = {NULL, 1},
                           huge[] = {{a, SIZE_MAX}, {b, 5}};
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=4096");
        MUST_BE(psyne_sendv(e.p, 9, v, 3, PSYNE_NOWAIT), 0);
        MUST_BE(psyne_sendv(e.p, 10, NULL, 0, PSYNE_NOWAIT), 0);
        MUST_BE(psyne_send(e.p, 11, NULL, 0, PSYNE_NOWAIT), 0);
        MUST_REFUSE(psyne_send(e.p, 11, NULL, 1, PSYNE_NOWAIT), -EINVAL);
        MUST_REFUSE(psyne_sendv(e.p, 9, &null, 1, PSYNE_NOWAIT), -EINVAL);
        MUST_REFUSE(psyne_sendv(e.p, 9, NULL, 1, PSYNE_NOWAIT), -EINVAL);
        MUST_REFUSE(psyne_sendv(e.p, 9, v, -1, PSYNE_NOWAIT), -EINVAL);
        MUST_REFUSE(psyne_sendv(e.p, 9, huge, 2, PSYNE_NOWAIT), -EMSGSIZE);
        MUST_BE(METRIC(e.ch, copied_sends), 3);
        MUST_BE(METRIC(e.ch, bytes_sent), 8);
        world_reach(w, 1);
        CLOSE(&e);
        return 0;
}
static int pieces_recv(struct world *w) {
        struct ends e = {0};
        char text[16] = "";
        uint32_t type;

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        MUST_REFUSE(psyne_recv_copy(e.c, text, 7, &type, WATCHDOG_NS), -EMSGSIZE); /* not consumed */
        MUST_REFUSE(psyne_recv_copy(e.c, NULL, 1, &type, WATCHDOG_NS), -EINVAL);
        MUST_BE(psyne_recv_copy(e.c, text, 8, &type, WATCHDOG_NS), 8);
        MUST(!memcmp(text, "onethree", 9));
        MUST_BE(type, 9);
        MUST_BE(psyne_recv_copy(e.c, text, 8, &type, WATCHDOG_NS), 0);
        MUST_BE(psyne_recv_copy(e.c, NULL, 0, NULL, WATCHDOG_NS), 0);
        MUST_BE(METRIC(e.ch, messages_received), 3);
        CLOSE(&e);
        return 0;
}
FAMILY(pieces, pieces_send, pieces_recv)

/* ---- misuse of messages and handles ------------------------------------------------------------------------------ */

static int misuse_send(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m, second, copy, zero = {0};
        struct psyne_channel *other;
        struct psyne_producer *p;

        OPEN_PRODUCER(&e, "size=4096");
        MUST_BE(psyne_claim(e.p, 10, PSYNE_NOWAIT, &m), 0);
        MUST_BE(psyne_claim(e.p, 10, PSYNE_NOWAIT, &second), 0);
        MUST_REFUSE(psyne_commit(e.p, &second), -EINVAL); /* out of order */
        m.len = m.cap + 1;
        MUST_REFUSE(psyne_commit(e.p, &m), -EINVAL);
        m.len = 10;
        copy = m;
        pattern_fill(m.data, 10, 1);
        m.type = 1;
        MUST_BE(psyne_commit(e.p, &m), 0);
        MUST_REFUSE(psyne_commit(e.p, &m), -EINVAL); /* twice */
        MUST_REFUSE(psyne_commit(e.p, &copy), -EINVAL); /* twice, through a copy */
        MUST_REFUSE(psyne_abort(e.p, &copy), -EINVAL);
        MUST_REFUSE(psyne_abort(e.p, &m), -EINVAL);
        MUST_REFUSE(psyne_resize(e.p, &copy, 3), -EINVAL);
        MUST_REFUSE(psyne_commit(e.p, &zero), -EINVAL);
        MUST_REFUSE(psyne_abort(e.p, &zero), -EINVAL);
        pattern_fill(second.data, 10, 2);
        second.type = 2;
        MUST_BE(psyne_commit(e.p, &second), 0);
        /* of another producer */
        MUST_BE(psyne_open("memory://", NULL, &other), 0);
        MUST_BE(psyne_producer_open(other, NULL, &p), 0);
        MUST_BE(psyne_claim(p, 10, PSYNE_NOWAIT, &copy), 0);
        MUST_REFUSE(psyne_commit(e.p, &copy), -EINVAL);
        MUST_REFUSE(psyne_abort(e.p, &copy), -EINVAL);
        MUST_BE(psyne_abort(p, &copy), 0);
        MUST_BE(psyne_producer_close(p), 0);
        psyne_close(other);
        MUST_BE(METRIC(e.ch, messages_sent), 2);
        world_reach(w, 1);
        CLOSE(&e);
        return 0;
}
static int misuse_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m, copy, second, zero = {0};

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        TAKE(&e, &m, 1, 10);
        TAKE(&e, &second, 2, 10);
        copy = m;
        MUST_BE(psyne_release(e.c, &m), 0);
        MUST_REFUSE(psyne_release(e.c, &m), -EINVAL); /* twice */
        MUST_REFUSE(psyne_release(e.c, &copy), -EINVAL); /* twice, through a copy */
        MUST_REFUSE(psyne_release_n(e.c, &copy, 1), -EINVAL);
        MUST_REFUSE(psyne_release(e.c, &zero), -EINVAL);
        MUST(pattern_is(second.data, 10, 2));
        MUST_BE(METRIC(e.ch, messages_received), 1);
        MUST_BE(METRIC(e.ch, held), 1);
        MUST_BE(psyne_release(e.c, &second), 0);
        MUST_BE(METRIC(e.ch, messages_received), 2);
        CLOSE(&e);
        return 0;
}
FAMILY(misuse, misuse_send, misuse_recv)

/* Released out of order and then once more, while the older ones are still held: must be seen as well. */
static int release_twice_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m[4], copy;

        OPEN_PRODUCER(&e, "size=4096");
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        for (uint32_t n = 0; n < 4; n++)
                SEND(&e, n, 20);
        for (uint32_t n = 0; n < 4; n++)
                TAKE(&e, &m[n], n, 20);
        copy = m[2];
        MUST_BE(psyne_release(e.c, &m[2]), 0);
        MUST_REFUSE(psyne_release(e.c, &copy), -EINVAL);
        MUST_BE(psyne_release(e.c, &m[0]), 0);
        MUST_REFUSE(psyne_release(e.c, &copy), -EINVAL);
        MUST(pattern_is(m[1].data, 20, 1));
        MUST_BE(psyne_release(e.c, &m[1]), 0);
        MUST_BE(psyne_release(e.c, &m[3]), 0);
        MUST_BE(METRIC(e.ch, messages_received), 4);
        CLOSE(&e);
        return 0;
}
FAMILY(release_twice, release_twice_recv, NULL)

/* Every call but the inlined four (claim, commit, recv, release), which promise no look at a pointer. */
static int null_handles(struct world *w) {
        const struct psyne_handler handler = {.type = PSYNE_ANY_TYPE};
        struct psyne_channel *ch;
        struct psyne_msg m = {0};
        struct psyne_info info = {0};
        struct psyne_metrics metrics = {0};
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=4096");
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        MUST_REFUSE(psyne_open(NULL, NULL, &ch), -EINVAL);
        MUST_REFUSE(psyne_open("memory://", NULL, NULL), -EINVAL);
        MUST_REFUSE(psyne_producer_open(NULL, NULL, &e.p), -EINVAL);
        MUST_REFUSE(psyne_producer_open(e.ch, NULL, NULL), -EINVAL);
        MUST_REFUSE(psyne_consumer_open(NULL, NULL, &e.c), -EINVAL);
        MUST_REFUSE(psyne_consumer_open(e.ch, NULL, NULL), -EINVAL);
        MUST_REFUSE(psyne_wait_peers(NULL, 0, 0, 0), -EINVAL);
        MUST_REFUSE(psyne_poll(NULL, 0), -EINVAL);
        MUST_REFUSE(psyne_poll(e.ch, 0), -EINVAL); /* has a service thread, or needs none */
        MUST_REFUSE(psyne_abort(NULL, &m), -EINVAL);
        MUST_REFUSE(psyne_abort(e.p, NULL), -EINVAL);
        MUST_REFUSE(psyne_resize(NULL, &m, 1), -EINVAL);
        MUST_REFUSE(psyne_resize(e.p, NULL, 1), -EINVAL);
        MUST_REFUSE(psyne_commit_next(NULL, &m, 1), -EINVAL);
        MUST_REFUSE(psyne_commit_next(e.p, NULL, 1), -EINVAL);
        MUST_REFUSE(psyne_claim_n(NULL, 1, 1, 0, &m), -EINVAL);
        MUST_REFUSE(psyne_claim_n(e.p, 1, 1, 0, NULL), -EINVAL);
        MUST_REFUSE(psyne_commit_n(NULL, &m, 1), -EINVAL);
        MUST_REFUSE(psyne_commit_n(e.p, NULL, 1), -EINVAL);
        MUST_REFUSE(psyne_send(NULL, 0, "", 1, 0), -EINVAL);
        MUST_REFUSE(psyne_send(e.p, 0, NULL, 1, 0), -EINVAL);
        MUST_REFUSE(psyne_sendv(NULL, 0, NULL, 0, 0), -EINVAL);
        MUST_REFUSE(psyne_sendv(e.p, 0, NULL, 1, 0), -EINVAL);
        MUST_REFUSE(psyne_flush(NULL, 0), -EINVAL);
        MUST_REFUSE(psyne_recv_n(NULL, &m, 1, 0), -EINVAL);
        MUST_REFUSE(psyne_recv_n(e.c, NULL, 1, 0), -EINVAL);
        MUST_REFUSE(psyne_recv_copy(NULL, NULL, 0, NULL, 0), -EINVAL);
        MUST_REFUSE(psyne_recv_copy(e.c, NULL, 1, NULL, 0), -EINVAL);
        MUST_REFUSE(psyne_recv_type(NULL, 0, &m, 0), -EINVAL);
        MUST_REFUSE(psyne_recv_type(e.c, 0, NULL, 0), -EINVAL);
        MUST_REFUSE(psyne_recv_latest(NULL, &m), -EINVAL);
        MUST_REFUSE(psyne_recv_latest(e.c, NULL), -EINVAL);
        MUST_REFUSE(psyne_dispatch(NULL, &handler, 1, 1, 0), -EINVAL);
        MUST_REFUSE(psyne_dispatch(e.c, NULL, 1, 1, 0), -EINVAL);
        MUST_REFUSE(psyne_release_n(NULL, &m, 1), -EINVAL);
        MUST_REFUSE(psyne_release_n(e.c, NULL, 1), -EINVAL);
        MUST_REFUSE(psyne_info(NULL, &info), -EINVAL);
        MUST_REFUSE(psyne_info(e.ch, NULL), -EINVAL);
        MUST_REFUSE(psyne_info(e.ch, &info), -EINVAL); /* struct_size not set */
        MUST_REFUSE(psyne_metrics(NULL, &metrics), -EINVAL);
        MUST_REFUSE(psyne_metrics(e.ch, NULL), -EINVAL);
        MUST_REFUSE(psyne_metrics(e.ch, &metrics), -EINVAL);
        MUST_BE(psyne_stop(NULL, PSYNE_DRAIN), -EINVAL); /* may be called from a handler: no sentence */
        MUST_BE(psyne_is_stopped(NULL), 0);
        MUST_BE(psyne_set_wait(NULL, PSYNE_WAIT_SPIN), -EINVAL);
        MUST_BE(psyne_set_wait(psyne_producer_endpoint(e.p), (enum psyne_wait)9), -EINVAL);
        MUST(!psyne_producer_endpoint(NULL));
        MUST(!psyne_consumer_endpoint(NULL));
        MUST_BE(psyne_producer_close(NULL), 0);
        MUST_BE(psyne_consumer_close(NULL), 0);
        MUST(!psyne_close(NULL));
        CLOSE(&e);
        return 0;
}
FAMILY(null_handles, null_handles, NULL)

/* A send while a claim is open is refused before it takes anything. */
static int send_between(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;

        MUST_BE(world_open(w, "size=4K", &e.ch), 0);
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        for (unsigned i = 0; i < 2; i++) {
                MUST_BE(psyne_claim(e.p, 10, 0, &m), 0);
                m.type = i;
                MUST_REFUSE(psyne_send(e.p, 9, "x", 1, 0), -EINVAL);
                MUST_BE(i ? psyne_abort(e.p, &m) : psyne_commit(e.p, &m), 0);
                MUST_BE(psyne_send(e.p, 10 + i, "y", 1, 0), 0);
        }
        MUST_BE(psyne_recv(e.c, &m, 0), 0);
        MUST_BE(m.type, 0);
        MUST_BE(psyne_release(e.c, &m), 0);
        for (unsigned i = 0; i < 2; i++) {
                MUST_BE(psyne_recv(e.c, &m, 0), 0);
                MUST_BE(m.type, 10 + i);
                MUST_BE(psyne_release(e.c, &m), 0);
        }
        CLOSE(&e);
        return 0;
}
FAMILY(send_between_claims, send_between, NULL)
