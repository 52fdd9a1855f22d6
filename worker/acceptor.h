// From the listening sockets to sessions, within the limits on connections.
//
// A connection has a place from its acceptance on, until its descriptor is closed. Before it
// becomes a session it is an arrival (arrival.h).
#ifndef JANUS_WORKER_ACCEPTOR_H
#define JANUS_WORKER_ACCEPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "common/close_reason.h"
#include "common/config.h"
#include "worker/transport.h"

struct acceptor;
struct address_count;
struct address_limits;
struct arrival;
struct kcp_engine;
struct kcp_listener;
struct worker;

LIST_HEAD(arrival_list, arrival);

// One listening socket. Owned by the acceptor.
struct listener {
  struct acceptor *acceptor;
  const struct config_listener *config;
  int fd;  // -1 once stopped, and for KCP
  int port;
  struct event *acceptable;  // NULL for KCP
  struct kcp_listener *kcp;  // NULL for all else
  SSL_CTX *tls;              // NULL without
  struct address_limits *addresses;
  size_t open_connections;
  struct websocket_rules websocket_rules;
  struct websocket_options websocket;
};

struct acceptor {
  struct worker *worker;
  struct listener listeners[CONFIG_LISTENERS];
  size_t listener_count;
  int reserve;  // given up to refuse a client cleanly when descriptors run out
  struct event *backoff;
  struct address_limits *addresses;
  struct websocket_shared *websockets;
  struct kcp_engine *kcp;  // NULL without a listener for KCP
  size_t open_connections;
  struct arrival_list arrivals;
};

// Takes over the listening sockets, first_fd and those after it, in the order of
// config_listener_next. NULL with the reason in why.
struct acceptor *acceptor_new(struct worker *worker, int first_fd, char *why, size_t why_size);
// Takes the certificates and keys as the master publishes them now; connections that stand keep
// theirs. Returns what is wrong, and all is as before; or NULL.
const char *acceptor_load_tls(struct acceptor *acceptor, char *why, size_t why_size);
// What it derives from the configuration, which has changed; not the keys of TLS.
void acceptor_apply_settings(struct acceptor *acceptor);
void acceptor_start(struct acceptor *acceptor);  // accepts, from here on
void acceptor_free(struct acceptor *acceptor);

// Accepts no more, until it is started again.
void acceptor_rest(struct acceptor *acceptor);
// Never again: the sockets are another worker's. Over KCP those who are in stay.
void acceptor_give_up_listeners(struct acceptor *acceptor);
// But nobody else reads them any more: over KCP those who are in are heard again.
void acceptor_read_on(struct acceptor *acceptor);
// Accepts nobody any more, and closes whatever has not become a session.
void acceptor_stop(struct acceptor *acceptor, enum close_reason reason);

// Client sockets that are open, those that are only being flushed among them.
size_t acceptor_open_connections(const struct acceptor *acceptor);

// --- For arrivals --------------------------------------------------------------------

// The place of one connection at its listener.
struct place {
  struct listener *listener;
  struct address_count *of_all;       // NULL until its address is known
  struct trace_connection *trace;     // NULL without tracing, and for KCP: its streams have theirs
  struct address_count *of_listener;  // NULL as long
};

// NULL with the reason.
struct place *acceptor_take_place(struct listener *listener, enum close_reason *reason);
// Whether the listener's lists let clients of this address in.
bool acceptor_allows(const struct listener *listener, const struct sockaddr *address);
// Counts it for this address; false: there are too many, or memory is out.
bool acceptor_count_address(struct place *place, const struct sockaddr *address);
void acceptor_leave_place(struct place *place);

// Counts and logs a connection that became no session; its descriptor is closed.
void acceptor_refused(struct listener *listener, const struct sockaddr *address,
                      socklen_t address_len, enum close_reason reason);

#endif
