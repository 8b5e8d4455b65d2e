/* See group.h. */
#include "shm/group.h"

#include "psyne/inline.h"

uint64_t group_position(const struct layout_view *v, uint32_t group, uint32_t lane, bool exact) {
        const struct layout_cursor *c = layout_cursor(v, group, lane);

        return __atomic_load_n(exact ? &c->exact.released : &c->published, PSYNE_ORDER_A); /* A, pairs with D, E */
}

void group_place(const struct layout_view *v, uint32_t group, uint32_t lane, uint64_t position, bool late) {
        struct layout_cursor *c = layout_cursor(v, group, lane);

        c->before = v->lanes[lane].tx.messages_sent - c->exact.messages_received - c->lost;
        c->late = late;

        __atomic_store_n(&c->exact.taken, position, __ATOMIC_RELAXED);
        __atomic_store_n(&c->exact.released, position, __ATOMIC_RELAXED);
        __atomic_store_n(&c->published, position, __ATOMIC_RELEASE);
}

bool group_all_drained(const struct layout_view *v, uint32_t lane, uint64_t tail) {
        uint64_t groups = __atomic_load_n(&v->header->groups_active, __ATOMIC_ACQUIRE), end = tail;

        for (unsigned pass = 0; pass < 2; pass++)
                for (uint64_t left = groups; left; left &= left - 1) {
                        uint32_t g = (uint32_t)__builtin_ctzll(left);
                        uint64_t at;

                        if (g >= v->n_groups)
                                break;
                        at = group_position(v, g, lane, true);
                        if (pass == 0 && (int64_t)(at - end) > 0)
                                end = at;
                        if (pass == 1 && at != end)
                                return false;
                }
        return true;
}
