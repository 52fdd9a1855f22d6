#include "master/registry.h"

#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "common/clock.h"
#include "common/config_value.h"

#define LOG_MODULE LOG_MODULE_REGISTRY

enum {
  INSTANCE_MAX_BYTES = 64 << 10,
  UUID_BYTES = 37,
  KEY_BYTES = ETCD_PREFIX_BYTES + UUID_BYTES + 1,  // of the own one
  WEIGHT_MAX = 1000000,
};

_Static_assert(CONFIG_TEXT_BYTES + ROUTE_SERVICE_MAX_BYTES + 1 <= ETCD_PREFIX_BYTES,
               "a namespace, a slash, a service, and the NUL");

// A key in etcd, and what it says.
struct instance {
  UT_hash_handle hh;
  size_t prefix;
  struct node node;
  int64_t revision;       // of etcd, at which it said this
  int64_t held_until_ms;  // monotonic; 0: it is listed
  bool seen;              // in the list that is being taken over
  size_t key_len;
  uint8_t key[];
};

struct registry {
  const struct config *config;
  struct node_table *table;
  struct counters *counters;
  struct etcd *etcd;  // NULL with the static registry
  struct instance *instances;
  char prefixes[ETCD_PREFIXES][ETCD_PREFIX_BYTES];
  const char *services[ETCD_PREFIXES];
  size_t prefix_count;
  bool changed;
  bool announced;       // this gateway is, or is to be
  char id[UUID_BYTES];  // of this gateway, there; "": a new one is to be made
};

// --- One instance --------------------------------------------------------------------

// Whether what follows host:port in a URL has isSecure=true in its query, as kratos says it.
static bool query_says_secure(const char *rest) {
  static const char name[] = "isSecure=";
  static const char *const yes[] = {"1", "t", "T", "true", "True", "TRUE"};  // to Go
  size_t len;
  for (rest += strcspn(rest, "?#"); *rest == '?' || *rest == '&'; rest += len) {
    len = strcspn(++rest, "&#");
    if (strncmp(rest, name, sizeof name - 1) != 0) {
      continue;
    }
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
      if (strlen(yes[i]) == len - (sizeof name - 1) &&
          strncmp(rest + sizeof name - 1, yes[i], strlen(yes[i])) == 0) {
        return true;
      }
    }
    return false;  // the first one counts
  }
  return false;
}

// host:port of the first endpoint that speaks gRPC.
static bool find_endpoint(const json_t *endpoints, struct node *node) {
  size_t i;
  json_t *one;
  json_array_foreach(endpoints, i, one) {
    const char *text = json_string_value(one);
    const char *rest = text ? strstr(text, "://") : NULL;
    bool plain = rest && strncmp(text, "grpc://", 7) == 0;
    bool secure = rest && strncmp(text, "grpcs://", 8) == 0;
    if (!plain && !secure) {
      continue;
    }
    rest += 3;
    size_t len = strcspn(rest, "/?#");
    if (len >= sizeof node->address) {
      continue;
    }
    memcpy(node->address, rest, len);
    node->address[len] = '\0';
    node->secure = secure || query_says_secure(rest + len);
    if (config_value_is_address(node->address, 1)) {
      return true;
    }
  }
  return false;
}

int registry_parse_instance(const char *service, const uint8_t *json, size_t len, struct node *node,
                            const char **why) {
  json_t *root = len <= INSTANCE_MAX_BYTES ? json_loadb((const char *)json, len, 0, NULL) : NULL;
  const char *name = json_string_value(json_object_get(root, "name"));
  const json_t *metadata = json_object_get(root, "metadata");
  const char *color = json_string_value(json_object_get(metadata, "color"));
  const char *weight = json_string_value(json_object_get(metadata, "weight"));
  int64_t number;
  int error = ERROR_MALFORMED;

  memset(node, 0, sizeof *node);
  node->weight = NODE_WEIGHT_DEFAULT;
  if (!json_is_object(root)) {
    *why = len > INSTANCE_MAX_BYTES ? "it is too large" : "it is no JSON object";
  } else if (!name) {
    *why = "it has no name";
  } else if (strcmp(name, service) != 0) {
    error = ERROR_NOT_FOUND;
  } else if (strlen(service) > NODE_SERVICE_MAX_BYTES) {
    *why = "its name is too long";
  } else if (color && strlen(color) > NODE_COLOR_MAX_BYTES) {
    *why = "its color is too long";
  } else if (!find_endpoint(json_object_get(root, "endpoints"), node)) {
    *why = "it has no endpoint grpc://host:port";
  } else if (weight &&
             (!config_value_parse_integer(weight, &number) || number < 0 || number > WEIGHT_MAX)) {
    *why = "its weight is no number from 0 to 1000000";
  } else {
    strcpy(node->service, service);
    strcpy(node->color, color ? color : "");
    node->weight = weight ? (uint32_t)number : NODE_WEIGHT_DEFAULT;
    error = 0;
  }
  json_decref(root);
  return error;
}

// --- The node table ------------------------------------------------------------------

static int compare_instances(const struct instance *left, const struct instance *right) {
  int order = node_compare(&left->node, &right->node);
  return order != 0 ? order
                    : (right->revision > left->revision) - (right->revision < left->revision);
}

// Two instances at one address count once, and the latest word holds: a server that was
// started anew there, with TLS now, is not kept waiting by the old one's lease.
static void publish(struct registry *registry) {
  // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): those dropped have left the table
  size_t room = HASH_COUNT(registry->instances);
  struct node *nodes = malloc((room + 1) * sizeof *nodes);
  struct instance *instance;
  struct instance *next;
  size_t kept = 0;
  if (!nodes) {
    return;  // tried again with the next change, or the next second
  }
  HASH_SRT(hh, registry->instances, compare_instances);
  HASH_ITER(hh, registry->instances, instance, next) {
    if (kept == 0 || node_compare(&nodes[kept - 1], &instance->node) != 0) {
      nodes[kept++] = instance->node;
    }
  }
  if (node_table_publish(registry->table, nodes, kept) != 0) {
    log_limited(LOG_LEVEL_ERROR, "nodes_left_out",
                "known=%zu capacity=%" PRId64 " hint=\"raise node_table.capacity\"", kept,
                registry->config->registry.capacity);
  }
  free(nodes);
  registry->changed = false;
}

// --- What etcd says --------------------------------------------------------------------

static void drop(struct registry *registry, struct instance *instance, const char *why) {
  log_limited(LOG_LEVEL_INFO, "node_gone", "service=%s address=%s why=\"%s\"",
              instance->node.service, instance->node.address, why);
  // NOLINTNEXTLINE(clang-analyzer-*): uthash, whose table has this one in it
  HASH_DELETE(hh, registry->instances, instance);
  free(instance);
  registry->changed = true;
}

static struct instance *find(struct registry *registry, const struct etcd_pair *pair) {
  struct instance *instance;
  HASH_FIND(hh, registry->instances, pair->key, pair->key_len, instance);
  return instance;
}

// One that is only held gives way to the same node, registered anew.
static void drop_held_twin(struct registry *registry, const struct instance *listed) {
  struct instance *instance;
  struct instance *next;
  HASH_ITER(hh, registry->instances, instance, next) {
    if (instance != listed && instance->held_until_ms != 0 &&
        node_compare(&instance->node, &listed->node) == 0) {
      drop(registry, instance, "registered anew");
    }
  }
}

// Returns the instance, NULL where the value is of no use.
static struct instance *take(struct registry *registry, size_t prefix,
                             const struct etcd_pair *pair) {
  struct instance *instance = find(registry, pair);
  struct node node;
  const char *why = "";
  int error = registry_parse_instance(registry->services[prefix], pair->value, pair->value_len,
                                      &node, &why);
  if (error == ERROR_NOT_FOUND) {
    // Of another prefix, which this one is the beginning of; unless it has changed its name.
    if (instance && instance->prefix == prefix) {
      drop(registry, instance, "it is another service now");
    }
    return NULL;
  }
  if (error != 0) {
    static struct log_limit limit = {.kind = "node_malformed"};
    uint64_t suppressed;
    char key[128];
    counters_add(registry->counters, COUNTER_NODES_MALFORMED, 1);
    if (log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
      log_warn("node_malformed", "key=%s why=\"%s\" suppressed=%" PRIu64,
               log_quote(key, sizeof key, (const char *)pair->key,
                         pair->key_len < 100 ? pair->key_len : 100),
               why, suppressed);
    }
    if (instance) {
      drop(registry, instance, "its value was replaced by a malformed one");
    }
    return NULL;
  }
  if (!instance) {
    instance = calloc(1, sizeof *instance + pair->key_len);
    if (!instance) {
      return NULL;
    }
    memcpy(instance->key, pair->key, pair->key_len);
    instance->key_len = pair->key_len;
    instance->node.since_ms = clock_wall_ms();
    HASH_ADD_KEYPTR(hh, registry->instances, instance->key, pair->key_len, instance);
    log_limited(LOG_LEVEL_INFO, "node_new",
                "service=%s address=%s color=%s weight=%" PRIu32 " tls=%s", node.service,
                node.address, node.color, node.weight, node.secure ? "true" : "false");
  }
  node.since_ms = instance->node.since_ms;
  instance->prefix = prefix;
  instance->node = node;
  instance->revision = pair->revision;
  instance->held_until_ms = 0;
  registry->changed = true;
  drop_held_twin(registry, instance);
  return instance;
}

static void on_list(size_t prefix, const struct etcd_pair *pairs, size_t count, bool lost_data,
                    void *owner) {
  struct registry *registry = owner;
  struct instance *instance;
  struct instance *next;
  size_t usable = 0;
  int64_t hold_ms = registry->config->etcd.empty_hold_ms;
  HASH_ITER(hh, registry->instances, instance, next) { instance->seen = false; }
  for (size_t i = 0; i < count; i++) {
    instance = take(registry, prefix, &pairs[i]);
    if (instance) {
      instance->seen = true;
      usable++;
    }
  }
  size_t held = 0;
  HASH_ITER(hh, registry->instances, instance, next) {
    if (instance->prefix != prefix || instance->seen || instance->held_until_ms != 0) {
      continue;
    }
    if ((usable == 0 || lost_data) && hold_ms > 0) {
      instance->held_until_ms = clock_monotonic_ms() + hold_ms;
      held++;
    } else {
      drop(registry, instance, "not listed any more");
    }
  }
  if (held > 0) {
    counters_add(registry->counters, COUNTER_NODES_HELD, held);
    log_limited(LOG_LEVEL_WARN, "nodes_held",
                "service=%s nodes=%zu for_ms=%" PRId64
                " hint=\"etcd has lost them; those known before are kept for a while\"",
                registry->services[prefix], held, hold_ms);
  }
}

static void on_change(size_t prefix, const struct etcd_pair *pair, void *owner) {
  struct registry *registry = owner;
  struct instance *instance = find(registry, pair);
  if (pair->value) {
    take(registry, prefix, pair);
  } else if (instance && instance->prefix == prefix) {
    drop(registry, instance, "deregistered, or its lease ran out");
  }
}

static void on_settled(void *owner) {
  struct registry *registry = owner;
  node_table_set_current(registry->table, true);
  if (registry->changed) {
    publish(registry);
  }
}

static void on_lost(void *owner) {
  struct registry *registry = owner;
  node_table_set_current(registry->table, false);
  counters_add(registry->counters, COUNTER_ETCD_LOST, 1);
}

// --- This gateway --------------------------------------------------------------------

// A random UUID, version 4.
static void make_uuid(char text[UUID_BYTES]) {
  uint8_t b[16];
  randombytes_buf(b, sizeof b);
  b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
  b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
  snprintf(text, UUID_BYTES, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
           b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
           b[14], b[15]);
}

// A gateway that listens everywhere is reached where its gRPC address is.
static void reachable(const char *address, const char *advertise, char *out, size_t size) {
  bool everywhere = strncmp(address, "0.0.0.0:", 8) == 0 || strncmp(address, "[::]:", 5) == 0;
  int host_len = everywhere ? (int)(strrchr(advertise, ':') - advertise)
                            : (int)(strrchr(address, ':') - address);
  snprintf(out, size, "%.*s%s", host_len, everywhere ? advertise : address, strrchr(address, ':'));
}

static void own_key(const struct registry *registry, char key[KEY_BYTES]) {
  const struct config *config = registry->config;
  snprintf(key, KEY_BYTES, "%s/%s/%s", config->etcd.namespace, config->label.service, registry->id);
}

void registry_announce(struct registry *registry, const struct registry_endpoint *endpoints,
                       size_t count) {
  if (!registry->etcd || registry->announced) {
    return;
  }
  const struct config *config = registry->config;
  char key[KEY_BYTES];
  if (registry->id[0] == '\0') {
    make_uuid(registry->id);
  }
  own_key(registry, key);
  json_t *urls = json_pack("[o]", json_sprintf("grpc://%s", config->server.grpc.advertise));
  for (size_t i = 0; i < count; i++) {
    char address[2 * CONFIG_TEXT_BYTES];
    reachable(endpoints[i].address, config->server.grpc.advertise, address, sizeof address);
    json_array_append_new(
        urls, json_sprintf("%s://%s%s", endpoints[i].scheme, address, endpoints[i].path));
  }
  json_t *root =
      json_pack("{s:s, s:s, s:s, s:{s:s, s:s, s:s, s:s, s:s, s:s}, s:o}", "id", registry->id,
                "name", config->label.service, "version", config->label.version, "metadata", "svc",
                config->label.service, "profile", config->label.profile, "ver",
                config->label.version, "color", config->label.color, "zone", config->label.zone,
                "node", config->label.node, "endpoints", urls);
  char *value = root ? json_dumps(root, JSON_COMPACT) : NULL;
  json_decref(root);
  if (!value) {
    log_error("register_failed", "why=\"a label is no UTF-8, or memory is out\"");
    return;
  }
  registry->announced = true;
  etcd_announce(registry->etcd, key, value);
  free(value);
}

void registry_withdraw(struct registry *registry, void (*on_gone)(void *owner), void *owner) {
  registry->announced = false;
  registry->id[0] = '\0';
  if (registry->etcd) {
    etcd_withdraw(registry->etcd, on_gone, owner);
  } else {
    on_gone(owner);
  }
}

json_t *registry_save(const struct registry *registry) {
  const int64_t lease = registry->etcd ? etcd_lease(registry->etcd) : 0;
  char key[KEY_BYTES];
  if (!registry->announced || lease == 0) {
    return json_null();
  }
  own_key(registry, key);
  return json_pack("{s:s, s:s, s:I}", "id", registry->id, "key", key, "lease", (json_int_t)lease);
}

void registry_take_over(struct registry *registry, const json_t *saved) {
  const char *id = json_string_value(json_object_get(saved, "id"));
  const char *before = json_string_value(json_object_get(saved, "key"));
  char key[KEY_BYTES];
  if (!registry->etcd || !id || !before) {
    return;
  }
  snprintf(registry->id, sizeof registry->id, "%s", id);
  own_key(registry, key);
  if (strcmp(key, before) == 0) {
    etcd_adopt_lease(registry->etcd, json_integer_value(json_object_get(saved, "lease")));
  } else {  // by the configuration as it is now it is another: the one before goes with its lease
    registry->id[0] = '\0';
  }
}

// --- Starting --------------------------------------------------------------------------

// Since when the table has it; now, when it has not.
static int64_t known_since_ms(const struct node *known, size_t count, const struct node *node) {
  for (size_t i = 0; i < count; i++) {
    if (node_compare(&known[i], node) == 0) {
      return known[i].since_ms;
    }
  }
  return clock_wall_ms();
}

static bool publish_static(struct registry *registry, char *why, size_t why_size) {
  struct node nodes[CONFIG_NODES];
  struct node *known = NULL;
  size_t known_count = 0;
  uint64_t version;
  const struct config *config = registry->config;
  if (node_table_read(registry->table, &known, &known_count, &version) != 0) {
    known_count = 0;
  }
  memcpy(nodes, config->registry.nodes, sizeof nodes);
  for (size_t i = 0; i < config->registry.node_count; i++) {
    nodes[i].since_ms = known_since_ms(known, known_count, &nodes[i]);
  }
  free(known);
  if (node_table_publish(registry->table, nodes, config->registry.node_count) != 0) {
    snprintf(why, why_size, "node_table.capacity is too small for the nodes configured");
    return false;
  }
  node_table_set_current(registry->table, true);
  return true;
}

void registry_publish_nodes(struct registry *registry) {
  char why[128];
  if (!publish_static(registry, why, sizeof why)) {
    log_error("nodes_not_taken", "why=\"%s\"", why);
  }
}

// A prefix for each service that the tunnel table names.
static void set_prefixes(struct registry *registry) {
  const struct config *config = registry->config;
  for (size_t i = 0; i < config->tunnel.type_count; i++) {
    const char *service = config->tunnel.types[i].service;
    bool known = false;
    for (size_t j = 0; j < registry->prefix_count; j++) {
      known = known || strcmp(registry->services[j], service) == 0;
    }
    if (!known) {
      size_t number = registry->prefix_count++;
      registry->services[number] = service;
      snprintf(registry->prefixes[number], sizeof registry->prefixes[number], "%s/%s",
               config->etcd.namespace, service);
    }
  }
}

struct registry *registry_new(struct event_base *base, const struct config *config,
                              const struct secrets *secrets, struct node_table *table,
                              struct counters *counters, char *why, size_t why_size) {
  static const struct etcd_events events = {on_list, on_change, on_settled, on_lost};
  struct registry *registry = calloc(1, sizeof *registry);
  if (!registry) {
    snprintf(why, why_size, "out of memory");
    return NULL;
  }
  registry->config = config;
  registry->table = table;
  registry->counters = counters;
  if (config->registry.source == REGISTRY_STATIC) {
    if (!publish_static(registry, why, why_size)) {
      registry_free(registry);
      return NULL;
    }
    return registry;
  }
  set_prefixes(registry);
  struct etcd_options options = {.config = config,
                                 .secrets = secrets,
                                 .counters = counters,
                                 .prefix_count = registry->prefix_count};
  for (size_t i = 0; i < registry->prefix_count; i++) {
    options.prefixes[i] = registry->prefixes[i];
  }
  registry->etcd = etcd_new(base, &options, &events, registry, why, why_size);
  if (!registry->etcd) {
    registry_free(registry);
    return NULL;
  }
  return registry;
}

void registry_free(struct registry *registry) {
  struct instance *instance;
  struct instance *next;
  if (!registry) {
    return;
  }
  etcd_free(registry->etcd);
  HASH_ITER(hh, registry->instances, instance, next) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the table
    HASH_DELETE(hh, registry->instances, instance);
    free(instance);
  }
  free(registry);
}

void registry_tick(struct registry *registry) {
  struct instance *instance;
  struct instance *next;
  int64_t now_ms = clock_monotonic_ms();
  HASH_ITER(hh, registry->instances, instance, next) {
    if (instance->held_until_ms != 0 && instance->held_until_ms <= now_ms) {
      drop(registry, instance, "held, and not registered anew in time");
    }
  }
  if (registry->changed) {
    publish(registry);
  }
}

bool registry_is_held(const struct registry *registry, const struct node *node) {
  const struct instance *instance;
  const struct instance *next;
  HASH_ITER(hh, registry->instances, instance, next) {
    if (node_compare(&instance->node, node) == 0) {
      return instance->held_until_ms != 0;
    }
  }
  return false;
}

bool registry_health(const struct registry *registry, struct etcd_health *health) {
  if (registry->etcd) {
    etcd_health(registry->etcd, health);
  }
  return registry->etcd != NULL;
}
