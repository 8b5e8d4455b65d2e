/*
 * What the kernel has and liburing 2.3 (Debian 12) has not: the futex operations of Linux 6.7, and a flag. The numbers are kernel
 * ABI and never change, so they stand here under names of our own and no build-time check is needed; whether the
 * running kernel knows them is asked at run time (park.c).
 */
#ifndef PSYNE_URING_COMPAT_H
#define PSYNE_URING_COMPAT_H
#include <liburing.h>
#include <stdint.h>
#include <string.h>

#define COMPAT_OP_FUTEX_WAIT 51
#define COMPAT_OP_FUTEX_WAKE 52

/*
 * The size of the word, and shared: a private futex (128) is keyed by the address space, so two processes would never
 * meet on it. The kernel refuses anything but a size of 32 bits.
 */
#define COMPAT_FUTEX2_SIZE_U32 2
#define COMPAT_FUTEX_MASK_ANY UINT32_MAX /* match every waiter, as futex(2) without a bitset does */

/* A send without a copy tells afterwards whether it was one (Linux 6.2). */
#define COMPAT_SEND_ZC_REPORT (1u << 3)
#define COMPAT_NOTIF_COPIED (1u << 31)

static inline void compat_prep_futex(struct io_uring_sqe *sqe, uint8_t op, const uint32_t *word, uint64_t value) {
        memset(sqe, 0, sizeof(*sqe));
        sqe->opcode = op;
        sqe->fd = COMPAT_FUTEX2_SIZE_U32;
        sqe->addr = (uint64_t)(uintptr_t)word;
        sqe->off = value;
        sqe->addr3 = COMPAT_FUTEX_MASK_ANY;
}

/* Completes with 0 when woken, -EAGAIN when the word was not @expected any more. A read-only mapping is enough. */
static inline void compat_prep_futex_wait(struct io_uring_sqe *sqe, const uint32_t *word, uint32_t expected) {
        compat_prep_futex(sqe, COMPAT_OP_FUTEX_WAIT, word, expected);
}

/* Completes, before io_uring_enter() returns, with the number of waiters woken. */
static inline void compat_prep_futex_wake(struct io_uring_sqe *sqe, const uint32_t *word, unsigned n) {
        compat_prep_futex(sqe, COMPAT_OP_FUTEX_WAKE, word, n);
}

/* liburing 2.3 has only the pointer form, which costs a cast at every call. */
static inline void compat_prep_cancel(struct io_uring_sqe *sqe, uint64_t user_data) {
        memset(sqe, 0, sizeof(*sqe));
        sqe->opcode = IORING_OP_ASYNC_CANCEL;
        sqe->fd = -1;
        sqe->addr = user_data;
}
#endif
