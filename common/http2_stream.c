#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/http2_engine.h"

enum {
  DETAIL_MAX_BYTES = 1024,  // of a backend's word on why a stream has ended
  ARENA_ALIGNMENT = 16,
};

#define USER_AGENT "grpc-c-janus/" JANUS_VERSION

static struct http2_stream *of(struct stream *stream) {
  return (struct http2_stream *)(void *)stream;
}

static const struct http2_stream *of_const(const struct stream *stream) {
  return (const struct http2_stream *)(const void *)stream;
}

// --- The request -----------------------------------------------------------------------------

struct http2_request {
  size_t count;
  nghttp2_nv *fields;
};

enum { CALL_FIELDS_MAX = 8 };

static char *put_text(char *at, const char *text, nghttp2_nv *field, bool is_name) {
  size_t len = strlen(text);
  memcpy(at, text, len + 1);
  if (is_name) {
    field->name = (uint8_t *)at;
    field->namelen = len;
  } else {
    field->value = (uint8_t *)at;
    field->valuelen = len;
  }
  return at + len + 1;
}

// The value of a -bin key travels as base64.
static char *put_binary(char *at, const char *value, nghttp2_nv *field) {
  size_t size = sodium_base64_ENCODED_LEN(strlen(value), sodium_base64_VARIANT_ORIGINAL_NO_PADDING);
  sodium_bin2base64(at, size, (const unsigned char *)value, strlen(value),
                    sodium_base64_VARIANT_ORIGINAL_NO_PADDING);
  field->value = (uint8_t *)at;
  field->valuelen = strlen(at);
  return at + size;
}

struct http2_request *http2_request_new(const struct stream_target *target, const char *authority,
                                        const struct stream_metadata *metadata, size_t count) {
  char timeout[GRPC_TIMEOUT_BYTES];
  struct stream_metadata call[CALL_FIELDS_MAX] = {
      {":method", "POST"},
      {":scheme", target->secure ? "https" : "http"},
      {":path", target->method},
      {":authority", authority},
  };
  size_t call_count = 4;
  if (target->timeout_ms > 0) {
    // All of it, also where the request has to wait for room: the backend is told when it is over.
    grpc_timeout_write(target->timeout_ms, timeout);
    call[call_count++] = (struct stream_metadata){"grpc-timeout", timeout};
  }
  call[call_count++] = (struct stream_metadata){"te", "trailers"};
  call[call_count++] = (struct stream_metadata){"content-type", "application/grpc"};
  call[call_count++] = (struct stream_metadata){"user-agent", USER_AGENT};
  size_t all = call_count + count;
  size_t size = sizeof(struct http2_request) + all * sizeof(nghttp2_nv);
  for (size_t i = 0; i < all; i++) {
    const struct stream_metadata *one = i < call_count ? &call[i] : &metadata[i - call_count];
    size += strlen(one->key) + 1 + strlen(one->value) * 4 / 3 + 4;
  }
  struct http2_request *request = calloc(1, size);
  if (!request) {
    return NULL;
  }
  request->count = all;
  request->fields = (nghttp2_nv *)(void *)(request + 1);
  char *at = (char *)(request->fields + all);
  for (size_t i = 0; i < all; i++) {
    const struct stream_metadata *one = i < call_count ? &call[i] : &metadata[i - call_count];
    nghttp2_nv *field = &request->fields[i];
    at = put_text(at, one->key, field, true);
    at = grpc_key_is_binary(one->key) ? put_binary(at, one->value, field)
                                      : put_text(at, one->value, field, false);
  }
  return request;
}

int32_t http2_request_submit(const struct http2_request *request, nghttp2_session *session,
                             const nghttp2_data_provider *data, struct http2_stream *stream) {
  return nghttp2_submit_request(session, NULL, request->fields, request->count, data, stream);
}

// --- A stream's life ---------------------------------------------------------------------------

static void hold(struct http2_stream *stream) { stream->holds++; }

static void drop_pieces(struct http2_stream *stream) {
  while (stream->pieces) {
    struct http2_piece *piece = stream->pieces;
    stream->pieces = piece->next;
    if (!piece->is_in_arena) {
      free(piece);
    }
  }
  stream->last_piece = NULL;
  stream->queued_bytes = 0;
  if (stream->is_in_arena) {
    stream->is_in_arena = false;
    TAILQ_REMOVE(&stream->engine->in_arena, stream, in_arena);
  }
}

static void leave_told(struct http2_stream *stream) {
  if (stream->is_told) {
    stream->is_told = false;
    TAILQ_REMOVE(&stream->engine->told, stream, told);
    stream->engine->told_count--;
  }
}

static void drop_request(struct http2_stream *stream) {
  free(stream->request);
  stream->request = NULL;
}

static void let_go(struct http2_stream *stream) {
  if (--stream->holds > 0 || stream->has_owner || !stream->has_ended) {
    return;
  }
  leave_told(stream);
  http2_deadlines_clear(stream);
  drop_pieces(stream);
  drop_request(stream);
  free(stream->detail);
  free(stream->kept);
  free(stream->message);
  free(stream);
}

static void tell_soon(struct http2_stream *stream) {
  if (!stream->is_told && stream->has_owner) {
    stream->is_told = true;
    TAILQ_INSERT_TAIL(&stream->engine->told, stream, told);
    stream->engine->told_count++;
    http2_engine_touch(stream->engine);
  }
}

// Also of one that was open, and is asked for again.
static bool is_opening(const struct http2_stream *stream) {
  return stream->deadlines == &stream->engine->opening;
}

// Whether the connection may still have what it was given in this round.
static bool is_in_rest(const struct http2_stream *stream) {
  return stream->connection && stream->connection->rest &&
         stream->round == stream->connection->round;
}

static void end(struct http2_stream *stream, int status, const char *detail) {
  hold(stream);
  if (!stream->has_ended) {
    if (status == STREAM_CANCELLED && clock_monotonic_ms() >= stream->call_deadline_ms) {
      status = STREAM_DEADLINE_EXCEEDED;  // the backend's watch was before ours
      detail = HTTP2_CALL_IS_OVER;
    }
    stream->has_ended = true;
    stream->status = (int16_t)status;
    if (detail && detail != stream->detail) {
      free(stream->detail);
      stream->detail = strdup(detail);
    }
    if (is_in_rest(stream)) {
      stream->given_messages = stream->given_before;  // what becomes of them is not heard any more
    }
    if (stream->connection) {
      http2_connection_remove(stream->connection, stream);
    }
    http2_engine_leave(stream);
    http2_deadlines_clear(stream);
    drop_pieces(stream);
    tell_soon(stream);
  }
  let_go(stream);
}

void http2_stream_fail(struct http2_stream *stream, int status, const char *detail) {
  if (stream->connection && stream->id > 0 && !stream->is_gone) {
    http2_connection_reset(stream->connection, stream, NGHTTP2_CANCEL);
  }
  end(stream, status, detail);
}

void http2_stream_opened(struct http2_stream *stream) {
  if (is_opening(stream)) {  // else it waits for its end already
    http2_deadlines_clear(stream);
    if (stream->call_deadline_ms < INT64_MAX) {
      stream->deadline_ms = stream->call_deadline_ms;
      http2_deadlines_restore(&stream->engine->calls, stream);
    }
  }
  if (stream->is_again) {
    drop_request(stream);
    stream->tell_sent = stream->is_opened;  // it has taken nothing meanwhile
  }
  stream->tell_opened = true;
  tell_soon(stream);
}

// --- The answer ----------------------------------------------------------------------------------

static bool is_named(const uint8_t *name, size_t len, const char *wanted) {
  return len == strlen(wanted) && memcmp(name, wanted, len) == 0;
}

void http2_stream_header(struct http2_stream *stream, const uint8_t *name, size_t name_len,
                         const uint8_t *value, size_t value_len) {
  if (is_named(name, name_len, ":status")) {
    stream->http_status = 0;
    for (size_t i = 0; i < value_len && i < 3; i++) {
      stream->http_status = (int16_t)(stream->http_status * 10 + (value[i] - '0'));
    }
  } else if (is_named(name, name_len, "content-type")) {
    stream->has_content_type = grpc_content_type_is_ours(value, value_len);
  } else if (is_named(name, name_len, "grpc-status")) {
    stream->status = (int16_t)grpc_status_parse(value, value_len);
  } else if (is_named(name, name_len, "grpc-encoding")) {
    stream->has_encoding = !is_named(value, value_len, "identity");
  } else if (is_named(name, name_len, "grpc-message") && !stream->detail) {
    size_t size = value_len < DETAIL_MAX_BYTES ? value_len + 1 : DETAIL_MAX_BYTES;
    stream->detail = malloc(size);
    if (stream->detail) {
      grpc_message_decode(value, value_len, stream->detail, size);
    }
  }
}

// A status has no place in the headers that have come: what counts comes behind them.
static void forget_status(struct http2_stream *stream) {
  stream->status = -1;
  free(stream->detail);
  stream->detail = NULL;
}

static void end_without_status(struct http2_stream *stream) {
  char text[64];
  if (stream->http_status != 0 && stream->http_status != 200) {
    snprintf(text, sizeof text, "HTTP status %d", stream->http_status);
    http2_stream_fail(stream, grpc_status_of_http(stream->http_status), text);
  } else {
    http2_stream_fail(stream, STREAM_UNKNOWN, "the backend ended it without a status");
  }
}

void http2_stream_headers_end(struct http2_stream *stream, bool is_last) {
  drop_request(stream);
  if (is_last && stream->status >= 0) {
    // Our side may be open still: the backend is not to wait for it.
    http2_connection_reset(stream->connection, stream, NGHTTP2_NO_ERROR);
    end(stream, stream->status, stream->detail);
  } else if (!is_last && stream->http_status / 100 == 1) {
    stream->http_status = 0;
    stream->has_content_type = false;
    stream->has_encoding = false;
    forget_status(stream);
  } else if (is_last || stream->http_status != 200) {
    end_without_status(stream);
  } else if (!stream->has_content_type) {
    http2_stream_fail(stream, STREAM_UNKNOWN, "the answer is not gRPC's");
  } else {
    forget_status(stream);
  }
}

void http2_stream_body_end(struct http2_stream *stream) { end_without_status(stream); }

bool http2_stream_again(struct http2_stream *stream) {
  struct http2_backend *backend = stream->connection->backend;
  if (stream->is_again || !stream->request || stream->round != 0 || stream->is_finishing ||
      clock_monotonic_ms() >= stream->deadline_ms) {
    return false;
  }
  http2_connection_remove(stream->connection, stream);
  stream->is_again = true;
  stream->tell_opened = false;
  stream->is_deferred = false;
  stream->id = 0;
  http2_deadlines_restore(&stream->engine->opening, stream);
  http2_engine_place(backend, stream);
  return true;
}

void http2_stream_closed(struct http2_stream *stream, uint32_t error_code) {
  const struct http2_connection *connection = stream->connection;
  char text[sizeof connection->goaway];
  if (error_code == NGHTTP2_REFUSED_STREAM && http2_stream_again(stream)) {
    return;
  }
  stream->is_gone = true;
  if (error_code == NGHTTP2_REFUSED_STREAM && connection->goaway[0] != '\0') {
    snprintf(text, sizeof text, "%s", connection->goaway);
  } else {
    snprintf(text, sizeof text, "the stream was reset: %s", nghttp2_http2_strerror(error_code));
  }
  end(stream, grpc_status_of_reset(error_code), text);
}

// --- Messages in ---------------------------------------------------------------------------------

static void consumed(const struct http2_stream *stream, size_t len) {
  if (stream->connection && len > 0) {
    http2_connection_consumed(stream->connection, stream, len);
  }
}

// What is not to be given out any more.
static void drop_kept(struct http2_stream *stream) {
  free(stream->kept);
  stream->kept = NULL;
  stream->kept_len = 0;
  stream->kept_capacity = 0;
}

static void fail_reading(struct http2_stream *stream, int status, const char *why) {
  stream->wants = false;
  stream->has_failed = true;
  if (stream->has_ended) {  // in order, while this was waiting to be read
    stream->has_ended = false;
  }
  http2_stream_fail(stream, status, why);
}

// False: the message that begins can't be taken, and the stream has ended.
static bool check_prefix(struct http2_stream *stream) {
  const uint8_t *prefix = stream->prefix;
  stream->message_len =
      (uint32_t)prefix[1] << 24 | (uint32_t)prefix[2] << 16 | (uint32_t)prefix[3] << 8 | prefix[4];
  if (prefix[0] == 1 && stream->has_encoding) {
    fail_reading(stream, STREAM_INTERNAL, "a message in an encoding that was not offered");
  } else if (prefix[0] != 0) {
    fail_reading(stream, STREAM_INTERNAL, "a message that is said to be compressed, and is not");
  } else if (stream->message_len > stream->engine->options.message_bytes) {
    fail_reading(stream, STREAM_RESOURCE_EXHAUSTED, "a message over the size limit");
  } else {
    return true;
  }
  return false;
}

static void give_message(struct http2_stream *stream, const uint8_t *bytes) {
  stream->prefix_got = 0;
  stream->message_got = 0;
  stream->wants = false;
  stream->events->on_message(stream->owner, bytes, stream->message_len);
}

// Takes some of the bytes of a message that does not come in one piece. Its memory is asked for
// whole: a backend that announces more than it sends takes up address space, but no memory.
static size_t gather(struct http2_stream *stream, const uint8_t *bytes, size_t len) {
  size_t missing = stream->message_len - stream->message_got;
  size_t part = len < missing ? len : missing;
  if (!stream->message && !(stream->message = malloc(stream->message_len))) {
    fail_reading(stream, STREAM_RESOURCE_EXHAUSTED, "out of memory");
    return len;
  }
  memcpy(stream->message + stream->message_got, bytes, part);
  stream->message_got += (uint32_t)part;
  if (part == missing) {
    uint8_t *message = stream->message;
    stream->message = NULL;
    give_message(stream, message);
    free(message);
  }
  return part;
}

// One step of reading; returns how many bytes it took.
static size_t take_some(struct http2_stream *stream, const uint8_t *bytes, size_t len) {
  size_t taken = 0;
  if (stream->prefix_got < GRPC_PREFIX_BYTES) {
    while (taken < len && stream->prefix_got < GRPC_PREFIX_BYTES) {
      stream->prefix[stream->prefix_got++] = bytes[taken++];
    }
    if (stream->prefix_got < GRPC_PREFIX_BYTES || !check_prefix(stream)) {
      return taken;
    }
  }
  if (stream->message_got == 0 && len - taken >= stream->message_len) {
    size_t message_len = stream->message_len;
    give_message(stream, bytes + taken);
    return taken + message_len;
  }
  return taken < len ? taken + gather(stream, bytes + taken, len - taken) : taken;
}

// Gives out messages as long as the owner asks for more; returns how many bytes it used.
static size_t take(struct http2_stream *stream, const uint8_t *bytes, size_t len) {
  size_t used = 0;
  while (used < len && stream->wants && stream->has_owner) {
    used += take_some(stream, bytes + used, len - used);
  }
  return used;
}

static void keep(struct http2_stream *stream, const uint8_t *bytes, size_t len) {
  size_t needed = stream->kept_len + len;
  if (needed > stream->kept_capacity) {
    size_t twice = stream->kept_capacity * 2;
    size_t most = twice < HTTP2_WINDOW_BYTES ? twice : HTTP2_WINDOW_BYTES;
    size_t capacity = most > needed ? most : needed;
    uint8_t *larger = realloc(stream->kept, capacity);
    if (!larger) {
      fail_reading(stream, STREAM_RESOURCE_EXHAUSTED, "out of memory");
      return;
    }
    stream->kept = larger;
    stream->kept_capacity = capacity;
  }
  memcpy(stream->kept + stream->kept_len, bytes, len);
  stream->kept_len = needed;
}

void http2_stream_bytes(struct http2_stream *stream, const uint8_t *bytes, size_t len) {
  hold(stream);
  size_t used = stream->kept_len == 0 ? take(stream, bytes, len) : 0;
  if (!stream->has_owner) {
    used = len;  // nobody will ask for the rest
  } else if (used < len && !stream->has_ended) {
    keep(stream, bytes + used, len - used);
  }
  consumed(stream, used);
  let_go(stream);
}

static void give_kept(struct http2_stream *stream) {
  size_t used = take(stream, stream->kept, stream->kept_len);
  if (!stream->has_owner) {
    drop_kept(stream);  // http2_end has counted all of it
    return;
  }
  stream->kept_len -= used;
  if (stream->kept_len == 0) {
    drop_kept(stream);
  } else {
    memmove(stream->kept, stream->kept + used, stream->kept_len);
  }
  consumed(stream, used);
}

// --- To the owner --------------------------------------------------------------------------------

static void tell_end(struct http2_stream *stream) {
  bool is_cut = stream->prefix_got > 0 && !stream->has_failed;
  stream->told_end = true;
  if (stream->status == STREAM_OK && is_cut) {
    stream->events->on_ended(stream->owner, STREAM_INTERNAL, "it ended within a message");
  } else {
    stream->events->on_ended(stream->owner, stream->status, stream->detail ? stream->detail : "");
  }
}

void http2_stream_tell(struct http2_stream *stream) {
  leave_told(stream);
  hold(stream);
  if (stream->tell_opened) {
    stream->tell_opened = false;
    if (!stream->is_opened && !stream->has_ended && stream->has_owner) {
      stream->is_opened = true;
      stream->events->on_opened(stream->owner);
    }
  }
  if (stream->kept_len > 0 && stream->wants && stream->has_owner) {
    give_kept(stream);
  }
  if (stream->tell_sent) {
    stream->tell_sent = false;
    if (!stream->has_ended && stream->has_owner) {
      stream->events->on_sent(stream->owner);
    }
  }
  // Whoever does not read has messages to hear of before the end.
  bool all_given = stream->kept_len == 0 || stream->has_failed;
  if (stream->has_ended && stream->has_owner && !stream->told_end && all_given) {
    tell_end(stream);
  }
  let_go(stream);
}

void http2_read(struct stream *base) {
  struct http2_stream *stream = of(base);
  stream->wants = true;
  if (stream->kept_len > 0 || stream->has_ended) {
    tell_soon(stream);
  }
}

// --- Messages out --------------------------------------------------------------------------------

bool http2_takes(const struct stream *base) {
  const struct http2_stream *stream = of_const(base);
  return stream->is_opened && !stream->has_ended && !stream->is_finishing && !stream->was_full &&
         !is_opening(stream);
}

size_t http2_unsure(const struct stream *base) {
  const struct http2_stream *stream = of_const(base);
  return stream->taken_messages -
         (is_in_rest(stream) ? stream->given_before : stream->given_messages);
}

static struct http2_piece *piece_new(struct http2_engine *engine, size_t len) {
  size_t size = sizeof(struct http2_piece) + len;
  struct http2_piece *piece;
  size = (size + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
  bool fits = size <= HTTP2_ARENA_BYTES - engine->arena_used;
  if (fits) {
    piece = (struct http2_piece *)(void *)(engine->arena + engine->arena_used);
    engine->arena_used += size;
  } else {
    piece = malloc(size);
  }
  if (piece) {
    piece->next = NULL;
    piece->len = len;
    piece->sent = 0;
    piece->is_in_arena = fits;
  }
  return piece;
}

uint8_t *http2_reserve(struct stream *base, size_t len) {
  struct http2_stream *stream = of(base);
  struct http2_piece *piece = piece_new(stream->engine, GRPC_PREFIX_BYTES + len);
  stream->building = piece;
  if (!piece) {
    return NULL;
  }
  piece->bytes[0] = 0;
  piece->bytes[1] = (uint8_t)(len >> 24);
  piece->bytes[2] = (uint8_t)(len >> 16);
  piece->bytes[3] = (uint8_t)(len >> 8);
  piece->bytes[4] = (uint8_t)len;
  return piece->bytes + GRPC_PREFIX_BYTES;
}

static inline void append(struct http2_stream *stream, struct http2_piece *piece) {
  *(stream->last_piece ? &stream->last_piece->next : &stream->pieces) = piece;
  stream->last_piece = piece;
  stream->queued_bytes += piece->len;
  stream->was_full = stream->queued_bytes >= HTTP2_QUEUE_BYTES;
  if (piece->is_in_arena && !stream->is_in_arena) {
    stream->is_in_arena = true;
    TAILQ_INSERT_TAIL(&stream->engine->in_arena, stream, in_arena);
  }
}

void http2_send(struct stream *base) {
  struct http2_stream *stream = of(base);
  struct http2_piece *piece = stream->building;
  stream->building = NULL;
  stream->taken_messages++;
  if (stream->connection) {
    append(stream, piece);
    http2_connection_resume(stream->connection, stream);
  } else if (!stream->has_ended) {
    append(stream, piece);  // until there is room for the stream
    http2_engine_touch(stream->engine);
  } else if (!piece->is_in_arena) {
    free(piece);
  }
}

size_t http2_stream_ready(const struct http2_stream *stream, bool *then_closes) {
  *then_closes = stream->is_finishing;
  return stream->queued_bytes;
}

void http2_stream_take(struct http2_stream *stream, uint8_t *out, size_t len) {
  stream->queued_bytes -= len;
  if (stream->round != stream->connection->round) {
    stream->round = stream->connection->round;
    stream->given_before = stream->given_messages;
    if (stream->request) {
      drop_request(stream);  // it can't be asked for again any more
    }
  }
  while (len > 0) {
    struct http2_piece *piece = stream->pieces;
    size_t left = piece->len - piece->sent;
    size_t part = left < len ? left : len;
    memcpy(out, piece->bytes + piece->sent, part);
    piece->sent += part;
    out += part;
    len -= part;
    if (part == left) {
      stream->pieces = piece->next;
      stream->given_messages++;
      if (!piece->is_in_arena) {
        free(piece);
      }
    }
  }
  if (!stream->pieces) {
    stream->last_piece = NULL;
  }
  if (stream->was_full && stream->queued_bytes <= HTTP2_QUEUE_BYTES / 2) {
    stream->was_full = false;
    stream->tell_sent = true;
    tell_soon(stream);
  }
}

void http2_stream_leave_arena(struct http2_stream *stream) {
  struct http2_piece **place = &stream->pieces;
  struct http2_piece *last = NULL;
  stream->is_in_arena = false;
  TAILQ_REMOVE(&stream->engine->in_arena, stream, in_arena);
  for (struct http2_piece *piece = *place; piece; piece = piece->next) {
    if (piece->is_in_arena) {
      size_t left = piece->len - piece->sent;
      struct http2_piece *own = malloc(sizeof *own + left);
      if (!own) {
        http2_stream_fail(stream, STREAM_RESOURCE_EXHAUSTED, "out of memory");
        return;
      }
      *own = (struct http2_piece){.next = piece->next, .len = left};
      memcpy(own->bytes, piece->bytes + piece->sent, left);
      piece = own;
      *place = own;
    }
    place = &piece->next;
    last = piece;
  }
  stream->last_piece = last;
}

// --- The end, by the owner ----------------------------------------------------------------------

static void half_close(struct http2_stream *stream) {
  if (!stream->is_finishing && !stream->has_ended) {
    stream->is_finishing = true;
    http2_deadlines_set(&stream->engine->closing, stream);
    if (stream->connection) {
      http2_connection_resume(stream->connection, stream);
    }
  }
}

void http2_finish(struct stream *base, const struct stream_events *events, void *owner) {
  struct http2_stream *stream = of(base);
  stream->events = events;
  stream->owner = owner;
  half_close(stream);
}

void http2_end(struct stream *base, bool graceful) {
  struct http2_stream *stream = of(base);
  hold(stream);
  if (graceful && stream->is_opened && !stream->has_ended) {
    size_t unread = stream->kept_len;
    stream->kept_len = 0;  // its memory stays: the owner may be looking at it
    half_close(stream);
    consumed(stream, unread);
  } else if (!stream->has_ended) {
    http2_stream_fail(stream, STREAM_CANCELLED, NULL);
  }
  stream->has_owner = false;  // NOLINT(clang-analyzer-unix.Malloc): it is held
  stream->wants = false;
  let_go(stream);
}
