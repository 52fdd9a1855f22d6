// One client over KCP: its link, and the sessions on the link's streams. It begins with the first
// datagram, and ends when its last stream has ended, or its client falls silent.
//
// Loop thread only.
#ifndef JANUS_WORKER_KCP_CONNECTION_H
#define JANUS_WORKER_KCP_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uthash.h>

#include "common/close_reason.h"
#include "common/kcp/link.h"
#include "common/timer_wheel.h"
#include "worker/kcp_socket.h"
#include "worker/kcp_strangers.h"
#include "worker/limits.h"
#include "worker/wire_stream.h"

struct kcp_engine;
struct kcp_listener;
struct place;

struct kcp_connection {
  UT_hash_handle hh;       // by address, in its listener
  UT_hash_handle hh_conv;  // by conv, there too: several may have the same
  uint8_t key[KCP_PEER_KEY_BYTES];
  struct kcp_connection *next;  // of the same address: a client that came again (kcp_listener.c)
  struct kcp_engine *engine;
  struct kcp_listener *listener;
  struct kcp_peer peer;
  uint32_t conv;
  uint64_t client;  // for its sessions to be siblings
  struct place *place;
  struct link *link;
  struct wire_stream_list wires;
  struct wheel_timer timer;
  TAILQ_ENTRY(kcp_connection) dirty;
  bool pending;  // nobody has logged in yet
  bool is_dirty;
  bool address_validated;  // its client is where it says that it is
  bool resuming;           // some wires were resumed
  bool closing;            // its last stream has ended: what is pending goes out
  int64_t give_up_ms;      // unless somebody has logged in; when closing: in any case
  uint64_t bytes_in;       // datagrams
  uint64_t bytes_out;
  int64_t opened;                // streams, ever
  struct token_bucket opening;   // of them
  struct link_state counted;     // what the counters have of it,
  int64_t counted_ms;            // and since when
  struct kcp_stranger stranger;  // while pending
};

// For the first datagram of a client, which is to be taken in next. Takes over place. NULL when out
// of memory; then it is the caller's.
struct kcp_connection *kcp_connection_new(struct kcp_listener *listener,
                                          const struct kcp_peer *peer, uint32_t conv,
                                          struct place *place, int64_t now_ms);
// One of its datagrams. The connection may be gone after this.
void kcp_connection_input(struct kcp_connection *connection, uint8_t *bytes, size_t len,
                          int64_t now_ms);
// Whether a datagram from elsewhere, with its conv, is one that only its client can have sent: it
// brings the next message of a player, whole.
bool kcp_connection_is_next(const struct kcp_connection *connection, const uint8_t *bytes,
                            size_t len);
// Sends what is to be sent. The connection may be gone after this.
void kcp_connection_flush(struct kcp_connection *connection, int64_t now_ms);
void kcp_connection_on_timer(void *owner);

// Ends its sessions with reason, and frees it.
void kcp_connection_end(struct kcp_connection *connection, enum close_reason reason);
// The same where nobody has logged in, or what was pending was not taken. The ends of its streams
// are told once, so that a client who is there after all need not wait for its own time to be over.
void kcp_connection_give_up(struct kcp_connection *connection, int64_t now_ms);
// Frees it, at the end of a worker: no session may be left.
void kcp_connection_cut(struct kcp_connection *connection);

// For its wires: something was written or closed.
void kcp_connection_touch(struct kcp_connection *connection);
struct wire_shared *kcp_connection_wires(const struct kcp_connection *connection);
void kcp_connection_describe(const struct kcp_connection *connection,
                             const struct smux_stream *stream, struct wire_path *path);
// A player has logged in on one of its streams: it may stay.
void kcp_connection_logged_in(struct kcp_connection *connection);
// And has sent something sealed by the key that was agreed on: the client is where it says that it
// is. It is sent what there is, and others of its address are at an end.
void kcp_connection_address_validated(struct kcp_connection *connection);

#endif
