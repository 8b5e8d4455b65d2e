/* collect.c: see collect.h. */
#include "stat/collect.h"

#include "stat/text.h"
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void complain(const char *format, ...) {
        char text[6000]; /* more than a path and a sentence */
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        text_clean(text);
        fprintf(stderr, "psyne-stat: %s\n", text);
}

/* NAME.psy is shown as NAME; a post-mortem keeps its ending. Returns whether it is one. */
static bool label_set(char *to, size_t n, const char *file) {
        size_t length = strlen(file);
        bool post_mortem = length > 5 && strcmp(file + length - 5, ".dead") == 0;
        int keep = (int)(post_mortem ? length : length - 4);

        if (keep < (int)n)
                snprintf(to, n, "%.*s", keep, file);
        else
                snprintf(to, n, "%.*s...", (int)n - 4, file);
        text_clean(to);
        return post_mortem;
}

/* As it is shown, or as the file is called. */
static bool pattern_fits(const char *pattern, const char *label, const char *file) {
        return fnmatch(pattern, label, 0) == 0 || fnmatch(pattern, file, 0) == 0;
}

static bool selected(const struct options *o, const char *label, const char *file) {
        for (int i = 0; i < o->n_patterns; i++)
                if (pattern_fits(o->patterns[i], label, file))
                        return true;
        return o->n_patterns == 0;
}

static int by_label(const void *a, const void *b) {
        const struct channel *x = a, *y = b;
        int r = strcmp(x->label, y->label);

        return r ? r : (int)x->post_mortem - (int)y->post_mortem;
}

static int add(struct channels *c, const struct channel *what) {
        struct channel *items = reallocarray(c->items, c->n + 1, sizeof(*items));

        if (!items)
                return -ENOMEM;
        c->items = items;
        c->items[c->n++] = *what;
        return 0;
}

static int read_all(struct channels *c, const struct options *o, bool *fits) {
        const char *file;
        int r;

        while ((r = psyne_stat_next(c->dir, &file)) > 0) {
                struct channel one = {0};

                one.post_mortem = label_set(one.label, sizeof(one.label), file);
                if (!selected(o, one.label, file))
                        continue;
                one.error = psyne_stat_read(c->dir, file, &one.stat);
                if (one.error == -ENOENT)
                        continue; /* it has just gone: nothing is wrong with it */
                for (int i = 0; i < o->n_patterns; i++)
                        fits[i] |= pattern_fits(o->patterns[i], one.label, file);
                if (one.error < 0) {
                        snprintf(one.sentence, sizeof(one.sentence), "%s", psyne_last_error());
                        text_clean(one.sentence);
                        c->n_unreadable++;
                }
                r = add(c, &one);
                if (r < 0) {
                        psyne_stat_free(one.stat);
                        complain("no memory for a list of channels");
                        return r;
                }
        }
        if (r < 0)
                complain("%s", psyne_last_error());
        return r;
}

int channels_init(struct channels *c, const struct options *o) {
        bool *fits;
        int r;

        *c = (struct channels){0};
        r = psyne_stat_open_dir(o->dir, &c->dir);
        if (r < 0) {
                complain("%s", psyne_last_error());
                return r;
        }
        c->missing = r == 1;
        if (c->missing && o->dir && !o->quiet)
                complain("%s does not exist: no channels", psyne_stat_dir_path(c->dir));
        fits = calloc((size_t)o->n_patterns + 1, sizeof(*fits));
        if (!fits) {
                complain("no memory for a list of channels");
                return -ENOMEM;
        }
        r = read_all(c, o, fits);
        if (c->n)
                qsort(c->items, c->n, sizeof(*c->items), by_label);
        for (size_t i = 0; r == 0 && i < c->n && !o->quiet; i++)
                if (!c->items[i].stat)
                        complain("%s: %s", c->items[i].label, c->items[i].sentence);
        for (int i = 0; r == 0 && i < o->n_patterns; i++)
                if (!fits[i]) {
                        c->unmatched = true;
                        if (!o->quiet)
                                complain("no channel in %s matches %s", psyne_stat_dir_path(c->dir), o->patterns[i]);
                }
        free(fits);
        return r;
}

void channels_deinit(struct channels *c) {
        for (size_t i = 0; i < c->n; i++)
                psyne_stat_free(c->items[i].stat);
        free(c->items);
        c->dir = psyne_stat_close_dir(c->dir);
        c->items = NULL;
        c->n = 0;
}
