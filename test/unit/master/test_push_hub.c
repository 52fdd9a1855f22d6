#include "master/push_hub.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/error.h"
#include "common/packet.h"
#include "master/push_message.h"

// The hub with two workers and with other gateways that the test plays. Players with an even
// uid are in worker 0, with an odd one in worker 1.

enum { WORKERS = 2, QUESTIONS = 3000 };

struct question {
  int64_t uid;
  char color[32];
  void (*on_found)(int error, const char *address, int64_t ttl_ms, void *context);
  void *context;
};

struct publication {
  char topic[64];
  size_t len;
  int64_t uids[8];
  size_t uid_count;
  int32_t seq;  // of its first body
  void (*on_published)(int64_t receivers, void *context);
  void *context;
};

struct house {
  struct config config;
  struct counters counters;
  struct directory *directory;
  struct push_hub *hub;
  size_t room[WORKERS];
  size_t sent[WORKERS];       // messages
  size_t receivers[WORKERS];  // in all of them
  size_t most_receivers;      // in one
  uint64_t serial;            // of the latest broadcast
  uint32_t sessions[WORKERS];
  struct question questions[QUESTIONS];
  size_t asked;
  struct publication publications[8];
  size_t published;
  struct push_outcome outcome;  // the latest, but for its fates
  enum push_fate fates[4];
  size_t outcomes;
};

static int on_send(int worker, const struct channel_push *push, const uint64_t *receivers,
                   const uint8_t *bytes, void *owner) {
  struct house *house = owner;
  struct packet packet;
  assert_int_equal(packet_decode(&packet, bytes, push->packet_bytes), 0);
  assert_int_equal(packet.seq, push->seq);
  house->sent[worker]++;
  house->receivers[worker] += push->receiver_count;
  if (push->receiver_count > house->most_receivers) {
    house->most_receivers = push->receiver_count;
  }
  for (size_t i = 0; i < push->receiver_count; i++) {
    assert_int_equal(receivers[i] % WORKERS, worker);
  }
  if (push->receiver_count == 0) {
    assert_true(push->serial > house->serial || worker > 0);
    house->serial = push->serial;
    house->sessions[worker] = push->sessions;
  }
  return 0;
}

static size_t on_room(int worker, void *owner) {
  const struct house *house = owner;
  return house->room[worker];
}

static int on_find(int64_t uid, const char *color,
                   void (*on_found)(int error, const char *address, int64_t ttl_ms, void *context),
                   void *context, void *owner) {
  struct house *house = owner;
  if (uid == -7) {
    return ERROR_EXHAUSTED;
  }
  assert_true(house->asked < QUESTIONS);
  struct question *question = &house->questions[house->asked++];
  *question = (struct question){.uid = uid, .on_found = on_found, .context = context};
  snprintf(question->color, sizeof question->color, "%s", color);
  return 0;
}

static int on_publish(const char *topic, const uint8_t *bytes, size_t len,
                      void (*on_published)(int64_t receivers, void *context), void *context,
                      void *owner) {
  struct house *house = owner;
  struct publication *publication = &house->publications[house->published++];
  PushMessage *message = broadcaster__service__push__v1__push_message__unpack(NULL, len, bytes);
  assert_non_null(message);
  *publication = (struct publication){.len = len,
                                      .uid_count = message->n_uids,
                                      .seq = message->bodies[0]->seq,
                                      .on_published = on_published,
                                      .context = context};
  snprintf(publication->topic, sizeof publication->topic, "%s", topic);
  for (size_t i = 0; i < message->n_uids && i < 8; i++) {
    publication->uids[i] = message->uids[i];
  }
  broadcaster__service__push__v1__push_message__free_unpacked(message, NULL);
  return 0;
}

static void on_done(const struct push_outcome *outcome, void *context) {
  struct house *house = context;
  house->outcome = *outcome;
  house->outcomes++;
  size_t players = 0;
  for (int fate = 0; fate < PUSH_FATE_COUNT; fate++) {
    players += outcome->count[fate];
  }
  for (size_t i = 0; outcome->fates && i < players && i < 4; i++) {
    house->fates[i] = outcome->fates[i];
  }
}

static void answer(struct house *house, size_t i, int error, const char *address) {
  house->questions[i].on_found(error, address, 1000, house->questions[i].context);
}

static void confirm(struct house *house, size_t i, int64_t receivers) {
  house->publications[i].on_published(receivers, house->publications[i].context);
}

// --- The house -----------------------------------------------------------------------

static void add_players(struct house *house, int64_t first, int64_t count) {
  for (int64_t uid = first; uid < first + count; uid++) {
    struct channel_session session = {
        .connection = (uint64_t)uid, .client = (uint64_t)uid, .uid = uid, .color = "blue"};
    assert_non_null(directory_add(house->directory, &session, (int)(uid % WORKERS)));
  }
}

static int set_up(void **state) {
  struct house *house = calloc(1, sizeof *house);
  strcpy(house->config.server.grpc.advertise, "10.0.0.5:1");
  strcpy(house->config.label.color, "home");
  house->config.limits.message_to_client_bytes = 16384;
  house->config.compress.weak_bytes = 1 << 30;
  house->config.compress.strong_bytes = 1 << 30;
  house->room[0] = house->room[1] = CHANNEL_PUSHES_MAX_BYTES;
  house->directory = directory_new();
  const struct push_hub_options options = {.config = &house->config,
                                           .directory = house->directory,
                                           .counters = &house->counters,
                                           .workers = WORKERS,
                                           .send = on_send,
                                           .room = on_room,
                                           .find_gateway = on_find,
                                           .publish = on_publish,
                                           .owner = house};
  house->hub = push_hub_new(&options);
  *state = house;
  return house->hub ? 0 : -1;
}

static int tear_down(void **state) {
  struct house *house = *state;
  push_hub_free(house->hub);
  directory_free(house->directory);
  free(house);
  return 0;
}

static void send_bodies(struct house *house, const struct push_body *bodies, size_t body_count,
                        const int64_t *uids, size_t uid_count) {
  const struct push_order order = {.bodies = bodies,
                                   .body_count = body_count,
                                   .uids = uids,
                                   .uid_count = uid_count,
                                   .broadcast = uid_count == 0,
                                   .color = ""};
  push_hub_send(house->hub, &order, on_done, house);
}

// A small body, by which an order is known again.
static void push(struct house *house, int32_t seq, const int64_t *uids, size_t uid_count) {
  const struct push_body body = {.data = (const uint8_t *)"hello", .data_len = 5, .seq = seq};
  send_bodies(house, &body, 1, uids, uid_count);
}

static uint64_t counted(const struct house *house, enum counter counter) {
  struct counters_values values;
  counters_read(&house->counters, &values);
  return values.counter[counter];
}

// --- Players who are here --------------------------------------------------------------

static void each_worker_gets_its_players_and_a_name_said_twice_counts_once(void **state) {
  struct house *house = *state;
  const int64_t uids[] = {4, 1, 4, 2};
  add_players(house, 1, 4);
  push(house, 1, uids, 4);
  assert_int_equal(house->outcome.count[PUSH_HERE], 4);
  assert_int_equal(house->receivers[0], 2);
  assert_int_equal(house->receivers[1], 1);
  assert_int_equal(counted(house, COUNTER_PUSHES_HERE), 3);
}

static void many_players_come_in_several_messages(void **state) {
  struct house *house = *state;
  enum { COUNT = 1001 };
  int64_t uids[COUNT];
  for (int i = 0; i < COUNT; i++) {
    uids[i] = 2 + 2 * i;
    add_players(house, uids[i], 1);
  }
  push(house, 1, uids, COUNT);
  assert_int_equal(house->receivers[0], COUNT);
  assert_int_equal(house->sent[0], 4);
  assert_int_equal(house->most_receivers, CHANNEL_PUSH_RECEIVERS_MAX);
  assert_int_equal(house->outcome.count[PUSH_HERE], COUNT);
}

static void a_worker_without_room_gets_nothing_and_the_other_everything(void **state) {
  struct house *house = *state;
  const struct push_body bodies[] = {{.seq = 1}, {.seq = 2}};
  const int64_t uids[] = {1, 2};
  add_players(house, 1, 2);
  house->room[1] = channel_push_bytes(0) + 100;  // for one of both
  send_bodies(house, bodies, 2, uids, 2);
  assert_int_equal(house->sent[0], 2);
  assert_int_equal(house->sent[1], 0);
  assert_int_equal(house->fates[0], PUSH_REFUSED);
  assert_int_equal(house->fates[1], PUSH_HERE);
  assert_false(house->outcome.too_large);
  assert_int_equal(counted(house, COUNTER_PUSHES_HERE), 2);
  assert_int_equal(counted(house, COUNTER_PUSHES_REFUSED), 2);
}

static void a_body_that_no_client_takes_refuses_the_order(void **state) {
  struct house *house = *state;
  static const uint8_t large[17000];
  const struct push_body bodies[] = {{.seq = 1},
                                     {.data = large, .data_len = sizeof large, .seq = 2}};
  const int64_t uids[] = {1, 99};
  add_players(house, 1, 2);
  send_bodies(house, bodies, 2, uids, 2);
  assert_int_equal(house->outcome.count[PUSH_REFUSED], 2);
  assert_true(house->outcome.too_large);
  send_bodies(house, bodies, 2, NULL, 0);
  assert_int_equal(house->outcome.count[PUSH_REFUSED], 2);
  assert_true(house->outcome.too_large);
  assert_int_equal(house->sent[0] + house->sent[1] + house->asked + house->published, 0);
}

static void what_came_to_nothing_is_refused_also_when_nobody_is_here(void **state) {
  struct house *house = *state;
  static const uint8_t large[17000];
  const struct push_body body = {.data = large, .data_len = sizeof large};
  const int64_t uids[] = {101, -7};
  send_bodies(house, &body, 1, NULL, 0);
  assert_true(push_was_refused(&house->outcome));
  push(house, 1, NULL, 0);
  confirm(house, 0, -1);
  assert_true(push_was_refused(&house->outcome));
  push(house, 1, NULL, 0);
  confirm(house, 1, 0);
  assert_false(push_was_refused(&house->outcome));
  push(house, 1, uids, 2);
  answer(house, 0, ERROR_EXPIRED, NULL);
  assert_true(push_was_refused(&house->outcome));
  push(house, 1, uids, 2);
  answer(house, 1, ERROR_NOT_FOUND, NULL);
  assert_false(push_was_refused(&house->outcome));
}

static void what_makes_no_sense_is_told(void **state) {
  struct house *house = *state;
  const int64_t uid = 1;
  static struct push_body bodies[PUSH_BODIES_MAX + 1];
  int64_t *uids = calloc(PUSH_UIDS_MAX + 1, sizeof *uids);
  send_bodies(house, bodies, 0, &uid, 1);
  assert_int_equal(house->outcome.error, ERROR_INVALID);
  send_bodies(house, bodies, PUSH_BODIES_MAX + 1, &uid, 1);
  assert_int_equal(house->outcome.error, ERROR_INVALID);
  send_bodies(house, bodies, 1, uids, PUSH_UIDS_MAX + 1);
  assert_int_equal(house->outcome.error, ERROR_INVALID);
  send_bodies(house, bodies, 5, uids, PUSH_UIDS_MAX);  // over PUSH_DELIVERIES_MAX
  assert_int_equal(house->outcome.error, ERROR_INVALID);
  assert_int_equal(house->outcomes, 4);
  free(uids);
}

// --- All who are here --------------------------------------------------------------------

static void a_broadcast_counts_the_sessions_of_each_worker(void **state) {
  struct house *house = *state;
  add_players(house, 1, 5);
  push(house, 1, NULL, 0);
  confirm(house, 0, 3);
  assert_int_equal(house->outcome.count[PUSH_HERE], 5);
  assert_int_equal(house->sessions[0], 2);
  assert_int_equal(house->sessions[1], 3);
  assert_true(house->outcome.published);
  assert_string_equal(house->publications[0].topic, PUSH_BROADCAST_TOPIC);
}

static void of_siblings_a_broadcast_and_a_push_count_one(void **state) {
  struct house *house = *state;
  const int64_t uid = 4;
  add_players(house, uid, 1);
  for (uint64_t connection = 100; connection < 106; connection += 2) {
    const struct channel_session sibling = {
        .connection = connection, .client = (uint64_t)uid, .uid = uid, .color = "blue"};
    assert_non_null(directory_add(house->directory, &sibling, 0));
  }
  push(house, 1, NULL, 0);
  confirm(house, 0, 3);
  assert_int_equal(house->outcome.count[PUSH_HERE], 1);
  assert_int_equal(house->sessions[0], 1);
  push(house, 2, &uid, 1);
  assert_int_equal(house->receivers[0], 1);
}

static void a_worker_that_is_behind_is_refused_more_until_it_is_through(void **state) {
  struct house *house = *state;
  size_t taken = 0;
  add_players(house, 2, 1);
  for (; taken < 10000; taken++) {
    house->published = 0;
    push(house, 1, NULL, 0);
    confirm(house, 0, 1);
    if (house->outcome.count[PUSH_REFUSED] > 0) {
      break;
    }
  }
  assert_true(taken > 0 && taken < 10000);
  push_hub_broadcast_done(house->hub, 0, house->serial);
  house->published = 0;
  push(house, 1, NULL, 0);
  confirm(house, 0, 1);
  assert_int_equal(house->outcome.count[PUSH_HERE], 1);
  for (size_t i = 1; i < taken; i++) {
    house->published = 0;
    push(house, 1, NULL, 0);
    confirm(house, 0, 1);
    assert_int_equal(house->outcome.count[PUSH_HERE], 1);
  }
  push_hub_worker_gone(house->hub, 0);  // its successor is not behind
  house->published = 0;
  push(house, 1, NULL, 0);
  confirm(house, 0, 1);
  assert_int_equal(house->outcome.count[PUSH_HERE], 1);
}

// --- Players who are elsewhere -----------------------------------------------------------

static void those_elsewhere_are_found_and_handed_on(void **state) {
  struct house *house = *state;
  const int64_t uids[] = {101, 1, 102, 103};
  add_players(house, 1, 1);
  push(house, 8, uids, 4);
  assert_int_equal(house->outcomes, 0);
  assert_int_equal(house->asked, 3);
  assert_string_equal(house->questions[0].color, "home");  // as nothing else was said
  answer(house, 2, 0, "10.0.0.6:1");
  answer(house, 0, 0, "10.0.0.6:1");
  answer(house, 1, ERROR_NOT_FOUND, NULL);
  assert_int_equal(house->published, 1);
  assert_string_equal(house->publications[0].topic, "10.0.0.6:1");
  assert_int_equal(house->publications[0].uid_count, 2);
  assert_int_equal(house->publications[0].seq, 8);
  confirm(house, 0, 1);
  assert_int_equal(house->outcomes, 1);
  assert_int_equal(house->fates[0], PUSH_HANDED_ON);
  assert_int_equal(house->fates[1], PUSH_HERE);
  assert_int_equal(house->fates[2], PUSH_NOT_FOUND);
  assert_int_equal(house->fates[3], PUSH_HANDED_ON);
}

static void what_can_not_be_handed_on_is_not_said_to_be(void **state) {
  struct house *house = *state;
  const int64_t uids[] = {101, 102, 103, -7};
  push(house, 1, uids, 4);  // where -7 is can't even be asked
  answer(house, 0, 0, "10.0.0.6:1");
  answer(house, 1, 0, "10.0.0.7:1");
  answer(house, 2, ERROR_EXPIRED, NULL);
  confirm(house, 0, 0);   // nobody listens there
  confirm(house, 1, -1);  // Redis does not take it
  assert_int_equal(house->fates[0], PUSH_NOT_FOUND);
  assert_int_equal(house->fates[1], PUSH_REFUSED);
  assert_int_equal(house->fates[2], PUSH_REFUSED);
  assert_int_equal(house->fates[3], PUSH_REFUSED);
}

static void a_route_to_here_of_a_player_who_is_not_is_not_followed(void **state) {
  struct house *house = *state;
  const int64_t uid = 101;
  push(house, 1, &uid, 1);
  answer(house, 0, 0, "10.0.0.5:1");
  assert_int_equal(house->published, 0);
  assert_int_equal(house->fates[0], PUSH_NOT_FOUND);
}

static void orders_are_published_in_the_order_of_their_arrival(void **state) {
  struct house *house = *state;
  const int64_t uid = 101;
  push(house, 1, &uid, 1);
  push(house, 2, &uid, 1);
  push(house, 3, NULL, 0);
  push(house, 4, &uid, 1);
  answer(house, 2, 0, "10.0.0.6:1");
  answer(house, 1, 0, "10.0.0.6:1");
  assert_int_equal(house->published, 0);
  answer(house, 0, 0, "10.0.0.6:1");
  assert_int_equal(house->published, 4);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(house->publications[i].seq, i + 1);
    confirm(house, (size_t)i, 1);
  }
  assert_int_equal(house->outcomes, 4);
}

static void only_so_many_are_looked_for_at_a_time_and_only_so_many_orders_wait(void **state) {
  struct house *house = *state;
  const int64_t uid = 101;
  enum { MANY = 1500 };
  int64_t uids[MANY];
  for (int i = 0; i < MANY; i++) {
    uids[i] = 1001 + i;
  }
  push(house, 1, uids, MANY);
  size_t bound = house->asked;
  assert_true(bound < MANY);
  size_t orders = 1;
  for (; orders < 10000 && house->outcomes == 0; orders++) {
    push(house, 2, &uid, 1);
  }
  assert_int_equal(house->fates[0], PUSH_REFUSED);
  assert_int_equal(house->asked, bound);
  assert_true(orders < 10000);
  for (size_t i = 0; i < house->asked; i++) {
    answer(house, i, ERROR_NOT_FOUND, NULL);
    assert_true(house->asked <= i + 1 + bound);
  }
  assert_int_equal(house->asked, MANY + orders - 2);
  assert_int_equal(house->outcomes, orders);
}

static void what_comes_from_another_gateway_goes_to_none(void **state) {
  struct house *house = *state;
  const int64_t uid = 101;
  const struct push_body body = {.seq = 1};
  const struct push_order order = {.bodies = &body,
                                   .body_count = 1,
                                   .uids = &uid,
                                   .uid_count = 1,
                                   .color = "",
                                   .here_only = true};
  push_hub_send(house->hub, &order, on_done, house);
  assert_int_equal(house->asked, 0);
  assert_int_equal(house->fates[0], PUSH_NOT_FOUND);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(each_worker_gets_its_players_and_a_name_said_twice_counts_once),
      FACT(many_players_come_in_several_messages),
      FACT(a_worker_without_room_gets_nothing_and_the_other_everything),
      FACT(a_body_that_no_client_takes_refuses_the_order),
      FACT(what_came_to_nothing_is_refused_also_when_nobody_is_here),
      FACT(what_makes_no_sense_is_told),
      FACT(a_broadcast_counts_the_sessions_of_each_worker),
      FACT(of_siblings_a_broadcast_and_a_push_count_one),
      FACT(a_worker_that_is_behind_is_refused_more_until_it_is_through),
      FACT(those_elsewhere_are_found_and_handed_on),
      FACT(what_can_not_be_handed_on_is_not_said_to_be),
      FACT(a_route_to_here_of_a_player_who_is_not_is_not_followed),
      FACT(orders_are_published_in_the_order_of_their_arrival),
      FACT(only_so_many_are_looked_for_at_a_time_and_only_so_many_orders_wait),
      FACT(what_comes_from_another_gateway_goes_to_none),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
