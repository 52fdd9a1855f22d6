// Backends that say what the test has them say, for the sessions of session_fixture.h. The linker
// puts their streams in place of ours (see the Makefile).
#ifndef JANUS_TEST_BACKEND_FIXTURE_H
#define JANUS_TEST_BACKEND_FIXTURE_H

#include "common/stream.h"
#include "test/unit/worker/session_fixture.h"
#include "worker/node_picker.h"
#include "worker/route_store.h"
#include "worker/tunnel.h"

// --- Their streams -------------------------------------------------------------------

enum { STREAMS_MAX = 4096, SENT_MAX = 32, MESSAGE_MAX_BYTES = 1024 };

struct stream {
  const struct stream_events *events;
  void *owner;
  bool reading;
  bool opened;
  bool sending;
  bool takes_all;  // it never has a message under way when the next one comes
  bool ended;
  bool is_written;  // there is a message that has not been sent yet
  uint8_t message[MESSAGE_MAX_BYTES];
  size_t message_len;
  int32_t sent[SENT_MAX];  // the index of each message that came, round and round
  size_t sent_count;
};

static struct stream streams[STREAMS_MAX];
static size_t stream_count;
static size_t opens_failing;  // so many more streams can't be opened: memory is out

// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names for what it puts in place of ours
struct stream *__wrap_stream_open(struct stream_engine *engine, const struct stream_target *target,
                                  const struct stream_metadata *metadata, size_t metadata_count,
                                  const struct stream_events *events, void *owner);
bool __wrap_stream_takes(const struct stream *stream);
uint8_t *__wrap_stream_reserve(struct stream *stream, size_t len);
void __wrap_stream_send(struct stream *stream);
size_t __wrap_stream_unsure(const struct stream *stream);
void __wrap_stream_read(struct stream *stream);
void __wrap_stream_end(struct stream *stream, bool graceful);
void __wrap_stream_finish(struct stream *stream, const struct stream_events *events, void *owner);
int64_t __wrap_stream_engine_arrived_us(const struct stream_engine *engine);

struct stream *__wrap_stream_open(struct stream_engine *engine, const struct stream_target *target,
                                  const struct stream_metadata *metadata, size_t metadata_count,
                                  const struct stream_events *events, void *owner) {
  (void)engine;
  (void)target;
  (void)metadata;
  (void)metadata_count;
  if (opens_failing > 0) {
    opens_failing--;
    return NULL;
  }
  assert_true(stream_count < sizeof streams / sizeof streams[0]);
  struct stream *stream = &streams[stream_count++];
  memset(stream, 0, sizeof *stream);
  stream->events = events;
  stream->owner = owner;
  return stream;
}

bool __wrap_stream_takes(const struct stream *stream) { return !stream->sending; }

uint8_t *__wrap_stream_reserve(struct stream *stream, size_t len) {
  assert_false(stream->sending || stream->ended || stream->is_written);
  assert_true(len <= sizeof stream->message);
  stream->is_written = true;
  stream->message_len = len;
  return stream->message;
}

void __wrap_stream_send(struct stream *stream) {
  struct packet packet;
  assert_int_equal(tunnel_message_decode(&packet, stream->message, stream->message_len), 0);
  stream->sent[stream->sent_count++ % SENT_MAX] = packet.index;
  stream->sending = !stream->takes_all;
  stream->is_written = false;
}

size_t __wrap_stream_unsure(const struct stream *stream) { return stream->sending ? 1 : 0; }

void __wrap_stream_read(struct stream *stream) {
  assert_false(stream->reading || stream->ended);
  stream->reading = true;
}

void __wrap_stream_end(struct stream *stream, bool graceful) {
  (void)graceful;
  if (stream) {
    stream->ended = true;
  }
}

void __wrap_stream_finish(struct stream *stream, const struct stream_events *events, void *owner) {
  stream->events = events;
  stream->owner = owner;
}

int64_t __wrap_stream_engine_arrived_us(const struct stream_engine *engine) {
  (void)engine;
  return 0;
}
// NOLINTEND(bugprone-reserved-identifier)

// The backend takes all that there is for it.
static void take_all(struct stream *stream) {
  while (stream->sending) {
    stream->sending = false;
    stream->events->on_sent(stream->owner);
  }
}

// --- How they are found ----------------------------------------------------------------

enum { PLAYER_TYPE, ROOM_TYPE, TYPES };
enum { PLAYER = MODULE_USER, ROOM = MODULE_ROOM };

// The master's part in finding a node: the candidate is it.
static void answer_claim(struct fixture *fixture, const struct channel_route_claim *claim) {
  struct channel_route_answer answer = {.id = claim->id};
  strcpy(answer.address, claim->candidate);
  assert_int_equal(channel_send(fixture->master, CHANNEL_ROUTE_ANSWER, &answer), 0);
}

static void on_store_ready(struct worker *worker) { (void)worker; }

static int set_up_backends(struct fixture *fixture) {
  struct worker *worker = &fixture->worker;
  struct config *config = &worker->config;
  const struct route_table_options routes = {.capacity = {16, 16, 16}};
  const struct node nodes[] = {
      {.service = "player", .color = "blue", .address = "127.0.0.1:9", .weight = 1},
      {.service = "player", .color = "blue", .address = "127.0.0.1:10", .weight = 0},
      {.service = "room", .color = "blue", .address = "127.0.0.1:9", .weight = 1},
      {.service = "room", .color = "blue", .address = "127.0.0.1:10", .weight = 0},
  };
  char why[512];
  int error;
  config->tunnel.types[PLAYER_TYPE] = (struct config_tunnel_type){.name = "player",
                                                                  .service = "player",
                                                                  .method = "/p.T/Tunnel",
                                                                  .modules = {PLAYER},
                                                                  .module_count = 1,
                                                                  .own_object_only = true,
                                                                  .tier = ROUTE_PLAYER,
                                                                  .main = true};
  config->tunnel.types[ROOM_TYPE] = (struct config_tunnel_type){.name = "room",
                                                                .service = "room",
                                                                .method = "/r.T/Tunnel",
                                                                .modules = {ROOM},
                                                                .module_count = 1,
                                                                .fragments = true,
                                                                .tier = ROUTE_OBJECT};
  config->tunnel.type_count = TYPES;
  config->limits.tunnels_per_session = 4;
  config->queue.tunnel_messages = 2;
  config->queue.tunnel_bytes = 1 << 20;
  config->tunnel.reopen_timeout_ms = 10000;
  config->routes.store = ROUTES_MEMORY;
  dispatch_init(&worker->dispatch, config->tunnel.types, TYPES);
  worker->node_picker = node_picker_new(0);
  worker->nodes = node_table_create(8, &error);
  worker->routes = route_table_create(&routes, &error);
  worker->route_store = route_store_new(worker, on_store_ready, why, sizeof why);
  stream_count = opens_failing = 0;
  return worker->nodes && worker->routes && worker->route_store
             ? node_table_publish(worker->nodes, nodes, sizeof nodes / sizeof nodes[0])
             : -1;
}

static int tear_down_backends(struct fixture *fixture) {
  struct worker *worker = &fixture->worker;
  while (!LIST_EMPTY(&worker->sessions)) {
    session_close(LIST_FIRST(&worker->sessions), CLOSE_DRAIN);
  }
  tunnel_cut_all(worker);
  route_store_free(worker->route_store);
  route_table_free(worker->routes);
  node_table_free(worker->nodes);
  node_picker_free(worker->node_picker);
  return 0;
}

#endif
