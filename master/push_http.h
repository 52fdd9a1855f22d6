// Pushes over HTTP: what stands behind POST /push, /multicast and /broadcast of the
// operations port (master/operations_http.h), in the form of push_json.h.
//
// 200: understood. 413, 503: a push to one player, or a broadcast, was refused, since a body
// is too large, or to be tried again; 400: malformed; 401: no token, or a wrong one; 403:
// not from this address. Loop thread only.
#ifndef JANUS_MASTER_PUSH_HTTP_H
#define JANUS_MASTER_PUSH_HTTP_H

#include "master/http_server.h"
#include "master/push_access.h"
#include "master/push_hub.h"

// The owner of the routes; all of it borrowed.
struct push_http {
  const struct push_access *access;
  struct push_hub *hub;  // NULL: the gateway is starting, and pushes are refused
  struct counters *counters;
};

// For the table of routes, with a struct push_http as owner. An order that is still with the
// hub when its request is gone is answered into nothing.
extern const struct http_rules push_http_rules;
void push_http_on_push(struct http_request *request, void *owner);
void push_http_on_multicast(struct http_request *request, void *owner);
void push_http_on_broadcast(struct http_request *request, void *owner);

#endif
