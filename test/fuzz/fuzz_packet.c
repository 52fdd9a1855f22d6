// The hand-written reading and writing of packets and tunnel messages, held against protobuf-c's
// generated code on every input: both read it or neither does, they read the same, and what they
// then write is the same, byte for byte.
//
// Three things are another on purpose. In each ours does what the protobuf libraries of the
// backends and clients (Go's, C#'s) do, since a message must not pass at one end and fail at the
// other:
// - A known field with another wire type is one that nobody knows. protobuf-c refuses the message,
//   or, for a bool, takes whatever bytes there are.
// - A field's number is from 1 to 2^29 - 1. protobuf-c knows of no bounds.
// - A varint has 64 bits, and those beyond are lost. protobuf-c sees them in a bool.
// as_protobuf_c_reads_it makes of an input what protobuf-c has to be given for the same result.
#include <stdlib.h>
#include <string.h>

#include "common/packet.h"
#include "proto/packet.pb-c.h"
#include "proto/tunnel.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool holds) {
  if (!holds) {
    abort();
  }
}

// --- What protobuf-c is given ------------------------------------------------------------

enum { DATA = 1, COMPRESS = 20, PACKET_LAST = 11, TUNNEL_LAST = 10 };
static const uint64_t number_end = 1U << 29;

// 0 when it does not end within so many bytes.
static size_t varint(const uint8_t *bytes, size_t len, size_t max, uint64_t *value) {
  *value = 0;
  for (size_t i = 0; i < max && i < len; i++) {
    *value |= (uint64_t)(bytes[i] & 0x7f) << (7 * i);
    if (!(bytes[i] & 0x80)) {
      return i + 1;
    }
  }
  return 0;
}

// The length of a field's content; 0 when it is not all there, or nobody knows the wire type.
static size_t content_len(unsigned wire_type, const uint8_t *bytes, size_t len) {
  uint64_t value;
  size_t size;
  switch (wire_type) {
    case 0: return varint(bytes, len, 10, &value);
    case 1: return len >= 8 ? 8 : 0;
    case 2:
      size = varint(bytes, len, 5, &value);
      return size > 0 && value <= len - size ? size + (size_t)value : 0;
    case 5: return len >= 4 ? 4 : 0;
    default: return 0;
  }
}

// Writes to out, as large as the input, and returns how much. *refused: a field's number is out of
// bounds.
static size_t as_protobuf_c_reads_it(const uint8_t *bytes, size_t len, bool is_packet, uint8_t *out,
                                     bool *refused) {
  size_t written = 0;
  *refused = false;
  while (len > 0) {
    uint64_t tag;
    uint64_t value;
    size_t tag_len = varint(bytes, len, 5, &tag);
    uint64_t number = tag >> 3;
    unsigned wire_type = (unsigned)(tag & 7);
    *refused = tag_len > 0 && (number == 0 || number >= number_end);
    size_t size = tag_len > 0 ? content_len(wire_type, bytes + tag_len, len - tag_len) : 0;
    if (*refused || size == 0) {
      break;
    }
    bool is_known = is_packet ? (number >= DATA && number <= PACKET_LAST) || number == COMPRESS
                              : number >= DATA && number <= TUNNEL_LAST;
    if (is_packet && number == COMPRESS && wire_type == 0) {
      varint(bytes + tag_len, size, 10, &value);
      memcpy(out + written, bytes, tag_len);
      out[written + tag_len] = value != 0;
      written += tag_len + 1;
    } else if (!is_known || wire_type == (number == DATA ? 2 : 0)) {
      memcpy(out + written, bytes, tag_len + size);
      written += tag_len + size;
    }
    bytes += tag_len + size;
    len -= tag_len + size;
  }
  memcpy(out + written, bytes, len);  // which neither can read
  return written + len;
}

// --- The comparison ------------------------------------------------------------------------

static bool same(const struct packet *a, const struct packet *b) {
  return a->data_len == b->data_len &&
         (a->data_len == 0 || memcmp(a->data, b->data, a->data_len) == 0) &&
         a->data_version == b->data_version && a->obj == b->obj && a->mod == b->mod &&
         a->seq == b->seq && a->ver == b->ver && a->index == b->index && a->conn_id == b->conn_id &&
         a->frag_id == b->frag_id && a->frag_count == b->frag_count &&
         a->frag_index == b->frag_index && a->compress == b->compress;
}

static bool same_bytes(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len) {
  return a_len == b_len && memcmp(a, b, a_len) == 0;
}

static void compare_packet(const uint8_t *bytes, size_t len) {
  struct packet packet;
  struct packet again;
  bool refused;
  uint8_t *theirs = malloc(len + 1);
  size_t theirs_len = as_protobuf_c_reads_it(bytes, len, true, theirs, &refused);
  int result = packet_decode(&packet, bytes, len);
  require(result == 0 || result == ERROR_MALFORMED);
  Packet__Packet *read = refused ? NULL : packet__packet__unpack(NULL, theirs_len, theirs);
  require((result == 0) == (read != NULL));
  if (read) {
    const struct packet as_read = {.data = read->data.data,
                                   .data_len = read->data.len,
                                   .data_version = read->data_version,
                                   .obj = read->obj,
                                   .mod = read->mod,
                                   .seq = read->seq,
                                   .ver = read->ver,
                                   .index = read->index,
                                   .conn_id = read->conn_id,
                                   .frag_id = read->frag_id,
                                   .frag_count = read->frag_count,
                                   .frag_index = read->frag_index,
                                   .compress = read->compress != 0};
    require(same(&packet, &as_read));
    // Without what nobody knows, which only protobuf-c would write again.
    Packet__Packet plain = *read;
    plain.base.n_unknown_fields = 0;
    plain.base.unknown_fields = NULL;
    size_t size = packet_size(&packet);
    uint8_t *ours = malloc(size + 1);
    require(packet_encode(&packet, ours) == ours + size);
    uint8_t *generated = malloc(packet__packet__get_packed_size(&plain) + 1);
    require(same_bytes(ours, size, generated, packet__packet__pack(&plain, generated)));
    require(packet_decode(&again, ours, size) == 0 && same(&packet, &again));
    free(generated);
    free(ours);
    packet__packet__free_unpacked(read, NULL);
  }
  free(theirs);
}

static void compare_writing(const struct packet *packet, Room__Intra__V1__TunnelRequest *read,
                            bool with_fragments) {
  size_t size = tunnel_message_size(packet, with_fragments);
  uint8_t *ours = malloc(size + 1);
  require(tunnel_message_encode(packet, with_fragments, ours) == ours + size);
  uint8_t *generated = malloc(room__intra__v1__tunnel_request__get_packed_size(read) + 1);
  require(
      same_bytes(ours, size, generated, room__intra__v1__tunnel_request__pack(read, generated)));
  free(generated);
  free(ours);
}

static void compare_tunnel_message(const uint8_t *bytes, size_t len) {
  struct packet packet;
  bool refused;
  uint8_t *theirs = malloc(len + 1);
  size_t theirs_len = as_protobuf_c_reads_it(bytes, len, false, theirs, &refused);
  int result = tunnel_message_decode(&packet, bytes, len);
  require(result == 0 || result == ERROR_MALFORMED);
  Room__Intra__V1__TunnelRequest *read =
      refused ? NULL : room__intra__v1__tunnel_request__unpack(NULL, theirs_len, theirs);
  require((result == 0) == (read != NULL));
  if (read) {
    const struct packet as_read = {.data = read->data.data,
                                   .data_len = read->data.len,
                                   .data_version = read->data_version,
                                   .obj = read->obj,
                                   .mod = read->mod,
                                   .seq = read->seq,
                                   .index = read->index,
                                   .conn_id = read->conn_id,
                                   .frag_id = read->frag_id,
                                   .frag_count = read->frag_count,
                                   .frag_index = read->frag_index};
    require(same(&packet, &as_read));
    Room__Intra__V1__TunnelRequest plain = *read;
    plain.base.n_unknown_fields = 0;
    plain.base.unknown_fields = NULL;
    compare_writing(&packet, &plain, true);
    plain.conn_id = plain.frag_id = plain.frag_count = plain.frag_index = 0;
    compare_writing(&packet, &plain, false);
    room__intra__v1__tunnel_request__free_unpacked(read, NULL);
  }
  free(theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  compare_packet(bytes, len);
  compare_tunnel_message(bytes, len);
  return 0;
}
