#include "master/push_hub.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/deflate.h"
#include "common/log.h"
#include "common/packet_deflate.h"
#include "common/seal.h"
#include "common/system_message.h"
#include "master/push_message.h"
#include "proto/push.pb-c.h"

enum {
  LOOKUPS = 256,        // of one order that are under way
  JOBS_MAX = 1024,      // orders that wait for others
  BROADCASTS_MAX = 64,  // under way in one worker
  BROADCASTS_MAX_BYTES = 8 << 20,
};

// A broadcast that a worker is not through with.
struct outstanding {
  uint64_t serial;
  size_t bytes;
};

struct backlog {
  struct outstanding ring[BROADCASTS_MAX];
  size_t first;
  size_t count;
  size_t bytes;
};

struct push_hub {
  struct push_hub_options options;
  struct deflater *deflater;
  uint8_t *packet;  // one, under construction
  size_t packet_room;
  uint64_t serial;  // of the latest broadcast
  struct backlog backlogs[CONFIG_WORKERS];
  size_t jobs;
  char origin[CONFIG_TEXT_BYTES + 24];
};

// One player of an order. Sorted by uid; one that is named again shares the fate of the
// first.
struct target {
  int64_t uid;
  size_t position;  // in the order
  enum push_fate fate;
  bool again;
  int worker;           // that has its session, or -1
  uint64_t connection;  // of that
  char *gateway;        // the other one that has it, malloc'd
};

// An order on its way.
struct job {
  struct push_hub *hub;
  push_on_done *on_done;
  void *context;
  struct push_outcome outcome;
  struct target *targets;
  size_t target_count;
  size_t body_count;
  enum push_fate *fates;
  // What the other gateways get, but for the uids.
  uint8_t *message;
  size_t message_len;
  char color[ROUTE_COLOR_MAX_BYTES + 1];
  size_t next;  // whose gateway is to be found next
  size_t open;  // questions not yet answered
  bool asking;  // they are being asked: do not finish
  bool counted;
};

// --- The end of an order -----------------------------------------------------------

static void job_free(struct job *job) {
  for (size_t i = 0; job->targets && i < job->target_count; i++) {
    free(job->targets[i].gateway);
  }
  if (job->counted) {
    job->hub->jobs--;
  }
  free(job->targets);
  free(job->fates);
  free(job->message);
  free(job);
}

static int compare_targets(const void *a, const void *b) {
  const struct target *left = a;
  const struct target *right = b;
  if (left->uid != right->uid) {
    return left->uid < right->uid ? -1 : 1;
  }
  return left->position < right->position ? -1 : 1;
}

// How many players or bodies for players came to what.
static void count_fates(struct job *job) {
  static const enum counter counters[PUSH_FATE_COUNT] = {
      [PUSH_HERE] = COUNTER_PUSHES_HERE,
      [PUSH_HANDED_ON] = COUNTER_PUSHES_HANDED_ON,
      [PUSH_NOT_FOUND] = COUNTER_PUSHES_NOT_FOUND,
      [PUSH_REFUSED] = COUNTER_PUSHES_REFUSED,
  };
  const struct target *first = NULL;
  qsort(job->targets, job->target_count, sizeof *job->targets, compare_targets);
  for (size_t i = 0; i < job->target_count; i++) {
    const struct target *target = &job->targets[i];
    first = target->again && first ? first : target;
    job->fates[target->position] = first->fate;
    job->outcome.count[first->fate]++;
    // Those here were counted body by body.
    if (!target->again && target->worker < 0) {
      counters_add(job->hub->options.counters, counters[target->fate], job->body_count);
    }
  }
}

static void job_finish(struct job *job) {
  if (job->targets) {
    count_fates(job);
    job->outcome.fates = job->fates;
  }
  job->on_done(&job->outcome, job->context);
  job_free(job);
}

// --- To the workers ------------------------------------------------------------------

// The packet that each client gets, in hub->packet. ERROR_TOO_LARGE when clients do not
// take it.
static int encode(struct push_hub *hub, const struct push_body *body, size_t *len) {
  const struct config *config = hub->options.config;
  const struct packet packet = {.data = body->data,
                                .data_len = body->data_len,
                                .data_version = body->data_version,
                                .obj = body->obj,
                                .mod = body->mod,
                                .seq = body->seq};
  struct packet packed;
  if (body->data_len > PUSH_DATA_MAX_BYTES) {
    return ERROR_TOO_LARGE;
  }
  int error = packet_deflate(hub->deflater, config, &packet, &packed);
  if (error != 0) {
    return error;
  }
  *len = packet_size(&packed);
  size_t sealed = *len + (config->label.encrypted ? SEAL_OVERHEAD_BYTES : 0);
  if (sealed > (size_t)config->limits.message_to_client_bytes ||
      *len > CHANNEL_PUSH_PACKET_MAX_BYTES) {
    return ERROR_TOO_LARGE;
  }
  if (*len > hub->packet_room) {
    uint8_t *larger = realloc(hub->packet, *len);
    if (!larger) {
      return ERROR_MEMORY;
    }
    hub->packet = larger;
    hub->packet_room = *len;
  }
  packet_encode(&packed, hub->packet);
  counters_add(hub->options.counters, COUNTER_DEFLATED, packed.compress);
  return 0;
}

static void log_too_large(const struct push_body *body) {
  static struct log_limit limit;
  uint64_t suppressed;
  if (log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
    log_warn("push_too_large", "mod=%d seq=%d data_bytes=%zu suppressed=%llu", body->mod, body->seq,
             body->data_len, (unsigned long long)suppressed);
  }
}

static struct channel_push about(const struct push_body *body, size_t len) {
  return (struct channel_push){.obj = body->obj,
                               .data_version = body->data_version,
                               .mod = body->mod,
                               .seq = body->seq,
                               .packet_bytes = (uint32_t)len};
}

// To those of one worker, in as many messages as it takes.
static void send_to_worker(struct job *job, int worker, const struct push_body *body, size_t len) {
  const struct push_hub_options *options = &job->hub->options;
  uint64_t receivers[CHANNEL_PUSH_RECEIVERS_MAX];
  size_t at = 0;
  while (at < job->target_count) {
    struct channel_push push = about(body, len);
    size_t start = at;
    for (; at < job->target_count && push.receiver_count < CHANNEL_PUSH_RECEIVERS_MAX; at++) {
      if (job->targets[at].worker == worker && !job->targets[at].again) {
        receivers[push.receiver_count++] = job->targets[at].connection;
      }
    }
    if (push.receiver_count == 0) {
      return;
    }
    bool sent = options->send(worker, &push, receivers, job->hub->packet, options->owner) == 0;
    counters_add(options->counters, sent ? COUNTER_PUSHES_HERE : COUNTER_PUSHES_REFUSED,
                 push.receiver_count);
    for (size_t i = start; !sent && i < at; i++) {
      if (job->targets[i].worker == worker) {
        job->targets[i].fate = PUSH_REFUSED;
      }
    }
  }
}

// A body that nobody takes: whoever was to get it is told so instead.
static void refuse_body(struct job *job, const struct push_body *body, int error) {
  const struct push_hub_options *options = &job->hub->options;
  log_too_large(body);
  job->outcome.too_large = error == ERROR_TOO_LARGE;
  counters_add(options->counters, COUNTER_TOO_LARGE_OUT, error == ERROR_TOO_LARGE);
  for (size_t i = 0; i < job->target_count; i++) {
    struct target *target = &job->targets[i];
    if (target->worker < 0 || target->again) {
      continue;
    }
    target->fate = PUSH_REFUSED;
    counters_add(options->counters, COUNTER_PUSHES_REFUSED, 1);
    const struct directory_session *session =
        directory_find(options->directory, target->connection);
    if (session && error == ERROR_TOO_LARGE) {
      options->tell_too_large(session, body->mod, body->seq, options->owner);
    }
  }
}

static bool make_targets(struct job *job, const struct push_order *order) {
  job->targets = calloc(order->uid_count, sizeof *job->targets);
  job->fates = calloc(order->uid_count, sizeof *job->fates);
  if (!job->targets || !job->fates) {
    return false;
  }
  job->target_count = order->uid_count;
  for (size_t i = 0; i < order->uid_count; i++) {
    job->targets[i] =
        (struct target){.uid = order->uids[i], .position = i, .fate = PUSH_NOT_FOUND, .worker = -1};
  }
  qsort(job->targets, job->target_count, sizeof *job->targets, compare_targets);
  for (size_t i = 0; i < job->target_count; i++) {
    struct target *target = &job->targets[i];
    target->again = i > 0 && target->uid == job->targets[i - 1].uid;
    const struct directory_session *session =
        target->again ? NULL : directory_session_of(job->hub->options.directory, target->uid);
    if (session) {
      target->worker = session->worker;
      target->connection = session->session.connection;
      target->fate = PUSH_HERE;
    }
  }
  return true;
}

static void deliver(struct job *job, const struct push_order *order) {
  for (size_t i = 0; i < order->body_count; i++) {
    size_t len;
    int error = encode(job->hub, &order->bodies[i], &len);
    if (error != 0) {
      refuse_body(job, &order->bodies[i], error);
      continue;
    }
    for (int worker = 0; worker < job->hub->options.workers; worker++) {
      send_to_worker(job, worker, &order->bodies[i], len);
    }
  }
}

// --- Broadcasts ------------------------------------------------------------------------

// Those that a broadcast is for.
struct audience {
  const struct push_hub *hub;
  const struct push_order *order;
  const struct push_body *too_large;  // tells each of them, when set
  size_t sessions[CONFIG_WORKERS];
};

static bool look_at_session(struct directory_session *session, void *context) {
  struct audience *audience = context;
  const struct push_order *order = audience->order;
  const struct push_hub_options *options = &audience->hub->options;
  if ((order->color[0] == '\0' || strcmp(order->color, session->session.color) == 0) &&
      (order->sid == 0 || order->sid == session->session.sid)) {
    audience->sessions[session->worker]++;
    if (audience->too_large) {
      options->tell_too_large(session, audience->too_large->mod, audience->too_large->seq,
                              options->owner);
    }
  }
  return true;
}

static bool may_broadcast(const struct backlog *backlog, size_t bytes) {
  return backlog->count < BROADCASTS_MAX && backlog->bytes + bytes <= BROADCASTS_MAX_BYTES;
}

static void note_broadcast(struct backlog *backlog, uint64_t serial, size_t bytes) {
  backlog->ring[(backlog->first + backlog->count) % BROADCASTS_MAX] =
      (struct outstanding){serial, bytes};
  backlog->count++;
  backlog->bytes += bytes;
}

void push_hub_broadcast_done(struct push_hub *hub, int worker, uint64_t serial) {
  struct backlog *backlog = &hub->backlogs[worker];
  while (backlog->count > 0 && backlog->ring[backlog->first].serial <= serial) {
    backlog->bytes -= backlog->ring[backlog->first].bytes;
    backlog->first = (backlog->first + 1) % BROADCASTS_MAX;
    backlog->count--;
  }
}

void push_hub_worker_gone(struct push_hub *hub, int worker) {
  hub->backlogs[worker] = (struct backlog){0};
}

// To one worker's sessions. Only as many are under way as it can be trusted to work off:
// beyond that the sender is to wait.
static bool broadcast_to(struct push_hub *hub, int worker, const struct channel_push *push) {
  struct backlog *backlog = &hub->backlogs[worker];
  if (!may_broadcast(backlog, push->packet_bytes) ||
      hub->options.send(worker, push, NULL, hub->packet, hub->options.owner) != 0) {
    return false;
  }
  note_broadcast(backlog, push->serial, push->packet_bytes);
  return true;
}

static void broadcast_body(struct job *job, const struct push_order *order,
                           const struct push_body *body, size_t reached[CONFIG_WORKERS]) {
  struct push_hub *hub = job->hub;
  struct counters *counters = hub->options.counters;
  struct audience audience = {.hub = hub, .order = order};
  size_t len = 0;
  int error = encode(hub, body, &len);
  if (error != 0) {
    log_too_large(body);
    job->outcome.too_large = error == ERROR_TOO_LARGE;
    counters_add(counters, COUNTER_TOO_LARGE_OUT, error == ERROR_TOO_LARGE);
    audience.too_large = error == ERROR_TOO_LARGE ? body : NULL;
  }
  directory_each(hub->options.directory, look_at_session, &audience);
  struct channel_push push = about(body, len);
  push.serial = ++hub->serial;
  push.sid = order->sid;
  strncpy(push.color, order->color, sizeof push.color - 1);
  for (int worker = 0; worker < hub->options.workers; worker++) {
    size_t sessions = audience.sessions[worker];
    if (sessions == 0) {
      continue;
    }
    bool sent = error == 0 && broadcast_to(hub, worker, &push);
    counters_add(counters, sent ? COUNTER_PUSHES_HERE : COUNTER_PUSHES_REFUSED, sessions);
    reached[worker] = sent ? sessions : 0;
    job->outcome.count[PUSH_REFUSED] += sent ? 0 : sessions;
  }
}

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
  job_finish(job);
}

static void publish_broadcast(struct job *job, const struct push_order *order) {
  const struct push_hub_options *options = &job->hub->options;
  if (order->here_only || !options->publish || !pack_message(job, order) ||
      options->publish(PUSH_BROADCAST_TOPIC, job->message, job->message_len, on_broadcast_published,
                       job, options->owner) != 0) {
    job_finish(job);
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
    job_finish(job);
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
  job_finish(job);
}

static void look_elsewhere(struct job *job, const struct push_order *order) {
  struct push_hub *hub = job->hub;
  if (order->here_only || !hub->options.publish || !some_are_missing(job)) {
    job_finish(job);
  } else if (hub->jobs >= JOBS_MAX || !pack_message(job, order)) {
    refuse_missing(job);
  } else {
    hub->jobs++;
    job->counted = true;
    strncpy(job->color, order->color, sizeof job->color - 1);
    look_on(job);
  }
}

// --- An order --------------------------------------------------------------------------

static bool makes_sense(const struct push_order *order) {
  return order->body_count > 0 && order->body_count <= PUSH_BODIES_MAX &&
         order->uid_count <= PUSH_UIDS_MAX && order->broadcast == (order->uid_count == 0) &&
         strlen(order->color) <= ROUTE_COLOR_MAX_BYTES;
}

static void fail(push_on_done *on_done, void *context, int error) {
  const struct push_outcome outcome = {.error = error};
  on_done(&outcome, context);
}

void push_hub_send(struct push_hub *hub, const struct push_order *order, push_on_done *on_done,
                   void *context) {
  struct job *job = makes_sense(order) ? calloc(1, sizeof *job) : NULL;
  if (!job) {
    fail(on_done, context, makes_sense(order) ? ERROR_MEMORY : ERROR_INVALID);
    return;
  }
  job->hub = hub;
  job->on_done = on_done;
  job->context = context;
  job->body_count = order->body_count;
  counters_add(hub->options.counters, COUNTER_PUSH_ORDERS, 1);
  if (order->broadcast) {
    size_t reached[CONFIG_WORKERS] = {0};
    for (size_t i = 0; i < order->body_count; i++) {
      broadcast_body(job, order, &order->bodies[i], reached);
    }
    for (int worker = 0; worker < hub->options.workers; worker++) {
      job->outcome.count[PUSH_HERE] += reached[worker];
    }
    publish_broadcast(job, order);
  } else if (!make_targets(job, order)) {
    job_free(job);
    fail(on_done, context, ERROR_MEMORY);
  } else {
    deliver(job, order);
    look_elsewhere(job, order);
  }
}

// --- The topics --------------------------------------------------------------------------

static void ignore_outcome(const struct push_outcome *outcome, void *context) {
  (void)outcome;
  (void)context;
}

static void malformed(struct push_hub *hub, const char *why) {
  static struct log_limit limit;
  uint64_t suppressed;
  counters_add(hub->options.counters, COUNTER_PUSH_ORDERS_MALFORMED, 1);
  if (log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
    log_warn("push_malformed", "entrance=redis why=\"%s\" suppressed=%llu", why,
             (unsigned long long)suppressed);
  }
}

void push_hub_on_topic(struct push_hub *hub, bool for_all, const uint8_t *bytes, size_t len) {
  struct push_body *bodies = NULL;
  if (len == 0) {
    return;  // somebody wanted to know whether we are there (other_gateways.h)
  }
  PushMessage *message =
      len <= PUSH_ORDER_MAX_BYTES
          ? broadcaster__service__push__v1__push_message__unpack(NULL, len, bytes)
          : NULL;
  if (!message) {
    malformed(hub, len <= PUSH_ORDER_MAX_BYTES ? "it is no PushMessage" : "it is too long");
    return;
  }
  if (strcmp(message->origin, hub->origin) == 0) {
    goto out;  // our own, delivered already
  }
  if (message->elsewhere) {
    const struct push_elsewhere elsewhere = {.uid = message->elsewhere->uid,
                                             .color = message->elsewhere->color,
                                             .since_ms = message->elsewhere->since_ms,
                                             .late = message->elsewhere->late};
    hub->options.on_elsewhere(&elsewhere, hub->options.owner);
    goto out;
  }
  bodies = push_message_bodies(message->bodies, message->n_bodies);
  // The Broadcaster leaves the flag out.
  struct push_order order = {.bodies = bodies,
                             .body_count = bodies ? message->n_bodies : 0,
                             .uids = message->uids,
                             .uid_count = message->n_uids,
                             .broadcast = message->broadcast || (for_all && message->n_uids == 0),
                             .color = message->color,
                             .sid = message->sid,
                             .here_only = true};
  if (order.broadcast) {
    order.uid_count = 0;
  }
  if (makes_sense(&order)) {
    push_hub_send(hub, &order, ignore_outcome, NULL);
  } else {
    malformed(hub, order.body_count == 0 ? "it has nothing to push"
                                         : "it is for nobody, or for too many");
  }
out:
  free(bodies);
  broadcaster__service__push__v1__push_message__free_unpacked(message, NULL);
}

// --- Beginning and end ---------------------------------------------------------------------

struct push_hub *push_hub_new(const struct push_hub_options *options) {
  struct push_hub *hub = calloc(1, sizeof *hub);
  if (!hub || !(hub->deflater = deflater_new())) {
    free(hub);
    return NULL;
  }
  hub->options = *options;
  // Another run of this gateway is another origin.
  snprintf(hub->origin, sizeof hub->origin, "%s#%08x%08x", options->config->server.grpc.advertise,
           randombytes_random(), randombytes_random());
  return hub;
}

void push_hub_free(struct push_hub *hub) {
  if (hub) {
    deflater_free(hub->deflater);
    free(hub->packet);
    free(hub);
  }
}
