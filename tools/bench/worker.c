/*
 * worker.c: the worker's half of the protocol in control.h: map what the driver handed over, pin, sleep until it is our
 * turn, do the order, say so. Linked into psyne-bench and into every adapter.
 */
#include "bench/worker.h"
#include "bench/futex.h"
#include "bench/payload.h"
#include "bench/tick.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define HUGE_BYTES (2u << 20)
#define SAMPLES_MAX (1u << 17) /* round trips of one slice: 10 ms at 80 ns */
#define STUCK_SECONDS 15u      /* longer than the driver's patience: for when it cannot run, as under SCHED_FIFO */
#define ABSENT_PART 50         /* 1/50 of a slice: so long it may be off its CPU */
#define MEET_SPINS 2000u       /* then give way: on one CPU the other side needs it */

struct worker {
        struct bench_control *control;
        struct bench_slot *slot;
        struct bench_arena arena;
        const struct bench_impl *impl;
        int n_sides; /* threads of this process: 1, or 2 for side "ab" */
        pthread_barrier_t template_barrier;
        cpu_set_t cpus; /* inherited */
};

struct worker_side {
        struct worker *worker;
        int side;
};

/* How often the scheduler has taken the CPU from this thread to give it to somebody else. */
static long preemptions(void) {
        struct rusage u;

        return getrusage(RUSAGE_THREAD, &u) == 0 ? u.ru_nivcsw : 0;
}

static int64_t clock_ns(clockid_t clock) {
        struct timespec t;

        clock_gettime(clock, &t);
        return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* How much of this thread's life it was not on a CPU. */
static int64_t absence_ns(void) {
        return clock_ns(CLOCK_MONOTONIC) - clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* From here on what the scheduler does counts against the slice. */
static void presence_begin(struct bench_side *s) {
        s->preemptions = preemptions();
        s->absence_ns = absence_ns();
}

/* The kernel's own threads take a CPU every few milliseconds, for microseconds: that is no company. */
static uint32_t presence_end(const struct bench_side *s) {
        const int64_t lost = absence_ns() - s->absence_ns;

        return lost * ABSENT_PART > (int64_t)s->spec->slice_ns ? (uint32_t)(preemptions() - s->preemptions) : 0;
}

void bench_meet(struct bench_side *s) {
        const uint32_t all = 2 * ++s->meetings;

        __atomic_add_fetch(&s->slot->arrived, 1, __ATOMIC_ACQ_REL);
        for (unsigned i = 0; (int32_t)(__atomic_load_n(&s->slot->arrived, __ATOMIC_ACQUIRE) - all) < 0; i++) {
                if (i < MEET_SPINS)
                        tick_pause();
                else
                        sched_yield();
        }
        presence_begin(s); /* the driver going to sleep on this CPU is none of the slice's */
}

int bench_refuse(struct bench_side *s, int error, const char *format, ...) {
        va_list args;

        va_start(args, format);
        vsnprintf(s->answer->text, sizeof(s->answer->text), format, args);
        va_end(args);
        s->answer->error = error;
        return error;
}

static int sample_compare(const void *a, const void *b) {
        const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return (x > y) - (x < y);
}

void bench_answer_samples(struct bench_side *s, size_t n, unsigned group) {
        const double per_ns = s->ticks_per_ns * group;

        s->answer->n = n * group;
        s->answer->value = s->answer->p90 = 0;
        if (n == 0)
                return; /* off the CPU for the whole slice */
        qsort(s->samples, n, sizeof(*s->samples), sample_compare);
        s->answer->value = s->samples[(n - 1) / 2] / per_ns; /* nearest rank */
        s->answer->p90 = s->samples[(n * 9 + 9) / 10 - 1] / per_ns;
}

void *bench_arena_ring(struct bench_side *s, struct bench_arena *arena, int direction) {
        const size_t half = arena->size / 2;
        unsigned char *p = arena->base + (size_t)direction * half;

        if (madvise(p, half, MADV_POPULATE_WRITE) < 0) {
                bench_refuse(s, -errno, "no memory for a ring of up to %zu bytes: %s", half, strerror(errno));
                return NULL;
        }
        /* Each process collapses for itself: the page is shared, the page table entry is not. */
        arena->pages = madvise(p, half, MADV_COLLAPSE) == 0 ? "2M pages" : "4K pages";
        if (s->side == BENCH_SIDE_A)
                memset(p, 0, half);
        snprintf(s->answer->obtained, sizeof(s->answer->obtained), "%s", arena->pages);
        return p;
}

/* Maps the arena on a 2 MiB boundary; memory is taken when a ring is asked for. */
static int arena_map(struct bench_arena *arena, int fd) {
        const size_t size = BENCH_ARENA_BYTES;
        unsigned char *p, *aligned;

        p = mmap(NULL, size + HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
                return -errno;
        aligned = (unsigned char *)(((uintptr_t)p + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
        if (mmap(aligned, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
                return -errno;
        arena->base = aligned;
        arena->size = size;
        return 0;
}

void bench_pin(struct bench_side *s, bool pinned) {
        const int cpu = s->spec->cpu[s->side];
        cpu_set_t set;

        CPU_ZERO(&set);
        if (pinned && cpu >= 0)
                CPU_SET((size_t)cpu, &set);
        else
                set = *(const cpu_set_t *)s->cpus;
        sched_setaffinity(0, sizeof(set), &set); /* not refused: the driver chose from the mask that it passed on */
}

/* The template is one per process: the thread that is alone or side A makes it. */
static int side_prepare(struct worker *w, struct bench_side *s) {
        int r = 0;

        if (w->n_sides == 1 || s->side == BENCH_SIDE_A)
                r = payload_prepare(s->spec->size);
        if (w->n_sides > 1)
                pthread_barrier_wait(&w->template_barrier);
        if (r < 0)
                return bench_refuse(s, r, "no memory for a message of %llu bytes", (unsigned long long)s->spec->size);
        return 0;
}

/* A attaches first; B only if A could. Both report; whoever succeeded is detached again if the other failed. */
static void side_attach(struct worker *w, struct bench_side *s, void **ctx) {
        struct bench_answer *other = &s->slot->answer[!s->side];
        int r;

        bench_pin(s, true);
        r = side_prepare(w, s);
        if (s->side == BENCH_SIDE_A) {
                if (r == 0)
                        r = w->impl->attach(s, &w->arena, ctx);
                bench_meet(s);
                bench_meet(s);
        } else {
                bench_meet(s);
                if (r == 0 && other->error == 0)
                        r = w->impl->attach(s, &w->arena, ctx);
                bench_meet(s);
        }
        if (r < 0 && s->answer->error == 0)
                bench_refuse(s, r, "%s", strerror(-r));
        bench_meet(s);
        if (r == 0 && other->error != 0 && *ctx) {
                w->impl->detach(*ctx, s);
                *ctx = NULL;
        }
}

static void *side_main(void *arg) {
        const struct worker_side *ws = arg;
        struct worker *w = ws->worker;
        struct bench_slot *slot = w->slot;
        struct bench_side s = {
                .spec = &slot->spec,
                .slot = slot,
                .answer = &slot->answer[ws->side],
                .ticks_per_ns = w->control->ticks_per_ns,
                .side = ws->side,
                .cpus = &w->cpus,
                .samples_max = SAMPLES_MAX,
        };
        void *ctx = NULL;
        uint32_t turn = 0;

        s.samples = malloc(SAMPLES_MAX * sizeof(*s.samples));
        if (!s.samples)
                return NULL; /* the driver's deadline will say so */
        memset(s.samples, 0, SAMPLES_MAX * sizeof(*s.samples));

        for (;;) {
                /* Never spinning here: some other implementation has the CPUs now. */
                while (__atomic_load_n(&slot->turn, __ATOMIC_ACQUIRE) == turn)
                        futex_wait(&slot->turn, turn, -1);
                turn++;
                /* Waking us may have put the driver off its CPU: let it go to sleep now rather than amid the slice. */
                sched_yield();
                /* A side that waits for a lost message spins for ever, and at a real-time priority nothing else gets to
                 * run, the driver and its deadline included. The kernel's timer does. */
                alarm(STUCK_SECONDS);

                memset(s.answer, 0, sizeof(*s.answer));
                switch (slot->spec.order) {
                case BENCH_ATTACH:
                        side_attach(w, &s, &ctx);
                        break;
                case BENCH_RUN:
                        presence_begin(&s);
                        if (ctx)
                                w->impl->run(ctx, &s);
                        else
                                bench_refuse(&s, -ENOTCONN, "not attached");
                        s.answer->preempted = presence_end(&s);
                        break;
                case BENCH_DETACH:
                        if (ctx)
                                w->impl->detach(ctx, &s);
                        ctx = NULL;
                        break;
                default:
                        bench_refuse(&s, -EINVAL, "no such order");
                        break;
                }
                if (w->n_sides == 1)
                        alarm(0);
                if (__atomic_add_fetch(&slot->done, 1, __ATOMIC_ACQ_REL) == 2) {
                        alarm(0); /* of both threads, where it is one process */
                        futex_wake(&slot->done, 1);
                }
        }
}

static void impl_describe(const struct bench_impl *i) {
        /* One line: words first, then masks as in control.h. The driver reads it with sscanf. */
        printf("%s %s %s %u %u %u %u %u %u %u\n", i->name, i->package, i->version, BENCH_PROTOCOL, i->what, i->calls,
                i->modes, i->waits, i->over, i->has_pauses);
}

static int worker_run(char **argv, const struct bench_impl *impl) {
        const int control_fd = atoi(argv[3]), arena_fd = atoi(argv[4]), slot = atoi(argv[5]);
        const char *sides = argv[6];
        struct worker w = {.impl = impl, .n_sides = (int)strlen(sides)};
        struct worker_side ws[2];
        pthread_t thread;
        int r;

        w.control = mmap(NULL, sizeof(*w.control), PROT_READ | PROT_WRITE, MAP_SHARED, control_fd, 0);
        if (w.control == MAP_FAILED || w.control->magic != BENCH_MAGIC || w.control->protocol != BENCH_PROTOCOL ||
                w.control->size_bytes != sizeof(*w.control) || slot < 0 || slot >= (int)BENCH_SLOTS_MAX) {
                fprintf(stderr, "%s: was built for another psyne-bench\n", argv[0]);
                return EXIT_FAILURE;
        }
        w.slot = &w.control->slot[slot];
        CPU_ZERO(&w.cpus);
        sched_getaffinity(0, sizeof(w.cpus), &w.cpus);
        r = arena_map(&w.arena, arena_fd);
        if (r < 0) {
                fprintf(stderr, "%s: cannot map the arena: %s\n", argv[0], strerror(-r));
                return EXIT_FAILURE;
        }

        for (int i = 0; i < w.n_sides && i < 2; i++)
                ws[i] = (struct worker_side){.worker = &w, .side = sides[i] == 'a' ? BENCH_SIDE_A : BENCH_SIDE_B};
        if (w.n_sides == 1) {
                side_main(&ws[0]);
                return EXIT_SUCCESS;
        }
        pthread_barrier_init(&w.template_barrier, NULL, 2);
        r = pthread_create(&thread, NULL, side_main, &ws[1]);
        if (r != 0) {
                fprintf(stderr, "%s: cannot start a thread: %s\n", argv[0], strerror(r));
                return EXIT_FAILURE;
        }
        side_main(&ws[0]);
        pthread_join(thread, NULL);
        return EXIT_SUCCESS;
}

int bench_worker_main(int argc, char **argv, const struct bench_impl *const *impls, size_t n_impls, int *ret) {
        if (argc == 2 && !strcmp(argv[1], "--bench-describe")) {
                for (size_t i = 0; i < n_impls; i++)
                        impl_describe(impls[i]);
                *ret = EXIT_SUCCESS;
                return 1;
        }
        if (argc != 7 || strcmp(argv[1], "--bench-worker") != 0)
                return 0;

        /* The driver asked the kernel to end us with it before it started us; here only for a driver already gone. */
        *ret = EXIT_FAILURE;
        for (size_t i = 0; i < n_impls; i++)
                if (!strcmp(impls[i]->name, argv[2]))
                        *ret = worker_run(argv, impls[i]);
        return 1;
}
