/*
 * psyne-cat: standard input into a channel, a channel to standard output.
 *
 *      psyne-cat -l ipc://x > out          receive
 *      psyne-cat ipc://x < in              send
 *
 * Blocks are read straight into the ring and written straight out of it. A last message of type CAT_END carries the
 * totals: a receiver that does not see it, or counts otherwise, knows that the stream was cut and says so by its exit
 * status. Either side may start first; the sender stays until a reader has taken everything.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <psyne/info.h>
#include <psyne/psyne.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define CAT_DATA 1u
#define CAT_END 0x454e4421u          /* payload: struct cat_end */
#define BLOCK_DEFAULT (64u * 1024u)  /* one read of a full pipe */
#define BATCH 16
#define PROGRESS_NS 200000000ll

struct cat_end {
        uint64_t messages, bytes, interrupted;
};

enum framing { FRAMING_BLOCKS, FRAMING_LINES, FRAMING_RECORDS };

static struct options {
        const char *uri, *group;
        bool from_oldest;
        enum framing framing;
        size_t block;
        bool listen, quiet, verbose;
} options = {.block = BLOCK_DEFAULT};

static struct psyne_channel *channel;
static volatile sig_atomic_t interrupted;

static int complain(const char *format, ...) {
        va_list ap;

        fputs("psyne-cat: ", stderr);
        va_start(ap, format);
        vfprintf(stderr, format, ap);
        va_end(ap);
        fputc('\n', stderr);
        return EXIT_FAILURE;
}

/* The first signal drains: no more input, what is there still arrives. The second gives up at once. */
static void on_signal(int sig) {
        (void)sig;
        if (interrupted++)
                (void)psyne_stop(channel, PSYNE_ABORT);
        else if (options.listen)
                (void)psyne_stop(channel, PSYNE_DRAIN);
}

/* ---- progress ---------------------------------------------------------------------------------------------------- */

static int64_t now_ns(void) {
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static struct {
        bool on, shown;
        int64_t start_ns, last_ns;
        uint64_t messages, bytes;
} progress;

static void progress_show(bool last) {
        int64_t now;
        double seconds;

        if (!progress.on)
                return;
        now = now_ns();
        if (!last && now - progress.last_ns < PROGRESS_NS)
                return;
        progress.last_ns = now;
        progress.shown = true;
        seconds = (double)(now - progress.start_ns) / 1e9;
        fprintf(stderr, "\r%" PRIu64 " messages  %.1f MB  %.1f MB/s \033[K%s", progress.messages,
                (double)progress.bytes / 1e6, seconds > 0 ? (double)progress.bytes / 1e6 / seconds : 0,
                last ? "\n" : "");
}

static void progress_start(void) {
        progress.on = !options.quiet && isatty(STDERR_FILENO);
        progress.start_ns = progress.last_ns = now_ns();
}

/* What was asked for and obtained, while our endpoint is open: its rows go with it. */
static void say_obtained(void) {
        struct psyne_info info = {.struct_size = sizeof(info)};

        if (!options.verbose || psyne_info(channel, &info) < 0)
                return;
        for (unsigned i = 0; i < info.n_facts; i++) {
                const struct psyne_fact *f = &info.facts[i];

                fprintf(stderr, "psyne-cat: %s, %s: asked %s, obtained %s%s%s%s%s\n", f->whose, f->what, f->asked,
                        f->obtained, f->why[0] ? " because " : "", f->why, f->fix[0] ? "; fix: " : "", f->fix);
        }
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

/* A read that a signal may end. 0 = end of input, or time to drain. */
static ssize_t read_some(void *buf, size_t n) {
        ssize_t got;

        do {
                if (interrupted)
                        return 0;
                got = read(STDIN_FILENO, buf, n);
        } while (got < 0 && errno == EINTR);
        return got;
}

static int claim(struct psyne_producer *p, size_t bytes, struct psyne_msg *m) {
        int r;

        do
                r = psyne_claim(p, bytes, PSYNE_FOREVER, m);
        while (r == -EINTR); /* draining still needs what was begun */
        return r;
}

static int sent(struct psyne_producer *p, struct psyne_msg *m) {
        size_t len = m->len;
        int r;

        m->type = CAT_DATA;
        r = psyne_commit(p, m);
        if (r < 0)
                return r;
        progress.messages++;
        progress.bytes += len;
        progress_show(false);
        return 0;
}

static int send_blocks(struct psyne_producer *p) {
        for (;;) {
                struct psyne_msg m;
                ssize_t n;
                int r;

                r = claim(p, options.block, &m);
                if (r < 0)
                        return r;
                n = read_some(m.data, options.block);
                if (n <= 0) {
                        r = n < 0 ? -errno : 0;
                        (void)psyne_abort(p, &m);
                        if (r < 0)
                                complain("reading standard input: %s", strerror(-r));
                        return r < 0 ? 1 : 0;
                }
                m.len = (size_t)n;
                r = sent(p, &m);
                if (r < 0)
                        return r;
        }
}

static int send_bytes(struct psyne_producer *p, const void *data, size_t n) {
        struct psyne_msg m;
        int r;

        r = claim(p, n, &m);
        if (r < 0)
                return r;
        if (n)
                memcpy(m.data, data, n);
        return sent(p, &m);
}

static int send_lines(struct psyne_producer *p) {
        char *line = NULL;
        size_t cap = 0;
        ssize_t n;
        int r = 0;

        while (!interrupted && (n = getline(&line, &cap, stdin)) > 0) {
                r = send_bytes(p, line, (size_t)n);
                if (r < 0)
                        break;
        }
        free(line);
        return r;
}

/* u32 little-endian length, then so many bytes. */
static int send_records(struct psyne_producer *p) {
        unsigned char prefix[4];
        size_t n;

        while (!interrupted && (n = fread(prefix, 1, sizeof(prefix), stdin)) == sizeof(prefix)) {
                size_t len = prefix[0] | (size_t)prefix[1] << 8 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 24;
                struct psyne_msg m;
                int r = claim(p, len, &m);

                if (r < 0)
                        return r;
                if (fread(m.data, 1, len, stdin) != len) {
                        (void)psyne_abort(p, &m);
                        complain("input ends inside a record of %zu bytes", len);
                        return 1;
                }
                r = sent(p, &m);
                if (r < 0)
                        return r;
        }
        if (!interrupted && n != 0) {
                complain("input ends inside a length");
                return 1;
        }
        return 0;
}

static int run_send(void) {
        const struct psyne_producer_opts opts = {.struct_size = sizeof(opts), .linger_ns = -1};
        struct psyne_producer *p;
        struct cat_end end;
        int64_t unread;
        int r, q;

        r = psyne_producer_open(channel, &opts, &p);
        if (r < 0)
                return complain("%s", psyne_last_error());
        if (psyne_wait_peers(channel, 0, 1, PSYNE_NOWAIT) < 0) {
                if (!options.quiet)
                        fprintf(stderr, "psyne-cat: waiting for a reader on %s\n", options.uri);
                (void)psyne_wait_peers(channel, 0, 1, PSYNE_FOREVER);
        }
        progress_start();
        r = options.framing == FRAMING_LINES ? send_lines(p)
                : options.framing == FRAMING_RECORDS ? send_records(p)
                                                     : send_blocks(p);
        if (r >= 0) {
                end = (struct cat_end){progress.messages, progress.bytes, interrupted || r > 0};
                do
                        q = psyne_send(p, CAT_END, &end, sizeof(end), PSYNE_FOREVER);
                while (q == -EINTR);
                if (q == 0)
                        do
                                q = psyne_flush(p, PSYNE_FOREVER);
                        while (q == -EINTR);
                if (q < 0)
                        r = q;
        }
        progress_show(true);
        if (r == -EPIPE)
                complain("the reader went away before it had everything");
        else if (r < 0)
                complain("%s", psyne_last_error());
        if (r < 0)
                (void)psyne_stop(channel, PSYNE_ABORT); /* nobody to linger for */
        say_obtained();
        unread = psyne_producer_close(p);
        if (unread > 0)
                complain("%" PRId64 " messages were not read", unread);
        return r != 0 || unread ? EXIT_FAILURE : interrupted ? 128 + SIGINT : EXIT_SUCCESS;
}

/* ---- receiving --------------------------------------------------------------------------------------------------- */

static int write_all(struct iovec *v, int n) {
        while (n > 0) {
                ssize_t got = writev(STDOUT_FILENO, v, n);

                if (got < 0 && errno == EINTR)
                        continue;
                if (got < 0)
                        return -errno;
                for (; n > 0 && (size_t)got >= v->iov_len; v++, n--)
                        got -= (ssize_t)v->iov_len;
                if (n > 0) {
                        v->iov_base = (char *)v->iov_base + got;
                        v->iov_len -= (size_t)got;
                }
        }
        return 0;
}

static int write_messages(const struct psyne_msg *m, int n) {
        unsigned char prefixes[BATCH][4];
        struct iovec v[2 * BATCH];
        int k = 0;

        for (int i = 0; i < n; i++) {
                if (options.framing == FRAMING_RECORDS) {
                        for (int b = 0; b < 4; b++)
                                prefixes[i][b] = (unsigned char)(m[i].len >> (8 * b));
                        v[k++] = (struct iovec){prefixes[i], 4};
                }
                if (m[i].len)
                        v[k++] = (struct iovec){m[i].data, m[i].len};
        }
        return write_all(v, k);
}

/*
 * The end of one sender's stream says how much it was. Where there is one sender and one receiver that ends it; where
 * there can be several senders it ends when the last that is there has gone, and what they said is added up. Receivers
 * that share the messages, and groups that came later than the first message, have nothing to compare it with.
 */
static int run_receive(void) {
        const struct psyne_consumer_opts opts = {.struct_size = sizeof(opts),
                .held_max = BATCH,
                .group = options.group,
                .from_oldest = options.from_oldest};
        struct psyne_info info = {.struct_size = sizeof(info)};
        struct psyne_consumer *c;
        struct cat_end end = {0};
        unsigned n_ends = 0;
        bool one_sender, all_of_it;
        int r, status = EXIT_SUCCESS;

        r = psyne_consumer_open(channel, &opts, &c);
        if (r == 0)
                r = psyne_info(channel, &info);
        if (r < 0)
                return complain("%s", psyne_last_error());
        one_sender = info.mode == PSYNE_SPSC;
        all_of_it = (info.mode == PSYNE_SPSC || info.mode == PSYNE_MPSC) && !options.group;
        progress_start();
        while (!n_ends || !one_sender) {
                struct psyne_msg m[BATCH], d[BATCH];
                int n, data = 0;

                n = psyne_recv_n(c, m, BATCH, PSYNE_FOREVER);
                if (n == -EINTR)
                        continue;
                if (n < 0) {
                        if (n == -EPIPE && (n_ends || !all_of_it))
                                ;
                        else if (n == -EPIPE)
                                status = complain("the sender died before its stream was complete");
                        else if (n == -ESHUTDOWN && interrupted)
                                status = 128 + SIGINT;
                        else
                                status = complain("%s", psyne_last_error());
                        break;
                }
                for (int i = 0; i < n; i++) {
                        struct cat_end one;

                        if (m[i].type == CAT_END && m[i].len == sizeof(one)) {
                                memcpy(&one, m[i].data, sizeof(one));
                                end.messages += one.messages;
                                end.bytes += one.bytes;
                                end.interrupted |= one.interrupted;
                                n_ends++;
                                continue;
                        }
                        progress.messages++;
                        progress.bytes += m[i].len;
                        d[data++] = m[i];
                }
                r = write_messages(d, data);
                (void)psyne_release_n(c, m, (unsigned)n);
                if (r < 0) {
                        status = complain("writing standard output: %s", strerror(-r));
                        break;
                }
                progress_show(false);
        }
        progress_show(true);
        if (n_ends && all_of_it && (end.messages != progress.messages || end.bytes != progress.bytes))
                status = complain("%" PRIu64 " messages and %" PRIu64 " bytes arrived, %" PRIu64 " and %" PRIu64
                                  " were sent",
                        progress.messages, progress.bytes, end.messages, end.bytes);
        else if (n_ends && end.interrupted)
                status = complain("the sender was interrupted; what it had sent is complete");
        say_obtained();
        (void)psyne_consumer_close(c);
        return status;
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

static int usage(FILE *to, int status) {
        fputs("Usage: psyne-cat [-l] [OPTION...] URI\n"
              "Send standard input into a channel, or with -l receive it to standard output.\n\n"
              "  -l, --listen        receive\n"
              "  -b, --block SIZE    bytes per message at most when sending blocks (default 64K)\n"
              "  -L, --lines         a message per line\n"
              "  -R, --records       records with a length in front (u32, little-endian), both ways\n"
              "  -g, --group NAME    receive in that group, which gets everything whoever else receives\n"
              "  -f, --from WHERE    a group that is made begins with what comes 'now' (default) or the 'oldest' there is\n"
              "  -q, --quiet         no progress line, no notes\n"
              "  -v, --verbose       say what was obtained (pages, wakes, node)\n"
              "  -V, --version       print the version\n"
              "  -h, --help          this text\n\n"
              "URI: ipc://NAME[?size=16M&wait=spin&...], see psyne(7)\n",
                to);
        return status;
}

static int parse_size(const char *text, size_t *ret) {
        char *end;
        unsigned long long n;

        errno = 0;
        n = strtoull(text, &end, 10);
        if (errno || end == text || text[0] == '-')
                return -EINVAL;
        if (*end == 'K' || *end == 'k')
                n <<= 10, end++;
        else if (*end == 'M' || *end == 'm')
                n <<= 20, end++;
        if (*end || n == 0 || n > (1ull << 31))
                return -EINVAL;
        *ret = (size_t)n;
        return 0;
}

static int parse_arguments(int argc, char **argv) {
        static const struct option longs[] = {
                {"block", required_argument, NULL, 'b'},
                {"from", required_argument, NULL, 'f'},
                {"group", required_argument, NULL, 'g'},
                {"help", no_argument, NULL, 'h'},
                {"lines", no_argument, NULL, 'L'},
                {"listen", no_argument, NULL, 'l'},
                {"quiet", no_argument, NULL, 'q'},
                {"records", no_argument, NULL, 'R'},
                {"verbose", no_argument, NULL, 'v'},
                {"version", no_argument, NULL, 'V'},
                {0},
        };
        int c;

        while ((c = getopt_long(argc, argv, "b:f:g:hLlqRvV", longs, NULL)) >= 0)
                switch (c) {
                case 'b':
                        if (parse_size(optarg, &options.block) < 0) {
                                complain("not a block size: '%s'", optarg);
                                return 2;
                        }
                        break;
                case 'f':
                        if (strcmp(optarg, "now") != 0 && strcmp(optarg, "oldest") != 0) {
                                complain("--from is 'now' or 'oldest', not '%s'", optarg);
                                return 2;
                        }
                        options.from_oldest = optarg[0] == 'o';
                        break;
                case 'g':
                        options.group = optarg;
                        break;
                case 'h':
                        exit(usage(stdout, EXIT_SUCCESS));
                case 'L':
                        options.framing = FRAMING_LINES;
                        break;
                case 'l':
                        options.listen = true;
                        break;
                case 'q':
                        options.quiet = true;
                        break;
                case 'R':
                        options.framing = FRAMING_RECORDS;
                        break;
                case 'v':
                        options.verbose = true;
                        break;
                case 'V':
                        puts("psyne-cat " PSYNE_VERSION);
                        exit(EXIT_SUCCESS);
                default:
                        return usage(stderr, 2);
                }
        if (optind != argc - 1)
                return usage(stderr, 2);
        options.uri = argv[optind];
        return 0;
}

int main(int argc, char **argv) {
        struct sigaction sa = {.sa_handler = on_signal};
        struct psyne_info info = {.struct_size = sizeof(info)};
        int r;

        r = parse_arguments(argc, argv);
        if (r)
                return r;
        signal(SIGPIPE, SIG_IGN);
        r = psyne_open(options.uri, NULL, &channel);
        if (r < 0)
                return complain("%s", psyne_last_error());
        sigaction(SIGINT, &sa, NULL);
        sigaction(SIGTERM, &sa, NULL);
        /* A block that fills the ring would leave reader and writer waiting for each other in turn. */
        if (psyne_info(channel, &info) == 0 && options.block > info.ring_bytes / 4)
                options.block = (size_t)info.ring_bytes / 4;
        r = options.listen ? run_receive() : run_send();
        psyne_close(channel);
        return r;
}
