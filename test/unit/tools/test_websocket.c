#include "tools/client/websocket.h"

#include <openssl/sha.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

// --- The upgrade -------------------------------------------------------------

static struct websocket socket_;
static char accept_[64];
static char fault[200];

static int request(void **state) {
  (void)state;
  char text[WEBSOCKET_REQUEST_MAX_BYTES];
  size_t len = websocket_request(&socket_, "example.com:80", "/ws", text);
  assert_int_equal(len, strlen(text));
  sodium_bin2base64(accept_, sizeof accept_, socket_.accept, sizeof socket_.accept,
                    sodium_base64_VARIANT_ORIGINAL);
  return 0;
}

// The answer with three lines of its head.
static ssize_t take_answer(const char *status, const char *upgrade, const char *accepted,
                           const char *rest) {
  char text[1024];
  snprintf(text, sizeof text, "%s\r\nConnection: keep-alive, Upgrade\r\n%s\r\n%s\r\n\r\n%s", status,
           upgrade, accepted, rest);
  return websocket_take_answer(&socket_, (const uint8_t *)text, strlen(text), fault, sizeof fault);
}

static const char *accept_line(const char *value) {
  static char line[128];
  snprintf(line, sizeof line, "sec-websocket-accept: %s", value);
  return line;
}

static void an_answer_is_accepted_and_what_follows_is_not_part_of_it(void **state) {
  (void)state;
  const char *line = accept_line(accept_);
  ssize_t alone = take_answer("HTTP/1.1 101 Switching Protocols", "Upgrade: WebSocket", line, "");
  assert_true(alone > 0);
  assert_int_equal(
      take_answer("HTTP/1.1 101 Switching Protocols", "Upgrade: WebSocket", line, "\x82\x01x"),
      alone);
}

static void an_answer_in_parts_is_waited_for(void **state) {
  (void)state;
  assert_int_equal(websocket_take_answer(&socket_, (const uint8_t *)"HTTP/1.1 101 S\r\n", 16, fault,
                                         sizeof fault),
                   0);
}

static void another_status_is_told(void **state) {
  (void)state;
  assert_int_equal(take_answer("HTTP/1.1 403 Forbi\x1b"
                               "dden",
                               "Upgrade: websocket", accept_line(accept_), ""),
                   ERROR_MALFORMED);
  assert_string_equal(fault, "the upgrade was answered with HTTP/1.1 403 Forbi?dden");
}

static void an_answer_to_somebody_else_is_refused(void **state) {
  (void)state;
  const char *status = "HTTP/1.1 101 Switching Protocols";
  const char *upgrade = "Upgrade: websocket";
  assert_int_equal(take_answer(status, upgrade, accept_line("AAAAAAAAAAAAAAAAAAAAAAAAAAA="), ""),
                   ERROR_MALFORMED);
  assert_int_equal(take_answer(status, upgrade, "X: y", ""), ERROR_MALFORMED);
  assert_int_equal(take_answer(status, "Upgrade: h2c", accept_line(accept_), ""), ERROR_MALFORMED);
  assert_int_equal(take_answer(status, "Upgrade: websocket\r\nSec-WebSocket-Extensions: x",
                               accept_line(accept_), ""),
                   ERROR_MALFORMED);
}

static void an_endless_answer_is_refused(void **state) {
  (void)state;
  static uint8_t endless[WEBSOCKET_ANSWER_MAX_BYTES];
  assert_int_equal(websocket_take_answer(&socket_, endless, sizeof endless, fault, sizeof fault),
                   ERROR_MALFORMED);
}

// The example of RFC 6455, 1.3.
static void the_proof_is_that_of_the_specification(void **state) {
  (void)state;
  SHA1((const unsigned char *)"dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 60,
       socket_.accept);
  assert_true(take_answer("HTTP/1.1 101 S", "Upgrade: websocket",
                          accept_line("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "") > 0);
}

// --- Frames ------------------------------------------------------------------

enum { MESSAGE_MAX = 70000 };

static struct websocket_found found;

static int take(void *bytes, size_t *len) {
  return websocket_take(&socket_, bytes, len, MESSAGE_MAX, &found);
}

static void a_message_stands_where_it_came(void **state) {
  (void)state;
  uint8_t bytes[] =
      "\x82\x03"
      "abc\x82";
  size_t len = sizeof bytes - 1;
  assert_int_equal(take(bytes, &len), 1);
  assert_int_equal(found.opcode, WEBSOCKET_BINARY);
  assert_ptr_equal(found.message, bytes + 2);
  assert_int_equal(found.len, 3);
  assert_int_equal(found.taken, 5);
  size_t rest = len - found.taken;
  assert_int_equal(take(bytes + found.taken, &rest), 0);
}

// Byte by byte, as a slow network brings them.
static void fragments_are_joined_around_a_ping(void **state) {
  (void)state;
  static const uint8_t sent[] =
      "\x02\x02"
      "ab\x89\x02hi\x00\x00\x00\x01"
      "c\x80\x03"
      "def\x82\x01g";
  uint8_t bytes[sizeof sent];
  size_t len = 0;
  unsigned pings = 0;
  bool joined = false;
  for (size_t i = 0; i < sizeof sent - 1; i++) {
    bytes[len++] = sent[i];
    if (take(bytes, &len) == 0) {
      continue;
    }
    if (found.opcode == WEBSOCKET_PING) {
      pings++;
      assert_memory_equal(found.control, "hi", 2);
      assert_int_equal(found.taken, 0);
      continue;
    }
    assert_memory_equal(found.message, joined ? "g" : "abcdef", joined ? 1 : 6);
    assert_int_equal(found.len, joined ? 1 : 6);
    joined = true;
    len -= found.taken;
    memmove(bytes, bytes + found.taken, len);
  }
  assert_int_equal(pings, 1);
  assert_true(joined);
  assert_int_equal(len, 0);
}

static void what_breaks_the_protocol_is_refused(void **state) {
  (void)state;
  static const struct {
    const char *bytes;
    size_t len;
  } cases[] = {
      {"\x81\x01x", 3},                                  // text
      {"\xc2\x01x", 3},                                  // a reserved bit
      {"\x82\x81\0\0\0\0x", 7},                          // masked by a server
      {"\x80\x01x", 3},                                  // continues nothing
      {"\x83\x01x", 3},                                  // an unknown opcode
      {"\x09\x00", 2},                                   // a ping in fragments
      {"\x89\x7e\x00\x80", 4},                           // a long ping
      {"\x82\x7e\x00\x05", 4},                           // a length longer than it needs to be
      {"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 10},  // too long, and more than there is
      {"\x02\x01x\x82\x01y", 6},                         // a message within another
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    socket_ = (struct websocket){0};
    uint8_t bytes[16];
    memcpy(bytes, cases[i].bytes, cases[i].len);
    size_t len = cases[i].len;
    found.fault = NULL;
    assert_int_equal(take(bytes, &len), ERROR_MALFORMED);
    assert_non_null(found.fault);
  }
}

static void fragments_are_bounded_together(void **state) {
  (void)state;
  static uint8_t bytes[2 * MESSAGE_MAX];
  memcpy(bytes, "\x02\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10);
  size_t len = 10 + 65536;
  memcpy(bytes + len, "\x80\x7e\x11\x71", 4);  // one byte over the bound
  len += 4;
  assert_int_equal(take(bytes, &len), ERROR_MALFORMED);
}

static void a_frame_is_masked_and_has_the_shortest_length(void **state) {
  (void)state;
  static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, 70000};
  static uint8_t out[WEBSOCKET_HEADER_MAX_BYTES + 70000];
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    uint8_t *body = out + WEBSOCKET_HEADER_MAX_BYTES;
    memset(body, 'j', sizes[i]);
    uint8_t *start = websocket_wrap(WEBSOCKET_BINARY, body, sizes[i]);
    assert_int_equal(start[0], 0x82);
    assert_true(start[1] & 0x80);
    // As a server's frame it is one that can be taken.
    uint8_t mask[4];
    memcpy(mask, body - 4, 4);
    for (size_t k = 0; k < sizes[i]; k++) {
      body[k] ^= mask[k % 4];
    }
    memmove(start + 4, start, (size_t)(body - 4 - start));
    start += 4;
    start[1] &= 0x7f;
    size_t len = (size_t)(body - start) + sizes[i];
    assert_int_equal(take(start, &len), 1);
    assert_int_equal(found.len, sizes[i]);
    assert_int_equal(found.taken, len);
    assert_true(sizes[i] == 0 || (found.message[0] == 'j' && found.message[sizes[i] - 1] == 'j'));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(an_answer_is_accepted_and_what_follows_is_not_part_of_it, request),
      cmocka_unit_test_setup(an_answer_in_parts_is_waited_for, request),
      cmocka_unit_test_setup(another_status_is_told, request),
      cmocka_unit_test_setup(an_answer_to_somebody_else_is_refused, request),
      cmocka_unit_test_setup(an_endless_answer_is_refused, request),
      cmocka_unit_test_setup(the_proof_is_that_of_the_specification, request),
      cmocka_unit_test_setup(a_message_stands_where_it_came, request),
      cmocka_unit_test_setup(fragments_are_joined_around_a_ping, request),
      cmocka_unit_test_setup(what_breaks_the_protocol_is_refused, request),
      cmocka_unit_test_setup(fragments_are_bounded_together, request),
      cmocka_unit_test_setup(a_frame_is_masked_and_has_the_shortest_length, request),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
