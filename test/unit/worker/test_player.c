// Siblings: several sessions of one client with one uid, on backends that say what the test has
// them say.
#include "worker/player.h"

#include "test/unit/worker/backend_fixture.h"

// --- The worker and its players --------------------------------------------------------

enum { CLIENT = 900, UID = 10001 };

static struct memory one, two, three;
static struct channel_watched_packet told[32];  // of sessions that are watched
static size_t told_count;

static void on_master_hears(enum channel_type type, const void *content, struct fixture *fixture) {
  if (type == CHANNEL_WATCHED_PACKET) {
    memcpy(&told[told_count++], content, sizeof told[0]);
  }
  if (type == CHANNEL_ROUTE_CLAIM) {
    answer_claim(fixture, content);
  }
}

static int set_up_players(void **state) {
  if (set_up(state) != 0) {
    return -1;
  }
  struct fixture *fixture = *state;
  fixture->on_message = on_master_hears;
  told_count = 0;
  one = two = three = (struct memory){0};
  return set_up_backends(fixture);
}

static int tear_down_players(void **state) {
  tear_down_backends(*state);
  return tear_down(state);
}

static void say(struct stream *stream, const struct packet *packet) {
  uint8_t bytes[1024];
  size_t len = (size_t)(tunnel_message_encode(packet, true, bytes) - bytes);
  assert_true(stream->reading && !stream->ended);
  stream->reading = false;
  stream->events->on_message(stream->owner, bytes, len);
}

static struct session *of_client(const struct memory *memory) { return memory->transport.owner; }

static void log_in_as(struct fixture *fixture, struct memory *memory, uint64_t client,
                      const char *color, int64_t uid, int32_t conn_id) {
  assert_true(
      session_new(&fixture->worker, LISTENER_KIND_TCP, "192.0.2.1:5", client, NULL, make, memory));
  send_handshake(fixture, memory, color, uid, conn_id);
  master_answers(fixture, CHANNEL_LOGIN_ADMITTED);
}

static void log_in(struct fixture *fixture, struct memory *memory, int32_t conn_id) {
  log_in_as(fixture, memory, CLIENT, "blue", UID, conn_id);
  assert_int_equal(memory->closed, 0);
  assert_int_equal(memory->sent, 1);
  memory->sent = 0;
}

static void ask(struct memory *memory, int32_t mod, int32_t seq, int64_t obj, int32_t index) {
  client_sends(memory, &(struct packet){.mod = mod, .seq = seq, .obj = obj, .index = index});
}

// Two siblings whose tunnel to the player is open, and has taken a message of the first.
static struct stream *two_with_a_tunnel(struct fixture *fixture) {
  log_in(fixture, &one, 301);
  log_in(fixture, &two, 302);
  ask(&one, PLAYER, 1, 0, 1);
  turn(fixture);
  assert_int_equal(stream_count, 1);
  streams[0].events->on_opened(streams[0].owner);
  take_all(&streams[0]);
  return &streams[0];
}

static struct stream *open_room(struct fixture *fixture, struct memory *memory, int64_t room) {
  size_t before = stream_count;
  ask(memory, ROOM, 1, room, 50);
  turn(fixture);
  assert_int_equal(stream_count, before + 1);
  struct stream *stream = &streams[before];
  stream->events->on_opened(stream->owner);
  take_all(stream);
  return stream;
}

static void push_all(struct fixture *fixture, uint64_t serial, uint32_t sessions) {
  const uint8_t packet[] = {0x08, 0x03, 0x10, 0x02};  // mod 3, seq 2
  const struct channel_push about = {.serial = serial,
                                     .sessions = sessions,
                                     .packet_bytes = sizeof packet,
                                     .mod = MODULE_USER,
                                     .seq = 2};
  assert_int_equal(channel_send_push(fixture->master, &about, NULL, packet), 0);
  turn(fixture);
}

static void push_to(struct fixture *fixture, uint64_t connection) {
  const uint8_t packet[] = {0x08, 0x03, 0x10, 0x02};
  const struct channel_push about = {
      .receiver_count = 1, .packet_bytes = sizeof packet, .mod = MODULE_USER, .seq = 2};
  assert_int_equal(channel_send_push(fixture->master, &about, &connection, packet), 0);
  turn(fixture);
}

// --- One player ---------------------------------------------------------------------

static void siblings_share_their_tunnels(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  assert_int_equal(fixture->login.session.client, CLIENT);
  ask(&two, PLAYER, 1, 0, 7);
  take_all(stream);
  assert_int_equal(stream_count, 1);
  assert_int_equal(stream->sent_count, 2);
  assert_int_equal(stream->sent[1], 7);
  assert_ptr_equal(of_client(&one)->player, of_client(&two)->player);
}

static void another_uid_or_another_client_is_another_player(void **state) {
  struct fixture *fixture = *state;
  two_with_a_tunnel(fixture);
  log_in_as(fixture, &three, CLIENT, "blue", UID + 1, 0);
  assert_ptr_not_equal(of_client(&three)->player, of_client(&one)->player);
  ask(&three, PLAYER, 1, 0, 1);
  turn(fixture);
  assert_int_equal(stream_count, 2);
  session_close_player(of_client(&one), CLOSE_KICKED);
  assert_int_equal(one.closed + two.closed, 2);
  assert_int_equal(three.closed, 0);
  one = (struct memory){0};
  log_in_as(fixture, &one, 0, "blue", UID + 1, 0);
  assert_ptr_not_equal(of_client(&one)->player, of_client(&three)->player);
}

static void one_of_another_color_is_refused_and_told(void **state) {
  struct fixture *fixture = *state;
  two_with_a_tunnel(fixture);
  log_in_as(fixture, &three, CLIENT, "green", UID, 0);
  assert_int_equal(three.closed, 1);
  assert_int_equal(three.reason, CLOSE_CONFLICTING_LOGIN);
  assert_int_equal(last_message(&three).seq, SYSTEM_LOGOUT);
  assert_int_equal(one.closed + two.closed, 0);
  // And one of the same is taken.
  three = (struct memory){0};
  log_in(fixture, &three, 0);
}

// --- Whose answer it is ---------------------------------------------------------------

static void an_answer_goes_to_who_asked_with_its_index(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  ask(&one, PLAYER, 5, 0, 2);
  ask(&two, PLAYER, 6, 0, 2);
  take_all(stream);
  say(stream, &(struct packet){.mod = PLAYER, .seq = 6, .index = 2});
  assert_int_equal(two.sent, 1);
  assert_int_equal(last_message(&two).seq, 6);
  say(stream, &(struct packet){.mod = PLAYER, .seq = 5, .index = 2});
  assert_int_equal(one.sent, 1);
  assert_int_equal(two.sent, 1);
}

static void of_those_who_asked_alike_the_first_is_answered_first(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  ask(&two, PLAYER, 5, 0, 2);
  ask(&one, PLAYER, 5, 0, 2);
  take_all(stream);
  say(stream, &(struct packet){.mod = PLAYER, .seq = 5, .index = 2});
  assert_int_equal(two.sent, 1);
  assert_int_equal(one.sent, 0);
  say(stream, &(struct packet){.mod = PLAYER, .seq = 5, .index = 2});
  assert_int_equal(two.sent, 1);
  assert_int_equal(one.sent, 1);
}

static void an_answer_with_nothing_but_the_index_goes_to_who_used_it_last(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  ask(&one, PLAYER, 5, 0, 2);
  ask(&two, PLAYER, 6, 0, 2);
  take_all(stream);
  say(stream, &(struct packet){.mod = PLAYER, .seq = 99, .index = 2});
  assert_int_equal(two.sent, 1);
  assert_int_equal(one.sent, 0);
}

static void an_answer_names_its_session_by_conn_id(void **state) {
  struct fixture *fixture = *state;
  two_with_a_tunnel(fixture);
  struct stream *room = open_room(fixture, &one, 70);
  ask(&one, ROOM, 5, 70, 2);
  take_all(room);
  say(room, &(struct packet){
                .mod = ROOM, .seq = 5, .index = 2, .conn_id = 302, .frag_id = 4, .frag_count = 2});
  assert_int_equal(two.sent, 1);
  assert_int_equal(one.sent, 0);
  const struct packet got = last_message(&two);
  assert_int_equal(got.conn_id, 302);
  assert_int_equal(got.frag_id, 4);
  assert_int_equal(got.frag_count, 2);
  // Nobody has that one; by the index it is for the first.
  say(room, &(struct packet){.mod = ROOM, .seq = 5, .index = 2, .conn_id = 999});
  assert_int_equal(one.sent, 1);
}

static void what_nobody_asked_for_goes_to_the_oldest_alive(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  log_in(fixture, &three, 303);
  say(stream, &(struct packet){.mod = PLAYER, .seq = 8});
  assert_int_equal(one.sent, 1);
  session_close(of_client(&one), CLOSE_IDLE_TIMEOUT);
  say(stream, &(struct packet){.mod = PLAYER, .seq = 8});
  assert_int_equal(two.sent, 1);
  assert_int_equal(three.sent, 0);
}

static void the_answer_of_one_that_is_gone_is_not_taken_for_anothers(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  log_in(fixture, &three, 303);
  ask(&two, PLAYER, 5, 0, 2);
  ask(&three, PLAYER, 5, 0, 2);
  take_all(stream);
  session_close(of_client(&two), CLOSE_CLIENT_CLOSED);
  say(stream, &(struct packet){.mod = PLAYER, .seq = 5, .index = 2});
  assert_int_equal(one.sent, 1);
  assert_int_equal(three.sent, 0);
  say(stream, &(struct packet){.mod = PLAYER, .seq = 5, .index = 2});
  assert_int_equal(three.sent, 1);
}

static void what_is_remembered_of_questions_is_bounded(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  for (int32_t index = 2; index < 3000; index++) {
    stream->sent_count = 0;
    ask(&two, PLAYER, 5, 0, index);
    take_all(stream);
  }
  say(stream, &(struct packet){.mod = PLAYER, .seq = 5, .index = 2999});
  assert_int_equal(two.sent, 1);
  say(stream, &(struct packet){.mod = PLAYER, .seq = 5, .index = 2});
  assert_int_equal(one.sent, 1);
}

// Two ask in turns, and the answers come from both ends of what is remembered.
static void each_gets_its_own_in_whatever_order_the_answers_come(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  enum { OVER = 1500, REMEMBERED = 1024 };
  struct memory *const askers[] = {&one, &two};
  for (int32_t i = 0; i < OVER; i++) {
    ask(askers[i % 2], PLAYER, 5, 0, 100 + i);
    take_all(stream);
  }
  for (int32_t first = OVER - REMEMBERED, last = OVER - 1; first + 3 < last;
       first += 3, last -= 2) {
    const int32_t turn_of[] = {first, last, first + 2};
    for (size_t i = 0; i < 3; i++) {
      one.sent = two.sent = 0;
      say(stream, &(struct packet){.mod = PLAYER, .seq = 5, .index = 100 + turn_of[i]});
      assert_int_equal(askers[turn_of[i] % 2]->sent, 1);
      assert_int_equal(one.sent + two.sent, 1);
    }
  }
}

static void a_node_that_was_left_still_answers_who_asked(void **state) {
  struct fixture *fixture = *state;
  struct stream *before = two_with_a_tunnel(fixture);
  ask(&two, PLAYER, 5, 0, 2);
  take_all(before);
  const struct channel_route_held moved = {
      .oid = UID, .tunnel_type = PLAYER_TYPE, .color = "blue", .address = "127.0.0.1:10"};
  assert_int_equal(channel_send(fixture->master, CHANNEL_ROUTE_MOVED, &moved), 0);
  turn(fixture);
  assert_int_equal(stream_count, 2);
  assert_false(before->ended);
  two.queued = 2000;
  say(before, &(struct packet){.mod = PLAYER, .seq = 5, .index = 2});
  assert_int_equal(two.sent, 1);
  assert_false(before->reading);  // who was answered is slow
  session_close(of_client(&two), CLOSE_SLOW_CLIENT);
  assert_true(before->reading);
  say(before, &(struct packet){.mod = PLAYER, .seq = 8});
  assert_int_equal(one.sent, 1);
  session_close(of_client(&one), CLOSE_CLIENT_CLOSED);
  assert_true(before->ended);
}

static void route_of_room_moves(struct fixture *fixture, int64_t room) {
  struct channel_route_held moved = {.oid = room, .tunnel_type = ROOM_TYPE};
  strcpy(moved.color, "blue");
  strcpy(moved.address, "127.0.0.1:10");
  assert_int_equal(channel_send(fixture->master, CHANNEL_ROUTE_MOVED, &moved), 0);
  turn(fixture);
}

static void all_in_a_room_follow_it_once(void **state) {
  struct fixture *fixture = *state;
  static struct memory crowd[20];
  enum { CROWD = sizeof crowd / sizeof crowd[0] };
  memset(crowd, 0, sizeof crowd);
  for (size_t i = 0; i < CROWD; i++) {
    log_in_as(fixture, &crowd[i], 0, "blue", UID + 1 + (int64_t)i, 0);
    open_room(fixture, &crowd[i], 70);
  }
  route_of_room_moves(fixture, 70);
  assert_int_equal(stream_count, 2 * CROWD);
  assert_int_equal(fixture->counters.counter[COUNTER_ROUTES_MOVED], CROWD);
}

// It broke once, long ago, and its backend has had no reason to say anything since.
static void what_broke_long_ago_does_not_count_at_the_next_node(void **state) {
  struct fixture *fixture = *state;
  log_in(fixture, &one, 301);
  open_room(fixture, &one, 70);
  struct tunnel *tunnel = LIST_FIRST(&of_client(&one)->player->tunnels);
  int64_t timeout_ms = fixture->worker.config.tunnel.reopen_timeout_ms;
  tunnel->failures = 1;
  tunnel->broken_ms = clock_monotonic_ms() - 2 * timeout_ms;
  tunnel->opened_ms = tunnel->broken_ms;
  route_of_room_moves(fixture, 70);
  assert_int_equal(stream_count, 2);
  streams[1].events->on_ended(streams[1].owner, STREAM_UNAVAILABLE, "");
  assert_int_equal(one.closed, 0);
  turn(fixture);
  assert_int_equal(stream_count, 3);  // at once
}

// The tunnel that would be looked at next goes with him.
static void who_can_not_follow_is_closed_and_the_others_follow(void **state) {
  struct fixture *fixture = *state;
  enum { ROOMS_MAX = 4096 };
  fixture->worker.config.limits.tunnels_per_session = ROOMS_MAX;
  log_in_as(fixture, &two, 0, "blue", UID + 1, 0);
  log_in(fixture, &one, 301);
  int64_t room = 70;
  const struct tunnel *second;
  do {  // until two of his are in one list, of which that of the second room is the first
    assert_true(room < ROOMS_MAX);
    open_room(fixture, &one, room++);
    second = LIST_FIRST(&of_client(&one)->player->tunnels);
  } while (!LIST_NEXT(second, held));
  int64_t oid = second->oid;
  struct stream *left = open_room(fixture, &two, oid);
  // And the other's behind both.
  struct tunnel *others = LIST_FIRST(&of_client(&two)->player->tunnels);
  struct tunnel *last = LIST_NEXT(second, held);
  LIST_REMOVE(others, held);
  LIST_INSERT_AFTER(last, others, held);
  opens_failing = 1;
  size_t before = stream_count;
  route_of_room_moves(fixture, oid);
  assert_int_equal(one.closed, 1);
  assert_int_equal(one.reason, CLOSE_OUT_OF_MEMORY);
  assert_int_equal(two.closed, 0);
  assert_int_equal(stream_count, before + 1);
  assert_ptr_not_equal(others->stream, left);
}

// --- Pushes ----------------------------------------------------------------------------

static void a_push_and_a_broadcast_come_once(void **state) {
  struct fixture *fixture = *state;
  two_with_a_tunnel(fixture);
  push_all(fixture, 1, 1);
  assert_int_equal(one.sent, 1);
  assert_int_equal(two.sent, 0);
  push_to(fixture, of_client(&two)->connection);  // whichever the master takes him by
  assert_int_equal(one.sent, 2);
  assert_int_equal(two.sent, 0);
  session_close(of_client(&one), CLOSE_CLIENT_CLOSED);
  push_all(fixture, 2, 1);
  assert_int_equal(two.sent, 1);
  assert_int_equal(fixture->counters.counter[COUNTER_PUSHES_ADDRESSED], 3);
  assert_int_equal(fixture->counters.counter[COUNTER_PUSHES_DELIVERED], 3);
  assert_int_equal(fixture->counters.counter[COUNTER_PUSHES_MISSED], 0);
}

static void a_push_to_one_that_has_just_ended_comes_to_its_sibling(void **state) {
  struct fixture *fixture = *state;
  two_with_a_tunnel(fixture);
  const uint64_t connection = of_client(&one)->connection;
  session_close(of_client(&one), CLOSE_CLIENT_CLOSED);
  push_to(fixture, connection);
  assert_int_equal(two.sent, 1);
  session_close(of_client(&two), CLOSE_CLIENT_CLOSED);
  push_to(fixture, connection);
  assert_int_equal(two.sent, 1);
  assert_int_equal(fixture->counters.counter[COUNTER_PUSHES_MISSED], 1);
}

static void pushes_that_wait_for_one_that_ends_go_to_its_sibling(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  one.queued = 2000;
  say(stream, &(struct packet){.mod = PLAYER, .seq = 8});
  push_all(fixture, 1, 1);
  assert_int_equal(one.sent, 1);
  session_close(of_client(&one), CLOSE_CLIENT_RESET);
  assert_int_equal(two.sent, 1);
  assert_int_equal(fixture->counters.counter[COUNTER_PUSHES_ADDRESSED], 1);
  assert_int_equal(fixture->counters.counter[COUNTER_PUSHES_DELIVERED], 1);
  assert_int_equal(fixture->counters.gauge[GAUGE_PUSHES_WAITING], 0);
}

// --- Who is watched ----------------------------------------------------------------------

static void watch(struct fixture *fixture, const struct memory *memory) {
  const struct channel_watch watch = {.connection = of_client(memory)->connection, .on = true};
  assert_int_equal(channel_send(fixture->master, CHANNEL_WATCH, &watch), 0);
  turn(fixture);
}

static size_t told_of(const struct memory *memory, enum channel_watched_kind kind) {
  size_t count = 0;
  for (size_t i = 0; i < told_count; i++) {
    count += told[i].connection == of_client(memory)->connection && told[i].kind == (int32_t)kind;
  }
  return count;
}

static void what_befalls_a_tunnel_is_told_of_all_and_a_message_of_its_sender(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  watch(fixture, &one);
  watch(fixture, &two);
  ask(&two, PLAYER, 5, 0, 2);
  take_all(stream);
  say(stream, &(struct packet){.mod = PLAYER, .seq = 5, .index = 2});
  stream->events->on_ended(stream->owner, STREAM_UNAVAILABLE, "");
  turn(fixture);
  assert_int_equal(told_of(&one, WATCHED_GATEWAY_TO_TUNNEL), 0);
  assert_int_equal(told_of(&two, WATCHED_GATEWAY_TO_TUNNEL), 1);
  assert_int_equal(told_of(&one, WATCHED_TUNNEL_TO_GATEWAY), 0);
  assert_int_equal(told_of(&two, WATCHED_TUNNEL_TO_GATEWAY), 1);
  assert_int_equal(told_of(&two, WATCHED_GATEWAY_TO_CLIENT), 1);
  assert_int_equal(told_of(&one, WATCHED_TUNNEL_BROKEN), 1);
  assert_int_equal(told_of(&two, WATCHED_TUNNEL_BROKEN), 1);
}

// --- The end -----------------------------------------------------------------------------

static void the_end_of_one_leaves_the_others_and_the_tunnels(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  ask(&one, PLAYER, 1, 0, 2);  // with the stream
  ask(&one, PLAYER, 1, 0, 3);  // waits
  session_close(of_client(&one), CLOSE_CLIENT_CLOSED);
  turn(fixture);
  assert_int_equal(fixture->closed, 1);
  assert_int_equal(two.closed, 0);
  assert_false(stream->ended);
  take_all(stream);
  assert_int_equal(stream->sent[2], 3);
  session_close(of_client(&two), CLOSE_CLIENT_CLOSED);
  turn(fixture);
  assert_true(stream->ended);
  assert_int_equal(fixture->closed, 2);
}

static void the_masters_word_ends_all(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  const struct channel_session_close close = {.connection = of_client(&two)->connection,
                                              .reason = CLOSE_KICKED,
                                              .code = LOGOUT_ADMIN_KICK_OUT};
  assert_int_equal(channel_send(fixture->master, CHANNEL_SESSION_CLOSE, &close), 0);
  turn(fixture);
  assert_int_equal(one.reason, CLOSE_KICKED);
  assert_int_equal(two.reason, CLOSE_KICKED);
  assert_int_equal(last_message(&one).seq, SYSTEM_LOGOUT);
  assert_int_equal(last_message(&two).seq, SYSTEM_LOGOUT);
  assert_true(stream->ended);
}

static void a_logout_of_the_backend_reaches_all_and_ends_them(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  say(stream, &(struct packet){.mod = MODULE_SYSTEM, .seq = SYSTEM_LOGOUT});
  assert_int_equal(one.sent, 1);
  assert_int_equal(two.sent, 1);
  assert_int_equal(last_message(&two).seq, SYSTEM_LOGOUT);
  assert_int_equal(one.reason, CLOSE_ROMA_LOGOUT);
  assert_int_equal(two.reason, CLOSE_ROMA_LOGOUT);
}

static void the_refusal_of_the_main_tunnel_ends_all_and_of_another_none(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  struct stream *room = open_room(fixture, &two, 70);
  room->events->on_ended(room->owner, STREAM_PERMISSION_DENIED, "");
  assert_int_equal(one.sent, 0);
  assert_int_equal(two.sent, 1);  // who had sent it
  assert_int_equal(last_message(&two).seq, SYSTEM_UNEXPECTED_ERROR);
  stream->events->on_ended(stream->owner, STREAM_PERMISSION_DENIED, "");
  assert_int_equal(one.reason, CLOSE_TUNNEL_REFUSED);
  assert_int_equal(two.reason, CLOSE_TUNNEL_REFUSED);
}

// --- Who is slow ---------------------------------------------------------------------------

static void a_slow_sibling_stops_the_tunnel_that_it_is_answered_by_alone(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  struct stream *room = open_room(fixture, &two, 70);
  one.queued = 2000;
  say(stream, &(struct packet){.mod = PLAYER, .seq = 8});
  assert_false(stream->reading);
  say(room, &(struct packet){.mod = ROOM, .seq = 1, .index = 50});
  assert_int_equal(two.sent, 1);
  assert_true(room->reading);
  // A further one for the slow one stops that too, and no more than that.
  say(room, &(struct packet){.mod = ROOM, .seq = 8});
  assert_false(room->reading);
  struct stream *other = open_room(fixture, &two, 71);
  assert_true(other->reading);
  one.queued = 50;
  one.transport.events->on_drained(one.transport.owner);
  assert_true(stream->reading && room->reading);
}

static void the_end_of_a_slow_sibling_lets_its_tunnel_go_on(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  one.queued = 2000;
  say(stream, &(struct packet){.mod = PLAYER, .seq = 8});
  assert_false(stream->reading);
  session_close(of_client(&one), CLOSE_SLOW_CLIENT);
  assert_true(stream->reading);
  say(stream, &(struct packet){.mod = PLAYER, .seq = 8});
  assert_int_equal(two.sent, 1);
}

static void a_full_tunnel_stops_those_who_send_to_it(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  struct stream *room = open_room(fixture, &two, 70);
  for (int32_t index = 2; index < 6; index++) {  // one is with the stream
    ask(&one, PLAYER, 1, 0, index);
  }
  assert_true(one.paused);
  assert_false(two.paused);
  ask(&two, ROOM, 1, 70, 2);
  take_all(room);
  assert_false(two.paused);
  ask(&two, PLAYER, 1, 0, 3);
  assert_true(two.paused);
  take_all(stream);
  assert_false(one.paused || two.paused);
  assert_int_equal(stream->sent_count, 6);
}

static void a_full_tunnel_is_full_when_the_one_who_filled_it_has_gone(void **state) {
  struct fixture *fixture = *state;
  struct stream *stream = two_with_a_tunnel(fixture);
  for (int32_t index = 2; index < 6; index++) {
    ask(&one, PLAYER, 1, 0, index);
  }
  session_close(of_client(&one), CLOSE_CLIENT_CLOSED);
  turn(fixture);
  ask(&two, PLAYER, 1, 0, 2);
  assert_true(two.paused);
  take_all(stream);
  assert_false(two.paused);
}

static void what_a_burst_has_taken_is_given_back(void **state) {
  struct fixture *fixture = *state;
  enum { BURST = 50 };
  fixture->worker.config.queue.tunnel_messages = BURST;
  struct stream *stream = two_with_a_tunnel(fixture);
  const struct tunnel *tunnel = LIST_FIRST(&of_client(&one)->player->tunnels);
  for (int32_t index = 2; index < 2 + BURST; index++) {
    ask(&one, PLAYER, 1, 0, index);
  }
  assert_true(tunnel->queue.room > TUNNEL_QUEUE_KEPT);
  take_all(stream);
  assert_int_equal(stream->sent_count, 1 + BURST);
  assert_true(tunnel->queue.room <= TUNNEL_QUEUE_KEPT);
  assert_int_equal(tunnel->queue.bytes, 0);
  for (int32_t index = 2; index < 6; index++) {
    ask(&one, PLAYER, 1, 0, index);
  }
  take_all(stream);
  assert_int_equal(stream->sent_count, 1 + BURST + 4);
}

static void the_number_of_tunnels_is_bounded_for_all_together(void **state) {
  struct fixture *fixture = *state;
  two_with_a_tunnel(fixture);
  for (int64_t room = 70; room < 73; room++) {
    open_room(fixture, &two, room);
  }
  ask(&one, ROOM, 1, 80, 9);
  assert_int_equal(last_message(&one).seq, SYSTEM_UNEXPECTED_ERROR);
  assert_int_equal(fixture->counters.counter[COUNTER_TUNNEL_LIMITED], 1);
}

// --- Whatever happens ------------------------------------------------------------------------

enum { CROWD = 6, STEPS = 5000 };

static uint32_t random_below(uint32_t *seed, uint32_t bound) {
  *seed = *seed * 1664525 + 1013904223;
  return (*seed >> 8) % bound;
}

static bool is_open(const struct memory *memory) {
  return memory->transport.kind && memory->closed == 0;
}

static bool is_among(const struct player *player, const struct session *session) {
  const struct session *sibling;
  TAILQ_FOREACH(sibling, &player->sessions, sibling) {
    if (sibling == session) {
      return true;
    }
  }
  return false;
}

// Nothing waits for what is gone, and nothing stands still without somebody to wait for.
static void check_players(const struct fixture *fixture) {
  const struct session *session;
  LIST_FOREACH(session, &fixture->worker.sessions, link) {
    const struct player *player = session->player;
    const struct tunnel *tunnel;
    bool held = false;
    uint32_t count = 0;
    if (!player) {
      continue;
    }
    assert_true(is_among(player, session));
    LIST_FOREACH(tunnel, &player->tunnels, link) {
      count++;
      assert_ptr_equal(tunnel->player, player);
      held = held || (session->held_by == tunnel && tunnel->full);
      if (tunnel->waits_for) {
        assert_true(is_among(player, tunnel->waits_for) && tunnel->waits_for->output_full);
      }
      if (tunnel->state == TUNNEL_OPEN) {
        assert_true(tunnel->waits_for || tunnel->stream->reading);
        assert_true(!stream_takes(tunnel->stream) || tunnel->queue.count == 0);
      }
    }
    assert_int_equal(count, player->tunnel_count);
    assert_int_equal(held, session->held_by != NULL);
    assert_int_equal(of(session->transport)->paused, session->held_by != NULL);
  }
}

static void crowd_logs_in(struct fixture *fixture, struct memory *memory, uint32_t *seed) {
  *memory = (struct memory){0};
  log_in_as(fixture, memory, CLIENT + random_below(seed, 2), "blue", UID + random_below(seed, 2),
            (int32_t)random_below(seed, 3));
}

static void backend_acts(struct stream *stream, uint32_t *seed) {
  static const int statuses[] = {STREAM_OK, STREAM_UNAVAILABLE, STREAM_RESOURCE_EXHAUSTED,
                                 STREAM_NOT_FOUND};
  if (stream->ended) {
    return;
  }
  if (random_below(seed, 40) == 0) {
    stream->events->on_ended(stream->owner, statuses[random_below(seed, 4)], "");
  } else if (!stream->opened) {
    stream->opened = true;
    stream->events->on_opened(stream->owner);
  } else if (stream->sending && random_below(seed, 2) == 0) {
    stream->sending = false;
    stream->events->on_sent(stream->owner);
  } else if (stream->reading) {
    bool is_logout = random_below(seed, 60) == 0;
    say(stream, &(struct packet){.mod = is_logout ? MODULE_SYSTEM : ROOM,
                                 .seq = is_logout ? SYSTEM_LOGOUT : 1,
                                 .index = (int32_t)random_below(seed, 5),
                                 .conn_id = (int32_t)random_below(seed, 3)});
  }
}

static void move_route(struct fixture *fixture, uint32_t *seed) {
  struct channel_route_held moved = {.oid = UID + random_below(seed, 2),
                                     .tunnel_type = PLAYER_TYPE};
  strcpy(moved.color, "blue");
  strcpy(moved.address, random_below(seed, 2) == 0 ? "127.0.0.1:9" : "127.0.0.1:10");
  assert_int_equal(channel_send(fixture->master, CHANNEL_ROUTE_MOVED, &moved), 0);
  turn(fixture);
}

static void client_acts(struct fixture *fixture, struct memory *memory, uint32_t *seed) {
  static const enum close_reason reasons[] = {CLOSE_CLIENT_CLOSED, CLOSE_IDLE_TIMEOUT};
  if (!is_open(memory)) {
    crowd_logs_in(fixture, memory, seed);
    return;
  }
  switch (random_below(seed, 12)) {
    case 0: memory->queued = 2000; return;
    case 1:
    case 2:
      memory->queued = 50;
      memory->transport.events->on_drained(memory->transport.owner);
      return;
    case 3:
      if (random_below(seed, 4) == 0) {
        session_close(of_client(memory), reasons[random_below(seed, 2)]);
      }
      return;
    default:
      if (!memory->paused) {
        bool to_room = random_below(seed, 2) == 0;
        ask(memory, to_room ? ROOM : PLAYER, 1, to_room ? 70 + random_below(seed, 5) : 0,
            (int32_t)random_below(seed, 5));
      }
  }
}

static void whatever_happens_nothing_waits_for_what_is_gone(void **state) {
  struct fixture *fixture = *state;
  static struct memory crowd[CROWD];
  memset(crowd, 0, sizeof crowd);
  uint32_t seed = 1;
  uint64_t serial = 0, connection = 1;
  for (int step = 0; step < STEPS; step++) {
    struct memory *memory = &crowd[random_below(&seed, CROWD)];
    switch (random_below(&seed, 10)) {
      case 0: push_all(fixture, ++serial, 2); break;
      case 1: push_to(fixture, connection); break;
      case 2: move_route(fixture, &seed); break;
      case 3:
      case 4:
      case 5: client_acts(fixture, memory, &seed); break;
      default:
        if (stream_count > 0) {  // one of those that were opened last: others have mostly ended
          uint32_t recent = stream_count < 12 ? (uint32_t)stream_count : 12;
          backend_acts(&streams[stream_count - 1 - random_below(&seed, recent)], &seed);
        }
    }
    if (is_open(memory)) {
      connection = of_client(memory)->connection;
    }
    check_players(fixture);
    turn(fixture);
    check_players(fixture);
  }
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up_players, tear_down_players)
  const struct CMUnitTest tests[] = {
      FACT(siblings_share_their_tunnels),
      FACT(another_uid_or_another_client_is_another_player),
      FACT(one_of_another_color_is_refused_and_told),
      FACT(an_answer_goes_to_who_asked_with_its_index),
      FACT(of_those_who_asked_alike_the_first_is_answered_first),
      FACT(an_answer_with_nothing_but_the_index_goes_to_who_used_it_last),
      FACT(an_answer_names_its_session_by_conn_id),
      FACT(what_nobody_asked_for_goes_to_the_oldest_alive),
      FACT(the_answer_of_one_that_is_gone_is_not_taken_for_anothers),
      FACT(each_gets_its_own_in_whatever_order_the_answers_come),
      FACT(what_is_remembered_of_questions_is_bounded),
      FACT(a_node_that_was_left_still_answers_who_asked),
      FACT(all_in_a_room_follow_it_once),
      FACT(what_broke_long_ago_does_not_count_at_the_next_node),
      FACT(who_can_not_follow_is_closed_and_the_others_follow),
      FACT(a_push_and_a_broadcast_come_once),
      FACT(a_push_to_one_that_has_just_ended_comes_to_its_sibling),
      FACT(pushes_that_wait_for_one_that_ends_go_to_its_sibling),
      FACT(what_befalls_a_tunnel_is_told_of_all_and_a_message_of_its_sender),
      FACT(the_end_of_one_leaves_the_others_and_the_tunnels),
      FACT(the_masters_word_ends_all),
      FACT(a_logout_of_the_backend_reaches_all_and_ends_them),
      FACT(the_refusal_of_the_main_tunnel_ends_all_and_of_another_none),
      FACT(a_slow_sibling_stops_the_tunnel_that_it_is_answered_by_alone),
      FACT(the_end_of_a_slow_sibling_lets_its_tunnel_go_on),
      FACT(a_full_tunnel_stops_those_who_send_to_it),
      FACT(a_full_tunnel_is_full_when_the_one_who_filled_it_has_gone),
      FACT(what_a_burst_has_taken_is_given_back),
      FACT(the_number_of_tunnels_is_bounded_for_all_together),
      FACT(whatever_happens_nothing_waits_for_what_is_gone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
