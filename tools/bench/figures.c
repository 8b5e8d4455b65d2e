/* figures.c: see figures.h. */
#include "bench/figures.h"

#include <math.h>

#define CLASS_ROUNDS_MIN 3u /* fewer rounds of a class are not reported, unless there is no other */

static const struct stats_summary none = {NAN, NAN, NAN, 0};

static struct stats_summary ratios_to(
        const struct table *t, enum table_class class, const double *values, const struct row *other) {
        double others[TABLE_ROUNDS_MAX];

        if (!other)
                return none;
        table_values(t, other, class, others);
        return stats_ratios(values, others, t->n_rounds);
}

struct stats_summary figures_probe(const struct table *t, enum table_class class) {
        double v[TABLE_ROUNDS_MAX];

        for (unsigned i = 0; i < t->n_rounds; i++)
                v[i] = class != CLASS_SAME_CPU && table_class_of(t, i) == class ? t->probe[i] : NAN;
        return stats_summarize(v, t->n_rounds);
}

/* A row of ours with the same calls, in that mode of channel and that shape. Of single calls the ones with r's
 * prefetch, but a mode that is not shared has one kind of them only. */
static const struct row *relative(
        const struct table *t, const struct row *r, enum bench_channel channel, unsigned side) {
        for (unsigned i = 0; i < t->n_rows; i++) {
                const struct row *o = &t->rows[i];

                if (o->is_psyne && o->is_against == r->is_against && o != r && !o->refused[0] && o->mode == r->mode &&
                        o->calls == r->calls && o->spec.channel == channel && o->spec.producers == side &&
                        o->spec.consumers == side && (o->spec.prefetch == r->spec.prefetch || channel == BENCH_SPSC))
                        return o;
        }
        return NULL;
}

struct figures figures_of(const struct table *t, const struct row *r, enum table_class class) {
        const struct row *peer = table_best_peer(t, class, BENCH_SINGLE | BENCH_BULK),
                         *single = table_best_peer(t, class, BENCH_SINGLE),
                         *bulk = table_best_peer(t, class, BENCH_BULK);
        const bool modes = t->spec.what == BENCH_MODES;
        struct figures f = {.to_bulk_peer = none, .to_spsc = none, .to_2x2 = none};
        double values[TABLE_ROUNDS_MAX];

        /* None of the others gives every message to everybody, and what is there for comparison has another shape. */
        if (modes && r->is_psyne && (r->spec.channel == BENCH_BROADCAST || !row_has_shape_of(r, t)))
                peer = single = bulk = NULL;
        table_values(t, r, class, values);
        f.value = stats_summarize(values, t->n_rounds);
        f.to_floor = ratios_to(t, class, values, table_floor(t));
        f.to_peer = ratios_to(t, class, values, peer);
        f.to_single_peer = ratios_to(t, class, values, single);
        f.to_against = ratios_to(t, class, values, r->is_against ? NULL : table_counterpart(t, r));
        if (modes) {
                const unsigned one = r->spec.producers == 1 && r->spec.consumers == 1;

                f.to_bulk_peer = ratios_to(t, class, values, bulk);
                if (r->is_psyne && one && r->spec.channel != BENCH_SPSC)
                        f.to_spsc = ratios_to(t, class, values, relative(t, r, BENCH_SPSC, 1));
                if (r->is_psyne && row_has_shape_of(r, t))
                        f.to_2x2 = ratios_to(t, class, values, relative(t, r, (enum bench_channel)r->spec.channel, 2));
        }
        f.best_peer = peer ? peer->label : NULL;
        f.best_single_peer = single ? single->label : NULL;
        f.best_bulk_peer = bulk ? bulk->label : NULL;
        return f;
}

bool figures_class_is_reported(const struct table *t, enum table_class class) {
        const unsigned n = table_rounds_of(t, class);
        unsigned most = 0;

        for (int c = 0; c < CLASS_N; c++)
                if (table_rounds_of(t, (enum table_class)c) > most)
                        most = table_rounds_of(t, (enum table_class)c);
        return n > 0 && (n >= CLASS_ROUNDS_MIN || n == most);
}
