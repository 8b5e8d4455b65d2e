/* See link-tell.h. */
#include "lib/link-tell.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/link.h"

#define ASKERS_AT_ONCE 16

int link_tell_open(unsigned number) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        int n = snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, LINK_TELL_NAME "%d/%u", (int)getpid(), number), fd, r;

        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) < 0 ||
                listen(fd, ASKERS_AT_ONCE) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        return fd;
}

/* False: it takes no more. */
static bool tell_link(int fd, const struct psyne_link *l, struct psyne_link_info *info, unsigned n_info, uint32_t *row, uint32_t n_rows) {
        struct link_row r = {.magic = LINK_TELL_MAGIC, .version = LINK_TELL_VERSION, .bytes = sizeof(r), .n_rows = n_rows};
        unsigned n = link_look(l, info, n_info, 0);

        snprintf(r.channel, sizeof(r.channel), "%s", l->channel->uri);
        snprintf(r.link, sizeof(r.link), "%s", l->uri);
        for (unsigned i = 0; i < n + l->listens && i < n_info; i++) {
                r.row = (*row)++;
                r.listens = i == n;
                if (i < n)
                        r.info = info[i];
                else
                        r.info = (struct psyne_link_info){.struct_size = sizeof(r.info), .added = l->added};
                if (send(fd, &r, sizeof(r), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(r))
                        return false;
        }
        return true;
}

static void answer(const struct links *s, int fd) {
        struct psyne_link_info *info;
        uint32_t n_rows = 0, row = 0;

        for (const struct psyne_link *l = s->list; l; l = l->next)
                n_rows += link_look(l, NULL, 0, 0) + l->listens;
        info = calloc(n_rows ? n_rows : 1, sizeof(*info));
        if (!info)
                return;
        for (const struct psyne_link *l = s->list; l; l = l->next)
                if (!tell_link(fd, l, info, n_rows, &row, n_rows))
                        break;
        free(info);
}

void link_tell(struct links *s) {
        for (unsigned i = 0; i < ASKERS_AT_ONCE; i++) {
                int fd = accept4(s->teller, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                struct ucred who;
                socklen_t n = sizeof(who);

                if (fd < 0) {
                        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) { /* it would stay readable */
                                (void)psyne_waitset_remove(s->set, &s->telling);
                                close(s->teller);
                                s->teller = -1;
                        }
                        return;
                }
                if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 && (who.uid == geteuid() || who.uid == 0))
                        answer(s, fd);
                close(fd);
        }
}
