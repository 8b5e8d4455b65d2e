/*
 * Going to sleep and being woken: lib/wake.c, edges F and G of psyne/inline.h. One reader, two producers with a lane
 * each. Producer 0 may be killed, or stopped for ever, after any step; what that must not do is swallow the wakes of
 * producer 1. A store stands in a store buffer until it is flushed: by a later RMW of the same thread, by the
 * sleeper's heavy barrier, or at the latest before the thread does something else.
 *
 * Checked: nobody sleeps for ever (an invalid end state) while a message of producer 1 waits. What producer 0 left
 * behind without a wake is found when the backstop ends the sleep, or when anything else does.
 *
 * Rules that can be left out, each of which must then fail:
 *   NO_SECOND_LOOK   the sleeper looks again after it has set its bit
 *   NO_BARRIER       ... and after a barrier that runs on the producers' CPUs as well
 *   LATE_EVENT       the event word is read before the first look
 *   WAKER_CLEARS     only the sleeper clears its bit
 *   SHARED_MEMORY    each waker remembers for itself whom it has woken
 *   NO_GENERATION    every sleep has a number of its own
 *   NO_BACKSTOP      a sleep ends by itself some day
 *   STOP_IF_ASLEEP   (with STOP) a stop bumps the event word whether the bit is set or not
 *
 * STOP: no messages but a third process that stops the channel at any time; the reader must notice.
 */
#ifndef MESSAGES
#define MESSAGES 2
#endif

byte sent[2];      /* commit words, as everyone sees them */
byte buffered[2];  /* stores that only their own CPU sees */
byte taken[2];
bool armed;   /* the sleeper's bit */
byte generation;
byte event;
bool asleep;
bool finished[2];
bool dead;         /* producer 0 */
bool stopped;
#ifdef SHARED_MEMORY
byte woken_by_any;
#endif

inline flush(i) {
        d_step {
                sent[i] = sent[i] + buffered[i];
                buffered[i] = 0
        }
}

/* Retired stores reach memory, whatever becomes of the process. */
#define MAY_DIE                                                                                                        \
        if                                                                                                             \
        :: id == 0 && !dead -> dead = true; flush(0); goto out                                                         \
        :: true                                                                                                        \
        fi

proctype producer(byte id) {
        byte n, seen;
        byte woken;
        bool found, won;

        do
        :: n < MESSAGES - (id == 0) -> /* the one that may die needs fewer */
                buffered[id] = 1; /* B */
                n++;
                MAY_DIE;
                if
                :: flush(id)
                :: true
                fi;
                found = armed; /* F */
                MAY_DIE;
                if
                :: found ->
#ifdef WAKER_CLEARS
                        d_step {
                                won = armed;
                                armed = false;
                                sent[id] = sent[id] + buffered[id];
                                buffered[id] = 0
                        };
                        MAY_DIE;
                        if
                        :: won ->
                                event++;
                                MAY_DIE;
                                asleep = false
                        :: else
                        fi
#else
                        seen = generation;
                        MAY_DIE;
#ifdef SHARED_MEMORY
                        d_step {
                                won = woken_by_any != seen;
                                woken_by_any = seen
                        };
#else
                        won = woken != seen;
                        woken = seen;
#endif
                        if
                        :: won ->
                                MAY_DIE;
                                d_step { /* an RMW: the buffer is empty before it */
                                        sent[id] = sent[id] + buffered[id];
                                        buffered[id] = 0;
                                        event++
                                };
                                MAY_DIE;
                                asleep = false /* futex wake */
                        :: else
                        fi
#endif
                :: else
                fi;
                d_step {
                        sent[id] = sent[id] + buffered[id];
                        buffered[id] = 0;
                        found = false;
                        won = false;
                        seen = 0
                };
                MAY_DIE
        :: else -> break
        od;
out:    finished[id] = true
}

proctype stopper() {
        stopped = true;
#ifdef STOP_IF_ASLEEP
        if
        :: armed ->
                event++;
                asleep = false
        :: else
        fi
#else
        event++;
        asleep = false
#endif
}

#define SOMETHING (sent[0] > taken[0] || sent[1] > taken[1])
#define DONE (finished[0] && finished[1] && !SOMETHING)

active proctype reader() {
        byte before;
        bool something;

        do
        :: true ->
                before = event;
                if
                :: sent[0] > taken[0] -> taken[0]++
                :: sent[1] > taken[1] -> taken[1]++
                :: stopped -> break
                :: else ->
                        if
                        :: DONE -> break
                        :: else
                        fi;
#ifndef NO_GENERATION
                        generation++;
#else
                        generation = 1;
#endif
                        armed = true; /* G */
#ifndef NO_BARRIER
                        d_step {
                                sent[0] = sent[0] + buffered[0];
                                sent[1] = sent[1] + buffered[1];
                                buffered[0] = 0;
                                buffered[1] = 0
                        };
#endif
#ifdef NO_SECOND_LOOK
                        something = false;
#else
                        something = SOMETHING;
#endif
#ifdef LATE_EVENT
                        before = event;
#endif
                        if
                        :: something
                        :: else ->
                                d_step { /* the kernel compares and queues under one lock */
                                        if
                                        :: event == before -> asleep = true
                                        :: else
                                        fi
                                };
                                if
                                :: !asleep
                                :: DONE && !stopped
#ifndef NO_BACKSTOP
                                :: dead && SOMETHING && timeout -> /* some day; it must not hide what producer 1 lost */
                                        assert(sent[1] == taken[1])
#endif
                                fi;
                                asleep = false
                        fi;
                        armed = false
                fi;
                d_step {
                        before = 0;
                        something = false
                }
        od
}

init {
        atomic {
#ifdef STOP
                run stopper()
#else
                run producer(0);
                run producer(1)
#endif
        }
}
