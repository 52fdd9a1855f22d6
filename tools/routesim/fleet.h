// Many gateways, each with a node picker and a route table of its own as its worker and its
// master have them, and the nodes, the registry and the store that they share, in one process
// and in simulated time.
//
// What a gateway does with a tunnel goes as worker/tunnel.c, and what it does with what it is
// told of routes as master/routes.c; the registry is a sequence of node tables that each gateway
// comes to see a while after they were published, and the store a stand-in for Redis that sets a
// route if there is none, or if it names a node that is said to be dead. Everything follows from
// the seed. One thread.
#ifndef JANUS_TOOLS_ROUTESIM_FLEET_H
#define JANUS_TOOLS_ROUTESIM_FLEET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/node_table.h"
#include "common/route_table.h"
#include "worker/node_picker.h"

enum { FLEET_NONE = -1, FLEET_ROUTE_TTL_MS = 600000 };

// What is done wrong on purpose.
enum fleet_fault {
  FLEET_SOUND,
  FLEET_ALIKE,      // all pickers begin their rounds at the same place
  FLEET_DEAF,       // one gateway hears of no change of the nodes
  FLEET_BELIEVE,    // routes that name nodes which are gone are left as they are
  FLEET_OVERWRITE,  // the store sets a route whether there is one or not
};

struct fleet_options {
  size_t gateways;
  size_t nodes_max;    // that there are ever
  size_t players_max;  // the same, as objects of the player tier
  size_t rooms_max;    // and of the object tier
  size_t tunnels_max;
  size_t colors;
  int64_t feed_lag_ms;      // a gateway hears of a route so much later at most
  int64_t registry_lag_ms;  // and so much of nodes
  uint64_t seed;
  enum fleet_fault fault;
};

// Serves one service and color, its group: even groups are players', odd ones rooms'.
struct fleet_node {
  struct node node;
  size_t group;
  bool registered;
  bool alive;
};

struct fleet_object {
  size_t group;
  int32_t stored;      // the node that its route in the store names, or FLEET_NONE
  int64_t expires_ms;  // that route
  int32_t home;        // where the last of its tunnels was opened, or FLEET_NONE
  int32_t placed;      // where it was put, or moved to, in this phase, or FLEET_NONE
  bool moved;          // in this phase
  bool left_living;    // in this phase, a node that was alive and registered
  int32_t first_tunnel;
};

struct fleet_tunnel {
  uint32_t object;
  uint32_t gateway;
  int32_t node;    // that it is open to, or FLEET_NONE
  int32_t follow;  // a node that its route has come to name and that it can't go to yet
  int32_t next;    // of the same object
  unsigned failures;
  int64_t due_ms;    // of the next try
  int64_t check_ms;  // of the next look at its route
  bool closed;
};

struct fleet_gateway {
  struct node_picker *picker;
  struct route_table *table;
  int64_t feed_lag_ms;
  int64_t registry_lag_ms;
  size_t fed;   // of the store's changes
  size_t view;  // of the registry's tables
  bool linked;  // to the store
  bool deaf;
};

struct fleet {
  struct fleet_options options;
  uint64_t random;
  int64_t now_ms;  // monotonic and wall clock alike
  struct fleet_gateway *gateways;
  struct fleet_node *nodes;
  size_t node_count;
  struct fleet_object *objects;
  size_t object_count;
  struct fleet_tunnel *tunnels;
  size_t tunnel_count;
  char (*colors)[NODE_COLOR_MAX_BYTES + 1];

  struct fleet_view {
    struct node_table *table;
    int64_t since_ms;
  } * views;
  size_t view_count;
  struct fleet_change {
    int64_t at_ms;
    uint32_t object;
    int32_t node;
  } * changes;  // of the store
  size_t change_count;
  size_t change_room;
  bool store_up;
  int64_t store_since_ms;  // up, or down

  // Counted since fleet_begin_phase.
  size_t opened;
  size_t fallbacks;
  bool failed;  // out of memory: nothing that comes of it counts
};

// 0 or ERROR_MEMORY. fleet_fini in either case.
int fleet_init(struct fleet *fleet, const struct fleet_options *options) MUST_CHECK;
void fleet_fini(struct fleet *fleet);

uint64_t fleet_random(struct fleet *fleet, uint64_t below);
void fleet_begin_phase(struct fleet *fleet);

// A node that is alive; nobody hears of it before fleet_publish.
size_t fleet_add_node(struct fleet *fleet, size_t group, uint32_t weight);
// What is registered and its weights, to be seen by each gateway after its own lag.
void fleet_publish(struct fleet *fleet);
// Breaks the tunnels to it at once.
void fleet_kill_node(struct fleet *fleet, size_t node);

size_t fleet_add_object(struct fleet *fleet, size_t group);
size_t fleet_open(struct fleet *fleet, size_t object, size_t gateway);
void fleet_close(struct fleet *fleet, size_t tunnel);

// The store goes away; it comes back as it was, or with nothing in it.
void fleet_store_down(struct fleet *fleet);
void fleet_store_up(struct fleet *fleet, bool empty);

// Lets so much time pass.
void fleet_tick(struct fleet *fleet, int64_t ms);
// Whether every gateway has heard of everything and no tunnel waits.
bool fleet_is_settled(const struct fleet *fleet);

// The node that rendezvous hashing names at a gateway for an object that nobody has, as a
// number, or FLEET_NONE.
int32_t fleet_rendezvous(struct fleet *fleet, size_t gateway, size_t group, int64_t oid);

#endif
