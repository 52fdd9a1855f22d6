#include "master/ban_store.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uthash.h>

#include "common/clock.h"
#include "common/log.h"

#define LOG_MODULE LOG_MODULE_BAN

enum {
  // Asked for at a time: few at first, then more and more, as long as what Redis has to go
  // through for a page stays small.
  PAGE_FIRST = 8,
  PAGE_MAX = 512,
  PAGE_MAX_BYTES = 256 << 10,
  PAGES_MAX = 20000,   // of one reading; a list of more is given up
  WINDOW = 64,         // writes under way
  WRITES_MAX = 10000,  // pending
  NAME_BYTES = 17,     // of the list
  // Seconds from one reading to the next, when nobody tells of a change; and when Redis
  // refused the last one.
  READ_EVERY_S = 30,
  READ_REFUSED_S = 5,
  // When several in a row had no answer, it may be the reading that breaks the connection,
  // which routes go over too: then so much later, doubled each time.
  READ_UNANSWERED = 2,
  READ_UNANSWERED_S = 5,
  READ_UNANSWERED_MAX_S = 600,
};

// A ban that is over leaves Redis so much later, since it is for all gateways and this
// one's clock may be ahead. One that is off by more lets no player in anyway.
static const int64_t REMOVE_AFTER_MS = 60 * 1000;

// KEYS[1]; ARGV: cursor, count, longest field, longest value. Answers as HSCAN does, with
// what is too long for a ban cut to what is none, and with how many bytes there were.
static const char read_script[] =
    "local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])\n"
    "local bans, field_max, value_max = page[2], tonumber(ARGV[3]), tonumber(ARGV[4])\n"
    "local bytes = 0\n"
    "for i = 1, #bans, 2 do\n"
    "  bytes = bytes + #bans[i] + #bans[i + 1]\n"
    "  if #bans[i] > field_max then bans[i] = string.sub(bans[i], 1, field_max + 1) end\n"
    "  if #bans[i + 1] > value_max then bans[i + 1] = '' end\n"
    "end\n"
    "return {page[1], bans, bytes}\n";

// KEYS[1]; ARGV: fields and values by turns. Removes those that still are so.
static const char remove_script[] =
    "for i = 1, #ARGV, 2 do\n"
    "  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then\n"
    "    redis.call('HDEL', KEYS[1], ARGV[i])\n"
    "  end\n"
    "end\n"
    "return 'OK'\n";

enum write_state {
  WRITE_WAITING,
  WRITE_UNDER_WAY,
  WRITE_OUTDATED,  // under way, with another one to follow
  WRITE_DONE,      // kept only for a reading that may have passed it before
};

// What is to become of one ban.
struct ban_write {
  UT_hash_handle hh;
  TAILQ_ENTRY(ban_write) link;  // while waiting
  struct ban_store *store;
  enum write_state state;
  char *value;  // NULL: it is to go
  size_t field_len;
  char field[BAN_FIELD_BYTES];
};

struct ban_store {
  struct redis_link *link;
  const struct config *config;
  struct counters *counters;
  struct ban_store_events events;
  void *owner;

  struct ban_write *writes;
  TAILQ_HEAD(waiting_writes, ban_write) waiting;
  size_t waiting_count;
  size_t under_way;
  bool write_failed;  // since the last tick: no more until then
  bool write_refused;
  bool untold;  // something was written that nobody has been told of

  char known_name[NAME_BYTES];  // of the list, as it was read last; "" for none
  char name[NAME_BYTES];        // as it stands in this reading
  bool reading;
  bool read_again;  // it has changed since this reading began
  bool read_begun;  // one has, since the last tick
  bool read_refused;
  int read_in_s;
  int unanswered;  // readings in a row
  size_t pages;
  int page_bans;  // asked for at a time
  char cursor[24];
  size_t malformed;  // in this reading
  size_t left_out;
  char first_malformed[128];

  struct ban_store_health health;
};

static const char name_field[] = "list";

static void note_error(struct ban_store *store, const char *why) {
  snprintf(store->health.last_error, sizeof store->health.last_error, "%s", why);
  store->health.last_error_ms = clock_wall_ms();
}

// Says so once, until it has worked again.
static void refused(struct ban_store *store, bool *said, const char *event, const char *why) {
  char text[256];
  note_error(store, why);
  if (!*said) {
    *said = true;
    log_warn(event, "why=%s", log_quote(text, sizeof text, why, strlen(why)));
  }
}

// --- Writing -----------------------------------------------------------------------

static void free_write(struct ban_write *write) {
  struct ban_store *store = write->store;
  // NOLINTNEXTLINE(clang-analyzer-*): uthash, whose table has this one in it
  HASH_DELETE(hh, store->writes, write);
  free(write->value);
  free(write);
}

static struct ban_write *find_write(const struct ban_store *store, const char *field, size_t len) {
  struct ban_write *write = NULL;
  HASH_FIND(hh, store->writes, field, len, write);
  return write;
}

static void enqueue(struct ban_write *write) {
  write->state = WRITE_WAITING;
  TAILQ_INSERT_TAIL(&write->store->waiting, write, link);
  write->store->waiting_count++;
}

static void work(struct ban_store *store);

static void on_named(const redisReply *reply, void *context) {
  (void)reply;  // what is wrong shows with the ban that follows
  (void)context;
}

static void on_written(const redisReply *reply, void *context) {
  struct ban_write *write = context;
  struct ban_store *store = write->store;
  bool written = reply && reply->type != REDIS_REPLY_ERROR;
  store->under_way--;
  if (written) {
    store->untold = true;
    store->write_refused = false;
  } else {
    store->write_failed = true;
    if (reply) {
      refused(store, &store->write_refused, "bans_not_written", reply->str);
    }
  }
  if (!written || write->state == WRITE_OUTDATED) {
    enqueue(write);
  } else if (store->reading) {
    write->state = WRITE_DONE;
  } else {
    free_write(write);
  }
  work(store);
}

// Gives the list a name, if it has none.
static int send_name(struct ban_store *store) {
  char name[NAME_BYTES];
  snprintf(name, sizeof name, "%08x%08x", randombytes_random(), randombytes_random());
  return redis_link_send(store->link, 1, 4,
                         (const char *[]){"HSETNX", BAN_STORE_KEY, name_field, name}, NULL,
                         on_named, store);
}

// False: it can't be sent now.
static bool send_write(struct ban_store *store, struct ban_write *write) {
  const char *set[] = {"HSET", BAN_STORE_KEY, write->field, write->value};
  const char *remove[] = {"HDEL", BAN_STORE_KEY, write->field};
  if (write->value && send_name(store) != 0) {
    return false;
  }
  int error = write->value ? redis_link_send(store->link, 1, 4, set, NULL, on_written, write)
                           : redis_link_send(store->link, 1, 3, remove, NULL, on_written, write);
  if (error != 0) {
    return false;
  }
  TAILQ_REMOVE(&store->waiting, write, link);
  store->waiting_count--;
  store->under_way++;
  write->state = WRITE_UNDER_WAY;
  return true;
}

static void on_told(const redisReply *reply, void *context) {
  struct ban_store *store = context;
  if (!reply) {
    store->untold = true;
  } else if (reply->type == REDIS_REPLY_ERROR) {
    // Not again: the others will read the list anyway.
    refused(store, &store->write_refused, "bans_not_told", reply->str);
  }
}

// Sends what waits, and when all is written tells the others, once for all of it.
static void work(struct ban_store *store) {
  const char *tell[] = {"PUBLISH", BAN_STORE_KEY, store->config->server.grpc.advertise};
  while (!store->write_failed && store->under_way < WINDOW && !TAILQ_EMPTY(&store->waiting) &&
         send_write(store, TAILQ_FIRST(&store->waiting))) {
  }
  if (store->untold && store->under_way == 0 &&
      redis_link_send(store->link, 1, 3, tell, NULL, on_told, store) == 0) {
    store->untold = false;
  }
}

// Takes over value.
static int add_write(struct ban_store *store, const struct ban_subject *subject, char *value,
                     size_t bound) {
  char field[BAN_FIELD_BYTES];
  size_t len = ban_field(subject, field);
  struct ban_write *write = find_write(store, field, len);
  if (!write) {
    bool full = HASH_COUNT(store->writes) >= bound;
    write = full ? NULL : calloc(1, sizeof *write);
    if (!write) {
      free(value);
      return full ? ERROR_EXHAUSTED : ERROR_MEMORY;
    }
    write->store = store;
    write->state = WRITE_DONE;
    write->field_len = len;
    memcpy(write->field, field, len + 1);
    HASH_ADD(hh, store->writes, field, len, write);
  }
  free(write->value);
  write->value = value;
  if (write->state == WRITE_UNDER_WAY) {
    write->state = WRITE_OUTDATED;
  } else if (write->state == WRITE_DONE) {
    enqueue(write);
  }
  work(store);
  return 0;
}

int ban_store_set(struct ban_store *store, const struct ban *ban) {
  char *value = ban_value(ban);
  return value ? add_write(store, &ban->subject, value, WRITES_MAX) : ERROR_MEMORY;
}

int ban_store_restore(struct ban_store *store, const struct ban *ban) {
  char *value = ban_value(ban);
  return value ? add_write(store, &ban->subject, value, SIZE_MAX) : ERROR_MEMORY;
}

int ban_store_remove(struct ban_store *store, const struct ban_subject *subject) {
  return add_write(store, subject, NULL, WRITES_MAX);
}

bool ban_store_is_pending(const struct ban_store *store, const struct ban_subject *subject) {
  char field[BAN_FIELD_BYTES];
  size_t len = ban_field(subject, field);
  return find_write(store, field, len) != NULL;
}

// Those that are written by now, at the end of the reading that they were kept for.
static void free_done(struct ban_store *store) {
  struct ban_write *write;
  struct ban_write *next;
  HASH_ITER(hh, store->writes, write, next) {
    if (write->state == WRITE_DONE) {
      free_write(write);
    }
  }
}

// --- What is over ------------------------------------------------------------------

// The command that removes bans of one page.
struct removal {
  int argc;
  const char *argv[4 + 2 * PAGE_MAX];
  size_t lens[4 + 2 * PAGE_MAX];
};

static void add_argument(struct removal *removal, const char *text, size_t len) {
  removal->argv[removal->argc] = text;
  removal->lens[removal->argc++] = len;
}

static void begin_removal(struct removal *removal) {
  removal->argc = 0;
  add_argument(removal, "EVAL", strlen("EVAL"));
  add_argument(removal, remove_script, sizeof remove_script - 1);
  add_argument(removal, "1", 1);
  add_argument(removal, BAN_STORE_KEY, strlen(BAN_STORE_KEY));
}

static void on_removed(const redisReply *reply, void *context) {
  struct ban_store *store = context;
  if (reply && reply->type == REDIS_REPLY_ERROR) {
    refused(store, &store->write_refused, "bans_not_removed", reply->str);
  }
}

static void end_removal(struct ban_store *store, struct removal *removal) {
  // One that can't be sent is found again by the next reading.
  if (removal->argc > 4 && redis_link_send(store->link, 3, removal->argc, removal->argv,
                                           removal->lens, on_removed, store) != 0) {
    log_debug("bans_not_removed", "why=\"Redis is away\"");
  }
}

// --- Reading -----------------------------------------------------------------------

static void end_reading(struct ban_store *store, bool whole, int next_in_s) {
  store->reading = false;
  store->read_in_s = store->read_again ? 1 : next_in_s;
  store->read_again = false;
  if (whole) {
    if (store->malformed != store->health.malformed && store->malformed > 0) {
      log_limited(LOG_LEVEL_WARN, "bans_malformed", "count=%zu first=%s", store->malformed,
                  store->first_malformed);
    }
    if (store->left_out != store->health.left_out && store->left_out > 0) {
      log_limited(LOG_LEVEL_ERROR, "bans_left_out",
                  "count=%zu why=\"there is no room for so many\"", store->left_out);
    }
    store->read_refused = false;
    store->unanswered = 0;
    store->health.malformed = store->malformed;
    store->health.left_out = store->left_out;
    store->health.readings++;
    store->health.read_ms = clock_wall_ms();
  }
  bool lost = whole && store->known_name[0] != '\0' && strcmp(store->name, store->known_name) != 0;
  if (whole) {
    memcpy(store->known_name, store->name, sizeof store->known_name);
  }
  store->events.on_read(lost    ? BAN_READING_LOST
                        : whole ? BAN_READING_WHOLE
                                : BAN_READING_PART,
                        store->owner);
  free_done(store);
}

static void take_malformed(struct ban_store *store, const redisReply *field) {
  counters_add(store->counters, COUNTER_BANS_MALFORMED, 1);
  if (store->malformed++ == 0) {
    log_quote(store->first_malformed, sizeof store->first_malformed, field->str,
              field->len < BAN_FIELD_BYTES ? field->len : BAN_FIELD_BYTES);
  }
}

static void take_ban(struct ban_store *store, const redisReply *field, const redisReply *value,
                     int64_t now_ms, struct removal *removal) {
  struct ban ban;
  if (strcmp(field->str, name_field) == 0) {
    snprintf(store->name, sizeof store->name, "%s", value->str);
  } else if (ban_parse(field->str, field->len, value->str, value->len, &ban) != 0) {
    take_malformed(store, field);
  } else if (find_write(store, field->str, field->len)) {
    return;
  } else if (!ban_is_over(&ban, now_ms)) {
    if (!store->events.on_ban(&ban, store->owner)) {
      counters_add(store->counters, COUNTER_BANS_LEFT_OUT, 1);
      store->left_out++;
    }
  } else if (ban_is_over(&ban, now_ms - REMOVE_AFTER_MS) && removal->argc < 4 + 2 * PAGE_MAX) {
    add_argument(removal, field->str, field->len);
    add_argument(removal, value->str, value->len);
  }
}

// A cursor, fields and values by turns, and their size.
static bool is_page(const redisReply *reply) {
  if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
      reply->element[0]->type != REDIS_REPLY_STRING ||
      reply->element[0]->len >= sizeof((struct ban_store *)0)->cursor ||
      reply->element[1]->type != REDIS_REPLY_ARRAY || reply->element[1]->elements % 2 != 0 ||
      reply->element[2]->type != REDIS_REPLY_INTEGER) {
    return false;
  }
  for (size_t i = 0; i < reply->element[1]->elements; i++) {
    if (reply->element[1]->element[i]->type != REDIS_REPLY_STRING) {
      return false;
    }
  }
  return true;
}

static void size_next_page(struct ban_store *store, long long bytes) {
  if (bytes > PAGE_MAX_BYTES) {
    store->page_bans = store->page_bans > 1 ? store->page_bans / 2 : 1;
  } else if (bytes <= PAGE_MAX_BYTES / 2 && store->page_bans < PAGE_MAX) {
    store->page_bans *= 2;
  }
}

static bool is_put_off(const struct ban_store *store) {
  return store->unanswered >= READ_UNANSWERED;
}

static void end_unanswered(struct ban_store *store) {
  int wait_s = 1;
  store->unanswered++;
  if (is_put_off(store)) {
    int doublings = store->unanswered - READ_UNANSWERED;
    wait_s = READ_UNANSWERED_S << (doublings < 10 ? doublings : 10);
    wait_s = wait_s < READ_UNANSWERED_MAX_S ? wait_s : READ_UNANSWERED_MAX_S;
    refused(store, &store->read_refused, "bans_not_read", "no answer, again and again");
    store->read_again = false;
  }
  end_reading(store, false, wait_s);
}

static bool ask_page(struct ban_store *store);

static void on_page(const redisReply *reply, void *context) {
  struct ban_store *store = context;
  struct removal removal;
  const char *why = NULL;
  if (!reply) {
    end_unanswered(store);
    return;
  }
  if (reply->type == REDIS_REPLY_ERROR) {
    why = reply->str;
  } else if (!is_page(reply)) {
    why = "an answer that can't be understood";
  } else if (store->pages >= PAGES_MAX) {
    why = "the list is far too long";
  }
  if (why) {
    refused(store, &store->read_refused, "bans_not_read", why);
    end_reading(store, false, READ_REFUSED_S);
    return;
  }
  memcpy(store->cursor, reply->element[0]->str, reply->element[0]->len + 1);
  int64_t now_ms = clock_wall_ms();
  begin_removal(&removal);
  const redisReply *page = reply->element[1];
  for (size_t i = 0; i < page->elements; i += 2) {
    take_ban(store, page->element[i], page->element[i + 1], now_ms, &removal);
  }
  end_removal(store, &removal);
  size_next_page(store, reply->element[2]->integer);
  if (strcmp(store->cursor, "0") == 0) {
    end_reading(store, true, READ_EVERY_S);
  } else if (!ask_page(store)) {
    end_reading(store, false, 1);
  }
}

// False: it can't be asked for now.
static bool ask_page(struct ban_store *store) {
  char count[16];
  char field_bytes[16];
  char value_bytes[16];
  snprintf(count, sizeof count, "%d", store->page_bans);
  snprintf(field_bytes, sizeof field_bytes, "%d", BAN_FIELD_BYTES - 1);
  snprintf(value_bytes, sizeof value_bytes, "%d", BAN_VALUE_MAX_BYTES);
  const char *argv[] = {"EVAL",        read_script, "1",         BAN_STORE_KEY,
                        store->cursor, count,       field_bytes, value_bytes};
  store->pages++;
  return redis_link_send(store->link, 3, 8, argv, NULL, on_page, store) == 0;
}

static void begin_reading(struct ban_store *store) {
  store->name[0] = '\0';
  store->pages = 0;
  store->page_bans = PAGE_FIRST;
  store->malformed = 0;
  store->left_out = 0;
  strcpy(store->cursor, "0");
  store->reading = ask_page(store);
  store->read_begun = store->reading;
  store->read_in_s = 1;  // when it could not begin
}

void ban_store_read(struct ban_store *store) {
  if (store->reading) {
    store->read_again = true;
  } else if (store->read_begun && !is_put_off(store)) {
    store->read_in_s = 1;
  } else if (!is_put_off(store)) {
    begin_reading(store);
  }
}

// --- The life of a store -------------------------------------------------------------

void ban_store_link_up(struct ban_store *store) {
  store->write_failed = false;
  work(store);
  ban_store_read(store);
}

void ban_store_tick(struct ban_store *store) {
  store->write_failed = false;
  store->read_begun = false;
  work(store);
  if (!store->reading && --store->read_in_s <= 0) {
    begin_reading(store);
  }
}

struct ban_store *ban_store_new(struct redis_link *link, const struct config *config,
                                struct counters *counters, const struct ban_store_events *events,
                                void *owner) {
  struct ban_store *store = calloc(1, sizeof *store);
  if (store) {
    store->link = link;
    store->config = config;
    store->counters = counters;
    store->events = *events;
    store->owner = owner;
    TAILQ_INIT(&store->waiting);
  }
  return store;
}

void ban_store_free(struct ban_store *store) {
  struct ban_write *write;
  struct ban_write *next;
  if (!store) {
    return;
  }
  HASH_ITER(hh, store->writes, write, next) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the table
    free_write(write);
  }
  free(store);
}

void ban_store_health(const struct ban_store *store, struct ban_store_health *health) {
  *health = store->health;
  health->pending_writes = store->waiting_count + store->under_way;
}
