/*
 * What links are doing, for whoever asks from outside (psyne-stat links): each thread of links has a UNIX socket in the abstract
 * name space, named after its process. Who connects, and is the same user or root, gets one packet per listener and per connection of
 * a link, as they are then, and the end. Nothing is written anywhere while nobody asks, and nothing stays when the process dies.
 */
#ifndef PSYNE_LINK_TELL_H
#define PSYNE_LINK_TELL_H
#include <stdint.h>

#include "psyne/info.h"

#define LINK_TELL_NAME "psyne-links/" /* and PID/NUMBER */
#define LINK_TELL_MAGIC 0x6b6e696c65796e73ull
#define LINK_TELL_VERSION 1u

struct link_row {
        uint64_t magic;
        uint32_t version, bytes; /* of the row */
        uint32_t row, n_rows;    /* of so many; those that found no room in the socket are missing */
        uint32_t listens, reserved; /* 1: it is the listener's, and says nothing of a connection */
        char channel[160], link[160];
        struct psyne_link_info info;
};

struct links;
int link_tell_open(unsigned number);             /* the socket, or -errno */
void link_tell(struct links *s);                 /* [the thread] whoever has asked, under the lock. Out of descriptors: never again */
#endif
