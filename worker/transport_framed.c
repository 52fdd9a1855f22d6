#include <stdlib.h>

#include "common/frame.h"
#include "worker/transport.h"

struct framed {
  struct transport transport;
  struct wire *wire;
  const struct transport_gone *gone;
  void *cookie;
  bool paused;
  bool closed;
};

static struct framed *of(struct transport *transport) { return (struct framed *)transport; }

static const struct framed *of_const(const struct transport *transport) {
  return (const struct framed *)transport;
}

// --- From the wire -----------------------------------------------------------------

static size_t on_bytes(uint8_t *bytes, size_t len, void *owner) {
  struct framed *framed = owner;
  const struct transport *transport = &framed->transport;
  size_t used = 0;
  while (!framed->paused && !framed->closed) {
    size_t body_len = 0;
    int found = frame_parse(bytes + used, len - used, FRAME_BODY_MAX_BYTES, &body_len);
    if (found < 0) {
      framed->paused = true;  // whatever comes behind it is no message
      wire_pause(framed->wire);
      transport->events->on_ended(CLOSE_FRAME_LENGTH, transport->owner);
      return len;
    }
    if (found == 0) {
      break;
    }
    used += FRAME_HEADER_BYTES + body_len;
    transport->events->on_message(bytes + used - body_len, body_len, transport->owner);
  }
  return used;
}

static bool is_next(const uint8_t *bytes, size_t len, void *owner) {
  const struct framed *framed = owner;
  const struct transport_events *events = framed->transport.events;
  size_t body_len;
  return events->is_next && frame_parse(bytes, len, FRAME_BODY_MAX_BYTES, &body_len) == 1 &&
         events->is_next(bytes + FRAME_HEADER_BYTES, body_len, framed->transport.owner);
}

static void on_ended(enum close_reason reason, void *owner) {
  struct framed *framed = owner;
  framed->transport.events->on_ended(reason, framed->transport.owner);
}

static void on_drained(void *owner) {
  struct framed *framed = owner;
  framed->transport.events->on_drained(framed->transport.owner);
}

static void on_gone(void *owner) {
  struct framed *framed = owner;
  const struct transport_gone *gone = framed->gone;
  void *cookie = framed->cookie;
  free(framed);
  gone->on_gone(gone->context, cookie);
}

// --- From the session --------------------------------------------------------------

static int framed_send(struct transport *transport, uint8_t *buffer, size_t len) {
  uint8_t *frame = buffer + TRANSPORT_HEADROOM_BYTES - FRAME_HEADER_BYTES;
  frame_write_header(frame, len);
  return wire_write(of(transport)->wire, frame, FRAME_HEADER_BYTES + len);
}

static size_t framed_queued_bytes(const struct transport *transport) {
  return wire_queued_bytes(of_const(transport)->wire);
}

static uint64_t framed_taken_bytes(const struct transport *transport) {
  return wire_taken_bytes(of_const(transport)->wire);
}

static void framed_pause(struct transport *transport) {
  of(transport)->paused = true;
  wire_pause(of(transport)->wire);
}

static void framed_resume(struct transport *transport) {
  of(transport)->paused = false;
  wire_resume(of(transport)->wire);
}

static void framed_close(struct transport *transport, enum close_reason reason, bool flush) {
  (void)reason;  // the last message has told it
  of(transport)->closed = true;
  wire_close(of(transport)->wire, flush);
}

static struct wire *framed_wire(const struct transport *transport) {
  return of_const(transport)->wire;
}

struct transport *transport_framed_new(wire_maker *make, void *context,
                                       const struct transport_events *events, void *owner,
                                       const struct transport_gone *gone, void *cookie) {
  static const struct wire_events wire_events = {.on_bytes = on_bytes,
                                                 .on_ended = on_ended,
                                                 .on_drained = on_drained,
                                                 .is_next = is_next,
                                                 .on_gone = on_gone};
  static const struct transport_kind kind = {.send = framed_send,
                                             .queued_bytes = framed_queued_bytes,
                                             .taken_bytes = framed_taken_bytes,
                                             .pause = framed_pause,
                                             .resume = framed_resume,
                                             .close = framed_close,
                                             .wire = framed_wire};
  struct framed *framed = calloc(1, sizeof *framed);
  if (!framed) {
    return NULL;
  }
  framed->transport = (struct transport){.kind = &kind, .events = events, .owner = owner};
  framed->gone = gone;
  framed->cookie = cookie;
  framed->wire = make(context, &wire_events, framed);
  if (!framed->wire) {
    free(framed);
    return NULL;
  }
  framed->transport.name = framed->wire->kind->name;
  return &framed->transport;
}
