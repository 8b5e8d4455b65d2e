/*
 * After open nothing allocates: malloc and its family are this program's own here and count. A hundred thousand
 * messages by every call, with waits, refusals and wakes among them, in either scheme; the service thread is counted
 * as well. Its own program, because a sanitizer's malloc is the sanitizer's.
 */
#include <pthread.h>
#include <stdlib.h>

#include "support/world.h"

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t m);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

static uint32_t counting;
static uint64_t counted;

/* Seen by the library, too: these must not be hidden like everything else. */
#define EXPORTED __attribute__((visibility("default")))

static void note(void) {
        if (__atomic_load_n(&counting, __ATOMIC_RELAXED))
                __atomic_fetch_add(&counted, 1, __ATOMIC_RELAXED);
}
EXPORTED void *malloc(size_t n) {
        note();
        return __libc_malloc(n);
}
EXPORTED void *calloc(size_t n, size_t m) {
        note();
        return __libc_calloc(n, m);
}
EXPORTED void *realloc(void *p, size_t n) {
        note();
        return __libc_realloc(p, n);
}
EXPORTED void *memalign(size_t align, size_t n);
void *memalign(size_t align, size_t n) {
        note();
        return __libc_memalign(align, n);
}
EXPORTED void *aligned_alloc(size_t align, size_t n) {
        return memalign(align, n);
}
EXPORTED int posix_memalign(void **ret, size_t align, size_t n) {
        *ret = memalign(align, n);
        return *ret ? 0 : ENOMEM;
}

#define N 100000

struct sides {
        struct psyne_channel *ch;
        uint32_t ready, over;
        int result;
};

static void *receive(void *arg) {
        struct sides *s = arg;
        struct psyne_consumer *c;
        struct psyne_msg m[8];
        char copy[256];
        uint32_t n = 0, type;
        int r;

        s->result = 1;
        if (psyne_consumer_open(s->ch, NULL, &c) < 0)
                return NULL;
        __atomic_store_n(&s->ready, 1, __ATOMIC_RELEASE);
        while (n < N) {
                switch (n % 3) {
                case 0:
                        r = psyne_recv(c, &m[0], 1000 * (n % 50)); /* now and then too short */
                        if (r == -ETIME || r == -EAGAIN)
                                continue;
                        if (r < 0 || m[0].type != n++ || psyne_release(c, &m[0]) < 0)
                                return NULL;
                        break;
                case 1:
                        r = psyne_recv_n(c, m, 8, WATCHDOG_NS);
                        if (r < 0 || m[0].type != n || psyne_release_n(c, m, (unsigned)r) != r)
                                return NULL;
                        n += (uint32_t)r;
                        break;
                default:
                        r = psyne_recv_copy(c, copy, sizeof(copy), &type, WATCHDOG_NS);
                        if (r < 0 || type != n++)
                                return NULL;
                }
        }
        __atomic_store_n(&s->over, 1, __ATOMIC_RELEASE);
        while (__atomic_load_n(&counting, __ATOMIC_ACQUIRE))
                breathe();
        psyne_consumer_close(c);
        s->result = 0;
        return NULL;
}

static int run(const char *uri) {
        struct sides s = {0};
        struct psyne_producer *p;
        struct psyne_metrics m = {.struct_size = sizeof(m)};
        struct psyne_msg msg[4];
        char data[256] = "";
        pthread_t t;
        int r = 0;

        if (psyne_open(uri, NULL, &s.ch) < 0 || psyne_producer_open(s.ch, NULL, &p) < 0 ||
                pthread_create(&t, NULL, receive, &s))
                return printf("%s: %s\n", uri, psyne_last_error()), -1;
        while (!__atomic_load_n(&s.ready, __ATOMIC_ACQUIRE))
                breathe();
        counted = 0;
        __atomic_store_n(&counting, 1, __ATOMIC_SEQ_CST);
        for (uint32_t n = 0; n < N && r >= 0; n++)
                switch (n % 4) {
                case 0:
                        r = psyne_claim(p, n % 200, WATCHDOG_NS, &msg[0]);
                        if (r == 0) {
                                msg[0].type = n;
                                r = psyne_commit(p, &msg[0]);
                        }
                        break;
                case 1:
                        do {
                                r = psyne_send(p, n, data, n % 200, n % 3 ? PSYNE_NOWAIT : 1000);
                        } while (r == -EAGAIN || r == -ETIME);
                        break;
                case 2:
                        r = psyne_claim(p, 10, WATCHDOG_NS, &msg[0]);
                        if (r == 0)
                                r = psyne_abort(p, &msg[0]);
                        if (r == 0)
                                r = psyne_send(p, n, data, 5, WATCHDOG_NS);
                        break;
                default:
                        r = psyne_claim_n(p, 100, 1, WATCHDOG_NS, msg);
                        if (r > 0) {
                                msg[0].type = n;
                                msg[0].len = 3;
                                r = psyne_commit_n(p, msg, 1);
                        }
                }
        if (r >= 0) {
                r = psyne_flush(p, WATCHDOG_NS);
                (void)psyne_metrics(s.ch, &m);
        }
        __atomic_store_n(&counting, 0, __ATOMIC_SEQ_CST);
        if (r < 0)
                printf("%s: %d, %s\n", uri, r, psyne_last_error());
        pthread_join(t, NULL);
        printf("%-44s %llu messages, %llu + %llu waits, %llu wakes: %llu allocations\n", uri,
                (unsigned long long)m.messages_received, (unsigned long long)m.send_blocks,
                (unsigned long long)m.receive_blocks, (unsigned long long)m.wakes_received,
                (unsigned long long)counted);
        psyne_producer_close(p);
        psyne_close(s.ch);
        return r < 0 || s.result || counted ? -1 : 0;
}

int main(void) {
        static const char *const uris[] = {"memory://a?size=16K", "memory://a?size=16K&wait=block",
                "ipc://a?size=16K", "ipc://a?size=16K&wait=block", "ipc://a?size=16K&wait=block&engine=futex"};
        char dir[64];
        struct psyne_channel *probe;
        int r = 0;

        if (under_sanitizer()) {
                printf("SKIP: the allocator is the sanitizer's\n");
                return 77;
        }
        counting = 1; /* does the hook see what the library does? */
        if (psyne_open("memory://", NULL, &probe) < 0)
                return 1;
        counting = 0;
        psyne_close(probe);
        if (!counted)
                return printf("FAIL: the hook does not count\n"), 1;
        if (private_dir(dir, sizeof(dir)) < 0)
                return 77;
        for (size_t i = 0; i < sizeof(uris) / sizeof(uris[0]); i++)
                if (run(uris[i]) < 0)
                        r = 1;
        remove_dir(dir);
        return r;
}
