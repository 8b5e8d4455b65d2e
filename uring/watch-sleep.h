/*
 * How the thread in watch_wait() sleeps until an epoll fd has something: in an io_uring of its own (watch-sleep.c), or
 * not at all where there is none (watch-sleep-fallback.c: init fails, and the watch stays with epoll). Private to
 * watch.c.
 */
#ifndef PSYNE_URING_WATCH_SLEEP_H
#define PSYNE_URING_WATCH_SLEEP_H
#include <stdint.h>

struct watch_sleep;

int watch_sleep_new(struct watch_sleep **ret);                 /* by the thread that will sleep */
struct watch_sleep *watch_sleep_free(struct watch_sleep *s);   /* any thread */
struct watch_sleep *watch_sleep_forget(struct watch_sleep *s); /* in a forked child, instead of free */
/*
 * 0: @epoll_fd has something, or had; -ETIME; -EINTR; -EEXIST: this is not the thread that made it. Always the same
 * @epoll_fd.
 */
int watch_sleep_until(struct watch_sleep *s, int epoll_fd, int64_t deadline_ns);
#endif
