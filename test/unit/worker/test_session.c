// A session on a transport in memory: what it does by itself. With siblings: test_player.c.
#include "worker/session.h"

#include "test/unit/worker/session_fixture.h"

static struct transport *make_none(void *context, const struct transport_events *events,
                                   void *owner) {
  (void)context;
  (void)events;
  (void)owner;
  return NULL;
}

static void log_in(struct fixture *fixture) {
  assert_true(session_new(&fixture->worker, LISTENER_KIND_TCP, "192.0.2.1:5", 0, NULL, make,
                          &fixture->memory));
  send_handshake(fixture, &fixture->memory, "blue", 10001, 0);
  master_answers(fixture, CHANNEL_LOGIN_ADMITTED);
}

// --- What it does ------------------------------------------------------------------------

static void a_login_waits_for_the_master_and_reads_no_further_meanwhile(void **state) {
  struct fixture *fixture = *state;
  assert_true(session_new(&fixture->worker, LISTENER_KIND_TCP, "192.0.2.1:5", 0, NULL, make,
                          &fixture->memory));
  send_handshake(fixture, &fixture->memory, "blue", 10001, 0);
  turn(fixture);
  assert_int_equal(fixture->logins, 1);
  assert_int_equal(fixture->login.session.uid, 10001);
  assert_string_equal(fixture->login.session.address, "192.0.2.1:5");
  assert_true(fixture->memory.paused);
  assert_int_equal(fixture->memory.sent, 0);
  master_answers(fixture, CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(fixture->memory.sent, 1);
  assert_int_equal(last_message(&fixture->memory).seq, SYSTEM_HANDSHAKE);
  assert_false(fixture->memory.paused);
}

static void junk_in_place_of_a_handshake_leaves_the_budget_to_the_others(void **state) {
  struct fixture *fixture = *state;
  struct worker *worker = &fixture->worker;
  struct memory junk[3] = {0};
  token_bucket_init(&worker->handshakes, 1, 1, clock_monotonic_ms());
  for (int i = 0; i < 3; i++) {
    uint8_t bytes[] = {0};
    assert_true(session_new(worker, LISTENER_KIND_TCP, "192.0.2.2:5", 0, NULL, make, &junk[i]));
    junk[i].transport.events->on_message(bytes, sizeof bytes, junk[i].transport.owner);
    turn(fixture);  // it may have to wait for its own
    assert_int_equal(junk[i].reason, CLOSE_HANDSHAKE_MALFORMED);
  }
  log_in(fixture);
  assert_int_equal(fixture->memory.closed, 0);
  assert_int_equal(fixture->memory.sent, 1);
}

// Addresses in UDP prove nothing: with one good token a flood may come from anywhere.
static void what_logs_in_over_kcp_leaves_the_budget_to_the_others(void **state) {
  struct fixture *fixture = *state;
  struct worker *worker = &fixture->worker;
  struct memory flood[2] = {0};
  token_bucket_init(&worker->handshakes, 1, 1, clock_monotonic_ms());
  token_bucket_init(&worker->kcp_handshakes, 1, 1, clock_monotonic_ms());
  for (int i = 0; i < 2; i++) {
    assert_true(session_new(worker, LISTENER_KIND_KCP, "192.0.2.2:5", 0, NULL, make, &flood[i]));
    send_handshake(fixture, &flood[i], "blue", 10002, 0);
    turn(fixture);
  }
  assert_int_equal(flood[0].closed, 0);
  assert_int_equal(flood[1].reason, CLOSE_HANDSHAKE_RATE);
  log_in(fixture);
  assert_int_equal(fixture->memory.closed, 0);
  assert_int_equal(fixture->memory.sent, 1);
}

static void a_message_that_nobody_serves_is_answered(void **state) {
  struct fixture *fixture = *state;
  log_in(fixture);
  client_sends(&fixture->memory, &(struct packet){.mod = 77, .seq = 3, .index = 1});
  assert_int_equal(fixture->memory.sent, 2);
  assert_int_equal(last_message(&fixture->memory).mod, MODULE_SYSTEM);
  assert_int_equal(last_message(&fixture->memory).seq, SYSTEM_UNEXPECTED_ERROR);
  assert_int_equal(fixture->counters.counter[COUNTER_UNKNOWN_MODULES], 1);
}

static void who_is_held_to_a_rate_goes_on_when_there_is_none_any_more(void **state) {
  struct fixture *fixture = *state;
  struct worker *worker = &fixture->worker;
  worker->client_rates = (struct client_rates){.messages_per_s = 1, .messages_burst = 1};
  log_in(fixture);
  for (int index = 1; index <= 60; index++) {
    client_sends(&fixture->memory, &(struct packet){.mod = 77, .seq = 3, .index = index});
  }
  assert_true(fixture->memory.paused);
  worker->client_rates = (struct client_rates){0};
  session_rates_changed(LIST_FIRST(&worker->sessions));
  event_base_loop(worker->base, EVLOOP_ONCE);
  assert_false(fixture->memory.paused);
}

// A kilobyte may become a megabyte that a backend has to take.
static void a_message_counts_towards_the_rate_with_its_bytes_when_inflated(void **state) {
  enum { INFLATED_BYTES = 1 << 20, BYTES_PER_S = 1000, BURST_BYTES = 4000 };
  struct fixture *fixture = *state;
  struct worker *worker = &fixture->worker;
  uint8_t *zeros = calloc(1, INFLATED_BYTES);
  uint8_t data[4096];
  const uint8_t *out;
  struct packet packet = {.mod = 77, .seq = 3, .index = 1, .compress = true, .data = data};
  struct timeval due, now;
  worker->client_rates =
      (struct client_rates){.bytes_per_s = BYTES_PER_S, .bytes_burst = BURST_BYTES};
  worker->config.limits.idle_timeout_ms = 60000;
  log_in(fixture);
  assert_int_equal(deflater_compress(worker->deflater, 6, zeros, INFLATED_BYTES, sizeof data, &out,
                                     &packet.data_len),
                   0);
  memcpy(data, out, packet.data_len);
  free(zeros);
  client_sends(&fixture->memory, &packet);
  struct session *session = LIST_FIRST(&worker->sessions);
  assert_int_equal(fixture->counters.counter[COUNTER_INFLATED], 1);
  assert_int_equal(last_message(&fixture->memory).seq, SYSTEM_UNEXPECTED_ERROR);  // it was served
  assert_true(fixture->memory.paused);
  assert_true(event_pending(&session->delays->rate, EV_TIMEOUT, &due));
  evutil_gettimeofday(&now, NULL);
  assert_true(due.tv_sec - now.tv_sec > (INFLATED_BYTES - 2 * BURST_BYTES) / BYTES_PER_S / 2);

  // While it is not read, it is not idle.
  session->arrived_us -= INT64_C(61) * 1000 * 1000;
  event_active(&session->timer, EV_TIMEOUT, 0);
  turn(fixture);
  assert_int_equal(fixture->memory.closed, 0);
  event_active(&session->delays->rate, EV_TIMEOUT, 0);
  event_active(&session->timer, EV_TIMEOUT, 0);
  turn(fixture);
  assert_false(fixture->memory.paused);
  assert_int_equal(fixture->memory.closed, 0);
}

static void an_end_from_below_ends_it_and_the_master_hears_of_it(void **state) {
  struct fixture *fixture = *state;
  log_in(fixture);
  fixture->memory.transport.events->on_ended(CLOSE_CLIENT_RESET, fixture->memory.transport.owner);
  turn(fixture);
  assert_int_equal(fixture->memory.closed, 1);
  assert_false(fixture->memory.flushed);
  assert_int_equal(fixture->memory.reason, CLOSE_CLIENT_RESET);
  assert_int_equal(fixture->closed, 1);
  assert_true(LIST_EMPTY(&fixture->worker.sessions));
}

static void one_that_is_sent_away_is_told_and_flushed(void **state) {
  struct fixture *fixture = *state;
  log_in(fixture);
  session_close(LIST_FIRST(&fixture->worker.sessions), CLOSE_DRAIN);
  assert_int_equal(last_message(&fixture->memory).seq, SYSTEM_LOGOUT);
  assert_int_equal(fixture->memory.closed, 1);
  assert_true(fixture->memory.flushed);
  assert_int_equal(fixture->memory.reason, CLOSE_DRAIN);
}

static void what_waits_below_holds_pushes_back_until_it_has_drained(void **state) {
  struct fixture *fixture = *state;
  struct session *session;
  log_in(fixture);
  session = LIST_FIRST(&fixture->worker.sessions);
  fixture->memory.queued = 2000;
  session_send(session, &(struct packet){.mod = 3, .seq = 1});
  assert_false(session_takes_output(session));
  struct channel_push about = {.mod = 3, .seq = 2};
  struct push *push = push_new(&about);
  session_push(session, push);
  push_unref(push);
  assert_int_equal(fixture->memory.sent, 2);
  fixture->memory.queued = 50;
  fixture->memory.transport.events->on_drained(fixture->memory.transport.owner);
  assert_int_equal(fixture->memory.sent, 3);
  assert_true(session_takes_output(session));
}

static void without_a_transport_there_is_no_session(void **state) {
  struct fixture *fixture = *state;
  assert_false(
      session_new(&fixture->worker, LISTENER_KIND_TCP, "192.0.2.1:5", 0, NULL, make_none, NULL));
  assert_true(LIST_EMPTY(&fixture->worker.sessions));
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_login_waits_for_the_master_and_reads_no_further_meanwhile),
      FACT(junk_in_place_of_a_handshake_leaves_the_budget_to_the_others),
      FACT(what_logs_in_over_kcp_leaves_the_budget_to_the_others),
      FACT(a_message_that_nobody_serves_is_answered),
      FACT(who_is_held_to_a_rate_goes_on_when_there_is_none_any_more),
      FACT(a_message_counts_towards_the_rate_with_its_bytes_when_inflated),
      FACT(an_end_from_below_ends_it_and_the_master_hears_of_it),
      FACT(one_that_is_sent_away_is_told_and_flushed),
      FACT(what_waits_below_holds_pushes_back_until_it_has_drained),
      FACT(without_a_transport_there_is_no_session),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
