/*
 * Bad input and bad times: each a fixed error with a sentence, and descriptors, maps and files as many as before.
 * These tests have one thread and count every line of /proc/self/maps.
 */
#include "family.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static void make_dir(void) {
        cr_assert_eq(private_dir(dir, sizeof(dir)), 0);
}
static void drop_dir(void) {
        remove_dir(dir);
}

struct counts {
        unsigned fds, maps, files;
};
static struct counts count_all(void) {
        return (struct counts){count_fds(), under_sanitizer() ? 0 : count_maps(NULL), count_files(dir)};
}

static void open_and_close(const char *uri) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_consumer *c;

        cr_assert_eq(psyne_open(uri, NULL, &ch), 0, "%s: %s", uri, psyne_last_error());
        cr_assert_eq(psyne_producer_open(ch, NULL, &p), 0, "%s", psyne_last_error());
        cr_assert_eq(psyne_consumer_open(ch, NULL, &c), 0, "%s", psyne_last_error());
        psyne_producer_close(p);
        psyne_consumer_close(c);
        psyne_close(ch);
}

/* Until nothing grows any more: rings, stacks and the allocator's own maps stay for good after their first use. */
static struct counts settled(void) {
        mallopt(M_ARENA_MAX, 1);
        for (unsigned i = 0; i < 3; i++) {
                open_and_close("ipc://x?size=4096");
                open_and_close("memory://x?size=4096");
        }
        return count_all();
}

static void expect_counts(const struct counts *before, const char *after_what) {
        struct counts now = count_all();

        if (now.fds != before->fds)
                print_fds();
        if (now.maps != before->maps)
                print_maps();
        cr_expect_eq(now.fds, before->fds, "%s: %u descriptors before, %u after", after_what, before->fds, now.fds);
        cr_expect_eq(now.maps, before->maps, "%s: %u maps before, %u after", after_what, before->maps, now.maps);
        cr_expect_eq(now.files, before->files, "%s: %u files before, %u after", after_what, before->files, now.files);
}

/* ---- addresses --------------------------------------------------------------------------------------------------- */

static const struct address {
        const char *uri;
        int error;
} addresses[] = {
        {"", -EINVAL},
        {"psyne", -EINVAL},
        {"shm://x", -EINVAL},
        {"IPC://x", -EINVAL},
        {"ipc:/x", -EINVAL},
        {"tcp://host/x", -EINVAL},
        {"tcp://127.0.0.1:1:2/x", -EINVAL},
        {"tcp://127.0.0.1:no-such-service/x", -ENOENT},
        {"tcp://192.0.2.1:0/x?role=listen", -EADDRNOTAVAIL}, /* nobody's own */
        {"tcp://127.0.0.1:1/x?role=listen&mode=nonsense", -EINVAL},
        {"ipc://", -EINVAL},
        {"ipc://.hidden", -EINVAL},
        {"ipc://..", -EINVAL},
        {"ipc://a/b", -EINVAL},
        {"ipc://a b", -EINVAL},
        {"ipc://a%2fb", -EINVAL},
        {"ipc://a\nb", -EINVAL},
        {"ipc://a%00", -EINVAL},
        {"ipc://a%", -EINVAL},
        {"ipc://\xc3\xa4", -EINVAL},
        {"ipc://a#b", -EINVAL},
        {"memory://.x", -EINVAL},
        {"ipc://0123456789012345678901234567890123456789012345678901234567890123x", -ENAMETOOLONG},
        {"memory://0123456789012345678901234567890123456789012345678901234567890123x", -ENAMETOOLONG},
        {"ipc:///x", -EINVAL},
        {"ipc:///nowhere/at/all/x", -ENOENT},
        {"ipc:///proc/x", -EXDEV},
        {"ipc:///etc/passwd/x", -ENOTDIR},
        {"ipc://x?", -EINVAL},
        {"ipc://x?size", -EINVAL},
        {"ipc://x?size=", -EINVAL},
        {"ipc://x?=1", -EINVAL},
        {"ipc://x?colour=red", -EINVAL},
        {"ipc://x?SIZE=4096", -EINVAL},
        {"ipc://x?size=4096&size=4096", -EINVAL},
        {"ipc://x?size=4096&", -EINVAL},
        {"ipc://x?size=0", -ERANGE},
        {"ipc://x?size=-1", -EINVAL},
        {"ipc://x?size=1T", -EINVAL},
        {"ipc://x?size=1e6", -EINVAL},
        {"ipc://x?size=99999999999999999999", -ERANGE},
        {"ipc://x?size=1048576G", -ENOMEM}, /* beyond memory */
        {"memory://x?size=1048576G", -ENOMEM},
        {"ipc://x?size=4096&align=4096", -EINVAL}, /* not four records */
        {"ipc://x?align=48", -EINVAL},
        {"ipc://x?align=8", -ERANGE},
        {"ipc://x?align=8192", -ERANGE},
        {"ipc://x?producers=65", -ERANGE},
        {"ipc://x?consumers=65", -ERANGE},
        {"ipc://x?producers=0", -ERANGE},
        {"ipc://x?consumers=0", -ERANGE},
        {"ipc://x?align=0", -ERANGE},
        {"ipc://x?align=15", -ERANGE},
        {"ipc://x?align=4097", -ERANGE},
        {"ipc://x?mode=ring", -EINVAL},
        {"ipc://x?wait=often", -EINVAL},
        {"ipc://x?huge=maybe", -EINVAL},
        {"ipc://x?engine=steam", -EINVAL},
        {"ipc://x?linger=5", -EINVAL}, /* of what? */
        {"ipc://x?linger=5h", -EINVAL},
        {"ipc://x?perm=0777", -ERANGE},
        {"ipc://x?perm=0400", -ERANGE},
        {"ipc://x?perm=0577", -ERANGE},
        {"ipc://x?perm=0667", -ERANGE},
        {"ipc://x?perm=0650", -EINVAL},
        {"ipc://x?perm=rw", -EINVAL},
        {"ipc://x?type=0x", -EINVAL},
        {"ipc://x?type=4294967296", -ERANGE},
        {"ipc://x?nothread=perhaps", -EINVAL},
};

Test(addresses, refused, .init = make_dir, .fini = drop_dir) {
        struct counts before;

        before = settled();
        for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
                struct psyne_channel *ch = (void *)dir;
                const char *uri = addresses[i].uri;
                char stale[256];
                int r;

                psyne_set_wait(NULL, PSYNE_WAIT_DEFAULT);
                snprintf(stale, sizeof(stale), "%s", psyne_last_error());
                r = psyne_open(uri, NULL, &ch);
                cr_expect_eq(r, addresses[i].error, "%s: %d, not %d (%s)", uri, r, addresses[i].error,
                        psyne_last_error());
                if (r >= 0) {
                        psyne_close(ch);
                        continue;
                }
                cr_expect(ch == (void *)dir, "%s: the result was written", uri);
                cr_expect(sentence_is_new(stale), "%s: no sentence", uri);
                cr_expect(!strchr(psyne_last_error(), '\n'), "%s: more than a sentence", uri);
                expect_counts(&before, uri);
        }
}

Test(addresses, accepted, .init = make_dir, .fini = drop_dir) {
        static const char *const good[] = {
                "ipc://x",
                "ipc://A-b_c.9",
                "ipc://0123456789012345678901234567890123456789012345678901234567890123",
                "ipc://x?size=1&align=16", /* rounded up to the smallest */
                "ipc://x?size=5000",
                "ipc://x?size=1M&mode=spsc&wait=spin&type=0xffffffff&elem=1&hash=18446744073709551615&perm=640",
                "ipc://x?linger=10ms&huge=never&numa=never&uring=never&barrier=fence&producers=64&consumers=64",
                "ipc://%78?size=4096",
                "memory://",
                "memory://x?size=64K",
        };
        char uri[256];
        struct counts before;

        before = settled();
        for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
                open_and_close(good[i]);
                expect_counts(&before, good[i]);
        }
        snprintf(uri, sizeof(uri), "ipc://%s/x?size=4096", dir);
        open_and_close(uri);
        expect_counts(&before, uri);
}

Test(options, refused, .init = make_dir, .fini = drop_dir) {
        const size_t size = sizeof(struct psyne_opts);
        const struct {
                struct psyne_opts opts;
                int error;
        } bad[] = {
                {{.struct_size = 0}, -EINVAL},
                {{.struct_size = 1}, -EINVAL},
                {{.struct_size = size + 8}, -EINVAL},
                {{.struct_size = size, .mode = (enum psyne_mode)77}, -EINVAL},
                {{.struct_size = size, .mode = (enum psyne_mode)-1}, -EINVAL},
                {{.struct_size = size, .flags = 4}, -EINVAL},
                {{.struct_size = size, .huge = (enum psyne_try)9}, -EINVAL},
                {{.struct_size = size, .numa = (enum psyne_try)9}, -EINVAL},
                {{.struct_size = size, .uring = (enum psyne_try)9}, -EINVAL},
                {{.struct_size = size, .record_align = 24}, -EINVAL},
                {{.struct_size = size, .record_align = 8}, -ERANGE},
                {{.struct_size = size, .record_align = 8192}, -ERANGE},
                {{.struct_size = size, .max_producers = 65}, -ERANGE},
                {{.struct_size = size, .max_consumers = 65}, -ERANGE},
                {{.struct_size = size, .max_consumers = UINT32_MAX}, -ERANGE},
                {{.struct_size = size, .file_mode = 0777}, -ERANGE},
                {{.struct_size = size, .file_mode = 0200}, -ERANGE},
                {{.struct_size = size, .file_mode = UINT32_MAX}, -ERANGE},
                {{.struct_size = size, .file_mode = 0610}, -EINVAL},
        };
        struct psyne_channel *ch = NULL;
        struct counts before;

        before = settled();
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                int r = psyne_open("ipc://x", &bad[i].opts, &ch);

                cr_expect_eq(r, bad[i].error, "row %zu: %d (%s)", i, r, psyne_last_error());
                if (r == 0)
                        psyne_close(ch);
                expect_counts(&before, "options");
        }
        cr_expect_eq(psyne_open("ipc://x", PSYNE_OPTS(.ring_bytes = SIZE_MAX), &ch), -ENOMEM);
        cr_expect_eq(psyne_open(NULL, NULL, &ch), -EINVAL);
        cr_expect_eq(psyne_open("ipc://x", NULL, NULL), -EINVAL);
        expect_counts(&before, "options");
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

/*
 * In the child every call says -EOWNERDEAD and touches nothing; closing only frees; and the parent goes on. With
 * messages claimed and held at the time, so that the inline paths have something they might do.
 */
static int in_the_child(struct world *w, struct ends *e, struct psyne_msg *claimed, struct psyne_msg *held) {
        struct psyne_metrics metrics = {.struct_size = sizeof(metrics)};
        struct psyne_info info = {.struct_size = sizeof(info)};
        struct psyne_msg m = {0}, many[4] = {{0}};
        struct psyne_producer *p;
        struct psyne_consumer *c;
        char buf[64];

        MUST_REFUSE(psyne_claim(e->p, 8, PSYNE_NOWAIT, &m), -EOWNERDEAD);
        MUST_REFUSE(psyne_claim(e->p, 8, PSYNE_FOREVER, &m), -EOWNERDEAD);
        MUST_REFUSE(psyne_claim_n(e->p, 8, 4, PSYNE_NOWAIT, many), -EOWNERDEAD);
        MUST_REFUSE(psyne_resize(e->p, claimed, 4), -EOWNERDEAD);
        MUST_REFUSE(psyne_commit_n(e->p, claimed, 1), -EOWNERDEAD);
        m = *claimed;
        MUST_REFUSE(psyne_commit(e->p, &m), -EOWNERDEAD);
        m = *claimed;
        MUST_REFUSE(psyne_commit_next(e->p, &m, PSYNE_NOWAIT), -EOWNERDEAD);
        m = *claimed;
        MUST_REFUSE(psyne_abort(e->p, &m), -EOWNERDEAD);
        MUST_REFUSE(psyne_send(e->p, 1, "x", 1, PSYNE_NOWAIT), -EOWNERDEAD);
        MUST_REFUSE(psyne_flush(e->p, PSYNE_NOWAIT), -EOWNERDEAD);
        MUST_REFUSE(psyne_recv(e->c, &m, PSYNE_NOWAIT), -EOWNERDEAD);
        MUST_REFUSE(psyne_recv(e->c, &m, PSYNE_FOREVER), -EOWNERDEAD);
        MUST_REFUSE(psyne_recv_n(e->c, many, 4, PSYNE_NOWAIT), -EOWNERDEAD);
        MUST_REFUSE(psyne_recv_copy(e->c, buf, sizeof(buf), NULL, PSYNE_NOWAIT), -EOWNERDEAD);
        m = *held;
        MUST_REFUSE(psyne_release(e->c, &m), -EOWNERDEAD);
        m = *held;
        MUST_REFUSE(psyne_release_n(e->c, &m, 1), -EOWNERDEAD);
        MUST_REFUSE(psyne_wait_peers(e->ch, 0, 0, PSYNE_NOWAIT), -EOWNERDEAD);
        MUST_REFUSE(psyne_poll(e->ch, PSYNE_NOWAIT), -EOWNERDEAD); /* not that it has a service thread, which is not ours */
        MUST_REFUSE(psyne_info(e->ch, &info), -EOWNERDEAD);
        MUST_REFUSE(psyne_metrics(e->ch, &metrics), -EOWNERDEAD);
        MUST_REFUSE(psyne_producer_open(e->ch, NULL, &p), -EOWNERDEAD);
        MUST_REFUSE(psyne_consumer_open(e->ch, NULL, &c), -EOWNERDEAD);
        MUST_BE(psyne_stop(e->ch, PSYNE_ABORT), -EOWNERDEAD); /* may be called from a handler: no sentence */
        MUST_BE(psyne_is_stopped(e->ch), 0);
        (void)psyne_producer_close(e->p);
        (void)psyne_consumer_close(e->c);
        (void)psyne_close(e->ch);
        /* A channel of its own works, also under the same name. */
        if (w->scheme == SCHEME_MEMORY) {
                struct ends own = {0};

                OPEN_PRODUCER(&own, "size=4096");
                MUST_BE(psyne_consumer_open(own.ch, NULL, &own.c), 0);
                SEND(&own, 3, 30);
                RECEIVE(&own, 3, 30);
                CLOSE(&own);
        } else {
                struct ends own = {0};

                MUST_BE(psyne_open("ipc://of-the-child?size=4096", NULL, &own.ch), 0);
                MUST_BE(psyne_producer_open(own.ch, NULL, &own.p), 0);
                MUST_BE(psyne_consumer_open(own.ch, NULL, &own.c), 0);
                SEND(&own, 3, 30);
                RECEIVE(&own, 3, 30);
                CLOSE(&own);
        }
        return 0;
}

static int forking(struct world *w) {
        struct ends e = {0};
        struct psyne_msg claimed, held;
        pid_t pid;
        int r;

        OPEN_PRODUCER(&e, "size=4096");
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        SEND(&e, 1, 40);
        SEND(&e, 2, 40);
        TAKE(&e, &held, 1, 40);
        MUST_BE(psyne_claim(e.p, 50, PSYNE_NOWAIT, &claimed), 0);
        pattern_fill(claimed.data, 50, 3);
        claimed.type = 3;
        AWAIT(1); /* a sanitizer's allocator does not survive a fork while another thread is in it */
        pid = fork();
        MUST(pid >= 0);
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                alarm(20); /* a call that waits or locks dies of it */
                _exit(in_the_child(w, &e, &claimed, &held) < 0 ? 1 : 0);
        }
        r = child_wait(pid, 20 * SECOND);
        if (r)
                return world_fail(w, __FILE__, __LINE__, "the child ended with %d", r);
        MUST_BE(psyne_is_stopped(e.ch), 0);
        MUST(pattern_is(held.data, 40, 1));
        MUST_BE(psyne_release(e.c, &held), 0);
        MUST_BE(psyne_commit(e.p, &claimed), 0);
        RECEIVE(&e, 2, 40);
        RECEIVE(&e, 3, 50);
        MUST_BE(METRIC(e.ch, peer_deaths), 0);
        world_reach(w, 2);
        AWAIT(3);
        CLOSE(&e);
        return 0;
}
/* Somebody else who is in the channel notices nothing either. */
static int forking_other(struct world *w) {
        struct psyne_info info = {.struct_size = sizeof(info)};
        struct ends e = {0};

        world_reach(w, 1);
        AWAIT(2);
        MUST_BE(world_open(w, NULL, &e.ch), 0);
        MUST_BE(psyne_info(e.ch, &info), 0);
        MUST_BE(info.producers, 1);
        MUST_BE(info.consumers, 1);
        world_reach(w, 3);
        CLOSE(&e);
        return 0;
}
FAMILY(after_fork, forking, forking_other)

/* A child that lives on does not keep its parent's name: the next open finds nobody. */
static int fork_outlives(struct world *w) {
        struct ends e = {0};
        pid_t pid;

        OPEN_PRODUCER(&e, "size=4096");
        pid = fork();
        MUST(pid >= 0);
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        pause();
        }
        CLOSE(&e);
        MUST_BE(count_files(w->dir), 0);
        OPEN_PRODUCER(&e, "size=8192"); /* another size: a new channel */
        CLOSE(&e);
        kill(pid, SIGKILL);
        MUST_BE(child_wait(pid, 10 * SECOND), 128 + SIGKILL);
        return 0;
}
FAMILY(fork_outlives, fork_outlives, NULL)

/* ---- two threads, one handle ------------------------------------------------------------------------------------- */

struct sharing {
        struct ends *e;
        bool sender;
        int result;
};
static void *share_main(void *arg) {
        struct sharing *s = arg;
        struct psyne_msg m;

        s->result = s->sender ? psyne_claim(s->e->p, 48, PSYNE_FOREVER, &m) : psyne_recv(s->e->c, &m, PSYNE_FOREVER);
        return NULL;
}
static int sharing(struct world *w) {
        struct ends e = {0};
        struct sharing s = {.e = &e};
        struct psyne_msg m;
        uint64_t blocks;
        pthread_t t;

        OPEN_PRODUCER(&e, "size=4096&wait=block");
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        /* One thread waits in the consumer, another one wants it as well. */
        MUST_BE(pthread_create(&t, NULL, share_main, &s), 0);
        UNTIL(METRIC(e.ch, receive_blocks) > 0);
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EBUSY);
        MUST_REFUSE(psyne_recv_n(e.c, &m, 1, PSYNE_NOWAIT), -EBUSY);
        MUST_REFUSE(psyne_consumer_close(e.c), -EBUSY);
        SEND(&e, 1, 10);
        MUST_BE(pthread_join(t, NULL), 0);
        MUST_BE(s.result, 0);
        MUST_REFUSE(psyne_recv(e.c, &m, PSYNE_NOWAIT), -EAGAIN); /* free again */
        MUST_BE(psyne_consumer_close(e.c), 0);
        MUST_BE(psyne_consumer_open(e.ch, NULL, &e.c), 0);
        RECEIVE_FLAGGED(&e, 1, 10, PSYNE_MSG_REDELIVERED);
        /* The same for the producer. */
        for (uint32_t i = 0; i < 63; i++)
                SEND(&e, i, 48);
        s.sender = true;
        blocks = METRIC(e.ch, send_blocks);
        MUST_BE(pthread_create(&t, NULL, share_main, &s), 0);
        UNTIL(METRIC(e.ch, send_blocks) > blocks);
        MUST_REFUSE(psyne_claim(e.p, 48, PSYNE_NOWAIT, &m), -EBUSY);
        MUST_REFUSE(psyne_send(e.p, 0, "x", 1, PSYNE_NOWAIT), -EBUSY);
        MUST_REFUSE(psyne_flush(e.p, PSYNE_NOWAIT), -EBUSY);
        MUST_REFUSE(psyne_producer_close(e.p), -EBUSY);
        RECEIVE(&e, 0, 48);
        for (uint32_t i = 1; i < 63; i++)
                RECEIVE(&e, i, 48);
        MUST_BE(pthread_join(t, NULL), 0);
        MUST_BE(s.result, 0);
        CLOSE(&e);
        return 0;
}
FAMILY(two_threads, sharing, NULL)

/* ---- control files ----------------------------------------------------------------------------------------------- */

/* Somebody lives in the channel, and its control file has become something else. The library owns no such life. */
static pid_t keeper;

static void keeper_start(const char *uri) {
        int ready[2];
        char byte;

        cr_assert_eq(pipe2(ready, O_CLOEXEC), 0);
        keeper = fork();
        cr_assert(keeper >= 0);
        if (keeper == 0) {
                struct psyne_channel *ch;

                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (psyne_open(uri, NULL, &ch) < 0)
                        _exit(1);
                if (write(ready[1], "r", 1) != 1)
                        _exit(1);
                kill(getpid(), SIGSTOP); /* touches the spoilt pages no more */
                for (;;)
                        pause();
        }
        close(ready[1]);
        cr_assert_eq(read(ready[0], &byte, 1), 1, "the keeper could not open %s", uri);
        close(ready[0]);
        while (task_state(keeper, keeper) != 'T')
                breathe();
}
static void keeper_kill(void) {
        kill(keeper, SIGKILL);
        cr_assert_eq(child_wait(keeper, 10 * SECOND), 128 + SIGKILL);
}

struct spoil {
        const char *what;
        off_t length;      /* -1: keeps it */
        off_t at;
        unsigned char bytes[8];
        unsigned n;
        int error[2];      /* either */
};
static const struct spoil spoils[] = {
        {"empty", 0, 0, {0}, 0, {-EPROTO, -EBADMSG}},
        {"one byte", 1, 0, {0}, 0, {-EPROTO, -EBADMSG}},
        {"half a header", 2048, 0, {0}, 0, {-EPROTO, -EBADMSG}},
        {"the header alone", 4096, 0, {0}, 0, {-EPROTO, -EBADMSG}},
        {"short by a page", -4096, 0, {0}, 0, {-EPROTO, -EBADMSG}},
        {"no magic", -1, 0, {0}, 8, {-EPROTO, -EBADMSG}},
        {"foreign magic", -1, 0, {'E', 'L', 'F', 1, 2, 3, 4, 5}, 8, {-EPROTO, -EBADMSG}},
        {"other byte order", -1, 0, {0x31, 0x65, 0x6e, 0x79, 0x73, 0x70, 0x5f, 0x5f}, 8, {-EPROTO, -EBADMSG}},
        {"next major version", -1, 8, {2, 0}, 2, {-EPROTO, -EPROTO}},
        {"version 0", -1, 8, {0, 0}, 2, {-EPROTO, -EPROTO}},
        {"unknown feature needed", -1, 24, {0, 0, 0, 0, 0, 0, 0, 0x80}, 8, {-EPROTO, -EBADMSG}},
        {"ring of 3 bytes", -1, 40, {3}, 8, {-EBADMSG, -EPROTO}},
        {"ring of 2^63 bytes", -1, 40, {0, 0, 0, 0, 0, 0, 0, 0x80}, 8, {-EBADMSG, -EPROTO}},
        {"alignment 0", -1, 48, {0}, 4, {-EBADMSG, -EPROTO}},
        {"4 billion producers", -1, 56, {255, 255, 255, 255}, 4, {-EBADMSG, -EPROTO}},
        {"first region at 2^56", -1, 512, {0, 0, 0, 0, 0, 0, 0, 1}, 8, {-EBADMSG, -EPROTO}},
        {"first region of 4 billion", -1, 520, {255, 255, 255, 255}, 4, {-EBADMSG, -EPROTO}},
        {"second region misplaced", -1, 528, {1}, 8, {-EBADMSG, -EPROTO}},
};

Test(control_file, spoilt, .init = make_dir, .fini = drop_dir, .timeout = 120) {
        struct counts before;
        char path[128];

        snprintf(path, sizeof(path), "%s/x.psy", dir);
        (void)settled();
        for (size_t i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++) {
                const struct spoil *s = &spoils[i];
                struct psyne_channel *ch = NULL;
                struct stat st;
                int fd, r;

                keeper_start("ipc://x?size=4096");
                fd = open(path, O_RDWR | O_CLOEXEC);
                cr_assert(fd >= 0);
                cr_assert_eq(fstat(fd, &st), 0);
                if (s->length >= 0)
                        cr_assert_eq(ftruncate(fd, s->length), 0);
                else if (s->length < -1)
                        cr_assert_eq(ftruncate(fd, st.st_size + s->length), 0);
                if (s->n)
                        cr_assert_eq(pwrite(fd, s->bytes, s->n, s->at), (ssize_t)s->n);
                close(fd);
                before = count_all();
                r = psyne_open("ipc://x", NULL, &ch);
                cr_expect(r == s->error[0] || r == s->error[1], "%s: %d (%s)", s->what, r, psyne_last_error());
                cr_expect(r == 0 || sentence_is_new(""), "%s: no sentence", s->what);
                if (r == 0)
                        psyne_close(ch);
                expect_counts(&before, s->what);
                keeper_kill();
                /* Dead, whatever it holds: swept, and the name is free. */
                open_and_close("ipc://x?size=8192");
        }
}

/* Nobody lives in it: whatever a file of that name holds is moved aside, once. */
Test(control_file, foreign, .init = make_dir, .fini = drop_dir) {
        char path[128], dead[128];
        struct psyne_channel *ch;
        int fd;

        snprintf(path, sizeof(path), "%s/x.psy", dir);
        snprintf(dead, sizeof(dead), "%s/x.dead", dir);
        for (unsigned i = 0; i < 3; i++) {
                fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
                cr_assert(fd >= 0);
                for (unsigned k = 0; k < 4000 * i; k++)
                        cr_assert_eq(write(fd, "garbage", 7), 7);
                close(fd);
                open_and_close("ipc://x?size=4096");
                cr_expect_eq(access(path, F_OK), -1);
                cr_expect_eq(count_files(dir), 1, "%u files", count_files(dir));
        }
        /* Not a file at all: left alone. */
        cr_assert_eq(mkdir(path, 0700), 0);
        cr_expect_eq(psyne_open("ipc://x", NULL, &ch), -EPROTO, "%s", psyne_last_error());
        cr_assert_eq(rmdir(path), 0);
        cr_assert_eq(symlink("/etc/passwd", path), 0);
        cr_expect_eq(psyne_open("ipc://x", NULL, &ch), -EPROTO, "%s", psyne_last_error());
        cr_assert_eq(unlink(path), 0);
        cr_assert_eq(mkfifo(path, 0600), 0);
        cr_expect_eq(psyne_open("ipc://x", NULL, &ch), -EPROTO, "%s", psyne_last_error());
        cr_assert_eq(unlink(path), 0);
}

/* ---- directories ------------------------------------------------------------------------------------------------- */

Test(directory, not_ours, .init = make_dir, .fini = drop_dir) {
        struct psyne_channel *ch = NULL;
        struct counts before;
        struct stat st;

        before = settled();
        cr_assert_eq(chmod(dir, 0777), 0); /* writable for everybody, not sticky */
        cr_expect_eq(psyne_open("ipc://x", NULL, &ch), -EACCES, "%s", psyne_last_error());
        cr_assert_eq(chmod(dir, 0700), 0);
        setenv("PSYNE_DIR", "relative", 1);
        cr_expect_eq(psyne_open("ipc://x", NULL, &ch), -EINVAL, "%s", psyne_last_error());
        setenv("PSYNE_DIR", "/proc", 1); /* root's, but no tmpfs */
        cr_expect_eq(psyne_open("ipc://x", NULL, &ch), -EXDEV, "%s", psyne_last_error());
        setenv("PSYNE_DIR", dir, 1);
        expect_counts(&before, "directories");
        /* The control file is for its owner alone, unless asked otherwise; a umask takes nothing away. */
        umask(077);
        for (unsigned i = 0; i < 2; i++) {
                char path[128];

                cr_assert_eq(psyne_open(i ? "ipc://x?perm=0660" : "ipc://x", NULL, &ch), 0);
                snprintf(path, sizeof(path), "%s/x.psy", dir);
                cr_assert_eq(stat(path, &st), 0);
                cr_expect_eq(st.st_mode & 0777, i ? 0660 : 0600, "%o", st.st_mode & 0777);
                psyne_close(ch);
        }
        if (geteuid() != 0)
                cr_skip_test("another user's directory: needs root to make one");
        cr_assert_eq(chown(dir, 12345, 12345), 0);
        cr_expect_eq(psyne_open("ipc://x", NULL, &ch), -EACCES, "%s", psyne_last_error());
        cr_assert_eq(chown(dir, 0, 0), 0);
}

/* ---- scarcity ---------------------------------------------------------------------------------------------------- */

/* One descriptor more each time, until all of open, producer and consumer succeed: every failure is clean. */
Test(scarce, descriptors, .init = make_dir, .fini = drop_dir) {
        struct rlimit old, few;
        struct counts before;
        bool all = false;
        unsigned refused = 0;

        before = settled();
        cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
        for (unsigned spare = 0; spare < 64 && !all; spare++) {
                struct psyne_channel *ch = NULL;
                struct psyne_producer *p = NULL;
                struct psyne_consumer *c = NULL;
                int r;

                few = (struct rlimit){before.fds - 1 + spare, old.rlim_max};
                cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
                r = psyne_open("ipc://x?size=4096", NULL, &ch);
                if (r == 0)
                        r = psyne_producer_open(ch, NULL, &p);
                if (r == 0)
                        r = psyne_consumer_open(ch, NULL, &c);
                cr_expect(r == 0 || r == -EMFILE, "%u spare: %d (%s)", spare, r, psyne_last_error());
                cr_expect(r == 0 || sentence_is_new(""), "%u spare: no sentence", spare);
                if (r == 0) {
                        struct psyne_msg m;

                        cr_expect_eq(psyne_send(p, 1, "x", 1, PSYNE_NOWAIT), 0);
                        cr_expect_eq(psyne_recv(c, &m, PSYNE_NOWAIT), 0);
                        cr_expect_eq(psyne_release(c, &m), 0);
                        all = true;
                } else
                        refused++;
                cr_expect_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
                psyne_producer_close(p);
                psyne_consumer_close(c);
                psyne_close(ch);
                expect_counts(&before, "EMFILE");
        }
        cr_expect(all);
        cr_expect(refused >= 3, "%u", refused);
}

/* A tmpfs of our own, in a name space of our own, so small that it is full soon. */
Test(scarce, tmpfs_full, .init = make_dir, .fini = drop_dir) {
        char mount_at[96];
        struct psyne_channel *ch = NULL;
        struct counts before;
        unsigned refused = 0;
        int r = -1;

        if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                cr_skip_test("needs root and mount name spaces: %s", strerror(errno));
        snprintf(mount_at, sizeof(mount_at), "%s/mnt", dir);
        cr_assert_eq(mkdir(mount_at, 0700), 0);
        before = settled();
        for (unsigned kib = 4; kib <= 1024; kib += kib < 64 ? 4 : 64) {
                char options[64];

                snprintf(options, sizeof(options), "size=%uk,mode=0700", kib);
                cr_assert_eq(mount("none", mount_at, "tmpfs", 0, options), 0, "%s", strerror(errno));
                setenv("PSYNE_DIR", mount_at, 1);
                r = psyne_open("ipc://x?size=4096", NULL, &ch);
                cr_expect(r == 0 || r == -ENOSPC, "%u KiB: %d (%s)", kib, r, psyne_last_error());
                cr_expect(r == 0 || sentence_is_new(""), "%u KiB: no sentence", kib);
                if (r == 0)
                        psyne_close(ch);
                else
                        refused++;
                cr_expect_eq(count_files(mount_at), 0);
                cr_assert_eq(umount(mount_at), 0, "still in use: %s", strerror(errno));
                setenv("PSYNE_DIR", dir, 1);
                expect_counts(&before, "ENOSPC");
                if (r == 0)
                        break;
        }
        cr_expect_eq(r, 0);
        cr_expect(refused > 0);
        /* Without a free inode. */
        cr_assert_eq(mount("none", mount_at, "tmpfs", 0, "nr_inodes=1,mode=0700"), 0);
        setenv("PSYNE_DIR", mount_at, 1);
        cr_expect_eq(psyne_open("ipc://x?size=4096", NULL, &ch), -ENOSPC, "%s", psyne_last_error());
        cr_assert_eq(umount(mount_at), 0);
        setenv("PSYNE_DIR", dir, 1);
        expect_counts(&before, "no inode");
        rmdir(mount_at);
}
