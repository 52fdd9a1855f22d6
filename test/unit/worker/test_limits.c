#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <arpa/inet.h>
#include <cmocka.h>
#include <limits.h>
#include <netinet/in.h>
#include <string.h>

#include "worker/limits.h"

static void a_burst_passes_and_then_the_rate_holds(void **state) {
  struct token_bucket bucket;
  (void)state;
  token_bucket_init(&bucket, 10, 3, 1000);
  for (int i = 0; i < 3; i++) {
    assert_true(token_bucket_take(&bucket, 1, 1000));
  }
  assert_false(token_bucket_take(&bucket, 1, 1000));
  assert_false(token_bucket_take(&bucket, 1, 1099));
  assert_true(token_bucket_take(&bucket, 1, 1100));
  assert_false(token_bucket_take(&bucket, 1, 1100));
}

static void a_bucket_fills_no_further_than_its_burst(void **state) {
  struct token_bucket bucket;
  (void)state;
  token_bucket_init(&bucket, INT32_MAX, 2, 0);
  assert_true(token_bucket_take(&bucket, 2, 0));
  assert_true(token_bucket_take(&bucket, 2, INT64_MAX / 2));
  assert_false(token_bucket_take(&bucket, 1, INT64_MAX / 2));
}

static void a_refusal_takes_nothing(void **state) {
  struct token_bucket bucket;
  (void)state;
  token_bucket_init(&bucket, 1, 5, 0);
  assert_false(token_bucket_take(&bucket, 6, 0));
  assert_true(token_bucket_take(&bucket, 5, 0));
}

static void a_charge_says_how_long_the_debt_lasts(void **state) {
  struct token_bucket bucket;
  (void)state;
  token_bucket_init(&bucket, 100, 10, 0);
  assert_int_equal(token_bucket_charge(&bucket, 10, 0), 0);
  assert_int_equal(token_bucket_charge(&bucket, 20, 0), 200);
  assert_int_equal(token_bucket_charge(&bucket, 0, 199), 1);
  assert_int_equal(token_bucket_charge(&bucket, 0, 200), 0);
}

static void a_client_is_held_to_the_rate_that_it_is_further_over(void **state) {
  const struct client_rates rates = {
      .messages_per_s = 10, .messages_burst = 2, .bytes_per_s = 1000, .bytes_burst = 500};
  struct client_levels levels;
  (void)state;
  client_levels_init(&levels, &rates, 0);
  assert_int_equal(client_levels_charge(&levels, &rates, 1, 100, 0), 0);
  assert_int_equal(client_levels_charge(&levels, &rates, 1, 100, 0), 0);
  assert_int_equal(client_levels_charge(&levels, &rates, 1, 100, 0), 100);
  assert_int_equal(client_levels_charge(&levels, &rates, 1, 700, 0), 500);
  assert_int_equal(client_levels_charge(&levels, &rates, 1, 0, 500), 0);
  assert_int_equal(client_levels_charge(&levels, &rates, 0, 100, 500), 100);
}

static void other_rates_hold_for_what_a_client_has_by_those_of_before(void **state) {
  const struct client_rates before = {.messages_per_s = 10, .messages_burst = 4};
  const struct client_rates after = {
      .messages_per_s = 100, .messages_burst = 3, .bytes_per_s = 10, .bytes_burst = 20};
  struct client_levels levels;
  (void)state;
  client_levels_init(&levels, &before, 0);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(client_levels_charge(&levels, &before, 1, 1 << 20, 0), 0);
  }
  client_levels_set(&levels, &before, &after, 100);  // by when it has one message, and all bytes
  assert_int_equal(client_levels_charge(&levels, &after, 1, 10, 100), 0);
  assert_int_equal(client_levels_charge(&levels, &after, 1, 10, 100), 10);
}

static void a_rate_of_zero_is_no_limit(void **state) {
  struct token_bucket bucket;
  (void)state;
  token_bucket_init(&bucket, 0, 0, 0);
  assert_true(token_bucket_take(&bucket, INT32_MAX, 0));
  assert_int_equal(token_bucket_charge(&bucket, INT32_MAX, 0), 0);
}

static struct sockaddr_storage address(const char *text, uint16_t port) {
  struct sockaddr_storage storage = {0};
  struct sockaddr_in *ipv4 = (void *)&storage;
  struct sockaddr_in6 *ipv6 = (void *)&storage;
  if (inet_pton(AF_INET, text, &ipv4->sin_addr) == 1) {
    ipv4->sin_family = AF_INET;
    ipv4->sin_port = htons(port);
  } else {
    assert_int_equal(inet_pton(AF_INET6, text, &ipv6->sin6_addr), 1);
    ipv6->sin6_family = AF_INET6;
    ipv6->sin6_port = htons(port);
  }
  return storage;
}

static struct address_count *acquire(struct address_limits *limits, const char *text,
                                     uint16_t port) {
  struct sockaddr_storage storage = address(text, port);
  return address_limits_acquire(limits, (struct sockaddr *)&storage);
}

static void an_address_has_its_connections_counted_whatever_the_port(void **state) {
  struct address_limits *limits = address_limits_new(2);
  (void)state;
  struct address_count *first = acquire(limits, "192.0.2.1", 1);
  assert_non_null(first);
  assert_non_null(acquire(limits, "192.0.2.1", 2));
  assert_null(acquire(limits, "192.0.2.1", 3));
  assert_non_null(acquire(limits, "192.0.2.2", 1));
  assert_non_null(acquire(limits, "2001:db8::1", 1));
  address_limits_release(limits, first);
  assert_non_null(acquire(limits, "192.0.2.1", 3));
  address_limits_free(limits);
}

static void an_ipv4_client_of_an_ipv6_socket_is_the_same_address(void **state) {
  struct address_limits *limits = address_limits_new(1);
  (void)state;
  assert_non_null(acquire(limits, "192.0.2.1", 1));
  assert_null(acquire(limits, "::ffff:192.0.2.1", 1));
  address_limits_free(limits);
}

static void the_addresses_of_one_ipv6_network_are_one(void **state) {
  struct address_limits *limits = address_limits_new(2);
  (void)state;
  struct address_count *first = acquire(limits, "2001:db8:1:2::1", 1);
  assert_non_null(first);
  assert_non_null(acquire(limits, "2001:db8:1:2:3:4:5:6", 1));
  assert_null(acquire(limits, "2001:db8:1:2:ffff::", 1));
  assert_non_null(acquire(limits, "2001:db8:1:3::1", 1));
  address_limits_release(limits, first);
  assert_non_null(acquire(limits, "2001:db8:1:2:ffff::", 1));
  // Whereas each of IPv4's is one, though they stand in one such network.
  for (uint16_t i = 0; i < 2; i++) {
    assert_non_null(acquire(limits, "::ffff:192.0.2.1", i));
    assert_non_null(acquire(limits, "192.0.2.2", i));
  }
  address_limits_free(limits);
}

static void a_maximum_of_zero_is_no_limit(void **state) {
  struct address_limits *limits = address_limits_new(0);
  (void)state;
  for (uint16_t i = 0; i < 1000; i++) {
    assert_non_null(acquire(limits, "192.0.2.1", i));
  }
  address_limits_free(limits);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_burst_passes_and_then_the_rate_holds),
      cmocka_unit_test(a_bucket_fills_no_further_than_its_burst),
      cmocka_unit_test(a_refusal_takes_nothing),
      cmocka_unit_test(a_charge_says_how_long_the_debt_lasts),
      cmocka_unit_test(a_client_is_held_to_the_rate_that_it_is_further_over),
      cmocka_unit_test(other_rates_hold_for_what_a_client_has_by_those_of_before),
      cmocka_unit_test(a_rate_of_zero_is_no_limit),
      cmocka_unit_test(an_address_has_its_connections_counted_whatever_the_port),
      cmocka_unit_test(an_ipv4_client_of_an_ipv6_socket_is_the_same_address),
      cmocka_unit_test(the_addresses_of_one_ipv6_network_are_one),
      cmocka_unit_test(a_maximum_of_zero_is_no_limit),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
