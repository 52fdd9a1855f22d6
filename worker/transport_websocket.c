#include <event2/event_struct.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>

#include "common/clock.h"
#include "common/frame.h"
#include "worker/limits.h"
#include "worker/transport.h"

enum {
  MESSAGE_MAX_BYTES = FRAME_HEADER_BYTES + FRAME_BODY_MAX_BYTES,
  CONTROL_MAX_BYTES = 125,
  FRAME_HEADER_MAX_BYTES = 14,
  // Frames that bring no message on, or hardly: control frames, and tiny pieces. Over it, it is
  // a flood.
  IDLE_FRAMES_PER_S = 20,
  IDLE_FRAMES_BURST = 100,
  TINY_PIECE_BYTES = 64,
  // A client that takes so much within a ping's interval is there: its answer has to wait until
  // the ping has come to it.
  PROGRESS_BYTES = 1024,
  // A ping is answered while no more than this waits for the client.
  PONG_QUEUED_MAX_BYTES = 64 << 10,
  CODE_DATA = 1007,  // of a close frame: it does not fit its kind
};
_Static_assert(TRANSPORT_HEADROOM_BYTES >= FRAME_HEADER_BYTES + FRAME_HEADER_MAX_BYTES - 4,
               "room for the length and for a frame's header, which is not masked");
_Static_assert((int)WEBSOCKET_REQUEST_MAX_BYTES < (int)WIRE_UNUSED_MAX_BYTES, "it fits the wire");
_Static_assert((int)MESSAGE_MAX_BYTES + FRAME_HEADER_MAX_BYTES < (int)WIRE_UNUSED_MAX_BYTES,
               "and so does a frame");

// wslay is handed one whole frame at a time, so that one context serves all clients, and a
// client owns memory only while a message of it is in pieces.
struct websocket_shared {
  wslay_frame_context_ptr frames;
  const uint8_t *in;  // what is left of the frame being read
  size_t in_len;
  uint8_t header[FRAME_HEADER_MAX_BYTES];  // of the one being written
  size_t header_len;
};

enum websocket_state {
  WEBSOCKET_UPGRADE,
  WEBSOCKET_OPEN,
  WEBSOCKET_SPOKEN,  // our last word, a close frame or a refusal, is on its way
  WEBSOCKET_BROKEN,  // nobody would hear one
};

struct websocket {
  struct transport transport;
  struct wire *wire;
  const struct websocket_options *options;
  const struct transport_gone *gone;
  void *cookie;
  enum websocket_state state;
  bool paused;
  bool released;    // by the session
  uint16_t code;    // of our close frame, where the reason alone does not tell it
  uint8_t *pieces;  // of a message that is not whole yet
  size_t pieces_len;
  bool in_pieces;
  bool heard;            // since the timer fired last
  bool pinged;           // and not heard since
  uint64_t taken_bytes;  // by the client, when the timer fired last
  struct token_bucket idle_frames;
  struct event timer;
};

static struct websocket *of(struct transport *transport) { return (struct websocket *)transport; }

static const struct websocket *of_const(const struct transport *transport) {
  return (const struct websocket *)transport;
}

// --- wslay ---------------------------------------------------------------------------

static ssize_t on_wanted(uint8_t *buffer, size_t len, int flags, void *owner) {
  struct websocket_shared *shared = owner;
  size_t given = len < shared->in_len ? len : shared->in_len;
  (void)flags;
  if (given == 0) {
    return -1;
  }
  memcpy(buffer, shared->in, given);
  shared->in += given;
  shared->in_len -= given;
  return (ssize_t)given;
}

// The header comes first; the payload needs no more than to stay where it is.
static ssize_t on_written(const uint8_t *bytes, size_t len, int flags, void *owner) {
  struct websocket_shared *shared = owner;
  (void)flags;
  if (shared->header_len == 0 && len <= sizeof shared->header) {
    memcpy(shared->header, bytes, len);
    shared->header_len = len;
  }
  return (ssize_t)len;
}

// Makes a new context, also in place of one that is in the middle of something.
static int make_context(struct websocket_shared *shared) {
  static const struct wslay_frame_callbacks callbacks = {.send_callback = on_written,
                                                         .recv_callback = on_wanted};
  if (shared->frames) {
    wslay_frame_context_free(shared->frames);
  }
  shared->frames = NULL;
  return wslay_frame_context_init(&shared->frames, &callbacks, shared);
}

struct websocket_shared *websocket_shared_new(void) {
  struct websocket_shared *shared = calloc(1, sizeof *shared);
  if (shared && make_context(shared) != 0) {
    free(shared);
    return NULL;
  }
  return shared;
}

void websocket_shared_free(struct websocket_shared *shared) {
  if (shared) {
    if (shared->frames) {
      wslay_frame_context_free(shared->frames);
    }
    free(shared);
  }
}

// How long the frame at the start of bytes is, and its payload; 0: its header is not whole.
static uint64_t frame_bytes(const uint8_t *bytes, size_t len, uint64_t *payload_len) {
  size_t extended = len < 2 ? 0 : (bytes[1] & 0x7f) == 126 ? 2 : (bytes[1] & 0x7f) == 127 ? 8 : 0;
  size_t header = 2 + extended + (len >= 2 && bytes[1] & 0x80 ? 4 : 0);
  if (len < header) {
    return 0;
  }
  *payload_len = extended == 0 ? bytes[1] & 0x7f : 0;
  for (size_t i = 0; i < extended; i++) {
    *payload_len = *payload_len << 8 | bytes[2 + i];
  }
  return *payload_len > MESSAGE_MAX_BYTES ? UINT64_MAX : header + *payload_len;
}

// Reads the one frame that bytes are; its payload, unmasked, stands at *payload then, in bytes.
// False: it is no frame.
static bool read_frame(struct websocket_shared *shared, uint8_t *bytes, size_t len,
                       struct wslay_frame_iocb *frame, size_t payload_len, uint8_t **payload) {
  size_t got = 0;
  uint8_t *to = bytes + len - payload_len;
  shared->in = bytes;
  shared->in_len = len;
  *payload = to;
  do {
    ssize_t n = shared->frames ? wslay_frame_recv(shared->frames, frame) : -1;
    if (n < 0) {
      (void)!make_context(shared);  // without memory, none is sent or read any more
      return false;
    }
    memmove(to + got, frame->data, (size_t)n);
    got += (size_t)n;
  } while (got < payload_len);
  return true;
}

// Sends payload, which stands behind room for a header.
static int send_frame(struct websocket *websocket, enum wslay_opcode opcode, uint8_t *payload,
                      size_t len) {
  struct websocket_shared *shared = websocket->options->shared;
  struct wslay_frame_iocb frame = {.fin = 1,
                                   .opcode = (uint8_t)opcode,
                                   .payload_length = len,
                                   .data = payload,
                                   .data_length = len};
  shared->header_len = 0;
  if (!shared->frames || wslay_frame_send(shared->frames, &frame) != (ssize_t)len) {
    return ERROR_MEMORY;
  }
  memcpy(payload - shared->header_len, shared->header, shared->header_len);
  return wire_write(websocket->wire, payload - shared->header_len, shared->header_len + len);
}

static void send_control(struct websocket *websocket, enum wslay_opcode opcode,
                         const uint8_t *payload, size_t len) {
  uint8_t buffer[FRAME_HEADER_MAX_BYTES + CONTROL_MAX_BYTES];
  if (len > 0) {
    memcpy(buffer + FRAME_HEADER_MAX_BYTES, payload, len);
  }
  // Without memory it is lost; the next message finds that out too.
  (void)!send_frame(websocket, opcode, buffer + FRAME_HEADER_MAX_BYTES, len);
}

static void send_close(struct websocket *websocket, uint16_t code, const char *text) {
  char payload[CONTROL_MAX_BYTES] = {(char)(code >> 8), (char)code};
  int text_len = snprintf(payload + 2, sizeof payload - 2, "%s", text);
  send_control(websocket, WSLAY_CONNECTION_CLOSE, (const uint8_t *)payload, 2 + (size_t)text_len);
  websocket->state = WEBSOCKET_SPOKEN;
}

// --- From the wire -----------------------------------------------------------------

// Nothing more is read; the session closes it.
static void end(struct websocket *websocket, enum close_reason reason, uint16_t code) {
  websocket->code = code;
  websocket->paused = true;
  wire_pause(websocket->wire);
  websocket->transport.events->on_ended(reason, websocket->transport.owner);
}

static void take_message(struct websocket *websocket, uint8_t *bytes, size_t len) {
  size_t body_len = 0;
  if (frame_parse(bytes, len, FRAME_BODY_MAX_BYTES, &body_len) != 1 ||
      len != FRAME_HEADER_BYTES + body_len) {
    end(websocket, CLOSE_FRAME_LENGTH, CODE_DATA);
    return;
  }
  websocket->transport.events->on_message(bytes + FRAME_HEADER_BYTES, body_len,
                                          websocket->transport.owner);
}

static void forget_pieces(struct websocket *websocket) {
  free(websocket->pieces);
  websocket->pieces = NULL;
  websocket->pieces_len = 0;
  websocket->in_pieces = false;
}

static void take_piece(struct websocket *websocket, const uint8_t *payload, size_t len,
                       bool is_last) {
  if (websocket->pieces_len + len > MESSAGE_MAX_BYTES) {
    end(websocket, CLOSE_FRAME_LENGTH, 0);
    return;
  }
  if (len > 0) {
    uint8_t *pieces = realloc(websocket->pieces, websocket->pieces_len + len);
    if (!pieces) {
      end(websocket, CLOSE_OUT_OF_MEMORY, 0);
      return;
    }
    memcpy(pieces + websocket->pieces_len, payload, len);
    websocket->pieces = pieces;
    websocket->pieces_len += len;
  }
  websocket->in_pieces = true;
  if (is_last) {
    uint8_t *message = websocket->pieces;
    size_t message_len = websocket->pieces_len;
    websocket->pieces = NULL;
    forget_pieces(websocket);
    take_message(websocket, message, message_len);
    free(message);
  }
}

static bool is_utf8(const uint8_t *text, size_t len) {
  json_t *string = json_stringn((const char *)text, len);
  json_decref(string);
  return string != NULL;
}

// Of those that may stand in a frame (RFC 6455, section 7.4).
static bool is_close_code(unsigned code) {
  return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
         (code >= 3000 && code <= 4999);
}

// The client's close frame: it is answered with its own code.
static void take_close(struct websocket *websocket, const uint8_t *payload, size_t len) {
  unsigned code = len >= 2 ? (unsigned)payload[0] << 8 | payload[1] : 0;
  if (len == 1 || (len >= 2 && !is_close_code(code))) {
    end(websocket, CLOSE_WEBSOCKET_PROTOCOL, 0);
  } else if (len > 2 && !is_utf8(payload + 2, len - 2)) {
    end(websocket, CLOSE_WEBSOCKET_PROTOCOL, CODE_DATA);
  } else {
    send_control(websocket, WSLAY_CONNECTION_CLOSE, payload, len >= 2 ? 2 : 0);
    websocket->state = WEBSOCKET_SPOKEN;
    end(websocket, CLOSE_CLIENT_CLOSED, 0);
  }
}

static void take_frame(struct websocket *websocket, const struct wslay_frame_iocb *frame,
                       uint8_t *payload, size_t len) {
  bool is_whole = frame->opcode == WSLAY_BINARY_FRAME && frame->fin;
  bool is_idle = frame->opcode == WSLAY_BINARY_FRAME || frame->opcode == WSLAY_CONTINUATION_FRAME
                     ? !frame->fin && len < TINY_PIECE_BYTES
                     : true;
  // Masked, and without extensions, since none was agreed on.
  if (!frame->mask || frame->rsv != 0) {
    end(websocket, CLOSE_WEBSOCKET_PROTOCOL, 0);
    return;
  }
  if (is_idle && !token_bucket_take(&websocket->idle_frames, 1, clock_monotonic_ms())) {
    end(websocket, CLOSE_WEBSOCKET_FLOOD, 0);
    return;
  }
  switch (frame->opcode) {
    case WSLAY_BINARY_FRAME:
    case WSLAY_CONTINUATION_FRAME:
      if (websocket->in_pieces != (frame->opcode == WSLAY_CONTINUATION_FRAME)) {
        end(websocket, CLOSE_WEBSOCKET_PROTOCOL, 0);
      } else if (is_whole) {
        take_message(websocket, payload, len);
      } else {
        take_piece(websocket, payload, len, frame->fin);
      }
      return;
    case WSLAY_TEXT_FRAME: end(websocket, CLOSE_WEBSOCKET_TEXT, 0); return;
    case WSLAY_PING:
      if (wire_queued_bytes(websocket->wire) <= PONG_QUEUED_MAX_BYTES) {
        send_control(websocket, WSLAY_PONG, payload, len);
      }
      return;
    case WSLAY_PONG: return;  // all that comes shows that it is there
    case WSLAY_CONNECTION_CLOSE: take_close(websocket, payload, len); return;
    default: end(websocket, CLOSE_WEBSOCKET_PROTOCOL, 0); return;
  }
}

// Returns how many bytes were used.
static size_t take_upgrade(struct websocket *websocket, const uint8_t *bytes, size_t len) {
  struct websocket_answer answer;
  size_t used = websocket_upgrade(websocket->options->rules, bytes, len, &answer);
  if (used == 0) {
    return 0;
  }
  if (wire_write(websocket->wire, (const uint8_t *)answer.text, answer.len) != 0) {
    end(websocket, CLOSE_OUT_OF_MEMORY, 0);
    return len;
  }
  if (answer.status != 101) {
    websocket->state = WEBSOCKET_SPOKEN;
    end(websocket, CLOSE_WEBSOCKET_UPGRADE, 0);
    return len;
  }
  websocket->state = WEBSOCKET_OPEN;
  const struct transport_events *events = websocket->transport.events;
  if (events->on_trace_context) {
    events->on_trace_context(answer.traceparent, answer.traceparent_len, answer.tracestate,
                             answer.tracestate_len, websocket->transport.owner);
  }
  if (websocket->options->ping_interval) {
    event_add(&websocket->timer, websocket->options->ping_interval);
  }
  return used;
}

static size_t on_bytes(uint8_t *bytes, size_t len, void *owner) {
  struct websocket *websocket = owner;
  size_t used = 0;
  websocket->heard = true;
  websocket->pinged = false;
  if (websocket->state == WEBSOCKET_UPGRADE) {
    used = take_upgrade(websocket, bytes, len);
  }
  while (websocket->state == WEBSOCKET_OPEN && !websocket->paused && !websocket->released) {
    struct wslay_frame_iocb frame = {.opcode = 0};
    uint64_t payload_len = 0;
    uint8_t *payload;
    uint64_t frame_len = frame_bytes(bytes + used, len - used, &payload_len);
    if (frame_len == UINT64_MAX) {
      end(websocket, CLOSE_FRAME_LENGTH, 0);
      return len;
    }
    if (frame_len == 0 || frame_len > len - used) {
      break;
    }
    bool is_frame = read_frame(websocket->options->shared, bytes + used, (size_t)frame_len, &frame,
                               (size_t)payload_len, &payload);
    used += (size_t)frame_len;
    if (!is_frame) {
      end(websocket, CLOSE_WEBSOCKET_PROTOCOL, 0);
      return len;
    }
    take_frame(websocket, &frame, payload, (size_t)payload_len);
  }
  return used;
}

static void on_ended(enum close_reason reason, void *owner) {
  struct websocket *websocket = owner;
  websocket->state = WEBSOCKET_BROKEN;
  websocket->transport.events->on_ended(reason, websocket->transport.owner);
}

static void on_drained(void *owner) {
  struct websocket *websocket = owner;
  websocket->transport.events->on_drained(websocket->transport.owner);
}

static void on_gone(void *owner) {
  struct websocket *websocket = owner;
  const struct transport_gone *gone = websocket->gone;
  void *cookie = websocket->cookie;
  event_del(&websocket->timer);
  forget_pieces(websocket);
  free(websocket);
  gone->on_gone(gone->context, cookie);
}

// --- Time ----------------------------------------------------------------------------

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  struct websocket *websocket = owner;
  uint64_t taken_bytes = wire_taken_bytes(websocket->wire);
  bool is_behind = wire_queued_bytes(websocket->wire) > 0 ||
                   taken_bytes - websocket->taken_bytes > PROGRESS_BYTES;
  (void)fd;
  (void)what;
  websocket->taken_bytes = taken_bytes;
  // One that is behind is judged by the rules for slow clients.
  if (websocket->pinged && !websocket->paused && !is_behind) {
    end(websocket, CLOSE_PING_TIMEOUT, 0);
    return;
  }
  if (!websocket->heard && !websocket->pinged && !is_behind) {
    send_control(websocket, WSLAY_PING, NULL, 0);
    websocket->pinged = true;
  }
  websocket->heard = false;
  event_add(&websocket->timer, websocket->options->ping_interval);
}

// --- From the session --------------------------------------------------------------

static int websocket_send(struct transport *transport, uint8_t *buffer, size_t len) {
  uint8_t *message = buffer + TRANSPORT_HEADROOM_BYTES - FRAME_HEADER_BYTES;
  frame_write_header(message, len);
  return send_frame(of(transport), WSLAY_BINARY_FRAME, message, FRAME_HEADER_BYTES + len);
}

static size_t websocket_queued_bytes(const struct transport *transport) {
  return wire_queued_bytes(of_const(transport)->wire);
}

static uint64_t websocket_taken_bytes(const struct transport *transport) {
  return wire_taken_bytes(of_const(transport)->wire);
}

static void websocket_pause(struct transport *transport) {
  of(transport)->paused = true;
  wire_pause(of(transport)->wire);
}

static void websocket_resume(struct transport *transport) {
  of(transport)->paused = false;
  of(transport)->pinged = false;  // its answer may not have been read
  wire_resume(of(transport)->wire);
}

static void websocket_close(struct transport *transport, enum close_reason reason, bool flush) {
  struct websocket *websocket = of(transport);
  websocket->released = true;
  event_del(&websocket->timer);
  if (websocket->state == WEBSOCKET_OPEN) {
    uint16_t code = websocket->code ? websocket->code : close_reason_websocket_code(reason);
    send_close(websocket, code, close_reason_name(reason));
  }
  wire_close(websocket->wire, flush || websocket->state == WEBSOCKET_SPOKEN);
}

static struct wire *websocket_wire(const struct transport *transport) {
  return ((const struct websocket *)transport)->wire;
}

struct transport *transport_websocket_new(wire_maker *make, void *context,
                                          const struct websocket_options *options,
                                          const struct transport_events *events, void *owner,
                                          const struct transport_gone *gone, void *cookie) {
  static const struct wire_events wire_events = {
      .on_bytes = on_bytes, .on_ended = on_ended, .on_drained = on_drained, .on_gone = on_gone};
  static const struct transport_kind kind = {.send = websocket_send,
                                             .queued_bytes = websocket_queued_bytes,
                                             .taken_bytes = websocket_taken_bytes,
                                             .pause = websocket_pause,
                                             .resume = websocket_resume,
                                             .close = websocket_close,
                                             .wire = websocket_wire};
  struct websocket *websocket = calloc(1, sizeof *websocket);
  if (!websocket) {
    return NULL;
  }
  websocket->transport =
      (struct transport){.kind = &kind, .name = "ws", .events = events, .owner = owner};
  websocket->options = options;
  websocket->gone = gone;
  websocket->cookie = cookie;
  token_bucket_init(&websocket->idle_frames, IDLE_FRAMES_PER_S, IDLE_FRAMES_BURST,
                    clock_monotonic_ms());
  websocket->wire = make(context, &wire_events, websocket);
  if (!websocket->wire) {
    free(websocket);
    return NULL;
  }
  evtimer_assign(&websocket->timer, websocket->wire->shared->base, on_timer, websocket);
  return &websocket->transport;
}
