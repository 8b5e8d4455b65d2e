/* Built without liburing: there is no ring to sleep in, and watch.c sleeps in epoll. */
#include "uring/watch-sleep.h"

#include <errno.h>
#include <stddef.h>

int watch_sleep_new(struct watch_sleep **ret) {
        (void)ret;
        return -ENOSYS;
}

struct watch_sleep *watch_sleep_free(struct watch_sleep *s) {
        (void)s;
        return NULL;
}

struct watch_sleep *watch_sleep_forget(struct watch_sleep *s) {
        (void)s;
        return NULL;
}

int watch_sleep_until(struct watch_sleep *s, int epoll_fd, int64_t deadline_ns, struct watch_event *ret, unsigned n,
        unsigned *ret_n) {
        (void)s;
        (void)epoll_fd;
        (void)deadline_ns;
        (void)ret;
        (void)n;
        (void)ret_n;
        return -ENOSYS;
}

int watch_sleep_word(struct watch_sleep *s, uint64_t tag, const uint32_t *word, uint32_t expected) {
        (void)s;
        (void)tag;
        (void)word;
        (void)expected;
        return -ENOSYS;
}

void watch_sleep_cancel(struct watch_sleep *s, uint64_t tag) {
        (void)s;
        (void)tag;
}
