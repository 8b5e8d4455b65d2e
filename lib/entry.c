/*
 * See entry.h. Creating, joining, sweeping and leaving race with each other in every order, without a daemon or a
 * lock file to settle it. What makes that safe:
 *
 *      create                          join                            sweep / last one out
 *   A  file without a name, filled  C  open; somebody locked? else  F  write lock on the whole file, at once
 *      slot 0 locked                   it is dead: do not join         or not at all: it excludes every slot
 *   B  linkat: fails if name is     D  lock a free slot             G  name and descriptor one inode? else
 *      there                        E  still linked, and name and      it is another's: do nothing
 *                                      descriptor one inode? else   H  rename or unlink, under the lock
 *                                      start over
 *
 * A before B: who finds the name finds a complete file with somebody alive in it. Otherwise a joiner would read half a
 *   header, or a sweeper take the creator for dead.
 * C: slots are locked only by those who saw a slot locked, so an entry that has once fallen silent stays silent, and
 *   two joiners cannot take each other for the living.
 * D -> E against F -> H: either the joiner has its slot first, then F fails; or F came first, then D fails while it
 *   stands, and when it is gone H is done and E sees it. Without E some joins end on an unlinked file, each a channel
 *   that nobody else will ever find. The link count alone would not do for E: a swept file has a name, NAME.dead.
 * G: between opening and locking, the name may have been swept and made anew; H would remove the living.
 * F by GETLK, then H, would not do either: a joiner fits in between.
 *
 * A lock on the whole file begins at byte 0, a slot's lock never does: that is how the others tell a sweeper, who means
 * "nobody is here, look again", from a participant.
 */
#include "lib/entry.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "lib/handover.h"
#include "lib/uri.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define RETRY_YIELDS 16       /* a sweep takes about ten microseconds: first just step aside */
#define RETRY_SLEEP_NS 100000 /* then stop burning the CPU the sweeper may need; chosen by feel */

enum lock { LOCK_NONE, LOCK_SLOT, LOCK_WHOLE };

struct filename {
        char text[URI_NAME_MAX + sizeof(".dead")];
};

static struct filename filename(const char *name, const char *suffix) {
        struct filename f;
        int n;

        n = snprintf(f.text, sizeof(f.text), "%s%s", name, suffix);
        assert(n > 0 && (size_t)n < sizeof(f.text) && !strchr(name, '/')); /* uri_name_valid() */
        return f;
}

/* ---- locks ---------------------------------------------------------------------------------------------------- */

/* 0, or -EAGAIN if another description holds any of it. type: F_WRLCK or F_UNLCK; n 0: to the end of all bytes. */
static int lock_set(int fd, short type, int64_t start, int64_t n) {
        struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = n};

        if (fcntl(fd, F_OFD_SETLK, &fl) < 0)
                return errno == EACCES ? -EAGAIN : -errno;
        return 0;
}

/* What other descriptions hold of it: an enum lock, or an error. Only asks. */
static int lock_get(int fd, int64_t start, int64_t n) {
        struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = n};

        if (fcntl(fd, F_OFD_GETLK, &fl) < 0)
                return error_set(-errno, "the control file's locks cannot be read: %m");
        if (fl.l_type == F_UNLCK)
                return LOCK_NONE;
        return fl.l_start < ENTRY_LOCK_BASE ? LOCK_WHOLE : LOCK_SLOT;
}

static int lock_whole(int fd) {
        int r;

        r = lock_set(fd, F_WRLCK, 0, 0);
        if (r < 0 && r != -EAGAIN)
                return error_set(r, "the control file cannot be locked: %s", strerror(-r));
        return r;
}

int entry_fd_slot_alive(int fd, unsigned slot) {
        int r;

        assert(slot < ENTRY_SLOTS_MAX);
        r = lock_get(fd, ENTRY_LOCK_BASE + slot, 1);
        return r < 0 ? r : r == LOCK_SLOT;
}

int entry_fd_any_alive(int fd) {
        int r;

        r = lock_get(fd, ENTRY_LOCK_BASE, ENTRY_SLOTS_MAX);
        return r < 0 ? r : r == LOCK_SLOT;
}

int entry_slot_alive(const struct entry *e, unsigned slot) {
        /* One's own lock never conflicts, so the kernel would not name it. */
        return slot == e->slot ? 1 : entry_fd_slot_alive(e->fd, slot);
}

int entry_others_alive(const struct entry *e) {
        return entry_fd_any_alive(e->fd);
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

/* Does the name lead to the open file? 1, 0 or an error. */
static int name_is(int dirfd, const struct filename *f, int fd) {
        struct stat by_fd, by_name;

        if (fstat(fd, &by_fd) < 0)
                return error_set(-errno, "%s: cannot be examined: %m", f->text);
        if (by_fd.st_nlink == 0)
                return 0;
        if (fstatat(dirfd, f->text, &by_name, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : error_set(-errno, "%s: cannot be examined: %m", f->text);
        return by_fd.st_dev == by_name.st_dev && by_fd.st_ino == by_name.st_ino;
}

/* Opens what bears the name, and makes sure that it is a file of ours where the directory says it is. */
static int open_found(int dirfd, const struct filename *f, int *ret_fd, struct stat *ret_st) {
        _cleanup_(cleanup_closep) int fd = -1;
        struct stat st, dir;

        /* O_NONBLOCK: should it be a device, opening it must not hang. */
        fd = openat(dirfd, f->text, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0 && errno == ENOENT)
                return error_set(-ENOENT, "%s does not exist", f->text);
        if (fd < 0 && (errno == ELOOP || errno == EISDIR || errno == ENXIO))
                return error_set(-EPROTO, "%s is not a regular file", f->text);
        if (fd < 0)
                return error_set(-errno, "%s cannot be opened: %m", f->text);
        if (fstat(fd, &st) < 0 || fstat(dirfd, &dir) < 0)
                return error_set(-errno, "%s: cannot be examined: %m", f->text);
        if (!S_ISREG(st.st_mode))
                return error_set(-EPROTO, "%s is not a regular file", f->text);
        if (st.st_dev != dir.st_dev)
                return error_set(-EPROTO, "%s is on another file system than its directory", f->text);
        /* In a directory shared by several users: what a stranger made, a stranger may cut short under our map. */
        if (!handover_allowed(st.st_uid))
                return error_set(
                        -EACCES, "%s belongs to user %u, neither us (%u) nor root", f->text, st.st_uid, geteuid());
        *ret_fd = steal_fd(&fd);
        *ret_st = st;
        return 0;
}

static int map_file(int fd, size_t size, struct entry *e) {
        void *p;

        p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
                return error_set(-errno, "the control file's %zu bytes cannot be mapped: %m", size);
        e->map = p;
        e->size = size;
        return 0;
}

/* All pages now: a tmpfs that is full says so here, and not as SIGBUS at a later touch. */
static int allocate(int fd, const char *name, size_t size) {
        int r;

        do {
                r = posix_fallocate(fd, 0, (off_t)size); /* ramfs has no fallocate(); this one then writes */
        } while (r == EINTR);
        if (r == ENOSPC)
                return error_set(-r, "%s: the tmpfs is full, its control file needs %zu bytes", name, size);
        if (r)
                return error_set(-r, "%s: no room for a control file of %zu bytes: %s", name, size, strerror(r));
        return 0;
}

int entry_create(
        int dirfd, const char *name, mode_t mode, size_t size, const struct entry_ops *ops, struct entry *ret) {
        struct filename f = filename(name, ".psy");
        _cleanup_(entry_closep) struct entry e = ENTRY_NULL;
        char self[sizeof("/proc/self/fd/") + 11];
        struct stat st;
        int r;

        assert(size > 0 && size < INT64_MAX && ops->n_slots > 0 && ops->n_slots <= ENTRY_SLOTS_MAX);

        e.fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (e.fd < 0 && errno == ENOSPC)
                return error_set(-ENOSPC, "%s: the tmpfs is full, it has no free inode", f.text);
        if (e.fd < 0)
                return error_set(-errno, "%s: no file can be made in its directory: %m", f.text);
        if (fchmod(e.fd, mode) < 0) /* and not the mode above, which a umask would cut */
                return error_set(-errno, "%s: mode %04o refused: %m", f.text, mode);
        if (fstat(e.fd, &st) < 0)
                return error_set(-errno, "%s: cannot be examined: %m", f.text);
        r = allocate(e.fd, f.text, size);
        if (r < 0)
                return r;
        r = map_file(e.fd, size, &e);
        if (r < 0)
                return r;
        e.slot = 0;
        e.n_slots = ops->n_slots;
        e.inode = st.st_ino;
        r = ops->init(e.map, size, e.slot, ops->ctx);
        if (r < 0)
                return r;
        r = lock_set(e.fd, F_WRLCK, ENTRY_LOCK_BASE + e.slot, 1);
        if (r < 0)
                return error_set(r, "%s: the slot cannot be locked: %s", f.text, strerror(-r));
        FAULT_POINT("entry-create-before-link");
        snprintf(self, sizeof(self), "/proc/self/fd/%d", e.fd);
        if (linkat(AT_FDCWD, self, dirfd, f.text, AT_SYMLINK_FOLLOW) < 0) { /* B */
                if (errno == EEXIST)
                        return error_set(-EEXIST, "%s exists already", f.text);
                if (errno == ENOENT)
                        return error_set(-ENOENT, "%s: its directory is gone, or /proc is not mounted", f.text);
                return error_set(-errno, "%s cannot be given its name: %m", f.text);
        }
        FAULT_POINT("entry-create-after-link");

        *ret = e;
        e = (struct entry)ENTRY_NULL;
        return 0;
}

static int may_take(const struct entry_ops *ops, const struct entry *e, unsigned slot) {
        return ops->may_take ? ops->may_take(e->map, slot, ops->ctx) : 1;
}

/* -EAGAIN start over; -EUSERS */
static int take_slot(struct entry *e, const struct filename *f, const struct entry_ops *ops) {
        for (unsigned slot = 0; slot < e->n_slots; slot++) {
                int r;

                r = may_take(ops, e, slot);
                if (r < 0)
                        return r;
                if (r == 0)
                        continue;
                r = lock_set(e->fd, F_WRLCK, ENTRY_LOCK_BASE + slot, 1);
                if (r == -EAGAIN) {
                        r = lock_get(e->fd, ENTRY_LOCK_BASE + slot, 1);
                        if (r < 0)
                                return r;
                        if (r != LOCK_SLOT)
                                return -EAGAIN; /* a sweeper stood in the way, or its holder just went: look again */
                        continue;
                }
                if (r < 0)
                        return error_set(r, "%s: slot %u cannot be locked: %s", f->text, slot, strerror(-r));
                r = may_take(ops, e, slot);
                if (r < 0)
                        return r;
                if (r > 0) {
                        e->slot = slot;
                        return 0;
                }
                r = lock_set(e->fd, F_UNLCK, ENTRY_LOCK_BASE + slot, 1);
                if (r < 0)
                        return error_set(r, "%s: slot %u cannot be unlocked: %s", f->text, slot, strerror(-r));
        }
        return error_set(-EUSERS, "%s: all %u slots are taken", f->text, e->n_slots);
}

/* As entry_attach(), but says -EAGAIN where that starts over. */
static int attach_once(int dirfd, const struct filename *f, const struct entry_ops *ops, struct entry *ret) {
        _cleanup_(entry_closep) struct entry e = ENTRY_NULL;
        struct stat st;
        int r;

        r = open_found(dirfd, f, &e.fd, &st);
        if (r < 0)
                return r;
        e.inode = st.st_ino;

        /* Life before contents: a dead file may hold anything, also another version's layout, and is swept. */
        r = lock_get(e.fd, ENTRY_LOCK_BASE, ENTRY_SLOTS_MAX); /* C */
        if (r < 0)
                return r;
        if (r == LOCK_WHOLE)
                return -EAGAIN;
        if (r == LOCK_NONE)
                return error_set(-EOWNERDEAD, "%s: everybody who used it is gone", f->text);

        if (st.st_size < 0 || (uint64_t)st.st_size > SIZE_MAX || (size_t)st.st_size < ops->size_min || st.st_size == 0)
                return error_set(-EPROTO, "%s has %lld bytes, a control file %zu or more", f->text,
                        (long long)st.st_size, ops->size_min);
        r = ops->check(e.fd, (size_t)st.st_size, ops->ctx);
        if (r < 0)
                return r;
        if (r == 0 || r > ENTRY_SLOTS_MAX)
                return error_set(-EPROTO, "%s claims to have %d slots", f->text, r);
        e.n_slots = (unsigned)r;
        r = map_file(e.fd, (size_t)st.st_size, &e);
        if (r < 0)
                return r;
        FAULT_POINT("entry-attach-before-lock");
        r = take_slot(&e, f, ops); /* D */
        if (r < 0)
                return r;
        FAULT_POINT("entry-attach-locked");
        r = name_is(dirfd, f, e.fd); /* E, against H */
        if (r < 0)
                return r;
        if (r == 0)
                return -EAGAIN;

        *ret = e;
        e = (struct entry)ENTRY_NULL;
        return 0;
}

/* Steps aside for whoever is at the entry; -ETIME. */
static int step_aside(const struct filename *f, unsigned round, int64_t deadline_ns) {
        if (clock_ns() >= deadline_ns)
                return error_set(-ETIME, "%s: kept being swept and made anew, or its sweeper is stopped", f->text);
        if (round < RETRY_YIELDS)
                sched_yield();
        else
                nanosleep(&(struct timespec){.tv_nsec = RETRY_SLEEP_NS}, NULL);
        return 0;
}

int entry_attach(int dirfd, const char *name, const struct entry_ops *ops, int64_t deadline_ns, struct entry *ret) {
        struct filename f = filename(name, ".psy");
        int r;

        for (unsigned round = 0;; round++) {
                r = attach_once(dirfd, &f, ops, ret);
                if (r != -EAGAIN)
                        return r;
                r = step_aside(&f, round, deadline_ns);
                if (r < 0)
                        return r;
        }
}

int entry_open(int dirfd, const char *name, mode_t mode, size_t size, const struct entry_ops *ops, int64_t deadline_ns,
        struct entry *ret) {
        struct filename f = filename(name, ".psy");
        int r;

        for (unsigned round = 0;; round++) {
                r = attach_once(dirfd, &f, ops, ret);
                if (r == -EOWNERDEAD) {
                        r = entry_sweep(dirfd, name);
                        if (r == 1)
                                r = -ENOENT;
                        else if (r == 0) /* silent, then not: someone joined who had still seen it alive */
                                r = -EAGAIN;
                }
                if (r == -ENOENT) {
                        r = entry_create(dirfd, name, mode, size, ops, ret);
                        if (r == 0)
                                return 1;
                }
                if (r != -EAGAIN && r != -EEXIST)
                        return r;
                r = step_aside(&f, round, deadline_ns);
                if (r < 0)
                        return r;
        }
}

int entry_sweep(int dirfd, const char *name) {
        struct filename f = filename(name, ".psy"), dead = filename(name, ".dead");
        _cleanup_(cleanup_closep) int fd = -1;
        struct stat st;
        int r;

        r = open_found(dirfd, &f, &fd, &st);
        if (r < 0)
                return r;
        r = lock_whole(fd); /* F */
        if (r == -EAGAIN) {
                r = lock_get(fd, ENTRY_LOCK_BASE, ENTRY_SLOTS_MAX);
                if (r < 0)
                        return r;
                if (r == LOCK_SLOT)
                        return 0;
                return error_set(-EAGAIN, "%s: another process is sweeping it, or has just left", f.text);
        }
        if (r < 0)
                return r;
        r = name_is(dirfd, &f, fd); /* G */
        if (r < 0)
                return r;
        if (r == 0)
                return error_set(-EAGAIN, "%s: another process has swept it", f.text);
        FAULT_POINT("entry-sweep-locked");
        if (renameat(dirfd, f.text, dirfd, dead.text) < 0) /* H */
                return error_set(-errno, "%s: the dead entry cannot be moved to %s: %m", f.text, dead.text);
        /* The lock covers every slot, so the sockets of all slots are ours to remove. */
        handover_unlink_all(dirfd, st.st_ino);
        return 1;
}

int entry_leave(int dirfd, const char *name, struct entry *e) {
        struct filename f = filename(name, ".psy");
        int r;

        assert(e->fd >= 0);
        /*
         * Straight from slot to whole file if we are alone: nobody finds the entry silent in between and takes a
         * clean end for a crash. If others hold a slot, we let go of ours and try once more: when the last two leave
         * together, each still saw the other the first time, and the later to let go succeeds now.
         */
        r = lock_whole(e->fd); /* F */
        if (r == -EAGAIN) {
                r = lock_set(e->fd, F_UNLCK, ENTRY_LOCK_BASE + e->slot, 1);
                FAULT_POINT("entry-leave-unlocked");
                if (r == 0)
                        r = lock_whole(e->fd); /* F */
        }
        if (r == 0)
                r = name_is(dirfd, &f, e->fd); /* G */
        else if (r == -EAGAIN)
                r = 0;
        if (r == 1 && unlinkat(dirfd, f.text, 0) < 0) /* H */
                r = error_set(-errno, "%s cannot be removed: %m", f.text);
        if (r == 1)
                handover_unlink_all(dirfd, e->inode);
        entry_close(e);
        return r;
}

void entry_close(struct entry *e) {
        if (e->map)
                munmap(e->map, e->size);
        if (e->fd >= 0)
                close(e->fd);
        *e = (struct entry)ENTRY_NULL;
}

void entry_after_fork_child(struct entry *e) {
        /*
         * Not F_UNLCK: the description is the parent's too, and so is the lock. Not munmap(): the addresses must stay
         * taken, so that a stale pointer faults instead of meeting whatever the child maps there next.
         */
        if (e->fd >= 0)
                close(e->fd);
        e->fd = -1;
        if (!e->map)
                return;
        if (mmap(e->map, e->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) ==
                MAP_FAILED)
                mprotect(e->map, e->size, PROT_NONE); /* out of maps: then at least untouchable */
}
