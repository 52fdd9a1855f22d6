// Memory that begins with a cache line, for structs whose beginning is what is touched most: laid
// out by lines, they are of use only so. Any thread.
#ifndef JANUS_COMMON_CACHE_LINE_H
#define JANUS_COMMON_CACHE_LINE_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_LINE_BYTES = 64 };

// All zero, for free(). NULL when out of memory.
static inline void *cache_line_calloc(size_t size) {
  size_t whole = (size + CACHE_LINE_BYTES - 1) & ~(size_t)(CACHE_LINE_BYTES - 1);
  void *memory = aligned_alloc(CACHE_LINE_BYTES, whole);
  return memory ? memset(memory, 0, size) : NULL;
}

#endif
