// What every engine owes those who use streams, on each of them, before the stand-in for Roma. What
// the HTTP/2 engine makes of a backend that is not as it should be is in test_stream_http2.c.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <arpa/inet.h>
#include <cmocka.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/loop.h"
#include "common/packet.h"
#include "common/stream.h"
#include "test/unit/roma.h"

enum { PATIENCE_S = 60, OPEN_TIMEOUT_MS = 3000, MESSAGE_BYTES = 100000, CLIENTS = 10 };

// One stream and what it was told.
struct client {
  struct stream *stream;
  struct engine *engine;
  int opened;
  int sent;
  int messages;
  int ended;
  int status;
  char detail[128];
  char last[256];  // data of the last message
  bool read_on;    // asks for the next message after each
  bool end_when_opened;
  bool end_on_message;
};

struct engine {
  struct event_base *base;
  struct stream_engine *streams;
  struct roma_process roma;
  struct client clients[CLIENTS];
};

static void on_opened(void *owner) {
  struct client *client = owner;
  client->opened++;
  if (client->end_when_opened) {
    stream_end(client->stream, true);
    client->stream = NULL;
  } else if (client->read_on) {
    stream_read(client->stream);
  }
}

static void on_sent(void *owner) { ((struct client *)owner)->sent++; }

static void on_message(void *owner, const uint8_t *bytes, size_t len) {
  struct client *client = owner;
  struct packet packet;
  client->messages++;
  assert_int_equal(tunnel_message_decode(&packet, bytes, len), 0);
  snprintf(client->last, sizeof client->last, "%.*s", (int)packet.data_len,
           (const char *)packet.data);
  if (client->end_on_message) {
    stream_end(client->stream, true);
    client->stream = NULL;
  } else if (client->read_on) {
    stream_read(client->stream);
  }
}

static void on_ended(void *owner, int status, const char *detail) {
  struct client *client = owner;
  client->ended++;
  client->status = status;
  snprintf(client->detail, sizeof client->detail, "%s", detail);
  stream_end(client->stream, true);
  client->stream = NULL;
}

static int set_up(void **state, enum stream_engine_kind kind) {
  const struct stream_engine_options options = {.kind = kind,
                                                .open_timeout_ms = OPEN_TIMEOUT_MS,
                                                .streams_per_connection = 100,
                                                .message_bytes = MESSAGE_BYTES};
  struct engine *engine = calloc(1, sizeof *engine);
  int error;
  engine->base = event_base_new();
  engine->streams = stream_engine_new(engine->base, &options, &error);
  *state = engine;
  return engine->streams ? 0 : -1;
}

static int set_up_grpc(void **state) { return set_up(state, STREAM_GRPC); }
static int set_up_http2(void **state) { return set_up(state, STREAM_HTTP2); }

static int tear_down(void **state) {
  struct engine *engine = *state;
  for (int i = 0; i < CLIENTS; i++) {
    stream_end(engine->clients[i].stream, true);
  }
  stream_engine_free(engine->streams);
  loop_free(engine->base);
  roma_kill(&engine->roma, SIGTERM);
  free(engine);
  return 0;
}

static void start_roma(struct engine *engine, const char *const *arguments) {
  engine->roma = roma_start(arguments);
}

static struct client *open_for(struct engine *engine, int number, const char *address,
                               const char *color, int64_t timeout_ms) {
  static const struct stream_events events = {on_opened, on_sent, on_message, on_ended};
  const struct stream_metadata metadata[] = {
      {"x-md-global-oid", "7"},       {"x-md-global-uid", "7"},
      {"x-md-global-sid", "1"},       {"x-md-global-status", "1"},
      {"x-md-global-color", color},   {"x-md-global-client-ip", "127.0.0.1:1"},
      {"x-md-global-referer", "a#1"}, {"x-md-global-gate-referer", "a#1"},
  };
  const struct stream_target target = {.address = address,
                                       .method = "/player.intra.v1.TunnelService/Tunnel",
                                       .timeout_ms = timeout_ms};
  struct client *client = &engine->clients[number];
  client->engine = engine;
  client->stream = stream_open(engine->streams, &target, metadata, 8, &events, client);
  assert_non_null(client->stream);
  return client;
}

static struct client *open_with(struct engine *engine, int number, const char *address,
                                const char *color) {
  return open_for(engine, number, address, color, 0);
}

static struct client *open_at(struct engine *engine, int number, const char *address) {
  return open_with(engine, number, address, "");
}

static struct client *open_one(struct engine *engine, int number) {
  struct client *client = open_at(engine, number, engine->roma.address);
  client->read_on = true;
  return client;
}

static void send_text(struct client *client, int32_t mod, const char *text) {
  struct packet packet = {
      .data = (const uint8_t *)text, .data_len = strlen(text), .mod = mod, .seq = 1};
  size_t len = tunnel_message_size(&packet, false);
  uint8_t *room = stream_reserve(client->stream, len);
  tunnel_message_encode(&packet, false, room);
  stream_send(client->stream);
}

// Runs the loop until value is at least wanted; fails after a long while.
static void await(struct engine *engine, const int *value, int wanted) {
  const struct timeval patience = {.tv_sec = PATIENCE_S};
  struct event *timeout = evtimer_new(engine->base, (event_callback_fn)abort, NULL);
  event_add(timeout, &patience);
  while (*value < wanted) {
    event_base_loop(engine->base, EVLOOP_ONCE);
  }
  event_free(timeout);
}

// Until the stream takes the next message. One engine takes several at once, the other says
// on_sent after each.
static void await_room(struct engine *engine, struct client *client) {
  int sent = client->sent;
  if (!stream_takes(client->stream)) {
    await(engine, &client->sent, sent + 1);
  }
  assert_true(stream_takes(client->stream));
}

static void a_message_is_echoed(void **state) {
  struct engine *engine = *state;
  start_roma(engine, NULL);
  struct client *client = open_one(engine, 0);
  assert_int_equal(client->opened, 0);  // never from inside stream_open
  await(engine, &client->opened, 1);
  send_text(client, 3, "hello");
  await(engine, &client->messages, 1);
  assert_string_equal(client->last, "hello");
  await_room(engine, client);
  assert_int_equal(stream_engine_connections(engine->streams), 1);
}

static void metadata_that_no_header_can_carry_ends_that_stream_alone(void **state) {
  struct engine *engine = *state;
  start_roma(engine, NULL);
  struct client *good = open_one(engine, 0);
  struct client *bad = open_with(engine, 1, engine->roma.address, "a\tb");
  assert_int_equal(bad->ended, 0);  // never from inside stream_open
  await(engine, &bad->ended, 1);
  assert_int_equal(bad->opened, 0);
  assert_int_equal(bad->status, STREAM_INVALID_ARGUMENT);
  await(engine, &good->opened, 1);
}

static void a_call_ends_when_its_time_is_over(void **state) {
  struct engine *engine = *state;
  start_roma(engine, NULL);
  struct client *other = open_one(engine, 0);
  struct client *client = open_for(engine, 1, engine->roma.address, "", 3000);
  client->read_on = true;
  await(engine, &client->opened, 1);
  send_text(client, 3, "in time");
  await(engine, &client->messages, 1);
  await(engine, &client->ended, 1);
  assert_int_equal(client->status, STREAM_DEADLINE_EXCEEDED);
  send_text(other, 3, "x");
  await(engine, &other->messages, 1);
  assert_int_equal(other->ended, 0);
}

// Of the only socket there is to this address.
static int user_timeout_towards(const char *address) {
  enum { FDS = 1024 };
  long port = strtol(strrchr(address, ':') + 1, NULL, 10);
  int timeout_ms = -1;
  for (int fd = 0; fd < FDS; fd++) {
    struct sockaddr_in6 peer = {.sin6_family = AF_UNSPEC};
    socklen_t len = sizeof peer;
    // The port is at the same place in both families.
    if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
        (peer.sin6_family == AF_INET || peer.sin6_family == AF_INET6) &&
        ntohs(peer.sin6_port) == port) {
      assert_int_equal(timeout_ms, -1);
      len = sizeof timeout_ms;
      assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, &len), 0);
    }
  }
  return timeout_ms;
}

static void a_backend_that_acknowledges_nothing_is_given_up_in_time(void **state) {
  struct engine *engine = *state;
  start_roma(engine, NULL);
  struct client *client = open_one(engine, 0);
  await(engine, &client->opened, 1);
  assert_int_equal(user_timeout_towards(engine->roma.address), 20000);
}

static void messages_keep_their_order(void **state) {
  struct engine *engine = *state;
  start_roma(engine, NULL);
  struct client *client = open_one(engine, 0);
  await(engine, &client->opened, 1);
  for (int i = 0; i < 200; i++) {
    char text[16];
    snprintf(text, sizeof text, "%d", i);
    send_text(client, 3, text);
    await_room(engine, client);
    if (i % 10 == 9) {
      await(engine, &client->messages, i + 1);
      assert_string_equal(client->last, text);
    }
  }
}

static void only_what_is_asked_for_is_given(void **state) {
  struct engine *engine = *state;
  start_roma(engine, NULL);
  struct client *client = open_at(engine, 0, engine->roma.address);
  await(engine, &client->opened, 1);
  send_text(client, 2, "flood 1000 100");
  stream_read(client->stream);
  await(engine, &client->messages, 1);
  // Another stream's whole conversation goes by, and this one gets nothing more.
  struct client *other = open_one(engine, 1);
  await(engine, &other->opened, 1);
  send_text(other, 3, "x");
  await(engine, &other->messages, 1);
  assert_int_equal(client->messages, 1);
  stream_read(client->stream);
  await(engine, &client->messages, 2);
}

static void a_finished_stream_brings_its_last_answers_to_its_new_owner(void **state) {
  static const struct stream_events events = {on_opened, on_sent, on_message, on_ended};
  struct engine *engine = *state;
  start_roma(engine, (const char *const[]){NULL});
  struct client *client = open_one(engine, 0);
  struct client *heir = &engine->clients[1];
  await(engine, &client->opened, 1);
  send_text(client, 3, "one more");
  heir->read_on = true;
  heir->stream = client->stream;
  client->stream = NULL;
  stream_finish(heir->stream, &events, heir);  // a read is under way
  await(engine, &heir->ended, 1);
  assert_int_equal(heir->status, STREAM_OK);
  assert_int_equal(heir->messages, 1);
  assert_string_equal(heir->last, "one more");
  assert_int_equal(client->messages + client->ended, 0);
}

static void a_graceful_end_delivers_what_was_sent(void **state) {
  struct engine *engine = *state;
  char record[] = "/tmp/janus-test-XXXXXX";
  char line[256] = "";
  close(mkstemp(record));
  start_roma(engine, (const char *const[]){"--record", record, NULL});
  struct client *client = open_one(engine, 0);
  await(engine, &client->opened, 1);
  send_text(client, 3, "last words");
  stream_end(client->stream, true);
  client->stream = NULL;
  // Asked on another stream until it has counted one message more than these.
  struct client *other = open_one(engine, 1);
  await(engine, &other->opened, 1);
  do {
    send_text(other, 2, "count");
    await(engine, &other->messages, other->messages + 1);
    await_room(engine, other);
  } while (atoi(other->last) <= other->messages);
  FILE *file = fopen(record, "r");
  bool recorded = false;
  while (!recorded && fgets(line, sizeof line, file)) {
    recorded = strstr(line, "last words") != NULL;
  }
  fclose(file);
  unlink(record);
  assert_true(recorded);
}

static void a_refused_connection_ends_the_stream(void **state) {
  struct engine *engine = *state;
  struct client *client = open_at(engine, 0, "127.0.0.1:1");
  await(engine, &client->ended, 1);
  assert_int_equal(client->status, STREAM_UNAVAILABLE);
  assert_int_equal(client->opened, 0);
}

static void a_backend_that_says_nothing_ends_in_time(void **state) {
  struct engine *engine = *state;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof address;
  char text[64];
  int silent = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(bind(silent, (struct sockaddr *)&address, sizeof address), 0);
  assert_int_equal(listen(silent, 5), 0);
  getsockname(silent, (struct sockaddr *)&address, &len);
  snprintf(text, sizeof text, "127.0.0.1:%d", ntohs(address.sin_port));
  struct client *client = open_at(engine, 0, text);
  await(engine, &client->ended, 1);
  assert_int_equal(client->opened, 0);
  assert_true(client->status == STREAM_DEADLINE_EXCEEDED || client->status == STREAM_UNAVAILABLE);
  close(silent);
}

static void a_backend_that_allows_few_streams_gets_more_connections(void **state) {
  struct engine *engine = *state;
  start_roma(engine, (const char *const[]){"--max-streams", "3", NULL});
  for (int i = 0; i < CLIENTS; i++) {
    open_one(engine, i);
  }
  for (int i = 0; i < CLIENTS; i++) {
    struct client *client = &engine->clients[i];
    while (client->opened == 0) {
      if (client->ended > 0) {  // it waited in vain: the limit is known now
        assert_int_equal(client->status, STREAM_DEADLINE_EXCEEDED);
        client->ended = 0;
        open_one(engine, i);
      }
      event_base_loop(engine->base, EVLOOP_ONCE);
    }
  }
  assert_in_range(stream_engine_connections(engine->streams), 4, CLIENTS);
}

static void a_backends_status_and_its_text_arrive(void **state) {
  struct engine *engine = *state;
  start_roma(engine, NULL);
  struct client *client = open_one(engine, 0);
  await(engine, &client->opened, 1);
  send_text(client, 2, "end 9 not now");
  await(engine, &client->ended, 1);
  assert_int_equal(client->status, STREAM_FAILED_PRECONDITION);
  assert_string_equal(client->detail, "not now");
}

static void messages_before_the_end_are_given_out_first(void **state) {
  struct engine *engine = *state;
  start_roma(engine, NULL);
  struct client *client = open_one(engine, 0);
  await(engine, &client->opened, 1);
  send_text(client, 2, "logout 3");
  await(engine, &client->ended, 1);
  assert_int_equal(client->status, STREAM_OK);
  assert_int_equal(client->messages, 1);
}

static void a_message_over_the_bound_ends_the_stream(void **state) {
  struct engine *engine = *state;
  start_roma(engine, NULL);
  struct client *client = open_one(engine, 0);
  await(engine, &client->opened, 1);
  send_text(client, 2, "size 200000");
  await(engine, &client->ended, 1);
  assert_int_equal(client->status, STREAM_RESOURCE_EXHAUSTED);
  assert_int_equal(client->messages, 0);
}

static void a_killed_backend_ends_its_streams(void **state) {
  struct engine *engine = *state;
  start_roma(engine, NULL);
  struct client *one = open_one(engine, 0);
  struct client *other = open_at(engine, 1, engine->roma.address);  // reads nothing
  await(engine, &one->opened, 1);
  await(engine, &other->opened, 1);
  roma_kill(&engine->roma, SIGKILL);
  await(engine, &one->ended, 1);
  await(engine, &other->ended, 1);
  assert_int_equal(one->status, STREAM_UNAVAILABLE);
  assert_int_equal(other->status, STREAM_UNAVAILABLE);
}

static void a_stream_may_be_ended_inside_any_callback(void **state) {
  struct engine *engine = *state;
  start_roma(engine, NULL);
  struct client *first = open_one(engine, 0);
  first->end_when_opened = true;
  await(engine, &first->opened, 1);
  struct client *second = open_one(engine, 1);
  second->end_on_message = true;
  await(engine, &second->opened, 1);
  send_text(second, 3, "x");
  await(engine, &second->messages, 1);
  assert_int_equal(first->ended + second->ended, 0);
}

static void an_engine_may_be_freed_with_all_under_way(void **state) {
  struct engine *engine = *state;
  start_roma(engine, NULL);
  for (int i = 0; i < CLIENTS; i++) {
    open_one(engine, i);
  }
  await(engine, &engine->clients[0].opened, 1);
  send_text(&engine->clients[0], 2, "flood 100000 1000");
  await(engine, &engine->clients[0].messages, 5);
  // tear_down gives the streams up and frees the engine at once.
}

int main(void) {
#define ON_GRPC(test) \
  { #test "_over_grpc", test, set_up_grpc, tear_down, NULL }
#define ON_HTTP2(test) \
  { #test "_over_http2", test, set_up_http2, tear_down, NULL }
#define FACTS(ON)                                                                                 \
  ON(a_message_is_echoed), ON(metadata_that_no_header_can_carry_ends_that_stream_alone),          \
      ON(a_call_ends_when_its_time_is_over),                                                      \
      ON(a_backend_that_acknowledges_nothing_is_given_up_in_time), ON(messages_keep_their_order), \
      ON(only_what_is_asked_for_is_given),                                                        \
      ON(a_finished_stream_brings_its_last_answers_to_its_new_owner),                             \
      ON(a_graceful_end_delivers_what_was_sent), ON(a_refused_connection_ends_the_stream),        \
      ON(a_backend_that_says_nothing_ends_in_time),                                               \
      ON(a_backend_that_allows_few_streams_gets_more_connections),                                \
      ON(a_backends_status_and_its_text_arrive), ON(messages_before_the_end_are_given_out_first), \
      ON(a_message_over_the_bound_ends_the_stream), ON(a_killed_backend_ends_its_streams),        \
      ON(a_stream_may_be_ended_inside_any_callback), ON(an_engine_may_be_freed_with_all_under_way)
  const struct CMUnitTest tests[] = {FACTS(ON_GRPC), FACTS(ON_HTTP2)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
