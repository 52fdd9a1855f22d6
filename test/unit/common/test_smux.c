#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/kcp/smux.h"

enum {
  FRAME = 4096,
  WINDOW = 65536,
  SESSION = 4 << 20,
  STREAMS = 4,
  USERS = 16,
  FIRST_WINDOW = SMUX_FIRST_PEER_WINDOW,
};

enum event { ON_NOTHING, ON_OPEN, ON_BYTES, ON_ENDED, ON_SENT };

struct end;

// The owner of a stream.
struct user {
  struct end *end;
  struct smux_stream *stream;  // NULL: closed
  size_t use_at_most;          // of one on_bytes; 0: none
  size_t pause_after;          // bytes used; 0: never
  bool resumes_within;
  enum event closes_on;
  bool closes_with_flush;
  bool echoes;
  uint8_t *got;
  size_t got_len;
  size_t got_size;
  size_t offered;  // calls
  size_t last_offer;
  int ended;
  int sent;
  uint64_t next_out;  // of the pattern that joined ends send each other
};

struct end {
  struct smux *smux;
  struct smux_settings settings;
  uint8_t *wire;  // what the carrier took
  size_t wire_len;
  size_t wire_size;
  size_t wire_read;          // by the other end
  size_t room;               // takes_more while fewer bytes are there
  int writes_until_failure;  // -1: never
  struct user users[USERS];
  size_t user_count;
  struct user model;  // of those the peer opens
  bool refuses;
  size_t holds_at;  // so many users; 0: never
};

static unsigned seed;

static unsigned any(unsigned below) { return (unsigned)rand_r(&seed) % below; }

static bool takes_more(void *owner) {
  struct end *end = owner;
  return end->wire_len - end->wire_read < end->room;
}

static int carry(const uint8_t *bytes, size_t len, void *owner) {
  struct end *end = owner;
  if (end->writes_until_failure == 0) {
    return ERROR_MEMORY;
  }
  if (end->writes_until_failure > 0) {
    end->writes_until_failure--;
  }
  assert_true(len > 0);
  if (end->wire_len + len > end->wire_size) {
    end->wire_size = (end->wire_len + len) * 2;
    end->wire = realloc(end->wire, end->wire_size);
  }
  memcpy(end->wire + end->wire_len, bytes, len);
  end->wire_len += len;
  return 0;
}

static void close_if(struct user *user, enum event event) {
  if (user->closes_on == event && user->stream) {
    smux_close(user->stream, user->closes_with_flush);
    user->stream = NULL;
  }
}

static struct user *user_new(struct end *end, const struct user *model) {
  assert_true(end->user_count < USERS);
  struct user *user = &end->users[end->user_count++];
  *user = *model;
  user->end = end;
  return user;
}

static void *on_open(struct smux_stream *stream, void *owner) {
  struct end *end = owner;
  if (end->refuses) {
    return NULL;
  }
  struct user *user = user_new(end, &end->model);
  user->stream = stream;
  if (end->user_count == end->holds_at) {
    smux_hold(end->smux);
  }
  close_if(user, ON_OPEN);
  return user;
}

static size_t on_bytes(uint8_t *bytes, size_t len, void *owner) {
  struct user *user = owner;
  assert_non_null(user->stream);
  assert_true(len > 0);
  user->offered++;
  user->last_offer = len;
  size_t used = len < user->use_at_most ? len : user->use_at_most;
  if (user->pause_after > 0 && user->got_len + used >= user->pause_after) {
    used = user->pause_after - user->got_len;
    user->pause_after = 0;
    smux_pause(user->stream);
    if (user->resumes_within) {
      smux_resume(user->stream);
    }
  }
  if (user->got_len + used > user->got_size) {
    user->got_size = (user->got_len + used) * 2;
    user->got = realloc(user->got, user->got_size);
  }
  if (used > 0) {
    memcpy(user->got + user->got_len, bytes, used);
  }
  user->got_len += used;
  if (user->echoes && used > 0) {
    assert_int_equal(smux_write(user->stream, bytes, used), 0);
  }
  close_if(user, ON_BYTES);
  memset(bytes, 0xee, used);  // they are the owner's within the call, closed or not
  return used;
}

static void on_ended(void *owner) {
  struct user *user = owner;
  assert_non_null(user->stream);
  assert_int_equal(user->ended++, 0);
  close_if(user, ON_ENDED);
}

static void on_sent(void *owner) {
  struct user *user = owner;
  assert_non_null(user->stream);
  user->sent++;
  close_if(user, ON_SENT);
}

static const struct smux_carrier carrier = {takes_more, carry};
static const struct smux_events events = {on_open, on_bytes, on_ended, on_sent};

static struct end *end_new(bool client) {
  struct end *end = calloc(1, sizeof *end);
  end->settings = (struct smux_settings){
      .client = client,
      .frame_bytes = FRAME,
      .stream_bytes = WINDOW,
      .session_bytes = SESSION,
      .streams_max = STREAMS,
  };
  end->room = SIZE_MAX;
  end->writes_until_failure = -1;
  end->model.use_at_most = SIZE_MAX;
  end->smux = smux_new(&end->settings, &carrier, &events, end, 0);
  assert_non_null(end->smux);
  return end;
}

static void end_free(struct end *end) {
  smux_free(end->smux);
  for (size_t i = 0; i < end->user_count; i++) {
    free(end->users[i].got);
  }
  free(end->wire);
  free(end);
}

static struct user *end_open(struct end *end) {
  struct user *user = user_new(end, &end->model);
  user->stream = smux_open(end->smux, user);
  assert_non_null(user->stream);
  return user;
}

static void write_all(struct user *user, const void *bytes, size_t len) {
  assert_int_equal(smux_write(user->stream, bytes, len), 0);
}

// Bytes of hex digits; blanks are skipped.
static size_t unhex(const char *hex, uint8_t *out) {
  size_t len = 0;
  while (*hex) {
    char pair[3] = {hex[0], hex[1], 0};
    if (*hex == ' ') {
      hex++;
      continue;
    }
    out[len++] = (uint8_t)strtoul(pair, NULL, 16);
    hex += 2;
  }
  return len;
}

static int input(struct end *end, const char *hex) {
  uint8_t bytes[512];
  return smux_input(end->smux, bytes, unhex(hex, bytes), 0);
}

static void assert_wire(struct end *end, const char *hex) {
  uint8_t bytes[512];
  size_t len = unhex(hex, bytes);
  assert_int_equal(end->wire_len - end->wire_read, len);
  assert_memory_equal(end->wire + end->wire_read, bytes, len);
  end->wire_read = end->wire_len;
}

static int input_psh(struct end *end, uint32_t id, size_t len) {
  uint8_t *frame = malloc(SMUX_HEADER_BYTES + len);
  memset(frame, 'x', SMUX_HEADER_BYTES + len);
  frame[0] = 2;
  frame[1] = SMUX_PSH;
  frame[2] = (uint8_t)len;
  frame[3] = (uint8_t)(len >> 8);
  frame[4] = (uint8_t)id;
  memset(frame + 5, 0, 3);
  int error = smux_input(end->smux, frame, SMUX_HEADER_BYTES + len, 0);
  free(frame);
  return error;
}

static void move(struct end *from, struct end *to, size_t len) {
  while (len > 0) {
    size_t piece = len < 1376 ? len : 1376;
    uint8_t copy[1376];
    memcpy(copy, from->wire + from->wire_read, piece);
    from->wire_read += piece;
    assert_int_equal(smux_input(to->smux, copy, piece, 0), 0);
    len -= piece;
  }
}

static void move_all(struct end *from, struct end *to) {
  move(from, to, from->wire_len - from->wire_read);
}

// --- Frames ----------------------------------------------------------------------------------

static void frames_are_those_of_the_go_stack(void **state) {
  (void)state;
  struct end *client = end_new(true);
  struct end *server = end_new(false);
  uint8_t message[] = {0, 0, 0, 5, 'a', 'b', 'c', 'd', 'e'};
  struct user *user = end_open(client);
  for (int i = 1; i < STREAMS; i++) {
    end_open(client);
  }
  move_all(client, server);
  client->wire_read = 0;
  assert_wire(client, "0200000003000000 0200000005000000 0200000007000000 0200000009000000");
  assert_null(smux_open(client->smux, client));
  write_all(user, message, sizeof message);
  move_all(client, server);
  client->wire_read -= 17;
  assert_wire(client, "0202090003000000 000000056162636465");
  assert_wire(server, "0204080003000000 0900000000000100");
  server->model.closes_on = ON_ENDED;
  server->users[0].closes_on = ON_ENDED;
  smux_close(user->stream, true);
  move_all(client, server);
  client->wire_read -= 8;
  assert_wire(client, "0201000003000000");
  assert_wire(server, "0201000003000000");
  assert_int_equal(smux_stream_count(client->smux), STREAMS - 1);
  assert_int_equal(smux_stream_count(server->smux), STREAMS - 1);
  end_free(client);
  end_free(server);
}

static void what_breaks_the_protocol_is_malformed(void **state) {
  (void)state;
  static const char *const broken[] = {
      "0100000003000000",                    // version 1
      "0300000003000000",                    //
      "0205000003000000",                    // command 5
      "02ff000003000000",                    //
      "0200010003000000 00",                 // SYN with a payload
      "0201010003000000 00",                 // FIN
      "0203010000000000 00",                 // NOP
      "0200000103000000",                    //
      "0204000003000000 0000000000000000",   // UPD of another length
      "0204070003000000 0000000000000000",   //
      "0204090003000000 000000000000000000"  //
  };
  for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
    struct end *end = end_new(false);
    assert_int_equal(input(end, "0200000003000000 020202000300000061620203000000000000"), 0);
    assert_int_equal(input(end, broken[i]), ERROR_MALFORMED);
    assert_int_equal(end->users[0].got_len, 2);  // what came before counts
    assert_int_equal(input(end, broken[i]), ERROR_MALFORMED);
    end_free(end);
  }
}

static void frames_of_unknown_streams_are_skipped(void **state) {
  (void)state;
  struct end *end = end_new(false);
  assert_int_equal(input(end, "0200000003000000"), 0);
  assert_int_equal(input(end, "020204000500000061"), 0);            // PSH, and three bytes later
  assert_int_equal(input(end, "626364 0202020003000000 7879"), 0);  // PSH of the known one
  assert_int_equal(input(end, "0204080005000000 0000000000000000"), 0);
  assert_int_equal(input(end, "0201000005000000"), 0);
  assert_int_equal(input(end, "0202000003000000"), 0);  // empty
  assert_int_equal(input(end, "0200000003000000"), 0);  // known already
  assert_int_equal(end->user_count, 1);
  assert_int_equal(end->users[0].got_len, 2);
  assert_memory_equal(end->users[0].got, "xy", 2);
  assert_int_equal(end->users[0].ended, 0);
  end_free(end);
}

static void input_may_be_split_anywhere(void **state) {
  (void)state;
  static const char all[] =
      "0200000003000000 0202050003000000 6162636465 0204080003000000 0000000000000400"
      "0200000005000000 0202030007000000 313233 0202030005000000 363738 0203000000000000"
      "0202010003000000 66 0201000005000000";
  uint8_t bytes[256];
  size_t len = unhex(all, bytes);
  for (size_t first = 0; first <= len; first++) {
    for (size_t second = first; second <= len; second += first % 3 + 1) {
      struct end *end = end_new(false);
      unhex(all, bytes);
      assert_int_equal(smux_input(end->smux, bytes, first, 0), 0);
      assert_int_equal(smux_input(end->smux, bytes + first, second - first, 0), 0);
      assert_int_equal(smux_input(end->smux, bytes + second, len - second, 0), 0);
      assert_int_equal(end->user_count, 2);
      assert_int_equal(end->users[0].got_len, 6);
      assert_memory_equal(end->users[0].got, "abcdef", 6);
      assert_int_equal(end->users[1].got_len, 3);
      assert_memory_equal(end->users[1].got, "678", 3);
      assert_int_equal(end->users[1].ended, 1);
      assert_int_equal(smux_unread_bytes(end->smux), 0);
      end_free(end);
    }
  }
}

// --- Windows ---------------------------------------------------------------------------------

static void the_sender_stops_at_the_window_and_goes_on_with_an_update(void **state) {
  (void)state;
  struct end *client = end_new(true);
  uint8_t *bytes = calloc(1, 300000);
  struct user *user = end_open(client);
  write_all(user, bytes, 300000);
  assert_int_equal(smux_sent_bytes(user->stream), FIRST_WINDOW);
  assert_int_equal(smux_queued_bytes(user->stream), 300000 - FIRST_WINDOW);
  assert_int_equal(smux_send_window(user->stream), 0);
  assert_false(smux_has_output(client->smux));
  // 1000 used, a window of 262144.
  assert_int_equal(input(client, "0204080003000000 e803000000000400"), 0);
  assert_true(smux_has_output(client->smux));
  assert_int_equal(smux_pump(client->smux), 0);
  assert_int_equal(smux_sent_bytes(user->stream), FIRST_WINDOW + 1000);
  assert_int_equal(user->sent, 1);
  // More used than was sent: nothing goes. Then less of a window than is under way; then sane.
  assert_int_equal(input(client, "0204080003000000 00f00400ffffffff"), 0);
  assert_int_equal(smux_send_window(user->stream), 0);
  assert_int_equal(input(client, "0204080003000000 ffffff0f00000001"), 0);
  assert_int_equal(smux_send_window(user->stream), 0);
  assert_int_equal(input(client, "0204080003000000 00000000e8030000"), 0);
  assert_int_equal(smux_send_window(user->stream), 0);
  assert_int_equal(smux_pump(client->smux), 0);
  assert_int_equal(smux_sent_bytes(user->stream), FIRST_WINDOW + 1000);
  assert_int_equal(input(client, "0204080003000000 e803040000000100"), 0);
  assert_int_equal(smux_pump(client->smux), 0);
  assert_int_equal(smux_sent_bytes(user->stream), 300000);
  assert_int_equal(smux_send_window(user->stream), WINDOW - (300000 - FIRST_WINDOW - 1000));
  free(bytes);
  end_free(client);
}

static void updates_come_with_the_first_use_and_each_half_window(void **state) {
  (void)state;
  struct end *server = end_new(false);
  assert_int_equal(input(server, "0200000003000000"), 0);
  struct user *user = &server->users[0];
  user->use_at_most = 0;
  assert_int_equal(input_psh(server, 3, 96), 0);
  assert_wire(server, "");  // not on arrival
  user->use_at_most = SIZE_MAX;
  assert_int_equal(input_psh(server, 3, 4000), 0);
  assert_int_equal(user->got_len, 4096);
  assert_wire(server, "0204080003000000 0010000000000100");
  for (int i = 0; i < 7; i++) {
    assert_int_equal(input_psh(server, 3, 4096), 0);
    assert_wire(server, "");
  }
  assert_int_equal(input_psh(server, 3, 4095), 0);
  assert_wire(server, "");
  assert_int_equal(input_psh(server, 3, 1), 0);
  assert_wire(server, "0204080003000000 0090000000000100");
  end_free(server);
}

static void a_waiting_update_tells_the_latest(void **state) {
  (void)state;
  struct end *server = end_new(false);
  assert_int_equal(input(server, "0200000003000000"), 0);
  server->room = 0;
  for (int i = 0; i < 20; i++) {
    assert_int_equal(input_psh(server, 3, 4096), 0);
  }
  assert_true(smux_has_output(server->smux));
  server->room = SIZE_MAX;
  assert_int_equal(smux_pump(server->smux), 0);
  assert_wire(server, "0204080003000000 0040010000000100");
  assert_false(smux_has_output(server->smux));
  end_free(server);
}

static void a_peer_that_ignores_the_window_is_malformed(void **state) {
  (void)state;
  struct end *server = end_new(false);
  assert_int_equal(input(server, "0200000003000000"), 0);
  smux_pause(server->users[0].stream);
  for (int i = 0; i < (FIRST_WINDOW + WINDOW) / 4096; i++) {
    assert_int_equal(input_psh(server, 3, 4096), 0);
  }
  assert_int_equal(smux_unread_bytes(server->smux), FIRST_WINDOW + WINDOW);
  assert_int_equal(input_psh(server, 3, 1), ERROR_MALFORMED);
  end_free(server);
}

static void a_session_takes_so_much_unread_and_no_more(void **state) {
  (void)state;
  struct end *server = end_new(false);
  server->settings.session_bytes = 10000;
  server->model.use_at_most = 0;
  assert_int_equal(input(server, "0200000003000000 0200000005000000"), 0);
  assert_int_equal(input_psh(server, 3, 5000), 0);
  assert_int_equal(input_psh(server, 5, 4999), 0);
  assert_true(smux_takes_input(server->smux));
  assert_int_equal(input_psh(server, 5, 1), 0);
  assert_false(smux_takes_input(server->smux));
  server->users[1].use_at_most = 1;
  smux_resume(server->users[1].stream);
  assert_true(smux_takes_input(server->smux));
  assert_int_equal(smux_unread_bytes(server->smux), 9999);
  smux_close(server->users[0].stream, true);
  assert_int_equal(smux_unread_bytes(server->smux), 4999);
  end_free(server);
}

// --- Order -----------------------------------------------------------------------------------

static void streams_take_turns_and_control_goes_first(void **state) {
  (void)state;
  struct end *client = end_new(true);
  client->settings.frame_bytes = 2;
  client->settings.keepalive_interval_ms = 10;
  smux_free(client->smux);
  client->smux = smux_new(&client->settings, &carrier, &events, client, 0);
  struct user *a = end_open(client);
  struct user *b = end_open(client);
  struct user *c = end_open(client);
  assert_wire(client, "0200000003000000 0200000005000000 0200000007000000");
  client->room = 0;
  write_all(a, "aaaaa", 5);
  write_all(b, "bb", 2);
  write_all(c, "ccc", 3);
  smux_close(a->stream, true);
  smux_close(b->stream, true);
  end_open(client);
  assert_int_equal(input(client, "0202010007000000 78"), 0);  // used, so that an UPD is due
  assert_true(smux_tick(client->smux, 25));
  assert_wire(client, "");
  assert_int_equal(smux_stream_count(client->smux), 4);
  client->room = SIZE_MAX;
  assert_int_equal(smux_pump(client->smux), 0);
  assert_wire(client,
              "0203000000000000 0200000009000000 0204080007000000 0100000000000100"
              "0202020003000000 6161 0202020005000000 6262 0202020007000000 6363"
              "0202020003000000 6161 0201000005000000 0202010007000000 63"
              "0202010003000000 61 0201000003000000");
  assert_int_equal(a->sent, 0);  // closed: no events
  assert_int_equal(c->sent, 2);
  assert_int_equal(smux_stream_count(client->smux), 2);
  assert_int_equal(smux_pump(client->smux), 0);
  assert_wire(client, "");
  end_free(client);
}

static void a_carrier_without_room_is_written_no_more(void **state) {
  (void)state;
  struct end *client = end_new(true);
  struct user *user = end_open(client);
  client->wire_read = client->wire_len;
  client->room = 10000;
  uint8_t *bytes = calloc(1, 100000);
  write_all(user, bytes, 100000);
  assert_int_equal(client->wire_len - client->wire_read, 3 * (FRAME + SMUX_HEADER_BYTES));
  size_t waited = 3 * FRAME;
  assert_int_equal(smux_queued_bytes(user->stream), 100000 - waited);
  client->wire_read = client->wire_len;
  write_all(user, bytes, 100);  // behind the others, although there is room
  assert_int_equal(client->wire_len, client->wire_read);
  while (smux_has_output(client->smux)) {
    client->wire_read = client->wire_len;
    assert_int_equal(smux_pump(client->smux), 0);
  }
  assert_int_equal(smux_sent_bytes(user->stream), 100100);
  assert_int_equal(user->sent, (100100 - 3 * FRAME + FRAME - 1) / FRAME);
  free(bytes);
  end_free(client);
}

// --- Opening and closing ---------------------------------------------------------------------

static void streams_over_the_bound_are_refused(void **state) {
  (void)state;
  struct end *server = end_new(false);
  assert_int_equal(input(server,
                         "0200000003000000 0200000005000000 0200000007000000 0200000009000000"
                         "020000000b000000 020202000b000000 6162 020100000b000000"),
                   0);
  assert_int_equal(server->user_count, STREAMS);
  assert_wire(server, "020100000b000000");
  smux_close(server->users[0].stream, true);
  assert_wire(server, "0201000003000000");
  server->refuses = true;
  assert_int_equal(input(server, "020000000d000000 020202000d000000 6162"), 0);
  assert_wire(server, "020100000d000000");
  assert_int_equal(smux_stream_count(server->smux), STREAMS - 1);
  end_free(server);
}

static void refusals_that_wait_are_bounded(void **state) {
  (void)state;
  struct end *server = end_new(false);
  server->room = 0;
  int error = 0;
  int count = 0;
  while (!error) {
    uint8_t syn[SMUX_HEADER_BYTES] = {2, 0, 0, 0, (uint8_t)count, 1};
    error = smux_input(server->smux, syn, sizeof syn, 0);
    count++;
    assert_true(count < 1000);
  }
  assert_int_equal(error, ERROR_MALFORMED);
  server->room = SIZE_MAX;
  assert_int_equal(smux_pump(server->smux), 0);
  assert_int_equal(server->wire_len, (size_t)(count - 1 - STREAMS) * SMUX_HEADER_BYTES);
  end_free(server);
}

static void a_client_accepts_no_streams(void **state) {
  (void)state;
  struct end *client = end_new(true);
  assert_int_equal(input(client, "0200000002000000"), 0);
  assert_wire(client, "0201000002000000");
  assert_int_equal(client->user_count, 0);
  end_free(client);
}

static void a_stream_the_peer_ended_takes_no_more(void **state) {
  (void)state;
  struct end *server = end_new(false);
  assert_int_equal(input(server, "0200000003000000"), 0);
  struct user *user = &server->users[0];
  server->room = 0;
  write_all(user, "waits", 5);
  assert_int_equal(input(server, "0202010003000000 30"), 0);  // an UPD is due, but for the end
  smux_pause(user->stream);
  assert_int_equal(input(server, "0202020003000000 6162 0201000003000000 0201000003000000"), 0);
  assert_int_equal(user->ended, 0);  // two bytes are still to be used
  assert_int_equal(smux_write(user->stream, (const uint8_t *)"x", 1), ERROR_INVALID);
  assert_int_equal(smux_queued_bytes(user->stream), 0);
  assert_false(smux_has_output(server->smux));
  smux_resume(user->stream);
  assert_int_equal(user->got_len, 3);
  assert_int_equal(user->ended, 1);
  assert_int_equal(input(server, "0202020003000000 6162"), 0);
  assert_int_equal(user->got_len, 3);
  smux_close(user->stream, true);
  server->room = SIZE_MAX;
  assert_int_equal(smux_pump(server->smux), 0);
  assert_wire(server, "0201000003000000");
  assert_int_equal(smux_stream_count(server->smux), 0);
  end_free(server);
}

static void a_rest_that_never_becomes_whole_does_not_hide_the_end(void **state) {
  (void)state;
  struct end *server = end_new(false);
  server->model.use_at_most = 0;
  assert_int_equal(input(server, "0200000003000000 0202020003000000 6162 0201000003000000"), 0);
  assert_int_equal(server->users[0].ended, 1);
  end_free(server);
}

static void a_stream_that_the_peer_ends_while_it_is_closed_goes(void **state) {
  (void)state;
  struct end *client = end_new(true);
  struct user *user = end_open(client);
  uint8_t *bytes = calloc(1, 300000);
  write_all(user, bytes, 300000);  // over the window: only the peer can bring it forward
  client->wire_read = client->wire_len;
  smux_close(user->stream, true);
  assert_int_equal(smux_stream_count(client->smux), 1);
  assert_int_equal(input(client, "0202020003000000 6162 0201000003000000"), 0);
  assert_int_equal(smux_pump(client->smux), 0);
  assert_wire(client, "0201000003000000");
  assert_int_equal(smux_stream_count(client->smux), 0);
  free(bytes);
  end_free(client);
}

static void a_stream_closed_before_its_syn_went_was_never_there(void **state) {
  (void)state;
  struct end *client = end_new(true);
  client->room = 0;
  struct user *a = end_open(client);
  struct user *b = end_open(client);
  write_all(a, "abc", 3);
  write_all(b, "abc", 3);
  smux_close(a->stream, false);
  smux_close(b->stream, true);
  client->room = SIZE_MAX;
  assert_int_equal(smux_pump(client->smux), 0);
  assert_wire(client, "0200000005000000 0202030005000000 616263 0201000005000000");
  assert_int_equal(smux_stream_count(client->smux), 0);
  end_free(client);
}

static void any_event_may_close_its_stream(void **state) {
  (void)state;
  static const char all[] =
      "0200000003000000 0202050003000000 6162636465 0202020003000000 6667"
      "0201000003000000 0202010003000000 66 0203000000000000";
  for (int event = ON_OPEN; event <= ON_SENT; event++) {
    for (unsigned variant = 0; variant < 32; variant++) {
      struct end *server = end_new(false);
      server->model.closes_on = (enum event)event;
      server->model.closes_with_flush = (variant & 1) != 0;
      server->model.use_at_most = variant & 2 ? 1 : SIZE_MAX;
      server->model.echoes = event != ON_OPEN && (variant & 4) != 0;
      server->room = variant & 8 ? 0 : SIZE_MAX;
      uint8_t bytes[256];
      size_t len = unhex(all, bytes);
      for (size_t i = 0, step = variant & 16 ? 1 : len; i < len; i += step) {
        assert_int_equal(smux_input(server->smux, bytes + i, step, 0), 0);
        if (variant & 16) {
          assert_int_equal(smux_pump(server->smux), 0);
        }
      }
      server->room = SIZE_MAX;
      assert_int_equal(smux_pump(server->smux), 0);
      bool was_closed = server->users[0].stream == NULL;
      assert_int_equal(smux_stream_count(server->smux), was_closed ? 0 : 1);
      assert_true(was_closed || event == ON_SENT);
      if (was_closed) {
        assert_int_equal(smux_unread_bytes(server->smux), 0);
        assert_memory_equal(server->wire + server->wire_len - 8, "\2\1\0\0\3\0\0\0", 8);
      }
      end_free(server);
    }
  }
}

static void a_stream_closed_over_its_kept_bytes_leaves_none(void **state) {
  (void)state;
  for (int has_room = 0; has_room < 2; has_room++) {
    struct end *server = end_new(false);
    server->room = has_room ? SIZE_MAX : 0;
    server->model.use_at_most = 2;
    assert_int_equal(input(server, "0200000003000000 0202050003000000 6162636465"), 0);
    server->users[0].closes_on = ON_BYTES;
    assert_int_equal(input(server, "0202050003000000 666768"), 0);
    assert_int_equal(smux_unread_bytes(server->smux), 0);
    assert_int_equal(smux_stream_count(server->smux), has_room ? 0 : 1);
    assert_int_equal(input(server, "696a 0203000000000000"), 0);
    assert_int_equal(smux_unread_bytes(server->smux), 0);
    end_free(server);
  }
}

static void on_sent_may_close_its_stream(void **state) {
  (void)state;
  for (int flush = 0; flush < 2; flush++) {
    struct end *client = end_new(true);
    struct user *user = end_open(client);
    user->closes_on = ON_SENT;
    user->closes_with_flush = flush;
    client->settings.frame_bytes = 2;
    client->wire_read = client->wire_len;
    client->room = 0;
    write_all(user, "abc", 3);
    client->room = SIZE_MAX;
    assert_int_equal(smux_pump(client->smux), 0);
    assert_wire(client, flush ? "0202020003000000 6162 0202010003000000 63 0201000003000000"
                              : "0202020003000000 6162 0201000003000000");
    assert_int_equal(user->sent, 1);
    assert_int_equal(smux_stream_count(client->smux), 0);
    end_free(client);
  }
}

static void a_paused_stream_keeps_what_comes(void **state) {
  (void)state;
  struct end *server = end_new(false);
  server->model.pause_after = 3;
  assert_int_equal(input(server, "0200000003000000 0202050003000000 6162636465"), 0);
  struct user *user = &server->users[0];
  assert_int_equal(user->got_len, 3);
  assert_int_equal(input(server, "0202030003000000 666768"), 0);
  assert_int_equal(user->offered, 1);
  assert_int_equal(smux_unread_bytes(server->smux), 5);
  smux_resume(user->stream);
  assert_int_equal(user->offered, 2);
  assert_int_equal(user->last_offer, 5);
  assert_memory_equal(user->got, "abcdefgh", 8);
  user->pause_after = 10;
  user->resumes_within = true;
  assert_int_equal(input(server, "0202050003000000 696a6b6c6d"), 0);
  assert_int_equal(user->got_len, 13);
  assert_memory_equal(user->got, "abcdefghijklm", 13);
  assert_int_equal(smux_unread_bytes(server->smux), 0);
  end_free(server);
}

static void the_rest_comes_again_with_more_behind_it(void **state) {
  (void)state;
  struct end *server = end_new(false);
  server->model.use_at_most = 2;
  assert_int_equal(input(server, "0200000003000000 0202050003000000 6162636465"), 0);
  assert_int_equal(input(server, "0202030003000000 666768"), 0);
  assert_int_equal(server->users[0].last_offer, 6);
  server->users[0].use_at_most = SIZE_MAX;
  assert_int_equal(input(server, "0202010003000000 69"), 0);
  assert_int_equal(server->users[0].last_offer, 5);
  assert_memory_equal(server->users[0].got, "abcdefghi", 9);
  end_free(server);
}

// --- Keepalive, memory -----------------------------------------------------------------------

static struct end *keepalive_end(int64_t interval_ms, int64_t timeout_ms) {
  struct end *end = end_new(false);
  end->settings.keepalive_interval_ms = interval_ms;
  end->settings.keepalive_timeout_ms = timeout_ms;
  smux_free(end->smux);
  end->smux = smux_new(&end->settings, &carrier, &events, end, 1000);
  return end;
}

static void a_nop_goes_each_interval_whatever_the_traffic(void **state) {
  (void)state;
  struct end *end = keepalive_end(100, 0);
  for (int64_t now = 1000; now < 2000; now++) {
    assert_int_equal(smux_due(end->smux),
                     1100 + (now - 1000 + 99) / 100 * 100 - 100 + (now == 1000 ? 100 : 0));
    assert_true(smux_tick(end->smux, now));
    if (now > 1000 && now % 100 == 0) {
      assert_wire(end, "0203000000000000");
    } else {
      assert_wire(end, "");
    }
  }
  end->room = 0;
  for (int64_t now = 2000; now < 2900; now += 50) {
    assert_true(smux_tick(end->smux, now));
  }
  end->room = SIZE_MAX;
  assert_int_equal(smux_pump(end->smux), 0);
  assert_wire(end, "0203000000000000");  // one is enough
  assert_true(smux_tick(end->smux, 9930));
  assert_wire(end, "0203000000000000");
  assert_int_equal(smux_due(end->smux), 10030);
  end_free(end);
}

static void a_nop_that_is_due_before_long_goes_with_the_answer_to_the_peers(void **state) {
  (void)state;
  struct end *end = keepalive_end(100, 0);
  assert_int_equal(smux_input(end->smux, (uint8_t[]){2, SMUX_NOP, 0, 0, 0, 0, 0, 0}, 8, 1040), 0);
  assert_wire(end, "");
  assert_int_equal(smux_input(end->smux, (uint8_t[]){2, SMUX_NOP, 0, 0, 0, 0, 0, 0}, 8, 1060), 0);
  assert_wire(end, "0203000000000000");
  assert_int_equal(smux_due(end->smux), 1166);
  assert_int_equal(smux_input(end->smux, (uint8_t[]){2, SMUX_NOP, 0, 0, 0, 0, 0, 0}, 8, 1061), 0);
  assert_wire(end, "");
  end_free(end);
}

static void a_silent_peer_is_gone_after_once_to_twice_the_timeout(void **state) {
  (void)state;
  for (int64_t last_heard = 0; last_heard <= 1000; last_heard += 50) {
    struct end *end = keepalive_end(0, 300);
    int64_t now = 1000;
    while (smux_tick(end->smux, now)) {
      if (now < 1000 + last_heard) {
        // Each kind of frame is a sign of life, even that of an unknown stream.
        assert_int_equal(input(end, now % 20 ? "0203000000000000" : "0202010009000000 00"), 0);
      }
      now += 10;
    }
    int64_t silent = now - 1000 - last_heard;
    assert_true(silent >= 300 - 10 && silent <= 600);
    assert_true(last_heard > 0 || now == 1300);
    end_free(end);
  }
}

static void a_peer_that_is_not_read_is_not_silent(void **state) {
  (void)state;
  struct end *end = keepalive_end(0, 300);
  end->settings.session_bytes = 10;
  end->model.use_at_most = 0;
  assert_int_equal(input(end, "0200000003000000"), 0);
  assert_int_equal(input_psh(end, 3, 10), 0);
  assert_true(smux_tick(end->smux, 1300));
  assert_true(smux_tick(end->smux, 1600));
  end->users[0].use_at_most = 10;
  smux_resume(end->users[0].stream);
  assert_false(smux_tick(end->smux, 1900));
  end_free(end);
}

static void without_keepalive_nothing_is_due(void **state) {
  (void)state;
  struct end *end = end_new(false);
  assert_int_equal(smux_due(end->smux), SMUX_NEVER);
  assert_true(smux_tick(end->smux, INT64_C(1) << 60));
  assert_wire(end, "");
  end_free(end);
}

static void a_carrier_out_of_memory_gets_no_half_frame_unnoticed(void **state) {
  (void)state;
  struct end *client = end_new(true);
  client->writes_until_failure = 0;
  struct user *user = end_open(client);
  assert_int_equal(smux_pump(client->smux), ERROR_MEMORY);
  client->writes_until_failure = -1;
  assert_int_equal(smux_pump(client->smux), 0);
  assert_wire(client, "0200000003000000");
  client->writes_until_failure = 0;
  assert_int_equal(smux_write(user->stream, (const uint8_t *)"a", 1), ERROR_MEMORY);
  client->writes_until_failure = -1;
  write_all(user, "b", 1);  // the one before was not taken
  assert_wire(client, "0202010003000000 62");
  client->settings.frame_bytes = 1;
  client->writes_until_failure = 0;
  write_all(user, "cd", 2);  // more than a frame: it was taken, and waits
  assert_int_equal(smux_pump(client->smux), ERROR_MEMORY);
  client->writes_until_failure = -1;
  assert_int_equal(smux_pump(client->smux), 0);
  assert_wire(client, "0202010003000000 63 0202010003000000 64");
  client->writes_until_failure = 1;
  assert_int_equal(smux_write(user->stream, (const uint8_t *)"a", 1), ERROR_MEMORY);
  client->writes_until_failure = -1;
  client->wire_read = client->wire_len;
  write_all(user, "b", 1);
  smux_close(user->stream, true);
  assert_true(smux_has_output(client->smux));
  assert_int_equal(smux_pump(client->smux), ERROR_MEMORY);
  assert_wire(client, "");
  end_free(client);
}

// --- Two ends --------------------------------------------------------------------------------

static uint8_t pattern(uint32_t id, uint64_t at) {
  return (uint8_t)(id * 31 + at * 7 + (at >> 8) * 13 + (at >> 16));
}

static void write_pattern(struct user *user, size_t len) {
  uint8_t bytes[20000];
  for (size_t i = 0; i < len; i++) {
    bytes[i] = pattern(smux_stream_id(user->stream), user->next_out++);
  }
  write_all(user, bytes, len);
}

static void assert_pattern(const struct user *user, uint32_t id, uint64_t len) {
  assert_int_equal(user->got_len, len);
  for (size_t i = 0; i < len; i++) {
    assert_int_equal(user->got[i], pattern(id, i));
  }
}

static void open_all(struct end *client, struct end *server) {
  for (int i = 0; i < STREAMS; i++) {
    end_open(client);
  }
  move_all(client, server);
  assert_int_equal(server->user_count, STREAMS);
}

// Moves everything until nothing moves.
static void settle(struct end *client, struct end *server) {
  size_t before;
  do {
    before = client->wire_len + server->wire_len;
    for (size_t i = 0; i < 2 * STREAMS; i++) {
      struct user *user = i < STREAMS ? &client->users[i] : &server->users[i - STREAMS];
      user->use_at_most = SIZE_MAX;
      smux_resume(user->stream);
    }
    move_all(client, server);
    move_all(server, client);
    assert_int_equal(smux_pump(client->smux), 0);
    assert_int_equal(smux_pump(server->smux), 0);
  } while (client->wire_len + server->wire_len > before);
}

static void step_anyhow(struct end *from, struct end *to, size_t step) {
  struct user *user = &from->users[any(STREAMS)];
  from->room = any(8) == 0 ? 0 : any(30000);
  if (any(3) == 0 && smux_queued_bytes(user->stream) < 100000) {
    write_pattern(user, any(step % 7 == 0 ? 20000 : 300) + 1);
  }
  if (any(20) == 0) {
    smux_pause(user->stream);
  }
  if (any(5) == 0) {
    smux_resume(user->stream);
  }
  user->use_at_most = any(4) ? SIZE_MAX : any(2000);
  assert_int_equal(smux_pump(from->smux), 0);
  if (any(2) == 0 && from->wire_len > from->wire_read) {
    move(from, to, any((unsigned)(from->wire_len - from->wire_read)) + 1);
  }
}

static void joined_ends_pass_everything_byte_by_byte(uint32_t client_at, uint32_t server_at) {
  for (unsigned round = 1; round <= 5; round++) {
    struct end *client = end_new(true);
    struct end *server = end_new(false);
    seed = round;
    open_all(client, server);
    for (int i = 0; i < STREAMS; i++) {
      smux_stream_start_at(client->users[i].stream, client_at, server_at);
      smux_stream_start_at(server->users[i].stream, server_at, client_at);
    }
    for (size_t step = 0; step < 3000; step++) {
      step_anyhow(client, server, step);
      step_anyhow(server, client, step);
    }
    client->room = server->room = SIZE_MAX;
    settle(client, server);
    for (int i = 0; i < STREAMS; i++) {
      uint32_t id = smux_stream_id(client->users[i].stream);
      assert_true(client->users[i].next_out > 100000);
      assert_pattern(&server->users[i], id, client->users[i].next_out);
      assert_pattern(&client->users[i], id, server->users[i].next_out);
      assert_int_equal(smux_sent_bytes(client->users[i].stream),
                       client_at + client->users[i].next_out);
    }
    assert_int_equal(smux_unread_bytes(server->smux), 0);
    assert_false(smux_has_output(server->smux));
    end_free(client);
    end_free(server);
  }
}

static void joined_ends_pass_everything(void **state) {
  (void)state;
  joined_ends_pass_everything_byte_by_byte(0, 0);
}

static void counters_wrap_around(void **state) {
  (void)state;
  joined_ends_pass_everything_byte_by_byte(0xFFFFF000, 0xFFFFF800);
}

static void one_that_is_held_takes_nothing_more_until_it_is_released(void **state) {
  (void)state;
  struct end *end = end_new(false);
  end->holds_at = 2;
  assert_true(smux_takes_input(end->smux));
  assert_int_equal(input(end,
                         "0200000003000000 0200000005000000 0200000007000000 0202020007000000"
                         "6162 0202"),
                   0);
  assert_true(smux_is_held(end->smux));
  assert_false(smux_takes_input(end->smux));
  assert_int_equal(end->user_count, 2);
  assert_int_equal(smux_pump(end->smux), 0);
  assert_wire(end, "0203000000000000");  // for the peer to acknowledge
  assert_int_equal(smux_release(end->smux, 0), 0);
  assert_true(smux_takes_input(end->smux));
  assert_int_equal(end->user_count, 3);
  assert_int_equal(end->users[2].got_len, 2);
  assert_int_equal(input(end, "010003000000 78"), 0);
  assert_int_equal(end->users[0].got_len, 1);
  end_free(end);
}

static void what_breaks_the_protocol_is_malformed_when_it_was_held_back_too(void **state) {
  (void)state;
  struct end *end = end_new(false);
  end->holds_at = 1;
  assert_int_equal(input(end, "0200000003000000 0100000003000000"), 0);
  assert_int_equal(smux_release(end->smux, 0), ERROR_MALFORMED);
  end_free(end);
}

static void one_that_is_held_may_end(void **state) {
  (void)state;
  struct end *end = end_new(false);
  end->holds_at = 1;
  assert_int_equal(input(end, "0200000003000000 0200000005000000"), 0);
  end_free(end);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(frames_are_those_of_the_go_stack),
      cmocka_unit_test(what_breaks_the_protocol_is_malformed),
      cmocka_unit_test(frames_of_unknown_streams_are_skipped),
      cmocka_unit_test(input_may_be_split_anywhere),
      cmocka_unit_test(the_sender_stops_at_the_window_and_goes_on_with_an_update),
      cmocka_unit_test(updates_come_with_the_first_use_and_each_half_window),
      cmocka_unit_test(a_waiting_update_tells_the_latest),
      cmocka_unit_test(a_peer_that_ignores_the_window_is_malformed),
      cmocka_unit_test(a_session_takes_so_much_unread_and_no_more),
      cmocka_unit_test(streams_take_turns_and_control_goes_first),
      cmocka_unit_test(a_carrier_without_room_is_written_no_more),
      cmocka_unit_test(streams_over_the_bound_are_refused),
      cmocka_unit_test(refusals_that_wait_are_bounded),
      cmocka_unit_test(a_client_accepts_no_streams),
      cmocka_unit_test(a_stream_the_peer_ended_takes_no_more),
      cmocka_unit_test(a_rest_that_never_becomes_whole_does_not_hide_the_end),
      cmocka_unit_test(a_stream_that_the_peer_ends_while_it_is_closed_goes),
      cmocka_unit_test(a_stream_closed_before_its_syn_went_was_never_there),
      cmocka_unit_test(any_event_may_close_its_stream),
      cmocka_unit_test(a_stream_closed_over_its_kept_bytes_leaves_none),
      cmocka_unit_test(on_sent_may_close_its_stream),
      cmocka_unit_test(a_paused_stream_keeps_what_comes),
      cmocka_unit_test(the_rest_comes_again_with_more_behind_it),
      cmocka_unit_test(a_nop_goes_each_interval_whatever_the_traffic),
      cmocka_unit_test(a_nop_that_is_due_before_long_goes_with_the_answer_to_the_peers),
      cmocka_unit_test(a_silent_peer_is_gone_after_once_to_twice_the_timeout),
      cmocka_unit_test(a_peer_that_is_not_read_is_not_silent),
      cmocka_unit_test(without_keepalive_nothing_is_due),
      cmocka_unit_test(a_carrier_out_of_memory_gets_no_half_frame_unnoticed),
      cmocka_unit_test(one_that_is_held_takes_nothing_more_until_it_is_released),
      cmocka_unit_test(what_breaks_the_protocol_is_malformed_when_it_was_held_back_too),
      cmocka_unit_test(one_that_is_held_may_end),
      cmocka_unit_test(joined_ends_pass_everything),
      cmocka_unit_test(counters_wrap_around),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
