// The gateway's gRPC port: the push services (proto/push.proto, proto/gate_push.proto) and
// the standard health service (proto/health.proto).
//
// Health may be asked by anybody; pushes by whom push_access.h lets. Loop thread only.
#ifndef JANUS_MASTER_PUSH_GRPC_H
#define JANUS_MASTER_PUSH_GRPC_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "master/push_access.h"
#include "master/push_hub.h"
#include "master/rpc_server.h"

struct push_grpc;

struct push_grpc_options {
  struct event_base *base;
  const struct config *config;
  const struct push_access *access;
  struct counters *counters;
};

// Listens at once; calls are refused as unavailable until push_grpc_serve. All in options is
// borrowed. NULL with the reason in why.
struct push_grpc *push_grpc_new(const struct push_grpc_options *options, char *why,
                                size_t why_size);
// Before the hub; orders that are still with it are answered into nothing.
void push_grpc_free(struct push_grpc *grpc);

int push_grpc_port(const struct push_grpc *grpc);

// From here on pushes go to hub.
void push_grpc_serve(struct push_grpc *grpc, struct push_hub *hub);

// What the health service says, and tells those who watch. At first it is not serving.
void push_grpc_set_healthy(struct push_grpc *grpc, bool healthy);

#endif
