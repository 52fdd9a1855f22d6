#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <event2/event.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/frame.h"
#include "worker/transport.h"

enum { RECEIVED_MAX_BYTES = 1 << 20 };

struct fixture {
  struct event_base *base;
  struct counters counters;
  struct wire_shared wires;
  struct transport_gone on_gone;
  struct transport *transport;
  int fd;                             // the gateway's end, the wire's
  int client;                         // the other end
  char received[RECEIVED_MAX_BYTES];  // all messages, each followed by a ';'
  size_t received_len;
  int messages;
  int drained;
  int ended;
  enum close_reason reason;
  int gone;
  void *gone_cookie;
  bool pause_on_message;
  bool close_on_message;
  bool flush_on_close;
};

static void on_message(uint8_t *bytes, size_t len, void *owner) {
  struct fixture *fixture = owner;
  memcpy(fixture->received + fixture->received_len, bytes, len);
  fixture->received_len += len;
  fixture->received[fixture->received_len++] = ';';
  fixture->messages++;
  if (fixture->pause_on_message) {
    transport_pause(fixture->transport);
  }
  if (fixture->close_on_message) {
    transport_close(fixture->transport, CLOSE_DRAIN, fixture->flush_on_close);
  }
}

static void on_ended(enum close_reason reason, void *owner) {
  struct fixture *fixture = owner;
  fixture->ended++;
  fixture->reason = reason;
}

static void on_drained(void *owner) { ((struct fixture *)owner)->drained++; }

static void on_gone(void *context, void *cookie) {
  struct fixture *fixture = context;
  fixture->gone++;
  fixture->gone_cookie = cookie;
}

static struct wire *make_wire(void *context, const struct wire_events *wire_events, void *owner) {
  struct fixture *fixture = context;
  return wire_socket_new(&fixture->wires, fixture->fd, NULL, wire_events, owner);
}

static int set_up_on(void **state, int socket_type) {
  static const struct transport_events events = {
      .on_message = on_message, .on_ended = on_ended, .on_drained = on_drained};
  struct fixture *fixture = calloc(1, sizeof *fixture);
  int pair[2];
  fixture->base = event_base_new();
  fixture->wires = (struct wire_shared){
      .base = fixture->base, .counters = &fixture->counters, .low_bytes = 1000, .linger_ms = 60000};
  assert_int_equal(wire_shared_init(&fixture->wires), 0);
  fixture->on_gone = (struct transport_gone){on_gone, fixture};
  assert_int_equal(socketpair(AF_UNIX, socket_type | SOCK_NONBLOCK, 0, pair), 0);
  fixture->client = pair[1];
  fixture->fd = pair[0];
  fixture->transport = transport_framed_new(make_wire, fixture, &events, fixture, &fixture->on_gone,
                                            &fixture->gone_cookie);
  *state = fixture;
  return fixture->transport ? 0 : -1;
}

static int set_up(void **state) { return set_up_on(state, SOCK_STREAM); }

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  wire_cut_all(&fixture->wires);
  assert_int_equal(fixture->gone, 1);
  assert_ptr_equal(fixture->gone_cookie, &fixture->gone_cookie);
  close(fixture->client);
  wire_shared_fini(&fixture->wires);
  event_base_free(fixture->base);
  free(fixture);
  return 0;
}

static void run(struct fixture *fixture) {
  for (int i = 0; i < 10; i++) {
    event_base_loop(fixture->base, EVLOOP_NONBLOCK);
  }
}

static void client_sends(struct fixture *fixture, const void *bytes, size_t len) {
  assert_int_equal(write(fixture->client, bytes, len), len);
}

static void client_sends_message(struct fixture *fixture, const char *text) {
  uint8_t header[FRAME_HEADER_BYTES];
  frame_write_header(header, strlen(text));
  client_sends(fixture, header, sizeof header);
  client_sends(fixture, text, strlen(text));
}

static void assert_received(struct fixture *fixture, const char *expected) {
  assert_int_equal(fixture->received_len, strlen(expected));
  assert_memory_equal(fixture->received, expected, strlen(expected));
}

static void several_messages_of_one_read_come_in_order(void **state) {
  struct fixture *fixture = *state;
  client_sends_message(fixture, "one");
  client_sends_message(fixture, "two");
  client_sends_message(fixture, "three");
  run(fixture);
  assert_received(fixture, "one;two;three;");
  assert_int_equal(fixture->counters.counter[COUNTER_BYTES_IN], 3 * 4 + 11);
}

static void a_message_may_come_a_byte_at_a_time(void **state) {
  struct fixture *fixture = *state;
  const uint8_t bytes[] = {0, 0, 0, 2, 'o', 'k', 0, 0, 0, 1, '!'};
  for (size_t i = 0; i < sizeof bytes; i++) {
    client_sends(fixture, bytes + i, 1);
    run(fixture);
    assert_int_equal(fixture->messages, i < 5 ? 0 : i < 10 ? 1 : 2);
  }
  assert_received(fixture, "ok;!;");
}

static void the_largest_message_passes_wherever_it_is_cut(void **state) {
  struct fixture *fixture = *state;
  static uint8_t bytes[FRAME_HEADER_BYTES + FRAME_BODY_MAX_BYTES];
  frame_write_header(bytes, FRAME_BODY_MAX_BYTES);
  for (size_t cut = 1; cut < sizeof bytes; cut += 1637) {
    int before = fixture->messages;
    fixture->received_len = 0;
    client_sends(fixture, bytes, cut);
    run(fixture);
    assert_int_equal(fixture->messages, before);
    client_sends(fixture, bytes + cut, sizeof bytes - cut);
    run(fixture);
    assert_int_equal(fixture->messages, before + 1);
    assert_int_equal(fixture->received_len, FRAME_BODY_MAX_BYTES + 1);
  }
}

static void a_length_that_is_not_allowed_ends_it_after_what_came_before(void **state) {
  struct fixture *fixture = *state;
  const uint8_t too_long[] = {0, 0, 0x40, 1};
  client_sends_message(fixture, "good");
  client_sends(fixture, too_long, sizeof too_long);
  run(fixture);
  client_sends_message(fixture, "no message any more");
  run(fixture);
  assert_received(fixture, "good;");
  assert_int_equal(fixture->ended, 1);
  assert_int_equal(fixture->reason, CLOSE_FRAME_LENGTH);
  transport_close(fixture->transport, CLOSE_DRAIN, false);
}

static void while_paused_nothing_comes_and_nothing_is_lost(void **state) {
  struct fixture *fixture = *state;
  fixture->pause_on_message = true;
  for (const char *text = "abcdef"; *text; text++) {
    client_sends_message(fixture, (char[]){*text, '\0'});
  }
  for (int i = 1; i <= 6; i++) {
    run(fixture);
    assert_int_equal(fixture->messages, i);
    transport_resume(fixture->transport);
  }
  assert_received(fixture, "a;b;c;d;e;f;");
  run(fixture);
  client_sends_message(fixture, "more");
  run(fixture);
  assert_received(fixture, "a;b;c;d;e;f;more;");
}

static void a_message_to_the_client_is_framed(void **state) {
  struct fixture *fixture = *state;
  uint8_t buffer[TRANSPORT_HEADROOM_BYTES + 5];
  char got[16];
  memcpy(buffer + TRANSPORT_HEADROOM_BYTES, "hello", 5);
  assert_int_equal(transport_send(fixture->transport, buffer, 5), 0);
  assert_int_equal(transport_queued_bytes(fixture->transport), 0);
  run(fixture);
  assert_int_equal(read(fixture->client, got, sizeof got), 9);
  assert_memory_equal(got, "\0\0\0\5hello", 9);
}

static void send_text(struct fixture *fixture, const char *text) {
  uint8_t buffer[TRANSPORT_HEADROOM_BYTES + 1000];
  size_t len = strlen(text);
  assert_true(len <= 1000);
  memcpy(buffer + TRANSPORT_HEADROOM_BYTES, text, len);
  assert_int_equal(transport_send(fixture->transport, buffer, len), 0);
}

// A socket that keeps what one call has sent apart from what the next one does.
static int set_up_packets(void **state) { return set_up_on(state, SOCK_SEQPACKET); }

static ssize_t client_receives(struct fixture *fixture, char *buffer, size_t room) {
  return recv(fixture->client, buffer, room, MSG_DONTWAIT);
}

static void what_is_sent_in_one_turn_leaves_in_one_call_at_its_end(void **state) {
  struct fixture *fixture = *state;
  char got[64];
  send_text(fixture, "one");
  send_text(fixture, "two");
  assert_int_equal(client_receives(fixture, got, sizeof got), -1);
  event_base_loop(fixture->base, EVLOOP_NONBLOCK);
  assert_int_equal(client_receives(fixture, got, sizeof got), 14);
  assert_memory_equal(got, "\0\0\0\3one\0\0\0\3two", 14);
  assert_int_equal(fixture->counters.counter[COUNTER_BYTES_OUT], 14);
  send_text(fixture, "three");
  run(fixture);
  assert_int_equal(client_receives(fixture, got, sizeof got), 9);
}

static void much_for_one_client_does_not_wait_for_the_end_of_the_turn(void **state) {
  struct fixture *fixture = *state;
  char text[701] = {0};
  char got[2000];
  memset(text, 'x', sizeof text - 1);
  send_text(fixture, text);
  send_text(fixture, text);  // over the 1000 of low_bytes with the first
  assert_int_equal(client_receives(fixture, got, sizeof got), 704);
  assert_int_equal(client_receives(fixture, got, sizeof got), -1);
  run(fixture);
  assert_int_equal(client_receives(fixture, got, sizeof got), 704);
}

static void a_close_comes_behind_what_was_sent_in_its_turn(void **state) {
  struct fixture *fixture = *state;
  char got[64];
  send_text(fixture, "bye");
  transport_close(fixture->transport, CLOSE_DRAIN, false);
  assert_int_equal(fixture->gone, 1);
  assert_int_equal(client_receives(fixture, got, sizeof got), 7);
  assert_int_equal(client_receives(fixture, got, sizeof got), 0);
}

static void being_cut_comes_behind_what_was_sent_in_its_turn(void **state) {
  struct fixture *fixture = *state;
  char got[64];
  send_text(fixture, "bye");
  wire_cut_all(&fixture->wires);
  assert_int_equal(client_receives(fixture, got, sizeof got), 7);
  assert_int_equal(client_receives(fixture, got, sizeof got), 0);
}

// Fills the socket until something has to wait; returns how many bytes were sent.
static size_t send_until_queued(struct fixture *fixture) {
  static uint8_t buffer[TRANSPORT_HEADROOM_BYTES + 10000];
  size_t sent = 0;
  while (transport_queued_bytes(fixture->transport) < 50000) {
    assert_int_equal(transport_send(fixture->transport, buffer, 10000), 0);
    sent += 10004;
  }
  return sent;
}

// Reads all that comes until there is no more; true at the end of the stream.
static bool client_reads(struct fixture *fixture, size_t *total) {
  static char buffer[1 << 16];
  for (;;) {
    ssize_t got = read(fixture->client, buffer, sizeof buffer);
    run(fixture);
    if (got <= 0) {
      return got == 0;
    }
    *total += (size_t)got;
  }
}

static void what_the_socket_does_not_take_waits_and_its_end_is_told(void **state) {
  struct fixture *fixture = *state;
  size_t total = 0;
  size_t sent = send_until_queued(fixture);
  assert_int_equal(fixture->counters.gauge[GAUGE_QUEUED_OUT_BYTES],
                   transport_queued_bytes(fixture->transport));
  assert_int_equal(fixture->drained, 0);
  client_reads(fixture, &total);
  assert_int_equal(total, sent);
  assert_true(fixture->drained > 0);
  assert_int_equal(transport_queued_bytes(fixture->transport), 0);
  assert_int_equal(fixture->counters.gauge[GAUGE_QUEUED_OUT_BYTES], 0);
}

static void closing_with_flush_delivers_the_last_bytes_and_then_the_end(void **state) {
  struct fixture *fixture = *state;
  size_t total = 0;
  size_t sent = send_until_queued(fixture);
  client_sends_message(fixture, "nobody reads this");
  transport_close(fixture->transport, CLOSE_DRAIN, true);
  assert_int_equal(fixture->gone, 0);
  assert_true(client_reads(fixture, &total));
  assert_int_equal(total, sent);
  assert_int_equal(fixture->messages, 0);
  shutdown(fixture->client, SHUT_WR);
  run(fixture);
  assert_int_equal(fixture->gone, 1);
  assert_int_equal(fixture->counters.gauge[GAUGE_QUEUED_OUT_BYTES], 0);
}

static void closing_without_flush_is_at_once(void **state) {
  struct fixture *fixture = *state;
  send_until_queued(fixture);
  transport_close(fixture->transport, CLOSE_DRAIN, false);
  assert_int_equal(fixture->gone, 1);
  assert_int_equal(fixture->counters.gauge[GAUGE_QUEUED_OUT_BYTES], 0);
}

static void it_may_be_closed_from_inside_a_message(void **state) {
  struct fixture *fixture = *state;
  fixture->close_on_message = true;
  client_sends_message(fixture, "last");
  client_sends_message(fixture, "never");
  run(fixture);
  assert_received(fixture, "last;");
  assert_int_equal(fixture->gone, 1);
}

static void it_may_be_closed_with_flush_from_inside_a_message(void **state) {
  struct fixture *fixture = *state;
  size_t total = 0;
  fixture->close_on_message = true;
  fixture->flush_on_close = true;
  client_sends_message(fixture, "last");
  run(fixture);
  assert_int_equal(fixture->gone, 0);
  assert_true(client_reads(fixture, &total));
  close(fixture->client);
  run(fixture);
  assert_int_equal(fixture->gone, 1);
  fixture->client = dup(STDERR_FILENO);
}

static void a_client_that_leaves_is_told(void **state) {
  struct fixture *fixture = *state;
  client_sends_message(fixture, "bye");
  shutdown(fixture->client, SHUT_WR);
  run(fixture);
  assert_received(fixture, "bye;");
  assert_int_equal(fixture->ended, 1);
  assert_int_equal(fixture->reason, CLOSE_CLIENT_CLOSED);
  transport_close(fixture->transport, CLOSE_DRAIN, false);
}

static void sending_to_a_client_that_is_gone_ends_it(void **state) {
  struct fixture *fixture = *state;
  uint8_t buffer[TRANSPORT_HEADROOM_BYTES + 5] = {0};
  transport_pause(fixture->transport);
  close(fixture->client);
  fixture->client = dup(STDERR_FILENO);
  assert_int_equal(transport_send(fixture->transport, buffer, 5), 0);
  run(fixture);
  assert_int_equal(fixture->ended, 1);
  assert_int_equal(fixture->reason, CLOSE_CLIENT_RESET);
  transport_close(fixture->transport, CLOSE_DRAIN, false);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);  // as every process of the gateway has it
#define FACT(test)          cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define FACT_OF_CALLS(test) cmocka_unit_test_setup_teardown(test, set_up_packets, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(several_messages_of_one_read_come_in_order),
      FACT(a_message_may_come_a_byte_at_a_time),
      FACT(the_largest_message_passes_wherever_it_is_cut),
      FACT(a_length_that_is_not_allowed_ends_it_after_what_came_before),
      FACT(while_paused_nothing_comes_and_nothing_is_lost),
      FACT(a_message_to_the_client_is_framed),
      FACT_OF_CALLS(what_is_sent_in_one_turn_leaves_in_one_call_at_its_end),
      FACT_OF_CALLS(much_for_one_client_does_not_wait_for_the_end_of_the_turn),
      FACT_OF_CALLS(a_close_comes_behind_what_was_sent_in_its_turn),
      FACT_OF_CALLS(being_cut_comes_behind_what_was_sent_in_its_turn),
      FACT(what_the_socket_does_not_take_waits_and_its_end_is_told),
      FACT(closing_with_flush_delivers_the_last_bytes_and_then_the_end),
      FACT(closing_without_flush_is_at_once),
      FACT(it_may_be_closed_from_inside_a_message),
      FACT(it_may_be_closed_with_flush_from_inside_a_message),
      FACT(a_client_that_leaves_is_told),
      FACT(sending_to_a_client_that_is_gone_ends_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
