#include "common/redis_routes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <string.h>

static void a_key_is_written_as_the_ecosystem_does_it(void **state) {
  (void)state;
  char text[REDIS_ROUTES_KEY_BYTES];
  const struct route_key key = {
      .tier = ROUTE_PLAYER, .service = "roma.player.service", .color = "blue", .oid = -5};
  assert_int_equal(redis_routes_key(&key, text), strlen("r_roma.player.service_{blue}_{-5}"));
  assert_string_equal(text, "r_roma.player.service_{blue}_{-5}");
}

static void a_key_of_the_largest_parts_has_room(void **state) {
  (void)state;
  char service[ROUTE_SERVICE_MAX_BYTES + 1] = {0};
  char color[ROUTE_COLOR_MAX_BYTES + 1] = {0};
  char text[REDIS_ROUTES_KEY_BYTES];
  struct redis_routes_name name;
  memset(service, 's', sizeof service - 1);
  memset(color, 'c', sizeof color - 1);
  const struct route_key key = {.service = service, .color = color, .oid = INT64_MIN};
  size_t len = redis_routes_key(&key, text);
  assert_int_equal(len, strlen(text));
  assert_int_equal(redis_routes_parse_key(text, len, &name), 0);
  assert_string_equal(name.service, service);
  assert_string_equal(name.color, color);
  assert_true(name.oid == INT64_MIN);
}

static void what_was_written_reads_back_whatever_the_color_has(void **state) {
  (void)state;
  static const char *const colors[] = {"", "blue", "a}b", "{", "}", "}_{", "x}_{5", "_{_", "}}_{{"};
  for (size_t i = 0; i < sizeof colors / sizeof colors[0]; i++) {
    char text[REDIS_ROUTES_KEY_BYTES];
    struct redis_routes_name name;
    const struct route_key key = {.service = "a_b.c", .color = colors[i], .oid = 12};
    size_t len = redis_routes_key(&key, text);
    assert_int_equal(redis_routes_parse_key(text, len, &name), 0);
    assert_string_equal(name.service, "a_b.c");
    assert_string_equal(name.color, colors[i]);
    assert_int_equal(name.oid, 12);
  }
}

static void what_is_no_key_of_a_route_is_refused(void **state) {
  (void)state;
  static const char *const texts[] = {"",
                                      "r",
                                      "r_",
                                      "r_a",
                                      "r_a_{b}",
                                      "r_a_{b}_{}",
                                      "r_a_{b}_{1",
                                      "r_a_{b}_{c}",
                                      "r_a_b_{1}",
                                      "s_a_{b}_{1}",
                                      "r_a_{b}_{1}x",
                                      "r__{b}_{1}",
                                      "r_a_{b_{1}",
                                      "r_a_{b}_{+1}",
                                      "r_a_{b}_{01}",
                                      "r_a_{b}_{ 1}",
                                      "r_a_{}_{-0}",
                                      "r_a_{b}_{1}_{",
                                      "r_a_{b}_{99999999999999999999}",
                                      "r_{_aer}_4r}_{0}",
                                      "r_{b}_{1}"};
  struct redis_routes_name name;
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    assert_int_equal(redis_routes_parse_key(texts[i], strlen(texts[i]), &name), ERROR_MALFORMED);
  }
  assert_int_equal(redis_routes_parse_key("r_a_{\0}_{1}", 11, &name), ERROR_MALFORMED);
  char huge[4096];
  memset(huge, 'r', sizeof huge);
  assert_int_equal(redis_routes_parse_key(huge, sizeof huge, &name), ERROR_MALFORMED);
}

static void only_an_address_is_a_value(void **state) {
  (void)state;
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];
  char huge[300];
  memset(huge, 'x', sizeof huge);
  memcpy(huge + sizeof huge - 3, ":1", 3);
  redisReply value = {.type = REDIS_REPLY_STRING, .str = (char *)"10.0.0.1:80", .len = 11};
  assert_int_equal(redis_routes_parse_value(&value, address), 0);
  assert_string_equal(address, "10.0.0.1:80");
  value.len = 3;  // not what its text is
  assert_int_equal(redis_routes_parse_value(&value, address), ERROR_MALFORMED);
  value = (redisReply){.type = REDIS_REPLY_STRING, .str = huge, .len = strlen(huge)};
  assert_int_equal(redis_routes_parse_value(&value, address), ERROR_MALFORMED);
  value = (redisReply){.type = REDIS_REPLY_STRING, .str = (char *)"host", .len = 4};
  assert_int_equal(redis_routes_parse_value(&value, address), ERROR_MALFORMED);
  value = (redisReply){.type = REDIS_REPLY_INTEGER, .integer = 5};
  assert_int_equal(redis_routes_parse_value(&value, address), ERROR_MALFORMED);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_key_is_written_as_the_ecosystem_does_it),
      cmocka_unit_test(a_key_of_the_largest_parts_has_room),
      cmocka_unit_test(what_was_written_reads_back_whatever_the_color_has),
      cmocka_unit_test(what_is_no_key_of_a_route_is_refused),
      cmocka_unit_test(only_an_address_is_a_value),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
