#include "worker/kcp_mailbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/config.h"

// What is said of a datagram here.
struct head {
  int64_t from;
  int32_t number;
};

enum { WORKERS = 3 };

struct fixture {
  int read_ends[WORKERS];
  int write_ends[CONFIG_WORKER_NUMBERS];  // -1: nobody ever had the number
  struct kcp_mailbox *mailboxes[WORKERS];
  // Of what came last.
  size_t came;
  struct head head;
  size_t len;
  uint8_t bytes[KCP_MAILBOX_DATAGRAM_MAX_BYTES];
  size_t wrong;  // that are not as sent
  struct kcp_mailbox *answer_by;
};

static struct kcp_mailbox *new_one(const struct fixture *fixture, unsigned number) {
  struct kcp_mailbox *mailbox =
      kcp_mailbox_new(fixture->read_ends[number], fixture->write_ends, sizeof(struct head));
  assert_non_null(mailbox);
  return mailbox;
}

static int set_up(void **state) {
  struct fixture *fixture = calloc(1, sizeof *fixture);
  memset(fixture->write_ends, -1, sizeof fixture->write_ends);
  for (unsigned i = 0; i < WORKERS; i++) {
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    fixture->read_ends[i] = pair[0];
    fixture->write_ends[i] = pair[1];
  }
  for (unsigned i = 0; i < WORKERS; i++) {
    fixture->mailboxes[i] = new_one(fixture, i);
  }
  *state = fixture;
  return 0;
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  for (size_t i = 0; i < WORKERS; i++) {
    kcp_mailbox_free(fixture->mailboxes[i]);
    close(fixture->read_ends[i]);
    close(fixture->write_ends[i]);
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
  struct pollfd waiting = {.fd = fixture->read_ends[number], .events = POLLIN};
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
  close(fixture->read_ends[2]);
  for (unsigned number = 2; number <= 77; number += 75) {
    send_as(fixture, 0, number, 1, 5);
    send_as(fixture, 0, number, 2, 5);
    kcp_mailbox_flush(fixture->mailboxes[0]);
    assert_int_equal(kcp_mailbox_take_lost(fixture->mailboxes[0]), 2);
  }
  fixture->read_ends[2] = -1;
  const struct head head = {0};
  assert_int_equal(
      kcp_mailbox_send(fixture->mailboxes[0], CONFIG_WORKER_NUMBERS, &head, (const uint8_t *)"", 0),
      ERROR_INVALID);
  assert_int_equal(kcp_mailbox_send(fixture->mailboxes[0], 1, &head, fixture->bytes,
                                    KCP_MAILBOX_DATAGRAM_MAX_BYTES + 1),
                   ERROR_INVALID);
}

// As long as it has not read it: it is for the number, whoever has it.
static void the_next_of_a_number_gets_what_came_for_the_one_before(void **state) {
  struct fixture *fixture = *state;
  send_as(fixture, 0, 1, 3, 5);
  kcp_mailbox_flush(fixture->mailboxes[0]);
  kcp_mailbox_free(fixture->mailboxes[1]);
  fixture->mailboxes[1] = new_one(fixture, 1);
  send_as(fixture, 0, 1, 4, 5);
  kcp_mailbox_flush(fixture->mailboxes[0]);
  receive(fixture, 1);
  assert_int_equal(fixture->came, 2);
  assert_int_equal(fixture->head.number, 4);
  assert_int_equal(kcp_mailbox_take_lost(fixture->mailboxes[0]), 0);
}

static void what_is_dropped_counts_as_lost(void **state) {
  struct fixture *fixture = *state;
  enum { BURST = 64 };
  kcp_mailbox_drop(fixture->mailboxes[1]);  // nothing
  for (int32_t i = 0; i < BURST; i++) {
    send_as(fixture, 0, 1, i, 1408);
    kcp_mailbox_flush(fixture->mailboxes[0]);
  }
  assert_int_equal(kcp_mailbox_take_lost(fixture->mailboxes[0]), 0);
  kcp_mailbox_drop(fixture->mailboxes[1]);
  assert_false(is_readable(fixture, 1));
  assert_int_equal(fixture->came, 0);
  assert_int_equal(kcp_mailbox_take_lost(fixture->mailboxes[1]), BURST);
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

// --- What no worker of this kind sends ---------------------------------------------------------

static void send_raw(const struct fixture *fixture, const void *bytes, size_t len) {
  assert_int_equal(send(fixture->write_ends[1], bytes, len, MSG_DONTWAIT), len);
}

static void what_is_malformed_is_dropped(void **state) {
  struct fixture *fixture = *state;
  static const uint32_t lengths[] = {1, 8, KCP_MAILBOX_DATAGRAM_MAX_BYTES + 1, 0x7fffffff,
                                     0xffffffff};
  uint8_t bytes[4 + sizeof(struct head)] = {0};
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    memcpy(bytes, &lengths[i], sizeof lengths[i]);
    for (size_t len = 0; len <= sizeof bytes; len++) {
      send_raw(fixture, bytes, len);
      receive(fixture, 1);
      assert_false(is_readable(fixture, 1));
    }
  }
  assert_int_equal(fixture->came, 0);
  memset(bytes, 0, 4);
  send_raw(fixture, bytes, sizeof bytes);
  receive(fixture, 1);
  assert_int_equal(fixture->came, 1);
}

static void what_is_too_long_is_dropped(void **state) {
  struct fixture *fixture = *state;
  uint8_t bytes[40000] = {0};  // of datagrams without a byte
  send_raw(fixture, bytes, sizeof bytes);
  receive(fixture, 1);
  assert_false(is_readable(fixture, 1));
  assert_int_equal(fixture->came, 0);
}

#define FACT(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      FACT(datagrams_come_as_they_were_sent),
      FACT(of_any_length),
      FACT(a_burst_for_several_comes_whole),
      FACT(whoever_has_no_room_costs_what_is_counted),
      FACT(whoever_is_not_there_costs_what_is_counted),
      FACT(what_is_dropped_counts_as_lost),
      FACT(the_next_of_a_number_gets_what_came_for_the_one_before),
      FACT(one_may_be_answered_while_it_is_read),
      FACT(what_is_malformed_is_dropped),
      FACT(what_is_too_long_is_dropped),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
