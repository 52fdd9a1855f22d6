// GET /stats/connections, /workers, /tunnels, /routes, /build: the gateway's numbers
// (master/stats.h), for whoever reaches the port. No player is named. Loop thread only.
#ifndef JANUS_MASTER_STATS_HTTP_H
#define JANUS_MASTER_STATS_HTTP_H

#include "master/http_server.h"
#include "master/master.h"

enum { STATS_HTTP_ROUTES = 5 };

// Puts its routes at routes + count; returns the new count. master is borrowed for their life.
size_t stats_http_routes(struct master *master, struct http_route *routes, size_t count);

#endif
