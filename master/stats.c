#include "master/stats.h"

#include <event2/event.h>
#include <grpc/grpc.h>
#include <hiredis/hiredis.h>
#include <microhttpd.h>
#include <nghttp2/nghttp2.h>
#include <openssl/crypto.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "common/clock.h"
#include "common/config_value.h"
#include "master/json_text.h"
#include "master/push_topics.h"
#include "master/registry.h"
#include "master/routes.h"

void stats_read_total(const struct master *master, struct counters_values *total) {
  counters_read(master->counters, total);
  for (int i = 0; i < workers_count(master->workers); i++) {
    struct counters_values values;
    workers_read_counters(master->workers, i, &values);
    counters_sum(total, &values, true);
  }
}

static json_t *link_to_json(const char *name, const char *state, const char *where, int64_t lost,
                            const char *last_error, int64_t last_error_ms) {
  json_t *one = json_pack("{s:s, s:s, s:o, s:I}", "name", name, "state", state, "where",
                          json_foreign_text(where), "lost", (json_int_t)lost);
  if (last_error_ms != 0) {
    json_object_set_new(one, "last_error", json_foreign_text(last_error));
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
json_t *stats_links(const struct master *master) {
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
      struct worker_info info;
      workers_info(master->workers, i, &info);
      if (info.state == WORKER_NONE) {
        continue;
      }
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

// By the metric's name, its label behind it. The buckets' bounds are histogram_bounds_us.
static json_t *histograms_to_json(const struct counters_values *values) {
  json_t *histograms = json_object();
  for (int i = 0; i < HISTOGRAM_COUNT; i++) {
    const struct histogram_about *about = &histogram_about[i];
    const struct histogram_values *histogram = &values->histogram[i];
    char name[96];
    json_t *buckets = json_array();
    bool labelled = about->label[0] != '\0';
    snprintf(name, sizeof name, labelled ? "%s{%s}" : "%s", about->name, about->label);
    for (int j = 0; j <= HISTOGRAM_BOUNDS; j++) {
      json_array_append_new(buckets, json_integer((json_int_t)histogram->bucket[j]));
    }
    json_object_set_new(
        histograms, name,
        json_pack("{s:I, s:o}", "sum_us", (json_int_t)histogram->sum_us, "buckets", buckets));
  }
  return histograms;
}

json_t *stats_values(const struct counters_values *values) {
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
  return json_pack("{s:o, s:o, s:o, s:o}", "counters", counters, "closed", closed, "gauges", gauges,
                   "histograms", histograms_to_json(values));
}

json_t *stats_workers(const struct master *master) {
  int64_t now_ms = clock_wall_ms();
  json_t *workers = json_array();
  for (int i = 0; i < workers_count(master->workers); i++) {
    struct worker_info info;
    struct counters_values values;
    workers_info(master->workers, i, &info);
    if (info.state == WORKER_NONE) {
      continue;
    }
    workers_read_counters(master->workers, i, &values);
    json_t *one = json_pack(
        "{s:i, s:i, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "worker", i,
        "place", info.place, "generation", (json_int_t)info.generation, "pid", (json_int_t)info.pid,
        "state", worker_state_name(info.state), "restarts", (json_int_t)info.restarts, "since_ms",
        (json_int_t)info.since_ms, "uptime_ms", (json_int_t)(now_ms - info.since_ms), "connections",
        (json_int_t)values.gauge[GAUGE_CONNECTIONS], "sessions",
        (json_int_t)values.gauge[GAUGE_SESSIONS], "tunnels",
        (json_int_t)values.gauge[GAUGE_TUNNELS], "queued_in_bytes",
        (json_int_t)values.gauge[GAUGE_QUEUED_IN_BYTES], "queued_out_bytes",
        (json_int_t)values.gauge[GAUGE_QUEUED_OUT_BYTES], "messages_in",
        (json_int_t)values.counter[COUNTER_MESSAGES_IN], "messages_out",
        (json_int_t)values.counter[COUNTER_MESSAGES_OUT]);
    if (info.drain_left_ms != CHANNEL_DRAIN_NEVER) {
      json_object_set_new(one, "drain_left_ms", json_integer((json_int_t)info.drain_left_ms));
    }
    json_array_append_new(workers, one);
  }
  return workers;
}

json_t *stats_route_table(const struct master *master) {
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
  return json_pack("{s:o, s:I, s:I, s:I}", "stats", tiers, "bytes",
                   (json_int_t)route_table_bytes(master->route_table), "held",
                   (json_int_t)health.held, "queued_writes", (json_int_t)health.queued_writes);
}

// --- Reports ---------------------------------------------------------------------------

// A report's field and the counter that it shows.
struct field {
  const char *name;
  enum counter counter;
};

static void add_counters(json_t *report, const struct counters_values *values,
                         const struct field *fields, size_t count) {
  for (size_t i = 0; i < count; i++) {
    json_object_set_new(report, fields[i].name,
                        json_integer((json_int_t)values->counter[fields[i].counter]));
  }
}
#define ADD_COUNTERS(report, values, fields) \
  add_counters(report, values, fields, sizeof fields / sizeof *fields)

// What of this gauge or counter belongs to each kind of listener.
static json_t *by_listener_kind(const struct counters_values *values, enum split split) {
  json_t *parts = json_object();
  for (int i = 0; i < LISTENER_KIND_COUNT; i++) {
    json_object_set_new(parts, config_listener_kind_name((enum listener_kind)i),
                        json_integer((json_int_t)values->split[split][i]));
  }
  return parts;
}

json_t *stats_connections(const struct master *master) {
  static const struct field fields[] = {{"accepted", COUNTER_CONNECTIONS_ACCEPTED},
                                        {"logins", COUNTER_LOGINS},
                                        {"messages_in", COUNTER_MESSAGES_IN},
                                        {"messages_out", COUNTER_MESSAGES_OUT},
                                        {"bytes_in", COUNTER_BYTES_IN},
                                        {"bytes_out", COUNTER_BYTES_OUT}};
  struct counters_values total;
  json_t *closed = json_object();
  stats_read_total(master, &total);
  for (int i = 0; i < CLOSE_REASON_COUNT; i++) {
    json_object_set_new(closed, close_reason_name((enum close_reason)i),
                        json_integer((json_int_t)total.closed[i]));
  }
  json_t *report = json_pack(
      "{s:I, s:o, s:I, s:o, s:o, s:{s:I, s:I}}", "open", (json_int_t)total.gauge[GAUGE_CONNECTIONS],
      "open_by_transport", by_listener_kind(&total, SPLIT_CONNECTIONS), "sessions",
      (json_int_t)directory_count(master->directory), "sessions_by_transport",
      by_listener_kind(&total, SPLIT_SESSIONS), "closed", closed, "limits",
      "connections_per_worker", (json_int_t)master->config.limits.connections_per_worker, "workers",
      (json_int_t)workers_places(master->workers));
  ADD_COUNTERS(report, &total, fields);
  return report;
}

json_t *stats_tunnels(const struct master *master) {
  static const struct field fields[] = {{"opened", COUNTER_TUNNELS_OPENED},
                                        {"reopened", COUNTER_TUNNELS_REOPENED},
                                        {"open_failures", COUNTER_TUNNEL_OPEN_FAILURES},
                                        {"broken", COUNTER_TUNNELS_BROKEN},
                                        {"messages_in", COUNTER_TUNNEL_MESSAGES_IN},
                                        {"messages_out", COUNTER_TUNNEL_MESSAGES_OUT}};
  struct counters_values total;
  json_t *types = json_array();
  stats_read_total(master, &total);
  for (size_t i = 0; i < master->config.tunnel.type_count; i++) {
    const struct config_tunnel_type *type = &master->config.tunnel.types[i];
    json_array_append_new(
        types, json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name",
                         type->name, "service", type->service, "tier", route_tier_name(type->tier),
                         "main", type->main, "open", (json_int_t)total.split[SPLIT_TUNNELS][i],
                         "opened", (json_int_t)total.split[SPLIT_TUNNELS_OPENED][i], "reopened",
                         (json_int_t)total.split[SPLIT_TUNNELS_REOPENED][i], "open_failures",
                         (json_int_t)total.split[SPLIT_TUNNEL_OPEN_FAILURES][i], "broken",
                         (json_int_t)total.split[SPLIT_TUNNELS_BROKEN][i], "messages_in",
                         (json_int_t)total.split[SPLIT_TUNNEL_MESSAGES_IN][i], "messages_out",
                         (json_int_t)total.split[SPLIT_TUNNEL_MESSAGES_OUT][i]));
  }
  char engine[16];
  config_value_print_choice(STREAM_ENGINE_CHOICES, (int)master->config.tunnel.engine, engine,
                            sizeof engine);
  json_t *report = json_pack("{s:s, s:I, s:I, s:I, s:o}", "engine", engine, "open",
                             (json_int_t)total.gauge[GAUGE_TUNNELS], "backend_connections",
                             (json_int_t)total.gauge[GAUGE_BACKEND_CONNECTIONS], "queued_bytes",
                             (json_int_t)total.gauge[GAUGE_QUEUED_IN_BYTES], "types", types);
  ADD_COUNTERS(report, &total, fields);
  return report;
}

json_t *stats_routes(const struct master *master) {
  static const struct field fields[] = {{"hits", COUNTER_ROUTE_HITS},
                                        {"misses", COUNTER_ROUTE_MISSES},
                                        {"torn", COUNTER_ROUTE_TORN},
                                        {"replaced", COUNTER_ROUTE_REPLACED},
                                        {"races_lost", COUNTER_ROUTE_RACES_LOST},
                                        {"fallbacks", COUNTER_ROUTE_FALLBACKS},
                                        {"moved", COUNTER_ROUTES_MOVED},
                                        {"restored", COUNTER_ROUTES_RESTORED},
                                        {"not_kept", COUNTER_ROUTES_NOT_KEPT}};
  struct counters_values total;
  json_t *report = json_pack("{s:s, s:o}", "store",
                             master->config.routes.store == ROUTES_REDIS ? "redis" : "memory",
                             "links", stats_links(master));
  stats_read_total(master, &total);
  ADD_COUNTERS(report, &total, fields);
  json_t *table = stats_route_table(master);
  json_object_set(report, "tiers", json_object_get(table, "stats"));
  json_object_del(table, "stats");
  json_object_update_missing_new(report, table);
  return report;
}

json_t *stats_build(const struct master *master) {
  char redis[32];  // the library does not say itself which one it is
  snprintf(redis, sizeof redis, "%d.%d.%d", HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
  return json_pack("{s:s, s:s, s:I, s:{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}}", "version",
                   JANUS_VERSION, "compiler", __VERSION__, "started_at_ms",
                   (json_int_t)master->started_ms, "libraries", "libevent", event_get_version(),
                   "libsodium", sodium_version_string(), "openssl",
                   OpenSSL_version(OPENSSL_VERSION_STRING), "grpc", grpc_version_string(),
                   "nghttp2", nghttp2_version(0)->version_str, "zlib", zlibVersion(),
                   "libmicrohttpd", MHD_get_version(), "hiredis", redis);
}
