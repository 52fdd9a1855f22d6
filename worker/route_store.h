// Where a route is settled when the shared table does not have it: one question,
// one answer. With `routes = "memory"` the master is asked through the channel.
//
// A question always gets an answer: an empty one when the store can't keep the
// route or can't be reached in time, for the caller to fall back on rendezvous
// hashing.
#ifndef JANUS_WORKER_ROUTE_STORE_H
#define JANUS_WORKER_ROUTE_STORE_H

#include <event2/event_struct.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/channel.h"

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

struct route_store *route_store_new(struct worker *worker);
void route_store_free(struct route_store *store);

// Asks where (tunnel type, color, oid) lives; if nowhere yet, candidate is set. With
// dead, a route that still names that address is replaced. on_settled comes later,
// never from inside this call.
void route_store_claim(struct route_store *store, struct route_claim *claim, int tunnel_type,
                       const char *color, int64_t oid, const char *candidate, const char *dead);
void route_store_withdraw(struct route_claim *claim);

// Prolongs the route of an open tunnel, and puts it back if it was lost.
void route_store_renew(struct route_store *store, int tunnel_type, const char *color, int64_t oid,
                       const char *address);

// From the inbox.
void route_store_on_answer(struct route_store *store, const struct channel_route_answer *answer);

#endif
