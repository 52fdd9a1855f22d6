// Memory that will be needed soon, asked for before it is: where many quiet clients take turns each
// touch is a wait, and those of several of them can go on at once. Who has several before him asks
// level by level: for all of them, then for what they point to, and so on.
#ifndef JANUS_COMMON_PREFETCH_H
#define JANUS_COMMON_PREFETCH_H

#include <stddef.h>

#include "common/cache_line.h"

// memory may be NULL, or anything else: nothing is read.
static inline void prefetch(const void *memory, size_t bytes) {
  for (size_t at = 0; memory && at < bytes; at += CACHE_LINE_BYTES) {
    __builtin_prefetch((const char *)memory + at, 1);
  }
}

#endif
