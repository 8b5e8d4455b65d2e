/* See overrun.h. */
#include "shm/overrun.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/fault.h"

#ifdef __SANITIZE_THREAD__
#define COPY_BY_HAND
#elif defined(__has_feature) /* clang */
#if __has_feature(thread_sanitizer)
#define COPY_BY_HAND
#endif
#endif

#define BOUNDARY_TRIES 1000u
#define JUMPS_MAX 4u     /* per call: a producer that keeps overtaking must not keep us here */

int overrun_init(struct lane_rx *x, const struct layout_view *v, uint32_t group, uint32_t index,
        const unsigned char *base, uint64_t ring_bytes) {
        int r = lane_rx_init(x, v, group, index, base, ring_bytes, 0);

        if (r < 0)
                return r;
        /* What its predecessor took it had copied: that is over. Not "held" by anybody. */
        x->redelivering = false;
        x->hot.taken = x->hot.released = x->redeliver;
        x->hot.held_max = x->held_max = 0;
        x->hot.scattered = 1; /* releases take the long way */
        x->sequence = x->cursor->before + x->cursor->exact.messages_received + x->cursor->lost;
        return 0;
}

static bool overtaken(const struct lane_rx *x, const struct layout_lane *l) {
        uint64_t announced = __atomic_load_n(&l->announced, __ATOMIC_ACQUIRE); /* pairs with announce()'s release */

        return (int64_t)(x->hot.taken + x->hot.mask + 1 - announced) < 0;
}

__attribute__((no_sanitize("thread"))) static uint32_t peek(const struct lane_rx *x) {
        return __atomic_load_n(lane_rx_next(x), PSYNE_ORDER_C); /* C, pairs with B */
}

bool overrun_ready(const struct lane_rx *x, const struct layout_lane *l) {
        if (peek(x))
                return true;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        return overtaken(x, l);
}

bool overrun_boundary(const struct layout_lane *l, uint64_t align, uint64_t from, uint64_t *position, uint64_t *messages) {
        for (unsigned i = 0; i < BOUNDARY_TRIES; i++) {
                uint64_t version = __atomic_load_n(&l->boundary_version, __ATOMIC_ACQUIRE), now; /* pairs with announce()'s */
                uint64_t at[LAYOUT_BOUNDARIES], number[LAYOUT_BOUNDARIES];
                unsigned best = LAYOUT_BOUNDARIES;

                for (unsigned back = 0; back < LAYOUT_BOUNDARIES - 1; back++) {
                        at[back] = __atomic_load_n(&l->boundary[(version - back) % LAYOUT_BOUNDARIES].position, __ATOMIC_RELAXED);
                        number[back] = __atomic_load_n(&l->boundary[(version - back) % LAYOUT_BOUNDARIES].messages, __ATOMIC_RELAXED);
                }
                __atomic_thread_fence(__ATOMIC_ACQUIRE);
                now = __atomic_load_n(&l->boundary_version, __ATOMIC_RELAXED);
                if (now - version >= LAYOUT_BOUNDARIES - 1)
                        continue;
                /* Each that came since may have been written over one of the oldest; so may the one that comes next. */
                for (unsigned back = 0; back < LAYOUT_BOUNDARIES - 1 - (unsigned)(now - version) && version >= back; back++) {
                        if (at[back] & (align - 1))
                                return false;
                        if ((int64_t)(at[back] - from) < 0 || (back && (int64_t)(at[back - 1] - at[back]) < 0))
                                break; /* and those before it even more; or of the index's last lane */
                        best = back;
                }
                if (best == LAYOUT_BOUNDARIES && at[0] & (align - 1))
                        return false;
                if (best == LAYOUT_BOUNDARIES) /* none is late enough: the newest */
                        best = 0;
                *position = at[best];
                *messages = number[best];
                return true;
        }
        return false;
}

static void store_place(struct lane_rx *x) {
        struct psyne_hot_rx *h = &x->hot;

        h->released = h->taken;
        __atomic_store_n(&h->line->taken, h->taken, __ATOMIC_RELEASE);
        __atomic_store_n(&h->line->released, h->taken, PSYNE_ORDER_D); /* D, pairs with A: it was copied */
}

/* 0, -EAGAIN = not now, -EBADMSG. */
static int jump(struct lane_rx *x, const struct layout_lane *l, uint64_t *lost) {
        struct psyne_hot_rx *h = &x->hot;
        uint64_t position, messages, missed, from;

        /* Not where it would be overtaken again at once, if there is somebody to overtake it; and ahead of where it is. */
        from = __atomic_load_n(&l->announced, __ATOMIC_ACQUIRE) - (h->mask + 1);
        if (__atomic_load_n(&l->state, __ATOMIC_RELAXED) == LAYOUT_ACTIVE)
                from += (h->mask + 1) / 8;
        if ((int64_t)(from - h->taken) <= 0)
                from = h->taken + 1;
        if (!overrun_boundary(l, h->align_mask + 1, from, &position, &messages))
                return -EAGAIN;
        missed = messages - x->sequence;
        if (position - h->taken - 1 >= INT64_MAX || missed > (position - h->taken) / (h->align_mask + 1))
                return error_set(-EBADMSG, "the place where this lane could be read on is damaged");
        *lost += missed;
        __atomic_store_n(&x->cursor->lost, x->cursor->lost + missed, __ATOMIC_RELAXED);
        x->sequence = messages;
        h->taken = position;
        store_place(x);
        return 0;
}

/* The header that goes with a stride that was seen; its producer may be writing it again. */
__attribute__((no_sanitize("thread"))) static void peek_header(const struct psyne_record *r, uint64_t *bytes, uint64_t *kind) {
#ifdef COPY_BY_HAND /* clang shows it atomics here too */
        *bytes = *(const volatile uint32_t *)&r->bytes;
        *kind = *(const volatile uint64_t *)&r->kind;
#else
        *bytes = __atomic_load_n(&r->bytes, __ATOMIC_RELAXED);
        *kind = __atomic_load_n(&r->kind, __ATOMIC_RELAXED);
#endif
}

__attribute__((no_sanitize("thread"))) static void copy_out(void *to, const void *from, uint64_t bytes) {
#ifdef COPY_BY_HAND /* ThreadSanitizer would see memcpy() do it */
        for (uint64_t i = 0; i < bytes; i++)
                ((unsigned char *)to)[i] = ((const volatile unsigned char *)from)[i];
#else
        memcpy(to, from, bytes);
#endif
}

int overrun_take(struct lane_rx *x, const struct layout_lane *l, void *to, uint64_t cap, bool may_skip,
        struct psyne_msg *ret, uint64_t *lost) {
        struct psyne_hot_rx *h = &x->hot;
        unsigned jumps = 0;
        uint64_t walked = 0;

        for (;;) {
                const struct psyne_record *r = (const void *)(h->base + (h->taken & h->mask));
                uint64_t stride = peek(x), bytes = 0, kind = 0;
                bool whole = false;

                if (stride) {
                        peek_header(r, &bytes, &kind);
                        whole = !(stride & h->align_mask) && stride <= h->stride_max &&
                                bytes <= stride - PSYNE_RECORD_HEADER && (!(kind >> 32) || kind == PSYNE_RECORD_PAD);
                        if (whole && !(kind >> 32) && bytes <= cap)
                                copy_out(to, r + 1, bytes);
                }
                FAULT_POINT("overrun.copied");
                __atomic_thread_fence(__ATOMIC_ACQUIRE);
                if (overtaken(x, l)) {
                        int e;

                        if (!may_skip)
                                return error_set(-ECONNABORTED, "this group fell behind and was ejected");
                        if (++jumps > JUMPS_MAX)
                                return 0;
                        e = jump(x, l, lost);
                        if (e < 0)
                                return e == -EAGAIN ? 0 : e;
                        continue;
                }
                if (!stride)
                        return 0;
                if (!whole || bytes > cap)
                        return error_set(-EBADMSG, "the producer wrote a damaged record header");
                h->taken += stride;
                if (kind >> 32) { /* an aborted claim */
                        store_place(x);
                        walked += stride;
                        if (walked > h->mask)
                                return 0;
                        continue;
                }
                x->sequence++;
                h->messages++;
                h->bytes += bytes;
                __atomic_store_n(&h->line->messages_received, h->messages, __ATOMIC_RELAXED);
                __atomic_store_n(&h->line->bytes_received, h->bytes, __ATOMIC_RELAXED);
                store_place(x);
                *ret = (struct psyne_msg){
                        .data = to,
                        .len = bytes,
                        .cap = bytes,
                        .type = (uint32_t)kind,
                        .flags = PSYNE_MSG_COPIED,
                };
                return 1;
        }
}
