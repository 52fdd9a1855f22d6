// Pushes over gRPC: the methods of the push services (proto/push.proto and
// proto/gate_push.proto) on the gateway's gRPC port (master/operations_grpc.h).
//
// INVALID_ARGUMENT: malformed, or larger than a client takes; RESOURCE_EXHAUSTED: to be tried
// again; UNAUTHENTICATED: no token, or a wrong one; PERMISSION_DENIED: not from this address.
// Loop thread only.
#ifndef JANUS_MASTER_PUSH_GRPC_H
#define JANUS_MASTER_PUSH_GRPC_H

#include "master/push_access.h"
#include "master/push_hub.h"
#include "master/rpc_server.h"

// The owner of the methods; all of it borrowed.
struct push_grpc {
  const struct push_access *access;
  struct push_hub *hub;  // NULL: the gateway is starting, and pushes are refused
  struct counters *counters;
};

// With a struct push_grpc as owner, as in rpc_server_events. An order that is still with the
// hub when its call is gone is answered into nothing.
enum stream_status push_grpc_on_head(struct rpc_server_call *call, const char **detail,
                                     void *owner);
void push_grpc_on_gone(struct rpc_server_call *call, void *owner);
void push_grpc_on_gate_push(struct rpc_server_call *call, const uint8_t *request, size_t len,
                            void *owner);
void push_grpc_on_push(struct rpc_server_call *call, const uint8_t *request, size_t len,
                       void *owner);
void push_grpc_on_multicast(struct rpc_server_call *call, const uint8_t *request, size_t len,
                            void *owner);
void push_grpc_on_broadcast(struct rpc_server_call *call, const uint8_t *request, size_t len,
                            void *owner);

#endif
