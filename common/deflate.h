// zlib's format (RFC 1950) with bounds, for the `data` of packets: by libdeflate where the build
// has it, else by zlib. The bytes differ, the format does not, and what is refused is the same: but
// for code words that the format has and no compressor may write, which libdeflate takes for the
// nearest that mean something; and what is both too large and wrong may be refused for either.
//
// A deflater keeps its states and one output buffer between calls, so nothing is allocated per
// message. It belongs to one thread; each result is borrowed until the next call on the same
// deflater.
#ifndef JANUS_COMMON_DEFLATE_H
#define JANUS_COMMON_DEFLATE_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct deflater;

struct deflater *deflater_new(void);       // NULL when out of memory
struct deflater *deflater_new_zlib(void);  // of zlib alone, whatever the build has
void deflater_free(struct deflater *deflater);

// Compresses at a zlib level (1 to 9). ERROR_TOO_LARGE when that is more than max_bytes (never more
// than that is produced), ERROR_MEMORY.
int deflater_compress(struct deflater *deflater, int level, const uint8_t *bytes, size_t len,
                      size_t max_bytes, const uint8_t **out, size_t *out_len) MUST_CHECK;

// The same in pieces, by zlib. The bytes stay the caller's and where they are until it is done, and
// nothing else is compressed by this deflater meanwhile. ERROR_TOO_LARGE for more than 2 GiB,
// ERROR_MEMORY.
int deflater_start(struct deflater *deflater, int level, const uint8_t *bytes, size_t len,
                   size_t max_bytes) MUST_CHECK;
// The next so many bytes. ERROR_BUSY while there are more; else it is done, as above.
int deflater_advance(struct deflater *deflater, size_t bytes, const uint8_t **out,
                     size_t *out_len) MUST_CHECK;

// Inflates to at most max_bytes. ERROR_TOO_LARGE as soon as the output would
// pass it (never more than that is produced), ERROR_MALFORMED for anything that
// is not a zlib stream or has bytes behind its end, ERROR_TRUNCATED for one that
// ends early.
int deflater_inflate(struct deflater *deflater, const uint8_t *bytes, size_t len, size_t max_bytes,
                     const uint8_t **out, size_t *out_len) MUST_CHECK;

#endif
