/*
 * Who else calls at a port: noise, other protocols, half a hello, a hello for another channel, callers that say nothing by
 * the thousand, one that never reads. Each is hung up on; meanwhile and afterwards the listener serves an honest sender,
 * and its memory and its descriptors stay where they were.
 *
 *      tcp-strangers [SILENT]      default 2,000 silent callers
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/require.h"
#include "support/world.h"

#define MEMORY_MOST_KIB 4096 /* that all of it may cost the listener */
#define N_MESSAGES 3000u

struct shared {
        uint32_t port, received, end;
};
static struct shared *s;

static int listen_and_read(void) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        uint32_t n = 0;
        int r;

        if (psyne_open("tcp://:0/strangers?size=64K&wait=block&type=7", NULL, &ch) < 0 || psyne_consumer_open(ch, NULL, &c) < 0) {
                printf("FAIL: no listener: %s\n", psyne_last_error());
                return 2;
        }
        __atomic_store_n(&s->port, (uint32_t)psyne_port(ch), __ATOMIC_SEQ_CST);
        for (;;) {
                r = psyne_recv(c, &m, 100 * MSEC);
                if (r == 0 && m.type == n) {
                        __atomic_store_n(&s->received, ++n, __ATOMIC_SEQ_CST);
                        (void)psyne_release(c, &m);
                } else if (r == 0)
                        return 3;
                else if (__atomic_load_n(&s->end, __ATOMIC_SEQ_CST))
                        break;
                else if (r == -EPIPE)
                        breathe();
                else if (r != -ETIME)
                        return 4;
        }
        (void)psyne_consumer_close(c);
        (void)psyne_close(ch);
        return 0;
}

static long memory_kib(pid_t pid) {
        char path[64], line[256];
        long kib = -1;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/status", pid);
        f = fopen(path, "re");
        while (f && fgets(line, sizeof(line), f))
                if (sscanf(line, "VmRSS: %ld", &kib) == 1)
                        break;
        if (f)
                fclose(f);
        return kib;
}

static unsigned fds_of(pid_t pid) {
        char path[64];

        snprintf(path, sizeof(path), "/proc/%d/fd", pid);
        return count_files(path);
}

static int call(void) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
                close(fd);
                fd = -1;
        }
        return fd;
}

/* Is it hung up on, whatever it is told before? */
static bool ends(int fd, int64_t within_ns) {
        int64_t until = now_ns() + within_ns;
        char bytes[512];

        while (now_ns() < until) {
                struct pollfd p = {.fd = fd, .events = POLLIN};

                if (poll(&p, 1, 100) > 0 && recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) <= 0)
                        return true;
        }
        return false;
}

/* One that wants another channel, mode or type hears why. */
static int refused(const char *name, const char *query, int error) {
        struct psyne_channel *ch;
        char uri[128];
        int r;

        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%u/%s%s%s", s->port, name, query[0] ? "?" : "", query);
        if (psyne_open(uri, NULL, &ch) < 0)
                return 1;
        r = psyne_wait_peers(ch, 0, 1, WATCHDOG_NS);
        printf("%-24s %d, %s\n", query[0] ? query : name, r, psyne_last_error());
        (void)psyne_close(ch);
        return r != error;
}

static int send_some(uint32_t from, uint32_t to) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        char uri[128];
        int r = 1;

        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%u/strangers?size=64K", s->port);
        if (psyne_open(uri, NULL, &ch) < 0)
                return 1;
        if (psyne_producer_open(ch, NULL, &p) == 0) {
                r = 0;
                for (uint32_t i = from; i < to && !r; i++)
                        r = psyne_send(p, i, "0123456789", 10, WATCHDOG_NS);
                if (r < 0)
                        printf("FAIL: a message cannot be sent: %s\n", psyne_last_error());
                r |= psyne_producer_close(p) != 0;
        }
        (void)psyne_close(ch);
        return r;
}

static int visit(pid_t listener, unsigned silent) {
        static const char *const said[] = {
                "GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n",
                "\x16\x03\x01\x02\x01\x01\x01\x01\xfc\x03\x03 a client hello of TLS but for its zeros, and some more of it",
                "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n and then some more to make a header of it",
                "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        };
        struct rlimit limit;
        unsigned fds, before_fds;
        long before;
        int *quiet;

        REQUIRE(send_some(0, 1000) == 0);
        before = memory_kib(listener);
        before_fds = fds_of(listener);
        for (unsigned i = 0; i < sizeof(said) / sizeof(*said); i++) {
                int fd = call();

                REQUIRE(fd >= 0 && send(fd, said[i], strlen(said[i]), MSG_NOSIGNAL) > 0);
                REQUIRE(ends(fd, 2 * SECOND));
                close(fd);
        }
        printf("noise and other protocols: hung up on\n");
        REQUIRE(refused("another", "", -ENOENT) == 0);
        REQUIRE(refused("strangers", "mode=mpsc", -EMEDIUMTYPE) == 0);
        REQUIRE(refused("strangers", "type=8", -EMEDIUMTYPE) == 0);
        REQUIRE(refused("strangers", "align=128", -EMEDIUMTYPE) == 0);
        REQUIRE(refused("strangers", "size=128K", -EMEDIUMTYPE) == 0);

        /* Silence: more callers than this process may have open are not needed; the oldest are hung up on. */
        (void)getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        quiet = calloc(silent, sizeof(*quiet));
        REQUIRE(quiet);
        for (unsigned i = 0; i < silent; i++) {
                quiet[i] = call();
                if (i >= 500) { /* a few hundred at a time, from one after the other */
                        close(quiet[i - 500]);
                        quiet[i - 500] = -1;
                }
                if (i == silent / 2)
                        REQUIRE(send_some(1000, 2000) == 0); /* in the middle of it */
        }
        fds = fds_of(listener);
        printf("%u silent callers: %u descriptors before, %u now; %ld KiB before, %ld now\n", silent, before_fds, fds, before,
                memory_kib(listener));
        REQUIRE(fds <= before_fds + 70);
        REQUIRE(ends(quiet[silent - 1], WATCHDOG_NS)); /* its time to say hello is up */
        for (unsigned i = 0; i < silent; i++)
                if (quiet[i] >= 0)
                        close(quiet[i]);
        free(quiet);
        REQUIRE(send_some(2000, N_MESSAGES) == 0);
        for (int64_t until = now_ns() + WATCHDOG_NS; __atomic_load_n(&s->received, __ATOMIC_SEQ_CST) < N_MESSAGES; breathe())
                REQUIRE(now_ns() < until);
        for (int64_t until = now_ns() + WATCHDOG_NS; fds_of(listener) > before_fds + 2; breathe())
                REQUIRE(now_ns() < until);
        printf("%u messages received, %ld KiB of memory more than before\n", s->received, memory_kib(listener) - before);
        REQUIRE(memory_kib(listener) - before < (under_sanitizer() ? 16 : 1) * MEMORY_MOST_KIB);
        return 0;
}

int main(int argc, char **argv) {
        unsigned silent = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 2000;
        pid_t listener;
        int r, status;

        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED)
                return 1;
        setvbuf(stdout, NULL, _IOLBF, 0);
        listener = fork();
        if (listener == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                _exit(listen_and_read());
        }
        for (int64_t until = now_ns() + WATCHDOG_NS; !__atomic_load_n(&s->port, __ATOMIC_SEQ_CST) && now_ns() < until;)
                breathe();
        r = s->port ? visit(listener, silent) : 1;
        __atomic_store_n(&s->end, 1, __ATOMIC_SEQ_CST);
        if (r)
                kill(listener, SIGKILL);
        status = child_wait(listener, WATCHDOG_NS);
        if (!r && status)
                printf("FAIL: the listener ended with %d\n", status);
        printf("%s\n", r || status ? "FAIL" : "PASS");
        return r || status;
}
