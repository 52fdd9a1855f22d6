// zlib (RFC 1950) with bounds, for the `data` of packets.
//
// A deflater keeps its zlib states and one output buffer between calls, so
// nothing is allocated per message. It belongs to one thread; each result is
// borrowed until the next call on the same deflater.
#ifndef JANUS_COMMON_DEFLATE_H
#define JANUS_COMMON_DEFLATE_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct deflater;

struct deflater *deflater_new(void);  // NULL when out of memory
void deflater_free(struct deflater *deflater);

// Compresses at a zlib level (1 to 9). ERROR_MEMORY.
int deflater_compress(struct deflater *deflater, int level, const uint8_t *bytes, size_t len,
                      const uint8_t **out, size_t *out_len) MUST_CHECK;

// Inflates to at most max_bytes. ERROR_TOO_LARGE as soon as the output would
// pass it (never more than that is produced), ERROR_MALFORMED for anything that
// is not a zlib stream or has bytes behind its end, ERROR_TRUNCATED for one that
// ends early.
int deflater_inflate(struct deflater *deflater, const uint8_t *bytes, size_t len, size_t max_bytes,
                     const uint8_t **out, size_t *out_len) MUST_CHECK;

#endif
