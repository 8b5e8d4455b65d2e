/*
 * collect.h: the channels a command is about. Every one that the patterns select is read once, also those that cannot
 * be read: they keep their error and become a row, too.
 */
#ifndef PSYNE_TOOLS_STAT_COLLECT_H
#define PSYNE_TOOLS_STAT_COLLECT_H

#include <psyne/stat.h>
#include <stdbool.h>
#include <stddef.h>

/* What the command line said. */
struct options {
        const char *dir;
        bool no_header, json, quiet;
        char **patterns;
        int n_patterns;
};

struct channel {
        struct psyne_stat *stat; /* NULL: not readable */
        char label[80];          /* NAME or NAME.dead, safe to print; a longer one is cut */
        bool post_mortem;
        int error;
        char sentence[256];
};

struct channels {
        struct psyne_stat_dir *dir;
        struct channel *items; /* by name */
        size_t n;
        unsigned n_unreadable;
        bool missing;   /* there is no such directory */
        bool unmatched; /* a pattern selected nothing */
};

/* Says on standard error what could not be read or matched. 0, or an error: then it has said that, too. */
int channels_init(struct channels *c, const struct options *o);
void channels_deinit(struct channels *c);

/* On standard error, with the program's name in front and nothing that a terminal would obey. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
