// What the workers tell the master, and what becomes of it: the counterpart of worker/inbox.h. The
// functions are those of struct workers_events, whose owner is the master. Loop thread only.
#ifndef JANUS_MASTER_WORKER_MESSAGES_H
#define JANUS_MASTER_WORKER_MESSAGES_H

#include "common/channel.h"

void worker_messages_on_message(int index, enum channel_type type, const void *content,
                                void *owner);
// All that the worker had is over: its sessions, the routes that it held, its connections over KCP.
void worker_messages_on_worker_dead(int index, void *owner);

#endif
