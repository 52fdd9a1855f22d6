// One UDP socket on which clients of KCP come in: whose a datagram is, and who may begin a
// connection.
//
// Datagrams of one client come to one socket of the group, and so to one worker, by a hash of its
// address (master/listeners.h). One that comes to another worker than the one that has its
// connection is handed over to that (worker/kcp_forwarder.h): so it is after the number of workers
// has changed, and for as long as a worker that was replaced still has players.
//
// Loop thread only.
#ifndef JANUS_WORKER_KCP_LISTENER_H
#define JANUS_WORKER_KCP_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/kcp_engine.h"
#include "worker/kcp_socket.h"

struct kcp_connection;
struct listener;

struct kcp_listener {
  struct kcp_engine *engine;
  struct listener *listener;
  struct kcp_socket *socket;
  struct kcp_connection *connections;  // uthash by address
  struct kcp_connection *by_conv;      // uthash
  bool accepting;
};

// For one of the acceptor's listeners. Takes over fd. NULL when out of memory.
struct kcp_listener *kcp_listener_new(struct kcp_engine *engine, struct listener *of_acceptor,
                                      int fd);
void kcp_listener_free(struct kcp_listener *listener);  // its connections too; accepts NULL

// Reads, and lets new clients in.
void kcp_listener_start(struct kcp_listener *listener);
// Reads, and lets nobody in.
void kcp_listener_rest(struct kcp_listener *listener);
// Cuts off the connections on which no stream is open: they have nothing to be told. Not within
// anything that a connection does.
void kcp_listener_stop(struct kcp_listener *listener);
// The socket is another worker's: reads no more. Answers leave by it all the same.
void kcp_listener_give_up(struct kcp_listener *listener);
// That one is leaving, too: reads again, and lets nobody in.
void kcp_listener_read_on(struct kcp_listener *listener);

// One datagram, wherever it was read; handed: another worker has handed it over.
void kcp_listener_take(struct kcp_listener *listener, const struct kcp_peer *peer, uint8_t *bytes,
                       size_t len, bool handed);

void kcp_listener_send(struct kcp_listener *listener, const struct kcp_peer *peer,
                       const uint8_t *bytes, size_t len);
void kcp_listener_flush(struct kcp_listener *listener);

// For a connection whose client is known to be there: others that had its address are at an end.
void kcp_listener_supersede(struct kcp_listener *listener, struct kcp_connection *connection);
// For a connection that is at its end.
void kcp_listener_forget(struct kcp_listener *listener, struct kcp_connection *connection);

#endif
