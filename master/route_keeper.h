// Keeps in Redis what this gateway answers for: the routes of its open tunnels, and where
// its players are connected.
//
// Roma ends a worker that misses its own route, so the routes of open tunnels go first of
// all: at once when one has vanished, and all of them when Redis has been away. Then
// come the gateway routes of players that came and went (a bounded queue, in order; past
// the bound the oldest is dropped and counted), and then those that are to be renewed.
#ifndef JANUS_MASTER_ROUTE_KEEPER_H
#define JANUS_MASTER_ROUTE_KEEPER_H

#include "common/counters.h"
#include "common/redis_link.h"
#include "common/redis_routes.h"
#include "master/directory.h"
#include "master/held_routes.h"

struct route_keeper;

// A gateway route written so long after its login is late: the order of writing says nothing
// about that of the logins.
enum { ROUTE_LATE_MS = 1000 };

// A player came here who was at another gateway.
struct route_taken_over {
  int64_t uid;
  const char *color;
  const char *from;  // that gateway's address
  int64_t since_ms;  // of the login, wall clock
  bool late;
};

struct route_keeper_options {
  const struct config *config;
  struct redis_link *link;
  struct held_routes *held;
  struct directory *directory;
  struct counters *counters;
  // A held route has been settled: it is at address now, for ttl_ms. Must not free the
  // keeper.
  void (*on_settled)(struct held_route *route, const char *address, int64_t ttl_ms, void *owner);
  // A player's gateway route has been written over that of another gateway; one that was to
  // be renewed has been found to name another. Must not free the keeper.
  void (*on_taken_over)(const struct route_taken_over *taken_over, void *owner);
  void (*on_lost)(int64_t uid, const char *color, void *owner);
  // Whether a login of the player is under way that asks for his route itself, over the same
  // connection: nobody else is to remove it meanwhile.
  bool (*is_expected)(int64_t uid, const char *color, void *owner);
  // Whether a held route that was put off is still to be settled.
  bool (*needs_settling)(const struct held_route *route, void *owner);
  void *owner;
};

// All in options is borrowed. NULL when out of memory.
struct route_keeper *route_keeper_new(const struct route_keeper_options *options);
void route_keeper_free(struct route_keeper *keeper);  // after the link

// A player has come to this gateway; has left it. contested: another gateway has written
// over its route, wrongly.
void route_keeper_player_came(struct route_keeper *keeper, const struct directory_session *session,
                              bool contested);
void route_keeper_player_left(struct route_keeper *keeper, int64_t uid, const char *color);

// This held route is to be put into Redis, or prolonged there, at once; or within a second,
// if needs_settling still says so.
void route_keeper_settle(struct route_keeper *keeper, struct held_route *route);
void route_keeper_settle_soon(struct route_keeper *keeper, struct held_route *route);
// All held routes and all players' are: nobody knows what Redis has of them.
void route_keeper_settle_all(struct route_keeper *keeper);

// Works off what is due; to be called each second and after anything was made due.
void route_keeper_work(struct route_keeper *keeper);
// Lets what failed be tried again; each second.
void route_keeper_retry(struct route_keeper *keeper);

// Gateway routes that wait to be written, or are being written.
size_t route_keeper_queued(const struct route_keeper *keeper);

#endif
