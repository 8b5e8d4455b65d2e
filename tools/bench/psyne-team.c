/*
 * psyne-team.c: psyne with many on each side, one channel in the mode that is asked for. A message is written and read
 * in place. Where members share a group, `prefetch` says how many a member takes at a time; a batch call takes up to 32
 * in any case.
 */
#include "bench/psyne-impl.h"
#include "bench/team.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct psyne_team {
        struct team *team;
        struct psyne_channel *channel;
        struct psyne_producer *producers[TEAM_MAX];
        struct psyne_consumer *consumers[TEAM_MAX];
};

static const enum psyne_mode modes[BENCH_CHANNELS] = {
        [BENCH_SPSC] = PSYNE_SPSC,
        [BENCH_MPSC] = PSYNE_MPSC,
        [BENCH_SPMC] = PSYNE_SPMC,
        [BENCH_MPMC] = PSYNE_MPMC,
        [BENCH_BROADCAST] = PSYNE_BROADCAST,
};

static void psyne_team_close(struct psyne_team *p) {
        team_free(p->team);
        for (unsigned i = 0; i < TEAM_MAX; i++) {
                if (p->producers[i])
                        psyne_producer_close(p->producers[i]);
                if (p->consumers[i])
                        psyne_consumer_close(p->consumers[i]);
        }
        if (p->channel)
                psyne_close(p->channel);
        free(p);
}

static int psyne_team_channel(struct bench_side *s, struct psyne_channel **ret) {
        const struct psyne_opts *opts =
                PSYNE_OPTS(.mode = modes[s->spec->channel % BENCH_CHANNELS], .ring_bytes = s->spec->ring_bytes,
                        .record_align = s->spec->align, .max_producers = TEAM_MAX, .max_consumers = TEAM_MAX);
        char uri[96];
        int r;

        snprintf(uri, sizeof(uri), "%s://psyne-bench-%d-%u-%u", s->spec->mode == BENCH_THREADS ? "memory" : "ipc",
                (int)s->spec->driver_pid, s->spec->serial, s->spec->mode);
        /* The service thread that the first open starts is not to be bound to the members' CPU. */
        bench_pin(s, false);
        r = psyne_open(uri, opts, ret);
        bench_pin(s, true);
        return r;
}

static int psyne_team_ends(struct psyne_team *p, struct bench_side *s) {
        const struct psyne_producer_opts producer = {.struct_size = sizeof(producer), .wait = psyne_side_wait(s)};
        const struct psyne_consumer_opts consumer = {
                .struct_size = sizeof(consumer),
                .wait = psyne_side_wait(s),
                .held_max = BENCH_BULK_N,
                .prefetch = s->spec->prefetch,
        };
        int r = 0;

        for (unsigned i = 0; r >= 0 && i < team_size(p->team); i++) {
                if (s->side == BENCH_SIDE_A) {
                        r = psyne_producer_open(p->channel, &producer, &p->producers[i]);
                        team_at(p->team, i)->end = p->producers[i];
                } else {
                        r = psyne_consumer_open(p->channel, &consumer, &p->consumers[i]);
                        team_at(p->team, i)->end = p->consumers[i];
                }
        }
        return r;
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

LOOP_CALL void team_psyne_send(void *end, size_t size, uint64_t id, unsigned n) {
        struct psyne_msg m;
        int r;

        (void)n;
        r = psyne_claim(end, size, PSYNE_FOREVER, &m);
        if (__builtin_expect(r < 0, 0))
                psyne_give_up("psyne_claim", r);
        payload_fill(m.data, size, id);
        r = psyne_commit(end, &m);
        if (__builtin_expect(r < 0, 0))
                psyne_give_up("psyne_commit", r);
}

LOOP_CALL unsigned team_psyne_take(void *end, size_t size, struct team_reader *t, int wait) {
        struct psyne_msg m;
        int r;

        r = psyne_recv(end, &m, wait ? PSYNE_FOREVER : PSYNE_NOWAIT);
        if (!wait && r == -EAGAIN)
                return 0;
        if (__builtin_expect(r < 0 || m.len != size, 0))
                psyne_give_up("psyne_recv", r < 0 ? r : -EBADMSG);
        team_read(t, m.data, size);
        r = psyne_release(end, &m);
        if (__builtin_expect(r < 0, 0))
                psyne_give_up("psyne_release", r);
        return 1;
}

LOOP_CALL void team_psyne_send_n(void *end, size_t size, uint64_t id, unsigned n) {
        struct psyne_msg m[BENCH_BULK_N];
        int got, r;

        while (n) {
                got = psyne_claim_n(end, size, n, PSYNE_FOREVER, m);
                if (__builtin_expect(got <= 0, 0))
                        psyne_give_up("psyne_claim_n", got);
                for (int i = 0; i < got; i++)
                        payload_fill(m[i].data, size, team_nth(id, (unsigned)i));
                r = psyne_commit_n(end, m, (unsigned)got);
                if (__builtin_expect(r < 0, 0))
                        psyne_give_up("psyne_commit_n", r);
                id = team_nth(id, (unsigned)got);
                n -= (unsigned)got;
        }
}

LOOP_CALL unsigned team_psyne_take_n(void *end, size_t size, struct team_reader *t, int wait) {
        struct psyne_msg m[BENCH_BULK_N];
        int got, r;

        got = psyne_recv_n(end, m, BENCH_BULK_N, wait ? PSYNE_FOREVER : PSYNE_NOWAIT);
        if (!wait && got == -EAGAIN)
                return 0;
        if (__builtin_expect(got <= 0, 0))
                psyne_give_up("psyne_recv_n", got);
        for (int i = 0; i < got; i++)
                team_read(t, m[i].data, size);
        r = psyne_release_n(end, m, (unsigned)got);
        if (__builtin_expect(r < 0, 0))
                psyne_give_up("psyne_release_n", r);
        return (unsigned)got;
}

/* The size is a constant where the peers have theirs as one. */
#define MEMBER_RUN(bytes)                                                                                              \
        static __attribute__((noinline)) void member_run_##bytes(struct team_member *m) {                              \
                team_member_run(m, bytes, team_psyne_send, team_psyne_take, team_psyne_send_n, team_psyne_take_n);     \
        }
MEMBER_RUN(8)
MEMBER_RUN(64)
MEMBER_RUN(256)
MEMBER_RUN(1024)

static void member_run(struct team_member *m) {
        team_member_run(m, m->side->spec->size, team_psyne_send, team_psyne_take, team_psyne_send_n, team_psyne_take_n);
}

static void (*member_run_of(uint64_t size))(struct team_member *m) {
        switch (size) {
        case 8:
                return member_run_8;
        case 64:
                return member_run_64;
        case 256:
                return member_run_256;
        case 1024:
                return member_run_1024;
        default:
                return member_run;
        }
}

/* ---- worker ----------------------------------------------------------------------------------------------------- */

int psyne_team_attach(struct bench_side *s, void **ret) {
        struct psyne_team *p;
        int r;

        p = calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        r = team_new(&p->team, s, member_run_of(s->spec->size));
        if (r == 0) {
                r = psyne_team_channel(s, &p->channel);
                if (r >= 0)
                        r = psyne_team_ends(p, s);
                if (r < 0)
                        bench_refuse(s, r, "%s", psyne_last_error());
        }
        if (r < 0) {
                psyne_team_close(p);
                return r;
        }
        psyne_side_obtained((const struct psyne_channel *const[]){p->channel, NULL}, s->answer->obtained,
                sizeof(s->answer->obtained));
        *ret = p;
        return 0;
}

void psyne_team_run(struct psyne_team *p) {
        team_run(p->team);
}

void psyne_team_detach(struct psyne_team *p) {
        psyne_team_close(p);
}
