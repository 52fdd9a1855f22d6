// What a message costs in memory: none is allocated for it, either way, from a client's socket to
// the tunnel's stream and back; and a client owns no buffer when nothing is under way.
#include <errno.h>
#include <event2/event.h>
#include <openssl/crypto.h>
#include <unistd.h>

#include "common/cache_line.h"
#include "common/frame.h"
#include "test/unit/worker/backend_fixture.h"
#include "worker/player.h"

// --- Counting ----------------------------------------------------------------------------

static size_t allocations;
static int64_t held;  // of them, not freed

// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names for what it puts in place of ours
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void __wrap_free(void *memory);

void *__wrap_malloc(size_t size) {
  allocations++;
  held++;
  return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
  allocations++;
  held++;
  return __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size) {
  allocations++;
  held += memory == NULL;
  return __real_realloc(memory, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size) {
  allocations++;
  held++;
  return __real_aligned_alloc(alignment, size);
}

void __wrap_free(void *memory) {
  held -= memory != NULL;
  __real_free(memory);
}
// NOLINTEND(bugprone-reserved-identifier)

// The linker does not see what libraries allocate.
static void *openssl_malloc(size_t size, const char *file, int line) {
  (void)file;
  (void)line;
  return __wrap_malloc(size);
}

static void *openssl_realloc(void *memory, size_t size, const char *file, int line) {
  (void)file;
  (void)line;
  return __wrap_realloc(memory, size);
}

static void openssl_free(void *memory, const char *file, int line) {
  (void)file;
  (void)line;
  free(memory);
}

// --- A player on a socket ------------------------------------------------------------------

enum { UID = 10001, DATA_BYTES = 128, AT_ONCE = 4, ROUNDS = 2000 };

static int client;            // the other end of the wire's socket
static struct seal *clients;  // what it seals with; NULL: nothing is
static int32_t next_index;
static uint8_t received[1 << 16];
static size_t received_len;

static struct wire *make_wire(void *context, const struct wire_events *events, void *owner) {
  struct fixture *fixture = context;
  int pair[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
  client = pair[1];
  return wire_socket_new(&fixture->worker.wires, pair[0], NULL, events, owner);
}

static void on_gone(void *context, void *cookie) {
  (void)context;
  (void)cookie;
}

static struct transport *make_framed(void *context, const struct transport_events *events,
                                     void *owner) {
  static const struct transport_gone gone = {.on_gone = on_gone};
  return transport_framed_new(make_wire, context, events, owner, &gone, NULL);
}

static void client_writes(const struct packet *packet) {
  static uint8_t bytes[FRAME_HEADER_BYTES + SEAL_OVERHEAD_BYTES + 1024];
  uint8_t *sealed = bytes + FRAME_HEADER_BYTES;
  size_t len = packet_size(packet);
  assert_true(len <= 1024);
  packet_encode(packet, sealed + (clients ? SEAL_NONCE_BYTES : 0));
  if (clients) {
    assert_int_equal(seal_in_place(clients, sealed, len), 0);
    len += SEAL_OVERHEAD_BYTES;
  }
  frame_write_header(bytes, len);
  assert_int_equal(write(client, bytes, FRAME_HEADER_BYTES + len), FRAME_HEADER_BYTES + len);
}

// Reads what is there; returns how many messages of DATA_BYTES that is.
static int client_reads(void) {
  int messages = 0;
  ssize_t got;
  while ((got = read(client, received + received_len, sizeof received - received_len)) > 0) {
    received_len += (size_t)got;
  }
  size_t used = 0;
  size_t len;
  while (frame_parse(received + used, received_len - used, FRAME_BODY_MAX_BYTES, &len) == 1) {
    uint8_t *plain = received + used + FRAME_HEADER_BYTES;
    struct packet packet;
    used += FRAME_HEADER_BYTES + len;
    if (clients) {
      assert_int_equal(seal_open_in_place(clients, plain, len, &plain, &len), 0);
    }
    assert_int_equal(packet_decode(&packet, plain, len), 0);
    messages += packet.data_len == DATA_BYTES;
  }
  received_len -= used;
  memmove(received, received + used, received_len);
  return messages;
}

static void on_master_hears(enum channel_type type, const void *content, struct fixture *fixture) {
  if (type == CHANNEL_ROUTE_CLAIM) {
    answer_claim(fixture, content);
  }
}

// A player whose tunnel is open. It comes in without encryption, and goes on with it.
static struct session *begin(struct fixture *fixture, bool encrypted) {
  static const uint8_t key[33] = "of the session, made by the ends";
  struct memory login = {.queued = 0};
  fixture->on_message = on_master_hears;
  assert_true(session_new(&fixture->worker, LISTENER_KIND_TCP, "192.0.2.1:5", 0, NULL, make_framed,
                          fixture));
  struct session *session = LIST_FIRST(&fixture->worker.sessions);
  // What the fixture has for a transport in memory passes the handshake on to the real one's.
  login.transport = *session->transport;
  send_handshake(fixture, &login, "blue", UID, 0);
  master_answers(fixture, CHANNEL_LOGIN_ADMITTED);
  assert_int_equal(session->state, SESSION_PLAYING);
  assert_int_equal(client_reads(), 0);
  if (encrypted) {
    session->seal = seal_new(key, sizeof key - 1);
    clients = seal_new(key, sizeof key - 1);
  }
  next_index = session->next_index;
  return session;
}

static void client_asks(void) {
  static const uint8_t data[DATA_BYTES];
  client_writes(&(struct packet){
      .data = data, .data_len = sizeof data, .mod = PLAYER, .seq = 7, .index = next_index++});
}

// Each message that the client sends is answered with the same; AT_ONCE in each turn both ways.
static void echo(struct fixture *fixture, struct stream *stream) {
  static uint8_t answer[MESSAGE_MAX_BYTES];
  for (int i = 0; i < AT_ONCE; i++) {
    client_asks();
  }
  size_t sent = stream->sent_count;
  event_base_loop(fixture->worker.base, EVLOOP_NONBLOCK);
  assert_int_equal(stream->sent_count, sent + AT_ONCE);
  for (int i = 0; i < AT_ONCE; i++) {
    assert_true(stream->reading);
    stream->reading = false;
    memcpy(answer, stream->message, stream->message_len);
    stream->events->on_message(stream->owner, answer, stream->message_len);
  }
  event_base_loop(fixture->worker.base, EVLOOP_NONBLOCK);
  assert_int_equal(client_reads(), AT_ONCE);
}

static int set_up_player(void **state) {
  if (set_up(state) != 0) {
    return -1;
  }
  struct fixture *fixture = *state;
  fixture->worker.wires = (struct wire_shared){.base = fixture->worker.base,
                                               .counters = &fixture->counters,
                                               .low_bytes = 1 << 16,
                                               .linger_ms = 60000};
  fixture->worker.config.queue.client_high_bytes = 1 << 20;
  received_len = 0;
  if (set_up_backends(fixture) != 0) {
    return -1;
  }
  fixture->worker.config.queue.tunnel_messages = 2 * AT_ONCE;
  return wire_shared_init(&fixture->worker.wires);
}

static int tear_down_player(void **state) {
  struct fixture *fixture = *state;
  tear_down_backends(fixture);
  wire_cut_all(&fixture->worker.wires);
  wire_shared_fini(&fixture->worker.wires);
  seal_free(clients);
  clients = NULL;
  close(client);
  return tear_down(state);
}

// --- Facts -----------------------------------------------------------------------------

static void count_allocations(struct fixture *fixture, bool encrypted) {
  begin(fixture, encrypted);
  client_asks();  // which opens the tunnel
  turn(fixture);
  assert_int_equal(stream_count, 1);
  streams[0].events->on_opened(streams[0].owner);
  take_all(&streams[0]);
  streams[0].takes_all = true;  // one that does not has the tunnel keep them meanwhile
  echo(fixture, &streams[0]);   // what is made once has been made
  size_t before = allocations;
  assert_true(before > 0);
  for (int i = 0; i < ROUNDS; i++) {
    echo(fixture, &streams[0]);
  }
  assert_int_equal(allocations, before);
}

static void no_message_of_an_echo_allocates(void **state) { count_allocations(*state, true); }

static void nor_does_one_in_the_clear(void **state) { count_allocations(*state, false); }

static void nor_one_sealed_without_the_processors_help(void **state) {
  assert_int_equal(seal_global_init(false), 0);
  count_allocations(*state, true);
  assert_int_equal(seal_global_init(true), 0);
}

static void a_client_holds_no_memory_for_what_has_gone(void **state) {
  struct fixture *fixture = *state;
  static const uint8_t data[DATA_BYTES];
  struct session *session = begin(fixture, true);
  const struct packet packet = {.data = data, .data_len = sizeof data, .mod = PLAYER};
  int64_t before = held;
  int sent = 0;
  int came = 0;
  while (transport_queued_bytes(session->transport) == 0) {
    session_send(session, &packet);
    sent++;
  }
  assert_true(held > before);
  while (came < sent) {
    came += client_reads();
    event_base_loop(fixture->worker.base, EVLOOP_NONBLOCK);
  }
  assert_int_equal(came, sent);
  assert_int_equal(held, before);
}

static void nor_for_half_a_message_when_the_rest_has_come(void **state) {
  struct fixture *fixture = *state;
  static const uint8_t header[FRAME_HEADER_BYTES] = {0, 0, 0, 2};
  begin(fixture, false);
  int64_t before = held;
  assert_int_equal(write(client, header, sizeof header), sizeof header);
  event_base_loop(fixture->worker.base, EVLOOP_NONBLOCK);
  assert_int_equal(held, before + 1);
  assert_int_equal(write(client, "\x20\x4d", 2), 2);  // for a module that nobody serves
  event_base_loop(fixture->worker.base, EVLOOP_NONBLOCK);
  assert_int_equal(fixture->counters.counter[COUNTER_UNKNOWN_MODULES], 1);
  assert_int_equal(held, before);
}

static void what_every_message_touches_is_in_the_first_two_cache_lines(void **state) {
  (void)state;
  enum { END = 2 * CACHE_LINE_BYTES };
#define IS_IN(member) \
  assert_true(offsetof(struct session, member) + sizeof(((struct session *)NULL)->member) <= END)
  IS_IN(worker);
  IS_IN(transport);
  IS_IN(seal);
  IS_IN(player);
  IS_IN(trace);
  IS_IN(uid);
  IS_IN(connection);
  IS_IN(next_index);
  IS_IN(watched);
  IS_IN(rate_paused);
  IS_IN(output_full);
  IS_IN(arrived_us);
  IS_IN(traffic);
  IS_IN(levels);
#undef IS_IN
  assert_true(offsetof(struct tunnel, queue.bytes) <= END);
  assert_true(offsetof(struct player, farewells) <= CACHE_LINE_BYTES);
}

static void a_session_begins_with_a_cache_line(void **state) {
  const struct session *session = begin(*state, false);
  assert_int_equal((uintptr_t)session % CACHE_LINE_BYTES, 0);
  assert_null(session->delays);
}

int main(void) {
  if (CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) != 1) {
    return 1;
  }
  event_set_mem_functions(__wrap_malloc, __wrap_realloc, __wrap_free);
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up_player, tear_down_player)
  const struct CMUnitTest tests[] = {
      FACT(no_message_of_an_echo_allocates),
      FACT(nor_does_one_in_the_clear),
      FACT(nor_one_sealed_without_the_processors_help),
      FACT(a_client_holds_no_memory_for_what_has_gone),
      FACT(nor_for_half_a_message_when_the_rest_has_come),
      cmocka_unit_test(what_every_message_touches_is_in_the_first_two_cache_lines),
      FACT(a_session_begins_with_a_cache_line),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
