#include "common/deflate.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#define ZLIB_CONST  // its input is const
#include <zlib.h>

struct deflater {
  z_stream deflate;
  z_stream inflate;
  int level;  // that deflate is set to; 0: not set up
  bool inflate_ready;
  uint8_t *buffer;
  size_t room;
};

enum { FIRST_ROOM_BYTES = 16 << 10 };

struct deflater *deflater_new(void) {
  return calloc(1, sizeof(struct deflater));
}

void deflater_free(struct deflater *deflater) {
  if (deflater) {
    if (deflater->level != 0) {
      deflateEnd(&deflater->deflate);
    }
    if (deflater->inflate_ready) {
      inflateEnd(&deflater->inflate);
    }
    free(deflater->buffer);
    free(deflater);
  }
}

static int make_room(struct deflater *deflater, size_t room) {
  if (room > deflater->room) {
    uint8_t *buffer = realloc(deflater->buffer, room);
    if (!buffer) {
      return ERROR_MEMORY;
    }
    deflater->buffer = buffer;
    deflater->room = room;
  }
  return 0;
}

static int set_level(struct deflater *deflater, int level) {
  if (deflater->level == level) {
    return deflateReset(&deflater->deflate) == Z_OK ? 0 : ERROR_MEMORY;
  }
  if (deflater->level != 0) {
    deflateEnd(&deflater->deflate);
    deflater->level = 0;
  }
  if (deflateInit(&deflater->deflate, level) != Z_OK) {
    return ERROR_MEMORY;
  }
  deflater->level = level;
  return 0;
}

int deflater_compress(struct deflater *deflater, int level, const uint8_t *bytes, size_t len,
                      const uint8_t **out, size_t *out_len) {
  if (len > UINT_MAX / 2) {
    return ERROR_TOO_LARGE;
  }
  int error = set_level(deflater, level);
  if (error == 0) {
    error = make_room(deflater, deflateBound(&deflater->deflate, len));
  }
  if (error != 0) {
    return error;
  }
  z_stream *stream = &deflater->deflate;
  stream->next_in = bytes;
  stream->avail_in = (uInt)len;
  stream->next_out = deflater->buffer;
  stream->avail_out = (uInt)deflater->room;
  if (deflate(stream, Z_FINISH) != Z_STREAM_END) {
    return ERROR_MEMORY;
  }
  *out = deflater->buffer;
  *out_len = deflater->room - stream->avail_out;
  return 0;
}

int deflater_inflate(struct deflater *deflater, const uint8_t *bytes, size_t len, size_t max_bytes,
                     const uint8_t **out, size_t *out_len) {
  z_stream *stream = &deflater->inflate;
  if (len > UINT_MAX || max_bytes > UINT_MAX - 1) {
    return ERROR_TOO_LARGE;
  }
  if ((deflater->inflate_ready ? inflateReset(stream) : inflateInit(stream)) != Z_OK) {
    return ERROR_MEMORY;
  }
  deflater->inflate_ready = true;
  stream->next_in = bytes;
  stream->avail_in = (uInt)len;
  size_t have = 0;
  // One byte of room beyond the bound tells a stream that ends on it from one that
  // goes on.
  const size_t most = max_bytes + 1;
  for (;;) {
    if (have == deflater->room || deflater->room == 0) {
      size_t room = deflater->room == 0 ? FIRST_ROOM_BYTES : deflater->room * 2;
      int error = make_room(deflater, room);
      if (error != 0) {
        return error;
      }
    }
    size_t room = deflater->room < most ? deflater->room : most;
    stream->next_out = deflater->buffer + have;
    stream->avail_out = (uInt)(room - have);
    int status = inflate(stream, Z_NO_FLUSH);
    have = room - stream->avail_out;
    if (have > max_bytes) {
      return ERROR_TOO_LARGE;
    }
    if (status == Z_STREAM_END) {
      break;
    }
    if (status == Z_MEM_ERROR) {
      return ERROR_MEMORY;
    }
    if (status != Z_OK && status != Z_BUF_ERROR) {
      return ERROR_MALFORMED;
    }
    if (stream->avail_in == 0 && stream->avail_out > 0) {
      return ERROR_TRUNCATED;
    }
  }
  if (stream->avail_in > 0) {
    return ERROR_MALFORMED;
  }
  *out = deflater->buffer;
  *out_len = have;
  return 0;
}
