// What goes to a session's client: answers and pushes, sealed; and what is done while it is
// slower than they come. The functions that others call are in worker/session.h; these are
// for session.c alone.
#ifndef JANUS_WORKER_SESSION_OUTPUT_H
#define JANUS_WORKER_SESSION_OUTPUT_H

#include "common/close_reason.h"
#include "worker/session.h"

// The last word to a client that is to be logged out.
void session_send_logout(struct session *session, enum logout_code code);

// Of a packet that waited to be compressed (worker/packing.h).
void session_on_packed(struct session *session, const struct packet *packet,
                       const struct packet *packed, int error);

// The session ends: the pushes that wait go to its sibling, or, if that is NULL, nowhere.
void session_leave_pushes(struct session *session, struct session *sibling);

// For the transport: what was waiting has fallen below queue.client_low_bytes.
void session_on_drained(void *owner);

// For the grace timer.
void session_on_grace_over(evutil_socket_t fd, short what, void *owner);

#endif
