// The channel between the master and one worker: a unix stream socket that
// carries fixed structs, each behind its type and size.
//
// Whatever comes out of it has been checked: a known type, the size that belongs
// to it (and what it says of its own length), and every text terminated. Anything else breaks
// the channel. What waits to be sent is bounded. What has come is given out in turns with a
// bound on the time of each, so that much of it does not hold up everything else.
//
// Runs on the loop's thread of either process.
#ifndef JANUS_COMMON_CHANNEL_H
#define JANUS_COMMON_CHANNEL_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/keys.h"
#include "common/log.h"
#include "common/redis_link.h"
#include "common/route_table.h"
#include "common/trace_context.h"

enum channel_type {
  CHANNEL_TYPE_ALL = 0,  // none: for those who pick
  // From a worker.
  CHANNEL_READY = 1,       // no content: it accepts
  CHANNEL_LOGIN,           // struct channel_login
  CHANNEL_SESSION_CLOSED,  // struct channel_session_closed
  CHANNEL_ROUTE_CLAIM,     // struct channel_route_claim
  CHANNEL_ROUTE_HELD,      // struct channel_route_held
  CHANNEL_ROUTE_RELEASED,  // struct channel_route_released
  CHANNEL_BROADCAST_DONE,  // struct channel_broadcast_done
  CHANNEL_REDIS_HEALTH,    // struct redis_link_health
  CHANNEL_SESSION_REPORT,  // struct channel_session_report
  CHANNEL_PATH_REPORT,     // struct channel_path_report
  CHANNEL_TUNNEL_REPORT,   // struct channel_tunnel_report
  CHANNEL_REPORT_END,      // struct channel_report_end
  CHANNEL_WATCHED_PACKET,  // struct channel_watched_packet
  CHANNEL_SPANS,           // struct channel_spans
  CHANNEL_HOLDING,         // no content: the last word before the master changes
  CHANNEL_SESSION_HERE,    // struct channel_session: to a master that took over
  // From the master.
  CHANNEL_LOGIN_ANSWER,   // struct channel_login_answer
  CHANNEL_SESSION_CLOSE,  // struct channel_session_close
  CHANNEL_ROUTE_ANSWER,   // struct channel_route_answer
  CHANNEL_ROUTE_MOVED,    // struct channel_route_held
  CHANNEL_PUSH,           // struct channel_push
  CHANNEL_REPORT_ASK,     // struct channel_report_ask
  CHANNEL_WATCH,          // struct channel_watch
  CHANNEL_SETTINGS,       // struct channel_settings
  CHANNEL_TLS_CHANGED,    // no content: certificates and keys are to be read anew
  CHANNEL_LOG_LEVELS,     // struct channel_log_levels
  CHANNEL_LOG_REOPEN,     // no content: the log's file has been renamed
  CHANNEL_HOLD,           // no content: the master is to change; say nothing more to this one
  CHANNEL_RESUME,         // no content: it has not
  CHANNEL_TAKE_OVER,      // no content, but CHANNEL_FDS descriptors: it has
  CHANNEL_DRAIN,          // struct channel_drain
  CHANNEL_UNDRAIN,        // no content: take players again
  CHANNEL_STOP,           // no content: close all sessions and exit
  CHANNEL_TYPE_END
};

struct channel_session {
  uint64_t connection;
  uint64_t client;  // the connection it came on: sessions of one player there are siblings
  int64_t uid;
  int64_t sid;
  int64_t since_ms;  // wall clock
  char color[ROUTE_COLOR_MAX_BYTES + 1];
  char address[64];   // the client's ip:port
  char transport[8];  // "tcp"
};

// "This client has passed the checks of its handshake: is it to be let in?" Until the
// answer nothing goes to the client; from then on, or until the session is closed, it
// is in the master's directory.
struct channel_login {
  struct channel_session session;
  uint8_t client_key[KEY_X25519_BYTES];  // its X25519 public key, all zero with encryption off
};

struct channel_login_answer {
  uint64_t connection;
  int32_t refusal;  // enum close_reason, or CHANNEL_LOGIN_ADMITTED
};
enum { CHANNEL_LOGIN_ADMITTED = -1 };

struct channel_session_closed {
  uint64_t connection;
  uint64_t reason;  // enum close_reason
};

struct channel_session_close {
  uint64_t connection;
  int32_t reason;  // enum close_reason
  int32_t code;    // enum logout_code, for the client
};

// "Where does this object live? If nowhere yet: at candidate." With dead set,
// a route that still names that address is replaced by the candidate.
struct channel_route_claim {
  uint64_t id;  // comes back in the answer
  int64_t oid;
  uint32_t tunnel_type;  // index into the configured types
  char color[ROUTE_COLOR_MAX_BYTES + 1];
  char candidate[ROUTE_ADDRESS_MAX_BYTES + 1];
  char dead[ROUTE_ADDRESS_MAX_BYTES + 1];
};

struct channel_route_answer {
  uint64_t id;
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];  // empty: the table is full, none is kept
};

// "A tunnel of mine to this address is being opened": its route has to stay, until as
// many are released as were held. And from the master: "the route is this one now",
// for tunnels that are elsewhere to follow.
struct channel_route_held {
  int64_t oid;
  uint32_t tunnel_type;
  uint32_t
      follows;  // from a worker: the tunnel goes where the master said, by no choice of its own
  char color[ROUTE_COLOR_MAX_BYTES + 1];
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];
};

struct channel_route_released {
  int64_t oid;
  uint32_t tunnel_type;
  char color[ROUTE_COLOR_MAX_BYTES + 1];
};

// One push for players of this worker, as the packet that each of them gets. What is
// listed behind it: the connections it is for, then the packet, not yet sealed.
struct channel_push {
  uint64_t serial;  // of a broadcast, counted up; else 0
  int64_t sid;      // a broadcast is for the sessions of this sid, 0 for any,
  int64_t obj;
  uint64_t data_version;
  int32_t mod;
  int32_t seq;
  uint32_t receiver_count;  // 0 for a broadcast
  uint32_t sessions;        // of this worker that a broadcast is for, as the master knows: of
                            // siblings one
  uint32_t packet_bytes;
  struct trace_context parent;            // who has pushed it, or none
  uint64_t taken_ns;                      // wall clock, when the master took it in
  char color[ROUTE_COLOR_MAX_BYTES + 1];  // and this color, "" for any
};
enum {
  CHANNEL_PUSH_RECEIVERS_MAX = 256,
  CHANNEL_PUSH_PACKET_MAX_BYTES = 2 << 20,
};
static inline const uint64_t *channel_push_receivers(const struct channel_push *push) {
  return (const uint64_t *)(push + 1);
}
static inline const uint8_t *channel_push_packet(const struct channel_push *push) {
  return (const uint8_t *)(channel_push_receivers(push) + push->receiver_count);
}

// "How are your sessions?" All of them, or (connection) one, with its tunnels. The answer
// is a message for each, and an end.
struct channel_report_ask {
  uint64_t id;
  uint64_t connection;  // 0: all
};

struct channel_session_report {
  uint64_t id;
  uint64_t connection;
  uint64_t messages_in;  // since the login
  uint64_t messages_out;
  uint64_t bytes_in;
  uint64_t bytes_out;
  uint64_t recent_messages_in;  // of these, since somebody looked at all sessions before
  uint64_t recent_messages_out;
  int64_t recent_ms;        // how long ago that was, a second or more but for the first time
  uint64_t queued_bytes;    // that wait for the client
  uint64_t pushes_waiting;  // that wait aside
  int64_t quiet_ms;         // since the client was last heard
  uint32_t tunnels;
  uint8_t input_paused;   // read no further: by its rate, or by a slow tunnel
  uint8_t output_paused;  // too much waits for it
};

// How the path to the client of one session does, where its transport knows: over KCP.
struct channel_path_report {
  uint64_t id;
  uint64_t segments_in;
  uint64_t segments_out;
  uint64_t retransmits;  // of the segments out
  uint64_t recovered;    // datagrams, by FEC
  uint64_t datagrams_in;
  uint64_t datagrams_out;
  uint32_t srtt_ms;
  uint32_t rto_ms;
  uint32_t client_window;   // segments that the client takes
  uint32_t gateway_window;  // and that the gateway takes
  uint32_t in_flight;       // segments
  uint32_t stream_window;   // bytes that the client takes on the session's stream
  uint32_t streams;         // of its connection
};

struct channel_tunnel_report {
  uint64_t id;
  int64_t oid;
  uint64_t queued_bytes;
  uint32_t queued_messages;
  uint32_t tunnel_type;
  char state[16];
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];  // of the node; "" while there is none
};

struct channel_report_end {
  uint64_t id;
  uint32_t complete;  // 0: not all of it had room
};

// "Tell me of all that goes through this session", or no longer.
struct channel_watch {
  uint64_t connection;
  uint64_t on;
};

enum channel_watched_kind {
  WATCHED_CLIENT_TO_GATEWAY,
  WATCHED_GATEWAY_TO_TUNNEL,
  WATCHED_TUNNEL_TO_GATEWAY,
  WATCHED_GATEWAY_TO_CLIENT,
  WATCHED_PUSH,  // from the gateway to the client
  WATCHED_PACKETS,
  // What else there is to tell: no packet goes with it.
  WATCHED_TUNNEL_OPENED = WATCHED_PACKETS,
  WATCHED_TUNNEL_REOPENED,
  WATCHED_TUNNEL_BROKEN,
  WATCHED_TUNNEL_MOVED,  // its route leads elsewhere now
  WATCHED_INPUT_PAUSED,
  WATCHED_INPUT_RESUMED,
  WATCHED_OUTPUT_PAUSED,
  WATCHED_OUTPUT_RESUMED,
  WATCHED_LOST,  // nothing but that some were not told
  WATCHED_KINDS
};
enum { CHANNEL_WATCHED_UNKNOWN = -1 };  // a time or a tunnel type

// One packet of a watched session, or something else that befell it; never what a packet
// carries.
struct channel_watched_packet {
  uint64_t connection;
  int64_t at_us;          // wall clock
  int64_t took_us;        // since it came to the worker,
  int64_t waited_us;      // and how long of that in a queue
  uint64_t lost;          // packets before this one that were not told: there were too many
  uint64_t data_bytes;    // as in the packet, maybe compressed
  uint64_t plain_bytes;   // of the whole message, before it is sealed
  uint64_t sealed_bytes;  // of the whole message as the client sends or gets it; 0: no client does
  uint64_t queued_bytes;  // that wait for the client, or for the tunnel, behind it
  uint64_t data_version;
  int64_t obj;
  int64_t oid;          // of the tunnel
  int32_t tunnel_type;  // index into the configured types
  int32_t status;       // by which a tunnel broke
  int32_t kind;         // enum channel_watched_kind
  int32_t mod;
  int32_t seq;
  int32_t ver;
  int32_t index;
  int32_t conn_id;
  int32_t frag_id;
  int32_t frag_count;
  int32_t frag_index;
  uint32_t compressed;
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];  // of the tunnel's node
};

// Every session that a broadcast was for has got it, or will not.
struct channel_broadcast_done {
  uint64_t serial;
};

// Finished spans (proto/otlp_trace.proto). Listed behind it: each as its size, a uint32_t, and
// its bytes, encoded.
struct channel_spans {
  uint32_t count;
  uint32_t bytes;  // of all that is listed
};
enum { CHANNEL_SPANS_MAX_BYTES = 64 << 10 };

// "Take no new players." Those that there are stay for timeout_ms, and are then sent away, evenly
// over spread_ms. One that comes later takes the place of the one before.
struct channel_drain {
  int64_t timeout_ms;  // CHANNEL_DRAIN_NEVER: until they leave by themselves
  int64_t spread_ms;
  uint64_t leave;  // enum channel_leave
};
enum { CHANNEL_DRAIN_NEVER = -1 };
enum channel_leave {
  CHANNEL_LEAVE_NOT,    // it may be told to take players again
  CHANNEL_LEAVE_PLACE,  // the sockets are another worker's now; exit when the last player has left
  CHANNEL_LEAVE_ALL,    // the same, but all workers do: nobody else reads the sockets
};

// The settings that count from now on, as config_save writes them. Listed behind it: the text, with
// its NUL.
struct channel_settings {
  uint64_t bytes;
};
enum { CHANNEL_SETTINGS_MAX_BYTES = 1 << 20 };
static inline const char *channel_settings_text(const struct channel_settings *settings) {
  return (const char *)(settings + 1);
}

// The level of each module of the log.
struct channel_log_levels {
  uint8_t level[LOG_MODULE_COUNT];  // enum log_level
};
// Those of this process; and takes them over here, but for any that is none.
void channel_log_levels_now(struct channel_log_levels *levels);
void channel_log_levels_take(const struct channel_log_levels *levels);

struct channel;

struct channel_events {
  // content is valid for the call. May free the channel.
  void (*on_message)(enum channel_type type, const void *content, void *owner);
  // The peer is gone, or said something it must not. May free the channel.
  void (*on_broken)(const char *why, void *owner);
};

// Takes over fd. NULL when out of memory.
struct channel *channel_new(struct event_base *base, int fd, const struct channel_events *events,
                            void *owner);
void channel_free(struct channel *channel);  // accepts NULL

// What is sent waits from now on, until it is sent together.
void channel_gather(struct channel *channel);
void channel_send_gathered(struct channel *channel);

// Gives out no further message, and again does; the first of them from the loop. What has not
// been given out waits, and the peer with it.
void channel_pause(struct channel *channel);
void channel_resume(struct channel *channel);

// Queues one message; content must have the size of its type. ERROR_EXHAUSTED
// when too much is waiting already, ERROR_MEMORY.
int channel_send(struct channel *channel, enum channel_type type, const void *content);
// From now on what is sent is not bounded (true), or is again: for what is told once, of all that
// there is.
void channel_set_unbounded(struct channel *channel, bool unbounded);

// Pushes and reports are asked for from outside, as often as anyone likes: they fill only
// half of what may wait, so that the rest still gets through.
enum { CHANNEL_PUSHES_MAX_BYTES = 8 << 20 };
// How many bytes of them may be queued now.
size_t channel_room(const struct channel *channel);
// What one push takes, but for 8 bytes for each receiver.
size_t channel_push_bytes(size_t packet_bytes);
// Queues CHANNEL_PUSH, with as many receivers and packet bytes as push says. Also
// ERROR_EXHAUSTED: there is no room.
int channel_send_push(struct channel *channel, const struct channel_push *push,
                      const uint64_t *receivers, const uint8_t *packet) MUST_CHECK;
// Queues CHANNEL_SPANS, within the same room.
int channel_send_spans(struct channel *channel, const struct channel_spans *spans,
                       const uint8_t *listed) MUST_CHECK;

int channel_send_settings(struct channel *channel, const char *text) MUST_CHECK;

// --- A new master ---------------------------------------------------------------------
//
// The master sends CHANNEL_HOLD, and the worker CHANNEL_HOLDING; from then on all that the worker
// sends is kept back, so that nothing is on its way while the program of the master is replaced by
// exec, over which the socket stays open. The new master sends CHANNEL_TAKE_OVER with the
// descriptors of the tables that are its own.

// What comes with CHANNEL_TAKE_OVER.
enum { CHANNEL_FD_ROUTES, CHANNEL_FD_NODES, CHANNEL_FD_TLS, CHANNEL_FDS };

// The worker's side. Sends CHANNEL_HOLDING, and keeps back all that is sent from now on.
int channel_hold(struct channel *channel) MUST_CHECK;
// Sends what was kept back, all of it or what is of that type alone, and keeps back no more.
void channel_resume_sending(struct channel *channel, enum channel_type only);
// Those that came with the message at hand, which are the caller's then; -1 each where none did.
void channel_take_fds(struct channel *channel, int fds[CHANNEL_FDS]);

// The master's side, on a socket that is no channel yet. ERROR_SYSTEM.
int channel_send_take_over(int fd, const int fds[CHANNEL_FDS]) MUST_CHECK;

// Bytes that wait to be sent.
size_t channel_queued_bytes(const struct channel *channel);
// Gives out all that has come from a peer that is gone, or going.
void channel_drain(struct channel *channel);
int channel_fd(const struct channel *channel);  // stays the channel's

// Of the fixed part of a message. 0: it has none, or there is no such type.
size_t channel_message_size(enum channel_type type);

#endif
