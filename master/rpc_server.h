// A gRPC server on the master's loop. It takes calls in, gives each to its owner by the
// path of its method, and carries the owner's answer out. It knows no services and no
// protobuf. A request is one message; an answer is one message, a failure, or a stream of
// messages that goes on (server streaming). Requests that are compressed are refused.
//
// On the loop's thread alone. Callbacks come from the loop, never from inside a function of
// this header, but for on_gone from rpc_server_free. None of them may free the server.
//
// The names begin with rpc_server_: grpc_server and grpc_server_... are the library's.
#ifndef JANUS_MASTER_RPC_SERVER_H
#define JANUS_MASTER_RPC_SERVER_H

#include <event2/event.h>
#include <stddef.h>
#include <stdint.h>

#include "common/stream.h"

struct rpc_server;
struct rpc_server_call;

// The numbers are all to be more than 0.
struct rpc_server_options {
  // host:port or [IPv6]:port; port 0: any free one. 0.0.0.0 is to gRPC every address, those
  // of IPv6 too.
  const char *address;
  size_t message_bytes;  // a larger request is refused: RESOURCE_EXHAUSTED
  // Calls that the owner has at once, streams that it keeps open included; a further one is
  // refused: RESOURCE_EXHAUSTED.
  size_t calls_max;
  // For the request to come in whole, then for the owner to answer (either too late:
  // DEADLINE_EXCEEDED), then for the answer to go out (else the call is cut). Not for a
  // stream that the owner keeps open. Also for a new connection to speak HTTP/2.
  int64_t request_timeout_ms;
  // A connection that has been silent for so long is pinged, and ended when it stays silent
  // for as long again.
  int64_t keepalive_ms;
};

struct rpc_server_events {
  // The head of a call is here: its method, metadata and peer. STREAM_OK has the request
  // read. Anything else fails the call with that status and *detail (copied; NULL: none)
  // before any of it is read, and it is not heard of again. Not the place to answer.
  enum stream_status (*on_head)(struct rpc_server_call *call, const char **detail, void *owner);
  // The request is here, borrowed for the call. It is answered from inside or later, by one
  // of rpc_server_reply and rpc_server_fail, or kept open by rpc_server_send.
  void (*on_request)(struct rpc_server_call *call, const uint8_t *request, size_t len, void *owner);
  // A call that on_head let in is over without the owner's reply or failure: its client left
  // or broke a rule, a time ran out, or the server is being freed. To be forgotten.
  void (*on_gone)(struct rpc_server_call *call, void *owner);
};

// Listens and serves from now on; one socket, and without SO_REUSEPORT, so that nobody else
// can listen there. options are copied but for the address, which is borrowed for the call.
// May look a host name up, so only at start-up. NULL with the reason in why.
struct rpc_server *rpc_server_new(struct event_base *base, const struct rpc_server_options *options,
                                  const struct rpc_server_events *events, void *owner, char *why,
                                  size_t why_size);

// Cuts all that is under way, answers that are not out yet too, with on_gone for each call
// that the owner has. Accepts NULL.
void rpc_server_free(struct rpc_server *server);

int rpc_server_port(const struct rpc_server *server);

struct rpc_server_counts {
  size_t open;       // calls that the owner has
  uint64_t let_in;   // by on_head
  uint64_t refused;  // over calls_max
  uint64_t late;     // failed for a time that ran out
  uint64_t cut;      // ended without a word: the answer did not get out in time, or too many
                     // refusals were on their way out, or memory ran out
};
void rpc_server_counts(const struct rpc_server *server, struct rpc_server_counts *counts);

// --- A call: the owner's from on_head until it has replied, failed it, or heard on_gone ----

// "/package.Service/Method", as the client sent it. As long as the call.
const char *rpc_server_method(const struct rpc_server_call *call);
// "127.0.0.1:1234" or "[::1]:1234". As long as the call.
const char *rpc_server_peer(const struct rpc_server_call *call);
// The first value of this key (in small letters), or NULL: none, or one with a NUL in it. As
// long as the call.
const char *rpc_server_metadata(struct rpc_server_call *call, const char *key);

// What the owner wants to find again at the call. NULL at first.
void rpc_server_set_context(struct rpc_server_call *call, void *context);
void *rpc_server_context(const struct rpc_server_call *call);

// Answers with this message, copied, and STREAM_OK. On a stream that was kept open it is the
// last message.
void rpc_server_reply(struct rpc_server_call *call, const uint8_t *bytes, size_t len);

// Ends the call with this status and detail (copied; NULL: none), before its request is here
// too. On a stream that was kept open STREAM_OK is a good end, and a message that still waits
// goes out before it.
void rpc_server_fail(struct rpc_server_call *call, enum stream_status status, const char *detail);

// After on_request: one message, copied, of a stream that goes on until it is replied to or
// failed. One message at a time is with gRPC; of those that come meanwhile ONLY THE LATEST
// is kept, and goes out next. That is right for a state that is being watched, such as a
// health; it is not for a sequence of which each part matters.
void rpc_server_send(struct rpc_server_call *call, const uint8_t *bytes, size_t len);

#endif
