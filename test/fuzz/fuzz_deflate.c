// What is inflated, by what the build has and by zlib alone: the same, or refused for the same
// reason, unless it is too large, within the bound; and what comes out is compressed, whole and in
// pieces, to what inflates to it again.
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "common/deflate.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { BOUND = 100000, PIECE = 2048 };

static void require(bool holds) {
  if (!holds) {
    abort();
  }
}

static void inflates_to(struct deflater *deflater, const uint8_t *packed, size_t packed_len,
                        const uint8_t *text, size_t len) {
  uint8_t *copy = malloc(packed_len);
  const uint8_t *out;
  size_t out_len;
  memcpy(copy, packed, packed_len);
  require(deflater_inflate(deflater, copy, packed_len, BOUND, &out, &out_len) == 0);
  require(out_len == len && (len == 0 || memcmp(out, text, len) == 0));
  free(copy);
}

static void compress_again(struct deflater *deflater, int level, const uint8_t *text, size_t len) {
  const uint8_t *out;
  size_t out_len;
  int error;
  require(deflater_compress(deflater, level, text, len, SIZE_MAX, &out, &out_len) == 0);
  inflates_to(deflater, out, out_len, text, len);
  require(deflater_start(deflater, level, text, len, SIZE_MAX) == 0);
  while ((error = deflater_advance(deflater, PIECE, &out, &out_len)) == ERROR_BUSY) {
  }
  require(error == 0);
  inflates_to(deflater, out, out_len, text, len);
}

// What zlib does not take for a code word that means nothing is sound for the rest: it ends with
// the checksum of what came out.
static bool is_sound(const uint8_t *bytes, size_t len, const uint8_t *out, size_t out_len) {
  uint32_t sum = (uint32_t)adler32_z(1, out, out_len);
  const uint8_t end[4] = {(uint8_t)(sum >> 24), (uint8_t)(sum >> 16), (uint8_t)(sum >> 8),
                          (uint8_t)sum};
  return len >= sizeof end && memcmp(bytes + len - sizeof end, end, sizeof end) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  static struct deflater *ours;
  static struct deflater *zlib;
  const uint8_t *out[2];
  size_t out_len[2];
  if (!ours) {
    ours = deflater_new();
    zlib = deflater_new_zlib();
    require(ours && zlib);
  }
  int result = deflater_inflate(ours, bytes, len, BOUND, &out[0], &out_len[0]);
  int by_zlib = deflater_inflate(zlib, bytes, len, BOUND, &out[1], &out_len[1]);
  if (result == 0 && by_zlib == ERROR_MALFORMED) {
    require(out_len[0] <= BOUND && is_sound(bytes, len, out[0], out_len[0]));
    return 0;
  }
  // What is too large may be wrong as well.
  require(result == by_zlib || (result == ERROR_TOO_LARGE && by_zlib != 0));
  require(result == 0 || result == ERROR_TOO_LARGE || result == ERROR_MALFORMED ||
          result == ERROR_TRUNCATED);
  if (result == 0) {
    require(out_len[0] == out_len[1] && out_len[0] <= BOUND);
    require(out_len[0] == 0 || memcmp(out[0], out[1], out_len[0]) == 0);
    uint8_t *text = malloc(out_len[0] + 1);
    memcpy(text, out[0], out_len[0]);
    compress_again(ours, 1 + (int)(len % 9), text, out_len[0]);
    compress_again(zlib, 1 + (int)(len % 9), text, out_len[0]);
    free(text);
  }
  return 0;
}
