// Numbers as FEC, KCP and smux put them on the wire: little-endian, at any address.
// Pure functions, any thread.
#ifndef JANUS_COMMON_KCP_LITTLE_ENDIAN_H
#define JANUS_COMMON_KCP_LITTLE_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t get_u16(const uint8_t *bytes) {
  uint16_t value;
  memcpy(&value, bytes, sizeof value);
  return le16toh(value);
}

static inline uint32_t get_u32(const uint8_t *bytes) {
  uint32_t value;
  memcpy(&value, bytes, sizeof value);
  return le32toh(value);
}

static inline void put_u16(uint8_t *out, uint16_t value) {
  value = htole16(value);
  memcpy(out, &value, sizeof value);
}

static inline void put_u32(uint8_t *out, uint32_t value) {
  value = htole32(value);
  memcpy(out, &value, sizeof value);
}

#endif
