// The configuration: libconfig text to one plain struct, with every fault
// reported at once.
//
// The keys are described, line by line, in etc/janus.conf and etc/secret.conf.
// In config_keys.c one table names each key, its type, default and bounds; reading,
// checking, overriding from the environment and reporting all go by that table.
//
// The master reads the files; a worker reads the same settings from a descriptor
// that the master hands it (config_save / config_load_fd), so that both have the
// same ones whatever happens to the files meanwhile. Secrets travel apart.
#ifndef JANUS_COMMON_CONFIG_H
#define JANUS_COMMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/error.h"
#include "common/keys.h"
#include "common/log.h"
#include "common/log_output.h"
#include "common/networks.h"
#include "common/node_table.h"
#include "common/route_table.h"
#include "common/stream.h"
#include "common/trace_context.h"

enum {
  CONFIG_TEXT_BYTES = 128,  // most strings, with their NUL
  CONFIG_PATH_BYTES = 256,
  CONFIG_ADDRESSES_BYTES = 1024,  // several host:port, with commas between them
  CONFIG_PASSWORD_BYTES = 256,
  CONFIG_PEM_BYTES = 8192,   // a private key
  CONFIG_TUNNEL_TYPES = 16,  // at most
  CONFIG_MODULES = 64,       // for each tunnel type, at most
  CONFIG_NODES = 256,        // in the static registry, at most
  CONFIG_GROUP_BYTES = 64,   // the name of a group of users
  CONFIG_WORKERS = 64,       // at most
  // Numbers of worker processes: those among them that only wait for their last players to leave.
  CONFIG_WORKER_NUMBERS = 2 * CONFIG_WORKERS,
  CONFIG_LISTENERS = 16,     // at most, those that have a name among them
  CONFIG_LIST_BYTES = 1024,  // several texts or paths, with commas between them
};

// The default of control.socket, which janusctl goes by.
#define CONFIG_CONTROL_SOCKET "/run/janus-gate/janusd.sock"

// One kind of tunnel: `tunnel.types`.
struct config_tunnel_type {
  char name[32];
  char service[ROUTE_SERVICE_MAX_BYTES + 1];  // in the registry and in route keys
  char method[CONFIG_TEXT_BYTES];             // "/package.Service/Method"
  int32_t modules[CONFIG_MODULES];
  size_t module_count;
  bool default_modules;  // takes every module that no type names
  bool own_object_only;  // obj must be 0 or the own uid
  bool fragments;        // the message has conn_id and the frag fields
  enum route_tier tier;  // "player" or "object"
  bool main;             // the player's own: a node that refuses it ends the player's sessions
};

// TLS towards a server. Empty: the system's certificates; no certificate of our own;
// the host's name as it is called.
struct config_tls {
  bool enabled;  // not of tunnel.tls: each node says it
  char ca[CONFIG_PATH_BYTES];
  char cert[CONFIG_PATH_BYTES];
  char key[CONFIG_PATH_BYTES];  // its content is in struct secrets
  char server_name[CONFIG_TEXT_BYTES];
};

enum transport_name { TRANSPORT_TCP, TRANSPORT_WS, TRANSPORT_KCP };
enum tls_version { TLS_1_2, TLS_1_3 };

// One place where clients connect: server.tcp, server.ws, server.kcp, or an entry of
// server.listeners.
struct config_listener {
  enum transport_name transport;
  char addr[CONFIG_TEXT_BYTES];     // host:port; port 0 for any free one; "": there is none
  int64_t connections_per_worker;   // beside the limits for all; 0 for none
  int64_t connections_per_address;  // within one worker; 0 for none
  struct networks allow;            // none: from everywhere
  struct networks deny;

  // All but KCP.
  int64_t backlog;
  int64_t defer_accept_ms;  // accepted when the first bytes are there, or after so long; 0: at once
  int64_t keepalive_ms;     // of quiet before the kernel asks whether the client is there; 0: never
  bool nodelay;
  int64_t user_timeout_ms;  // for bytes to be acknowledged; 0: the kernel's choice
  struct networks proxy;    // whose connections begin with a PROXY header

  // WebSocket.
  char path[CONFIG_TEXT_BYTES];
  char origins[CONFIG_LIST_BYTES];  // or "*"
  char subprotocols[CONFIG_LIST_BYTES];
  int64_t ping_interval_ms;  // of quiet before a ping, and for its answer; 0: never

  struct {
    bool enabled;
    char cert[CONFIG_LIST_BYTES];  // files, each a chain; as many keys
    char key[CONFIG_LIST_BYTES];
    char client_ca[CONFIG_PATH_BYTES];  // "": clients are not asked for a certificate
    bool client_required;
    enum tls_version min_version;
  } tls;
};

// The listeners that have a name come first.
enum { LISTENER_TCP, LISTENER_WS, LISTENER_KCP, LISTENER_MORE };

// What the keys of kcp that are not given have: the ecosystem's defaults, or its settings for
// games that are played by the tick.
enum kcp_profile { KCP_PROFILE_DEFAULT, KCP_PROFILE_LOW_LATENCY };

enum registry_source { REGISTRY_STATIC, REGISTRY_ETCD };
enum login_conflict { LOGIN_NEWEST_WINS, LOGIN_REFUSE_SECOND };
// What gives way for a client that is behind.
enum slow_client {
  SLOW_CLIENT_DISCONNECT,
  SLOW_CLIENT_DROP_NEWEST,
  SLOW_CLIENT_DROP_OLDEST,
  SLOW_CLIENT_CONFLATE,
};
enum routes_store { ROUTES_MEMORY, ROUTES_REDIS };

// The wire of the listeners for KCP, one for all of them.
struct config_kcp {
  enum kcp_profile profile;
  int64_t data_shards;  // of a group of FEC; 0, and parity_shards too: there is no FEC
  int64_t parity_shards;
  bool nodelay;
  int64_t interval_ms;  // under 10 the wire takes it for 10
  int64_t resend;       // acknowledgements of later segments before one is sent again; 0: never
  bool congestion_window;
  int64_t send_window;  // segments
  int64_t receive_window;
  int64_t mtu_bytes;  // of KCP in a datagram: FEC's 8 bytes come on top
  bool ack_nodelay;
  int64_t dscp;
  int64_t socket_buffer_bytes;
  int64_t streams;  // of smux, in one connection at a time
  int64_t frame_bytes;
  int64_t receive_buffer_bytes;  // of all streams of a connection
  int64_t stream_buffer_bytes;
  int64_t keepalive_interval_ms;  // 0: none
  int64_t keepalive_timeout_ms;   // 0: never
  bool roaming;
  int64_t pending_connections;  // without a finished handshake, of one worker
  int64_t pending_per_address;  // of these, whose client has not shown that it is there
};

struct config {
  struct {
    char service[CONFIG_TEXT_BYTES];
    char profile[CONFIG_TEXT_BYTES];
    char color[NODE_COLOR_MAX_BYTES + 1];
    char version[CONFIG_TEXT_BYTES];
    char zone[CONFIG_TEXT_BYTES];
    char node[CONFIG_TEXT_BYTES];
    char language[CONFIG_TEXT_BYTES];
    bool encrypted;
  } label;

  struct {
    enum log_type type;
    enum log_level level;
    enum log_output output;
    char file[CONFIG_PATH_BYTES];  // "" without
  } log;

  struct {
    char endpoint[CONFIG_PATH_BYTES];  // OTLP over HTTP, "" for no tracing
    enum trace_sampler_kind sampler;
    char ratio[CONFIG_TEXT_BYTES];  // of the samplers with one, for trace_ratio_parse
    int64_t spans_per_s;            // of one worker
    int64_t queue_bytes;            // of spans that may wait in the master
    int64_t timeout_ms;             // of one export
  } trace;

  struct {
    int64_t weak_bytes;    // compress.weak: from here zlib level 1
    int64_t strong_bytes;  // compress.strong: from here level 6
  } compress;

  struct {
    struct config_listener listeners[CONFIG_LISTENERS];
    size_t listener_count;  // LISTENER_MORE and more
    struct {
      char addr[CONFIG_TEXT_BYTES];
      char advertise[CONFIG_TEXT_BYTES];  // host:port that others reach us at; "" derives it
      int64_t timeout_ms;                 // for a request to come in, and to be answered
    } grpc;
    struct {
      char addr[CONFIG_TEXT_BYTES];  // host:port of the operations port
      int64_t timeout_ms;
      char web[CONFIG_PATH_BYTES];  // the browser client's folder; "": not served
    } http;
  } server;

  struct config_kcp kcp;

  struct {
    int64_t gateway_route_table_alive_duration_ms;
    int64_t app_route_table_alive_duration_ms;
    struct {
      char addr[CONFIG_ADDRESSES_BYTES];  // of the server, the cluster's nodes or the Sentinels
      char username[CONFIG_TEXT_BYTES];
      int64_t db;
      bool cluster;
      char sentinel_master[CONFIG_TEXT_BYTES];  // "": no Sentinel
      int64_t dial_timeout_ms;
      int64_t read_timeout_ms;
      int64_t write_timeout_ms;
      int64_t backoff_ms;  // between tries to connect, doubled each time with jitter
      int64_t backoff_max_ms;
      int64_t queued_writes;  // of gateway routes, while it is away
      struct config_tls tls;
    } redis;
  } data;

  struct {
    char endpoints[CONFIG_ADDRESSES_BYTES];
    char username[CONFIG_TEXT_BYTES];
    char namespace[CONFIG_TEXT_BYTES];
    int64_t timeout_ms;  // of one call
    int64_t lease_ttl_ms;
    int64_t empty_hold_ms;  // how long nodes are kept when a new list has none at all
    int64_t backoff_ms;
    int64_t backoff_max_ms;
    struct config_tls tls;
  } etcd;

  struct {
    enum registry_source source;
    struct node nodes[CONFIG_NODES];  // since_ms unset
    size_t node_count;
    int64_t capacity;  // nodes in the shared table
  } registry;
  struct {
    enum routes_store store;
    int64_t capacity[ROUTE_TIER_COUNT];
  } routes;

  struct {
    int64_t count;  // 0: one for each core
    int64_t restart_backoff_ms;
    int64_t restart_backoff_max_ms;
    int64_t stop_timeout_ms;    // for what is pending: at a stop, a close, a tunnel's release
    int64_t hang_timeout_ms;    // a loop that has not come round for so long; 0: never
    int64_t orphan_timeout_ms;  // how long a worker goes on without its master
  } worker;

  // Of workers whose players are to leave: for another generation, or with the gateway.
  struct {
    int64_t timeout_ms;      // they may stay for so long,
    int64_t spread_ms;       // and are then sent away, evenly over this
    int64_t stop_spread_ms;  // the same at SIGTERM, when none may stay
    int64_t generations;     // of draining workers at a time, at most
  } drain;

  struct {
    char socket[CONFIG_PATH_BYTES];       // janusctl's; at most what sockaddr_un holds
    char group[CONFIG_GROUP_BYTES];       // who may all; "": the one that janusd runs as
    char read_group[CONFIG_GROUP_BYTES];  // who may look; "": nobody else
  } control;

  struct {
    enum login_conflict conflict;
    int64_t key_overlap_ms;  // how long keys that a reload replaces stay good; 0: no longer
  } login;

  struct {
    int64_t connections_per_worker;
    int64_t connections_per_address;  // within one worker; 0 for none
    int64_t handshakes_per_s;         // within one worker; 0 for none
    int64_t handshake_burst;
    int64_t tls_handshakes_per_s;  // within one worker; 0 for none
    int64_t tls_handshake_burst;
    int64_t handshake_timeout_ms;
    int64_t handshake_clock_ms;  // how far the client's clock may be off
    int64_t idle_timeout_ms;
    int64_t messages_per_s;  // of one session; 0 for none
    int64_t messages_burst;
    int64_t bytes_per_s;  // of one session; 0 for none
    int64_t bytes_burst;
    int64_t tunnels_per_session;
    int64_t inflated_bytes;           // of one message from a client
    int64_t message_to_client_bytes;  // of one sealed message
  } limits;

  struct {
    int64_t tunnel_messages;  // waiting for one tunnel: over it the client is read no further
    int64_t tunnel_bytes;
    int64_t client_high_bytes;  // waiting for one client: over it its tunnels are read no further
    int64_t client_low_bytes;   // and below this they are again
    int64_t client_grace_ms;    // over high for longer: push.slow_client says what is done
  } queue;

  struct {
    struct config_tunnel_type types[CONFIG_TUNNEL_TYPES];
    size_t type_count;
    enum stream_engine_kind engine;
    int64_t open_timeout_ms;    // for one try
    int64_t reopen_timeout_ms;  // from a break until the session is given up
    int64_t backoff_ms;         // between tries, doubled each time with jitter
    int64_t backoff_max_ms;
    int64_t suspect_ms;              // how long a node that refused is passed over
    int64_t unknown_node_grace_ms;   // before a route to an unknown node is replaced
    int64_t streams_per_connection;  // a further connection is opened beyond it
    int64_t message_bytes;           // accepted from a backend, at most
    struct config_tls tls;           // for the nodes that want it
  } tunnel;

  struct {
    struct networks allow;  // from where pushes are taken
    enum slow_client slow_client;
    int64_t waiting_bytes;  // of pushes that may wait for one client that is behind
  } push;

  struct {
    bool aes_ni;
  } seal;
};

// What logins go by. Of a previous one either part may be missing.
struct login_keys {
  uint8_t account_aes_key[32];
  size_t account_aes_key_len;  // 16, 24 or 32; 0: none
  bool has_certs;              // the four below
  struct signing_key server_key;
  int32_t server_cert_version;
  struct verify_key client_key;  // all zero where label.encrypted = false lets it be left out
  int32_t client_cert_version;
  int64_t until_ms;  // good before then, by the wall clock; 0: for good
};

enum { LOGIN_KEYS_PREVIOUS = 3 };  // at most

// From etc/secret.conf, section `secret`, and the key files of TLS. Never logged, never in the
// environment. No pointers: it is handed on to other processes byte by byte.
struct secrets {
  struct login_keys current;
  struct login_keys previous[LOGIN_KEYS_PREVIOUS];  // the newest first; see secrets_rotate.h
  size_t previous_count;
  char redis_password[CONFIG_PASSWORD_BYTES];  // each empty where there is none
  char redis_sentinel_password[CONFIG_PASSWORD_BYTES];
  char etcd_password[CONFIG_PASSWORD_BYTES];
  char push_token[CONFIG_PASSWORD_BYTES];  // that those who push have to show
  char redis_tls_key[CONFIG_PEM_BYTES];    // private keys, PEM
  char etcd_tls_key[CONFIG_PEM_BYTES];
  char tunnel_tls_key[CONFIG_PEM_BYTES];
};

// Where a fault is and what to do, as "FILE:LINE: key: message"; called once for
// each of them.
typedef void config_report(const char *fault, void *context);

// Reads path with what it includes, applies JANUS_<PATH> from the environment
// (dots and case folded: server.tcp.addr is JANUS_SERVER_TCP_ADDR; never a secret),
// checks everything. Returns 0, or ERROR_INVALID after reporting every fault.
// The secret section may be in path itself or in an included file; each file it
// stands in must not be accessible to others (mode & 007 == 0).
int config_load_file(const char *path, struct config *config, struct secrets *secrets,
                     config_report *report, void *context) MUST_CHECK;

// The listener after that one, of those that there are: after NULL the first. NULL: no more.
// Master and workers number their sockets in this order.
const struct config_listener *config_listener_next(const struct config *config,
                                                   const struct config_listener *listener);

// What becomes of a setting that has changed, in a gateway that runs.
enum config_change {
  CONFIG_IN_PLACE,     // it counts from now on
  CONFIG_NEW_WORKERS,  // for workers that start from now on
  CONFIG_RESTART,      // it waits until the gateway is started anew, or upgraded
};
const char *config_change_name(
    enum config_change change);  // "in_place", "new_generation", "restart"

typedef void config_on_change(const char *name, enum config_change change, void *context);
// Takes over from fresh what does not wait for a restart and differs from loaded, which is what was
// read before: into running, which goes by it, and into loaded. on_change for each setting that
// differs. Secrets are no settings.
void config_take(struct config *running, struct config *loaded, struct config *fresh,
                 config_on_change *on_change, void *context);
// The same for tunnel.types alone: running keeps the places that it has.
void config_take_types(struct config *running, struct config *fresh, config_on_change *on_change,
                       void *context);
// The place in fresh of the listener that is this one; CONFIG_LISTENERS: there is none.
size_t config_listener_counterpart(const struct config *running, size_t index,
                                   const struct config *fresh);

// Where it stands in the configuration: "server.ws", "server.listeners[2]". Returns name.
const char *config_listener_path(const struct config *config,
                                 const struct config_listener *listener, char *name, size_t size);

// What it speaks, in a word: "tcp", "tls", "ws", "wss" or "kcp".
enum listener_kind {
  LISTENER_KIND_TCP,
  LISTENER_KIND_TLS,
  LISTENER_KIND_WS,
  LISTENER_KIND_WSS,
  LISTENER_KIND_KCP,
  LISTENER_KIND_COUNT
};
enum listener_kind config_listener_kind(const struct config_listener *listener);
const char *config_listener_kind_name(enum listener_kind kind);
const char *config_listener_name(const struct config_listener *listener);
const char *config_transport_name(enum transport_name transport);  // "tcp", "ws", "kcp"

// How the store and the table name a tunnel's route, whose type is one of these.
static inline struct route_key config_route_key(const struct config *config,
                                                const struct tunnel_route *route) {
  const struct config_tunnel_type *type = &config->tunnel.types[route->type];
  return (struct route_key){
      .tier = type->tier, .service = type->service, .color = route->color, .oid = route->oid};
}

// The section kcp as it is where it gives nothing but the profile. ERROR_MEMORY.
int config_kcp_of_profile(enum kcp_profile profile, struct config_kcp *kcp) MUST_CHECK;

// Writes the settings (no secrets) as libconfig text that config_load_fd takes
// back to an equal struct.
int config_save(const struct config *config, FILE *out) MUST_CHECK;
// The same in memory, malloc'd; NULL when out of memory.
char *config_text(const struct config *config);
int config_load_fd(int fd, struct config *config, config_report *report, void *context) MUST_CHECK;
int config_load_text(const char *text, struct config *config, config_report *report,
                     void *context) MUST_CHECK;

#endif
