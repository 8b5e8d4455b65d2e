/*
 * Sends without a copy, from a ring that is written again as soon as the other end has what was in it: no byte may change on
 * its way, also when the sender is killed with such sends under way. Over loopback the kernel copies after all, and says so: a
 * link that only tries leaves it at a few.
 *
 *      tcp-zerocopy [KILLS]    default 30
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "support/require.h"
#include "support/world.h"

#define MESSAGE_BYTES 300000u
#define N 400u

struct shared {
        uint32_t received;
        uint32_t port;
};
static struct shared *s;

/* Who forks has no thread of the library yet, here and below: what that held (a lock of the sanitizer's allocator) stays held in
 * a child. So a sender is there first, and waits for the port. */
static int send_many(const char *query, uint32_t n, struct psyne_link_info *ret) {
        struct psyne_link_info info[4] = {{.struct_size = sizeof(info[0])}};
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_msg m;
        char uri[128];
        uint32_t port;

        while (!(port = __atomic_load_n(&s->port, __ATOMIC_ACQUIRE)))
                breathe();
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%u/zerocopy?size=1M&wait=block&%s", port, query);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        for (uint32_t i = 0; i < n; i++) {
                REQUIRE(psyne_claim(p, MESSAGE_BYTES, WATCHDOG_NS, &m) == 0);
                m.type = i;
                pattern_fill(m.data, m.len, i);
                REQUIRE(psyne_commit(p, &m) == 0);
        }
        REQUIRE(psyne_flush(p, WATCHDOG_NS) == 0);
        for (int i = psyne_links(ch, info, 4) - 1; i >= 0; i--)
                if (i < 4 && info[i].has_lane)
                        *ret = info[i];
        REQUIRE(psyne_producer_close(p) == 0);
        (void)psyne_close(ch);
        return 0;
}

/* Whole messages in order, until the sender is gone: 0, and how many. */
static int receive_many(struct psyne_consumer *c, uint32_t *ret) {
        struct psyne_msg m;
        uint32_t n = 0;
        int r;

        while ((r = psyne_recv(c, &m, WATCHDOG_NS)) == 0) {
                if (m.type != n || m.len != MESSAGE_BYTES || !pattern_is(m.data, m.len, n)) {
                        printf("FAIL: message %u came as %u, %zu bytes, changed or not\n", n, m.type, m.len);
                        return 1;
                }
                __atomic_store_n(&s->received, ++n, __ATOMIC_RELAXED);
                REQUIRE(psyne_release(c, &m) == 0);
        }
        REQUIRE(r == -EPIPE);
        *ret = n;
        return 0;
}

static int stream(const char *query, bool always) {
        struct psyne_link_info info = {0};
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        uint32_t n = 0;
        pid_t pid;

        s->port = 0;
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
                int r;

                prctl(PR_SET_PDEATHSIG, SIGKILL);
                r = send_many(query, N, &info);
                if (r == 0) {
                        printf("%-18s %llu sends, %llu copied, %llu connections\n", query, (unsigned long long)info.zerocopy_sends,
                                (unsigned long long)info.zerocopy_copied, (unsigned long long)info.connections);
                        /* A frame that had changed would have cost a connection. */
                        if (info.connections != 1 || (always ? info.zerocopy_sends < N / 2 : info.zerocopy_sends > N / 2))
                                r = 1;
                        fflush(stdout);
                }
                _exit(r);
        }
        REQUIRE(psyne_open("tcp://:0/zerocopy?size=1M&wait=block", NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        __atomic_store_n(&s->port, (uint32_t)psyne_port(ch), __ATOMIC_RELEASE);
        REQUIRE(receive_many(c, &n) == 0 && child_wait(pid, WATCHDOG_NS) == 0 && n == N);
        REQUIRE(psyne_consumer_close(c) == 0);
        (void)psyne_close(ch);
        return 0;
}

static int kills(unsigned n) {
        struct random random = random_seeded("tcp-zerocopy");
        uint64_t received = 0;

        for (unsigned i = 0; i < n; i++) {
                struct psyne_channel *ch;
                struct psyne_consumer *c;
                uint32_t whole = 0, after = 1 + (uint32_t)random_below(&random, 60);
                pid_t pid, killer;

                s->received = s->port = 0;
                fflush(NULL);
                pid = fork();
                if (pid == 0) {
                        struct psyne_link_info info;

                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        _exit(send_many("zerocopy=require", UINT32_MAX, &info));
                }
                killer = fork();
                if (killer == 0) { /* while this process receives */
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        while (__atomic_load_n(&s->received, __ATOMIC_RELAXED) < after)
                                ; /* and more are on their way */
                        for (uint64_t k = random_below(&random, 20000); k; k--)
                                __atomic_signal_fence(__ATOMIC_SEQ_CST);
                        kill(pid, SIGKILL);
                        _exit(0);
                }
                REQUIRE(psyne_open("tcp://:0/zerocopy?size=1M&wait=block&resume=100ms", NULL, &ch) == 0);
                REQUIRE(psyne_consumer_open(ch, NULL, &c) == 0);
                __atomic_store_n(&s->port, (uint32_t)psyne_port(ch), __ATOMIC_RELEASE);
                REQUIRE(receive_many(c, &whole) == 0);
                (void)child_wait(pid, WATCHDOG_NS);
                REQUIRE(child_wait(killer, WATCHDOG_NS) == 0);
                received += whole;
                REQUIRE(psyne_consumer_close(c) == 0);
                (void)psyne_close(ch);
        }
        printf("%u senders killed, %llu messages received, none changed\n", n, (unsigned long long)received);
        return 0;
}

int main(int argc, char **argv) {
        struct psyne_channel *ch;
        int r;

        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED)
                return 1;
        setvbuf(stdout, NULL, _IOLBF, 0);
        if (psyne_open("tcp://127.0.0.1:1/zerocopy?zerocopy=require", NULL, &ch) == -ENOTSUP) {
                printf("SKIP: %s\n", psyne_last_error());
                return 77;
        }
        (void)psyne_close(ch);
        r = stream("zerocopy=require", true) || stream("zerocopy=try", false) || stream("zerocopy=never", false) ||
                kills(argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 30);
        printf("%s\n", r ? "FAIL" : "PASS");
        return r;
}
