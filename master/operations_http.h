// The operations port, server.http: what can be asked of the gateway over HTTP.
//
//   POST /push, /multicast, /broadcast    pushes (master/push_http.h)
//   GET  /health, /health/ready          how it is (master/health_http.h)
//   GET  /metrics                        for Prometheus (master/metrics.h)
//   GET  /stats/...                       its numbers (master/stats_http.h)
//   GET  /web/                            the browser client, server.http.web (master/web_page.h)
//
// Loop thread only.
#ifndef JANUS_MASTER_OPERATIONS_HTTP_H
#define JANUS_MASTER_OPERATIONS_HTTP_H

#include <event2/event.h>
#include <stddef.h>

#include "common/config.h"
#include "common/counters.h"
#include "master/http_server.h"
#include "master/listeners.h"
#include "master/push_access.h"
#include "master/push_hub.h"

struct operations_http;

enum { OPERATIONS_HTTP_REPORTS_MAX = 16 };

// All borrowed, for as long as the port is open.
struct operations_http_options {
  const struct config *config;
  const struct push_access *access;
  struct counters *counters;
  // What else can be read there, by anybody, from those who know it. Borrowed for the call.
  const struct http_route *reports;
  size_t report_count;
};

// Listens at once; pushes are refused (503) until operations_http_serve. Reads the browser
// client's files, so only at start-up. NULL with the reason in why.
struct operations_http *operations_http_new(struct event_base *base,
                                            const struct operations_http_options *options,
                                            char *why, size_t why_size);
// Requests under way are dropped. Before the hub; orders that are still with it are answered
// into nothing. Accepts NULL.
void operations_http_free(struct operations_http *operations);

// From here on pushes go to hub; NULL: they are refused (503).
void operations_http_serve(struct operations_http *operations, struct push_hub *hub);

// As bound: "127.0.0.1:18100".
const char *operations_http_address(const struct operations_http *operations);
const struct listeners *operations_http_socket(const struct operations_http *operations);
int operations_http_port(const struct operations_http *operations);
void operations_http_counts(const struct operations_http *operations,
                            struct http_server_counts *counts);

#endif
