/* Where processes meet: which directories are taken, which refused, and who makes the default one. */
#include "base/clock.h"
#include "base/error.h"
#include "lib/directory.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED 77
#define WATCHDOG_S 10
#define STRANGER (geteuid() + 4711) /* neither root nor us */

static char base[64];

static void setup(void) {
        strcpy(base, "/dev/shm/psyne-test-directory-XXXXXX");
        cr_assert_not_null(mkdtemp(base));
        unsetenv(DIRECTORY_ENV);
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

TestSuite(directory, .init = setup, .fini = teardown, .timeout = WATCHDOG_S);

static unsigned fds_open(void) {
        DIR *d = opendir("/proc/self/fd");
        unsigned n = 0;

        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

/* Runs @body in a child; its exit code, or 128 and the signal that ended it. */
static int in_child(int (*body)(void)) {
        int status;
        pid_t pid;

        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                alarm(WATCHDOG_S);
                _exit(body());
        }
        cr_assert_eq(waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void expect_zero_or_skip(int code) {
        if (code == SKIPPED)
                skip_test("no right to make name spaces");
        cr_expect_eq(code, 0, "child's step %d failed", code);
}

static void expect_refused(const char *dir, int error, const char *word) {
        unsigned before = fds_open();
        char path[PATH_MAX] = "untouched";
        int fd = 12345, r;

        error_clear();
        r = directory_open(dir, &fd, path, sizeof(path));
        cr_expect_eq(r, error, "%s: %d (%s)", dir, r, error_get());
        cr_expect_not_null(strstr(error_get(), word), "no \"%s\" in \"%s\"", word, error_get());
        cr_expect(fd == 12345 && strcmp(path, "untouched") == 0, "outputs touched");
        cr_expect_eq(fds_open(), before);
}

Test(directory, opens_the_one_named_before_the_environment) {
        char named[96], other[96], path[PATH_MAX];
        struct stat by_fd, by_path;
        int fd;

        snprintf(named, sizeof(named), "%s/named", base);
        snprintf(other, sizeof(other), "%s/other", base);
        cr_assert(mkdir(named, 0700) == 0 && mkdir(other, 0700) == 0);
        setenv(DIRECTORY_ENV, other, 1);

        cr_assert_eq(directory_open(named, &fd, path, sizeof(path)), 0, "%s", error_get());
        cr_expect_str_eq(path, named);
        cr_assert(fstat(fd, &by_fd) == 0 && stat(named, &by_path) == 0);
        cr_expect_eq(by_fd.st_ino, by_path.st_ino);
        cr_expect_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        close(fd);

        cr_assert_eq(directory_open(NULL, &fd, path, sizeof(path)), 0, "%s", error_get());
        cr_expect_str_eq(path, other);
        close(fd);
        cr_assert_eq(directory_open("", &fd, NULL, 0), 0, "%s", error_get());
        close(fd);
}

Test(directory, refuses_what_is_no_trustworthy_tmpfs_directory) {
        char path[128], link[128];
        int fd;

        expect_refused("relative", -EINVAL, "absolute");
        snprintf(path, sizeof(path), "%s/missing", base);
        expect_refused(path, -ENOENT, "missing");
        cr_expect_eq(access(path, F_OK), -1, "a named directory must not be made");
        expect_refused("/proc", -EXDEV, "tmpfs");

        snprintf(path, sizeof(path), "%s/file", base);
        fd = open(path, O_CREAT | O_WRONLY, 0600);
        close(fd);
        expect_refused(path, -ENOTDIR, "not a directory");

        /* A link is refused, also with the slash that makes even O_NOFOLLOW follow. */
        snprintf(path, sizeof(path), "%s/real", base);
        snprintf(link, sizeof(link), "%s/link", base);
        cr_assert(mkdir(path, 0700) == 0 && symlink(path, link) == 0);
        expect_refused(link, -ENOTDIR, "symbolic");
        strcat(link, "//");
        expect_refused(link, -ENOTDIR, "symbolic");
        strcat(path, "/");
        cr_assert_eq(directory_open(path, &fd, NULL, 0), 0);
        close(fd);

        cr_assert_eq(chmod(path, 0777), 0);
        expect_refused(path, -EACCES, "sticky");
        cr_assert_eq(chmod(path, 01777), 0);
        cr_assert_eq(directory_open(path, &fd, NULL, 0), 0, "%s", error_get());
        close(fd);
}

Test(directory, refuses_a_strangers) {
        if (chown(base, STRANGER, (gid_t)-1) < 0)
                skip_test("only root can give a directory away");
        expect_refused(base, -EACCES, "belongs to");
}

Test(directory, does_not_cut_a_path) {
        char path[64] = "untouched";
        int fd;

        cr_expect_eq(directory_open(base, &fd, path, strlen(base)), -ENAMETOOLONG);
        cr_expect_str_eq(path, "untouched");
        cr_assert_eq(directory_open(base, &fd, path, strlen(base) + 1), 0);
        cr_expect_str_eq(path, base);
        close(fd);
}

static int as_unknown_user(void) {
        int fd, r;

        /* A user name space without a map: every id in it is the one for "unknown". */
        if (unshare(CLONE_NEWUSER) < 0 && setresuid(65534, 65534, 65534) < 0)
                return SKIPPED;
        r = directory_open(base, &fd, NULL, 0);
        return r == -EACCES && strstr(error_get(), "unknown") ? 0 : 1;
}

/* To that user everybody outside looks like himself; base belongs to it as well, so only the rule itself refuses. */
Test(directory, refuses_the_user_id_that_means_unknown) {
        cr_assert_eq(chmod(base, 0755), 0);
        expect_zero_or_skip(in_child(as_unknown_user));
}

static bool write_text(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

        close(fd);
        return ok;
}

/* A mount name space whose /dev/shm is ours alone, so the default directory can be made, spoilt and made again. */
static int private_dev_shm(void) {
        char uid_map[64], gid_map[64];

        snprintf(uid_map, sizeof(uid_map), "%u %u 1", geteuid(), geteuid());
        snprintf(gid_map, sizeof(gid_map), "%u %u 1", getegid(), getegid());
        if (unshare(CLONE_NEWNS) < 0) {
                if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 || !write_text("/proc/self/uid_map", uid_map) ||
                        !write_text("/proc/self/setgroups", "deny") || !write_text("/proc/self/gid_map", gid_map))
                        return SKIPPED;
        }
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
                mount("t", "/dev/shm", "tmpfs", 0, "mode=1777") < 0)
                return SKIPPED;
        return 0;
}

static int default_directory(void) {
        char path[PATH_MAX], want[64];
        struct stat st;
        int fd, r;

        r = private_dev_shm();
        if (r)
                return r;
        snprintf(want, sizeof(want), "/dev/shm/psyne-%u", geteuid());
        umask(0777); /* whatever the umask, it is 0700 */
        if (directory_open(NULL, &fd, path, sizeof(path)) < 0 || strcmp(path, want) != 0)
                return 1;
        if (fstat(fd, &st) < 0 || (st.st_mode & 07777) != 0700 || st.st_uid != geteuid())
                return 2;
        close(fd);
        if (directory_open(NULL, &fd, NULL, 0) < 0) /* and again, now that it is there */
                return 3;
        close(fd);

        /* What somebody else put there first is not used: a link, a file, a stranger's directory. */
        if (rmdir(want) < 0 || mkdir("/dev/shm/elsewhere", 0700) < 0 || symlink("/dev/shm/elsewhere", want) < 0)
                return 4;
        if (directory_open(NULL, &fd, NULL, 0) != -ENOTDIR)
                return 5;
        if (unlink(want) < 0 || mknod(want, S_IFREG | 0600, 0) < 0)
                return 6;
        if (directory_open(NULL, &fd, NULL, 0) != -ENOTDIR)
                return 7;
        if (unlink(want) < 0 || mkdir(want, 0700) < 0)
                return 8;
        if (chown(want, STRANGER, (gid_t)-1) == 0 && directory_open(NULL, &fd, NULL, 0) != -EACCES)
                return 9;
        if (rmdir(want) < 0 || mount("t", "/dev/shm", "tmpfs", MS_REMOUNT | MS_RDONLY, NULL) < 0)
                return 10;
        if (directory_open(NULL, &fd, NULL, 0) != -EROFS || !strstr(error_get(), want))
                return 11;
        return 0;
}

Test(directory, makes_the_default_and_trusts_nothing_found_there) {
        expect_zero_or_skip(in_child(default_directory));
}

/* Eight processes want it at the same moment; the losers of the mkdir must not fail. 100 rounds, for a small window. */
static int default_directory_race(void) {
        char path[64];
        int r;

        r = private_dev_shm();
        if (r)
                return r;
        snprintf(path, sizeof(path), "/dev/shm/psyne-%u", geteuid());
        for (unsigned round = 0; round < 100; round++) {
                int gate[2];

                if (pipe(gate) < 0)
                        return 1;
                for (unsigned i = 0; i < 8; i++) {
                        if (fork() == 0) {
                                char c;
                                int fd;

                                alarm(WATCHDOG_S);
                                close(gate[1]);
                                (void)!read(gate[0], &c, 1); /* returns when the parent closes its end */
                                _exit(directory_open(NULL, &fd, NULL, 0) == 0 ? 0 : 1);
                        }
                }
                close(gate[0]);
                close(gate[1]);
                for (unsigned i = 0; i < 8; i++) {
                        int status;

                        if (wait(&status) < 0 || status != 0)
                                return 2;
                }
                if (rmdir(path) < 0)
                        return 3;
        }
        return 0;
}

Test(directory, is_made_once_when_many_come_at_once) {
        expect_zero_or_skip(in_child(default_directory_race));
}

static int without_descriptors(void) {
        struct rlimit none = {0, 0};
        int fd;

        if (setrlimit(RLIMIT_NOFILE, &none) < 0)
                return 1;
        return directory_open(base, &fd, NULL, 0) == -EMFILE && strstr(error_get(), base) ? 0 : 2;
}

Test(directory, reports_a_full_descriptor_table) {
        expect_zero_or_skip(in_child(without_descriptors));
}
