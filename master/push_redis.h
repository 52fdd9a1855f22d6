// Pushes over Redis: what stands in the messages on the gateway's own topic, and on
// PUSH_BROADCAST_TOPIC. Nobody is answered; what can't be understood is counted and logged.
// Loop thread only.
#ifndef JANUS_MASTER_PUSH_REDIS_H
#define JANUS_MASTER_PUSH_REDIS_H

#include "master/other_gateways.h"
#include "master/push_hub.h"

// All borrowed.
struct push_redis {
  struct push_hub *hub;
  struct other_gateways *others;  // for what they say of players
  struct counters *counters;
};

// for_all: it came on PUSH_BROADCAST_TOPIC. bytes are borrowed for the call.
void push_redis_on_message(const struct push_redis *redis, bool for_all, const uint8_t *bytes,
                           size_t len);

#endif
