// The way to Redis, whatever stands there: one server, the master that Sentinels name, or
// a Cluster. It finds the masters, keeps a connection to each, connects again with
// jittered backoff, and sends each command to the master that has its key, following
// MOVED and ASK.
//
// Nothing is queued while a master is away: a command then fails at once, and its owner
// knows best what to do. Loop thread only; used by the master and by workers alike.
#ifndef JANUS_COMMON_REDIS_LINK_H
#define JANUS_COMMON_REDIS_LINK_H

#include "common/config.h"
#include "common/counters.h"
#include "common/redis_connection.h"

struct redis_link;

struct redis_link_events {
  // A master answers that did not before: whatever was written while it was away has to
  // be written now.
  void (*on_master_up)(void *owner);
  // A master does not answer any more.
  void (*on_master_down)(void *owner);
  // The masters are others than before (redis_link_masters).
  void (*on_masters_changed)(void *owner);
};

// config, secrets and counters (NULL: none) are borrowed for its life. NULL with the reason in why.
struct redis_link *redis_link_new(struct event_base *base, const struct config *config,
                                  const struct secrets *secrets, struct counters *counters,
                                  const struct redis_link_events *events, void *owner, char *why,
                                  size_t why_size);
// Ends its connections: commands under way are answered with NULL, and there are no more
// masters. So those who have asked something can be freed before the link is.
void redis_link_close(struct redis_link *link);
void redis_link_free(struct redis_link *link);  // closes it first; accepts NULL, as close does

// Whether any master answers; whether the one that has this key does.
bool redis_link_is_up(const struct redis_link *link);
bool redis_link_reaches(const struct redis_link *link, const char *key, size_t len);
// Whether it is a Cluster.
bool redis_link_is_cluster(const struct redis_link *link);

// Sends a command whose argv[key] is the key. on_reply comes later: with an answer,
// which may be an error of the server's, or NULL for none. ERROR_NOT_FOUND when no
// master for the key answers, ERROR_EXHAUSTED, ERROR_MEMORY: then on_reply never comes.
int redis_link_send(struct redis_link *link, int key, int argc, const char *const *argv,
                    const size_t *lens, redis_on_reply *on_reply, void *context) MUST_CHECK;

// The masters that are known now, one address each; valid until on_masters_changed.
size_t redis_link_masters(const struct redis_link *link, const char *const **addresses);
// Whether that master has the key's slot; without a Cluster it has all.
bool redis_link_owns(const struct redis_link *link, const char *address, const char *key,
                     size_t len);
// What its connections are made with, for connections of the owner's own to a master.
const struct redis_options *redis_link_connection_options(const struct redis_link *link);

struct redis_link_health {
  size_t masters;     // known
  size_t masters_up;  // that answer
  uint64_t lost;      // connections to masters lost, since the start
  int64_t since_ms;   // wall clock: when the last one came or went
  char last_error[256];
  int64_t last_error_ms;  // wall clock; 0: none yet
};
void redis_link_health(const struct redis_link *link, struct redis_link_health *health);

#endif
