// Waits for what comes about in a loop, by its events alone. A test that waits in vain ends at
// once, so that it is seen where.
#ifndef JANUS_TEST_UNIT_AWAIT_H
#define JANUS_TEST_UNIT_AWAIT_H

#include <event2/event.h>
#include <stdlib.h>

enum { PATIENCE_S = 60 };

static inline void await_in_vain(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  (void)owner;
  abort();
}

// Of whatever has a base.
#define AWAIT(house, condition)                                               \
  do {                                                                        \
    const struct timeval time = {.tv_sec = PATIENCE_S};                       \
    struct event *patience = evtimer_new((house)->base, await_in_vain, NULL); \
    event_add(patience, &time);                                               \
    while (!(condition)) {                                                    \
      event_base_loop((house)->base, EVLOOP_ONCE);                            \
    }                                                                         \
    event_free(patience);                                                     \
  } while (0)

#endif
