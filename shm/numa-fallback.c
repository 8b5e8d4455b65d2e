/* Built without libnuma: memory lands where the kernel puts it on first touch, and nobody claims to know where. */
#include "shm/numa.h"

#include <errno.h>

int numa_node_self(void) {
        return -1;
}

int numa_prefer(void *at, size_t bytes, int node, int strict) {
        (void)at, (void)bytes, (void)node, (void)strict;
        return -ENOSYS;
}

int numa_node_of(void *at, size_t bytes, size_t page_bytes) {
        (void)at, (void)bytes, (void)page_bytes;
        return -1;
}
