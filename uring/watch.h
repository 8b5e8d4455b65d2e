/*
 * Many fds and words, one sleeper: what a service thread sleeps in, and a set of endpoints. Any thread may add, remove and
 * wake; one thread waits, and says which words it waits for.
 *
 * All fds lie in one epoll fd, and where io_uring is to be had the thread sleeps in its own ring, by a poll of that
 * epoll fd. No watched fd ever has a request of its own in the ring, because a process killed with a request armed on
 * a socket hangs up on its peers late: the kernel takes the ring apart first.
 */
#ifndef PSYNE_URING_WATCH_H
#define PSYNE_URING_WATCH_H
#include <stdint.h>

struct watch;

struct watch_event {
        void *cookie;
        uint32_t events; /* EPOLLIN etc., or WATCH_WORD */
        uint64_t tag;    /* of the word */
};
#define WATCH_WORD (1u << 27) /* no EPOLL* has it */

int watch_new(struct watch **ret);
struct watch *watch_free(struct watch *w);

/* any thread */
int watch_add(struct watch *w, int fd, uint32_t events, void *cookie);
int watch_change(struct watch *w, int fd, uint32_t events, void *cookie); /* EPOLLONESHOT: once more */
int watch_remove(struct watch *w, int fd);
int watch_wake(struct watch *w); /* and any signal handler */
const char *watch_engine(const struct watch *w);

/* the one that sleeps */
void watch_prepare(struct watch *w); /* now: the first wait allocates nothing */
int watch_wait(struct watch *w, struct watch_event *ret, unsigned n, int64_t deadline_ns);
int watch_word(struct watch *w, uint64_t tag, const uint32_t *word, uint32_t expected);
void watch_forget_word(struct watch *w, uint64_t tag);
unsigned watch_words_epoch(const struct watch *w);

/* fork */
void watch_after_fork_child(struct watch *w);
#endif
