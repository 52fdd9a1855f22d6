#include "master/master.h"

#include <errno.h>
#include <event2/thread.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log_output.h"
#include "common/loop.h"
#include "common/loop_lag.h"
#include "common/secrets_rotate.h"
#include "common/tls.h"
#include "master/admission.h"
#include "master/advertise.h"
#include "master/bans.h"
#include "master/control.h"
#include "master/control_drain.h"
#include "master/kcp_mailboxes.h"
#include "master/metrics.h"
#include "master/operations_grpc.h"
#include "master/operations_http.h"
#include "master/other_gateways.h"
#include "master/player_watch.h"
#include "master/push_hub.h"
#include "master/push_redis.h"
#include "master/push_topics.h"
#include "master/registry.h"
#include "master/reload.h"
#include "master/routes.h"
#include "master/service_manager.h"
#include "master/session_reports.h"
#include "master/stats_http.h"
#include "master/tls_keys.h"
#include "master/trace_exporter.h"
#include "master/upgrade.h"
#include "master/worker_messages.h"

#define LOG_MODULE LOG_MODULE_MASTER

enum {
  TAKE_OVER_MS = 15000,  // for the workers to tell who is here
  LEAVE_MS = 1000,
};  // for the last writes to Redis, and the last spans

// --- How it is ---------------------------------------------------------------------

// Whether it sends its players away. The one place that says so.
static bool is_draining(const struct master *master) {
  return master->stopping || master->drain.on;
}

// The gRPC health service learns of what is found, so that the two never disagree once HTTP has
// answered; a change that nobody asks for is found within a second (on_second).
static void evaluate_readiness(struct readiness *readiness, void *owner) {
  struct master *master = owner;
  struct node *nodes;
  size_t node_count = master_read_nodes(master, &nodes);
  struct etcd_health etcd;
  const struct readiness_facts facts = {
      .config = &master->config,
      .listeners = master->client_listeners,
      .all_workers_served = master->all_workers_served,
      .workers = workers_places(master->workers),
      .workers_running = workers_running(master->workers),
      .draining = is_draining(master),
      .nodes = nodes,
      .node_count = node_count,
      .etcd = registry_health(master->registry, &etcd) ? etcd.state : NULL,
      .redis = !master->redis                    ? NULL
               : redis_link_is_up(master->redis) ? "up"
                                                 : "down",
  };
  readiness_evaluate(&facts, readiness);
  free(nodes);
  operations_grpc_set_healthy(master->operations_grpc, readiness->state == READINESS_READY);
}

void master_look_at_readiness(struct master *master) {
  struct readiness readiness;
  evaluate_readiness(&readiness, master);
}

// --- Sessions ------------------------------------------------------------------------

static void on_login_answer(int worker, uint64_t connection, struct directory_session *session,
                            int32_t refusal, void *owner) {
  struct master *master = owner;
  const struct channel_login_answer answer = {.connection = connection, .refusal = refusal};
  if (session) {
    routes_player_came(master->routes, session);
    player_watch_session_opened(master->player_watch, session);  // before its first packet
  }
  workers_send(master->workers, worker, CHANNEL_LOGIN_ANSWER, &answer);
}

static void on_unused_route(int64_t uid, const char *color, void *owner) {
  struct master *master = owner;
  routes_player_left(master->routes, uid, color);
}

void master_close_session(struct master *master, const struct directory_session *session,
                          enum close_reason reason, enum logout_code code) {
  const struct channel_session_close close = {
      .connection = session->session.connection, .reason = (int32_t)reason, .code = (int32_t)code};
  workers_send(master->workers, session->worker, CHANNEL_SESSION_CLOSE, &close);
}

static void on_conflict(const struct directory_session *session, void *owner) {
  master_close_session(owner, session, CLOSE_CONFLICTING_LOGIN, LOGOUT_CONFLICTING_LOGIN);
}

static bool send_watch(int worker, const struct channel_watch *watch, void *owner) {
  struct master *master = owner;
  return master->workers && workers_send(master->workers, worker, CHANNEL_WATCH, watch) == 0;
}

static void on_route_moved(int worker, const struct channel_route_held *moved, void *owner) {
  struct master *master = owner;
  workers_send(master->workers, worker, CHANNEL_ROUTE_MOVED, moved);
}

// --- Redis ---------------------------------------------------------------------------

static void on_redis_up(void *owner) {
  struct master *master = owner;
  routes_redis_up(master->routes);
  bans_link_up(master->bans);
}

static void on_redis_down(void *owner) {
  struct master *master = owner;
  counters_add(master->counters, COUNTER_REDIS_LOST, 1);
}

static void on_redis_changed(void *owner) {
  struct master *master = owner;
  routes_redis_changed(master->routes);
  push_topics_follow(master->push_topics);
}

// --- Pushes --------------------------------------------------------------------------

// As they are subscribed to (start_topics).
enum topic { TOPIC_OWN, TOPIC_BROADCAST, TOPIC_BANS, TOPIC_COUNT };

static void on_topic(size_t topic, const uint8_t *bytes, size_t len, void *owner) {
  struct master *master = owner;
  if (topic == TOPIC_BANS) {
    bans_changed(master->bans);
  } else {
    const struct push_redis redis = {
        .hub = master->push_hub, .others = master->other_gateways, .counters = master->counters};
    push_redis_on_message(&redis, topic == TOPIC_BROADCAST, bytes, len);
  }
}

static void on_subscribed(void *owner) {
  struct master *master = owner;
  bans_changed(master->bans);  // what was said meanwhile was missed
  routes_renew_players(master->routes);
}

static int send_push(int worker, const struct channel_push *push, const uint64_t *receivers,
                     const uint8_t *packet, void *owner) {
  struct master *master = owner;
  return workers_send_push(master->workers, worker, push, receivers, packet);
}

static size_t push_room(int worker, void *owner) {
  const struct master *master = owner;
  return workers_push_room(master->workers, worker);
}

static int find_gateway(int64_t uid, const char *color, routes_on_found *on_found, void *context,
                        void *owner) {
  struct master *master = owner;
  return routes_find_gateway(master->routes, uid, color, on_found, context);
}

static int publish(const char *topic, const uint8_t *bytes, size_t len,
                   void (*on_published)(int64_t receivers, void *context), void *context,
                   void *owner) {
  struct master *master = owner;
  return push_topics_publish(master->push_topics, topic, bytes, len, on_published, context);
}

static void on_taken_over(const struct route_taken_over *taken_over, void *owner) {
  struct master *master = owner;
  other_gateways_taken_over(master->other_gateways, taken_over);
}

static void on_lost_player(int64_t uid, const char *color, void *owner) {
  struct master *master = owner;
  other_gateways_lost(master->other_gateways, uid, color);
}

static bool is_expected(int64_t uid, const char *color, void *owner) {
  const struct master *master = owner;
  return admission_expects(master->admission, uid, color);
}

// --- Bans ----------------------------------------------------------------------------

struct banned {
  struct master *master;
  const struct ban *ban;  // NULL: any
};

static bool close_if_banned(struct directory_session *session, void *context) {
  const struct banned *banned = context;
  const struct channel_session *one = &session->session;
  if (banned->ban
          ? ban_fits(banned->ban, one->uid, one->address)
          : bans_find(banned->master->bans, one->uid, one->address, clock_wall_ms()) != NULL) {
    master_close_session(banned->master, session, CLOSE_BANNED, LOGOUT_BANNED);
  }
  return true;
}

// New to this gateway: one, or several when a list was read.
static void on_ban(const struct ban *ban, void *owner) {
  struct banned banned = {.master = owner, .ban = ban};
  if (ban && ban->subject.kind == BAN_UID) {
    directory_each_of(banned.master->directory, ban->subject.uid, close_if_banned, &banned);
  } else {
    directory_each(banned.master->directory, close_if_banned, &banned);
  }
}

// --- The workers as a whole ---------------------------------------------------------

size_t master_read_nodes(const struct master *master, struct node **nodes) {
  size_t count = 0;
  uint64_t version;
  *nodes = NULL;
  return node_table_read(master->nodes, nodes, &count, &version) == 0 ? count : 0;
}

void master_announce(struct master *master) {
  struct registry_endpoint endpoints[CONFIG_LISTENERS];
  if (!master->all_workers_served || is_draining(master)) {
    return;
  }
  for (size_t i = 0; i < master->client_listeners; i++) {
    const struct config_listener *listener = master->client_config[i];
    endpoints[i] = (struct registry_endpoint){
        .scheme = config_listener_name(listener),
        .address = master->clients[i].address,
        .path = listener->transport == TRANSPORT_WS ? listener->path : ""};
  }
  registry_announce(master->registry, endpoints, master->client_listeners);
}

static void serve_pushes(struct master *master) {
  if (master->push_topics) {
    push_topics_resume(master->push_topics);
  }
  operations_grpc_serve(master->operations_grpc, master->push_hub);
  operations_http_serve(master->operations_http, master->push_hub);
}

// All workers of the master before have told who is here. New ones take the new players, with the
// new program and the settings as they are now.
static void end_takeover(struct master *master) {
  char why[512];
  if (master->stopping) {
    return;
  }
  if (master->drain.on) {
    master->places.generation_due = true;  // when it serves again
  } else if (!master->went_back) {
    (void)places_renew(master);
  }
  if (master->drain.on) {
    master->wanted_workers = master->config.worker.count;
  }
  if (places_open(master, (int)master->wanted_workers, why, sizeof why)) {
    master->config.worker.count = master->wanted_workers;
    places_take(master);
  } else {
    char quoted[sizeof why + 64];
    log_error("workers_not_added", "why=%s", log_quote(quoted, sizeof quoted, why, strlen(why)));
  }
  workers_settings_changed(master->workers);
  serve_pushes(master);
  log_info("taken_over", "sessions=%zu generation=%" PRIu64, directory_count(master->directory),
           workers_generation(master->workers));
  control_drop_socket_before(master->control, master->saved);
  upgrade_answer(master);
  sodium_free(master->secrets_before);
  master->secrets_before = NULL;
  takeover_end(master->saved);
  master->saved = NULL;
}

// All workers serve, or the one that is missing is waited for no longer.
static void serve(struct master *master) {
  master->all_workers_served = true;
  if (master->saved) {
    end_takeover(master);
  }
  service_manager_ready(master->service_manager);
  master_look_at_readiness(master);
  master_announce(master);
}

static void on_all_ready(void *owner) {
  struct master *master = owner;
  char listening[CONFIG_LISTENERS * CONFIG_TEXT_BYTES] = "";
  struct node *nodes;
  size_t node_count = master_read_nodes(master, &nodes);
  free(nodes);
  size_t len = 0;
  for (size_t i = 0; i < master->client_listeners; i++) {
    len += (size_t)snprintf(listening + len, sizeof listening - len, " %s=%s",
                            config_listener_name(master->client_config[i]),
                            master->clients[i].address);
  }
  log_info("ready", "version=%s workers=%d%s advertise=%s nodes=%zu", JANUS_VERSION,
           workers_places(master->workers), listening, master->config.server.grpc.advertise,
           node_count);
  serve(master);
}

void master_tell_tls_changed(struct master *master) {
  for (int i = 0; i < workers_count(master->workers); i++) {
    (void)!workers_send(master->workers, i, CHANNEL_TLS_CHANGED, NULL);  // a dead one reads anew
  }
}

static void on_replaced(int index, int successor, void *owner) {
  control_worker_replaced(owner, index, successor);
}

static void leave(struct master *master) { event_base_loopbreak(master->base); }

// The gateway routes of the players who have just left are still to be removed, and the last
// spans to be sent.
static bool has_last_words(struct master *master) {
  bool exporting = master->trace_exporter && trace_exporter_flush(master->trace_exporter);
  return routes_writing(master->routes) || exporting;
}

static void on_leave_tick(evutil_socket_t fd, short what, void *owner) {
  struct master *master = owner;
  (void)fd;
  (void)what;
  if (!has_last_words(master) || clock_monotonic_ms() >= master->leave_by_ms) {
    leave(master);
  }
}

static void on_all_gone(void *owner) {
  static const struct timeval tick = {.tv_usec = 10000};
  struct master *master = owner;
  if (!has_last_words(master)) {
    leave(master);
    return;
  }
  master->leave_by_ms = clock_monotonic_ms() + LEAVE_MS;
  event_add(master->leaving, &tick);
}

// --- Signals and time ----------------------------------------------------------------

static void close_listeners(struct master *master) {
  for (size_t i = 0; i < master->client_listeners; i++) {
    listeners_close(&master->clients[i]);
  }
}

static void on_deregistered(void *owner) {
  struct master *master = owner;
  close_listeners(master);
  workers_stop(master->workers, master->config.drain.stop_spread_ms);
}

static void on_stop_signal(evutil_socket_t number, short what, void *owner) {
  struct master *master = owner;
  (void)what;
  if (master->stopping) {
    log_warn("stopping_at_once", "signal=%d", (int)number);
    if (evtimer_pending(master->leaving, NULL)) {
      leave(master);
      return;
    }
    on_deregistered(master);
    workers_kill(master->workers);
    return;
  }
  log_info("stopping", "signal=%d sessions=%zu", (int)number, directory_count(master->directory));
  upgrade_cancel(master, "the gateway is stopping");
  master->stopping = true;
  service_manager_stopping(master->service_manager);
  master_look_at_readiness(master);
  // First of all nobody is to be sent here any more.
  registry_withdraw(master->registry, on_deregistered, master);
}

static void on_hangup(evutil_socket_t number, short what, void *owner) {
  (void)number;
  (void)what;
  json_decref(reload(owner));
}

static void on_reopen_signal(evutil_socket_t number, short what, void *owner) {
  struct master *master = owner;
  (void)number;
  (void)what;
  (void)!log_control_reopen(&master->log_control);  // says itself what is wrong
}

static void tell_status(const struct master *master) {
  service_manager_status(master->service_manager, "%s%zu sessions, %d of %d workers running",
                         is_draining(master) ? "draining: " : "",
                         directory_count(master->directory), workers_running(master->workers),
                         workers_count(master->workers));
}

// A worker that does not tell who it has must not keep the gateway from going on.
static void look_at_takeover(struct master *master) {
  int64_t late_ms = master->saved ? clock_monotonic_ms() - master->take_over_by_ms : -1;
  if (late_ms < 0 || master->stopping) {
    return;
  }
  workers_end_silent(master->workers);
  if (late_ms >= TAKE_OVER_MS) {  // a place has no worker that comes up
    serve(master);
  }
}

static void on_second(evutil_socket_t fd, short what, void *owner) {
  struct master *master = owner;
  (void)fd;
  (void)what;
  log_limits_tick(clock_monotonic_ms());
  counters_add(master->counters, COUNTER_LOG_SUPPRESSED, log_held_back());
  counters_add(master->counters, COUNTER_LOG_LOST, log_output_tick());
  log_control_tick(&master->log_control, clock_monotonic_ms());
  workers_watch(master->workers);
  control_tick(master->control);
  registry_tick(master->registry);
  routes_tick(master->routes);
  bans_tick(master->bans, clock_wall_ms());
  look_at_takeover(master);
  places_tick(master);
  tell_status(master);
  master_look_at_readiness(master);
  if (tls_keys_tick(master->tls_keys, clock_monotonic_ms())) {
    master_tell_tls_changed(master);
  }
  if (master->redis) {
    push_topics_tick(master->push_topics);
    other_gateways_tick(master->other_gateways);
  }
}

// --- Starting --------------------------------------------------------------------------

// Each worker may have to hold as many descriptors as the system lets it.
static void raise_descriptor_limit(const struct config *config) {
  // Backends, tables, the log; and the mailboxes of the workers.
  enum { BESIDE_CLIENTS = 256 + CONFIG_WORKER_NUMBERS };
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return;
  }
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  int64_t wanted = config->limits.connections_per_worker + BESIDE_CLIENTS;
  if (limit.rlim_max < (rlim_t)wanted) {
    log_warn("few_descriptors",
             "allowed=%llu wanted=%lld hint=\"raise the limit on open files (LimitNOFILE), or "
             "lower limits.connections_per_worker\"",
             (unsigned long long)limit.rlim_max, (long long)wanted);
  }
}

// The network is trusted then: whoever reaches the port can push what he likes.
static void warn_of_open_port(const struct master *master, const char *key, const char *address) {
  if (!advertise_is_loopback(address) && master->secrets->push_token[0] == '\0') {
    log_warn("push_without_token",
             "%s=%s hint=\"everybody in the networks of push.allow can push to players: let only "
             "the game's servers reach this port, or give them a push_token (secret.conf)\"",
             key, address);
  }
}

static bool open_ports(struct master *master, char *why, size_t why_size) {
  master->push_access = (struct push_access){
      .config = &master->config, .secrets = master->secrets, .counters = master->counters};
  const struct operations_grpc_options grpc_options = {
      .config = &master->config, .access = &master->push_access, .counters = master->counters};
  master->operations_grpc = operations_grpc_new(master->base, &grpc_options, why, why_size);
  if (!master->operations_grpc) {
    return false;
  }
  advertise_derive(&master->config, operations_grpc_port(master->operations_grpc));
  advertise_warn(&master->config);
  struct http_route reports[HEALTH_HTTP_ROUTES + STATS_HTTP_ROUTES + 1];
  master->health_http = (struct health_http){
      .evaluate = evaluate_readiness, .owner = master, .started_ms = master->started_ms};
  size_t report_count = health_http_routes(&master->health_http, reports, 0);
  report_count = stats_http_routes(master, reports, report_count);
  reports[report_count++] =
      (struct http_route){"/metrics", "GET", metrics_on_request, NULL, master};
  const struct operations_http_options http_options = {.config = &master->config,
                                                       .access = &master->push_access,
                                                       .counters = master->counters,
                                                       .reports = reports,
                                                       .report_count = report_count};
  master->operations_http = operations_http_new(master->base, &http_options, why, why_size);
  if (!master->operations_http) {
    return false;
  }
  warn_of_open_port(master, "server.grpc.addr", master->config.server.grpc.addr);
  warn_of_open_port(master, "server.http.addr", master->config.server.http.addr);
  return true;
}

static bool open_listeners(struct master *master, char *why, size_t why_size) {
  const struct config *config = &master->config;
  const struct config_listener *listener = NULL;
  while ((listener = config_listener_next(config, listener))) {
    size_t i = master->client_listeners;
    if (listeners_open_for_clients(&master->clients[i], config, listener,
                                   (size_t)config->worker.count, why, why_size) != 0) {
      return false;
    }
    master->client_config[i] = listener;
    master->client_listeners++;
  }
  return true;
}

static bool any_listener_is_for_kcp(const struct master *master) {
  bool any = false;
  for (size_t i = 0; i < master->client_listeners; i++) {
    any = any || master->client_config[i]->transport == TRANSPORT_KCP;
  }
  return any;
}

// Those of the program before, as its workers have them; where there are none, new ones if there is
// a use for them.
static bool open_mailboxes(struct master *master, char *why, size_t why_size) {
  int error;
  master->kcp_mailboxes = takeover_kcp_mailboxes(master->saved, &error);
  if (!master->kcp_mailboxes && error == ERROR_INVALID) {
    if (!any_listener_is_for_kcp(master)) {
      return true;
    }
    master->kcp_mailboxes = kcp_mailboxes_new(&error);
  }
  if (!master->kcp_mailboxes) {
    snprintf(why, why_size,
             "the sockets by which workers hand each other what comes over KCP can't be had: %s",
             error == ERROR_SYSTEM ? strerror(errno) : error_text(error));
  }
  return master->kcp_mailboxes != NULL;
}

static bool build_tables(struct master *master, char *why, size_t why_size) {
  const struct config *config = &master->config;
  struct route_table_options options;
  int error = ERROR_MEMORY;
  for (int i = 0; i < ROUTE_TIER_COUNT; i++) {
    options.capacity[i] = (size_t)config->routes.capacity[i];
  }
  if (!(master->directory = directory_new()) ||
      !(master->counters = calloc(1, sizeof *master->counters)) ||
      !(master->loop_lag = loop_lag_new(master->base, master->counters)) ||
      !(master->route_table = route_table_create(&options, &error)) ||
      !(master->kcp_owners = master->saved ? takeover_kcp_owners(master->saved, &error)
                                           : kcp_owners_create(&error)) ||
      !(master->nodes = node_table_create((size_t)config->registry.capacity, &error))) {
    snprintf(why, why_size, "the shared tables can't be made: %s", error_text(error));
    return false;
  }
  takeover_keep_counters(master->saved, master->counters);
  takeover_keep_nodes(master->saved, master->nodes, (size_t)config->registry.capacity);
  return true;
}

// What goes on between gateways.
static bool start_topics(struct master *master) {
  const struct push_topics_options topics_options = {
      .base = master->base,
      .config = &master->config,
      .link = master->redis,
      .topics = {[TOPIC_OWN] = master->config.server.grpc.advertise,
                 [TOPIC_BROADCAST] = PUSH_BROADCAST_TOPIC,
                 [TOPIC_BANS] = BANS_TOPIC},
      .count = TOPIC_COUNT,
      .on_message = on_topic,
      .on_subscribed = on_subscribed,
      .owner = master,
  };
  if (!(master->push_topics = push_topics_new(&topics_options))) {
    return false;
  }
  const struct other_gateways_options others_options = {
      .config = &master->config,
      .directory = master->directory,
      .routes = master->routes,
      .link = master->redis,
      .topics = master->push_topics,
      .on_conflict = on_conflict,
      .owner = master,
  };
  if (master->saved) {  // until it is known who is here
    push_topics_pause(master->push_topics);
  }
  return (master->other_gateways = other_gateways_new(&others_options)) != NULL;
}

// Who is where, who may come, and what is pushed to whom. False: out of memory.
static bool build_services(struct master *master) {
  const struct config *config = &master->config;
  const struct routes_options routes_options = {
      .base = master->base,
      .config = config,
      .link = master->redis,
      .table = master->route_table,
      .directory = master->directory,
      .counters = master->counters,
      .on_taken_over = on_taken_over,
      .on_lost = on_lost_player,
      .is_expected = is_expected,
      .on_moved = on_route_moved,
      .owner = master,
  };
  const struct bans_options bans_options = {
      .config = config,
      .link = master->redis,
      .counters = master->counters,
      .on_ban = on_ban,
      .owner = master,
  };
  const struct push_hub_options hub_options = {
      .config = config,
      .directory = master->directory,
      .counters = master->counters,
      .workers = CONFIG_WORKER_NUMBERS,
      .send = send_push,
      .room = push_room,
      .find_gateway = find_gateway,
      .publish = master->redis ? publish : NULL,
      .owner = master,
  };
  if (!(master->routes = routes_new(&routes_options)) ||
      !(master->bans = bans_new(&bans_options)) ||
      !(master->push_hub = push_hub_new(&hub_options)) ||
      (master->redis && !start_topics(master))) {
    return false;
  }
  takeover_keep_bans(master->saved, master->bans);
  const struct admission_options admission_options = {
      .config = config,
      .directory = master->directory,
      .bans = master->bans,
      .others = master->other_gateways,
      .counters = master->counters,
      .on_answer = on_login_answer,
      .on_conflict = on_conflict,
      .on_unused_route = on_unused_route,
      .owner = master,
  };
  const struct player_watch_options watch_options = {
      .config = config, .directory = master->directory, .send = send_watch, .owner = master};
  return (master->admission = admission_new(&admission_options)) &&
         (master->player_watch = player_watch_new(&watch_options));
}

static bool find_worker(struct master *master, const char *program, char *why, size_t why_size) {
  master->worker_program_fd = open(program, O_PATH | O_CLOEXEC);
  if (master->worker_program_fd < 0 || access(program, X_OK) != 0) {
    snprintf(why, why_size, "%s can't be executed; name it with --worker", program);
    return false;
  }
  return true;
}

// etcd and Redis, where they are used.
static bool open_stores(struct master *master, char *why, size_t why_size) {
  static const struct redis_link_events events = {on_redis_up, on_redis_down, on_redis_changed};
  const struct config *config = &master->config;
  master->registry = registry_new(master->base, config, master->secrets, master->nodes,
                                  master->counters, why, why_size);
  if (!master->registry) {
    return false;
  }
  registry_take_over(master->registry, json_object_get(master->saved, "registered"));
  if (config->routes.store != ROUTES_REDIS) {
    return true;
  }
  master->redis = redis_link_new(master->base, config, master->secrets, master->counters, &events,
                                 master, why, why_size);
  return master->redis != NULL;
}

static bool start_tracing(struct master *master) {
  if (master->trace_settings.url[0] != '\0') {
    master->trace_exporter = trace_exporter_new(master->base, &master->trace_settings,
                                                &master->config, master->counters);
    return master->trace_exporter != NULL;
  }
  return true;
}

// Those of the program before serve on.
static bool start_workers(struct master *master) {
  static const struct workers_events events = {worker_messages_on_message,
                                               worker_messages_on_worker_dead, on_all_ready,
                                               on_replaced, on_all_gone};
  const struct workers_options options = {
      .program_fd = master->worker_program_fd,
      .config = &master->config,
      .secrets = master->secrets,
      .listeners = master->clients,
      .listener_count = master->client_listeners,
      .route_table_fd = route_table_fd(master->route_table),
      .node_table_fd = node_table_fd(master->nodes),
      .tls_fd = tls_keys_fd(master->tls_keys),
      .kcp_owners_fd = kcp_owners_fd(master->kcp_owners),
      .kcp_mailboxes = master->kcp_mailboxes,
      .saved = json_object_get(master->saved, "workers"),
  };
  return (master->workers = workers_new(master->base, &options, &events, master)) &&
         (master->session_reports = session_reports_new(master->base, master->workers));
}

// Returns true, or false with the reason in why.
static bool build(struct master *master, const char *worker_program, char *why, size_t why_size) {
  const struct config *config = &master->config;
  if (!find_worker(master, worker_program, why, why_size)) {
    return false;
  }
  takeover_offer_sockets(master->saved);
  // First of all, since it tells when another gateway is running.
  if (!(master->control = control_new(master, why, why_size)) ||
      !open_listeners(master, why, why_size) || !open_mailboxes(master, why, why_size) ||
      // The workers' business, but a fault is better found here, once and at the start.
      tls_client_check(&config->tunnel.tls, master->secrets->tunnel_tls_key, why, why_size) != 0 ||
      !build_tables(master, why, why_size) || !open_ports(master, why, why_size) ||
      !open_stores(master, why, why_size)) {
    return false;
  }
  if (!build_services(master) || !start_tracing(master)) {
    snprintf(why, why_size, "out of memory");
    return false;
  }
  if (!master->saved) {  // else when it is known who is here
    serve_pushes(master);
  }
  push_hub_set_serial(master->push_hub, (uint64_t)json_integer_value(
                                            json_object_get(master->saved, "broadcast_serial")));
  listeners_withdraw_offers();
  int asker_fd = takeover_fd(master->saved, "asker_fd");
  master->upgrade_asker = asker_fd >= 0 ? control_adopt_asker(master->control, asker_fd) : NULL;
  if (!start_workers(master)) {
    snprintf(why, why_size, "the workers can't be started");
    return false;
  }
  log_control_init(&master->log_control, master->workers, config->log.level);
  return true;
}

static void tear_down(struct master *master) {
  if (master->control) {
    upgrade_cancel(master, "the gateway has stopped");
  }
  control_forget_replacements(master);
  session_reports_free(master->session_reports);
  workers_free(master->workers);
  master->workers = NULL;
  trace_exporter_free(master->trace_exporter);
  close_listeners(master);
  registry_free(master->registry);
  redis_link_close(master->redis);  // answers whoever has asked something of Redis
  control_free(master->control);
  player_watch_free(master->player_watch);
  admission_free(master->admission);
  other_gateways_free(master->other_gateways);
  push_topics_free(master->push_topics);
  operations_http_free(master->operations_http);
  operations_grpc_free(master->operations_grpc);
  push_hub_free(master->push_hub);
  bans_free(master->bans);
  routes_free(master->routes);
  redis_link_free(master->redis);
  directory_free(master->directory);
  route_table_free(master->route_table);
  kcp_owners_free(master->kcp_owners);
  kcp_mailboxes_free(master->kcp_mailboxes);
  loop_lag_free(master->loop_lag);
  free(master->counters);
  node_table_free(master->nodes);
  tls_keys_free(master->tls_keys);
  free(master->loaded);
  sodium_free(master->secrets);
  sodium_free(master->secrets_before);
  if (master->worker_program_fd >= 0) {
    close(master->worker_program_fd);
  }
}

// What has to be as it was, so that the workers that are there fit; until they are taken over.
static void take_over_settings(struct master *master) {
  struct secrets *before = master->secrets_before = sodium_malloc(sizeof *before);
  const json_t *workers = json_object_get(master->saved, "workers");
  if (before && takeover_read_secrets(master->saved, before)) {
    secrets_rotate(master->secrets, before, clock_wall_ms(), master->config.login.key_overlap_ms);
  } else {
    sodium_free(before);
    master->secrets_before = NULL;
  }
  takeover_keep_types(master->saved, &master->config);
  takeover_keep_port(master->saved, &master->config);
  int64_t places = json_integer_value(json_object_get(workers, "places"));
  if (places >= 1 && places <= CONFIG_WORKERS) {
    master->config.worker.count = places;
  }
}

// --- Running ---------------------------------------------------------------------------

struct heard_signal {
  int number;
  event_callback_fn callback;
  struct event *event;
};

static void hear_nothing(int number) { (void)number; }

static void hear_signals(struct master *master, struct heard_signal *signals, size_t count) {
  for (size_t i = 0; i < count; i++) {
    struct heard_signal *one = &signals[i];
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, one->number);
    // Ignored once the event is freed: a second one must not kill us while we tear down. None
    // is lost meanwhile.
    pthread_sigmask(SIG_BLOCK, &only, NULL);
    signal(one->number, hear_nothing);  // ignoring would drop what waits
    one->event = evsignal_new(master->base, one->number, one->callback, master);
    evsignal_add(one->event, NULL);
    pthread_sigmask(SIG_UNBLOCK, &only, NULL);  // what came during a takeover is heard now
  }
}

static void free_event(struct event *event) {
  if (event) {
    event_free(event);
  }
}

// All that build stands on. False: out of memory or of descriptors.
static bool begin(struct master *master, const struct master_options *options) {
  const struct config *config = options->config;
  trace_settings_init(&master->trace_settings, &master->config);
  if (master->config.worker.count == 0) {
    master->config.worker.count = places_default_count();
  }
  master->wanted_workers = master->config.worker.count;
  if (options->saved) {
    take_over_settings(master);
    master->take_over_by_ms = clock_monotonic_ms() + TAKE_OVER_MS;
  }
  master->tls_keys = tls_keys_new(config, options->tls_material);
  if (master->tls_keys) {
    tls_keys_set_logins(master->tls_keys, master->secrets);
  }
  if ((master->loaded = malloc(sizeof *config))) {
    *master->loaded = *config;
  }
  if (!(master->base = event_base_new())) {
    return false;
  }
  master->tick = event_new(master->base, -1, EV_PERSIST, on_second, master);
  master->leaving = event_new(master->base, -1, EV_PERSIST, on_leave_tick, master);
  master->service_manager = service_manager_new(master->base);
  bool has_places = places_init(master);
  return has_places && master->tick && master->leaving && master->loaded && master->tls_keys;
}

static void tell_failure(struct master *master, const struct master_options *options,
                         const char *why) {
  char quoted[640];
  log_error("start_failed", "why=%s", log_quote(quoted, sizeof quoted, why, strlen(why)));
  if (options->saved && !master->workers && !options->went_back) {
    service_manager_restore_environment(master->service_manager);
    trace_settings_restore_environment(&master->trace_settings);
    takeover_go_back(options->saved, options->arguments, master->secrets_before, why);
  }
}

int master_run(const struct master_options *options) {
  static const struct timeval second = {.tv_sec = 1};
  struct master master = {.arguments = *options->arguments,
                          .program = options->program,
                          .saved = options->saved,
                          .went_back = options->went_back,
                          .config = *options->config,
                          .secrets = options->secrets,
                          .worker_program_fd = -1,
                          .started_ms = clock_wall_ms()};
  struct heard_signal signals[] = {{SIGTERM, on_stop_signal, NULL},
                                   {SIGINT, on_stop_signal, NULL},
                                   {SIGHUP, on_hangup, NULL},
                                   {SIGUSR1, on_reopen_signal, NULL}};
  const size_t signal_count = sizeof signals / sizeof signals[0];
  char why[512] = "out of memory, or of descriptors";

  log_setup(master.config.log.type, master.config.log.level, "master");
  signal(SIGPIPE, SIG_IGN);
  if (!options->saved) {       // else they wait, blocked, until we listen
    signal(SIGUSR1, SIG_IGN);  // until the log can be reopened
    signal(SIGHUP, SIG_IGN);   // until there is something to reload
  }
  evthread_use_pthreads();
  raise_descriptor_limit(&master.config);
  bool built = begin(&master, options) && build(&master, options->worker_program, why, sizeof why);
  if (built) {
    event_add(master.tick, &second);
    hear_signals(&master, signals, signal_count);
    event_base_dispatch(master.base);
    log_info("stopped", "sessions_left=%zu", directory_count(master.directory));
  } else {
    tell_failure(&master, options, why);
  }
  for (size_t i = 0; i < signal_count; i++) {
    free_event(signals[i].event);
  }
  free_event(master.tick);
  free_event(master.leaving);
  places_fini(&master);
  service_manager_free(master.service_manager);
  tear_down(&master);
  loop_free(master.base);
  takeover_end(master.saved);
  return built ? 0 : 1;
}
