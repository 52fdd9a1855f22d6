// A worker without listeners, its master, and sessions on transports in memory: what a session
// needs from below, and nothing more. For the tests of what sessions do.
#ifndef JANUS_TEST_SESSION_FIXTURE_H
#define JANUS_TEST_SESSION_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "common/system_message.h"
#include "proto/message.pb-c.h"
#include "worker/inbox.h"
#include "worker/newcomers.h"
#include "worker/packing.h"
#include "worker/pushes.h"
#include "worker/session.h"
#include "worker/session_output.h"

// --- A transport in memory -----------------------------------------------------------

struct memory {
  struct transport transport;
  uint8_t last[8192];  // message to the client
  size_t last_len;
  int32_t seqs[8];  // of the first ones
  int sent;
  size_t queued;  // bytes that it says are waiting
  bool paused;
  int closed;
  bool flushed;
  enum close_reason reason;
};

static struct memory *of(struct transport *transport) { return (struct memory *)transport; }

static const struct memory *of_const(const struct transport *transport) {
  return (const struct memory *)transport;
}

static int memory_send(struct transport *transport, uint8_t *buffer, size_t len) {
  struct memory *memory = of(transport);
  assert_true(len <= sizeof memory->last);
  memcpy(memory->last, buffer + TRANSPORT_HEADROOM_BYTES, len);
  memory->last_len = len;
  struct packet packet;
  if (memory->sent < (int)(sizeof memory->seqs / sizeof memory->seqs[0]) &&
      packet_decode(&packet, memory->last, len) == 0) {
    memory->seqs[memory->sent] = packet.seq;
  }
  memory->sent++;
  return 0;
}

static size_t memory_queued_bytes(const struct transport *transport) {
  return of_const(transport)->queued;
}

static uint64_t memory_taken_bytes(const struct transport *transport) {
  (void)transport;
  return 0;
}

static void memory_pause(struct transport *transport) { of(transport)->paused = true; }

static void memory_resume(struct transport *transport) { of(transport)->paused = false; }

static void memory_close(struct transport *transport, enum close_reason reason, bool flush) {
  of(transport)->closed++;
  of(transport)->reason = reason;
  of(transport)->flushed = flush;
}

static const struct transport_kind memory_kind = {.send = memory_send,
                                                  .queued_bytes = memory_queued_bytes,
                                                  .taken_bytes = memory_taken_bytes,
                                                  .pause = memory_pause,
                                                  .resume = memory_resume,
                                                  .close = memory_close};

static inline struct transport *make(void *context, const struct transport_events *events,
                                     void *owner) {
  struct memory *memory = context;
  memory->transport =
      (struct transport){.kind = &memory_kind, .name = "memory", .events = events, .owner = owner};
  return &memory->transport;
}

// --- A worker around it, and its master --------------------------------------------------

static const struct timeval never = {.tv_sec = 600};

struct fixture {
  struct worker worker;
  struct counters counters;
  struct signing_key server_key;
  struct seal *issuer;  // the account service's, under the same key
  struct channel *master;
  struct channel_login login;  // the last that it was asked about
  int logins;
  int closed;
  struct memory memory;
  // Of a test's own: what else comes to the master.
  void (*on_message)(enum channel_type type, const void *content, struct fixture *fixture);
};

static void on_master_message(enum channel_type type, const void *content, void *owner) {
  struct fixture *fixture = owner;
  if (type == CHANNEL_LOGIN) {
    memcpy(&fixture->login, content, sizeof fixture->login);
    fixture->logins++;
  }
  fixture->closed += type == CHANNEL_SESSION_CLOSED;
  if (fixture->on_message) {
    fixture->on_message(type, content, fixture);
  }
}

static void on_master_broken(const char *why, void *owner) {
  (void)why;
  (void)owner;
}

static void on_bury(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  session_bury_all(owner);
}

static int set_up(void **state) {
  static const struct channel_events events = {on_master_message, on_master_broken};
  static const uint8_t account_key[32] = "0123456789abcdef0123456789abcde";
  struct fixture *fixture = calloc(1, sizeof *fixture);
  struct worker *worker = &fixture->worker;
  struct config *config = &worker->config;
  uint8_t public[KEY_ED25519_PUBLIC_BYTES];
  int pair[2];
  assert_int_equal(seal_global_init(true), 0);
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  crypto_sign_keypair(public, fixture->server_key.secret);
  config->limits.message_to_client_bytes = 16384;
  config->limits.inflated_bytes = 1 << 20;
  config->compress.weak_bytes = config->compress.strong_bytes = 1 << 30;
  config->queue.client_high_bytes = 1000;
  config->queue.client_low_bytes = 100;
  config->queue.client_grace_ms = 600000;
  config->push.waiting_bytes = 100000;
  fixture->issuer = seal_new(account_key, sizeof account_key);
  worker->base = event_base_new();
  worker->counters = &fixture->counters;
  struct secrets secrets = {.current = {.account_aes_key_len = sizeof account_key,
                                        .has_certs = true,
                                        .server_key = fixture->server_key}};
  memcpy(secrets.current.account_aes_key, account_key, sizeof account_key);
  worker->handshake_keys.clock_tolerance_s = 5;
  assert_int_equal(handshake_keys_set(&worker->handshake_keys, &secrets), 0);
  dispatch_init(&worker->dispatch, config->tunnel.types, 0);
  worker->handshake_timeout = worker->idle_timeout = &never;
  worker->deflater = deflater_new();
  worker->send_buffer = malloc(1 << 16);
  worker->bury = event_new(worker->base, -1, 0, on_bury, worker);
  worker->inbox = inbox_new(worker, pair[0]);
  worker->pushes = pushes_new(worker);
  worker->packing = packing_new(worker, session_on_packed);
  worker->newcomers = newcomers_new(worker->base, worker->counters, worker->inbox);
  fixture->master = channel_new(worker->base, pair[1], &events, fixture);
  *state = fixture;
  return worker->inbox && worker->pushes && worker->packing && worker->newcomers && fixture->master
             ? 0
             : -1;
}

static void turn(struct fixture *fixture) {
  for (int i = 0; i < 10; i++) {
    event_base_loop(fixture->worker.base, EVLOOP_NONBLOCK);
  }
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  struct worker *worker = &fixture->worker;
  struct session *session;
  while ((session = LIST_FIRST(&worker->sessions))) {
    session_close(session, CLOSE_DRAIN);
  }
  session_bury_all(worker);
  newcomers_free(worker->newcomers);
  packing_free(worker->packing);
  pushes_free(worker->pushes);
  inbox_free(worker->inbox);
  channel_free(fixture->master);
  event_free(worker->bury);
  deflater_free(worker->deflater);
  handshake_keys_fini(&worker->handshake_keys);
  seal_free(fixture->issuer);
  free(worker->send_buffer);
  event_base_free(worker->base);
  free(fixture);
  return 0;
}

static void client_sends(struct memory *memory, const struct packet *packet) {
  uint8_t bytes[4096];
  size_t len = (size_t)(packet_encode(packet, bytes) - bytes);
  const struct transport *transport = &memory->transport;
  transport->events->on_message(bytes, len, transport->owner);
}

static inline struct packet last_message(const struct memory *memory) {
  struct packet packet;
  assert_int_equal(packet_decode(&packet, memory->last, memory->last_len), 0);
  return packet;
}

static void send_handshake(struct fixture *fixture, struct memory *memory, const char *color,
                           int64_t uid, int32_t conn_id) {
  uint8_t zero[KEY_X25519_BYTES] = {0};
  uint8_t data[512];
  struct token token = {.account_id = uid, .server_id = 7, .timeout = time(NULL) + 60};
  strcpy(token.color, color);
  Message__CSHandshake request = MESSAGE__CSHANDSHAKE__INIT;
  request.pub = (ProtobufCBinaryData){sizeof zero, zero};
  request.timestamp = time(NULL);
  request.token = token_write(fixture->issuer, &token);
  client_sends(memory, &(struct packet){.data = data,
                                        .data_len = message__cshandshake__pack(&request, data),
                                        .mod = MODULE_SYSTEM,
                                        .seq = SYSTEM_HANDSHAKE,
                                        .conn_id = conn_id});
  free(request.token);
}

static void master_answers(struct fixture *fixture, int32_t refusal) {
  turn(fixture);
  const struct channel_login_answer answer = {.connection = fixture->login.session.connection,
                                              .refusal = refusal};
  assert_int_equal(channel_send(fixture->master, CHANNEL_LOGIN_ANSWER, &answer), 0);
  turn(fixture);
}

#endif
