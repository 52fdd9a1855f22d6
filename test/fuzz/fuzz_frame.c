// Frames from a byte stream, taken the way a transport takes them.
#include <stdlib.h>

#include "common/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  while (len > 0) {
    size_t body_len;
    int found = frame_parse(bytes, len, FRAME_BODY_MAX_BYTES, &body_len);
    if (found != 1) {
      break;
    }
    if (body_len == 0 || body_len > FRAME_BODY_MAX_BYTES || body_len + FRAME_HEADER_BYTES > len) {
      abort();
    }
    bytes += FRAME_HEADER_BYTES + body_len;
    len -= FRAME_HEADER_BYTES + body_len;
  }
  return 0;
}
