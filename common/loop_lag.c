#include "common/loop_lag.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/loop.h"

enum { LOOK_MS = 100 };

struct loop_lag {
  struct counters *counters;
  struct event *timer;
  int64_t due_us;
};

static void look_later(struct loop_lag *lag) {
  lag->due_us = clock_monotonic_us() + LOOK_MS * 1000;
  loop_start_timer(lag->timer, LOOK_MS);
}

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  struct loop_lag *lag = owner;
  (void)fd;
  (void)what;
  counters_record_us(lag->counters, HISTOGRAM_LOOP_LAG, clock_monotonic_us() - lag->due_us);
  look_later(lag);
}

struct loop_lag *loop_lag_new(struct event_base *base, struct counters *counters) {
  struct loop_lag *lag = calloc(1, sizeof *lag);
  if (!lag) {
    return NULL;
  }
  lag->counters = counters;
  lag->timer = evtimer_new(base, on_timer, lag);
  if (!lag->timer) {
    free(lag);
    return NULL;
  }
  look_later(lag);
  return lag;
}

void loop_lag_free(struct loop_lag *lag) {
  if (lag) {
    event_free(lag->timer);
    free(lag);
  }
}
