#include "master/control.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/redis_routes.h"
#include "master/master.h"
#include "master/registry.h"
#include "master/routes.h"

enum {
  REQUEST_MAX_BYTES = 4096,
  CLIENTS_MAX = 16,
  LIST_DEFAULT = 100,
  LIST_MAX = 100000,
};
static const struct timeval client_timeout = {.tv_sec = 10};

// One connection of janusctl's: a question and its answer.
struct client {
  LIST_ENTRY(client) link;
  struct control *control;
  struct bufferevent *buffer;  // NULL: gone, while its answer is awaited
  bool awaiting;               // the rest of its answer comes from elsewhere, later
  json_t *answer;              // what there is of it
};

LIST_HEAD(client_list, client);

struct control {
  struct master *master;
  struct evconnlistener *listener;
  struct client_list clients;
  int client_count;
  char path[sizeof((struct sockaddr_un *)NULL)->sun_path];
};

// --- Answers -------------------------------------------------------------------------

static json_t *answer_ok(void) { return json_pack("{s:b}", "ok", 1); }

static json_t *answer_error(const char *text) {
  return json_pack("{s:b, s:s}", "ok", 0, "error", text);
}

// How many rows a list may have, by the request.
static size_t list_limit(const json_t *request) {
  const json_t *limit = json_object_get(request, "limit");
  json_int_t value = json_is_integer(limit) ? json_integer_value(limit) : LIST_DEFAULT;
  return value < 0 ? 0 : value > LIST_MAX ? LIST_MAX : (size_t)value;
}

static void read_total(const struct master *master, struct counters_values *total) {
  counters_read(master->counters, total);
  for (int i = 0; i < workers_count(master->workers); i++) {
    struct counters_values values;
    workers_read_counters(master->workers, i, &values);
    counters_sum(total, &values, true);
  }
}

static size_t node_count(const struct master *master, struct node **nodes) {
  size_t count = 0;
  uint64_t version;
  *nodes = NULL;
  return node_table_read(master->nodes, nodes, &count, &version) == 0 ? count : 0;
}

// A text of another program's, which need not be UTF-8.
static json_t *foreign_text(const char *text) {
  json_t *string = json_string(text);
  return string ? string : json_string("(binary)");
}

static json_t *link_to_json(const char *name, const char *state, const char *where, int64_t lost,
                            const char *last_error, int64_t last_error_ms) {
  json_t *one = json_pack("{s:s, s:s, s:o, s:I}", "name", name, "state", state, "where",
                          foreign_text(where), "lost", (json_int_t)lost);
  if (last_error_ms != 0) {
    json_object_set_new(one, "last_error", foreign_text(last_error));
    json_object_set_new(one, "last_error_ms", json_integer((json_int_t)last_error_ms));
  }
  return one;
}

// How the gateway stands with etcd and Redis; empty where it needs neither.
static json_t *links_to_json(const struct master *master) {
  json_t *links = json_array();
  struct etcd_health etcd;
  struct routes_health routes;
  if (registry_health(master->registry, &etcd)) {
    json_t *one = link_to_json("etcd", etcd.state, etcd.endpoint, (int64_t)etcd.sessions_lost,
                               etcd.last_error, etcd.last_error_ms);
    json_object_set_new(one, "registered", json_boolean(etcd.announced));
    json_object_set_new(one, "revision", json_integer((json_int_t)etcd.revision));
    json_object_set_new(one, "since_ms", json_integer((json_int_t)etcd.since_ms));
    json_array_append_new(links, one);
  }
  routes_health(master->routes, &routes);
  if (routes.redis) {
    const char *state = routes.link.masters == 0                        ? "connecting"
                        : routes.link.masters_up == routes.link.masters ? "up"
                        : routes.link.masters_up > 0                    ? "partly up"
                                                                        : "down";
    json_t *one = link_to_json("redis", state, master->config.data.redis.addr,
                               (int64_t)routes.link.reconnects, routes.link.last_error,
                               routes.link.last_error_ms);
    json_object_set_new(one, "masters", json_integer((json_int_t)routes.link.masters));
    json_object_set_new(one, "masters_up", json_integer((json_int_t)routes.link.masters_up));
    json_object_set_new(one, "queued_writes", json_integer((json_int_t)routes.queued_writes));
    json_object_set_new(one, "since_ms", json_integer((json_int_t)routes.link.since_ms));
    json_array_append_new(links, one);
    state = routes.feed.live < routes.feed.masters || routes.feed.masters == 0 ? "connecting"
            : routes.feed.scanning > 0                                         ? "reading"
                                                                               : "following";
    one = link_to_json("route feed", state, master->config.data.redis.addr, 0,
                       routes.feed.last_error, routes.feed.last_error_ms);
    json_object_set_new(one, "waiting_keys", json_integer((json_int_t)routes.feed.waiting_keys));
    json_array_append_new(links, one);
  }
  return links;
}

static json_t *answer_status(struct master *master, const json_t *request, struct client *client) {
  (void)request;
  (void)client;
  struct counters_values total;
  struct node *nodes;
  size_t nodes_known = node_count(master, &nodes);
  int64_t now_ms = clock_wall_ms();
  free(nodes);
  read_total(master, &total);
  return json_pack(
      "{s:b, s:s, s:I, s:s, s:I, s:I, s:s, s:s, s:[{s:s, s:s}], s:s, s:{s:i, s:i}, s:I, s:I, s:I, "
      "s:I, s:o}",
      "ok", 1, "version", JANUS_VERSION, "pid", (json_int_t)getpid(), "state",
      master->stopping ? "stopping" : "running", "started_at_ms", (json_int_t)master->started_ms,
      "uptime_ms", (json_int_t)(now_ms - master->started_ms), "registry",
      master->config.registry.source == REGISTRY_ETCD ? "etcd" : "static", "routes",
      master->config.routes.store == ROUTES_REDIS ? "redis" : "memory", "listeners", "transport",
      "tcp", "address", master->tcp.address, "advertise", master->config.server.grpc.advertise,
      "workers", "configured", workers_count(master->workers), "running",
      workers_running(master->workers), "sessions", (json_int_t)directory_count(master->directory),
      "connections", (json_int_t)total.gauge[GAUGE_CONNECTIONS], "tunnels",
      (json_int_t)total.gauge[GAUGE_TUNNELS], "nodes", (json_int_t)nodes_known, "links",
      links_to_json(master));
}

static json_t *values_to_json(const struct counters_values *values) {
  json_t *counters = json_object();
  json_t *closed = json_object();
  json_t *gauges = json_object();
  for (int i = 0; i < COUNTER_COUNT; i++) {
    json_object_set_new(counters, counter_name((enum counter)i),
                        json_integer((json_int_t)values->counter[i]));
  }
  for (int i = 0; i < CLOSE_REASON_COUNT; i++) {
    json_object_set_new(closed, close_reason_name((enum close_reason)i),
                        json_integer((json_int_t)values->closed[i]));
  }
  for (int i = 0; i < GAUGE_COUNT; i++) {
    json_object_set_new(gauges, gauge_name((enum gauge)i),
                        json_integer((json_int_t)values->gauge[i]));
  }
  return json_pack("{s:o, s:o, s:o}", "counters", counters, "closed", closed, "gauges", gauges);
}

static json_t *answer_stats(struct master *master, const json_t *request, struct client *client) {
  (void)request;
  (void)client;
  struct counters_values total;
  json_t *workers = json_array();
  for (int i = 0; i < workers_count(master->workers); i++) {
    struct counters_values values;
    workers_read_counters(master->workers, i, &values);
    json_t *one = values_to_json(&values);
    json_object_set_new(one, "worker", json_integer(i));
    json_array_append_new(workers, one);
  }
  read_total(master, &total);
  json_t *answer = answer_ok();
  json_object_set_new(answer, "total", values_to_json(&total));
  json_object_set_new(answer, "workers", workers);
  return answer;
}

static json_t *answer_workers(struct master *master, const json_t *request, struct client *client) {
  (void)request;
  (void)client;
  int64_t now_ms = clock_wall_ms();
  json_t *workers = json_array();
  for (int i = 0; i < workers_count(master->workers); i++) {
    struct worker_info info;
    struct counters_values values;
    workers_info(master->workers, i, &info);
    workers_read_counters(master->workers, i, &values);
    json_array_append_new(
        workers, json_pack("{s:i, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "worker", i, "pid",
                           (json_int_t)info.pid, "state", worker_state_name(info.state), "restarts",
                           (json_int_t)info.restarts, "since_ms", (json_int_t)info.since_ms,
                           "uptime_ms", (json_int_t)(now_ms - info.since_ms), "connections",
                           (json_int_t)values.gauge[GAUGE_CONNECTIONS], "sessions",
                           (json_int_t)values.gauge[GAUGE_SESSIONS], "tunnels",
                           (json_int_t)values.gauge[GAUGE_TUNNELS]));
  }
  json_t *answer = answer_ok();
  json_object_set_new(answer, "workers", workers);
  return answer;
}

struct listing {
  json_t *rows;
  size_t limit;
  int64_t now_ms;
  const char *tier;  // NULL for all
};

static bool list_session(struct directory_session *session, void *context) {
  struct listing *listing = context;
  const struct channel_session *one = &session->session;
  if (json_array_size(listing->rows) >= listing->limit) {
    return false;
  }
  json_array_append_new(
      listing->rows, json_pack("{s:I, s:o, s:I, s:i, s:I, s:s, s:I}", "uid", (json_int_t)one->uid,
                               "color", foreign_text(one->color), "sid", (json_int_t)one->sid,
                               "worker", session->worker, "connection", (json_int_t)one->connection,
                               "address", one->address, "since_ms", (json_int_t)one->since_ms));
  return true;
}

static json_t *answer_sessions(struct master *master, const json_t *request,
                               struct client *client) {
  struct listing listing = {.rows = json_array(), .limit = list_limit(request)};
  (void)client;
  const json_t *uid = json_object_get(request, "uid");
  if (json_is_integer(uid)) {
    directory_each_of(master->directory, json_integer_value(uid), list_session, &listing);
  } else {
    directory_each(master->directory, list_session, &listing);
  }
  json_t *answer = answer_ok();
  json_object_set_new(answer, "total",
                      json_integer((json_int_t)directory_count(master->directory)));
  json_object_set_new(answer, "sessions", listing.rows);
  return answer;
}

static bool list_route(const struct route_key *key, const struct route *route, void *context) {
  struct listing *listing = context;
  if (json_array_size(listing->rows) >= listing->limit) {
    return false;
  }
  if (listing->tier && strcmp(listing->tier, route_tier_name(key->tier)) != 0) {
    return true;
  }
  json_array_append_new(
      listing->rows, json_pack("{s:s, s:s, s:o, s:I, s:s, s:I}", "tier", route_tier_name(key->tier),
                               "service", key->service, "color", foreign_text(key->color), "oid",
                               (json_int_t)key->oid, "address", route->address, "expires_in_ms",
                               (json_int_t)(route->expires_at_ms - listing->now_ms)));
  return true;
}

static json_t *route_stats(const struct master *master) {
  struct route_table_stats stats;
  struct routes_health health;
  json_t *tiers = json_object();
  route_table_stats(master->route_table, &stats);
  routes_health(master->routes, &health);
  for (int i = 0; i < ROUTE_TIER_COUNT; i++) {
    json_object_set_new(tiers, route_tier_name((enum route_tier)i),
                        json_pack("{s:I, s:I}", "capacity", (json_int_t)stats.capacity[i], "used",
                                  (json_int_t)stats.used[i]));
  }
  json_t *answer = answer_ok();
  json_object_set_new(answer, "stats", tiers);
  json_object_set_new(answer, "bytes",
                      json_integer((json_int_t)route_table_bytes(master->route_table)));
  json_object_set_new(answer, "held", json_integer((json_int_t)health.held));
  json_object_set_new(answer, "queued_writes", json_integer((json_int_t)health.queued_writes));
  return answer;
}

static json_t *answer_routes(struct master *master, const json_t *request, struct client *client) {
  struct listing listing = {.rows = json_array(),
                            .limit = list_limit(request),
                            .now_ms = clock_wall_ms(),
                            .tier = json_string_value(json_object_get(request, "tier"))};
  (void)client;
  json_t *answer = route_stats(master);
  route_table_each(master->route_table, listing.now_ms, list_route, &listing);
  json_object_set_new(answer, "routes", listing.rows);
  return answer;
}

static json_t *answer_route_stats(struct master *master, const json_t *request,
                                  struct client *client) {
  (void)request;
  (void)client;
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

static void reply(struct client *client, json_t *answer);

static void on_route_found(int error, const char *address, int64_t ttl_ms, void *context) {
  struct client *client = context;
  json_t *store =
      error == 0 ? json_pack("{s:s, s:I}", "address", address, "expires_in_ms", (json_int_t)ttl_ms)
                 : json_null();
  json_t *answer = client->answer;
  client->answer = NULL;
  json_object_set_new(answer, "store", store);
  if (error != 0) {
    json_object_set_new(answer, "store_says",
                        json_string(error == ERROR_NOT_FOUND   ? "no such route"
                                    : error == ERROR_MALFORMED ? "what stands there is no route"
                                                               : "no answer"));
  }
  reply(client, answer);
}

// One route: what the workers see of it, what the store says, and who holds it.
static json_t *answer_route_get(struct master *master, const json_t *request,
                                struct client *client) {
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
    return answer_error("a route is named by tier, oid, and maybe color and service");
  }
  redis_routes_key(&key, text);
  json_t *answer = answer_ok();
  json_object_set_new(answer, "key", foreign_text(text));
  json_object_set_new(answer, "table",
                      route_table_lookup(master->route_table, &key, now_ms, &route) == 0
                          ? json_pack("{s:s, s:I}", "address", route.address, "expires_in_ms",
                                      (json_int_t)(route.expires_at_ms - now_ms))
                          : json_null());
  uint32_t tunnels = 0;
  for (uint32_t i = 0; i < master->config.tunnel.type_count; i++) {
    const struct held_route *held =
        strcmp(master->config.tunnel.types[i].service, key.service) == 0
            ? held_routes_find(routes_held_index(master->routes), i, key.color, key.oid)
            : NULL;
    tunnels += held ? held->total : 0;
  }
  json_object_set_new(answer, "tunnels", json_integer(tunnels));
  client->answer = answer;
  client->awaiting = true;
  int error = routes_get(master->routes, &key, on_route_found, client);
  if (error != 0) {
    on_route_found(error == ERROR_NOT_FOUND ? ERROR_BUSY : error, NULL, 0, client);
  }
  return NULL;
}

struct tunnels_of_node {
  const struct config *config;
  const struct node *node;
  json_int_t count;
};

static void count_tunnels(const struct held_route *route, void *context) {
  struct tunnels_of_node *of = context;
  const struct config_tunnel_type *type = &of->config->tunnel.types[route->key->tunnel_type];
  if (strcmp(route->address, of->node->address) == 0 &&
      strcmp(type->service, of->node->service) == 0) {
    of->count += route->total;
  }
}

static json_t *answer_nodes(struct master *master, const json_t *request, struct client *client) {
  (void)request;
  (void)client;
  struct node *nodes;
  size_t count = node_count(master, &nodes);
  json_t *rows = json_array();
  for (size_t i = 0; i < count; i++) {
    const struct node *node = &nodes[i];
    struct tunnels_of_node tunnels = {.config = &master->config, .node = node};
    held_routes_each(routes_held_index(master->routes), count_tunnels, &tunnels);
    // Held: etcd has it no more, see etcd.empty_hold. Draining: it takes nobody new.
    const char *state = registry_is_held(master->registry, node) ? "held"
                        : node->weight == 0                      ? "draining"
                                                                 : "up";
    json_array_append_new(
        rows, json_pack("{s:s, s:s, s:s, s:I, s:s, s:b, s:I, s:I}", "service", node->service,
                        "address", node->address, "color", node->color, "weight",
                        (json_int_t)node->weight, "state", state, "secure", node->secure,
                        "since_ms", (json_int_t)node->since_ms, "tunnels", tunnels.count));
  }
  free(nodes);
  json_t *answer = answer_ok();
  json_object_set_new(answer, "nodes", rows);
  return answer;
}

static const struct {
  const char *name;
  // NULL: it comes later, by reply.
  json_t *(*answer)(struct master *master, const json_t *request, struct client *client);
} commands[] = {
    {"status", answer_status},        {"stats", answer_stats},
    {"workers", answer_workers},      {"sessions", answer_sessions},
    {"routes", answer_routes},        {"routes stats", answer_route_stats},
    {"routes get", answer_route_get}, {"nodes", answer_nodes},
};

static void answer(struct client *client, const char *line, size_t len) {
  json_error_t error;
  json_t *request = json_loadb(line, len, 0, &error);
  const char *name = json_string_value(json_object_get(request, "command"));
  json_t *result = NULL;
  bool known = false;
  for (size_t i = 0; name && i < sizeof commands / sizeof commands[0]; i++) {
    if (strcmp(name, commands[i].name) == 0) {
      known = true;
      result = commands[i].answer(client->control->master, request, client);
    }
  }
  if (!request) {
    result = answer_error("the request is not a line of JSON");
  } else if (!known) {
    result = answer_error(
        "unknown command; there are status, stats, workers, sessions, routes, routes stats, "
        "routes get, nodes");
  }
  json_decref(request);
  if (result) {
    reply(client, result);
  }
}

// --- Connections -----------------------------------------------------------------------

static void client_free(struct client *client) {
  if (client->buffer) {
    bufferevent_free(client->buffer);
    client->buffer = NULL;
    client->control->client_count--;
  }
  if (!client->awaiting) {  // else whoever answers does the rest
    LIST_REMOVE(client, link);
    json_decref(client->answer);
    free(client);
  }
}

static void on_event(struct bufferevent *buffer, short what, void *owner) {
  (void)buffer;
  (void)what;  // gone, or too slow
  client_free(owner);
}

static void on_written(struct bufferevent *buffer, void *owner) {
  (void)buffer;
  client_free(owner);
}

// Takes over the answer.
static void reply(struct client *client, json_t *answer_json) {
  char *text = json_dumps(answer_json, JSON_COMPACT);
  json_decref(answer_json);
  client->awaiting = false;
  if (client->buffer) {
    bufferevent_setcb(client->buffer, NULL, on_written, on_event, client);
    evbuffer_add_printf(bufferevent_get_output(client->buffer), "%s\n",
                        text ? text : "{\"ok\":false,\"error\":\"out of memory\"}");
  } else {
    client_free(client);
  }
  free(text);
}

static void on_read(struct bufferevent *buffer, void *owner) {
  struct client *client = owner;
  struct evbuffer *input = bufferevent_get_input(buffer);
  size_t len = 0;
  char *line = evbuffer_readln(input, &len, EVBUFFER_EOL_LF);
  if (line) {
    bufferevent_disable(buffer, EV_READ);
    answer(client, line, len);
    free(line);
  } else if (evbuffer_get_length(input) > REQUEST_MAX_BYTES) {
    bufferevent_disable(buffer, EV_READ);
    reply(client, answer_error("the request is too long"));
  }
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int len, void *owner) {
  struct control *control = owner;
  (void)address;
  (void)len;
  struct client *client = control->client_count < CLIENTS_MAX ? calloc(1, sizeof *client) : NULL;
  if (client) {
    client->buffer =
        bufferevent_socket_new(evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE);
  }
  if (!client || !client->buffer) {
    free(client);
    evutil_closesocket(fd);
    return;
  }
  client->control = control;
  control->client_count++;
  LIST_INSERT_HEAD(&control->clients, client, link);
  bufferevent_setcb(client->buffer, on_read, NULL, on_event, client);
  bufferevent_set_timeouts(client->buffer, &client_timeout, &client_timeout);
  bufferevent_enable(client->buffer, EV_READ | EV_WRITE);
}

// --- The socket --------------------------------------------------------------------------

static bool somebody_answers(const struct sockaddr_un *address) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool answers = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) == 0;
  if (fd >= 0) {
    close(fd);
  }
  return answers;
}

static void make_folder(const char *path) {
  char folder[sizeof((struct sockaddr_un *)NULL)->sun_path];
  size_t len = strlen(path);
  if (len >= sizeof folder) {
    return;
  }
  memcpy(folder, path, len + 1);
  char *slash = strrchr(folder, '/');
  if (slash && slash != folder) {
    *slash = '\0';
    mkdir(folder, 0750);  // where it can't be made, binding says so
  }
}

struct control *control_new(struct master *master, char *why, size_t why_size) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const char *path = master->config.control.socket;
  struct control *control = calloc(1, sizeof *control);

  if (!control || strlen(path) >= sizeof address.sun_path) {
    snprintf(why, why_size, "control.socket: %s", control ? "the path is too long" : "no memory");
    free(control);
    return NULL;
  }
  strcpy(address.sun_path, path);
  if (somebody_answers(&address)) {
    snprintf(why, why_size, "a gateway is running already: it answers on %s", path);
    free(control);
    return NULL;
  }
  make_folder(path);
  unlink(path);
  control->master = master;
  mode_t mask = umask(0117);  // for the owner and its group only
  control->listener = evconnlistener_new_bind(master->base, on_accept, control,
                                              LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, -1,
                                              (struct sockaddr *)&address, sizeof address);
  int error = errno;
  umask(mask);
  if (!control->listener) {
    snprintf(why, why_size, "can't listen on %s (control.socket): %s", path, strerror(error));
    free(control);
    return NULL;
  }
  strcpy(control->path, path);
  return control;
}

void control_free(struct control *control) {
  if (control) {
    unlink(control->path);
    evconnlistener_free(control->listener);
    while (!LIST_EMPTY(&control->clients)) {
      // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
      client_free(LIST_FIRST(&control->clients));
    }
    free(control);
  }
}
