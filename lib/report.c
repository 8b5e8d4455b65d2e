/* What was obtained and what happened, for the owner of a channel. psyne-stat reads the same words from outside. */
#include "lib/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *psyne_last_error(void) {
        return error_get();
}

static uint64_t load(const uint64_t *word) {
        return __atomic_load_n(word, __ATOMIC_RELAXED); /* counters: each right by itself */
}

static void copy_text(char *to, size_t n, const char *from, size_t from_n) {
        size_t len = strnlen(from, from_n);

        if (len >= n)
                len = n - 1;
        memcpy(to, from, len);
        to[len] = '\0';
}

/* Fills *@ret; set ret->struct_size first. What others wrote is copied, cut and terminated, never trusted. -EINVAL. */
int psyne_info(const struct psyne_channel *ch, struct psyne_info *ret) {
        const struct layout_view *v;
        int r;

        if (!ch || !ret || ret->struct_size != sizeof(*ret))
                return error_set(-EINVAL, "psyne_info: channel, result or struct_size is missing");
        r = channel_check(ch);
        if (r < 0)
                return r;
        v = &ch->view;
        memset(ret, 0, sizeof(*ret));
        ret->struct_size = sizeof(*ret);
        snprintf(ret->uri, sizeof(ret->uri), "%s", ch->uri);
        ret->mode = (enum psyne_mode)v->config.mode;
        ret->record_align = v->config.record_align;
        ret->ring_bytes = v->config.ring_bytes;
        ret->message_max = lane_message_max(v->config.ring_bytes, v->config.record_align);
        ret->max_producers = v->config.max_producers;
        ret->max_consumers = v->config.max_consumers;
        for (uint32_t i = 0; i < v->n_lanes; i++)
                ret->producers += __atomic_load_n(&v->lanes[i].state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE;
        for (uint32_t i = 0; i < v->n_members; i++)
                ret->consumers += __atomic_load_n(&v->members[i].state, __ATOMIC_ACQUIRE) == LAYOUT_ACTIVE;
        for (uint32_t i = 0; i < v->n_facts && ret->n_facts < PSYNE_FACTS_MAX; i++) {
                const struct layout_fact *f = &v->facts[i];
                struct psyne_fact *to = &ret->facts[ret->n_facts];
                uint32_t scope = __atomic_load_n(&f->scope, __ATOMIC_ACQUIRE);

                if (scope < LAYOUT_SCOPE_CHANNEL || scope > LAYOUT_SCOPE_MEMBER)
                        continue;
                copy_text(to->what, sizeof(to->what), f->what, sizeof(f->what));
                copy_text(to->asked, sizeof(to->asked), f->asked, sizeof(f->asked));
                copy_text(to->obtained, sizeof(to->obtained), f->obtained, sizeof(f->obtained));
                copy_text(to->why, sizeof(to->why), f->why, sizeof(f->why));
                copy_text(to->fix, sizeof(to->fix), f->fix, sizeof(f->fix));
                if (scope == LAYOUT_SCOPE_CHANNEL)
                        snprintf(to->whose, sizeof(to->whose), "channel");
                else
                        snprintf(to->whose, sizeof(to->whose), "%s %u",
                                scope == LAYOUT_SCOPE_LANE ? "lane" : "consumer", f->index % 1000);
                ret->n_facts++;
        }
        return 0;
}

/* Fills *@ret with sums over all producers and consumers since the channel was made; set ret->struct_size first.
 * Received is read before sent, so the difference never goes below what is really in flight. -EINVAL. */
int psyne_metrics(const struct psyne_channel *ch, struct psyne_metrics *ret) {
        const struct layout_view *v;
        int r;

        if (!ch || !ret || ret->struct_size != sizeof(*ret))
                return error_set(-EINVAL, "psyne_metrics: channel, result or struct_size is missing");
        r = channel_check(ch);
        if (r < 0)
                return r;
        v = &ch->view;
        memset(ret, 0, sizeof(*ret));
        ret->struct_size = sizeof(*ret);
        for (uint32_t i = 0; i < v->n_lanes; i++) {
                for (uint32_t g = 0; g < v->n_groups; g++) {
                        const struct layout_cursor *c = layout_cursor(v, g, i);

                        ret->messages_received += load(&c->exact.messages_received);
                        ret->bytes_received += load(&c->exact.bytes_received);
                        ret->lost += load(&c->lost);
                }
        }
        for (uint32_t i = 0; i < v->n_members; i++) {
                const struct layout_member *m = &v->members[i];

                ret->messages_received += load(&m->messages_received);
                ret->bytes_received += load(&m->bytes_received);
                ret->receive_blocks += load(&m->receive_blocks);
                ret->receive_blocked_ns += load(&m->receive_blocked_ns);
                ret->wakes_received += load(&m->wakes_received);
                ret->wakes_sent += load(&m->wakes_sent);
                ret->backstop_hits += load(&m->backstop_hits);
                ret->redelivered += load(&m->redelivered);
                ret->damaged_lanes += load(&m->damaged);
        }
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        for (uint32_t i = 0; i < v->n_lanes; i++) {
                const struct layout_lane *l = &v->lanes[i];

                ret->messages_sent += load(&l->tx.messages_sent);
                ret->bytes_sent += load(&l->tx.bytes_sent);
                ret->send_blocks += load(&l->send_blocks);
                ret->send_blocked_ns += load(&l->send_blocked_ns);
                ret->full_events += load(&l->full_events);
                ret->aborted += load(&l->aborted);
                ret->dropped += load(&l->dropped);
                ret->unheard += layout_lane_unheard(l);
                ret->copied_sends += load(&l->copied_sends);
                ret->wakes_sent += load(&l->wakes_sent);
                ret->wakes_received += load(&l->wakes_received);
                ret->backstop_hits += load(&l->backstop_hits);
                if (load(&l->tx.high_water) > ret->high_water_bytes)
                        ret->high_water_bytes = load(&l->tx.high_water);
        }
        /* What this process holds: a handle's hot words are its own thread's, so this may be one behind. */
        pthread_mutex_lock((pthread_mutex_t *)(uintptr_t)&ch->lock);
        for (struct psyne_consumer *c = ch->consumers; c; c = c->next)
                ret->held += c->copies ? (uint64_t)__builtin_popcountll(__atomic_load_n(&c->copied.used, __ATOMIC_RELAXED))
                        : c->is_shared ? __atomic_load_n(&c->claimed, __ATOMIC_RELAXED)
                                          : __atomic_load_n(&c->rx.hot.held, __ATOMIC_RELAXED) +
                                __atomic_load_n(&c->held_away, __ATOMIC_RELAXED);
        pthread_mutex_unlock((pthread_mutex_t *)(uintptr_t)&ch->lock);
        ret->peer_deaths = load(&v->header->deaths);
        return 0;
}
