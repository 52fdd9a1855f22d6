// The three-tier route table in shared memory: which gateway has a player
// (gateway tier), and which node serves a player or an object (player and object
// tier).
//
// One writer, the master, maps it writable; every worker reads it without a
// lock and never waits. Each bucket has a sequence counter; a torn read is tried
// again a bounded number of times and then counts as a miss. The table stays
// right when the writer is killed in the middle of an update: a bucket left with
// an odd counter reads as a miss until a new writer repairs it (route_table_repair).
//
// A route whose time is over, or that nobody vouches for at present (route_table_doubt,
// route_table_trust), is no answer any more but still the best guess: all gateways had
// the same one. So it stays until its place is needed, or its time is over and the master
// sweeps it out (route_table_sweep).
//
// Capacity is fixed when the table is made. A new route takes the place of one that is
// only a guess where they meet. When there is no room, the new route is refused
// (ERROR_EXHAUSTED) and the caller does without.
//
// Addresses are `host:port`, colors and services are text; each is bounded below
// and stored once for all routes that share it.
#ifndef JANUS_COMMON_ROUTE_TABLE_H
#define JANUS_COMMON_ROUTE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/shm.h"

enum route_tier { ROUTE_GATEWAY = 0, ROUTE_PLAYER = 1, ROUTE_OBJECT = 2, ROUTE_TIER_COUNT = 3 };
const char *route_tier_name(enum route_tier tier);  // "gateway", "player", "object"

enum {
  ROUTE_SERVICE_MAX_BYTES = 127,
  ROUTE_COLOR_MAX_BYTES = 63,
  ROUTE_ADDRESS_MAX_BYTES = 127,
};

// Names a route. The strings are NUL-terminated and borrowed. The service tells
// rooms from teams and so on within the object tier.
struct route_key {
  enum route_tier tier;
  const char *service;
  const char *color;  // "" is a color like any other
  int64_t oid;
};

// The same route as tunnels name it: their type stands for tier and service.
struct tunnel_route {
  uint32_t type;      // index into the configured types
  const char *color;  // borrowed
  int64_t oid;
};

struct route {
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];
  int64_t expires_at_ms;  // wall clock, ms since the epoch
  bool in_doubt;          // by route_table_each also where the whole table is
};

struct route_table_options {
  size_t capacity[ROUTE_TIER_COUNT];  // routes of each tier
};

struct route_table_stats {
  size_t capacity[ROUTE_TIER_COUNT];
  size_t used[ROUTE_TIER_COUNT];     // expired ones that were not reused yet included
  size_t doubted[ROUTE_TIER_COUNT];  // of these
};

struct route_table;  // a process-local handle on the segment

// In the master: makes the segment. NULL with the reason in *error.
struct route_table *route_table_create(const struct route_table_options *options, int *error);
// In a worker: maps an inherited segment read-only; takes over fd. Every offset
// and size in its header is checked against the real size.
struct route_table *route_table_open(int fd, int *error);
void route_table_free(struct route_table *table);
int route_table_fd(const struct route_table *table);        // for handing on; stays owned here
size_t route_table_bytes(const struct route_table *table);  // of the segment

// Any process. 0; ERROR_NOT_FOUND for a miss; ERROR_EXPIRED for one that was so once and
// may be otherwise now: route is filled in, as a guess; ERROR_BUSY when only torn reads
// were had (to be treated as a miss); ERROR_TOO_LARGE for a key over the bounds. now_ms is
// the wall clock.
int route_table_lookup(const struct route_table *table, const struct route_key *key, int64_t now_ms,
                       struct route *route) MUST_CHECK;

// Master only. Put sets or replaces. ERROR_EXHAUSTED: no room; ERROR_TOO_LARGE.
int route_table_put(struct route_table *table, const struct route_key *key, const char *address,
                    int64_t expires_at_ms, int64_t now_ms) MUST_CHECK;
// 0 or ERROR_NOT_FOUND.
int route_table_remove(struct route_table *table, const struct route_key *key);
// Makes a route a guess until it is put again. 0 or ERROR_NOT_FOUND.
int route_table_doubt(struct route_table *table, const struct route_key *key);
// The same for all of a tier for which matches says true (NULL: for all of it).
void route_table_doubt_if(struct route_table *table, enum route_tier tier,
                          bool (*matches)(const struct route_key *key, void *context),
                          void *context);
// Whether what the table says can be trusted at all: false while what it comes from can't
// be seen. All routes are guesses then, and what they were before when that is over.
void route_table_trust(struct route_table *table, bool trusted);
// For a writer that takes over the mapping of one that died in the middle of an
// update: empties the buckets left torn, and counts anew what the rest uses.
void route_table_repair(struct route_table *table);
// Master only: removes the routes whose time is over from the next so many buckets, going
// round, so that they do not use up the capacity; and where that is nearly used up, all
// that are in doubt.
void route_table_sweep(struct route_table *table, int64_t now_ms, size_t buckets);
// Master only. Calls visit for each route whose time is not over, in no order, until it
// returns false.
void route_table_each(const struct route_table *table, int64_t now_ms,
                      bool (*visit)(const struct route_key *key, const struct route *route,
                                    void *context),
                      void *context);
// Master only. Removes all routes of a tier for which matches says true (NULL: all of it).
void route_table_remove_if(struct route_table *table, enum route_tier tier,
                           bool (*matches)(const struct route_key *key, void *context),
                           void *context);
void route_table_stats(const struct route_table *table, struct route_table_stats *stats);

#endif
