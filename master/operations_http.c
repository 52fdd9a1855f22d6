#include "master/operations_http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/http_server.h"
#include "master/push_http.h"

enum {
  CONNECTIONS_MAX = 64,
  CONNECTIONS_PER_ADDRESS = 32,
};

struct operations_http {
  struct http_server *server;
  struct push_http pushes;
};

struct operations_http *operations_http_new(struct event_base *base,
                                            const struct operations_http_options *options,
                                            char *why, size_t why_size) {
  struct operations_http *operations = calloc(1, sizeof *operations);
  if (!operations) {
    snprintf(why, why_size, "out of memory");
    return NULL;
  }
  struct push_http *pushes = &operations->pushes;
  *pushes = (struct push_http){.access = options->access, .counters = options->counters};
  const struct http_route routes[] = {
      {"/push", "POST", push_http_on_push, &push_http_rules, pushes},
      {"/multicast", "POST", push_http_on_multicast, &push_http_rules, pushes},
      {"/broadcast", "POST", push_http_on_broadcast, &push_http_rules, pushes},
  };
  const struct http_server_options server_options = {
      .address = options->config->server.http.addr,
      .connections_max = CONNECTIONS_MAX,
      .connections_per_address = CONNECTIONS_PER_ADDRESS,
      .timeout_ms = options->config->server.http.timeout_ms,
      .routes = routes,
      .route_count = sizeof routes / sizeof routes[0],
  };
  operations->server = http_server_new(base, &server_options, why, why_size);
  if (!operations->server) {
    free(operations);
    return NULL;
  }
  return operations;
}

void operations_http_free(struct operations_http *operations) {
  if (operations) {
    http_server_free(operations->server);
    free(operations);
  }
}

void operations_http_serve(struct operations_http *operations, struct push_hub *hub) {
  operations->pushes.hub = hub;
}

void operations_http_counts(const struct operations_http *operations,
                            struct http_server_counts *counts) {
  http_server_counts(operations->server, counts);
}

const char *operations_http_address(const struct operations_http *operations) {
  return http_server_address(operations->server);
}

int operations_http_port(const struct operations_http *operations) {
  return (int)strtol(strrchr(operations_http_address(operations), ':') + 1, NULL, 10);
}
