/*
 * How many bytes per second go through a tcp:// link over loopback if nobody touches them: messages that are claimed and
 * committed, received and released. For a comparison with iperf3, which does not look at its bytes either.
 *
 *      tcp-untouched [MILLISECONDS [BYTES [QUERY]]]    default 1000, 1 MiB, size=4M&checksum=off
 */
#include <errno.h>
#include <psyne/psyne.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FOR_NS 10000000000ll

static int64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int fail(const char *what) {
        fprintf(stderr, "tcp-untouched: %s: %s\n", what, psyne_last_error());
        return EXIT_FAILURE;
}

static int send_for(int port, const char *query, size_t bytes, int64_t ns) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_msg m;
        char uri[256];

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%d/untouched?%s", port, query);
        if (psyne_open(uri, NULL, &ch) < 0 || psyne_producer_open(ch, NULL, &p) < 0)
                return fail(uri);
        for (int64_t until = now_ns() + ns; now_ns() < until;)
                if (psyne_claim(p, bytes, FOR_NS, &m) < 0 || psyne_commit(p, &m) < 0)
                        return fail("sending");
        if (psyne_producer_close(p) < 0)
                return fail("closing");
        (void)psyne_close(ch);
        return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
        const int64_t ns = 1000000 * (argc > 1 ? strtoll(argv[1], NULL, 10) : 1000);
        const size_t bytes = argc > 2 ? strtoull(argv[2], NULL, 10) : 1u << 20;
        const char *query = argc > 3 ? argv[3] : "size=4M&checksum=off";
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        int64_t began = 0;
        uint64_t n = 0;
        int port, r, status;
        char uri[256];
        pid_t pid;

        snprintf(uri, sizeof(uri), "tcp://:0/untouched?%s", query);
        if (psyne_open(uri, NULL, &ch) < 0 || psyne_consumer_open(ch, NULL, &c) < 0)
                return fail(uri);
        port = psyne_port(ch);
        pid = fork();
        if (pid == 0)
                _exit(send_for(port, query, bytes, ns));
        while ((r = psyne_recv(c, &m, FOR_NS)) == 0) {
                began = began ? began : now_ns();
                n += m.len;
                if (psyne_release(c, &m) < 0)
                        return fail("releasing");
        }
        if (r != -EPIPE)
                return fail("receiving");
        printf("%.0f\n", (double)n * 1e9 / (double)(now_ns() - began));
        if (waitpid(pid, &status, 0) < 0 || status)
                return EXIT_FAILURE;
        (void)psyne_consumer_close(c);
        (void)psyne_close(ch);
        return EXIT_SUCCESS;
}
