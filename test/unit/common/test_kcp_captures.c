// What the ecosystem's own client and server said to each other (test/kcp), said to our link, as
// the one and as the other. Our answers need not be the same datagrams, since we fill segments
// where kcp-go begins new ones; but read by kcp-go's rules they must say the same.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <string.h>

#include "common/kcp/link.h"
#include "test/unit/kcp_capture.h"

enum {
  CONV = 0x11223344,
  DATA = 10,
  PARITY = 3,
  GROUP = DATA + PARITY,
  STREAMS = 4,
  MESSAGE_MAX = 4096,
  SEGMENTS_MAX = 64,
  MTU = 1400,
  FIRST_BURST = 32,   // segments that a fresh session of kcp-go takes
  AFTERWARDS_MS = 9,  // before anything is sent again for want of an answer
};

static const char short_message[] = "test/kcp/message-5-bytes.txt";
static const char long_message[] = "test/kcp/message-3000-bytes.txt";

// --- How kcp-go and its smux read ------------------------------------------------------------

struct heard {
  bool is_open;
  bool has_ended;
  size_t len;
  uint8_t bytes[MESSAGE_MAX];
  uint32_t used;    // as the last UPD says,
  uint32_t window;  // and its window
};

struct reader {
  uint32_t next_sequence;
  bool has[SEGMENTS_MAX];  // by sn
  size_t len[SEGMENTS_MAX];
  uint8_t segments[SEGMENTS_MAX][MTU];
  struct heard streams[STREAMS];
};

static uint32_t read_u16(const uint8_t *bytes) {
  return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8;
}

static uint32_t read_u32(const uint8_t *bytes) {
  return read_u16(bytes) | read_u16(bytes + 2) << 16;
}

static void read_segments(struct reader *reader, const uint8_t *bytes, size_t len) {
  while (len > 0) {
    assert_true(len >= KCP_SEGMENT_HEADER_BYTES);
    uint32_t sn = read_u32(bytes + 12);
    uint32_t data_len = read_u32(bytes + 20);
    assert_int_equal(read_u32(bytes), CONV);
    assert_in_range(bytes[4], KCP_PUSH, KCP_TELL_WINDOW);
    assert_int_equal(bytes[5], 0);  // frg
    assert_true(data_len <= len - KCP_SEGMENT_HEADER_BYTES);
    // Data of length 0 would stop kcp-go for good.
    assert_int_equal(bytes[4] == KCP_PUSH, data_len > 0);
    if (bytes[4] == KCP_PUSH) {
      assert_true(sn < SEGMENTS_MAX && sn < FIRST_BURST);
      memcpy(reader->segments[sn], bytes + KCP_SEGMENT_HEADER_BYTES, data_len);
      reader->len[sn] = data_len;
      reader->has[sn] = true;
    }
    bytes += KCP_SEGMENT_HEADER_BYTES + data_len;
    len -= KCP_SEGMENT_HEADER_BYTES + data_len;
  }
}

// A kind that is not its place's would end kcp-go's recovery for good.
static void read_datagram(struct reader *reader, const uint8_t *datagram, size_t len) {
  uint32_t sequence = read_u32(datagram);
  assert_in_range(len, KCP_SEGMENT_HEADER_BYTES + FEC_HEADER_BYTES, MTU + FEC_HEADER_BYTES);
  assert_int_equal(sequence, reader->next_sequence++);
  if (sequence % GROUP >= DATA) {
    assert_int_equal(read_u16(datagram + 4), FEC_PARITY);
    return;
  }
  assert_int_equal(read_u16(datagram + 4), FEC_DATA);
  assert_int_equal(read_u16(datagram + 6), len - 6);
  read_segments(reader, datagram + FEC_HEADER_BYTES, len - FEC_HEADER_BYTES);
}

static size_t joined(const struct reader *reader, uint8_t *bytes) {
  size_t len = 0;
  for (size_t sn = 0; sn < SEGMENTS_MAX && reader->has[sn]; sn++) {
    memcpy(bytes + len, reader->segments[sn], reader->len[sn]);
    len += reader->len[sn];
  }
  return len;
}

static void read_frame(struct heard *heard, const uint8_t *frame, size_t len) {
  const uint8_t *payload = frame + SMUX_HEADER_BYTES;
  switch (frame[1]) {
    case SMUX_SYN: heard->is_open = true; break;
    case SMUX_FIN: heard->has_ended = true; break;
    case SMUX_PSH:
      assert_true(len > 0 && heard->len + len <= MESSAGE_MAX);
      memcpy(heard->bytes + heard->len, payload, len);
      heard->len += len;
      return;
    case SMUX_UPD:
      assert_int_equal(len, 8);
      heard->used = read_u32(payload);
      heard->window = read_u32(payload + 4);
      return;
    default: fail();
  }
  assert_int_equal(len, 0);
}

static void read_frames(struct reader *reader) {
  static uint8_t bytes[SEGMENTS_MAX * MTU];
  size_t len = joined(reader, bytes);
  for (size_t at = 0; at < len;) {
    const uint8_t *frame = bytes + at;
    assert_true(len - at >= SMUX_HEADER_BYTES);
    size_t payload = read_u16(frame + 2);
    uint32_t id = read_u32(frame + 4);
    assert_int_equal(frame[0], SMUX_VERSION);
    assert_true(id >= 3 && id % 2 == 1 && id < 3 + 2 * STREAMS);
    assert_true(payload <= len - at - SMUX_HEADER_BYTES);
    read_frame(&reader->streams[(id - 3) / 2], frame, payload);
    at += SMUX_HEADER_BYTES + payload;
  }
}

static void read_recorded(struct reader *reader, const struct kcp_capture *capture, char from) {
  memset(reader, 0, sizeof *reader);
  for (size_t i = 0; i < capture->count; i++) {
    if (capture->datagrams[i].from == from) {
      read_datagram(reader, capture->datagrams[i].bytes, capture->datagrams[i].len);
    }
  }
  read_frames(reader);
}

// --- Our end ---------------------------------------------------------------------------------

struct speaker {
  struct end *end;
  struct smux_stream *stream;
  struct heard heard;
};

struct end {
  struct link *link;
  bool is_client;
  bool is_dirty;
  unsigned opened;
  struct speaker speakers[STREAMS];
  struct reader reader;  // of what it sends
  size_t outputs;
  uint8_t last[FEC_DATAGRAM_MAX_BYTES];
  size_t last_len;
};

static struct end end;
static struct reader recorded;
static struct reed_solomon *code;

static void on_output(const uint8_t *datagram, size_t len, void *owner) {
  (void)owner;
  read_datagram(&end.reader, datagram, len);
  memcpy(end.last, datagram, len);
  end.last_len = len;
  end.outputs++;
}

static void on_dirty(void *owner) {
  (void)owner;
  end.is_dirty = true;
}

static void *on_open(struct smux_stream *stream, void *owner) {
  (void)owner;
  struct speaker *speaker = &end.speakers[end.opened++];
  assert_true(end.opened <= STREAMS);
  speaker->end = &end;
  speaker->stream = stream;
  speaker->heard.is_open = true;
  assert_int_equal(smux_stream_id(stream), 1 + 2 * end.opened);
  return speaker;
}

// The recorded server says each message again, once it is whole.
static size_t on_bytes(uint8_t *bytes, size_t len, void *owner) {
  struct speaker *speaker = owner;
  struct heard *heard = &speaker->heard;
  assert_true(heard->len + len <= MESSAGE_MAX);
  memcpy(heard->bytes + heard->len, bytes, len);
  heard->len += len;
  memset(bytes, 0xee, len);
  if (!end.is_client && heard->len >= 4) {
    size_t message = (size_t)heard->bytes[2] << 8 | heard->bytes[3];
    if (heard->len == 4 + message) {
      assert_int_equal(smux_write(speaker->stream, heard->bytes, heard->len), 0);
    }
  }
  return len;
}

static void on_ended(void *owner) {
  struct speaker *speaker = owner;
  speaker->heard.has_ended = true;
  smux_close(speaker->stream, true);
  speaker->stream = NULL;
}

static void on_sent(void *owner) { (void)owner; }

static void start(bool is_client, int64_t now_ms) {
  static uint8_t scratch[LINK_SCRATCH_BYTES];
  static const struct link_events events = {
      on_output, on_dirty, {on_open, on_bytes, on_ended, on_sent}};
  static struct link_settings settings = {
      .kcp = {.nodelay = true,
              .interval_ms = 10,
              .resend = 2,
              .ack_nodelay = true,
              .send_window = 128,
              .receive_window = 128,
              .mtu = MTU},
      .smux = {.frame_bytes = 4096,
               .stream_bytes = 65536,
               .session_bytes = 4 << 20,
               .streams_max = STREAMS,
               .keepalive_interval_ms = 10000,
               .keepalive_timeout_ms = 30000},
      .scratch = scratch,
  };
  settings.code = code;
  settings.smux.client = is_client;
  memset(&end, 0, sizeof end);
  end.is_client = is_client;
  end.link = link_new(CONV, &settings, &events, &end, now_ms);
  assert_non_null(end.link);
}

static void flush(int64_t now_ms) {
  if (end.is_dirty) {
    end.is_dirty = false;
    assert_int_equal(link_flush(end.link, now_ms), 0);
  }
}

static void advance(int64_t now_ms) {
  if (link_due(end.link, now_ms) <= now_ms) {
    assert_int_equal(link_tick(end.link, now_ms), 0);
  }
  flush(now_ms);
}

static void take(const struct kcp_capture_datagram *datagram) {
  uint8_t copy[FEC_DATAGRAM_MAX_BYTES];
  memcpy(copy, datagram->bytes, datagram->len);
  assert_int_equal(link_input(end.link, copy, datagram->len, (int64_t)datagram->ms), 0);
  flush((int64_t)datagram->ms);
}

// Which datagrams of the first group are lost, a bit each.
static bool is_lost(const struct kcp_capture_datagram *datagram, unsigned lost) {
  uint32_t sequence = read_u32(datagram->bytes);
  return sequence < GROUP && (lost >> sequence & 1);
}

static void finish(const struct kcp_capture *capture, unsigned lost) {
  struct link_state state;
  advance((int64_t)capture->datagrams[capture->count - 1].ms + AFTERWARDS_MS);
  link_describe(end.link, &state);
  assert_int_equal(state.malformed_in, 0);
  assert_int_equal(state.fec.recovered, __builtin_popcount(lost));
  assert_int_equal(state.fec.unusable + state.fec.misplaced + state.fec.late, 0);
  read_frames(&end.reader);
  link_free(end.link);
}

static void expect_same_bytes(const struct heard *heard, const struct heard *expected) {
  assert_int_equal(heard->is_open, expected->is_open);
  assert_int_equal(heard->has_ended, expected->has_ended);
  assert_int_equal(heard->len, expected->len);
  assert_memory_equal(heard->bytes, expected->bytes, expected->len);
}

// --- As the server ---------------------------------------------------------------------------

static void serve(const char *path, unsigned lost) {
  const struct kcp_capture *capture = kcp_capture_read(path);
  start(false, 0);
  for (size_t i = 0; i < capture->count; i++) {
    advance((int64_t)capture->datagrams[i].ms);
    if (capture->datagrams[i].from == 'C' && !is_lost(&capture->datagrams[i], lost)) {
      take(&capture->datagrams[i]);
    }
  }
  finish(capture, lost);
  read_recorded(&recorded, capture, 'C');
  for (size_t i = 0; i < STREAMS; i++) {
    expect_same_bytes(&end.speakers[i].heard, &recorded.streams[i]);
  }
  size_t said = recorded.streams[0].len;
  read_recorded(&recorded, capture, 'S');
  for (size_t i = 0; i < STREAMS; i++) {
    expect_same_bytes(&end.reader.streams[i], &recorded.streams[i]);
    assert_int_equal(end.reader.streams[i].window, recorded.streams[i].window);
  }
  // More than was said would be an error to smux.
  assert_true(end.reader.streams[0].used > 0 && end.reader.streams[0].used <= said);
}

static void a_recorded_client_is_served(void **state) {
  (void)state;
  serve(short_message, 0);
  assert_int_equal(end.reader.streams[0].used, 9);
  serve(long_message, 0);
}

static void its_first_datagrams_are_answered_as_recorded(void **state) {
  const struct kcp_capture *capture = kcp_capture_read(short_message);
  (void)state;
  start(false, 0);
  for (size_t i = 0; i < STREAMS; i++) {
    uint8_t copy[FEC_DATAGRAM_MAX_BYTES];
    assert_int_equal(capture->datagrams[i].from, 'C');
    memcpy(copy, capture->datagrams[i].bytes, capture->datagrams[i].len);
    assert_int_equal(link_input(end.link, copy, capture->datagrams[i].len, 0), 0);
  }
  flush(0);
  // But for the window: ours has read all four segments by now.
  uint8_t expected[FEC_DATAGRAM_MAX_BYTES];
  const struct kcp_capture_datagram *answer = &capture->datagrams[STREAMS];
  assert_int_equal(answer->from, 'S');
  memcpy(expected, answer->bytes, answer->len);
  expected[FEC_HEADER_BYTES + 6] = 128;
  assert_int_equal(end.outputs, 1);
  assert_int_equal(end.last_len, answer->len);
  assert_memory_equal(end.last, expected, answer->len);
  link_free(end.link);
}

// Each choice of up to three of ten.
static void with_each_loss(void (*play)(const char *path, unsigned lost), const char *path) {
  unsigned tried = 0;
  for (unsigned lost = 1; lost < 1u << DATA; lost++) {
    if (__builtin_popcount(lost) <= PARITY) {
      play(path, lost);
      tried++;
    }
  }
  assert_int_equal(tried, 10 + 45 + 120);
}

static void what_a_recorded_client_loses_is_recovered(void **state) {
  (void)state;
  with_each_loss(serve, short_message);
  with_each_loss(serve, long_message);
}

// --- As the client ---------------------------------------------------------------------------

static void open_one(struct speaker *speaker, int64_t now_ms) {
  speaker->stream = smux_open(link_smux(end.link), speaker);
  assert_non_null(speaker->stream);
  link_touch(end.link);
  flush(now_ms);
}

static void the_first_datagrams_are_those_recorded(void **state) {
  const struct kcp_capture *capture = kcp_capture_read(short_message);
  (void)state;
  start(true, 0);
  for (size_t i = 0; i < STREAMS; i++) {
    open_one(&end.speakers[i], 0);
    assert_int_equal(end.outputs, i + 1);
    assert_int_equal(end.last_len, capture->datagrams[i].len);
    assert_memory_equal(end.last, capture->datagrams[i].bytes, end.last_len);
  }
  link_free(end.link);
}

static void a_stream_ends_with_the_datagram_recorded(void **state) {
  const struct kcp_capture *capture = kcp_capture_read(short_message);
  size_t i = 0;
  (void)state;
  while (capture->datagrams[i].from != 'C' || read_u32(capture->datagrams[i].bytes) != 8) {
    i++;
  }
  const struct kcp_capture_datagram *expected = &capture->datagrams[i];
  int64_t sent_ms = read_u32(expected->bytes + FEC_HEADER_BYTES + 8);
  start(true, sent_ms);
  // The SYN of its stream goes just before; its place in the group is another.
  link_start_at(end.link, 0, 7, 4);
  open_one(&end.speakers[0], sent_ms);
  smux_close(end.speakers[0].stream, true);
  link_touch(end.link);
  flush(sent_ms);
  assert_int_equal(end.last_len, expected->len);
  assert_memory_equal(end.last + 4, expected->bytes + 4, expected->len - 4);
  link_free(end.link);
}

// The client speaks when the recorded one does: at the first datagram with data behind the four
// that open streams, and with its FIN.
static void act_as_recorded(const struct kcp_capture_datagram *datagram, const struct heard *said) {
  struct speaker *speaker = &end.speakers[0];
  int64_t now_ms = (int64_t)datagram->ms;
  const uint8_t *segment = datagram->bytes + FEC_HEADER_BYTES;
  if (read_u16(datagram->bytes + 4) != FEC_DATA || segment[4] != KCP_PUSH) {
    return;
  }
  uint8_t command = segment[KCP_SEGMENT_HEADER_BYTES + 1];
  if (read_u32(segment + 12) == STREAMS) {
    assert_int_equal(smux_write(speaker->stream, said->bytes, said->len), 0);
  } else if (read_u32(segment + 20) == SMUX_HEADER_BYTES && command == SMUX_FIN) {
    // The recorded server's window for it is known by now.
    assert_int_equal(smux_send_window(speaker->stream), 65536);
    smux_close(speaker->stream, true);
    speaker->stream = NULL;
  }
  link_touch(end.link);
  flush(now_ms);
}

static void be_served(const char *path, unsigned lost) {
  static struct heard said;
  const struct kcp_capture *capture = kcp_capture_read(path);
  read_recorded(&recorded, capture, 'C');
  said = recorded.streams[0];
  start(true, 0);
  for (size_t i = 0; i < STREAMS; i++) {
    open_one(&end.speakers[i], 0);
  }
  for (size_t i = 0; i < capture->count; i++) {
    advance((int64_t)capture->datagrams[i].ms);
    if (capture->datagrams[i].from == 'C') {
      act_as_recorded(&capture->datagrams[i], &said);
    } else if (!is_lost(&capture->datagrams[i], lost)) {
      take(&capture->datagrams[i]);
    }
  }
  finish(capture, lost);
  for (size_t i = 0; i < STREAMS; i++) {
    expect_same_bytes(&end.reader.streams[i], &recorded.streams[i]);
  }
  read_recorded(&recorded, capture, 'S');
  assert_int_equal(end.speakers[0].heard.len, recorded.streams[0].len);
  assert_memory_equal(end.speakers[0].heard.bytes, recorded.streams[0].bytes,
                      recorded.streams[0].len);
}

static void a_recorded_server_serves(void **state) {
  (void)state;
  be_served(short_message, 0);
  be_served(long_message, 0);
}

static void what_a_recorded_server_loses_is_recovered(void **state) {
  (void)state;
  with_each_loss(be_served, long_message);
}

static int make_code(void **state) {
  (void)state;
  code = reed_solomon_new(DATA, PARITY);
  return code ? 0 : -1;
}

static int free_code(void **state) {
  (void)state;
  reed_solomon_free(code);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_recorded_client_is_served),
      cmocka_unit_test(its_first_datagrams_are_answered_as_recorded),
      cmocka_unit_test(what_a_recorded_client_loses_is_recovered),
      cmocka_unit_test(the_first_datagrams_are_those_recorded),
      cmocka_unit_test(a_stream_ends_with_the_datagram_recorded),
      cmocka_unit_test(a_recorded_server_serves),
      cmocka_unit_test(what_a_recorded_server_loses_is_recovered),
  };
  return cmocka_run_group_tests(tests, make_code, free_code);
}
