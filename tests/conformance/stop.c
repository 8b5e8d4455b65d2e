/* Stopping: drain and abort, from the other side and from a signal handler, and whom it wakes. */
#include "family.h"

#include <pthread.h>
#include <signal.h>

/* ---- drain: what is there is still read, nothing more is sent ---------------------------------------------------- */

static int drain_send(struct world *w) {
        struct ends e = {0};
        struct psyne_producer *again;
        struct psyne_msg m, open;

        OPEN_PRODUCER(&e, "size=4096");
        for (uint32_t n = 0; n < 10; n++)
                SEND(&e, n, 10 * n);
        MUST_BE(psyne_claim(e.p, 5, PSYNE_NOWAIT, &open), 0);
        MUST_BE(psyne_is_stopped(e.ch), 0);
        world_reach(w, 1);
        AWAIT(2);
        UNTIL(psyne_is_stopped(e.ch) == 1);
        MUST_REFUSE(psyne_claim(e.p, 1, PSYNE_NOWAIT, &m), -ESHUTDOWN);
        MUST_REFUSE(psyne_claim(e.p, 1, PSYNE_FOREVER, &m), -ESHUTDOWN);
        MUST_REFUSE(psyne_send(e.p, 0, "x", 1, PSYNE_FOREVER), -ESHUTDOWN);
        /* A claim from before the stop stays valid until it is given back. */
        pattern_fill(open.data, 5, 10);
        MUST_BE(psyne_abort(e.p, &open), 0);
        MUST_REFUSE(psyne_producer_open(e.ch, NULL, &again), -ESHUTDOWN);
        MUST_REFUSE(psyne_wait_peers(e.ch, 5, 5, PSYNE_FOREVER), -ESHUTDOWN);
        world_reach(w, 3);
        AWAIT(4);
        CLOSE(&e);
        return 0;
}

static int drain_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m, held;

        AWAIT(1);
        OPEN_CONSUMER(&e, NULL);
        RECEIVE(&e, 0, 0);
        TAKE(&e, &held, 1, 10);
        MUST_BE(psyne_stop(e.ch, PSYNE_DRAIN), 0);
        MUST_BE(psyne_stop(e.ch, PSYNE_DRAIN), 0); /* idempotent */
        MUST_BE(psyne_is_stopped(e.ch), 1);
        world_reach(w, 2);
        AWAIT(3);
        MUST(pattern_is(held.data, 10, 1));
        MUST_BE(psyne_release(e.c, &held), 0);
        for (uint32_t n = 2; n < 10; n++)
                RECEIVE(&e, n, 10 * n);
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -ESHUTDOWN);
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_FOREVER), -ESHUTDOWN);
        MUST_BE(psyne_stop(e.ch, PSYNE_ABORT), 0); /* a drain can become an abort */
        MUST_BE(psyne_stop(e.ch, PSYNE_DRAIN), 0);
        MUST_BE(psyne_is_stopped(e.ch), 1);
        world_reach(w, 4);
        CLOSE(&e);
        return 0;
}
FAMILY(stop_drain, drain_send, drain_recv)

/* ---- abort: also ends a lingering close -------------------------------------------------------------------------- */

static int abort_send(struct world *w) {
        const struct psyne_producer_opts patient = {.struct_size = sizeof(patient), .linger_ns = -1};
        struct ends e = {0};

        MUST_BE(world_open(w, "size=4096", &e.ch), 0);
        MUST_BE(psyne_producer_open(e.ch, &patient, &e.p), 0);
        for (uint32_t n = 0; n < 10; n++)
                SEND(&e, n, 10);
        world_reach(w, 1);
        /* Nobody reads: without the stop this lingers for ever. */
        MUST_BE(psyne_producer_close(e.p), 10);
        MUST_BE(psyne_is_stopped(e.ch), 1);
        world_reach(w, 2);
        e.p = NULL;
        CLOSE(&e);
        return 0;
}

static int abort_recv(struct world *w) {
        struct psyne_consumer *c;
        struct ends e = {0};

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        UNTIL(METRIC(e.ch, send_blocks) > 0); /* it lingers */
        MUST_BE(psyne_stop(e.ch, PSYNE_ABORT), 0);
        MUST_REFUSE(psyne_consumer_open(e.ch, NULL, &c), -ESHUTDOWN);
        AWAIT(2);
        CLOSE(&e);
        return 0;
}
FAMILY(stop_abort, abort_send, abort_recv)

/* ---- a stop wakes whoever sleeps --------------------------------------------------------------------------------- */

static int wakes_receiver_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;

        OPEN_CONSUMER(&e, "size=4096&wait=block");
        world_reach(w, 1);
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_FOREVER), -ESHUTDOWN);
        world_reach(w, 2);
        CLOSE(&e);
        return 0;
}
static int wakes_receiver_stop(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        UNTIL(METRIC(e.ch, receive_blocks) > 0);
        MUST_BE(psyne_stop(e.ch, PSYNE_DRAIN), 0);
        AWAIT(2);
        CLOSE(&e);
        return 0;
}
FAMILY(stop_wakes_receiver, wakes_receiver_recv, wakes_receiver_stop)

static int wakes_sender_send(struct world *w) {
        struct psyne_consumer *c;
        struct ends e = {0};

        OPEN_PRODUCER(&e, "size=4096&wait=block");
        for (uint32_t n = 0; n < 63; n++)
                SEND(&e, n, 48);
        world_reach(w, 1);
        MUST_REFUSE(psyne_send(e.p, 0, "x", 1, PSYNE_FOREVER), -ESHUTDOWN);
        world_reach(w, 2);
        AWAIT(3);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &c), 0); /* DRAIN: what is there may be read by who comes later */
        e.c = c;
        for (uint32_t n = 0; n < 63; n++)
                RECEIVE(&e, n, 48);
        CLOSE(&e);
        return 0;
}
static int wakes_sender_stop(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        UNTIL(METRIC(e.ch, send_blocks) > 0);
        MUST_BE(psyne_stop(e.ch, PSYNE_DRAIN), 0);
        AWAIT(2);
        world_reach(w, 3);
        CLOSE(&e);
        return 0;
}
FAMILY(stop_wakes_sender, wakes_sender_send, wakes_sender_stop)

static int wakes_waiter_wait(struct world *w) {
        struct ends e = {0};

        MUST_BE(world_open(w, "size=4096", &e.ch), 0);
        world_reach(w, 1);
        MUST_REFUSE(psyne_wait_peers(e.ch, 1, 1, PSYNE_FOREVER), -ESHUTDOWN);
        world_reach(w, 2);
        CLOSE(&e);
        return 0;
}
static int wakes_waiter_stop(struct world *w) {
        struct ends e = {0};

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_BE(psyne_stop(e.ch, PSYNE_DRAIN), 0);
        AWAIT(2);
        CLOSE(&e);
        return 0;
}
FAMILY(stop_wakes_waiter, wakes_waiter_wait, wakes_waiter_stop)

/* ---- from a signal handler --------------------------------------------------------------------------------------- */

static struct psyne_channel *to_stop;

static void on_signal(int signal) {
        int saved = errno;

        (void)signal;
        (void)psyne_stop(to_stop, PSYNE_DRAIN);
        errno = saved;
}

static int handler_recv(struct world *w) {
        struct ends e = {0};
        struct psyne_msg m;

        OPEN_CONSUMER(&e, "size=4096&wait=block");
        world_reach(w, 1);
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_FOREVER), -ESHUTDOWN);
        world_reach(w, 2);
        CLOSE(&e);
        return 0;
}
static int handler_stop(struct world *w) {
        struct sigaction act = {.sa_handler = on_signal}, old;
        struct ends e = {0};

        AWAIT(1);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        UNTIL(METRIC(e.ch, receive_blocks) > 0);
        to_stop = e.ch;
        MUST_BE(sigaction(SIGUSR2, &act, &old), 0);
        MUST_BE(pthread_kill(pthread_self(), SIGUSR2), 0);
        MUST_BE(psyne_is_stopped(e.ch), 1);
        AWAIT(2);
        MUST_BE(sigaction(SIGUSR2, &old, NULL), 0);
        CLOSE(&e);
        return 0;
}
FAMILY(stop_from_handler, handler_recv, handler_stop)

/* A handler that stops the very call it interrupts: the usual SIGINT. */
struct interruption {
        struct psyne_channel *ch;
        pthread_t whom;
};
static void *interrupt_main(void *arg) {
        const struct interruption *i = arg;
        int64_t until = now_ns() + WATCHDOG_NS;

        while (METRIC(i->ch, receive_blocks) == 0 && now_ns() < until)
                breathe();
        pthread_kill(i->whom, SIGUSR2);
        return NULL;
}
static int own_handler_recv(struct world *w) {
        struct sigaction act = {.sa_handler = on_signal}, old;
        struct interruption i;
        struct ends e = {0};
        struct psyne_msg m;
        pthread_t t;
        int r;

        OPEN_CONSUMER(&e, "size=4096&wait=block");
        to_stop = e.ch;
        MUST_BE(sigaction(SIGUSR2, &act, &old), 0);
        i = (struct interruption){e.ch, pthread_self()};
        MUST_BE(pthread_create(&t, NULL, interrupt_main, &i), 0);
        r = psyne_recv(e.c, &m, WATCHDOG_NS);
        MUST(r == -EINTR || r == -ESHUTDOWN); /* whichever it notices first */
        MUST_REFUSE(psyne_recv(e.c, &m, WATCHDOG_NS), -ESHUTDOWN);
        MUST_BE(pthread_join(t, NULL), 0);
        MUST_BE(sigaction(SIGUSR2, &old, NULL), 0);
        CLOSE(&e);
        return 0;
}
FAMILY(stop_from_own_handler, own_handler_recv, NULL)

/* ---- misuse ------------------------------------------------------------------------------------------------------ */

static int misuse(struct world *w) {
        struct ends e = {0};

        MUST_BE(world_open(w, "size=4096", &e.ch), 0);
        MUST_BE(psyne_stop(NULL, PSYNE_DRAIN), -EINVAL); /* no sentence: it may be called from a signal handler */
        MUST_BE(psyne_stop(e.ch, (enum psyne_stop)7), -EINVAL);
        MUST_BE(psyne_is_stopped(e.ch), 0);
        MUST_BE(psyne_is_stopped(NULL), 0);
        CLOSE(&e);
        return 0;
}
FAMILY(stop_misuse, misuse, NULL)
