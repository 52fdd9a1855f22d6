#include "master/stats_http.h"

#include "master/json_http.h"
#include "master/stats.h"

static void on_connections(struct http_request *request, void *owner) {
  json_http_answer(request, 200, stats_connections(owner));
}

static void on_workers(struct http_request *request, void *owner) {
  json_http_answer(request, 200, json_pack("{s:o}", "workers", stats_workers(owner)));
}

static void on_tunnels(struct http_request *request, void *owner) {
  json_http_answer(request, 200, stats_tunnels(owner));
}

static void on_routes(struct http_request *request, void *owner) {
  json_http_answer(request, 200, stats_routes(owner));
}

static void on_build(struct http_request *request, void *owner) {
  json_http_answer(request, 200, stats_build(owner));
}

size_t stats_http_routes(struct master *master, struct http_route *routes, size_t count) {
  routes[count++] = (struct http_route){"/stats/connections", "GET", on_connections, NULL, master};
  routes[count++] = (struct http_route){"/stats/workers", "GET", on_workers, NULL, master};
  routes[count++] = (struct http_route){"/stats/tunnels", "GET", on_tunnels, NULL, master};
  routes[count++] = (struct http_route){"/stats/routes", "GET", on_routes, NULL, master};
  routes[count++] = (struct http_route){"/stats/build", "GET", on_build, NULL, master};
  return count;
}
