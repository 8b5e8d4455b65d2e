/*
 * Links in their kinds: many senders to one listener, IPv6, names, ends that are driven by psyne_poll(), without io_uring,
 * a receiver that dies and comes again on the same port, a sender that dies, an end that forks.
 *
 *      tcp-links [CASE]
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/require.h"
#include "support/start.h"
#include "support/world.h"

#define N 20000u
#define N_SENDERS 3u

struct shared {
        uint32_t port, step, turn;
        uint64_t received;
        uint32_t last; /* received */
};
static struct shared *s;

static int until_port(void) {
        return await_word(&s->port, 1);
}

static void tell_port(const struct psyne_channel *ch) {
        __atomic_store_n(&s->port, (uint32_t)psyne_port(ch), __ATOMIC_SEQ_CST);
}

static pid_t start(int (*run)(const char *uri, unsigned i), const char *uri, unsigned i) {
        return start_at(&s->turn, 0, run, uri, i);
}

/* ---- ordinary ends ------------------------------------------------------------------------------------------------- */

static int send_all(const char *format, unsigned who) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        char uri[128];

        REQUIRE(until_port() == 0);
        snprintf(uri, sizeof(uri), format, s->port);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        for (uint32_t n = 0; n < N; n++) {
                char bytes[300];

                pattern_fill(bytes, n % sizeof(bytes), n);
                REQUIRE(psyne_send(p, n | who << 28, bytes, n % sizeof(bytes), WATCHDOG_NS) == 0);
        }
        REQUIRE(psyne_producer_close(p) == 0);
        (void)psyne_close(ch);
        return 0;
}

/* What the receiver's end says of its links, while their messages come. */
static int look_at_links(const struct psyne_channel *ch, unsigned senders, bool quick) {
        struct psyne_link_info info[8] = {{.struct_size = sizeof(info[0])}};
        unsigned lanes = 0;
        int n = psyne_links(ch, info, 8);

        REQUIRE(n >= (int)senders && n <= 8);
        for (int i = 0; i < n; i++) {
                REQUIRE(info[i].sends == 0 && info[i].struct_size == sizeof(info[0]));
                lanes += info[i].has_lane;
                if (info[i].up)
                        REQUIRE(info[i].connections == 1 && info[i].mss_bytes > 0 && info[i].no_delay == 1 &&
                                info[i].receive_buffer > 0 && strchr(info[i].peer, ':') && (info[i].quick_acks > 0) == quick);
        }
        REQUIRE(lanes == senders);
        info[0].struct_size = 1;
        REQUIRE(psyne_links(ch, info, 1) == -EINVAL && psyne_links(ch, NULL, 0) == n && psyne_links(NULL, NULL, 0) == -EINVAL);
        return 0;
}

static int receive_all(const char *uri, unsigned senders) {
        uint32_t next[N_SENDERS] = {0};
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        int r;

        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        tell_port(ch);
        REQUIRE(psyne_wait_peers(ch, senders, 1, WATCHDOG_NS) == 0);
        REQUIRE(look_at_links(ch, senders, strstr(uri, "quickack=1")) == 0);
        for (uint32_t left = senders * N; left; left--) {
                uint32_t who, n;

                REQUIRE(psyne_recv(c, &m, WATCHDOG_NS) == 0);
                who = m.type >> 28;
                n = m.type & 0xfffffff;
                REQUIRE(who < senders && n == next[who]++ && m.len == n % 300 && pattern_is(m.data, m.len, n));
                REQUIRE(psyne_release(c, &m) == 0);
        }
        r = psyne_recv(c, &m, WATCHDOG_NS);
        REQUIRE(r == -EPIPE);
        REQUIRE(psyne_consumer_close(c) == 0);
        (void)psyne_close(ch);
        return 0;
}

static int several(const char *to, const char *from, unsigned senders) {
        pid_t pids[1 + N_SENDERS];
        int r = 0;

        pids[0] = start(receive_all, to, senders);
        for (unsigned i = 0; i < senders; i++)
                pids[1 + i] = start(send_all, from, i);
        for (unsigned i = 0; i <= senders; i++)
                r |= child_wait(pids[i], 3 * WATCHDOG_NS);
        return r;
}

static int many(void) {
        return several("tcp://:0/links?mode=mpsc&size=64K&quickack=1", "tcp://127.0.0.1:%u/links?mode=mpsc&size=64K", N_SENDERS);
}

static int ipv6(void) {
        struct psyne_channel *ch;

        if (psyne_open("tcp://[::1]:0/links?role=listen", NULL, &ch) < 0) {
                printf("ipv6: SKIP, %s\n", psyne_last_error());
                return 0;
        }
        (void)psyne_close(ch);
        return several("tcp://[::1]:0/links?role=listen&size=64K", "tcp://[::1]:%u/links?size=64K", 1);
}

static int names(void) {
        return several("tcp://localhost:0/links?role=listen", "tcp://localhost:%u/links", 1); /* every address of it */
}

static int plain(void) {
        return several("tcp://:0/links?uring=never&wait=block", "tcp://127.0.0.1:%u/links?uring=never&wait=block", 1);
}

static int inlined(void) {
        return several("tcp://:0/links?mode=mpsc&size=64K&inline=1&wait=spin", "tcp://127.0.0.1:%u/links?mode=mpsc&size=64K&inline=1",
                N_SENDERS);
}

/* ---- without threads ------------------------------------------------------------------------------------------------ */

static int poll_send(const char *format, unsigned who) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        int64_t until = now_ns() + WATCHDOG_NS;
        char uri[128];

        REQUIRE(until_port() == 0);
        snprintf(uri, sizeof(uri), format, s->port);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        for (uint32_t n = 0; n < N;) {
                int r = psyne_send(p, n | who << 28, &n, sizeof(n), PSYNE_NOWAIT);

                REQUIRE(r == 0 || r == -EAGAIN);
                n += r == 0;
                if (r < 0 || n % 64 == 0)
                        REQUIRE(psyne_poll(ch, r < 0 ? MSEC : PSYNE_NOWAIT) >= 0);
                REQUIRE(now_ns() < until);
        }
        while (psyne_flush(p, PSYNE_NOWAIT) == -EAGAIN) {
                REQUIRE(psyne_poll(ch, MSEC) >= 0);
                REQUIRE(now_ns() < until);
        }
        REQUIRE(psyne_producer_close(p) == 0);
        (void)psyne_close(ch);
        return 0;
}

static int poll_receive(const char *uri, unsigned unused) {
        int64_t until = now_ns() + 2 * WATCHDOG_NS;
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        uint32_t n = 0;
        int r;

        (void)unused;
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        tell_port(ch);
        while ((r = psyne_recv(c, &m, PSYNE_NOWAIT)) == 0 || r == -EAGAIN) {
                if (r == 0) {
                        REQUIRE(m.type == n && m.len == sizeof(n) && memcmp(m.data, &n, sizeof(n)) == 0);
                        n++;
                        REQUIRE(psyne_release(c, &m) == 0);
                } else
                        REQUIRE(psyne_poll(ch, MSEC) >= 0);
                REQUIRE(now_ns() < until);
        }
        REQUIRE(r == -EPIPE && n == N);
        REQUIRE(psyne_consumer_close(c) == 0);
        (void)psyne_close(ch);
        return 0;
}

static int polled(void) {
        pid_t to = start(poll_receive, "tcp://:0/links?nothread=1&size=16K", 0);
        pid_t from = start(poll_send, "tcp://127.0.0.1:%u/links?nothread=1&size=16K", 0);
        int r = child_wait(to, 3 * WATCHDOG_NS);

        return child_wait(from, 3 * WATCHDOG_NS) | r;
}

/* ---- deaths --------------------------------------------------------------------------------------------------------- */

/* Numbers without gaps, from wherever it comes in. */
static int follow(const char *format, unsigned unused) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        uint32_t next = 0;
        char uri[128];
        bool first = true;
        int r;

        (void)unused;
        snprintf(uri, sizeof(uri), format, s->port);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        tell_port(ch);
        while ((r = psyne_recv(c, &m, WATCHDOG_NS)) == 0) {
                REQUIRE(first || m.type == next);
                first = false;
                next = m.type + 1;
                __atomic_store_n(&s->last, m.type, __ATOMIC_SEQ_CST);
                __atomic_fetch_add(&s->received, 1, __ATOMIC_SEQ_CST);
                REQUIRE(psyne_release(c, &m) == 0);
        }
        REQUIRE(r == -EPIPE);
        (void)psyne_consumer_close(c);
        (void)psyne_close(ch);
        return 0;
}

/* The receiver is killed and started again, five times; the sender notices nothing but that it has to wait. */
static int receiver_dies(void) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        char uri[128];
        uint32_t n = 0;
        pid_t pids[6];

        for (unsigned round = 0; round <= 5; round++)
                pids[round] = start_at(&s->turn, round, follow, "tcp://:%u/links?size=64K", 0);
        REQUIRE(until_port() == 0);
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%u/links?size=64K&resume=20s", s->port);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        for (unsigned round = 0; round <= 5; round++) {
                uint64_t had = __atomic_load_n(&s->received, __ATOMIC_SEQ_CST);
                int64_t until = now_ns() + WATCHDOG_NS;

                while (__atomic_load_n(&s->received, __ATOMIC_SEQ_CST) < had + 5000) {
                        REQUIRE(psyne_send(p, n++, "0123456789", 10, WATCHDOG_NS) == 0);
                        REQUIRE(now_ns() < until);
                }
                if (round == 5)
                        break;
                kill(pids[round], SIGKILL);
                (void)waitpid(pids[round], NULL, 0);
                next_turn(&s->turn);
        }
        REQUIRE(psyne_producer_close(p) == 0);
        (void)psyne_close(ch);
        REQUIRE(child_wait(pids[5], WATCHDOG_NS) == 0);
        REQUIRE(s->last == n - 1);
        return 0;
}

static int send_and_wait(const char *format, unsigned unused) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        char uri[128];

        (void)unused;
        REQUIRE(until_port() == 0);
        snprintf(uri, sizeof(uri), format, s->port);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        for (uint32_t n = 0; n < 100; n++)
                REQUIRE(psyne_send(p, n, "x", 1, WATCHDOG_NS) == 0);
        REQUIRE(psyne_flush(p, WATCHDOG_NS) == 0);
        __atomic_store_n(&s->step, 1, __ATOMIC_SEQ_CST);
        for (;;)
                pause();
}

/* What a sender that died had sent is received, and then it is gone. Another may come. */
static int sender_dies(void) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        pid_t pids[3];
        int64_t at;

        for (unsigned round = 0; round < 3; round++)
                pids[round] = start_at(&s->turn, round + 1, send_and_wait, "tcp://127.0.0.1:%u/links", 0);
        REQUIRE(psyne_open("tcp://:0/links?resume=300ms", NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        tell_port(ch);
        for (unsigned round = 0; round < 3; round++) {
                s->step = 0;
                next_turn(&s->turn);
                for (int64_t until = now_ns() + WATCHDOG_NS; !__atomic_load_n(&s->step, __ATOMIC_SEQ_CST); breathe())
                        REQUIRE(now_ns() < until);
                kill(pids[round], SIGKILL);
                (void)waitpid(pids[round], NULL, 0);
                for (uint32_t n = 0; n < 100; n++) {
                        REQUIRE(psyne_recv(c, &m, WATCHDOG_NS) == 0 && m.type == n);
                        REQUIRE(psyne_release(c, &m) == 0);
                }
                at = now_ns();
                REQUIRE(psyne_recv(c, &m, WATCHDOG_NS) == -EPIPE);
                printf("sender-dies: gone after %.0f ms\n", (double)(now_ns() - at) / 1e6);
        }
        REQUIRE(psyne_consumer_close(c) == 0);
        (void)psyne_close(ch);
        return 0;
}

/* A child has nothing of it, and does not keep it alive. */
static int forks(void) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        pid_t child, sender;
        int r;

        sender = start(send_all, "tcp://127.0.0.1:%u/links", 0);
        REQUIRE(psyne_open("tcp://:0/links", NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        tell_port(ch);
        REQUIRE(psyne_recv(c, &m, WATCHDOG_NS) == 0 && psyne_release(c, &m) == 0);
        child = fork();
        if (child == 0) {
                struct psyne_channel *own = NULL;

                prctl(PR_SET_PDEATHSIG, SIGKILL);
                r = psyne_recv(c, &m, PSYNE_NOWAIT) == -EOWNERDEAD && psyne_port(ch) == 0 &&
                                    psyne_open("tcp://:0/child", NULL, &own) == 0 && psyne_port(own) > 0
                            ? 0
                            : 1;
                (void)psyne_close(own);
                (void)psyne_consumer_close(c);
                (void)psyne_close(ch);
                if (r)
                        _exit(1);
                for (;;)
                        pause();
        }
        for (uint32_t n = 1; n < N; n++)
                REQUIRE(psyne_recv(c, &m, WATCHDOG_NS) == 0 && m.type == n && psyne_release(c, &m) == 0);
        REQUIRE(psyne_recv(c, &m, WATCHDOG_NS) == -EPIPE);
        REQUIRE(child_wait(sender, WATCHDOG_NS) == 0);
        REQUIRE(psyne_consumer_close(c) == 0);
        (void)psyne_close(ch);
        REQUIRE(waitpid(child, &r, WNOHANG) == 0);
        kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
        return 0;
}

static int64_t cpu_ns(clockid_t clock) {
        struct timespec t;

        (void)clock_gettime(clock, &t);
        return t.tv_sec * SECOND + t.tv_nsec;
}

/* A reader that holds everything back: both rings and the sockets fill up, and then nobody does anything. */
static int not_read(const char *format, unsigned unused) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        uint32_t n = 0;

        (void)format, (void)unused;
        REQUIRE(psyne_open("tcp://:0/links?size=64K&wait=block&rcvbuf=64K", NULL, &ch) == 0);
        REQUIRE(psyne_consumer_open(ch, NULL, &c) == 0);
        tell_port(ch);
        for (int64_t until = now_ns() + WATCHDOG_NS; !__atomic_load_n(&s->step, __ATOMIC_SEQ_CST); breathe())
                REQUIRE(now_ns() < until);
        while (psyne_recv(c, &m, WATCHDOG_NS) == 0) {
                REQUIRE(m.type == n++);
                REQUIRE(psyne_release(c, &m) == 0);
        }
        __atomic_store_n(&s->received, n, __ATOMIC_SEQ_CST);
        (void)psyne_consumer_close(c);
        (void)psyne_close(ch);
        return 0;
}

static int stalled(void) {
        struct psyne_link_info info[4] = {{.struct_size = sizeof(info[0])}};
        struct psyne_channel *ch;
        struct psyne_producer *p;
        int64_t own, theirs;
        clockid_t clock;
        char uri[128], bytes[1000] = {0};
        uint32_t n = 0;
        pid_t pid = start(not_read, NULL, 0);

        REQUIRE(until_port() == 0);
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%u/links?size=64K&wait=block&sndbuf=64K", s->port);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        while (psyne_send(p, n, bytes, sizeof(bytes), 300 * MSEC) == 0)
                REQUIRE(n++ < 100000);
        REQUIRE(clock_getcpuclockid(pid, &clock) == 0);
        own = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
        theirs = cpu_ns(clock);
        usleep(500000); /* the time is what is measured */
        own = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
        theirs = cpu_ns(clock) - theirs;
        REQUIRE(psyne_links(ch, info, 4) == 2); /* its own, and the one that is ready */
        for (unsigned i = 0; i < 2; i++)
                if (info[i].has_lane)
                        REQUIRE(info[i].sends && info[i].up && info[i].readers == 1 && info[i].in_flight_bytes > 0 &&
                                info[i].in_flight_bytes + info[i].queued_bytes <= 64 << 10 && info[i].send_buffer >= 64 << 10);
        printf("stalled: %u messages on their way; %.1f and %.1f ms of CPU in 500 ms\n", n, (double)own / 1e6, (double)theirs / 1e6);
        REQUIRE(own < 100 * MSEC && theirs < 100 * MSEC);
        __atomic_store_n(&s->step, 1, __ATOMIC_SEQ_CST);
        REQUIRE(psyne_producer_close(p) == 0);
        (void)psyne_close(ch);
        REQUIRE(child_wait(pid, WATCHDOG_NS) == 0 && s->received == n);
        return 0;
}

/* Numbers from 0 on, until the sender is through or the channel stopped; how many goes to the page. */
static int count_all(const char *uri, unsigned most) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        uint32_t n = 0;
        int r = 0;

        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        tell_port(ch);
        while (n < most && (r = psyne_recv(c, &m, WATCHDOG_NS)) == 0) {
                REQUIRE(m.type == n++);
                __atomic_store_n(&s->received, n, __ATOMIC_SEQ_CST);
                REQUIRE(psyne_release(c, &m) == 0);
        }
        REQUIRE(n == most || r == -EPIPE || r == -ESHUTDOWN);
        (void)psyne_consumer_close(c);
        if (n == most) /* the channel stays, and nobody reads it */
                while (!__atomic_load_n(&s->step, __ATOMIC_SEQ_CST))
                        breathe();
        (void)psyne_close(ch);
        return 0;
}

static int connect_and_open(const char *query, struct psyne_channel **ch, struct psyne_producer **p) {
        char uri[128];

        REQUIRE(until_port() == 0);
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%u/links?%s", s->port, query);
        REQUIRE(psyne_open(uri, NULL, ch) == 0 && psyne_producer_open(*ch, NULL, p) == 0);
        REQUIRE(psyne_wait_peers(*ch, 1, 1, WATCHDOG_NS) == 0);
        return 0;
}

/* Claims that are given up in front of others leave padding, also where nothing else is on its way. */
static int padding(void) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_msg m[2];
        pid_t pid = start(count_all, "tcp://:0/links?size=64K", UINT32_MAX);

        REQUIRE(connect_and_open("size=64K", &ch, &p) == 0);
        for (uint32_t n = 0; n < 300; n++) {
                REQUIRE(psyne_claim(p, n, WATCHDOG_NS, &m[0]) == 0 && psyne_claim(p, 10, WATCHDOG_NS, &m[1]) == 0);
                REQUIRE(psyne_abort(p, &m[0]) == 0);
                m[1].type = n;
                REQUIRE(psyne_commit(p, &m[1]) == 0);
                if (n % 3)
                        REQUIRE(psyne_flush(p, WATCHDOG_NS) == 0);
        }
        REQUIRE(psyne_producer_close(p) == 0);
        (void)psyne_close(ch);
        REQUIRE(child_wait(pid, WATCHDOG_NS) == 0 && s->received == 300);
        return 0;
}

/* A drain goes behind everything that was sent before it. */
static int drained(void) {
        for (unsigned round = 0; round < 20; round++) {
                struct psyne_channel *ch;
                struct psyne_producer *p;
                pid_t pid;

                memset(s, 0, sizeof(*s));
                pid = start(count_all, "tcp://:0/links?size=256K", UINT32_MAX);
                REQUIRE(connect_and_open("size=256K", &ch, &p) == 0);
                for (uint32_t n = 0; n < 3000; n++)
                        REQUIRE(psyne_send(p, n, "0123456789", 10, WATCHDOG_NS) == 0);
                REQUIRE(psyne_stop(ch, PSYNE_DRAIN) == 0);
                REQUIRE(psyne_producer_close(p) == 0);
                (void)psyne_close(ch);
                REQUIRE(child_wait(pid, WATCHDOG_NS) == 0);
                REQUIRE(s->received == 3000);
        }
        return 0;
}

/* The other end's reader goes away, and its channel stays: once nothing more fits, the sender hears of it. */
static int reader_leaves(void) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        int64_t before, at;
        uint32_t n = 0;
        int r;
        pid_t pid = start(count_all, "tcp://:0/links?size=64K&rcvbuf=64K", 100);

        REQUIRE(connect_and_open("size=64K&sndbuf=64K&resume=500ms&wait=block", &ch, &p) == 0);
        at = now_ns();
        do
                r = psyne_send(p, n++, "0123456789", 10, 2 * WATCHDOG_NS);
        while (r == 0);
        REQUIRE(r == -EPIPE && now_ns() - at < WATCHDOG_NS);
        before = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
        usleep(300000); /* the time is what is measured */
        before = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - before;
        printf("reader-leaves: %u messages sent, 100 received; %.1f ms of CPU in 300 ms\n", n, (double)before / 1e6);
        REQUIRE(before < 60 * MSEC);
        (void)psyne_producer_close(p);
        __atomic_store_n(&s->step, 1, __ATOMIC_SEQ_CST);
        (void)psyne_close(ch);
        REQUIRE(child_wait(pid, WATCHDOG_NS) == 0);
        return 0;
}

static int write_key(const char *path, const char *bytes, mode_t mode) {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        REQUIRE(fd >= 0 && write(fd, bytes, strlen(bytes)) == (ssize_t)strlen(bytes) && fchmod(fd, mode) == 0);
        close(fd);
        return 0;
}

/* What becomes of a sender with @key at a listener with @wanted: "" is none. */
/* An end that is opened with @wanted, and one with @offered: they meet, or the second is refused with @word in the sentence. */
static int meet(const char *wanted, const char *offered, int error, const char *word) {
        struct psyne_channel *to, *from;
        char uri[256], sentence[256];
        int r;

        snprintf(uri, sizeof(uri), "tcp://:0/links?resume=2s%s%s", *wanted ? "&" : "", wanted);
        REQUIRE(psyne_open(uri, NULL, &to) == 0);
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%d/links?resume=2s%s%s", psyne_port(to), *offered ? "&" : "", offered);
        REQUIRE(psyne_open(uri, NULL, &from) == 0);
        if (error == 0) {
                struct psyne_producer *p;
                struct psyne_consumer *c;
                char got[8];

                REQUIRE(psyne_consumer_open(to, NULL, &c) == 0 && psyne_producer_open(from, NULL, &p) == 0);
                REQUIRE(psyne_send(p, 1, "secret", 6, WATCHDOG_NS) == 0);
                REQUIRE(psyne_recv_copy(c, got, sizeof(got), NULL, WATCHDOG_NS) == 6);
                REQUIRE(psyne_producer_close(p) == 0 && psyne_consumer_close(c) == 0);
        } else {
                r = psyne_wait_peers(from, 0, 1, WATCHDOG_NS);
                snprintf(sentence, sizeof(sentence), "%s", psyne_last_error());
                printf("at \"%s\" with \"%s\": %d, %s\n", wanted, offered, r, sentence);
                REQUIRE(r == error && strstr(sentence, word));
        }
        (void)psyne_close(from);
        (void)psyne_close(to);
        return 0;
}

/* The same with keys of that directory; empty: none. */
static int meets(const char *dir, const char *wanted, const char *key, int error) {
        char one[128] = "", other[128] = "";

        if (*wanted)
                snprintf(one, sizeof(one), "key=%s/%s", dir, wanted);
        if (*key)
                snprintf(other, sizeof(other), "key=%s/%s", dir, key);
        return meet(one, other, error, "key");
}

static int checksums(void) {
        return meet("checksum=on", "checksum=on", 0, "") || meet("checksum=off", "checksum=off", 0, "") ||
                meet("checksum=off", "", 0, "") || meet("", "checksum=off", -ENOTSUP, "checksum");
}

static int keys(void) {
        struct psyne_channel *ch;
        char dir[64], path[128], uri[256];
        int r;

        REQUIRE(private_dir(dir, sizeof(dir)) == 0);
        for (unsigned i = 0; i < 4; i++) {
                static const struct {
                        const char *name, *bytes;
                        mode_t mode;
                } files[] = {{"one", "0123456789abcdef0123456789abcdef", 0600}, {"two", "0123456789abcdef0123456789abcdeg", 0600},
                        {"open", "0123456789abcdef0123456789abcdef", 0644}, {"short", "0123456789", 0600}};

                snprintf(path, sizeof(path), "%s/%s", dir, files[i].name);
                REQUIRE(write_key(path, files[i].bytes, files[i].mode) == 0);
        }
        snprintf(uri, sizeof(uri), "tcp://:0/links?key=%s/one", dir);
        r = psyne_open(uri, NULL, &ch);
        if (r == -ENOTSUP) {
                printf("keys: SKIP, %s\n", psyne_last_error());
                remove_dir(dir);
                return 0;
        }
        REQUIRE(r == 0);
        (void)psyne_close(ch);
        r = meets(dir, "one", "one", 0) || meets(dir, "one", "two", -EACCES) || meets(dir, "one", "", -EACCES) ||
            meets(dir, "", "one", -EACCES);
        snprintf(uri, sizeof(uri), "tcp://:0/links?key=%s/open", dir);
        REQUIRE(psyne_open(uri, NULL, &ch) == -EACCES);
        snprintf(uri, sizeof(uri), "tcp://:0/links?key=%s/short", dir);
        REQUIRE(psyne_open(uri, NULL, &ch) == -EINVAL);
        snprintf(uri, sizeof(uri), "tcp://:0/links?key=%s/none", dir);
        REQUIRE(psyne_open(uri, NULL, &ch) == -ENOENT);
        snprintf(uri, sizeof(uri), "tcp://:0/links?key=%s", dir);
        REQUIRE(psyne_open(uri, NULL, &ch) == -EINVAL);
        remove_dir(dir);
        return r;
}

static const struct {
        const char *name;
        int (*run)(void);
} cases[] = {{"many", many},     {"ipv6", ipv6},  {"names", names}, {"plain", plain}, {"inlined", inlined},
        {"polled", polled},      {"receiver-dies", receiver_dies},  {"sender-dies", sender_dies}, {"forks", forks},
        {"stalled", stalled}, {"padding", padding}, {"drained", drained}, {"reader-leaves", reader_leaves},
        {"keys", keys}, {"checksums", checksums}};

int main(int argc, char **argv) {
        int failed = 0;

        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED)
                return 1;
        setvbuf(stdout, NULL, _IOLBF, 0);
        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                pid_t pid;
                int r;

                if (argc > 1 && strcmp(argv[1], cases[i].name))
                        continue;
                memset(s, 0, sizeof(*s));
                fflush(NULL);
                pid = fork(); /* an engine is a choice of the whole process */
                if (pid == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        _exit(cases[i].run() ? 1 : 0);
                }
                r = child_wait(pid, 6 * WATCHDOG_NS);
                printf("%-14s %s\n", cases[i].name, r ? "FAIL" : "PASS");
                failed |= r;
        }
        printf("%s\n", failed ? "FAIL" : "PASS");
        return failed != 0;
}
