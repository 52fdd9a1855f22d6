// A worker whose players are to leave: it accepts no more, keeps those it has for a while, and
// then sends them away, evenly over a time, so that they do not all come back at once
// (channel_drain). It may be told to take players again, or to leave with the last of them.
#ifndef JANUS_WORKER_DRAIN_H
#define JANUS_WORKER_DRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/channel.h"

struct event;
struct worker;

// Part of struct worker.
struct drain {
  bool on;
  bool leave;              // with the last connection,
  bool leave_together;     // or, as all workers do, with the last one over KCP of any of them
  int64_t spread_ms;       // of sending them away,
  int64_t send_from_ms;    // monotonic, from here on; 0: not yet
  size_t sessions_before;  // that there were then
  struct event *timer;
  struct event *left;  // the last connection has
};

bool drain_init(struct worker *worker);  // false: out of memory
void drain_fini(struct worker *worker);

void drain_on_drain(struct worker *worker, const struct channel_drain *wanted);
void drain_on_undrain(struct worker *worker);
// For whoever closes a connection; may be called from anywhere.
void drain_on_connection_gone(struct worker *worker);

#endif
