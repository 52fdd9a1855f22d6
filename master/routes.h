// Who serves what, and where each player is: what the workers hold and ask, the shared
// table that they read, and the store behind it.
//
// `routes = "memory"`: the table itself is the store. Right for one gateway whose
// backends do not renew their routes themselves. `routes = "redis"`: Redis is. Workers
// settle a route there themselves on a miss; here the feed keeps the table true
// (route_feed.h), and the keeper keeps Redis true (route_keeper.h).
//
// When the table has no room, a route is not in it: a claim in memory is answered with no
// address and the worker falls back on rendezvous hashing; with Redis it is asked each time.
#ifndef JANUS_MASTER_ROUTES_H
#define JANUS_MASTER_ROUTES_H

#include <event2/event.h>

#include "common/channel.h"
#include "common/config.h"
#include "common/counters.h"
#include "common/redis_link.h"
#include "common/route_table.h"
#include "master/directory.h"
#include "master/held_routes.h"
#include "master/route_feed.h"
#include "master/route_keeper.h"

struct routes;

struct routes_options {
  struct event_base *base;
  const struct config *config;
  struct redis_link *link;  // NULL: routes in memory
  struct route_table *table;
  struct directory *directory;
  struct counters *counters;  // the master's own
  // As those of the keeper (route_keeper.h).
  void (*on_taken_over)(const struct route_taken_over *taken_over, void *owner);
  void (*on_lost)(int64_t uid, const char *color, void *owner);
  bool (*is_expected)(int64_t uid, const char *color, void *owner);  // NULL: nobody ever is
  // Tunnels of this worker are to follow their route. NULL where nobody is to be told.
  void (*on_moved)(int worker, const struct channel_route_held *moved, void *owner);
  void *owner;
};

// All in options is borrowed. NULL when out of memory.
struct routes *routes_new(const struct routes_options *options);
void routes_free(struct routes *routes);  // after redis_link_close

// For the link's owner: a master answers that did not before; the masters are others.
void routes_redis_up(struct routes *routes);
void routes_redis_changed(struct routes *routes);
// What other gateways said of their players may have been missed: their routes tell.
void routes_renew_players(struct routes *routes);

// Answers a claim, in memory: the route there is, or else (or if it still names
// claim->dead) the candidate, which is then set.
void routes_claim(struct routes *routes, const struct channel_route_claim *claim,
                  struct channel_route_answer *answer);

// From a worker: a tunnel holds this route; one less does; the worker is gone.
void routes_held(struct routes *routes, int worker, const struct channel_route_held *held);
void routes_released(struct routes *routes, int worker,
                     const struct channel_route_released *released);
void routes_worker_gone(struct routes *routes, int worker);

// The gateway tier: this gateway has the player, whose route is written unless it has been; it
// no longer has. The directory knows already.
void routes_player_came(struct routes *routes, struct directory_session *session);
void routes_player_left(struct routes *routes, int64_t uid, const char *color);
// It keeps the player, though what is written names another gateway.
void routes_player_stays(struct routes *routes, const struct directory_session *session);

// Whether gateway routes are still to be written to a store that answers.
bool routes_writing(const struct routes *routes);

// Renews, retries and sweeps; each second.
void routes_tick(struct routes *routes);

// For those who look. health of the link is all zero with routes in memory.
struct routes_health {
  bool redis;
  struct redis_link_health link;
  struct route_feed_health feed;
  size_t held;           // routes of open tunnels
  size_t queued_writes;  // gateway routes not yet written
};
void routes_health(const struct routes *routes, struct routes_health *health);
const struct held_routes *routes_held_index(const struct routes *routes);

// Where the player is connected, by the table or else by the store; as routes_get.
typedef void routes_on_found(int error, const char *address, int64_t ttl_ms, void *context);
int routes_find_gateway(struct routes *routes, int64_t uid, const char *color,
                        routes_on_found *on_found, void *context) MUST_CHECK;

// Asks the store for one route. on_found comes once, maybe from inside, with the error of
// redis_routes_parse_read; no error here means that it will.
int routes_get(struct routes *routes, const struct route_key *key, routes_on_found *on_found,
               void *context) MUST_CHECK;

#endif
