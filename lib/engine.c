/*
 * How an endpoint sleeps inside our calls, settled when it opens: by its event word, or, where io_uring cannot wait for
 * words or engine=eventfd was asked for, by a handle that is its wakers' to strike.
 */
#include "lib/internal.h"

#include <string.h>

#define UNHEARD_NAP_NS 10000000ll /* between looks while a peer may not have our handle: rare, so cheap matters more than soon */

static const char *name_of(enum park_engine e) {
        return e == PARK_URING ? "io_uring" : e == PARK_EVENTFD ? "io_uring, eventfd" : "futex(2)";
}

/*
 * Before the row is ACTIVE; @prepared is park_prepare()'s answer. What cannot be made for this endpoint alone makes it
 * sleep by futex(2), and the table of facts says so.
 */
void endpoint_settle(struct psyne_endpoint *e, int prepared) {
        struct psyne_channel *ch = endpoint_channel(e);
        const char *why, *fix, *name = NULL;
        enum park_engine got = park_probe(&why, &fix), asked = ch->engine;
        enum bells_side side;
        uint32_t index, generation;

        e->handle = -1;
        if (got == PARK_EVENTFD && ch->flags & PSYNE_NO_THREAD && ch->scheme == URI_IPC) { /* nobody would give those who come a handle meanwhile */
                got = PARK_FUTEX;
                why = "nothread=1: nobody hands eventfds over while it sleeps";
                fix = "";
        } else if (got == PARK_EVENTFD) { /* works without the thread's ring, too */
                if (prepared < 0) {
                        name = "poll(2), eventfd";
                        why = strerror(-prepared);
                        fix = "";
                }
                prepared = endpoint_need_bell(e);
                if (prepared == 0) {
                        e->handle = bell_handle(e->bell);
                        __atomic_store_n(endpoint_bell_word(e), LAYOUT_BELL_ALWAYS, __ATOMIC_RELEASE); /* before its bit */
                }
        }
        if (prepared < 0 && got != PARK_FUTEX) {
                got = PARK_FUTEX;
                name = NULL;
                why = strerror(-prepared);
                fix = "";
        }
        endpoint_row(e, &side, &index, &generation);
        if (side == BELLS_LANE) {
                ch->view.lanes[index].engine = got;
                return;
        }
        ch->view.members[index].engine = got;
        layout_fact_set(&ch->view, LAYOUT_SCOPE_MEMBER, index, "wake", name_of(asked), name ? name : name_of(got),
                got == asked && !name ? "" : why, got == asked && !name ? "" : fix);
}

/* A waker that has no handle yet strikes nothing, and nobody knows how long it will go without. */
void endpoint_cap_rest(const struct psyne_endpoint *e, struct rest *rest) {
        int64_t until_ns;

        if (!e->bell || bell_handle(e->bell) < 0 || !service_owes(endpoint_channel(e)))
                return;
        until_ns = clock_ns() + UNHEARD_NAP_NS;
        if (until_ns >= rest->until_ns)
                return;
        rest->until_ns = until_ns;
        rest->must = true;
        rest->backstop = false;
}

int endpoint_sleep(struct psyne_endpoint *e, uint32_t expected, int64_t until_ns) {
        return e->handle >= 0 ? park_wait_handle(e->handle, endpoint_event(e), expected, until_ns)
                              : park_wait(endpoint_event(e), expected, until_ns);
}
