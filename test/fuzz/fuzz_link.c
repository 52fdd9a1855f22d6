// The gateway's end of a KCP connection, all layers joined, against a peer that sends anything, and
// owners of streams that do anything within events and between them. The first two bytes choose
// both sides' FEC, where the numbers start and how owners behave; then records follow: a byte of
// what happens, one of how much, and for some of them bytes of the peer.
//
// The peer can behave: it opens streams and sends on them by sound segments and its own FEC, sends
// again what was lost, and acknowledges; so deep states come about. Or it has datagrams lost,
// doubled and changed, makes up segments with numbers near those that matter, and says bytes that
// are no smux.
//
// What goes out must be sound in all layers; what comes up on a stream must be its own; what is
// held is bounded; and in the end, with a peer that acknowledges and owners that read, all goes
// that can go, without waiting for time.
#include <sanitizer/allocator_interface.h>
#include <stdlib.h>
#include <string.h>

#include "common/kcp/link.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum {
  CONV = 0x11223344,
  MTU = 200,
  WINDOW = 32,  // segments
  FRAME = 300,
  STREAMS = 4,
  STREAM_WINDOW = 1000,
  SESSION = 4000,
  WAITS_MAX = 4000,  // that an owner lets wait on a stream
  KEEPALIVE_MS = 1000,
  PUSH_MAX = 176,  // bytes of a segment of the peer
  SENT_MAX = 256,  // segments of the peer that it can send again
  HELD_MAX = 400000,
  ROUNDS_MAX = 20000,
};

enum action {
  RAW,   // bytes as a datagram
  NEAR,  // bytes as segments with numbers near those that matter
  OPEN,  // frames of smux, in segments
  SAY,
  SAY_MORE,
  END,
  UPDATE,
  SPEAK,  // bytes as those of smux
  SEND_AGAIN,
  ACKNOWLEDGE,
  FATES,   // of the next datagrams: a bit each, set: lost
  CHANGE,  // a byte of the next datagram
  FLUSH,
  TICK,
  WRITE,
  OWNER,
  ACTIONS,
};

struct user {
  struct world *world;
  struct smux_stream *stream;  // NULL: closed, or never there
};

struct segment {
  size_t len;
  uint8_t bytes[PUSH_MAX];
};

struct peer {
  struct fec_encoder *encoder;  // NULL: it speaks plain KCP
  uint32_t next_sn;
  unsigned lost;                  // the fates of its next datagrams
  unsigned change;                // of the next datagram: which byte, in the high bits, and how
  bool is_sound;                  // nothing was changed or made up
  struct segment sent[SENT_MAX];  // by sn
};

struct world {
  struct link *link;
  unsigned group;  // D + P of ours, and D; 0: no FEC
  unsigned data;
  int64_t now_ms;
  uint32_t start;
  uint32_t moods;  // changes with each event
  bool is_dirty;
  bool is_greedy;  // owners use all they get
  uint64_t datagrams_in;
  int error;
  struct user users[STREAMS];
  struct peer peer;
  // What goes out.
  uint32_t sent;          // segments of data, the first time
  uint32_t receive_next;  // una
  uint64_t outputs;
  uint8_t head[SMUX_HEADER_BYTES];
  size_t head_len;
  size_t payload_left;
};

static struct world world;
static const unsigned numbers[][2] = {{0, 0}, {10, 3}, {3, 2}, {2, 1}};
static struct reed_solomon *codes[4];

static void expect(bool is_so) {
  if (!is_so) {
    abort();
  }
}

// --- What is held ------------------------------------------------------------------------------

static size_t held;
static bool is_counting;

static void on_malloc(const volatile void *memory, size_t size) {
  (void)memory;
  held += is_counting ? size : 0;
}

static void on_free(const volatile void *memory) {
  if (is_counting && memory) {
    size_t size = __sanitizer_get_allocated_size(memory);
    held -= size < held ? size : held;
  }
}

// --- Bytes -------------------------------------------------------------------------------------

static uint32_t read_u32(const uint8_t *bytes) {
  return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
         (uint32_t)bytes[3] << 24;
}

static void write_u32(uint8_t *bytes, uint32_t value) {
  for (int i = 0; i < 4; i++) {
    bytes[i] = (uint8_t)(value >> 8 * i);
  }
}

static unsigned mood(unsigned below) {
  world.moods = world.moods * 1664525u + 1013904223u;
  return (world.moods >> 16) % below;
}

// All that a stream of this id says.
static uint8_t byte_of(uint32_t id) { return (uint8_t)(0x40 + id); }

// --- What goes out -----------------------------------------------------------------------------

static void check_head(void) {
  const uint8_t *head = world.head;
  size_t len = (size_t)head[2] | (size_t)head[3] << 8;
  expect(head[0] == SMUX_VERSION && head[1] != SMUX_SYN && head[1] <= SMUX_UPD);
  switch (head[1]) {
    case SMUX_PSH: expect(len > 0 && len <= FRAME); break;
    case SMUX_UPD: expect(len == 8); break;
    default: expect(len == 0);
  }
  world.payload_left = len;
  world.head_len = 0;
}

static void check_stream(const uint8_t *bytes, size_t len) {
  for (size_t i = 0; i < len; i++) {
    if (world.payload_left > 0) {
      world.payload_left--;
      continue;
    }
    world.head[world.head_len++] = bytes[i];
    if (world.head_len == SMUX_HEADER_BYTES) {
      check_head();
    }
  }
}

static void check_segments(const uint8_t *bytes, size_t len) {
  expect(len >= KCP_SEGMENT_HEADER_BYTES && len <= MTU);
  for (size_t at = 0; at < len;) {
    expect(len - at >= KCP_SEGMENT_HEADER_BYTES);
    const uint8_t *header = bytes + at;
    uint32_t data_len = read_u32(header + 20);
    uint32_t index = read_u32(header + 12) - world.start;
    expect(read_u32(header) == CONV);
    expect(header[4] >= KCP_PUSH && header[4] <= KCP_TELL_WINDOW && header[5] == 0);
    expect((header[4] == KCP_PUSH) == (data_len > 0));
    world.receive_next = read_u32(header + 16);
    at += KCP_SEGMENT_HEADER_BYTES;
    expect(data_len <= len - at);
    expect(data_len == 0 || index <= world.sent);
    if (data_len > 0 && index == world.sent) {
      world.sent++;
      check_stream(bytes + at, data_len);
    }
    at += data_len;
  }
}

static void on_output(const uint8_t *datagram, size_t len, void *owner) {
  (void)owner;
  world.outputs++;
  // A keep-alive alone comes unasked.
  expect(world.datagrams_in > 0 || world.now_ms >= KEEPALIVE_MS);
  if (world.group == 0) {
    check_segments(datagram, len);
    return;
  }
  expect(len > FEC_HEADER_BYTES && len <= MTU + FEC_HEADER_BYTES);
  unsigned kind = (unsigned)datagram[4] | (unsigned)datagram[5] << 8;
  bool is_data = read_u32(datagram) % world.group < world.data;
  expect(kind == (is_data ? FEC_DATA : FEC_PARITY));
  if (is_data) {
    expect(((size_t)datagram[6] | (size_t)datagram[7] << 8) == len - 6);
    check_segments(datagram + FEC_HEADER_BYTES, len - FEC_HEADER_BYTES);
  }
}

// --- The owners of streams ---------------------------------------------------------------------

static void on_dirty(void *owner) {
  (void)owner;
  expect(!world.is_dirty);  // once for each flush
  world.is_dirty = true;
}

static void write_some(struct user *user, size_t len) {
  static const uint8_t some[600];
  if (user->stream && smux_queued_bytes(user->stream) < WAITS_MAX) {
    int error = smux_write(user->stream, some, len);
    expect(error == 0 || error == ERROR_INVALID);
  }
}

static void close_stream(struct user *user, bool flush) {
  if (user->stream) {
    struct smux_stream *stream = user->stream;
    user->stream = NULL;
    smux_close(stream, flush);
  }
}

// To its own stream or to another.
static void do_anything(struct user *user) {
  if (world.is_greedy) {
    return;
  }
  if (mood(4) == 0) {
    user = &world.users[mood(STREAMS)];
  }
  if (!user->stream) {
    return;
  }
  switch (mood(40)) {
    case 0: close_stream(user, true); break;
    case 1: close_stream(user, false); break;
    case 2:
    case 3: smux_pause(user->stream); break;
    case 4:
    case 5: smux_resume(user->stream); break;
    case 6:
    case 7:
    case 8:
    case 9: write_some(user, mood(600)); break;
    default: break;
  }
}

static void *on_open(struct smux_stream *stream, void *owner) {
  (void)owner;
  for (size_t i = 0; i < STREAMS; i++) {
    struct user *user = &world.users[i];
    if (!user->stream && (world.is_greedy || mood(16) != 0)) {
      user->stream = stream;
      do_anything(user);
      return user;
    }
  }
  return NULL;
}

static size_t on_bytes(uint8_t *bytes, size_t len, void *owner) {
  struct user *user = owner;
  expect(user->stream && len > 0);
  for (size_t i = 0; world.peer.is_sound && i < len; i++) {
    expect(bytes[i] == byte_of(smux_stream_id(user->stream)));
  }
  size_t used = world.is_greedy || mood(3) != 0 ? len : mood((unsigned)len + 1);
  do_anything(user);
  do_anything(user);
  memset(bytes, 0xee, used);
  return used;
}

static void on_ended(void *owner) {
  struct user *user = owner;
  expect(user->stream != NULL);
  if (mood(2) == 0) {
    close_stream(user, true);
  } else {
    do_anything(user);
  }
}

static void on_sent(void *owner) {
  struct user *user = owner;
  expect(user->stream != NULL);
  do_anything(user);
}

// --- The peer ----------------------------------------------------------------------------------

static void note(int error) {
  expect(error == 0 || error == ERROR_MALFORMED || error == ERROR_EXPIRED);
  world.error = world.error != 0 ? world.error : error;
}

static void check_peek(const uint8_t *datagram, size_t len) {
  uint8_t out[FEC_DATAGRAM_MAX_BYTES];
  const uint8_t *payload;
  size_t payload_len;
  const struct user *user = link_peek(world.link, datagram, len, out, &payload, &payload_len);
  if (user) {
    expect(user->stream != NULL && payload_len <= len);
    expect(payload >= out && payload + payload_len <= out + sizeof out);
  }
}

// In a block of its own, so that a step outside shows.
static void input(const uint8_t *bytes, size_t len) {
  if (world.error != 0) {
    return;
  }
  uint8_t *copy = malloc(len ? len : 1);
  expect(copy != NULL);
  memcpy(copy, bytes, len);
  struct kcp_glance glance;
  bool tells = link_glance(copy, len, &glance);
  expect(!tells || (!link_is_parity(copy, len) && len >= KCP_SEGMENT_HEADER_BYTES));
  check_peek(copy, len);
  world.datagrams_in++;
  note(link_input(world.link, copy, len, world.now_ms));
  free(copy);
}

static void on_peer_datagram(uint8_t *datagram, size_t len, void *owner) {
  struct peer *peer = owner;
  bool is_lost = peer->lost & 1;
  peer->lost >>= 1;
  if (peer->change != 0) {
    datagram[peer->change / 256 % len] ^= (uint8_t)peer->change;
    peer->change = 0;
  }
  if (!is_lost) {
    input(datagram, len);
  }
  if (mood(16) == 0) {
    input(datagram, len);
  }
}

static void peer_send(const uint8_t *payload, size_t len) {
  uint8_t buffer[FEC_DATAGRAM_MAX_BYTES];
  struct peer *peer = &world.peer;
  if (len > sizeof buffer - FEC_HEADER_BYTES) {
    len = sizeof buffer - FEC_HEADER_BYTES;
  }
  memcpy(buffer + FEC_HEADER_BYTES, payload, len);
  if (peer->encoder) {
    fec_encoder_send(peer->encoder, buffer, len, world.now_ms, on_peer_datagram, peer);
  } else if (len > 0) {
    on_peer_datagram(buffer + FEC_HEADER_BYTES, len, peer);
  }
}

static void peer_segment(enum kcp_command command, uint32_t sn, unsigned window,
                         const uint8_t *bytes, size_t len) {
  uint8_t segment[KCP_SEGMENT_HEADER_BYTES + PUSH_MAX] = {0};
  write_u32(segment, CONV);
  segment[4] = (uint8_t)command;
  segment[6] = (uint8_t)window;
  write_u32(segment + 8, (uint32_t)world.now_ms);
  write_u32(segment + 12, sn);
  write_u32(segment + 16, world.start + world.sent);
  write_u32(segment + 20, (uint32_t)len);
  if (len > 0) {
    memcpy(segment + KCP_SEGMENT_HEADER_BYTES, bytes, len);
  }
  peer_send(segment, KCP_SEGMENT_HEADER_BYTES + len);
}

static void peer_speak(const uint8_t *bytes, size_t len) {
  while (len > 0) {
    struct peer *peer = &world.peer;
    struct segment *segment = &peer->sent[peer->next_sn % SENT_MAX];
    segment->len = len < PUSH_MAX ? len : PUSH_MAX;
    memcpy(segment->bytes, bytes, segment->len);
    bytes += segment->len;
    len -= segment->len;
    peer_segment(KCP_PUSH, peer->next_sn++, 200, segment->bytes, segment->len);
  }
}

static void peer_send_again(size_t most) {
  struct peer *peer = &world.peer;
  for (uint32_t sn = world.receive_next; most > 0 && sn != peer->next_sn; sn++, most--) {
    const struct segment *segment = &peer->sent[sn % SENT_MAX];
    if (peer->next_sn - sn > SENT_MAX || segment->len == 0) {
      return;
    }
    peer_segment(KCP_PUSH, sn, 200, segment->bytes, segment->len);
  }
}

static void peer_frame(enum smux_command command, unsigned stream, size_t len) {
  uint8_t frame[SMUX_HEADER_BYTES + 1024] = {SMUX_VERSION, (uint8_t)command};
  uint32_t id = 3 + stream % 8 * 2;
  frame[2] = (uint8_t)len;
  frame[3] = (uint8_t)(len >> 8);
  frame[4] = (uint8_t)id;
  memset(frame + SMUX_HEADER_BYTES, byte_of(id), len);
  peer_speak(frame, SMUX_HEADER_BYTES + len);
}

static void peer_update(unsigned stream, size_t much) {
  uint8_t frame[SMUX_HEADER_BYTES + 8] = {SMUX_VERSION, SMUX_UPD, 8};
  frame[4] = (uint8_t)(3 + stream % 8 * 2);
  frame[SMUX_HEADER_BYTES] = (uint8_t)(much * 5);
  frame[SMUX_HEADER_BYTES + 1] = (uint8_t)(much / 8);
  frame[SMUX_HEADER_BYTES + 4] = (uint8_t)much;
  frame[SMUX_HEADER_BYTES + 5] = (uint8_t)(much / 4);
  peer_speak(frame, sizeof frame);
}

// Has each segment be one of the connection, with numbers near those that matter.
static void peer_send_near(const uint8_t *from, size_t len) {
  uint8_t bytes[256];
  memcpy(bytes, from, len);
  for (size_t at = 0; len - at >= KCP_SEGMENT_HEADER_BYTES;) {
    uint8_t *header = bytes + at;
    at += KCP_SEGMENT_HEADER_BYTES;
    write_u32(header, CONV);
    header[4] = KCP_PUSH + header[4] % 4;
    write_u32(header + 8, (uint32_t)world.now_ms - header[8]);
    uint32_t near = header[4] == KCP_PUSH ? world.receive_next : world.start + world.sent;
    write_u32(header + 12, near + (uint32_t)(int8_t)header[12]);
    write_u32(header + 16, world.start + world.sent - header[16] % 64);
    uint32_t data_len = header[20] % 64;
    data_len = header[4] == KCP_PUSH && data_len == 0 ? 1 : data_len;
    data_len = data_len < len - at ? data_len : (uint32_t)(len - at);
    write_u32(header + 20, data_len);
    at += data_len;
  }
  peer_send(bytes, len);
}

static void peer_acknowledge(unsigned what, unsigned much) {
  static const unsigned windows[] = {200, 1, 0, 32};
  peer_segment(KCP_ACK, world.start + world.sent - 1 - much % 16, windows[what % 4], NULL, 0);
}

// --- Records -----------------------------------------------------------------------------------

static void flush(void) {
  world.is_dirty = false;
  note(link_flush(world.link, world.now_ms));
}

static void tick(unsigned what, size_t much) {
  static const unsigned units[] = {1, 10, 100, 0};
  int64_t due_ms = link_due(world.link, world.now_ms);
  unsigned unit = units[what % 4];
  world.now_ms += (int64_t)(unit * much);
  if (unit == 0 && due_ms != LINK_NEVER && due_ms > world.now_ms) {
    world.now_ms = due_ms;
  }
  note(link_tick(world.link, world.now_ms));
  world.is_dirty = false;
  expect(world.error != 0 || link_due(world.link, world.now_ms) > world.now_ms);
}

static void own(struct user *user, unsigned what) {
  if (!user->stream) {
    return;
  }
  switch (what % 4) {
    case 0: smux_pause(user->stream); break;
    case 1: smux_resume(user->stream); break;
    default: close_stream(user, what % 4 == 2); break;
  }
  link_touch(world.link);
}

// Returns how many of the bytes behind the record it took.
static size_t do_record(unsigned what, size_t much, const uint8_t *bytes, size_t left) {
  struct user *user = &world.users[much % STREAMS];
  unsigned which = what / ACTIONS;
  size_t len = much < left ? much : left;
  switch ((enum action)(what % ACTIONS)) {
    case RAW:
      world.peer.is_sound = false;
      input(bytes, len);
      return len;
    case NEAR:
      world.peer.is_sound = false;
      peer_send_near(bytes, len);
      return len;
    case SPEAK:
      world.peer.is_sound = false;
      peer_speak(bytes, len);
      return len;
    case OPEN: peer_frame(SMUX_SYN, which, 0); break;
    case SAY: peer_frame(SMUX_PSH, which, much); break;
    case SAY_MORE: peer_frame(SMUX_PSH, which, much * 4); break;
    case END: peer_frame(much % 2 ? SMUX_FIN : SMUX_NOP, which, 0); break;
    case UPDATE: peer_update(which, much); break;
    case SEND_AGAIN: peer_send_again(much); break;
    case ACKNOWLEDGE: peer_acknowledge(which, (unsigned)much); break;
    case FATES: world.peer.lost = (unsigned)much; break;
    case CHANGE:
      world.peer.is_sound = false;
      world.peer.change = (unsigned)(much * 256) | 1u << which % 8;
      break;
    case FLUSH:
      if (world.is_dirty || which % 2 == 0) {
        flush();
      }
      break;
    case TICK: tick(which, much); break;
    case WRITE:
      write_some(user, much * 2);
      link_touch(world.link);
      break;
    case OWNER: own(user, which); break;
    default: break;
  }
  return 0;
}

static void check(void) {
  struct link_state state;
  struct smux *smux = link_smux(world.link);
  link_describe(world.link, &state);
  expect(held <= HELD_MAX);
  expect(state.streams == smux_stream_count(smux) && state.streams <= STREAMS);
  // What came with the last segment may go over it.
  expect(smux_unread_bytes(smux) <= SESSION + FEC_DATAGRAM_MAX_BYTES);
  expect(state.kcp.in_flight <= WINDOW && state.kcp.receive_window_free <= WINDOW);
  expect(state.datagrams_in == world.datagrams_in && state.datagrams_out == world.outputs);
  expect(!link_is_settled(world.link) || state.kcp.unacked_bytes == 0);
  expect(state.malformed_in <= state.datagrams_in + state.fec.recovered);
}

// Whatever came before: with owners that take all and a peer that acknowledges, what is with KCP
// goes, and nothing is left unread, by flushes that the link asks for and nothing else.
static void come_to_rest(void) {
  struct link_state state;
  uint64_t answered = UINT64_MAX;
  world.is_greedy = true;
  world.peer.lost = 0;
  world.peer.change = 0;
  for (size_t i = 0; i < STREAMS; i++) {
    if (world.users[i].stream) {
      smux_resume(world.users[i].stream);
    }
  }
  link_touch(world.link);
  // What was held back is read without anything more of the peer.
  while (world.is_dirty && world.error == 0) {
    flush();
  }
  link_describe(world.link, &state);
  expect(world.error != 0 || state.kcp.receive_window_free == WINDOW);
  for (size_t rounds = 0; (world.is_dirty || answered != world.outputs) && world.error == 0;
       rounds++) {
    expect(rounds < ROUNDS_MAX);
    if (world.is_dirty) {
      flush();
    }
    if (answered != world.outputs) {
      answered = world.outputs;
      peer_acknowledge(0, 0);
    }
  }
  if (world.error != 0) {
    return;
  }
  link_describe(world.link, &state);
  expect(state.kcp.in_flight == 0 && state.kcp.queued == 0);
  expect(state.kcp.receive_window_free == WINDOW);
  for (size_t i = 0; i < STREAMS; i++) {
    struct smux_stream *stream = world.users[i].stream;
    expect(!stream || smux_queued_bytes(stream) == 0 || smux_send_window(stream) == 0);
  }
}

// --- The whole ---------------------------------------------------------------------------------

static void begin(unsigned code, unsigned peer_code, bool wraps, struct link_settings *settings,
                  const struct link_events *events) {
  held = 0;
  is_counting = true;
  settings->code = codes[code];
  world.data = numbers[code][0];
  world.group = numbers[code][0] + numbers[code][1];
  world.start = wraps ? 0xfffffff0 : 0;
  world.receive_next = world.start;
  world.peer.next_sn = world.start;
  world.peer.is_sound = true;
  for (size_t i = 0; i < STREAMS; i++) {
    world.users[i].world = &world;
  }
  unsigned peer_group = numbers[peer_code][0] + numbers[peer_code][1];
  if (peer_group > 0) {
    world.peer.encoder = fec_encoder_new(codes[peer_code]);
    expect(world.peer.encoder != NULL);
    fec_encoder_start_at(world.peer.encoder,
                         wraps ? UINT32_MAX / peer_group * peer_group - peer_group : 0);
  }
  world.link = link_new(CONV, settings, events, &world, 0);
  expect(world.link != NULL);
  link_start_at(world.link,
                wraps && world.group > 0 ? UINT32_MAX / world.group * world.group - world.group : 0,
                world.start, world.start);
}

static void prepare(void) {
  if (codes[1]) {
    return;
  }
  for (size_t i = 1; i < sizeof codes / sizeof codes[0]; i++) {
    codes[i] = reed_solomon_new(numbers[i][0], numbers[i][1]);
    expect(codes[i] != NULL);
  }
  expect(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  static uint8_t scratch[LINK_SCRATCH_BYTES];
  static const struct link_events events = {
      on_output, on_dirty, {on_open, on_bytes, on_ended, on_sent}};
  struct link_settings settings = {
      .kcp = {.nodelay = true,
              .interval_ms = 10,
              .resend = 2,
              .ack_nodelay = true,
              .send_window = WINDOW,
              .receive_window = WINDOW,
              .mtu = MTU},
      .smux = {.frame_bytes = FRAME,
               .stream_bytes = STREAM_WINDOW,
               .session_bytes = SESSION,
               .streams_max = STREAMS,
               .keepalive_interval_ms = KEEPALIVE_MS,
               .keepalive_timeout_ms = 3 * KEEPALIVE_MS},
      .scratch = scratch,
  };
  if (len < 2) {
    return 0;
  }
  prepare();
  memset(&world, 0, sizeof world);
  world.moods = bytes[1];
  begin(bytes[0] & 3, bytes[0] >> 2 & 3, bytes[0] & 0x80, &settings, &events);
  for (size_t at = 2; at + 1 < len && world.error == 0;) {
    at += 2 + do_record(bytes[at], bytes[at + 1], bytes + at + 2, len - at - 2);
    check();
  }
  if (world.error == 0) {
    come_to_rest();
  }
  link_free(world.link);
  fec_encoder_free(world.peer.encoder);
  is_counting = false;
  expect(held == 0);
  return 0;
}
