// The one way of every push, whichever entrance it came by: to the workers that have the
// players it is for, and through Redis to the gateways that have the others.
//
// A body is serialized and compressed here, once for all who get it. A player gets all
// bodies of an order or none: an order with a body that clients don't take is refused as a
// whole, and so is what a worker has no room for. All is counted, and said in the outcome,
// which every entrance but Redis passes on.
// Loop thread only.
#ifndef JANUS_MASTER_PUSH_HUB_H
#define JANUS_MASTER_PUSH_HUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/channel.h"
#include "common/config.h"
#include "common/counters.h"
#include "master/directory.h"

#define PUSH_BROADCAST_TOPIC "gate.broadcast.message"

enum {
  PUSH_BODIES_MAX = 256,           // of one order
  PUSH_UIDS_MAX = 100000,          // of one order
  PUSH_DELIVERIES_MAX = 200000,    // of one order: bodies times uids
  PUSH_DATA_MAX_BYTES = 1 << 20,   // of one body: no client takes more, however well it compresses
  PUSH_ORDER_MAX_BYTES = 4 << 20,  // as it comes in, at any entrance
  // As it comes from another gateway, which says something of itself with it.
  PUSH_TOPIC_MAX_BYTES = PUSH_ORDER_MAX_BYTES + 1024,
};

// One message for a client.
struct push_body {
  const uint8_t *data;
  size_t data_len;
  uint64_t data_version;
  int64_t obj;
  int32_t mod;
  int32_t seq;
};

// What is to be pushed, and to whom. All of it borrowed for the call.
struct push_order {
  const struct push_body *bodies;
  size_t body_count;
  // To these players; or, broadcast, to every session of color ("": any) and sid (0: any).
  const int64_t *uids;
  size_t uid_count;
  bool broadcast;
  const char *color;  // of the players, for finding those who are elsewhere
  int64_t sid;
  struct trace_context parent;  // the span of who pushes it, or none
  bool here_only;               // it came from another gateway, or is meant for this one
};

enum push_fate {
  PUSH_HERE,
  PUSH_HANDED_ON,  // to the gateway that has the player
  PUSH_NOT_FOUND,
  PUSH_REFUSED,  // too large, or too much is waiting, or where to can't be found out now
  PUSH_FATE_COUNT
};

struct push_outcome {
  int error;  // ERROR_INVALID: the order makes no sense, and nothing was done; ERROR_MEMORY
  const enum push_fate *fates;    // of the order's uids, in their order; NULL for a broadcast
  size_t count[PUSH_FATE_COUNT];  // players; of a broadcast, sessions
  bool published;                 // a broadcast: the other gateways have been told
  bool unpublished;               // they were to be, and it failed
  bool too_large;  // what was refused always will be: no client takes it, or no worker
};
// Whether it came to nothing at all, so that it can be said again (unless it is too_large).
bool push_was_refused(const struct push_outcome *outcome);

// outcome is valid for the call.
typedef void push_on_done(const struct push_outcome *outcome, void *context);

struct push_hub;

struct push_hub_options {
  const struct config *config;
  struct directory *directory;
  struct counters *counters;
  int workers;
  // Hands a push to a worker: 0, or an error with nothing done.
  int (*send)(int worker, const struct channel_push *push, const uint64_t *receivers,
              const uint8_t *packet, void *owner);
  // How many bytes of pushes (channel_push_bytes) the worker takes now.
  size_t (*room)(int worker, void *owner);
  // Where a player is: on_found comes once, maybe from inside, unless an error is returned.
  // ERROR_NOT_FOUND: nowhere; any other error: it can't be said.
  int (*find_gateway)(int64_t uid, const char *color,
                      void (*on_found)(int error, const char *address, int64_t ttl_ms,
                                       void *context),
                      void *context, void *owner);
  // Publishes on a topic; NULL where there is no Redis. on_published comes once, later, with
  // how many have got it (negative: it was not published), unless an error is returned.
  int (*publish)(const char *topic, const uint8_t *bytes, size_t len,
                 void (*on_published)(int64_t receivers, void *context), void *context,
                 void *owner);
  void *owner;
};

// All in options is borrowed. NULL when out of memory.
struct push_hub *push_hub_new(const struct push_hub_options *options);
void push_hub_free(struct push_hub *hub);  // what was asked of others must have been answered

// on_done comes once, maybe from inside.
void push_hub_send(struct push_hub *hub, const struct push_order *order, push_on_done *on_done,
                   void *context);

// What the broadcasts of this gateway are marked with, when they are published.
const char *push_hub_origin(const struct push_hub *hub);

// The serial of the latest broadcast, which workers know; a hub that takes over counts on from it.
uint64_t push_hub_serial(const struct push_hub *hub);
void push_hub_set_serial(struct push_hub *hub, uint64_t serial);
// Whether no order waits for another gateway, or for the store.
bool push_hub_is_idle(const struct push_hub *hub);

// From a worker: it is through with a broadcast; it is gone, with all of them.
void push_hub_broadcast_done(struct push_hub *hub, int worker, uint64_t serial);
void push_hub_worker_gone(struct push_hub *hub, int worker);

#endif
