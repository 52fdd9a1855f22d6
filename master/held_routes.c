#include "master/held_routes.h"

#include <stdlib.h>
#include <string.h>

TAILQ_HEAD(route_queue, held_route);

struct held_routes {
  struct held_route *routes;
  struct route_queue checks;
  struct route_queue queues[HELD_LATER + 1];  // of HELD_SETTLED there is none
};

struct held_routes *held_routes_new(void) {
  struct held_routes *held = calloc(1, sizeof *held);
  if (held) {
    TAILQ_INIT(&held->checks);
    TAILQ_INIT(&held->queues[HELD_URGENT]);
    TAILQ_INIT(&held->queues[HELD_SOON]);
    TAILQ_INIT(&held->queues[HELD_LATER]);
  }
  return held;
}

void held_routes_enqueue(struct held_routes *held, struct held_route *route,
                         enum held_route_queue queue) {
  if (route->queue != HELD_SETTLED) {
    TAILQ_REMOVE(&held->queues[route->queue], route, queued);
  }
  route->queue = queue;
  if (queue != HELD_SETTLED) {
    TAILQ_INSERT_TAIL(&held->queues[queue], route, queued);
  }
}

static void drop(struct held_routes *held, struct held_route *route) {
  held_routes_enqueue(held, route, HELD_SETTLED);
  TAILQ_REMOVE(&held->checks, route, checks);
  // NOLINTNEXTLINE(clang-analyzer-*): uthash, whose table has this one in it
  HASH_DELETE(hh, held->routes, route);
  free(route->address);
  free(route->holders);
  free(route);
}

void held_routes_free(struct held_routes *held) {
  struct held_route *route;
  struct held_route *next;
  if (!held) {
    return;
  }
  HASH_ITER(hh, held->routes, route, next) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the table
    drop(held, route);
  }
  free(held);
}

static size_t key_size(size_t color_len) {
  return offsetof(struct held_route_key, color) + color_len;
}

// The key's padding-free bytes in key, which has room for them and a NUL.
static void make_key(struct held_route_key *key, const struct tunnel_route *name) {
  key->oid = name->oid;
  key->tunnel_type = name->type;
  memcpy(key->color, name->color, strlen(name->color) + 1);
}

struct held_route *held_routes_find(const struct held_routes *held,
                                    const struct tunnel_route *name) {
  _Alignas(8) char room[128] = {0};
  struct held_route_key *key = (struct held_route_key *)(void *)room;
  struct held_route *route = NULL;
  size_t color_len = strlen(name->color);
  if (key_size(color_len) < sizeof room) {
    make_key(key, name);
    // NOLINTNEXTLINE(clang-analyzer-core.*): the key's bytes are all set
    HASH_FIND(hh, held->routes, key, key_size(color_len), route);
  }
  return route;
}

static struct held_route *add(struct held_routes *held, const struct tunnel_route *name,
                              int64_t check_at_ms) {
  size_t color_len = strlen(name->color);
  struct held_route *route = calloc(1, sizeof *route + key_size(color_len) + 1);
  if (!route) {
    return NULL;
  }
  route->key = (struct held_route_key *)(void *)(route + 1);
  make_key(route->key, name);
  route->color = route->key->color;
  route->check_at_ms = check_at_ms;
  TAILQ_INSERT_TAIL(&held->checks, route, checks);
  HASH_ADD_KEYPTR(hh, held->routes, route->key, key_size(color_len), route);
  return route;
}

static struct held_route_holder *find_holder(const struct held_route *route, int worker) {
  for (size_t i = 0; i < route->holder_count; i++) {
    if (route->holders[i].worker == worker) {
      return &route->holders[i];
    }
  }
  return NULL;
}

// One tunnel more of that worker. False: out of memory.
static bool count_holder(struct held_route *route, int worker) {
  struct held_route_holder *holder = find_holder(route, worker);
  if (!holder) {
    size_t size = (route->holder_count + 1) * sizeof *holder;
    struct held_route_holder *larger = realloc(route->holders, size);
    if (!larger) {
      return false;
    }
    route->holders = larger;
    holder = &larger[route->holder_count++];
    *holder = (struct held_route_holder){.worker = worker};
  }
  holder->tunnels++;
  route->total++;
  return true;
}

// tunnels less of this holder; the route may be gone afterwards.
static void discount(struct held_routes *held, struct held_route *route,
                     struct held_route_holder *holder, uint32_t tunnels) {
  holder->tunnels -= tunnels;
  route->total -= tunnels;
  if (holder->tunnels == 0) {
    *holder = route->holders[--route->holder_count];
  }
  if (route->total == 0) {
    drop(held, route);
  }
}

struct held_route *held_routes_hold(struct held_routes *held, int worker,
                                    const struct tunnel_route *name, const char *address,
                                    int64_t check_at_ms) {
  struct held_route *route = held_routes_find(held, name);
  bool new = !route;
  if (new && !(route = add(held, name, check_at_ms))) {
    return NULL;
  }
  if (!route->address || strcmp(route->address, address) != 0) {
    char *copy = strdup(address);
    if (!copy && new) {
      drop(held, route);
      return NULL;
    }
    if (copy) {
      free(route->address);
      route->address = copy;
    }
  }
  if (!count_holder(route, worker)) {
    if (new) {
      drop(held, route);
    }
    return NULL;
  }
  return route;
}

void held_routes_release(struct held_routes *held, int worker, const struct tunnel_route *name) {
  struct held_route *route = held_routes_find(held, name);
  struct held_route_holder *holder = route ? find_holder(route, worker) : NULL;
  if (holder) {
    discount(held, route, holder, 1);
  }
}

void held_routes_drop_worker(struct held_routes *held, int worker) {
  struct held_route *route;
  struct held_route *next;
  HASH_ITER(hh, held->routes, route, next) {
    struct held_route_holder *holder = find_holder(route, worker);
    if (holder) {
      discount(held, route, holder, holder->tunnels);
    }
  }
}

size_t held_routes_count(const struct held_routes *held) { return HASH_COUNT(held->routes); }

struct held_route *held_routes_first_check(const struct held_routes *held) {
  return TAILQ_FIRST(&held->checks);
}

void held_routes_checked(struct held_routes *held, struct held_route *route, int64_t check_at_ms) {
  TAILQ_REMOVE(&held->checks, route, checks);
  route->check_at_ms = check_at_ms;
  TAILQ_INSERT_TAIL(&held->checks, route, checks);
}

void held_routes_enqueue_all(struct held_routes *held, enum held_route_queue queue) {
  struct held_route *route;
  TAILQ_FOREACH(route, &held->checks, checks) { held_routes_enqueue(held, route, queue); }
}

struct held_route *held_routes_first(const struct held_routes *held, enum held_route_queue queue) {
  return TAILQ_FIRST(&held->queues[queue]);
}

void held_routes_each(const struct held_routes *held,
                      void (*visit)(const struct held_route *route, void *context), void *context) {
  const struct held_route *route;
  TAILQ_FOREACH(route, &held->checks, checks) { visit(route, context); }
}
