/*
 * See psyne/stat.h. Control files are read with pread(2) into a private buffer and judged there. Not mapped: whoever
 * may write the file may cut it short, and a touch of what is gone would be a signal; a pread is only short.
 *
 * The owners go on while we read, so the order of looks decides which nonsense can show up:
 *
 *      1   the pages up to the cursors     those are taken from here
 *      2   the slots' locks
 *      3   the pages                       everything else
 *
 * 1 before 3: a tail is never older than the positions compared with it, so a lag never comes out negative, and "sent"
 *     is never behind "received" by more than what its producer has committed and not counted yet.
 * 2 before 3: who leaves in order marks its row free, then lets go of the slot. A row that still says active in 3
 *     although the slot was free in 2 is of a dead one. The other way round an orderly leave could look like a death.
 *     Who joins bumps its row's generation: one that differs between 1 and 3 is of somebody who came after 2.
 */
#include "psyne/stat.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "lib/directory.h"
#include "lib/stat-fill.h"
#include "lib/uri.h"

#define READ_ALIGN 64u /* a read that starts in the middle of a word may tear it, one at a line never did */
#define READ_TRIES 4u  /* lanes that change hands between two looks; chosen by feel */

struct psyne_stat_dir {
        DIR *stream;    /* NULL: there is no such directory */
        uint64_t pidns; /* ours, 0 = not known */
        char path[PATH_MAX];
};

static void look_deinit(struct stat_look *l) {
        free(l->first);
        free(l->second);
        if (l->fd >= 0)
                close(l->fd);
}

/* ---- directory --------------------------------------------------------------------------------------------------- */

/*
 * Opens a directory of channels for reading; makes nothing. @dir NULL or "": the one where this user's channels meet,
 * $PSYNE_DIR or else /dev/shm/psyne-$UID. The latter must be ours or root's, as for psyne_open(); a directory that was
 * asked for by name may be anybody's and on any file system, because what is read is not believed anyway.
 *
 * 0; 1 it does not exist, which is the same as one without channels; -ENOTDIR; -EACCES; -ENAMETOOLONG; -ENOMEM. The
 * caller frees *@ret with psyne_stat_close_dir().
 */
int psyne_stat_open_dir(const char *dir, struct psyne_stat_dir **ret) {
        CANCEL_HOLD;
        _cleanup_(cleanup_freep) struct psyne_stat_dir *d = NULL;
        struct stat st;
        bool ours = false;
        int fd, n;

        if (!ret)
                return error_set(-EINVAL, "psyne_stat_open_dir: no result");
        d = calloc(1, sizeof(*d));
        if (!d)
                return error_set(-ENOMEM, "no memory for a directory");
        if (!dir || !dir[0])
                dir = secure_getenv(DIRECTORY_ENV);
        if (dir && dir[0])
                n = snprintf(d->path, sizeof(d->path), "%s", dir);
        else {
                ours = true;
                n = snprintf(d->path, sizeof(d->path), "/dev/shm/psyne-%u", geteuid());
        }
        if (n < 0 || (size_t)n >= sizeof(d->path))
                return error_set(-ENAMETOOLONG, "the directory's path is longer than %zu bytes", sizeof(d->path) - 1);
        if (stat("/proc/self/ns/pid", &st) == 0)
                d->pidns = st.st_ino;

        fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK | (ours ? O_NOFOLLOW : 0));
        if (fd < 0 && errno == ENOENT) {
                *ret = steal_ptr(d);
                return 1;
        }
        if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
                return error_set(-ENOTDIR, "%s is not a directory", d->path);
        if (fd < 0)
                return error_set(-errno, "%s cannot be opened: %m", d->path);
        if (ours && (fstat(fd, &st) < 0 || (st.st_uid != 0 && st.st_uid != geteuid()))) {
                close(fd);
                return error_set(-EACCES,
                        "%s belongs to user %u, not to us (%u) or root: name it to see it all the same", d->path,
                        st.st_uid, geteuid());
        }
        d->stream = fdopendir(fd);
        if (!d->stream) {
                n = -errno;
                close(fd);
                return error_set(n, "%s cannot be listed: %s", d->path, strerror(-n));
        }
        *ret = steal_ptr(d);
        return 0;
}

/* Accepts NULL, returns NULL. Snapshots read from it stay valid. */
struct psyne_stat_dir *psyne_stat_close_dir(struct psyne_stat_dir *d) {
        CANCEL_HOLD;
        if (d && d->stream)
                closedir(d->stream);
        free(d);
        return NULL;
}

/* The path that was opened, or that would have been. Valid as long as @d. */
const char *psyne_stat_dir_path(const struct psyne_stat_dir *d) {
        return d->path;
}

/* Length of the name before a ".psy" or ".dead", 0 = neither. */
static size_t stem_length(const char *file, bool *ret_post_mortem) {
        static const char *const endings[] = {".psy", ".dead"};
        size_t length = strlen(file);

        for (unsigned i = 0; i < 2; i++) {
                size_t n = strlen(endings[i]);

                if (length > n && strcmp(file + length - n, endings[i]) == 0) {
                        *ret_post_mortem = i == 1;
                        return length - n;
                }
        }
        return 0;
}

/*
 * The next file of the directory that ends in .psy (a channel) or .dead (what the next opener of a name kept of an
 * earlier one), in no order. 1: *@ret is its name, valid until the next call, and may hold any byte: do not print it as
 * it is. 0: the end, and the next call starts anew. An error of the kernel otherwise.
 */
int psyne_stat_next(struct psyne_stat_dir *d, const char **ret) {
        CANCEL_HOLD;
        const struct dirent *e;
        bool post_mortem;

        if (!d || !ret)
                return error_set(-EINVAL, "psyne_stat_next: no directory or no result");
        if (!d->stream)
                return 0;
        for (;;) {
                errno = 0;
                e = readdir(d->stream);
                if (!e)
                        break;
                if (stem_length(e->d_name, &post_mortem)) {
                        *ret = e->d_name;
                        return 1;
                }
        }
        if (errno)
                return error_set(-errno, "%s cannot be listed: %m", d->path);
        rewinddir(d->stream);
        return 0;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* -EBADMSG: the file ends before that. */
static int read_pages(int fd, unsigned char *to, uint64_t bytes) {
        uint64_t at = 0;

        while (at < bytes) {
                ssize_t n = pread(fd, to + at, bytes - at, (off_t)at);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return error_set(-errno, "control file cannot be read: %m");
                if (at + (uint64_t)n < bytes)
                        n -= n % READ_ALIGN; /* go on at a line */
                if (n == 0)
                        return error_set(-EBADMSG, "control file was cut short at byte %llu", (unsigned long long)at);
                at += (uint64_t)n;
        }
        return 0;
}

static int open_file(struct psyne_stat_dir *d, const char *file, struct stat_look *l) {
        /* O_NONBLOCK: neither a pipe of that name nor somebody's lease may hold us up. */
        l->fd = openat(dirfd(d->stream), file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (l->fd < 0 && (errno == ELOOP || errno == ENXIO))
                return error_set(-EPROTO, "not a regular file");
        if (l->fd < 0)
                return error_set(-errno, "cannot be opened: %m");
        if (fstat(l->fd, &l->st) < 0)
                return error_set(-errno, "cannot be examined: %m");
        if (!S_ISREG(l->st.st_mode))
                return error_set(-EPROTO, "not a regular file");
        return 0;
}

/* How much of the file there is to read: up to the events, which nobody shows. Judges the first page on the way. */
static int look_size(struct stat_look *l) {
        _Alignas(READ_ALIGN) struct layout_header h;
        int r;

        if (l->st.st_size < (off_t)sizeof(h))
                return error_set(
                        -EBADMSG, "control file is %lld bytes, shorter than its own header", (long long)l->st.st_size);
        r = read_pages(l->fd, (unsigned char *)&h, sizeof(h));
        if (r < 0)
                return r;
        r = layout_validate(&h, (uint64_t)l->st.st_size);
        if (r < 0)
                return r;
        memcpy(l->regions, h.regions, sizeof(l->regions));
        l->bytes_before = h.regions[LAYOUT_REGION_LOANS].offset; /* peers, lanes, groups, cursors, members, holds */
        l->bytes = h.regions[LAYOUT_REGION_EVENTS].offset;
        return 0;
}

/* The page may have been changed since look_size(), and then must describe the same sizes still. */
static int look_once(struct stat_look *l, unsigned char *to, uint64_t bytes, struct layout_view *v) {
        const struct layout_header *h = (const void *)to;
        int r;

        r = read_pages(l->fd, to, bytes);
        if (r < 0)
                return r;
        r = layout_validate(h, (uint64_t)l->st.st_size);
        if (r < 0)
                return r;
        if (memcmp(h->regions, l->regions, sizeof(l->regions)) != 0)
                return error_set(-EBADMSG, "control file changed its sizes while it was read");
        layout_view_init(v, to, h);
        return 0;
}

static int look_locks(struct stat_look *l) {
        int r;

        memset(l->held, 0, sizeof(l->held));
        r = entry_fd_any_alive(l->fd);
        if (r < 0)
                return r;
        l->anybody = r > 0;
        for (uint32_t i = 0; l->anybody && i < l->before.n_peers; i++) {
                r = entry_fd_slot_alive(l->fd, i);
                if (r < 0)
                        return r;
                l->held[i] = r > 0;
        }
        return 0;
}

static bool lanes_changed_hands(const struct stat_look *l) {
        for (uint32_t i = 0; i < l->now.n_lanes; i++)
                if (l->before.lanes[i].generation != l->now.lanes[i].generation)
                        return true;
        return false;
}

static int look_twice(struct stat_look *l) {
        void *first, *second;
        int r;

        r = look_size(l);
        if (r < 0)
                return r;
        if (posix_memalign(&first, 4096, l->bytes_before) != 0)
                return error_set(-ENOMEM, "no memory for a snapshot");
        l->first = first;
        if (posix_memalign(&second, 4096, l->bytes) != 0)
                return error_set(-ENOMEM, "no memory for a snapshot");
        l->second = second;
        for (unsigned i = 0; i < READ_TRIES; i++) {
                r = look_once(l, l->first, l->bytes_before, &l->before);
                if (r == 0)
                        r = look_locks(l);
                if (r == 0)
                        r = look_once(l, l->second, l->bytes, &l->now);
                if (r < 0 || !lanes_changed_hands(l))
                        return r;
        }
        return 0; /* it changes hands all the time: what is shown of that lane is cut to what can be */
}

/*
 * Takes a snapshot of @file, a name that psyne_stat_next() gave or NAME.psy or NAME.dead: some 100 microseconds at the
 * default limits, never a wait. The caller frees *@ret with psyne_stat_free().
 *
 * -ENOENT it is gone; -EINVAL no such file can be a channel; -EACCES; -EPROTO not a control file, or of another
 * version; -EBADMSG damaged, or cut short while it was read; -EAGAIN not published yet; -ENOMEM. psyne_last_error() has
 * the sentence, which does not repeat the file's name.
 */
int psyne_stat_read(struct psyne_stat_dir *d, const char *file, struct psyne_stat **ret) {
        CANCEL_HOLD;
        _cleanup_(look_deinit) struct stat_look l = {.fd = -1, .pidns = d ? d->pidns : 0};
        char name[URI_NAME_MAX + 1];
        bool post_mortem;
        size_t n;
        int r;

        if (!d || !file || !ret)
                return error_set(-EINVAL, "psyne_stat_read: no directory, no file or no result");
        error_clear();
        n = stem_length(file, &post_mortem);
        if (n == 0 || n > URI_NAME_MAX)
                return error_set(-EINVAL, "no channel has a name of that length or ending");
        memcpy(name, file, n);
        name[n] = '\0';
        if (!uri_name_valid(name))
                return error_set(-EINVAL, "no channel has a name with such characters");
        if (!d->stream)
                return error_set(-ENOENT, "%s does not exist", d->path);
        r = open_file(d, file, &l);
        if (r == 0)
                r = look_twice(&l);
        if (r == 0)
                r = stat_fill(ret, &l);
        if (r < 0)
                return r;
        snprintf((*ret)->file, sizeof((*ret)->file), "%s", file);
        snprintf((*ret)->name, sizeof((*ret)->name), "%s", name);
        (*ret)->post_mortem = post_mortem;
        return 0;
}

/* Accepts NULL, returns NULL. */
struct psyne_stat *psyne_stat_free(struct psyne_stat *s) {
        CANCEL_HOLD;
        free(s);
        return NULL;
}
