/*
 * Waiting for room: lib/producer.c, edges D, E, H and I of psyne/inline.h. The reader stores its exact position with
 * every release, and the lazy copy that producers poll only when enough has come together, when it finds nothing, or
 * when a producer waits. The producer never says "full", and never sleeps, without a look at the exact one.
 *
 * Small records come first, more than fit; the last one needs the whole ring. Once all the small ones are released
 * the reader may go away for ever (it is busy in user code, or blocked on another channel): the producer must get its
 * room all the same. Before that it may, with just enough released for one more, wait for that one to be sent before
 * it reads on. The release stands in a store buffer until it is flushed, as in sleep.pml.
 *
 * The producer's first sleep asks for more than it needs (an eighth of the ring there, two cells more here), so that
 * it is not woken for every record, and ends by itself after a nap; the next asks for what it needs.
 *
 * Checked: nobody waits for ever (an invalid end state); no claim reaches past what is released; a refusal (TRY) is
 * true.
 *
 * TRY: the producer does not wait but polls; POLL_LAZY: it polls nothing but the lazy copy, which only works with a
 * reader that keeps looking (STAYS) and brings the copy up to date when it finds nothing.
 *
 * Rules that can be left out, each of which must then fail:
 *   NO_EXACT         the exact position is looked at before a sleep or a refusal
 *   NO_IDLE          (with POLL_LAZY STAYS) a reader that finds nothing brings the lazy copy up to date
 *   NO_SECOND_LOOK   the producer looks again after it has set its bit
 *   NO_BARRIER       ... and after a barrier that runs on the reader's CPU as well
 *   NO_WAKE          the reader looks for waiters after each release
 *   NO_NAP           a sleep that asks for more than is needed ends by itself
 *   LATE_WANTED      what is wanted is stored before the second look
 *   LATE_EVENT       the event word is read before the first look
 *   TAKEN            what is published is released, not merely taken
 */
#define NC 4      /* cells */
#define LAZY 2    /* publish once so many are released and unpublished */
#define RECORDS 7 /* of one cell each; then one of NC - 1 */

byte tail;
byte released;  /* exact, as everyone sees it */
byte buffered;  /* ... as the reader's CPU sees it */
byte taken;
byte published;
bool waiting;   /* the producer's bit */
byte wanted;
byte generation;
byte event;
bool asleep;
bool over;

#define LAST_END (RECORDS + NC - 1)

inline look(exact) {
        d_step {
                if
                :: exact && released + NC > limit -> limit = released + NC
                :: !exact && published + NC > limit -> limit = published + NC
                :: else
                fi
        }
}

inline ask() {
        if
        :: !napped && need + 2 <= tail -> wanted = need + 2
        :: !napped && need + 2 > tail -> wanted = tail
        :: napped -> wanted = need
        fi
}

#ifdef NO_EXACT
#define EXACTLY false
#else
#define EXACTLY true
#endif

active proctype producer() {
        byte limit = NC, size, need, before;
        bool napped;

        do
        :: tail < LAST_END ->
                if
                :: tail < RECORDS -> size = 1
                :: else -> size = NC - 1
                fi;
                need = tail + size + 1 - NC; /* only looked at where it is not negative */
                napped = false;
                do
                :: true ->
                        before = event;
                        look(false);
#if defined(POLL_LAZY)
                        if
                        :: tail + size + 1 <= limit -> break
                        :: tail + size + 1 <= published + NC -> skip /* spins until then */
                        fi
#elif defined(TRY)
                        if
                        :: tail + size + 1 <= limit -> break
                        :: else
                        fi;
                        d_step {
                                if
                                :: EXACTLY && released + NC > limit -> limit = released + NC
                                :: else
                                fi;
                                assert(tail + size + 1 <= limit || tail + size + 1 > released + NC) /* -EAGAIN */
                        };
                        tail + size + 1 <= released + NC /* and the caller tries again, for as long as it takes */
#else
                        if
                        :: tail + size + 1 <= limit -> break
                        :: else
                        fi;
#ifndef LATE_WANTED
                        ask();
#endif
                        generation++;
                        waiting = true; /* I */
#ifndef NO_BARRIER
                        released = buffered;
#endif
#ifndef NO_SECOND_LOOK
                        look(EXACTLY);
#endif
#ifdef LATE_WANTED
                        ask();
#endif
#ifdef LATE_EVENT
                        before = event;
#endif
                        if
                        :: tail + size + 1 <= limit
                        :: else ->
                                d_step { /* the kernel compares and queues under one lock */
                                        if
                                        :: event == before -> asleep = true
                                        :: else
                                        fi
                                };
                                if
                                :: !asleep
#ifndef NO_NAP
                                :: !napped -> skip /* at any time */
#endif
                                fi;
                                asleep = false;
                                napped = true
                        fi;
                        waiting = false
#endif
                od;
                assert(tail + size + 1 <= released + NC);
                d_step {
                        tail = tail + size;
                        size = 0;
                        need = 0;
                        before = 0;
                        napped = false
                }
        :: else -> break
        od;
        over = true
}

/* Stores become visible in their order: whoever sees the lazy copy could see the exact position. */
inline publish() {
        d_step {
                released = buffered;
#ifdef TAKEN
                published = taken
#else
                published = buffered
#endif
        }
}

active proctype reader() {
        byte word, woken, seen;
        bool found;

        do
        :: taken < tail ->
                /* a record of one cell, or the large one, which nobody waits behind */
                if
                :: taken < RECORDS -> taken = taken + 1
                :: else -> taken = tail
                fi;
#ifdef TAKEN
                publish();
#endif
                buffered = taken; /* D */
                if
                :: released = buffered
                :: true
                fi;
#ifndef NO_WAKE
                found = waiting; /* H */
                if
                :: buffered - published >= LAZY || found -> publish()
                :: else
                fi;
                if
                :: found ->
                        seen = generation;
                        if
                        :: buffered >= wanted && woken != seen ->
                                woken = seen;
                                d_step { /* an RMW: the buffer is empty before it */
                                        released = buffered;
                                        event++
                                };
                                asleep = false
                        :: else
                        fi
                :: else
                fi;
#else
                if
                :: buffered - published >= LAZY -> publish()
                :: else
                fi;
#endif
                d_step {
                        released = buffered;
                        found = false;
                        seen = 0
                }
#ifndef STAYS
        :: d_step {
                        taken < tail && tail < RECORDS && buffered + NC >= tail + 2 -> seen = tail
                };
                tail != seen;
                seen = 0
#endif
        :: taken == tail && taken > 0 ->
#ifndef STAYS
                if
                :: taken == RECORDS -> break /* away for ever */
                :: true
                fi;
#endif
#ifndef NO_IDLE
                if
                :: published != buffered -> publish()
                :: else
                fi;
#endif
                if
                :: over && taken == tail -> break
                :: taken < tail
                fi
        od
}
