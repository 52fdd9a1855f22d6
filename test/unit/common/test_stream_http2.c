// The HTTP/2 engine before a backend that says and does what each test wants. What every engine
// owes a tunnel is in test_stream.c.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/loop.h"
#include "common/stream.h"
#include "common/tcp_client.h"
#include "test/unit/child.h"
#include "test/unit/http2_backend.h"

enum {
  PATIENCE_S = 60,
  LONG_MS = 60000,  // that no test waits for
  SHORT_MS = 200,   // that a test waits for
  CLIENTS = 32,
  MESSAGE_BYTES = 4 << 20,
  WINDOW_BYTES = 256 << 10,  // that the engine gives to each stream
  KEPT_BYTES = 64 << 10,     // of what a client was told
  PREFIX_BYTES = 5,          // before a message
};

#define METHOD "/player.intra.v1.TunnelService/Tunnel"

static size_t writes;
static size_t socket_room = SIZE_MAX;  // in the sockets

size_t __real_tcp_client_write(struct tcp_client *client, const uint8_t *bytes, size_t len);
size_t __wrap_tcp_client_write(struct tcp_client *client, const uint8_t *bytes, size_t len);
size_t __wrap_tcp_client_write(struct tcp_client *client, const uint8_t *bytes, size_t len) {
  writes += len > 0;
  size_t taken = __real_tcp_client_write(client, bytes, len < socket_room ? len : socket_room);
  socket_room -= socket_room == SIZE_MAX ? 0 : taken;
  return taken;
}

// In place of the C library's for all there is in this program, also libraries: they are found here
// first. Sanitizers have their own.
static size_t allocations;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOCATIONS true
// NOLINTBEGIN(bugprone-reserved-identifier,readability-inconsistent-declaration-parameter-name)
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);

void *malloc(size_t size) {
  allocations++;
  return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
  allocations++;
  return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
  allocations++;
  return __libc_realloc(memory, size);
}
// NOLINTEND(bugprone-reserved-identifier,readability-inconsistent-declaration-parameter-name)
#else
#define COUNTS_ALLOCATIONS false
#endif

// A host of many addresses: the first is not as the others, which are all the same.
#define MANY "many.invalid"
enum { MANY_ADDRESSES = 60 };

int __real_evutil_getaddrinfo(const char *host, const char *port,
                              const struct evutil_addrinfo *hints, struct evutil_addrinfo **found);
int __wrap_evutil_getaddrinfo(const char *host, const char *port,
                              const struct evutil_addrinfo *hints, struct evutil_addrinfo **found);
int __wrap_evutil_getaddrinfo(const char *host, const char *port,
                              const struct evutil_addrinfo *hints, struct evutil_addrinfo **found) {
  if (strcmp(host, MANY) != 0) {
    return __real_evutil_getaddrinfo(host, port, hints, found);
  }
  for (int i = 0; i < MANY_ADDRESSES; i++) {
    int result = __real_evutil_getaddrinfo(i == 0 ? "127.0.0.2" : "127.0.0.1", port, hints, found);
    assert_int_equal(result, 0);
    found = &(*found)->ai_next;
  }
  return 0;
}

// One stream and what it was told.
struct client {
  struct stream *stream;
  int opened;
  int sent;
  int messages;
  int ended;
  int order;  // of its end among all
  int status;
  size_t unsure;  // when it ended
  char detail[1024];
  size_t last_len;
  uint8_t last[KEPT_BYTES];  // of the last message, as much as there is room for
  char texts[KEPT_BYTES];    // of all messages, each behind a blank
  size_t texts_len;
  bool reads;   // asks for the next message after each
  bool leaves;  // ends the stream before it looks at a message
};

struct house {
  struct event_base *base;
  struct stream_engine_options options;  // until the first stream
  struct stream_engine *engine;
  struct backend backend;
  struct client clients[CLIENTS];
  pid_t child;  // 0: none
};

static void on_opened(void *owner) {
  struct client *client = owner;
  client->opened++;
  if (client->reads) {
    stream_read(client->stream);
  }
}

static void on_sent(void *owner) { ((struct client *)owner)->sent++; }

static void on_message(void *owner, const uint8_t *bytes, size_t len) {
  struct client *client = owner;
  size_t kept = len < KEPT_BYTES ? len : KEPT_BYTES;
  client->messages++;
  if (client->leaves) {
    stream_end(client->stream, true);
    client->stream = NULL;
  }
  client->last_len = len;
  memcpy(client->last, bytes, kept);
  if (len + 2 <= sizeof client->texts - client->texts_len) {
    client->texts[client->texts_len++] = ' ';
    memcpy(client->texts + client->texts_len, bytes, len);
    client->texts_len += len;
  }
  if (client->reads && client->stream) {
    stream_read(client->stream);
  }
}

static void on_ended(void *owner, int status, const char *detail) {
  struct client *client = owner;
  static int ends;
  client->ended++;
  client->order = ++ends;
  client->status = status;
  client->unsure = stream_unsure(client->stream);
  snprintf(client->detail, sizeof client->detail, "%s", detail);
  stream_end(client->stream, true);
  client->stream = NULL;
}

static const struct stream_events events = {on_opened, on_sent, on_message, on_ended};

static int set_up(void **state) {
  struct house *house = calloc(1, sizeof *house);
  socket_room = SIZE_MAX;
  house->base = event_base_new();
  house->options = (struct stream_engine_options){.kind = STREAM_HTTP2,
                                                  .open_timeout_ms = LONG_MS,
                                                  .streams_per_connection = 100,
                                                  .message_bytes = MESSAGE_BYTES};
  backend_start(&house->backend, house->base);
  *state = house;
  return 0;
}

static int tear_down(void **state) {
  struct house *house = *state;
  for (int i = 0; i < CLIENTS; i++) {
    stream_end(house->clients[i].stream, true);
  }
  stream_engine_free(house->engine);
  backend_stop(&house->backend);
  loop_free(house->base);
  if (house->child > 0) {
    kill(house->child, SIGKILL);
    waitpid(house->child, NULL, 0);
  }
  free(house);
  return 0;
}

static void on_impatience(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  *(bool *)context = true;
}

// Runs the loop until it is so; fails after a long while.
#define AWAIT(house, condition)                                                    \
  do {                                                                             \
    const struct timeval patience_ = {.tv_sec = PATIENCE_S};                       \
    bool in_vain_ = false;                                                         \
    struct event *timeout_ = evtimer_new((house)->base, on_impatience, &in_vain_); \
    event_add(timeout_, &patience_);                                               \
    while (!(condition) && !in_vain_) {                                            \
      event_base_loop((house)->base, EVLOOP_ONCE);                                 \
    }                                                                              \
    event_free(timeout_);                                                          \
    if (in_vain_) {                                                                \
      fail_msg("waited in vain: %s", #condition);                                  \
    }                                                                              \
  } while (0)

static struct client *open_for(struct house *house, int number, const char *address,
                               int64_t timeout_ms, const struct stream_metadata *metadata,
                               size_t count) {
  const struct stream_target target = {
      .address = address, .method = METHOD, .timeout_ms = timeout_ms};
  struct client *client = &house->clients[number];
  int error;
  if (!house->engine) {
    house->engine = stream_engine_new(house->base, &house->options, &error);
    assert_non_null(house->engine);
  }
  client->stream = stream_open(house->engine, &target, metadata, count, &events, client);
  assert_non_null(client->stream);
  assert_int_equal(client->opened + client->ended, 0);  // never from inside stream_open
  return client;
}

static struct client *open_with(struct house *house, int number, const char *address,
                                const struct stream_metadata *metadata, size_t count) {
  return open_for(house, number, address, 0, metadata, count);
}

// One that reads on, and is not waited for.
static struct client *begin(struct house *house, int number) {
  struct client *client = open_with(house, number, house->backend.address, NULL, 0);
  client->reads = true;
  return client;
}

static struct client *open_one(struct house *house, int number) {
  struct client *client = begin(house, number);
  AWAIT(house, client->opened == 1 || client->ended);
  assert_int_equal(client->ended, 0);
  return client;
}

static void end(struct client *client, bool graceful) {
  stream_end(client->stream, graceful);
  client->stream = NULL;
}

// The backend's side of the stream that came last on connection number; what is to be the first one
// as long as there is none.
static struct backend_stream *last_stream(struct house *house, int number) {
  struct backend_connection *connection = house->backend.connections[number];
  int count = connection->stream_count;
  return &connection->streams[count > 0 ? count - 1 : 0];
}

// Whatever the backend has said on the connection has been read by the engine, and what the engine
// said to that has been heard. Two rounds, since an answer may follow one on the way.
static void settle(struct house *house, struct backend_connection *connection) {
  for (int i = 0; i < 2; i++) {
    int pongs = connection->pongs;
    backend_ping(connection, "settle");
    AWAIT(house, connection->pongs > pongs);
  }
}

// Opened, and its stream seen by the backend, which has answered with headers.
static struct client *open_answered(struct house *house, int number, int32_t *id) {
  struct client *client = open_one(house, number);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == number + 1);
  *id = last_stream(house, 0)->id;
  backend_accept(connection, *id);
  return client;
}

static void send_bytes(struct client *client, const void *bytes, size_t len) {
  assert_true(stream_takes(client->stream));
  uint8_t *room = stream_reserve(client->stream, len);
  assert_non_null(room);
  if (len > 0) {
    memcpy(room, bytes, len);
  }
  stream_send(client->stream);
}

static void send_text(struct client *client, const char *text) {
  send_bytes(client, text, strlen(text));
}

// What the backend heard on a stream as one text, its messages each behind a blank.
static const char *heard(const struct backend_stream *stream) {
  static char text[KEPT_BYTES];
  size_t at = 0;
  size_t used = 0;
  text[0] = '\0';
  while (used + PREFIX_BYTES <= stream->len) {
    size_t len = backend_read_number(stream->data + used + 1);
    assert_int_equal(stream->data[used], 0);  // not compressed
    if (used + PREFIX_BYTES + len > stream->len) {
      break;
    }
    at += (size_t)snprintf(text + at, sizeof text - at, " %.*s", (int)len,
                           (const char *)stream->data + used + PREFIX_BYTES);
    assert_true(at < sizeof text);
    used += PREFIX_BYTES + len;
  }
  return text;
}

// --- The request -------------------------------------------------------------------------

static void the_request_is_what_the_specification_asks_for(void **state) {
  struct house *house = *state;
  const struct stream_metadata metadata[] = {{"x-md-global-oid", "7"}, {"x-md-global-color", ""}};
  char wanted[256];
  struct client *client = open_with(house, 0, house->backend.address, metadata, 2);
  AWAIT(house, client->opened == 1);
  AWAIT(house, house->backend.connections[0]->stream_count == 1);
  const struct backend_stream *stream = last_stream(house, 0);
  const char *headers = stream->headers;
  assert_int_equal(stream->id, 1);
  assert_false(stream->ended);
  snprintf(wanted, sizeof wanted, ":authority: %s\n", house->backend.address);
  const char *authority = strstr(headers, wanted);
  const char *method = strstr(headers, ":method: POST\n");
  const char *scheme = strstr(headers, ":scheme: http\n");
  const char *path = strstr(headers, ":path: " METHOD "\n");
  const char *te = strstr(headers, "\nte: trailers\n");
  const char *type = strstr(headers, "\ncontent-type: application/grpc\n");
  const char *agent = strstr(headers, "\nuser-agent: grpc-");
  const char *custom = strstr(headers, "\nx-md-global-oid: 7\nx-md-global-color: \n");
  const char *call[] = {method, scheme, path, authority, te, type, agent};
  for (size_t i = 0; i < sizeof call / sizeof *call; i++) {
    assert_non_null(call[i]);
    assert_true(call[i] < custom);  // the call's definition comes before what is the caller's own
    assert_true(i >= 4 || call[i] < te);  // and what begins with a colon before all else
  }
  // It has no deadline, and takes nothing compressed.
  assert_null(strstr(headers, "grpc-timeout"));
  assert_null(strstr(headers, "grpc-encoding"));
  const char *accepted = strstr(headers, "\ngrpc-accept-encoding: ");
  assert_true(!accepted || strstr(headers, "\ngrpc-accept-encoding: identity\n"));
}

static void the_name_for_certificates_is_none_without_them(void **state) {
  struct house *house = *state;
  char wanted[256];
  house->options.tls_server_name = "roma.internal";
  open_one(house, 0);
  AWAIT(house, house->backend.connections[0]->stream_count == 1);
  snprintf(wanted, sizeof wanted, ":authority: %s\n", house->backend.address);
  assert_non_null(strstr(last_stream(house, 0)->headers, wanted));
}

static void the_values_of_binary_metadata_are_in_base64_without_padding(void **state) {
  struct house *house = *state;
  const struct stream_metadata metadata[] = {{"a-bin", "hello"}, {"b-bin", "h"}, {"c-bin", ""}};
  struct client *client = open_with(house, 0, house->backend.address, metadata, 3);
  AWAIT(house, client->opened == 1);
  AWAIT(house, house->backend.connections[0]->stream_count == 1);
  assert_non_null(strstr(last_stream(house, 0)->headers, "\na-bin: aGVsbG8\nb-bin: aA\nc-bin: \n"));
}

static void a_time_limit_comes_before_the_rest_of_the_call(void **state) {
  static const struct {
    int64_t ms;
    const char *text;
  } limits[] = {
      {LONG_MS, "60000m"},
      {99999999, "99999999m"},
      {100000000, "100000S"},
      {100000001, "100001S"},  // the backend's watch is not to be before ours
      {99999999000, "99999999S"},
      {99999999001, "1666667M"},
      {99999999LL * 60000, "99999999M"},
      {99999999LL * 60000 + 1, "1666667H"},
      {99999999LL * 3600000 + 1, "99999999H"},
  };
  struct house *house = *state;
  for (int i = 0; i < (int)(sizeof limits / sizeof *limits); i++) {
    const struct stream_metadata metadata[] = {{"x-md-global-oid", "7"}};
    char wanted[256];
    struct client *client = open_for(house, i, house->backend.address, limits[i].ms, metadata, 1);
    AWAIT(house, client->opened == 1);
    AWAIT(house, house->backend.connections[0]->stream_count == i + 1);
    snprintf(wanted, sizeof wanted, "\n:authority: %s\ngrpc-timeout: %s\nte: trailers\n",
             house->backend.address, limits[i].text);
    assert_non_null(strstr(last_stream(house, 0)->headers, wanted));
  }
}

static void metadata_that_no_header_can_carry_ends_that_stream_alone(void **state) {
  struct house *house = *state;
  static const struct stream_metadata bad[] = {
      {"Upper", "a"}, {"a b", "a"},      {"", "a"},      {":path", "/"},       {"a:", "a"},
      {"a\n", "a"},   {"a\x80", "a"},    {"a", "a\tb"},  {"a", "a\nb: c"},     {"a", "\r"},
      {"a", "\x7f"},  {"a", "\xc3\xa9"}, {"a", "b\x01"}, {"grpc-status", "a"}, {"grpc-x", "a"},
  };
  struct client *good = open_one(house, 0);
  for (int i = 0; i < (int)(sizeof bad / sizeof *bad); i++) {
    struct client *client = open_with(house, 1, house->backend.address, bad + i, 1);
    AWAIT(house, client->ended == 1);
    assert_int_equal(client->status, STREAM_INVALID_ARGUMENT);
    assert_int_equal(client->opened, 0);
    *client = (struct client){.stream = NULL};
  }
  settle(house, house->backend.connections[0]);
  assert_int_equal(house->backend.connections[0]->stream_count, 1);
  assert_int_equal(good->ended, 0);
}

static void the_client_wants_no_pushes(void **state) {
  struct house *house = *state;
  open_one(house, 0);
  struct backend_connection *connection = house->backend.connections[0];
  connection->settings[NGHTTP2_SETTINGS_ENABLE_PUSH] = 7;  // what is not said would be 1
  struct client *second;
  backend_goaway(connection, 1, NGHTTP2_NO_ERROR);
  settle(house, connection);
  second = open_one(house, 1);
  assert_non_null(second);
  connection = house->backend.connections[1];
  assert_int_equal(connection->settings[NGHTTP2_SETTINGS_ENABLE_PUSH], 0);
}

static void a_message_has_its_prefix_and_may_be_empty(void **state) {
  struct house *house = *state;
  static const uint8_t wanted[] = "\0\0\0\0\5hello\0\0\0\0\0";
  struct client *client = open_one(house, 0);
  send_text(client, "hello");
  AWAIT(house, stream_takes(client->stream));
  send_bytes(client, NULL, 0);
  AWAIT(house, last_stream(house, 0)->len >= sizeof wanted - 1);
  assert_int_equal(last_stream(house, 0)->len, sizeof wanted - 1);
  assert_memory_equal(last_stream(house, 0)->data, wanted, sizeof wanted - 1);
  assert_false(last_stream(house, 0)->ended);
}

// --- Messages from the backend ---------------------------------------------------------------

// Three messages of one, none and 300 bytes, as they go over the wire.
enum { THREE_BYTES = 3 * PREFIX_BYTES + 1 + 0 + 300 };
static void three_messages(uint8_t *out) {
  memset(out, 'x', THREE_BYTES);
  memcpy(out, "\0\0\0\0\1a\0\0\0\0\0\0\0\0\1\x2c", 1 + 3 * PREFIX_BYTES);
}

static void assert_three_messages(struct client *client) {
  assert_int_equal(client->messages, 3);
  assert_int_equal(client->texts_len, 3 + 1 + 300);
  assert_memory_equal(client->texts, " a  xxx", 7);
  assert_int_equal(client->texts[client->texts_len - 1], 'x');
  client->messages = 0;
  client->texts_len = 0;
}

static void a_message_arrives_wherever_its_frames_are_cut(void **state) {
  struct house *house = *state;
  uint8_t bytes[THREE_BYTES];
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  struct backend_connection *connection = house->backend.connections[0];
  three_messages(bytes);
  for (size_t cut = 0; cut <= THREE_BYTES; cut++) {
    backend_data(connection, id, 0, bytes, cut);
    settle(house, connection);  // so that the rest comes with another read
    backend_data(connection, id, 0, bytes + cut, THREE_BYTES - cut);
    AWAIT(house, client->messages == 3);
    assert_three_messages(client);
  }
}

static void a_frame_may_come_in_as_many_pieces_as_it_has_bytes(void **state) {
  struct house *house = *state;
  uint8_t frame[BACKEND_HEADER_BYTES + THREE_BYTES] = {0, THREE_BYTES / 256, THREE_BYTES % 256};
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  struct backend_connection *connection = house->backend.connections[0];
  backend_number(frame + 5, (uint32_t)id);
  three_messages(frame + BACKEND_HEADER_BYTES);
  for (size_t at = 0; at < sizeof frame; at++) {
    AWAIT(house, evbuffer_get_length(bufferevent_get_output(connection->wire)) == 0);
    backend_raw(connection, frame + at, 1);
    AWAIT(house, evbuffer_get_length(bufferevent_get_output(connection->wire)) == 0);
    event_base_loop(house->base, EVLOOP_NONBLOCK);
  }
  AWAIT(house, client->messages == 3);
  assert_three_messages(client);
}

static void frames_of_one_byte_and_of_none_are_put_together(void **state) {
  struct house *house = *state;
  uint8_t bytes[THREE_BYTES];
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  struct backend_connection *connection = house->backend.connections[0];
  three_messages(bytes);
  for (size_t at = 0; at < THREE_BYTES; at++) {
    backend_data(connection, id, 0, NULL, 0);
    backend_data(connection, id, 0, bytes + at, 1);
  }
  AWAIT(house, client->messages == 3);
  assert_three_messages(client);
}

static void padding_is_no_part_of_a_message(void **state) {
  struct house *house = *state;
  uint8_t bytes[THREE_BYTES];
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  three_messages(bytes);
  for (size_t at = 0; at < THREE_BYTES; at++) {
    // How much padding, one byte, and the padding.
    uint8_t padded[2 + 255] = {(uint8_t)(at % 256), bytes[at]};
    backend_data(house->backend.connections[0], id, NGHTTP2_FLAG_PADDED, padded, 2 + at % 256);
  }
  AWAIT(house, client->messages == 3);
  assert_three_messages(client);
}

static void one_frame_may_hold_two_messages_and_a_half(void **state) {
  struct house *house = *state;
  static const uint8_t bytes[] = "\0\0\0\0\3one\0\0\0\0\3two\0\0\0\0\5three";
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  struct backend_connection *connection = house->backend.connections[0];
  backend_data(connection, id, 0, bytes, sizeof bytes - 1 - 3);
  AWAIT(house, client->messages == 2);
  settle(house, connection);
  assert_int_equal(client->messages, 2);
  backend_data(connection, id, 0, bytes + sizeof bytes - 1 - 3, 3);
  AWAIT(house, client->messages == 3);
  assert_memory_equal(client->texts, " one two three", 14);
}

static void only_what_is_asked_for_is_given(void **state) {
  struct house *house = *state;
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  struct backend_connection *connection = house->backend.connections[0];
  client->reads = false;  // after the read that on_opened began
  for (int i = 0; i < 10; i++) {
    backend_text(connection, id, "x");
  }
  settle(house, connection);
  assert_int_equal(client->messages, 1);
  for (int i = 2; i <= 10; i++) {
    stream_read(client->stream);
    assert_int_equal(client->messages, i - 1);  // never from inside stream_read
    AWAIT(house, client->messages == i);
    settle(house, connection);
    assert_int_equal(client->messages, i);
  }
}

static void a_message_that_waited_is_there_when_its_stream_is_ended_within_it(void **state) {
  struct house *house = *state;
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  struct backend_connection *connection = house->backend.connections[0];
  client->reads = false;
  for (int i = 0; i < 3; i++) {
    backend_text(connection, id, "waits");
  }
  settle(house, connection);
  assert_int_equal(client->messages, 1);
  client->leaves = true;
  stream_read(client->stream);
  AWAIT(house, client->messages == 2);
  assert_memory_equal(client->last, "waits", 5);
  settle(house, connection);
  assert_int_equal(client->messages, 2);
}

// Sends one message of len bytes as the windows let it; in frames of up to 16,384 bytes.
static void pump_message(struct house *house, struct backend_stream *stream, size_t len) {
  static const uint8_t zeros[16384];
  struct backend_connection *connection = house->backend.connections[0];
  uint8_t prefix[PREFIX_BYTES] = {0};
  backend_number(prefix + 1, (uint32_t)len);
  AWAIT(house, stream->window >= PREFIX_BYTES && connection->window >= PREFIX_BYTES);
  backend_data(connection, stream->id, 0, prefix, sizeof prefix);
  while (len > 0) {
    AWAIT(house, stream->window > 0 && connection->window > 0);
    int64_t room = stream->window < connection->window ? stream->window : connection->window;
    size_t piece = len < sizeof zeros ? len : sizeof zeros;
    piece = (int64_t)piece < room ? piece : (size_t)room;
    backend_data(connection, stream->id, 0, zeros, piece);
    len -= piece;
  }
}

static void a_message_of_the_greatest_length_arrives_within_the_windows(void **state) {
  struct house *house = *state;
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  for (int i = 1; i <= 3; i++) {
    pump_message(house, last_stream(house, 0), MESSAGE_BYTES);
    AWAIT(house, client->messages == i);
    assert_int_equal(client->last_len, MESSAGE_BYTES);
  }
  assert_int_equal(client->ended, 0);
}

// --- The end ---------------------------------------------------------------------------------

struct ending {
  const char *headers;   // of the answer
  const char *trailers;  // NULL: the headers are all there is
  int status;
  const char *detail;  // NULL: any
};

#define ANSWER ":status: 200\ncontent-type: application/grpc\n"

static void assert_endings(struct house *house, const struct ending *endings, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const struct ending *ending = endings + i;
    struct client *client = open_one(house, 0);
    struct backend_connection *connection = house->backend.connections[i / BACKEND_STREAMS];
    AWAIT(house, connection->stream_count == (int)(i % BACKEND_STREAMS) + 1);
    struct backend_stream *stream = &connection->streams[connection->stream_count - 1];
    backend_headers(connection, stream->id, ending->trailers ? 0 : NGHTTP2_FLAG_END_STREAM,
                    ending->headers);
    if (ending->trailers) {
      backend_headers(connection, stream->id, NGHTTP2_FLAG_END_STREAM, ending->trailers);
    }
    AWAIT(house, client->ended == 1);
    if (client->status != ending->status) {
      print_error("after %s%s\n", ending->headers, ending->trailers ? ending->trailers : "");
    }
    assert_int_equal(client->status, ending->status);
    if (ending->detail) {
      assert_string_equal(client->detail, ending->detail);
    }
    // The stream is over for both, as far as they can tell each other.
    AWAIT(house, stream->ended || stream->reset);
    *client = (struct client){.stream = NULL};
  }
  assert_int_equal(house->backend.connection_count, 1);
}

static void a_status_comes_in_the_trailers_or_without_anything_before(void **state) {
  static const struct ending endings[] = {
      {ANSWER, "grpc-status: 0\n", STREAM_OK, NULL},
      {ANSWER, "grpc-status: 9\ngrpc-message: not now\n", STREAM_FAILED_PRECONDITION, "not now"},
      {ANSWER, "grpc-message: first\ngrpc-status: 5\n", STREAM_NOT_FOUND, "first"},
      {ANSWER, "x-more: 1\ngrpc-status: 16\ny-bin: AAA\n", STREAM_UNAUTHENTICATED, NULL},
      {ANSWER "grpc-message: early\n", "grpc-status: 9\ngrpc-message: late\n", 9, "late"},
      {ANSWER "grpc-status: 5\ngrpc-message: early\n", "grpc-status: 9\n", 9, ""},
      {ANSWER "grpc-status: 7\ngrpc-message: no\n", NULL, STREAM_PERMISSION_DENIED, "no"},
      {ANSWER "grpc-status: 0\n", NULL, STREAM_OK, NULL},
      {":status: 200\ncontent-type: application/grpc+proto\n", "grpc-status: 3\n",
       STREAM_INVALID_ARGUMENT, NULL},
      {":status: 200\ncontent-type: application/grpc; charset=utf-8\n", "grpc-status: 3\n",
       STREAM_INVALID_ARGUMENT, NULL},
  };
  assert_endings(*state, endings, sizeof endings / sizeof *endings);
}

static void a_missing_or_senseless_status_is_unknown(void **state) {
  static const struct ending endings[] = {
      {ANSWER, "x-other: 1\n", STREAM_UNKNOWN, NULL},
      {ANSWER, NULL, STREAM_UNKNOWN, NULL},
      {ANSWER, "grpc-status: ok\n", STREAM_UNKNOWN, NULL},
      {ANSWER, "grpc-status: \n", STREAM_UNKNOWN, NULL},
      {ANSWER, "grpc-status: -1\n", STREAM_UNKNOWN, NULL},
      {ANSWER, "grpc-status: 0x0\n", STREAM_UNKNOWN, NULL},
      {ANSWER, "grpc-status: 17\n", STREAM_UNKNOWN, NULL},  // of a standard to come
      {ANSWER, "grpc-status: 4294967296\n", STREAM_UNKNOWN, NULL},
      {ANSWER, "grpc-status: 99999999999999999999999\n", STREAM_UNKNOWN, NULL},
  };
  assert_endings(*state, endings, sizeof endings / sizeof *endings);
}

static void a_message_of_the_status_is_percent_encoded(void **state) {
#define SAYS(encoded, decoded) \
  { ANSWER, "grpc-status: 9\ngrpc-message: " encoded "\n", 9, decoded }
  static const struct ending endings[] = {
      SAYS("plain", "plain"),
      SAYS("a%20b%25c", "a b%c"),
      SAYS("%e4%BD%a0%E5%A5%BD", "\xe4\xbd\xa0\xe5\xa5\xbd"),
      SAYS("line%0Aline", "line\nline"),
      // What is broken stays as it is.
      SAYS("100%", "100%"),
      SAYS("100%2", "100%2"),
      SAYS("%zz%4", "%zz%4"),
      SAYS("%%41", "%A"),
      SAYS("", ""),
  };
  assert_endings(*state, endings, sizeof endings / sizeof *endings);
}

static void a_message_of_the_status_cannot_end_early(void **state) {
  // A zero byte in it would end the text as C has it: it is cut there or replaced, but whatever
  // comes is a text.
  struct house *house = *state;
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  backend_headers(house->backend.connections[0], id, NGHTTP2_FLAG_END_STREAM,
                  "grpc-status: 9\ngrpc-message: a%00b\n");
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->status, 9);
  assert_int_equal(client->detail[0], 'a');
}

static void a_status_of_http_is_translated_where_grpc_has_none(void **state) {
#define HTTP(code, status)                                                              \
  {":status: " code "\ncontent-type: text/html\n", NULL, status, NULL}, {               \
    ":status: " code "\ncontent-type: application/grpc\n", "x-other: 1\n", status, NULL \
  }
  static const struct ending endings[] = {
      HTTP("400", STREAM_INTERNAL),
      HTTP("431", STREAM_INTERNAL),
      HTTP("401", STREAM_UNAUTHENTICATED),
      HTTP("403", STREAM_PERMISSION_DENIED),
      HTTP("404", STREAM_UNIMPLEMENTED),
      HTTP("429", STREAM_UNAVAILABLE),
      HTTP("502", STREAM_UNAVAILABLE),
      HTTP("503", STREAM_UNAVAILABLE),
      HTTP("504", STREAM_UNAVAILABLE),
      HTTP("500", STREAM_UNKNOWN),
      HTTP("302", STREAM_UNKNOWN),
      HTTP("418", STREAM_UNKNOWN),
      HTTP("204", STREAM_UNKNOWN),
      // A status of gRPC goes before it.
      {":status: 503\ncontent-type: application/grpc\ngrpc-status: 7\n", NULL,
       STREAM_PERMISSION_DENIED, NULL},
  };
  assert_endings(*state, endings, sizeof endings / sizeof *endings);
}

static void an_answer_of_another_type_is_none(void **state) {
  static const struct ending endings[] = {
      {":status: 200\ncontent-type: text/html\n", NULL, STREAM_UNKNOWN, NULL},
      {":status: 200\n", "x-other: 1\n", STREAM_UNKNOWN, NULL},
      {":status: 200\ncontent-type: application/grpcx\n", "x-other: 1\n", STREAM_UNKNOWN, NULL},
      {":status: 200\ncontent-type: application/json\n", "x-other: 1\n", STREAM_UNKNOWN, NULL},
  };
  assert_endings(*state, endings, sizeof endings / sizeof *endings);
}

static void the_body_of_an_answer_that_is_none_is_no_message(void **state) {
  struct house *house = *state;
  static const char *const answers[] = {":status: 200\ncontent-type: text/html\n",
                                        ":status: 503\ncontent-type: text/html\n"};
  static const int statuses[] = {STREAM_UNKNOWN, STREAM_UNAVAILABLE};
  for (int i = 0; i < 2; i++) {
    struct client *client = open_one(house, i);
    struct backend_connection *connection = house->backend.connections[0];
    AWAIT(house, connection->stream_count == i + 1);
    backend_headers(connection, last_stream(house, 0)->id, 0, answers[i]);
    backend_text(connection, last_stream(house, 0)->id, "not gRPC");
    backend_data(connection, last_stream(house, 0)->id, NGHTTP2_FLAG_END_STREAM, "x", 1);
    AWAIT(house, client->ended == 1);
    assert_int_equal(client->status, statuses[i]);
    assert_int_equal(client->messages, 0);
  }
}

static void headers_for_information_go_before_an_answer(void **state) {
  struct house *house = *state;
  struct client *client = open_one(house, 0);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == 1);
  backend_headers(connection, 1, 0, ":status: 103\nlink: x\n");
  backend_headers(connection, 1, 0, ":status: 100\n");
  backend_accept(connection, 1);
  backend_text(connection, 1, "after all");
  backend_trailers(connection, 1, "0");
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->status, STREAM_OK);
  assert_memory_equal(client->texts, " after all", 10);
}

static void nothing_in_headers_for_information_is_of_the_answer(void **state) {
#define EARLY                                      \
  ":status: 103\ncontent-type: application/grpc\n" \
  "grpc-status: 5\ngrpc-message: early\n"
  static const struct ending endings[] = {
      {EARLY, ANSWER "grpc-status: 9\ngrpc-message: late\n", 9, "late"},
      {EARLY, ANSWER "grpc-status: 9\n", 9, ""},
      {EARLY, ANSWER, STREAM_UNKNOWN, "the backend ended it without a status"},
  };
  assert_endings(*state, endings, sizeof endings / sizeof *endings);
  // Nor is its type, or its encoding.
  struct house *house = *state;
  static const uint8_t flagged[] = {1, 0, 0, 0, 1, 'x'};
  struct backend_connection *connection = house->backend.connections[0];
  struct client *client = open_one(house, 1);
  struct client *other = open_one(house, 2);
  AWAIT(house, connection->stream_count == 5);
  backend_headers(connection, 7, 0, EARLY);
  backend_headers(connection, 7, 0, ":status: 200\n");
  backend_headers(connection, 9, 0, EARLY "grpc-encoding: gzip\n");
  backend_accept(connection, 9);
  backend_data(connection, 9, 0, flagged, sizeof flagged);
  AWAIT(house, client->ended == 1 && other->ended == 1);
  assert_string_equal(client->detail, "the answer is not gRPC's");
  assert_string_equal(other->detail, "a message that is said to be compressed, and is not");
}

static void messages_before_the_end_are_given_out_first(void **state) {
  struct house *house = *state;
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  struct backend_connection *connection = house->backend.connections[0];
  client->reads = false;  // after the read that on_opened began
  for (int i = 0; i < 3; i++) {
    backend_text(connection, id, "x");
  }
  backend_trailers(connection, id, "9");
  settle(house, connection);
  for (int i = 2; i <= 3; i++) {
    assert_int_equal(client->messages, i - 1);
    assert_int_equal(client->ended, 0);
    stream_read(client->stream);
    AWAIT(house, client->messages == i || client->ended);
  }
  if (!client->ended) {
    stream_read(client->stream);
  }
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->messages, 3);
  assert_int_equal(client->status, STREAM_FAILED_PRECONDITION);
}

static void a_reset_is_translated(void **state) {
  static const struct {
    uint32_t code;
    int status;
  } resets[] = {
      {NGHTTP2_NO_ERROR, STREAM_INTERNAL},
      {NGHTTP2_PROTOCOL_ERROR, STREAM_INTERNAL},
      {NGHTTP2_INTERNAL_ERROR, STREAM_INTERNAL},
      {NGHTTP2_FLOW_CONTROL_ERROR, STREAM_INTERNAL},
      {NGHTTP2_SETTINGS_TIMEOUT, STREAM_INTERNAL},
      {NGHTTP2_FRAME_SIZE_ERROR, STREAM_INTERNAL},
      {NGHTTP2_CANCEL, STREAM_CANCELLED},
      {NGHTTP2_COMPRESSION_ERROR, STREAM_INTERNAL},
      {NGHTTP2_CONNECT_ERROR, STREAM_INTERNAL},
      {NGHTTP2_ENHANCE_YOUR_CALM, STREAM_RESOURCE_EXHAUSTED},
      {NGHTTP2_INADEQUATE_SECURITY, STREAM_PERMISSION_DENIED},
      // For these the specification's table has no status.
      {NGHTTP2_STREAM_CLOSED, STREAM_UNKNOWN},
      {NGHTTP2_HTTP_1_1_REQUIRED, STREAM_UNKNOWN},
      {0xff, STREAM_UNKNOWN},
  };
  struct house *house = *state;
  for (int i = 0; i < 2 * (int)(sizeof resets / sizeof *resets); i++) {
    struct client *client = open_one(house, i);
    struct backend_connection *connection = house->backend.connections[0];
    AWAIT(house, connection->stream_count == i + 1);
    int32_t id = last_stream(house, 0)->id;
    if (i % 2) {  // in the middle of the answer
      backend_accept(connection, id);
      backend_text(connection, id, "x");
    }
    backend_reset(connection, id, resets[i / 2].code);
    AWAIT(house, client->ended == 1);
    assert_int_equal(client->status, resets[i / 2].status);
    assert_false(last_stream(house, 0)->reset);  // nobody would listen
  }
  assert_int_equal(house->backend.connection_count, 1);
}

static void a_reset_after_the_trailers_changes_nothing(void **state) {
  struct house *house = *state;
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  struct backend_connection *connection = house->backend.connections[0];
  backend_text(connection, id, "x");
  backend_trailers(connection, id, "9");
  backend_reset(connection, id, NGHTTP2_NO_ERROR);
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->messages, 1);
  assert_int_equal(client->status, STREAM_FAILED_PRECONDITION);
}

static void an_end_in_the_middle_of_a_message_is_a_fault(void **state) {
  struct house *house = *state;
  static const uint8_t bytes[] = "\0\0\0\0\5hello\0\0\0\0\5hel";
  for (size_t len = sizeof bytes - 1; len > 10; len--) {  // of the second, ever less
    int number = (int)(sizeof bytes - 1 - len);
    int32_t id;
    struct client *client = open_answered(house, number, &id);
    backend_data(house->backend.connections[0], id, 0, bytes, len);
    backend_trailers(house->backend.connections[0], id, "0");
    AWAIT(house, client->ended == 1);
    assert_int_equal(client->status, STREAM_INTERNAL);
    assert_int_equal(client->messages, 1);
  }
}

static void an_end_without_trailers_is_a_fault(void **state) {
  struct house *house = *state;
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  backend_text(house->backend.connections[0], id, "x");
  backend_data(house->backend.connections[0], id, NGHTTP2_FLAG_END_STREAM, NULL, 0);
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->messages, 1);
  // The specification's tables have no row for it: neither has a status.
  assert_true(client->status == STREAM_UNKNOWN || client->status == STREAM_INTERNAL);
}

static void a_message_over_the_bound_ends_the_stream_by_its_prefix(void **state) {
  static const uint32_t lengths[] = {1001, 0x7fffffff, 0x80000000, 0xffffffff};
  struct house *house = *state;
  house->options.message_bytes = 1000;
  for (int i = 0; i < 4; i++) {
    uint8_t prefix[PREFIX_BYTES] = {0};
    char full[1000] = {0};
    int32_t id;
    struct client *client = open_answered(house, i, &id);
    struct backend_stream *stream = last_stream(house, 0);
    backend_message(house->backend.connections[0], id, full, sizeof full);
    backend_number(prefix + 1, lengths[i]);
    backend_data(house->backend.connections[0], id, 0, prefix, sizeof prefix);
    AWAIT(house, client->ended == 1);
    assert_int_equal(client->status, STREAM_RESOURCE_EXHAUSTED);
    assert_int_equal(client->messages, 1);
    assert_int_equal(client->last_len, 1000);
    AWAIT(house, stream->reset);
  }
  assert_int_equal(house->backend.connection_count, 1);
}

static void a_compressed_message_is_refused(void **state) {
  static const struct {
    const char *headers;
    uint8_t flag;
  } messages[] = {
      {ANSWER, 1},
      {ANSWER "grpc-encoding: identity\n", 1},
      {ANSWER "grpc-encoding: gzip\n", 1},  // which was not offered
      {ANSWER "grpc-encoding: nobody-knows\n", 1},
      {ANSWER, 2},
      {ANSWER, 0xff},
  };
  struct house *house = *state;
  for (int i = 0; i < (int)(sizeof messages / sizeof *messages); i++) {
    const uint8_t bytes[] = {messages[i].flag, 0, 0, 0, 1, 'x'};
    struct client *client = open_one(house, i);
    struct backend_connection *connection = house->backend.connections[0];
    AWAIT(house, connection->stream_count == i + 1);
    struct backend_stream *stream = last_stream(house, 0);
    backend_headers(connection, stream->id, 0, messages[i].headers);
    backend_data(connection, stream->id, 0, bytes, sizeof bytes);
    AWAIT(house, client->ended == 1);
    assert_int_equal(client->status, STREAM_INTERNAL);  // on a client's side, for all of these
    assert_int_equal(client->messages, 0);
    AWAIT(house, stream->reset);
  }
}

static void an_encoding_that_is_not_used_does_no_harm(void **state) {
  struct house *house = *state;
  struct client *client = open_one(house, 0);
  AWAIT(house, house->backend.connections[0]->stream_count == 1);
  backend_headers(house->backend.connections[0], 1, 0, ANSWER "grpc-encoding: gzip\n");
  backend_text(house->backend.connections[0], 1, "plain");
  AWAIT(house, client->messages == 1);
  assert_int_equal(client->ended, 0);
}

// --- Flow control -------------------------------------------------------------------------------

enum { SENT_BYTES = 1000 };

// Sends until the stream takes no more; how many messages it took.
static int fill(struct house *house, struct client *client, int from) {
  int count = from;
  for (;;) {
    uint8_t bytes[SENT_BYTES];
    settle(house, house->backend.connections[0]);
    if (!stream_takes(client->stream)) {
      return count;
    }
    memset(bytes, 'a' + count % 26, sizeof bytes);
    send_bytes(client, bytes, sizeof bytes);
    assert_in_range(++count, 1, 10000);  // it must not take everything
  }
}

static void assert_filled(const struct backend_stream *stream, int count) {
  assert_int_equal(stream->len, (size_t)count * (PREFIX_BYTES + SENT_BYTES));
  for (int i = 0; i < count; i++) {
    const uint8_t *message = stream->data + (size_t)i * (PREFIX_BYTES + SENT_BYTES);
    assert_int_equal(backend_read_number(message + 1), SENT_BYTES);
    assert_int_equal(message[PREFIX_BYTES], 'a' + i % 26);
    assert_int_equal(message[PREFIX_BYTES + SENT_BYTES - 1], 'a' + i % 26);
  }
}

static void a_full_window_of_the_stream_holds_the_sender(void **state) {
  struct house *house = *state;
  house->backend.settings[0] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 2500};
  house->backend.settings_count = 1;
  house->backend.holds = true;
  struct client *client = open_one(house, 0);
  struct client *other = open_one(house, 1);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == 2);
  struct backend_stream *stream = &connection->streams[0];
  int count = fill(house, client, 0);
  assert_int_equal(stream->len, 2500);
  assert_in_range(stream_unsure(client->stream), 1, (size_t)count);
  // Those of the same connection are not held.
  send_text(other, "free");
  AWAIT(house, connection->streams[1].len == PREFIX_BYTES + 4);
  // A little room is used, but is not enough for on_sent.
  int sent = client->sent;
  backend_window(connection, stream->id, 1);
  AWAIT(house, stream->len == 2501);
  settle(house, connection);
  assert_int_equal(client->sent, sent);
  assert_false(stream_takes(client->stream));
  backend_window(connection, 0, 1 << 20);
  settle(house, connection);
  assert_int_equal(stream->len, 2501);
  backend_window(connection, stream->id, 1 << 20);
  AWAIT(house, client->sent == sent + 1);
  assert_true(stream_takes(client->stream));
  AWAIT(house, stream->len == (size_t)count * (PREFIX_BYTES + SENT_BYTES));
  assert_filled(stream, count);
  settle(house, connection);
  assert_int_equal(stream_unsure(client->stream), 0);
}

static void a_full_window_of_the_connection_holds_all_senders(void **state) {
  struct house *house = *state;
  house->backend.settings[0] =
      (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 30};
  house->backend.settings_count = 1;
  house->backend.holds = true;
  struct client *one = open_one(house, 0);
  struct client *other = open_one(house, 1);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == 2);
  int count = fill(house, one, 0);
  int others = fill(house, other, 0);
  assert_int_equal(connection->streams[0].len + connection->streams[1].len,
                   NGHTTP2_INITIAL_CONNECTION_WINDOW_SIZE);
  backend_window(connection, 0, 1 << 20);
  AWAIT(house, stream_takes(one->stream) && stream_takes(other->stream));
  settle(house, connection);
  assert_filled(&connection->streams[0], count);
  assert_filled(&connection->streams[1], others);
}

static void a_window_may_be_changed_and_even_fall_below_nothing(void **state) {
  struct house *house = *state;
  house->backend.holds = true;
  struct client *client = open_one(house, 0);
  struct backend_connection *connection = house->backend.connections[0];
  uint8_t bytes[SENT_BYTES];
  memset(bytes, 'a', sizeof bytes);
  send_bytes(client, bytes, sizeof bytes);
  AWAIT(house, last_stream(house, 0)->len == PREFIX_BYTES + SENT_BYTES);
  backend_setting(connection, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0);
  settle(house, connection);
  int count = fill(house, client, 1);
  assert_int_equal(last_stream(house, 0)->len, PREFIX_BYTES + SENT_BYTES);
  backend_window(connection, 1, PREFIX_BYTES + SENT_BYTES);  // it is at 0 now
  settle(house, connection);
  assert_int_equal(last_stream(house, 0)->len, PREFIX_BYTES + SENT_BYTES);
  backend_setting(connection, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20);
  backend_window(connection, 0, 1 << 20);
  AWAIT(house, stream_takes(client->stream));
  settle(house, connection);
  assert_filled(last_stream(house, 0), count);
}

static void what_the_socket_has_not_taken_is_unsure(void **state) {
  enum { ROOM_BYTES = 2000 };
  struct house *house = *state;
  uint8_t bytes[SENT_BYTES] = {0};
  struct client *client = open_one(house, 0);
  struct client *other = open_one(house, 1);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == 2);
  settle(house, connection);
  socket_room = ROOM_BYTES;
  for (int i = 0; i < 4; i++) {
    send_bytes(client, bytes, sizeof bytes);
  }
  assert_int_equal(stream_unsure(client->stream), 4);
  AWAIT(house, socket_room == 0);
  assert_in_range(stream_unsure(client->stream), 3, 4);  // not more than one has left
  assert_int_equal(stream_unsure(other->stream), 0);
  send_text(client, "behind them");
  assert_in_range(stream_unsure(client->stream), 4, 5);
  socket_room = SIZE_MAX;
  AWAIT(house, connection->streams[0].len == 4 * (PREFIX_BYTES + SENT_BYTES) + PREFIX_BYTES + 11);
  assert_int_equal(stream_unsure(client->stream), 0);
  // And when it is over before the socket takes them.
  socket_room = 0;
  send_text(client, "never");
  send_text(client, "heard");
  size_t before = writes;
  AWAIT(house, writes > before);
  backend_close(connection);
  AWAIT(house, client->ended == 1 && other->ended == 1);
  assert_int_equal(client->unsure, 2);
  assert_int_equal(other->unsure, 0);
}

static void frames_are_no_larger_than_the_backend_takes(void **state) {
  struct house *house = *state;
  static const uint8_t bytes[50000];
  struct client *client = open_one(house, 0);
  send_bytes(client, bytes, sizeof bytes);
  // The backend's parser would not mind: it is nghttp2's limit of ours that is looked at.
  AWAIT(house, last_stream(house, 0)->len == PREFIX_BYTES + sizeof bytes);
  assert_in_range(house->backend.largest_frame, 1, 16384);
}

// Floods one stream for as long as its owner's windows let it.
static size_t flood(struct house *house, struct backend_stream *stream) {
  struct backend_connection *connection = house->backend.connections[0];
  static const uint8_t message[SENT_BYTES];
  size_t flooded = 0;
  for (;;) {
    if (stream->window < SENT_BYTES + PREFIX_BYTES ||
        connection->window < SENT_BYTES + PREFIX_BYTES) {
      settle(house, connection);
      if (stream->window < SENT_BYTES + PREFIX_BYTES ||
          connection->window < SENT_BYTES + PREFIX_BYTES) {
        return flooded;
      }
    }
    backend_message(connection, stream->id, message, SENT_BYTES);
    flooded += SENT_BYTES + PREFIX_BYTES;
    assert_in_range(flooded, 1, WINDOW_BYTES);  // what may be kept for one stream
  }
}

static void an_owner_that_does_not_read_holds_the_backend_back_and_nobody_else(void **state) {
  enum { UNREAD = 8 };
  struct house *house = *state;
  int32_t ids[UNREAD];
  struct backend_connection *connection = NULL;
  for (int i = 0; i < UNREAD; i++) {
    struct client *client = open_answered(house, i, &ids[i]);
    client->reads = false;  // after the read that on_opened began
  }
  connection = house->backend.connections[0];
  assert_int_equal(connection->settings[NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE], WINDOW_BYTES);
  size_t flooded = 0;
  for (int i = 0; i < UNREAD; i++) {
    flooded += flood(house, backend_stream(connection, ids[i]));
    assert_int_equal(house->clients[i].messages, 1);
  }
  assert_true(flooded > 0);
  int32_t id;
  struct client *other = open_answered(house, UNREAD, &id);
  for (int i = 1; i <= 100; i++) {
    AWAIT(house, connection->window > 2 * SENT_BYTES && last_stream(house, 0)->window > SENT_BYTES);
    backend_text(connection, id, "goes by");
    AWAIT(house, other->messages == i);
  }
  // Who begins to read gets it all, and the backend may go on.
  struct client *client = &house->clients[0];
  struct backend_stream *stream = backend_stream(connection, ids[0]);
  int64_t window = stream->window;
  client->reads = true;
  stream_read(client->stream);
  AWAIT(house, stream->window > window + SENT_BYTES);
  int before = client->messages;
  backend_message(connection, ids[0], "last", 4);
  AWAIT(house, client->messages > before && client->last_len == 4);
}

// --- Connections -------------------------------------------------------------------------------

static void greet_with_limit(struct house *house, uint32_t streams) {
  house->backend.settings[0] =
      (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, streams};
  house->backend.settings_count = 1;
}

static void a_backends_limit_makes_further_connections(void **state) {
  static const int limits[] = {1, 3};
  static const int wanted[] = {7, 3};
  for (int which = 0; which < 2; which++) {
    void *again;
    assert_int_equal(set_up(&again), 0);
    struct house *house = again;
    greet_with_limit(house, (uint32_t)limits[which]);
    for (int i = 0; i < 7; i++) {
      begin(house, i);
    }
    for (int i = 0; i < 7; i++) {
      AWAIT(house, house->clients[i].opened == 1 || house->clients[i].ended);
      assert_int_equal(house->clients[i].ended, 0);
    }
    int streams = 0;
    for (int i = 0; i < house->backend.connection_count; i++) {
      struct backend_connection *connection = house->backend.connections[i];
      AWAIT(house, connection->settings_acks == 1);
      settle(house, connection);
      assert_in_range(connection->stream_count, 0, limits[which]);
      streams += connection->stream_count;
    }
    assert_int_equal(streams, 7);
    assert_in_range(house->backend.connection_count, wanted[which], 7);
    tear_down(&again);
  }
  (void)state;
}

static void a_limit_may_be_lowered_while_streams_are_open(void **state) {
  struct house *house = *state;
  int32_t ids[3];
  for (int i = 0; i < 3; i++) {
    open_answered(house, i, &ids[i]);
  }
  struct backend_connection *connection = house->backend.connections[0];
  backend_setting(connection, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1);
  settle(house, connection);
  open_one(house, 3);
  assert_int_equal(house->backend.connection_count, 2);
  assert_int_equal(connection->stream_count, 3);
  for (int i = 0; i < 3; i++) {
    backend_text(connection, ids[i], "still here");
    AWAIT(house, house->clients[i].messages == 1);
    assert_int_equal(house->clients[i].ended, 0);
  }
}

static void a_backend_that_allows_no_streams_is_waited_for_in_vain(void **state) {
  struct house *house = *state;
  house->options.open_timeout_ms = SHORT_MS;
  greet_with_limit(house, 0);
  struct client *client = begin(house, 0);
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->opened, 0);
  assert_true(client->status == STREAM_DEADLINE_EXCEEDED || client->status == STREAM_UNAVAILABLE);
  assert_in_range(house->backend.connection_count, 1, 2);  // more would be no better
}

static void a_limit_that_is_raised_lets_those_in_who_wait(void **state) {
  static const uint32_t limits[] = {0, 1};
  (void)state;
  for (int which = 0; which < 2; which++) {
    void *again;
    assert_int_equal(set_up(&again), 0);
    struct house *house = again;
    int waiting = (int)limits[which];  // the first of them
    house->options.connections_max = 1;
    greet_with_limit(house, limits[which]);
    if (waiting > 0) {
      open_one(house, 0);
    }
    for (int i = waiting; i < waiting + 2; i++) {
      begin(house, i);
    }
    AWAIT(house, house->backend.connection_count == 1);
    struct backend_connection *connection = house->backend.connections[0];
    AWAIT(house, connection->settings_acks == 1);
    settle(house, connection);
    assert_int_equal(connection->stream_count, waiting);
    backend_setting(connection, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits[which] + 2);
    for (int i = waiting; i < waiting + 2; i++) {
      AWAIT(house, house->clients[i].opened == 1 || house->clients[i].ended);
      assert_int_equal(house->clients[i].ended, 0);
    }
    AWAIT(house, connection->stream_count == waiting + 2);
    assert_int_equal(house->backend.connection_count, 1);
    tear_down(&again);
  }
}

static void a_backend_that_allows_no_streams_and_leaves_is_not_tried_for_ever(void **state) {
  static const char greeting[] =
      "\0\0\6\4\0\0\0\0\0\0\3\0\0\0\0"
      "\0\0\10\7\0\0\0\0\0\0\0\0\0\0\0\0\0";
  struct house *house = *state;
  house->backend.greeting = greeting;
  house->backend.greeting_len = sizeof greeting - 1;
  for (int i = 0; i < 3; i++) {
    begin(house, i);
  }
  for (int i = 0; i < 3; i++) {
    AWAIT(house, house->clients[i].ended == 1);
    assert_int_equal(house->clients[i].status, STREAM_UNAVAILABLE);
    assert_int_equal(house->clients[i].opened, 0);
  }
  assert_int_equal(house->backend.connection_count, 2);
}

static void our_own_limit_makes_further_connections_too(void **state) {
  struct house *house = *state;
  house->options.streams_per_connection = 2;
  for (int i = 0; i < 5; i++) {
    open_one(house, i);
  }
  assert_int_equal(house->backend.connection_count, 3);
  assert_int_equal(stream_engine_connections(house->engine), 3);
}

static void beyond_the_bound_on_connections_streams_wait_for_room(void **state) {
  struct house *house = *state;
  house->options.connections_max = 2;
  greet_with_limit(house, 1);
  for (int i = 0; i < 2; i++) {
    open_one(house, i);
    AWAIT(house, house->backend.connections[i]->stream_count == 1);
  }
  for (int i = 2; i < 6; i++) {
    begin(house, i);
  }
  for (int i = 0; i < 2; i++) {
    settle(house, house->backend.connections[i]);
  }
  assert_int_equal(stream_engine_connections(house->engine), 2);
  end(&house->clients[4], false);
  end(&house->clients[0], false);  // its room is for the first
  AWAIT(house, house->clients[2].opened == 1);
  assert_int_equal(house->clients[3].opened, 0);
  backend_close(house->backend.connections[1]);
  AWAIT(house, house->clients[3].opened == 1);
  assert_int_equal(house->clients[1].status, STREAM_UNAVAILABLE);
  assert_int_equal(house->backend.connection_count, 3);
  for (int i = 2; i < 6; i++) {
    assert_int_equal(house->clients[i].ended, 0);
  }
}

static void who_waits_for_room_in_vain_hears_of_it_in_time(void **state) {
  struct house *house = *state;
  house->options.connections_max = 1;
  house->options.open_timeout_ms = SHORT_MS;
  greet_with_limit(house, 1);
  struct client *first = open_one(house, 0);
  struct client *second = begin(house, 1);
  AWAIT(house, second->ended == 1);
  assert_int_equal(second->status, STREAM_DEADLINE_EXCEEDED);
  assert_int_equal(first->ended, 0);
  assert_int_equal(house->backend.connection_count, 1);
}

// One that was opened, and then left out by a goaway; and the connection stays for another.
static struct client *wait_for_room(struct house *house) {
  int32_t id;
  house->options.connections_max = 1;
  open_answered(house, 0, &id);
  struct client *client = open_one(house, 1);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == 2);
  backend_goaway(connection, id, NGHTTP2_NO_ERROR);
  settle(house, connection);
  assert_int_equal(house->backend.connection_count, 1);
  assert_false(stream_takes(client->stream));
  return client;
}

static void who_waits_for_room_takes_messages_when_there_is_some(void **state) {
  struct house *house = *state;
  struct client *client = wait_for_room(house);
  int sent = client->sent;
  end(&house->clients[0], false);
  AWAIT(house, client->sent > sent);
  assert_true(stream_takes(client->stream));
  assert_int_equal(client->opened, 1);
  send_text(client, "patience");
  AWAIT(house, last_stream(house, 1)->len == PREFIX_BYTES + 8);
  assert_string_equal(heard(last_stream(house, 1)), " patience");
}

static void who_waits_for_room_may_end(void **state) {
  struct house *house = *state;
  end(wait_for_room(house), true);
  end(&house->clients[0], false);
  AWAIT(house, house->backend.connection_count == 2);
  AWAIT(house, last_stream(house, 1)->ended);
}

// The time for its end begins with the half-close, and goes on when it is asked for again.
static void who_ends_while_waiting_for_room_is_given_up_in_time(void **state) {
  struct house *house = *state;
  struct client *client = wait_for_room(house);
  stream_finish(client->stream, &events, client);
  end(&house->clients[0], false);
  AWAIT(house, house->backend.connection_count == 2);
  struct backend_connection *second = house->backend.connections[1];
  AWAIT(house, second->stream_count == 1 && second->streams[0].ended);
  assert_int_equal(client->ended, 0);
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->status, STREAM_DEADLINE_EXCEEDED);
  assert_string_equal(client->detail, "the backend did not end it in time");
  AWAIT(house, second->streams[0].reset);
  assert_int_equal(second->streams[0].reset_code, NGHTTP2_CANCEL);
}

static void an_engine_may_be_freed_while_streams_wait_for_room(void **state) {
  struct house *house = *state;
  wait_for_room(house);
  begin(house, 2);
}

static void the_room_of_a_stream_that_ended_is_used_again(void **state) {
  struct house *house = *state;
  greet_with_limit(house, 1);
  for (int i = 0; i < 10; i++) {
    struct client *client = open_one(house, i);
    struct backend_connection *connection = house->backend.connections[0];
    AWAIT(house, connection->stream_count == i + 1);
    backend_headers(connection, last_stream(house, 0)->id, NGHTTP2_FLAG_END_STREAM,
                    ANSWER "grpc-status: 0\n");
    AWAIT(house, client->ended == 1);
  }
  assert_int_equal(house->backend.connection_count, 1);
}

static void streams_go_on_after_a_goaway_and_new_ones_elsewhere(void **state) {
  struct house *house = *state;
  int32_t id;
  struct client *old = open_answered(house, 0, &id);
  struct backend_connection *first = house->backend.connections[0];
  backend_goaway(first, 0x7fffffff, NGHTTP2_NO_ERROR);  // a warning, and then the word
  backend_goaway(first, id, NGHTTP2_NO_ERROR);
  settle(house, first);
  struct client *young = open_one(house, 1);
  assert_int_equal(house->backend.connection_count, 2);
  assert_int_equal(first->stream_count, 1);
  send_text(old, "up");
  AWAIT(house, first->streams[0].len == PREFIX_BYTES + 2);
  backend_text(first, id, "down");
  AWAIT(house, old->messages == 1);
  backend_trailers(first, id, "0");
  AWAIT(house, old->ended == 1);
  assert_int_equal(old->status, STREAM_OK);
  AWAIT(house, first->closed);  // nobody needs it any more
  assert_int_equal(young->ended, 0);
  AWAIT(house, stream_engine_connections(house->engine) == 1);
}

static void streams_that_a_goaway_leaves_out_are_unavailable(void **state) {
  struct house *house = *state;
  int32_t ids[3];
  for (int i = 0; i < 3; i++) {
    open_answered(house, i, &ids[i]);
  }
  struct backend_connection *connection = house->backend.connections[0];
  backend_goaway(connection, ids[0], NGHTTP2_NO_ERROR);
  AWAIT(house, house->clients[1].ended == 1 && house->clients[2].ended == 1);
  assert_int_equal(house->clients[1].status, STREAM_UNAVAILABLE);
  assert_int_equal(house->clients[2].status, STREAM_UNAVAILABLE);
  backend_text(connection, ids[0], "still here");
  AWAIT(house, house->clients[0].messages == 1);
  assert_int_equal(house->clients[0].ended, 0);
}

static void why_a_backend_goes_away_is_told_to_those_who_end_by_it(void **state) {
#define GOES "the backend is going away: "
  static char endless[1000];
  char cut[256];
  memset(endless, 'a', sizeof endless - 1);
  snprintf(cut, sizeof cut, GOES "NO_ERROR: %.128s", endless);
  const struct {
    uint32_t code;
    const char *said;
    const char *detail;
  } reasons[] = {
      {NGHTTP2_NO_ERROR, "", GOES "NO_ERROR"},
      {NGHTTP2_NO_ERROR, "max_age", GOES "NO_ERROR: max_age"},
      {NGHTTP2_ENHANCE_YOUR_CALM, "too_many_pings", GOES "ENHANCE_YOUR_CALM: too_many_pings"},
      {0x7777, "\n\x7f%s", GOES "unknown: \n\x7f%s"},  // whoever logs it has to quote it
      {NGHTTP2_NO_ERROR, endless, cut},
  };
  struct house *house = *state;
  for (int i = 0; i < (int)(sizeof reasons / sizeof *reasons); i++) {
    char closed[sizeof cut + 64];
    int32_t id;
    house->clients[0] = house->clients[1] = (struct client){.stream = NULL};
    struct client *stays = open_one(house, 0);
    struct client *left_out = open_one(house, 1);
    struct backend_connection *connection = house->backend.connections[i];
    AWAIT(house, connection->stream_count == 2);
    id = connection->streams[0].id;
    backend_accept(connection, id);
    backend_accept(connection, connection->streams[1].id);
    backend_goaway_for(connection, id, reasons[i].code, reasons[i].said);
    AWAIT(house, left_out->ended == 1);
    assert_int_equal(left_out->status, STREAM_UNAVAILABLE);
    assert_string_equal(left_out->detail, reasons[i].detail);
    assert_int_equal(stays->ended, 0);
    backend_close(connection);
    AWAIT(house, stays->ended == 1);
    assert_int_equal(stays->status, STREAM_UNAVAILABLE);
    snprintf(closed, sizeof closed, "the connection was closed; %s", reasons[i].detail);
    assert_string_equal(stays->detail, closed);
  }
}

// The backend's side of the only stream on a connection that is to come.
static struct backend_connection *await_stream(struct house *house, int number) {
  AWAIT(house, house->backend.connection_count > number &&
                   house->backend.connections[number]->stream_count == 1);
  return house->backend.connections[number];
}

// It was opened once for its owner, and works.
static void assert_works(struct house *house, struct client *client, int connection, int32_t id) {
  backend_accept(house->backend.connections[connection], id);
  backend_text(house->backend.connections[connection], id, "down");
  AWAIT(house, client->messages == 1 || client->ended);
  send_text(client, "up");
  AWAIT(house, last_stream(house, connection)->len == PREFIX_BYTES + 2 || client->ended);
  assert_int_equal(client->opened, 1);
  assert_int_equal(client->ended, 0);
}

static void a_stream_that_a_goaway_leaves_out_goes_elsewhere_once(void **state) {
  // As grpc-go does to a client that asks too much: one before any stream was taken.
  struct house *house = *state;
  struct client *client = open_one(house, 0);
  struct client *other = open_one(house, 1);
  struct backend_connection *first = house->backend.connections[0];
  AWAIT(house, first->stream_count == 2);
  backend_accept(first, 1);
  backend_goaway(first, 1, NGHTTP2_ENHANCE_YOUR_CALM);
  struct backend_connection *second = await_stream(house, 1);
  assert_string_equal(second->streams[0].headers, first->streams[1].headers);
  assert_works(house, other, 1, 1);
  assert_int_equal(client->ended, 0);
  end(client, false);
  AWAIT(house, first->closed);
  // The next one is left out twice.
  client = begin(house, 2);
  AWAIT(house, second->stream_count == 2);
  backend_goaway(second, 1, NGHTTP2_NO_ERROR);
  struct backend_connection *third = await_stream(house, 2);
  backend_goaway(third, 0, NGHTTP2_NO_ERROR);
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->status, STREAM_UNAVAILABLE);
  assert_int_equal(house->backend.connection_count, 3);
  assert_int_equal(other->ended, 0);
}

static void a_refused_stream_is_asked_for_once_more(void **state) {
  struct house *house = *state;
  for (int i = 0; i < 2; i++) {
    struct client *client = open_one(house, i);
    struct backend_connection *connection = house->backend.connections[0];
    AWAIT(house, connection->stream_count == 2 * i + 1);
    backend_reset(connection, last_stream(house, 0)->id, NGHTTP2_REFUSED_STREAM);
    AWAIT(house, connection->stream_count == 2 * i + 2);
    if (i == 0) {
      assert_works(house, client, 0, last_stream(house, 0)->id);
      continue;
    }
    backend_reset(connection, last_stream(house, 0)->id, NGHTTP2_REFUSED_STREAM);
    AWAIT(house, client->ended == 1);
    assert_int_equal(client->status, STREAM_UNAVAILABLE);
    assert_int_equal(connection->stream_count, 4);
  }
  assert_int_equal(house->backend.connection_count, 1);
}

// What was answered, or sent something, is not asked for a second time.
static void a_stream_that_is_in_use_is_not_asked_for_again(void **state) {
  struct house *house = *state;
  int32_t id;
  struct client *answered = open_answered(house, 0, &id);
  struct client *sent = open_one(house, 1);
  struct backend_connection *connection = house->backend.connections[0];
  send_text(sent, "a message");
  AWAIT(house, connection->stream_count == 2 && last_stream(house, 0)->len > 0);
  settle(house, connection);
  backend_reset(connection, 1, NGHTTP2_REFUSED_STREAM);
  backend_reset(connection, 3, NGHTTP2_REFUSED_STREAM);
  AWAIT(house, answered->ended == 1 && sent->ended == 1);
  assert_int_equal(answered->status, STREAM_UNAVAILABLE);
  assert_int_equal(sent->status, STREAM_UNAVAILABLE);
  assert_int_equal(connection->stream_count, 2);
}

// Its message waits for the window, and goes with it.
static void a_message_that_has_not_left_goes_elsewhere_with_its_stream(void **state) {
  struct house *house = *state;
  house->backend.settings[0] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0};
  house->backend.settings_count = 1;
  struct client *client = open_one(house, 0);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == 1);
  send_text(client, "patience");
  settle(house, connection);
  backend_reset(connection, 1, NGHTTP2_REFUSED_STREAM);
  AWAIT(house, connection->stream_count == 2);
  send_text(client, "pays");
  backend_window(connection, 3, 1000);
  AWAIT(house, last_stream(house, 0)->len == 2 * PREFIX_BYTES + 12);
  assert_string_equal(heard(last_stream(house, 0)), " patience pays");
  assert_int_equal(client->opened, 1);
  settle(house, connection);
  assert_int_equal(stream_unsure(client->stream), 0);
}

// The same on a connection whose backend has said in the meantime that it goes away.
static void a_request_that_may_not_leave_any_more_goes_elsewhere(void **state) {
  struct house *house = *state;
  struct client *first = open_one(house, 0);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == 1);
  settle(house, connection);
  socket_room = 0;
  send_text(first, "holds up what follows");
  size_t before = writes;
  AWAIT(house, writes > before);
  struct client *second = begin(house, 1);
  backend_goaway(connection, 1, NGHTTP2_NO_ERROR);
  backend_ping(connection, "answer!");
  before = writes;
  AWAIT(house, writes > before + 1);  // for the stream, and for the ping
  assert_int_equal(second->opened + second->ended, 0);
  socket_room = SIZE_MAX;
  send_text(first, "goes on");
  AWAIT(house, second->opened == 1 || second->ended);
  assert_int_equal(second->ended, 0);
  await_stream(house, 1);
  assert_int_equal(connection->stream_count, 1);
}

// The backend allows none for now, and its connection breaks while they wait.
static void a_stream_whose_request_has_not_left_goes_elsewhere(void **state) {
  struct house *house = *state;
  struct client *first = begin(house, 0);
  struct client *second = begin(house, 1);
  greet_with_limit(house, 0);
  AWAIT(house, house->backend.connection_count == 1);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->settings_acks == 1);
  house->backend.settings_count = 0;
  backend_close(connection);
  AWAIT(house, first->opened == 1 || first->ended);
  AWAIT(house, second->opened == 1 || second->ended);
  assert_int_equal(first->ended + second->ended, 0);
  assert_int_equal(house->backend.connection_count, 2);
}

static void a_refused_connection_ends_its_streams(void **state) {
  struct house *house = *state;
  backend_stop_listening(&house->backend);
  for (int i = 0; i < 3; i++) {
    begin(house, i);
  }
  for (int i = 0; i < 3; i++) {
    AWAIT(house, house->clients[i].ended == 1);
    assert_int_equal(house->clients[i].opened, 0);
    assert_int_equal(house->clients[i].status, STREAM_UNAVAILABLE);
  }
  AWAIT(house, stream_engine_connections(house->engine) == 0);
}

// Its queue of connections is full, so that the kernel answers no further one.
static void an_address_that_swallows_everything_leaves_time_for_the_others(void **state) {
  enum { FILL = 4 };
  struct house *house = *state;
  const char *port = strrchr(house->backend.address, ':') + 1;
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)strtol(port, NULL, 10))};
  char name[64];
  int fillers[FILL];
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  inet_pton(AF_INET, "127.0.0.2", &address.sin_addr);
  assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
  assert_int_equal(listen(listener, 0), 0);
  for (int i = 0; i < FILL; i++) {
    fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    (void)connect(fillers[i], (struct sockaddr *)&address, sizeof address);
  }
  snprintf(name, sizeof name, MANY ":%s", port);
  struct client *client = open_with(house, 0, name, NULL, 0);
  AWAIT(house, client->opened == 1 || client->ended);
  assert_int_equal(client->opened, 1);
  for (int i = 0; i < FILL; i++) {
    close(fillers[i]);
  }
  close(listener);
}

static void an_address_that_is_none_ends_its_stream(void **state) {
  static const char *const addresses[] = {"",
                                          "127.0.0.1",
                                          "127.0.0.1:",
                                          "127.0.0.1:0",
                                          "127.0.0.1:99999",
                                          "no-such-host.invalid:1",
                                          "[::1:1"};
  struct house *house = *state;
  for (int i = 0; i < (int)(sizeof addresses / sizeof *addresses); i++) {
    struct client *client = open_with(house, i, addresses[i], NULL, 0);
    AWAIT(house, client->ended == 1);
    assert_int_equal(client->opened, 0);
    assert_int_not_equal(client->status, STREAM_OK);
  }
}

static void a_reset_connection_ends_its_streams(void **state) {
  struct house *house = *state;
  house->options.open_timeout_ms = 1000;
  house->backend.resets = true;
  struct client *client = begin(house, 0);
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->opened, 0);
  assert_true(client->status == STREAM_DEADLINE_EXCEEDED || client->status == STREAM_UNAVAILABLE);
}

static void a_backend_that_says_nothing_ends_in_time(void **state) {
  struct house *house = *state;
  house->options.open_timeout_ms = SHORT_MS;
  house->backend.silent = true;
  struct client *client = begin(house, 0);
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->opened, 0);
  assert_true(client->status == STREAM_DEADLINE_EXCEEDED || client->status == STREAM_UNAVAILABLE);
}

// Greets with bytes that are not HTTP/2, or not allowed in it.
static void assert_greeting_is_refused(struct house *house, const void *bytes, size_t len) {
  house->options.open_timeout_ms = 1000;
  house->backend.greeting = bytes;
  house->backend.greeting_len = len;
  struct client *client = begin(house, 0);
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->opened, 0);
  assert_true(client->status == STREAM_DEADLINE_EXCEEDED || client->status == STREAM_UNAVAILABLE);
  AWAIT(house, house->backend.connections[0]->closed);
}

static void a_server_of_http_1_is_refused(void **state) {
  static const char text[] =
      "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
  assert_greeting_is_refused(*state, text, sizeof text - 1);
}

static void a_greeting_without_settings_is_refused(void **state) {
  static const char ping[] = "\0\0\10\6\0\0\0\0\0abcdefgh";
  assert_greeting_is_refused(*state, ping, sizeof ping - 1);
}

static void a_connection_that_breaks_ends_its_streams(void **state) {
  struct house *house = *state;
  int32_t ids[3];
  for (int i = 0; i < 3; i++) {
    open_answered(house, i, &ids[i]);
  }
  house->clients[1].reads = false;  // after the read that on_opened began
  backend_text(house->backend.connections[0], ids[0], "last");
  settle(house, house->backend.connections[0]);
  backend_close(house->backend.connections[0]);
  for (int i = 0; i < 3; i++) {
    AWAIT(house, house->clients[i].ended == 1);
    assert_int_equal(house->clients[i].status, STREAM_UNAVAILABLE);
  }
  assert_int_equal(house->clients[0].messages, 1);
  // And the next begins anew.
  house->clients[0] = (struct client){.stream = NULL};
  open_one(house, 0);
  assert_int_equal(house->backend.connection_count, 2);
}

// What must not come ends the connection, and nothing else.
static void what_breaks_the_rules_ends_the_connection(void **state) {
#define RAW(text) \
  { text, sizeof text - 1 }
  static const struct {
    const char *bytes;
    size_t len;
  } wrongs[] = {
      RAW("\xff\xff\xff\0\0\0\0\0\1"),                // a frame of 16 MB
      RAW("\0\0\1\0\0\0\0\0\0x"),                     // data on no stream
      RAW("\0\0\1\0\0\0\0\0\7x"),                     // data on a stream that never was
      RAW("\0\0\4\3\0\0\0\0\7\0\0\0\0"),              // its reset
      RAW("\0\0\3\3\0\0\0\0\1\0\0\0"),                // a reset that is too short
      RAW("\0\0\5\4\0\0\0\0\0\0\0\0\0\0"),            // settings of 5 bytes
      RAW("\0\0\6\4\0\0\0\0\1\0\4\0\0\0\1"),          // settings of a stream
      RAW("\0\0\6\4\0\0\0\0\0\0\4\xff\xff\xff\xff"),  // a window over 2^31 - 1
      RAW("\0\0\6\4\0\0\0\0\0\0\5\0\0\0\0"),          // frames of 0 bytes at most
      RAW("\0\0\7\6\0\0\0\0\0abcdefg"),               // a ping of 7 bytes
      RAW("\0\0\4\10\0\0\0\0\0\0\0\0\0"),             // a window that grows by 0
      RAW("\0\0\4\10\0\0\0\0\0\x7f\xff\xff\xff"),     // and one by too much
      RAW("\0\0\4\7\0\0\0\0\0\0\0\0\0"),              // a goaway that is too short
      RAW("\0\0\1\1\4\0\0\0\1\x80"),                  // a header from no table
      RAW("\0\0\1\1\4\0\0\0\2\x88"),                  // headers of a stream of the server's
      RAW("\0\0\1\11\4\0\0\0\1\x88"),                 // a continuation of nothing
      RAW("\0\0\1\1\0\0\0\0\1\x88\0\0\10\6\0\0\0\0\0abcdefgh"),  // something within headers
      RAW("\0\0\5\5\4\0\0\0\1\0\0\0\2\x88"),                     // a promise to push
      RAW("\0\0\2\0\10\0\0\0\1\5x"),                             // more padding than there is
  };
  (void)state;
  for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
    void *again;
    assert_int_equal(set_up(&again), 0);
    struct house *house = again;
    struct client *client = open_one(house, 0);
    struct backend_connection *connection = house->backend.connections[0];
    AWAIT(house, connection->stream_count == 1);
    backend_raw(connection, wrongs[i].bytes, wrongs[i].len);
    AWAIT(house, client->ended == 1);
    if (client->status != STREAM_UNAVAILABLE && client->status != STREAM_INTERNAL) {
      print_error("wrong %zu: status %d\n", i, client->status);
    }
    assert_true(client->status == STREAM_UNAVAILABLE || client->status == STREAM_INTERNAL);
    AWAIT(house, connection->closed);
    open_one(house, 1);
    assert_int_equal(house->backend.connection_count, 2);
    tear_down(&again);
  }
}

static void what_is_unknown_is_passed_over(void **state) {
  struct house *house = *state;
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  struct backend_connection *connection = house->backend.connections[0];
  backend_frame(connection, 0xee, 0xff, 0, "whatever", 8);
  backend_frame(connection, 0xee, 0xff, id, "whatever", 8);
  backend_frame(connection, NGHTTP2_PRIORITY, 0, id, "\0\0\0\0\1", 5);
  backend_setting(connection, 0x7777, 1);
  backend_window(connection, id + 0, 1);
  backend_text(connection, id, "x");
  AWAIT(house, client->messages == 1);
  assert_int_equal(client->ended, 0);
}

static void a_table_of_headers_of_any_size_is_kept_to(void **state) {
  static const uint32_t sizes[] = {0, 100, 65536};
  (void)state;
  for (int which = 0; which < 3; which++) {
    void *again;
    assert_int_equal(set_up(&again), 0);
    struct house *house = again;
    house->backend.settings[0] =
        (nghttp2_settings_entry){NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, sizes[which]};
    house->backend.settings_count = 1;
    for (int i = 0; i < 5; i++) {
      const struct stream_metadata metadata[] = {{"x-md-global-oid", i % 2 ? "7" : "8"}};
      char wanted[64];
      struct client *client = open_with(house, i, house->backend.address, metadata, 1);
      AWAIT(house, client->opened == 1);
      AWAIT(house, house->backend.connections[0]->stream_count == i + 1);
      snprintf(wanted, sizeof wanted, "\nx-md-global-oid: %s\n", i % 2 ? "7" : "8");
      assert_non_null(strstr(last_stream(house, 0)->headers, wanted));
      assert_non_null(strstr(last_stream(house, 0)->headers, ":path: " METHOD "\n"));
    }
    tear_down(&again);
  }
}

static void a_ping_is_answered(void **state) {
  struct house *house = *state;
  open_one(house, 0);
  struct backend_connection *connection = house->backend.connections[0];
  backend_ping(connection, "8 bytes!");
  AWAIT(house, connection->pongs == 1);
  assert_memory_equal(connection->pong, "8 bytes!", 8);
}

static void settings_are_acknowledged(void **state) {
  struct house *house = *state;
  open_one(house, 0);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->settings_acks == 1);
  backend_setting(connection, NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 1 << 20);
  AWAIT(house, connection->settings_acks == 2);
}

static void headers_may_go_on_in_further_frames(void **state) {
  struct house *house = *state;
  uint8_t block[256];
  struct client *client = open_one(house, 0);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == 1);
  size_t len = backend_block(block, ANSWER);
  backend_frame(connection, NGHTTP2_HEADERS, 0, 1, block, 1);
  for (size_t at = 1; at < len; at++) {
    uint8_t flags = at == len - 1 ? NGHTTP2_FLAG_END_HEADERS : 0;
    if (at % 16 == 0 || at == len - 1) {
      size_t from = at < 16 ? 1 : (at % 16 == 0 ? at - 15 : at / 16 * 16 + 1);
      backend_frame(connection, NGHTTP2_CONTINUATION, flags, 1, block + from, at - from + 1);
    }
  }
  backend_text(connection, 1, "x");
  AWAIT(house, client->messages == 1 || client->ended);
  assert_int_equal(client->messages, 1);
}

// Over what nghttp2 keeps of one block of headers in any case.
static void headers_without_end_end_the_stream_or_the_connection(void **state) {
  struct house *house = *state;
  static uint8_t block[16000];
  static char value[15000];
  uint8_t more[16384];
  struct client *client = open_one(house, 0);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == 1);
  memset(value, 'v', sizeof value - 1);
  block[0] = 0;
  size_t len = 1;
  len += backend_hpack_string(block + len, "x-long", 6);
  len += backend_hpack_string(block + len, value, sizeof value - 1);
  memcpy(more, block, len);
  backend_frame(connection, NGHTTP2_HEADERS, 0, 1, block, len);
  int frames = 0;
  AWAIT(house,
        (backend_frame(connection, NGHTTP2_CONTINUATION, 0, 1, more, len), ++frames > 5000) ||
            client->ended);
  assert_int_equal(client->ended, 1);
  assert_int_not_equal(client->status, STREAM_OK);
}

// One header is remembered and then named thousands of times by a byte each: 60 MB in 16 KB.
static void headers_that_swell_harm_nobody_else(void **state) {
  struct house *house = *state;
  static char value[3800];
  uint8_t block[16000];
  struct client *client = open_one(house, 0);
  struct client *other = open_one(house, 1);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == 2);
  memset(value, 'v', sizeof value);
  size_t len = 0;
  block[len++] = 0x88;  // :status 200, from the table that everybody has
  block[len++] = 0x40;  // to be remembered
  len += backend_hpack_string(block + len, "x", 1);
  len += backend_hpack_string(block + len, value, sizeof value);
  memset(block + len, 0x80 | 62, sizeof block - len);  // the first that was
  backend_frame(connection, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, block, sizeof block);
  AWAIT(house, client->ended == 1);
  assert_int_not_equal(client->status, STREAM_OK);
  if (!other->ended) {
    backend_accept(connection, 3);
    backend_text(connection, 3, "x");
    AWAIT(house, other->messages == 1);
  }
}

static void a_connection_that_answers_no_ping_is_given_up(void **state) {
  struct house *house = *state;
  house->options.keepalive_ms = SHORT_MS;
  house->backend.mute = true;
  struct client *client = open_one(house, 0);
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->status, STREAM_UNAVAILABLE);
  assert_true(house->backend.connections[0]->pings > 0);
  AWAIT(house, house->backend.connections[0]->closed);
}

static void a_connection_that_answers_pings_is_kept(void **state) {
  struct house *house = *state;
  house->options.keepalive_ms = SHORT_MS;
  struct client *client = open_one(house, 0);
  AWAIT(house, house->backend.connections[0]->pings >= 3);
  assert_int_equal(client->ended, 0);
}

// The first comes when a part of the time between pings has gone by without a sign of life.
static void a_silent_backend_is_soon_asked_whether_it_lives(void **state) {
  struct house *house = *state;
  house->options.keepalive_ms = (PATIENCE_S + 1) * 1000;
  open_one(house, 0);
  AWAIT(house, house->backend.connections[0]->pings == 1);
}

// Opens a stream on a new connection, and waits for three pings there. They may be late, and must
// not be early; TICK_MS is how coarse the loop's clock is.
static void assert_pings_are_apart(struct house *house, int number, int64_t ms) {
  enum { TICK_MS = 10 };
  int64_t from_ms = clock_monotonic_ms();
  open_one(house, number);
  struct backend_connection *connection = house->backend.connections[number];
  AWAIT(house, connection->pings >= 3);
  assert_true(clock_monotonic_ms() - from_ms >= 2 * (ms - TICK_MS));
}

static void a_connection_is_not_pinged_more_often_than_it_should_be(void **state) {
  struct house *house = *state;
  house->options.keepalive_ms = 2 * SHORT_MS;
  assert_pings_are_apart(house, 0, 2 * SHORT_MS);
}

static void a_backend_that_wants_fewer_pings_gets_half_as_many(void **state) {
  struct house *house = *state;
  house->options.keepalive_ms = SHORT_MS;
  for (int i = 0; i < 2; i++) {
    assert_pings_are_apart(house, i, SHORT_MS << i);
    struct client *client = &house->clients[i];
    backend_goaway_for(house->backend.connections[i], 1, NGHTTP2_ENHANCE_YOUR_CALM,
                       "too_many_pings");
    settle(house, house->backend.connections[i]);
    backend_close(house->backend.connections[i]);
    AWAIT(house, client->ended == 1);
    // It is remembered although nothing else of the backend is left.
    AWAIT(house, stream_engine_connections(house->engine) == 0);
  }
}

static void a_connection_without_streams_is_closed_after_a_while(void **state) {
  struct house *house = *state;
  struct client *client = open_one(house, 0);
  AWAIT(house, house->backend.connections[0]->stream_count == 1);
  end(client, false);
  AWAIT(house, house->backend.connections[0]->closed);
  AWAIT(house, stream_engine_connections(house->engine) == 0);
}

// --- Time limits of calls ------------------------------------------------------------------------

enum { CALL_MS = 2000 };  // enough to open one in

static struct client *begin_for(struct house *house, int number, int64_t timeout_ms) {
  struct client *client = open_for(house, number, house->backend.address, timeout_ms, NULL, 0);
  client->reads = true;
  return client;
}

static void assert_out_of_time(struct house *house, struct client *client) {
  AWAIT(house, client->ended == 1);
  assert_int_equal(client->status, STREAM_DEADLINE_EXCEEDED);
  assert_string_equal(client->detail, "the time for the call is over");
}

// Whatever it is doing: in the order of their times, and not that of their opening.
static void a_call_ends_when_its_time_is_over_and_the_backend_hears_of_it(void **state) {
  struct house *house = *state;
  struct client *none = open_one(house, 0);
  struct client *later = begin_for(house, 1, LONG_MS);
  struct client *second = begin_for(house, 2, 3 * CALL_MS / 2);
  struct client *first = begin_for(house, 3, CALL_MS);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == 4);
  backend_accept(connection, 5);
  backend_text(connection, 5, "in time");
  assert_out_of_time(house, first);
  assert_int_equal(first->opened, 1);
  assert_out_of_time(house, second);
  assert_true(first->order < second->order);
  assert_int_equal(second->messages, 1);
  AWAIT(house, connection->streams[2].reset && connection->streams[3].reset);
  assert_int_equal(connection->streams[2].reset_code, NGHTTP2_CANCEL);
  assert_int_equal(connection->streams[3].reset_code, NGHTTP2_CANCEL);
  assert_int_equal(none->ended + later->ended, 0);
  assert_false(connection->streams[0].reset || connection->streams[1].reset);
}

static void a_call_ends_in_time_also_before_it_is_opened(void **state) {
  struct house *house = *state;
  house->backend.silent = true;
  struct client *client = begin_for(house, 0, CALL_MS);
  assert_out_of_time(house, client);
  assert_int_equal(client->opened, 0);
}

static void a_call_ends_in_time_also_when_it_is_half_closed(void **state) {
  struct house *house = *state;
  struct client *client = begin_for(house, 0, CALL_MS);
  AWAIT(house, client->opened == 1);
  stream_finish(client->stream, &events, client);
  assert_out_of_time(house, client);
  AWAIT(house, last_stream(house, 0)->reset);
}

static void a_call_that_is_asked_for_again_has_no_more_time(void **state) {
  struct house *house = *state;
  struct client *client = begin_for(house, 0, CALL_MS);
  AWAIT(house, client->opened == 1);
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == 1);
  backend_reset(connection, 1, NGHTTP2_REFUSED_STREAM);
  AWAIT(house, connection->stream_count == 2 || client->ended);  // if there was time for it
  assert_out_of_time(house, client);
}

// The backend keeps the time as well, and its word may be read before our own timer is.
static void a_cancelling_when_the_time_is_over_means_just_that(void **state) {
  static const char trailers[] = ":status: 200\ngrpc-status: 1\ngrpc-message: too late\n";
  uint8_t said[2][2 * sizeof trailers + BACKEND_HEADER_BYTES] = {
      {0, 0, 4, NGHTTP2_RST_STREAM, 0, 0, 0, 0, 1, 0, 0, 0, NGHTTP2_CANCEL},
      {0, 0, 0, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 0, 0, 0, 3}};
  said[1][2] = (uint8_t)backend_block(said[1] + BACKEND_HEADER_BYTES, trailers);
  struct house *house = *state;
  for (int i = 0; i < 2; i++) {
    int64_t end_ms = clock_monotonic_ms() + CALL_MS;
    struct client *client = begin_for(house, i, CALL_MS);
    AWAIT(house, house->backend.connection_count == 1);
    struct backend_connection *connection = house->backend.connections[0];
    AWAIT(house, connection->stream_count == i + 1);
    while (clock_monotonic_ms() <= end_ms) {
      usleep(1000);  // and the loop does not run
    }
    ssize_t len = BACKEND_HEADER_BYTES + said[i][2];
    assert_int_equal(write(bufferevent_getfd(connection->wire), said[i], (size_t)len), len);
    assert_out_of_time(house, client);
    settle(house, connection);
    assert_false(i == 0 && connection->streams[i].reset);  // so it was not our own timer
  }
}

// --- Ending it ourselves ------------------------------------------------------------------------

static void a_graceful_end_comes_after_what_was_sent(void **state) {
  struct house *house = *state;
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  struct backend_connection *connection = house->backend.connections[0];
  send_text(client, "last words");
  end(client, true);
  AWAIT(house, last_stream(house, 0)->ended);
  assert_string_equal(heard(last_stream(house, 0)), " last words");
  assert_false(last_stream(house, 0)->reset);
  // What the backend still says is read away, whatever its windows would hold.
  for (int i = 0; i < 200; i++) {
    AWAIT(house,
          last_stream(house, 0)->window > 2 * SENT_BYTES && connection->window > 2 * SENT_BYTES);
    backend_message(connection, id, (const uint8_t[SENT_BYTES]){0}, SENT_BYTES);
  }
  backend_trailers(connection, id, "0");
  settle(house, connection);
  assert_false(last_stream(house, 0)->reset);
  assert_int_equal(client->messages + client->ended, 0);
}

static void a_graceful_end_waits_for_the_window(void **state) {
  struct house *house = *state;
  house->backend.settings[0] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 3};
  house->backend.settings_count = 1;
  struct client *client = open_one(house, 0);
  struct backend_connection *connection = house->backend.connections[0];
  house->backend.holds = true;
  send_text(client, "last words");
  end(client, true);
  AWAIT(house, connection->stream_count == 1 && last_stream(house, 0)->len == 3);
  settle(house, connection);
  assert_false(last_stream(house, 0)->ended);
  backend_window(connection, 1, 1000);
  AWAIT(house, last_stream(house, 0)->ended);
  assert_string_equal(heard(last_stream(house, 0)), " last words");
}

static void a_cancelled_stream_is_reset(void **state) {
  struct house *house = *state;
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  end(client, false);
  AWAIT(house, last_stream(house, 0)->reset);
  assert_int_equal(last_stream(house, 0)->reset_code, NGHTTP2_CANCEL);
  // What was on its way does no harm, and takes no room from the others.
  struct backend_connection *connection = house->backend.connections[0];
  struct client *other = open_one(house, 1);
  AWAIT(house, connection->stream_count == 2);
  for (int i = 0; i < 200; i++) {
    AWAIT(house, connection->window > 2 * SENT_BYTES);
    backend_message(connection, id, (const uint8_t[SENT_BYTES]){0}, SENT_BYTES);
  }
  backend_trailers(connection, id, "0");
  settle(house, connection);
  assert_int_equal(other->ended, 0);
  assert_int_equal(client->messages + client->ended, 0);
}

static void a_finished_stream_brings_its_last_answers_to_its_new_owner(void **state) {
  struct house *house = *state;
  int32_t id;
  struct client *client = open_answered(house, 0, &id);
  struct client *heir = &house->clients[1];
  struct backend_connection *connection = house->backend.connections[0];
  send_text(client, "one more");
  heir->reads = true;
  heir->stream = client->stream;
  client->stream = NULL;
  stream_finish(heir->stream, &events, heir);  // a read is under way
  AWAIT(house, last_stream(house, 0)->ended);
  assert_string_equal(heard(last_stream(house, 0)), " one more");
  backend_text(connection, id, "an answer");
  backend_trailers(connection, id, "0");
  AWAIT(house, heir->ended == 1);
  assert_memory_equal(heir->texts, " an answer", 10);
  assert_int_equal(heir->status, STREAM_OK);
  assert_int_equal(client->messages + client->ended, 0);
}

static void a_stream_may_be_given_up_before_it_is_opened(void **state) {
  struct house *house = *state;
  house->backend.silent = true;
  for (int i = 0; i < 6; i++) {
    end(begin(house, i), i % 2 == 0);
  }
  struct client *client = begin(house, 6);
  AWAIT(house, house->backend.connection_count == 1);
  AWAIT(house, house->backend.connections[0]->preface);
  house->backend.silent = false;
  backend_settings(house->backend.connections[0], NULL, 0);
  AWAIT(house, client->opened == 1);
  settle(house, house->backend.connections[0]);
  int going = 0;
  for (int i = 0; i < house->backend.connections[0]->stream_count; i++) {
    const struct backend_stream *stream = &house->backend.connections[0]->streams[i];
    going += !stream->reset && !stream->ended;
  }
  assert_int_equal(going, 1);
  for (int i = 0; i < 6; i++) {
    assert_int_equal(house->clients[i].opened + house->clients[i].ended, 0);
  }
}

static void a_stream_is_opened_when_its_headers_have_left(void **state) {
  struct house *house = *state;
  house->backend.silent = true;
  struct client *client = begin(house, 0);
  AWAIT(house, house->backend.connection_count == 1);
  AWAIT(house, house->backend.connections[0]->preface);
  assert_int_equal(client->opened, 0);  // the backend has not even said that it is one
  house->backend.silent = false;
  backend_settings(house->backend.connections[0], NULL, 0);
  AWAIT(house, client->opened == 1);
  AWAIT(house, house->backend.connections[0]->stream_count == 1);
  assert_int_equal(client->ended, 0);
  // The backend's answer is not waited for.
  assert_true(stream_takes(client->stream));
}

static void all_streams_of_a_turn_are_heard_in_order(void **state) {
  struct house *house = *state;
  enum { STREAMS = 20, ROUNDS = 50 };
  for (int i = 0; i < STREAMS; i++) {
    open_one(house, i);
  }
  struct backend_connection *connection = house->backend.connections[0];
  for (int round = 0; round < ROUNDS; round++) {
    for (int i = 0; i < STREAMS; i++) {
      char text[16];
      snprintf(text, sizeof text, "%d", round);
      AWAIT(house, stream_takes(house->clients[i].stream));
      send_text(&house->clients[i], text);
    }
  }
  for (int i = 0; i < STREAMS; i++) {
    char wanted[ROUNDS * 4] = "";
    size_t at = 0;
    for (int round = 0; round < ROUNDS; round++) {
      at += (size_t)snprintf(wanted + at, sizeof wanted - at, " %d", round);
    }
    AWAIT(house, strlen(heard(&connection->streams[i])) == at);
    assert_string_equal(heard(&connection->streams[i]), wanted);
  }
}

static void what_is_sent_in_one_turn_leaves_by_one_call(void **state) {
  struct house *house = *state;
  enum { STREAMS = 20, MESSAGES = 10 };
  size_t wanted = 0;
  for (int i = 0; i < STREAMS; i++) {
    open_one(house, i);
  }
  struct backend_connection *connection = house->backend.connections[0];
  AWAIT(house, connection->stream_count == STREAMS);
  settle(house, connection);
  writes = 0;
  for (int i = 0; i < STREAMS * MESSAGES; i++) {
    send_text(&house->clients[i % STREAMS], "message");
  }
  assert_int_equal(writes, 0);
  wanted = MESSAGES * (PREFIX_BYTES + 7);
  for (int i = 0; i < STREAMS; i++) {
    AWAIT(house, connection->streams[i].len == wanted);
  }
  assert_int_equal(writes, 1);
}

// --- What a message costs ------------------------------------------------------------------------

// Gives back what comes, each stream's bytes on the same; for ever.
static void echo(struct house *house) {
  size_t echoed[BACKEND_STREAMS] = {0};
  event_reinit(house->base);
  for (;;) {
    event_base_loop(house->base, EVLOOP_ONCE);
    struct backend_connection *connection = house->backend.connections[0];
    for (int i = 0; connection && i < connection->stream_count; i++) {
      struct backend_stream *stream = &connection->streams[i];
      if (echoed[i] < stream->len) {
        if (echoed[i] == 0) {
          backend_accept(connection, stream->id);
        }
        backend_data(connection, stream->id, 0, stream->data + echoed[i], stream->len - echoed[i]);
        echoed[i] = stream->len;
      }
    }
  }
}

// Each of the streams sends one message and waits for its echo.
static void echo_rounds(struct house *house, int streams, int rounds) {
  static const uint8_t message[128];
  for (int round = 0; round < rounds; round++) {
    int before = house->clients[0].messages;
    for (int i = 0; i < streams; i++) {
      send_bytes(&house->clients[i], message, sizeof message);
    }
    for (int i = 0; i < streams; i++) {
      while (house->clients[i].messages == before) {
        event_base_loop(house->base, EVLOOP_ONCE);
      }
    }
  }
}

// Over plain TCP: with TLS, OpenSSL's buffers come and go with each record, so that a connection at
// rest has none.
static void no_memory_is_allocated_for_a_message(void **state) {
  enum { STREAMS = 4, ROUNDS = 2000, MESSAGE_LEN = PREFIX_BYTES + 128 };
  struct house *house = *state;
  if (!COUNTS_ALLOCATIONS) {
    skip();
  }
  // What the backend allocates is its own.
  house->child = child_fork();
  assert_true(house->child >= 0);
  if (house->child == 0) {
    echo(house);
  }
  backend_stop_listening(&house->backend);
  for (int i = 0; i < STREAMS; i++) {
    open_one(house, i);
  }
  alarm(PATIENCE_S);
  echo_rounds(house, STREAMS, 100);
  allocations = 0;
  echo_rounds(house, STREAMS, ROUNDS);
  alarm(0);
  // But for what nghttp2 needs to give windows back: a piece for each half of a stream's. It also
  // shows that what libraries allocate is counted.
  assert_in_range(allocations, 1, STREAMS * (ROUNDS * MESSAGE_LEN / (WINDOW_BYTES / 2) + 1));
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(the_request_is_what_the_specification_asks_for),
      FACT(the_name_for_certificates_is_none_without_them),
      FACT(the_values_of_binary_metadata_are_in_base64_without_padding),
      FACT(a_time_limit_comes_before_the_rest_of_the_call),
      FACT(metadata_that_no_header_can_carry_ends_that_stream_alone),
      FACT(the_client_wants_no_pushes),
      FACT(a_message_has_its_prefix_and_may_be_empty),
      FACT(a_message_arrives_wherever_its_frames_are_cut),
      FACT(a_frame_may_come_in_as_many_pieces_as_it_has_bytes),
      FACT(frames_of_one_byte_and_of_none_are_put_together),
      FACT(padding_is_no_part_of_a_message),
      FACT(one_frame_may_hold_two_messages_and_a_half),
      FACT(only_what_is_asked_for_is_given),
      FACT(a_message_that_waited_is_there_when_its_stream_is_ended_within_it),
      FACT(a_message_of_the_greatest_length_arrives_within_the_windows),
      FACT(a_status_comes_in_the_trailers_or_without_anything_before),
      FACT(a_missing_or_senseless_status_is_unknown),
      FACT(a_message_of_the_status_is_percent_encoded),
      FACT(a_message_of_the_status_cannot_end_early),
      FACT(a_status_of_http_is_translated_where_grpc_has_none),
      FACT(an_answer_of_another_type_is_none),
      FACT(the_body_of_an_answer_that_is_none_is_no_message),
      FACT(headers_for_information_go_before_an_answer),
      FACT(nothing_in_headers_for_information_is_of_the_answer),
      FACT(messages_before_the_end_are_given_out_first),
      FACT(a_reset_is_translated),
      FACT(a_reset_after_the_trailers_changes_nothing),
      FACT(an_end_in_the_middle_of_a_message_is_a_fault),
      FACT(an_end_without_trailers_is_a_fault),
      FACT(a_message_over_the_bound_ends_the_stream_by_its_prefix),
      FACT(a_compressed_message_is_refused),
      FACT(an_encoding_that_is_not_used_does_no_harm),
      FACT(a_full_window_of_the_stream_holds_the_sender),
      FACT(a_full_window_of_the_connection_holds_all_senders),
      FACT(a_window_may_be_changed_and_even_fall_below_nothing),
      FACT(what_the_socket_has_not_taken_is_unsure),
      FACT(frames_are_no_larger_than_the_backend_takes),
      FACT(an_owner_that_does_not_read_holds_the_backend_back_and_nobody_else),
      FACT(a_backends_limit_makes_further_connections),
      FACT(a_limit_may_be_lowered_while_streams_are_open),
      FACT(a_backend_that_allows_no_streams_is_waited_for_in_vain),
      FACT(a_limit_that_is_raised_lets_those_in_who_wait),
      FACT(a_backend_that_allows_no_streams_and_leaves_is_not_tried_for_ever),
      FACT(our_own_limit_makes_further_connections_too),
      FACT(beyond_the_bound_on_connections_streams_wait_for_room),
      FACT(who_waits_for_room_in_vain_hears_of_it_in_time),
      FACT(who_waits_for_room_takes_messages_when_there_is_some),
      FACT(who_waits_for_room_may_end),
      FACT(who_ends_while_waiting_for_room_is_given_up_in_time),
      FACT(an_engine_may_be_freed_while_streams_wait_for_room),
      FACT(the_room_of_a_stream_that_ended_is_used_again),
      FACT(streams_go_on_after_a_goaway_and_new_ones_elsewhere),
      FACT(streams_that_a_goaway_leaves_out_are_unavailable),
      FACT(why_a_backend_goes_away_is_told_to_those_who_end_by_it),
      FACT(a_stream_that_a_goaway_leaves_out_goes_elsewhere_once),
      FACT(a_refused_stream_is_asked_for_once_more),
      FACT(a_stream_that_is_in_use_is_not_asked_for_again),
      FACT(a_message_that_has_not_left_goes_elsewhere_with_its_stream),
      FACT(a_request_that_may_not_leave_any_more_goes_elsewhere),
      FACT(a_stream_whose_request_has_not_left_goes_elsewhere),
      FACT(a_refused_connection_ends_its_streams),
      FACT(an_address_that_swallows_everything_leaves_time_for_the_others),
      FACT(an_address_that_is_none_ends_its_stream),
      FACT(a_reset_connection_ends_its_streams),
      FACT(a_backend_that_says_nothing_ends_in_time),
      FACT(a_server_of_http_1_is_refused),
      FACT(a_greeting_without_settings_is_refused),
      FACT(a_connection_that_breaks_ends_its_streams),
      FACT(what_breaks_the_rules_ends_the_connection),
      FACT(what_is_unknown_is_passed_over),
      FACT(a_table_of_headers_of_any_size_is_kept_to),
      FACT(a_ping_is_answered),
      FACT(settings_are_acknowledged),
      FACT(headers_may_go_on_in_further_frames),
      FACT(headers_without_end_end_the_stream_or_the_connection),
      FACT(headers_that_swell_harm_nobody_else),
      FACT(a_connection_that_answers_no_ping_is_given_up),
      FACT(a_connection_that_answers_pings_is_kept),
      FACT(a_silent_backend_is_soon_asked_whether_it_lives),
      FACT(a_connection_is_not_pinged_more_often_than_it_should_be),
      FACT(a_backend_that_wants_fewer_pings_gets_half_as_many),
      FACT(a_connection_without_streams_is_closed_after_a_while),
      FACT(a_call_ends_when_its_time_is_over_and_the_backend_hears_of_it),
      FACT(a_call_ends_in_time_also_before_it_is_opened),
      FACT(a_call_ends_in_time_also_when_it_is_half_closed),
      FACT(a_call_that_is_asked_for_again_has_no_more_time),
      FACT(a_cancelling_when_the_time_is_over_means_just_that),
      FACT(a_graceful_end_comes_after_what_was_sent),
      FACT(a_graceful_end_waits_for_the_window),
      FACT(a_cancelled_stream_is_reset),
      FACT(a_finished_stream_brings_its_last_answers_to_its_new_owner),
      FACT(a_stream_may_be_given_up_before_it_is_opened),
      FACT(a_stream_is_opened_when_its_headers_have_left),
      FACT(all_streams_of_a_turn_are_heard_in_order),
      FACT(what_is_sent_in_one_turn_leaves_by_one_call),
      FACT(no_memory_is_allocated_for_a_message),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
