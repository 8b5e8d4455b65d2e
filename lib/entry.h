/*
 * The entry of a named channel: the control file NAME.psy in a directory, mapped shared, and one slot per
 * participant. A slot is taken by locking one byte of the file (far behind its end) on an open file description of
 * one's own. The kernel drops that lock when its holder dies, however it dies, so "is anybody there" is a question
 * to the kernel and never to the file's contents.
 *
 * What the rules below (entry.c has the argument) give all users of a directory:
 *   - a name appears with its contents complete and its creator's slot locked, or not at all;
 *   - whoever holds a slot is on the file that the name leads to, for as long as it holds the slot;
 *   - an entry in which nobody holds a slot is never joined: it is moved to NAME.dead (one is kept), and made anew.
 *
 * Locks belong to the description: every struct entry has its own, so threads exclude one another too. fork() shares
 * descriptions: a child calls entry_after_fork_child() before anything else.
 */
#ifndef PSYNE_ENTRY_H
#define PSYNE_ENTRY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ENTRY_LOCK_BASE (INT64_C(1) << 40) /* byte of slot 0: behind the end of any control file */
#define ENTRY_SLOTS_MAX 1024               /* bytes kept for slots; eight times 64 producers and 64 readers */

struct entry {
        int fd;
        void *map; /* read-write, shared */
        size_t size;
        unsigned slot; /* ours */
        unsigned n_slots;
        uint64_t inode; /* of the control file: names its sockets */
};
#define ENTRY_NULL                                                                                                     \
        { .fd = -1 }

/*
 * What the owner of the layout knows and this file does not. The callbacks' errors are passed on; -EAGAIN, -EEXIST,
 * -ENOENT and -EOWNERDEAD are not for them, because those steer entry_open().
 */
struct entry_ops {
        /* Fills a new, zeroed file before anybody can see it; 0 or an error. */
        int (*init)(void *map, size_t size, unsigned slot, void *ctx);
        /*
         * Judges a found file through reads of @fd, before it is mapped. Returns how many slots it has, 1 to
         * ENTRY_SLOTS_MAX, or an error.
         */
        int (*check)(int fd, size_t size, void *ctx);
        /*
         * May this free slot be taken (1), is it not for us (0), or is all lost (an error)? Asked twice: first
         * without the lock, to leave the slots of others alone, then under it, when the answer counts. NULL: any may.
         */
        int (*may_take)(const void *map, unsigned slot, void *ctx);
        void *ctx;
        unsigned n_slots; /* of a file we create */
        size_t size_min;  /* a found file must have this many bytes, 1 or more */
};

/*
 * All: @name has been checked by uri_name_valid(); outputs are written only on success; an error leaves nothing
 * behind; error_get() has the sentence. Beyond what each says: -EACCES the file belongs to a stranger or refuses us,
 * -EPROTO it is not a control file, -EMFILE and its like.
 */

/* Makes the entry and takes slot 0. -EEXIST the name is there (or has appeared meanwhile); -ENOSPC tmpfs is full. */
int entry_create(int dirfd, const char *name, mode_t mode, size_t size, const struct entry_ops *ops, struct entry *ret);

/*
 * Joins a living entry and takes the first free slot. -ENOENT no such name; -EOWNERDEAD nobody is in it: sweep it;
 * -EUSERS all slots are taken; -ETIME the deadline (clock.h) passed while others kept moving the entry about.
 */
int entry_attach(int dirfd, const char *name, const struct entry_ops *ops, int64_t deadline_ns, struct entry *ret);

/* Joins, or sweeps the dead and makes anew, until one of them works: 1 created, 0 joined. -ETIME as above. */
int entry_open(int dirfd, const char *name, mode_t mode, size_t size, const struct entry_ops *ops, int64_t deadline_ns,
        struct entry *ret);

/* 1 moved to NAME.dead, its sockets removed; 0 somebody lives in it; -ENOENT; -EAGAIN another is at it: look again. */
int entry_sweep(int dirfd, const char *name);

/*
 * Leaves for good: closes as entry_close() does; the last one out takes the name away. 1 it was us; 0 others are in
 * it, or the name now leads elsewhere; an error: closed, but the name may have stayed and will be swept by the next.
 */
int entry_leave(int dirfd, const char *name, struct entry *e);

/* Unmaps and closes, which gives the slot back; the name stays. Accepts ENTRY_NULL and leaves it behind. */
void entry_close(struct entry *e);

/*
 * In a forked child: gives up the inherited description without giving up the parent's slot, and leaves nothing
 * readable where the map was. Async-signal-safe. The child's copy then accepts entry_close() only.
 */
void entry_after_fork_child(struct entry *e);

/* Is the holder of @slot alive (our own: yes)? 1, 0 or an error. Never takes a lock. */
int entry_slot_alive(const struct entry *e, unsigned slot);

/* Is anybody but us in it? */
int entry_others_alive(const struct entry *e);

/* The same two for onlookers, who hold no slot; any readable @fd of the file will do. */
int entry_fd_slot_alive(int fd, unsigned slot);
int entry_fd_any_alive(int fd);

static inline void entry_closep(struct entry *e) {
        entry_close(e);
}
#endif
