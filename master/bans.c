#include "master/bans.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "common/clock.h"
#include "common/log.h"

#define LOG_MODULE LOG_MODULE_BAN

struct held_ban {
  UT_hash_handle hh;  // by uid, or by network
  struct ban ban;
  uint64_t reading;  // that has shown it last; 0: none yet
};

struct bans {
  struct bans_options options;
  struct ban_store *store;  // NULL in memory
  struct held_ban *held[BAN_KIND_COUNT];
  // How many networks there are of each prefix: one look-up for each that is in use finds
  // the networks of an address, however many there are.
  size_t prefixes[NETWORK_PREFIX_MAX_BITS + 1];
  int64_t first_end_ms;  // nothing is over before
  // Of Redis' list:
  uint64_t reading;  // that is under way, or the next; from 1
  size_t news;       // bans that the owner has not been told of
  struct ban_subject newest;
};

static size_t count(const struct bans *bans) {
  return HASH_COUNT(bans->held[BAN_UID]) + HASH_COUNT(bans->held[BAN_NETWORK]);
}

// --- The list ----------------------------------------------------------------------

static struct held_ban *find_network(const struct bans *bans, const struct network *network) {
  struct held_ban *held = NULL;
  HASH_FIND(hh, bans->held[BAN_NETWORK], network, sizeof *network, held);
  return held;
}

static struct held_ban *find(const struct bans *bans, const struct ban_subject *subject) {
  struct held_ban *held = NULL;
  if (subject->kind == BAN_NETWORK) {
    return find_network(bans, &subject->network);
  }
  HASH_FIND(hh, bans->held[BAN_UID], &subject->uid, sizeof subject->uid, held);
  return held;
}

static void drop(struct bans *bans, struct held_ban *held) {
  const struct ban_subject *subject = &held->ban.subject;
  // NOLINTBEGIN(clang-analyzer-*): uthash, whose table has this one in it
  if (subject->kind == BAN_UID) {
    HASH_DELETE(hh, bans->held[BAN_UID], held);
  } else {
    bans->prefixes[subject->network.prefix_bits]--;
    HASH_DELETE(hh, bans->held[BAN_NETWORK], held);
  }
  // NOLINTEND(clang-analyzer-*)
  free(held);
}

static bool note_end(const struct ban *ban, void *context) {
  int64_t *first_end_ms = context;
  if (ban->until_ms != 0 && ban->until_ms < *first_end_ms) {
    *first_end_ms = ban->until_ms;
  }
  return true;
}

static bool has_room(const struct bans *bans, const struct ban_subject *subject) {
  return count(bans) < BANS_MAX &&
         (subject->kind == BAN_UID || HASH_COUNT(bans->held[BAN_NETWORK]) < BANS_NETWORKS_MAX);
}

// Takes ban into the list, in place of one of the same subject. NULL when there is no room
// or no memory.
static struct held_ban *put(struct bans *bans, const struct ban *ban) {
  const struct ban_subject *subject = &ban->subject;
  struct held_ban *held = find(bans, subject);
  bool is_new = held == NULL;
  if (is_new && !(held = has_room(bans, subject) ? calloc(1, sizeof *held) : NULL)) {
    return NULL;
  }
  held->ban = *ban;
  if (is_new && subject->kind == BAN_UID) {
    HASH_ADD(hh, bans->held[BAN_UID], ban.subject.uid, sizeof subject->uid, held);
  } else if (is_new) {
    HASH_ADD(hh, bans->held[BAN_NETWORK], ban.subject.network, sizeof subject->network, held);
    bans->prefixes[subject->network.prefix_bits]++;
  }
  note_end(ban, &bans->first_end_ms);
  return held;
}

// Whether one is to be dropped.
typedef bool held_test(const struct bans *bans, const struct held_ban *held, int64_t now_ms);

// Drops those; returns how many.
static size_t drop_if(struct bans *bans, held_test *test, int64_t now_ms) {
  size_t before = count(bans);
  for (int kind = 0; kind < BAN_KIND_COUNT; kind++) {
    struct held_ban *held;
    struct held_ban *next;
    HASH_ITER(hh, bans->held[kind], held, next) {
      if (test(bans, held, now_ms)) {
        drop(bans, held);
      }
    }
  }
  return before - count(bans);
}

static bool is_over(const struct bans *bans, const struct held_ban *held, int64_t now_ms) {
  (void)bans;
  return ban_is_over(&held->ban, now_ms);
}

static bool is_any(const struct bans *bans, const struct held_ban *held, int64_t now_ms) {
  (void)bans;
  (void)held;
  (void)now_ms;
  return true;
}

static void drop_what_is_over(struct bans *bans, int64_t now_ms) {
  if (now_ms >= bans->first_end_ms) {
    drop_if(bans, is_over, now_ms);
    bans->first_end_ms = INT64_MAX;
    bans_each(bans, now_ms, note_end, &bans->first_end_ms);
  }
}

// --- What Redis says -----------------------------------------------------------------

// Tells the owner of what is new: of one by name, of more at once.
static void tell(struct bans *bans) {
  size_t news = bans->news;
  const struct held_ban *held = news == 1 ? find(bans, &bans->newest) : NULL;
  bans->news = 0;
  if (held || news > 1) {
    bans->options.on_ban(held ? &held->ban : NULL, bans->options.owner);
  }
}

static bool on_store_ban(const struct ban *ban, void *owner) {
  struct bans *bans = owner;
  struct held_ban *held = find(bans, &ban->subject);
  bool is_new = !held || ban_is_over(&held->ban, clock_wall_ms());
  if (!(held = put(bans, ban))) {
    return false;
  }
  held->reading = bans->reading;
  if (is_new) {
    bans->news++;
    bans->newest = ban->subject;
  }
  return true;
}

static bool is_missing(const struct bans *bans, const struct held_ban *held, int64_t now_ms) {
  (void)now_ms;
  return held->reading != bans->reading && !ban_store_is_pending(bans->store, &held->ban.subject);
}

// Redis has lost the list: what is known here goes back there.
static void restore(struct bans *bans) {
  size_t restored = 0;
  for (int kind = 0; kind < BAN_KIND_COUNT; kind++) {
    struct held_ban *held;
    struct held_ban *next;
    HASH_ITER(hh, bans->held[kind], held, next) {
      restored += is_missing(bans, held, 0) && ban_store_restore(bans->store, &held->ban) == 0;
    }
  }
  log_limited(LOG_LEVEL_WARN, "bans_restored", "bans=%zu hint=\"Redis had lost them\"", restored);
}

static void on_store_read(enum ban_reading reading, void *owner) {
  struct bans *bans = owner;
  bool whole = reading != BAN_READING_PART;
  size_t gone = 0;
  if (reading == BAN_READING_LOST) {
    restore(bans);
  } else if (whole) {
    gone = drop_if(bans, is_missing, 0);
  }
  bans->reading++;
  if (whole && (bans->news > 0 || gone > 0)) {
    log_limited(LOG_LEVEL_INFO, "bans_read", "bans=%zu new=%zu gone=%zu", count(bans), bans->news,
                gone);
  }
  if (whole) {  // else, maybe, at the end of everything
    tell(bans);
  }
}

// --- The life of it ------------------------------------------------------------------

struct bans *bans_new(const struct bans_options *options) {
  static const struct ban_store_events events = {on_store_ban, on_store_read};
  struct bans *bans = calloc(1, sizeof *bans);
  if (!bans) {
    return NULL;
  }
  bans->options = *options;
  bans->reading = 1;
  bans->first_end_ms = INT64_MAX;
  if (options->link && !(bans->store = ban_store_new(options->link, options->config,
                                                     options->counters, &events, bans))) {
    free(bans);
    return NULL;
  }
  return bans;
}

void bans_free(struct bans *bans) {
  if (bans) {
    ban_store_free(bans->store);
    drop_if(bans, is_any, 0);
    free(bans);
  }
}

void bans_tick(struct bans *bans, int64_t now_ms) {
  drop_what_is_over(bans, now_ms);
  tell(bans);
  if (bans->store) {
    ban_store_tick(bans->store);
  }
}

void bans_link_up(struct bans *bans) {
  if (bans->store) {
    ban_store_link_up(bans->store);
  }
}

void bans_changed(struct bans *bans) {
  if (bans->store) {
    ban_store_read(bans->store);
  }
}

void bans_health(const struct bans *bans, struct bans_health *health) {
  *health = (struct bans_health){.uids = HASH_COUNT(bans->held[BAN_UID]),
                                 .networks = HASH_COUNT(bans->held[BAN_NETWORK]),
                                 .shared = bans->store != NULL};
  if (bans->store) {
    ban_store_health(bans->store, &health->store);
  }
}

// --- What is asked -------------------------------------------------------------------

const struct ban *bans_find(const struct bans *bans, int64_t uid, const char *address,
                            int64_t now_ms) {
  const struct ban_subject player = {.kind = BAN_UID, .uid = uid};
  const struct held_ban *held = find(bans, &player);
  uint8_t parsed[NETWORK_ADDRESS_BYTES];
  if (held && !ban_is_over(&held->ban, now_ms)) {
    return &held->ban;
  }
  if (!bans->held[BAN_NETWORK] || network_parse_address(address, parsed) != 0) {
    return NULL;
  }
  for (int bits = NETWORK_PREFIX_MAX_BITS; bits >= 0; bits--) {
    if (bans->prefixes[bits] == 0) {
      continue;
    }
    struct network around = network_around(parsed, (uint8_t)bits);
    held = find_network(bans, &around);
    if (held && network_has(&around, parsed) && !ban_is_over(&held->ban, now_ms)) {
      return &held->ban;
    }
  }
  return NULL;
}

static void log_change(const char *event, const struct ban *ban) {
  char field[BAN_FIELD_BYTES];
  char reason[2 * sizeof ban->reason];
  ban_field(&ban->subject, field);
  log_warn(event, "who=%s until_ms=%" PRId64 " reason=%s", field, ban->until_ms,
           log_quote(reason, sizeof reason, ban->reason, strlen(ban->reason)));
}

int bans_add(struct bans *bans, const struct ban_subject *subject, int64_t until_ms,
             const char *reason, int64_t now_ms) {
  struct ban ban = {.subject = *subject, .since_ms = now_ms, .until_ms = until_ms};
  int error = ban_check_reason(reason);
  if (error != 0) {
    return error;
  }
  strcpy(ban.reason, reason);
  memcpy(ban.by, bans->options.config->server.grpc.advertise, sizeof ban.by);
  if (until_ms < 0 || ban_is_over(&ban, now_ms)) {
    return ERROR_EXPIRED;
  }
  drop_what_is_over(bans, now_ms);
  bool is_new = find(bans, subject) == NULL;
  if (is_new && !has_room(bans, subject)) {
    return ERROR_EXHAUSTED;
  }
  // First where it may be refused: an earlier ban then stays as it is.
  error = bans->store ? ban_store_set(bans->store, &ban) : 0;
  if (error != 0) {
    return error;
  }
  const struct held_ban *held = put(bans, &ban);
  if (!held) {
    return ERROR_MEMORY;
  }
  log_change("banned", &ban);
  if (is_new) {
    bans->options.on_ban(&held->ban, bans->options.owner);
  }
  return 0;
}

int bans_remove(struct bans *bans, const struct ban_subject *subject, int64_t now_ms) {
  struct held_ban *held = find(bans, subject);
  if (!held || ban_is_over(&held->ban, now_ms)) {
    return ERROR_NOT_FOUND;
  }
  int error = bans->store ? ban_store_remove(bans->store, subject) : 0;
  if (error == 0) {
    log_change("unbanned", &held->ban);
    drop(bans, held);
  }
  return error;
}

void bans_each(const struct bans *bans, int64_t now_ms, bans_visit *visit, void *context) {
  for (int kind = 0; kind < BAN_KIND_COUNT; kind++) {
    for (const struct held_ban *held = bans->held[kind]; held; held = held->hh.next) {
      if (!ban_is_over(&held->ban, now_ms) && !visit(&held->ban, context)) {
        return;
      }
    }
  }
}
