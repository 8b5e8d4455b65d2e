/*
 * See directory.h. Everything is checked on the open descriptor, never on the path again: /dev/shm is writable for
 * everybody, so what a path means may change between two looks.
 */
#include "lib/directory.h"

#include "base/cleanup.h"
#include "base/error.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define OVERFLOW_UID_DEFAULT 65534 /* the kernel's own, include/linux/highuid.h */
#define MAKE_TRIES_MAX 16          /* made and removed again under our feet; chosen by feel */

/* The user id the kernel shows for "nobody this name space knows". */
static uid_t overflow_uid(void) {
        _cleanup_(cleanup_closep) int fd = -1;
        char text[16] = "";

        fd = open("/proc/sys/kernel/overflowuid", O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
                return OVERFLOW_UID_DEFAULT;
        return (uid_t)strtoul(text, NULL, 10);
}

static int open_only(const char *path, int *ret_fd) {
        int fd;

        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        *ret_fd = fd;
        return 0;
}

/* Two processes may do this at once: whoever loses the mkdir just opens what the other made. */
static int open_or_make(const char *path, int *ret_fd) {
        for (unsigned i = 0; i < MAKE_TRIES_MAX; i++) {
                int r;

                r = open_only(path, ret_fd);
                if (r != -ENOENT)
                        return r;
                if (mkdir(path, 0700) < 0) {
                        if (errno != EEXIST)
                                return -errno;
                        continue;
                }
                /*
                 * A umask may have taken away what we need to open it. By path, but not through a link; and what we
                 * made in a sticky directory nobody else can replace.
                 */
                if (fchmodat(AT_FDCWD, path, 0700, AT_SYMLINK_NOFOLLOW) < 0)
                        return -errno;
        }
        return -ENOENT;
}

static int check(int fd, const char *path) {
        struct statfs fs;
        struct stat st;

        if (fstat(fd, &st) < 0)
                return error_set(-errno, "%s: cannot be examined: %m", path);
        if (st.st_uid != 0 && st.st_uid != geteuid())
                return error_set(-EACCES,
                        "%s belongs to user %u, not to us (%u) or root: whoever owns it could replace channels", path,
                        st.st_uid, geteuid());
        if ((st.st_mode & S_IWOTH) && !(st.st_mode & S_ISVTX))
                return error_set(-EACCES, "%s is writable for everybody and not sticky: chmod +t or 0700 it", path);
        if (fstatfs(fd, &fs) < 0)
                return error_set(-errno, "%s: its file system cannot be examined: %m", path);
        if (fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC)
                return error_set(-EXDEV,
                        "%s is not on a tmpfs (file system type 0x%lx): name a directory below /dev/shm or /run", path,
                        (unsigned long)fs.f_type);
        return 0;
}

int directory_open(const char *explicit_dir, int *ret_fd, char *ret_path, size_t n) {
        _cleanup_(cleanup_closep) int fd = -1;
        char path[PATH_MAX];
        bool make = false;
        size_t length;
        int r;

        /*
         * Under that id, everybody whose id our name space does not know looks like ourselves, and every ownership
         * check below and at the handshake would pass.
         */
        if (geteuid() == overflow_uid())
                return error_set(-EACCES,
                        "our user id %u is the one that stands for unknown users: ipc:// cannot tell "
                        "friend from stranger; map a real user id",
                        geteuid());

        if (!explicit_dir || !explicit_dir[0])
                explicit_dir = secure_getenv(DIRECTORY_ENV);
        if (explicit_dir && explicit_dir[0]) {
                if (explicit_dir[0] != '/')
                        return error_set(-EINVAL, "directory \"%.80s\" is not an absolute path", explicit_dir);
                length = strlen(explicit_dir);
                if (length >= sizeof(path))
                        return error_set(
                                -ENAMETOOLONG, "the directory's path is longer than %zu bytes", sizeof(path) - 1);
                memcpy(path, explicit_dir, length + 1);
                /* With a slash at the end even O_NOFOLLOW follows. */
                while (length > 1 && path[length - 1] == '/')
                        path[--length] = '\0';
        } else {
                length = (size_t)snprintf(path, sizeof(path), "/dev/shm/psyne-%u", geteuid());
                make = true;
        }
        if (ret_path && length >= n)
                return error_set(-ENAMETOOLONG, "%.80s: longer than the %zu bytes there are for it", path, n);

        r = make ? open_or_make(path, &fd) : open_only(path, &fd);
        if (r == -ENOENT && make)
                return error_set(r, "%s cannot be made: mount a tmpfs at /dev/shm, or set " DIRECTORY_ENV, path);
        if (r == -ENOENT)
                return error_set(r, "%s does not exist, and only the default directory is made by itself", path);
        if (r == -ENOTDIR || r == -ELOOP)
                return error_set(-ENOTDIR, "%s is not a directory (symbolic links are not followed)", path);
        if (r < 0)
                return error_set(r, "%s cannot be opened: %s", path, strerror(-r));
        r = check(fd, path);
        if (r < 0)
                return r;

        if (ret_path)
                memcpy(ret_path, path, length + 1);
        *ret_fd = steal_fd(&fd);
        return 0;
}
