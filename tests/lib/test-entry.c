/*
 * The control file and its slots: created complete or not at all, joined only while somebody lives in it, swept when
 * nobody does, in every order and with everybody killed at the worst moment.
 */
#include "base/clock.h"
#include "base/error.h"
#include "lib/entry.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED 77
#define WATCHDOG_S 10
#define SIZE 8192
#define SLOTS 4
#define MAGIC 0x70737965u

static char base[64];
static int base_fd = -1;

static void setup(void) {
        strcpy(base, "/dev/shm/psyne-test-entry-XXXXXX");
        cr_assert_not_null(mkdtemp(base));
        base_fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        cr_assert_geq(base_fd, 0);
}

static void teardown(void) {
        char command[128];

        snprintf(command, sizeof(command), "rm -rf %s", base);
        cr_assert_eq(system(command), 0);
}

/* A skipped test does not get to its teardown. */
#define skip_test(reason)                                                                                              \
        do {                                                                                                           \
                teardown();                                                                                            \
                cr_skip_test(reason);                                                                                  \
        } while (0)

TestSuite(entry, .init = setup, .fini = teardown, .timeout = WATCHDOG_S);

/* ---- a layout to play with ------------------------------------------------------------------------------------- */

struct control {
        uint32_t magic;
        uint32_t generation; /* what its creator wrote, to tell one file from the next */
};

static uint32_t next_generation = 1;

static int init(void *map, size_t size, unsigned slot, void *ctx) {
        struct control *c = map;

        (void)ctx;
        for (size_t i = 0; i < size; i++) {
                if (((char *)map)[i] != 0)
                        return -EIO; /* was promised to be zero */
        }
        if (slot != 0)
                return -EIO;
        c->generation = next_generation;
        c->magic = MAGIC;
        return 0;
}

static int check(int fd, size_t size, void *ctx) {
        struct control c;

        (void)ctx;
        if (size < sizeof(c) || pread(fd, &c, sizeof(c), 0) != sizeof(c))
                return -EIO;
        return c.magic == MAGIC ? SLOTS : -EPROTO;
}

static const struct entry_ops ops = {
        .init = init, .check = check, .n_slots = SLOTS, .size_min = sizeof(struct control)};

static uint32_t generation(const struct entry *e) {
        return ((const struct control *)e->map)->generation;
}

static int64_t soon(void) {
        return clock_deadline_ns(INT64_C(8000000000)); /* before the watchdog, so that its sentence is seen */
}

static int create(const char *name, struct entry *ret) {
        return entry_create(base_fd, name, 0600, SIZE, &ops, ret);
}

static int attach(const char *name, struct entry *ret) {
        return entry_attach(base_fd, name, &ops, soon(), ret);
}

static int join(const char *name, struct entry *ret) {
        return entry_open(base_fd, name, 0600, SIZE, &ops, soon(), ret);
}

/* ---- watching ourselves ---------------------------------------------------------------------------------------- */

/* Needs no further descriptor, so it also works when there is none to be had. */
static unsigned fds_open(void) {
        unsigned n = 0;

        for (int fd = 0; fd < 1024; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

/* How many of our maps are of files in the test's directory; @maps_fd: /proc/self/maps. */
static unsigned maps_of_base(int maps_fd) {
        static char text[1 << 18];
        size_t used = 0;
        unsigned n = 0;
        ssize_t got;

        lseek(maps_fd, 0, SEEK_SET);
        while ((got = read(maps_fd, text + used, sizeof(text) - 1 - used)) > 0)
                used += (size_t)got;
        text[used] = '\0';
        for (char *p = text; (p = strstr(p, base)); p++)
                n++;
        return n;
}

static unsigned files_in_base(void) {
        DIR *d = opendir(base);
        struct dirent *e;
        unsigned n = 0;

        while ((e = readdir(d)))
                n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
        closedir(d);
        return n;
}

static bool exists(const char *file) {
        struct stat st;

        return fstatat(base_fd, file, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* The generation in a file of that name, 0 if there is none. */
static uint32_t generation_of(const char *file) {
        struct control c = {0};
        int fd = openat(base_fd, file, O_RDONLY | O_CLOEXEC);

        if (fd >= 0) {
                (void)!read(fd, &c, sizeof(c));
                close(fd);
        }
        return c.generation;
}

/* Is our entry the one its name leads to? */
static bool is_named(const char *file, const struct entry *e) {
        struct stat by_fd, by_name;

        return fstat(e->fd, &by_fd) == 0 && by_fd.st_nlink > 0 &&
               fstatat(base_fd, file, &by_name, AT_SYMLINK_NOFOLLOW) == 0 && by_fd.st_ino == by_name.st_ino &&
               by_fd.st_ino == e->inode;
}

/* ---- children -------------------------------------------------------------------------------------------------- */

static pid_t start(int (*body)(void *), void *ctx) {
        pid_t pid;

        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                alarm(WATCHDOG_S);
                _exit(body(ctx));
        }
        return pid;
}

/* Exit code, or 128 and the signal. */
static int ended(pid_t pid) {
        int status;

        if (pid < 0 || waitpid(pid, &status, 0) != pid)
                return 127;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int in_child(int (*body)(void *), void *ctx) {
        return ended(start(body, ctx));
}

/* Opens or joins "x", stops itself, and holds the slot for whatever the parent does to it then. */
static int hold(void *ctx) {
        struct entry e;

        (void)ctx;
        if (join("x", &e) < 0)
                return 1;
        raise(SIGSTOP);
        if (!is_named("x.psy", &e))
                return 2;
        return entry_leave(base_fd, "x", &e) < 0 ? 3 : 0;
}

static pid_t start_holder(void) {
        pid_t pid = start(hold, NULL);
        int status;

        cr_assert(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status), "holder did not get its slot");
        return pid;
}

static void kill_and_reap(pid_t pid) {
        kill(pid, SIGKILL);
        cr_assert_eq(ended(pid), 128 + SIGKILL);
}

/* ---- system calls that fail ------------------------------------------------------------------------------------ */

struct refusal {
        int nr;
        int arg; /* only with this argument ..., -1: always */
        uint32_t value;
        int error; /* 0: kill the process there */
};

static int refuse(const struct refusal *f) {
        struct sock_filter with_arg[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)f->nr, 0, 3),
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                        (uint32_t)(offsetof(struct seccomp_data, args) + 8 * (unsigned)(f->arg < 0 ? 0 : f->arg))),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, f->value, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, f->error ? SECCOMP_RET_ERRNO | (uint32_t)f->error : SECCOMP_RET_KILL_PROCESS),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {.len = 6, .filter = with_arg};

        if (f->arg < 0) { /* skip the look at the argument */
                with_arg[1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)f->nr, 2, 3);
                with_arg[2] = with_arg[3] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        }
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
                return SKIPPED;
        return 0;
}

/* ---- creating -------------------------------------------------------------------------------------------------- */

Test(entry, appears_complete_with_its_mode_and_its_slot_taken) {
        unsigned before = fds_open();
        struct entry e = ENTRY_NULL;
        struct stat st;
        mode_t mask;
        int fd;

        mask = umask(0777); /* the mode asked for is the mode given */
        cr_assert_eq(entry_create(base_fd, "x", 0640, SIZE, &ops, &e), 0, "%s", error_get());
        umask(mask);
        cr_expect(is_named("x.psy", &e));
        cr_expect_eq(e.slot, 0);
        cr_expect_eq(e.n_slots, SLOTS);
        cr_expect_eq(e.size, SIZE);
        cr_expect_eq(fcntl(e.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        cr_assert_eq(fstat(e.fd, &st), 0);
        cr_expect_eq(st.st_mode & 07777, 0640);
        cr_expect_eq(st.st_size, SIZE);
        cr_expect_geq(st.st_blocks * 512, SIZE, "not fully allocated");
        cr_expect_eq(generation_of("x.psy"), generation(&e));

        /* An onlooker may be unable to write. */
        fd = openat(base_fd, "x.psy", O_RDONLY | O_CLOEXEC);
        cr_expect_eq(entry_fd_slot_alive(fd, 0), 1);
        cr_expect_eq(entry_fd_slot_alive(fd, 1), 0);
        cr_expect_eq(entry_fd_any_alive(fd), 1);
        cr_expect_eq(entry_slot_alive(&e, 0), 1);
        cr_expect_eq(entry_slot_alive(&e, 1), 0);
        cr_expect_eq(entry_others_alive(&e), 0);
        entry_close(&e);
        cr_expect_eq(entry_fd_any_alive(fd), 0);
        close(fd);
        cr_expect_eq(e.fd, -1);
        entry_close(&e); /* the NULL form is safe */
        cr_expect_eq(fds_open(), before);
}

Test(entry, is_not_created_over_an_existing_name) {
        struct entry first, second = {.fd = 12345};
        unsigned before;

        cr_assert_eq(create("x", &first), 0);
        before = fds_open();
        cr_expect_eq(create("x", &second), -EEXIST);
        cr_expect_eq(second.fd, 12345);
        cr_expect_eq(fds_open(), before);
        cr_expect(is_named("x.psy", &first));
        entry_close(&first);
}

static int init_fails(void *map, size_t size, unsigned slot, void *ctx) {
        (void)map, (void)size, (void)slot, (void)ctx;
        return -EDOM;
}

static int init_dies(void *map, size_t size, unsigned slot, void *ctx) {
        init(map, size, slot, ctx);
        raise(SIGKILL);
        return 0;
}

static int create_dying(void *ctx) {
        struct entry_ops o = ops;
        struct entry e;

        (void)ctx;
        o.init = init_dies;
        return entry_create(base_fd, "x", 0600, SIZE, &o, &e);
}

static int create_dying_at_link(void *ctx) {
        struct entry e;
        int r;

        (void)ctx;
        r = refuse(&(struct refusal){.nr = SYS_linkat, .arg = -1});
        return r ? r : create("x", &e);
}

/* Killed between the nameless file and its name: with contents half written, and with all done but the name. */
Test(entry, leaves_nothing_when_its_creator_dies_before_the_name) {
        cr_expect_eq(in_child(create_dying, NULL), 128 + SIGKILL);
        cr_expect_eq(files_in_base(), 0);
        cr_expect_eq(in_child(create_dying_at_link, NULL), 128 + SIGSYS);
        cr_expect_eq(files_in_base(), 0);
}

Test(entry, passes_on_what_init_says) {
        unsigned before = fds_open();
        struct entry_ops o = ops;
        struct entry e;

        o.init = init_fails;
        cr_expect_eq(entry_create(base_fd, "x", 0600, SIZE, &o, &e), -EDOM);
        cr_expect_eq(entry_open(base_fd, "x", 0600, SIZE, &o, soon(), &e), -EDOM);
        cr_expect_eq(files_in_base(), 0);
        cr_expect_eq(fds_open(), before);
}

static bool write_text(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

        close(fd);
        return ok;
}

/* Mounts over base, for this process alone. */
static int mount_over_base(const char *type, const char *options) {
        char uid_map[64], gid_map[64];

        snprintf(uid_map, sizeof(uid_map), "%u %u 1", geteuid(), geteuid());
        snprintf(gid_map, sizeof(gid_map), "%u %u 1", getegid(), getegid());
        if (unshare(CLONE_NEWNS) < 0) {
                if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 || !write_text("/proc/self/uid_map", uid_map) ||
                        !write_text("/proc/self/setgroups", "deny") || !write_text("/proc/self/gid_map", gid_map))
                        return SKIPPED;
        }
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("t", base, type, 0, options) < 0)
                return SKIPPED;
        return 0;
}

static int create_on_full_tmpfs(void *ctx) {
        unsigned before;
        struct entry e;
        int fd;

        (void)ctx;
        if (mount_over_base("tmpfs", "size=64k,nr_inodes=3") != 0)
                return SKIPPED;
        fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        before = fds_open();
        if (entry_create(fd, "x", 0600, 1 << 20, &ops, &e) != -ENOSPC || !strstr(error_get(), "full"))
                return 1;
        if (entry_create(fd, "x", 0600, SIZE, &ops, &e) != 0) /* the room came back, and the inode */
                return 2;
        if (entry_create(fd, "y", 0600, SIZE, &ops, &e) != 0)
                return 3;
        before += 2;
        if (entry_create(fd, "z", 0600, SIZE, &ops, &e) != -ENOSPC || !strstr(error_get(), "inode"))
                return 4;
        return fds_open() == before ? 0 : 5;
}

Test(entry, says_that_the_tmpfs_is_full) {
        int code = in_child(create_on_full_tmpfs, NULL);

        if (code == SKIPPED)
                skip_test("no right to mount");
        cr_expect_eq(code, 0, "step %d", code);
}

static int create_on_ramfs(void *ctx) {
        struct entry e, second;
        int fd;

        (void)ctx;
        if (mount_over_base("ramfs", NULL) != 0)
                return SKIPPED;
        fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (entry_create(fd, "x", 0600, SIZE, &ops, &e) < 0)
                return 1;
        return entry_attach(fd, "x", &ops, soon(), &second) == 0 && second.slot == 1 ? 0 : 2;
}

/* ramfs has no fallocate(). */
Test(entry, lives_on_ramfs_too) {
        int code = in_child(create_on_ramfs, NULL);

        if (code == SKIPPED)
                skip_test("no right to mount a ramfs");
        cr_expect_eq(code, 0, "step %d", code);
}

/* ---- joining --------------------------------------------------------------------------------------------------- */

/* All in one process: each entry has a description of its own, so they exclude each other like strangers. */
Test(entry, gives_everybody_a_slot_of_their_own) {
        struct entry e[SLOTS], one_more = {.fd = 12345};
        unsigned before;

        cr_expect_eq(attach("x", &e[0]), -ENOENT);
        cr_assert_eq(create("x", &e[0]), 0);
        for (unsigned i = 1; i < SLOTS; i++) {
                cr_assert_eq(attach("x", &e[i]), 0, "%s", error_get());
                cr_expect_eq(e[i].slot, i);
                cr_expect_eq(e[i].inode, e[0].inode);
                cr_expect_eq(e[i].size, SIZE);
                cr_expect_eq(e[i].n_slots, SLOTS);
        }
        ((volatile char *)e[0].map)[100] = 'c';
        cr_expect_eq(((volatile char *)e[1].map)[100], 'c', "the map is not shared");

        before = fds_open();
        cr_expect_eq(attach("x", &one_more), -EUSERS);
        cr_expect_eq(one_more.fd, 12345);
        cr_expect_eq(join("x", &one_more), -EUSERS);
        cr_expect_eq(fds_open(), before);

        cr_expect_eq(entry_slot_alive(&e[0], 2), 1);
        entry_close(&e[2]);
        cr_expect_eq(entry_slot_alive(&e[0], 2), 0);
        cr_expect_eq(entry_slot_alive(&e[0], 3), 1);
        cr_assert_eq(attach("x", &e[2]), 0);
        cr_expect_eq(e[2].slot, 2);
        for (unsigned i = 0; i < SLOTS; i++) {
                cr_expect_eq(entry_others_alive(&e[i]), i < SLOTS - 1);
                entry_close(&e[i]);
        }
}

static int may_take_only(const void *map, unsigned slot, void *ctx) {
        if (((const struct control *)map)->magic != MAGIC)
                return -EIO;
        return slot == *(unsigned *)ctx;
}

/* Says yes without the lock and no under it, as when the slot changed in between. */
static int may_take_changes(const void *map, unsigned slot, void *ctx) {
        unsigned *asked = ctx;

        (void)map;
        return slot == 1 ? ++*asked == 1 : slot == 3;
}

static int may_take_fails(const void *map, unsigned slot, void *ctx) {
        (void)map, (void)slot, (void)ctx;
        return -EDOM;
}

Test(entry, respects_a_veto_on_slots) {
        struct entry_ops o = ops;
        struct entry e, f, g;
        unsigned want = 2, asked = 0, before;

        cr_assert_eq(create("x", &e), 0);
        o.may_take = may_take_only;
        o.ctx = &want;
        cr_assert_eq(entry_attach(base_fd, "x", &o, soon(), &f), 0);
        cr_expect_eq(f.slot, 2);
        before = fds_open();
        cr_expect_eq(entry_attach(base_fd, "x", &o, soon(), &g), -EUSERS);
        o.may_take = may_take_fails;
        cr_expect_eq(entry_attach(base_fd, "x", &o, soon(), &g), -EDOM);
        cr_expect_eq(fds_open(), before);

        o.may_take = may_take_changes;
        o.ctx = &asked;
        cr_assert_eq(entry_attach(base_fd, "x", &o, soon(), &g), 0);
        cr_expect_eq(asked, 2);
        cr_expect_eq(g.slot, 3);
        cr_expect_eq(entry_slot_alive(&e, 1), 0, "a vetoed slot must be given back");
        entry_close(&g);
        entry_close(&f);
        entry_close(&e);
}

/* A file somebody lives in: we lock a slot's byte on it ourselves. */
static int live_file(const char *file, size_t size, uint32_t magic) {
        struct control c = {.magic = magic};
        struct flock fl = {.l_type = F_WRLCK, .l_start = ENTRY_LOCK_BASE, .l_len = 1};
        int fd = openat(base_fd, file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        cr_assert_geq(fd, 0);
        cr_assert_eq(pwrite(fd, &c, sizeof(c), 0), sizeof(c));
        cr_assert_eq(ftruncate(fd, (off_t)size), 0);
        cr_assert_eq(fcntl(fd, F_OFD_SETLK, &fl), 0);
        return fd;
}

static int check_claims(int fd, size_t size, void *ctx) {
        (void)fd, (void)size;
        return *(int *)ctx;
}

Test(entry, refuses_files_that_are_not_control_files) {
        int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC), fd, claim;
        struct entry_ops o = ops;
        unsigned before;
        struct entry e;

        fd = live_file("x.psy", SIZE, MAGIC + 1);
        before = fds_open();
        cr_expect_eq(attach("x", &e), -EPROTO); /* check()'s word */
        cr_expect_eq(join("x", &e), -EPROTO);   /* and a living one is not replaced for it */
        o.check = check_claims;
        o.ctx = &claim;
        claim = 0;
        cr_expect_eq(entry_attach(base_fd, "x", &o, soon(), &e), -EPROTO);
        claim = ENTRY_SLOTS_MAX + 1;
        cr_expect_eq(entry_attach(base_fd, "x", &o, soon(), &e), -EPROTO);
        claim = ENTRY_SLOTS_MAX;
        cr_assert_eq(entry_attach(base_fd, "x", &o, soon(), &e), 0);
        entry_close(&e);

        cr_assert_eq(ftruncate(fd, sizeof(struct control) - 1), 0);
        cr_expect_eq(attach("x", &e), -EPROTO);
        cr_expect(strstr(error_get(), "7 bytes"), "%s", error_get());
        cr_assert_eq(ftruncate(fd, 0), 0);
        o.size_min = 0;
        cr_expect_eq(entry_attach(base_fd, "x", &o, soon(), &e), -EPROTO); /* nothing to map */
        cr_expect_eq(fds_open(), before);
        close(fd);
        unlinkat(base_fd, "x.psy", 0);

        fd = live_file("other", SIZE, MAGIC);
        before = fds_open();
        cr_assert_eq(symlinkat("other", base_fd, "x.psy"), 0);
        cr_expect_eq(attach("x", &e), -EPROTO);
        cr_expect_eq(entry_sweep(base_fd, "x"), -EPROTO);
        unlinkat(base_fd, "x.psy", 0);
        cr_assert_eq(mkdirat(base_fd, "x.psy", 0700), 0);
        cr_expect_eq(join("x", &e), -EPROTO);
        unlinkat(base_fd, "x.psy", AT_REMOVEDIR);
        cr_assert_eq(mkfifoat(base_fd, "x.psy", 0600), 0);
        cr_expect_eq(join("x", &e), -EPROTO);
        unlinkat(base_fd, "x.psy", 0);
        cr_expect_eq(fds_open(), before);
        close(fd);
        cr_expect_eq(maps_of_base(maps), 0);
        close(maps);
}

Test(entry, refuses_a_strangers_file) {
        struct entry e;
        int fd = live_file("x.psy", SIZE, MAGIC);

        if (fchown(fd, geteuid() + 4711, (gid_t)-1) < 0)
                skip_test("only root can give a file away");
        cr_expect_eq(join("x", &e), -EACCES);
        cr_expect(strstr(error_get(), "belongs to"));
        close(fd);
        cr_expect_eq(entry_sweep(base_fd, "x"), -EACCES);
}

/* ---- dying ----------------------------------------------------------------------------------------------------- */

Test(entry, frees_the_slot_of_the_killed_and_keeps_that_of_the_stopped) {
        struct entry e;
        pid_t pid;

        cr_assert_eq(create("x", &e), 0);
        pid = start_holder();
        cr_expect_eq(entry_slot_alive(&e, 1), 1, "stopped is not dead");
        cr_expect_eq(entry_others_alive(&e), 1);
        entry_close(&e);
        cr_expect_eq(entry_sweep(base_fd, "x"), 0);
        cr_expect(exists("x.psy"));

        cr_assert_eq(attach("x", &e), 0);
        kill_and_reap(pid);
        cr_expect_eq(entry_slot_alive(&e, 1), 0);
        cr_expect_eq(entry_others_alive(&e), 0);
        entry_close(&e);
}

static void touch(const char *file) {
        int fd = openat(base_fd, file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

        cr_assert_geq(fd, 0);
        close(fd);
}

/* Twice, to see that the newer of two dead replaces the older. */
Test(entry, moves_the_dead_aside_and_keeps_the_latest) {
        unsigned before = fds_open();
        char own[64], own_new[64], not_own[64];
        struct entry e;
        struct stat st;

        cr_expect_eq(entry_sweep(base_fd, "x"), -ENOENT);
        for (uint32_t round = 1; round <= 2; round++) {
                next_generation = 100 + round;
                kill_and_reap(start_holder());
                cr_expect_eq(generation_of("x.psy"), 100 + round);

                cr_assert_eq(fstatat(base_fd, "x.psy", &st, 0), 0);
                snprintf(own, sizeof(own), "%lx.3", (unsigned long)st.st_ino);
                snprintf(own_new, sizeof(own_new), "%lx.12.new", (unsigned long)st.st_ino);
                /* A channel may be called like a socket. */
                snprintf(not_own, sizeof(not_own), "%lx.3.psy", (unsigned long)st.st_ino);
                touch(own);
                touch(own_new);
                touch(not_own);

                cr_expect_eq(attach("x", &e), -EOWNERDEAD);
                cr_expect(exists("x.psy"), "joining must not sweep");
                next_generation = 200 + round;
                if (round == 1) {
                        cr_expect_eq(entry_sweep(base_fd, "x"), 1);
                        cr_expect_eq(entry_sweep(base_fd, "x"), -ENOENT);
                } else {
                        cr_expect_eq(join("x", &e), 1, "%s", error_get());
                        cr_expect_eq(generation(&e), 202);
                        cr_expect(is_named("x.psy", &e));
                        cr_expect_eq(entry_leave(base_fd, "x", &e), 1);
                }
                cr_expect(!exists("x.psy"));
                cr_expect_eq(generation_of("x.dead"), 100 + round);
                cr_expect(!exists(own) && !exists(own_new), "sockets of the dead");
                cr_expect(exists(not_own), "another channel's file");
        }
        cr_expect_eq(fds_open(), before);
}

/* Whatever a dead file holds, nobody needs it: another version's layout, or nothing. */
Test(entry, sweeps_a_dead_file_without_believing_it) {
        struct entry e;

        close(live_file("x.psy", SIZE, MAGIC + 1));
        cr_expect_eq(join("x", &e), 1, "%s", error_get());
        entry_leave(base_fd, "x", &e);
        touch("x.psy");
        cr_expect_eq(join("x", &e), 1, "%s", error_get());
        entry_leave(base_fd, "x", &e);
}

/* check() runs after life was seen and before a slot is locked: here the last holder dies and is swept just then. */
static int check_while_swept(int fd, size_t size, void *ctx) {
        pid_t *holder = ctx;

        if (*holder) {
                kill(*holder, SIGKILL);
                if (ended(*holder) != 128 + SIGKILL || entry_sweep(base_fd, "x") != 1)
                        return -EDOM;
                *holder = 0;
        }
        return check(fd, size, ctx);
}

Test(entry, starts_over_when_swept_between_looking_and_locking) {
        pid_t holder = start_holder();
        struct entry_ops o = ops;
        struct entry e;

        o.check = check_while_swept;
        o.ctx = &holder;
        cr_expect_eq(entry_attach(base_fd, "x", &o, soon(), &e), -ENOENT, "%s", error_get());

        holder = start_holder();
        cr_assert_eq(entry_open(base_fd, "x", 0600, SIZE, &o, soon(), &e), 1, "%s", error_get());
        cr_expect(is_named("x.psy", &e));
        entry_close(&e);
}

/* The same, but the one who saw it alive locks before the sweeper comes: then it lives on. */
static int check_while_dying(int fd, size_t size, void *ctx) {
        pid_t *holder = ctx;

        kill(*holder, SIGKILL);
        return ended(*holder) == 128 + SIGKILL ? check(fd, size, ctx) : -EDOM;
}

Test(entry, stays_alive_when_the_last_holder_dies_during_a_join) {
        pid_t holder = start_holder();
        struct entry_ops o = ops;
        struct entry e, f;

        o.check = check_while_dying;
        o.ctx = &holder;
        cr_assert_eq(entry_attach(base_fd, "x", &o, soon(), &e), 0);
        cr_expect_eq(entry_sweep(base_fd, "x"), 0);
        cr_expect_eq(attach("x", &f), 0);
        entry_close(&f);
        entry_close(&e);
}

/* A sweeper that is stopped in the middle: nobody is alive, nobody can join, and nobody waits beyond the deadline. */
Test(entry, does_not_wait_for_a_stopped_sweeper_beyond_the_deadline) {
        struct flock whole = {.l_type = F_WRLCK};
        unsigned before;
        struct entry e;
        int fd, look;

        touch("x.psy");
        fd = openat(base_fd, "x.psy", O_RDWR | O_CLOEXEC);
        look = openat(base_fd, "x.psy", O_RDONLY | O_CLOEXEC);
        cr_assert_eq(fcntl(fd, F_OFD_SETLK, &whole), 0);
        before = fds_open();
        cr_expect_eq(entry_fd_any_alive(look), 0);
        cr_expect_eq(entry_fd_slot_alive(look, 0), 0);
        cr_expect_eq(entry_sweep(base_fd, "x"), -EAGAIN);
        cr_expect_eq(entry_attach(base_fd, "x", &ops, clock_deadline_ns(0), &e), -ETIME);
        cr_expect_eq(entry_open(base_fd, "x", 0600, SIZE, &ops, clock_deadline_ns(20000000), &e), -ETIME);
        cr_expect_eq(fds_open(), before);
        close(fd);
        cr_expect_eq(join("x", &e), 1);
        entry_close(&e);
        close(look);
}

/* ---- fork ------------------------------------------------------------------------------------------------------ */

struct forker {
        bool closes;    /* the child calls entry_after_fork_child() */
        int ready[2];   /* the child says that it has */
        int release[2]; /* the child lives until this is closed */
};

static int hold_and_fork(void *ctx) {
        struct forker *f = ctx;
        struct entry e;
        char c = 0;

        if (create("x", &e) < 0)
                return 1;
        if (fork() == 0) {
                alarm(WATCHDOG_S);
                close(f->release[1]);
                if (f->closes)
                        entry_after_fork_child(&e);
                (void)!write(f->ready[1], &c, 1);
                (void)!read(f->release[0], &c, 1);
                _exit(0);
        }
        pause();
        return 2;
}

/*
 * Without the call the lock outlives its killed owner in the child: that is the kernel's rule, and shown here too, so
 * that the half with the call proves something.
 */
Test(entry, is_not_kept_alive_by_a_forked_child) {
        for (int closes = 0; closes <= 1; closes++) {
                struct forker f = {.closes = closes};
                pid_t pid;
                char c;
                int fd;

                cr_assert(pipe(f.ready) == 0 && pipe(f.release) == 0);
                pid = start(hold_and_fork, &f);
                close(f.ready[1]);
                cr_assert_eq(read(f.ready[0], &c, 1), 1);
                fd = openat(base_fd, "x.psy", O_RDONLY | O_CLOEXEC);
                cr_expect_eq(entry_fd_slot_alive(fd, 0), 1, "the child's close() must not give the parent's slot away");
                kill_and_reap(pid);
                cr_expect_eq(entry_fd_slot_alive(fd, 0), !closes);
                if (closes)
                        cr_expect_eq(entry_sweep(base_fd, "x"), 1);
                close(f.release[1]);
                if (!closes) { /* the child ends now, and with it the lock; then the name is free for the next round */
                        int64_t until = soon();
                        int r;

                        while (((r = entry_sweep(base_fd, "x")) == 0 || r == -EAGAIN) && clock_ns() < until)
                                sched_yield();
                        cr_assert_eq(r, 1);
                }
                close(fd);
                close(f.ready[0]);
                close(f.release[0]);
        }
}

static int touch_inherited_map(void *ctx) {
        struct entry *e = ctx;
        void *map = e->map;

        signal(SIGSEGV, SIG_DFL); /* a sanitizer would make an exit code of it */
        entry_after_fork_child(e);
        if (e->fd != -1 || e->map != map)
                return 1;
        /* The addresses stay reserved: a new map must not land there. */
        if (mmap(map, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED)
                return 2;
        return *(volatile int *)map;
}

static int close_inherited(void *ctx) {
        int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
        struct entry *e = ctx;

        entry_after_fork_child(e);
        if (maps_of_base(maps) != 0)
                return 1;
        entry_close(e);
        return e->fd == -1 && !e->map ? 0 : 2;
}

Test(entry, faults_when_a_forked_child_touches_the_map) {
        struct entry e;

        cr_assert_eq(create("x", &e), 0);
        cr_expect_eq(in_child(touch_inherited_map, &e), 128 + SIGSEGV);
        cr_expect_eq(in_child(close_inherited, &e), 0);
        cr_expect_eq(generation(&e), next_generation, "the parent's map");
        cr_expect_eq(entry_sweep(base_fd, "x"), 0, "the parent's slot");
        entry_close(&e);
}

/* ---- leaving --------------------------------------------------------------------------------------------------- */

Test(entry, is_removed_by_the_last_one_out) {
        unsigned before = fds_open();
        struct entry e, f;

        cr_assert_eq(create("x", &e), 0);
        cr_assert_eq(attach("x", &f), 0);
        cr_expect_eq(entry_leave(base_fd, "x", &e), 0);
        cr_expect_eq(e.fd, -1);
        cr_expect(is_named("x.psy", &f));
        cr_expect_eq(entry_leave(base_fd, "x", &f), 1);
        cr_expect_eq(files_in_base(), 0, "a clean end leaves no .dead");
        cr_expect_eq(fds_open(), before);
}

Test(entry, leaves_a_name_alone_that_leads_elsewhere) {
        struct entry e, f;

        cr_assert_eq(create("x", &e), 0);
        cr_assert_eq(unlinkat(base_fd, "x.psy", 0), 0); /* by hand, against the rules */
        cr_assert_eq(create("x", &f), 0);
        cr_expect_eq(entry_leave(base_fd, "x", &e), 0);
        cr_expect(is_named("x.psy", &f));
        entry_leave(base_fd, "x", &f);
}

struct gate {
        int open[2];
};

/* Joins, reports, waits for the gate, leaves; exit code 1 if it was the last one out. */
static int leave_together(void *ctx) {
        struct gate *g = ctx;
        struct entry e;
        int r;
        char c;

        r = join("x", &e);
        if (r < 0)
                return 10;
        close(g->open[1]);
        raise(SIGSTOP);
        (void)!read(g->open[0], &c, 1);
        r = entry_leave(base_fd, "x", &e);
        return r < 0 ? 11 : r;
}

/* Three leave at the same moment. If each only tried once, all could see the others and the name would stay. */
Test(entry, is_removed_by_exactly_one_when_all_leave_together) {
        for (unsigned round = 0; round < 200; round++) {
                struct gate g;
                pid_t pids[3];
                int last = 0, status;

                cr_assert_eq(pipe(g.open), 0);
                for (unsigned i = 0; i < 3; i++) {
                        pids[i] = start(leave_together, &g);
                        cr_assert(waitpid(pids[i], &status, WUNTRACED) == pids[i] && WIFSTOPPED(status));
                }
                for (unsigned i = 0; i < 3; i++)
                        kill(pids[i], SIGCONT);
                close(g.open[0]);
                close(g.open[1]);
                for (unsigned i = 0; i < 3; i++) {
                        int code = ended(pids[i]);

                        cr_assert_lt(code, 10, "round %u: %d", round, code);
                        last += code;
                }
                cr_assert_eq(last, 1, "round %u: %d were last", round, last);
                cr_assert_eq(files_in_base(), 0, "round %u", round);
        }
}

/* ---- races ----------------------------------------------------------------------------------------------------- */

#define RACE_ROUNDS 2000 /* of each racer */
#define RACERS 3         /* one joining, one leaving and one sweeping can meet; with more it hardly ever falls silent */

/* Shared between the racers. */
struct tally {
        unsigned ready, joined, created, swept, lost, removed;
};

struct racer {
        struct tally *tally;
        unsigned seed;
};

/*
 * Opens the name, looks whether it leads to what we got, and goes: by leaving, or like a crash, so that the next one
 * has to sweep. Pauses of random length outside let the entry fall silent, and shift the racers against each other.
 * Sometimes sweeps of its own, as a tool would. Any failure is an exit code.
 */
static int race(void *ctx) {
        struct racer *me = ctx;
        struct tally *t = me->tally;

        __atomic_add_fetch(&t->ready, 1, __ATOMIC_RELAXED);
        while (__atomic_load_n(&t->ready, __ATOMIC_RELAXED) < RACERS)
                sched_yield();
        for (unsigned i = 0; i < RACE_ROUNDS; i++) {
                unsigned dice = (unsigned)rand_r(&me->seed);
                struct entry e;
                int r;

                r = entry_open(base_fd, "x", 0600, SIZE, &ops, soon(), &e);
                if (r < 0)
                        return -r;
                __atomic_add_fetch(r == 1 ? &t->created : &t->joined, 1, __ATOMIC_RELAXED);
                if (dice & 1)
                        sched_yield(); /* others get a chance to take it from us */
                if (!is_named("x.psy", &e) || ((struct control *)e.map)->magic != MAGIC)
                        __atomic_add_fetch(&t->lost, 1, __ATOMIC_RELAXED);
                if (dice & 2) {
                        entry_close(&e);
                } else {
                        r = entry_leave(base_fd, "x", &e);
                        if (r < 0)
                                return -r;
                        __atomic_add_fetch(&t->removed, (unsigned)r, __ATOMIC_RELAXED);
                }
                if (dice & 4) {
                        r = entry_sweep(base_fd, "x");
                        if (r < 0 && r != -ENOENT && r != -EAGAIN)
                                return -r;
                        __atomic_add_fetch(&t->swept, r == 1, __ATOMIC_RELAXED);
                }
                for (unsigned n = (dice >> 8) % 4096; n > 0; n--)
                        cpu_pause();
        }
        return 0;
}

Test(entry, never_joins_what_a_sweeper_takes_away) {
        unsigned seed = (unsigned)clock_ns();
        struct racer racers[RACERS];
        pid_t pids[RACERS];
        struct tally *t;

        t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        cr_assert_neq(t, MAP_FAILED);
        for (unsigned i = 0; i < RACERS; i++) {
                racers[i] = (struct racer){.tally = t, .seed = seed + i};
                pids[i] = start(race, &racers[i]);
        }
        for (unsigned i = 0; i < RACERS; i++) {
                int code = ended(pids[i]);

                cr_expect_eq(code, 0, "seed %u: %s", seed, strerror(code));
        }
        cr_expect_eq(t->lost, 0, "seed %u: %u of %u on an unlinked or another's file", seed, t->lost,
                t->joined + t->created);
        cr_expect_eq(t->joined + t->created, RACERS * RACE_ROUNDS);
        /* Without some of each the race has not taken place. */
        cr_expect(t->joined > 0 && t->created > 1 && t->swept > 0 && t->removed > 0, "seed %u: %u %u %u %u", seed,
                t->joined, t->created, t->swept, t->removed);
        munmap(t, sizeof(*t));
}

/* Takes and gives a slot of whatever bears the name, without end, like many who join and give up at once. */
static int blink(void *ctx) {
        (void)ctx;
        for (;;) {
                struct flock fl = {.l_type = F_WRLCK, .l_start = ENTRY_LOCK_BASE + SLOTS - 1, .l_len = 1};
                int fd = openat(base_fd, "x.psy", O_RDWR | O_CLOEXEC);

                fcntl(fd, F_OFD_SETLK, &fl);
                close(fd);
        }
        return 0;
}

/* The entry may seem dead at one look and alive at the next; whichever it is, open must end with a slot in it. */
Test(entry, decides_for_one_or_the_other_when_life_flickers) {
        pid_t pid = start(blink, NULL);
        unsigned joined = 0;

        for (unsigned round = 0; round < 5000; round++) {
                struct entry e = {.fd = 12345};
                int r;

                r = join("x", &e);
                cr_assert(r == 0 || r == 1, "round %u: %s", round, error_get());
                cr_assert_neq(e.fd, 12345, "round %u: success, and no entry", round);
                cr_assert(is_named("x.psy", &e), "round %u", round);
                joined += r == 0;
                entry_close(&e); /* leaves it to the flicker whether the next finds it dead */
        }
        cr_expect(joined > 0 && joined < 4999, "%u joined: there was no flicker", joined);
        kill_and_reap(pid);
}

static int open_together(void *ctx) {
        struct gate *g = ctx;
        struct entry e;
        char c;
        int r;

        close(g->open[1]);
        (void)!read(g->open[0], &c, 1);
        r = join("x", &e);
        if (r < 0)
                return 10;
        if (!is_named("x.psy", &e) || generation(&e) != next_generation)
                return 11;
        /* Stay until all have come, so that exactly one can have created it. */
        ((volatile char *)e.map)[100 + e.slot] = 1;
        for (unsigned i = 0; i < SLOTS; i++) {
                int64_t until = soon();

                while (!((volatile char *)e.map)[100 + i]) {
                        if (clock_ns() >= until)
                                return 12;
                        sched_yield();
                }
        }
        return entry_leave(base_fd, "x", &e) < 0 ? 13 : r;
}

/* All come at once, to a name that is free or was left behind by a dead one: one creates, the others find it. */
Test(entry, is_created_by_exactly_one_when_all_come_together) {
        for (unsigned round = 0; round < 100; round++) {
                pid_t pids[SLOTS];
                int created = 0;
                struct gate g;

                next_generation = round + 1;
                if (round & 1)
                        close(live_file("x.psy", SIZE, MAGIC));
                cr_assert_eq(pipe(g.open), 0);
                for (unsigned i = 0; i < SLOTS; i++)
                        pids[i] = start(open_together, &g);
                close(g.open[0]);
                close(g.open[1]);
                for (unsigned i = 0; i < SLOTS; i++) {
                        int code = ended(pids[i]);

                        cr_assert_lt(code, 10, "round %u: step %d", round, code);
                        created += code;
                }
                cr_assert_eq(created, 1, "round %u: %d created it", round, created);
                cr_assert(!exists("x.psy"));
        }
}

/* ---- failing system calls -------------------------------------------------------------------------------------- */

enum action { CREATE, ATTACH, OPEN, SWEEP, LEAVE };

struct failure {
        enum action action;
        struct refusal refusal;
};

/* Prepares, makes the call fail, acts, and looks for what is left behind. */
static int act_refused(void *ctx) {
        const struct failure *f = ctx;
        unsigned fds, maps;
        struct entry live = ENTRY_NULL, e = {.fd = 12345};
        int maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
        int r;

        if (f->action == ATTACH && create("x", &live) < 0)
                return 1;
        fds = fds_open();
        maps = maps_of_base(maps_fd);
        if (f->action == LEAVE && create("x", &e) < 0)
                return 2;
        r = refuse(&f->refusal);
        if (r)
                return r;
        error_clear();
        switch (f->action) {
        case CREATE:
                r = create("x", &e);
                break;
        case ATTACH:
                r = attach("x", &e);
                break;
        case OPEN:
                r = join("x", &e);
                break;
        case SWEEP:
                r = entry_sweep(base_fd, "x");
                break;
        case LEAVE:
                r = entry_leave(base_fd, "x", &e);
                break;
        }
        if (r != -f->refusal.error)
                return 3;
        if (strcmp(error_get(), "no error") == 0)
                return 4;
        if (e.fd != (f->action == LEAVE ? -1 : 12345))
                return 5;
        if (fds_open() != fds)
                return 6;
        if (maps_of_base(maps_fd) != maps)
                return 7;
        return 0;
}

Test(entry, leaves_nothing_behind_when_a_system_call_fails) {
        static const struct failure failures[] = {
                {CREATE, {SYS_openat, -1, 0, EMFILE}},
                {CREATE, {SYS_fchmod, -1, 0, EPERM}},
                {CREATE, {SYS_fallocate, -1, 0, ENOSPC}},
                {CREATE, {SYS_fallocate, -1, 0, EIO}},
                {CREATE, {SYS_mmap, 3, MAP_SHARED, ENOMEM}},
                {CREATE, {SYS_fcntl, 1, F_OFD_SETLK, ENOLCK}},
                {CREATE, {SYS_linkat, -1, 0, ENOENT}},
                {CREATE, {SYS_linkat, -1, 0, EXDEV}},
                {ATTACH, {SYS_openat, -1, 0, ENFILE}},
                {ATTACH, {SYS_openat, -1, 0, EACCES}},
                {ATTACH, {SYS_fcntl, 1, F_OFD_GETLK, EINVAL}},
                {ATTACH, {SYS_mmap, 3, MAP_SHARED, ENOMEM}},
                {ATTACH, {SYS_fcntl, 1, F_OFD_SETLK, ENOLCK}},
                {ATTACH, {SYS_newfstatat, 3, AT_SYMLINK_NOFOLLOW, EIO}}, /* by name; fstat() has another flag */
                {OPEN, {SYS_linkat, -1, 0, EPERM}},
                {OPEN, {SYS_openat, -1, 0, EMFILE}},
                {SWEEP, {SYS_fcntl, 1, F_OFD_SETLK, ENOLCK}},
                {SWEEP, {SYS_renameat, -1, 0, EPERM}},
                {LEAVE, {SYS_fcntl, 1, F_OFD_SETLK, ENOLCK}},
                {LEAVE, {SYS_unlinkat, -1, 0, EPERM}},
        };

        for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
                struct failure f = failures[i];
                int code;

                if (f.action == SWEEP)
                        close(live_file("x.psy", SIZE, MAGIC));
                code = in_child(act_refused, &f);
                if (code == SKIPPED)
                        skip_test("no seccomp filters here");
                cr_expect_eq(code, 0, "case %zu: step %d", i, code);
                if (f.action == CREATE || f.action == OPEN)
                        cr_expect_eq(files_in_base(), 0, "case %zu", i);
                unlinkat(base_fd, "x.psy", 0);
        }
}

/* Lets k more descriptors be opened, for every k until it suffices. Exit code: the k that did, or 100 and the step. */
static int open_with_few_descriptors(void *ctx) {
        int lowest = dup(base_fd);

        (void)ctx;
        close(lowest);
        for (int k = 0; k < 16; k++) {
                struct rlimit limit = {.rlim_cur = (rlim_t)(lowest + k), .rlim_max = 1024};
                unsigned before = fds_open(), n_files;
                struct entry e;
                int r;

                if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
                        return 100;
                r = join("x", &e);
                limit.rlim_cur = 1024;
                setrlimit(RLIMIT_NOFILE, &limit);
                n_files = files_in_base();
                if (r == 1)
                        return entry_leave(base_fd, "x", &e) == 1 && fds_open() == before ? k : 101;
                if (r != -EMFILE || n_files != 0 || fds_open() != before)
                        return 102;
        }
        return 103;
}

Test(entry, needs_one_descriptor_and_leaks_none_without) {
        cr_expect_eq(in_child(open_with_few_descriptors, NULL), 1);
}
