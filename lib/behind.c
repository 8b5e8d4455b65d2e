/*
 * A consumer whose producers do not wait for it, or not for ever: it gets copies, each in a place of its own until it is
 * released, and is told how many messages it missed. What it copied counts as released by its group: when it dies, that
 * is gone with it.
 *
 * What was missed stands in the group's cursors; what of that was told, too, so that a number that one consumer did not
 * come to tell, because nothing came after it, is told by the next. Of what was told to one that died nobody knows whether
 * it still looked at it.
 *
 * The number of the next message of a lane is before + received + lost of the group's cursor, over all lanes that an
 * index has had; so what a lane held when its index was given to another, or when the group was ejected, is a difference.
 */
#include "lib/internal.h"

#include <errno.h>
#include <sys/mman.h>

#include "shm/overrun.h"

#define TOKEN_COPY 127u /* no lane's index */

static uint64_t token(const struct psyne_consumer *c) {
        return (uint64_t)(uintptr_t)c | TOKEN_COPY;
}

int behind_open(struct psyne_consumer *c) {
        void *memory;

        c->copied.slot_bytes = c->channel->view.config.ring_bytes; /* no message is longer; pages come when touched */
        memory = mmap(NULL, c->held_max * c->copied.slot_bytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED)
                return error_set(-ENOMEM, "no memory for copies of %u messages of up to %zu bytes", c->held_max,
                        c->copied.slot_bytes);
        c->copied.memory = memory;
        c->copies = true;
        return 0;
}

void behind_close(struct psyne_consumer *c) {
        if (c->copied.memory)
                munmap(c->copied.memory, c->held_max * c->copied.slot_bytes);
}

static uint32_t policy(const struct psyne_consumer *c) {
        return c->channel->view.groups[c->group].policy;
}

bool behind_is_out(const struct psyne_consumer *c) {
        return __atomic_load_n(&c->channel->view.groups[c->group].flags, __ATOMIC_ACQUIRE) & LAYOUT_GROUP_OUT;
}

int behind_take(struct psyne_consumer *c, struct psyne_msg *ret) {
        const struct layout_lane *l = &c->channel->view.lanes[c->lane];
        uint64_t free_places = ~c->copied.used & (c->held_max >= 64 ? UINT64_MAX : (1ull << c->held_max) - 1);
        struct psyne_hot_rx *h = &c->rx.hot;
        unsigned i;
        int r;

        if (!free_places)
                return overrun_ready(&c->rx, l)
                        ? error_set(-ENOBUFS, "%u messages are held, the limit of this consumer", c->held_max)
                        : 0;
        i = (unsigned)__builtin_ctzll(free_places);
        r = overrun_take(&c->rx, l, c->copied.memory + i * c->copied.slot_bytes, c->copied.slot_bytes,
                policy(c) == PSYNE_BEHIND_SKIPS, ret, &c->copied.missed);
        if (h->released - h->published >= h->lazy || psyne_lane_sleepers(h->waiters, h->fence)) {
                if (h->released - h->published >= h->lazy)
                        walk_turn_over(c);
                (void)lane_rx_publish(&c->rx);
                wake_producers(c);
        }
        if (r != 1)
                return r;
        c->copied.used |= 1ull << i;
        c->copied.serials[i] = ++c->copied.serial;
        c->copied.newest_lane = (uint32_t)c->lane;
        ret->opaque[0] = i;
        ret->opaque[1] = c->copied.serial;
        ret->opaque[2] = token(c);
        return behind_told(c, ret, 1);
}

void behind_begin(struct psyne_consumer *c) {
        for (uint32_t lane = 0; lane < c->channel->view.n_lanes; lane++) {
                const struct layout_cursor *cursor = layout_cursor(&c->channel->view, c->group, lane);

                c->copied.missed += cursor->lost - cursor->told; /* by no predecessor; only the sum has a meaning */
        }
}

/* All of it, or less: what a call could not pass on. The sum over all lanes counts, so any of them will do. */
static void set_missed(struct psyne_consumer *c, uint64_t missed) {
        struct layout_cursor *cursor = layout_cursor(&c->channel->view, c->group, 0);

        if (missed != c->copied.missed)
                __atomic_store_n(&cursor->told, cursor->told + c->copied.missed - missed, __ATOMIC_RELAXED);
        c->copied.missed = missed;
}

int behind_told(struct psyne_consumer *c, struct psyne_msg *ret, int r) {
        if (r < 0)
                *ret = (struct psyne_msg){0};
        ret->lost = c->copied.missed;
        set_missed(c, 0);
        return r;
}

void behind_untell(struct psyne_consumer *c, uint64_t lost) {
        set_missed(c, c->copied.missed + lost);
}

void behind_missed(struct psyne_consumer *c, uint32_t lane, uint64_t messages) {
        struct layout_cursor *cursor = layout_cursor(&c->channel->view, c->group, lane);
        int64_t missed = (int64_t)(messages - cursor->before - cursor->exact.messages_received - cursor->lost);

        if (missed <= 0)
                return;
        __atomic_store_n(&cursor->lost, cursor->lost + (uint64_t)missed, __ATOMIC_RELAXED);
        c->copied.missed += (uint64_t)missed;
}

int behind_ejected(struct psyne_consumer *c, struct psyne_msg *ret) {
        const struct layout_view *v = &c->channel->view;
        uint64_t messages;

        for (uint32_t lane = 0; lane < v->n_lanes; lane++) {
                (void)layout_lane_end(&v->lanes[lane], &messages);
                behind_missed(c, lane, messages);
        }
        return behind_told(c, ret,
                error_set(-ECONNABORTED, "this group of %s fell behind and was ejected", c->channel->uri));
}

void behind_untake(struct psyne_consumer *c, const struct psyne_msg *m) {
        c->copied.newest = *m;
        c->copied.newest.lost = 0;
        c->copied.again = true;
        behind_untell(c, m->lost);
}

int behind_again(struct psyne_consumer *c, struct psyne_msg *ret) {
        *ret = c->copied.newest;
        c->copied.again = false;
        return behind_told(c, ret, 1);
}

/* A message that was put back is nobody's any more: it counts as missed. */
void behind_end(struct psyne_consumer *c) {
        struct layout_cursor *cursor = layout_cursor(&c->channel->view, c->group, c->copied.newest_lane);

        if (!c->copied.again)
                return;
        __atomic_store_n(&cursor->exact.messages_received, cursor->exact.messages_received - 1, __ATOMIC_RELAXED);
        __atomic_store_n(&cursor->exact.bytes_received, cursor->exact.bytes_received - c->copied.newest.len, __ATOMIC_RELAXED);
        __atomic_store_n(&cursor->lost, cursor->lost + 1, __ATOMIC_RELAXED);
}

int behind_release(struct psyne_consumer *c, struct psyne_msg *m) {
        uint64_t i = m->opaque[0];

        if (m->opaque[2] != token(c) || i >= c->held_max || !(c->copied.used & (1ull << i)) ||
                c->copied.serials[i] != m->opaque[1])
                return error_set(-EINVAL, "release of a message that this consumer does not hold");
        c->copied.used &= ~(1ull << i);
        m->opaque[2] = 0;
        return 0;
}
