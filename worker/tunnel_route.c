#include "worker/tunnel_route.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/backoff.h"
#include "common/clock.h"
#include "common/loop.h"
#include "worker/inbox.h"

// The route names another node than the tunnel goes to, where it can't go yet.
struct tunnel_move {
  struct tunnel *tunnel;
  struct event timer;        // when to try again to go there
  struct route_claim claim;  // for the route to be as it was
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];
};

// --- What can be gone to ---------------------------------------------------------

static struct node_picker *fresh_picker(struct worker *worker) {
  node_picker_refresh(worker->node_picker, worker->nodes);
  return worker->node_picker;
}

// The node at address, if the registry has it and it is not under suspicion.
static const struct node *usable_node(struct tunnel *tunnel, const char *address) {
  return node_picker_find(fresh_picker(tunnel->worker), tunnel_type(tunnel)->service,
                          tunnel_color(tunnel), address, clock_monotonic_ms());
}

// Whether to wait for a node that a route names and the registry does not have.
static bool may_come(struct tunnel *tunnel, const char *address) {
  return node_picker_may_come(
      tunnel->worker->node_picker, tunnel_type(tunnel)->service, tunnel_color(tunnel), address,
      tunnel->worker->config.tunnel.unknown_node_grace_ms, clock_monotonic_ms());
}

static bool sees_registry(const struct worker *worker) {
  return node_table_is_current(worker->nodes) && inbox_has_master(worker->inbox);
}

// The node that a route names. While the registry can't be seen, one that it has not told
// of may have come meanwhile: it is tried, for its players are there.
static const struct node *named_node(struct tunnel *tunnel, const char *address) {
  struct worker *worker = tunnel->worker;
  const struct node *node = usable_node(tunnel, address);
  if (!node && !sees_registry(worker)) {
    node = node_picker_unseen(worker->node_picker, tunnel_type(tunnel)->service,
                              tunnel_color(tunnel), address, clock_monotonic_ms());
  }
  return node;
}

static struct tunnel_route route_of(const struct tunnel *tunnel) {
  return (struct tunnel_route){
      .type = (uint32_t)tunnel->type, .color = tunnel_color(tunnel), .oid = tunnel->oid};
}

static int look_up(struct tunnel *tunnel, struct route *route) {
  struct worker *worker = tunnel->worker;
  const struct tunnel_route name = route_of(tunnel);
  const struct route_key key = config_route_key(&worker->config, &name);
  int error = route_table_lookup(worker->routes, &key, clock_wall_ms(), route);
  return error == 0 && route_store_knows_better(worker->route_store) ? ERROR_EXPIRED : error;
}

// Where the object was when that was last known. Others may be there still, and all
// gateways remember the same.
static const struct node *last_node(struct tunnel *tunnel) {
  struct route route;
  return look_up(tunnel, &route) == ERROR_EXPIRED ? named_node(tunnel, route.address) : NULL;
}

// --- What is held ------------------------------------------------------------------

static struct tunnel_list *held_bucket(struct worker *worker, const struct tunnel_route *route) {
  uint64_t hash = ((uint64_t)route->oid * CONFIG_TUNNEL_TYPES + route->type) * 0x9e3779b97f4a7c15;
  return &worker->held_tunnels[(hash >> 32) % TUNNEL_HELD_BUCKETS];
}

void tunnel_hold_route(struct tunnel *tunnel, bool follows) {
  struct worker *worker = tunnel->worker;
  const struct tunnel_route route = route_of(tunnel);
  route_store_hold(worker->route_store, &route, tunnel->address, follows);
  LIST_INSERT_HEAD(held_bucket(worker, &route), tunnel, held);
  tunnel->holds = true;
}

void tunnel_tell_held(struct worker *worker) {
  for (size_t i = 0; i < TUNNEL_HELD_BUCKETS; i++) {
    const struct tunnel *tunnel;
    LIST_FOREACH(tunnel, &worker->held_tunnels[i], held) {
      const struct tunnel_route route = route_of(tunnel);
      route_store_hold(worker->route_store, &route, tunnel->address, false);
    }
  }
}

static void forget_move(struct tunnel *tunnel) {
  struct tunnel_move *move = tunnel->move;
  if (move) {
    event_del(&move->timer);
    route_store_withdraw(&move->claim);
    free(move);
    tunnel->move = NULL;
  }
}

void tunnel_release_route(struct tunnel *tunnel) {
  if (tunnel->holds) {
    const struct tunnel_route route = route_of(tunnel);
    route_store_release(tunnel->worker->route_store, &route);
    LIST_REMOVE(tunnel, held);
    tunnel->holds = false;
  }
  forget_move(tunnel);
  route_store_withdraw(&tunnel->claim);
}

// --- Finding the node ------------------------------------------------------------

// A further try after a while, or the end of the player's sessions when tries have come to
// nothing for too long.
static void try_later(struct tunnel *tunnel) {
  const struct config *config = &tunnel->worker->config;
  int64_t now_ms = clock_monotonic_ms();
  if (tunnel->broken_ms == 0) {
    tunnel->broken_ms = now_ms;
  }
  if (now_ms - tunnel->broken_ms >= config->tunnel.reopen_timeout_ms) {
    tunnel_close_player(tunnel, CLOSE_TUNNEL_LOST);
    return;
  }
  int64_t wait_ms =
      backoff_ms(config->tunnel.backoff_ms, config->tunnel.backoff_max_ms, tunnel->failures);
  tunnel->failures++;
  tunnel->state = TUNNEL_WAITING;
  loop_start_timer(&tunnel->timer, wait_ms);
}

// Asks the store, with a node of our choice; dead is what the route names now and
// must not, or "".
static void claim(struct tunnel *tunnel, const char *dead) {
  struct worker *worker = tunnel->worker;
  const struct node *candidate = last_node(tunnel);
  // One that takes nobody new is not proposed: if others are there still, the store has it.
  if (!candidate || candidate->weight == 0) {
    candidate = node_picker_pick(fresh_picker(worker), tunnel_type(tunnel)->service,
                                 tunnel_color(tunnel), clock_monotonic_ms());
  }
  if (!candidate) {
    try_later(tunnel);
    return;
  }
  tunnel->state = TUNNEL_ROUTING;
  if (dead[0] != '\0') {
    counters_add(worker->counters, COUNTER_ROUTE_REPLACED, 1);
  }
  const struct tunnel_route route = route_of(tunnel);
  route_store_claim(worker->route_store, &tunnel->claim, &route, candidate->address, dead);
}

// Nobody can settle it: it is where it was, or else where every gateway computes that it
// is.
static const struct node *fallback_node(struct tunnel *tunnel) {
  const struct node *node = last_node(tunnel);
  return node ? node
              : node_picker_fallback(fresh_picker(tunnel->worker), tunnel_type(tunnel)->service,
                                     tunnel_color(tunnel), tunnel->oid, clock_monotonic_ms());
}

// The store's answer holds, whoever's choice it is.
static void on_node_settled(struct route_claim *route_claim, const char *address) {
  struct tunnel *tunnel = (struct tunnel *)((char *)route_claim - offsetof(struct tunnel, claim));
  const struct node *node;
  if (address[0] == '\0') {
    counters_add(tunnel->worker->counters, COUNTER_ROUTE_FALLBACKS, 1);
    node = fallback_node(tunnel);
  } else {
    node = named_node(tunnel, address);
  }
  if (node) {
    tunnel_open_stream(tunnel, node, false);
  } else if (address[0] != '\0' && !may_come(tunnel, address)) {
    claim(tunnel, address);
  } else {
    try_later(tunnel);
  }
}

void tunnel_find_route(struct tunnel *tunnel) {
  struct worker *worker = tunnel->worker;
  struct route route;
  if (tunnel->sought_us == 0) {
    tunnel->sought_us = clock_monotonic_us();
  }
  int error = look_up(tunnel, &route);
  if (error != 0) {
    counters_add(worker->counters, error == ERROR_BUSY ? COUNTER_ROUTE_TORN : COUNTER_ROUTE_MISSES,
                 1);
    claim(tunnel, "");
    return;
  }
  counters_add(worker->counters, COUNTER_ROUTE_HITS, 1);
  const struct node *node = named_node(tunnel, route.address);
  if (node) {
    tunnel_open_stream(tunnel, node, false);
  } else if (may_come(tunnel, route.address)) {
    try_later(tunnel);
  } else {
    claim(tunnel, route.address);
  }
}

void tunnel_find_route_again(struct tunnel *tunnel) {
  if (tunnel->failures > 0) {
    try_later(tunnel);
    return;
  }
  tunnel->failures = 1;
  if (tunnel->broken_ms == 0) {
    tunnel->broken_ms = clock_monotonic_ms();
  }
  tunnel_find_route(tunnel);
}

void tunnel_init_route(struct tunnel *tunnel) { tunnel->claim.on_settled = on_node_settled; }

// --- A route that moves ------------------------------------------------------------

// Goes to the node at address, if it can be: the backend ends what has no route. False: not
// now. Otherwise the session may have been closed, and tunnels with it.
static bool follow(struct tunnel *tunnel, const char *address) {
  const struct node *node = named_node(tunnel, address);
  if (!node) {
    return false;
  }
  counters_add(tunnel->worker->counters, COUNTER_ROUTES_MOVED, 1);
  tunnel_leave_stream(tunnel);
  tunnel_open_stream(tunnel, node, true);
  return true;
}

// Whether the registry is sure that there is no such node as the route names.
static bool names_nowhere(struct tunnel *tunnel) {
  struct worker *worker = tunnel->worker;
  return sees_registry(worker) &&
         node_picker_is_gone(fresh_picker(worker), tunnel_type(tunnel)->service,
                             tunnel_color(tunnel), tunnel->move->address,
                             worker->config.tunnel.unknown_node_grace_ms, clock_monotonic_ms());
}

// By then the node is not under suspicion any more, or else for something new; and of one that
// is gone, another gateway has said where the object is, or the registry that it is back.
static void await_move(struct tunnel *tunnel) {
  enum { AGAIN_MIN_MS = 1000 };
  struct tunnel_move *move = tunnel->move;
  int64_t suspect_ms = tunnel->worker->config.tunnel.suspect_ms;
  bool soon = suspect_ms < AGAIN_MIN_MS || may_come(tunnel, move->address) || names_nowhere(tunnel);
  loop_start_timer(&move->timer, soon ? AGAIN_MIN_MS : suspect_ms);
}

static bool goes_by(const struct tunnel *tunnel, const struct tunnel_route *route) {
  return tunnel->type == (int)route->type && tunnel->oid == route->oid &&
         strcmp(tunnel_color(tunnel), route->color) == 0;
}

static bool is_being_taken_back(const struct tunnel *tunnel) {
  const struct tunnel_route route = route_of(tunnel);
  const struct tunnel *other;
  LIST_FOREACH(other, held_bucket(tunnel->worker, &route), held) {
    if (other->move && other->move->claim.id != 0 && goes_by(other, &route)) {
      return true;
    }
  }
  return false;
}

// A Redis that comes back after an outage with what it had before may name a node that has died
// meanwhile. Nobody can go there, and without Redis gateways may have gone to different
// ones: of those whose tunnels are open, the first to say so has the route, and the others
// follow. False: not now.
static bool take_back(struct tunnel *tunnel) {
  if (tunnel->state != TUNNEL_OPEN || !names_nowhere(tunnel) ||
      !usable_node(tunnel, tunnel->address) || is_being_taken_back(tunnel)) {
    return false;
  }
  counters_add(tunnel->worker->counters, COUNTER_ROUTE_REPLACED, 1);
  const struct tunnel_route route = route_of(tunnel);
  route_store_claim(tunnel->worker->route_store, &tunnel->move->claim, &route, tunnel->address,
                    tunnel->move->address);
  return true;
}

// The store's answer is for all of the object's tunnels here. The tunnel may be gone after this.
static void on_taken_back(struct route_claim *route_claim, const char *address) {
  const struct tunnel_move *move =
      (struct tunnel_move *)((char *)route_claim - offsetof(struct tunnel_move, claim));
  struct tunnel *tunnel = move->tunnel;
  if (address[0] == '\0') {
    await_move(tunnel);
    return;
  }
  struct channel_route_held moved = {.oid = tunnel->oid, .tunnel_type = (uint32_t)tunnel->type};
  snprintf(moved.color, sizeof moved.color, "%s", tunnel_color(tunnel));
  snprintf(moved.address, sizeof moved.address, "%s", address);
  forget_move(tunnel);
  tunnel_on_route_moved(tunnel->worker, &moved);
}

static void catch_up(evutil_socket_t fd, short what, void *owner) {
  const struct tunnel_move *move = owner;
  struct tunnel *tunnel = move->tunnel;
  (void)fd;
  (void)what;
  if (!follow(tunnel, move->address) && !take_back(tunnel)) {
    await_move(tunnel);
  }
}

// The master may not say it again, and a node that is under suspicion here, or not known yet,
// may well serve the others.
static void remember_move(struct tunnel *tunnel, const char *address) {
  if (tunnel->move && strcmp(tunnel->move->address, address) == 0) {
    return;
  }
  forget_move(tunnel);
  struct tunnel_move *move = calloc(1, sizeof *move);
  if (move) {
    move->tunnel = tunnel;
    move->claim.on_settled = on_taken_back;
    evtimer_assign(&move->timer, tunnel->worker->base, catch_up, move);
    snprintf(move->address, sizeof move->address, "%s", address);
    tunnel->move = move;
    await_move(tunnel);
  }
}

// The player may have been closed after this (follow).
static void keep_up(struct tunnel *tunnel, const char *address) {
  if (strcmp(tunnel->address, address) == 0) {
    forget_move(tunnel);
  } else if (!follow(tunnel, address)) {
    remember_move(tunnel, address);
  }
}

void tunnel_on_route_moved(struct worker *worker, const struct channel_route_held *moved) {
  if (moved->tunnel_type >= worker->config.tunnel.type_count) {
    return;
  }
  const struct tunnel_route route = {
      .type = moved->tunnel_type, .color = moved->color, .oid = moved->oid};
  struct tunnel_list *bucket = held_bucket(worker, &route);
  struct tunnel *tunnel = LIST_FIRST(bucket);
  while (tunnel) {
    struct tunnel *next = LIST_NEXT(tunnel, held);
    if (goes_by(tunnel, &route)) {
      const struct player *player = tunnel->player;
      keep_up(tunnel, moved->address);
      if (player_is_over(player)) {  // and the next one may have been his
        next = LIST_FIRST(bucket);
      }
    }
    tunnel = next;
  }
}
