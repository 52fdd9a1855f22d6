// Answers that are compressed over several turns of the loop: what else is served meanwhile, and in
// which order a session's messages arrive.
#include "worker/packing.h"

#include "common/deflate.h"
#include "test/unit/worker/session_fixture.h"

// Several slices' work, on any machine, that fits a client's message.
enum { LONG_BYTES = 8 << 20, STRONG_BYTES = 20000 };

static uint8_t long_data[LONG_BYTES];

struct pair {
  struct memory memory[2];
  struct session *session[2];
};

static void log_in(struct fixture *fixture, struct pair *pair) {
  fixture->worker.config.compress.weak_bytes = STRONG_BYTES;
  fixture->worker.config.compress.strong_bytes = STRONG_BYTES;
  memset(pair, 0, sizeof *pair);
  memset(long_data, 'a', sizeof long_data);
  for (int i = 0; i < 2; i++) {
    assert_true(session_new(&fixture->worker, LISTENER_KIND_TCP, "192.0.2.1:5", 0, NULL, make,
                            &pair->memory[i]));
    pair->session[i] = LIST_FIRST(&fixture->worker.sessions);
    send_handshake(fixture, &pair->memory[i], "blue", 10001 + i, 0);
    master_answers(fixture, CHANNEL_LOGIN_ADMITTED);
    assert_int_equal(pair->memory[i].sent, 1);
  }
}

static void answer(struct session *session, int32_t seq, size_t len) {
  session_on_answer(session,
                    &(struct packet){.mod = 3, .seq = seq, .data = long_data, .data_len = len});
}

static void push_to(struct session *session, int32_t seq) {
  struct channel_push about = {.mod = 3, .seq = seq};
  struct packet packet = {.mod = 3, .seq = seq};
  uint8_t bytes[64];
  _Alignas(16) uint8_t content[sizeof about + sizeof bytes];
  about.packet_bytes = (uint32_t)(packet_encode(&packet, bytes) - bytes);
  memcpy(content, &about, sizeof about);
  memcpy(content + sizeof about, bytes, about.packet_bytes);
  struct push *push = push_new((const struct channel_push *)content);
  assert_non_null(push);
  session_push(session, push);
  push_unref(push);
}

static void until_all_is_packed(struct fixture *fixture, const struct session *session) {
  while (session->packing > 0) {
    event_base_loop(fixture->worker.base, EVLOOP_ONCE);
  }
}

static void a_long_answer_takes_several_turns_and_others_are_served_meanwhile(void **state) {
  struct fixture *fixture = *state;
  static struct pair pair;
  int turns = 0;
  log_in(fixture, &pair);
  answer(pair.session[0], 11, LONG_BYTES);
  while (pair.session[0]->packing > 0) {
    event_base_loop(fixture->worker.base, EVLOOP_ONCE);
    if (turns++ == 0) {
      answer(pair.session[1], 12, 10);
      assert_int_equal(pair.memory[1].sent, 2);
      assert_int_equal(pair.memory[0].sent, 1);
    }
  }
  assert_true(turns > 2);
  assert_int_equal(pair.memory[0].sent, 2);
  struct packet packet = last_message(&pair.memory[0]);
  assert_true(packet.compress);
  assert_int_equal(packet.seq, 11);
  const uint8_t *data;
  size_t len;
  assert_int_equal(deflater_inflate(fixture->worker.deflater, packet.data, packet.data_len,
                                    LONG_BYTES, &data, &len),
                   0);
  assert_int_equal(len, LONG_BYTES);
  assert_memory_equal(data, long_data, LONG_BYTES);
  assert_int_equal(fixture->counters.counter[COUNTER_DEFLATED_IN_SLICES], 1);
  assert_int_equal(fixture->counters.counter[COUNTER_DEFLATED], 1);
}

static void what_comes_behind_a_long_answer_stays_behind_it(void **state) {
  struct fixture *fixture = *state;
  static struct pair pair;
  log_in(fixture, &pair);
  answer(pair.session[0], 11, LONG_BYTES);
  push_to(pair.session[0], 14);
  answer(pair.session[0], 12, 10);
  answer(pair.session[0], 13, STRONG_BYTES);
  assert_int_equal(pair.memory[0].sent, 1);
  assert_false(session_takes_output(pair.session[0]));
  assert_true(pair.memory[0].paused);
  until_all_is_packed(fixture, pair.session[0]);
  assert_int_equal(pair.memory[0].sent, 5);
  for (int i = 1; i < 5; i++) {
    assert_int_equal(pair.memory[0].seqs[i], 10 + i);
  }
  assert_true(session_takes_output(pair.session[0]));
  assert_false(pair.memory[0].paused);
  assert_int_equal(fixture->counters.gauge[GAUGE_PUSHES_WAITING], 0);
}

static void one_is_after_the_other_whosever_they_are(void **state) {
  struct fixture *fixture = *state;
  static struct pair pair;
  log_in(fixture, &pair);
  answer(pair.session[0], 11, LONG_BYTES);
  answer(pair.session[1], 21, LONG_BYTES);
  until_all_is_packed(fixture, pair.session[0]);
  assert_int_equal(pair.memory[0].sent, 2);
  until_all_is_packed(fixture, pair.session[1]);
  assert_int_equal(pair.memory[1].sent, 2);
  assert_memory_equal(pair.memory[0].last + 4, pair.memory[1].last + 4, 100);
}

static void a_session_that_ends_takes_what_waits_with_it(void **state) {
  struct fixture *fixture = *state;
  static struct pair pair;
  log_in(fixture, &pair);
  answer(pair.session[0], 11, LONG_BYTES);
  answer(pair.session[1], 21, LONG_BYTES);
  answer(pair.session[0], 12, 10);
  event_base_loop(fixture->worker.base, EVLOOP_ONCE);
  session_close(pair.session[0], CLOSE_DRAIN);
  assert_int_equal(fixture->counters.counter[COUNTER_DROPPED_OUT], 2);
  assert_int_equal(pair.memory[0].sent, 2);
  assert_int_equal(last_message(&pair.memory[0]).seq, SYSTEM_LOGOUT);
  until_all_is_packed(fixture, pair.session[1]);
  assert_int_equal(pair.memory[1].sent, 2);
  assert_int_equal(last_message(&pair.memory[1]).seq, 21);
}

static void a_logout_behind_a_long_answer_comes_after_it(void **state) {
  struct fixture *fixture = *state;
  static struct pair pair;
  log_in(fixture, &pair);
  answer(pair.session[0], 11, LONG_BYTES);
  session_on_answer(pair.session[0], &(struct packet){.mod = MODULE_SYSTEM, .seq = SYSTEM_LOGOUT});
  while (pair.memory[0].closed == 0) {
    event_base_loop(fixture->worker.base, EVLOOP_ONCE);
  }
  assert_int_equal(pair.memory[0].sent, 3);
  assert_int_equal(pair.memory[0].seqs[1], 11);
  assert_int_equal(pair.memory[0].seqs[2], SYSTEM_LOGOUT);
  assert_int_equal(pair.memory[0].reason, CLOSE_ROMA_LOGOUT);
  assert_int_equal(fixture->counters.counter[COUNTER_DROPPED_OUT], 0);
}

static void one_that_is_too_large_even_so_is_told_in_its_place(void **state) {
  struct fixture *fixture = *state;
  static struct pair pair;
  log_in(fixture, &pair);
  randombytes_buf(long_data, sizeof long_data);
  answer(pair.session[0], 11, LONG_BYTES);
  answer(pair.session[0], 12, 10);
  until_all_is_packed(fixture, pair.session[0]);
  assert_int_equal(pair.memory[0].sent, 3);
  assert_int_equal(pair.memory[0].seqs[1], SYSTEM_UNEXPECTED_ERROR);
  assert_int_equal(pair.memory[0].seqs[2], 12);
  assert_int_equal(fixture->counters.counter[COUNTER_TOO_LARGE_OUT], 1);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_long_answer_takes_several_turns_and_others_are_served_meanwhile),
      FACT(what_comes_behind_a_long_answer_stays_behind_it),
      FACT(one_is_after_the_other_whosever_they_are),
      FACT(a_session_that_ends_takes_what_waits_with_it),
      FACT(a_logout_behind_a_long_answer_comes_after_it),
      FACT(one_that_is_too_large_even_so_is_told_in_its_place),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
