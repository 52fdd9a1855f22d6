#include "worker/route_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/redis_routes.h"
#include "worker/inbox.h"
#include "worker/worker.h"

// The master answers within microseconds. When it does not, it is gone or stopped, and
// players should not wait for it. Redis has a time limit of its own (read_timeout).
static const struct timeval answer_timeout = {.tv_sec = 1};

// A worker waits so long for Redis before it takes players; then it does without.
static const struct timeval ready_timeout = {.tv_sec = 1};
static const struct timeval at_once = {0};

LIST_HEAD(claim_list, route_claim);

enum { CLAIM_BUCKETS = 1024 };  // a power of two

struct route_store {
  struct worker *worker;
  struct redis_link *redis;                 // NULL with routes in memory
  void (*on_ready)(struct worker *worker);  // NULL once it was called
  struct event *ready_timer;
  struct redis_link_health told;  // to the master, last
  uint64_t next_id;
  struct claim_list open[CLAIM_BUCKETS];  // by the id's low bits
};

// What Redis was asked; outlives a claim that was withdrawn meanwhile.
struct redis_question {
  struct route_store *store;
  uint64_t id;
};

// --- The link --------------------------------------------------------------------

static void become_ready(struct route_store *store) {
  if (store->on_ready) {
    void (*on_ready)(struct worker * worker) = store->on_ready;
    store->on_ready = NULL;
    evtimer_del(store->ready_timer);
    on_ready(store->worker);
  }
}

void route_store_tick(struct route_store *store) {
  struct redis_link_health health;
  if (!store->redis) {
    return;
  }
  memset(&health, 0, sizeof health);
  redis_link_health(store->redis, &health);
  if (memcmp(&health, &store->told, sizeof health) != 0) {
    store->told = health;
    inbox_tell(store->worker->inbox, CHANNEL_REDIS_HEALTH, &health);
  }
}

void route_store_new_master(struct route_store *store) {
  memset(&store->told, 0, sizeof store->told);
  route_store_tick(store);
}

static void on_master_up(void *owner) {
  struct route_store *store = owner;
  route_store_tick(store);
  become_ready(store);
}

static void on_ready_timer(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  become_ready(owner);
}

static void on_master_down(void *owner) {
  struct route_store *store = owner;
  counters_add(store->worker->counters, COUNTER_REDIS_LOST, 1);
  route_store_tick(store);
}

static void on_masters_changed(void *owner) { (void)owner; }

struct route_store *route_store_new(struct worker *worker, void (*on_ready)(struct worker *worker),
                                    char *why, size_t why_size) {
  static const struct redis_link_events events = {on_master_up, on_master_down, on_masters_changed};
  struct route_store *store = calloc(1, sizeof *store);
  struct event *ready_timer = evtimer_new(worker->base, on_ready_timer, store);
  if (!store || !ready_timer) {
    snprintf(why, why_size, "out of memory");
    if (ready_timer) {
      event_free(ready_timer);
    }
    free(store);
    return NULL;
  }
  store->worker = worker;
  store->on_ready = on_ready;
  store->ready_timer = ready_timer;
  store->next_id = 1;
  evtimer_add(ready_timer, worker->config.routes.store == ROUTES_REDIS ? &ready_timeout : &at_once);
  if (worker->config.routes.store == ROUTES_REDIS &&
      !(store->redis = redis_link_new(worker->base, &worker->config, worker->secrets,
                                      worker->counters, &events, store, why, why_size))) {
    route_store_free(store);
    return NULL;
  }
  return store;
}

void route_store_free(struct route_store *store) {
  if (store) {
    redis_link_free(store->redis);
    event_free(store->ready_timer);
    free(store);
  }
}

// --- Questions -------------------------------------------------------------------

static void settle(struct route_claim *claim, const char *address) {
  route_store_withdraw(claim);
  claim->on_settled(claim, address);
}

static void settle_by_id(struct route_store *store, uint64_t id, const char *address) {
  struct route_claim *claim;
  LIST_FOREACH(claim, &store->open[id % CLAIM_BUCKETS], link) {
    if (claim->id == id) {
      settle(claim, address);
      return;
    }
  }
  // Withdrawn, or answered by the clock, in the meantime.
}

static void on_no_answer(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  settle(owner, "");
}

static void on_redis_settled(const struct redis_routes_settled *settled, void *context) {
  struct redis_question *question = context;
  struct route_store *store = question->store;
  counters_add(store->worker->counters, COUNTER_ROUTES_MALFORMED, settled->repaired);
  counters_add(store->worker->counters, COUNTER_ROUTE_RACES_LOST, settled->lost);
  counters_add(store->worker->counters, COUNTER_ROUTE_CLAIMS_UNANSWERED, settled->error != 0);
  settle_by_id(store, question->id, settled->error == 0 ? settled->address : "");
  free(question);
}

static int ask_redis(struct route_store *store, uint64_t id, const struct tunnel_route *route,
                     const char *candidate, const char *dead) {
  const struct config *config = &store->worker->config;
  const struct route_key key = config_route_key(config, route);
  struct redis_question *question = malloc(sizeof *question);
  if (!question) {
    return ERROR_MEMORY;
  }
  *question = (struct redis_question){.store = store, .id = id};
  int error = redis_routes_settle(store->redis, &key, candidate,
                                  config->data.app_route_table_alive_duration_ms, dead,
                                  on_redis_settled, question);
  if (error != 0) {
    counters_add(store->worker->counters, COUNTER_ROUTE_CLAIMS_UNANSWERED, 1);
    free(question);
  }
  return error;
}

static int ask_master(struct route_store *store, uint64_t id, const struct tunnel_route *route,
                      const char *candidate, const char *dead) {
  struct channel_route_claim question = {.id = id, .oid = route->oid, .tunnel_type = route->type};
  strncpy(question.color, route->color, sizeof question.color - 1);
  strncpy(question.candidate, candidate, sizeof question.candidate - 1);
  strncpy(question.dead, dead, sizeof question.dead - 1);
  return inbox_tell(store->worker->inbox, CHANNEL_ROUTE_CLAIM, &question);
}

bool route_store_knows_better(const struct route_store *store) {
  return store->redis && redis_link_is_up(store->redis) && !inbox_has_master(store->worker->inbox);
}

void route_store_claim(struct route_store *store, struct route_claim *claim,
                       const struct tunnel_route *route, const char *candidate, const char *dead) {
  claim->store = store;
  claim->id = store->next_id++;
  LIST_INSERT_HEAD(&store->open[claim->id % CLAIM_BUCKETS], claim, link);
  evtimer_assign(&claim->timer, store->worker->base, on_no_answer, claim);
  int error = store->redis ? ask_redis(store, claim->id, route, candidate, dead)
                           : ask_master(store, claim->id, route, candidate, dead);
  if (error == 0 && !store->redis) {
    evtimer_add(&claim->timer, &answer_timeout);
  } else if (error != 0) {
    event_active(&claim->timer, EV_TIMEOUT, 0);
  }
}

void route_store_withdraw(struct route_claim *claim) {
  if (claim->id != 0) {
    LIST_REMOVE(claim, link);
    event_del(&claim->timer);
    claim->id = 0;
  }
}

void route_store_on_answer(struct route_store *store, const struct channel_route_answer *answer) {
  settle_by_id(store, answer->id, answer->address);
}

// --- What tunnels hold -----------------------------------------------------------

void route_store_hold(struct route_store *store, const struct tunnel_route *route,
                      const char *address, bool follows) {
  struct channel_route_held held = {
      .oid = route->oid, .tunnel_type = route->type, .follows = follows};
  strncpy(held.color, route->color, sizeof held.color - 1);
  strncpy(held.address, address, sizeof held.address - 1);
  inbox_tell(store->worker->inbox, CHANNEL_ROUTE_HELD, &held);
}

void route_store_release(struct route_store *store, const struct tunnel_route *route) {
  struct channel_route_released released = {.oid = route->oid, .tunnel_type = route->type};
  strncpy(released.color, route->color, sizeof released.color - 1);
  inbox_tell(store->worker->inbox, CHANNEL_ROUTE_RELEASED, &released);
}
