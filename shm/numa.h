/* Which node memory is on, and putting it there before it exists. numa.c uses libnuma's calls, numa-fallback.c nothing. */
#ifndef PSYNE_SHM_NUMA_H
#define PSYNE_SHM_NUMA_H
#include <stddef.h>

int numa_node_self(void);                                      /* of the CPU this thread runs on; -1 = not known */
int numa_prefer(void *at, size_t bytes, int node, int strict); /* before the first touch; 0 or -errno */
int numa_node_of(void *at, size_t bytes, size_t page_bytes);   /* the one node of a sample of pages, -1 = unknown or mixed */
#endif
