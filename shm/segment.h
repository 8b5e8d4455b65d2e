/*
 * A segment: the memory of one lane's ring. A sealed memfd, mapped twice back to back so that every span of up to
 * its length is contiguous, on the largest pages to be had, on the node it was asked for, every page present before
 * anyone uses it: nothing can raise SIGBUS later. Its maker keeps the only writable maps there can ever be.
 */
#ifndef PSYNE_SHM_SEGMENT_H
#define PSYNE_SHM_SEGMENT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "psyne/psyne.h"

enum segment_pages { SEGMENT_4K, SEGMENT_THP, SEGMENT_2M };

struct segment {
        unsigned char *base;      /* 2 * bytes of address space; NULL = no segment */
        size_t bytes;             /* of the ring */
        void *reserved;           /* the whole reservation, base lies aligned within */
        size_t reserved_bytes;
        int fd;                   /* owned; -1 = none */
        bool writable;
};
#define SEGMENT_NULL ((struct segment){.fd = -1})

struct segment_wish {
        enum psyne_try huge;      /* DEFAULT = TRY */
        enum psyne_try numa;
        bool in_place;            /* others may map it writable, too: nothing but the length is sealed */
};

/* What was obtained, and where it is less than was asked for, why, and what helps. */
struct segment_report {
        enum segment_pages pages;
        uint64_t page_bytes;
        int node;                 /* of the pages, by asking the kernel; -1 = not known */
        int node_wanted;          /* the calling thread's; -1 = not known */
        char pages_why[96], pages_fix[64];
        char node_why[96], node_fix[64];
};

struct segment_identity {
        uint64_t device, inode;
};

/* @bytes is a power of two, 4096 at least. The calling thread's node is the producer's. -ENOTSUP: huge or numa is
 * REQUIRE and cannot be had; -ENOMEM, -EMFILE, ...: as the kernel says. Nothing is left behind on failure. */
int segment_new(struct segment *ret, const char *name, size_t bytes, const struct segment_wish *wish,
        struct segment_report *report);

/* Maps read-only what another process handed over, after checking that it is what was announced: sealed against new
 * writable maps too, unless @in_place. Takes @fd over, on failure too. -EBADMSG: not the announced memory, not sealed, or of
 * the wrong size. */
int segment_import(struct segment *ret, int fd, size_t bytes, bool in_place, const struct segment_identity *expected);

/* Makes a ring that was imported @in_place writable here. */
int segment_allow_writing(struct segment *s);

/* All of @fd's pages, whatever signals come meanwhile. -ENOSPC, ...: as the kernel says. */
int segment_reserve(int fd, size_t bytes);

int segment_identify(const struct segment *s, struct segment_identity *ret);
void segment_deinit(struct segment *s); /* accepts SEGMENT_NULL and leaves it behind */

/* In a forked child: no access through the inherited addresses, and no hold on the memory. Async-signal-safe. */
void segment_abandon(struct segment *s);

const char *segment_pages_name(enum segment_pages pages);
#endif
