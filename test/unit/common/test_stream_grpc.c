// What the engine on gRPC C core makes of a backend, with whose settings it gets by without being
// told. What every engine owes is in test_stream.c.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <time.h>

#include "common/loop.h"
#include "common/stream.h"
#include "test/unit/http2_backend.h"

enum { PATIENCE_S = 60, OPEN_TIMEOUT_MS = 6000, LATER_S = 61, CLIENTS = 8 };

// --- The clock -----------------------------------------------------------------------------

static _Atomic int64_t later_s;  // than it is; the bridge's thread asks too

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now) {
  int result = __real_clock_gettime(clock, now);
  now->tv_sec += later_s;
  return result;
}

// --- Memory --------------------------------------------------------------------------------

static int allocations_left = -1;  // by calloc, until one comes to nothing; -1: they all succeed
static void *last_allocated;       // of those that were counted
static bool last_was_freed;

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size) {
  if (allocations_left < 0) {
    return __real_calloc(count, size);
  }
  if (allocations_left-- == 0) {
    return NULL;
  }
  return last_allocated = __real_calloc(count, size);
}

void __real_free(void *pointer);
void __wrap_free(void *pointer);
void __wrap_free(void *pointer) {
  last_was_freed |= pointer && pointer == last_allocated;
  __real_free(pointer);
}

// --- Streams to a backend that a test plays --------------------------------------------------

struct client {
  struct stream *stream;
  int opened;
  int ended;
  int status;
};

struct house {
  struct event_base *base;
  struct stream_engine *engine;
  struct backend backend;
  struct client clients[CLIENTS];
};

static void on_opened(void *owner) { ((struct client *)owner)->opened++; }

static void on_sent(void *owner) { (void)owner; }

static void on_message(void *owner, const uint8_t *bytes, size_t len) {
  (void)owner;
  (void)bytes;
  (void)len;
}

static void on_ended(void *owner, int status, const char *detail) {
  struct client *client = owner;
  (void)detail;
  client->ended++;
  client->status = status;
  stream_end(client->stream, true);
  client->stream = NULL;
}

static int set_up(void **state) {
  const struct stream_engine_options options = {.kind = STREAM_GRPC,
                                                .open_timeout_ms = OPEN_TIMEOUT_MS,
                                                .streams_per_connection = 100,
                                                .message_bytes = 1 << 20};
  struct house *house = calloc(1, sizeof *house);
  int error;
  later_s = 0;
  house->base = event_base_new();
  house->engine = stream_engine_new(house->base, &options, &error);
  backend_start(&house->backend, house->base);
  *state = house;
  return house->engine ? 0 : -1;
}

static int tear_down(void **state) {
  struct house *house = *state;
  for (int i = 0; i < CLIENTS; i++) {
    stream_end(house->clients[i].stream, true);
  }
  stream_engine_free(house->engine);
  backend_stop(&house->backend);
  loop_free(house->base);
  free(house);
  return 0;
}

static struct client *begin_at(struct house *house, int number, const char *address) {
  static const struct stream_events events = {on_opened, on_sent, on_message, on_ended};
  const struct stream_target target = {.address = address,
                                       .method = "/player.intra.v1.TunnelService/Tunnel"};
  struct client *client = &house->clients[number];
  client->stream = stream_open(house->engine, &target, NULL, 0, &events, client);
  return client;
}

static struct client *begin(struct house *house, int number) {
  return begin_at(house, number, house->backend.address);
}

// Runs the loop until the value is wanted; fails after a long while.
static void await(struct house *house, const int *value, int wanted) {
  const struct timeval patience = {.tv_sec = PATIENCE_S};
  struct event *timeout = evtimer_new(house->base, (event_callback_fn)abort, NULL);
  event_add(timeout, &patience);
  while (*value < wanted) {
    event_base_loop(house->base, EVLOOP_ONCE);
  }
  event_free(timeout);
}

static void open_one(struct house *house, int number) {
  struct client *client = begin(house, number);
  await(house, &client->opened, 1);
}

static void open_in_vain(struct house *house, int number) {
  struct client *client = begin(house, number);
  await(house, &client->ended, 1);
  assert_int_equal(client->opened, 0);
  assert_int_equal(client->status, STREAM_DEADLINE_EXCEEDED);
}

static void allow_streams(struct house *house, uint32_t count) {
  house->backend.settings[0] =
      (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, count};
  house->backend.settings_count = 1;
}

// --- How many streams a backend allows -------------------------------------------------------

static void a_bound_that_is_none_any_more_is_found_out(void **state) {
  struct house *house = *state;
  allow_streams(house, 1);
  open_one(house, 0);
  open_in_vain(house, 1);
  struct backend_connection *connection = house->backend.connections[0];
  backend_setting(connection, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 100);
  await(house, &connection->settings_acks, 2);
  allow_streams(house, 100);
  open_one(house, 2);
  assert_int_equal(stream_engine_connections(house->engine), 2);
  later_s = LATER_S;
  for (int i = 3; i < CLIENTS; i++) {
    open_one(house, i);
  }
  assert_int_equal(stream_engine_connections(house->engine), 2);
}

static void a_bound_costs_one_stream_now_and_then_and_the_others_nothing(void **state) {
  struct house *house = *state;
  allow_streams(house, 1);
  open_one(house, 0);
  open_in_vain(house, 1);
  later_s = LATER_S;
  struct client *tried = begin(house, 2);
  for (int i = 3; i < CLIENTS; i++) {
    open_one(house, i);
  }
  assert_int_equal(stream_engine_connections(house->engine), 1 + CLIENTS - 3);
  await(house, &tried->ended, 1);
  assert_int_equal(tried->status, STREAM_DEADLINE_EXCEEDED);
}

// --- Without memory --------------------------------------------------------------------------

// Of the stream, its metadata, the backend and its connection each is missing once.
static void a_backend_that_gets_no_connection_is_not_kept(void **state) {
  enum { ALLOCATIONS = 4 };
  struct house *house = *state;
  open_one(house, 0);  // so that there is a hash of them, which needs memory too
  for (int i = 0; i < ALLOCATIONS; i++) {
    allocations_left = i;
    last_allocated = NULL;
    last_was_freed = false;
    begin_at(house, 1, "127.0.0.1:1");
    assert_int_equal(allocations_left, -1);
    assert_null(house->clients[1].stream);
    assert_true(i == 0 || last_was_freed);
  }
  open_one(house, 2);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_bound_that_is_none_any_more_is_found_out),
      FACT(a_bound_costs_one_stream_now_and_then_and_the_others_nothing),
      FACT(a_backend_that_gets_no_connection_is_not_kept),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
