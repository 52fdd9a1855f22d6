#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <arpa/inet.h>
#include <cmocka.h>
#include <sodium.h>

#include "worker/kcp_closed.h"

enum { BEGAN_MS = 1700000 };

static struct kcp_peer peer_of(const char *address, uint16_t port) {
  struct kcp_peer peer = {.address.v4 = {.sin_family = AF_INET, .sin_port = htons(port)}};
  assert_int_equal(inet_pton(AF_INET, address, &peer.address.v4.sin_addr), 1);
  return peer;
}

static void one_that_has_ended_is_known_for_a_minute(void **state) {
  (void)state;
  struct kcp_closed *closed = kcp_closed_new();
  struct kcp_peer peer = peer_of("192.0.2.1", 4711);
  assert_non_null(closed);
  assert_false(kcp_closed_has(closed, &peer, 7, BEGAN_MS));
  kcp_closed_add(closed, &peer, 7, BEGAN_MS);
  assert_true(kcp_closed_has(closed, &peer, 7, BEGAN_MS));
  assert_true(kcp_closed_has(closed, &peer, 7, BEGAN_MS + KCP_CLOSED_KEPT_MS));
  assert_false(kcp_closed_has(closed, &peer, 7, BEGAN_MS + KCP_CLOSED_KEPT_MS + 1000));
  kcp_closed_free(closed);
}

static void another_conv_address_or_port_has_not_ended(void **state) {
  (void)state;
  struct kcp_closed *closed = kcp_closed_new();
  struct kcp_peer peer = peer_of("192.0.2.1", 4711);
  struct kcp_peer elsewhere = peer_of("192.0.2.2", 4711);
  struct kcp_peer other_port = peer_of("192.0.2.1", 4712);
  assert_non_null(closed);
  kcp_closed_add(closed, &peer, 7, BEGAN_MS);
  assert_false(kcp_closed_has(closed, &peer, 8, BEGAN_MS));
  assert_false(kcp_closed_has(closed, &elsewhere, 7, BEGAN_MS));
  assert_false(kcp_closed_has(closed, &other_port, 7, BEGAN_MS));
  kcp_closed_free(closed);
}

static void whatever_ended_last_is_known_however_many_there_are(void **state) {
  (void)state;
  struct kcp_closed *closed = kcp_closed_new();
  struct kcp_peer peer = peer_of("192.0.2.1", 4711);
  assert_non_null(closed);
  for (uint32_t conv = 0; conv < 20000; conv++) {
    kcp_closed_add(closed, &peer, conv, BEGAN_MS);
    assert_true(kcp_closed_has(closed, &peer, conv, BEGAN_MS));
  }
  kcp_closed_free(closed);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_that_has_ended_is_known_for_a_minute),
      cmocka_unit_test(another_conv_address_or_port_has_not_ended),
      cmocka_unit_test(whatever_ended_last_is_known_however_many_there_are),
  };
  return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
