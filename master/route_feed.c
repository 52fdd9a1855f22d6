#include "master/route_feed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uthash.h>

#include "common/backoff.h"
#include "common/clock.h"
#include "common/loop.h"

#define LOG_MODULE LOG_MODULE_ROUTE

enum {
  READS = 256,             // keys that are being read, for each master
  WAITING_MAX = 200000,    // keys to be read; with more of them all are read anew
  SCAN_COUNT = 200,        // keys that one SCAN looks at
  SCAN_WAITING_MAX = 800,  // keys to be read, over which the scan waits
};
static const char invalidations[] = "__redis__:invalidate";
static const char all_routes[] = REDIS_ROUTES_PREFIX "*";

enum key_state { KEY_WAITING, KEY_READING, KEY_READING_AGAIN };

// A key to be read. Changed while it is being read, it is read again.
struct feed_key {
  UT_hash_handle hh;
  TAILQ_ENTRY(feed_key) link;  // while waiting
  struct feed_master *master;
  enum key_state state;
  size_t len;
  char text[];
};

TAILQ_HEAD(feed_keys, feed_key);

struct feed_master {
  LIST_ENTRY(feed_master) link;
  struct route_feed *feed;
  struct redis_connection *watch;
  struct redis_connection *reader;
  struct event *timer;  // the next try
  uint32_t failures;
  bool live;      // both are ready, and changes are told
  bool scanning;  // the scan is not through
  bool scan_asked;
  bool scan_anew;  // from the beginning, once the answer that is under way has come
  bool wanted;     // in the list that is being taken over
  struct feed_key *keys;
  struct feed_keys waiting;
  size_t reading;
  size_t waiting_count;
  char cursor[24];
  char address[];
};

LIST_HEAD(feed_masters, feed_master);

struct route_feed {
  struct event_base *base;
  struct redis_link *link;
  const struct config *config;
  struct counters *counters;
  struct route_feed_events events;
  void *owner;
  struct feed_masters masters;
  char last_error[256];
  int64_t last_error_ms;
};

static void read_on(struct feed_master *master);
static void scan_from_start(struct feed_master *master);

// --- Keys ------------------------------------------------------------------------

static void forget_key(struct feed_key *key) {
  HASH_DELETE(hh, key->master->keys, key);
  free(key);
}

static void forget_waiting_keys(struct feed_master *master) {
  struct feed_key *key;
  while ((key = TAILQ_FIRST(&master->waiting))) {
    TAILQ_REMOVE(&master->waiting, key, link);
    forget_key(key);
  }
  master->waiting_count = 0;
}

static void malformed(struct route_feed *feed, const char *what, const char *text, size_t len) {
  static struct log_limit limit = {.kind = "route_malformed"};
  uint64_t suppressed;
  char quoted[128];
  counters_add(feed->counters, COUNTER_ROUTES_MALFORMED, 1);
  if (log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
    log_warn("route_malformed", "what=%s key=%s suppressed=%" PRIu64, what,
             log_quote(quoted, sizeof quoted, text, len < 100 ? len : 100), suppressed);
  }
}

// A key that may have changed. False: too many are waiting.
static bool add_key(struct feed_master *master, const char *text, size_t len, bool scanning) {
  struct route_feed *feed = master->feed;
  struct redis_routes_name name;
  struct feed_key *key = NULL;
  HASH_FIND(hh, master->keys, text, len, key);
  if (key) {
    key->state = key->state == KEY_WAITING ? KEY_WAITING : KEY_READING_AGAIN;
    return true;
  }
  if (redis_routes_parse_key(text, len, &name) != 0) {
    malformed(feed, "key", text, len);
    return true;
  }
  if (!feed->events.wants(&name, scanning, feed->owner)) {
    return true;
  }
  key = master->waiting_count < WAITING_MAX ? calloc(1, sizeof *key + len + 1) : NULL;
  if (!key) {
    return false;
  }
  key->master = master;
  key->len = len;
  memcpy(key->text, text, len);
  HASH_ADD_KEYPTR(hh, master->keys, key->text, len, key);
  TAILQ_INSERT_TAIL(&master->waiting, key, link);
  master->waiting_count++;
  return true;
}

// --- The end of a master's connections -----------------------------------------------

static void on_timer(evutil_socket_t fd, short what, void *owner);

static void disconnect(struct feed_master *master) {
  struct redis_connection *watch = master->watch;
  struct redis_connection *reader = master->reader;
  master->live = false;
  master->scanning = false;
  master->scan_asked = false;
  master->scan_anew = false;
  master->watch = NULL;
  master->reader = NULL;
  redis_connection_free(watch);
  redis_connection_free(reader);  // ends what is being read
  forget_waiting_keys(master);
}

// Makes both connections again, after a while if it failed before.
static void restart(struct feed_master *master, const char *why) {
  struct route_feed *feed = master->feed;
  snprintf(feed->last_error, sizeof feed->last_error, "%.100s: %.140s", master->address, why);
  feed->last_error_ms = clock_wall_ms();
  counters_add(feed->counters, COUNTER_ROUTE_FEED_RESTARTS, master->live);
  disconnect(master);
  feed->events.on_followed(feed->owner);
  loop_start_timer(master->timer,
                   backoff_ms(feed->config->data.redis.backoff_ms,
                              feed->config->data.redis.backoff_max_ms, master->failures++));
}

static void on_broken(const char *why, void *owner) { restart(owner, why); }

// --- Reading ---------------------------------------------------------------------

static void on_read(const redisReply *reply, void *context) {
  struct feed_key *key = context;
  struct feed_master *master = key->master;
  struct route_feed *feed = master->feed;
  struct redis_routes_name name;
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];
  int64_t ttl_ms = 0;
  int error = redis_routes_parse_read(reply, address, &ttl_ms);

  master->reading--;
  if (key->state == KEY_READING_AGAIN && master->live) {
    key->state = KEY_WAITING;
    TAILQ_INSERT_TAIL(&master->waiting, key, link);
    master->waiting_count++;
  } else {
    if (error == ERROR_MALFORMED) {
      malformed(feed, "value", key->text, key->len);
    }
    // For MOVED and ASK another master has the key, and tells.
    if (error != ERROR_BUSY && redis_routes_parse_key(key->text, key->len, &name) == 0) {
      // One without an end is taken for one of the usual time.
      feed->events.on_route(
          &name, error == 0 ? address : NULL,
          ttl_ms < 0 ? feed->config->data.app_route_table_alive_duration_ms : ttl_ms, feed->owner);
    }
    forget_key(key);
  }
  bool refused = reply && reply->type == REDIS_REPLY_ERROR &&
                 strncmp(reply->str, "MOVED ", 6) != 0 && strncmp(reply->str, "ASK ", 4) != 0;
  if (master->live && refused) {
    restart(master, reply->str);
  } else if (master->live) {
    read_on(master);
  }
}

// False: the connection takes no more.
static bool read_key(struct feed_master *master, struct feed_key *key) {
  const char *argv[REDIS_ROUTES_READ_ARGC];
  size_t lens[REDIS_ROUTES_READ_ARGC];
  redis_routes_read_command(key->text, key->len, argv, lens);
  // A slot that is moving here is read only so; elsewhere it means nothing.
  if (redis_link_is_cluster(master->feed->link) &&
      redis_connection_send(master->reader, 1, (const char *[]){"ASKING"}, NULL, NULL, NULL) != 0) {
    return false;
  }
  if (redis_connection_send(master->reader, REDIS_ROUTES_READ_ARGC, argv, lens, on_read, key) !=
      0) {
    return false;
  }
  TAILQ_REMOVE(&master->waiting, key, link);
  master->waiting_count--;
  master->reading++;
  key->state = KEY_READING;
  return true;
}

static void on_scanned(const redisReply *reply, void *context) {
  struct feed_master *master = context;
  master->scan_asked = false;
  if (!reply || !master->live) {
    return;  // the connection is at its end
  }
  if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
      reply->element[0]->type != REDIS_REPLY_STRING ||
      reply->element[0]->len >= sizeof master->cursor ||
      reply->element[1]->type != REDIS_REPLY_ARRAY) {
    restart(master, reply->type == REDIS_REPLY_ERROR ? reply->str : "SCAN can't be understood");
    return;
  }
  memcpy(master->cursor, reply->element[0]->str, reply->element[0]->len + 1);
  const redisReply *keys = reply->element[1];
  for (size_t i = 0; i < keys->elements; i++) {
    if (keys->element[i]->type == REDIS_REPLY_STRING) {
      add_key(master, keys->element[i]->str, keys->element[i]->len, true);
    }
  }
  if (master->scan_anew) {
    scan_from_start(master);
    return;
  }
  master->scanning = strcmp(master->cursor, "0") != 0;
  if (!master->scanning) {
    log_limited(LOG_LEVEL_INFO, "routes_scanned", "address=%s", master->address);
  }
  read_on(master);
}

static void scan_from_start(struct feed_master *master) {
  master->scan_anew = master->scan_asked;
  master->scanning = true;
  strcpy(master->cursor, "0");
  read_on(master);
}

static void read_on(struct feed_master *master) {
  while (master->live && master->reading < READS && !TAILQ_EMPTY(&master->waiting) &&
         read_key(master, TAILQ_FIRST(&master->waiting))) {
  }
  if (master->live && master->scanning && !master->scan_asked &&
      master->waiting_count < SCAN_WAITING_MAX) {
    char count[16];
    snprintf(count, sizeof count, "%d", SCAN_COUNT);
    const char *argv[] = {"SCAN", master->cursor, "MATCH", all_routes, "COUNT", count};
    master->scan_asked =
        redis_connection_send(master->reader, 6, argv, NULL, on_scanned, master) == 0;
  }
}

// --- Watching --------------------------------------------------------------------

static void on_invalidated(struct feed_master *master, const redisReply *keys) {
  struct route_feed *feed = master->feed;
  if (keys->type != REDIS_REPLY_ARRAY) {  // all of them
    counters_add(feed->counters, COUNTER_ROUTE_INVALIDATIONS, 1);
    log_limited(LOG_LEVEL_WARN, "routes_flushed", "address=%s", master->address);
    forget_waiting_keys(master);
    struct feed_key *key;
    struct feed_key *next;
    HASH_ITER(hh, master->keys, key, next) {  // read before that, maybe
      key->state = KEY_READING_AGAIN;
    }
    feed->events.on_void(master->address, feed->owner);
    // Redis says so for any of its databases; ours may have been spared.
    scan_from_start(master);
    return;
  }
  counters_add(feed->counters, COUNTER_ROUTE_INVALIDATIONS, keys->elements);
  for (size_t i = 0; i < keys->elements; i++) {
    if (keys->element[i]->type == REDIS_REPLY_STRING &&
        !add_key(master, keys->element[i]->str, keys->element[i]->len, false)) {
      restart(master, "too many changes wait to be read");
      return;
    }
  }
  read_on(master);
}

static void become_live(struct feed_master *master);

static void on_push(const redisReply *reply, void *owner) {
  struct feed_master *master = owner;
  if (!master->watch) {
    return;
  }
  if (strcmp(reply->element[0]->str, "subscribe") == 0 && !master->live) {
    become_live(master);
  } else if (strcmp(reply->element[0]->str, "message") == 0 && master->live &&
             reply->element[1]->type == REDIS_REPLY_STRING &&
             strcmp(reply->element[1]->str, invalidations) == 0) {
    on_invalidated(master, reply->element[2]);
  }
}

static void ignore_push(const redisReply *reply, void *owner) {
  (void)reply;
  (void)owner;
}

static void on_tracking(const redisReply *reply, void *context) {
  struct feed_master *master = context;
  if (!reply || !master->watch) {
    return;
  }
  if (reply->type == REDIS_REPLY_ERROR ||
      redis_connection_subscribe(master->watch, invalidations) != 0) {
    restart(master, reply->type == REDIS_REPLY_ERROR ? reply->str : "no subscription");
    return;
  }
}

// The subscription stands: from here on nothing is missed.
static void become_live(struct feed_master *master) {
  struct route_feed *feed = master->feed;
  master->failures = 0;
  master->live = true;
  log_limited(LOG_LEVEL_INFO, "routes_followed", "address=%s", master->address);
  feed->events.on_void(master->address, feed->owner);
  feed->events.on_followed(feed->owner);
  scan_from_start(master);
}

static void on_client_id(const redisReply *reply, void *context) {
  struct feed_master *master = context;
  char id[24];
  if (!reply || !master->watch) {
    return;
  }
  snprintf(id, sizeof id, "%lld", reply->integer);
  const char *argv[] = {"CLIENT", "TRACKING", "ON",     "REDIRECT",
                        id,       "BCAST",    "PREFIX", REDIS_ROUTES_PREFIX};
  if (reply->type != REDIS_REPLY_INTEGER ||
      redis_connection_send(master->watch, 8, argv, NULL, on_tracking, master) != 0) {
    restart(master, reply->type == REDIS_REPLY_ERROR ? reply->str : "no client id");
  }
}

static void on_ready(void *owner) {
  struct feed_master *master = owner;
  if (redis_connection_ready(master->watch) && redis_connection_ready(master->reader) &&
      redis_connection_send(master->watch, 2, (const char *[]){"CLIENT", "ID"}, NULL, on_client_id,
                            master) != 0) {
    restart(master, "no client id");
  }
}

static void connect_both(struct feed_master *master) {
  static const struct redis_connection_events watch_events = {on_ready, on_push, on_broken};
  static const struct redis_connection_events reader_events = {on_ready, ignore_push, on_broken};
  const struct redis_options *options = redis_link_connection_options(master->feed->link);
  master->watch = redis_connection_new(options, master->address, &watch_events, master);
  master->reader = redis_connection_new(options, master->address, &reader_events, master);
  if (!master->watch || !master->reader) {
    restart(master, "out of memory");
  }
}

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  connect_both(owner);
}

// --- The masters -----------------------------------------------------------------

static void master_free(struct feed_master *master) {
  LIST_REMOVE(master, link);
  disconnect(master);
  event_free(master->timer);
  free(master);
}

static void follow(struct route_feed *feed, const char *address) {
  struct feed_master *master;
  LIST_FOREACH(master, &feed->masters, link) {
    if (strcmp(master->address, address) == 0) {
      master->wanted = true;
      return;
    }
  }
  master = calloc(1, sizeof *master + strlen(address) + 1);
  if (!master || !(master->timer = evtimer_new(feed->base, on_timer, master))) {
    free(master);
    return;  // the next change of masters tries again
  }
  master->feed = feed;
  master->wanted = true;
  strcpy(master->address, address);
  TAILQ_INIT(&master->waiting);
  LIST_INSERT_HEAD(&feed->masters, master, link);
  connect_both(master);
}

void route_feed_follow(struct route_feed *feed) {
  const char *const *addresses;
  struct feed_master *master;
  size_t count = redis_link_masters(feed->link, &addresses);
  LIST_FOREACH(master, &feed->masters, link) { master->wanted = false; }
  for (size_t i = 0; i < count; i++) {
    follow(feed, addresses[i]);
  }
  for (struct feed_master *next = LIST_FIRST(&feed->masters); (master = next);) {
    next = LIST_NEXT(master, link);
    if (!master->wanted) {
      master_free(master);
    }
  }
  feed->events.on_followed(feed->owner);
}

void route_feed_tick(struct route_feed *feed) {
  struct feed_master *master;
  LIST_FOREACH(master, &feed->masters, link) {
    // A server that does not answer breaks the connection by its time limit.
    bool asked =
        !master->live ||
        (redis_connection_send(master->watch, 1, (const char *[]){"PING"}, NULL, NULL, NULL) == 0 &&
         redis_connection_send(master->reader, 1, (const char *[]){"PING"}, NULL, NULL, NULL) == 0);
    if (!asked) {
      restart(master, "too much is under way");
    }
  }
}

struct route_feed *route_feed_new(struct event_base *base, struct redis_link *link,
                                  const struct config *config, struct counters *counters,
                                  const struct route_feed_events *events, void *owner) {
  struct route_feed *feed = calloc(1, sizeof *feed);
  if (feed) {
    *feed = (struct route_feed){.base = base,
                                .link = link,
                                .config = config,
                                .counters = counters,
                                .events = *events,
                                .owner = owner};
    LIST_INIT(&feed->masters);
    route_feed_follow(feed);
  }
  return feed;
}

void route_feed_free(struct route_feed *feed) {
  struct feed_master *master;
  if (!feed) {
    return;
  }
  while ((master = LIST_FIRST(&feed->masters))) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
    master_free(master);
  }
  free(feed);
}

bool route_feed_is_live(const struct route_feed *feed) {
  const struct feed_master *master;
  LIST_FOREACH(master, &feed->masters, link) {
    if (!master->live) {
      return false;
    }
  }
  return !LIST_EMPTY(&feed->masters);
}

void route_feed_health(const struct route_feed *feed, struct route_feed_health *health) {
  const struct feed_master *master;
  *health = (struct route_feed_health){.last_error_ms = feed->last_error_ms};
  memcpy(health->last_error, feed->last_error, sizeof health->last_error);
  LIST_FOREACH(master, &feed->masters, link) {
    health->masters++;
    health->live += master->live;
    health->scanning += master->live && (master->scanning || master->waiting_count > 0);
    health->waiting_keys += master->waiting_count + master->reading;
  }
}
