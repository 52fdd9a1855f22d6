#include "master/routes.h"

#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

static void put(struct route_table *table, const struct route_key *key, const char *address,
                int64_t ttl_ms, int64_t now_ms, int *error) {
  *error = route_table_put(table, key, address, now_ms + ttl_ms, now_ms);
  if (*error != 0) {
    static struct log_limit limit;
    uint64_t suppressed;
    if (log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
      log_warn("route_not_kept",
               "tier=%s oid=%" PRId64 " error=\"%s\" suppressed=%" PRIu64
               " hint=\"raise route_table.capacity\"",
               route_tier_name(key->tier), key->oid, error_text(*error), suppressed);
    }
  }
}

static bool key_of(const struct config *config, uint32_t tunnel_type, const char *color,
                   int64_t oid, struct route_key *key) {
  if (tunnel_type >= config->tunnel.type_count) {
    return false;
  }
  const struct config_tunnel_type *type = &config->tunnel.types[tunnel_type];
  *key =
      (struct route_key){.tier = type->tier, .service = type->service, .color = color, .oid = oid};
  return true;
}

void routes_settle(struct route_table *table, const struct config *config,
                   const struct channel_route_claim *claim, struct channel_route_answer *answer) {
  struct route_key key;
  struct route route;
  int64_t now_ms = clock_wall_ms();
  int error;

  *answer = (struct channel_route_answer){.id = claim->id};
  if (!key_of(config, claim->tunnel_type, claim->color, claim->oid, &key)) {
    return;
  }
  if (route_table_lookup(table, &key, now_ms, &route) == 0 &&
      strcmp(route.address, claim->dead) != 0) {
    memcpy(answer->address, route.address, sizeof answer->address);
    return;
  }
  put(table, &key, claim->candidate, config->data.app_route_table_alive_duration_ms, now_ms,
      &error);
  if (error == 0) {
    memcpy(answer->address, claim->candidate, sizeof answer->address);
  }
}

void routes_renew(struct route_table *table, const struct config *config,
                  const struct channel_route_renew *renew) {
  struct route_key key;
  struct route route;
  int64_t now_ms = clock_wall_ms();
  int error;

  if (!key_of(config, renew->tunnel_type, renew->color, renew->oid, &key) ||
      (route_table_lookup(table, &key, now_ms, &route) == 0 &&
       strcmp(route.address, renew->address) != 0)) {
    return;
  }
  put(table, &key, renew->address, config->data.app_route_table_alive_duration_ms, now_ms, &error);
}

static struct route_key gateway_key(const struct config *config, int64_t uid, const char *color) {
  return (struct route_key){
      .tier = ROUTE_GATEWAY, .service = config->label.service, .color = color, .oid = uid};
}

void routes_set_gateway(struct route_table *table, const struct config *config, int64_t uid,
                        const char *color) {
  struct route_key key = gateway_key(config, uid, color);
  int error;
  put(table, &key, config->server.grpc.advertise,
      config->data.gateway_route_table_alive_duration_ms, clock_wall_ms(), &error);
}

void routes_remove_gateway(struct route_table *table, const struct config *config, int64_t uid,
                           const char *color) {
  struct route_key key = gateway_key(config, uid, color);
  route_table_remove(table, &key);
}
