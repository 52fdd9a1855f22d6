#include "master/push_grpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "master/push_message.h"
#include "proto/gate_push.pb-c.h"
#include "proto/health.pb-c.h"
#include "proto/push.pb-c.h"

enum { CALLS_MAX = 1024, KEEPALIVE_MS = 60000 };

typedef Broadcaster__Service__Push__V1__PushRequest PushRequest;
typedef Broadcaster__Service__Push__V1__PushResponse PushResponse;
typedef Broadcaster__Service__Push__V1__MulticastRequest MulticastRequest;
typedef Broadcaster__Service__Push__V1__MulticastResponse MulticastResponse;
typedef Broadcaster__Service__Push__V1__BroadcastRequest BroadcastRequest;
typedef Broadcaster__Service__Push__V1__BroadcastResponse BroadcastResponse;

struct method {
  const char *path;
  bool is_push;
  void (*on_request)(struct push_grpc *grpc, struct rpc_server_call *call, const uint8_t *request,
                     size_t len);
};

// One that watches the health of a service.
struct watcher {
  LIST_ENTRY(watcher) link;
  struct rpc_server_call *call;
  bool known;  // whether there is such a service
};

// An order that the hub has.
struct push_call {
  struct counters *counters;
  struct rpc_server_call *call;  // NULL: it is gone
  void (*answer)(struct rpc_server_call *call, const struct push_outcome *outcome,
                 const int64_t *uids, size_t uid_count);
  size_t uid_count;
  int64_t uids[];
};

LIST_HEAD(watchers, watcher);

struct push_grpc {
  struct push_grpc_options options;
  struct push_hub *hub;  // NULL until it is served
  struct rpc_server *server;
  struct watchers watchers;
  bool healthy;
};

// What a call of ours has with it: one of two.
struct call_context {
  struct watcher *watcher;
  struct push_call *push;
};

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
  if (!failed(call, outcome, outcome->count[PUSH_REFUSED] > 0)) {
    response.pushed = was_pushed(outcome->fates[0]);
    reply(call, &response.base);
  }
}

static void answer_multicast(struct rpc_server_call *call, const struct push_outcome *outcome,
                             const int64_t *uids, size_t uid_count) {
  MulticastResponse response = BROADCASTER__SERVICE__PUSH__V1__MULTICAST_RESPONSE__INIT;
  if (failed(call, outcome, false)) {
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
  bool refused =
      outcome->count[PUSH_REFUSED] > 0 && outcome->count[PUSH_HERE] == 0 && !outcome->published;
  if (!failed(call, outcome, refused)) {
    response.reached = (int64_t)outcome->count[PUSH_HERE];
    response.refused = (int64_t)outcome->count[PUSH_REFUSED];
    response.published = outcome->published;
    reply(call, &response.base);
  }
}

// --- Pushes --------------------------------------------------------------------------

static void on_done(const struct push_outcome *outcome, void *context) {
  struct push_call *push = context;
  counters_add(push->counters, COUNTER_PUSH_ORDERS_MALFORMED, outcome->error == ERROR_INVALID);
  if (push->call) {
    free(rpc_server_context(push->call));
    push->answer(push->call, outcome, push->uids, push->uid_count);
  }
  free(push);
}

static void place_order(struct push_grpc *grpc, struct rpc_server_call *call,
                        const struct push_order *order,
                        void (*answer)(struct rpc_server_call *call,
                                       const struct push_outcome *outcome, const int64_t *uids,
                                       size_t uid_count)) {
  struct push_call *push = malloc(sizeof *push + order->uid_count * sizeof *order->uids);
  struct call_context *context = calloc(1, sizeof *context);
  if (!push || !context) {
    free(push);
    free(context);
    rpc_server_fail(call, STREAM_RESOURCE_EXHAUSTED, "out of memory");
    return;
  }
  *push = (struct push_call){.counters = grpc->options.counters,
                             .call = call,
                             .answer = answer,
                             .uid_count = order->uid_count};
  if (order->uid_count > 0) {
    memcpy(push->uids, order->uids, order->uid_count * sizeof *order->uids);
  }
  context->push = push;
  rpc_server_set_context(call, context);
  push_hub_send(grpc->hub, order, on_done, push);
}

static void malformed(struct push_grpc *grpc, struct rpc_server_call *call, const char *why) {
  counters_add(grpc->options.counters, COUNTER_PUSH_ORDERS_MALFORMED, 1);
  rpc_server_fail(call, STREAM_INVALID_ARGUMENT, why);
}

static bool parse_uid(const char *text, int64_t *uid) {
  char *end = NULL;
  errno = 0;
  *uid = text ? strtoll(text, &end, 10) : 0;
  return end && end != text && *end == '\0' && errno == 0;
}

// To a player of this gateway, who is named by metadata.
static void on_gate_push(struct push_grpc *grpc, struct rpc_server_call *call,
                         const uint8_t *request, size_t len) {
  Gate__Service__Push__V1__PushRequest *message =
      gate__service__push__v1__push_request__unpack(NULL, len, request);
  const char *color = rpc_server_metadata(call, "x-md-global-color");
  int64_t uid;
  if (!message || !message->body) {
    malformed(grpc, call, message ? "body is missing" : "it is no PushRequest");
  } else if (!parse_uid(rpc_server_metadata(call, "x-md-global-uid"), &uid)) {
    malformed(grpc, call, "the metadata x-md-global-uid is missing, or no number");
  } else {
    struct push_body *body = push_message_bodies(&message->body, 1);
    const struct push_order order = {.bodies = body,
                                     .body_count = body ? 1 : 0,
                                     .uids = &uid,
                                     .uid_count = 1,
                                     .color = color ? color : "",
                                     .here_only = true};
    place_order(grpc, call, &order, answer_push);
    free(body);
  }
  if (message) {
    gate__service__push__v1__push_request__free_unpacked(message, NULL);
  }
}

static void on_push(struct push_grpc *grpc, struct rpc_server_call *call, const uint8_t *request,
                    size_t len) {
  PushRequest *message = broadcaster__service__push__v1__push_request__unpack(NULL, len, request);
  if (!message) {
    malformed(grpc, call, "it is no PushRequest");
    return;
  }
  struct push_body *bodies = push_message_bodies(message->bodies, message->n_bodies);
  const struct push_order order = {.bodies = bodies,
                                   .body_count = bodies ? message->n_bodies : 0,
                                   .uids = &message->uid,
                                   .uid_count = 1,
                                   .color = message->color};
  place_order(grpc, call, &order, answer_push);
  free(bodies);
  broadcaster__service__push__v1__push_request__free_unpacked(message, NULL);
}

static void on_multicast(struct push_grpc *grpc, struct rpc_server_call *call,
                         const uint8_t *request, size_t len) {
  MulticastRequest *message =
      broadcaster__service__push__v1__multicast_request__unpack(NULL, len, request);
  if (!message) {
    malformed(grpc, call, "it is no MulticastRequest");
    return;
  }
  struct push_body *bodies = push_message_bodies(message->bodies, message->n_bodies);
  const struct push_order order = {.bodies = bodies,
                                   .body_count = bodies ? message->n_bodies : 0,
                                   .uids = message->uids,
                                   .uid_count = message->n_uids,
                                   .color = message->color};
  place_order(grpc, call, &order, answer_multicast);
  free(bodies);
  broadcaster__service__push__v1__multicast_request__free_unpacked(message, NULL);
}

static void on_broadcast(struct push_grpc *grpc, struct rpc_server_call *call,
                         const uint8_t *request, size_t len) {
  BroadcastRequest *message =
      broadcaster__service__push__v1__broadcast_request__unpack(NULL, len, request);
  if (!message) {
    malformed(grpc, call, "it is no BroadcastRequest");
    return;
  }
  struct push_body *bodies = push_message_bodies(message->bodies, message->n_bodies);
  const struct push_order order = {.bodies = bodies,
                                   .body_count = bodies ? message->n_bodies : 0,
                                   .broadcast = true,
                                   .color = message->color,
                                   .sid = message->sid};
  place_order(grpc, call, &order, answer_broadcast);
  free(bodies);
  broadcaster__service__push__v1__broadcast_request__free_unpacked(message, NULL);
}

// --- Health --------------------------------------------------------------------------

static Grpc__Health__V1__HealthCheckResponse health_of(const struct push_grpc *grpc, bool known) {
  Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
  response.status =
      !known          ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN
      : grpc->healthy ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
                      : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
  return response;
}

// The gateway as a whole, or one of its services by name: all are as healthy.
static bool service_is_known(const char *name) {
  static const char *const names[] = {"", "gate.service.push.v1.PushService",
                                      "broadcaster.service.push.v1.PushService",
                                      "grpc.health.v1.Health"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    if (strcmp(name, names[i]) == 0) {
      return true;
    }
  }
  return false;
}

static void tell(const struct push_grpc *grpc, struct watcher *watcher) {
  Grpc__Health__V1__HealthCheckResponse response = health_of(grpc, watcher->known);
  uint8_t bytes[16];
  size_t len = grpc__health__v1__health_check_response__pack(&response, bytes);
  rpc_server_send(watcher->call, bytes, len);
}

static void on_health(struct push_grpc *grpc, struct rpc_server_call *call, const uint8_t *request,
                      size_t len, bool watch) {
  Grpc__Health__V1__HealthCheckRequest *message =
      grpc__health__v1__health_check_request__unpack(NULL, len, request);
  struct watcher *watcher = watch ? calloc(1, sizeof *watcher) : NULL;
  struct call_context *context = watch ? calloc(1, sizeof *context) : NULL;
  bool known = message && service_is_known(message->service);
  if (!message) {
    rpc_server_fail(call, STREAM_INVALID_ARGUMENT, "it is no HealthCheckRequest");
  } else if (watch && watcher && context) {
    watcher->call = call;
    watcher->known = known;
    context->watcher = watcher;
    rpc_server_set_context(call, context);
    LIST_INSERT_HEAD(&grpc->watchers, watcher, link);
    tell(grpc, watcher);
    watcher = NULL;
    context = NULL;
  } else if (watch) {
    rpc_server_fail(call, STREAM_RESOURCE_EXHAUSTED, "out of memory");
  } else if (!known) {
    rpc_server_fail(call, STREAM_NOT_FOUND, "there is no such service");
  } else {
    Grpc__Health__V1__HealthCheckResponse response = health_of(grpc, true);
    reply(call, &response.base);
  }
  free(watcher);
  free(context);
  if (message) {
    grpc__health__v1__health_check_request__free_unpacked(message, NULL);
  }
}

static void on_check(struct push_grpc *grpc, struct rpc_server_call *call, const uint8_t *request,
                     size_t len) {
  on_health(grpc, call, request, len, false);
}

static void on_watch(struct push_grpc *grpc, struct rpc_server_call *call, const uint8_t *request,
                     size_t len) {
  on_health(grpc, call, request, len, true);
}

void push_grpc_set_healthy(struct push_grpc *grpc, bool healthy) {
  struct watcher *watcher;
  if (grpc->healthy != healthy) {
    grpc->healthy = healthy;
    LIST_FOREACH(watcher, &grpc->watchers, link) { tell(grpc, watcher); }
  }
}

// --- Calls ---------------------------------------------------------------------------

static const struct method methods[] = {
    {"/gate.service.push.v1.PushService/Push", true, on_gate_push},
    {"/broadcaster.service.push.v1.PushService/Push", true, on_push},
    {"/broadcaster.service.push.v1.PushService/Multicast", true, on_multicast},
    {"/broadcaster.service.push.v1.PushService/Broadcast", true, on_broadcast},
    {"/grpc.health.v1.Health/Check", false, on_check},
    {"/grpc.health.v1.Health/Watch", false, on_watch},
};

static const struct method *find_method(const struct rpc_server_call *call) {
  for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
    if (strcmp(methods[i].path, rpc_server_method(call)) == 0) {
      return &methods[i];
    }
  }
  return NULL;
}

static enum stream_status on_head(struct rpc_server_call *call, const char **detail, void *owner) {
  struct push_grpc *grpc = owner;
  const struct method *method = find_method(call);
  if (!method) {
    *detail = "there is no such method";
    return STREAM_UNIMPLEMENTED;
  }
  if (!method->is_push) {
    return STREAM_OK;
  }
  switch (push_access_check(grpc->options.access, rpc_server_peer(call),
                            rpc_server_metadata(call, "authorization"))) {
    case PUSH_ACCESS_ADDRESS:
      *detail = "pushes are not taken from this address (push.allow)";
      return STREAM_PERMISSION_DENIED;
    case PUSH_ACCESS_TOKEN:
      *detail = "the metadata authorization must be Bearer and the push_token";
      return STREAM_UNAUTHENTICATED;
    case PUSH_ACCESS_GRANTED: break;
  }
  if (!grpc->hub) {
    *detail = "the gateway is starting";
    return STREAM_UNAVAILABLE;
  }
  return STREAM_OK;
}

static void on_request(struct rpc_server_call *call, const uint8_t *request, size_t len,
                       void *owner) {
  find_method(call)->on_request(owner, call, request, len);
}

static void on_gone(struct rpc_server_call *call, void *owner) {
  struct call_context *context = rpc_server_context(call);
  (void)owner;
  if (context && context->watcher) {
    LIST_REMOVE(context->watcher, link);
    free(context->watcher);
  } else if (context && context->push) {
    context->push->call = NULL;
  }
  free(context);
}

// --- Beginning and end -----------------------------------------------------------------

struct push_grpc *push_grpc_new(const struct push_grpc_options *options, char *why,
                                size_t why_size) {
  static const struct rpc_server_events events = {on_head, on_request, on_gone};
  const struct rpc_server_options server_options = {
      .address = options->config->server.grpc.addr,
      .message_bytes = PUSH_ORDER_MAX_BYTES,
      .calls_max = CALLS_MAX,
      .request_timeout_ms = options->config->server.grpc.timeout_ms,
      .keepalive_ms = KEEPALIVE_MS,
  };
  struct push_grpc *grpc = calloc(1, sizeof *grpc);
  if (!grpc) {
    snprintf(why, why_size, "out of memory");
    return NULL;
  }
  grpc->options = *options;
  LIST_INIT(&grpc->watchers);
  grpc->server = rpc_server_new(options->base, &server_options, &events, grpc, why, why_size);
  if (!grpc->server) {
    free(grpc);
    return NULL;
  }
  return grpc;
}

void push_grpc_free(struct push_grpc *grpc) {
  if (grpc) {
    rpc_server_free(grpc->server);
    free(grpc);
  }
}

int push_grpc_port(const struct push_grpc *grpc) { return rpc_server_port(grpc->server); }

void push_grpc_serve(struct push_grpc *grpc, struct push_hub *hub) { grpc->hub = hub; }
