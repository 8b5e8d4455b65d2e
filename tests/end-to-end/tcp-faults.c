/*
 * A network that does everything to a link but forge it. A sender and a receiver are two processes; between them this one
 * passes their bytes on, and harms each connection in some way: cuts what it passes into pieces, delays it, breaks the
 * connection at a given byte or at the border of a frame, closes one direction, stops passing anything, flips a bit. Every
 * message has a number and a pattern; none may be lost, doubled, changed or out of order, and nothing may hang.
 *
 *      tcp-faults [EVENTS [STALL_MS [inline]]]     default 2,000 harmed connections, or PSYNE_EVENTS; stalls of up to 50 ms
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/world.h"

#define HEADER_BYTES 32u /* of a frame; its kind and its payload's length are the first two 32-bit words */
#define QUIET_NS (5 * SECOND) /* so long without a message: something hangs */

struct shared {
        uint32_t port, enough;
        uint64_t sent, received, bytes;
        int64_t last_ns; /* when a message was received */
};
static struct shared *s;

/* ---- the two ends ------------------------------------------------------------------------------------------------ */

static size_t size_of(struct random *r) {
        switch (random_below(r, 8)) {
        case 0:
                return 0;
        case 1:
                return (size_t)random_below(r, 40000);
        default:
                return (size_t)random_below(r, 600);
        }
}

static bool inlined; /* both ends: whoever sends and receives is in the middle of it when the connection breaks */

static const char *query(bool sends) {
        return !inlined ? "size=256K&wait=block&resume=20s" : sends ? "size=256K&resume=20s&inline=1" : "size=256K&resume=20s&inline=1&wait=spin";
}

static int receive(void) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        uint64_t n = 0;
        char uri[128];
        int r;

        snprintf(uri, sizeof(uri), "tcp://:0/faults?%s", query(false));
        if (psyne_open(uri, NULL, &ch) < 0 || psyne_consumer_open(ch, NULL, &c) < 0) {
                printf("FAIL: no receiver: %s\n", psyne_last_error());
                return 2;
        }
        __atomic_store_n(&s->port, (uint32_t)psyne_port(ch), __ATOMIC_SEQ_CST);
        while ((r = psyne_recv(c, &m, PSYNE_FOREVER)) == 0) {
                if (m.type != (uint32_t)n || !pattern_is(m.data, m.len, n) || m.flags) {
                        printf("FAIL: message %llu came as %u, %zu bytes, flags %x\n", (unsigned long long)n, m.type, m.len, m.flags);
                        return 3;
                }
                __atomic_store_n(&s->bytes, s->bytes + m.len, __ATOMIC_RELAXED);
                __atomic_store_n(&s->received, ++n, __ATOMIC_RELAXED);
                __atomic_store_n(&s->last_ns, now_ns(), __ATOMIC_RELAXED);
                (void)psyne_release(c, &m);
        }
        if (r != -EPIPE) {
                printf("FAIL: the receiver ends with %d: %s\n", r, psyne_last_error());
                return 4;
        }
        (void)psyne_consumer_close(c);
        (void)psyne_close(ch);
        fflush(stdout);
        return 0;
}

static int send_all(const char *uri, uint64_t seed) {
        struct random random = {seed};
        struct psyne_channel *ch;
        struct psyne_producer *p;
        uint64_t n = 0;
        int64_t unread;

        if (psyne_open(uri, NULL, &ch) < 0 || psyne_producer_open(ch, NULL, &p) < 0) {
                printf("FAIL: no sender: %s\n", psyne_last_error());
                return 2;
        }
        while (!__atomic_load_n(&s->enough, __ATOMIC_RELAXED)) {
                struct psyne_msg m;
                size_t size = size_of(&random);
                int r = psyne_claim(p, size, PSYNE_FOREVER, &m);

                if (r < 0) {
                        printf("FAIL: message %llu cannot be sent: %d, %s\n", (unsigned long long)n, r, psyne_last_error());
                        return 3;
                }
                pattern_fill(m.data, size, n);
                m.type = (uint32_t)n;
                (void)psyne_commit(p, &m);
                __atomic_store_n(&s->sent, ++n, __ATOMIC_RELAXED);
        }
        unread = psyne_producer_close(p);
        if (unread != 0) {
                printf("FAIL: %lld messages were not acknowledged\n", (long long)unread);
                return 4;
        }
        (void)psyne_close(ch);
        fflush(stdout);
        return 0;
}

/* ---- what is between them ----------------------------------------------------------------------------------------- */

enum harm { HARM_NONE, HARM_SPLIT, HARM_DELAY, HARM_RESET_BYTE, HARM_RESET_FRAME, HARM_HALF, HARM_STALL, HARM_FLIP, N_HARMS };
static const char *const harm_names[] = {"none", "split", "delay", "reset at a byte", "reset at a frame", "half-close", "stall", "flip"};

struct pipe {
        int from, to;
        uint64_t passed;
        unsigned char waiting[4096];
        size_t n;
        uint64_t flip_at;
        /* frames, of what the sender says */
        unsigned char header[HEADER_BYTES];
        size_t have;
        uint64_t left, frames;
};

struct passage {
        bool used;
        enum harm harm;
        uint64_t at;             /* byte, or frame */
        int64_t until_ns;        /* stalled */
        bool back;               /* it is done to what the receiver says */
        struct pipe pipes[2];    /* there, back */
};

static struct passage passages[16];
static struct random dice;
static uint64_t done[N_HARMS], n_done;
static int64_t stall_ns = 50 * MSEC;
static uint16_t target;

static int socket_new(void) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        return fd;
}

static struct sockaddr_in address(uint16_t port) {
        return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static void end(struct passage *p, bool reset) {
        const struct linger now = {.l_onoff = 1};

        for (int i = 0; i < 2; i++) {
                if (reset)
                        (void)setsockopt(p->pipes[i].from, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
                close(p->pipes[i].from);
        }
        p->used = false;
}

static void harmed(struct passage *p) {
        if (p->harm != HARM_NONE) {
                done[p->harm]++;
                n_done++;
        }
        p->harm = HARM_NONE;
}

static void begin(int from) {
        struct sockaddr_in a = address(target);
        int to = socket_new(), on = 1;
        struct passage *p = NULL;

        for (unsigned i = 0; i < sizeof(passages) / sizeof(*passages); i++)
                if (!passages[i].used)
                        p = &passages[i];
        if (!p || to < 0 || connect(to, (struct sockaddr *)&a, sizeof(a)) < 0) {
                close(from);
                if (to >= 0)
                        close(to);
                return;
        }
        (void)setsockopt(from, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        (void)fcntl(from, F_SETFL, O_NONBLOCK);
        (void)fcntl(to, F_SETFL, O_NONBLOCK);
        memset(p, 0, sizeof(*p));
        p->used = true;
        p->pipes[0] = (struct pipe){.from = from, .to = to};
        p->pipes[1] = (struct pipe){.from = to, .to = from};
        p->harm = __atomic_load_n(&s->enough, __ATOMIC_RELAXED) ? HARM_NONE : (enum harm)(1 + random_below(&dice, N_HARMS - 1));
        p->back = random_below(&dice, 3) == 0;
        p->at = random_below(&dice, random_below(&dice, 2) ? 400 : 300000);
        if (p->harm == HARM_RESET_FRAME) {
                p->back = false;
                p->at = random_below(&dice, 40);
        }
        if (p->harm == HARM_SPLIT) /* the first 4 KiB, cut at this byte and then into crumbs */
                p->at = done[HARM_SPLIT] % 4096;
        if (p->back)
                p->at %= 2000;
}

/* Follows the frames; true at the border that was asked for. */
static size_t to_border(struct passage *p, struct pipe *x, const unsigned char *bytes, size_t n, bool *hit) {
        size_t i = 0;

        *hit = false;
        while (i < n) {
                if (x->left) {
                        size_t k = x->left < n - i ? (size_t)x->left : n - i;

                        x->left -= k;
                        i += k;
                } else {
                        x->header[x->have++] = bytes[i++];
                        if (x->have == HEADER_BYTES) {
                                uint32_t payload;

                                memcpy(&payload, x->header + 4, sizeof(payload));
                                x->left = payload;
                                x->have = 0;
                        }
                }
                if (!x->left && !x->have && x->frames++ == p->at && p->harm == HARM_RESET_FRAME) {
                        *hit = true;
                        return i;
                }
        }
        return n;
}

/* Passes on what it may. False: the passage is over. */
static bool pass(struct passage *p, int i) {
        struct pipe *x = &p->pipes[i];
        bool mine = i == p->back, hit = false;
        size_t most = sizeof(x->waiting);
        ssize_t n;

        if (!x->n) {
                if (p->harm == HARM_SPLIT && mine && x->passed < 8192)
                        most = x->passed < p->at ? p->at - x->passed : 1 + (size_t)random_below(&dice, 97);
                else if (p->harm == HARM_RESET_BYTE && mine)
                        most = x->passed < p->at ? p->at - x->passed : 0;
                if (most > sizeof(x->waiting))
                        most = sizeof(x->waiting);
                if (!most) {
                        harmed(p);
                        end(p, true);
                        return false;
                }
                n = recv(x->from, x->waiting, most, 0);
                if (n < 0)
                        return errno == EAGAIN || errno == EINTR;
                if (n == 0) {
                        end(p, false);
                        return false;
                }
                x->n = (size_t)n;
                if (p->harm == HARM_FLIP && mine && x->passed + x->n > p->at) {
                        x->waiting[p->at < x->passed ? 0 : p->at - x->passed] ^= (unsigned char)(1u << random_below(&dice, 8));
                        harmed(p);
                }
                if (i == 0 && p->harm == HARM_RESET_FRAME)
                        x->n = to_border(p, x, x->waiting, x->n, &hit);
        }
        n = send(x->to, x->waiting, x->n, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
                end(p, true);
                return false;
        }
        if (n > 0) {
                memmove(x->waiting, x->waiting + n, x->n - (size_t)n);
                x->n -= (size_t)n;
                x->passed += (uint64_t)n;
        }
        if (hit) { /* whatever did not go out is lost with it */
                harmed(p);
                end(p, true);
                return false;
        }
        if (mine && x->passed > p->at) {
                if (p->harm == HARM_HALF) {
                        (void)shutdown(x->to, SHUT_WR);
                        p->until_ns = now_ns() + (int64_t)random_below(&dice, 20 * MSEC);
                        p->harm = HARM_NONE;
                        done[HARM_HALF]++;
                        n_done++;
                        p->at = UINT64_MAX; /* then it ends */
                } else if (p->harm == HARM_STALL || p->harm == HARM_DELAY) {
                        p->until_ns = now_ns() + (int64_t)random_below(&dice, p->harm == HARM_STALL ? (uint64_t)stall_ns : 3 * MSEC);
                        harmed(p);
                } else if (p->harm == HARM_SPLIT && x->passed >= 8192)
                        harmed(p);
        }
        return true;
}

/* One that nothing more is to happen to is broken, too: there are events to come. */
static void age(struct passage *p) {
        if (p->at == UINT64_MAX && now_ns() > p->until_ns)
                end(p, random_below(&dice, 2));
        else if (p->harm == HARM_NONE && !__atomic_load_n(&s->enough, __ATOMIC_RELAXED) && p->pipes[0].passed > 400000)
                end(p, true);
}

static int run(uint64_t events, int listener, const pid_t pids[2]) {
        int64_t quiet_since = now_ns();
        uint64_t before = 0;
        int status[2] = {-1, -1};

        while (status[0] < 0 || status[1] < 0) {
                struct pollfd fds[1 + 2 * sizeof(passages) / sizeof(*passages)];
                struct {
                        struct passage *p;
                        int i;
                } whose[sizeof(fds) / sizeof(*fds)];
                nfds_t n = 1;
                uint64_t received = __atomic_load_n(&s->received, __ATOMIC_RELAXED);

                fds[0] = (struct pollfd){.fd = listener, .events = POLLIN};
                for (unsigned k = 0; k < sizeof(passages) / sizeof(*passages); k++) {
                        struct passage *p = &passages[k];

                        if (p->used)
                                age(p);
                        for (int i = 0; p->used && i < 2; i++) {
                                if (now_ns() < p->until_ns)
                                        continue;
                                fds[n] = (struct pollfd){.fd = p->pipes[i].n ? p->pipes[i].to : p->pipes[i].from,
                                        .events = p->pipes[i].n ? POLLOUT : POLLIN};
                                whose[n].p = p;
                                whose[n++].i = i;
                        }
                }
                if (poll(fds, n, 1) > 0) {
                        if (fds[0].revents) {
                                int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

                                if (fd >= 0)
                                        begin(fd);
                        }
                        for (nfds_t k = 1; k < n; k++)
                                if (fds[k].revents && whose[k].p->used)
                                        (void)pass(whose[k].p, whose[k].i);
                }
                if (n_done >= events)
                        __atomic_store_n(&s->enough, 1, __ATOMIC_RELAXED);
                if (received != before || status[0] >= 0)
                        quiet_since = now_ns();
                before = received;
                if (now_ns() - quiet_since > QUIET_NS + stall_ns) {
                        printf("FAIL: nothing has moved for %lld s, after %llu events: %llu sent, %llu received\n",
                                (long long)((QUIET_NS + stall_ns) / SECOND), (unsigned long long)n_done, (unsigned long long)s->sent,
                                (unsigned long long)received);
                        for (int i = 0; i < 2; i++)
                                kill(pids[i], SIGKILL);
                        return 1;
                }
                for (int i = 0; i < 2; i++)
                        if (status[i] < 0 && waitpid(pids[i], &status[i], WNOHANG) != pids[i])
                                status[i] = -1;
                        else if (status[i] > 0) {
                                printf("FAIL: the %s ended with %d\n", i ? "sender" : "receiver", status[i]);
                                kill(pids[!i], SIGKILL);
                                return 1;
                        }
        }
        return 0;
}

int main(int argc, char **argv) {
        const char *text = argc > 1 ? argv[1] : getenv("PSYNE_EVENTS");
        uint64_t events = text ? strtoull(text, NULL, 10) : 2000, seed;
        struct sockaddr_in a = address(0);
        socklen_t n = sizeof(a);
        char uri[96];
        pid_t pids[2];
        int listener, r;

        if (argc > 2)
                stall_ns = strtoll(argv[2], NULL, 10) * MSEC;
        inlined = argc > 3 && strcmp(argv[3], "inline") == 0;
        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED)
                return 1;
        setvbuf(stdout, NULL, _IOLBF, 0);
        (void)signal(SIGPIPE, SIG_IGN);
        dice = random_seeded("tcp-faults");
        seed = random_next(&dice);
        listener = socket_new();
        if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(listener, 16) < 0 ||
                getsockname(listener, (struct sockaddr *)&a, &n) < 0)
                return 77;
        (void)fcntl(listener, F_SETFL, O_NONBLOCK);
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%u/faults?%s", ntohs(a.sin_port), query(true));
        pids[0] = fork();
        if (pids[0] == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                _exit(receive());
        }
        for (int64_t until = now_ns() + WATCHDOG_NS; !__atomic_load_n(&s->port, __ATOMIC_SEQ_CST) && now_ns() < until;)
                breathe();
        target = (uint16_t)s->port;
        pids[1] = fork();
        if (pids[1] == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                _exit(send_all(uri, seed));
        }
        r = run(events, listener, pids);
        for (unsigned i = 1; i < N_HARMS; i++)
                printf("%6llu  %s\n", (unsigned long long)done[i], harm_names[i]);
        printf("%llu events, %llu messages sent, %llu received, %llu bytes\n", (unsigned long long)n_done, (unsigned long long)s->sent,
                (unsigned long long)s->received, (unsigned long long)s->bytes);
        if (!r && s->sent != s->received) {
                printf("FAIL: not all arrived\n");
                r = 1;
        }
        printf("%s\n", r ? "FAIL" : "PASS");
        return r;
}
