#include "master/etcd.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/backoff.h"
#include "common/clock.h"
#include "common/config_value.h"
#include "common/stream.h"
#include "common/stream_tls.h"
#include "proto/etcd.pb-c.h"

#define LOG_MODULE LOG_MODULE_ETCD

enum {
  ENDPOINTS_MAX = 32,
  ENDPOINT_BYTES = 256,
  MESSAGE_MAX_BYTES = 64 << 20,  // a whole list
  // A server of etcd takes pings every 5 s and more.
  KEEPALIVE_MS = 10000,
};

enum session_state { SESSION_NONE, SESSION_LOGIN, SESSION_LISTING, SESSION_WATCHING };

// A call of one question and one answer.
struct unary {
  LIST_ENTRY(unary) link;
  struct etcd *etcd;
  struct stream *stream;
  struct stream_waiting *request;  // until it is sent
  const char *method;
  void (*on_reply)(struct etcd *etcd, size_t number, const uint8_t *bytes, size_t len);
  size_t number;   // of what on_reply is about
  bool own_key;    // about the own key: refused, it costs that alone
  uint8_t *reply;  // malloc'd
  size_t reply_len;
  bool replied;
  int64_t begun_us;
};

LIST_HEAD(unary_list, unary);

struct etcd {
  struct event_base *base;
  struct stream_engine *engine;
  struct etcd_options options;
  struct etcd_events events;
  void *owner;
  char endpoints[ENDPOINTS_MAX][ENDPOINT_BYTES];
  size_t endpoint_count;
  size_t endpoint;  // the one in use

  enum session_state state;
  struct event *session_timer;  // the next session
  uint32_t failures;
  char *token;  // NULL: none is needed
  struct unary_list calls;
  size_t lists_open;
  int64_t known_revision;  // that was seen before this session
  bool lost_data;          // the revision is lower than one that was seen before
  int64_t revisions[ETCD_PREFIXES];

  struct stream *watch;
  size_t watches_asked;
  size_t watches_created;
  bool watch_sending;    // a question is on its way
  int64_t own_revision;  // from which the own key is to be watched; 0: not yet
  bool own_watched;      // that has been asked
  int64_t own_removed;   // the revision at which somebody removed it last
  int64_t own_watch_id;

  char *key;  // the own one; NULL until it is announced
  char *value;
  int64_t lease;  // 0: none
  struct stream *keepalive;
  struct event *keepalive_timer;
  bool keepalive_open;
  bool keepalive_asked;          // and not yet answered
  struct event *announce_timer;  // the next try, after a refusal
  uint32_t refusals;
  bool announcing;  // a lease or the key is being asked for
  bool resuming;    // the key is being put again under the lease of an earlier session
  bool announced;
  bool withdrawing;
  void (*on_gone)(void *owner);
  void *gone_owner;
  struct event *gone_timer;
  struct etcd_health health;
};

static void session_start(struct etcd *etcd);
static void session_lost(struct etcd *etcd, const char *where, const char *why);

static void set_state(struct etcd *etcd, enum session_state state) {
  etcd->state = state;
  etcd->health.since_ms = clock_wall_ms();
}

static void start_timer(struct event *timer, int64_t ms) {
  struct timeval time = clock_timeval(ms);
  evtimer_add(timer, &time);
}

static void note_revision(struct etcd *etcd, const Etcd__ResponseHeader *header) {
  if (header && header->revision > etcd->health.revision) {
    etcd->health.revision = header->revision;
  }
}

// --- Calls -----------------------------------------------------------------------

static struct stream *open_stream(struct etcd *etcd, const char *method, int64_t timeout_ms,
                                  const struct stream_events *events, void *owner) {
  const struct stream_metadata metadata[] = {{"hasleader", "true"}, {"token", etcd->token}};
  bool secure;
  const char *address = config_value_skip_scheme(etcd->endpoints[etcd->endpoint], &secure);
  const struct stream_target target = {
      .address = address,
      .secure = secure || etcd->options.config->etcd.tls.enabled,
      .method = method,
      .timeout_ms = timeout_ms,
  };
  return stream_open(etcd->engine, &target, metadata, etcd->token ? 2 : 1, events, owner);
}

static struct stream_waiting *pack(const ProtobufCMessage *message) {
  size_t len = protobuf_c_message_get_packed_size(message);
  struct stream_waiting *packed = malloc(sizeof *packed + len);
  if (packed) {
    packed->len = len;
    protobuf_c_message_pack(message, packed->bytes);
  }
  return packed;
}

static void unary_free(struct unary *call) {
  stream_end(call->stream, false);
  free(call->request);
  free(call->reply);
  LIST_REMOVE(call, link);
  free(call);
}

static void on_unary_opened(void *owner) {
  struct unary *call = owner;
  struct stream_waiting *request = call->request;
  call->request = NULL;
  if (stream_send_waiting(call->stream, request)) {
    stream_read(call->stream);
  }  // else its time runs out
}

static void on_unary_sent(void *owner) { (void)owner; }

static void on_unary_message(void *owner, const uint8_t *bytes, size_t len) {
  struct unary *call = owner;
  if (!call->replied && (call->reply = malloc(len + 1))) {
    memcpy(call->reply, bytes, len);
    call->reply_len = len;
    call->replied = true;
  }
}

static void announce_refused(struct etcd *etcd, const char *method, const char *why);

static void on_unary_ended(void *owner, int status, const char *detail) {
  struct unary *call = owner;
  struct etcd *etcd = call->etcd;
  if (status != STREAM_OK || !call->replied) {
    char why[256];
    bool is_late = status == STREAM_DEADLINE_EXCEEDED;
    snprintf(why, sizeof why, "%.200s (status %d)",
             is_late ? "no answer within etcd.timeout" : detail, status);
    bool refused = status == STREAM_PERMISSION_DENIED || status == STREAM_RESOURCE_EXHAUSTED ||
                   status == STREAM_FAILED_PRECONDITION || status == STREAM_NOT_FOUND ||
                   status == STREAM_INVALID_ARGUMENT;
    if (call->own_key && refused) {
      const char *method = call->method;
      unary_free(call);
      announce_refused(etcd, method, why);
    } else {
      session_lost(etcd, call->method, why);  // ends the call too
    }
    return;
  }
  counters_record_us(etcd->options.counters, HISTOGRAM_ETCD_CALL,
                     clock_monotonic_us() - call->begun_us);
  uint8_t *reply = call->reply;
  size_t len = call->reply_len;
  size_t number = call->number;
  void (*on_reply)(struct etcd *, size_t, const uint8_t *, size_t) = call->on_reply;
  call->reply = NULL;
  unary_free(call);
  on_reply(etcd, number, reply, len);
  free(reply);
}

// NULL: the session was lost over it.
static struct unary *call_unary(struct etcd *etcd, const char *method,
                                const ProtobufCMessage *request,
                                void (*on_reply)(struct etcd *, size_t, const uint8_t *, size_t),
                                size_t number) {
  static const struct stream_events events = {on_unary_opened, on_unary_sent, on_unary_message,
                                              on_unary_ended};
  struct unary *call = calloc(1, sizeof *call);
  if (!call) {
    session_lost(etcd, method, "out of memory");
    return NULL;
  }
  LIST_INSERT_HEAD(&etcd->calls, call, link);
  call->etcd = etcd;
  call->method = method;
  call->begun_us = clock_monotonic_us();
  call->on_reply = on_reply;
  call->number = number;
  call->request = pack(request);
  call->stream = call->request ? open_stream(etcd, method, etcd->options.config->etcd.timeout_ms,
                                             &events, call)
                               : NULL;
  if (!call->stream) {
    session_lost(etcd, method, "out of memory");
    return NULL;
  }
  return call;
}

static void call_for_own_key(struct etcd *etcd, const char *method, const ProtobufCMessage *request,
                             void (*on_reply)(struct etcd *, size_t, const uint8_t *, size_t)) {
  struct unary *call = call_unary(etcd, method, request, on_reply, 0);
  if (call) {
    call->own_key = true;
  }
}

// --- Logging in ----------------------------------------------------------------------

static void log_in(struct etcd *etcd,
                   void (*on_reply)(struct etcd *, size_t, const uint8_t *, size_t)) {
  Etcd__AuthenticateRequest request = ETCD__AUTHENTICATE_REQUEST__INIT;
  free(etcd->token);
  etcd->token = NULL;
  request.name = (char *)etcd->options.config->etcd.username;
  request.password = (char *)etcd->options.secrets->etcd_password;
  call_unary(etcd, "/etcdserverpb.Auth/Authenticate", &request.base, on_reply, 0);
}

// False: the session was lost over it.
static bool take_token(struct etcd *etcd, const uint8_t *bytes, size_t len) {
  Etcd__AuthenticateResponse *reply = etcd__authenticate_response__unpack(NULL, len, bytes);
  etcd->token = reply ? strdup(reply->token) : NULL;
  if (reply) {
    etcd__authenticate_response__free_unpacked(reply, NULL);
  }
  if (!etcd->token) {
    session_lost(etcd, "Authenticate", "the answer can't be understood");
  }
  return etcd->token != NULL;
}

// --- The end of a session ------------------------------------------------------------

static void finish_withdrawal(struct etcd *etcd) {
  void (*on_gone)(void *) = etcd->on_gone;
  etcd->on_gone = NULL;
  evtimer_del(etcd->gone_timer);
  if (on_gone) {
    on_gone(etcd->gone_owner);
  }
}

static void session_end(struct etcd *etcd) {
  while (!LIST_EMPTY(&etcd->calls)) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
    unary_free(LIST_FIRST(&etcd->calls));
  }
  stream_end(etcd->watch, false);
  stream_end(etcd->keepalive, false);
  etcd->watch = NULL;
  etcd->keepalive = NULL;
  evtimer_del(etcd->keepalive_timer);
  evtimer_del(etcd->announce_timer);
  etcd->announcing = false;
  etcd->resuming = false;
  free(etcd->token);
  etcd->token = NULL;
  set_state(etcd, SESSION_NONE);
}

static void note_error(struct etcd *etcd, const char *where, const char *why) {
  snprintf(etcd->health.last_error, sizeof etcd->health.last_error, "%.80s: %.40s: %.120s",
           etcd->endpoints[etcd->endpoint], where, why);
  etcd->health.last_error_ms = clock_wall_ms();
}

static void session_lost(struct etcd *etcd, const char *where, const char *why) {
  const struct config *config = etcd->options.config;
  bool watching = etcd->state == SESSION_WATCHING;
  char quoted[300];
  note_error(etcd, where, why);
  if (etcd->failures == 0) {
    log_limited(LOG_LEVEL_WARN, "etcd_lost", "endpoint=%s call=%s why=%s",
                etcd->endpoints[etcd->endpoint], where,
                log_quote(quoted, sizeof quoted, why, strlen(why)));
  }
  session_end(etcd);
  etcd->endpoint = (etcd->endpoint + 1) % etcd->endpoint_count;
  // A first look at each of the others costs little time.
  uint32_t rounds = etcd->failures++ / (uint32_t)etcd->endpoint_count;
  start_timer(etcd->session_timer,
              backoff_ms(config->etcd.backoff_ms, config->etcd.backoff_max_ms, rounds));
  if (watching) {
    etcd->health.sessions_lost++;
    etcd->events.on_lost(etcd->owner);
  }
  finish_withdrawal(etcd);
}

// --- The own key -------------------------------------------------------------------

static void grant(struct etcd *etcd);
static void keepalive_start(struct etcd *etcd);
static void ask_watch(struct etcd *etcd);
static void revoke(struct etcd *etcd);

static void on_put(struct etcd *etcd, size_t number, const uint8_t *bytes, size_t len) {
  Etcd__PutResponse *reply = etcd__put_response__unpack(NULL, len, bytes);
  (void)number;
  if (!reply) {
    session_lost(etcd, "Put", "the answer can't be understood");
    return;
  }
  note_revision(etcd, reply->header);
  int64_t revision = reply->header ? reply->header->revision : 0;
  etcd__put_response__free_unpacked(reply, NULL);
  etcd->announcing = false;
  etcd->resuming = false;
  if (etcd->withdrawing) {
    return;  // the lease is being revoked
  }
  etcd->refusals = 0;
  if (etcd->own_removed > revision) {
    grant(etcd);  // removed already, before we knew that it was there
    return;
  }
  log_limited(LOG_LEVEL_INFO, "registered", "key=%s lease=%" PRIx64, etcd->key,
              (uint64_t)etcd->lease);
  etcd->announced = true;
  if (etcd->own_revision == 0) {
    etcd->own_revision = revision + 1;
    ask_watch(etcd);
  }
  if (etcd->watch) {
    keepalive_start(etcd);
  }
}

static void put_own_key(struct etcd *etcd) {
  Etcd__PutRequest put = ETCD__PUT_REQUEST__INIT;
  put.key = (ProtobufCBinaryData){strlen(etcd->key), (uint8_t *)etcd->key};
  put.value = (ProtobufCBinaryData){strlen(etcd->value), (uint8_t *)etcd->value};
  put.lease = etcd->lease;
  etcd->announcing = true;
  call_for_own_key(etcd, "/etcdserverpb.KV/Put", &put.base, on_put);
}

static void on_granted(struct etcd *etcd, size_t number, const uint8_t *bytes, size_t len) {
  Etcd__LeaseGrantResponse *reply = etcd__lease_grant_response__unpack(NULL, len, bytes);
  (void)number;
  int64_t lease = reply && reply->error[0] == '\0' ? reply->id : 0;
  if (reply) {
    etcd__lease_grant_response__free_unpacked(reply, NULL);
  }
  if (lease == 0) {
    announce_refused(etcd, "LeaseGrant", "no lease was given");
    return;
  }
  etcd->lease = lease;
  if (etcd->withdrawing) {
    revoke(etcd);
    return;
  }
  put_own_key(etcd);
}

static void grant(struct etcd *etcd) {
  Etcd__LeaseGrantRequest request = ETCD__LEASE_GRANT_REQUEST__INIT;
  if (etcd->withdrawing) {
    return;
  }
  request.ttl = (etcd->options.config->etcd.lease_ttl_ms + 999) / 1000;
  etcd->announced = false;
  etcd->announcing = true;
  etcd->lease = 0;
  call_for_own_key(etcd, "/etcdserverpb.Lease/LeaseGrant", &request.base, on_granted);
}

static void on_announce_timer(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  grant(owner);
}

// Not allowed, or no room: the nodes can be watched all the same.
static void announce_refused(struct etcd *etcd, const char *method, const char *why) {
  const struct config *config = etcd->options.config;
  char quoted[300];
  note_error(etcd, method, why);
  etcd->announcing = false;
  if (etcd->withdrawing) {
    etcd->announced = false;  // it goes with its lease, which nobody prolongs
    etcd->lease = 0;
    finish_withdrawal(etcd);
    return;
  }
  if (etcd->resuming) {
    etcd->resuming = false;
    log_limited(LOG_LEVEL_WARN, "lease_lost", "lease=%" PRIx64 " why=%s", (uint64_t)etcd->lease,
                log_quote(quoted, sizeof quoted, why, strlen(why)));
    grant(etcd);
    return;
  }
  if (etcd->refusals == 0) {
    log_limited(LOG_LEVEL_ERROR, "not_registered", "call=%s why=%s", method,
                log_quote(quoted, sizeof quoted, why, strlen(why)));
  }
  start_timer(etcd->announce_timer,
              backoff_ms(config->etcd.backoff_ms, config->etcd.backoff_max_ms, etcd->refusals++));
}

static void ask_keepalive(struct etcd *etcd) {
  Etcd__LeaseKeepAliveRequest request = ETCD__LEASE_KEEP_ALIVE_REQUEST__INIT;
  request.id = etcd->lease;
  struct stream_waiting *message = pack(&request.base);
  if (!message) {
    session_lost(etcd, "LeaseKeepAlive", "out of memory");
    return;
  }
  if (!stream_send_waiting(etcd->keepalive, message)) {
    session_lost(etcd, "LeaseKeepAlive", "out of memory");
    return;
  }
  etcd->keepalive_asked = true;
  start_timer(etcd->keepalive_timer, etcd->options.config->etcd.timeout_ms);
}

static void on_keepalive_timer(evutil_socket_t fd, short what, void *owner) {
  struct etcd *etcd = owner;
  (void)fd;
  (void)what;
  if (etcd->keepalive_asked || !etcd->keepalive_open) {
    session_lost(etcd, "LeaseKeepAlive", "no answer within etcd.timeout");
  } else {
    ask_keepalive(etcd);
  }
}

static void on_keepalive_opened(void *owner) {
  struct etcd *etcd = owner;
  etcd->keepalive_open = true;
  ask_keepalive(etcd);
  if (etcd->keepalive) {
    stream_read(etcd->keepalive);
  }
}

static void on_keepalive_sent(void *owner) { (void)owner; }

static void on_keepalive_message(void *owner, const uint8_t *bytes, size_t len) {
  struct etcd *etcd = owner;
  Etcd__LeaseKeepAliveResponse *reply = etcd__lease_keep_alive_response__unpack(NULL, len, bytes);
  int64_t ttl = reply ? reply->ttl : -1;
  if (reply) {
    etcd__lease_keep_alive_response__free_unpacked(reply, NULL);
  }
  if (ttl < 0) {
    session_lost(etcd, "LeaseKeepAlive", "the answer can't be understood");
    return;
  }
  etcd->keepalive_asked = false;
  if (ttl == 0) {
    log_limited(LOG_LEVEL_WARN, "lease_lost", "lease=%" PRIx64, (uint64_t)etcd->lease);
    stream_end(etcd->keepalive, false);
    etcd->keepalive = NULL;
    evtimer_del(etcd->keepalive_timer);
    grant(etcd);
    return;
  }
  etcd->announced = true;
  start_timer(etcd->keepalive_timer, ttl * 1000 / 3);
  stream_read(etcd->keepalive);
}

static void on_keepalive_ended(void *owner, int status, const char *detail) {
  char why[256];
  snprintf(why, sizeof why, "%.200s (status %d)", detail, status);
  session_lost(owner, "LeaseKeepAlive", why);
}

static void keepalive_start(struct etcd *etcd) {
  static const struct stream_events events = {on_keepalive_opened, on_keepalive_sent,
                                              on_keepalive_message, on_keepalive_ended};
  stream_end(etcd->keepalive, false);  // of an answer that came late
  etcd->keepalive_asked = false;
  etcd->keepalive_open = false;
  etcd->keepalive = open_stream(etcd, "/etcdserverpb.Lease/LeaseKeepAlive", 0, &events, etcd);
  if (!etcd->keepalive) {
    session_lost(etcd, "LeaseKeepAlive", "out of memory");
    return;
  }
  start_timer(etcd->keepalive_timer, etcd->options.config->etcd.timeout_ms);
}

// In a session that is under way: with the lease there is, or a new one. What was to be withdrawn
// while there was no session goes now.
static void announce_now(struct etcd *etcd) {
  if (etcd->state != SESSION_WATCHING) {
    return;
  }
  if (etcd->withdrawing) {
    if (etcd->lease != 0) {
      revoke(etcd);
    }
    return;
  }
  if (!etcd->key) {
    return;
  }
  if (etcd->lease != 0 && etcd->announced) {
    etcd->resuming = true;
    put_own_key(etcd);  // it may have been removed while nobody looked
  } else {
    grant(etcd);
  }
}

// Somebody has removed it, or its lease is over.
static void on_own_key_removed(struct etcd *etcd) {
  if (!etcd->announced || etcd->announcing || etcd->withdrawing) {
    return;
  }
  log_limited(LOG_LEVEL_WARN, "registration_removed", "key=%s", etcd->key);
  stream_end(etcd->keepalive, false);
  etcd->keepalive = NULL;
  evtimer_del(etcd->keepalive_timer);
  grant(etcd);
}

void etcd_announce(struct etcd *etcd, const char *key, const char *value) {
  if (etcd->withdrawing) {  // under another key and lease, so that what is late of the old is none
    etcd->withdrawing = false;
    etcd->announced = false;
    etcd->announcing = false;
    etcd->lease = 0;
    etcd->own_revision = 0;  // the new key is to be watched too
    etcd->own_watched = false;
  }
  free(etcd->key);
  free(etcd->value);
  etcd->key = strdup(key);
  etcd->value = strdup(value);
  if (!etcd->value) {
    free(etcd->key);
    etcd->key = NULL;
  }
  announce_now(etcd);
}

int64_t etcd_lease(const struct etcd *etcd) {
  return etcd->announced && !etcd->withdrawing ? etcd->lease : 0;
}

void etcd_adopt_lease(struct etcd *etcd, int64_t lease) {
  etcd->lease = lease;
  etcd->announced = lease != 0;
}

static void on_revoked(struct etcd *etcd, size_t number, const uint8_t *bytes, size_t len) {
  (void)number;
  (void)bytes;
  (void)len;
  if (!etcd->withdrawing) {
    return;  // it has been announced anew meanwhile
  }
  log_info("deregistered", "key=%s", etcd->key ? etcd->key : "");
  etcd->announced = false;
  etcd->lease = 0;
  finish_withdrawal(etcd);
}

static void on_gone_timeout(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  finish_withdrawal(owner);
}

static void revoke(struct etcd *etcd) {
  Etcd__LeaseRevokeRequest request = ETCD__LEASE_REVOKE_REQUEST__INIT;
  request.id = etcd->lease;
  call_for_own_key(etcd, "/etcdserverpb.Lease/LeaseRevoke", &request.base, on_revoked);
}

// The token of the session may have run out long ago: its streams do not mind.
static void on_logged_in_to_revoke(struct etcd *etcd, size_t number, const uint8_t *bytes,
                                   size_t len) {
  (void)number;
  if (take_token(etcd, bytes, len) && etcd->lease != 0) {
    revoke(etcd);
  }
}

void etcd_withdraw(struct etcd *etcd, void (*on_gone)(void *owner), void *owner) {
  etcd->withdrawing = true;
  if (etcd->state != SESSION_WATCHING || (etcd->lease == 0 && !etcd->announcing)) {
    on_gone(owner);
    return;
  }
  etcd->on_gone = on_gone;
  etcd->gone_owner = owner;
  stream_end(etcd->keepalive, false);
  etcd->keepalive = NULL;
  evtimer_del(etcd->keepalive_timer);
  start_timer(etcd->gone_timer, etcd->options.config->etcd.timeout_ms);
  if (etcd->lease == 0) {
    return;  // it is being granted, and revoked then
  }
  if (etcd->options.config->etcd.username[0] != '\0') {
    log_in(etcd, on_logged_in_to_revoke);
  } else {
    revoke(etcd);
  }
}

// --- Watching ----------------------------------------------------------------------

// The end of a range that holds every key with this prefix: its last byte plus 1.
static ProtobufCBinaryData range_end(const char *prefix, char room[ETCD_PREFIX_BYTES]) {
  size_t len = strlen(prefix);
  snprintf(room, ETCD_PREFIX_BYTES, "%s", prefix);
  room[len - 1] = (char)(room[len - 1] + 1);
  return (ProtobufCBinaryData){len, (uint8_t *)room};
}

// The prefixes are told apart by the keys: a key may belong to several.
static void give_event(struct etcd *etcd, const Etcd__Event *event) {
  const Etcd__KeyValue *kv = event->kv;
  for (size_t i = 0; kv && i < etcd->options.prefix_count; i++) {
    const char *prefix = etcd->options.prefixes[i];
    if (kv->key.len >= strlen(prefix) && memcmp(kv->key.data, prefix, strlen(prefix)) == 0) {
      bool put = event->type == ETCD__EVENT__EVENT_TYPE__PUT;
      const struct etcd_pair pair = {kv->key.data, kv->key.len,
                                     put ? (kv->value.data ? kv->value.data : (uint8_t *)"") : NULL,
                                     put ? kv->value.len : 0, kv->mod_revision};
      etcd->events.on_change(i, &pair, etcd->owner);
    }
  }
  if (kv && etcd->key && event->type == ETCD__EVENT__EVENT_TYPE__DELETE &&
      kv->key.len == strlen(etcd->key) && memcmp(kv->key.data, etcd->key, kv->key.len) == 0) {
    etcd->own_removed = kv->mod_revision;
    on_own_key_removed(etcd);
  }
}

static void send_watch(struct etcd *etcd, const char *key, ProtobufCBinaryData end,
                       int64_t revision) {
  Etcd__WatchCreateRequest create = ETCD__WATCH_CREATE_REQUEST__INIT;
  Etcd__WatchRequest request = ETCD__WATCH_REQUEST__INIT;
  create.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)(uintptr_t)key};
  create.range_end = end;
  create.start_revision = revision;
  request.request_union_case = ETCD__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
  request.create_request = &create;
  struct stream_waiting *message = pack(&request.base);
  if (message && stream_send_waiting(etcd->watch, message)) {
    etcd->watch_sending = !stream_takes(etcd->watch);
  } else {
    session_lost(etcd, "Watch", "out of memory");
  }
}

// The next question, if there is one: for each prefix, and for the own key.
static void ask_watch(struct etcd *etcd) {
  char room[ETCD_PREFIX_BYTES];
  if (etcd->watch_sending || !etcd->watch) {
    return;
  }
  if (etcd->watches_asked < etcd->options.prefix_count) {
    size_t number = etcd->watches_asked++;
    const char *prefix = etcd->options.prefixes[number];
    send_watch(etcd, prefix, range_end(prefix, room), etcd->revisions[number] + 1);
  } else if (etcd->own_revision > 0 && !etcd->own_watched) {
    etcd->own_watched = true;
    send_watch(etcd, etcd->key, (ProtobufCBinaryData){0, NULL}, etcd->own_revision);
  }
}

static void on_watch_opened(void *owner) {
  struct etcd *etcd = owner;
  etcd->watch_sending = false;
  ask_watch(etcd);
  if (etcd->watch) {
    stream_read(etcd->watch);
  }
}

static void on_watch_sent(void *owner) {
  struct etcd *etcd = owner;
  etcd->watch_sending = false;
  ask_watch(etcd);
}

// Watches are created in the order in which they were asked for; the own key's is the last.
static bool is_own_watch(const struct etcd *etcd, const Etcd__WatchResponse *reply) {
  return etcd->own_watched && etcd->watches_created >= etcd->options.prefix_count &&
         (reply->created || reply->watch_id == etcd->own_watch_id);
}

static void on_watch_message(void *owner, const uint8_t *bytes, size_t len) {
  struct etcd *etcd = owner;
  Etcd__WatchResponse *reply = etcd__watch_response__unpack(NULL, len, bytes);
  if (!reply) {
    session_lost(etcd, "Watch", "a message can't be understood");
    return;
  }
  note_revision(etcd, reply->header);
  if (reply->canceled && is_own_watch(etcd, reply)) {
    // Not allowed to read it, say. The nodes are what matters.
    log_limited(LOG_LEVEL_WARN, "registration_not_watched", "key=%s", etcd->key);
    etcd__watch_response__free_unpacked(reply, NULL);
    stream_read(etcd->watch);
    return;
  }
  if (reply->created && !reply->canceled && ++etcd->watches_created > etcd->options.prefix_count) {
    etcd->own_watch_id = reply->watch_id;
  }
  if (reply->canceled) {
    char why[256];
    snprintf(why, sizeof why, "%.200s%s", reply->cancel_reason,
             reply->compact_revision > 0 ? " (compacted: listing anew)" : "");
    etcd__watch_response__free_unpacked(reply, NULL);
    session_lost(etcd, "Watch", why);
    return;
  }
  for (size_t i = 0; etcd->watch && i < reply->n_events; i++) {
    give_event(etcd, reply->events[i]);  // which may end the session
  }
  if (etcd->watch && reply->n_events > 0) {
    etcd->events.on_settled(etcd->owner);
  }
  etcd__watch_response__free_unpacked(reply, NULL);
  if (etcd->watch) {
    stream_read(etcd->watch);
  }
}

static void on_watch_ended(void *owner, int status, const char *detail) {
  char why[256];
  snprintf(why, sizeof why, "%.200s (status %d)", detail, status);
  session_lost(owner, "Watch", why);
}

static void watch_start(struct etcd *etcd) {
  static const struct stream_events events = {on_watch_opened, on_watch_sent, on_watch_message,
                                              on_watch_ended};
  etcd->watches_asked = 0;
  etcd->watches_created = 0;
  etcd->own_revision = 0;
  etcd->own_watched = false;
  etcd->own_removed = 0;
  etcd->watch_sending = true;  // until it is open
  etcd->watch = open_stream(etcd, "/etcdserverpb.Watch/Watch", 0, &events, etcd);
  if (!etcd->watch) {
    session_lost(etcd, "Watch", "out of memory");
    return;
  }
  log_limited(LOG_LEVEL_INFO, "etcd_watching", "endpoint=%s revision=%" PRId64,
              etcd->endpoints[etcd->endpoint], etcd->revisions[0]);
  set_state(etcd, SESSION_WATCHING);
  etcd->failures = 0;
  etcd->events.on_settled(etcd->owner);
  announce_now(etcd);
}

// --- Listing -----------------------------------------------------------------------

static void on_range(struct etcd *etcd, size_t number, const uint8_t *bytes, size_t len) {
  Etcd__RangeResponse *reply = etcd__range_response__unpack(NULL, len, bytes);
  struct etcd_pair *pairs = reply ? malloc((reply->n_kvs + 1) * sizeof *pairs) : NULL;
  if (!pairs || !reply->header) {
    free(pairs);
    if (reply) {
      etcd__range_response__free_unpacked(reply, NULL);
    }
    session_lost(etcd, "Range", "the answer can't be understood");
    return;
  }
  // Revisions only grow, unless data was lost: from a backup, or all of it.
  if (reply->header->revision < etcd->known_revision && !etcd->lost_data) {
    log_limited(LOG_LEVEL_WARN, "etcd_went_back", "revision=%" PRId64 " before=%" PRId64,
                reply->header->revision, etcd->known_revision);
    etcd->lost_data = true;
    etcd->health.revision = 0;
  }
  note_revision(etcd, reply->header);
  etcd->revisions[number] = reply->header->revision;
  for (size_t i = 0; i < reply->n_kvs; i++) {
    const Etcd__KeyValue *kv = reply->kvs[i];
    pairs[i] = (struct etcd_pair){kv->key.data, kv->key.len,
                                  kv->value.data ? kv->value.data : (uint8_t *)"", kv->value.len,
                                  kv->mod_revision};
  }
  etcd->events.on_list(number, pairs, reply->n_kvs, etcd->lost_data, etcd->owner);
  free(pairs);
  etcd__range_response__free_unpacked(reply, NULL);
  if (--etcd->lists_open == 0) {
    watch_start(etcd);
  }
}

static void list(struct etcd *etcd) {
  set_state(etcd, SESSION_LISTING);
  etcd->lost_data = false;
  etcd->known_revision = etcd->health.revision;
  etcd->lists_open = etcd->options.prefix_count;
  for (size_t i = 0; i < etcd->options.prefix_count && etcd->state == SESSION_LISTING; i++) {
    const char *prefix = etcd->options.prefixes[i];
    char room[ETCD_PREFIX_BYTES];
    Etcd__RangeRequest request = ETCD__RANGE_REQUEST__INIT;
    request.key = (ProtobufCBinaryData){strlen(prefix), (uint8_t *)prefix};
    request.range_end = range_end(prefix, room);
    call_unary(etcd, "/etcdserverpb.KV/Range", &request.base, on_range, i);
  }
}

// --- A session -----------------------------------------------------------------------

static void on_authenticated(struct etcd *etcd, size_t number, const uint8_t *bytes, size_t len) {
  (void)number;
  if (take_token(etcd, bytes, len)) {
    list(etcd);
  }
}

static void session_start(struct etcd *etcd) {
  const struct config *config = etcd->options.config;
  if (config->etcd.username[0] == '\0') {
    list(etcd);
    return;
  }
  set_state(etcd, SESSION_LOGIN);
  log_in(etcd, on_authenticated);
}

static void on_session_timer(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  session_start(owner);
}

// --- Starting --------------------------------------------------------------------

static bool start_engine(struct etcd *etcd, char *why, size_t why_size) {
  const struct config *config = etcd->options.config;
  const struct stream_engine_options options = {
      .open_timeout_ms = config->etcd.timeout_ms,
      .streams_per_connection = 100,
      .message_bytes = MESSAGE_MAX_BYTES,
      .keepalive_ms = KEEPALIVE_MS,
  };
  etcd->engine = stream_tls_engine_new(etcd->base, &options, &config->etcd.tls,
                                       etcd->options.secrets->etcd_tls_key, why, why_size);
  return etcd->engine != NULL;
}

struct etcd *etcd_new(struct event_base *base, const struct etcd_options *options,
                      const struct etcd_events *events, void *owner, char *why, size_t why_size) {
  struct etcd *etcd = calloc(1, sizeof *etcd);
  if (!etcd) {
    snprintf(why, why_size, "out of memory");
    return NULL;
  }
  etcd->base = base;
  etcd->options = *options;
  etcd->events = *events;
  etcd->owner = owner;
  LIST_INIT(&etcd->calls);
  const char *rest = options->config->etcd.endpoints;
  while (etcd->endpoint_count < ENDPOINTS_MAX &&
         config_value_next_address(&rest, etcd->endpoints[etcd->endpoint_count], ENDPOINT_BYTES)) {
    etcd->endpoint_count++;
  }
  etcd->session_timer = evtimer_new(base, on_session_timer, etcd);
  etcd->keepalive_timer = evtimer_new(base, on_keepalive_timer, etcd);
  etcd->announce_timer = evtimer_new(base, on_announce_timer, etcd);
  etcd->gone_timer = evtimer_new(base, on_gone_timeout, etcd);
  if (!etcd->session_timer || !etcd->keepalive_timer || !etcd->announce_timer ||
      !etcd->gone_timer) {
    snprintf(why, why_size, "out of memory");
    etcd_free(etcd);
    return NULL;
  }
  if (!start_engine(etcd, why, why_size)) {
    etcd_free(etcd);
    return NULL;
  }
  set_state(etcd, SESSION_NONE);
  start_timer(etcd->session_timer, 0);
  return etcd;
}

void etcd_free(struct etcd *etcd) {
  if (!etcd) {
    return;
  }
  etcd->on_gone = NULL;
  if (etcd->keepalive_timer && etcd->announce_timer) {
    session_end(etcd);
  }
  stream_engine_free(etcd->engine);
  struct event *timers[] = {etcd->session_timer, etcd->keepalive_timer, etcd->announce_timer,
                            etcd->gone_timer};
  for (size_t i = 0; i < sizeof timers / sizeof timers[0]; i++) {
    if (timers[i]) {
      event_free(timers[i]);
    }
  }
  free(etcd->key);
  free(etcd->value);
  free(etcd);
}

void etcd_health(const struct etcd *etcd, struct etcd_health *health) {
  static const char *const names[] = {"connecting", "connecting", "listing", "watching"};
  *health = etcd->health;
  health->state = names[etcd->state];
  health->endpoint = etcd->endpoints[etcd->endpoint];
  health->announced = etcd->announced;
}
