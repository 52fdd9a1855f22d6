#include "tools/client/kcp_dialer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// cmocka wants the four above first.
#include <cmocka.h>

#include "common/clock.h"
#include "common/kcp/link.h"

enum {
  STREAMS_MAX = 16,
  TICK_MS = 5,
  PATIENCE_S = 20,
  MUCH = 100000,  // bytes: many datagrams, several windows' worth of updates
};

// The gateway's side of one connection: what comes on a stream goes back on it.
static struct server {
  struct event_base *base;
  struct event *readable;
  struct event *tick;
  int fd;
  struct sockaddr_in address;
  struct sockaddr_in peer;
  struct link *link;
  struct link_settings settings;
  uint8_t scratch[LINK_SCRATCH_BYTES];
  struct smux_stream *streams[STREAMS_MAX];
  size_t opened;
  size_t ended;
} server;

static struct kcp_dialer *dialer;

// One stream as its client sees it.
struct talk {
  struct kcp_stream *stream;
  uint8_t bytes[MUCH];
  size_t len;
  size_t expected;
  bool has_ended;
  int error;
  bool closes_at_end;
};

static struct talk talks[STREAMS_MAX];

// --- The server ------------------------------------------------------------------------------

static int64_t now_ms(void) { return clock_monotonic_us() / 1000; }

static void server_output(const uint8_t *datagram, size_t len, void *owner) {
  (void)owner;
  (void)!sendto(server.fd, datagram, len, 0, (struct sockaddr *)&server.peer, sizeof server.peer);
}

static void server_dirty(void *owner) { (void)owner; }

static void *server_open(struct smux_stream *stream, void *owner) {
  (void)owner;
  assert_true(server.opened < STREAMS_MAX);
  server.streams[server.opened] = stream;
  return &server.streams[server.opened++];
}

static size_t server_bytes(uint8_t *bytes, size_t len, void *stream_owner) {
  struct smux_stream **stream = stream_owner;
  assert_int_equal(smux_write(*stream, bytes, len), 0);
  return len;
}

static void server_ended(void *stream_owner) {
  struct smux_stream **stream = stream_owner;
  server.ended++;
  smux_close(*stream, true);
  *stream = NULL;
}

static void server_sent(void *stream_owner) { (void)stream_owner; }

static const struct link_events server_events = {
    server_output, server_dirty, {server_open, server_bytes, server_ended, server_sent}};

static void server_on_readable(evutil_socket_t fd, short what, void *argument) {
  uint8_t bytes[2048];
  socklen_t peer_len = sizeof server.peer;
  ssize_t len;
  (void)what;
  (void)argument;
  while ((len = recvfrom(fd, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&server.peer,
                         &peer_len)) > 0) {
    struct kcp_glance glance;
    if (!server.link && link_glance(bytes, (size_t)len, &glance)) {
      server.link = link_new(glance.conv, &server.settings, &server_events, NULL, now_ms());
      assert_non_null(server.link);
    }
    if (server.link) {
      assert_int_equal(link_input(server.link, bytes, (size_t)len, now_ms()), 0);
      assert_int_equal(link_flush(server.link, now_ms()), 0);
    }
  }
}

static void server_on_tick(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  (void)what;
  (void)argument;
  if (server.link) {
    assert_int_equal(link_tick(server.link, now_ms()), 0);
  }
}

static void server_start(void) {
  struct timeval interval = {0, TICK_MS * 1000};
  socklen_t len = sizeof server.address;
  server.settings = (struct link_settings){.scratch = server.scratch,
                                           .kcp = {.nodelay = true,
                                                   .interval_ms = 10,
                                                   .resend = 2,
                                                   .ack_nodelay = true,
                                                   .send_window = 128,
                                                   .receive_window = 128,
                                                   .mtu = 1400},
                                           .smux = {.frame_bytes = 4096,
                                                    .stream_bytes = 65536,
                                                    .session_bytes = 4 << 20,
                                                    .streams_max = STREAMS_MAX}};
  server.base = event_base_new();
  server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  server.address = (struct sockaddr_in){.sin_family = AF_INET};
  server.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  assert_int_equal(bind(server.fd, (struct sockaddr *)&server.address, sizeof server.address), 0);
  assert_int_equal(getsockname(server.fd, (struct sockaddr *)&server.address, &len), 0);
  server.readable =
      event_new(server.base, server.fd, EV_READ | EV_PERSIST, server_on_readable, NULL);
  server.tick = event_new(server.base, -1, EV_PERSIST, server_on_tick, NULL);
  event_add(server.readable, NULL);
  event_add(server.tick, &interval);
}

// --- The client ------------------------------------------------------------------------------

static size_t on_bytes(uint8_t *bytes, size_t len, void *owner) {
  struct talk *talk = owner;
  assert_true(talk->len + len <= sizeof talk->bytes);
  memcpy(talk->bytes + talk->len, bytes, len);
  talk->len += len;
  return len;
}

static void on_ended(int error, void *owner) {
  struct talk *talk = owner;
  assert_false(talk->has_ended);
  talk->has_ended = true;
  talk->error = error;
  if (talk->closes_at_end) {
    kcp_stream_close(talk->stream);
    talk->stream = NULL;
  }
}

static const struct kcp_stream_events events = {on_bytes, on_ended};

static void start(struct kcp_wire wire) {
  memset(&server, 0, sizeof server);
  memset(talks, 0, sizeof talks);
  server_start();
  dialer = kcp_dialer_new(server.base, &wire, &events);
  assert_non_null(dialer);
}

static void dial(size_t number, struct kcp_stream *beside) {
  talks[number].stream = kcp_dial(dialer, (struct sockaddr *)&server.address, sizeof server.address,
                                  (struct in_addr){0}, beside, &talks[number]);
  assert_non_null(talks[number].stream);
}

static void finish(void) {
  for (size_t i = 0; i < STREAMS_MAX; i++) {
    kcp_stream_close(talks[i].stream);
  }
  kcp_dialer_free(dialer);
  link_free(server.link);
  event_free(server.readable);
  event_free(server.tick);
  event_base_free(server.base);
  close(server.fd);
}

static void run_until(bool (*holds)(void)) {
  int64_t deadline_ms = now_ms() + PATIENCE_S * 1000;
  while (!holds()) {
    assert_true(now_ms() < deadline_ms);
    assert_int_equal(event_base_loop(server.base, EVLOOP_ONCE), 0);
  }
}

static bool all_has_come(void) {
  for (size_t i = 0; i < STREAMS_MAX; i++) {
    if (talks[i].len < talks[i].expected) {
      return false;
    }
  }
  return true;
}

static bool all_have_ended(void) {
  for (size_t i = 0; i < STREAMS_MAX; i++) {
    if (talks[i].stream && !talks[i].has_ended) {
      return false;
    }
  }
  return true;
}

static void say(size_t number, size_t len) {
  struct talk *talk = &talks[number];
  uint8_t *bytes = malloc(len);
  assert_non_null(bytes);
  for (size_t i = 0; i < len; i++) {
    bytes[i] = (uint8_t)((talk->expected + i) * 7 + number);
  }
  assert_int_equal(kcp_stream_write(talk->stream, bytes, len), 0);
  talk->expected += len;
  free(bytes);
}

static void check(size_t number) {
  const struct talk *talk = &talks[number];
  assert_int_equal(talk->len, talk->expected);
  for (size_t i = 0; i < talk->len; i++) {
    assert_int_equal(talk->bytes[i], (uint8_t)(i * 7 + number));
  }
}

// --- Tests -----------------------------------------------------------------------------------

static void bytes_come_back_with_any_settings_of_the_wire(void **state) {
  (void)state;
  const struct kcp_wire wires[] = {{0},
                                   {.low_latency = true},
                                   {.has_fec = true},
                                   {.has_fec = true, .data_shards = 3, .parity_shards = 2}};
  for (size_t i = 0; i < sizeof wires / sizeof *wires; i++) {
    start(wires[i]);
    dial(0, NULL);
    say(0, 1);
    run_until(all_has_come);
    say(0, MUCH - 1);
    run_until(all_has_come);
    check(0);
    finish();
  }
}

static void several_streams_share_a_connection(void **state) {
  (void)state;
  start((struct kcp_wire){0});
  dial(0, NULL);
  for (size_t i = 1; i < STREAMS_MAX; i++) {
    dial(i, talks[0].stream);
  }
  for (size_t i = 0; i < STREAMS_MAX; i++) {
    say(i, 5000 + i);
  }
  run_until(all_has_come);
  for (size_t i = 0; i < STREAMS_MAX; i++) {
    check(i);
  }
  assert_int_equal(server.opened, STREAMS_MAX);
  finish();
}

static bool first_has_come_and_four_are_open(void) { return all_has_come() && server.opened == 4; }

static bool two_have_ended(void) { return server.ended == 2; }

static void idle_streams_are_opened_and_may_end(void **state) {
  (void)state;
  start((struct kcp_wire){.idle_streams = 3});
  dial(0, NULL);
  say(0, 100);
  run_until(first_has_come_and_four_are_open);
  smux_close(server.streams[1], true);
  smux_close(server.streams[2], true);
  server.streams[1] = server.streams[2] = NULL;
  assert_int_equal(link_flush(server.link, now_ms()), 0);
  say(0, 100);
  run_until(all_has_come);
  check(0);
  // The last idle one ends with the one that was used.
  kcp_stream_close(talks[0].stream);
  talks[0].stream = NULL;
  run_until(two_have_ended);
  finish();
}

static void a_stream_that_the_peer_ends_leaves_the_others(void **state) {
  (void)state;
  start((struct kcp_wire){0});
  dial(0, NULL);
  dial(1, talks[0].stream);
  say(0, 10);
  say(1, 10);
  run_until(all_has_come);
  smux_close(server.streams[0], true);
  assert_int_equal(link_flush(server.link, now_ms()), 0);
  say(1, 10);
  run_until(all_has_come);
  assert_true(talks[0].has_ended);
  assert_int_equal(talks[0].error, 0);
  assert_false(talks[1].has_ended);
  assert_int_equal(kcp_stream_write(talks[0].stream, (const uint8_t *)"x", 1), 0);  // is lost
  finish();
}

static void a_peer_that_breaks_the_protocol_ends_all_streams_of_its_connection(void **state) {
  (void)state;
  static const uint8_t version_1[] = {1, 0, 0, 0, 3, 0, 0, 0};
  for (int closes = 0; closes < 2; closes++) {
    start((struct kcp_wire){.idle_streams = 2});
    dial(0, NULL);
    dial(1, talks[0].stream);
    say(0, 10);
    run_until(all_has_come);
    struct link_state link_state;
    link_describe(server.link, &link_state);
    // The next segment of the server's, which it itself knows nothing of.
    uint32_t conv = link_state.kcp.conv;
    uint32_t sn = (uint32_t)link_state.kcp_counts.segments_out;
    uint8_t datagram[KCP_SEGMENT_HEADER_BYTES + sizeof version_1] = {
        [4] = KCP_PUSH, [6] = 128, [20] = sizeof version_1};
    memcpy(datagram, &conv, sizeof conv);
    memcpy(datagram + 12, &sn, sizeof sn);
    memcpy(datagram + KCP_SEGMENT_HEADER_BYTES, version_1, sizeof version_1);
    talks[0].closes_at_end = talks[1].closes_at_end = closes;
    server_output(datagram, sizeof datagram, NULL);
    run_until(all_have_ended);
    assert_int_equal(talks[0].error, ERROR_MALFORMED);
    assert_int_equal(talks[1].error, ERROR_MALFORMED);
    finish();
  }
}

static bool something_was_said_of_the_path(void) {
  return kcp_stream_path_errno(talks[0].stream) != 0;
}

static void that_nobody_listens_is_told_but_ends_nothing(void **state) {
  (void)state;
  start((struct kcp_wire){0});
  event_del(server.readable);
  assert_int_equal(close(server.fd), 0);
  dial(0, NULL);
  run_until(something_was_said_of_the_path);
  assert_int_equal(kcp_stream_path_errno(talks[0].stream), ECONNREFUSED);
  assert_false(talks[0].has_ended);
  server.fd = -1;
  finish();
}

static bool server_has_all(void) {
  return server.opened == 1 && kcp_stream_unsent_bytes(talks[0].stream) == 0;
}

static void nothing_comes_while_a_stream_is_paused(void **state) {
  (void)state;
  start((struct kcp_wire){0});
  dial(0, NULL);
  say(0, 10);
  run_until(all_has_come);
  kcp_stream_pause(talks[0].stream, true);
  say(0, 1000);
  run_until(server_has_all);
  assert_int_equal(talks[0].len, 10);
  kcp_stream_pause(talks[0].stream, false);
  assert_int_equal(talks[0].len, 10);  // not from inside the call
  run_until(all_has_come);
  check(0);
  finish();
}

static void shards_and_profiles_are_read(void **state) {
  (void)state;
  struct kcp_wire wire = {0};
  assert_int_equal(kcp_wire_parse_fec("8+2", &wire), 0);
  assert_true(wire.has_fec);
  assert_int_equal(wire.data_shards, 8);
  assert_int_equal(wire.parity_shards, 2);
  assert_int_equal(kcp_wire_parse_fec("off", &wire), 0);
  assert_int_equal(wire.data_shards, 0);
  static const char *const wrong[] = {"", "8", "8+", "+2", "0+2", "8+0", "8+2x", "8+2 ", "200+57"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    assert_int_equal(kcp_wire_parse_fec(wrong[i], &wire), ERROR_INVALID);
  }
  assert_int_equal(kcp_wire_parse_profile("low-latency", &wire), 0);
  assert_true(wire.low_latency);
  assert_int_equal(kcp_wire_parse_profile("default", &wire), 0);
  assert_false(wire.low_latency);
  assert_int_equal(kcp_wire_parse_profile("fast", &wire), ERROR_INVALID);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(bytes_come_back_with_any_settings_of_the_wire),
      cmocka_unit_test(several_streams_share_a_connection),
      cmocka_unit_test(idle_streams_are_opened_and_may_end),
      cmocka_unit_test(a_stream_that_the_peer_ends_leaves_the_others),
      cmocka_unit_test(a_peer_that_breaks_the_protocol_ends_all_streams_of_its_connection),
      cmocka_unit_test(that_nobody_listens_is_told_but_ends_nothing),
      cmocka_unit_test(nothing_comes_while_a_stream_is_paused),
      cmocka_unit_test(shards_and_profiles_are_read),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
