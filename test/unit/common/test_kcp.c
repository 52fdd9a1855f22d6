#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/kcp/kcp.h"

enum {
  HEADROOM = 8,
  MTU = 1400,
  MSS = MTU - KCP_SEGMENT_HEADER_BYTES,
  OUTPUTS_MAX = 512,
  CONV = 0x11223344,
};

static const struct kcp_settings defaults = {
    .nodelay = true,
    .interval_ms = 10,
    .resend = 2,
    .ack_nodelay = true,
    .send_window = 128,
    .receive_window = 128,
    .mtu = MTU,
};

// --- One end, fed by hand ----------------------------------------------------

struct datagram {
  size_t len;
  uint8_t bytes[MTU];
};

struct end {
  struct kcp *kcp;
  size_t count;  // of outputs since the last forget
  struct datagram outputs[OUTPUTS_MAX];
};

static uint8_t scratch[HEADROOM + MTU];

static void keep_output(uint8_t *bytes, size_t len, void *owner) {
  struct end *end = owner;
  assert_ptr_equal(bytes, scratch + HEADROOM);
  assert_in_range(len, KCP_SEGMENT_HEADER_BYTES, MTU);
  assert_true(end->count < OUTPUTS_MAX);
  memset(bytes - HEADROOM, 0xee, HEADROOM);  // it is ours to write over
  memcpy(end->outputs[end->count].bytes, bytes, len);
  end->outputs[end->count++].len = len;
}

static struct end *end_new(const struct kcp_settings *settings) {
  struct end *end = calloc(1, sizeof *end);
  assert_non_null(end);
  end->kcp = kcp_new(CONV, settings, scratch, HEADROOM, keep_output, end);
  assert_non_null(end->kcp);
  return end;
}

static void end_free(struct end *end) {
  kcp_free(end->kcp);
  free(end);
}

static void flush(struct end *end, int64_t now_ms) {
  end->count = 0;
  kcp_flush(end->kcp, now_ms);
}

static size_t from_hex(const char *hex, uint8_t *bytes) {
  size_t len = 0;
  for (; *hex; hex++) {
    unsigned value;
    if (*hex != ' ') {
      assert_int_equal(sscanf(hex, "%2x", &value), 1);
      bytes[len++] = (uint8_t)value;
      hex++;
    }
  }
  return len;
}

static void expect_output(const struct end *end, size_t index, const char *hex) {
  uint8_t expected[MTU];
  size_t len = from_hex(hex, expected);
  assert_true(index < end->count);
  assert_int_equal(end->outputs[index].len, len);
  assert_memory_equal(end->outputs[index].bytes, expected, len);
}

static int input_hex(struct end *end, const char *hex, int64_t now_ms) {
  uint8_t bytes[MTU];
  size_t len = from_hex(hex, bytes);
  return kcp_input(end->kcp, bytes, len, true, now_ms);
}

static void write_u32(uint8_t *bytes, uint32_t value) {
  for (int i = 0; i < 4; i++) {
    bytes[i] = (uint8_t)(value >> 8 * i);
  }
}

static uint32_t read_u32(const uint8_t *bytes) {
  return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
         (uint32_t)bytes[3] << 24;
}

struct fields {
  uint32_t conv;
  uint8_t command;
  uint8_t frg;
  uint16_t window;
  uint32_t ts;
  uint32_t sn;
  uint32_t una;
  uint32_t len;
};

static size_t put(uint8_t *bytes, const struct fields *fields, const void *data) {
  write_u32(bytes, fields->conv ? fields->conv : CONV);
  bytes[4] = fields->command;
  bytes[5] = fields->frg;
  bytes[6] = (uint8_t)fields->window;
  bytes[7] = (uint8_t)(fields->window >> 8);
  write_u32(bytes + 8, fields->ts);
  write_u32(bytes + 12, fields->sn);
  write_u32(bytes + 16, fields->una);
  write_u32(bytes + 20, fields->len);
  if (data) {
    memcpy(bytes + KCP_SEGMENT_HEADER_BYTES, data, fields->len);
  }
  return KCP_SEGMENT_HEADER_BYTES + (data ? fields->len : 0);
}

static int input(struct end *end, struct fields fields, const void *data, bool regular,
                 int64_t now_ms) {
  uint8_t bytes[MTU];
  return kcp_input(end->kcp, bytes, put(bytes, &fields, data), regular, now_ms);
}

static void acknowledge(struct end *end, uint32_t sn, uint32_t una, uint32_t ts, int64_t now_ms) {
  struct fields fields = {.command = KCP_ACK, .window = 128, .sn = sn, .una = una, .ts = ts};
  assert_int_equal(input(end, fields, NULL, true, now_ms), 0);
}

static void push(struct end *end, uint32_t sn, const char *text, int64_t now_ms) {
  struct fields fields = {.command = KCP_PUSH, .window = 128, .sn = sn, .ts = (uint32_t)now_ms};
  fields.len = (uint32_t)strlen(text);
  assert_int_equal(input(end, fields, text, true, now_ms), 0);
}

static void write_text(struct end *end, const char *text) {
  assert_int_equal(kcp_write(end->kcp, (const uint8_t *)text, strlen(text)), 0);
}

// So many segments of MSS bytes.
static void write_segments(struct end *end, size_t count) {
  uint8_t *bytes = calloc(count, MSS);
  assert_non_null(bytes);
  assert_int_equal(kcp_write(end->kcp, bytes, count * MSS), 0);
  free(bytes);
}

// All that can be read, as text.
static const char *read_text(struct end *end) {
  static char text[4096];
  size_t at = 0;
  uint8_t *bytes;
  size_t len;
  while (kcp_read(end->kcp, &bytes, &len)) {
    assert_true(at + len < sizeof text);
    memcpy(text + at, bytes, len);
    memset(bytes, 0, len);
    at += len;
    kcp_read_done(end->kcp);
  }
  text[at] = 0;
  return text;
}

static struct kcp_state describe(const struct end *end) {
  struct kcp_state state;
  kcp_describe(end->kcp, &state);
  return state;
}

// How many segments of that command the outputs hold.
static size_t count_segments(const struct end *end, enum kcp_command command) {
  size_t count = 0;
  for (size_t i = 0; i < end->count; i++) {
    const struct datagram *output = &end->outputs[i];
    for (size_t at = 0; at < output->len;) {
      assert_true(output->len - at >= KCP_SEGMENT_HEADER_BYTES);
      assert_int_equal(read_u32(output->bytes + at), CONV);
      assert_int_equal(output->bytes[at + 5], 0);
      uint32_t len = read_u32(output->bytes + at + 20);
      count += output->bytes[at + 4] == command;
      at += KCP_SEGMENT_HEADER_BYTES + len;
      assert_true(at <= output->len);
    }
  }
  return count;
}

// --- The page's examples -----------------------------------------------------

static void what_a_go_client_opens_with_is_answered_byte_for_byte(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  assert_int_equal(input_hex(end,
                             "4433221151008000000000000000000000000000 08000000 "
                             "0200000003000000",
                             0),
                   0);
  assert_int_equal(input_hex(end,
                             "4433221151008000000000000100000000000000 08000000 "
                             "0200000005000000",
                             0),
                   0);
  assert_int_equal(input_hex(end,
                             "4433221151008000000000000200000000000000 08000000 "
                             "0200000007000000",
                             0),
                   0);
  assert_int_equal(input_hex(end,
                             "4433221151008000000000000300000000000000 08000000 "
                             "0200000009000000",
                             0),
                   0);
  assert_int_equal(kcp_wants(end->kcp), KCP_FLUSH_ACKS);
  kcp_flush_acks(end->kcp, 0);
  assert_int_equal(end->count, 1);
  expect_output(end, 0, "4433221152007c0000000000030000000400000000000000");
  assert_int_equal(kcp_wants(end->kcp), KCP_NOTHING);
  assert_int_equal(kcp_due(end->kcp, 0), KCP_NEVER);
  end_free(end);
}

static void a_header_and_its_payload_in_two_segments_are_one_stream(void **state) {
  struct end *end = end_new(&defaults);
  uint8_t *bytes;
  size_t len;
  (void)state;
  kcp_start_at(end->kcp, 0, 4);
  assert_int_equal(input_hex(end,
                             "44332211510080006400000004000000000000000800000002020900 03000000"
                             "443322115100800064000000050000000000000009000000000000056162636465",
                             100),
                   0);
  assert_true(kcp_read(end->kcp, &bytes, &len));
  assert_int_equal(len, 8);
  kcp_read_done(end->kcp);
  assert_true(kcp_read(end->kcp, &bytes, &len));
  assert_int_equal(len, 9);
  assert_memory_equal(bytes, "\0\0\0\5abcde", 9);
  kcp_read_done(end->kcp);
  assert_false(kcp_read(end->kcp, &bytes, &len));
  kcp_flush_acks(end->kcp, 100);
  expect_output(end, 0, "443322115200800064000000050000000600000000000000");
  end_free(end);
}

static void what_is_written_goes_out_in_one_segment(void **state) {
  struct end *end = end_new(&defaults);
  const uint8_t header[] = {2, 2, 9, 0, 3, 0, 0, 0};
  (void)state;
  kcp_start_at(end->kcp, 4, 0);
  assert_int_equal(kcp_write(end->kcp, header, sizeof header), 0);
  assert_int_equal(kcp_write(end->kcp, (const uint8_t *)"\0\0\0\5abcde", 9), 0);
  assert_int_equal(kcp_wants(end->kcp), KCP_FLUSH);
  assert_int_equal(kcp_due(end->kcp, 77), 77);
  flush(end, 100);
  assert_int_equal(end->count, 1);
  expect_output(end, 0,
                "4433221151008000 64000000 04000000 00000000 11000000"
                "0202090003000000 000000056162636465");
  end_free(end);
}

static void a_keepalive_goes_out_as_the_page_has_it(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  kcp_start_at(end->kcp, 8, 4);
  assert_int_equal(kcp_write(end->kcp, (const uint8_t *)"\2\3\0\0\0\0\0\0", 8), 0);
  flush(end, 1000);
  expect_output(end, 0, "4433221151008000e80300000800000004000000080000000203000000000000");
  end_free(end);
}

static void who_asks_for_the_window_is_told_at_the_next_flush(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  kcp_start_at(end->kcp, 0, 5);
  assert_int_equal(input_hex(end, "443322115300800000000000000000000000000000000000", 50), 0);
  assert_int_equal(kcp_wants(end->kcp), KCP_NOTHING);
  assert_int_equal(kcp_due(end->kcp, 50), 60);
  flush(end, 60);
  assert_int_equal(end->count, 1);
  expect_output(end, 0, "443322115400800000000000000000000500000000000000");
  assert_int_equal(kcp_due(end->kcp, 60), KCP_NEVER);
  end_free(end);
}

static void a_frame_of_3000_bytes_fills_its_datagrams(void **state) {
  struct end *end = end_new(&defaults);
  uint8_t bytes[3012] = {0};
  (void)state;
  assert_int_equal(kcp_write(end->kcp, bytes, sizeof bytes), 0);
  flush(end, 0);
  assert_int_equal(end->count, 3);
  assert_int_equal(end->outputs[0].len, 1400);
  assert_int_equal(end->outputs[1].len, 1400);
  assert_int_equal(end->outputs[2].len, 24 + 3012 - 2 * 1376);
  end_free(end);
}

// --- Sending -----------------------------------------------------------------

static void the_first_burst_is_no_more_than_a_fresh_peer_takes(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  write_segments(end, 100);
  flush(end, 0);
  assert_int_equal(end->count, KCP_FIRST_PEER_WINDOW);
  assert_int_equal(describe(end).in_flight, 32);
  assert_int_equal(describe(end).queued, 68);
  assert_false(kcp_takes_more(end->kcp));
  acknowledge(end, 31, 32, 0, 10);  // whose window is 128
  assert_int_equal(kcp_wants(end->kcp), KCP_FLUSH);
  flush(end, 10);
  assert_int_equal(end->count, 68);
  assert_true(kcp_takes_more(end->kcp));
  end_free(end);
}

static void an_unanswered_segment_is_sent_again_later_and_later(void **state) {
  struct end *end = end_new(&defaults);
  const int64_t expected[] = {1000, 1200, 1500, 1900, 2400};
  size_t seen = 0;
  (void)state;
  write_text(end, "x");
  for (int64_t now = 1000; now <= 2400; now++) {
    flush(end, now);
    if (end->count > 0) {
      assert_int_equal(now, expected[seen]);
      assert_int_equal(read_u32(end->outputs[0].bytes + 8), now);
      seen++;
      assert_int_equal(kcp_due(end->kcp, now), now + 100 + 100 * (int64_t)seen);
    }
  }
  assert_int_equal(seen, 5);
  assert_int_equal(kcp_counts(end->kcp)->retransmits, 4);
  assert_int_equal(kcp_counts(end->kcp)->fast_retransmits, 0);
  end_free(end);
}

static void without_nodelay_the_deadline_grows_by_the_whole_rto(void **state) {
  struct kcp_settings settings = defaults;
  settings.nodelay = false;
  struct end *end = end_new(&settings);
  (void)state;
  write_text(end, "x");
  flush(end, 0);
  assert_int_equal(kcp_due(end->kcp, 0), 200);
  flush(end, 200);
  assert_int_equal(kcp_due(end->kcp, 200), 600);
  flush(end, 600);
  assert_int_equal(kcp_due(end->kcp, 600), 1200);
  end_free(end);
}

static void a_segment_sent_twenty_times_means_nobody_is_there(void **state) {
  struct end *end = end_new(&defaults);
  int64_t now = 0;
  (void)state;
  write_text(end, "x");
  for (int sent = 1; sent <= KCP_DEAD_TRANSMISSIONS; sent++) {
    assert_false(kcp_is_dead(end->kcp));
    flush(end, now);
    assert_int_equal(end->count, 1);
    now = kcp_due(end->kcp, now);
  }
  assert_true(kcp_is_dead(end->kcp));
  end_free(end);
}

static void the_rto_follows_the_round_trips(void **state) {
  struct end *end = end_new(&defaults);
  const struct {
    uint32_t rtt;
    uint32_t srtt;
    uint32_t rto;
  } steps[] = {
      {100, 100, 100 + 4 * 50},
      {180, 110, 110 + 4 * 57},  // 80 more: variation 50 + ((80 - 50) >> 2)
      {20, 98, 98 + 4 * 58},     // 90 less: srtt - 12, variation 57 + ((90 - 57) >> 5)
      {98, 98, 98 + 4 * 43},     // variation 58 + ((0 - 58) >> 2)
  };
  int64_t now = 0;
  (void)state;
  for (uint32_t sn = 0; sn < sizeof steps / sizeof steps[0]; sn++) {
    write_text(end, "x");
    flush(end, now);
    acknowledge(end, sn, sn + 1, (uint32_t)now, now + steps[sn].rtt);
    assert_int_equal(describe(end).srtt_ms, steps[sn].srtt);
    assert_int_equal(describe(end).rto_ms, steps[sn].rto);
    now += 1000;
  }
  end_free(end);
}

static void who_sends_our_hidden_clock_back_is_there(void **state) {
  struct end *end = end_new(&defaults);
  const uint32_t ahead = 0xfffffc00;  // it wraps on the way
  (void)state;
  kcp_hide_clock(end->kcp, ahead);
  for (int i = 0; i < 3; i++) {
    write_segments(end, 1);
  }
  flush(end, 1000);
  assert_int_equal(read_u32(end->outputs[0].bytes + 8), ahead + 1000);
  acknowledge(end, 7, 0, ahead + 1000, 1050);  // which was never sent
  acknowledge(end, 0, 1, 1000, 1050);
  assert_false(kcp_peer_is_there(end->kcp));
  acknowledge(end, 1, 2, ahead + 1000, 1080);
  assert_true(kcp_peer_is_there(end->kcp));
  acknowledge(end, 2, 3, ahead + 1001, 1080);
  assert_true(kcp_peer_is_there(end->kcp));
  end_free(end);
}

static void who_answers_what_was_sent_again_meanwhile_is_there(void **state) {
  struct end *end = end_new(&defaults);
  const uint32_t ahead = 0x80000123;
  (void)state;
  kcp_hide_clock(end->kcp, ahead);
  write_text(end, "x");
  flush(end, 1000);
  int64_t again = kcp_due(end->kcp, 1000);
  flush(end, again);
  assert_int_equal(end->count, 1);
  acknowledge(end, 0, 1, ahead + 1000, again + 50);
  assert_true(kcp_peer_is_there(end->kcp));
  end_free(end);
}

static void a_hidden_clock_measures_round_trips_all_the_same(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  kcp_hide_clock(end->kcp, 0x80000123);
  write_text(end, "x");
  flush(end, 1000);
  acknowledge(end, 0, 1, 0x80000123 + 1000, 1100);
  assert_int_equal(describe(end).srtt_ms, 100);
  end_free(end);
}

static void the_rto_keeps_to_its_bounds(void **state) {
  struct kcp_settings slow = defaults;
  slow.nodelay = false;
  struct end *fast = end_new(&defaults);
  struct end *other = end_new(&slow);
  (void)state;
  write_text(fast, "x");
  flush(fast, 0);
  acknowledge(fast, 0, 1, 0, 1);
  assert_int_equal(describe(fast).rto_ms, 30);
  write_text(other, "x");
  flush(other, 0);
  acknowledge(other, 0, 1, 0, 1);
  assert_int_equal(describe(other).rto_ms, 100);
  write_segments(other, 2);
  flush(other, 0);
  acknowledge(other, 1, 2, 0, INT32_MAX);
  assert_int_equal(describe(other).rto_ms, 60000);
  acknowledge(other, 2, 3, 0, 0x80000000);  // from the future: no sample
  assert_int_equal(describe(other).srtt_ms, 1 + (((int64_t)INT32_MAX - 1) >> 3));
  end_free(fast);
  end_free(other);
}

static void a_round_trip_is_the_last_acknowledgement_of_a_regular_payload(void **state) {
  struct end *end = end_new(&defaults);
  uint8_t bytes[3 * KCP_SEGMENT_HEADER_BYTES];
  struct fields first = {.command = KCP_ACK, .window = 7, .sn = 1, .ts = 100, .una = 1};
  struct fields last = {.command = KCP_ACK, .window = 7, .sn = 2, .ts = 160, .una = 1};
  (void)state;
  write_segments(end, 5);
  flush(end, 150);
  size_t len = put(bytes, &first, NULL);
  len += put(bytes + len, &last, NULL);
  assert_int_equal(kcp_input(end->kcp, bytes, len, false, 200), 0);
  assert_int_equal(describe(end).srtt_ms, 0);
  assert_false(describe(end).has_round_trip);
  assert_int_equal(describe(end).peer_window, KCP_FIRST_PEER_WINDOW);
  assert_int_equal(describe(end).in_flight, 4);  // una counts all the same
  first.sn = 3;
  last.sn = 4;
  len = put(bytes, &first, NULL);
  len += put(bytes + len, &last, NULL);
  assert_int_equal(kcp_input(end->kcp, bytes, len, true, 200), 0);
  assert_int_equal(describe(end).srtt_ms, 40);
  assert_true(describe(end).has_round_trip);
  assert_int_equal(describe(end).peer_window, 7);
  // What FEC recovered, or a datagram that came twice, is acknowledged again, and late.
  assert_int_equal(kcp_input(end->kcp, bytes, len, true, 900), 0);
  assert_int_equal(describe(end).srtt_ms, 40);
  end_free(end);
}

static void a_segment_that_two_later_ones_passed_is_sent_again_at_once(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  write_segments(end, 5);
  flush(end, 0);
  assert_int_equal(end->count, 5);
  acknowledge(end, 1, 0, 0, 50);
  assert_int_equal(kcp_wants(end->kcp), KCP_NOTHING);
  acknowledge(end, 1, 0, 0, 51);  // a copy tells nothing new
  assert_int_equal(kcp_wants(end->kcp), KCP_NOTHING);
  acknowledge(end, 2, 0, 0, 51);
  assert_int_equal(kcp_wants(end->kcp), KCP_FLUSH);
  flush(end, 51);
  assert_int_equal(end->count, 1);
  assert_int_equal(read_u32(end->outputs[0].bytes + 12), 0);
  assert_int_equal(kcp_counts(end->kcp)->fast_retransmits, 1);
  // Those that left before it was sent again tell nothing of it.
  acknowledge(end, 3, 0, 0, 52);
  acknowledge(end, 4, 0, 0, 52);
  assert_int_equal(kcp_wants(end->kcp), KCP_NOTHING);
  // Nor is it certain of those that left in the same millisecond.
  write_segments(end, 3);
  flush(end, 51);
  acknowledge(end, 5, 0, 51, 52);
  acknowledge(end, 6, 0, 51, 52);
  assert_int_equal(kcp_wants(end->kcp), KCP_NOTHING);
  acknowledge(end, 7, 0, 52, 53);
  assert_int_equal(kcp_wants(end->kcp), KCP_NOTHING);
  end_free(end);
}

static void at_the_end_of_a_burst_one_that_passed_is_enough_after_an_interval(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  write_segments(end, 2);
  flush(end, 0);
  acknowledge(end, 1, 0, 0, 50);
  assert_int_equal(kcp_due(end->kcp, 50), 60);
  flush(end, 59);
  assert_int_equal(end->count, 0);
  flush(end, 60);
  assert_int_equal(end->count, 1);
  assert_int_equal(kcp_due(end->kcp, 60), 60 + describe(end).rto_ms);
  end_free(end);
}

static void where_something_new_follows_its_acknowledgement_decides(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  write_segments(end, 2);
  flush(end, 0);
  acknowledge(end, 1, 0, 0, 50);
  write_text(end, "new");
  flush(end, 60);
  assert_int_equal(end->count, 1);
  assert_int_equal(read_u32(end->outputs[0].bytes + 12), 2);
  assert_int_equal(kcp_due(end->kcp, 60), 200);
  acknowledge(end, 2, 0, 60, 110);
  assert_int_equal(kcp_wants(end->kcp), KCP_FLUSH);
  flush(end, 110);
  assert_int_equal(read_u32(end->outputs[0].bytes + 12), 0);
  end_free(end);
}

static void reordering_that_mends_itself_sends_nothing_again(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  write_segments(end, 2);
  flush(end, 0);
  acknowledge(end, 1, 0, 0, 50);
  acknowledge(end, 0, 2, 0, 51);
  assert_int_equal(kcp_due(end->kcp, 51), KCP_NEVER);
  flush(end, 51);
  flush(end, 1000);
  assert_int_equal(kcp_counts(end->kcp)->retransmits, 0);
  assert_int_equal(kcp_due(end->kcp, 1000), KCP_NEVER);
  end_free(end);
}

static void without_resend_only_time_sends_again(void **state) {
  struct kcp_settings settings = defaults;
  settings.resend = 0;
  struct end *end = end_new(&settings);
  (void)state;
  write_segments(end, 5);
  flush(end, 0);
  for (uint32_t sn = 1; sn < 5; sn++) {
    acknowledge(end, sn, 0, 0, 20);
  }
  assert_int_equal(kcp_due(end->kcp, 20), 200);
  flush(end, 199);
  assert_int_equal(end->count, 0);
  flush(end, 200);
  assert_int_equal(end->count, 1);
  end_free(end);
}

static void what_was_acknowledged_is_held_until_una_but_not_sent_again(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  write_segments(end, 3);
  flush(end, 0);
  acknowledge(end, 2, 0, 0, 1);
  assert_int_equal(describe(end).in_flight, 3);
  assert_int_equal(describe(end).unacked_bytes, 2 * MSS);
  flush(end, 5000);
  assert_int_equal(end->count, 2);
  acknowledge(end, 0, 3, 5000, 5001);
  assert_int_equal(describe(end).in_flight, 0);
  assert_int_equal(describe(end).unacked_bytes, 0);
  assert_int_equal(kcp_wants(end->kcp), KCP_NOTHING);
  assert_int_equal(kcp_due(end->kcp, 5001), KCP_NEVER);
  end_free(end);
}

static void writes_fill_up_what_waits(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  for (int i = 0; i < MSS; i++) {
    write_text(end, "x");
  }
  assert_int_equal(describe(end).queued, 1);
  write_text(end, "y");
  assert_int_equal(describe(end).queued, 2);
  assert_int_equal(describe(end).unacked_bytes, MSS + 1);
  flush(end, 0);
  write_text(end, "z");  // what was sent stays as it is
  assert_int_equal(describe(end).queued, 1);
  assert_int_equal(describe(end).in_flight, 2);
  write_segments(end, 2);
  assert_int_equal(describe(end).queued, 3);
  assert_int_equal(kcp_write(end->kcp, NULL, 0), 0);
  assert_int_equal(describe(end).queued, 3);
  flush(end, 1);
  assert_int_equal(count_segments(end, KCP_PUSH), 3);
  end_free(end);
}

static void a_stream_takes_more_while_less_waits_than_the_windows_let_out(void **state) {
  struct kcp_settings settings = defaults;
  settings.send_window = 4;
  struct end *end = end_new(&settings);
  (void)state;
  write_segments(end, 3);
  assert_true(kcp_takes_more(end->kcp));
  write_segments(end, 1);
  assert_false(kcp_takes_more(end->kcp));
  flush(end, 0);
  assert_false(kcp_takes_more(end->kcp));
  acknowledge(end, 0, 1, 0, 1);
  assert_true(kcp_takes_more(end->kcp));
  end_free(end);
}

static void a_congestion_window_opens_with_acknowledgements_and_closes_with_losses(void **state) {
  struct kcp_settings settings = defaults;
  settings.congestion_window = true;
  struct end *end = end_new(&settings);
  (void)state;
  write_segments(end, 50);
  flush(end, 0);
  assert_int_equal(end->count, 1);
  acknowledge(end, 0, 1, 0, 10);
  flush(end, 10);
  assert_int_equal(end->count, 2);
  acknowledge(end, 2, 3, 10, 20);
  flush(end, 20);
  assert_int_equal(end->count, 3);
  acknowledge(end, 5, 6, 20, 30);
  flush(end, 30);
  assert_int_equal(end->count, 4);
  flush(end, 1000);  // all are lost
  assert_int_equal(end->count, 4);
  acknowledge(end, 6, 7, 1000, 1010);
  flush(end, 1010);
  assert_int_equal(count_segments(end, KCP_PUSH), 0);  // three are in flight, over the window
  acknowledge(end, 9, 10, 1000, 1020);
  flush(end, 1020);
  assert_in_range(count_segments(end, KCP_PUSH), 1, 3);
  end_free(end);
}

static void a_congestion_window_is_halved_when_a_segment_was_overtaken(void **state) {
  struct kcp_settings settings = defaults;
  settings.congestion_window = true;
  struct end *end = end_new(&settings);
  uint32_t next = 0;
  int64_t now = 0;
  (void)state;
  write_segments(end, 100);
  flush(end, 0);
  while (end->count < 8) {
    next += (uint32_t)end->count;
    now++;
    acknowledge(end, next - 1, next, (uint32_t)now, now);
    flush(end, now);
  }
  acknowledge(end, next + 1, next, (uint32_t)now, now);
  acknowledge(end, next + 2, next, (uint32_t)now, now);
  flush(end, now);
  assert_int_equal(end->count, 1);
  acknowledge(end, next + 7, next + 8, (uint32_t)now, now);
  flush(end, now);
  assert_int_equal(end->count, 8 / 2 + settings.resend + 1);
  end_free(end);
}

// --- The peer's window -------------------------------------------------------

static void a_closed_window_is_asked_for_at_growing_times(void **state) {
  struct end *end = end_new(&defaults);
  const int64_t expected[] = {7000, 17500, 33250, 56875};
  struct fields closed = {.command = KCP_TELL_WINDOW, .window = 0};
  int64_t now = 0;
  (void)state;
  assert_int_equal(input(end, closed, NULL, true, 0), 0);
  write_segments(end, 1);
  assert_false(kcp_takes_more(end->kcp));
  flush(end, 0);
  assert_int_equal(end->count, 0);
  for (size_t i = 0; i < 4; i++) {
    now = kcp_due(end->kcp, now);
    assert_int_equal(now, expected[i]);
    flush(end, now);
    assert_int_equal(count_segments(end, KCP_ASK_WINDOW), 1);
    assert_int_equal(count_segments(end, KCP_PUSH), 0);
    assert_int_equal(input(end, closed, NULL, true, now), 0);  // the answer: still closed
  }
  for (int i = 0; i < 10; i++) {
    int64_t next = kcp_due(end->kcp, now);
    assert_in_range(next - now, 1, 120000);
    now = next;
    flush(end, now);
  }
  struct fields open = {.command = KCP_TELL_WINDOW, .window = 1};
  assert_int_equal(input(end, open, NULL, true, now), 0);
  assert_int_equal(kcp_wants(end->kcp), KCP_FLUSH);
  flush(end, now);
  assert_int_equal(end->count, 1);
  assert_int_equal(count_segments(end, KCP_PUSH), 1);
  assert_int_equal(kcp_due(end->kcp, now), now + 200);
  assert_int_equal(kcp_counts(end->kcp)->window_stalls, 1);
  acknowledge(end, 0, 1, (uint32_t)now, now);  // with a window of 128
  flush(end, now);
  write_segments(end, 200);
  flush(end, now);
  assert_int_equal(kcp_counts(end->kcp)->window_stalls, 2);
  end_free(end);
}

static void any_segment_opens_the_window_unless_newer_ones_overtook_it(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  write_segments(end, 1);
  flush(end, 0);
  acknowledge(end, 0, 1, 0, 10);
  struct fields late = {.command = KCP_ACK, .window = 0, .una = 0, .sn = 0};
  assert_int_equal(input(end, late, NULL, true, 11), 0);
  assert_int_equal(describe(end).peer_window, 128);
  late.una = 1;
  assert_int_equal(input(end, late, NULL, true, 11), 0);
  assert_int_equal(describe(end).peer_window, 0);
  struct fields data = {.command = KCP_PUSH, .window = 9, .una = 1, .len = 1};
  assert_int_equal(input(end, data, "x", true, 12), 0);
  assert_int_equal(describe(end).peer_window, 9);
  end_free(end);
}

// --- Receiving ---------------------------------------------------------------

static void segments_are_put_in_order_and_the_gap_is_named(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  push(end, 2, "c", 1);
  push(end, 1, "b", 2);
  push(end, 4, "e", 3);
  assert_string_equal(read_text(end), "");
  kcp_flush_acks(end->kcp, 3);
  assert_int_equal(end->count, 1);
  expect_output(end, 0,
                "443322115200800001000000020000000000000000000000"
                "443322115200800002000000010000000000000000000000"
                "443322115200800003000000040000000000000000000000");
  push(end, 0, "a", 4);
  flush(end, 4);
  expect_output(end, 0, "4433221152007d0004000000000000000300000000000000");
  assert_string_equal(read_text(end), "abc");
  push(end, 3, "d", 5);
  assert_string_equal(read_text(end), "de");
  end_free(end);
}

static void acknowledgements_that_una_has_come_to_cover_are_left_out(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  push(end, 1, "b", 1);
  push(end, 3, "d", 2);
  push(end, 0, "a", 3);
  kcp_flush_acks(end->kcp, 3);
  expect_output(end, 0,
                "4433221152007e0002000000030000000200000000000000"
                "4433221152007e0003000000000000000200000000000000");
  end_free(end);
}

static void a_copy_is_acknowledged_again_and_not_read_again(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  push(end, 0, "a", 1);
  push(end, 0, "a", 2);
  push(end, 2, "c", 3);
  push(end, 2, "X", 4);
  kcp_flush_acks(end->kcp, 4);
  end->count = 0;
  push(end, 0, "a", 5);
  assert_int_equal(kcp_wants(end->kcp), KCP_FLUSH_ACKS);
  kcp_flush_acks(end->kcp, 5);
  expect_output(end, 0, "4433221152007f0005000000000000000100000000000000");
  push(end, 1, "b", 6);
  assert_string_equal(read_text(end), "abc");
  assert_int_equal(kcp_counts(end->kcp)->segments_in, 6);
  assert_int_equal(kcp_counts(end->kcp)->duplicates_in, 3);
  end_free(end);
}

static void what_is_outside_the_window_is_neither_kept_nor_acknowledged(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  push(end, 128, "x", 1);
  push(end, 0x7fffffff, "x", 1);
  assert_int_equal(kcp_wants(end->kcp), KCP_NOTHING);
  assert_int_equal(kcp_due(end->kcp, 1), KCP_NEVER);
  push(end, 127, "x", 1);
  assert_int_equal(kcp_wants(end->kcp), KCP_FLUSH_ACKS);
  assert_int_equal(kcp_counts(end->kcp)->outside_window_in, 2);
  end_free(end);
}

static void without_ack_nodelay_acknowledgements_wait_an_interval(void **state) {
  struct kcp_settings settings = defaults;
  settings.ack_nodelay = false;
  struct end *end = end_new(&settings);
  (void)state;
  push(end, 0, "a", 100);
  push(end, 1, "b", 105);
  assert_int_equal(kcp_wants(end->kcp), KCP_NOTHING);
  assert_int_equal(kcp_due(end->kcp, 105), 110);
  flush(end, 110);
  assert_int_equal(end->count, 1);
  assert_int_equal(kcp_due(end->kcp, 110), KCP_NEVER);
  end_free(end);
}

static void unread_segments_close_the_window_and_reading_tells_of_it(void **state) {
  struct kcp_settings settings = defaults;
  settings.receive_window = 3;
  struct end *end = end_new(&settings);
  (void)state;
  for (uint32_t sn = 0; sn < 5; sn++) {
    push(end, sn, "x", 0);  // as far as a peer may go that has not heard of it
  }
  push(end, 6, "x", 0);
  assert_int_equal(describe(end).receive_window_free, 0);
  assert_int_equal(kcp_counts(end->kcp)->outside_window_in, 1);
  flush(end, 0);
  expect_output(end, 0,
                "443322115200000000000000030000000300000000000000"
                "443322115200000000000000040000000300000000000000");
  assert_int_equal(kcp_due(end->kcp, 0), KCP_NEVER);
  assert_string_equal(read_text(end), "xxxxx");
  assert_int_equal(kcp_wants(end->kcp), KCP_FLUSH);
  // Said three times, since the peer waits seven seconds for a word that is lost.
  flush(end, 1000);
  assert_int_equal(end->count, 1);
  expect_output(end, 0, "443322115400030000000000000000000500000000000000");
  assert_int_equal(kcp_due(end->kcp, 1000), 1200);
  flush(end, 1200);
  assert_int_equal(count_segments(end, KCP_TELL_WINDOW), 1);
  flush(end, 1400);
  assert_int_equal(count_segments(end, KCP_TELL_WINDOW), 1);
  assert_int_equal(kcp_due(end->kcp, 1400), KCP_NEVER);
  end_free(end);
}

static void a_peer_that_sends_again_is_told_no_more(void **state) {
  struct kcp_settings settings = defaults;
  settings.receive_window = 1;
  struct end *end = end_new(&settings);
  (void)state;
  push(end, 0, "x", 0);
  flush(end, 0);
  assert_string_equal(read_text(end), "x");
  flush(end, 1);
  assert_int_equal(count_segments(end, KCP_TELL_WINDOW), 1);
  push(end, 1, "y", 2);
  flush(end, 2);
  assert_int_equal(kcp_due(end->kcp, 2), KCP_NEVER);
  assert_string_equal(read_text(end), "y");  // until the window was closed again
  flush(end, 3);
  assert_int_equal(count_segments(end, KCP_TELL_WINDOW), 1);
  end_free(end);
}

// --- Hostile inputs ----------------------------------------------------------

static void a_segment_of_no_sense_ends_the_payload_and_what_stood_before_counts(void **state) {
  struct end *end = end_new(&defaults);
  struct fields good = {.command = KCP_PUSH, .window = 128, .len = 1};
  const struct fields faults[] = {
      {.conv = CONV + 1, .command = KCP_PUSH, .len = 1},
      {.command = 80, .len = 1},
      {.command = 85, .len = 1},
      {.command = KCP_PUSH, .len = 0},
      {.command = KCP_PUSH, .len = 3},
      {.command = KCP_PUSH, .len = 0xffffffff},
      {.command = KCP_PUSH, .len = 0xffffffe8},
      {.command = KCP_ACK, .len = 0x80000000},
  };
  (void)state;
  for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
    uint8_t bytes[3 * KCP_SEGMENT_HEADER_BYTES];
    size_t len = put(bytes, &good, "a");
    struct fields fault = faults[i];
    fault.sn = good.sn + 1;
    len += put(bytes + len, &fault, NULL);
    memset(bytes + len, 'z', 2);
    assert_int_equal(kcp_input(end->kcp, bytes, len + 2, true, 0), ERROR_MALFORMED);
    assert_string_equal(read_text(end), "a");
    assert_int_equal(kcp_wants(end->kcp), KCP_FLUSH_ACKS);
    assert_int_equal(kcp_counts(end->kcp)->malformed, i + 1);
    good.sn++;
  }
  end_free(end);
}

static void fewer_bytes_than_a_header_are_ignored(void **state) {
  struct end *end = end_new(&defaults);
  uint8_t bytes[MTU] = {0};
  struct fields fields = {.command = KCP_PUSH, .window = 128, .len = 1};
  size_t len = put(bytes, &fields, "a");
  struct kcp_glance glance;
  (void)state;
  assert_int_equal(kcp_input(end->kcp, bytes, 23, true, 0), 0);
  assert_int_equal(kcp_input(end->kcp, bytes, 0, true, 0), 0);
  assert_false(kcp_glance(bytes, 23, &glance));
  assert_string_equal(read_text(end), "");
  assert_int_equal(kcp_input(end->kcp, bytes, len + 23, true, 0), 0);
  assert_string_equal(read_text(end), "a");
  fields.sn = 0x01020304;
  fields.una = 0x05060708;
  put(bytes, &fields, NULL);
  assert_true(kcp_glance(bytes, 24, &glance));
  assert_int_equal(glance.conv, CONV);
  assert_int_equal(glance.sn, 0x01020304);
  assert_int_equal(glance.una, 0x05060708);
  assert_int_equal(glance.command, KCP_PUSH);
  end_free(end);
}

static void fragments_are_taken_as_bytes_like_others(void **state) {
  struct end *end = end_new(&defaults);
  struct fields fields = {.command = KCP_PUSH, .frg = 255, .window = 128, .len = 1};
  (void)state;
  assert_int_equal(input(end, fields, "a", true, 0), 0);
  assert_string_equal(read_text(end), "a");
  end_free(end);
}

static void what_was_never_sent_cannot_be_acknowledged(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  write_segments(end, 40);
  flush(end, 0);
  acknowledge(end, 32, 0, 0, 400);
  assert_int_equal(describe(end).srtt_ms, 0);
  acknowledge(end, 0, 33, 0, 1);
  acknowledge(end, 0, 0x7fffffff, 0, 1);
  acknowledge(end, 0, 0x80000000, 0, 1);
  acknowledge(end, 0xffffffff, 0, 0, 1);
  assert_int_equal(describe(end).in_flight, 32);
  assert_int_equal(describe(end).queued, 8);
  acknowledge(end, 32, 0, 0, 5);
  acknowledge(end, 0x12345678, 0, 0, 5);
  assert_int_equal(describe(end).in_flight, 32);
  for (uint32_t i = 0; i < 20; i++) {
    acknowledge(end, 32 + i, 0, 0, 5);
  }
  assert_int_equal(kcp_counts(end->kcp)->retransmits, 0);
  end_free(end);
}

static void a_flood_of_copies_is_answered_with_few_acknowledgements(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  for (int i = 0; i < 100000; i++) {
    push(end, 5, "x", i);
  }
  kcp_flush_acks(end->kcp, 100000);
  assert_in_range(count_segments(end, KCP_ACK), 1, 2 * 128 + 1);
  end->count = 0;
  push(end, 0, "x", 0);
  for (int i = 0; i < 100000; i++) {
    push(end, 0, "x", i);
  }
  kcp_flush_acks(end->kcp, 100000);
  assert_int_equal(count_segments(end, KCP_ACK), 1);
  end_free(end);
}

// --- Two ends and the network between them -----------------------------------

enum { PATH_MAX_DATAGRAMS = 4096 };

struct path {
  unsigned loss_percent;
  unsigned ack_loss_percent;  // of datagrams without data
  unsigned copy_percent;
  unsigned late_percent;  // reordered: held back for 1 to 20 ms more
  int64_t delay_ms;
};

struct travelling {
  int64_t arrives_at;
  uint64_t order;
  struct peer *to;
  struct datagram datagram;
};

struct peer {
  struct kcp *kcp;
  struct network *network;
  struct peer *other;
  size_t to_write;  // bytes still to be written, and to be read
  size_t to_read;
  uint64_t write_seed;
  uint64_t read_seed;
  int64_t reads_at;  // nothing is read before
};

struct network {
  struct path path;
  int64_t now_ms;
  uint64_t random;
  uint64_t order;
  struct peer ends[2];
  size_t count;
  size_t datagrams;
  struct travelling *travelling;
};

static uint64_t next_random(uint64_t *seed) {
  *seed ^= *seed << 13;
  *seed ^= *seed >> 7;
  *seed ^= *seed << 17;
  return *seed;
}

static bool chance(struct network *network, unsigned percent) {
  return next_random(&network->random) % 100 < percent;
}

static void send_one(struct peer *from, const uint8_t *bytes, size_t len) {
  struct network *network = from->network;
  assert_true(network->count < PATH_MAX_DATAGRAMS);
  struct travelling *one = &network->travelling[network->count++];
  one->arrives_at = network->now_ms + network->path.delay_ms;
  if (chance(network, network->path.late_percent)) {
    one->arrives_at += 1 + (int64_t)(next_random(&network->random) % 20);
  }
  one->order = network->order++;
  one->to = from->other;
  one->datagram.len = len;
  memcpy(one->datagram.bytes, bytes, len);
}

static void send_over_path(uint8_t *bytes, size_t len, void *owner) {
  struct peer *from = owner;
  struct network *network = from->network;
  bool has_data = false;
  for (size_t at = 0; at < len; at += KCP_SEGMENT_HEADER_BYTES + read_u32(bytes + at + 20)) {
    has_data = has_data || bytes[at + 4] == KCP_PUSH;
  }
  network->datagrams++;
  if (chance(network, network->path.loss_percent) ||
      (!has_data && chance(network, network->path.ack_loss_percent))) {
    return;
  }
  send_one(from, bytes, len);
  if (chance(network, network->path.copy_percent)) {
    send_one(from, bytes, len);
  }
}

static void peer_write(struct peer *peer) {
  uint8_t bytes[5000];
  while (peer->to_write > 0 && kcp_takes_more(peer->kcp)) {
    size_t len = 1 + next_random(&peer->network->random) % sizeof bytes;
    len = len < peer->to_write ? len : peer->to_write;
    for (size_t i = 0; i < len; i++) {
      bytes[i] = (uint8_t)next_random(&peer->write_seed);
    }
    assert_int_equal(kcp_write(peer->kcp, bytes, len), 0);
    peer->to_write -= len;
  }
}

static void peer_read(struct peer *peer) {
  uint8_t *bytes;
  size_t len;
  while (peer->network->now_ms >= peer->reads_at && kcp_read(peer->kcp, &bytes, &len)) {
    assert_true(len <= peer->to_read);
    peer->to_read -= len;
    for (size_t i = 0; i < len; i++) {
      assert_int_equal(bytes[i], (uint8_t)next_random(&peer->read_seed));
    }
    kcp_read_done(peer->kcp);
  }
}

static void peer_turn(struct peer *peer) {
  int64_t now = peer->network->now_ms;
  peer_read(peer);
  peer_write(peer);
  if (kcp_wants(peer->kcp) == KCP_FLUSH || kcp_due(peer->kcp, now) <= now) {
    kcp_flush(peer->kcp, now);
  } else if (kcp_wants(peer->kcp) == KCP_FLUSH_ACKS) {
    kcp_flush_acks(peer->kcp, now);
  }
  assert_int_not_equal(kcp_wants(peer->kcp), KCP_FLUSH);
  assert_true(kcp_due(peer->kcp, now) > now);
}

static bool is_before(const struct travelling *a, const struct travelling *b) {
  return a->arrives_at != b->arrives_at ? a->arrives_at < b->arrives_at : a->order < b->order;
}

// The next thing that happens, whatever it is. False: nothing will, ever.
static bool network_step(struct network *network) {
  struct peer *awake = NULL;  // and no datagram comes before
  size_t next = 0;
  int64_t at = KCP_NEVER;
  for (size_t i = 0; i < network->count; i++) {
    next = is_before(&network->travelling[i], &network->travelling[next]) ? i : next;
  }
  if (network->count > 0) {
    at = network->travelling[next].arrives_at;
  }
  for (size_t i = 0; i < 2; i++) {
    struct peer *peer = &network->ends[i];
    int64_t due = kcp_due(peer->kcp, network->now_ms);
    if (peer->reads_at > network->now_ms && peer->reads_at < due) {
      due = peer->reads_at;
    }
    if (due < at) {
      at = due;
      awake = peer;
    }
  }
  if (at == KCP_NEVER) {
    return false;
  }
  network->now_ms = at;
  if (awake) {
    peer_turn(awake);
    return true;
  }
  struct travelling one = network->travelling[next];
  network->travelling[next] = network->travelling[--network->count];
  assert_int_equal(
      kcp_input(one.to->kcp, one.datagram.bytes, one.datagram.len, true, network->now_ms), 0);
  peer_turn(one.to);
  return true;
}

static struct network *network_new(const struct kcp_settings *settings, struct path path,
                                   size_t there, size_t back, int64_t start_ms, uint64_t seed) {
  struct network *network = calloc(1, sizeof *network);
  assert_non_null(network);
  network->travelling = calloc(PATH_MAX_DATAGRAMS, sizeof *network->travelling);
  assert_non_null(network->travelling);
  network->path = path;
  network->now_ms = start_ms;
  network->random = 0x9e3779b97f4a7c15 ^ seed;
  for (size_t i = 0; i < 2; i++) {
    struct peer *peer = &network->ends[i];
    peer->network = network;
    peer->other = &network->ends[1 - i];
    peer->kcp = kcp_new(CONV, settings, scratch, HEADROOM, send_over_path, peer);
    assert_non_null(peer->kcp);
    peer->to_write = i == 0 ? there : back;
    peer->to_read = i == 0 ? back : there;
    peer->write_seed = 17 + i;
    peer->read_seed = 17 + (1 - i);
  }
  return network;
}

// Until all has arrived, and all is quiet.
static void network_run(struct network *network, int64_t most_ms) {
  int64_t until = network->now_ms + most_ms;
  for (size_t i = 0; i < 2; i++) {
    peer_turn(&network->ends[i]);
  }
  while (network_step(network)) {
    assert_true(network->now_ms < until);
    assert_false(kcp_is_dead(network->ends[0].kcp) || kcp_is_dead(network->ends[1].kcp));
  }
  for (size_t i = 0; i < 2; i++) {
    struct kcp_state state;
    kcp_describe(network->ends[i].kcp, &state);
    assert_int_equal(network->ends[i].to_write, 0);
    assert_int_equal(network->ends[i].to_read, 0);
    assert_int_equal(state.in_flight, 0);
    assert_int_equal(state.queued, 0);
    assert_int_equal(state.unacked_bytes, 0);
  }
}

static void network_free(struct network *network) {
  kcp_free(network->ends[0].kcp);
  kcp_free(network->ends[1].kcp);
  free(network->travelling);
  free(network);
}

static void run_path(const struct kcp_settings *settings, struct path path, size_t there,
                     size_t back) {
  for (uint64_t seed = 0; seed < 3; seed++) {
    struct network *network = network_new(settings, path, there, back, 0, seed);
    network_run(network, 3600 * 1000);
    network_free(network);
  }
}

static void a_clean_path_sends_nothing_twice(void **state) {
  struct path path = {.delay_ms = 20};
  struct network *network = network_new(&defaults, path, 2000000, 1000000, 0, 1);
  (void)state;
  network_run(network, 60000);
  assert_int_equal(kcp_counts(network->ends[0].kcp)->retransmits, 0);
  assert_int_equal(kcp_counts(network->ends[1].kcp)->retransmits, 0);
  assert_int_equal(kcp_counts(network->ends[0].kcp)->duplicates_in, 0);
  network_free(network);
}

static void a_tenth_lost_each_way_arrives_all_the_same(void **state) {
  struct path path = {.loss_percent = 10, .delay_ms = 30};
  (void)state;
  run_path(&defaults, path, 1000000, 500000);
}

static void a_third_lost_each_way_arrives_all_the_same(void **state) {
  struct path path = {.loss_percent = 30, .delay_ms = 30};
  (void)state;
  run_path(&defaults, path, 500000, 500000);
}

static void lost_acknowledgements_alone_hold_nothing_up(void **state) {
  struct path path = {.ack_loss_percent = 50, .delay_ms = 30};
  (void)state;
  run_path(&defaults, path, 1000000, 0);
}

static void copies_and_reordering_change_nothing(void **state) {
  struct path path = {.copy_percent = 10, .late_percent = 30, .delay_ms = 10};
  struct path all = {.loss_percent = 10, .copy_percent = 10, .late_percent = 10, .delay_ms = 50};
  (void)state;
  run_path(&defaults, path, 1000000, 500000);
  run_path(&defaults, all, 1000000, 500000);
}

static void other_settings_deliver_as_well(void **state) {
  struct path path = {.loss_percent = 10, .copy_percent = 10, .late_percent = 10, .delay_ms = 20};
  struct kcp_settings settings = defaults;
  (void)state;
  settings.congestion_window = true;
  run_path(&settings, path, 300000, 100000);
  settings.nodelay = false;
  settings.ack_nodelay = false;
  settings.resend = 0;
  settings.interval_ms = 100;
  run_path(&settings, path, 100000, 50000);
  settings = defaults;
  settings.send_window = 1;
  settings.receive_window = 1;
  settings.mtu = KCP_MTU_MIN;
  run_path(&settings, path, 10000, 5000);
  settings.send_window = 300;
  settings.receive_window = 100;
  settings.mtu = 1200;
  run_path(&settings, path, 1000000, 500000);
}

static void sn_wraps_around(void **state) {
  struct path path = {.loss_percent = 10, .copy_percent = 10, .late_percent = 10, .delay_ms = 20};
  struct network *network = network_new(&defaults, path, 500000, 500000, 0, 3);
  (void)state;
  kcp_start_at(network->ends[0].kcp, 0xfffffff0, 0xfffffff0);
  kcp_start_at(network->ends[1].kcp, 0xfffffff0, 0xfffffff0);
  network_run(network, 600000);
  network_free(network);
}

static void ts_wraps_around(void **state) {
  struct path path = {.loss_percent = 10, .copy_percent = 10, .late_percent = 10, .delay_ms = 20};
  const int64_t starts[] = {0xffffff00, 0x7fffff00, 0x4fffffff00};
  (void)state;
  for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
    struct network *network = network_new(&defaults, path, 500000, 500000, starts[i], 4);
    struct kcp_state now;
    network_run(network, 600000);
    kcp_describe(network->ends[0].kcp, &now);
    assert_in_range(now.srtt_ms, 20, 200);
    network_free(network);
  }
}

// It pauses for longer than a sender bears without an answer, were its segments not acknowledged.
static void a_reader_that_pauses_stops_the_writer_and_nothing_is_lost(void **state) {
  struct path path = {.delay_ms = 20};
  (void)state;
  for (unsigned loss = 0; loss <= 10; loss += 10) {
    path.loss_percent = loss;
    struct network *network = network_new(&defaults, path, 1000000, 0, 0, 5);
    network->ends[1].reads_at = 100000;
    network_run(network, 200000);
    assert_in_range(network->datagrams, 1000000 / MSS, 4000);
    network_free(network);
  }
}

static void an_idle_connection_asks_for_no_time(void **state) {
  struct end *end = end_new(&defaults);
  (void)state;
  assert_int_equal(kcp_due(end->kcp, 0), KCP_NEVER);
  assert_int_equal(kcp_wants(end->kcp), KCP_NOTHING);
  flush(end, 0);
  kcp_flush_acks(end->kcp, 0);
  assert_int_equal(end->count, 0);
  assert_int_equal(kcp_due(end->kcp, 0), KCP_NEVER);
  end_free(end);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_a_go_client_opens_with_is_answered_byte_for_byte),
      cmocka_unit_test(a_header_and_its_payload_in_two_segments_are_one_stream),
      cmocka_unit_test(what_is_written_goes_out_in_one_segment),
      cmocka_unit_test(a_keepalive_goes_out_as_the_page_has_it),
      cmocka_unit_test(who_asks_for_the_window_is_told_at_the_next_flush),
      cmocka_unit_test(a_frame_of_3000_bytes_fills_its_datagrams),
      cmocka_unit_test(the_first_burst_is_no_more_than_a_fresh_peer_takes),
      cmocka_unit_test(an_unanswered_segment_is_sent_again_later_and_later),
      cmocka_unit_test(without_nodelay_the_deadline_grows_by_the_whole_rto),
      cmocka_unit_test(a_segment_sent_twenty_times_means_nobody_is_there),
      cmocka_unit_test(the_rto_follows_the_round_trips),
      cmocka_unit_test(who_sends_our_hidden_clock_back_is_there),
      cmocka_unit_test(who_answers_what_was_sent_again_meanwhile_is_there),
      cmocka_unit_test(a_hidden_clock_measures_round_trips_all_the_same),
      cmocka_unit_test(the_rto_keeps_to_its_bounds),
      cmocka_unit_test(a_round_trip_is_the_last_acknowledgement_of_a_regular_payload),
      cmocka_unit_test(a_segment_that_two_later_ones_passed_is_sent_again_at_once),
      cmocka_unit_test(at_the_end_of_a_burst_one_that_passed_is_enough_after_an_interval),
      cmocka_unit_test(where_something_new_follows_its_acknowledgement_decides),
      cmocka_unit_test(reordering_that_mends_itself_sends_nothing_again),
      cmocka_unit_test(without_resend_only_time_sends_again),
      cmocka_unit_test(what_was_acknowledged_is_held_until_una_but_not_sent_again),
      cmocka_unit_test(writes_fill_up_what_waits),
      cmocka_unit_test(a_stream_takes_more_while_less_waits_than_the_windows_let_out),
      cmocka_unit_test(a_congestion_window_opens_with_acknowledgements_and_closes_with_losses),
      cmocka_unit_test(a_congestion_window_is_halved_when_a_segment_was_overtaken),
      cmocka_unit_test(a_closed_window_is_asked_for_at_growing_times),
      cmocka_unit_test(any_segment_opens_the_window_unless_newer_ones_overtook_it),
      cmocka_unit_test(segments_are_put_in_order_and_the_gap_is_named),
      cmocka_unit_test(acknowledgements_that_una_has_come_to_cover_are_left_out),
      cmocka_unit_test(a_copy_is_acknowledged_again_and_not_read_again),
      cmocka_unit_test(what_is_outside_the_window_is_neither_kept_nor_acknowledged),
      cmocka_unit_test(without_ack_nodelay_acknowledgements_wait_an_interval),
      cmocka_unit_test(unread_segments_close_the_window_and_reading_tells_of_it),
      cmocka_unit_test(a_peer_that_sends_again_is_told_no_more),
      cmocka_unit_test(a_segment_of_no_sense_ends_the_payload_and_what_stood_before_counts),
      cmocka_unit_test(fewer_bytes_than_a_header_are_ignored),
      cmocka_unit_test(fragments_are_taken_as_bytes_like_others),
      cmocka_unit_test(what_was_never_sent_cannot_be_acknowledged),
      cmocka_unit_test(a_flood_of_copies_is_answered_with_few_acknowledgements),
      cmocka_unit_test(a_clean_path_sends_nothing_twice),
      cmocka_unit_test(a_tenth_lost_each_way_arrives_all_the_same),
      cmocka_unit_test(a_third_lost_each_way_arrives_all_the_same),
      cmocka_unit_test(lost_acknowledgements_alone_hold_nothing_up),
      cmocka_unit_test(copies_and_reordering_change_nothing),
      cmocka_unit_test(other_settings_deliver_as_well),
      cmocka_unit_test(sn_wraps_around),
      cmocka_unit_test(ts_wraps_around),
      cmocka_unit_test(a_reader_that_pauses_stops_the_writer_and_nothing_is_lost),
      cmocka_unit_test(an_idle_connection_asks_for_no_time),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
