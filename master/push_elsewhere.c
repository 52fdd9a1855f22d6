#include "master/push_elsewhere.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/push_message.h"

enum { LOOKUPS = 256 };  // of one order that are under way

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
  push_job_finish(job);
}

void push_elsewhere_broadcast(struct job *job, const struct push_order *order) {
  const struct push_hub_options *options = &job->hub->options;
  if (order->here_only || !options->publish || !pack_message(job, order) ||
      options->publish(PUSH_BROADCAST_TOPIC, job->message, job->message_len, on_broadcast_published,
                       job, options->owner) != 0) {
    push_job_finish(job);
  }
}

// Players of one other gateway.
struct handing {
  struct job *job;
  size_t first;
  size_t count;
};

static void finish_if_done(struct job *job) {
  if (job->open == 0 && !job->asking) {
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
  job->asking = true;
  while (at < job->target_count && job->targets[at].gateway) {
    size_t first = at;
    while (at < job->target_count && job->targets[at].gateway &&
           strcmp(job->targets[at].gateway, job->targets[first].gateway) == 0) {
      job->targets[at++].fate = PUSH_REFUSED;  // until it is handed on
    }
    job->open += hand_on(job, first, at - first) == 0;
  }
  job->asking = false;
  finish_if_done(job);
}

// --- Where they are ------------------------------------------------------------------------

struct lookup {
  struct job *job;
  size_t target;
};

static void look_on(struct job *job);

static void on_found(int error, const char *address, int64_t ttl_ms, void *context) {
  struct lookup *lookup = context;
  struct job *job = lookup->job;
  struct target *target = &job->targets[lookup->target];
  (void)ttl_ms;
  free(lookup);
  // A route to here that the directory does not know of is of a session that has ended.
  bool elsewhere =
      error == 0 && strcmp(address, job->hub->options.config->server.grpc.advertise) != 0;
  if (elsewhere) {
    target->gateway = strdup(address);
  } else if (error != 0 && error != ERROR_NOT_FOUND && error != ERROR_MALFORMED) {
    target->fate = PUSH_REFUSED;
  }
  job->open--;
  look_on(job);
}

static void look_for(struct job *job, size_t i) {
  const struct push_hub_options *options = &job->hub->options;
  struct lookup *lookup = malloc(sizeof *lookup);
  int error = ERROR_MEMORY;
  if (lookup) {
    *lookup = (struct lookup){.job = job, .target = i};
    job->open++;
    error =
        options->find_gateway(job->targets[i].uid, job->color, on_found, lookup, options->owner);
  }
  if (error != 0) {
    job->open -= lookup != NULL;
    free(lookup);
    job->targets[i].fate = PUSH_REFUSED;
  }
}

// Asks for the next ones, and when all are found hands them on.
static void look_on(struct job *job) {
  if (job->asking) {
    return;
  }
  job->asking = true;
  for (; job->next < job->target_count && job->open < LOOKUPS; job->next++) {
    const struct target *target = &job->targets[job->next];
    if (target->worker < 0 && !target->again) {
      look_for(job, job->next);
    }
  }
  job->asking = false;
  if (job->open == 0 && job->next == job->target_count) {
    hand_all_on(job);
  }
}

// Whether any of the players is not here.
static bool some_are_missing(const struct job *job) {
  for (size_t i = 0; i < job->target_count; i++) {
    if (job->targets[i].worker < 0 && !job->targets[i].again) {
      return true;
    }
  }
  return false;
}

static void refuse_missing(struct job *job) {
  for (size_t i = 0; i < job->target_count; i++) {
    if (job->targets[i].worker < 0) {
      job->targets[i].fate = PUSH_REFUSED;
    }
  }
  push_job_finish(job);
}

void push_elsewhere_look(struct job *job, const struct push_order *order) {
  struct push_hub *hub = job->hub;
  if (order->here_only || !hub->options.publish || !some_are_missing(job)) {
    push_job_finish(job);
  } else if (hub->jobs >= JOBS_MAX || !pack_message(job, order)) {
    refuse_missing(job);
  } else {
    hub->jobs++;
    job->counted = true;
    // As in `janusctl push`: most deployments have one color.
    const char *color = order->color[0] != '\0' ? order->color : hub->options.config->label.color;
    snprintf(job->color, sizeof job->color, "%s", color);
    look_on(job);
  }
}

