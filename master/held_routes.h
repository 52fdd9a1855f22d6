// The routes that this gateway's open tunnels go by: which worker holds which, and which
// are to be looked at next. A room's route may be held many times, by several workers.
//
// An index and no more: what is done about a route is its callers' business.
#ifndef JANUS_MASTER_HELD_ROUTES_H
#define JANUS_MASTER_HELD_ROUTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uthash.h>

#include "common/route_table.h"

enum held_route_queue {
  HELD_SETTLED,  // in none
  HELD_URGENT,   // to be put into the store as soon as it can be
  HELD_SOON,     // to be looked at soon: the store may have it already
  HELD_LATER,    // the store would not have it: urgent again soon
};

struct held_route_holder {
  int worker;
  uint32_t tunnels;  // one at least
};

// For reading; kept by this module.
struct held_route {
  UT_hash_handle hh;
  TAILQ_ENTRY(held_route) checks;  // all, by check_at_ms
  TAILQ_ENTRY(held_route) queued;  // those of the same queue
  enum held_route_queue queue;
  int64_t check_at_ms;
  char *address;   // of the tunnel that came last, or what that is told to follow
  uint32_t total;  // tunnels
  struct held_route_holder *holders;
  size_t holder_count;
  const char *color;  // behind the key's other parts
  struct held_route_key {
    int64_t oid;
    uint32_t tunnel_type;
    char color[];
  } * key;
};

static inline struct tunnel_route held_route_name(const struct held_route *route) {
  return (struct tunnel_route){
      .type = route->key->tunnel_type, .color = route->color, .oid = route->key->oid};
}

struct held_routes;

struct held_routes *held_routes_new(void);  // NULL when out of memory
void held_routes_free(struct held_routes *held);

// One tunnel more, or less. hold returns the route, NULL when out of memory; a new one is
// first looked at check_at_ms (monotonic; never earlier than that of the one before).
struct held_route *held_routes_hold(struct held_routes *held, int worker,
                                    const struct tunnel_route *name, const char *address,
                                    int64_t check_at_ms);
void held_routes_release(struct held_routes *held, int worker, const struct tunnel_route *name);
// All of a worker that is gone.
void held_routes_drop_worker(struct held_routes *held, int worker);

struct held_route *held_routes_find(const struct held_routes *held,
                                    const struct tunnel_route *name);
size_t held_routes_count(const struct held_routes *held);

// The one whose check is due first, NULL if there is none; and its next check.
struct held_route *held_routes_first_check(const struct held_routes *held);
void held_routes_checked(struct held_routes *held, struct held_route *route, int64_t check_at_ms);

// Moves a route, or all, to a queue; the first of one.
void held_routes_enqueue(struct held_routes *held, struct held_route *route,
                         enum held_route_queue queue);
void held_routes_enqueue_all(struct held_routes *held, enum held_route_queue queue);
struct held_route *held_routes_first(const struct held_routes *held, enum held_route_queue queue);

void held_routes_each(const struct held_routes *held,
                      void (*visit)(const struct held_route *route, void *context), void *context);

#endif
