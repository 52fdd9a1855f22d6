// What all users of an event loop need: its timers in milliseconds, and its end.
#ifndef JANUS_COMMON_LOOP_H
#define JANUS_COMMON_LOOP_H

#include <event2/event.h>
#include <stdint.h>

#include "common/clock.h"

// Starts the timer, or starts it anew.
static inline void loop_start_timer(struct event *timer, int64_t ms) {
  struct timeval time = clock_timeval(ms);
  evtimer_add(timer, &time);
}

// Frees the loop after all that used it is free. Runs what is still due first: a
// bufferevent with deferred callbacks, or whose host is being looked up, is only let go
// of by libevent when these have run. Accepts NULL.
void loop_free(struct event_base *base);

#endif
