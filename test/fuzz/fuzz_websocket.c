// A client over WebSocket: the upgrade, and the frames behind it. The first byte says in how
// large pieces the rest comes; with its lowest bit set, behind a sound upgrade. The last two, which
// come as well, say bit by bit behind which pieces the client takes what waits for it, and behind
// which intervals of pings are over.
#include <stdlib.h>
#include <string.h>

#include "common/trace_context.h"
#include "worker/transport.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum {
  PING = 0x89,  // how the frames begin that the gateway makes by itself
  PONG = 0x8a,
  PONG_QUEUED_MAX_BYTES = 64 << 10,
  MESSAGE_MAX_BYTES = 16384,
  ANSWER_UNIT_BYTES = 64,
};

struct memory_wire {
  struct wire wire;
  bool paused;
  bool closed;
  size_t written;
  size_t taken;
};

static int memory_write(struct wire *wire, const uint8_t *bytes, size_t len) {
  struct memory_wire *memory = (struct memory_wire *)wire;
  size_t queued = memory->written - memory->taken;
  if (memory->closed || len == 0 || !bytes) {
    abort();
  }
  // Nobody makes more wait by asking, and who is behind is not asked whether he is there.
  if ((bytes[0] == PONG && queued > PONG_QUEUED_MAX_BYTES) || (bytes[0] == PING && queued > 0)) {
    abort();
  }
  memory->written += len;
  return 0;
}
static size_t memory_queued(const struct wire *wire) {
  const struct memory_wire *memory = (const struct memory_wire *)wire;
  return memory->written - memory->taken;
}
static uint64_t memory_taken(const struct wire *wire) {
  return ((const struct memory_wire *)wire)->taken;
}
static void memory_pause(struct wire *wire) { ((struct memory_wire *)wire)->paused = true; }
static void memory_resume(struct wire *wire) { ((struct memory_wire *)wire)->paused = false; }
static void memory_close(struct wire *wire, bool flush) {
  (void)flush;
  ((struct memory_wire *)wire)->closed = true;
}

static struct wire *make_wire(void *context, const struct wire_events *events, void *owner) {
  static const struct wire_kind kind = {.write = memory_write,
                                        .queued_bytes = memory_queued,
                                        .taken_bytes = memory_taken,
                                        .pause = memory_pause,
                                        .resume = memory_resume,
                                        .close = memory_close,
                                        .cut = NULL};
  struct memory_wire *memory = context;
  memory->wire.kind = &kind;
  memory->wire.events = events;
  memory->wire.owner = owner;
  return &memory->wire;
}

static struct transport *transport;

// As a session does: it answers at some length, pauses now and then, and closes what has ended.
static void on_message(uint8_t *bytes, size_t len, void *owner) {
  static uint8_t answer[TRANSPORT_HEADROOM_BYTES + MESSAGE_MAX_BYTES];
  (void)owner;
  if (len == 0 || len > MESSAGE_MAX_BYTES) {
    abort();
  }
  for (size_t i = 0; i < len; i++) {
    bytes[i] ^= 1;  // it is writable
  }
  if (transport_send(transport, answer, (bytes[0] + 1u) * ANSWER_UNIT_BYTES) != 0) {
    abort();
  }
  if (bytes[0] % 7 == 0) {
    transport_pause(transport);
  }
}
static void on_ended(enum close_reason reason, void *owner) {
  (void)owner;
  transport_close(transport, reason, false);
}
// As the worker takes it.
static void on_trace_context(const char *parent, size_t parent_len, const char *state,
                             size_t state_len, void *owner) {
  struct trace_context context;
  (void)owner;
  if (trace_context_parse(parent, parent_len, &context) == 0) {
    (void)trace_state_is_sound(state, state_len);
  }
}

static void on_drained(void *owner) { (void)owner; }
static void on_gone(void *context, void *cookie) {
  (void)context;
  (void)cookie;
}

static void take_if(struct memory_wire *memory, bool takes) {
  if (takes && !memory->closed) {
    memory->taken = memory->written;
    memory->wire.events->on_drained(memory->wire.owner);
  }
}

static bool is_set(uint8_t bits, size_t number) { return bits >> number % 8 & 1; }

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  static const struct timeval at_once = {0};
  static const struct transport_events events = {.on_message = on_message,
                                                 .on_ended = on_ended,
                                                 .on_drained = on_drained,
                                                 .on_trace_context = on_trace_context};
  static const struct transport_gone gone = {on_gone, NULL};
  static const struct websocket_rules rules = {
      .path = "/ws", .origins = "https://a.example,https://b.example", .subprotocols = "one,two"};
  static const char upgrade[] =
      "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
  static struct event_base *base;
  static struct websocket_shared *websockets;
  static uint8_t buffer[WIRE_READ_BUFFER_BYTES];
  if (!base) {
    base = event_base_new();
    websockets = websocket_shared_new();
  }
  if (len == 0 || len > 20000) {
    return 0;
  }
  struct wire_shared shared = {.base = base};
  struct memory_wire memory = {.wire = {.shared = &shared}};
  const struct websocket_options options = {
      .shared = websockets, .rules = &rules, .ping_interval = &at_once};
  uint8_t times = bytes[len - 1];
  uint8_t takes = len > 1 ? bytes[len - 2] : 0;
  size_t step = bytes[0] / 2u + 1;
  bool behind_upgrade = bytes[0] & 1;
  size_t room = behind_upgrade ? sizeof upgrade - 1 : 0;
  bytes++;
  len--;
  uint8_t *input = malloc(room + len + 1);
  memcpy(input, upgrade, room);
  memcpy(input + room, bytes, len);
  len += room;
  transport = transport_websocket_new(make_wire, &memory, &options, &events, NULL, &gone, NULL);
  size_t kept = 0;
  for (size_t at = 0; at < len && !memory.closed; at += step) {
    size_t piece = len - at < step ? len - at : step;
    memcpy(buffer + kept, input + at, piece);
    kept += piece;
    size_t used = memory.wire.events->on_bytes(buffer, kept, memory.wire.owner);
    if (used > kept) {
      abort();
    }
    memmove(buffer, buffer + used, kept - used);
    kept -= used;
    if (!memory.closed && !memory.paused && kept > WIRE_UNUSED_MAX_BYTES) {
      abort();
    }
    // One interval is not enough for a ping, nor are two for being told that there is no answer.
    size_t intervals = is_set(times, at / step) ? at / step % 3 + 1 : 0;
    take_if(&memory, is_set(takes, at / step));
    for (size_t i = 0; i < intervals && !memory.closed; i++) {
      event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
      take_if(&memory, is_set(takes, at / step));
    }
    if (memory.paused && !memory.closed) {
      transport_resume(transport);
    }
  }
  if (!memory.closed) {
    transport_close(transport, CLOSE_DRAIN, true);
  }
  memory.wire.events->on_gone(memory.wire.owner);
  free(input);
  return 0;
}
