#include "master/push_elsewhere.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/push_message.h"

enum {
  LOOKUPS_MAX = 1024,  // under way, of all orders
  WAITING_MAX = 1024,  // orders
  WAITING_MAX_BYTES = 64 << 20,
  GATEWAY_BYTES = 64,  // some bytes more than a gateway's name takes
};

// --- To other gateways -------------------------------------------------------------------

// Packs what the other gateways are to get, but for the uids.
static bool pack_message(struct job *job, const struct push_order *order) {
  PushMessage message;
  if (push_message_init(&message, order->bodies, order->body_count) != 0) {
    return false;
  }
  if (order->broadcast) {
    message.broadcast = true;
    message.color = (char *)(uintptr_t)order->color;
    message.sid = order->sid;
    message.origin = job->hub->origin;
  }
  job->message_len = broadcaster__service__push__v1__push_message__get_packed_size(&message);
  job->message = malloc(job->message_len + 1);
  if (job->message) {
    broadcaster__service__push__v1__push_message__pack(&message, job->message);
  }
  push_message_fini(&message);
  return job->message != NULL;
}

static void on_broadcast_published(int64_t receivers, void *context) {
  struct job *job = context;
  job->outcome.published = receivers >= 0;
  job->outcome.unpublished = receivers < 0;
  push_job_finish(job);
}

static void publish_broadcast(struct job *job) {
  const struct push_hub_options *options = &job->hub->options;
  if (options->publish(PUSH_BROADCAST_TOPIC, job->message, job->message_len, on_broadcast_published,
                       job, options->owner) != 0) {
    on_broadcast_published(-1, job);
  }
}

// Players of one other gateway.
struct handing {
  struct job *job;
  size_t first;
  size_t count;
};

static void finish_if_done(struct job *job) {
  if (job->open == 0) {
    push_job_finish(job);
  }
}

static void on_handed_on(int64_t receivers, void *context) {
  struct handing *handing = context;
  struct job *job = handing->job;
  // A topic without a listener is that of a gateway that is gone.
  enum push_fate fate = receivers < 0    ? PUSH_REFUSED
                        : receivers == 0 ? PUSH_NOT_FOUND
                                         : PUSH_HANDED_ON;
  for (size_t i = 0; i < handing->count; i++) {
    job->targets[handing->first + i].fate = fate;
  }
  free(handing);
  job->open--;
  finish_if_done(job);
}

// The message for count targets from first on, which are all at one gateway.
static int hand_on(struct job *job, size_t first, size_t count) {
  const struct push_hub_options *options = &job->hub->options;
  PushMessage more = BROADCASTER__SERVICE__PUSH__V1__PUSH_MESSAGE__INIT;
  int64_t *uids = malloc(count * sizeof *uids);
  struct handing *handing = malloc(sizeof *handing);
  uint8_t *bytes = NULL;
  int error = ERROR_MEMORY;
  if (!uids || !handing) {
    goto out;
  }
  for (size_t i = 0; i < count; i++) {
    uids[i] = job->targets[first + i].uid;
  }
  more.uids = uids;
  more.n_uids = count;
  // One after the other, two serialized messages are one that has the fields of both.
  size_t more_len = broadcaster__service__push__v1__push_message__get_packed_size(&more);
  bytes = malloc(job->message_len + more_len);
  if (!bytes) {
    goto out;
  }
  memcpy(bytes, job->message, job->message_len);
  broadcaster__service__push__v1__push_message__pack(&more, bytes + job->message_len);
  *handing = (struct handing){.job = job, .first = first, .count = count};
  error = options->publish(job->targets[first].gateway, bytes, job->message_len + more_len,
                           on_handed_on, handing, options->owner);
out:
  if (error != 0) {
    free(handing);
  }
  free(uids);
  free(bytes);
  return error;
}

// Those at the same gateway side by side; those at none last.
static int compare_gateways(const void *a, const void *b) {
  const struct target *left = a;
  const struct target *right = b;
  if (!left->gateway || !right->gateway) {
    return (right->gateway != NULL) - (left->gateway != NULL);
  }
  return strcmp(left->gateway, right->gateway);
}

static void hand_all_on(struct job *job) {
  size_t at = 0;
  qsort(job->targets, job->target_count, sizeof *job->targets, compare_gateways);
  job->open = 1;  // not to be finished in between
  while (at < job->target_count && job->targets[at].gateway) {
    size_t first = at;
    while (at < job->target_count && job->targets[at].gateway &&
           strcmp(job->targets[at].gateway, job->targets[first].gateway) == 0) {
      job->targets[at++].fate = PUSH_REFUSED;  // until it is handed on
    }
    job->open++;
    job->open -= hand_on(job, first, at - first) != 0;
  }
  job->open--;
  finish_if_done(job);
}

// --- Where they are ------------------------------------------------------------------------

struct lookup {
  struct job *job;
  size_t target;
};

static void go_on(struct push_hub *hub);

static void on_found(int error, const char *address, int64_t ttl_ms, void *context) {
  struct lookup *lookup = context;
  struct job *job = lookup->job;
  struct push_hub *hub = job->hub;
  struct target *target = &job->targets[lookup->target];
  (void)ttl_ms;
  free(lookup);
  // A route to here that the directory does not know of is of a session that has ended.
  bool elsewhere = error == 0 && strcmp(address, hub->options.config->server.grpc.advertise) != 0;
  if (elsewhere) {
    target->gateway = strdup(address);
  }
  if (elsewhere ? !target->gateway
                : error != 0 && error != ERROR_NOT_FOUND && error != ERROR_MALFORMED) {
    target->fate = PUSH_REFUSED;
  }
  job->open--;
  hub->elsewhere.lookups--;
  go_on(hub);
}

static void look_for(struct job *job, struct target *target) {
  const struct push_hub_options *options = &job->hub->options;
  struct lookup *lookup = malloc(sizeof *lookup);
  if (!lookup) {
    target->fate = PUSH_REFUSED;
    return;
  }
  *lookup = (struct lookup){.job = job, .target = (size_t)(target - job->targets)};
  job->open++;
  job->hub->elsewhere.lookups++;
  if (options->find_gateway(target->uid, job->color, on_found, lookup, options->owner) != 0) {
    free(lookup);
    job->open--;
    job->hub->elsewhere.lookups--;
    target->fate = PUSH_REFUSED;
  }
}

static bool is_missing(const struct target *target) { return target->worker < 0 && !target->again; }

// Asks for the next players, of one order after the other.
static void look_on(struct push_elsewhere *elsewhere) {
  elsewhere->asking = true;
  while (elsewhere->looking && elsewhere->lookups < LOOKUPS_MAX) {
    struct job *job = elsewhere->looking;
    if (job->next == job->target_count) {
      elsewhere->looking = TAILQ_NEXT(job, link);
      continue;
    }
    struct target *target = &job->targets[job->next++];
    if (is_missing(target)) {
      look_for(job, target);
    }
  }
  elsewhere->asking = false;
}

static bool all_are_found(const struct job *job) {
  return job->next == job->target_count && job->open == 0;
}

static void go_on(struct push_hub *hub) {
  struct push_elsewhere *elsewhere = &hub->elsewhere;
  struct job *job;
  if (elsewhere->asking) {
    return;
  }
  look_on(elsewhere);
  while ((job = TAILQ_FIRST(&elsewhere->waiting)) && all_are_found(job)) {
    if (elsewhere->looking == job) {
      elsewhere->looking = TAILQ_NEXT(job, link);
    }
    TAILQ_REMOVE(&elsewhere->waiting, job, link);
    if (job->targets) {
      hand_all_on(job);
    } else {
      publish_broadcast(job);
    }
  }
}

// --- An order ------------------------------------------------------------------------------

static bool is_for_others(const struct job *job, const struct push_order *order) {
  bool is_for_them = order->broadcast;
  for (size_t i = 0; i < job->target_count && !is_for_them; i++) {
    is_for_them = is_missing(&job->targets[i]);
  }
  return is_for_them && !order->here_only && job->hub->options.publish;
}

// False: too many wait, or there is no memory.
static bool keep(struct job *job, const struct push_order *order) {
  struct push_elsewhere *elsewhere = &job->hub->elsewhere;
  if (elsewhere->count >= WAITING_MAX || elsewhere->bytes >= WAITING_MAX_BYTES ||
      !pack_message(job, order)) {
    return false;
  }
  job->bytes = job->message_len +
               job->target_count * (sizeof *job->targets + sizeof *job->fates + GATEWAY_BYTES);
  job->is_waiting = true;
  elsewhere->count++;
  elsewhere->bytes += job->bytes;
  TAILQ_INSERT_TAIL(&elsewhere->waiting, job, link);
  elsewhere->looking = elsewhere->looking ? elsewhere->looking : job;
  return true;
}

void push_elsewhere_send(struct job *job, const struct push_order *order) {
  // As in `janusctl push`: most deployments have one color.
  const char *own_color = job->hub->options.config->label.color;
  snprintf(job->color, sizeof job->color, "%s", order->color[0] != '\0' ? order->color : own_color);
  if (!is_for_others(job, order)) {
    push_job_finish(job);
  } else if (keep(job, order)) {
    go_on(job->hub);
  } else {
    job->outcome.unpublished = order->broadcast;
    for (size_t i = 0; i < job->target_count; i++) {
      job->targets[i].fate = is_missing(&job->targets[i]) ? PUSH_REFUSED : job->targets[i].fate;
    }
    push_job_finish(job);
  }
}

void push_elsewhere_init(struct push_elsewhere *elsewhere) { TAILQ_INIT(&elsewhere->waiting); }

bool push_elsewhere_is_idle(const struct push_elsewhere *elsewhere) {
  return elsewhere->count == 0;
}

void push_elsewhere_done(struct job *job) {
  struct push_elsewhere *elsewhere = &job->hub->elsewhere;
  if (job->is_waiting) {
    elsewhere->count--;
    elsewhere->bytes -= job->bytes;
  }
}
