// What the master has this worker push, in the order in which it came: to one session at
// once, to many in slices with a bound on the time of each, so that they do not hold up
// everything else.
//
// A push that comes for some sessions while a broadcast is under way does not overtake it:
// those sessions get the broadcast first. Loop thread only.
#ifndef JANUS_WORKER_PUSHES_H
#define JANUS_WORKER_PUSHES_H

#include <stdint.h>

#include "common/channel.h"

struct pushes;
struct session;
struct worker;

struct pushes *pushes_new(struct worker *worker);  // NULL when out of memory
void pushes_free(struct pushes *pushes);

// From the inbox.
void pushes_on_push(struct pushes *pushes, const struct channel_push *about);

// The serial of the latest broadcast: one that came before a login is not for it.
uint64_t pushes_latest(const struct pushes *pushes);

// A session is about to be closed.
void pushes_on_session_end(struct pushes *pushes, struct session *session);

#endif
