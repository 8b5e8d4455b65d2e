/*
 * What a sleep and a wake cost on this machine, for whoever has to decide how long to poll before it sleeps: two threads
 * of our own, on two CPUs, wake each other a few times. On one CPU it would be a tenth, and a scheduler left alone moves
 * them there, so they are pinned. Half a millisecond, once in a process.
 */
#include "lib/internal.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "uring/futex.h"

#define TURNS 5
#define MOST_NS 5000000 /* longer than that says something about the load, not about the machine */

struct table {
        uint32_t turn;         /* atomic, both sleep on it: whose it is */
        int64_t deadline_ns;
        int64_t took[TURNS];   /* there and back, in order of length */
        bool done;             /* all of them */
};

struct seat {
        struct table *table;
        uint32_t side;
        cpu_set_t cpu;
};

static void *play(void *arg) {
        const struct seat *s = arg;
        struct table *t = s->table;

        if (pthread_setaffinity_np(pthread_self(), sizeof(s->cpu), &s->cpu) != 0)
                return NULL; /* the other one gives up at the deadline */
        for (unsigned i = 0; i < TURNS; i++) {
                int64_t began = clock_ns(), took;
                unsigned k = i;

                while (__atomic_load_n(&t->turn, __ATOMIC_ACQUIRE) != s->side) {
                        if (clock_ns() >= t->deadline_ns)
                                return NULL;
                        (void)park_futex_wait(&t->turn, !s->side, t->deadline_ns);
                }
                __atomic_store_n(&t->turn, !s->side, __ATOMIC_RELEASE);
                (void)park_futex_wake(&t->turn, 1);
                if (s->side)
                        continue;
                took = clock_ns() - began;
                for (; k > 0 && t->took[k - 1] > took; k--)
                        t->took[k] = t->took[k - 1];
                t->took[k] = took;
                t->done = i == TURNS - 1;
        }
        return NULL;
}

int64_t measure_wake_ns(void) {
        struct table t = {.deadline_ns = clock_ns() + MOST_NS};
        struct seat seats[2];
        pthread_t threads[2];
        cpu_set_t allowed;
        sigset_t all, old;
        unsigned n = 0, started = 0;

        if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
                return 0;
        for (unsigned cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++)
                if (CPU_ISSET(cpu, &allowed)) {
                        seats[n] = (struct seat){.table = &t, .side = n};
                        CPU_ZERO(&seats[n].cpu);
                        CPU_SET(cpu, &seats[n].cpu);
                        n++;
                }
        if (n < 2)
                return 0;
        sigfillset(&all); /* no signal of the application's may land there */
        pthread_sigmask(SIG_SETMASK, &all, &old);
        while (started < 2 && pthread_create(&threads[started], NULL, play, &seats[started]) == 0)
                started++;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        for (unsigned i = 0; i < started; i++)
                pthread_join(threads[i], NULL);
        return t.done ? t.took[TURNS / 2] / 2 : 0;
}
