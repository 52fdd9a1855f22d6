#include "master/routes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/redis_routes.h"
#include "master/gateway_route.h"
#include "master/route_keeper.h"

#define LOG_MODULE LOG_MODULE_ROUTE

static const int64_t TTL_MAX_MS = (int64_t)30 * 24 * 3600 * 1000;

struct routes {
  struct routes_options options;
  struct held_routes *held;
  struct redis_link *link;
  // With Redis; else NULL.
  struct route_feed *feed;
  struct route_keeper *keeper;
};

// --- The table -------------------------------------------------------------------

static void tell_holders(struct routes *routes, const struct route_key *key, const char *address);

// Tells by moved whether tunnels that go elsewhere have been told to follow.
static int put_and_tell(struct routes *routes, const struct route_key *key, const char *address,
                        int64_t ttl_ms, bool *moved) {
  int64_t now_ms = clock_wall_ms();
  struct route before;
  int known = route_table_lookup(routes->options.table, key, now_ms, &before);
  *moved = key->tier != ROUTE_GATEWAY && (known == 0 || known == ERROR_EXPIRED) &&
           strcmp(before.address, address) != 0;
  // Whatever time to live somebody gave it in Redis.
  ttl_ms = ttl_ms < TTL_MAX_MS ? ttl_ms : TTL_MAX_MS;
  int error = route_table_put(routes->options.table, key, address, now_ms + ttl_ms, now_ms);
  if (error != 0) {
    static struct log_limit limit = {.kind = "route_not_kept"};
    uint64_t suppressed;
    counters_add(routes->options.counters, COUNTER_ROUTES_NOT_KEPT, 1);
    if (log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
      log_warn("route_not_kept",
               "tier=%s oid=%" PRId64 " error=\"%s\" suppressed=%" PRIu64
               " hint=\"raise route_table.capacity, if janusctl routes stats shows that it is used "
               "up\"",
               route_tier_name(key->tier), key->oid, error_text(error), suppressed);
    }
  }
  if (*moved) {
    tell_holders(routes, key, address);
  }
  return error;
}

static int put(struct routes *routes, const struct route_key *key, const char *address,
               int64_t ttl_ms) {
  bool moved;
  return put_and_tell(routes, key, address, ttl_ms, &moved);
}

static bool lookup(const struct routes *routes, const struct route_key *key, struct route *route) {
  return route_table_lookup(routes->options.table, key, clock_wall_ms(), route) == 0;
}

// The key of a route of that tunnel type; false for a type that there is not.
static bool key_of(const struct routes *routes, const struct tunnel_route *name,
                   struct route_key *key) {
  const struct config *config = routes->options.config;
  if (name->type >= config->tunnel.type_count) {
    return false;
  }
  *key = config_route_key(config, name);
  return true;
}

static bool key_of_held(const struct routes *routes, const struct held_route *held,
                        struct route_key *key) {
  const struct tunnel_route name = held_route_name(held);
  return key_of(routes, &name, key);
}

// --- Claims, in memory -------------------------------------------------------------

void routes_claim(struct routes *routes, const struct channel_route_claim *claim,
                  struct channel_route_answer *answer) {
  const struct config *config = routes->options.config;
  const struct tunnel_route name = {
      .type = claim->tunnel_type, .color = claim->color, .oid = claim->oid};
  struct route_key key;
  struct route route;

  *answer = (struct channel_route_answer){.id = claim->id};
  if (!key_of(routes, &name, &key)) {
    return;
  }
  if (lookup(routes, &key, &route) && strcmp(route.address, claim->dead) != 0) {
    counters_add(routes->options.counters, COUNTER_ROUTE_RACES_LOST,
                 strcmp(route.address, claim->candidate) != 0);
    memcpy(answer->address, route.address, sizeof answer->address);
  } else if (put(routes, &key, claim->candidate, config->data.app_route_table_alive_duration_ms) ==
             0) {
    memcpy(answer->address, claim->candidate, sizeof answer->address);
  }
}

// --- What tunnels hold ---------------------------------------------------------------

// A held route is looked at ten times in its life, and prolonged when two fifths of it are
// left: with a backend that renews its route at half time, it never comes to that.
static int64_t check_interval_ms(const struct routes *routes) {
  return routes->options.config->data.app_route_table_alive_duration_ms / 10;
}

static void tell_moved(struct routes *routes, struct held_route *route, const char *address) {
  struct channel_route_held moved = {.oid = route->key->oid,
                                     .tunnel_type = route->key->tunnel_type};
  strncpy(moved.color, route->color, sizeof moved.color - 1);
  strncpy(moved.address, address, sizeof moved.address - 1);
  for (size_t i = 0; routes->options.on_moved && i < route->holder_count; i++) {
    routes->options.on_moved(route->holders[i].worker, &moved, routes->options.owner);
  }
}

typedef void held_act(struct routes *routes, struct held_route *held, const char *address);

// Several types of tunnels may go by one route.
static void each_held(struct routes *routes, const struct route_key *key, held_act *act,
                      const char *address) {
  const struct config *config = routes->options.config;
  for (uint32_t i = 0; i < config->tunnel.type_count; i++) {
    const struct tunnel_route name = {.type = i, .color = key->color, .oid = key->oid};
    struct held_route *held = strcmp(config->tunnel.types[i].service, key->service) == 0
                                  ? held_routes_find(routes->held, &name)
                                  : NULL;
    if (held) {
      act(routes, held, address);
    }
  }
}

static void tell_holders(struct routes *routes, const struct route_key *key, const char *address) {
  each_held(routes, key, tell_moved, address);
}

// The store's word on a held route. What the feed tells meanwhile is newer: no order is
// kept between the two.
static void on_settled(struct held_route *route, const char *address, int64_t ttl_ms, void *owner) {
  struct routes *routes = owner;
  struct route_key key;
  struct route known;
  bool moved = false;
  if (key_of_held(routes, route, &key) &&
      (!route_feed_is_live(routes->feed) || !lookup(routes, &key, &known))) {
    put_and_tell(routes, &key, address, ttl_ms, &moved);
  }
  if (!moved && strcmp(address, route->address) != 0) {
    tell_moved(routes, route, address);
  }
}

static bool reaches_store(const struct routes *routes, const struct route_key *key) {
  char text[REDIS_ROUTES_KEY_BYTES];
  size_t len = redis_routes_key(key, text);
  return routes->keeper && redis_link_reaches(routes->link, text, len);
}

// Puts it into the store, or prolongs it there. While Redis is away the table alone has
// it; it goes to Redis with all the others when that is back.
static void settle_held(struct routes *routes, struct held_route *route,
                        const struct route_key *key) {
  if (!reaches_store(routes, key)) {
    put(routes, key, route->address,
        routes->options.config->data.app_route_table_alive_duration_ms);
  }
  if (routes->keeper) {
    route_keeper_settle(routes->keeper, route);
  }
}

// Whether the table does not show that all is well with a held route.
static bool needs_settling(const struct held_route *held, void *owner) {
  struct routes *routes = owner;
  int64_t ttl_ms = routes->options.config->data.app_route_table_alive_duration_ms;
  struct route_key key;
  struct route route;
  return key_of_held(routes, held, &key) &&
         (!lookup(routes, &key, &route) || strcmp(route.address, held->address) != 0 ||
          route.expires_at_ms - clock_wall_ms() < ttl_ms * 2 / 5);
}

// While nobody can settle a route, whoever chose last decides for all. A tunnel that merely
// followed has not chosen, and what it followed may have been overtaken: if that counted,
// workers whose choices crossed would go on exchanging their places for ever.
static bool is_overtaken(const struct routes *routes, const struct channel_route_held *held,
                         const struct route_key *key, struct route *route) {
  return held->follows && !reaches_store(routes, key) &&
         route_table_lookup(routes->options.table, key, clock_wall_ms(), route) == ERROR_EXPIRED &&
         strcmp(route->address, held->address) != 0;
}

void routes_held(struct routes *routes, int worker, const struct channel_route_held *held) {
  const struct tunnel_route name = {
      .type = held->tunnel_type, .color = held->color, .oid = held->oid};
  struct route_key key;
  struct route route;
  if (!key_of(routes, &name, &key)) {
    return;
  }
  bool overtaken = is_overtaken(routes, held, &key, &route);
  struct held_route *added =
      held_routes_hold(routes->held, worker, &name, overtaken ? route.address : held->address,
                       clock_monotonic_ms() + check_interval_ms(routes));
  if (!added) {
    log_limited(LOG_LEVEL_ERROR, "route_not_held", "oid=%" PRId64 " error=\"out of memory\"",
                held->oid);
  } else if (!overtaken && !lookup(routes, &key, &route)) {
    // Claimed a moment ago, and Redis is about to tell; or vanished meanwhile; or a choice
    // made without the store.
    if (reaches_store(routes, &key)) {
      route_keeper_settle_soon(routes->keeper, added);
    } else {
      settle_held(routes, added, &key);
    }
  } else if (strcmp(route.address, held->address) != 0) {
    tell_moved(routes, added, route.address);
  }
}

void routes_released(struct routes *routes, int worker,
                     const struct channel_route_released *released) {
  const struct tunnel_route name = {
      .type = released->tunnel_type, .color = released->color, .oid = released->oid};
  held_routes_release(routes->held, worker, &name);
}

void routes_worker_gone(struct routes *routes, int worker) {
  held_routes_drop_worker(routes->held, worker);
}

static void check_held(struct routes *routes) {
  int64_t now_ms = clock_monotonic_ms();
  struct held_route *held;
  while ((held = held_routes_first_check(routes->held)) && held->check_at_ms <= now_ms) {
    struct route_key key;
    held_routes_checked(routes->held, held, now_ms + check_interval_ms(routes));
    if (needs_settling(held, routes) && key_of_held(routes, held, &key)) {
      settle_held(routes, held, &key);
    }
  }
}

// --- Players -----------------------------------------------------------------------

static bool is_expected(int64_t uid, const char *color, void *owner) {
  const struct routes_options *options = &((const struct routes *)owner)->options;
  return options->is_expected && options->is_expected(uid, color, options->owner);
}

static void write_player(struct routes *routes, const struct directory_session *session,
                         bool contested) {
  if (routes->keeper) {
    route_keeper_player_came(routes->keeper, session, contested);
    return;
  }
  struct route_key key =
      gateway_route_key(routes->options.config, session->session.uid, session->session.color);
  put(routes, &key, routes->options.config->server.grpc.advertise,
      routes->options.config->data.gateway_route_table_alive_duration_ms);
}

void routes_player_came(struct routes *routes, struct directory_session *session) {
  gateway_route_renewed(routes->options.config, routes->options.directory, session);
  if (!session->route_written) {
    write_player(routes, session, false);
  }
}

void routes_player_stays(struct routes *routes, const struct directory_session *session) {
  write_player(routes, session, true);
}

void routes_player_left(struct routes *routes, int64_t uid, const char *color) {
  if (routes->keeper) {
    route_keeper_player_left(routes->keeper, uid, color);
    return;
  }
  struct route_key key = gateway_route_key(routes->options.config, uid, color);
  route_table_remove(routes->options.table, &key);
}

static void renew_players_in_memory(struct routes *routes) {
  int64_t now_ms = clock_monotonic_ms();
  struct directory *directory = routes->options.directory;
  struct directory_session *session;
  while ((session = directory_first_due(directory)) && session->renew_at_ms <= now_ms) {
    routes_player_came(routes, session);
  }
}

// --- What Redis tells ----------------------------------------------------------------

// The tier of a service, or ROUTE_TIER_COUNT for one that is no business of ours.
static enum route_tier tier_of(const struct routes *routes, const char *service) {
  const struct config *config = routes->options.config;
  if (strcmp(service, config->label.service) == 0) {
    return ROUTE_GATEWAY;
  }
  for (size_t i = 0; i < config->tunnel.type_count; i++) {
    if (strcmp(service, config->tunnel.types[i].service) == 0) {
      return config->tunnel.types[i].tier;
    }
  }
  return ROUTE_TIER_COUNT;
}

static bool on_wants(const struct redis_routes_name *name, bool scanning, void *owner) {
  const struct routes *routes = owner;
  const struct route_key key = {.tier = tier_of(routes, name->service),
                                .service = name->service,
                                .color = name->color,
                                .oid = name->oid};
  struct route_table_stats stats;
  struct route route;
  if (key.tier == ROUTE_TIER_COUNT || !scanning) {
    return key.tier != ROUTE_TIER_COUNT;
  }
  route_table_stats(routes->options.table, &stats);
  return stats.used[key.tier] - stats.doubted[key.tier] < stats.capacity[key.tier] ||
         route_table_lookup(routes->options.table, &key, clock_wall_ms(), &route) !=
             ERROR_NOT_FOUND;
}

// A route that is held here has vanished, or is another than the tunnel's: Roma ends what
// misses its route, so it is put back at once; tunnels follow a change.
static void look_after_held(struct routes *routes, struct held_route *held, const char *address) {
  if (!address) {
    route_keeper_settle(routes->keeper, held);
  } else if (strcmp(held->address, address) != 0) {
    tell_moved(routes, held, address);
  }
}

// A player's route to here that has vanished is put back; one that is left over from an
// earlier run of this gateway, which did not get to remove it, is removed. It may also be that of a
// login which has just taken it, and does not know yet.
static void look_after_player(struct routes *routes, const struct redis_routes_name *name,
                              const char *address) {
  bool is_here = directory_has_player(routes->options.directory, name->oid, name->color);
  bool names_us = address && strcmp(address, routes->options.config->server.grpc.advertise) == 0;
  if (!address && is_here) {
    directory_renew_player(routes->options.directory, name->oid, name->color);
    route_keeper_work(routes->keeper);
  } else if (names_us && !is_here && !is_expected(name->oid, name->color, routes)) {
    route_keeper_player_left(routes->keeper, name->oid, name->color);
  }
}

static void on_route(const struct redis_routes_name *name, const char *address, int64_t ttl_ms,
                     void *owner) {
  struct routes *routes = owner;
  const struct route_key key = {.tier = tier_of(routes, name->service),
                                .service = name->service,
                                .color = name->color,
                                .oid = name->oid};
  bool moved = false;
  if (address) {
    put_and_tell(routes, &key, address, ttl_ms, &moved);
  } else if (key.tier == ROUTE_GATEWAY) {
    route_table_remove(routes->options.table, &key);
  } else {
    // Evicted, maybe, while others hold it: where it was is the best guess still, for they
    // put it back.
    route_table_doubt(routes->options.table, &key);
  }
  if (key.tier == ROUTE_GATEWAY) {
    look_after_player(routes, name, address);
  } else if (!moved) {
    each_held(routes, &key, look_after_held, address);
  }
}

// A table that is not told of changes can't be trusted.
static void on_followed(void *owner) {
  struct routes *routes = owner;
  route_table_trust(routes->options.table, routes->feed && route_feed_is_live(routes->feed));
}

struct void_part {
  const struct routes *routes;
  const char *master;
};

static bool is_of_master(const struct route_key *key, void *context) {
  const struct void_part *part = context;
  char text[REDIS_ROUTES_KEY_BYTES];
  size_t len = redis_routes_key(key, text);
  return redis_link_owns(part->routes->link, part->master, text, len);
}

// Routes of tunnels that are open, here or elsewhere, will be put back: until then, whoever
// asks Redis proposes what the route was.
static void on_void(const char *master, void *owner) {
  struct routes *routes = owner;
  struct route_table *table = routes->options.table;
  struct void_part part = {.routes = routes, .master = master};
  bool (*matches)(const struct route_key *key, void *context) =
      redis_link_is_cluster(routes->link) ? is_of_master : NULL;
  route_table_remove_if(table, ROUTE_GATEWAY, matches, &part);
  route_table_doubt_if(table, ROUTE_PLAYER, matches, &part);
  route_table_doubt_if(table, ROUTE_OBJECT, matches, &part);
  route_keeper_settle_all(routes->keeper);  // what of ours is lost, nobody will say
}

// --- The link --------------------------------------------------------------------

void routes_redis_up(struct routes *routes) { route_keeper_settle_all(routes->keeper); }

void routes_renew_players(struct routes *routes) {
  directory_renew_all(routes->options.directory);
  route_keeper_work(routes->keeper);
}

void routes_redis_changed(struct routes *routes) { route_feed_follow(routes->feed); }

static void on_taken_over(const struct route_taken_over *taken_over, void *owner) {
  struct routes *routes = owner;
  routes->options.on_taken_over(taken_over, routes->options.owner);
}

static void on_lost(int64_t uid, const char *color, void *owner) {
  struct routes *routes = owner;
  routes->options.on_lost(uid, color, routes->options.owner);
}

static bool start_redis(struct routes *routes) {
  static const struct route_feed_events feed_events = {on_wants, on_route, on_void, on_followed};
  const struct routes_options *options = &routes->options;
  const struct route_keeper_options keeper_options = {
      .config = options->config,
      .link = routes->link,
      .held = routes->held,
      .directory = options->directory,
      .counters = options->counters,
      .on_settled = on_settled,
      .is_expected = is_expected,
      .needs_settling = needs_settling,
      .on_taken_over = on_taken_over,
      .on_lost = on_lost,
      .owner = routes,
  };
  routes->keeper = route_keeper_new(&keeper_options);
  routes->feed = route_feed_new(options->base, routes->link, options->config, options->counters,
                                &feed_events, routes);
  on_followed(routes);
  return routes->keeper && routes->feed;
}

struct routes *routes_new(const struct routes_options *options) {
  struct routes *routes = calloc(1, sizeof *routes);
  if (!routes || !(routes->held = held_routes_new())) {
    free(routes);
    return NULL;
  }
  routes->options = *options;
  routes->link = options->link;
  if (routes->link && !start_redis(routes)) {
    routes_free(routes);
    return NULL;
  }
  return routes;
}

void routes_free(struct routes *routes) {
  if (routes) {
    route_feed_free(routes->feed);
    route_keeper_free(routes->keeper);
    held_routes_free(routes->held);
    free(routes);
  }
}

bool routes_writing(const struct routes *routes) {
  return routes->keeper && redis_link_is_up(routes->link) &&
         route_keeper_queued(routes->keeper) > 0;
}

// Expired routes of all tiers are swept out: at this pace a table of the default
// capacities in half a minute.
enum { SWEPT_PER_S = 3300 };

void routes_tick(struct routes *routes) {
  check_held(routes);
  if (routes->keeper) {
    route_feed_tick(routes->feed);
    route_keeper_retry(routes->keeper);
  } else {
    renew_players_in_memory(routes);
  }
  // While Redis is away routes are not renewed in the table, and stay as guesses.
  if (!routes->keeper || route_feed_is_live(routes->feed)) {
    route_table_sweep(routes->options.table, clock_wall_ms(), SWEPT_PER_S);
  }
}

// --- For those who look ----------------------------------------------------------------

void routes_health(const struct routes *routes, struct routes_health *health) {
  *health = (struct routes_health){.redis = routes->link != NULL,
                                   .held = held_routes_count(routes->held)};
  if (routes->link) {
    redis_link_health(routes->link, &health->link);
    route_feed_health(routes->feed, &health->feed);
    health->queued_writes = route_keeper_queued(routes->keeper);
  }
}

const struct held_routes *routes_held_index(const struct routes *routes) { return routes->held; }

struct get_question {
  routes_on_found *on_found;
  void *context;
};

static void on_read(const redisReply *reply, void *context) {
  struct get_question *question = context;
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];
  int64_t ttl_ms = 0;
  int error = redis_routes_parse_read(reply, address, &ttl_ms);
  question->on_found(error, error == 0 ? address : NULL, ttl_ms, question->context);
  free(question);
}

int routes_get(struct routes *routes, const struct route_key *key, routes_on_found *on_found,
               void *context) {
  const char *argv[REDIS_ROUTES_READ_ARGC];
  size_t lens[REDIS_ROUTES_READ_ARGC];
  struct route route;
  char text[REDIS_ROUTES_KEY_BYTES];
  if (!routes->link) {
    bool found = lookup(routes, key, &route);
    on_found(found ? 0 : ERROR_NOT_FOUND, found ? route.address : NULL,
             found ? route.expires_at_ms - clock_wall_ms() : 0, context);
    return 0;
  }
  struct get_question *question = malloc(sizeof *question);
  if (!question) {
    return ERROR_MEMORY;
  }
  *question = (struct get_question){.on_found = on_found, .context = context};
  size_t len = redis_routes_key(key, text);
  redis_routes_read_command(text, len, argv, lens);
  int error = redis_link_send(routes->link, REDIS_ROUTES_READ_KEY, REDIS_ROUTES_READ_ARGC, argv,
                              lens, on_read, question);
  if (error != 0) {
    free(question);
  }
  return error;
}

int routes_find_gateway(struct routes *routes, int64_t uid, const char *color,
                        routes_on_found *on_found, void *context) {
  const struct route_key key = gateway_route_key(routes->options.config, uid, color);
  struct route route;
  if (!lookup(routes, &key, &route)) {
    return routes_get(routes, &key, on_found, context);
  }
  on_found(0, route.address, route.expires_at_ms - clock_wall_ms(), context);
  return 0;
}
