// The wait before a further try: it doubles with each failure up to a bound, with
// jitter, so that those who lost the same server do not all come back at once.
#ifndef JANUS_COMMON_BACKOFF_H
#define JANUS_COMMON_BACKOFF_H

#include <sodium.h>
#include <stdint.h>

// The wait in ms after so many failures in a row before this one: anything from half of
// it to all of it. max_ms is at most a day.
static inline int64_t backoff_ms(int64_t first_ms, int64_t max_ms, uint32_t failures) {
  int64_t wait_ms = first_ms << (failures < 16 ? failures : 16);
  if (wait_ms > max_ms) {
    wait_ms = max_ms;
  }
  return wait_ms / 2 + (int64_t)randombytes_uniform((uint32_t)(wait_ms / 2 + 1));
}

#endif
