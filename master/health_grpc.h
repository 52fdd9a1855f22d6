// The standard health service (proto/health.proto) on the gateway's gRPC port: the gateway
// is serving while it is ready (master/readiness.h). Anybody may ask.
// Loop thread only.
#ifndef JANUS_MASTER_HEALTH_GRPC_H
#define JANUS_MASTER_HEALTH_GRPC_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "master/rpc_server.h"

LIST_HEAD(health_watchers, health_watcher);

// The owner of the methods. All zero: not serving, and nobody watches.
struct health_grpc {
  struct health_watchers watchers;
  size_t watcher_count;
  size_t calls;  // that it has, those of watchers too
  bool serving;
};

// Tells those who watch.
void health_grpc_set(struct health_grpc *health, bool serving);

// With a struct health_grpc as owner, as in rpc_server_events.
enum stream_status health_grpc_on_head(struct rpc_server_call *call, const char **detail,
                                       void *owner);
void health_grpc_on_gone(struct rpc_server_call *call, void *owner);
void health_grpc_on_check(struct rpc_server_call *call, const uint8_t *request, size_t len,
                          void *owner);
void health_grpc_on_watch(struct rpc_server_call *call, const uint8_t *request, size_t len,
                          void *owner);

#endif
