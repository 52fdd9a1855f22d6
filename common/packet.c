#include "common/packet.h"

#include <string.h>

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

// Field numbers. Packet and the tunnel messages agree on data to seq only.
enum {
  FIELD_DATA = 1,
  FIELD_DATA_VERSION = 2,
  FIELD_OBJ = 3,
  FIELD_MOD = 4,
  FIELD_SEQ = 5,
  PACKET_VER = 6,
  PACKET_INDEX = 7,
  PACKET_CONN_ID = 8,
  PACKET_FRAG_ID = 9,
  PACKET_FRAG_COUNT = 10,
  PACKET_FRAG_INDEX = 11,
  PACKET_COMPRESS = 20,
  TUNNEL_INDEX = 6,
  TUNNEL_CONN_ID = 7,
  TUNNEL_FRAG_ID = 8,
  TUNNEL_FRAG_COUNT = 9,
  TUNNEL_FRAG_INDEX = 10,
};

// Those of a tag or a length have 32 bits: of more than five bytes, even zeros, they are malformed.
enum { VARINT_MAX_BYTES = 10, SHORT_VARINT_MAX_BYTES = 5 };

// --- Reading -----------------------------------------------------------------

struct reader {
  const uint8_t *at;
  const uint8_t *end;
};

static bool read_varint(struct reader *reader, int max_bytes, uint64_t *value) {
  uint64_t sum = 0;
  if (reader->at < reader->end && *reader->at < 0x80) {  // as nearly all are
    *value = *reader->at++;
    return true;
  }
  for (int i = 0; i < max_bytes && reader->at < reader->end; i++) {
    uint8_t byte = *reader->at++;
    sum |= (uint64_t)(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      *value = sum;
      return true;
    }
  }
  return false;
}

static bool read_bytes(struct reader *reader, const uint8_t **bytes, size_t *len) {
  uint64_t value;
  if (!read_varint(reader, SHORT_VARINT_MAX_BYTES, &value) ||
      value > (uint64_t)(reader->end - reader->at)) {
    return false;
  }
  *bytes = reader->at;
  *len = (size_t)value;
  reader->at += value;
  return true;
}

// Passes over a field that nobody here knows.
static bool skip(struct reader *reader, unsigned type) {
  const uint8_t *bytes;
  uint64_t value;
  size_t len;
  switch (type) {
    case WIRE_VARINT: return read_varint(reader, VARINT_MAX_BYTES, &value);
    case WIRE_BYTES: return read_bytes(reader, &bytes, &len);
    case WIRE_FIXED64: len = 8; break;
    case WIRE_FIXED32: len = 4; break;
    default: return false;  // groups are not in proto3
  }
  if ((size_t)(reader->end - reader->at) < len) {
    return false;
  }
  reader->at += len;
  return true;
}

// Reads field by field; set stores a number, unless it knows no such field.
static int decode(struct packet *packet, const uint8_t *bytes, size_t len,
                  void (*set)(struct packet *packet, uint64_t field, uint64_t value)) {
  struct reader reader = {bytes, bytes + len};
  memset(packet, 0, sizeof *packet);
  while (reader.at < reader.end) {
    uint64_t tag;
    uint64_t value;
    if (!read_varint(&reader, SHORT_VARINT_MAX_BYTES, &tag) || tag >> 3 == 0 || tag > UINT32_MAX) {
      return ERROR_MALFORMED;
    }
    if (tag == (FIELD_DATA << 3 | WIRE_BYTES)) {
      if (!read_bytes(&reader, &packet->data, &packet->data_len)) {
        return ERROR_MALFORMED;
      }
    } else if ((tag & 7) == WIRE_VARINT) {
      if (!read_varint(&reader, VARINT_MAX_BYTES, &value)) {
        return ERROR_MALFORMED;
      }
      set(packet, tag >> 3, value);
    } else if (!skip(&reader, (unsigned)(tag & 7))) {
      return ERROR_MALFORMED;
    }
  }
  return 0;
}

static void set_common(struct packet *packet, uint64_t field, uint64_t value) {
  switch (field) {
    case FIELD_DATA_VERSION: packet->data_version = value; return;
    case FIELD_OBJ: packet->obj = (int64_t)value; return;
    case FIELD_MOD: packet->mod = (int32_t)value; return;
    case FIELD_SEQ: packet->seq = (int32_t)value; return;
    default: return;
  }
}

static void set_in_packet(struct packet *packet, uint64_t field, uint64_t value) {
  switch (field) {
    case PACKET_VER: packet->ver = (int32_t)value; return;
    case PACKET_INDEX: packet->index = (int32_t)value; return;
    case PACKET_CONN_ID: packet->conn_id = (int32_t)value; return;
    case PACKET_FRAG_ID: packet->frag_id = (int32_t)value; return;
    case PACKET_FRAG_COUNT: packet->frag_count = (int32_t)value; return;
    case PACKET_FRAG_INDEX: packet->frag_index = (int32_t)value; return;
    case PACKET_COMPRESS: packet->compress = value != 0; return;
    default: set_common(packet, field, value); return;
  }
}

static void set_in_tunnel_message(struct packet *packet, uint64_t field, uint64_t value) {
  switch (field) {
    case TUNNEL_INDEX: packet->index = (int32_t)value; return;
    case TUNNEL_CONN_ID: packet->conn_id = (int32_t)value; return;
    case TUNNEL_FRAG_ID: packet->frag_id = (int32_t)value; return;
    case TUNNEL_FRAG_COUNT: packet->frag_count = (int32_t)value; return;
    case TUNNEL_FRAG_INDEX: packet->frag_index = (int32_t)value; return;
    default: set_common(packet, field, value); return;
  }
}

int packet_decode(struct packet *packet, const uint8_t *bytes, size_t len) {
  return decode(packet, bytes, len, set_in_packet);
}

int tunnel_message_decode(struct packet *packet, const uint8_t *bytes, size_t len) {
  return decode(packet, bytes, len, set_in_tunnel_message);
}

// --- Writing -----------------------------------------------------------------

static size_t varint_size(uint64_t value) {
  size_t size = 1;
  while (value >= 0x80) {
    value >>= 7;
    size++;
  }
  return size;
}

static uint8_t *write_varint(uint8_t *out, uint64_t value) {
  while (value >= 0x80) {
    *out++ = (uint8_t)(value | 0x80);
    value >>= 7;
  }
  *out++ = (uint8_t)value;
  return out;
}

static size_t number_size(unsigned field, uint64_t value) {
  return value == 0 ? 0 : varint_size(field << 3) + varint_size(value);
}

static uint8_t *write_number(uint8_t *out, unsigned field, uint64_t value) {
  if (value == 0) {
    return out;
  }
  return write_varint(write_varint(out, field << 3 | WIRE_VARINT), value);
}

// An int32 travels as the int64 of the same value.
static uint64_t wide(int32_t value) { return (uint64_t)(int64_t)value; }

static size_t common_size(const struct packet *packet) {
  size_t size = packet->data_len == 0 ? 0 : 1 + varint_size(packet->data_len) + packet->data_len;
  return size + number_size(FIELD_DATA_VERSION, packet->data_version) +
         number_size(FIELD_OBJ, (uint64_t)packet->obj) + number_size(FIELD_MOD, wide(packet->mod)) +
         number_size(FIELD_SEQ, wide(packet->seq));
}

static uint8_t *write_common(const struct packet *packet, uint8_t *out) {
  if (packet->data_len > 0) {
    *out++ = FIELD_DATA << 3 | WIRE_BYTES;
    out = write_varint(out, packet->data_len);
    memcpy(out, packet->data, packet->data_len);
    out += packet->data_len;
  }
  out = write_number(out, FIELD_DATA_VERSION, packet->data_version);
  out = write_number(out, FIELD_OBJ, (uint64_t)packet->obj);
  out = write_number(out, FIELD_MOD, wide(packet->mod));
  return write_number(out, FIELD_SEQ, wide(packet->seq));
}

size_t packet_size(const struct packet *packet) {
  return common_size(packet) + number_size(PACKET_VER, wide(packet->ver)) +
         number_size(PACKET_INDEX, wide(packet->index)) +
         number_size(PACKET_CONN_ID, wide(packet->conn_id)) +
         number_size(PACKET_FRAG_ID, wide(packet->frag_id)) +
         number_size(PACKET_FRAG_COUNT, wide(packet->frag_count)) +
         number_size(PACKET_FRAG_INDEX, wide(packet->frag_index)) +
         number_size(PACKET_COMPRESS, packet->compress);
}

uint8_t *packet_encode(const struct packet *packet, uint8_t *out) {
  out = write_common(packet, out);
  out = write_number(out, PACKET_VER, wide(packet->ver));
  out = write_number(out, PACKET_INDEX, wide(packet->index));
  out = write_number(out, PACKET_CONN_ID, wide(packet->conn_id));
  out = write_number(out, PACKET_FRAG_ID, wide(packet->frag_id));
  out = write_number(out, PACKET_FRAG_COUNT, wide(packet->frag_count));
  out = write_number(out, PACKET_FRAG_INDEX, wide(packet->frag_index));
  return write_number(out, PACKET_COMPRESS, packet->compress);
}

size_t tunnel_message_size(const struct packet *packet, bool with_fragments) {
  size_t size = common_size(packet) + number_size(TUNNEL_INDEX, wide(packet->index));
  if (with_fragments) {
    size += number_size(TUNNEL_CONN_ID, wide(packet->conn_id)) +
            number_size(TUNNEL_FRAG_ID, wide(packet->frag_id)) +
            number_size(TUNNEL_FRAG_COUNT, wide(packet->frag_count)) +
            number_size(TUNNEL_FRAG_INDEX, wide(packet->frag_index));
  }
  return size;
}

uint8_t *tunnel_message_encode(const struct packet *packet, bool with_fragments, uint8_t *out) {
  out = write_common(packet, out);
  out = write_number(out, TUNNEL_INDEX, wide(packet->index));
  if (with_fragments) {
    out = write_number(out, TUNNEL_CONN_ID, wide(packet->conn_id));
    out = write_number(out, TUNNEL_FRAG_ID, wide(packet->frag_id));
    out = write_number(out, TUNNEL_FRAG_COUNT, wide(packet->frag_count));
    out = write_number(out, TUNNEL_FRAG_INDEX, wide(packet->frag_index));
  }
  return out;
}
