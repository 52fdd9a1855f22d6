// A PROXY header, piece by piece as the first byte says: it never takes more than it has, and
// the pieces make no difference.
#include <stdlib.h>
#include <string.h>

#include "worker/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

struct outcome {
  int found;
  size_t used;
  struct sockaddr_storage address;
  socklen_t address_len;
};

static struct outcome take(const uint8_t *bytes, size_t len, size_t step) {
  struct outcome outcome = {.found = PROXY_HEADER_MORE};
  struct proxy_header header = {.len = 0};
  while (outcome.found == PROXY_HEADER_MORE && outcome.used < len) {
    size_t wanted = proxy_header_wanted(&header);
    if (wanted == 0) {
      abort();
    }
    size_t given = wanted < step ? wanted : step;
    given = given < len - outcome.used ? given : len - outcome.used;
    outcome.found = proxy_header_take(&header, bytes + outcome.used, given, &outcome.address,
                                      &outcome.address_len);
    outcome.used += given;
    if (header.len > PROXY_HEADER_MAX_BYTES) {
      abort();
    }
  }
  return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  if (len < 2) {
    return 0;
  }
  struct outcome whole = take(bytes + 1, len - 1, SIZE_MAX);
  struct outcome pieces = take(bytes + 1, len - 1, (size_t)bytes[0] + 1);
  // What is wrong may be seen earlier in pieces.
  if (whole.found != pieces.found || whole.address_len != pieces.address_len ||
      (whole.found == 0 && whole.used != pieces.used) ||
      memcmp(&whole.address, &pieces.address, sizeof whole.address) != 0) {
    abort();
  }
  return 0;
}
