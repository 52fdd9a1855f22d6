// Counters, gauges and histograms that a worker keeps in a shared segment of its own, and
// that the master only reads; the master has one for itself.
//
// A process adds with a plain load and store (it is the only writer), so a count
// costs about a nanosecond; the master reads any time. Counters and histograms only go up.
// Gauges are levels that are meaningless once the worker is gone.
//
// A name here is the name in janusctl stats, and with janus_ before it the metric's.
#ifndef JANUS_COMMON_COUNTERS_H
#define JANUS_COMMON_COUNTERS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "common/close_reason.h"
#include "common/config.h"
#include "common/error.h"

// X(identifier, who keeps it: WORKERS, MASTER or BOTH, name, help)
#define COUNTERS(X)                                                                                \
  X(CONNECTIONS_ACCEPTED, WORKERS, "connections_accepted", "connections accepted")                 \
  X(ACCEPT_BACKOFFS, WORKERS, "accept_backoffs",                                                   \
    "times accepting was suspended for want of descriptors")                                       \
  X(TLS_HANDSHAKES, WORKERS, "tls_handshakes", "TLS handshakes with clients")                      \
  X(TLS_RESUMED, WORKERS, "tls_resumed", "of these, with a session ticket")                        \
  X(HANDSHAKES_WAITED, WORKERS, "handshakes_waited",                                               \
    "handshakes that waited for a later turn of the worker's loop")                                \
  X(KCP_DATAGRAMS_IN, WORKERS, "kcp_datagrams_in", "datagrams from clients")                       \
  X(KCP_DATAGRAMS_OUT, WORKERS, "kcp_datagrams_out", "datagrams to clients")                       \
  X(KCP_BYTES_IN, WORKERS, "kcp_received_bytes",                                                   \
    "bytes of datagrams from clients, parity and repeats included")                                \
  X(KCP_BYTES_OUT, WORKERS, "kcp_sent_bytes",                                                      \
    "bytes of datagrams to clients, parity and repeats included")                                  \
  X(KCP_READS, WORKERS, "kcp_reads", "times datagrams were read, many at a time")                  \
  X(KCP_WRITES, WORKERS, "kcp_writes", "times datagrams were written, many at a time")             \
  X(KCP_MALFORMED, WORKERS, "kcp_malformed", "datagrams that make no sense")                       \
  X(KCP_DROPPED_UNKNOWN, WORKERS, "kcp_dropped_unknown",                                           \
    "datagrams of no connection that may begin none")                                              \
  X(KCP_DROPPED_CLOSED, WORKERS, "kcp_dropped_closed",                                             \
    "datagrams of connections that have just ended")                                               \
  X(KCP_DROPPED_PENDING, WORKERS, "kcp_dropped_pending",                                           \
    "first datagrams with too many connections without a login")                                   \
  X(KCP_DROPPED_AMPLIFICATION, WORKERS, "kcp_dropped_amplification",                               \
    "datagrams not sent to a client not known to be there, beyond three times what came from it")  \
  X(KCP_DROPPED_SEND_BUFFER, WORKERS, "kcp_dropped_send_buffer",                                   \
    "datagrams that the kernel had no room for")                                                   \
  X(KCP_HANDED_OUT, WORKERS, "kcp_handed_out",                                                     \
    "datagrams handed to the worker that has their connection")                                    \
  X(KCP_HANDED_IN, WORKERS, "kcp_handed_in", "datagrams that another worker has handed over")      \
  X(KCP_HANDED_LOST, WORKERS, "kcp_handed_lost", "datagrams for another worker that took no more") \
  X(KCP_OWNERS_FULL, WORKERS, "kcp_owners_full",                                                   \
    "connections that the other workers can't know of, with no room in the table")                 \
  X(KCP_SEGMENTS_IN, WORKERS, "kcp_segments_in", "segments of data from clients")                  \
  X(KCP_SEGMENTS_OUT, WORKERS, "kcp_segments_out",                                                 \
    "segments of data to clients, repeats included")                                               \
  X(KCP_RETRANSMITS, WORKERS, "kcp_retransmits", "of these, sent again")                           \
  X(KCP_FAST_RETRANSMITS, WORKERS, "kcp_fast_retransmits",                                         \
    "of these, since later ones were acknowledged")                                                \
  X(KCP_WINDOW_STALLS, WORKERS, "kcp_window_stalls",                                               \
    "times the window to a client, its or ours, was full")                                         \
  X(KCP_DUPLICATES, WORKERS, "kcp_duplicates", "segments of data that had come before")            \
  X(KCP_FEC_PARITY, WORKERS, "kcp_fec_parity", "datagrams of parity from clients")                 \
  X(KCP_FEC_RECOVERED, WORKERS, "kcp_fec_recovered",                                               \
    "datagrams lost on the way here and made again from parity")                                   \
  X(KCP_ROAMED, WORKERS, "kcp_roamed", "times a client went on from another address")              \
  X(KCP_STREAMS_REFUSED, WORKERS, "kcp_streams_refused",                                           \
    "streams ended at once: opened too fast, or too many of them without a login")                 \
  X(LOGINS, WORKERS, "logins", "handshakes completed")                                             \
  X(LOGINS_PREVIOUS_ACCOUNT_KEY, WORKERS, "logins_by_previous_account_key",                        \
    "of these, with a token under an account key that was replaced")                               \
  X(LOGINS_PREVIOUS_CERTS, WORKERS, "logins_by_previous_certs",                                    \
    "of these, by a client certificate or version that was replaced")                              \
  X(MESSAGES_IN, WORKERS, "messages_in", "messages from clients, after the handshake")             \
  X(MESSAGES_OUT, WORKERS, "messages_out", "messages to clients")                                  \
  X(BYTES_IN, WORKERS, "received_bytes", "bytes received from clients")                            \
  X(BYTES_OUT, WORKERS, "sent_bytes", "bytes sent to clients")                                     \
  X(INFLATED, WORKERS, "messages_inflated", "messages from clients that came compressed")          \
  X(DEFLATED, BOTH, "messages_deflated", "messages to clients that went compressed")               \
  X(DEFLATED_IN_SLICES, WORKERS, "messages_deflated_in_slices",                                    \
    "messages to clients compressed over several turns of the worker's loop")                      \
  X(RATE_PAUSES, WORKERS, "rate_pauses", "times a session was read no further for its rate")       \
  X(INPUT_PAUSES, WORKERS, "input_pauses", "times a client was read no further for a slow tunnel") \
  X(OUTPUT_PAUSES, WORKERS, "output_pauses",                                                       \
    "times a tunnel was read no further for a slow client")                                        \
  X(TOO_LARGE_OUT, BOTH, "messages_too_large",                                                     \
    "messages from tunnels not sent, over the size limit")                                         \
  X(UNEXPECTED_ERRORS, WORKERS, "unexpected_errors", "SCServerUnexpectedErr sent to clients")      \
  X(FOREIGN_OBJECTS, WORKERS, "foreign_objects",                                                   \
    "messages refused for naming another player's uid")                                            \
  X(UNKNOWN_MODULES, WORKERS, "unknown_modules", "messages refused for a module without a tunnel") \
  X(TUNNEL_LIMITED, WORKERS, "tunnel_limited",                                                     \
    "messages refused for too many tunnels in the session")                                        \
  X(DROPPED_IN, WORKERS, "messages_dropped_in", "messages from clients not delivered to a tunnel") \
  X(DROPPED_OUT, WORKERS, "messages_dropped_out",                                                  \
    "messages from tunnels not delivered to a client")                                             \
  X(PUSH_ORDERS, MASTER, "push_orders", "pushes taken in, each with its bodies and players")       \
  X(PUSH_ORDERS_MALFORMED, MASTER, "push_orders_malformed", "pushes that can't be understood")     \
  X(PUSH_ORDERS_DENIED, MASTER, "push_orders_denied", "pushes by those who may not push")          \
  X(PUSHES_HERE, MASTER, "pushes_here", "bodies for sessions, handed to their workers")            \
  X(PUSHES_HANDED_ON, MASTER, "pushes_handed_on",                                                  \
    "bodies for players, handed on to their gateways")                                             \
  X(PUSHES_NOT_FOUND, MASTER, "pushes_not_found", "bodies for players who are nowhere")            \
  X(PUSHES_REFUSED, MASTER, "pushes_refused",                                                      \
    "bodies for players, too large or too many at a time")                                         \
  X(PUSHES_ADDRESSED, WORKERS, "pushes_addressed",                                                 \
    "pushes for a session: delivered, dropped or missed")                                          \
  X(PUSHES_DELIVERED, WORKERS, "pushes_delivered", "pushes sent to a client")                      \
  X(PUSHES_DROPPED_NEWEST, WORKERS, "pushes_dropped_newest",                                       \
    "pushes not kept for a client too far behind")                                                 \
  X(PUSHES_DROPPED_OLDEST, WORKERS, "pushes_dropped_oldest",                                       \
    "pushes waiting that gave way to later ones")                                                  \
  X(PUSHES_CONFLATED, WORKERS, "pushes_conflated",                                                 \
    "pushes waiting that gave way to a newer version")                                             \
  X(PUSHES_MISSED, WORKERS, "pushes_missed", "pushes whose session ended before it got them")      \
  X(PUSHES_LOST, WORKERS, "pushes_lost", "pushes lost for want of memory")                         \
  X(TUNNELS_OPENED, WORKERS, "tunnels_opened", "tunnel streams opened")                            \
  X(TUNNELS_REOPENED, WORKERS, "tunnels_reopened", "tunnel streams opened anew after a break")     \
  X(TUNNEL_OPEN_FAILURES, WORKERS, "tunnel_open_failures", "tunnel streams that failed to open")   \
  X(TUNNELS_BROKEN, WORKERS, "tunnels_broken", "open tunnel streams that the backend ended")       \
  X(TUNNEL_MALFORMED, WORKERS, "tunnel_malformed", "messages from tunnels that do not decode")     \
  X(TUNNEL_MESSAGES_OUT, WORKERS, "tunnel_messages_out", "messages handed to tunnels")             \
  X(TUNNEL_MESSAGES_IN, WORKERS, "tunnel_messages_in", "messages received from tunnels")           \
  X(TUNNEL_UNSURE, WORKERS, "tunnel_messages_unsure",                                              \
    "messages with a stream that broke, maybe lost")                                               \
  X(ROUTE_HITS, WORKERS, "route_hits", "routes found in the shared table")                         \
  X(ROUTE_MISSES, WORKERS, "route_misses", "routes not found in the shared table")                 \
  X(ROUTE_TORN, WORKERS, "route_torn", "route look-ups given up after torn reads")                 \
  X(ROUTE_REPLACED, WORKERS, "route_replaced", "routes that named a dead node and were replaced")  \
  X(ROUTE_RACES_LOST, BOTH, "route_races_lost", "routes where another's choice held")              \
  X(ROUTE_FALLBACKS, WORKERS, "route_fallbacks", "nodes picked by rendezvous hashing")             \
  X(ROUTE_CLAIMS_UNANSWERED, WORKERS, "route_claims_unanswered",                                   \
    "routes that Redis could not settle")                                                          \
  X(ROUTES_MOVED, WORKERS, "routes_moved",                                                         \
    "tunnels opened anew since their route names another node")                                    \
  X(ROUTES_MALFORMED, BOTH, "routes_malformed", "keys and values in Redis that are no route")      \
  X(ROUTES_RESTORED, MASTER, "routes_restored",                                                    \
    "routes of open tunnels and players put back in Redis")                                        \
  X(ROUTES_NOT_KEPT, MASTER, "routes_not_kept", "routes for which the shared table had no room")   \
  X(ROUTE_INVALIDATIONS, MASTER, "route_invalidations", "changes of routes that Redis told of")    \
  X(ROUTE_WRITES_DROPPED, MASTER, "route_writes_dropped",                                          \
    "gateway routes not written, Redis away")                                                      \
  X(ROUTE_FEED_RESTARTS, MASTER, "route_feed_restarts",                                            \
    "times the routes were read anew from Redis")                                                  \
  X(REDIS_LOST, BOTH, "redis_lost", "times a Redis master stopped answering")                      \
  X(ETCD_LOST, MASTER, "etcd_lost", "times the connection to etcd was lost")                       \
  X(NODES_MALFORMED, MASTER, "nodes_malformed", "values in etcd that are no node")                 \
  X(NODES_HELD, MASTER, "nodes_held", "nodes kept for a while although a new list had none")       \
  X(REPLAYS_FORGOTTEN, MASTER, "replays_forgotten",                                                \
    "handshakes forgotten early, with no room for more")                                           \
  X(BANS_MALFORMED, MASTER, "bans_malformed",                                                      \
    "entries of Redis' list that are no ban, at each reading")                                     \
  X(BANS_LEFT_OUT, MASTER, "bans_left_out",                                                        \
    "bans of that list with no room for them, at each reading")                                    \
  X(WATCHED_LOST, WORKERS, "watched_packets_lost", "packets left out of what follows a player")    \
  X(SPANS_FINISHED, WORKERS, "spans_finished", "spans that were to be exported")                   \
  X(SPANS_DROPPED, BOTH, "spans_dropped",                                                          \
    "of these, over trace.spans_per_s, or with no room for them")                                  \
  X(SPANS_EXPORTED, MASTER, "spans_exported", "spans that the collector has taken")                \
  X(SPANS_REJECTED, MASTER, "spans_rejected", "spans that the collector would not take")           \
  X(SPAN_EXPORT_FAILURES, MASTER, "span_export_failures", "exports of spans that failed")          \
  X(SPAN_EXPORT_RETRIES, MASTER, "span_export_retries", "exports of spans that were tried again")  \
  X(LOG_SUPPRESSED, BOTH, "log_suppressed", "log lines left out by the rate limit")                \
  X(LOG_LOST, BOTH, "log_lost", "log lines that could not be written")

// X(identifier, name, help)
#define GAUGES(X)                                                                                 \
  X(CONNECTIONS, "connections", "client connections open")                                        \
  X(KCP_PENDING, "kcp_connections_pending", "connections over KCP on which nobody has logged in") \
  X(SESSIONS, "sessions", "players logged in")                                                    \
  X(TUNNELS, "tunnels", "tunnel streams open")                                                    \
  X(BACKEND_CONNECTIONS, "backend_connections", "connections to backends")                        \
  X(QUEUED_IN_BYTES, "queued_in_bytes", "bytes waiting for tunnels")                              \
  X(QUEUED_OUT_BYTES, "queued_out_bytes", "bytes waiting for clients")                            \
  X(PUSHES_WAITING, "pushes_waiting", "pushes waiting for clients that are behind")               \
  X(WATCHED_SESSIONS, "watched_sessions", "sessions that an operator follows")

// Counters and gauges that are kept apart for each part of something: for each tunnel type
// (the index into tunnel.types), or for each kind of listener. Where they are read, their sum
// stands under the counter or gauge of that identifier.
// X(identifier, COUNTER or GAUGE, TUNNEL_TYPE or LISTENER_KIND)
#define SPLITS(X)                                 \
  X(CONNECTIONS_ACCEPTED, COUNTER, LISTENER_KIND) \
  X(LOGINS, COUNTER, LISTENER_KIND)               \
  X(CONNECTIONS, GAUGE, LISTENER_KIND)            \
  X(SESSIONS, GAUGE, LISTENER_KIND)               \
  X(TUNNELS_OPENED, COUNTER, TUNNEL_TYPE)         \
  X(TUNNELS_REOPENED, COUNTER, TUNNEL_TYPE)       \
  X(TUNNEL_OPEN_FAILURES, COUNTER, TUNNEL_TYPE)   \
  X(TUNNELS_BROKEN, COUNTER, TUNNEL_TYPE)         \
  X(TUNNEL_MESSAGES_OUT, COUNTER, TUNNEL_TYPE)    \
  X(TUNNEL_MESSAGES_IN, COUNTER, TUNNEL_TYPE)     \
  X(TUNNELS, GAUGE, TUNNEL_TYPE)

// Durations.
// X(identifier, who keeps it, name, label, help)
#define HISTOGRAMS(X)                                                                           \
  X(MESSAGE_IN, WORKERS, "message_latency_seconds", "direction=\"in\"",                         \
    "from a message's arrival to its being handed on, to the tunnel's stream or to the client") \
  X(MESSAGE_OUT, WORKERS, "message_latency_seconds", "direction=\"out\"", "")                   \
  X(HANDSHAKE, WORKERS, "handshake_seconds", "",                                                \
    "from the arrival of a client's login to the answer, the master's word included")           \
  X(TUNNEL_OPEN, WORKERS, "tunnel_open_seconds", "",                                            \
    "from the search for a tunnel's node until its stream is open, tries that failed included") \
  X(KCP_ROUND_TRIP, WORKERS, "kcp_round_trip_seconds", "",                                      \
    "smoothed, of connections over KCP that have sent something, when they are looked at")      \
  X(REDIS_CALL, BOTH, "redis_call_seconds", "", "from a command to Redis to its answer")        \
  X(ETCD_CALL, MASTER, "etcd_call_seconds", "", "from a call of etcd to its answer")            \
  X(LOOP_LAG, BOTH, "loop_lag_seconds", "",                                                     \
    "how late the process's event loop comes to a timer, looked at ten times a second")

enum counters_keeper { KEPT_BY_WORKERS, KEPT_BY_MASTER, KEPT_BY_BOTH };

enum counter {
#define X(identifier, keeper, name, help) COUNTER_##identifier,
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

enum split_by { SPLIT_BY_LISTENER_KIND, SPLIT_BY_TUNNEL_TYPE };

enum split {
#define X(identifier, kind, by) SPLIT_##identifier,
  SPLITS(X)
#undef X
      SPLIT_COUNT
};

enum {
  SPLIT_PARTS = CONFIG_TUNNEL_TYPES,  // at most
  HISTOGRAM_BOUNDS = 22,
};
_Static_assert(LISTENER_KIND_COUNT <= (int)SPLIT_PARTS, "every kind of listener has a part");

enum histogram_id {
#define X(identifier, keeper, name, label, help) HISTOGRAM_##identifier,
  HISTOGRAMS(X)
#undef X
      HISTOGRAM_COUNT
};

// What there is to say of each.
struct counters_about {
  const char *name;
  const char *help;
  enum counters_keeper keeper;  // the workers for all gauges
};
extern const struct counters_about counter_about[COUNTER_COUNT];
extern const struct counters_about gauge_about[GAUGE_COUNT];

struct split_about {
  enum split_by by;
  _Bool is_gauge;
  enum counter counter;  // whose parts they are; or else
  enum gauge gauge;
};
extern const struct split_about split_about[SPLIT_COUNT];

struct histogram_about {
  const char *name;
  const char *label;  // name="value", or ""
  const char *help;
  enum counters_keeper keeper;
};
extern const struct histogram_about histogram_about[HISTOGRAM_COUNT];
// The same for all histograms: microseconds, rising, each the largest value of its bucket.
extern const uint32_t histogram_bounds_us[HISTOGRAM_BOUNDS];

// One histogram, as it lies in memory and as it is read.
struct histogram_cells {
  _Atomic uint64_t bucket[HISTOGRAM_BOUNDS + 1];  // the last one: over all bounds
  _Atomic uint64_t sum_us;
};
struct histogram_values {
  uint64_t bucket[HISTOGRAM_BOUNDS + 1];
  uint64_t sum_us;
};

// The segment as it lies in memory.
struct counters {
  _Atomic uint64_t counter[COUNTER_COUNT];
  _Atomic uint64_t closed[CLOSE_REASON_COUNT];
  _Atomic uint64_t gauge[GAUGE_COUNT];
  _Atomic uint64_t split[SPLIT_COUNT][SPLIT_PARTS];
  struct histogram_cells histogram[HISTOGRAM_COUNT];
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
// The part is an index of what the split goes by.
static inline void counters_split_add(struct counters *counters, enum split split, size_t part,
                                      int64_t amount) {
  counters_add_to(&counters->split[split][part], (uint64_t)amount);
}
static inline void counters_record_us(struct counters *counters, enum histogram_id id,
                                      int64_t duration_us) {
  struct histogram_cells *histogram = &counters->histogram[id];
  uint64_t us = duration_us > 0 ? (uint64_t)duration_us : 0;
  size_t i = 0;
  while (i < HISTOGRAM_BOUNDS && us > histogram_bounds_us[i]) {
    i++;
  }
  counters_add_to(&histogram->bucket[i], 1);
  counters_add_to(&histogram->sum_us, us);
}
static inline void counters_gauge_set(struct counters *counters, enum gauge gauge, uint64_t value) {
  atomic_store_explicit(&counters->gauge[gauge], value, memory_order_relaxed);
}

// A plain copy, for reading and adding up.
struct counters_values {
  uint64_t counter[COUNTER_COUNT];
  uint64_t closed[CLOSE_REASON_COUNT];
  uint64_t gauge[GAUGE_COUNT];
  uint64_t split[SPLIT_COUNT][SPLIT_PARTS];
  struct histogram_values histogram[HISTOGRAM_COUNT];
};
void counters_read(const struct counters *counters, struct counters_values *values);
// Adds the counters and histograms of values to sum, and the gauges too if with_gauges.
void counters_sum(struct counters_values *sum, const struct counters_values *values,
                  _Bool with_gauges);

// The duration in microseconds that share (0 to 1) of those recorded do not exceed, as far as
// the buckets tell: by straight line within one. 0 when there is none.
double histogram_quantile_us(const struct histogram_values *histogram, double share);

#endif
