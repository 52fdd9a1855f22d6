#include "master/control_answers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "master/control_command.h"
#include "master/operations_grpc.h"
#include "master/operations_http.h"
#include "master/player_watch.h"
#include "master/push_topics.h"
#include "master/registry.h"
#include "master/reload.h"
#include "master/routes.h"
#include "master/tls_keys.h"

enum { LIST_DEFAULT = 100, LIST_MAX = 100000 };

json_t *control_ok(void) { return json_pack("{s:b}", "ok", 1); }

json_t *control_error(const char *text) { return json_pack("{s:b, s:s}", "ok", 0, "error", text); }

size_t control_list_limit(const json_t *request) {
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

size_t control_read_nodes(const struct master *master, struct node **nodes) {
  size_t count = 0;
  uint64_t version;
  *nodes = NULL;
  return node_table_read(master->nodes, nodes, &count, &version) == 0 ? count : 0;
}

json_t *control_foreign_text(const char *text) {
  json_t *string = json_string(text);
  return string ? string : json_string("(binary)");
}

static json_t *link_to_json(const char *name, const char *state, const char *where, int64_t lost,
                            const char *last_error, int64_t last_error_ms) {
  json_t *one = json_pack("{s:s, s:s, s:o, s:I}", "name", name, "state", state, "where",
                          control_foreign_text(where), "lost", (json_int_t)lost);
  if (last_error_ms != 0) {
    json_object_set_new(one, "last_error", control_foreign_text(last_error));
    json_object_set_new(one, "last_error_ms", json_integer((json_int_t)last_error_ms));
  }
  return one;
}

static json_t *redis_to_json(const struct master *master, const char *name,
                             const struct redis_link_health *link) {
  const char *state = link->masters == 0                  ? "connecting"
                      : link->masters_up == link->masters ? "up"
                      : link->masters_up > 0              ? "partly up"
                                                          : "down";
  json_t *one = link_to_json(name, state, master->config.data.redis.addr, (int64_t)link->lost,
                             link->last_error, link->last_error_ms);
  json_object_set_new(one, "masters", json_integer((json_int_t)link->masters));
  json_object_set_new(one, "masters_up", json_integer((json_int_t)link->masters_up));
  if (link->since_ms != 0) {  // else a worker that has not said yet
    json_object_set_new(one, "since_ms", json_integer((json_int_t)link->since_ms));
  }
  return one;
}

static json_t *topics_to_json(const struct master *master) {
  struct push_topics_health health;
  push_topics_health(master->push_topics, &health);
  json_t *one =
      link_to_json("topics", health.subscribed ? "subscribed" : "connecting", health.address,
                   (int64_t)health.lost, health.last_error, health.last_error_ms);
  json_object_set_new(one, "since_ms", json_integer((json_int_t)health.since_ms));
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
    json_t *one = redis_to_json(master, "redis", &routes.link);
    json_object_set_new(one, "queued_writes", json_integer((json_int_t)routes.queued_writes));
    json_array_append_new(links, one);
    for (int i = 0; i < workers_count(master->workers); i++) {
      char name[32];
      snprintf(name, sizeof name, "redis, worker %d", i);
      json_array_append_new(links, redis_to_json(master, name, &master->worker_redis[i]));
    }
    const char *state = routes.feed.live < routes.feed.masters || routes.feed.masters == 0
                            ? "connecting"
                        : routes.feed.scanning > 0 ? "reading"
                                                   : "following";
    struct counters_values counts;
    counters_read(master->counters, &counts);
    one = link_to_json("route feed", state, master->config.data.redis.addr,
                       (int64_t)counts.counter[COUNTER_ROUTE_FEED_RESTARTS], routes.feed.last_error,
                       routes.feed.last_error_ms);
    json_object_set_new(one, "waiting_keys", json_integer((json_int_t)routes.feed.waiting_keys));
    json_array_append_new(links, one);
    json_array_append_new(links, topics_to_json(master));
  }
  return links;
}

// Of what comes to the port: the requests being served, and how many were refused since there
// were too many, had to wait for their answer too long, and were cut off for being slow.
static json_t *port_to_json(const char *transport, json_t *address, size_t open, uint64_t refused,
                            uint64_t late, uint64_t cut) {
  return json_pack("{s:s, s:o, s:I, s:I, s:I, s:I}", "transport", transport, "address", address,
                   "open", (json_int_t)open, "refused", (json_int_t)refused, "late",
                   (json_int_t)late, "cut", (json_int_t)cut);
}

static json_t *listeners_to_json(const struct master *master) {
  const char *addr = master->config.server.grpc.addr;
  const char *colon = strrchr(addr, ':');
  struct rpc_server_counts grpc;
  struct http_server_counts http;
  operations_grpc_counts(master->operations_grpc, &grpc);
  operations_http_counts(master->operations_http, &http);
  // As configured, but for a port that was left to the system.
  json_t *grpc_address = json_sprintf("%.*s:%d", colon ? (int)(colon - addr) : 0, addr,
                                      operations_grpc_port(master->operations_grpc));
  json_t *http_address = json_string(operations_http_address(master->operations_http));
  json_t *listeners = json_array();
  for (size_t i = 0; i < master->client_listeners; i++) {
    const struct config_listener *listener = master->client_config[i];
    json_t *one =
        json_pack("{s:s, s:s, s:b}", "transport", config_transport_name(listener->transport),
                  "address", master->clients[i].address, "tls", listener->tls.enabled);
    int64_t expiry_ms =
        tls_keys_expiry(master->tls_keys, (size_t)(listener - master->config.server.listeners));
    if (expiry_ms > 0) {
      json_object_set_new(one, "certificate_expires_ms", json_integer((json_int_t)expiry_ms));
    }
    json_array_append_new(listeners, one);
  }
  json_array_append_new(
      listeners, port_to_json("grpc", grpc_address, grpc.open, grpc.refused, grpc.late, grpc.cut));
  json_array_append_new(listeners, port_to_json("http", http_address, http.waiting, http.refused,
                                                http.late, http.cut));
  return listeners;
}

static json_t *answer_status(struct master *master, const json_t *request,
                             struct question *question) {
  (void)request;
  (void)question;
  struct counters_values total;
  struct node *nodes;
  size_t nodes_known = control_read_nodes(master, &nodes);
  int64_t now_ms = clock_wall_ms();
  free(nodes);
  read_total(master, &total);
  return json_pack(
      "{s:b, s:s, s:I, s:s, s:I, s:I, s:s, s:s, s:o, s:s, s:{s:i, s:i}, s:I, s:I, s:I, "
      "s:I, s:I, s:o}",
      "ok", 1, "version", JANUS_VERSION, "pid", (json_int_t)getpid(), "state",
      master->stopping ? "stopping" : "running", "started_at_ms", (json_int_t)master->started_ms,
      "uptime_ms", (json_int_t)(now_ms - master->started_ms), "registry",
      master->config.registry.source == REGISTRY_ETCD ? "etcd" : "static", "routes",
      master->config.routes.store == ROUTES_REDIS ? "redis" : "memory", "listeners",
      listeners_to_json(master), "advertise", master->config.server.grpc.advertise, "workers",
      "configured", workers_count(master->workers), "running", workers_running(master->workers),
      "sessions", (json_int_t)directory_count(master->directory), "connections",
      (json_int_t)total.gauge[GAUGE_CONNECTIONS], "tunnels", (json_int_t)total.gauge[GAUGE_TUNNELS],
      "nodes", (json_int_t)nodes_known, "traces",
      (json_int_t)player_watch_count(master->player_watch), "links", links_to_json(master));
}

static json_t *values_to_json(const struct counters_values *values) {
  json_t *counters = json_object();
  json_t *closed = json_object();
  json_t *gauges = json_object();
  for (int i = 0; i < COUNTER_COUNT; i++) {
    json_object_set_new(counters, counter_about[i].name,
                        json_integer((json_int_t)values->counter[i]));
  }
  for (int i = 0; i < CLOSE_REASON_COUNT; i++) {
    json_object_set_new(closed, close_reason_name((enum close_reason)i),
                        json_integer((json_int_t)values->closed[i]));
  }
  for (int i = 0; i < GAUGE_COUNT; i++) {
    json_object_set_new(gauges, gauge_about[i].name, json_integer((json_int_t)values->gauge[i]));
  }
  return json_pack("{s:o, s:o, s:o}", "counters", counters, "closed", closed, "gauges", gauges);
}

static json_t *answer_stats(struct master *master, const json_t *request,
                            struct question *question) {
  (void)request;
  (void)question;
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
  json_t *answer = control_ok();
  json_object_set_new(answer, "total", values_to_json(&total));
  json_object_set_new(answer, "workers", workers);
  return answer;
}

static json_t *answer_workers(struct master *master, const json_t *request,
                              struct question *question) {
  (void)request;
  (void)question;
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
  json_t *answer = control_ok();
  json_object_set_new(answer, "workers", workers);
  return answer;
}

static json_t *answer_reload(struct master *master, const json_t *request,
                             struct question *question) {
  (void)request;
  (void)question;
  return reload(master);
}

static const struct {
  const char *name;
  control_command *answer;
} commands[] = {
    {"status", answer_status},
    {"stats", answer_stats},
    {"workers", answer_workers},
    {"reload", answer_reload},
    {"sessions", control_sessions},
    {"routes", control_routes},
    {"routes stats", control_route_stats},
    {"routes get", control_route_get},
    {"nodes", control_nodes},
    {"session", control_session},
    {"kick", control_kick},
    {"ban", control_ban},
    {"unban", control_unban},
    {"bans", control_bans},
    {"push", control_push},
    {"trace", control_trace},
};

void control_answer(struct master *master, const json_t *request, control_reply *reply,
                    void *context) {
  struct question question = {.reply = reply, .context = context};
  const char *name = json_string_value(json_object_get(request, "command"));
  for (size_t i = 0; name && i < sizeof commands / sizeof commands[0]; i++) {
    if (strcmp(name, commands[i].name) == 0) {
      json_t *answer = commands[i].answer(master, request, &question);
      if (answer) {
        reply(answer, context);
      }
      return;
    }
  }
  reply(control_error("unknown command; there are status, stats, workers, reload, sessions, "
                      "session, kick, ban, unban, "
                      "bans, push, trace, routes, routes stats, routes get, nodes"),
        context);
}
