#include "common/loop.h"

void loop_free(struct event_base *base) {
  if (base) {
    event_base_loop(base, EVLOOP_NONBLOCK);
    event_base_free(base);
  }
}
