// Every key of the configuration: its type, default and bounds.
#include <string.h>

#include "common/config_loader.h"
#include "common/kcp/kcp.h"

enum {
  KEEPALIVE_MAX_MS = 32767 * 1000,  // what the kernel takes
  DAY_MS = 24 * 60 * 60 * 1000,
  KCP_WINDOW_MAX = 4096,  // segments: what a connection may hold, times 1,500 bytes
  MIB = 1 << 20,
};
#define YEAR_MS (365 * (int64_t)DAY_MS)

#define FIELD(type, member) .offset = offsetof(type, member), .size = sizeof((type *)0)->member
#define RANGE(least, most)  .min = least, .max = most
// Of a running gateway; what says neither is taken in place (enum config_change).
#define AT_RESTART     .change = CONFIG_RESTART
#define IN_NEW_WORKERS .change = CONFIG_NEW_WORKERS
#define KEY(name, is, ...) \
  { .path = name, .kind = is, __VA_ARGS__ }
#define SETTING(name, is, member, text, ...) \
  KEY(name, is, FIELD(struct config, member), .initial = text, __VA_ARGS__)

// A password, under the name that the ecosystem has for it.
#define ELSEWHERE(name, place) \
  { .path = name, .kind = KEY_ELSEWHERE, .choices = place }
#define TLS_FILES(name, member, when)                         \
  SETTING(name ".ca", KEY_PATH, member.ca, "", when),         \
      SETTING(name ".cert", KEY_PATH, member.cert, "", when), \
      SETTING(name ".key", KEY_PATH, member.key, "", when),   \
      SETTING(name ".server_name", KEY_TEXT, member.server_name, "", when)
#define TLS_SETTINGS(name, member)                                         \
  SETTING(name ".enabled", KEY_BOOL, member.enabled, "false", AT_RESTART), \
      TLS_FILES(name, member, AT_RESTART)

// What every listener has; what those on streams of bytes have, which are all but KCP's; and what
// one for WebSocket has besides. As(name, kind, member, default, ...) makes the row of one; addr is
// its default.
#define LISTENER_KEYS(As, address)                                                                \
  As("addr", KEY_ADDRESS, addr, address, RANGE(0, 1), AT_RESTART),                                \
      As("connections_per_worker", KEY_INTEGER, connections_per_worker, "0", RANGE(0, 10000000)), \
      As("connections_per_address", KEY_INTEGER, connections_per_address, "0",                    \
         RANGE(0, 10000000)),                                                                     \
      As("allow", KEY_NETWORKS, allow, ""), As("deny", KEY_NETWORKS, deny, "")
#define STREAM_KEYS(As)                                                               \
  As("backlog", KEY_INTEGER, backlog, "4096", RANGE(1, 65535)),                       \
      As("defer_accept", KEY_DURATION, defer_accept_ms, "0s", RANGE(0, DAY_MS)),      \
      As("keepalive", KEY_DURATION, keepalive_ms, "60s", RANGE(0, KEEPALIVE_MAX_MS)), \
      As("nodelay", KEY_BOOL, nodelay, "true"),                                       \
      As("user_timeout", KEY_DURATION, user_timeout_ms, "0s", RANGE(0, DAY_MS)),      \
      As("proxy", KEY_NETWORKS, proxy, ""),                                           \
      As("tls.enabled", KEY_BOOL, tls.enabled, "false", AT_RESTART),                  \
      As("tls.cert", KEY_PATHS, tls.cert, ""), As("tls.key", KEY_PATHS, tls.key, ""), \
      As("tls.client_ca", KEY_PATH, tls.client_ca, ""),                               \
      As("tls.client_required", KEY_BOOL, tls.client_required, "false"),              \
      As("tls.min_version", KEY_CHOICE, tls.min_version, "1.2", .choices = "1.2|1.3")
#define WEBSOCKET_KEYS(As)                                                                         \
  As("path", KEY_TEXT, path, "/ws", .min = 1, AT_RESTART), As("origins", KEY_TEXTS, origins, "*"), \
      As("subprotocols", KEY_TEXTS, subprotocols, ""),                                             \
      As("ping_interval", KEY_DURATION, ping_interval_ms, "30s", RANGE(0, DAY_MS))
#define TCP_SETTING(name, is, member, text, ...) \
  SETTING("server.tcp." name, is, server.listeners[LISTENER_TCP].member, text, __VA_ARGS__)
#define WS_SETTING(name, is, member, text, ...) \
  SETTING("server.ws." name, is, server.listeners[LISTENER_WS].member, text, __VA_ARGS__)
#define KCP_SETTING(name, is, member, text, ...) \
  SETTING("server.kcp." name, is, server.listeners[LISTENER_KCP].member, text, __VA_ARGS__)
#define ENTRY_KEY(name, is, member, text, ...) \
  KEY(name, is, FIELD(struct config_listener, member), .initial = text, __VA_ARGS__)

static const struct key keys[] = {
    SETTING("label.service", KEY_TEXT, label.service, "janus.gate.interface", .min = 1, AT_RESTART),
    SETTING("label.profile", KEY_TEXT, label.profile, "DEV", AT_RESTART),
    SETTING("label.color", KEY_TEXT, label.color, "local", AT_RESTART),
    SETTING("label.version", KEY_TEXT, label.version, JANUS_VERSION, AT_RESTART),
    SETTING("label.zone", KEY_TEXT, label.zone, "", AT_RESTART),
    SETTING("label.node", KEY_TEXT, label.node, "", AT_RESTART),
    SETTING("label.language", KEY_TEXT, label.language, "en", AT_RESTART),
    SETTING("label.encrypted", KEY_BOOL, label.encrypted, "true", AT_RESTART),

    SETTING("log.type", KEY_CHOICE, log.type, "text", .choices = "text|json|logfmt"),
    SETTING("log.level", KEY_CHOICE, log.level, "info", .choices = "debug|info|warn|error"),
    SETTING("log.output", KEY_CHOICE, log.output, "stderr", .choices = "stderr|file|syslog",
            AT_RESTART),
    SETTING("log.file", KEY_TEXT, log.file, "", AT_RESTART),

    SETTING("trace.endpoint", KEY_TEXT, trace.endpoint, "", AT_RESTART),
    SETTING("trace.sampler", KEY_CHOICE, trace.sampler, "parentbased_always_on",
            .choices = TRACE_SAMPLER_CHOICES, AT_RESTART),
    SETTING("trace.ratio", KEY_TEXT, trace.ratio, "1", AT_RESTART),
    SETTING("trace.spans_per_s", KEY_INTEGER, trace.spans_per_s, "1000", RANGE(1, 1000000),
            AT_RESTART),
    SETTING("trace.queue_bytes", KEY_INTEGER, trace.queue_bytes, "8388608",
            RANGE(65536, 1024 * MIB), AT_RESTART),
    SETTING("trace.timeout", KEY_DURATION, trace.timeout_ms, "10s", RANGE(1, DAY_MS), AT_RESTART),

    SETTING("compress.weak", KEY_INTEGER, compress.weak_bytes, "10240", RANGE(1, 1024 * MIB)),
    SETTING("compress.strong", KEY_INTEGER, compress.strong_bytes, "1024000", RANGE(1, 1024 * MIB)),

    LISTENER_KEYS(TCP_SETTING, "0.0.0.0:17001"),
    STREAM_KEYS(TCP_SETTING),
    LISTENER_KEYS(WS_SETTING, "0.0.0.0:17002"),
    STREAM_KEYS(WS_SETTING),
    WEBSOCKET_KEYS(WS_SETTING),
    LISTENER_KEYS(KCP_SETTING, "0.0.0.0:17003"),
    {.path = "server.listeners", .kind = KEY_LISTENERS},
    SETTING("server.grpc.addr", KEY_ADDRESS, server.grpc.addr, "127.0.0.1:19100", AT_RESTART),
    SETTING("server.grpc.timeout", KEY_DURATION, server.grpc.timeout_ms, "10s", RANGE(1, DAY_MS),
            AT_RESTART),
    SETTING("server.http.addr", KEY_ADDRESS, server.http.addr, "127.0.0.1:18100", AT_RESTART),
    SETTING("server.http.timeout", KEY_DURATION, server.http.timeout_ms, "10s", RANGE(1, DAY_MS),
            AT_RESTART),
    SETTING("server.http.web", KEY_PATH, server.http.web, "", AT_RESTART),
    SETTING("server.grpc.advertise", KEY_ADDRESS, server.grpc.advertise, "", RANGE(1, 1),
            AT_RESTART),

    // Connections keep what they began with, and so the worker that has them.
    SETTING("kcp.profile", KEY_CHOICE, kcp.profile, "default", .choices = "default|low_latency",
            IN_NEW_WORKERS),
    SETTING("kcp.data_shards", KEY_INTEGER, kcp.data_shards, "10", RANGE(0, 255), IN_NEW_WORKERS),
    SETTING("kcp.parity_shards", KEY_INTEGER, kcp.parity_shards, "3", RANGE(0, 255),
            IN_NEW_WORKERS),
    SETTING("kcp.nodelay", KEY_BOOL, kcp.nodelay, "true", IN_NEW_WORKERS),
    SETTING("kcp.interval", KEY_DURATION, kcp.interval_ms, "10ms", RANGE(5, 5000), IN_NEW_WORKERS),
    SETTING("kcp.resend", KEY_INTEGER, kcp.resend, "2", RANGE(0, 1000), IN_NEW_WORKERS),
    SETTING("kcp.congestion_window", KEY_BOOL, kcp.congestion_window, "false", IN_NEW_WORKERS),
    SETTING("kcp.send_window", KEY_INTEGER, kcp.send_window, "128", RANGE(1, KCP_WINDOW_MAX),
            IN_NEW_WORKERS),
    SETTING("kcp.receive_window", KEY_INTEGER, kcp.receive_window, "128", RANGE(1, KCP_WINDOW_MAX),
            IN_NEW_WORKERS),
    // Up to 1492, of which the check says why.
    SETTING("kcp.mtu_bytes", KEY_INTEGER, kcp.mtu_bytes, "1400", RANGE(KCP_MTU_MIN, 65535),
            IN_NEW_WORKERS),
    SETTING("kcp.ack_nodelay", KEY_BOOL, kcp.ack_nodelay, "true", IN_NEW_WORKERS),
    SETTING("kcp.dscp", KEY_INTEGER, kcp.dscp, "46", RANGE(0, 63)),
    SETTING("kcp.socket_buffer_bytes", KEY_INTEGER, kcp.socket_buffer_bytes, "4194304",
            RANGE(8192, 1024 * MIB - 1)),
    SETTING("kcp.streams", KEY_INTEGER, kcp.streams, "64", RANGE(1, 65535)),
    SETTING("kcp.frame_bytes", KEY_INTEGER, kcp.frame_bytes, "4096", RANGE(64, 65535),
            IN_NEW_WORKERS),
    SETTING("kcp.receive_buffer_bytes", KEY_INTEGER, kcp.receive_buffer_bytes, "4194304",
            RANGE(65536, 1024 * MIB), IN_NEW_WORKERS),
    SETTING("kcp.stream_buffer_bytes", KEY_INTEGER, kcp.stream_buffer_bytes, "65536",
            RANGE(4096, 1024 * MIB), IN_NEW_WORKERS),
    SETTING("kcp.keepalive_interval", KEY_DURATION, kcp.keepalive_interval_ms, "10s",
            RANGE(0, DAY_MS), IN_NEW_WORKERS),
    SETTING("kcp.keepalive_timeout", KEY_DURATION, kcp.keepalive_timeout_ms, "30s",
            RANGE(0, DAY_MS), IN_NEW_WORKERS),
    SETTING("kcp.roaming", KEY_BOOL, kcp.roaming, "false"),
    SETTING("kcp.pending_connections", KEY_INTEGER, kcp.pending_connections, "4096",
            RANGE(1, 1000000)),
    SETTING("kcp.pending_per_address", KEY_INTEGER, kcp.pending_per_address, "64",
            RANGE(1, 1000000)),

    SETTING("data.gateway_route_table_alive_duration", KEY_DURATION,
            data.gateway_route_table_alive_duration_ms, "600s", RANGE(1000, 7 * DAY_MS)),
    SETTING("data.app_route_table_alive_duration", KEY_DURATION,
            data.app_route_table_alive_duration_ms, "600s", RANGE(1000, 7 * DAY_MS)),

    SETTING("data.redis.addr", KEY_ADDRESSES, data.redis.addr, "127.0.0.1:6379", .min = 1,
            AT_RESTART),
    SETTING("data.redis.username", KEY_TEXT, data.redis.username, "", AT_RESTART),
    ELSEWHERE("data.redis.password", "secret.redis_password"),
    SETTING("data.redis.db", KEY_INTEGER, data.redis.db, "0", RANGE(0, 65535), AT_RESTART),
    SETTING("data.redis.cluster", KEY_BOOL, data.redis.cluster, "false", AT_RESTART),
    SETTING("data.redis.sentinel_master", KEY_TEXT, data.redis.sentinel_master, "", AT_RESTART),
    SETTING("data.redis.dial_timeout", KEY_DURATION, data.redis.dial_timeout_ms, "2s",
            RANGE(1, DAY_MS), AT_RESTART),
    SETTING("data.redis.read_timeout", KEY_DURATION, data.redis.read_timeout_ms, "0.5s",
            RANGE(1, DAY_MS), AT_RESTART),
    SETTING("data.redis.write_timeout", KEY_DURATION, data.redis.write_timeout_ms, "0.5s",
            RANGE(1, DAY_MS), AT_RESTART),
    SETTING("data.redis.backoff", KEY_DURATION, data.redis.backoff_ms, "100ms", RANGE(1, DAY_MS),
            AT_RESTART),
    SETTING("data.redis.backoff_max", KEY_DURATION, data.redis.backoff_max_ms, "5s",
            RANGE(1, DAY_MS), AT_RESTART),
    SETTING("data.redis.queued_writes", KEY_INTEGER, data.redis.queued_writes, "100000",
            RANGE(1, 10000000), AT_RESTART),
    TLS_SETTINGS("data.redis.tls", data.redis.tls),

    SETTING("etcd.endpoints", KEY_ADDRESSES, etcd.endpoints, "127.0.0.1:2379", RANGE(1, 1),
            AT_RESTART),
    SETTING("etcd.username", KEY_TEXT, etcd.username, "", AT_RESTART),
    ELSEWHERE("etcd.password", "secret.etcd_password"),
    SETTING("etcd.namespace", KEY_TEXT, etcd.namespace, "/microservices", .min = 1, AT_RESTART),
    SETTING("etcd.timeout", KEY_DURATION, etcd.timeout_ms, "3s", RANGE(1, DAY_MS), AT_RESTART),
    SETTING("etcd.lease_ttl", KEY_DURATION, etcd.lease_ttl_ms, "15s", RANGE(2000, DAY_MS),
            AT_RESTART),
    SETTING("etcd.empty_hold", KEY_DURATION, etcd.empty_hold_ms, "30s", RANGE(0, DAY_MS),
            AT_RESTART),
    SETTING("etcd.backoff", KEY_DURATION, etcd.backoff_ms, "200ms", RANGE(1, DAY_MS), AT_RESTART),
    SETTING("etcd.backoff_max", KEY_DURATION, etcd.backoff_max_ms, "5s", RANGE(1, DAY_MS),
            AT_RESTART),
    TLS_SETTINGS("etcd.tls", etcd.tls),

    SETTING("registry", KEY_CHOICE, registry.source, "static", .choices = "static|etcd",
            AT_RESTART),
    {.path = "nodes", .kind = KEY_NODES},
    SETTING("node_table.capacity", KEY_INTEGER, registry.capacity, "4096", RANGE(1, 1000000),
            AT_RESTART),
    SETTING("routes", KEY_CHOICE, routes.store, "memory", .choices = "memory|redis", AT_RESTART),
    SETTING("route_table.capacity.gateway", KEY_INTEGER, routes.capacity[ROUTE_GATEWAY], "100000",
            RANGE(1, 100000000), AT_RESTART),
    SETTING("route_table.capacity.player", KEY_INTEGER, routes.capacity[ROUTE_PLAYER], "100000",
            RANGE(1, 100000000), AT_RESTART),
    SETTING("route_table.capacity.object", KEY_INTEGER, routes.capacity[ROUTE_OBJECT], "100000",
            RANGE(1, 100000000), AT_RESTART),

    SETTING("worker.count", KEY_INTEGER, worker.count, "0", RANGE(0, CONFIG_WORKERS)),
    SETTING("worker.restart_backoff", KEY_DURATION, worker.restart_backoff_ms, "100ms",
            RANGE(1, DAY_MS)),
    SETTING("worker.restart_backoff_max", KEY_DURATION, worker.restart_backoff_max_ms, "5s",
            RANGE(1, DAY_MS)),
    SETTING("worker.stop_timeout", KEY_DURATION, worker.stop_timeout_ms, "3s", RANGE(1, DAY_MS)),
    SETTING("worker.hang_timeout", KEY_DURATION, worker.hang_timeout_ms, "10s", RANGE(0, DAY_MS)),
    SETTING("worker.orphan_timeout", KEY_DURATION, worker.orphan_timeout_ms, "60s",
            RANGE(1, DAY_MS)),

    SETTING("drain.timeout", KEY_DURATION, drain.timeout_ms, "4h", RANGE(0, 7 * DAY_MS)),
    SETTING("drain.spread", KEY_DURATION, drain.spread_ms, "30s", RANGE(0, DAY_MS)),
    SETTING("drain.stop_spread", KEY_DURATION, drain.stop_spread_ms, "5s", RANGE(0, DAY_MS)),
    SETTING("drain.generations", KEY_INTEGER, drain.generations, "5", RANGE(1, 16)),

    SETTING("control.socket", KEY_TEXT, control.socket, CONFIG_CONTROL_SOCKET, .min = 1,
            AT_RESTART),
    SETTING("control.group", KEY_TEXT, control.group, "", AT_RESTART),
    SETTING("control.read_group", KEY_TEXT, control.read_group, "", AT_RESTART),

    SETTING("login.conflict", KEY_CHOICE, login.conflict, "newest_wins",
            .choices = "newest_wins|refuse_second"),
    SETTING("login.key_overlap", KEY_DURATION, login.key_overlap_ms, "24h", RANGE(0, YEAR_MS)),

    SETTING("limits.connections_per_worker", KEY_INTEGER, limits.connections_per_worker, "20000",
            RANGE(1, 10000000)),
    SETTING("limits.connections_per_address", KEY_INTEGER, limits.connections_per_address, "1000",
            RANGE(0, 10000000)),
    SETTING("limits.handshakes_per_s", KEY_INTEGER, limits.handshakes_per_s, "2000",
            RANGE(0, 10000000)),
    SETTING("limits.handshake_burst", KEY_INTEGER, limits.handshake_burst, "4000",
            RANGE(1, 10000000)),
    SETTING("limits.tls_handshakes_per_s", KEY_INTEGER, limits.tls_handshakes_per_s, "500",
            RANGE(0, 10000000)),
    SETTING("limits.tls_handshake_burst", KEY_INTEGER, limits.tls_handshake_burst, "1000",
            RANGE(1, 10000000)),
    SETTING("limits.handshake_timeout", KEY_DURATION, limits.handshake_timeout_ms, "10s",
            RANGE(1, DAY_MS)),
    SETTING("limits.handshake_clock", KEY_DURATION, limits.handshake_clock_ms, "5s",
            RANGE(1000, DAY_MS), AT_RESTART),
    SETTING("limits.idle_timeout", KEY_DURATION, limits.idle_timeout_ms, "60s",
            RANGE(1, 7 * DAY_MS)),
    SETTING("limits.messages_per_s", KEY_INTEGER, limits.messages_per_s, "100", RANGE(0, 10000000)),
    SETTING("limits.messages_burst", KEY_INTEGER, limits.messages_burst, "200", RANGE(1, 10000000)),
    SETTING("limits.bytes_per_s", KEY_INTEGER, limits.bytes_per_s, "262144", RANGE(0, 1024 * MIB)),
    // At least one frame of the largest size: else a client with one would wait for ever.
    SETTING("limits.bytes_burst", KEY_INTEGER, limits.bytes_burst, "524288",
            RANGE(16388, 1024 * MIB)),
    SETTING("limits.tunnels_per_session", KEY_INTEGER, limits.tunnels_per_session, "8",
            RANGE(1, 1024)),
    SETTING("limits.inflated_bytes", KEY_INTEGER, limits.inflated_bytes, "1048576",
            RANGE(1024, 64 * MIB)),
    SETTING("limits.message_to_client_bytes", KEY_INTEGER, limits.message_to_client_bytes, "16384",
            RANGE(1024, 64 * MIB)),

    SETTING("queue.tunnel_messages", KEY_INTEGER, queue.tunnel_messages, "256", RANGE(1, 1000000)),
    SETTING("queue.tunnel_bytes", KEY_INTEGER, queue.tunnel_bytes, "1048576",
            RANGE(1024, 1024 * MIB)),
    SETTING("queue.client_high_bytes", KEY_INTEGER, queue.client_high_bytes, "262144",
            RANGE(1024, 1024 * MIB)),
    SETTING("queue.client_low_bytes", KEY_INTEGER, queue.client_low_bytes, "65536",
            RANGE(1, 1024 * MIB)),
    SETTING("queue.client_grace", KEY_DURATION, queue.client_grace_ms, "10s", RANGE(1, DAY_MS)),

    {.path = "tunnel.types", .kind = KEY_TUNNEL_TYPES},
    SETTING("tunnel.engine", KEY_CHOICE, tunnel.engine, "http2", .choices = STREAM_ENGINE_CHOICES,
            IN_NEW_WORKERS),
    SETTING("tunnel.open_timeout", KEY_DURATION, tunnel.open_timeout_ms, "3s", RANGE(1, DAY_MS),
            IN_NEW_WORKERS),
    SETTING("tunnel.reopen_timeout", KEY_DURATION, tunnel.reopen_timeout_ms, "10s",
            RANGE(1, DAY_MS)),
    SETTING("tunnel.backoff", KEY_DURATION, tunnel.backoff_ms, "100ms", RANGE(1, DAY_MS)),
    SETTING("tunnel.backoff_max", KEY_DURATION, tunnel.backoff_max_ms, "2s", RANGE(1, DAY_MS)),
    SETTING("tunnel.suspect", KEY_DURATION, tunnel.suspect_ms, "5s", RANGE(0, DAY_MS)),
    SETTING("tunnel.unknown_node_grace", KEY_DURATION, tunnel.unknown_node_grace_ms, "1s",
            RANGE(0, DAY_MS)),
    SETTING("tunnel.streams_per_connection", KEY_INTEGER, tunnel.streams_per_connection, "100",
            RANGE(1, 1000000), IN_NEW_WORKERS),
    SETTING("tunnel.message_bytes", KEY_INTEGER, tunnel.message_bytes, "4194304",
            RANGE(1024, 64 * MIB), IN_NEW_WORKERS),
    TLS_FILES("tunnel.tls", tunnel.tls, IN_NEW_WORKERS),

    SETTING("push.slow_client", KEY_CHOICE, push.slow_client, "disconnect",
            .choices = "disconnect|drop_newest|drop_oldest|conflate"),
    SETTING("push.waiting_bytes", KEY_INTEGER, push.waiting_bytes, "262144",
            RANGE(1024, 1024 * MIB)),
    SETTING("push.allow", KEY_NETWORKS, push.allow,
            "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"),

    SETTING("seal.aes_ni", KEY_BOOL, seal.aes_ni, "true", IN_NEW_WORKERS),

    {.path = "secret", .kind = KEY_SECRET},
};

// One entry of `nodes`. color is filled in before with label.color.
static const struct key node_keys[] = {
    KEY("service", KEY_TEXT, FIELD(struct node, service), .min = 1, .required = true),
    KEY("addr", KEY_ADDRESS, FIELD(struct node, address), .min = 1, .required = true),
    KEY("color", KEY_TEXT, FIELD(struct node, color)),
    KEY("weight", KEY_INTEGER, FIELD(struct node, weight), .initial = "100", RANGE(0, 1000000)),
    KEY("tls", KEY_BOOL, FIELD(struct node, secure), .initial = "false"),
};

// One entry of `tunnel.types`.
static const struct key type_keys[] = {
    KEY("name", KEY_TEXT, FIELD(struct config_tunnel_type, name), .min = 1, .required = true),
    KEY("service", KEY_TEXT, FIELD(struct config_tunnel_type, service), .min = 1, .required = true),
    KEY("method", KEY_METHOD, FIELD(struct config_tunnel_type, method), .required = true),
    KEY("modules", KEY_MODULES, FIELD(struct config_tunnel_type, modules)),
    KEY("default", KEY_BOOL, FIELD(struct config_tunnel_type, default_modules), .initial = "false"),
    KEY("own_object_only", KEY_BOOL, FIELD(struct config_tunnel_type, own_object_only),
        .initial = "false"),
    KEY("fragments", KEY_BOOL, FIELD(struct config_tunnel_type, fragments), .initial = "true"),
    KEY("main", KEY_BOOL, FIELD(struct config_tunnel_type, main), .initial = "false"),
};

// One entry of `server.listeners`.
static const struct key listener_keys[] = {
    KEY("transport", KEY_CHOICE, FIELD(struct config_listener, transport), .choices = "tcp|ws|kcp",
        .required = true, AT_RESTART),
    LISTENER_KEYS(ENTRY_KEY, ""),
    STREAM_KEYS(ENTRY_KEY),
    WEBSOCKET_KEYS(ENTRY_KEY),
};

_Static_assert(sizeof keys / sizeof *keys <= LOADER_KEYS_MAX, "origins has a slot for each key");

// Of these, those that are for WebSocket alone.
static const struct key websocket_keys[] = {WEBSOCKET_KEYS(ENTRY_KEY)};
// And those that one for KCP has not.
static const struct key stream_keys[] = {STREAM_KEYS(ENTRY_KEY), WEBSOCKET_KEYS(ENTRY_KEY)};

const struct key_table config_keys = TABLE(keys);
const struct key_table config_node_keys = TABLE(node_keys);
const struct key_table config_type_keys = TABLE(type_keys);
const struct key_table config_listener_keys = TABLE(listener_keys);
const struct key_table config_websocket_keys = TABLE(websocket_keys);
const struct key_table config_stream_keys = TABLE(stream_keys);

const struct profile_value *config_kcp_profile(enum kcp_profile profile) {
  static const struct profile_value nothing[] = {{NULL, NULL}};
  static const struct profile_value low_latency[] = {
      {"kcp.data_shards", "8"},
      {"kcp.parity_shards", "2"},
      {"kcp.interval", "5ms"},
      {"kcp.send_window", "256"},
      {"kcp.receive_window", "256"},
      {"kcp.mtu_bytes", "1200"},
      {"kcp.socket_buffer_bytes", "8388608"},
      {"kcp.frame_bytes", "2048"},
      {"kcp.receive_buffer_bytes", "8388608"},
      {"kcp.keepalive_interval", "5s"},
      {"kcp.keepalive_timeout", "15s"},
      {NULL, NULL},
  };
  return profile == KCP_PROFILE_LOW_LATENCY ? low_latency : nothing;
}

const struct key *key_table_find(struct key_table table, const char *path) {
  for (size_t i = 0; i < table.count; i++) {
    if (strcmp(table.keys[i].path, path) == 0) {
      return table.keys + i;
    }
  }
  return NULL;
}
