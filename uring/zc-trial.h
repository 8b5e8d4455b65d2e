/*
 * From what length on a send without a copy is worth it, found out on the connection itself: a copy costs by the byte; doing
 * without costs the pinning of pages and a notification, however long the send, and which of them is less the device decides,
 * its driver, and this machine's memory. So the first sends of each size class go both ways in turn, timed by the caller; the
 * best time of each way counts, because what disturbs a sample only makes it longer. Knows no sockets.
 */
#ifndef PSYNE_URING_ZC_TRIAL_H
#define PSYNE_URING_ZC_TRIAL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uring/wire.h"

#define ZC_TRIAL_CLASSES 4u /* from 32 KiB, 64 KiB, 128 KiB; 256 KiB and more */
#define ZC_TRIAL_SAMPLES 8u /* of each way */

/* All zero: nothing is known yet. */
struct zc_trial {
        struct {
                uint32_t n[2];    /* samples, with a copy and without */
                uint64_t best[2]; /* picoseconds per byte */
        } class[ZC_TRIAL_CLASSES];
};

bool zc_trial_open(const struct zc_trial *t, size_t bytes); /* one of this length is to be timed and noted */
bool zc_trial_wants(const struct zc_trial *t, size_t bytes); /* it is to go without a copy */
void zc_trial_note(struct zc_trial *t, size_t bytes, bool without, int64_t ns);
size_t zc_trial_from(const struct zc_trial *t); /* the length from which on it is worth it, as far as was tried; 0: none was */
#endif
