/*
 * psyne-stat: what goes on in the channels of this host.
 *
 *      psyne-stat list                 one row per channel
 *      psyne-stat show orders          one channel in full
 *      psyne-stat links                what goes to other hosts, and comes from there
 *
 * It reads and never joins: no channel notices it (but links are asked for: their thread answers), and it works on those whose owners are stopped or dead. See
 * psyne/stat.h for how; stat/collect.h for what the commands are given.
 */
#include "stat/commands.h"

#include "stat/text.h"
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
        const char *name;
        int (*run)(const struct options *o);
        const char *idea;
} commands[] = {
        {"list", command_list, "one row per channel, once; what a call without a command does"},
        {"show", command_show, "each channel in full: configuration, asked and obtained, lanes, groups, peers"},
        {"links", command_links, "one row per listener and connection of tcp:// channels and of links added to others; the glob is of addresses"},
};

enum { OPT_COLOR = 256, OPT_VERSION };

static const struct option options[] = {
        {"color", required_argument, NULL, OPT_COLOR},
        {"dir", required_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},
        {"json", no_argument, NULL, 'j'},
        {"no-header", no_argument, NULL, 'H'},
        {"quiet", no_argument, NULL, 'q'},
        {"version", no_argument, NULL, OPT_VERSION},
        {0},
};

static void usage(FILE *f) {
        fprintf(f, "psyne-stat [OPTIONS] [COMMAND [CHANNEL-GLOB...]]\n\n");
        for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
                fprintf(f, "  %-6s %s\n", commands[i].name, commands[i].idea);
        fprintf(f, "\n"
                   "  -d, --dir DIR           where the channels are ($PSYNE_DIR, else /dev/shm/psyne-UID)\n"
                   "  -j, --json              one JSON document, schema psyne-stat/1\n"
                   "  -H, --no-header         list, links: no line with the columns' names\n"
                   "      --color WHEN        auto (default), always or never; auto heeds NO_COLOR and TERM=dumb\n"
                   "  -q, --quiet             nothing on standard error about channels that are missing or unreadable\n"
                   "  -h, --help              this\n"
                   "      --version           the version\n"
                   "\n"
                   "Status: 0 ok, 1 cannot read, 2 usage, 3 a pattern matched nothing, 4 channels are unreadable.\n");
}

static int misuse(const char *what, const char *value) {
        complain("%s -- '%s'; try --help", what, value);
        return EXIT_USAGE;
}

static int decide_color(const char *when) {
        const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

        if (strcmp(when, "auto") == 0)
                text_use_color(
                        isatty(STDOUT_FILENO) && !(no_color && no_color[0]) && !(term && strcmp(term, "dumb") == 0));
        else if (strcmp(when, "always") == 0 || strcmp(when, "never") == 0)
                text_use_color(when[0] == 'a');
        else
                return -EINVAL;
        return 0;
}

/* A full disk or a closed output is an error of ours, but a reader that had enough (SIGPIPE) is not. */
static int finish(int status) {
        if (fflush(stdout) == 0 && !ferror(stdout))
                return status;
        complain("standard output: %s", strerror(errno));
        return EXIT_UNREADABLE;
}

int main(int argc, char **argv) {
        const char *command = "list", *color = "auto";
        struct options o = {0};
        int c;

        signal(SIGPIPE, SIG_DFL); /* some parents hand it down ignored */
        opterr = 0;
        while ((c = getopt_long(argc, argv, ":d:hjHq", options, NULL)) != -1) {
                switch (c) {
                case 'd':
                        if (o.dir)
                                return misuse("--dir is given twice", optarg);
                        if (!optarg[0])
                                return misuse("--dir needs a directory", optarg);
                        o.dir = optarg;
                        break;
                case 'h':
                        usage(stdout);
                        return finish(EXIT_SUCCESS);
                case 'j':
                        o.json = true;
                        break;
                case 'H':
                        o.no_header = true;
                        break;
                case 'q':
                        o.quiet = true;
                        break;
                case OPT_COLOR:
                        color = optarg;
                        break;
                case OPT_VERSION:
                        printf("psyne-stat %s\n", PSYNE_VERSION);
                        return finish(EXIT_SUCCESS);
                case ':':
                        return misuse("option needs a value", argv[optind - 1]);
                default:
                        return misuse("unknown option", argv[optind - 1]);
                }
        }
        if (decide_color(color) < 0)
                return misuse("--color is auto, always or never", color);
        if (optind < argc)
                command = argv[optind++];
        o.patterns = argv + optind;
        o.n_patterns = argc - optind;
        for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
                if (strcmp(command, commands[i].name) == 0)
                        return finish(commands[i].run(&o));
        /* Not taken for a pattern: that would change its meaning whenever a command is added. */
        return misuse("unknown command", command);
}
