// A tunnel: the ordered way of one player's messages to one object (the player himself,
// a room, ...) at a backend. It finds the node, opens a stream there, and opens it
// anew, wherever the route then points, when it breaks; what was not yet handed
// to the stream goes out on the new one, in order and once.
#ifndef JANUS_WORKER_TUNNEL_H
#define JANUS_WORKER_TUNNEL_H

#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/packet.h"
#include "common/route_table.h"
#include "common/trace_context.h"
#include "worker/route_store.h"

struct player;
struct session;
struct stream;
struct trace_connection;
struct tunnel_move;
struct worker;

enum tunnel_state {
  TUNNEL_ROUTING,  // asking where the object lives
  TUNNEL_OPENING,  // the stream is being opened
  TUNNEL_OPEN,
  TUNNEL_WAITING,  // for the next try
};

struct tunnel_queued {
  uint8_t *bytes;  // malloc'd while it waits; then the stream's
  size_t len;
  uint64_t connection;  // of the session that has sent it
  int64_t arrived_us;   // from the client: monotonic
  int64_t queued_us;    // the same, while the session is watched
  uint64_t came_ns;     // wall clock, with tracing on
};

// Messages that wait for the stream: a ring that grows on demand, and is kept when it has come to
// be empty if it is no larger than this.
enum { TUNNEL_QUEUE_KEPT = 8 };
struct tunnel_queue {
  size_t count;
  size_t bytes;
  struct tunnel_queued *ring;
  size_t room;  // a power of two, or 0
  size_t head;
};

// What every message touches comes first (see struct session), up to the queue's count.
struct tunnel {
  LIST_ENTRY(tunnel) link;  // among the player's; among the worker's draining ones
  struct worker *worker;
  struct player *player;  // NULL once it is only being drained
  struct stream *stream;
  struct trace_connection
      *trace;  // of the session that has made it, which it may outlive; NULL without tracing
  int64_t oid;
  int type;  // index into the configured types
  enum tunnel_state state;

  int64_t broken_ms;  // since when there has been no working stream; 0: there is one
  uint32_t failures;  // tries in a row that came to nothing
  int32_t last_mod;   // of the message queued last,
  int32_t last_seq;
  bool unanswered;            // to which the backend has said nothing yet
  bool full;                  // the queue is over its bound
  bool secure;                // the stream is TLS
  bool holds;                 // the master has been told to keep the route
  uint64_t last_connection;   // and of who sent it
  struct session *waits_for;  // the next message was not asked for: its client is slow; or NULL
  struct tunnel_queue queue;

  LIST_ENTRY(tunnel) held;  // among the worker's held ones of the same hash, while holds is set
  uint64_t connection;      // of the session that has made it, also when that is gone
  int64_t uid;
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];  // of the node, while opening or open
  struct route_claim claim;                   // for a node
  struct event timer;        // the next try to find one; without a player, the end of draining
  struct tunnel_move *move;  // where the route has moved to, while it can't be followed; or NULL
  int64_t sought_us;         // since when a node and a stream are sought; 0: they are not
  int64_t opened_ms;         // when the stream was opened
  struct {
    struct trace_context context;
    uint64_t start_ns;  // 0: there is none
  } opening;            // the span of the stream being opened
};

LIST_HEAD(tunnel_list, tunnel);

enum { TUNNEL_HELD_BUCKETS = 4096 };  // a power of two

const char *tunnel_state_name(enum tunnel_state state);  // "routing", "opening", ...

// Finds the tunnel of the session's player to this type and object, or makes one.
// NULL: the player has too many tunnels (*limited is then set), or memory is out.
struct tunnel *tunnel_get(struct session *session, int type, int64_t oid, bool *limited);

// Queues one message of the session's; packet->data is copied. May close the session, and the
// player's others.
void tunnel_send(struct tunnel *tunnel, struct session *session, const struct packet *packet);

// Goes on reading if it waits for this session.
void tunnel_resume(struct tunnel *tunnel, const struct session *session);

// The player lets the tunnel go. Messages that wait for a stream, open or still being opened,
// are still sent, within the time that a closing client has too; then the stream is ended
// and the tunnel freed. Others are counted as dropped.
void tunnel_release(struct tunnel *tunnel);

// Ends the tunnels that are still being drained.
void tunnel_cut_all(struct worker *worker);

// Tells the master of all routes that are held here.
void tunnel_tell_held(struct worker *worker);
// The route is another now: tunnels to elsewhere are opened anew, where it points.
void tunnel_on_route_moved(struct worker *worker, const struct channel_route_held *moved);

#endif
