// Another master takes over from the one that this worker had: the worker goes on to its tables,
// and tells it all that it has to know of the players here, and what it waits for.
#ifndef JANUS_WORKER_TAKEOVER_H
#define JANUS_WORKER_TAKEOVER_H

#include "common/channel.h"

struct worker;

// fds are taken over.
void takeover_on_take_over(struct worker *worker, const int fds[CHANNEL_FDS]);

#endif
