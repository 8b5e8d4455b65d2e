/* Asking the processes of this host what their links are doing: link-tell.h. What they answer is somebody's input. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cancel.h"
#include "base/clock.h"
#include "base/error.h"
#include "lib/link-tell.h"
#include "psyne/stat.h"

#define ANSWER_WITHIN_NS 500000000ll
#define ROWS_MOST 65536u

static void end_text(char *text, size_t n) {
        text[n - 1] = '\0';
}

/* One asked. What is no row, or another version's, ends it. 0, or what the function said. */
static int ask(const char *name, int (*fn)(void *ctx, const struct psyne_stat_link *l), void *ctx) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        struct psyne_stat_link ret = {.struct_size = sizeof(ret)};
        struct ucred who;
        socklen_t n = sizeof(who);
        size_t length = strlen(name);
        int64_t until = clock_ns() + ANSWER_WITHIN_NS;
        int fd, r = 0;

        if (length + 1 > sizeof(a.sun_path))
                return 0;
        memcpy(a.sun_path + 1, name, length);
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return error_set(-errno, "socket: %s", strerror(errno));
        if (connect(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)) < 0) {
                close(fd);
                return 0; /* gone meanwhile; or many ask and it does not answer, but whose it is cannot be told */
        }
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) < 0 || (who.uid != geteuid() && geteuid() != 0)) {
                close(fd);
                return 0; /* somebody else's */
        }
        ret.pid = (uint32_t)who.pid;
        ret.uid = (uint32_t)who.uid;
        for (unsigned rows = 0; rows < ROWS_MOST && r == 0; rows++) {
                struct pollfd p = {.fd = fd, .events = POLLIN};
                int64_t left = until - clock_ns();
                struct link_row row;
                ssize_t got;

                if (left <= 0 || poll(&p, 1, (int)(left / 1000000) + 1) <= 0) { /* stopped, perhaps */
                        ret.error = -ETIME;
                        r = fn(ctx, &ret);
                        break;
                }
                got = recv(fd, &row, sizeof(row), MSG_DONTWAIT);
                if (got == 0 || (got < 0 && errno != EAGAIN))
                        break;
                if (got != sizeof(row) || row.magic != LINK_TELL_MAGIC || row.version != LINK_TELL_VERSION || row.bytes != sizeof(row))
                        break;
                end_text(row.channel, sizeof(row.channel));
                end_text(row.link, sizeof(row.link));
                end_text(row.info.peer, sizeof(row.info.peer));
                ret.row = row.row;
                ret.n_rows = row.n_rows;
                ret.listens = row.listens;
                ret.channel = row.channel;
                ret.link = row.link;
                ret.info = &row.info;
                r = fn(ctx, &ret);
        }
        close(fd);
        return r;
}

/*
 * [any thread] Asks every process in this network name space that has links, as far as it belongs to the caller's user (root: all),
 * and calls @fn for each listener and each connection of each link; what it is given ends with its call. A process that does not answer within half
 * a second is one call with `error` set. Stops when @fn returns other than 0, and returns that; else 0, or -errno.
 */
int psyne_stat_links(int (*fn)(void *ctx, const struct psyne_stat_link *l), void *ctx) {
        CANCEL_HOLD;
        char *line = NULL;
        size_t room = 0;
        int r = 0;
        FILE *f;

        if (!fn)
                return error_set(-EINVAL, "psyne_stat_links: no function");
        error_clear();
        f = fopen("/proc/net/unix", "re");
        if (!f)
                return error_set(-errno, "/proc/net/unix: %s", strerror(errno));
        while (r == 0 && getline(&line, &room, f) > 0) {
                char *name = strstr(line, " @" LINK_TELL_NAME), *end;
                unsigned long flags = 0;

                /* "0000: 00000002 00000000 00010000 0005 01 12345 @NAME": listeners have 10000 */
                if (!name || sscanf(line, "%*[^:]: %*s %*s %lx", &flags) != 1 || !(flags & 0x10000))
                        continue;
                name += 2;
                end = name + strcspn(name, "\n");
                *end = '\0';
                r = ask(name, fn, ctx);
        }
        free(line);
        fclose(f);
        return r;
}
