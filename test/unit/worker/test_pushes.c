// A broadcast to many sessions: how it is divided into turns of the loop, and who is served in
// between. Time is the test's own, and each send to a client takes some of it.
#include "worker/pushes.h"

#include <sys/socket.h>
#include <unistd.h>

#include "test/unit/worker/session_fixture.h"
#include "worker/wire.h"

enum {
  PLAYERS = 100,
  SEND_US = 5,     // so that a slice of 50 us is over with the tenth
  SENDS_MAX = 16,  // of a slice: it is looked at the time with every eighth
  SEQ = 77,
};

// --- The clock, and what is sent ---------------------------------------------------------

static int64_t now_us;
static int sends;
static bool is_counting;

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now) {
  if (clock != CLOCK_MONOTONIC) {
    return __real_clock_gettime(clock, now);
  }
  *now = (struct timespec){.tv_sec = 1000 + now_us / 1000000, .tv_nsec = now_us % 1000000 * 1000};
  return 0;
}

ssize_t __real_send(int fd, const void *bytes, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t len, int flags) {
  if (is_counting) {
    now_us += SEND_US;
    sends++;
  }
  return __real_send(fd, bytes, len, flags);
}

// --- Players on sockets ------------------------------------------------------------------

// A transport in memory that hands on what it is given to a wire, as those for clients do.
struct player_on_wire {
  struct memory memory;
  struct wire *wire;
  int client;
};

static struct player_on_wire players[PLAYERS];

static size_t on_bytes(uint8_t *bytes, size_t len, void *owner) {
  (void)bytes;
  (void)owner;
  return len;
}

static void on_ended(enum close_reason reason, void *owner) {
  (void)reason;
  (void)owner;
}

static void on_nothing(void *owner) { (void)owner; }

static int send_by_wire(struct transport *transport, uint8_t *buffer, size_t len) {
  struct player_on_wire *player = (struct player_on_wire *)transport;
  assert_int_equal(memory_send(transport, buffer, len), 0);
  return wire_write(player->wire, buffer + TRANSPORT_HEADROOM_BYTES, len);
}

static struct transport *make_on_wire(void *context, const struct transport_events *events,
                                      void *owner) {
  static struct transport_kind kind;
  struct transport *transport = make(context, events, owner);
  kind = memory_kind;
  kind.send = send_by_wire;
  transport->kind = &kind;
  return transport;
}

static void log_in(struct fixture *fixture, int number) {
  static const struct wire_events events = {
      .on_bytes = on_bytes, .on_ended = on_ended, .on_drained = on_nothing, .on_gone = on_nothing};
  struct player_on_wire *player = &players[number];
  int pair[2];
  memset(player, 0, sizeof *player);
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
  player->client = pair[1];
  player->wire = wire_socket_new(&fixture->worker.wires, pair[0], NULL, &events, player);
  assert_non_null(player->wire);
  assert_true(session_new(&fixture->worker, LISTENER_KIND_TCP, "192.0.2.1:5", 0, NULL, make_on_wire,
                          player));
  send_handshake(fixture, &player->memory, "blue", 10001 + number, 0);
  master_answers(fixture, CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(player->memory.sent, 1);
}

static int set_up_players(void **state) {
  if (set_up(state) != 0) {
    return -1;
  }
  struct fixture *fixture = *state;
  struct worker *worker = &fixture->worker;
  log_set_level(LOG_MODULE_SESSION, LOG_LEVEL_WARN);
  now_us = 0;
  is_counting = false;
  worker->wires = (struct wire_shared){
      .base = worker->base, .counters = worker->counters, .low_bytes = 1000, .linger_ms = 60000};
  assert_int_equal(wire_shared_init(&worker->wires), 0);
  for (int i = 0; i < PLAYERS; i++) {
    log_in(fixture, i);
  }
  return 0;
}

static int tear_down_players(void **state) {
  struct fixture *fixture = *state;
  is_counting = false;
  while (!LIST_EMPTY(&fixture->worker.sessions)) {
    session_close(LIST_FIRST(&fixture->worker.sessions), CLOSE_DRAIN);
  }
  for (int i = 0; i < PLAYERS; i++) {
    wire_close(players[i].wire, false);
    close(players[i].client);
  }
  wire_cut_all(&fixture->worker.wires);
  wire_shared_fini(&fixture->worker.wires);
  return tear_down(state);
}

// --- Others in the loop ------------------------------------------------------------------

static int delivered(void) {
  int count = 0;
  for (int i = 0; i < PLAYERS; i++) {
    count += players[i].memory.sent - 1;  // the answer to the login
  }
  return count;
}

// Somebody else's event, due in every turn.
struct bystander {
  struct event *event;
  int turns;       // in which the push was under way
  int last_sends;  // when it had its turn before
  int most_sends;  // between two of its turns
  bool saw_gathered;
};

static const struct timeval at_once = {0};

static void on_bystander(evutil_socket_t fd, short what, void *owner) {
  struct bystander *bystander = owner;
  int sends_since = sends - bystander->last_sends;
  (void)fd;
  (void)what;
  bystander->last_sends = sends;
  if (sends_since > bystander->most_sends) {
    bystander->most_sends = sends_since;
  }
  if (delivered() < PLAYERS) {
    bystander->turns++;
    bystander->saw_gathered = bystander->saw_gathered || delivered() != sends;
  }
  evtimer_add(bystander->event, &at_once);
}

// All is delivered in slices, of which each was sent within its time, and after each it was
// somebody else's turn.
static void assert_goes_out_in_slices(struct fixture *fixture) {
  struct event_base *base = fixture->worker.base;
  struct bystander bystander = {.last_sends = sends};
  bystander.event = evtimer_new(base, on_bystander, &bystander);
  evtimer_add(bystander.event, &at_once);
  while (sends < PLAYERS) {
    event_base_loop(base, EVLOOP_ONCE);
  }
  event_base_loop(base, EVLOOP_ONCE);
  assert_int_equal(sends, PLAYERS);
  for (int i = 0; i < PLAYERS; i++) {
    assert_int_equal(players[i].memory.sent, 2);
    assert_int_equal(last_message(&players[i].memory).seq, SEQ);
  }
  assert_in_range(bystander.most_sends, 1, SENDS_MAX);
  assert_true(bystander.turns >= PLAYERS / SENDS_MAX - 1);
  assert_false(bystander.saw_gathered);
  event_free(bystander.event);
}

// The same push to some, or as a broadcast where there is nobody to be named.
static void push(struct fixture *fixture, const uint64_t *receivers, uint32_t receiver_count) {
  _Alignas(16) uint8_t content[4096];
  struct packet packet = {.mod = 3, .seq = SEQ};
  uint8_t bytes[64];
  const struct channel_push about = {
      .mod = 3,
      .seq = SEQ,
      .serial = receiver_count == 0 ? 1 : 0,
      .sessions = receiver_count == 0 ? PLAYERS : 0,
      .receiver_count = receiver_count,
      .packet_bytes = (uint32_t)(packet_encode(&packet, bytes) - bytes),
  };
  size_t receivers_size = receiver_count * sizeof *receivers;
  assert_true(sizeof about + receivers_size + sizeof bytes <= sizeof content);
  memcpy(content, &about, sizeof about);
  if (receiver_count > 0) {
    memcpy(content + sizeof about, receivers, receivers_size);
  }
  memcpy(content + sizeof about + receivers_size, bytes, about.packet_bytes);
  sends = 0;
  is_counting = true;
  pushes_on_push(fixture->worker.pushes, (const struct channel_push *)content);
}

// --- What it does ------------------------------------------------------------------------

static void a_broadcast_to_many_goes_out_in_slices_and_others_are_served_between(void **state) {
  struct fixture *fixture = *state;
  push(fixture, NULL, 0);
  assert_int_equal(sends, 0);
  assert_goes_out_in_slices(fixture);
  assert_int_equal(fixture->counters.counter[COUNTER_PUSHES_ADDRESSED], PLAYERS);
}

static void so_does_a_push_to_some_that_are_many(void **state) {
  struct fixture *fixture = *state;
  uint64_t receivers[PLAYERS];
  for (int i = 0; i < PLAYERS; i++) {
    receivers[i] = ((const struct session *)players[i].memory.transport.owner)->connection;
  }
  push(fixture, receivers, PLAYERS);
  assert_in_range(sends, 1, SENDS_MAX);
  assert_goes_out_in_slices(fixture);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up_players, tear_down_players)
  const struct CMUnitTest tests[] = {
      FACT(a_broadcast_to_many_goes_out_in_slices_and_others_are_served_between),
      FACT(so_does_a_push_to_some_that_are_many),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
