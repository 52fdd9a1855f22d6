#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/packet.h"
#include "proto/packet.pb-c.h"
#include "proto/tunnel.pb-c.h"
#include "test/unit/vectors.h"

enum { ROUNDS = 20000, DATA_MAX_BYTES = 300 };

static void the_worked_packet_is_encoded_byte_for_byte(void **state) {
  struct vector expected = vector_read("packet_protobuf");
  struct packet packet = {
      .data = (const uint8_t *)"hello", .data_len = 5, .mod = 3, .seq = 1, .index = 1};
  uint8_t bytes[64];
  (void)state;
  assert_int_equal(packet_size(&packet), expected.len);
  assert_ptr_equal(packet_encode(&packet, bytes), bytes + expected.len);
  assert_memory_equal(bytes, expected.bytes, expected.len);
}

static void the_worked_tunnel_request_is_encoded_byte_for_byte(void **state) {
  struct vector expected = vector_read("player_tunnel_request_protobuf");
  struct vector sent = vector_read("packet_protobuf");
  struct packet packet;
  uint8_t bytes[64];
  (void)state;
  assert_int_equal(packet_decode(&packet, sent.bytes, sent.len), 0);
  packet.obj = 10001;
  assert_int_equal(tunnel_message_size(&packet, false), expected.len);
  tunnel_message_encode(&packet, false, bytes);
  assert_memory_equal(bytes, expected.bytes, expected.len);
}

static int32_t random_int32(void) {
  int64_t edges[] = {0, 1, -1, 127, 128, INT32_MAX, INT32_MIN};
  return random() % 2 ? (int32_t)edges[random() % 7] : (int32_t)(random() - random());
}

static struct packet random_packet(uint8_t data[DATA_MAX_BYTES]) {
  struct packet packet = {.data = data,
                          .data_len = (size_t)(random() % DATA_MAX_BYTES),
                          .data_version = (uint64_t)random() << (random() % 40),
                          .obj = (int64_t)((uint64_t)random_int32() << (random() % 33)),
                          .mod = random_int32(),
                          .seq = random_int32(),
                          .ver = random_int32(),
                          .index = random_int32(),
                          .conn_id = random_int32(),
                          .frag_id = random_int32(),
                          .frag_count = random_int32(),
                          .frag_index = random_int32(),
                          .compress = random() % 2};
  for (size_t i = 0; i < packet.data_len; i++) {
    data[i] = (uint8_t)random();
  }
  return packet;
}

static void assert_same(const struct packet *a, const struct packet *b) {
  struct packet left = *a;
  struct packet right = *b;
  assert_int_equal(a->data_len, b->data_len);
  if (a->data_len > 0) {
    assert_memory_equal(a->data, b->data, a->data_len);
  }
  left.data = right.data = NULL;
  assert_int_equal(left.data_version, right.data_version);
  assert_int_equal(left.obj, right.obj);
  assert_int_equal(left.mod, right.mod);
  assert_int_equal(left.seq, right.seq);
  assert_int_equal(left.ver, right.ver);
  assert_int_equal(left.index, right.index);
  assert_int_equal(left.conn_id, right.conn_id);
  assert_int_equal(left.frag_id, right.frag_id);
  assert_int_equal(left.frag_count, right.frag_count);
  assert_int_equal(left.frag_index, right.frag_index);
  assert_int_equal(left.compress, right.compress);
}

static void fill_generated(Packet__Packet *generated, const struct packet *packet) {
  *generated = (Packet__Packet)PACKET__PACKET__INIT;
  generated->data = (ProtobufCBinaryData){packet->data_len, (uint8_t *)packet->data};
  generated->data_version = packet->data_version;
  generated->obj = packet->obj;
  generated->mod = packet->mod;
  generated->seq = packet->seq;
  generated->ver = packet->ver;
  generated->index = packet->index;
  generated->conn_id = packet->conn_id;
  generated->frag_id = packet->frag_id;
  generated->frag_count = packet->frag_count;
  generated->frag_index = packet->frag_index;
  generated->compress = packet->compress;
}

static void packets_agree_with_the_generated_code(void **state) {
  (void)state;
  for (int round = 0; round < ROUNDS; round++) {
    uint8_t data[DATA_MAX_BYTES];
    uint8_t ours[1024];
    uint8_t theirs[1024];
    struct packet packet = random_packet(data);
    struct packet read;
    Packet__Packet generated;
    fill_generated(&generated, &packet);
    size_t len = (size_t)(packet_encode(&packet, ours) - ours);
    assert_int_equal(len, packet_size(&packet));
    assert_int_equal(packet__packet__pack(&generated, theirs), len);
    assert_memory_equal(ours, theirs, len);
    assert_int_equal(packet_decode(&read, theirs, len), 0);
    assert_same(&read, &packet);
  }
}

static void tunnel_messages_agree_with_the_generated_code(void **state) {
  (void)state;
  for (int round = 0; round < ROUNDS; round++) {
    uint8_t data[DATA_MAX_BYTES];
    uint8_t ours[1024];
    uint8_t theirs[1024];
    struct packet packet = random_packet(data);
    struct packet read;
    Room__Intra__V1__TunnelRequest generated = ROOM__INTRA__V1__TUNNEL_REQUEST__INIT;
    packet.ver = 0;
    packet.compress = false;
    generated.data = (ProtobufCBinaryData){packet.data_len, data};
    generated.data_version = packet.data_version;
    generated.obj = packet.obj;
    generated.mod = packet.mod;
    generated.seq = packet.seq;
    generated.index = packet.index;
    generated.conn_id = packet.conn_id;
    generated.frag_id = packet.frag_id;
    generated.frag_count = packet.frag_count;
    generated.frag_index = packet.frag_index;
    size_t len = (size_t)(tunnel_message_encode(&packet, true, ours) - ours);
    assert_int_equal(len, tunnel_message_size(&packet, true));
    assert_int_equal(room__intra__v1__tunnel_request__pack(&generated, theirs), len);
    assert_memory_equal(ours, theirs, len);
    assert_int_equal(tunnel_message_decode(&read, theirs, len), 0);
    assert_same(&read, &packet);
  }
}

static void a_player_tunnel_message_has_no_fragment_fields(void **state) {
  struct packet packet = {.mod = 1, .conn_id = 7, .frag_id = 1, .frag_count = 2, .frag_index = 1};
  struct packet read;
  uint8_t bytes[64];
  (void)state;
  size_t len = (size_t)(tunnel_message_encode(&packet, false, bytes) - bytes);
  assert_int_equal(len, tunnel_message_size(&packet, false));
  assert_int_equal(tunnel_message_decode(&read, bytes, len), 0);
  assert_int_equal(read.conn_id | read.frag_id | read.frag_count | read.frag_index, 0);
}

static void a_packet_cut_anywhere_never_reads_past_its_end(void **state) {
  uint8_t data[DATA_MAX_BYTES];
  uint8_t bytes[1024];
  (void)state;
  for (int round = 0; round < 200; round++) {
    struct packet packet = random_packet(data);
    size_t len = (size_t)(packet_encode(&packet, bytes) - bytes);
    for (size_t cut = 0; cut < len; cut++) {
      // On the heap and of just that size, so that a sanitizer sees one byte too far.
      uint8_t *piece = malloc(cut > 0 ? cut : 1);
      struct packet read;
      memcpy(piece, bytes, cut);
      int result = packet_decode(&read, piece, cut);
      assert_true(result == 0 || result == ERROR_MALFORMED);
      free(piece);
    }
  }
}

static void hostile_bytes_are_refused(void **state) {
  static const struct {
    uint8_t bytes[16];
    size_t len;
  } cases[] = {
      {{0x00, 0x01}, 2},                          // field number 0
      {{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, 6},  // data longer than what is there
      {{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, 11},
      {{0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, 12},
      {{0x20}, 1},              // a number without its value
      {{0x23}, 1},              // a group
      {{0x0b, 0x0c}, 2},        // a group that ends
      {{0x26, 0x00}, 2},        // a wire type that there is not
      {{0x25, 0x00, 0x00}, 3},  // a fixed32 cut short
      {{0x21, 0x00}, 2},        // a fixed64 cut short
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct packet packet;
    assert_int_equal(packet_decode(&packet, cases[i].bytes, cases[i].len), ERROR_MALFORMED);
    assert_int_equal(tunnel_message_decode(&packet, cases[i].bytes, cases[i].len), ERROR_MALFORMED);
  }
}

static void unknown_fields_are_skipped_and_the_last_value_holds(void **state) {
  // mod 3, field 100 as bytes, field 101 as fixed32, field 102 as fixed64, mod 4
  const uint8_t bytes[] = {0x20, 3,    0xa2, 0x06, 2, 'a', 'b', 0xad, 0x06, 0, 0,    0, 0,
                           0xb1, 0x06, 0,    0,    0, 0,   0,   0,    0,    0, 0x20, 4};
  struct packet packet;
  (void)state;
  assert_int_equal(packet_decode(&packet, bytes, sizeof bytes), 0);
  assert_int_equal(packet.mod, 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_worked_packet_is_encoded_byte_for_byte),
      cmocka_unit_test(the_worked_tunnel_request_is_encoded_byte_for_byte),
      cmocka_unit_test(packets_agree_with_the_generated_code),
      cmocka_unit_test(tunnel_messages_agree_with_the_generated_code),
      cmocka_unit_test(a_player_tunnel_message_has_no_fragment_fields),
      cmocka_unit_test(a_packet_cut_anywhere_never_reads_past_its_end),
      cmocka_unit_test(hostile_bytes_are_refused),
      cmocka_unit_test(unknown_fields_are_skipped_and_the_last_value_holds),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
