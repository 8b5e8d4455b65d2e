/*
 * A reader that its producer does not wait for: shm/overrun.c and announce() of shm/lane.c. A ring of NC cells, records of
 * one or two cells; the second cell of a longer one is payload, which looks like a header to who walks onto it. A
 * position and a record's number are different things here, as they are there.
 *
 * Checked: what the reader believes is the record with the number that it expects; it always gets on; at the end
 * received + lost is what was sent.
 *
 * Rules that can be left out, each of which must then fail:
 *   NO_ASK           having copied, the reader asks whether it was overtaken
 *   ASK_BEFORE       it asks after the copy, not before
 *   BELIEVE_ZERO     it asks when there seems to be nothing, too: the word may have been cleared for the next lap
 *   LATE             the producer announces before it writes
 *   CLEAR_UNSAID     what it announces includes the word that is cleared behind the record
 *   PLACE_AFTER      the place to go on at is there before the announcement that goes with it
 *   ONE_PLACE        there are several of those, so that some are always whole
 *   STALE_PLACE      an older one counts only if no other was written while the two were read
 */
#ifndef NC
#define NC 4
#endif
#ifndef LAST
#define LAST 6
#endif

byte word[NC], data[NC];
byte announced = NC, version;
byte position[3], number[3];
byte tail, sent;
bool over;

#ifdef ONE_PLACE
#define SLOT(v) 0
#else
#define SLOT(v) ((v) % 3)
#endif
#ifdef CLEAR_UNSAID
#define END(s) (tail + (s))
#else
#define END(s) (tail + (s) + 1)
#endif

inline place() {
        position[SLOT(version + 1)] = tail;
        number[SLOT(version + 1)] = sent;
        version++
}

active proctype producer() {
        byte size, end;

        do
        :: sent < LAST ->
                if :: size = 1 :: size = 2 fi;
                end = END(size);
#ifdef LATE
                data[tail % NC] = sent + 1;
                if :: size == 2 -> word[(tail + 1) % NC] = 1; data[(tail + 1) % NC] = 0 :: else fi;
#endif
                if
                :: end > announced ->
#ifdef PLACE_AFTER
                        announced = end;
                        place()
#else
                        place();
                        announced = end
#endif
                :: else
                fi;
                word[(tail + size) % NC] = 0;
                data[tail % NC] = sent + 1;
                if :: size == 2 -> word[(tail + 1) % NC] = 1; data[(tail + 1) % NC] = 0 :: else fi;
                word[tail % NC] = size;
                tail = tail + size;
                sent++
        :: sent == LAST -> break
        od;
        over = true
}

active proctype reader() {
        byte at, expected, received, lost, w, d, a, v, p, n, older, its, now;
        bool last;

        do
        :: last = over;
#ifdef ASK_BEFORE
                a = announced;
#endif
                w = word[at % NC];
                d = data[at % NC];
#ifdef BELIEVE_ZERO
                if
                :: w == 0 -> a = 0
                :: else -> a = announced
                fi;
#else
#ifndef ASK_BEFORE
                a = announced;
#endif
#endif
#ifdef NO_ASK
                a = 0;
#endif
                if
                :: at + NC < a ->
                        do
                        :: v = version;
                                p = position[SLOT(v)];
                                n = number[SLOT(v)];
                                older = position[SLOT(v + 2)];
                                its = number[SLOT(v + 2)];
                                now = version;
                                if :: now <= v + 1 -> break :: else fi
                        od;
                        if /* where less was missed, if that is there still and ahead */
#ifdef STALE_PLACE
                        :: v > 0 && older > at && older + NC >= a -> p = older; n = its
#else
                        :: now == v && v > 0 && older > at && older + NC >= a -> p = older; n = its
#endif
                        :: true
                        fi;
                        assert(p > at && n >= expected);
                        lost = lost + n - expected;
                        expected = n;
                        at = p
                :: else ->
                        if
                        :: w == 0 ->
                                if :: last -> break :: else fi
                        :: else ->
                                assert(d == expected + 1);
                                at = at + w;
                                expected++;
                                received++
                        fi
                fi;
                w = 0; d = 0; a = 0; v = 0; p = 0; n = 0; older = 0; its = 0; now = 0
        od;
        assert(received + lost == LAST)
}
