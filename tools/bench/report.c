/* report.c: see report.h. One function works out a row's figures; text and JSON print the same ones. */
#include "bench/report.h"
#include "bench/figures.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define NOISY_STEAL_PERCENT 1.0
#define NOISY_PROBE_SPREAD 0.25 /* (p90 - p10) / median of the probes of the run, whatever the cause */

void report_missing(struct report *r, const char *name, const char *format, ...) {
        va_list args;

        if (r->n_missing == REPORT_MISSING_MAX)
                return;
        snprintf(r->missing[r->n_missing].name, sizeof(r->missing[0].name), "%s", name);
        va_start(args, format);
        vsnprintf(r->missing[r->n_missing].why, sizeof(r->missing[0].why), format, args);
        va_end(args);
        r->n_missing++;
}

const char *report_mode_name(const struct row *r) {
        return r->mode == BENCH_THREADS ? "threads" : "processes";
}

const char *report_calls_name(const struct row *r) {
        return r->calls == BENCH_BULK ? "bulk" : "single";
}

bool report_is_noisy(const struct report *r) {
        const struct stats_summary s = stats_summarize(r->probes->values, r->probes->n);

        return env_steal_percent(&r->env) > NOISY_STEAL_PERCENT ||
               (s.n && (s.p90 - s.p10) / s.median > NOISY_PROBE_SPREAD);
}

/* ---- for people ------------------------------------------------------------------------------------------------- */

void report_format_bytes(uint64_t n, char *ret, size_t size) {
        if (n >= 1u << 20 && n % (1u << 20) == 0)
                snprintf(ret, size, "%lluM", (unsigned long long)(n >> 20));
        else if (n >= 1u << 10 && n % (1u << 10) == 0)
                snprintf(ret, size, "%lluK", (unsigned long long)(n >> 10));
        else
                snprintf(ret, size, "%llu", (unsigned long long)n);
}

/* Rates in millions; times of microseconds without decimals. */
void report_format_value(const struct table *t, double v, char *ret, size_t size) {
        if (isnan(v))
                snprintf(ret, size, "-");
        else if (t->more_is_better)
                snprintf(ret, size, v >= 100e6 ? "%.1f" : v >= 1e6 ? "%.2f" : "%.4f", v / 1e6);
        else
                snprintf(ret, size, v >= 1000 ? "%.0f" : v >= 100 ? "%.1f" : "%.2f", v);
}

static void format_ratio(struct stats_summary s, char *ret, size_t size) {
        if (s.n == 0)
                snprintf(ret, size, "-");
        else
                snprintf(ret, size, "%.2f", s.median);
}

void report_head(const struct report *r, FILE *f) {
        const struct env *e = &r->env;

        fprintf(f, "%s, %s, hypervisor %s, governor %s, huge pages %ld of %ld free, shmem THP %s\n", e->cpu_model,
                e->kernel, e->hypervisor, e->governor, e->huge_free, e->huge_total, e->thp_shmem);
        for (unsigned i = 0; i < r->n_missing; i++)
                fprintf(f, "%s: %s\n", r->missing[i].name, r->missing[i].why);
}

static void print_row(const struct table *t, const struct row *row, enum table_class class, FILE *f) {
        char median[32], p10[32], p90[32], spread[72], floor[32], peer[32], ring[32] = "-", rate[32] = "";
        const struct figures g = figures_of(t, row, class);

        if (t->spec.what == BENCH_MODES) {
                report_modes_row(t, row, &g, f);
                return;
        }
        if (row->refused[0]) {
                fprintf(f, "  %-14s %-9s %-6s not measured: %s\n", row->label, report_mode_name(row),
                        report_calls_name(row), row->refused);
                return;
        }
        report_format_value(t, g.value.median, median, sizeof(median));
        report_format_value(t, g.value.p10, p10, sizeof(p10));
        report_format_value(t, g.value.p90, p90, sizeof(p90));
        snprintf(spread, sizeof(spread), "%s-%s", p10, p90);
        format_ratio(g.to_floor, floor, sizeof(floor));
        format_ratio(g.to_peer, peer, sizeof(peer));
        if (t->spec.what != BENCH_LAT || !row->is_floor) /* that one has no ring */
                report_format_bytes(row->ring_bytes, ring, sizeof(ring));
        if (t->more_is_better)
                snprintf(rate, sizeof(rate), " %6.2f GB/s", g.value.median * (double)t->spec.size / 1e9);
        fprintf(f, "  %-14s %-9s %-6s %9s %17s%s %4zu %8s %8s %5s  %s", row->label, report_mode_name(row),
                report_calls_name(row), median, spread, rate, g.value.n, floor, peer, ring, row->obtained);
        if (row->has_pauses)
                fprintf(f, ", %u pause%s", row->pauses, row->pauses == 1 ? "" : "s");
        if (g.to_against.n)
                fprintf(f, "; %.3f of --against", g.to_against.median);
        if (row->damaged)
                fprintf(f, "; LOST OR DAMAGED %llu", (unsigned long long)row->damaged);
        fputc('\n', f);
}

void report_table(const struct report *r, const struct table *t, FILE *f) {
        char size[32];

        report_format_bytes(t->spec.size, size, sizeof(size));
        if (t->n_rounds == 0)
                fprintf(f, "\n%s, %s bytes, %s: no figures, the CPUs changed places in each of %u rounds\n", t->bench, size,
                        t->title, t->n_dropped);
        for (int c = 0; c < CLASS_N; c++) {
                const enum table_class class = (enum table_class)c;

                if (!figures_class_is_reported(t, class))
                        continue;
                fprintf(f, "\n%s, %s bytes, %s; CPUs %d,%d %s", t->bench, size, t->title, r->cpus[0],
                        t->one_cpu ? r->cpus[0] : r->cpus[1], table_class_names[c]);
                if (class != CLASS_SAME_CPU)
                        fprintf(f, " (raw line %.0f ns)", figures_probe(t, class).median);
                fprintf(f, "; %u rounds, %u dropped, %u slices repeated\n", table_rounds_of(t, class), t->n_dropped,
                        t->n_preempted);
                if (t->spec.what == BENCH_MODES)
                        report_modes_heading(f);
                else
                        fprintf(f, "  %-14s %-9s %-6s %9s %17s%s %4s %8s %8s %5s  %s\n", "impl", "mode", "calls",
                                t->more_is_better ? "M msg/s" : "ns", "p10-p90",
                                t->more_is_better ? "            " : "", "n", "/floor", "/peer", "ring", "obtained");
                for (unsigned i = 0; i < t->n_rows; i++)
                        print_row(t, &t->rows[i], class, f);
        }
        fflush(f);
}

void report_foot(const struct report *r, FILE *f) {
        const struct stats_summary s = stats_summarize(r->probes->values, r->probes->n);

        fprintf(f, "\n");
        if (s.n)
                fprintf(f,
                        "raw line %.0f ns (p10 %.0f, p90 %.0f, %zu probes, pauses %u); below %.0f ns counts as "
                        "siblings of one core, above %.0f as far\n",
                        s.median, s.p10, s.p90, s.n, r->probes->pauses, r->probes->siblings_below,
                        r->probes->far_above);
        fprintf(f, "steal %.2f %%%s\n", env_steal_percent(&r->env),
                report_is_noisy(r) ? "; NOISY: the absolute figures drift, trust ratios only" : "");
}

/* ---- for programs ----------------------------------------------------------------------------------------------- */

static void json_string(FILE *f, const char *s) {
        fputc('"', f);
        for (; *s; s++) {
                const unsigned char c = (unsigned char)*s;

                if (c == '"' || c == '\\')
                        fprintf(f, "\\%c", c);
                else if (c < 0x20 || c >= 0x7f)
                        fprintf(f, "\\u%04x", c);
                else
                        fputc(c, f);
        }
        fputc('"', f);
}

void report_json_key_string(FILE *f, const char *key, const char *value) {
        fprintf(f, "\"%s\": ", key);
        json_string(f, value);
        fputs(", ", f);
}

/* JSON has no NaN. */
void report_json_key_number(FILE *f, const char *key, double v) {
        if (isnan(v) || isinf(v))
                fprintf(f, "\"%s\": null, ", key);
        else
                fprintf(f, "\"%s\": %.6g, ", key, v);
}

static void json_environment(const struct report *r, FILE *f) {
        const struct env *e = &r->env;
        const struct stats_summary s = stats_summarize(r->probes->values, r->probes->n);

        fputs("  \"environment\": {", f);
        report_json_key_string(f, "cpu", e->cpu_model);
        report_json_key_string(f, "kernel", e->kernel);
        report_json_key_string(f, "hypervisor", e->hypervisor);
        report_json_key_string(f, "governor", e->governor);
        report_json_key_string(f, "shmem_thp", e->thp_shmem);
        fprintf(f, "\"huge_pages_free\": %ld, \"huge_pages_total\": %ld, \"cpus_online\": %d, \"cpus\": [%d, %d], ",
                e->huge_free, e->huge_total, e->cpus_online, r->cpus[0], r->cpus[1]);
        report_json_key_number(f, "slice_ms", r->slice_ms);
        report_json_key_number(f, "raw_line_ns", s.median);
        report_json_key_number(f, "raw_line_p10_ns", s.p10);
        report_json_key_number(f, "raw_line_p90_ns", s.p90);
        report_json_key_number(f, "siblings_below_ns", r->probes->siblings_below);
        report_json_key_number(f, "far_above_ns", r->probes->far_above);
        report_json_key_number(f, "steal_percent", env_steal_percent(e));
        fprintf(f, "\"noisy\": %s},\n", report_is_noisy(r) ? "true" : "false");
}

static void json_row(const struct table *t, const struct row *row, enum table_class class, bool first, FILE *f) {
        const struct figures g = figures_of(t, row, class);

        fputs(first ? "\n    {" : ",\n    {", f);
        report_json_key_string(f, "bench", t->bench);
        report_json_key_string(f, "mode", report_mode_name(row));
        fprintf(f, "\"size\": %llu, ", (unsigned long long)t->spec.size);
        report_json_key_string(f, "impl", row->label);
        report_json_key_string(f, "version", row->version);
        report_json_key_string(f, "calls", report_calls_name(row));
        report_json_key_string(f, "unit", t->unit);
        report_json_key_number(f, "median", g.value.median);
        report_json_key_number(f, "p10", g.value.p10);
        report_json_key_number(f, "p90", g.value.p90);
        fprintf(f, "\"n\": %zu, ", g.value.n);
        report_json_key_string(f, "class", table_class_names[class]);
        report_json_key_number(f, "ratio_to_floor", g.to_floor.median);
        report_json_key_number(f, "ratio_to_best_peer", g.to_peer.median);
        report_json_key_number(f, "ratio_to_best_single_peer", g.to_single_peer.median);
        report_json_key_number(f, "ratio_to_against", g.to_against.median);
        if (g.best_peer)
                report_json_key_string(f, "best_peer", g.best_peer);
        if (t->spec.what == BENCH_MODES)
                report_modes_json(t, row, &g, f);
        fprintf(f, "\"ring_bytes\": %llu, \"damaged\": %llu, \"rounds_dropped\": %u, ",
                (unsigned long long)row->ring_bytes, (unsigned long long)row->damaged, t->n_dropped);
        report_json_key_number(f, "raw_line_ns", figures_probe(t, class).median);
        fputs("\"obtained\": ", f);
        json_string(f, row->obtained);
        fputc('}', f);
}

void report_json(const struct report *r, FILE *f) {
        bool first = true;

        fprintf(f, "{\n  \"schema\": \"%s\",\n  ", REPORT_SCHEMA);
        report_json_key_string(f, "command", r->command);
        fputc('\n', f);
        json_environment(r, f);
        fputs("  \"missing\": [", f);
        for (unsigned i = 0; i < r->n_missing; i++) {
                fputs(i ? ", {\"impl\": " : "{\"impl\": ", f);
                json_string(f, r->missing[i].name);
                fputs(", \"why\": ", f);
                json_string(f, r->missing[i].why);
                fputc('}', f);
        }
        fputs("],\n  \"results\": [", f);
        for (unsigned k = 0; k < r->n_tables; k++) {
                const struct table *t = r->tables[k];

                for (int c = 0; c < CLASS_N; c++) {
                        if (!figures_class_is_reported(t, (enum table_class)c))
                                continue;
                        for (unsigned i = 0; i < t->n_rows; i++) {
                                if (t->rows[i].refused[0])
                                        continue;
                                json_row(t, &t->rows[i], (enum table_class)c, first, f);
                                first = false;
                        }
                }
        }
        fputs("\n  ]\n}\n", f);
}
