#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/loop.h"
#include "master/bans.h"
#include "test/unit/redis.h"

// Bans that gateways share, over a real Redis.

#define FOR_EVER "{\"until_ms\":0,\"reason\":\"others\"}"

struct gateway {
  struct config config;
  struct secrets secrets;
  struct counters counters;
  struct redis_link *link;
  struct bans *bans;
  char told[256];  // the fields of the bans that its owner was told of; "*" for several
};

static struct redis_server redis;
static struct event_base *base;
static struct gateway one;
static struct gateway two;

// --- Gateways ----------------------------------------------------------------------

static void on_master_up(void *owner) {
  struct gateway *gateway = owner;
  bans_link_up(gateway->bans);
}

static void ignore(void *owner) { (void)owner; }

static void on_ban(const struct ban *ban, void *owner) {
  struct gateway *gateway = owner;
  char field[BAN_FIELD_BYTES] = "*";
  if (ban) {
    ban_field(&ban->subject, field);
  }
  strncat(gateway->told, field, sizeof gateway->told - strlen(gateway->told) - 2);
  strcat(gateway->told, " ");
}

static void open_gateway(struct gateway *gateway, const char *name) {
  static const struct redis_link_events events = {on_master_up, ignore, ignore};
  char why[128];
  memset(gateway, 0, sizeof *gateway);
  struct config *config = &gateway->config;
  strcpy(config->server.grpc.advertise, name);
  strcpy(config->data.redis.addr, redis.address);
  config->data.redis.dial_timeout_ms = 2000;
  config->data.redis.read_timeout_ms = 1000;
  config->data.redis.write_timeout_ms = 1000;
  config->data.redis.backoff_ms = 10;
  config->data.redis.backoff_max_ms = 50;
  gateway->link =
      redis_link_new(base, config, &gateway->secrets, NULL, &events, gateway, why, sizeof why);
  assert_non_null(gateway->link);
  const struct bans_options options = {.config = config,
                                       .link = gateway->link,
                                       .counters = &gateway->counters,
                                       .on_ban = on_ban,
                                       .owner = gateway};
  gateway->bans = bans_new(&options);
  assert_non_null(gateway->bans);
}

static void close_gateway(struct gateway *gateway) {
  redis_link_free(gateway->link);
  bans_free(gateway->bans);
  memset(gateway, 0, sizeof *gateway);
}

static struct bans_health health_of(const struct gateway *gateway) {
  struct bans_health health;
  bans_health(gateway->bans, &health);
  assert_true(health.shared);
  return health;
}

static uint64_t readings(const struct gateway *gateway) {
  return health_of(gateway).store.readings;
}

static size_t known(const struct gateway *gateway) {
  struct bans_health health = health_of(gateway);
  return health.uids + health.networks;
}

static struct ban_subject subject_of(const char *field) {
  struct ban_subject subject;
  assert_int_equal(ban_parse_field(field, strlen(field), &subject), 0);
  return subject;
}

static int add(struct gateway *gateway, const char *field, const char *reason) {
  struct ban_subject subject = subject_of(field);
  return bans_add(gateway->bans, &subject, 0, reason, clock_wall_ms());
}

static int take_back(struct gateway *gateway, const char *field) {
  struct ban_subject subject = subject_of(field);
  return bans_remove(gateway->bans, &subject, clock_wall_ms());
}

static bool bans_uid(const struct gateway *gateway, int64_t uid) {
  return bans_find(gateway->bans, uid, "unknown:0", clock_wall_ms()) != NULL;
}

static uint64_t counted(const struct gateway *gateway, enum counter counter) {
  struct counters_values values;
  counters_read(&gateway->counters, &values);
  return values.counter[counter];
}

// --- Time --------------------------------------------------------------------------

static void turn(void) {
  const struct timeval moment = {.tv_usec = 2000};
  event_base_loopexit(base, &moment);
  event_base_dispatch(base);
}

static void check_time(int64_t until_ms, const char *what) {
  if (clock_monotonic_ms() > until_ms) {
    fail_msg("it never came to: %s", what);
  }
}

// Without a second passing for the bans: it comes of what they are told.
#define WAIT_WITHIN_A_SECOND(condition)                                    \
  for (int64_t until_ms = clock_monotonic_ms() + redis_patience_ms();      \
       !(condition) && (check_time(until_ms, #condition), true); turn()) { \
  }

static void tick(struct gateway *gateway) {
  if (gateway->bans) {
    bans_tick(gateway->bans, clock_wall_ms());
  }
}

static void long_turn(void) {
  turn();
  tick(&one);
  tick(&two);
}

// With one passing at each turn.
#define WAIT_FOR(condition)                                                     \
  for (int64_t until_ms = clock_monotonic_ms() + redis_patience_ms();           \
       !(condition) && (check_time(until_ms, #condition), true); long_turn()) { \
  }

static void wait_read(struct gateway *gateway) { WAIT_WITHIN_A_SECOND(readings(gateway) > 0); }

static void wait_written(struct gateway *gateway) {
  WAIT_WITHIN_A_SECOND(health_of(gateway).store.pending_writes == 0);
}

// --- What stands in Redis ------------------------------------------------------------

static void write_field(const char *field, const char *value) {
  redis_do(&redis, "HSET janus.gate.bans %s %s", field, value);
}

static bool has_field(const char *field) {
  redisReply *reply = redis_ask(&redis, "HEXISTS janus.gate.bans %s", field);
  bool has = reply->integer == 1;
  freeReplyObject(reply);
  return has;
}

static int start_server(void **state) {
  (void)state;
  redis_start(&redis);
  return 0;
}

static int stop_server(void **state) {
  (void)state;
  redis_kill(&redis);
  return 0;
}

// What a test has done to the server goes, also of one that has failed.
static int set_up(void **state) {
  (void)state;
  kill(redis.pid, SIGCONT);
  redis_do(&redis, "ACL SETUSER default +@all");
  redis_do(&redis, "FLUSHALL");
  base = event_base_new();
  return base ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  close_gateway(&one);
  close_gateway(&two);
  loop_free(base);
  return 0;
}

static void open_one(void) {
  open_gateway(&one, "10.0.0.1:19100");
  wait_read(&one);
}

static void open_both(void) {
  open_one();
  open_gateway(&two, "10.0.0.2:19100");
  wait_read(&two);
}

// --- Facts -------------------------------------------------------------------------

static bool has_come(const redisContext *listener) {
  struct pollfd polled = {.fd = listener->fd, .events = POLLIN};
  return poll(&polled, 1, 0) > 0;
}

static void a_ban_is_written_as_others_read_it_and_they_are_told(void **state) {
  (void)state;
  char expected[256];
  redisReply *reply;
  redisContext *listener = redisConnect("127.0.0.1", redis.port);
  open_one();
  freeReplyObject(redisCommand(listener, "SUBSCRIBE %s", BANS_TOPIC));
  int64_t before_ms = clock_wall_ms();
  assert_int_equal(add(&one, "uid:5", "cheating"), 0);
  assert_true(bans_uid(&one, 5));
  assert_int_equal(health_of(&one).store.pending_writes, 1);
  wait_written(&one);
  int64_t since_ms = bans_find(one.bans, 5, "", before_ms)->since_ms;
  assert_in_range(since_ms, before_ms, clock_wall_ms());
  snprintf(expected, sizeof expected,
           "{\"until_ms\":0,\"reason\":\"cheating\",\"by\":\"10.0.0.1:19100\",\"since_ms\":%lld}",
           (long long)since_ms);
  reply = redis_ask(&redis, "HGET janus.gate.bans uid:5");
  assert_string_equal(reply->str, expected);
  freeReplyObject(reply);
  WAIT_WITHIN_A_SECOND(has_come(listener));  // it may not have left yet when the ban is written
  assert_int_equal(redisGetReply(listener, (void **)&reply), REDIS_OK);
  assert_string_equal(reply->element[2]->str, "10.0.0.1:19100");
  freeReplyObject(reply);
  redisFree(listener);
}

static void what_is_there_is_known_from_the_start(void **state) {
  (void)state;
  write_field("uid:5", FOR_EVER);
  write_field("net:10.0.0.0/8", FOR_EVER);
  open_one();
  assert_true(bans_uid(&one, 5));
  assert_non_null(bans_find(one.bans, 1, "10.0.0.1:1", clock_wall_ms()));
  assert_string_equal(bans_find(one.bans, 5, "", 0)->reason, "others");
  assert_string_equal(one.told, "* ");
}

static void gateways_agree_when_they_are_told(void **state) {
  (void)state;
  open_both();
  assert_int_equal(add(&one, "uid:5", ""), 0);
  wait_written(&one);
  WAIT_WITHIN_A_SECOND(has_field("uid:5"));
  tick(&two);
  bans_changed(two.bans);
  WAIT_WITHIN_A_SECOND(bans_uid(&two, 5));
  WAIT_WITHIN_A_SECOND(strcmp(two.told, "uid:5 ") == 0);
  assert_string_equal(bans_find(two.bans, 5, "", 0)->by, "10.0.0.1:19100");
  assert_int_equal(take_back(&two, "uid:5"), 0);
  assert_false(bans_uid(&two, 5));
  wait_written(&two);
  WAIT_WITHIN_A_SECOND(!has_field("uid:5"));
  tick(&one);
  bans_changed(one.bans);
  WAIT_WITHIN_A_SECOND(!bans_uid(&one, 5));
}

static void gateways_agree_in_the_end_when_nobody_tells_them(void **state) {
  (void)state;
  write_field("uid:6", FOR_EVER);
  open_both();
  assert_int_equal(add(&one, "net:10.0.0.0/8", ""), 0);
  assert_int_equal(take_back(&one, "uid:6"), 0);
  WAIT_FOR(bans_find(two.bans, 1, "10.0.0.1:1", clock_wall_ms()) && !bans_uid(&two, 6));
}

static void a_change_that_is_told_during_a_reading_is_read_after_it(void **state) {
  (void)state;
  open_one();
  tick(&one);
  bans_changed(one.bans);
  assert_int_equal(readings(&one), 1);
  bans_changed(one.bans);
  WAIT_WITHIN_A_SECOND(readings(&one) == 2);
  write_field("uid:7", FOR_EVER);
  tick(&one);
  WAIT_WITHIN_A_SECOND(bans_uid(&one, 7));
}

static void many_changes_in_a_second_are_read_together(void **state) {
  (void)state;
  open_one();
  tick(&one);
  for (int i = 0; i < 50; i++) {
    bans_changed(one.bans);
    turn();
  }
  assert_int_equal(readings(&one), 2);
  write_field("uid:7", FOR_EVER);
  tick(&one);
  WAIT_WITHIN_A_SECOND(bans_uid(&one, 7));
  assert_int_equal(readings(&one), 3);
}

static void a_changed_ban_is_changed_everywhere_and_nobody_is_told_again(void **state) {
  (void)state;
  write_field("uid:5", FOR_EVER);
  open_one();
  one.told[0] = '\0';
  write_field("uid:5", "{\"until_ms\":0,\"reason\":\"another\"}");
  tick(&one);
  bans_changed(one.bans);
  WAIT_WITHIN_A_SECOND(strcmp(bans_find(one.bans, 5, "", 0)->reason, "another") == 0);
  turn();
  assert_string_equal(one.told, "");
}

static void what_is_no_ban_is_counted_and_skipped(void **state) {
  (void)state;
  char *huge = malloc(1 << 20);
  memset(huge, 'x', 1 << 20);
  write_field("uid:5", FOR_EVER);
  write_field("garbage", FOR_EVER);
  write_field("", FOR_EVER);
  write_field("uid:05", FOR_EVER);
  write_field("net:10.1.2.3/8", FOR_EVER);
  write_field("uid:6", "");
  write_field("uid:7", "{\"until_ms\":\"soon\"}");
  write_field("uid:8", "[[[[");
  redis_do(&redis, "HSET janus.gate.bans %b %b", "\xff\x00\n", (size_t)3, "\x00\xff", (size_t)2);
  redis_do(&redis, "HSET janus.gate.bans %b %s", huge, (size_t)(1 << 20), FOR_EVER);
  redis_do(&redis, "HSET janus.gate.bans uid:9 %b", huge, (size_t)(1 << 20));
  free(huge);
  open_one();
  assert_int_equal(known(&one), 1);
  assert_true(bans_uid(&one, 5));
  assert_int_equal(health_of(&one).store.malformed, 10);
  assert_int_equal(counted(&one, COUNTER_BANS_MALFORMED), 10);
  assert_true(has_field("garbage"));  // it is not ours
}

static void a_hash_that_something_else_has_filled_does_not_break_the_link(void **state) {
  (void)state;
  redis_do(&redis, "EVAL %s 1 janus.gate.bans",
           "local value = string.rep('x', 100000)\n"
           "for i = 1, 2000 do redis.call('HSET', KEYS[1], 'uid:' .. i, value) end",
           0);
  write_field("uid:0", FOR_EVER);
  open_one();
  assert_true(bans_uid(&one, 0));
  assert_int_equal(health_of(&one).store.malformed, 2000);
  struct redis_link_health link;
  redis_link_health(one.link, &link);
  assert_int_equal(link.lost, 0);
}

static void a_key_of_another_type_is_said_and_what_is_known_stays_in_force(void **state) {
  (void)state;
  write_field("uid:5", FOR_EVER);
  open_one();
  redis_do(&redis, "DEL janus.gate.bans");
  redis_do(&redis, "SET janus.gate.bans nonsense");
  tick(&one);
  bans_changed(one.bans);
  WAIT_WITHIN_A_SECOND(strstr(health_of(&one).store.last_error, "WRONGTYPE"));
  assert_true(bans_uid(&one, 5));
  assert_int_equal(add(&one, "uid:6", ""), 0);
  for (int i = 0; i < 5; i++) {
    long_turn();
  }
  assert_true(bans_uid(&one, 6));
  assert_int_equal(health_of(&one).store.pending_writes, 1);
  redis_do(&redis, "DEL janus.gate.bans");
  WAIT_FOR(has_field("uid:6"));
  WAIT_FOR(!bans_uid(&one, 5));
  assert_true(bans_uid(&one, 6));
}

static void one_who_may_not_tell_the_others_still_writes(void **state) {
  (void)state;
  redis_do(&redis, "ACL SETUSER default -publish");
  open_one();
  assert_int_equal(add(&one, "uid:5", ""), 0);
  WAIT_FOR(strstr(health_of(&one).store.last_error, "NOPERM"));
  assert_true(has_field("uid:5"));
  assert_int_equal(health_of(&one).store.pending_writes, 0);
}

static void what_is_over_is_not_known_and_leaves_redis_after_a_while(void **state) {
  (void)state;
  char value[64];
  snprintf(value, sizeof value, "{\"until_ms\":%lld}", (long long)clock_wall_ms() - 120000);
  write_field("uid:5", value);
  write_field("net:10.0.0.0/8", value);
  snprintf(value, sizeof value, "{\"until_ms\":%lld}", (long long)clock_wall_ms() - 1000);
  write_field("uid:6", value);
  write_field("uid:7", FOR_EVER);
  open_one();
  assert_int_equal(known(&one), 1);
  WAIT_WITHIN_A_SECOND(!has_field("uid:5") && !has_field("net:10.0.0.0/8"));
  assert_true(has_field("uid:6") && has_field("uid:7"));
  assert_int_equal(health_of(&one).store.malformed, 0);
}

static void what_is_asked_for_while_redis_is_away_is_written_when_it_is_back(void **state) {
  (void)state;
  write_field("uid:1", FOR_EVER);
  write_field("uid:2", FOR_EVER);
  open_one();
  kill(redis.pid, SIGSTOP);
  assert_int_equal(add(&one, "uid:3", ""), 0);
  assert_int_equal(take_back(&one, "uid:1"), 0);
  WAIT_FOR(!redis_link_is_up(one.link));
  assert_int_equal(add(&one, "uid:4", "first"), 0);
  assert_int_equal(add(&one, "uid:4", "second"), 0);
  assert_int_equal(add(&one, "uid:5", ""), 0);
  assert_int_equal(take_back(&one, "uid:5"), 0);
  for (int i = 0; i < 50; i++) {
    long_turn();
  }
  assert_int_equal(health_of(&one).store.pending_writes, 4);
  assert_true(bans_uid(&one, 2) && bans_uid(&one, 3) && bans_uid(&one, 4));
  assert_false(bans_uid(&one, 1) || bans_uid(&one, 5));
  kill(redis.pid, SIGCONT);
  WAIT_FOR(health_of(&one).store.pending_writes == 0);
  assert_true(has_field("uid:2") && has_field("uid:3") && has_field("uid:4"));
  assert_false(has_field("uid:1") || has_field("uid:5"));
  assert_string_equal(bans_find(one.bans, 4, "", 0)->reason, "second");
  assert_int_equal(known(&one), 3);
}

static void a_redis_that_comes_back_empty_has_what_was_asked_for_meanwhile(void **state) {
  (void)state;
  write_field("uid:1", FOR_EVER);
  open_one();
  redis_kill(&redis);
  WAIT_FOR(!redis_link_is_up(one.link));
  assert_int_equal(add(&one, "uid:2", ""), 0);
  assert_true(bans_uid(&one, 1) && bans_uid(&one, 2));
  while (!redis_try_start(&redis)) {
  }
  WAIT_FOR(health_of(&one).store.pending_writes == 0 && !bans_uid(&one, 1));
  assert_true(bans_uid(&one, 2));
  assert_true(has_field("uid:2"));
}

static void a_gateway_that_starts_without_redis_bans_all_the_same(void **state) {
  (void)state;
  kill(redis.pid, SIGSTOP);
  open_gateway(&one, "10.0.0.1:19100");
  assert_int_equal(add(&one, "uid:5", ""), 0);
  long_turn();
  assert_true(bans_uid(&one, 5));
  assert_int_equal(take_back(&one, "uid:6"), ERROR_NOT_FOUND);
  kill(redis.pid, SIGCONT);
  WAIT_FOR(has_field("uid:5"));
}

static void fill(int from, int to) {
  redis_do(&redis, "EVAL %s 1 janus.gate.bans %d %d",
           "for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do\n"
           "  redis.call('HSET', KEYS[1], 'uid:' .. i, '{\"until_ms\":0}')\n"
           "end",
           from, to);
}

static void many_pages_are_read_and_what_is_gone_is_dropped(void **state) {
  (void)state;
  fill(1, 5000);
  open_one();
  assert_int_equal(known(&one), 5000);
  for (int uid = 1; uid <= 5000; uid++) {
    assert_true(bans_uid(&one, uid));
  }
  redis_do(&redis, "EVAL %s 1 janus.gate.bans",
           "for i = 1, 5000, 2 do redis.call('HDEL', KEYS[1], 'uid:' .. i) end");
  tick(&one);
  bans_changed(one.bans);
  WAIT_WITHIN_A_SECOND(known(&one) == 2500);
  assert_false(bans_uid(&one, 1));
  assert_true(bans_uid(&one, 2));
}

static void what_is_asked_for_during_a_reading_is_neither_dropped_nor_undone(void **state) {
  (void)state;
  fill(1, 5000);
  open_one();
  for (int round = 0; round < 20; round++) {
    char field[BAN_FIELD_BYTES];
    tick(&one);
    bans_changed(one.bans);
    for (int i = 0; i < round; i++) {  // further and further into it
      event_base_loop(base, EVLOOP_ONCE);
    }
    snprintf(field, sizeof field, "uid:%d", 10000 + round);
    assert_int_equal(add(&one, field, ""), 0);
    snprintf(field, sizeof field, "uid:%d", 1 + round);
    assert_int_equal(take_back(&one, field), 0);
    WAIT_WITHIN_A_SECOND(readings(&one) == (uint64_t)round + 2 &&
                         health_of(&one).store.pending_writes == 0);
    assert_true(bans_uid(&one, 10000 + round));
    assert_false(bans_uid(&one, 1 + round));
    assert_int_equal(known(&one), 5000);
  }
}

static void what_there_is_no_room_for_is_counted(void **state) {
  (void)state;
  fill(1, BANS_MAX + 7);
  open_one();
  assert_int_equal(known(&one), BANS_MAX);
  assert_int_equal(health_of(&one).store.left_out, 7);
  assert_int_equal(counted(&one, COUNTER_BANS_LEFT_OUT), 7);
  assert_int_equal(add(&one, "net:10.0.0.0/8", ""), ERROR_EXHAUSTED);
}

static void a_gateway_may_end_in_the_middle_of_it(void **state) {
  (void)state;
  fill(1, 5000);
  open_one();
  tick(&one);
  bans_changed(one.bans);
  turn();
  assert_int_equal(add(&one, "uid:9000", ""), 0);
  close_gateway(&one);
}

// A Redis that ends the connection whenever the list is asked for.
struct breaking_server {
  struct evconnlistener *listener;
  char address[64];
  int asked;
};

static bool has_text(struct evbuffer *buffer, const char *text) {
  return evbuffer_search(buffer, text, strlen(text), NULL).pos >= 0;
}

static void on_breaking_read(struct bufferevent *client, void *owner) {
  static const char set_up_answers[] = "+OK\r\n-ERR no role\r\n+PONG\r\n";
  struct breaking_server *server = owner;
  struct evbuffer *input = bufferevent_get_input(client);
  if (has_text(input, "EVAL")) {
    server->asked++;
    bufferevent_free(client);
  } else if (has_text(input, "PING")) {
    evbuffer_drain(input, evbuffer_get_length(input));
    bufferevent_write(client, set_up_answers, sizeof set_up_answers - 1);
  }
}

static void on_breaking_event(struct bufferevent *client, short what, void *owner) {
  (void)what;
  (void)owner;
  bufferevent_free(client);
}

static void on_breaking_accept(struct evconnlistener *listener, evutil_socket_t fd,
                               struct sockaddr *address, int len, void *owner) {
  struct bufferevent *client = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
  (void)listener;
  (void)address;
  (void)len;
  bufferevent_setcb(client, on_breaking_read, NULL, on_breaking_event, owner);
  bufferevent_enable(client, EV_READ | EV_WRITE);
}

static void start_breaking(struct breaking_server *server) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof address;
  server->listener =
      evconnlistener_new_bind(base, on_breaking_accept, server, LEV_OPT_CLOSE_ON_FREE, 16,
                              (struct sockaddr *)&address, (int)len);
  assert_non_null(server->listener);
  getsockname(evconnlistener_get_fd(server->listener), (struct sockaddr *)&address, &len);
  snprintf(server->address, sizeof server->address, "127.0.0.1:%d", ntohs(address.sin_port));
}

static void a_reading_that_breaks_the_connection_is_put_off_longer_and_longer(void **state) {
  (void)state;
  struct breaking_server server = {0};
  start_breaking(&server);
  char real[sizeof redis.address];
  memcpy(real, redis.address, sizeof real);
  memcpy(redis.address, server.address, sizeof server.address);
  open_gateway(&one, "10.0.0.1:19100");
  memcpy(redis.address, real, sizeof real);
  WAIT_FOR(server.asked == 2);
  for (int second = 1; second <= 70; second++) {
    WAIT_WITHIN_A_SECOND(redis_link_is_up(one.link));
    bans_changed(one.bans);
    tick(&one);
    turn();
  }
  // After 5 s, 10 and 20, give or take those in which it broke.
  assert_in_range(server.asked, 4, 5);
  assert_non_null(strstr(health_of(&one).store.last_error, "no answer"));
  evconnlistener_free(server.listener);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_ban_is_written_as_others_read_it_and_they_are_told),
      FACT(what_is_there_is_known_from_the_start),
      FACT(gateways_agree_when_they_are_told),
      FACT(gateways_agree_in_the_end_when_nobody_tells_them),
      FACT(a_change_that_is_told_during_a_reading_is_read_after_it),
      FACT(many_changes_in_a_second_are_read_together),
      FACT(a_changed_ban_is_changed_everywhere_and_nobody_is_told_again),
      FACT(what_is_no_ban_is_counted_and_skipped),
      FACT(a_hash_that_something_else_has_filled_does_not_break_the_link),
      FACT(a_reading_that_breaks_the_connection_is_put_off_longer_and_longer),
      FACT(a_key_of_another_type_is_said_and_what_is_known_stays_in_force),
      FACT(one_who_may_not_tell_the_others_still_writes),
      FACT(what_is_over_is_not_known_and_leaves_redis_after_a_while),
      FACT(what_is_asked_for_while_redis_is_away_is_written_when_it_is_back),
      FACT(a_redis_that_comes_back_empty_has_what_was_asked_for_meanwhile),
      FACT(a_gateway_that_starts_without_redis_bans_all_the_same),
      FACT(many_pages_are_read_and_what_is_gone_is_dropped),
      FACT(what_is_asked_for_during_a_reading_is_neither_dropped_nor_undone),
      FACT(what_there_is_no_room_for_is_counted),
      FACT(a_gateway_may_end_in_the_middle_of_it),
  };
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_ERROR, "test");
  return cmocka_run_group_tests(tests, start_server, stop_server);
}
