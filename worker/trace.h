// The spans of a worker: what became of each connection, by OpenTelemetry's conventions.
//
//   connection   from its acceptance until its transport is gone; the root, unless the upgrade
//                request of a WebSocket had a traceparent
//     handshake  with each check as an event
//     tunnel     being opened; Roma gets its id as traceparent
//     message    from a client, until the tunnel's stream has it
//     push       to the client, since the master took it in, unless it has a parent of its own
//     close      from session_close until the transport is gone
//
// A span is recorded if its trace is sampled, or if it ends in an error. Until then it is an id
// and a time in the connection's struct. Without trace.endpoint that struct is never made, and
// all of this is one branch each; built with JANUS_WITHOUT_TRACING, it is nothing.
//
// Never a payload, a token or a key. Loop thread only.
#ifndef JANUS_WORKER_TRACE_H
#define JANUS_WORKER_TRACE_H

#include <sys/socket.h>

#include "common/trace_context.h"
#include "worker/session.h"
#include "worker/tunnel.h"

#ifdef JANUS_WITHOUT_TRACING
enum { TRACE_IS_BUILT = false };
#else
enum { TRACE_IS_BUILT = true };
#endif

struct trace;             // the worker's: NULL with tracing off
struct trace_connection;  // counted references: its place, its session, its tunnels

struct trace *trace_new(struct worker *worker);  // NULL when out of memory
// Hands what is finished to the master, as far as there is room; else it is dropped and counted.
void trace_flush(struct trace *trace);
void trace_free(struct trace *trace);  // accepts NULL

// What the hooks below stand for, once tracing is on.
struct trace_connection *trace_connection_new(struct trace *trace,
                                              const struct config_listener *listener, int port);
struct trace_connection *trace_connection_ref(struct trace_connection *connection);
void trace_connection_unref(struct trace_connection *connection);
void trace_connection_set_address(struct trace_connection *connection,
                                  const struct sockaddr *address);
void trace_connection_set_parent(struct trace_connection *connection, const char *parent,
                                 size_t parent_len, const char *state, size_t state_len);
void trace_connection_set_reason(struct trace_connection *connection, enum close_reason reason);
void trace_connection_gone(struct trace_connection *connection);
const uint8_t *trace_connection_trace_id(const struct trace_connection *connection);
void trace_session_began(struct session *session);
void trace_session_checked(struct session *session);
void trace_session_admitted(struct session *session);
void trace_session_closing(struct session *session, enum close_reason reason);
void trace_message_came(struct session *session, size_t bytes);
void trace_message_refused(struct session *session, const struct packet *packet, const char *error);
uint64_t trace_message_taken(struct session *session);
void trace_message_ended(struct tunnel *tunnel, const struct tunnel_queued *queued,
                         const char *error);
void trace_tunnel_began(struct tunnel *tunnel);
const char *trace_tunnel_state(const struct tunnel *tunnel);
void trace_tunnel_ended(struct tunnel *tunnel, int status);
void trace_push_ended(struct session *session, const struct push *push, const char *error);

// --- A connection, at its place --------------------------------------------------------

// Accepted at this listener. NULL with tracing off, or without memory for it.
static inline struct trace_connection *trace_accepted(struct trace *trace,
                                                      const struct config_listener *listener,
                                                      int port) {
  return TRACE_IS_BUILT && trace ? trace_connection_new(trace, listener, port) : NULL;
}

// Its client's address is known.
static inline void trace_address(struct trace_connection *connection,
                                 const struct sockaddr *address) {
  if (TRACE_IS_BUILT && connection) {
    trace_connection_set_address(connection, address);
  }
}

// It became no session.
static inline void trace_refused(struct trace_connection *connection, enum close_reason reason) {
  if (TRACE_IS_BUILT && connection) {
    trace_connection_set_reason(connection, reason);
  }
}

// Its transport is gone. Lets go of it.
static inline void trace_gone(struct trace_connection *connection) {
  if (TRACE_IS_BUILT && connection) {
    trace_connection_gone(connection);
  }
}

// --- A session -------------------------------------------------------------------------

static inline void trace_session(struct session *session, struct trace_connection *connection) {
  if (TRACE_IS_BUILT && connection) {
    session->trace = trace_connection_ref(connection);
    trace_session_began(session);
  }
}

static inline void trace_forget_session(struct session *session) {
  if (TRACE_IS_BUILT && session->trace) {
    trace_connection_unref(session->trace);
  }
}

// The headers of its upgrade request, hostile; before anything else of the session.
static inline void trace_parent(struct session *session, const char *parent, size_t parent_len,
                                const char *state, size_t state_len) {
  if (TRACE_IS_BUILT && session->trace) {
    trace_connection_set_parent(session->trace, parent, parent_len, state, state_len);
  }
}

// The handshake has passed the worker's own checks; it is all done.
static inline void trace_checked(struct session *session) {
  if (TRACE_IS_BUILT && session->trace) {
    trace_session_checked(session);
  }
}
static inline void trace_admitted(struct session *session) {
  if (TRACE_IS_BUILT && session->trace) {
    trace_session_admitted(session);
  }
}

static inline void trace_closing(struct session *session, enum close_reason reason) {
  if (TRACE_IS_BUILT && session->trace) {
    trace_session_closing(session, reason);
  }
}

// --- A message from the client ----------------------------------------------------------

static inline void trace_message(struct session *session, size_t bytes) {
  if (TRACE_IS_BUILT && session->trace) {
    trace_message_came(session, bytes);
  }
}

// It goes to no tunnel; error names why.
static inline void trace_unserved(struct session *session, const struct packet *packet,
                                  const char *error) {
  if (TRACE_IS_BUILT && session->trace) {
    trace_message_refused(session, packet, error);
  }
}

// It is queued at a tunnel. Returns when it came, for that to keep.
static inline uint64_t trace_queued(struct session *session) {
  return TRACE_IS_BUILT && session->trace ? trace_message_taken(session) : 0;
}

// The tunnel's stream has it (error NULL), or it was dropped.
static inline void trace_handed_over(struct tunnel *tunnel, const struct tunnel_queued *queued,
                                     const char *error) {
  if (TRACE_IS_BUILT && tunnel->trace) {
    trace_message_ended(tunnel, queued, error);
  }
}

// --- A tunnel ----------------------------------------------------------------------------

// The session has made it.
static inline void trace_tunnel(struct tunnel *tunnel, const struct session *session) {
  if (TRACE_IS_BUILT && session->trace) {
    tunnel->trace = trace_connection_ref(session->trace);
  }
}

static inline void trace_forget_tunnel(struct tunnel *tunnel) {
  if (TRACE_IS_BUILT && tunnel->trace) {
    trace_connection_unref(tunnel->trace);
  }
}

// Its stream is about to be opened. Adds traceparent (and tracestate) to the metadata, which has
// room for TRACE_METADATA_MAX more; returns how many there are then.
enum { TRACE_METADATA_MAX = 2 };
static inline size_t trace_opening(struct tunnel *tunnel, struct stream_metadata *metadata,
                                   size_t count, char text[TRACE_PARENT_TEXT_BYTES]) {
  if (TRACE_IS_BUILT && tunnel->trace) {
    trace_tunnel_began(tunnel);
    metadata[count++] = (struct stream_metadata){
        "traceparent", trace_context_format(&tunnel->opening.context, text)};
    const char *state = trace_tunnel_state(tunnel);
    if (state) {
      metadata[count++] = (struct stream_metadata){"tracestate", state};
    }
  }
  return count;
}

// It is open, with STREAM_OK, or will not be; nothing if neither was being awaited.
static inline void trace_opened(struct tunnel *tunnel, int status) {
  if (TRACE_IS_BUILT && tunnel->trace && tunnel->opening.start_ns != 0) {
    trace_tunnel_ended(tunnel, status);
  }
}

// --- A push --------------------------------------------------------------------------------

// With the transport (error NULL), or not delivered.
static inline void trace_pushed(struct session *session, const struct push *push,
                                const char *error) {
  if (TRACE_IS_BUILT && session->trace) {
    trace_push_ended(session, push, error);
  }
}

#endif
