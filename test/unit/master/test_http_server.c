#include "master/http_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/loop.h"
#include "test/unit/http_client.h"

// A server and its clients on one loop. /hello, /echo and /large answer at once; /later keeps
// the request for the test to answer; /guarded lets in who shows the pass.

enum {
  CLIENTS = 12,
  CONNECTIONS_MAX = 8,
  PER_ADDRESS = 8,
  ECHO_BYTES = 100000,
  LARGE_BYTES = 8 << 20,
  LONG_MS = 600000,
  HELD_MAX = 8,
  DISCARDED_BYTES = 64 << 10,  // of a refused body
};

// So little that a test can wait for it, and more with slow builds.
static int64_t short_ms(void) {
  const char *factor = getenv("JANUS_TEST_PATIENCE");
  return 300 * (factor ? atoi(factor) : 1);
}

struct house {
  struct event_base *base;
  struct http_server *server;
  int port;
  struct http_client clients[CLIENTS];
  struct http_request *held[HELD_MAX];
  int held_count;
  int gone;
  int too_large;
  int guarded;  // requests that have passed
  char seen[4][64];
};

// --- The owner -----------------------------------------------------------------------

static void note(char *into, const char *text) { snprintf(into, 64, "%s", text ? text : "(none)"); }

static void on_hello(struct http_request *request, void *owner) {
  struct house *house = owner;
  note(house->seen[0], http_request_path(request));
  note(house->seen[1], http_request_peer(request));
  note(house->seen[2], http_request_header(request, "X-One"));
  note(house->seen[3], http_request_header(request, "x-two"));
  assert_null(http_request_context(request));
  http_request_answer(request, 200, "text/plain", "hello", 5);
}

static void on_echo(struct http_request *request, void *owner) {
  size_t len;
  const char *body = http_request_body(request, &len);
  (void)owner;
  http_request_add_header(request, "X-Echo", "yes");
  http_request_answer(request, 200, "application/octet-stream", body, len);
}

static void on_large(struct http_request *request, void *owner) {
  char *text = calloc(1, LARGE_BYTES);
  (void)owner;
  http_request_answer(request, 200, "text/plain", text, LARGE_BYTES);
  free(text);
}

static void on_later(struct http_request *request, void *owner) {
  struct house *house = owner;
  assert_in_range(house->held_count, 0, HELD_MAX - 1);
  http_request_set_context(request, house);
  house->held[house->held_count++] = request;
}

// Answers the others from inside.
static void on_release(struct http_request *request, void *owner) {
  struct house *house = owner;
  http_request_answer(request, 200, "text/plain", "done", 4);
  for (int i = 0; i < house->held_count; i++) {
    http_request_answer(house->held[i], 200, "text/plain", "released", 8);
  }
}

static void on_gone(struct http_request *request, void *owner) {
  struct house *house = owner;
  assert_ptr_equal(http_request_context(request), house);
  house->gone++;
}

static void on_guarded_head(struct http_request *request, void *owner) {
  const char *pass = http_request_header(request, "X-Pass");
  (void)owner;
  if (!pass || strcmp(pass, "right") != 0) {
    http_request_fail(request, 403, "no \"pass\"");
  }
}

static void on_guarded(struct http_request *request, void *owner) {
  ((struct house *)owner)->guarded++;
  http_request_answer(request, 200, "text/plain", "in", 2);
}

static void on_too_large(struct http_request *request, void *owner) {
  (void)request;
  ((struct house *)owner)->too_large++;
}

// --- The house -----------------------------------------------------------------------

static struct http_server *server_new(struct house *house, const char *address, int64_t timeout_ms,
                                      char *why, size_t why_size) {
  static const struct http_rules echo = {.body_bytes = ECHO_BYTES, .on_too_large = on_too_large};
  static const struct http_rules later = {.body_bytes = ECHO_BYTES, .on_gone = on_gone};
  static const struct http_rules guarded = {
      .body_bytes = 8 << 20, .on_head = on_guarded_head, .on_too_large = on_too_large};
  const struct http_route routes[] = {
      {"/hello", "GET", on_hello, NULL, house},
      {"/hello", "DELETE", on_hello, NULL, house},
      {"/large", "GET", on_large, NULL, house},
      {"/later", "GET", on_later, &later, house},
      {"/later", "POST", on_later, &later, house},
      {"/echo", "POST", on_echo, &echo, house},
      {"/guarded", "POST", on_guarded, &guarded, house},
      {"/release", "GET", on_release, NULL, house},
  };
  const struct http_server_options options = {.address = address,
                                              .connections_max = CONNECTIONS_MAX,
                                              .connections_per_address = PER_ADDRESS,
                                              .timeout_ms = timeout_ms,
                                              .routes = routes,
                                              .route_count = sizeof routes / sizeof routes[0]};
  return http_server_new(house->base, &options, why, why_size);
}

static int port_of(const struct http_server *server) {
  return atoi(strrchr(http_server_address(server), ':') + 1);
}

static void open_house(struct house *house, int64_t timeout_ms) {
  char why[200] = "";
  house->server = server_new(house, "127.0.0.1:0", timeout_ms, why, sizeof why);
  assert_string_equal(why, "");
  assert_non_null(house->server);
  house->port = port_of(house->server);
}

static int set_up_with(void **state, int64_t timeout_ms) {
  struct house *house = calloc(1, sizeof *house);
  signal(SIGPIPE, SIG_IGN);  // as the master does
  house->base = event_base_new();
  open_house(house, timeout_ms);
  *state = house;
  return 0;
}

static int set_up(void **state) { return set_up_with(state, LONG_MS); }
static int set_up_in_haste(void **state) { return set_up_with(state, short_ms()); }

static int tear_down(void **state) {
  struct house *house = *state;
  for (int i = 0; i < CLIENTS; i++) {
    http_client_close(&house->clients[i]);
  }
  http_server_free(house->server);
  loop_free(house->base);
  free(house);
  return 0;
}

static struct http_client *client(struct house *house, int number) {
  struct http_client *client = &house->clients[number];
  if (!client->buffer) {
    http_client_open(client, house->base, house->port);
  }
  return client;
}

static struct http_server_counts counts(const struct house *house) {
  struct http_server_counts counts;
  http_server_counts(house->server, &counts);
  return counts;
}

static void expect(struct http_client *client, int status, const char *body) {
  struct http_reply reply = http_client_wait(client);
  assert_int_equal(reply.status, status);
  assert_string_equal(reply.body, body);
  free(reply.body);
}

static void expect_error(struct http_client *client, int status, const char *error) {
  struct http_reply reply = http_client_wait(client);
  char wanted[200];
  char type[64];
  snprintf(wanted, sizeof wanted, "{\"error\":\"%s\"}", error);
  assert_int_equal(reply.status, status);
  assert_string_equal(reply.body, wanted);
  assert_string_equal(http_reply_header(&reply, "content-type", type, sizeof type),
                      "application/json");
  free(reply.body);
}

static void expect_status(struct http_client *client, int status) {
  struct http_reply reply = http_client_wait(client);
  assert_int_equal(reply.status, status);
  free(reply.body);
}

// The connection is open, and serves.
static void expect_alive(struct http_client *client) {
  http_client_send(client, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  expect(client, 200, "hello");
}

static void expect_closed(struct http_client *client) {
  http_client_wait_end(client);
  assert_true(http_client_has_nothing(client));
}

static void wait_held(struct house *house, int count) {
  HTTP_CLIENT_WAIT(house->base, house->held_count == count);
}

static void answer_held(struct house *house, int number, const char *text) {
  http_request_answer(house->held[number], 200, "text/plain", text, strlen(text));
}

static void send_many(struct http_client *client, char byte, size_t len) {
  char *bytes = malloc(len);
  memset(bytes, byte, len);
  http_client_send_bytes(client, bytes, len);
  free(bytes);
}

// --- Requests and answers ------------------------------------------------------------

static void an_answer_comes_with_its_type_and_the_connection_goes_on(void **state) {
  struct house *house = *state;
  struct http_reply reply;
  char text[64];
  for (int i = 0; i < 3; i++) {
    http_client_send(client(house, 0), "GET /hello?x=1 HTTP/1.1\r\nHost: x\r\nx-one: 1 2\r\n\r\n");
    reply = http_client_wait(client(house, 0));
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body, "hello");
    assert_string_equal(http_reply_header(&reply, "content-type", text, sizeof text), "text/plain");
    assert_null(http_reply_header(&reply, "connection", text, sizeof text));
    free(reply.body);
  }
  assert_int_equal(counts(house).connections, 1);
}

static void a_request_is_given_with_its_path_peer_and_headers(void **state) {
  struct house *house = *state;
  http_client_send(client(house, 0), "GET /hello?x=1 HTTP/1.1\r\nHost: x\r\nx-one:  1 2\r\n\r\n");
  expect(client(house, 0), 200, "hello");
  assert_string_equal(house->seen[0], "/hello");
  assert_int_equal(strncmp(house->seen[1], "127.0.0.1:", 10), 0);
  assert_string_equal(house->seen[2], "1 2");
  assert_string_equal(house->seen[3], "(none)");
}

static void head_is_get_without_the_body(void **state) {
  struct house *house = *state;
  struct http_reply reply;
  char text[64];
  http_client_send(client(house, 0), "HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  HTTP_CLIENT_WAIT(house->base, http_client_take(client(house, 0), &reply, true));
  assert_int_equal(reply.status, 200);
  assert_string_equal(http_reply_header(&reply, "content-length", text, sizeof text), "5");
  free(reply.body);
  expect_alive(client(house, 0));
}

static void expect_allow(struct http_client *client, int status, const char *allow) {
  char text[128] = "";
  struct http_reply reply = http_client_wait(client);
  assert_int_equal(reply.status, status);
  http_reply_header(&reply, "allow", text, sizeof text);
  assert_string_equal(text, allow);
  free(reply.body);
}

static void options_tells_the_methods(void **state) {
  struct house *house = *state;
  http_client_send(client(house, 0), "OPTIONS /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  expect_allow(client(house, 0), 204, "OPTIONS, GET, HEAD, DELETE");
  http_client_send(client(house, 0), "OPTIONS /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  expect_allow(client(house, 0), 204, "OPTIONS, POST");
  http_client_send(client(house, 0), "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
  expect_allow(client(house, 0), 204, "OPTIONS, GET, HEAD, DELETE, POST");
  http_client_send(client(house, 0), "OPTIONS /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
  expect_error(client(house, 0), 404, "there is no such path");
  expect_alive(client(house, 0));
}

static void what_is_not_in_the_table_is_refused_and_the_connection_goes_on(void **state) {
  static const char *const paths[] = {"/nowhere", "/",     "/hello/", "//hello",  "/HELLO",
                                      "/hell",    "hello", "*",       "/%00hello"};
  struct house *house = *state;
  char text[128];
  for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
    bool all = strcmp(paths[i], "*") == 0;
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", paths[i]);
    http_client_send(client(house, 0), text);
    expect_status(client(house, 0), all ? 405 : 404);
  }
  http_client_send(client(house, 0), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  expect_allow(client(house, 0), 405, "OPTIONS, POST");
  http_client_send(client(house, 0), "BREW /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  expect_allow(client(house, 0), 405, "OPTIONS, GET, HEAD, DELETE");
  http_client_send(client(house, 0),
                   "POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
  expect_error(client(house, 0), 405, "the path does not have this method");
  expect_alive(client(house, 0));
}

static void a_body_is_given_whole(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  http_client_send(one, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
  expect(one, 200, "abc");
  http_client_send(one, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
  expect(one, 200, "");
  http_client_send(one, "POST /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  expect(one, 200, "");
  http_client_send(one,
                   "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
                   "3\r\nabc\r\n00a;x=y\r\n0123456789\r\n0\r\nTrailer: z\r\n\r\n");
  expect(one, 200, "abc0123456789");
  expect_alive(one);
}

static void a_body_may_come_byte_by_byte(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  const char *texts[] = {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nabcdefghijkl",
                         "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                         "c\r\nabcdefghijkl\r\n0\r\n\r\n"};
  for (size_t i = 0; i < 2; i++) {
    for (const char *at = texts[i]; *at; at++) {
      http_client_send_bytes(one, at, 1);
      event_base_loop(house->base, EVLOOP_ONCE);
      event_base_loop(house->base, EVLOOP_NONBLOCK);
    }
    expect(one, 200, "abcdefghijkl");
  }
}

static void large_bodies_and_answers_get_through(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  char head[128];
  for (int chunked = 0; chunked < 2; chunked++) {
    snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s",
             chunked ? "Transfer-Encoding: chunked" : "Content-Length: 100000",
             chunked ? "186a0\r\n" : "");
    http_client_send(one, head);
    send_many(one, 'x', ECHO_BYTES);
    http_client_send(one, chunked ? "\r\n0\r\n\r\n" : "");
    struct http_reply reply = http_client_wait(one);
    assert_int_equal(reply.status, 200);
    assert_int_equal(reply.len, ECHO_BYTES);
    assert_int_equal(strspn(reply.body, "x"), ECHO_BYTES);
    free(reply.body);
  }
  http_client_send(one, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
  struct http_reply reply = http_client_wait(one);
  assert_int_equal(reply.len, LARGE_BYTES);
  free(reply.body);
}

static void who_waits_for_it_is_told_to_send_the_body(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  http_client_send(one,
                   "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                   "Expect: 100-continue\r\n\r\n");
  expect(one, 100, "");
  http_client_send(one, "abc");
  expect(one, 200, "abc");
}

static void pipelined_requests_are_answered_in_order(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  http_client_send(one,
                   "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"
                   "GET /later HTTP/1.1\r\nHost: x\r\n\r\n"
                   "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n3"
                   "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
                   "POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxx"
                   "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  expect(one, 200, "1");
  wait_held(house, 1);
  assert_true(http_client_has_nothing(one));
  answer_held(house, 0, "2");
  expect(one, 200, "2");
  expect(one, 200, "3");
  expect_status(one, 404);
  wait_held(house, 2);
  answer_held(house, 1, "5");
  expect(one, 200, "5");
  expect(one, 200, "hello");
}

static void a_thousand_pipelined_requests_hold_nobody_up(void **state) {
  struct house *house = *state;
  for (int i = 0; i < 1000; i++) {
    http_client_send(client(house, 0), "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  expect(client(house, 0), 200, "hello");
  expect_alive(client(house, 1));
  for (int i = 1; i < 1000; i++) {
    expect(client(house, 0), 200, "hello");
  }
}

static void http_1_0_is_closed_unless_it_asks(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  http_client_send(one,
                   "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc");
  expect(one, 200, "abc");
  http_client_send(one, "GET /hello HTTP/1.0\r\n\r\n");
  expect(one, 200, "hello");
  expect_closed(one);
  http_client_send(client(house, 1), "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  expect(client(house, 1), 200, "hello");
  expect_closed(client(house, 1));
}

static void a_client_that_has_shut_its_side_gets_its_answer(void **state) {
  struct house *house = *state;
  int fd = http_client_socket(house->port);
  static const char text[] = "GET /later HTTP/1.1\r\nHost: x\r\n\r\n";
  assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
  shutdown(fd, SHUT_WR);
  http_client_on(&house->clients[0], house->base, fd);
  wait_held(house, 1);
  answer_held(house, 0, "late");
  expect(client(house, 0), 200, "late");
  expect_closed(client(house, 0));
}

// --- What is refused -----------------------------------------------------------------

static void a_body_over_the_bound_is_refused(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  http_client_send(one, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n");
  send_many(one, 'x', ECHO_BYTES + 1);
  expect_error(one, 413, "the body is longer than 100000 bytes");
  http_client_send(one, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n");
  send_many(one, 'x', 2 * ECHO_BYTES);
  expect_error(one, 413, "the body is longer than 100000 bytes");
  expect_alive(one);
  http_client_send(one,
                   "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n186a1\r\n");
  send_many(one, 'x', ECHO_BYTES + 1);
  http_client_send(one, "\r\n0\r\n\r\n");
  expect_error(one, 413, "the body is longer than 100000 bytes");
  expect_alive(one);
  http_client_send(one, "GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
  expect_error(one, 413, "the body is longer than 0 bytes");
  expect_alive(one);
  assert_int_equal(house->too_large, 3);
}

static void a_body_far_over_the_bound_is_not_read(void **state) {
  struct house *house = *state;
  static const char *const lengths[] = {"10000000", "9223372036854775807", "9223372036854775808",
                                        "18446744073709551615"};
  char text[128];
  for (int i = 0; i < 4; i++) {
    struct http_client *one = client(house, i);
    snprintf(text, sizeof text, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\nxx",
             lengths[i]);
    http_client_send(one, text);
    expect_error(one, 413, "the body is longer than 100000 bytes");
    expect_closed(one);
  }
  assert_int_equal(house->too_large, 4);
}

static void an_endless_body_is_cut(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  http_client_send(
      one, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n");
  send_many(one, 'x', 3 * ECHO_BYTES + 2 * DISCARDED_BYTES);
  expect_closed(one);
  assert_int_equal(house->too_large, 1);
}

static void who_is_refused_by_the_head_is_told_before_the_body(void **state) {
  struct house *house = *state;
  static const char *const bodies[] = {
      "Content-Length: 100\r\nExpect: 100-continue\r\n",
      "Content-Length: 5000000\r\n",
      "Transfer-Encoding: chunked\r\n",
  };
  char text[256];
  for (int i = 0; i < 3; i++) {
    struct http_client *one = client(house, i);
    snprintf(text, sizeof text, "POST /guarded HTTP/1.1\r\nHost: x\r\n%s\r\n", bodies[i]);
    http_client_send(one, text);
    expect_error(one, 403, "no \\\"pass\\\"");
    expect_closed(one);
  }
  assert_int_equal(house->guarded, 0);
}

static void a_small_body_is_read_so_that_the_refusal_gets_through(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  http_client_send(one, "POST /guarded HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n");
  send_many(one, 'x', DISCARDED_BYTES);
  expect_status(one, 403);
  expect_alive(one);
  http_client_send(one, "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n");
  send_many(one, 'x', DISCARDED_BYTES);
  expect_status(one, 404);
  http_client_send(one,
                   "POST /guarded HTTP/1.1\r\nHost: x\r\nx-pass: right\r\n"
                   "Content-Length: 5000000\r\n\r\n");
  send_many(one, 'x', 5000000);
  expect(one, 200, "in");
  assert_int_equal(house->guarded, 1);
  expect_alive(one);
}

static void a_length_that_can_be_read_in_two_ways_is_refused(void **state) {
  struct house *house = *state;
  static const struct {
    const char *headers;
    int status;
  } cases[] = {
      {"Content-Length: 3\r\nContent-Length: 4\r\n", 400},
      {"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400},
      {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400},
      {"Transfer-Encoding: gzip, chunked\r\n", 501},
      {"Transfer-Encoding: identity\r\n", 501},
      {"Content-Length: x\r\n", 400},
      {"Content-Length: -1\r\n", 400},
      {"Content-Length: 3, 3\r\n", 400},
      {"Content-Length: 99999999999999999999\r\n", 413},
  };
  char text[256];
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct http_client one;
    http_client_open(&one, house->base, house->port);
    snprintf(text, sizeof text, "POST /echo HTTP/1.1\r\nHost: x\r\n%s\r\nabc", cases[i].headers);
    http_client_send(&one, text);
    expect_status(&one, cases[i].status);
    http_client_wait_end(&one);
    http_client_close(&one);
  }
}

static void garbage_is_answered_or_cut(void **state) {
  struct house *house = *state;
  static const char *const texts[] = {
      "GET\r\n\r\n",
      "GET /hello\r\n\r\n",
      "GET /hello HTTP/2.0\r\n\r\n",
      "GET /hello HTTP/0.9\r\n\r\n",
      "GET /hello HTTP/1.1x\r\n\r\n",
      "GET /hello HTTP/1.1\r\nno colon\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      "\x16\x03\x01\x02\x02\x01\r\n\r\n",
      "{\"method\":\"status\"}\n\n",
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n",
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "fffffffffffffffff\r\nabc\r\n",
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
      " GET /hello HTTP/1.1\r\n\r\n",
  };
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    struct http_client one;
    http_client_open(&one, house->base, house->port);
    http_client_send(&one, texts[i]);
    HTTP_CLIENT_WAIT(house->base, one.ended || !http_client_has_nothing(&one));
    http_client_close(&one);
  }
  expect_alive(client(house, 0));
}

static void a_head_that_is_too_long_is_refused(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  http_client_send(one, "GET /hello HTTP/1.1\r\nHost: x\r\nx-long: ");
  send_many(one, 'x', 40000);
  expect_status(one, 431);
  http_client_wait_end(one);
  one = client(house, 1);
  http_client_send(one, "GET /");
  send_many(one, 'x', 40000);
  expect_status(one, 414);
  http_client_wait_end(one);
  expect_alive(client(house, 2));
}

// --- Later ---------------------------------------------------------------------------

static void an_answer_may_come_later_and_the_loop_rests_meanwhile(void **state) {
  struct house *house = *state;
  http_client_send(client(house, 0), "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  http_client_send(client(house, 1),
                   "POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
  wait_held(house, 2);
  assert_int_equal(counts(house).waiting, 2);
  http_client_turn_for(house->base, 20);
  assert_in_range(http_client_turn_for(house->base, 300), 1, 3);
  expect_alive(client(house, 2));
  answer_held(house, 1, "one");
  answer_held(house, 0, "two");
  assert_int_equal(counts(house).waiting, 0);
  expect(client(house, 0), 200, "two");
  expect(client(house, 1), 200, "one");
  expect_alive(client(house, 0));
  expect_alive(client(house, 1));
  http_client_turn_for(house->base, 20);
  assert_in_range(http_client_turn_for(house->base, 300), 1, 3);
  assert_int_equal(house->gone, 0);
}

static void one_request_may_answer_others(void **state) {
  struct house *house = *state;
  for (int i = 0; i < 3; i++) {
    http_client_send(client(house, i), "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  wait_held(house, 3);
  http_client_send(client(house, 3), "GET /release HTTP/1.1\r\nHost: x\r\n\r\n");
  for (int i = 0; i < 3; i++) {
    expect(client(house, i), 200, "released");
  }
  expect(client(house, 3), 200, "done");
}

static void a_later_answer_has_its_headers(void **state) {
  struct house *house = *state;
  char text[32];
  http_client_send(client(house, 0), "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  wait_held(house, 1);
  http_request_add_header(house->held[0], "Retry-After", "1");
  http_request_fail(house->held[0], 503, "wait");
  struct http_reply reply = http_client_wait(client(house, 0));
  assert_int_equal(reply.status, 503);
  assert_string_equal(http_reply_header(&reply, "retry-after", text, sizeof text), "1");
  assert_string_equal(reply.body, "{\"error\":\"wait\"}");
  free(reply.body);
}

static void a_client_may_leave_before_its_answer(void **state) {
  struct house *house = *state;
  struct linger at_once = {.l_onoff = 1};
  for (int i = 0; i < 4; i++) {
    http_client_send(client(house, i), "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  wait_held(house, 4);
  // Two say so, and two break off.
  setsockopt(bufferevent_getfd(client(house, 2)->buffer), SOL_SOCKET, SO_LINGER, &at_once,
             sizeof at_once);
  setsockopt(bufferevent_getfd(client(house, 3)->buffer), SOL_SOCKET, SO_LINGER, &at_once,
             sizeof at_once);
  for (int i = 0; i < 4; i++) {
    http_client_close(&house->clients[i]);
  }
  http_client_turn_for(house->base, 20);
  for (int i = 0; i < 4; i++) {
    answer_held(house, i, "nobody hears this");
  }
  HTTP_CLIENT_WAIT(house->base, counts(house).connections == 0);
  assert_int_equal(house->gone, 0);
  expect_alive(client(house, 5));
}

static void a_client_may_leave_at_any_time(void **state) {
  struct house *house = *state;
  static const char text[] =
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n012345678";
  for (size_t len = 0; len < sizeof text; len++) {
    http_client_send_bytes(client(house, 0), text, len);
    http_client_turn_for(house->base, 1);
    http_client_close(&house->clients[0]);
    HTTP_CLIENT_WAIT(house->base, counts(house).connections == 0);
  }
}

// --- Time ----------------------------------------------------------------------------

static void an_owner_who_takes_too_long_is_taken_the_request(void **state) {
  struct house *house = *state;
  http_client_send(client(house, 0), "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  wait_held(house, 1);
  expect_error(client(house, 0), 504, "it takes too long");
  assert_int_equal(house->gone, 1);
  assert_int_equal(counts(house).late, 1);
  assert_int_equal(counts(house).waiting, 0);
  expect_alive(client(house, 0));
}

static void who_is_silent_is_cut(void **state) {
  struct house *house = *state;
  static const char *const texts[] = {
      "",
      "GET /he",
      "GET /hello HTTP/1.1\r\nHost: x\r\n",
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
      "POST /guarded HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabc"};
  for (int i = 0; i < 6; i++) {
    http_client_send(client(house, i), texts[i]);
  }
  expect_alive(client(house, 6));
  for (int i = 0; i < 7; i++) {
    expect_closed(client(house, i));
  }
  assert_int_equal(counts(house).cut, 7);
  assert_int_equal(counts(house).connections, 0);
}

// Sends the text a byte at a time, never silent for long, and says whether it came through.
static bool drips_through(struct house *house, struct http_client *client, const char *text) {
  for (const char *at = text; *at && !client->ended; at++) {
    http_client_send_bytes(client, at, 1);
    http_client_turn_for(house->base, short_ms() / 10);
  }
  return !client->ended;
}

static void who_drips_is_cut_all_the_same(void **state) {
  struct house *house = *state;
  assert_false(drips_through(house, client(house, 0), "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"));
  http_client_send(client(house, 1),
                   "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n");
  assert_false(drips_through(house, client(house, 1), "0123456789012345678901234567890123456789"));
  assert_int_equal(counts(house).cut, 2);
}

static void who_does_not_read_is_cut(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  bufferevent_disable(one->buffer, EV_READ);
  http_client_send(one, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
  HTTP_CLIENT_WAIT(house->base, counts(house).cut == 1 && counts(house).connections == 0);
}

static void each_request_has_its_own_time(void **state) {
  struct house *house = *state;
  for (int i = 0; i < 8; i++) {
    expect_alive(client(house, 0));
    http_client_turn_for(house->base, short_ms() / 2);
  }
}

// --- Bounds --------------------------------------------------------------------------

static void more_connections_wait_until_there_is_room(void **state) {
  struct house *house = *state;
  for (int i = 0; i < CONNECTIONS_MAX; i++) {
    expect_alive(client(house, i));
  }
  http_client_send(client(house, 8), "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  http_client_send(client(house, 9), "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  http_client_turn_for(house->base, 50);
  assert_in_range(http_client_turn_for(house->base, 300), 1, 3);
  assert_true(http_client_has_nothing(client(house, 8)));
  assert_int_equal(counts(house).connections, CONNECTIONS_MAX);
  http_client_close(&house->clients[0]);
  expect(client(house, 8), 200, "hello");
  assert_true(http_client_has_nothing(client(house, 9)));
  http_client_close(&house->clients[1]);
  expect(client(house, 9), 200, "hello");
  assert_int_equal(counts(house).refused, 0);
}

static void too_many_from_one_address_are_closed(void **state) {
  struct house *house = *state;
  const struct http_route route = {"/hello", "GET", on_hello, NULL, house};
  const struct http_server_options options = {.address = "127.0.0.1:0",
                                              .connections_max = 8,
                                              .connections_per_address = 2,
                                              .timeout_ms = LONG_MS,
                                              .routes = &route,
                                              .route_count = 1};
  char why[200];
  http_server_free(house->server);
  house->server = http_server_new(house->base, &options, why, sizeof why);
  house->port = port_of(house->server);
  expect_alive(client(house, 0));
  expect_alive(client(house, 1));
  expect_closed(client(house, 2));
  assert_int_equal(counts(house).refused, 1);
  http_client_close(&house->clients[0]);
  HTTP_CLIENT_WAIT(house->base, counts(house).connections == 1);
  expect_alive(client(house, 3));
}

static void without_descriptors_it_waits_and_does_not_spin(void **state) {
  struct house *house = *state;
  struct rlimit before;
  struct rlimit none;
  int fd = http_client_socket(house->port);
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  none = before;
  none.rlim_cur = (rlim_t)fd + 1;
  http_client_on(&house->clients[0], house->base, fd);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
  http_client_send(client(house, 0), "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  int turns = http_client_turn_for(house->base, 1000);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
  assert_in_range(turns, 5, 40);
  expect(client(house, 0), 200, "hello");
}

// --- Beginning and end ---------------------------------------------------------------

static void it_may_be_freed_with_all_of_it_under_way(void **state) {
  struct house *house = *state;
  http_client_send(client(house, 0), "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  http_client_send(client(house, 1),
                   "POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
  http_client_send(client(house, 2),
                   "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na");
  http_client_send(client(house, 3), "GET /he");
  http_client_send(client(house, 4), "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  bufferevent_disable(client(house, 5)->buffer, EV_READ);
  http_client_send(client(house, 5), "GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
  expect_alive(client(house, 6));
  wait_held(house, 3);
  http_client_turn_for(house->base, 20);
  // Its answer is not out yet.
  answer_held(house, 2, "x");
  http_server_free(house->server);
  house->server = NULL;
  assert_int_equal(house->gone, 2);
  for (int i = 0; i < 5; i++) {
    expect_closed(client(house, i));
  }
}

static void no_server_is_no_fault(void **state) {
  (void)state;
  http_server_free(NULL);
}

static void it_says_why_it_can_not_listen(void **state) {
  struct house *house = *state;
  static const char *const addresses[] = {"127.0.0.1", "127.0.0.1:x", "192.0.2.7:0", ""};
  char why[200];
  char wanted[64];
  for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
    why[0] = '\0';
    assert_null(server_new(house, addresses[i], LONG_MS, why, sizeof why));
    assert_string_not_equal(why, "");
  }
  snprintf(wanted, sizeof wanted, "127.0.0.1:%d", house->port);
  assert_null(server_new(house, wanted, LONG_MS, why, sizeof why));
  assert_non_null(strstr(why, "Address already in use"));
  assert_non_null(strstr(why, wanted));
}

static void it_listens_on_ipv6_and_on_every_address(void **state) {
  struct house *house = *state;
  static const char *const addresses[] = {":0", "0.0.0.0:0", "localhost:0", "[::]:0"};
  char why[200];
  for (size_t i = 0; i < 4; i++) {
    http_server_free(house->server);
    house->server = server_new(house, addresses[i], LONG_MS, why, sizeof why);
    assert_non_null(house->server);
    house->port = port_of(house->server);
    assert_in_range(house->port, 1, 65535);
    if (strncmp(http_server_address(house->server), "[::1]", 5) != 0) {
      expect_alive(client(house, 0));
      assert_int_equal(strncmp(house->seen[1], "127.0.0.1:", 10), 0);
      http_client_close(&house->clients[0]);
    }
  }
  http_server_free(house->server);
  house->server = server_new(house, "[::1]:0", LONG_MS, why, sizeof why);
  assert_non_null(house->server);
  assert_int_equal(strncmp(http_server_address(house->server), "[::1]:", 6), 0);
  struct sockaddr_in6 address = {.sin6_family = AF_INET6,
                                 .sin6_port = htons((uint16_t)port_of(house->server)),
                                 .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
  http_client_on(&house->clients[0], house->base, fd);
  expect_alive(client(house, 0));
  assert_int_equal(strncmp(house->seen[1], "[::1]:", 6), 0);
}

static void nobody_else_can_listen_there(void **state) {
  struct house *house = *state;
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)house->port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), -1);
  close(fd);
}

static void its_descriptors_are_closed_when_a_worker_is_started(void **state) {
  struct house *house = *state;
  bool inherited[256];
  for (int fd = 0; fd < 256; fd++) {
    inherited[fd] = fcntl(fd, F_GETFD) >= 0;
  }
  char why[200];
  struct http_server *other = server_new(house, "127.0.0.1:0", LONG_MS, why, sizeof why);
  int port = house->port;
  house->port = port_of(other);
  expect_alive(client(house, 0));
  house->port = port;
  for (int fd = 0; fd < 256; fd++) {
    int flags = fcntl(fd, F_GETFD);
    if (!inherited[fd] && flags >= 0 && !(flags & FD_CLOEXEC)) {
      fail_msg("descriptor %d would be inherited", fd);
    }
  }
  http_server_free(other);
}

int main(void) {
#define FACT(test)     cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define IN_HASTE(test) cmocka_unit_test_setup_teardown(test, set_up_in_haste, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(an_answer_comes_with_its_type_and_the_connection_goes_on),
      FACT(a_request_is_given_with_its_path_peer_and_headers),
      FACT(head_is_get_without_the_body),
      FACT(options_tells_the_methods),
      FACT(what_is_not_in_the_table_is_refused_and_the_connection_goes_on),
      FACT(a_body_is_given_whole),
      FACT(a_body_may_come_byte_by_byte),
      FACT(large_bodies_and_answers_get_through),
      FACT(who_waits_for_it_is_told_to_send_the_body),
      FACT(pipelined_requests_are_answered_in_order),
      FACT(a_thousand_pipelined_requests_hold_nobody_up),
      FACT(http_1_0_is_closed_unless_it_asks),
      FACT(a_client_that_has_shut_its_side_gets_its_answer),
      FACT(a_body_over_the_bound_is_refused),
      FACT(a_body_far_over_the_bound_is_not_read),
      FACT(an_endless_body_is_cut),
      FACT(who_is_refused_by_the_head_is_told_before_the_body),
      FACT(a_small_body_is_read_so_that_the_refusal_gets_through),
      FACT(a_length_that_can_be_read_in_two_ways_is_refused),
      FACT(garbage_is_answered_or_cut),
      FACT(a_head_that_is_too_long_is_refused),
      FACT(an_answer_may_come_later_and_the_loop_rests_meanwhile),
      FACT(one_request_may_answer_others),
      FACT(a_later_answer_has_its_headers),
      FACT(a_client_may_leave_before_its_answer),
      FACT(a_client_may_leave_at_any_time),
      IN_HASTE(an_owner_who_takes_too_long_is_taken_the_request),
      IN_HASTE(who_is_silent_is_cut),
      IN_HASTE(who_drips_is_cut_all_the_same),
      IN_HASTE(who_does_not_read_is_cut),
      IN_HASTE(each_request_has_its_own_time),
      FACT(more_connections_wait_until_there_is_room),
      FACT(too_many_from_one_address_are_closed),
      FACT(without_descriptors_it_waits_and_does_not_spin),
      FACT(it_may_be_freed_with_all_of_it_under_way),
      FACT(no_server_is_no_fault),
      FACT(it_says_why_it_can_not_listen),
      FACT(it_listens_on_ipv6_and_on_every_address),
      FACT(nobody_else_can_listen_there),
      FACT(its_descriptors_are_closed_when_a_worker_is_started),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
