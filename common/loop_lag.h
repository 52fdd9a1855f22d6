// How late an event loop comes to its timers: looked at ten times a second, and recorded
// (HISTOGRAM_LOOP_LAG). One that lags has more to do than it has time for, or something
// blocks it. Loop thread only.
#ifndef JANUS_COMMON_LOOP_LAG_H
#define JANUS_COMMON_LOOP_LAG_H

#include <event2/event.h>

#include "common/counters.h"

struct loop_lag;

// counters is borrowed. NULL when out of memory.
struct loop_lag *loop_lag_new(struct event_base *base, struct counters *counters);
void loop_lag_free(struct loop_lag *lag);  // accepts NULL

#endif
