/*
 * raw-ring.h: an io_uring by raw system calls, so that what is compared against is the kernel and not a library.
 */
#ifndef PSYNE_BENCH_RAW_RING_H
#define PSYNE_BENCH_RAW_RING_H

#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RAW_RING_ENTRIES 4u

struct raw_ring {
        int fd;
        unsigned char *rings; /* both rings in one map: IORING_FEAT_SINGLE_MMAP, Linux 5.4 */
        size_t rings_size;
        struct io_uring_sqe *sqes;
        uint32_t *sq_tail, *sq_flags, *sq_array, *cq_head, *cq_tail;
        uint32_t sq_mask, cq_mask;
        struct io_uring_cqe *cqes;
};

static inline void raw_ring_close(struct raw_ring *u) {
        if (u->sqes)
                munmap(u->sqes, RAW_RING_ENTRIES * sizeof(*u->sqes));
        if (u->rings)
                munmap(u->rings, u->rings_size);
        if (u->fd >= 0)
                close(u->fd);
}

/* *@u is zero but for fd = -1. With @idle_ms a kernel thread submits, which polls for so long. 0 or -errno; to be closed
 * either way. */
static inline int raw_ring_open(struct raw_ring *u, uint32_t idle_ms) {
        const uint32_t flags[] = {
                idle_ms ? IORING_SETUP_SQPOLL : IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, idle_ms ? IORING_SETUP_SQPOLL : 0};
        struct io_uring_params p;
        size_t sq_size, cq_size;

        for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
                memset(&p, 0, sizeof(p));
                p.flags = flags[i];
                p.sq_thread_idle = idle_ms;
                u->fd = (int)syscall(SYS_io_uring_setup, RAW_RING_ENTRIES, &p);
                if (u->fd >= 0 || errno != EINVAL)
                        break;
        }
        if (u->fd < 0)
                return -errno;

        sq_size = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
        cq_size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
        u->rings_size = sq_size > cq_size ? sq_size : cq_size;
        u->rings = mmap(NULL, u->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED, u->fd, IORING_OFF_SQ_RING);
        if (u->rings == MAP_FAILED) {
                u->rings = NULL;
                return -errno;
        }
        u->sqes =
                mmap(NULL, p.sq_entries * sizeof(*u->sqes), PROT_READ | PROT_WRITE, MAP_SHARED, u->fd, IORING_OFF_SQES);
        if (u->sqes == MAP_FAILED) {
                u->sqes = NULL;
                return -errno;
        }
        u->sq_tail = (uint32_t *)(void *)(u->rings + p.sq_off.tail);
        u->sq_flags = (uint32_t *)(void *)(u->rings + p.sq_off.flags);
        u->sq_array = (uint32_t *)(void *)(u->rings + p.sq_off.array);
        u->sq_mask = *(uint32_t *)(void *)(u->rings + p.sq_off.ring_mask);
        u->cq_head = (uint32_t *)(void *)(u->rings + p.cq_off.head);
        u->cq_tail = (uint32_t *)(void *)(u->rings + p.cq_off.tail);
        u->cq_mask = *(uint32_t *)(void *)(u->rings + p.cq_off.ring_mask);
        u->cqes = (struct io_uring_cqe *)(void *)(u->rings + p.cq_off.cqes);
        return 0;
}

/* The next entry, zeroed; the kernel sees it with the next enter. */
static inline struct io_uring_sqe *raw_ring_entry(struct raw_ring *u) {
        const uint32_t tail = *u->sq_tail, index = tail & u->sq_mask;
        struct io_uring_sqe *q = &u->sqes[index];

        memset(q, 0, sizeof(*q));
        u->sq_array[index] = index;
        __atomic_store_n(u->sq_tail, tail + 1, __ATOMIC_RELEASE);
        return q;
}

/* Submits @n entries in one enter and takes their @n completions out: the result of the last, or -errno. */
static inline int raw_ring_do(struct raw_ring *u, unsigned n) {
        const uint32_t head = *u->cq_head;
        int r = (int)syscall(SYS_io_uring_enter, u->fd, n, n, IORING_ENTER_GETEVENTS, NULL, 0);

        while (__atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE) - head < n) {
                if (r < 0 && errno != EINTR)
                        return -errno;
                r = (int)syscall(SYS_io_uring_enter, u->fd, 0, n, IORING_ENTER_GETEVENTS, NULL, 0);
        }
        r = u->cqes[(head + n - 1) & u->cq_mask].res;
        __atomic_store_n(u->cq_head, head + n, __ATOMIC_RELEASE);
        return r;
}

#endif
