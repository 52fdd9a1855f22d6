// smux against a peer that sends anything, an owner of streams that does anything within events
// and between them, and a carrier that takes more as it likes. The first byte chooses the side
// and how owners behave; then records follow: a byte of what to do, and one of how much.
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/kcp/smux.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { STREAMS = 5, SESSION = 300000, WINDOW = 1000, FRAME = 50, WAITS_MAX = 100000 };

struct user {
  struct world *world;
  struct smux_stream *stream;  // NULL: closed, or never there
};

struct world {
  struct smux *smux;
  struct user users[STREAMS];
  uint32_t moods;  // changes with each event
  size_t room;
  size_t writes_until_failure;  // from which on all fail
  // What the carrier took, frame by frame.
  uint8_t head[SMUX_HEADER_BYTES];
  size_t head_len;
  size_t payload_left;
  uint64_t payload_out;
  uint64_t written;
  bool is_broken;
};

static void expect(bool is_so) {
  if (!is_so) {
    abort();
  }
}

static unsigned mood(struct world *world, unsigned below) {
  world->moods = world->moods * 1664525u + 1013904223u;
  return (world->moods >> 16) % below;
}

static bool takes_more(void *owner) {
  struct world *world = owner;
  return world->room > 0;
}

static void check_head(struct world *world) {
  const uint8_t *head = world->head;
  size_t len = (size_t)head[2] | (size_t)head[3] << 8;
  expect(head[0] == SMUX_VERSION && head[1] <= SMUX_UPD);
  switch (head[1]) {
    case SMUX_PSH:
      expect(len > 0 && len <= FRAME);
      world->payload_out += len;
      break;
    case SMUX_UPD: expect(len == 8); break;
    default: expect(len == 0);
  }
  world->payload_left = len;
  world->head_len = 0;
}

static int carry(const uint8_t *bytes, size_t len, void *owner) {
  struct world *world = owner;
  if (world->writes_until_failure == 0) {
    world->is_broken = world->is_broken || world->payload_left > 0;
    return ERROR_MEMORY;
  }
  world->writes_until_failure--;
  expect(!world->is_broken && len > 0);
  world->room -= world->room < len ? world->room : len;
  for (size_t i = 0; i < len; i++) {
    if (world->payload_left > 0) {
      world->payload_left--;
      continue;
    }
    world->head[world->head_len++] = bytes[i];
    if (world->head_len == SMUX_HEADER_BYTES) {
      check_head(world);
    }
  }
  return 0;
}

static void write_some(struct user *user, size_t len) {
  static const uint8_t some[600];
  if (user->stream && smux_queued_bytes(user->stream) < WAITS_MAX &&
      smux_write(user->stream, some, len) == 0) {
    user->world->written += len;
  }
}

static void close_stream(struct user *user, bool flush) {
  if (user->stream) {
    struct smux_stream *stream = user->stream;
    user->stream = NULL;
    smux_close(stream, flush);
  }
}

// What an owner does within an event, to its own stream or to another.
static void do_anything(struct user *user) {
  struct world *world = user->world;
  if (mood(world, 4) == 0) {
    user = &world->users[mood(world, STREAMS)];
  }
  if (!user->stream) {
    return;
  }
  switch (mood(world, 12)) {
    case 0: close_stream(user, true); break;
    case 1: close_stream(user, false); break;
    case 2: smux_pause(user->stream); break;
    case 3: smux_resume(user->stream); break;
    case 4:
    case 5: write_some(user, mood(world, 200)); break;
    default: break;
  }
}

static struct user *free_user(struct world *world) {
  for (size_t i = 0; i < STREAMS; i++) {
    if (!world->users[i].stream) {
      return &world->users[i];
    }
  }
  return NULL;
}

static void *on_open(struct smux_stream *stream, void *owner) {
  struct world *world = owner;
  struct user *user = free_user(world);
  if (!user || mood(world, 16) == 0) {
    return NULL;
  }
  if (mood(world, 16) == 0) {
    smux_hold(world->smux);
  }
  user->stream = stream;
  do_anything(user);
  return user;
}

static size_t on_bytes(uint8_t *bytes, size_t len, void *owner) {
  struct user *user = owner;
  struct world *world = user->world;
  expect(user->stream && len > 0);
  size_t used = mood(world, 3) ? len : mood(world, (unsigned)len + 1);
  do_anything(user);
  do_anything(user);
  memset(bytes, 0xee, len > used ? used : len);
  return used;
}

static void on_ended(void *owner) {
  struct user *user = owner;
  expect(user->stream != NULL);
  do_anything(user);
}

static void on_sent(void *owner) {
  struct user *user = owner;
  expect(user->stream != NULL);
  do_anything(user);
}

// Bytes of the peer, in a block of their own so that a step outside shows.
static int input(struct world *world, const uint8_t *bytes, size_t len) {
  uint8_t *copy = malloc(len ? len : 1);
  expect(copy != NULL);
  memcpy(copy, bytes, len);
  int error = smux_input(world->smux, copy, len, 0);
  free(copy);
  return error;
}

static int input_frame(struct world *world, unsigned what, size_t len) {
  uint8_t frame[SMUX_HEADER_BYTES + 2560] = {SMUX_VERSION, (uint8_t)(what % 5)};
  size_t payload = frame[1] == SMUX_PSH ? len * 10 : frame[1] == SMUX_UPD ? 8 : 0;
  frame[2] = (uint8_t)payload;
  frame[3] = (uint8_t)(payload >> 8);
  frame[4] = (uint8_t)(3 + what / 5 % 8 * 2);
  if (frame[1] == SMUX_UPD) {
    frame[SMUX_HEADER_BYTES] = (uint8_t)len;
    frame[SMUX_HEADER_BYTES + 4] = (uint8_t)(len * 7);
    frame[SMUX_HEADER_BYTES + 5] = (uint8_t)what;
  }
  return input(world, frame, SMUX_HEADER_BYTES + payload);
}

// Returns false when the connection is at its end.
static bool do_record(struct world *world, unsigned what, size_t much, int64_t *now_ms) {
  struct user *user = &world->users[much % STREAMS];
  world->room += 20;
  switch (what) {
    case 0: world->room = much * 20; return true;
    case 1: return smux_pump(world->smux) == 0;
    case 2: user->stream = user->stream ? user->stream : smux_open(world->smux, user); return true;
    case 3: write_some(user, much * 2); return true;
    case 4: close_stream(user, much & 0x80); return true;
    case 5:
      if (user->stream) {
        smux_pause(user->stream);
      }
      return true;
    case 6:
      if (user->stream) {
        smux_resume(user->stream);
      }
      return true;
    case 7:
      *now_ms += (int64_t)much * 10;
      expect(smux_due(world->smux) != SMUX_NEVER);
      return smux_tick(world->smux, *now_ms);
    case 8: world->writes_until_failure = much < 128 ? much / 8 : SIZE_MAX; return true;
    case 9: return !smux_is_held(world->smux) || smux_release(world->smux, *now_ms) == 0;
    default: return input_frame(world, what, much) == 0;
  }
}

static void check(struct world *world) {
  expect(smux_stream_count(world->smux) <= STREAMS);
  expect(smux_unread_bytes(world->smux) <= (size_t)STREAMS * (SMUX_FIRST_PEER_WINDOW + WINDOW));
  expect(world->payload_out <= world->written || world->is_broken);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  static const struct smux_carrier carrier = {takes_more, carry};
  static const struct smux_events events = {on_open, on_bytes, on_ended, on_sent};
  struct world world = {.room = 1000, .writes_until_failure = SIZE_MAX};
  int64_t now_ms = 0;
  if (len == 0) {
    return 0;
  }
  const struct smux_settings settings = {
      .client = bytes[0] & 1,
      .frame_bytes = FRAME,
      .stream_bytes = WINDOW,
      .session_bytes = SESSION,
      .streams_max = STREAMS,
      .keepalive_interval_ms = 1000,
      .keepalive_timeout_ms = 3000,
  };
  world.moods = bytes[0];
  world.smux = smux_new(&settings, &carrier, &events, &world, 0);
  expect(world.smux != NULL);
  for (size_t i = 0; i < STREAMS; i++) {
    world.users[i].world = &world;
  }
  for (size_t at = 1; at + 1 < len;) {
    unsigned what = bytes[at];
    size_t much = bytes[at + 1];
    bool goes_on;
    at += 2;
    if (what >= 0xe0) {
      much = much < len - at ? much : len - at;
      goes_on = input(&world, bytes + at, much) == 0;
      at += much;
    } else {
      goes_on = do_record(&world, what, much, &now_ms);
    }
    check(&world);
    if (!goes_on) {
      break;
    }
  }
  smux_free(world.smux);
  return 0;
}
