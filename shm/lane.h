/*
 * The lane: the parts of the algorithm in psyne/inline.h that are not on the fast path. Nothing here blocks, and
 * nothing here knows processes: a lane_tx is the writing end, a lane_rx the reading end of an exclusive group.
 * Handles begin with them, aligned to LANE_HANDLE_ALIGN: the low bits of a handle's address carry the lane's index in
 * the token that marks its messages.
 */
#ifndef PSYNE_SHM_LANE_H
#define PSYNE_SHM_LANE_H
#include <stdbool.h>
#include <stdint.h>

#include "shm/layout.h"
#include "shm/segment.h"

#define LANE_HELD_MAX 64u    /* most messages a reader may hold at once */
#define LANE_HANDLE_ALIGN 128u
#define LANE_AHEAD_CONVERSATION 2u /* values of hot.ahead, chosen by measurement: psyne_lane_extend() says why */
#define LANE_AHEAD_STREAM 10u
#define LANE_ABORTED_MAX 16u /* aborted claims that still have older ones in front of them */

struct lane_span {
        uint64_t start, end;
};

struct lane_tx {
        struct psyne_hot_tx hot; /* first: the inline calls cast the handle to it */
        const struct layout_view *view;
        struct layout_lane *shared;
        uint32_t index;
        uint64_t free;           /* cached slowest position; only rises */
        uint64_t need;           /* bytes past the head that a claim waits for, successor's cell included */
        uint32_t n_aborted;
        struct lane_span aborted[LANE_ABORTED_MAX];
};

struct lane_rx {
        struct psyne_hot_rx hot; /* first */
        struct layout_cursor *cursor;
        uint32_t held_max;       /* hot.held_max when nothing is to be redelivered */
        uint64_t redeliver;      /* records that start before it were handed out before a death */
        bool redelivering;
        bool stage;              /* every record takes the long way, out and back */
        int32_t follows;         /* group in front of this one, -1 = none */
        uint64_t gate;           /* what that one had released; only rises */
        const struct layout_view *view;
        uint64_t sequence;       /* overrun.c: number of the record at hot.taken */
        struct lane_span scattered[LANE_HELD_MAX]; /* released out of order, hot.scattered of them */
};

/* One cell stays free for the successor's word, so the largest record is a ring less a cell; and its stride must fit
 * the commit word's 32 bits. */
static inline uint64_t lane_message_max(uint64_t ring_bytes, uint64_t align) {
        uint64_t most = ring_bytes - align - PSYNE_RECORD_HEADER;

        return most < UINT32_MAX - 2 * align ? most : UINT32_MAX - 2 * align;
}

/* ---- writing end ---- */

/* A fresh ring (all zero) whose first record will start at @start, a multiple of the view's alignment. */
void lane_tx_init(struct lane_tx *t, const struct layout_view *v, uint32_t index, unsigned char *base, uint64_t start);

/*
 * Recomputes the free position: from the lazy copies, or from the exact positions when @exact. Every reason to say
 * "full" must have looked at the exact ones. The limit only rises; a position that cannot be is ignored. While there are
 * groups that are overrun, it rises when a claim needs it, by that and an eighth of the ring, so that little is said to be gone
 * before it is.
 */
void lane_tx_refresh(struct lane_tx *t, bool exact);

/* The slowest position of all groups, exact. Equal to the tail: drained. */
uint64_t lane_tx_free_position(const struct lane_tx *t, bool exact);

/* How many messages lie between @position and the tail. */
unsigned lane_tx_unread(const struct lane_tx *t, uint64_t position);

/* Up to @n claims of @bytes each as far as the cached limit allows. Returns how many. */
unsigned lane_tx_claim_n(struct lane_tx *t, size_t bytes, unsigned n, struct psyne_msg ret[]);

int lane_tx_commit(struct lane_tx *t, struct psyne_msg *m);               /* 0, -EINVAL */
/* The oldest open claims but for aborted ones between them. n, -EINVAL: nothing was committed. */
int lane_tx_commit_n(struct lane_tx *t, struct psyne_msg m[], unsigned n);
int lane_tx_abort(struct lane_tx *t, struct psyne_msg *m);                /* 0, -EINVAL, -ENOBUFS */
int lane_tx_resize(struct lane_tx *t, struct psyne_msg *m, size_t bytes); /* 0, -EINVAL, -EMSGSIZE, -ENOSPC */

/* Gives back every claim. */
void lane_tx_abort_all(struct lane_tx *t);

/* ---- reading end ---- */

/* Starts where the group stands in that lane; [released, taken) had been handed out before and comes flagged.
 * -EBADMSG: the group's cursor is not a position of this lane. */
int lane_rx_init(struct lane_rx *x, const struct layout_view *v, uint32_t group, uint32_t index,
        const unsigned char *base, uint64_t ring_bytes, uint32_t held_max);

/* Moves a reading end to another place. The fence belongs to the place. */
void lane_rx_move(struct lane_rx *to, const struct lane_rx *from);

/* Its group follows another, or writes in place. */
void lane_rx_stage(struct lane_rx *x, const struct layout_view *v, int32_t follows);

/* Is there a record that may be taken? */
bool lane_rx_ready(struct lane_rx *x);

/* From now on at most @held_max are held here at once. */
void lane_rx_limit(struct lane_rx *x, uint32_t held_max);

/* The commit word at which this end goes on. */
static inline const uint32_t *lane_rx_next(const struct lane_rx *x) {
        return &((const struct psyne_record *)(const void *)(x->hot.base + (x->hot.taken & x->hot.mask)))->commit;
}

/* The long way to take a record: walks over aborted ones, flags redelivered ones. 1, 0 = nothing there, -ENOBUFS,
 * -EBADMSG = the header is nonsense. */
int lane_rx_take(struct lane_rx *x, struct psyne_msg *ret);
/* Gives the newest taken record, the one in @m, back as if it had not been taken. */
void lane_rx_untake(struct lane_rx *x, const struct psyne_msg *m);
unsigned lane_rx_take_n(struct lane_rx *x, struct psyne_msg ret[], unsigned n); /* fast ones only; 0 = use lane_rx_take */

bool lane_rx_holds(const struct lane_rx *x, const struct psyne_msg *m);
int lane_rx_release(struct lane_rx *x, struct psyne_msg *m); /* 0, -EINVAL */
int lane_rx_release_n(struct lane_rx *x, struct psyne_msg m[], unsigned n); /* how many before the first bad one, or -EINVAL */

/* E: brings the lazy copy up to date. True when it moved. */
bool lane_rx_publish(struct lane_rx *x);
#endif
