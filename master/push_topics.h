// The topics in Redis by which gateways and servers reach each other: one connection that
// is subscribed to them, made again whenever it breaks, and publishing over the link.
//
// What is published while it is away is lost: that is what topics are. Loop thread only.
#ifndef JANUS_MASTER_PUSH_TOPICS_H
#define JANUS_MASTER_PUSH_TOPICS_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/redis_link.h"

enum { PUSH_TOPICS_MAX = 4 };

struct push_topics;

struct push_topics_options {
  struct event_base *base;
  const struct config *config;
  struct redis_link *link;
  const char *topics[PUSH_TOPICS_MAX];
  size_t count;
  // A message on topics[topic]; bytes are borrowed for the call.
  void (*on_message)(size_t topic, const uint8_t *bytes, size_t len, void *owner);
  // All topics are subscribed to, anew: what came before may have been missed.
  void (*on_subscribed)(void *owner);
  void *owner;
};

// All in options is borrowed. NULL when out of memory.
struct push_topics *push_topics_new(const struct push_topics_options *options);
void push_topics_free(struct push_topics *topics);  // before the link

// The link's masters may be others now.
void push_topics_follow(struct push_topics *topics);
// Leaves all topics, and comes back to them. Between the two whoever publishes is told that nobody
// has heard it. push_topics_is_quiet: nothing more comes.
void push_topics_pause(struct push_topics *topics);
void push_topics_resume(struct push_topics *topics);
bool push_topics_is_quiet(const struct push_topics *topics);
// Looks after a connection that has gone silent; each second.
void push_topics_tick(struct push_topics *topics);

// on_published comes once, later: how many have got it, as far as can be told (a Cluster
// does not tell: 1 then), or -1 when it was not published. Never after an error returned
// here (those of redis_link_send).
int push_topics_publish(struct push_topics *topics, const char *topic, const uint8_t *bytes,
                        size_t len, void (*on_published)(int64_t receivers, void *context),
                        void *context) MUST_CHECK;

struct push_topics_health {
  bool subscribed;
  char address[128];  // of the server that it is, or is to be, subscribed at
  uint64_t lost;
  int64_t since_ms;  // wall clock
  char last_error[256];
  int64_t last_error_ms;  // wall clock; 0: none yet
};
void push_topics_health(const struct push_topics *topics, struct push_topics_health *health);

#endif
