#include "common/networks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <string.h>

static struct network parse(const char *text) {
  struct network network;
  if (network_parse(text, &network) != 0) {
    fail_msg("\"%s\" was refused", text);
  }
  return network;
}

static bool has(const char *network_text, const char *address_text) {
  struct network network = parse(network_text);
  uint8_t address[NETWORK_ADDRESS_BYTES];
  if (network_parse_address(address_text, address) != 0) {
    fail_msg("\"%s\" was refused", address_text);
  }
  return network_has(&network, address);
}

static void each_network_has_one_text(void **state) {
  (void)state;
  static const struct {
    const char *text, *canonical;
  } pairs[] = {
      {"10.0.0.0/8", "10.0.0.0/8"},
      {"192.0.2.7", "192.0.2.7"},
      {"192.0.2.7/32", "192.0.2.7"},
      {"0.0.0.0/0", "0.0.0.0/0"},
      {"2001:db8::/32", "2001:db8::/32"},
      {"::1", "::1"},
      {"::1/128", "::1"},
      {"::/0", "::/0"},
      {"2001:DB8:0:0::0/64", "2001:db8::/64"},
      {"::ffff:10.0.0.0/104", "10.0.0.0/8"},
      {"::ffff:192.0.2.7", "192.0.2.7"},
      {"::ffff:0:0/96", "0.0.0.0/0"},
      {"1234:5678:9abc:def0:1234:5678:9abc:def0/127",
       "1234:5678:9abc:def0:1234:5678:9abc:def0/127"},
      // Bits beyond the prefix are dropped.
      {"10.1.2.3/8", "10.0.0.0/8"},
      {"10.1.2.255/25", "10.1.2.128/25"},
      {"2001:db8:ffff::1/33", "2001:db8:8000::/33"},
      {"ffff:ffff::/1", "8000::/1"},
  };
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    char text[NETWORK_TEXT_BYTES];
    struct network network = parse(pairs[i].text);
    assert_string_equal(network_format(&network, text), pairs[i].canonical);
    struct network again = parse(text);
    assert_memory_equal(&network, &again, sizeof network);
  }
}

static void what_is_no_network_is_refused(void **state) {
  (void)state;
  static const char *const texts[] = {"",
                                      " ",
                                      "/",
                                      "/8",
                                      "10.0.0.0/",
                                      "10.0.0.0/33",
                                      "10.0.0.0/-1",
                                      "10.0.0.0/+8",
                                      "10.0.0.0/08",
                                      "10.0.0.0/ 8",
                                      "10.0.0.0/8 ",
                                      "10.0.0.0/8/8",
                                      "10.0.0.0/8x",
                                      "10.0.0.0/99999999999999999999",
                                      " 10.0.0.0/8",
                                      "10.0.0/8",
                                      "10",
                                      "010.0.0.0/8",
                                      "256.0.0.0/8",
                                      "10.0.0.0:80",
                                      "::1/129",
                                      "::1/",
                                      ":::1",
                                      "[::1]",
                                      "fe80::1%eth0",
                                      "::ffff:1.2.3",
                                      "1:2:3:4:5:6:7:8:9",
                                      "localhost",
                                      "10.0.0.0/8,::1",
                                      "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb/32"};
  struct network network;
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    if (network_parse(texts[i], &network) != ERROR_MALFORMED) {
      fail_msg("\"%s\" was taken", texts[i]);
    }
  }
}

static void a_network_has_what_lies_in_it(void **state) {
  (void)state;
  assert_true(has("10.0.0.0/8", "10.255.0.1:5000"));
  assert_false(has("10.0.0.0/8", "11.0.0.1:5000"));
  assert_true(has("192.0.2.7", "192.0.2.7:1"));
  assert_false(has("192.0.2.7", "192.0.2.6:1"));
  assert_true(has("192.0.2.128/25", "192.0.2.128:1"));
  assert_false(has("192.0.2.128/25", "192.0.2.127:1"));
  assert_true(has("2001:db8::/33", "[2001:db8:7fff::1]:80"));
  assert_false(has("2001:db8::/33", "[2001:db8:8000::1]:80"));
  assert_true(has("::1", "[::1]:80"));
  assert_false(has("::1", "[::2]:80"));
}

static void a_mapped_address_is_the_ipv4_one(void **state) {
  (void)state;
  assert_true(has("10.0.0.0/8", "[::ffff:10.1.2.3]:80"));
  assert_true(has("::ffff:10.0.0.0/104", "10.1.2.3:80"));
  assert_true(has("192.0.2.7", "::ffff:c000:207"));
  assert_true(network_is_ipv4(&(struct network){.address = {[10] = 0xff, [11] = 0xff}}));
}

static void all_of_ipv6_has_nothing_of_ipv4(void **state) {
  (void)state;
  assert_true(has("::/0", "[2001:db8::1]:80"));
  assert_true(has("::/0", "::1"));
  assert_false(has("::/0", "10.0.0.1:80"));
  assert_false(has("::/8", "10.0.0.1:80"));
  assert_true(has("0.0.0.0/0", "10.0.0.1:80"));
  assert_false(has("0.0.0.0/0", "::1"));
}

static void addresses_are_read_as_sessions_name_them(void **state) {
  (void)state;
  assert_true(has("192.0.2.7", "192.0.2.7"));
  assert_true(has("192.0.2.7", "192.0.2.7:0"));
  assert_true(has("192.0.2.7", "192.0.2.7:65535"));
  assert_true(has("::1", "::1"));
  assert_true(has("fe80::/10", "[fe80::1%br-lan]:80"));
  assert_true(has("fe80::/10", "fe80::1%eth0"));
  static const char *const texts[] = {
      "",          "unknown:0", "192.0.2.7:", "192.0.2.7:x", "192.0.2.7:65536", "192.0.2.7:80 ",
      "[::1",      "[::1]",     "[::1]80",    "[::1]:",      "[]:80",           "[::1]:80:",
      "192.0.2:1", ":80",       "[::1]:080",  "192.0.2.7/8", "%eth0",           "[%eth0]:80",
      "::1]:80",   "::1 ",      "[1.2.3.4:80"};
  uint8_t address[NETWORK_ADDRESS_BYTES];
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    if (network_parse_address(texts[i], address) != ERROR_MALFORMED) {
      fail_msg("\"%s\" was taken", texts[i]);
    }
  }
}

static void a_list_has_what_one_of_it_has(void **state) {
  (void)state;
  struct networks networks = {.count = 2};
  uint8_t address[NETWORK_ADDRESS_BYTES];
  networks.networks[0] = parse("10.0.0.0/8");
  networks.networks[1] = parse("::1");
  networks.networks[2] = parse("0.0.0.0/0");  // beyond its end
  assert_int_equal(network_parse_address("[::1]:80", address), 0);
  assert_true(networks_have(&networks, address));
  assert_int_equal(network_parse_address("11.0.0.1:80", address), 0);
  assert_false(networks_have(&networks, address));
  networks.count = 0;
  assert_false(networks_have(&networks, address));
}

static const char *socket_text(int family, const char *host, char *text, size_t size) {
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
  struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(80)};
  void *into = family == AF_INET6 ? (void *)&six.sin6_addr : (void *)&four.sin_addr;
  assert_int_equal(inet_pton(family, host, into), 1);
  return family == AF_INET6
             ? network_format_socket((struct sockaddr *)&six, sizeof six, text, size)
             : network_format_socket((struct sockaddr *)&four, sizeof four, text, size);
}

static void a_socket_is_named_by_its_address_and_port(void **state) {
  (void)state;
  char text[64];
  struct sockaddr_storage other = {.ss_family = AF_UNIX};
  assert_string_equal(socket_text(AF_INET, "192.0.2.7", text, sizeof text), "192.0.2.7:80");
  assert_string_equal(socket_text(AF_INET6, "2001:db8::1", text, sizeof text), "[2001:db8::1]:80");
  assert_string_equal(socket_text(AF_INET6, "::ffff:192.0.2.7", text, sizeof text), "192.0.2.7:80");
  assert_string_equal(socket_text(AF_INET6, "::1", text, sizeof text), "[::1]:80");
  assert_string_equal(network_format_socket((struct sockaddr *)&other, 1, text, sizeof text),
                      "unknown:0");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_network_has_one_text),
      cmocka_unit_test(what_is_no_network_is_refused),
      cmocka_unit_test(a_network_has_what_lies_in_it),
      cmocka_unit_test(a_mapped_address_is_the_ipv4_one),
      cmocka_unit_test(all_of_ipv6_has_nothing_of_ipv4),
      cmocka_unit_test(addresses_are_read_as_sessions_name_them),
      cmocka_unit_test(a_list_has_what_one_of_it_has),
      cmocka_unit_test(a_socket_is_named_by_its_address_and_port),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
