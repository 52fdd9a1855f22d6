#include "common/kcp/smux.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/kcp/little_endian.h"
#include "common/prefetch.h"

enum {
  UPDATE_BYTES = 8,    // behind the header of an UPD: used 4, window 4
  REFUSALS_MAX = 64,   // streams refused whose FIN the carrier has not taken yet
  BUFFER_STEP = 256,   // what a buffer begins with
  FIRST_STREAM_ID = 3  // of a client; the counter is raised before its first use
};

// Bytes that wait, in one piece. Empty, it owns no memory.
struct buffer {
  uint8_t *bytes;
  size_t start;
  size_t len;
  size_t capacity;
};

struct smux_stream {
  TAILQ_ENTRY(smux_stream) all;
  TAILQ_ENTRY(smux_stream) control;  // while has_control
  TAILQ_ENTRY(smux_stream) ready;    // while is_ready
  struct smux *smux;
  void *owner;
  struct buffer kept;     // from the peer, and not used
  struct buffer waiting;  // for the carrier
  uint64_t sent;          // bytes of payload
  uint32_t id;
  uint32_t used;         // by us, of what the peer sent
  uint32_t told_used;    // in our last UPD
  uint32_t peer_used;    // in the peer's last UPD,
  uint32_t peer_window;  // and its window
  unsigned holders;      // functions that still need the memory
  bool has_told : 1;     // an UPD was sent
  bool has_control : 1;  // a SYN or an UPD is to be sent
  bool wants_syn : 1;
  bool wants_update : 1;
  bool is_ready : 1;  // a frame of it could go now
  bool is_paused : 1;
  bool is_offering : 1;   // on_bytes is being called,
  bool was_resumed : 1;   // and has ended a pause
  bool has_ended : 1;     // the peer's FIN is here,
  bool has_told_end : 1;  // and on_ended was called
  bool is_closed : 1;     // by us: only its FIN, and perhaps what waits, are still to go
  bool is_forgotten : 1;  // its last holder frees it
};

TAILQ_HEAD(stream_list, smux_stream);

struct smux {
  const struct smux_settings *settings;
  const struct smux_carrier *carrier;
  const struct smux_events *events;
  void *owner;
  struct stream_list streams;
  struct stream_list control;
  struct stream_list ready;
  size_t count;
  size_t unread;
  struct smux_stream *last_found;
  // The frame that is coming in.
  struct smux_stream *receiving;  // whose payload it is; NULL: nobody's
  uint32_t payload_left;
  uint8_t head[SMUX_HEADER_BYTES + UPDATE_BYTES];
  uint8_t head_len;
  bool is_held;        // so that nothing is taken in,
  struct buffer rest;  // and this waits
  bool was_heard;      // since the last check
  bool wants_nop;
  bool heard_nop;    // in the input at hand
  bool is_broken;    // half a frame has gone to the carrier
  uint8_t refusals;  // in use
  uint32_t *refused;
  uint32_t next_id;
  int64_t nop_due_ms;
  int64_t check_due_ms;
};

// --- Buffers ---------------------------------------------------------------------------------

static int buffer_append(struct buffer *buffer, const uint8_t *bytes, size_t len) {
  size_t needed = buffer->len + len;
  if (buffer->start > 0 && buffer->start + needed > buffer->capacity &&
      buffer->start >= buffer->len) {
    memcpy(buffer->bytes, buffer->bytes + buffer->start, buffer->len);
    buffer->start = 0;
  }
  if (buffer->start + needed > buffer->capacity) {
    size_t capacity = buffer->capacity * 2 > BUFFER_STEP ? buffer->capacity * 2 : BUFFER_STEP;
    while (capacity < buffer->start + needed) {
      capacity *= 2;
    }
    uint8_t *larger = realloc(buffer->bytes, capacity);
    if (!larger) {
      return ERROR_MEMORY;
    }
    buffer->bytes = larger;
    buffer->capacity = capacity;
  }
  memcpy(buffer->bytes + buffer->start + buffer->len, bytes, len);
  buffer->len = needed;
  return 0;
}

static void buffer_take(struct buffer *buffer, size_t len) {
  buffer->start += len;
  buffer->len -= len;
  if (buffer->len == 0) {
    free(buffer->bytes);
    memset(buffer, 0, sizeof *buffer);
  }
}

// --- Streams ---------------------------------------------------------------------------------

static struct smux_stream *find(struct smux *smux, uint32_t id) {
  struct smux_stream *stream = smux->last_found;
  if (stream && stream->id == id) {
    return stream;
  }
  TAILQ_FOREACH(stream, &smux->streams, all) {
    if (stream->id == id) {
      smux->last_found = stream;
      return stream;
    }
  }
  return NULL;
}

static struct smux_stream *stream_new(struct smux *smux, uint32_t id, void *owner) {
  struct smux_stream *stream = calloc(1, sizeof *stream);
  if (stream) {
    stream->smux = smux;
    stream->owner = owner;
    stream->id = id;
    stream->peer_window = SMUX_FIRST_PEER_WINDOW;
    TAILQ_INSERT_TAIL(&smux->streams, stream, all);
    smux->count++;
  }
  return stream;
}

static void stream_free(struct smux_stream *stream) {
  free(stream->kept.bytes);
  free(stream->waiting.bytes);
  free(stream);
}

static void hold(struct smux_stream *stream) { stream->holders++; }

static void let_go(struct smux_stream *stream) {
  if (--stream->holders == 0 && stream->is_forgotten) {
    stream_free(stream);
  }
}

static void unready(struct smux_stream *stream) {
  if (stream->is_ready) {
    stream->is_ready = false;
    TAILQ_REMOVE(&stream->smux->ready, stream, ready);
  }
}

static void drop_control(struct smux_stream *stream) {
  stream->wants_syn = false;
  stream->wants_update = false;
  if (stream->has_control) {
    stream->has_control = false;
    TAILQ_REMOVE(&stream->smux->control, stream, control);
  }
}

// It was closed, so that nothing comes in for it any more.
static void forget(struct smux_stream *stream) {
  struct smux *smux = stream->smux;
  unready(stream);
  drop_control(stream);
  TAILQ_REMOVE(&smux->streams, stream, all);
  smux->count--;
  smux->unread -= stream->kept.len;
  if (smux->last_found == stream) {
    smux->last_found = NULL;
  }
  stream->is_forgotten = true;
  hold(stream);
  let_go(stream);
}

static int keep(struct smux_stream *stream, const uint8_t *bytes, size_t len) {
  int error = buffer_append(&stream->kept, bytes, len);
  if (!error) {
    stream->smux->unread += len;
  }
  return error;
}

static void unkeep(struct smux_stream *stream, size_t len) {
  stream->smux->unread -= len;
  buffer_take(&stream->kept, len);
}

uint32_t smux_send_window(const struct smux_stream *stream) {
  int32_t under_way = (int32_t)((uint32_t)stream->sent - stream->peer_used);
  // Below zero the peer claims more than it was sent: nothing goes until it thinks better.
  if (under_way < 0 || stream->has_ended || stream->peer_window <= (uint32_t)under_way) {
    return 0;
  }
  return stream->peer_window - (uint32_t)under_way;
}

static void update_ready(struct smux_stream *stream) {
  bool is_ready = stream->waiting.len > 0 ? smux_send_window(stream) > 0 : (bool)stream->is_closed;
  if (!is_ready) {
    unready(stream);
  } else if (!stream->is_ready) {
    stream->is_ready = true;
    TAILQ_INSERT_TAIL(&stream->smux->ready, stream, ready);
  }
}

static void give_up_waiting(struct smux_stream *stream) {
  buffer_take(&stream->waiting, stream->waiting.len);
  update_ready(stream);
}

// --- Frames out ------------------------------------------------------------------------------

static void put_header(uint8_t *out, enum smux_command command, size_t len, uint32_t id) {
  out[0] = SMUX_VERSION;
  out[1] = (uint8_t)command;
  put_u16(out + 2, (uint16_t)len);
  put_u32(out + 4, id);
}

static bool takes_more(const struct smux *smux) { return smux->carrier->takes_more(smux->owner); }

static int write_bare(struct smux *smux, enum smux_command command, uint32_t id) {
  uint8_t frame[SMUX_HEADER_BYTES];
  put_header(frame, command, 0, id);
  return smux->carrier->write(frame, sizeof frame, smux->owner);
}

static int write_update(struct smux_stream *stream) {
  struct smux *smux = stream->smux;
  uint8_t frame[SMUX_HEADER_BYTES + UPDATE_BYTES];
  put_header(frame, SMUX_UPD, UPDATE_BYTES, stream->id);
  put_u32(frame + SMUX_HEADER_BYTES, stream->used);
  put_u32(frame + SMUX_HEADER_BYTES + 4, smux->settings->stream_bytes);
  int error = smux->carrier->write(frame, sizeof frame, smux->owner);
  if (!error) {
    stream->told_used = stream->used;
    stream->has_told = true;
  }
  return error;
}

static int write_data(struct smux_stream *stream, const uint8_t *bytes, size_t len) {
  struct smux *smux = stream->smux;
  uint8_t header[SMUX_HEADER_BYTES];
  put_header(header, SMUX_PSH, len, stream->id);
  int error = smux->carrier->write(header, sizeof header, smux->owner);
  if (error) {
    return error;
  }
  error = smux->carrier->write(bytes, len, smux->owner);
  if (error) {
    smux->is_broken = true;
    return error;
  }
  stream->sent += len;
  return 0;
}

static int send_control_of(struct smux_stream *stream) {
  int error = 0;
  if (stream->wants_syn) {
    error = write_bare(stream->smux, SMUX_SYN, stream->id);
    stream->wants_syn = error != 0;
  }
  if (!error && stream->wants_update) {
    error = write_update(stream);
  }
  if (!error) {
    drop_control(stream);
  }
  return error;
}

// Calls no event.
static int send_control(struct smux *smux) {
  int error = smux->is_broken ? ERROR_MEMORY : 0;
  struct smux_stream *stream;
  if (!error && smux->wants_nop && takes_more(smux)) {
    error = write_bare(smux, SMUX_NOP, 0);
    smux->wants_nop = error != 0;
  }
  while (!error && (stream = TAILQ_FIRST(&smux->control)) && takes_more(smux)) {
    error = send_control_of(stream);
  }
  while (!error && smux->refusals > 0 && takes_more(smux)) {
    error = write_bare(smux, SMUX_FIN, smux->refused[0]);
    if (!error) {
      smux->refusals--;
      memmove(smux->refused, smux->refused + 1, smux->refusals * sizeof *smux->refused);
    }
  }
  return error;
}

// A SYN or an UPD: it goes now if the carrier takes it, else before all data. Out of memory: it
// waits for smux_pump, which tells.
static void want_control(struct smux_stream *stream) {
  if (!stream->has_control) {
    stream->has_control = true;
    TAILQ_INSERT_TAIL(&stream->smux->control, stream, control);
  }
  (void)send_control(stream->smux);
}

// Sends a frame of a stream that is ready, which goes behind the others that are. Calls no event;
// a stream whose FIN this was is forgotten.
static int serve(struct smux_stream *stream) {
  struct smux *smux = stream->smux;
  if (stream->waiting.len == 0) {
    int error = write_bare(smux, SMUX_FIN, stream->id);
    if (!error) {
      forget(stream);
    }
    return error;
  }
  size_t len = stream->waiting.len;
  size_t window = smux_send_window(stream);
  len = len < window ? len : window;
  len = len < smux->settings->frame_bytes ? len : smux->settings->frame_bytes;
  int error = write_data(stream, stream->waiting.bytes + stream->waiting.start, len);
  if (!error) {
    unready(stream);
    buffer_take(&stream->waiting, len);
    update_ready(stream);
  }
  return error;
}

// Whether a frame of any stream may go past smux_pump without overtaking anything.
static bool is_free(const struct smux *smux) { return !smux_has_output(smux) && takes_more(smux); }

// What the carrier takes of a stream when no other waits.
static int drain(struct smux_stream *stream) {
  struct smux *smux = stream->smux;
  int error = 0;
  hold(stream);
  while (!error && stream->is_ready && takes_more(smux)) {
    error = serve(stream);
  }
  let_go(stream);
  return error;
}

bool smux_has_output(const struct smux *smux) {
  return smux->is_broken || smux->wants_nop || smux->refusals > 0 || !TAILQ_EMPTY(&smux->control) ||
         !TAILQ_EMPTY(&smux->ready);
}

bool smux_is_drained(const struct smux *smux) {
  const struct smux_stream *stream;
  TAILQ_FOREACH(stream, &smux->streams, all) {
    if (stream->waiting.len > 0) {
      return false;
    }
  }
  return !smux_has_output(smux);
}

int smux_pump(struct smux *smux) {
  struct smux_stream *stream;
  int error = send_control(smux);
  while (!error && TAILQ_EMPTY(&smux->control) && (stream = TAILQ_FIRST(&smux->ready)) &&
         takes_more(smux)) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what is forgotten has left the list
    uint64_t sent = stream->sent;
    hold(stream);
    error = serve(stream);
    if (!error && !stream->is_closed && stream->sent != sent) {
      smux->events->on_sent(stream->owner);
    }
    let_go(stream);
  }
  return error;
}

// --- Frames in -------------------------------------------------------------------------------

static void note_used(struct smux_stream *stream, size_t used) {
  stream->used += (uint32_t)used;
  if (used == 0 || stream->is_closed || stream->has_ended) {
    return;
  }
  if (!stream->has_told ||
      stream->used - stream->told_used >= stream->smux->settings->stream_bytes / 2) {
    stream->wants_update = true;
    want_control(stream);
  }
}

// Returns how many bytes were used. The stream may be closed then; the caller holds it.
static size_t offer(struct smux_stream *stream, uint8_t *bytes, size_t len) {
  size_t used = 0;
  stream->is_offering = true;
  do {
    stream->was_resumed = false;
    used += stream->smux->events->on_bytes(bytes + used, len - used, stream->owner);
  } while (stream->was_resumed && !stream->is_paused && !stream->is_closed && used < len);
  stream->is_offering = false;
  note_used(stream, used);
  return used;
}

static void offer_kept(struct smux_stream *stream) {
  if (stream->kept.len > 0 && !stream->is_paused && !stream->is_closed) {
    size_t used = offer(stream, stream->kept.bytes + stream->kept.start, stream->kept.len);
    if (!stream->is_forgotten) {
      unkeep(stream, stream->is_closed ? stream->kept.len : used);
    }
  }
}

// The rest that the owner leaves, having seen it, will never be more.
static void tell_end(struct smux_stream *stream) {
  if (stream->has_ended && !stream->has_told_end && !stream->is_closed &&
      (stream->kept.len == 0 || !stream->is_paused)) {
    stream->has_told_end = true;
    stream->smux->events->on_ended(stream->owner);
  }
}

static int take_payload(struct smux_stream *stream, uint8_t *bytes, size_t len) {
  int error = 0;
  if (stream->kept.len + len > SMUX_FIRST_PEER_WINDOW + stream->smux->settings->stream_bytes) {
    return ERROR_MALFORMED;
  }
  hold(stream);
  if (stream->kept.len == 0 && !stream->is_paused) {
    size_t used = offer(stream, bytes, len);
    if (used < len && !stream->is_closed) {
      error = keep(stream, bytes + used, len - used);
    }
  } else {
    error = keep(stream, bytes, len);
    if (!error) {
      offer_kept(stream);
    }
  }
  let_go(stream);
  return error;
}

static int refuse(struct smux *smux, uint32_t id) {
  if (smux->refusals == REFUSALS_MAX) {
    return ERROR_MALFORMED;  // it opens streams, and does not take in what we say to that
  }
  if (!smux->refused) {
    smux->refused = malloc(REFUSALS_MAX * sizeof *smux->refused);
    if (!smux->refused) {
      return ERROR_MEMORY;
    }
  }
  smux->refused[smux->refusals++] = id;
  return send_control(smux);
}

static int on_syn(struct smux *smux, uint32_t id) {
  if (find(smux, id)) {
    return 0;
  }
  struct smux_stream *stream = NULL;
  if (!smux->settings->client && smux->count < smux->settings->streams_max) {
    stream = stream_new(smux, id, NULL);
  }
  if (!stream) {
    return refuse(smux, id);
  }
  hold(stream);
  void *owner = smux->events->on_open(stream, smux->owner);
  if (!stream->is_closed) {
    stream->owner = owner;
    if (!owner) {
      smux_close(stream, false);
    }
  }
  let_go(stream);
  return 0;
}

// The peer has forgotten the stream: it takes nothing of it any more.
static void on_fin(struct smux_stream *stream) {
  if (!stream || stream->has_ended) {
    return;
  }
  stream->has_ended = true;
  drop_control(stream);
  hold(stream);
  give_up_waiting(stream);
  tell_end(stream);
  let_go(stream);
}

static void on_update(struct smux_stream *stream, const uint8_t *payload) {
  if (stream) {
    stream->peer_used = get_u32(payload);
    stream->peer_window = get_u32(payload + 4);
    update_ready(stream);
  }
}

// The header of a frame is whole, and the payload of an UPD.
static int on_frame(struct smux *smux, const uint8_t *head) {
  uint32_t id = get_u32(head + 4);
  struct smux_stream *stream;
  switch (head[1]) {
    case SMUX_SYN: return on_syn(smux, id);
    case SMUX_FIN: on_fin(find(smux, id)); return 0;
    case SMUX_PSH:
      stream = find(smux, id);
      smux->receiving = stream && !stream->is_closed && !stream->has_ended ? stream : NULL;
      smux->payload_left = get_u16(head + 2);
      return 0;
    case SMUX_UPD: on_update(find(smux, id), head + SMUX_HEADER_BYTES); return 0;
    default: smux->heard_nop = true; return 0;
  }
}

static bool is_sound(const uint8_t *head) {
  size_t len = get_u16(head + 2);
  if (head[0] != SMUX_VERSION) {
    return false;
  }
  switch (head[1]) {
    case SMUX_PSH: return true;
    case SMUX_UPD: return len == UPDATE_BYTES;
    default: return head[1] <= SMUX_UPD && len == 0;
  }
}

// Collects a header, and the payload of an UPD. Returns how many bytes it took.
static size_t take_head(struct smux *smux, const uint8_t *bytes, size_t len, int *error) {
  size_t whole = smux->head_len < SMUX_HEADER_BYTES ? SMUX_HEADER_BYTES : sizeof smux->head;
  size_t taken = whole - smux->head_len;
  taken = taken < len ? taken : len;
  memcpy(smux->head + smux->head_len, bytes, taken);
  smux->head_len = (uint8_t)(smux->head_len + taken);
  if (smux->head_len < whole) {
    return taken;
  }
  if (whole == SMUX_HEADER_BYTES) {
    if (!is_sound(smux->head)) {
      smux->head_len = 0;
      *error = ERROR_MALFORMED;
      return taken;
    }
    smux->was_heard = true;
    if (smux->head[1] == SMUX_UPD) {
      return taken;
    }
  }
  smux->head_len = 0;
  *error = on_frame(smux, smux->head);
  return taken;
}

// Ours goes with the acknowledgement of the peer's if it is due before long: a connection that is
// idle is spared a datagram by that, and its owner a timer. Two that do so don't answer each other,
// since the interval has begun anew.
static void answer_nop(struct smux *smux, int64_t now_ms) {
  int64_t interval_ms = smux->settings->keepalive_interval_ms;
  smux->heard_nop = false;
  if (interval_ms > 0 && smux->nop_due_ms - now_ms <= interval_ms / 2) {
    // The peer's next one may come a little late, and is to be in time for this all the same.
    smux->nop_due_ms = now_ms + interval_ms + interval_ms / 16;
    smux->wants_nop = true;
    (void)send_control(smux);  // out of memory: it waits for smux_pump, which tells
  }
}

int smux_input(struct smux *smux, uint8_t *bytes, size_t len, int64_t now_ms) {
  int error = 0;
  while (len > 0 && !error && !smux->is_held) {
    size_t taken;
    if (smux->payload_left == 0) {
      taken = take_head(smux, bytes, len, &error);
    } else {
      taken = smux->payload_left < len ? smux->payload_left : len;
      smux->payload_left -= (uint32_t)taken;
      if (smux->receiving) {
        error = take_payload(smux->receiving, bytes, taken);
      }
    }
    bytes += taken;
    len -= taken;
  }
  if (!error && len > 0) {
    error = buffer_append(&smux->rest, bytes, len);
  }
  if (!error && smux->heard_nop) {
    answer_nop(smux, now_ms);
  }
  return error;
}

void smux_hold(struct smux *smux) {
  smux->is_held = true;
  smux->wants_nop = true;
}

bool smux_is_held(const struct smux *smux) { return smux->is_held; }

int smux_release(struct smux *smux, int64_t now_ms) {
  struct buffer rest = smux->rest;
  memset(&smux->rest, 0, sizeof smux->rest);
  smux->is_held = false;
  int error = rest.len > 0 ? smux_input(smux, rest.bytes + rest.start, rest.len, now_ms) : 0;
  free(rest.bytes);
  return error;
}

void *smux_peek(const struct smux *smux, const uint8_t *bytes, size_t len, const uint8_t **payload,
                size_t *payload_len) {
  if (smux->payload_left > 0 || smux->head_len > 0 || smux->is_held) {
    return NULL;
  }
  while (len >= SMUX_HEADER_BYTES && bytes[0] == SMUX_VERSION) {
    size_t frame_len = get_u16(bytes + 2);
    uint32_t id = get_u32(bytes + 4);
    bool has_payload = bytes[1] == SMUX_PSH && frame_len > 0;
    bytes += SMUX_HEADER_BYTES;
    len -= SMUX_HEADER_BYTES;
    size_t there = frame_len < len ? frame_len : len;
    if (has_payload) {
      const struct smux_stream *stream;
      TAILQ_FOREACH(stream, &smux->streams, all) {
        if (stream->id == id && !stream->is_closed && stream->kept.len == 0) {
          *payload = bytes;
          *payload_len = there;
          return stream->owner;
        }
      }
      return NULL;
    }
    bytes += there;
    len -= there;
  }
  return NULL;
}

bool smux_takes_input(const struct smux *smux) {
  return smux->unread < smux->settings->session_bytes && !smux->is_held;
}

// --- The whole -------------------------------------------------------------------------------

struct smux *smux_new(const struct smux_settings *settings, const struct smux_carrier *carrier,
                      const struct smux_events *events, void *owner, int64_t now_ms) {
  struct smux *smux = calloc(1, sizeof *smux);
  if (!smux) {
    return NULL;
  }
  smux->settings = settings;
  smux->carrier = carrier;
  smux->events = events;
  smux->owner = owner;
  TAILQ_INIT(&smux->streams);
  TAILQ_INIT(&smux->control);
  TAILQ_INIT(&smux->ready);
  smux->next_id = FIRST_STREAM_ID;
  smux->nop_due_ms =
      settings->keepalive_interval_ms > 0 ? now_ms + settings->keepalive_interval_ms : SMUX_NEVER;
  smux->check_due_ms =
      settings->keepalive_timeout_ms > 0 ? now_ms + settings->keepalive_timeout_ms : SMUX_NEVER;
  return smux;
}

void smux_free(struct smux *smux) {
  struct smux_stream *stream;
  if (!smux) {
    return;
  }
  while ((stream = TAILQ_FIRST(&smux->streams))) {
    TAILQ_REMOVE(&smux->streams, stream, all);
    stream_free(stream);
  }
  free(smux->rest.bytes);
  free(smux->refused);
  free(smux);
}

int64_t smux_due(const struct smux *smux) {
  return smux->nop_due_ms < smux->check_due_ms ? smux->nop_due_ms : smux->check_due_ms;
}

// The next time after now, in step with those before unless some were missed.
static int64_t next_due(int64_t due_ms, int64_t interval_ms, int64_t now_ms) {
  return due_ms + interval_ms > now_ms ? due_ms + interval_ms : now_ms + interval_ms;
}

bool smux_tick(struct smux *smux, int64_t now_ms) {
  const struct smux_settings *settings = smux->settings;
  if (now_ms >= smux->nop_due_ms) {
    smux->nop_due_ms = next_due(smux->nop_due_ms, settings->keepalive_interval_ms, now_ms);
    smux->wants_nop = true;
    (void)send_control(smux);  // out of memory: it waits for smux_pump, which tells
  }
  if (now_ms >= smux->check_due_ms) {
    smux->check_due_ms = next_due(smux->check_due_ms, settings->keepalive_timeout_ms, now_ms);
    if (!smux->was_heard && smux_takes_input(smux)) {
      return false;
    }
    smux->was_heard = false;
  }
  return true;
}

size_t smux_stream_count(const struct smux *smux) { return smux->count; }

size_t smux_unread_bytes(const struct smux *smux) { return smux->unread; }

// --- One stream ------------------------------------------------------------------------------

struct smux_stream *smux_open(struct smux *smux, void *stream_owner) {
  if (smux->count >= smux->settings->streams_max) {
    return NULL;
  }
  struct smux_stream *stream = stream_new(smux, smux->next_id, stream_owner);
  if (stream) {
    smux->next_id += 2;
    stream->wants_syn = true;
    want_control(stream);
  }
  return stream;
}

uint32_t smux_stream_id(const struct smux_stream *stream) { return stream->id; }

void smux_stream_start_at(struct smux_stream *stream, uint32_t sent, uint32_t used) {
  stream->sent = sent;
  stream->peer_used = sent;
  stream->used = used;
  stream->told_used = used;
}

int smux_write(struct smux_stream *stream, const uint8_t *bytes, size_t len) {
  struct smux *smux = stream->smux;
  if (stream->has_ended || stream->is_closed) {
    return ERROR_INVALID;
  }
  if (len == 0) {
    return 0;
  }
  // Then none of its own bytes wait either: with a window it would be ready.
  bool goes_now = smux_send_window(stream) > 0 && is_free(smux);
  if (goes_now && len <= smux->settings->frame_bytes && len <= smux_send_window(stream)) {
    return write_data(stream, bytes, len);
  }
  if (buffer_append(&stream->waiting, bytes, len)) {
    return ERROR_MEMORY;
  }
  update_ready(stream);
  if (goes_now) {
    (void)drain(stream);  // out of memory: it was taken, and waits for smux_pump, which tells
  }
  return 0;
}

size_t smux_queued_bytes(const struct smux_stream *stream) { return stream->waiting.len; }

uint64_t smux_sent_bytes(const struct smux_stream *stream) { return stream->sent; }

void smux_pause(struct smux_stream *stream) { stream->is_paused = true; }

void smux_resume(struct smux_stream *stream) {
  if (stream->is_offering) {
    stream->was_resumed = stream->was_resumed || stream->is_paused;
    stream->is_paused = false;
    return;
  }
  stream->is_paused = false;
  hold(stream);
  offer_kept(stream);
  tell_end(stream);
  let_go(stream);
}

void smux_close(struct smux_stream *stream, bool flush) {
  struct smux *smux = stream->smux;
  bool goes_now = is_free(smux);
  stream->is_closed = true;
  stream->wants_update = false;
  if (smux->receiving == stream) {
    smux->receiving = NULL;
  }
  if (!flush) {
    buffer_take(&stream->waiting, stream->waiting.len);
  }
  if (!stream->is_offering) {
    unkeep(stream, stream->kept.len);  // else the owner may still look at it
  }
  if (stream->wants_syn && stream->waiting.len == 0) {
    forget(stream);  // the peer has never heard of it
    return;
  }
  if (!stream->wants_syn) {
    drop_control(stream);
  }
  update_ready(stream);
  if (goes_now) {
    (void)drain(stream);  // out of memory: the rest waits for smux_pump, which tells
  }
}

void smux_prefetch(const struct smux *smux) { prefetch(smux, sizeof *smux); }
