#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "master/admission.h"

struct fixture {
  struct config config;
  struct counters counters;
  struct directory *directory;
  struct bans *bans;
  struct admission *admission;
  struct other_gateways *others;
  uint64_t answered;
  int32_t refusal;
  uint64_t closed[8];
  size_t closed_count;
  uint8_t next_key;
  char unused_route[16];  // the color of the last
};

// --- Other gateways, in place of ours (see the Makefile) ------------------------------------

static other_gateways_on_answer *on_others_answer;
static void *others_context[4];
static size_t others_asked;

// NOLINTBEGIN(bugprone-reserved-identifier): the linker's name for what it puts in place of ours
bool __wrap_other_gateways_ask(struct other_gateways *others, int64_t uid, const char *color,
                               other_gateways_on_answer *on_answer, void *context);

bool __wrap_other_gateways_ask(struct other_gateways *others, int64_t uid, const char *color,
                               other_gateways_on_answer *on_answer, void *context) {
  (void)others;
  (void)uid;
  (void)color;
  on_others_answer = on_answer;
  others_context[others_asked++] = context;
  return true;
}
// NOLINTEND(bugprone-reserved-identifier)

// --- What admission says -----------------------------------------------------------------

static void on_unused_route(int64_t uid, const char *color, void *owner) {
  struct fixture *fixture = owner;
  assert_int_equal(uid, 100);
  strcpy(fixture->unused_route, color);
}

static void on_conflict(const struct directory_session *session, void *owner) {
  struct fixture *fixture = owner;
  assert_int_equal(session->worker, 3);
  fixture->closed[fixture->closed_count++] = session->session.connection;
}

static void on_ban(const struct ban *ban, void *owner) {
  (void)ban;
  (void)owner;
}

static void on_answer(int worker, uint64_t connection, struct directory_session *session,
                      int32_t refusal, void *owner) {
  struct fixture *fixture = owner;
  assert_int_equal(worker, 3);
  assert_int_equal(session != NULL, refusal == CHANNEL_LOGIN_ADMITTED);
  fixture->answered = connection;
  fixture->refusal = refusal;
}

static int set_up_with(void **state, struct other_gateways *others) {
  struct fixture *fixture = calloc(1, sizeof *fixture);
  others_asked = 0;
  fixture->config.label.encrypted = true;
  fixture->config.limits.handshake_clock_ms = 5000;
  fixture->directory = directory_new();
  const struct bans_options bans_options = {
      .config = &fixture->config, .counters = &fixture->counters, .on_ban = on_ban};
  fixture->bans = bans_new(&bans_options);
  const struct admission_options options = {.config = &fixture->config,
                                            .directory = fixture->directory,
                                            .bans = fixture->bans,
                                            .counters = &fixture->counters,
                                            .on_answer = on_answer,
                                            .others = others,
                                            .on_conflict = on_conflict,
                                            .on_unused_route = on_unused_route,
                                            .owner = fixture};
  fixture->admission = admission_new(&options);
  *state = fixture;
  return fixture->directory && fixture->admission ? 0 : -1;
}

static int set_up(void **state) { return set_up_with(state, NULL); }

static int set_up_among_others(void **state) {
  static const struct other_gateways_options options = {.owner = NULL};
  struct other_gateways *others = other_gateways_new(&options);
  int error = set_up_with(state, others);
  struct fixture *fixture = *state;
  fixture->others = others;
  fixture->config.login.conflict = LOGIN_REFUSE_SECOND;
  return error;
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  admission_free(fixture->admission);
  other_gateways_free(fixture->others);
  bans_free(fixture->bans);
  directory_free(fixture->directory);
  free(fixture);
  return 0;
}

static int32_t ask_with_key(struct fixture *fixture, uint64_t connection, uint64_t client,
                            int64_t uid, uint8_t key) {
  struct channel_login login = {.session = {.connection = connection, .client = client, .uid = uid},
                                .client_key = {key}};
  strcpy(login.session.address, "192.0.2.7:4000");
  fixture->answered = 0;
  admission_ask(fixture->admission, 3, &login);
  assert_int_equal(fixture->answered, connection);
  assert_int_equal(directory_find(fixture->directory, connection) != NULL,
                   fixture->refusal == CHANNEL_LOGIN_ADMITTED);
  return fixture->refusal;
}

static int32_t ask(struct fixture *fixture, uint64_t connection, uint64_t client, int64_t uid) {
  return ask_with_key(fixture, connection, client, uid, ++fixture->next_key);
}

static void the_newest_wins_and_the_old_one_is_closed(void **state) {
  struct fixture *fixture = *state;
  assert_int_equal(ask(fixture, 1, 1, 100), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(ask(fixture, 2, 2, 200), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(fixture->closed_count, 0);
  assert_int_equal(ask(fixture, 3, 3, 100), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(fixture->closed_count, 1);
  assert_int_equal(fixture->closed[0], 1);
}

static void the_late_end_of_the_old_one_leaves_the_new_one(void **state) {
  struct fixture *fixture = *state;
  ask(fixture, 1, 1, 100);
  ask(fixture, 2, 2, 100);
  directory_remove(fixture->directory, directory_find(fixture->directory, 1));
  assert_non_null(directory_find(fixture->directory, 2));
  assert_true(directory_has_player(fixture->directory, 100, ""));
}

static void a_second_one_is_refused_where_the_settings_say_so(void **state) {
  struct fixture *fixture = *state;
  fixture->config.login.conflict = LOGIN_REFUSE_SECOND;
  assert_int_equal(ask(fixture, 1, 1, 100), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(ask(fixture, 2, 2, 100), CLOSE_CONFLICTING_LOGIN);
  assert_int_equal(fixture->closed_count, 0);
}

static void ask_in_color(struct fixture *fixture, uint64_t connection, const char *color) {
  struct channel_login login = {
      .session = {.connection = connection, .client = connection, .uid = 100},
      .client_key = {(uint8_t)connection}};
  strcpy(login.session.address, "192.0.2.7:4000");
  strcpy(login.session.color, color);
  admission_ask(fixture->admission, 3, &login);
}

// Else no gateway would let him in there until the route has expired.
static void the_route_that_was_taken_for_one_who_is_refused_then_is_given_back(void **state) {
  struct fixture *fixture = *state;
  ask_in_color(fixture, 1, "blue");
  ask_in_color(fixture, 2, "green");
  assert_int_equal(others_asked, 2);
  assert_true(admission_expects(fixture->admission, 100, "blue"));
  assert_false(admission_expects(fixture->admission, 100, "red"));
  assert_false(admission_expects(fixture->admission, 101, "blue"));
  on_others_answer(true, true, others_context[0]);
  assert_false(admission_expects(fixture->admission, 100, "blue"));
  assert_int_equal(fixture->answered, 1);
  assert_int_equal(fixture->refusal, CHANNEL_LOGIN_ADMITTED);
  assert_string_equal(fixture->unused_route, "");
  on_others_answer(true, true, others_context[1]);
  assert_int_equal(fixture->answered, 2);
  assert_int_equal(fixture->refusal, CLOSE_CONFLICTING_LOGIN);
  assert_string_equal(fixture->unused_route, "green");
}

static void a_route_that_the_player_has_stays(void **state) {
  struct fixture *fixture = *state;
  ask_in_color(fixture, 1, "blue");
  ask_in_color(fixture, 2, "blue");
  on_others_answer(true, true, others_context[0]);
  on_others_answer(true, true, others_context[1]);
  assert_int_equal(fixture->refusal, CLOSE_CONFLICTING_LOGIN);
  assert_string_equal(fixture->unused_route, "");
}

static void sessions_on_one_client_are_siblings(void **state) {
  struct fixture *fixture = *state;
  assert_int_equal(ask(fixture, 1, 9, 100), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(ask(fixture, 2, 9, 100), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(fixture->closed_count, 0);
  // One on another client throws out both.
  assert_int_equal(ask(fixture, 3, 10, 100), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(fixture->closed_count, 2);
}

static void siblings_may_have_one_key_and_nobody_else_may(void **state) {
  struct fixture *fixture = *state;
  assert_int_equal(ask_with_key(fixture, 1, 9, 100, 77), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(ask_with_key(fixture, 2, 9, 100, 77), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(ask_with_key(fixture, 3, 9, 200, 77), CLOSE_HANDSHAKE_REPLAY);
  assert_int_equal(ask_with_key(fixture, 4, 10, 100, 77), CLOSE_HANDSHAKE_REPLAY);
  assert_int_equal(fixture->closed_count, 0);
}

static void siblings_are_no_second_login_where_that_is_refused(void **state) {
  struct fixture *fixture = *state;
  fixture->config.login.conflict = LOGIN_REFUSE_SECOND;
  assert_int_equal(ask(fixture, 1, 9, 100), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(ask(fixture, 2, 9, 100), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(ask(fixture, 3, 10, 100), CLOSE_CONFLICTING_LOGIN);
}

static void a_replay_is_refused_and_throws_nobody_out(void **state) {
  struct fixture *fixture = *state;
  assert_int_equal(ask_with_key(fixture, 1, 1, 100, 77), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(ask_with_key(fixture, 2, 2, 100, 77), CLOSE_HANDSHAKE_REPLAY);
  assert_int_equal(fixture->closed_count, 0);
}

static void a_key_is_no_matter_without_encryption(void **state) {
  struct fixture *fixture = *state;
  fixture->config.label.encrypted = false;
  assert_int_equal(ask_with_key(fixture, 1, 1, 100, 0), CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(ask_with_key(fixture, 2, 2, 200, 0), CHANNEL_LOGIN_ADMITTED);
}

static void a_connection_is_listed_once(void **state) {
  struct fixture *fixture = *state;
  assert_int_equal(ask(fixture, 1, 1, 100), CHANNEL_LOGIN_ADMITTED);
  struct channel_login login = {.session = {.connection = 1, .client = 1, .uid = 300},
                                .client_key = {200}};
  admission_ask(fixture->admission, 3, &login);
  assert_int_equal(fixture->refusal, CLOSE_OUT_OF_MEMORY);
}

static void ban(struct fixture *fixture, struct ban_subject subject) {
  int64_t now_ms = clock_wall_ms();
  assert_int_equal(bans_add(fixture->bans, &subject, now_ms + 60000, "test", now_ms), 0);
}

static void who_is_banned_is_refused_and_throws_nobody_out(void **state) {
  struct fixture *fixture = *state;
  assert_int_equal(ask(fixture, 1, 1, 100), CHANNEL_LOGIN_ADMITTED);
  ban(fixture, (struct ban_subject){.kind = BAN_UID, .uid = 100});
  assert_int_equal(ask(fixture, 2, 2, 100), CLOSE_BANNED);
  assert_int_equal(fixture->closed_count, 0);
  assert_int_equal(ask(fixture, 3, 3, 101), CHANNEL_LOGIN_ADMITTED);
  struct ban_subject network = {.kind = BAN_NETWORK};
  assert_int_equal(network_parse("192.0.2.0/24", &network.network), 0);
  ban(fixture, network);
  assert_int_equal(ask(fixture, 4, 4, 102), CLOSE_BANNED);
}

int main(void) {
#define AMONG_OTHERS(test) cmocka_unit_test_setup_teardown(test, set_up_among_others, tear_down)
#define FACT(test)         cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(the_newest_wins_and_the_old_one_is_closed),
      FACT(the_late_end_of_the_old_one_leaves_the_new_one),
      FACT(a_second_one_is_refused_where_the_settings_say_so),
      AMONG_OTHERS(the_route_that_was_taken_for_one_who_is_refused_then_is_given_back),
      AMONG_OTHERS(a_route_that_the_player_has_stays),
      FACT(sessions_on_one_client_are_siblings),
      FACT(siblings_may_have_one_key_and_nobody_else_may),
      FACT(siblings_are_no_second_login_where_that_is_refused),
      FACT(a_replay_is_refused_and_throws_nobody_out),
      FACT(a_key_is_no_matter_without_encryption),
      FACT(a_connection_is_listed_once),
      FACT(who_is_banned_is_refused_and_throws_nobody_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
