// Datagrams in batches, over the loopback.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <arpa/inet.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/kcp_socket.h"

enum { LONGEST = 1500 };  // that a client of the ecosystem takes

struct fixture {
  struct event_base *base;
  struct counters *counters;
  struct kcp_socket *socket;
  int client;
  struct kcp_peer peer;
};

static int udp_socket(struct sockaddr_in *address) {
  const int buffer = 1 << 20;
  socklen_t len = sizeof *address;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  *address = (struct sockaddr_in){.sin_family = AF_INET};
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  assert_int_equal(bind(fd, (struct sockaddr *)address, len), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)address, &len), 0);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
  return fd;
}

static void on_datagram(const struct kcp_peer *peer, uint8_t *bytes, size_t len, void *owner) {
  (void)peer;
  (void)bytes;
  (void)len;
  (void)owner;
}

static int setup(void **state) {
  static const struct kcp_socket_events events = {.on_datagram = on_datagram};
  struct fixture *f = calloc(1, sizeof *f);
  struct sockaddr_in own;
  f->base = event_base_new();
  f->counters = calloc(1, sizeof *f->counters);
  int fd = udp_socket(&own);
  f->client = udp_socket(&f->peer.address.v4);
  f->peer.local.v4 = own.sin_addr;
  f->socket = kcp_socket_new(f->base, fd, f->counters, &events, NULL);
  assert_non_null(f->socket);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  struct fixture *f = *state;
  kcp_socket_free(f->socket);
  close(f->client);
  event_base_free(f->base);
  free(f->counters);
  free(f);
  return 0;
}

// Sends count datagrams of len bytes, and reads them, which are numbered in their first byte.
static void send_and_check(struct fixture *f, int count, size_t len) {
  uint8_t bytes[KCP_DATAGRAM_MAX_BYTES];
  for (int i = 0; i < count; i++) {
    memset(bytes, i, len);
    kcp_socket_send(f->socket, &f->peer, bytes, len);
  }
  kcp_socket_flush(f->socket);
  for (int i = 0; i < count; i++) {
    assert_int_equal(recv(f->client, bytes, sizeof bytes, 0), len);
    assert_int_equal(bytes[0], i);
    assert_int_equal(bytes[len - 1], i);
  }
  assert_int_equal(recv(f->client, bytes, sizeof bytes, 0), -1);
}

static uint64_t counted(const struct fixture *f, enum counter counter) {
  return atomic_load(&f->counters->counter[counter]);
}

static void a_full_batch_of_the_longest_goes_by_one_call(void **state) {
  struct fixture *f = *state;
  send_and_check(f, 64, LONGEST);
  assert_int_equal(counted(f, COUNTER_KCP_WRITES), 1);
  assert_int_equal(counted(f, COUNTER_KCP_DATAGRAMS_OUT), 64);
  assert_int_equal(counted(f, COUNTER_KCP_BYTES_OUT), 64 * LONGEST);
}

static void a_batch_of_short_ones_goes_by_one_call(void **state) {
  struct fixture *f = *state;
  send_and_check(f, 64, 32);
  assert_int_equal(counted(f, COUNTER_KCP_WRITES), 1);
}

static void all_but_the_last_of_a_run_are_of_one_length(void **state) {
  struct fixture *f = *state;
  static const size_t lens[] = {100, 100, 60, 60, 100, 200, 200, 1};
  uint8_t bytes[256] = {0};
  for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
    kcp_socket_send(f->socket, &f->peer, bytes, lens[i]);
  }
  kcp_socket_flush(f->socket);
  for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
    assert_int_equal(recv(f->client, bytes, sizeof bytes, 0), lens[i]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_full_batch_of_the_longest_goes_by_one_call, setup,
                                      teardown),
      cmocka_unit_test_setup_teardown(a_batch_of_short_ones_goes_by_one_call, setup, teardown),
      cmocka_unit_test_setup_teardown(all_but_the_last_of_a_run_are_of_one_length, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
