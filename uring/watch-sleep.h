/*
 * How the thread in watch_wait() sleeps until an epoll fd has something: in an io_uring of its own (watch-sleep.c), or
 * not at all where there is none (watch-sleep-fallback.c: init fails, and the watch stays with epoll). Private to
 * watch.c.
 */
#ifndef PSYNE_URING_WATCH_SLEEP_H
#define PSYNE_URING_WATCH_SLEEP_H
#include <stdint.h>

#include "uring/watch.h"

struct watch_sleep;

int watch_sleep_new(struct watch_sleep **ret);                 /* by the thread that will sleep */
struct watch_sleep *watch_sleep_free(struct watch_sleep *s);   /* any thread */
struct watch_sleep *watch_sleep_forget(struct watch_sleep *s); /* in a forked child, instead of free */
/*
 * 0: @epoll_fd has something, or had; -ETIME; -EINTR; -EEXIST: this is not the thread that made it. Always the same
 * @epoll_fd. Words that were woken, at most @n, are in @ret whatever it returns.
 */
int watch_sleep_until(struct watch_sleep *s, int epoll_fd, int64_t deadline_ns, struct watch_event *ret, unsigned n,
        unsigned *ret_n);
int watch_sleep_word(struct watch_sleep *s, uint64_t tag, const uint32_t *word, uint32_t expected);
void watch_sleep_cancel(struct watch_sleep *s, uint64_t tag);
#endif
