#include "master/operations_http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <signal.h>
#include <sodium.h>
#include <unistd.h>

#include "common/error.h"
#include "common/loop.h"
#include "common/packet.h"
#include "master/directory.h"
#include "test/unit/http_client.h"

// The port before a real hub, and clients, on one loop. Player 1 and 2 are here, player 11 at
// another gateway, and of player 12 it is found out when the test says so; nobody else is
// anywhere.

enum { LONG_MS = 600000, HERE = 1, ALSO_HERE = 2, ELSEWHERE = 11, ASKED_FOR = 12, NOWHERE = 99 };

struct question {
  void (*on_found)(int error, const char *address, int64_t ttl_ms, void *context);
  void *context;
};

struct publication {
  void (*on_published)(int64_t receivers, void *context);
  void *context;
};

struct house {
  struct event_base *base;
  struct config config;
  struct secrets secrets;
  struct counters counters;
  struct push_access access;
  struct directory *directory;
  struct push_hub *hub;
  struct operations_http *operations;
  struct http_client clients[3];
  bool full;                 // the worker's channel takes no more
  int64_t listeners;         // that get what is published at once; negative: asked for later
  int sent;                  // to the worker
  struct channel_push push;  // the last of them
  char data[64];             // its data, as text
  char topic[64];
  struct question question;
  struct publication publication;
};

// --- What is around the hub ----------------------------------------------------------

static int on_send(int worker, const struct channel_push *push, const uint64_t *receivers,
                   const uint8_t *bytes, void *owner) {
  struct house *house = owner;
  struct packet packet;
  (void)receivers;
  assert_int_equal(worker, 0);
  house->sent++;
  house->push = *push;
  assert_int_equal(packet_decode(&packet, bytes, push->packet_bytes), 0);
  snprintf(house->data, sizeof house->data, "%.*s", (int)packet.data_len,
           (const char *)packet.data);
  return 0;
}

static size_t on_room(int worker, void *owner) {
  const struct house *house = owner;
  (void)worker;
  return house->full ? 0 : CHANNEL_PUSHES_MAX_BYTES;
}

static int on_find(int64_t uid, const char *color,
                   void (*on_found)(int error, const char *address, int64_t ttl_ms, void *context),
                   void *context, void *owner) {
  struct house *house = owner;
  (void)color;
  if (uid == ASKED_FOR) {
    house->question = (struct question){on_found, context};
  } else if (uid == ELSEWHERE) {
    on_found(0, "10.0.0.9:1", 1000, context);
  } else {
    on_found(ERROR_NOT_FOUND, NULL, 0, context);
  }
  return 0;
}

static int on_publish(const char *topic, const uint8_t *bytes, size_t len,
                      void (*on_published)(int64_t receivers, void *context), void *context,
                      void *owner) {
  struct house *house = owner;
  (void)bytes;
  (void)len;
  snprintf(house->topic, sizeof house->topic, "%s", topic);
  if (house->listeners >= 0) {
    on_published(house->listeners, context);
  } else {
    house->publication = (struct publication){on_published, context};
  }
  return 0;
}

// --- The house -----------------------------------------------------------------------

static void add_player(struct house *house, int64_t uid, const char *color) {
  struct channel_session session = {
      .connection = (uint64_t)uid, .client = (uint64_t)uid, .uid = uid, .sid = 7};
  snprintf(session.color, sizeof session.color, "%s", color);
  assert_non_null(directory_add(house->directory, &session, 0));
}

static void open_hub(struct house *house) {
  const struct push_hub_options options = {.config = &house->config,
                                           .directory = house->directory,
                                           .counters = &house->counters,
                                           .workers = 1,
                                           .send = on_send,
                                           .room = on_room,
                                           .find_gateway = on_find,
                                           .publish = on_publish,
                                           .owner = house};
  house->hub = push_hub_new(&options);
  assert_non_null(house->hub);
  operations_http_serve(house->operations, house->hub);
}

static int set_up_with(void **state, int64_t timeout_ms) {
  struct house *house = calloc(1, sizeof *house);
  char why[200] = "";
  signal(SIGPIPE, SIG_IGN);  // as the master does
  house->base = event_base_new();
  house->config.server.http.timeout_ms = timeout_ms;
  strcpy(house->config.server.http.addr, "127.0.0.1:0");
  strcpy(house->config.server.grpc.advertise, "10.0.0.5:1");
  house->config.limits.message_to_client_bytes = 16384;
  house->config.compress.weak_bytes = 10240;
  house->config.compress.strong_bytes = 1024000;
  assert_int_equal(network_parse("127.0.0.0/8", &house->config.push.allow.networks[0]), 0);
  house->config.push.allow.count = 1;
  house->access = (struct push_access){&house->config, &house->secrets, &house->counters};
  house->directory = directory_new();
  house->listeners = 1;
  add_player(house, HERE, "blue");
  add_player(house, ALSO_HERE, "red");
  const struct operations_http_options options = {
      .config = &house->config, .access = &house->access, .counters = &house->counters};
  house->operations = operations_http_new(house->base, &options, why, sizeof why);
  assert_string_equal(why, "");
  *state = house;
  return house->operations ? 0 : -1;
}

static int set_up(void **state) {
  int error = set_up_with(state, LONG_MS);
  if (error == 0) {
    open_hub(*state);
  }
  return error;
}

static int set_up_in_haste(void **state) {
  int error = set_up_with(state, 200);
  if (error == 0) {
    open_hub(*state);
  }
  return error;
}

static int set_up_without_hub(void **state) { return set_up_with(state, LONG_MS); }

static int tear_down(void **state) {
  struct house *house = *state;
  for (int i = 0; i < 3; i++) {
    http_client_close(&house->clients[i]);
  }
  operations_http_free(house->operations);
  push_hub_free(house->hub);
  directory_free(house->directory);
  loop_free(house->base);
  free(house);
  return 0;
}

static uint64_t counter(const struct house *house, enum counter counter) {
  struct counters_values values;
  counters_read(&house->counters, &values);
  return values.counter[counter];
}

static struct http_client *client(struct house *house, int number) {
  struct http_client *client = &house->clients[number];
  if (!client->buffer) {
    http_client_open(client, house->base, operations_http_port(house->operations));
  }
  return client;
}

// headers each with its line's end.
static void post(struct http_client *client, const char *path, const char *headers,
                 const char *body) {
  char head[512];
  snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n%s\r\n", path,
           strlen(body), headers);
  http_client_send(client, head);
  http_client_send(client, body);
}

static struct http_reply expect_json(struct http_client *client, int status, const char *json) {
  struct http_reply reply = http_client_wait(client);
  char type[64];
  assert_int_equal(reply.status, status);
  assert_string_equal(reply.body, json);
  assert_string_equal(http_reply_header(&reply, "content-type", type, sizeof type),
                      "application/json");
  free(reply.body);
  return reply;
}

static void expect_header(const struct http_reply *reply, const char *name, const char *wanted) {
  char text[64];
  const char *found = http_reply_header(reply, name, text, sizeof text);
  assert_string_equal(found ? found : "(none)", wanted);
}

// An answer with a status of its own, which says when to try again, or not.
static void expect_retry(struct http_client *client, int status, const char *json,
                         const char *retry_after) {
  struct http_reply reply = expect_json(client, status, json);
  expect_header(&reply, "retry-after", retry_after);
}

#define PUSHED    "{\"pushed\":true,\"fate\":\"here\"}"
#define NOT_FOUND "{\"pushed\":false,\"fate\":\"not_found\"}"
#define REFUSED   "{\"pushed\":false,\"fate\":\"refused\"}"
#define GATE      "{\"body\":{\"mod\":3,\"seq\":7,\"data\":\"aGVsbG8=\"}}"

static void to(struct http_client *client, int64_t uid) {
  char body[128];
  snprintf(body, sizeof body, "{\"bodies\":[{\"data\":\"aGVsbG8=\"}],\"uid\":\"%d\"}", (int)uid);
  post(client, "/push", "", body);
}

// --- Pushes --------------------------------------------------------------------------

static void the_gates_form_reaches_its_player_here_and_nowhere_else(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  post(one, "/push", "x-md-global-uid: 1\r\nx-md-global-color: blue\r\n", GATE);
  expect_json(one, 200, PUSHED);
  assert_int_equal(house->sent, 1);
  assert_int_equal(house->push.mod, 3);
  assert_int_equal(house->push.seq, 7);
  assert_string_equal(house->data, "hello");
  post(one, "/push", "X-MD-Global-UID: 11\r\n", GATE);
  expect_json(one, 200, NOT_FOUND);
  assert_string_equal(house->topic, "");
  assert_int_equal(counter(house, COUNTER_PUSH_ORDERS), 2);
}

static void the_broadcasters_form_goes_wherever_the_player_is(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  to(one, HERE);
  expect_json(one, 200, PUSHED);
  to(one, ELSEWHERE);
  expect_json(one, 200, "{\"pushed\":true,\"fate\":\"handed_on\"}");
  assert_string_equal(house->topic, "10.0.0.9:1");
  to(one, NOWHERE);
  expect_json(one, 200, NOT_FOUND);
  post(one, "/push", "x-md-global-uid: 11\r\n", "{\"bodies\":[{}]}");
  expect_json(one, 200, "{\"pushed\":true,\"fate\":\"handed_on\"}");
}

static void a_push_that_is_refused_is_to_be_tried_again(void **state) {
  struct house *house = *state;
  house->full = true;
  to(client(house, 0), HERE);
  expect_retry(client(house, 0), 503, REFUSED, "1");
  house->listeners = -1;
  to(client(house, 0), ELSEWHERE);
  HTTP_CLIENT_WAIT(house->base, house->publication.on_published != NULL);
  house->publication.on_published(-1, house->publication.context);
  expect_retry(client(house, 0), 503, REFUSED, "1");
}

// With data that does not become shorter.
static char *large_body(const char *end) {
  uint8_t bytes[30000];
  char *text = malloc(sizeof bytes * 2);
  randombytes_buf(bytes, sizeof bytes);
  char *at = stpcpy(text, "{\"bodies\":[{\"data\":\"");
  sodium_bin2base64(at, sizeof bytes * 2 - 100, bytes, sizeof bytes,
                    sodium_base64_VARIANT_ORIGINAL);
  strcat(text, "\"}]");
  return strcat(text, end);
}

static void a_push_that_no_client_takes_is_too_large(void **state) {
  struct house *house = *state;
  char *text = large_body(",\"uid\":1}");
  post(client(house, 0), "/push", "", text);
  expect_retry(client(house, 0), 413, REFUSED, "(none)");
  free(text);
  text = large_body("}");
  post(client(house, 0), "/broadcast", "", text);
  expect_retry(client(house, 0), 413, "{\"reached\":\"0\",\"refused\":\"2\",\"published\":false}",
               "(none)");
  free(text);
}

static void a_multicast_says_who_came_to_what(void **state) {
  struct house *house = *state;
  post(client(house, 0), "/multicast", "",
       "{\"bodies\":[{\"data\":\"aGVsbG8=\"}],\"uids\":[1,\"11\",99,2,1],\"color\":\"blue\"}");
  expect_json(client(house, 0), 200,
              "{\"pushedUids\":[\"1\",\"11\",\"2\",\"1\"],\"handedOnUids\":[\"11\"],"
              "\"notFoundUids\":[\"99\"],\"refusedUids\":[]}");
  house->full = true;
  post(client(house, 0), "/multicast", "", "{\"bodies\":[{}],\"uids\":[1,99]}");
  expect_retry(client(house, 0), 200,
               "{\"pushedUids\":[],\"handedOnUids\":[],\"notFoundUids\":[\"99\"],"
               "\"refusedUids\":[\"1\"]}",
               "(none)");
}

static void a_broadcast_says_how_many_it_reached(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  post(one, "/broadcast", "", "{\"bodies\":[{\"data\":\"aGVsbG8=\"}]}");
  expect_json(one, 200, "{\"reached\":\"2\",\"refused\":\"0\",\"published\":true}");
  assert_string_equal(house->topic, PUSH_BROADCAST_TOPIC);
  post(one, "/broadcast", "", "{\"bodies\":[{}],\"color\":\"red\",\"sid\":\"7\"}");
  expect_json(one, 200, "{\"reached\":\"1\",\"refused\":\"0\",\"published\":true}");
  assert_string_equal(house->push.color, "red");
  assert_int_equal(house->push.sid, 7);
  post(one, "/broadcast", "", "{\"bodies\":[{}],\"sid\":8}");
  expect_json(one, 200, "{\"reached\":\"0\",\"refused\":\"0\",\"published\":true}");
  house->full = true;
  post(one, "/broadcast", "", "{\"bodies\":[{}]}");  // not to be said twice to the others
  expect_retry(one, 200, "{\"reached\":\"0\",\"refused\":\"2\",\"published\":true}", "(none)");
  house->listeners = -1;
  post(one, "/broadcast", "", "{\"bodies\":[{}]}");
  HTTP_CLIENT_WAIT(house->base, house->publication.on_published != NULL);
  house->publication.on_published(-1, house->publication.context);
  expect_retry(one, 503, "{\"reached\":\"0\",\"refused\":\"2\",\"published\":false}", "1");
}

static void a_body_of_any_type_and_in_chunks_will_do(void **state) {
  struct house *house = *state;
  http_client_send(client(house, 0),
                   "POST /push?x=1 HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
                   "x-md-global-uid: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                   "5\r\n{\"bod\r\n7\r\ny\": {}}\r\n0\r\n\r\n");
  expect_json(client(house, 0), 200, PUSHED);
}

static void the_largest_order_gets_through(void **state) {
  struct house *house = *state;
  // 62 times 65536 bytes of zeros, and the longest list of uids that may come with it.
  enum { BODIES = 62, DATA_BASE64_BYTES = 87384 };
  char *text = malloc(6 << 20);
  char *at = stpcpy(text, "{\"bodies\":[");
  for (int i = 0; i < BODIES; i++) {
    at = stpcpy(at, i > 0 ? ",{\"data\":\"" : "{\"data\":\"");
    memset(at, 'A', DATA_BASE64_BYTES);
    at = stpcpy(at + DATA_BASE64_BYTES, "\"}");
  }
  stpcpy(at, "],\"uids\":[1,2]}");
  post(client(house, 0), "/multicast", "", text);
  free(text);
  expect_json(client(house, 0), 200,
              "{\"pushedUids\":[\"1\",\"2\"],\"handedOnUids\":[],\"notFoundUids\":[],"
              "\"refusedUids\":[]}");
  assert_int_equal(house->sent, BODIES);
}

// --- What is no push -----------------------------------------------------------------

static void what_is_malformed_is_refused_and_counted(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  static const char *const cases[][4] = {
      {"/push", "", GATE, "the header x-md-global-uid is missing"},
      {"/push", "x-md-global-uid: 1\r\n", "{\"bodies\":[{\"data\":\"?\"}]}",
       "bodies[0].data is not base64"},
      {"/multicast", "", "{\"bodies\":[{}],\"uids\":[1,2.5]}",
       "uids[1] is not an integer of 64 bits"},
      {"/broadcast", "", "{\"bodies\":[]}", "bodies is missing, or has nothing in it"},
      {"/broadcast", "", "{\"bodies\":[{}],\"color\":7}", "color is not a text"},
      {"/broadcast", "", "", "the body is empty"},
  };
  size_t count = sizeof cases / sizeof cases[0];
  for (size_t i = 0; i < count; i++) {
    char wanted[200];
    snprintf(wanted, sizeof wanted, "{\"error\":\"%s\"}", cases[i][3]);
    post(one, cases[i][0], cases[i][1], cases[i][2]);
    expect_json(one, 400, wanted);
  }
  assert_int_equal(counter(house, COUNTER_PUSH_ORDERS_MALFORMED), count);
  assert_int_equal(counter(house, COUNTER_PUSH_ORDERS), 0);
}

static void what_is_too_long_is_refused_and_counted(void **state) {
  struct house *house = *state;
  http_client_send(client(house, 0),
                   "POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 6291457\r\n"
                   "Expect: 100-continue\r\n\r\n");
  expect_json(client(house, 0), 413, "{\"error\":\"the body is longer than 6291456 bytes\"}");
  char *text = malloc(6 << 20);
  char *at = stpcpy(text, "{\"bodies\":[{}],\"x\":[");
  for (int i = 0; i < 200000; i++) {
    at = stpcpy(at, "0,");
  }
  strcpy(at, "0]}");
  post(client(house, 1), "/broadcast", "", text);
  free(text);
  expect_json(client(house, 1), 413, "{\"error\":\"it has more than 200000 values in it\"}");
  assert_int_equal(counter(house, COUNTER_PUSH_ORDERS_MALFORMED), 2);
}

static void only_post_is_taken(void **state) {
  struct house *house = *state;
  http_client_send(client(house, 0), "GET /push HTTP/1.1\r\nHost: x\r\n\r\n");
  struct http_reply reply =
      expect_json(client(house, 0), 405, "{\"error\":\"the path does not have this method\"}");
  expect_header(&reply, "allow", "OPTIONS, POST");
  post(client(house, 0), "/metrics", "", "");
  expect_json(client(house, 0), 404, "{\"error\":\"there is no such path\"}");
  assert_int_equal(counter(house, COUNTER_PUSH_ORDERS_MALFORMED), 0);
}

// --- Who may push --------------------------------------------------------------------

static void expect_no_token(struct http_client *client) {
  struct http_reply reply = expect_json(
      client, 401, "{\"error\":\"the header Authorization must be Bearer and the push_token\"}");
  expect_header(&reply, "www-authenticate", "Bearer");
}

static void without_the_token_nothing_is_taken(void **state) {
  struct house *house = *state;
  struct http_client *one = client(house, 0);
  strcpy(house->secrets.push_token, "open sesame");
  post(one, "/push", "x-md-global-uid: 1\r\n", GATE);
  expect_no_token(one);
  post(one, "/push", "x-md-global-uid: 1\r\nAuthorization: Bearer open\r\n", GATE);
  expect_no_token(one);
  post(one, "/broadcast", "Authorization: Basic open sesame\r\n", "{\"bodies\":[{}]}");
  expect_no_token(one);
  assert_int_equal(counter(house, COUNTER_PUSH_ORDERS_DENIED), 3);
  post(one, "/push", "x-md-global-uid: 1\r\nauthorization: bearer open sesame\r\n", GATE);
  expect_json(one, 200, PUSHED);
  assert_int_equal(house->sent, 1);
}

static void from_another_address_nothing_is_taken(void **state) {
  struct house *house = *state;
  house->config.push.allow.count = 0;
  post(client(house, 0), "/push", "x-md-global-uid: 1\r\n", GATE);
  expect_json(client(house, 0), 403,
              "{\"error\":\"pushes are not taken from this address (push.allow)\"}");
  // Not a byte of this is waited for.
  http_client_send(client(house, 1),
                   "POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 6000000\r\n\r\n");
  expect_json(client(house, 1), 403,
              "{\"error\":\"pushes are not taken from this address (push.allow)\"}");
  http_client_wait_end(client(house, 1));
  assert_int_equal(counter(house, COUNTER_PUSH_ORDERS_DENIED), 2);
  assert_int_equal(counter(house, COUNTER_PUSH_ORDERS_MALFORMED), 0);
}

static void before_there_is_a_hub_pushes_are_to_be_tried_again(void **state) {
  struct house *house = *state;
  to(client(house, 0), HERE);
  expect_retry(client(house, 0), 503, "{\"error\":\"the gateway is starting\"}", "1");
  open_hub(house);
  to(client(house, 0), HERE);
  expect_json(client(house, 0), 200, PUSHED);
}

// --- Later ---------------------------------------------------------------------------

static void wait_question(struct house *house) {
  HTTP_CLIENT_WAIT(house->base, house->question.on_found != NULL);
}

static void answer_question(struct house *house, int error, const char *address) {
  struct question question = house->question;
  house->question = (struct question){0};
  question.on_found(error, address, 1000, question.context);
}

static void the_answer_waits_for_what_is_found_out(void **state) {
  struct house *house = *state;
  to(client(house, 0), ASKED_FOR);
  wait_question(house);
  assert_true(http_client_has_nothing(client(house, 0)));
  to(client(house, 1), HERE);
  expect_json(client(house, 1), 200, PUSHED);
  answer_question(house, 0, "10.0.0.8:1");
  expect_json(client(house, 0), 200, "{\"pushed\":true,\"fate\":\"handed_on\"}");
  assert_string_equal(house->topic, "10.0.0.8:1");
  post(client(house, 0), "/multicast", "", "{\"bodies\":[{}],\"uids\":[1,12,99]}");
  wait_question(house);
  answer_question(house, ERROR_BUSY, NULL);
  expect_json(client(house, 0), 200,
              "{\"pushedUids\":[\"1\"],\"handedOnUids\":[],\"notFoundUids\":[\"99\"],"
              "\"refusedUids\":[\"12\"]}");
  to(client(house, 0), ASKED_FOR);
  wait_question(house);
  answer_question(house, ERROR_BUSY, NULL);
  expect_retry(client(house, 0), 503, REFUSED, "1");
}

static void a_client_may_leave_before_it_is_found_out(void **state) {
  struct house *house = *state;
  to(client(house, 0), ASKED_FOR);
  wait_question(house);
  http_client_close(&house->clients[0]);
  http_client_turn_for(house->base, 20);
  answer_question(house, ERROR_NOT_FOUND, NULL);
  http_client_turn_for(house->base, 20);
  to(client(house, 1), HERE);
  expect_json(client(house, 1), 200, PUSHED);
}

static void what_is_found_out_too_late_is_answered_into_nothing(void **state) {
  struct house *house = *state;
  to(client(house, 0), ASKED_FOR);
  wait_question(house);
  expect_json(client(house, 0), 504, "{\"error\":\"it takes too long\"}");
  answer_question(house, ERROR_NOT_FOUND, NULL);
  to(client(house, 0), HERE);
  expect_json(client(house, 0), 200, PUSHED);
}

static void it_may_be_freed_before_it_is_found_out(void **state) {
  struct house *house = *state;
  house->listeners = -1;
  post(client(house, 1), "/broadcast", "", "{\"bodies\":[{}]}");
  HTTP_CLIENT_WAIT(house->base, house->publication.on_published != NULL);
  to(client(house, 0), ASKED_FOR);
  wait_question(house);
  operations_http_free(house->operations);
  house->operations = NULL;
  answer_question(house, ERROR_NOT_FOUND, NULL);
  house->publication.on_published(3, house->publication.context);
  http_client_wait_end(client(house, 0));
  assert_true(http_client_has_nothing(client(house, 0)));
}

static void answers_may_be_under_way_when_it_is_freed(void **state) {
  struct house *house = *state;
  to(client(house, 0), ASKED_FOR);
  wait_question(house);
  answer_question(house, ERROR_NOT_FOUND, NULL);
  operations_http_free(house->operations);
  house->operations = NULL;
  http_client_wait_end(client(house, 0));
}

// --- Beginning -----------------------------------------------------------------------

static void it_says_where_it_listens_or_why_it_can_not(void **state) {
  struct house *house = *state;
  const struct operations_http_options options = {
      .config = &house->config, .access = &house->access, .counters = &house->counters};
  char wanted[64];
  char why[200];
  snprintf(wanted, sizeof wanted, "127.0.0.1:%d", operations_http_port(house->operations));
  assert_string_equal(operations_http_address(house->operations), wanted);
  strcpy(house->config.server.http.addr, wanted);
  assert_null(operations_http_new(house->base, &options, why, sizeof why));
  assert_non_null(strstr(why, "Address already in use"));
  operations_http_free(NULL);
}

int main(void) {
#define FACT(test)     cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define IN_HASTE(test) cmocka_unit_test_setup_teardown(test, set_up_in_haste, tear_down)
#define UNSERVED(test) cmocka_unit_test_setup_teardown(test, set_up_without_hub, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(the_gates_form_reaches_its_player_here_and_nowhere_else),
      FACT(the_broadcasters_form_goes_wherever_the_player_is),
      FACT(a_push_that_is_refused_is_to_be_tried_again),
      FACT(a_push_that_no_client_takes_is_too_large),
      FACT(a_multicast_says_who_came_to_what),
      FACT(a_broadcast_says_how_many_it_reached),
      FACT(a_body_of_any_type_and_in_chunks_will_do),
      FACT(the_largest_order_gets_through),
      FACT(what_is_malformed_is_refused_and_counted),
      FACT(what_is_too_long_is_refused_and_counted),
      FACT(only_post_is_taken),
      FACT(without_the_token_nothing_is_taken),
      FACT(from_another_address_nothing_is_taken),
      UNSERVED(before_there_is_a_hub_pushes_are_to_be_tried_again),
      FACT(the_answer_waits_for_what_is_found_out),
      FACT(a_client_may_leave_before_it_is_found_out),
      IN_HASTE(what_is_found_out_too_late_is_answered_into_nothing),
      FACT(it_may_be_freed_before_it_is_found_out),
      FACT(answers_may_be_under_way_when_it_is_freed),
      FACT(it_says_where_it_listens_or_why_it_can_not),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
