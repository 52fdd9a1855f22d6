#include "master/push_hub.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/packet_deflate.h"
#include "common/seal.h"
#include "master/push_elsewhere.h"
#include "master/push_job.h"

#define LOG_MODULE LOG_MODULE_PUSH

// --- The end of an order -----------------------------------------------------------

static void job_free(struct job *job) {
  for (size_t i = 0; job->targets && i < job->target_count; i++) {
    free(job->targets[i].gateway);
  }
  push_elsewhere_done(job);
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

static const enum counter fate_counters[PUSH_FATE_COUNT] = {
    [PUSH_HERE] = COUNTER_PUSHES_HERE,
    [PUSH_HANDED_ON] = COUNTER_PUSHES_HANDED_ON,
    [PUSH_NOT_FOUND] = COUNTER_PUSHES_NOT_FOUND,
    [PUSH_REFUSED] = COUNTER_PUSHES_REFUSED,
};

// How many players came to what, and bodies for them.
static void count_fates(struct job *job) {
  const struct target *first = NULL;
  qsort(job->targets, job->target_count, sizeof *job->targets, compare_targets);
  for (size_t i = 0; i < job->target_count; i++) {
    const struct target *target = &job->targets[i];
    first = target->again && first ? first : target;
    job->fates[target->position] = first->fate;
    job->outcome.count[first->fate]++;
    if (!target->again) {
      counters_add(job->hub->options.counters, fate_counters[target->fate], job->body_count);
    }
  }
}

bool push_was_refused(const struct push_outcome *outcome) {
  bool came_to_something = outcome->count[PUSH_HERE] > 0 || outcome->count[PUSH_HANDED_ON] > 0 ||
                           outcome->count[PUSH_NOT_FOUND] > 0 || outcome->published;
  return !came_to_something &&
         (outcome->count[PUSH_REFUSED] > 0 || outcome->too_large || outcome->unpublished);
}

void push_job_finish(struct job *job) {
  if (job->targets) {
    count_fates(job);
    job->outcome.fates = job->fates;
  }
  job->on_done(&job->outcome, job->context);
  job_free(job);
}

// --- The packets of an order ---------------------------------------------------------

static void log_too_large(const struct push_body *body) {
  static struct log_limit limit = {.kind = "push_too_large"};
  uint64_t suppressed;
  if (log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
    log_warn("push_too_large", "mod=%d seq=%d data_bytes=%zu suppressed=%llu", body->mod, body->seq,
             body->data_len, (unsigned long long)suppressed);
  }
}

static bool make_room(struct push_hub *hub, size_t len) {
  if (len > hub->packets_room) {
    size_t room = len > 2 * hub->packets_room ? len : 2 * hub->packets_room;
    uint8_t *larger = realloc(hub->packets, room);
    if (!larger) {
      return false;
    }
    hub->packets = larger;
    hub->packets_room = room;
  }
  return true;
}

// Puts what each client gets behind the packets at *end. ERROR_TOO_LARGE when clients do
// not take it.
static int encode(struct push_hub *hub, const struct push_body *body, size_t *end) {
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
  size_t len = packet_size(&packed);
  size_t sealed = len + (config->label.encrypted ? SEAL_OVERHEAD_BYTES : 0);
  if (sealed > (size_t)config->limits.message_to_client_bytes ||
      len > CHANNEL_PUSH_PACKET_MAX_BYTES) {
    return ERROR_TOO_LARGE;
  }
  if (!make_room(hub, *end + len)) {
    return ERROR_MEMORY;
  }
  packet_encode(&packed, hub->packets + *end);
  *end += len;
  counters_add(hub->options.counters, COUNTER_DEFLATED, packed.compress);
  return 0;
}

// All bodies, once for all who get them, into hub->packets and hub->about.
static int encode_all(struct push_hub *hub, const struct push_order *order) {
  size_t end = 0;
  uint64_t taken_ns = (uint64_t)clock_wall_us() * 1000;
  for (size_t i = 0; i < order->body_count; i++) {
    const struct push_body *body = &order->bodies[i];
    size_t start = end;
    int error = encode(hub, body, &end);
    if (error == ERROR_TOO_LARGE) {
      log_too_large(body);
      counters_add(hub->options.counters, COUNTER_TOO_LARGE_OUT, 1);
    }
    if (error != 0) {
      return error;
    }
    hub->about[i] = (struct channel_push){.obj = body->obj,
                                          .data_version = body->data_version,
                                          .mod = body->mod,
                                          .seq = body->seq,
                                          .packet_bytes = (uint32_t)(end - start),
                                          .parent = order->parent,
                                          .taken_ns = taken_ns};
  }
  return 0;
}

// --- To some players -------------------------------------------------------------------

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

// Those of one worker, or of all with -1.
static void refuse_players(struct job *job, int worker) {
  for (size_t i = 0; i < job->target_count; i++) {
    if (worker < 0 || job->targets[i].worker == worker) {
      job->targets[i].fate = PUSH_REFUSED;
    }
  }
}

// One body for those of one worker, in as many messages as it takes.
static int send_body(const struct push_hub_options *options, int worker, struct channel_push *push,
                     const uint64_t *receivers, size_t count, const uint8_t *packet) {
  int error = 0;
  for (size_t at = 0; at < count && error == 0; at += CHANNEL_PUSH_RECEIVERS_MAX) {
    size_t some = count - at < CHANNEL_PUSH_RECEIVERS_MAX ? count - at : CHANNEL_PUSH_RECEIVERS_MAX;
    push->receiver_count = (uint32_t)some;
    error = options->send(worker, push, receivers + at, packet, options->owner);
  }
  return error;
}

// What an order is in bytes to one worker, for so many of its players (0: a broadcast).
static size_t order_bytes(const struct push_hub *hub, size_t body_count, size_t receivers) {
  size_t messages = (receivers + CHANNEL_PUSH_RECEIVERS_MAX - 1) / CHANNEL_PUSH_RECEIVERS_MAX;
  size_t bytes = 0;
  for (size_t i = 0; i < body_count; i++) {
    bytes += receivers * sizeof(uint64_t) +
             (messages > 0 ? messages : 1) * channel_push_bytes(hub->about[i].packet_bytes);
  }
  return bytes;
}

// All of the order to those of one worker, or nothing.
static void send_to_worker(struct job *job, int worker, const uint64_t *receivers, size_t count) {
  struct push_hub *hub = job->hub;
  size_t bytes = order_bytes(hub, job->body_count, count);
  const uint8_t *packet = hub->packets;
  bool fits = bytes <= hub->options.room(worker, hub->options.owner);
  job->outcome.too_large |= bytes > CHANNEL_PUSHES_MAX_BYTES;  // it never does
  for (size_t i = 0; fits && i < job->body_count; i++) {
    fits = send_body(&hub->options, worker, &hub->about[i], receivers, count, packet) == 0;
    packet += hub->about[i].packet_bytes;
  }
  if (!fits) {
    refuse_players(job, worker);
  }
}

static void send_to_players(struct job *job) {
  uint64_t *receivers = malloc(job->target_count * sizeof *receivers);
  for (int worker = 0; worker < job->hub->options.workers; worker++) {
    size_t count = 0;
    for (size_t i = 0; receivers && i < job->target_count; i++) {
      if (job->targets[i].worker == worker) {
        receivers[count++] = job->targets[i].connection;
      }
    }
    if (!receivers) {
      refuse_players(job, worker);
    } else if (count > 0) {
      send_to_worker(job, worker, receivers, count);
    }
  }
  free(receivers);
}

// --- To all ----------------------------------------------------------------------------

// Those that a broadcast is for: of siblings one.
struct audience {
  const struct push_order *order;
  size_t sessions[CONFIG_WORKER_NUMBERS];
};

static bool look_at_session(struct directory_session *session, void *context) {
  struct audience *audience = context;
  const struct push_order *order = audience->order;
  if ((order->color[0] == '\0' || strcmp(order->color, session->session.color) == 0) &&
      (order->sid == 0 || order->sid == session->session.sid) &&
      directory_is_oldest_sibling(session)) {
    audience->sessions[session->worker]++;
  }
  return true;
}

static void note_broadcast(struct backlog *backlog, uint64_t serial, size_t bytes) {
  backlog->ring[(backlog->first + backlog->count) % BROADCASTS_MAX] =
      (struct outstanding){serial, bytes};
  backlog->count++;
  backlog->bytes += bytes;
}

uint64_t push_hub_serial(const struct push_hub *hub) { return hub->serial; }

void push_hub_set_serial(struct push_hub *hub, uint64_t serial) { hub->serial = serial; }

bool push_hub_is_idle(const struct push_hub *hub) {
  return push_elsewhere_is_idle(&hub->elsewhere);
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

// To one worker's sessions, all of the order or nothing. Only as much is under way as the
// worker can be trusted to work off: beyond that the sender is to wait.
static bool broadcast_to_worker(struct job *job, const struct push_order *order, int worker,
                                size_t sessions) {
  struct push_hub *hub = job->hub;
  struct backlog *backlog = &hub->backlogs[worker];
  size_t bytes = order_bytes(hub, job->body_count, 0);
  const uint8_t *packet = hub->packets;
  if (backlog->count + job->body_count > BROADCASTS_MAX ||
      backlog->bytes + bytes > BROADCASTS_MAX_BYTES ||
      bytes > hub->options.room(worker, hub->options.owner)) {
    return false;
  }
  for (size_t i = 0; i < job->body_count; i++) {
    struct channel_push *push = &hub->about[i];
    push->serial = hub->serial + 1 + i;
    push->sid = order->sid;
    push->sessions = (uint32_t)sessions;
    strncpy(push->color, order->color, sizeof push->color - 1);
    if (hub->options.send(worker, push, NULL, packet, hub->options.owner) != 0) {
      return false;
    }
    note_broadcast(backlog, push->serial, channel_push_bytes(push->packet_bytes));
    packet += push->packet_bytes;
  }
  return true;
}

static void broadcast(struct job *job, const struct push_order *order, bool refused) {
  struct push_hub *hub = job->hub;
  struct audience audience = {.order = order};
  directory_each(hub->options.directory, look_at_session, &audience);
  for (int worker = 0; worker < hub->options.workers; worker++) {
    size_t sessions = audience.sessions[worker];
    bool sent = sessions > 0 && !refused && broadcast_to_worker(job, order, worker, sessions);
    enum push_fate fate = sent ? PUSH_HERE : PUSH_REFUSED;
    job->outcome.count[fate] += sessions;
    counters_add(hub->options.counters, fate_counters[fate], sessions * job->body_count);
  }
  hub->serial += job->body_count;
}

// --- An order --------------------------------------------------------------------------

static bool makes_sense(const struct push_order *order) {
  return order->body_count > 0 && order->body_count <= PUSH_BODIES_MAX &&
         order->uid_count <= PUSH_UIDS_MAX && order->broadcast == (order->uid_count == 0) &&
         order->body_count * order->uid_count <= PUSH_DELIVERIES_MAX &&
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
  if (!order->broadcast && !make_targets(job, order)) {
    job_free(job);
    fail(on_done, context, ERROR_MEMORY);
    return;
  }
  counters_add(hub->options.counters, COUNTER_PUSH_ORDERS, 1);
  int error = encode_all(hub, order);
  job->outcome.too_large = error == ERROR_TOO_LARGE;
  job->outcome.error = error == ERROR_MEMORY ? error : 0;
  if (order->broadcast) {
    broadcast(job, order, error != 0);
  } else if (error != 0) {
    refuse_players(job, -1);
  } else {
    send_to_players(job);
  }
  if (error != 0) {
    push_job_finish(job);
  } else {
    push_elsewhere_send(job, order);
  }
}

// --- Beginning and end ---------------------------------------------------------------------

struct push_hub *push_hub_new(const struct push_hub_options *options) {
  struct push_hub *hub = calloc(1, sizeof *hub);
  if (!hub || !(hub->deflater = deflater_new())) {
    free(hub);
    return NULL;
  }
  hub->options = *options;
  push_elsewhere_init(&hub->elsewhere);
  // Another run of this gateway is another origin.
  snprintf(hub->origin, sizeof hub->origin, "%s#%08x%08x", options->config->server.grpc.advertise,
           randombytes_random(), randombytes_random());
  return hub;
}

void push_hub_free(struct push_hub *hub) {
  if (hub) {
    deflater_free(hub->deflater);
    free(hub->packets);
    free(hub);
  }
}

const char *push_hub_origin(const struct push_hub *hub) { return hub->origin; }
