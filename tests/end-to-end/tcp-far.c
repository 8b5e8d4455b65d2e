/*
 * Two ends of a link in two places, for a script that does something to what lies between them: one sends numbered messages
 * for a while, the other looks whether each of them comes, once, in order, unchanged.
 *
 *      tcp-far receive PORT            listens on all addresses; prints how many came
 *      tcp-far send HOST PORT SECONDS  prints how many were sent
 */
#include <stdlib.h>
#include <string.h>

#include "support/require.h"
#include "support/world.h"

#define PATIENCE_NS (60 * SECOND) /* of either, for the next message or for room */

static int receive(const char *port) {
        struct psyne_channel *ch;
        struct psyne_consumer *c;
        struct psyne_msg m;
        uint64_t n = 0;
        char uri[128];
        int r;

        snprintf(uri, sizeof(uri), "tcp://0.0.0.0:%s/far?size=256K&wait=block&resume=60s", port);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_consumer_open(ch, NULL, &c) == 0);
        while ((r = psyne_recv(c, &m, PATIENCE_NS)) == 0) {
                if (m.type != (uint32_t)n || m.len != n % 1500 || !pattern_is(m.data, m.len, n) || m.flags) {
                        printf("FAIL: message %llu came as %u, %zu bytes, flags %x\n", (unsigned long long)n, m.type, m.len, m.flags);
                        return 1;
                }
                n++;
                REQUIRE(psyne_release(c, &m) == 0);
        }
        REQUIRE(r == -EPIPE);
        REQUIRE(psyne_consumer_close(c) == 0);
        (void)psyne_close(ch);
        printf("%llu\n", (unsigned long long)n);
        return 0;
}

static int send_for(const char *host, const char *port, int64_t ns) {
        struct psyne_link_info info[4] = {{.struct_size = sizeof(info[0])}};
        struct psyne_channel *ch;
        struct psyne_producer *p;
        char bytes[1500], uri[128];
        uint64_t n = 0;

        snprintf(uri, sizeof(uri), "tcp://%s:%s/far?size=256K&wait=block&resume=60s", host, port);
        REQUIRE(psyne_open(uri, NULL, &ch) == 0 && psyne_producer_open(ch, NULL, &p) == 0);
        for (int64_t until = now_ns() + ns; now_ns() < until; n++) {
                pattern_fill(bytes, n % sizeof(bytes), n);
                REQUIRE(psyne_send(p, (uint32_t)n, bytes, n % sizeof(bytes), PATIENCE_NS) == 0);
        }
        REQUIRE(psyne_flush(p, PATIENCE_NS) == 0);
        for (int i = psyne_links(ch, info, 4) - 1; i >= 0; i--)
                if (i < 4 && info[i].has_lane)
                        fprintf(stderr, "%u segments sent again, %llu connections\n", info[i].retransmits,
                                (unsigned long long)info[i].connections);
        REQUIRE(psyne_producer_close(p) == 0);
        (void)psyne_close(ch);
        printf("%llu\n", (unsigned long long)n);
        return 0;
}

int main(int argc, char **argv) {
        if (argc == 3 && strcmp(argv[1], "receive") == 0)
                return receive(argv[2]);
        if (argc == 5 && strcmp(argv[1], "send") == 0)
                return send_for(argv[2], argv[3], strtoll(argv[4], NULL, 10) * SECOND);
        fprintf(stderr, "usage: tcp-far receive PORT | tcp-far send HOST PORT SECONDS\n");
        return 2;
}
