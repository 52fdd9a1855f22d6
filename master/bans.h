// Who may not come in: by uid or by network, until some time or for ever.
//
// With a link to Redis all gateways share one list there (ban_store.h). What of it is known
// here stays in force while Redis is away, and what is asked for meanwhile is in force here
// at once and goes there when it is back. Without a link the list is this gateway's own.
//
// now_ms is always the wall clock: other gateways must agree on when a ban is over.
#ifndef JANUS_MASTER_BANS_H
#define JANUS_MASTER_BANS_H

#include "master/ban.h"
#include "master/ban_store.h"

enum {
  BANS_MAX = 100000,
  BANS_NETWORKS_MAX = 10000,  // of them
};

// Where changes are told: whoever hears of one there calls bans_changed.
#define BANS_TOPIC BAN_STORE_KEY

struct bans;

struct bans_options {
  const struct config *config;
  struct redis_link *link;    // NULL: in memory alone
  struct counters *counters;  // the master's own
  // A ban that was not known here before, for sessions that it fits to be closed (ban_fits);
  // NULL for several at once: each session is to be looked up (bans_find). Comes from inside
  // bans_add, bans_tick, and whenever Redis answers. Must not change the bans.
  void (*on_ban)(const struct ban *ban, void *owner);
  void *owner;
};

// All in options is borrowed for the life of the result. NULL when out of memory.
struct bans *bans_new(const struct bans_options *options);
void bans_free(struct bans *bans);  // after the link

// The ban that keeps out a player of that uid at that address, as a session has it. NULL if
// none does; one valid until the bans change.
const struct ban *bans_find(const struct bans *bans, int64_t uid, const char *address,
                            int64_t now_ms);

// In force when it returns 0, in place of an earlier ban of the same subject, and logged.
// until_ms 0: for ever. ERROR_EXPIRED: until_ms has passed; ERROR_TOO_LARGE, ERROR_INVALID:
// the reason is too long, or no plain text; ERROR_EXHAUSTED: there is no room, here or for
// what waits for Redis; ERROR_MEMORY.
int bans_add(struct bans *bans, const struct ban_subject *subject, int64_t until_ms,
             const char *reason, int64_t now_ms) MUST_CHECK;
// ERROR_NOT_FOUND: there is none, or none that is known yet; ERROR_EXHAUSTED, ERROR_MEMORY.
int bans_remove(struct bans *bans, const struct ban_subject *subject, int64_t now_ms) MUST_CHECK;

// Visits those in force, in no order, until visit returns false. It must not change them.
typedef bool bans_visit(const struct ban *ban, void *context);
void bans_each(const struct bans *bans, int64_t now_ms, bans_visit *visit, void *context);

// Drops what is over, retries, and reads anew now and then; each second.
void bans_tick(struct bans *bans, int64_t now_ms);

// A master of the link answers that did not before; the list in Redis has changed.
void bans_link_up(struct bans *bans);
void bans_changed(struct bans *bans);

struct bans_health {
  size_t uids;
  size_t networks;
  bool shared;  // through Redis; else all of store is 0
  struct ban_store_health store;
};
void bans_health(const struct bans *bans, struct bans_health *health);

#endif
