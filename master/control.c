#include "master/control.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "master/master.h"

enum {
  REQUEST_MAX_BYTES = 4096,
  CLIENTS_MAX = 16,
  LIST_DEFAULT = 100,
  LIST_MAX = 100000,
};
static const struct timeval client_timeout = {.tv_sec = 10};

struct control {
  struct master *master;
  struct evconnlistener *listener;
  int clients;
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

static json_t *answer_status(struct master *master, const json_t *request) {
  (void)request;
  struct counters_values total;
  struct node *nodes;
  size_t nodes_known = node_count(master, &nodes);
  int64_t now_ms = clock_wall_ms();
  free(nodes);
  read_total(master, &total);
  return json_pack(
      "{s:b, s:s, s:I, s:s, s:I, s:I, s:s, s:s, s:[{s:s, s:s}], s:s, s:{s:i, s:i}, s:I, s:I, s:I, "
      "s:I}",
      "ok", 1, "version", JANUS_VERSION, "pid", (json_int_t)getpid(), "state",
      master->stopping ? "stopping" : "running", "started_at_ms", (json_int_t)master->started_ms,
      "uptime_ms", (json_int_t)(now_ms - master->started_ms), "registry", "static", "routes",
      "memory", "listeners", "transport", "tcp", "address", master->tcp.address, "advertise",
      master->config.server.grpc.advertise, "workers", "configured", workers_count(master->workers),
      "running", workers_running(master->workers), "sessions",
      (json_int_t)directory_count(master->directory), "connections",
      (json_int_t)total.gauge[GAUGE_CONNECTIONS], "tunnels", (json_int_t)total.gauge[GAUGE_TUNNELS],
      "nodes", (json_int_t)nodes_known);
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

static json_t *answer_stats(struct master *master, const json_t *request) {
  (void)request;
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

static json_t *answer_workers(struct master *master, const json_t *request) {
  (void)request;
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
  // A color need not be UTF-8, which JSON must be.
  json_t *color = json_string(one->color);
  json_array_append_new(
      listing->rows,
      json_pack("{s:I, s:o, s:I, s:i, s:I, s:s, s:I}", "uid", (json_int_t)one->uid, "color",
                color ? color : json_string("(binary)"), "sid", (json_int_t)one->sid, "worker",
                session->worker, "connection", (json_int_t)one->connection, "address", one->address,
                "since_ms", (json_int_t)one->since_ms));
  return true;
}

static json_t *answer_sessions(struct master *master, const json_t *request) {
  struct listing listing = {.rows = json_array(), .limit = list_limit(request)};
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
  json_t *color = json_string(key->color);
  json_array_append_new(
      listing->rows,
      json_pack("{s:s, s:s, s:o, s:I, s:s, s:I}", "tier", route_tier_name(key->tier), "service",
                key->service, "color", color ? color : json_string("(binary)"), "oid",
                (json_int_t)key->oid, "address", route->address, "expires_in_ms",
                (json_int_t)(route->expires_at_ms - listing->now_ms)));
  return true;
}

static json_t *answer_routes(struct master *master, const json_t *request) {
  struct listing listing = {.rows = json_array(),
                            .limit = list_limit(request),
                            .now_ms = clock_wall_ms(),
                            .tier = json_string_value(json_object_get(request, "tier"))};
  struct route_table_stats stats;
  json_t *tiers = json_object();
  route_table_stats(master->route_table, &stats);
  for (int i = 0; i < ROUTE_TIER_COUNT; i++) {
    json_object_set_new(tiers, route_tier_name((enum route_tier)i),
                        json_pack("{s:I, s:I}", "capacity", (json_int_t)stats.capacity[i], "used",
                                  (json_int_t)stats.used[i]));
  }
  route_table_each(master->route_table, listing.now_ms, list_route, &listing);
  json_t *answer = answer_ok();
  json_object_set_new(answer, "stats", tiers);
  json_object_set_new(answer, "routes", listing.rows);
  return answer;
}

static json_t *answer_nodes(struct master *master, const json_t *request) {
  (void)request;
  struct node *nodes;
  size_t count = node_count(master, &nodes);
  json_t *rows = json_array();
  for (size_t i = 0; i < count; i++) {
    json_array_append_new(
        rows, json_pack("{s:s, s:s, s:s, s:I, s:I}", "service", nodes[i].service, "address",
                        nodes[i].address, "color", nodes[i].color, "weight",
                        (json_int_t)nodes[i].weight, "since_ms", (json_int_t)nodes[i].since_ms));
  }
  free(nodes);
  json_t *answer = answer_ok();
  json_object_set_new(answer, "nodes", rows);
  return answer;
}

static const struct {
  const char *name;
  json_t *(*answer)(struct master *master, const json_t *request);
} commands[] = {
    {"status", answer_status},     {"stats", answer_stats},   {"workers", answer_workers},
    {"sessions", answer_sessions}, {"routes", answer_routes}, {"nodes", answer_nodes},
};

static json_t *answer(struct master *master, const char *line, size_t len) {
  json_error_t error;
  json_t *request = json_loadb(line, len, 0, &error);
  const char *name = json_string_value(json_object_get(request, "command"));
  json_t *result = NULL;
  for (size_t i = 0; name && i < sizeof commands / sizeof commands[0]; i++) {
    if (strcmp(name, commands[i].name) == 0) {
      result = commands[i].answer(master, request);
    }
  }
  json_decref(request);
  if (!request) {
    return answer_error("the request is not a line of JSON");
  }
  return result ? result
                : answer_error(
                      "unknown command; there are status, stats, workers, sessions, routes, nodes");
}

// --- Connections -----------------------------------------------------------------------

static void client_free(struct bufferevent *client, struct control *control) {
  bufferevent_free(client);
  control->clients--;
}

static void on_event(struct bufferevent *client, short what, void *owner) {
  (void)what;  // gone, or too slow
  client_free(client, owner);
}

static void on_written(struct bufferevent *client, void *owner) { client_free(client, owner); }

static void on_read(struct bufferevent *client, void *owner) {
  struct control *control = owner;
  struct evbuffer *input = bufferevent_get_input(client);
  size_t len = 0;
  char *line = evbuffer_readln(input, &len, EVBUFFER_EOL_LF);
  json_t *reply;

  if (line) {
    reply = answer(control->master, line, len);
    free(line);
  } else if (evbuffer_get_length(input) > REQUEST_MAX_BYTES) {
    reply = answer_error("the request is too long");
  } else {
    return;
  }
  char *text = json_dumps(reply, JSON_COMPACT);
  json_decref(reply);
  bufferevent_disable(client, EV_READ);
  bufferevent_setcb(client, NULL, on_written, on_event, control);
  evbuffer_add_printf(bufferevent_get_output(client), "%s\n",
                      text ? text : "{\"ok\":false,\"error\":\"out of memory\"}");
  free(text);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int len, void *owner) {
  struct control *control = owner;
  (void)address;
  (void)len;
  struct bufferevent *client =
      control->clients < CLIENTS_MAX
          ? bufferevent_socket_new(evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE)
          : NULL;
  if (!client) {
    evutil_closesocket(fd);
    return;
  }
  control->clients++;
  bufferevent_setcb(client, on_read, NULL, on_event, control);
  bufferevent_set_timeouts(client, &client_timeout, &client_timeout);
  bufferevent_enable(client, EV_READ | EV_WRITE);
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
    free(control);
  }
}
