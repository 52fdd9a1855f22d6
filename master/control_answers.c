#include "master/control_answers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/redis_routes.h"
#include "master/master.h"
#include "master/push_topics.h"
#include "master/registry.h"
#include "master/routes.h"

enum { LIST_DEFAULT = 100, LIST_MAX = 100000 };

// Who asked, for an answer that comes later.
struct question {
  control_reply *reply;
  void *context;
  json_t *answer;  // what there is of it
};

static json_t *answer_ok(void) { return json_pack("{s:b}", "ok", 1); }

json_t *control_error(const char *text) { return json_pack("{s:b, s:s}", "ok", 0, "error", text); }

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

static json_t *answer_status(struct master *master, const json_t *request,
                             struct question *question) {
  (void)request;
  (void)question;
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
  json_t *answer = answer_ok();
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
  json_t *answer = answer_ok();
  json_object_set_new(answer, "workers", workers);
  return answer;
}

struct listing {
  json_t *rows;
  size_t limit;
  int64_t now_ms;
  const char *tier;  // NULL for all
  const struct session_filter *filter;
};

// Which sessions a request means: all of what it names must fit.
struct session_filter {
  bool has_uid, has_sid, has_worker;
  int64_t uid, sid, worker;
  const char *color;    // NULL for any
  const char *address;  // of the client, without its port; NULL for any
};

// False when it names none at all.
static bool filter_read(const json_t *request, struct session_filter *filter) {
  const json_t *uid = json_object_get(request, "uid");
  const json_t *sid = json_object_get(request, "sid");
  const json_t *worker = json_object_get(request, "worker");
  *filter = (struct session_filter){
      .has_uid = json_is_integer(uid),
      .has_sid = json_is_integer(sid),
      .has_worker = json_is_integer(worker),
      .uid = json_integer_value(uid),
      .sid = json_integer_value(sid),
      .worker = json_integer_value(worker),
      .color = json_string_value(json_object_get(request, "color")),
      .address = json_string_value(json_object_get(request, "address")),
  };
  return filter->has_uid || filter->has_sid || filter->has_worker || filter->color ||
         filter->address;
}

static bool filter_fits(const struct session_filter *filter,
                        const struct directory_session *session) {
  const struct channel_session *one = &session->session;
  const char *port = strrchr(one->address, ':');
  size_t host_len = port ? (size_t)(port - one->address) : strlen(one->address);
  return (!filter->has_uid || filter->uid == one->uid) &&
         (!filter->has_sid || filter->sid == one->sid) &&
         (!filter->has_worker || filter->worker == session->worker) &&
         (!filter->color || strcmp(filter->color, one->color) == 0) &&
         (!filter->address || (strlen(filter->address) == host_len &&
                               memcmp(filter->address, one->address, host_len) == 0));
}

// Those that may fit: all, or the player's.
static void filter_each(const struct master *master, const struct session_filter *filter,
                        directory_visit *visit, void *context) {
  if (filter->has_uid) {
    directory_each_of(master->directory, filter->uid, visit, context);
  } else {
    directory_each(master->directory, visit, context);
  }
}

static bool list_session(struct directory_session *session, void *context) {
  struct listing *listing = context;
  const struct channel_session *one = &session->session;
  if (!filter_fits(listing->filter, session)) {
    return true;
  }
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
                               struct question *question) {
  struct session_filter filter;
  filter_read(request, &filter);
  struct listing listing = {.rows = json_array(), .limit = list_limit(request), .filter = &filter};
  (void)question;
  filter_each(master, &filter, list_session, &listing);
  json_t *answer = answer_ok();
  json_object_set_new(answer, "total",
                      json_integer((json_int_t)directory_count(master->directory)));
  json_object_set_new(answer, "sessions", listing.rows);
  return answer;
}

struct kick {
  struct master *master;
  struct session_filter filter;
  enum logout_code code;
  json_int_t count;
};

static bool kick_session(struct directory_session *session, void *context) {
  struct kick *kick = context;
  if (filter_fits(&kick->filter, session)) {
    kick->count++;
    master_close_session(kick->master, session, CLOSE_KICKED, kick->code);
  }
  return true;
}

static json_t *answer_kick(struct master *master, const json_t *request,
                           struct question *question) {
  struct kick kick = {.master = master, .code = LOGOUT_ADMIN_KICK_OUT};
  const char *code = json_string_value(json_object_get(request, "code"));
  const char *reason = json_string_value(json_object_get(request, "reason"));
  char said[128];
  (void)question;
  if (!filter_read(request, &kick.filter)) {
    return control_error("kick whom? name a uid, color, sid, address or worker");
  }
  if (code && (kick.code = logout_code_named(code)) == LOGOUT_NONE) {
    return control_error(
        "the code is one of server, waiting, unauthorized, conflicting-login, admin-kick-out, "
        "banned");
  }
  filter_each(master, &kick.filter, kick_session, &kick);
  reason = reason ? reason : "";
  log_warn("kicked", "sessions=%lld code=%d reason=%s", (long long)kick.count, (int)kick.code,
           log_quote(said, sizeof said, reason, strlen(reason)));
  if (kick.count == 0) {
    return control_error("no session is like that");
  }
  json_t *answer = answer_ok();
  json_object_set_new(answer, "kicked", json_integer(kick.count));
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
      listing->rows,
      json_pack("{s:s, s:s, s:o, s:I, s:s, s:s, s:I}", "tier", route_tier_name(key->tier),
                "service", key->service, "color", foreign_text(key->color), "oid",
                (json_int_t)key->oid, "address", route->address, "state",
                route->in_doubt ? "in doubt" : "known", "expires_in_ms",
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

static json_t *answer_routes(struct master *master, const json_t *request,
                             struct question *question) {
  struct listing listing = {.rows = json_array(),
                            .limit = list_limit(request),
                            .now_ms = clock_wall_ms(),
                            .tier = json_string_value(json_object_get(request, "tier"))};
  (void)question;
  json_t *answer = route_stats(master);
  route_table_each(master->route_table, listing.now_ms, list_route, &listing);
  json_object_set_new(answer, "routes", listing.rows);
  return answer;
}

static json_t *answer_route_stats(struct master *master, const json_t *request,
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
static json_t *answer_route_get(struct master *master, const json_t *request,
                                struct question *question) {
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
  json_t *answer = answer_ok();
  json_object_set_new(answer, "key", foreign_text(text));
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
    const struct held_route *held =
        strcmp(master->config.tunnel.types[i].service, key.service) == 0
            ? held_routes_find(routes_held_index(master->routes), i, key.color, key.oid)
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

static int compare_nodes(const void *a, const void *b) {
  const struct node *left = a;
  const struct node *right = b;
  int order = strcmp(left->service, right->service);
  return order != 0 ? order : strcmp(left->address, right->address);
}

static void count_tunnels(const struct held_route *route, void *context) {
  struct node_tunnels *of = context;
  struct node wanted;
  snprintf(wanted.service, sizeof wanted.service, "%s",
           of->config->tunnel.types[route->key->tunnel_type].service);
  snprintf(wanted.address, sizeof wanted.address, "%s", route->address);
  const struct node *node =
      bsearch(&wanted, of->nodes, of->node_count, sizeof *of->nodes, compare_nodes);
  if (node) {
    of->tunnels[node - of->nodes] += route->total;
  }
}

static json_t *answer_nodes(struct master *master, const json_t *request,
                            struct question *question) {
  (void)request;
  (void)question;
  struct node_tunnels of = {.config = &master->config};
  of.node_count = node_count(master, &of.nodes);
  of.tunnels = calloc(of.node_count + 1, sizeof *of.tunnels);
  json_t *rows = json_array();
  if (of.node_count > 0 && of.tunnels) {
    qsort(of.nodes, of.node_count, sizeof *of.nodes, compare_nodes);
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
                        (json_int_t)node->weight, "state", state, "secure", node->secure,
                        "since_ms", (json_int_t)node->since_ms, "tunnels", of.tunnels[i]));
  }
  free(of.tunnels);
  free(of.nodes);
  json_t *answer = answer_ok();
  json_object_set_new(answer, "nodes", rows);
  return answer;
}

static const struct {
  const char *name;
  // NULL: it comes later.
  json_t *(*answer)(struct master *master, const json_t *request, struct question *question);
} commands[] = {
    {"status", answer_status},
    {"stats", answer_stats},
    {"workers", answer_workers},
    {"sessions", answer_sessions},
    {"routes", answer_routes},
    {"routes stats", answer_route_stats},
    {"routes get", answer_route_get},
    {"nodes", answer_nodes},
    {"kick", answer_kick},
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
  reply(control_error(
            "unknown command; there are status, stats, workers, sessions, routes, routes stats, "
            "routes get, nodes, kick"),
        context);
}
