#include "common/config.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <libconfig.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/config_loader.h"
#include "common/config_value.h"

enum {
  FAULT_BYTES = 1024,
  SETTINGS_MAX_BYTES = 1 << 20,  // what config_load_fd takes
  DAY_MS = 24 * 60 * 60 * 1000,
  MIB = 1 << 20,
};

// --- The tables ---------------------------------------------------------------

#define FIELD(type, member) .offset = offsetof(type, member), .size = sizeof((type *)0)->member
#define RANGE(least, most)  .min = least, .max = most
#define KEY(name, is, ...) \
  { .path = name, .kind = is, __VA_ARGS__ }
#define SETTING(name, is, member, text, ...) \
  KEY(name, is, FIELD(struct config, member), .initial = text, __VA_ARGS__)

// A password, under the name that the ecosystem has for it.
#define ELSEWHERE(name, place) \
  { .path = name, .kind = KEY_ELSEWHERE, .choices = place }
#define TLS_FILES(name, member)                                                                   \
  SETTING(name ".ca", KEY_PATH, member.ca, ""), SETTING(name ".cert", KEY_PATH, member.cert, ""), \
      SETTING(name ".key", KEY_PATH, member.key, ""),                                             \
      SETTING(name ".server_name", KEY_TEXT, member.server_name, "")
#define TLS_SETTINGS(name, member) \
  SETTING(name ".enabled", KEY_BOOL, member.enabled, "false"), TLS_FILES(name, member)

// What every listener has, and what one for WebSocket has besides. As(name, kind, member,
// default, ...) makes the row of one; addr is its default.
#define LISTENER_KEYS(As, address)                                                                \
  As("addr", KEY_ADDRESS, addr, address, RANGE(0, 1)),                                            \
      As("backlog", KEY_INTEGER, backlog, "4096", RANGE(1, 65535)),                               \
      As("defer_accept", KEY_DURATION, defer_accept_ms, "0s", RANGE(0, DAY_MS)),                  \
      As("keepalive", KEY_DURATION, keepalive_ms, "60s", RANGE(0, DAY_MS)),                       \
      As("nodelay", KEY_BOOL, nodelay, "true"),                                                   \
      As("user_timeout", KEY_DURATION, user_timeout_ms, "0s", RANGE(0, DAY_MS)),                  \
      As("connections_per_worker", KEY_INTEGER, connections_per_worker, "0", RANGE(0, 10000000)), \
      As("connections_per_address", KEY_INTEGER, connections_per_address, "0",                    \
         RANGE(0, 10000000)),                                                                     \
      As("allow", KEY_NETWORKS, allow, ""), As("deny", KEY_NETWORKS, deny, ""),                   \
      As("proxy", KEY_NETWORKS, proxy, ""), As("tls.enabled", KEY_BOOL, tls.enabled, "false"),    \
      As("tls.cert", KEY_PATHS, tls.cert, ""), As("tls.key", KEY_PATHS, tls.key, ""),             \
      As("tls.client_ca", KEY_PATH, tls.client_ca, ""),                                           \
      As("tls.client_required", KEY_BOOL, tls.client_required, "false"),                          \
      As("tls.min_version", KEY_CHOICE, tls.min_version, "1.2", .choices = "1.2|1.3")
#define WEBSOCKET_KEYS(As)                                                             \
  As("path", KEY_TEXT, path, "/ws", .min = 1), As("origins", KEY_TEXTS, origins, "*"), \
      As("subprotocols", KEY_TEXTS, subprotocols, ""),                                 \
      As("ping_interval", KEY_DURATION, ping_interval_ms, "30s", RANGE(0, DAY_MS))
#define TCP_SETTING(name, is, member, text, ...) \
  SETTING("server.tcp." name, is, server.listeners[LISTENER_TCP].member, text, __VA_ARGS__)
#define WS_SETTING(name, is, member, text, ...) \
  SETTING("server.ws." name, is, server.listeners[LISTENER_WS].member, text, __VA_ARGS__)
#define ENTRY_KEY(name, is, member, text, ...) \
  KEY(name, is, FIELD(struct config_listener, member), .initial = text, __VA_ARGS__)

static const struct key keys[] = {
    SETTING("label.service", KEY_TEXT, label.service, "janus.gate.interface", .min = 1),
    SETTING("label.profile", KEY_TEXT, label.profile, "DEV"),
    SETTING("label.color", KEY_TEXT, label.color, "local"),
    SETTING("label.version", KEY_TEXT, label.version, JANUS_VERSION),
    SETTING("label.zone", KEY_TEXT, label.zone, ""),
    SETTING("label.node", KEY_TEXT, label.node, ""),
    SETTING("label.language", KEY_TEXT, label.language, "en"),
    SETTING("label.encrypted", KEY_BOOL, label.encrypted, "true"),

    SETTING("log.type", KEY_CHOICE, log.type, "text", .choices = "text|json"),
    SETTING("log.level", KEY_CHOICE, log.level, "info", .choices = "debug|info|warn|error"),

    SETTING("compress.weak", KEY_INTEGER, compress.weak_bytes, "10240", RANGE(1, 1024 * MIB)),
    SETTING("compress.strong", KEY_INTEGER, compress.strong_bytes, "1024000", RANGE(1, 1024 * MIB)),

    LISTENER_KEYS(TCP_SETTING, "0.0.0.0:17001"),
    LISTENER_KEYS(WS_SETTING, "0.0.0.0:17002"),
    WEBSOCKET_KEYS(WS_SETTING),
    {.path = "server.listeners", .kind = KEY_LISTENERS},
    SETTING("server.grpc.addr", KEY_ADDRESS, server.grpc.addr, "127.0.0.1:19100"),
    SETTING("server.grpc.timeout", KEY_DURATION, server.grpc.timeout_ms, "10s", RANGE(1, DAY_MS)),
    SETTING("server.http.addr", KEY_ADDRESS, server.http.addr, "127.0.0.1:18100"),
    SETTING("server.http.timeout", KEY_DURATION, server.http.timeout_ms, "10s", RANGE(1, DAY_MS)),
    SETTING("server.http.web", KEY_PATH, server.http.web, ""),
    SETTING("server.grpc.advertise", KEY_ADDRESS, server.grpc.advertise, "", RANGE(1, 1)),

    SETTING("data.gateway_route_table_alive_duration", KEY_DURATION,
            data.gateway_route_table_alive_duration_ms, "600s", RANGE(1000, 7 * DAY_MS)),
    SETTING("data.app_route_table_alive_duration", KEY_DURATION,
            data.app_route_table_alive_duration_ms, "600s", RANGE(1000, 7 * DAY_MS)),

    SETTING("data.redis.addr", KEY_ADDRESSES, data.redis.addr, "127.0.0.1:6379", .min = 1),
    SETTING("data.redis.username", KEY_TEXT, data.redis.username, ""),
    ELSEWHERE("data.redis.password", "secret.redis_password"),
    SETTING("data.redis.db", KEY_INTEGER, data.redis.db, "0", RANGE(0, 65535)),
    SETTING("data.redis.cluster", KEY_BOOL, data.redis.cluster, "false"),
    SETTING("data.redis.sentinel_master", KEY_TEXT, data.redis.sentinel_master, ""),
    SETTING("data.redis.dial_timeout", KEY_DURATION, data.redis.dial_timeout_ms, "2s",
            RANGE(1, DAY_MS)),
    SETTING("data.redis.read_timeout", KEY_DURATION, data.redis.read_timeout_ms, "0.5s",
            RANGE(1, DAY_MS)),
    SETTING("data.redis.write_timeout", KEY_DURATION, data.redis.write_timeout_ms, "0.5s",
            RANGE(1, DAY_MS)),
    SETTING("data.redis.backoff", KEY_DURATION, data.redis.backoff_ms, "100ms", RANGE(1, DAY_MS)),
    SETTING("data.redis.backoff_max", KEY_DURATION, data.redis.backoff_max_ms, "5s",
            RANGE(1, DAY_MS)),
    SETTING("data.redis.queued_writes", KEY_INTEGER, data.redis.queued_writes, "100000",
            RANGE(1, 10000000)),
    TLS_SETTINGS("data.redis.tls", data.redis.tls),

    SETTING("etcd.endpoints", KEY_ADDRESSES, etcd.endpoints, "127.0.0.1:2379", RANGE(1, 1)),
    SETTING("etcd.username", KEY_TEXT, etcd.username, ""),
    ELSEWHERE("etcd.password", "secret.etcd_password"),
    SETTING("etcd.namespace", KEY_TEXT, etcd.namespace, "/microservices", .min = 1),
    SETTING("etcd.timeout", KEY_DURATION, etcd.timeout_ms, "3s", RANGE(1, DAY_MS)),
    SETTING("etcd.lease_ttl", KEY_DURATION, etcd.lease_ttl_ms, "15s", RANGE(2000, DAY_MS)),
    SETTING("etcd.empty_hold", KEY_DURATION, etcd.empty_hold_ms, "30s", RANGE(0, DAY_MS)),
    SETTING("etcd.backoff", KEY_DURATION, etcd.backoff_ms, "200ms", RANGE(1, DAY_MS)),
    SETTING("etcd.backoff_max", KEY_DURATION, etcd.backoff_max_ms, "5s", RANGE(1, DAY_MS)),
    TLS_SETTINGS("etcd.tls", etcd.tls),

    SETTING("registry", KEY_CHOICE, registry.source, "static", .choices = "static|etcd"),
    {.path = "nodes", .kind = KEY_NODES},
    SETTING("node_table.capacity", KEY_INTEGER, registry.capacity, "4096", RANGE(1, 1000000)),
    SETTING("routes", KEY_CHOICE, routes.store, "memory", .choices = "memory|redis"),
    SETTING("route_table.capacity.gateway", KEY_INTEGER, routes.capacity[ROUTE_GATEWAY], "100000",
            RANGE(1, 100000000)),
    SETTING("route_table.capacity.player", KEY_INTEGER, routes.capacity[ROUTE_PLAYER], "100000",
            RANGE(1, 100000000)),
    SETTING("route_table.capacity.object", KEY_INTEGER, routes.capacity[ROUTE_OBJECT], "100000",
            RANGE(1, 100000000)),

    SETTING("worker.count", KEY_INTEGER, worker.count, "0", RANGE(0, CONFIG_WORKERS)),
    SETTING("worker.restart_backoff", KEY_DURATION, worker.restart_backoff_ms, "100ms",
            RANGE(1, DAY_MS)),
    SETTING("worker.restart_backoff_max", KEY_DURATION, worker.restart_backoff_max_ms, "5s",
            RANGE(1, DAY_MS)),
    SETTING("worker.stop_timeout", KEY_DURATION, worker.stop_timeout_ms, "3s", RANGE(1, DAY_MS)),
    SETTING("worker.hang_timeout", KEY_DURATION, worker.hang_timeout_ms, "10s", RANGE(0, DAY_MS)),
    SETTING("worker.orphan_timeout", KEY_DURATION, worker.orphan_timeout_ms, "60s",
            RANGE(1, DAY_MS)),

    SETTING("control.socket", KEY_TEXT, control.socket, CONFIG_CONTROL_SOCKET, .min = 1),

    SETTING("login.conflict", KEY_CHOICE, login.conflict, "newest_wins",
            .choices = "newest_wins|refuse_second"),

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
            RANGE(1000, DAY_MS)),
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
    SETTING("tunnel.open_timeout", KEY_DURATION, tunnel.open_timeout_ms, "3s", RANGE(1, DAY_MS)),
    SETTING("tunnel.reopen_timeout", KEY_DURATION, tunnel.reopen_timeout_ms, "10s",
            RANGE(1, DAY_MS)),
    SETTING("tunnel.backoff", KEY_DURATION, tunnel.backoff_ms, "100ms", RANGE(1, DAY_MS)),
    SETTING("tunnel.backoff_max", KEY_DURATION, tunnel.backoff_max_ms, "2s", RANGE(1, DAY_MS)),
    SETTING("tunnel.suspect", KEY_DURATION, tunnel.suspect_ms, "5s", RANGE(0, DAY_MS)),
    SETTING("tunnel.unknown_node_grace", KEY_DURATION, tunnel.unknown_node_grace_ms, "1s",
            RANGE(0, DAY_MS)),
    SETTING("tunnel.streams_per_connection", KEY_INTEGER, tunnel.streams_per_connection, "100",
            RANGE(1, 1000000)),
    SETTING("tunnel.message_bytes", KEY_INTEGER, tunnel.message_bytes, "4194304",
            RANGE(1024, 64 * MIB)),
    TLS_FILES("tunnel.tls", tunnel.tls),

    SETTING("push.slow_client", KEY_CHOICE, push.slow_client, "disconnect",
            .choices = "disconnect|drop_newest|drop_oldest|conflate"),
    SETTING("push.waiting_bytes", KEY_INTEGER, push.waiting_bytes, "262144",
            RANGE(1024, 1024 * MIB)),
    SETTING("push.allow", KEY_NETWORKS, push.allow,
            "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"),

    SETTING("seal.aes_ni", KEY_BOOL, seal.aes_ni, "true"),

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
    KEY("transport", KEY_CHOICE, FIELD(struct config_listener, transport), .choices = "tcp|ws",
        .required = true),
    LISTENER_KEYS(ENTRY_KEY, ""),
    WEBSOCKET_KEYS(ENTRY_KEY),
};

_Static_assert(sizeof keys / sizeof *keys <= LOADER_KEYS_MAX, "origins has a slot for each key");

const struct config_listener *config_listener_next(const struct config *config,
                                                   const struct config_listener *listener) {
  const struct config_listener *end = config->server.listeners + config->server.listener_count;
  for (listener = listener ? listener + 1 : config->server.listeners; listener < end; listener++) {
    if (listener->addr[0] != '\0') {
      return listener;
    }
  }
  return NULL;
}

const char *config_listener_path(const struct config *config,
                                 const struct config_listener *listener, char *name, size_t size) {
  size_t index = (size_t)(listener - config->server.listeners);
  if (index < LISTENER_MORE) {
    snprintf(name, size, "server.%s", index == LISTENER_WS ? "ws" : "tcp");
  } else {
    snprintf(name, size, "server.listeners[%zu]", index - LISTENER_MORE);
  }
  return name;
}

const char *config_transport_name(enum transport_name transport) {
  return transport == TRANSPORT_WS ? "ws" : "tcp";
}

const char *config_listener_name(const struct config_listener *listener) {
  static const char *const names[][2] = {
      [TRANSPORT_TCP] = {"tcp", "tls"}, [TRANSPORT_WS] = {"ws", "wss"}};
  return names[listener->transport][listener->tls.enabled];
}

const struct key *key_table_find(struct key_table table, const char *path) {
  for (size_t i = 0; i < table.count; i++) {
    if (strcmp(table.keys[i].path, path) == 0) {
      return table.keys + i;
    }
  }
  return NULL;
}

// --- Faults -------------------------------------------------------------------

// libconfig names an included file as the directive does.
void loader_file(const struct loader *loader, const char *file, char *buffer, size_t size) {
  if (file == NULL || strcmp(file, loader->path) == 0) {
    snprintf(buffer, size, "%s", loader->path);
  } else {
    snprintf(buffer, size, "%s/%s", loader->folder, file);
  }
}

void loader_fault(struct loader *loader, struct origin origin, const char *key, const char *format,
                  ...) {
  char message[FAULT_BYTES], file[2 * CONFIG_PATH_BYTES], text[sizeof message + sizeof file + 256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  if (origin.variable != NULL) {
    snprintf(text, sizeof text, "environment: %s (%s): %s", origin.variable, key, message);
  } else if (origin.setting != NULL) {
    loader_file(loader, config_setting_source_file(origin.setting), file, sizeof file);
    snprintf(text, sizeof text, "%s:%u: %s: %s", file,
             (unsigned)config_setting_source_line(origin.setting), key, message);
  } else {
    snprintf(text, sizeof text, "%s: %s: %s", loader->path, key, message);
  }
  loader->faults++;
  loader->report(text, loader->context);
}

// A fault of a key of the main table, at the place its value came from.
#define fault_key(loader, path, ...)                                                      \
  loader_fault(loader, (loader)->origins[key_table_find(TABLE(keys), path) - keys], path, \
               __VA_ARGS__)

// The name in the table, or the section of one, that comes nearest to name.
void loader_fault_unknown(struct loader *loader, struct key_table table,
                          const config_setting_t *setting, const char *name, const char *path) {
  char candidate[LOADER_NAME_BYTES], nearest[LOADER_NAME_BYTES] = "";
  size_t best = 3;  // changes: from here on it is another word
  for (size_t i = 0; i < table.count; i++) {
    for (const char *end = table.keys[i].path; *end != '\0';) {
      end += strcspn(end + 1, ".") + 1;
      snprintf(candidate, sizeof candidate, "%.*s", (int)(end - table.keys[i].path),
               table.keys[i].path);
      size_t distance = config_value_distance(path, candidate);
      if (distance < best) {
        best = distance;
        memcpy(nearest, candidate, sizeof nearest);
      }
    }
  }
  if (nearest[0] != '\0') {
    loader_fault(loader, at(setting), name, "unknown key; did you mean \"%s\"?", nearest);
  } else {
    loader_fault(loader, at(setting), name, "unknown key");
  }
}

// --- From libconfig's tree ----------------------------------------------------

const char *loader_type_text(const config_setting_t *setting) {
  switch (config_setting_type(setting)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64: return "a number";
    case CONFIG_TYPE_FLOAT: return "a number with a fraction";
    case CONFIG_TYPE_STRING: return "a string";
    case CONFIG_TYPE_BOOL: return "true or false";
    case CONFIG_TYPE_ARRAY: return "an array [ ... ]";
    case CONFIG_TYPE_LIST: return "a list ( ... )";
    case CONFIG_TYPE_GROUP: return "a group { ... }";
    default: return "nothing";
  }
}

static bool is_integer(const config_setting_t *setting) {
  return config_setting_type(setting) == CONFIG_TYPE_INT ||
         config_setting_type(setting) == CONFIG_TYPE_INT64;
}

// The number as it stands in the file: libconfig silently cuts one without an L at
// its end to 32 bits. Leaves text as it is where it can't be found, on another line.
static void number_reread(const struct loader *loader, const config_setting_t *setting, char *text,
                          size_t size) {
  char path[2 * CONFIG_PATH_BYTES], line[FAULT_BYTES] = "";
  const char *file_name = config_setting_source_file(setting), *name = config_setting_name(setting);
  if (file_name == NULL) {
    return;
  }
  loader_file(loader, file_name, path, sizeof path);
  FILE *file = fopen(path, "re");
  if (file == NULL) {
    return;
  }
  for (unsigned at_line = 1; fgets(line, sizeof line, file) != NULL;) {
    if (at_line == config_setting_source_line(setting)) {
      break;
    }
    at_line += strchr(line, '\n') != NULL;
  }
  fclose(file);
  for (const char *found = line; (found = strstr(found, name)) != NULL;) {
    found += strlen(name);
    const char *value = found + strspn(found, " \t");
    value += *value == '=' || *value == ':';
    value += strspn(value, " \t");
    size_t len = strspn(value, "-0123456789");
    if (len > 0 && len < size && strchr("xX", value[len]) == NULL) {
      snprintf(text, size, "%.*s", (int)len, value);
      return;
    }
  }
}

static void modules_read(struct loader *loader, struct config_tunnel_type *type, const char *name,
                         const config_setting_t *setting) {
  if (!config_setting_is_array(setting) && !config_setting_is_list(setting)) {
    loader_fault(loader, at(setting), name, "must be module ids, such as [6, 7], not %s",
                 loader_type_text(setting));
    return;
  }
  int count = config_setting_length(setting);
  if (count > CONFIG_MODULES) {
    loader_fault(loader, at(setting), name, "has more than %d modules", CONFIG_MODULES);
    return;
  }
  for (int i = 0; i < count; i++) {
    const config_setting_t *element = config_setting_get_elem(setting, (unsigned)i);
    int64_t module = is_integer(element) ? config_setting_get_int64(element) : -1;
    if (module < 0 || module > INT32_MAX) {
      loader_fault(loader, at(element), name, "a module id must be a whole number from 0 to %d",
                   INT32_MAX);
      continue;
    }
    type->modules[type->module_count++] = (int32_t)module;
  }
}

// A string, or the strings of an array with commas between them; too many are cut to
// what is too long for the field anyway. NULL for anything else.
static const char *texts_join(const config_setting_t *setting, char *joined, size_t size) {
  if (!config_setting_is_array(setting) && !config_setting_is_list(setting)) {
    return config_setting_get_string(setting);
  }
  int count = config_setting_length(setting);
  size_t len = 0;
  joined[0] = '\0';
  for (int i = 0; i < count; i++) {
    const char *one = config_setting_get_string_elem(setting, i);
    if (one == NULL) {
      return NULL;
    }
    int added = snprintf(joined + len, size - len, "%s%s", i > 0 ? "," : "", one);
    len = len + (size_t)added < size ? len + (size_t)added : size - 1;
  }
  return joined;
}

// An array, each of whose entries is reported at its own line.
static void networks_read(struct loader *loader, struct networks *networks, const char *name,
                          const config_setting_t *setting) {
  memset(networks, 0, sizeof *networks);
  for (int i = 0; i < config_setting_length(setting); i++) {
    const config_setting_t *element = config_setting_get_elem(setting, (unsigned)i);
    const char *text = config_setting_get_string(element);
    if (text == NULL) {
      loader_fault(loader, at(element), name, "must be strings in quotes, not %s",
                   loader_type_text(element));
    } else if (!loader_add_network(loader, networks, at(element), name, text, strlen(text))) {
      return;
    }
  }
}

static void key_read(struct loader *loader, const struct key *key, void *base, const char *name,
                     const config_setting_t *setting) {
  char number[32], joined[LOADER_VALUE_BYTES];
  const char *text = NULL, *wanted;
  switch (key->kind) {
    case KEY_BOOL:
      wanted = "true or false";
      if (config_setting_type(setting) == CONFIG_TYPE_BOOL) {
        text = config_setting_get_bool(setting) ? "true" : "false";
      }
      break;
    case KEY_INTEGER:
      wanted = "a whole number";
      if (is_integer(setting)) {
        snprintf(number, sizeof number, "%lld", config_setting_get_int64(setting));
        number_reread(loader, setting, number, sizeof number);
        text = number;
      }
      break;
    case KEY_MODULES: modules_read(loader, base, name, setting); return;
    case KEY_NETWORKS:
      wanted = "an array of addresses and networks, such as [\"192.0.2.7\", \"10.0.0.0/8\"]";
      if (config_setting_is_array(setting) || config_setting_is_list(setting)) {
        networks_read(loader, (void *)((char *)base + key->offset), name, setting);
        return;
      }
      text = config_setting_get_string(setting);
      break;
    case KEY_ADDRESSES:
      wanted = "host:port in quotes, or an array of such, [\"...\", \"...\"]";
      text = texts_join(setting, joined, sizeof joined);
      break;
    case KEY_PATHS:
    case KEY_TEXTS:
      wanted = "a string in quotes, or an array of such, [\"...\", \"...\"]";
      text = texts_join(setting, joined, sizeof joined);
      break;
    default:
      wanted = key->kind == KEY_DURATION  ? "a duration in quotes, such as \"600s\""
               : key->kind == KEY_ADDRESS ? "host:port in quotes"
                                          : "a string in quotes";
      text = config_setting_get_string(setting);
      break;
  }
  if (text == NULL) {
    loader_fault(loader, at(setting), name, "must be %s, not %s", wanted,
                 loader_type_text(setting));
    return;
  }
  loader_set(loader, key, base, at(setting), name, text);
}

static bool is_section(struct key_table table, const char *path) {
  size_t len = strlen(path);
  for (size_t i = 0; i < table.count; i++) {
    if (strncmp(table.keys[i].path, path, len) == 0 && table.keys[i].path[len] == '.') {
      return true;
    }
  }
  return false;
}

// Everything in group, the root or a section of the main table, whose path is
// prefix ("" or "server." and the like).
static void section_read(struct loader *loader, const config_setting_t *group, const char *prefix) {
  for (int i = 0; i < config_setting_length(group); i++) {
    const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
    char path[LOADER_NAME_BYTES];
    snprintf(path, sizeof path, "%s%s", prefix, config_setting_name(setting));
    const struct key *key = key_table_find(TABLE(keys), path);
    if (key != NULL) {
      loader->origins[key - keys] = at(setting);
      switch (key->kind) {
        case KEY_NODES: loader->nodes = setting; break;
        case KEY_TUNNEL_TYPES: loader->types = setting; break;
        case KEY_LISTENERS: loader->listeners = setting; break;
        case KEY_SECRET: loader->secret = setting; break;
        case KEY_ELSEWHERE:
          loader_fault(loader, at(setting), path, "is a secret: put it into secret.conf, as %s",
                       key->choices);
          break;
        default: key_read(loader, key, loader->config, path, setting); break;
      }
    } else if (!is_section(TABLE(keys), path)) {
      loader_fault_unknown(loader, TABLE(keys), setting, path, path);
    } else if (!config_setting_is_group(setting)) {
      loader_fault(loader, at(setting), path, "must be a group { ... }, not %s",
                   loader_type_text(setting));
    } else {
      char deeper[LOADER_NAME_BYTES + 1];
      snprintf(deeper, sizeof deeper, "%s.", path);
      section_read(loader, setting, deeper);
    }
  }
}

// Reports what in group, an entry of a list or a section in one, is in no row of the table.
// name is the group's, as a user reads it; prefix, as the table has it.
static void entry_check_unknown(struct loader *loader, struct key_table table,
                                const config_setting_t *group, const char *name,
                                const char *prefix) {
  for (int i = 0; i < config_setting_length(group); i++) {
    const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
    char path[LOADER_NAME_BYTES], whole[2 * LOADER_NAME_BYTES];
    snprintf(path, sizeof path, "%s%s", prefix, config_setting_name(setting));
    snprintf(whole, sizeof whole, "%s.%s", name, path);
    if (key_table_find(table, path) != NULL) {
      continue;
    }
    if (!is_section(table, path)) {
      loader_fault_unknown(loader, table, setting, whole, path);
    } else if (!config_setting_is_group(setting)) {
      loader_fault(loader, at(setting), whole, "must be a group { ... }, not %s",
                   loader_type_text(setting));
    } else {
      char deeper[LOADER_NAME_BYTES + 1];
      snprintf(deeper, sizeof deeper, "%s.", path);
      entry_check_unknown(loader, table, setting, name, deeper);
    }
  }
}

// One entry of a list, { ... }, into the struct at base.
static void entry_read(struct loader *loader, struct key_table table, void *base,
                       const config_setting_t *entry, const char *name) {
  if (!config_setting_is_group(entry)) {
    loader_fault(loader, at(entry), name, "must be a group { ... }, not %s",
                 loader_type_text(entry));
    return;
  }
  for (size_t i = 0; i < table.count; i++) {
    const struct key *key = &table.keys[i];
    char path[2 * LOADER_NAME_BYTES];
    snprintf(path, sizeof path, "%s.%s", name, key->path);
    const config_setting_t *setting =
        config_setting_lookup((config_setting_t *)(uintptr_t)entry, key->path);
    if (key->initial != NULL) {
      loader_set(loader, key, base, at(entry), path, key->initial);
    }
    if (setting != NULL) {
      key_read(loader, key, base, path, setting);
    } else if (key->required) {
      loader_fault(loader, at(entry), path, "is missing");
    }
  }
  entry_check_unknown(loader, table, entry, name, "");
}

static int list_length(struct loader *loader, const config_setting_t *list, const char *name,
                       int most) {
  if (!config_setting_is_list(list)) {
    loader_fault(loader, at(list), name, "must be a list ( { ... }, ... ), not %s",
                 loader_type_text(list));
    return 0;
  }
  if (config_setting_length(list) > most) {
    loader_fault(loader, at(list), name, "has %d entries, %d is the most",
                 config_setting_length(list), most);
    return 0;
  }
  return config_setting_length(list);
}

static void nodes_read(struct loader *loader, const config_setting_t *list) {
  struct config *config = loader->config;
  int count = list_length(loader, list, "nodes", CONFIG_NODES);
  for (int i = 0; i < count; i++) {
    const config_setting_t *entry = config_setting_get_elem(list, (unsigned)i);
    struct node *node = &config->registry.nodes[i];
    char name[32];
    snprintf(name, sizeof name, "nodes[%d]", i);
    memcpy(node->color, config->label.color, sizeof node->color);
    entry_read(loader, TABLE(node_keys), node, entry, name);
    for (int j = 0; j < i; j++) {
      const struct node *other = &config->registry.nodes[j];
      if (node->address[0] != '\0' && strcmp(node->address, other->address) == 0 &&
          strcmp(node->service, other->service) == 0) {
        loader_fault(loader, at(entry), name,
                     "is the same service at the same address as nodes[%d]", j);
      }
    }
  }
  config->registry.node_count = (size_t)count;
}

// --- Tunnel types -------------------------------------------------------------

static const struct config_tunnel_type default_types[] = {
    {.name = "player",
     .service = "roma.player.service",
     .method = "/player.intra.v1.TunnelService/Tunnel",
     .default_modules = true,
     .own_object_only = true,
     .tier = ROUTE_PLAYER,
     .main = true},
    {.name = "room",
     .service = "roma.room.service",
     .method = "/room.intra.v1.TunnelService/Tunnel",
     .modules = {6},
     .module_count = 1,
     .fragments = true,
     .tier = ROUTE_OBJECT},
};

static void type_check_modules(struct loader *loader, const config_setting_t *entry,
                               const char *name, int index) {
  const struct config_tunnel_type *types = loader->config->tunnel.types, *type = &types[index];
  for (size_t m = 0; m < type->module_count; m++) {
    for (int other = 0; other <= index; other++) {
      size_t end = other == index ? m : types[other].module_count;
      for (size_t n = 0; n < end; n++) {
        if (types[other].modules[n] == type->modules[m]) {
          loader_fault(loader, at(entry), name,
                       "module %" PRId32 " is named twice, in tunnel.types[%d] too",
                       type->modules[m], other);
        }
      }
    }
  }
}

static void types_read(struct loader *loader, const config_setting_t *list) {
  struct config_tunnel_type *types = loader->config->tunnel.types;
  size_t faults_before = loader->faults;
  int count = list_length(loader, list, "tunnel.types", CONFIG_TUNNEL_TYPES);
  int defaults = 0, mains = 0;
  for (int i = 0; i < count; i++) {
    const config_setting_t *entry = config_setting_get_elem(list, (unsigned)i);
    struct config_tunnel_type *type = &types[i];
    char name[32], path[64];
    snprintf(name, sizeof name, "tunnel.types[%d]", i);
    entry_read(loader, TABLE(type_keys), type, entry, name);
    type->tier = type->main ? ROUTE_PLAYER : ROUTE_OBJECT;
    for (int j = 0; j < i; j++) {
      if (type->name[0] != '\0' && strcmp(type->name, types[j].name) == 0) {
        snprintf(path, sizeof path, "%s.name", name);
        loader_fault(loader, at(entry), path, "tunnel.types[%d] is called \"%s\" already", j,
                     type->name);
      }
    }
    snprintf(path, sizeof path, "%s.modules", name);
    type_check_modules(loader, entry, path, i);
    if (config_setting_is_group(entry) && type->module_count == 0 && !type->default_modules &&
        !type->main && config_setting_get_member(entry, "modules") == NULL) {
      loader_fault(loader, at(entry), path, "is missing: without modules the tunnel is never used");
    }
    if (type->default_modules && defaults++ > 0) {
      snprintf(path, sizeof path, "%s.default", name);
      loader_fault(loader, at(entry), path, "only one type can take all other modules");
    }
    if (type->main && mains++ > 0) {
      snprintf(path, sizeof path, "%s.main", name);
      loader_fault(loader, at(entry), path, "only one type can be the main tunnel");
    }
  }
  if (mains == 0 && loader->faults == faults_before) {
    loader_fault(loader, at(list), "tunnel.types", "one type must have main = true");
  }
  loader->config->tunnel.type_count = (size_t)count;
}

static size_t list_count(const char *list) {
  size_t count = list[0] != '\0';
  for (; (list = strchr(list, ',')) != NULL; list++) {
    count++;
  }
  return count;
}

// What must fit together in one of them; name is the listener's, as a user reads it. A fault is
// at origin, unless the key at fault was given at a place of its own.
static void listener_check(struct loader *loader, const struct config_listener *listener,
                           struct origin origin, const char *name) {
  size_t certificates = list_count(listener->tls.cert);
  const struct {
    bool wrong;
    const char *key, *fault;
  } checks[] = {
      {listener->tls.enabled && certificates == 0, "tls.cert",
       "is missing: TLS needs a certificate and its key"},
      {certificates != list_count(listener->tls.key), "tls.cert",
       "and tls.key go together: one key for each certificate"},
      {listener->tls.client_required && listener->tls.client_ca[0] == '\0', "tls.client_required",
       "needs tls.client_ca, to judge the certificates by"},
      {listener->transport == TRANSPORT_WS && listener->path[0] != '/', "path",
       "must begin with a /"},
  };
  for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
    char path[LOADER_NAME_BYTES];
    snprintf(path, sizeof path, "%s.%s", name, checks[i].key);
    const struct key *key = key_table_find(TABLE(keys), path);
    struct origin given = key != NULL ? loader->origins[key - keys] : origin;
    if (checks[i].wrong) {
      loader_fault(loader, given.setting != NULL || given.variable != NULL ? given : origin, path,
                   "%s", checks[i].fault);
    }
  }
}

static void listeners_read(struct loader *loader, const config_setting_t *list) {
  static const struct key websocket_keys[] = {WEBSOCKET_KEYS(ENTRY_KEY)};
  struct config *config = loader->config;
  int count = list_length(loader, list, "server.listeners", CONFIG_LISTENERS - LISTENER_MORE);
  for (int i = 0; i < count; i++) {
    const config_setting_t *entry = config_setting_get_elem(list, (unsigned)i);
    struct config_listener *listener = &config->server.listeners[LISTENER_MORE + i];
    char name[32], path[64];
    snprintf(name, sizeof name, "server.listeners[%d]", i);
    entry_read(loader, TABLE(listener_keys), listener, entry, name);
    if (config_setting_is_group(entry) && config_setting_get_member(entry, "addr") == NULL) {
      snprintf(path, sizeof path, "%s.addr", name);
      loader_fault(loader, at(entry), path, "is missing");
    }
    for (size_t k = 0; k < sizeof websocket_keys / sizeof *websocket_keys; k++) {
      const config_setting_t *setting =
          config_setting_is_group(entry) ? config_setting_get_member(entry, websocket_keys[k].path)
                                         : NULL;
      if (setting != NULL && listener->transport == TRANSPORT_TCP && !loader->saved) {
        snprintf(path, sizeof path, "%s.%s", name, websocket_keys[k].path);
        loader_fault(loader, at(setting), path, "is for transport = \"ws\" only");
      }
    }
    listener_check(loader, listener, at(entry), name);
  }
  config->server.listener_count = LISTENER_MORE + (size_t)count;
}

// --- The environment, and what must fit together -------------------------------

static bool is_scalar(const struct key *key) { return key->kind < KEY_MODULES; }

// The variable that overrides path: server.tcp.addr is JANUS_SERVER_TCP_ADDR.
void loader_variable_name(char *variable, size_t size, const char *path) {
  snprintf(variable, size, "JANUS_%s", path);
  for (char *c = variable; *c != '\0'; c++) {
    *c = *c == '.' ? '_' : (char)toupper((unsigned char)*c);
  }
}

static void environment_apply(struct loader *loader) {
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    char *variable = loader->variables[i];
    loader_variable_name(variable, sizeof loader->variables[i], keys[i].path);
    const char *text = is_scalar(&keys[i]) ? getenv(variable) : NULL;
    if (text != NULL) {
      loader->origins[i] = (struct origin){NULL, variable};
      loader_set(loader, &keys[i], loader->config, loader->origins[i], keys[i].path, text);
    }
  }
  loader_check_environment(loader);
}

// Makes the paths in a field, with commas between them, good from any folder, and checks that
// the files can be read.
static void paths_resolve(struct loader *loader, const struct key *key, void *base,
                          struct origin origin, const char *name) {
  char *field = (char *)base + key->offset, resolved[LOADER_VALUE_BYTES];
  size_t len = 0;
  resolved[0] = '\0';
  for (const char *path = field; *path != '\0'; path += *path == ',') {
    char whole[LOADER_VALUE_BYTES];
    int path_len = (int)strcspn(path, key->kind == KEY_PATHS ? "," : "");
    snprintf(whole, sizeof whole, "%s%s%.*s", path[0] == '/' ? "" : loader->folder,
             path[0] == '/' ? "" : "/", path_len, path);
    if (access(whole, R_OK) != 0) {
      loader_fault(loader, origin, name, "%s can't be read: %s", whole, strerror(errno));
      return;
    }
    if (len + strlen(whole) + 2 > sizeof resolved) {
      len = sizeof resolved;
      break;
    }
    len +=
        (size_t)snprintf(resolved + len, sizeof resolved - len, "%s%s", len > 0 ? "," : "", whole);
    path += path_len;
  }
  if (len >= key->size) {
    loader_fault(loader, origin, name, "%s", "the path is too long, with its folder");
  } else {
    memcpy(field, resolved, len + 1);
  }
}

static bool is_paths(const struct key *key) {
  return key->kind == KEY_PATH || key->kind == KEY_PATHS;
}

static void all_paths_resolve(struct loader *loader) {
  struct config *config = loader->config;
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    if (is_paths(&keys[i])) {
      paths_resolve(loader, &keys[i], config, loader->origins[i], keys[i].path);
    }
  }
  for (size_t i = LISTENER_MORE; i < config->server.listener_count; i++) {
    const config_setting_t *entry =
        config_setting_get_elem(loader->listeners, (unsigned)(i - LISTENER_MORE));
    for (size_t k = 0; k < sizeof listener_keys / sizeof *listener_keys; k++) {
      char name[LOADER_NAME_BYTES];
      snprintf(name, sizeof name, "server.listeners[%zu].%s", i - LISTENER_MORE,
               listener_keys[k].path);
      if (is_paths(&listener_keys[k])) {
        paths_resolve(loader, &listener_keys[k], &config->server.listeners[i], at(entry), name);
      }
    }
  }
}

static void relations_check(struct loader *loader) {
  const struct config *config = loader->config;
  const struct {
    const char *lesser, *greater;
    int64_t low, high;
    bool may_be_equal;
  } orders[] = {
      {"compress.weak", "compress.strong", config->compress.weak_bytes,
       config->compress.strong_bytes, true},
      {"queue.client_low_bytes", "queue.client_high_bytes", config->queue.client_low_bytes,
       config->queue.client_high_bytes, false},
      {"limits.message_to_client_bytes", "queue.client_high_bytes",
       config->limits.message_to_client_bytes, config->queue.client_high_bytes, true},
      {"worker.restart_backoff", "worker.restart_backoff_max", config->worker.restart_backoff_ms,
       config->worker.restart_backoff_max_ms, true},
      {"tunnel.backoff", "tunnel.backoff_max", config->tunnel.backoff_ms,
       config->tunnel.backoff_max_ms, true},
      {"data.redis.backoff", "data.redis.backoff_max", config->data.redis.backoff_ms,
       config->data.redis.backoff_max_ms, true},
      {"etcd.backoff", "etcd.backoff_max", config->etcd.backoff_ms, config->etcd.backoff_max_ms,
       true},
      {"tunnel.open_timeout", "tunnel.reopen_timeout", config->tunnel.open_timeout_ms,
       config->tunnel.reopen_timeout_ms, true},
  };
  for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
    if (orders[i].low > orders[i].high ||
        (orders[i].low == orders[i].high && !orders[i].may_be_equal)) {
      // Blamed on the one that was given.
      size_t index = (size_t)(key_table_find(TABLE(keys), orders[i].lesser) - keys);
      const struct origin *origin = &loader->origins[index];
      if (origin->setting != NULL || origin->variable != NULL) {
        loader_fault(loader, *origin, orders[i].lesser, "must %s %s",
                     orders[i].may_be_equal ? "not be greater than" : "be less than",
                     orders[i].greater);
      } else {
        fault_key(loader, orders[i].greater, "must %s %s",
                  orders[i].may_be_equal ? "not be less than" : "be greater than",
                  orders[i].lesser);
      }
    }
  }
  struct origin tcp = loader->origins[key_table_find(TABLE(keys), "server.tcp.tls.enabled") - keys];
  struct origin ws = loader->origins[key_table_find(TABLE(keys), "server.ws.tls.enabled") - keys];
  listener_check(loader, &config->server.listeners[LISTENER_TCP], tcp, "server.tcp");
  listener_check(loader, &config->server.listeners[LISTENER_WS], ws, "server.ws");
  if (config_listener_next(config, NULL) == NULL) {
    fault_key(loader, "server.tcp.addr", "is empty, and there is no other listener for clients");
  }
  if ((int64_t)config->registry.node_count > config->registry.capacity) {
    fault_key(loader, "node_table.capacity", "is less than the %zu nodes given",
              config->registry.node_count);
  }
  if (config->data.redis.cluster && config->data.redis.sentinel_master[0] != '\0') {
    fault_key(loader, "data.redis.cluster", "can't go with data.redis.sentinel_master");
  }
  if (strchr(config->data.redis.addr, ',') != NULL && !config->data.redis.cluster &&
      config->data.redis.sentinel_master[0] == '\0') {
    fault_key(loader, "data.redis.addr",
              "must be one, unless data.redis.cluster or data.redis.sentinel_master is set");
  }
  if (config->data.redis.cluster && config->data.redis.db != 0) {
    fault_key(loader, "data.redis.db", "must be 0 with data.redis.cluster");
  }
  const struct {
    const struct config_tls *tls;
    const char *cert, *key;
  } pairs[] = {
      {&config->data.redis.tls, "data.redis.tls.cert", "data.redis.tls.key"},
      {&config->etcd.tls, "etcd.tls.cert", "etcd.tls.key"},
      {&config->tunnel.tls, "tunnel.tls.cert", "tunnel.tls.key"},
  };
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    if ((pairs[i].tls->cert[0] == '\0') != (pairs[i].tls->key[0] == '\0')) {
      // Blamed on the one that was given.
      bool cert = pairs[i].tls->cert[0] != '\0';
      fault_key(loader, cert ? pairs[i].cert : pairs[i].key, "and %s go together",
                cert ? pairs[i].key : pairs[i].cert);
    }
  }
  if (strlen(config->control.socket) >= sizeof((struct sockaddr_un *)0)->sun_path) {
    fault_key(loader, "control.socket", "must be shorter than %zu bytes",
              sizeof((struct sockaddr_un *)0)->sun_path);
  }
}

// --- Loading and saving -------------------------------------------------------

static void fault_parse(struct loader *loader, const config_t *tree) {
  char file[2 * CONFIG_PATH_BYTES], text[sizeof file + 512];
  if (config_error_type(tree) == CONFIG_ERR_FILE_IO) {
    snprintf(text, sizeof text, "%s: can't be read: %s", loader->path, strerror(errno));
  } else {
    const char *message = config_error_text(tree);
    loader_file(loader, config_error_file(tree), file, sizeof file);
    bool include = strstr(message, "include") != NULL;
    snprintf(text, sizeof text, "%s:%d: %s%s%s", file, config_error_line(tree), message,
             include ? "; it is looked for in " : "", include ? loader->folder : "");
  }
  loader->faults++;
  loader->report(text, loader->context);
}

static void loader_defaults(struct loader *loader) {
  struct config *config = loader->config;
  memset(config, 0, sizeof *config);
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    if (keys[i].initial != NULL) {
      loader_set(loader, &keys[i], config, (struct origin){0}, keys[i].path, keys[i].initial);
    }
  }
  memcpy(config->tunnel.types, default_types, sizeof default_types);
  config->tunnel.type_count = sizeof default_types / sizeof *default_types;
  config->server.listeners[LISTENER_WS].transport = TRANSPORT_WS;
  config->server.listener_count = LISTENER_MORE;
}

// The lists, once the scalars are known.
static void lists_read(struct loader *loader) {
  if (loader->nodes != NULL) {
    nodes_read(loader, loader->nodes);
  }
  if (loader->types != NULL) {
    memset(loader->config->tunnel.types, 0, sizeof loader->config->tunnel.types);
    types_read(loader, loader->types);
  }
  if (loader->listeners != NULL) {
    listeners_read(loader, loader->listeners);
  }
}

int config_load_file(const char *path, struct config *config, struct secrets *secrets,
                     config_report *report, void *context) {
  struct loader loader = {.config = config, .path = path, .report = report, .context = context};
  const char *slash = strrchr(path, '/');
  int folder_len = slash == NULL ? 1 : slash == path ? 1 : (int)(slash - path);
  snprintf(loader.folder, sizeof loader.folder, "%.*s", folder_len, slash == NULL ? "." : path);
  memset(secrets, 0, sizeof *secrets);
  loader_defaults(&loader);

  config_t tree;
  config_init(&tree);
  config_set_include_dir(&tree, loader.folder);
  struct stat status;
  errno = 0;
  if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {  // libconfig would exit
    loader_fault(&loader, (struct origin){0}, "the file", "is a folder");
  } else if (config_read_file(&tree, path) != CONFIG_TRUE) {
    fault_parse(&loader, &tree);
  } else {
    section_read(&loader, config_root_setting(&tree), "");
    environment_apply(&loader);
    lists_read(&loader);
    relations_check(&loader);
    all_paths_resolve(&loader);
    loader_read_secrets(&loader, secrets);
  }
  config_destroy(&tree);
  if (loader.faults > 0) {
    explicit_bzero(secrets, sizeof *secrets);
    return ERROR_INVALID;
  }
  return 0;
}

// All that can be read from fd, from its start where it has one: workers share
// the descriptor's position with the master that wrote it. malloc'd, with a NUL.
static char *descriptor_read(int fd) {
  char *text = malloc(SETTINGS_MAX_BYTES + 1);
  size_t len = 0;
  bool seekable = lseek(fd, 0, SEEK_CUR) >= 0;
  while (text != NULL && len <= SETTINGS_MAX_BYTES) {
    size_t room = SETTINGS_MAX_BYTES + 1 - len;
    ssize_t got = seekable ? pread(fd, text + len, room, (off_t)len) : read(fd, text + len, room);
    if (got == 0) {
      text[len] = '\0';
      return text;
    }
    if (got > 0) {
      len += (size_t)got;
    } else if (errno != EINTR) {
      break;
    }
  }
  free(text);
  return NULL;
}

int config_load_fd(int fd, struct config *config, config_report *report, void *context) {
  struct loader loader = {.config = config,
                          .path = "settings",
                          .folder = ".",
                          .saved = true,
                          .report = report,
                          .context = context};
  loader_defaults(&loader);
  char *text = descriptor_read(fd);
  if (text == NULL) {
    loader_fault(&loader, (struct origin){0}, "the settings", "can't be read, or are too large");
    return ERROR_INVALID;
  }
  config_t tree;
  config_init(&tree);
  if (config_read_string(&tree, text) != CONFIG_TRUE) {
    fault_parse(&loader, &tree);
  } else {
    section_read(&loader, config_root_setting(&tree), "");
    if (loader.secret != NULL) {
      loader_fault(&loader, at(loader.secret), "secret", "does not belong into the settings");
    }
    lists_read(&loader);
    relations_check(&loader);
  }
  config_destroy(&tree);
  free(text);
  return loader.faults > 0 ? ERROR_INVALID : 0;
}

// Adds the key's value to parent under name. False: out of memory.
static bool value_add(config_setting_t *parent, const char *name, const struct key *key,
                      const void *base) {
  static const int types[] = {[KEY_BOOL] = CONFIG_TYPE_BOOL, [KEY_INTEGER] = CONFIG_TYPE_INT64};
  int type = key->kind <= KEY_INTEGER ? types[key->kind] : CONFIG_TYPE_STRING;
  char text[LOADER_VALUE_BYTES];
  key_text(key, base, text, sizeof text);
  config_setting_t *setting = config_setting_add(parent, name, type);
  switch (type) {
    case CONFIG_TYPE_BOOL: return config_setting_set_bool(setting, text[0] == 't');
    case CONFIG_TYPE_INT64: return config_setting_set_int64(setting, strtoll(text, NULL, 10));
    default: return config_setting_set_string(setting, text);
  }
}

// Adds the key's value under its path, with the sections that it needs.
static bool value_add_path(config_setting_t *root, const struct key *key, const void *base) {
  config_setting_t *parent = root;
  const char *rest = key->path;
  for (const char *dot; parent != NULL && (dot = strchr(rest, '.')) != NULL; rest = dot + 1) {
    char name[LOADER_NAME_BYTES];
    snprintf(name, sizeof name, "%.*s", (int)(dot - rest), rest);
    config_setting_t *section = config_setting_get_member(parent, name);
    parent = section != NULL ? section : config_setting_add(parent, name, CONFIG_TYPE_GROUP);
  }
  return parent != NULL && value_add(parent, rest, key, base);
}

static bool entry_add(config_setting_t *list, struct key_table table, const void *base) {
  config_setting_t *entry = config_setting_add(list, NULL, CONFIG_TYPE_GROUP);
  bool ok = entry != NULL;
  for (size_t i = 0; ok && i < table.count; i++) {
    const struct key *key = &table.keys[i];
    if (key->kind != KEY_MODULES) {
      ok = value_add_path(entry, key, base);
      continue;
    }
    const struct config_tunnel_type *type = base;
    config_setting_t *modules = config_setting_add(entry, key->path, CONFIG_TYPE_ARRAY);
    for (size_t m = 0; modules != NULL && m < type->module_count; m++) {
      ok = ok && config_setting_set_int_elem(modules, -1, type->modules[m]) != NULL;
    }
    ok = ok && modules != NULL;
  }
  return ok;
}

static bool modules_differ(const struct config_tunnel_type *before,
                           const struct config_tunnel_type *after) {
  return before->module_count != after->module_count ||
         memcmp(before->modules, after->modules, sizeof before->modules) != 0;
}

static bool differs(const struct key *key, const void *before, const void *after) {
  if (key->kind == KEY_MODULES) {
    return modules_differ(before, after);
  }
  char texts[2][LOADER_VALUE_BYTES];
  key_text(key, before, texts[0], sizeof texts[0]);
  key_text(key, after, texts[1], sizeof texts[1]);
  return strcmp(texts[0], texts[1]) != 0;
}

// Whether two lists of entries of that size do.
static bool entries_differ(struct key_table table, const void *before, size_t before_count,
                           const void *after, size_t after_count, size_t size) {
  for (size_t i = 0; before_count == after_count && i < before_count; i++) {
    for (size_t k = 0; k < table.count; k++) {
      if (differs(&table.keys[k], (const char *)before + i * size,
                  (const char *)after + i * size)) {
        return true;
      }
    }
  }
  return before_count != after_count;
}

void config_each_change(const struct config *before, const struct config *after,
                        void (*on_change)(const char *name, void *context), void *context) {
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    if (is_scalar(&keys[i]) && differs(&keys[i], before, after)) {
      on_change(keys[i].path, context);
    }
  }
  if (entries_differ(TABLE(node_keys), before->registry.nodes, before->registry.node_count,
                     after->registry.nodes, after->registry.node_count, sizeof(struct node))) {
    on_change("nodes", context);
  }
  if (entries_differ(TABLE(type_keys), before->tunnel.types, before->tunnel.type_count,
                     after->tunnel.types, after->tunnel.type_count,
                     sizeof(struct config_tunnel_type))) {
    on_change("tunnel.types", context);
  }
  if (before->server.listener_count != after->server.listener_count) {
    on_change("server.listeners", context);
    return;
  }
  for (size_t i = LISTENER_MORE; i < before->server.listener_count; i++) {
    const struct config_listener *listener = &before->server.listeners[i];
    for (size_t k = 0; k < sizeof listener_keys / sizeof *listener_keys; k++) {
      char name[LOADER_NAME_BYTES], whole[2 * LOADER_NAME_BYTES];
      if (differs(&listener_keys[k], listener, &after->server.listeners[i])) {
        config_listener_path(before, listener, name, sizeof name);
        snprintf(whole, sizeof whole, "%s.%s", name, listener_keys[k].path);
        on_change(whole, context);
      }
    }
  }
}

int config_save(const struct config *config, FILE *out) {
  config_t tree;
  config_init(&tree);
  config_setting_t *root = config_root_setting(&tree);
  bool ok = true;
  for (size_t i = 0; ok && i < sizeof keys / sizeof *keys; i++) {
    if (is_scalar(&keys[i])) {
      ok = value_add_path(root, &keys[i], config);
    }
  }
  config_setting_t *nodes = config_setting_add(root, "nodes", CONFIG_TYPE_LIST);
  ok = ok && nodes != NULL;
  for (size_t i = 0; ok && i < config->registry.node_count; i++) {
    ok = entry_add(nodes, TABLE(node_keys), &config->registry.nodes[i]);
  }
  config_setting_t *types =
      config_setting_add(config_setting_get_member(root, "tunnel"), "types", CONFIG_TYPE_LIST);
  ok = ok && types != NULL;
  for (size_t i = 0; ok && i < config->tunnel.type_count; i++) {
    ok = entry_add(types, TABLE(type_keys), &config->tunnel.types[i]);
  }
  config_setting_t *listeners =
      config_setting_add(config_setting_get_member(root, "server"), "listeners", CONFIG_TYPE_LIST);
  ok = ok && listeners != NULL;
  for (size_t i = LISTENER_MORE; ok && i < config->server.listener_count; i++) {
    ok = entry_add(listeners, TABLE(listener_keys), &config->server.listeners[i]);
  }
  if (ok) {
    config_write(&tree, out);
  }
  config_destroy(&tree);
  if (!ok) {
    return ERROR_MEMORY;
  }
  return fflush(out) != 0 || ferror(out) ? ERROR_SYSTEM : 0;
}
