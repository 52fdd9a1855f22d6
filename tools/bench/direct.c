// direct: a closed loop straight to a backend over gRPC, with the very stream
// engine that a gateway's worker has: what a round trip costs without a gateway.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/packet.h"
#include "common/stream.h"
#include "tools/bench/bench.h"

enum { MESSAGE_MAX_BYTES = 1024 * 1024 };

struct direct {
  struct bench *bench;
  struct stream_engine *engine;
  size_t opened;
  size_t ended;
  uint8_t *data;
};

struct direct_stream {
  struct direct *direct;
  struct stream *stream;
  int64_t sent_ns;
  int32_t index;
};

static void send_next(struct direct_stream *stream) {
  struct direct *direct = stream->direct;
  const struct bench_options *options = &direct->bench->options;
  struct packet packet = {.mod = options->mod,
                          .seq = options->seq,
                          .index = ++stream->index,
                          .obj = options->wish.uid,
                          .data = direct->data,
                          .data_len = options->data_bytes};
  size_t len = tunnel_message_size(&packet, false);
  uint8_t *room = stream_reserve(stream->stream, len);
  if (!room) {
    bench_stop(direct->bench, BENCH_FAILED);
    return;
  }
  tunnel_message_encode(&packet, false, room);
  stream->sent_ns = bench_now_ns();
  stream_send(stream->stream);
  if (stream_takes(stream->stream)) {
    stream->sent_ns = -stream->sent_ns;
  }
}

static void on_opened(void *owner) {
  struct direct_stream *stream = owner;
  struct direct *direct = stream->direct;
  if (++direct->opened == 1) {
    bench_start(direct->bench);
  }
  stream_read(stream->stream);
  send_next(stream);
}

// The answer may overtake this; the next message waits for both.
static void on_sent(void *owner) {
  struct direct_stream *stream = owner;
  if (stream->sent_ns == 0) {
    send_next(stream);
  } else {
    stream->sent_ns = -stream->sent_ns;
  }
}

static void on_message(void *owner, const uint8_t *bytes, size_t len) {
  (void)bytes;
  (void)len;
  struct direct_stream *stream = owner;
  bool sending = stream->sent_ns > 0;
  bench_record(stream->direct->bench,
               bench_now_ns() - (sending ? stream->sent_ns : -stream->sent_ns));
  stream_read(stream->stream);
  if (sending) {
    stream->sent_ns = 0;
  } else {
    send_next(stream);
  }
}

static void on_ended(void *owner, int status, const char *detail) {
  struct direct_stream *stream = owner;
  struct direct *direct = stream->direct;
  if (direct->ended++ == 0) {
    bench_say("a stream ended: status %d, %.200s", status, detail ? detail : "");
  }
  direct->bench->failed++;
  if (direct->ended == direct->bench->options.clients) {
    bench_stop(direct->bench, BENCH_CONNECT);
  }
}

static const struct stream_events events = {on_opened, on_sent, on_message, on_ended};

static struct stream *open_one(struct direct *direct, struct direct_stream *stream, size_t number) {
  const struct bench_options *options = &direct->bench->options;
  char uid[24];
  char sid[24];
  char status[16];
  char referer[48];
  snprintf(uid, sizeof uid, "%lld", (long long)options->wish.uid + (long long)number);
  snprintf(sid, sizeof sid, "%lld", (long long)options->wish.sid);
  snprintf(status, sizeof status, "%d", options->wish.status);
  snprintf(referer, sizeof referer, "127.0.0.1:0#%zu", number + 1);
  const struct stream_metadata metadata[] = {
      {"x-md-global-oid", uid},
      {"x-md-global-uid", uid},
      {"x-md-global-sid", sid},
      {"x-md-global-status", status},
      {"x-md-global-color", options->wish.color},
      {"x-md-global-client-ip", "127.0.0.1:0"},
      {"x-md-global-referer", referer},
      {"x-md-global-gate-referer", referer},
  };
  struct stream_target target = {.address = options->connect, .method = options->method};
  return stream_open(direct->engine, &target, metadata, sizeof metadata / sizeof metadata[0],
                     &events, stream);
}

int bench_direct(struct bench *bench) {
  size_t count = bench->options.clients;
  struct direct direct = {.bench = bench, .data = malloc(bench->options.data_bytes + 1)};
  struct direct_stream *streams = calloc(count, sizeof *streams);
  struct stream_engine_options options = {
      .open_timeout_ms = bench->options.timeout_ms,
      .streams_per_connection = bench->options.streams_per_connection,
      .message_bytes = MESSAGE_MAX_BYTES,
  };
  int error = ERROR_MEMORY;
  direct.engine = streams && direct.data ? stream_engine_new(bench->base, &options, &error) : NULL;
  if (!direct.engine) {
    bench_say("gRPC cannot be started: %s", error_text(error));
    free(streams);
    free(direct.data);
    return BENCH_FAILED;
  }
  memset(direct.data, 'j', bench->options.data_bytes);
  for (size_t i = 0; i < count; i++) {
    streams[i].direct = &direct;
    streams[i].stream = open_one(&direct, &streams[i], i);
  }
  event_base_dispatch(bench->base);
  if (bench->exit_code == BENCH_PASSED) {
    bench_report_number(bench, "streams", (double)direct.opened, "");
    bench_report_work(bench, "msgs_per_s");
    bench_report_end(bench);
  }
  for (size_t i = 0; i < count; i++) {
    stream_end(streams[i].stream, false);
  }
  stream_engine_free(direct.engine);
  free(streams);
  free(direct.data);
  return bench->exit_code;
}
