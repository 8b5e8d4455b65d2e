/*
 * The kernel says no, as a container's seccomp profile does: the same programs must pass, by another way, and the
 * facts must tell which and why.
 *
 *      deny WHAT -- PROGRAM ARGS...   runs the program under the filter
 *      deny WHAT                      looks at the facts under it
 *
 * WHAT: uring-eperm, uring-enosys, membarrier, hugetlb, mbind; none: no filter, to see that the facts differ.
 */
#include <seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/world.h"

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 4U
#endif

static int refuse(scmp_filter_ctx f, int error, const int calls[], unsigned n) {
        int r = 0;

        for (unsigned i = 0; i < n && r == 0; i++)
                r = seccomp_rule_add(f, SCMP_ACT_ERRNO((unsigned)error), calls[i], 0);
        return r;
}

static int deny(const char *what) {
        static const int uring[] = {SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register)};
        static const int membarrier[] = {SCMP_SYS(membarrier)}, mbind[] = {SCMP_SYS(mbind)};
        scmp_filter_ctx f;
        int r = -1;

        if (!strcmp(what, "none"))
                return 0;
        f = seccomp_init(SCMP_ACT_ALLOW);
        if (!f)
                return -1;
        if (!strcmp(what, "uring-eperm"))
                r = refuse(f, EPERM, uring, 3);
        else if (!strcmp(what, "uring-enosys"))
                r = refuse(f, ENOSYS, uring, 3);
        else if (!strcmp(what, "membarrier"))
                r = refuse(f, EPERM, membarrier, 1);
        else if (!strcmp(what, "mbind"))
                r = refuse(f, EPERM, mbind, 1);
        else if (!strcmp(what, "hugetlb"))
                r = seccomp_rule_add(f, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(memfd_create), 1,
                        SCMP_A1(SCMP_CMP_MASKED_EQ, MFD_HUGETLB, MFD_HUGETLB));
        if (r == 0)
                r = seccomp_load(f);
        seccomp_release(f);
        return r;
}

static const struct {
        const char *what, *fact, *not_obtained;
} rows[] = {
        {"uring-eperm", "wake", "io_uring"},
        {"uring-enosys", "wake", "io_uring"},
        {"membarrier", "barrier", "membarrier"},
        {"hugetlb", "pages", "2M hugetlb"},
        {"mbind", "numa", NULL},
};

static int facts(const char *what) {
        struct psyne_info info = {.struct_size = sizeof(info)};
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        int r = 0;
        bool seen = !strcmp(what, "none");

        if (psyne_open("ipc://facts?size=4M", NULL, &ch) < 0 || psyne_producer_open(ch, NULL, &p) < 0 ||
                psyne_consumer_open(ch, NULL, &c) < 0 || psyne_info(ch, &info) < 0) {
                printf("%s\n", psyne_last_error());
                return 1;
        }
        for (uint32_t i = 0; i < info.n_facts; i++) {
                const struct psyne_fact *f = &info.facts[i];

                printf("%-8s %-11s asked %-16s obtained %-16s %s%s%s\n", f->what, f->whose, f->asked, f->obtained, f->why,
                        f->fix[0] ? " -> " : "", f->fix);
                for (size_t k = 0; k < sizeof(rows) / sizeof(rows[0]); k++) {
                        if (strcmp(rows[k].what, what) || strcmp(rows[k].fact, f->what))
                                continue;
                        seen = true;
                        if (rows[k].not_obtained && !strcmp(f->obtained, rows[k].not_obtained)) {
                                printf("FAIL: %s was refused, and yet obtained\n", f->obtained);
                                r = 1;
                        }
                        if (!f->why[0]) {
                                printf("FAIL: the fact about %s does not say why\n", f->what);
                                r = 1;
                        }
                }
        }
        if (!seen) {
                printf("FAIL: no fact about it\n");
                r = 1;
        }
        /* An explicit wish that cannot be met is an error. */
        if (!strncmp(what, "uring", 5)) {
                struct psyne_channel *strict;

                if (psyne_open("ipc://strict?size=4096&uring=require", NULL, &strict) != -ENOTSUP ||
                        psyne_open("ipc://strict?size=4096&engine=uring", NULL, &strict) != -ENOTSUP) {
                        printf("FAIL: io_uring was required and could not be had\n");
                        r = 1;
                } else
                        printf("required: %s\n", psyne_last_error());
        }
        psyne_producer_close(p);
        psyne_consumer_close(c);
        psyne_close(ch);
        return r;
}

int main(int argc, char **argv) {
        char dir[64];
        int r;

        if (argc < 2) {
                fprintf(stderr, "usage: deny WHAT [-- PROGRAM ARGS...]\n");
                return 2;
        }
        if (deny(argv[1])) {
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
        r = facts(argv[1]);
        remove_dir(dir);
        return r;
}
