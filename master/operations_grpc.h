// The gateway's gRPC port, server.grpc: pushes (master/push_grpc.h) and health
// (master/health_grpc.h). Loop thread only.
#ifndef JANUS_MASTER_OPERATIONS_GRPC_H
#define JANUS_MASTER_OPERATIONS_GRPC_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "common/counters.h"
#include "master/push_access.h"
#include "master/push_hub.h"
#include "master/rpc_server.h"

struct operations_grpc;

// All borrowed, for as long as the port is open.
struct operations_grpc_options {
  const struct config *config;
  const struct push_access *access;
  struct counters *counters;
};

// Listens at once; pushes are refused as unavailable until operations_grpc_serve. NULL with
// the reason in why.
struct operations_grpc *operations_grpc_new(struct event_base *base,
                                            const struct operations_grpc_options *options,
                                            char *why, size_t why_size);
// Before the hub; orders that are still with it are answered into nothing. Accepts NULL.
void operations_grpc_free(struct operations_grpc *operations);

// From here on pushes go to hub.
void operations_grpc_serve(struct operations_grpc *operations, struct push_hub *hub);
// What the health service says. At first it is not serving.
void operations_grpc_set_healthy(struct operations_grpc *operations, bool healthy);

int operations_grpc_port(const struct operations_grpc *operations);
void operations_grpc_counts(const struct operations_grpc *operations,
                            struct rpc_server_counts *counts);

#endif
