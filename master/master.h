// The master: wires the parts together and keeps them running. What the parts
// share is this struct; there is one in the process, and everything in it belongs
// to the loop's thread.
#ifndef JANUS_MASTER_MASTER_H
#define JANUS_MASTER_MASTER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/counters.h"
#include "common/kcp_owners.h"
#include "common/node_table.h"
#include "common/redis_link.h"
#include "common/route_table.h"
#include "master/control_drain.h"
#include "master/directory.h"
#include "master/drain.h"
#include "master/health_http.h"
#include "master/listeners.h"
#include "master/log_control.h"
#include "master/places.h"
#include "master/push_access.h"
#include "master/takeover.h"
#include "master/trace_settings.h"
#include "master/workers.h"

struct admission;
struct bans;
struct control;
struct kcp_mailboxes;
struct other_gateways;
struct operations_grpc;
struct operations_http;
struct player_watch;
struct loop_lag;
struct push_hub;
struct push_topics;
struct registry;
struct routes;
struct service_manager;
struct session_reports;
struct tls_keys;
struct upgrade;
struct trace_exporter;
struct tls_material;

struct master {
  struct event_base *base;
  struct takeover_arguments arguments;
  const char *program;  // where janusd lies
  json_t *saved;        // what the program before this one in the process has left; NULL
  struct upgrade *upgrade;
  void *upgrade_asker;      // who waits to hear that this program has taken over
  const char *went_back;    // why another program could not; NULL
  struct config config;     // as the gateway runs
  struct config *loaded;    // as it was read
  struct secrets *secrets;  // locked memory, left out of core dumps
  int worker_program_fd;
  int64_t started_ms;  // wall clock

  struct listeners clients[CONFIG_LISTENERS];  // where they come in
  const struct config_listener *client_config[CONFIG_LISTENERS];
  size_t client_listeners;
  struct redis_link *redis;  // NULL with routes in memory
  struct route_table *route_table;
  struct kcp_owners *kcp_owners;
  struct kcp_mailboxes *kcp_mailboxes;  // NULL: no listener is or was for KCP
  struct routes *routes;
  struct node_table *nodes;
  struct tls_keys *tls_keys;
  struct trace_settings trace_settings;
  struct trace_exporter *trace_exporter;  // NULL without tracing
  struct registry *registry;
  struct directory *directory;
  struct admission *admission;
  struct bans *bans;
  struct push_access push_access;
  struct health_http health_http;
  struct push_hub *push_hub;
  struct operations_grpc *operations_grpc;
  struct operations_http *operations_http;
  // With Redis; else NULL.
  struct push_topics *push_topics;
  struct other_gateways *other_gateways;
  struct workers *workers;
  struct session_reports *session_reports;
  struct player_watch *player_watch;
  struct control *control;
  struct replacement_list replacements;  // that janusctl waits for
  struct log_control log_control;
  struct service_manager *service_manager;  // NULL without one
  // How each worker stands with Redis, as it said last; all zero until then.
  struct redis_link_health worker_redis[CONFIG_WORKER_NUMBERS];
  struct counters *counters;       // the master's own, beside those of the workers
  int64_t take_over_by_ms;         // monotonic: then it goes on without those who have not told
  struct secrets *secrets_before;  // of the program before, while it may be needed again; or NULL
  int64_t wanted_workers;          // once it has taken over
  struct places places;
  bool all_workers_served;  // at some time since the start
  struct gateway_drain drain;
  bool stopping;
  struct loop_lag *loop_lag;
  struct event *tick;     // each second
  struct event *leaving;  // the workers are gone; looks whether all else is done
  int64_t leave_by_ms;    // monotonic: then it is left undone
};

// Has the worker close the session, which tells its client the code.
void master_close_session(struct master *master, const struct directory_session *session,
                          enum close_reason reason, enum logout_code code);

// Says to whoever asks whether players may be sent here what is true now.
void master_look_at_readiness(struct master *master);
// Registers this gateway, unless it does not serve yet or is draining: players may come.
void master_announce(struct master *master);

// Has the workers read the certificates and keys of TLS anew.
void master_tell_tls_changed(struct master *master);

// All nodes known, for the caller to free; returns how many.
size_t master_read_nodes(const struct master *master, struct node **nodes);

// What janusd starts with. All is the master's from there on.
struct master_options {
  const struct takeover_arguments *arguments;
  const char *program;  // path of this one
  json_t *saved;        // of a takeover, or NULL
  const char *went_back;
  const struct config *config;
  struct secrets *secrets;            // from sodium_malloc
  struct tls_material *tls_material;  // read by tls_keys_read
  const char *worker_program;         // path of janus-worker
};

// Runs until SIGTERM or SIGINT. Returns the exit status.
int master_run(const struct master_options *options);

#endif
