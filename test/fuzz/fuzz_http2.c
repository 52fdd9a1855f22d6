// A hostile backend's bytes, for the HTTP/2 engine of streams. The first byte says how many streams
// there are, what their owners do, and whether the bytes come behind sound settings, once the
// streams are open; the second in how large pieces.
#include <arpa/inet.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum {
  STREAMS = 4,
  MESSAGE_BYTES = 1000,
  LONG_MS = 600000,  // no input takes so long
  TURNS = 4,         // of the loop, in which all that is on its way has been heard
};

// The bits of the first byte, above the two that count the streams.
enum { GREETS = 0x04, READS = 0x08, ANSWERS = 0x10 };
// And the uppermost two: what is done with a stream at its first message.
enum { KEEP, END_IN_ORDER, CANCEL, FINISH };

struct owner {
  struct stream *stream;
  bool was_opened;
  bool has_message;
  bool has_ended;
};

static struct owner owners[STREAMS];
static uint8_t behaviour;
static struct event_base *base;

static void check(bool is_so) {
  if (!is_so) {
    abort();
  }
}

static void on_opened(void *context) {
  struct owner *owner = context;
  check(owner->stream && !owner->was_opened && !owner->has_ended);
  owner->was_opened = true;
  check(stream_takes(owner->stream));
  stream_read(owner->stream);
}

static void on_sent(void *context) {
  const struct owner *owner = context;
  check(owner->stream && owner->was_opened && !owner->has_ended && stream_takes(owner->stream));
}

static void on_message(void *context, const uint8_t *bytes, size_t len);
static void on_ended(void *context, int status, const char *detail);
static const struct stream_events events = {on_opened, on_sent, on_message, on_ended};

static void do_at_first_message(struct owner *owner) {
  int what = behaviour >> 6;
  if (what == FINISH) {
    stream_finish(owner->stream, &events, owner);
  } else if (what != KEEP) {
    stream_end(owner->stream, what == END_IN_ORDER);
    owner->stream = NULL;
  }
}

static void on_message(void *context, const uint8_t *bytes, size_t len) {
  struct owner *owner = context;
  bool is_first = !owner->has_message;
  unsigned sum = 0;
  check(owner->stream && owner->was_opened && !owner->has_ended && len <= MESSAGE_BYTES);
  for (size_t i = 0; i < len; i++) {
    sum += bytes[i];  // they are all there
  }
  owner->has_message = true;
  if ((behaviour & ANSWERS) && (is_first || behaviour >> 6 != FINISH) &&
      stream_takes(owner->stream)) {
    uint8_t *room = stream_reserve(owner->stream, len);
    check(room != NULL);
    memset(room, (int)(sum & 0xff), len);
    stream_send(owner->stream);
  }
  if (is_first) {
    do_at_first_message(owner);
  }
  if (owner->stream && (behaviour & READS)) {
    stream_read(owner->stream);
  }
}

static void on_ended(void *context, int status, const char *detail) {
  struct owner *owner = context;
  check(owner->stream && !owner->has_ended && status >= 0 && status <= 16 && detail);
  check(strlen(detail) < 10000);
  owner->has_ended = true;
  stream_end(owner->stream, true);
  owner->stream = NULL;
}

static int listener_new(char *address, size_t size) {
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof any;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  check(bind(listener, (struct sockaddr *)&any, sizeof any) == 0 && listen(listener, 16) == 0);
  getsockname(listener, (struct sockaddr *)&any, &len);
  snprintf(address, size, "127.0.0.1:%d", ntohs(any.sin_port));
  return listener;
}

static void turn(void) {
  for (int i = 0; i < TURNS; i++) {
    event_base_loop(base, EVLOOP_NONBLOCK);
  }
}

// Without a word, and without the wait of TCP in which its port would be of no use.
static void cut(int fd) {
  const struct linger at_once = {.l_onoff = 1};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close(fd);
}

static void say(int fd, const uint8_t *bytes, size_t len, size_t step) {
  uint8_t heard[4096];
  for (size_t at = 0; at < len; at += step) {
    size_t piece = len - at < step ? len - at : step;
    if (send(fd, bytes + at, piece, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)piece) {
      return;
    }
    turn();
    while (recv(fd, heard, sizeof heard, MSG_DONTWAIT) > 0) {
    }
  }
}

static bool all_opened(int count) {
  for (int i = 0; i < count; i++) {
    if (!owners[i].was_opened) {
      return false;
    }
  }
  return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  static const uint8_t settings[] = {0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0};
  static const struct stream_metadata metadata[] = {{"x-md-global-oid", "7"}};
  static const struct stream_engine_options options = {.kind = STREAM_HTTP2,
                                                       .open_timeout_ms = LONG_MS,
                                                       .streams_per_connection = STREAMS,
                                                       .message_bytes = MESSAGE_BYTES};
  static char address[64];
  static int listener = -1;
  int error;
  if (listener < 0) {
    base = event_base_new();
    listener = listener_new(address, sizeof address);
  }
  if (len < 2 || len > 20000) {
    return 0;
  }
  behaviour = bytes[0];
  const size_t step = (size_t)bytes[1] * bytes[1] + 1;
  const int count = bytes[0] % STREAMS + 1;
  const struct stream_target target = {.address = address, .method = "/p.S/M"};
  memset(owners, 0, sizeof owners);
  struct stream_engine *engine = stream_engine_new(base, &options, &error);
  check(engine != NULL);
  for (int i = 0; i < count; i++) {
    owners[i].stream = stream_open(engine, &target, metadata, 1, &events, &owners[i]);
    check(owners[i].stream != NULL);
  }
  int fd;
  while ((fd = accept(listener, NULL, NULL)) < 0) {
    event_base_loop(base, EVLOOP_NONBLOCK);
  }
  if (behaviour & GREETS) {
    check(send(fd, settings, sizeof settings, MSG_NOSIGNAL) == sizeof settings);
    while (!all_opened(count)) {
      event_base_loop(base, EVLOOP_ONCE);
    }
  }
  say(fd, bytes + 2, len - 2, step);
  cut(fd);
  turn();
  // What it opened to put its streams elsewhere.
  while ((fd = accept(listener, NULL, NULL)) >= 0) {
    cut(fd);
    turn();
  }
  for (int i = 0; i < count; i++) {
    stream_end(owners[i].stream, i % 2);
    owners[i].stream = NULL;
  }
  stream_engine_free(engine);
  while ((fd = accept(listener, NULL, NULL)) >= 0) {
    cut(fd);
  }
  return 0;
}
