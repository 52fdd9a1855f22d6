#include "master/health_grpc.h"

#include <stdlib.h>
#include <string.h>

#include "proto/health.pb-c.h"

enum {
  ANSWER_MAX_BYTES = 16,
  // Anybody may ask: pushes are to have the rest of the port's calls.
  CALLS_MAX = 128,
  WATCHERS_MAX = 64,  // of those
};

// One that watches the health of a service.
struct health_watcher {
  LIST_ENTRY(health_watcher) link;
  struct rpc_server_call *call;
  bool known;  // whether there is such a service
};

static size_t answer(const struct health_grpc *health, bool known, uint8_t *bytes) {
  Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
  response.status =
      !known            ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN
      : health->serving ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
                        : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
  return grpc__health__v1__health_check_response__pack(&response, bytes);
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

enum stream_status health_grpc_on_head(struct rpc_server_call *call, const char **detail,
                                       void *owner) {
  struct health_grpc *health = owner;
  (void)call;
  if (health->calls == CALLS_MAX) {
    *detail = "too many ask already";
    return STREAM_RESOURCE_EXHAUSTED;
  }
  health->calls++;
  return STREAM_OK;
}

static void fail(struct health_grpc *health, struct rpc_server_call *call,
                 enum stream_status status, const char *detail) {
  health->calls--;
  rpc_server_fail(call, status, detail);
}

// False: the request is none, and its call has been failed.
static bool parse(struct health_grpc *health, struct rpc_server_call *call, const uint8_t *request,
                  size_t len, bool *known) {
  Grpc__Health__V1__HealthCheckRequest *message =
      grpc__health__v1__health_check_request__unpack(NULL, len, request);
  if (!message) {
    fail(health, call, STREAM_INVALID_ARGUMENT, "it is no HealthCheckRequest");
    return false;
  }
  *known = service_is_known(message->service);
  grpc__health__v1__health_check_request__free_unpacked(message, NULL);
  return true;
}

void health_grpc_on_check(struct rpc_server_call *call, const uint8_t *request, size_t len,
                          void *owner) {
  struct health_grpc *health = owner;
  uint8_t bytes[ANSWER_MAX_BYTES];
  bool known;
  if (!parse(health, call, request, len, &known)) {
    return;
  }
  if (known) {
    health->calls--;
    rpc_server_reply(call, bytes, answer(health, true, bytes));
  } else {
    fail(health, call, STREAM_NOT_FOUND, "there is no such service");
  }
}

static void tell(const struct health_grpc *health, const struct health_watcher *watcher) {
  uint8_t bytes[ANSWER_MAX_BYTES];
  rpc_server_send(watcher->call, bytes, answer(health, watcher->known, bytes));
}

void health_grpc_on_watch(struct rpc_server_call *call, const uint8_t *request, size_t len,
                          void *owner) {
  struct health_grpc *health = owner;
  bool known;
  if (!parse(health, call, request, len, &known)) {
    return;
  }
  struct health_watcher *watcher =
      health->watcher_count < WATCHERS_MAX ? calloc(1, sizeof *watcher) : NULL;
  if (!watcher) {
    fail(health, call, STREAM_RESOURCE_EXHAUSTED, "too many watch already");
    return;
  }
  watcher->call = call;
  watcher->known = known;
  rpc_server_set_context(call, watcher);
  LIST_INSERT_HEAD(&health->watchers, watcher, link);
  health->watcher_count++;
  tell(health, watcher);
}

void health_grpc_on_gone(struct rpc_server_call *call, void *owner) {
  struct health_grpc *health = owner;
  struct health_watcher *watcher = rpc_server_context(call);
  health->calls--;
  if (watcher) {
    LIST_REMOVE(watcher, link);
    health->watcher_count--;
    free(watcher);
  }
}

void health_grpc_set(struct health_grpc *health, bool serving) {
  const struct health_watcher *watcher;
  if (health->serving != serving) {
    health->serving = serving;
    LIST_FOREACH(watcher, &health->watchers, link) { tell(health, watcher); }
  }
}
