#include "master/push_grpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "master/push_message.h"
#include "proto/gate_push.pb-c.h"
#include "proto/push.pb-c.h"

typedef Broadcaster__Service__Push__V1__PushRequest PushRequest;
typedef Broadcaster__Service__Push__V1__PushResponse PushResponse;
typedef Broadcaster__Service__Push__V1__MulticastRequest MulticastRequest;
typedef Broadcaster__Service__Push__V1__MulticastResponse MulticastResponse;
typedef Broadcaster__Service__Push__V1__BroadcastRequest BroadcastRequest;
typedef Broadcaster__Service__Push__V1__BroadcastResponse BroadcastResponse;

// An order that the hub has. It may outlive its call, and the server.
struct order {
  struct counters *counters;
  struct rpc_server_call *call;  // NULL: it is gone
  void (*answer)(struct rpc_server_call *call, const struct push_outcome *outcome,
                 const int64_t *uids, size_t uid_count);
  size_t uid_count;
  int64_t uids[];
};

// --- Who may push --------------------------------------------------------------------

enum stream_status push_grpc_on_head(struct rpc_server_call *call, const char **detail,
                                     void *owner) {
  const struct push_grpc *pushes = owner;
  switch (push_access_check(pushes->access, rpc_server_peer(call),
                            rpc_server_metadata(call, "authorization"))) {
    case PUSH_ACCESS_ADDRESS:
      *detail = "pushes are not taken from this address (push.allow)";
      return STREAM_PERMISSION_DENIED;
    case PUSH_ACCESS_TOKEN:
      *detail = "the metadata authorization must be Bearer and the push_token";
      return STREAM_UNAUTHENTICATED;
    case PUSH_ACCESS_GRANTED: break;
  }
  if (!pushes->hub) {
    *detail = "the gateway is starting";
    return STREAM_UNAVAILABLE;
  }
  return STREAM_OK;
}

// --- Answers -------------------------------------------------------------------------

static void reply(struct rpc_server_call *call, const ProtobufCMessage *message) {
  size_t len = protobuf_c_message_get_packed_size(message);
  uint8_t *bytes = malloc(len + 1);
  if (!bytes) {
    rpc_server_fail(call, STREAM_RESOURCE_EXHAUSTED, "out of memory");
    return;
  }
  protobuf_c_message_pack(message, bytes);
  rpc_server_reply(call, bytes, len);
  free(bytes);
}

// True: the order came to nothing, and its call has been failed.
static bool failed(struct rpc_server_call *call, const struct push_outcome *outcome, bool refused) {
  if (outcome->error == ERROR_INVALID) {
    rpc_server_fail(call, STREAM_INVALID_ARGUMENT,
                    "there is nothing to push, nobody to push it to, or too much of either");
  } else if (outcome->error != 0) {
    rpc_server_fail(call, STREAM_RESOURCE_EXHAUSTED, "out of memory");
  } else if (refused && outcome->too_large) {
    rpc_server_fail(call, STREAM_INVALID_ARGUMENT, "a body is larger than a client takes");
  } else if (refused) {
    rpc_server_fail(call, STREAM_RESOURCE_EXHAUSTED, "too many pushes are waiting; try again");
  }
  return outcome->error != 0 || refused;
}

static bool was_pushed(enum push_fate fate) { return fate == PUSH_HERE || fate == PUSH_HANDED_ON; }

static void answer_push(struct rpc_server_call *call, const struct push_outcome *outcome,
                        const int64_t *uids, size_t uid_count) {
  PushResponse response = BROADCASTER__SERVICE__PUSH__V1__PUSH_RESPONSE__INIT;
  (void)uids;
  (void)uid_count;
  if (!failed(call, outcome, push_was_refused(outcome))) {
    response.pushed = was_pushed(outcome->fates[0]);
    reply(call, &response.base);
  }
}

static void answer_multicast(struct rpc_server_call *call, const struct push_outcome *outcome,
                             const int64_t *uids, size_t uid_count) {
  MulticastResponse response = BROADCASTER__SERVICE__PUSH__V1__MULTICAST_RESPONSE__INIT;
  if (failed(call, outcome, push_was_refused(outcome))) {
    return;
  }
  // Each uid is in one of these, and those handed on are in two.
  int64_t *room = malloc(2 * uid_count * sizeof *room);
  if (!room) {
    rpc_server_fail(call, STREAM_RESOURCE_EXHAUSTED, "out of memory");
    return;
  }
  response.pushed_uids = room;
  response.handed_on_uids =
      response.pushed_uids + outcome->count[PUSH_HERE] + outcome->count[PUSH_HANDED_ON];
  response.not_found_uids = response.handed_on_uids + outcome->count[PUSH_HANDED_ON];
  response.refused_uids = response.not_found_uids + outcome->count[PUSH_NOT_FOUND];
  for (size_t i = 0; i < uid_count; i++) {
    if (was_pushed(outcome->fates[i])) {
      response.pushed_uids[response.n_pushed_uids++] = uids[i];
    }
    switch (outcome->fates[i]) {
      case PUSH_HANDED_ON: response.handed_on_uids[response.n_handed_on_uids++] = uids[i]; break;
      case PUSH_NOT_FOUND: response.not_found_uids[response.n_not_found_uids++] = uids[i]; break;
      case PUSH_REFUSED: response.refused_uids[response.n_refused_uids++] = uids[i]; break;
      default: break;
    }
  }
  reply(call, &response.base);
  free(room);
}

static void answer_broadcast(struct rpc_server_call *call, const struct push_outcome *outcome,
                             const int64_t *uids, size_t uid_count) {
  BroadcastResponse response = BROADCASTER__SERVICE__PUSH__V1__BROADCAST_RESPONSE__INIT;
  (void)uids;
  (void)uid_count;
  if (!failed(call, outcome, push_was_refused(outcome))) {
    response.reached = (int64_t)outcome->count[PUSH_HERE];
    response.refused = (int64_t)outcome->count[PUSH_REFUSED];
    response.published = outcome->published;
    reply(call, &response.base);
  }
}

// --- Pushes --------------------------------------------------------------------------

static void on_done(const struct push_outcome *outcome, void *context) {
  struct order *order = context;
  counters_add(order->counters, COUNTER_PUSH_ORDERS_MALFORMED, outcome->error == ERROR_INVALID);
  if (order->call) {
    order->answer(order->call, outcome, order->uids, order->uid_count);
  }
  free(order);
}

void push_grpc_on_gone(struct rpc_server_call *call, void *owner) {
  struct order *order = rpc_server_context(call);
  (void)owner;
  if (order) {
    order->call = NULL;
  }
}

static void place_order(struct push_grpc *pushes, struct rpc_server_call *call,
                        struct push_order *wanted,
                        void (*answer)(struct rpc_server_call *call,
                                       const struct push_outcome *outcome, const int64_t *uids,
                                       size_t uid_count)) {
  struct order *order = malloc(sizeof *order + wanted->uid_count * sizeof *wanted->uids);
  if (!order) {
    rpc_server_fail(call, STREAM_RESOURCE_EXHAUSTED, "out of memory");
    return;
  }
  *order = (struct order){
      .counters = pushes->counters, .call = call, .answer = answer, .uid_count = wanted->uid_count};
  if (wanted->uid_count > 0) {
    memcpy(order->uids, wanted->uids, wanted->uid_count * sizeof *wanted->uids);
  }
  rpc_server_set_context(call, order);
  wanted->parent = trace_context_of_header(rpc_server_metadata(call, "traceparent"));
  push_hub_send(pushes->hub, wanted, on_done, order);
}

static void malformed(struct push_grpc *pushes, struct rpc_server_call *call, const char *why) {
  counters_add(pushes->counters, COUNTER_PUSH_ORDERS_MALFORMED, 1);
  rpc_server_fail(call, STREAM_INVALID_ARGUMENT, why);
}

static bool parse_uid(const char *text, int64_t *uid) {
  char *end = NULL;
  errno = 0;
  *uid = text ? strtoll(text, &end, 10) : 0;
  return end && end != text && *end == '\0' && errno == 0;
}

// To a player of this gateway, who is named by metadata.
void push_grpc_on_gate_push(struct rpc_server_call *call, const uint8_t *request, size_t len,
                            void *owner) {
  struct push_grpc *pushes = owner;
  Gate__Service__Push__V1__PushRequest *message =
      gate__service__push__v1__push_request__unpack(NULL, len, request);
  const char *color = rpc_server_metadata(call, "x-md-global-color");
  int64_t uid;
  if (!message || !message->body) {
    malformed(pushes, call, message ? "body is missing" : "it is no PushRequest");
  } else if (!parse_uid(rpc_server_metadata(call, "x-md-global-uid"), &uid)) {
    malformed(pushes, call, "the metadata x-md-global-uid is missing, or no number");
  } else {
    struct push_body *body = push_message_bodies(&message->body, 1);
    struct push_order order = {.bodies = body,
                               .body_count = body ? 1 : 0,
                               .uids = &uid,
                               .uid_count = 1,
                               .color = color ? color : "",
                               .here_only = true};
    place_order(pushes, call, &order, answer_push);
    free(body);
  }
  if (message) {
    gate__service__push__v1__push_request__free_unpacked(message, NULL);
  }
}

void push_grpc_on_push(struct rpc_server_call *call, const uint8_t *request, size_t len,
                       void *owner) {
  struct push_grpc *pushes = owner;
  PushRequest *message = broadcaster__service__push__v1__push_request__unpack(NULL, len, request);
  if (!message) {
    malformed(pushes, call, "it is no PushRequest");
    return;
  }
  struct push_body *bodies = push_message_bodies(message->bodies, message->n_bodies);
  struct push_order order = {.bodies = bodies,
                             .body_count = bodies ? message->n_bodies : 0,
                             .uids = &message->uid,
                             .uid_count = 1,
                             .color = message->color};
  place_order(pushes, call, &order, answer_push);
  free(bodies);
  broadcaster__service__push__v1__push_request__free_unpacked(message, NULL);
}

void push_grpc_on_multicast(struct rpc_server_call *call, const uint8_t *request, size_t len,
                            void *owner) {
  struct push_grpc *pushes = owner;
  MulticastRequest *message =
      broadcaster__service__push__v1__multicast_request__unpack(NULL, len, request);
  if (!message) {
    malformed(pushes, call, "it is no MulticastRequest");
    return;
  }
  struct push_body *bodies = push_message_bodies(message->bodies, message->n_bodies);
  struct push_order order = {.bodies = bodies,
                             .body_count = bodies ? message->n_bodies : 0,
                             .uids = message->uids,
                             .uid_count = message->n_uids,
                             .color = message->color};
  place_order(pushes, call, &order, answer_multicast);
  free(bodies);
  broadcaster__service__push__v1__multicast_request__free_unpacked(message, NULL);
}

void push_grpc_on_broadcast(struct rpc_server_call *call, const uint8_t *request, size_t len,
                            void *owner) {
  struct push_grpc *pushes = owner;
  BroadcastRequest *message =
      broadcaster__service__push__v1__broadcast_request__unpack(NULL, len, request);
  if (!message) {
    malformed(pushes, call, "it is no BroadcastRequest");
    return;
  }
  struct push_body *bodies = push_message_bodies(message->bodies, message->n_bodies);
  struct push_order order = {.bodies = bodies,
                             .body_count = bodies ? message->n_bodies : 0,
                             .broadcast = true,
                             .color = message->color,
                             .sid = message->sid};
  place_order(pushes, call, &order, answer_broadcast);
  free(bodies);
  broadcaster__service__push__v1__broadcast_request__free_unpacked(message, NULL);
}
