// From the listening socket to sessions, within the limits on connections.
#ifndef JANUS_WORKER_ACCEPTOR_H
#define JANUS_WORKER_ACCEPTOR_H

#include <stddef.h>

struct acceptor;
struct worker;

// Takes over the listening socket. NULL when out of memory.
struct acceptor *acceptor_new(struct worker *worker, int listener);
void acceptor_start(struct acceptor *acceptor);  // accepts, from here on
void acceptor_free(struct acceptor *acceptor);

// Accepts no more and closes the worker's copy of the socket.
void acceptor_stop(struct acceptor *acceptor);

// Client sockets that are open, those that are only being flushed among them.
size_t acceptor_open_connections(const struct acceptor *acceptor);

// A connection's descriptor was closed; cookie is the one that its session was
// given.
void acceptor_on_gone(struct acceptor *acceptor, void *cookie);

#endif
