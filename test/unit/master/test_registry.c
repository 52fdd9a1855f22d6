#include "master/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse(const char *json, struct node *node) {
  const char *why;
  return registry_parse_instance("roma.player.service", (const uint8_t *)json, strlen(json), node,
                                 &why);
}

static void an_instance_is_read_and_unknown_members_are_tolerated(void **state) {
  (void)state;
  struct node node;
  assert_int_equal(
      parse("{\"id\":\"1\",\"name\":\"roma.player.service\",\"version\":\"v1\",\"more\":[{}],"
            "\"metadata\":{\"color\":\"blue\",\"weight\":\"30\"},"
            "\"endpoints\":[\"http://10.0.0.1:80\",\"grpc://10.0.0.1:9000\"]}",
            &node),
      0);
  assert_string_equal(node.service, "roma.player.service");
  assert_string_equal(node.color, "blue");
  assert_string_equal(node.address, "10.0.0.1:9000");
  assert_int_equal(node.weight, 30);
  assert_false(node.secure);
}

static void what_is_not_said_has_its_default(void **state) {
  (void)state;
  struct node node;
  assert_int_equal(
      parse("{\"name\":\"roma.player.service\",\"endpoints\":[\"grpc://h:1/\"]}", &node), 0);
  assert_string_equal(node.color, "");
  assert_int_equal(node.weight, 100);
  assert_string_equal(node.address, "h:1");
}

static void tls_is_told_by_scheme_or_query(void **state) {
  (void)state;
  static const struct {
    const char *endpoint;
    bool secure;
  } cases[] = {
      {"grpcs://h:1", true},
      {"grpcs://h:1?isSecure=false", true},
      {"grpc://h:1?isSecure=true", true},
      {"grpc://h:1/?a=b&isSecure=1#x", true},
      {"grpc://h:1?isSecure=false&isSecure=true", false},
      {"grpc://h:1?isSecure=truer", false},
      {"grpc://h:1?isSecure=", false},
      {"grpc://h:1?isSecure", false},
      {"grpc://h:1?xisSecure=true", false},
      {"grpc://h:1?#isSecure=true", false},
      {"grpc://h:1/isSecure=true", false},
      {"grpc://h:1\",\"grpcs://h:2", false},  // the first one that speaks gRPC
      {"http://h:1\",\"grpcs://h:1", true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char json[256];
    struct node node;
    snprintf(json, sizeof json, "{\"name\":\"roma.player.service\",\"endpoints\":[\"%s\"]}",
             cases[i].endpoint);
    assert_int_equal(parse(json, &node), 0);
    assert_int_equal(node.secure, cases[i].secure);
    assert_string_equal(node.address, "h:1");
  }
}

static void another_services_instance_is_no_fault(void **state) {
  (void)state;
  struct node node;
  assert_int_equal(parse("{\"name\":\"roma.player.service2\"}", &node), ERROR_NOT_FOUND);
}

static void what_is_no_instance_is_malformed(void **state) {
  (void)state;
  static const char *const texts[] = {
      "",
      "{",
      "[]",
      "\"\"",
      "{}",
      "{\"name\":5}",
      "{\"name\":\"roma.player.service\"}",
      "{\"name\":\"roma.player.service\",\"endpoints\":[\"grpc://h\"]}",
      "{\"name\":\"roma.player.service\",\"endpoints\":[\"tcp://h:1\"]}",
      ("{\"name\":\"roma.player.service\",\"endpoints\":[\"grpc://h:1\"],"
       "\"metadata\":{\"weight\":\"-1\"}}"),
  };
  struct node node;
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    assert_int_equal(parse(texts[i], &node), ERROR_MALFORMED);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_instance_is_read_and_unknown_members_are_tolerated),
      cmocka_unit_test(what_is_not_said_has_its_default),
      cmocka_unit_test(tls_is_told_by_scheme_or_query),
      cmocka_unit_test(another_services_instance_is_no_fault),
      cmocka_unit_test(what_is_no_instance_is_malformed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
