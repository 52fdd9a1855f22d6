// From gRPC's completion queue to a libevent loop.
//
// The bridge owns one completion queue and one thread that waits on it and does
// nothing but hand finished operations over; their callbacks run on the loop's
// thread, in the order in which they finished. The loop is woken through an
// eventfd only when the hand-over list goes from empty to not empty.
//
// Used by the master (etcd, push) and by the worker (tunnels) alike. gRPC starts
// threads: a process must not fork without exec once a bridge exists.
#ifndef JANUS_COMMON_GRPC_BRIDGE_H
#define JANUS_COMMON_GRPC_BRIDGE_H

#include <event2/event.h>
#include <grpc/grpc.h>
#include <stdbool.h>

#include "common/error.h"

struct grpc_bridge;

// One operation (batch) under way: its address is the gRPC tag. Embedded in the
// caller's own struct, which must live until on_done has run; on_done may free it.
struct grpc_operation {
  void (*on_done)(struct grpc_operation *operation, bool ok);
  struct grpc_operation *next;  // the bridge's own, while handed over
  bool ok;
};

// Initialises gRPC, whose own log lines become some of ours, and starts the thread. NULL with the
// reason in *error.
struct grpc_bridge *grpc_bridge_new(struct event_base *base, int *error);

// Shuts the queue down, waits for its thread, and runs the callbacks of all that
// was still under way (with ok as gRPC says). All calls must have been cancelled
// before, or this waits for them. Accepts NULL.
void grpc_bridge_free(struct grpc_bridge *bridge);

// From now on the thread takes nothing more from gRPC, which then reads nothing more from
// the network, until the loop has run what it was handed last. For a server, right after
// grpc_bridge_new: else gRPC takes calls in faster than the loop refuses them (250,000 on
// 1,000 connections at once made it 1.9 GB, against 45 MB in step, and no answer came sooner).
void grpc_bridge_keep_step(struct grpc_bridge *bridge);

// For making calls with.
// In a callback of an operation: when its batch was finished, monotonic.
int64_t grpc_bridge_arrived_us(const struct grpc_bridge *bridge);

grpc_completion_queue *grpc_bridge_queue(struct grpc_bridge *bridge);

// Starts a batch on a call that was made with the bridge's queue. On the loop's
// thread; on_done comes later, also when the batch fails.
grpc_call_error grpc_bridge_start(grpc_call *call, const grpc_op *ops, size_t count,
                                  struct grpc_operation *operation) MUST_CHECK;

// For what has a function of its own in gRPC (a server's next call, its shutdown): to be
// called right before that one is given the operation as its tag.
void grpc_bridge_expect(struct grpc_operation *operation);

#endif
