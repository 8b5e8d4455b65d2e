/*
 * The kernel says no, as a container's seccomp profile, an old kernel or a limit does: the same programs must pass, by
 * another way, and the facts must tell which and why. What is required all the same is refused, with a sentence.
 *
 *      deny ROW -- PROGRAM ARGS...   runs the program under the refusal
 *      deny ROW                      looks at the facts under it
 *      deny list                     the rows, each a line
 *
 * A row is a refused call and what the kernel answers (uring-eperm, membarrier-enosys), or a limit (memlock); none: no
 * refusal, to see that the facts differ.
 */
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/world.h"

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 4U
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
struct denial {
        const char *what;
        int calls[4];             /* 0 ends */
        const char *fact;         /* that tells; NULL: nothing is lost */
        const char *not_obtained; /* what it must not say; NULL: it says that it does not know, and why */
        const char *require;      /* what must be refused with -ENOTSUP; NULL: nothing asks for it */
};

static const struct denial denials[] = {
        {"uring", {SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register)}, "wake", "io_uring",
                "uring=require"},
        {"membarrier", {SCMP_SYS(membarrier)}, "barrier", "membarrier", "barrier=membarrier"},
        {"hugetlb", {SCMP_SYS(memfd_create)}, "pages", "2M hugetlb", "huge=require"},
        {"mbind", {SCMP_SYS(mbind)}, "numa", NULL, "numa=require"},
        {"pidfd", {SCMP_SYS(pidfd_open), SCMP_SYS(getsockopt)}, NULL, NULL, NULL}, /* the fact comes with the first peer */
        {"affinity", {SCMP_SYS(sched_setaffinity)}, "thread", "process's CPUs", NULL},
        {"mlock", {SCMP_SYS(mlock), SCMP_SYS(mlock2), SCMP_SYS(mlockall)}, NULL, NULL, NULL},
};
static const struct {
        const char *suffix;
        int error;
} answers[] = {{"eperm", EPERM}, {"enosys", ENOSYS}};
#define N(a) (sizeof(a) / sizeof((a)[0]))

static int filter(const struct denial *d, int error) {
        scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
        int r = 0;

        if (!f)
                return -1;
        for (unsigned i = 0; i < N(d->calls) && d->calls[i] && r == 0; i++)
                if (!strcmp(d->what, "hugetlb")) /* others of its uses are not large pages */
                        r = seccomp_rule_add(f, SCMP_ACT_ERRNO((unsigned)error), d->calls[i], 1,
                                SCMP_A1(SCMP_CMP_MASKED_EQ, MFD_HUGETLB, MFD_HUGETLB));
                else if (d->calls[i] == SCMP_SYS(getsockopt)) /* others of its options are not pidfds */
                        r = seccomp_rule_add(f, SCMP_ACT_ERRNO((unsigned)error), d->calls[i], 2,
                                SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, SOL_SOCKET),
                                SCMP_A2(SCMP_CMP_MASKED_EQ, UINT32_MAX, SO_PEERPIDFD));
                else
                        r = seccomp_rule_add(f, SCMP_ACT_ERRNO((unsigned)error), d->calls[i], 0);
        if (r == 0)
                r = seccomp_load(f);
        seccomp_release(f);
        return r;
}

/* 0; -1: not to be had here; -2: no such row. *ret: what it denies, or NULL. */
static int deny(const char *row, const struct denial **ret) {
        struct rlimit limit = {64 << 10, 64 << 10};

        *ret = NULL;
        if (!strcmp(row, "none"))
                return 0;
        if (!strcmp(row, "memlock"))
                return setrlimit(RLIMIT_MEMLOCK, &limit);
        for (unsigned i = 0; i < N(denials); i++)
                for (unsigned k = 0; k < N(answers); k++) {
                        size_t n = strlen(denials[i].what);

                        if (strncmp(row, denials[i].what, n) || row[n] != '-' || strcmp(row + n + 1, answers[k].suffix))
                                continue;
                        *ret = &denials[i];
                        return filter(&denials[i], answers[k].error);
                }
        return -2;
}

static int complain(const char *format, const char *what) {
        printf(format, what);
        printf(" (%s)\n", psyne_last_error());
        return 1;
}

static int facts(const struct denial *d) {
        struct psyne_info info = {.struct_size = sizeof(info)};
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        bool seen = !d || !d->fact;
        char uri[64];
        int r = 0;

        if (psyne_open("ipc://facts?size=4M", NULL, &ch) < 0 || psyne_producer_open(ch, NULL, &p) < 0 ||
                psyne_consumer_open(ch, NULL, &c) < 0 || psyne_fd(psyne_consumer_endpoint(c)) < 0 ||
                psyne_info(ch, &info) < 0)
                return complain("FAIL: %s", "it does not open");
        for (uint32_t i = 0; i < info.n_facts; i++) {
                const struct psyne_fact *f = &info.facts[i];

                printf("%-8s %-11s asked %-16s obtained %-16s %s%s%s\n", f->what, f->whose, f->asked, f->obtained, f->why,
                        f->fix[0] ? " -> " : "", f->fix);
                if (!d || !d->fact || strcmp(d->fact, f->what))
                        continue;
                seen = true;
                if (d->not_obtained && !strcmp(f->obtained, d->not_obtained))
                        r = complain("FAIL: %s was refused, and yet obtained", f->obtained);
                if (!f->why[0])
                        r = complain("FAIL: the fact about %s does not say why", f->what);
        }
        if (!seen)
                r = complain("FAIL: no fact about %s", d->fact);
        /* An explicit wish that cannot be met is an error, at the latest where it is needed. */
        if (d && d->require) {
                struct psyne_channel *strict = NULL;
                struct psyne_producer *none;
                int refused;

                snprintf(uri, sizeof(uri), "ipc://strict?size=4M&%s", d->require);
                refused = psyne_open(uri, NULL, &strict);
                if (refused == 0)
                        refused = psyne_producer_open(strict, NULL, &none);
                if (refused != -ENOTSUP)
                        r = complain("FAIL: %s could not be met, and was not refused", d->require);
                else
                        printf("required: %s\n", psyne_last_error());
                psyne_close(strict);
        }
        psyne_producer_close(p);
        psyne_consumer_close(c);
        psyne_close(ch);
        return r;
}

/* A tmpfs with no room left: what is open goes on, what is opened is refused, and nothing is left behind. */
static int full(void) {
        struct psyne_channel *before = NULL, *after = NULL;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        struct psyne_msg m;
        char dir[] = "/tmp/psyne-full.XXXXXX", inside[64], filler[64], block[4096] = "";
        unsigned files;
        int fd, r = 0;

        if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || !mkdtemp(dir) ||
                mount("tmpfs", dir, "tmpfs", 0, "size=512k") < 0) {
                printf("SKIP: mounting a tmpfs of our own takes root\n");
                return 77;
        }
        snprintf(inside, sizeof(inside), "%s/psyne", dir);
        snprintf(filler, sizeof(filler), "%s/filler", dir);
        if (mkdir(inside, 0700) < 0 || setenv("PSYNE_DIR", inside, 1) < 0 ||
                psyne_open("ipc://before?size=64K", NULL, &before) < 0 || psyne_producer_open(before, NULL, &p) < 0 ||
                psyne_consumer_open(before, NULL, &c) < 0)
                return complain("FAIL: %s", "it does not open");
        fd = open(filler, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        while (write(fd, block, sizeof(block)) > 0)
                ;
        close(fd);
        files = count_files(inside);
        if (psyne_open("ipc://after", NULL, &after) != -ENOSPC)
                r = complain("FAIL: %s", "a channel on a full tmpfs");
        else
                printf("refused: %s\n", psyne_last_error());
        if (count_files(inside) != files)
                r = complain("FAIL: %s", "the refused open left a file");
        for (uint32_t i = 0; i < 10000 && !r; i++)
                if (psyne_send(p, i, block, 1000, WATCHDOG_NS) < 0 || psyne_recv(c, &m, WATCHDOG_NS) < 0 || m.type != i ||
                        psyne_release(c, &m) < 0)
                        r = complain("FAIL: %s", "the channel that was open");
        unlink(filler);
        if (psyne_open("ipc://after", NULL, &after) < 0)
                r = complain("FAIL: %s", "a channel once there is room again");
        psyne_producer_close(p);
        psyne_consumer_close(c);
        psyne_close(before);
        psyne_close(after);
        umount(dir);
        rmdir(dir);
        return r;
}

static int list(void) {
        for (unsigned i = 0; i < N(denials); i++)
                for (unsigned k = 0; k < N(answers); k++)
                        printf("%s-%s\n", denials[i].what, answers[k].suffix);
        printf("memlock\n");
        return 0;
}

int main(int argc, char **argv) {
        const struct denial *d;
        char dir[64];
        int r;

        if (argc < 2) {
                fprintf(stderr, "usage: deny ROW [-- PROGRAM ARGS...]\n");
                return 2;
        }
        setvbuf(stdout, NULL, _IOLBF, 0);
        if (!strcmp(argv[1], "list"))
                return list();
        if (!strcmp(argv[1], "full"))
                return full();
        r = deny(argv[1], &d);
        if (r == -2) {
                fprintf(stderr, "deny: no row %s\n", argv[1]);
                return 2;
        }
        if (r < 0) {
                printf("SKIP: no filter for %s to be had here\n", argv[1]);
                return 77;
        }
        if (argc > 3 && !strcmp(argv[2], "--")) {
                execv(argv[3], argv + 3);
                fprintf(stderr, "%s: %s\n", argv[3], strerror(errno));
                return 127;
        }
        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        r = facts(d);
        remove_dir(dir);
        return r;
}
