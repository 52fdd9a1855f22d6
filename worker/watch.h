// A session that an operator follows (janusctl trace): each of its packets, with its header,
// sizes and times, is told to the master; never what it carries. A worker tells so many of them
// in a second and no more, and none when the channel has no room: what is left out is counted,
// and told with the next, so that no player ever waits for it.
//
// Whoever calls looks at session->watched first, but for watch_tunnel_event. Loop thread only.
#ifndef JANUS_WORKER_WATCH_H
#define JANUS_WORKER_WATCH_H

#include <stdint.h>

#include "common/channel.h"
#include "common/packet.h"
#include "worker/session.h"
#include "worker/tunnel.h"
#include "worker/worker.h"

// From the inbox: begins, or ends.
void watch_on_watch(struct worker *worker, const struct channel_watch *watch);
// There is nobody more to tell.
void watch_end_all(struct worker *worker);
// The session is closed.
void watch_session_end(struct session *session);
// Each second: tells what has been left out where nothing more has come.
void watch_tick(struct worker *worker);

// Something has come, of so many bytes as they were on the wire; what becomes of it is timed
// from here until watch_done.
void watch_arrived(struct session *session, size_t wire_bytes);
void watch_done(struct session *session);

// A packet of the client's, whose data was of so many bytes before it was inflated.
void watch_from_client(struct session *session, const struct packet *packet, size_t data_bytes,
                       size_t plain_bytes);
// A packet that has been given to the transport, and a push that has, maybe after it had waited
// aside.
void watch_to_client(struct session *session, const struct packet *packet, size_t plain_bytes,
                     size_t sealed_bytes);
void watch_push(struct session *session, const struct push *push, size_t sealed_bytes, bool waited);
// A message given to the tunnel's stream; one that has come from there (tunnel NULL: from a
// node that the session has left).
void watch_to_tunnel(struct session *session, const struct tunnel *tunnel,
                     const struct tunnel_queued *queued);
void watch_from_tunnel(struct session *session, const struct tunnel *tunnel,
                       const struct packet *packet, size_t len);

// Something else that befell the session; or the tunnel of a player, with the status by which it
// broke: for each of his sessions that is watched.
void watch_event(struct session *session, enum channel_watched_kind kind);
void watch_tunnel_event(const struct tunnel *tunnel, enum channel_watched_kind kind, int status);

#endif
