/*
 * Claiming in a shared group: shm/shared.c. One producer with a ring of NC cells, a record each; two members, who claim
 * one or two records at a time, release them one by one, and of whom one may be killed after any step; the other takes
 * over. Every step of another process's memory is a step here.
 *
 * Checked: a cell is written again only when its record was released; no released record is handed out again; in the
 * end every record is released; nobody waits for ever (an invalid end state).
 *
 * Rules that can be left out, each of which must then fail:
 *   LATE_HOLD        the hold word stands before the claim is tried
 *   HOLDS_FIRST      the producer reads the claim word before the hold words
 *   NOT_MONOTONIC    what it computes is used only if it is more than before
 *   ONE_STEP         the claim word names who is claiming, until his loan says whether it is his
 *   MOVE_HOLD        the dead one's hold word stays until his loan is done, though somebody else has it now
 *   EARLY_CLEAR      a hold word goes after the record was released, not before
 *   NO_HELP          who meets a claim that is not finished finishes it
 */
#ifndef NC
#define NC 2
#endif
#ifndef LAST
#define LAST 3
#endif

byte claim, claimant;       /* one word: position; 0 = nobody, else member + 1 */
byte hold[2];               /* 0 = none, else position + 1 */
byte state[2], start[2], end_[2], owner[2]; /* loans: 0 free, 1 intent, 2 held */
byte tail;
bool released[8];
bool dead[2], taken_over;
bool crashed;

inline may_die(i) {
        if
        :: d_step { !crashed -> crashed = true; dead[i] = true } goto out
        :: true
        fi
}

/* Finishes the claim at @at for whoever the claim word names: steps of their own, by compare-and-swap. */
inline finish(m, at, to) {
        to = end_[m];
        d_step {
                if
                :: claim == at && claimant == m + 1 && start[m] == at && state[m] == 1 -> state[m] = 2
                :: else
                fi
        }
        d_step {
                if
                :: claim == at && claimant == m + 1 && start[m] == at -> claim = to; claimant = 0
                :: else
                fi;
                to = 0
        }
}

inline hand_out(k) {
        assert(k < tail && !released[k])
}

active proctype producer() {
        byte c, h0, h1, least, free;

        do
        :: tail < LAST && tail - free < NC ->
                d_step {
                        assert(tail < NC || released[tail - NC]);
                        tail++
                }
        :: tail < LAST && tail - free >= NC ->
#ifdef HOLDS_FIRST
                h0 = hold[0];
                h1 = hold[1];
                c = claim;
#else
                c = claim;
                h0 = hold[0];
                h1 = hold[1];
#endif
                d_step {
                        least = c;
                        if :: h0 && h0 - 1 < least -> least = h0 - 1 :: else fi;
                        if :: h1 && h1 - 1 < least -> least = h1 - 1 :: else fi;
#ifdef NOT_MONOTONIC
                        /* unsigned: more than a ring behind looks like plenty of room */
                        free = (tail - least > NC -> tail : least);
#else
                        if :: least > free -> free = least :: else fi;
#endif
                        c = 0;
                        h0 = 0;
                        h1 = 0;
                        least = 0
                }
        :: tail == LAST -> break
        od
}

proctype member(byte id) {
        byte other, at, by, to, k, e;

        other = 1 - id;
        do
        :: dead[other] && !taken_over ->
                d_step { at = claim; by = claimant }
                if
                :: by == other + 1 -> finish(other, at, to)
                :: else
                fi;
#ifdef ONE_STEP
                /* Was it his? The claim word has moved on, by him or by somebody else: it is not to be told. */
                if :: state[other] == 1 && claim > start[other] -> state[other] = 2 :: else fi;
#endif
                if
                :: state[other] == 1 -> state[other] = 0
                :: else
                fi;
                if
                :: state[other] == 2 ->
                        owner[other] = id;
#ifdef MOVE_HOLD
                        hold[id] = start[other] + 1;
                        hold[other] = 0;
#endif
                        k = start[other];
                        do
                        :: k < end_[other] ->
                                if
                                :: !released[k] -> hand_out(k); released[k] = true
#ifdef ONE_STEP
                                :: released[k] -> assert(false) /* another member's, who has released it */
#else
                                :: released[k]
#endif
                                fi;
                                k++
                        :: else -> break
                        od;
                        state[other] = 0
                :: else
                fi;
                hold[other] = 0;
#ifdef MOVE_HOLD
                hold[id] = 0;
#endif
                taken_over = true;
                at = 0;
                by = 0;
                k = 0
        :: else ->
                d_step { at = claim; by = claimant }
                if
#ifndef NO_HELP
                :: by != 0 -> finish(by - 1, at, to)
#else
                :: by != 0 -> (claimant != by || claim != at)
#endif
                :: by == 0 && at == LAST ->
                        /* All is claimed. The end is when all is released; what a dead one held comes to us. */
                        if
                        :: dead[other] && !taken_over
                        :: dead[other] && taken_over -> break
                        :: !dead[other] && state[other] == 0 && released[LAST - 1] && released[0] -> break
                        fi
                :: by == 0 && at < LAST ->
#ifndef LATE_HOLD
                        hold[id] = at + 1;
#endif
                        may_die(id);
                        if
                        :: tail <= at ->
                                hold[id] = 0;
                                /* asleep: a record, a claim that moved on, a death */
                                (tail > at || claim != at || claimant != 0 || (dead[other] && !taken_over))
                        :: tail > at ->
                                if
                                :: e = at + 1
                                :: tail > at + 1 -> e = at + 2
                                fi;
                                start[id] = at;
                                end_[id] = e;
                                owner[id] = id;
                                state[id] = 1;
                                may_die(id);
#ifdef ONE_STEP
                                d_step {
                                        if
                                        :: claim == at && claimant == 0 -> claim = e; k = 1
                                        :: else -> k = 0
                                        fi
                                }
                                may_die(id);
                                if
                                :: k == 1 -> state[id] = 2
                                :: else -> state[id] = 0
                                fi;
#else
                                d_step {
                                        if
                                        :: claim == at && claimant == 0 -> claimant = id + 1; k = 1
                                        :: else -> k = 0
                                        fi
                                }
                                may_die(id);
                                if
                                :: k == 1 ->
                                        d_step { if :: state[id] == 1 -> state[id] = 2 :: else fi }
                                        may_die(id);
                                        d_step {
                                                if
                                                :: claim == at && claimant == id + 1 -> claim = e; claimant = 0
                                                :: else
                                                fi
                                        }
                                        may_die(id)
                                :: else -> state[id] = 0
                                fi;
#endif
                                if
                                :: k == 1 ->
#ifdef LATE_HOLD
                                        hold[id] = at + 1;
#endif
                                        k = at;
                                        do
                                        :: k < e ->
                                                hand_out(k);
                                                may_die(id);
#ifdef EARLY_CLEAR
                                                hold[id] = 0;
#endif
                                                released[k] = true;
                                                may_die(id);
                                                k++
                                        :: else -> break
                                        od;
                                        state[id] = 0;
                                        may_die(id)
                                :: else
                                fi;
                                hold[id] = 0;
                                k = 0;
                                e = 0
                        fi
                fi;
                at = 0;
                by = 0
        od;
        if
        :: !dead[other] || taken_over -> assert(released[0] && released[1] && released[2])
        :: else
        fi;
out:    skip
}

init {
        atomic {
                run member(0);
                run member(1)
        }
}
