#include "worker/kcp_mailbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/config.h"
#include "common/kcp_owners.h"

// What is said of a datagram here.
struct head {
  int64_t from;
  int32_t number;
};

struct fixture {
  uint8_t secret[KCP_OWNERS_SECRET_BYTES];
  struct kcp_mailbox *mailboxes[3];
  // Of what came last.
  size_t came;
  struct head head;
  size_t len;
  uint8_t bytes[KCP_MAILBOX_DATAGRAM_MAX_BYTES];
  size_t wrong;  // that are not as sent
  struct kcp_mailbox *answer_by;
};

static struct kcp_mailbox *open_one(const struct fixture *fixture, unsigned number) {
  int error = 0;
  struct kcp_mailbox *mailbox =
      kcp_mailbox_open(fixture->secret, number, sizeof(struct head), &error);
  assert_non_null(mailbox);
  return mailbox;
}

static int set_up(void **state) {
  struct fixture *fixture = calloc(1, sizeof *fixture);
  // Tests run beside each other.
  snprintf((char *)fixture->secret, sizeof fixture->secret, "%d", (int)getpid());
  for (unsigned i = 0; i < 3; i++) {
    fixture->mailboxes[i] = open_one(fixture, i);
  }
  *state = fixture;
  return 0;
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  for (size_t i = 0; i < 3; i++) {
    kcp_mailbox_close(fixture->mailboxes[i]);
  }
  free(fixture);
  return 0;
}

// Each byte of a datagram is the low one of its number.
static void send_as(struct fixture *fixture, unsigned from, unsigned to, int32_t number,
                    size_t len) {
  const struct head head = {from, number};
  uint8_t bytes[KCP_MAILBOX_DATAGRAM_MAX_BYTES];
  memset(bytes, number & 0xff, sizeof bytes);
  assert_int_equal(kcp_mailbox_send(fixture->mailboxes[from], to, &head, bytes, len), 0);
}

static void on_datagram(const void *head, uint8_t *bytes, size_t len, void *owner) {
  struct fixture *fixture = owner;
  memcpy(&fixture->head, head, sizeof fixture->head);
  fixture->came++;
  fixture->len = len;
  memcpy(fixture->bytes, bytes, len);
  for (size_t i = 0; i < len; i++) {
    fixture->wrong += bytes[i] != (fixture->head.number & 0xff);
    bytes[i] = 0;  // they are the reader's
  }
  if (fixture->answer_by) {
    assert_int_equal(
        kcp_mailbox_send(fixture->answer_by, (unsigned)fixture->head.from, head, bytes, len), 0);
  }
}

static void receive(struct fixture *fixture, unsigned number) {
  kcp_mailbox_receive(fixture->mailboxes[number], on_datagram, fixture);
}

static bool is_readable(const struct fixture *fixture, unsigned number) {
  struct pollfd waiting = {.fd = kcp_mailbox_fd(fixture->mailboxes[number]), .events = POLLIN};
  return poll(&waiting, 1, 0) == 1;
}

static void datagrams_come_as_they_were_sent(void **state) {
  struct fixture *fixture = *state;
  send_as(fixture, 0, 1, 7, 1500);
  assert_false(is_readable(fixture, 1));
  kcp_mailbox_flush(fixture->mailboxes[0]);
  assert_true(is_readable(fixture, 1));
  assert_false(is_readable(fixture, 2));
  receive(fixture, 1);
  assert_int_equal(fixture->came, 1);
  assert_int_equal(fixture->head.from, 0);
  assert_int_equal(fixture->head.number, 7);
  assert_int_equal(fixture->len, 1500);
  assert_int_equal(fixture->wrong, 0);
  assert_false(is_readable(fixture, 1));
  receive(fixture, 1);  // nothing
  assert_int_equal(fixture->came, 1);
}

static void of_any_length(void **state) {
  struct fixture *fixture = *state;
  static const size_t lengths[] = {0, 1, 24, 1500, KCP_MAILBOX_DATAGRAM_MAX_BYTES};
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    send_as(fixture, 2, 1, (int32_t)i, lengths[i]);
    kcp_mailbox_flush(fixture->mailboxes[2]);
    receive(fixture, 1);
    assert_int_equal(fixture->came, i + 1);
    assert_int_equal(fixture->len, lengths[i]);
  }
  assert_int_equal(fixture->wrong, 0);
}

// More than the kernel lets wait as messages, and more than one message holds.
static void a_burst_for_several_comes_whole(void **state) {
  struct fixture *fixture = *state;
  enum { BURST = 64 };
  for (int32_t i = 0; i < BURST; i++) {
    send_as(fixture, 0, 1 + (unsigned)i % 2, i, 1408);
  }
  kcp_mailbox_flush(fixture->mailboxes[0]);
  receive(fixture, 1);
  assert_int_equal(fixture->came, BURST / 2);
  assert_int_equal(fixture->head.number, BURST - 2);
  receive(fixture, 2);
  assert_int_equal(fixture->came, BURST);
  assert_int_equal(fixture->wrong, 0);
  assert_int_equal(kcp_mailbox_take_lost(fixture->mailboxes[0]), 0);
}

static void whoever_has_no_room_costs_what_is_counted(void **state) {
  struct fixture *fixture = *state;
  size_t lost = 0, sent = 0;
  while (lost == 0) {
    assert_true(sent < 100000);
    send_as(fixture, 0, 1, (int32_t)sent++, 1408);
    kcp_mailbox_flush(fixture->mailboxes[0]);
    lost += kcp_mailbox_take_lost(fixture->mailboxes[0]);
  }
  assert_int_equal(kcp_mailbox_take_lost(fixture->mailboxes[0]), 0);
  while (is_readable(fixture, 1)) {
    receive(fixture, 1);
  }
  assert_int_equal(fixture->came, sent - lost);
  assert_int_equal(fixture->wrong, 0);
  send_as(fixture, 0, 1, 1, 5);  // and goes on
  kcp_mailbox_flush(fixture->mailboxes[0]);
  receive(fixture, 1);
  assert_int_equal(fixture->came, sent - lost + 1);
}

static void whoever_is_not_there_costs_what_is_counted(void **state) {
  struct fixture *fixture = *state;
  send_as(fixture, 0, 77, 1, 5);
  send_as(fixture, 0, 77, 2, 5);
  kcp_mailbox_flush(fixture->mailboxes[0]);
  assert_int_equal(kcp_mailbox_take_lost(fixture->mailboxes[0]), 2);
  const struct head head = {0};
  assert_int_equal(
      kcp_mailbox_send(fixture->mailboxes[0], CONFIG_WORKER_NUMBERS, &head, (const uint8_t *)"", 0),
      ERROR_INVALID);
  assert_int_equal(kcp_mailbox_send(fixture->mailboxes[0], 1, &head, fixture->bytes,
                                    KCP_MAILBOX_DATAGRAM_MAX_BYTES + 1),
                   ERROR_INVALID);
}

static void a_number_is_anothers_when_the_first_has_gone(void **state) {
  struct fixture *fixture = *state;
  int error = 0;
  assert_null(kcp_mailbox_open(fixture->secret, 1, sizeof(struct head), &error));
  assert_int_equal(error, ERROR_SYSTEM);
  assert_int_equal(errno, EADDRINUSE);
  kcp_mailbox_close(fixture->mailboxes[1]);
  fixture->mailboxes[1] = open_one(fixture, 1);
  send_as(fixture, 0, 1, 3, 5);
  kcp_mailbox_flush(fixture->mailboxes[0]);
  receive(fixture, 1);
  assert_int_equal(fixture->came, 1);
}

static void another_gateway_has_others(void **state) {
  struct fixture *fixture = *state;
  struct fixture other = {0};
  memset(other.secret, 0xee, sizeof other.secret);
  snprintf((char *)other.secret, sizeof other.secret, "%d", (int)getpid());
  other.mailboxes[0] = open_one(&other, 0);
  send_as(&other, 0, 1, 3, 5);
  kcp_mailbox_flush(other.mailboxes[0]);
  assert_int_equal(kcp_mailbox_take_lost(other.mailboxes[0]), 1);
  assert_false(is_readable(fixture, 1));
  kcp_mailbox_close(other.mailboxes[0]);
}

static void one_may_be_answered_while_it_is_read(void **state) {
  struct fixture *fixture = *state;
  fixture->answer_by = fixture->mailboxes[1];
  send_as(fixture, 0, 1, 0, 100);
  send_as(fixture, 0, 1, 0, 100);
  kcp_mailbox_flush(fixture->mailboxes[0]);
  receive(fixture, 1);
  kcp_mailbox_flush(fixture->mailboxes[1]);
  fixture->answer_by = NULL;
  receive(fixture, 0);
  assert_int_equal(fixture->came, 4);
  assert_int_equal(fixture->wrong, 0);
}

// --- What does not come from us ----------------------------------------------------------------

static void send_raw(const struct fixture *fixture, const void *bytes, size_t len) {
  struct sockaddr_un address;
  socklen_t address_len = sizeof address;
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  assert_int_equal(
      getsockname(kcp_mailbox_fd(fixture->mailboxes[1]), (struct sockaddr *)&address, &address_len),
      0);
  assert_int_equal(sendto(fd, bytes, len, MSG_DONTWAIT, (struct sockaddr *)&address, address_len),
                   len);
  close(fd);
}

static void without_the_secret_nothing_is_queued(void **state) {
  struct fixture *fixture = *state;
  uint8_t bytes[64] = {0};
  for (size_t i = 0; i < 1000; i++) {  // it would be full long before
    send_raw(fixture, bytes, i % 2 == 0 ? sizeof bytes : 3);
  }
  memcpy(bytes, fixture->secret, sizeof fixture->secret);
  bytes[sizeof fixture->secret - 1] ^= 1;
  send_raw(fixture, bytes, sizeof bytes);
  send_raw(fixture, fixture->secret, sizeof fixture->secret - 1);
  assert_false(is_readable(fixture, 1));
}

static void what_is_malformed_is_dropped(void **state) {
  struct fixture *fixture = *state;
  static const uint32_t lengths[] = {1, 8, KCP_MAILBOX_DATAGRAM_MAX_BYTES + 1, 0x7fffffff,
                                     0xffffffff};
  uint8_t bytes[sizeof fixture->secret + 4 + sizeof(struct head)] = {0};
  memcpy(bytes, fixture->secret, sizeof fixture->secret);
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    memcpy(bytes + sizeof fixture->secret, &lengths[i], sizeof lengths[i]);
    for (size_t len = sizeof fixture->secret; len <= sizeof bytes; len++) {
      send_raw(fixture, bytes, len);
      receive(fixture, 1);
    }
  }
  assert_int_equal(fixture->came, 0);
  memset(bytes + sizeof fixture->secret, 0, 4);
  send_raw(fixture, bytes, sizeof bytes);
  receive(fixture, 1);
  assert_int_equal(fixture->came, 1);
}

#define FACT(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      FACT(datagrams_come_as_they_were_sent),
      FACT(of_any_length),
      FACT(a_burst_for_several_comes_whole),
      FACT(whoever_has_no_room_costs_what_is_counted),
      FACT(whoever_is_not_there_costs_what_is_counted),
      FACT(a_number_is_anothers_when_the_first_has_gone),
      FACT(another_gateway_has_others),
      FACT(one_may_be_answered_while_it_is_read),
      FACT(without_the_secret_nothing_is_queued),
      FACT(what_is_malformed_is_dropped),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
