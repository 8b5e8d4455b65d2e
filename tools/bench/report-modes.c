/* report-modes.c: rows of `psyne-bench modes`; see report.h. */
#include "bench/report.h"

#include <math.h>
#include <string.h>

static const char *const channel_names[BENCH_CHANNELS] = {"-", "spsc", "mpsc", "spmc", "mpmc", "broadcast"};

static const char *wait_name(uint32_t wait) {
        switch (wait) {
        case BENCH_WAIT_BLOCK:
                return "block";
        case BENCH_WAIT_HYBRID:
                return "hybrid";
        case BENCH_WAIT_YIELD:
                return "yield";
        default:
                return "spin";
        }
}

/* "1.52 (1.41-1.60)" */
static void format_spread(struct stats_summary s, char *ret, size_t size) {
        if (s.n == 0)
                snprintf(ret, size, "-");
        else
                snprintf(ret, size, "%.2f (%.2f-%.2f)", s.median, s.p10, s.p90);
}

void report_modes_heading(FILE *f) {
        fprintf(f, "  %-16s %-9s %-5s %-9s %-6s %8s %9s %17s %4s %18s %18s %18s %5s  %s\n", "impl", "channel", "shape",
                "between", "calls", "prefetch", "M msg/s", "p10-p90", "n", "/single peer", "/bulk peer",
                "/spsc or /2x2", "ring", "waits, obtained");
}

void report_modes_row(const struct table *t, const struct row *row, const struct figures *g, FILE *f) {
        char shape[16], prefetch[16], median[32], p10[32], p90[32], spread[72], single[40], bulk[40], own[40], ring[32];

        snprintf(shape, sizeof(shape), "%ux%u", row->spec.producers, row->spec.consumers);
        snprintf(prefetch, sizeof(prefetch), row->spec.prefetch ? "%u" : "-", row->spec.prefetch);
        fprintf(f, "  %-16s %-9s %-5s %-9s %-6s %8s ", row->label, channel_names[row->spec.channel], shape,
                report_mode_name(row), report_calls_name(row), prefetch);
        if (row->refused[0]) {
                fprintf(f, "not measured: %s\n", row->refused);
                return;
        }
        report_format_value(t, g->value.median, median, sizeof(median));
        report_format_value(t, g->value.p10, p10, sizeof(p10));
        report_format_value(t, g->value.p90, p90, sizeof(p90));
        snprintf(spread, sizeof(spread), "%s-%s", p10, p90);
        format_spread(g->to_single_peer, single, sizeof(single));
        format_spread(g->to_bulk_peer, bulk, sizeof(bulk));
        format_spread(g->to_spsc.n ? g->to_spsc : g->to_2x2, own, sizeof(own));
        report_format_bytes(row->ring_bytes, ring, sizeof(ring));
        fprintf(f, "%9s %17s %4zu %18s %18s %18s %5s  %s", median, spread, g->value.n, single, bulk, own, ring,
                wait_name(row->wait));
        if (!row->is_psyne)
                fprintf(f, " after %u pause%s", row->pauses, row->pauses == 1 ? "" : "s");
        fprintf(f, ", %s", row->obtained);
        if (g->to_against.n)
                fprintf(f, "; %.3f of --against", g->to_against.median);
        if (row->damaged)
                fprintf(f, "; LOST OR DAMAGED %llu", (unsigned long long)row->damaged);
        fputc('\n', f);
}

static void json_ratio(FILE *f, const char *name, struct stats_summary s) {
        char key[48];

        snprintf(key, sizeof(key), "ratio_to_%s", name);
        report_json_key_number(f, key, s.median);
        snprintf(key, sizeof(key), "ratio_to_%s_p10", name);
        report_json_key_number(f, key, s.n ? s.p10 : NAN);
        snprintf(key, sizeof(key), "ratio_to_%s_p90", name);
        report_json_key_number(f, key, s.n ? s.p90 : NAN);
}

void report_modes_json(const struct table *t, const struct row *row, const struct figures *g, FILE *f) {
        char shape[16], table[16];

        snprintf(shape, sizeof(shape), "%ux%u", row->spec.producers, row->spec.consumers);
        snprintf(table, sizeof(table), "%ux%u", t->spec.producers, t->spec.consumers);
        report_json_key_string(f, "table", table);
        report_json_key_string(f, "channel", channel_names[row->spec.channel]);
        report_json_key_string(f, "shape", shape);
        fprintf(f, "\"prefetch\": %u, ", row->spec.prefetch);
        report_json_key_string(f, "pinned", row->spec.cpu[0] >= 0 ? "yes" : "no");
        report_json_key_string(f, "wait", wait_name(row->wait));
        fprintf(f, "\"pauses\": %u, ", row->pauses);
        json_ratio(f, "best_bulk_peer", g->to_bulk_peer);
        json_ratio(f, "spsc", g->to_spsc);
        json_ratio(f, "2x2", g->to_2x2);
        if (g->best_single_peer)
                report_json_key_string(f, "best_single_peer", g->best_single_peer);
        if (g->best_bulk_peer)
                report_json_key_string(f, "best_bulk_peer", g->best_bulk_peer);
}
