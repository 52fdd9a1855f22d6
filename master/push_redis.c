#include "master/push_redis.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/push_message.h"

#define LOG_MODULE LOG_MODULE_PUSH

static void malformed(struct counters *counters, const char *why) {
  static struct log_limit limit = {.kind = "push_malformed"};
  uint64_t suppressed;
  counters_add(counters, COUNTER_PUSH_ORDERS_MALFORMED, 1);
  if (log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
    log_warn("push_malformed", "entrance=redis why=\"%s\" suppressed=%llu", why,
             (unsigned long long)suppressed);
  }
}

static void on_done(const struct push_outcome *outcome, void *context) {
  if (outcome->error == ERROR_INVALID) {
    malformed(context, "it has nothing to push, or nobody to push it to, or too much of either");
  }
}

static void push(const struct push_redis *redis, bool for_all, const PushMessage *message) {
  struct push_body *bodies = push_message_bodies(message->bodies, message->n_bodies);
  // The Broadcaster leaves the flag out.
  bool broadcast = message->broadcast || (for_all && message->n_uids == 0);
  const struct push_order order = {.bodies = bodies,
                                   .body_count = bodies ? message->n_bodies : 0,
                                   .uids = message->uids,
                                   .uid_count = broadcast ? 0 : message->n_uids,
                                   .broadcast = broadcast,
                                   .color = message->color,
                                   .sid = message->sid,
                                   .here_only = true};
  push_hub_send(redis->hub, &order, on_done, redis->counters);
  free(bodies);
}

void push_redis_on_message(const struct push_redis *redis, bool for_all, const uint8_t *bytes,
                           size_t len) {
  if (len == 0) {
    return;  // somebody wanted to know whether we are there (other_gateways.h)
  }
  if (len > PUSH_TOPIC_MAX_BYTES) {
    malformed(redis->counters, "it is too long");
    return;
  }
  PushMessage *message = broadcaster__service__push__v1__push_message__unpack(NULL, len, bytes);
  if (!message) {
    malformed(redis->counters, "it is no PushMessage");
    return;
  }
  if (message->elsewhere) {
    const struct login_elsewhere elsewhere = {.uid = message->elsewhere->uid,
                                              .color = message->elsewhere->color,
                                              .since_ms = message->elsewhere->since_ms,
                                              .late = message->elsewhere->late};
    other_gateways_told(redis->others, &elsewhere);
  } else if (strcmp(message->origin, push_hub_origin(redis->hub)) != 0) {  // else it is our own
    push(redis, for_all, message);
  }
  broadcaster__service__push__v1__push_message__free_unpacked(message, NULL);
}
