/*
 * What does a round trip through park cost, against the same thing written by hand? Two processes take turns: move the
 * other's word, wake it, sleep until one's own has moved. First on two CPUs, then on one.
 *
 * The contestants, and how they differ:
 *   futex2     futex(2) without a deadline, nothing else
 *   bare       io_uring by raw system calls: SINGLE_ISSUER, DEFER_TASKRUN, registered ring, one enter per step, no
 *              deadline, no error handling, no cancellation
 *   park       park_wait() and park_wake() on io_uring, no deadline
 *   park30s    the same with a deadline 30 s away: a clock is read and a timer armed and disarmed per sleep
 *   parkfutex  park on futex(2)
 *
 * A machine's speed drifts, so they run in slices of a few ms, in turn, starting with another one each time. Prints
 * ns per round trip, and ratios as the median over the slices of (slice of one) / (slice of the other beside it).
 */
#include <errno.h>
#include <linux/futex.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "uring/compat.h"
#include "uring/park.h"

#define SLICES 400      /* per contestant; short ones first show up as ratios that move by more than 1 % */
#define SLICE_TRIPS 250 /* 1 to 4 ms */

enum contestant { FUTEX2, BARE, PARK, PARK30S, PARKFUTEX, N_CONTESTANTS };
static const char *const names[] = {"futex2", "bare", "park", "park30s", "parkfutex"};

static void check(bool good, const char *what) {
        if (!good) {
                perror(what);
                exit(1);
        }
}

/* ---- the hand-written io_uring loop ------------------------------------------------------------------------------ */

static struct {
        int fd;
        unsigned *sq_tail, *cq_head, *cq_tail, sq_mask, cq_mask;
        struct io_uring_sqe *sqes;
        struct io_uring_cqe *cqes;
} bare;

static void bare_init(void) {
        struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
        struct io_uring_rsrc_update update = {.offset = UINT32_MAX};
        unsigned *array;
        char *ring;
        int fd;

        fd = (int)syscall(SYS_io_uring_setup, 8, &p);
        check(fd >= 0, "io_uring_setup");
        ring = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe) + p.sq_entries * sizeof(unsigned),
                PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQ_RING);
        bare.sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
        check(ring != MAP_FAILED && bare.sqes != MAP_FAILED, "mmap");
        bare.sq_tail = (unsigned *)(ring + p.sq_off.tail);
        bare.sq_mask = p.sq_entries - 1;
        bare.cq_head = (unsigned *)(ring + p.cq_off.head);
        bare.cq_tail = (unsigned *)(ring + p.cq_off.tail);
        bare.cq_mask = p.cq_entries - 1;
        bare.cqes = (struct io_uring_cqe *)(ring + p.cq_off.cqes);
        array = (unsigned *)(ring + p.sq_off.array);
        for (unsigned i = 0; i < p.sq_entries; ++i)
                array[i] = i;
        update.data = (unsigned)fd;
        check(syscall(SYS_io_uring_register, fd, IORING_REGISTER_RING_FDS, &update, 1) == 1, "register ring");
        bare.fd = (int)update.offset;
}

static void bare_step(uint8_t op, uint32_t *word, uint32_t value, unsigned n_wait) {
        unsigned tail = *bare.sq_tail;

        compat_prep_futex(&bare.sqes[tail & bare.sq_mask], op, word, value);
        __atomic_store_n(bare.sq_tail, tail + 1, __ATOMIC_RELEASE);
        syscall(SYS_io_uring_enter, bare.fd, 1, n_wait,
                IORING_ENTER_REGISTERED_RING | (n_wait ? IORING_ENTER_GETEVENTS : 0), NULL, 0);
        __atomic_store_n(bare.cq_head, __atomic_load_n(bare.cq_tail, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
}

/* ---- one turn ---------------------------------------------------------------------------------------------------- */

static inline void sleep_on(enum contestant c, uint32_t *word, uint32_t old) {
        switch (c) {
        case FUTEX2:
                syscall(SYS_futex, word, FUTEX_WAIT, old, NULL, NULL, 0);
                break;
        case BARE:
                bare_step(COMPAT_OP_FUTEX_WAIT, word, old, 1);
                break;
        case PARK30S:
                park_wait(word, old, clock_deadline_ns(30000000000));
                break;
        default:
                park_wait(word, old, CLOCK_FOREVER);
        }
}

static inline void wake_on(enum contestant c, uint32_t *word) {
        switch (c) {
        case FUTEX2:
                syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
                break;
        case BARE:
                bare_step(COMPAT_OP_FUTEX_WAKE, word, 1, 0);
                break;
        default:
                park_wake(word, 1);
        }
}

static inline void await(enum contestant c, uint32_t *word, uint32_t value) {
        while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value)
                sleep_on(c, word, value - 1);
}

static inline void move(enum contestant c, uint32_t *word, uint32_t value) {
        __atomic_store_n(word, value, __ATOMIC_RELEASE);
        wake_on(c, word);
}

/* Both processes walk through the same schedule, so nothing but the two words is shared. */
static enum contestant on_turn(unsigned slice, unsigned i) {
        return (enum contestant)((slice + i) % N_CONTESTANTS);
}

static void pin(int cpu) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET((size_t)cpu, &set);
        check(sched_setaffinity(0, sizeof(set), &set) == 0, "sched_setaffinity");
}

static void begin(int cpu) {
        pin(cpu);
        bare_init();
        check(park_prepare() == 0, "park_prepare");
}

static void answer(uint32_t *ping, uint32_t *pong) {
        uint32_t n = 0;

        for (unsigned slice = 0; slice < SLICES; ++slice)
                for (unsigned i = 0; i < N_CONTESTANTS; ++i) {
                        enum contestant c = on_turn(slice, i);

                        park_force(c == PARKFUTEX ? PARK_FUTEX : PARK_URING);
                        for (unsigned trip = 0; trip < SLICE_TRIPS; ++trip) {
                                await(c, ping, ++n);
                                move(c, pong, n);
                        }
                }
}

static uint32_t trip_ns[N_CONTESTANTS][SLICES * SLICE_TRIPS];
static double slice_ns[N_CONTESTANTS][SLICES];

static void ask(uint32_t *ping, uint32_t *pong) {
        uint32_t n = 0;

        for (unsigned slice = 0; slice < SLICES; ++slice)
                for (unsigned i = 0; i < N_CONTESTANTS; ++i) {
                        enum contestant c = on_turn(slice, i);
                        int64_t start, last, now = 0;

                        park_force(c == PARKFUTEX ? PARK_FUTEX : PARK_URING);
                        start = last = clock_ns();
                        for (unsigned trip = 0; trip < SLICE_TRIPS; ++trip) {
                                move(c, ping, ++n);
                                await(c, pong, n);
                                now = clock_ns();
                                trip_ns[c][slice * SLICE_TRIPS + trip] = (uint32_t)(now - last);
                                last = now;
                        }
                        slice_ns[c][slice] = (double)(now - start) / SLICE_TRIPS;
                }
}

/* ---- what came out ----------------------------------------------------------------------------------------------- */

static int compare_u32(const void *a, const void *b) {
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return (x > y) - (x < y);
}

static int compare_double(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

static double ratio(enum contestant a, enum contestant b) {
        static double r[SLICES];

        for (unsigned i = 0; i < SLICES; ++i)
                r[i] = slice_ns[a][i] / slice_ns[b][i];
        qsort(r, SLICES, sizeof(*r), compare_double);
        return r[SLICES / 2];
}

static void report(const char *where) {
        const size_t n = SLICES * SLICE_TRIPS;

        printf("\n%s, %zu round trips each, ns\n%-10s %8s %8s %8s %8s %8s\n", where, n, "", "p50", "p90", "p99", "mean",
                "sd");
        for (unsigned c = 0; c < N_CONTESTANTS; ++c) {
                double sum = 0, squares = 0, mean;

                for (size_t i = 0; i < n; ++i)
                        sum += trip_ns[c][i];
                mean = sum / (double)n;
                for (size_t i = 0; i < n; ++i)
                        squares += (trip_ns[c][i] - mean) * (trip_ns[c][i] - mean);
                qsort(trip_ns[c], n, sizeof(**trip_ns), compare_u32);
                printf("%-10s %8u %8u %8u %8.0f %8.0f\n", names[c], trip_ns[c][n / 2], trip_ns[c][n * 9 / 10],
                        trip_ns[c][n * 99 / 100], mean, sqrt(squares / (double)n));
        }
        printf("park/bare %.3f   park/futex2 %.3f   park30s/bare %.3f   park30s/park %.3f   parkfutex/futex2 %.3f   "
               "bare/futex2 %.3f\n",
                ratio(PARK, BARE), ratio(PARK, FUTEX2), ratio(PARK30S, BARE), ratio(PARK30S, PARK),
                ratio(PARKFUTEX, FUTEX2), ratio(BARE, FUTEX2));
}

static void run(const char *where, int cpu_ask, int cpu_answer) {
        uint32_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        pid_t pid, parent = getpid();
        int status;

        check(words != MAP_FAILED, "mmap");
        fflush(stdout);
        pid = fork();
        check(pid >= 0, "fork");
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() != parent)
                        _exit(1);
                park_after_fork_child();
                begin(cpu_answer);
                answer(&words[0], &words[32]);
                _exit(0);
        }
        begin(cpu_ask);
        ask(&words[0], &words[32]);
        check(waitpid(pid, &status, 0) == pid && status == 0, "the other process");
        munmap(words, 4096);
        report(where);
}

int main(void) {
        struct utsname u;
        cpu_set_t set;
        const char *why;
        int cpus[2] = {-1, -1};

        uname(&u);
        if (park_probe(&why, NULL) != PARK_URING) {
                printf("skipped: %s\n", why);
                return 77;
        }
        sched_getaffinity(0, sizeof(set), &set);
        for (int i = 0; i < CPU_SETSIZE && cpus[1] < 0; ++i)
                if (CPU_ISSET((size_t)i, &set))
                        cpus[cpus[0] >= 0] = i;

        printf("%s %s %s, slices of %d round trips, %d per contestant\n", u.sysname, u.release, u.machine, SLICE_TRIPS,
                SLICES);
        if (cpus[1] >= 0)
                run("two CPUs", cpus[0], cpus[1]);
        run("one CPU", cpus[0], cpus[0]);
        return 0;
}
