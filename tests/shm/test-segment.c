/*
 * The memory of a ring: what it is mapped from, that nobody but its maker can write, that it is all there, and that
 * whatever is handed over in its place is refused. Tests that change the pool of huge pages put it back.
 */
#include <criterion/criterion.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "support.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define MIB (1ul << 20)
#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static const struct segment_wish small = {.huge = PSYNE_NEVER, .numa = PSYNE_NEVER};

static struct segment segment_of(size_t bytes) {
        struct segment_report report;
        struct segment s = SEGMENT_NULL;

        cr_assert_eq(segment_new(&s, "test-segment", bytes, &small, &report), 0, "%s", error_get());
        return s;
}

static struct segment_identity identity_of(const struct segment *s) {
        struct segment_identity id;

        cr_assert_eq(segment_identify(s, &id), 0);
        return id;
}

static int copy_of(int fd) {
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

        cr_assert_geq(copy, 0);
        return copy;
}

/* Both maps show the same bytes, and a span across the end of the first is one span. */
static void expect_mirror(const struct segment *s) {
        uint64_t *first = (void *)s->base, *second = (void *)(s->base + s->bytes);
        unsigned char *across = s->base + s->bytes - 16;

        for (size_t i = 0; i < s->bytes / 8; i += 61)
                first[i] = i * 0x9e3779b97f4a7c15ull;
        for (size_t i = 0; i < s->bytes / 8; i += 61)
                cr_assert_eq(second[i], i * 0x9e3779b97f4a7c15ull, "word %zu", i);
        memcpy(across, "0123456789abcdefghijklmnopqrstuv", 32);
        cr_assert_eq(memcmp(s->base, "ghijklmnopqrstuv", 16), 0);
        memcpy(s->base + s->bytes, "GHIJ", 4);
        cr_assert_eq(memcmp(across + 16, "GHIJ", 4), 0);
}

/* "Populated" means that a pass over both maps that writes every page takes no fault. AddressSanitizer's own look at its
 * shadow would take some, so it is kept out of here. */
__attribute__((no_sanitize("address"))) static void expect_no_faults(const struct segment *s, size_t page_bytes, bool write) {
        unsigned char present[512], sum = 0;
        struct rusage before, after;

        for (size_t at = 0; at < 2 * s->bytes; at += sizeof(present) * 4096) {
                size_t n = 2 * s->bytes - at < sizeof(present) * 4096 ? 2 * s->bytes - at : sizeof(present) * 4096;

                cr_assert_eq(mincore(s->base + at, n, present), 0);
                for (size_t i = 0; i < n / 4096; i++)
                        cr_assert(present[i] & 1, "page %zu is not there", at / 4096 + i);
        }
        must(getrusage(RUSAGE_THREAD, &before) == 0);
        for (size_t at = 0; at < 2 * s->bytes; at += page_bytes)
                if (write)
                        ((volatile unsigned char *)s->base)[at] = 1;
                else
                        sum = (unsigned char)(sum + ((volatile unsigned char *)s->base)[at]);
        must(getrusage(RUSAGE_THREAD, &after) == 0);
        /* A fault or two belong to the call itself; a pass that fills pages takes one for each, or for each 64 KiB. */
        cr_assert_leq(after.ru_minflt - before.ru_minflt, 2, "%ld faults, %u", after.ru_minflt - before.ru_minflt, sum);
        cr_assert_eq(after.ru_majflt, before.ru_majflt);
}

/* ---- kinds of pages -----------------------------------------------------------------------------------------------
 */

Test(segment, maps_small_pages_twice) {
        struct segment_report report;
        struct segment s = SEGMENT_NULL;

        for (size_t bytes = 4096; bytes <= 4 * MIB; bytes *= 4) {
                cr_assert_eq(segment_new(&s, "test-segment", bytes, &small, &report), 0, "%s", error_get());
                cr_assert_eq(report.pages, SEGMENT_4K);
                cr_assert_eq(report.page_bytes, 4096);
                cr_assert(s.writable);
                expect_no_faults(&s, 4096, true);
                memset(s.base, 0, s.bytes);
                expect_mirror(&s);
                segment_deinit(&s);
                cr_assert_null(s.base);
                cr_assert_eq(s.fd, -1);
                segment_deinit(&s);
        }
}

/* A fresh ring must be zero: that is the first state of every commit word. */
Test(segment, starts_as_zeroes) {
        struct segment s = segment_of(64 * 1024);

        for (size_t i = 0; i < s.bytes; i++)
                cr_assert_eq(s.base[i], 0);
        segment_deinit(&s);
}

Test(segment, says_why_a_small_ring_has_small_pages) {
        const struct segment_wish wish = {.huge = PSYNE_TRY};
        struct segment_report report;
        struct segment s = SEGMENT_NULL;

        cr_assert_eq(segment_new(&s, "test-segment", MIB, &wish, &report), 0, "%s", error_get());
        cr_assert_eq(report.pages, SEGMENT_4K);
        cr_assert_neq(report.pages_why[0], '\0');
        cr_assert_neq(report.pages_fix[0], '\0');
        segment_deinit(&s);
}

static long read_number(const char *path) {
        FILE *f = fopen(path, "re");
        long n = -1;

        if (!f)
                return -1;
        if (fscanf(f, "%ld", &n) != 1)
                n = -1;
        fclose(f);
        return n;
}

static bool write_number(const char *path, long n) {
        FILE *f = fopen(path, "we");
        bool written;

        if (!f)
                return false;
        written = fprintf(f, "%ld\n", n) > 0;
        return fclose(f) == 0 && written;
}

/*
 * Changes the number of 2M pages in the pool by @change. A child waits for the end of this process, however it comes,
 * and takes the change back: a test that crashes must not keep the machine's memory. False: not allowed here.
 */
static int pool_lifeline[2] = {-1, -1};
static pid_t pool_guard;

static bool pool_change(long change) {
        long now = read_number(POOL "nr_hugepages");

        if (now < 0 || !write_number(POOL "nr_hugepages", now))
                return false;
        must(pipe2(pool_lifeline, O_CLOEXEC) == 0);
        pool_guard = fork();
        must(pool_guard >= 0);
        if (pool_guard == 0) {
                unsigned tries = 0;
                char byte;

                close(pool_lifeline[1]);
                while (read(pool_lifeline[0], &byte, 1) < 0 && errno == EINTR)
                        ;
                now = read_number(POOL "nr_hugepages") - change;
                do /* pages that somebody took meanwhile stay until they are given back: give that two seconds */
                        if (!write_number(POOL "nr_hugepages", now))
                                _exit(1);
                while (read_number(POOL "nr_hugepages") > now && ++tries < 200 && usleep(10000) == 0);
                _exit(0);
        }
        close(pool_lifeline[0]);
        return write_number(POOL "nr_hugepages", now + change);
}

static void pool_restore(void) {
        int status;

        if (pool_guard <= 0)
                return;
        close(pool_lifeline[1]);
        must(waitpid(pool_guard, &status, 0) == pool_guard);
        pool_guard = 0;
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the pool of huge pages was not put back");
}

/* With nothing free in the pool, or the test is skipped. */
static void pool_empty(void) {
        long available = read_number(POOL "free_hugepages");

        if (available > 0 && (!pool_change(-available) || read_number(POOL "free_hugepages") > 0))
                cr_skip("the pool of 2M pages cannot be emptied here");
}

Test(segment, maps_2m_pages_from_the_pool, .fini = pool_restore) {
        const struct segment_wish wish = {.huge = PSYNE_REQUIRE, .numa = PSYNE_NEVER};
        struct segment_report report;
        struct segment s = SEGMENT_NULL, reader = SEGMENT_NULL;

        if (!pool_change(4) || read_number(POOL "free_hugepages") < 2)
                cr_skip("no way to reserve 2M pages here");
        cr_assert_eq(segment_new(&s, "test-segment", 4 * MIB, &wish, &report), 0, "%s", error_get());
        cr_assert_eq(report.pages, SEGMENT_2M);
        cr_assert_eq(report.page_bytes, 2 * MIB);
        cr_assert_eq((uintptr_t)s.base % (2 * MIB), 0);
        expect_no_faults(&s, 4096, true);
        expect_mirror(&s);
        cr_assert_eq(segment_import(&reader, copy_of(s.fd), 4 * MIB, false, NULL), 0, "%s", error_get());
        expect_no_faults(&reader, 4096, false);
        cr_assert_eq(memcmp(reader.base, s.base, s.bytes), 0);
        segment_deinit(&reader);
        segment_deinit(&s);
}

Test(segment, refuses_required_huge_pages_from_an_empty_pool_in_a_sentence, .fini = pool_restore) {
        const struct segment_wish wish = {.huge = PSYNE_REQUIRE};
        struct segment_report report;
        struct segment s = SEGMENT_NULL;
        unsigned fds, maps;

        pool_empty();
        (void)count_fds(), (void)count_maps(); /* the heap's first growth is not counted */
        fds = count_fds(), maps = count_maps();
        error_clear();
        cr_assert_eq(segment_new(&s, "test-segment", 4 * MIB, &wish, &report), -ENOTSUP, "%s", error_get());
        cr_assert_not_null(strstr(error_get(), "huge=require"), "%s", error_get());
        cr_assert_not_null(strstr(error_get(), "vm.nr_hugepages"), "%s", error_get());
        cr_assert_eq(s.fd, -1);
        cr_assert_null(s.base);
        cr_assert_eq(count_fds(), fds);
        cr_assert_eq(count_maps(), maps);
}

Test(segment, refuses_required_huge_pages_for_a_small_ring) {
        const struct segment_wish wish = {.huge = PSYNE_REQUIRE};
        struct segment_report report;
        struct segment s = SEGMENT_NULL;

        error_clear();
        cr_assert_eq(segment_new(&s, "test-segment", MIB, &wish, &report), -ENOTSUP);
        cr_assert_not_null(strstr(error_get(), "size=2M"), "%s", error_get());
        cr_assert_null(s.base);
}

/* Whatever the ladder ends at, the report is the truth: the kernel's own account of the first map is compared. */
Test(segment, reports_the_pages_it_got) {
        const struct segment_wish wish = {.huge = PSYNE_TRY};
        struct segment_report report;
        struct segment s = SEGMENT_NULL;
        unsigned long long start, end, kb, shmem = 0, kernel_page = 0;
        bool here = false;
        char line[512];
        FILE *maps;

        cr_assert_eq(segment_new(&s, "test-segment", 4 * MIB, &wish, &report), 0, "%s", error_get());
        maps = fopen("/proc/self/smaps", "re");
        must(maps);
        while (fgets(line, sizeof(line), maps)) {
                if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
                        here = start == (uintptr_t)s.base;
                else if (here && sscanf(line, "ShmemPmdMapped: %llu kB", &kb) == 1)
                        shmem = kb << 10;
                else if (here && sscanf(line, "KernelPageSize: %llu kB", &kb) == 1)
                        kernel_page = kb << 10;
        }
        fclose(maps);
        if (report.pages == SEGMENT_2M)
                cr_assert_eq(kernel_page, 2 * MIB);
        else if (report.pages == SEGMENT_THP)
                cr_assert_geq(shmem, 4 * MIB);
        else {
                cr_assert_lt(shmem, 4 * MIB);
                cr_assert_neq(report.pages_why[0], '\0', "small pages and no reason");
        }
        cr_assert_not_null(segment_pages_name(report.pages));
        expect_no_faults(&s, 4096, true);
        expect_mirror(&s);
        segment_deinit(&s);
        if (report.pages == SEGMENT_4K)
                cr_skip("only small pages to be had: %s", report.pages_why);
}

/* The pool is empty: the next rung is shmem collapsed into huge pages, where the kernel does that. */
Test(segment, collapses_into_huge_pages_where_there_is_no_pool, .fini = pool_restore) {
        const struct segment_wish wish = {.huge = PSYNE_TRY, .numa = PSYNE_NEVER};
        struct segment_report report;
        struct segment s = SEGMENT_NULL;

        pool_empty();
        cr_assert_eq(segment_new(&s, "test-segment", 4 * MIB, &wish, &report), 0, "%s", error_get());
        cr_assert_neq(report.pages, SEGMENT_2M);
        expect_no_faults(&s, 4096, true);
        expect_mirror(&s);
        cr_assert_neq(report.pages_why[0], '\0', "not the best pages and no reason");
        if (report.pages == SEGMENT_THP) {
                cr_assert_eq(report.page_bytes, 2 * MIB);
                cr_assert_eq((uintptr_t)s.base % (2 * MIB), 0);
        }
        segment_deinit(&s);
        if (report.pages != SEGMENT_THP)
                cr_skip("this kernel does not collapse shmem into huge pages");
}

/* ---- nobody else can write ----------------------------------------------------------------------------------------
 */

static void expect_sealed(int fd, size_t bytes) {
        char path[64], byte = 1;
        void *at;
        int again;

        at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        cr_assert_eq(at, MAP_FAILED, "mapped for writing");
        at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
        cr_assert_neq(at, MAP_FAILED);
        cr_assert_neq(mprotect(at, bytes, PROT_READ | PROT_WRITE), 0, "made writable later");
        munmap(at, bytes);
        cr_assert_eq(write(fd, &byte, 1), -1, "write");
        cr_assert_eq(pwrite(fd, &byte, 1, 0), -1, "pwrite");
        cr_assert_neq(ftruncate(fd, 0), 0, "shrunk");
        cr_assert_neq(ftruncate(fd, (off_t)(2 * bytes)), 0, "grown");
        cr_assert_neq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0, "hole punched");
        cr_assert_neq(fallocate(fd, 0, (off_t)bytes, 4096), 0, "grown by fallocate");
        cr_assert_neq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0, "sealed further");
        at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
        cr_assert_neq(at, MAP_FAILED);
        cr_assert_neq(madvise(at, bytes, MADV_REMOVE), 0, "hole punched by madvise");
        munmap(at, bytes);

        /* A new description of the same file has its own mode: opened for writing, it still cannot. */
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        again = open(path, O_RDWR | O_CLOEXEC);
        if (again >= 0) {
                at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0);
                cr_assert_eq(at, MAP_FAILED, "mapped for writing through /proc");
                cr_assert_eq(pwrite(again, &byte, 1, 0), -1, "written through /proc");
                cr_assert_neq(ftruncate(again, 0), 0, "shrunk through /proc");
                close(again);
        }
        again = open(path, O_RDWR | O_TRUNC | O_CLOEXEC);
        if (again >= 0)
                close(again);
}

Test(segment, cannot_be_written_or_resized_by_who_imports_it) {
        struct segment s = segment_of(64 * 1024), reader = SEGMENT_NULL;
        struct segment_identity id = identity_of(&s);
        struct stat st;

        memset(s.base, 0x5a, s.bytes);
        cr_assert_eq(segment_import(&reader, copy_of(s.fd), s.bytes, false, &id), 0, "%s", error_get());
        cr_assert_not(reader.writable);
        cr_assert_neq(reader.base, s.base);
        expect_sealed(reader.fd, reader.bytes);
        cr_assert_neq(mprotect(reader.base, reader.bytes, PROT_READ | PROT_WRITE), 0, "its own map made writable");
        must(fstat(s.fd, &st) == 0);
        cr_assert_eq(st.st_size, 64 * 1024);
        cr_assert_eq(st.st_mode & 0777, 0600);
        for (size_t i = 0; i < 2 * reader.bytes; i++)
                cr_assert_eq(reader.base[i], 0x5a);
        s.base[17] = 1; /* the maker still can */
        cr_assert_eq(reader.base[17], 1);
        cr_assert_eq(reader.base[reader.bytes + 17], 1);
        expect_no_faults(&reader, 4096, false);
        segment_deinit(&reader);
        segment_deinit(&s);
}

Test(segment, kills_who_writes_through_an_import) {
        struct segment s = segment_of(4096), reader = SEGMENT_NULL;
        int status;
        pid_t pid;

        cr_assert_eq(segment_import(&reader, copy_of(s.fd), s.bytes, false, NULL), 0);
        pid = fork();
        if (pid == 0) {
                signal(SIGSEGV, SIG_DFL);
                *(volatile unsigned char *)reader.base = 1;
                _exit(0);
        }
        cr_assert_eq(waitpid(pid, &status, 0), pid);
        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
        segment_deinit(&reader);
        segment_deinit(&s);
}

/* In a forked child the addresses stay taken and lead nowhere. */
Test(segment, is_abandoned_by_a_forked_child) {
        struct segment s = segment_of(4096);
        int status;
        pid_t pid = fork();

        if (pid == 0) {
                unsigned char *at = s.base;
                int fd = s.fd;

                segment_abandon(&s);
                if (s.fd != -1 || fcntl(fd, F_GETFD) != -1)
                        _exit(1);
                signal(SIGSEGV, SIG_DFL);
                (void)*(volatile unsigned char *)at;
                _exit(2);
        }
        cr_assert_eq(waitpid(pid, &status, 0), pid);
        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %#x", (unsigned)status);
        s.base[0] = 1;
        segment_deinit(&s);
}

/* ---- what is handed over in its place ------------------------------------------------------------------------------
 */

/* Refused with -EBADMSG and a sentence, the descriptor closed, nothing mapped, the result alone. */
static void expect_refused(const char *name, int fd, size_t bytes, const struct segment_identity *id) {
        struct segment s = SEGMENT_NULL;
        unsigned maps = count_maps();
        int r;

        cr_assert_geq(fd, 0, "%s: test", name);
        error_clear();
        r = segment_import(&s, fd, bytes, false, id);
        cr_assert_eq(r, -EBADMSG, "%s: %d, %s", name, r, error_get());
        cr_assert_not_null(strstr(error_get(), "handed over"), "%s: %s", name, error_get());
        cr_assert_eq(fcntl(fd, F_GETFD), -1, "%s: left open", name);
        cr_assert_eq(count_maps(), maps, "%s: left mapped", name);
        cr_assert_null(s.base, "%s: result touched", name);
}

static int memfd_sealed(size_t bytes, int seals) {
        int fd = memfd_create("test-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        must(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0 && fcntl(fd, F_ADD_SEALS, seals) == 0);
        return fd;
}

Test(segment, refuses_memory_that_is_not_the_announced_one) {
        const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;
        struct segment s = segment_of(64 * 1024), other = segment_of(64 * 1024);
        struct segment_identity id = identity_of(&s), wrong = id;
        char path[] = "/tmp/psyne-test-segment-XXXXXX", shm[64];
        int pipes[2], fd;

        (void)count_maps(); /* stdio's first buffer */
        expect_refused("half the size", copy_of(s.fd), 32 * 1024, &id);
        expect_refused("twice the size", copy_of(s.fd), 128 * 1024, &id);
        expect_refused("no whole page", copy_of(s.fd), 64 * 1024 - 1, &id);
        expect_refused("another ring", copy_of(other.fd), 64 * 1024, &id);
        wrong.inode++;
        expect_refused("another inode", copy_of(s.fd), 64 * 1024, &wrong);
        wrong = id;
        wrong.device++;
        expect_refused("another device", copy_of(s.fd), 64 * 1024, &wrong);

        expect_refused("not sealed", memfd_sealed(64 * 1024, 0), 64 * 1024, NULL);
        expect_refused("may shrink", memfd_sealed(64 * 1024, all & ~F_SEAL_SHRINK), 64 * 1024, NULL);
        expect_refused("may grow", memfd_sealed(64 * 1024, all & ~F_SEAL_GROW), 64 * 1024, NULL);
        expect_refused("may be written", memfd_sealed(64 * 1024, all & ~F_SEAL_FUTURE_WRITE), 64 * 1024, NULL);
        expect_refused("empty", memfd_sealed(0, all), 64 * 1024, NULL);
        expect_refused("no whole pages at all", memfd_sealed(6000, all), 6000, NULL);

        must(pipe2(pipes, O_CLOEXEC) == 0);
        expect_refused("a pipe", pipes[0], 64 * 1024, NULL);
        close(pipes[1]);
        expect_refused("/dev/zero", open("/dev/zero", O_RDWR | O_CLOEXEC), 64 * 1024, NULL);
        expect_refused("/dev/null", open("/dev/null", O_RDWR | O_CLOEXEC), 64 * 1024, NULL);
        expect_refused("a directory", open("/tmp", O_RDONLY | O_CLOEXEC), 4096, NULL);
        expect_refused("a file of /proc", open("/proc/self/maps", O_RDONLY | O_CLOEXEC), 4096, NULL);

        fd = mkostemp(path, O_CLOEXEC);
        must(fd >= 0 && ftruncate(fd, 64 * 1024) == 0);
        unlink(path);
        expect_refused("a file on disk", fd, 64 * 1024, NULL);
        snprintf(shm, sizeof(shm), "/dev/shm/psyne-test-segment-%d", getpid());
        fd = open(shm, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0) { /* tmpfs, of the right size, but a name and no seals */
                must(ftruncate(fd, 64 * 1024) == 0);
                unlink(shm);
                expect_refused("a file of /dev/shm", fd, 64 * 1024, NULL);
        }
        segment_deinit(&other);
        segment_deinit(&s);
}

/* 4096 bytes of a 2M page: mapping it with MAP_FIXED would wipe what lies behind. */
Test(segment, refuses_a_size_that_is_no_whole_huge_page, .fini = pool_restore) {
        int fd;

        fd = memfd_create("test-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | (21u << 26));
        if (fd < 0 || ftruncate(fd, 2 * (off_t)MIB) < 0)
                cr_skip("no hugetlb here");
        must(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE) == 0);
        (void)count_maps();
        expect_refused("part of a huge page", fd, 4096, NULL);
}

Test(segment, refuses_a_descriptor_that_is_closed) {
        struct segment s = SEGMENT_NULL;

        cr_assert_lt(segment_import(&s, -1, 4096, false, NULL), 0);
        cr_assert_lt(segment_import(&s, 1 << 20, 4096, false, NULL), 0);
        cr_assert_null(s.base);
}

/* ---- nothing is left behind ---------------------------------------------------------------------------------------
 */

Test(segment, leaves_no_descriptor_and_no_map_behind) {
        struct segment s, reader = SEGMENT_NULL;
        unsigned fds, maps;

        s = segment_of(4096);
        segment_deinit(&s);
        (void)count_fds(), (void)count_maps();
        fds = count_fds(), maps = count_maps();
        for (unsigned i = 0; i < 20; i++) {
                s = segment_of(4096ul << (i % 5));
                cr_assert_eq(segment_import(&reader, copy_of(s.fd), s.bytes, false, NULL), 0);
                segment_deinit(&reader);
                segment_deinit(&s);
        }
        cr_assert_eq(count_fds(), fds);
        cr_assert_eq(count_maps(), maps);
}

/* No descriptor left, no address space left: an error and nothing else. The limits are soft ones of a forked child. */
Test(segment, leaves_nothing_behind_when_the_process_is_at_its_limits) {
        for (unsigned way = 0; way < 2; way++) {
                pid_t pid = fork();
                int status;

                if (pid == 0) {
                        struct segment s = segment_of(4096);
                        struct segment_report report;
                        unsigned fds, maps;
                        struct rlimit limit;
                        int r;

                        segment_deinit(&s);
                        (void)count_fds(), (void)count_maps();
                        fds = count_fds(), maps = count_maps();
                        must(getrlimit(way ? RLIMIT_AS : RLIMIT_NOFILE, &limit) == 0);
                        limit.rlim_cur = way ? 1 : 3;
                        must(setrlimit(way ? RLIMIT_AS : RLIMIT_NOFILE, &limit) == 0);
                        error_clear();
                        r = segment_new(&s, "test-segment", way ? 16 * MIB : 4096, &small, &report);
                        limit.rlim_cur = limit.rlim_max;
                        must(setrlimit(way ? RLIMIT_AS : RLIMIT_NOFILE, &limit) == 0);
                        if (r != (way ? -ENOMEM : -EMFILE))
                                _exit(1);
                        if (s.base || s.fd != -1 || strcmp(error_get(), "no error") == 0)
                                _exit(2);
                        _exit(count_fds() == fds && count_maps() == maps ? 0 : 3);
                }
                cr_assert_eq(waitpid(pid, &status, 0), pid);
                cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "way %u: status %#x", way, (unsigned)status);
        }
}
