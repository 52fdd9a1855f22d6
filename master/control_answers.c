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
#include "master/registry.h"
#include "master/reload.h"
#include "master/stats.h"
#include "master/tls_keys.h"

enum { LIST_DEFAULT = 100, LIST_MAX = 100000 };

json_t *control_ok(void) { return json_pack("{s:b}", "ok", 1); }

json_t *control_error(const char *text) { return json_pack("{s:b, s:s}", "ok", 0, "error", text); }

size_t control_list_limit(const json_t *request) {
  const json_t *limit = json_object_get(request, "limit");
  json_int_t value = json_is_integer(limit) ? json_integer_value(limit) : LIST_DEFAULT;
  return value < 0 ? 0 : value > LIST_MAX ? LIST_MAX : (size_t)value;
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
  size_t nodes_known = master_read_nodes(master, &nodes);
  int64_t now_ms = clock_wall_ms();
  free(nodes);
  stats_read_total(master, &total);
  return json_pack(
      "{s:b, s:s, s:I, s:s, s:I, s:I, s:s, s:s, s:o, s:s, s:{s:i, s:i}, s:I, s:I, s:I, "
      "s:I, s:I, s:o}",
      "ok", 1, "version", JANUS_VERSION, "pid", (json_int_t)getpid(), "state",
      master->stopping   ? "stopping"
      : master->drain.on ? "draining"
                         : "running",
      "started_at_ms", (json_int_t)master->started_ms, "uptime_ms",
      (json_int_t)(now_ms - master->started_ms), "registry",
      master->config.registry.source == REGISTRY_ETCD ? "etcd" : "static", "routes",
      master->config.routes.store == ROUTES_REDIS ? "redis" : "memory", "listeners",
      listeners_to_json(master), "advertise", master->config.server.grpc.advertise, "workers",
      "configured", workers_places(master->workers), "running", workers_running(master->workers),
      "sessions", (json_int_t)directory_count(master->directory), "connections",
      (json_int_t)total.gauge[GAUGE_CONNECTIONS], "tunnels", (json_int_t)total.gauge[GAUGE_TUNNELS],
      "nodes", (json_int_t)nodes_known, "traces",
      (json_int_t)player_watch_count(master->player_watch), "links", stats_links(master));
}

static json_t *answer_stats(struct master *master, const json_t *request,
                            struct question *question) {
  (void)request;
  (void)question;
  struct counters_values total;
  json_t *workers = json_array();
  counters_read(master->counters, &total);
  for (int i = 0; i < workers_count(master->workers); i++) {
    struct counters_values values;
    workers_read_counters(master->workers, i, &values);
    counters_sum(&total, &values, true);  // read once, so that the workers add up to the total
    json_t *one = stats_values(&values);
    json_object_set_new(one, "worker", json_integer(i));
    json_array_append_new(workers, one);
  }
  json_t *answer = control_ok();
  json_object_set_new(answer, "total", stats_values(&total));
  json_object_set_new(answer, "workers", workers);
  return answer;
}

static json_t *answer_workers(struct master *master, const json_t *request,
                              struct question *question) {
  (void)request;
  (void)question;
  json_t *answer = control_ok();
  json_object_set_new(answer, "workers", stats_workers(master));
  return answer;
}

static json_t *answer_reload(struct master *master, const json_t *request,
                             struct question *question) {
  (void)request;
  (void)question;
  return reload(master);
}

// What a group of users may be given that is to change nothing.
enum allowed {
  TO_WHO_ACTS,
  TO_WHO_LOOKS,
  TO_WHO_LOOKS_WITHOUT_LEVEL,  // with it, it sets something
};

static const struct command {
  const char *name;
  control_command *answer;
  enum allowed allowed;
} commands[] = {
    {"status", answer_status, TO_WHO_LOOKS},
    {"stats", answer_stats, TO_WHO_LOOKS},
    {"workers", answer_workers, TO_WHO_LOOKS},
    {"reload", answer_reload, TO_WHO_ACTS},
    {"drain", control_drain, TO_WHO_ACTS},
    {"drain status", control_drain_status, TO_WHO_LOOKS},
    {"undrain", control_undrain, TO_WHO_ACTS},
    {"worker restart", control_worker_restart, TO_WHO_ACTS},
    {"upgrade", control_upgrade, TO_WHO_ACTS},
    {"sessions", control_sessions, TO_WHO_LOOKS},
    {"routes", control_routes, TO_WHO_LOOKS},
    {"routes stats", control_route_stats, TO_WHO_LOOKS},
    {"routes get", control_route_get, TO_WHO_LOOKS},
    {"nodes", control_nodes, TO_WHO_LOOKS},
    {"session", control_session, TO_WHO_LOOKS},
    {"kick", control_kick, TO_WHO_ACTS},
    {"ban", control_ban, TO_WHO_ACTS},
    {"unban", control_unban, TO_WHO_ACTS},
    {"bans", control_bans, TO_WHO_LOOKS},
    {"push", control_push, TO_WHO_ACTS},
    {"trace", control_trace, TO_WHO_ACTS},  // it shows what players do
    {"log", control_log, TO_WHO_LOOKS_WITHOUT_LEVEL},
    {"log reset", control_log_reset, TO_WHO_ACTS},
    {"log reopen", control_log_reopen, TO_WHO_ACTS},
};

enum { COMMANDS = sizeof commands / sizeof *commands };

// NULL when there is none of that name.
static const struct command *command_of(const json_t *request) {
  const char *name = json_string_value(json_object_get(request, "command"));
  for (size_t i = 0; name && i < COMMANDS; i++) {
    if (strcmp(name, commands[i].name) == 0) {
      return &commands[i];
    }
  }
  return NULL;
}

bool control_only_looks(const json_t *request) {
  const struct command *command = command_of(request);
  return command &&
         (command->allowed == TO_WHO_LOOKS ||
          (command->allowed == TO_WHO_LOOKS_WITHOUT_LEVEL && !json_object_get(request, "level")));
}

static json_t *unknown_command(void) {
  char text[1024];
  int len = snprintf(text, sizeof text, "unknown command; there are");
  for (size_t i = 0; i < COMMANDS && len < (int)sizeof text; i++) {
    len += snprintf(text + len, sizeof text - (size_t)len, "%s %s", i > 0 ? "," : "",
                    commands[i].name);
  }
  return control_error(text);
}

void control_answer(struct master *master, const json_t *request, control_reply *reply,
                    void *context) {
  struct question question = {.reply = reply, .context = context};
  const struct command *command = command_of(request);
  json_t *answer = command ? command->answer(master, request, &question) : unknown_command();
  if (answer) {
    reply(answer, context);
  }
}
