/* table.c: see table.h. */
#include "bench/table.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const table_class_names[CLASS_N] = {"separate", "far", "siblings", "same cpu"};

#define PROBE_SLICE_NS 1000000u /* 4,000 round trips of a slow line */
#define PROBES_FIRST 9u         /* enough to see how much the line varies before anything depends on it */
#define CALIBRATE_SLICES 5u     /* of full length: some rings settle into one of two rhythms, three times apart */
#define ROUNDS_EXTRA 3u         /* give up making up for dropped rounds after this many times what was asked */
#define SLICE_TRIES 4u          /* of a slice in which another process wanted a CPU */
#define MIXED_FACTOR 1.35       /* two probes further apart than this saw different placements */
#define FAR_FACTOR 2.0          /* caches shared or not: 130 and 500 ns on a Zen 4, nothing in between */

static const uint64_t ring_sizes[] = {64u << 10, 256u << 10, 1u << 20, 4u << 20};
static const uint32_t pauses_tried[] = {BENCH_PAUSES_DEFAULT, 0, 4, 16};
#define PAUSES_TRIED (sizeof(pauses_tried) / sizeof(*pauses_tried))

struct table *table_new(const char *bench, const char *title, const struct bench_spec *spec) {
        struct table *t;

        t = calloc(1, sizeof(*t));
        if (!t)
                return NULL;
        t->rows = calloc(TABLE_ROWS_MAX, sizeof(*t->rows));
        if (!t->rows)
                return table_free(t);
        t->bench = bench;
        t->title = title;
        t->spec = *spec;
        t->more_is_better = spec->what == BENCH_RATE || spec->what == BENCH_MODES;
        t->unit = t->more_is_better ? "msg/s" : "ns";
        return t;
}

struct table *table_free(struct table *t) {
        if (t)
                free(t->rows);
        free(t);
        return NULL;
}

struct row *table_add(struct table *t, struct contender *c) {
        struct row *r;

        if (t->n_rows == TABLE_ROWS_MAX)
                return NULL;
        r = &t->rows[t->n_rows++];
        r->contender = c;
        r->spec = t->spec;
        r->mode = c->mode;
        r->has_pauses = c->adapter.has_pauses;
        r->calls = c->calls;
        memcpy(r->label, c->label, sizeof(r->label));
        memcpy(r->version, c->adapter.version, sizeof(r->version));
        for (unsigned i = 0; i < TABLE_ROUNDS_MAX; i++)
                r->value[i] = NAN;
        return r;
}

/* ---- probe ------------------------------------------------------------------------------------------------------ */

static void probes_cut(struct probes *p) {
        double v[PROBES_MAX];
        struct stats_summary s;

        p->siblings_below = stats_threshold(p->values, p->n, p->below_ns);
        for (size_t i = 0; i < p->n; i++)
                v[i] = p->values[i] < p->siblings_below ? NAN : p->values[i];
        s = stats_summarize(v, p->n);
        p->far_above = s.n ? s.p10 * FAR_FACTOR : INFINITY;
}

int probe_take(struct driver *d, struct probes *p, double *ret) {
        struct bench_answer answers[2];
        int r;

        r = contender_run(d, p->line, PROBE_SLICE_NS, answers);
        if (r < 0)
                return r;
        *ret = answers[0].value;
        if (*ret > 0 && p->n < PROBES_MAX) {
                p->values[p->n++] = *ret;
                probes_cut(p);
        }
        return 0;
}

int probe_start(struct driver *d, struct probes *p, const struct bench_spec *spec) {
        struct bench_spec try = *spec;
        double best = INFINITY, v[PROBES_FIRST];
        int r = 0;

        for (size_t k = 0; k < PAUSES_TRIED + 1; k++) {
                /* The last time round with the best of them. */
                const uint32_t n = k < PAUSES_TRIED ? pauses_tried[k] : p->pauses;
                double median;

                try.pauses = n;
                r = contender_attach(d, p->line, &try, NULL);
                for (unsigned i = 0; r == 0 && i < PROBES_FIRST; i++)
                        r = probe_take(d, p, &v[i]);
                if (r < 0 || k == PAUSES_TRIED)
                        break;
                p->n = 0; /* these were not with the setting that is kept */
                median = stats_summarize(v, PROBES_FIRST).median;
                if (median > 0 && median < best) {
                        best = median;
                        p->pauses = n;
                }
                r = contender_detach(d, p->line);
                if (r < 0)
                        break;
        }
        return r;
}

enum table_class table_class_of(const struct table *t, unsigned round) {
        if (t->one_cpu)
                return CLASS_SAME_CPU;
        if (t->probe[round] < t->probes->siblings_below)
                return CLASS_SIBLINGS;
        return t->probe[round] > t->probes->far_above ? CLASS_FAR : CLASS_SEPARATE;
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

/* One way to wait between two looks. */
struct manner {
        uint32_t wait, pauses;
};

/*
 * Where several threads share a CPU, spinning keeps the ones from running that are waited for; where they do not,
 * giving way costs a system call. Everybody gets what is best for it: a library's queue spins or yields in loops of
 * the adapter, psyne waits as it can be told to.
 */
static const struct manner manners_peer[] = {
        {BENCH_WAIT_SPIN, 1}, {BENCH_WAIT_SPIN, 16}, {BENCH_WAIT_YIELD, 0}, {BENCH_WAIT_YIELD, 16}};
static const struct manner manners_psyne[] = {{BENCH_WAIT_SPIN, 1}, {BENCH_WAIT_HYBRID, 1}, {BENCH_WAIT_BLOCK, 1}};
#define MANNERS_MAX 4u

static size_t row_manners(const struct table *t, const struct row *row, struct manner ret[MANNERS_MAX]) {
        const size_t n = row->has_pauses ? PAUSES_TRIED : 1;

        if (t->spec.what == BENCH_MODES && row->is_psyne) {
                /* Alone on its CPU nobody gains by sleeping, and modes compared there shall wait alike. In a crowd left
                 * to the scheduler spinning is never best, and makes the end of a slice take a second. */
                const bool alone = row->spec.producers == 1 && row->spec.consumers == 1, crowd = row->spec.cpu[0] < 0;
                const size_t all = sizeof(manners_psyne) / sizeof(*manners_psyne), first = crowd,
                             kept = alone ? 1 : all - first;

                memcpy(ret, manners_psyne + first, kept * sizeof(*ret));
                return kept;
        }
        if (t->spec.what == BENCH_MODES) {
                memcpy(ret, manners_peer, sizeof(manners_peer));
                return sizeof(manners_peer) / sizeof(*manners_peer);
        }
        for (size_t i = 0; i < n; i++)
                ret[i] = (struct manner){t->spec.wait, pauses_tried[i]};
        return n;
}

static int row_attach(struct row *row, struct driver *d, uint64_t ring_bytes, struct manner manner) {
        struct bench_spec spec = row->spec;
        struct bench_answer answers[2];
        int r;

        spec.ring_bytes = ring_bytes;
        spec.wait = manner.wait;
        spec.pauses = manner.pauses;
        r = contender_attach(d, row->contender, &spec, answers);
        if (r == 0)
                memcpy(row->obtained, answers[0].obtained[0] ? answers[0].obtained : answers[1].obtained,
                        sizeof(row->obtained));
        return r;
}

/* Only who spins alone on its CPU keeps it for a whole slice, unless some other process wants it. (In a send() the kernel
 * may switch as it likes.) */
static bool row_keeps_cpus(const struct row *row) {
        return row->wait == BENCH_WAIT_SPIN && row->spec.over == BENCH_MEMORY && row->spec.producers <= 1 && row->spec.consumers <= 1;
}

/*
 * One slice; NaN if there is no figure. What it lost or damaged is added up even where the figure is not kept. A
 * spinning side that was preempted measured the other process: it gets a few more tries.
 */
static int row_slice(struct table *t, struct row *row, struct driver *d, uint64_t slice_ns, double *ret) {
        struct bench_answer answers[2];
        int r;

        for (unsigned tries = 0; tries < SLICE_TRIES; tries++) {
                r = contender_run(d, row->contender, slice_ns, answers);
                if (r < 0)
                        return r;
                *ret = t->more_is_better ? answers[1].value : answers[0].value;
                if (*ret <= 0)
                        *ret = NAN;
                row->damaged += answers[0].damaged + answers[1].damaged;
                if (t->spec.what == BENCH_RATE && answers[0].n > answers[1].n)
                        row->damaged +=
                                answers[0].n - answers[1].n; /* the last ones of a slice, which nothing came after */
                if (!row_keeps_cpus(row) || !(answers[0].preempted + answers[1].preempted))
                        break;
                t->n_preempted++;
        }
        return 0;
}

/* Tries one setting; keeps it in the row if it is the best so far. A refusal is not an error. */
static int row_try(struct table *t, struct row *row, struct driver *d, const struct table_options *o,
        uint64_t ring_bytes, struct manner manner, double *best) {
        const unsigned n = o->rounds < CALIBRATE_SLICES ? o->rounds : CALIBRATE_SLICES;
        const uint32_t kept = row->wait;
        double v[CALIBRATE_SLICES], median;
        int r;

        if (o->interrupted())
                return -EINTR;
        r = row_attach(row, d, ring_bytes, manner);
        row->wait = manner.wait; /* for the slices to come */
        if (r == -EREMOTEIO) {
                row->wait = kept;
                snprintf(row->refused, sizeof(row->refused), "%s", driver_error(d));
                return 0;
        }
        for (unsigned i = 0; r == 0 && i < n; i++)
                r = row_slice(t, row, d, o->slice_ns, &v[i]);
        if (r < 0)
                return r;
        median = stats_summarize(v, n).median;
        if (!row->ring_bytes || (isnan(*best) ? !isnan(median) : t->more_is_better ? median > *best : median < *best)) {
                *best = median;
                row->ring_bytes = ring_bytes;
                row->pauses = manner.pauses;
        } else {
                row->wait = kept;
        }
        return contender_detach(d, row->contender);
}

/* Leaves the row attached with its best ring and pauses, or refused. */
static int row_prepare(struct table *t, struct row *row, struct driver *d, const struct table_options *o) {
        const struct row *twin = row->is_against ? table_counterpart(t, row) : NULL;
        /* The other psyne gets what ours found best: a difference of rings must not pass for one of versions. */
        const uint64_t fixed[] = {o->ring_bytes ? o->ring_bytes : twin ? twin->ring_bytes : 0};
        const uint64_t *sizes = fixed[0] ? fixed : ring_sizes;
        const size_t n_sizes = fixed[0] ? 1 : sizeof(ring_sizes) / sizeof(*ring_sizes);
        struct manner manners[MANNERS_MAX];
        const size_t n_manners = row_manners(t, row, manners);
        double best = NAN;
        int r;

        for (size_t i = 0; i < n_sizes; i++) {
                if (sizes[i] < 2 * t->spec.size)
                        continue; /* nothing could be in flight */
                for (size_t k = 0; k < n_manners; k++) {
                        r = row_try(t, row, d, o, sizes[i], manners[k], &best);
                        if (r < 0)
                                return r;
                }
        }
        if (!row->ring_bytes) {
                if (!row->refused[0])
                        snprintf(row->refused, sizeof(row->refused), "no ring is large enough for two such messages");
                return 0;
        }
        row->refused[0] = 0;
        if (t->spec.what != BENCH_MODES) /* there, that nothing is lost is part of what is asked */
                row->damaged = 0;
        return row_attach(row, d, row->ring_bytes, (struct manner){row->wait, row->pauses});
}

/* ---- rounds ----------------------------------------------------------------------------------------------------- */

static int round_run(struct table *t, struct driver *d, const struct table_options *o, unsigned round) {
        unsigned first;
        int r;

        for (unsigned i = 0; i < t->n_rows; i++) {
                if (!t->rows[i].is_floor || t->rows[i].refused[0])
                        continue;
                r = row_slice(t, &t->rows[i], d, o->slice_ns, &t->rows[i].value[round]);
                if (r < 0)
                        return r;
        }
        first = round % t->n_rows;
        for (unsigned k = 0; k < t->n_rows; k++) {
                struct row *row = &t->rows[(first + k) % t->n_rows];

                if (row->is_floor || row->refused[0])
                        continue;
                r = row_slice(t, row, d, o->slice_ns, &row->value[round]);
                if (r < 0)
                        return r;
        }
        return 0;
}

static void round_forget(struct table *t, unsigned round) {
        for (unsigned i = 0; i < t->n_rows; i++)
                t->rows[i].value[round] = NAN;
}

/* Rounds of the class that has most. */
static unsigned rounds_most(const struct table *t) {
        unsigned most = 0;

        for (int c = 0; c < CLASS_N; c++) {
                const unsigned n = table_rounds_of(t, (enum table_class)c);

                most = n > most ? n : most;
        }
        return most;
}

/* Two probes of one placement: both measured, and alike. */
static bool probes_agree(double a, double b) {
        return a > 0 && b > 0 && a < b * MIXED_FACTOR && b < a * MIXED_FACTOR;
}

static int rounds_measure(struct table *t, struct driver *d, struct probes *p, const struct table_options *o) {
        double before = 0, after = 0;
        int r;

        for (unsigned tries = 0;
                tries < o->rounds * ROUNDS_EXTRA && t->n_rounds < TABLE_ROUNDS_MAX && rounds_most(t) < o->rounds;
                tries++) {
                const unsigned round = t->n_rounds;

                if (o->interrupted())
                        return -EINTR;
                if (p->line && (r = probe_take(d, p, &before)) < 0)
                        return r;
                r = round_run(t, d, o, round);
                if (r < 0)
                        return r;
                if (p->line && (r = probe_take(d, p, &after)) < 0)
                        return r;
                if (p->line && !probes_agree(before, after)) {
                        t->n_dropped++;
                        round_forget(t, round);
                        continue;
                }
                t->probe[round] = (before + after) / 2;
                t->n_rounds++;
                if (o->progress)
                        o->progress(t, t->n_rounds);
        }
        return 0;
}

int table_measure(struct table *t, struct driver *d, struct probes *p, const struct table_options *o) {
        int r = 0, detached;

        t->probes = p;
        t->one_cpu = !p->line;
        for (unsigned i = 0; i < t->n_rows && r == 0; i++) {
                if (o->interrupted())
                        r = -EINTR;
                else
                        r = row_prepare(t, &t->rows[i], d, o);
        }
        if (r == 0)
                r = rounds_measure(t, d, p, o);
        /* Also after an interruption: names that channels left in the file system go with them. */
        for (unsigned i = 0; i < t->n_rows && (r == 0 || r == -EINTR); i++) {
                detached = contender_detach(d, t->rows[i].contender);
                if (detached < 0)
                        r = detached;
        }
        return r;
}

/* ---- reading a table -------------------------------------------------------------------------------------------- */

void table_values(const struct table *t, const struct row *r, enum table_class class, double *ret) {
        for (unsigned i = 0; i < t->n_rounds; i++)
                ret[i] = table_class_of(t, i) == class ? r->value[i] : NAN;
}

unsigned table_rounds_of(const struct table *t, enum table_class class) {
        unsigned n = 0;

        for (unsigned i = 0; i < t->n_rounds; i++)
                n += table_class_of(t, i) == class;
        return n;
}

struct row *table_counterpart(const struct table *t, const struct row *r) {
        for (unsigned i = 0; i < t->n_rows; i++) {
                struct row *o = &t->rows[i];

                if (r->is_psyne && o->is_psyne && o->is_against != r->is_against && !o->refused[0] &&
                        o->mode == r->mode && o->calls == r->calls && o->spec.channel == r->spec.channel &&
                        o->spec.prefetch == r->spec.prefetch && o->spec.producers == r->spec.producers &&
                        o->spec.consumers == r->spec.consumers)
                        return o;
        }
        return NULL;
}

bool row_has_shape_of(const struct row *r, const struct table *t) {
        return r->spec.producers == t->spec.producers && r->spec.consumers == t->spec.consumers;
}

struct row *table_floor(const struct table *t) {
        for (unsigned i = 0; i < t->n_rows; i++)
                if (t->rows[i].is_floor && !t->rows[i].refused[0])
                        return &t->rows[i];
        return NULL;
}

struct row *table_best_peer(const struct table *t, enum table_class class, unsigned calls) {
        double values[TABLE_ROUNDS_MAX], best = NAN;
        struct row *ret = NULL;

        for (unsigned i = 0; i < t->n_rows; i++) {
                struct row *r = &t->rows[i];
                struct stats_summary s;

                if (r->is_floor || r->is_psyne || r->refused[0] || !(r->calls & calls))
                        continue;
                table_values(t, r, class, values);
                s = stats_summarize(values, t->n_rounds);
                if (s.n && (isnan(best) || (t->more_is_better ? s.median > best : s.median < best))) {
                        best = s.median;
                        ret = r;
                }
        }
        return ret;
}
