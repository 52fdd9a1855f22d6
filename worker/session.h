// One player's connection: from its first byte of the protocol through the login (worker/login.h)
// to its one way out, session_close. What it sends to its client is in
// worker/session_output.c.
//
// A session owns its transport and its keys; tunnels are its player's (worker/player.h). It is
// freed at the end of the loop's turn in which it was closed, so code on the way back up may
// still look at session->state.
#ifndef JANUS_WORKER_SESSION_H
#define JANUS_WORKER_SESSION_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uthash.h>

#include "common/channel.h"
#include "common/clock.h"
#include "common/close_reason.h"
#include "common/packet.h"
#include "worker/limits.h"
#include "worker/push_queue.h"
#include "worker/worker.h"

struct player;
struct trace_connection;
struct tunnel;

enum session_state {
  SESSION_HANDSHAKE,
  SESSION_ADMISSION,  // the handshake is good; the master is asked
  SESSION_PLAYING,
  SESSION_CLOSED
};

// Since the login.
struct session_traffic {
  uint64_t messages_in;  // from the client
  uint64_t messages_out;
  uint64_t bytes_in;  // sealed
  uint64_t bytes_out;
};

// While it is watched.
struct session_watch {
  int64_t arrived_us;   // when what is at hand came; 0: nothing is
  uint32_t wire_bytes;  // and how long it was then
  uint32_t lost;        // packets that were not told
};

// When somebody looked at all sessions last, and what it had counted by then.
struct session_look {
  uint64_t messages_in;
  uint64_t messages_out;
  int64_t at_ms;  // monotonic; at first: of the login
};

// Of a session that is held up, in or out; most never are.
struct session_delays {
  struct event rate;     // until the rate allows the next message
  struct event grace;    // while too much waits for the client
  uint64_t taken_bytes;  // by the client, when that fired last
};

// What every message touches, in or out, comes first and is two cache lines: with many players none
// of a session's is in the cache when its message comes, and what has to be fetched is these alone.
struct session {
  struct worker *worker;
  struct transport *transport;
  struct seal *seal;               // NULL with encryption off
  struct player *player;           // once it is admitted; it may have others
  struct trace_connection *trace;  // NULL without tracing
  int64_t uid;                     // from the login on
  uint64_t connection;             // unique among all connections of this gateway, ever
  int32_t next_index;              // of the client's next message
  enum session_state state : 8;
  bool watched;  // an operator follows it (worker/watch.h)
  bool rate_paused;
  bool output_full;  // over queue.client_high_bytes: tunnels are not read

  // When its latest message arrived: monotonic. Also when its login was done, and when it was held
  // up last: since then it is quiet.
  int64_t arrived_us;
  struct session_traffic traffic;
  struct client_levels levels;

  LIST_ENTRY(session) link;
  UT_hash_handle hh;  // by connection, from the login on
  enum listener_kind listener_kind;
  bool grace_over;              // the output is full for longer than queue.client_grace
  struct tunnel *held_by;       // whose queue is over its bound: input is paused; or NULL
  uint64_t client;              // what it came on: the same for all sessions of one KCP connection
  char address[64];             // the client's ip:port
  int64_t since_ms;             // wall clock, of the login
  struct handshake *handshake;  // while the master is asked; else NULL
  struct login_request *requested;  // while its turn is awaited; else NULL

  // From the login on.
  int64_t sid;
  int32_t status;
  int32_t conn_id;  // of its handshake's packet
  char color[TOKEN_COLOR_MAX_BYTES + 1];
  TAILQ_ENTRY(session) sibling;  // among the player's

  struct event timer;             // the handshake's time, later the idle time
  struct session_delays *delays;  // or NULL
  struct session_look look;
  uint32_t packing;  // answers that wait to be compressed (worker/packing.h)

  struct session_watch watch;
  LIST_ENTRY(session) watched_link;  // among the worker's watched ones

  struct push_queue pushes;  // that wait while output is full
};

// A number that no session and no client of this gateway has or ever had.
uint64_t session_draw_number(const struct worker *worker);

// A new session on a listener of this kind, of this address (ip:port), at the transport that
// make makes, with context; trace is its connection's, or NULL. client is a number that was drawn
// for the connection, where that carries several sessions: those of them that log in with the same
// uid are siblings. 0: it carries this one alone. False when out of memory: then there is no
// transport.
bool session_new(struct worker *worker, enum listener_kind kind, const char *address,
                 uint64_t client, struct trace_connection *trace, transport_maker *make,
                 void *context);

// The one way out: tells the client where the reason asks for it, ends the player's
// tunnels if it is his last session, counts and logs, and has the session freed after this turn of
// the loop.
void session_close(struct session *session, enum close_reason reason);
// The same for all of the player's, for what is no matter of this session alone.
void session_close_player(struct session *session, enum close_reason reason);

// The master's word that a session is to end, and so its siblings.
void session_on_close(struct worker *worker, const struct channel_session_close *close);

// How long the client has been quiet.
static inline int64_t session_quiet_ms(const struct session *session) {
  int64_t quiet_ms = (clock_monotonic_us() - session->arrived_us) / 1000;
  return quiet_ms > 0 ? quiet_ms : 0;
}

// Its delays, made when there are none. NULL when out of memory.
struct session_delays *session_delays(struct session *session);

// The client is read no further, and again, unless its rate or a slow tunnel holds it up.
void session_pause_input(struct session *session);
void session_resume_input(struct session *session);

// For its next message: itself, and when that has come in what it points to (common/prefetch.h).
void session_prefetch(const struct session *session);
void session_prefetch_parts(const struct session *session);

// The worker's client_rates are others, and its levels have been set to them.
void session_rates_changed(struct session *session);

// The line of a session's beginning, or (with the reason) of its end.
void session_log(struct session *session, enum worker_log kind, const char *reason);

// Sends one packet, sealed, compressed where the settings ask for it; in a later turn of the loop
// if it is long, or behind one that is. What can't be sent is counted; the session may be closed in
// consequence.
void session_send(struct session *session, const struct packet *packet);

// SCServerUnexpectedErr: something the client sent can't be served.
void session_send_unexpected_error(struct session *session, int32_t mod, int32_t seq,
                                   const char *text);

// One push: sent, or kept while the client is behind, as push.slow_client asks. Counted
// whatever becomes of it; the session may be closed in consequence.
void session_push(struct session *session, struct push *push);

// The session as the master is to know it, from the login on.
void session_describe(const struct session *session, struct channel_session *described);
// The logged-in session with this connection; NULL when there is none.
struct session *session_find(struct worker *worker, uint64_t connection);

// The word that the player is logged out.
static inline bool session_is_logout(int32_t mod, int32_t seq) {
  return mod == MODULE_SYSTEM && seq == SYSTEM_LOGOUT;
}

// For tunnels: one packet from a backend. A logout that it sends goes to the player's other
// sessions too, and ends them all.
void session_on_answer(struct session *session, const struct packet *packet);

// For tunnels: whether the client's side can take more; when it can again, player_unblock is
// called.
bool session_takes_output(const struct session *session);

// For tunnels: the session has sent to one whose queue is over its bound; and that is well below
// it again.
void session_tunnel_full(struct session *session, struct tunnel *tunnel);
void session_tunnel_relieved(struct session *session);

// Frees the sessions that were closed; called by the worker after each turn.
void session_bury_all(struct worker *worker);

#endif
