// The hand-written reading and writing of packets and tunnel messages: what was read
// and written again reads the same, by hand and by the generated code. (On the raw
// input the generated code can't be the judge: it takes a bool from a field of the
// wrong wire type.)
#include <stdlib.h>
#include <string.h>

#include "common/packet.h"
#include "proto/packet.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool holds) {
  if (!holds) {
    abort();
  }
}

static bool same(const struct packet *a, const struct packet *b) {
  return a->data_len == b->data_len &&
         (a->data_len == 0 || memcmp(a->data, b->data, a->data_len) == 0) &&
         a->data_version == b->data_version && a->obj == b->obj && a->mod == b->mod &&
         a->seq == b->seq && a->ver == b->ver && a->index == b->index && a->conn_id == b->conn_id &&
         a->frag_id == b->frag_id && a->frag_count == b->frag_count &&
         a->frag_index == b->frag_index && a->compress == b->compress;
}

static void compare(const struct packet *ours, const Packet__Packet *theirs) {
  const struct packet read = {.data = theirs->data.data,
                              .data_len = theirs->data.len,
                              .data_version = theirs->data_version,
                              .obj = theirs->obj,
                              .mod = theirs->mod,
                              .seq = theirs->seq,
                              .ver = theirs->ver,
                              .index = theirs->index,
                              .conn_id = theirs->conn_id,
                              .frag_id = theirs->frag_id,
                              .frag_count = theirs->frag_count,
                              .frag_index = theirs->frag_index,
                              .compress = theirs->compress != 0};
  require(same(ours, &read));
}

static void write_and_read_again(const struct packet *packet) {
  struct packet again;
  size_t size = packet_size(packet);
  uint8_t *written = malloc(size > 0 ? size : 1);
  require(packet_encode(packet, written) == written + size);
  require(packet_decode(&again, written, size) == 0 && same(packet, &again));
  Packet__Packet *generated = packet__packet__unpack(NULL, size, written);
  require(generated != NULL);
  compare(packet, generated);
  packet__packet__free_unpacked(generated, NULL);
  free(written);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  struct packet packet;
  struct packet tunnel_message;
  int result = packet_decode(&packet, bytes, len);
  require(result == 0 || result == ERROR_MALFORMED);
  if (result == 0) {
    write_and_read_again(&packet);
    uint8_t *message = malloc(tunnel_message_size(&packet, true) + 1);
    size_t message_len = (size_t)(tunnel_message_encode(&packet, true, message) - message);
    require(message_len == tunnel_message_size(&packet, true));
    require(tunnel_message_decode(&tunnel_message, message, message_len) == 0);
    free(message);
  }
  result = tunnel_message_decode(&tunnel_message, bytes, len);
  require(result == 0 || result == ERROR_MALFORMED);
  return 0;
}
