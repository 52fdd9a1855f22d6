#include "common/frame.h"

int frame_parse(const uint8_t *bytes, size_t len, size_t body_max, size_t *body_len) {
  *body_len = 0;
  if (len < FRAME_HEADER_BYTES) {
    return 0;
  }
  uint32_t value = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
                   (uint32_t)bytes[3];
  if (value == 0 || value > INT32_MAX) {
    return ERROR_MALFORMED;
  }
  if (value > body_max) {
    return ERROR_TOO_LARGE;
  }
  *body_len = value;
  return len - FRAME_HEADER_BYTES >= value ? 1 : 0;
}

void frame_write_header(uint8_t out[FRAME_HEADER_BYTES], size_t body_len) {
  out[0] = (uint8_t)(body_len >> 24);
  out[1] = (uint8_t)(body_len >> 16);
  out[2] = (uint8_t)(body_len >> 8);
  out[3] = (uint8_t)body_len;
}
