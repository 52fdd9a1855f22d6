#include "common/deflate_whole.h"

#ifdef HAVE_LIBDEFLATE

#include <libdeflate.h>
#include <stdlib.h>

struct deflate_whole {
  struct libdeflate_compressor *compressor;
  int level;  // of compressor
  struct libdeflate_decompressor *decompressor;
};

struct deflate_whole *deflate_whole_new(void) {
  return calloc(1, sizeof(struct deflate_whole));
}

void deflate_whole_free(struct deflate_whole *whole) {
  if (whole) {
    libdeflate_free_compressor(whole->compressor);
    libdeflate_free_decompressor(whole->decompressor);
    free(whole);
  }
}

size_t deflate_whole_bound(size_t len) { return libdeflate_zlib_compress_bound(NULL, len); }

int deflate_whole_compress(struct deflate_whole *whole, int level, const uint8_t *bytes, size_t len,
                           uint8_t *out, size_t room, size_t *out_len) {
  if (!whole->compressor || whole->level != level) {
    libdeflate_free_compressor(whole->compressor);
    whole->compressor = libdeflate_alloc_compressor(level);
    whole->level = level;
  }
  if (!whole->compressor) {
    return ERROR_MEMORY;
  }
  *out_len = libdeflate_zlib_compress(whole->compressor, bytes, len, out, room);
  return *out_len > 0 ? 0 : ERROR_TOO_LARGE;
}

int deflate_whole_inflate(struct deflate_whole *whole, const uint8_t *bytes, size_t len,
                          uint8_t *out, size_t room, size_t *out_len) {
  size_t used;
  if (!whole->decompressor && !(whole->decompressor = libdeflate_alloc_decompressor())) {
    return ERROR_MEMORY;
  }
  switch (
      libdeflate_zlib_decompress_ex(whole->decompressor, bytes, len, out, room, &used, out_len)) {
    case LIBDEFLATE_SUCCESS: return used == len ? 0 : ERROR_MALFORMED;
    case LIBDEFLATE_INSUFFICIENT_SPACE: return ERROR_TOO_LARGE;
    default: return ERROR_MALFORMED;
  }
}

#else

struct deflate_whole *deflate_whole_new(void) {
  return NULL;
}

void deflate_whole_free(struct deflate_whole *whole) { (void)whole; }

size_t deflate_whole_bound(size_t len) { return len; }

// Nobody has one to call them with.
int deflate_whole_compress(struct deflate_whole *whole, int level, const uint8_t *bytes, size_t len,
                           uint8_t *out, size_t room, size_t *out_len) {
  (void)whole, (void)level, (void)bytes, (void)len, (void)out, (void)room, (void)out_len;
  return ERROR_MEMORY;
}

int deflate_whole_inflate(struct deflate_whole *whole, const uint8_t *bytes, size_t len,
                          uint8_t *out, size_t room, size_t *out_len) {
  (void)whole, (void)bytes, (void)len, (void)out, (void)room, (void)out_len;
  return ERROR_MEMORY;
}

#endif
