// The protobuf messages of the hot path, read and written by hand: `Packet`
// between client and gateway, and the tunnel messages between gateway and Roma,
// which carry the same fields under other numbers (proto/packet.proto,
// proto/tunnel.proto). A message is re-wrapped by decoding one form and
// encoding the other; `data` is never copied in between.
//
// Pure functions, any thread. Unknown fields are skipped, as proto3 asks; a
// field that repeats keeps its last value; default values are not written.
// It reads and writes what protobuf-c's generated code does, but for the exceptions
// that test/fuzz/fuzz_packet.c names.
#ifndef JANUS_COMMON_PACKET_H
#define JANUS_COMMON_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

// Module and sequence ids that the gateway itself knows (client protocol).
enum { MODULE_SYSTEM = 1, MODULE_DEV = 2, MODULE_USER = 3, MODULE_ROOM = 6 };
enum {
  SYSTEM_HANDSHAKE = 1,
  SYSTEM_HEARTBEAT = 2,
  SYSTEM_UNEXPECTED_ERROR = 3,
  SYSTEM_LOGOUT = 4,
};

struct packet {
  const uint8_t *data;  // borrowed from the bytes it was decoded from
  size_t data_len;
  uint64_t data_version;
  int64_t obj;
  int32_t mod;
  int32_t seq;
  int32_t ver;
  int32_t index;
  int32_t conn_id;
  int32_t frag_id;
  int32_t frag_count;
  int32_t frag_index;
  bool compress;
};

// Each decoder fills *packet whole; ERROR_MALFORMED leaves it unspecified.
int packet_decode(struct packet *packet, const uint8_t *bytes, size_t len) MUST_CHECK;
int tunnel_message_decode(struct packet *packet, const uint8_t *bytes, size_t len) MUST_CHECK;

// The exact size in bytes of the encoded form, and the encoder, which writes
// just that many bytes and returns the end. with_fragments says whether the
// tunnel type has fields 7 to 10 (conn_id and the frag fields); `ver` and
// `compress` have no place in a tunnel message.
size_t packet_size(const struct packet *packet);
uint8_t *packet_encode(const struct packet *packet, uint8_t *out);
size_t tunnel_message_size(const struct packet *packet, bool with_fragments);
uint8_t *tunnel_message_encode(const struct packet *packet, bool with_fragments, uint8_t *out);

#endif
