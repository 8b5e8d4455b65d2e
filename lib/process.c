/*
 * What there is once per process: the registry of channels, the registration for membarrier, and what fork() means.
 *
 * A child that did not exec inherits the maps and descriptors of a conversation that is not its own. It gives up the
 * descriptors (not the locks), puts unreachable pages over the rings, and sets the words that the inline calls read
 * so that each of them takes the long way, where -EOWNERDEAD waits.
 */
#include "lib/internal.h"
#include "lib/service.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct psyne_channel *registry;
static pthread_once_t process_once = PTHREAD_ONCE_INIT;
static int process_error;
static bool have_membarrier;
static unsigned forks;

/* Where it cannot be measured: a guess. */
#define SPIN_DEFAULT_NS 20000
#define SPIN_LEAST_NS 2000
#define SPIN_MOST_NS 50000
static int64_t spin_ns = SPIN_DEFAULT_NS; /* measured once, at the first open */
static unsigned spinners;                 /* atomic */

void process_lock(void) {
        pthread_mutex_lock(&registry_lock);
}

void process_unlock(void) {
        pthread_mutex_unlock(&registry_lock);
}

static void fork_prepare(void) {
        process_lock();
        link_fork_prepare(); /* its thread opens producers and consumers of ipc:// channels with its lock held */
        service_fork_prepare();
        for (struct psyne_channel *ch = registry; ch; ch = ch->next)
                pthread_mutex_lock(&ch->lock);
}

static void fork_parent(void) {
        for (struct psyne_channel *ch = registry; ch; ch = ch->next)
                pthread_mutex_unlock(&ch->lock);
        service_fork_parent();
        link_fork_parent();
        process_unlock();
}

static void fork_child(void) {
        forks++;
        spinners = 0;
        park_after_fork_child();
        for (struct psyne_channel *ch = registry; ch; ch = ch->next) {
                ch->forked = true;
                for (struct psyne_producer *p = ch->producers; p; p = p->next)
                        producer_after_fork_child(p);
                for (struct psyne_consumer *c = ch->consumers; c; c = c->next)
                        consumer_after_fork_child(c);
                membership_forget_lanes(ch, segment_abandon);
                bells_close(ch);
                service_after_fork_child(ch);
                link_after_fork_child(ch);
                if (ch->scheme == URI_IPC) {
                        entry_after_fork_child(&ch->entry);
                        close(ch->dirfd);
                        ch->dirfd = -1;
                }
                pthread_mutex_unlock(&ch->lock);
        }
        link_fork_child();
        service_fork_parent();
        registry = NULL; /* the child may open channels of its own, under any name */
        process_unlock();
}

static void process_init_once(void) {
        int64_t measured;

        process_error = -pthread_atfork(fork_prepare, fork_parent, fork_child);
        /*
         * Before the service thread: with one thread the kernel registers at once, with more it waits for a grace
         * period. Everyone registers, not only producers: whoever looks for sleepers after a store needs it.
         */
        have_membarrier = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
        measured = measure_wake_ns();
        if (measured)
                spin_ns = measured < SPIN_LEAST_NS ? SPIN_LEAST_NS : measured > SPIN_MOST_NS ? SPIN_MOST_NS : measured;
}

int process_init(void) {
        pthread_once(&process_once, process_init_once);
        if (process_error < 0)
                return error_set(process_error, "pthread_atfork: %s", strerror(-process_error));
        return 0;
}

unsigned process_forks(void) {
        return forks;
}

bool process_has_membarrier(void) {
        return have_membarrier;
}

struct psyne_channel *process_find(const char *name) {
        for (struct psyne_channel *ch = registry; ch; ch = ch->next)
                if (ch->scheme == URI_MEMORY && strcmp(ch->name, name) == 0)
                        return ch;
        return NULL;
}

void process_add(struct psyne_channel *ch) {
        ch->next = registry;
        registry = ch;
}

void process_remove(struct psyne_channel *ch) {
        for (struct psyne_channel **at = &registry; *at; at = &(*at)->next)
                if (*at == ch) {
                        *at = ch->next;
                        return;
                }
}

int64_t process_spin_ns(void) {
        unsigned cpus = process_cpus();

        /* One that spins where the one it waits for wants to run keeps it from what it waits for. */
        if (cpus < 2 || __atomic_load_n(&spinners, __ATOMIC_RELAXED) >= cpus)
                return 0;
        return spin_ns;
}

void process_spinning(int change) {
        __atomic_fetch_add(&spinners, (unsigned)change, __ATOMIC_RELAXED); /* a hint, no more */
}

unsigned process_cpus(void) {
        cpu_set_t set;

        if (sched_getaffinity(0, sizeof(set), &set) < 0)
                return 2; /* more CPUs than the set holds: certainly more than one */
        return (unsigned)CPU_COUNT(&set);
}
