/*
 * Waking one of several: lib/wake.c and lib/share.c, in a group that two readers share, with two producers that have a
 * lane each. A message is for one reader, so a producer wakes one, and of those that it has not woken in their present
 * sleep; a reader that claims and leaves something wakes the next before it goes off with what it has, perhaps for ever.
 * sleep.pml has one reader and shows more of the order of stores; here a store that its writer has not flushed is enough.
 *
 * With -DVICTIM=0 producer 0 may be killed after any step, with -DVICTIM=2 reader 0. What a dead reader held, or was
 * woken for, is the other's: whoever notices the death hands over what was held, then raises every event word.
 *
 * Words that are only compared for change are bits here: `bumped` for an event word that is not what its sleeper read,
 * `told` for a sleep generation that is what a waker remembers.
 *
 * Checked: nobody sleeps for ever (an invalid end state) while there is something that a live reader could take. What a
 * dead producer left without a wake is found when the backstop ends a sleep; that must not hide what producer 1 lost.
 *
 * Rules that can be left out, each of which must then fail:
 *   STALE            a waker reads the bits again behind a fence before it chooses whom to wake
 *   NO_NEXT          who claims and leaves something wakes the next
 *   NEXT_AFTER       ... before it is busy with its own
 *   NO_SECOND_LOOK   a sleeper looks again after it has set its bit
 *   NO_BARRIER       ... and after a barrier that runs on the producers' CPUs as well
 *   LATE_EVENT       the event word is read before the looks
 *   SHARED_MEMORY    each waker remembers for itself whom it has woken
 *   NO_DEATH_WAKE    a death raises every event word
 *   DEATH_WAKE_FIRST ... after what the dead one held has been handed over
 *   NO_BACKSTOP      a sleep ends by itself some day
 * SHARED_MEMORY and NO_BACKSTOP fail with VICTIM=0 only, the two about death wakes with VICTIM=2.
 */
#ifndef MESSAGES
#define MESSAGES 1 /* of each producer */
#endif

byte sent[2];     /* commit words, as everyone sees them */
byte buffered[2]; /* stores that only their own CPU sees */
byte taken[2];    /* the claim words: changed by compare-and-swap */
bool orphan;      /* what the dead reader held */
bool holds;       /* reader 0 has one in hand */

bool armed[2];    /* the readers' bits */
bool bumped[2];   /* since the reader read its event word */
bool asleep[2];
bool told[8];     /* by whom (producers, then readers) and whom: in its present sleep */
bool reader_died;
bool noticed;     /* that */
bool producer_died;
bool finished[2]; /* producers */

#define SOMETHING (sent[0] > taken[0] || sent[1] > taken[1] || orphan)
#define DONE      (finished[0] && finished[1] && !SOMETHING && (!reader_died || noticed))

#ifdef SHARED_MEMORY
#define TOLD(by, r) told[r]
#else
#define TOLD(by, r) told[(by) * 2 + (r)]
#endif

#ifdef VICTIM
#define MAY_DIE(who)                                                                                                   \
        if                                                                                                             \
        :: (who) == VICTIM -> goto died                                                                                \
        :: true                                                                                                        \
        fi;
#else
#define VICTIM 9
#define MAY_DIE(who)
#endif

inline flush(i) {
        d_step {
                sent[i] = sent[i] + buffered[i];
                buffered[i] = 0
        }
}

/* A waker bumps @r's event word and wakes it, unless it has done so in this sleep: @won says whether it did. */
inline wake(by, r) {
        d_step {
                won = !TOLD(by, r);
                TOLD(by, r) = true
        };
        if
        :: won ->
                MAY_DIE(by)
                bumped[r] = true;
                MAY_DIE(by)
                asleep[r] = false /* futex wake */
        :: else
        fi
}

/* One sleeper, not woken by us in its present sleep. */
inline wake_one(by) {
        d_step { /* one load */
                mask[0] = armed[0];
                mask[1] = armed[1]
        };
        if
        :: mask[0] || mask[1] ->
                MAY_DIE(by)
#ifndef STALE
                if
                :: by < 2 -> flush(by % 2)
                :: else
                fi;
                d_step {
                        mask[0] = mask[0] && armed[0];
                        mask[1] = mask[1] && armed[1]
                };
                MAY_DIE(by)
#endif
                if
                :: mask[0] -> wake(by, 0)
                :: else
                fi;
                if
                :: !won && mask[1] -> wake(by, 1)
                :: else
                fi
        :: else
        fi;
        d_step {
                mask[0] = false;
                mask[1] = false;
                won = false
        }
}

proctype producer(byte id) {
        byte n;
        bool mask[2];
        bool won;

        do
        :: n < MESSAGES ->
                d_step {
                        buffered[id] = 1; /* B */
                        n++
                };
                MAY_DIE(id)
                if
                :: flush(id)
                :: true
                fi;
                wake_one(id); /* F */
                flush(id)
        :: else -> break
        od;
        goto out;
died:   skip;
        d_step { /* retired stores reach memory */
                producer_died = true;
                sent[0] = sent[0] + buffered[0];
                buffered[0] = 0
        }
out:    finished[id] = true
}

proctype reader(byte id) {
        bool mask[2];
        bool won, got;

        do
        :: true ->
                bumped[id] = false; /* the event word is read */
                d_step {
                        got = true;
                        if
                        :: orphan -> orphan = false
                        :: else ->
                                if
                                :: sent[0] > taken[0] -> taken[0]++
                                :: sent[1] > taken[1] -> taken[1]++
                                :: else -> got = false
                                fi
                        fi;
                        if
                        :: id == 0 && got -> holds = true
                        :: else
                        fi
                };
                if
                :: got ->
                        MAY_DIE(id + 2)
#ifdef NEXT_AFTER
                        if
                        :: id == 0 && VICTIM != 2 -> holds = false; goto out
                        :: true
                        fi;
#endif
#ifndef NO_NEXT
                        if
                        :: SOMETHING -> wake_one(id + 2)
                        :: else
                        fi;
#endif
                        MAY_DIE(id + 2)
                        if /* busy with it: for a while, or for ever */
                        :: id == 0 && VICTIM != 2 -> holds = false; goto out
                        :: true
                        fi;
                        d_step {
                                got = false;
                                if
                                :: id == 0 -> holds = false
                                :: else
                                fi
                        };
                        MAY_DIE(id + 2)
                :: else ->
                        if
                        :: DONE -> break
                        :: else
                        fi;
                        d_step { /* a new sleep */
                                told[id] = false;
                                told[2 + id] = false;
                                told[4 + id] = false;
                                told[6 + id] = false;
                                armed[id] = true /* G */
                        };
                        MAY_DIE(id + 2)
#ifndef NO_BARRIER
                        d_step {
                                sent[0] = sent[0] + buffered[0];
                                sent[1] = sent[1] + buffered[1];
                                buffered[0] = 0;
                                buffered[1] = 0
                        };
#endif
#ifndef NO_SECOND_LOOK
                        if
                        :: SOMETHING -> goto up
                        :: else
                        fi;
#endif
#ifdef LATE_EVENT
                        bumped[id] = false;
#endif
                        asleep[id] = !bumped[id]; /* the kernel compares and queues under one lock */
                        if
                        :: !asleep[id]
                        :: DONE
#ifndef NO_BACKSTOP
                        :: producer_died && SOMETHING && timeout -> /* some day */
                                assert(sent[1] == taken[1] && !orphan)
#endif
                        fi;
                        asleep[id] = false;
up:                     MAY_DIE(id + 2)
                        armed[id] = false
                fi
        od;
        goto out;
died:   reader_died = true;
out:    skip
}

/* A pidfd that becomes readable, in the survivor. The dead one's bit goes as well. */
proctype undertaker() {
end:    reader_died;
#ifdef DEATH_WAKE_FIRST
        bumped[1] = true;
        asleep[1] = false;
#endif
        d_step {
                armed[0] = false;
                asleep[0] = false;
                orphan = holds;
                holds = false
        };
#if !defined(NO_DEATH_WAKE) && !defined(DEATH_WAKE_FIRST)
        bumped[1] = true;
        asleep[1] = false;
#endif
        noticed = true
}

init {
        atomic {
                run producer(0);
                run producer(1);
                run reader(0);
                run reader(1);
                run undertaker()
        }
}
