// A connection between its acceptance and its session: whose it is, where a proxy tells that,
// whether that address may come in, and the handshake of TLS.
#ifndef JANUS_WORKER_ARRIVAL_H
#define JANUS_WORKER_ARRIVAL_H

#include <sys/socket.h>

#include "common/close_reason.h"

struct arrival;
struct listener;

// Takes over fd, connected and non-blocking. It becomes a session, or is refused, within
// limits.handshake_timeout.
void arrival_new(struct listener *listener, int fd, const struct sockaddr_storage *address,
                 socklen_t address_len);

// Closes it.
void arrival_refuse(struct arrival *arrival, enum close_reason reason);

#endif
