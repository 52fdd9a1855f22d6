#include "tools/client/target.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void each_form_is_understood(void **state) {
  (void)state;
  static const struct {
    const char *text;
    bool tls;
    bool websocket;
    bool kcp;
    const char *host;
    const char *authority;
    const char *path;
  } cases[] = {
      {"127.0.0.1:17001", false, false, false, "127.0.0.1", "127.0.0.1:17001", "/"},
      {":17001", false, false, false, "127.0.0.1", "127.0.0.1:17001", "/"},
      {"[::1]:17001", false, false, false, "::1", "[::1]:17001", "/"},
      {"tcp://127.0.0.1:1", false, false, false, "127.0.0.1", "127.0.0.1:1", "/"},
      {"tls://127.0.0.1:1", true, false, false, "127.0.0.1", "127.0.0.1:1", "/"},
      {"ws://127.0.0.1:1", false, true, false, "127.0.0.1", "127.0.0.1:1", "/"},
      {"ws://127.0.0.1:1/ws?a=b:c", false, true, false, "127.0.0.1", "127.0.0.1:1", "/ws?a=b:c"},
      {"wss://[::1]:443/ws/x", true, true, false, "::1", "[::1]:443", "/ws/x"},
      {"kcp://127.0.0.1:1", false, false, true, "127.0.0.1", "127.0.0.1:1", "/"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct client_target target;
    const char *detail = NULL;
    assert_int_equal(client_target_parse(cases[i].text, &target, &detail), 0);
    assert_int_equal(target.tls, cases[i].tls);
    assert_int_equal(target.websocket, cases[i].websocket);
    assert_int_equal(target.kcp, cases[i].kcp);
    assert_string_equal(target.host, cases[i].host);
    assert_string_equal(target.authority, cases[i].authority);
    assert_string_equal(target.path, cases[i].path);
    assert_int_equal(target.address.ss_family, target.host[0] == ':' ? AF_INET6 : AF_INET);
  }
}

static void anything_else_is_refused_with_a_reason(void **state) {
  (void)state;
  static const char *const cases[] = {
      "",
      "127.0.0.1",
      "127.0.0.1:",
      "http://127.0.0.1:1/",
      "tcp://127.0.0.1:1/path",
      "kcp://127.0.0.1:1/path",
      "ws:///path",
      "ws://127.0.0.1:1/a b",
      "ws://127.0.0.1:1/a\r\nX: y",
      "ws://127.0.0.1:1/#part",
      "127.0.0.1:nothing",
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct client_target target;
    const char *detail = NULL;
    assert_int_equal(client_target_parse(cases[i], &target, &detail), ERROR_INVALID);
    assert_non_null(detail);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_form_is_understood),
      cmocka_unit_test(anything_else_is_refused_with_a_reason),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
