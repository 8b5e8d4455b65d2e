/* See shared.h. */
#include "shm/shared.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/fault.h"
#include "shm/group.h"

/* A test builds with one of them weakened and must see a race reported. */
#ifndef SHARED_ORDER_A
#define SHARED_ORDER_A __ATOMIC_ACQUIRE
#endif
#ifndef SHARED_ORDER_D
#define SHARED_ORDER_D __ATOMIC_RELEASE
#endif

/*
 * A loan's owner word: bits 0-1 state, 2-7 member, 8-23 the member's generation, 24-63 how often this place was used.
 * A hold word: 0 = none; else the position, a multiple of 16, with bit 0 set and three bits of the member's generation.
 */
enum { LOAN_FREE, LOAN_INTENT, LOAN_HELD };

static uint64_t owner_word(uint64_t old, uint32_t state, uint32_t member, uint32_t generation, unsigned more) {
        return state | (uint64_t)member << 2 | (uint64_t)(generation & 0xffff) << 8 | ((old >> 24) + more) << 24;
}

static uint32_t owner_state(uint64_t word) {
        return (uint32_t)(word & 3);
}

static bool is_mine(const struct shared_self *s, uint64_t word) {
        return (uint32_t)(word >> 2 & 63) == s->member && (uint32_t)(word >> 8 & 0xffff) == (s->generation & 0xffff);
}

/* The member that owns it is in it still. */
static bool owner_is_there(const struct layout_view *v, uint64_t word) {
        const struct layout_member *m;
        uint32_t member = (uint32_t)(word >> 2 & 63), state;

        if (member >= v->n_members)
                return false;
        m = &v->members[member];
        state = __atomic_load_n(&m->state, __ATOMIC_ACQUIRE);
        return (state == LAYOUT_ACTIVE || state == LAYOUT_JOINING) &&
                (__atomic_load_n(&m->generation, __ATOMIC_ACQUIRE) & 0xffff) == (uint32_t)(word >> 8 & 0xffff);
}

static uint64_t *claim_of(const struct layout_view *v, uint32_t group, uint32_t lane) {
        return &layout_cursor(v, group, lane)->claim;
}

static uint64_t *hold_of(const struct layout_view *v, uint32_t member, uint32_t lane) {
        return (uint64_t *)(void *)((char *)v->holds + (uint64_t)v->holds_stride * member) + lane;
}

static uint64_t hold_word(const struct shared_self *s, uint64_t position) {
        return position | 1 | (uint64_t)(s->generation & 7) << 1;
}

/* ---- free position ---------------------------------------------------------------------------------------------- */

uint64_t shared_position(const struct layout_view *v, uint32_t group, uint32_t lane) {
        uint64_t claim = shared_claim_position(__atomic_load_n(claim_of(v, group, lane), __ATOMIC_ACQUIRE)), behind = 0;

        for (uint32_t m = 0; m < v->n_members; m++) {
                uint64_t hold;

                if (__atomic_load_n(&v->members[m].group, __ATOMIC_ACQUIRE) != group)
                        continue;
                hold = __atomic_load_n(hold_of(v, m, lane), SHARED_ORDER_A); /* A, pairs with D */
                if (hold && (int64_t)(claim - (hold & ~15ull)) > (int64_t)behind)
                        behind = claim - (hold & ~15ull);
        }
        return claim - behind;
}

/* The oldest loan in a member's row that is not free, whoever owns it. UINT64_MAX: none in that lane. */
static uint64_t oldest_in_row(const struct layout_view *v, uint32_t member, uint32_t lane, uint64_t used) {
        uint64_t oldest = UINT64_MAX;

        for (; used; used &= used - 1) {
                const struct layout_loan *e = shared_loan(v, member, (uint32_t)__builtin_ctzll(used));

                if (owner_state(__atomic_load_n(&e->owner, __ATOMIC_ACQUIRE)) == LOAN_FREE ||
                        __atomic_load_n(&e->lane, __ATOMIC_RELAXED) != lane)
                        continue;
                if (oldest == UINT64_MAX || (int64_t)(__atomic_load_n(&e->start, __ATOMIC_RELAXED) - oldest) < 0)
                        oldest = __atomic_load_n(&e->start, __ATOMIC_RELAXED);
        }
        return oldest;
}

static bool hold_refresh(struct shared_self *s, uint32_t lane) {
        uint64_t *hold = hold_of(s->view, s->member, lane), old = __atomic_load_n(hold, __ATOMIC_RELAXED);
        uint64_t oldest = oldest_in_row(s->view, s->member, lane, s->used);
        uint64_t word = oldest == UINT64_MAX ? 0 : hold_word(s, oldest);

        if (word == old)
                return false;
        __atomic_store_n(hold, word, SHARED_ORDER_D); /* D: who sees it may overwrite, the member is done */
        return true;
}

bool shared_holds_refresh(struct shared_self *s) {
        bool raised = false;

        for (uint32_t k = 0; k < LAYOUT_LOANS; k++) /* others finish what they adopted from here */
                if (s->used & (1ull << k) &&
                        owner_state(__atomic_load_n(&shared_loan(s->view, s->member, k)->owner, __ATOMIC_ACQUIRE)) == LOAN_FREE)
                        s->used &= ~(1ull << k);
        for (uint32_t lane = 0; lane < s->view->n_lanes; lane++)
                raised |= hold_refresh(s, lane);
        return raised;
}

void shared_begin(struct shared_self *s) {
        s->used = 0;
        memset(s->left, 0, sizeof(s->left));
        for (uint32_t k = 0; k < LAYOUT_LOANS; k++) {
                if (owner_state(__atomic_load_n(&shared_loan(s->view, s->member, k)->owner, __ATOMIC_ACQUIRE)) ==
                        LOAN_FREE)
                        continue;
                s->used |= 1ull << k;
        }
        (void)shared_holds_refresh(s);
}

static uint64_t all_of(uint32_t n) {
        return n >= 64 ? UINT64_MAX : (1ull << n) - 1;
}

/* ---- claiming --------------------------------------------------------------------------------------------------- */

/* Step 5 for whoever the claim word names. */
static void finish_claim(const struct layout_view *v, uint32_t group, uint32_t lane, uint64_t word) {
        uint64_t *claim = claim_of(v, group, lane), start = shared_claim_position(word), ring = v->config.ring_bytes;
        uint32_t member = (uint32_t)(word & 127) - 1;

        if (member >= v->n_members) { /* not what any of us wrote: go on as if there had been no claim */
                __atomic_compare_exchange_n(claim, &word, shared_claim_word(start, 0), false, __ATOMIC_ACQ_REL,
                        __ATOMIC_ACQUIRE);
                return;
        }
        for (uint32_t k = 0; k < LAYOUT_LOANS; k++) {
                struct layout_loan *e = shared_loan(v, member, k);
                uint64_t owner = __atomic_load_n(&e->owner, __ATOMIC_ACQUIRE), end;

                if (owner_state(owner) == LOAN_FREE || __atomic_load_n(&e->start, __ATOMIC_RELAXED) != start ||
                        __atomic_load_n(&e->lane, __ATOMIC_RELAXED) != lane)
                        continue;
                end = __atomic_load_n(&e->end, __ATOMIC_RELAXED);
                if (__atomic_load_n(claim, __ATOMIC_ACQUIRE) != word)
                        return; /* done meanwhile; and what we read may be of another claim */
                if (end - start - 1 >= ring || end & 15)
                        continue;
                if (owner_state(owner) == LOAN_INTENT)
                        __atomic_compare_exchange_n(&e->owner, &owner, (owner & ~3ull) | LOAN_HELD, false,
                                __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
                FAULT_POINT("shared.helping");
                __atomic_compare_exchange_n(claim, &word, shared_claim_word(end, 0), false, __ATOMIC_ACQ_REL,
                        __ATOMIC_ACQUIRE);
                return;
        }
        /* No such loan: a peer wrote nonsense, or the word moved on while we looked. */
        if (__atomic_load_n(claim, __ATOMIC_ACQUIRE) == word)
                __atomic_compare_exchange_n(claim, &word, shared_claim_word(start, 0), false, __ATOMIC_ACQ_REL,
                        __ATOMIC_ACQUIRE);
}

/*
 * Looks at memory that may have become somebody's payload meanwhile, when the claim word has moved on: what is read then
 * is used for nothing, because the claim fails. To ThreadSanitizer that is a race, so it does not look here; the
 * commit word of a claimed record is loaded once more, in its sight, by who takes it.
 */
__attribute__((no_sanitize("thread"))) static uint32_t peek(const uint32_t *word) {
        return __atomic_load_n(word, PSYNE_ORDER_C); /* C, pairs with B */
}

/* A record's header at @at: its stride, 0 = nothing there, or 1 = no header. Not to be believed before the claim. */
__attribute__((no_sanitize("thread"))) static uint64_t header_at(const struct shared_ring *x, uint64_t at, bool *ret_pad) {
        const struct psyne_record *r = (const void *)(x->base + (at & x->mask));
        uint64_t stride = peek(&r->commit), bytes, kind;

        if (!stride)
                return 0;
        bytes = __atomic_load_n(&r->bytes, __ATOMIC_RELAXED);
        kind = __atomic_load_n(&r->kind, __ATOMIC_RELAXED) >> 32;
        *ret_pad = kind != 0;
        if (stride & (x->align - 1) || stride > x->mask + 1 - x->align || bytes > stride - PSYNE_RECORD_HEADER ||
                (kind && kind != PSYNE_RECORD_PAD >> 32))
                return 1;
        return stride;
}

/* After a look at the claim word. */
static bool ring_is_the_lane(const struct layout_view *v, const struct shared_ring *x) {
        return __atomic_load_n(&v->lanes[x->lane].generation, __ATOMIC_ACQUIRE) == x->generation;
}

static bool gate_passes(const struct layout_view *v, const struct shared_ring *x, uint64_t to) {
        return group_passes(v, x->follows, x->lane, x->gate, to);
}

bool shared_ready(const struct layout_view *v, uint32_t group, const struct shared_ring *x) {
        uint64_t word = __atomic_load_n(claim_of(v, group, x->lane), __ATOMIC_ACQUIRE);
        const struct psyne_record *r = (const void *)(x->base + (shared_claim_position(word) & x->mask));

        if (!ring_is_the_lane(v, x))
                return false;
        return word & 127 || (peek(&r->commit) != 0 && gate_passes(v, x, shared_claim_position(word) + 1));
}

#define TRIES_MAX 100000 /* another's claim makes a try in vain, and is its step forward; so many are nobody's */

int shared_claim(struct shared_self *s, const struct shared_ring *x, unsigned most, struct shared_claim *ret) {
        const struct layout_view *v = s->view;
        uint64_t *claim = claim_of(v, s->group, x->lane), *hold = hold_of(v, s->member, x->lane);
        uint64_t older = __atomic_load_n(hold, __ATOMIC_RELAXED), *starts;
        struct layout_loan *e;
        uint32_t k;

        if (s->used == UINT64_MAX)
                return error_set(-ENOBUFS, "%u runs of messages are held", LAYOUT_LOANS);
        k = (uint32_t)__builtin_ctzll(~s->used);
        e = shared_loan(v, s->member, k);
        starts = s->starts[k];
        *ret = (struct shared_claim){.loan = k};
        for (unsigned tries = 0;; tries++) {
                const bool again = tries > 0;
                uint64_t word = __atomic_load_n(claim, __ATOMIC_ACQUIRE), expected = word, at, start, pads = 0, owner;
                uint64_t stride = 0;
                uint32_t n = 0;
                bool pad;

                if (!ring_is_the_lane(v, x) || tries == TRIES_MAX) {
                        if (!older && again) {
                                __atomic_store_n(hold, 0, __ATOMIC_RELEASE);
                                ret->raised = true;
                        }
                        return 0;
                }
                if (word & 127) {
                        finish_claim(v, s->group, x->lane, word);
                        continue;
                }
                at = start = shared_claim_position(word);
                if (!older) {
                        __atomic_store_n(hold, hold_word(s, start), __ATOMIC_RELEASE); /* 1 */
                        ret->raised |= again;
                }
                FAULT_POINT("shared.held");
                while (n < most && n < LAYOUT_LOANS && at - start <= x->mask + 1) { /* 2 */
                        stride = gate_passes(v, x, at + 1) ? header_at(x, at, &pad) : 0;
                        if (stride > 1 && !gate_passes(v, x, at + stride))
                                stride = 0; /* a position that cannot be */
                        if (stride <= 1)
                                break;
                        pads |= (uint64_t)pad << n;
                        starts[n++] = at;
                        at += stride;
                }
                if (!n || at - start > x->mask + 1) {
                        if (__atomic_load_n(claim, __ATOMIC_ACQUIRE) != word)
                                continue; /* it was no header because somebody else has had it long ago */
                        if (!older) {
                                __atomic_store_n(hold, 0, __ATOMIC_RELEASE);
                                ret->raised = true;
                        }
                        return stride == 0 ? 0 : error_set(-EBADMSG, "the producer wrote a damaged record header");
                }
                owner = __atomic_load_n(&e->owner, __ATOMIC_RELAXED);
                owner = owner_word(owner, LOAN_INTENT, s->member, s->generation, 1);
                __atomic_store_n(&e->start, start, __ATOMIC_RELAXED);
                __atomic_store_n(&e->end, at, __ATOMIC_RELAXED);
                __atomic_store_n(&e->lane, x->lane, __ATOMIC_RELAXED);
                __atomic_store_n(&e->n, n, __ATOMIC_RELAXED);
                __atomic_store_n(&e->done, pads, __ATOMIC_RELAXED);
                __atomic_store_n(&e->owner, owner, __ATOMIC_RELEASE); /* 3 */
                FAULT_POINT("shared.intent");
                if (!__atomic_compare_exchange_n(claim, &expected, shared_claim_word(start, s->member + 1), false,
                            __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) { /* 4 */
                        __atomic_store_n(&e->owner, owner & ~3ull, __ATOMIC_RELEASE);
                        continue;
                }
                FAULT_POINT("shared.claiming");
                expected = owner;
                __atomic_compare_exchange_n(&e->owner, &expected, (owner & ~3ull) | LOAN_HELD, false, __ATOMIC_ACQ_REL,
                        __ATOMIC_ACQUIRE); /* 5; or a helper did */
                FAULT_POINT("shared.won");
                expected = shared_claim_word(start, s->member + 1);
                __atomic_compare_exchange_n(claim, &expected, shared_claim_word(at, 0), false, __ATOMIC_ACQ_REL,
                        __ATOMIC_ACQUIRE);
                FAULT_POINT("shared.claimed");
                s->used |= 1ull << k;
                s->left[k] = all_of(n) & ~pads;
                s->next[k] = 0;
                ret->n = n;
                ret->pads = pads;
                ret->start = start;
                ret->end = at;
                return (int)n;
        }
}

/* ---- releasing -------------------------------------------------------------------------------------------------- */

bool shared_owns(const struct shared_self *s, uint32_t member, uint32_t k, uint32_t i) {
        const struct layout_loan *e;
        uint64_t owner;

        if (member >= s->view->n_members || k >= LAYOUT_LOANS || i >= LAYOUT_LOANS)
                return false;
        e = shared_loan(s->view, member, k);
        owner = __atomic_load_n(&e->owner, __ATOMIC_ACQUIRE);
        return owner_state(owner) == LOAN_HELD && is_mine(s, owner) &&
                !(__atomic_load_n(&e->done, __ATOMIC_RELAXED) & (1ull << i));
}

/* A dead member's hold word goes when nothing in its row is left in that lane: by compare-and-swap, for the row may have
 * a new member, whose hold words carry another generation. */
static void drop_hold_of_the_dead(struct shared_self *s, uint32_t member, uint32_t lane) {
        const struct layout_view *v = s->view;
        uint64_t *hold = hold_of(v, member, lane), old = __atomic_load_n(hold, __ATOMIC_ACQUIRE);

        if (!old || __atomic_load_n(&v->members[member].state, __ATOMIC_ACQUIRE) != LAYOUT_DEAD)
                return;
        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* of two that finish the last two loans, one at least sees both done */
        if (oldest_in_row(v, member, lane, UINT64_MAX) == UINT64_MAX)
                __atomic_compare_exchange_n(hold, &old, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
}

bool shared_done_own(struct shared_self *s, uint32_t k, uint32_t i) {
        struct layout_loan *e = shared_loan(s->view, s->member, k);
        uint64_t bit = 1ull << i, owner;
        uint32_t lane;

        s->left[k] &= ~bit;
        s->next[k] = (uint8_t)((i + 1) % LAYOUT_LOANS);
        __atomic_store_n(&e->done, __atomic_load_n(&e->done, __ATOMIC_RELAXED) | bit, __ATOMIC_RELEASE);
        FAULT_POINT("shared.done");
        if (s->left[k])
                return false;
        owner = __atomic_load_n(&e->owner, __ATOMIC_RELAXED);
        lane = __atomic_load_n(&e->lane, __ATOMIC_RELAXED);
        __atomic_store_n(&e->owner, owner & ~3ull, __ATOMIC_RELEASE); /* FREE */
        s->used &= ~(1ull << k);
        return lane < s->view->n_lanes && hold_refresh(s, lane);
}

bool shared_done(struct shared_self *s, uint32_t member, uint32_t k, uint64_t which) {
        struct layout_loan *e = shared_loan(s->view, member, k);
        uint64_t done = __atomic_load_n(&e->done, __ATOMIC_RELAXED) | which; /* the owner is its only writer */
        uint64_t owner = __atomic_load_n(&e->owner, __ATOMIC_RELAXED);
        uint32_t lane = __atomic_load_n(&e->lane, __ATOMIC_RELAXED), n = __atomic_load_n(&e->n, __ATOMIC_RELAXED);

        if (member == s->member)
                s->left[k] &= ~which;
        __atomic_store_n(&e->done, done, __ATOMIC_RELEASE); /* from here on nobody gets these again */
        FAULT_POINT("shared.done");
        if ((done & all_of(n)) != all_of(n) || lane >= s->view->n_lanes)
                return false;
        __atomic_store_n(&e->owner, owner & ~3ull, __ATOMIC_RELEASE); /* FREE */
        if (member == s->member) {
                s->used &= ~(1ull << k);
                return hold_refresh(s, lane);
        }
        drop_hold_of_the_dead(s, member, lane);
        return true;
}

/* ---- the gone --------------------------------------------------------------------------------------------------- */

bool shared_row_is_clean(const struct layout_view *v, uint32_t member) {
        for (uint32_t k = 0; k < LAYOUT_LOANS; k++)
                if (owner_state(__atomic_load_n(&shared_loan(v, member, k)->owner, __ATOMIC_ACQUIRE)) != LOAN_FREE)
                        return false;
        return true;
}

int shared_adopt(struct shared_self *s, uint32_t member, uint32_t *ret_k, uint64_t *ret_owner) {
        const struct layout_view *v = s->view;

        for (uint32_t lane = 0; lane < v->n_lanes; lane++) {
                uint64_t word = __atomic_load_n(claim_of(v, s->group, lane), __ATOMIC_ACQUIRE);

                if ((word & 127) == member + 1)
                        finish_claim(v, s->group, lane, word);
        }
        for (;;) {
                uint32_t oldest = LAYOUT_LOANS, n;
                uint64_t start = 0, owner, owner_then = 0;
                struct layout_loan *e;

                for (uint32_t k = 0; k < LAYOUT_LOANS; k++) {
                        e = shared_loan(v, member, k);
                        owner = __atomic_load_n(&e->owner, __ATOMIC_ACQUIRE);
                        if (owner_state(owner) == LOAN_FREE || owner_is_there(v, owner))
                                continue;
                        n = __atomic_load_n(&e->n, __ATOMIC_RELAXED);
                        if (owner_state(owner) == LOAN_INTENT || /* and no claim word names it: never his */
                                __atomic_load_n(&e->lane, __ATOMIC_RELAXED) >= v->n_lanes || n - 1 >= LAYOUT_LOANS ||
                                /* or the row is damaged, or it died between its last release and this */
                                (__atomic_load_n(&e->done, __ATOMIC_ACQUIRE) & all_of(n)) == all_of(n)) {
                                __atomic_compare_exchange_n(&e->owner, &owner, owner & ~3ull, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_ACQUIRE);
                                continue;
                        }
                        if (oldest == LAYOUT_LOANS ||
                                (int64_t)(__atomic_load_n(&e->start, __ATOMIC_RELAXED) - start) < 0) {
                                oldest = k;
                                start = __atomic_load_n(&e->start, __ATOMIC_RELAXED);
                                owner_then = owner;
                        }
                }
                if (oldest == LAYOUT_LOANS)
                        break;
                e = shared_loan(v, member, oldest);
                FAULT_POINT("shared.adopting");
                owner = owner_word(owner_then, LOAN_HELD, s->member, s->generation, 0);
                if (!__atomic_compare_exchange_n(&e->owner, &owner_then, owner, false, __ATOMIC_SEQ_CST,
                            __ATOMIC_ACQUIRE))
                        continue; /* another survivor's */
                *ret_owner = owner;
                FAULT_POINT("shared.adopted");
                *ret_k = oldest;
                return 1;
        }
        if (member != s->member)
                for (uint32_t lane = 0; lane < v->n_lanes; lane++)
                        drop_hold_of_the_dead(s, member, lane);
        return 0;
}
