/*
 * How an endpoint sleeps inside our calls, settled when it opens: by its event word, or, where io_uring cannot wait for
 * words or engine=eventfd was asked for, by a handle that is its wakers' to strike.
 */
#include "lib/internal.h"

#include <string.h>

static const char *name_of(enum park_engine e) {
        return e == PARK_URING ? "io_uring" : e == PARK_EVENTFD ? "io_uring, eventfd" : "futex(2)";
}

/*
 * Before the row is ACTIVE; @prepared is park_prepare()'s answer. What cannot be made for this endpoint alone makes it
 * sleep by futex(2), and the table of facts says so.
 */
void endpoint_settle(struct psyne_endpoint *e, int prepared) {
        struct psyne_channel *ch = endpoint_channel(e);
        const char *why, *fix;
        enum park_engine got = park_probe(&why, &fix), asked = ch->engine;
        enum bells_side side;
        uint32_t index, generation;

        e->handle = -1;
        if (got == PARK_EVENTFD && ch->flags & PSYNE_NO_THREAD) { /* nobody would give those who come a handle meanwhile */
                got = PARK_FUTEX;
                why = "nothread=1: nobody hands eventfds over while it sleeps";
                fix = "";
        } else if (got == PARK_EVENTFD) { /* works without the thread's ring, too */
                prepared = endpoint_need_bell(e);
                if (prepared == 0) {
                        e->handle = bell_handle(e->bell);
                        __atomic_store_n(endpoint_bell_word(e), LAYOUT_BELL_ALWAYS, __ATOMIC_RELEASE); /* before its bit */
                }
        }
        if (prepared < 0 && got != PARK_FUTEX) {
                got = PARK_FUTEX;
                why = strerror(-prepared);
                fix = "";
        }
        endpoint_row(e, &side, &index, &generation);
        if (side == BELLS_LANE) {
                ch->view.lanes[index].engine = got;
                return;
        }
        ch->view.members[index].engine = got;
        layout_fact_set(&ch->view, LAYOUT_SCOPE_MEMBER, index, "wake", name_of(asked), name_of(got), got == asked ? "" : why,
                got == asked ? "" : fix);
}

int endpoint_sleep(struct psyne_endpoint *e, uint32_t expected, int64_t until_ns) {
        return e->handle >= 0 ? park_wait_handle(e->handle, endpoint_event(e), expected, until_ns)
                              : park_wait(endpoint_event(e), expected, until_ns);
}
