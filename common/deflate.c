#include "common/deflate.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#define ZLIB_CONST  // its input is const
#include <zlib.h>

#include "common/deflate_whole.h"

struct deflater {
  struct deflate_whole *whole;  // NULL: zlib does it
  z_stream deflate;
  z_stream inflate;
  int level;    // that deflate is set to; 0: not set up
  size_t left;  // of what is compressed in pieces
  bool inflate_ready;
  uint8_t *buffer;
  size_t room;
};

enum { FIRST_ROOM_BYTES = 16 << 10 };

struct deflater *deflater_new_zlib(void) {
  return calloc(1, sizeof(struct deflater));
}

struct deflater *deflater_new(void) {
  struct deflater *deflater = deflater_new_zlib();
  if (deflater) {
    deflater->whole = deflate_whole_new();  // if there is none, zlib does it all
  }
  return deflater;
}

void deflater_free(struct deflater *deflater) {
  if (deflater) {
    if (deflater->level != 0) {
      deflateEnd(&deflater->deflate);
    }
    if (deflater->inflate_ready) {
      inflateEnd(&deflater->inflate);
    }
    deflate_whole_free(deflater->whole);
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

int deflater_start(struct deflater *deflater, int level, const uint8_t *bytes, size_t len,
                   size_t max_bytes) {
  if (len > UINT_MAX / 2) {
    return ERROR_TOO_LARGE;
  }
  size_t bound = compressBound(len);
  size_t room = max_bytes < bound ? max_bytes : bound;
  int error = set_level(deflater, level);
  if (error == 0) {
    error = make_room(deflater, room);
  }
  if (error == 0) {
    deflater->deflate.next_in = bytes;
    deflater->deflate.next_out = deflater->buffer;
    deflater->deflate.avail_out = (uInt)room;
    deflater->left = len;
  }
  return error;
}

int deflater_advance(struct deflater *deflater, size_t bytes, const uint8_t **out,
                     size_t *out_len) {
  z_stream *stream = &deflater->deflate;
  size_t piece = bytes < deflater->left ? bytes : deflater->left;
  deflater->left -= piece;
  stream->avail_in = (uInt)piece;
  int status = deflate(stream, deflater->left > 0 ? Z_NO_FLUSH : Z_FINISH);
  if (status == Z_STREAM_END) {
    *out = deflater->buffer;
    *out_len = stream->total_out;
    return 0;
  }
  return deflater->left > 0 && stream->avail_out > 0 ? ERROR_BUSY : ERROR_TOO_LARGE;
}

static int compress_whole(struct deflater *deflater, int level, const uint8_t *bytes, size_t len,
                          size_t max_bytes, size_t *out_len) {
  size_t bound = deflate_whole_bound(len);
  size_t room = max_bytes < bound ? max_bytes : bound;
  int error = make_room(deflater, room);
  return error != 0 ? error
                    : deflate_whole_compress(deflater->whole, level, bytes, len, deflater->buffer,
                                             room, out_len);
}

int deflater_compress(struct deflater *deflater, int level, const uint8_t *bytes, size_t len,
                      size_t max_bytes, const uint8_t **out, size_t *out_len) {
  int error;
  if (deflater->whole) {
    error = compress_whole(deflater, level, bytes, len, max_bytes, out_len);
    *out = deflater->buffer;
  } else {
    error = deflater_start(deflater, level, bytes, len, max_bytes);
    if (error == 0) {
      error = deflater_advance(deflater, len, out, out_len);
    }
  }
  return error;
}

// Into whatever room there is at first; more is made only when that has been filled.
static int inflate_whole(struct deflater *deflater, const uint8_t *bytes, size_t len,
                         size_t max_bytes, size_t *out_len) {
  for (size_t wanted = FIRST_ROOM_BYTES;; wanted = deflater->room * 2) {
    int error = make_room(deflater, wanted);
    if (error != 0) {
      return error;
    }
    size_t room = deflater->room < max_bytes ? deflater->room : max_bytes;
    error = deflate_whole_inflate(deflater->whole, bytes, len, deflater->buffer, room, out_len);
    if (error != ERROR_TOO_LARGE || room == max_bytes) {
      return error;
    }
  }
}

int deflater_inflate(struct deflater *deflater, const uint8_t *bytes, size_t len, size_t max_bytes,
                     const uint8_t **out, size_t *out_len) {
  z_stream *stream = &deflater->inflate;
  if (len > UINT_MAX || max_bytes > UINT_MAX - 1) {
    return ERROR_TOO_LARGE;
  }
  if (deflater->whole) {
    int error = inflate_whole(deflater, bytes, len, max_bytes, out_len);
    *out = deflater->buffer;
    // What is too large has cost enough. Whatever else libdeflate does not take, zlib judges: so it
    // is refused for the same reason with both.
    if (error == 0 || error == ERROR_TOO_LARGE) {
      return error;
    }
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
