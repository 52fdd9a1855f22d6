// The end of an event loop.
#ifndef JANUS_COMMON_LOOP_H
#define JANUS_COMMON_LOOP_H

#include <event2/event.h>

// Frees the loop after all that used it is free. Runs what is still due first: a
// bufferevent with deferred callbacks, or whose host is being looked up, is only let go
// of by libevent when these have run. Accepts NULL.
void loop_free(struct event_base *base);

#endif
