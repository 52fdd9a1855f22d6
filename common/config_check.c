#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "common/config_loader.h"
#include "common/config_value.h"
#include "common/kcp/fec.h"
#include "common/kcp/kcp.h"
#include "common/user_group.h"

// A fault of a key of the main table, at the place its value came from.
#define fault_key(loader, path, ...)                                                            \
  loader_fault(loader, (loader)->origins[key_table_find(config_keys, path) - config_keys.keys], \
               path, __VA_ARGS__)

// --- Listeners ----------------------------------------------------------------

static size_t list_count(const char *list) {
  size_t count = list[0] != '\0';
  for (; (list = strchr(list, ',')) != NULL; list++) {
    count++;
  }
  return count;
}

void loader_check_listener(struct loader *loader, const struct config_listener *listener,
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
    const struct key *key = key_table_find(config_keys, path);
    struct origin given = key != NULL ? loader->origins[key - config_keys.keys] : origin;
    if (checks[i].wrong) {
      loader_fault(loader, given.setting != NULL || given.variable != NULL ? given : origin, path,
                   "%s", checks[i].fault);
    }
  }
}

static bool is_wildcard(const char *addr) {
  return strncmp(addr, "0.0.0.0:", 8) == 0 || strncmp(addr, "[::]:", 5) == 0;
}

// Whether both would be bound to one address: SO_REUSEPORT lets them, and the kernel then deals
// clients out between the two. Beside a wildcard an address of its own has its clients to itself,
// and so has UDP beside TCP.
static bool is_one_address(const struct config_listener *one, const struct config_listener *other) {
  const char *a = one->addr, *b = other->addr;
  const char *port_a = strrchr(a, ':'), *port_b = strrchr(b, ':');
  if (port_a == NULL || port_b == NULL || strcmp(port_a, port_b) != 0 ||
      strcmp(port_a, ":0") == 0 ||
      (one->transport == TRANSPORT_KCP) != (other->transport == TRANSPORT_KCP)) {
    return false;
  }
  return strcmp(a, b) == 0 || (is_wildcard(a) && is_wildcard(b));
}

struct origin loader_listener_origin(const struct loader *loader, size_t index) {
  if (index >= LISTENER_MORE) {
    return at(config_setting_get_elem(loader->listeners, (unsigned)(index - LISTENER_MORE)));
  }
  char path[LOADER_NAME_BYTES];
  snprintf(path, sizeof path, "server.%s.addr", config_transport_name((enum transport_name)index));
  return loader->origins[key_table_find(config_keys, path) - config_keys.keys];
}

static void listeners_check_addresses(struct loader *loader) {
  const struct config *config = loader->config;
  for (const struct config_listener *one = NULL; (one = config_listener_next(config, one));) {
    for (const struct config_listener *other = one;
         (other = config_listener_next(config, other));) {
      char name[LOADER_NAME_BYTES], path[2 * LOADER_NAME_BYTES], first[LOADER_NAME_BYTES];
      if (is_one_address(one, other)) {
        config_listener_path(config, other, name, sizeof name);
        snprintf(path, sizeof path, "%s.addr", name);
        loader_fault(loader,
                     loader_listener_origin(loader, (size_t)(other - config->server.listeners)),
                     path, "is where %s listens already (\"\" there switches that one off)",
                     config_listener_path(config, one, first, sizeof first));
      }
    }
  }
}

// --- The rest ------------------------------------------------------------------

static void check_group(struct loader *loader, const char *key, const char *name) {
  gid_t gid;
  if (name[0] != '\0' && !user_group_find(name, &gid)) {
    fault_key(loader, key, "there is no group %s on this machine", name);
  }
}

static void kcp_check(struct loader *loader) {
  const struct config *config = loader->config;
  const int64_t data = config->kcp.data_shards, parity = config->kcp.parity_shards;
  if ((data == 0) != (parity == 0)) {
    fault_key(loader, data == 0 ? "kcp.data_shards" : "kcp.parity_shards",
              "must not be 0 alone: without FEC both are");
  } else if (data + parity > REED_SOLOMON_SHARDS_MAX) {
    fault_key(loader, "kcp.parity_shards", "and kcp.data_shards must not be over %d together",
              REED_SOLOMON_SHARDS_MAX);
  }
  if (config->kcp.mtu_bytes > KCP_MTU_MAX) {
    fault_key(loader, "kcp.mtu_bytes",
              "must not be over %d: clients in Go take no datagram over %d bytes, of which FEC has "
              "%d",
              KCP_MTU_MAX, FEC_DATAGRAM_MAX_BYTES, FEC_HEADER_BYTES);
  }
}

static void orders_check(struct loader *loader) {
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
      {"kcp.stream_buffer_bytes", "kcp.receive_buffer_bytes", config->kcp.stream_buffer_bytes,
       config->kcp.receive_buffer_bytes, true},
      {"kcp.keepalive_interval", "kcp.keepalive_timeout", config->kcp.keepalive_interval_ms,
       config->kcp.keepalive_timeout_ms > 0 ? config->kcp.keepalive_timeout_ms : INT64_MAX, false},
      {"tunnel.open_timeout", "tunnel.reopen_timeout", config->tunnel.open_timeout_ms,
       config->tunnel.reopen_timeout_ms, true},
  };
  for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
    if (orders[i].low > orders[i].high ||
        (orders[i].low == orders[i].high && !orders[i].may_be_equal)) {
      // Blamed on the one that was given.
      size_t index = (size_t)(key_table_find(config_keys, orders[i].lesser) - config_keys.keys);
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
}

static void trace_check(struct loader *loader) {
  const struct config *config = loader->config;
  double ratio;
  if (config->trace.endpoint[0] != '\0' && !config_value_is_url(config->trace.endpoint)) {
    fault_key(loader, "trace.endpoint",
              "must be http(s)://host[:port][/path], such as \"http://127.0.0.1:4318\"");
  }
  if (!trace_ratio_parse(config->trace.ratio, &ratio)) {
    fault_key(loader, "trace.ratio", "must be a number from \"0\" to \"1\", such as \"0.01\"");
  }
}

static void listeners_check(struct loader *loader) {
  const struct config *config = loader->config;
  struct origin tcp =
      loader->origins[key_table_find(config_keys, "server.tcp.tls.enabled") - config_keys.keys];
  struct origin ws =
      loader->origins[key_table_find(config_keys, "server.ws.tls.enabled") - config_keys.keys];
  loader_check_listener(loader, &config->server.listeners[LISTENER_TCP], tcp, "server.tcp");
  loader_check_listener(loader, &config->server.listeners[LISTENER_WS], ws, "server.ws");
  listeners_check_addresses(loader);
  if (config_listener_next(config, NULL) == NULL) {
    fault_key(loader, "server.tcp.addr", "is empty, and there is no other listener for clients");
  }
}

static void redis_check(struct loader *loader) {
  const struct config *config = loader->config;
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
}

static void certificates_check(struct loader *loader) {
  const struct config *config = loader->config;
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
}

void loader_check_relations(struct loader *loader) {
  const struct config *config = loader->config;
  orders_check(loader);
  trace_check(loader);
  listeners_check(loader);
  kcp_check(loader);
  redis_check(loader);
  certificates_check(loader);
  if ((int64_t)config->registry.node_count > config->registry.capacity) {
    fault_key(loader, "node_table.capacity", "is less than the %zu nodes given",
              config->registry.node_count);
  }
  if (config->log.output == LOG_OUTPUT_FILE && config->log.file[0] != '/') {
    fault_key(loader, "log.file", "must be a whole path, beginning with /, for output = \"file\"");
  }
  if (strlen(config->control.socket) >= sizeof((struct sockaddr_un *)0)->sun_path) {
    fault_key(loader, "control.socket", "must be shorter than %zu bytes",
              sizeof((struct sockaddr_un *)0)->sun_path);
  }
  if (!loader->saved) {  // a worker has nothing to do with them
    check_group(loader, "control.group", config->control.group);
    check_group(loader, "control.read_group", config->control.read_group);
  }
}
