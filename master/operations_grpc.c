#include "master/operations_grpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/health_grpc.h"
#include "master/push_grpc.h"

enum { CALLS_MAX = 1024, KEEPALIVE_MS = 60000 };

struct operations_grpc {
  struct push_grpc pushes;
  struct health_grpc health;
  struct rpc_server *server;
};

// --- The services and their methods --------------------------------------------------

struct service {
  enum stream_status (*on_head)(struct rpc_server_call *call, const char **detail, void *owner);
  void (*on_gone)(struct rpc_server_call *call, void *owner);
  size_t owner;  // where in struct operations_grpc
};

static const struct service push_service = {push_grpc_on_head, push_grpc_on_gone,
                                            offsetof(struct operations_grpc, pushes)};
static const struct service health_service = {health_grpc_on_head, health_grpc_on_gone,
                                              offsetof(struct operations_grpc, health)};

static const struct method {
  const char *path;
  const struct service *service;
  void (*on_request)(struct rpc_server_call *call, const uint8_t *request, size_t len, void *owner);
} methods[] = {
    {"/gate.service.push.v1.PushService/Push", &push_service, push_grpc_on_gate_push},
    {"/broadcaster.service.push.v1.PushService/Push", &push_service, push_grpc_on_push},
    {"/broadcaster.service.push.v1.PushService/Multicast", &push_service, push_grpc_on_multicast},
    {"/broadcaster.service.push.v1.PushService/Broadcast", &push_service, push_grpc_on_broadcast},
    {"/grpc.health.v1.Health/Check", &health_service, health_grpc_on_check},
    {"/grpc.health.v1.Health/Watch", &health_service, health_grpc_on_watch},
};

static const struct method *find_method(const struct rpc_server_call *call) {
  for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
    if (strcmp(methods[i].path, rpc_server_method(call)) == 0) {
      return &methods[i];
    }
  }
  return NULL;
}

static void *owner_of(const struct method *method, void *operations) {
  return (char *)operations + method->service->owner;
}

static enum stream_status on_head(struct rpc_server_call *call, const char **detail, void *owner) {
  const struct method *method = find_method(call);
  if (!method) {
    *detail = "there is no such method";
    return STREAM_UNIMPLEMENTED;
  }
  return method->service->on_head(call, detail, owner_of(method, owner));
}

static void on_request(struct rpc_server_call *call, const uint8_t *request, size_t len,
                       void *owner) {
  const struct method *method = find_method(call);
  method->on_request(call, request, len, owner_of(method, owner));
}

static void on_gone(struct rpc_server_call *call, void *owner) {
  const struct method *method = find_method(call);
  method->service->on_gone(call, owner_of(method, owner));
}

// --- Beginning and end -----------------------------------------------------------------

struct operations_grpc *operations_grpc_new(struct event_base *base,
                                            const struct operations_grpc_options *options,
                                            char *why, size_t why_size) {
  static const struct rpc_server_events events = {on_head, on_request, on_gone};
  const struct rpc_server_options server_options = {
      .address = options->config->server.grpc.addr,
      .message_bytes = PUSH_ORDER_MAX_BYTES,
      .calls_max = CALLS_MAX,
      .request_timeout_ms = options->config->server.grpc.timeout_ms,
      .keepalive_ms = KEEPALIVE_MS,
  };
  struct operations_grpc *operations = calloc(1, sizeof *operations);
  if (!operations) {
    snprintf(why, why_size, "out of memory");
    return NULL;
  }
  operations->pushes = (struct push_grpc){.access = options->access, .counters = options->counters};
  operations->server = rpc_server_new(base, &server_options, &events, operations, why, why_size);
  if (!operations->server) {
    free(operations);
    return NULL;
  }
  return operations;
}

void operations_grpc_free(struct operations_grpc *operations) {
  if (operations) {
    rpc_server_free(operations->server);
    free(operations);
  }
}

void operations_grpc_serve(struct operations_grpc *operations, struct push_hub *hub) {
  operations->pushes.hub = hub;
}

void operations_grpc_set_healthy(struct operations_grpc *operations, bool healthy) {
  health_grpc_set(&operations->health, healthy);
}

void operations_grpc_counts(const struct operations_grpc *operations,
                            struct rpc_server_counts *counts) {
  rpc_server_counts(operations->server, counts);
}

int operations_grpc_port(const struct operations_grpc *operations) {
  return rpc_server_port(operations->server);
}
