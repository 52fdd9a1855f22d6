#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/kcp/link.h"

enum {
  STREAMS = 4,
  REPEATS = 2,           // of the whole row of sizes
  DATAGRAMS_MAX = 8192,  // under way at a time
  DELAY_MS = 25,
  LONG_DELAY_MS = 200,    // over twice this KCP's first timeout is long over
  JUST_BEFORE_WRAP = 26,  // sequence numbers
};

enum kinds { ALL_KINDS, DATA_ALONE, PARITY_ALONE, ACKNOWLEDGEMENTS_ALONE };

// What happens to a datagram on the way, in each direction by itself, in percent.
struct path {
  unsigned loss;
  enum kinds lossy;  // what of it may be lost
  unsigned doubled;
  unsigned held_back;  // and overtaken by what follows within HELD_BACK_MAX_MS
  bool is_cut;         // all is lost
  unsigned queue;      // of so many that arrive at the same time the rest is lost; 0: none is
};
enum { HELD_BACK_MAX_MS = 20 };

struct datagram {
  int64_t at_ms;
  uint64_t order;  // of those at the same time
  uint8_t *bytes;
  size_t len;
};

struct end;

// One stream at one end: what it has to say, and what it has heard.
struct speaker {
  struct end *end;
  struct smux_stream *stream;
  unsigned number;
  size_t to_write;  // bytes, of the client's
  size_t written;
  size_t heard;
  bool is_paused;
  bool has_ended;
};

struct end {
  struct link *link;
  struct link_settings settings;
  struct end *peer;
  struct path path;  // of what it sends
  uint8_t scratch[LINK_SCRATCH_BYTES];
  bool is_dirty;
  int error;  // why the link ended
  unsigned opened;
  unsigned waits_at;  // streams, for its peer to show that it is there; 0: never
  struct speaker speakers[STREAMS];
  // Under way to the peer.
  struct datagram under_way[DATAGRAMS_MAX];
  size_t count;
  uint64_t sent;
  size_t longest;
};

static struct end client;
static struct end server;
static struct reed_solomon *code_10_3;
static struct reed_solomon *code_8_2;
static int64_t now_ms;
static int64_t delay_ms;
static unsigned seed;
static uint64_t order;
static uint64_t wakes;

static unsigned any(unsigned below) { return (unsigned)rand_r(&seed) % below; }

static bool chance(unsigned percent) { return any(100) < percent; }

// Byte `at` of what a stream's client says.
static uint8_t byte_of(unsigned stream, size_t at) {
  uint64_t mixed = (at + 1) * UINT64_C(0x9e3779b97f4a7c15) + stream * UINT64_C(0xbf58476d1ce4e5b9);
  return (uint8_t)(mixed >> 56);
}

// --- The path --------------------------------------------------------------------------------

static void put_under_way(struct end *end, const uint8_t *bytes, size_t len, int64_t at_ms) {
  assert_true(end->count < DATAGRAMS_MAX);
  struct datagram *datagram = &end->under_way[end->count++];
  datagram->at_ms = at_ms;
  datagram->order = order++;
  datagram->len = len;
  datagram->bytes = malloc(len);
  assert_non_null(datagram->bytes);
  memcpy(datagram->bytes, bytes, len);
}

static bool is_acknowledgement(const uint8_t *datagram) {
  return datagram[4] == FEC_DATA && datagram[FEC_HEADER_BYTES + 4] == KCP_ACK;
}

static bool is_of_kind(const uint8_t *datagram, size_t len, enum kinds kinds) {
  switch (kinds) {
    case DATA_ALONE: return !link_is_parity(datagram, len) && !is_acknowledgement(datagram);
    case PARITY_ALONE: return link_is_parity(datagram, len);
    case ACKNOWLEDGEMENTS_ALONE: return is_acknowledgement(datagram);
    default: return true;
  }
}

// Whether the receiver's socket holds another one of those that come together.
static bool has_room(const struct end *end, int64_t at_ms) {
  unsigned waiting = 0;
  for (size_t i = 0; i < end->count; i++) {
    waiting += end->under_way[i].at_ms == at_ms;
  }
  return end->path.queue == 0 || waiting < end->path.queue;
}

static void on_output(const uint8_t *bytes, size_t len, void *owner) {
  struct end *end = owner;
  const struct path *path = &end->path;
  end->sent++;
  end->longest = len > end->longest ? len : end->longest;
  if (path->is_cut || !has_room(end, now_ms + delay_ms) ||
      (is_of_kind(bytes, len, path->lossy) && chance(path->loss))) {
    return;
  }
  int copies = chance(path->doubled) ? 2 : 1;
  for (int i = 0; i < copies; i++) {
    int64_t held_ms = chance(path->held_back) ? 1 + any(HELD_BACK_MAX_MS) : 0;
    put_under_way(end, bytes, len, now_ms + delay_ms + held_ms);
  }
}

static struct datagram *next_under_way(struct end *end) {
  struct datagram *next = NULL;
  for (size_t i = 0; i < end->count; i++) {
    struct datagram *at = &end->under_way[i];
    if (!next || at->at_ms < next->at_ms || (at->at_ms == next->at_ms && at->order < next->order)) {
      next = at;
    }
  }
  return next;
}

static void forget_under_way(struct end *end) {
  while (end->count > 0) {
    free(end->under_way[--end->count].bytes);
  }
}

// --- The ends --------------------------------------------------------------------------------

static void on_dirty(void *owner) {
  struct end *end = owner;
  assert_false(end->is_dirty);  // once for each flush
  end->is_dirty = true;
}

static void *on_open(struct smux_stream *stream, void *owner) {
  struct end *end = owner;
  assert_true(end->opened < STREAMS);
  struct speaker *speaker = &end->speakers[end->opened];
  *speaker = (struct speaker){.end = end, .stream = stream, .number = end->opened++};
  assert_int_equal(smux_stream_id(stream), 3 + 2 * speaker->number);
  if (end->opened == end->waits_at) {
    link_wait_for_peer(end->link);
  }
  return speaker;
}

static void say_more(struct speaker *speaker);

// The server says again what it hears; the client compares.
static size_t on_bytes(uint8_t *bytes, size_t len, void *stream_owner) {
  struct speaker *speaker = stream_owner;
  if (speaker->is_paused) {
    smux_pause(speaker->stream);
    return 0;
  }
  for (size_t i = 0; i < len; i++) {
    assert_int_equal(bytes[i], byte_of(speaker->number, speaker->heard + i));
  }
  speaker->heard += len;
  if (speaker->end == &server) {
    assert_int_equal(smux_write(speaker->stream, bytes, len), 0);
  } else {
    say_more(speaker);
  }
  return len;
}

static void on_ended(void *stream_owner) {
  struct speaker *speaker = stream_owner;
  speaker->has_ended = true;
  smux_close(speaker->stream, true);
  speaker->stream = NULL;
}

static void on_sent(void *stream_owner) { (void)stream_owner; }

static const struct link_events events = {
    on_output, on_dirty, {on_open, on_bytes, on_ended, on_sent}};

static struct link_settings settings_of(bool is_client, const struct reed_solomon *code) {
  return (struct link_settings){.code = code,
                                .kcp = {.nodelay = true,
                                        .interval_ms = 10,
                                        .resend = 2,
                                        .ack_nodelay = true,
                                        .send_window = 128,
                                        .receive_window = 128,
                                        .mtu = 1400},
                                .smux = {.client = is_client,
                                         .frame_bytes = 4096,
                                         .stream_bytes = 65536,
                                         .session_bytes = 4 << 20,
                                         .streams_max = STREAMS,
                                         .keepalive_interval_ms = 10000,
                                         .keepalive_timeout_ms = 30000}};
}

static void prepare(struct end *end, struct end *peer, const struct reed_solomon *code) {
  memset(end, 0, sizeof *end);
  end->settings = settings_of(end == &client, code);
  end->settings.scratch = end->scratch;
  end->peer = peer;
}

// Both ends, not yet there: a test may change their settings.
static void prepare_both(const struct reed_solomon *client_code,
                         const struct reed_solomon *server_code) {
  now_ms = 1000000;
  delay_ms = DELAY_MS;
  seed = 1;
  order = 0;
  wakes = 0;
  prepare(&client, &server, client_code);
  prepare(&server, &client, server_code);
}

static void start_end(struct end *end) {
  end->link = link_new(0x11223344, &end->settings, &events, end, now_ms);
  assert_non_null(end->link);
}

static void start(void) {
  start_end(&client);
  start_end(&server);
}

static void finish(void) {
  forget_under_way(&client);
  forget_under_way(&server);
  link_free(client.link);
  link_free(server.link);
}

static void open_streams(void) {
  for (unsigned i = 0; i < STREAMS; i++) {
    struct speaker *speaker = &client.speakers[i];
    *speaker = (struct speaker){.end = &client, .number = i};
    speaker->stream = smux_open(link_smux(client.link), speaker);
    assert_non_null(speaker->stream);
  }
  client.opened = STREAMS;
  link_touch(client.link);
}

// --- Time ------------------------------------------------------------------------------------

static void note(struct end *end, int error) {
  if (error != 0 && end->error == 0) {
    end->error = error;
  }
}

static void flush_dirty(struct end *end) {
  for (int i = 0; end->is_dirty && end->error == 0; i++) {
    assert_true(i < 100);  // it comes to rest
    end->is_dirty = false;
    note(end, link_flush(end->link, now_ms));
  }
}

// What `end` sent and has arrived by now.
static void deliver(struct end *end) {
  struct datagram *next;
  while ((next = next_under_way(end)) && next->at_ms <= now_ms) {
    struct datagram datagram = *next;
    *next = end->under_way[--end->count];
    if (end->peer->error == 0) {
      note(end->peer, link_input(end->peer->link, datagram.bytes, datagram.len, now_ms));
    }
    free(datagram.bytes);
  }
}

static void tick(struct end *end) {
  if (end->error == 0 && link_due(end->link, now_ms) <= now_ms) {
    wakes++;
    note(end, link_tick(end->link, now_ms));
  }
}

static int64_t due_of(struct end *end) {
  const struct datagram *next = next_under_way(end);
  int64_t due = end->error == 0 ? link_due(end->link, now_ms) : LINK_NEVER;
  return next && next->at_ms < due ? next->at_ms : due;
}

static void step(int64_t until_ms) {
  int64_t due = due_of(&client) < due_of(&server) ? due_of(&client) : due_of(&server);
  due = due < until_ms ? due : until_ms;
  // A link that has nothing to do must not want to be called again at once.
  assert_true(due > now_ms);
  now_ms = due;
  deliver(&client);
  deliver(&server);
  tick(&client);
  tick(&server);
  flush_dirty(&client);
  flush_dirty(&server);
}

static void run_for(int64_t ms) {
  int64_t until_ms = now_ms + ms;
  flush_dirty(&client);
  flush_dirty(&server);
  while (now_ms < until_ms) {
    step(until_ms);
  }
}

static bool is_done(void) {
  for (unsigned i = 0; i < STREAMS; i++) {
    const struct speaker *speaker = &client.speakers[i];
    if (speaker->heard < speaker->to_write) {
      return false;
    }
  }
  return true;
}

static bool is_settled(void) {
  return is_done() && link_is_settled(client.link) && link_is_settled(server.link);
}

static bool run_until(bool (*holds)(void), int64_t limit_ms) {
  int64_t until_ms = now_ms + limit_ms;
  flush_dirty(&client);
  flush_dirty(&server);
  while (!holds() && now_ms < until_ms && client.error == 0 && server.error == 0) {
    step(until_ms);
  }
  return holds();
}

// --- What is said ----------------------------------------------------------------------------

static const size_t sizes[] = {1, 5, 4092, 4093, 9000, 16384};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void write_of(struct speaker *speaker, size_t len) {
  uint8_t *bytes = malloc(len);
  assert_non_null(bytes);
  for (size_t i = 0; i < len; i++) {
    bytes[i] = byte_of(speaker->number, speaker->written + i);
  }
  assert_int_equal(smux_write(speaker->stream, bytes, len), 0);
  speaker->written += len;
  link_touch(client.link);
  free(bytes);
}

// The next message, once the one before has come back.
static void say_more(struct speaker *speaker) {
  size_t end_of_message = 0;
  if (speaker->heard < speaker->written || speaker->written >= speaker->to_write) {
    return;
  }
  for (size_t i = 0; end_of_message <= speaker->written; i++) {
    end_of_message += sizes[i % SIZES];
  }
  write_of(speaker, end_of_message - speaker->written);
}

static void ask_for_echo(struct speaker *speaker) {
  for (size_t i = 0; i < SIZES; i++) {
    speaker->to_write += REPEATS * sizes[i];
  }
  say_more(speaker);
}

// Four streams, each with every size there and back, all at once.
static void echo(int64_t limit_ms) {
  open_streams();
  for (unsigned i = 0; i < STREAMS; i++) {
    ask_for_echo(&client.speakers[i]);
  }
  assert_true(run_until(is_settled, limit_ms));
  assert_int_equal(client.error, 0);
  assert_int_equal(server.error, 0);
  for (unsigned i = 0; i < STREAMS; i++) {
    assert_int_equal(client.speakers[i].heard, client.speakers[i].to_write);
  }
}

static void set_paths(struct path path) {
  client.path = path;
  server.path = path;
}

static struct link_state state_of(const struct end *end) {
  struct link_state state;
  link_describe(end->link, &state);
  return state;
}

enum { ECHO_LIMIT_MS = 600000 };

static int prepare_codes(void **state) {
  (void)state;
  code_10_3 = reed_solomon_new(10, 3);
  code_8_2 = reed_solomon_new(8, 2);
  return code_10_3 && code_8_2 ? 0 : -1;
}

static int free_codes(void **state) {
  (void)state;
  reed_solomon_free(code_10_3);
  reed_solomon_free(code_8_2);
  return 0;
}

// --- Echo over all kinds of paths --------------------------------------------------------------

static void a_clean_path_needs_no_retransmission(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  start();
  echo(ECHO_LIMIT_MS);
  assert_int_equal(state_of(&client).kcp_counts.retransmits, 0);
  assert_int_equal(state_of(&server).kcp_counts.retransmits, 0);
  assert_int_equal(state_of(&server).fec.recovered, 0);
  assert_true(state_of(&server).fec.parity_in > 0);
  assert_int_equal(state_of(&server).malformed_in, 0);
  assert_int_equal(client.longest, 1408);
  finish();
}

static void echo_over(struct path path, const struct reed_solomon *client_code,
                      const struct reed_solomon *server_code) {
  for (unsigned round = 1; round <= 5; round++) {
    prepare_both(client_code, server_code);
    seed = round;
    set_paths(path);
    start();
    echo(ECHO_LIMIT_MS);
    assert_int_equal(state_of(&client).malformed_in, 0);
    assert_int_equal(state_of(&server).malformed_in, 0);
    finish();
  }
}

static void every_byte_comes_back_whatever_the_path_loses(void **state) {
  (void)state;
  static const unsigned losses[] = {1, 10, 30};
  for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
    struct path path = {.loss = losses[i]};
    echo_over(path, code_10_3, code_10_3);
    echo_over(path, NULL, NULL);
    echo_over(path, code_10_3, NULL);
    echo_over(path, NULL, code_10_3);
    echo_over(path, code_8_2, code_10_3);
  }
}

static void doubled_and_reordered_datagrams_change_nothing(void **state) {
  (void)state;
  static const struct path paths[] = {{.doubled = 10},
                                      {.held_back = 10},
                                      {.doubled = 100},
                                      {.held_back = 100},
                                      {.loss = 10, .doubled = 10, .held_back = 10},
                                      {.loss = 30, .doubled = 30, .held_back = 30}};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    echo_over(paths[i], code_10_3, code_10_3);
    echo_over(paths[i], NULL, NULL);
  }
}

static void fec_makes_up_for_what_is_lost(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  set_paths((struct path){.loss = 5});
  start();
  echo(ECHO_LIMIT_MS);
  assert_true(state_of(&client).fec.recovered > 0);
  assert_true(state_of(&server).fec.recovered > 0);
  assert_int_equal(state_of(&server).fec.unusable, 0);
  assert_int_equal(state_of(&server).fec.misplaced, 0);
  finish();
}

// What is recovered comes late, and its acknowledgement says nothing of the path.
static void recovery_makes_no_timeout_longer(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  set_paths((struct path){.loss = 5});
  start();
  open_streams();
  client.speakers[0].to_write = 1;
  for (int i = 0; i < 400; i++) {  // one small message at a time: a group takes long to fill
    client.speakers[0].to_write = client.speakers[0].written + 1;
    write_of(&client.speakers[0], 1);
    assert_true(run_until(is_done, 60000));
    assert_true(state_of(&client).kcp.rto_ms <= 6 * DELAY_MS || i < 20);
    assert_true(state_of(&server).kcp.rto_ms <= 6 * DELAY_MS || i < 20);
  }
  assert_true(state_of(&server).fec.recovered > 0);
  finish();
}

static void a_forged_datagram_does_not_end_recovery_for_good(void **state) {
  (void)state;
  uint8_t forged[64] = {0, 0, 0, 0, FEC_PARITY};
  prepare_both(code_10_3, code_10_3);
  set_paths((struct path){.loss = 5});
  start();
  assert_int_equal(link_input(server.link, forged, sizeof forged, now_ms), 0);
  assert_int_equal(state_of(&server).fec.misplaced, 1);
  echo(ECHO_LIMIT_MS);
  uint64_t recovered = state_of(&server).fec.recovered;
  for (unsigned i = 0; i < STREAMS; i++) {
    ask_for_echo(&client.speakers[i]);
  }
  assert_true(run_until(is_settled, ECHO_LIMIT_MS));
  assert_true(state_of(&server).fec.recovered > recovered);
  finish();
}

static void one_direction_alone_may_lose(void **state) {
  (void)state;
  for (int i = 0; i < 2; i++) {
    prepare_both(code_10_3, code_10_3);
    *(i == 0 ? &client.path : &server.path) = (struct path){.loss = 30};
    start();
    echo(ECHO_LIMIT_MS);
    finish();
  }
}

static void each_kind_of_datagram_may_be_lost_alone(void **state) {
  (void)state;
  for (enum kinds kinds = DATA_ALONE; kinds <= ACKNOWLEDGEMENTS_ALONE; kinds++) {
    echo_over((struct path){.loss = 30, .lossy = kinds}, code_10_3, code_10_3);
  }
  // All parity: it is as if there was no FEC.
  echo_over((struct path){.loss = 100, .lossy = PARITY_ALONE}, code_10_3, code_10_3);
}

// As the ecosystem's server does with its receive buffer of 8192 bytes.
static void a_receiver_that_holds_seven_datagrams_gets_all(void **state) {
  (void)state;
  echo_over((struct path){.queue = 7}, code_10_3, code_10_3);
  echo_over((struct path){.queue = 7}, NULL, NULL);
}

// --- Wrap-around -------------------------------------------------------------------------------

static void all_numbers_may_wrap_around(void **state) {
  (void)state;
  static const struct path paths[] = {{0}, {.loss = 10, .doubled = 5, .held_back = 5}};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    uint32_t sequence = UINT32_MAX / 13 * 13 - JUST_BEFORE_WRAP;
    prepare_both(code_10_3, code_10_3);
    now_ms = INT64_C(0xffffff00);
    set_paths(paths[i]);
    start();
    link_start_at(client.link, sequence, 0xfffffff0, 0xfffffff8);
    link_start_at(server.link, sequence, 0xfffffff8, 0xfffffff0);
    echo(ECHO_LIMIT_MS);
    assert_int_equal(state_of(&server).fec.misplaced, 0);
    assert_int_equal(state_of(&server).malformed_in, 0);
    assert_true(paths[i].loss == 0 || state_of(&server).fec.recovered > 0);
    finish();
  }
}

// --- Streams beside each other ------------------------------------------------------------------

static bool others_are_done(void) {
  for (unsigned i = 1; i < STREAMS; i++) {
    if (client.speakers[i].heard < client.speakers[i].to_write) {
      return false;
    }
  }
  return true;
}

static void a_stream_nobody_reads_holds_up_no_other(void **state) {
  (void)state;
  enum { TOO_MUCH = 1 << 20 };
  prepare_both(code_10_3, code_10_3);
  set_paths((struct path){.loss = 5});
  start();
  open_streams();
  run_for(1000);
  assert_int_equal(server.opened, STREAMS);
  server.speakers[0].is_paused = true;
  client.speakers[0].to_write = TOO_MUCH;
  write_of(&client.speakers[0], TOO_MUCH);
  for (unsigned i = 1; i < STREAMS; i++) {
    ask_for_echo(&client.speakers[i]);
  }
  assert_true(run_until(others_are_done, ECHO_LIMIT_MS));
  assert_int_equal(server.speakers[0].heard, 0);
  // What was never told a smaller window may send this much, and then waits.
  run_for(5000);
  assert_int_equal(smux_sent_bytes(client.speakers[0].stream), SMUX_FIRST_PEER_WINDOW);
  assert_false(link_is_settled(client.link));
  server.speakers[0].is_paused = false;
  smux_resume(server.speakers[0].stream);
  link_touch(server.link);
  assert_true(run_until(is_settled, ECHO_LIMIT_MS));
  assert_int_equal(client.error, 0);
  assert_int_equal(server.error, 0);
  finish();
}

static bool server_has_no_streams(void) {
  return smux_stream_count(link_smux(server.link)) == 0 &&
         smux_stream_count(link_smux(client.link)) == 0 && link_is_settled(client.link) &&
         link_is_settled(server.link);
}

static void streams_that_end_are_forgotten_on_both_sides(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  set_paths((struct path){.loss = 10});
  start();
  echo(ECHO_LIMIT_MS);
  for (unsigned i = 0; i < STREAMS; i++) {
    smux_close(client.speakers[i].stream, true);
  }
  link_touch(client.link);
  assert_true(run_until(server_has_no_streams, ECHO_LIMIT_MS));
  for (unsigned i = 0; i < STREAMS; i++) {
    assert_true(server.speakers[i].has_ended);
  }
  finish();
}

// --- Silence -------------------------------------------------------------------------------------

static void an_idle_link_lives_on_little(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  start_end(&client);
  now_ms += DELAY_MS;  // as the server's link, which the first datagram makes
  start_end(&server);
  echo(ECHO_LIMIT_MS);
  run_for(2000);
  uint64_t sent_before = client.sent + server.sent;
  uint64_t wakes_before = wakes;
  run_for(600000);
  assert_int_equal(client.error, 0);
  assert_int_equal(server.error, 0);
  // In ten seconds a NOP, one that goes back with its acknowledgement, and the acknowledgement of
  // that; no parity.
  assert_true(client.sent + server.sent - sent_before <= 60 * 3 + 3);
  // For the first NOP, and now and then for a look at whether the peer is there.
  assert_true(wakes - wakes_before <= 60 * 2 + 3);
  finish();
}

static bool someone_has_ended(void) { return client.error != 0 || server.error != 0; }

static void a_peer_fallen_silent_is_given_up_in_time(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  start();
  echo(ECHO_LIMIT_MS);
  run_for(45000);
  int64_t from_ms = now_ms;
  set_paths((struct path){.is_cut = true});
  assert_true(run_until(someone_has_ended, 120000));
  assert_true(now_ms - from_ms <= 60000);
  assert_int_equal(client.error != 0 ? client.error : server.error, ERROR_EXPIRED);
  finish();
}

// Its kernel and its KCP are there; whatever was to speak over it is not.
static void one_that_only_acknowledges_is_given_up_between_once_and_twice_the_timeout(
    void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  server.settings.smux.keepalive_interval_ms = 0;
  start();
  echo(ECHO_LIMIT_MS);
  int64_t from_ms = now_ms;
  assert_true(run_until(someone_has_ended, 120000));
  assert_int_equal(client.error, ERROR_EXPIRED);
  assert_int_equal(server.error, 0);
  assert_true(now_ms - from_ms >= 30000);
  assert_true(now_ms - from_ms <= 60000);
  finish();
}

static void one_that_never_said_a_word_is_given_up_at_the_first_check(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  client.path.is_cut = true;
  start();
  int64_t from_ms = now_ms;
  assert_true(run_until(someone_has_ended, 120000));
  assert_int_equal(now_ms - from_ms, 30000);
  finish();
}

static void without_keepalive_what_is_never_acknowledged_ends_it(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  client.settings.smux.keepalive_interval_ms = 0;
  client.settings.smux.keepalive_timeout_ms = 0;
  start();
  set_paths((struct path){.is_cut = true});
  open_streams();
  assert_true(run_until(someone_has_ended, ECHO_LIMIT_MS));
  assert_int_equal(client.error, ERROR_EXPIRED);
  assert_true(state_of(&client).kcp_counts.retransmits >= KCP_DEAD_TRANSMISSIONS - 1);
  finish();
}

static void streams_that_wait_for_the_peer_to_be_there_go_on_when_it_is(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  start();
  server.waits_at = 2;
  echo(ECHO_LIMIT_MS);
  finish();
}

static void streams_that_wait_for_the_peer_to_be_there_get_nothing_until_it_is(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  start();
  server.waits_at = 2;
  set_paths((struct path){.loss = 100, .lossy = ACKNOWLEDGEMENTS_ALONE});
  open_streams();
  run_for(5000);
  assert_int_equal(server.opened, 2);
  assert_false(link_peer_is_there(server.link));
  set_paths((struct path){.loss = 0});
  run_for(5000);
  assert_int_equal(server.opened, STREAMS);
  finish();
}

// The first sign of life is lost, and the second has been sent again when it is acknowledged.
static void a_peer_far_away_is_found_to_be_there_in_the_end(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  start();
  delay_ms = LONG_DELAY_MS;
  server.waits_at = 2;
  server.path.is_cut = true;
  open_streams();
  run_for(LONG_DELAY_MS + 50);
  server.path.is_cut = false;
  run_for(5000);
  assert_int_equal(server.opened, STREAMS);
  finish();
}

static void a_path_cut_for_fifteen_seconds_is_survived(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  start();
  open_streams();
  for (unsigned i = 0; i < STREAMS; i++) {
    ask_for_echo(&client.speakers[i]);
  }
  run_for(200);
  set_paths((struct path){.is_cut = true});
  run_for(15000);
  set_paths((struct path){0});
  assert_true(run_until(is_settled, ECHO_LIMIT_MS));
  assert_int_equal(client.error, 0);
  finish();
}

// --- Settled -------------------------------------------------------------------------------------

static void it_is_settled_when_all_was_acknowledged(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  start();
  assert_true(link_is_settled(client.link));
  open_streams();
  assert_false(link_is_settled(client.link));
  run_for(DELAY_MS);
  assert_false(link_is_settled(client.link));  // the SYNs are there, but who knows
  run_for(DELAY_MS + 1);
  assert_true(link_is_settled(client.link));
  client.speakers[0].to_write = 5;
  write_of(&client.speakers[0], 5);
  assert_false(link_is_settled(client.link));
  assert_true(run_until(is_settled, 1000));
  finish();
}

// --- Hostile peers -------------------------------------------------------------------------------

static void datagrams_without_sense_end_nothing(void **state) {
  (void)state;
  prepare_both(code_10_3, code_10_3);
  start();
  echo(ECHO_LIMIT_MS);
  for (int i = 0; i < 20000; i++) {
    uint8_t bytes[1500];
    size_t len = any(sizeof bytes);
    for (size_t at = 0; at < len; at++) {
      bytes[at] = (uint8_t)any(256);
    }
    if (len > 5 && chance(70)) {
      bytes[4] = (uint8_t)(FEC_DATA + any(3));
      bytes[5] = 0;
    }
    assert_int_equal(link_input(server.link, bytes, len, now_ms), 0);
    flush_dirty(&server);
  }
  assert_true(state_of(&server).malformed_in > 1000);
  client.speakers[0].to_write += 5;
  write_of(&client.speakers[0], 5);
  assert_true(run_until(is_settled, ECHO_LIMIT_MS));
  finish();
}

static void a_peer_that_breaks_smux_ends_the_link(void **state) {
  (void)state;
  static const uint8_t version_1[] = {1, 0, 0, 0, 3, 0, 0, 0};
  uint8_t datagram[KCP_SEGMENT_HEADER_BYTES + sizeof version_1] = {
      0x44, 0x33, 0x22, 0x11, KCP_PUSH, 0, 128, 0, [20] = sizeof version_1};
  memcpy(datagram + KCP_SEGMENT_HEADER_BYTES, version_1, sizeof version_1);
  prepare_both(code_10_3, code_10_3);
  start();
  assert_int_equal(link_input(server.link, datagram, sizeof datagram, now_ms), ERROR_MALFORMED);
  finish();
}

static void a_glance_tells_whose_a_datagram_is(void **state) {
  (void)state;
  struct kcp_glance glance;
  for (int i = 0; i < 2; i++) {
    prepare_both(i == 0 ? code_10_3 : NULL, code_10_3);
    start();
    open_streams();
    flush_dirty(&client);
    assert_true(client.count > 0);
    const struct datagram *first = next_under_way(&client);
    assert_true(link_glance(first->bytes, first->len, &glance));
    assert_int_equal(glance.conv, 0x11223344);
    assert_int_equal(glance.sn, 0);
    assert_int_equal(glance.command, KCP_PUSH);
    assert_false(link_is_parity(first->bytes, first->len));
    assert_false(link_glance(first->bytes, KCP_SEGMENT_HEADER_BYTES - 1, &glance));
    finish();
  }
  static const uint8_t parity[64] = {0, 0, 0, 0, FEC_PARITY};
  assert_true(link_is_parity(parity, sizeof parity));
  assert_false(link_glance(parity, sizeof parity, &glance));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_clean_path_needs_no_retransmission),
      cmocka_unit_test(every_byte_comes_back_whatever_the_path_loses),
      cmocka_unit_test(doubled_and_reordered_datagrams_change_nothing),
      cmocka_unit_test(fec_makes_up_for_what_is_lost),
      cmocka_unit_test(recovery_makes_no_timeout_longer),
      cmocka_unit_test(a_forged_datagram_does_not_end_recovery_for_good),
      cmocka_unit_test(one_direction_alone_may_lose),
      cmocka_unit_test(each_kind_of_datagram_may_be_lost_alone),
      cmocka_unit_test(a_receiver_that_holds_seven_datagrams_gets_all),
      cmocka_unit_test(all_numbers_may_wrap_around),
      cmocka_unit_test(a_stream_nobody_reads_holds_up_no_other),
      cmocka_unit_test(streams_that_end_are_forgotten_on_both_sides),
      cmocka_unit_test(an_idle_link_lives_on_little),
      cmocka_unit_test(a_peer_fallen_silent_is_given_up_in_time),
      cmocka_unit_test(one_that_only_acknowledges_is_given_up_between_once_and_twice_the_timeout),
      cmocka_unit_test(one_that_never_said_a_word_is_given_up_at_the_first_check),
      cmocka_unit_test(without_keepalive_what_is_never_acknowledged_ends_it),
      cmocka_unit_test(streams_that_wait_for_the_peer_to_be_there_go_on_when_it_is),
      cmocka_unit_test(streams_that_wait_for_the_peer_to_be_there_get_nothing_until_it_is),
      cmocka_unit_test(a_peer_far_away_is_found_to_be_there_in_the_end),
      cmocka_unit_test(a_path_cut_for_fifteen_seconds_is_survived),
      cmocka_unit_test(it_is_settled_when_all_was_acknowledged),
      cmocka_unit_test(datagrams_without_sense_end_nothing),
      cmocka_unit_test(a_peer_that_breaks_smux_ends_the_link),
      cmocka_unit_test(a_glance_tells_whose_a_datagram_is),
  };
  return cmocka_run_group_tests(tests, prepare_codes, free_codes);
}
