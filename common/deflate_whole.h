// What libdeflate does for common/deflate.c: data that is at hand as a whole, in half of zlib's
// time. Nothing, where the build is without it (HAVE_LIBDEFLATE).
#ifndef JANUS_COMMON_DEFLATE_WHOLE_H
#define JANUS_COMMON_DEFLATE_WHOLE_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct deflate_whole;

// NULL when out of memory, and without libdeflate.
struct deflate_whole *deflate_whole_new(void);
void deflate_whole_free(struct deflate_whole *whole);  // accepts NULL

// The most bytes that len become.
size_t deflate_whole_bound(size_t len);

// ERROR_TOO_LARGE when it does not fit into room bytes, ERROR_MEMORY.
int deflate_whole_compress(struct deflate_whole *whole, int level, const uint8_t *bytes, size_t len,
                           uint8_t *out, size_t room, size_t *out_len) MUST_CHECK;

// ERROR_TOO_LARGE when it does not fit into room bytes, ERROR_MEMORY, ERROR_MALFORMED for
// whatever else is wrong.
int deflate_whole_inflate(struct deflate_whole *whole, const uint8_t *bytes, size_t len,
                          uint8_t *out, size_t room, size_t *out_len) MUST_CHECK;

#endif
