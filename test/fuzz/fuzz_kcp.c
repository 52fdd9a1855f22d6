// One end of a KCP connection. The input is a list of records: what to do (1 byte), a number
// (1 byte), and for payloads their bytes; half of the payloads get our conv and numbers near those
// that matter, so that they get through. What is read must be what its sn says, each once and in
// order; what is sent must be the stream, also when it is sent again; what is held must stay
// within the windows; and in the end a peer that behaves must be served.
#include <stdlib.h>
#include <string.h>

#include "common/kcp/kcp.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { CONV = 0x11223344, HEADROOM = 8, MTU = 200, WINDOW = 16, WRITTEN_MAX = 1 << 16 };

static const struct kcp_settings settings[] = {
    {true, 10, 2, false, true, WINDOW, WINDOW, MTU, NULL},
    {false, 50, 0, true, false, WINDOW, WINDOW - 3, MTU, NULL},
    {true, 10, 1, true, true, 1, 1, KCP_MTU_MIN, NULL},
};

static size_t begins_at[WRITTEN_MAX];  // in the stream, each segment that was sent

struct run {
  struct kcp *kcp;
  const struct kcp_settings *settings;
  int64_t now_ms;
  uint32_t start;
  uint32_t receive_next;  // sn of the next segment to be read
  size_t written;
  uint32_t sent;  // segments, and their bytes
  size_t sent_bytes;
};

static void require(bool holds) {
  if (!holds) {
    abort();
  }
}

static uint32_t read_u32(const uint8_t *bytes) {
  return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
         (uint32_t)bytes[3] << 24;
}

static void write_u32(uint8_t *bytes, uint32_t value) {
  for (int i = 0; i < 4; i++) {
    bytes[i] = (uint8_t)(value >> 8 * i);
  }
}

static uint8_t stream_byte(size_t at) { return (uint8_t)(at * 7 + (at >> 8)); }

// Each segment has its place in the stream, and always the same bytes.
static void check_data(struct run *run, uint32_t sn, const uint8_t *data, size_t len) {
  uint32_t index = sn - run->start;
  require(index <= run->sent);
  if (index == run->sent) {
    begins_at[run->sent++] = run->sent_bytes;
    run->sent_bytes += len;
  }
  for (size_t i = 0; i < len; i++) {
    require(data[i] == stream_byte(begins_at[index] + i));
  }
}

static void on_output(uint8_t *bytes, size_t len, void *owner) {
  struct run *run = owner;
  require(len >= KCP_SEGMENT_HEADER_BYTES && len <= run->settings->mtu);
  for (size_t at = 0; at < len;) {
    require(len - at >= KCP_SEGMENT_HEADER_BYTES);
    const uint8_t *header = bytes + at;
    uint32_t data_len = read_u32(header + 20);
    require(read_u32(header) == CONV);
    require(header[4] >= KCP_PUSH && header[4] <= KCP_TELL_WINDOW && header[5] == 0);
    require((header[4] == KCP_PUSH) == (data_len > 0));
    at += KCP_SEGMENT_HEADER_BYTES;
    require(data_len <= len - at);
    if (data_len > 0) {
      check_data(run, read_u32(header + 12), bytes + at, data_len);
    }
    at += data_len;
  }
  memset(bytes - HEADROOM, 0xee, HEADROOM + len);
}

// What was taken in of segment sn begins with sn itself, or as much of it as there is room for.
static void read_all(struct run *run, unsigned most) {
  uint8_t *bytes;
  size_t len;
  while (most-- > 0 && kcp_read(run->kcp, &bytes, &len)) {
    uint8_t expected[4];
    write_u32(expected, run->receive_next);
    require(len > 0);
    require(memcmp(bytes, expected, len < 4 ? len : 4) == 0);
    memset(bytes, 0, len);
    kcp_read_done(run->kcp);
    run->receive_next++;
  }
}

// Makes data tell its sn, wherever in the payload the segments stand.
static void mark_data(uint8_t *bytes, size_t len) {
  for (size_t at = 0; len - at >= KCP_SEGMENT_HEADER_BYTES;) {
    uint32_t data_len = read_u32(bytes + at + 20);
    uint8_t sn[4];
    memcpy(sn, bytes + at + 12, 4);
    at += KCP_SEGMENT_HEADER_BYTES;
    if (data_len > len - at) {
      return;
    }
    memcpy(bytes + at, sn, data_len < 4 ? data_len : 4);
    at += data_len;
  }
}

// Has each segment be one of ours, with numbers near those that matter.
static void make_sound(const struct run *run, uint8_t *bytes, size_t len) {
  struct kcp_state state;
  kcp_describe(run->kcp, &state);
  for (size_t at = 0; len - at >= KCP_SEGMENT_HEADER_BYTES;) {
    uint8_t *header = bytes + at;
    at += KCP_SEGMENT_HEADER_BYTES;
    write_u32(header, CONV);
    header[4] = KCP_PUSH + header[4] % 4;
    write_u32(header + 8, (uint32_t)run->now_ms - header[8]);
    uint32_t near = header[4] == KCP_PUSH ? run->receive_next : run->start;
    write_u32(header + 12, near + (uint32_t)(int8_t)header[12]);
    write_u32(header + 16, run->start + header[16]);
    uint32_t data_len = header[20] % 8;
    if (header[4] == KCP_PUSH && data_len == 0) {
      data_len = 1;
    }
    write_u32(header + 20, data_len < len - at ? data_len : (uint32_t)(len - at));
    at += data_len < len - at ? data_len : len - at;
  }
}

static void take_payload(struct run *run, const uint8_t *from, size_t len, bool sound,
                         bool regular) {
  uint8_t bytes[256];
  memcpy(bytes, from, len);
  if (sound) {
    make_sound(run, bytes, len);
  }
  mark_data(bytes, len);
  int result = kcp_input(run->kcp, bytes, len, regular, run->now_ms);
  require(result == 0 || result == ERROR_MALFORMED);
}

static void write_some(struct run *run, size_t len) {
  uint8_t bytes[255];
  if (run->written + len <= WRITTEN_MAX) {
    for (size_t i = 0; i < len; i++) {
      bytes[i] = stream_byte(run->written + i);
    }
    require(kcp_write(run->kcp, bytes, len) == 0);
    run->written += len;
  }
}

static void check(const struct run *run) {
  struct kcp_state state;
  const struct kcp_counts *counts = kcp_counts(run->kcp);
  kcp_describe(run->kcp, &state);
  require(state.in_flight <= run->settings->send_window);
  require(state.receive_window_free <= run->settings->receive_window);
  require(state.unacked_bytes <= run->written);
  require(state.in_flight + state.queued > 0 || state.unacked_bytes == 0);
  require(state.queued == 0 || state.unacked_bytes > 0);
  require(state.rto_ms >= (run->settings->nodelay ? 30 : 100) && state.rto_ms <= 60000);
  require(counts->retransmits <= counts->segments_out);
  require(counts->fast_retransmits <= counts->retransmits);
  require(counts->duplicates_in + counts->outside_window_in <= counts->segments_in);
}

// After a flush there is nothing more to do at this time.
static void flush(struct run *run) {
  kcp_flush(run->kcp, run->now_ms);
  require(kcp_wants(run->kcp) == KCP_NOTHING);
  require(kcp_due(run->kcp, run->now_ms) > run->now_ms);
}

static size_t step(struct run *run, const uint8_t *bytes, size_t len) {
  uint8_t what = bytes[0];
  uint8_t number = bytes[1];
  size_t payload_len = 0;
  switch (what % 8) {
    case 0:
    case 1:
    case 2:
    case 3:
      payload_len = number < len - 2 ? number : len - 2;
      take_payload(run, bytes + 2, payload_len, what % 2, what & 0x80);
      break;
    case 4: write_some(run, number); break;
    case 5: read_all(run, number); break;
    case 6:
      run->now_ms += number;
      if (what & 0x80) {
        int64_t due = kcp_due(run->kcp, run->now_ms);
        run->now_ms = due != KCP_NEVER && due > run->now_ms ? due : run->now_ms;
      }
      flush(run);
      break;
    default:
      kcp_flush_acks(run->kcp, run->now_ms);
      require(kcp_wants(run->kcp) != KCP_FLUSH_ACKS);
      break;
  }
  return 2 + payload_len;
}

// Whatever came before, a peer that behaves gets all and is heard.
static void come_to_an_end(struct run *run) {
  struct kcp_state state;
  read_all(run, UINT32_MAX);
  for (size_t rounds = 0;; rounds++) {
    uint8_t ack[KCP_SEGMENT_HEADER_BYTES] = {0};
    flush(run);
    kcp_describe(run->kcp, &state);
    if (state.in_flight == 0 && state.queued == 0) {
      break;
    }
    require(rounds <= run->written + 1);
    write_u32(ack, CONV);
    ack[4] = KCP_ACK;
    ack[6] = 200;
    write_u32(ack + 12, run->start + run->sent - 1);
    write_u32(ack + 16, run->start + run->sent);
    require(kcp_input(run->kcp, ack, sizeof ack, true, run->now_ms) == 0);
  }
  require(run->sent_bytes == run->written && state.unacked_bytes == 0);
  for (int i = 0; i < 2 * WINDOW; i++) {
    uint8_t push[KCP_SEGMENT_HEADER_BYTES + 1] = {0};
    uint32_t before = run->receive_next;
    write_u32(push, CONV);
    push[4] = KCP_PUSH;
    push[20] = 1;
    write_u32(push + 12, run->receive_next);
    mark_data(push, sizeof push);
    require(kcp_input(run->kcp, push, sizeof push, false, run->now_ms) == 0);
    read_all(run, UINT32_MAX);
    require(run->receive_next != before);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  uint8_t scratch[HEADROOM + MTU];
  if (len < 2) {
    return 0;
  }
  struct run run = {
      .settings = &settings[bytes[0] % (sizeof settings / sizeof settings[0])],
      .start = bytes[0] & 0x80 ? 0xfffffff8 : 0,
      .now_ms = bytes[1] & 0x80 ? 0xffffff00 : 1000,
  };
  run.receive_next = run.start;
  run.kcp = kcp_new(CONV, run.settings, scratch, HEADROOM, on_output, &run);
  require(run.kcp != NULL);
  kcp_start_at(run.kcp, run.start, run.start);
  bytes += 2;
  len -= 2;
  while (len >= 2) {
    size_t taken = step(&run, bytes, len);
    check(&run);
    bytes += taken;
    len -= taken;
  }
  come_to_an_end(&run);
  kcp_free(run.kcp);
  return 0;
}
