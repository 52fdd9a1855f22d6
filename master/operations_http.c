#include "master/operations_http.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/http_server.h"
#include "master/push_http.h"
#include "master/web_page.h"

enum {
  CONNECTIONS_MAX = 64,
  CONNECTIONS_PER_ADDRESS = 32,
  PUSH_ROUTES = 3,
};

struct operations_http {
  struct http_server *server;
  struct push_http pushes;
  struct web_page *page;  // NULL: none
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
  struct http_route routes[PUSH_ROUTES + OPERATIONS_HTTP_REPORTS_MAX + WEB_PAGE_ROUTES_MAX] = {
      {"/push", "POST", push_http_on_push, &push_http_rules, pushes},
      {"/multicast", "POST", push_http_on_multicast, &push_http_rules, pushes},
      {"/broadcast", "POST", push_http_on_broadcast, &push_http_rules, pushes},
  };
  size_t route_count = PUSH_ROUTES;
  assert(options->report_count <= OPERATIONS_HTTP_REPORTS_MAX);
  for (size_t i = 0; i < options->report_count; i++) {
    routes[route_count++] = options->reports[i];
  }
  const char *folder = options->config->server.http.web;
  if (folder[0] != '\0') {
    operations->page = web_page_load(folder, why, why_size);
    if (!operations->page) {
      free(operations);
      return NULL;
    }
    route_count = web_page_routes(operations->page, routes, route_count);
  }
  const struct http_server_options server_options = {
      .address = options->config->server.http.addr,
      .connections_max = CONNECTIONS_MAX,
      .connections_per_address = CONNECTIONS_PER_ADDRESS,
      .timeout_ms = options->config->server.http.timeout_ms,
      .routes = routes,
      .route_count = route_count,
  };
  operations->server = http_server_new(base, &server_options, why, why_size);
  if (!operations->server) {
    operations_http_free(operations);
    return NULL;
  }
  return operations;
}

void operations_http_free(struct operations_http *operations) {
  if (operations) {
    http_server_free(operations->server);
    web_page_free(operations->page);
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

const struct listeners *operations_http_socket(const struct operations_http *operations) {
  return http_server_socket(operations->server);
}

const char *operations_http_address(const struct operations_http *operations) {
  return http_server_address(operations->server);
}

int operations_http_port(const struct operations_http *operations) {
  return (int)strtol(strrchr(operations_http_address(operations), ':') + 1, NULL, 10);
}
