// The gateway is to be left by its players: it is taken out of the registry, takes no new ones,
// lets those that there are stay for a while, and then sends them away, evenly over a time. It can
// be undone, and it may end in the end of the gateway.
//
// Each step is announced to whoever sends players here before it is done: readiness says draining
// from the first moment, the registry is told next, and only then are clients refused.
#ifndef JANUS_MASTER_DRAIN_H
#define JANUS_MASTER_DRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct master;

enum drain_state {
  DRAIN_SERVING,
  DRAIN_DEREGISTERING,
  DRAIN_DRAINING,      // players may stay
  DRAIN_SENDING_AWAY,  // no longer
  DRAIN_DRAINED,       // nobody is left
};
const char *drain_state_name(enum drain_state state);

// Part of struct master. All times are monotonic.
struct gateway_drain {
  bool on;
  bool refusing;  // new clients
  int64_t timeout_ms;
  int64_t spread_ms;
  int64_t since_wall_ms;
  int64_t send_from_ms;  // once new clients are refused
  size_t sessions_before;
};

struct drain_status {
  enum drain_state state;
  size_t sessions;
  int64_t connections;
  int64_t left_ms;  // until all are sent away
};

// From now on; one that is under way gets these times in place of its own.
void gateway_drain_begin(struct master *master, int64_t timeout_ms, int64_t spread_ms);
// Players may come again. ERROR_BUSY: it can't be undone any more, or not yet; ERROR_SYSTEM: the
// sockets can't listen again, with errno.
int gateway_drain_cancel(struct master *master) MUST_CHECK;
void gateway_drain_status(const struct master *master, struct drain_status *status);

#endif
