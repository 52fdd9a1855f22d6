#include "master/ban.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static int parse(const char *field, const char *value, struct ban *ban) {
  return ban_parse(field, strlen(field), value, strlen(value), ban);
}

static void a_field_reads_back(void **state) {
  (void)state;
  static const char *const fields[] = {"uid:10001",
                                       "uid:0",
                                       "uid:-5",
                                       "uid:9223372036854775807",
                                       "uid:-9223372036854775808",
                                       "net:10.0.0.0/8",
                                       "net:192.0.2.7",
                                       "net:::1",
                                       "net:2001:db8::/32",
                                       "net:1234:5678:9abc:def0:1234:5678:9abc:def0/127"};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    struct ban_subject subject;
    char text[BAN_FIELD_BYTES];
    assert_int_equal(ban_parse_field(fields[i], strlen(fields[i]), &subject), 0);
    assert_int_equal(ban_field(&subject, text), strlen(fields[i]));
    assert_string_equal(text, fields[i]);
  }
}

static void what_is_no_field_is_refused(void **state) {
  (void)state;
  static const char *const fields[] = {"",
                                       "uid",
                                       "uid:",
                                       "uid:x",
                                       "uid:+1",
                                       "uid:01",
                                       "uid: 1",
                                       "uid:1 ",
                                       "uid:-0",
                                       "uid:9223372036854775808",
                                       "UID:1",
                                       "1",
                                       "net:",
                                       "net:10",
                                       "net:10.1.2.3/8",
                                       "net:10.0.0.0/08",
                                       "net:192.0.2.7/32",
                                       "net:::ffff:10.0.0.0/104",
                                       "net:2001:DB8::/32",
                                       "net:1.2.3.4/33",
                                       "net:uid:1"};
  struct ban_subject subject;
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    if (ban_parse_field(fields[i], strlen(fields[i]), &subject) != ERROR_MALFORMED) {
      fail_msg("\"%s\" was taken", fields[i]);
    }
  }
  assert_int_equal(ban_parse_field("uid:1\0", 6, &subject), ERROR_MALFORMED);
  assert_int_equal(ban_parse_field("uid:1\0002", 7, &subject), ERROR_MALFORMED);
  char huge[4096];
  memset(huge, '1', sizeof huge);
  memcpy(huge, "uid:", 4);
  assert_int_equal(ban_parse_field(huge, sizeof huge, &subject), ERROR_MALFORMED);
}

static void a_ban_reads_back_whatever_its_reason_is(void **state) {
  (void)state;
  static const char *const reasons[] = {"", "cheating", "say \"no\" \\ \xc3\xa9\xe2\x82\xac", "{}"};
  for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
    struct ban ban = {
        .subject = {.kind = BAN_UID, .uid = -7}, .since_ms = 5, .until_ms = INT64_MAX};
    struct ban again;
    strcpy(ban.reason, reasons[i]);
    strcpy(ban.by, "10.0.0.5:19100");
    char *value = ban_value(&ban);
    assert_non_null(value);
    assert_null(strchr(value, '\n'));
    assert_int_equal(parse("uid:-7", value, &again), 0);
    assert_memory_equal(&ban, &again, sizeof ban);
    free(value);
  }
}

static void the_largest_ban_has_room(void **state) {
  (void)state;
  struct ban ban = {.subject = {.kind = BAN_UID}, .since_ms = INT64_MAX, .until_ms = INT64_MAX};
  struct ban again;
  memset(ban.reason, '"', sizeof ban.reason - 1);
  memset(ban.by, '\\', sizeof ban.by - 1);
  assert_int_equal(ban_check_reason(ban.reason), 0);
  char *value = ban_value(&ban);
  assert_true(strlen(value) < BAN_VALUE_MAX_BYTES);
  assert_int_equal(parse("uid:0", value, &again), 0);
  assert_memory_equal(&ban, &again, sizeof ban);
  free(value);
}

static void only_until_ms_is_needed(void **state) {
  (void)state;
  struct ban ban;
  assert_int_equal(parse("net:10.0.0.0/8", "{\"until_ms\":77,\"more\":[1]}", &ban), 0);
  assert_int_equal(ban.until_ms, 77);
  assert_int_equal(ban.since_ms, 0);
  assert_string_equal(ban.reason, "");
  assert_string_equal(ban.by, "");
}

static void what_is_no_value_is_refused(void **state) {
  (void)state;
  static const char *const values[] = {"",
                                       "garbage",
                                       "0",
                                       "[]",
                                       "{}",
                                       "\"until_ms\"",
                                       "{\"until_ms\":\"5\"}",
                                       "{\"until_ms\":1.5}",
                                       "{\"until_ms\":-1}",
                                       "{\"until_ms\":99999999999999999999}",
                                       "{\"until_ms\":null}",
                                       "{\"until_ms\":5",
                                       "{\"until_ms\":5}x",
                                       "{\"until_ms\":5,\"reason\":7}",
                                       "{\"until_ms\":5,\"reason\":null}",
                                       "{\"until_ms\":5,\"reason\":\"a\\nb\"}",
                                       "{\"until_ms\":5,\"reason\":\"a\\u0000b\"}",
                                       "{\"until_ms\":5,\"reason\":\"\\u001b[2J\"}",
                                       "{\"until_ms\":5,\"reason\":\"\xff\"}",
                                       "{\"until_ms\":5,\"by\":[]}",
                                       "{\"until_ms\":5,\"since_ms\":\"x\"}",
                                       "{\"until_ms\":5,\"since_ms\":-1}"};
  struct ban ban;
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    if (parse("uid:1", values[i], &ban) != ERROR_MALFORMED) {
      fail_msg("%s was taken", values[i]);
    }
  }
  char text[4096];
  snprintf(text, sizeof text, "{\"until_ms\":5,\"reason\":\"%0101d\"}", 0);
  assert_int_equal(parse("uid:1", text, &ban), ERROR_MALFORMED);
  snprintf(text, sizeof text, "{\"until_ms\":5,\"by\":\"%0128d\"}", 0);
  assert_int_equal(parse("uid:1", text, &ban), ERROR_MALFORMED);
  snprintf(text, sizeof text, "{\"until_ms\":5,\"more\":\"%02048d\"}", 0);
  assert_int_equal(parse("uid:1", text, &ban), ERROR_MALFORMED);
  memset(text, '[', sizeof text);
  assert_int_equal(ban_parse("uid:1", 5, text, BAN_VALUE_MAX_BYTES, &ban), ERROR_MALFORMED);
}

static void a_reason_is_plain_text_of_a_hundred_bytes(void **state) {
  (void)state;
  char reason[102];
  memset(reason, 'x', sizeof reason);
  reason[101] = '\0';
  assert_int_equal(ban_check_reason(reason), ERROR_TOO_LARGE);
  reason[100] = '\0';
  assert_int_equal(ban_check_reason(reason), 0);
  assert_int_equal(ban_check_reason(""), 0);
  assert_int_equal(ban_check_reason("a\tb"), ERROR_INVALID);
  assert_int_equal(ban_check_reason("\x7f"), ERROR_INVALID);
  assert_int_equal(ban_check_reason("\xc3"), ERROR_INVALID);
}

static void a_ban_fits_its_player_or_its_network(void **state) {
  (void)state;
  struct ban ban;
  assert_int_equal(parse("uid:5", "{\"until_ms\":0}", &ban), 0);
  assert_true(ban_fits(&ban, 5, "unknown:0"));
  assert_false(ban_fits(&ban, 6, "10.0.0.1:1"));
  assert_int_equal(parse("net:10.0.0.0/8", "{\"until_ms\":0}", &ban), 0);
  assert_true(ban_fits(&ban, 5, "10.0.0.1:1"));
  assert_true(ban_fits(&ban, 5, "[::ffff:10.0.0.1]:1"));
  assert_false(ban_fits(&ban, 5, "11.0.0.1:1"));
  assert_false(ban_fits(&ban, 5, "unknown:0"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_field_reads_back),
      cmocka_unit_test(what_is_no_field_is_refused),
      cmocka_unit_test(a_ban_reads_back_whatever_its_reason_is),
      cmocka_unit_test(the_largest_ban_has_room),
      cmocka_unit_test(only_until_ms_is_needed),
      cmocka_unit_test(what_is_no_value_is_refused),
      cmocka_unit_test(a_reason_is_plain_text_of_a_hundred_bytes),
      cmocka_unit_test(a_ban_fits_its_player_or_its_network),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
