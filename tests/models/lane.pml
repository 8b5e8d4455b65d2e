/*
 * Clear-ahead: a reader that has caught up polls the word where the next record will start, so that word must be
 * zero until the record is there, whatever lay in it a lap ago, and whatever was claimed, shrunk or given back
 * there since. The rules are those of psyne/inline.h and shm/lane.c; memory is sequentially consistent here (the
 * orders A to E are ThreadSanitizer's business, tests/shm/tsan-lane.c).
 *
 * One unit is one cell of the alignment. A word is 0, or the stride of a record. Payload is the worst there is:
 * every word of it reads as a record of one cell. The producer holds up to two claims, which covers the oldest, the
 * newest and a batch; readers are one per group, and each stores its position at once or later.
 *
 * Checked: what a reader finds at its position is nothing (and then it has really caught up), or the record that
 * was committed there; and the producer never touches a cell that some reader has not released.
 *
 * Rules that can be left out, each of which must then fail:
 *   NO_CELL             room for a record includes the word behind it
 *   NO_COMMIT_CLEAR     commit clears that word where the frontier does not cover it
 *   NO_SHRINK_CLEAR     a record that shrinks clears the word at its new end
 *   NO_SHRINK_FRONTIER  ... and takes back the promise for all cells behind it
 *   NO_ABORT_FRONTIER   so does a claim that is given back
 *   NO_ABORT_CLEAR      a claim given back under a newer one becomes padding, committed like a record
 *   NO_LIMIT            the frontier stays before what is unread
 *   BATCH_FORWARD       a batch stores its first word last
 *   TAIL_WRITTEN        nobody writes the word at a claim's start before the commit
 */
#ifndef NC
#define NC 4    /* cells of the ring */
#endif
#ifndef LAST
#define LAST 8  /* positions that are played through */
#endif
#ifndef READERS
#define READERS 2
#endif
#ifndef AHEAD
#define AHEAD 3 /* cells past the tail that are cleared ahead */
#endif

#ifdef NO_CELL
#define CELL 0
#else
#define CELL 1
#endif

byte mem[NC];
byte record[LAST + NC + 1]; /* what was committed at a position: its stride */
byte tail;
byte released[READERS];
bool over;

byte head, limit = NC, frontier = 1;

/* The producer writes a cell: its content of a lap ago must be released by all. */
inline put(p, value) {
        d_step {
                assert(p < released[0] + NC && p < released[READERS - 1] + NC);
                mem[(p) % NC] = value
        }
}

/* The user writes all of [from + 1, to): whatever it holds looks like a record. */
inline fill(from, to) {
        i = from + 1;
#ifdef TAIL_WRITTEN
        i = from;
#endif
        do
        :: i < to -> put(i, 1); i++
        :: else -> break
        od;
        i = 0
}

inline look_at_readers() {
        d_step {
                limit = released[0] + NC;
                if
                :: released[READERS - 1] + NC < limit -> limit = released[READERS - 1] + NC
                :: else
                fi
        }
}

/* claim_settle(): the record [from, to) is to end at @at. */
inline settle(to, at) {
        if
        :: at != to ->
#ifndef NO_SHRINK_CLEAR
                put(at, 0);
#endif
#ifndef NO_SHRINK_FRONTIER
                frontier = at + 1;
#else
                if
                :: frontier < at + 1 -> frontier = at + 1
                :: else
                fi;
#endif
                head = at
        :: at == to && frontier < to + 1 ->
#ifndef NO_COMMIT_CLEAR
                if
                :: CELL || to < limit -> put(to, 0)
                :: else /* there is no cell to clear */
                fi;
#endif
                frontier = to + 1
        :: else
        fi
}

inline publish(from, to) {
        d_step {
                mem[(from) % NC] = to - from;
                record[from] = to - from;
                tail = to
        }
}

inline give_back(from) {
        head = from;
#ifndef NO_ABORT_FRONTIER
        if
        :: frontier > from + 1 -> frontier = from + 1
        :: else
        fi
#endif
}

/* How much of [from, to) is used: any number of its cells. */
inline choose_end(from, to) {
        at = from + 1;
        do
        :: at < to -> at++
        :: break
        od
}

inline choose_size(n) {
        if
        :: n = 1
        :: n = 2
        :: n = NC - CELL
        fi
}

active proctype producer() {
        byte a, a_end, b_end, n, at, i;

        do
        :: tail < LAST ->
                if
                :: look_at_readers()
                :: skip /* what is cached may still do */
                fi;
                choose_size(n);
                if
                :: tail + n + CELL <= limit && tail + n <= LAST + NC ->
                        a = tail;
                        a_end = a + n;
                        head = a_end;
                        if
                        :: fill(a, a_end)
                        :: skip /* not written at all */
                        fi;
                        b_end = 0;
                        choose_size(n);
                        if
                        :: a_end + n + CELL <= limit && a_end < LAST ->
                                b_end = a_end + n;
                                head = b_end;
                                fill(a_end, b_end)
                        :: true
                        fi;

                        if
                        :: !b_end -> /* one claim: commit, with shrink, or give back */
                                if
                                :: choose_end(a, a_end);
                                        settle(a_end, at);
                                        publish(a, at)
                                :: give_back(a)
                                fi
                        :: b_end -> /* two */
                                if
                                :: true -> /* one after the other; the second shrinks, or is given back */
                                        settle(a_end, a_end);
                                        publish(a, a_end);
                                        if
                                        :: choose_end(a_end, b_end);
                                                settle(b_end, at);
                                                publish(a_end, at)
                                        :: give_back(a_end)
                                        fi
                                :: true -> /* the older one is given back: padding, then the newer one */
#ifdef NO_ABORT_CLEAR
                                        skip;
#else
                                        settle(a_end, a_end);
#endif
                                        publish(a, a_end);
                                        if
                                        :: choose_end(a_end, b_end);
                                                settle(b_end, at);
                                                publish(a_end, at)
                                        :: give_back(a_end)
                                        fi
                                :: true -> /* the newer one is given back, then the older commits */
                                        give_back(a_end);
                                        choose_end(a, a_end);
                                        settle(a_end, at);
                                        publish(a, at)
                                :: true -> /* a batch, its last one shrunk */
                                        choose_end(a_end, b_end);
#ifdef BATCH_FORWARD
                                        publish(a, a_end);
                                        settle(b_end, at);
                                        publish(a_end, at)
#else
                                        settle(b_end, at);
                                        d_step {
                                                mem[a_end % NC] = at - a_end;
                                                record[a_end] = at - a_end
                                        };
                                        d_step {
                                                mem[a % NC] = a_end - a;
                                                record[a] = a_end - a;
                                                tail = at
                                        }
#endif
                                fi
                        fi;
                        assert(head == tail);
                        assert(frontier >= tail + 1);

                        /* psyne_lane_extend(): up to AHEAD cells */
                        do
#ifdef NO_LIMIT
                        :: frontier < tail + AHEAD ->
#else
                        :: frontier < tail + AHEAD && frontier < limit ->
#endif
                                put(frontier, 0);
                                frontier++
                        :: else -> break
                        od
                :: else
                fi;
                a = 0; a_end = 0; b_end = 0; n = 0; at = 0
        :: else -> break
        od;
        over = true
}

proctype reader(byte id) {
        byte taken, word;

        do
        :: d_step {
                        word = mem[taken % NC];
                        assert(word == 0 || (taken < tail && record[taken] == word));
                        assert(word != 0 || taken == tail)
                };
                if
                :: word ->
                        taken = taken + word;
                        word = 0;
                        if
                        :: released[id] = taken
                        :: skip /* later, with others */
                        fi
                :: else ->
                        released[id] = taken;
                        if
                        :: over -> break
                        :: tail > taken || over /* nothing happens until then */
                        fi
                fi
        od
}

init {
        atomic {
                byte k;

                do
                :: k < READERS -> run reader(k); k++
                :: else -> break
                od
        }
}
