/*
 * No call is a cancellation point: a thread that somebody has cancelled comes through every one of them, and ends where its
 * own code says so. Each case has its threads cancel themselves first, and then open, talk, wait and close.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <psyne/stat.h>

#include "support/require.h"
#include "support/world.h"

#define N 2000

struct side {
        const char *uri; /* %u: the port of the other side */
        int (*run)(struct side *me);
        bool sends, in_set;
        const char *at;       /* the call it is in */
        bool through;
        int r;
};
static uint32_t port;
static char dir[] = "/dev/shm/psyne-test-cancelled-XXXXXX";

#define CALL(c) (me->at = #c, (c))
#define MUST_CALL(c) REQUIRE(CALL(c) == 0)

/* Something to read, by whichever way. */
static int await(struct side *me, struct psyne_waitset *set) {
        struct psyne_event e[2];
        int r;

        do
                r = CALL(psyne_waitset_wait(set, e, 2, WATCHDOG_NS));
        while (r == 0 || (r == 1 && e[0].what == PSYNE_EVENT_TIMER));
        REQUIRE(r >= 1);
        return 0;
}

static int receive(struct side *me, struct psyne_channel *ch) {
        struct psyne_waitset *set = NULL;
        struct psyne_consumer *c;
        struct psyne_msg m;
        int fd = -1, r;

        MUST_CALL(psyne_consumer_open(ch, NULL, &c));
        MUST_CALL(psyne_wait_peers(ch, 1, 0, WATCHDOG_NS));
        if (me->in_set) {
                MUST_CALL(psyne_waitset_new(&set));
                fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
                MUST_CALL(psyne_waitset_add(set, psyne_consumer_endpoint(c), c));
                MUST_CALL(psyne_waitset_add_fd(set, fd, 1, &fd));
                MUST_CALL(psyne_waitset_add_timer(set, MSEC, MSEC, &set));
        }
        for (uint32_t n = 0; n < N; n++) {
                do {
                        if (set && await(me, set))
                                return 1;
                        r = CALL(psyne_recv(c, &m, set ? PSYNE_NOWAIT : WATCHDOG_NS));
                } while (set && r == -EAGAIN);
                REQUIRE(r == 0 && m.type == n);
                MUST_CALL(psyne_release(c, &m));
        }
        do {
                if (set && await(me, set))
                        return 1;
                r = CALL(psyne_recv(c, &m, set ? PSYNE_NOWAIT : WATCHDOG_NS));
        } while (set && r == -EAGAIN);
        REQUIRE(r == -EPIPE); /* it closes a lane */
        if (set) {
                REQUIRE(CALL(psyne_waitset_remove(set, &set)) == 1);
                (void)CALL(psyne_waitset_wake(set));
                (void)CALL(psyne_waitset_free(set));
        } else if (CALL(psyne_arm(psyne_consumer_endpoint(c))) >= 0) {
                REQUIRE(CALL(psyne_fd(psyne_consumer_endpoint(c))) >= 0);
                MUST_CALL(psyne_disarm(psyne_consumer_endpoint(c)));
        }
        MUST_CALL(psyne_consumer_close(c));
        return 0;
}

static int send_all(struct side *me, struct psyne_channel *ch) {
        struct psyne_producer *p;
        struct psyne_msg m;

        MUST_CALL(psyne_producer_open(ch, NULL, &p));
        MUST_CALL(psyne_wait_peers(ch, 0, 1, WATCHDOG_NS));
        for (uint32_t n = 0; n < N; n++) {
                MUST_CALL(psyne_claim(p, 100, WATCHDOG_NS, &m));
                m.type = n;
                MUST_CALL(psyne_commit(p, &m));
        }
        MUST_CALL(psyne_flush(p, WATCHDOG_NS));
        REQUIRE(CALL(psyne_producer_close(p)) == 0);
        return 0;
}

static int talk(struct side *me) {
        struct psyne_info info = {.struct_size = sizeof(info)};
        struct psyne_metrics metrics = {.struct_size = sizeof(metrics)};
        struct psyne_link_info link = {.struct_size = sizeof(link)};
        struct psyne_channel *ch;
        char uri[256];
        int64_t until = now_ns() + WATCHDOG_NS;

        while (strstr(me->uri, "%u") && !__atomic_load_n(&port, __ATOMIC_ACQUIRE))
                REQUIRE(now_ns() < until);
        snprintf(uri, sizeof(uri), me->uri, __atomic_load_n(&port, __ATOMIC_ACQUIRE));
        MUST_CALL(psyne_open(uri, NULL, &ch));
        if (!me->sends)
                __atomic_store_n(&port, (uint32_t)CALL(psyne_port(ch)), __ATOMIC_RELEASE);
        if (strstr(uri, "nothread"))
                (void)CALL(psyne_poll(ch, MSEC));
        MUST_CALL(psyne_info(ch, &info));
        MUST_CALL(psyne_metrics(ch, &metrics));
        REQUIRE(CALL(psyne_links(ch, &link, 1)) >= 0);
        REQUIRE((me->sends ? send_all : receive)(me, ch) == 0);
        if (!me->sends)
                (void)CALL(psyne_stop(ch, PSYNE_ABORT));
        (void)CALL(psyne_close(ch));
        return 0;
}

static int pass_on(void *ctx, struct psyne_msg *m) {
        (void)ctx, (void)m;
        return 0;
}

static int pipeline(struct side *me) {
        struct psyne_pipeline *p;
        struct psyne_msg m;

        MUST_CALL(psyne_pipeline_new(me->uri, NULL, &p));
        MUST_CALL(psyne_pipeline_stage(p, pass_on, NULL, NULL));
        MUST_CALL(psyne_pipeline_start(p));
        MUST_CALL(psyne_send(psyne_pipeline_input(p), 7, "x", 1, WATCHDOG_NS));
        MUST_CALL(psyne_recv(psyne_pipeline_output(p), &m, WATCHDOG_NS));
        MUST_CALL(psyne_release(psyne_pipeline_output(p), &m));
        MUST_CALL(psyne_pipeline_stop(p, PSYNE_DRAIN));
        REQUIRE(CALL(psyne_pipeline_free(p)) == NULL);
        return 0;
}

static int count_link(void *ctx, const struct psyne_stat_link *l) {
        (void)l;
        ++*(unsigned *)ctx;
        return 0;
}

static int links(struct side *me) {
        struct psyne_channel *ch, *there;
        struct psyne_link *l;
        unsigned n = 0;
        char uri[96];

        MUST_CALL(psyne_open("tcp://:0/there", NULL, &there));
        MUST_CALL(psyne_open(me->uri, NULL, &ch));
        snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%d/there", psyne_port(there));
        MUST_CALL(psyne_link_open(ch, uri, &l));
        REQUIRE(CALL(psyne_stat_links(count_link, &n)) == 0 && n > 0);
        REQUIRE(CALL(psyne_link_close(l)) == NULL);
        (void)CALL(psyne_close(ch));
        (void)CALL(psyne_close(there));
        return 0;
}

static int look(struct side *me) {
        struct psyne_channel *ch;
        struct psyne_stat_dir *d;
        struct psyne_stat *st;
        const char *file;
        unsigned n = 0;
        int r;

        MUST_CALL(psyne_open(me->uri, NULL, &ch));
        MUST_CALL(psyne_stat_open_dir(dir, &d));
        while ((r = CALL(psyne_stat_next(d, &file))) > 0) {
                MUST_CALL(psyne_stat_read(d, file, &st));
                REQUIRE(CALL(psyne_stat_free(st)) == NULL);
                n++;
        }
        REQUIRE(r == 0 && n == 1);
        REQUIRE(CALL(psyne_stat_close_dir(d)) == NULL);
        (void)CALL(psyne_close(ch));
        return 0;
}

static void *cancelled(void *arg) {
        struct side *me = arg;

        (void)pthread_cancel(pthread_self());
        me->r = me->run(me);
        me->through = true;
        pthread_testcancel();
        return NULL;
}

static int run(const char *name, struct side sides[2]) {
        pthread_t threads[2];
        unsigned n = sides[1].run ? 2 : 1;
        void *end;
        int r = 0;

        for (unsigned i = 0; i < n; i++)
                REQUIRE(pthread_create(&threads[i], NULL, cancelled, &sides[i]) == 0);
        for (unsigned i = 0; i < n; i++) {
                REQUIRE(pthread_join(threads[i], &end) == 0);
                if (!sides[i].through)
                        printf("FAIL: %s ended in %s\n", name, sides[i].at);
                r |= !sides[i].through || sides[i].r || end != PTHREAD_CANCELED;
        }
        return r;
}

static int two(const char *name, const char *to, const char *from, bool in_set) {
        struct side sides[2] = {{.uri = to, .run = talk, .in_set = in_set}, {.uri = from, .run = talk, .sends = true}};

        return run(name, sides);
}

static int one(const char *name, const char *uri, int (*fn)(struct side *me)) {
        struct side sides[2] = {{.uri = uri, .run = fn}};

        return run(name, sides);
}

#define TWO(name, to, from, in_set) {name, to, from, in_set, NULL}
#define ONE(name, uri, fn) {name, uri, NULL, false, fn}
static const struct {
        const char *name, *to, *from;
        bool in_set;
        int (*fn)(struct side *me);
} cases[] = {
        TWO("memory", "memory://a?size=4K&wait=block", "memory://a?size=4K&wait=block", false),
        TWO("ipc", "ipc://b?size=4K&wait=block", "ipc://b?size=4K&wait=block", false),
        TWO("ipc, eventfd", "ipc://c?size=4K&wait=block&engine=eventfd", "ipc://c?size=4K&wait=block&engine=eventfd", false),
        TWO("ipc, futex, in a set", "ipc://d?size=4K&engine=futex", "ipc://d?size=4K&engine=futex", true),
        TWO("ipc, eventfd, in a set", "ipc://e?size=4K&engine=eventfd", "ipc://e?size=4K&engine=eventfd", true),
        TWO("memory, in a set", "memory://f?size=4K", "memory://f?size=4K", true),
        TWO("tcp", "tcp://:0/g?size=64K&wait=block", "tcp://127.0.0.1:%u/g?size=64K&wait=block", false),
        TWO("tcp, inline", "tcp://:0/h?size=64K&inline=1", "tcp://127.0.0.1:%u/h?size=64K&inline=1", false),
        TWO("tcp, inline, spinning", "tcp://:0/i?size=64K&inline=1&wait=spin", "tcp://127.0.0.1:%u/i?size=64K&inline=1", false),
        TWO("tcp, in a set", "tcp://:0/j?size=64K", "tcp://127.0.0.1:%u/j?size=64K", true),
        TWO("memory, nothread", "memory://k?size=4K&nothread=1", "memory://k?size=4K&nothread=1", false),
        ONE("pipeline", "memory://l", pipeline),
        ONE("links", "ipc://m", links),
        ONE("look", "ipc://n", look),
};

/* A case has a process of its own: who ends within a call may have left a lock. */
int main(int argc, char **argv) {
        const char *only = argc > 1 ? argv[1] : NULL;
        int failed = 0;

        if (!mkdtemp(dir) || setenv("PSYNE_DIR", dir, 1))
                return 1;
        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                pid_t pid;
                int r;

                if (only && strcmp(only, cases[i].name) != 0)
                        continue;
                fflush(NULL);
                pid = fork();
                if (pid == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        r = cases[i].fn ? one(cases[i].name, cases[i].to, cases[i].fn)
                                        : two(cases[i].name, cases[i].to, cases[i].from, cases[i].in_set);
                        fflush(stdout);
                        _exit(r != 0);
                }
                r = child_wait(pid, 2 * WATCHDOG_NS);
                printf("%-24s %s\n", cases[i].name, r ? "FAIL" : "PASS");
                failed |= r;
        }
        if (rmdir(dir) < 0)
                failed = 1;
        printf("%s\n", failed ? "FAIL" : "PASS");
        return failed != 0;
}
