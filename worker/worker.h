// One worker: a libevent loop that owns client connections and their tunnels
// from birth to death. This struct is what its parts share; there is one in the
// process, and everything in it belongs to the loop's thread.
#ifndef JANUS_WORKER_WORKER_H
#define JANUS_WORKER_WORKER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/config.h"
#include "common/counters.h"
#include "common/deflate.h"
#include "common/log.h"
#include "common/log_output.h"
#include "common/node_table.h"
#include "common/route_table.h"
#include "common/seal.h"
#include "common/shm.h"
#include "common/stream.h"
#include "common/tls_material.h"
#include "worker/dispatch.h"
#include "worker/drain.h"
#include "worker/handshake.h"
#include "worker/limits.h"
#include "worker/node_picker.h"
#include "worker/transport.h"
#include "worker/tunnel.h"

struct acceptor;
struct inbox;
struct kcp_owners;
struct loop_lag;
struct newcomers;
struct packing;
struct player;
struct pushes;
struct route_store;
struct session;
struct trace;

LIST_HEAD(session_list, session);
LIST_HEAD(player_list, player);

enum { PLAYER_BUCKETS = 4096 };  // a power of two

// Lines that clients provoke, each kind limited by itself.
enum worker_log {
  WORKER_LOG_REFUSED,
  WORKER_LOG_OPENED,
  WORKER_LOG_CLOSED,
  WORKER_LOG_MESSAGE,
  WORKER_LOG_TUNNEL,
  WORKER_LOG_TLS,
  WORKER_LOG_PUSH,
  WORKER_LOG_ROAMED,
  WORKER_LOG_COUNT
};

struct worker {
  int index;
  struct event_base *base;
  struct config config;
  struct secrets *secrets;  // locked memory, left out of core dumps

  struct shm counters_segment;
  struct counters *counters;
  struct route_table *routes;
  struct node_table *nodes;
  struct tls_segment *tls;
  struct kcp_owners *kcp_owners;
  int kcp_mailboxes_fd;  // the first of what there is for them, where any listener is for KCP

  struct handshake_keys handshake_keys;
  struct dispatch dispatch;
  struct deflater *deflater;
  struct node_picker *node_picker;
  struct stream_engine *streams;
  struct route_store *route_store;
  struct inbox *inbox;
  struct pushes *pushes;
  struct packing *packing;
  struct newcomers *newcomers;
  struct trace *trace;  // NULL: there is no tracing
  struct acceptor *acceptor;
  struct loop_lag *loop_lag;
  struct wire_shared wires;
  struct transport_gone transport_gone;

  struct session_list sessions;          // all that are not closed
  struct session *logged_in;             // of these, uthash by connection
  struct session_list dead_sessions;     // closed in this turn of the loop, to be freed after it
  struct event *bury;                    // frees them
  struct session_list watched_sessions;  // of the logged-in ones, whom an operator follows
  struct token_bucket watched_packets;   // that may be told of them
  struct player_list shared_players[PLAYER_BUCKETS];  // whose client may log in on more streams
  struct tunnel_list draining_tunnels;  // without a player, sending what they still hold
  struct tunnel_list held_tunnels[TUNNEL_HELD_BUCKETS];  // whose route the master keeps
  const struct timeval *handshake_timeout;               // common timeouts: cheap in large numbers
  const struct timeval *idle_timeout;
  struct timeval handshake_timeout_value;
  struct timeval idle_timeout_value;
  struct token_bucket handshakes;
  struct token_bucket kcp_handshakes;  // with addresses that may be forged
  struct token_bucket tls_handshakes;
  struct client_rates client_rates;
  uint8_t *send_buffer;  // one message under construction
  size_t send_buffer_bytes;
  struct log_limit log_limits[WORKER_LOG_COUNT];

  struct drain drain;
  bool stopping;
};

// Runs the worker numbered index on the descriptors that the master handed over
// (common/handover.h), until it is told to stop. Returns the exit status.
int worker_run(int index);

// Stops accepting, closes every session with reason, and leaves the loop when
// all is flushed or worker.stop_timeout is over.
void worker_stop(struct worker *worker, enum close_reason reason);

// Whether a line of this kind may be written now; one that may not is counted.
// *suppressed is how many were left out since the last.
bool worker_may_log(struct worker *worker, enum worker_log kind, uint64_t *suppressed);

// For whoever lets go of the last thing that a stopping worker waits for.
void worker_leave_if_done(struct worker *worker);

#endif
