#include "common/redis_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/backoff.h"
#include "common/clock.h"
#include "common/config_value.h"
#include "common/loop.h"
#include "common/tls.h"

#define LOG_MODULE LOG_MODULE_REDIS

enum {
  SLOTS = 16384,       // of a Cluster
  MASTERS_MAX = 1024,  // of a Cluster
  ADDRESS_BYTES = 128,
  REDIRECTS_MAX = 5,  // of one command
  // How often the Sentinels are asked who the master is, and a Cluster for its slots.
  ASK_SENTINEL_MS = 1000,
  ASK_CLUSTER_MS = 10000,
  // A slot map that proved wrong is asked for at once, but no more often than this.
  ASK_AGAIN_MS = 100,
};

enum mode { MODE_STANDALONE, MODE_SENTINEL, MODE_CLUSTER };

// One master, as long as it is one.
struct link_master {
  struct redis_link *link;
  char address[ADDRESS_BYTES];
  struct redis_connection *connection;  // NULL between tries
  struct event *timer;                  // the next try
  uint32_t failures;
  bool was_up;
  bool wanted;  // in the list that is being taken over
};

// Who asks where the masters are: of a Sentinel, or of a node of the Cluster.
struct scout {
  struct redis_options options;
  struct redis_connection *connection;
  struct event *timer;  // the next question
  size_t next_address;
  uint32_t failures;
  bool asking;
  bool hurried;  // the next question is due soon already
};

struct redis_link {
  struct event_base *base;
  struct evdns_base *dns;
  SSL_CTX *tls;
  const struct config *config;
  struct redis_link_events events;
  void *owner;
  enum mode mode;
  struct redis_options options;
  struct scout scout;
  struct link_master *masters[MASTERS_MAX];
  const char *addresses[MASTERS_MAX];  // of those
  size_t master_count;
  struct redis_link_health health;
  bool closing;
  uint16_t slots[SLOTS];  // index into masters + 1; 0: nobody's
};

// A command under way.
struct link_request {
  struct redis_link *link;
  redis_on_reply *on_reply;
  void *context;
  char *text;  // as it goes over the wire, where it may have to go again
  size_t len;
  int redirects;
};

static void note_error(struct redis_link *link, const char *where, const char *why) {
  snprintf(link->health.last_error, sizeof link->health.last_error, "%.100s: %.140s", where, why);
  link->health.last_error_ms = clock_wall_ms();
}

static void start_timer(struct event *timer, int64_t ms) {
  loop_start_timer(timer, ms < 1 ? 1 : ms);
}

// --- The masters -----------------------------------------------------------------

static void scout_hurry(struct redis_link *link);
static void connect_master(struct link_master *master);

static void try_again_later(struct link_master *master) {
  const struct config *config = master->link->config;
  start_timer(master->timer, backoff_ms(config->data.redis.backoff_ms,
                                        config->data.redis.backoff_max_ms, master->failures++));
}

static void on_master_ready(void *owner) {
  struct link_master *master = owner;
  struct redis_link *link = master->link;
  log_limited(LOG_LEVEL_INFO, "redis_up", "address=%s", master->address);
  master->failures = 0;
  master->was_up = true;
  link->health.since_ms = clock_wall_ms();
  link->events.on_master_up(link->owner);
}

static void on_master_broken(const char *why, void *owner) {
  struct link_master *master = owner;
  struct redis_link *link = master->link;
  redis_connection_free(master->connection);
  master->connection = NULL;
  note_error(link, master->address, why);
  if (master->failures == 0) {
    char text[256];
    log_limited(LOG_LEVEL_WARN, "redis_down", "address=%s why=%s", master->address,
                log_quote(text, sizeof text, why, strlen(why)));
  }
  try_again_later(master);
  scout_hurry(link);
  if (master->was_up) {
    master->was_up = false;
    link->health.lost++;
    link->health.since_ms = clock_wall_ms();
    link->events.on_master_down(link->owner);
  }
}

static void connect_master(struct link_master *master) {
  static const struct redis_connection_events events = {.on_ready = on_master_ready,
                                                        .on_broken = on_master_broken};
  master->connection =
      redis_connection_new(&master->link->options, master->address, &events, master);
  if (!master->connection) {
    try_again_later(master);
  }
}

static void on_master_timer(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  connect_master(owner);
}

static void master_free(struct link_master *master) {
  redis_connection_free(master->connection);
  if (master->timer) {
    event_free(master->timer);
  }
  free(master);
}

static struct link_master *find_master(const struct redis_link *link, const char *address) {
  for (size_t i = 0; i < link->master_count; i++) {
    if (strcmp(link->masters[i]->address, address) == 0) {
      return link->masters[i];
    }
  }
  return NULL;
}

// The one at address, made if there is none yet. NULL: one too many, or out of memory.
static struct link_master *add_master(struct redis_link *link, const char *address) {
  struct link_master *master = find_master(link, address);
  if (master) {
    return master;
  }
  if (link->master_count == MASTERS_MAX || strlen(address) >= ADDRESS_BYTES ||
      !config_value_is_address(address, 1) || !(master = calloc(1, sizeof *master))) {
    return NULL;
  }
  master->link = link;
  strcpy(master->address, address);
  master->timer = evtimer_new(link->base, on_master_timer, master);
  if (!master->timer) {
    free(master);
    return NULL;
  }
  link->masters[link->master_count] = master;
  link->addresses[link->master_count] = master->address;
  link->master_count++;
  connect_master(master);
  return master;
}

static void begin_masters(struct redis_link *link) {
  for (size_t i = 0; i < link->master_count; i++) {
    link->masters[i]->wanted = false;
  }
}

static size_t index_of(const struct redis_link *link, const struct link_master *master) {
  size_t i = 0;
  while (link->masters[i] != master) {
    i++;
  }
  return i;
}

// Lets go of those that were not named again. Slots keep naming the others.
static void end_masters(struct redis_link *link, bool added) {
  bool removed = false;
  for (size_t i = link->master_count; i-- > 0;) {
    struct link_master *master = link->masters[i];
    if (master->wanted) {
      continue;
    }
    log_limited(LOG_LEVEL_INFO, "redis_master_left", "address=%s", master->address);
    link->master_count--;
    link->masters[i] = link->masters[link->master_count];
    link->addresses[i] = link->addresses[link->master_count];
    for (size_t slot = 0; slot < SLOTS; slot++) {
      if (link->slots[slot] == i + 1) {
        link->slots[slot] = 0;
      } else if (link->slots[slot] == link->master_count + 1) {
        link->slots[slot] = (uint16_t)(i + 1);
      }
    }
    master_free(master);
    removed = true;
  }
  if (added || removed) {
    link->events.on_masters_changed(link->owner);
  }
}

// --- The scout: where the masters are ----------------------------------------------

static void ask(struct redis_link *link);

static void scout_next(struct redis_link *link, bool answered) {
  const struct config *config = link->config;
  struct scout *scout = &link->scout;
  scout->asking = false;
  if (answered) {
    scout->failures = 0;
    start_timer(scout->timer, link->mode == MODE_SENTINEL ? ASK_SENTINEL_MS : ASK_CLUSTER_MS);
  } else {
    redis_connection_free(scout->connection);
    scout->connection = NULL;
    scout->next_address++;
    start_timer(scout->timer, backoff_ms(config->data.redis.backoff_ms,
                                         config->data.redis.backoff_max_ms, scout->failures++));
  }
}

// Soon, somebody else: what this one says is sound, and no use.
static void ask_another(struct redis_link *link) {
  struct scout *scout = &link->scout;
  redis_connection_free(scout->connection);
  scout->connection = NULL;
  scout->next_address++;
  scout->asking = false;
  scout->failures = 0;
  start_timer(scout->timer, ASK_SENTINEL_MS);
}

// What is known about the masters has proved wrong or may have.
static void scout_hurry(struct redis_link *link) {
  struct scout *scout = &link->scout;
  // Only once: else whoever asks often enough puts it off for ever.
  if (link->mode != MODE_STANDALONE && !scout->asking && !scout->hurried && scout->failures == 0) {
    scout->hurried = true;
    start_timer(scout->timer, ASK_AGAIN_MS);
  }
}

static void on_sentinel_answer(const redisReply *reply, void *context) {
  struct redis_link *link = context;
  char address[ADDRESS_BYTES];
  if (link->closing || !reply) {
    return;  // on_scout_broken follows
  }
  if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
      reply->element[0]->type != REDIS_REPLY_STRING ||
      reply->element[1]->type != REDIS_REPLY_STRING) {
    note_error(link, "sentinel",
               reply->type == REDIS_REPLY_ERROR ? reply->str
                                                : "it does not know data.redis.sentinel_master");
    scout_next(link, false);
    return;
  }
  const char *host = reply->element[0]->str;
  bool bare_ipv6 = strchr(host, ':') != NULL;
  snprintf(address, sizeof address, bare_ipv6 ? "[%.100s]:%.8s" : "%.100s:%.8s", host,
           reply->element[1]->str);
  bool known = find_master(link, address) != NULL;
  begin_masters(link);
  struct link_master *master = add_master(link, address);
  if (!master) {
    scout_next(link, false);
    return;
  }
  master->wanted = true;
  end_masters(link, !known);
  if (known && !redis_connection_ready(master->connection)) {
    ask_another(link);  // this Sentinel may be the last to learn of a new master
  } else {
    scout_next(link, true);
  }
}

// One entry of CLUSTER SLOTS: first, last, [host, port, ...] of the master, replicas.
static bool take_slots(struct redis_link *link, const redisReply *entry, const char *asked,
                       bool *added) {
  char address[ADDRESS_BYTES];
  if (entry->type != REDIS_REPLY_ARRAY || entry->elements < 3 ||
      entry->element[0]->type != REDIS_REPLY_INTEGER ||
      entry->element[1]->type != REDIS_REPLY_INTEGER ||
      entry->element[2]->type != REDIS_REPLY_ARRAY || entry->element[2]->elements < 2 ||
      entry->element[2]->element[1]->type != REDIS_REPLY_INTEGER) {
    return false;
  }
  long long first = entry->element[0]->integer;
  long long last = entry->element[1]->integer;
  const redisReply *host = entry->element[2]->element[0];
  const char *colon = strrchr(asked, ':');
  if (first < 0 || last >= SLOTS || first > last) {
    return false;
  }
  // A node that does not know its own address is where we reached it.
  bool named = host->type == REDIS_REPLY_STRING && host->len > 0;
  int host_len = named ? (int)host->len : (int)(colon - asked);
  const char *text = named ? host->str : asked;
  bool bare_ipv6 = named && strchr(text, ':') != NULL;
  snprintf(address, sizeof address, bare_ipv6 ? "[%.*s]:%lld" : "%.*s:%lld",
           host_len < 100 ? host_len : 100, text, entry->element[2]->element[1]->integer);
  *added = *added || !find_master(link, address);
  struct link_master *master = add_master(link, address);
  if (!master) {
    return false;
  }
  master->wanted = true;
  uint16_t number = (uint16_t)(index_of(link, master) + 1);
  for (long long slot = first; slot <= last; slot++) {
    link->slots[slot] = number;
  }
  return true;
}

static void scout_address(const struct redis_link *link, char *address, size_t size);

static void on_cluster_slots(const redisReply *reply, void *context) {
  struct redis_link *link = context;
  char asked[ADDRESS_BYTES];
  bool added = false;
  if (link->closing || !reply) {
    return;
  }
  if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0) {
    note_error(link, "cluster", reply->type == REDIS_REPLY_ERROR ? reply->str : "it has no slots");
    scout_next(link, false);
    return;
  }
  scout_address(link, asked, sizeof asked);
  begin_masters(link);
  memset(link->slots, 0, sizeof link->slots);
  bool sound = true;
  for (size_t i = 0; i < reply->elements; i++) {
    sound = take_slots(link, reply->element[i], asked, &added) && sound;
  }
  if (!sound) {
    note_error(link, "cluster", "its slots can't be understood");
  }
  bool whole = true;
  for (size_t i = 0; i < link->master_count; i++) {
    whole = whole && redis_connection_ready(link->masters[i]->connection);
  }
  end_masters(link, added);
  if (sound && !whole) {
    ask_another(link);  // one of them may be dead, and this node the last to learn of its successor
  } else {
    scout_next(link, sound);
  }
}

static void on_scout_ready(void *owner) { (void)owner; }

static void on_scout_broken(const char *why, void *owner) {
  struct redis_link *link = owner;
  char address[ADDRESS_BYTES];
  scout_address(link, address, sizeof address);
  note_error(link, address, why);
  scout_next(link, false);
}

// Those configured first, then the masters known, in turn.
static void scout_address(const struct redis_link *link, char *address, size_t size) {
  size_t configured = 0;
  const char *rest = link->config->data.redis.addr;
  while (config_value_next_address(&rest, address, size)) {
    configured++;
  }
  size_t known = link->mode == MODE_CLUSTER ? link->master_count : 0;
  size_t all = configured + known;
  size_t wanted = all > 0 ? link->scout.next_address % all : 0;
  if (wanted >= configured) {
    snprintf(address, size, "%s", link->masters[wanted - configured]->address);
    return;
  }
  rest = link->config->data.redis.addr;
  for (size_t i = 0; i <= wanted; i++) {
    config_value_next_address(&rest, address, size);
  }
}

static void ask(struct redis_link *link) {
  static const struct redis_connection_events events = {.on_ready = on_scout_ready,
                                                        .on_broken = on_scout_broken};
  struct scout *scout = &link->scout;
  const char *sentinel[] = {"SENTINEL", "GET-MASTER-ADDR-BY-NAME",
                            link->config->data.redis.sentinel_master};
  const char *cluster[] = {"CLUSTER", "SLOTS"};
  int error;
  scout->hurried = false;
  if (!scout->connection) {
    char address[ADDRESS_BYTES];
    scout_address(link, address, sizeof address);
    scout->connection = redis_connection_new(&scout->options, address, &events, link);
  }
  if (!scout->connection) {
    error = ERROR_MEMORY;
  } else if (link->mode == MODE_SENTINEL) {
    error = redis_connection_send(scout->connection, 3, sentinel, NULL, on_sentinel_answer, link);
  } else {
    error = redis_connection_send(scout->connection, 2, cluster, NULL, on_cluster_slots, link);
  }
  scout->asking = error == 0;
  if (error != 0) {
    scout_next(link, false);
  }
}

static void on_scout_timer(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  ask(owner);
}

// --- Slots -----------------------------------------------------------------------

// CRC-16 (XMODEM): polynomial 0x1021, nothing reflected, from 0.
static uint16_t crc16(const char *bytes, size_t len) {
  uint32_t crc = 0;
  for (size_t i = 0; i < len; i++) {
    crc ^= (uint32_t)(unsigned char)bytes[i] << 8;
    for (int bit = 0; bit < 8; bit++) {
      crc = crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1;
    }
  }
  return (uint16_t)crc;
}

// The slot of a key: that of what stands between its first brace and the next closing
// one, where that is not empty.
static unsigned slot_of(const char *key, size_t len) {
  const char *open = memchr(key, '{', len);
  const char *close = open ? memchr(open, '}', len - (size_t)(open - key)) : NULL;
  if (close && close > open + 1) {
    return crc16(open + 1, (size_t)(close - open - 1)) % SLOTS;
  }
  return crc16(key, len) % SLOTS;
}

static struct link_master *master_of(const struct redis_link *link, const char *key, size_t len) {
  if (link->mode != MODE_CLUSTER) {
    return link->master_count > 0 ? link->masters[0] : NULL;
  }
  uint16_t number = link->slots[slot_of(key, len)];
  return number > 0 ? link->masters[number - 1] : NULL;
}

bool redis_link_owns(const struct redis_link *link, const char *address, const char *key,
                     size_t len) {
  const struct link_master *master = master_of(link, key, len);
  return master && strcmp(master->address, address) == 0;
}

// --- Commands --------------------------------------------------------------------

static void request_free(struct link_request *request) {
  if (request->text) {
    redisFreeCommand(request->text);
  }
  free(request);
}

static void on_answer(const redisReply *reply, void *context);

// Sends it again, to address. False: it can't be.
static bool redirect(struct link_request *request, const char *address, bool asking) {
  struct redis_link *link = request->link;
  bool known = find_master(link, address) != NULL;
  struct link_master *master = add_master(link, address);
  if (!master || !master->connection || request->redirects++ >= REDIRECTS_MAX) {
    return false;
  }
  master->wanted = true;
  if (!known) {
    link->events.on_masters_changed(link->owner);
  }
  if (asking && redis_connection_send(master->connection, 1, (const char *[]){"ASKING"}, NULL, NULL,
                                      NULL) != 0) {
    return false;
  }
  return redis_connection_send_text(master->connection, request->text, request->len, on_answer,
                                    request) == 0;
}

// MOVED and ASK are followed. True: the command is under way again.
static bool follow(struct link_request *request, const char *error) {
  struct redis_link *link = request->link;
  unsigned slot;
  char address[ADDRESS_BYTES];
  bool ask_there = strncmp(error, "ASK ", 4) == 0;
  if (link->mode != MODE_CLUSTER || (!ask_there && strncmp(error, "MOVED ", 6) != 0) ||
      sscanf(strchr(error, ' '), "%u %127s", &slot, address) != 2 || slot >= SLOTS) {
    return false;
  }
  if (!redirect(request, address, ask_there)) {
    return false;
  }
  if (!ask_there) {
    link->slots[slot] = (uint16_t)(index_of(link, find_master(link, address)) + 1);
    scout_hurry(link);
  }
  return true;
}

static bool starts_with(const char *text, const char *start) {
  return strncmp(text, start, strlen(start)) == 0;
}

static void on_answer(const redisReply *reply, void *context) {
  struct link_request *request = context;
  struct redis_link *link = request->link;
  if (!link->closing && reply && reply->type == REDIS_REPLY_ERROR) {
    if (follow(request, reply->str)) {
      return;
    }
    note_error(link, "redis", reply->str);
    // No master any more, or none yet: a sign that the masters are others now.
    bool demoted = starts_with(reply->str, "READONLY") || starts_with(reply->str, "MASTERDOWN");
    if (demoted || starts_with(reply->str, "CLUSTERDOWN") || starts_with(reply->str, "MOVED")) {
      scout_hurry(link);
    }
    if (demoted && link->mode == MODE_STANDALONE && link->master_count > 0 &&
        link->masters[0]->connection) {
      on_master_broken(reply->str, link->masters[0]);  // its name may lead elsewhere by now
    }
  }
  request->on_reply(reply, request->context);
  request_free(request);
}

bool redis_link_is_up(const struct redis_link *link) {
  for (size_t i = 0; i < link->master_count; i++) {
    if (redis_connection_ready(link->masters[i]->connection)) {
      return true;
    }
  }
  return false;
}

bool redis_link_reaches(const struct redis_link *link, const char *key, size_t len) {
  const struct link_master *master = master_of(link, key, len);
  return master && redis_connection_ready(master->connection);
}

bool redis_link_is_cluster(const struct redis_link *link) { return link->mode == MODE_CLUSTER; }

int redis_link_send(struct redis_link *link, int key, int argc, const char *const *argv,
                    const size_t *lens, redis_on_reply *on_reply, void *context) {
  struct link_master *master = master_of(link, argv[key], lens ? lens[key] : strlen(argv[key]));
  if (!master || !redis_connection_ready(master->connection)) {
    return ERROR_NOT_FOUND;
  }
  struct link_request *request = malloc(sizeof *request);
  if (!request) {
    return ERROR_MEMORY;
  }
  *request = (struct link_request){.link = link, .on_reply = on_reply, .context = context};
  int len = redisFormatCommandArgv(&request->text, argc, (const char **)(uintptr_t)argv, lens);
  int error = len < 0 ? ERROR_MEMORY
                      : redis_connection_send_text(master->connection, request->text, (size_t)len,
                                                   on_answer, request);
  if (error != 0) {
    request_free(request);
    return error;
  }
  request->len = (size_t)len;
  if (link->mode != MODE_CLUSTER) {  // it will not go again
    redisFreeCommand(request->text);
    request->text = NULL;
  }
  return 0;
}

// --- Starting --------------------------------------------------------------------

struct redis_link *redis_link_new(struct event_base *base, const struct config *config,
                                  const struct secrets *secrets, struct counters *counters,
                                  const struct redis_link_events *events, void *owner, char *why,
                                  size_t why_size) {
  struct redis_link *link = calloc(1, sizeof *link);
  if (!link) {
    snprintf(why, why_size, "out of memory");
    return NULL;
  }
  link->base = base;
  link->config = config;
  link->events = *events;
  link->owner = owner;
  link->mode = config->data.redis.cluster                      ? MODE_CLUSTER
               : config->data.redis.sentinel_master[0] != '\0' ? MODE_SENTINEL
                                                               : MODE_STANDALONE;
  link->health.since_ms = clock_wall_ms();
  if (config->data.redis.tls.enabled &&
      !(link->tls =
            tls_client_context(&config->data.redis.tls, secrets->redis_tls_key, why, why_size))) {
    redis_link_free(link);
    return NULL;
  }
  // Without a name server only numbers and /etc/hosts work, which is no fault.
  link->dns = evdns_base_new(base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
  link->scout.timer = evtimer_new(base, on_scout_timer, link);
  if (!link->dns || !link->scout.timer) {
    snprintf(why, why_size, "out of memory");
    redis_link_free(link);
    return NULL;
  }
  evdns_base_resolv_conf_parse(link->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf");
  link->options = (struct redis_options){
      .base = base,
      .dns = link->dns,
      .counters = counters,
      .tls = link->tls,
      .server_name = config->data.redis.tls.server_name,
      .username = config->data.redis.username,
      .password = secrets->redis_password,
      .db = config->data.redis.db,
      .masters_only = link->mode != MODE_CLUSTER,
      .dial_timeout_ms = config->data.redis.dial_timeout_ms,
      .read_timeout_ms = config->data.redis.read_timeout_ms,
      .write_timeout_ms = config->data.redis.write_timeout_ms,
  };
  link->scout.options = link->options;
  link->scout.options.masters_only = false;
  if (link->mode == MODE_SENTINEL) {
    link->scout.options.username = "";
    link->scout.options.password = secrets->redis_sentinel_password;
    link->scout.options.db = 0;
  }
  if (link->mode == MODE_STANDALONE) {
    char address[ADDRESS_BYTES];
    scout_address(link, address, sizeof address);
    add_master(link, address);
  } else {
    start_timer(link->scout.timer, 0);
  }
  return link;
}

void redis_link_close(struct redis_link *link) {
  if (!link) {
    return;
  }
  link->closing = true;
  redis_connection_free(link->scout.connection);
  link->scout.connection = NULL;
  if (link->scout.timer) {
    event_free(link->scout.timer);
    link->scout.timer = NULL;
  }
  size_t count = link->master_count;
  link->master_count = 0;  // whoever is told that there is no answer finds none
  memset(link->slots, 0, sizeof link->slots);
  for (size_t i = 0; i < count; i++) {
    master_free(link->masters[i]);
  }
}

void redis_link_free(struct redis_link *link) {
  if (!link) {
    return;
  }
  redis_link_close(link);
  if (link->dns) {
    evdns_base_free(link->dns, 1);  // look-ups under way hold their connection
  }
  SSL_CTX_free(link->tls);
  free(link);
}

size_t redis_link_masters(const struct redis_link *link, const char *const **addresses) {
  *addresses = link->addresses;
  return link->master_count;
}

const struct redis_options *redis_link_connection_options(const struct redis_link *link) {
  return &link->options;
}

void redis_link_health(const struct redis_link *link, struct redis_link_health *health) {
  *health = link->health;
  health->masters = link->master_count;
  health->masters_up = 0;
  for (size_t i = 0; i < link->master_count; i++) {
    health->masters_up += redis_connection_ready(link->masters[i]->connection);
  }
}
