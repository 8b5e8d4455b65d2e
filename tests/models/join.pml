/*
 * A group joins a running channel: lib/groups.c and lane_tx_refresh(). One producer with a ring of NC cells, a reader
 * that is there, and a group that joins from the oldest record or from now. The producer goes by a cached limit and looks
 * at the groups only when that says full.
 *
 * Checked: from the moment the joiner believes its position, no record from it on is overwritten.
 *
 * Rules that can be left out, each of which must then fail:
 *   NO_SECOND        the joiner places itself once more after it counts
 *   NO_RECHECK       (OLDEST) the producer looks again whether somebody joined, after it stored the floor it goes by
 *   TAIL_AS_OLDEST   (OLDEST) the oldest record is at the floor, not a ring behind the tail
 */
#ifndef NC
#define NC 2
#endif
#ifndef LAST
#define LAST 7
#endif

byte tail, floor, released, place;
byte generation;
bool counts, settled;

active proctype reader() {
        do
        :: released < tail -> released++
        :: released == LAST -> break
        od
}

active proctype producer() {
        byte limit, seen, least, mine;

        limit = NC;
        do
        :: tail < LAST && tail < limit ->
                d_step {
                        assert(!settled || tail < place + NC);
                        tail++
                }
        :: tail < LAST && tail >= limit ->
                do
                :: seen = generation;
                        least = released;
                        if
                        :: counts ->
                                mine = place;
                                if :: mine < least -> least = mine :: else fi
                        :: else
                        fi;
                        if
                        :: least + NC <= limit -> break
                        :: else
                        fi;
                        floor = least;
#ifndef NO_RECHECK
                        if
                        :: generation != seen
                        :: else -> limit = least + NC; break
                        fi
#else
                        limit = least + NC;
                        break
#endif
                od;
                seen = 0;
                least = 0;
                mine = 0
        :: tail == LAST -> break
        od
}

active proctype joiner() {
        byte at;

#ifdef OLDEST
#ifdef TAIL_AS_OLDEST
        at = tail;
        at = (at > NC -> at - NC : 0);
#else
        at = floor;
#endif
#else
        at = tail;
#endif
        place = at;
        counts = true;
        generation++;
        /* the heavy barrier: what the producer stored before its last look is seen from here on */
#ifndef NO_SECOND
#ifdef OLDEST
#ifndef TAIL_AS_OLDEST
        at = floor;
        if :: at > place -> place = at :: else fi;
#endif
#else
        at = tail;
        place = at;
#endif
#endif
        d_step {
                settled = true;
                assert(tail <= place + NC)
        }
        do
        :: place < tail -> place++
        :: place == LAST -> break
        od
}
