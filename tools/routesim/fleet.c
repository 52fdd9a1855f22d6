#include "tools/routesim/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  START_MS = 1000,
  TRIES_AT_ONCE = 4,  // of one tunnel, at dead nodes; then it waits
  // As in the configuration: data.app_route_table_alive_duration, of which a tenth passes
  // between two looks at a held route; tunnel.backoff, .suspect, .unknown_node_grace.
  ROUTE_TTL_MS = FLEET_ROUTE_TTL_MS,
  CHECK_MS = ROUTE_TTL_MS / 10,
  BACKOFF_MS = 100,
  SUSPECT_MS = 5000,
  GRACE_MS = 1000,
  // As in worker/tunnel.c: a tunnel takes its route back from a node that is gone so long after it
  // was told of it.
  TAKE_BACK_MS = 1000,
};
// The table keeps times from 2025 on.
static const int64_t epoch_ms = 1767225600000;

// splitmix64
static uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

uint64_t fleet_random(struct fleet *fleet, uint64_t below) {
  return (uint64_t)((unsigned __int128)next_random(&fleet->random) * below >> 64);
}

int fleet_init(struct fleet *fleet, const struct fleet_options *options) {
  *fleet = (struct fleet){.options = *options, .random = options->seed, .now_ms = START_MS};
  fleet->store_up = true;
  fleet->gateways = calloc(options->gateways, sizeof *fleet->gateways);
  fleet->nodes = calloc(options->nodes_max, sizeof *fleet->nodes);
  fleet->objects = calloc(options->players_max + options->rooms_max, sizeof *fleet->objects);
  fleet->tunnels = calloc(options->tunnels_max, sizeof *fleet->tunnels);
  fleet->colors = calloc(options->colors, sizeof *fleet->colors);
  if (!fleet->gateways || !fleet->nodes || !fleet->objects || !fleet->tunnels || !fleet->colors) {
    return ERROR_MEMORY;
  }
  for (size_t i = 0; i < options->colors; i++) {
    snprintf(fleet->colors[i], sizeof fleet->colors[i], "color%zu", i);
  }
  const struct route_table_options sizes = {
      .capacity = {1, options->players_max, options->rooms_max}};
  for (size_t i = 0; i < options->gateways; i++) {
    struct fleet_gateway *gateway = &fleet->gateways[i];
    int error;
    gateway->linked = true;
    gateway->feed_lag_ms = (int64_t)fleet_random(fleet, (uint64_t)options->feed_lag_ms + 1);
    gateway->registry_lag_ms = (int64_t)fleet_random(fleet, (uint64_t)options->registry_lag_ms + 1);
    // Never 0, which is a beginning of its own.
    uint64_t seed = options->fault == FLEET_ALIKE ? 1 : next_random(&fleet->random) | 1;
    gateway->picker = node_picker_new(seed);
    gateway->table = route_table_create(&sizes, &error);
    if (!gateway->picker || !gateway->table) {
      return ERROR_MEMORY;
    }
  }
  return 0;
}

void fleet_fini(struct fleet *fleet) {
  for (size_t i = 0; fleet->gateways && i < fleet->options.gateways; i++) {
    node_picker_free(fleet->gateways[i].picker);
    route_table_free(fleet->gateways[i].table);
  }
  for (size_t i = 0; i < fleet->view_count; i++) {
    node_table_free(fleet->views[i].table);
  }
  free(fleet->gateways);
  free(fleet->nodes);
  free(fleet->objects);
  free(fleet->tunnels);
  free(fleet->views);
  free(fleet->changes);
  free(fleet->colors);
}

void fleet_begin_phase(struct fleet *fleet) {
  fleet->opened = 0;
  fleet->fallbacks = 0;
  for (size_t i = 0; i < fleet->object_count; i++) {
    struct fleet_object *object = &fleet->objects[i];
    object->placed = FLEET_NONE;
    object->moved = false;
    object->left_living = false;
  }
}

// --- Names ---------------------------------------------------------------------------

static const char *service_of(size_t group) {
  return group % 2 == 0 ? "roma.player.service" : "roma.room.service";
}

static const char *color_of(const struct fleet *fleet, size_t group) {
  return fleet->colors[group / 2];
}

static void write_address(size_t node, char address[NODE_ADDRESS_MAX_BYTES + 1]) {
  snprintf(address, NODE_ADDRESS_MAX_BYTES + 1, "10.%zu.%zu.%zu:9000", node >> 16, node >> 8 & 255,
           node & 255);
}

static int32_t node_at(const char *address) {
  unsigned high, middle, low;
  return sscanf(address, "10.%u.%u.%u:9000", &high, &middle, &low) == 3
             ? (int32_t)(high << 16 | middle << 8 | low)
             : FLEET_NONE;
}

static int64_t oid_of(size_t object) { return (int64_t)object + 1000000; }

static struct route_key key_of(const struct fleet *fleet, size_t object) {
  size_t group = fleet->objects[object].group;
  return (struct route_key){.tier = group % 2 == 0 ? ROUTE_PLAYER : ROUTE_OBJECT,
                            .service = service_of(group),
                            .color = color_of(fleet, group),
                            .oid = oid_of(object)};
}

// --- Nodes ---------------------------------------------------------------------------

size_t fleet_add_node(struct fleet *fleet, size_t group, uint32_t weight) {
  size_t number = fleet->node_count++;
  struct fleet_node *node = &fleet->nodes[number];
  *node = (struct fleet_node){.group = group, .registered = true, .alive = true};
  strcpy(node->node.service, service_of(group));
  strcpy(node->node.color, color_of(fleet, group));
  write_address(number, node->node.address);
  node->node.weight = weight;
  return number;
}

void fleet_publish(struct fleet *fleet) {
  struct node *nodes = calloc(fleet->node_count + 1, sizeof *nodes);
  struct fleet_view *views = realloc(fleet->views, (fleet->view_count + 1) * sizeof *fleet->views);
  struct node_table *table = NULL;
  size_t count = 0;
  int error = ERROR_MEMORY;
  fleet->views = views ? views : fleet->views;
  if (nodes && views) {
    for (size_t i = 0; i < fleet->node_count; i++) {
      if (fleet->nodes[i].registered) {
        nodes[count++] = fleet->nodes[i].node;
      }
    }
    table = node_table_create(count + 1, &error);
  }
  if (table && node_table_publish(table, nodes, count) == 0) {
    node_table_set_current(table, true);
    views[fleet->view_count++] = (struct fleet_view){.table = table, .since_ms = fleet->now_ms};
  } else {
    node_table_free(table);
    fleet->failed = true;
  }
  free(nodes);
}

// Whether the latest that this gateway may see is the one it has.
static bool sees_nodes(struct fleet *fleet, struct fleet_gateway *gateway) {
  size_t seen = gateway->view;
  while (seen < fleet->view_count &&
         fleet->views[seen].since_ms + gateway->registry_lag_ms <= fleet->now_ms) {
    seen++;
  }
  if (seen > gateway->view && !(gateway->deaf && gateway->view > 0)) {
    // A table for each gateway would be the same table: its versions are what counts.
    node_picker_forget_table(gateway->picker);
    node_picker_refresh(gateway->picker, fleet->views[seen - 1].table);
  }
  gateway->view = seen;
  return seen == fleet->view_count;
}

// --- The store -----------------------------------------------------------------------

static void note_change(struct fleet *fleet, size_t object, int32_t node) {
  if (fleet->change_count == fleet->change_room) {
    size_t room = fleet->change_room * 2 + 1024;
    struct fleet_change *changes = realloc(fleet->changes, room * sizeof *changes);
    if (!changes) {
      fleet->failed = true;
      return;
    }
    fleet->changes = changes;
    fleet->change_room = room;
  }
  fleet->changes[fleet->change_count++] =
      (struct fleet_change){.at_ms = fleet->now_ms, .object = (uint32_t)object, .node = node};
}

// What the script of common/redis_routes.c does. Returns the node that the route names then.
static int32_t store_settle(struct fleet *fleet, size_t number, int32_t candidate, int32_t dead) {
  struct fleet_object *object = &fleet->objects[number];
  bool keeps = object->stored != FLEET_NONE && object->stored != dead;
  if (!(keeps && fleet->options.fault != FLEET_OVERWRITE) && object->stored != candidate) {
    object->stored = candidate;
    note_change(fleet, number, candidate);
  }
  if (object->stored == candidate) {
    object->expires_ms = fleet->now_ms + ROUTE_TTL_MS;
  }
  return object->stored;
}

// --- Tunnels -------------------------------------------------------------------------

static void find_route(struct fleet *fleet, struct fleet_tunnel *tunnel);

static void put(struct fleet *fleet, struct fleet_gateway *gateway, size_t object, int32_t node) {
  const struct route_key key = key_of(fleet, object);
  if (route_table_put(gateway->table, &key, fleet->nodes[node].node.address,
                      epoch_ms + fleet->now_ms + ROUTE_TTL_MS, epoch_ms + fleet->now_ms) != 0) {
    fleet->failed = true;
  }
}

static int look_up(const struct fleet *fleet, const struct fleet_tunnel *tunnel,
                   struct route *route) {
  const struct route_key key = key_of(fleet, tunnel->object);
  return route_table_lookup(fleet->gateways[tunnel->gateway].table, &key, epoch_ms + fleet->now_ms,
                            route);
}

static const struct node *named_node(struct fleet *fleet, const struct fleet_tunnel *tunnel,
                                     const char *address) {
  size_t group = fleet->objects[tunnel->object].group;
  return node_picker_find(fleet->gateways[tunnel->gateway].picker, service_of(group),
                          color_of(fleet, group), address, fleet->now_ms);
}

static bool may_come(struct fleet *fleet, const struct fleet_tunnel *tunnel, const char *address) {
  size_t group = fleet->objects[tunnel->object].group;
  return node_picker_may_come(fleet->gateways[tunnel->gateway].picker, service_of(group),
                              color_of(fleet, group), address, GRACE_MS, fleet->now_ms);
}

static bool names_nowhere(struct fleet *fleet, const struct fleet_tunnel *tunnel) {
  size_t group = fleet->objects[tunnel->object].group;
  return node_picker_is_gone(fleet->gateways[tunnel->gateway].picker, service_of(group),
                             color_of(fleet, group), fleet->nodes[tunnel->follow].node.address,
                             GRACE_MS, fleet->now_ms);
}

static void await_move(struct fleet *fleet, struct fleet_tunnel *tunnel) {
  tunnel->due_ms = fleet->now_ms + (names_nowhere(fleet, tunnel) ? TAKE_BACK_MS : SUSPECT_MS);
}

static void try_later(struct fleet *fleet, struct fleet_tunnel *tunnel) {
  tunnel->due_ms = fleet->now_ms + BACKOFF_MS;
}

static void note_home(struct fleet *fleet, size_t number, int32_t node) {
  struct fleet_object *object = &fleet->objects[number];
  if (object->home == FLEET_NONE) {
    object->placed = node;
  } else if (object->home != node) {
    const struct fleet_node *left = &fleet->nodes[object->home];
    object->placed = node;
    object->moved = true;
    object->left_living = object->left_living || (left->alive && left->registered);
  }
  object->home = node;
}

// Tunnels of this gateway to the same object are to go there too.
static void tell_moved(struct fleet *fleet, size_t gateway, size_t object, int32_t node) {
  for (int32_t i = fleet->objects[object].first_tunnel; i >= 0; i = fleet->tunnels[i].next) {
    struct fleet_tunnel *tunnel = &fleet->tunnels[i];
    if (tunnel->closed || tunnel->gateway != gateway || tunnel->node == FLEET_NONE) {
      continue;
    }
    if (tunnel->node == node) {
      tunnel->follow = FLEET_NONE;
    } else if (tunnel->follow != node) {
      tunnel->follow = node;
      tunnel->due_ms = fleet->now_ms;
      if (!named_node(fleet, tunnel, fleet->nodes[node].node.address)) {
        await_move(fleet, tunnel);
      }
    }
  }
}

// Puts the route of an open tunnel into the store; or learns that it is another's.
static void settle_held(struct fleet *fleet, const struct fleet_tunnel *tunnel) {
  int32_t settled = store_settle(fleet, tunnel->object, tunnel->node, FLEET_NONE);
  put(fleet, &fleet->gateways[tunnel->gateway], tunnel->object, settled);
  tell_moved(fleet, tunnel->gateway, tunnel->object, settled);
}

// A node that does not answer comes under suspicion; the first time another is looked for at
// once.
static void open_stream(struct fleet *fleet, struct fleet_tunnel *tunnel, const struct node *node) {
  struct fleet_gateway *gateway = &fleet->gateways[tunnel->gateway];
  int32_t number = node_at(node->address);
  tunnel->follow = FLEET_NONE;
  if (!fleet->nodes[number].alive) {
    tunnel->node = FLEET_NONE;
    node_picker_suspect(gateway->picker, node->service, node->color,
                        fleet->nodes[number].node.address, fleet->now_ms + SUSPECT_MS);
    if (++tunnel->failures % TRIES_AT_ONCE != 0) {
      find_route(fleet, tunnel);
    } else {
      try_later(fleet, tunnel);
    }
    return;
  }
  tunnel->node = number;
  tunnel->failures = 0;
  tunnel->check_ms = fleet->now_ms + CHECK_MS;
  fleet->opened++;
  note_home(fleet, tunnel->object, number);
  if (!gateway->linked) {
    // The table alone has it until the store is back.
    put(fleet, gateway, tunnel->object, number);
    tell_moved(fleet, tunnel->gateway, tunnel->object, number);
  }
}

// Where the object was when that was last known.
static const struct node *last_node(struct fleet *fleet, const struct fleet_tunnel *tunnel) {
  struct route route;
  return look_up(fleet, tunnel, &route) == ERROR_EXPIRED ? named_node(fleet, tunnel, route.address)
                                                         : NULL;
}

static void claim(struct fleet *fleet, struct fleet_tunnel *tunnel, const char *dead) {
  struct fleet_gateway *gateway = &fleet->gateways[tunnel->gateway];
  size_t group = fleet->objects[tunnel->object].group;
  const struct node *last = last_node(fleet, tunnel);
  const struct node *node = last;
  if (!gateway->linked) {
    if (!node) {
      fleet->fallbacks++;
      node = node_picker_fallback(gateway->picker, service_of(group), color_of(fleet, group),
                                  oid_of(tunnel->object), fleet->now_ms);
    }
  } else {
    if (!node || node->weight == 0) {
      node = node_picker_pick(gateway->picker, service_of(group), color_of(fleet, group),
                              fleet->now_ms);
    }
    if (node) {
      int32_t settled = store_settle(fleet, tunnel->object, node_at(node->address), node_at(dead));
      const char *address = fleet->nodes[settled].node.address;
      put(fleet, gateway, tunnel->object, settled);
      tell_moved(fleet, tunnel->gateway, tunnel->object, settled);
      node = named_node(fleet, tunnel, address);
      if (!node && !may_come(fleet, tunnel, address) && strcmp(address, dead) != 0) {
        claim(fleet, tunnel, address);
        return;
      }
    }
  }
  if (node) {
    open_stream(fleet, tunnel, node);
  } else {
    try_later(fleet, tunnel);
  }
}

static void find_route(struct fleet *fleet, struct fleet_tunnel *tunnel) {
  struct route route;
  if (look_up(fleet, tunnel, &route) != 0) {
    claim(fleet, tunnel, "");
    return;
  }
  const struct node *node = named_node(fleet, tunnel, route.address);
  if (node) {
    open_stream(fleet, tunnel, node);
  } else if (may_come(fleet, tunnel, route.address)) {
    try_later(fleet, tunnel);
  } else {
    claim(fleet, tunnel, route.address);
  }
}

// From a node that is gone, which the store has named ever since before it was away.
static bool take_back(struct fleet *fleet, struct fleet_tunnel *tunnel) {
  if (fleet->options.fault == FLEET_BELIEVE || !fleet->gateways[tunnel->gateway].linked ||
      !names_nowhere(fleet, tunnel) ||
      !named_node(fleet, tunnel, fleet->nodes[tunnel->node].node.address)) {
    return false;
  }
  int32_t settled = store_settle(fleet, tunnel->object, tunnel->node, tunnel->follow);
  tunnel->follow = FLEET_NONE;
  put(fleet, &fleet->gateways[tunnel->gateway], tunnel->object, settled);
  tell_moved(fleet, tunnel->gateway, tunnel->object, settled);
  return true;
}

// On to where its route has moved, once that can be reached from here.
static void catch_up(struct fleet *fleet, struct fleet_tunnel *tunnel) {
  const struct node *node = named_node(fleet, tunnel, fleet->nodes[tunnel->follow].node.address);
  if (node) {
    open_stream(fleet, tunnel, node);
  } else if (!take_back(fleet, tunnel)) {
    await_move(fleet, tunnel);
  }
}

size_t fleet_add_object(struct fleet *fleet, size_t group) {
  size_t number = fleet->object_count++;
  fleet->objects[number] = (struct fleet_object){.group = group,
                                                 .stored = FLEET_NONE,
                                                 .home = FLEET_NONE,
                                                 .placed = FLEET_NONE,
                                                 .first_tunnel = FLEET_NONE};
  return number;
}

size_t fleet_open(struct fleet *fleet, size_t object, size_t gateway) {
  size_t number = fleet->tunnel_count++;
  fleet->tunnels[number] = (struct fleet_tunnel){.object = (uint32_t)object,
                                                 .gateway = (uint32_t)gateway,
                                                 .node = FLEET_NONE,
                                                 .follow = FLEET_NONE,
                                                 .next = fleet->objects[object].first_tunnel};
  fleet->objects[object].first_tunnel = (int32_t)number;
  find_route(fleet, &fleet->tunnels[number]);
  return number;
}

void fleet_close(struct fleet *fleet, size_t tunnel) {
  struct fleet_tunnel *closed = &fleet->tunnels[tunnel];
  int32_t *link = &fleet->objects[closed->object].first_tunnel;
  while (*link != (int32_t)tunnel) {
    link = &fleet->tunnels[*link].next;
  }
  *link = closed->next;
  closed->closed = true;
  closed->node = FLEET_NONE;
}

void fleet_kill_node(struct fleet *fleet, size_t node) {
  fleet->nodes[node].alive = false;
  for (size_t i = 0; i < fleet->tunnel_count; i++) {
    struct fleet_tunnel *tunnel = &fleet->tunnels[i];
    if (!tunnel->closed && tunnel->node == (int32_t)node) {
      const struct node *gone = &fleet->nodes[node].node;
      node_picker_suspect(fleet->gateways[tunnel->gateway].picker, gone->service, gone->color,
                          gone->address, fleet->now_ms + SUSPECT_MS);
      tunnel->node = FLEET_NONE;
      tunnel->follow = FLEET_NONE;
      find_route(fleet, tunnel);
    }
  }
}

// --- Time ----------------------------------------------------------------------------

// A route has vanished. Where it was is the best guess; whoever has a tunnel puts it back.
static void put_back(struct fleet *fleet, size_t gateway, size_t object) {
  const struct route_key key = key_of(fleet, object);
  (void)route_table_doubt(fleet->gateways[gateway].table, &key);  // there may be none
  for (int32_t i = fleet->objects[object].first_tunnel; i >= 0; i = fleet->tunnels[i].next) {
    const struct fleet_tunnel *tunnel = &fleet->tunnels[i];
    if (tunnel->gateway == gateway && tunnel->node != FLEET_NONE) {
      settle_held(fleet, tunnel);
    }
  }
}

static void let_routes_expire(struct fleet *fleet) {
  for (size_t i = 0; i < fleet->object_count; i++) {
    struct fleet_object *object = &fleet->objects[i];
    if (object->stored != FLEET_NONE && object->expires_ms <= fleet->now_ms) {
      object->stored = FLEET_NONE;
      note_change(fleet, i, FLEET_NONE);
    }
  }
}

// Whether this gateway has heard of every change of the store so far.
static bool hears_routes(struct fleet *fleet, size_t number) {
  struct fleet_gateway *gateway = &fleet->gateways[number];
  while (gateway->linked && gateway->fed < fleet->change_count) {
    const struct fleet_change *change = &fleet->changes[gateway->fed];
    if (change->at_ms + gateway->feed_lag_ms > fleet->now_ms) {
      return false;
    }
    // Told of a change, the master reads the route as it is now.
    int32_t node = fleet->objects[change->object].stored;
    gateway->fed++;
    if (node != FLEET_NONE) {
      put(fleet, gateway, change->object, node);
      tell_moved(fleet, number, change->object, node);
    } else {
      put_back(fleet, number, change->object);
    }
  }
  return true;
}

static void link_lost(struct fleet_gateway *gateway) {
  gateway->linked = false;
  route_table_trust(gateway->table, false);
}

// Nobody knows what was missed: all that is known is a guess, the store is read anew, and the
// routes of all open tunnels are put back.
static void link_again(struct fleet *fleet, size_t number) {
  struct fleet_gateway *gateway = &fleet->gateways[number];
  gateway->linked = true;
  gateway->fed = fleet->change_count;
  route_table_doubt_if(gateway->table, ROUTE_PLAYER, NULL, NULL);
  route_table_doubt_if(gateway->table, ROUTE_OBJECT, NULL, NULL);
  route_table_trust(gateway->table, true);
  for (size_t i = 0; i < fleet->object_count; i++) {
    if (fleet->objects[i].stored != FLEET_NONE) {
      put(fleet, gateway, i, fleet->objects[i].stored);
      tell_moved(fleet, number, i, fleet->objects[i].stored);
    }
  }
  for (size_t i = 0; i < fleet->tunnel_count; i++) {
    struct fleet_tunnel *tunnel = &fleet->tunnels[i];
    if (!tunnel->closed && tunnel->gateway == number && tunnel->node != FLEET_NONE) {
      settle_held(fleet, tunnel);
    }
  }
}

void fleet_store_down(struct fleet *fleet) {
  fleet->store_up = false;
  for (size_t i = 0; i < fleet->options.gateways; i++) {
    link_lost(&fleet->gateways[i]);
  }
}

void fleet_store_up(struct fleet *fleet, bool empty) {
  fleet->store_up = true;
  fleet->store_since_ms = fleet->now_ms;
  for (size_t i = 0; empty && i < fleet->object_count; i++) {
    fleet->objects[i].stored = FLEET_NONE;
  }
}

void fleet_tick(struct fleet *fleet, int64_t ms) {
  fleet->now_ms += ms;
  if (fleet->options.fault == FLEET_DEAF && fleet->view_count > 0) {
    fleet->gateways[0].deaf = true;
  }
  let_routes_expire(fleet);
  for (size_t i = 0; i < fleet->options.gateways; i++) {
    struct fleet_gateway *gateway = &fleet->gateways[i];
    sees_nodes(fleet, gateway);
    if (fleet->store_up && !gateway->linked &&
        fleet->store_since_ms + gateway->feed_lag_ms <= fleet->now_ms) {
      link_again(fleet, i);
    }
    hears_routes(fleet, i);
  }
  for (size_t i = 0; i < fleet->tunnel_count; i++) {
    struct fleet_tunnel *tunnel = &fleet->tunnels[i];
    if (!tunnel->closed && tunnel->node != FLEET_NONE && tunnel->check_ms <= fleet->now_ms &&
        fleet->gateways[tunnel->gateway].linked) {
      tunnel->check_ms = fleet->now_ms + CHECK_MS;
      settle_held(fleet, tunnel);
    }
    if (tunnel->closed || tunnel->due_ms > fleet->now_ms) {
      continue;
    }
    if (tunnel->follow != FLEET_NONE) {
      catch_up(fleet, tunnel);
    } else if (tunnel->node == FLEET_NONE) {
      find_route(fleet, tunnel);
    }
  }
}

bool fleet_is_settled(const struct fleet *fleet) {
  for (size_t i = 0; i < fleet->options.gateways; i++) {
    const struct fleet_gateway *gateway = &fleet->gateways[i];
    if (gateway->view < fleet->view_count || gateway->linked != fleet->store_up ||
        (gateway->linked && gateway->fed < fleet->change_count)) {
      return false;
    }
  }
  for (size_t i = 0; i < fleet->tunnel_count; i++) {
    const struct fleet_tunnel *tunnel = &fleet->tunnels[i];
    bool follows = tunnel->follow != FLEET_NONE &&
                   (fleet->nodes[tunnel->follow].alive || fleet->gateways[tunnel->gateway].linked);
    if (!tunnel->closed && (tunnel->node == FLEET_NONE || follows)) {
      return false;
    }
  }
  return true;
}

int32_t fleet_rendezvous(struct fleet *fleet, size_t gateway, size_t group, int64_t oid) {
  const struct node *node = node_picker_fallback(fleet->gateways[gateway].picker, service_of(group),
                                                 color_of(fleet, group), oid, fleet->now_ms);
  return node ? node_at(node->address) : FLEET_NONE;
}
