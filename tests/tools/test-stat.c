/*
 * psyne/stat.h against live, stopped, dead and forked owners, and against files that nobody sane would write. Owners
 * are child processes that do something with a channel, say so through a pipe, and stay there; only the parent looks.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <psyne/psyne.h>
#include <psyne/stat.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/layout.h"

#define WATCHDOG_S 60
#define MUTATIONS 10000
#define STRIDE 128u /* of a message of 100 bytes: header, payload, up to a multiple of 64 */
#define MESSAGE 100u

static char base[64];
static struct psyne_stat_dir *dir;

static void setup(void) {
        strcpy(base, "/dev/shm/psyne-test-stat-XXXXXX");
        cr_assert_not_null(mkdtemp(base));
        cr_assert_eq(setenv("PSYNE_DIR", base, 1), 0);
        cr_assert_eq(psyne_stat_open_dir(base, &dir), 0);
}

static void teardown(void) {
        char command[128];

        psyne_stat_close_dir(dir);
        snprintf(command, sizeof(command), "rm -rf %s", base);
        cr_assert_eq(system(command), 0);
}

TestSuite(stat, .init = setup, .fini = teardown, .timeout = WATCHDOG_S);

static int64_t now_ns(void) {
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- owners ------------------------------------------------------------------------------------------------------ */

struct owner {
        pid_t pid;
        int ready; /* pipe */
};

static void say(int fd, char c) {
        if (write(fd, &c, 1) != 1)
                _exit(9);
}

typedef void (*role)(struct psyne_channel *ch, int ready);

static struct owner owner_start(role what) {
        struct owner o;
        int fds[2];

        cr_assert_eq(pipe(fds), 0);
        o.pid = fork();
        cr_assert_geq(o.pid, 0);
        if (o.pid == 0) {
                struct psyne_channel *ch;

                prctl(PR_SET_PDEATHSIG, SIGKILL);
                close(fds[0]);
                if (psyne_open("ipc://x?size=64K", NULL, &ch) < 0)
                        _exit(8);
                what(ch, fds[1]);
                for (;;)
                        pause();
        }
        close(fds[1]);
        o.ready = fds[0];
        return o;
}

static void owner_await(struct owner *o) {
        char c;

        cr_assert_eq(read(o->ready, &c, 1), 1, "the owner gave up");
}

static void owner_end(struct owner *o, int sig) {
        int status;

        close(o->ready);
        cr_assert_eq(kill(o->pid, sig), 0);
        cr_assert_eq(waitpid(o->pid, &status, 0), o->pid);
}

static void role_open(struct psyne_channel *ch, int ready) {
        (void)ch;
        say(ready, 'r');
}

static void send_n(struct psyne_channel *ch, int ready, int n) {
        struct psyne_producer *p;
        char data[MESSAGE] = {0};

        if (psyne_producer_open(ch, NULL, &p) < 0)
                _exit(7);
        for (int i = 0; n < 0 || i < n; i++)
                if (psyne_send(p, 1, data, sizeof(data), PSYNE_FOREVER) < 0)
                        _exit(6);
        say(ready, 'r');
}

static void role_send_100(struct psyne_channel *ch, int ready) {
        send_n(ch, ready, 100);
}

static void role_send_for_ever(struct psyne_channel *ch, int ready) {
        send_n(ch, ready, -1);
}

/* Releases 60, takes one more and keeps it. */
static void role_take_61(struct psyne_channel *ch, int ready) {
        struct psyne_consumer *c;
        struct psyne_msg m;

        if (psyne_consumer_open(ch, NULL, &c) < 0)
                _exit(7);
        for (int i = 0; i < 61; i++) {
                if (psyne_recv(c, &m, PSYNE_FOREVER) < 0)
                        _exit(6);
                if (i < 60)
                        psyne_release(c, &m);
        }
        say(ready, 'r');
}

static void role_receive_for_ever(struct psyne_channel *ch, int ready) {
        struct psyne_consumer *c;
        struct psyne_msg m;

        if (psyne_consumer_open(ch, NULL, &c) < 0)
                _exit(7);
        say(ready, 'r');
        while (psyne_recv(c, &m, PSYNE_FOREVER) == 0)
                psyne_release(c, &m);
}

/* A fork that no handler hears of keeps the slot's lock. The child goes when the pipe's other end does. */
static void role_fork(struct psyne_channel *ch, int ready) {
        (void)ch;
        if (_Fork() == 0) {
                prctl(PR_SET_PDEATHSIG, 0);
                alarm(WATCHDOG_S);
                say(ready, 'c');
                for (;;) {
                        char c = 'c';

                        if (write(ready, &c, 1) != 1)
                                _exit(0);
                        usleep(20000);
                }
        }
}

/* Comes and goes, in order, as fast as it can. */
static void role_come_and_go(struct psyne_channel *ch, int ready) {
        say(ready, 'r');
        for (;;) {
                struct psyne_channel *again;
                struct psyne_consumer *c;

                if (psyne_open("ipc://x", NULL, &again) < 0)
                        _exit(5);
                if (psyne_consumer_open(again, NULL, &c) == 0)
                        psyne_consumer_close(c);
                psyne_close(again);
        }
        (void)ch;
}

static struct psyne_stat *look(const char *file) {
        struct psyne_stat *s = NULL;
        int r = psyne_stat_read(dir, file, &s);

        cr_assert_eq(r, 0, "%s: %s", file, psyne_last_error());
        return s;
}

/* ---- alive ------------------------------------------------------------------------------------------------------- */

Test(stat, counts_what_two_processes_exchange) {
        struct owner rx = owner_start(role_take_61), tx = owner_start(role_send_100);
        struct psyne_stat *s;

        owner_await(&tx);
        owner_await(&rx);
        s = look("x.psy");
        cr_expect_str_eq(s->name, "x");
        cr_expect_not(s->post_mortem);
        cr_expect(s->anybody);
        cr_expect_eq(s->mode, PSYNE_SPSC);
        cr_expect_eq(s->ring_bytes, 65536);
        cr_expect_eq(s->lanes[0].state, PSYNE_STAT_ACTIVE);
        cr_expect_eq(s->lanes[0].messages_sent, 100);
        cr_expect_eq(s->lanes[0].bytes_sent, 100 * MESSAGE);
        cr_expect_eq(s->lanes[0].waiting_bytes, 40 * STRIDE);
        cr_expect_eq(s->peers[s->lanes[0].peer].pid, (uint32_t)tx.pid);
        cr_expect_eq(s->groups[0].messages_received, 60);
        cr_expect_eq(s->groups[0].lag_bytes, 40 * STRIDE);
        cr_expect_eq(s->groups[0].held_bytes, STRIDE);
        cr_expect_eq(s->members[0].group, 0);
        cr_expect_eq(s->peers[s->members[0].peer].pid, (uint32_t)rx.pid);
        cr_expect_eq(s->peers[s->members[0].peer].process, PSYNE_STAT_PROCESS_RUNNING);
        cr_expect_not(s->peers[0].dead || s->peers[1].dead || s->lanes[0].dead || s->members[0].dead);
        cr_expect(s->n_facts > 0 && s->facts[0].text.what[0]);
        psyne_stat_free(s);
        owner_end(&tx, SIGKILL);
        owner_end(&rx, SIGKILL);
}

/* A pipeline in this process: the slow stage is the one with a backlog; one that skips and one that was ejected say so. */
Test(stat, shows_what_groups_do) {
        const struct psyne_consumer_opts one = {.struct_size = sizeof(one), .group = "one"};
        const struct psyne_consumer_opts two = {.struct_size = sizeof(two), .group = "two", .follows = "one"};
        const struct psyne_consumer_opts skips = {.struct_size = sizeof(skips), .group = "skips", .behind = PSYNE_BEHIND_SKIPS};
        const struct psyne_consumer_opts late = {
                .struct_size = sizeof(late), .group = "late", .behind = PSYNE_BEHIND_EJECTED, .eject_ns = 1};
        const struct psyne_producer_opts at_once = {.struct_size = sizeof(at_once), .linger_ns = 1};
        struct psyne_consumer *c[4];
        struct psyne_producer *p;
        struct psyne_channel *ch;
        struct psyne_msg m;
        struct psyne_stat *s;

        cr_assert_eq(psyne_open("ipc://x?mode=broadcast&size=4K", NULL, &ch), 0);
        cr_assert_eq(psyne_producer_open(ch, &at_once, &p), 0);
        cr_assert_eq(psyne_consumer_open(ch, &one, &c[0]), 0);
        cr_assert_eq(psyne_consumer_open(ch, &two, &c[1]), 0);
        cr_assert_eq(psyne_consumer_open(ch, &skips, &c[2]), 0);
        cr_assert_eq(psyne_consumer_open(ch, &late, &c[3]), 0);
        for (unsigned i = 0; i < 10; i++)
                cr_assert_eq(psyne_send(p, 0, base, MESSAGE - 50, PSYNE_NOWAIT), 0); /* 128 bytes each in the ring */
        for (unsigned i = 0; i < 6; i++) {
                cr_assert_eq(psyne_recv(c[0], &m, PSYNE_NOWAIT), 0);
                cr_assert_eq(psyne_release(c[0], &m), 0);
        }
        s = look("x.psy");
        cr_expect_eq(s->groups[0].lag_bytes, 4 * 128);
        cr_expect_eq(s->groups[0].follows, -1);
        cr_expect_eq(s->groups[0].backlog_bytes, 0);
        cr_expect_eq(s->groups[1].follows, 0);
        cr_expect_eq(s->groups[1].backlog_bytes, 6 * 128);
        cr_expect_eq(s->groups[1].lag_bytes, 10 * 128);
        cr_expect(s->groups[2].behind == PSYNE_BEHIND_SKIPS && !s->groups[2].active && !s->groups[2].ejected);
        cr_expect(s->groups[3].behind == PSYNE_BEHIND_EJECTED && s->groups[3].active && !s->groups[3].ejected);
        psyne_stat_free(s);
        while (psyne_recv(c[0], &m, PSYNE_NOWAIT) == 0)
                cr_assert_eq(psyne_release(c[0], &m), 0);
        while (psyne_recv(c[1], &m, PSYNE_NOWAIT) == 0)
                cr_assert_eq(psyne_release(c[1], &m), 0);
        for (unsigned i = 0; i < 28; i++) /* past where the last one stands: it is waited for, and then not any more */
                cr_assert_eq(psyne_send(p, 0, base, MESSAGE - 50, 10000000000ll), 0);
        s = look("x.psy");
        cr_expect(s->groups[3].ejected && !s->groups[3].active);
        psyne_stat_free(s);
        for (unsigned i = 0; i < 4; i++)
                cr_assert_eq(psyne_consumer_close(c[i]), 0);
        (void)psyne_producer_close(p);
        psyne_close(ch);
}

/* Both sides can only be seen asleep once they are: look until then. */
Test(stat, shows_who_sleeps_and_since_when) {
        struct owner o = owner_start(role_receive_for_ever);
        struct psyne_stat *s;
        bool asleep = false;

        owner_await(&o);
        for (int64_t until = now_ns() + 10000000000ll; !asleep && now_ns() < until;) {
                s = look("x.psy");
                asleep = s->members[0].asleep;
                if (asleep)
                        cr_expect(s->members[0].asleep_since_ns > 0 && s->members[0].asleep_since_ns <= s->taken_ns);
                cr_expect_not(s->lanes[0].asleep);
                psyne_stat_free(s);
        }
        cr_expect(asleep, "a consumer without a producer never slept");
        owner_end(&o, SIGKILL);

        o = owner_start(role_send_for_ever);
        asleep = false;
        for (int64_t until = now_ns() + 10000000000ll; !asleep && now_ns() < until;) {
                if (psyne_stat_read(dir, "x.psy", &s) < 0)
                        continue; /* the dead channel of before is being swept */
                asleep = s->lanes[0].asleep;
                if (asleep)
                        cr_expect_eq(s->lanes[0].waiting_bytes, 65536 - STRIDE);
                psyne_stat_free(s);
        }
        cr_expect(asleep, "a producer without room never slept");
        owner_end(&o, SIGKILL);
}

struct flip {
        int fd;
        bool stop;
        struct layout_header headers[2];
};

static void *flip_headers(void *arg) {
        struct flip *f = arg;

        for (unsigned n = 0; !__atomic_load_n(&f->stop, __ATOMIC_ACQUIRE); n++)
                if (pwrite(f->fd, &f->headers[n % 2], sizeof(f->headers[0]), 0) != sizeof(f->headers[0]))
                        return f;
        return NULL;
}

/* Two headers that are right, and end where the other does, but have their tables elsewhere: the look must notice. */
Test(stat, does_not_trust_sizes_that_change_under_it) {
        static const char *const uris[] = {"ipc://x?mode=mpmc&size=4K&producers=1&consumers=64",
                "ipc://y?mode=mpmc&size=4K&producers=64&consumers=14"};
        struct psyne_channel *ch[2];
        struct flip f = {.fd = -1};
        off_t bytes = 0;
        unsigned whole = 0, refused = 0;
        pthread_t thread;
        void *failed;

        for (unsigned i = 0; i < 2; i++) {
                char path[128];
                struct stat st;
                int fd;

                cr_assert_eq(psyne_open(uris[i], NULL, &ch[i]), 0);
                snprintf(path, sizeof(path), "%s/%c.psy", base, 'x' + (int)i);
                fd = open(path, O_RDWR | O_CLOEXEC);
                cr_assert(fd >= 0 && fstat(fd, &st) == 0);
                cr_assert_eq(pread(fd, &f.headers[i], sizeof(f.headers[i]), 0), (ssize_t)sizeof(f.headers[i]));
                bytes = st.st_size > bytes ? st.st_size : bytes;
                if (i)
                        close(fd);
                else
                        f.fd = fd;
        }
        cr_assert_eq(f.headers[0].regions[LAYOUT_REGION_EVENTS].offset, f.headers[1].regions[LAYOUT_REGION_EVENTS].offset);
        cr_assert_neq(f.headers[0].regions[LAYOUT_REGION_LOANS].offset, f.headers[1].regions[LAYOUT_REGION_LOANS].offset);
        cr_assert_eq(ftruncate(f.fd, bytes), 0);
        cr_assert_eq(pthread_create(&thread, NULL, flip_headers, &f), 0);
        for (int64_t until = now_ns() + 10000000000ll; (whole < 100 || refused < 100) && now_ns() < until;) {
                struct psyne_stat *s = NULL;
                int r = psyne_stat_read(dir, "x.psy", &s);

                if (r == 0) {
                        cr_expect(s->max_producers == 1 || s->max_producers == 64);
                        whole++;
                } else {
                        cr_expect_eq(r, -EBADMSG);
                        refused++;
                }
                psyne_stat_free(s);
        }
        __atomic_store_n(&f.stop, true, __ATOMIC_RELEASE);
        pthread_join(thread, &failed);
        cr_assert_null(failed);
        cr_expect(whole >= 100 && refused >= 100, "%u looks went well, %u were refused", whole, refused);
        cr_assert_eq(pwrite(f.fd, &f.headers[0], sizeof(f.headers[0]), 0), (ssize_t)sizeof(f.headers[0]));
        close(f.fd);
        for (unsigned i = 0; i < 2; i++)
                psyne_close(ch[i]);
}

/* The reader of pages races with both sides: nothing that it shows may be impossible. */
Test(stat, never_shows_more_received_than_sent) {
        struct owner rx = owner_start(role_receive_for_ever), tx;
        struct psyne_stat *s;
        uint64_t last = 0;

        owner_await(&rx);
        tx = owner_start(role_send_for_ever);
        for (int64_t until = now_ns() + 2000000000ll; now_ns() < until;) {
                s = look("x.psy");
                cr_assert_not(s->lanes[0].damaged, "a healthy lane looks damaged");
                /* By one: a producer shows a record and then counts it. */
                cr_assert_leq(s->groups[0].messages_received, s->lanes[0].messages_sent + 1);
                cr_assert_leq(s->groups[0].lag_bytes, s->ring_bytes);
                last = s->groups[0].messages_received;
                psyne_stat_free(s);
        }
        cr_expect(last > 0);
        owner_end(&tx, SIGKILL);
        owner_end(&rx, SIGKILL);
}

/* Whoever leaves in order marks its row and then lets go of the slot: looked at in the other order, that is a death. */
Test(stat, takes_no_orderly_leave_for_a_death) {
        struct owner stays = owner_start(role_open), goes;
        struct psyne_stat *s;

        owner_await(&stays);
        goes = owner_start(role_come_and_go);
        owner_await(&goes);
        for (int64_t until = now_ns() + 3000000000ll; now_ns() < until;) {
                s = look("x.psy");
                for (uint32_t i = 0; i < s->n_peers; i++)
                        cr_assert_not(s->peers[i].dead, "slot %u left in order and is shown as dead", i);
                for (uint32_t i = 0; i < s->n_members; i++)
                        cr_assert_not(s->members[i].dead, "consumer %u left in order and is shown as dead", i);
                psyne_stat_free(s);
        }
        owner_end(&goes, SIGKILL);
        owner_end(&stays, SIGKILL);
}

/* ---- stopped, dead, forked --------------------------------------------------------------------------------------- */

Test(stat, stopped_is_not_dead) {
        struct owner o = owner_start(role_send_100);
        struct psyne_stat *s;
        int status;

        owner_await(&o);
        cr_assert_eq(kill(o.pid, SIGSTOP), 0);
        cr_assert_eq(waitpid(o.pid, &status, WUNTRACED), o.pid);
        s = look("x.psy");
        cr_expect(s->anybody);
        cr_expect(s->peers[0].alive);
        cr_expect_not(s->peers[0].dead);
        cr_expect_not(s->lanes[0].dead);
        cr_expect_eq(s->peers[0].process, PSYNE_STAT_PROCESS_STOPPED);
        cr_expect_eq(s->lanes[0].messages_sent, 100);
        psyne_stat_free(s);
        owner_end(&o, SIGKILL);
}

/* Nobody is left to mark the rows: that the owner is dead is the lock's word alone. A zombie is dead, too. */
Test(stat, sees_a_death_before_anybody_reaps_or_reports_it) {
        struct owner o = owner_start(role_send_100);
        struct psyne_stat *s;
        siginfo_t info;
        int status;

        owner_await(&o);
        close(o.ready);
        cr_assert_eq(kill(o.pid, SIGKILL), 0);
        cr_assert_eq(waitid(P_PID, (id_t)o.pid, &info, WEXITED | WNOWAIT), 0);
        s = look("x.psy");
        cr_expect_not(s->anybody);
        cr_expect_eq(s->lanes[0].state, PSYNE_STAT_ACTIVE);
        cr_expect(s->lanes[0].dead);
        cr_expect(s->peers[0].dead);
        cr_expect_eq(s->peers[0].process, PSYNE_STAT_PROCESS_GONE);
        cr_expect_eq(s->lanes[0].waiting_bytes, 100 * STRIDE);
        for (uint32_t i = 0; i < s->n_facts; i++)
                cr_expect_not(s->facts[i].in_force);
        psyne_stat_free(s);
        cr_assert_eq(waitpid(o.pid, &status, 0), o.pid);
}

Test(stat, survivors_see_one_side_dead) {
        struct owner rx = owner_start(role_take_61), tx = owner_start(role_send_100);
        struct psyne_stat *s;

        owner_await(&tx);
        owner_await(&rx);
        owner_end(&rx, SIGKILL);
        s = look("x.psy");
        cr_expect(s->anybody);
        cr_expect(s->members[0].dead);
        cr_expect_not(s->lanes[0].dead);
        psyne_stat_free(s);
        owner_end(&tx, SIGKILL);
}

Test(stat, names_a_slot_that_a_fork_holds) {
        struct owner o = owner_start(role_fork);
        struct psyne_stat *s;
        siginfo_t info;
        int status;

        owner_await(&o);
        s = look("x.psy");
        cr_expect_not(s->peers[0].held_by_fork);
        psyne_stat_free(s);
        cr_assert_eq(kill(o.pid, SIGKILL), 0);
        cr_assert_eq(waitid(P_PID, (id_t)o.pid, &info, WEXITED | WNOWAIT), 0);
        s = look("x.psy");
        cr_expect(s->peers[0].alive);
        cr_expect(s->peers[0].held_by_fork, "its owner is a zombie");
        psyne_stat_free(s);
        cr_assert_eq(waitpid(o.pid, &status, 0), o.pid);
        s = look("x.psy");
        cr_expect(s->peers[0].alive);
        cr_expect(s->peers[0].held_by_fork, "its owner is gone");
        psyne_stat_free(s);
        close(o.ready);
}

/* Process ids are used again: a process that started at another time is not the one that joined. */
Test(stat, takes_no_successor_for_the_owner) {
        struct owner o = owner_start(role_open);
        struct layout_header h;
        uint64_t start;
        struct psyne_stat *s;
        char path[128];
        off_t at;
        int fd;

        owner_await(&o);
        snprintf(path, sizeof(path), "%s/x.psy", base);
        fd = open(path, O_RDWR);
        cr_assert(fd >= 0 && pread(fd, &h, sizeof(h), 0) == sizeof(h));
        at = (off_t)(h.regions[LAYOUT_REGION_PEERS].offset + offsetof(struct layout_peer, start_time));
        cr_assert_eq(pread(fd, &start, sizeof(start), at), sizeof(start));
        start--;
        cr_assert_eq(pwrite(fd, &start, sizeof(start), at), sizeof(start));
        s = look("x.psy");
        cr_expect_eq(s->peers[0].process, PSYNE_STAT_PROCESS_GONE);
        cr_expect(s->peers[0].alive);
        psyne_stat_free(s);
        close(fd);
        owner_end(&o, SIGKILL);
}

Test(stat, reads_the_post_mortem) {
        struct owner o = owner_start(role_send_100), next;
        struct psyne_stat *s;
        const char *file;
        unsigned alive = 0, dead = 0, other = 0;
        int r;

        owner_await(&o);
        owner_end(&o, SIGKILL);
        next = owner_start(role_open);
        owner_await(&next);
        while ((r = psyne_stat_next(dir, &file)) > 0) {
                alive += strcmp(file, "x.psy") == 0;
                dead += strcmp(file, "x.dead") == 0;
                other += strcmp(file, "x.psy") != 0 && strcmp(file, "x.dead") != 0;
        }
        cr_expect_eq(r, 0);
        cr_expect(alive == 1 && dead == 1 && other == 0);
        s = look("x.dead");
        cr_expect(s->post_mortem);
        cr_expect_not(s->anybody);
        cr_expect_str_eq(s->name, "x");
        cr_expect_eq(s->lanes[0].messages_sent, 100);
        psyne_stat_free(s);
        s = look("x.psy");
        cr_expect(s->anybody);
        cr_expect_eq(s->lanes[0].messages_sent, 0);
        psyne_stat_free(s);
        owner_end(&next, SIGKILL);
}

/* ---- files that nobody sane would write -------------------------------------------------------------------------- */

/* A real image of a channel with both sides in it, all of them dead by now. */
static unsigned char *image(size_t *ret_bytes) {
        struct owner rx = owner_start(role_take_61), tx = owner_start(role_send_100);
        unsigned char *bytes;
        struct stat st;
        char path[128];
        int fd;

        owner_await(&tx);
        owner_await(&rx);
        owner_end(&tx, SIGKILL);
        owner_end(&rx, SIGKILL);
        snprintf(path, sizeof(path), "%s/x.psy", base);
        fd = open(path, O_RDONLY);
        cr_assert(fd >= 0 && fstat(fd, &st) == 0);
        bytes = malloc((size_t)st.st_size);
        cr_assert_not_null(bytes);
        cr_assert_eq(pread(fd, bytes, (size_t)st.st_size, 0), st.st_size);
        close(fd);
        *ret_bytes = (size_t)st.st_size;
        return bytes;
}

static int file_new(const char *name, const void *bytes, size_t n) {
        char path[128];
        int fd;

        snprintf(path, sizeof(path), "%s/%s", base, name);
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        cr_assert(fd >= 0 && pwrite(fd, bytes, n, 0) == (ssize_t)n);
        return fd;
}

static bool is_clean(const char *s, size_t n) {
        size_t i;

        for (i = 0; i < n && s[i]; i++)
                if (s[i] < ' ' || s[i] > '~')
                        return false;
        return i < n;
}
#define CLEAN(field) is_clean(field, sizeof(field))

/* What psyne/stat.h promises of every snapshot, whatever the file holds. Touches all of it, for the sanitizer. */
static const char *broken_promise(const struct psyne_stat *s) {
        if (!CLEAN(s->file) || !CLEAN(s->name) || !CLEAN(s->calls_itself))
                return "a name";
        for (uint32_t i = 0; i < s->n_peers; i++)
                if (!CLEAN(s->peers[i].comm) || s->peers[i].state > PSYNE_STAT_UNKNOWN)
                        return "a peer";
        for (uint32_t i = 0; i < s->n_lanes; i++) {
                const struct psyne_stat_lane *l = &s->lanes[i];

                if (l->peer < -1 || l->peer >= (int32_t)s->n_peers || l->state > PSYNE_STAT_UNKNOWN ||
                        l->engine > PSYNE_STAT_ENGINE_EVENTFD || l->waiting_bytes > s->ring_bytes || l->node < -1)
                        return "a lane";
        }
        for (uint32_t i = 0; i < s->n_groups; i++) {
                const struct psyne_stat_group *g = &s->groups[i];

                if (!CLEAN(g->name) || g->follows < -1 || g->follows >= (int32_t)s->n_groups ||
                        (s->n_members < 64 && g->members >> s->n_members))
                        return "a group";
                for (uint32_t k = 0; k < s->n_lanes; k++)
                        if (g->cursors[k].lag_bytes > s->ring_bytes || g->cursors[k].held_bytes > s->ring_bytes)
                                return "a cursor";
        }
        for (uint32_t i = 0; i < s->n_members; i++) {
                const struct psyne_stat_member *m = &s->members[i];

                if (m->peer < -1 || m->peer >= (int32_t)s->n_peers || m->group < -1 ||
                        m->group >= (int32_t)s->n_groups || m->state > PSYNE_STAT_UNKNOWN)
                        return "a member";
        }
        for (uint32_t i = 0; i < s->n_facts; i++) {
                const struct psyne_fact *f = &s->facts[i].text;

                if (!CLEAN(f->what) || !CLEAN(f->whose) || !CLEAN(f->asked) || !CLEAN(f->obtained) || !CLEAN(f->why) ||
                        !CLEAN(f->fix))
                        return "a fact";
        }
        return NULL;
}

Test(stat, refuses_a_file_cut_short_anywhere) {
        struct psyne_stat *s;
        unsigned char *bytes;
        size_t n;
        int fd;

        bytes = image(&n);
        fd = file_new("cut.psy", bytes, n);
        cr_assert_eq(psyne_stat_read(dir, "cut.psy", &s), 0);
        psyne_stat_free(s);
        for (size_t at = n - 64; at < n; at -= 64) {
                cr_assert_eq(ftruncate(fd, (off_t)at), 0);
                cr_assert_eq(psyne_stat_read(dir, "cut.psy", &s), -EBADMSG, "cut at %zu", at);
        }
        close(fd);
        free(bytes);
}

struct truncator {
        int fd;
        size_t n;
        unsigned char *bytes;
        bool stop;
};

static void *truncate_and_restore(void *argument) {
        struct truncator *t = argument;
        unsigned seed = 1;

        while (!__atomic_load_n(&t->stop, __ATOMIC_RELAXED)) {
                if (ftruncate(t->fd, rand_r(&seed) % (int)t->n) < 0 ||
                        pwrite(t->fd, t->bytes, t->n, 0) != (ssize_t)t->n)
                        return t;
        }
        return NULL;
}

/* The size may be right when it is asked for and wrong when the pages are read. */
Test(stat, survives_being_cut_while_it_reads) {
        struct truncator t = {0};
        struct psyne_stat *s;
        unsigned good = 0, bad = 0;
        pthread_t thread;
        void *trouble;

        mallopt(M_PERTURB, 0x5a); /* what was not read does not look like zeros */
        t.bytes = image(&t.n);
        t.fd = file_new("cut.psy", t.bytes, t.n);
        cr_assert_eq(pthread_create(&thread, NULL, truncate_and_restore, &t), 0);
        for (int64_t until = now_ns() + 1500000000ll; now_ns() < until;) {
                int r = psyne_stat_read(dir, "cut.psy", &s);

                cr_assert(r == 0 || r == -EBADMSG || r == -EAGAIN || r == -EPROTO, "%s", psyne_last_error());
                if (r == 0) {
                        const char *broken = broken_promise(s);

                        cr_assert_null(broken, "%s", broken);
                        cr_assert(
                                s->lanes[0].messages_sent == 0 || s->lanes[0].messages_sent == 100, "not of this file");
                        psyne_stat_free(s);
                        good++;
                } else
                        bad++;
        }
        __atomic_store_n(&t.stop, true, __ATOMIC_RELAXED);
        pthread_join(thread, &trouble);
        cr_expect_null(trouble);
        cr_expect(good > 0 && bad > 0, "%u good, %u bad: nothing was raced with", good, bad);
        close(t.fd);
        free(t.bytes);
}

static void *scribble_over_regions(void *argument) {
        struct truncator *t = argument;
        const off_t at = offsetof(struct layout_header, regions) + LAYOUT_REGION_LANES * sizeof(struct layout_region);
        uint64_t good, bad = 1ull << 44;

        memcpy(&good, t->bytes + at, sizeof(good));
        while (!__atomic_load_n(&t->stop, __ATOMIC_RELAXED))
                if (pwrite(t->fd, &bad, sizeof(bad), at) < 0 || pwrite(t->fd, &good, sizeof(good), at) < 0)
                        return t;
        return NULL;
}

/* The header was judged, then it changes: what counts is the one that came with the pages. */
Test(stat, survives_a_header_that_changes_while_it_reads) {
        struct truncator t = {0};
        struct psyne_stat *s;
        unsigned good = 0, bad = 0;
        pthread_t thread;
        void *trouble;

        t.bytes = image(&t.n);
        t.fd = file_new("moved.psy", t.bytes, t.n);
        cr_assert_eq(pthread_create(&thread, NULL, scribble_over_regions, &t), 0);
        for (int64_t until = now_ns() + 1500000000ll; now_ns() < until;) {
                int r = psyne_stat_read(dir, "moved.psy", &s);

                cr_assert(r == 0 || r == -EBADMSG, "%s", psyne_last_error());
                if (r == 0) {
                        cr_assert_eq(s->lanes[0].messages_sent, 100);
                        psyne_stat_free(s);
                        good++;
                } else
                        bad++;
        }
        __atomic_store_n(&t.stop, true, __ATOMIC_RELAXED);
        pthread_join(thread, &trouble);
        cr_expect_null(trouble);
        cr_expect(good > 0 && bad > 0, "%u good, %u bad: nothing was raced with", good, bad);
        close(t.fd);
        free(t.bytes);
}

static uint64_t next_random(uint64_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

/*
 * Flipped bytes, and words that look plausible or are extreme, mostly in the part that is shown. Three mutants in four
 * start from the real image, the others keep the mutations of the one before.
 */
Test(stat, survives_ten_thousand_mutations) {
        static const uint64_t words[] = {0, 1, 2, 3, 63, 64, 65, 4096, 65536, INT32_MAX, UINT32_MAX, INT64_MAX,
                UINT64_MAX, 1ull << 32, 1ull << 63, 0x1b5b324a1b5b324aull /* a terminal would clear its screen */};
        const char *text = getenv("PSYNE_SEED");
        uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)now_ns() | 1, state = seed;
        unsigned read = 0, refused = 0;
        unsigned char *bytes, *mutant;
        struct psyne_stat *s;
        size_t n, shown;
        int fd;

        cr_log_info("PSYNE_SEED=%#llx", (unsigned long long)seed);
        bytes = image(&n);
        shown = ((const struct layout_header *)(const void *)bytes)->regions[LAYOUT_REGION_EVENTS].offset;
        mutant = malloc(n);
        cr_assert_not_null(mutant);
        memcpy(mutant, bytes, n);
        fd = file_new("mutant.psy", bytes, n);
        for (unsigned i = 0; i < MUTATIONS; i++) {
                unsigned count = 1 + (unsigned)(next_random(&state) % 24);
                /* A damaged first page is refused at once: most mutants keep theirs. */
                bool first_page = next_random(&state) % 8 == 0;
                size_t from = first_page ? 0 : 1024, to = first_page ? 1024 : shown;
                int r;

                if (i % 4)
                        memcpy(mutant, bytes, n);
                for (unsigned k = 0; k < count; k++) {
                        uint64_t word = words[next_random(&state) % (sizeof(words) / sizeof(*words))];
                        size_t at = from + next_random(&state) % (to - from - 8);

                        if (next_random(&state) % 2)
                                mutant[at] ^= (unsigned char)(1 + next_random(&state) % 255);
                        else
                                memcpy(&mutant[at & ~7ull], &word, next_random(&state) % 2 ? 8 : 4);
                }
                cr_assert_eq(pwrite(fd, mutant, shown, 0), (ssize_t)shown);
                r = psyne_stat_read(dir, "mutant.psy", &s);
                cr_assert(r == 0 || r == -EBADMSG || r == -EPROTO || r == -EAGAIN, "mutant %u of PSYNE_SEED=%#llx: %d",
                        i, (unsigned long long)seed, r);
                if (r == 0) {
                        const char *broken = broken_promise(s);

                        cr_assert_null(
                                broken, "mutant %u of PSYNE_SEED=%#llx: %s", i, (unsigned long long)seed, broken);
                        psyne_stat_free(s);
                        read++;
                } else
                        refused++;
        }
        cr_expect(read > MUTATIONS / 2 && refused > 100, "%u read, %u refused: the mutants are too tame or too wild",
                read, refused);
        close(fd);
        free(mutant);
        free(bytes);
}

Test(stat, cleans_what_a_terminal_would_obey) {
        static const char evil[] = "\033[2J\a\b\r\n\x9b\xff%n";
        struct layout_view v;
        struct psyne_stat *s;
        unsigned char *bytes;
        size_t n;

        bytes = image(&n);
        layout_view_init(&v, bytes, (const void *)bytes);
        memset(v.header->config.name, 0, sizeof(v.header->config.name));
        memcpy(v.header->config.name, evil, sizeof(evil));
        memcpy(v.peers[0].comm, evil, sizeof(evil));
        memset(v.groups[0].name, '\033', sizeof(v.groups[0].name)); /* and no end */
        memset(v.facts[0].why, '\n', sizeof(v.facts[0].why));
        close(file_new("evil.psy", bytes, n));
        s = look("evil.psy");
        cr_expect_null(broken_promise(s));
        cr_expect_str_eq(s->calls_itself, "?[2J??????%n");
        cr_expect_str_eq(s->peers[0].comm, "?[2J??????%n");
        psyne_stat_free(s);
        free(bytes);
}

Test(stat, refuses_what_is_not_a_channel) {
        struct psyne_stat *s;
        struct layout_header *h;
        unsigned char *bytes;
        char path[128];
        size_t n;

        bytes = image(&n);
        h = (void *)bytes;
        cr_expect_eq(psyne_stat_read(dir, "none.psy", &s), -ENOENT);
        cr_expect_eq(psyne_stat_read(dir, "none.txt", &s), -EINVAL);
        cr_expect_eq(psyne_stat_read(dir, ".psy", &s), -EINVAL);
        cr_expect_eq(psyne_stat_read(dir, "../x.psy", &s), -EINVAL);
        cr_expect_eq(psyne_stat_read(dir, "\033[2J.psy", &s), -EINVAL);
        close(file_new("empty.psy", "", 0));
        cr_expect_eq(psyne_stat_read(dir, "empty.psy", &s), -EBADMSG);
        h->config.major++;
        close(file_new("version.psy", bytes, n));
        cr_expect_eq(psyne_stat_read(dir, "version.psy", &s), -EPROTO);
        cr_expect_not_null(strstr(psyne_last_error(), "2.0"), "%s", psyne_last_error());
        h->config.magic = 0;
        close(file_new("magic.psy", bytes, n));
        cr_expect_eq(psyne_stat_read(dir, "magic.psy", &s), -EAGAIN);
        snprintf(path, sizeof(path), "%s/pipe.psy", base);
        cr_assert_eq(mkfifo(path, 0600), 0);
        cr_expect_eq(psyne_stat_read(dir, "pipe.psy", &s), -EPROTO);
        snprintf(path, sizeof(path), "%s/link.psy", base);
        cr_assert_eq(symlink("x.psy", path), 0);
        cr_expect_eq(psyne_stat_read(dir, "link.psy", &s), -EPROTO);
        snprintf(path, sizeof(path), "%s/dir.psy", base);
        cr_assert_eq(mkdir(path, 0700), 0);
        cr_expect_eq(psyne_stat_read(dir, "dir.psy", &s), -EPROTO);
        free(bytes);
}

Test(stat, makes_no_directory) {
        struct psyne_stat_dir *none;
        struct psyne_stat *s;
        const char *file;
        char path[128];

        snprintf(path, sizeof(path), "%s/none", base);
        cr_assert_eq(psyne_stat_open_dir(path, &none), 1);
        cr_expect_str_eq(psyne_stat_dir_path(none), path);
        cr_expect_eq(psyne_stat_next(none, &file), 0);
        cr_expect_eq(psyne_stat_read(none, "x.psy", &s), -ENOENT);
        psyne_stat_close_dir(none);
        cr_expect_eq(access(path, F_OK), -1);
        cr_expect_null(psyne_stat_close_dir(NULL));
        cr_expect_null(psyne_stat_free(NULL));
}
