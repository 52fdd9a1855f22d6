// Groups of sockets, and which of them the kernel gives what comes.
#include "master/listeners.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = 64, PLACES = 4 };

static char why[256];

static struct config *settings(void) {
  static struct config config;
  memset(&config, 0, sizeof config);
  config.kcp.dscp = 46;
  config.kcp.socket_buffer_bytes = 65536;
  return &config;
}

static struct config_listener kcp_at(const char *addr) {
  struct config_listener listener = {.transport = TRANSPORT_KCP};
  snprintf(listener.addr, sizeof listener.addr, "%s", addr);
  return listener;
}

static void open_at(struct listeners *listeners, const char *addr, size_t count) {
  const struct config_listener listener = kcp_at(addr);
  if (listeners_open_for_clients(listeners, settings(), &listener, count, why, sizeof why) != 0) {
    fail_msg("%s", why);
  }
}

static void grow(struct listeners *listeners, size_t count) {
  const struct config_listener listener = kcp_at("");
  if (listeners_grow(listeners, settings(), &listener, count, why, sizeof why) != 0) {
    fail_msg("%s", why);
  }
}

// The address to which clients of this machine send.
static socklen_t target_of(const struct listeners *listeners, struct sockaddr_storage *address) {
  socklen_t len = sizeof *address;
  assert_int_equal(getsockname(listeners->fds[0], (struct sockaddr *)address, &len), 0);
  return len;
}

static int client_of(const struct listeners *listeners) {
  struct sockaddr_storage address = {0};
  socklen_t len = target_of(listeners, &address);
  int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  assert_int_equal(connect(fd, (struct sockaddr *)&address, len), 0);
  return fd;
}

// Over loopback it has come when send is done.
static size_t place_of(const struct listeners *listeners, int client) {
  struct pollfd waiting[PLACES] = {0};
  char byte;
  size_t found = SIZE_MAX;
  assert_int_equal(send(client, "x", 1, 0), 1);
  for (size_t i = 0; i < listeners->count; i++) {
    waiting[i] = (struct pollfd){.fd = listeners->fds[i], .events = POLLIN};
  }
  assert_int_equal(poll(waiting, listeners->count, 5000), 1);
  for (size_t i = 0; i < listeners->count; i++) {
    if (waiting[i].revents & POLLIN) {
      assert_int_equal(recv(listeners->fds[i], &byte, 1, 0), 1);
      found = i;
    }
  }
  assert_true(found != SIZE_MAX);
  return found;
}

struct clients {
  int fds[CLIENTS];
  size_t places[CLIENTS];
};

static void clients_begin(struct clients *clients, const struct listeners *listeners) {
  for (size_t i = 0; i < CLIENTS; i++) {
    clients->fds[i] = client_of(listeners);
  }
}

static void clients_end(struct clients *clients) {
  for (size_t i = 0; i < CLIENTS; i++) {
    close(clients->fds[i]);
  }
}

// Sends from each of them; how many came to each place into loads.
static void clients_send(struct clients *clients, const struct listeners *listeners,
                         size_t loads[PLACES]) {
  memset(loads, 0, PLACES * sizeof *loads);
  for (size_t i = 0; i < CLIENTS; i++) {
    clients->places[i] = place_of(listeners, clients->fds[i]);
    loads[clients->places[i]]++;
  }
}

static void assert_each_stays(const char *addr) {
  struct listeners listeners;
  struct clients clients;
  size_t loads[PLACES], before[CLIENTS];
  open_at(&listeners, addr, PLACES);
  clients_begin(&clients, &listeners);
  clients_send(&clients, &listeners, loads);
  for (size_t i = 0; i < PLACES; i++) {
    assert_true(loads[i] > 0);  // by chance it fails once in ten million times
  }
  memcpy(before, clients.places, sizeof before);
  clients_send(&clients, &listeners, loads);
  assert_memory_equal(before, clients.places, sizeof before);
  clients_end(&clients);
  listeners_close(&listeners);
}

static void a_client_comes_to_the_same_socket_each_time(void **state) {
  (void)state;
  assert_each_stays("127.0.0.1:0");
}

static bool has_ipv6(void) {
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  int fd = socket(AF_INET6, SOCK_DGRAM, 0);
  bool has = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
  if (fd >= 0) {
    close(fd);
  }
  return has;
}

static void a_client_of_ipv6_does_too(void **state) {
  (void)state;
  if (!has_ipv6()) {
    skip();
  }
  assert_each_stays("[::1]:0");
}

static void only_the_preferred_get_any_and_the_others_keep_their_place(void **state) {
  (void)state;
  struct listeners listeners;
  struct clients clients;
  size_t loads[PLACES], before[CLIENTS];
  open_at(&listeners, "127.0.0.1:0", 3);
  int third = listeners.fds[2];
  clients_begin(&clients, &listeners);
  clients_send(&clients, &listeners, loads);
  memcpy(before, clients.places, sizeof before);

  assert_int_equal(listeners_prefer(&listeners, 2), 0);
  listeners_shrink(&listeners, 2);
  clients_send(&clients, &listeners, loads);
  assert_true(loads[0] > 0 && loads[1] > 0);
  assert_int_equal(loads[2], 0);

  grow(&listeners, PLACES);  // nobody comes to the new one yet, nor to the one of before
  clients_send(&clients, &listeners, loads);
  assert_int_equal(loads[2] + loads[3], 0);

  assert_int_equal(listeners_prefer(&listeners, 3), 0);
  assert_int_equal(listeners.fds[2], third);
  clients_send(&clients, &listeners, loads);
  assert_memory_equal(before, clients.places, sizeof before);

  assert_int_equal(listeners_prefer(&listeners, PLACES), 0);
  clients_send(&clients, &listeners, loads);
  assert_true(loads[0] > 0 && loads[1] > 0 && loads[2] > 0 && loads[3] > 0);
  clients_end(&clients);
  listeners_close(&listeners);
}

static void one_alone_can_be_joined(void **state) {
  (void)state;
  struct listeners listeners;
  struct clients clients;
  size_t loads[PLACES];
  open_at(&listeners, "127.0.0.1:0", 1);
  grow(&listeners, 2);
  assert_int_equal(listeners_prefer(&listeners, 2), 0);
  clients_begin(&clients, &listeners);
  clients_send(&clients, &listeners, loads);
  assert_true(loads[0] > 0 && loads[1] > 0);
  clients_end(&clients);
  listeners_close(&listeners);
}

// As of workers whose master died: theirs came first, and the kernel would go by their program.
static void strangers_in_the_group_take_clients_only_while_they_are_there(void **state) {
  (void)state;
  struct listeners strangers, listeners;
  struct clients clients;
  size_t loads[PLACES], came = 0;
  char addr[sizeof strangers.address], byte;
  open_at(&strangers, "127.0.0.1:0", 2);
  memcpy(addr, strangers.address, sizeof addr);
  open_at(&listeners, addr, 2);
  clients_begin(&clients, &listeners);
  for (size_t i = 0; i < CLIENTS; i++) {
    assert_int_equal(send(clients.fds[i], "x", 1, 0), 1);
  }
  for (size_t i = 0; i < listeners.count; i++) {
    while (recv(listeners.fds[i], &byte, 1, 0) == 1) {
      came++;
    }
  }
  assert_true(came > 0 && came < CLIENTS);
  listeners_close(&strangers);
  clients_send(&clients, &listeners, loads);
  assert_true(loads[0] > 0 && loads[1] > 0);
  clients_end(&clients);
  listeners_close(&listeners);
}

// The kernel closes the gap that a stranger leaves with the last one: which of ours is the first
// now, and stays when there are to be fewer, is not known.
static void a_group_that_strangers_were_in_becomes_no_smaller(void **state) {
  (void)state;
  struct listeners strangers, listeners;
  const struct config_listener listener = kcp_at("");
  open_at(&strangers, "127.0.0.1:0", 2);
  open_at(&listeners, strangers.address, 3);
  listeners_close(&strangers);
  assert_int_equal(listeners_grow(&listeners, settings(), &listener, 2, why, sizeof why),
                   ERROR_INVALID);
  assert_non_null(strstr(why, "can't be lowered before a restart"));
  grow(&listeners, 3);
  grow(&listeners, PLACES);
  grow(&listeners, 3);  // nobody was told to come to the fourth
  listeners_close(&listeners);
}

static int option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  assert_int_equal(getsockopt(fd, level, name, &value, &size), 0);
  return value;
}

static void options_are_set_and_can_change(void **state) {
  (void)state;
  struct listeners listeners;
  open_at(&listeners, "127.0.0.1:0", 2);
  assert_int_equal(option(listeners.fds[1], IPPROTO_IP, IP_TOS), 0xb8);
  assert_int_equal(option(listeners.fds[1], IPPROTO_IP, IP_PKTINFO), 1);
  assert_int_equal(option(listeners.fds[1], SOL_SOCKET, SO_RCVBUF), 131072);  // doubled
  assert_int_equal(option(listeners.fds[1], SOL_SOCKET, SO_SNDBUF), 131072);
  struct config *config = settings();
  const struct config_listener listener = kcp_at("127.0.0.1:0");
  config->kcp.dscp = 0;
  assert_int_equal(listeners_set_options(&listeners, config, &listener, why, sizeof why), 0);
  assert_int_equal(option(listeners.fds[1], IPPROTO_IP, IP_TOS), 0);
  listeners_close(&listeners);
}

static void suspended_it_still_hears(void **state) {
  (void)state;
  struct listeners listeners;
  open_at(&listeners, "127.0.0.1:0", 1);
  int client = client_of(&listeners);
  listeners_suspend(&listeners);
  assert_int_equal(place_of(&listeners, client), 0);
  assert_int_equal(listeners_resume(&listeners), 0);
  assert_int_equal(place_of(&listeners, client), 0);
  close(client);
  listeners_close(&listeners);
}

// TCP and UDP may have one address: an offer is for one of them.
static void what_is_offered_is_taken_by_its_like(void **state) {
  (void)state;
  struct listeners tcp, udp, taken;
  assert_int_equal(listeners_open(&tcp, "127.0.0.1:0", 1, 1, why, sizeof why), 0);
  const int tcp_fd = tcp.fds[0];
  char addr[sizeof tcp.address];
  memcpy(addr, tcp.address, sizeof addr);
  open_at(&udp, addr, 2);
  assert_string_equal(udp.address, tcp.address);
  const int udp_fd = udp.fds[1];
  assert_int_equal(listeners_prefer(&udp, 1), 0);
  listeners_offer(addr, &tcp);
  listeners_offer(addr, &udp);
  open_at(&taken, addr, 1);
  assert_int_equal(taken.count, 2);
  assert_int_equal(taken.preferred, 1);
  assert_int_equal(taken.fds[1], udp_fd);
  listeners_close(&taken);
  assert_int_equal(listeners_open(&taken, addr, 1, 1, why, sizeof why), 0);
  assert_int_equal(taken.fds[0], tcp_fd);
  listeners_close(&taken);
  listeners_withdraw_offers();
}

static void a_port_that_is_taken_is_refused(void **state) {
  (void)state;
  struct listeners listeners;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t len = sizeof address;
  const int on = 1;
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  char addr[32];
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
  snprintf(addr, sizeof addr, "127.0.0.1:%d", ntohs(address.sin_port));
  const struct config_listener listener = kcp_at(addr);
  assert_int_equal(
      listeners_open_for_clients(&listeners, settings(), &listener, 1, why, sizeof why),
      ERROR_SYSTEM);
  assert_non_null(strstr(why, "is another gateway running?"));
  close(fd);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_client_comes_to_the_same_socket_each_time),
      cmocka_unit_test(a_client_of_ipv6_does_too),
      cmocka_unit_test(only_the_preferred_get_any_and_the_others_keep_their_place),
      cmocka_unit_test(one_alone_can_be_joined),
      cmocka_unit_test(strangers_in_the_group_take_clients_only_while_they_are_there),
      cmocka_unit_test(a_group_that_strangers_were_in_becomes_no_smaller),
      cmocka_unit_test(options_are_set_and_can_change),
      cmocka_unit_test(suspended_it_still_hears),
      cmocka_unit_test(what_is_offered_is_taken_by_its_like),
      cmocka_unit_test(a_port_that_is_taken_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
