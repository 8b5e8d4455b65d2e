/*
 * A group that several members share: each message goes to one of them, who holds it in place until it releases it.
 *
 *      claim word      of the group in a lane: {position / 16, who is claiming there or none}
 *      loans           of a member, in its own row: a run of records it claimed, and which of them are done
 *      hold word       of a member in a lane: the oldest position it may still need, or none
 *
 * A claim takes five steps. (1) The hold word says g before anything at g is looked at. (2) The records from g on are
 * walked; nothing of them is believed yet. (3) A loan of the member's says {g, end, INTENT}. (4) The claim word goes from
 * {g, none} to {g, me}: that succeeds only if nobody claimed since, so what was walked was there. (5) The loan becomes
 * HELD, the claim word {end, none}. Who meets {g, other} does the fifth step for the other and goes on, so a member that
 * is stopped or dead in the middle keeps nobody; and of one that died it is always decided whether the records were
 * his: HELD they are, INTENT and not named by the claim word they never were.
 *
 * A loan's owner word carries a sequence number of that place: who helps late changes nothing. Whoever adopts the loan
 * of a dead member does it in place, by compare-and-swap on the owner word, and the dead one's hold word goes on
 * counting until his last loan in that lane is done: a producer that looks at one hold word after another cannot miss a
 * record on its way from one to the other.
 *
 * The hold word stays at a loan's start until all of the loan is done: whoever adopts it walks it from there.
 *
 * A lane's index is used again, with the same claim word and another ring, by members that have not noticed. Hence the
 * lane's generation is looked at after every look at the claim word: a word of the next lane comes with its generation,
 * and one of this lane with this lane's, whose claim cannot succeed once the index has gone on: all of it was claimed.
 *
 * Free position: the claim word first, then the hold words of all members (acquire, in this order), and only ever used
 * monotonically: a member that slept between (1) and (4) for laps shows an old position and then fails.
 *
 * Orders: (1) is a release before (4), which acquires and releases; walked headers are acquired, because the claim word
 * hands "the next word is clear" on to the next claimant. A store-load barrier is needed nowhere but for sleeping.
 */
#ifndef PSYNE_SHM_SHARED_H
#define PSYNE_SHM_SHARED_H
#include <stdbool.h>
#include <stdint.h>

#include "shm/layout.h"

/* One member's view of itself. */
struct shared_self {
        const struct layout_view *view;
        uint32_t group, member, generation;
        uint64_t used;                 /* own loans that are not free */
        uint64_t (*starts)[LAYOUT_LOANS]; /* [own loan][record]: where each begins */
        uint64_t left[LAYOUT_LOANS];   /* own loans that we claimed: a bit for each record not released */
        uint8_t next[LAYOUT_LOANS];    /* the record that will probably be released next */
};

/* A ring as this process has it mapped. */
struct shared_ring {
        const unsigned char *base;
        uint64_t mask, align;
        uint32_t lane, generation;     /* whose ring it is: the index may have got another one since */
        int32_t follows;               /* group in front, -1 = none */
        uint64_t *gate;                /* how far that one was; only rises */
};

struct shared_claim {
        uint32_t loan;                 /* in the member's row */
        uint32_t n;
        uint64_t start, end;
        uint64_t pads;                 /* a bit for each record that is padding */
        bool raised;                   /* the hold word went up meanwhile: producers may wait for that */
};

static inline struct layout_loan *shared_loan(const struct layout_view *v, uint32_t member, uint32_t k) {
        return &v->loans[member * LAYOUT_LOANS + k];
}

/* The records of an adopted loan from the @i-th on that are not done. When all are, its place may be another's already. */
static inline uint64_t shared_rest(const struct layout_loan *e, uint64_t owner, uint32_t i) {
        uint32_t n = __atomic_load_n(&e->n, __ATOMIC_RELAXED);
        uint64_t all = n >= 64 ? UINT64_MAX : (1ull << n) - 1;

        if (i >= n || i >= LAYOUT_LOANS || __atomic_load_n(&e->owner, __ATOMIC_ACQUIRE) != owner)
                return 0;
        return all & ~__atomic_load_n(&e->done, __ATOMIC_ACQUIRE) & ~((1ull << i) - 1);
}

/* Takes a row over, with what a dead predecessor of the same group left in it. */
void shared_begin(struct shared_self *s);

/* Up to @most records (64 at most). How many; 0 = nothing is there; -EBADMSG = what is there is no record. */
int shared_claim(struct shared_self *s, const struct shared_ring *x, unsigned most, struct shared_claim *ret);

/* Is there a record where the group goes on, or a claim that is not finished? */
bool shared_ready(const struct layout_view *v, uint32_t group, const struct shared_ring *x);

/* The records @which (a bit each) of a loan that this member owns are released. True: a hold word went up. */
bool shared_done(struct shared_self *s, uint32_t member, uint32_t k, uint64_t which);

/* Record @i of a loan that we claimed ourselves, and that is @left, is released. True: a hold word went up. */
bool shared_done_own(struct shared_self *s, uint32_t k, uint32_t i);

/* Is that loan owned by this member, and record @i not done? */
bool shared_owns(const struct shared_self *s, uint32_t member, uint32_t k, uint32_t i);

/* Makes the loans of a member that is gone ours, one at a time: 1 = *ret_k is, 0 = there is none. First finishes what it
 * was in the middle of. *ret_owner is the loan's owner word as long as it is this loan. */
int shared_adopt(struct shared_self *s, uint32_t member, uint32_t *ret_k, uint64_t *ret_owner);

/* Has a member's row no loans? Else only a member of the same group may take it over. */
bool shared_row_is_clean(const struct layout_view *v, uint32_t member);

/* The group's free position in a lane, see above. */
uint64_t shared_position(const struct layout_view *v, uint32_t group, uint32_t lane);

/* Brings the hold words up to date with what is owned in this member's row, whoever owns it. True: one went up. */
bool shared_holds_refresh(struct shared_self *s);

static inline uint64_t shared_claim_position(uint64_t word) {
        return word >> 7 << 4;
}

static inline uint64_t shared_claim_word(uint64_t position, uint32_t claimant) {
        return position / 16 << 7 | claimant;
}
#endif
