// A burst of logins: how much of it is done in one turn of the loop, and who is served meanwhile.
#include "worker/newcomers.h"

#include "test/unit/worker/session_fixture.h"

// More handshakes than any processor does in a slice.
enum { BURST = 2000, FIRST_UID = 20001 };

static struct memory burst[BURST];
static int asked;        // of the burst, in order
static int asked_wrong;  // out of it

static void on_asked(enum channel_type type, const void *content, struct fixture *fixture) {
  const struct channel_login *login = content;
  (void)fixture;
  if (type == CHANNEL_LOGIN && login->session.uid >= FIRST_UID) {
    asked_wrong += login->session.uid != FIRST_UID + asked;
    asked++;
  }
}

static void come(struct fixture *fixture, struct memory *memory, int64_t uid) {
  assert_true(
      session_new(&fixture->worker, LISTENER_KIND_TCP, "192.0.2.1:5", 0, NULL, make, memory));
  send_handshake(fixture, memory, "blue", uid, 0);
}

static size_t waiting(const struct fixture *fixture) {
  size_t count = 0;
  const struct session *session;
  LIST_FOREACH(session, &fixture->worker.sessions, link) { count += session->requested != NULL; }
  return count;
}

static void burst_of_logins(struct fixture *fixture) {
  memset(burst, 0, sizeof burst);
  asked = asked_wrong = 0;
  fixture->on_message = on_asked;
  for (int i = 0; i < BURST; i++) {
    come(fixture, &burst[i], FIRST_UID + i);
  }
}

static void a_single_login_does_not_wait(void **state) {
  struct fixture *fixture = *state;
  come(fixture, &fixture->memory, 10001);
  assert_int_equal(waiting(fixture), 0);
  assert_int_equal(fixture->counters.counter[COUNTER_HANDSHAKES_WAITED], 0);
}

static void a_burst_is_worked_off_in_order_over_many_turns_beside_a_player(void **state) {
  struct fixture *fixture = *state;
  come(fixture, &fixture->memory, 10001);
  master_answers(fixture, CHANNEL_LOGIN_ADMITTED);
  burst_of_logins(fixture);
  size_t left = waiting(fixture);
  assert_true(left > 0);
  assert_true(burst[BURST - 1].paused);
  assert_int_equal(fixture->counters.counter[COUNTER_HANDSHAKES_WAITED], left);
  int32_t index = 1;
  int turns = 0;
  while ((left = waiting(fixture)) > 0) {
    // The player is answered in each turn, by the gateway itself: nobody serves this module.
    int sent = fixture->memory.sent;
    client_sends(&fixture->memory, &(struct packet){.mod = 77, .seq = 3, .index = index++});
    assert_int_equal(fixture->memory.sent, sent + 1);
    assert_int_equal(last_message(&fixture->memory).seq, SYSTEM_UNEXPECTED_ERROR);
    event_base_loop(fixture->worker.base, EVLOOP_ONCE);
    turns++;
    assert_true(turns == 1 || waiting(fixture) < left);
  }
  assert_true(turns > 2);
  for (int i = 0; i < 1000 && asked < BURST; i++) {
    turn(fixture);
  }
  assert_int_equal(asked, BURST);
  assert_int_equal(asked_wrong, 0);
}

static void the_master_hears_of_several_turns_of_a_burst_at_once(void **state) {
  struct fixture *fixture = *state;
  burst_of_logins(fixture);
  for (int i = 0; i < 3; i++) {  // those whose turn it was before there was a burst
    event_base_loop(fixture->worker.base, EVLOOP_ONCE);
  }
  channel_drain(fixture->master);  // it hears all that has left
  int heard = asked;
  size_t left = waiting(fixture);
  assert_true(heard < BURST - (int)left);
  for (int i = 0; i < 4; i++) {
    event_base_loop(fixture->worker.base, EVLOOP_ONCE);
    channel_drain(fixture->master);
    assert_int_equal(asked, heard);
    assert_true(waiting(fixture) < left);
    left = waiting(fixture);
  }
  for (int i = 0; i < 1000 && asked == heard; i++) {
    turn(fixture);
    channel_drain(fixture->master);
  }
  assert_true(asked > heard);
}

static void what_waits_for_the_master_still_leaves_when_a_worker_ends(void **state) {
  struct fixture *fixture = *state;
  struct worker *worker = &fixture->worker;
  struct session *session;
  burst_of_logins(fixture);
  for (int i = 0; i < 3; i++) {
    event_base_loop(worker->base, EVLOOP_ONCE);
  }
  channel_drain(fixture->master);
  int heard = asked;
  event_base_loop(worker->base, EVLOOP_ONCE);
  channel_drain(fixture->master);
  assert_int_equal(asked, heard);
  while ((session = LIST_FIRST(&worker->sessions))) {
    session_close(session, CLOSE_DRAIN);
  }
  newcomers_free(worker->newcomers);
  worker->newcomers = NULL;
  turn(fixture);
  channel_drain(fixture->master);
  assert_true(asked > heard);
}

static void who_gives_up_waits_no_longer(void **state) {
  struct fixture *fixture = *state;
  burst_of_logins(fixture);
  size_t left = waiting(fixture);
  const struct transport *last = &burst[BURST - 1].transport;
  last->events->on_ended(CLOSE_CLIENT_RESET, last->owner);
  assert_int_equal(waiting(fixture), left - 1);
  while (waiting(fixture) > 0) {
    event_base_loop(fixture->worker.base, EVLOOP_ONCE);
  }
  for (int i = 0; i < 1000 && asked < BURST - 1; i++) {
    turn(fixture);
  }
  assert_int_equal(asked, BURST - 1);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_single_login_does_not_wait),
      FACT(a_burst_is_worked_off_in_order_over_many_turns_beside_a_player),
      FACT(the_master_hears_of_several_turns_of_a_burst_at_once),
      FACT(what_waits_for_the_master_still_leaves_when_a_worker_ends),
      FACT(who_gives_up_waits_no_longer),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
