// Counters and gauges that a worker keeps in a shared segment of its own, and
// that the master only reads.
//
// A worker adds with a plain load and store (it is the only writer), so a count
// costs about a nanosecond; the master reads any time. Counters only go up.
// Gauges are levels that are meaningless once the worker is gone.
#ifndef JANUS_COMMON_COUNTERS_H
#define JANUS_COMMON_COUNTERS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "common/close_reason.h"
#include "common/error.h"

// X(identifier, name, help)
#define COUNTERS(X)                                                                                \
  X(CONNECTIONS_ACCEPTED, "connections_accepted", "connections accepted")                          \
  X(ACCEPT_BACKOFFS, "accept_backoffs", "times accepting was suspended for want of descriptors")   \
  X(TLS_HANDSHAKES, "tls_handshakes", "TLS handshakes with clients")                               \
  X(TLS_RESUMED, "tls_resumed", "of these, with a session ticket")                                 \
  X(LOGINS, "logins", "handshakes completed")                                                      \
  X(MESSAGES_IN, "messages_in", "messages from clients, after the handshake")                      \
  X(MESSAGES_OUT, "messages_out", "messages to clients")                                           \
  X(BYTES_IN, "bytes_in", "bytes received from clients")                                           \
  X(BYTES_OUT, "bytes_out", "bytes sent to clients")                                               \
  X(INFLATED, "messages_inflated", "messages from clients that came compressed")                   \
  X(DEFLATED, "messages_deflated", "messages to clients that went compressed")                     \
  X(RATE_PAUSES, "rate_pauses", "times a session was read no further for its rate")                \
  X(INPUT_PAUSES, "input_pauses", "times a client was read no further for a slow tunnel")          \
  X(OUTPUT_PAUSES, "output_pauses", "times a tunnel was read no further for a slow client")        \
  X(TOO_LARGE_OUT, "messages_too_large", "messages from tunnels not sent, over the size limit")    \
  X(UNEXPECTED_ERRORS, "unexpected_errors", "SCServerUnexpectedErr sent to clients")               \
  X(FOREIGN_OBJECTS, "foreign_objects", "messages refused for naming another player's uid")        \
  X(UNKNOWN_MODULES, "unknown_modules", "messages refused for a module without a tunnel")          \
  X(TUNNEL_LIMITED, "tunnel_limited", "messages refused for too many tunnels in the session")      \
  X(DROPPED_IN, "messages_dropped_in", "messages from clients not delivered to a tunnel")          \
  X(DROPPED_OUT, "messages_dropped_out", "messages from tunnels not delivered to a client")        \
  X(PUSH_ORDERS, "push_orders", "pushes taken in, each with its bodies and players")               \
  X(PUSH_ORDERS_MALFORMED, "push_orders_malformed", "pushes that can't be understood")             \
  X(PUSH_ORDERS_DENIED, "push_orders_denied", "pushes by those who may not push")                  \
  X(PUSHES_HERE, "pushes_here", "bodies for sessions, handed to their workers")                    \
  X(PUSHES_HANDED_ON, "pushes_handed_on", "bodies for players, handed on to their gateways")       \
  X(PUSHES_NOT_FOUND, "pushes_not_found", "bodies for players who are nowhere")                    \
  X(PUSHES_REFUSED, "pushes_refused", "bodies for players, too large or too many at a time")       \
  X(PUSHES_ADDRESSED, "pushes_addressed", "pushes for a session: delivered, dropped or missed")    \
  X(PUSHES_DELIVERED, "pushes_delivered", "pushes sent to a client")                               \
  X(PUSHES_DROPPED_NEWEST, "pushes_dropped_newest", "pushes not kept for a client too far behind") \
  X(PUSHES_DROPPED_OLDEST, "pushes_dropped_oldest", "pushes waiting that gave way to later ones")  \
  X(PUSHES_CONFLATED, "pushes_conflated", "pushes waiting that gave way to a newer version")       \
  X(PUSHES_MISSED, "pushes_missed", "pushes whose session ended before it got them")               \
  X(PUSHES_LOST, "pushes_lost", "pushes lost for want of memory")                                  \
  X(TUNNELS_OPENED, "tunnels_opened", "tunnel streams opened")                                     \
  X(TUNNELS_REOPENED, "tunnels_reopened", "tunnel streams opened anew after a break")              \
  X(TUNNEL_OPEN_FAILURES, "tunnel_open_failures", "tunnel streams that failed to open")            \
  X(TUNNELS_BROKEN, "tunnels_broken", "open tunnel streams that the backend ended")                \
  X(TUNNEL_MALFORMED, "tunnel_malformed", "messages from tunnels that do not decode")              \
  X(TUNNEL_MESSAGES_OUT, "tunnel_messages_out", "messages handed to tunnels")                      \
  X(TUNNEL_MESSAGES_IN, "tunnel_messages_in", "messages received from tunnels")                    \
  X(TUNNEL_UNSURE, "tunnel_messages_unsure", "messages with a stream that broke, maybe lost")      \
  X(ROUTE_HITS, "route_hits", "routes found in the shared table")                                  \
  X(ROUTE_MISSES, "route_misses", "routes not found in the shared table")                          \
  X(ROUTE_TORN, "route_torn", "route look-ups given up after torn reads")                          \
  X(ROUTE_REPLACED, "route_replaced", "routes that named a dead node and were replaced")           \
  X(ROUTE_RACES_LOST, "route_races_lost", "routes where another's choice held")                    \
  X(ROUTE_FALLBACKS, "route_fallbacks", "nodes picked by rendezvous hashing")                      \
  X(ROUTE_CLAIMS_UNANSWERED, "route_claims_unanswered", "routes that Redis could not settle")      \
  X(ROUTES_MOVED, "routes_moved", "tunnels opened anew since their route names another node")      \
  X(ROUTES_MALFORMED, "routes_malformed", "keys and values in Redis that are no route")            \
  X(ROUTES_RESTORED, "routes_restored", "routes of open tunnels and players put back in Redis")    \
  X(ROUTES_NOT_KEPT, "routes_not_kept", "routes for which the shared table had no room")           \
  X(ROUTE_INVALIDATIONS, "route_invalidations", "changes of routes that Redis told of")            \
  X(ROUTE_WRITES_DROPPED, "route_writes_dropped", "gateway routes not written, Redis away")        \
  X(ROUTE_FEED_RESTARTS, "route_feed_restarts", "times the routes were read anew from Redis")      \
  X(REDIS_LOST, "redis_lost", "times a Redis master stopped answering")                            \
  X(ETCD_LOST, "etcd_lost", "times the connection to etcd was lost")                               \
  X(NODES_MALFORMED, "nodes_malformed", "values in etcd that are no node")                         \
  X(NODES_HELD, "nodes_held", "nodes kept for a while although a new list had none")               \
  X(REPLAYS_FORGOTTEN, "replays_forgotten", "handshakes forgotten early, with no room for more")   \
  X(BANS_MALFORMED, "bans_malformed", "entries of Redis' list that are no ban, at each reading")   \
  X(BANS_LEFT_OUT, "bans_left_out", "bans of that list with no room for them, at each reading")    \
  X(SPANS_FINISHED, "spans_finished", "spans that were to be exported")                            \
  X(SPANS_DROPPED, "spans_dropped", "of these, over trace.spans_per_s, or with no room for them")  \
  X(SPANS_EXPORTED, "spans_exported", "spans that the collector has taken")                        \
  X(SPANS_REJECTED, "spans_rejected", "spans that the collector would not take")                   \
  X(SPAN_EXPORT_FAILURES, "span_export_failures", "exports of spans that failed")                  \
  X(SPAN_EXPORT_RETRIES, "span_export_retries", "exports of spans that were tried again")          \
  X(LOG_SUPPRESSED, "log_suppressed", "log lines left out by the rate limit")

// X(identifier, name, help)
#define GAUGES(X)                                                          \
  X(CONNECTIONS, "connections", "client connections open")                 \
  X(SESSIONS, "sessions", "players logged in")                             \
  X(TUNNELS, "tunnels", "tunnel streams open")                             \
  X(BACKEND_CONNECTIONS, "backend_connections", "connections to backends") \
  X(QUEUED_IN_BYTES, "queued_in_bytes", "bytes waiting for tunnels")       \
  X(QUEUED_OUT_BYTES, "queued_out_bytes", "bytes waiting for clients")     \
  X(PUSHES_WAITING, "pushes_waiting", "pushes waiting for clients that are behind")

enum counter {
#define X(identifier, name, help) COUNTER_##identifier,
  COUNTERS(X)
#undef X
      COUNTER_COUNT
};

enum gauge {
#define X(identifier, name, help) GAUGE_##identifier,
  GAUGES(X)
#undef X
      GAUGE_COUNT
};

const char *counter_name(enum counter counter);
const char *counter_help(enum counter counter);
const char *gauge_name(enum gauge gauge);
const char *gauge_help(enum gauge gauge);

// The segment as it lies in memory.
struct counters {
  _Atomic uint64_t counter[COUNTER_COUNT];
  _Atomic uint64_t closed[CLOSE_REASON_COUNT];
  _Atomic uint64_t gauge[GAUGE_COUNT];
  // When the worker's loop last came round, monotonic ms; no count, but the same way.
  _Atomic uint64_t heartbeat_ms;
};

// For the one writer.
static inline void counters_add_to(_Atomic uint64_t *cell, uint64_t amount) {
  atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + amount,
                        memory_order_relaxed);
}
static inline void counters_add(struct counters *counters, enum counter counter, uint64_t amount) {
  counters_add_to(&counters->counter[counter], amount);
}
static inline void counters_closed(struct counters *counters, enum close_reason reason) {
  counters_add_to(&counters->closed[reason], 1);
}
static inline void counters_gauge_add(struct counters *counters, enum gauge gauge, int64_t amount) {
  counters_add_to(&counters->gauge[gauge], (uint64_t)amount);
}
static inline void counters_gauge_set(struct counters *counters, enum gauge gauge, uint64_t value) {
  atomic_store_explicit(&counters->gauge[gauge], value, memory_order_relaxed);
}

// A plain copy, for reading and adding up.
struct counters_values {
  uint64_t counter[COUNTER_COUNT];
  uint64_t closed[CLOSE_REASON_COUNT];
  uint64_t gauge[GAUGE_COUNT];
};
void counters_read(const struct counters *counters, struct counters_values *values);
// Adds the counters of values to sum, and the gauges too if with_gauges.
void counters_sum(struct counters_values *sum, const struct counters_values *values,
                  _Bool with_gauges);

#endif
