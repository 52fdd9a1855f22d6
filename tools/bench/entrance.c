#include "tools/bench/entrance.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/dns.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/frame.h"
#include "common/redis_connection.h"
#include "common/stream.h"
#include "proto/push.pb-c.h"

enum {
  HTTP_CONNECTIONS = 32,
  BODY_EXTRA_BYTES = 512,
  TIMEOUT_MS = 10000,
};

struct entrance_kind {
  const char *name;
  bool (*open)(struct entrance *entrance);
  bool (*push)(struct entrance *entrance, int64_t uid, const struct packet *packet);
  void (*close)(struct entrance *entrance);
};

struct entrance {
  const struct entrance_kind *kind;
  struct bench *bench;
  const char *address;
  const struct entrance_events *events;
  void *owner;

  struct evdns_base *dns;
  struct redis_connection *redis;

  struct stream_engine *engine;
  LIST_HEAD(calls, call) calls;

  struct bufferevent *plain;

  struct evhttp_connection *http[HTTP_CONNECTIONS];
  size_t next_http;
};

static Broadcaster__Service__Push__V1__PushBody body_of(const struct packet *packet) {
  Broadcaster__Service__Push__V1__PushBody body = BROADCASTER__SERVICE__PUSH__V1__PUSH_BODY__INIT;
  body.mod = packet->mod;
  body.seq = packet->seq;
  body.data = (ProtobufCBinaryData){packet->data_len, (uint8_t *)(uintptr_t)packet->data};
  return body;
}

// --- Redis -----------------------------------------------------------------------------

static void on_redis_broken(const char *why, void *owner) {
  struct entrance *entrance = owner;
  entrance->events->on_broken(why, entrance->owner);
}

static void on_redis_ready(void *owner) { (void)owner; }

static void on_redis_push(const redisReply *reply, void *owner) {
  (void)reply;
  (void)owner;
}

static bool redis_open(struct entrance *entrance) {
  static const struct redis_connection_events events = {on_redis_ready, on_redis_push,
                                                        on_redis_broken};
  static struct redis_options options = {.server_name = "",
                                         .username = "",
                                         .password = "",
                                         .dial_timeout_ms = TIMEOUT_MS,
                                         .read_timeout_ms = TIMEOUT_MS,
                                         .write_timeout_ms = TIMEOUT_MS};
  entrance->dns = evdns_base_new(entrance->bench->base, EVDNS_BASE_INITIALIZE_NAMESERVERS);
  options.base = entrance->bench->base;
  options.dns = entrance->dns;
  entrance->redis = redis_connection_new(&options, entrance->address, &events, entrance);
  return entrance->redis != NULL;
}

static void on_published(const redisReply *reply, void *context) {
  struct entrance *entrance = context;
  if (reply) {  // else it has been said that the connection is broken
    bool heard = reply->type == REDIS_REPLY_INTEGER && reply->integer > 0;
    entrance->events->on_answer(heard, entrance->owner);
  }
}

static bool redis_push(struct entrance *entrance, int64_t uid, const struct packet *packet) {
  Broadcaster__Service__Push__V1__PushMessage message =
      BROADCASTER__SERVICE__PUSH__V1__PUSH_MESSAGE__INIT;
  Broadcaster__Service__Push__V1__PushBody body = body_of(packet);
  Broadcaster__Service__Push__V1__PushBody *bodies[] = {&body};
  message.bodies = bodies;
  message.n_bodies = 1;
  message.uids = &uid;
  message.n_uids = uid ? 1 : 0;
  message.broadcast = uid == 0;
  message.color = (char *)(uintptr_t)entrance->bench->options.wish.color;
  message.sid = uid ? 0 : entrance->bench->options.wish.sid;
  size_t len = broadcaster__service__push__v1__push_message__get_packed_size(&message);
  uint8_t *bytes = malloc(len);
  if (!bytes) {
    return false;
  }
  broadcaster__service__push__v1__push_message__pack(&message, bytes);
  const char *topic = uid ? entrance->bench->options.topic : "gate.broadcast.message";
  const char *argv[] = {"PUBLISH", topic, (const char *)bytes};
  const size_t lens[] = {7, strlen(topic), len};
  int error = redis_connection_send(entrance->redis, 3, argv, lens, on_published, entrance);
  free(bytes);
  return error == 0;
}

static void redis_close(struct entrance *entrance) {
  redis_connection_free(entrance->redis);
  evdns_base_free(entrance->dns, 1);
}

// --- gRPC ------------------------------------------------------------------------------

struct call {
  LIST_ENTRY(call) link;
  struct entrance *entrance;
  struct stream *stream;
  struct stream_waiting *request;
  bool broadcast;
  bool pushed;
};

static bool grpc_open(struct entrance *entrance) {
  const struct stream_engine_options options = {
      .open_timeout_ms = TIMEOUT_MS, .streams_per_connection = 100, .message_bytes = 1024 * 1024};
  int error;
  entrance->engine = stream_engine_new(entrance->bench->base, &options, &error);
  return entrance->engine != NULL;
}

static void end_call(struct call *call) {
  LIST_REMOVE(call, link);
  stream_end(call->stream, false);
  free(call->request);
  free(call);
}

static void on_call_opened(void *owner) {
  struct call *call = owner;
  if (!stream_send_waiting(call->stream, call->request)) {
    bench_stop(call->entrance->bench, BENCH_FAILED);
  }
  call->request = NULL;
  stream_read(call->stream);
}

static void on_call_sent(void *owner) { (void)owner; }

static void on_call_answer(void *owner, const uint8_t *bytes, size_t len) {
  struct call *call = owner;
  Broadcaster__Service__Push__V1__PushResponse *answer =
      broadcaster__service__push__v1__push_response__unpack(NULL, len, bytes);
  call->pushed = call->broadcast || (answer && answer->pushed);
  broadcaster__service__push__v1__push_response__free_unpacked(answer, NULL);
  stream_read(call->stream);
}

static void on_call_ended(void *owner, int status, const char *detail) {
  struct call *call = owner;
  struct entrance *entrance = call->entrance;
  bool pushed = status == STREAM_OK && call->pushed;
  if (status != STREAM_OK) {
    bench_say("a push was refused: status %d, %.200s", status, detail);
  }
  end_call(call);
  entrance->events->on_answer(pushed, entrance->owner);
}

static struct stream_waiting *pack_request(const struct token_wish *players, int64_t uid,
                                           const struct packet *packet) {
  Broadcaster__Service__Push__V1__PushBody body = body_of(packet);
  Broadcaster__Service__Push__V1__PushBody *bodies[] = {&body};
  // A BroadcastRequest has the same fields, but for the uid.
  Broadcaster__Service__Push__V1__PushRequest request =
      BROADCASTER__SERVICE__PUSH__V1__PUSH_REQUEST__INIT;
  request.bodies = bodies;
  request.n_bodies = 1;
  request.uid = uid;
  request.color = (char *)(uintptr_t)players->color;
  request.sid = uid ? 0 : players->sid;
  size_t len = broadcaster__service__push__v1__push_request__get_packed_size(&request);
  struct stream_waiting *message = malloc(sizeof *message + len);
  if (message) {
    message->len = len;
    broadcaster__service__push__v1__push_request__pack(&request, message->bytes);
  }
  return message;
}

static bool grpc_push(struct entrance *entrance, int64_t uid, const struct packet *packet) {
  static const struct stream_events events = {on_call_opened, on_call_sent, on_call_answer,
                                              on_call_ended};
  const struct stream_target target = {
      .address = entrance->address,
      .method = uid ? "/broadcaster.service.push.v1.PushService/Push"
                    : "/broadcaster.service.push.v1.PushService/Broadcast"};
  struct call *call = calloc(1, sizeof *call);
  if (!call) {
    return false;
  }
  LIST_INSERT_HEAD(&entrance->calls, call, link);
  call->entrance = entrance;
  call->broadcast = uid == 0;
  call->request = pack_request(&entrance->bench->options.wish, uid, packet);
  call->stream = stream_open(entrance->engine, &target, NULL, 0, &events, call);
  if (!call->request || !call->stream) {
    end_call(call);
    return false;
  }
  return true;
}

static void grpc_close(struct entrance *entrance) {
  struct call *call;
  while ((call = LIST_FIRST(&entrance->calls))) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
    end_call(call);
  }
  stream_engine_free(entrance->engine);
}

// --- HTTP ------------------------------------------------------------------------------

static bool http_open(struct entrance *entrance) {
  char host[128];
  int port;
  if (sscanf(entrance->address, "%127[^:]:%d", host, &port) != 2 || port < 1 || port > UINT16_MAX) {
    bench_say("--entrance http needs HOST:PORT: %s", entrance->address);
    return false;
  }
  for (size_t i = 0; i < HTTP_CONNECTIONS; i++) {
    entrance->http[i] =
        evhttp_connection_base_new(entrance->bench->base, NULL, host, (uint16_t)port);
    if (!entrance->http[i]) {
      return false;
    }
  }
  return true;
}

static void on_http_answer(struct evhttp_request *request, void *argument) {
  struct entrance *entrance = argument;
  if (!request || evhttp_request_get_response_code(request) == 0) {
    entrance->events->on_broken("no answer over HTTP", entrance->owner);
    return;
  }
  struct evbuffer *content = evhttp_request_get_input_buffer(request);
  size_t len = evbuffer_get_length(content);
  const char *text = (const char *)evbuffer_pullup(content, -1);
  json_t *answer = len > 0 ? json_loadb(text, len, 0, NULL) : NULL;
  int code = evhttp_request_get_response_code(request);
  bool pushed = code == HTTP_OK && (json_is_true(json_object_get(answer, "pushed")) ||
                                    json_object_get(answer, "reached"));
  if (code != HTTP_OK) {
    bench_say("a push was refused: %d, %.*s", code, (int)len, text ? text : "");
  }
  json_decref(answer);
  entrance->events->on_answer(pushed, entrance->owner);
}

static bool http_push(struct entrance *entrance, int64_t uid, const struct packet *packet) {
  size_t room = sodium_base64_ENCODED_LEN(packet->data_len, sodium_base64_VARIANT_ORIGINAL);
  char *data = malloc(room);
  struct evhttp_request *request = evhttp_request_new(on_http_answer, entrance);
  if (!data || !request) {
    free(data);
    return false;
  }
  sodium_bin2base64(data, room, packet->data, packet->data_len, sodium_base64_VARIANT_ORIGINAL);
  evhttp_add_header(evhttp_request_get_output_headers(request), "Host", entrance->address);
  evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", "application/json");
  const struct token_wish *players = &entrance->bench->options.wish;
  evbuffer_add_printf(evhttp_request_get_output_buffer(request),
                      "{\"uid\":\"%lld\",\"color\":\"%s\",\"sid\":\"%lld\",\"bodies\":"
                      "[{\"mod\":%d,\"seq\":%d,\"data\":\"%s\"}]}",
                      (long long)uid, players->color, uid ? 0 : (long long)players->sid,
                      packet->mod, packet->seq, data);
  free(data);
  struct evhttp_connection *connection = entrance->http[entrance->next_http++ % HTTP_CONNECTIONS];
  return evhttp_make_request(connection, request, EVHTTP_REQ_POST, uid ? "/push" : "/broadcast") ==
         0;
}

static void http_close(struct entrance *entrance) {
  for (size_t i = 0; i < HTTP_CONNECTIONS; i++) {
    if (entrance->http[i]) {
      evhttp_connection_free(entrance->http[i]);
    }
  }
}

// --- Plain, to a fan-server ---------------------------------------------------------------

static void on_plain_event(struct bufferevent *plain, short what, void *owner) {
  struct entrance *entrance = owner;
  (void)plain;
  if (what & (BEV_EVENT_ERROR | BEV_EVENT_EOF)) {
    entrance->events->on_broken("the connection is gone", entrance->owner);
  }
}

static bool plain_open(struct entrance *entrance) {
  struct client_target target;
  const char *detail;
  entrance->plain = bufferevent_socket_new(entrance->bench->base, -1, BEV_OPT_CLOSE_ON_FREE);
  if (!entrance->plain || client_target_parse(entrance->address, &target, &detail) != 0) {
    return false;
  }
  bufferevent_setcb(entrance->plain, NULL, NULL, on_plain_event, entrance);
  return bufferevent_socket_connect(entrance->plain, (struct sockaddr *)&target.address,
                                    (int)target.address_len) == 0;
}

static bool plain_push(struct entrance *entrance, int64_t uid, const struct packet *packet) {
  uint8_t header[FRAME_HEADER_BYTES];
  (void)uid;
  frame_write_header(header, packet->data_len);
  return bufferevent_write(entrance->plain, header, sizeof header) == 0 &&
         bufferevent_write(entrance->plain, packet->data, packet->data_len) == 0;
}

static void plain_close(struct entrance *entrance) {
  if (entrance->plain) {
    bufferevent_free(entrance->plain);
  }
}

// --- Which -----------------------------------------------------------------------------

static const struct entrance_kind kinds[] = {{"redis", redis_open, redis_push, redis_close},
                                             {"plain", plain_open, plain_push, plain_close},
                                             {"grpc", grpc_open, grpc_push, grpc_close},
                                             {"http", http_open, http_push, http_close}};

struct entrance *entrance_open(struct bench *bench, const struct entrance_events *events,
                               void *owner) {
  const char *wanted = bench->options.entrance;
  const char *at = strchr(wanted, '@');
  struct entrance *entrance = calloc(1, sizeof *entrance);
  for (size_t i = 0; entrance && at && i < sizeof kinds / sizeof kinds[0]; i++) {
    if (strlen(kinds[i].name) == (size_t)(at - wanted) &&
        strncmp(kinds[i].name, wanted, (size_t)(at - wanted)) == 0) {
      entrance->kind = &kinds[i];
    }
  }
  if (!entrance || !entrance->kind) {
    bench_say("--entrance is not redis@, grpc@, http@ or plain@ and HOST:PORT: %s", wanted);
    free(entrance);
    return NULL;
  }
  entrance->bench = bench;
  entrance->address = at + 1;
  entrance->events = events;
  entrance->owner = owner;
  if (!entrance->kind->open(entrance)) {
    bench_say("the entrance can't be opened: %s", wanted);
    entrance_free(entrance);
    return NULL;
  }
  return entrance;
}

bool entrance_push(struct entrance *entrance, int64_t uid, const struct packet *packet) {
  return entrance->kind->push(entrance, uid, packet);
}

void entrance_free(struct entrance *entrance) {
  if (entrance) {
    entrance->kind->close(entrance);
    free(entrance);
  }
}
