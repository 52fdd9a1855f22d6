#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <event2/event.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/channel.h"

struct end {
  struct channel *channel;
  int messages;
  enum channel_type last_type;
  struct channel_login last;
  size_t pushed_receivers;
  size_t pushed_bytes;
  int broken;
  bool free_on_message;
};

struct fixture {
  struct event_base *base;
  struct end left;
  struct end right;
  int raw;  // the right end's descriptor, where no channel is put on it
};

static void on_message(enum channel_type type, const void *content, void *owner) {
  struct end *end = owner;
  end->messages++;
  end->last_type = type;
  if (type == CHANNEL_LOGIN) {
    memcpy(&end->last, content, sizeof end->last);
  }
  if (type == CHANNEL_PUSH) {
    const struct channel_push *push = content;
    for (size_t i = 0; i < push->receiver_count; i++) {
      assert_int_equal(channel_push_receivers(push)[i], i * i);
    }
    for (size_t i = 0; i < push->packet_bytes; i++) {
      assert_int_equal(channel_push_packet(push)[i], (uint8_t)(i * 31));
    }
    end->pushed_receivers += push->receiver_count;
    end->pushed_bytes += push->packet_bytes;
  }
  if (end->free_on_message) {
    channel_free(end->channel);
    end->channel = NULL;
  }
}

static void on_broken(const char *why, void *owner) {
  struct end *end = owner;
  (void)why;
  end->broken++;
}

static const struct channel_events events = {on_message, on_broken};

static int set_up(void **state) {
  static struct fixture fixture;
  int pair[2];
  memset(&fixture, 0, sizeof fixture);
  fixture.base = event_base_new();
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  fixture.left.channel = channel_new(fixture.base, pair[0], &events, &fixture.left);
  assert_non_null(fixture.left.channel);
  fixture.raw = pair[1];
  *state = &fixture;
  return 0;
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  channel_free(fixture->left.channel);
  channel_free(fixture->right.channel);
  if (fixture->raw >= 0) {
    close(fixture->raw);
  }
  event_base_free(fixture->base);
  return 0;
}

static void connect_right(struct fixture *fixture) {
  fixture->right.channel = channel_new(fixture->base, fixture->raw, &events, &fixture->right);
  fixture->raw = -1;
}

static void run(struct fixture *fixture) {
  for (int i = 0; i < 20; i++) {
    event_base_loop(fixture->base, EVLOOP_NONBLOCK);
  }
}

static void a_message_arrives_as_it_was_sent(void **state) {
  struct fixture *fixture = *state;
  struct channel_login login = {.session = {.connection = 77, .uid = -5, .color = "blue"}};
  connect_right(fixture);
  assert_int_equal(channel_send(fixture->left.channel, CHANNEL_LOGIN, &login), 0);
  assert_int_equal(channel_send(fixture->left.channel, CHANNEL_STOP, NULL), 0);
  run(fixture);
  assert_int_equal(fixture->right.messages, 2);
  assert_int_equal(fixture->right.last_type, CHANNEL_STOP);
  assert_int_equal(fixture->right.last.session.uid, -5);
  assert_string_equal(fixture->right.last.session.color, "blue");
}

static void a_message_may_come_in_pieces(void **state) {
  struct fixture *fixture = *state;
  struct channel_session_closed closed = {.connection = 9};
  uint32_t header[2] = {CHANNEL_SESSION_CLOSED, sizeof closed};
  char bytes[sizeof header + sizeof closed];
  memcpy(bytes, header, sizeof header);
  memcpy(bytes + sizeof header, &closed, sizeof closed);
  for (size_t i = 0; i < sizeof bytes; i++) {
    assert_int_equal(fixture->left.messages, 0);
    assert_int_equal(write(fixture->raw, bytes + i, 1), 1);
    run(fixture);
  }
  assert_int_equal(fixture->left.messages, 1);
}

static void an_unknown_type_breaks_the_channel(void **state) {
  struct fixture *fixture = *state;
  uint32_t header[2] = {CHANNEL_TYPE_END, 0};
  assert_int_equal(write(fixture->raw, header, sizeof header), sizeof header);
  run(fixture);
  assert_int_equal(fixture->left.broken, 1);
  assert_int_equal(fixture->left.messages, 0);
}

static void a_wrong_size_breaks_the_channel(void **state) {
  struct fixture *fixture = *state;
  uint32_t header[2] = {CHANNEL_SESSION_CLOSED, 1 << 30};
  assert_int_equal(write(fixture->raw, header, sizeof header), sizeof header);
  run(fixture);
  assert_int_equal(fixture->left.broken, 1);
}

static void a_text_without_an_end_breaks_the_channel(void **state) {
  struct fixture *fixture = *state;
  struct channel_login login;
  memset(&login, 'x', sizeof login);
  connect_right(fixture);
  assert_int_equal(channel_send(fixture->right.channel, CHANNEL_LOGIN, &login), 0);
  run(fixture);
  assert_int_equal(fixture->left.broken, 1);
  assert_int_equal(fixture->left.messages, 0);
}

static void the_end_of_the_peer_is_told(void **state) {
  struct fixture *fixture = *state;
  close(fixture->raw);
  fixture->raw = -1;
  run(fixture);
  assert_int_equal(fixture->left.broken, 1);
}

static void a_callback_may_free_the_channel(void **state) {
  struct fixture *fixture = *state;
  connect_right(fixture);
  fixture->right.free_on_message = true;
  assert_int_equal(channel_send(fixture->left.channel, CHANNEL_STOP, NULL), 0);
  assert_int_equal(channel_send(fixture->left.channel, CHANNEL_STOP, NULL), 0);
  run(fixture);
  assert_int_equal(fixture->right.messages, 1);
}

static void send_push(struct fixture *fixture, size_t receivers, size_t packet_bytes) {
  static uint64_t to[CHANNEL_PUSH_RECEIVERS_MAX];
  static uint8_t packet[CHANNEL_PUSH_PACKET_MAX_BYTES];
  struct channel_push push = {.serial = 3,
                              .receiver_count = (uint32_t)receivers,
                              .packet_bytes = (uint32_t)packet_bytes,
                              .color = "blue"};
  for (size_t i = 0; i < receivers; i++) {
    to[i] = i * i;
  }
  for (size_t i = 0; i < packet_bytes; i++) {
    packet[i] = (uint8_t)(i * 31);
  }
  assert_int_equal(channel_send_push(fixture->left.channel, &push, to, packet), 0);
}

static void a_push_brings_its_receivers_and_its_packet(void **state) {
  static const struct {
    size_t receivers;
    size_t packet_bytes;
  } sizes[] = {{0, 0}, {0, 1}, {1, 0}, {3, 77}, {CHANNEL_PUSH_RECEIVERS_MAX, 2 << 20}, {0, 3}};
  enum { COUNT = sizeof sizes / sizeof sizes[0] };
  struct fixture *fixture = *state;
  connect_right(fixture);
  for (size_t i = 0; i < COUNT; i++) {
    send_push(fixture, sizes[i].receivers, sizes[i].packet_bytes);
  }
  while (fixture->right.messages < COUNT) {
    event_base_loop(fixture->base, EVLOOP_ONCE);
    assert_int_equal(fixture->right.broken, 0);
  }
  assert_int_equal(fixture->right.pushed_receivers, 0 + 0 + 1 + 3 + CHANNEL_PUSH_RECEIVERS_MAX + 0);
  assert_int_equal(fixture->right.pushed_bytes, 1 + 77 + (2 << 20) + 3);
}

static void a_push_of_another_length_than_it_says_breaks_the_channel(void **state) {
  struct fixture *fixture = *state;
  struct channel_push push = {.receiver_count = UINT32_MAX / 8, .packet_bytes = 16};
  struct {
    uint32_t header[2];
    struct channel_push push;
    uint8_t tail[8];
  } bytes = {.header = {CHANNEL_PUSH, sizeof push + 8}, .push = push};
  assert_int_equal(write(fixture->raw, &bytes, sizeof bytes), sizeof bytes);
  run(fixture);
  assert_int_equal(fixture->left.broken, 1);
  assert_int_equal(fixture->left.messages, 0);
}

static void pushes_leave_room_for_the_rest(void **state) {
  struct fixture *fixture = *state;
  static uint8_t packet[100000];
  struct channel_push push = {.packet_bytes = sizeof packet};
  int error = 0;
  for (int i = 0; i < 10000 && error == 0; i++) {
    error = channel_send_push(fixture->left.channel, &push, NULL, packet);
  }
  assert_int_equal(error, ERROR_EXHAUSTED);
  assert_int_equal(channel_send(fixture->left.channel, CHANNEL_STOP, NULL), 0);
}

static void what_waits_for_a_peer_that_does_not_read_is_bounded(void **state) {
  struct fixture *fixture = *state;
  struct channel_login login = {.session = {.connection = 1}};
  int error = 0;
  for (int i = 0; i < 10000000 && error == 0; i++) {
    error = channel_send(fixture->left.channel, CHANNEL_LOGIN, &login);
  }
  assert_int_equal(error, ERROR_EXHAUSTED);
}

static void a_paused_channel_gives_nothing_out_and_lets_its_peer_wait(void **state) {
  struct fixture *fixture = *state;
  struct channel_login login = {.session = {.connection = 1}};
  int error = 0;
  int sent = 0;
  connect_right(fixture);
  channel_pause(fixture->right.channel);
  for (; sent < 10000000 && error == 0; sent++) {
    error = channel_send(fixture->left.channel, CHANNEL_LOGIN, &login);
    if (sent % 1000 == 0) {
      run(fixture);
    }
  }
  assert_int_equal(error, ERROR_EXHAUSTED);
  assert_int_equal(fixture->right.messages, 0);
  channel_resume(fixture->right.channel);
  while (fixture->right.messages < sent - 1) {
    event_base_loop(fixture->base, EVLOOP_ONCE);
    assert_int_equal(fixture->right.broken, 0);
  }
  assert_int_equal(channel_send(fixture->left.channel, CHANNEL_STOP, NULL), 0);
  run(fixture);
  assert_int_equal(fixture->right.messages, sent);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_message_arrives_as_it_was_sent),
      FACT(a_message_may_come_in_pieces),
      FACT(an_unknown_type_breaks_the_channel),
      FACT(a_wrong_size_breaks_the_channel),
      FACT(a_text_without_an_end_breaks_the_channel),
      FACT(the_end_of_the_peer_is_told),
      FACT(a_callback_may_free_the_channel),
      FACT(a_push_brings_its_receivers_and_its_packet),
      FACT(a_push_of_another_length_than_it_says_breaks_the_channel),
      FACT(pushes_leave_room_for_the_rest),
      FACT(what_waits_for_a_peer_that_does_not_read_is_bounded),
      FACT(a_paused_channel_gives_nothing_out_and_lets_its_peer_wait),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
