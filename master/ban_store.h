// The list of bans in Redis, which all gateways share: a hash, read whole and written ban
// by ban (ban.h has how each stands there).
//
// It is read page by page, and neither we nor Redis have much to do for one: a hash that
// something else has filled does not stall the loop, nor keep breaking the connection that
// routes go over too. What is to be written waits while Redis is away, one write for each
// ban, the last word on it. After writing, the others are told on a topic of the hash's own
// name.
//
// The hash has one field that is no ban: a name, made up by whoever writes the first one. A
// list of another name than before, or of none, is not one that everybody was taken off, but
// one that Redis has lost.
#ifndef JANUS_MASTER_BAN_STORE_H
#define JANUS_MASTER_BAN_STORE_H

#include "common/counters.h"
#include "common/redis_link.h"
#include "master/ban.h"

// The hash, and the topic. Not below the prefix of routes, whose feed would follow it.
#define BAN_STORE_KEY "janus.gate.bans"

struct ban_store;

enum ban_reading {
  BAN_READING_PART,   // it broke off, and more may be there
  BAN_READING_WHOLE,  // all has been shown, except for bans with a pending write
  BAN_READING_LOST,   // the same, but it is not the list that was known before
};

struct ban_store_events {
  // One ban of the list, of which no write is pending; maybe twice in one reading. False:
  // there is no room for it.
  bool (*on_ban)(const struct ban *ban, void *owner);
  // A reading is over.
  void (*on_read)(enum ban_reading reading, void *owner);
};

// link, config and counters are borrowed. NULL when out of memory.
struct ban_store *ban_store_new(struct redis_link *link, const struct config *config,
                                struct counters *counters, const struct ban_store_events *events,
                                void *owner);
void ban_store_free(struct ban_store *store);  // after the link

// Writes a ban; takes it out. It is pending from here on, until Redis has it and no reading
// is under way that began before. ERROR_EXHAUSTED: too much waits; ERROR_MEMORY.
int ban_store_set(struct ban_store *store, const struct ban *ban) MUST_CHECK;
// The same for one that the list had before it was lost; however many wait.
int ban_store_restore(struct ban_store *store, const struct ban *ban) MUST_CHECK;
int ban_store_remove(struct ban_store *store, const struct ban_subject *subject) MUST_CHECK;
bool ban_store_is_pending(const struct ban_store *store, const struct ban_subject *subject);

// The list may be another: it is read at once, or within a second if it just was.
void ban_store_read(struct ban_store *store);
// A master answers that did not before.
void ban_store_link_up(struct ban_store *store);
// Retries, and reads when nobody has told of a change for long; each second.
void ban_store_tick(struct ban_store *store);

struct ban_store_health {
  size_t pending_writes;  // that Redis does not have yet
  size_t malformed;       // in the list as it was last read: no ban
  size_t left_out;        // the same: no room for them
  uint64_t readings;      // of the whole list
  int64_t read_ms;        // wall clock: when it was last read whole; 0: not yet
  char last_error[256];
  int64_t last_error_ms;  // wall clock; 0: none yet
};
void ban_store_health(const struct ban_store *store, struct ban_store_health *health);

#endif
