/*
 * psyne-bench: how fast messages are here, next to what the machine allows and to other libraries.
 *
 * Every implementation has its own worker processes, and they take turns of a few milliseconds, so that whatever the
 * machine does it does to all of them. See bench/table.h for a round, bench/control.h for the workers,
 * benchmarks/README.md for the method.
 */
#include "bench/impls.h"
#include "bench/run.h"
#include "bench/team.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
        const char *name;
        int (*run)(struct run *r);
        unsigned peers_for; /* other libraries take part that can do this */
        enum bench_over over;
        const char *idea;
} commands[] = {
        {"floor", bench_floor, 0, BENCH_MEMORY, "what the machine allows: one cache line, a bare ring, a futex"},
        {"lat", bench_lat, BENCH_LAT, BENCH_MEMORY, "round trips, both sides spinning"},
        {"modes", bench_modes, BENCH_MODES, BENCH_MEMORY, "messages per second with many on each side, in every mode of channel"},
        {"rate", bench_rate, BENCH_RATE, BENCH_MEMORY, "messages per second one way, single and bulk calls"},
        {"tcp-lat", bench_tcp_lat, BENCH_LAT, BENCH_TCP, "round trips through TCP over loopback, polling and asleep"},
        {"tcp-rate", bench_tcp_rate, BENCH_RATE, BENCH_TCP, "messages per second one way through TCP over loopback"},
        {"wake", bench_wake, 0, BENCH_MEMORY, "round trips of sleepers, and publishing when nobody sleeps"},
};

static const struct bench_impl *const impls[] = {&impl_line, &impl_floor, &impl_futex, &impl_uring, &impl_eventfd, &impl_sqpoll,
        &impl_psyne, &impl_psyne_futex, &impl_psyne_eventfd,
        &impl_tcp_floor, &impl_psyne_tcp, &impl_psyne_latency};

enum {
        OPT_AGAINST = 256,
        OPT_ALIGN,
        OPT_PEER_DIR,
        OPT_PROCESSES,
        OPT_RING,
        OPT_SAME_CPU,
        OPT_SHAPE,
        OPT_SIBLINGS,
        OPT_VERSION
};

static const struct option options[] = {
        {"against", required_argument, NULL, OPT_AGAINST},
        {"align", required_argument, NULL, OPT_ALIGN},
        {"cpus", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {"impl", required_argument, NULL, 'i'},
        {"json", required_argument, NULL, 'j'},
        {"peer-dir", required_argument, NULL, OPT_PEER_DIR},
        {"peers", required_argument, NULL, 'p'},
        {"processes", no_argument, NULL, OPT_PROCESSES},
        {"quiet", no_argument, NULL, 'q'},
        {"ring", required_argument, NULL, OPT_RING},
        {"rounds", required_argument, NULL, 'r'},
        {"same", no_argument, NULL, OPT_SAME_CPU},
        {"same-cpu", no_argument, NULL, OPT_SAME_CPU},
        {"shape", required_argument, NULL, OPT_SHAPE},
        {"siblings-below", required_argument, NULL, OPT_SIBLINGS},
        {"sizes", required_argument, NULL, 's'},
        {"time", required_argument, NULL, 't'},
        {"version", no_argument, NULL, OPT_VERSION},
        {"wait", required_argument, NULL, 'w'},
        {0},
};

static void usage(FILE *f) {
        fprintf(f, "psyne-bench COMMAND [OPTIONS]\n\n");
        for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
                fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].idea);
        fprintf(f, "\n"
                   "  -s, --sizes LIST        payload bytes, multiples of 8, K and M understood\n"
                   "  -r, --rounds N          rounds to keep per table (21)\n"
                   "  -t, --time MS           length of one slice (4; modes and wake 10)\n"
                   "  -w, --wait HOW          wake: block (default) or hybrid\n"
                   "      --shape PxC         modes: P producers and C consumers; may be given again (1x1 2x1 1x2 2x2 "
                   "4x4)\n"
                   "      --processes         modes: producers in one process, consumers in another (threads of one)\n"
                   "      --same-cpu          wake and floor: both sides on one CPU only\n"
                   "  -c, --cpus A,B          CPUs of the two sides (the first two of the inherited affinity)\n"
                   "      --ring BYTES        ring size for all (tries 64K, 256K, 1M, 4M and takes the best of each)\n"
                   "      --align BYTES       alignment of psyne's records (its default)\n"
                   "  -p, --peers LIST        adapters by name or path, or none (all that are built)\n"
                   "      --peer-dir DIR      where adapters are, before the usual places\n"
                   "  -i, --impl LIST         only these implementations, such as floor,psyne\n"
                   "      --against PATH      another psyne-bench: its psyne takes part as psyne:against\n"
                   "      --siblings-below NS raw line below this means siblings of one core, until a gap shows (65)\n"
                   "  -j, --json FILE         the results as one JSON object; - is standard output\n"
                   "  -q, --quiet             no progress on the terminal\n"
                   "  -h, --help              this\n"
                   "      --version           the version\n");
}

static volatile sig_atomic_t interrupted_by;

static void on_signal(int signal) {
        interrupted_by = signal;
}

static bool interrupted(void) {
        return interrupted_by != 0;
}

/* "64K" -> 65536; 0 if it is not a size. */
static uint64_t parse_size(const char *text, char **end) {
        unsigned long long v;

        errno = 0;
        v = strtoull(text, end, 10);
        if (errno || *end == text || *text == '-' || v > 1u << 30)
                return 0;
        if (**end == 'K' || **end == 'k')
                v <<= 10, ++*end;
        else if (**end == 'M' || **end == 'm')
                v <<= 20, ++*end;
        return v;
}

static bool parse_sizes(struct run_options *o, const char *text) {
        char *end;

        for (o->n_sizes = 0; o->n_sizes < RUN_SIZES_MAX; text = end + 1) {
                const uint64_t v = parse_size(text, &end);

                /* A message fits twice into the largest ring, and is read by words. */
                if (v == 0 || v % 8 || v > 2u << 20)
                        return false;
                o->sizes[o->n_sizes++] = v;
                if (*end == 0)
                        return true;
                if (*end != ',')
                        return false;
        }
        return false;
}

static bool parse_cpus(struct run_options *o, const char *text) {
        char rest;
        const int n = sscanf(text, "%d,%d%c", &o->cpus[0], &o->cpus[1], &rest);

        return (n == 1 || n == 2) && o->cpus[0] >= 0 && (n == 1 || o->cpus[1] >= 0);
}

static bool parse_shape(struct run_options *o, const char *text) {
        unsigned p, c;
        char rest;

        if (o->n_shapes == RUN_SHAPES_MAX || sscanf(text, "%2ux%2u%c", &p, &c, &rest) != 2 || p < 1 || c < 1 ||
                p > TEAM_MAX || c > TEAM_MAX)
                return false;
        o->shapes[o->n_shapes++] = (struct shape){(uint8_t)p, (uint8_t)c};
        return true;
}

static bool parse_wait(struct run_options *o, const char *text) {
        if (!strcmp(text, "block"))
                o->wait = BENCH_WAIT_BLOCK;
        else if (!strcmp(text, "hybrid"))
                o->wait = BENCH_WAIT_HYBRID;
        else
                return false;
        return true;
}

/* 0, 1 for "done, exit 0", or -EINVAL with the sentence on stderr. */
static int parse_argv(int argc, char **argv, struct run_options *o, const char **json) {
        bool ok = true;
        char *end;
        int c;

        while (ok && (c = getopt_long(argc, argv, "c:hi:j:p:qr:s:t:w:", options, NULL)) != -1) {
                switch (c) {
                case OPT_AGAINST:
                        o->against = optarg;
                        break;
                case OPT_ALIGN:
                        o->align = (uint32_t)strtoul(optarg, &end, 10);
                        ok = *end == 0 && o->align >= 16 && o->align <= 4096 && !(o->align & (o->align - 1));
                        break;
                case OPT_PEER_DIR:
                        o->peer_dir = optarg;
                        break;
                case OPT_RING:
                        o->ring_bytes = parse_size(optarg, &end);
                        ok = *end == 0 && o->ring_bytes >= 4096 && o->ring_bytes <= 4u << 20 &&
                             !(o->ring_bytes & (o->ring_bytes - 1));
                        break;
                case OPT_SAME_CPU:
                        o->same_cpu = true;
                        break;
                case OPT_PROCESSES:
                        o->processes = true;
                        break;
                case OPT_SHAPE:
                        ok = parse_shape(o, optarg);
                        break;
                case OPT_SIBLINGS:
                        o->siblings_below_ns = strtod(optarg, &end);
                        ok = *end == 0 && o->siblings_below_ns > 0;
                        break;
                case OPT_VERSION:
                        printf("psyne-bench %s\n", impl_psyne.version);
                        return 1;
                case 'c':
                        ok = parse_cpus(o, optarg);
                        break;
                case 'h':
                        usage(stdout);
                        return 1;
                case 'i':
                        o->impls = optarg;
                        break;
                case 'j':
                        *json = optarg;
                        break;
                case 'p':
                        o->peers = optarg;
                        break;
                case 'q':
                        o->quiet = true;
                        break;
                case 'r':
                        o->rounds = (unsigned)strtoul(optarg, &end, 10);
                        ok = *end == 0 && o->rounds >= 1 && o->rounds <= TABLE_ROUNDS_MAX / 3;
                        break;
                case 's':
                        ok = parse_sizes(o, optarg);
                        break;
                case 't':
                        o->slice_ms = strtod(optarg, &end);
                        ok = *end == 0 && o->slice_ms >= 0.5 && o->slice_ms <= 1000;
                        break;
                case 'w':
                        ok = parse_wait(o, optarg);
                        break;
                default:
                        return -EINVAL; /* getopt has said why */
                }
                if (!ok)
                        fprintf(stderr, "psyne-bench: not understood -- '%s'\n", optarg);
        }
        if (ok && optind != argc) {
                fprintf(stderr, "psyne-bench: unexpected argument -- '%s'\n", argv[optind]);
                ok = false;
        }
        return ok ? 0 : -EINVAL;
}

static int write_json(const struct report *r, const char *path) {
        FILE *f = strcmp(path, "-") ? fopen(path, "we") : stdout;
        int err = 0;

        if (!f) {
                fprintf(stderr, "psyne-bench: cannot write %s: %s\n", path, strerror(errno));
                return -errno;
        }
        report_json(r, f);
        if (fflush(f) != 0 || ferror(f))
                err = -EIO;
        if (f != stdout)
                fclose(f);
        if (err < 0)
                fprintf(stderr, "psyne-bench: cannot write %s\n", path);
        return err;
}

static int run_command(size_t command, const struct run_options *o, const char *json) {
        struct run *r;
        int err;

        r = calloc(1, sizeof(*r));
        if (!r)
                return -ENOMEM;
        r->interrupted = interrupted;
        r->text = json && !strcmp(json, "-") ? stderr : stdout;
        err = run_init(r, o, commands[command].name, commands[command].peers_for, commands[command].over);
        if (err == 0) {
                report_head(&r->report, r->text);
                err = commands[command].run(r);
        }
        /* What was measured before an error or an interruption is still good. */
        if (r->report.n_tables) {
                report_foot(&r->report, r->text);
                if (json && write_json(&r->report, json) < 0)
                        err = -EIO;
        }
        run_deinit(r);
        free(r);
        return err;
}

int main(int argc, char **argv) {
        const struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: the driver's sleep ends */
        struct run_options o = {
                .rounds = 21,
                .cpus = {-1, -1},
                .wait = BENCH_WAIT_BLOCK,
                .siblings_below_ns = 65,
                .quiet = !isatty(STDERR_FILENO),
        };
        const char *json = NULL;
        size_t command;
        int r;

        if (bench_worker_main(argc, argv, impls, sizeof(impls) / sizeof(*impls), &r))
                return r;

        for (command = 0; argc > 1 && command < sizeof(commands) / sizeof(*commands); command++)
                if (!strcmp(argv[1], commands[command].name))
                        break;
        if (argc < 2 || (command == sizeof(commands) / sizeof(*commands) && argv[1][0] != '-')) {
                if (argc > 1)
                        fprintf(stderr, "psyne-bench: no such command -- '%s'\n", argv[1]);
                usage(stderr);
                return EXIT_FAILURE;
        }
        if (command < sizeof(commands) / sizeof(*commands)) {
                argc--;
                argv++;
                argv[0] = argv[-1]; /* for getopt's complaints */
        }
        r = parse_argv(argc, argv, &o, &json);
        if (r != 0)
                return r > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
        if (command == sizeof(commands) / sizeof(*commands)) {
                usage(stderr);
                return EXIT_FAILURE;
        }

        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
        sigaction(SIGHUP, &action, NULL);
        return run_command(command, &o, json) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
