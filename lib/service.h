/*
 * The service thread's side of ipc:// channels: it accepts peers, hands rings over, takes them, and notices deaths.
 * One thread per process ("psyne-io"), started by the first ipc open and gone with the last; a PSYNE_NO_THREAD channel
 * has a service of its own that psyne_poll() drives. Data never passes through here.
 */
#ifndef PSYNE_SERVICE_H
#define PSYNE_SERVICE_H
#include "lib/internal.h"

void service_fork_prepare(void); /* registry lock held; taken before any channel's lock */
void service_fork_parent(void);
#endif
