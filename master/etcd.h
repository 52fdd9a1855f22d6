// A view of some prefixes in etcd, and a key of our own there.
//
// One session at a time, with one of the endpoints: log in, list each prefix, watch it
// from the list's revision on (so nothing is missed), and keep the own key under a
// lease. Whatever goes wrong in it ends the session, and the next one begins with the
// next endpoint, after a jittered backoff, with fresh lists. What was known stays known
// meanwhile; what the new lists make of it is the owner's business.
//
// A member that hangs is noticed by its silence on the lease; one without a leader ends
// its streams, as is asked of it (metadata hasleader).
#ifndef JANUS_MASTER_ETCD_H
#define JANUS_MASTER_ETCD_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/counters.h"

enum {
  ETCD_PREFIXES = CONFIG_TUNNEL_TYPES,
  ETCD_PREFIX_BYTES = 256,  // of one, with its NUL
};

struct etcd;

// Keys and values are bytes, borrowed for the call.
struct etcd_pair {
  const uint8_t *key;
  size_t key_len;
  const uint8_t *value;
  size_t value_len;
  int64_t revision;  // at which it got this value
};

struct etcd_events {
  // All that a prefix (by its index) has, as each session begins. lost_data: this etcd has
  // forgotten some of what it once said.
  void (*on_list)(size_t prefix, const struct etcd_pair *pairs, size_t count, bool lost_data,
                  void *owner);
  // One key has a new value; one is gone (pair->value is NULL).
  void (*on_change)(size_t prefix, const struct etcd_pair *pair, void *owner);
  // What came belongs together and is whole for now.
  void (*on_settled)(void *owner);
  // A session was lost that had been watching.
  void (*on_lost)(void *owner);
};

struct etcd_options {
  const struct config *config;
  const struct secrets *secrets;
  struct counters *counters;
  const char *prefixes[ETCD_PREFIXES];
  size_t prefix_count;
};

// All in options is borrowed, the prefixes too. NULL with the reason in why.
struct etcd *etcd_new(struct event_base *base, const struct etcd_options *options,
                      const struct etcd_events *events, void *owner, char *why, size_t why_size);
void etcd_free(struct etcd *etcd);

// Keeps key at value under a lease from now on, in whatever session there is. Copied. Once,
// and again after each etcd_withdraw.
void etcd_announce(struct etcd *etcd, const char *key, const char *value);
// The lease of the key that is there; 0: none is.
int64_t etcd_lease(const struct etcd *etcd);
// Before the first of them: the key that is to be announced, or withdrawn, stands under this lease
// already.
void etcd_adopt_lease(struct etcd *etcd, int64_t lease);
// Removes it, by revoking the lease; on_gone comes once, maybe from inside, when that is
// done or can't be done.
void etcd_withdraw(struct etcd *etcd, void (*on_gone)(void *owner), void *owner);

struct etcd_health {
  const char *state;     // "connecting", "listing", "watching"
  const char *endpoint;  // of the session
  bool announced;        // the own key is there
  int64_t revision;      // of the latest that was seen
  uint64_t sessions_lost;
  int64_t since_ms;  // wall clock: of the state
  char last_error[256];
  int64_t last_error_ms;  // wall clock; 0: none yet
};
void etcd_health(const struct etcd *etcd, struct etcd_health *health);

#endif
