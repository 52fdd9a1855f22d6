// GET /health and /health/ready: whether the gateway lives, and whether players may be sent here
// (master/readiness.h). Anybody may ask. Loop thread only.
#ifndef JANUS_MASTER_HEALTH_HTTP_H
#define JANUS_MASTER_HEALTH_HTTP_H

#include <stdint.h>

#include "master/http_server.h"
#include "master/readiness.h"

enum { HEALTH_HTTP_ROUTES = 2 };

struct health_http {
  void (*evaluate)(struct readiness *readiness, void *owner);
  void *owner;
  int64_t started_ms;  // wall clock
};

// Puts its routes at routes + count; returns the new count. health is borrowed for their life.
size_t health_http_routes(struct health_http *health, struct http_route *routes, size_t count);

#endif
