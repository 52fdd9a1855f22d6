#include "master/push_topics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/backoff.h"
#include "common/clock.h"
#include "common/log.h"

#define LOG_MODULE LOG_MODULE_PUSH

struct push_topics {
  struct push_topics_options options;
  struct redis_connection *connection;  // NULL between tries
  struct event *timer;                  // the next try
  size_t next_master;                   // of a Cluster any one will do
  uint32_t failures;
  size_t confirmed;  // subscriptions
  bool ready;        // the connection
  bool asked;        // to subscribe, on this connection
  bool paused;
  bool leaving;  // the topics, on this connection
  struct push_topics_health health;
};

static void connect_somewhere(struct push_topics *topics);

static void try_later(struct push_topics *topics, const char *why) {
  const struct config *config = topics->options.config;
  struct push_topics_health *health = &topics->health;
  struct timeval time = clock_timeval(backoff_ms(
      config->data.redis.backoff_ms, config->data.redis.backoff_max_ms, topics->failures));
  char quoted[300];
  if (topics->failures++ == 0) {
    log_limited(LOG_LEVEL_WARN, "topics_lost", "address=%s why=%s", health->address,
                log_quote(quoted, sizeof quoted, why, strlen(why)));
  }
  snprintf(health->last_error, sizeof health->last_error, "%.100s: %.140s", health->address, why);
  health->last_error_ms = clock_wall_ms();
  if (health->subscribed) {
    health->subscribed = false;
    health->lost++;
    health->since_ms = clock_wall_ms();
  }
  topics->next_master++;
  evtimer_add(topics->timer, &time);
}

static void drop_connection(struct push_topics *topics) {
  struct redis_connection *connection = topics->connection;
  topics->connection = NULL;
  topics->confirmed = 0;
  topics->ready = false;
  topics->asked = false;
  topics->leaving = false;
  redis_connection_free(connection);
}

static void on_broken(const char *why, void *owner) {
  struct push_topics *topics = owner;
  drop_connection(topics);
  try_later(topics, why);
}

static void on_ready(void *owner) {
  struct push_topics *topics = owner;
  topics->ready = true;
  topics->asked = topics->asked || !topics->paused;
  for (size_t i = 0; !topics->paused && i < topics->options.count; i++) {
    if (redis_connection_subscribe(topics->connection, topics->options.topics[i]) != 0) {
      on_broken("no subscription", topics);
      return;
    }
  }
}

static void on_confirmed(struct push_topics *topics) {
  if (topics->confirmed == topics->options.count && !topics->paused) {
    topics->failures = 0;
    topics->health.subscribed = true;
    topics->health.since_ms = clock_wall_ms();
    log_limited(LOG_LEVEL_INFO, "topics_subscribed", "address=%s", topics->health.address);
    topics->options.on_subscribed(topics->options.owner);
  }
}

static void on_push(const redisReply *reply, void *owner) {
  struct push_topics *topics = owner;
  const redisReply *topic = reply->element[1];
  const redisReply *content = reply->element[2];
  if (content->type == REDIS_REPLY_INTEGER) {  // how many there are now
    topics->confirmed = content->integer > 0 ? (size_t)content->integer : 0;
  }
  if (strcmp(reply->element[0]->str, "subscribe") == 0) {
    on_confirmed(topics);
    return;
  }
  if (strcmp(reply->element[0]->str, "unsubscribe") == 0) {
    topics->health.subscribed = false;
    topics->leaving = topics->leaving && topics->confirmed > 0;
    return;
  }
  for (size_t i = 0; i < topics->options.count; i++) {
    if (topic->type == REDIS_REPLY_STRING && content->type == REDIS_REPLY_STRING &&
        strcmp(topic->str, topics->options.topics[i]) == 0) {
      topics->options.on_message(i, (const uint8_t *)content->str, content->len,
                                 topics->options.owner);
      return;
    }
  }
}

static void connect_somewhere(struct push_topics *topics) {
  static const struct redis_connection_events events = {on_ready, on_push, on_broken};
  const struct redis_options *options = redis_link_connection_options(topics->options.link);
  const char *const *masters;
  size_t count = redis_link_masters(topics->options.link, &masters);
  if (count == 0) {
    return;  // push_topics_follow is called when there are some
  }
  snprintf(topics->health.address, sizeof topics->health.address, "%s",
           masters[topics->next_master % count]);
  topics->connection = redis_connection_new(options, topics->health.address, &events, topics);
  if (!topics->connection) {
    try_later(topics, "out of memory");
  }
}

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  connect_somewhere(owner);
}

void push_topics_follow(struct push_topics *topics) {
  const char *const *masters;
  size_t count = redis_link_masters(topics->options.link, &masters);
  for (size_t i = 0; topics->connection && i < count; i++) {
    if (strcmp(masters[i], topics->health.address) == 0) {
      return;
    }
  }
  if (topics->connection) {
    on_broken("it is no master any more", topics);
  } else if (!evtimer_pending(topics->timer, NULL)) {
    connect_somewhere(topics);
  }
}

void push_topics_pause(struct push_topics *topics) {
  if (topics->paused) {
    return;
  }
  topics->paused = true;
  topics->leaving = topics->asked;
  if (topics->asked && redis_connection_unsubscribe(topics->connection) != 0) {
    on_broken("no memory", topics);
  }
}

void push_topics_resume(struct push_topics *topics) {
  bool was_paused = topics->paused;
  topics->paused = false;
  if (was_paused && topics->ready) {
    on_ready(topics);
  }
}

bool push_topics_is_quiet(const struct push_topics *topics) {
  return topics->paused && !topics->leaving;
}

void push_topics_tick(struct push_topics *topics) {
  if (topics->health.subscribed &&
      redis_connection_send(topics->connection, 1, (const char *[]){"PING"}, NULL, NULL, NULL) !=
          0) {
    on_broken("too much is under way", topics);
  }
}

// --- Publishing ------------------------------------------------------------------

struct publication {
  const struct push_topics *topics;
  void (*on_published)(int64_t receivers, void *context);
  void *context;
};

static void on_reply(const redisReply *reply, void *context) {
  struct publication *publication = context;
  int64_t receivers = reply && reply->type == REDIS_REPLY_INTEGER ? reply->integer : -1;
  // A node of a Cluster counts only those who are connected to it.
  if (receivers == 0 && redis_link_is_cluster(publication->topics->options.link)) {
    receivers = 1;
  }
  publication->on_published(receivers, publication->context);
  free(publication);
}

int push_topics_publish(struct push_topics *topics, const char *topic, const uint8_t *bytes,
                        size_t len, void (*on_published)(int64_t receivers, void *context),
                        void *context) {
  const char *argv[] = {"PUBLISH", topic, (const char *)bytes};
  const size_t lens[] = {7, strlen(topic), len};
  struct publication *publication = malloc(sizeof *publication);
  if (!publication) {
    return ERROR_MEMORY;
  }
  *publication = (struct publication){topics, on_published, context};
  int error = redis_link_send(topics->options.link, 1, 3, argv, lens, on_reply, publication);
  if (error != 0) {
    free(publication);
  }
  return error;
}

// --- Beginning and end -------------------------------------------------------------

struct push_topics *push_topics_new(const struct push_topics_options *options) {
  struct push_topics *topics = calloc(1, sizeof *topics);
  if (!topics) {
    return NULL;
  }
  topics->options = *options;
  topics->health.since_ms = clock_wall_ms();
  topics->timer = evtimer_new(options->base, on_timer, topics);
  if (!topics->timer) {
    free(topics);
    return NULL;
  }
  connect_somewhere(topics);
  return topics;
}

void push_topics_free(struct push_topics *topics) {
  if (topics) {
    drop_connection(topics);
    event_free(topics->timer);
    free(topics);
  }
}

void push_topics_health(const struct push_topics *topics, struct push_topics_health *health) {
  *health = topics->health;
}
