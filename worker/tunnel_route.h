// Where a tunnel goes: the node is found, its route is held as long as there is a stream, and a
// route that moves meanwhile is followed. The functions that others call are in worker/tunnel.h;
// these are between tunnel.c, which has the queue and the stream, and tunnel_route.c.
#ifndef JANUS_WORKER_TUNNEL_ROUTE_H
#define JANUS_WORKER_TUNNEL_ROUTE_H

#include <stdbool.h>

#include "common/close_reason.h"
#include "common/config.h"
#include "common/node_table.h"
#include "worker/player.h"
#include "worker/tunnel.h"
#include "worker/worker.h"

static inline const struct config_tunnel_type *tunnel_type(const struct tunnel *tunnel) {
  return &tunnel->worker->config.tunnel.types[tunnel->type];
}

static inline const char *tunnel_color(const struct tunnel *tunnel) {
  return player_oldest(tunnel->player)->color;
}

// --- The route -----------------------------------------------------------------

// Of a tunnel that is being made.
void tunnel_init_route(struct tunnel *tunnel);

// Finds the node and opens the stream there, now or later. It may close the player, which frees the
// tunnel.
void tunnel_find_route(struct tunnel *tunnel);

// The same after a stream that has ended: the first time at once, and then after a while.
void tunnel_find_route_again(struct tunnel *tunnel);

// The route of a tunnel is held from before its stream is opened until that has ended. follows: the
// tunnel goes there because the master said so.
void tunnel_hold_route(struct tunnel *tunnel, bool follows);

// No node is sought, no route is held, and where that has moved to is forgotten.
void tunnel_release_route(struct tunnel *tunnel);

// --- The stream ----------------------------------------------------------------

// Of a tunnel that has none. It may close the player, which frees the tunnel.
void tunnel_open_stream(struct tunnel *tunnel, const struct node *node, bool follows);

// For another node. What the one of until now has been sent, it still answers.
void tunnel_leave_stream(struct tunnel *tunnel);

// What ails one of its tunnels is a matter of the whole player. Frees the tunnel.
void tunnel_close_player(struct tunnel *tunnel, enum close_reason reason);

#endif
