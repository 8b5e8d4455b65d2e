/*
 * mbind and move_pages by libnuma's thin wrappers, which return errno; its friendlier helpers print to stderr.
 * Policy goes on the mapping before the first touch, which is right for both kinds of memory: shmem takes it into
 * the file, hugetlb keeps it with the mapping that populates.
 */
#include "shm/numa.h"

#include <errno.h>
#include <numaif.h>
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NUMA_NODES_MAX 1024
#define NUMA_SAMPLE 64 /* pages asked about; spread evenly */

int numa_node_self(void) {
        unsigned cpu, node;

        if (syscall(SYS_getcpu, &cpu, &node, NULL) < 0)
                return -1;
        return (int)node;
}

int numa_prefer(void *at, size_t bytes, int node, int strict) {
        unsigned long mask[NUMA_NODES_MAX / (8 * sizeof(unsigned long))] = {0};

        if (node < 0 || node >= NUMA_NODES_MAX)
                return -EINVAL;
        mask[(size_t)node / (8 * sizeof(unsigned long))] = 1ul << ((size_t)node % (8 * sizeof(unsigned long)));
        /* preferred: a full node must not turn into an OOM kill */
        if (mbind(at, bytes, strict ? MPOL_BIND : MPOL_PREFERRED, mask, NUMA_NODES_MAX, 0) < 0)
                return -errno;
        return 0;
}

int numa_node_of(void *at, size_t bytes, size_t page_bytes) {
        size_t n = bytes / page_bytes, step;
        void *pages[NUMA_SAMPLE];
        int status[NUMA_SAMPLE];

        step = n > NUMA_SAMPLE ? n / NUMA_SAMPLE : 1;
        if (n > NUMA_SAMPLE)
                n = NUMA_SAMPLE;
        for (size_t i = 0; i < n; i++)
                pages[i] = (char *)at + i * step * page_bytes;
        if (move_pages(0, n, pages, NULL, status, 0) < 0)
                return -1;
        for (size_t i = 0; i < n; i++)
                if (status[i] < 0 || status[i] != status[0])
                        return -1;
        return status[0];
}
