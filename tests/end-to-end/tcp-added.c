/*
 * Links that are added to a channel: one that feeds several hosts, each with a group of its own, where one is killed, another
 * does not read and is left behind, a third has a group that stays; ipc:// carried to an ipc:// of somewhere else; one that ends
 * while its producer goes on; how it looks from outside; what is refused.
 *
 *      tcp-added [CASE]
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <psyne/stat.h>

#include "support/require.h"
#include "support/start.h"

#define N 20000u
#define N_MOST (1u << 27) /* more than can be sent before a watchdog */
#define ENDS 3u

struct shared {
        uint32_t turn, stop, over, ports[ENDS];
        uint32_t received[ENDS], first[ENDS], last[ENDS], runs[ENDS];
        char dir[64];
};
static struct shared *s;

static uint32_t read_word(const uint32_t *word) {
        return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static int send_numbers(struct psyne_producer *p, uint32_t *n, uint32_t until) {
        char bytes[300];

        for (; *n < until; ++*n) {
                pattern_fill(bytes, *n % sizeof(bytes), *n);
                REQUIRE(psyne_send(p, *n, bytes, *n % sizeof(bytes), WATCHDOG_NS) == 0);
        }
        return 0;
}

/* Until all producers are gone: no number comes twice. A run is of numbers that rise by one. */
static int receive_numbers(struct psyne_consumer *c, unsigned i) {
        static unsigned char seen[N_MOST / 8];
        struct psyne_msg m;
        uint32_t next = UINT32_MAX;
        int r;

        while ((r = psyne_recv(c, &m, WATCHDOG_NS)) == 0) {
                REQUIRE(m.len == m.type % 300 && pattern_is(m.data, m.len, m.type));
                REQUIRE(m.type < N_MOST && !(seen[m.type / 8] & 1u << m.type % 8));
                seen[m.type / 8] |= (unsigned char)(1u << m.type % 8);
                if (next == UINT32_MAX)
                        s->first[i] = m.type;
                if (m.type != next)
                        __atomic_fetch_add(&s->runs[i], 1, __ATOMIC_RELEASE);
                next = m.type + 1;
                if (m.type > s->last[i])
                        __atomic_store_n(&s->last[i], m.type, __ATOMIC_RELEASE);
                __atomic_fetch_add(&s->received[i], 1, __ATOMIC_RELEASE);
                REQUIRE(psyne_release(c, &m) == 0);
        }
        REQUIRE(r == -EPIPE);
        return 0;
}

/* The @i'th end: a listener with a reader. */
static int listen_and_receive(const char *query, unsigned i) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        char uri[128];

        snprintf(uri, sizeof(uri), "tcp://:%u/end?%s", read_word(&s->ports[i]), query);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        __atomic_store_n(&s->ports[i], (uint32_t)psyne_port(ch), __ATOMIC_RELEASE);
        REQUIRE(receive_numbers(c, i) == 0 && psyne_consumer_close(c) == 0);
        (void)psyne_close(ch);
        return 0;
}

/* One that has a reader which reads nothing before it may; producers come and go, until it is over. */
static int listen_and_wait(const char *query, unsigned i) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        char uri[128];

        snprintf(uri, sizeof(uri), "tcp://:0/end?%s", query);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        __atomic_store_n(&s->ports[i], (uint32_t)psyne_port(ch), __ATOMIC_RELEASE);
        REQUIRE(await_word(&s->stop, 1) == 0);
        do {
                int r = psyne_wait_peers(ch, 1, 1, 10 * MSEC);

                REQUIRE((r == 0 && receive_numbers(c, i) == 0) || r == -ETIME);
        } while (!read_word(&s->over));
        REQUIRE(psyne_consumer_close(c) == 0);
        (void)psyne_close(ch);
        return 0;
}

static int add(struct psyne_channel *ch, unsigned i, const char *query, struct psyne_link **ret) {
        char uri[128];

        REQUIRE(await_word(&s->ports[i], 1) == 0);
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%u/end%s%s", s->ports[i], query[0] ? "?" : "", query);
        REQUIRE(psyne_link_open(ch, uri, ret) == 0);
        return 0;
}

static int look(const struct psyne_link *l, struct psyne_link_info *ret) {
        *ret = (struct psyne_link_info){.struct_size = sizeof(*ret)};
        return psyne_link_info(l, ret, 1);
}

/* ---- several ends ---------------------------------------------------------------------------------------------------- */

static int fan_out(void) {
        struct psyne_link_info info[2 * ENDS] = {{.struct_size = sizeof(info[0])}};
        struct psyne_link *links[ENDS];
        struct psyne_channel *ch;
        struct psyne_producer *p;
        pid_t pids[ENDS];
        uint32_t n = 0;

        for (unsigned i = 0; i < ENDS; i++)
                pids[i] = start_at(&s->turn, 0, listen_and_receive, "size=256K", i);
        REQUIRE(psyne_open("memory://?mode=broadcast&size=64K", NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        for (unsigned i = 0; i < ENDS; i++)
                REQUIRE(add(ch, i, "", &links[i]) == 0);
        REQUIRE(psyne_wait_peers(ch, 1, ENDS, WATCHDOG_NS) == 0);
        REQUIRE(psyne_links(ch, info, 2 * ENDS) == 2 * ENDS && info[0].added && info[2 * ENDS - 1].added);
        REQUIRE(send_numbers(p, &n, N) == 0 && psyne_flush(p, WATCHDOG_NS) == 0 && psyne_producer_close(p) == 0);
        for (unsigned i = 0; i < ENDS; i++)
                REQUIRE(child_wait(pids[i], WATCHDOG_NS) == 0 && s->received[i] == N && s->runs[i] == 1);
        for (unsigned i = 0; i < ENDS; i++)
                REQUIRE(psyne_link_close(links[i]) == NULL);
        REQUIRE(psyne_links(ch, info, 2 * ENDS) == 0);
        (void)psyne_close(ch);
        return 0;
}

/* One of two ends is killed: the producer waits for it as long as resume= says; another takes its port, and begins where the channel
 * then stands. The other end gets everything. */
static int one_dies(void) {
        struct psyne_link *links[2];
        struct psyne_channel *ch;
        struct psyne_producer *p;
        pid_t pids[3];
        uint32_t n = 0, killed;

        pids[0] = start_at(&s->turn, 0, listen_and_receive, "size=64K", 0);
        pids[1] = start_at(&s->turn, 0, listen_and_receive, "size=64K", 1);
        pids[2] = start_at(&s->turn, 1, listen_and_receive, "size=64K", 1);
        REQUIRE(psyne_open("memory://?mode=broadcast&size=64K", NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        REQUIRE(add(ch, 0, "resume=300ms", &links[0]) == 0 && add(ch, 1, "resume=300ms", &links[1]) == 0);
        REQUIRE(psyne_wait_peers(ch, 1, 2, WATCHDOG_NS) == 0);
        REQUIRE(send_numbers(p, &n, 5000) == 0);
        kill(pids[1], SIGKILL);
        (void)waitpid(pids[1], NULL, 0);
        killed = read_word(&s->received[1]);
        REQUIRE(send_numbers(p, &n, 10000) == 0); /* more than the ring holds: it is waited for, and then not */
        next_turn(&s->turn);
        for (int64_t until = now_ns() + WATCHDOG_NS; read_word(&s->received[1]) == killed;)
                REQUIRE(now_ns() < until && send_numbers(p, &n, n + 1) == 0);
        REQUIRE(send_numbers(p, &n, n + 5000) == 0 && psyne_flush(p, WATCHDOG_NS) == 0 && psyne_producer_close(p) == 0);
        REQUIRE(child_wait(pids[0], WATCHDOG_NS) == 0 && child_wait(pids[2], WATCHDOG_NS) == 0);
        printf("one-dies: %u sent; one end has %u, the other had %u and then has %u from %u on\n", n, s->received[0], killed,
                s->received[1] - killed, s->first[1]);
        REQUIRE(s->received[0] == n && s->runs[0] == 1);
        REQUIRE(s->last[1] == n - 1 && s->first[1] >= 10000 && s->received[1] - killed == n - s->first[1]);
        (void)psyne_link_close(links[0]);
        (void)psyne_link_close(links[1]);
        (void)psyne_close(ch);
        return 0;
}

/* An end that does not read is left behind, and gets what is there when it does. The other one gets everything. */
static int left_behind(void) {
        struct psyne_link_info info;
        struct psyne_link *links[2];
        struct psyne_channel *ch;
        struct psyne_producer *p;
        pid_t pids[2];
        uint32_t n = 0;

        pids[0] = start_at(&s->turn, 0, listen_and_receive, "size=64K", 0);
        pids[1] = start_at(&s->turn, 0, listen_and_wait, "size=64K&rcvbuf=16K&mode=mpsc", 1);
        REQUIRE(psyne_open("memory://?mode=broadcast&size=64K", NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        REQUIRE(add(ch, 0, "", &links[0]) == 0 && add(ch, 1, "behind=ejected&eject=100ms&sndbuf=16K&resume=200ms", &links[1]) == 0);
        REQUIRE(psyne_wait_peers(ch, 1, 2, WATCHDOG_NS) == 0);
        for (int64_t until = now_ns() + WATCHDOG_NS;;) {
                REQUIRE(look(links[1], &info) >= 1 && now_ns() < until);
                if (info.ejections)
                        break;
                REQUIRE(send_numbers(p, &n, n + 1) == 0);
        }
        REQUIRE(info.lost_bytes > 0 && send_numbers(p, &n, n + N) == 0 && look(links[0], &info) >= 1 && info.ejections == 0 && info.lost_bytes == 0);
        __atomic_store_n(&s->stop, 1, __ATOMIC_RELEASE);
        for (int64_t until = now_ns() + WATCHDOG_NS; read_word(&s->runs[1]) < 2;)
                REQUIRE(now_ns() < until && send_numbers(p, &n, n + 1) == 0);
        __atomic_store_n(&s->over, 1, __ATOMIC_RELEASE);
        REQUIRE(psyne_flush(p, WATCHDOG_NS) == 0 && psyne_producer_close(p) == 0);
        REQUIRE(child_wait(pids[0], WATCHDOG_NS) == 0 && child_wait(pids[1], WATCHDOG_NS) == 0);
        printf("left-behind: %u sent; one end has %u, the other %u in %u runs\n", n, s->received[0], s->received[1], s->runs[1]);
        REQUIRE(s->received[0] == n && s->runs[0] == 1 && s->received[1] < n);
        (void)psyne_link_close(links[0]);
        (void)psyne_link_close(links[1]);
        (void)psyne_close(ch);
        return 0;
}

/* ---- an end of its own ------------------------------------------------------------------------------------------------ */

/* What was committed before the link ends arrives; its producer goes on. A named group stays where it stood. */
static int link_ends(const char *query, bool stays) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_link *l;
        pid_t pids[2];
        uint32_t n = 0;

        /* They hear goodbye: without it they would wait for the link to come again. */
        pids[0] = start_at(&s->turn, 0, listen_and_receive, "size=256K&resume=60s", 0);
        pids[1] = start_at(&s->turn, 1, listen_and_receive, "size=256K&resume=60s", 1);
        REQUIRE(psyne_open("memory://?mode=broadcast&size=256K", NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        REQUIRE(add(ch, 0, query, &l) == 0 && psyne_wait_peers(ch, 1, 1, WATCHDOG_NS) == 0);
        REQUIRE(send_numbers(p, &n, 1000) == 0 && psyne_link_close(l) == NULL);
        REQUIRE(child_wait(pids[0], WATCHDOG_NS) == 0 && s->received[0] == 1000);
        REQUIRE(send_numbers(p, &n, 1500) == 0); /* to nobody, or to the group */
        next_turn(&s->turn);
        REQUIRE(add(ch, 1, query, &l) == 0 && psyne_wait_peers(ch, 1, 1, WATCHDOG_NS) == 0);
        REQUIRE(send_numbers(p, &n, 2000) == 0 && psyne_producer_close(p) == 0 && psyne_link_close(l) == NULL);
        REQUIRE(child_wait(pids[1], WATCHDOG_NS) == 0);
        REQUIRE(s->first[1] == (stays ? 1000 : 1500) && s->last[1] == 1999 && s->received[1] == 2000 - s->first[1]);
        (void)psyne_close(ch);
        return 0;
}

static int ends(void) {
        return link_ends("", false);
}

static int group_stays(void) {
        return link_ends("group=far", true);
}

/* A reader that comes, leaves when it has so many, and comes again. */
static int receive_in_turns(const char *query, unsigned i) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        char uri[128];

        snprintf(uri, sizeof(uri), "tcp://:0/end?%s", query);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        __atomic_store_n(&s->ports[i], (uint32_t)psyne_port(ch), __ATOMIC_RELEASE);
        for (uint32_t n = 0; n < 100; n++)
                REQUIRE(psyne_recv(c, &m, WATCHDOG_NS) == 0 && m.type == n && psyne_release(c, &m) == 0);
        REQUIRE(psyne_consumer_close(c) == 0 && await_word(&s->turn, 1) == 0);
        REQUIRE(psyne_consumer_open(ch, NULL, &c) == 0);
        while (!s->received[i]) /* the producer of before ends, and then there is another */
                REQUIRE(psyne_wait_peers(ch, 1, 1, WATCHDOG_NS) == 0 && receive_numbers(c, i) == 0);
        REQUIRE(psyne_consumer_close(c) == 0);
        (void)psyne_close(ch);
        return 0;
}

/* While the far end has no reader, another one of the group goes on; the link begins where that has come to. */
static int group_turns(void) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        struct psyne_link *l;
        struct psyne_msg m;
        uint32_t n = 0;
        pid_t pid = start_at(&s->turn, 0, receive_in_turns, "size=64K", 0);
        int64_t until = now_ns() + WATCHDOG_NS;
        int r;

        REQUIRE(psyne_open("memory://?mode=broadcast&size=64K", NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        REQUIRE(add(ch, 0, "group=far&resume=200ms", &l) == 0 && psyne_wait_peers(ch, 1, 1, WATCHDOG_NS) == 0);
        REQUIRE(send_numbers(p, &n, 100) == 0);
        while ((r = psyne_consumer_open(ch, &(struct psyne_consumer_opts){.struct_size = sizeof(struct psyne_consumer_opts), .group = "far"}, &c)) == -EBUSY)
                REQUIRE(now_ns() < until);
        REQUIRE(r == 0 && send_numbers(p, &n, 200) == 0);
        for (uint32_t i = 100; i < 150; i++)
                REQUIRE(psyne_recv(c, &m, WATCHDOG_NS) == 0 && m.type == i && psyne_release(c, &m) == 0);
        REQUIRE(psyne_consumer_close(c) == 0);
        next_turn(&s->turn);
        REQUIRE(psyne_wait_peers(ch, 1, 1, WATCHDOG_NS) == 0 && send_numbers(p, &n, 300) == 0);
        REQUIRE(psyne_flush(p, WATCHDOG_NS) == 0 && psyne_producer_close(p) == 0 && psyne_link_close(l) == NULL);
        REQUIRE(child_wait(pid, WATCHDOG_NS) == 0);
        printf("group-turns: %u from %u to %u in %u runs\n", s->received[0], s->first[0], s->last[0], s->runs[0]);
        REQUIRE(s->first[0] == 150 && s->last[0] == 299 && s->received[0] == 150);
        (void)psyne_close(ch);
        return 0;
}

/* group=default makes it the reader of a channel that has no other: what was sent before anybody came arrives, too. */
static int default_group(void) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_link *l;
        uint32_t n = 0;
        pid_t pid = start_at(&s->turn, 0, listen_and_receive, "size=64K&mode=mpsc", 0);

        REQUIRE(psyne_open("memory://?mode=mpsc&size=64K", NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        REQUIRE(send_numbers(p, &n, 100) == 0);
        REQUIRE(add(ch, 0, "group=default", &l) == 0 && send_numbers(p, &n, N) == 0);
        REQUIRE(psyne_producer_close(p) == 0 && psyne_link_close(l) == NULL);
        REQUIRE(child_wait(pid, WATCHDOG_NS) == 0 && s->received[0] == N && s->first[0] == 0);
        (void)psyne_close(ch);
        return 0;
}

/* Without a thread: who has the channel moves its links. */
static int polled(void) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_link *l;
        struct psyne_msg m;
        pid_t pid = start_at(&s->turn, 0, listen_and_receive, "size=64K", 0);
        int64_t until = now_ns() + WATCHDOG_NS;

        REQUIRE(psyne_open("memory://?mode=broadcast&size=64K&nothread=1", NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        REQUIRE(psyne_poll(ch, PSYNE_NOWAIT) == -EINVAL);
        REQUIRE(add(ch, 0, "", &l) == 0);
        while (psyne_wait_peers(ch, 1, 1, PSYNE_NOWAIT) == -EAGAIN)
                REQUIRE(psyne_poll(ch, 10 * MSEC) >= 0 && now_ns() < until);
        for (uint32_t n = 0; n < N;) {
                int r = psyne_claim(p, 300, PSYNE_NOWAIT, &m);

                if (r == 0) {
                        m.type = n;
                        m.len = n % 300;
                        pattern_fill(m.data, m.len, n++);
                        REQUIRE(psyne_commit(p, &m) == 0);
                } else
                        REQUIRE(r == -EAGAIN && psyne_poll(ch, 10 * MSEC) >= 0 && now_ns() < until);
        }
        REQUIRE(psyne_link_close(l) == NULL && psyne_producer_close(p) == 0);
        REQUIRE(child_wait(pid, WATCHDOG_NS) == 0 && s->received[0] == N);
        (void)psyne_close(ch);
        return 0;
}

/* ---- ipc:// to ipc:// -------------------------------------------------------------------------------------------------- */

static int open_in(const char *name, struct psyne_channel **ret) {
        char uri[160];

        snprintf(uri, sizeof(uri), "ipc://%s/%s?mode=mpsc&size=64K", s->dir, name);
        REQUIRE(psyne_open(uri, NULL, ret) == 0);
        return 0;
}

static int ipc_producer(const char *name, unsigned unused) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        uint32_t n = 0;

        (void)unused;
        REQUIRE(open_in(name, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        REQUIRE(psyne_wait_peers(ch, 1, 1, WATCHDOG_NS) == 0);
        REQUIRE(send_numbers(p, &n, N) == 0 && psyne_flush(p, WATCHDOG_NS) == 0 && psyne_producer_close(p) == 0);
        (void)psyne_close(ch);
        return 0;
}

static int ipc_consumer(const char *name, unsigned i) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;

        REQUIRE(open_in(name, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        REQUIRE(receive_numbers(c, i) == 0 && psyne_consumer_close(c) == 0);
        (void)psyne_close(ch);
        return 0;
}

/* Who carries: from the far end's messages into this channel, or from it to there. */
static int ipc_listens(const char *name, unsigned i) {
        struct psyne_channel *ch;
        struct psyne_link *l;

        REQUIRE(open_in(name, &ch) == 0 && psyne_link_open(ch, "tcp://:0/end", &l) == 0 && psyne_link_port(l) > 0);
        __atomic_store_n(&s->ports[i], (uint32_t)psyne_link_port(l), __ATOMIC_RELEASE);
        REQUIRE(await_word(&s->over, 1) == 0);
        (void)psyne_link_close(l);
        (void)psyne_close(ch);
        return 0;
}

static int ipc_connects(const char *name, unsigned i) {
        struct psyne_channel *ch;
        struct psyne_link *l;

        REQUIRE(open_in(name, &ch) == 0 && add(ch, i, "group=default", &l) == 0);
        REQUIRE(await_word(&s->over, 1) == 0);
        (void)psyne_link_close(l);
        (void)psyne_close(ch);
        return 0;
}

/* Four processes: a producer, two that carry, and a consumer in another directory's channel. The far end comes late. */
static int carried(void) {
        char dir[] = "/dev/shm/psyne-test-XXXXXX";
        pid_t pids[4];

        REQUIRE(mkdtemp(dir));
        snprintf(s->dir, sizeof(s->dir), "%s", dir);
        pids[0] = start_at(&s->turn, 0, ipc_producer, "here", 0);
        pids[1] = start_at(&s->turn, 0, ipc_connects, "here", 0);
        pids[2] = start_at(&s->turn, 0, ipc_listens, "there", 0);
        pids[3] = start_at(&s->turn, 1, ipc_consumer, "there", 0);
        REQUIRE(await_word(&s->ports[0], 1) == 0);
        next_turn(&s->turn);
        REQUIRE(child_wait(pids[0], WATCHDOG_NS) == 0 && child_wait(pids[3], WATCHDOG_NS) == 0);
        REQUIRE(s->received[0] == N && s->runs[0] == 1);
        __atomic_store_n(&s->over, 1, __ATOMIC_RELEASE);
        REQUIRE(child_wait(pids[1], WATCHDOG_NS) == 0 && child_wait(pids[2], WATCHDOG_NS) == 0);
        REQUIRE(rmdir(dir) == 0);
        return 0;
}

/* ---- seen from outside ------------------------------------------------------------------------------------------------- */

struct seen {
        uint32_t pid, all, rows, up, silent;
        const char *link;
};

static int see(void *ctx, const struct psyne_stat_link *l) {
        struct seen *seen = ctx;

        if (l->pid != seen->pid)
                return 0;
        seen->silent += l->error == -ETIME;
        if (l->error)
                return 0;
        seen->all++;
        if (l->n_rows != 2) /* of a producer, and one that is kept ready: not yet */
                return 0;
        REQUIRE(l->row == seen->rows && strcmp(l->channel, "memory://") == 0 && strcmp(l->link, seen->link) == 0);
        REQUIRE(l->info->sends && l->info->added && l->info->io_uring <= 1);
        seen->rows++;
        seen->up += l->info->up;
        return 0;
}

/* Asks like psyne_stat_links(), but does not care whose it is. How many bytes it was told; -1: it found nobody. */
static ssize_t ask(pid_t pid) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        ssize_t got = -1;
        char byte;

        for (unsigned i = 0; i < 100 && got < 0; i++) { /* so many threads its parent may have had before */
                int n = snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "psyne-links/%d/%u", (int)pid, i);
                int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

                if (connect(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) == 0)
                        got = recv(fd, &byte, 1, 0);
                close(fd);
        }
        return got;
}

/* Says that it has links, and talks nonsense. */
static int talks_nonsense(const char *unused, unsigned zero) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        int n = snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "psyne-links/%d/0", (int)getpid()), fd, c;
        unsigned char bytes[4096];

        (void)unused, (void)zero;
        memset(bytes, 0xff, sizeof(bytes));
        fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        REQUIRE(bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) == 0 && listen(fd, 1) == 0);
        next_turn(&s->turn);
        while ((c = accept(fd, NULL, NULL)) >= 0) {
                for (size_t k = 64; k < sizeof(bytes); k += 64)
                        (void)send(c, bytes, k, MSG_NOSIGNAL | MSG_DONTWAIT);
                close(c);
        }
        return 1;
}

static int asks_and_stops(const char *format, unsigned i) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_link *l;

        (void)format;
        REQUIRE(psyne_open("memory://?mode=broadcast&size=64K", NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        REQUIRE(add(ch, i, "", &l) == 0 && psyne_wait_peers(ch, 1, 1, WATCHDOG_NS) == 0);
        next_turn(&s->turn);
        for (;;)
                pause();
}

/* Another process sees the links, also beside one that talks nonsense; one that is stopped does not answer; one of another user is
 * not asked, and does not answer. */
static int seen(void) {
        struct seen see_it = {0};
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_link *l;
        pid_t pids[4];
        char uri[128];
        int r, status;

        pids[0] = start_at(&s->turn, 0, listen_and_receive, "size=64K", 0);
        pids[1] = start_at(&s->turn, 0, talks_nonsense, "", 0);
        pids[2] = start_at(&s->turn, 1, asks_and_stops, "", 0);
        REQUIRE(await_word(&s->ports[0], 1) == 0 && await_word(&s->turn, 2) == 0);
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%u/end", s->ports[0]);
        see_it = (struct seen){.pid = (uint32_t)pids[2], .link = uri};
        for (int64_t until = now_ns() + WATCHDOG_NS; see_it.rows != 2 && now_ns() < until; breathe()) {
                see_it.rows = see_it.up = 0;
                (void)psyne_stat_links(see, &see_it);
        }
        REQUIRE(see_it.rows == 2 && see_it.up >= 1 && see_it.silent == 0 && ask(pids[2]) == 1);
        see_it = (struct seen){.pid = (uint32_t)pids[1]};
        REQUIRE(psyne_stat_links(see, &see_it) == 0 && see_it.all == 0);
        see_it = (struct seen){.pid = (uint32_t)pids[2], .link = uri};
        if (geteuid() == 0) {
                pids[3] = fork();
                if (pids[3] == 0) {
                        see_it.rows = see_it.silent = 0;
                        _exit(setuid(65534) < 0 || psyne_stat_links(see, &see_it) != 0 || see_it.rows || see_it.silent || ask(pids[2]) != 0);
                }
                REQUIRE(child_wait(pids[3], WATCHDOG_NS) == 0);
        }
        kill(pids[2], SIGSTOP);
        REQUIRE(waitpid(pids[2], &status, WUNTRACED) == pids[2] && WIFSTOPPED(status));
        see_it.rows = 0;
        REQUIRE(psyne_stat_links(see, &see_it) == 0 && see_it.rows == 0 && see_it.silent == 1);
        kill(pids[2], SIGKILL);
        (void)waitpid(pids[2], NULL, 0);
        see_it.silent = 0;
        r = psyne_stat_links(see, &see_it);
        REQUIRE(r == 0 && see_it.rows == 0 && see_it.silent == 0);
        kill(pids[1], SIGKILL);
        REQUIRE(psyne_open("memory://?mode=broadcast&size=64K", NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        REQUIRE(add(ch, 0, "", &l) == 0 && psyne_wait_peers(ch, 1, 1, WATCHDOG_NS) == 0);
        REQUIRE(psyne_send(p, 0, NULL, 0, WATCHDOG_NS) == 0 && psyne_producer_close(p) == 0 && psyne_link_close(l) == NULL);
        REQUIRE(child_wait(pids[0], WATCHDOG_NS) == 0);
        (void)psyne_close(ch);
        return 0;
}

/* ---- lanes that end ----------------------------------------------------------------------------------------------------- */

/* A producer of the ipc:// channel that is killed, and one that comes after it. */
static int sends_and_stays(const char *name, unsigned from) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        uint32_t n = from;

        REQUIRE(open_in(name, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        REQUIRE(send_numbers(p, &n, from + N) == 0);
        next_turn(&s->turn);
        for (;;)
                pause();
}

static int one_dies_here(void) {
        char dir[64] = "/dev/shm/psyne-test-XXXXXX";
        struct psyne_channel *ch;
        pid_t pids[4];

        REQUIRE(mkdtemp(dir));
        snprintf(s->dir, sizeof(s->dir), "%.40s", dir);
        pids[0] = start_at(&s->turn, 0, listen_and_wait, "size=64K&mode=mpsc", 0);
        pids[1] = start_at(&s->turn, 0, ipc_connects, "here", 0);
        pids[2] = start_at(&s->turn, 0, sends_and_stays, "here", 0);
        pids[3] = start_at(&s->turn, 2, sends_and_stays, "here", N);
        __atomic_store_n(&s->stop, 1, __ATOMIC_RELEASE);
        REQUIRE(await_word(&s->turn, 1) == 0 && await_word(&s->received[0], N) == 0);
        kill(pids[2], SIGKILL);
        (void)waitpid(pids[2], NULL, 0);
        next_turn(&s->turn);
        REQUIRE(await_word(&s->received[0], 2 * N) == 0);
        __atomic_store_n(&s->over, 1, __ATOMIC_RELEASE);
        for (unsigned i = 0; i < 4; i++) {
                kill(pids[i], SIGKILL);
                (void)waitpid(pids[i], NULL, 0);
        }
        REQUIRE(open_in("here", &ch) == 0); /* and sweeps */
        (void)psyne_close(ch);
        (void)unlink(strcat(dir, "/here.dead"));
        REQUIRE(rmdir(s->dir) == 0);
        return 0;
}

/* Another group has not read what an ended producer left: the link goes on with the younger one all the same. */
static int another_is_slow(void) {
        struct psyne_channel *ch;
        struct psyne_producer *p[2];
        struct psyne_consumer *slow;
        struct psyne_link *l;
        uint32_t n = 0;
        pid_t pid = start_at(&s->turn, 0, listen_and_wait, "size=64K&mode=mpsc", 0); /* for a moment it has no producer */

        __atomic_store_n(&s->stop, 1, __ATOMIC_RELEASE);
        REQUIRE(psyne_open("memory://?mode=broadcast&size=64K", NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &slow) == 0);
        REQUIRE(psyne_producer_open(ch, NULL, &p[0]) == 0 && add(ch, 0, "", &l) == 0 && psyne_wait_peers(ch, 1, 2, WATCHDOG_NS) == 0);
        REQUIRE(send_numbers(p[0], &n, 100) == 0 && await_word(&s->received[0], 100) == 0);
        REQUIRE(psyne_producer_close(p[0]) >= 0 && psyne_producer_open(ch, NULL, &p[1]) == 0);
        REQUIRE(send_numbers(p[1], &n, 200) == 0 && await_word(&s->received[0], 200) == 0);
        __atomic_store_n(&s->over, 1, __ATOMIC_RELEASE);
        REQUIRE(psyne_producer_close(p[1]) >= 0 && psyne_link_close(l) == NULL && child_wait(pid, WATCHDOG_NS) == 0);
        REQUIRE(psyne_consumer_close(slow) == 0);
        (void)psyne_close(ch);
        return 0;
}

/* ---- what is refused ---------------------------------------------------------------------------------------------------- */

static int refusals(void) {
        static const struct {
                const char *channel, *link;
                int error;
                const char *word;
        } rows[] = {
                {"memory://", "ipc://x", -EINVAL, "tcp://"},
                {"memory://", "tcp://127.0.0.1:1/x?size=1M", -EINVAL, "the channel's"},
                {"memory://", "tcp://127.0.0.1:1/x?inline=1", -ENOTSUP, "inline"},
                {"memory://", "tcp://127.0.0.1:1/x?preset=latency", -ENOTSUP, "latency"},
                {"memory://", "tcp://:0/x?group=far", -EINVAL, "send"},
                {"memory://", "tcp://127.0.0.1:1/x?group=.far", -EINVAL, "group"},
                {"memory://", "tcp://127.0.0.1:1/x?behind=skips", -EINVAL, "ejected"},
                {"memory://", "tcp://127.0.0.1:1/x?behind=ejected&group=far", -EINVAL, "without group="},
                {"memory://", "tcp://127.0.0.1:1/x?eject=1s", -EINVAL, "behind=ejected"},
                {"memory://?mode=mpmc", "tcp://127.0.0.1:1/x?group=default", -EMEDIUMTYPE, "shared"},
                {"tcp://:0/x?inline=1", "tcp://127.0.0.1:1/x", -ENOTSUP, "inlined"},
                {"ipc", "tcp://127.0.0.1:1/x", -ENOTSUP, "thread"},
        };
        struct psyne_channel *ch;
        struct psyne_link *l = NULL;
        char dir[] = "/dev/shm/psyne-test-XXXXXX", uri[128];

        REQUIRE(mkdtemp(dir));
        for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                if (strcmp(rows[i].channel, "ipc") == 0)
                        snprintf(uri, sizeof(uri), "ipc://%s/x?nothread=1", dir);
                else
                        snprintf(uri, sizeof(uri), "%s", rows[i].channel);
                REQUIRE(psyne_open(uri, NULL, &ch) == 0);
                if (psyne_link_open(ch, rows[i].link, &l) != rows[i].error || !strstr(psyne_last_error(), rows[i].word)) {
                        printf("FAIL: %s to %s: %s\n", rows[i].link, rows[i].channel, psyne_last_error());
                        return 1;
                }
                (void)psyne_close(ch);
        }
        REQUIRE(psyne_open("tcp://127.0.0.1:1/x?group=far", NULL, &ch) == -EINVAL && strstr(psyne_last_error(), "psyne_link_open"));
        REQUIRE(psyne_open("memory://?group=far", NULL, &ch) == -EINVAL);
        REQUIRE(rmdir(dir) == 0 && psyne_link_close(NULL) == NULL && psyne_link_port(NULL) == 0);
        REQUIRE(psyne_link_info(NULL, NULL, 0) == -EINVAL);
        return 0;
}

int main(int argc, char **argv) {
        static const struct {
                const char *name;
                int (*run)(void);
        } cases[] = {
                {"fan-out", fan_out},
                {"one-dies", one_dies},
                {"left-behind", left_behind},
                {"ends", ends},
                {"group-stays", group_stays},
                {"group-turns", group_turns},
                {"default-group", default_group},
                {"polled", polled},
                {"carried", carried},
                {"one-dies-here", one_dies_here},
                {"another-is-slow", another_is_slow},
                {"seen", seen},
                {"refusals", refusals},
        };
        int failed = 0;

        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED)
                return 1;
        setvbuf(stdout, NULL, _IOLBF, 0);
        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                int r;

                if (argc > 1 && strcmp(argv[1], cases[i].name))
                        continue;
                memset(s, 0, sizeof(*s));
                r = cases[i].run();
                printf("%-14s %s\n", cases[i].name, r ? "FAIL" : "PASS");
                failed |= r;
                if (r) /* its processes may still write where the next would */
                        break;
        }
        printf("%s\n", failed ? "FAIL" : "PASS");
        return failed != 0;
}
