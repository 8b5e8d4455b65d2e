/*
 * A producer that leaves before its ring has reached a reader that sleeps for it: nobody polls for its process, so no ring is
 * handed over, and the group, whose reader was killed, keeps the lane. When the producer's process leaves the channel,
 * and lives on, the reader learns that what was sent is lost.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "support/require.h"
#include "support/start.h"

struct shared {
        uint32_t turn, done;
        char dir[64];
};
static struct shared *s;

static int open_in(const char *query, struct psyne_channel **ret) {
        char uri[160];

        snprintf(uri, sizeof(uri), "ipc://%s/x%s", s->dir, query);
        REQUIRE(psyne_open(uri, NULL, ret) == 0);
        return 0;
}

static int producer(const char *unused, unsigned zero) {
        struct psyne_channel *ch;
        struct psyne_producer *p;

        (void)unused, (void)zero;
        REQUIRE(open_in("?nothread=1&linger=0", &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        next_turn(&s->turn);
        REQUIRE(await_word(&s->turn, 2) == 0);
        for (uint32_t n = 0; n < 3; n++)
                REQUIRE(psyne_send(p, n, "x", 1, WATCHDOG_NS) == 0);
        REQUIRE(psyne_producer_close(p) == 0);
        next_turn(&s->turn);
        REQUIRE(await_word(&s->turn, 4) == 0);
        (void)psyne_close(ch);
        return await_word(&s->done, 1);
}

static int keeps_the_lane(const char *unused, unsigned zero) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;

        (void)unused, (void)zero;
        REQUIRE(open_in("?nothread=1", &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        next_turn(&s->turn);
        for (;;)
                pause();
}

static int reads(pid_t other) {
        struct psyne_metrics metrics = {.struct_size = sizeof(metrics)};
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        int64_t at;

        REQUIRE(await_word(&s->turn, 3) == 0);
        kill(other, SIGKILL);
        (void)waitpid(other, NULL, 0);
        REQUIRE(open_in("", &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        REQUIRE(psyne_recv(c, &m, 100 * MSEC) == -ETIME); /* there is something, and its ring is not here */
        next_turn(&s->turn);
        at = now_ns();
        REQUIRE(psyne_recv(c, &m, WATCHDOG_NS) == -EPIPE);
        printf("told after %.1f ms\n", (double)(now_ns() - at) / 1e6);
        REQUIRE(psyne_metrics(ch, &metrics) == 0 && metrics.lost == 3);
        __atomic_store_n(&s->done, 1, __ATOMIC_RELEASE);
        REQUIRE(psyne_consumer_close(c) == 0);
        (void)psyne_close(ch);
        return 0;
}

int main(void) {
        char dir[] = "/dev/shm/psyne-test-XXXXXX";
        pid_t pids[2];
        int r;

        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED || !mkdtemp(dir))
                return 1;
        snprintf(s->dir, sizeof(s->dir), "%s", dir);
        pids[0] = start_at(&s->turn, 0, producer, "", 0);
        pids[1] = start_at(&s->turn, 1, keeps_the_lane, "", 0);
        r = reads(pids[1]);
        __atomic_store_n(&s->done, 1, __ATOMIC_RELEASE);
        r |= child_wait(pids[0], WATCHDOG_NS);
        r |= rmdir(dir);
        printf("%s\n", r ? "FAIL" : "PASS");
        return r != 0;
}
