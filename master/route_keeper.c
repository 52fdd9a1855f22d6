#include "master/route_keeper.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "master/gateway_route.h"

enum {
  WINDOW = 256,  // commands under way
};

// A gateway route to be written. It stays in the queue until Redis has taken it. When it
// is sent again, late, the directory decides: nothing is set for a player who has left, and
// nothing removed of one who is back.
struct gateway_write {
  TAILQ_ENTRY(gateway_write) link;
  struct route_keeper *keeper;
  int64_t uid;
  uint64_t connection;  // of the session that it is for
  int64_t since_ms;     // of that, wall clock
  int64_t late_ms;      // monotonic: written after that, it is late,
  bool late;            // as it is when it could not be written at once
  bool remove;
  bool sent;
  char color[];
};

TAILQ_HEAD(write_queue, gateway_write);

// A renewal under way; afterwards, one that failed and waits to be tried again.
struct renewal {
  SLIST_ENTRY(renewal) link;
  struct route_keeper *keeper;
  int64_t uid;
  char color[];
};

SLIST_HEAD(renewals, renewal);

struct route_keeper {
  struct route_keeper_options options;
  struct renewals failed_renewals;
  size_t under_way;
  struct write_queue writes;
  struct gateway_write *next_write;  // the first not sent; NULL: all are
  size_t write_count;
  size_t writes_under_way;
  bool writes_left;  // some before next_write were not taken, and are to be sent again
  bool working;
};

struct route_keeper *route_keeper_new(const struct route_keeper_options *options) {
  struct route_keeper *keeper = calloc(1, sizeof *keeper);
  if (keeper) {
    keeper->options = *options;
    TAILQ_INIT(&keeper->writes);
    SLIST_INIT(&keeper->failed_renewals);
  }
  return keeper;
}

static void drop_write(struct route_keeper *keeper, struct gateway_write *write) {
  if (keeper->next_write == write) {
    keeper->next_write = TAILQ_NEXT(write, link);
  }
  TAILQ_REMOVE(&keeper->writes, write, link);
  keeper->write_count--;
  free(write);
}

// Those that Redis refused, or did not answer, are due again.
static void retry_renewals(struct route_keeper *keeper) {
  struct renewal *renewal;
  while ((renewal = SLIST_FIRST(&keeper->failed_renewals))) {
    SLIST_REMOVE_HEAD(&keeper->failed_renewals, link);
    directory_renew_player(keeper->options.directory, renewal->uid, renewal->color);
    free(renewal);
  }
}

void route_keeper_free(struct route_keeper *keeper) {
  if (!keeper) {
    return;
  }
  while (!TAILQ_EMPTY(&keeper->writes)) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the queue
    drop_write(keeper, TAILQ_FIRST(&keeper->writes));
  }
  retry_renewals(keeper);
  free(keeper);
}

// --- Routes of open tunnels ----------------------------------------------------------

// What was asked; the route may be gone when the answer comes.
struct held_question {
  struct route_keeper *keeper;
  int64_t oid;
  uint32_t tunnel_type;
  char color[ROUTE_COLOR_MAX_BYTES + 1];
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];
};

static void on_held_settled(const struct redis_routes_settled *settled, void *context) {
  struct held_question *question = context;
  struct route_keeper *keeper = question->keeper;
  struct held_routes *held = keeper->options.held;
  struct counters *counters = keeper->options.counters;
  const struct tunnel_route name = {
      .type = question->tunnel_type, .color = question->color, .oid = question->oid};
  struct held_route *route = held_routes_find(held, &name);
  if (route && strcmp(route->address, question->address) != 0) {
    route = NULL;  // the answer is about a tunnel that is no more
  }
  free(question);
  keeper->under_way--;
  counters_add(counters, COUNTER_ROUTES_MALFORMED, settled->repaired);
  counters_add(counters, COUNTER_ROUTES_RESTORED, settled->restored);
  if (route && settled->error != 0) {
    held_routes_enqueue(held, route, HELD_LATER);
  } else if (route) {
    keeper->options.on_settled(route, settled->address, settled->ttl_ms, keeper->options.owner);
  }
  route_keeper_work(keeper);
}

static void send_held(struct route_keeper *keeper, struct held_route *route) {
  const struct config *config = keeper->options.config;
  const struct tunnel_route name = held_route_name(route);
  const struct route_key key = config_route_key(config, &name);
  struct held_question *question = malloc(sizeof *question);
  if (question) {
    *question = (struct held_question){
        .keeper = keeper, .oid = route->key->oid, .tunnel_type = route->key->tunnel_type};
    strncpy(question->color, route->color, sizeof question->color - 1);
    strncpy(question->address, route->address, sizeof question->address - 1);
  }
  if (question && redis_routes_settle(keeper->options.link, &key, route->address,
                                      config->data.app_route_table_alive_duration_ms, "",
                                      on_held_settled, question) == 0) {
    keeper->under_way++;
    held_routes_enqueue(keeper->options.held, route, HELD_SETTLED);
  } else {
    free(question);
    held_routes_enqueue(keeper->options.held, route, HELD_LATER);
  }
}

void route_keeper_settle(struct route_keeper *keeper, struct held_route *route) {
  held_routes_enqueue(keeper->options.held, route, HELD_URGENT);
  route_keeper_work(keeper);
}

void route_keeper_settle_soon(struct route_keeper *keeper, struct held_route *route) {
  if (route->queue == HELD_SETTLED) {
    held_routes_enqueue(keeper->options.held, route, HELD_SOON);
  }
}

void route_keeper_settle_all(struct route_keeper *keeper) {
  held_routes_enqueue_all(keeper->options.held, HELD_URGENT);
  directory_renew_all(keeper->options.directory);
  route_keeper_retry(keeper);
}

// --- Players that come and go ----------------------------------------------------------

// What the player's route was before, if it named another gateway.
static void look_at_old(struct route_keeper *keeper, const struct gateway_write *write,
                        const redisReply *old) {
  const struct route_keeper_options *options = &keeper->options;
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];
  struct directory_session *session = directory_find(options->directory, write->connection);
  if (session) {
    session->route_written = true;
  }
  if (old->type == REDIS_REPLY_STRING && redis_routes_parse_value(old, address) == 0 &&
      strcmp(address, options->config->server.grpc.advertise) != 0) {
    const struct route_taken_over taken_over = {
        .uid = write->uid,
        .color = write->color,
        .from = address,
        .since_ms = write->since_ms,
        .late = write->late || clock_monotonic_ms() > write->late_ms};
    options->on_taken_over(&taken_over, options->owner);
  }
}

static void on_written(const redisReply *reply, void *context) {
  struct gateway_write *write = context;
  struct route_keeper *keeper = write->keeper;
  keeper->under_way--;
  keeper->writes_under_way--;
  if (reply && reply->type != REDIS_REPLY_ERROR) {
    if (!write->remove) {
      look_at_old(keeper, write, reply);
    }
    drop_write(keeper, write);
  } else {
    write->sent = false;
    write->late = true;
    keeper->writes_left = true;
  }
  route_keeper_work(keeper);
}

static void send_write(struct route_keeper *keeper, struct gateway_write *write) {
  const struct config *config = keeper->options.config;
  const struct route_key key = gateway_route_key(config, write->uid, write->color);
  const struct route_keeper_options *options = &keeper->options;
  bool is_here = directory_has_player(options->directory, write->uid, write->color);
  int error;
  if (write->remove) {
    is_here = is_here || options->is_expected(write->uid, write->color, options->owner);
  }
  if (write->remove == is_here) {
    drop_write(keeper, write);  // back again, or gone again
    return;
  }
  if (write->remove) {
    error = redis_routes_remove(keeper->options.link, &key, config->server.grpc.advertise,
                                on_written, write);
  } else {
    error = redis_routes_set(keeper->options.link, &key, config->server.grpc.advertise,
                             config->data.gateway_route_table_alive_duration_ms, on_written, write);
  }
  keeper->next_write = TAILQ_NEXT(write, link);
  if (error != 0) {
    write->late = true;
    keeper->writes_left = true;  // the master for its key is away; others need not be
    return;
  }
  write->sent = true;
  keeper->under_way++;
  keeper->writes_under_way++;
}

static struct gateway_write *new_write(struct route_keeper *keeper, int64_t uid,
                                       const char *color) {
  struct gateway_write *write = malloc(sizeof *write + strlen(color) + 1);
  if (write) {
    *write = (struct gateway_write){.keeper = keeper, .uid = uid};
    strcpy(write->color, color);
  }
  return write;
}

static bool is_full(const struct route_keeper *keeper) {
  return keeper->write_count >= (size_t)keeper->options.config->data.redis.queued_writes;
}

// For want of room; it is made up for when there is some.
static void note_dropped(struct route_keeper *keeper, const struct gateway_write *write) {
  struct directory *directory = keeper->options.directory;
  struct directory_session *session = directory_find(directory, write->connection);
  counters_add(keeper->options.counters, COUNTER_ROUTE_WRITES_DROPPED, 1);
  if (session && !write->remove) {
    directory_put_off(directory, session);
  }
}

// One that is not under way: those that could not be sent come first.
static struct gateway_write *oldest_waiting(const struct route_keeper *keeper) {
  struct gateway_write *write;
  TAILQ_FOREACH(write, &keeper->writes, link) {
    if (!write->sent) {
      return write;
    }
  }
  return NULL;
}

// Takes over write, NULL for one that there is no memory for.
static void add_write(struct route_keeper *keeper, struct gateway_write *write) {
  struct gateway_write *oldest = is_full(keeper) ? oldest_waiting(keeper) : NULL;
  if (!write) {
    counters_add(keeper->options.counters, COUNTER_ROUTE_WRITES_DROPPED, 1);
    return;
  }
  if (oldest) {
    note_dropped(keeper, oldest);
    drop_write(keeper, oldest);
  }
  if (is_full(keeper)) {
    note_dropped(keeper, write);
    free(write);
    return;
  }
  TAILQ_INSERT_TAIL(&keeper->writes, write, link);
  keeper->write_count++;
  if (!keeper->next_write) {
    keeper->next_write = write;
  }
  route_keeper_work(keeper);
}

void route_keeper_player_came(struct route_keeper *keeper, const struct directory_session *session,
                              bool contested) {
  struct gateway_write *write = new_write(keeper, session->session.uid, session->session.color);
  if (write) {
    write->connection = session->session.connection;
    write->since_ms = session->session.since_ms;
    write->late_ms = clock_monotonic_ms() + ROUTE_LATE_MS;
    write->late = contested || !redis_link_is_up(keeper->options.link);
  }
  add_write(keeper, write);
}

void route_keeper_player_left(struct route_keeper *keeper, int64_t uid, const char *color) {
  struct gateway_write *write = new_write(keeper, uid, color);
  if (write) {
    write->remove = true;
  }
  add_write(keeper, write);
}

size_t route_keeper_queued(const struct route_keeper *keeper) { return keeper->write_count; }

// --- Renewing them -----------------------------------------------------------------------

static void on_gateway_settled(const struct redis_routes_settled *settled, void *context) {
  struct renewal *renewal = context;
  struct route_keeper *keeper = renewal->keeper;
  struct counters *counters = keeper->options.counters;
  keeper->under_way--;
  counters_add(counters, COUNTER_ROUTES_MALFORMED, settled->repaired);
  counters_add(counters, COUNTER_ROUTES_RESTORED, settled->restored);
  if (settled->error != 0) {
    SLIST_INSERT_HEAD(&keeper->failed_renewals, renewal, link);
  } else {
    if (settled->lost) {  // another gateway's route is left alone
      keeper->options.on_lost(renewal->uid, renewal->color, keeper->options.owner);
    }
    free(renewal);
  }
  route_keeper_work(keeper);
}

// What can't be sent is due again when Redis is back (route_keeper_settle_all).
static void renew_gateway(struct route_keeper *keeper, struct directory_session *session) {
  const struct config *config = keeper->options.config;
  const char *color = session->session.color;
  const struct route_key key = gateway_route_key(config, session->session.uid, color);
  gateway_route_renewed(config, keeper->options.directory, session);
  struct renewal *renewal = malloc(sizeof *renewal + strlen(color) + 1);
  if (renewal) {
    *renewal = (struct renewal){.keeper = keeper, .uid = session->session.uid};
    strcpy(renewal->color, color);
  }
  if (renewal && redis_routes_settle(keeper->options.link, &key, config->server.grpc.advertise,
                                     config->data.gateway_route_table_alive_duration_ms, "",
                                     on_gateway_settled, renewal) == 0) {
    keeper->under_way++;
  } else {
    free(renewal);
  }
}

// Its write was dropped, and what stands there may be of an older session at another gateway.
static void write_late(struct route_keeper *keeper, struct directory_session *session) {
  gateway_route_renewed(keeper->options.config, keeper->options.directory, session);
  route_keeper_player_came(keeper, session, true);
}

// --- Working it off ----------------------------------------------------------------------

void route_keeper_work(struct route_keeper *keeper) {
  struct directory *directory = keeper->options.directory;
  int64_t now_ms = clock_monotonic_ms();
  if (keeper->working || !redis_link_is_up(keeper->options.link)) {
    return;
  }
  keeper->working = true;
  while (keeper->under_way < WINDOW) {
    struct held_route *route = held_routes_first(keeper->options.held, HELD_URGENT);
    struct directory_session *session;
    if (route) {
      send_held(keeper, route);
    } else if (keeper->next_write) {
      send_write(keeper, keeper->next_write);
    } else if (!is_full(keeper) && (session = directory_first_unwritten(directory))) {
      write_late(keeper, session);
    } else if ((session = directory_first_due(directory)) && session->renew_at_ms <= now_ms) {
      renew_gateway(keeper, session);
    } else {
      break;
    }
  }
  keeper->working = false;
}

void route_keeper_retry(struct route_keeper *keeper) {
  struct held_routes *held = keeper->options.held;
  struct held_route *route;
  retry_renewals(keeper);
  while ((route = held_routes_first(held, HELD_LATER))) {
    held_routes_enqueue(held, route, HELD_URGENT);
  }
  while ((route = held_routes_first(held, HELD_SOON))) {
    bool needed = keeper->options.needs_settling(route, keeper->options.owner);
    held_routes_enqueue(held, route, needed ? HELD_URGENT : HELD_SETTLED);
  }
  if (keeper->writes_left && keeper->writes_under_way == 0) {
    keeper->writes_left = false;
    keeper->next_write = TAILQ_FIRST(&keeper->writes);
  }
  route_keeper_work(keeper);
}
