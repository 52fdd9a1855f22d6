// janusctl's commands about routes and nodes.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/redis_routes.h"
#include "master/control_command.h"
#include "master/registry.h"
#include "master/routes.h"
#include "master/stats.h"

struct listing {
  json_t *rows;
  size_t limit;
  int64_t now_ms;
  const char *tier;  // NULL for all
};

static bool list_route(const struct route_key *key, const struct route *route, void *context) {
  struct listing *listing = context;
  if (json_array_size(listing->rows) >= listing->limit) {
    return false;
  }
  if (listing->tier && strcmp(listing->tier, route_tier_name(key->tier)) != 0) {
    return true;
  }
  json_array_append_new(
      listing->rows,
      json_pack("{s:s, s:s, s:o, s:I, s:s, s:s, s:I}", "tier", route_tier_name(key->tier),
                "service", key->service, "color", json_foreign_text(key->color), "oid",
                (json_int_t)key->oid, "address", route->address, "state",
                route->in_doubt ? "in doubt" : "known", "expires_in_ms",
                (json_int_t)(route->expires_at_ms - listing->now_ms)));
  return true;
}

static json_t *route_stats(const struct master *master) {
  json_t *answer = control_ok();
  json_object_update_missing_new(answer, stats_route_table(master));
  return answer;
}

json_t *control_routes(struct master *master, const json_t *request, struct question *question) {
  struct listing listing = {.rows = json_array(),
                            .limit = control_list_limit(request),
                            .now_ms = clock_wall_ms(),
                            .tier = json_string_value(json_object_get(request, "tier"))};
  (void)question;
  json_t *answer = route_stats(master);
  route_table_each(master->route_table, listing.now_ms, list_route, &listing);
  json_object_set_new(answer, "routes", listing.rows);
  return answer;
}

json_t *control_route_stats(struct master *master, const json_t *request,
                            struct question *question) {
  (void)request;
  (void)question;
  return route_stats(master);
}

// The service that a tier's routes have: the one asked for, or the first that there is.
static const char *service_of(const struct master *master, const char *tier, const char *asked) {
  const struct config *config = &master->config;
  if (asked) {
    return asked;
  }
  for (size_t i = 0; i < config->tunnel.type_count; i++) {
    if (tier && strcmp(tier, route_tier_name(config->tunnel.types[i].tier)) == 0) {
      return config->tunnel.types[i].service;
    }
  }
  return config->label.service;
}

static void on_route_found(int error, const char *address, int64_t ttl_ms, void *context) {
  struct question *question = context;
  json_t *answer = question->answer;
  json_object_set_new(
      answer, "store",
      error == 0 ? json_pack("{s:s, s:I}", "address", address, "expires_in_ms", (json_int_t)ttl_ms)
                 : json_null());
  if (error != 0) {
    json_object_set_new(answer, "store_says",
                        json_string(error == ERROR_NOT_FOUND   ? "no such route"
                                    : error == ERROR_MALFORMED ? "what stands there is no route"
                                                               : "no answer"));
  }
  question->reply(answer, question->context);
  free(question);
}

// One route: what the workers see of it, what the store says, and who holds it.
json_t *control_route_get(struct master *master, const json_t *request, struct question *question) {
  const char *tier = json_string_value(json_object_get(request, "tier"));
  const char *asked_color = json_string_value(json_object_get(request, "color"));
  const json_t *oid = json_object_get(request, "oid");
  struct route_key key = {
      .service = service_of(master, tier, json_string_value(json_object_get(request, "service"))),
      .color = asked_color ? asked_color : master->config.label.color,
      .oid = json_integer_value(oid)};
  char text[REDIS_ROUTES_KEY_BYTES];
  struct route route;
  int64_t now_ms = clock_wall_ms();
  while (key.tier < ROUTE_TIER_COUNT && (!tier || strcmp(tier, route_tier_name(key.tier)) != 0)) {
    key.tier++;
  }
  if (key.tier == ROUTE_TIER_COUNT || !json_is_integer(oid) ||
      strlen(key.service) > ROUTE_SERVICE_MAX_BYTES || strlen(key.color) > ROUTE_COLOR_MAX_BYTES) {
    return control_error("a route is named by tier, oid, and maybe color and service");
  }
  redis_routes_key(&key, text);
  json_t *answer = control_ok();
  json_object_set_new(answer, "key", json_foreign_text(text));
  int found = route_table_lookup(master->route_table, &key, now_ms, &route);
  json_object_set_new(answer, "table",
                      found == 0
                          ? json_pack("{s:s, s:I}", "address", route.address, "expires_in_ms",
                                      (json_int_t)(route.expires_at_ms - now_ms))
                          : json_null());
  if (found == ERROR_EXPIRED) {
    json_object_set_new(answer, "guess", json_string(route.address));
  }
  uint32_t tunnels = 0;
  for (uint32_t i = 0; i < master->config.tunnel.type_count; i++) {
    const struct tunnel_route name = {.type = i, .color = key.color, .oid = key.oid};
    const struct held_route *held = strcmp(master->config.tunnel.types[i].service, key.service) == 0
                                        ? held_routes_find(routes_held_index(master->routes), &name)
                                        : NULL;
    tunnels += held ? held->total : 0;
  }
  json_object_set_new(answer, "tunnels", json_integer(tunnels));
  struct question *later = malloc(sizeof *later);
  if (!later) {
    json_decref(answer);
    return control_error("out of memory");
  }
  *later = *question;
  later->answer = answer;
  int error = routes_get(master->routes, &key, on_route_found, later);
  if (error != 0) {
    on_route_found(error == ERROR_NOT_FOUND ? ERROR_BUSY : error, NULL, 0, later);
  }
  return NULL;
}

struct node_tunnels {
  const struct config *config;
  struct node *nodes;  // sorted by service and address
  size_t node_count;
  json_int_t *tunnels;  // of each
};

static void count_tunnels(const struct held_route *route, void *context) {
  struct node_tunnels *of = context;
  struct node wanted;
  snprintf(wanted.service, sizeof wanted.service, "%s",
           of->config->tunnel.types[route->key->tunnel_type].service);
  snprintf(wanted.address, sizeof wanted.address, "%s", route->address);
  const struct node *node =
      bsearch(&wanted, of->nodes, of->node_count, sizeof *of->nodes, node_compare);
  if (node) {
    of->tunnels[node - of->nodes] += route->total;
  }
}

json_t *control_nodes(struct master *master, const json_t *request, struct question *question) {
  (void)request;
  (void)question;
  struct node_tunnels of = {.config = &master->config};
  of.node_count = master_read_nodes(master, &of.nodes);
  of.tunnels = calloc(of.node_count + 1, sizeof *of.tunnels);
  json_t *rows = json_array();
  if (of.node_count > 0 && of.tunnels) {
    qsort(of.nodes, of.node_count, sizeof *of.nodes, node_compare);
    held_routes_each(routes_held_index(master->routes), count_tunnels, &of);
  }
  for (size_t i = 0; of.tunnels && i < of.node_count; i++) {
    const struct node *node = &of.nodes[i];
    // Held: etcd has it no more, see etcd.empty_hold. Draining: it takes nobody new.
    const char *state = registry_is_held(master->registry, node) ? "held"
                        : node->weight == 0                      ? "draining"
                                                                 : "up";
    json_array_append_new(
        rows, json_pack("{s:s, s:s, s:s, s:I, s:s, s:b, s:I, s:I}", "service", node->service,
                        "address", node->address, "color", node->color, "weight",
                        (json_int_t)node->weight, "state", state, "tls", node->secure, "since_ms",
                        (json_int_t)node->since_ms, "tunnels", of.tunnels[i]));
  }
  free(of.tunnels);
  free(of.nodes);
  json_t *answer = control_ok();
  json_object_set_new(answer, "nodes", rows);
  return answer;
}
