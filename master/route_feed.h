// What Redis has of routes, as it changes: client-side tracking in broadcast mode for all
// keys of routes, with every key that changed read anew, and a scan of all of them
// whenever tracking begins.
//
// For each Redis master there are two connections: one that is told of changes (it
// redirects its own tracking to itself, so that it can't be lost without notice) and one
// that reads. When either breaks, both are made again and everything of that master is
// read anew, since nobody knows what was missed.
#ifndef JANUS_MASTER_ROUTE_FEED_H
#define JANUS_MASTER_ROUTE_FEED_H

#include "common/counters.h"
#include "common/redis_link.h"
#include "common/redis_routes.h"

struct route_feed;

struct route_feed_events {
  // Whether a route of this service and color is of interest; with scanning, whether there
  // is room for one more.
  bool (*wants)(const struct redis_routes_name *name, bool scanning, void *owner);
  // A route as it is now; address NULL: there is none.
  void (*on_route)(const struct redis_routes_name *name, const char *address, int64_t ttl_ms,
                   void *owner);
  // All that is known of this master's routes is void: they are read anew from here on.
  void (*on_void)(const char *master, void *owner);
  // Whether every master is followed (route_feed_is_live) may be otherwise now. Comes after
  // the on_void of one that is followed anew.
  void (*on_followed)(void *owner);
};

// Borrows link, config and counters. NULL when out of memory.
struct route_feed *route_feed_new(struct event_base *base, struct redis_link *link,
                                  const struct config *config, struct counters *counters,
                                  const struct route_feed_events *events, void *owner);
void route_feed_free(struct route_feed *feed);  // before the link

// Follows the link's masters; to be called when they have changed.
void route_feed_follow(struct route_feed *feed);
// Looks after connections that have gone silent; each second.
void route_feed_tick(struct route_feed *feed);

// Whether every master is followed: what it tells is then newer than any other answer.
bool route_feed_is_live(const struct route_feed *feed);

struct route_feed_health {
  size_t masters;       // followed
  size_t live;          // told of every change
  size_t scanning;      // of the live: whose routes are still being read
  size_t waiting_keys;  // to be read
  char last_error[256];
  int64_t last_error_ms;  // wall clock; 0: none yet
};
void route_feed_health(const struct route_feed *feed, struct route_feed_health *health);

#endif
