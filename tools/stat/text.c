/* text.c: see text.h. Integers only: printf's %f would use the locale's decimal point. */
#include "stat/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

/* Three digits, cut and not rounded: a ring that is not quite full must not look full. */
static char *scaled(char to[TEXT_NUMBER], uint64_t n, uint64_t step, const char *units) {
        uint64_t unit = 1, whole, part;
        unsigned i = 0;

        while (n / unit >= step && units[i]) {
                unit *= step;
                i++;
        }
        if (i == 0) {
                snprintf(to, TEXT_NUMBER, "%llu", (unsigned long long)n);
                return to;
        }
        whole = n / unit;
        part = (uint64_t)((unsigned __int128)(n % unit) * 100 / unit); /* hundredths */
        if (whole < 10 && part % 10)
                snprintf(to, TEXT_NUMBER, "%llu.%02llu%c", (unsigned long long)whole, (unsigned long long)part,
                        units[i - 1]);
        else if (whole < 100 && part / 10)
                snprintf(to, TEXT_NUMBER, "%llu.%llu%c", (unsigned long long)whole, (unsigned long long)part / 10,
                        units[i - 1]);
        else
                snprintf(to, TEXT_NUMBER, "%llu%c", (unsigned long long)whole, units[i - 1]);
        return to;
}

char *text_count(char to[TEXT_NUMBER], uint64_t n) {
        return scaled(to, n, 1000, "kMGTPE");
}

char *text_bytes(char to[TEXT_NUMBER], uint64_t n) {
        return scaled(to, n, 1024, "KMGTPE");
}

char *text_duration(char to[TEXT_NUMBER], uint64_t ns) {
        static const struct {
                uint64_t below, unit; /* ns */
                const char *name;
        } steps[] = {
                {1000ull, 1ull, "ns"},
                {1000000ull, 1000ull, "us"},
                {1000000000ull, 1000000ull, "ms"},
                {60ull * 1000000000, 1000000000ull, "s"},
                {3600ull * 1000000000, 60ull * 1000000000, "m"},
                {48ull * 3600 * 1000000000, 3600ull * 1000000000, "h"},
                {UINT64_MAX, 24ull * 3600 * 1000000000, "d"},
        };
        unsigned i = 0;
        uint64_t whole, tenth;

        while (ns >= steps[i].below && i + 1 < sizeof(steps) / sizeof(*steps))
                i++;
        whole = ns / steps[i].unit;
        tenth = ns % steps[i].unit / (steps[i].unit < 10 ? 1 : steps[i].unit / 10);
        if (whole < 10 && tenth && steps[i].unit > 1)
                snprintf(to, TEXT_NUMBER, "%llu.%llu%s", (unsigned long long)whole, (unsigned long long)tenth,
                        steps[i].name);
        else
                snprintf(to, TEXT_NUMBER, "%llu%s", (unsigned long long)whole, steps[i].name);
        return to;
}

char *text_time(char to[TEXT_NUMBER], uint64_t realtime_ns) {
        time_t seconds = (time_t)(realtime_ns / 1000000000u);
        struct tm tm;

        if (!gmtime_r(&seconds, &tm) || !strftime(to, TEXT_NUMBER, "%Y-%m-%d %H:%M:%SZ", &tm))
                snprintf(to, TEXT_NUMBER, "-");
        return to;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

void text_clean(char *s) {
        for (; *s; s++)
                if (*s < ' ' || *s > '~')
                        *s = '?';
}

static bool use_color;

void text_use_color(bool yes) {
        use_color = yes;
}

const char *text_on(enum text_color c) {
        static const char *const codes[] = {"", "\033[1m", "\033[31m", "\033[33m"};

        return use_color ? codes[c] : "";
}

const char *text_off(enum text_color c) {
        return use_color && c != TEXT_PLAIN ? "\033[0m" : "";
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

#define TEXT_COLUMNS 32 /* of a table, at most; chosen by feel */

struct cell {
        char *text;
        enum text_color color;
};

struct text_table {
        const char *const *heads;
        size_t n_columns, n_cells, n_room;
        struct cell *cells;
};

struct text_table *text_table_new(const char *const heads[]) {
        struct text_table *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;
        t->heads = heads;
        while (t->n_columns < TEXT_COLUMNS && heads[t->n_columns])
                t->n_columns++;
        return t;
}

struct text_table *text_table_free(struct text_table *t) {
        if (!t)
                return NULL;
        for (size_t i = 0; i < t->n_cells; i++)
                free(t->cells[i].text);
        free(t->cells);
        free(t);
        return NULL;
}

void text_table_cell(struct text_table *t, const char *format, ...) {
        char *text = NULL;
        va_list ap;

        if (t->n_cells == t->n_room) {
                size_t room = t->n_room ? 2 * t->n_room : 64;
                struct cell *cells = realloc(t->cells, room * sizeof(*cells));

                if (!cells)
                        return;
                t->cells = cells;
                t->n_room = room;
        }
        va_start(ap, format);
        if (vasprintf(&text, format, ap) < 0)
                text = NULL; /* printed as nothing: out of memory for a word */
        va_end(ap);
        t->cells[t->n_cells++] = (struct cell){.text = text};
}

void text_table_color(struct text_table *t, enum text_color c) {
        if (t->n_cells)
                t->cells[t->n_cells - 1].color = c;
}

size_t text_table_rows(const struct text_table *t) {
        return t->n_cells / t->n_columns;
}

static const char *cell_text(const struct cell *c) {
        return c->text ? c->text : "";
}

/* What fills a cell up to its width is printed in front of the next one: no line ends in blanks. */
static void print_cell(const char *text, enum text_color color, size_t width, bool right, size_t *pending) {
        size_t fill = width - strlen(text);

        if (*text) {
                printf("%*s%s%s%s", (int)(*pending + (right ? fill : 0)), "", text_on(color), text, text_off(color));
                *pending = right ? 0 : fill;
        } else
                *pending += width;
        *pending += 1; /* between columns */
}

void text_table_print(const struct text_table *t, const char *indent, bool header) {
        size_t rows = text_table_rows(t), widths[TEXT_COLUMNS];

        for (size_t i = 0; i < t->n_columns; i++)
                widths[i] = header ? strlen(t->heads[i]) - (t->heads[i][0] == '>') : 0;
        for (size_t k = 0; k < rows * t->n_columns; k++) {
                size_t n = strlen(cell_text(&t->cells[k]));

                if (n > widths[k % t->n_columns])
                        widths[k % t->n_columns] = n;
        }
        for (size_t row = header ? 0 : 1; row <= rows; row++) {
                size_t pending = strlen(indent);

                for (size_t i = 0; i < t->n_columns; i++) {
                        bool right = t->heads[i][0] == '>';

                        if (row == 0)
                                print_cell(t->heads[i] + right, TEXT_BOLD, widths[i], right, &pending);
                        else {
                                const struct cell *c = &t->cells[(row - 1) * t->n_columns + i];

                                print_cell(cell_text(c), c->color, widths[i], right, &pending);
                        }
                }
                fputs("\n", stdout);
        }
}
