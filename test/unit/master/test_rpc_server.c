#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <arpa/inet.h>
#include <cmocka.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/loop.h"
#include "master/rpc_server.h"

// A server and its clients on one loop. What the owner does with a call goes by the method:
// Echo answers with the request, Fail fails it, Hold keeps it for the test to answer; others
// are refused, and so is a client without the right token.

enum {
  PATIENCE_S = 60,
  MESSAGE_BYTES = 1000,  // that the server takes
  CLIENT_MESSAGE_BYTES = 8 << 20,
  CLIENTS = 12,
  HELD_MAX = 16,
  LONG_MS = 600000,
  SHORT_MS = 300,
};

struct client {
  struct stream *stream;
  struct stream_waiting *request;  // sent when opened
  int opened;
  int messages;
  int ended;
  int status;
  char detail[128];
  char last[64];
  bool read_on;
  bool leave_when_opened;  // ends its side without a request
};

struct house {
  struct event_base *base;
  struct rpc_server *server;
  struct stream_engine *engine;
  struct client clients[CLIENTS];
  struct rpc_server_call *latest;  // whose head was seen
  struct rpc_server_call *held[HELD_MAX];
  int held_count;
  int heads;
  int requests;
  int gone;
  char method[64];
  char peer[64];
  char metadata[3][64];
  char request[64];
  size_t request_len;
};

// --- The owner -----------------------------------------------------------------------

static void note(char *into, const char *text) { snprintf(into, 64, "%s", text ? text : "(none)"); }

static bool is_method(struct rpc_server_call *call, const char *name) {
  return strcmp(strrchr(rpc_server_method(call), '/') + 1, name) == 0;
}

static enum stream_status on_head(struct rpc_server_call *call, const char **detail, void *owner) {
  struct house *house = owner;
  house->heads++;
  house->latest = call;
  note(house->method, rpc_server_method(call));
  note(house->peer, rpc_server_peer(call));
  note(house->metadata[0], rpc_server_metadata(call, "x-one"));
  note(house->metadata[1], rpc_server_metadata(call, "x-two"));
  note(house->metadata[2], rpc_server_metadata(call, "x-absent"));
  assert_null(rpc_server_context(call));
  rpc_server_set_context(call, house);
  if (strcmp(house->metadata[0], "wrong") == 0) {
    return STREAM_UNAUTHENTICATED;
  }
  if (!is_method(call, "Echo") && !is_method(call, "Fail") && !is_method(call, "Hold")) {
    *detail = "no such method";
    return STREAM_UNIMPLEMENTED;
  }
  return STREAM_OK;
}

static void on_request(struct rpc_server_call *call, const uint8_t *request, size_t len,
                       void *owner) {
  struct house *house = owner;
  assert_ptr_equal(rpc_server_context(call), house);
  house->requests++;
  house->request_len = len;
  snprintf(house->request, sizeof house->request, "%.*s", (int)len, (const char *)request);
  if (is_method(call, "Echo")) {
    rpc_server_reply(call, request, len);
  } else if (is_method(call, "Fail")) {
    rpc_server_fail(call, STREAM_FAILED_PRECONDITION, "not \"now\": 100 %");
  } else {
    assert_in_range(house->held_count, 0, HELD_MAX - 1);
    house->held[house->held_count++] = call;
  }
}

static void on_gone(struct rpc_server_call *call, void *owner) {
  struct house *house = owner;
  assert_ptr_equal(rpc_server_context(call), house);
  house->gone++;
}

static void reply_text(struct rpc_server_call *call, const char *text) {
  rpc_server_reply(call, (const uint8_t *)text, strlen(text));
}

static void send_text(struct rpc_server_call *call, const char *text) {
  rpc_server_send(call, (const uint8_t *)text, strlen(text));
}

// --- The clients -----------------------------------------------------------------------

static void on_opened(void *owner) {
  struct client *client = owner;
  client->opened++;
  if (client->leave_when_opened) {
    stream_end(client->stream, true);
    client->stream = NULL;
    return;
  }
  if (client->request) {
    assert_true(stream_send_waiting(client->stream, client->request));
    client->request = NULL;
  }
  if (client->read_on) {
    stream_read(client->stream);
  }
}

static void on_sent(void *owner) { (void)owner; }

static void on_message(void *owner, const uint8_t *bytes, size_t len) {
  struct client *client = owner;
  client->messages++;
  snprintf(client->last, sizeof client->last, "%.*s", (int)len, (const char *)bytes);
  if (client->read_on) {
    stream_read(client->stream);
  }
}

static void on_ended(void *owner, int status, const char *detail) {
  struct client *client = owner;
  client->ended++;
  client->status = status;
  snprintf(client->detail, sizeof client->detail, "%s", detail);
  stream_end(client->stream, false);
  client->stream = NULL;
  free(client->request);
  client->request = NULL;
}

static struct stream_waiting *message_of(size_t len, char filler) {
  struct stream_waiting *message = malloc(sizeof *message + len);
  message->len = len;
  memset(message->bytes, filler, len);
  return message;
}

static struct stream_waiting *text_message(const char *text) {
  struct stream_waiting *message = message_of(strlen(text), 0);
  memcpy(message->bytes, text, message->len);
  return message;
}

static void open_client(struct house *house, struct client *client, const char *name,
                        struct stream_waiting *request, const struct stream_metadata *metadata,
                        size_t metadata_count) {
  static const struct stream_events events = {on_opened, on_sent, on_message, on_ended};
  char address[32];
  char method[64];
  snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(house->server));
  snprintf(method, sizeof method, "/test.Service/%s", name);
  const struct stream_target target = {.address = address, .method = method};
  client->request = request;
  client->stream = stream_open(house->engine, &target, metadata, metadata_count, &events, client);
  assert_non_null(client->stream);
}

// The client with this number calls the method, with a request or (NULL) without, and reads
// whatever comes.
static struct client *call(struct house *house, int number, const char *name,
                           struct stream_waiting *request) {
  struct client *client = &house->clients[number];
  *client = (struct client){.read_on = true};
  open_client(house, client, name, request, NULL, 0);
  return client;
}

static void leave(struct client *client) {
  stream_end(client->stream, false);
  client->stream = NULL;
}

// --- Running ---------------------------------------------------------------------------

// Runs the loop until the condition holds; fails after a long while.
#define AWAIT(house, condition)                    \
  do {                                             \
    struct event *patience = patience_new(house);  \
    while (!(condition)) {                         \
      event_base_loop((house)->base, EVLOOP_ONCE); \
    }                                              \
    event_free(patience);                          \
  } while (0)

static struct event *patience_new(struct house *house) {
  const struct timeval time = {.tv_sec = PATIENCE_S};
  struct event *patience = evtimer_new(house->base, (event_callback_fn)abort, NULL);
  event_add(patience, &time);
  return patience;
}

static void await(struct house *house, const int *value, int wanted) {
  AWAIT(house, *value >= wanted);
}

static struct rpc_server_options usual_options(void) {
  return (struct rpc_server_options){.address = "127.0.0.1:0",
                                     .message_bytes = MESSAGE_BYTES,
                                     .calls_max = HELD_MAX,
                                     .request_timeout_ms = LONG_MS,
                                     .keepalive_ms = LONG_MS};
}

static void serve(struct house *house, const struct rpc_server_options *options) {
  static const struct rpc_server_events events = {on_head, on_request, on_gone};
  char why[256] = "";
  house->server = rpc_server_new(house->base, options, &events, house, why, sizeof why);
  assert_string_equal(why, "");
  assert_non_null(house->server);
  assert_in_range(rpc_server_port(house->server), 1, 65535);
}

static void serve_usual(struct house *house) {
  const struct rpc_server_options options = usual_options();
  serve(house, &options);
}

static void serve_impatient(struct house *house) {
  struct rpc_server_options options = usual_options();
  options.request_timeout_ms = SHORT_MS;
  serve(house, &options);
}

// A client of Hold whose call the owner now has. A machine that is slow may make the request
// come too late for an impatient server, hence the further tries.
static struct client *call_held(struct house *house, int number) {
  int before = house->held_count;
  struct client *client;
  do {
    client = call(house, number, "Hold", text_message("please"));
    AWAIT(house, house->held_count > before || client->ended > 0);
  } while (house->held_count == before);
  return client;
}

static struct rpc_server_counts counts(struct house *house) {
  struct rpc_server_counts counts;
  rpc_server_counts(house->server, &counts);
  return counts;
}

static void await_open(struct house *house, size_t wanted) {
  AWAIT(house, counts(house).open == wanted);
}

static int set_up(void **state) {
  const struct stream_engine_options options = {.open_timeout_ms = PATIENCE_S * 1000,
                                                .streams_per_connection = 100,
                                                .message_bytes = CLIENT_MESSAGE_BYTES};
  struct house *house = calloc(1, sizeof *house);
  int error;
  house->base = event_base_new();
  house->engine = stream_engine_new(house->base, &options, &error);
  *state = house;
  return house->engine ? 0 : -1;
}

static int tear_down(void **state) {
  struct house *house = *state;
  for (int i = 0; i < CLIENTS; i++) {
    stream_end(house->clients[i].stream, false);
    free(house->clients[i].request);
  }
  rpc_server_free(house->server);
  stream_engine_free(house->engine);
  loop_free(house->base);
  free(house);
  return 0;
}

// --- Clients that speak HTTP/2 by hand ----------------------------------------------------

static int raw_connect_with(struct house *house, int receive_bytes) {
  const struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons((uint16_t)rpc_server_port(house->server)),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_bytes > 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
  }
  assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
  return fd;
}

static int raw_connect(struct house *house) { return raw_connect_with(house, 0); }

static void raw_write(int fd, const void *bytes, size_t len) {
  assert_int_equal(write(fd, bytes, len), (ssize_t)len);
}

enum { RAW_HEAD_BYTES = 128 };

#define RAW_WRITE(fd, text) raw_write(fd, text, sizeof text - 1)

// The connection's beginning: no settings.
static void raw_greet(int fd) {
  RAW_WRITE(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0");
}

// The head of a call into out, of RAW_HEAD_BYTES; its length. POST, http, the path,
// :authority x, content-type application/grpc, te trailers, none of them compressed.
static size_t raw_head(uint8_t *out, uint32_t stream, const char *path, size_t path_len) {
  static const uint8_t rest[] =
      "\x01\x01x\x0f\x10\x10"
      "application/grpc\x00\x02te\x08trailers";
  const size_t len = 4 + path_len + sizeof rest - 1;
  const uint8_t frame[9] = {[2] = (uint8_t)len,
                            1,
                            4,
                            (uint8_t)(stream >> 24),
                            (uint8_t)(stream >> 16),
                            (uint8_t)(stream >> 8),
                            (uint8_t)stream};
  const uint8_t fields[] = {0x83, 0x86, 0x04, (uint8_t)path_len};
  memcpy(out, frame, sizeof frame);
  memcpy(out + 9, fields, sizeof fields);
  memcpy(out + 13, path, path_len);
  memcpy(out + 13 + path_len, rest, sizeof rest - 1);
  return 9 + len;
}

static void raw_call(int fd, const char *path, size_t path_len) {
  uint8_t head[RAW_HEAD_BYTES];
  raw_greet(fd);
  raw_write(fd, head, raw_head(head, 1, path, path_len));
}

// The first bytes of a message of ten.
static void raw_part_of_request(int fd) {
  RAW_WRITE(fd,
            "\0\0\x08\0\0\0\0\0\1"
            "\0\0\0\0\x0a"
            "abc");
}

static void raw_rest_of_request(int fd) {
  RAW_WRITE(fd,
            "\0\0\x07\0\1\0\0\0\1"
            "defghij");
}

static void on_raw_readable(evutil_socket_t fd, short what, void *context) {
  char bytes[512];
  (void)what;
  if (read(fd, bytes, sizeof bytes) <= 0) {
    ++*(int *)context;
  }
}

// Reads and forgets what comes until the server has closed the connection.
static void raw_await_end(struct house *house, int fd) {
  int ended = 0;
  struct event *readable =
      event_new(house->base, fd, EV_READ | EV_PERSIST, on_raw_readable, &ended);
  event_add(readable, NULL);
  await(house, &ended, 1);
  event_free(readable);
  close(fd);
}

// --- Calls -------------------------------------------------------------------------------

static void a_call_is_answered(void **state) {
  struct house *house = *state;
  serve_usual(house);
  struct client *client = call(house, 0, "Echo", text_message("hello"));
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_OK);
  assert_int_equal(client->messages, 1);
  assert_string_equal(client->last, "hello");
  assert_int_equal(house->heads, 1);
  assert_int_equal(house->gone, 0);
  await_open(house, 0);
  assert_int_equal(counts(house).let_in, 1);
}

static void a_request_and_an_answer_may_be_empty(void **state) {
  struct house *house = *state;
  serve_usual(house);
  struct client *client = call(house, 0, "Echo", text_message(""));
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_OK);
  assert_int_equal(client->messages, 1);
  call_held(house, 1);
  rpc_server_reply(house->held[0], NULL, 0);
  await(house, &house->clients[1].ended, 1);
  assert_int_equal(house->clients[1].messages, 1);
}

static void a_failure_has_its_status_and_detail(void **state) {
  struct house *house = *state;
  serve_usual(house);
  struct client *client = call(house, 0, "Fail", text_message("x"));
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_FAILED_PRECONDITION);
  assert_string_equal(client->detail, "not \"now\": 100 %");
  assert_int_equal(client->messages, 0);
}

static void the_owner_sees_method_peer_and_metadata(void **state) {
  struct house *house = *state;
  static const struct stream_metadata metadata[] = {
      {"x-one", "first"}, {"x-one", "second"}, {"x-two", ""}};
  int port;
  char end;
  serve_usual(house);
  house->clients[0].read_on = true;
  open_client(house, &house->clients[0], "Echo", text_message("x"), metadata, 3);
  await(house, &house->clients[0].ended, 1);
  assert_string_equal(house->method, "/test.Service/Echo");
  assert_string_equal(house->metadata[0], "first");
  assert_string_equal(house->metadata[1], "");
  assert_string_equal(house->metadata[2], "(none)");
  assert_int_equal(sscanf(house->peer, "127.0.0.1:%d%c", &port, &end), 1);
}

static void a_peer_of_ipv6_stands_in_brackets(void **state) {
  struct house *house = *state;
  struct rpc_server_options options = usual_options();
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
  int port;
  char end;
  int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
    close(fd);
    skip();  // a machine without IPv6
  }
  options.address = "[::1]:0";
  serve(house, &options);
  address.sin6_port = htons((uint16_t)rpc_server_port(house->server));
  assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
  raw_call(fd, "/a/b", 4);
  await(house, &house->heads, 1);
  assert_int_equal(sscanf(house->peer, "[::1]:%d%c", &port, &end), 1);
  close(fd);
}

static void a_peer_of_ipv4_looks_so_on_every_address(void **state) {
  struct house *house = *state;
  struct rpc_server_options options = usual_options();
  options.address = "0.0.0.0:0";
  serve(house, &options);
  struct client *client = call(house, 0, "Echo", text_message("x"));
  await(house, &client->ended, 1);
  assert_int_equal(strncmp(house->peer, "127.0.0.1:", 10), 0);
}

static void a_call_refused_at_its_head_is_not_read(void **state) {
  struct house *house = *state;
  static const struct stream_metadata metadata[] = {{"x-one", "wrong"}};
  serve_usual(house);
  struct client *client = call(house, 0, "Nothing", text_message("x"));
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_UNIMPLEMENTED);
  assert_string_equal(client->detail, "no such method");
  client = &house->clients[1];
  client->read_on = true;
  open_client(house, client, "Echo", NULL, metadata, 1);  // nothing to read at all
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_UNAUTHENTICATED);
  assert_string_equal(client->detail, "");
  assert_int_equal(house->heads, 2);
  assert_int_equal(house->requests, 0);
  assert_int_equal(house->gone, 0);
}

static void an_answer_may_come_later(void **state) {
  struct house *house = *state;
  serve_usual(house);
  struct client *client = call_held(house, 0);
  struct client *other = call(house, 1, "Echo", text_message("x"));
  await(house, &other->ended, 1);
  assert_int_equal(client->messages, 0);
  reply_text(house->held[0], "at last");
  await(house, &client->ended, 1);
  assert_string_equal(client->last, "at last");
  assert_int_equal(house->gone, 0);
}

static void a_call_may_be_failed_before_its_request_is_here(void **state) {
  struct house *house = *state;
  serve_usual(house);
  struct client *client = call(house, 0, "Echo", NULL);
  await(house, &house->heads, 1);
  rpc_server_fail(house->latest, STREAM_UNAVAILABLE, NULL);
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_UNAVAILABLE);
  assert_string_equal(client->detail, "");
  await_open(house, 0);
  assert_int_equal(house->gone, 0);
}

static void thousands_of_calls_at_once_are_answered(void **state) {
  enum { MANY = 3000 };
  struct house *house = *state;
  struct client *clients = calloc(MANY, sizeof *clients);
  serve_usual(house);
  for (int i = 0; i < MANY; i++) {
    clients[i].read_on = true;
    open_client(house, &clients[i], "Echo", text_message("x"), NULL, 0);
  }
  int answered = 0;
  int refused = 0;
  for (int i = 0; i < MANY; i++) {
    await(house, &clients[i].ended, 1);
    answered += clients[i].status == STREAM_OK;
    refused += clients[i].status == STREAM_RESOURCE_EXHAUSTED;
  }
  free(clients);
  // The owner has few at a time; what it has, it answers.
  assert_int_equal(answered + refused, MANY);
  assert_int_equal(answered, house->requests);
  assert_int_equal(refused, counts(house).refused);
  assert_int_equal(counts(house).cut, 0);
}

// --- Bounds ------------------------------------------------------------------------------

static void a_request_over_the_bound_is_refused(void **state) {
  struct house *house = *state;
  serve_usual(house);
  struct client *client = call(house, 0, "Echo", message_of(MESSAGE_BYTES, 'x'));
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_OK);
  assert_int_equal(house->request_len, MESSAGE_BYTES);
  client = call(house, 1, "Echo", message_of(MESSAGE_BYTES + 1, 'x'));
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_RESOURCE_EXHAUSTED);
  client = call(house, 2, "Echo", message_of(CLIENT_MESSAGE_BYTES, 'x'));
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_RESOURCE_EXHAUSTED);
  await(house, &house->gone, 2);
  assert_int_equal(house->requests, 1);
}

static void a_compressed_request_is_refused(void **state) {
  struct house *house = *state;
  static const struct stream_metadata metadata[] = {{"grpc-internal-encoding-request", "gzip"}};
  serve_usual(house);
  house->clients[0].read_on = true;
  open_client(house, &house->clients[0], "Echo", message_of(MESSAGE_BYTES, 'x'), metadata, 1);
  await(house, &house->clients[0].ended, 1);
  assert_int_equal(house->clients[0].status, STREAM_UNIMPLEMENTED);
  assert_string_equal(house->clients[0].detail, "requests are taken uncompressed");
  assert_int_equal(house->requests, 0);
  assert_int_equal(house->gone, 1);
}

static void a_request_that_does_not_come_is_given_up_in_time(void **state) {
  struct house *house = *state;
  serve_impatient(house);
  struct client *client = call(house, 0, "Echo", NULL);
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_DEADLINE_EXCEEDED);
  assert_string_equal(client->detail, "the request did not come in time");
  assert_int_equal(house->gone, 1);
  assert_int_equal(house->requests, 0);
  assert_int_equal(counts(house).late, 1);
  int fd = raw_connect(house);
  raw_call(fd, "/test.Service/Echo", 18);
  raw_part_of_request(fd);
  await(house, &house->gone, 2);
  close(fd);
}

static void a_request_may_come_in_parts(void **state) {
  struct house *house = *state;
  serve_usual(house);
  int fd = raw_connect(house);
  raw_call(fd, "/test.Service/Hold", 18);
  raw_part_of_request(fd);
  await_open(house, 1);
  assert_int_equal(house->requests, 0);
  raw_rest_of_request(fd);
  await(house, &house->requests, 1);
  assert_string_equal(house->request, "abcdefghij");
  close(fd);
  await(house, &house->gone, 1);
}

static void an_owner_that_does_not_answer_loses_the_call(void **state) {
  struct house *house = *state;
  serve_impatient(house);
  struct client *client = call_held(house, 0);
  int gone = house->gone;
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_DEADLINE_EXCEEDED);
  assert_string_equal(client->detail, "not answered in time");
  assert_int_equal(house->gone, gone + 1);
}

static void a_call_without_a_request_is_refused(void **state) {
  struct house *house = *state;
  serve_usual(house);
  struct client *client = &house->clients[0];
  client->leave_when_opened = true;
  open_client(house, client, "Echo", NULL, NULL, 0);
  await(house, &house->gone, 1);
  assert_int_equal(house->requests, 0);
  assert_int_equal(counts(house).late, 0);
}

static void more_calls_than_allowed_are_refused_at_once(void **state) {
  struct house *house = *state;
  struct rpc_server_options options = usual_options();
  options.calls_max = 2;
  serve(house, &options);
  struct client *first = call_held(house, 0);
  struct client *second = call_held(house, 1);
  send_text(house->held[1], "a watcher counts too");
  await(house, &second->messages, 1);
  struct client *third = call(house, 2, "Echo", NULL);
  await(house, &third->ended, 1);
  assert_int_equal(third->status, STREAM_RESOURCE_EXHAUSTED);
  assert_int_equal(house->heads, 2);
  assert_int_equal(counts(house).refused, 1);
  reply_text(house->held[0], "done");
  await(house, &first->ended, 1);
  struct client *fourth = call(house, 3, "Echo", text_message("x"));
  await(house, &fourth->ended, 1);
  assert_int_equal(fourth->status, STREAM_OK);
}

static void answers_that_are_not_taken_keep_further_calls_out(void **state) {
  enum { LARGE = 256 << 10, ENOUGH = 200 };  // more than HTTP/2 lets out unasked
  static const uint8_t large[LARGE];
  struct house *house = *state;
  int fds[ENOUGH];
  int count = 0;
  struct rpc_server_options options = usual_options();
  options.calls_max = 1;
  serve(house, &options);
  do {
    assert_in_range(count, 0, ENOUGH - 1);
    fds[count] = raw_connect(house);
    raw_call(fds[count], "/test.Service/Hold", 18);
    raw_part_of_request(fds[count]);
    raw_rest_of_request(fds[count++]);
    AWAIT(house, house->held_count > 0 || counts(house).refused > 0);
    if (house->held_count > 0) {
      rpc_server_reply(house->held[--house->held_count], large, LARGE);
    }
  } while (counts(house).refused == 0);
  assert_int_equal(counts(house).let_in, count - 1);
  while (count > 0) {
    close(fds[--count]);
  }
  struct client *again;
  do {  // until the server knows that they have left
    again = call(house, 0, "Echo", text_message("x"));
    await(house, &again->ended, 1);
  } while (again->status != STREAM_OK);
  assert_int_equal(house->gone, 0);
}

static void thousands_over_the_bound_are_all_refused(void **state) {
  enum { MANY = 2000 };
  struct house *house = *state;
  struct client *clients = calloc(MANY, sizeof *clients);
  serve_usual(house);
  for (int i = 0; i < HELD_MAX; i++) {
    clients[i].read_on = true;
    open_client(house, &clients[i], "Hold", text_message("x"), NULL, 0);
  }
  await(house, &house->held_count, HELD_MAX);
  for (int i = HELD_MAX; i < MANY; i++) {
    clients[i].read_on = true;
    open_client(house, &clients[i], "Hold", text_message("x"), NULL, 0);
  }
  for (int i = HELD_MAX; i < MANY; i++) {
    await(house, &clients[i].ended, 1);
    assert_int_equal(clients[i].status, STREAM_RESOURCE_EXHAUSTED);
  }
  assert_int_equal(counts(house).refused, MANY - HELD_MAX);
  for (int i = 0; i < HELD_MAX; i++) {
    reply_text(house->held[i], "x");
  }
  for (int i = 0; i < HELD_MAX; i++) {
    await(house, &clients[i].ended, 1);
    assert_int_equal(clients[i].status, STREAM_OK);
  }
  free(clients);
}

struct flood {
  uint8_t *heads;  // still to be written
  size_t len;
};

static void on_flood_writable(evutil_socket_t fd, short what, void *context) {
  struct flood *flood = context;
  ssize_t written = write(fd, flood->heads, flood->len);
  (void)what;
  if (written > 0) {
    flood->heads += written;
    flood->len -= (size_t)written;
  }
}

static void a_client_that_heeds_no_limit_and_reads_nothing_harms_no_other(void **state) {
  enum { MANY = 6000 };  // far over what a connection and the server allow
  struct house *house = *state;
  uint8_t *heads = malloc(MANY * RAW_HEAD_BYTES);
  struct flood flood = {.heads = heads};
  serve_usual(house);
  for (uint32_t i = 0; i < MANY; i++) {
    flood.len += raw_head(heads + flood.len, 2 * i + 1, "/test.Service/No", 16);
  }
  int fd = raw_connect_with(house, 1);
  raw_greet(fd);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  struct event *writable =
      event_new(house->base, fd, EV_WRITE | EV_PERSIST, on_flood_writable, &flood);
  event_add(writable, NULL);
  AWAIT(house, flood.len == 0);
  event_free(writable);
  free(heads);
  await(house, &house->heads, MANY);
  struct client *client = call(house, 0, "Echo", text_message("x"));
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_OK);
  close(fd);
}

static void a_path_with_a_nul_is_no_method(void **state) {
  struct house *house = *state;
  serve_usual(house);
  int fd = raw_connect(house);
  raw_call(fd, "/test.Service/Echo\0x", 20);
  shutdown(fd, SHUT_WR);
  raw_await_end(house, fd);
  assert_int_equal(house->heads, 0);
}

// --- Clients that leave -------------------------------------------------------------------

static void a_client_that_cancels_is_told_to_the_owner(void **state) {
  struct house *house = *state;
  serve_usual(house);
  struct client *client = call(house, 0, "Echo", NULL);  // before its request
  await(house, &client->opened, 1);
  await(house, &house->heads, 1);
  leave(client);
  await(house, &house->gone, 1);
  client = call_held(house, 1);  // before its answer
  leave(client);
  await(house, &house->gone, 2);
  assert_int_equal(counts(house).open, 0);
}

static void an_answer_to_a_client_that_has_just_left_is_harmless(void **state) {
  struct house *house = *state;
  serve_usual(house);
  struct client *client = call_held(house, 0);
  leave(client);
  reply_text(house->held[0], "too late");
  client = call(house, 1, "Echo", text_message("x"));
  await(house, &client->ended, 1);
  assert_int_equal(house->gone, 0);
}

static void a_connection_that_says_nothing_is_ended(void **state) {
  struct house *house = *state;
  serve_impatient(house);
  raw_await_end(house, raw_connect(house));
}

static void a_connection_that_speaks_no_http2_is_ended(void **state) {
  struct house *house = *state;
  serve_usual(house);
  int fd = raw_connect(house);
  RAW_WRITE(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
  raw_await_end(house, fd);
}

static void a_client_that_answers_no_ping_is_gone(void **state) {
  struct house *house = *state;
  struct rpc_server_options options = usual_options();
  options.keepalive_ms = SHORT_MS;
  serve(house, &options);
  int fd = raw_connect(house);
  raw_call(fd, "/test.Service/Hold", 18);
  raw_part_of_request(fd);
  raw_rest_of_request(fd);
  await(house, &house->held_count, 1);
  send_text(house->held[0], "still there?");
  await(house, &house->gone, 1);
  close(fd);
}

// --- Streams -------------------------------------------------------------------------------

static void of_what_waits_only_the_latest_is_sent(void **state) {
  struct house *house = *state;
  serve_usual(house);
  struct client *client = call_held(house, 0);
  send_text(house->held[0], "one");
  send_text(house->held[0], "two");
  send_text(house->held[0], "three");
  await(house, &client->messages, 2);
  assert_string_equal(client->last, "three");
  send_text(house->held[0], "four");
  await(house, &client->messages, 3);
  assert_string_equal(client->last, "four");
  assert_int_equal(client->ended, 0);
  assert_int_equal(house->gone, 0);
}

static void a_client_that_reads_nothing_holds_one_message_up(void **state) {
  enum { LARGE = 4 << 20, TIMES = 20 };
  struct house *house = *state;
  uint8_t *large = malloc(LARGE);
  memset(large, 'x', LARGE);
  serve_usual(house);
  struct client *client = &house->clients[0];
  open_client(house, client, "Hold", text_message("x"), NULL, 0);
  await(house, &house->held_count, 1);
  struct client *other = &house->clients[1];
  for (int i = 0; i < TIMES; i++) {
    rpc_server_send(house->held[0], large, LARGE);
    other = call(house, 1, "Echo", text_message("x"));  // time goes by
    await(house, &other->ended, 1);
  }
  free(large);
  send_text(house->held[0], "the latest");
  client->read_on = true;
  stream_read(client->stream);
  while (strcmp(client->last, "the latest") != 0) {
    await(house, &client->messages, client->messages + 1);
  }
  assert_in_range(client->messages, 2, TIMES / 2);  // as far as the client's window went
}

static void a_stream_has_no_time_limit(void **state) {
  struct house *house = *state;
  serve_impatient(house);
  struct client *watcher = call_held(house, 0);
  send_text(house->held[0], "one");
  await(house, &watcher->messages, 1);
  // A call that begins later runs out of time meanwhile.
  struct client *other = call(house, 1, "Hold", NULL);
  await(house, &other->ended, 1);
  assert_int_equal(other->status, STREAM_DEADLINE_EXCEEDED);
  send_text(house->held[0], "two");
  await(house, &watcher->messages, 2);
  assert_int_equal(watcher->ended, 0);
}

static void a_watcher_that_leaves_is_told_to_the_owner(void **state) {
  struct house *house = *state;
  serve_usual(house);
  struct client *client = call_held(house, 0);
  send_text(house->held[0], "one");
  await(house, &client->messages, 1);
  leave(client);
  await(house, &house->gone, 1);
}

static void a_stream_ends_after_what_still_waits(void **state) {
  struct house *house = *state;
  serve_usual(house);
  struct client *failed = call_held(house, 0);
  send_text(house->held[0], "one");
  send_text(house->held[0], "two");
  rpc_server_fail(house->held[0], STREAM_UNAVAILABLE, "going away");
  await(house, &failed->ended, 1);
  assert_int_equal(failed->messages, 2);
  assert_string_equal(failed->last, "two");
  assert_int_equal(failed->status, STREAM_UNAVAILABLE);
  assert_string_equal(failed->detail, "going away");
  struct client *ended = call_held(house, 1);
  send_text(house->held[1], "one");
  send_text(house->held[1], "two");
  reply_text(house->held[1], "last");
  await(house, &ended->ended, 1);
  assert_int_equal(ended->status, STREAM_OK);
  assert_string_equal(ended->last, "last");
  assert_int_equal(house->gone, 0);
}

static void an_answer_that_is_not_taken_is_cut_in_time(void **state) {
  enum { LARGE = 4 << 20 };
  struct house *house = *state;
  uint8_t *large = malloc(LARGE);
  memset(large, 'x', LARGE);
  serve_impatient(house);
  int fd = raw_connect(house);
  raw_call(fd, "/test.Service/Hold", 18);
  raw_part_of_request(fd);
  raw_rest_of_request(fd);
  await(house, &house->held_count, 1);
  rpc_server_reply(house->held[0], large, LARGE);
  free(large);
  AWAIT(house, counts(house).cut > 0);
  assert_int_equal(counts(house).cut, 1);
  assert_int_equal(house->gone, 0);
  close(fd);
}

// --- The server's own beginning and end -----------------------------------------------------

static void freeing_the_server_gives_every_open_call_up(void **state) {
  struct house *house = *state;
  serve_usual(house);
  call(house, 0, "Hold", NULL);
  await_open(house, 1);
  call_held(house, 1);
  call_held(house, 2);
  call_held(house, 3);
  send_text(house->held[1], "one");
  send_text(house->held[1], "two");
  reply_text(house->held[2], "no longer open");
  int mute = raw_connect(house);
  int raw = raw_connect(house);
  raw_call(raw, "/test.Service/Hold", 18);
  raw_part_of_request(raw);
  await_open(house, 4);
  call(house, 4, "Echo", text_message("x"));  // not seen by the server yet
  rpc_server_free(house->server);
  house->server = NULL;
  assert_int_equal(house->gone, 4);
  for (int i = 0; i < 3; i++) {
    await(house, &house->clients[i].ended, 1);
    assert_int_not_equal(house->clients[i].status, STREAM_OK);
  }
  close(mute);
  close(raw);
}

static void a_server_may_be_freed_amid_thousands_of_calls(void **state) {
  enum { MANY = 2000 };
  struct house *house = *state;
  struct client *clients = calloc(MANY, sizeof *clients);
  struct rpc_server_options options = usual_options();
  options.calls_max = MANY;
  serve(house, &options);
  for (int i = 0; i < MANY; i++) {
    clients[i].read_on = true;
    open_client(house, &clients[i], "Echo", text_message("x"), NULL, 0);
  }
  await(house, &house->requests, MANY / 4);
  rpc_server_free(house->server);
  house->server = NULL;
  for (int i = 0; i < MANY; i++) {
    await(house, &clients[i].ended, 1);
  }
  free(clients);
}

static void a_freed_server_leaves_its_port(void **state) {
  struct house *house = *state;
  struct rpc_server_options options = usual_options();
  char address[32];
  serve(house, &options);
  struct client *client = call(house, 0, "Echo", text_message("x"));
  await(house, &client->ended, 1);
  snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(house->server));
  rpc_server_free(house->server);
  options.address = address;
  serve(house, &options);
  do {  // until the client has seen that its connection is gone
    client = call(house, 1, "Echo", text_message("x"));
    await(house, &client->ended, 1);
  } while (client->status != STREAM_OK);
  assert_int_equal(house->heads, 2);
}

static void a_port_in_use_is_an_error_that_says_so(void **state) {
  struct house *house = *state;
  static const struct rpc_server_events events = {on_head, on_request, on_gone};
  struct rpc_server_options options = usual_options();
  char address[32];
  char why[256] = "";
  serve(house, &options);
  snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(house->server));
  options.address = address;
  assert_null(rpc_server_new(house->base, &options, &events, house, why, sizeof why));
  assert_non_null(strstr(why, address));
  assert_non_null(strstr(why, "Address already in use"));
  // The first one is none the worse for it.
  struct client *client = call(house, 0, "Echo", text_message("x"));
  await(house, &client->ended, 1);
  assert_int_equal(client->status, STREAM_OK);
}

static void an_address_that_is_none_is_an_error(void **state) {
  struct house *house = *state;
  static const struct rpc_server_events events = {on_head, on_request, on_gone};
  struct rpc_server_options options = usual_options();
  char why[256] = "";
  options.address = "nowhere";
  assert_null(rpc_server_new(house->base, &options, &events, house, why, sizeof why));
  assert_non_null(strstr(why, "nowhere"));
  options.address = "192.0.2.1:0";  // nobody's
  assert_null(rpc_server_new(house->base, &options, &events, house, why, sizeof why));
  assert_non_null(strstr(why, "Cannot assign requested address"));
  rpc_server_free(NULL);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_call_is_answered),
      FACT(a_request_and_an_answer_may_be_empty),
      FACT(a_failure_has_its_status_and_detail),
      FACT(the_owner_sees_method_peer_and_metadata),
      FACT(a_peer_of_ipv6_stands_in_brackets),
      FACT(a_peer_of_ipv4_looks_so_on_every_address),
      FACT(a_call_refused_at_its_head_is_not_read),
      FACT(an_answer_may_come_later),
      FACT(a_call_may_be_failed_before_its_request_is_here),
      FACT(thousands_of_calls_at_once_are_answered),
      FACT(a_request_over_the_bound_is_refused),
      FACT(a_compressed_request_is_refused),
      FACT(a_request_that_does_not_come_is_given_up_in_time),
      FACT(a_request_may_come_in_parts),
      FACT(an_owner_that_does_not_answer_loses_the_call),
      FACT(a_call_without_a_request_is_refused),
      FACT(more_calls_than_allowed_are_refused_at_once),
      FACT(answers_that_are_not_taken_keep_further_calls_out),
      FACT(thousands_over_the_bound_are_all_refused),
      FACT(a_client_that_heeds_no_limit_and_reads_nothing_harms_no_other),
      FACT(a_path_with_a_nul_is_no_method),
      FACT(a_client_that_cancels_is_told_to_the_owner),
      FACT(an_answer_to_a_client_that_has_just_left_is_harmless),
      FACT(a_connection_that_says_nothing_is_ended),
      FACT(a_connection_that_speaks_no_http2_is_ended),
      FACT(a_client_that_answers_no_ping_is_gone),
      FACT(of_what_waits_only_the_latest_is_sent),
      FACT(a_client_that_reads_nothing_holds_one_message_up),
      FACT(a_stream_has_no_time_limit),
      FACT(a_watcher_that_leaves_is_told_to_the_owner),
      FACT(a_stream_ends_after_what_still_waits),
      FACT(an_answer_that_is_not_taken_is_cut_in_time),
      FACT(freeing_the_server_gives_every_open_call_up),
      FACT(a_server_may_be_freed_amid_thousands_of_calls),
      FACT(a_freed_server_leaves_its_port),
      FACT(a_port_in_use_is_an_error_that_says_so),
      FACT(an_address_that_is_none_is_an_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
