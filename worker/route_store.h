// Where a route is settled when the shared table does not have it: one question,
// one answer. With `routes = "redis"` Redis is asked, from here; with "memory" the
// master, through the channel. Either way the master is told which routes this worker's
// tunnels hold, keeps those true, and says when one has moved.
//
// A question always gets an answer: an empty one when the store can't keep the
// route or can't be reached in time, for the caller to fall back on rendezvous
// hashing.
#ifndef JANUS_WORKER_ROUTE_STORE_H
#define JANUS_WORKER_ROUTE_STORE_H

#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/channel.h"
#include "common/config.h"
#include "common/route_table.h"

struct worker;
struct route_store;

// One question under way; embedded in its owner, who may withdraw it.
struct route_claim {
  LIST_ENTRY(route_claim) link;
  struct event timer;
  uint64_t id;  // 0: not under way
  struct route_store *store;
  // address is empty when there is none, else where the object lives.
  void (*on_settled)(struct route_claim *claim, const char *address);
};

// NULL with the reason in why. on_ready comes once, later: the store answers, or does not
// within a bound. Players that came before would be routed without it.
struct route_store *route_store_new(struct worker *worker, void (*on_ready)(struct worker *worker),
                                    char *why, size_t why_size);
void route_store_free(struct route_store *store);

// Tells the master how this worker stands with Redis, if that has changed; each second.
void route_store_tick(struct route_store *store);

// Another master is to be told all that the one before knew.
void route_store_new_master(struct route_store *store);

// Whether the store knows better than the shared table: that is nobody's any more once the
// master is gone.
bool route_store_knows_better(const struct route_store *store);

// Asks where the route leads; if nowhere yet, candidate is set. With dead, a route that still names
// that address is replaced. on_settled comes later, never from inside this call.
void route_store_claim(struct route_store *store, struct route_claim *claim,
                       const struct tunnel_route *route, const char *candidate, const char *dead);
void route_store_withdraw(struct route_claim *claim);

// Tells the master that a tunnel to address is being opened or is open, so that its
// route must stay; and that it is no more. One release for each hold. follows: it goes there
// because the master said so.
void route_store_hold(struct route_store *store, const struct tunnel_route *route,
                      const char *address, bool follows);
void route_store_release(struct route_store *store, const struct tunnel_route *route);

// From the inbox.
void route_store_on_answer(struct route_store *store, const struct channel_route_answer *answer);

#endif
