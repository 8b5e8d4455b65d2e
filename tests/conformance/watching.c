/* Waiting for others, and what can be read about a channel: peers, flush, linger, metrics, facts, signals. */
#include "family.h"

#include <pthread.h>
#include <signal.h>

/* ---- wait_peers -------------------------------------------------------------------------------------------------- */

static int peers_wait(struct world *w) {
        struct psyne_info info = {.struct_size = sizeof(info)};
        struct ends e = {0};
        int64_t before;

        MUST_BE(world_open(w, "size=4096", &e.ch), 0);
        MUST_BE(psyne_wait_peers(e.ch, 0, 0, PSYNE_NOWAIT), 0);
        MUST_REFUSE(psyne_wait_peers(e.ch, 1, 0, PSYNE_NOWAIT), -EAGAIN);
        before = now_ns();
        MUST_REFUSE(psyne_wait_peers(e.ch, 0, 1, 10 * MSEC), -ETIME);
        MUST(now_ns() - before >= 10 * MSEC && now_ns() - before < WATCHDOG_NS);
        world_reach(w, 1);
        MUST_BE(psyne_wait_peers(e.ch, 1, 1, WATCHDOG_NS), 0);
        MUST_BE(psyne_info(e.ch, &info), 0);
        MUST_BE(info.producers, 1);
        MUST_BE(info.consumers, 1);
        MUST_BE(psyne_wait_peers(e.ch, 1, 1, PSYNE_NOWAIT), 0);
        MUST_REFUSE(psyne_wait_peers(e.ch, 2, 1, PSYNE_NOWAIT), -EAGAIN);
        world_reach(w, 2);
        AWAIT(3);
        MUST_BE(psyne_info(e.ch, &info), 0);
        MUST_BE(info.producers, 0);
        MUST_BE(info.consumers, 0);
        CLOSE(&e);
        return 0;
}
static int peers_come(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        OPEN_PRODUCER(&e, NULL);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        AWAIT(2);
        CLOSE(&e);
        world_reach(w, 3);
        return 0;
}
FAMILY(wait_peers, peers_wait, peers_come)

/* ---- flush ------------------------------------------------------------------------------------------------------- */

static int flush_send(struct world *w) {
        struct ends e = {0};

        NEAR(ONE_COUNT);
        OPEN_PRODUCER(&e, "size=4096&wait=block");
        MUST_BE(psyne_flush(e.p, PSYNE_NOWAIT), 0); /* nothing sent */
        for (uint32_t i = 0; i < 5; i++)
                SEND(&e, i, 10);
        MUST_REFUSE(psyne_flush(e.p, PSYNE_NOWAIT), -EAGAIN);
        MUST_REFUSE(psyne_flush(e.p, 10 * MSEC), -ETIME);
        w->page->words[0] = METRIC(e.ch, send_blocks);
        world_reach(w, 1);
        MUST_BE(psyne_flush(e.p, WATCHDOG_NS), 0);
        MUST_BE(METRIC(e.ch, messages_received), 5); /* released, not just taken */
        SEND(&e, 5, 10);
        world_reach(w, 2);
        AWAIT(3);
        MUST_REFUSE(psyne_flush(e.p, WATCHDOG_NS), -EPIPE); /* readers were here and are gone */
        MUST_BE(psyne_producer_close(e.p), 1);              /* so does close, with the number nobody read */
        e.p = NULL;
        CLOSE(&e);
        return 0;
}
static int flush_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m[5];

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        for (uint32_t i = 0; i < 5; i++)
                TAKE(&e, &m[i], i, 10);
        UNTIL(METRIC(e.ch, send_blocks) > w->page->words[0]); /* it waits although all are taken */
        for (uint32_t i = 5; i-- > 0;)
                MUST_BE(psyne_release(e.c, &m[i]), 0);
        AWAIT(2);
        CLOSE(&e);
        world_reach(w, 3);
        return 0;
}
FAMILY(flush, flush_send, flush_recv)

/* ---- linger ------------------------------------------------------------------------------------------------------ */

/* Close lingers as long as the reader moves, however slowly, and longer than its patience without progress. */
static int linger_send(struct world *w) {
        const struct psyne_producer_opts opts = {.struct_size = sizeof(opts), .linger_ns = 1 * SECOND};
        struct ends e = {0};

        MUST_BE(world_open(w, "size=4096", &e.ch), 0);
        MUST_BE(psyne_producer_open(e.ch, &opts, &e.p), 0);
        for (uint32_t i = 0; i < 12; i++)
                SEND(&e, i, 10);
        world_reach(w, 1);
        AWAIT(2);
        CLOSE(&e); /* 0 unread */
        world_reach(w, 3);
        return 0;
}
static int linger_recv(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        world_reach(w, 2);
        for (uint32_t i = 0; i < 12; i++) {
                int64_t until = now_ns() + 150 * MSEC; /* 1.8 s together */

                RECEIVE(&e, i, 10);
                UNTIL(now_ns() > until);
                if (i < 11)
                        MUST(__atomic_load_n(&w->page->step, __ATOMIC_SEQ_CST) < 3);
        }
        AWAIT(3);
        CLOSE(&e);
        return 0;
}
FAMILY(linger_while_it_moves, linger_send, linger_recv)

/* Without a reader: as long as asked, then the number that nobody will read. */
static int linger_alone(struct world *w) {
        const struct psyne_producer_opts opts = {.struct_size = sizeof(opts), .linger_ns = 40 * MSEC},
                                         wrong = {.struct_size = sizeof(wrong), .full = (enum psyne_full)9},
                                         strange = {.struct_size = sizeof(strange), .wait = (enum psyne_wait)7};
        struct ends e = {0};
        int64_t before;

        MUST_BE(world_open(w, "size=4096", &e.ch), 0);
        MUST_REFUSE(psyne_producer_open(e.ch, &wrong, &e.p), -EINVAL);
        MUST_REFUSE(psyne_producer_open(e.ch, &strange, &e.p), -EINVAL);
        MUST_BE(psyne_producer_open(e.ch, &opts, &e.p), 0);
        for (uint32_t i = 0; i < 7; i++)
                SEND(&e, i, 10);
        before = now_ns();
        MUST_BE(psyne_producer_close(e.p), 7);
        MUST(now_ns() - before >= 40 * MSEC);
        e.p = NULL;
        MUST_BE(psyne_close(e.ch) == NULL, 1);
        /* By default a second. */
        e = (struct ends){0};
        MUST_BE(world_open(w, "size=4096", &e.ch), 0);
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        SEND(&e, 1, 10);
        before = now_ns();
        MUST_BE(psyne_producer_close(e.p), 1);
        MUST(now_ns() - before >= 900 * MSEC && now_ns() - before < WATCHDOG_NS);
        e.p = NULL;
        CLOSE(&e);
        /* As the address says. */
        MUST_BE(world_open(w, "size=4096&linger=0", &e.ch), 0);
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        SEND(&e, 1, 10);
        before = now_ns();
        MUST_BE(psyne_producer_close(e.p), 1);
        MUST(now_ns() - before < 500 * MSEC);
        e.p = NULL;
        CLOSE(&e);
        return 0;
}
FAMILY(linger_alone, linger_alone, NULL)

/* ---- metrics ----------------------------------------------------------------------------------------------------- */

static int metrics_send(struct world *w) {
        struct psyne_metrics m = {.struct_size = sizeof(m)}, zero = {.struct_size = sizeof(zero)};
        struct ends e = {0};

        NEAR(ONE_COUNT);
        OPEN_PRODUCER(&e, "size=4096");
        MUST_BE(psyne_metrics(e.ch, &m), 0);
        MUST(!memcmp(&m, &zero, sizeof(m)));
        for (uint32_t i = 1; i <= 10; i++)
                SEND(&e, i, i);
        MUST_BE(psyne_send(e.p, 11, "01234567890", 11, PSYNE_NOWAIT), 0);
        MUST_BE(psyne_metrics(e.ch, &m), 0);
        MUST_BE(m.messages_sent, 11);
        MUST_BE(m.bytes_sent, 66);
        MUST_BE(m.messages_received, 0);
        MUST_BE(m.bytes_received, 0);
        MUST_BE(m.copied_sends, 1);
        MUST_BE(m.aborted, 0);
        MUST_BE(m.full_events, 0);
        MUST_BE(m.send_blocks, 0);
        MUST_BE(m.send_blocked_ns, 0);
        world_reach(w, 1);
        AWAIT(2);
        MUST_BE(psyne_metrics(e.ch, &m), 0); /* the other side's, too */
        MUST_BE(m.messages_received, 11);
        MUST_BE(m.bytes_received, 66);
        MUST_BE(m.peer_deaths, 0);
        MUST_BE(m.backstop_hits, 0);
        MUST_BE(m.damaged_lanes, 0);
        MUST_BE(m.redelivered, 0);
        CLOSE(&e);
        return 0;
}
static int metrics_recv(struct world *w) {
        struct psyne_metrics m = {.struct_size = sizeof(m)};
        struct ends e = {0};
        char copy[16];

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        for (uint32_t i = 1; i <= 10; i++)
                RECEIVE(&e, i, i);
        MUST_BE(psyne_recv_copy(e.c, copy, sizeof(copy), NULL, WATCHDOG_NS), 11);
        MUST_BE(psyne_metrics(e.ch, &m), 0);
        MUST_BE(m.messages_sent, 11);
        MUST_BE(m.messages_received, 11);
        MUST_BE(m.held, 0);
        world_reach(w, 2);
        CLOSE(&e);
        return 0;
}
FAMILY(metrics, metrics_send, metrics_recv)

/* Counters of a channel stay right over restarts of both sides. */
static int metrics_restart(struct world *w) {
        struct ends e = {0};

        MUST_BE(world_open(w, "size=4096", &e.ch), 0);
        for (uint32_t life = 1; life <= 20; life++) {
                MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
                MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
                for (uint32_t i = 0; i < 5; i++) {
                        SEND(&e, i, 20);
                        RECEIVE(&e, i, 20);
                }
                MUST_BE(psyne_producer_close(e.p), 0);
                MUST_BE(psyne_consumer_close(e.c), 0);
                MUST_BE(METRIC(e.ch, messages_sent), 5 * life);
                MUST_BE(METRIC(e.ch, messages_received), 5 * life);
                MUST_BE(METRIC(e.ch, bytes_received), 100 * life);
        }
        /* What is lost at a close is not counted as lost again later. */
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        SEND(&e, 1, 20);
        MUST_BE(psyne_producer_close(e.p), 1);
        MUST_BE(psyne_producer_open(e.ch, NULL, &e.p), 0);
        SEND(&e, 2, 20);
        SEND(&e, 3, 20);
        MUST_BE(psyne_producer_close(e.p), 2);
        e.p = NULL;
        e.c = NULL;
        CLOSE(&e);
        return 0;
}
FAMILY(metrics_restart, metrics_restart, NULL)

/* ---- facts ------------------------------------------------------------------------------------------------------- */

static const struct psyne_fact *fact_of(const struct psyne_info *info, const char *what) {
        for (uint32_t i = 0; i < info->n_facts; i++)
                if (!strcmp(info->facts[i].what, what))
                        return &info->facts[i];
        return NULL;
}
static int facts(struct world *w) {
        static const char *const whats[] = {"ring", "barrier", "pages", "numa", "wake"};
        const struct psyne_fact *pages, *ring;
        struct psyne_info info = {.struct_size = sizeof(info)};
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=1M");
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        MUST_BE(psyne_info(e.ch, &info), 0);
        MUST(!strcmp(info.uri, w->uri));
        MUST_BE(info.ring_bytes, 1 << 20);
        MUST_BE(info.record_align, 64);
        MUST_BE(info.max_producers, 8);
        MUST_BE(info.max_consumers, 8);
        for (unsigned i = 0; i < sizeof(whats) / sizeof(whats[0]); i++) {
                const struct psyne_fact *f = fact_of(&info, whats[i]);

                if (!f)
                        return world_fail(w, __FILE__, __LINE__, "no fact about %s", whats[i]);
                MUST(f->whose[0] && f->asked[0] && f->obtained[0]);
        }
        /* 4K pages below 2 MiB are no wish refused by the machine: nobody asked for others. */
        pages = fact_of(&info, "pages");
        ring = fact_of(&info, "ring");
        MUST(pages && !strcmp(pages->asked, "4K") && !strcmp(pages->obtained, "4K") && !pages->why[0]);
        MUST(ring && !strcmp(ring->obtained, "1048576"));
        for (uint32_t i = 0; i < info.n_facts; i++)
                if (strcmp(info.facts[i].whose, "channel") && strcmp(info.facts[i].asked, info.facts[i].obtained) &&
                        strncmp(info.facts[i].what, "numa", 4))
                        MUST(info.facts[i].why[0]); /* every fallback says what stood in the way */
        MUST_BE(psyne_consumer_close(e.c), 0);
        MUST_BE(psyne_producer_close(e.p), 0);
        e.p = NULL;
        e.c = NULL;
        MUST_BE(psyne_info(e.ch, &info), 0); /* facts go with what they are about */
        MUST(!fact_of(&info, "pages"));
        MUST(!fact_of(&info, "wake"));
        MUST(fact_of(&info, "ring"));
        CLOSE(&e);
        return 0;
}
FAMILY(facts, facts, NULL)

/* ---- signals ----------------------------------------------------------------------------------------------------- */

static void ignore(int signal) {
        (void)signal;
}

struct poker {
        pthread_t whom;
        uint32_t over;
};
/* A signal that comes before the sleep interrupts nothing: poke until it was noticed. */
static void *poke(void *arg) {
        struct poker *p = arg;

        while (!__atomic_load_n(&p->over, __ATOMIC_ACQUIRE)) {
                pthread_kill(p->whom, SIGUSR1);
                breathe();
        }
        return NULL;
}
#define POKED(expr, want)                                                                                              \
        do {                                                                                                           \
                struct poker poker_ = {.whom = pthread_self()};                                                        \
                pthread_t poking_;                                                                                     \
                int got_poked_;                                                                                        \
                MUST_BE(pthread_create(&poking_, NULL, poke, &poker_), 0);                                             \
                got_poked_ = (expr);                                                                                   \
                __atomic_store_n(&poker_.over, 1, __ATOMIC_RELEASE);                                                   \
                MUST_BE(pthread_join(poking_, NULL), 0);                                                               \
                MUST_BE(got_poked_, want);                                                                             \
        } while (0)

static int signals(struct world *w, const char *query) {
        struct sigaction act = {.sa_handler = ignore}, old; /* without SA_RESTART */
        struct ends e = {0};
        struct psyne_msg m;

        MUST_BE(sigaction(SIGUSR1, &act, &old), 0);
        OPEN_PRODUCER(&e, query);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        POKED(psyne_recv(e.c, &m, WATCHDOG_NS), -EINTR);
        POKED(psyne_wait_peers(e.ch, 8, 8, WATCHDOG_NS), -EINTR);
        for (uint32_t i = 0; i < 63; i++)
                SEND(&e, i, 48);
        POKED(psyne_claim(e.p, 48, WATCHDOG_NS, &m), -EINTR);
        POKED(psyne_flush(e.p, WATCHDOG_NS), -EINTR);
        for (uint32_t i = 0; i < 63; i++) /* nothing was taken */
                RECEIVE(&e, i, 48);
        MUST_BE(sigaction(SIGUSR1, &old, NULL), 0);
        CLOSE(&e);
        return 0;
}
static int signals_best(struct world *w) {
        return signals(w, "size=4096&wait=block");
}
static int signals_futex(struct world *w) {
        return signals(w, "size=4096&wait=block&engine=futex");
}
FAMILY(interrupted, signals_best, NULL)
FAMILY(interrupted_futex, signals_futex, NULL)

/* Nothing that opens is a wait: a signal that comes then is not its business. */
static int opening(struct world *w) {
        struct sigaction act = {.sa_handler = ignore}, old;
        struct ends e = {0};

        MUST_BE(sigaction(SIGUSR1, &act, &old), 0);
        for (unsigned round = 0; round < 5; round++) {
                POKED(world_open(w, "size=1M&huge=never", &e.ch), 0);
                POKED(psyne_producer_open(e.ch, NULL, &e.p), 0);
                POKED(psyne_consumer_open(e.ch, NULL, &e.c), 0);
                SEND(&e, round, 48);
                RECEIVE(&e, round, 48);
                CLOSE(&e);
        }
        MUST_BE(sigaction(SIGUSR1, &old, NULL), 0);
        return 0;
}
FAMILY(opened_under_signals, opening, NULL)

/* ---- how it waits ------------------------------------------------------------------------------------------------ */

static int waits_send(struct world *w) {
        static const enum psyne_wait order[] = {PSYNE_WAIT_SPIN, PSYNE_WAIT_BLOCK, PSYNE_WAIT_HYBRID,
                PSYNE_WAIT_DEFAULT};
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=4096");
        world_reach(w, 1);
        for (uint32_t i = 0; i < 400; i++) {
                MUST_BE(psyne_set_wait(psyne_producer_endpoint(e.p), order[i % 4]), 0);
                SEND(&e, i, 1000);
        }
        CLOSE(&e);
        return 0;
}
static int waits_recv(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        for (uint32_t i = 0; i < 400; i++) {
                MUST_BE(psyne_set_wait(psyne_consumer_endpoint(e.c), (enum psyne_wait)(i / 4 % 4)), 0);
                RECEIVE(&e, i, 1000);
        }
        MUST_BE(METRIC(e.ch, backstop_hits), 0);
        CLOSE(&e);
        return 0;
}
FAMILY(wait_strategies, waits_send, waits_recv)

/* ---- no thread --------------------------------------------------------------------------------------------------- */

/* Without a service thread, psyne_poll() does its work: here it takes the ring that the other side offers. */
static int no_thread_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;

        MUST_BE(psyne_open(w->uri, PSYNE_OPTS(.mode = w->mode->mode, .flags = PSYNE_NO_THREAD), &e.ch), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        world_reach(w, 1);
        if (w->scheme == SCHEME_MEMORY)
                MUST_REFUSE(psyne_poll(e.ch, 0), -EINVAL);
        else
                MUST(psyne_poll(e.ch, PSYNE_NOWAIT) >= 0);
        AWAIT(2);
        for (uint32_t i = 0; i < 3; i++) {
                int64_t until = now_ns() + WATCHDOG_NS;
                int r;

                while ((r = psyne_recv(e.c, &m, PSYNE_NOWAIT)) == -EAGAIN && now_ns() < until)
                        if (w->scheme != SCHEME_MEMORY)
                                MUST(psyne_poll(e.ch, 10 * MSEC) >= 0);
                MUST_BE(r, 0);
                MUST_BE(m.type, i);
                MUST_BE(psyne_release(e.c, &m), 0);
        }
        world_reach(w, 3);
        CLOSE(&e);
        return 0;
}
static int no_thread_send(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        OPEN_PRODUCER(&e, NULL);
        for (uint32_t i = 0; i < 3; i++)
                SEND(&e, i, 10);
        world_reach(w, 2);
        AWAIT(3);
        CLOSE(&e);
        return 0;
}
FAMILY(no_thread, no_thread_recv, no_thread_send)
