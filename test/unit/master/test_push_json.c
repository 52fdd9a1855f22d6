#include "master/push_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODIES "\"bodies\":[{\"mod\":1}]"

static int decode_bytes(enum push_json_form form, const char *text, size_t len, const char *uid,
                        const char *color, struct push_json **json, char *why) {
  // Exactly as long as it is, so that reading on is seen.
  char *bytes = malloc(len > 0 ? len : 1);
  memcpy(bytes, text, len);
  const struct push_json_request request = {
      .form = form, .text = bytes, .len = len, .uid = uid, .color = color};
  memset(why, '#', PUSH_JSON_WHY_BYTES);
  int error = push_json_decode(&request, json, why);
  if (error != 0) {
    assert_non_null(memchr(why, '\0', PUSH_JSON_WHY_BYTES));
    for (const char *at = why; *at; at++) {
      assert_in_range(*at, ' ', '~');
    }
  }
  free(bytes);
  return error;
}

static struct push_json *decode_with(enum push_json_form form, const char *text, const char *uid,
                                     const char *color) {
  struct push_json *json = NULL;
  char why[PUSH_JSON_WHY_BYTES];
  int error = decode_bytes(form, text, strlen(text), uid, color, &json, why);
  if (error != 0) {
    fail_msg("%.100s was refused: %s", text, why);
  }
  return json;
}

static struct push_json *decode(enum push_json_form form, const char *text) {
  return decode_with(form, text, NULL, NULL);
}

static void expect_refusal(enum push_json_form form, const char *text, const char *uid,
                           const char *color, const char *wanted) {
  struct push_json *json = NULL;
  char why[PUSH_JSON_WHY_BYTES];
  if (decode_bytes(form, text, strlen(text), uid, color, &json, why) != ERROR_MALFORMED) {
    fail_msg("%.100s was taken", text);
  }
  if (strcmp(why, wanted) != 0) {
    fail_msg("%.100s: \"%s\" instead of \"%s\"", text, why, wanted);
  }
}

// --- Bodies --------------------------------------------------------------------------

static void a_body_has_all_that_it_says(void **state) {
  (void)state;
  static const char *const texts[] = {
      "{\"bodies\":[{\"data\":\"aGVsbG8=\",\"dataVersion\":\"18446744073709551615\","
      "\"obj\":\"-9223372036854775808\",\"mod\":-2147483648,\"seq\":2147483647}],\"uids\":[1]}",
      "{\"uids\":[\"1\"],\"bodies\":[{\"seq\":\"2147483647\",\"mod\":\"-2147483648\","
      "\"obj\":-9223372036854775808,\"data_version\":\"18446744073709551615\","
      "\"data\":\"aGVsbG8\"}]}",
      "\t{ \"bodies\" :\r\n[ { \"data\" : \"\\u0061GVsbG8=\" , \"data_version\" : "
      "\"18446744073709551615\", \"obj\" : \"-9223372036854775808\", \"mod\": -2147483648, "
      "\"seq\" : 2147483647 } ] , \"uids\" : [ 1 ] } \n",
  };
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    struct push_json *json = decode(PUSH_JSON_MULTICAST, texts[i]);
    const struct push_body *body = json->order.bodies;
    assert_int_equal(json->order.body_count, 1);
    assert_int_equal(body->data_len, 5);
    assert_memory_equal(body->data, "hello", 5);
    assert_true(body->data_version == UINT64_MAX);
    assert_true(body->obj == INT64_MIN);
    assert_int_equal(body->mod, INT32_MIN);
    assert_int_equal(body->seq, INT32_MAX);
    push_json_free(json);
  }
}

static void what_is_absent_or_null_is_nothing(void **state) {
  (void)state;
  static const char *const texts[] = {
      "{\"bodies\":[{}]}",
      "{\"bodies\":[{\"data\":\"\",\"dataVersion\":0,\"obj\":0,\"mod\":0,\"seq\":0}]}",
      "{\"bodies\":[{\"data\":null,\"dataVersion\":null,\"obj\":null,\"mod\":null,\"seq\":null}],"
      "\"color\":null,\"sid\":null}",
      "{\"bodies\":[{\"data_version\":null,\"obj\":\"-0\"}],\"color\":\"\",\"sid\":-0}",
  };
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    struct push_json *json = decode(PUSH_JSON_BROADCAST, texts[i]);
    const struct push_body *body = json->order.bodies;
    assert_true(body->data_len == 0 && body->data_version == 0 && body->obj == 0 &&
                body->mod == 0 && body->seq == 0);
    assert_string_equal(json->order.color, "");
    assert_int_equal(json->order.sid, 0);
    assert_true(json->order.broadcast);
    assert_int_equal(json->order.uid_count, 0);
    push_json_free(json);
  }
}

static void what_is_not_known_is_passed_over(void **state) {
  (void)state;
  struct push_json *json =
      decode(PUSH_JSON_BROADCAST,
             "{\"bodies\":[{\"mod\":1,\"index\":[1,{\"mod\":2}],\"Mod\":3}],\"uids\":\"x\","
             "\"uid\":false,\"broadcast\":[],\"body\":7}");
  push_json_free(json);
}

static void a_number_may_be_written_in_many_ways(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t value;
  } cases[] = {
      {"0", 0},
      {"-0", 0},
      {"-0.0", 0},
      {"0e5", 0},
      {"1e3", 1000},
      {"1E+3", 1000},
      {"10e-1", 1},
      {"2.5e1", 25},
      {"-1.0", -1},
      {"9007199254740991.0", 9007199254740991},
      {"-9007199254740991e0", -9007199254740991},
      {"9007199254740993", 9007199254740993},
      {"9223372036854775807", INT64_MAX},
      {"-9223372036854775808", INT64_MIN},
  };
  char text[200];
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    for (int quoted = 0; quoted < 2; quoted++) {
      const char *mark = quoted ? "\"" : "";
      snprintf(text, sizeof text, "{" BODIES ",\"uids\":[%s%s%s,5]}", mark, cases[i].text, mark);
      struct push_json *json = decode(PUSH_JSON_MULTICAST, text);
      assert_int_equal(json->order.uid_count, 2);
      if (json->order.uids[0] != cases[i].value) {
        fail_msg("%s: %lld", text, (long long)json->order.uids[0]);
      }
      push_json_free(json);
    }
  }
}

static void what_is_no_number_is_refused(void **state) {
  (void)state;
  static const char *const values[] = {
      "true",
      "[]",
      "{}",
      "[1]",
      "\"\"",
      "\" 1\"",
      "\"1 \"",
      "\"+1\"",
      "\"01\"",
      "\"-\"",
      "\"0x1\"",
      "\"1.\"",
      "\".5\"",
      "\"1e\"",
      "\"1e+\"",
      "\"--1\"",
      "\"NaN\"",
      "1.5",
      "\"1.5\"",
      "1e-1",
      "\"inf\"",
      "1e300",
      "\"1e999\"",
      "\"-01\"",
      "\"1,0\"",
      "\"\\u0661\"",
      "9007199254740992.0",
      "\"9007199254740993.0\"",
      "1e18",
      "-1e18",
      "\"9223372036854775808\"",
      "\"-9223372036854775809\"",
      "\"99999999999999999999999999\"",
  };
  char text[200];
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
    snprintf(text, sizeof text, "{\"bodies\":[{},{\"obj\":%s}]}", values[i]);
    expect_refusal(PUSH_JSON_BROADCAST, text, NULL, NULL,
                   "bodies[1].obj is not an integer of 64 bits");
    snprintf(text, sizeof text, "{" BODIES ",\"sid\":%s}", values[i]);
    expect_refusal(PUSH_JSON_BROADCAST, text, NULL, NULL, "sid is not an integer of 64 bits");
    snprintf(text, sizeof text, "{" BODIES ",\"uid\":%s}", values[i]);
    expect_refusal(PUSH_JSON_PUSH, text, "7", NULL, "uid is not an integer of 64 bits");
    snprintf(text, sizeof text, "{" BODIES ",\"uids\":[1,2,%s]}", values[i]);
    expect_refusal(PUSH_JSON_MULTICAST, text, NULL, NULL, "uids[2] is not an integer of 64 bits");
  }
}

static void numbers_are_held_to_their_bounds(void **state) {
  (void)state;
  static const struct {
    const char *member;
    const char *why;
  } cases[] = {
      {"\"mod\":2147483648", "body.mod is not an integer of 32 bits"},
      {"\"mod\":-2147483649", "body.mod is not an integer of 32 bits"},
      {"\"mod\":\"2147483648\"", "body.mod is not an integer of 32 bits"},
      {"\"mod\":1.5", "body.mod is not an integer of 32 bits"},
      {"\"seq\":4294967296", "body.seq is not an integer of 32 bits"},
      {"\"seq\":false", "body.seq is not an integer of 32 bits"},
      {"\"dataVersion\":-1", "body.dataVersion is not an integer of 64 bits, 0 or more"},
      {"\"dataVersion\":\"-1\"", "body.dataVersion is not an integer of 64 bits, 0 or more"},
      {"\"data_version\":\"18446744073709551616\"",
       "body.data_version is not an integer of 64 bits, 0 or more"},
      {"\"dataVersion\":{}", "body.dataVersion is not an integer of 64 bits, 0 or more"},
      {"\"dataVersion\":1,\"data_version\":1", "body.dataVersion stands twice"},
      {"\"dataVersion\":null,\"data_version\":1", "body.dataVersion stands twice"},
      {"\"data\":7", "body.data is not a text"},
      {"\"data\":[\"aGk=\"]", "body.data is not a text"},
  };
  char text[200];
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    snprintf(text, sizeof text, "{\"body\":{%s}}", cases[i].member);
    expect_refusal(PUSH_JSON_PUSH, text, "7", NULL, cases[i].why);
  }
}

static void data_is_base64_of_either_alphabet_padded_or_not(void **state) {
  (void)state;
  static const struct {
    const char *text;
    const char *data;
    size_t len;
  } cases[] = {
      {"", "", 0},
      {"AA==", "\0", 1},
      {"AA", "\0", 1},
      {"-_8=", "\xfb\xff", 2},
      {"-_8", "\xfb\xff", 2},
      {"+/8=", "\xfb\xff", 2},
      {"+\\/8", "\xfb\xff", 2},
      {"aGVsbG8gd29y", "hello wor", 9},
  };
  char text[200];
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    snprintf(text, sizeof text, "{\"bodies\":[{\"data\":\"QUJD\"},{\"data\":\"%s\"}]}",
             cases[i].text);
    struct push_json *json = decode(PUSH_JSON_BROADCAST, text);
    assert_int_equal(json->order.bodies[0].data_len, 3);
    assert_memory_equal(json->order.bodies[0].data, "ABC", 3);
    assert_int_equal(json->order.bodies[1].data_len, cases[i].len);
    assert_memory_equal(json->order.bodies[1].data, cases[i].data, cases[i].len);
    push_json_free(json);
  }
}

static void what_is_no_base64_is_refused(void **state) {
  (void)state;
  static const char *const texts[] = {
      "A",    "A===",  "AA=",  "AAA==", "AAAA=", "AB==", "AAB",  "AA==AA",
      "A A=", "AA\\n", "+_8=", "-/8",   "=",     "====", "AA.=", "\\u00e4A=="};
  char text[200];
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    snprintf(text, sizeof text, "{\"bodies\":[{},{},{\"data\":\"%s\"}]}", texts[i]);
    expect_refusal(PUSH_JSON_BROADCAST, text, NULL, NULL, "bodies[2].data is not base64");
  }
}

// --- The forms -----------------------------------------------------------------------

static void the_gates_form_goes_to_the_player_of_the_headers(void **state) {
  (void)state;
  struct push_json *json =
      decode_with(PUSH_JSON_PUSH, "{\"body\":{\"mod\":3},\"uid\":\"5\",\"color\":\"red\"}",
                  "-9223372036854775808", "blue");
  assert_true(json->order.here_only);
  assert_false(json->order.broadcast);
  assert_int_equal(json->order.uid_count, 1);
  assert_true(json->order.uids[0] == INT64_MIN);
  assert_string_equal(json->order.color, "blue");
  assert_int_equal(json->order.body_count, 1);
  assert_int_equal(json->order.bodies[0].mod, 3);
  push_json_free(json);
  json = decode_with(PUSH_JSON_PUSH, "{\"body\":{},\"bodies\":null}", "0", NULL);
  assert_int_equal(json->order.uids[0], 0);
  assert_string_equal(json->order.color, "");
  push_json_free(json);
}

static void the_broadcasters_form_names_its_player_itself_or_leaves_it_to_the_headers(
    void **state) {
  (void)state;
  static const struct {
    const char *members;
    const char *uid_header;
    const char *color_header;
    int64_t uid;
    const char *color;
  } cases[] = {
      {",\"uid\":\"5\",\"color\":\"red\",\"sid\":\"9\"", NULL, NULL, 5, "red"},
      {",\"uid\":5,\"color\":\"red\"", "6", "blue", 5, "red"},
      {",\"uid\":5", "x", "blue", 5, "blue"},
      {",\"color\":\"red\"", "6", "blue", 6, "red"},
      {"", "6", "blue", 6, "blue"},
      {"", "6", NULL, 6, ""},
      {",\"uid\":null,\"color\":null", "6", "blue", 6, "blue"},
      {",\"uid\":0,\"color\":\"\"", "6", "blue", 6, "blue"},
      {",\"uid\":\"0\"", NULL, NULL, 0, ""},
      {",\"uid\":0", "0", NULL, 0, ""},
  };
  char text[200];
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    snprintf(text, sizeof text, "{\"bodies\":[{\"mod\":1},{\"mod\":2}]%s}", cases[i].members);
    struct push_json *json =
        decode_with(PUSH_JSON_PUSH, text, cases[i].uid_header, cases[i].color_header);
    assert_false(json->order.here_only);
    assert_int_equal(json->order.body_count, 2);
    assert_int_equal(json->order.bodies[1].mod, 2);
    assert_int_equal(json->order.uid_count, 1);
    assert_int_equal(json->order.uids[0], cases[i].uid);
    assert_string_equal(json->order.color, cases[i].color);
    assert_int_equal(json->order.sid, i == 0 ? 9 : 0);
    push_json_free(json);
  }
}

static void a_broadcast_has_its_color_and_sid(void **state) {
  (void)state;
  struct push_json *json = decode_with(
      PUSH_JSON_BROADCAST, "{" BODIES ",\"color\":\"bl\\u00fc\",\"sid\":\"-7\"}", "5", "red");
  assert_true(json->order.broadcast);
  assert_string_equal(json->order.color, "bl\xc3\xbc");
  assert_int_equal(json->order.sid, -7);
  assert_int_equal(json->order.uid_count, 0);
  push_json_free(json);
}

static void what_makes_no_push_is_refused(void **state) {
  (void)state;
  static const char color64[] = "0123456789012345678901234567890123456789012345678901234567890123";
  static const struct {
    enum push_json_form form;
    const char *text;
    const char *uid;
    const char *color;
    const char *why;
  } cases[] = {
      {PUSH_JSON_PUSH, "{\"body\":{}}", NULL, NULL, "the header x-md-global-uid is missing"},
      {PUSH_JSON_PUSH, "{\"body\":{},\"uid\":5}", NULL, "blue",
       "the header x-md-global-uid is missing"},
      {PUSH_JSON_PUSH, "{\"body\":{}}", "", NULL,
       "the header x-md-global-uid is not an integer of 64 bits"},
      {PUSH_JSON_PUSH, "{\"body\":{}}", "5 ", NULL,
       "the header x-md-global-uid is not an integer of 64 bits"},
      {PUSH_JSON_PUSH, "{\"body\":{}}", "9223372036854775808", NULL,
       "the header x-md-global-uid is not an integer of 64 bits"},
      {PUSH_JSON_PUSH, "{" BODIES "}", "abc", NULL,
       "the header x-md-global-uid is not an integer of 64 bits"},
      {PUSH_JSON_PUSH, "{\"body\":{}}", "5", color64,
       "the header x-md-global-color is longer than a color can be"},
      {PUSH_JSON_PUSH, "{" BODIES ",\"uid\":5}", NULL, color64,
       "the header x-md-global-color is longer than a color can be"},
      {PUSH_JSON_PUSH, "{\"body\":[]}", "5", NULL, "body is not an object"},
      {PUSH_JSON_PUSH, "{\"body\":\"x\"}", "5", NULL, "body is not an object"},
      {PUSH_JSON_PUSH, "{\"body\":{},\"bodies\":[]}", "5", NULL, "body and bodies are there both"},
      {PUSH_JSON_PUSH, "{" BODIES "}", NULL, NULL,
       "uid is missing, and so is the header x-md-global-uid"},
      {PUSH_JSON_PUSH, "{}", "5", NULL, "bodies is missing, or has nothing in it"},
      {PUSH_JSON_MULTICAST, "{\"body\":{},\"uids\":[5]}", "5", NULL,
       "bodies is missing, or has nothing in it"},
      {PUSH_JSON_MULTICAST, "{\"bodies\":[],\"uids\":[5]}", NULL, NULL,
       "bodies is missing, or has nothing in it"},
      {PUSH_JSON_MULTICAST, "{\"bodies\":{},\"uids\":[5]}", NULL, NULL, "bodies is not an array"},
      {PUSH_JSON_MULTICAST, "{\"bodies\":[{},null],\"uids\":[5]}", NULL, NULL,
       "bodies[1] is not an object"},
      {PUSH_JSON_MULTICAST, "{\"bodies\":[[]],\"uids\":[5]}", NULL, NULL,
       "bodies[0] is not an object"},
      {PUSH_JSON_MULTICAST, "{" BODIES "}", NULL, NULL, "uids is missing, or has nothing in it"},
      {PUSH_JSON_MULTICAST, "{" BODIES ",\"uids\":null}", NULL, NULL,
       "uids is missing, or has nothing in it"},
      {PUSH_JSON_MULTICAST, "{" BODIES ",\"uids\":[]}", NULL, NULL,
       "uids is missing, or has nothing in it"},
      {PUSH_JSON_MULTICAST, "{" BODIES ",\"uids\":5}", NULL, NULL, "uids is not an array"},
      {PUSH_JSON_MULTICAST, "{" BODIES ",\"uids\":[null]}", NULL, NULL,
       "uids[0] is not an integer of 64 bits"},
      {PUSH_JSON_BROADCAST, "{" BODIES ",\"color\":5}", NULL, NULL, "color is not a text"},
      {PUSH_JSON_BROADCAST,
       "{" BODIES
       ",\"color\":\"0123456789012345678901234567890123456789012345678901234567890123\"}",
       NULL, NULL, "color is longer than a color can be"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    expect_refusal(cases[i].form, cases[i].text, cases[i].uid, cases[i].color, cases[i].why);
  }
  struct push_json *json = decode_with(PUSH_JSON_PUSH, "{" BODIES ",\"uid\":5}", NULL, color64 + 1);
  assert_string_equal(json->order.color, color64 + 1);
  push_json_free(json);
}

// --- What is no JSON -----------------------------------------------------------------

// The words are jansson's.
static void expect_no_json(const char *text, const char *wanted) {
  struct push_json *json = NULL;
  char why[PUSH_JSON_WHY_BYTES];
  assert_int_equal(decode_bytes(PUSH_JSON_BROADCAST, text, strlen(text), NULL, NULL, &json, why),
                   ERROR_MALFORMED);
  if (strncmp(why, "line ", 5) != 0 || !strstr(why, wanted)) {
    fail_msg("%.100s: \"%s\" without \"%s\"", text, why, wanted);
  }
}

static void what_is_no_json_is_refused_with_the_place(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {" ", "line 1, column 1: '[' or '{' expected near end of file"},
      {"nonsense", "line 1, column 8: '[' or '{' expected near 'nonsense'"},
      {"{\n  \"bodies\": [}", "line 2, column 14: unexpected token near '}'"},
      {"{\"a\":1}x", "end of file expected near 'x'"},
      {"{\"a\":1}{}", "end of file expected near '{'"},
      {"{\"a\":01}", "invalid token near '0'"},
      {"{\"a\":1,}", "string or '}' expected near '}'"},
      {"{'a':1}", "string or '}' expected"},
      {"{\"a\":1,\"b\":2,\"a\":3}", "duplicate object key near '\"a\"'"},
      {"{\"bodies\":[{\"mod\":1,\"mod\":1}]}", "duplicate object key near '\"mod\"'"},
      {"{\"a\":\"\xff\"}", "unable to decode byte 0xff"},
      {"{\"a\":\"\xc3(\"}", "unable to decode byte 0xc3"},
      {"{\"\xed\xa0\x80\":1}", "unable to decode byte 0xed"},  // half of a surrogate pair
      {"{\"\xc3\xa4\":}", "unexpected token near '}'"},
      {"{\"a\":\"\\ud800\"}", "invalid Unicode '\\uD800'"},
      {"{\"a\":\"\\u0000\"}", "\\u0000 is not allowed"},
      {"{\"a\":\"\n\"}", "unexpected newline"},
      {"{\"a\":\"\x01\"}", "control character 0x1"},
      {"{\"a\":\"\\x\"}", "invalid escape"},
      {"{\"a\":NaN}", "invalid token near 'NaN'"},
      {"{\"a\":1e999}", "real number overflow near '1e999'"},
      {"\xef\xbb\xbf{}", "'[' or '{' expected"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    expect_no_json(cases[i][0], cases[i][1]);
  }
  // What it quotes may not be ASCII.
  expect_no_json("{\"\xc3\xa4\":1,\"\xc3\xa4\":2}", "duplicate object key near '\"??\"'");
  expect_refusal(PUSH_JSON_BROADCAST, "[]", NULL, NULL, "it is not an object");
  expect_refusal(PUSH_JSON_BROADCAST, "[{\"bodies\":[]}]", NULL, NULL, "it is not an object");
}

static void a_bare_number_beyond_int64_is_to_be_written_as_text(void **state) {
  (void)state;
  expect_no_json("{\"bodies\":[{\n\"dataVersion\":18446744073709551615}]}",
                 "line 2, column 34: too big integer near '18446744073709551615'; as text, a "
                 "number of 64 bits can be written whole");
  expect_no_json("{\"sid\":9223372036854775808}", "; as text, a number of 64 bits");
  expect_no_json("{\"sid\":-9223372036854775809}", "; as text, a number of 64 bits");
}

static void every_cut_is_seen(void **state) {
  (void)state;
  static const char text[] =
      "{\"bodies\":[{\"data\":\"aGVsbG8=\",\"dataVersion\":\"5\",\"mod\":1.0e1}],\"uids\":[1]}";
  struct push_json *json = NULL;
  char why[PUSH_JSON_WHY_BYTES];
  for (size_t len = 0; len < sizeof text - 1; len++) {
    assert_int_equal(decode_bytes(PUSH_JSON_MULTICAST, text, len, NULL, NULL, &json, why),
                     ERROR_MALFORMED);
  }
  assert_int_equal(decode_bytes(PUSH_JSON_MULTICAST, text, sizeof text - 1, NULL, NULL, &json, why),
                   0);
  push_json_free(json);
  assert_int_equal(decode_bytes(PUSH_JSON_MULTICAST, text, sizeof text, NULL, NULL, &json, why),
                   ERROR_MALFORMED);  // with the NUL
}

// --- Bounds --------------------------------------------------------------------------

static char *nested(size_t depth) {
  char *text = malloc(2 * depth + 64);
  size_t len = (size_t)sprintf(text, "{" BODIES ",\"x\":");
  memset(text + len, '[', depth);
  memset(text + len + depth, ']', depth);
  strcpy(text + len + 2 * depth, "}");
  return text;
}

static void depth_has_a_bound(void **state) {
  (void)state;
  char *text = nested(1000);
  push_json_free(decode(PUSH_JSON_BROADCAST, text));
  free(text);
  text = nested(90000);
  expect_no_json(text, "maximum parsing depth reached");
  free(text);
}

// start, count times what, end.
static char *repeated(const char *start, const char *what, size_t count, const char *end) {
  size_t len = strlen(what);
  char *text = malloc(strlen(start) + count * len + strlen(end) + 1);
  char *at = stpcpy(text, start);
  for (size_t i = 0; i < count; i++) {
    at = stpcpy(at, what);
  }
  strcpy(at, end);
  return text;
}

static void bodies_and_uids_have_their_bounds(void **state) {
  (void)state;
  char *text = repeated("{\"bodies\":[", "{},", PUSH_BODIES_MAX - 1, "{\"mod\":9}]}");
  struct push_json *json = decode(PUSH_JSON_BROADCAST, text);
  assert_int_equal(json->order.body_count, PUSH_BODIES_MAX);
  assert_int_equal(json->order.bodies[PUSH_BODIES_MAX - 1].mod, 9);
  push_json_free(json);
  free(text);
  text = repeated("{\"bodies\":[", "{},", PUSH_BODIES_MAX, "{}]}");
  expect_refusal(PUSH_JSON_BROADCAST, text, NULL, NULL, "bodies has too many in it");
  free(text);
  text = repeated("{" BODIES ",\"uids\":[", "\"-1\",", PUSH_UIDS_MAX - 1, "7]}");
  json = decode(PUSH_JSON_MULTICAST, text);
  assert_int_equal(json->order.uid_count, PUSH_UIDS_MAX);
  assert_int_equal(json->order.uids[PUSH_UIDS_MAX - 2], -1);
  assert_int_equal(json->order.uids[PUSH_UIDS_MAX - 1], 7);
  push_json_free(json);
  free(text);
  text = repeated("{" BODIES ",\"uids\":[", "1,", PUSH_UIDS_MAX, "1]}");
  expect_refusal(PUSH_JSON_MULTICAST, text, NULL, NULL, "uids has too many in it");
  free(text);
}

static void expect_too_large(const char *text, const char *wanted) {
  struct push_json *json = NULL;
  char why[PUSH_JSON_WHY_BYTES];
  assert_int_equal(decode_bytes(PUSH_JSON_MULTICAST, text, strlen(text), NULL, NULL, &json, why),
                   ERROR_TOO_LARGE);
  assert_string_equal(why, wanted);
}

// What would take a hundred times its length in memory, or more.
static void the_number_of_values_has_a_bound(void **state) {
  (void)state;
  static const char *const what[] = {"{},", "[],", "1,", "\"\\\"\","};
  static const size_t each[] = {2, 2, 1, 1};
  for (size_t i = 0; i < 4; i++) {
    // Up to the bound with what stands around it, and one more.
    size_t most = (200000 - 7) / each[i];
    char *text = repeated("{" BODIES ",\"uids\":[1],\"x\":[", what[i], most, "1]}");
    push_json_free(decode(PUSH_JSON_MULTICAST, text));
    free(text);
    text = repeated("{" BODIES ",\"uids\":[1],\"x\":[", what[i], most + 1, "1]}");
    expect_too_large(text, "it has more than 200000 values in it");
    free(text);
  }
  char *text = repeated("{" BODIES ",\"uids\":[1],\"x\":\"", "{,[\\\"", 200001, "\"}");
  push_json_free(decode(PUSH_JSON_MULTICAST, text));  // nothing but one text
  free(text);
}

static void all_together_has_the_bound_of_other_gateways(void **state) {
  (void)state;
  // Each is 12288 bytes of data.
  char *body = repeated("{\"data\":\"", "QUFBQUFBQUFBQUFB", 1024, "\"},");
  char *text = repeated("{\"uids\":[1],\"bodies\":[", body, 254, "{}]}");
  struct push_json *json = decode(PUSH_JSON_MULTICAST, text);
  assert_int_equal(json->order.bodies[253].data_len, 12288);
  push_json_free(json);
  free(text);
  free(body);
  body = repeated("{\"data\":\"", "QUFBQUFBQUFBQUFB", 1400, "\"},");
  text = repeated("{\"uids\":[1],\"bodies\":[", body, 255, "{}]}");
  expect_too_large(text, "all together it is longer than 4194304 bytes");
  free(text);
  free(body);
}

// --- Answers -------------------------------------------------------------------------

static void expect_answer(const struct push_json *json, const struct push_outcome *outcome,
                          const char *wanted) {
  char *text = push_json_answer(json, outcome);
  assert_string_equal(text, wanted);
  free(text);
}

static void a_push_is_answered_with_its_fate(void **state) {
  (void)state;
  static const char *const wanted[PUSH_FATE_COUNT] = {
      "{\"pushed\":true,\"fate\":\"here\"}", "{\"pushed\":true,\"fate\":\"handed_on\"}",
      "{\"pushed\":false,\"fate\":\"not_found\"}", "{\"pushed\":false,\"fate\":\"refused\"}"};
  struct push_json *json = decode_with(PUSH_JSON_PUSH, "{\"body\":{}}", "5", NULL);
  for (int i = 0; i < PUSH_FATE_COUNT; i++) {
    enum push_fate fate = (enum push_fate)i;
    const struct push_outcome outcome = {.fates = &fate};
    expect_answer(json, &outcome, wanted[i]);
  }
  push_json_free(json);
}

static void a_multicast_is_answered_with_who_came_to_what(void **state) {
  (void)state;
  static const enum push_fate fates[] = {PUSH_HERE,    PUSH_HANDED_ON, PUSH_NOT_FOUND,
                                         PUSH_REFUSED, PUSH_HERE,      PUSH_NOT_FOUND};
  static const enum push_fate nowhere[] = {PUSH_NOT_FOUND, PUSH_NOT_FOUND, PUSH_NOT_FOUND,
                                           PUSH_NOT_FOUND, PUSH_NOT_FOUND, PUSH_NOT_FOUND};
  struct push_json *json = decode(PUSH_JSON_MULTICAST, "{" BODIES
                                                       ",\"uids\":[1,\"-9223372036854775808\",3,"
                                                       "9223372036854775807,1,0]}");
  push_json_drop_bodies(json);  // the answer does not need them
  expect_answer(json, &(struct push_outcome){.fates = fates},
                "{\"pushedUids\":[\"1\",\"-9223372036854775808\",\"1\"],"
                "\"handedOnUids\":[\"-9223372036854775808\"],\"notFoundUids\":[\"3\",\"0\"],"
                "\"refusedUids\":[\"9223372036854775807\"]}");
  expect_answer(json, &(struct push_outcome){.fates = nowhere},
                "{\"pushedUids\":[],\"handedOnUids\":[],\"notFoundUids\":[\"1\","
                "\"-9223372036854775808\",\"3\",\"9223372036854775807\",\"1\",\"0\"],"
                "\"refusedUids\":[]}");
  push_json_free(json);
}

static void a_broadcast_is_answered_with_how_many_it_reached(void **state) {
  (void)state;
  struct push_json *json = decode(PUSH_JSON_BROADCAST, "{" BODIES "}");
  struct push_outcome outcome = {.count = {[PUSH_HERE] = 12, [PUSH_REFUSED] = 3},
                                 .published = true};
  expect_answer(json, &outcome, "{\"reached\":\"12\",\"refused\":\"3\",\"published\":true}");
  outcome = (struct push_outcome){0};
  expect_answer(json, &outcome, "{\"reached\":\"0\",\"refused\":\"0\",\"published\":false}");
  push_json_free(json);
  push_json_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_body_has_all_that_it_says),
      cmocka_unit_test(what_is_absent_or_null_is_nothing),
      cmocka_unit_test(what_is_not_known_is_passed_over),
      cmocka_unit_test(a_number_may_be_written_in_many_ways),
      cmocka_unit_test(what_is_no_number_is_refused),
      cmocka_unit_test(numbers_are_held_to_their_bounds),
      cmocka_unit_test(a_bare_number_beyond_int64_is_to_be_written_as_text),
      cmocka_unit_test(data_is_base64_of_either_alphabet_padded_or_not),
      cmocka_unit_test(what_is_no_base64_is_refused),
      cmocka_unit_test(the_gates_form_goes_to_the_player_of_the_headers),
      cmocka_unit_test(the_broadcasters_form_names_its_player_itself_or_leaves_it_to_the_headers),
      cmocka_unit_test(a_broadcast_has_its_color_and_sid),
      cmocka_unit_test(what_makes_no_push_is_refused),
      cmocka_unit_test(what_is_no_json_is_refused_with_the_place),
      cmocka_unit_test(every_cut_is_seen),
      cmocka_unit_test(depth_has_a_bound),
      cmocka_unit_test(bodies_and_uids_have_their_bounds),
      cmocka_unit_test(the_number_of_values_has_a_bound),
      cmocka_unit_test(all_together_has_the_bound_of_other_gateways),
      cmocka_unit_test(a_push_is_answered_with_its_fate),
      cmocka_unit_test(a_multicast_is_answered_with_who_came_to_what),
      cmocka_unit_test(a_broadcast_is_answered_with_how_many_it_reached),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
