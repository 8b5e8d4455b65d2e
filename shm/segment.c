/* The page ladder: hugetlb, else shmem collapsed into huge pages, else small ones; each rung verified, not assumed. */
#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "shm/numa.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_BYTES (2ul << 20)
#define SMALL_BYTES 4096ul
#define TMPFS_FS 0x01021994l
#define HUGETLB_FS 0x958458f6l
#define SEALS_LENGTH (F_SEAL_SHRINK | F_SEAL_GROW)

/* vm.memfd_noexec=2 demands NOEXEC_SEAL, kernels before 6.3 do not know it. The name shows in /proc/PID/fd. */
static int memfd_new(const char *name, unsigned flags) {
        int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | flags);

        if (fd < 0 && errno == EINVAL)
                fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
        return fd < 0 ? -errno : fd;
}

/*
 * Two maps of the same bytes, back to back, inside a reservation of our own: with MAP_FIXED a hugetlb map that is
 * larger than asked for would otherwise wipe whatever lies behind.
 */
static int map_mirror(struct segment *s, size_t page_bytes, int prot) {
        size_t reserve = 2 * s->bytes + page_bytes;
        unsigned char *base;
        void *at;

        at = mmap(NULL, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED)
                return -errno;
        s->reserved = at;
        s->reserved_bytes = reserve;
        base = (unsigned char *)(((uintptr_t)at + page_bytes - 1) & ~(page_bytes - 1));
        for (unsigned i = 0; i < 2; i++)
                if (mmap(base + i * s->bytes, s->bytes, prot, MAP_SHARED | MAP_FIXED, s->fd, 0) == MAP_FAILED)
                        return -errno;
        s->base = base;
        return 0;
}

/* Bytes of the range at @at that are mapped by huge shmem entries, by the kernel's own account. */
static uint64_t huge_mapped_bytes(const void *at) {
        char line[256];
        uint64_t found = 0;
        bool here = false;
        FILE *f = fopen("/proc/self/smaps", "re");

        if (!f)
                return 0;
        while (fgets(line, sizeof(line), f)) {
                unsigned long long start, end, kb;

                if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
                        here = start == (uintptr_t)at;
                else if (here && sscanf(line, "ShmemPmdMapped: %llu kB", &kb) == 1) {
                        found = kb * 1024;
                        break;
                }
        }
        fclose(f);
        return found;
}

/* Placement must precede the first touch. A refusal is recorded, and an error only where placement is required. */
static int place(struct segment *s, const struct segment_wish *wish, struct segment_report *report) {
        int r;

        report->node_wanted = numa_node_self();
        report->node_why[0] = report->node_fix[0] = '\0';
        if (wish->numa == PSYNE_NEVER)
                return 0;
        for (unsigned i = 0; i < 2; i++) {
                r = numa_prefer(s->base + i * s->bytes, s->bytes, report->node_wanted, wish->numa == PSYNE_REQUIRE);
                if (r == 0)
                        continue;
                if (wish->numa == PSYNE_REQUIRE)
                        return error_set(-ENOTSUP, "numa=require: mbind to node %d failed: %s", report->node_wanted,
                                strerror(-r));
                snprintf(report->node_why, sizeof(report->node_why), "mbind to node %d: %s", report->node_wanted,
                        strerror(-r));
                if (r == -EPERM || r == -ENOSYS)
                        snprintf(report->node_fix, sizeof(report->node_fix), "allow mbind in the seccomp profile");
                break;
        }
        return 0;
}

static int populate(struct segment *s, int advice) {
        /* Both maps: the second one's page tables would otherwise be filled by faults on the hot path. */
        if (madvise(s->base, 2 * s->bytes, advice) < 0)
                return -errno;
        return 0;
}

/*
 * A signal may end a fallocate() with EINTR, SA_RESTART or not, and so may what the kernel only sends a thread to have
 * work done there, for io_uring. (Tmpfs pages: seen on 6.1, not on 6.18.) Smaller pieces each time, down to a page:
 * signals that keep coming do not keep it from its end.
 */
int segment_reserve(int fd, size_t bytes) {
        size_t at = 0, piece = bytes;

        while (at < bytes) {
                if (piece > bytes - at)
                        piece = bytes - at;
                if (fallocate(fd, 0, (off_t)at, (off_t)piece) == 0)
                        at += piece;
                else if (errno != EINTR)
                        return -errno;
                else if (piece > SMALL_BYTES)
                        piece /= 2;
        }
        return 0;
}

static int try_hugetlb(struct segment *s, const char *name, const struct segment_wish *wish,
        struct segment_report *report) {
        int r;

        s->fd = memfd_new(name, MFD_HUGETLB | MFD_HUGE_2MB);
        if (s->fd < 0)
                return s->fd;
        if (ftruncate(s->fd, (off_t)s->bytes) < 0)
                return -errno;
        r = map_mirror(s, HUGE_BYTES, PROT_READ | PROT_WRITE);
        if (r < 0)
                return r;
        r = place(s, wish, report);
        if (r < 0)
                return r;
        r = populate(s, MADV_POPULATE_WRITE);
        if (r < 0)
                return r;
        r = segment_reserve(s->fd, s->bytes);
        if (r < 0)
                return r;
        report->pages = SEGMENT_2M;
        report->page_bytes = HUGE_BYTES;
        return 0;
}

static int try_shmem(struct segment *s, const char *name, const struct segment_wish *wish, bool huge,
        struct segment_report *report) {
        int r;

        s->fd = memfd_new(name, 0);
        if (s->fd < 0)
                return s->fd;
        if (ftruncate(s->fd, (off_t)s->bytes) < 0)
                return -errno;
        r = map_mirror(s, huge ? HUGE_BYTES : SMALL_BYTES, PROT_READ | PROT_WRITE);
        if (r < 0)
                return r;
        r = place(s, wish, report);
        if (r < 0)
                return r;
        if (huge)
                (void)madvise(s->base, 2 * s->bytes, MADV_HUGEPAGE); /* helps where shmem_enabled=advise; verified below */
        r = populate(s, MADV_POPULATE_WRITE);
        if (r < 0)
                return r;
        r = segment_reserve(s->fd, s->bytes);
        if (r < 0)
                return r;
        report->pages = SEGMENT_4K;
        report->page_bytes = SMALL_BYTES;
        if (huge) {
                for (unsigned i = 0; i < 2; i++)
                        if (huge_mapped_bytes(s->base + i * s->bytes) < s->bytes)
                                (void)madvise(s->base + i * s->bytes, s->bytes, MADV_COLLAPSE);
                if (huge_mapped_bytes(s->base) == s->bytes || huge_mapped_bytes(s->base) == 2 * s->bytes) {
                        report->pages = SEGMENT_THP;
                        report->page_bytes = HUGE_BYTES;
                }
        }
        return 0;
}

static void explain_hugetlb(int r, size_t bytes, struct segment_report *report) {
        unsigned long need = bytes / HUGE_BYTES;

        switch (r) {
        case -ENOMEM:
        case -ENOSPC:
                snprintf(report->pages_why, sizeof(report->pages_why),
                        "the pool of 2M huge pages has fewer than %lu free", need);
                snprintf(report->pages_fix, sizeof(report->pages_fix), "sysctl vm.nr_hugepages=%lu (more)", need);
                break;
        case -EFAULT:
                snprintf(report->pages_why, sizeof(report->pages_why), "a cgroup limits huge pages (hugetlb.2MB.max)");
                snprintf(report->pages_fix, sizeof(report->pages_fix), "raise the cgroup's hugetlb limit");
                break;
        case -EPERM:
        case -EACCES:
        case -ENOSYS: /* some profiles answer so */
                snprintf(report->pages_why, sizeof(report->pages_why), "memfd_create with MFD_HUGETLB refused: %s",
                        strerror(-r));
                snprintf(report->pages_fix, sizeof(report->pages_fix), "allow it in the seccomp profile");
                break;
        default:
                snprintf(report->pages_why, sizeof(report->pages_why), "no 2M hugetlb pages: %s", strerror(-r));
        }
}

int segment_new(struct segment *ret, const char *name, size_t bytes, const struct segment_wish *wish,
        struct segment_report *report) {
        struct segment s = SEGMENT_NULL;
        bool large = bytes >= HUGE_BYTES, huge = large && wish->huge != PSYNE_NEVER;
        int r = -ENOTSUP;

        memset(report, 0, sizeof(*report));
        s.bytes = bytes;
        s.writable = true;
        if (huge) {
                r = try_hugetlb(&s, name, wish, report);
                if (r < 0) {
                        segment_deinit(&s);
                        if (r == -EMFILE || r == -ENFILE || r == -ENOTSUP)
                                return error_default(r, "memfd_create: %s", strerror(-r));
                        explain_hugetlb(r, bytes, report);
                }
        } else if (!large && wish->huge != PSYNE_NEVER) {
                snprintf(report->pages_why, sizeof(report->pages_why), "a ring under 2 MiB cannot use 2M pages");
                snprintf(report->pages_fix, sizeof(report->pages_fix), "size=2M or more");
        }
        if (wish->huge == PSYNE_REQUIRE && r < 0)
                return error_set(-ENOTSUP, "huge=require: %s; try: %s", report->pages_why,
                        report->pages_fix[0] ? report->pages_fix : "nothing known");
        if (r < 0) {
                s.bytes = bytes;
                s.writable = true;
                r = try_shmem(&s, name, wish, huge, report);
        }
        if (r < 0) {
                segment_deinit(&s);
                return error_default(r, "no memory for a ring of %zu bytes: %s", bytes, strerror(-r));
        }

        /* Nobody but this process's two maps can ever write, shrink or punch holes from here on; or only not shrink. */
        if (fchmod(s.fd, 0600) < 0 ||
                fcntl(s.fd, F_ADD_SEALS, SEALS_LENGTH | F_SEAL_SEAL | (wish->in_place ? 0 : F_SEAL_FUTURE_WRITE)) < 0) {
                r = -errno;
                segment_deinit(&s);
                return error_set(r, "sealing the ring: %s", strerror(-r));
        }
        (void)madvise(s.base, 2 * s.bytes, MADV_DONTDUMP); /* a core dump of rings would hold locks for seconds */
        report->node = numa_node_of(s.base, s.bytes, report->page_bytes);
        if (wish->numa == PSYNE_REQUIRE && report->node != report->node_wanted) {
                segment_deinit(&s);
                return error_set(-ENOTSUP, "numa=require: wanted node %d, the pages are on %d", report->node_wanted,
                        report->node);
        }
        *ret = s;
        return 0;
}

int segment_import(struct segment *ret, int fd, size_t bytes, bool in_place, const struct segment_identity *expected) {
        const int needed = SEALS_LENGTH | (in_place ? 0 : F_SEAL_FUTURE_WRITE);
        struct segment s = SEGMENT_NULL;
        struct statfs fs;
        struct stat st;
        int r, seals;

        s.fd = fd;
        s.bytes = bytes;
        if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0) {
                r = -errno;
                segment_deinit(&s);
                return error_set(r, "looking at the ring that was handed over: %s", strerror(-r));
        }
        seals = fcntl(fd, F_GET_SEALS);
        if (!S_ISREG(st.st_mode) || (fs.f_type != TMPFS_FS && fs.f_type != HUGETLB_FS) || fs.f_bsize <= 0 ||
                bytes % (size_t)fs.f_bsize != 0 || st.st_size != (off_t)bytes || seals < 0 ||
                (seals & needed) != needed ||
                (expected && (st.st_dev != expected->device || st.st_ino != expected->inode))) {
                segment_deinit(&s);
                return error_set(-EBADMSG,
                        "the ring that was handed over is not the announced one (%zu sealed bytes expected)", bytes);
        }
        /* Large rings on 2M boundaries either way: huge entries can only be used there. */
        r = map_mirror(&s, bytes >= HUGE_BYTES ? HUGE_BYTES : SMALL_BYTES, PROT_READ);
        if (r == 0)
                r = populate(&s, MADV_POPULATE_READ);
        if (r < 0) {
                segment_deinit(&s);
                return error_set(r, "mapping the ring that was handed over: %s", strerror(-r));
        }
        (void)madvise(s.base, 2 * s.bytes, MADV_DONTDUMP);
        *ret = s;
        return 0;
}

int segment_allow_writing(struct segment *s) {
        if (s->writable)
                return 0;
        if (mprotect(s->base, 2 * s->bytes, PROT_READ | PROT_WRITE) < 0)
                return error_set(-errno, "mapping the ring that was handed over writable: %s", strerror(errno));
        s->writable = true;
        return 0;
}

int segment_identify(const struct segment *s, struct segment_identity *ret) {
        struct stat st;

        if (fstat(s->fd, &st) < 0)
                return -errno;
        *ret = (struct segment_identity){.device = st.st_dev, .inode = st.st_ino};
        return 0;
}

void segment_deinit(struct segment *s) {
        if (s->reserved)
                munmap(s->reserved, s->reserved_bytes);
        if (s->fd >= 0)
                close(s->fd);
        *s = SEGMENT_NULL;
}

void segment_abandon(struct segment *s) {
        if (s->reserved)
                (void)mmap(s->reserved, s->reserved_bytes, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        if (s->fd >= 0)
                close(s->fd);
        s->fd = -1;
}

const char *segment_pages_name(enum segment_pages pages) {
        return pages == SEGMENT_2M ? "2M" : pages == SEGMENT_THP ? "2M (THP)" : "4K";
}
