/*
 * Whose bells this process can strike: of every endpoint that sleeps by a descriptor, and whose kernel does not ring it
 * for a wake, a copy of the handle. It is handed over as rings are (service.c), and is struck once as it arrives: whoever
 * should have been woken before that is woken then.
 *
 * A waker takes no lock, so a number that it may have read is never closed before the channel is, only put to another use:
 * a later owner's handle takes its place under the same number, and is at worst struck for nothing.
 */
#include "lib/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static uint64_t make(uint32_t generation, int fd) {
        return (uint64_t)generation << 32 | (uint32_t)(fd + 1);
}

static int fd_of(uint64_t word) {
        return (int)(uint32_t)word - 1;
}

/* Takes @fd over. Lock held. */
int bells_put(struct psyne_channel *ch, enum bells_side side, uint32_t index, uint32_t generation, int fd) {
        uint64_t *word = &ch->bells[side][index], old = __atomic_load_n(word, __ATOMIC_RELAXED);

        if (fd_of(old) >= 0) {
                int r = dup3(fd, fd_of(old), O_CLOEXEC) < 0 ? -errno : 0;

                close(fd);
                if (r < 0)
                        return r;
                fd = fd_of(old);
        }
        __atomic_store_n(word, make(generation, fd), __ATOMIC_RELEASE); /* pairs with bells_strike() */
        return 0;
}

/* False: we have no handle of it. */
bool bells_strike(const struct psyne_channel *ch, enum bells_side side, uint32_t index, uint32_t generation) {
        uint64_t word = __atomic_load_n(&ch->bells[side][index], __ATOMIC_ACQUIRE);

        if (fd_of(word) < 0 || (uint32_t)(word >> 32) != generation)
                return false;
        bell_strike(fd_of(word));
        return true;
}

/* Ours, all of them: somebody has left who may have owed a wake, and may not have had the handle yet. */
void bells_strike_own(struct psyne_channel *ch) {
        pthread_mutex_lock(&ch->lock);
        for (struct psyne_consumer *c = ch->consumers; c; c = c->next)
                if (c->endpoint.bell && bell_handle(c->endpoint.bell) >= 0)
                        bell_ring(c->endpoint.bell);
        for (struct psyne_producer *p = ch->producers; p; p = p->next)
                if (p->endpoint.bell && bell_handle(p->endpoint.bell) >= 0)
                        bell_ring(p->endpoint.bell);
        pthread_mutex_unlock(&ch->lock);
}

void bells_close(struct psyne_channel *ch) {
        for (unsigned side = 0; side < BELLS_SIDES; side++)
                for (unsigned i = 0; i < LAYOUT_CONSUMERS_MAX; i++) {
                        int fd = fd_of(ch->bells[side][i]);

                        ch->bells[side][i] = 0;
                        if (fd >= 0)
                                close(fd);
                }
}
