/* See group.h. */
#include "shm/group.h"

#include "psyne/inline.h"
#include "shm/shared.h"

uint64_t group_position(const struct layout_view *v, uint32_t group, uint32_t lane, bool exact) {
        const struct layout_cursor *c = layout_cursor(v, group, lane);

        if (__atomic_load_n(&v->groups[group].kind, __ATOMIC_RELAXED) == LAYOUT_GROUP_SHARED)
                return shared_position(v, group, lane);
        return __atomic_load_n(exact ? &c->exact.released : &c->published, PSYNE_ORDER_A); /* A, pairs with D, E */
}

void group_place(const struct layout_view *v, uint32_t group, uint32_t lane, uint64_t position, bool late) {
        struct layout_cursor *c = layout_cursor(v, group, lane);

        c->before = v->lanes[lane].tx.messages_sent - c->exact.messages_received - c->lost;
        c->late = late;

        __atomic_store_n(&c->claim, shared_claim_word(position, 0), __ATOMIC_RELAXED);
        __atomic_store_n(&c->exact.taken, position, __ATOMIC_RELAXED);
        __atomic_store_n(&c->exact.released, position, __ATOMIC_RELAXED);
        __atomic_store_n(&c->published, position, __ATOMIC_RELEASE);
}

void group_finish(const struct layout_view *v, uint32_t group, uint32_t lane, uint32_t generation) {
        __atomic_store_n(&layout_cursor(v, group, lane)->finished, generation, __ATOMIC_RELEASE);
}

/* How far a group has handed records out. */
static uint64_t handed_out(const struct layout_view *v, uint32_t group, uint32_t lane) {
        const struct layout_cursor *c = layout_cursor(v, group, lane);

        if (__atomic_load_n(&v->groups[group].kind, __ATOMIC_RELAXED) == LAYOUT_GROUP_SHARED)
                return shared_claim_position(__atomic_load_n(&c->claim, __ATOMIC_ACQUIRE));
        return __atomic_load_n(&c->exact.taken, __ATOMIC_ACQUIRE);
}

bool group_drained(const struct layout_view *v, uint32_t group, uint32_t lane, uint32_t generation, bool died) {
        uint64_t tail = __atomic_load_n(&v->lanes[lane].tx.tail, __ATOMIC_ACQUIRE), end;

        if (died && __atomic_load_n(&layout_cursor(v, group, lane)->finished, __ATOMIC_ACQUIRE) != generation)
                return false;
        end = handed_out(v, group, lane);
        return (died ? (int64_t)(end - tail) >= 0 : end == tail) && group_position(v, group, lane, true) == end;
}

bool group_all_drained(const struct layout_view *v, uint32_t lane, uint32_t generation, bool died) {
        uint64_t groups = __atomic_load_n(&v->header->groups_active, __ATOMIC_ACQUIRE);

        for (; groups; groups &= groups - 1) {
                uint32_t g = (uint32_t)__builtin_ctzll(groups);

                if (g >= v->n_groups)
                        break;
                if (!group_drained(v, g, lane, generation, died))
                        return false;
        }
        return true;
}
